"""What is measured of scored prompts? METRICS is the one list.

A new metric (macro-F1, say) is a function and an entry here, and nothing elsewhere: it then has a column in
metrics.csv, a place in run.json, in loggers and in RunTables. This file imports nothing of the package, so that the run
folder, which knows no evaluation, can name its columns by it.

Shapes: N prompts, E examples, L labels of a label set.
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
    def label_set(self) -> int:
        """Labels of the set; 0 without one."""

    @property
    def right(self) -> np.ndarray | None:
        """[N, E] int64: label tokens that are the likeliest after the true ones; None but under scoring=recite."""

    @property
    def begun(self) -> np.ndarray | None:
        """[N, E] int64: of these the ones before the first that is not."""

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
    of_every_prompt: bool = False
    """Whether RunTables have it of every kept prompt, and not of the final one alone."""


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


def confusion(scores: Scores) -> np.ndarray | None:
    """[N, L, L] int64: how many examples of each true label (row) have each as the likeliest (column).

    An example without a likeliest, whose losses are NaN, is in no column.
    """
    if scores.label_choices is None or scores.labels is None:
        return None
    size = scores.label_set
    places_NE = scores.labels * size + scores.label_choices
    chosen_NE = scores.label_choices >= 0
    counts = [
        np.bincount(places_E[chosen_E], minlength=size**2)
        for places_E, chosen_E in zip(places_NE, chosen_NE, strict=True)
    ]
    return np.stack(counts).reshape(-1, size, size)


def balanced_accuracy(scores: Scores) -> np.ndarray | None:
    """[N] float64: mean over the labels that occur of the share of its examples that are chosen right."""
    counts_NLL = confusion(scores)
    if counts_NLL is None or scores.labels is None:
        return None
    of_label_L = np.bincount(scores.labels, minlength=scores.label_set)
    recalls_NL = np.diagonal(counts_NLL, axis1=1, axis2=2) / np.maximum(of_label_L, 1)
    return recalls_NL[:, of_label_L > 0].mean(1)


def macro_f1(scores: Scores) -> np.ndarray | None:
    """[N] float64: mean F1 of the labels that occur or are chosen; 0 for one that is never right."""
    counts_NLL = confusion(scores)
    if counts_NLL is None or scores.labels is None:
        return None
    right_NL = np.diagonal(counts_NLL, axis1=1, axis2=2)
    both_NL = counts_NLL.sum(1) + np.bincount(scores.labels, minlength=scores.label_set)
    return (2 * right_NL / np.maximum(both_NL, 1)).sum(1) / (both_NL > 0).sum(1)


def tokens_right(scores: Scores) -> np.ndarray | None:
    """[N] float64: share of the label tokens that are the likeliest, each after the true ones before it."""
    return None if scores.right is None else scores.right.sum(1) / scores.tokens.sum()


def tokens_recited(scores: Scores) -> np.ndarray | None:
    """[N] float64: share of the label tokens that greedy decoding writes before its first wrong one."""
    return None if scores.begun is None else scores.begun.sum(1) / scores.tokens.sum()


METRICS = [
    Metric("loss", loss, short="loss"),
    Metric("accuracy", accuracy, short="acc"),
    Metric("label_accuracy", label_accuracy, needs="a label set", short="label acc", of_every_prompt=True),
    Metric("balanced_accuracy", balanced_accuracy, needs="a label set"),
    Metric("macro_f1", macro_f1, needs="a label set"),
    Metric("tokens_right", tokens_right, needs="template.scoring=recite", short="right"),
    Metric("tokens_recited", tokens_recited, needs="template.scoring=recite"),
]
"""In the order of the columns of metrics.csv."""

HEADLINE = "accuracy"
"""What summaries show; RunTables have it of every kept prompt, and the other metrics of the final one."""
