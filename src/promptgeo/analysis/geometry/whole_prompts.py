"""Which runs of a task started alike, and did their tasks teach them anything? Whole prompts by task and init.

Prompts have one length in each task; between tasks lengths may differ.

Shapes: N runs of a cell, P prompt tokens, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from promptgeo.analysis.geometry.gauge import Gauge, quotient
from promptgeo.analysis.geometry.tokens import order_of_appearance
from promptgeo.analysis.logged import BASELINES, over_baselines
from promptgeo.analysis.scoring import Bootstrap
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

LEAST_RUNS = 3
"""Of a cell: two have a single distance, whose variation nothing says."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs of one task and init, whose prompts all differ."""

    task: str
    init: str
    rows: list[int]
    """Their rows of the run table."""
    prompts_NPd: np.ndarray
    """float64, as trained, or without what the model ignores."""
    norms_N: np.ndarray
    """[N] float64: the Frobenius norms of the prompts as trained."""
    initial_NPd: np.ndarray | None
    """float64, the P0s; None where they are not known."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def length(self) -> int:
        """P."""
        return self.prompts_NPd.shape[1]

    def without(self, gauge: Gauge) -> "Cell":
        """The same runs, prompts and P0s without what the model ignores of their tokens."""
        initial_NPd = None if self.initial_NPd is None else quotient(self.initial_NPd, gauge)
        return replace(self, prompts_NPd=quotient(self.prompts_NPd, gauge), initial_NPd=initial_NPd)

    @cached_property
    def one_p0(self) -> bool | None:
        """Whether all runs started from the same P0, so that P0 is nothing that they vary in; None: not known."""
        if self.initial_NPd is None:
            return None
        return bool((self.initial_NPd == self.initial_NPd[0]).all())

    @property
    def moved_N(self) -> np.ndarray | None:
        """[N] float64: the Frobenius norms of P - P0; None without P0s."""
        return None if self.initial_NPd is None else np.linalg.norm(self.prompts_NPd - self.initial_NPd, axis=(1, 2))

    @cached_property
    def distances_NN(self) -> np.ndarray:
        """[N, N] float64: Frobenius distances over sqrt(P), tokens paired by position: runs of a task are as long."""
        flat_ND = self.prompts_NPd.reshape(len(self), -1) / np.sqrt(self.length)
        return np.stack([np.linalg.norm(flat_ND - one_D, axis=1) for one_D in flat_ND])


def each_prompt(runs: RunTable, which: str | int = "final") -> list[np.ndarray]:
    """The runs' prompts, [P, d] float32 each, of whatever lengths. Raises UserError where a run does not have it."""
    return list(runs.prompts(which)) if runs.runs is None else [run.prompt(which) for run in runs.runs]


def cells_of(runs: RunTable, what: str) -> tuple[list[Cell], list[str]]:
    """(the cells of three runs or more in order of appearance, an omission for what is left out).

    Two ways of writing a command train the same prompt: it counts once.

    Raises UserError where runs of a task differ in length, runs of an init in the text that they start from, prompts in
    width, and where no cell has three runs.
    """
    prompts, initial = each_prompt(runs), _initial(runs)
    _require_alike(runs, prompts, what)
    cells, omissions = [], []
    for (task, init), rows in runs.table.groupby(["task", "init"], sort=False).indices.items():
        kept = list({prompts[row].tobytes(): int(row) for row in reversed(rows)}.values())[::-1]
        if len(kept) < len(rows):
            omissions.append(
                f"{what}: of {len(rows)} runs of {task} from {init}, {len(kept)} have prompts that differ."
            )
        if len(kept) < LEAST_RUNS:
            runs_have = "1 run" if len(kept) == 1 else f"{len(kept)} runs"
            omissions.append(f"{what}: {task} from {init} has {runs_have}; {LEAST_RUNS} are needed to vary.")
            continue
        final_NPd = np.stack([prompts[row] for row in kept]).astype(np.float64)
        initial_NPd = None if initial is None else np.stack([initial[row] for row in kept]).astype(np.float64)
        norms_N = np.linalg.norm(final_NPd, axis=(1, 2))
        cells.append(Cell(str(task), str(init), kept, final_NPd, norms_N, initial_NPd))
    if not cells:
        raise UserError(f"{what}: no task has {LEAST_RUNS} runs from one init; train more seeds (-m seed=0,1,2,3)")
    return cells, omissions


def _initial(runs: RunTable) -> list[np.ndarray] | None:
    try:
        return each_prompt(runs, "initial")
    except UserError:
        return None


def _require_alike(runs: RunTable, prompts: Sequence[np.ndarray], what: str) -> None:
    if len(widths := sorted({prompt.shape[1] for prompt in prompts})) > 1:
        raise UserError(f"{what}: prompts of widths {', '.join(map(str, widths))} cannot be compared")
    for task, rows in runs.table.groupby("task", sort=False).indices.items():
        if len(lengths := sorted({len(prompts[row]) for row in rows})) > 1:
            raise UserError(
                f"{what}: runs of {task} have prompts of {' and '.join(map(str, lengths))} tokens, which would be "
                f'taken for one kind; choose one length per task (where="prompt_length == {lengths[0]}")'
            )
    if "init.text" in runs.table:
        for (task, init), texts in runs.table.groupby(["task", "init"], sort=False)["init.text"]:
            if len(different := texts.dropna().unique()) > 1:
                raise UserError(
                    f"{what}: runs of {task} from {init} start from several texts ({'; '.join(map(repr, different))}); "
                    "give each an init.name, or choose one with where="
                )


def from_one_p0(cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose runs share their P0, as in study 2; all of them where none does."""
    return [cell for cell in cells if cell.one_p0] or list(cells)


def tasks_of(cells: Sequence[Cell]) -> list[str]:
    """In order of appearance."""
    return order_of_appearance(cell.task for cell in cells)


def by_task(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each task, in order of appearance."""
    return {task: [cell for cell in cells if cell.task == task] for task in tasks_of(cells)}


# Did training teach them anything?


def taught(runs: RunTable, seed: int = 0) -> tuple[list[str], list[str]]:
    """(tasks whose trained prompts are shown to beat all baselines, a sentence for each other task).

    Shown: the 95 % interval of the difference, over runs and test examples, lies above 0. By the likeliest label where
    the task has labels. What runs do not know (prompts from elsewhere) is not asked. seed: of draws of test examples.
    """
    good, sentences, bootstrap = [], [], Bootstrap(seed=seed)
    for task in order_of_appearance(runs.table["task"]):
        those = [run for run, of in zip(runs.runs or [], runs.table["task"], strict=False) if of == task]
        beaten = over_baselines(those, task, bootstrap)
        failed = [
            f"{BASELINES[name]} ({accuracy:.1%}; {gain.value:+.1%}, {gain.interval[0]:+.1%} to {gain.interval[1]:+.1%})"
            for name, (accuracy, gain) in beaten.items()
            if gain.interval[0] <= 0
        ]
        if failed:
            sentences.append(f"{task} is not shown to be learned: its trained prompts do not beat {', '.join(failed)}")
        else:
            good.append(str(task))
    return good, sentences
