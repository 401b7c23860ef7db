"""How do the shares of init, task and position go from P0 to the end of training?

Shapes: N runs, C checkpoints, P prompt tokens, d width, B draws.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import Of
from promptgeo.analysis.resampling import assignments
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.variance import Inner, run_share
from promptgeo.analysis.vectors import require_levels
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable

OTHER = {"init": "task", "task": "init"}
NORMAL = 1.959964


def over_training(runs: RunTable, *, of: Of = Of.prompt, permutations: int = 200, draws: int = 200, seed: int = 0) -> Result:
    """Table `over_training`: one-way R2 of init, task and position at each checkpoint. Numbers `r2.<factor>.start`, `.end`, `.change`.

    Runs are aligned by their k-th checkpoint, which is an epoch where they were kept every epoch: tasks differ in steps per epoch.
    Deltas start at the first checkpoint after P0.

    permutations: of whole runs, for the range by chance and p. draws: of the bootstrap over runs. Its intervals are the estimate
    -+ 1.96 standard deviations of the draws, not their percentiles: a run drawn twice lies at distance 0 from itself and pushes R2 up.

    Raises UserError for runs without checkpoints, or with different numbers of them; for fewer than two inits or tasks.
    """
    require_levels(runs, {"init": 2, "task": 2}, "over_training")
    vectors, at, axis = _checkpoints(runs, of)
    codes = {factor: pd.factorize(runs.table[factor])[0] for factor in OTHER}
    n = len(runs)
    result = Result()
    tested = [f for f, other in OTHER.items() if assignments(codes[f], codes[other]) > 1.5]
    result.omissions += [f"Whether the {f} matters cannot be tested: no {OTHER[f]} has runs of two {f}s." for f in OTHER if f not in tested]
    weights_BN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    rows, drawn = [], []
    for c in progress(range(len(at)), "checkpoints"):
        inner = Inner.of(vectors(c))
        factors = {"init": codes["init"], "task": codes["task"]} | ({"position": None} if inner.length > 1 else {})
        drawn.append({f: inner.r2_weighted(weights_BN, k) for f, k in factors.items()})
        for factor, codes_N in factors.items():
            row = {axis: int(at[c]), "factor": factor, "r2": inner.position() if codes_N is None else inner.r2(codes_N), "runs": n}
            spread = NORMAL * float(np.nanstd(drawn[-1][factor]))
            row |= {"low": max(row["r2"] - spread, 0.0), "high": min(row["r2"] + spread, 1.0)}
            if factor in tested:
                share = run_share(inner, codes_N, codes[OTHER[factor]], permutations, seed)
                row |= {"chance_low": share.by_chance[0], "chance_high": share.by_chance[1], "effect": share.size, "p": share.p}
            rows.append(row)
    table = pd.DataFrame(rows)
    result.tables["over_training"] = table
    for factor in table["factor"].unique():
        chosen = table[table["factor"] == factor]
        _change(factor, chosen, NORMAL * float(np.nanstd(drawn[-1][factor] - drawn[0][factor])), of, result)
    result.figures["over_training"] = _figure(table, axis)
    return result


def _checkpoints(runs: RunTable, of: Of) -> tuple[Callable[[int], np.ndarray], np.ndarray, str]:
    """The vectors [N, P, d] of the c-th checkpoint, where each one lies, and what that counts: epoch, step or checkpoint."""
    if runs.runs is None:
        trajectory_NCPd, steps = runs.trajectory()
        parts = list(trajectory_NCPd)
        steps_of = [np.asarray(steps)] * len(parts)
        starts = list(runs.arrays["initial"]) if "initial" in runs.arrays else [None] * len(parts)
    else:
        parts = [run.tensors["trajectory"] for run in runs.runs]
        steps_of = [np.asarray(run.tensors["steps"]) for run in runs.runs]
        starts = [run.tensors.get("initial") for run in runs.runs]
    counts = sorted({len(steps) for steps in steps_of})
    if counts[0] == 0:
        raise UserError("over_training: some of these runs have no checkpoints")
    if len(counts) > 1:
        raise UserError(
            f"over_training: these runs have different numbers of checkpoints ({', '.join(map(str, counts))}), so they cannot be aligned; "
            "train them with the same number of epochs, or with the same training.max_steps and training.checkpoints=<steps>"
        )
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise UserError(f"over_training: these runs' prompts have different shapes ({', '.join(map(str, shapes))}); choose some with where=...")
    has_p0 = all(start is not None for start in starts)
    if of == Of.delta and not has_p0:
        raise UserError("over_training: some of these runs come without P0, so there is no delta")
    kept = np.flatnonzero(steps_of[0] != 0)  # P0 comes from its own place
    if not len(kept):
        raise UserError("over_training: these runs have no checkpoint after P0")
    at, axis = _axis(runs, steps_of, kept)
    first = [] if of == Of.delta or not has_p0 else [-1]
    places = [*first, *kept]

    def vectors(c: int) -> np.ndarray:
        found = np.stack([start if places[c] < 0 else part[places[c]] for part, start in zip(parts, starts, strict=True)])
        return found - np.stack(starts) if of == Of.delta else found

    return vectors, np.array([*([0] if first else []), *at]), axis


def _axis(runs: RunTable, steps_of: list[np.ndarray], kept: np.ndarray) -> tuple[np.ndarray, str]:
    by_epoch = runs.runs is not None and all((run.info.get("config") or {}).get("training", {}).get("checkpoints") == "epoch" for run in runs.runs)
    if not by_epoch and all((steps == steps_of[0]).all() for steps in steps_of):
        return steps_of[0][kept], "step"
    return np.arange(1, len(kept) + 1), "epoch" if by_epoch else "checkpoint"


def _change(factor: str, chosen: pd.DataFrame, spread: float, of: Of, result: Result) -> None:
    start, end, n = chosen.iloc[0], chosen.iloc[-1], int(chosen["runs"].iloc[0])
    for name, row in (("start", start), ("end", end)):
        p = row.get("p")
        result.number(f"r2.{factor}.{name}", row["r2"], n, "runs", row["low"], row["high"], None if p is None or np.isnan(p) else float(p))
    if len(chosen) < 2:
        result.omissions.append("There is one checkpoint only: nothing can be said on change.")
        return
    change = float(end["r2"] - start["r2"])
    low, high = change - spread, change + spread
    result.number(f"r2.{factor}.change", change, n, "runs", low, high)
    first = "the first checkpoint" if of == Of.delta or chosen.iloc[0, 0] != 0 else "P0"
    what = "the deltas' variance" if of == Of.delta else "the variance of the prompt tokens"
    if low <= 0 <= high:
        sentence = f"The share of {what} that the {factor} explains does not detectably change from {first} to the end of training"
    else:
        sentence = f"The share of {what} that the {factor} explains {'rises' if change > 0 else 'falls'} from {first} to the end of training"
    beyond = f"; beyond chance {start['effect']:.3f} to {end['effect']:.3f}" if "effect" in chosen and chosen["effect"].notna().all() else ""
    numbers = f"R2 {start['r2']:.3f} to {end['r2']:.3f}, change {change:+.3f} ({low:+.3f} to {high:+.3f}){beyond}; n = {n} runs, {len(chosen)} checkpoints"
    result.findings.append(Finding(f"{sentence} ({numbers}).", change, n, "runs", low, high))


def _figure(table: pd.DataFrame, axis: str) -> str:
    with panels(height=3.0) as (figure, axes):
        for k, (factor, rows) in enumerate(table.groupby("factor", sort=False)):
            axes[0, 0].plot(rows[axis], rows["r2"], color=COLOURS[k], label=factor, marker="o" if len(rows) < 12 else None, markersize=3)
            axes[0, 0].fill_between(rows[axis], rows["low"], rows["high"], color=COLOURS[k], alpha=0.2, linewidth=0)
            if "chance_high" in rows and rows["chance_high"].notna().any():
                axes[0, 0].plot(rows[axis], rows["chance_high"], color=COLOURS[k], linestyle=":", linewidth=1)
        axes[0, 0].set_xlabel(axis)
        axes[0, 0].set_ylabel("R2 (dotted: 97.5 % of permutations)")
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].legend()
        return svg(figure)
