"""Prompts that no run has trained, scored on the runs' own test examples, with intervals that draw runs and test examples anew.

Shapes: N runs, P prompt tokens, d width, E test examples of a task, S scored prompts, B bootstrap draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import Resampler, newcombe, percentile_interval, varies, wilson
from promptgeo.errors import UserError
from promptgeo.evaluation import Evaluation, evaluate
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable
from promptgeo.run_task import task_of
from promptgeo.tasks import Task

BLOCK = 32
"""Prompts that are scored between two moves of the progress bar."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Test examples that prompts are scored on, as the runs of their task were scored."""

    task: Task
    """Its test split holds only the examples that are asked."""
    max_new_tokens: int
    of: int
    """Test examples that the task has."""

    @property
    def n(self) -> int:
        return len(self.task.test)

    def evaluate(self, lm: FrozenLM, prompts_SPd: np.ndarray | Tensor) -> Evaluation:
        """The scores of prompts [S, P, d] on these examples."""
        return evaluate(lm, prompts_SPd, self.task, max_new_tokens=self.max_new_tokens)


def evaluation_sets(runs: RunTable, what: str, max_examples: int | None = None, seed: int = 0) -> list[EvaluationSet]:
    """The evaluation_set of each run; runs of the same task share one. max_examples: so many test examples of a task, drawn by seed; null: all.

    Raises UserError for prompts that were trained elsewhere, or where a run's data have changed.
    """
    if runs.runs is None:
        raise UserError(f"{what}: needs runs trained here; prompts from elsewhere do not say what their task's examples are")
    made: dict[tuple[int, int], EvaluationSet] = {}
    found = []
    for run in runs.runs:
        task, limit = task_of(run), run.info["config"]["evaluation"]["max_new_tokens"]
        if (id(task), limit) not in made:
            test, total = task.test, len(task.test)
            if max_examples is not None and total > max_examples:
                test = [test[i] for i in np.sort(np.random.default_rng(seed).choice(total, max_examples, replace=False))]
            # Whether the label is the likeliest of a label set is not asked here, and would cost a forward per label.
            made[id(task), limit] = EvaluationSet(replace(task, test=test, labels=None), limit, total)
        found.append(made[id(task), limit])
    return found


def score(lm: FrozenLM, prompts_S: Sequence[np.ndarray], sets_S: Sequence[EvaluationSet]) -> list[np.ndarray]:
    """What each prompt [P, d] gets right in its evaluation_set: S arrays [E] bool. Those of one evaluation_set are scored together, equal ones once."""
    asked: list[tuple[EvaluationSet, bytes]] = []
    together: dict[tuple[EvaluationSet, int], dict[bytes, np.ndarray]] = {}
    for prompt_Pd, evaluation_set in zip(prompts_S, sets_S, strict=True):
        prompt_Pd = np.asarray(prompt_Pd, dtype=np.float32)
        asked.append((evaluation_set, prompt_Pd.tobytes()))
        together.setdefault((evaluation_set, len(prompt_Pd)), {}).setdefault(prompt_Pd.tobytes(), prompt_Pd)
    correct: dict[tuple[EvaluationSet, bytes], np.ndarray] = {}
    blocks = [(evaluation_set, list(different.items())[k : k + BLOCK]) for (evaluation_set, _), different in together.items() for k in range(0, len(different), BLOCK)]
    for evaluation_set, block in progress(blocks, "scoring prompts"):
        scored = evaluate(lm, np.stack([prompt_Pd for _, prompt_Pd in block]), evaluation_set.task, max_new_tokens=evaluation_set.max_new_tokens)
        correct |= {(evaluation_set, content): correct_E for (content, _), correct_E in zip(block, scored.correct, strict=True)}
    return [correct[each] for each in asked]


@dataclass(frozen=True, eq=False)
class Scored:
    """Scored prompts of one kind, whose mean accuracy is asked for."""

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
        """The prompts of some numbers."""
        chosen = [s for s in range(len(self)) if holds(s)]
        return Scored(*([values[s] for s in chosen] for values in (self.correct_S, self.sets_S, self.runs_S)))

    def on(self, evaluation_set: EvaluationSet) -> "Scored":
        return self.where(lambda s: self.sets_S[s] == evaluation_set)

    @cached_property
    def parts(self) -> list["Scored"]:
        """What weighs the same in the mean: the tasks, or all prompts in one."""
        return [self.on(evaluation_set) for evaluation_set in dict.fromkeys(self.sets_S)] if self.tasks_equal else [self]

    @property
    def mean(self) -> float:
        return float(np.mean([np.mean([c.mean() for c in part.correct_S]) for part in self.parts]))

    @property
    def examples(self) -> int:
        """Different test examples among them."""
        return sum(evaluation_set.n for evaluation_set in dict.fromkeys(self.sets_S))


class Bootstrap:
    """Intervals of mean accuracies: draws runs and, within each task, test examples; the same draws for all that is compared.

    Prompts made of two runs share runs, so they are not drawn themselves: a prompt of runs drawn a and b times weighs a * b.
    """

    def __init__(self, runs: int, draws: int = 1000, seed: int = 0):
        self._resampler = Resampler([range(runs)], runs, draws, seed)

    def means(self, scored: Scored) -> np.ndarray:
        """[B] float64: the mean accuracy in each draw; nan where a draw holds none of the prompts' runs."""
        if scored.tasks_equal:
            return np.mean([self.means(part) for part in scored.parts], axis=0)
        accuracies_BS = np.stack(
            [
                self._resampler.examples(evaluation_set, evaluation_set.n) / evaluation_set.n @ correct_E
                for evaluation_set, correct_E in zip(scored.sets_S, scored.correct_S, strict=True)
            ],
            axis=1,
        )
        weights_BS = np.stack([self._resampler.runs_BN[:, list(members)].prod(1) for members in scored.runs_S], axis=1)
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

    def difference(self, scored: Scored, control: Scored) -> tuple[float, float, float]:
        """(first mean - second, its 95 % interval), both in the same draws; Newcombe's interval where neither varies."""
        difference = scored.mean - control.mean
        drawn_B = self.means(scored) - self.means(control)
        if varies(drawn_B):
            return difference, *percentile_interval(drawn_B)
        return difference, *newcombe(scored.mean, self.interval(scored), control.mean, self.interval(control))


def percent(value: float, low: float, high: float) -> str:
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def points(difference: float, low: float, high: float) -> str:
    """A difference of two accuracies, in percentage points."""
    return f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def sampled_examples(what: str, sets: Sequence[EvaluationSet], max_examples: int | None, seed: int) -> list[str]:
    """The omission of an analysis that scores only some of its tasks' examples; empty where it scores all."""
    names = [f"{each.task.name} ({each.of})" for each in sets if each.n < each.of]
    if not names:
        return []
    return [
        f"{what}: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of "
        f"{', '.join(dict.fromkeys(names))} (max_examples=null scores all)."
    ]
