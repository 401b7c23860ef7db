"""Which examples train, validate and test? By chance, by the source's own splits, or all."""

import logging
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from promptgeo.config.schema import Split, SplitKind
from promptgeo.data.example import Example
from promptgeo.errors import UserError

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
FEW_LABELS = 20
"""So many different labels at most are counted in a line."""


def kind_of(split: Split, names: Sequence[str]) -> SplitKind:
    """How a source with these splits is split: `auto` is own where train and test are there, else random."""
    if split.kind is not SplitKind.auto:
        return split.kind
    named = any(isinstance(name, str) for name in (split.train, split.validation, split.test))
    return SplitKind.own if named or {"train", "test"} <= set(names) else SplitKind.random


def own_splits(split: Split, names: Sequence[str], task: str) -> dict[str, list[str]]:
    """train, validation and test -> the source's splits that they are made of.

    Raises UserError where one is not there, or is used twice.
    """
    if not (split.train or split.test) and not {"train", "test"} <= set(names):
        raise UserError(
            f"task {task}: task.split.kind=own, but the source has no train and test splits (it has "
            f"{', '.join(names)}); task.split.train= and task.split.test= name others"
            if set(names) != {"all"}
            else f"task {task}: task.split.kind=own, but the source has no train and test splits (it has all)"
        )
    roles = {"train": split.train or "train", "test": split.test or "test"}
    if isinstance(split.validation, str):
        roles["validation"] = split.validation
    parts = {role: text.split("+") for role, text in roles.items()}
    taken = {part for some in parts.values() for part in some}
    if "validation" not in parts:
        # The usual one, unless it was given another use.
        parts["validation"] = ["validation"] if "validation" in names and "validation" not in taken else []
    for role, some in parts.items():
        for part in some:
            if part not in names:
                raise UserError(
                    f"task {task}: task.split.{role}={roles[role]}: the source has no split {part!r} "
                    f"(it has {', '.join(names)})"
                )
    twice = [part for part, times in Counter(part for some in parts.values() for part in some).items() if times > 1]
    if twice:
        raise UserError(f"task {task}: task.split uses the source's split {twice[0]!r} twice")
    return parts


def split_examples(
    table: dict[str, list[Example]], split: Split, name: str
) -> tuple[list[Example], list[Example], list[Example]]:
    """(train, validation, test). Validation is cut from train, never from test."""
    everything = [example for examples in table.values() for example in examples]
    validation: list[Example] = []
    kind = kind_of(split, list(table))
    if kind is SplitKind.all:
        train, test = everything, everything
    elif kind is SplitKind.own:
        parts = own_splits(split, list(table), name)
        train, validation, test = ([e for part in parts[role] for e in table[part]] for role in SPLITS)
    else:
        if "test" in table:
            log.warning("task %s: task.split.kind=random mixes the source's own test split into training", name)
        train, test = train_test_split(everything, split.test_size, split.seed, f"task {name}: task.split.test_size")
    if split.max_train is not None:
        draw = _balanced if split.stratify else _drawn
        train = draw(train, split.max_train, split.seed)
    if split.max_test is not None:
        test = _drawn(test, split.max_test, split.seed)
    if split.stop_on_test:
        validation = test
    elif not isinstance(split.validation, str) and split.validation > 0:
        if validation:
            log.warning(
                "task %s: task.split.validation=%s is not cut: the source's own is used", name, split.validation
            )
        else:
            key = f"task {name}: task.split.validation"
            if split.stratify:
                # What was drawn with each label equally often is held out so; else each label by its own share.
                hold = _stratified if split.max_train is not None else _by_class
                train, validation = hold(train, split.validation, split.seed, key)
            else:
                train, validation = train_test_split(train, split.validation, split.seed, key)
    if split.max_train is not None:
        _say_counts(train, name)
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


def _drawn(examples: list[Example], n: int, seed: int) -> list[Example]:
    """`n` examples drawn by `seed`, in the source's order: a source sorted by label would otherwise give one label."""
    if n >= len(examples):
        return examples
    return [examples[i] for i in sorted(np.random.default_rng(seed).permutation(len(examples))[:n])]


def _balanced(examples: list[Example], n: int, seed: int) -> list[Example]:
    """`n` examples drawn by `seed`, one of each label in turn while there are any; in the source's order."""
    if n >= len(examples):
        return examples
    turns: Counter[str] = Counter()
    placed = []
    for i in np.random.default_rng(seed).permutation(len(examples)):
        label = examples[i].label
        placed.append((turns[label], label, i))
        turns[label] += 1
    return [examples[i] for i in sorted(i for *_, i in sorted(placed)[:n])]


def _stratified(examples: list[Example], size: float, seed: int, key: str) -> tuple[list[Example], list[Example]]:
    """As train_test_split, with as many of each label in what is held out while there are any."""
    return _without(_balanced(examples, math.ceil(size * len(examples)), seed), examples, size, key)


def _by_class(examples: list[Example], size: float, seed: int, key: str) -> tuple[list[Example], list[Example]]:
    """As train_test_split, of each label the same share; what is left over goes to the labels that lack most of one."""
    counts = Counter(example.label for example in examples)
    exact = {label: size * count for label, count in counts.items()}
    held = {label: int(share) for label, share in exact.items()}
    lacking = sorted(counts, key=lambda label: held[label] - exact[label])
    for label in lacking[: math.ceil(size * len(examples)) - sum(held.values())]:
        held[label] += 1
    chosen: Counter[str] = Counter()
    places = []
    for i in np.random.default_rng(seed).permutation(len(examples)):
        label = examples[i].label
        if chosen[label] < held[label]:
            chosen[label] += 1
            places.append(i)
    return _without([examples[i] for i in sorted(places)], examples, size, key)


def _without(
    held: list[Example], examples: list[Example], size: float, key: str
) -> tuple[list[Example], list[Example]]:
    """(the others, those that are held out). Raises UserError where a side is empty."""
    ids = {example.id for example in held}
    left = [example for example in examples if example.id not in ids]
    if not left or not held:
        raise UserError(f"{key}={size}: leaves {len(left)} training and {len(held)} other examples of {len(examples)}")
    return left, held


def _say_counts(train: list[Example], name: str) -> None:
    counts = Counter(example.label for example in train)
    if len(counts) <= FEW_LABELS:
        of_each = ", ".join(f"{count} {label[:40]!r}" for label, count in sorted(counts.items()))
        log.info("task %s: %d training examples: %s", name, len(train), of_each)
