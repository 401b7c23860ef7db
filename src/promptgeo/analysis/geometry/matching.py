"""Which prompts of several learning rates are compared? The last ones, those of equal accuracy, or equally far from P0.

A *point* is a prompt at some step of a training. A *unit* is what was trained once at each rate: a task, init and seed.
A checkpoint at step s is what a training of s steps ends with where the schedule is constant: there every checkpoint is
a point, elsewhere only a run's final prompt is (another number of steps, training.max_steps, gives another point).

Shapes: N runs, Q points, U units, K rates, P prompt tokens, d width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable

UNIT = ["task", "init", "seed"]
"""Columns that name a unit."""


class Among(StrEnum):
    """Which points are compared between rates."""

    end = "end"
    """The last one of each training."""
    accuracy = "equal_accuracy"
    distance = "equal_distance"


@dataclass(frozen=True, eq=False)
class Points:
    """All prompts that can be chosen."""

    table: pd.DataFrame
    """Q rows: run (number), task, init, seed, rate, step, accuracy, moved (||P - P0|| / ||P0||), untrained (accuracy of
    P0 or of no prompt, the higher one)."""
    prompts_QPd: np.ndarray
    """float32."""
    initial_NPd: np.ndarray
    """float32: P0 of each run."""
    split: str
    """Whose examples `accuracy` is of."""
    in_units: bool
    """Whether the rates are in units of the embeddings."""
    finals_only: int
    """Runs of which only the final prompt is a point, as their schedule depends on the number of steps."""

    @property
    def rates(self) -> list[float]:
        """K rates, the lowest first."""
        return sorted(self.table["rate"].unique())


def points_of(runs: RunTable) -> Points:
    """The points of all runs.

    Accuracies are those logged in training: on validation examples where all runs have them, else on the examples that
    the runs were scored on. Raises UserError where prompts differ in shape or a run has no P0.
    """
    finals_NPd, initial_NPd = runs.prompts(), runs.prompts("initial")
    rates_N, in_units = _rates(runs)
    trained: Sequence[Run | None] = runs.runs if runs.runs is not None else [None] * len(runs)
    on_validation = all(run is not None and _logged(run, "validation") for run in trained)
    rows: list[dict[str, Any]] = []
    prompts = []
    for n, run in enumerate(trained):
        split = "validation" if on_validation else _split(run)
        fixed = {key: runs.table[key].iloc[n] if key in runs.table else 0 for key in UNIT}
        fixed |= {"run": n, "rate": rates_N[n], "untrained": _untrained(runs.table, n)}
        for step, accuracy, prompt_Pd in _points(runs.table, n, run, finals_NPd[n], split):
            p0_Pd = initial_NPd[n].astype(np.float64)
            moved = float(np.linalg.norm(prompt_Pd - p0_Pd) / (np.linalg.norm(p0_Pd) or np.nan))
            rows.append(fixed | {"step": step, "accuracy": accuracy, "moved": moved})
            prompts.append(prompt_Pd)
    named = "validation" if on_validation else _split(trained[0])
    finals = sum(run is not None and not _every_step_is_an_end(run) for run in trained)
    return Points(pd.DataFrame(rows), np.stack(prompts), initial_NPd, named, in_units, finals)


def _rates(runs: RunTable) -> tuple[list[float], bool]:
    """(the learning rate of each run, whether in units of the embeddings): so where every run's was given in them."""
    if runs.runs is not None:
        given = [run.info["config"]["optimizer"].get("lr_in_embedding_units") for run in runs.runs]
        if all(rate is not None for rate in given):
            return [float(rate) for rate in given if rate is not None], True
    if "lr" not in runs.table or runs.table["lr"].isna().any():
        raise UserError("matched: some of these runs do not say their learning rate")
    return [float(rate) for rate in runs.table["lr"]], False


def _every_step_is_an_end(run: Run) -> bool:
    return run.info["config"]["optimizer"].get("schedule", "constant") == "constant"


def _split(run: Run | None) -> str:
    return "test" if run is None else str(run.info["results"].get("split", "test"))


def _logged(run: Run, split: str) -> dict[int, float]:
    """step -> the accuracy logged there."""
    rows = run.metrics
    rows = rows[(rows["split"] == split) & (rows["step"] > 0)] if len(rows) else rows
    return {int(row.step): float(row.accuracy) for row in rows.itertuples()}


def _untrained(table: pd.DataFrame, n: int) -> float:
    """The accuracy of P0 or of no prompt, the higher one; NaN where neither is known."""
    known = [table[c].iloc[n] for c in ("accuracy_initial", "accuracy_none") if c in table]
    return max((float(x) for x in known if pd.notna(x)), default=float("nan"))


def _points(
    table: pd.DataFrame, n: int, run: Run | None, final_Pd: np.ndarray, split: str
) -> Iterator[tuple[int, float, np.ndarray]]:
    """(step, accuracy or NaN, prompt [P, d]) of one run."""
    last = int(table["steps"].iloc[n]) if "steps" in table and pd.notna(table["steps"].iloc[n]) else 0
    logged = {} if run is None else _logged(run, split)
    if run is not None and _every_step_is_an_end(run):
        for step, prompt_Pd in zip(run.tensors["steps"].tolist(), run.tensors["trajectory"], strict=True):
            if step not in (0, last):
                yield step, logged.get(step, float("nan")), prompt_Pd
    of_final = table["accuracy_final"].iloc[n] if "accuracy_final" in table and split != "validation" else float("nan")
    yield last, logged.get(last, float(of_final)), final_Pd


class Matched(NamedTuple):
    """The points that are compared: one of each unit and rate."""

    chosen_UK: np.ndarray
    """int64: numbers of points."""
    units: int
    """Of all that were trained."""
    left_out: list[str]
    """Each other unit with the reason, in words."""


def matched_points(points: Points, among: Among, tolerance: float) -> Matched:
    """One point of each unit at each rate; units that have none at some rate are left out.

    Among equals, a unit's level is the highest that all of its rates reach: the lowest of their highest values. Of each
    rate the point nearest to it is chosen (of equally near ones the earliest), and it must be near enough.

    Args:
        points: to choose from.
        among: what is equal.
        tolerance: the largest difference from the level: of accuracy itself, of distance as a share of the level.
            Accuracy must also exceed that of P0 and of no prompt by more than this, or an untrained prompt would do.
    """
    rates, rows, left_out = points.rates, [], []
    units = points.table.groupby(UNIT, sort=False, dropna=False)
    several_seeds = points.table["seed"].nunique() > 1
    for (task, init, seed), own in units:
        name = f"{task} from {init}" + (f", seed {seed}" if several_seeds else "")
        of_rates = [own[own["rate"] == rate] for rate in rates]
        missing = [f"{rate:g}" for rate, part in zip(rates, of_rates, strict=True) if part.empty]
        if missing:
            left_out.append(f"{name} (not trained at rate {', '.join(missing)})")
            continue
        row, reason = _nearest(of_rates, rates, among, tolerance)
        if row is None:
            left_out.append(f"{name} ({reason})")
        else:
            rows.append(row)
    return Matched(np.array(rows, dtype=np.int64).reshape(-1, len(rates)), len(units), left_out)


def _nearest(
    of_rates: list[pd.DataFrame], rates: list[float], among: Among, tolerance: float
) -> tuple[list[int] | None, str]:
    """(the point of each rate, "") or (None, why there is none)."""
    if among is Among.end:
        return [int(part["step"].idxmax()) for part in of_rates], ""
    column = "accuracy" if among is Among.accuracy else "moved"
    if any(part[column].isna().all() for part in of_rates):
        return None, f"no {column} is known at some rate"
    level = min(float(part[column].max()) for part in of_rates)
    if among is Among.accuracy and level - of_rates[0]["untrained"].max() <= tolerance:
        untrained = of_rates[0]["untrained"].max()
        return None, f"some rate reaches {level:.2f} at most, an untrained prompt or none {untrained:.2f}"
    slack = tolerance * (level if among is Among.distance else 1.0) + 1e-9  # equal numbers may differ in last bits
    chosen = []
    for rate, part in zip(rates, of_rates, strict=True):
        gaps = (part.sort_values("step")[column] - level).abs().dropna().round(9)
        if gaps.min() > slack:
            return None, f"no point of rate {rate:g} is within {tolerance:g} of {level:.2f}"
        chosen.append(int(gaps.idxmin()))
    return chosen, ""
