"""Which points lie nearest to each point, among all and among those of other runs; and what of it does a plane keep?

Exact: every distance is computed, a block of rows at a time, so that no [K, K] array of floats is held.

Shapes: K points, B of a block, D coordinates, k neighbours.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from promptgeo.analysis.progress import progress

BLOCK_BYTES = 2**25
"""Of distances held at once; sorting them takes four times as much."""


class Distance(StrEnum):
    """How far two prompts are apart."""

    cosine = "cosine"
    l2 = "l2"


@dataclass(frozen=True)
class Nearest:
    """The nearest points of each point, nearest first; of equally near ones the lower number first."""

    nearest_Kk: np.ndarray
    """int64; -1 where there are fewer than k others."""
    distances_Kk: np.ndarray
    """float64; NaN where there are fewer."""
    ranks_KK: np.ndarray | None
    """Unsigned: 1 for the point nearest to i, 2 for the next, ...; 0 for i itself, and for what it is not compared
    with. None where ranks were not asked for."""


def distances(one_AD: np.ndarray, other_BD: np.ndarray, distance: Distance) -> np.ndarray:
    """[A, B] float64. From differences: equal points are exactly 0 apart, and equally far from any other.

    cosine: 1 - cosine, half the squared distance of the vectors at length 1, none of which may be zero.
    """
    from scipy.spatial.distance import cdist

    one_AD, other_BD = one_AD.astype(np.float64), other_BD.astype(np.float64)
    if distance is Distance.l2:
        return cdist(one_AD, other_BD)
    one_AD, other_BD = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one_AD, other_BD))
    return cdist(one_AD, other_BD, "sqeuclidean") / 2


def nearest_points(
    vectors_KD: np.ndarray, run_K: np.ndarray, k: int, distance: Distance, ranks: bool = False, label: str = ""
) -> tuple[Nearest, Nearest]:
    """(among all other points, among the points of other runs).

    Args:
        run_K: [K] int64, the run of each point.
        ranks: whether the rank of every point is kept: 2 or 4 bytes for each pair.
        label: of the progress bar.
    """
    size = len(vectors_KD)
    kind = np.uint16 if size < 2**16 else np.uint32
    found = [
        Nearest(
            np.full((size, k), -1),
            np.full((size, k), np.nan),
            np.zeros((size, size), dtype=kind) if ranks else None,
        )
        for _ in range(2)
    ]
    block = max(BLOCK_BYTES // (8 * size), 1)
    for start in progress(range(0, size, block), label):
        rows = np.arange(start, min(start + block, size))
        apart_BK = distances(vectors_KD[rows], vectors_KD, distance)
        for nearest, left_out_BK in zip(
            found, (rows[:, None] == np.arange(size), run_K[rows, None] == run_K), strict=True
        ):
            _keep(nearest, rows, np.where(left_out_BK, np.inf, apart_BK), ~left_out_BK)
    return found[0], found[1]


def _keep(nearest: Nearest, rows: np.ndarray, apart_BK: np.ndarray, compared_BK: np.ndarray) -> None:
    k = nearest.nearest_Kk.shape[1]
    order_BK = np.argsort(apart_BK, axis=1, kind="stable")
    counts_B = compared_BK.sum(1)
    there_Bk = np.arange(min(k, order_BK.shape[1])) < counts_B[:, None]
    width = there_Bk.shape[1]
    nearest.nearest_Kk[rows, :width] = np.where(there_Bk, order_BK[:, :width], -1)
    near_Bk = np.take_along_axis(apart_BK, order_BK[:, :width], axis=1)
    nearest.distances_Kk[rows, :width] = np.where(there_Bk, near_Bk, np.nan)
    if nearest.ranks_KK is not None:
        places_BK = np.broadcast_to(np.arange(1, order_BK.shape[1] + 1), order_BK.shape)
        ranks_BK = np.empty_like(order_BK)
        np.put_along_axis(ranks_BK, order_BK, places_BK, axis=1)
        nearest.ranks_KK[rows] = np.where(compared_BK, ranks_BK, 0)


def kept(
    ranks_KK: np.ndarray, others_K: np.ndarray, shown_Kk: np.ndarray, placed_K: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What the neighbours shown in a plane are of the true ones: (trustworthiness, recall), [K] float64 each.

    Trustworthiness (Venna and Kaski 2001): 1 less a penalty for each of the k shown by how many places its true rank
    exceeds k; about .5 by chance. Recall: the share of the k nearest points that are among the k shown.

    Args:
        ranks_KK: true ranks, as Nearest has them.
        others_K: [K] int64, with how many points each is compared.
        shown_Kk: [K, k] int64, the places nearest to each place in the plane.
        placed_K: [K] int64, the point that lies at each place; None: its own.
    """
    placed_K = np.arange(len(ranks_KK)) if placed_K is None else placed_K
    k = shown_Kk.shape[1]
    ranks_Kk = ranks_KK[placed_K[:, None], placed_K[shown_Kk]].astype(np.int64)
    most_K = k * (2.0 * (others_K[placed_K] + 1) - 3.0 * k - 1.0)
    return 1.0 - 2.0 * np.clip(ranks_Kk - k, 0, None).sum(1) / most_K, (ranks_Kk <= k).mean(1)
