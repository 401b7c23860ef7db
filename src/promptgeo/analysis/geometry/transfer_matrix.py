"""What does a matrix of transfers between tasks say? How many improve, and which likeness of prompts goes with them.

Rows are source tasks, columns target tasks; the diagonal, a task's own prompts, is out. The units are whole tasks, each
with its row, its column and all its seeds: a task's pairs share its prompts and its examples. Intervals leave them out
one by one (a jackknife), and each pair of tasks too, which lies in both its tasks and would else count twice (Cameron,
Gelbach and Miller 2011, for pairs). P exchange whole tasks (Mantel 1967). A model is not asked here.

Shapes: T tasks, Q ordered pairs of two of them, K likenesses, B orders of the tasks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import factorial

import numpy as np

from promptgeo.analysis.crossed import Error
from promptgeo.analysis.resampling import STILL, other_orders, permutation_p
from promptgeo.analysis.scoring import Estimate

LEAST_TASKS = 6
"""From so many tasks on there is a p: 4 can be exchanged in 24 ways, so that no two-sided p is below 2 / 24."""
LEAST_UNITS = 4
"""From so many tasks on there is an interval: without one of three there are the two pairs of two tasks."""

Statistic = Callable[[np.ndarray], float]
"""Chosen ordered pairs [T, T] bool -> a number; nan where they say nothing."""


def apart(tasks: int) -> np.ndarray:
    """[T, T] bool: the ordered pairs of different tasks."""
    return ~np.eye(tasks, dtype=bool)


def error_over_tasks(statistic: Statistic, tasks: int) -> Error | None:
    """How far other tasks would take a number that is made of ordered pairs of tasks; None for too few of them."""
    if tasks < LEAST_UNITS:
        return None
    places, every_TT = np.arange(tasks), apart(tasks)
    # Leaving a task out leaves out its row and its column; leaving a pair out, both of its directions.
    by_task = [every_TT & (places != k)[:, None] & (places != k) for k in places]
    by_pair = []
    for i, j in zip(*np.nonzero(np.tri(tasks, k=-1)), strict=True):
        by_pair.append(every_TT.copy())
        by_pair[-1][[i, j], [j, i]] = False
    of_tasks, of_pairs = _jackknife(statistic, by_task), _jackknife(statistic, by_pair)
    if not np.isfinite(of_tasks + of_pairs):
        return None
    # At least what single pairs vary by: the difference of two estimates may come out too small.
    return Error(float(np.sqrt(max(of_tasks - of_pairs, of_pairs))), tasks - 1, 1, tasks)


def _jackknife(statistic: Statistic, left: list[np.ndarray]) -> float:
    """The variance of a statistic by what it is of each set of pairs that is left (Tukey 1958)."""
    without = np.array([statistic(pairs_TT) for pairs_TT in left])
    return float((len(without) - 1) / len(without) * np.square(without - without.mean()).sum())


# How many transfers improve?


def improving(gains_TT: np.ndarray) -> Estimate:
    """The share of ordered pairs of tasks whose gain is positive; its interval is 0 to 1 for fewer than LEAST_UNITS."""

    def share(pairs_TT: np.ndarray) -> float:
        return float((gains_TT[pairs_TT] > STILL).mean())

    value, error = share(apart(len(gains_TT))), error_over_tasks(share, len(gains_TT))
    return _estimate(value, error, lambda level: error.share_interval(value, level) if error else (0.0, 1.0))


def mean_gain(gains_TT: np.ndarray) -> Estimate:
    """The mean gain over ordered pairs of tasks; its interval is -1 to 1 for fewer than LEAST_UNITS."""

    def mean(pairs_TT: np.ndarray) -> float:
        return float(gains_TT[pairs_TT].mean())

    value, error = mean(apart(len(gains_TT))), error_over_tasks(mean, len(gains_TT))
    return _estimate(value, error, lambda level: error.interval(value, level) if error else (-1.0, 1.0))


def _estimate(value: float, error: Error | None, at: Callable[[float], tuple[float, float]]) -> Estimate:
    return Estimate(value, error.units if error else 0, at)


# What predicts them?


@dataclass(frozen=True)
class Correlation:
    """A Spearman correlation over ordered pairs of tasks."""

    value: float
    low: float | None
    high: float | None
    """95 % interval; None for fewer than LEAST_UNITS tasks, or where no task left out changes it."""
    p: float | None
    """Two-sided, tasks exchanged; None for fewer than LEAST_TASKS."""
    lowest: float
    highest: float
    """Of those without each single task."""

    @property
    def greater_p(self) -> float | None:
        """The two-sided p where the value is positive, else 1: of the statement that it lies above 0."""
        return self.p if self.p is None or self.value > 0 else 1.0


@dataclass(frozen=True)
class Prediction:
    """How one likeness of prompts goes with gains."""

    plain: Correlation
    beyond: Correlation | None
    """Of what is left without the mean of each source and each target: sources that are far from all and help none, and
    targets that are easy for all, are no likeness of pairs. None where nothing is left: it is a number of each task."""


@dataclass(frozen=True)
class Predictions:
    """Of several likenesses."""

    by_name: dict[str, Prediction]
    best: str | None
    """The one whose correlation is farthest from 0; None where there are no p."""
    best_p: float | None
    """Of the largest of all correlations: that it was chosen is in it."""


def predictions(
    likenesses: Mapping[str, np.ndarray], gains_TT: np.ndarray, permutations: int, seed: int
) -> Predictions:
    """Spearman's correlation of each likeness [T, T] of source and target with the gains, over ordered pairs.

    Likenesses that are not known for all pairs, or are the same for all, are left out.
    permutations: orders of the tasks, where there are too many to go through.
    """
    every_TT = apart(len(gains_TT))
    usable = {name: values_TT for name, values_TT in likenesses.items() if _varies(values_TT[every_TT])}
    if not usable or not _varies(gains_TT[every_TT]):
        return Predictions({}, None, None)
    orders = _orders(len(gains_TT), permutations, seed)
    made: dict[str, Prediction] = {}
    largest_B: np.ndarray | None = None
    for name, values_TT in usable.items():
        plain, null_B = _correlation(values_TT, gains_TT, orders, _ranked)
        if plain is None:
            continue
        made[name] = Prediction(plain, _correlation(values_TT, gains_TT, orders, _ranked_beyond)[0])
        if null_B is not None:
            largest_B = np.abs(null_B) if largest_B is None else np.maximum(largest_B, np.abs(null_B))
    if largest_B is None:
        return Predictions(made, None, None)
    best = max(made, key=lambda name: abs(made[name].plain.value))
    return Predictions(made, best, permutation_p(abs(made[best].plain.value), largest_B))


def orders_of(tasks: int) -> str:
    """Why so few tasks have no p, in words."""
    return f"{tasks} tasks can be exchanged in {factorial(tasks)} ways, {LEAST_TASKS} in {factorial(LEAST_TASKS)}"


def _orders(tasks: int, permutations: int, seed: int) -> np.ndarray | None:
    """[B, T] int64: all other orders of the tasks, or so many random ones; None for too few tasks."""
    return np.stack(other_orders(tasks, permutations, seed)[0]) if tasks >= LEAST_TASKS else None


Ranked = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(values [T, T], chosen pairs) -> [Q] float64: their ranks, of mean 0 and length 1; nan where all are equal."""


def _correlation(
    likeness_TT: np.ndarray, gains_TT: np.ndarray, orders_BT: np.ndarray | None, ranked: Ranked
) -> tuple[Correlation | None, np.ndarray | None]:
    """(the correlation, what it is in each order of the tasks [B]); None where one of both does not vary."""
    tasks = len(gains_TT)
    every_TT = apart(tasks)

    def rho(pairs_TT: np.ndarray) -> float:
        return float(ranked(likeness_TT, pairs_TT) @ ranked(gains_TT, pairs_TT))

    value = rho(every_TT)
    if not np.isfinite(value):
        return None, None
    error = error_over_tasks(rho, tasks)
    low, high = error.interval(value) if error is not None and error.standard > STILL else (None, None)
    null_B = None if orders_BT is None else _exchanged(likeness_TT, gains_TT, orders_BT, ranked)
    p = None if null_B is None else permutation_p(value, null_B, "two-sided")
    places = np.arange(tasks)
    without = [rho(every_TT & (places != k)[:, None] & (places != k)) for k in places] if tasks > 2 else [np.nan]
    return (
        Correlation(
            value,
            None if low is None else max(low, -1.0),
            None if high is None else min(high, 1.0),
            p,
            float(np.min(without)),
            float(np.max(without)),
        ),
        null_B,
    )


def _exchanged(likeness_TT: np.ndarray, gains_TT: np.ndarray, orders_BT: np.ndarray, ranked: Ranked) -> np.ndarray:
    """[B] float64: the correlation with the tasks of the likeness in another order. Ranks go along with their pairs."""
    every_TT = apart(len(gains_TT))
    rows_Q, columns_Q = np.nonzero(every_TT)
    ranks_TT = np.zeros(gains_TT.shape)
    ranks_TT[every_TT] = ranked(likeness_TT, every_TT)
    return np.asarray(ranks_TT[orders_BT[:, rows_Q], orders_BT[:, columns_Q]] @ ranked(gains_TT, every_TT))


def _ranked(values_TT: np.ndarray, pairs_TT: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    values_Q = values_TT[pairs_TT]
    ranks_Q = rankdata(values_Q) - (len(values_Q) + 1) / 2
    length = float(np.linalg.norm(ranks_Q))
    return ranks_Q / length if length > 0 else np.full(len(ranks_Q), np.nan)


def _ranked_beyond(values_TT: np.ndarray, pairs_TT: np.ndarray) -> np.ndarray:
    """Of what is left without the best sum of a number for each source and one for each target (least squares)."""
    rows_Q, columns_Q = np.nonzero(pairs_TT)
    tasks = np.arange(len(values_TT))
    design_QS = np.concatenate([rows_Q[:, None] == tasks, columns_Q[:, None] == tasks], axis=1).astype(np.float64)
    values_Q = values_TT[pairs_TT]
    left_Q = values_Q - design_QS @ np.linalg.lstsq(design_QS, values_Q, rcond=None)[0]
    spread = float(np.ptp(values_Q))
    left_TT = np.zeros(values_TT.shape)
    # Rounded: what is left of equal values may differ in its last bits, and ranks would make much of that.
    left_TT[pairs_TT] = np.round(left_Q / spread, 9) if spread > 0 else 0.0
    return _ranked(left_TT, pairs_TT)


def _varies(values_Q: np.ndarray) -> bool:
    return bool(np.isfinite(values_Q).all() and np.ptp(values_Q) > STILL)
