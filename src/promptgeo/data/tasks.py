"""How do examples become train, validation and test, and rows of token ids?

source -> examples -> split -> template -> rows
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from promptgeo.config import schema
from promptgeo.config.paths import ByValue, stamps
from promptgeo.config.schema import Bos, LabelTokens, SplitKind, Template
from promptgeo.data import sources
from promptgeo.data.bos import bos_of, put_bos
from promptgeo.data.example import Example
from promptgeo.data.fields import Written, written, written_alike
from promptgeo.data.label_tokens import cut, label_ids
from promptgeo.data.row import Row
from promptgeo.data.splits import split_examples
from promptgeo.data.text_model import TextModel
from promptgeo.data.values import text_of
from promptgeo.errors import UserError

log = logging.getLogger(__name__)


_CONTENT_FREE, _OWN = -1, -2
"""The numbers of examples that are none: task.content_free, and an input of the user's own."""


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
    label_length: int | None = None
    """So many tokens of each label, its first; None: whole labels."""
    content_free: str | None = None
    """An input without content, by which labels' likelihoods are corrected; None: they are compared as they are."""
    source: schema.Source = field(default_factory=schema.Source)
    """Where the examples are from, which says how columns become an input."""
    _rows: WeakKeyDictionary[TextModel, dict] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    @classmethod
    def load(cls, config: schema.Task, template: Template) -> "Task":
        """Read and split the data. Raises UserError naming the file, column or example that is wrong."""
        config = sources.resolved(config)
        table = sources.read(config)
        numbered, start = {}, 0
        for split, pairs in table.items():
            numbered[split] = [Example(start + i, *pair) for i, pair in enumerate(pairs)]
            start += len(pairs)
        train, validation, test = split_examples(numbered, config.split, config.name)
        _require_classes(config, train)
        if config.split.kind is not SplitKind.all and not config.split.stop_on_test:
            both = {(e.input, e.repeat) for e in train + validation} & {(e.input, e.repeat) for e in test}
            if both:
                shown = min(both)[0][:80]  # the start of a long text is enough to find it
                message = "task %s: %d inputs occur in both train and test, for instance %r"
                log.warning(message, config.name, len(both), shown)
        content_free = config.content_free
        if content_free is not None:
            content_free = written_alike(config.source.input, content_free)
        labels, limits = config.labels, (config.max_input_tokens, config.label_length)
        return cls(config.name, train, validation, test, template, labels, *limits, content_free, config.source)

    @property
    def examples(self) -> list[Example]:
        """All of them: train, validation, test."""
        return [*self.train, *self.validation, *self.test]

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

    def input_rows(
        self, lm: TextModel, inputs: Sequence[str | Mapping[str, Any]], prompt_length: int, new_tokens: int
    ) -> list[Row]:
        """Inputs that are no examples, as token ids: the text up to the label, and room for `new_tokens` behind it.

        An input is the text that stands for {input}, or its columns by name, of which task.source.input makes it.
        Raises UserError naming the input that lacks a column or does not fit the model's positions.
        """
        bos = bos_of(self.template, lm)
        rows = []
        for given in inputs:
            example = self._own_example(lm, given)
            ids = self._ids(lm, example, prompt_length, bos)
            rows.append(self._checked(lm, example, "", Row(ids, np.zeros(new_tokens, np.int64))))
        return rows

    def _own_example(self, lm: TextModel, given: str | Mapping[str, Any]) -> Example:
        where, source = f"task {self.name}, input {str(given)[:60]!r}", self.source
        copies = 1
        if isinstance(given, Mapping):
            needed = ", ".join([*source.columns, *([source.repeat] if source.repeat else [])])
            try:
                whole = written(given, source.input, source.cut, where)
                copies = sources.copies_in(given, source.repeat, where) if source.repeat else 1
            except KeyError as error:
                raise UserError(f"{where}: has no column {error.args[0]!r}; it needs {needed}") from error
        else:
            whole = Written(text_of(given, where, "input"))
        limit = self.max_input_tokens
        if source.cut and whole.cut is None and limit is not None and len(lm.encode(whole.text)) > limit:
            raise UserError(
                f"{where}: is longer than task.max_input_tokens={limit}, and column {source.cut} is what is cut: "
                f"give the columns by name ({', '.join(source.columns)})"
            )
        return Example(_OWN, whole.text, "", copies, cut=whole.cut)

    def content_free_rows(self, lm: TextModel, prompt_length: int) -> list[Row]:
        """As label_rows, after task.content_free; none without it.

        Raises UserError where it is longer than task.max_input_tokens or the model's positions.
        """
        if self.content_free is None or not self.labels:
            return []
        limit, tokens = self.max_input_tokens, len(lm.encode(self.content_free))
        if limit is not None and tokens > limit:
            raise UserError(
                f"task {self.name}: task.content_free={self.content_free[:60]!r} takes {tokens} tokens in the task's "
                f"input, and task.max_input_tokens={limit} would cut it; give a shorter one"
            )
        return self.label_rows(lm, Example(_CONTENT_FREE, self.content_free, self.labels[0]), prompt_length)

    def _cached(self, cache: dict, lm: TextModel, example: Example, label: str, prompt_length: int) -> Row:
        key = (example, label, prompt_length)
        if "bos" not in cache:
            cache["bos"] = bos_of(self.template, lm)
        if key not in cache:
            cache[key] = self._row(lm, example, label, prompt_length, cache["bos"])
        return cache[key]

    def _row(self, lm: TextModel, example: Example, label: str, prompt_length: int, bos: list[int]) -> Row:
        ids = self._ids(lm, example, prompt_length, bos)
        # Tokenised apart from the text, so that the border between them never depends on the label.
        of_label = label_ids(lm, self.template, label)
        if self.label_length is not None:
            if len(of_label) < self.label_length:
                raise UserError(
                    f"{self._where(example)}: its label has {len(of_label)} tokens for this model, "
                    f"task.label_length={self.label_length} needs as many; give a smaller one, or a longer label"
                )
            of_label = of_label[: self.label_length]
        return self._checked(lm, example, label, Row(ids, np.array(of_label, dtype=np.int64)))

    def _ids(self, lm: TextModel, example: Example, prompt_length: int, bos: list[int]) -> np.ndarray:
        """[T] int64: the example's text up to the label."""
        prompt = [-1 - k for k in range(prompt_length)]
        ids: list[int] = []
        for piece in _pieces(self.template.text):
            if piece == "{prompt}":
                ids += prompt * example.repeat
            else:
                ids += lm.encode(piece.replace("{input}", self._input(lm, example)))
        return np.array(put_bos(ids, bos, self.template), dtype=np.int64)

    def _checked(self, lm: TextModel, example: Example, label: str, row: Row) -> Row:
        """The row. Raises UserError naming the example whose row the model cannot read."""
        where = self._where(example)
        if label != example.label:
            where += f" with the label {label[:60]!r} of task.labels"
        if not len(row.ids) or not len(row.label):
            raise UserError(f"{where}: its text or its label has no tokens")
        if (highest := max(*row.ids, *row.label)) >= lm.token_limit:
            raise UserError(
                f"{where}: its token {highest} is beyond the model's {lm.token_limit} embeddings: "
                "this tokenizer is not the model's; give a folder that holds both"
            )
        if lm.max_positions is not None and row.length > lm.max_positions:
            what, way = "prompt and text", "shorten prompt.length or set task.max_input_tokens"
            if example.id == _OWN:
                what, way = (
                    f"prompt, text and {len(row.label)} new tokens",
                    "give a shorter input or a lower max_new_tokens",
                )
            elif len(row.label) >= lm.max_positions:
                way = f"its label alone takes {len(row.label)}, and labels are never cut"
            raise UserError(f"{where}: {what} take {row.length} positions, the model has {lm.max_positions}; {way}")
        return row

    def _where(self, example: Example) -> str:
        """What errors call an example."""
        if example.id == _OWN:
            return f"task {self.name}, input {example.input[:60]!r}"
        place = "task.content_free" if example.id == _CONTENT_FREE else f"example {example.id}"
        return f"task {self.name}, {place} ({example.input[:60]!r})"

    def share_cut(self, lm: TextModel, examples: Sequence[Example]) -> float:
        """Of these examples, those whose input is longer than task.max_input_tokens."""
        if self.max_input_tokens is None:
            return 0.0
        cache = self._rows.setdefault(lm, {})
        for example in examples:
            if ("cut", example.id) not in cache:
                cache["cut", example.id] = len(lm.encode(example.input)) > self.max_input_tokens
        return float(np.mean([cache["cut", example.id] for example in examples]))

    def _input(self, lm: TextModel, example: Example) -> str:
        if self.max_input_tokens is None:
            return example.input
        kept = cut(lm, example.input, self.max_input_tokens, example.cut)
        if not kept.strip():
            raise UserError(
                f"{self._where(example)}: task.max_input_tokens={self.max_input_tokens} leaves nothing of its input"
            )
        return kept


def load_task(config: schema.Task, template: Template) -> Task:
    """The task of a config, read once in a process unless its own file or folder was edited since.

    Raises UserError naming the file, column or example that is wrong.
    """
    return _load(ByValue((sources.resolved(config), template, stamps(sources.local(config.source)))))


@lru_cache(maxsize=64)  # more tasks than a grid has; without a limit a long session would keep every edit of a file
def _load(key: ByValue) -> Task:
    config, template, read_at = key
    # A cell asks before and after it is known what the tokenizer makes of the template: the data are the same.
    undecided = replace(template, label_tokens=LabelTokens.auto, bos=Bos.auto)
    if template != undecided:
        return replace(_load(ByValue((config, undecided, read_at))), template=template)
    return Task.load(config, template)


def _require_classes(config: schema.Task, train: list[Example]) -> None:
    """Raises UserError where the label set has several labels and training would see one alone."""
    seen = {example.label for example in train}
    if config.labels and len(config.labels) > 1 and len(train) > 1 and len(seen) == 1:
        raise UserError(
            f"task {config.name}: all {len(train)} training examples have the label {seen.pop()!r}: nothing can be "
            "learned from them; train on more of the source's splits and cut validation by class "
            "(task.split.train=train+<another> task.split.validation=0.5 task.split.stratify=true)"
        )


def _content(example: Example) -> tuple:
    """What a fingerprint is made of; what most data lack is left out, so that they keep their fingerprint."""
    repeat = [example.repeat] if example.repeat != 1 else []
    accepted = [list(example.accepted)] if example.accepted else []
    return (example.id, example.input, example.label, *repeat, *accepted)


def _pieces(text: str) -> list[str]:
    """A template's text cut at its {prompt}s; the prompt stands first where the text does not say."""
    text = text if "{prompt}" in text else "{prompt}" + text
    return [piece for piece in re.split(r"({prompt})", text) if piece]
