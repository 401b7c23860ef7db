"""How do a row's columns become one input? By the text of task.source.input, in which {column} stands for a field.

A name without braces is a column of its own. {target.span1_text} is a field of the dictionary in column target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptgeo.config.schema import FIELD
from promptgeo.data.values import text_of
from promptgeo.errors import UserError


@dataclass(frozen=True)
class Written:
    """An input, and which part of it may be cut."""

    text: str
    cut: tuple[int, int] | None = None
    """From and to which character task.max_input_tokens cuts; None: the whole text's end."""


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """A field by its name, or by its path through dictionaries. Raises KeyError where there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise KeyError(column)
        value = value[name]
    return value


def written(row: Mapping[str, Any], text: str, cut: str | None, where: str) -> Written:
    """The input of one row.

    text: task.source.input. cut: the column that max_input_tokens cuts; None: the end of the text.
    Raises UserError where a column is missing or empty, and as text_of does.
    """
    if not text:
        return Written("")
    if not FIELD.search(text):
        return Written(_field(row, text, where))
    parts, span, at, length = [], None, 0, 0
    for match in FIELD.finditer(text):
        before, field = text[at : match.start()], _field(row, match[1], where)
        length += len(before)
        if match[1] == cut:
            span = (length, length + len(field))
        length, at = length + len(field), match.end()
        parts += [before, field]
    return Written("".join([*parts, text[at:]]), span)


def written_alike(text: str, field: str) -> str:
    """The input of a row all of whose columns hold this field."""
    return FIELD.sub(lambda _: field, text) if FIELD.search(text) else field


def _field(row: Mapping[str, Any], column: str, where: str) -> str:
    field = text_of(value_of(row, column), where, column)
    if not field.strip():
        raise UserError(f"{where} has nothing in column {column!r}")
    return field
