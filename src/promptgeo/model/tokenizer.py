"""What does a model's tokenizer make of a text? Asked before the model is loaded, which takes much longer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from promptgeo.model.loading import local_folder


@dataclass(eq=False)
class Tokenizer:
    """A model's tokenizer as FrozenLM uses it, loaded when it is first asked.

    It knows no text where it cannot be loaded: loading the model says then what is wrong.
    """

    name_or_path: str
    revision: str | None
    trust_remote_code: bool
    max_positions: int | None = None

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""
        return self._loaded(text, add_special_tokens=False, verbose=False)["input_ids"] if self._loaded else []

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, special tokens left out."""
        if not self._loaded:
            return ""
        return self._loaded.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @cached_property
    def _loaded(self) -> Any:
        from transformers import AutoTokenizer

        source = str(local_folder(self.name_or_path) or self.name_or_path)
        where = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        try:
            return AutoTokenizer.from_pretrained(source, **where)
        except Exception:  # tokenizers raises bare ones
            return None


@lru_cache(maxsize=4)
def tokenizer_of(name_or_path: str, revision: str | None, trust_remote_code: bool) -> Tokenizer:
    """The tokenizer of a model by name."""
    return Tokenizer(name_or_path, revision, trust_remote_code)
