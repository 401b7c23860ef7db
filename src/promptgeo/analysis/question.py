"""What a question function declares of itself: what it is given beside the runs, and which claims it can test.

@question(of=True, convention=True, vocabulary=True, claims=("words_near",))
def neighbours(runs, *, of, convention, vocabulary, epsilon=0.7): ...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from promptgeo.runs.alike import FACTORS

Function = TypeVar("Function", bound=Callable[..., Any])
ATTRIBUTE = "question"
"""Where a function keeps its declaration."""

GIVEN = ("of", "convention", "lm", "vocabulary", "gauge")
"""Keyword arguments that a question can declare; promptgeo passes them, so they are not options."""


class UndeclaredClaim(Exception):
    """A result holds a claim that its question does not declare."""


class Of(StrEnum):
    """Which vectors: the trained prompts P, or what training added to them, delta = P - P0."""

    prompt = "prompt"
    delta = "delta"


class Convention(StrEnum):
    """How a study counted (self-pairs, doubled pairs, ... as it did), or as it should be counted."""

    paper = "paper"
    corrected = "corrected"


@dataclass(frozen=True)
class Question:
    """A question function's declaration. The names are those of the keyword arguments that it gets."""

    of: bool = False
    """It answers once for the trained prompts and once for the deltas (Of)."""
    convention: bool = False
    """It answers once as the study counted and once as it should be counted (Convention)."""
    lm: bool = False
    """It needs the frozen model that the runs were trained on."""
    vocabulary: bool = False
    """It needs that model's token embeddings (Vocabulary)."""
    gauge: bool = False
    """It is given what that model ignores of a prompt token (Gauge), and None where the model is not at hand."""
    words: bool = False
    """It is given that vocabulary as `vocabulary`, and None where the model is not at hand."""
    claims: tuple[str, ...] = ()
    """Names of the study's claims that it can test."""
    zero: tuple[str, ...] = ()
    """Options, beside seeds, whose whole number may be 0."""
    factors: tuple[str, ...] = FACTORS
    """Columns of the run table that it is about. Runs that differ in anything else are answered apart."""
    check: Callable[..., None] | None = None
    """Raises UserError for options that cannot be. Its parameters are some of the question's options, by name. It is
    called before anything is loaded or written; of whoever calls the function itself, by the function."""

    @property
    def asks_model(self) -> bool:
        """Whether the model, where it is at hand, decides the answer."""
        return self.lm or self.vocabulary or self.gauge or self.words

    @property
    def given(self) -> tuple[str, ...]:
        """The keyword arguments that it declares."""
        return tuple(name for name in GIVEN if getattr(self, name) or (name == "vocabulary" and self.words))


def question(
    *,
    of: bool = False,
    convention: bool = False,
    lm: bool = False,
    vocabulary: bool = False,
    gauge: bool = False,
    words: bool = False,
    claims: Sequence[str] = (),
    zero: Sequence[str] = (),
    factors: Sequence[str] = (),
    check: Callable[..., None] | None = None,
) -> Callable[[Function], Function]:
    """Declares a question function; see Question for what each argument means.

    factors: beside task, init and seed.
    """

    def declare(function: Function) -> Function:
        about = (*FACTORS, *factors)
        declared = Question(of, convention, lm, vocabulary, gauge, words, tuple(claims), tuple(zero), about, check)
        setattr(function, ATTRIBUTE, declared)
        return function

    return declare


def declaration(function: Callable[..., Any]) -> Question:
    """What a function declares; one that declares nothing is given the runs and its options alone."""
    return getattr(function, ATTRIBUTE, Question())
