"""How far does a set of solutions reach from a trained prompt, and in which directions?

r_tau(u): how far one can go from a prompt along the unit direction u (of all its numbers together) before the loss on
test examples exceeds tau, a multiple of the mean trained loss of the task's runs. Directions: random; towards each
other run's prompt (hull); along and against the gradient of that loss (uphill, downhill).

Shapes: N runs, K directions from one prompt, P prompt tokens, d width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, small_multiples, svg
from promptgeo.analysis.geometry.subspaces import DOUBLINGS, HALVINGS, radii, random_directions, unit
from promptgeo.analysis.groups import TaskRuns
from promptgeo.analysis.resampling import STILL, jackknife_interval, or_exact
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.training_loss import loss_gradient, losses_without_gradient
from promptgeo.data.row import Row
from promptgeo.model.interface import LM

KINDS = {
    "random": "random",
    "hull": "towards other solutions",
    "uphill": "along the gradient",
    "downhill": "against the gradient",
}
"""Kinds of directions, in words."""
SHOWN = 1e-4
"""The smallest radius of the figure, whose axis is logarithmic: 0 would have no place on it."""


@dataclass(frozen=True)
class Search:
    """Where radii are measured."""

    factor: float
    """tau, up to which a loss counts as solved, in mean losses of the task's runs."""
    runs: int | None
    """Of a task; None: all."""
    directions: int
    """Random ones at each."""
    most: float
    """The largest radius, in the prompt's norms."""


def measure_radii(
    result: Result,
    lm: LM,
    task: TaskRuns,
    search: Search,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """A row per radius. Their means over runs (two at least) go to the result.

    Numbers: `radius.<kind>.<task>`, geometric means in units of the prompt's norm; `ratio.<kind>.<task>`, over random;
    `reach.<task>`, the share of hull directions that reach the other solution. Intervals are Student's t over runs
    (starting points).

    Args:
        task: the runs.
        search: where radii are measured.
        generator: of the random directions.
    """
    rows = task.evaluation_set.task.rows(lm, task.evaluation_set.task.test, task.length)
    loss, prompts_NPd = losses_without_gradient(lm, rows), task.prompts()
    losses_N = loss(prompts_NPd)
    tau = float(search.factor * losses_N.mean())
    inside = np.flatnonzero(losses_N <= tau)
    chosen = inside[: search.runs]
    if len(inside) < len(losses_N):
        result.omissions.append(
            f"dimension: {len(losses_N) - len(inside)} of {len(losses_N)} prompts of {task.name} have a loss above "
            f"tau = {tau:.3f}; no radius is measured at them."
        )
    if len(chosen) < len(inside):
        result.omissions.append(
            f"dimension: radii of {task.name} are measured at {len(chosen)} of {len(inside)} prompts "
            "(radii_of=null measures at all)."
        )
    measured: list[dict[str, Any]] = []
    for n in chosen:
        point_Pd = prompts_NPd[n].astype(np.float64)
        away = np.delete(prompts_NPd, n, axis=0) - point_Pd
        directions = _directions(lm, rows, point_Pd, away, search.directions, generator)
        norm = float(np.linalg.norm(point_Pd))
        r_K, beyond_K = radii(loss, point_Pd, np.concatenate(list(directions.values())), tau, search.most * norm)
        kinds = [kind for kind, vectors in directions.items() for _ in vectors]
        distances = iter(np.linalg.norm(away.reshape(len(away), -1), axis=1))
        place = {"task": task.name, "run": task.members[n]}
        for kind, r, beyond in zip(kinds, r_K, beyond_K, strict=True):
            distance = next(distances) if kind == "hull" else np.nan
            row = {"kind": kind, "radius": r, "relative": r / norm, "beyond": beyond, "distance": distance, "tau": tau}
            measured.append(place | row)
    if len(chosen) < 2:
        result.omissions.append(
            f"dimension: {task.name} has fewer than two prompts at which radii are measured; no mean of them has an "
            "interval."
        )
    else:
        _report(result, task.name, pd.DataFrame(measured), tau, search)
    return measured


def _directions(
    lm: LM, rows: list[Row], point_Pd: np.ndarray, away: np.ndarray, count: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Unit directions from a prompt, [K, P, d] of each kind.

    away: the vectors from it to the other runs' prompts. count: of random directions.
    """
    directions = {"random": random_directions(count, point_Pd.shape, generator), "hull": unit(away)}
    gradient_Pd = loss_gradient(lm, rows, point_Pd)
    if np.linalg.norm(gradient_Pd) > 0:
        directions |= {"uphill": unit(gradient_Pd[None]), "downhill": unit(-gradient_Pd[None])}
    return directions


def mean_interval(values_N: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over few runs: Student's t; of one run anything."""
    n = len(values_N)
    if n < 2:
        return -np.inf, np.inf
    return jackknife_interval(values_N.mean(), (values_N.sum() - values_N) / (n - 1))


def _report(result: Result, task: str, measured: pd.DataFrame, tau: float, search: Search) -> None:
    """Geometric means over runs, of each run's mean over its directions: runs are what was drawn."""
    smallest = search.most * 2.0 ** -(DOUBLINGS + HALVINGS)  # a radius of 0 is at most the smallest that is resolved
    logs = np.log(measured["relative"].clip(lower=smallest))
    logs = logs.groupby([measured["run"], measured["kind"]]).mean().unstack("kind")

    def geometric(quantity: str, values: pd.Series) -> Number:
        logs_N = values.dropna().to_numpy()
        mean = float(np.exp(logs_N.mean()))
        # Runs that all end at the largest radius do not say how much they differ.
        interval = np.exp(mean_interval(logs_N)).tolist() if np.ptp(logs_N) > STILL else (0.0, np.inf)
        return result.number(f"{quantity}.{task}", mean, len(logs_N), "runs", *interval)

    means: dict[str, Number] = {}
    ratios: dict[str, Number] = {}
    for kind in [kind for kind in KINDS if kind in logs]:
        means[kind] = geometric(f"radius.{kind}", logs[kind])
        if kind != "random":
            ratios[kind] = geometric(f"ratio.{kind}", logs[kind] - logs["random"])
    hull = measured[measured["kind"] == "hull"]
    resolved = 1 - 2.0**-HALVINGS
    reached = (hull["radius"] >= hull["distance"] * resolved).to_numpy(float)
    # Where all or none reach the other solution, no more is known than there are runs: not directions were drawn.
    low, high = mean_interval(pd.Series(reached).groupby(hull["run"].to_numpy()).mean().to_numpy())
    interval = or_exact((max(low, 0.0), min(high, 1.0)), reached.mean(), len(logs))
    result.number(f"reach.{task}", reached.mean(), len(reached), "directions", *interval)
    beyond = measured.loc[measured["kind"].isin(["random", "hull"]), "beyond"]
    capped = ""
    if beyond.any():
        capped = f"; {int(beyond.sum())} of {len(beyond)} radii exceed {search.most:g} norms and count as that"
    sentence = (
        f"{task}: at tau = {tau:.3f} nats a token ({search.factor:g} times the trained loss) the solution set "
        f"{_comparison(ratios['hull'])} towards other solutions than in random directions: {_in_words(means)}, "
        f"a ratio of {_with_interval(ratios['hull'])}; {int(reached.sum())} of {len(reached)} straight ways to another "
        f"solution stay below tau{capped} (n = {len(logs)} runs)."
    )
    result.findings.append(Finding.of(ratios["hull"], sentence))


def _comparison(ratio: Number) -> str:
    low, high = ratio.interval
    if low > 1:
        return "reaches further"
    if high < 1:
        return "reaches less far"
    return "reaches neither detectably further nor less far"


def _in_words(means: dict[str, Number]) -> str:
    words = [f"{_with_interval(means['hull'])} norms against {_with_interval(means['random'])}"]
    words += [f"{KINDS[kind]} {means[kind].value:.2f}" for kind in ("uphill", "downhill") if kind in means]
    return ", ".join(words)


def _with_interval(number: Number) -> str:
    low, high = number.interval
    return f"{number.value:.2f} ({low:.2f} to {high:.2f})"


def radius_figure(table: pd.DataFrame) -> str:
    """Every radius, by task and kind of direction."""
    tasks, kinds = list(dict.fromkeys(table["task"])), list(KINDS)
    x = "radius below tau, in the prompt's norms (triangles: at least)"
    with small_multiples(len(tasks), x=x, height=2.3) as (figure, axes):
        generator = np.random.default_rng(0)
        for axis, task in zip(axes, tasks, strict=True):
            for k, kind in enumerate(kinds):
                rows = table[(table["task"] == task) & (table["kind"] == kind)]
                for beyond, marker in ((False, "o"), (True, ">")):
                    values = rows.loc[rows["beyond"] == beyond, "relative"].clip(lower=SHOWN)
                    heights = len(kinds) - 1 - k + generator.uniform(-0.25, 0.25, len(values))
                    axis.scatter(values, heights, s=9, alpha=0.6, linewidths=0, color=COLOURS[k], marker=marker)
            labels = [KINDS[kind] for kind in reversed(kinds)]
            axis.set(title=task, xscale="log", yticks=range(len(kinds)), yticklabels=labels)
        return svg(figure, "How far a prompt can go before its loss exceeds tau, a point per direction")
