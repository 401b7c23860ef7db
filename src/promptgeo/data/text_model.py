"""What does a task need of a model? Its tokenizer, and how many positions it has."""

from collections.abc import Sequence
from typing import Protocol


class TextModel(Protocol):
    """What a task needs of a model: its tokeniser, and how many positions it has."""

    @property
    def max_positions(self) -> int | None:
        """Most positions (prompt and text, in tokens) the model knows; None where it has no limit."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, special tokens left out."""
