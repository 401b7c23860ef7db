"""What do two sweeps answer, side by side? Two models, two rates: their claims, their figures, their numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from promptgeo.config.identity import differences
from promptgeo.report.answer import ClaimRow
from promptgeo.report.contents import Contents, Material
from promptgeo.report.page import hues
from promptgeo.report.templates import filled


@dataclass(frozen=True)
class Pair:
    """A claim of either sweep; None where one did not test it."""

    words: str
    group: str
    rows: tuple[ClaimRow | None, ClaimRow | None]


def render(one: Material, other: Material, names: tuple[str, str]) -> str:
    """The page as HTML text. Claims and numbers are paired by their names, and by what tells groups of runs apart.

    names: what the two are called.
    """
    both = Contents(one, "lead-0"), Contents(other, "lead-1")
    configs = [[run.info["config"] for run in material.runs] for material in (one, other)]
    content = {
        "both": both,
        "names": names,
        "pairs": list(_pairs(*both)),
        "numbers": list(_numbers(one, other)),
        "differences": differences(*configs),
        "hues": hues(),
    }
    return filled("beside.html.j2", content)


def _pairs(one: Contents, other: Contents) -> Iterator[Pair]:
    """Claims in the first sweep's order, then those that only the second has."""
    rows = [{(row.verdict.name, row.verdict.group): row for row in contents.claims} for contents in (one, other)]
    for key in {**rows[0], **rows[1]}:
        mine, theirs = rows[0].get(key), rows[1].get(key)
        shown = mine or theirs
        if shown is not None:
            yield Pair(shown.verdict.words, shown.verdict.group, (mine, theirs))


def _numbers(one: Material, other: Material) -> Iterator[tuple[str, list[tuple[str, dict[str, Any], dict[str, Any]]]]]:
    """(analysis, rows) of what both have: quantity, its row of numbers.csv in each; the corrected prompts' alone."""
    theirs = {stored.name: stored for stored in other.stored}
    for stored in one.stored:
        if stored.name in theirs:
            tables = [_corrected(each) for each in (stored, theirs[stored.name])]
            shared = [key for key in tables[0] if key in tables[1]]
            if shared:
                yield stored.name, [(key, tables[0][key], tables[1][key]) for key in shared]


def _corrected(stored: Any) -> dict[str, dict[str, Any]]:
    """Quantity -> its row, with its group of runs before it."""
    numbers = stored.numbers.astype(object).where(stored.numbers.notna(), None)
    rows = numbers.to_dict("records")
    return {
        ": ".join(filter(None, [row["group"], row["quantity"]])): row
        for row in rows
        if (row["of"] or "prompt") == "prompt" and (row["convention"] or "corrected") == "corrected"
    }
