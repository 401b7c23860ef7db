"""How many test examples do prompts solve that no run has trained? Scores, their means, and intervals of these.

Prompts are scored on the runs' own test examples. Intervals draw runs and test examples anew.

Shapes: N runs, P prompt tokens, d width, E test examples of a task, S scored prompts, B bootstrap draws.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import Resampler, newcombe, percentile_interval, varies, wilson
from promptgeo.analysis.result import Number, Result
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.evaluation.evaluate import Evaluation, evaluate
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of

BLOCK = 32
"""Prompts that are scored between two moves of the progress bar."""

Kind = TypeVar("Kind", bound=Hashable)


# Examples.


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Test examples that prompts are scored on, as the runs of their task were scored."""

    task: Task
    """Its test split holds only these examples."""
    max_new_tokens: int
    of: int
    """Test examples that the task has."""

    @property
    def n(self) -> int:
        return len(self.task.test)

    def evaluate(self, lm: LM, prompts_SPd: np.ndarray | Tensor, outputs: bool = False) -> Evaluation:
        """The scores of prompts [S, P, d] on these examples; outputs: also what the model writes."""
        return evaluate(lm, prompts_SPd, self.task, max_new_tokens=self.max_new_tokens, outputs=outputs)


def evaluation_sets(runs: RunTable, what: str, max_examples: int | None = None, seed: int = 0) -> list[EvaluationSet]:
    """The evaluation set of each run; runs of the same task share one.

    what: the question, for messages. max_examples: at most so many test examples of a task, drawn by seed; None: all.
    Raises UserError for prompts that were trained elsewhere, or where a run's data have changed.
    """
    if runs.runs is None:
        raise UserError(
            f"{what}: needs runs trained here; prompts from elsewhere do not say what their task's examples are"
        )
    by_task: dict[tuple[int, int], EvaluationSet] = {}
    sets_N = []
    for run in runs.runs:
        task, limit = task_of(run), run.info["config"]["evaluation"]["max_new_tokens"]
        if (id(task), limit) not in by_task:
            test, total = task.test, len(task.test)
            if max_examples is not None and total > max_examples:
                chosen = np.random.default_rng(seed).choice(total, max_examples, replace=False)
                test = [test[i] for i in np.sort(chosen)]
            # No label set: whether the label is the likeliest of it is not needed and would cost a forward per label.
            by_task[id(task), limit] = EvaluationSet(replace(task, test=test, labels=None), limit, total)
        sets_N.append(by_task[id(task), limit])
    return sets_N


def sampled_examples(what: str, sets: Sequence[EvaluationSet], max_examples: int | None, seed: int) -> list[str]:
    """The omission of an analysis that scores only some of its tasks' examples; empty where it scores all."""
    names = [f"{each.task.name} ({each.of})" for each in sets if each.n < each.of]
    if not names:
        return []
    return [
        f"{what}: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of "
        f"{', '.join(dict.fromkeys(names))} (max_examples=null scores all)."
    ]


# Scores.


@dataclass(frozen=True, eq=False)
class Candidate(Generic[Kind]):
    """A prompt to score."""

    kind: Kind
    """As a question names its prompts."""
    prompt_Pd: np.ndarray
    evaluation_set: EvaluationSet
    runs: tuple[int, ...]
    """The runs that it is made of; () for a mean of all runs of a task, which is scored as it is."""


class Answers(NamedTuple):
    """What one prompt gets right."""

    correct_E: np.ndarray
    """[E] bool."""
    outputs_E: list[str]
    """What the model writes; empty where only scores are needed."""


def answers(
    lm: LM, prompts_S: Sequence[np.ndarray], sets_S: Sequence[EvaluationSet], outputs: bool = False
) -> list[Answers]:
    """What each prompt [P, d] gets right in its evaluation set, and with outputs=True what the model writes.

    Prompts of one evaluation set and length are scored together, equal ones once.
    """
    keys_S: list[tuple[EvaluationSet, bytes]] = []
    together: dict[tuple[EvaluationSet, int], dict[bytes, np.ndarray]] = {}
    for prompt_Pd, evaluation_set in zip(prompts_S, sets_S, strict=True):
        prompt_Pd = np.asarray(prompt_Pd, dtype=np.float32)
        keys_S.append((evaluation_set, prompt_Pd.tobytes()))
        together.setdefault((evaluation_set, len(prompt_Pd)), {}).setdefault(prompt_Pd.tobytes(), prompt_Pd)
    blocks = [
        (evaluation_set, list(different.items())[k : k + BLOCK])
        for (evaluation_set, _), different in together.items()
        for k in range(0, len(different), BLOCK)
    ]
    scored: dict[tuple[EvaluationSet, bytes], Answers] = {}
    for evaluation_set, block in progress(blocks, "scoring prompts"):
        evaluation = evaluation_set.evaluate(lm, np.stack([prompt_Pd for _, prompt_Pd in block]), outputs)
        for s, (content, _) in enumerate(block):
            texts_E = evaluation.outputs[s] if evaluation.outputs else []
            scored[evaluation_set, content] = Answers(evaluation.correct[s], texts_E)
    return [scored[key] for key in keys_S]


def score(lm: LM, prompts_S: Sequence[np.ndarray], sets_S: Sequence[EvaluationSet]) -> list[np.ndarray]:
    """What each prompt [P, d] gets right in its evaluation set: S arrays [E] bool. See answers."""
    return [each.correct_E for each in answers(lm, prompts_S, sets_S)]


@dataclass(frozen=True, eq=False)
class Scored:
    """Scored prompts of one kind, of which the mean accuracy is of interest."""

    correct_S: list[np.ndarray]
    """[E] bool each."""
    sets_S: list[EvaluationSet]
    runs_S: list[tuple[int, ...]]
    """The runs that each prompt is made of; () for a mean of all runs of a task, which is scored as it is."""
    tasks_equal: bool = False
    """Whether each task weighs the same in the mean, else each prompt."""

    def __len__(self) -> int:
        return len(self.correct_S)

    def where(self, holds: Callable[[int], bool]) -> "Scored":
        """The prompts of some numbers, each of which weighs the same."""
        chosen = [s for s in range(len(self)) if holds(s)]
        return Scored(
            [self.correct_S[s] for s in chosen], [self.sets_S[s] for s in chosen], [self.runs_S[s] for s in chosen]
        )

    def on(self, *evaluation_sets: EvaluationSet) -> "Scored":
        """The prompts that were scored on one of these; tasks weigh as before."""
        return replace(self.where(lambda s: self.sets_S[s] in evaluation_sets), tasks_equal=self.tasks_equal)

    @property
    def sets(self) -> list[EvaluationSet]:
        """Each evaluation set once, in order of appearance."""
        return list(dict.fromkeys(self.sets_S))

    @cached_property
    def parts(self) -> list["Scored"]:
        """What weighs the same in the mean: the tasks, or all prompts in one."""
        if not self.tasks_equal:
            return [self]
        return [replace(self.on(evaluation_set), tasks_equal=False) for evaluation_set in self.sets]

    @property
    def mean(self) -> float:
        return float(np.mean([np.mean([c.mean() for c in part.correct_S]) for part in self.parts]))

    @property
    def examples(self) -> int:
        """Different test examples among them."""
        return sum(evaluation_set.n for evaluation_set in self.sets)


def score_kinds(lm: LM, candidates: Sequence[Candidate[Kind]], tasks_equal: bool = False) -> dict[Kind, Scored]:
    """The scores of each kind of prompts. tasks_equal: whether each task weighs the same in a kind's mean."""
    correct_S = score(lm, [c.prompt_Pd for c in candidates], [c.evaluation_set for c in candidates])
    kinds: dict[Kind, list[int]] = {}
    for s, candidate in enumerate(candidates):
        kinds.setdefault(candidate.kind, []).append(s)
    return {
        kind: Scored(
            [correct_S[s] for s in chosen],
            [candidates[s].evaluation_set for s in chosen],
            [candidates[s].runs for s in chosen],
            tasks_equal,
        )
        for kind, chosen in kinds.items()
    }


# Intervals.


class Bootstrap:
    """Intervals of mean accuracies: draws runs and test examples of each task; the same draws for all comparisons.

    Prompts made of two runs share runs, so they are not drawn themselves: a prompt of runs that are drawn a and b times
    weighs a * b.
    """

    def __init__(self, runs: int, draws: int = 1000, seed: int = 0):
        self.resampler = Resampler([range(runs)], runs, draws, seed)

    def means(self, scored: Scored) -> np.ndarray:
        """[B] float64: the mean accuracy in each draw; nan where a draw holds none of the prompts' runs."""
        if scored.tasks_equal:
            return np.mean([self.means(part) for part in scored.parts], axis=0)
        accuracies_BS = np.stack(
            [
                self.resampler.examples(evaluation_set, evaluation_set.n) / evaluation_set.n @ correct_E
                for evaluation_set, correct_E in zip(scored.sets_S, scored.correct_S, strict=True)
            ],
            axis=1,
        )
        weights_BS = np.stack([self.resampler.runs_BN[:, list(members)].prod(1) for members in scored.runs_S], axis=1)
        totals_B = weights_BS.sum(1)
        return (weights_BS * accuracies_BS).sum(1) / np.where(totals_B > 0, totals_B, np.nan)

    def interval(self, scored: Scored) -> tuple[float, float]:
        """95 % interval of the mean accuracy.

        Wilson's for a single prompt; also where every prompt gets everything right, or nothing, so that draws cannot
        vary: then for as many examples as there are different ones.
        """
        if len(scored) == 1:
            return wilson(int(scored.correct_S[0].sum()), scored.examples)
        means_B = self.means(scored)
        if not varies(means_B):
            return wilson(round(scored.mean * scored.examples), scored.examples)
        return percentile_interval(means_B)

    def mean(self, scored: Scored) -> tuple[float, float, float]:
        """(mean accuracy, its 95 % interval)."""
        return scored.mean, *self.interval(scored)

    def difference(self, scored: Scored, control: Scored) -> tuple[float, float, float]:
        """(first mean - second, its 95 % interval), in the same draws; Newcombe's interval where neither varies."""
        difference = scored.mean - control.mean
        drawn_B = self.means(scored) - self.means(control)
        if varies(drawn_B):
            return difference, *percentile_interval(drawn_B)
        return difference, *newcombe(scored.mean, self.interval(scored), control.mean, self.interval(control))


# Numbers of a result.


def add_mean(
    result: Result,
    quantity: str,
    scored: Scored,
    bootstrap: Bootstrap,
    n: int | None = None,
    unit: str = "test examples",
) -> Number:
    """Adds a mean accuracy with its interval. n: how many of `unit` it rests on; None: the different test examples."""
    mean, low, high = bootstrap.mean(scored)
    return result.number(quantity, mean, scored.examples if n is None else n, unit, low, high)


def add_difference(
    result: Result,
    quantity: str,
    scored: Scored,
    control: Scored,
    bootstrap: Bootstrap,
    n: int | None = None,
    unit: str = "test examples",
) -> Number:
    """Adds a mean accuracy less a control's, with its interval.

    n: how many of `unit` it rests on; None: the different test examples of `scored`.
    """
    difference, low, high = bootstrap.difference(scored, control)
    return result.number(quantity, difference, scored.examples if n is None else n, unit, low, high)


# In words.


@dataclass(frozen=True)
class Control:
    """What prompts are compared with, and what it means if they solve more, no different a share, or fewer."""

    words: str
    more: str
    same: str
    fewer: str

    def meaning(self, difference: Number) -> str:
        """Of the prompts' accuracy less the control's."""
        return by_sign(difference, self.more, self.same, self.fewer)


def by_sign(difference: Number, above: str, neither: str, below: str) -> str:
    """Whether a difference's interval lies above 0, holds it, or lies below: one of three words."""
    low, high = difference.interval
    return above if low > 0 else below if high < 0 else neither


def percent(value: float, low: float, high: float) -> str:
    """A share with its interval: 12.0% (10.0% to 14.0%)."""
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def points(difference: float, low: float, high: float) -> str:
    """A difference of two accuracies with its interval, in percentage points."""
    return f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def in_percent(share: Number) -> str:
    """A number that is a share, as `percent`."""
    return percent(share.value, *share.interval)


def in_points(difference: Number) -> str:
    """A number that is a difference of two accuracies, as `points`."""
    return points(difference.value, *difference.interval)
