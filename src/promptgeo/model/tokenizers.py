"""What does a tokenizer do to a text? Found by trying it: attributes and families say too little."""

from functools import cached_property
from typing import Any


class TokenizerAlone:
    """A model's tokenizer without the model: what a run's identity asks of it, before the model is loaded."""

    def __init__(self, name_or_path: str, revision: str | None, trust_remote_code: bool):
        from promptgeo.model.loading import read_tokenizer

        self.tokenizer = read_tokenizer(name_or_path, revision, trust_remote_code)

    @cached_property
    def bos(self) -> list[int]:
        """Token ids that it puts before a text; none of many models."""
        return leading_tokens(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def leading_tokens(tokenizer: Any) -> list[int]:
    """Token ids that a tokenizer puts before a text (BOS, of some families two tokens); what it puts behind is dropped.

    Gemma's `add_bos_token` is False, and it puts one: so a text is encoded with and without special tokens.
    """
    for text in ("a", "1", "the"):
        with_special = list(tokenizer(text)["input_ids"])
        plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        for start in range(len(with_special) - len(plain) + 1):
            if plain and with_special[start : start + len(plain)] == plain:
                return with_special[:start]
    return []
