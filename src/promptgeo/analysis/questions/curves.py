"""How do accuracy and loss go over training? One panel per task, one line per init (mean over seeds)."""

from collections.abc import Iterable

import pandas as pd

from promptgeo.analysis.figures import COLOURS, mean_line, small_multiples, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance
from promptgeo.analysis.logged import logged_scores
from promptgeo.analysis.question import question
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import Bootstrap, Scored, percent
from promptgeo.config.paths import as_text
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

COLUMNS = ["run", "task", "init", "seed", "step", "epoch", "split", "loss", "accuracy", "n"]
LABELS = {"accuracy": "accuracy", "loss": "loss, nats a token"}
STYLES = ("-", "--", ":")
"""Of lines, where there are more inits than colours."""


@question(factors=("task_length",))
def curves(runs: RunTable, *, draws: int = 1000, seed: int = 0) -> Result:
    """Table `curves`: one row per run, epoch and split.

    Numbers `accuracy.<task>.<init>`: of the final prompts, mean over seeds; `accuracy.<task>`; `accuracy.all`, in which
    each task weighs the same. Intervals: 95 %, over runs (Student's t) and `draws` draws of test examples, by `seed`.

    Raises UserError for prompts that were trained elsewhere: they have no metrics.
    """
    if runs.runs is None or any(run.metrics.empty for run in runs.runs):
        raise UserError("curves: needs runs with their metrics; prompts that were trained elsewhere have none")
    frames = [
        run.metrics.assign(run=as_text(run.folder.name), task=row.task, init=row.init, seed=row.seed)
        for run, row in zip(runs.runs, runs.table.itertuples(), strict=True)
    ]
    table = pd.concat(frames, ignore_index=True)
    result = Result(tables={"curves": table[COLUMNS]})
    scores, bootstrap = logged_scores(runs.runs, runs.table["task"], tasks_equal=True), Bootstrap(draws, seed)

    def accuracy(name: str, part: Scored) -> Number:
        return result.number(f"accuracy.{name}", part.mean, part.examples, "test examples", *bootstrap.interval(part))

    for (task, init), rows in runs.table.groupby(["task", "init"], sort=False):
        accuracy(f"{task}.{init}", _of_runs(scores, rows.index))
    for task, rows in runs.table.groupby("task", sort=False):
        per_init = rows.groupby("init", sort=False)["accuracy_final"].mean()
        accuracy(str(task), _of_runs(scores, rows.index))
        result.number(f"accuracy.lowest.{task}", per_init.min(), len(per_init), "inits")
        result.number(f"accuracy.highest.{task}", per_init.max(), len(per_init), "inits")
    result.findings.append(_finding(accuracy("all", scores), runs.table))
    split, shown = _shown(table)
    result.figures |= {what: _figure(shown, what, f"{split} {label}") for what, label in LABELS.items()}
    return result


def _of_runs(scores: Scored, members: Iterable[int]) -> Scored:
    """Of some runs, each of which weighs the same."""
    members = set(members)
    return scores.where(lambda s: s in members)


def _finding(overall: Number, table: pd.DataFrame) -> Finding:
    """How many test examples the final prompts solve, and in which tasks fewest and most."""
    per_task = table.groupby("task", sort=False)["accuracy_final"].mean()
    worst, best = per_task.idxmin(), per_task.idxmax()
    span = ""
    if worst != best:
        span = f", from {worst} {per_task[worst]:.2f} to {best} {per_task[best]:.2f}, each task weighing the same"
    solved = percent(overall.value, *overall.interval)
    return Finding.of(
        overall,
        f"The trained prompts solve {solved} of the test examples{span} "
        f"(n = {len(table)} runs, {overall.n} test examples).",
    )


def _shown(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The split that figures are of, and its rows: test, or validation where no run was scored on test."""
    split = "test" if (table["split"] == "test").any() else "validation"
    return split, table[table["split"] == split]


def _figure(evaluated: pd.DataFrame, what: str, label: str) -> str:
    """A panel per task, a line per init: accuracy or loss over steps, mean over seeds; behind it each run's."""
    tasks, inits = order_of_appearance(evaluated["task"]), order_of_appearance(evaluated["init"])
    with small_multiples(len(tasks), 3, x="optimiser step", y=label, height=2.3) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            for k, init in enumerate(inits):
                cell = evaluated[(evaluated["task"] == task) & (evaluated["init"] == init)]
                colour, style = COLOURS[k % len(COLOURS)], STYLES[k // len(COLOURS) % len(STYLES)]
                mean_line(axis, cell, "step", what, "run", color=colour, linestyle=style, label=init)
            axis.set_title(task, fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(inits), 5), fontsize=8)
        return svg(figure, f"Mean {what} of the runs of each init, by step; faint: single runs")
