"""Does the model read the inputs as they are, and can it write the labels? Found while planning, without running it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np

from promptgeo.config.schema import LongerLabels, Scoring
from promptgeo.data.example import Example
from promptgeo.data.label_tokens import label_ids
from promptgeo.data.row import Row
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.evaluation.rules import Continuation, rule_of
from promptgeo.model.interface import LM

log = logging.getLogger(__name__)

_passed: "WeakKeyDictionary[LM, set]" = WeakKeyDictionary()


def check_texts(lm: LM, task: Task, limit: int, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """Raises UserError where a label's own tokens would not be scored as correct, or two labels cannot be told apart.

    Warns of inputs that hold special tokens, and of labels that begin another under scoring=prefix. The runs of a grid
    are checked once.

    Args:
        lm: the model, which is not run.
        task: whose template says how is scored.
        limit: the most tokens that the model may write.
        examples: one of the task's splits.
        rows: of the examples.
    """
    if not examples:
        return
    key = (task.fingerprint, task.label_length, repr(task.template), limit, examples[0].id, len(examples))
    passed = _passed.setdefault(lm, set())
    if key in passed:
        return
    _check_labels(lm, task, limit, examples, rows)
    _check_single_tokens(lm, task, examples, rows)
    _check_label_set(lm, task)
    _warn_of_other_answers(lm, task, limit, examples, rows)
    _warn_of_beginnings(task, examples)
    _warn_of_special_tokens(lm, task, examples, rows)
    if share := task.share_cut(lm, examples):
        what = "their ends are" if examples[0].cut is None else "one column of each is"
        log.warning(
            "task %s: %.0f%% of %d inputs are longer than task.max_input_tokens=%d: %s cut",
            *(task.name, 100 * share, len(examples), task.max_input_tokens, what),
        )
    passed.add(key)


def _check_labels(lm: LM, task: Task, limit: int, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    rule = rule_of(task.template)
    distinct: dict[tuple[str, bytes], tuple[Example, Row]] = {}
    for example, row in zip(examples, rows, strict=True):
        distinct.setdefault((example.label, row.label.tobytes()), (example, row))
    longer = []
    for example, row in distinct.values():
        tokens = row.label.tolist()
        whole = _until_end(lm, tokens)
        if rule.is_correct(Continuation(lm, whole[:limit]), example, row):
            continue
        where = f"task {task.name}, example {example.id}: its label {example.label[:60]!r}"
        if rule.is_correct(Continuation(lm, whole), example, row):
            longer.append((len(tokens), where))
            continue
        end = task.template.end
        if end and end not in lm.decode(whole) and lm.decode(whole).strip() == example.label.strip():
            raise UserError(
                f"{where} could never be scored as correct: this tokenizer does not give template.end={end!r} back, "
                "which would end it; set another template.end"
            )
        raise UserError(
            f"{where} could never be scored as correct: this tokenizer gives its own tokens back as "
            f"{lm.decode(whole)[:80]!r} (template.scoring={task.template.scoring.name}); write labels as it gives them "
            "back, or use another template"
        )
    if not longer:
        return
    most, where = max(longer)
    said = f"{where} takes {most} tokens, its end among them, and the model may write {limit}: it is never correct"
    if task.template.longer_labels is LongerLabels.refuse:
        raise UserError(f"{said}; set evaluation.max_new_tokens={most} (or template.longer_labels=warn)")
    _warn_once(f"{said} ({len(longer)} of {len(distinct)} labels are longer)")


def _check_single_tokens(lm: LM, task: Task, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """Where the first token decides, a label that is an unknown or special token, or another label's, is none."""
    if task.template.scoring is not Scoring.token:
        return
    labels: dict[int, str] = {}
    for example, row in zip(examples, rows, strict=True):
        token, where = int(row.label[0]), f"task {task.name}, example {example.id}: its label {example.label[:60]!r}"
        if token in lm.special_ids:
            raise UserError(f"{where} is the token {lm.token_text(token)!r} for this model, which stands for no text")
        if labels.setdefault(token, example.label).strip() != example.label.strip():
            raise UserError(
                f"{where} is the same token as the label {labels[token][:60]!r} for this model "
                f"({lm.token_text(token)!r}), so they cannot be told apart"
            )


def _warn_of_other_answers(lm: LM, task: Task, limit: int, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """Accepted answers beside the label that this model cannot write, or not within the limit."""
    rule, never, count = rule_of(task.template), "", 0
    for example, row in zip(examples, rows, strict=True):
        for answer in example.accepted:
            tokens = _until_end(lm, label_ids(lm, task.template, answer))[:limit]
            alone = replace(example, label=answer, accepted=())
            of_answer = Row(row.ids, np.array(tokens, dtype=np.int64))
            if not tokens or not rule.is_correct(Continuation(lm, tokens), alone, of_answer):
                never, count = never or f"{answer[:60]!r} of example {example.id}", count + 1
    if count:
        _warn_once(
            f"task {task.name}: {count} accepted answers beside the labels are never scored as correct, for instance "
            f"{never}: this tokenizer gives them back otherwise, or they are longer than the {limit} tokens that the "
            "model may write"
        )


def _until_end(lm: LM, tokens: list[int]) -> list[int]:
    """Greedy decoding stops at the first token that ends a text."""
    stop = next((k + 1 for k, token in enumerate(tokens) if token in lm.end_tokens), len(tokens))
    return tokens[:stop]


def _check_label_set(lm: LM, task: Task) -> None:
    """The likeliest of the set is looked for: a label that begins another is never less likely than it."""
    ids = {label: label_ids(lm, task.template, label) for label in task.labels or []}
    for (a, of_a), (b, of_b) in pairwise(sorted(ids.items(), key=lambda item: item[1])):
        if of_a == of_b:
            raise UserError(f"task.labels: {a!r} and {b!r} are the same tokens for this model")
        if of_a == of_b[: len(of_a)]:
            raise UserError(
                f"task.labels: the tokens of {a!r} begin those of {b!r}, which could never be the likelier; "
                "set template.end (for instance to a newline)"
            )


def _warn_of_beginnings(task: Task, examples: Sequence[Example]) -> None:
    if task.template.scoring is not Scoring.prefix:
        return
    answers = [{answer.strip() for answer in example.answers} for example in examples]
    labels = sorted(set().union(*answers))
    begins = [
        (a, b)
        for a, b in pairwise(labels)
        if b.startswith(a) and any(a in those and b not in those for those in answers)
    ]
    if begins:
        a, b = begins[0]
        _warn_once(
            f"task {task.name}: template.scoring=prefix scores {b!r} as correct where {a!r} is wanted "
            f"({len(begins)} labels begin another); template.scoring=line with a template.end does not"
        )


def _warn_of_special_tokens(lm: LM, task: Task, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    special = np.array(sorted(lm.special_ids))
    if task.max_input_tokens is not None:
        _warn_of_cut_special_tokens(lm, task, examples)
    counts = [int(np.isin(row.ids, special).sum()) for row in rows]
    if not any(counts):
        return
    # What the template itself holds, BOS among it, is meant.
    (plain,) = task.rows(lm, [replace(examples[0], input="a")], 0)
    meant = int(np.isin(plain.ids, special).sum())
    found = [example for example, count in zip(examples, counts, strict=True) if count > meant]
    if found:
        example = found[0]
        token = next((i for i in lm.encode(example.input) if i in lm.special_ids), special[0])
        _warn_once(
            f"task {task.name}: {len(found)} inputs hold text that this tokenizer reads as a special token, for "
            f"instance {lm.token_text(token)!r} in example {example.id} ({example.input[:60]!r})"
        )


def _warn_of_cut_special_tokens(lm: LM, task: Task, examples: Sequence[Example]) -> None:
    limit = task.max_input_tokens
    for example in examples:
        ids = lm.encode(example.input)
        lost = [i for i in ids[:limit] if i in lm.special_ids]
        if limit is not None and len(ids) > limit and lost:
            _warn_once(
                f"task {task.name}: inputs that task.max_input_tokens={limit} cuts lose their special tokens, for "
                f"instance {lm.token_text(lost[0])!r} in example {example.id} ({example.input[:60]!r})"
            )
            return


_said: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        log.warning(message)
