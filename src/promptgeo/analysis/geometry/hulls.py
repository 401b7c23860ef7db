"""What is scored of a hull of trained prompts? Its vertices, mixtures of them, edges between them, and controls.

Shapes: N runs of the table, V vertices (the trained prompts of one task and prompt length), S prompts of a kind, M
mixtures, C mixtures that controls are made for, T points of an edge beside its ends, E test examples, P prompt tokens,
d width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from promptgeo.analysis.geometry.mixtures import (
    dirichlet,
    displaced,
    lerp,
    mix,
    nearest,
    rescaled,
    slerp,
    some_pairs,
    triangle,
)
from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.model.interface import LM

Measure = Literal["accuracy", "loss"]
CONTROLS = {
    "rescaled": "the nearest vertex at the mixture's norms",
    "displaced": "the nearest vertex moved as far in a random direction",
    "untrained": "the same mixtures of the untrained P0s",
    "across_tasks": "mixtures of different tasks' vertices",
}
"""Kinds of prompts that mixtures are compared with, in words."""


PUBLISHED_MIXTURES, PUBLISHED_HULLS = 2, 25
"""Study 1 scored two mixtures a task; so many hulls of as few vertices as it had are drawn."""


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class Design:
    """How many prompts of each kind are made."""

    mixtures: int
    alphas: Sequence[float]
    """Of the Dirichlet distributions of the mixtures' weights."""
    pairs: int | None
    """Edges; None: all."""
    steps: int
    """Points of an edge on [0, 1], ends included."""
    controls: int
    """Mixtures that each control is made for."""
    resolution: int
    """Of the triangular grid over the first three vertices; 0: none."""
    few: Mapping[str, int]
    """Vertices of a hull as published, by task; others: two."""


@dataclass(eq=False)
class Kind:
    """Prompts of one kind: what they are made of and, once scored, what they score."""

    prompts_SPd: np.ndarray
    """float32."""
    weights_SN: np.ndarray
    """float64: how much of each run is in each prompt."""
    correct_SE: np.ndarray = field(default_factory=_none)
    """bool."""
    losses_SE: np.ndarray = field(default_factory=_none)
    """float64: summed over an example's label tokens, in nats."""

    @property
    def accuracy(self) -> np.ndarray:
        """[S] float64."""
        return self.correct_SE.mean(1)

    def values(self, measure: Measure) -> np.ndarray:
        """[S, E]: correct, or the summed loss."""
        return self.losses_SE if measure == "loss" else self.correct_SE

    def where(self, chosen_S: np.ndarray) -> "Kind":
        return Kind(*(x[chosen_S] for x in (self.prompts_SPd, self.weights_SN, self.correct_SE, self.losses_SE)))

    def __len__(self) -> int:
        return len(self.prompts_SPd)


@dataclass(eq=False)
class Hull:
    """One task's trained prompts of one length, and all that is scored of them."""

    name: str
    evaluation_set: EvaluationSet
    runs: int
    """Of the whole table."""
    members: list[int]
    """Numbers of the vertices' runs in it."""
    vertices_VPd: np.ndarray
    p0_VPd: np.ndarray | None
    kinds: dict[str, Kind] = field(default_factory=dict)
    edges: list[tuple[int, int]] = field(default_factory=list)
    """Pairs of vertices."""
    t_T: np.ndarray = field(default_factory=_none)
    """Of the points of an edge beside its ends, extrapolation included."""
    alpha_M: np.ndarray = field(default_factory=_none)
    controlled_C: np.ndarray = field(default_factory=_none)
    """Numbers of the mixtures that controls are made for."""
    tokens_E: np.ndarray = field(default_factory=_none)
    """Label tokens of each example."""
    unprompted_E: np.ndarray = field(default_factory=_none)
    """What the model solves without a prompt."""

    @property
    def inside_T(self) -> np.ndarray:
        """Which points of an edge lie between its ends."""
        return (self.t_T > 0) & (self.t_T < 1)

    def losses(self, kind: str) -> np.ndarray:
        """[S] float64: mean cross-entropy of a label token, in nats."""
        return self.kinds[kind].losses_SE.sum(1) / self.tokens_E.sum()

    def kind(self, prompts_SPd: np.ndarray | Sequence[np.ndarray], weights_SV: np.ndarray) -> Kind:
        """Prompts that are made of so much of each vertex."""
        weights_SN = np.zeros((len(weights_SV), self.runs))
        weights_SN[:, self.members] = weights_SV
        return Kind(np.asarray(prompts_SPd, dtype=np.float32), weights_SN)

    def mixed(self, weights_SV: np.ndarray) -> Kind:
        """Mixtures of the vertices."""
        return self.kind(mix(weights_SV, self.vertices_VPd), weights_SV)


# Making the prompts.


def make_prompts(hull: Hull, hulls: Sequence[Hull], design: Design, generator: np.random.Generator) -> None:
    """Gives the hull its kinds of prompts, to be scored. hulls: all there are, for mixtures across tasks."""
    n = len(hull.members)
    weights_MV, hull.alpha_M = dirichlet(n, design.alphas, design.mixtures, generator)
    hull.kinds = {
        "vertices": hull.mixed(np.eye(n)),
        "mixtures": hull.mixed(weights_MV),
        "barycentre": hull.mixed(np.full((1, n), 1 / n)),
    }
    hull.kinds["published"] = hull.mixed(few_vertices(n, design.few.get(hull.name.split(".")[0], 2), generator))
    if hull.p0_VPd is not None:
        hull.kinds["initial"] = hull.kind(hull.p0_VPd, np.eye(n))
    _make_edges(hull, design, generator)
    hull.controlled_C = controlled(design.mixtures, design.controls)
    _make_controls(hull, weights_MV[hull.controlled_C], generator)
    across = _across_tasks(hull, hulls, design.controls, generator)
    if across is not None:
        hull.kinds["across_tasks"] = across
    if n >= 3 and design.resolution:
        grid = triangle(design.resolution)
        hull.kinds["ternary"] = hull.mixed(np.concatenate([grid, np.zeros((len(grid), n - 3))], axis=1))


def few_vertices(vertices: int, few: int, generator: np.random.Generator) -> np.ndarray:
    """[PUBLISHED_HULLS * PUBLISHED_MIXTURES, V] float64: Dirichlet(1) weights on a few random vertices of each hull."""
    weights_SV = np.zeros((PUBLISHED_HULLS, PUBLISHED_MIXTURES, vertices))
    for weights_V in weights_SV:
        chosen = generator.permutation(vertices)[:few]
        weights_V[:, chosen] = dirichlet(len(chosen), (1.0,), PUBLISHED_MIXTURES, generator)[0]
    return weights_SV.reshape(-1, vertices)


def _make_edges(hull: Hull, design: Design, generator: np.random.Generator) -> None:
    """`line`: straight edges that go on half their length beyond both ends; `slerp`: arcs between the ends."""
    n = len(hull.members)
    hull.edges = some_pairs(n, design.pairs, generator)
    step = 1 / (design.steps - 1)
    beyond = np.arange(1, int(0.5 / step + 1e-9) + 1) * step  # 1e-9: .5 / .1 may be just below 5
    hull.t_T = np.concatenate([-beyond[::-1], np.linspace(0, 1, design.steps)[1:-1], 1 + beyond])
    inside = hull.t_T[hull.inside_T]
    unit = np.eye(n)
    hull.kinds["line"] = hull.mixed(np.concatenate([lerp(unit[a], unit[b], hull.t_T) for a, b in hull.edges]))
    arcs = [slerp(hull.vertices_VPd[a], hull.vertices_VPd[b], inside) for a, b in hull.edges]
    hull.kinds["slerp"] = hull.kind(
        np.concatenate(arcs), np.concatenate([lerp(unit[a], unit[b], inside) for a, b in hull.edges])
    )


def controlled(mixtures: int, controls: int) -> np.ndarray:
    """[C] int: the mixtures that controls are made for, spread evenly over all and hence over the alphas."""
    return np.unique(np.linspace(0, mixtures - 1, min(controls, mixtures)).astype(int))


def _make_controls(hull: Hull, weights_CV: np.ndarray, generator: np.random.Generator) -> None:
    vertices_VPd = hull.vertices_VPd
    mixed_CPd = hull.kinds["mixtures"].prompts_SPd[hull.controlled_C].astype(np.float64)
    near_C = [nearest(vertices_VPd, point_Pd) for point_Pd in mixed_CPd]
    pairs = [(vertices_VPd[v], point_Pd) for v, point_Pd in zip(near_C, mixed_CPd, strict=True)]
    weights = np.eye(len(hull.members))[near_C]
    hull.kinds["rescaled"] = hull.kind([rescaled(*pair) for pair in pairs], weights)
    hull.kinds["displaced"] = hull.kind([displaced(*pair, generator) for pair in pairs], weights)
    if hull.p0_VPd is not None:
        hull.kinds["untrained"] = hull.kind(mix(weights_CV, hull.p0_VPd), weights_CV)


def _across_tasks(hull: Hull, hulls: Sequence[Hull], n: int, generator: np.random.Generator) -> Kind | None:
    """n Dirichlet(1) mixtures of a vertex of every task; None where no other task has this prompt length."""
    length, task = hull.vertices_VPd.shape[1], hull.evaluation_set.task.name
    mixed = [
        other
        for other in hulls
        if other is hull or (other.evaluation_set.task.name != task and other.vertices_VPd.shape[1] == length)
    ]
    if len(mixed) < 2:
        return None
    weights_SH, _ = dirichlet(len(mixed), (1.0,), n, generator)
    weights_SN, prompts_SPd = np.zeros((n, hull.runs)), np.zeros((n, *hull.vertices_VPd.shape[1:]))
    for h, other in enumerate(mixed):
        picked_S = generator.integers(0, len(other.members), n)
        weights_SN[np.arange(n), np.array(other.members)[picked_S]] = weights_SH[:, h]
        prompts_SPd += weights_SH[:, h, None, None] * other.vertices_VPd[picked_S]
    return Kind(prompts_SPd.astype(np.float32), weights_SN)


# Scoring them.


def score(lm: LM, hull: Hull) -> None:
    """Scores all prompts of a hull in one evaluation, and the model without a prompt."""
    prompts_SPd = np.concatenate([kind.prompts_SPd for kind in hull.kinds.values()])
    scored = hull.evaluation_set.evaluate(lm, prompts_SPd)
    hull.tokens_E = scored.tokens
    hull.unprompted_E = hull.evaluation_set.evaluate(lm, np.zeros((1, 0, lm.width), np.float32)).correct[0]
    start = 0
    for kind in hull.kinds.values():
        here = slice(start, start + len(kind))
        kind.correct_SE, kind.losses_SE = scored.correct[here], scored.losses[here]
        start += len(kind)
    # Only now is the line cut: each edge's points lay side by side while they were scored.
    line = hull.kinds.pop("line")
    inside_S = np.tile(hull.inside_T, len(hull.edges))
    hull.kinds["edges"], hull.kinds["extrapolation"] = line.where(inside_S), line.where(~inside_S)
