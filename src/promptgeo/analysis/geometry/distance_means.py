"""What is the mean distance over chosen pairs of tokens, and what is it without each init, task and run?

Shapes: N runs, P prompt tokens of a run, J leave-outs, L means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from promptgeo.analysis.crossed import Error, LeaveOuts
from promptgeo.analysis.resampling import pair_means


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
    without_J: np.ndarray
    """float64: the mean without each of left_out; NaN where it leaves no such pair."""
    members_N: np.ndarray
    """bool: the runs that its pairs rest on."""
    left_out: LeaveOuts
    of_pairs_M: np.ndarray
    """float64: what it is the mean of, one value for each pair of runs; of a mean of means these."""

    @property
    def error(self) -> Error | None:
        """None where the pairs rest on too few runs."""
        return self.left_out.error(self.without_J, self.members_N)

    @property
    def interval(self) -> tuple[float, float] | tuple[None, None]:
        """95 % interval, not below 0; (None, None) where the pairs rest on too few runs."""
        if (error := self.error) is None:
            return None, None
        low, high = error.interval(self.value)
        return max(low, 0.0), high

    def above(self, other: "PairMean") -> tuple[float, Error | None]:
        """(this mean less another of the same runs, its error): both without the same levels."""
        members_N = self.members_N | other.members_N
        return self.value - other.value, self.left_out.error(self.without_J - other.without_J, members_N)


def pair_mean(pairs: PairSums, mask_NN: np.ndarray | None, within: Within, left_out: LeaveOuts) -> PairMean | None:
    """The mean over the pairs of tokens of the masked pairs of runs (bool; None: all); None where there are none."""
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
    without_J = pair_means(left_out.weights_JN, sum_NN, count_NN)
    members_N, once = np.asarray(count_NN.any(axis=1)), np.triu(count_NN) > 0
    of_pairs_M = sum_NN[once] / count_NN[once]
    return PairMean(float(sum_NN.sum()) / total, n, unit, without_J, members_N, left_out, of_pairs_M)


def mean_of_means(means: Sequence[PairMean]) -> PairMean | None:
    """The mean of means, without each level of those that are left; None of no means."""
    if not means:
        return None
    without_LJ = np.stack([mean.without_J for mean in means])
    defined_LJ = ~np.isnan(without_LJ)
    sums_J, counts_J = np.where(defined_LJ, without_LJ, 0.0).sum(0), defined_LJ.sum(0)
    without_J = np.divide(sums_J, counts_J, out=np.full(len(sums_J), np.nan), where=counts_J > 0)
    value, n = float(np.mean([mean.value for mean in means])), sum(mean.n for mean in means)
    members_N = np.asarray(np.stack([mean.members_N for mean in means]).any(axis=0))
    values_M = np.array([mean.value for mean in means])
    return PairMean(value, n, means[0].unit, without_J, members_N, means[0].left_out, values_M)
