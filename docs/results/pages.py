"""The pages of docs/results/, made of the CSVs beside them: no measured number on a page is typed.

    python docs/results/pages.py        # writes README.md beside every page.md.j2

A template has `number(quantity)`: a row of an analysis's numbers.csv; `rows(file)`: those of any CSV; `note(name)`: a
value of notes.csv, for what no analysis measures. The last block of a page is the command that makes its numbers again.
"""

import csv
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


def main() -> None:
    for folder in pages():
        (folder / "README.md").write_text(rendered(folder), encoding="utf-8")


def pages() -> list[Path]:
    """The folders that have a template."""
    return sorted(path.parent for path in HERE.glob("*/page.md.j2"))


def rendered(folder: Path) -> str:
    """A page as Markdown. Raises LookupError, which names file and quantity, for a number that is not there."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"share": share, "percent": percent, "points": points, "between": between}

    def rows(file: str) -> list[dict[str, Any]]:
        with (folder / file).open(encoding="utf-8", newline="") as stream:
            return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(stream)]

    def number(quantity: str, file: str = "numbers.csv", **where: str) -> dict[str, Any]:
        found = [
            row for row in rows(file) if row["quantity"] == quantity and all(row[k] == v for k, v in where.items())
        ]
        if len(found) != 1:
            raise LookupError(f"{folder.name}/{file}: {len(found)} rows have quantity {quantity} {where or ''}")
        return found[0]

    def note(name: str) -> Any:
        found = [row["value"] for row in rows("notes.csv") if row["name"] == name]
        if len(found) != 1:
            raise LookupError(f"{folder.name}/notes.csv: {len(found)} rows have name {name}")
        return found[0]

    return environment.get_template("page.md.j2").render(number=number, rows=rows, note=note)


def _value(text: str) -> Any:
    """A cell: a number where it is one, None where it is empty."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def share(value: float, digits: int = 3) -> str:
    """.522; 1.000"""
    return f"{value:.{digits}f}".removeprefix("0").replace("-0.", "-.")


def percent(value: float, digits: int = 0) -> str:
    """27 %"""
    return f"{100 * value:.{digits}f} %".replace("-0 %", "0 %")


def points(value: float, digits: int = 1) -> str:
    """+17.0 points, of a share."""
    return f"{100 * value:+.{digits}f} points"


def between(row: dict[str, Any], scale: float = 1.0, digits: int = 2) -> str:
    """The interval of a row of numbers.csv: 0.39 to 0.64; scale: 100 for percent."""
    low, high = (f"{scale * row[end] + 0.0:.{digits}f}" for end in ("low", "high"))
    return f"{low} to {high}".replace("-0 to", "0 to")


if __name__ == "__main__":
    main()
