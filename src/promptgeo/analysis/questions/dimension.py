"""How large is a task's set of solutions, and in how many directions?

Three measures: radii, the smallest subspace that holds a solution, the participation ratio. Study 1's open direction
(1); `orthogonal` answers its other half.

Shapes: N runs, P prompt tokens, d width, D = P * d numbers of a prompt, k dimensions of a subspace.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.geometry.solution_radii import Search, measure_radii, radius_figure
from promptgeo.analysis.geometry.solution_subspaces import Training, subspace_figure, train_subspaces
from promptgeo.analysis.geometry.subspaces import Spread, spread
from promptgeo.analysis.groups import TaskRuns, by_task, distinct, pushed_apart, two_or_more
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

OF = {"prompt": "solutions", "delta": "deltas P - P0"}
"""Vectors whose spread is measured, in words."""


@question(lm=True, factors=("prompt_length", "regulariser"))
def dimension(
    runs: RunTable,
    *,
    lm: LM,
    factor: float = 2.0,
    radii_of: int | None = 4,
    directions: int = 8,
    most: float = 8.0,
    dimensions: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    subspaces: int = 3,
    share: float = 0.9,
    steps: int = 100,
    batch_size: int = 16,
    lr: float | None = None,
    max_examples: int | None = 50,
    nulls: int = 1000,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, three measures of the set of its trained prompts.

    Radii below a loss of tau (solution_radii.py): `radius.<kind>.<task>` for `random`, `hull`, `uphill` and `downhill`
    directions, geometric means in the prompt's norms; `ratio.<kind>.<task>`, over random; `reach.<task>`.
    Training in random subspaces (solution_subspaces.py): `subspace.<task>.k<k>`, test accuracy; `.k0`, of P0 itself;
    `.whole`, in the whole space; `subspace.<task>`, the smallest k that reaches `share` of the trained runs' accuracy.
    Participation ratio of the solutions and of the deltas P - P0 (`spread`): `participation.<of>.<task>`;
    `participation.null...`, of random directions with the same norms; `participation.ratio...`, value / null, with p.

    Runs that were pushed apart (regulariser=orthogonal) are left out, for that is what spread them.

    Args:
        factor: of the mean trained loss of a task's runs, above 1: tau, up to which a loss counts as solved.
        radii_of: runs of a task that radii are measured at; null: all.
        directions: random ones at each.
        most: the largest radius, in the prompt's norms; a larger one counts as that, and is counted.
        dimensions: of the subspaces, beside the whole space.
        subspaces: of each dimension.
        share: of the trained runs' mean accuracy that a subspace has to reach.
        steps, batch_size, lr: of Adam in subspaces; lr null: the runs' own.
        max_examples: test examples of a task; null: all.
        nulls: random sets of directions for the participation ratio.
        draws, seed: of intervals; of all that is drawn.

    Raises UserError where no task has two trained prompts of one length, or for prompts that were trained elsewhere.
    """
    _check(factor, directions, most, dimensions, subspaces, share, steps)
    result = Result()
    tasks = _tasks(runs, max_examples, seed, result)
    search = Search(factor, radii_of, directions, most)
    training = Training(dimensions, subspaces, share, steps, batch_size, lr)
    rows: dict[str, list[dict[str, Any]]] = {"radii": [], "subspaces": [], "participation": []}
    for k, task in enumerate(progress(tasks, "tasks")):
        # Each measure of each task has a stream of its own: what one draws does not depend on the others' options.
        streams = [np.random.default_rng((seed, k, part)) for part in range(3)]
        rows["radii"] += measure_radii(result, lm, task, search, draws, seed, streams[0])
        rows["subspaces"] += train_subspaces(result, lm, task, training, draws, streams[1])
        rows["participation"] += _participation(result, task, nulls, streams[2])
    result.omissions += sampled_examples("dimension", [task.evaluation_set for task in tasks], max_examples, seed)
    _show(result, rows, share)
    return result


def _check(
    factor: float,
    directions: int,
    most: float,
    dimensions: Sequence[int],
    subspaces: int,
    share: float,
    steps: int,
) -> None:
    counts = (directions, subspaces, steps, *dimensions)
    if factor <= 1 or most <= 0 or not 0 < share <= 1 or not dimensions or min(counts) < 1:
        raise UserError(
            "dimension: needs factor > 1, 0 < share <= 1, most > 0, and at least one direction, subspace, step and "
            "dimension"
        )


def _tasks(runs: RunTable, max_examples: int | None, seed: int, result: Result) -> list[TaskRuns]:
    """Different prompts that were trained for themselves, two or more a task; the others are omissions."""
    free = [n for n, run in enumerate(runs.runs or []) if not pushed_apart(run)]
    kept = distinct(runs, free)
    groups = by_task(runs, "dimension", max_examples, seed, among=kept)
    if pushed := len(runs) - len(free):
        result.omissions.append(
            f"dimension: {pushed} runs that were pushed apart are left out: that is what spread them."
        )
    if same := len(free) - len(kept):
        result.omissions.append(f"dimension: {same} runs have the same prompt as another one and are left out.")
    tasks, omissions = two_or_more(groups, "dimension", "two or more are needed")
    result.omissions += omissions
    return tasks


def _show(result: Result, rows: dict[str, list[dict[str, Any]]], share: float) -> None:
    """Tables and figures of the measures that have rows."""
    result.tables |= {name: pd.DataFrame(parts) for name, parts in rows.items() if parts}
    if rows["radii"]:
        result.figures["radii"] = radius_figure(result.tables["radii"])
    if rows["subspaces"]:
        result.figures["subspaces"] = subspace_figure(result.tables["subspaces"], share)


# Participation ratio.


def _participation(result: Result, task: TaskRuns, nulls: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """A row per principal component of the prompts, and of the deltas."""
    n, prompts_NPd, p0_NPd = len(task.members), task.prompts(), task.initial()
    if n < 4:
        result.omissions.append(
            f"dimension: {task.name} has {n} trained prompts; a participation ratio needs four, for that of two is 1 "
            "whatever they are, and its interval leaves runs out."
        )
        return []
    vectors = {"prompt": prompts_NPd}
    if p0_NPd is None:
        result.omissions.append(
            f"dimension: {task.name} has prompts without P0, hence no participation ratio of deltas."
        )
    elif len(np.unique(p0_NPd.reshape(n, -1), axis=0)) == 1:
        result.omissions.append(
            f"dimension: all runs of {task.name} start from the same P0; their deltas spread as their prompts do."
        )
    else:
        vectors["delta"] = prompts_NPd - p0_NPd
    rows: list[dict[str, Any]] = []
    for of, vectors_NPd in vectors.items():
        measured, spectrum = spread(vectors_NPd.reshape(n, -1), nulls, generator)
        _report_participation(result, task.name, of, measured, n)
        ratios = {"participation": measured.value, "null": measured.null, "runs": n}
        rows += [
            {"task": task.name, "of": of, "component": k, "share": share} | ratios
            for k, share in enumerate(spectrum, start=1)
        ]
    return rows


def _report_participation(result: Result, task: str, of: str, measured: Spread, n: int) -> None:
    null, p, place = measured.null, measured.p, f"{of}.{task}"
    low, high = measured.low * null, measured.high * null
    result.number(f"participation.{place}", measured.value, n, "runs", low, high, p)
    result.number(f"participation.null.{place}", null, n, "runs", p=p)
    ratio = result.number(f"participation.ratio.{place}", measured.ratio, n, "runs", measured.low, measured.high, p)
    fewer = "they spread over fewer dimensions than random directions do"
    if p >= 0.05:
        fewer = f"nothing shows that {fewer}"
    elif measured.high >= 1:
        fewer += ", though other runs might not"
    sentence = (
        f"{task}: the participation ratio of {n} {OF[of]} is {measured.value:.2f}, of random directions with the same "
        f"norms {null:.2f} ({n} points give {n - 1} at most): {ratio.value:.3f} of it ({measured.low:.3f} to "
        f"{measured.high:.3f}, p = {p:.3g}), so {fewer} (n = {n} runs)."
    )
    result.findings.append(Finding.of(ratio, sentence))
