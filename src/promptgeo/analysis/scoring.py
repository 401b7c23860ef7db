"""How many test examples do prompts solve that no run has trained? Scores, their means, and intervals of these.

Prompts are scored on the runs' own test examples. Intervals are over runs and over test examples.

Shapes: N runs, P prompt tokens, d width, E test examples of a task, S scored prompts, B bootstrap draws.
"""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from promptgeo.analysis.kept_scores import kept
from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import (
    STILL,
    Resampler,
    clopper_pearson,
    jackknife_error,
    near_an_end,
    newcombe,
    t_sum_interval,
    wilson,
)
from promptgeo.analysis.result import Number, Result
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.evaluation.evaluate import Evaluation, evaluate, joined
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of

BLOCK = 32
"""Prompts that are scored between two moves of the progress bar, and kept together."""

LEAST_RUNS = 3
"""Independent runs from which on an interval over them speaks for other runs. Of two, where half of all trainings fail,
12 % of differences that are none have an interval beside 0; of three or more at most 5.5 %."""
ALIKE = 0.05
"""Accuracies whose difference certainly lies within so much are called alike."""

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
        rows = [[e.id, e.input, e.label, e.repeat, *e.accepted] for e in self.task.test]
        of = json.dumps([rows, self.task.labels, self.max_new_tokens, outputs]).encode()
        blocks = torch.as_tensor(prompts_SPd, dtype=torch.float32).split(BLOCK)
        return joined([self._scores(lm, block, of, outputs) for block in progress(blocks, "scoring prompts")])

    def _scores(self, lm: LM, prompts_SPd: Tensor, of: bytes, outputs: bool) -> Evaluation:
        """The scores of a block of prompts. of: says on what, so that scores that were kept are found again."""
        what = (of, str(prompts_SPd.shape).encode(), prompts_SPd.cpu().numpy().tobytes())
        return kept(
            what, lambda: evaluate(lm, prompts_SPd, self.task, max_new_tokens=self.max_new_tokens, outputs=outputs)
        )


def evaluation_sets(
    runs: RunTable, what: str, max_examples: int | None = None, seed: int = 0, labels: bool = False
) -> list[EvaluationSet]:
    """The evaluation set of each run; runs of the same task share one.

    what: the question, for messages. max_examples: at most so many test examples of a task, drawn by seed; None: all.
    labels: whether the label whose likelihood is the largest is wanted too, at the cost of a forward for each label.
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
            kept = task.labels if labels else None
            by_task[id(task), limit] = EvaluationSet(replace(task, test=test, labels=kept), limit, total)
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
    label_correct_E: np.ndarray | None = None
    """[E] bool: whether the true label is the likeliest; None where the evaluation set has no label set."""
    label_losses_EL: np.ndarray | None = None
    """[E, L] float64: the labels' losses as they are compared, in nats; None likewise."""
    losses_E: np.ndarray | None = None
    """[E] float64: of the true label, summed over its tokens, in nats."""


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
    scored: dict[tuple[EvaluationSet, bytes], Answers] = {}
    for (evaluation_set, _), different in progress(list(together.items()), "tasks"):
        evaluation = evaluation_set.evaluate(lm, np.stack(list(different.values())), outputs)
        for s, content in enumerate(different):
            texts_E = evaluation.outputs[s] if evaluation.outputs else []
            labels = (evaluation.label_correct, evaluation.compared_losses)
            chosen_E, losses_EL = (None if values is None else values[s] for values in labels)
            right_E, losses_E = evaluation.correct[s], evaluation.losses[s]
            scored[evaluation_set, content] = Answers(right_E, texts_E, chosen_E, losses_EL, losses_E)
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
    all_or_none: bool = False
    """Whether a run may solve nearly all examples or hardly any: few that are alike say little of the other kind."""

    def __len__(self) -> int:
        return len(self.correct_S)

    def where(self, holds: Callable[[int], bool]) -> "Scored":
        """The prompts of some numbers, each of which weighs the same."""
        chosen = [s for s in range(len(self)) if holds(s)]
        return Scored(
            [self.correct_S[s] for s in chosen],
            [self.sets_S[s] for s in chosen],
            [self.runs_S[s] for s in chosen],
            all_or_none=self.all_or_none,
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

    @cached_property
    def accuracy_S(self) -> np.ndarray:
        """[S] float64."""
        return np.array([correct_E.mean() for correct_E in self.correct_S])

    @property
    def mean(self) -> float:
        return float(np.mean([part.accuracy_S.mean() for part in self.parts]))

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


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean accuracy or a difference of two, with how far other runs and other test examples would take it."""

    value: float
    runs: int
    """Independent runs whose differences the intervals know; 0: they are of these prompts alone, 1: of this run."""
    at: Callable[[float], tuple[float, float]]
    """The interval of a level."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        return self.at(0.95)

    def p(self, threshold: float) -> float:
        """Two-sided: one less the level of the widest interval that does not hold the threshold."""
        below, above = 0.0, 1.0  # the level lies between
        for _ in range(40):
            level = (below + above) / 2
            low, high = self.at(level)
            below, above = (below, level) if low <= threshold <= high else (level, above)
        return 1 - below

    def adjusted(self, tests: int, below: bool = False) -> tuple[float, float]:
        """95 % interval whose other end is adjusted for a number of tests (Bonferroni): by it one of several fails.

        below: what holds where the quantity lies below a threshold fails at the lower end, else at the upper one.
        """
        (low, high), (lower, higher) = self.interval, self.at(1 - 0.05 / tests)
        return (lower, high) if below else (low, higher)


class Bootstrap:
    """Intervals of mean accuracies, over runs and over the test examples of each task.

    Runs are left out one by one with all prompts that they are part of (a jackknife: prompts made of two runs share
    runs); test examples are drawn anew. The half-widths of Student's two intervals add up in squares. Where few runs
    fail altogether (3 to 6 of them, a share of .3 to .5), an interval of a mean still covers 65 to 90 % only, unless
    the prompts are said to be all_or_none: then it is at least as wide as that of a count of so many runs.
    """

    def __init__(self, draws: int = 1000, seed: int = 0):
        """draws: of test examples."""
        self._resampler = Resampler([], 0, draws, seed)

    def over_examples(self, scored: Scored) -> np.ndarray:
        """[B] float64: the mean accuracy in each draw of test examples; the same draws for all comparisons."""
        means_B: np.ndarray = np.mean([self._part_over_examples(part) for part in scored.parts], axis=0)
        return means_B

    def _part_over_examples(self, part: Scored) -> np.ndarray:
        of_set: dict[EvaluationSet, np.ndarray] = {}
        for evaluation_set, correct_E in zip(part.sets_S, part.correct_S, strict=True):
            of_set[evaluation_set] = of_set.get(evaluation_set, 0.0) + correct_E.astype(np.float64) / len(part)
        drawn = [self._resampler.examples(each, each.n) / each.n @ sum_E for each, sum_E in of_set.items()]
        total_B: np.ndarray = np.sum(drawn, axis=0)
        return total_B

    def mean(self, scored: Scored) -> Estimate:
        """The mean accuracy.

        Never narrower than Wilson's interval for as many examples as there are different ones; that alone for a single
        prompt.
        """
        n, value = scored.examples, scored.mean
        runs, error = _over_runs(scored)
        errors = [] if len(scored) == 1 else [error, _examples_error(self.over_examples(scored), n)]

        def at(level: float) -> tuple[float, float]:
            low, high = wilson(round(value * n), n, level)
            wide_low, wide_high = t_sum_interval(value, errors, level)
            low, high = max(min(low, wide_low), 0.0), min(max(high, wide_high), 1.0)
            if scored.all_or_none and runs > 1:
                exact_low, exact_high = clopper_pearson(value * runs, runs, level)
                low, high = min(low, exact_low), max(high, exact_high)
            return low, high

        return Estimate(value, runs, at)

    def interval(self, scored: Scored) -> tuple[float, float]:
        """95 % interval of the mean accuracy."""
        return self.mean(scored).interval

    def difference(self, scored: Scored, control: Scored, times: float = 1.0) -> Estimate:
        """The first mean less the second (so many times), paired by runs and test examples where they share these.

        Where neither runs nor examples vary, a mean lies near 0 or 1, or prompts are all_or_none: at least as wide as
        Newcombe's interval.
        """
        runs, run_errors = _differences_over_runs(scored, control, times)
        drawn_B = self.over_examples(scored) - times * self.over_examples(control)
        n = sum(each.n for each in dict.fromkeys([*scored.sets, *control.sets]))
        errors = [*run_errors, _examples_error(drawn_B, n)]
        first, second = self.mean(scored), self.mean(control)
        value = first.value - times * second.value

        def apart(level: float) -> tuple[float, float]:
            low, high = second.at(level)
            return newcombe(first.value, first.at(level), times * second.value, (times * low, times * high))

        def at(level: float) -> tuple[float, float]:
            if not any(error > STILL for error, _ in errors):
                return apart(level)
            low, high = t_sum_interval(value, errors, level)
            wide = scored.all_or_none or control.all_or_none
            if wide or near_an_end(first.value) or near_an_end(second.value):
                wide_low, wide_high = apart(level)
                low, high = min(low, wide_low), max(high, wide_high)
            return max(low, -times), min(high, 1.0)

        return Estimate(value, runs, at)

    def share(self, scored: Scored, whole: Scored, base: Scored) -> Estimate:
        """(scored - base) / (whole - base) of mean accuracies: what share of a gain other prompts, or vectors, have.

        The same tasks in all three. Over runs a jackknife of the ratio, over test examples a bootstrap of it; never
        narrower than the interval of `scored` alone, in that unit. Infinitely wide where there is no gain.
        """
        those = (scored, whole, base)

        def of(part: float, all_of_it: float, start: float) -> float:
            return (part - start) / (all_of_it - start) if all_of_it - start > STILL else float("nan")

        value, gain = of(*(each.mean for each in those)), whole.mean - base.mean
        if not np.isfinite(value):
            return Estimate(value, 0, lambda level: (-float("inf"), float("inf")))
        drawn_B = np.array([of(*each) for each in zip(*map(self.over_examples, those), strict=True)])
        finite_B = drawn_B[np.isfinite(drawn_B)]
        errors = [_examples_error(finite_B, scored.examples)] if len(finite_B) > 1 else []
        runs = sorted({run for each in those for members in each.runs_S for run in members})
        without = np.array([of(*(_mean_without(each, run) for each in those)) for run in runs])
        if len(runs) > 1 and np.isfinite(without).all():
            errors.append((jackknife_error(without), len(runs) - 1))
        alone = self.mean(scored)

        def at(level: float) -> tuple[float, float]:
            low, high = ((end - base.mean) / gain for end in alone.at(level))
            wide_low, wide_high = t_sum_interval(value, errors, level) if errors else (value, value)
            return min(low, wide_low), max(high, wide_high)

        return Estimate(value, len(runs), at)


def _examples_error(means_B: np.ndarray, n: int) -> tuple[float, int]:
    """(standard error, degrees of freedom) over so many examples from a mean in draws of them."""
    return float(np.std(means_B)) * np.sqrt(n / max(n - 1, 1)), max(n - 1, 1)


def _over_runs(*scored: Scored, times: Sequence[float] = (1.0,)) -> tuple[int, tuple[float, int]]:
    """(independent runs, (standard error, degrees of freedom) over them) of a sum of means, each so many times.

    Runs that are always part of the same prompts count once. No error for a run alone, or where leaving out one leaves
    no prompt.
    """
    every_S = [members for each in scored for members in each.runs_S]
    runs = sorted({run for members in every_S for run in members})
    part_of = {run: tuple(run in members for members in every_S) for run in runs}
    units = list({pattern: run for run, pattern in part_of.items()}.values())
    without = [sum(k * _mean_without(each, run) for k, each in zip(times, scored, strict=True)) for run in units]
    if len(units) < 2 or not np.isfinite(without).all():
        return int(len(runs) == 1), (0.0, 1)
    return len(units), (jackknife_error(np.array(without)), len(units) - 1)


def _differences_over_runs(scored: Scored, control: Scored, times: float) -> tuple[int, list[tuple[float, int]]]:
    """Likewise of a difference: by what is left without each run, or of each side where no run is on both."""
    first, second = (set().union(*each.runs_S) for each in (scored, control))
    if first & second or not first or not second:
        runs, error = _over_runs(scored, control, times=(1.0, -times))
        return runs, [error]
    (one, error), (other, (other_error, freedom)) = _over_runs(scored), _over_runs(control)
    return min(one, other), [error, (times * other_error, freedom)]


def _mean_without(scored: Scored, run: int) -> float:
    """The mean accuracy without the prompts that a run is part of; a task without any left does not count."""
    parts = []
    for part in scored.parts:
        if left := [s for s, members in enumerate(part.runs_S) if run not in members]:
            parts.append(part.accuracy_S[left].mean())
    return float(np.mean(parts)) if parts else float("nan")


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
    mean = bootstrap.mean(scored)
    return result.number(quantity, mean.value, scored.examples if n is None else n, unit, *mean.interval)


def accuracy_table(scored: dict[str, Scored], on_task: dict[str, dict[EvaluationSet, Number]]) -> pd.DataFrame:
    """A row per kind of prompts and task: accuracy with its interval, of how many prompts and test examples."""
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "task": each.task.name,
                "accuracy": number.value,
                "low": number.low,
                "high": number.high,
                "prompts": len(scored[kind].on(each)),
                "n": number.n,
            }
            for kind, numbers in on_task.items()
            for each, number in numbers.items()
        ]
    )


class Difference(NamedTuple):
    """A mean accuracy less a control's, as a number of a result and as what it says."""

    number: Number
    estimate: Estimate

    def verdict(self, above: str, neither: str, below: str, chosen_of: int = 1, chosen_from: int = 1) -> str:
        """One of three words: by whether the interval lies above 0, holds it, or lies below.

        Neither, too, where two runs would have to speak for others. Where prompts or controls were chosen by the same
        numbers, the end towards which choosing pushes the difference is adjusted (Bonferroni).

        Args:
            chosen_of: controls, of which this is the best.
            chosen_from: kinds of prompts, of which these are the best.
        """
        _, high = self.estimate.adjusted(chosen_of)
        low, _ = self.estimate.adjusted(chosen_from, below=True)
        if 1 < self.estimate.runs < LEAST_RUNS or low <= 0 <= high:
            return neither
        return above if low > 0 else below

    @property
    def alike(self) -> str:
        """ ", alike within 5 points" or ", by less than 5 points" where the whole interval lies within so many."""
        low, high = self.estimate.interval
        if low <= -ALIKE or high >= ALIKE:
            return ""
        words = "alike within" if low <= 0 <= high else "by less than"
        return f", {words} {100 * ALIKE:.0f} points"

    @property
    def reach(self) -> str:
        """For how much the verdict speaks where that is not other runs too: to be added to what n says."""
        return reach(self.estimate.runs)


def reach(runs: int) -> str:
    """What so many independent runs do not allow to say: to be added to a sentence's n."""
    if runs < 2:
        return f"; an interval over test examples, for {'this run' if runs else 'these prompts'} alone"
    return "" if runs >= LEAST_RUNS else f"; {runs} independent runs allow no verdict, {LEAST_RUNS} would"


def add_difference(
    result: Result,
    quantity: str,
    scored: Scored,
    control: Scored,
    bootstrap: Bootstrap,
    n: int | None = None,
    unit: str = "test examples",
    times: float = 1.0,
) -> Difference:
    """Adds a mean accuracy less (so many times) a control's, with its interval.

    n: how many of `unit` it rests on; None: the different test examples of `scored`.
    """
    estimate = bootstrap.difference(scored, control, times)
    n = scored.examples if n is None else n
    return Difference(result.number(quantity, estimate.value, n, unit, *estimate.interval), estimate)


# In words.


@dataclass(frozen=True)
class Control:
    """What prompts are compared with, and what it means if they solve more, detectably neither, or fewer."""

    words: str
    more: str
    same: str
    fewer: str

    def meaning(self, difference: Difference) -> str:
        """Of the prompts' accuracy less the control's."""
        return difference.verdict(self.more, f"{self.same}{difference.alike}", self.fewer)


def percent(value: float, low: float, high: float) -> str:
    """A share with its interval: 12.0% (10.0% to 14.0%)."""
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def points(difference: float, low: float, high: float) -> str:
    """A difference of two accuracies with its interval, in percentage points."""
    return f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def in_percent(share: Number | Estimate) -> str:
    """A share, as `percent`."""
    return percent(share.value, *share.interval)


def in_points(difference: Difference) -> str:
    """A difference of two accuracies, as `points`."""
    return points(difference.estimate.value, *difference.estimate.interval)
