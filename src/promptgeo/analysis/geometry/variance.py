"""Shares of the variance of prompt tokens at length 1, and their nulls under permutations of whole cells of runs.

With D2 = 2 (1 - cosine) and G = -1/2 J D2 J, a factor's sum of squares is tr(H_f G), H_f the projection onto its
levels' indicators. G is the centred Gram matrix of the unit vectors, so that all of it comes from the inner products of
runs: nothing here is K x K.

Shapes: N runs, P prompt tokens, d width, K = N * P, L levels of a factor, B permutations or draws, c columns.
"""

from dataclasses import dataclass
from math import lgamma

import numpy as np

from promptgeo.analysis.resampling import (
    assignments,
    cell_orders_within,
    first_of_cells,
    orders_within,
    percentile_interval,
    permutation_p,
    shuffled_positions,
)
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
    size = max(CHUNK // (len(codes_N) * len(levels)), 1)
    sums = []
    for start in range(0, len(orders_BN), size):
        z_NBL = (codes_N[orders_BN[start : start + size]].T[..., None] == levels).astype(np.float64)
        z_Nc = z_NBL.reshape(len(codes_N), -1)
        forms_BL = np.einsum("nc,nc->c", gram_NN @ z_Nc, z_Nc).reshape(-1, len(levels))
        # Cells may have unequal numbers of runs, so that a level has another number once they have changed places.
        sums.append((forms_BL / np.maximum(z_NBL.sum(0), 1.0)).sum(1))
    return np.concatenate(sums)


@dataclass(frozen=True)
class Share:
    """A factor's R2 beside what it would be by chance."""

    r2: float
    null_B: np.ndarray
    """[B] float64: R2 of each permutation."""
    ways: float = np.inf
    """How many different permutations there are: no p is below 1 over this."""
    plain_p: float = 0.0
    """Of the factor's R2 without a control, where this is one: no p is below it (how_far.Control)."""

    @property
    def p(self) -> float:
        """That the factor's R2 is larger than by chance, one-sided."""
        return max(permutation_p(self.r2, self.null_B), 1.0 / self.ways, self.plain_p)

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

    @property
    def in_words(self) -> str:
        """What permutations give: their mean, and what 95 % of them do not exceed, for the test is one-sided."""
        return f"{self.null_B.mean():.3f}, in 95 % of draws at most {np.quantile(self.null_B, 0.95):.3f}"


def run_share(inner: Inner, codes_N: np.ndarray, strata_N: np.ndarray, permutations: int, seed: int) -> Share:
    """R2 of a factor of whole runs.

    Null: the cells of each stratum exchange their levels, all runs of one together; tokens keep their positions.
    """
    null_B = inner.r2_permuted(codes_N, cell_orders_within(codes_N, strata_N, permutations, seed))
    first_C, _ = first_of_cells(codes_N, strata_N)
    return Share(inner.r2(codes_N), null_B, assignments(codes_N[first_C], strata_N[first_C]))


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
    return Share(inner.position(), (np.concatenate(null) - constant) / inner.total, position_ways(n, length))


def position_ways(runs: int, length: int) -> float:
    """In how many ways each run's tokens can exchange their positions; names of positions do not count."""
    return float(np.exp(min((runs - 1) * lgamma(length + 1), 700.0)))  # beyond 700 a float overflows


def interaction_share(inner: Inner, first_N: np.ndarray, second_N: np.ndarray, permutations: int, seed: int) -> Share:
    """R2 of cells beyond both factors.

    Null: residuals of the additive model permuted among runs (Freedman and Lane 1983).
    Null shares are scaled to the observed residual by F, so that p is that of F. Needs several runs of some cell.
    """
    additive_Nq, cells_Nq = basis(first_N, second_N), basis(cells(first_N, second_N))
    residual_NN = np.eye(len(first_N)) - additive_Nq @ additive_Nq.T
    gram_NN = residual_NN @ inner.gram_NN @ residual_NN
    orders_BN = orders_within(np.zeros(len(first_N), dtype=int), permutations, seed)
    null_B = np.array([beyond_additive(gram_NN[np.ix_(order, order)], additive_Nq, cells_Nq) for order in orders_BN])
    remainder = float(np.trace(gram_NN)) / inner.total
    return Share(beyond_additive(gram_NN, additive_Nq, cells_Nq) * remainder, null_B * remainder)


def beyond_additive(gram_NN: np.ndarray, additive_Nq: np.ndarray, cells_Nq: np.ndarray) -> float:
    """The share that the cells of two factors explain of what both leave when added up. Bases as `basis` gives them."""
    both, cell = (float(((gram_NN @ basis_Nq) * basis_Nq).sum()) for basis_Nq in (additive_Nq, cells_Nq))
    return (cell - both) / max(float(np.trace(gram_NN)) - both, LEAST)


def cells(first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """[N] int64: the levels of two factors together."""
    return np.unique(first_N * (int(second_N.max()) + 1) + second_N, return_inverse=True)[1]


def with_peers(init_N: np.ndarray, task_N: np.ndarray) -> np.ndarray:
    """[N] bool: the runs whose place init and task leave open; one that is alone in a level lies there by definition.

    Leaving out one can leave another alone.
    """
    kept_N = np.ones(len(init_N), dtype=bool)
    while kept_N.any():
        basis_nq = basis(*(np.unique(codes_N[kept_N], return_inverse=True)[1] for codes_N in (init_N, task_N)))
        free_n = 1.0 - (basis_nq**2).sum(1)
        if (free_n > 1e-9).all():  # rounding
            break
        kept_N[kept_N] = free_n > 1e-9
    return kept_N


def spreads(
    unit_NPd: np.ndarray, init_N: np.ndarray, task_N: np.ndarray, orders_BN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far the runs lie from where their init, task and position place them: [N], and in each order [B, N]; float64.

    Residuals of the additive model, root mean square over a run's tokens. What a run shares with its levels pulls
    their means towards it, the more the fewer they are: its residual is divided by sqrt(1 - leverage), in a group of n
    by sqrt(1 - 1/n). In the null, runs exchange these residuals and the model is fitted again, so that the residuals
    of a small group are as alike as they are in the data. Every run needs peers (with_peers).
    """
    n = len(unit_NPd)
    means_Nd = unit_NPd.mean(1, dtype=np.float64)
    within_NPd = unit_NPd - means_Nd[:, None]
    within_N = ((within_NPd - within_NPd.mean(0)) ** 2).sum(2).mean(1) / (1.0 - 1.0 / n)
    basis_Nq = basis(init_N, task_N)
    free_N = 1.0 - (basis_Nq**2).sum(1)
    scaled_Nd = (means_Nd - basis_Nq @ (basis_Nq.T @ means_Nd)) / np.sqrt(free_N)[:, None]
    # Turned into as few dimensions as the runs have: lengths stay, and each draw is of N x K numbers.
    turned_Nd, lengths_K, _ = np.linalg.svd(scaled_Nd, full_matrices=False)
    scaled_NK = turned_Nd * lengths_K
    null_BN = np.empty(orders_BN.shape)
    for b, order_N in enumerate(orders_BN):
        dealt_NK = scaled_NK[order_N]
        dealt_NK = dealt_NK - basis_Nq @ (basis_Nq.T @ dealt_NK)
        null_BN[b] = (dealt_NK**2).sum(1) / free_N + within_N[order_N]
    return np.sqrt((scaled_NK**2).sum(1) + within_N), np.sqrt(null_BN)


def token_spreads(
    unit_NPd: np.ndarray, init_N: np.ndarray, task_N: np.ndarray, places_BNP: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far tokens lie from where their run's init and task and their position place them: [N, P], [B, N, P].

    As `spreads`, of tokens: in the null those of a run exchange their residuals, and the positions are fitted again.
    Exchanged as they are, tokens that are all pulled by one mean would stay as alike as they are only in the data: of
    four runs 9 to 11 % of nulls would be rejected.
    """
    scale = np.sqrt(1.0 - 1.0 / len(unit_NPd))
    means_Nd, basis_Nq = unit_NPd.mean(1, dtype=np.float64), basis(init_N, task_N)
    runs_N1d = (means_Nd - basis_Nq @ (basis_Nq.T @ means_Nd))[:, None]
    within_NPd = unit_NPd - means_Nd[:, None]
    within_NPd = (within_NPd - within_NPd.mean(0)) / scale
    null_BNP = np.empty(places_BNP.shape)
    for b, places_NP in enumerate(places_BNP):
        exchanged_NPd = np.take_along_axis(within_NPd, places_NP[:, :, None], axis=1)
        exchanged_NPd = runs_N1d + (exchanged_NPd - exchanged_NPd.mean(0)) / scale
        null_BNP[b] = np.linalg.norm(exchanged_NPd, axis=2)
    return np.linalg.norm(runs_N1d + within_NPd, axis=2), null_BNP


def spread_ratios(values_BK: np.ndarray, codes_K: np.ndarray) -> np.ndarray:
    """[B] float64: the largest of the levels' mean spreads over the smallest."""
    means_BL = values_BK @ np.eye(int(codes_K.max()) + 1)[codes_K] / np.bincount(codes_K)
    return means_BL.max(1) / np.maximum(means_BL.min(1), LEAST)


class Reassigned:
    """The prompts P0[r] + delta[order[r]], where runs of a stratum exchange what training added.

    as_far: runs exchange only the way their tokens go, and each goes as far as it did. What is left of a factor then is
    how far its levels move their tokens. Where no level has a way of its own, a run's way could as well be another's of
    its stratum, so that the null is exact, also where all deltas share a direction (deltas turned at random share none:
    such a null rejects up to 31 % there).
    """

    def __init__(
        self, initial_NPd: np.ndarray, delta_NPd: np.ndarray, strata_N: np.ndarray, *, as_far: bool = False
    ) -> None:
        """initial_NPd: P0 of each run. delta_NPd: what training added to it. strata_N: labels."""
        n, self._length, _ = initial_NPd.shape
        delta_NPd = np.asarray(delta_NPd, dtype=np.float64)
        far_NP1 = np.linalg.norm(delta_NPd, axis=2, keepdims=True) if as_far else np.ones((n, self._length, 1))
        ways_NPd = delta_NPd / np.maximum(far_NP1, LEAST)
        self._row_NN = np.full((n, n), -1)  # where the sum over a start's tokens with another run's delta is kept
        sums: list[np.ndarray] = []
        for stratum in np.unique(strata_N):
            members = np.flatnonzero(strata_N == stratum)
            alike: dict[bytes, list[int]] = {}  # runs that start alike and go as far give the same prompts
            for r in members:
                alike.setdefault(initial_NPd[r].tobytes() + far_NP1[r].tobytes(), []).append(int(r))
            for starters in alike.values():
                places = sum(len(each) for each in sums) + np.arange(len(members))
                self._row_NN[np.array(starters)[:, None], members] = places
                first = starters[0]
                sums.append(unit(initial_NPd[first] + far_NP1[first] * ways_NPd[members]).sum(1))
        self._sums_cd = np.concatenate(sums)

    def sums_Nd(self, order_N: np.ndarray) -> np.ndarray:
        """float64: the sum of each run's tokens at length 1."""
        return self._sums_cd[self._row_NN[np.arange(len(order_N)), order_N]]

    def r2(self, codes_N: np.ndarray, orders_BN: np.ndarray) -> Share:
        """A factor's R2, levels 0 .. L - 1, beside those with the deltas in these orders."""
        by_level, sizes_L = np.argsort(codes_N, kind="stable"), np.bincount(codes_N)
        starts_L, tokens = np.cumsum(sizes_L) - sizes_L, len(codes_N) * self._length
        shares = []
        for order_N in (np.arange(len(codes_N)), *orders_BN):
            groups_Ld = np.add.reduceat(self.sums_Nd(order_N)[by_level], starts_L, axis=0)
            centre = float((groups_Ld.sum(0) ** 2).sum()) / tokens
            explained = float(((groups_Ld**2).sum(1) / (self._length * sizes_L)).sum()) - centre
            shares.append(explained / (tokens - centre))
        return Share(shares[0], np.array(shares[1:]))


def reassigned_positions(initial_NPd: np.ndarray, delta_NPd: np.ndarray, redraws: int, seed: int) -> Share:
    """Position's R2; null: the tokens of a run exchange what training added to them, and keep their P0."""
    n, length, width = initial_NPd.shape
    places_BNP = shuffled_positions(n, length, redraws, seed).reshape(-1, n, length)
    places_BNP = np.concatenate([np.tile(np.arange(length), (1, n, 1)), places_BNP])
    sums_PBd = []
    for position in range(length):
        tokens_NPd = unit(initial_NPd[:, position, None].astype(np.float64) + delta_NPd)  # each delta on this P0
        chosen_BNP = (places_BNP[:, :, position, None] == np.arange(length)).astype(np.float64)
        sums_PBd.append(chosen_BNP.reshape(-1, n * length) @ tokens_NPd.reshape(-1, width))
    centre_B = (sum(sums_PBd) ** 2).sum(1) / (n * length)
    explained_B = sum((sums_Bd**2).sum(1) for sums_Bd in sums_PBd) / n - centre_B
    shares_B = explained_B / (n * length - centre_B)
    return Share(float(shares_B[0]), shares_B[1:], position_ways(n, length))
