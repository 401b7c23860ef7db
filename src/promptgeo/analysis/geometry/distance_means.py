"""What is the mean distance over chosen pairs of tokens, and what is it in each draw of runs?

Shapes: N runs, P prompt tokens of a run, B bootstrap draws, L means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from promptgeo.analysis.resampling import pair_means, percentile_interval

LEAST_RUNS = 3
"""For an interval: two runs make one pair, whose mean is the same in every draw."""


class Within(Enum):
    """Which pairs of tokens of the same run count."""

    all = "all"
    """Self-pairs among them; every pair counts in both orders."""
    different = "different"
    """Pairs of different tokens."""
    none = "none"


@dataclass(frozen=True)
class PairSums:
    """Ordered pairs of tokens, summed up by the runs that they belong to."""

    sum_NN: np.ndarray
    """float64: of their distances."""
    each: int
    """Pairs for each ordered pair of runs."""
    own: int
    """How many of a run's pairs with itself are self-pairs."""


@dataclass(frozen=True)
class PairMean:
    """A mean distance over some pairs of tokens."""

    value: float
    n: int
    unit: str
    draws_B: np.ndarray
    """Its bootstrap draws; NaN where a draw has no such pair."""
    runs: int
    """Runs that its pairs rest on."""

    @property
    def interval(self) -> tuple[float, float] | tuple[None, None]:
        """95 % interval; (None, None) where the pairs rest on too few runs."""
        return interval_of(self.draws_B, self.runs)


def interval_of(draws_B: np.ndarray, runs: int) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of draws that rest on so many runs; (None, None) for fewer than LEAST_RUNS."""
    if runs < LEAST_RUNS or not np.isfinite(draws_B).any():
        return None, None
    return percentile_interval(draws_B)


def pair_mean(pairs: PairSums, mask_NN: np.ndarray | None, within: Within, weights_BN: np.ndarray) -> PairMean | None:
    """The mean over the pairs of tokens of the masked pairs of runs (bool; None: all); None where there are none.

    weights_BN: how often each run is in each draw.
    """
    mask_NN = np.ones(pairs.sum_NN.shape, dtype=bool) if mask_NN is None else mask_NN
    sum_NN, count_NN = np.where(mask_NN, pairs.sum_NN, 0.0), np.where(mask_NN, float(pairs.each), 0.0)
    diagonal = np.diag_indices(len(sum_NN))
    if within == Within.none:
        sum_NN[diagonal] = count_NN[diagonal] = 0.0
    elif within == Within.different:
        count_NN[diagonal] -= pairs.own * mask_NN[diagonal]  # their distances are 0
    total = int(count_NN.sum())
    if not total:
        return None
    n, unit = (total, "ordered pairs") if within == Within.all else (total // 2, "pairs")
    linked = int(np.count_nonzero(count_NN.any(axis=1)))
    return PairMean(float(sum_NN.sum()) / total, n, unit, pair_means(weights_BN, sum_NN, count_NN), linked)


def mean_of_means(means: Sequence[PairMean]) -> PairMean | None:
    """The mean of means, in each draw of those that it has; None of no means."""
    if not means:
        return None
    draws_LB = np.stack([mean.draws_B for mean in means])
    defined_LB = ~np.isnan(draws_LB)
    sums_B, counts_B = np.where(defined_LB, draws_LB, 0.0).sum(0), defined_LB.sum(0)
    draws_B = np.divide(sums_B, counts_B, out=np.full(len(sums_B), np.nan), where=counts_B > 0)
    value, n = float(np.mean([mean.value for mean in means])), sum(mean.n for mean in means)
    return PairMean(value, n, means[0].unit, draws_B, sum(mean.runs for mean in means))
