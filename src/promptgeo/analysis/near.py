"""Which prompts lie nearest to a word, a sentence or another prompt? Searched among finished runs, exactly.

Prompts are compared by their mean tokens, as the atlas does by default.

Shapes: K prompts, d width.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptgeo.analysis.ask import usable_runs
from promptgeo.analysis.geometry.nearest import Distance, distances
from promptgeo.analysis.geometry.prompt_points import PromptPoints, prompt_points
from promptgeo.analysis.sought import IN_PYTHON, WHAT, Sought, flag, mean_token, sought
from promptgeo.config.terminal import counted
from promptgeo.errors import UserError
from promptgeo.runs.alike import ALL, Alike, alike, data_sets
from promptgeo.runs.folder import Run
from promptgeo.runs.model import model_of
from promptgeo.runs.table import RunTable

if TYPE_CHECKING:
    import pandas as pd

    from promptgeo.model.frozen_lm import FrozenLM

DEVICES = ("auto", "cpu", "cuda")
SHOWN = 3
"""Conditions, or names of runs, in a message."""


def nearest_prompts(
    folders: str | Path | Iterable[str | Path] | RunTable,
    to: str | Path | Run | np.ndarray,
    *,
    top: int = 20,
    which: str | int = "final",
    checkpoints: bool = True,
    other_runs: bool = False,
    text: bool = False,
    distance: str = "cosine",
    where: str | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    notify: Callable[[str], None] = lambda line: None,
    option: str = IN_PYTHON,
) -> "pd.DataFrame":
    """The prompts of finished runs whose mean tokens lie nearest to a word, a sentence, or a prompt's mean token.

        pg.nearest_prompts("outputs/quickstart", "France")
        pg.nearest_prompts("outputs/quickstart", pg.load_runs("outputs/quickstart").runs[0], other_runs=True)

    Args:
        folders: of runs, one or several; or a RunTable.
        to: a text, whose tokens are those that init.text would give; a Run, or its folder; or a prompt, [P, d] or [d].
        top: how many.
        which: of a Run: final, best, initial, or the step of a checkpoint.
        checkpoints: search among the prompts that each run kept too.
        other_runs: leave out the Run's own prompts.
        text: take `to` for a text, although it looks like a path.
        distance: cosine or l2. A mean token of zero has no cosine: such prompts are left out.
        where: only runs for which this condition holds.
        model: where the runs' model lies now, for a text. device: cpu, cuda or auto.
        notify: is given a line for each thing that is left out.
        option: how messages write an option's name.

    Returns a table with columns rank, distance, run, task, init, seed, lr, ..., step, accuracy; its attrs["to"] says in
    words what `to` was read as.
    Raises UserError where no run is there, several models are (a text is of one), `to` is none of these, or looks like
    a path and no finished run lies there, and for an option that cannot be or has no effect.
    """
    # Long because its options are named here.
    _check(top, which, distance, where, model, device, option)
    runs, left_out = usable_runs(_folders(folders), where, option)
    for line in left_out:
        notify(f"left out: {line}")
    asked = sought(to, runs, text, option)
    if not isinstance(asked, Run):
        _require_none_of_a_run(which, other_runs, option)
    group, lm = _of_one_model(runs, asked, None if model is None else str(model), device, option)
    if rest := len(runs) - len(group):
        notify(f"left out: {counted(rest, 'run')} of other models, or of none that is known")
    for task, digits in data_sets(group).items():
        notify(f"runs of task {task} have several data sets ({', '.join(digits)})")
    mean_d, said = mean_token(asked, which, lm)
    if not np.isfinite(mean_d).all():
        raise UserError(f"{WHAT}: {said} has numbers that are not finite")
    points, _ = prompt_points(group, WHAT, checkpoints=checkpoints)
    searched_K = np.ones(len(points), dtype=bool)
    if other_runs and isinstance(asked, Run):
        own_N = np.array([run.id == asked.id for run in group.runs or []])
        searched_K = ~own_N[points.run_K]
        if not searched_K.any():
            raise UserError(f"{WHAT}: no prompt of another run lies there")
    if distance == Distance.cosine:
        searched_K &= _with_direction(points, searched_K, mean_d, said, notify, option)
    found = _nearest(points.means_Kd[searched_K], mean_d, points.table[searched_K], Distance(distance), top)
    found.attrs["to"] = said
    return found


# What may be asked.


def _check(
    top: object, which: object, distance: object, where: object, model: object, device: object, how: str
) -> None:
    """Raises UserError for an option that cannot be. how: it is written."""
    for name, value, ok, wanted in (
        ("top", top, _is_whole(top, least=1), "at least one prompt is needed, a whole number"),
        ("which", which, isinstance(which, str) or _is_whole(which), "final, best, initial or a step is needed"),
        ("distance", distance, distance in tuple(Distance), f"must be {' or '.join(Distance)}"),
        ("where", where, where is None or isinstance(where, str), "a condition is needed: \"task == 'plus_one'\""),
        ("model", model, model is None or isinstance(model, str | Path), "a hub id or a folder is needed"),
        ("device", device, device in DEVICES, f"must be {', '.join(DEVICES)}"),
    ):
        if not ok:
            raise UserError(f"{how.format(name)}{value}: {wanted}")


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def _folders(folders: Any) -> list[str]:
    if isinstance(folders, RunTable) and folders.runs:
        folders = [run.folder for run in folders.runs]
    several = [folders] if isinstance(folders, str | Path) else folders if isinstance(folders, Iterable) else []
    named = list(several)
    if not named or not all(isinstance(folder, str | Path) for folder in named):
        raise UserError(
            f"{WHAT}: folders= must be a folder of runs, or several; prompts trained elsewhere become one with "
            "promptgeo-runs import"
        )
    return list(map(str, named))


def _require_none_of_a_run(which: str | int, other_runs: bool, option: str) -> None:
    """Raises UserError for options that mean something of a run only."""
    for given, written in (
        (which != "final", f"{option.format('which')}{which}"),
        (other_runs, flag(option, "other_runs")),
    ):
        if given:
            raise UserError(f"{WHAT}: {written}: is of a run, and what is searched for is none")


# Which runs can be compared with it.


def _of_one_model(
    runs: RunTable, to: Sought, model: str | None, device: str, option: str
) -> "tuple[RunTable, FrozenLM | None]":
    """(the runs that can be compared, for a text their model).

    Raises UserError where none can, or it is not clear which.
    """
    groups = alike(runs, (ALL,))
    if isinstance(to, str):
        return _of_a_text(groups, model, device, option)
    width = (to.prompt() if isinstance(to, Run) else to).shape[-1]
    fitting = [group for group in groups if _runs(group)[0].prompt().shape[1] == width]
    if not fitting:
        raise UserError(f"{WHAT}: no run there has prompts of width {width}, as this one is")
    if isinstance(to, Run):
        fitting = [group for group in fitting if _may_be_of_one_model(to, group)]
        if not fitting:
            raise UserError(f"{WHAT}: no run there is of the model that this run is of")
    return _only(fitting, option).runs, None


def _of_a_text(groups: Sequence[Alike], model: str | None, device: str, option: str) -> "tuple[RunTable, FrozenLM]":
    """The runs of the model that is named, or else of the one that they name, and that model."""
    if model is None:
        knowing = [group for group in groups if any(_config(run).get("name_or_path") for run in _runs(group))]
        groups = [_only(knowing, option)] if knowing else groups[:1]  # these say that a model must be named
    read: list[tuple[Alike, FrozenLM]] = []
    refused: list[UserError] = []
    for group in groups:
        infos, width = [run.info for run in _runs(group)], _runs(group)[0].prompt().shape[1]
        try:
            read.append((group, model_of(infos, width, model, device=device, key=option.format("model"))))
        except UserError as error:  # another group may be of this model
            refused.append(error)
    if not read:
        raise refused[0]
    chosen = _only([group for group, _ in read], option)
    return chosen.runs, read[0][1]


def _only(groups: Sequence[Alike], option: str) -> Alike:
    """Raises UserError where there are several, with conditions that choose one."""
    if len(groups) == 1:
        return groups[0]
    ways = [f'{option.format("where")}"{_condition(group)}"' for group in groups[:SHOWN]]
    more = f" (and {len(groups) - SHOWN} more)" if len(groups) > SHOWN else ""
    raise UserError(f"{WHAT}: runs of {len(groups)} models lie there; choose one with {' or '.join(ways)}{more}")


def _condition(group: Alike) -> str:
    """What holds for these runs and not for those of other models: model == 'tiny'."""
    row = group.runs.table.iloc[0]
    columns = [column for column in ("model", "model.content") if column in group.settings and column in row]
    parts = []
    for column in columns:
        name, value = column if column.isidentifier() else f"`{column}`", row[column]
        parts.append(f"{name} == {value!r}" if isinstance(value, str) else f"{name} != {name}")  # it is missing
    return " and ".join(parts)


def _runs(group: Alike) -> list[Run]:
    return group.runs.runs or []


def _config(run: Run) -> dict[str, Any]:
    config: dict[str, Any] = run.info["config"]["model"]
    return config


def _may_be_of_one_model(run: Run, group: Alike) -> bool:
    """An import may not say its model: then its width decides."""
    contents = {each.info.get("fingerprints", {}).get("model") for each in (run, *_runs(group))}
    return len(contents - {None}) < 2


# The search.


def _with_direction(
    points: PromptPoints,
    searched_K: np.ndarray,
    mean_d: np.ndarray,
    said: str,
    notify: Callable[[str], None],
    option: str,
) -> np.ndarray:
    """[K] bool: which mean tokens have a direction; of those searched, the others are told.

    Raises UserError where what is searched for has none, or none of these has.
    """
    l2 = f"{option.format('distance')}l2"
    if not mean_d.any():
        raise UserError(f"{WHAT}: the mean token of {said} is zero, which has no direction; {l2} compares it")
    some_K: np.ndarray = np.any(points.means_Kd, axis=1)
    if not some_K[searched_K].any():
        raise UserError(f"{WHAT}: all mean tokens there are zero, which have no direction; {l2} compares them")
    without = points.table[searched_K & ~some_K]
    if len(without):
        names = list(dict.fromkeys(without["run"]))
        those = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        left_out = f"left out: {counted(len(without), 'prompt')} of {counted(len(names), 'run')} ({those}): "
        notify(f"{left_out}a mean token of zero has no direction; {l2} compares them")
    return some_K


def _nearest(
    means_Kd: np.ndarray, mean_d: np.ndarray, table: "pd.DataFrame", distance: Distance, top: int
) -> "pd.DataFrame":
    apart_K = distances(mean_d[None], means_Kd, distance)[0]
    order = np.argsort(apart_K, kind="stable")[:top]
    found = table.iloc[order].reset_index(drop=True)
    found.insert(0, "distance", apart_K[order])
    found.insert(0, "rank", np.arange(1, len(found) + 1))
    return found
