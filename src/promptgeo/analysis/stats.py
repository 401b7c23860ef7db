"""The statistics that several analyses share: intervals, permutations of whole runs, shares of variance.

Shapes: N runs, K prompt tokens (N * P), L levels of a factor.
"""

from collections.abc import Callable, Iterator

import numpy as np


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion (Wilson 1927), by scipy."""
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: np.ndarray, groups: np.ndarray | None = None, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean. groups: what is drawn with replacement is whole groups (runs), never their single values."""
    values = np.asarray(values, dtype=np.float64)
    groups = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def run_bootstrap_pairs(distances_KK: np.ndarray, run_K: np.ndarray, chosen_KK: np.ndarray, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean distance over chosen pairs of tokens, runs drawn with replacement.

    Pairs share runs, so they are not independent: drawing pairs would make the interval far too narrow (see pair_means).
    chosen_KK: bool, symmetric.
    """
    runs = int(run_K.max()) + 1
    pair_sum, pair_count = np.zeros((runs, runs)), np.zeros((runs, runs))
    rows, columns = np.nonzero(chosen_KK)
    np.add.at(pair_sum, (run_K[rows], run_K[columns]), distances_KK[rows, columns])
    np.add.at(pair_count, (run_K[rows], run_K[columns]), 1.0)
    low, high = np.nanpercentile(pair_means(run_weights(runs, draws, seed), pair_sum, pair_count), [2.5, 97.5])
    return float(low), float(high)


def run_weights(runs: int, draws: int, seed: int) -> np.ndarray:
    """[B, N] float64: how often each run is in each of B bootstrap draws."""
    return np.random.default_rng(seed).multinomial(runs, np.full(runs, 1 / runs), size=draws).astype(np.float64)


def pair_means(weights_BN: np.ndarray, sum_NN: np.ndarray, count_NN: np.ndarray) -> np.ndarray:
    """[B] float64: the mean over pairs of tokens in each bootstrap draw of runs; NaN where a draw has no such pair.

    sum_NN, count_NN: symmetric, over the chosen pairs between two runs. A run drawn a times and one drawn b times weigh their pairs
    a * b; pairs within a run weigh a: every copy brings its own.
    """
    members = np.flatnonzero(count_NN.any(axis=1))
    weights_BM = weights_BN[:, members]

    def weighted(pairs_NN: np.ndarray) -> np.ndarray:
        pairs_MM = pairs_NN[np.ix_(members, members)]
        within_M = np.diag(pairs_MM)
        return np.einsum("bm,bm->b", weights_BM @ (pairs_MM - np.diag(within_M)), weights_BM) + weights_BM @ within_M

    sums_B, counts_B = weighted(np.asarray(sum_NN, dtype=np.float64)), weighted(np.asarray(count_NN, dtype=np.float64))
    return np.divide(sums_B, counts_B, out=np.full(len(weights_BN), np.nan), where=counts_B > 0)


def permuted_within(strata_N: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[N] int64: a random order of the runs that exchanges only runs of the same stratum."""
    order = np.arange(len(strata_N))
    for stratum in np.unique(strata_N):
        members = np.flatnonzero(strata_N == stratum)
        order[members] = generator.permutation(members)
    return order


def permutation_p(observed: float, null: np.ndarray, tail: str = "greater") -> float:
    """(1 + null draws at least as extreme) / (1 + draws): never 0 (Phipson and Smyth 2010). tail: greater, less or two-sided."""
    null = np.asarray(null, dtype=np.float64)
    slack = 1e-12 * max(abs(observed), 1.0)  # equal values may differ in their last bits
    greater, less = (null >= observed - slack).sum(), (null <= observed + slack).sum()
    extreme = {"greater": greater, "less": less, "two-sided": 2 * min(greater, less)}[tail]
    return float(min((1 + extreme) / (1 + len(null)), 1.0))


def draws(statistic: Callable[[np.random.Generator], float], n: int, seed: int, label: str = "") -> np.ndarray:
    """[n] float64: the statistic under n random draws, with a progress bar where it takes long."""
    generator = np.random.default_rng(seed)
    return np.array([statistic(generator) for _ in progress(range(n), label)], dtype=np.float64)


def progress(items: range | list, label: str = "") -> Iterator:
    """The items, with a progress bar on a terminal."""
    import sys

    if not label or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, label, console=Console(stderr=True), transient=True)
