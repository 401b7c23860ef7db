"""What did finished runs get right, by what they logged of their test examples? No model is asked again."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptgeo.analysis.scoring import Bootstrap, Estimate, Scored
from promptgeo.runs.folder import Run


@dataclass(frozen=True)
class LoggedExamples:
    """Test examples as runs logged them: equal where they are the same. Stands for their EvaluationSet in Scored."""

    task: str
    ids: tuple[str, ...]
    label: str = ""
    """Of a part of them that has one label."""

    @property
    def n(self) -> int:
        return len(self.ids)


def written(row: dict[str, Any]) -> bool:
    """Whether what the model wrote is correct."""
    return bool(row["correct"])


def chosen(row: dict[str, Any]) -> bool:
    """Whether the likeliest of the task's labels is the right one; of a task without labels, as `written`."""
    return bool(row.get("label_correct", row["correct"]))


def logged_scores(
    runs: Iterable[Run],
    tasks: Iterable[str],
    right: Callable[[dict[str, Any]], bool] = written,
    tasks_equal: bool = False,
) -> Scored:
    """What each run's final prompt got right; right: of a row of predictions.jsonl. tasks_equal: see Scored."""
    correct: list[np.ndarray] = []
    examples: list[Any] = []  # of an evaluation set Scored needs n and equality alone
    for run, task in zip(runs, tasks, strict=True):
        final = [row for row in run.predictions if row["prompt"] == "final"]
        correct.append(np.array([right(row) for row in final]))
        examples.append(LoggedExamples(task, tuple(str(row["id"]) for row in final)))
    return Scored(correct, examples, [(n,) for n in range(len(correct))], tasks_equal)


# What trained prompts must beat.

BASELINES = {"none": "no prompt", "initial": "P0", "majority": "the majority class"}
"""In words."""


def over_baselines(
    runs: Sequence[Run],
    task: str,
    bootstrap: Bootstrap,
    right: Callable[[dict[str, Any]], bool] = chosen,
    which: str = "final",
) -> dict[str, tuple[float, Estimate]]:
    """Of each baseline that runs of one task logged: its accuracy, and by how much their trained prompts beat it.

    On all their test examples; over runs and these. right: of a row of predictions.jsonl. which: final or best; best is
    final where there were no validation examples. The majority class is that of training, and a baseline of `chosen`,
    for tasks with labels.
    """
    rows_N = [run.predictions for run in runs]
    logged = {row["prompt"] for row in rows_N[0]} if rows_N else set()
    if not {"final", "initial"} <= logged:
        return {}

    def scored(prompt: str, those: Sequence[int], right: Callable[[dict[str, Any]], bool], own: bool) -> Scored:
        rows_S = [[row for row in rows_N[n] if row["prompt"] == prompt] for n in those]
        examples: list[Any] = [LoggedExamples(task, tuple(str(row["id"]) for row in rows)) for rows in rows_S]
        members: list[tuple[int, ...]] = [(n,) if own else () for n in those]
        return Scored([np.array([right(row) for row in rows]) for rows in rows_S], examples, members)

    every = range(len(runs))
    trained = scored(which if which in logged else "final", every, right, own=True)
    controls = {"initial": scored("initial", every, right, own=True)}
    if "none" in logged:
        controls["none"] = scored("none", every[:1], right, own=False)
    labels = runs[0].info.get("results", {}).get("labels")
    if right is chosen and labels is not None:
        most_frequent = labels["most_frequent"]
        controls["majority"] = scored("final", every[:1], lambda row: row["label"] == most_frequent, own=False)
    found = [name for name in BASELINES if name in controls]
    return {name: (controls[name].mean, bootstrap.difference(trained, controls[name])) for name in found}
