"""A map of many prompts: where do they lie, what do neighbours share, and what of it does the map keep?

All runs of one model lie on one map, whatever they differ in: tasks, inits, seeds, rates, lengths, sweeps, imports.
Neighbours, words and clusters are those of the prompts, never of the plane.

Tables: `points` (a row per prompt, by number), `neighbours` (the nearest prompts of each: of all, and of other runs,
for a run's own checkpoints are its trivial neighbours), `words` (the nearest vocabulary tokens of its mean token, where
the model is there), `clusters` (what the runs of each share). Page `atlas`: the map to walk about in.

Shapes: N runs, K prompts, D coordinates, k neighbours, C clusters.
"""

from dataclasses import dataclass
from math import factorial

import numpy as np
import pandas as pd

from promptgeo.analysis.atlas_page import Map, page
from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.figures import levels_at, panels, svg
from promptgeo.analysis.geometry.clusters import NONE, Share, clusters_of, nearest_shares, shares
from promptgeo.analysis.geometry.nearest import Distance, Nearest, kept, nearest_points
from promptgeo.analysis.geometry.planes import capped_perplexity, laid_out, leading_components, require_perplexity
from promptgeo.analysis.geometry.prompt_points import PromptPoints, prompt_points
from promptgeo.analysis.geometry.tokens import require_runs
from promptgeo.analysis.geometry.vocabulary import Vocabulary, require_width
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import exchangeable, orders_within, percentile_interval, permutation_p, t_mean
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.config.waiting import said_when_slow
from promptgeo.errors import UserError
from promptgeo.runs.alike import ALL, data_sets, model_of_each
from promptgeo.runs.table import RunTable

NEAREST, WORDS = 20, 10
"""Prompts and words beside each prompt."""
DIMENSIONS = 50
"""Principal components that the map and the clusters are made of, at most."""
LEAST_RUNS = 5
"""With fewer there are no two neighbours to rank."""
PLACINGS = 199
"""Of runs at each other's places in the plane: no p is below 1 / 200."""
FACTORS = ("task", "init", "lr", "prompt_length", "template")
"""What runs of a cluster may share."""
NAMED = {"lr": "learning rate", "prompt_length": "prompt length"}
SAID = 5
"""Clusters of which a finding says what they share, at most: the largest."""
PLANES = {"tsne": "t-SNE", "pca": "PCA"}


@dataclass(frozen=True)
class _Quality:
    """What the plane keeps of the neighbours of each point."""

    trustworthiness: Number
    recall: Number
    chance: Number | None
    """Of recall; None where runs cannot change places."""


def _check(prompt: str, distance: str, plane: str, perplexity: float, cluster_size: int, max_points: int) -> None:
    require_perplexity(perplexity, "atlas")
    for key, value, allowed in (
        ("prompt", prompt, ("mean", "whole")),
        ("distance", distance, tuple(Distance)),
        ("plane", plane, tuple(PLANES)),
    ):
        if value not in allowed:
            raise UserError(f"analysis.atlas.{key}={value}: must be {' or '.join(allowed)}")
    for key, count, least in (("cluster_size", cluster_size, 2), ("max_points", max_points, LEAST_RUNS)):
        if count < least:
            raise UserError(f"analysis.atlas.{key}={count}: must be at least {least}")


@question(words=True, factors=(ALL,), check=_check)
def atlas(
    runs: RunTable,
    *,
    vocabulary: Vocabulary | None,
    checkpoints: bool = True,
    prompt: str = "mean",
    distance: str = "cosine",
    plane: str = "tsne",
    perplexity: float = 30.0,
    cluster_size: int = 5,
    permutations: int = 1999,
    max_points: int = 5000,
    seed: int = 0,
) -> Result:
    """Lays prompts out in the plane and says what the plane keeps, which prompts are near, and what clusters share.

    Numbers `trustworthiness` and `recall` (k = 20, fewer where there are few prompts) and the same `.other_runs`, each
    with `.chance`: whole runs at each other's places. `nearest.<factor>`: the share of runs to whose final prompt the
    nearest is one of the same level, and its `.chance`: runs have exchanged the factor's level. `clusters.<factor>`:
    Cramer's V of clusters and a factor, and its `.chance`, likewise; `cluster.<c>.<factor>`: the share of the cluster's
    runs that have the level by which it stands out; the p of either kind are adjusted for each other (Holm). Intervals
    leave out runs.

    Args:
        checkpoints: also the prompts that each run kept while it trained.
        prompt: what is compared: `mean` (the mean token) or `whole` (all tokens; needs one length).
        distance: cosine or l2.
        plane: tsne (from the plane of PCA) or pca.
        perplexity: of t-SNE; at most (K - 1) / 3.
        cluster_size: runs of a cluster, at least. Clusters are of final prompts; a checkpoint has its run's.
        permutations: of what clusters share.
        max_points: of more, checkpoints are left out evenly, then runs.
        seed: of t-SNE, of runs that are drawn, and of the permutations.

    Raises UserError for fewer than 5 runs, an unknown option, a zero prompt where directions are compared, and where
    widths, or lengths of whole prompts, differ.
    """
    # Long because its numbers and options are named here.
    _check(prompt, distance, plane, perplexity, cluster_size, max_points)
    require_runs(runs, LEAST_RUNS, "atlas")
    points, omissions = prompt_points(
        runs, "atlas", checkpoints=checkpoints, whole=prompt == "whole", most=max_points, seed=seed
    )
    result = Result(omissions=[*omissions, *_taken_for_known(runs), *_of_several_data_sets(runs)])
    chosen = Distance(distance)
    if chosen is Distance.cosine:
        points.require_directions("atlas")
    k = _count(points)
    near = nearest_points(points.vectors_KD, points.run_K, k, chosen, ranks=True, label="distances")
    spread_KD, share = leading_components(_compared(points, chosen), DIMENSIONS, seed)
    result.number("pca.variance", share, spread_KD.shape[1], "principal components")
    if plane == "tsne":
        result.omissions += capped_perplexity(perplexity, len(points), "atlas")
    plane_K2 = _tsne(spread_KD, perplexity, seed) if plane == "tsne" else spread_KD[:, :2]
    cluster_N = clusters_of(spread_KD[points.final_N], cluster_size)
    table = points.table.assign(point=np.arange(len(points)))[["point", *points.table]]
    table = table.assign(x=plane_K2[:, 0], y=plane_K2[:, 1], cluster=cluster_N[points.run_K])
    finals = table.iloc[points.final_N]
    factors = pd.DataFrame({name: finals[name].map(_level).to_numpy() for name in FACTORS if name in finals})
    _report_nearest(result, points, chosen, factors, permutations, seed)
    _report_clusters(result, cluster_N, factors, permutations, seed)
    _report_quality(result, points, near, plane_K2, plane, seed)
    result.tables = {"points": table, "neighbours": _neighbour_table(near, points.run_K)} | result.tables
    words = _words(result, points, vocabulary)
    if words is not None:
        result.tables["words"] = words
    result.figures["atlas"] = _figure(finals, plane, prompt)
    said = tuple(finding.sentence for finding in result.findings)
    shown = Map("Atlas of prompts", said, _keeps(result, k), table, points.run_K, *near, words)
    result.pages["atlas"] = page(shown)
    return result


def _count(points: PromptPoints) -> int:
    """How many neighbours each prompt is given: of too few prompts, all would be neighbours."""
    return min(NEAREST, (len(points) - int(np.bincount(points.run_K).max())) // 2)


def _tsne(spread_KD: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    with said_when_slow(f"laying out {len(spread_KD):,} prompts (t-SNE)"):
        return laid_out(spread_KD, perplexity, seed)


def _taken_for_known(runs: RunTable) -> list[str]:
    """What is said of imports that do not say their model, beside runs that do."""
    if runs.runs is None:
        return []
    unknown = sum(not run.info.get("fingerprints", {}).get("model") for run in runs.runs)
    if not unknown or unknown == len(runs):
        return []
    name = model_of_each(runs)[0].name
    those = (
        "1 import does not say which model it is"
        if unknown == 1
        else f"{unknown} imports do not say which model they are"
    )
    return [f"atlas: {those} of; taken for {name}'s, whose width they have."]


def _of_several_data_sets(runs: RunTable) -> list[str]:
    return [
        f"atlas: runs of task {task} have several data sets ({', '.join(digits)}); what is said of the task is said "
        "of all of them together."
        for task, digits in data_sets(runs).items()
    ]


def _compared(points: PromptPoints, distance: Distance) -> np.ndarray:
    """[K, D] float32: vectors whose Euclidean distances order as the chosen distances do."""
    if distance is Distance.l2:
        return points.vectors_KD
    vectors_KD = points.vectors_KD.astype(np.float64)  # whose squares may be beyond float32
    return (vectors_KD / np.linalg.norm(vectors_KD, axis=1, keepdims=True)).astype(np.float32)


# What the plane keeps.


def _report_quality(
    result: Result, points: PromptPoints, near: tuple[Nearest, Nearest], plane_K2: np.ndarray, plane: str, seed: int
) -> None:
    k = near[0].nearest_Kk.shape[1]
    shown = nearest_points(plane_K2, points.run_K, k, Distance.l2, label="distances in the plane")
    apart = len(points) > points.run_K.max() + 1
    for among, (true, seen) in enumerate(zip(near, shown, strict=True)):
        if among and not apart:
            continue
        ending = ".other_runs" if among else ""
        kept_quality = _quality(result, ending, points.run_K, true, seen.nearest_Kk, seed)
        result.findings.append(_quality_finding(kept_quality, bool(among), k, plane, int(points.run_K.max()) + 1))


def _quality(
    result: Result, ending: str, run_K: np.ndarray, true: Nearest, shown_Kk: np.ndarray, seed: int
) -> _Quality:
    """Adds trustworthiness and recall, each with its chance level."""
    assert true.ranks_KK is not None
    others_K = np.count_nonzero(true.ranks_KK, axis=1)
    each = kept(true.ranks_KK, others_K, shown_Kk)
    size_N = np.bincount(run_K)
    placings = _placings(run_K, seed) if exchangeable(np.arange(len(size_N)), size_N) else []
    null = [[x_K.mean() for x_K in kept(true.ranks_KK, others_K, shown_Kk, placed_K)] for placed_K in placings]
    numbers: list[Number] = []
    for i, name in enumerate(("trustworthiness", "recall")):
        value, p, draws = float(each[i].mean()), None, np.array([pair[i] for pair in null])
        if len(draws):
            p = max(permutation_p(value, draws), 1.0 / factorial(min(len(size_N), 20)))
        low, high = t_mean(each[i], run_K, 0.0, 1.0)
        numbers.append(result.number(f"{name}{ending}", value, len(run_K), "prompts", low, high, p))
        if len(draws):
            quantity = f"{name}{ending}.chance"
            numbers.append(
                result.number(quantity, draws.mean(), PLACINGS, "placings of runs", *percentile_interval(draws))
            )
    return _Quality(numbers[0], numbers[len(numbers) // 2], numbers[-1] if null else None)


def _placings(run_K: np.ndarray, seed: int) -> list[np.ndarray]:
    """[K] int64 each: the point at each place, whole runs at the places of others with as many points."""
    size_N = np.bincount(run_K)
    start_N = np.cumsum(size_N) - size_N
    within_K = np.arange(len(run_K)) - start_N[run_K]
    return [start_N[order_N][run_K] + within_K for order_N in orders_within(size_N, PLACINGS, seed)]


def _quality_finding(quality: _Quality, other_runs: bool, k: int, plane: str, runs: int) -> Finding:
    recall, chance = quality.recall, quality.chance
    which = f"{k} nearest prompts" + (" of other runs" if other_runs else "")
    beside = ""
    if chance is not None and recall.p is not None:
        above = "above" if recall.p < LEVEL else "not detectably above"
        beside = f", {above} the {chance.value:.1%} of a map with runs in each other's places (p = {recall.p:.2g})"
    low, high = recall.interval
    return Finding.of(
        recall,
        f"Of a prompt's {which}, {PLANES[plane]}'s map keeps {recall.value:.1%} ({low:.1%} to {high:.1%}){beside}; its "
        f"trustworthiness is {quality.trustworthiness.value:.1%} (n = {recall.n:,} prompts of {runs:,} runs).",
    )


def _keeps(result: Result, k: int) -> str:
    recall = {each.quantity: each.value for each in result.numbers if each.quantity.startswith("recall")}
    others = f", {recall['recall.other_runs']:.0%} of those of other runs" if "recall.other_runs" in recall else ""
    return f"the map keeps {recall['recall']:.0%} of the {k} nearest prompts{others}"


# What nearest prompts, and clusters, share.


def _report_nearest(
    result: Result, points: PromptPoints, distance: Distance, factors: pd.DataFrame, permutations: int, seed: int
) -> None:
    """How often the final prompt nearest to a run's is of the same task, init, ..."""
    near, _ = nearest_points(points.vectors_KD[points.final_N], np.arange(len(factors)), 1, distance)
    untested = []
    for each in nearest_shares(near.nearest_Kk[:, 0], factors, permutations, seed):
        number = result.number(f"nearest.{each.factor}", each.share, len(factors), "runs", p=each.p)
        what = NAMED.get(each.factor, each.factor)
        if number.p is None or each.chance_B is None:
            untested.append(f"{what} ({number.value:.0%} of {number.n} runs)")
            continue
        interval, unit = percentile_interval(each.chance_B), "exchanges of runs"
        chance = result.number(f"{number.quantity}.chance", each.chance_B.mean(), permutations, unit, *interval)
        how = "more than" if number.p < LEVEL else "not detectably more than"
        sentence = (
            f"The final prompt nearest to a run's is of the same {what} in {number.value:.0%} of runs, {how} by "
            f"chance: {chance.value:.0%} where cells of runs have exchanged it (p = {number.p:.2g}, adjusted for all "
            f"factors; n = {number.n} runs)."
        )
        result.findings.append(Finding.of(number, sentence))
    if untested:
        result.omissions.append(
            f"atlas: how often the nearest final prompt is of the same {', '.join(untested)} cannot be tested: cells "
            "of runs that exchange it leave it as it is, or nearly; more tasks, inits, rates may do, not more seeds."
        )


def _report_clusters(
    result: Result, cluster_N: np.ndarray, factors: pd.DataFrame, permutations: int, seed: int
) -> None:
    count = int(cluster_N.max(initial=NONE)) + 1
    result.number("clusters", count, len(cluster_N), "runs")
    result.number("clustered", (cluster_N != NONE).mean(), len(cluster_N), "runs")
    associations, found = shares(cluster_N, factors, permutations, seed)
    columns = ["cluster", "runs", "factor", "level", "inside", "overall", "p"]
    result.tables["clusters"] = pd.DataFrame([vars(share) for share in found], columns=columns)
    if not count:
        result.omissions.append("atlas: no part of the map is so dense that its runs make a cluster (cluster_size).")
    for each in associations:
        v = result.number(f"clusters.{each.factor}", each.v, each.runs, "runs in clusters", p=each.p)
        if v.p is not None and each.chance_B is not None:
            interval = percentile_interval(each.chance_B)
            unit = "exchanges of runs"
            chance = result.number(
                f"clusters.{each.factor}.chance", each.chance_B.mean(), permutations, unit, *interval
            )
            what = NAMED.get(each.factor, each.factor)
            how = "more than" if v.p < LEVEL else "not detectably more than"
            sentence = (
                f"Clusters go with the {what} {how} by chance: Cramer's V {v.value:.2f}, {chance.value:.2f} where "
                f"cells of runs have exchanged it (p = {v.p:.2g}, adjusted for all factors; n = {v.n} clustered runs)."
            )
            result.findings.append(Finding.of(v, sentence))
    numbers = {
        share: result.number(
            f"cluster.{share.cluster}.{share.factor}", share.inside, share.runs, "runs of the cluster", p=share.p
        )
        for share in found
    }
    said: dict[int, list[Share]] = {}
    for share in found:
        if share.p is not None and share.p < LEVEL:
            said.setdefault(share.cluster, []).append(share)
    for cluster, those in list(said.items())[:SAID]:
        first = min(those, key=lambda share: (share.p, -share.inside / share.overall))
        shared = " and ".join(map(_in_words, those))
        sentence = f"The {first.runs} runs of cluster {cluster} share {shared}; p adjusted for all clusters (Holm)."
        result.findings.append(Finding.of(numbers[first], sentence))
    if len(said) > SAID:
        result.omissions.append(f"atlas: {len(said) - SAID} smaller clusters share something too: table clusters.")


def _in_words(share: Share) -> str:
    what = f"{NAMED.get(share.factor, share.factor)} {share.level}"
    return f"{what} ({share.inside:.0%}, of all runs {share.overall:.0%}, p = {share.p:.2g})"


def _level(value: object) -> str:
    if value is None or pd.isna(value):
        return "not known"
    return f"{value:g}" if isinstance(value, float) else str(value)


# Tables and figure.


def _neighbour_table(near: tuple[Nearest, Nearest], run_K: np.ndarray) -> pd.DataFrame:
    """A row per prompt and neighbour. among: all prompts, or those of other runs alone."""
    size, k = near[0].nearest_Kk.shape
    parts = [
        pd.DataFrame(
            {
                "point": np.repeat(np.arange(size), k),
                "among": among,
                "rank": np.tile(np.arange(1, k + 1), size),
                "neighbour": each.nearest_Kk.ravel(),
                "distance": each.distances_Kk.ravel(),
            }
        )
        for among, each in zip(("all", "other runs"), near, strict=True)
    ]
    table = pd.concat(parts[: 2 if len(run_K) > run_K.max() + 1 else 1], ignore_index=True)
    return table.assign(own_run=run_K[table["point"]] == run_K[table["neighbour"]])


def _words(result: Result, points: PromptPoints, vocabulary: Vocabulary | None) -> pd.DataFrame | None:
    """The nearest words of each prompt's mean token, by cosine."""
    if vocabulary is None:
        result.omissions.append(
            "atlas: no words, for the runs' model is not at hand; name it with model=<hub id or folder>."
        )
        return None
    require_width(vocabulary, points.means_Kd)
    means_Kd = points.means_Kd.astype(np.float64)
    norms_K = np.linalg.norm(means_Kd, axis=1, keepdims=True)
    with said_when_slow("looking for the words nearest to each prompt"):
        found = vocabulary.near((means_Kd / np.where(norms_K > 0, norms_K, 1.0)).astype(np.float32), nearest=WORDS)
    size, k = found.nearest_Kk.shape
    return pd.DataFrame(
        {
            "point": np.repeat(np.arange(size), k),
            "rank": np.tile(np.arange(1, k + 1), size),
            "word": [vocabulary.tokens[i] for i in found.nearest_Kk.ravel()],
            "distance": found.distances_Kk.ravel(),
        }
    )


def _figure(finals: pd.DataFrame, plane: str, prompt: str) -> str:
    """The final prompts, by init on the left and by task on the right."""
    with panels(1, 2, height=3.4) as (figure, axes):
        for axis, factor in zip(axes[0], ("init", "task"), strict=True):
            levels_at(axis, finals[["x", "y"]].to_numpy(), finals[factor])
            axis.set_title(f"by {factor}", fontsize=9)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=7, markerscale=1.6)
        what = "mean tokens" if prompt == "mean" else "whole prompts"
        return svg(figure, f"{PLANES[plane]} of {what}, each run's final one a point; places have no unit")
