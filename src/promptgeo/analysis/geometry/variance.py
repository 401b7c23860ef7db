"""Shares of the variance of prompt tokens at length 1, and their nulls under permutations of whole runs.

With D2 = 2 (1 - cosine) and G = -1/2 J D2 J, a factor's sum of squares is tr(H_f G), H_f the projection onto its
levels' indicators. G is the centred Gram matrix of the unit vectors, so that all of it comes from the inner products of
runs: nothing here is K x K.

Shapes: N runs, P prompt tokens, d width, K = N * P, L levels of a factor, B permutations or draws, c columns.
"""

from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.resampling import orders_within, percentile_interval, permutation_p
from promptgeo.errors import UserError

CHUNK = 2**22
"""Entries of an indicator matrix held at once: 32 MiB of float64."""
LEAST = 1e-300
"""In place of a divisor of 0, where what is divided is 0 too."""


def omega2(r2: float, tokens: int, levels: int) -> float:
    """R2 without what L levels get by chance (Hays 1963): (SSB - (L - 1) MSW) / (SST + MSW), MSW = SSW / (K - L).

    May be negative.
    """
    msw = (1.0 - r2) / (tokens - levels)
    return (r2 - (levels - 1) * msw) / (1.0 + msw)


def unit(vectors: np.ndarray) -> np.ndarray:
    """[..., d] at length 1, in the same dtype.

    Raises UserError for a vector of length 0 or not finite.
    """
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise UserError("a prompt token is zero or not finite: it has no direction")
    return vectors / norms


@dataclass(frozen=True)
class Inner:
    """Inner products of the runs' unit vectors: all that shares of variance depend on."""

    any_NN: np.ndarray
    """float64: summed over all pairs of positions."""
    equal_NN: np.ndarray
    """float64: summed over equal positions."""
    length: int
    """P."""

    @classmethod
    def of(cls, vectors_NPd: np.ndarray) -> "Inner":
        """Of vectors of any length > 0."""
        n, length, _ = vectors_NPd.shape
        unit_NPd = unit(np.asarray(vectors_NPd, dtype=np.float64))
        sums_Nd, flat_Nc = unit_NPd.sum(1), unit_NPd.reshape(n, -1)
        return cls(sums_Nd @ sums_Nd.T, flat_Nc @ flat_Nc.T, length)

    @property
    def tokens(self) -> int:
        return len(self.any_NN) * self.length

    @property
    def total(self) -> float:
        """Sum of squares of all tokens about their centroid.

        Raises UserError where all are the same.
        """
        squares = float(np.trace(self.equal_NN)) - float(self.any_NN.sum()) / self.tokens
        if squares <= 1e-9 * self.tokens:  # what rounding leaves of equal tokens is far below
            raise UserError("all prompt tokens point the same way: there is no variance to explain")
        return squares

    @property
    def gram_NN(self) -> np.ndarray:
        """[N, N] float64: the inner products about the centroid, per token.

        z' gram z / n is the sum of squares of a group of n runs with indicator z.
        """
        rows_N = self.any_NN.mean(1)
        return (self.any_NN - rows_N[:, None] - rows_N + rows_N.mean()) / self.length

    def position(self) -> float:
        """R2 of position: independent of every factor of whole runs, as each run has every position once."""
        n = len(self.any_NN)
        return _bounded((float(self.equal_NN.sum()) / n - float(self.any_NN.sum()) / self.tokens) / self.total)

    def r2(self, codes_N: np.ndarray) -> float:
        """R2 of a factor of whole runs. codes_N: levels 0 .. L - 1."""
        return _bounded(float(between(self.gram_NN, codes_N, np.arange(len(codes_N))[None])[0]) / self.total)

    def r2_permuted(self, codes_N: np.ndarray, orders_BN: np.ndarray) -> np.ndarray:
        """[B] float64: R2 with the levels reassigned among the runs."""
        return between(self.gram_NN, codes_N, orders_BN) / self.total

    def r2_joint(self, *codes: np.ndarray) -> tuple[float, int]:
        """R2 of several factors of whole runs together, without interactions, and the dimension they span."""
        basis_Nq = basis(*codes)
        return float(((self.gram_NN @ basis_Nq) * basis_Nq).sum()) / self.total, basis_Nq.shape[1]

    def r2_weighted(self, weights_BN: np.ndarray, codes_N: np.ndarray | None) -> np.ndarray:
        """[B] float64: R2 where each run counts as often as its weight says. NaN where nothing varies.

        codes_N: levels of a factor of whole runs; None: R2 of position.
        """
        counts_B = weights_BN.sum(1)
        centre_B = quadratic(self.any_NN, weights_BN) / (counts_B * self.length)
        total_B = weights_BN @ np.diag(self.equal_NN) - centre_B
        if codes_N is None:
            explained_B = quadratic(self.equal_NN, weights_BN) / counts_B
        else:
            explained_B = np.zeros(len(weights_BN))
            for level in np.unique(codes_N):
                members = codes_N == level
                group_Bm = weights_BN[:, members]
                sizes_B = np.maximum(group_Bm.sum(1), LEAST)
                explained_B += quadratic(self.any_NN[np.ix_(members, members)], group_Bm) / (self.length * sizes_B)
        varies_B = total_B > 1e-9 * counts_B  # a token's share of rounding is far below
        return np.where(varies_B, (explained_B - centre_B) / np.where(varies_B, total_B, 1.0), np.nan)


def _bounded(share: float) -> float:
    """Without the last bits by which rounding leaves [0, 1]."""
    return min(max(share, 0.0), 1.0)


def quadratic(form_NN: np.ndarray, vectors_BN: np.ndarray) -> np.ndarray:
    """[B]: v' form v."""
    return np.einsum("bn,bn->b", vectors_BN @ form_NN, vectors_BN)


def basis(*codes: np.ndarray) -> np.ndarray:
    """[N, q] float64: an orthonormal basis of what the factors' indicators span."""
    indicators = np.concatenate([np.eye(int(c.max()) + 1)[c] for c in codes], axis=1)
    left, sizes, _ = np.linalg.svd(indicators, full_matrices=False)
    return left[:, sizes > 1e-9 * sizes[0]]  # the others are 0 but for rounding


def between(gram_NN: np.ndarray, codes_N: np.ndarray, orders_BN: np.ndarray) -> np.ndarray:
    """[B] float64: sum over the levels of z' gram z / n, the levels assigned as each order says."""
    levels = np.arange(int(codes_N.max()) + 1)
    sizes_L = np.bincount(codes_N)
    size = max(CHUNK // (len(codes_N) * len(levels)), 1)
    sums = []
    for start in range(0, len(orders_BN), size):
        z_NBL = (codes_N[orders_BN[start : start + size]].T[..., None] == levels).astype(np.float64)
        z_Nc = z_NBL.reshape(len(codes_N), -1)
        forms_BL = np.einsum("nc,nc->c", gram_NN @ z_Nc, z_Nc).reshape(-1, len(levels))
        sums.append((forms_BL / sizes_L).sum(1))
    return np.concatenate(sums)


@dataclass(frozen=True)
class Share:
    """A factor's R2 beside what it would be by chance."""

    r2: float
    null_B: np.ndarray
    """[B] float64: R2 of each permutation."""

    @property
    def p(self) -> float:
        """That the factor's R2 is larger than by chance, one-sided."""
        return permutation_p(self.r2, self.null_B)

    def effect(self, r2: float) -> float:
        """(R2 - E R2) / (1 - E R2), E over the permutations: 0 by chance, 1 if the factor is all there is."""
        chance = float(self.null_B.mean())
        return (r2 - chance) / (1.0 - chance) if chance < 1.0 - 1e-12 else 0.0 * r2  # 1: permuting changes nothing

    @property
    def size(self) -> float:
        """The effect of the factor's own R2."""
        return float(self.effect(self.r2))

    @property
    def by_chance(self) -> tuple[float, float]:
        """95 % range of R2 over the permutations."""
        return percentile_interval(self.null_B)


def run_share(inner: Inner, codes_N: np.ndarray, strata_N: np.ndarray, permutations: int, seed: int) -> Share:
    """R2 of a factor of whole runs.

    Null: the runs of each stratum exchange their levels, and keep their tokens at their positions.
    """
    return Share(inner.r2(codes_N), inner.r2_permuted(codes_N, orders_within(strata_N, permutations, seed)))


def position_share(unit_NPd: np.ndarray, inner: Inner, permutations: int, seed: int) -> Share:
    """Position's R2; null: each run's tokens exchange their positions among themselves.

    A small p says that positions differ, be it for all runs alike or for those of one init or task only.
    """
    n, length, width = unit_NPd.shape
    generator = np.random.default_rng(seed)
    # float64: equal values must come out equal, or they do not count as extreme.
    flat_Kd = unit_NPd.reshape(n * length, width).astype(np.float64)
    constant = float(inner.any_NN.sum()) / inner.tokens
    null = []
    size = max(CHUNK // (n * length * length), 1)
    for start in range(0, permutations, size):
        drawn = min(size, permutations - start)
        places_BNP = np.argsort(generator.random((drawn, n, length)), axis=2)
        z_BPK = np.swapaxes(places_BNP.reshape(drawn, -1, 1) == np.arange(length), 1, 2).astype(flat_Kd.dtype)
        sums_cd = z_BPK.reshape(-1, n * length) @ flat_Kd
        null.append(np.einsum("cd,cd->c", sums_cd, sums_cd).reshape(drawn, length).sum(1) / n)
    return Share(inner.position(), (np.concatenate(null) - constant) / inner.total)


def interaction_share(inner: Inner, first_N: np.ndarray, second_N: np.ndarray, permutations: int, seed: int) -> Share:
    """R2 of cells beyond both factors.

    Null: residuals of the additive model permuted among runs (Freedman and Lane 1983).
    Null shares are scaled to the observed residual by F, so that p is that of F. Needs several runs of some cell.
    """
    additive_Nq, cells_Nq = basis(first_N, second_N), basis(cells(first_N, second_N))
    residual_NN = np.eye(len(first_N)) - additive_Nq @ additive_Nq.T
    gram_NN = residual_NN @ inner.gram_NN @ residual_NN
    projection_NN = cells_Nq @ cells_Nq.T - additive_Nq @ additive_Nq.T
    whole_NN = np.eye(len(first_N)) - cells_Nq @ cells_Nq.T
    orders_BN = orders_within(np.zeros(len(first_N), dtype=int), permutations, seed)
    shares = []
    for order in orders_BN:
        permuted_NN = gram_NN[np.ix_(order, order)]
        explained, error = float((projection_NN * permuted_NN).sum()), float((whole_NN * permuted_NN).sum())
        shares.append(explained / max(explained + error, LEAST))
    remainder = float(np.trace(gram_NN)) / inner.total
    return Share(float((projection_NN * gram_NN).sum()) / inner.total, np.array(shares) * remainder)


def cells(first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """[N] int64: the levels of two factors together."""
    return np.unique(first_N * (int(second_N.max()) + 1) + second_N, return_inverse=True)[1]


def centroid_distances(unit_NPd: np.ndarray, codes_NP: np.ndarray) -> np.ndarray:
    """[N, P] float64: Euclidean distance of each token to the centroid of its group."""
    flat_Kd, codes_K = unit_NPd.reshape(-1, unit_NPd.shape[2]), codes_NP.ravel()
    distances_K = np.empty(len(codes_K))
    for level in range(int(codes_K.max()) + 1):
        members = codes_K == level
        distances_K[members] = np.linalg.norm(flat_Kd[members] - flat_Kd[members].mean(0), axis=1)
    return distances_K.reshape(codes_NP.shape)


def f_ratio(values_NP: np.ndarray, codes_BNP: np.ndarray) -> np.ndarray:
    """[B] float64: F of a one-way analysis of variance of single numbers, for each assignment of levels.

    NaN where nothing varies within the levels.
    """
    values_K = values_NP.ravel() - values_NP.mean()
    codes_BK = codes_BNP.reshape(len(codes_BNP), -1)
    levels = int(codes_BK.max()) + 1
    between_B = np.zeros(len(codes_BK))
    for level in range(levels):
        chosen_BK = codes_BK == level
        between_B += (chosen_BK @ values_K) ** 2 / chosen_BK.sum(1)
    within_B = (values_K**2).sum() - between_B
    with np.errstate(divide="ignore", invalid="ignore"):
        f_B = between_B / (levels - 1) / (within_B / (len(values_K) - levels))
    return np.where(within_B > 1e-12 * len(values_K), f_B, np.nan)  # less is what rounding leaves


def reassigned_r2(
    initial_NPd: np.ndarray, delta_NPd: np.ndarray, init_N: np.ndarray, task_N: np.ndarray, orders_BN: np.ndarray
) -> np.ndarray:
    """[B] float64: R2 of the init for the prompts P0[r] + delta[order[r]].

    Args:
        initial_NPd: P0 of each run.
        delta_NPd: what training added to it.
        init_N, task_N: levels 0 .. L - 1 of each run.
        orders_BN: orders of the runs that exchange only runs of the same task.
    """
    n, length, _ = initial_NPd.shape
    row_NN = np.full((n, n), -1)  # where the sum over a start's tokens with another run's delta is kept
    sums: list[np.ndarray] = []
    for task in np.unique(task_N):
        members = np.flatnonzero(task_N == task)
        alike: dict[bytes, list[int]] = {}  # runs that start from the same P0 give the same prompts
        for r in members:
            alike.setdefault(initial_NPd[r].tobytes(), []).append(int(r))
        for starters in alike.values():
            row_NN[np.array(starters)[:, None], members] = sum(len(each) for each in sums) + np.arange(len(members))
            sums.append(unit(initial_NPd[starters[0]] + delta_NPd[members]).sum(1))
    sums_cd = np.concatenate(sums).astype(np.float64)
    by_init = np.argsort(init_N, kind="stable")
    sizes_L = np.bincount(init_N)
    starts_L = np.cumsum(sizes_L) - sizes_L
    shares = []
    for order in orders_BN:
        groups_Ld = np.add.reduceat(sums_cd[row_NN[np.arange(n), order]][by_init], starts_L, axis=0)
        centre = float((groups_Ld.sum(0) ** 2).sum()) / (n * length)
        explained = float(((groups_Ld**2).sum(1) / (length * sizes_L)).sum()) - centre
        shares.append(explained / (n * length - centre))
    return np.array(shares)
