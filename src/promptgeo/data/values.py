"""What text does a field of a table hold? Numbers and true/false as they are written; what is no text is refused."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np

from promptgeo.errors import UserError


class WrittenNumber(str):
    """A number of a file, as it is spelt there."""


NUMBERS = (bool, int, float, Decimal, np.generic, WrittenNumber)


def text_of(value: Any, where: str, column: str) -> str:
    """The text of one field; empty where nothing is there.

    where: the example, for errors. Raises UserError where the field holds a list, a dictionary, bytes, a date or a lone
    half of a surrogate pair.
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, str):
        return _whole(str(value), where, column)
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        return str(int(value)) if float(value).is_integer() else str(value)
    kind = {"dict": "dictionary", "ndarray": "array"}.get(type(value).__name__, type(value).__name__)
    raise UserError(f"{where} holds a {kind} in column {column!r}: a text or a number is needed")


def answers_of(value: Any, where: str, column: str) -> tuple[str, ...]:
    """The accepted answers of a label field: one text, or the texts of a list, each once and in order.

    Raises UserError as text_of does, for an empty answer, and for a list of anything but texts: a vector is no answer.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    several: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, list | tuple) and value and all(isinstance(one, NUMBERS) for one in several):
        raise UserError(
            f"{where} holds a list of numbers in column {column!r}: a label is a text or a number, or a list of texts"
        )
    answers = tuple(dict.fromkeys(text_of(one, where, column) for one in several))
    if not answers or not all(answer.strip() for answer in answers):
        raise UserError(f"{where} has nothing in column {column!r}")
    return answers


def _whole(text: str, where: str, column: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds half a character in column {column!r} (a lone surrogate, "
            f"\\u{ord(text[error.start]):04x}): no tokenizer can read it"
        ) from error
    return text
