"""Which words are a column's labels? Words, places in task.labels, or classes with names: decided once for all."""

import logging
import re
from collections.abc import Sequence

from promptgeo.errors import UserError

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"\s*[+-]?[\d.]+\s*")

Labelled = tuple[str, tuple[str, ...]]
"""An example, as errors call it, and its accepted answers."""


def named(
    column: Sequence[Labelled],
    labels: list[str] | None,
    classes: list[str] | None,
    place: str,
    name: str,
    declared: bool = False,
) -> list[tuple[str, ...]]:
    """The column's labels as words.

    Args:
        column: every example that the task uses.
        labels: the label set (task.labels), where there is one.
        classes: the names of the classes that the column holds by number, where the data set names them.
        place: the source, as errors call it.
        name: the column.
        declared: the task names the classes (task.source.classes): one word of the set stands for each, in order, and
            the column may hold names as well as numbers.

    Raises UserError naming the first example whose label is none of the set, and where the column can be read in two
    ways.
    """
    if labels is not None:
        several = next((where for where, answers in column if len(answers) > 1), None)
        if several:
            raise UserError(f"{several} has several accepted answers in column {name!r}: task.labels needs one of each")
    if declared and classes is not None and labels is not None:
        return _of_declared(column, labels, classes, place, name)
    if classes is not None:
        return _of_classes(column, labels, classes, name)
    if labels is None:
        return [answers for _, answers in column]
    return [(word,) for word in _of_set(column, labels, place, name)]


_HINT = "; what the column calls its classes, in the order of task.labels, is task.source.classes=[...]"


def _of_set(column: Sequence[Labelled], labels: list[str], place: str, name: str) -> list[str]:
    given = [answers[0] for _, answers in column]
    by_number = [index(label, len(labels)) for label in given]
    words = set(labels)
    numbers = [number for number in by_number if number is not None]
    if len(numbers) == len(given):
        other = next((label for label in given if label in words and labels[int(label)] != label), None)
        if other is not None:
            raise UserError(
                f"{place}: column {name!r} can be read in two ways: {other} as the word {other!r} of task.labels or as "
                f"its number, which is {labels[int(other)]!r}; write other words into the file and task.labels"
            )
        return [labels[number] for number in numbers]
    # One word of the set among them: the column holds words, and a number in it is a mistake.
    holds_words = any(label in words for label in given)
    for (where, (label, *_)), number in zip(column, by_number, strict=True):
        if label not in words if holds_words else number is None:
            raise UserError(f"{where} has the label {label!r}, which is not in task.labels={labels}{_HINT}")
    return given


def _of_classes(
    column: Sequence[Labelled], labels: list[str] | None, classes: list[str], name: str
) -> list[tuple[str, ...]]:
    # The label set may list the classes in another order; other words stand for the classes in the order of their
    # numbers.
    words = classes if labels is None or set(labels) == set(classes) else labels
    if labels is not None and words is not classes:
        alike = {c.casefold().strip() for c in classes} & {word.casefold().strip() for word in labels}
        if alike or len(labels) != len(classes):
            raise UserError(
                f"column {name!r} has the classes {classes}, task.labels={labels}: it is not clear which word is which "
                "class; give as many words as classes, all of them other words, or the classes' own names in any order"
            )
    if words is not classes:
        pairs = ", ".join(f"{old} -> {new}" for old, new in zip(classes, words, strict=False))
        log.info("labels in column %r: %s", name, pairs)
    named = []
    for where, answers in column:
        numbers = [index(answer, len(words)) for answer in answers]
        if None in numbers:
            hidden = not {"-1", "-1.0"}.isdisjoint(answers)
            what = "the hidden label -1 (a benchmark's own secret)" if hidden else f"the label {answers[0]!r}"
            way = "name another split with task.split.test=" if hidden else f"it is none of {words}"
            raise UserError(f"{where} has {what}: {way}")
        named.append(tuple(words[number] for number in numbers if number is not None))
    return named


def _of_declared(
    column: Sequence[Labelled], labels: list[str], classes: list[str], place: str, name: str
) -> list[tuple[str, ...]]:
    places = {known.casefold(): i for i, known in enumerate(classes)}
    # Where a class is called by a number, every other number is none of them, and no place.
    by_place = not any(_NUMBER.fullmatch(known) for known in classes)
    words: list[tuple[str, ...]] = []
    for where, (label, *_) in column:
        number = places.get(label.casefold(), index(label, len(classes)) if by_place else None)
        if number is None:
            hidden = label in ("-1", "-1.0")
            what = "the hidden label -1 (a benchmark's own secret)" if hidden else f"the label {label!r}"
            way = "name another split with task.split.test=" if hidden else f"none of task.source.classes={classes}"
            raise UserError(f"{where} has {what} in column {name!r}: {way}")
        words.append((labels[number],))
    return words


def index(label: str, count: int) -> int | None:
    """The place, from 0, that a label names among `count`; None where it names none."""
    # Longer numbers are no places; thousands of digits are an error to int.
    number = int(label) if label.isascii() and label.isdecimal() and len(label) <= 9 else count
    return number if number < count else None
