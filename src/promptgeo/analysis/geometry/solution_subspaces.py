"""In how small a random subspace through P0 does a task have a solution?

P0 + A z, A random orthonormal, z trained by Adam on training examples (Li et al. 2018). The subspaces of one number are
nested; each has the P0 of another run, as far as there are. Controls: P0 itself, and the whole space in as many steps.

Shapes: N trained prompts, S subspaces of one dimension, K dimensions, E test examples, B bootstrap draws, P prompt
tokens, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.figures import COLOURS, mean_line, panels, svg
from promptgeo.analysis.geometry.subspaces import orthonormal, smallest_reaching, train_in_subspaces
from promptgeo.analysis.groups import TaskRuns
from promptgeo.analysis.resampling import bounded_interval, draw_counts, or_exact, percentile_interval, student
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import percent
from promptgeo.analysis.training_loss import minibatch_losses
from promptgeo.errors import UserError
from promptgeo.model.interface import LM


@dataclass(frozen=True)
class Training:
    """How prompts are trained in subspaces, and what they have to reach."""

    dimensions: Sequence[int]
    subspaces: int
    """Of each dimension."""
    share: float
    """Of the trained runs' mean accuracy."""
    steps: int
    batch_size: int
    lr: float | None
    """Of each coordinate in the whole space; None: the runs' own."""


def train_subspaces(
    result: Result, lm: LM, task: TaskRuns, training: Training, draws: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """A row per trained prompt. Mean accuracies and the smallest dimension go to the result.

    Numbers: `subspace.<task>.k<k>` (k0: P0 itself), `subspace.<task>.whole` and, where some space reaches the share,
    `subspace.<task>`, the smallest dimension that does. Intervals draw subspaces and test examples.

    Args:
        task: the runs.
        training: how prompts are trained, and what they have to reach.
        draws: of the intervals.
        generator: of subspaces, training examples and draws.
    """
    p0_NPd, count = task.initial(), training.subspaces
    if p0_NPd is None:
        result.omissions.append(f"dimension: {task.name} has prompts without P0; no subspace through it is trained.")
        return []
    size = p0_NPd[0].size
    dims = sorted({k for k in training.dimensions if k < size})
    if not dims:
        result.omissions.append(
            f"dimension: prompts of {task.name} have {size} numbers; none of the dimensions is below that."
        )
        return []
    starts = [s % len(p0_NPd) for s in range(count)]
    p0_SPd = torch.from_numpy(p0_NPd[starts]).to(lm.device)
    bases_S = [torch.from_numpy(orthonormal(size, dims[-1], generator)).to(lm.device) for _ in starts]
    trials = [(s, k) for k in (*dims, size) for s in range(count)]
    spaces = [None if k == size else bases_S[s][:, :k] for s, k in trials]
    rows = task.evaluation_set.task.rows(lm, task.evaluation_set.task.train, task.length)
    train_loss = minibatch_losses(lm, rows, training.batch_size, generator)
    lr = task.runs[0].lr if training.lr is None else training.lr
    if lr is None:
        raise UserError(f"dimension: the learning rate of {task.runs[0].folder} is not known; set lr=")
    points = train_in_subspaces(train_loss, p0_SPd[[s for s, _ in trials]], spaces, steps=training.steps, lr=lr)
    trained = torch.from_numpy(task.prompts()).to(points)
    scored = task.evaluation_set.evaluate(lm, torch.cat([trained, p0_SPd, points]))
    accuracies = Accuracies(
        dims=[0, *dims, size],
        correct_KSE=scored.correct[len(trained) :].reshape(-1, count, task.evaluation_set.n),
        trained_NE=scored.correct[: len(trained)],
    )
    _report(result, task.name, accuracies, training, draws, generator)
    places = [(s, 0) for s in range(count)] + trials
    scores = zip(places, scored.accuracy[len(trained) :], scored.loss[len(trained) :], strict=True)
    full = scored.accuracy[: len(trained)].mean()
    return [
        {"task": task.name, "dimension": k, "whole": k == size}
        | {"subspace": s, "accuracy": accuracy, "loss": loss, "full": full}
        for (s, k), accuracy, loss in scores
    ]


@dataclass(frozen=True, eq=False)
class Accuracies:
    """What was solved in each space."""

    dims: list[int]
    """0 (P0 itself), those of the subspaces, and D (the whole space), rising."""
    correct_KSE: np.ndarray
    """bool, in the order of dims."""
    trained_NE: np.ndarray
    """bool: what the trained runs solve."""


def _report(
    result: Result,
    task: str,
    accuracies: Accuracies,
    training: Training,
    draws: int,
    generator: np.random.Generator,
) -> None:
    dims, (_, count, n) = accuracies.dims, accuracies.correct_KSE.shape
    drawn_BE = draw_counts(generator, n, draws) / n
    # Few subspaces are few: what they differ by is enlarged as Student's t is.
    drawn_BS = (1 + (draw_counts(generator, count, draws) - 1) * student(count)) / count
    accuracy_K = accuracies.correct_KSE.mean((1, 2))
    accuracy_BK = np.stack(
        [((drawn_BE @ correct_SE.T) * drawn_BS).sum(1) for correct_SE in accuracies.correct_KSE], axis=1
    )
    numbers = []
    for k, value, drawn_B in zip(dims, accuracy_K, accuracy_BK.T, strict=True):
        interval = or_exact(bounded_interval(drawn_B, 0.0, 1.0), value, n)
        name = "whole" if k == dims[-1] else f"k{k}"
        numbers.append(result.number(f"subspace.{task}.{name}", value, count, "subspaces", *interval))
    full, full_B = float(accuracies.trained_NE.mean()), (drawn_BE @ accuracies.trained_NE.T).mean(1)
    least = np.array([training.share * full])
    smallest = float(smallest_reaching(accuracy_K[None], dims, least)[0])
    p0, whole = numbers[0], numbers[-1]
    budget = (
        f"the whole space of {dims[-1]} reaches {_percent(whole)} with the same {training.steps} steps, P0 "
        f"{_percent(p0)}, the trained runs {full:.1%} (n = {count} subspaces, {n} test examples)"
    )
    if not np.isfinite(smallest):
        sentence = (
            f"{task}: no space reaches {100 * training.share:g} % of the trained runs' accuracy in {training.steps} "
            f"steps, so these are too few to show a dimension: {budget}."
        )
        result.findings.append(Finding.of(whole, sentence))
        return
    smallest_B = smallest_reaching(accuracy_BK, dims, training.share * full_B)
    # A draw in which no space reaches it needs the whole space at least.
    interval = percentile_interval(np.minimum(smallest_B, dims[-1]), method="nearest")
    number = result.number(f"subspace.{task}", smallest, count, "subspaces", *interval)
    sentence = f"{task}: {_in_words(number, dims, training.share)}: {budget}."
    result.findings.append(Finding.of(number, sentence))


def _in_words(smallest: Number, dims: list[int], share: float) -> str:
    goal = f"{100 * share:g} % of the trained runs' accuracy"
    if smallest.value == 0:
        return f"P0 itself reaches {goal}, so no dimension is needed"
    if smallest.value == dims[-1]:
        return f"no subspace up to dimension {dims[-2]} reaches {goal}, only the whole space does"
    below = dims[dims.index(int(smallest.value)) - 1]
    low, high = smallest.interval
    return (
        f"a random subspace of dimension {smallest.value:.0f} ({low:.0f} to {high:.0f}) reaches {goal} "
        f"on average, one of {below} does not"
    )


def _percent(number: Number) -> str:
    return percent(number.value, *number.interval)


def subspace_figure(table: pd.DataFrame, share: float) -> str:
    """Accuracy over the dimension, a line through the means of each task."""
    with panels(height=2.8) as (figure, axes):
        axis = axes[0, 0]
        for k, (task, rows) in enumerate(table.groupby("task", sort=False)):
            colour, spaces = COLOURS[k % len(COLOURS)], rows[rows["dimension"] > 0]  # the axis is logarithmic
            mean_line(axis, spaces, "dimension", "accuracy", "subspace", color=colour, label=task)
            axis.axhline(share * rows["full"].iloc[0], color=colour, linewidth=0.8, linestyle="--")
        label = f"dimension of the subspace (last: the whole space; dashed: {100 * share:g} % of the trained runs)"
        axis.set(xlabel=label, ylabel="test accuracy", ylim=(-0.04, 1.04))
        axis.set_xscale("log", base=2)
        axis.legend(fontsize=8)
        return svg(figure, "Accuracy of training within random subspaces, mean by dimension; faint: single subspaces")
