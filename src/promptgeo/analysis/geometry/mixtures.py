"""Points of a hull and its edges, points to compare them with, and what a loss does there. Nothing here knows a model.

Shapes: V vertices (trained prompts), M mixtures, T points of an edge, P prompt tokens, d width; a point is [D] or [P,
d].
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def dirichlet(
    vertices: int, alphas: Sequence[float], n: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(weights [n, V] float64 that sum to 1, the alpha of each [n]): n draws, split evenly over Dirichlet(alphas)."""
    alpha_M = np.sort(np.resize(np.asarray(alphas, dtype=np.float64), n))
    gamma_MV = generator.standard_gamma(np.repeat(alpha_M[:, None], vertices, 1))
    gamma_MV = np.maximum(gamma_MV, 1e-300)  # at a tiny alpha all could underflow to 0, which sums to 0
    return gamma_MV / gamma_MV.sum(1, keepdims=True), alpha_M


def triangle(resolution: int) -> np.ndarray:
    """[(R + 1)(R + 2) / 2, 3] float64: the weights of three vertices on a triangular grid, corners included."""
    steps = range(resolution + 1)
    return np.array([(i, j, resolution - i - j) for i in steps for j in steps if i + j <= resolution]) / resolution


def mix(weights_MV: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """[M, ...] float64: sum_i w_i P_i of vertices [V, ...]."""
    return np.tensordot(weights_MV, vertices.astype(np.float64), 1)


def lerp(start: np.ndarray, end: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[T, ...] float64: (1 - t) start + t end; outside [0, 1] it goes on beyond the ends."""
    return mix(np.stack([1 - t_T, t_T], axis=1), np.stack([start, end]))


def slerp(start: np.ndarray, end: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[T, ..., d] float64: each token's direction turns evenly from start's to end's (Shoemake 1985).

    Norms are interpolated linearly. Directions that are the same, opposite or undefined (a zero token) have no one arc:
    there the points are lerp's.
    """
    start, end = start.astype(np.float64), end.astype(np.float64)
    norms = [np.linalg.norm(x, axis=-1, keepdims=True) for x in (start, end)]
    one, other = (x / np.where(norm > 0, norm, 1) for x, norm in zip((start, end), norms, strict=True))
    angle = np.arccos(np.clip((one * other).sum(-1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    t = t_T.reshape(-1, *[1] * start.ndim)
    # Below 1e-6 the arc is a straight line, or half a turn in no direction in particular; dividing by it gives noise.
    defined = (sine > 1e-6) & (norms[0] > 0) & (norms[1] > 0)
    direction = (np.sin((1 - t) * angle) * one + np.sin(t * angle) * other) / np.where(defined, sine, 1)
    return np.where(defined, direction * ((1 - t) * norms[0] + t * norms[1]), (1 - t) * start + t * end)


def nearest(vertices: np.ndarray, point: np.ndarray) -> int:
    """The number of the vertex at the least Euclidean distance."""
    return int(((vertices.astype(np.float64) - point) ** 2).reshape(len(vertices), -1).sum(1).argmin())


def rescaled(vertex: np.ndarray, point: np.ndarray) -> np.ndarray:
    """float64: each token of the vertex, as long as the point's."""
    long = np.linalg.norm(vertex.astype(np.float64), axis=-1, keepdims=True)
    return vertex * (np.linalg.norm(point, axis=-1, keepdims=True) / np.where(long > 0, long, 1))


def displaced(vertex: np.ndarray, point: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """float64: the vertex moved in a random direction, each token as far as the point's token lies from it."""
    noise = generator.standard_normal(vertex.shape)
    distance = np.linalg.norm(point - vertex, axis=-1, keepdims=True)
    return vertex + noise * (distance / np.linalg.norm(noise, axis=-1, keepdims=True))


def some_pairs(vertices: int, most: int | None, generator: np.random.Generator) -> list[tuple[int, int]]:
    """At most so many pairs of different vertices (null: all), drawn without replacement, in order."""
    pairs = list(combinations(range(vertices), 2))
    if most is None or len(pairs) <= most:
        return pairs
    return [pairs[i] for i in np.sort(generator.permutation(len(pairs))[:most])]


def violation(losses_M: np.ndarray, vertex_losses_V: np.ndarray) -> np.ndarray:
    """[..., M]: V(w) = L(sum w_i P_i) - max_i L(P_i).

    At most 0 for every w where L is quasi-convex on the hull: where all its sublevel sets are convex.
    """
    return losses_M - vertex_losses_V.max(-1, keepdims=True)


def barrier(losses_T: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[...]: max over t in [0, 1] of L(t) - ((1 - t) L(0) + t L(1)) (Frankle et al. 2020).

    Never below 0: both ends count. losses_T: [..., T] at t_T, which rises and holds 0 and 1; what lies outside [0, 1]
    is extrapolation and does not count.
    """
    start, end = (int(np.flatnonzero(np.isclose(t_T, at))[0]) for at in (0, 1))
    t, inside = t_T[start : end + 1], losses_T[..., start : end + 1]
    above = inside - ((1 - t) * inside[..., :1] + t * inside[..., -1:])
    return np.maximum(above.max(-1), 0.0)
