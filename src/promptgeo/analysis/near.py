"""Which prompts lie nearest to a word, a sentence or another prompt? Searched among finished runs, exactly.

Prompts are compared by their mean tokens, as the atlas does by default.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptgeo.analysis.ask import usable_runs
from promptgeo.analysis.geometry.nearest import Distance, distances
from promptgeo.analysis.geometry.prompt_points import prompt_points
from promptgeo.errors import UserError
from promptgeo.runs.alike import ALL, alike
from promptgeo.runs.folder import Run
from promptgeo.runs.model import model_of
from promptgeo.runs.table import RunTable

if TYPE_CHECKING:
    import pandas as pd

WHAT = "near"
"""The command's name, for messages."""


def nearest_prompts(
    folders: str | Path | Sequence[str | Path],
    to: "str | Run | np.ndarray",
    *,
    top: int = 20,
    which: str | int = "final",
    checkpoints: bool = True,
    other_runs: bool = False,
    distance: str = "cosine",
    where: str | None = None,
    model: str | None = None,
    device: str = "auto",
    notify: Callable[[str], None] = lambda line: None,
    option: str = "{}=",
) -> "pd.DataFrame":
    """The prompts of finished runs whose mean tokens lie nearest to a word, a sentence, or a prompt's mean token.

        pg.nearest_prompts("outputs/quickstart", "France")
        pg.nearest_prompts("outputs/quickstart", pg.load_runs("outputs/quickstart").runs[0], other_runs=True)

    Args:
        folders: of runs, one or several.
        to: a text, whose tokens are those that init.text would give; a Run; or a prompt, [P, d] or [d].
        top: how many.
        which: of a Run: final, best, initial, or the step of a checkpoint.
        checkpoints: search among the prompts that each run kept too.
        other_runs: leave out the Run's own prompts.
        distance: cosine or l2.
        where: only runs for which this condition holds.
        model: where the runs' model lies now, for a text. device: cpu, cuda or auto.
        notify: is given a line for each thing that is left out.
        option: how messages write an option's name.

    Returns a table with columns rank, distance, run, task, init, seed, lr, ..., step, accuracy.
    Raises UserError where no run is there, several models are (a text is of one), or `to` is none of these.
    """
    if distance not in tuple(Distance):
        raise UserError(f"{option.format('distance')}{distance}: must be {' or '.join(Distance)}")
    if top < 1:
        raise UserError(f"{option.format('top')}{top}: at least one prompt is needed")
    several = [folders] if isinstance(folders, str | Path) else list(folders)
    runs, left_out = usable_runs([str(folder) for folder in several], where)
    for line in left_out:
        notify(f"left out: {line}")
    to = to if isinstance(to, str | Run) else _as_prompt(to)
    group = _of_one_model(runs, to, option)
    if rest := len(runs) - len(group):
        notify(f"left out: {rest} {'run' if rest == 1 else 'runs'} of other models")
    points, _ = prompt_points(group, WHAT, checkpoints=checkpoints)
    mean_d = _mean_token(to, which, group, model, device, option)
    searched_K = np.ones(len(points), dtype=bool)
    if other_runs and isinstance(to, Run):
        own_N = np.array([run.id == to.id for run in group.runs or []])
        searched_K = ~own_N[points.run_K]
        if not searched_K.any():
            raise UserError(f"{WHAT}: no prompt of another run lies there")
    return _nearest(points.means_Kd[searched_K], mean_d, points.table[searched_K], Distance(distance), top)


def _as_prompt(to: object) -> np.ndarray:
    """[P, d] or [d] float32. Raises UserError for what is no prompt."""
    given = np.empty(0, np.float32)
    with suppress(TypeError, ValueError):
        given = np.asarray(to, dtype=np.float32)
    if given.ndim not in (1, 2) or not given.size or not np.isfinite(given).all():
        raise UserError(f"{WHAT}: to= must be a text, a Run, or a prompt: finite numbers in the shape [P, d] or [d]")
    return given


def _of_one_model(runs: RunTable, to: "str | Run | np.ndarray", option: str) -> RunTable:
    """The runs that can be compared. Raises UserError where none can, or it is not clear which."""
    groups = [group.runs for group in alike(runs, (ALL,))]
    if isinstance(to, str):
        fitting = groups
    else:
        width = (to.prompt() if isinstance(to, Run) else np.asarray(to)).shape[-1]
        fitting = [group for group in groups if (group.runs or [])[0].prompt().shape[1] == width]
        if not fitting:
            raise UserError(f"{WHAT}: no run there has prompts of width {width}, as this one is")
    if isinstance(to, Run):
        fitting = [group for group in fitting if _may_be_of_one_model(to, group)]
    if len(fitting) != 1:
        choose = f"choose one with {option.format('where')}\"model == '...'\""
        raise UserError(f"{WHAT}: runs of {len(fitting)} models lie there; {choose}")
    return fitting[0]


def _may_be_of_one_model(run: Run, group: RunTable) -> bool:
    """An import may not say its model: then its width decides."""
    contents = {each.info.get("fingerprints", {}).get("model") for each in (run, *(group.runs or []))}
    return len(contents - {None}) < 2


def _mean_token(
    to: "str | Run | np.ndarray", which: str | int, runs: RunTable, model: str | None, device: str, option: str
) -> np.ndarray:
    """[d] float32."""
    if isinstance(to, Run):
        return to.prompt(which).mean(0)
    if not isinstance(to, str):
        given = np.asarray(to, dtype=np.float32)
        return given.mean(0) if given.ndim == 2 else given
    import torch

    trained = runs.runs or []
    infos, width = [run.info for run in trained], trained[0].prompt().shape[1]
    lm = model_of(infos, width, model, device=device, key=option.format("model"))
    ids = lm.encode(to)
    if not ids:
        raise UserError(f"{WHAT}: {to!r} has no token for this model")
    mean_d: np.ndarray = lm.embed(torch.tensor(ids, device=lm.device)).float().mean(0).cpu().numpy()
    return mean_d


def _nearest(
    means_Kd: np.ndarray, mean_d: np.ndarray, table: "pd.DataFrame", distance: Distance, top: int
) -> "pd.DataFrame":
    if distance is Distance.cosine and not (mean_d.any() and means_Kd.any(1).all()):
        raise UserError(f"{WHAT}: a mean token is zero, which has no direction; take l2 distances")
    apart_K = distances(mean_d[None], means_Kd, distance)[0]
    order = np.argsort(apart_K, kind="stable")[:top]
    found = table.iloc[order].reset_index(drop=True)
    found.insert(0, "distance", apart_K[order])
    found.insert(0, "rank", np.arange(1, len(found) + 1))
    return found
