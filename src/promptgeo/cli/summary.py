"""What does a command say when it is done? A table of results, which learning rate to take, what claims came to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptgeo.evaluation.metrics import HEADLINE
from promptgeo.runs.folder import Run
from promptgeo.runs.table import UNLIKE, table_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from promptgeo.report.answer import ClaimRow

LONG_KEY = 20
"""Characters; the column of a longer key has its last part for a name, so that the table fits a terminal."""
VARIED = ("model", "template", "prompt_length", "lr")
"""Columns of their own only where the runs differ in them."""


def table_of_results(runs: Sequence[Run]) -> "Table":
    """A rich table, task x init (x whatever else varies): accuracy without a prompt, with P0 and after training.

    Means over seeds. Of a task with a label set a second line tells how often the true label is the likeliest of the
    set, beside what the most frequent training label alone would score: what is written may miss every label and
    choose well.
    """
    from rich.table import Table

    frame = table_of(runs).table.assign(split=[str(run.info["results"].get("split")) for run in runs])
    # A length that task and init decide is no column: a terminal has few.
    of_init = frame.groupby(["task", "init"], dropna=False)["prompt_length"].nunique().max() == 1
    varied = [column for column in VARIED if not (of_init and column == "prompt_length")]
    keys = ["task", "init", *(column for column in varied if frame[column].nunique() > 1)]
    keys += [column for column in frame if UNLIKE in column]  # a mean over seeds is of runs that differ in nothing else
    if not any(key.startswith("task.") for key in keys) and frame.groupby("task")["data"].nunique().max() > 1:
        keys.append("data")  # one name was given to several files
    splits = " / ".join(sorted(frame["split"].unique()))
    table = Table(title=f"{splits} {HEADLINE}, mean over seeds (standard deviation)", padding=(0, 0))
    if any(_stopped_on_test(run.info["config"]) for run in runs):
        table.caption = "task.split.stop_on_test: these test rows said when to stop, so scores are selected on them"
    labelled = bool(frame["label_accuracy"].notna().any())
    last = [key.rpartition(".")[2] for key in keys]
    for key, short in zip(keys, last, strict=True):
        table.add_column(short if len(key) > LONG_KEY and last.count(short) == 1 else key, no_wrap=True)
    for column in ("seeds", "examples", *(("by", "majority") if labelled else ()), "no prompt", "P0", "trained"):
        table.add_column(column, justify="left" if column == "by" else "right")
    for values, group in frame.groupby(keys, sort=False, dropna=False):
        start = [*map(_text, values), str(len(group)), str(group["n"].iloc[0])]
        table.add_row(*start, *(("text", "") if labelled else ()), *_scores(group, HEADLINE, f"{HEADLINE}_final"))
        if group["label_accuracy"].notna().any():
            scores = _scores(group, "label_accuracy", "label_accuracy")
            table.add_row(*[""] * len(start), "label", _mean(group["majority"]), *scores)
    return table


def _stopped_on_test(config: dict[str, Any]) -> bool:
    """Whether the test rows decided how long a run trained. Without early stopping they only chose its best step."""
    stopping = config.get("training", {}).get("early_stopping", {})
    stops = any(stopping.get(key) is not None for key in ("patience", "accuracy"))
    return bool(config["task"].get("split", {}).get("stop_on_test")) and stops


def _scores(group: "pd.DataFrame", name: str, final: str) -> tuple[str, str, str]:
    """Of a metric its means without a prompt, with P0, and trained, with how many runs are no number."""
    trained = group[final].dropna()
    spread = f" ({trained.std():.3f})" if len(trained) > 1 else ""
    others = group.loc[group[final].isna(), "status"].value_counts()
    shown = [f"{trained.mean():.3f}{spread}"] if len(trained) else []
    shown += [f"{n} {status}" if len(group) > 1 else status for status, n in others.items()]
    return _mean(group[f"{name}_none"]), _mean(group[f"{name}_initial"]), ", ".join(shown)


def _mean(values: "pd.Series") -> str:
    values = values.dropna()
    return f"{values.mean():.3f}" if len(values) else "-"


def _text(value: object) -> str:
    if value is None or value != value:  # a setting that is null, which pandas holds as NaN
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table_of_claims(rows: "Sequence[ClaimRow]") -> "Table":
    """A rich table of what the runs say of each claim, by the corrected numbers."""
    from rich.table import Table

    from promptgeo.report.text import number_text

    table = Table(padding=(0, 1))
    for column in ("claim", "verdict", "published", "ours", "n"):
        table.add_column(column, overflow="fold")
    for row in rows:
        group = f" ({row.verdict.group})" if row.verdict.group else ""
        published = row.published.value if row.published else None
        number = row.corrected
        ours = "-" if number is None else number_text(number["value"], 3)
        if number is not None and number["low"] is not None:
            ours += f" [{number_text(number['low'], 3)}, {number_text(number['high'], 3)}]"
        without = "in words" if row.verdict.place else "-"
        shown = without if published is None else number_text(published, 3)
        table.add_row(f"{row.verdict.words}{group}", row.verdict.outcome, shown, ours, row.n)
    return table


def recommendation(runs: Sequence[Run]) -> list[str]:
    """Per model, task and init the learning rate with the lowest mean validation loss.

    Of runs that differ in it and were evaluated on validation, or of which grid.halving stopped some. The learning rate
    that suits depends on init and model: never choose it on test examples.
    """
    import pandas as pd

    searched = any(run.status == "stopped" for run in runs)
    validated = [run for run in runs if searched or run.info["results"].get("split") == "validation"]
    in_units = all(run.info["config"]["optimizer"].get("lr_in_embedding_units") is not None for run in validated)
    key = "lr_in_embedding_units" if in_units else "lr"
    rows = [
        run.row()
        | {"final_loss": _validation_loss(run)}
        | ({"lr": run.info["config"]["optimizer"][key]} if in_units else {})
        for run in validated
    ]
    if len({row["lr"] for row in rows}) < 2:
        return []
    frame = pd.DataFrame(rows)
    lines = []
    for (model, task, init), group in frame.groupby(["model", "task", "init"], sort=False):
        # A rate at which a run failed or diverged is out: its other seeds were lucky.
        whole = group.groupby("lr").filter(lambda same: same["final_loss"].notna().all())
        if whole.empty:
            lines.append(f"{model} {task} {init}: no learning rate trained every seed; try smaller ones")
            continue
        means = whole.groupby("lr")["final_loss"].agg(["mean", "std", "count"]).sort_values("mean", kind="stable")
        best, first = means.index[0], means.iloc[0]
        spread = f" (standard deviation {first['std']:.3f})" if first["count"] > 1 else ""
        edge = best in (group["lr"].min(), group["lr"].max())
        stopped = group.loc[group["status"] == "stopped", "lr"].nunique()
        lines.append(
            f"{model} {task} init={init}: optimizer.{key}={best:g} has the lowest validation loss, "
            f"{first['mean']:.3f}{spread}, n = {int(first['count'])} seeds"
            + (f", {stopped} of {group['lr'].nunique()} rates were stopped early" if stopped else "")
            + ("; it is the end of the range: try beyond it" if edge else "")
        )
    return lines


def _validation_loss(run: Run) -> float | None:
    """Of the final prompt; None for a run that was not trained to its end."""
    results = run.info["results"]
    if run.status != "completed" or results.get("split") == "validation":
        return results.get("loss", {}).get("final")
    rows = run.metrics.query("split == 'validation'")
    return float(rows["loss"].iloc[-1]) if len(rows) else None
