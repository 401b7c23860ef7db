"""What did the analyses find, which of the study's claims hold, and what is missing?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgeo.report.study import Published, Study
from promptgeo.report.text import variant_text

if TYPE_CHECKING:
    from promptgeo.analysis.result import Stored

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

    words: str
    place: str
    published: str
    holds: bool | None
    """By the corrected numbers of prompts; None where none tested it."""
    tests: list[dict[str, Any]]
    """Every test of it: outcome, evidence, analysis, variant (prompts or deltas, by which convention)."""


def verdicts(study: Study, stored: "Sequence[Stored]") -> list[Verdict]:
    """The study's claims in its order, then those that only an analysis knows."""
    tested = [
        claim | {"analysis": s.name, "variant": variant_text(claim.get("of", ""), claim.get("convention", ""))}
        for s in stored
        for claim in s.info["claims"]
    ]
    made = []
    for name in dict.fromkeys([*study.claims, *(claim["name"] for claim in tested)]):
        tests = sorted((claim for claim in tested if claim["name"] == name), key=lambda claim: not _decides(claim))
        deciding = [claim["outcome"] == "holds" for claim in tests if _decides(claim)]
        own = study.claims.get(name)
        words, place, published = (own.words, own.place, own.published) if own else (name, "", "")
        made.append(Verdict(words, place, published, all(deciding) if deciding else None, tests))
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
            yield s.name, omission
