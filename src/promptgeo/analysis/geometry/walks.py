"""Where would prompt tokens lie, had training gone as far in random directions? Of prompts of any length.

The deltas of all runs are turned by one random rotation, each about its own P0: norms, and all angles between deltas
(of a run, of a task), stay. Where training's directions have nothing to do with the vocabulary, turned prompts are
distributed as the trained ones are, however alike the runs of a task are.

Shapes: N runs, K prompt tokens of all runs, P of one of them, d width.
"""

from dataclasses import dataclass

import numpy as np

from promptgeo.runs.table import RunTable


@dataclass(frozen=True)
class Walks:
    """The tokens of all runs, where they began and where they ended."""

    initial_Kd: np.ndarray
    """float32."""
    final_Kd: np.ndarray
    """float32."""
    run_K: np.ndarray
    """int64: the run of each token."""
    position_K: np.ndarray
    """int64."""

    @classmethod
    def of(cls, runs: RunTable) -> "Walks":
        """Raises UserError for runs without P0, or of several widths."""
        alone = [runs.only([n]) for n in range(len(runs))]
        initial_N, final_N = ([one.prompts(which)[0] for one in alone] for which in ("initial", "final"))
        lengths_N = [len(final_Pd) for final_Pd in final_N]
        return cls(
            np.concatenate(initial_N),
            np.concatenate(final_N),
            np.repeat(np.arange(len(runs)), lengths_N),
            np.concatenate([np.arange(length) for length in lengths_N]),
        )

    @property
    def runs(self) -> int:
        """N."""
        return int(self.run_K[-1]) + 1

    def turned(self, generator: np.random.Generator) -> np.ndarray:
        """[K, d] float32: P0 plus the delta of each token, all turned by one random rotation."""
        rotation_dd = random_rotation(self.initial_Kd.shape[1], generator)
        turned_Kd: np.ndarray = self.initial_Kd + (self.final_Kd - self.initial_Kd) @ rotation_dd.astype(np.float32)
        return turned_Kd

    def by_run(self, values_Kk: np.ndarray, counted_K: np.ndarray | None = None) -> np.ndarray:
        """[N] float64: the mean of each run's values, of one or several to a token; NaN for a run without any.

        counted_K: [K] bool, the tokens that count; None: all.
        """
        means_K = values_Kk.reshape(len(self.run_K), -1).mean(1, dtype=np.float64)
        counted_K = np.ones(len(self.run_K), bool) if counted_K is None else counted_K
        sums_N = np.bincount(self.run_K, np.where(counted_K, means_K, 0.0), self.runs)
        counts_N = np.bincount(self.run_K, counted_K, self.runs)
        return np.divide(sums_N, counts_N, out=np.full(self.runs, np.nan), where=counts_N > 0)


def random_rotation(width: int, generator: np.random.Generator) -> np.ndarray:
    """[d, d] float64: orthogonal, uniformly distributed (reflections too; Mezzadri 2007)."""
    q_dd, r_dd = np.linalg.qr(generator.standard_normal((width, width)))
    rotation_dd: np.ndarray = q_dd * np.sign(np.diag(r_dd))
    return rotation_dd
