"""Which runs lie in clusters, and what do the runs of a cluster, and nearest ones, share beyond chance?

Shapes: N runs, D coordinates, C clusters, L levels of a factor, B permutations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.resampling import assignments, cell_orders_within, holm, orders_within, permutation_p

NONE = -1
"""The cluster of a run that lies in none."""


@dataclass(frozen=True)
class Share:
    """The level of a factor by which a cluster's runs stand out most."""

    cluster: int
    runs: int
    """Of the cluster."""
    factor: str
    level: str
    inside: float
    """The level's share of the cluster's runs."""
    overall: float
    """Its share of all runs."""
    p: float | None
    """That so much is by chance, adjusted for all clusters and factors (Holm); None: too few runs can be exchanged."""


Tested = TypeVar("Tested", "Share", "Association", "NearestShare")


def clusters_of(points_ND: np.ndarray, least: int) -> np.ndarray:
    """[N] int64: clusters by HDBSCAN (Campello, Moulavi and Sander 2013), the largest 0; NONE of a run in none.

    least: runs of a cluster, at least two.
    """
    from sklearn.cluster import HDBSCAN

    if len(points_ND) < least:
        return np.full(len(points_ND), NONE)
    found_N = HDBSCAN(min_cluster_size=least, copy=True).fit_predict(points_ND.astype(np.float64))
    members = [np.flatnonzero(found_N == cluster) for cluster in np.unique(found_N[found_N >= 0])]
    cluster_N = np.full(len(points_ND), NONE)
    for cluster, member in enumerate(sorted(members, key=lambda member: (-len(member), member[0]))):
        cluster_N[member] = cluster
    return cluster_N


@dataclass(frozen=True, eq=False)
class Association:
    """How far all clusters together go with a factor."""

    factor: str
    v: float
    """Cramer's V (1946) of the runs in clusters, beside the levels' shares of all runs: 0 none, 1 each its own."""
    runs: int
    """In clusters."""
    p: float | None
    """Adjusted for all factors (Holm); None as a Share's."""
    chance_B: np.ndarray | None
    """V where runs have exchanged the factor's level, of each permutation: clusters that are cells go with any factor
    as far as this. None where p is."""


def shares(
    cluster_N: np.ndarray, factors: pd.DataFrame, permutations: int, seed: int
) -> tuple[list[Association], list[Share]]:
    """For each factor how clusters go with it; for each cluster and factor the level that stands out.

    A level stands out by how many standard deviations its count lies above that of as many runs drawn from all; the p
    of a Share is of the largest such distance over levels, that of an Association of the sum of their squares. Whole
    cells (runs that differ in nothing but the seed) exchange the factor's level, within cells that have all other
    factors in common: what clusters by another factor is no share. Where runs differ in one factor alone, single runs
    exchange it: its cells are its levels.

    factors: N rows, a column of levels for each factor.
    """
    associations: list[Association] = []
    found: list[Share] = []
    members = [cluster_N == cluster for cluster in range(int(cluster_N.max(initial=NONE)) + 1)]
    varied = [factor for factor in factors if factors[factor].nunique() > 1] if members else []
    for factor in varied:
        level_N, levels = pd.factorize(factors[factor])
        null_BN, least_p = _exchanged(level_N, factors[[each for each in varied if each != factor]], permutations, seed)
        share_L = np.bincount(level_N) / len(level_N)
        above = [_above(level_N[None, inside_N], share_L)[0] for inside_N in members]
        null = [_above(null_BN[:, inside_N], share_L) for inside_N in members] if least_p < LEVEL else []
        squared = sum(_squared(above_L, share_L) for above_L in above)
        runs, ends = int(np.sum(members)), min(len(members), len(levels)) - 1
        if ends:
            null_B = np.asarray(sum(_squared(null_BL, share_L) for null_BL in null))
            p = max(permutation_p(float(squared), null_B), least_p) if null else None
            v, chance_B = (np.minimum(np.sqrt(x / (runs * ends)), 1.0) for x in (squared, null_B))
            associations.append(Association(factor, float(v), runs, p, chance_B if null else None))
        for cluster, (inside_N, above_L) in enumerate(zip(members, above, strict=True)):
            at = int(above_L.argmax())
            p = max(permutation_p(float(above_L[at]), null[cluster].max(1)), least_p) if null else None
            share = float((level_N[inside_N] == at).mean())
            found.append(Share(cluster, int(inside_N.sum()), factor, str(levels[at]), share, float(share_L[at]), p))
    return _adjusted(associations), sorted(_adjusted(found), key=lambda share: share.cluster)


@dataclass(frozen=True, eq=False)
class NearestShare:
    """How often the run nearest to a run has its level of a factor."""

    factor: str
    share: float
    p: float | None
    """Adjusted for all factors (Holm); None as a Share's, and where exchanges hardly change the share."""
    chance_B: np.ndarray | None
    """The share where runs have exchanged the factor's level. None where p is."""


def nearest_shares(nearest_N: np.ndarray, factors: pd.DataFrame, permutations: int, seed: int) -> list[NearestShare]:
    """For each factor that varies, how often a run's nearest one has its level. Runs exchange levels as in `shares`.

    nearest_N: [N] int64, the number of the run nearest to each. factors: N rows, a column of levels for each factor.
    """
    found = []
    varied = [factor for factor in factors if factors[factor].nunique() > 1]
    for factor in varied:
        level_N, _ = pd.factorize(factors[factor])
        null_BN, least_p = _exchanged(level_N, factors[[each for each in varied if each != factor]], permutations, seed)
        share = float((level_N == level_N[nearest_N]).mean())
        null_B = (null_BN == null_BN[:, nearest_N]).mean(1)
        tested = least_p < LEVEL and _has_room(null_B)
        p = max(permutation_p(share, null_B), least_p) if tested else None
        found.append(NearestShare(factor, share, p, null_B if tested else None))
    return _adjusted(found)


def _exchanged(level_N: np.ndarray, others: pd.DataFrame, permutations: int, seed: int) -> tuple[np.ndarray, float]:
    """([B, N] int64: the levels, exchanged, the least p that exchanging them allows)."""
    if len(others.columns):
        strata_N = others.groupby(list(others), sort=False).ngroup().to_numpy()
        null_BN = level_N[cell_orders_within(level_N, strata_N, permutations, seed)]
        ways = assignments(*np.unique(np.stack([level_N, strata_N]), axis=1))
    else:
        strata_N = np.zeros(len(level_N), dtype=int)
        null_BN = level_N[orders_within(strata_N, permutations, seed)]
        ways = assignments(level_N, strata_N)
    return null_BN, 1 / min(ways, 1e9)


def _has_room(null_B: np.ndarray) -> bool:
    """Whether the largest value that exchanges lead to would be found: of a value that they hardly change none is."""
    return permutation_p(float(null_B.max()), null_B) < LEVEL


def _above(level_BM: np.ndarray, share_L: np.ndarray) -> np.ndarray:
    """[B, L] float64: how far each level's count among M runs lies above the expected one, in standard deviations."""
    counts_BL = np.stack([(level_BM == level).sum(1) for level in range(len(share_L))], axis=1)
    drawn = level_BM.shape[1]
    return (counts_BL - drawn * share_L) / np.sqrt(drawn * share_L * (1 - share_L))


def _squared(above_L: np.ndarray, share_L: np.ndarray) -> np.ndarray:
    """A cluster's part of chi-square."""
    return (above_L**2 * (1 - share_L)).sum(-1)


def _adjusted(found: Sequence[Tested]) -> list[Tested]:
    adjusted = iter(holm([each.p for each in found if each.p is not None]))
    return [each if each.p is None else replace(each, p=next(adjusted)) for each in found]
