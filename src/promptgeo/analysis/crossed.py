"""How far would other inits, other tasks and other runs take a mean? A jackknife of crossed factors.

Runs with the same init have something in common, runs of the same task too, and pairs of runs share runs. So each init
and each task is left out once, with all its runs (Tukey 1958). The variances of both factors add up, less that of their
cells, which is in both (Cameron, Gelbach and Miller 2011). Student's t has the degrees of freedom of the factor with
fewer levels. Leave-outs are compared with each other, not with the value: that they hold self-pairs in another share
does not move an interval.

Shapes: N runs, J leave-outs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from promptgeo.analysis.resampling import STILL, clopper_pearson, t_quantile, t_two_sided

FEW_HITS = 3
"""Of a share: one that comes from k units alike has about k hits among the observations that vary as it does."""
LEAST_LEVELS = 3
"""Of a factor whose levels are left out: without one of two there are no pairs. One with fewer is taken as it is."""


LEAST_RUNS = 6
"""Where no factor has so many levels. Of four runs the pairs within a task are two, and 87 % of intervals hold what
they should; six is also what sign flips need."""


class Error(NamedTuple):
    """How far an estimate may lie from what other levels would give."""

    standard: float
    freedom: int
    """Degrees of freedom."""
    factors: int
    """Whose levels are left out: 2 inits and tasks, 1 one of them, 0 neither (runs of the same levels)."""
    units: int
    """Levels of the factor with fewer of them, or runs."""

    def interval(self, value: float, level: float = 0.95) -> tuple[float, float]:
        """By Student's t."""
        half = t_quantile((1 + level) / 2, self.freedom) * self.standard
        return value - half, value + half

    def p(self, value: float) -> float:
        """Two-sided p of a value of 0, by Student's t; 1 where neither it nor the leave-outs leave 0."""
        if self.standard == 0:
            return float(value == 0)
        return t_two_sided(value / self.standard, self.freedom)

    def greater_p(self, value: float) -> float:
        """The two-sided p where the value is positive, else 1: of the statement that it lies above 0."""
        return self.p(value) if value > 0 else 1.0

    def plus(self, other: "Error") -> "Error":
        """Of a sum or difference of two independent estimates (degrees of freedom: Welch 1947)."""
        squares = [self.standard**2, other.standard**2]
        parts = squares[0] ** 2 / self.freedom + squares[1] ** 2 / other.freedom
        freedom = int(sum(squares) ** 2 / parts) if parts > 0 else min(self.freedom, other.freedom)
        return Error(float(np.sqrt(sum(squares))), freedom, self.factors, self.units)

    def share_interval(self, share: float, level: float = 0.95) -> tuple[float, float]:
        """Interval of a share: Clopper and Pearson's for as many independent observations as vary alike.

        (Korn and Graubard 1998.) A share of 0 or 1, which does not vary, counts one observation for each unit; so does
        one whose hits (or misses) come from so few units that how they vary is not known.
        """
        if self.standard < STILL or not 0 < share < 1:
            return clopper_pearson(share * self.units, self.units, level)
        n = share * (1 - share) / self.standard**2
        if min(share, 1 - share) * n < FEW_HITS:
            n = min(n, self.units)
        n = max(n * (t_quantile(0.975, max(n - 1, 1)) / t_quantile(0.975, self.freedom)) ** 2, 1.0)
        return clopper_pearson(share * n, n, level)


class LeaveOuts:
    """The leave-outs of runs by two factors, the same for all numbers of them."""

    def __init__(self, *factors_N: Sequence | np.ndarray):
        """factors_N: the level of each run, for up to two factors (init and task)."""
        codes = [np.unique(np.asarray(levels), return_inverse=True)[1] for levels in factors_N]
        n = len(codes[0])
        cells_N = np.unique(np.stack(codes), axis=1, return_inverse=True)[1].ravel()
        self._groups = [*codes, cells_N, np.arange(n)]
        self.weights_JN = np.concatenate([1.0 - np.eye(group.max() + 1)[:, group] for group in self._groups])
        """[J, N] float64: which runs are left, as weights of bootstrap draws are written."""

    def means(self, sums_N: np.ndarray, counts_N: np.ndarray) -> np.ndarray:
        """[J] float64: a mean over runs' sums and counts without each; NaN where nothing is left."""
        counts_J = self.weights_JN @ counts_N
        return np.divide(self.weights_JN @ sums_N, counts_J, out=np.full(len(counts_J), np.nan), where=counts_J > 0)

    def mean(self, sums_N: np.ndarray, counts_N: np.ndarray) -> tuple[float, Error | None]:
        """(a mean over runs' sums and counts, its error over the runs that count)."""
        return float(sums_N.sum() / counts_N.sum()), self.error(self.means(sums_N, counts_N), counts_N > 0)

    def error(self, without_J: np.ndarray, members_N: np.ndarray | None = None) -> Error | None:
        """The error of an estimate by what it is without each; None where too few levels and runs are left out.

        members_N: bool, the runs that it rests on; None: all.
        """
        found, start = [], 0
        for group in self._groups:
            without = without_J[start : start + group.max() + 1]
            start += len(without)
            without = without[np.unique(group if members_N is None else group[members_N])]
            n = len(without)
            enough = n >= LEAST_LEVELS and bool(np.isfinite(without).all())
            found.append(((n - 1) / n * float(((without - without.mean()) ** 2).sum()), n) if enough else None)
        *factors, cells, runs = found
        varied = [factor for factor in factors if factor is not None]
        if not varied:
            if runs is None or runs[1] < LEAST_RUNS:
                return None
            return Error(float(np.sqrt(runs[0])), runs[1] - 1, 0, runs[1])
        variance, units = max(v for v, _ in varied), min(n for _, n in varied)
        if len(varied) > 1 and cells is not None:
            variance = max(variance, sum(v for v, _ in varied) - cells[0])
        return Error(float(np.sqrt(variance)), units - 1, len(varied), units)
