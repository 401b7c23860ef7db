"""What does a model's tokenizer make of a text? Asked before the model is loaded, which takes much longer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from promptgeo.model.loading import read_tokenizer


@dataclass(eq=False)
class Tokenizer:
    """A model's tokenizer as FrozenLM uses it, loaded when it is first asked."""

    name_or_path: str
    revision: str | None
    trust_remote_code: bool
    max_positions: int | None = None
    token_limit: int = 1 << 62  # not known before the model is

    @cached_property
    def bos(self) -> list[int]:
        """Token ids that it puts before a text; none of many models."""
        return leading_tokens(self._loaded)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""
        return self._loaded(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, special tokens left out."""
        return self._loaded.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @property
    def _loaded(self) -> Any:
        return read_tokenizer(self.name_or_path, self.revision, self.trust_remote_code)


@lru_cache(maxsize=4)
def tokenizer_of(name_or_path: str, revision: str | None, trust_remote_code: bool) -> Tokenizer:
    """The tokenizer of a model by name. It raises UserError, when it is first asked, where it cannot be read."""
    return Tokenizer(name_or_path, revision, trust_remote_code)


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
