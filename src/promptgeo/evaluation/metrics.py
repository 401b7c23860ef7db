"""What is measured of scored prompts? METRICS is the one list.

A new metric (macro-F1, say) is a function and an entry here, and nothing elsewhere: it then has a column in
metrics.csv, a place in run.json, in loggers and in RunTables. This file imports nothing of the package, so that the run
folder, which knows no evaluation, can name its columns by it.

Shapes: N prompts, E examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Scores(Protocol):
    """What a metric may use; evaluate.Evaluation has it."""

    @property
    def correct(self) -> np.ndarray:
        """[N, E] bool: by the template's scoring rule."""

    @property
    def losses(self) -> np.ndarray:
        """[N, E] float64: cross-entropy summed over the example's label tokens, in nats."""

    @property
    def tokens(self) -> np.ndarray:
        """[E] int64: label tokens of each example, terminator included."""

    @property
    def label_choices(self) -> np.ndarray | None:
        """[N, E] int64: the likeliest of the task's label set, by number; None where the task has no label set."""

    @property
    def labels(self) -> np.ndarray | None:
        """[E] int64: the true one, likewise."""


@dataclass(frozen=True)
class Metric:
    """One number of each prompt."""

    name: str
    """As in metrics.csv and run.json."""
    of: Callable[[Scores], np.ndarray | None]
    """[N] float64; None where the task lacks what it needs."""
    needs: str = ""
    """What a task must have for it; nothing for a metric of every task."""
    short: str = ""
    """What the progress line calls it; nothing: it is not shown there."""


def loss(scores: Scores) -> np.ndarray:
    """[N] float64: mean cross-entropy of a label token, in nats."""
    return scores.losses.sum(1) / scores.tokens.sum()


def accuracy(scores: Scores) -> np.ndarray:
    """[N] float64: share of the examples that are correct."""
    return scores.correct.mean(1)


def label_accuracy(scores: Scores) -> np.ndarray | None:
    """[N] float64: share of the examples whose true label is the likeliest of the label set."""
    if scores.label_choices is None or scores.labels is None:
        return None
    return (scores.label_choices == scores.labels).mean(1)


METRICS = [
    Metric("loss", loss, short="loss"),
    Metric("accuracy", accuracy, short="acc"),
    Metric("label_accuracy", label_accuracy, needs="a label set"),
]
"""In the order of the columns of metrics.csv."""

HEADLINE = "accuracy"
"""What summaries show; RunTables have it of every kept prompt, and the other metrics of the final one."""
