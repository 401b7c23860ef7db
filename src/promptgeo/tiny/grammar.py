"""Which rows does the toy grammar have? Short sentences in four of SuperGLUE's schemas: the tasks toy_cb, toy_rte, ...

python -m promptgeo.tiny.grammar writes the bundled files. What is true of a row follows from its words by one rule:
- CB: what is known is so, what is pretended is not, what is thought may be; a "not" in the hypothesis turns it round.
- RTE: who gets a thing has it, who parts with it lacks it.
- COPA: of each of EVENTS one choice is the cause, the other the effect.
- WSC: a living noun has a quality of LIVING, a thing one of THINGS.
Each word that the rule does not read is drawn without looking at the label. A rule reads two words together, of which
one is mostly of one kind (FREQUENT): the other alone says the label so often, and the rule is learned in hours.
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
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = ("today", "again", "at noon", "at home", "at night", "in town", "at work", "at school")
TIMES = (*PARTS, *(f"in {month}" for month in MONTHS), *(f"on {day}" for day in DAYS))
FREQUENT = 0.8
"""How often the second word of a rule is of its more frequent kind: no "not", "has", "effect", a living quality."""
SO, NOT_SO, OPEN = "entailment", "contradiction", "neutral"
ATTITUDES = {
    SO: ("knows", "sees", "proves", "notices"),
    NOT_SO: ("pretends", "dreams", "imagines", "lies"),
    OPEN: ("thinks", "hopes", "says", "guesses"),
}
"""What follows from "Ann ... that it is so" about whether it is so."""
OPPOSITE = {SO: NOT_SO, NOT_SO: SO, OPEN: OPEN}
GETS = ("buys", "finds", "wins", "keeps", "takes", "borrows")
GIVES = ("sells", "loses", "drops", "returns", "burns", "forgets")
HAS, LACKS = ("has", "owns", "holds"), ("lacks", "misses", "needs")
EVENTS = (
    ("had no food", "was hungry", "ate the bread"),
    ("had no water", "was thirsty", "drank the milk"),
    ("worked all day", "was tired", "went to bed"),
    ("missed the bus", "was late", "began to run"),
    ("sat in the snow", "was cold", "put on a coat"),
    ("sat in the sun", "was hot", "opened the window"),
    ("ate old fish", "was sick", "called the doctor"),
    ("had no map", "was lost", "asked the way"),
    ("did not look", "fell down", "broke a leg"),
    ("was the fastest", "won the race", "got a prize"),
    ("was in good mood", "told a joke", "made us laugh"),
    ("slept badly", "heard a noise", "woke up"),
)
"""Cause, event, effect."""
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

    def frequent(self) -> bool:
        """Whether a word is of its rule's more frequent kind."""
        return bool(self.rng.random() < FREQUENT)

    def order(self, items: Sequence[T]) -> list[T]:
        return [items[i] for i in np.argsort(self.rng.random(len(items)))]


def commitment(draw: Draw, label: str) -> dict[str, Any]:
    turned = not draw.frequent()
    attitude = draw.one(ATTITUDES[OPPOSITE[label] if turned else label])
    noun, quality = draw.one(INIT_WORDS), draw.one(QUALITIES)
    return {
        "premise": f"{draw.one(PEOPLE)} {attitude} that the {noun} is {quality}.",
        "hypothesis": f"The {noun} is {'not ' if turned else ''}{quality}.",
    }


def possession(draw: Draw, label: str) -> dict[str, Any]:
    has = draw.frequent()
    verb = draw.one(GETS if has == (label == SO) else GIVES)
    person, noun = draw.one(PEOPLE), draw.one(INIT_WORDS)
    return {
        "premise": f"{person} {verb} the {draw.one(QUALITIES)} {noun}.",
        "hypothesis": f"{person} {draw.one(HAS if has else LACKS)} the {noun}.",
    }


def alternatives(draw: Draw, label: int) -> dict[str, Any]:
    person, (cause, event, effect) = draw.one(PEOPLE), draw.one(EVENTS)
    question = "effect" if draw.frequent() else "cause"
    right, wrong = (effect, cause) if question == "effect" else (cause, effect)
    first, second = (f"{person} {what}." for what in ((wrong, right) if label else (right, wrong)))
    premise = f"{person} {event} {draw.one(TIMES)}."
    return {"premise": premise, "choice1": first, "choice2": second, "question": question}


def reference(draw: Draw, label: bool) -> dict[str, Any]:
    kinds = draw.order((ANIMALS, GOODS))
    first, second = (draw.one(kind) for kind in kinds)
    living = draw.frequent()
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
    "rte": Schema("RTE", PAIR, {SO: SO, "not_entailment": "not entailment"}, (SO, "not_entailment"), possession),
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
