"""How do the prompt tokens look in the plane, and how far may one believe it? t-SNE, PCA and classical MDS of them.

No distance is ever measured in the plane. What is measured is the projection itself: trustworthiness, and how far t-SNE's pictures
differ from seed to seed.

Shapes: N runs, P prompt tokens, K = N * P, d width, k neighbours.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import Of
from promptgeo.analysis.resampling import bootstrap_mean, permutation_p
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.vectors import cosine_distances, order_of_appearance, tokens
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable

NEIGHBOURS = 5
PERMUTATIONS = 199
MARKERS = "os^Dvpx+*"
NAMES = {"tsne": "t-SNE", "pca": "PCA", "mds": "MDS"}


def projection(
    runs: RunTable, *, of: Of = Of.prompt, seed: int = 0, seeds: int = 3, perplexity: float = 30.0, max_tokens: int = 4000
) -> Result:
    """Numbers `trustworthiness.<tsne|pca|mds>` (Venna and Kaski 2001, as in scikit-learn: cosine, 5 neighbours; 1 at best, about .5 by chance).

    t-SNE by scikit-learn (van der Maaten and Hinton 2008) on cosine distances, from a random start at each of `seeds` seeds: its
    trustworthiness is the mean over seeds, `tsne.seeds` holds their range and `tsne.disparity` how far two seeds' pictures differ after
    translation, scaling and rotation (Procrustes: 0 equal, 1 unrelated). PCA of the vectors at length 1. MDS is the classical one
    (principal coordinates of the cosine distances; Torgerson 1952): unlike SMACOF it needs no start and no iterations.
    perplexity: at most (K - 1) / 3. max_tokens: of more, whole runs are drawn by seed. Table `coordinates`: one row per token.

    Intervals draw whole runs with the projections kept; the p permutes which run lies where in the plane.
    Raises UserError for fewer than 5 tokens, or where widths or prompt lengths differ.
    """
    points, omissions = tokens(runs, of), []
    keep_K = _drawn(points.table["run"].to_numpy(), max_tokens, seed)
    if not keep_K.all():
        omissions.append(f"projection: shows {keep_K.sum()} of {len(points)} prompt tokens, whole runs drawn by seed {seed} (max_tokens={max_tokens}).")
    unit_Kd, table = points.unit_Kd[keep_K], points.table[keep_K].reset_index(drop=True)
    if len(unit_Kd) < 5:
        raise UserError(f"projection: needs at least 5 prompt tokens; these runs have {len(unit_Kd)}")
    distances_KK = cosine_distances(unit_Kd)
    pictures = [tsne(distances_KK, perplexity, seed + s) for s in progress(range(seeds), "t-SNE")]
    planes = {"tsne": pictures[0], "pca": pca(unit_Kd), "mds": classical_mds(distances_KK)}

    result = Result(omissions=omissions)
    _measure(result, distances_KK, planes, pictures, pd.factorize(table["run"])[0], seed)
    columns = {f"{name}_{axis}": plane_K2[:, i] for name, plane_K2 in planes.items() for i, axis in enumerate("xy")}
    result.tables["coordinates"] = table.assign(**columns)
    result.figures["tsne"] = _figure({"tsne": planes["tsne"]}, table, of)
    result.figures["pca_mds"] = _figure({name: planes[name] for name in ("pca", "mds")}, table, of)
    return result


def tsne(distances_KK: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """[K, 2] float64. A random start, so that seeds can differ; the same points for the same seed."""
    from sklearn.manifold import TSNE

    fit = TSNE(metric="precomputed", init="random", perplexity=min(perplexity, (len(distances_KK) - 1) / 3), random_state=seed)
    return fit.fit_transform(distances_KK).astype(np.float64)


def pca(vectors_Kd: np.ndarray) -> np.ndarray:
    """[K, 2] float64: the first two principal components of the centred vectors."""
    centred_Kd = vectors_Kd.astype(np.float64) - vectors_Kd.mean(0, dtype=np.float64)
    return _leading(centred_Kd @ centred_Kd.T)


def classical_mds(distances_KK: np.ndarray) -> np.ndarray:
    """[K, 2] float64: the first two principal coordinates, of -1/2 J D^2 J with J = I - 1/K (Torgerson 1952)."""
    squared_KK = distances_KK**2
    return _leading(-0.5 * (squared_KK - squared_KK.mean(0) - squared_KK.mean(1)[:, None] + squared_KK.mean()))


def _leading(gram_KK: np.ndarray) -> np.ndarray:
    """The two largest eigenvectors, each at the length of its axis and with its largest entry positive."""
    from scipy.linalg import eigh

    size = len(gram_KK)
    values, vectors_K2 = eigh((gram_KK + gram_KK.T) / 2, subset_by_index=[size - 2, size - 1])
    vectors_K2 = vectors_K2[:, ::-1] * np.sqrt(np.clip(values[::-1], 0.0, None))
    return vectors_K2 * np.where(vectors_K2[np.abs(vectors_K2).argmax(0), [0, 1]] < 0, -1.0, 1.0)


def neighbour_ranks(distances_KK: np.ndarray) -> np.ndarray:
    """[K, K] int64: 1 for the token nearest to i, 2 for the next, ...; 0 for i itself."""
    alone_KK = distances_KK.copy()
    np.fill_diagonal(alone_KK, -np.inf)
    return np.argsort(np.argsort(alone_KK, axis=1, kind="stable"), axis=1, kind="stable")


def trustworthiness(ranks_KK: np.ndarray, shown_Kk: np.ndarray) -> np.ndarray:
    """[K] float64, whose mean is the trustworthiness: 1 less a penalty for each of the k neighbours shown that is none, by its true rank."""
    size, k = shown_Kk.shape
    penalties_K = np.clip(np.take_along_axis(ranks_KK, shown_Kk, axis=1) - k, 0, None).sum(1)
    return 1.0 - penalties_K * 2.0 / (k * (2.0 * size - 3.0 * k - 1.0))


def _neighbours(plane_K2: np.ndarray, k: int) -> np.ndarray:
    """[K, k] int64: the nearest points in the plane."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(plane_K2).kneighbors(return_distance=False)


def _measure(result: Result, distances_KK: np.ndarray, planes: dict[str, np.ndarray], pictures: list[np.ndarray], run_K: np.ndarray, seed: int) -> None:
    size, runs = len(distances_KK), int(run_K.max()) + 1
    k = min(NEIGHBOURS, (size - 1) // 2)
    ranks_KK = neighbour_ranks(distances_KK)
    generator = np.random.default_rng(seed)
    for name, plane_K2 in planes.items():
        shown = [_neighbours(picture_K2, k) for picture_K2 in (pictures if name == "tsne" else [plane_K2])]
        each_K = np.mean([trustworthiness(ranks_KK, shown_Kk) for shown_Kk in shown], axis=0)
        value, (low, high) = float(each_K.mean()), bootstrap_mean(each_K, run_K, seed=seed)
        null = np.array([_shuffled(ranks_KK, shown[0], run_K, generator) for _ in range(PERMUTATIONS)])
        p = permutation_p(value, null)
        result.number(f"trustworthiness.{name}", value, size, "tokens", low, high, p)
        result.number(f"trustworthiness.{name}.chance", null.mean(), PERMUTATIONS, "permutations of runs", *np.percentile(null, [2.5, 97.5]))
        beyond = f"{'above' if p < 0.05 else 'not above'} the {null.mean():.1%} of runs placed at random (p = {p:.2g})"
        if name != "tsne":
            result.findings.append(_finding(f"{NAMES[name]} keeps neighbourhoods to a trustworthiness of {{}}, {beyond}", value, low, high, size, runs))
            continue
        by_seed = [float(trustworthiness(ranks_KK, shown_Kk).mean()) for shown_Kk in shown]
        result.number("tsne.seeds", np.mean(by_seed), len(by_seed), "seeds (range)", min(by_seed), max(by_seed))
        sentence = f"t-SNE keeps neighbourhoods to a trustworthiness of {{}}, {beyond}; over {len(by_seed)} seeds it is {min(by_seed):.1%} to {max(by_seed):.1%}"
        result.findings.append(_finding(sentence, value, low, high, size, runs))
    if len(pictures) > 1:
        _disparity(result, pictures)
    else:
        result.omissions.append("projection: t-SNE at one seed only, so its spread over seeds is not known (seeds=3 says).")


def _shuffled(ranks_KK: np.ndarray, shown_Kk: np.ndarray, run_K: np.ndarray, generator: np.random.Generator) -> float:
    """Trustworthiness if whole runs had been put at each other's places in the plane."""
    length = len(run_K) // (int(run_K.max()) + 1)
    place_K = (generator.permutation(len(run_K) // length)[:, None] * length + np.arange(length)).ravel()
    size, k = shown_Kk.shape
    penalties = np.clip(ranks_KK[place_K[:, None], place_K[shown_Kk]] - k, 0, None).sum()
    return float(1.0 - penalties * 2.0 / (size * k * (2.0 * size - 3.0 * k - 1.0)))


def _finding(sentence: str, value: float, low: float, high: float, size: int, runs: int) -> Finding:
    kept = f"{value:.1%} ({low:.1%} to {high:.1%})"
    return Finding(f"In the plane, {sentence.format(kept)} (n = {size} prompt tokens of {runs} runs).", value, size, "tokens", low, high)


def _disparity(result: Result, pictures: list[np.ndarray]) -> None:
    from scipy.spatial import procrustes

    pairs = [procrustes(a, b)[2] for i, a in enumerate(pictures) for b in pictures[i + 1 :]]
    result.number("tsne.disparity", np.mean(pairs), len(pairs), "pairs of seeds (range)", min(pairs), max(pairs))


def _drawn(run_K: np.ndarray, most: int, seed: int) -> np.ndarray:
    """[K] bool: the tokens of as many whole runs as fit."""
    runs = np.unique(run_K)
    fit = max(most // (len(run_K) // len(runs)), 1)
    chosen = runs if fit >= len(runs) else np.random.default_rng(seed).choice(runs, fit, replace=False)
    return np.isin(run_K, chosen)


def _figure(planes: dict[str, np.ndarray], table: pd.DataFrame, of: Of) -> str:
    """A row per projection, coloured by init on the left, by task on the right."""
    with panels(len(planes), 2, height=3.0) as (figure, axes):
        for row, (name, plane_K2) in zip(axes, planes.items(), strict=True):
            for axis, factor in zip(row, ("init", "task"), strict=True):
                for i, level in enumerate(order_of_appearance(table[factor])):
                    chosen_K = (table[factor] == level).to_numpy()
                    axis.plot(
                        *plane_K2[chosen_K].T, linestyle="none", marker=MARKERS[i // len(COLOURS) % len(MARKERS)], color=COLOURS[i % len(COLOURS)],
                        markersize=2.6, markeredgewidth=0.3, label=str(level),
                    )  # fmt: skip
                axis.set(xticks=[], yticks=[], title=f"{NAMES[name]} of the {'prompts' if of == Of.prompt else 'deltas'}, by {factor}")
        for axis in axes[-1]:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=7, markerscale=1.6)
        return svg(figure)
