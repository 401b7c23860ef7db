"""The arithmetic of convexity: mixtures, edges, violations, barriers, the verdict. Nothing here knows a model.

Shapes: V vertices (trained prompts), M mixtures, T points of an edge, P prompt tokens, d width; a point is [D] or [P, d].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

Loss = Callable[[np.ndarray], np.ndarray]
"""Points [N, ...] -> their losses [N]."""


def dirichlet(vertices: int, alphas: Sequence[float], n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(weights [n, V] float64, the alpha of each [n]): random weights that sum to 1, as many of each Dirichlet(alpha) as of any other, give or take one."""
    alpha_M = np.sort(np.resize(np.asarray(alphas, dtype=np.float64), n))
    gamma_MV = np.maximum(generator.standard_gamma(np.repeat(alpha_M[:, None], vertices, 1)), 1e-300)  # all could be 0 at a tiny alpha
    return gamma_MV / gamma_MV.sum(1, keepdims=True), alpha_M


def triangle(resolution: int) -> np.ndarray:
    """[(R + 1)(R + 2) / 2, 3] float64: the weights of three vertices on a triangular grid, corners included."""
    return np.array([(i, j, resolution - i - j) for i in range(resolution + 1) for j in range(resolution + 1 - i)]) / resolution


def mix(weights_MV: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """[M, ...] float64: sum_i w_i P_i of vertices [V, ...]."""
    return np.tensordot(weights_MV, vertices.astype(np.float64), 1)


def lerp(start: np.ndarray, end: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[T, ...] float64: (1 - t) start + t end; outside [0, 1] it goes on beyond the ends."""
    return mix(np.stack([1 - t_T, t_T], axis=1), np.stack([start, end]))


def slerp(start: np.ndarray, end: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[T, ..., d] float64: token by token, the direction turns evenly from start's to end's (Shoemake 1985) and the norm is interpolated.

    Directions that are the same, opposite or undefined (a zero token) have no one arc: there the points are lerp's.
    """
    start, end = start.astype(np.float64), end.astype(np.float64)
    norms = [np.linalg.norm(x, axis=-1, keepdims=True) for x in (start, end)]
    one, other = (x / np.where(norm > 0, norm, 1) for x, norm in zip((start, end), norms, strict=True))
    angle = np.arccos(np.clip((one * other).sum(-1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    t = t_T.reshape(-1, *[1] * start.ndim)
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
    """[..., M]: V(w) = L(sum w_i P_i) - max_i L(P_i). At most 0 for every w where L is quasi-convex on the hull: all its sublevel sets are convex."""
    return losses_M - vertex_losses_V.max(-1, keepdims=True)


def barrier(losses_T: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[...]: max over t in [0, 1] of L(t) - ((1 - t) L(0) + t L(1)) (Frankle et al. 2020). Never below 0: both ends count.

    losses_T: [..., T] at t_T, which rises and holds 0 and 1; what lies outside [0, 1] is extrapolation and does not count.
    """
    start, end = (int(np.flatnonzero(np.isclose(t_T, at))[0]) for at in (0, 1))
    t, inside = t_T[start : end + 1], losses_T[..., start : end + 1]
    above = inside - ((1 - t) * inside[..., :1] + t * inside[..., -1:])
    return np.maximum(above.max(-1), 0.0)


@dataclass(frozen=True)
class Hull:
    """What a loss does over the hull of some vertices."""

    vertex_losses_V: np.ndarray
    violations_M: np.ndarray
    """V(w) of each mixture."""
    barriers: dict[tuple[int, int], float]
    """Of each pair of vertices."""


def probe(loss: Loss, vertices: np.ndarray, weights_MV: np.ndarray, pairs: Sequence[tuple[int, int]], steps: int = 11) -> Hull:
    """Violations and barriers of any loss over the hull of vertices [V, ...]; edges at `steps` even points, both ends included."""
    t_T = np.linspace(0, 1, steps)
    vertex_losses_V = loss(vertices)
    violations_M = violation(loss(mix(weights_MV, vertices)), vertex_losses_V)
    return Hull(vertex_losses_V, violations_M, {(a, b): float(barrier(loss(lerp(vertices[a], vertices[b], t_T)), t_T)) for a, b in pairs})


# The verdict.


@dataclass(frozen=True)
class Judged:
    """One task's mixtures against its worst vertex."""

    within: int
    """Mixtures whose accuracy is at least the worst vertex's less the margin."""
    of: int
    worst: float
    """Accuracy of the worst vertex."""
    lowest: float
    """Of the worst mixture."""

    @property
    def supports(self) -> bool:
        """Convexity is a statement on all mixtures: one outside contradicts it."""
        return self.within == self.of


@dataclass(frozen=True)
class Verdict:
    """Whether the mixtures of every task do as well as its worst vertex, within a margin, and what becomes of it without the margin."""

    margin: float
    tasks: dict[str, Judged]
    strictly: dict[str, Judged]
    """With a margin of 0."""

    @property
    def supporting(self) -> list[str]:
        return [task for task, judged in self.tasks.items() if judged.supports]

    @property
    def contradicting(self) -> list[str]:
        return [task for task, judged in self.tasks.items() if not judged.supports]

    @property
    def only_by_margin(self) -> list[str]:
        """The tasks that support the claim with the margin and contradict it without."""
        return [task for task in self.supporting if not self.strictly[task].supports]

    @property
    def holds(self) -> bool:
        return not self.contradicting

    @property
    def sentence(self) -> str:
        points = f"{100 * self.margin:g}-point"
        parts = [f"{_listed(self.supporting)} support{'s' if len(self.supporting) == 1 else ''} the claim that solutions are convex"] if self.supporting else []
        if self.contradicting:
            parts.append(f"{_listed(self.contradicting)} contradict{'s' if len(self.contradicting) == 1 else ''} {'it' if parts else 'the claim that solutions are convex'}")
        counts = ", ".join(f"{task} {j.within} of {j.of}, lowest {j.lowest:.1%} against {j.worst:.1%}" for task, j in self.tasks.items())
        text = f"Within a stated {points} margin of the worst vertex, {' while '.join(parts)} (mixtures within it: {counts})"
        if self.margin == 0:
            return text.replace(f"Within a stated {points} margin of", "With no margin below") + "."
        if self.only_by_margin:
            return text + f"; without the margin {_listed(self.only_by_margin)} fail{'s' if len(self.only_by_margin) == 1 else ''}{' too' if self.contradicting else ''}."
        return text + "; without the margin the same tasks do."


def verdict(vertices: Mapping[str, Sequence[float]], mixtures: Mapping[str, Sequence[float]], margin: float) -> Verdict:
    """Accuracies (fractions) of the vertices and mixtures of each task, against a margin below the task's worst vertex (a fraction: .05 is 5 points).

    Raises ValueError for a task without vertices or mixtures, or a margin below 0.
    """
    if margin < 0 or set(vertices) != set(mixtures) or not all(len(vertices[task]) and len(mixtures[task]) for task in vertices):
        raise ValueError("a verdict needs a margin of at least 0, and vertices and mixtures of every task")
    tasks, strictly = ({task: _judged(vertices[task], mixtures[task], least) for task in vertices} for least in (margin, 0.0))
    return Verdict(margin, tasks, strictly)


def _judged(vertices: Sequence[float], mixtures: Sequence[float], margin: float) -> Judged:
    worst = min(vertices)
    return Judged(sum(accuracy >= worst - margin - 1e-9 for accuracy in mixtures), len(mixtures), float(worst), float(min(mixtures)))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
