"""Which tokens of a vocabulary spell words of a lexicon, which other words are like these, and in what script are they?

Shapes: V vocabulary, W different words that its tokens spell, L words of a lexicon, B draws.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

MARKS = "\u2581\u0120"
"""How SentencePiece and byte-level BPE write the space before a word."""
NO_LETTER = "no letter"
MANY_SPELLINGS = 3
"""Words of as many spellings or more are alike in that."""
FEWEST_LIKE = 10
"""Other words for each word of the lexicon, at least, before only those of its script are like it."""


def normal(text: str) -> str:
    """A token's text as a word: without spaces and word-boundary marks around it, case folded, in Unicode's form C."""
    return unicodedata.normalize("NFC", text.strip().lstrip(MARKS).strip().casefold())


@cache
def script_of(text: str) -> str:
    """The script of a text's first letter, by Unicode's name of it: Latin, Cyrillic, Han, ...; NO_LETTER if none."""
    for character in unicodedata.normalize("NFKC", text):
        if character.isalpha():
            first = unicodedata.name(character, "unnamed").split()[0]
            return "Han" if first == "CJK" else first.capitalize()
    return NO_LETTER


@dataclass(frozen=True)
class Words:
    """The tokens of a vocabulary by the word that they spell: Correct, " correct" and CORRECT are one."""

    word_V: np.ndarray
    """int64: the number of each token's word."""
    words: list[str]
    """W texts."""
    script_V: np.ndarray
    """str: the script of each token."""

    @classmethod
    def of(cls, tokens: Sequence[str]) -> "Words":
        numbers: dict[str, int] = {}
        word_V = np.array([numbers.setdefault(normal(token), len(numbers)) for token in tokens], dtype=np.int64)
        return cls(word_V, list(numbers), np.array([script_of(token) for token in tokens]))

    def lexicon(self, words: Sequence[str]) -> np.ndarray:
        """[L] int64, sorted: the numbers of the words that some token spells whole; others cannot be hit."""
        wanted = {normal(word) for word in words}
        return np.array([i for i, word in enumerate(self.words) if word in wanted and word], dtype=np.int64)

    @cached_property
    def _kind_W(self) -> np.ndarray:
        """What makes words alike: how many tokens spell them, and the script of the first; "" for no word."""
        spellings_W = np.minimum(np.bincount(self.word_V), MANY_SPELLINGS)
        script_W = np.array([script_of(word) for word in self.words])
        return np.array(
            [f"{n} {s}" if s != NO_LETTER else "" for n, s in zip(spellings_W, script_W, strict=True)], dtype=object
        )

    def like(self, lexicon_L: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
        """[B, L] int64: in each draw other words in place of the lexicon's, of as many spellings and the same script.

        Of any script, where there are fewer than FEWEST_LIKE times as many.
        """
        kind_W, drawn_BL = self._kind_W, np.empty((draws, len(lexicon_L)), dtype=np.int64)
        other_W = np.setdiff1d(np.flatnonzero(kind_W != ""), lexicon_L)
        for kind in dict.fromkeys(kind_W[lexicon_L]):
            places = np.flatnonzero(kind_W[lexicon_L] == kind)
            like = other_W[kind_W[other_W] == kind]
            if len(like) < FEWEST_LIKE * len(places):
                like = other_W
            replace = len(like) < len(places)
            for b in range(draws):
                drawn_BL[b, places] = generator.choice(like, len(places), replace=replace)
        return drawn_BL
