"""How are points laid out in the plane, and how far can the picture be trusted? t-SNE, PCA, classical MDS.

Shapes: K points, d width, k neighbours.
"""

import numpy as np

from promptgeo.errors import UserError


def require_perplexity(perplexity: float, question: str) -> None:
    """Raises UserError where t-SNE has no such perplexity; question: the analysis whose option it is."""
    if perplexity <= 0:
        raise UserError(f"analysis.{question}.perplexity={perplexity}: must be greater than 0")


def capped_perplexity(perplexity: float, size: int, question: str) -> list[str]:
    """The omission that says what t-SNE of so many points takes instead of a perplexity that is too large for them."""
    most = _most_perplexity(size)
    if perplexity <= most:
        return []
    return [
        f"{question}: t-SNE's perplexity is {most:.3g}, not {perplexity:g}: a third of the other {size - 1:,} points."
    ]


def _most_perplexity(size: int) -> float:
    return (size - 1) / 3


def tsne(distances_KK: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """[K, 2] float64. A random start, so that seeds can differ; the same points for the same seed."""
    from sklearn.manifold import TSNE

    perplexity = min(perplexity, _most_perplexity(len(distances_KK)))
    fit = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    return fit.fit_transform(distances_KK).astype(np.float64)


def pca(vectors_Kd: np.ndarray) -> np.ndarray:
    """[K, 2] float64: the first two principal components of the centred vectors."""
    centred_Kd = vectors_Kd.astype(np.float64) - vectors_Kd.mean(0, dtype=np.float64)
    return _leading(centred_Kd @ centred_Kd.T)


def leading_components(vectors_KD: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, float]:
    """([K, <= most] float64, the principal components of the centred vectors; their share of the variance)."""
    from sklearn.decomposition import PCA

    fit = PCA(min(most, len(vectors_KD) - 1, vectors_KD.shape[1]), random_state=seed)
    if not np.ptp(vectors_KD, axis=0).any():
        raise UserError("these prompts are all the same: there is nothing to lay out")
    spread_KD = fit.fit_transform(vectors_KD.astype(np.float64))
    return np.pad(spread_KD, ((0, 0), (0, max(2 - spread_KD.shape[1], 0)))), float(fit.explained_variance_ratio_.sum())


def laid_out(vectors_KD: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """[K, 2] float64: t-SNE from the plane of PCA, by Euclidean distances; the same points for the same seed."""
    from sklearn.manifold import TSNE

    perplexity = min(perplexity, _most_perplexity(len(vectors_KD)))
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors_KD).astype(np.float64)


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
    others_KK = distances_KK.copy()
    np.fill_diagonal(others_KK, -np.inf)
    return np.argsort(np.argsort(others_KK, axis=1, kind="stable"), axis=1, kind="stable")


def trustworthiness(ranks_KK: np.ndarray, shown_Kk: np.ndarray) -> np.ndarray:
    """[K] float64, whose mean is the trustworthiness: 1 less a penalty for each of the k neighbours shown that is none.

    The penalty is by how many places its true rank exceeds k.
    """
    size, k = shown_Kk.shape
    penalties_K = np.clip(np.take_along_axis(ranks_KK, shown_Kk, axis=1) - k, 0, None).sum(1)
    return 1.0 - penalties_K * 2.0 / (k * (2.0 * size - 3.0 * k - 1.0))


def plane_neighbours(plane_K2: np.ndarray, k: int) -> np.ndarray:
    """[K, k] int64: the nearest points in the plane."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(plane_K2).kneighbors(return_distance=False)
