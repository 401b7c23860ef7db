"""What does an exported PEFT adapter say of itself? Where BOS stood, and which of its rows are no prompt tokens.

PEFT stands its virtual tokens before everything. Where BOS stood before the prompt, the adapter's first rows are its
embeddings. The mark lies in the header of the file of the tensors, so that it goes wherever that file is copied.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from promptgeo.config.schema import Bos
from promptgeo.errors import UserError

_KEY = "promptgeo"


@dataclass(frozen=True)
class Mark:
    """Of one adapter."""

    bos: str
    """What template.bos of the run came to: always, never or after_prompt."""
    rows_before: int
    """How many of the adapter's first rows are embeddings of tokens that stood before the prompt."""


def header_of(mark: Mark) -> dict[str, str]:
    """The header of a safetensors file. One field alone: several would be written in another order each time."""
    return {_KEY: json.dumps(asdict(mark), sort_keys=True)}


def mark_of(path: Path) -> Mark | None:
    """The mark of a file of tensors; None where it has none. Raises UserError where it makes no sense."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return None  # whoever reads it says what is wrong with it
    try:
        with safe_open(path, framework="numpy") as file:
            written = (file.metadata() or {}).get(_KEY)
    except SafetensorError:
        return None
    if written is None:
        return None
    try:
        mark = Mark(**json.loads(written))
        if type(mark.rows_before) is not int or mark.rows_before < 0 or mark.bos not in known_orders():
            raise ValueError("its fields have other values")
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: promptgeo's mark in its header is damaged; export the prompt again") from error
    return mark


def known_orders() -> list[str]:
    """What template.bos of a finished run can be."""
    return [bos.name for bos in Bos if bos is not Bos.auto]
