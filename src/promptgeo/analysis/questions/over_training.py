"""How do the shares of init, task and position go from P0 to the end of training?

Table `over_training`: one-way R2 of init, task and position at each checkpoint. Numbers `r2.<factor>.start`, `.end`,
`.change`; n counts runs.

Shapes: N runs, C checkpoints, P prompt tokens, d width, B draws.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.geometry.tokens import require_levels
from promptgeo.analysis.geometry.variance import Inner, Share, run_share
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import assignments, run_weights, t_interval
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

OTHER = {"init": "task", "task": "init"}


@question(of=True)
def over_training(
    runs: RunTable, *, of: Of = Of.prompt, permutations: int = 200, draws: int = 200, seed: int = 0
) -> Result:
    """The shares of variance at each checkpoint, and their change.

    Runs are aligned by their k-th checkpoint, which is an epoch where they were kept every epoch: tasks differ in steps
    per epoch. Deltas start at the first checkpoint after P0.

    permutations: of whole cells, for the range by chance and p. draws: of the bootstrap over runs. Its intervals are
    Student's t times the standard deviation of the draws, about the estimate, not their percentiles: a run drawn twice
    lies at distance 0 from itself and pushes R2 up. In simulations of 4 to 30 runs they cover 96 % or more.

    Raises UserError for runs without checkpoints, or with different numbers of them; for fewer than two inits or tasks.
    """
    require_levels(runs, {"init": 2, "task": 2}, "over_training")
    checkpoints = _aligned(runs, of)
    codes = {factor: pd.factorize(runs.table[factor])[0] for factor in OTHER}
    result = Result()
    tested = [f for f, other in OTHER.items() if assignments(codes[f], codes[other]) > 1.5]  # more than 1, rounded
    result.omissions += [
        f"Whether the {f} matters cannot be tested: no {OTHER[f]} has runs of two {f}s."
        for f in OTHER
        if f not in tested
    ]
    weights_BN = run_weights(len(runs), draws, seed)
    courses: dict[str, list[_Point]] = defaultdict(list)
    for c in progress(range(len(checkpoints)), "checkpoints"):
        inner = Inner.of(checkpoints.vectors(c))
        for factor in ("init", "task", "position") if inner.length > 1 else OTHER:
            codes_N, share = codes.get(factor), None
            if codes_N is not None and factor in tested:
                share = run_share(inner, codes_N, codes[OTHER[factor]], permutations, seed)
            r2 = inner.position() if codes_N is None else inner.r2(codes_N)
            courses[factor].append(_Point(r2, inner.r2_weighted(weights_BN, codes_N), share, len(runs)))
    for factor, points in courses.items():
        _report(factor, points, checkpoints, result)
    if len(checkpoints) == 1:
        result.omissions.append("There is one checkpoint only: nothing can be said of change.")
    result.tables["over_training"] = _table(courses, checkpoints)
    result.figures["over_training"] = _figure(courses, checkpoints)
    return result


@dataclass(frozen=True)
class _Point:
    """A factor's share of the variance at one checkpoint."""

    r2: float
    drawn_B: np.ndarray
    """[B] float64: R2 of each draw of runs; the same draws at every checkpoint."""
    share: Share | None
    """Beside what it would be by chance; None where it is not tested."""
    runs: int

    @property
    def interval(self) -> tuple[float, float]:
        return t_interval(self.r2, self.drawn_B, self.runs, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Checkpoints:
    """The checkpoints of all runs, aligned."""

    of: Of
    trajectories_N: Sequence[np.ndarray]
    """[C, P, d] float32 of each run."""
    starts_N: Sequence[np.ndarray] | None
    """P0 [P, d] of each run; None where one comes without it."""
    places: list[int]
    """Where in the trajectories each checkpoint lies; -1: P0."""
    at: list[int]
    """Where each lies in training."""
    unit: str
    """What `at` counts: epoch, step or checkpoint."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def runs(self) -> int:
        return len(self.trajectories_N)

    def vectors(self, c: int) -> np.ndarray:
        """[N, P, d] float32: the prompts or deltas of the c-th checkpoint."""
        place, starts_N = self.places[c], self.starts_N
        if place < 0 and starts_N is not None:
            return np.stack(starts_N)
        vectors_NPd = np.stack([trajectory_CPd[place] for trajectory_CPd in self.trajectories_N])
        return vectors_NPd - np.stack(starts_N) if self.of == Of.delta and starts_N is not None else vectors_NPd


def _aligned(runs: RunTable, of: Of) -> _Checkpoints:
    """Raises UserError where the runs' checkpoints cannot be aligned, or a delta has no P0."""
    trajectories_N, steps_N, starts_N = _kept(runs)
    _require_alike(trajectories_N, steps_N)
    if of == Of.delta and starts_N is None:
        raise UserError("over_training: some of these runs come without P0, so there is no delta")
    kept = np.flatnonzero(steps_N[0] != 0).tolist()  # P0 comes from its own place
    if not kept:
        raise UserError("over_training: these runs have no checkpoint after P0")
    at, unit = _axis(runs, steps_N, kept)
    from_p0 = of == Of.prompt and starts_N is not None
    places, at = ([-1, *kept], [0, *at]) if from_p0 else (kept, at)
    return _Checkpoints(of, trajectories_N, starts_N, places, at, unit)


def _kept(runs: RunTable) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray] | None]:
    """(trajectory [C, P, d], its steps [C], P0 [P, d]) of each run; no P0s where a run comes without it."""
    if runs.runs is None:
        trajectory_NCPd, steps_C = runs.trajectory()
        starts_N = list(runs.arrays["initial"]) if "initial" in runs.arrays else None
        return list(trajectory_NCPd), [np.asarray(steps_C)] * len(trajectory_NCPd), starts_N
    tensors_N = [run.tensors for run in runs.runs]
    has_p0 = all("initial" in tensors for tensors in tensors_N)
    return (
        [tensors["trajectory"] for tensors in tensors_N],
        [np.asarray(tensors["steps"]) for tensors in tensors_N],
        [tensors["initial"] for tensors in tensors_N] if has_p0 else None,
    )


def _require_alike(trajectories_N: Sequence[np.ndarray], steps_N: Sequence[np.ndarray]) -> None:
    """Raises UserError unless all runs have as many checkpoints, at least one, and prompts of one shape."""
    counts = sorted({len(steps_C) for steps_C in steps_N})
    if counts[0] == 0:
        raise UserError("over_training: some of these runs have no checkpoints")
    if len(counts) > 1:
        raise UserError(
            f"over_training: these runs have different numbers of checkpoints ({', '.join(map(str, counts))}), "
            "so they cannot be aligned; train them with the same number of epochs, "
            "or with the same training.max_steps and training.checkpoints=<steps>"
        )
    shapes = sorted({trajectory_CPd.shape[1:] for trajectory_CPd in trajectories_N})
    if len(shapes) > 1:
        raise UserError(
            f"over_training: these runs' prompts have different shapes ({', '.join(map(str, shapes))}); "
            "choose some with where=..."
        )


def _axis(runs: RunTable, steps_N: Sequence[np.ndarray], kept: list[int]) -> tuple[list[int], str]:
    """(where each checkpoint after P0 lies, in which unit): steps only where they are the same in all runs."""
    by_epoch = runs.runs is not None and all(
        (run.info.get("config") or {}).get("training", {}).get("checkpoints") == "epoch" for run in runs.runs
    )
    if not by_epoch and all((steps_C == steps_N[0]).all() for steps_C in steps_N):
        return steps_N[0][kept].tolist(), "step"
    return list(range(1, len(kept) + 1)), "epoch" if by_epoch else "checkpoint"


def _report(factor: str, points: list[_Point], checkpoints: _Checkpoints, result: Result) -> None:
    """A factor's share at both ends and its change."""
    start, end = points[0], points[-1]
    for name, point in (("start", start), ("end", end)):
        p = point.share.p if point.share else None
        result.number(f"r2.{factor}.{name}", point.r2, checkpoints.runs, "runs", *point.interval, p)
    if len(points) == 1:
        return
    difference = end.r2 - start.r2
    low, high = t_interval(difference, end.drawn_B - start.drawn_B, checkpoints.runs, -1.0, 1.0)
    change = result.number(f"r2.{factor}.change", difference, checkpoints.runs, "runs", low, high)
    result.findings.append(_finding(factor, start, end, change, checkpoints))


def _finding(factor: str, start: _Point, end: _Point, change: Number, checkpoints: _Checkpoints) -> Finding:
    low, high = change.interval
    delta = checkpoints.of == Of.delta
    what = "the deltas' variance" if delta else "the variance of the prompt tokens"
    first = "the first checkpoint" if delta or checkpoints.at[0] != 0 else "P0"
    verb = "does not detectably change" if low <= 0 <= high else "rises" if change.value > 0 else "falls"
    beyond = ""
    if start.share and end.share:
        beyond = f"; beyond chance {start.share.size:.3f} to {end.share.size:.3f}"
    evidence = (
        f"R2 {start.r2:.3f} to {end.r2:.3f}, change {change.value:+.3f} ({low:+.3f} to {high:+.3f}){beyond}; "
        f"n = {change.n} runs, {len(checkpoints)} checkpoints"
    )
    sentence = f"The share of {what} that the {factor} explains {verb} from {first} to the end of training"
    return Finding.of(change, f"{sentence} ({evidence}).")


def _table(courses: dict[str, list[_Point]], checkpoints: _Checkpoints) -> pd.DataFrame:
    rows = []
    for c, at in enumerate(checkpoints.at):
        for factor, points in courses.items():
            point = points[c]
            row: dict[str, Any] = {checkpoints.unit: at, "factor": factor, "r2": point.r2, "runs": checkpoints.runs}
            row["low"], row["high"] = point.interval
            if point.share:
                row["chance_low"], row["chance_high"] = point.share.by_chance
                row |= {"effect": point.share.size, "p": point.share.p}
            rows.append(row)
    return pd.DataFrame(rows)


def _figure(courses: dict[str, list[_Point]], checkpoints: _Checkpoints) -> str:
    """R2 of each factor over training, its 95 % interval as a band."""
    with panels(height=3.0) as (figure, axes):
        axis, at = axes[0, 0], checkpoints.at
        for k, (factor, points) in enumerate(courses.items()):
            lows, highs = zip(*(point.interval for point in points), strict=True)
            marker = "o" if len(points) < 12 else None  # more would hide the line
            axis.plot(at, [point.r2 for point in points], color=COLOURS[k], label=factor, marker=marker, markersize=3)
            axis.fill_between(at, lows, highs, color=COLOURS[k], alpha=0.2, linewidth=0)
            chance = [point.share.by_chance[1] for point in points if point.share]
            if chance:
                axis.plot(at, chance, color=COLOURS[k], linestyle=":", linewidth=1)
        axis.set_xlabel(checkpoints.unit)
        axis.set_ylabel("R², share of variance\n(dotted: 97.5 % of permutations)")
        axis.set_ylim(bottom=0)
        axis.legend()
        return svg(figure, "How much of where prompts lie goes with each factor, over training, with 95 % intervals")
