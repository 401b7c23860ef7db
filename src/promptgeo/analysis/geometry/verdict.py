"""Does each task's every mixture score as much as its worst vertex? Counted as study 1 counts, without a test.

The minimum of many noisy accuracies lies below the true one: hull_claim.py decides the claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROUNDING = 1e-9
"""Accuracies that differ by less are equal: .8 - .05 is not .75 in binary."""


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
    """Whether the mixtures of every task do as well as its worst vertex, with a margin and without."""

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
        """The tasks that support and contradict the claim, with their counts, and those that only the margin saves."""
        claim, parts = "the claim that solutions are convex", []
        if self.supporting:
            parts.append(f"{listed(self.supporting)} support{_s(self.supporting)} {claim}")
        if self.contradicting:
            parts.append(f"{listed(self.contradicting)} contradict{_s(self.contradicting)} {'it' if parts else claim}")
        counts = ", ".join(
            f"{task} {each.within} of {each.of}, lowest {each.lowest:.1%} against {each.worst:.1%}"
            for task, each in self.tasks.items()
        )
        stated = f"{' while '.join(parts)} (mixtures within it: {counts})"
        if self.margin == 0:
            return f"With no margin below the worst vertex, {stated}."
        text = f"Within a stated {100 * self.margin:g}-point margin of the worst vertex, {stated}"
        if not self.only_by_margin:
            return f"{text}; without the margin the same tasks do."
        too = " too" if self.contradicting else ""
        return f"{text}; without the margin {listed(self.only_by_margin)} fail{_s(self.only_by_margin)}{too}."


def verdict(vertices: Mapping[str, Sequence[float]], mixtures: Mapping[str, Sequence[float]], margin: float) -> Verdict:
    """The verdict on accuracies (fractions) of the vertices and of the mixtures of each task.

    margin: how far below a task's worst vertex a mixture may lie (a fraction: .05 is 5 points).
    Raises ValueError for a task without vertices or mixtures, or a margin below 0.
    """
    complete = set(vertices) == set(mixtures) and all(len(vertices[task]) and len(mixtures[task]) for task in vertices)
    if margin < 0 or not complete:
        raise ValueError("a verdict needs a margin of at least 0, and vertices and mixtures of every task")
    tasks, strictly = (
        {task: _judged(vertices[task], mixtures[task], allowed) for task in vertices} for allowed in (margin, 0.0)
    )
    return Verdict(margin, tasks, strictly)


def _judged(vertices: Sequence[float], mixtures: Sequence[float], margin: float) -> Judged:
    worst = min(vertices)
    least = worst - margin - ROUNDING
    return Judged(sum(accuracy >= least for accuracy in mixtures), len(mixtures), float(worst), float(min(mixtures)))


def _s(names: Sequence[str]) -> str:
    """The ending of their verb."""
    return "s" if len(names) == 1 else ""


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
