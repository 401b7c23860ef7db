"""Which prompts can be made of one prompt's tokens? Reordered, left out, repeated, added up.

Shapes: P prompt tokens, Q tokens of a prompt made of them, d width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Kind:
    """A kind of prompts, made of the tokens of trained prompts in one way."""

    what: str
    """trained, order, subset, repeat, sum, initial, initial_sum, delta_sum, random_sum, none."""
    count: int | None = None
    """Of a subset: its tokens. Of a repeat: how often the token stands there."""
    adds: int | None = None
    """Scored on the input plus this, in place of the task's labels."""

    @property
    def operation(self) -> str:
        """Its name, whatever it is scored on: subset.2."""
        return self.what if self.count is None else f"{self.what}.{self.count}"

    @property
    def scoring(self) -> str:
        """What its name ends with where it is not scored on the task's labels: .as_plus_2."""
        return "" if self.adds is None else f".as_plus_{self.adds}"

    def __str__(self) -> str:
        return self.operation + self.scoring


TRAINED, ORDER, SUM, NONE = Kind("trained"), Kind("order"), Kind("sum"), Kind("none")
INITIAL, INITIAL_SUM, DELTA_SUM, RANDOM_SUM = (
    Kind("initial"),
    Kind("initial_sum"),
    Kind("delta_sum"),
    Kind("random_sum"),
)
ONE_TOKEN = Kind("subset", 1)


class Made(NamedTuple):
    """A prompt and how it was made."""

    kind: Kind
    prompt_Qd: np.ndarray
    tokens_Q: Sequence[int]
    """Positions of the tokens that it is made of."""


DIRECTIONS = 8
"""Random ones of a prompt. One does all or nothing, and a few runs with one each say little of how many do."""


@dataclass(frozen=True)
class Choice:
    """Which prompts are made of each prompt of P tokens."""

    orders: list[tuple[int, ...]]
    """Of the positions, other than their own."""
    subsets: dict[int, list[tuple[int, ...]]]
    """Subsets of the positions, each in order, by their size: 1 to P - 1."""
    times: list[int]
    """How often a single token is repeated."""

    @classmethod
    def draw(
        cls, length: int, max_orders: int, max_subsets: int, repeats: Sequence[int], generator: np.random.Generator
    ) -> "Choice":
        """All orders and subsets of `length` positions, or so many random ones where there are more.

        max_subsets: of each size. repeats: how often a token is repeated, beside `length` times.
        """
        orders = other_orders(length, max_orders, generator)
        subsets = {size: some_subsets(length, size, max_subsets, generator) for size in range(1, length)}
        return cls(orders, subsets, sorted({*repeats, length}))

    @property
    def length(self) -> int:
        """P."""
        return len(self.subsets) + 1

    @property
    def all_orders(self) -> int:
        """How many other orders there are."""
        return math.factorial(self.length) - 1

    @property
    def drawn_sizes(self) -> list[int]:
        """The sizes of which there are more subsets."""
        return [size for size, chosen in self.subsets.items() if len(chosen) < math.comb(self.length, size)]


def token_prompts(prompt_Pd: np.ndarray, choice: Choice) -> Iterator[Made]:
    """The prompt itself, its tokens in other orders, some of them, each one several times, and their sum."""
    positions = range(len(prompt_Pd))
    yield Made(TRAINED, prompt_Pd, positions)
    for order in choice.orders:
        yield Made(ORDER, prompt_Pd[list(order)], order)
    for size, subsets in choice.subsets.items():
        for subset in subsets:
            yield Made(Kind("subset", size), prompt_Pd[list(subset)], subset)
    for k in choice.times:
        for i in positions:
            yield Made(Kind("repeat", k), prompt_Pd[[i] * k], [i] * k)
    yield Made(SUM, prompt_Pd.sum(0, keepdims=True), positions)


def delta_prompts(prompt_Pd: np.ndarray, p0_Pd: np.ndarray, generator: np.random.Generator) -> Iterator[Made]:
    """P0, the sum of its tokens, and each different token of it plus the sum of all deltas, or plus random directions.

    A random direction is as long as the sum of the deltas.
    """
    positions, delta_d = range(len(p0_Pd)), (prompt_Pd - p0_Pd).sum(0)
    yield Made(INITIAL, p0_Pd, positions)
    yield Made(INITIAL_SUM, p0_Pd.sum(0, keepdims=True), positions)
    different = _different(p0_Pd)
    for i in different:
        yield Made(DELTA_SUM, p0_Pd[[i]] + delta_d, [i])
        for noise_d in generator.standard_normal((math.ceil(DIRECTIONS / len(different)), len(delta_d))):
            random_d = noise_d * (np.linalg.norm(delta_d) / np.linalg.norm(noise_d))
            yield Made(RANDOM_SUM, p0_Pd[[i]] + random_d, [i])


def _different(p0_Pd: np.ndarray) -> list[int]:
    """The positions of different P0 tokens: a word as init has one."""
    return sorted(np.unique(p0_Pd, axis=0, return_index=True)[1].tolist())


def other_orders(length: int, most: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Orders of so many positions other than their own: all, or `most` different ones drawn at random."""
    own = tuple(range(length))
    if math.factorial(length) - 1 <= most:
        return [order for order in permutations(own) if order != own]
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < most:
        order = tuple(generator.permutation(length).tolist())
        if order != own:
            drawn.add(order)
    return sorted(drawn)


def some_subsets(length: int, size: int, most: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Subsets of so many positions, each in order: all, or `most` different ones drawn at random."""
    if math.comb(length, size) <= most:
        return list(combinations(range(length), size))
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < most:
        drawn.add(tuple(sorted(generator.permutation(length)[:size].tolist())))
    return sorted(drawn)
