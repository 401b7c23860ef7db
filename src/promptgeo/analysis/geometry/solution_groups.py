"""Do N solutions count as mutually orthogonal? What they and their mixtures score, and how far apart they lie.

Shapes: N (or V) runs of a group, M mixtures, G groups of one N, E test examples, B bootstrap draws, P prompt tokens, d
width.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from promptgeo.analysis.geometry.mixtures import dirichlet, mix
from promptgeo.analysis.geometry.subspaces import unit
from promptgeo.analysis.geometry.verdict import ROUNDING
from promptgeo.analysis.groups import TaskRuns, pushed_apart
from promptgeo.analysis.resampling import draw_counts, token_pair_interval
from promptgeo.model.interface import LM

LABELS = {
    "worst": "worst prompt",
    "vertices": "prompts, mean",
    "mixtures": "mixtures, mean",
    "barycentre": "barycentre",
}
"""Kinds of accuracies of a group, in words."""
DECISIVE = ("worst", "mixtures", "barycentre")
"""Those that have to reach the threshold."""


@dataclass(eq=False)
class Group:
    """N runs that were pushed apart, or N of the control, and what they score."""

    weight: float
    """Of the regulariser; 0: the control."""
    init: str
    vertices_VE: np.ndarray
    """[N, E] float64: 1 where a prompt solves an example."""
    mixtures_ME: np.ndarray
    barycentre_E: np.ndarray
    cosine: float
    """Mean |cosine| about the barycentre."""
    cosine_interval: tuple[float, float]

    @property
    def size(self) -> int:
        return len(self.vertices_VE)

    @property
    def simplex(self) -> float:
        """|cosine| about the barycentre of the corners of a regular simplex."""
        return 1 / (self.size - 1)

    def accuracies(self, drawn_BE: np.ndarray) -> dict[str, np.ndarray]:
        """[B] float64 of each kind, in each draw of test examples."""
        weights_BE = drawn_BE / drawn_BE.sum(1, keepdims=True)
        vertices_BV = weights_BE @ self.vertices_VE.T
        return {
            "worst": vertices_BV.min(1),
            "vertices": vertices_BV.mean(1),
            "mixtures": weights_BE @ self.mixtures_ME.mean(0),
            "barycentre": weights_BE @ self.barycentre_E,
        }

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Of each kind, on all examples."""
        everything_1E = np.ones((1, self.vertices_VE.shape[1]))
        return {kind: float(x[0]) for kind, x in self.accuracies(everything_1E).items()}


def score_group(lm: LM, runs: TaskRuns, mixtures: int, generator: np.random.Generator) -> Group:
    vertices_NPd, size = runs.prompts(), len(runs.members)
    weights_MN, _ = dirichlet(size, (1.0,), mixtures, generator)
    points = np.concatenate([vertices_NPd, mix(weights_MN, vertices_NPd), vertices_NPd.mean(0, keepdims=True)])
    correct = runs.evaluation_set.evaluate(lm, points.astype(np.float32)).correct.astype(np.float64)
    init, weight = str(runs.runs[0].info["config"]["init"]["name"]), pushed_apart(runs.runs[0])
    cosine, interval = cosines_about_barycentre(vertices_NPd)
    return Group(weight, init, correct[:size], correct[size:-1], correct[-1], cosine, interval)


def cosines_about_barycentre(vertices: np.ndarray) -> tuple[float, tuple[float, float]]:
    """(mean over pairs of |cosine| of P_i minus their barycentre, its 95 % interval, runs drawn with replacement).

    vertices: [N, ...], N >= 2. A prompt that lies at the barycentre has no direction: its cosines count as 1, the
    farthest from orthogonal.
    """
    centred = vertices.astype(np.float64) - vertices.mean(0, dtype=np.float64)
    flat_ND = centred.reshape(len(vertices), -1)
    # What is left of a prompt at the barycentre is rounding, far below 1e-9 of the prompts' length.
    somewhere_N = np.linalg.norm(flat_ND, axis=1) > 1e-9 * np.linalg.norm(vertices)
    unit_ND = np.zeros_like(flat_ND)
    unit_ND[somewhere_N] = unit(flat_ND[somewhere_N])
    cosines_NN = np.where(np.outer(somewhere_N, somewhere_N), np.abs(unit_ND @ unit_ND.T), 1.0)
    pairs_NN = ~np.eye(len(vertices), dtype=bool)
    interval = token_pair_interval(cosines_NN, np.arange(len(vertices)), pairs_NN)
    return float(cosines_NN[pairs_NN].mean()), interval


@dataclass(frozen=True, eq=False)
class Criterion:
    """What a group has to reach to count."""

    share: float
    apart: float
    reference: float
    """Mean accuracy of the unregularised runs."""
    reference_B: np.ndarray
    """In each draw of test examples."""

    @property
    def threshold(self) -> float:
        return self.share * self.reference

    def directions(self, group: Group) -> bool:
        """Whether they are far enough apart."""
        return group.cosine <= group.simplex + self.apart

    def lacking(self, group: Group) -> list[str]:
        """What keeps a group from counting."""
        short = [LABELS[kind] for kind in DECISIVE if group.accuracy[kind] < self.threshold - ROUNDING]
        return short + ([] if self.directions(group) else ["directions"])


@dataclass(frozen=True, eq=False)
class AlikeGroups:
    """All groups of one N and weight: means over them."""

    groups: list[Group]
    drawn: dict[str, np.ndarray]
    """[B] float64 of each kind of accuracy, in each draw of groups and test examples."""

    @classmethod
    def of(cls, groups: list[Group], drawn_BE: np.ndarray, generator: np.random.Generator) -> "AlikeGroups":
        counts_BG = draw_counts(generator, len(groups), len(drawn_BE)) / len(groups)
        each = [group.accuracies(drawn_BE) for group in groups]
        return cls(groups, {kind: (counts_BG * np.stack([x[kind] for x in each], axis=1)).sum(1) for kind in LABELS})

    @property
    def size(self) -> int:
        return self.groups[0].size

    @property
    def weight(self) -> float:
        return self.groups[0].weight

    @property
    def accuracy(self) -> dict[str, float]:
        return {kind: float(np.mean([group.accuracy[kind] for group in self.groups])) for kind in LABELS}

    def margins(self, criterion: Criterion) -> tuple[float, np.ndarray]:
        """How far the lowest decisive accuracy lies above the threshold: (value, [B] in each draw)."""
        value = min(self.accuracy[kind] for kind in DECISIVE) - criterion.threshold
        lowest_B = np.minimum.reduce([self.drawn[kind] for kind in DECISIVE])
        return value, lowest_B - criterion.share * criterion.reference_B

    def lacking(self, criterion: Criterion) -> list[str]:
        """What keeps any of them from counting."""
        return list(dict.fromkeys(what for group in self.groups for what in criterion.lacking(group)))

    def counts(self, criterion: Criterion) -> np.ndarray:
        """[1 + B] bool: whether N counts, as it is and in each draw."""
        directions = all(criterion.directions(group) for group in self.groups)
        _, margin_B = self.margins(criterion)
        return np.concatenate([[not self.lacking(criterion)], (margin_B >= -ROUNDING) & directions])
