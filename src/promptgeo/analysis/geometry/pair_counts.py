"""How many pairs of prompt tokens of any two runs are neighbours, and how many with equal labels would be by chance?

A neighbour lies closer than a radius in cosine distance.

Shapes: N runs, P prompt tokens of a run, K = N * P, b tokens of a block, E radii, B weightings of runs, D permutations,
L levels of a label, d width.
"""

from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.geometry.tokens import Tokens
from promptgeo.analysis.resampling import pair_means, shuffled_positions

BLOCK_BYTES = 2**26
"""Of distances, or of sums by label, held at once."""


@dataclass(frozen=True)
class PairCounts:
    """Neighbouring ordered pairs of prompt tokens (token of one run, token of the other), counted by their runs.

    Where pairs within a run do not count, all diagonals are 0.
    """

    radii: tuple[float, ...]
    epsilon: float
    """The radius, one of them, within which equal positions are counted."""
    length: int
    """P."""
    near_ENN: np.ndarray
    """float64: pairs closer than each radius."""
    possible_NN: np.ndarray
    """float64: pairs at any distance."""
    equal_NN: np.ndarray
    """float64: pairs at equal position closer than epsilon."""
    equal_possible_NN: np.ndarray
    """float64: pairs at equal position at any distance."""
    equal_null_D: np.ndarray
    """float64: the sum of equal_NN with positions permuted within each run."""
    nearest_K: np.ndarray
    """float64: distance to the nearest other prompt token that counts."""
    nearest_run_K: np.ndarray
    """int64: the run of that token."""

    @property
    def runs(self) -> int:
        """N."""
        return len(self.possible_NN)

    @property
    def near_NN(self) -> np.ndarray:
        """float64: pairs closer than epsilon."""
        return self.near_ENN[self.radii.index(self.epsilon)]

    @property
    def scale(self) -> float:
        """Pairs per prompt token."""
        return float(self.possible_NN.sum()) / (self.runs * self.length)

    def mean_count(self, near_NN: np.ndarray, weights_BN: np.ndarray) -> tuple[float, np.ndarray]:
        """(neighbours per prompt token, the same with each weighting of the runs [B]).

        There: its share of possible pairs, scaled to the observed number of them.
        """
        mean = float(near_NN.sum() / self.possible_NN.sum() * self.scale)
        return mean, pair_means(weights_BN, near_NN, self.possible_NN) * self.scale


def count_pairs(
    points: Tokens, radii: tuple[float, ...], epsilon: float, *, within_runs: bool, permutations: int, seed: int
) -> PairCounts:
    """Neighbouring pairs of prompt tokens, without a [K, K] array.

    Args:
        points: the prompt tokens.
        radii: cosine distances.
        epsilon: the one of them within which equal positions are counted.
        within_runs: whether a token is a neighbour of itself and of the other tokens of its run.
        permutations: D, of the positions within each run.
        seed: of the permutations.

    Raises UserError for a token of length 0.
    """
    unit_Kd = points.unit_Kd.astype(np.float64)
    count, n, length = len(points), points.runs, points.length
    positions_DK = shuffled_positions(n, length, permutations, seed)
    near_ENN, equal_NN = np.zeros((len(radii), n, n)), np.zeros((n, n))
    null_D, nearest_K, nearest_run_K = np.zeros(permutations), np.empty(count), np.empty(count, dtype=np.int64)
    block = max(BLOCK_BYTES // (8 * count * length), 1) * length  # whole runs
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        of_runs = slice(start // length, start // length + len(rows) // length)
        distances_bK = _distances(unit_Kd, rows, length, within_runs)
        others_bK = np.where(rows[:, None] == np.arange(count), np.inf, distances_bK)
        nearest_K[rows], nearest_run_K[rows] = others_bK.min(1), others_bK.argmin(1) // length
        for e, radius in enumerate(radii):
            near_bK = distances_bK < radius
            near = near_bK.reshape(-1, length, n, length)
            near_ENN[e, of_runs] = near.sum(axis=(1, 3))
            if radius == epsilon:
                equal_NN[of_runs] = np.einsum("apbp->ab", near.astype(np.float64))
                null_D += _equal_labels(near_bK, rows, positions_DK, length)
    possible_NN, equal_possible_NN = np.full((n, n), float(length**2)), np.full((n, n), float(length))
    if not within_runs:
        np.fill_diagonal(possible_NN, 0.0)
        np.fill_diagonal(equal_possible_NN, 0.0)
    equal = equal_NN, equal_possible_NN, null_D
    return PairCounts(radii, epsilon, length, near_ENN, possible_NN, *equal, nearest_K, nearest_run_K)


def _distances(unit_Kd: np.ndarray, rows: np.ndarray, length: int, within_runs: bool) -> np.ndarray:
    """[b, K] float64: cosine distances of some tokens to all; infinite within a run where such pairs do not count."""
    columns = np.arange(len(unit_Kd))
    distances_bK = np.clip(1.0 - unit_Kd[rows] @ unit_Kd.T, 0.0, 2.0)
    distances_bK[rows[:, None] == columns] = 0.0
    if not within_runs:
        distances_bK[rows[:, None] // length == columns // length] = np.inf
    return distances_bK


def _equal_labels(near_bK: np.ndarray, rows: np.ndarray, labels_DK: np.ndarray, levels: int) -> np.ndarray:
    """[D] float64: neighbouring pairs whose labels are equal, for D labellings at once."""
    near_bK = near_bK.astype(np.float32)
    size = max(BLOCK_BYTES // (4 * levels * near_bK.shape[1]), 1)
    sums = []
    for start in range(0, len(labels_DK), size):
        onehot_KDL = (labels_DK[start : start + size].T[:, :, None] == np.arange(levels)).astype(np.float32)
        flat = onehot_KDL.reshape(len(onehot_KDL), -1)
        agreeing = (near_bK @ flat) * flat[rows]
        sums.append(agreeing.reshape(len(rows), -1, levels).sum(axis=(0, 2), dtype=np.float64))
    return np.concatenate(sums)


def near_between(prompts_NPd: np.ndarray, radius: float) -> np.ndarray:
    """[N, N] float64: ordered pairs of tokens of two runs closer than a cosine distance; 0 within runs."""
    n, length, width = prompts_NPd.shape
    flat_Kd = prompts_NPd.reshape(-1, width).astype(np.float32)
    norms_K1 = np.linalg.norm(flat_Kd, axis=1, keepdims=True)
    unit_Kd = flat_Kd / np.where(norms_K1 > 0, norms_K1, 1.0)
    near_NN = np.empty((n, n))
    block = max(BLOCK_BYTES // (4 * len(unit_Kd) * length), 1)
    for start in range(0, n, block):
        rows = slice(start * length, (start + block) * length)
        near_bK = unit_Kd[rows] @ unit_Kd.T > 1.0 - radius
        near_NN[start : start + block] = near_bK.reshape(-1, length, n, length).sum(axis=(1, 3))
    np.fill_diagonal(near_NN, 0.0)
    return near_NN


def equal_label_null(near_NN: np.ndarray, labels_N: np.ndarray, orders_BN: np.ndarray) -> np.ndarray:
    """[B] float64: neighbouring pairs with equal labels when runs exchange their labels (from 0) in these orders."""
    onehot_LL = np.eye(labels_N.max() + 1)
    return np.array([float((onehot_NL * (near_NN @ onehot_NL)).sum()) for onehot_NL in onehot_LL[labels_N[orders_BN]]])
