"""Which numbers do the pages of docs/results say? Those of the CSVs beside them: no number is typed by hand.

    python docs/results/pages.py

Renders every docs/results/<name>/page.md.j2 to the README.md beside it, and index.md.j2 to docs/results/README.md.
"""

import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).resolve().parent
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
STYLES = {"share": (1, False, 3), "signed": (1, True, 3), "percent": (100, False, 0), "points": (100, True, 0)}
"""How a number is written: times what, with a plus or not, with how many digits after the point."""


class PageError(ValueError):
    """What a page asks for is not in its CSVs."""


@dataclass(frozen=True)
class Number:
    """A row of a *_numbers.csv. Filters take it as they take its value."""

    value: float
    low: float
    high: float
    p: float
    n: int
    unit: str

    def __float__(self) -> float:
        return self.value

    def __neg__(self) -> "Number":
        """The same difference, taken the other way round."""
        return Number(-self.value, -self.high, -self.low, self.p, self.n, self.unit)


@dataclass(frozen=True)
class Numbers:
    """The numbers that an analysis wrote. Called with a quantity, it gives that row."""

    file: str
    table: pd.DataFrame

    def __call__(self, quantity: str, **selection: Any) -> Number:
        """The one row of this quantity; `selection` says more of it, as group, of or convention."""
        found = selected(self.table, self.file, quantity=quantity, **selection)
        if len(found) != 1:
            raise PageError(f"{self.file}: {len(found)} rows, not one, of the quantity {quantity!r} {selection or ''}")
        row = found.iloc[0]
        value, low, high, p = (float(row[name]) for name in ("value", "low", "high", "p"))
        return Number(value, low, high, p, int(row.n), row.unit)

    def each(self, prefix: str, names: list[str]) -> list[Number]:
        """The rows of several quantities that begin alike."""
        return [self(f"{prefix}{name}") for name in names]


@dataclass(frozen=True)
class Folder:
    """The CSVs beside a page. Public methods are what its template can call."""

    path: Path
    _read: dict[str, pd.DataFrame] = field(default_factory=dict)

    def rows(self, name: str, **selection: Any) -> pd.DataFrame:
        """The rows of <name>.csv whose columns have these values; none at all is an error."""
        file = f"{self.path.name}/{name}.csv"
        found = selected(self._table(name), file, **selection)
        if found.empty:
            raise PageError(f"{file}: no rows where {selection}")
        return found

    def numbers(self, analysis: str = "", **selection: Any) -> Numbers:
        """The rows of <analysis>_numbers.csv, or of numbers.csv, or those of them that `selection` names."""
        name = f"{analysis}_numbers" if analysis else "numbers"
        return Numbers(f"{self.path.name}/{name}.csv", self.rows(name, **selection))

    def note(self, name: str) -> str:
        """A value of notes.csv: what no analysis wrote."""
        found = selected(self._table("notes"), f"{self.path.name}/notes.csv", name=name)
        if len(found) != 1:
            raise PageError(f"{self.path.name}/notes.csv: {len(found)} rows, not one, of the name {name!r}")
        return str(found.value.iloc[0])

    def commands(self) -> str:
        """What makes the CSVs, from grid.yaml: a line for each command, MODEL and DATA in place of folders."""
        lines, given = [], lines_of(self.path.name, self.path.parent)
        for line, _ in given:
            verb, *words = shlex.split(line.format(model="MODEL", data="DATA", outputs="outputs"))
            quoted = [f'"{word}"' if "'" in word else shlex.quote(word) for word in words]
            text = " ".join(["python", "-m", f"promptgeo.{verb}", *quoted])
            lines.append(" \\\n  ".join(textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)))
        data = " --data DATA" if any("{data}" in line for line, _ in given) else ""
        return "\n".join([*lines, f"python docs/results/make.py {self.path.name} --model MODEL{data}  # all of these"])

    def _table(self, name: str) -> pd.DataFrame:
        if name not in self._read:
            kind = {"dtype": str} if name == "notes" else {}
            path = self.path / f"{name}.csv"
            self._read[name] = pd.read_csv(path, keep_default_na=False, na_values=[""], **kind)
        return self._read[name]


def grid_of(page: str, results: Path = HERE) -> dict[str, Any]:
    """What grid.yaml of a page holds."""
    grid: dict[str, Any] = yaml.safe_load((results / page / "grid.yaml").read_text(encoding="utf-8"))
    return grid


def lines_of(page: str, results: Path = HERE) -> list[tuple[str, str]]:
    """(a command of a page's grid, what cuts it down for the embedded model), in order.

    First the trainings on the real model of the pages that `looks_at` names: their runs are the page's too.
    """
    grid, made = grid_of(page, results), []
    for other in grid.get("looks_at", ()):
        theirs = grid_of(other, results)
        trained = [line for line in theirs["commands"] if line.startswith("train") and "{model}" in line]
        made += [(line, theirs.get("tiny", "")) for line in trained]
    return made + [(line, grid.get("tiny", "")) for line in grid["commands"]]


def selected(table: pd.DataFrame, file: str, **selection: Any) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in selection.items():
        if column not in table:
            raise PageError(f"{file}: no column {column!r}")
        table = table[table[column] == value]
    return table


def written(value: Any, digits: int = 0, factor: int = 1, signed: bool = False) -> str:
    """A number without the zero before its point. Halves go away from zero, as the CSV's decimals have them."""
    number = Decimal(f"{float(value):.9g}") * factor
    if not number.is_finite():
        raise PageError("a page says a number that its CSV leaves empty")
    number = number.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    text = f"{abs(number):,}"
    sign = "-" if number < 0 else "+" if signed and number > 0 else ""
    return sign + (text.removeprefix("0") if digits else text)


def styled(value: Any, style: str, digits: int | None = None) -> str:
    """A number in one of STYLES, without its unit."""
    factor, signed, usual = STYLES[style]
    return written(value, usual if digits is None else digits, factor, signed)


def points(value: Any, digits: int = 0, signed: bool = True) -> str:
    """A difference of shares in percentage points: +3, or 3 where the sentence says which way."""
    return written(value, digits, 100, signed)


def span(number: Number, style: str = "share", digits: int | None = None) -> str:
    """An interval without brackets: .390 to .643, or 7 to 56 %."""
    ends = " to ".join(styled(end, style, digits) for end in (number.low, number.high))
    return ends + (" %" if style == "percent" else "")


def word(count: Any) -> str:
    """A small count as a word; 0 is "no"."""
    if count != int(count) or not 0 <= count < len(WORDS):
        raise PageError(f"{count} has no word")
    return WORDS[int(count)]


def only(values: pd.Series) -> Any:
    """What all rows of a column say."""
    if values.nunique(dropna=False) != 1:
        raise PageError(f"the column {values.name!r} has not one value but {sorted(set(values))}")
    return values.iloc[0]


def so(words: str, holds: Any) -> str:
    """Words that are true where `holds` is. Where the numbers no longer say so, the page is an error."""
    if not holds:
        raise PageError(f"the numbers no longer say {words!r}")
    return words


FILTERS: dict[str, Callable[..., Any]] = {
    "share": lambda value, digits=3: styled(value, "share", digits),
    "signed": lambda value, digits=3: styled(value, "signed", digits),
    "percent": lambda value, digits=0: styled(value, "percent", digits) + " %",
    "points": points,
    "whole": written,
    "span": span,
    "interval": lambda number, style="share", digits=None: f"({span(number, style, digits)})",
    "word": word,
    "only": only,
}


def environment(folder: Path) -> Environment:
    """Templates of this folder. A name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= FILTERS
    return made


def page(folder: Path) -> ModuleType:
    """The page of a folder: str() of it is the text; it has what the template sets, such as question and answer."""
    csvs = Folder(folder)
    given = {"numbers": csvs.numbers, "rows": csvs.rows, "note": csvs.note, "so": so, "commands": csvs.commands}
    return environment(folder).get_template("page.md.j2").make_module(given)


def pages(results: Path = HERE) -> dict[Path, str]:
    """What every page of a folder of results says, by its path; the index last."""
    made = {path.parent: page(path.parent) for path in sorted(results.glob("*/page.md.j2"))}
    texts = {folder / "README.md": str(one) for folder, one in made.items()}
    index = environment(results).get_template("index.md.j2")
    return texts | {results / "README.md": index.render(pages={folder.name: one for folder, one in made.items()})}


def main() -> None:
    """Write every page."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
