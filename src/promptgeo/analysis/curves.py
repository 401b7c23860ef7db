"""How do accuracy and loss go over training? One panel per task, one line per init (mean over seeds)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import Bootstrap, Scored, percent
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable


@dataclass(frozen=True)
class _Asked:
    """The test examples of some runs, as they wrote them down: equal where they are the same examples."""

    task: str
    ids: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.ids)


def curves(runs: RunTable, *, draws: int = 1000, seed: int = 0) -> Result:
    """Table `curves`: one row per run, epoch and split. Numbers `accuracy.<task>.<init>`: of the final prompts, mean over seeds; `accuracy.<task>`;
    `accuracy.all`, in which each task weighs the same. Intervals draw whole runs and test examples.

    Raises UserError for prompts that were trained elsewhere: they have no metrics.
    """
    if runs.runs is None or any(run.metrics.empty for run in runs.runs):
        raise UserError("curves: needs runs with their metrics; prompts that were trained elsewhere have none")
    frames = [run.metrics.assign(run=run.folder.name, task=row.task, init=row.init, seed=row.seed) for run, row in zip(runs.runs, runs.table.itertuples(), strict=True)]
    table = pd.concat(frames, ignore_index=True)
    scored = table[table["split"] != "train"]
    result = Result(tables={"curves": table[["run", "task", "init", "seed", "step", "epoch", "split", "loss", "accuracy", "n"]]})
    scores, bootstrap = _scores(runs), Bootstrap(len(runs), draws, seed)

    def number(quantity: str, part: Scored) -> None:
        result.number(quantity, part.mean, part.examples, "test examples", *bootstrap.interval(part))

    for (task, init), rows in runs.table.groupby(["task", "init"], sort=False):
        number(f"accuracy.{task}.{init}", _of(scores, rows.index))
    for task, rows in runs.table.groupby("task", sort=False):
        per_init = rows.groupby("init", sort=False)["accuracy_final"].mean()
        number(f"accuracy.{task}", _of(scores, rows.index))
        result.number(f"accuracy.lowest.{task}", per_init.min(), len(rows), "runs")
        result.number(f"accuracy.highest.{task}", per_init.max(), len(rows), "runs")
    number("accuracy.all", scores)
    result.findings.append(_finding(result, scores, runs.table))
    for what in ("accuracy", "loss"):
        result.figures[what] = _figure(scored, what)
    return result


def _scores(runs: RunTable) -> Scored:
    """What each run's final prompt got right, as its predictions say; each task weighs the same."""
    correct, asked = [], []
    for run, task in zip(runs.runs, runs.table["task"], strict=True):
        final = [row for row in run.predictions if row["prompt"] == "final"]
        correct.append(np.array([row["correct"] for row in final]))
        asked.append(_Asked(task, tuple(str(row["id"]) for row in final)))
    return Scored(correct, asked, [(n,) for n in range(len(runs))], tasks_equal=True)


def _of(scores: Scored, members: Iterable[int]) -> Scored:
    """Of some runs, each of which weighs the same."""
    members = set(members)
    return scores.where(lambda s: s in members)


def _finding(result: Result, scores: Scored, table: pd.DataFrame) -> Finding:
    (overall,) = (row for row in result.numbers if row["quantity"] == "accuracy.all")
    per_task = table.groupby("task", sort=False)["accuracy_final"].mean()
    worst, best = per_task.idxmin(), per_task.idxmax()
    span = f", from {worst} {per_task[worst]:.2f} to {best} {per_task[best]:.2f}, each task weighing the same" if worst != best else ""
    sentence = f"The trained prompts solve {percent(overall['value'], overall['low'], overall['high'])} of the test examples{span} (n = {len(table)} runs, {scores.examples} test examples)."
    return Finding(sentence, overall["value"], scores.examples, "test examples", overall["low"], overall["high"])


def _figure(scored: pd.DataFrame, what: str) -> str:
    tasks = list(dict.fromkeys(scored["task"]))
    inits = list(dict.fromkeys(scored["init"]))
    columns = min(len(tasks), 3)
    with panels(-(-len(tasks) // columns), columns, height=2.3, sharey=what == "accuracy") as (figure, axes):
        for axis, task in zip(axes.flat, tasks, strict=False):
            for k, init in enumerate(inits):
                means = scored[(scored["task"] == task) & (scored["init"] == init)].groupby("epoch")[what].mean()
                axis.plot(means.index, means, color=COLOURS[k % len(COLOURS)], linestyle=("-", "--", ":")[k // len(COLOURS) % 3], linewidth=1.2, label=init)
            axis.set_title(task, fontsize=9)
            axis.set_xlabel("epoch")
        for axis in axes.flat[len(tasks) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel("test accuracy" if what == "accuracy" else "test loss, nats a token")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(inits), 5), fontsize=8)
        return svg(figure)
