"""Is it where training went, or only how far? A control that deals the directions of training anew.

Tasks that only move their prompts differently far look like tasks that move them to different places: to mean
distances, to counts of neighbours, to correlations of distances. Among the runs of an init, whole runs exchange where
training took them, and each keeps how far: what inits, positions and training as such have in common stays, and nothing
of the task but its distance. (Turned at random instead, deltas lose what is common to all of them, and statistics of
pairs take that for the task.)

Shapes: N runs, P prompt tokens, d width, B draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.question import Of
from promptgeo.analysis.resampling import assignments, percentile_interval, permutation_p
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

OTHER = {"init": "task", "task": "init"}
"""Of a factor whose levels are exchanged, what stays."""
MOST_DRAWS = 199
"""Of the control: each takes all distances anew."""
NO_P0 = (
    "P0 is not known: that tasks move their prompts differently far, and not to different places, cannot be told apart"
)


@dataclass(frozen=True)
class Control:
    """What a statistic is where nothing but how far training moved tells the tasks apart."""

    mean: float
    low: float
    high: float
    """95 % range of its draws."""
    p: float
    """Of the observed statistic being larger, and no smaller than the plain p: few tasks and inits can be dealt in few
    ways, and half of a two-sided p would ask what no one does. (A run goes far where its way is that of its init, so
    that ways dealt anew differ a little from those of runs without any effect of the task: alone it rejects 9 %.)"""
    draws: int

    @classmethod
    def of(cls, observed: float, null_B: np.ndarray, plain_p: float = 0.0) -> "Control":
        """Of a statistic and its draws. plain_p: of the tasks exchanged whole, how far their prompts moved included."""
        p = max(permutation_p(observed, null_B), plain_p)
        return cls(float(null_B.mean()), *percentile_interval(null_B), p, len(null_B))

    def beyond(self, observed: float) -> bool:
        """Whether the statistic is larger than how far tasks move can make it."""
        return self.p < LEVEL and observed > self.mean

    @property
    def row(self) -> tuple[float, int, str, float, float, float]:
        """Of a number: value, n, unit, low, high, p."""
        return self.mean, self.draws, "draws", self.low, self.high, self.p


@dataclass(frozen=True)
class Moved:
    """P0, and where training took each run's tokens."""

    prompts_NPd: np.ndarray
    """float32: as they are; deltas where these are looked at."""
    initial_NPd: np.ndarray
    """float32; zeros where the deltas are looked at."""
    direction_NPd: np.ndarray
    """float32, of length 1; 0 where a token did not move."""
    far_NP1: np.ndarray
    """float32: how far each token moved."""
    table: pd.DataFrame
    """The runs' tasks and inits."""
    share_N: np.ndarray
    """float64: the norm of what training added over that of P0; NaN where P0 is 0."""

    @classmethod
    def of(cls, runs: RunTable, of: Of) -> "Moved | None":
        """None where the runs have no P0."""
        try:
            initial_NPd = runs.prompts("initial")
        except UserError:
            return None
        delta_NPd = runs.prompts() - initial_NPd
        far_NP1 = np.linalg.norm(delta_NPd, axis=2, keepdims=True)
        direction_NPd = delta_NPd / np.where(far_NP1 > 0, far_NP1, 1.0)
        norms_N = np.linalg.norm(initial_NPd.astype(np.float64), axis=(1, 2))
        share_N = np.linalg.norm(delta_NPd.astype(np.float64), axis=(1, 2)) / np.where(norms_N > 0, norms_N, np.nan)
        start_NPd = np.zeros_like(initial_NPd) if of == Of.delta else initial_NPd
        own_NPd = delta_NPd if of == Of.delta else runs.prompts()
        return cls(own_NPd, start_NPd, direction_NPd, far_NP1, runs.table, share_N)

    def null(
        self, statistic: Callable[[np.ndarray], float | Sequence[float]], draws: int, seed: int
    ) -> np.ndarray | None:
        """[B] or [B, S] float64: statistics of prompts [N, P, d], directions dealt anew; None where none can be."""
        orders_BN = cell_orders(self.table, "init", "task", min(draws, MOST_DRAWS), seed)
        if orders_BN is None:
            return None
        return np.array([statistic(self.dealt(order)) for order in orders_BN])

    def control(
        self, statistic: Callable[[np.ndarray], float], draws: int, seed: int, plain_p: float | None = None
    ) -> Control | None:
        """A statistic of the prompts as they are beside its `null`. plain_p: see Control.of; None: there is none."""
        null_B = self.null(statistic, draws, seed)
        return None if null_B is None else Control.of(statistic(self.prompts_NPd), null_B, plain_p or 0.0)

    def dealt(self, order_N: np.ndarray) -> np.ndarray:
        """[N, P, d] float32: each run as far from its P0 as it is, the way of the run that an order gives it."""
        prompts_NPd: np.ndarray = self.initial_NPd + self.far_NP1 * self.direction_NPd[order_N]
        # Put together again, a prompt that stays where it was would differ in its last bits, and the order that changes
        # nothing would not count as one that gives what was observed: of four runs it is one order in four.
        own_N = order_N == np.arange(len(order_N))
        prompts_NPd[own_N] = self.prompts_NPd[own_N]
        return prompts_NPd

    @property
    def words(self) -> str:
        """How far the tasks moved their prompts, in norms of P0."""
        shares = pd.Series(self.share_N).groupby(self.table["task"], sort=False).mean()
        if shares.isna().all():
            return "P0 is 0"
        least, most = shares.idxmin(), shares.idxmax()
        return f"tasks move their prompts by {shares[least]:.2f} ({least}) to {shares[most]:.2f} ({most}) of P0's norm"


def cell_orders(table: pd.DataFrame, within: str, factor: str, draws: int, seed: int) -> np.ndarray | None:
    """[B, N] int64: orders of the runs that exchange whole cells within an init (or within a task).

    The seeds of a cell have something in common, so they stay together; only cells with equally many runs change
    places. None where no two cells can.

    within, factor: columns of the table: what stays, and what is exchanged.
    """
    cells = [group.index.to_numpy() for _, group in table.groupby([within, factor], sort=False)]
    strata: dict[tuple, list[np.ndarray]] = {}
    for members in cells:
        strata.setdefault((table[within].iloc[members[0]], len(members)), []).append(members)
    exchanged = [np.stack(group) for group in strata.values() if len(group) > 1]
    if not exchanged:
        return None
    generator = np.random.default_rng(seed)
    orders_BN = np.tile(np.arange(len(table)), (draws, 1))
    for cells_CS in exchanged:
        places_BC = generator.permuted(np.tile(np.arange(len(cells_CS)), (draws, 1)), axis=1)
        orders_BN[:, cells_CS] = cells_CS[places_BC]
    return orders_BN


def too_few(table: pd.DataFrame, within: str, factor: str) -> str:
    """That `cell_orders` has too few orders for a two-sided p below LEVEL, in words; empty where it has enough."""
    least = least_p(table, within, factor)
    return f"so few inits and tasks allow no p below {least:.2g}" if least >= LEVEL else ""


def least_p(table: pd.DataFrame, within: str, factor: str) -> float:
    """The least two-sided p of `cell_orders`, of which random draws may give a little less."""
    cells = table.groupby([within, factor], sort=False).size().reset_index(name="runs")
    strata_C = pd.factorize(cells[within].astype(str) + " " + cells["runs"].astype(str))[0]
    return min(2.0 / assignments(pd.factorize(cells[factor])[0], strata_C), 1.0)
