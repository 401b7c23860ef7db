"""Which rows does the toy grammar have? Short sentences in four of SuperGLUE's schemas: the tasks toy_cb, toy_rte, ...

python -m promptgeo.tiny.grammar writes the bundled files. What is true of a row follows from its words by one rule:
- CB: what is known is so, what is pretended is not, what is thought may be; a "not" in the hypothesis turns it round.
- RTE: a hypothesis follows where each of its words stands in the premise.
- COPA: the causes and effects of EVENTS.
- WSC: a living noun has a quality of LIVING, a thing one of THINGS.
Each word that the rule does not read is drawn without looking at the label. Of two words that it reads together, one
alone says something too ("not" is rare, qualities of the living are frequent): such rules are learned sooner.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from promptgeo.tiny.tokenizer import INIT_WORDS

FOLDER = Path(__file__).parents[1] / "data" / "bundled" / "toy_superglue"
SPLITS = {"train": 64, "validation": 32, "test": 160}
"""Split -> its rows."""
SEED = 15

PEOPLE = ("Ann", "Ben", "Eva", "Ida", "Jon", "Kim", "Leo", "Max", "Mia", "Sam", "Tom", "Zoe")
QUALITIES = ("big", "little", "old", "new", "red", "blue", "green", "black", "white", "warm", "cold", "wet", "dry")
PLACES = ("on", "under", "near", "behind", "beside", "above")
SO, NOT_SO, OPEN = "entailment", "contradiction", "neutral"
ATTITUDES = {
    SO: ("knows", "sees", "proves", "notices"),
    NOT_SO: ("pretends", "dreams", "imagines", "lies"),
    OPEN: ("thinks", "hopes", "says", "guesses"),
}
"""What follows from "Ann ... that it is so" about whether it is so."""
OPPOSITE = {SO: NOT_SO, NOT_SO: SO, OPEN: OPEN}
EVENTS = (
    ("was hungry", "ate the bread"),
    ("was thirsty", "drank the milk"),
    ("was tired", "went to bed"),
    ("was late", "began to run"),
    ("was cold", "put on a coat"),
    ("was hot", "opened the window"),
    ("was sick", "called the doctor"),
    ("was lost", "asked the way"),
    ("fell down", "broke a leg"),
    ("won the race", "got a prize"),
    ("told a joke", "made us laugh"),
    ("heard a noise", "woke up"),
)
"""Cause and effect."""
ANIMALS = ("cat", "dog", "bird", "horse", "cow", "fox")
GOODS = ("book", "house", "chair", "table", "pen", "paper")
LIVING = ("hungry", "tired", "asleep", "awake", "angry", "happy")
THINGS = ("broken", "empty", "full", "wooden", "dusty", "painted")

T = TypeVar("T")


class Draw:
    """Choices by chance. (Only Generator.random is used: its numbers stay the same across versions of NumPy.)"""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def one(self, items: Sequence[T], but: Sequence[T] = ()) -> T:
        """One of the items, none of `but`."""
        left = [item for item in items if item not in but]
        return left[int(self.rng.random() * len(left))]

    def order(self, items: Sequence[T]) -> list[T]:
        return [items[i] for i in np.argsort(self.rng.random(len(items)))]


def commitment(draw: Draw, label: str) -> dict[str, Any]:
    turned = draw.one((False, False, True))
    attitude = draw.one(ATTITUDES[OPPOSITE[label] if turned else label])
    noun, quality = draw.one(INIT_WORDS), draw.one(QUALITIES)
    return {
        "premise": f"{draw.one(PEOPLE)} {attitude} that the {noun} is {quality}.",
        "hypothesis": f"The {noun} is {'not ' if turned else ''}{quality}.",
    }


def inclusion(draw: Draw, label: str) -> dict[str, Any]:
    noun, place = draw.one(INIT_WORDS), draw.one(PLACES)
    other = draw.one(INIT_WORDS, but=[noun])
    premise = f"The {draw.one(QUALITIES)} {noun} is {place} the {other}."
    if label == "not_entailment":
        changed = draw.one(("noun", "place", "other"))
        if changed == "place":
            place = draw.one(PLACES, but=[place])
        else:
            new = draw.one(INIT_WORDS, but=[noun, other])
            noun, other = (new, other) if changed == "noun" else (noun, new)
    return {"premise": premise, "hypothesis": f"The {noun} is {place} the {other}."}


def alternatives(draw: Draw, label: int) -> dict[str, Any]:
    person, event, other = draw.one(PEOPLE), *draw.order(EVENTS)[:2]
    question, given, asked = draw.one((("effect", 0, 1), ("cause", 1, 0)))
    right, wrong = (f"{person} {of[asked]}." for of in (event, other))
    first, second = (wrong, right) if label else (right, wrong)
    return {"premise": f"{person} {event[given]}.", "choice1": first, "choice2": second, "question": question}


def reference(draw: Draw, label: bool) -> dict[str, Any]:
    kinds = draw.order((ANIMALS, GOODS))
    first, second = (draw.one(kind) for kind in kinds)
    living = draw.one((True, True, False))
    start = 0 if (kinds[0] is ANIMALS) == (living == label) else 4
    quality = draw.one(LIVING if living else THINGS)
    text = f"The {first} is {draw.one(PLACES)} the {second} because it is {quality}."
    spans = {"span1_text": " ".join(text.split()[start : start + 2]), "span2_text": "it"}
    return {"text": text, "target": {**spans, "span1_index": start, "span2_index": 7}}


@dataclass(frozen=True)
class Schema:
    """One of the four tasks."""

    folder: str
    """As SuperGLUE calls it."""
    input: str
    """What a row becomes: task.source.input of its YAML."""
    words: dict[Any, str]
    """A label as the column holds it -> as the model writes it."""
    deck: tuple[Any, ...]
    """Labels as often as they come: each so many rows hold just these."""
    write: Callable[[Draw, Any], dict[str, Any]]
    """A row with this label, without the label."""


PAIR = "Premise: {premise}\nHypothesis: {hypothesis}"
SCHEMAS = {
    "cb": Schema("CB", PAIR, {word: word for word in (SO, NOT_SO, OPEN)}, (SO, NOT_SO, SO, NOT_SO, OPEN), commitment),
    "rte": Schema("RTE", PAIR, {SO: SO, "not_entailment": "not entailment"}, (SO, "not_entailment"), inclusion),
    "copa": Schema(
        "COPA",
        "Premise: {premise}\nQuestion: {question}\nchoice1: {choice1}\nchoice2: {choice2}",
        {0: "choice1", 1: "choice2"},
        (0, 1),
        alternatives,
    ),
    "wsc": Schema(
        "WSC",
        "Text: {text}\nspan1_text: {target.span1_text}\nspan2_text: {target.span2_text}",
        {False: "false", True: "true"},
        (False, True),
        reference,
    ),
}


def rows(schema: Schema) -> Iterator[dict[str, Any]]:
    """Its rows, no two alike, thousands of them; the same each time. The first are bundled."""
    draw, seen = Draw(SEED), set()
    while True:
        for label in draw.order(schema.deck):
            row = schema.write(draw, label)
            while str(row) in seen:
                row = schema.write(draw, label)
            seen.add(str(row))
            yield {**row, "label": label, "idx": len(seen) - 1}


def write(folder: Path = FOLDER) -> None:
    """The bundled files: <schema>/<split>.jsonl."""
    for schema in SCHEMAS.values():
        stream = rows(schema)
        for split, count in SPLITS.items():
            path = folder / schema.folder / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(next(stream)) + "\n" for _ in range(count)]
            path.write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write (%(default)s)")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
