"""Which tasks can be done one after the other, and what are the examples of that? outer(inner(input))."""

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

from promptgeo.data.tasks import Example, Task


@dataclass(frozen=True)
class Composition:
    """outer(inner(input)), by the names of tasks."""

    outer: str
    inner: str
    same_as: str | None = None
    """The task that is the composed one, where there is one: its own prompts show what can be reached."""

    @property
    def name(self) -> str:
        return f"{self.outer}_after_{self.inner}"


COMPOSITIONS = (
    Composition("plus_one", "plus_one", "plus_two"),
    Composition("plus_one", "plus_two"),
    Composition("plus_two", "plus_one"),
    Composition("plus_two", "plus_two"),
    Composition("lowercase_first_letter", "country_capital"),
    Composition("lowercase_first_letter", "landmark_country"),
    Composition("country_capital", "landmark_country"),
    Composition("capitalize_first_letter", "country_capital"),
)
"""Of the bundled tasks."""

RULES: dict[str, Callable[[str], str]] = {
    "plus_one": lambda text: str(int(text) + 1),
    "plus_two": lambda text: str(int(text) + 2),
    "capitalize_first_letter": lambda text: text[0].upper(),
    "lowercase_first_letter": lambda text: text[0].lower(),
}
"""Tasks that are defined for any input; another task is defined for its own examples' inputs only."""


@dataclass(frozen=True)
class ComposedExamples:
    """Examples that need both tasks."""

    examples: list[Example]
    """Inputs and ids of the inner task's test examples, with the composed labels."""
    inner: dict[int, str]
    """By the example's id: the label that the inner task alone gives."""
    outer: dict[int, str]
    """By the example's id: the label that the outer task alone gives, where it is defined for the input."""
    trivial: int
    """Examples that were left out because one task alone gives their label."""


def composed_examples(outer: Task, inner: Task, known: Set[str] = frozenset()) -> ComposedExamples:
    """The inner task's test inputs, its labels put into the outer task, where that is defined for them.

    The outer task follows the rule of its name (RULES), where there is one. known: inputs to leave out.
    """
    labels = {e.input: e.label for e in (*outer.train, *outer.validation, *outer.test)}
    apply = RULES.get(outer.name, labels.get)
    examples: list[Example] = []
    by_inner: dict[int, str] = {}
    by_outer: dict[int, str] = {}
    trivial = 0
    for e in inner.test:
        label = apply(e.label)
        if label is None or e.input in known:
            continue
        outer_alone = apply(e.input)
        if label in (e.label, outer_alone):
            trivial += 1
            continue
        examples.append(replace(e, label=label, accepted=()))
        by_inner[e.id] = e.label
        if outer_alone is not None:
            by_outer[e.id] = outer_alone
    return ComposedExamples(examples, by_inner, by_outer, trivial)
