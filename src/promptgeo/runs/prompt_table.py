"""What is known of prompts from elsewhere? A CSV table with a row per prompt: task, init, perhaps seed, accuracy."""

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptgeo.config.paths import require_file
from promptgeo.errors import UserError

NEEDED = ("task", "init")
OPTIONAL = ("seed", "model", "template", "accuracy", "n", "file", "steps", "bos")
LARGEST = 64 * 2**20
"""Bytes of a table: half a million rows."""


@dataclass(frozen=True)
class TableRow:
    """One row of a table."""

    table: Path
    line: int
    """Where it stands."""
    cells: dict[str, str]
    """Column -> text, without spaces around it."""

    @property
    def where(self) -> str:
        """What an error calls the row."""
        return f"{self.table}, line {self.line}"

    def text(self, column: str) -> str | None:
        """A cell; None where it is empty or there is no such column."""
        return self.cells.get(column) or None

    def whole(self, column: str) -> int | None:
        """A cell as a whole number of 64 bits; None where it is empty. Raises UserError for anything else."""
        try:
            number = int(text) if (text := self.text(column)) else None
        except ValueError as error:
            raise self._unreadable(column, "a whole number") from error
        if number is not None and not -(2**63) <= number < 2**63:
            raise self._unreadable(column, "a whole number of at most 18 digits")
        return number

    def number(self, column: str) -> float | None:
        """A cell as a number; None where it is empty. Raises UserError for anything else."""
        try:
            return float(text) if (text := self.text(column)) else None
        except ValueError as error:
            raise self._unreadable(column, "a number") from error

    def _unreadable(self, column: str, wanted: str) -> UserError:
        return UserError(
            f"{self.where}: {column}={(self.text(column) or '')[:80]}: {wanted} is needed, or an empty cell"
        )


def read_table(table: Path) -> list[TableRow]:
    """The table's rows. Raises UserError for a missing column, or a cell that must not be empty."""
    require_file(table, f"--table {table}", LARGEST)
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [c.strip() for c in reader.fieldnames or ()]
            _check_columns(table, columns)
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise UserError(f"--table {table}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--table {table}: is not a CSV table in UTF-8: {error}") from error
    if not rows:
        raise UserError(f"--table {table}: has no rows; one per prompt is needed")
    for line, row in rows:
        if None in row or None in row.values():
            raise UserError(
                f"{table}, line {line}: has another number of cells than the first line ({len(columns)}); "
                "a text with a comma is quoted"
            )
        for column in (*NEEDED, *({"file"} & set(columns))):
            if not row[column].strip():
                raise UserError(f"{table}, line {line}: {column} is empty; every prompt needs one")
    return [TableRow(table, line, {column: cell.strip() for column, cell in row.items()}) for line, row in rows]


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    known = (*NEEDED, *OPTIONAL)
    for column in NEEDED:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"nearest: {near[0]}" if near else f"it has {', '.join(columns)[:200] or 'none'}"
            raise UserError(
                f"--table {table}: has no column {column} ({hint}); "
                f"task and init are needed, {', '.join(OPTIONAL)} may be there"
            )
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"--table {table}: has two columns {column}; rename one")
        # Nearer than difflib's default of .6: a column of the user's own that only resembles one of ours is left alone.
        near = [] if column in known else difflib.get_close_matches(column, OPTIONAL, n=1, cutoff=0.75)
        if near and near[0] not in columns:
            raise UserError(
                f"--table {table}: column {column}: is {near[0]} meant? "
                "Rename it, so that it is used, or to something else"
            )


def unused_columns(rows: Sequence[TableRow]) -> list[str]:
    """Columns of a table that an import does not look at."""
    return [column for column in rows[0].cells if column not in (*NEEDED, *OPTIONAL)]
