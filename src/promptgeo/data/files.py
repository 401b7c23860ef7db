"""How is a user's own file read? csv, tsv, json, jsonl and parquet, each as rows by column name."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptgeo.config.paths import DATA as ENDINGS
from promptgeo.data.values import WrittenNumber
from promptgeo.errors import UserError

LONGEST_FIELD = 2**31 - 1
"""Characters; Python's own limit is 131,072, which documents exceed."""


@dataclass(frozen=True)
class Rows:
    """A table as it was read."""

    rows: list[dict[str, Any]]
    classes: dict[str, list[str]] = field(default_factory=dict)
    """The names of the classes of columns that hold them by number (ClassLabel)."""


def read_file(path: Path) -> Rows:
    """The rows of one file. Raises UserError, in one line, where it cannot be read or holds none."""
    if not path.is_file():
        raise UserError(f"task.source.path={path}: no such file")
    if path.suffix not in ENDINGS:
        raise UserError(f"task.source.path={path}: unknown ending; one of {', '.join(ENDINGS)} is needed")
    if path.stat().st_size == 0:
        raise UserError(f"task.source.path={path}: the file is empty")
    try:
        table = _parquet(path) if path.suffix == ".parquet" else Rows(_text_rows(path))
    except RecursionError as error:
        raise UserError(f"task.source.path={path}: cannot be read as json: it is nested too deeply") from error
    except (ValueError, KeyError, TypeError, csv.Error, OSError) as error:
        kind = path.suffix[1:]
        raise UserError(f"task.source.path={path}: cannot be read as {kind}: {first_line(error)}") from error
    if not table.rows:
        raise UserError(f"task.source.path={path}: the file holds no examples")
    return table


def parse_json(text: str) -> Any:
    """JSON in which numbers stay as they are written (1e3, 1.0, 5,000 digits) and no key of an object is lost.

    Raises ValueError where it is none, or an object has a key twice.
    """
    return json.loads(
        text,
        parse_float=WrittenNumber,
        parse_int=WrittenNumber,
        parse_constant=lambda name: None if name == "NaN" else name,
        object_pairs_hook=_object,
    )


def first_line(error: Exception) -> str:
    """An exception's first line that is not empty, or its type's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def class_names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel (or of a list of them) of `datasets`, as an object or as its JSON; else None."""

    def get(key: str) -> Any:
        return feature.get(key) if isinstance(feature, dict) else getattr(feature, key, None)

    names = get("names")
    if names is not None:
        return list(names)
    inner = get("feature")
    return class_names(inner) if inner is not None else None


def _text_rows(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix in (".csv", ".tsv"):
        return _separated(text, "\t" if path.suffix == ".tsv" else ",")
    if path.suffix == ".jsonl":
        rows = [parse_json(line) for line in text.split("\n") if line.strip()]
    else:
        rows = parse_json(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list of objects is needed")
    return rows


def _separated(text: str, delimiter: str) -> list[dict]:
    if "\0" in text:
        raise ValueError("it is a binary file")
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        # strict: a quote left open or text after a closing quote is an error, not a guess.
        # (Not str.splitlines: it also cuts at characters that may stand in a field, such as U+0085 in film reviews.)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        _require_distinct(name for name in reader.fieldnames or [] if name)
        rows = list(reader)
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise ValueError(f"example {number} has {'more' if None in row else 'fewer'} fields than the header")
    return rows


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    _require_distinct(schema.names)
    # What `datasets` writes beside the columns of a file of its own.
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = (told.get("info") or {}).get("features") or {}
    classes = {column: names for column, feature in features.items() if (names := class_names(feature))}
    return Rows(pq.read_table(path).to_pylist(), classes)  # not by pandas: whole numbers beside nulls would be floats


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        _require_distinct(key for key, _ in pairs)
    return made


def _require_distinct(columns: Iterable[str]) -> None:
    twice = [column for column, times in Counter(columns).items() if times > 1]
    if twice:
        raise ValueError(f"two columns are called {twice[0]!r}; give one of them another name")
