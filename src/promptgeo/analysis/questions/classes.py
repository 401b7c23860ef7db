"""Do prompts choose the right label? Beside the most frequent one alone and P0, and label by label.

Only of tasks with a label set, whose every label's loss is known: the likeliest one is the choice, whatever is written.

Shapes: E test examples, L labels of a task's label set.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import shares_grid, small_multiples, svg
from promptgeo.analysis.logged import LoggedExamples
from promptgeo.analysis.question import question
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import Bootstrap, Scored, add_difference, in_percent, in_points
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable

CHOSEN = ("initial", "final")
"""The prompts whose choices are asked about."""


@question(factors=("task_length",))
def classes(runs: RunTable, *, draws: int = 1000, seed: int = 0) -> Result:
    """Table `runs`: one row per run; `confusion`: how often each label is chosen for each, summed over a cell's runs.

    Numbers, of the final prompts of a task (and of each of its inits, with `.<init>`): `label_accuracy.<task>`,
    `above_majority.<task>` and `above_p0.<task>` (differences), `balanced_accuracy.<task>`: the mean over labels of
    `recall.<task>.<label>`, the share of a label's examples for which it is chosen. 95 % intervals over runs (Student's
    t) and `draws` draws of test examples, by `seed`; balanced accuracy and recall draw each label's examples.
    The most frequent label is training's. Macro-F1, which no such interval covers, stands in the table.

    Raises UserError where no run's task has a label set.
    """
    chosen = [k for k, run in enumerate(runs.runs or []) if "labels" in run.info.get("results", {})]
    if not chosen:
        raise UserError("classes: no run here has a task with a label set (task.labels)")
    result, bootstrap = Result(), Bootstrap(draws, seed)
    if left := len(runs) - len(chosen):
        result.omissions.append(f"classes: {left} of {len(runs)} runs have a task without a label set.")
    runs = runs.only(chosen)
    tables = [_predictions(run, row) for run, row in zip(runs.runs or [], runs.table.itertuples(), strict=True)]
    table = pd.concat(tables, ignore_index=True)
    for task, rows in table.groupby("task", sort=False):
        _of_cell(result, str(task), rows, bootstrap)
        result.findings.append(_finding(result, str(task), rows, bootstrap))
        for init, cell in rows.groupby("init", sort=False):
            _of_cell(result, f"{task}.{init}", cell, bootstrap)
    result.tables = {"runs": _run_table(runs), "confusion": _confusion(table)}
    result.figures["confusion"] = _figure(result.tables["confusion"])
    return result


def _predictions(run: Run, row: Any) -> pd.DataFrame:
    """A row per prompt and test example: what the label is, which was chosen."""
    labels = run.info["results"]["labels"]
    rows = [each for each in run.predictions if each["prompt"] in CHOSEN]
    frame = pd.DataFrame({key: [each[key] for each in rows] for key in ("prompt", "id", "label", "label_choice")})
    named = {"run": run.id, "task": row.task, "init": row.init, "most_frequent": labels["most_frequent"]}
    return frame.assign(id=frame["id"].map(str), **named)


def _of_cell(result: Result, name: str, rows: pd.DataFrame, bootstrap: Bootstrap) -> None:
    """The numbers of a task, or of a task's init."""
    by_label, p0 = _scored(rows, "final"), _scored(rows, "initial")
    whole, units = _whole(by_label), "test examples"
    result.number(f"label_accuracy.{name}", whole.mean, whole.examples, units, *bootstrap.interval(whole))
    add_difference(result, f"above_majority.{name}", whole, _majority(rows), bootstrap)
    add_difference(result, f"above_p0.{name}", whole, _whole(p0), bootstrap)
    balanced = Scored(by_label.correct_S, by_label.sets_S, by_label.runs_S, tasks_equal=True)
    number = bootstrap.interval(balanced)
    result.number(f"balanced_accuracy.{name}", balanced.mean, balanced.examples, units, *number)
    for each in by_label.sets:
        part, label = by_label.on(each), cast(Any, each).label
        result.number(f"recall.{name}.{label}", part.mean, part.examples, units, *bootstrap.interval(part))


def _scored(rows: pd.DataFrame, prompt: str) -> Scored:
    """Whether the right label is chosen: by run and label."""
    correct: list[np.ndarray] = []
    sets: list[Any] = []  # of an evaluation set Scored needs n and equality alone
    numbers: list[tuple[int, ...]] = []
    for number, (_, run) in enumerate(rows[rows["prompt"] == prompt].groupby("run", sort=False)):
        for label, part in run.groupby("label", sort=False):
            correct.append((part["label_choice"] == part["label"]).to_numpy())
            sets.append(LoggedExamples(part["task"].iloc[0], tuple(part["id"]), str(label)))
            numbers.append((number,))
    return Scored(correct, sets, numbers)


def _whole(scored: Scored) -> Scored:
    """Of all labels together: by run."""
    runs = list(dict.fromkeys(scored.runs_S))
    parts = [[s for s, members in enumerate(scored.runs_S) if members == run] for run in runs]
    sets: list[Any] = [_joined([scored.sets_S[s] for s in part]) for part in parts]
    return Scored([np.concatenate([scored.correct_S[s] for s in part]) for part in parts], sets, runs)


def _joined(sets: Sequence[Any]) -> LoggedExamples:
    return LoggedExamples(sets[0].task, tuple(i for each in sets for i in each.ids))


def _majority(rows: pd.DataFrame) -> Scored:
    """What training's most frequent label alone would score on the examples of `_whole`: no run is part of it."""
    constant = _whole(_scored(rows.assign(label_choice=rows["most_frequent"]), "final"))
    return Scored(constant.correct_S[:1], constant.sets_S[:1], [()])


def _finding(result: Result, task: str, rows: pd.DataFrame, bootstrap: Bootstrap) -> Finding:
    """Whether the choice is better than the most frequent label's."""
    whole, majority = _whole(_scored(rows, "final")), _majority(rows)
    difference = add_difference(Result(), f"above_majority.{task}", whole, majority, bootstrap)
    says = difference.verdict("more than", "not shown to differ from", "fewer than")
    right = next(number for number in result.numbers if number.quantity == f"label_accuracy.{task}")
    return Finding.of(
        difference.number,
        f"{task}: the likeliest label is the right one for {in_percent(right)} of test examples, {says} the most "
        f"frequent label's {majority.mean:.1%} ({in_points(difference)}; n = {len(whole)} runs, {whole.examples} test "
        f"examples{difference.reach}).",
    )


def _run_table(runs: RunTable) -> pd.DataFrame:
    names = [*("task", "init", "seed", "n", "majority"), *("label_accuracy_none", "label_accuracy_initial")]
    names += ["label_accuracy", "balanced_accuracy", "macro_f1"]
    return runs.table[[name for name in names if name in runs.table]]


def _confusion(table: pd.DataFrame) -> pd.DataFrame:
    """A row per task, init, prompt, label and chosen label: how often, of how many."""
    keys = ["task", "init", "prompt", "label"]
    rows = []
    for key, part in table.groupby(keys, sort=False):
        labels = dict.fromkeys([*table.loc[table["task"] == key[0], "label"], *part["label_choice"]])
        counts = part["label_choice"].value_counts()
        named = dict(zip(keys, key, strict=True))
        rows += [named | {"chosen": each, "count": int(counts.get(each, 0)), "n": len(part)} for each in labels]
    return pd.DataFrame(rows)


def _figure(confusion: pd.DataFrame) -> str:
    """A panel per task: of each label's test examples, the share for which each is chosen, over all inits and runs."""
    final = confusion[confusion["prompt"] == "final"]
    tasks = list(dict.fromkeys(final["task"]))
    own: dict[str, Any] = {"sharex": False, "sharey": False, "x": "chosen label", "y": "right label (how often)"}
    with small_multiples(len(tasks), 3, width=8.6, height=2.9, **own) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            counts = final[final["task"] == task].groupby(["label", "chosen"], sort=False)["count"].sum().unstack()
            counts = counts.reindex(columns=dict.fromkeys([*counts.index, *counts.columns])).fillna(0)
            totals = counts.sum(axis=1)
            rows = [f"{label} ({int(n)})" for label, n in totals.items()]
            shares_grid(axis, (counts.to_numpy().T / totals.to_numpy()).T, rows, list(counts), rotation=30, ha="right")
            axis.set_title(task, fontsize=9)
        return svg(figure, "Which label is chosen for which: shares of test examples, over a task's runs")
