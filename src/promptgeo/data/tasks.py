"""How do examples become train, validation and test, and rows of token ids?

source -> examples -> split -> template -> rows
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from promptgeo.config import schema
from promptgeo.config.paths import stamps
from promptgeo.config.schema import Split, SplitKind, Template
from promptgeo.data import sources
from promptgeo.data.row import Row
from promptgeo.errors import UserError

log = logging.getLogger(__name__)


class TextModel(Protocol):
    """What a task needs of a model: its tokeniser, and how many positions it has."""

    @property
    def max_positions(self) -> int | None:
        """Most positions (prompt and text, in tokens) the model knows; None where it has no limit."""

    @property
    def token_limit(self) -> int:
        """Token ids from this one on have no embedding: some tokenizers have more tokens than their model."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, special tokens left out."""


@dataclass(frozen=True)
class Example:
    """One input with the label that a model should write after it."""

    id: int
    """Its place in the source, counted over all splits."""
    input: str
    label: str
    repeat: int = 1
    """How many copies of the prompt stand, side by side, wherever the template has {prompt}."""


@dataclass(frozen=True)
class Task:
    """A task's examples, split, and the template they are written in."""

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    template: Template
    labels: list[str] | None = None
    max_input_tokens: int | None = None
    _rows: WeakKeyDictionary[TextModel, dict] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    @classmethod
    def load(cls, config: schema.Task, template: Template) -> "Task":
        """Read and split the data. Raises UserError naming the file, column or example that is wrong."""
        table = sources.read(config)
        numbered, start = {}, 0
        for split, pairs in table.items():
            numbered[split] = [Example(start + i, *pair) for i, pair in enumerate(pairs)]
            start += len(pairs)
        train, validation, test = split_examples(numbered, config.split, config.name)
        if config.split.kind is not SplitKind.all:
            both = {(e.input, e.repeat) for e in train + validation} & {(e.input, e.repeat) for e in test}
            if both:
                shown = min(both)[0][:80]  # the start of a long text is enough to find it
                message = "task %s: %d inputs occur in both train and test, for instance %r"
                log.warning(message, config.name, len(both), shown)
        return cls(config.name, train, validation, test, template, config.labels, config.max_input_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all examples of all splits, in order."""
        splits = [[_content(e) for e in split] for split in (self.train, self.validation, self.test)]
        return "sha256:" + hashlib.sha256(json.dumps([splits, self.labels]).encode()).hexdigest()

    def rows(self, lm: TextModel, examples: Sequence[Example], prompt_length: int) -> list[Row]:
        """Examples as token ids, made once per model.

        `prompt_length` prompt tokens (example.repeat times) stand wherever the template has {prompt}; 0: no prompt.
        Raises UserError naming the example that does not fit the model's positions.
        """
        cache = self._rows.setdefault(lm, {})  # the runs of a grid share their rows, in memory too
        return [self._cached(cache, lm, example, example.label, prompt_length) for example in examples]

    def label_rows(self, lm: TextModel, example: Example, prompt_length: int) -> list[Row]:
        """One row per label of the task's label set, to compare their likelihoods."""
        cache = self._rows.setdefault(lm, {})
        return [self._cached(cache, lm, example, label, prompt_length) for label in self.labels or []]

    def _cached(self, cache: dict, lm: TextModel, example: Example, label: str, prompt_length: int) -> Row:
        key = (example, label, prompt_length)
        if key not in cache:
            cache[key] = self._row(lm, example, label, prompt_length)
        return cache[key]

    def _row(self, lm: TextModel, example: Example, label: str, prompt_length: int) -> Row:
        prompt = [-1 - k for k in range(prompt_length)]
        ids: list[int] = []
        for piece in _pieces(self.template.text):
            if piece == "{prompt}":
                ids += prompt * example.repeat
            else:
                ids += lm.encode(piece.replace("{input}", self._input(lm, example)))
        # Tokenised apart from the text, so that the border between them never depends on the label.
        label_ids = lm.encode(self.template.label.replace("{label}", label) + self.template.end)
        row = Row(np.array(ids, dtype=np.int64), np.array(label_ids, dtype=np.int64))
        where = f"task {self.name}, example {example.id} ({example.input[:60]!r})"
        if not ids or not label_ids:
            raise UserError(f"{where}: its text or its label has no tokens")
        if (highest := max(*ids, *label_ids)) >= lm.token_limit:
            raise UserError(
                f"{where}: its token {highest} is beyond the model's {lm.token_limit} embeddings: "
                "this tokenizer is not the model's; give a folder that holds both"
            )
        if lm.max_positions is not None and row.length > lm.max_positions:
            raise UserError(
                f"{where}: prompt and text take {row.length} positions, "
                f"the model has {lm.max_positions}; shorten prompt.length or set task.max_input_tokens"
            )
        return row

    def _input(self, lm: TextModel, example: Example) -> str:
        if self.max_input_tokens is None:
            return example.input
        ids = lm.encode(example.input)
        return example.input if len(ids) <= self.max_input_tokens else lm.decode(ids[: self.max_input_tokens])


def load_task(config: schema.Task, template: Template) -> Task:
    """The task of a config, read once in a process unless its own file or folder was edited since.

    Raises UserError naming the file, column or example that is wrong.
    """
    return _load(_ByValue((config, template, stamps(config.source.path))))


class _ByValue(tuple):
    """Dataclasses that compare by value, as a cache key."""

    def __hash__(self) -> int:
        return hash(repr(tuple(self)))


@lru_cache(maxsize=64)  # more tasks than a grid has; without a limit a long session would keep every edit of a file
def _load(key: _ByValue) -> Task:
    config, template, _ = key
    return Task.load(config, template)


def _content(example: Example) -> tuple:
    """What a fingerprint is made of; one copy is left out: data without repeats keep their fingerprint."""
    return (example.id, example.input, example.label, *([example.repeat] if example.repeat != 1 else []))


def _pieces(text: str) -> list[str]:
    """A template's text cut at its {prompt}s; the prompt stands first where the text does not say."""
    text = text if "{prompt}" in text else "{prompt}" + text
    return [piece for piece in re.split(r"({prompt})", text) if piece]


def split_examples(
    table: dict[str, list[Example]], split: Split, name: str
) -> tuple[list[Example], list[Example], list[Example]]:
    """(train, validation, test). Validation is cut from train, never from test."""
    everything = [example for examples in table.values() for example in examples]
    validation: list[Example] = []
    if split.kind is SplitKind.all:
        train, test = everything, everything
    elif split.kind is SplitKind.own:
        if not {"train", "test"} <= set(table):
            raise UserError(
                f"task {name}: task.split.kind=own, but the source has no train and test splits "
                f"(it has {', '.join(table)})"
            )
        train, validation, test = table["train"], table.get("validation", []), table["test"]
    else:
        train, test = train_test_split(everything, split.test_size, split.seed, f"task {name}: task.split.test_size")
    if split.max_train is not None:
        train = _first(train, split.max_train, split.seed)
    if split.max_test is not None:
        test = _first(test, split.max_test, split.seed)
    if split.validation > 0 and not validation:
        key = f"task {name}: task.split.validation"
        train, validation = train_test_split(train, split.validation, split.seed, key)
    return train, validation, test


def train_test_split(
    examples: list[Example], test_size: float, seed: int, key: str
) -> tuple[list[Example], list[Example]]:
    """The split that `datasets.Dataset.train_test_split(test_size, seed=seed)` makes.

    Written out here because the library takes over a second to import. Raises UserError, naming `key`, where a side
    would be empty.
    """
    n = len(examples)
    n_test = math.ceil(test_size * n)
    n_train = n - n_test
    if n_test < 1 or n_train < 1:
        raise UserError(f"{key}={test_size}: leaves {n_train} training and {n_test} other examples of {n}")
    order = np.random.default_rng(seed).permutation(n)
    return [examples[i] for i in order[n_test : n_test + n_train]], [examples[i] for i in order[:n_test]]


def _first(examples: list[Example], n: int, seed: int) -> list[Example]:
    """`n` examples drawn by `seed`, in the source's order: a source sorted by label would otherwise give one label."""
    if n >= len(examples):
        return examples
    return [examples[i] for i in sorted(np.random.default_rng(seed).permutation(len(examples))[:n])]
