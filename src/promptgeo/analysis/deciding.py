"""When does a claim hold, when does it not, and when can these runs not say? The one place that decides.

A claim is a statement on a quantity: it lies above a threshold (or below). It holds where the quantity's 95 % interval
lies beyond the threshold, does not hold where the interval lies on the other side of it, and is not decidable between.
A claim whose premises are not met is not decidable, whatever its numbers are.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from promptgeo.analysis.resampling import STILL, sign_flip_p, sign_flips_needed
from promptgeo.analysis.result import Claim, Outcome

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
"""Of every test."""


class Premise(NamedTuple):
    """What must be so for a claim to mean anything."""

    met: bool
    words: str
    """As a sentence without its full stop: "the trained prompts solve the task (92 % against 4 % without a prompt)"."""
    needs: str
    """What is needed where it is not met: "prompts that solve the task"."""


def decided(
    name: str,
    interval: tuple[float, float] | None,
    evidence: str,
    *,
    threshold: float = 0.0,
    margin: float = 0.0,
    below: bool = False,
    p: float | None = None,
    premises: Sequence[Premise] = (),
    needs: str = "more runs",
    quantity: str = "",
) -> Claim:
    """The claim that a quantity lies above a threshold, decided by its interval.

    Args:
        name: of the claim.
        interval: 95 %, of the quantity; None: these runs give none.
        evidence: one sentence with numbers.
        threshold: what the quantity must exceed.
        margin: exceeding it by less than this would not matter: an interval wholly below that fails too.
        below: the claim is that it lies below the threshold.
        p: of the test by which it holds; where it is LEVEL or more, the claim does not hold by it.
        premises: all of them must be met.
        needs: what would decide it, where the interval holds the threshold.
        quantity: the name of the number that it is about; see Claim.
    """
    failing = [premise for premise in premises if not premise.met]
    if failing:
        words = "; ".join(premise.words for premise in failing)
        needed = "; ".join(dict.fromkeys(premise.needs for premise in failing))
        return Claim(name, Outcome.undecidable, f"{evidence} Premise not met: {words}.", p, needed, quantity)
    low, high = interval if interval is not None else (-float("inf"), float("inf"))
    # Sums of the same numbers may differ in their last bits, which lie above nothing.
    above, under = low > threshold + STILL, high < threshold - STILL
    too_high, too_low = low > threshold - margin + STILL, high < threshold + margin - STILL
    holds, fails = (under, too_high) if below else (above, too_low)
    if holds and (p is None or p < LEVEL):
        return Claim(name, Outcome.holds, evidence, p, quantity=quantity)
    if fails:
        return Claim(name, Outcome.fails, evidence, p, quantity=quantity)
    return Claim(name, Outcome.undecidable, evidence, p, needs, quantity)


def for_all(claims: Sequence[Claim]) -> Claim:
    """One claim that is made of several tasks at once, each of which decides it for itself.

    Holds where it holds for all (an intersection: p is the largest), does not hold where it does not for one (whose
    interval must be adjusted for their number), else not decidable.
    """
    first, outcomes = claims[0], [claim.outcome for claim in claims]
    ps = [claim.p for claim in claims if claim.p is not None]
    p = max(ps) if len(ps) == len(claims) else None
    evidence = " ".join(claim.evidence for claim in claims)
    quantity = first.quantity if len(claims) == 1 else ""
    if Outcome.fails in outcomes:
        return Claim(first.name, Outcome.fails, evidence, p, quantity=quantity)
    if Outcome.undecidable in outcomes:
        needs = dict.fromkeys(claim.needs for claim in claims if claim.needs)
        return Claim(first.name, Outcome.undecidable, evidence, p, "; ".join(needs), quantity)
    return Claim(first.name, Outcome.holds, evidence, p, quantity=quantity)


def tested(
    name: str,
    holds_p: float,
    fails_p: float,
    evidence: str,
    *,
    level: float = LEVEL,
    premises: Sequence[Premise] = (),
    needs: str = "more runs",
    quantity: str = "",
) -> Claim:
    """A claim with a test by which it holds and one by which it does not, each p of which may be 1.

    For a claim of several parts: it holds by the largest p of them, and fails by the smallest, adjusted for how many
    there are. level: what holds_p must lie below, where the study asks for less than LEVEL. The rest as in `decided`.
    """
    holds, fails = holds_p < level, fails_p < LEVEL
    interval = (1.0, 1.0) if holds else (-1.0, -1.0) if fails else None
    return decided(name, interval, evidence, p=holds_p, premises=premises, needs=needs, quantity=quantity)


CONTROLS = {
    "accuracy_initial": ("accuracy_final", "the trained prompts solve more than P0"),
    "accuracy_none": ("accuracy_final", "the trained prompts solve more than no prompt"),
    "majority": (
        "label_accuracy",
        "with the trained prompts the right label is the likeliest more often than it is the most frequent one",
    ),
}
"""Column of what trained prompts must do better than -> (the column that is compared with it, in words)."""


def learned(table: "pd.DataFrame") -> list[Premise]:
    """That training taught the runs of a table something: more than each untrained prompt whose accuracy it knows.

    P0 and no prompt by accuracy; the most frequent label by label accuracy, where tasks have labels. By exact sign
    flips of whole runs; and on average in every task, or a claim about all would rest on some. Prompts from elsewhere,
    whose accuracies are not known, have no such premise.
    """
    premises = []
    for control, (of, words) in CONTROLS.items():
        columns = {of, control} & set(table)
        scored = table.dropna(subset=list(columns)) if len(columns) == 2 else table.iloc[:0]
        if scored.empty:
            continue
        trained, untrained = scored[of].to_numpy(float), scored[control].to_numpy(float)
        rises = bool(np.mean(trained - untrained) > 0)
        failed = _not_learned(scored, trained - untrained)
        better = rises and not failed and sign_flip_p(trained - untrained) < LEVEL
        without = f", not in {', '.join(failed)}" if rises and failed else ""
        shares = f"{trained.mean():.0%} against {untrained.mean():.0%}{without}"
        sentence = f"{words} ({shares}, n = {len(scored)} runs)"
        least, needs = sign_flips_needed(LEVEL), "prompts that learned their task"
        if rises and failed:
            needs = f"prompts that learned {', '.join(failed)}"
        elif rises and len(scored) < least:
            needs = f"{least} runs, to show that they learned their task"
        premises.append(Premise(better, sentence, needs))
    return premises


def _not_learned(table: "pd.DataFrame", differences_N: np.ndarray) -> list[str]:
    """The tasks whose runs do no better on average; none where the table does not name tasks."""
    if "task" not in table:
        return []
    means = table.assign(difference=differences_N).groupby("task", sort=False)["difference"].mean()
    return [str(task) for task in means.index[means <= 0]]
