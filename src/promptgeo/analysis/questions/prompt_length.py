"""How long must a prompt be?

Shapes: N runs.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from promptgeo.analysis.deciding import Premise, decided, learned
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, small_multiples, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance
from promptgeo.analysis.logged import LoggedExamples, chosen, logged_scores
from promptgeo.analysis.question import question
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import (
    ALIKE,
    LEAST_RUNS,
    Bootstrap,
    Difference,
    Scored,
    add_difference,
    add_mean,
    in_percent,
    in_points,
)
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

CELL = ["task", "init", "seed"]
"""What runs of different lengths must share to be compared."""


@question(claims=("one_token_is_too_few", "longest_adds_little"), factors=("prompt_length",))
def prompt_length(runs: RunTable, *, draws: int = 1000, seed: int = 0) -> Result:
    """What finished runs of each prompt length got right (Lester et al., arXiv 2104.08691, figure 3a).

    Numbers `accuracy.<task>.P<length>` and `accuracy.all.P<length>`, in which each task weighs the same: of the
    likeliest label where a task has labels, else by exact match, as logged; `none.<task>`: without a prompt.
    `difference.P<longer>.P<shorter>`: of neighbouring lengths, over all tasks. Intervals: over runs and `draws` draws
    of test examples. Table `runs`: a row per run.

    Only tasks, inits and seeds of which there is a run at each length are compared; how many others there are is said.

    `one_token_is_too_few`: the second length solves more than one token does. `longest_adds_little`: the longest solves
    not ALIKE more than the one before it.

    Raises UserError for fewer than two lengths, for none that can be compared, and for prompts trained elsewhere.
    """
    result, bootstrap = Result(), Bootstrap(draws, seed)
    lengths = sorted({int(each) for each in runs.table["prompt_length"]})
    if len(lengths) < 2:
        raise UserError("prompt_length: these runs have one prompt length; train others (-m prompt.length=1,5,20)")
    compared, result.omissions = _at_each(runs, lengths)
    if any(not run.predictions for run in compared.runs or []):
        raise UserError(
            "prompt_length: needs runs with their predictions; prompts that were trained elsewhere have none"
        )
    tasks = order_of_appearance(compared.table["task"])
    scored = {each: _scored(compared, each) for each in lengths}
    untrained = {task: each for task in tasks if (each := _untrained(compared, task)) is not None}
    on_task: dict[str, list[Number]] = {}
    for task in tasks:
        on_task[task] = [
            add_mean(result, f"accuracy.{task}.P{each}", _of(scored[each], task), bootstrap) for each in lengths
        ]
        if task in untrained:
            add_mean(result, f"none.{task}", untrained[task], bootstrap)
    means = [add_mean(result, f"accuracy.all.P{each}", scored[each], bootstrap) for each in lengths]
    differences = [
        add_difference(result, f"difference.P{longer}.P{shorter}", scored[longer], scored[shorter], bootstrap)
        for shorter, longer in pairwise(lengths)
    ]
    result.findings = [
        _finding(compared, pair, both, difference)
        for pair, both, difference in zip(pairwise(lengths), pairwise(means), differences, strict=True)
    ]
    _claims(result, compared, lengths, differences)
    columns = [*CELL, "prompt_length", "accuracy_final"]
    result.tables["runs"] = compared.table[columns].sort_values([*CELL, "prompt_length"], ignore_index=True)
    result.figures["accuracies"] = _figure(lengths, on_task, scored, untrained)
    return result


def _at_each(runs: RunTable, lengths: Sequence[int]) -> tuple[RunTable, list[str]]:
    """(the runs whose task, init and seed have one at each length, what is said of the others)."""
    of_cell = runs.table.groupby(CELL, sort=False)["prompt_length"]
    keep = (of_cell.transform("nunique") == len(lengths)).to_numpy()
    if not keep.any():
        raise UserError(
            f"prompt_length: no task, init and seed has a run at each of the lengths {', '.join(map(str, lengths))}; "
            'choose lengths that have (where="prompt_length in [...]")'
        )
    if keep.all():
        return runs, []
    left = int((~keep).sum())
    sentence = (
        f"prompt_length: {left} of {len(keep)} runs have no run of their task, init and seed at each length; left out."
    )
    return runs.only(np.flatnonzero(keep).tolist()), [sentence]


def _scored(runs: RunTable, of: int) -> Scored:
    """What the runs of a length got right; each task weighs the same."""
    these = runs.only(np.flatnonzero(runs.table["prompt_length"] == of).tolist())
    return logged_scores(these.runs or [], these.table["task"], chosen, tasks_equal=True)


def _untrained(runs: RunTable, task: str) -> Scored | None:
    """What the model alone got right, as the task's first run logged it."""
    first = next(run for run, name in zip(runs.runs or [], runs.table["task"], strict=True) if name == task)
    rows = [row for row in first.predictions if row["prompt"] == "none"]
    if not rows:
        return None
    examples: list[Any] = [LoggedExamples(task, tuple(str(row["id"]) for row in rows))]
    return Scored([np.array([chosen(row) for row in rows])], examples, [()])


def _of(scored: Scored, task: str) -> Scored:
    """Of one task; logged examples know its name alone."""
    return scored.on(*[each for each in scored.sets if str(each.task) == task])


def _finding(runs: RunTable, pair: tuple[int, int], means: tuple[Number, Number], difference: Difference) -> Finding:
    (shorter, longer), (less, more) = pair, means
    verdict = difference.verdict("more than", "not detectably more or less than", "less than")
    first = f"A prompt of {longer} tokens solves {in_percent(more)} of the test examples, {verdict} one of {shorter}"
    n_runs = int(runs.table["prompt_length"].isin(pair).sum())
    of = f"n = {difference.number.n} test examples, {runs.table['task'].nunique()} tasks, {n_runs} runs"
    sentence = f"{first}, {in_percent(less)}: {in_points(difference)}{difference.alike} ({of}{difference.reach})."
    return Finding.of(difference.number, sentence)


def _claims(result: Result, runs: RunTable, lengths: Sequence[int], differences: Sequence[Difference]) -> None:
    of_longest = runs.only(np.flatnonzero(runs.table["prompt_length"] == lengths[-1]).tolist())
    premises = learned(of_longest.table)
    first, last = differences[0], differences[-1]
    fewest = int(of_longest.table["task"].value_counts().min())
    enough = f"{LEAST_RUNS} runs of each task and length"
    premises.append(Premise(fewest >= LEAST_RUNS, f"{enough} ({fewest} are here)", enough))
    one = Premise(
        lengths[0] == 1, f"the shortest prompt is one token (it is {lengths[0]})", "runs with prompt.length=1"
    )
    result.claims = [
        decided(
            "one_token_is_too_few",
            first.estimate.interval,
            result.findings[0].sentence,
            p=first.estimate.p(0.0),
            premises=[*premises, one],
            needs="more runs or test examples",
            quantity=first.number.quantity,
        ),
        decided(
            "longest_adds_little",
            last.estimate.interval,
            result.findings[-1].sentence,
            threshold=ALIKE,
            below=True,
            p=last.estimate.p(ALIKE),
            premises=premises,
            needs="more runs or test examples",
            quantity=last.number.quantity,
        ),
    ]


def _figure(
    lengths: Sequence[int], on_task: dict[str, list[Number]], scored: dict[int, Scored], untrained: dict[str, Scored]
) -> str:
    """A panel per task: accuracy by prompt length, each run as a point; the model without a prompt as a line."""
    at = np.arange(len(lengths))
    with small_multiples(len(on_task), x="prompt tokens", y="test accuracy", height=2.4) as (figure, axes):
        for axis, (task, numbers) in zip(axes, on_task.items(), strict=True):
            behind = [_of(scored[each], task).accuracy_S for each in lengths]
            estimates(axis, at, numbers, behind, color=COLOURS[0], across=0.2, linestyle="-", label="trained prompts")
            if task in untrained:
                axis.axhline(untrained[task].mean, color=NEUTRAL, linewidth=0.9, linestyle=":", label="no prompt")
            axis.set(xticks=at, xticklabels=[str(each) for each in lengths], ylim=(-0.04, 1.04))
            axis.set_title(task, fontsize=9)
        once = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure, "Accuracy by prompt length, means with 95 % intervals; faint: single runs")
