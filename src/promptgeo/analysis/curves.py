"""How do accuracy and loss go over training? One panel per task, one line per init (mean over seeds)."""

import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.stats import wilson
from promptgeo.errors import UserError
from promptgeo.runs import RunTable


def curves(runs: RunTable) -> Result:
    """Table `curves`: one row per run, epoch and split. Numbers `accuracy.<task>.<init>`: of the final prompt, pooled over seeds (Wilson's interval).

    Raises UserError for prompts that were trained elsewhere: they have no metrics.
    """
    if runs.runs is None or any(run.metrics.empty for run in runs.runs):
        raise UserError("curves: needs runs with their metrics; prompts that were trained elsewhere have none")
    frames = [run.metrics.assign(run=run.folder.name, task=row.task, init=row.init, seed=row.seed) for run, row in zip(runs.runs, runs.table.itertuples(), strict=True)]
    table = pd.concat(frames, ignore_index=True)
    scored = table[table["split"] != "train"]
    result = Result(tables={"curves": table[["run", "task", "init", "seed", "step", "epoch", "split", "loss", "accuracy", "n"]]})
    for (task, init), rows in runs.table.groupby(["task", "init"], sort=False):
        n = int(rows["n"].sum())
        correct = round(float((rows["accuracy_final"] * rows["n"]).sum()))
        result.number(f"accuracy.{task}.{init}", correct / n, n, "test examples", *wilson(correct, n))
    for task, rows in runs.table.groupby("task", sort=False):
        per_init = rows.groupby("init", sort=False)["accuracy_final"].mean()
        result.number(f"accuracy.lowest.{task}", per_init.min(), len(rows), "runs")
        result.number(f"accuracy.highest.{task}", per_init.max(), len(rows), "runs")
    result.findings.append(_finding(runs.table))
    for what in ("accuracy", "loss"):
        result.figures[what] = _figure(scored, what)
    return result


def _finding(table: pd.DataFrame) -> Finding:
    n = int(table["n"].sum())
    correct = round(float((table["accuracy_final"] * table["n"]).sum()))
    low, high = wilson(correct, n)
    per_task = table.groupby("task", sort=False)["accuracy_final"].mean()
    worst, best = per_task.idxmin(), per_task.idxmax()
    span = f"{worst} {per_task[worst]:.2f}" + (f" to {best} {per_task[best]:.2f}" if worst != best else "")
    sentence = f"The trained prompts solve {correct / n:.1%} of the test examples ({low:.1%} to {high:.1%}; n = {n} in {len(table)} runs): {span}."
    return Finding(sentence, correct / n, n, "test examples", low, high)


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
