"""How large is a task's set of solutions, and in how many directions?

Three measures: radii, the smallest subspace that holds a solution, the participation ratio. Study 1's open direction
(1); `orthogonal` answers its other half.

Shapes: N runs, P prompt tokens, d width, D = P * d numbers of a prompt, k dimensions of a subspace.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.geometry.solution_radii import Search, measure_radii, radius_figure
from promptgeo.analysis.geometry.solution_subspaces import Training, subspace_figure, train_subspaces
from promptgeo.analysis.geometry.subspaces import Spread, centred_gram, spread, spread_beside, vocabulary_grams
from promptgeo.analysis.groups import TaskRuns, by_task, distinct, pushed_apart, two_or_more
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import t_p
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

OF = {"prompt": "solutions", "delta": "deltas P - P0"}
"""Vectors whose spread is measured, in words."""


@question(lm=True, factors=("prompt_length", "regulariser.name", "regulariser.weight"))
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
    `participation.null...`, of random directions with the same norms; `participation.ratio...`, value / null, with p;
    of the solutions also `participation.p0.<task>`, of their P0s, and `participation.vocabulary.<task>`, of random
    vocabulary tokens, with `participation.over_p0.<task>` and `.over_vocabulary.<task>`, value over those: untrained
    prompts too spread over fewer dimensions than random directions do.

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
    # Long because all its numbers and options are named here.
    _check(factor, directions, most, dimensions, subspaces, share, steps)
    result = Result()
    tasks = _tasks(runs, max_examples, seed, result)
    search = Search(factor, radii_of, directions, most)
    training = Training(dimensions, subspaces, share, steps, batch_size, lr)
    rows: dict[str, list[dict[str, Any]]] = {"radii": [], "subspaces": [], "participation": []}
    for k, task in enumerate(progress(tasks, "tasks")):
        # Each measure of each task has a stream of its own: what one draws does not depend on the others' options.
        streams = [np.random.default_rng((seed, k, part)) for part in range(3)]
        rows["radii"] += measure_radii(result, lm, task, search, streams[0])
        rows["subspaces"] += train_subspaces(result, lm, task, training, draws, streams[1])
        rows["participation"] += _participation(result, lm, task, nulls, streams[2])
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


LEAST_SPREAD = 6
"""Of four prompts, whose ratio is at most 3, 90 % of intervals hold what they should."""


def _participation(
    result: Result, lm: LM, task: TaskRuns, nulls: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """A row per principal component of the prompts, and of the deltas."""
    n, prompts_NPd, p0_NPd = len(task.members), task.prompts(), task.initial()
    if n < LEAST_SPREAD:
        result.omissions.append(
            f"dimension: {task.name} has {n} trained prompts; a participation ratio needs {LEAST_SPREAD}, for its "
            "interval leaves runs out, and few fill the dimensions that they can."
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
        ratio = _report_random(result, f"{of}.{task.name}", measured, n)
        bases = {}
        if of == "prompt":
            bases = _bases(lm, prompts_NPd, p0_NPd if "delta" in vectors else None, nulls, generator)
        result.findings.append(_spread_finding(result, task.name, of, n, (measured, ratio), bases))
        ratios = {"participation": measured.value, "null": measured.null, "runs": n}
        rows += [
            {"task": task.name, "of": of, "component": k, "share": share} | ratios
            for k, share in enumerate(spectrum, start=1)
        ]
    return rows


BASES = {"p0": "of their P0s", "vocabulary": "of random vocabulary tokens"}
"""What solutions are compared with, in words."""


def _bases(
    lm: LM, prompts_NPd: np.ndarray, p0_NPd: np.ndarray | None, nulls: int, generator: np.random.Generator
) -> dict[str, Spread]:
    """The solutions' spread beside that of their P0s, where these differ, and of random vocabulary tokens."""
    n, length, _ = prompts_NPd.shape
    gram_NN = centred_gram(prompts_NPd.reshape(n, -1))
    bases = {}
    if p0_NPd is not None:
        bases["p0"] = spread_beside(gram_NN, centred_gram(p0_NPd.reshape(n, -1))[None])
    embeddings_Vd = lm.vocabulary().numpy()
    bases["vocabulary"] = spread_beside(gram_NN, vocabulary_grams(embeddings_Vd, n, length, nulls, generator))
    return bases


def _report_random(result: Result, place: str, measured: Spread, n: int) -> Number:
    """Numbers beside random directions; returns the ratio to them."""
    null, p = measured.null, measured.p
    low, high = measured.low * null, measured.high * null
    result.number(f"participation.{place}", measured.value, n, "runs", low, high, p)
    result.number(f"participation.null.{place}", null, n, "runs", p=p)
    return result.number(f"participation.ratio.{place}", measured.ratio, n, "runs", measured.low, measured.high, p)


def _spread_finding(
    result: Result, task: str, of: str, n: int, random: tuple[Spread, Number], bases: dict[str, Spread]
) -> Finding:
    """Over how many dimensions the vectors spread, beside the first base, or random directions where there is none."""
    measured, judged = random
    against, p = "random directions", f", p = {measured.p:.2g}"
    beside: list[str] = []
    for base in reversed(bases):  # the first, P0s where there are any, judges
        other = bases[base]
        # Of one set of P0s there are no draws: p is that of the interval.
        named = t_p(np.log(other.ratio), np.log(other.high / other.low) / 2, n) if base == "p0" else other.p
        result.number(f"participation.{base}.{task}", other.null, n, "runs", p=named)
        judged = result.number(
            f"participation.over_{base}.{task}", other.ratio, n, "runs", other.low, other.high, named
        )
        against, p = BASES[base].removeprefix("of "), f", p = {named:.2g}"
        beside.insert(0, f"{BASES[base]} {other.null:.2f}")
    low, high = judged.interval
    if high < 1 and judged.p is not None and judged.p < LEVEL:
        says = f"spread over fewer dimensions than {against}"
    elif low > 1:
        says = f"spread over more dimensions than {against}"
    elif judged.p is not None and judged.p < LEVEL:  # the interval is of other runs too, p of these
        fewer = "fewer" if judged.value < 1 else "more"
        says = f"spread over {fewer} dimensions than {against}, which other runs may not do"
    else:
        says = f"are not shown to spread over fewer or more dimensions than {against}"
    beside.append(f"of random directions with the same norms {measured.null:.2f}")
    sentence = (
        f"{task}: {n} {OF[of]} {says}: their participation ratio is {measured.value:.2f}, {', '.join(beside)} ({n} "
        f"points give {n - 1} at most), {judged.value:.3f} of that of {against} ({low:.3f} to {high:.3f}{p}, "
        f"n = {n} runs)."
    )
    return Finding.of(judged, sentence)
