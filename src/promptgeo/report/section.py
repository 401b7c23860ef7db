"""What does the page show of one analysis? Its numbers beside the published ones, its figures, its tables."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from promptgeo.config.compose_analyze import analysis_file, available
from promptgeo.report.claims import findings
from promptgeo.report.inline import inline_svg, title_of
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
    path: str
    """Of the file, relative to the page."""
    analysis: str

    @property
    def wide(self) -> bool:
        """Whether half a page would make its letters too small: it is more than twice as wide as high."""
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', self.svg)
        return size is not None and float(size[1]) > 2.2 * float(size[2])


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

    @property
    def about(self) -> str:
        """What it asks, as its file says; empty for an analysis of the user's own."""
        return analysis_file(self.name)["_about_"] if self.name in available() else ""

    @property
    def method(self) -> str:
        """How it is computed and decided, as its file says; empty for an analysis of the user's own."""
        return analysis_file(self.name).get("_method_", "") if self.name in available() else ""

    @cached_property
    def findings(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Heading -> its corrected findings; those of prompts and of deltas apart."""
        return list(findings([self.stored]))

    @property
    def finding(self) -> str:
        """The first of them; empty where there is none."""
        return self.findings[0][1][0]["sentence"] if self.findings else ""

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
        return [
            self._figure(stem, f"{self.name}-{name}-{k}")
            for name, drawn in self._by_name().items()
            for k, (_, _, stem) in enumerate(sorted(drawn))
        ]

    @cached_property
    def main_figures(self) -> list[Figure]:
        """One of each name: the corrected prompts'."""
        return [self._figure(min(drawn)[2], f"{self.name}-{name}-main") for name, drawn in self._by_name().items()]

    def lead(self, prefix: str, name: str = "") -> Figure | None:
        """A figure of this name, of the corrected prompts, for the top of the page; the first where none is named.

        prefix: of its ids.
        """
        drawn = self._by_name()
        chosen = drawn.get(name) if name else next(iter(drawn.values()), None)
        return self._figure(min(chosen)[2], prefix) if chosen else None

    def _by_name(self) -> dict[str, list[tuple[int, str, str]]]:
        """Figure -> (rank, variant, stem) of each of its files."""
        by_name: dict[str, list[tuple[int, str, str]]] = {}
        for stem in self.stored.figures:
            rank, name, variant = self._variant(stem)
            by_name.setdefault(name, []).append((rank, variant, stem))
        return by_name

    def _figure(self, stem: str, prefix: str) -> Figure:
        _, name, variant = self._variant(stem)
        drawn = self.stored.figures[stem]
        caption = f"{upper_first(words(self.name))}: {title_of(drawn) or words(name)}{variant}"
        return Figure(inline_svg(drawn, prefix, caption), caption, f"{self.path}/{stem}.svg", self.name)

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

    @property
    def pages(self) -> list[tuple[str, str]]:
        """(name, path) of pages of the analysis's own: a map."""
        return [
            (f"{upper_first(words(name))}{variant}", f"{self.path}/{stem}.html")
            for stem in self.stored.pages
            for _, name, variant in [self._variant(stem)]
        ]

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
