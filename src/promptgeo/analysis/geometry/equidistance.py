"""Are runs equally far from each other, or only as equally as random points are?

The distances of a few points in many dimensions hardly vary whatever made the points. Two nulls bracket what random
points do, since a few runs cannot say along how many directions training scatters:

- random directions: every token deviates in a direction of its own, all directions alike. No random points are more
  nearly equidistant, so that runs are equidistant by themselves only if their distances vary less than these.
- random signs along the principal components of the task's token deviations (norms and spectrum kept): runs that share
  no direction but scatter along as few as the tokens seen. Distances that vary more belong to runs that lie in groups.

Random signs alone are no null for equidistance. The components of a few runs span as few dimensions as there are runs,
or tokens: of 4 random points in 720 dimensions, distances lay below those of random signs along the components of the
whole prompts in 150 of 150 draws, at p < .05.

Shapes: N runs, P prompt tokens, d width, B draws, K components.
"""

from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.resampling import permutation_p


@dataclass(frozen=True, eq=False)
class Equidistance:
    """The coefficient of variation of the distances between runs, beside both nulls."""

    cv: float
    random_B: np.ndarray
    """With random directions."""
    signs_B: np.ndarray
    """With random signs along principal components."""

    @property
    def closer_p(self) -> float:
        """One-sided p of distances that vary less than those of random directions."""
        return permutation_p(self.cv, self.random_B, "less")

    @property
    def farther_p(self) -> float:
        """One-sided p of distances that vary more than with random signs."""
        return permutation_p(self.cv, self.signs_B, "greater")


def equidistance(prompts_NPd: np.ndarray, draws: int, generator: np.random.Generator) -> Equidistance:
    """Of at least three runs that start alike, whose prompts differ."""
    deviations_NPd = prompts_NPd - prompts_NPd.mean(0)
    flat_ND = deviations_NPd.reshape(len(prompts_NPd), -1)
    squares_NN = np.square(flat_ND[:, None] - flat_ND).sum(2)
    return Equidistance(
        float(variation(squares_NN)),
        variation(_random_directions(deviations_NPd, draws, generator)),
        variation(_random_signs(deviations_NPd, draws, generator)),
    )


def together(several: list[Equidistance]) -> Equidistance:
    """The mean coefficient of variation of several tasks, whose draws are independent."""
    return Equidistance(
        float(np.mean([each.cv for each in several])),
        np.mean([each.random_B for each in several], axis=0),
        np.mean([each.signs_B for each in several], axis=0),
    )


def variation(squares_NN: np.ndarray) -> np.ndarray:
    """[...] float64: standard deviation over mean of the N (N - 1) / 2 distances, from squared ones [..., N, N]."""
    one, other = np.triu_indices(squares_NN.shape[-1], 1)
    distances = np.sqrt(np.clip(squares_NN[..., one, other], 0, None))
    mean = distances.mean(-1)
    return np.divide(distances.std(-1, ddof=1), mean, out=np.zeros_like(mean), where=mean > 0)


def _random_directions(deviations_NPd: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """[B, N, N] float64: squared distances of runs whose tokens deviate equally far (by position) in any direction."""
    n, _, d = deviations_NPd.shape
    squares_BNN = np.zeros((draws, n, n))
    for norm2 in np.square(deviations_NPd).sum(2).mean(0):
        unit_BNk = _gaussian_points(n, d, draws, generator)
        unit_BNk /= np.linalg.norm(unit_BNk, axis=2, keepdims=True)
        squares_BNN += 2 * norm2 * (1 - unit_BNk @ unit_BNk.transpose(0, 2, 1))
    return squares_BNN


def _gaussian_points(n: int, d: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """[B, N, min(N, d)] float64: N normal points of d dimensions but for a rotation (Bartlett 1933), drawn as few."""
    if d <= n:
        return generator.normal(size=(draws, n, d))
    points_BNN = np.tril(generator.normal(size=(draws, n, n)), -1)
    points_BNN[:, range(n), range(n)] = np.sqrt(generator.chisquare(d - np.arange(n), size=(draws, n)))
    return points_BNN


def _random_signs(deviations_NPd: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """[B, N, N] float64: squared distances with a random sign of each run along each principal component of all tokens.

    A sign turns all tokens of a run, which belong together.
    """
    n, length, d = deviations_NPd.shape
    norms2_N = np.square(deviations_NPd).sum((1, 2))
    true2_N = uncentred(norms2_N)
    scale_N = np.sqrt(true2_N / np.maximum(norms2_N, np.finfo(float).tiny))
    scaled_Kd = (deviations_NPd * scale_N[:, None, None]).reshape(n * length, d)
    left, singular, _ = np.linalg.svd(scaled_Kd, full_matrices=False)
    scores_NPK = (left * singular).reshape(n, length, -1)
    products_NNK = np.einsum("npk,mpk->nmk", scores_NPK, scores_NPK)
    signs_BNK = generator.choice((-1.0, 1.0), (draws, n, scores_NPK.shape[2]))
    products_BNN = np.einsum("bnk,bmk,nmk->bnm", signs_BNK, signs_BNK, products_NNK, optimize=True)
    return true2_N[:, None] + true2_N - 2 * products_BNN


def uncentred(norms2_N: np.ndarray) -> np.ndarray:
    """[N] float64: squared norms before the mean of N independent points was taken off, from those after (unbiased)."""
    n = len(norms2_N)
    mean = norms2_N.sum() / (n - 1)
    return np.clip((norms2_N - mean / n) / (1 - 2 / n), 0, None)
