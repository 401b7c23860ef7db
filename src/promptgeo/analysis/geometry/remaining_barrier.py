"""How much of a straight line's barrier remains on another path between the same ends?

A barrier is a maximum over points of a path, which noise raises: its share is bounded by all points at once.

Shapes: T points of a path, E test examples, B bootstrap draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.resampling import draw_counts, t_quantile, upper_of_few

LARGEST = 10.0
"""A share that may be larger counts as this."""
HALVINGS = 12
"""Of a bound's search: to 1/400."""


def rises(weights_BE: np.ndarray, losses_TE: np.ndarray, tokens_E: np.ndarray, t_T: np.ndarray) -> np.ndarray:
    """[B, T] float64: how far the loss a token lies above the line between the ends' (at t = 0 and 1), by examples."""
    losses_BT = (weights_BE @ losses_TE.T) / (weights_BE @ tokens_E)[:, None]
    return losses_BT - ((1 - t_T) * losses_BT[:, :1] + t_T * losses_BT[:, -1:])


def highest_interval(rises_BT: np.ndarray, n: int) -> tuple[float, float]:
    """95 % interval of the highest rise of a path, never below 0: of its points' intervals, all at once.

    A maximum of noisy points is too high, and in draws of examples higher still: a percentile interval of maxima
    covers 75 % where the path is flat. Losses of which a few are large: upper_of_few.

    rises_BT: of all n test examples first, then of each draw of them.
    """
    error_T = np.maximum(rises_BT[1:].std(0), 1e-12)
    off_B = (np.abs(rises_BT[1:] - rises_BT[0]) / error_T).max(1)
    half_T = max(float(np.quantile(off_B, 0.95)), t_quantile(0.975, max(n - 1, 1))) * error_T
    low, high = float((rises_BT[0] - half_T).max()), float((rises_BT[0] + half_T).max())
    at = rises_BT[0].argmax()
    return max(low, 0.0), max(high, upper_of_few(max(float(rises_BT[0, at]), 0.0), float(error_T[at])))


@dataclass(frozen=True)
class Remaining:
    """A path's rise beside the line's, at their points, on the test examples and in draws of them."""

    path_BT: np.ndarray
    """[1 + B, T]: all examples first."""
    line_BT: np.ndarray
    """Likewise; the middle of T is the midpoint, by which the pair was chosen on training examples."""
    n: int
    """Test examples."""

    @classmethod
    def of(
        cls, path_TE: np.ndarray, line_TE: np.ndarray, tokens_E: np.ndarray, t_T: np.ndarray, draws: int, seed: int
    ) -> "Remaining":
        n = len(tokens_E)
        weights_BE = np.concatenate([np.ones((1, n)), draw_counts(np.random.default_rng(seed), n, draws)])
        path_BT, line_BT = (rises(weights_BE, losses_TE, tokens_E, t_T) for losses_TE in (path_TE, line_TE))
        return cls(path_BT, line_BT, n)

    def midpoint(self) -> tuple[float, float, float]:
        """(the line's rise at its midpoint, its 95 % interval)."""
        rise_B = self.line_BT[:, self.line_BT.shape[1] // 2]
        half = self._t(0.975) * float(rise_B[1:].std())
        return float(rise_B[0]), float(rise_B[0]) - half, float(rise_B[0]) + half

    def interval(self, pairs: int = 1) -> tuple[float, float]:
        """95 % interval of the share, the path's highest rise over the line's, within 0 to LARGEST.

        The shares that no test rejects: more than the upper one does not remain, for the path lies below that share of
        the line's midpoint at each of its points; less than the lower one does not, for at some of its points, all
        looked at at once, it lies above that share of each of the line's. pairs: as many are bounded at once.
        """
        level = 0.025 / pairs
        return self._bound(lambda share: self._more(share, level)), self._bound(lambda share: not self._less(share))

    def _less(self, share: float) -> bool:
        """Whether the path's every rise lies below the share of the line's midpoint, each at 2.5 %."""
        middle_B = self.line_BT[:, self.line_BT.shape[1] // 2, None]
        over_BT = self.path_BT[:, 1:-1] - share * middle_B
        return bool((over_BT[0] + self._t(0.975) * over_BT[1:].std(0)).max() < 0)

    def _more(self, share: float, level: float) -> bool:
        """Whether some rise of the path lies above the share of the line's every rise, at this level."""
        over_BTT = self.path_BT[:, 1:-1, None] - share * self.line_BT[:, None, 1:-1]
        error_TT = np.maximum(over_BTT[1:].std(0), 1e-12)
        highest_BT = ((over_BTT[1:] - over_BTT[0]) / error_TT).max(1)
        z = max(self._t(1 - level), float(np.quantile(highest_BT, 1 - level, axis=0).max()))
        return bool((over_BTT[0] - z * error_TT).min(1).max() > 0)

    def _t(self, level: float) -> float:
        return t_quantile(level, max(self.n - 1, 1))

    def _bound(self, below: Callable[[float], bool]) -> float:
        """The largest share of which `below` is true: below is true up to there."""
        low, high = 0.0, LARGEST
        if below(high):
            return high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if below(middle) else (low, middle)
        return low
