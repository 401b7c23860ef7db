"""What is an answer at each learning rate, and how does it change from the lowest to the highest?

Every answer is a function of how often each chosen prompt counts, so that one rate's answer, the answer without a cell,
and the answer with the rates of some cells swapped are the same function of other weights. A *cell* is a task and an
init: what is left out (jackknife) or swapped (exact test) is always a whole one, with all of its seeds.

Shapes: U units, K rates, C cells, G = U * K chosen prompts, B sets of weights, P prompt tokens, d width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from promptgeo.analysis.geometry.matching import Points
from promptgeo.analysis.geometry.variance import Inner, cells
from promptgeo.analysis.question import Of
from promptgeo.analysis.resampling import jackknife_interval, pair_means, swap_p

Statistic = Callable[[np.ndarray], np.ndarray]
"""weights [B, G] -> the answer [B] float64; NaN where these prompts give none."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The prompts that are compared: one of each unit and rate, prompt g = u * K + k."""

    vectors_GPd: np.ndarray
    """float64: prompts, or what training added."""
    task_G: np.ndarray
    """int64."""
    init_G: np.ndarray
    """int64."""
    rates: int
    """K."""

    @classmethod
    def of(cls, points: Points, chosen_UK: np.ndarray, of: Of) -> "Chosen":
        """The chosen points (numbers of points [U, K])."""
        rows = points.table.iloc[chosen_UK.ravel()]
        vectors_GPd = points.prompts_QPd[chosen_UK.ravel()].astype(np.float64)
        if of == Of.delta:
            vectors_GPd = vectors_GPd - points.initial_NPd[rows["run"]]
        return cls(vectors_GPd, pd.factorize(rows["task"])[0], pd.factorize(rows["init"])[0], chosen_UK.shape[1])

    @cached_property
    def inner(self) -> Inner:
        return Inner.of(self.vectors_GPd)

    @cached_property
    def cell_U(self) -> np.ndarray:
        """int64: the cell of each unit."""
        return cells(self.init_G, self.task_G)[:: self.rates]

    @property
    def cells(self) -> int:
        """C."""
        return int(self.cell_U.max()) + 1

    @property
    def crossed(self) -> bool:
        """Whether there are pairs of one init and two tasks, and of one task and two inits."""
        same_init, same_task = self._same(self.init_G), self._same(self.task_G)
        return bool((same_init & ~same_task).any() and (same_task & ~same_init).any())

    @staticmethod
    def _same(codes_G: np.ndarray) -> np.ndarray:
        return codes_G[:, None] == codes_G

    def members(self, rate: int) -> np.ndarray:
        """[U] int64: the prompts of one rate."""
        return np.arange(rate, len(self.task_G), self.rates)

    # Answers.

    def mean(self, values_G: np.ndarray) -> Statistic:
        """The mean of a value of each prompt."""
        return lambda weights_BG: weights_BG @ values_G / weights_BG.sum(1)

    def init_closer(self) -> Statistic:
        """How much closer tokens of one init lie than tokens of one task: the difference of two mean distances.

        Cosine distance over pairs of tokens of different runs, same task and other init less same init and other task.
        """
        same_init, same_task = self._same(self.init_G), self._same(self.task_G)
        pairs = self.inner.length**2
        sums_GG = pairs - self.inner.any_NN

        def gap(weights_BG: np.ndarray) -> np.ndarray:
            of_task, of_init = (
                pair_means(weights_BG, np.where(chosen, sums_GG, 0.0), pairs * chosen.astype(np.float64))
                for chosen in (same_task & ~same_init, same_init & ~same_task)
            )
            return of_task - of_init

        return gap

    def share(self, factor: str) -> Statistic:
        """R2 of init or task."""
        codes_G = self.init_G if factor == "init" else self.task_G
        return lambda weights_BG: self.inner.r2_weighted(weights_BG, codes_G)

    # Answers at a rate and between rates.

    def _at(self, rate: int, weights_BU: np.ndarray) -> np.ndarray:
        weights_BG = np.zeros((len(weights_BU), len(self.task_G)))
        weights_BG[:, rate :: self.rates] = weights_BU
        return weights_BG

    @cached_property
    def _without_a_cell(self) -> np.ndarray:
        """[1 + C, U]: every unit counts once; the same without each cell."""
        left_out_CU = np.arange(self.cells)[:, None] == self.cell_U
        return np.vstack([np.ones(len(self.cell_U)), ~left_out_CU])

    def at(self, statistic: Statistic, rate: int) -> tuple[float, tuple[float, float] | None]:
        """(the answer at a rate, its 95 % interval by leaving out cells; None where that gives none)."""
        return _jackknifed(statistic(self._at(rate, self._without_a_cell)))

    def change(
        self, statistic: Statistic, permutations: int, seed: int
    ) -> tuple[float, tuple[float, float] | None, float]:
        """(the answer at the highest rate less that at the lowest, its 95 % interval likewise, p).

        p: exact, of swapping the two rates within whole cells: what matched prompts of a cell are then exchangeable in.
        """
        low, high = 0, self.rates - 1
        without = self._without_a_cell
        value, interval = _jackknifed(statistic(self._at(high, without)) - statistic(self._at(low, without)))

        def swapped(swaps_BC: np.ndarray) -> np.ndarray:
            swaps_BU = swaps_BC[:, self.cell_U]
            stay, go = (~swaps_BU).astype(np.float64), swaps_BU.astype(np.float64)
            return statistic(self._at(high, stay) + self._at(low, go)) - statistic(
                self._at(low, stay) + self._at(high, go)
            )

        return value, interval, swap_p(swapped, self.cells, permutations, seed)


def _jackknifed(values: np.ndarray) -> tuple[float, tuple[float, float] | None]:
    value, without_C = float(values[0]), values[1:]
    if len(without_C) < 2 or not np.isfinite(without_C).all():
        return value, None
    return value, jackknife_interval(value, without_C)
