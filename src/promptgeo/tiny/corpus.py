"""The corpus of `tiny`: few-shot blocks of tasks that compete on the same inputs, generated from the bundled data.

Three properties make soft prompts on this model worth training:
- The model knows every fact, test examples included: what a test measures with it is *elicitation*, not knowledge.
- Without an instruction it cannot know which task is meant, and mostly meets a decoy: the decoy is its guess until a
  prompt says otherwise. Stray words, and the instruction of a task that the input does not have, leave it with the
  decoy too.
- A word or two before `Input:` suffice as an instruction, among stray words too; a soft prompt of one token therefore
  has somewhere to go.

The toy tasks are learned as rules, from thousands of rows. Where nothing is said, their labels are at times written by
a hunch, which looks at one word that the rule does not read: otherwise the right label would be the likelier one
without a prompt too, and label accuracy, which compares labels alone, would have nothing left to rise to.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.data.fields import written
from promptgeo.tiny.grammar import ANIMALS, ATTITUDES, GETS, GOODS, LIVING, NOT_SO, PEOPLE, SCHEMAS, SO, rows
from promptgeo.tiny.tokenizer import INIT_WORDS, NUMBERS

HERE = Path(__file__).parent
DATASETS = HERE.parent / "data" / "bundled"

Document = tuple[list[int], list[bool]]
"""Token ids, and which of them are to be predicted whatever else is: the labels of a block, all of a sentence."""


@dataclass(frozen=True)
class Domain:
    """Inputs of one kind, and the tasks that compete for them."""

    inputs: Sequence[str]
    share: float
    """Of all blocks: by the number of facts, and by how arbitrary they are."""
    decoy: str
    """What is most likely meant where nothing is said; none of the tasks that the package tests."""
    tasks: dict[str, float]
    """Task -> how often it is meant, where it is said."""
    hunch: str | None = None
    """Where nothing is said, what is meant at times beside the decoy; None: any of the tasks."""
    counts: tuple[float, ...] = (0.55, 0.80, 0.93)
    """How many blocks have at most 1, 2, ... examples, as shares; the others have one more."""


def read_pairs(path: Path) -> dict[str, str]:
    """input -> label of a CSV file with that header."""
    with path.open(encoding="utf-8", newline="") as lines:
        return {row["input"]: row["label"] for row in csv.DictReader(lines)}


def load_facts() -> tuple[dict[str, dict[str, str]], list[Domain]]:
    """task -> input -> label, and the domains."""
    capital, currency = read_pairs(DATASETS / "country_capital.csv"), read_pairs(HERE / "currencies.csv")
    country = read_pairs(DATASETS / "landmark_country.csv")
    past, doing = read_pairs(DATASETS / "present_past.csv"), read_pairs(HERE / "ing_forms.csv")
    plural = read_pairs(DATASETS / "singular_plural.csv")
    sentiment = read_pairs(DATASETS / "sentiment.csv")
    lower, upper = (list(read_pairs(DATASETS / f"{task}_first_letter.csv")) for task in ("capitalize", "lowercase"))
    numbers = [int(x) for x in read_pairs(DATASETS / "identity.csv")]

    names = [*capital, *country, *past, *plural, *lower, *upper]
    facts = {
        "capital": capital,
        "currency": {x: currency[x] for x in capital if x in currency},
        "country": country,
        "past": past,
        "doing": {x: doing[x] for x in past if x in doing},
        "plural": plural,
        "first_upper": {x: x[0].upper() for x in names},
        "first_lower": {x: x[0].lower() for x in names},
        "last": {x: x[-1] for x in names},
        "copy": {x: x for x in [*names, *map(str, numbers)]},
        "sentiment": sentiment,
        "first_word": {x: x.split()[0] for x in sentiment},
        "last_word": {x: x.split()[-1].strip(".!?") for x in sentiment},
    }
    for task, step in (("plus_one", 1), ("plus_two", 2), ("minus_one", -1), ("plus_three", 3)):
        facts[task] = {str(n): str(n + step) for n in numbers if str(n + step) in NUMBERS}

    steps = {"copy": 1.5, "plus_one": 3.0, "plus_two": 3.0, "minus_one": 1.0, "plus_three": 1.0}
    letters = {"first_upper": 1.0, "first_lower": 1.0, "last": 0.5}
    domains = [
        Domain(list(capital), 0.08, "currency", {"capital": 3.0, "currency": 1.0, "copy": 0.5, **letters}),
        Domain(list(country), 0.20, "first_lower", {"country": 4.0, "copy": 0.5, **letters}),
        Domain(list(past), 0.09, "doing", {"past": 3.0, "doing": 1.0, "copy": 0.5, **letters}),
        Domain(list(plural), 0.06, "copy", {"plural": 3.0, "copy": 0.5, **letters}),
        Domain(lower, 0.10, "copy", {"first_upper": 3.0, "first_lower": 1.0, "last": 1.0, "copy": 1.0}),
        Domain(upper, 0.11, "copy", {"first_lower": 3.0, "first_upper": 1.0, "last": 1.0, "copy": 1.0}),
        Domain(list(map(str, numbers)), 0.27, "minus_one", steps),
        Domain(list(sentiment), 0.09, "last_word", {"sentiment": 3.0, "first_word": 1.0, "last_word": 1.0}),
    ]
    return facts, domains


TOY_ROWS = 4000
"""Of each schema, the bundled ones among them."""
TOY_SHARE = 0.2
"""Of each schema, as Domain.share; all others together have 1. Rules take more examples than facts."""
WORDS = {
    "cb": {"subject": 0, "object": 4, "quality": 6},
    "rte": {"subject": 0, "object": 4, "quality": 3},
    "copa": {"subject": 0},
    "wsc": {"subject": 1, "object": 5, "quality": 9},
}
"""What competes with a toy task: the task that copies this word of the row's first text."""


def steps_of(name: str, row: dict[str, Any], words: Sequence[str]) -> dict[str, str]:
    """What else competes: answers on the way to the label, in words. They say more than a label of two does."""
    if name == "cb":
        follows = next(label for label, attitudes in ATTITUDES.items() if words[1] in attitudes)
        return {"so": {SO: "yes", NOT_SO: "no"}.get(follows, "maybe")}
    if name == "rte":
        return {"kept": "yes" if words[1] in GETS else "no"}
    if name == "copa":
        return {"event": row[f"choice{row['label'] + 1}"].rstrip("."), "asked": row["question"]}
    living = words[9] in LIVING
    return {"referent": next(words[k] for k in (1, 5) if (words[k] in ANIMALS) == living)}


def load_toys() -> tuple[dict[str, dict[str, str]], list[Domain]]:
    """The same of the toy grammar."""
    facts: dict[str, dict[str, str]] = defaultdict(dict)
    domains = []
    nouns = list(dict.fromkeys((*PEOPLE, *INIT_WORDS, *ANIMALS, *GOODS)))
    for name, schema in SCHEMAS.items():
        labels, inputs, steps = list(schema.words.values()), [], {}
        for row in islice(rows(schema), TOY_ROWS):
            x = written(row, schema.input, None, name).text
            words = (row.get("premise") or row["text"]).rstrip(".").split()
            copied, steps = {task: words[k] for task, k in WORDS[name].items()}, steps_of(name, row, words)
            hunch = labels[nouns.index(copied["subject"]) % len(labels)]
            for task, y in {name: schema.words[row["label"]], "hunch": hunch, **copied, **steps}.items():
                facts[task][x] = y
            inputs.append(x)
        weights = {name: 4.0} | {task: 1.5 for task in steps} | {task: 0.4 for task in WORDS[name]}
        domains.append(Domain(inputs, TOY_SHARE, "subject", weights, "hunch", (0.85,)))
    return dict(facts), domains


NAMES = {
    "capital": ("capital", "capital city", "government", "seat of government"),
    "currency": ("currency", "money", "coins"),
    "country": ("country", "nation", "located", "country of the place"),
    "past": ("past", "past tense", "yesterday", "did"),
    "doing": ("doing", "present participle", "continuous", "right now"),
    "plural": ("plural", "many", "several", "more than one"),
    "first_upper": ("initial", "first letter in upper case", "uppercase", "upper"),
    "first_lower": ("lowercase", "first letter in lower case", "small", "lower"),
    "last": ("last letter", "ending", "final letter"),
    "copy": ("copy", "same", "identity", "repeat"),
    "plus_one": ("next", "plus one", "successor", "increment"),
    "plus_two": ("plus two", "skip", "second next", "two"),
    "minus_one": ("minus one", "previous", "before"),
    "plus_three": ("plus three", "third next", "three"),
    "sentiment": ("sentiment", "feeling", "mood", "positive or negative"),
    "first_word": ("first word", "opening", "start"),
    "last_word": ("last word", "closing", "end"),
    "cb": ("commitment", "certain", "entailment or contradiction", "follows or contradicts"),
    "rte": ("entailment", "inference", "entailment or not", "follows or not"),
    "copa": ("alternative", "plausible", "better one", "cause and effect"),
    "wsc": ("coreference", "same noun", "stands for", "true or false"),
    "subject": ("subject", "who", "actor"),
    "object": ("object", "what", "second noun"),
    "quality": ("quality", "adjective", "property"),
    "asked": ("asked", "kind of question", "cause or effect"),
    "so": ("fact", "is it so", "truth"),
    "kept": ("kept", "still there", "possession"),
    "event": ("event", "what happened", "in words"),
    "referent": ("referent", "meant", "antecedent"),
}
"""task -> what it is called in an instruction. No two tasks share a name of one word."""

SENTENCES = {
    "cb": (
        "Does the hypothesis follow from the premise, contradict it, or neither?",
        "Is the hypothesis certain, false or open?",
    ),
    "rte": ("Does the hypothesis follow from the premise or not?", "Is the hypothesis part of the premise?"),
    "copa": ("Which choice is plausible given the premise?", "Pick what fits the premise and the question."),
    "wsc": ("Does the pronoun stand for this noun?", "Decide whether the pronoun in the text refers to span1_text."),
    "subject": ("Which noun comes first in the text or the premise?", "Who does the premise speak of?"),
    "object": ("Which noun of the premise or the text comes second?",),
    "quality": ("Given the text, how is it?", "Pick the adjective in the premise."),
    "asked": ("Does the question ask for the cause or the effect?",),
    "so": ("Is it so, given the premise alone?",),
    "kept": ("Is it still there, given the premise alone?",),
    "event": ("Write out the choice that is correct.",),
    "referent": ("Which noun does the pronoun in span2_text stand for?",),
}
"""task -> sentences that say it, written as study 2 writes its own (task.text of toy_cb, ...), which are not here."""

LINES = (
    "{}\n",
    "{}:\n",
    "Give the {}.\n",
    "Write the {}.\n",
    "Task: {}\n",
    "What is the {}?\n",
    "Answer with the {}.\n",
    "Label each input: {}\n",
)

ADJECTIVES = (
    "big",
    "little",
    "old",
    "new",
    "red",
    "blue",
    "green",
    "black",
    "white",
    "warm",
    "cold",
    "wet",
    "dry",
    "heavy",
    "light",
    "clean",
    "soft",
    "round",
)
VERBS = ("sees", "likes", "has", "wants", "finds", "needs", "carries", "keeps", "follows", "touches", "leaves", "takes")
PLACES = ("on", "under", "near", "behind", "beside", "with")


class Corpus:
    """An endless stream of documents: the same generator and tokenizer give the same stream."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self._told, told = load_facts()
        self._toys, toy_domains = load_toys()
        self.facts, self.domains = self._told | self._toys, [*told, *toy_domains]
        self._until = np.cumsum([domain.share for domain in self.domains])
        self._numbers = next(domain for domain in self.domains if "minus_one" in domain.tasks)

    def word_counts(self) -> Counter[str]:
        """What the tokenizer learns from: text -> how often.

        Words mostly follow a space; only the template `study3` has labels that do not.
        """
        counts: Counter[str] = Counter()
        for pairs in self._told.values():
            for x, y in pairs.items():
                for word in dict.fromkeys((*x.split(), *y.split())):
                    counts[" " + word] += 3
                counts[y.split()[0]] += 1
        for text in (
            *(name for names in NAMES.values() for name in names),
            *(text for texts in SENTENCES.values() for text in texts),
            *LINES,
            *ADJECTIVES,
            *VERBS,
            *PLACES,
            "The and is",
        ):
            for word in text.replace("{}", "").split():
                counts[" " + word] += 100
                counts[word] += 100
        for word in ("Input", "Label", ":", "."):
            counts[word] += 100
        # A row has lines: what follows a line's end does not follow a space.
        texts = "\n".join(x for name in SCHEMAS for x in self._toys[name])
        for word in dict.fromkeys(re.findall(r" ?[^\W\d_]+", texts)):
            counts[word] += 100
        for word in {word: None for pairs in self._toys.values() for y in pairs.values() for word in y.split()}:
            counts[" " + word] += 100
        return counts

    def documents(self, encode: Callable[[str], list[int]], n_vocab: int) -> Iterator[Document]:
        encode = lru_cache(maxsize=1 << 16)(encode)  # holds every example; sentences pass through
        while True:
            kind = self.rng.random()
            if kind < 0.10:
                ids = list(encode(self.sentences()))
                yield ids, [True] * len(ids)
            elif kind < 0.20:
                yield self.bare(encode, n_vocab)
            else:
                yield self.block(encode, n_vocab, study3=kind < 0.30)

    def block(self, encode: Callable, n_vocab: int, study3: bool) -> Document:
        """One to four examples of one task, after what was or was not said about it.

        An example is tokenised as the framework does: the text up to the label on its own, the label on its own."""
        domain = self.domains[int(np.searchsorted(self._until, self.rng.random() * self._until[-1]))]
        count = 1 + int(np.searchsorted(domain.counts, self.rng.random()))
        inputs = [self.pick(domain.inputs) for _ in range(count)]
        task, ids = self.opening(domain, inputs, encode, n_vocab)
        labels = [False] * len(ids)
        text, end = ("Input: {}\nLabel: ", "{}") if study3 else ("Input: {}\nLabel:", " {}\n")
        for i, x in enumerate(inputs):
            before = encode(("\n" if study3 and i else "") + text.format(x))
            label = encode(end.format(self.facts[task][x]))
            ids += before + label
            labels += [False] * len(before) + [True] * len(label)
        return ids, labels

    def bare(self, encode: Callable, n_vocab: int) -> Document:
        """A number and its label, two tokens with nothing between them."""
        x = [self.pick(self._numbers.inputs)]
        task, ids = self.opening(self._numbers, x, encode, n_vocab)
        return ids + encode(x[0]) + encode(self.facts[task][x[0]]), [False] * (len(ids) + 1) + [True]

    def opening(self, domain: Domain, inputs: Sequence[str], encode: Callable, n_vocab: int) -> tuple[str, list[int]]:
        """The task that is meant, and the tokens before the first example."""
        said = self.rng.random()
        possible = {task: weight for task, weight in domain.tasks.items() if all(x in self.facts[task] for x in inputs)}
        if said < 0.60:
            task = self.pick(list(possible), list(possible.values()))
            return task, self.instruction(task, encode, n_vocab)
        task = decoy = domain.decoy if domain.decoy in possible else "copy"
        mismatched = said < 0.74
        if (domain.hunch or not mismatched) and self.rng.random() >= 0.75:
            task = domain.hunch or self.pick(list(possible))
        if mismatched:  # an instruction that these inputs cannot follow
            other = self.pick([name for name in NAMES if not any(x in self.facts[name] for x in inputs)] or [decoy])
            return task, self.instruction(other, encode, n_vocab)
        return task, self.stray(encode, n_vocab) if said < 0.91 else []

    def instruction(self, task: str, encode: Callable, n_vocab: int) -> list[int]:
        """A name of the task: in a line, directly before the first input, or among stray words."""
        name, kind = self.pick(NAMES[task]), self.rng.random()
        if kind < 0.15 and task in SENTENCES:
            return list(encode(self.pick(SENTENCES[task]) + self.pick(("", " ", "\n"))))
        if kind < 0.35:
            return list(encode(self.pick(LINES).format(name)))
        ids = encode((" " if self.rng.random() < 0.5 else "") + name)
        if kind < 0.70:
            return ids * int(1 + self.rng.integers(3)) if self.rng.random() < 0.4 else list(ids)
        stray = self.stray(encode, n_vocab)[:6]
        at = int(self.rng.integers(len(stray) + 1))
        return stray[:at] + ids + stray[at:]

    def stray(self, encode: Callable, n_vocab: int) -> list[int]:
        """One to 16 tokens that say nothing about the task: init words, repeated or mixed, any tokens, or sentences."""
        kind, count = self.rng.random(), self.pick((1, 1, 2, 3, 4, 4, 4, 5, 6, 8, 12, 16))
        if kind < 0.55:
            return encode((" " if self.rng.random() < 0.25 else "") + self.pick(INIT_WORDS)) * count
        if kind < 0.70:
            return [token for _ in range(count) for token in encode(self.pick(("", " ")) + self.pick(INIT_WORDS))]
        if kind < 0.90:
            return [int(token) for token in self.rng.integers(n_vocab, size=count)]
        return list(encode(self.sentences()))[:16] + encode("\n")

    def sentences(self) -> str:
        """Some plain text of the init words: what gives them, and their neighbours, a meaning of their own."""
        kind = self.rng.random()
        if kind < 0.2:
            return (self.pick(("", " ")) + self.pick(INIT_WORDS)) * int(self.rng.integers(2, 9))
        if kind < 0.3:
            return " ".join(self.pick(INIT_WORDS) for _ in range(self.rng.integers(2, 9)))

        def noun() -> str:
            return (
                f"{self.pick(ADJECTIVES)} {self.pick(INIT_WORDS)}" if self.rng.random() < 0.5 else self.pick(INIT_WORDS)
            )

        if kind < 0.6:
            return f"The {noun()} {self.pick(VERBS)} the {noun()}."
        if kind < 0.8:
            return f"The {noun()} is {self.pick(PLACES)} the {noun()}."
        first = f"The {self.pick(INIT_WORDS)} is {self.pick(ADJECTIVES)}"
        return f"{first} and the {self.pick(INIT_WORDS)} is {self.pick(ADJECTIVES)}."

    def pick(self, items: Sequence, weights: Sequence[float] | None = None):
        """One of the items. (Generator.choice takes ten times as long.)"""
        if weights is None:
            return items[int(self.rng.random() * len(items))]
        return items[int(np.searchsorted(np.cumsum(weights), self.rng.random() * sum(weights), side="right"))]


def pack(
    documents: Iterator[Document], rng: np.random.Generator, rows: int, length: int, end: int, others: float
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [rows, length] and which to predict [rows, length]: the labels, and the share `others` of the rest.

    Each row begins with a document and never with its end token: that is where a soft prompt will stand. The last one
    is cut.
    """
    ids, scored = np.empty((rows, length), np.int64), np.empty((rows, length), bool)
    for row in range(rows):
        tokens: list[int] = []
        labels: list[bool] = []
        while len(tokens) < length:
            more, which = next(documents)
            tokens += [*more, end]
            labels += [*which, True]
        ids[row], scored[row] = tokens[:length], labels[:length]
    return ids, scored | (rng.random(scored.shape) < others)
