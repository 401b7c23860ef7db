"""What do all tasks' prompts score on all tasks' test examples? With the target's template and labels.

Shapes: N runs, T tasks, E test examples of a task, L labels of a label set.
"""

from dataclasses import dataclass
from weakref import ref

import numpy as np

from promptgeo.analysis.geometry.tokens import order_of_appearance, require_levels
from promptgeo.analysis.scoring import Answers, EvaluationSet, Scored, answers, evaluation_sets
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

EXACT, LABEL = "exact", "label"
MEASURES = {EXACT: "exact match", LABEL: "label accuracy"}
"""By the template's scoring rule; by which label is the likeliest. In words."""


@dataclass(frozen=True, eq=False)
class Transfers:
    """Every run's prompt and P0, and no prompt, scored on every task by one measure."""

    measure: str
    tasks: list[str]
    task_N: np.ndarray
    """[N] int64: the number of each run's own task."""
    sets_T: list[EvaluationSet]
    trained_NT: list[list[np.ndarray]]
    """[N][T], [E] bool each: what is right."""
    initial_NT: list[list[np.ndarray]]
    none_T: list[np.ndarray]

    def scored(self, which: str, source: int, target: int) -> Scored:
        """The prompts of a source's runs (which: trained or initial) on a target."""
        runs = np.flatnonzero(self.task_N == source).tolist()
        of_NT = self.trained_NT if which == "trained" else self.initial_NT
        return Scored([of_NT[n][target] for n in runs], [self.sets_T[target]] * len(runs), [(n,) for n in runs])

    def without_prompt(self, target: int) -> Scored:
        return Scored([self.none_T[target]], [self.sets_T[target]], [()])

    def accuracies(self, which: str) -> np.ndarray:
        """[T, T] float64: mean accuracy of a source's runs on a target (which: trained or initial)."""
        of_NT = self.trained_NT if which == "trained" else self.initial_NT
        by_run_NT = np.array([[correct_E.mean() for correct_E in of_T] for of_T in of_NT])
        return np.stack([by_run_NT[self.task_N == source].mean(0) for source in range(len(self.tasks))])

    @property
    def none_accuracies(self) -> np.ndarray:
        """[T] float64."""
        return np.array([correct_E.mean() for correct_E in self.none_T])

    def gains(self, over: str, which: str = "trained") -> np.ndarray:
        """[T, T] float64: of accuracy, over no prompt (none) or over the same runs' P0s (initial)."""
        base = self.none_accuracies[None] if over == "none" else self.accuracies("initial")
        return self.accuracies(which) - base


@dataclass(frozen=True, eq=False)
class Scores:
    """What runs' prompts score, by measure."""

    runs: RunTable
    by_measure: dict[str, Transfers]
    """Label accuracy only where all tasks have a label set."""
    losses_NT: list[list[np.ndarray]] | None
    """[N][T], [E, L] float64 each: the labels' losses, in nats; None where label accuracy is missing."""


Choice = tuple[str | None, str, int | None, int]
"""Init, which prompts, max_examples and seed."""
_latest: list[tuple[ref[RunTable], ref[LM], Choice, Scores]] = []
"""The scores made last, and of what."""


def all_scores(lm: LM, runs: RunTable, choice: Choice) -> Scores:
    """The scores of runs' prompts and P0s, and of no prompt, on all tasks.

    Asked again of the same table, as both conventions do, they are not made again.

    choice: only runs of this init (None: all); final or best; the others as for evaluation_sets, which says what it
    refuses. Raises UserError for fewer than two tasks too.
    """
    for of, model, chosen, scores in _latest:
        if of() is runs and model() is lm and chosen == choice:
            return scores
    scores = _all_scores(lm, runs, *choice)
    _latest[:] = [(ref(runs), ref(lm), choice, scores)]
    return scores


def _all_scores(lm: LM, runs: RunTable, init: str | None, which: str, max_examples: int | None, seed: int) -> Scores:
    if init is not None:
        runs = runs.query(f"init == {init!r}")
    require_levels(runs, {"task": 2}, "transfer")
    tasks = order_of_appearance(runs.table["task"])
    task_N = np.array([tasks.index(task) for task in runs.table["task"]])
    sets_N = evaluation_sets(runs, "transfer", max_examples, seed, labels=True)
    sets_T = [sets_N[int(np.flatnonzero(task_N == t)[0])] for t in range(len(tasks))]
    trained = runs.runs or []  # evaluation_sets has refused a table without
    prompts = [run.prompt(each) for each in (which, "initial") for run in trained]
    prompts.append(np.zeros((0, prompts[0].shape[1]), np.float32))
    flat = answers(lm, [prompt_Pd for prompt_Pd in prompts for _ in sets_T], sets_T * len(prompts))
    grid = [flat[k : k + len(sets_T)] for k in range(0, len(flat), len(sets_T))]
    measures = [EXACT] + [LABEL] * all(answer.label_correct_E is not None for answer in grid[-1])
    by_measure = {}
    for measure in measures:
        right = [[_right(answer, measure) for answer in of_T] for of_T in grid]
        parts = right[: len(trained)], right[len(trained) : -1], right[-1]
        by_measure[measure] = Transfers(measure, tasks, task_N, sets_T, *parts)
    losses = [[answer.label_losses_EL for answer in of_T] for of_T in grid[: len(trained)]]
    return Scores(
        runs, by_measure, [[x for x in of_T if x is not None] for of_T in losses] if LABEL in measures else None
    )


def _right(answer: Answers, measure: str) -> np.ndarray:
    right_E = answer.correct_E if measure == EXACT else answer.label_correct_E
    if right_E is None:
        raise ValueError("label accuracy needs a label set")
    return right_E
