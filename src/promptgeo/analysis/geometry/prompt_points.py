"""Whole prompts as points: of each run the final one, and perhaps its checkpoints, with what is known of each.

Shapes: N runs, K points, P prompt tokens, d width, D = d (mean tokens) or P * d (whole prompts).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.config.paths import as_text
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

COLUMNS = ("task", "init", "seed", "lr", "prompt_length", "template")
"""Of a run, as far as its table has them."""


@dataclass(frozen=True)
class PromptPoints:
    """Prompts of many runs: those of one run beside each other, by step, its final one last."""

    vectors_KD: np.ndarray
    """float32: what is compared: mean tokens, or all tokens one after the other."""
    means_Kd: np.ndarray
    """float32: mean tokens."""
    table: pd.DataFrame
    """K rows: run (its folder's name), what is known of the run, step, accuracy (test, at that step)."""
    run_K: np.ndarray
    """int64: the run of each point, 0 .. N - 1."""

    def __len__(self) -> int:
        return len(self.run_K)

    @property
    def final_N(self) -> np.ndarray:
        """[N] int64: the point of each run's final prompt."""
        return np.flatnonzero(np.diff(self.run_K, append=-1) != 0)

    def require_directions(self, what: str) -> None:
        """Raises UserError for a prompt whose vector is zero: it has no cosine with anything."""
        some_K = self.vectors_KD.any(axis=1)
        if not some_K.all():
            row = self.table.iloc[int(np.argmin(some_K))]
            at = "" if pd.isna(row["step"]) else f" at step {row['step']}"
            raise UserError(
                f"{what}: the prompt of {row['run']}{at} is zero and has no direction; take l2 distances "
                f"(analysis.{what}.distance=l2)"
            )


def prompt_points(
    runs: RunTable,
    what: str,
    *,
    checkpoints: bool = False,
    whole: bool = False,
    most: int | None = None,
    seed: int = 0,
) -> tuple[PromptPoints, list[str]]:
    """(the points, an omission for what was left out to come to `most`).

    P0 is no point: many runs share one. Of too many, checkpoints are left out evenly, of each run as many; then runs.

    Args:
        what: the question, for messages.
        checkpoints: also those that each run kept.
        whole: compare all tokens, not the mean token. most: points; None: all. seed: of the runs that are drawn.

    Raises UserError where widths, or the lengths of whole prompts, differ.
    """
    kept = [_steps_kept(runs, n) if checkpoints else [] for n in range(len(runs))]
    chosen, omissions = _fitting([len(steps) + 1 for steps in kept], most, seed, what)
    lengths = runs.table["prompt_length"] if "prompt_length" in runs.table else pd.Series(0, index=runs.table.index)
    vectors, means, rows, run_K = [], [], [], []
    for place, (n, few) in enumerate(chosen.items()):
        prompts = [(step, prompt) for step, prompt in _evenly(kept[n], few - 1)] + [_final(runs, n)]
        accuracies = _accuracies(runs, n) if checkpoints else {}
        known = {column: runs.table[column].iloc[n] for column in COLUMNS if column in runs.table}
        known |= {"prompt_length": len(prompts[-1][1])} if not lengths.iloc[n] else {}
        for step, prompt_Pd in prompts:
            vectors.append(prompt_Pd.ravel() if whole else prompt_Pd.mean(0))
            means.append(prompt_Pd.mean(0))
            last = step == prompts[-1][0]
            accuracy = (
                _number(runs.table["accuracy_final"].iloc[n]) if last and "accuracy_final" in runs.table else None
            )
            rows.append({"run": _name(runs, n), **known, "step": step, "accuracy": accuracies.get(step, accuracy)})
            run_K.append(place)
    if len(widths := sorted({len(mean_d) for mean_d in means})) > 1:
        raise UserError(f"{what}: prompts of widths {', '.join(map(str, widths))} cannot be compared")
    if len({len(vector) for vector in vectors}) > 1:
        raise UserError(
            f"{what}: whole prompts of unequal length have no distance; take their mean tokens "
            f'(analysis.{what}.prompt=mean), or one length (where="prompt_length == {len(vectors[0]) // widths[0]}")'
        )
    table = pd.DataFrame(rows).astype({"step": "Int64", "accuracy": float})
    return PromptPoints(np.stack(vectors), np.stack(means), table, np.array(run_K)), omissions


def _steps_kept(runs: RunTable, n: int) -> list[tuple[int, np.ndarray]]:
    """A run's checkpoints (step, [P, d]) between P0 and the final prompt."""
    if runs.runs is not None:
        steps, path = runs.runs[n].tensors["steps"], runs.runs[n].tensors["trajectory"]
    elif "trajectory" in runs.arrays:
        steps, path = runs.arrays["steps"], runs.arrays["trajectory"][n]
    else:
        return []
    final = _final(runs, n)[1]
    every = [(int(step), prompt_Pd) for step, prompt_Pd in zip(steps, path, strict=True) if step != 0]
    return every[:-1] if every and np.array_equal(every[-1][1], final) else every


def _final(runs: RunTable, n: int) -> tuple[int | None, np.ndarray]:
    """(step, [P, d]); its step is the run's last, which an import may not know."""
    if runs.runs is not None:
        prompt_Pd, steps = runs.runs[n].prompt(), runs.runs[n].tensors["steps"]
    else:
        prompt_Pd, steps = runs.arrays["final"][n], runs.arrays.get("steps", np.empty(0, int))
    said = _number(runs.table["steps"].iloc[n]) if "steps" in runs.table else None
    return (int(said) if said is not None else int(steps[-1]) if len(steps) else None), prompt_Pd


def _accuracies(runs: RunTable, n: int) -> dict[int | None, float]:
    """Step -> accuracy on the split that the run was scored on, as it logged them."""
    if runs.runs is None or runs.runs[n].metrics.empty:
        return {}
    metrics = runs.runs[n].metrics
    split = "test" if (metrics["split"] == "test").any() else "validation"
    rows = metrics[(metrics["split"] == split) & metrics["accuracy"].notna()]
    return dict(zip(rows["step"].astype(int), rows["accuracy"].astype(float), strict=True))


def _fitting(counts_N: Sequence[int], most: int | None, seed: int, what: str) -> tuple[dict[int, int], list[str]]:
    """(run -> how many points it has, an omission where these are fewer than there are)."""
    if most is None or sum(counts_N) <= most:
        return dict(enumerate(counts_N)), []
    few = max((c for c in range(1, max(counts_N) + 1) if sum(min(c, n) for n in counts_N) <= most), default=1)
    runs = list(range(len(counts_N)))
    if len(runs) > most:
        runs = sorted(np.random.default_rng(seed).choice(len(runs), most, replace=False).tolist())
    chosen = {n: min(few, counts_N[n]) for n in runs}
    drawn = f" of {len(runs)} of {len(counts_N)} runs, drawn by seed {seed}" if len(runs) < len(counts_N) else ""
    shown = f"{what}: shows {sum(chosen.values())} of {sum(counts_N)} prompts{drawn}, "
    return chosen, [shown + f"of each run at most {few}, its final one among them (max_points={most})."]


def _evenly(items: Sequence[tuple[int, np.ndarray]], count: int) -> list[tuple[int, np.ndarray]]:
    """So many of the items, evenly spread."""
    if count >= len(items):
        return list(items)
    places = (np.arange(1, count + 1) * (len(items) + 1) / (count + 1)).round().astype(int) - 1
    return [items[place] for place in places]


def _name(runs: RunTable, n: int) -> str:
    return as_text(runs.runs[n].folder.name) if runs.runs is not None else f"run {n}"


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
