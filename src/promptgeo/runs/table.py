"""Many runs at once: a table with one row each, beside their prompts as arrays.

Shapes: N runs, C checkpoints, P prompt tokens, d width.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptgeo.config.identity import decides_numbers
from promptgeo.config.schema import flatten
from promptgeo.errors import UserError
from promptgeo.evaluation.metrics import HEADLINE
from promptgeo.runs.folder import PROMPTS, Run, find_runs
from promptgeo.runs.where import rows_where

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ROWS_SHOWN = 20
"""Of a table in a console or a notebook, at most: as many as fit a screen."""
NAMES = ("task", "init", "seed")
VARIED = ("status", "model", "template", "prompt_length", "lr")
"""Columns that are shown only where the runs differ in them."""
UNLIKE = "."
"""In the names of further columns: keys of the config, in which runs differ that have all else in common."""
RATES = ("optimizer.lr", "optimizer.lr_in_embedding_units")
_FORMAT: Any = {"float_format": "{:.3g}".format, "na_rep": "-"}


@dataclass(frozen=True, repr=False)
class RunTable:
    """Many runs: a pandas table with one row each, and their prompts as arrays.

    `table` has one row per run. `prompts()` is [N, P, d], in the table's order; `trajectory()` has the checkpoints.
    `query(...)` chooses runs. In a console or a notebook, a RunTable shows its first rows.

    `load_runs` makes one of run folders, `RunTable.from_arrays` of prompts that were trained elsewhere.
    """

    table: "pd.DataFrame"
    """One row per run: id, task, init, seed, accuracies, ..."""
    runs: list[Run] | None = None
    """In the table's order; None for prompts that were trained elsewhere."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Prompts from elsewhere: final and perhaps initial, [N, P, d]; perhaps trajectory [N, C, P, d] and steps [C], P0
    (step 0) first."""

    @classmethod
    def from_arrays(
        cls,
        prompts: np.ndarray,
        table: "pd.DataFrame",
        initial: np.ndarray | None = None,
        trajectory: np.ndarray | None = None,
        steps: Sequence[int] | None = None,
    ) -> "RunTable":
        """Make a RunTable of prompts that were trained elsewhere. Analyses read it like any other.

        Args:
            prompts: [N, P, d], the final ones.
            table: one row per prompt; analyses look at its columns task and init, perhaps seed.
            initial: P0, [N, P, d].
            trajectory: checkpoints [N, C, P, d].
            steps: the step of each checkpoint, [C]; 1 to C where they are not given. Step 0 is P0.

        Raises UserError where shapes do not fit, steps do not rise, or checkpoints come without P0.
        """
        prompts = _real("prompts", prompts)
        if prompts.ndim != 3 or len(prompts) != len(table):
            raise UserError(
                f"prompts have shape {list(prompts.shape)} for {len(table)} table rows; "
                "[N, P, d] with one row per prompt is needed"
            )
        arrays = {"final": prompts.copy()}
        if initial is not None:
            arrays["initial"] = _real("initial", initial).copy()
            if arrays["initial"].shape != prompts.shape:
                raise UserError(f"initial has shape {list(arrays['initial'].shape)}, prompts {list(prompts.shape)}")
        if trajectory is not None:
            checkpoints = _real("trajectory", trajectory).copy()
            arrays |= _with_p0(arrays.get("initial"), checkpoints, steps, prompts.shape)
        return cls(table.reset_index(drop=True), None, arrays)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        rows = self._shown().to_string(**_FORMAT) if len(self) else ""
        return "\n".join(filter(None, [self._title(), rows, self._left_out()]))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = self._shown().to_html(border=0, **_FORMAT) if len(self) else ""
        return f"<p>{self._title()}</p>\n{rows}\n<p>{self._left_out()}</p>"

    def _title(self) -> str:
        return f"RunTable of {len(self)} run{'s' if len(self) != 1 else ''}"

    def _left_out(self) -> str:
        more = len(self) - ROWS_SHOWN
        return f"and {more} more; all rows and columns: .table" if more > 0 else ""

    def _shown(self) -> "pd.DataFrame":
        """The first rows of the columns that say which run it is and how good."""
        table = self.table
        varied = [c for c in VARIED if c in table and table[c].nunique(dropna=False) > 1]
        varied += [c for c in table if UNLIKE in str(c)]
        scores = [c for which in PROMPTS if (c := f"{HEADLINE}_{which}") in table and table[c].notna().any()]
        columns = [*(c for c in NAMES if c in table), *varied, *scores, *(c for c in ("n", "steps") if c in table)]
        return table[columns or list(table.columns[:8])].head(ROWS_SHOWN)  # of a table unknown, what fits a line

    def query(self, expression: str) -> "RunTable":
        """Choose the runs for which a condition on the table's columns holds: "task == 'plus_one' and seed < 3".

        It is read, never run: comparisons, `in` and and, or, not (runs/where.py). Raises UserError for anything else,
        and for a column that these runs do not have.
        """
        return self.only(rows_where(self.table, expression))

    def only(self, rows: Sequence[int]) -> "RunTable":
        """The runs of these rows, in this order."""
        rows = list(rows)
        runs = None if self.runs is None else [self.runs[i] for i in rows]
        arrays = {k: v if k == "steps" else v[rows] for k, v in self.arrays.items()}
        return RunTable(self.table.loc[rows].reset_index(drop=True), runs, arrays)

    def prompts(self, which: str | int = "final") -> np.ndarray:
        """The runs' prompts, [N, P, d] float32, in the table's order.

        which: initial, final, best, or the step of a checkpoint (0: initial).

        Raises UserError where the runs' prompts differ in shape, or a run does not have this prompt.
        """
        if self.runs is None:
            return self._from_arrays(which)
        prompts = [run.prompt(which) for run in self.runs]
        shapes = sorted({p.shape for p in prompts})
        if len(shapes) > 1:
            raise UserError(
                f"these runs' prompts have different shapes ({', '.join(map(str, shapes))}); "
                "choose some with where='prompt_length == 4' (in Python .query)"
            )
        if not prompts:
            raise UserError("there are no runs")
        return np.stack(prompts)

    def _from_arrays(self, which: str | int) -> np.ndarray:
        which = "initial" if which == 0 else which
        steps = self.arrays.get("steps", np.empty(0, int))
        if not isinstance(which, str) and which in steps:
            return self.arrays["trajectory"][:, np.flatnonzero(steps == which)[0]]
        named = [k for k in self.arrays if k not in ("trajectory", "steps")]
        if which not in named:
            checkpoints = (
                f", and steps {', '.join(map(str, steps[:20]))}" if len(steps) else ""
            )  # as many as fit a line
            raise UserError(f"which={which}: these prompts only have {', '.join(named)}{checkpoints}")
        return self.arrays[str(which)]

    def trajectory(self) -> tuple[np.ndarray, np.ndarray]:
        """The checkpoints that all runs have, P0 (step 0) first: prompts [N, C, P, d] float32 and steps [C] int64.

        Raises UserError where runs have no common checkpoints, or prompts from elsewhere none at all or no P0.
        """
        if self.runs is None:
            if "trajectory" not in self.arrays:
                raise UserError("these prompts have no checkpoints")
            return self.arrays["trajectory"], self.arrays["steps"]
        steps = sorted(set.intersection(*(set(run.tensors["steps"].tolist()) for run in self.runs)))
        if not any(len(run.tensors["steps"]) for run in self.runs):
            raise UserError("these runs have no checkpoints")
        if not steps:
            raise UserError(
                "these runs have no checkpoint at a common step; "
                "choose runs of one task with .query(...), or fix training.max_steps"
            )
        return np.stack([self.prompts(step) for step in (0, *steps)], axis=1), np.array([0, *steps])


def _real(name: str, array: np.ndarray) -> np.ndarray:
    """An array as float32. Raises UserError for complex numbers, which would lose a part, and for what is no number."""
    found = np.asarray(array)
    if not np.issubdtype(found.dtype, np.floating) and not np.issubdtype(found.dtype, np.integer):
        raise UserError(f"{name} holds {found.dtype.name}; a prompt is made of floating-point numbers")
    return found.astype(np.float32, copy=False)


def _with_p0(
    initial_NPd: np.ndarray | None,
    trajectory_NCPd: np.ndarray,
    steps: Sequence[int] | None,
    shape: tuple[int, ...],
) -> dict[str, np.ndarray]:
    """initial, trajectory and steps, with P0 as step 0 before the others. shape: of the final prompts, [N, P, d]."""
    if trajectory_NCPd.ndim != 4 or (trajectory_NCPd.shape[0], *trajectory_NCPd.shape[2:]) != tuple(shape):
        raise UserError(
            f"trajectory has shape {list(trajectory_NCPd.shape)}, prompts {list(shape)}; [N, C, P, d] is needed"
        )
    steps_C = np.arange(1, trajectory_NCPd.shape[1] + 1) if steps is None else np.array(steps, dtype=np.int64)
    if steps_C.shape != trajectory_NCPd.shape[1:2] or (steps_C < 0).any() or (np.diff(steps_C) <= 0).any():
        raise UserError(
            f"steps: {trajectory_NCPd.shape[1]} rising numbers are needed, one per checkpoint; "
            f"these are {steps_C.tolist()}"
        )
    if len(steps_C) and steps_C[0] == 0:
        if initial_NPd is not None and not np.array_equal(initial_NPd, trajectory_NCPd[:, 0]):
            raise UserError("initial differs from the checkpoint of step 0; both are P0: leave one out")
    elif initial_NPd is None:
        raise UserError(
            "trajectory: P0 is needed with it: initial=..., or steps that begin with 0 where the first checkpoint is P0"
        )
    else:
        trajectory_NCPd = np.concatenate([initial_NPd[:, None], trajectory_NCPd], axis=1)
        steps_C = np.concatenate([[0], steps_C])
    return {"initial": trajectory_NCPd[:, 0], "trajectory": trajectory_NCPd, "steps": steps_C}


def load_runs(*paths: str | Path) -> RunTable:
    """Read all finished runs at or below some folders, as one table.

    Checksums are verified. A damaged or unfinished folder is named in the log and left out. Prompts are read when they
    are first needed.

        runs = pg.load_runs("outputs/quickstart").query("task == 'country_capital'")
        runs.prompts()         # [N, P, d], in the table's order

    Args:
        paths: folders of runs, such as outputs/quickstart; a run's own folder is one too.

    Returns a RunTable with one row per run, folder by folder, by folder name.
    Raises UserError where a path is not a folder.
    """
    runs: list[Run] = []
    for path in paths:
        finished, damaged = find_runs(path)
        runs += finished
        for error in damaged:
            log.warning("left out: %s", error)
    return table_of(runs)


def table_of(runs: Sequence[Run]) -> RunTable:
    """These runs as a table, in their order."""
    import pandas as pd  # slow to import: only where a table is made

    rows = [run.row() for run in runs]
    configs = [flatten(run.info["config"]) | _model_of(run) for run in runs]
    keys = unlike_keys(rows, configs)
    rows = [
        row | {key: _shown_value(config.get(key)) for key in keys} for row, config in zip(rows, configs, strict=True)
    ]
    return RunTable(pd.DataFrame(rows), list(runs))


def _model_of(run: Run) -> dict[str, Any]:
    """What identifies a run's model beside its name."""
    content = str(run.info.get("fingerprints", {}).get("model") or "").removeprefix("sha256:")[:8]
    return {"model.content": content or None, "model.precision": run.info.get("precision")}


def unlike_keys(rows: Sequence[dict[str, Any]], configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys of the config in which runs differ although the columns that name them say the same, seeds aside.

    A key of a task, init, template or model counts where it differs under one name; any other wherever it differs. An
    init that is each task's own text says nothing more than the task does.
    """
    configs = [_without_own_text(config) for config in configs]
    keys: dict[str, None] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        section = key.partition(UNLIKE)[0]
        named_by = [section] if section in ("task", "init", "template", "model") else []
        if key in RATES:  # the column lr has what they came to
            named_by = ["lr", "model"]
        values: dict[tuple, set[str]] = {}
        for row, config in zip(rows, configs, strict=True):
            if key in config or row["status"] != "imported":  # of an import only what it says is known
                values.setdefault(tuple(str(row[c]) for c in named_by), set()).add(str(config.get(key)))
        if _counts(key) and any(len(different) > 1 for different in values.values()):
            keys[key] = None
    return list(keys)


def _without_own_text(config: dict[str, Any]) -> dict[str, Any]:
    own = config.get("init.text") is not None and config["init.text"] == config.get("task.text")
    return config | {"init.text": "the task's own"} if own else config


def _counts(key: str) -> bool:
    """Whether runs that differ in this key are to be told apart by it."""
    if key.startswith(("seeds.", "regulariser.seeds")) or key == "prompt.length" or UNLIKE not in key:
        return False
    return key in ("model.content", "model.precision") or decides_numbers(key)


def _shown_value(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
