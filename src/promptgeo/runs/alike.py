"""Which runs are alike in all that a question does not ask about? Groups, each with what tells it from the others.

A question is about some columns of a run table, its factors: task, init, seed, perhaps prompt length. Runs that differ
in anything else (model, learning rate, steps, ...) are answered apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from promptgeo.errors import UserError
from promptgeo.runs.table import UNLIKE, RunTable

FACTORS = ("task", "init", "seed")
"""What a question is about, unless it says otherwise."""
TASK_LENGTH = "task_length"
"""A factor of questions that may compare prompts of different tasks, each as long as its task's own text."""
ALL = "all"
"""A factor of questions that put all runs of one model side by side, whatever else they differ in."""
SETTINGS = ("model", "template", "prompt_length", "lr")
"""Columns of every run table that are settings; so is each further key in which its runs differ (UNLIKE)."""


@dataclass(frozen=True)
class Alike:
    """Runs that differ in their factors alone."""

    runs: RunTable
    settings: dict[str, Any]
    """Column -> value, of what tells them from the other groups; empty where there is one group."""

    @property
    def label(self) -> str:
        """lr = 0.1, prompt_length = 4; empty where there is one group."""
        return ", ".join(f"{column} = {_text(value)}" for column, value in self.settings.items())


def alike(runs: RunTable, factors: Sequence[str] = FACTORS) -> list[Alike]:
    """The groups, in order of appearance.

    factors: columns, or the first part of their names (regulariser: all of regulariser.name, ...). The keys of a task
    or an init under one name are no factor. TASK_LENGTH: the prompt length, where each task has one of its own. ALL:
    all but the model.
    """
    if ALL in factors:
        return _by_model(runs)
    about = {f for f in factors if f not in FACTORS}
    if TASK_LENGTH in about and "prompt_length" in runs.table and _belongs_to_the_task(runs, "prompt_length"):
        about.add("prompt_length")
    columns = [c for c in _settings(runs) if not {c, c.partition(UNLIKE)[0]} & about]
    if not columns:
        return [Alike(runs, {})]
    groups: dict[tuple, list[int]] = {}
    values: dict[tuple, dict[str, Any]] = {}
    for row, settings in enumerate(runs.table[columns].to_dict("records")):
        key = tuple(_text(value) for value in settings.values())
        groups.setdefault(key, []).append(row)
        values.setdefault(key, settings)
    return [Alike(runs.only(rows), values[key]) for key, rows in groups.items()]


class Model(NamedTuple):
    """What prompts must share to lie in one space."""

    name: str
    content: str
    """Its fingerprint; empty where an import does not say it."""
    width: int
    """d of the prompts; 0 of prompts that are given as arrays, which have one width."""


def model_of_each(runs: RunTable) -> list[Model]:
    """Of each run. An import that does not say its model is taken for one of the only known model that it fits."""
    named = runs.table["model"] if "model" in runs.table else [None] * len(runs)
    names = [_text(name) for name in named]
    if runs.runs is None:
        return [Model(name, "", 0) for name in names]
    said = [run.info.get("fingerprints", {}).get("model") or "" for run in runs.runs]
    widths = [run.prompt().shape[1] for run in runs.runs]
    first: dict[tuple[str, int], str] = {}
    own = [
        Model(first.setdefault((content, width), name) if content else name, content, width)
        for name, content, width in zip(names, said, widths, strict=True)
    ]
    known = dict.fromkeys(model for model in own if model.content)

    def resolved(model: Model) -> Model:
        fitting = [each for each in known if each.width == model.width and model.name in (each.name, _text(None))]
        return fitting[0] if not model.content and len(fitting) == 1 else model

    return [resolved(model) for model in own]


def data_sets(runs: RunTable) -> dict[str, list[str]]:
    """Tasks whose runs have several data sets: name -> the first digits of each one's content."""
    if not {"task", "data"} <= {*runs.table}:
        return {}
    found = {str(task): data.dropna().unique() for task, data in runs.table.groupby("task", sort=False)["data"]}
    return {task: list(digits) for task, digits in found.items() if len(digits) > 1}


def require_one_data_set_per_task(runs: RunTable) -> None:
    """Raises UserError where runs of one task were trained or scored on different examples."""
    for task, digits in data_sets(runs).items():
        raise UserError(
            f"task {task}: these runs have several data sets ({', '.join(digits)}), which are never pooled; "
            f"choose one with where=\"data == '{digits[0]}'\", or give each a task.name"
        )


def _by_model(runs: RunTable) -> list[Alike]:
    groups: dict[Model, list[int]] = {}
    for row, model in enumerate(model_of_each(runs)):
        groups.setdefault(model, []).append(row)
    said = [
        {"model": model.name, "model.content": model.content.removeprefix("sha256:")[:8] or None, "width": model.width}
        for model in groups
    ]
    varied = [column for column in ("model", "model.content", "width") if len({each[column] for each in said}) > 1]
    varied = varied[:1] if varied and len({each[varied[0]] for each in said}) == len(said) else varied
    return [
        Alike(runs.only(rows), {column: each[column] for column in varied})
        for rows, each in zip(groups.values(), said, strict=True)
    ]


def _settings(runs: RunTable) -> list[str]:
    """The columns in which these runs have different settings."""
    table = runs.table
    keys = [c for c in table if UNLIKE in str(c)] if runs.runs is not None else []
    columns = [*(c for c in SETTINGS if c in table), *keys]
    varied = [c for c in columns if len({_text(value) for value in table[c]}) > 1]
    return [c for c in varied if not (c.partition(UNLIKE)[0] == "template" and _belongs_to_the_task(runs, c))]


def _belongs_to_the_task(runs: RunTable, column: str) -> bool:
    """Whether runs of one task never differ in it: a task that brings its own template is one thing with it."""
    if "task" not in runs.table:
        return False
    pairs = set(zip(runs.table["task"].map(str), runs.table[column].map(_text), strict=True))
    return len(pairs) == runs.table["task"].map(str).nunique()


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is how pandas says None in a column of numbers
        return "not known"
    return f"{value:g}" if isinstance(value, float) else str(value)
