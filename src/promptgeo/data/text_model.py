"""What does a task need of a model? Its tokenizer, and how many positions it has."""

from collections.abc import Sequence
from typing import Protocol


class TextModel(Protocol):
    """What a task needs of a model: its tokenizer, and how many positions it has."""

    @property
    def max_positions(self) -> int | None:
        """Most positions (prompt and text, in tokens) the model knows; None where it has no limit."""

    @property
    def token_limit(self) -> int:
        """Token ids from this one on have no embedding: some tokenizers have more tokens than their model."""

    @property
    def bos(self) -> Sequence[int]:
        """Token ids that its tokenizer puts before a text; none of many models."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, special tokens left out."""
