"""What is a mean over pairs of runs with other runs, and do runs of one task lie closer than others?

Shapes: N runs, P prompt tokens, d width.
"""

from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.geometry.how_far import MOST_DRAWS, Control, Moved
from promptgeo.analysis.resampling import (
    assignments,
    cell_orders_within,
    first_of_cells,
    jackknife_interval,
    permutation_p,
)
from promptgeo.runs.table import RunTable


def over_runs(values_NN: np.ndarray, pairs_NN: np.ndarray, least: float, most: float) -> tuple[float, float]:
    """95 % interval of the mean over chosen pairs of runs (bool, symmetric), by leaving out each unit (the jackknife).

    One unit says nothing of others: then, and where leaving one out leaves no pair, it is all that the mean can be,
    least to most.
    """
    every_N, every = np.where(pairs_NN, values_NN, 0.0).sum(1), int(pairs_NN.sum())
    units = pair_units(pairs_NN)
    left_U = every - 2 * pairs_NN.sum(1)[units]
    if len(units) < 2 or not (left_U > 0).all():
        return least, most
    low, high = jackknife_interval(every_N.sum() / every, (every_N.sum() - 2 * every_N[units]) / left_U)
    return max(low, least), min(high, most)


def pair_units(pairs_NN: np.ndarray) -> np.ndarray:
    """[U] int64: the runs that pairs are independent by: of two that are each other's only pair, the first.

    Counted as two, tasks of two runs each would have twice the degrees of freedom that their pairs have.
    """
    members = np.flatnonzero(pairs_NN.any(1))
    other_M = pairs_NN[members].argmax(1)
    alone_M = (pairs_NN[members].sum(1) == 1) & (pairs_NN[other_M].sum(1) == 1)
    return members[~(alone_M & (other_M < members))]


@dataclass(frozen=True)
class SameTask:
    """How much closer runs of one task lie than runs of two, each compared at as many shared inits."""

    difference: float
    """Mean cosine within tasks less between tasks."""
    p: float
    """Of the tasks of whole cells exchanged within inits."""
    how_far: Control | None
    """Where tasks only differ in how far they move their prompts; None without P0s."""


def same_task(runs: RunTable, moved: Moved | None, permutations: int, seed: int) -> SameTask:
    """Whether tokens at equal position of one task's runs have a larger cosine than those of others.

    Runs of one task and init that start from the same P0 may be alike in more: they change places together. Of runs
    whose P0 is not known each changes places alone.
    """
    tasks_N, inits_N = (runs.table[factor].to_numpy() for factor in ("task", "init"))
    starts_N = np.arange(len(runs))
    if moved is not None:
        starts_N = np.unique(moved.initial_NPd.reshape(len(runs), -1), axis=0, return_inverse=True)[1].reshape(-1)
    units_N = np.unique(
        np.stack([np.unique(tasks_N, return_inverse=True)[1], starts_N], 1), axis=0, return_inverse=True
    )
    orders_BN = cell_orders_within(units_N[1].reshape(-1), inits_N, permutations, seed)
    cosines_NN = mean_cosines(runs.prompts())
    observed = closer(cosines_NN, tasks_N, inits_N)
    null_B = np.array([closer(cosines_NN, tasks_N[order], inits_N) for order in orders_BN])
    first_C, _ = first_of_cells(units_N[1].reshape(-1), inits_N)
    ways = assignments(np.unique(tasks_N, return_inverse=True)[1][first_C], inits_N[first_C])
    p = max(permutation_p(observed, null_B[np.isfinite(null_B)]), 1.0 / ways)
    if moved is None:
        return SameTask(observed, p, None)
    dealt = (moved.dealt(order) for order in orders_BN[:MOST_DRAWS])
    dealt_B = np.array([closer(mean_cosines(prompts_NPd), tasks_N, inits_N) for prompts_NPd in dealt])
    return SameTask(observed, p, Control.of(observed, dealt_B, p))


def mean_cosines(prompts_NPd: np.ndarray) -> np.ndarray:
    """[N, N] float64: cosine of two runs' tokens at equal position, mean over positions."""
    unit_NPd = prompts_NPd / np.linalg.norm(prompts_NPd, axis=2, keepdims=True)
    flat_ND = unit_NPd.reshape(len(unit_NPd), -1).astype(np.float64)
    return flat_ND @ flat_ND.T / prompts_NPd.shape[1]


def closer(cosines_NN: np.ndarray, tasks_N: np.ndarray, inits_N: np.ndarray) -> float:
    """Mean cosine within less between tasks, among pairs that share an init and among those that do not.

    Both weigh as many pairs within tasks as they have. Not compared so, runs of one task would seem farther apart where
    they never share an init and others do. nan where no pairs of a kind are both within and between tasks.
    """
    apart_NN = ~np.eye(len(tasks_N), dtype=bool)
    task_NN, init_NN = tasks_N[:, None] == tasks_N, inits_N[:, None] == inits_N
    total, weight = 0.0, 0
    for alike_NN in (init_NN, ~init_NN):
        within_NN, between_NN = alike_NN & task_NN & apart_NN, alike_NN & ~task_NN
        if within_NN.any() and between_NN.any():
            count = int(within_NN.sum())
            total += count * float(cosines_NN[within_NN].mean() - cosines_NN[between_NN].mean())
            weight += count
    return total / weight if weight else float("nan")
