"""Which runs lie in clusters, and what do the runs of a cluster share beyond chance?

Shapes: N runs, D coordinates, C clusters, L levels of a factor, B permutations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


def shares(cluster_N: np.ndarray, factors: pd.DataFrame, permutations: int, seed: int) -> list[Share]:
    """For each cluster and factor the level that stands out, with its p; cluster by cluster.

    A level stands out by how many standard deviations its count lies above that of as many runs drawn from all. The p
    is of the largest such distance over levels. Whole cells (runs that differ in nothing but the seed) exchange the
    factor's level, within cells that have all other factors in common: what clusters by another factor is no share.
    Where runs differ in one factor alone, single runs exchange it: its cells are its levels.

    factors: N rows, a column of levels for each factor.
    """
    found: list[Share] = []
    clusters = range(int(cluster_N.max(initial=NONE)) + 1)
    varied = [factor for factor in factors if factors[factor].nunique() > 1]
    for factor in varied:
        level_N, levels = pd.factorize(factors[factor])
        others = [other for other in varied if other != factor]
        if others:
            strata_N = factors.groupby(others, sort=False).ngroup().to_numpy()
            null_BN = level_N[cell_orders_within(level_N, strata_N, permutations, seed)]
            ways = assignments(*np.unique(np.stack([level_N, strata_N]), axis=1))
        else:
            strata_N = np.zeros(len(level_N), dtype=int)
            null_BN = level_N[orders_within(strata_N, permutations, seed)]
            ways = assignments(level_N, strata_N)
        least_p = 1 / min(ways, 1e9)
        for cluster in clusters:
            inside_N = cluster_N == cluster
            above_L = _above(level_N[None, inside_N], level_N, len(levels))[0]
            at = int(above_L.argmax())
            p = None
            if least_p < LEVEL:
                null_B = _above(null_BN[:, inside_N], level_N, len(levels)).max(1)
                p = max(permutation_p(float(above_L[at]), null_B), least_p)
            share, overall = (float((x == at).mean()) for x in (level_N[inside_N], level_N))
            found.append(Share(cluster, int(inside_N.sum()), factor, str(levels[at]), share, overall, p))
    return sorted(_adjusted(found), key=lambda share: share.cluster)


def _above(level_BM: np.ndarray, level_N: np.ndarray, levels: int) -> np.ndarray:
    """[B, L] float64: how far each level's count among M runs lies above the expected one, in standard deviations."""
    counts_BL = np.stack([(level_BM == level).sum(1) for level in range(levels)], axis=1)
    share_L = np.bincount(level_N, minlength=levels) / len(level_N)
    drawn = level_BM.shape[1]
    return (counts_BL - drawn * share_L) / np.sqrt(drawn * share_L * (1 - share_L))


def _adjusted(found: Sequence[Share]) -> list[Share]:
    tested = [share for share in found if share.p is not None]
    adjusted = iter(holm([share.p for share in tested if share.p is not None]))
    return [Share(**vars(share) | {"p": next(adjusted)}) if share.p is not None else share for share in found]
