"""What did the analyses find, which of the study's claims hold, and what is missing?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.resampling import holm
from promptgeo.analysis.result import Outcome
from promptgeo.report.study import Published, Study
from promptgeo.report.text import in_words, variant_text

if TYPE_CHECKING:
    from promptgeo.analysis.result import Stored

NOT_TESTED = "not tested"
HEADINGS = {
    "prompt": "Trained prompts",
    "delta": "What training added: delta = P - P0",
    "": "Training, and the model with these prompts",
}


def findings(stored: "Sequence[Stored]") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Heading -> corrected findings, each with the name of its analysis; those of prompts and of deltas apart."""
    corrected = [
        finding | {"analysis": s.name}
        for s in stored
        for finding in s.info["findings"]
        if finding.get("convention", "corrected") == "corrected"
    ]
    for of, heading in HEADINGS.items():
        if chosen := [finding for finding in corrected if finding.get("of", "") == of]:
            yield heading, chosen


@dataclass(frozen=True)
class Verdict:
    """A claim of the study beside what these runs say about it."""

    name: str
    words: str
    place: str
    published: str
    group: str
    """What tells these runs from others that the claim is tested on; empty where all are alike."""
    outcome: str
    """Of Outcome's words, by the corrected numbers of prompts; NOT_TESTED where none tested it."""
    confirmatory: bool
    """Whether the study set out to test it; every other claim is exploratory."""
    p: float | None
    """Of a confirmatory claim, adjusted for all of them by Holm."""
    needs: str
    """What would decide it, where it is not decidable."""
    tests: list[dict[str, Any]]
    """Every test of it: outcome, evidence, analysis, variant (prompts or deltas, by which convention)."""


def verdicts(study: Study, stored: "Sequence[Stored]") -> list[Verdict]:
    """The study's claims in its order, then those that only an analysis knows; each group of runs apart."""
    tested = [
        claim | {"analysis": s.name, "variant": variant_text(claim.get("of", ""), claim.get("convention", ""))}
        for s in stored
        for claim in s.info["claims"]
    ]
    made = []
    for name in dict.fromkeys([*study.claims, *(claim["name"] for claim in tested)]):
        own = [claim for claim in tested if claim["name"] == name]
        for group in dict.fromkeys(claim.get("group", "") for claim in own) or [""]:
            tests = [claim for claim in own if claim.get("group", "") == group]
            made.append(_verdict(study, name, group, sorted(tests, key=lambda claim: not _decides(claim))))
    return _adjusted(made)


def _verdict(study: Study, name: str, group: str, tests: list[dict[str, Any]]) -> Verdict:
    deciding = [claim for claim in tests if _decides(claim)]
    own = study.claims.get(name)
    words, place, published = (own.words, own.place, own.published) if own else (in_words(name), "", "")
    outcome = _together([claim["outcome"] for claim in deciding])
    # It holds where every test of it does: the largest p is that of all of them (Berger 1982).
    p = max((claim["p"] for claim in deciding if claim["p"] is not None), default=None)
    needs = "; ".join(dict.fromkeys(claim["needs"] for claim in deciding if claim["needs"]))
    confirmatory = name in study.confirmatory
    return Verdict(
        name, words, place, published, group, outcome, confirmatory, p if confirmatory else None, needs, tests
    )


def _together(outcomes: list[str]) -> str:
    """Of several tests of a claim: one that fails decides; it holds where all hold."""
    if not outcomes:
        return NOT_TESTED
    if Outcome.fails in outcomes:
        return Outcome.fails
    return Outcome.holds if set(outcomes) == {Outcome.holds} else Outcome.undecidable


def _adjusted(verdicts: list[Verdict]) -> list[Verdict]:
    """With the p of confirmatory claims adjusted for all of them; what holds by a p that is not small then does not.

    A claim that does not hold counts with p = 1: a small p there is that of the opposite. So does one that is not
    decidable though its p is small (a premise is not met, or the study asks for a smaller one): no p is said of it.
    """
    unmet = {
        (v.name, v.group) for v in verdicts if v.p is not None and v.p < LEVEL and v.outcome == Outcome.undecidable
    }
    verdicts = [
        replace(v, p=1.0) if v.p is not None and (v.outcome == Outcome.fails or (v.name, v.group) in unmet) else v
        for v in verdicts
    ]
    family = [verdict for verdict in verdicts if verdict.p is not None]
    adjusted = dict(zip((id(v) for v in family), holm([v.p for v in family if v.p is not None]), strict=True))
    made = []
    for verdict in verdicts:
        p = adjusted.get(id(verdict))
        if p is not None and p >= LEVEL and verdict.outcome == Outcome.holds:
            needs = f"more runs: with {len(family)} claims tested, p = {p:.2g} (Holm)"
            verdict = replace(verdict, outcome=Outcome.undecidable, needs=needs)
        elif p is not None and verdict.outcome == Outcome.undecidable and verdict.needs and len(family) > 1:
            verdict = replace(verdict, needs=f"{verdict.needs} (its p is adjusted for {len(family)} claims)")
        made.append(replace(verdict, p=None if (verdict.name, verdict.group) in unmet else p))
    return made


def _decides(claim: dict[str, Any]) -> bool:
    """A study's claims are about prompts; the corrected numbers decide."""
    return claim.get("convention", "corrected") == "corrected" and claim.get("of", "prompt") == "prompt"


def unanswered(study: Study, stored: "Sequence[Stored]") -> list[Published]:
    """Published numbers that no analysis gave on these runs."""
    given = set()
    for s in stored:
        of = s.numbers["of"].astype(object).fillna("prompt")
        for quantity in s.numbers.loc[of == "prompt", "quantity"]:
            if published := study.published_for(quantity):
                given.add(published.quantity)
    return [published for published in study.published.values() if published.quantity not in given]


def omissions(stored: "Sequence[Stored]", refused: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(analysis, what these runs could not support); refused: analyses that gave no result, and why."""
    yield from refused.items()
    for s in stored:
        for omission in s.info["omissions"]:
            yield s.name, omission.removeprefix(f"{s.name}: ")
