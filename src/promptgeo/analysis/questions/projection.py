"""How do the prompt tokens look in the plane, and how far can the picture be trusted? t-SNE, PCA, classical MDS.

No distance is ever measured in the plane. What is measured is the projection itself: trustworthiness, and how far
t-SNE's pictures differ from seed to seed.

Numbers `trustworthiness.<tsne|pca|mds>` (Venna and Kaski 2001, as in scikit-learn: cosine, 5 neighbours; 1 at best,
about .5 by chance) and `.chance`: its mean and 95 % range with runs placed at random, in all of t-SNE's pictures alike.
`tsne.seeds` holds t-SNE's range over seeds, `tsne.disparity` how far the pictures of two seeds differ after
translation, scaling and rotation (Procrustes: 0 equal, 1 unrelated). Table `coordinates`: a row per token.

Shapes: N runs, P prompt tokens, K = N * P, d width, k neighbours.
"""

from math import factorial

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.figures import levels_at, panels, svg
from promptgeo.analysis.geometry.planes import (
    capped_perplexity,
    classical_mds,
    neighbour_ranks,
    pca,
    plane_neighbours,
    require_perplexity,
    trustworthiness,
    tsne,
)
from promptgeo.analysis.geometry.tokens import cosine_distances, tokens
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import drawn_means, percentile_interval, permutation_p, t_interval
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

NEIGHBOURS = 5
"""scikit-learn's default, so that others' numbers compare."""
PERMUTATIONS = 199
"""No p is below 1 / 200."""
LEAST_TOKENS = 5
"""With fewer there are no two neighbours to rank."""
NAMES = {"tsne": "t-SNE", "pca": "PCA", "mds": "MDS"}


@question(of=True)
def projection(
    runs: RunTable,
    *,
    of: Of = Of.prompt,
    seed: int = 0,
    seeds: int = 3,
    perplexity: float = 30.0,
    max_tokens: int = 4000,
) -> Result:
    """The prompt tokens in the plane, by three projections, each with its trustworthiness.

    t-SNE by scikit-learn (van der Maaten and Hinton 2008) on cosine distances, from a random start at each seed: its
    trustworthiness is the mean over seeds. PCA of the vectors at length 1. MDS is the classical one (principal
    coordinates of the cosine distances; Torgerson 1952): unlike SMACOF it needs no start and no iterations.

    Intervals are Student's t over whole runs, the projections kept; the p permutes which run lies where in the plane.

    Args:
        of: trained prompts or deltas.
        seed: of t-SNE's first start (the others follow), the intervals and the p.
        seeds: how many t-SNE pictures.
        perplexity: of t-SNE; at most (K - 1) / 3.
        max_tokens: of more, whole runs are drawn by seed.

    Raises UserError for fewer than 5 tokens, or where widths or prompt lengths differ.
    """
    require_perplexity(perplexity, "projection")
    points, result = tokens(runs, of), Result()
    keep_K = _sample(points.table["run"].to_numpy(), max_tokens, seed)
    if not keep_K.all():
        result.omissions.append(
            f"projection: shows {keep_K.sum()} of {len(points)} prompt tokens, "
            f"whole runs drawn by seed {seed} (max_tokens={max_tokens})."
        )
    unit_Kd, table = points.unit_Kd[keep_K], points.table[keep_K].reset_index(drop=True)
    if len(unit_Kd) < LEAST_TOKENS:
        raise UserError(f"projection: needs at least {LEAST_TOKENS} prompt tokens; these runs have {len(unit_Kd)}")
    result.omissions += capped_perplexity(perplexity, len(unit_Kd), "projection")
    distances_KK = cosine_distances(unit_Kd)
    pictures = [tsne(distances_KK, perplexity, seed + s) for s in progress(range(seeds), "t-SNE")]
    planes = {"tsne": pictures[0], "pca": pca(unit_Kd), "mds": classical_mds(distances_KK)}
    _report_trust(planes, pictures, distances_KK, pd.factorize(table["run"])[0], seed, result)
    _report_disparity(pictures, result)
    columns = {f"{name}_{axis}": plane_K2[:, i] for name, plane_K2 in planes.items() for i, axis in enumerate("xy")}
    result.tables["coordinates"] = table.assign(**columns)
    result.figures["tsne"] = _figure({"tsne": planes["tsne"]}, table, of)
    result.figures["pca_mds"] = _figure({name: planes[name] for name in ("pca", "mds")}, table, of)
    return result


def _report_trust(
    planes: dict[str, np.ndarray],
    pictures: list[np.ndarray],
    distances_KK: np.ndarray,
    run_K: np.ndarray,
    seed: int,
    result: Result,
) -> None:
    """The trustworthiness of each plane beside chance.

    Args:
        planes: projection -> [K, 2].
        pictures: t-SNE of each seed, [K, 2] each.
        distances_KK: cosine distances of the tokens.
        run_K: the run of each token, 0 .. N - 1.
        seed: of the intervals and of the runs placed at random.
    """
    size, runs = len(distances_KK), int(run_K.max()) + 1
    k = min(NEIGHBOURS, (size - 1) // 2)
    ranks_KK = neighbour_ranks(distances_KK)
    generator = np.random.default_rng(seed)
    for name, plane_K2 in planes.items():
        shown = [plane_neighbours(picture_K2, k) for picture_K2 in (pictures if name == "tsne" else [plane_K2])]
        by_seed_K = [trustworthiness(ranks_KK, shown_Kk) for shown_Kk in shown]
        each_K = np.mean(by_seed_K, axis=0)
        null = np.array([_shuffled(ranks_KK, shown, run_K, generator) for _ in range(PERMUTATIONS)])
        value = float(each_K.mean())
        p = max(permutation_p(value, null), 1.0 / factorial(min(runs, 20)))  # more orders than 20 runs have decide no p
        low, high = _over_runs(each_K, run_K, seed) if runs > 1 else (None, None)
        trust = result.number(f"trustworthiness.{name}", value, size, "tokens", low, high, p)
        by_chance = percentile_interval(null)
        quantity = f"trustworthiness.{name}.chance"
        chance = result.number(quantity, float(null.mean()), PERMUTATIONS, "permutations of runs", *by_chance)
        spread = ""
        if name == "tsne":
            values = [float(token_K.mean()) for token_K in by_seed_K]
            least, most = min(values), max(values)
            result.number("tsne.seeds", float(np.mean(values)), len(values), "seeds (range)", least, most)
            spread = f"; over {len(values)} seeds it is {least:.1%} to {most:.1%}"
        result.findings.append(_finding(name, trust, chance, p, spread, runs))


def _over_runs(values_K: np.ndarray, run_K: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of a share over tokens, whole runs drawn; every run has as many tokens."""
    by_run_N = np.bincount(run_K, values_K) / np.bincount(run_K)
    return t_interval(float(by_run_N.mean()), drawn_means(by_run_N, 2000, seed), len(by_run_N), 0.0, 1.0)


def _shuffled(
    ranks_KK: np.ndarray, pictures: list[np.ndarray], run_K: np.ndarray, generator: np.random.Generator
) -> float:
    """Mean trustworthiness of some pictures if whole runs had been put at each other's places in the plane.

    pictures: the neighbours that each shows, [K, k]. The runs change places in all of them alike.
    """
    length = len(run_K) // (int(run_K.max()) + 1)
    place_K = (generator.permutation(len(run_K) // length)[:, None] * length + np.arange(length)).ravel()
    size, k = pictures[0].shape
    penalties = [np.clip(ranks_KK[place_K[:, None], place_K[shown_Kk]] - k, 0, None).sum() for shown_Kk in pictures]
    return float(1.0 - np.mean(penalties) * 2.0 / (size * k * (2.0 * size - 3.0 * k - 1.0)))


def _finding(name: str, trust: Number, chance: Number, p: float, spread: str, runs: int) -> Finding:
    """Its evidence is the interval; the p belongs to the comparison with chance alone, so the sentence says it."""
    compared = f"{'above' if p < LEVEL else 'not detectably above'} the {chance.value:.1%} of runs placed at random"
    if factorial(min(runs, 20)) * LEVEL < 1:
        compared = f"against {chance.value:.1%} of runs placed at random, which so few runs cannot test"
    between = "" if runs == 1 else f"({trust.interval[0]:.1%} to {trust.interval[1]:.1%}), "
    sentence = (
        f"In the plane, {NAMES[name]} keeps neighbourhoods to a trustworthiness of {trust.value:.1%} {between}"
        f"{compared} (p = {p:.2g}){spread} (n = {trust.n} prompt tokens of {runs} run{'s' if runs > 1 else ''})."
    )
    return Finding(sentence, trust.value, trust.n, trust.unit, trust.low, trust.high, p if runs == 1 else None)


def _report_disparity(pictures: list[np.ndarray], result: Result) -> None:
    """How far t-SNE's pictures of two seeds differ."""
    from scipy.spatial import procrustes

    if len(pictures) == 1:
        result.omissions.append(
            "projection: t-SNE at one seed only, so its spread over seeds is not known (seeds=3 says)."
        )
        return
    pairs = [procrustes(a, b)[2] for i, a in enumerate(pictures) for b in pictures[i + 1 :]]
    mean = float(np.mean(pairs))
    result.number("tsne.disparity", mean, len(pairs), "pairs of seeds (range)", min(pairs), max(pairs))


def _sample(run_K: np.ndarray, most: int, seed: int) -> np.ndarray:
    """[K] bool: the tokens of as many whole runs as fit, drawn without replacement."""
    runs = np.unique(run_K)
    fit = max(most // (len(run_K) // len(runs)), 1)
    chosen = runs if fit >= len(runs) else np.random.default_rng(seed).choice(runs, fit, replace=False)
    return np.isin(run_K, chosen)


def _figure(planes: dict[str, np.ndarray], table: pd.DataFrame, of: Of) -> str:
    """A row per projection, coloured by init on the left, by task on the right."""
    vectors = "prompts" if of == Of.prompt else "deltas"
    with panels(len(planes), 2, height=3.0) as (figure, axes):
        for row, (name, plane_K2) in zip(axes, planes.items(), strict=True):
            for axis, factor in zip(row, ("init", "task"), strict=True):
                levels_at(axis, plane_K2, table[factor])
                axis.set_title(f"{NAMES[name]}, by {factor}", fontsize=9)
        for axis in axes[-1]:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=7, markerscale=1.6)
        names = " and ".join(NAMES[name] for name in planes)
        return svg(figure, f"{names} of the tokens of the {vectors}, each a point; places have no unit")
