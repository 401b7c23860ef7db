"""Task: source -> examples -> split -> template -> tokens."""

import hashlib
import json
import logging
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from promptgeo import sources
from promptgeo.batching import Row
from promptgeo.schema import Split, SplitKind, Template
from promptgeo.schema import Task as TaskConfig
from promptgeo.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
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
    _rows: WeakKeyDictionary = field(default_factory=WeakKeyDictionary, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, config: TaskConfig, template: Template) -> "Task":
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
                log.warning("task %s: %d inputs occur in both train and test, for instance %r", config.name, len(both), min(both)[0][:80])
        return cls(config.name, train, validation, test, template, config.labels, config.max_input_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all examples of all splits, in order."""
        splits = [[_content(e) for e in split] for split in (self.train, self.validation, self.test)]
        return "sha256:" + hashlib.sha256(json.dumps([splits, self.labels]).encode()).hexdigest()

    def rows(self, lm, examples: list[Example], prompt_length: int) -> list[Row]:
        """Examples as tokens, with `prompt_length` prompt tokens (example.repeat times) wherever the template has {prompt} (0: no prompt).

        Raises UserError naming the example that does not fit the model's positions.
        """
        known = self._rows.setdefault(lm, {})  # the runs of a grid share their rows, in memory too
        return [self._known(known, lm, example, example.label, prompt_length) for example in examples]

    def label_rows(self, lm, example: Example, prompt_length: int) -> list[Row]:
        """One row per label of the task's label set, to compare their likelihoods."""
        known = self._rows.setdefault(lm, {})
        return [self._known(known, lm, example, label, prompt_length) for label in self.labels or []]

    def _known(self, known: dict, lm, example: Example, label: str, prompt_length: int) -> Row:
        key = (example, label, prompt_length)
        if key not in known:
            known[key] = self._row(lm, example, label, prompt_length)
        return known[key]

    def _row(self, lm, example: Example, label: str, prompt_length: int) -> Row:
        prompt = [-1 - k for k in range(prompt_length)]
        ids: list[int] = []
        for piece in _pieces(self.template.text):
            ids += prompt * example.repeat if piece == "{prompt}" else lm.encode(piece.replace("{input}", self._input(lm, example)))
        label_ids = lm.encode(self.template.label.replace("{label}", label) + self.template.end)
        row = Row(np.array(ids, dtype=np.int64), np.array(label_ids, dtype=np.int64))
        if not ids or not label_ids:
            raise UserError(f"task {self.name}, example {example.id} ({example.input[:60]!r}): its text or its label has no tokens")
        if lm.max_positions is not None and row.length > lm.max_positions:
            raise UserError(
                f"task {self.name}, example {example.id} ({example.input[:60]!r}): prompt and text take {row.length} positions, "
                f"the model has {lm.max_positions}; shorten prompt.length or set task.max_input_tokens"
            )
        return row

    def _input(self, lm, example: Example) -> str:
        if self.max_input_tokens is None:
            return example.input
        ids = lm.encode(example.input)
        return example.input if len(ids) <= self.max_input_tokens else lm.decode(ids[: self.max_input_tokens])


def _content(example: Example) -> tuple:
    """What a fingerprint is made of; one copy is not said: data without repeats keep their fingerprint."""
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
            raise UserError(f"task {name}: task.split.kind=own, but the source has no train and test splits (it has {', '.join(table)})")
        train, validation, test = table["train"], table.get("validation", []), table["test"]
    else:
        train, test = train_test_split(everything, split.test_size, split.seed, f"task {name}: task.split.test_size")
    if split.max_train is not None:
        train = _first(train, split.max_train, split.seed)
    if split.max_test is not None:
        test = _first(test, split.max_test, split.seed)
    if split.validation > 0 and not validation:
        train, validation = train_test_split(train, split.validation, split.seed, f"task {name}: task.split.validation")
    return train, validation, test


def train_test_split(examples: list[Example], test_size: float, seed: int, key: str) -> tuple[list[Example], list[Example]]:
    """The split `datasets.Dataset.train_test_split(test_size, seed=seed)` makes (the library takes over a second to import)."""
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
