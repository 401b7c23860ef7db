"""How far does the lowest mixture lie from the worst vertex, when both are known from so many test examples?

The minimum of many noisy accuracies lies below the true one, that of few vertices less so: a count of mixtures below
the worst vertex contradicts convexity by noise. Here both minima are bounded at once, in the same examples.

Shapes: M mixtures, V vertices, E test examples, B bootstrap draws of examples.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from promptgeo.analysis.resampling import NORMAL, draw_counts


@dataclass(frozen=True)
class Lowest:
    """min over mixtures of (its accuracy less the worst vertex's): the convexity of a hull, in one number."""

    value: float
    """As counted: below the true one, for it is the minimum of many."""
    low: float
    high: float
    """95 % interval of the true one."""
    holds_p: float
    """Two-sided p of every mixture lying above the margin."""
    fails_p: float
    """Two-sided p of some mixture lying below it."""


def lowest_mixture(mixtures_ME: np.ndarray, vertices_VE: np.ndarray, margin: float, draws: int, seed: int) -> Lowest:
    """Bounds of min_m max_v d, where d is accuracy of mixture m less that of vertex v on the same examples.

    The worst vertex is not chosen by its noisy accuracy: a mixture lies below it where it lies below every vertex.
    high: each d has its upper bound, at once over mixtures, whichever vertex is the worst, or their mean has (the
    lowest is not above it), at half the level each; so "some mixture is lower" is wrong in 2.5 %. low: each d has its
    lower bound, at once over vertices; "every mixture is higher" needs no more, for each of them has to show it (Berger
    1982). Bounds are studentised maxima over bootstrap draws of examples, at least the normal's; standard errors are
    those of Bonett and Price (2012), which no agreement makes 0.

    mixtures_ME, vertices_VE: bool. margin: how far below the worst vertex a mixture may lie, a fraction.
    """
    mixed_ME, vertex_VE = mixtures_ME.astype(np.float64), vertices_VE.astype(np.float64)
    off_BE = draw_counts(np.random.default_rng(seed), mixed_ME.shape[1], draws) - 1.0
    every = _Compared.of(mixed_ME, vertex_VE, off_BE)
    mean = _Compared.of(mixed_ME.mean(0, keepdims=True), vertex_VE, off_BE)
    value = float((mixed_ME.mean(1) - vertex_VE.mean(1).min()).min())
    low, high = every.low(), min(every.high(0.0125), mean.high(0.0125))
    return Lowest(
        value,
        max(min(low, value), -1.0),
        min(max(high, value), 1.0),
        holds_p=min(2 * every.above_p(margin), 1.0),
        fails_p=min(4 * min(every.below_p(margin), mean.below_p(margin)), 1.0),
    )


@dataclass(frozen=True)
class _Compared:
    """Accuracies of mixtures less those of vertices, and their draws in standard errors, centred."""

    centre_MV: np.ndarray
    error_MV: np.ndarray
    highest_BM: np.ndarray
    """The highest over vertices."""
    lowest_BV: np.ndarray
    """The lowest over mixtures."""

    @classmethod
    def of(cls, mixed_ME: np.ndarray, vertex_VE: np.ndarray, off_BE: np.ndarray) -> "_Compared":
        """off_BE: how often each example is drawn beyond once."""
        n = mixed_ME.shape[1]
        centre_MV, error_MV = _paired(mixed_ME, vertex_VE)
        mixed_BM, vertex_BV = off_BE @ mixed_ME.T / (n + 2), off_BE @ vertex_VE.T / (n + 2)
        highest_BM, lowest_BV = np.full(mixed_BM.shape, -np.inf), np.empty(vertex_BV.shape)
        for v, vertex_B in enumerate(vertex_BV.T):  # all vertices at once would be B x M x V numbers
            z_BM = (mixed_BM - vertex_B[:, None]) / error_MV[:, v]
            lowest_BV[:, v] = z_BM.min(1)
            highest_BM = np.maximum(highest_BM, z_BM)
        return cls(centre_MV, error_MV, highest_BM, lowest_BV)

    def low(self) -> float:
        """2.5 % bound of the lowest mixture less the worst vertex."""
        z_M = np.maximum(NORMAL, np.quantile(self.highest_BM, 0.975, axis=0))
        return float((self.centre_MV - z_M[:, None] * self.error_MV).max(1).min())

    def high(self, level: float) -> float:
        z = max(NormalDist().inv_cdf(1 - level), float(-np.quantile(self.lowest_BV, level, axis=0).min()))
        return float((self.centre_MV + z * self.error_MV).max(1).min())

    def above_p(self, margin: float) -> float:
        """One-sided p of every mixture lying above the worst vertex less the margin."""
        z_M = ((self.centre_MV + margin) / self.error_MV).max(1)
        return _p((self.highest_BM >= z_M).sum(0), len(self.highest_BM), float(z_M.min()))

    def below_p(self, margin: float) -> float:
        """One-sided p of some mixture lying below."""
        z = float(((self.centre_MV + margin) / self.error_MV).max(1).min())
        return _p((self.lowest_BV <= z).sum(0), len(self.lowest_BV), -z)


def lowest_above(rows_RE: np.ndarray, least_E: np.ndarray, drawn_BE: np.ndarray) -> tuple[float, float, float]:
    """(min over prompts of mean accuracy less what is asked, its 95 % interval): bounds as those of lowest_mixture.

    rows_RE: float64, what each prompt solves of each example. least_E: what is asked of each.
    """
    compared = _Compared.of(rows_RE, least_E[None], drawn_BE - 1.0)
    value = float((rows_RE.mean(1) - least_E.mean()).min())
    return value, min(compared.low(), value), max(compared.high(0.025), value)


def _paired(mixed_ME: np.ndarray, vertex_VE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(difference [M, V], its standard error [M, V]) of paired accuracies: one example more on which each wins."""
    n = mixed_ME.shape[1]
    centre_MV = (mixed_ME.sum(1)[:, None] - vertex_VE.sum(1)) / (n + 2)
    squares_MV = (mixed_ME**2).sum(1)[:, None] - 2 * mixed_ME @ vertex_VE.T + (vertex_VE**2).sum(1)
    return centre_MV, np.sqrt(((squares_MV + 2) / (n + 2) - centre_MV**2) / (n + 2))


def _p(extreme: np.ndarray, draws: int, z: float) -> float:
    """The largest share of draws that are as extreme; not below the normal's, for draws never vary where none do."""
    return max(float(extreme.max() + 1) / (draws + 1), NormalDist().cdf(-z))
