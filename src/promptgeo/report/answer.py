"""What is the answer? Three sentences, and a table of claims: what was published, what these runs say, how surely."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgeo.analysis.result import Outcome
from promptgeo.report.claims import NOT_TESTED, Verdict
from promptgeo.report.study import Published, Study
from promptgeo.report.text import in_words, number_text

if TYPE_CHECKING:
    from promptgeo.analysis.result import Stored

NAMED = 3
"""Claims that a sentence of the answer names, at most; it counts the others."""
SENTENCES = {
    Outcome.holds: "Holds",
    Outcome.fails: "Does not hold",
    Outcome.undecidable: "Not decidable by these runs",
}


def answer(verdicts: Sequence[Verdict], findings: Sequence[dict[str, Any]]) -> list[str]:
    """At most three sentences: which claims hold, which do not, which cannot be decided by these runs.

    Those that the study set out to test are named first; of the undecided, what most of them need. Without claims the
    first finding of each analysis answers, then others.
    """
    tested = [verdict for verdict in verdicts if verdict.outcome != NOT_TESTED]
    if not tested:
        first = {finding["analysis"]: k for k, finding in reversed(list(enumerate(findings)))}
        order = sorted(range(len(findings)), key=lambda k: k not in first.values())
        return [findings[k]["sentence"] for k in order[:3]]
    sentences = []
    for outcome, says in SENTENCES.items():
        chosen = sorted((v for v in tested if v.outcome == outcome), key=lambda v: not v.confirmatory)
        if chosen:
            named = "; ".join(f"“{v.words.rstrip('.')}”{f' ({v.group})' if v.group else ''}" for v in chosen[:NAMED])
            more = f"; and {len(chosen) - NAMED} more" if len(chosen) > NAMED else ""
            lacking = _lacking(chosen) if outcome == Outcome.undecidable else ""
            sentences.append(f"{says}: {named}{more}.{lacking}")
    return sentences


def _lacking(undecided: Sequence[Verdict]) -> str:
    """What most of these claims need: of what one needs, that which most others need too, alone or with more."""
    needed = [verdict.needs for verdict in undecided if verdict.needs]
    if not needed:
        return ""
    if len(undecided) == 1:
        return f" It needs {needed[0]}."
    counts = {needs: sum(f"{other}; ".startswith(f"{needs}; ") for other in needed) for needs in needed}
    needs, count = max(counts.items(), key=lambda item: item[1])
    of = "All" if count == len(undecided) else f"{count} of the {len(undecided)}"
    return f" {of} need {needs}." if count > 1 else ""


@dataclass(frozen=True)
class ClaimRow:
    """A claim in one line of the table."""

    verdict: Verdict
    quantity: str
    """In words; empty where no single number decides it."""
    published: Published | None
    paper: dict[str, Any] | None
    """Ours as the study counted: a row of numbers.csv."""
    corrected: dict[str, Any] | None

    @property
    def n(self) -> str:
        """What ours rests on."""
        number = self.corrected or self.paper
        return f"{number_text(number['n'])} {number['unit']}" if number else "—"


def claim_rows(verdicts: Sequence[Verdict], study: Study, stored: "Sequence[Stored]") -> list[ClaimRow]:
    """A row per claim that was tested: confirmatory ones first, then as the study has them."""
    by_name = {each.name: each for each in stored}
    tested = [verdict for verdict in verdicts if verdict.outcome != NOT_TESTED]
    return [_row(v, study, by_name) for v in sorted(tested, key=lambda v: not v.confirmatory)]


def _row(verdict: Verdict, study: Study, by_name: "dict[str, Stored]") -> ClaimRow:
    deciding = verdict.tests[0]
    quantity = deciding.get("quantity", "")
    ours = dict(_numbers(by_name[deciding["analysis"]], quantity, verdict.group)) if quantity else {}
    published = study.published_for(quantity) if quantity else None
    corrected = ours.get("corrected", ours.get(""))
    return ClaimRow(verdict, in_words(quantity), published, ours.get("paper"), corrected)


def _numbers(stored: "Stored", quantity: str, group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(convention, row of numbers.csv) of a quantity of trained prompts."""
    import pandas as pd

    rows = stored.numbers
    texts = rows[["group", "of", "convention"]].astype(object).fillna("")
    chosen = (rows["quantity"] == quantity) & (texts["group"] == group) & texts["of"].isin(["", "prompt"])
    for row, text in zip(rows[chosen].to_dict("records"), texts[chosen].to_dict("records"), strict=True):
        yield text["convention"], {key: None if pd.isna(value) else value for key, value in row.items()}
