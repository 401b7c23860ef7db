"""Prompt tokens as points: the vectors an analysis looks at, with the run, task, init and position of each.

Shapes: N runs, P prompt tokens, d width, K = N * P prompt tokens of all runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.question import Of
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable


@dataclass(frozen=True)
class Tokens:
    """The prompt tokens of all runs; token k belongs to run k // P and stands at position k % P."""

    vectors_Kd: np.ndarray
    """float32."""
    table: pd.DataFrame
    """K rows: run (number), task, init, position."""

    def __len__(self) -> int:
        return len(self.vectors_Kd)

    def codes(self, factor: str) -> np.ndarray:
        """[K] int64: the level of each token in a column of the table, numbered in order of first appearance."""
        return pd.factorize(self.table[factor])[0]

    @property
    def length(self) -> int:
        """P: prompt tokens of a run."""
        return int(self.table["position"].max()) + 1

    @property
    def runs(self) -> int:
        """N."""
        return len(self) // self.length

    @property
    def runs_table(self) -> pd.DataFrame:
        """Task and init of each run, N rows."""
        return self.table.loc[self.table["position"] == 0, ["task", "init"]].reset_index(drop=True)

    @property
    def unit_Kd(self) -> np.ndarray:
        """float32: the vectors at length 1. Raises UserError for a vector of length 0, which has no direction."""
        norms = np.linalg.norm(self.vectors_Kd, axis=1, keepdims=True)
        if not (norms > 0).all():
            row = self.table.iloc[int(np.argmin(norms))]
            which = f"token {row['position']} of run {row['run']} ({row['task']}, {row['init']})"
            raise UserError(f"{which} is zero: it has no direction")
        return self.vectors_Kd / norms

    @property
    def unit_NPd(self) -> np.ndarray:
        """float32: unit_Kd by run and position. Raises UserError as unit_Kd does."""
        return self.unit_Kd.reshape(self.runs, self.length, -1)


def tokens(runs: RunTable, of: Of = Of.prompt, which: str | int = "final") -> Tokens:
    """All runs' prompt tokens, or what training added to them, at a checkpoint (see RunTable.prompts).

    Raises UserError where widths or lengths differ, or without P0 for deltas.
    """
    prompts_NPd = runs.prompts(which)
    if of == Of.delta:
        prompts_NPd = prompts_NPd - runs.prompts("initial")
    n, length, width = prompts_NPd.shape
    table = pd.DataFrame(
        {
            "run": np.repeat(np.arange(n), length),
            "task": np.repeat(runs.table["task"].to_numpy(), length),
            "init": np.repeat(runs.table["init"].to_numpy(), length),
            "position": np.tile(np.arange(length), n),
        }
    )
    return Tokens(prompts_NPd.reshape(n * length, width), table)


def cosine_distances(unit_Kd: np.ndarray) -> np.ndarray:
    """[K, K] float64: 1 - cosine, exactly 0 on the diagonal."""
    distances = 1.0 - unit_Kd.astype(np.float64) @ unit_Kd.T.astype(np.float64)
    np.fill_diagonal(distances, 0.0)
    return np.clip(distances, 0.0, 2.0)


def l2_distances(vectors_Kd: np.ndarray) -> np.ndarray:
    """[K, K] float64: Euclidean distances, exactly 0 on the diagonal."""
    x = vectors_Kd.astype(np.float64)
    squared = (x**2).sum(1)
    distances = squared[:, None] + squared - 2 * x @ x.T
    np.fill_diagonal(distances, 0.0)
    return np.sqrt(np.clip(distances, 0.0, None))


def mean_l2_distances(prompts_NPd: np.ndarray) -> np.ndarray:
    """[N, N] float64: the mean Euclidean distance between the tokens of two prompts; of one with itself, 0s among them.

    A block of prompts against those from there on, as the processor's cache holds them: l2_distances of thousands of
    tokens is slowed down by memory.
    """
    n, length, width = prompts_NPd.shape
    x_Kd = prompts_NPd.reshape(-1, width).astype(np.float64)
    squared_K1, one_K1 = (x_Kd**2).sum(1, keepdims=True), np.ones((len(x_Kd), 1))
    # |x|^2 + |y|^2 - 2 x y as one product.
    left_Kw = np.hstack([x_Kd, squared_K1, one_K1])
    right_wK = np.ascontiguousarray(np.hstack([-2 * x_Kd, one_K1, squared_K1]).T)
    means_NN = np.empty((n, n))
    for start in range(0, n, block := max(128 // length, 1)):
        first, last = start * length, min(start + block, n) * length
        distances = left_Kw[first:last] @ right_wK[:, first:]
        np.fill_diagonal(distances, 0.0)
        np.sqrt(np.maximum(distances, 0.0, out=distances), out=distances)
        by_run = distances.reshape(-1, length, distances.shape[1]).sum(1).reshape(-1, n - start, length).sum(2)
        means_NN[start : start + block, start:] = by_run
        means_NN[start:, start : start + block] = by_run.T
    return means_NN / length**2


def require_levels(runs: RunTable, needed: dict[str, int], what: str) -> None:
    """Raises UserError unless the runs have at least so many tasks, inits, ...: needed={"task": 2, "init": 2}."""
    for factor, least in needed.items():
        levels = runs.table[factor].nunique() if factor in runs.table else 0
        if levels < least:
            raise UserError(f"{what}: needs runs with at least {least} {factor}s; these have {levels}")


def require_runs(runs: RunTable, least: int, what: str) -> None:
    """Raises UserError for fewer runs than an interval needs: one or two would give it hardly any width."""
    if len(runs) < least:
        there = f"there {'is' if len(runs) == 1 else 'are'} {len(runs)}"
        raise UserError(f"{what}: needs at least {least} runs for its intervals; {there}")


def order_of_appearance(values: Iterable) -> list:
    """Each value once, in the order in which they first appear."""
    return list(dict.fromkeys(values))


def random_like(tokens_Pd: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[P, d] float64: a Gaussian direction for each token, as long as the token."""
    noise_Pd = generator.standard_normal(tokens_Pd.shape)
    lengths_P1, noise_lengths_P1 = (np.linalg.norm(x_Pd, axis=-1, keepdims=True) for x_Pd in (tokens_Pd, noise_Pd))
    return noise_Pd * (lengths_P1 / noise_lengths_P1)
