"""Do N solutions count as mutually orthogonal? What they and their mixtures score, and how far apart they lie.

Shapes: N (or V) runs of a group, M mixtures, G groups of one N, E test examples, B bootstrap draws, P prompt tokens, d
width.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from promptgeo.analysis.geometry.lowest_mixture import lowest_above
from promptgeo.analysis.geometry.mixtures import dirichlet, mix
from promptgeo.analysis.geometry.run_pairs import over_runs
from promptgeo.analysis.geometry.subspaces import unit
from promptgeo.analysis.geometry.verdict import ROUNDING
from promptgeo.analysis.groups import TaskRuns, pushed_apart
from promptgeo.analysis.resampling import draw_counts
from promptgeo.analysis.result import Outcome
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
    p0_cosine: float | None = None
    """Likewise of their P0s; None where a run has none."""

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
    initial_NPd = runs.initial()
    p0_cosine = None if initial_NPd is None else cosines_about_barycentre(initial_NPd)[0]
    return Group(weight, init, correct[:size], correct[size:-1], correct[-1], cosine, interval, p0_cosine)


def cosines_about_barycentre(vertices: np.ndarray) -> tuple[float, tuple[float, float]]:
    """(mean over pairs of |cosine| of P_i minus their barycentre, its 95 % interval, by leaving out each run).

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
    return float(cosines_NN[pairs_NN].mean()), over_runs(cosines_NN, pairs_NN, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Criterion:
    """What a group has to reach to count."""

    share: float
    apart: float
    reference_E: np.ndarray
    """[E] float64: the share of the unregularised runs that solve each example."""

    @property
    def reference(self) -> float:
        """Mean accuracy of the unregularised runs."""
        return float(self.reference_E.mean())

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
        drawn = {kind: (counts_BG * np.stack([x[kind] for x in each], axis=1)).sum(1) for kind in LABELS}
        # The worst of noisy prompts is worse still in draws of examples: how far these lie apart counts, not where.
        worst = np.mean([group.accuracy["worst"] for group in groups])
        return cls(groups, drawn | {"worst": drawn["worst"] - drawn["worst"].mean() + worst})

    @property
    def size(self) -> int:
        return self.groups[0].size

    @property
    def weight(self) -> float:
        return self.groups[0].weight

    @property
    def accuracy(self) -> dict[str, float]:
        return {kind: float(np.mean([group.accuracy[kind] for group in self.groups])) for kind in LABELS}

    def margins(self, criterion: Criterion, drawn_BE: np.ndarray) -> tuple[float, float, float]:
        """How far the lowest decisive accuracy of any group lies above the threshold, with its 95 % interval.

        Each prompt for itself: the worst one is not chosen by its noisy accuracy (lowest_mixture.py).
        """
        rows_RE = np.concatenate(
            [
                np.concatenate([group.vertices_VE, group.mixtures_ME.mean(0)[None], group.barycentre_E[None]])
                for group in self.groups
            ]
        )
        return lowest_above(rows_RE, criterion.share * criterion.reference_E, drawn_BE)

    def outcome(self, criterion: Criterion, interval: tuple[float, float]) -> Outcome:
        """Whether N counts: all of it, by the margin's interval and by how far apart the prompts lie."""
        if not all(criterion.directions(group) for group in self.groups) or interval[1] < 0:
            return Outcome.fails
        return Outcome.holds if interval[0] > 0 else Outcome.undecidable

    def lacking(self, criterion: Criterion) -> list[str]:
        """What keeps any of them from counting."""
        return list(dict.fromkeys(what for group in self.groups for what in criterion.lacking(group)))
