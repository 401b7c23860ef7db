"""Do two ways to say a task move the model's states in the same direction? Cosines within tasks and between them.

The units are whole tasks: a task's vectors share its examples, and its runs what they were trained on. So p exchange
tasks as wholes, and intervals leave each out with all its vectors. A model is not asked here.

Shapes: S layers, T tasks, D width of the hidden states, U vectors of a task.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.resampling import jackknife_interval, other_orders, permutation_p

LEAST_TASKS = 4
"""From so many on a p below .05 is possible: 4 tasks can be exchanged in 24 ways, of which the given one is one."""
LEAST_UNITS = 3
"""From so many tasks on there is an interval: without one of two no pair is left."""


@dataclass(frozen=True, eq=False)
class Alike:
    """How much more alike the vectors of one task are than those of different tasks: cosines, mean over layers."""

    same: float
    other: float
    low: float | None
    high: float | None
    """95 % interval of the difference; None for fewer than LEAST_UNITS tasks."""
    p: float | None
    """One-sided; None for a single task."""
    same_S: np.ndarray
    other_S: np.ndarray
    """Of each layer."""
    same_T: np.ndarray
    """Of each task: mean over layers."""

    @property
    def difference(self) -> float:
        return self.same - self.other


def cosines(one_TUSD: Sequence[np.ndarray], other_TUSD: Sequence[np.ndarray]) -> np.ndarray:
    """[S, T, T] float64: of each layer the mean cosine over all pairs of a vector of one way and one of the other.

    one_TUSD, other_TUSD: of each task [U, S, D]. A vector without a direction is at right angles to all.
    """

    def units(x_USD: np.ndarray) -> np.ndarray:
        lengths_US1 = np.linalg.norm(x_USD, axis=-1, keepdims=True)
        return np.divide(x_USD, lengths_US1, out=np.zeros_like(x_USD), where=lengths_US1 > 0)

    # The mean cosine over pairs is the product of mean unit vectors.
    one_TSD, other_TSD = (
        np.stack([units(np.asarray(x, np.float64)).mean(0) for x in xs]) for xs in (one_TUSD, other_TUSD)
    )
    return np.asarray(np.einsum("tsd,usd->stu", one_TSD, other_TSD))


def alike(cosines_STT: np.ndarray, permutations: int, seed: int) -> Alike:
    """What cosines of two ways to say the same tasks say. p: tasks of the second way in all other orders, or so many.

    Means over layers are compared, so that none is chosen.
    """
    tasks = cosines_STT.shape[1]
    mean_TT = cosines_STT.mean(0)
    places = np.arange(tasks)
    value = _beyond(mean_TT)
    low = high = p = None
    if tasks >= LEAST_UNITS:
        without_T = np.array([_beyond(mean_TT[np.ix_(places != k, places != k)]) for k in places])
        low, high = jackknife_interval(value, without_T)
    if tasks > 1:
        null_B = np.array([_beyond(mean_TT[:, order]) for order in other_orders(tasks, permutations, seed)[0]])
        p = permutation_p(value, null_B)
    apart_TT = ~np.eye(tasks, dtype=bool)
    same_S = cosines_STT[:, places, places].mean(1)
    other_S = cosines_STT[:, apart_TT].mean(1) if tasks > 1 else np.full(len(cosines_STT), np.nan)
    return Alike(float(same_S.mean()), float(other_S.mean()), low, high, p, same_S, other_S, np.diag(mean_TT).copy())


def _beyond(values_TT: np.ndarray) -> float:
    """The mean of the diagonal less that of all else; nan for a single task."""
    tasks, same = len(values_TT), float(np.trace(values_TT))
    return same / tasks - (float(values_TT.sum()) - same) / (tasks * (tasks - 1)) if tasks > 1 else float("nan")


def random_like(vectors_SD: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[S, D] float64: a random direction at each layer, as long as the vector there."""
    random_SD = generator.normal(size=vectors_SD.shape)
    lengths_S1 = np.linalg.norm(vectors_SD, axis=1, keepdims=True)
    return np.asarray(random_SD / np.linalg.norm(random_SD, axis=1, keepdims=True) * lengths_S1)
