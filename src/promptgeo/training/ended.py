"""What do loggers show of a run that has ended? Its predictions, its confusion matrix, its tokens over training.

Made when it is asked for, once for all loggers of a run, and from what the run keeps anyway: training does nothing for
it, and no step waits for it.

Shapes: S shown checkpoints, P prompt tokens, d width, k nearest.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from promptgeo.runs.folder import Trained
from promptgeo.training.plan import Plan

CHECKPOINTS = 20
"""Shown beside P0, at most: of more, so many evenly in their order, both ends among them."""
NEAREST = 5
"""Vocabulary tokens of each prompt token."""
ALL_CELLS = 100
"""Labels up to which a confusion matrix is shown with its zeros."""


@dataclass(frozen=True)
class Table:
    """A table as loggers take it."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Tokens:
    """Prompt tokens over training: P0 and checkpoints, those alone whose numbers are finite."""

    steps_S: np.ndarray
    """int64; 0: P0."""
    prompts_SPd: np.ndarray
    """float32."""
    p0_Pd: np.ndarray
    """float32."""
    texts_SPk: np.ndarray
    """object: the texts of the nearest vocabulary tokens by cosine, nearest first."""
    cosines_SPk: np.ndarray
    """float32."""

    @property
    def distances_SP(self) -> np.ndarray:
        """float32: of each token to where it began."""
        return np.linalg.norm(self.prompts_SPd - self.p0_Pd, axis=-1)


@dataclass(frozen=True)
class Ended:
    """A run that has ended: completed, diverged or failed."""

    plan: Plan
    trained: Trained
    error: str | None = None
    """Of a run that failed: the kind of the error. run.json has its message, which may name places of this machine."""

    @cached_property
    def predictions(self) -> Table:
        """What predictions.jsonl holds, the final prompt's rows first."""
        columns = ["prompt", "input", "label", "output", "correct", "label_choice"]
        order = {which: k for k, which in enumerate(("final", "best", "initial", "none"))}
        rows = sorted(self.trained.predictions, key=lambda row: order[row["prompt"]])
        return Table(columns, [[row.get(column) for column in columns] for row in rows])

    @cached_property
    def confusion(self) -> np.ndarray | None:
        """[L, L] int64 of the final prompt: examples of each true label (row) by the likeliest one; None without."""
        counts = self.trained.results.get("labels", {}).get("confusion", {}).get("final")
        return None if counts is None else np.array(counts, dtype=np.int64)

    @property
    def labels(self) -> list[str]:
        """The task's label set; empty without one."""
        return list(self.plan.task.labels or [])

    def confusion_table(self) -> Table | None:
        """A row per cell; of more than ALL_CELLS labels, the cells that are not 0."""
        if (counts_LL := self.confusion) is None:
            return None
        cells = [
            [self.labels[true], self.labels[chosen], int(n)]
            for (true, chosen), n in np.ndenumerate(counts_LL)
            if n or len(counts_LL) <= ALL_CELLS
        ]
        return Table(["label", "label_choice", "examples"], cells)

    @cached_property
    def tokens(self) -> Tokens:
        """The nearest vocabulary tokens of each prompt token, at P0 and at the kept checkpoints."""
        from promptgeo.analysis.geometry.readings import Reading, Readings

        lm, trained = self.plan.lm, self.trained
        chosen = np.linspace(0, len(trained.steps) - 1, min(len(trained.steps), CHECKPOINTS)).round().astype(int)
        p0_Pd = trained.final if trained.initial is None else trained.initial
        prompts_SPd = np.concatenate([p0_Pd[None], trained.trajectory[chosen]])
        finite = np.isfinite(prompts_SPd).all((1, 2))
        prompts_SPd = prompts_SPd[finite]
        steps_S = np.concatenate([[0], trained.steps[chosen]]).astype(np.int64)[finite]
        flat_Kd = prompts_SPd.reshape(-1, prompts_SPd.shape[-1])
        near = Readings(lm.vocabulary().numpy()).nearest(flat_Kd, Reading.cosine, NEAREST)
        text = {int(token): lm.token_text(int(token)) for token in np.unique(near.tokens_Kk)}
        texts_Kk = np.vectorize(text.__getitem__, otypes=[object])(near.tokens_Kk)
        shape = (*prompts_SPd.shape[:2], -1)
        return Tokens(steps_S, prompts_SPd, p0_Pd, texts_Kk.reshape(shape), near.scores_Kk.reshape(shape))

    def nearest_table(self) -> Table:
        """A row per checkpoint and prompt token: its norm, its distance to P0, and its nearest tokens."""
        shown = self.tokens
        norms_SP = np.linalg.norm(shown.prompts_SPd, axis=-1)
        k = shown.texts_SPk.shape[-1]
        columns = ["step", "position", "norm", "distance_to_p0", "cosine", *(f"nearest_{n}" for n in range(1, k + 1))]
        rows = [
            [
                int(shown.steps_S[s]),
                p,
                float(norms_SP[s, p]),
                float(shown.distances_SP[s, p]),
                float(shown.cosines_SPk[s, p, 0]),
                *shown.texts_SPk[s, p],
            ]
            for s, p in np.ndindex(norms_SP.shape)
        ]
        return Table(columns, rows)
