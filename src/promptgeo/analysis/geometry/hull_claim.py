"""Do the solutions of a task form a convex set, do they not, or can these runs not say?

Decided where the vertices solve the task (each beats no prompt and its own P0). Convex: every mixture lies above the
worst vertex less a margin, and the nearest vertex moved as far in a random direction solves less: else any prompt near
a vertex would do. Not convex: some mixture lies below. Of these trainings; the intervals are over test examples.

Shapes: E test examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.deciding import LEVEL, Premise, decided
from promptgeo.analysis.geometry.hulls import Hull
from promptgeo.analysis.geometry.lowest_mixture import Lowest, lowest_mixture
from promptgeo.analysis.geometry.verdict import listed
from promptgeo.analysis.resampling import holm, mcnemar_p, sign_flip_p
from promptgeo.analysis.result import Claim, Finding, Outcome
from promptgeo.analysis.scoring import points

CLAIM = "convex"
MOST_EXAMPLES = 100_000
"""More than so many are not named as what would decide."""


@dataclass(frozen=True)
class Judged:
    """What the runs of one task say."""

    lowest: Lowest
    claim: Claim
    n: int
    """Test examples."""
    testable: bool
    """Whether the vertices solve the task: else nothing is said of their mixtures."""


def judge(hull: Hull, margin: float, draws: int, seed: int) -> Judged:
    """What the scored prompts of a hull say. margin: how far below the worst vertex a mixture may lie, a fraction."""
    vertices, mixtures = hull.kinds["vertices"], hull.kinds["mixtures"]
    lowest = lowest_mixture(mixtures.correct_SE, vertices.correct_SE, margin, draws, seed)
    solved, (moved, control_p) = _solved(hull), _control(hull, seed)
    words = (
        f"{hull.name}: the lowest of {len(mixtures)} mixtures of {len(vertices)} trained prompts lies "
        f"{points(lowest.value, lowest.low, lowest.high)} from the worst of them, the interval for all mixtures at "
        f"once (n = {hull.evaluation_set.n} test examples)."
    )
    holds = lowest.low > -margin
    claim = decided(
        CLAIM,
        (lowest.low, lowest.high),
        words,
        threshold=-margin,
        p=max(lowest.holds_p, control_p),
        premises=[solved, moved] if holds else [solved],
        needs=_needs(lowest, margin, hull.evaluation_set.n),
    )
    return Judged(lowest, claim, hull.evaluation_set.n, solved.met)


def _solved(hull: Hull) -> Premise:
    """Every vertex solves more than no prompt and than its own P0: paired over examples, Holm's over vertices."""
    vertices = hull.kinds["vertices"]
    initial_VE = hull.kinds["initial"].correct_SE if "initial" in hull.kinds else None
    p_values = []
    for v, correct_E in enumerate(vertices.correct_SE.astype(bool)):
        p_values.append(mcnemar_p(correct_E, hull.unprompted_E.astype(bool)))
        if initial_VE is not None:
            p_values.append(mcnemar_p(correct_E, initial_VE[v].astype(bool)))
    unsolved = max(holm(p_values)) >= LEVEL
    p0 = "" if initial_VE is None else f", their P0s {hull.kinds['initial'].accuracy.mean():.1%}"
    words = (
        f"each trained prompt solves the task ({vertices.accuracy.min():.1%} to {vertices.accuracy.max():.1%}; without "
        f"a prompt {hull.unprompted_E.mean():.1%}{p0})"
    )
    return Premise(not unsolved, words, "trained prompts that each solve more than no prompt and than their P0")


def _control(hull: Hull, seed: int) -> tuple[Premise, float]:
    """(mixtures solve more than vertices moved as far at random, its p by sign flips of examples)."""
    mixed_E = hull.kinds["mixtures"].correct_SE[hull.controlled_C].mean(0)
    moved_E = hull.kinds["displaced"].correct_SE.mean(0)
    p, above = sign_flip_p(mixed_E - moved_E, permutations=2000, seed=seed), mixed_E.mean() > moved_E.mean()
    words = (
        f"mixtures solve more than a vertex moved as far in a random direction ({mixed_E.mean():.1%} against "
        f"{moved_E.mean():.1%}, p = {p:.2g})"
    )
    return Premise(bool(p < LEVEL and above), words, "trained prompts so far apart that a random direction fails"), p


def _needs(lowest: Lowest, margin: float, n: int) -> str:
    """About so many examples would move the nearer bound beyond the margin, if the lowest mixture stayed as it is."""
    short = lowest.value - lowest.low if lowest.value > -margin else lowest.high - lowest.value
    away = abs(lowest.value + margin)
    examples = n * (short / away) ** 2 if away > 0 else np.inf
    if examples > MOST_EXAMPLES:
        return "more test examples"
    return f"about {max(round(examples, -2), n + 1):.0f} test examples"


# All tasks.


def over_tasks(judged: Mapping[str, Judged], margin: float) -> tuple[Finding, Claim]:
    """(what the tasks say, in one sentence; the claim).

    It does not hold where one task's mixtures fail, and holds where all tasks' hold; each adjusted (Holm 1979) for as
    many tasks as could say something.
    """
    tested = {task: each for task, each in judged.items() if each.testable}
    adjusted = holm([each.claim.p if each.claim.p is not None else 1.0 for each in tested.values()])
    failing = holm([each.lowest.fails_p for each in tested.values()])
    outcomes = {task: Outcome.undecidable for task in judged}
    for task, p, below in zip(tested, adjusted, failing, strict=True):
        outcome = tested[task].claim.outcome
        if (outcome is Outcome.holds and p < LEVEL) or (outcome is Outcome.fails and below < LEVEL):
            outcomes[task] = outcome
    against = Outcome.fails in outcomes.values()
    p = max(adjusted, default=1.0) if len(tested) == len(judged) else 1.0
    sentence = _sentence(outcomes, margin)
    name, worst = min((tested or judged).items(), key=lambda item: item[1].lowest.value)
    least, about = worst.lowest, f"lowest.{name}"
    finding = Finding(sentence, least.value, worst.n, "test examples", least.low, least.high)
    evidence = " ".join([sentence, *(each.claim.evidence for each in judged.values())])
    if against:
        return finding, Claim(CLAIM, Outcome.fails, evidence, p, quantity=about)
    open_tasks = [task for task, outcome in outcomes.items() if outcome is Outcome.undecidable]
    if not open_tasks:
        return finding, Claim(CLAIM, Outcome.holds, evidence, p, quantity=about)
    needs = "; ".join(f"{task}: {judged[task].claim.needs or 'a smaller p'}" for task in open_tasks)
    return finding, Claim(CLAIM, Outcome.undecidable, evidence, p, needs, about)


def _sentence(outcomes: Mapping[str, Outcome], margin: float) -> str:
    parts = []
    for outcome, words in (
        (Outcome.holds, "no mixture lies lower, and a random direction fails"),
        (Outcome.fails, "some mixture lies lower"),
        (Outcome.undecidable, "these runs cannot say"),
    ):
        tasks = [task for task, each in outcomes.items() if each is outcome]
        if tasks:
            parts.append(f"{words} in {len(tasks)} ({listed(tasks)})")
    count = len(outcomes)
    return (
        f"Mixtures against {100 * margin:g} points below the worst trained prompt, in {count} "
        f"task{'s' if count > 1 else ''}: {'; '.join(parts)}."
    )
