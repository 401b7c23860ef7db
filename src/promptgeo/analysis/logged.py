"""What did finished runs get right, by what they logged of their test examples? No model is asked again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptgeo.analysis.scoring import Scored
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
