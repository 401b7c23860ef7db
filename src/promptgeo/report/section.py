"""What does the page show of one analysis? Its numbers beside the published ones, its figures, its tables."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from promptgeo.report.inline import inline_svg
from promptgeo.report.study import Published, Study
from promptgeo.report.text import OF, number_text, upper_first, variant_text, words

if TYPE_CHECKING:
    from promptgeo.analysis.result import Stored

ROWS = 15
"""Of a list of numbers that nobody published, at most: about a screenful; the CSV has all."""
TABLE_ROWS = 6
"""Of a further table, at most: enough to see what it holds."""


@dataclass(frozen=True)
class Row:
    """A quantity beside its published counterpart, by convention ("": it makes no difference)."""

    quantity: str
    published: Published | None
    ours: dict[str, dict[str, Any]]

    @property
    def stands_for(self) -> str:
        """The published quantity's name, where ours is of a task that stands for it."""
        return self.published.quantity if self.published and self.published.quantity != self.quantity else ""


@dataclass(frozen=True)
class Comparison:
    """A table of ours and published numbers."""

    heading: str
    rows: list[Row]
    left_out: int
    """Numbers that only the CSV has."""
    has_published: bool
    note: str
    """Where no number has a published counterpart: that it has none."""
    by_convention: bool


@dataclass(frozen=True)
class Figure:
    """A figure as the page holds it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """What the page shows of one analysis."""

    stored: "Stored"
    study: Study

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def path(self) -> str:
        """Relative to the page."""
        return f"analysis/{self.name}"

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """A table for prompts, with what was published, and one for deltas; those of each group of runs apart."""
        import pandas as pd

        numbers = self.stored.numbers.astype(object).where(pd.notna(self.stored.numbers), None)
        numbers[["group", "of", "convention"]] = numbers[["group", "of", "convention"]].fillna("")
        apart = numbers.groupby(["group", "of"], sort=False)
        return [_comparison(str(g), str(of), rows.to_dict("records"), self.study) for (g, of), rows in apart]

    @cached_property
    def figures(self) -> list[Figure]:
        """Those of one name beside each other, the corrected prompts' first."""
        by_name: dict[str, list[tuple[int, str, str]]] = {}
        for stem, svg in self.stored.figures.items():
            rank, name, variant = self._variant(stem)
            by_name.setdefault(name, []).append((rank, variant, svg))
        figures = []
        for name, drawn in by_name.items():
            for k, (_, variant, svg) in enumerate(sorted(drawn)):
                caption = f"{words(self.name)}: {words(name)}{variant}"
                figures.append(Figure(inline_svg(svg, f"{self.name}-{name}-{k}", caption), caption))
        return figures

    @cached_property
    def tables(self) -> list[dict[str, Any]]:
        """The first rows of each table, as text, of the corrected prompts where there are several."""
        tables = []
        for stem, table in self.stored.tables.items():
            rank, name, variant = self._variant(stem)
            if rank == 0:
                rows = [[number_text(v) for v in row] for row in table.head(TABLE_ROWS).itertuples(index=False)]
                tables.append(
                    {
                        "name": words(name) + variant,
                        "path": f"{self.path}/{stem}.csv",
                        "columns": list(table.columns),
                        "rows": rows,
                        "total": len(table),
                    }
                )
        return tables

    @cached_property
    def other_tables(self) -> list[str]:
        """Paths of the other conventions' tables and of the deltas'."""
        return [f"{self.path}/{stem}.csv" for stem in self.stored.tables if self._variant(stem)[0]]

    def _variant(self, stem: str) -> tuple[int, str, str]:
        """A file's stem -> rank among those of its name, name, variant as text.

        Rank 0: of the corrected prompts, or the only one.
        """
        made_for = self.stored.variant(stem)
        rank = 2 * (made_for.get("of") == "delta") + (made_for.get("convention") == "paper")
        variant = variant_text(*(made_for.get(key, "") for key in ("group", "of", "convention")))
        return rank, made_for["name"], f" ({variant})" if variant else ""


def _comparison(group: str, of: str, numbers: list[dict[str, Any]], study: Study) -> Comparison:
    rows: dict[str, Row] = {}
    for number in numbers:
        quantity = number["quantity"]
        published = study.published_for(quantity) if of != "delta" else None
        row = rows.setdefault(quantity, Row(quantity, published, {}))
        row.ours[number["convention"]] = number
    beside = [row for row in rows.values() if row.published]
    alone = [row for row in rows.values() if not row.published]
    note = ""
    if not beside:
        note = ". No published number" + (": the study looked at trained prompts only" if of == "delta" else "")
    return Comparison(
        heading=": ".join(filter(None, [group, OF[of]])) if group else upper_first(OF[of]) or "Numbers",
        rows=beside + alone[:ROWS],
        left_out=len(alone[ROWS:]),
        has_published=bool(beside),
        note=note,
        by_convention=any(number["convention"] for number in numbers),
    )
