"""What kind of token is this, by its text? The init word or a form of it, a glitch token, a rare alphabet, unreadable.

Study 3 sorts the tokens next to prompts by eye; a rule on the text lets their share in the whole vocabulary be set
beside it.
"""

import unicodedata
from functools import cache
from importlib.resources import files

import numpy as np

from promptgeo.analysis.geometry.vocabulary import Vocabulary

KINDS = ("init word", "inflection", "glitch token", "rare alphabet", "unreadable", "other")


def kind_of(text: str, word: str | None = None, glitch: bool = False) -> str:
    """The kind of a token by its text; the first of KINDS that fits.

    init word: the very word that the prompt started from. inflection: stripped and in lower case one of the word's
    `forms` (Cat, " cat", CATS). glitch token: as `glitch` says. rare alphabet: holds a letter that is not Latin.
    unreadable: nothing, bytes that are not a character, control, private or unassigned characters.
    """
    if word is not None and text == word:
        return "init word"
    if word is not None and text.strip().lower() in forms(word):
        return "inflection"
    if glitch:
        return "glitch token"
    if any(_unreadable(character) for character in text) or not text:
        return "unreadable"
    return "rare alphabet" if any(_not_latin(character) for character in text) else "other"


def forms(word: str) -> set[str]:
    """A word's spellings in lower case: itself, -s, -es, -'s, -s', -ed, -d, -ing.

    Also with the last letter doubled, a last e dropped, or y turned to i.
    """
    word = word.strip().lower()
    stems = {word, word + word[-1:]}
    inflected = {word, f"{word}s", f"{word}es", f"{word}'s", f"{word}s'", f"{word}d" if word.endswith("e") else word}
    if word.endswith("e"):
        stems.add(word[:-1])
    if word.endswith("y"):
        inflected |= {f"{word[:-1]}ies", f"{word[:-1]}ied"}
    return inflected | {stem + ending for stem in stems for ending in ("ed", "ing")}


@cache
def glitch_tokens() -> dict[int, str]:
    """GPT-2's known glitch tokens by their ids, from glitch_tokens.txt (where their sources are named)."""
    text = (files("promptgeo.analysis.geometry") / "glitch_tokens.txt").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.split("\n") if line and not line.startswith("#"))
    return {int(number): token for number, token in lines}


def knows_glitch_tokens(vocabulary: Vocabulary) -> bool:
    """Whether a vocabulary has every one of GPT-2's glitch tokens at its id: the list says nothing of any other."""
    texts = vocabulary.tokens
    return all(number < len(texts) and texts[number] == token for number, token in glitch_tokens().items())


@cache
def _unreadable(character: str) -> bool:
    # Unicode's categories C*: control, format, surrogate, private use, unassigned. U+FFFD stands for undecodable bytes.
    return character == "\ufffd" or (unicodedata.category(character).startswith("C") and character not in "\n\t\r")


@cache
def _not_latin(character: str) -> bool:
    # Below U+00C0 all letters are Latin, but for signs like the micro sign.
    return character >= "\u00c0" and character.isalpha() and "LATIN" not in unicodedata.name(character, "")


def vocabulary_kinds(vocabulary: Vocabulary, word: str | None) -> np.ndarray:
    """[V] int64: the number in KINDS of every token, for prompts that started from `word` (None: from no word)."""
    codes_V = _kinds_without_word(tuple(vocabulary.tokens)).copy()
    if knows_glitch_tokens(vocabulary):
        codes_V[list(glitch_tokens())] = KINDS.index("glitch token")
    if word is not None:
        spellings = _spellings(tuple(vocabulary.tokens))
        for i in (i for form in forms(word) for i in spellings.get(form, ())):
            codes_V[i] = KINDS.index(kind_of(vocabulary.tokens[i], word))
    return codes_V


@cache
def _spellings(texts: tuple[str, ...]) -> dict[str, list[int]]:
    """The numbers of the tokens whose texts are equal but for spaces and case."""
    spellings: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        spellings.setdefault(text.strip().lower(), []).append(i)
    return spellings


@cache
def _kinds_without_word(texts: tuple[str, ...]) -> np.ndarray:
    return np.array([KINDS.index(kind_of(text)) for text in texts], dtype=np.int64)
