"""The one place where runs, examples and labels are drawn anew: bootstrap draws, permutations, intervals and p.

Whole runs are drawn or exchanged, never their single tokens or pairs: what shares a run is not independent.

Shapes: N runs, B draws, E test examples, S strata, L levels of a factor, U independent units.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import islice, product
from itertools import permutations as all_orders
from math import exp, factorial, lgamma
from typing import Literal, NamedTuple

import numpy as np

from promptgeo.analysis.progress import progress

PERCENTILES = (2.5, 97.5)
"""Of a 95 % interval."""
NORMAL = 1.959964
"""97.5 % of a standard normal distribution lie below."""
NEAR = 0.1
"""Of an end: shares that lie so near to it say little more than yes or no."""
STILL = 1e-9
"""Draws that differ by less do not vary: sums of the same numbers may differ in their last bits."""
EXACT_UNITS = 12
"""Up to so many units all sign flips are enumerated (4,096)."""
EXACT_ORDERS = 5040
"""Up to so many all orders are enumerated: of 7 things."""


# Draws.


def draw_counts(generator: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """[B, n] float64: how often each of n runs or examples is in each draw with replacement."""
    return generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def run_weights(runs: int, draws: int, seed: int) -> np.ndarray:
    """[B, N] float64: how often each run is in each of B bootstrap draws."""
    return draw_counts(np.random.default_rng(seed), runs, draws)


def run_weights_within(
    groups: Sequence[Sequence[int]], runs: int, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """[B, N] float64: likewise, the runs of each group drawn among themselves; a run of no group counts once."""
    weights_BN = np.ones((draws, runs))
    for members in groups:
        weights_BN[:, members] = draw_counts(generator, len(members), draws)
    return weights_BN


def drawn_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[B] float64: the mean of the values in each draw with replacement."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    return values[drawn].mean(1)


class Resampler:
    """Draws of runs and, for each evaluation set, of its examples: the same draws for all that is compared."""

    def __init__(self, groups: Sequence[Sequence[int]], runs: int, draws: int, seed: int):
        """groups: runs that are drawn among themselves."""
        self._generator = np.random.default_rng(seed)
        self.draws = draws
        self.runs_BN = run_weights_within(groups, runs, draws, self._generator)
        """[B, N] float64: how often each run is drawn."""
        self._examples: dict[Hashable, np.ndarray] = {}

    def examples(self, evaluation_set: Hashable, n: int) -> np.ndarray:
        """[B, E] float64: how often each of the n examples of an evaluation set is drawn."""
        if evaluation_set not in self._examples:
            self._examples[evaluation_set] = draw_counts(self._generator, n, self.draws)
        return self._examples[evaluation_set]


# Intervals.


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, without a correction of continuity)."""
    from scipy.special import ndtri  # scipy's own, proportion_ci, tests the proportion too, which takes a hundred times

    share, z2 = int(successes) / int(n), float(ndtri((1 + level) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return (0.0 if successes == 0 else float(middle - half)), (1.0 if successes == n else float(middle + half))


def clopper_pearson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934): conservative, also at the edges.

    Neither need be whole: a mean of values from 0 to 1 varies no more than a count with that mean.
    """
    from scipy.special import betaincinv

    failures, outside = n - successes, (1 - level) / 2
    low = 0.0 if successes <= 0 else float(betaincinv(successes, failures + 1, outside))
    return low, (1.0 if failures <= 0 else float(betaincinv(successes + 1, failures, 1 - outside)))


def upper_of_few(value: float, error: float) -> float:
    """Upper end of a 95 % interval of a mean that is never negative and may be of few large values.

    As of a Poisson count of events that are all alike and give the mean its standard error (the gamma interval of Fay
    and Feuer 1997): 3.7 errors above 0, 1.96 above a mean of many. Student's t takes the errors above and below for
    equal: of 30 losses of which a few are large, it covers 72 to 92 %.
    """
    from scipy.special import gammaincinv

    if error < STILL:
        return value
    event = error**2 / max(value, error)
    return float(event * gammaincinv(value / event + 1, 0.975))


def t_interval(
    value: float, draws_B: np.ndarray, units: int, least: float | None = None, most: float | None = None
) -> tuple[float, float]:
    """95 % interval of a mean over few units (runs, cells) from the spread of its bootstrap draws.

    Student's t with units - 1 degrees of freedom; the draws' standard deviation is enlarged by sqrt(n / (n - 1)), by
    which drawing n units with replacement makes it too small. A percentile interval of 2, 3, 8 runs covers 49, 74,
    89 %. Draws that are not finite are left out. least, most: what the quantity can be (None: no bound).

    Raises ValueError for fewer than two units: one says nothing of how they differ.
    """
    if units < 2:
        raise ValueError(f"an interval over units needs two of them, not {units}")
    draws_B = np.asarray(draws_B, dtype=np.float64)
    error = float(np.std(draws_B[np.isfinite(draws_B)])) * np.sqrt(units / (units - 1))
    half = t_quantile(0.975, units - 1) * error
    low, high = value - half, value + half
    return float(low if least is None else max(low, least)), float(high if most is None else min(high, most))


def newcombe(
    first: float, first_interval: tuple[float, float], second: float, second_interval: tuple[float, float]
) -> tuple[float, float]:
    """Interval of first - second from an interval of each, within [-1, 1] (Newcombe 1998, method 10)."""
    low, high = sum_interval([first, second], [first_interval, second_interval], [1.0, -1.0])
    return max(low, -1.0), min(high, 1.0)


def sum_interval(
    values: Sequence[float], intervals: Sequence[tuple[float, float]], times: Sequence[float]
) -> tuple[float, float]:
    """Interval of a sum of independent estimates, each so many times, from an interval of each.

    The half-widths on either side add up in squares, which intervals need not have alike (Zou and Donner 2008).
    """
    times_K, values_K, ends_K2 = np.array(times), np.array(values), np.array(intervals)
    towards_K2 = np.where(times_K[:, None] < 0, ends_K2[:, ::-1], ends_K2)
    down, up = np.linalg.norm(times_K[:, None] * (towards_K2 - values_K[:, None]), axis=0)
    total = float(times_K @ values_K)
    return float(total - down), float(total + up)


def variance_interval(variance: float, freedom: int) -> tuple[float, float]:
    """95 % interval of the variance of a normal quantity from one of so many degrees of freedom (chi-square)."""
    from scipy.special import chdtri

    most, least = float(chdtri(freedom, 0.025)), float(chdtri(freedom, 0.975))
    return variance * freedom / most, variance * freedom / least


def log_jackknife_interval(value: float, without_N: np.ndarray) -> tuple[float, float]:
    """95 % interval of a positive value from what it is without each of N runs: the jackknife of its logarithm.

    Of a variance of 3 to 8 points in 1 to 1,000 dimensions it covers 95 to 98 %; the plain jackknife 83 in one.

    Raises ValueError where one of them is not positive: a logarithm says nothing of it.
    """
    if min(value, float(without_N.min())) <= 0:
        raise ValueError("an interval by logarithms needs positive values")
    low, high = jackknife_interval(float(np.log(value)), np.log(without_N))
    return float(np.exp(low)), float(np.exp(high))


def percentile_interval(draws_B: np.ndarray, method: Literal["linear", "nearest"] = "linear") -> tuple[float, float]:
    """95 % percentile interval. Draws that are not finite had nothing to say and are left out.

    method: of numpy's percentile; "nearest" where only values that were drawn make sense.
    """
    draws_B = np.asarray(draws_B, dtype=np.float64)
    low, high = np.percentile(draws_B[np.isfinite(draws_B)], PERCENTILES, method=method)
    return float(low), float(high)


def varies(draws_B: np.ndarray) -> bool:
    """Whether the draws differ from each other."""
    return bool(np.nanmax(draws_B) - np.nanmin(draws_B) > STILL)


def near_an_end(share: float) -> bool:
    """Whether a share is so near to 0 or 1 that it rests on few, if any, that lie at the other end."""
    return min(share, 1 - share) <= NEAR


def share_interval(draws_B: np.ndarray, share: float, n: int) -> tuple[float, float]:
    """95 % percentile interval of a share of n examples or units, within [0, 1].

    Near 0 and 1, and where its bounds meet: at least as wide as Clopper and Pearson's for n. Draws of 30 examples of
    which few are solved do not know of the others, and hold 54 to 88 % of truths.
    """
    low, high = or_exact(bounded_interval(draws_B, 0.0, 1.0), share, n)
    if near_an_end(share):
        exact_low, exact_high = clopper_pearson(share * n, n)
        low, high = min(low, exact_low), max(high, exact_high)
    return low, high


def bounded_interval(draws_B: np.ndarray, least: float | None, most: float | None) -> tuple[float, float]:
    """95 % percentile interval, clipped to what the quantity can be (None: no bound)."""
    low, high = percentile_interval(draws_B)
    return float(low if least is None else max(low, least)), float(high if most is None else min(high, most))


def difference_interval(
    draws_B: np.ndarray,
    first: float,
    first_interval: tuple[float, float],
    second: float,
    second_interval: tuple[float, float],
) -> tuple[float, float]:
    """95 % percentile interval of first - second, two shares with their own intervals.

    Where its bounds meet, or a share lies near 0 or 1: at least as wide as Newcombe's from the two intervals.
    """
    low, high = bounded_interval(draws_B, -1.0, 1.0)
    if high - low < STILL or near_an_end(first) or near_an_end(second):
        wide_low, wide_high = newcombe(first, first_interval, second, second_interval)
        low, high = min(low, wide_low), max(high, wide_high)
    return low, high


def or_exact(interval: tuple[float, float], share: float, n: int) -> tuple[float, float]:
    """The interval of a share; where its bounds meet, for the draws could not vary: Clopper and Pearson's for n."""
    low, high = interval
    return clopper_pearson(share * n, n) if high - low < STILL else interval


def jackknife_interval(value: float, without_N: np.ndarray) -> tuple[float, float]:
    """95 % interval of a value from what it is without each of N runs (Tukey 1958).

    Student's t with N - 1 degrees of freedom.
    """
    return t_sum_interval(value, [(jackknife_error(without_N), len(without_N) - 1)])


def jackknife_error(without_N: np.ndarray) -> float:
    """Standard error of a value from what it is without each of N runs (Tukey 1958)."""
    n = len(without_N)
    return float(np.sqrt((n - 1) / n * ((without_N - without_N.mean()) ** 2).sum()))


def t_sum_interval(value: float, errors: Sequence[tuple[float, int]], level: float = 0.95) -> tuple[float, float]:
    """Interval of a value that varies for several reasons: (standard error, degrees of freedom) of each.

    The half-widths of Student's interval for each reason add up in squares (Howe 1974): less than one t with the fewest
    degrees of freedom, and not too narrow as a normal interval is.
    """
    half = float(np.sqrt(sum((t_quantile((1 + level) / 2, freedom) * error) ** 2 for error, freedom in errors)))
    return value - half, value + half


def bootstrap_mean(
    values: np.ndarray, groups: np.ndarray | None = None, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean.

    groups: what is drawn with replacement is whole groups, never single values.
    """
    values = np.asarray(values, dtype=np.float64)
    groups = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    return percentile_interval(sums[drawn].sum(1) / counts[drawn].sum(1))


def t_mean(
    values: np.ndarray, units: np.ndarray | None = None, least: float | None = None, most: float | None = None
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the mean over few units, each with one or more values: Student's t, clipped; none for one unit.

    The mean weighs values, not units: units are left out one by one (jackknife). Values between two bounds whose mean
    lies near one of them, or of which all lie near one or the other (nearly_yes_or_no), have an interval at least as
    wide as a count of so many units has: of the few that would lie far off, so few units may have none.
    """
    values = np.asarray(values, dtype=np.float64)
    units = np.arange(len(values)) if units is None else np.unique(units, return_inverse=True)[1]
    sums, counts = np.bincount(units, values), np.bincount(units)
    if len(sums) < 2:
        return None, None
    low, high = jackknife_interval(float(values.mean()), (sums.sum() - sums) / (counts.sum() - counts))
    if least is not None and most is not None:
        shares = (sums / counts - least) / (most - least)
        if nearly_yes_or_no(shares) or near_an_end(float(shares.mean())):
            wide_low, wide_high = clopper_pearson(float(shares.mean()) * len(shares), len(shares))
            low, high = min(low, least + wide_low * (most - least)), max(high, least + wide_high * (most - least))
    return float(low if least is None else max(low, least)), float(high if most is None else min(high, most))


def nearly_yes_or_no(shares: np.ndarray) -> bool:
    """Whether all of these, which lie from 0 to 1, lie within NEAR of an end.

    How far they lie apart then says nothing of the rare ones that would lie at the other end: of runs that fail once
    in ten, four are alike in two studies of three.
    """
    return bool((np.minimum(shares, 1 - np.asarray(shares)) <= NEAR).all())


# Means over pairs of runs.


def pair_means(weights_BN: np.ndarray, sum_NN: np.ndarray, count_NN: np.ndarray) -> np.ndarray:
    """[B] float64: the mean over pairs of tokens in each bootstrap draw of runs; NaN where a draw has no such pair.

    sum_NN, count_NN: symmetric, over the chosen pairs between two runs. A run drawn a times and one drawn b times weigh
    their pairs a * b; pairs within a run weigh a: every copy brings its own.
    """
    members = np.flatnonzero(count_NN.any(axis=1))
    weights_BM = weights_BN[:, members]

    def weighted(pairs_NN: np.ndarray) -> np.ndarray:
        pairs_MM = pairs_NN[np.ix_(members, members)]
        within_M = np.diag(pairs_MM)
        return np.einsum("bm,bm->b", weights_BM @ (pairs_MM - np.diag(within_M)), weights_BM) + weights_BM @ within_M

    sums_B = weighted(np.asarray(sum_NN, dtype=np.float64))
    counts_B = weighted(np.asarray(count_NN, dtype=np.float64))
    return np.divide(sums_B, counts_B, out=np.full(len(weights_BN), np.nan), where=counts_B > 0)


# Permutations.


def permutation_p(observed: float, null: np.ndarray, tail: str = "greater") -> float:
    """(1 + null draws at least as extreme) / (1 + draws): never 0 (Phipson and Smyth 2010).

    tail: greater, less or two-sided: twice the smaller of the two.
    """
    null = np.asarray(null, dtype=np.float64)
    slack = 1e-12 * max(abs(observed), 1.0)  # equal values may differ in their last bits
    greater, less = (null >= observed - slack).sum(), (null <= observed + slack).sum()
    extreme = {"greater": 1 + greater, "less": 1 + less, "two-sided": 2 * (1 + min(greater, less))}[tail]
    return float(min(extreme / (1 + len(null)), 1.0))


def orders_within(strata_N: np.ndarray, n: int, seed: int) -> np.ndarray:
    """[B, N] int64: n random orders of the runs that exchange only runs of the same stratum."""
    strata_N = np.unique(strata_N, return_inverse=True)[1]
    keys_BN = np.random.default_rng(seed).random((n, len(strata_N))) + strata_N
    orders_BN = np.empty(keys_BN.shape, dtype=np.int64)
    orders_BN[:, np.argsort(strata_N, kind="stable")] = np.argsort(keys_BN, axis=1)
    return orders_BN


def first_of_cells(codes_N: np.ndarray, strata_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the first run of each cell [C], the cell of each run [N]), int64: a cell has one level and one stratum.

    Cells in the order in which their first runs stand.
    """
    pairs_N2 = np.stack([np.unique(x, return_inverse=True)[1] for x in (codes_N, strata_N)], axis=1)
    _, first_C, cell_N = np.unique(pairs_N2, axis=0, return_index=True, return_inverse=True)
    place_C = np.argsort(np.argsort(first_C))
    return np.sort(first_C), place_C[cell_N.reshape(-1)]


def cell_orders_within(codes_N: np.ndarray, strata_N: np.ndarray, n: int, seed: int) -> np.ndarray:
    """[B, N] int64: for each run, the run of another cell of its stratum whose place it takes, in n random draws.

    Whole cells change places, for the seeds of a cell may be alike in more than level and stratum. A run takes the
    place of the run with its number in the other cell, counted round where that has fewer.
    """
    first_C, cell_N = first_of_cells(codes_N, strata_N)
    members = [np.flatnonzero(cell_N == cell) for cell in range(len(first_C))]
    number_N = np.empty(len(cell_N), dtype=np.int64)
    for member in members:
        number_N[member] = np.arange(len(member))
    sizes_C = np.array([len(member) for member in members])
    place_CM = np.stack([np.resize(member, sizes_C.max()) for member in members])
    source_BN = orders_within(strata_N[first_C], n, seed)[:, cell_N]
    orders_BN: np.ndarray = place_CM[source_BN, number_N % sizes_C[source_BN]]
    return orders_BN


def other_orders(count: int, most: int, seed: int) -> tuple[list[np.ndarray], bool]:
    """(orders of so many things, [count] int64 each; whether they are all): all but the given one, or `most` random.

    The given order is the one that permutation_p adds.
    """
    if factorial(count) <= max(most, 1):
        return [np.array(order) for order in islice(all_orders(range(count)), 1, None)], True
    generator = np.random.default_rng(seed)
    return [generator.permutation(count) for _ in range(most)], False


def shuffled_positions(runs: int, length: int, n: int, seed: int) -> np.ndarray:
    """[n, runs * length] int64: the positions of every run's tokens in n random orders, each run on its own."""
    positions = np.tile(np.arange(length), (n * runs, 1))
    return np.random.default_rng(seed).permuted(positions, axis=1).reshape(n, runs * length)


def exchangeable(labels_N: np.ndarray, strata_N: np.ndarray) -> bool:
    """Whether runs of some stratum have different labels; else there is nothing to permute within strata."""
    return any(len(set(labels_N[strata_N == stratum])) > 1 for stratum in set(strata_N))


def assignments(codes_N: np.ndarray, strata_N: np.ndarray) -> float:
    """In how many ways that group the runs differently the levels can be dealt within the strata.

    1: there is nothing to permute. Levels with the same number of runs in every stratum can swap names, which no share
    of variance notices. No p is below 1 over this.
    """
    strata = np.unique(strata_N)
    counts_LS = np.array([[((codes_N == c) & (strata_N == s)).sum() for s in strata] for c in np.unique(codes_N)])
    alike = np.unique(counts_LS, axis=0, return_counts=True)[1]
    log = sum(lgamma(n + 1) for n in counts_LS.sum(0)) - sum(lgamma(n + 1) for n in counts_LS.ravel())
    log -= sum(lgamma(n + 1) for n in alike)
    return float(np.exp(min(log, 700.0)))  # beyond 700 a float overflows


def least_dealt_p(counts_SL: Sequence[Sequence[int]]) -> float:
    """The least two-sided p that dealing levels anew within strata allows: 2 over the ways of dealing them.

    counts_SL: how many runs of each level each stratum has.
    """
    log = sum(lgamma(sum(counts_L) + 1) for counts_L in counts_SL)
    log -= sum(lgamma(n + 1) for counts_L in counts_SL for n in counts_L)
    return min(2 * exp(-min(log, 700.0)), 1.0)  # beyond 700 a float overflows


def sign_flip_p(
    differences_N: np.ndarray, units_N: np.ndarray | None = None, permutations: int = 1000, seed: int = 0
) -> float:
    """Two-sided p of a mean of paired differences: each unit's sign flipped as a whole (Fisher 1935).

    All flips are enumerated for up to EXACT_UNITS units; else `permutations` are drawn.
    """
    units_N = np.arange(len(differences_N)) if units_N is None else np.unique(units_N, return_inverse=True)[1]
    sums_U = np.bincount(units_N, differences_N)
    observed, count = abs(float(sums_U.sum())), len(sums_U)
    if count <= EXACT_UNITS:
        signs_BU = np.array(list(product((1.0, -1.0), repeat=count)))
        return float((np.abs(signs_BU @ sums_U) >= observed - 1e-12 * max(observed, 1.0)).mean())
    signs_BU = np.random.default_rng(seed).choice((1.0, -1.0), (permutations, count))
    return permutation_p(observed, np.abs(signs_BU @ sums_U))


def sign_flips_needed(level: float = 0.05) -> int:
    """The fewest units whose sign flips can give a two-sided p of this level: 6 for .05 (2 / 2^6)."""
    units = 1
    while 2.0 ** (1 - units) > level:
        units += 1
    return units


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for being so many (Holm 1979), in their order.

    The k-th smallest of m times m - k + 1, at least the adjusted one before it, at most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min((len(p_values) - rank) * float(p_values[k]), 1.0))
        adjusted[int(k)] = largest
    return adjusted


def null_draws(statistic: Callable[[np.random.Generator], float], n: int, seed: int, label: str = "") -> np.ndarray:
    """[n] float64: the statistic under n random draws, with a progress bar where it takes long."""
    generator = np.random.default_rng(seed)
    return np.array([statistic(generator) for _ in progress(range(n), label)], dtype=np.float64)


def mcnemar_p(first_E: np.ndarray, second_E: np.ndarray) -> float:
    """Exact one-sided p of first being right on more examples than second: the sign test on those where they differ.

    McNemar 1947, by scipy. first_E, second_E: [E] bool, of the same examples.
    """
    from scipy.stats import binomtest

    wins, losses = int((first_E & ~second_E).sum()), int((second_E & ~first_E).sum())
    return float(binomtest(wins, wins + losses, alternative="greater").pvalue) if wins + losses else 1.0


def swap_p(statistic: Callable[[np.ndarray], np.ndarray], units: int, permutations: int = 2000, seed: int = 0) -> float:
    """Two-sided p of a paired difference that is no mean: the two conditions of each unit are swapped as a whole.

    As sign_flip_p: all swaps are enumerated for up to EXACT_UNITS units, else `permutations` are drawn.

    statistic: swaps [B, U] bool -> the difference of each [B]; none swapped is what was observed.
    """
    observed = abs(float(statistic(np.zeros((1, units), dtype=bool))[0]))
    if not np.isfinite(observed):
        return 1.0
    if units <= EXACT_UNITS:
        null_B = np.abs(statistic(np.array(list(product((False, True), repeat=units)))))
        return float((~(null_B < observed - 1e-12 * max(observed, 1.0))).mean())  # a swap without a difference counts
    swaps_BU = np.random.default_rng(seed).random((permutations, units)) < 0.5
    return permutation_p(observed, np.abs(statistic(swaps_BU)))


def cochran_p(correct_NE: np.ndarray) -> float:
    """p of N runs that answer the same E examples equally well, against some being better (Cochran 1950, Q).

    correct_NE: bool. Runs are exchanged within examples: how hard an example is does not count. By chi-square with
    N - 1 degrees of freedom; 1 where no example tells runs apart.
    """
    from scipy.special import chdtrc

    q, freedom = cochran_q(correct_NE)
    return float(chdtrc(freedom, q)) if np.isfinite(q) else 1.0


def cochran_q(correct_NE: np.ndarray) -> tuple[float, int]:
    """(Cochran's Q, its degrees of freedom); nan where no example tells runs apart. Q of several tasks add up."""
    correct_NE = np.asarray(correct_NE, dtype=np.float64)
    n, of_run_N, of_example_E = len(correct_NE), correct_NE.sum(1), correct_NE.sum(0)
    apart = float((of_example_E * (n - of_example_E)).sum())
    q = n * (n - 1) * float(((of_run_N - of_run_N.mean()) ** 2).sum()) / apart if apart else float("nan")
    return q, n - 1


class RankCorrelation(NamedTuple):
    """Spearman's, of few units."""

    rho: float
    """nan where all values of a side are equal."""
    p: float
    """Two-sided, by permutations: all of them where there are few."""
    least_p: float
    """The least that any order of these values could have: a full agreement's."""


def rank_correlation(one_U: np.ndarray, other_U: np.ndarray, permutations: int, seed: int) -> RankCorrelation:
    """Spearman's rho of two quantities of U units, ties at their mean rank.

    Units are exchanged as wholes: in all orders where these are no more than 5,040 (7 units), else in so many.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(x_U) - (len(x_U) + 1) / 2 for x_U in (one_U, other_U)]
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    if not scale:
        return RankCorrelation(float("nan"), 1.0, 1.0)
    few = factorial(min(len(one_U), 20)) <= EXACT_ORDERS
    orders, _ = other_orders(len(one_U), EXACT_ORDERS if few else permutations, seed)
    every_B = np.array([ranks[0] @ ranks[1], *ranks[1][np.array(orders)] @ ranks[0]])
    p, least = (float((np.abs(every_B) >= x - STILL).mean()) for x in (abs(every_B[0]), np.abs(every_B).max()))
    return RankCorrelation(float(every_B[0]) / scale, p, least)


def t_quantile(level: float, freedom: float) -> float:
    """Of Student's t. (By scipy's function: its distribution takes fifty times as long over one number.)"""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


def t_two_sided(t: float, freedom: float) -> float:
    """Two-sided p of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))


def student(units: int) -> float:
    """By how much the draws of so few units are too narrow: t over normal, times sqrt(n / (n - 1)); 9.2 of two.

    1 for a single unit, whose draws do not vary at all.
    """
    return t_quantile(0.975, units - 1) / NORMAL * np.sqrt(units / (units - 1)) if units > 1 else 1.0


def t_p(difference: float, half: float, units: int) -> float:
    """Two-sided p of a difference of which so much is half a 95 % interval over so many units: Student's t."""
    freedom = max(units - 1, 1)
    return t_two_sided(difference / max(half, STILL) * t_quantile(0.975, freedom), freedom)
