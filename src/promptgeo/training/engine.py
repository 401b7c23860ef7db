"""The one training path: cells in, run folders out."""

import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptgeo.config.paths import stamps
from promptgeo.config.schema import EarlyStopping
from promptgeo.errors import UserError
from promptgeo.model.memory import keep_freed_memory
from promptgeo.runs.folder import TRAINING_STATE, DamagedRun, Run
from promptgeo.training.callbacks import Callback, Checkpointer, Recorder
from promptgeo.training.cell import Cell
from promptgeo.training.coupling import check_complete, together
from promptgeo.training.devices import train_on_devices
from promptgeo.training.interruption import Interrupted, interruptible
from promptgeo.training.lock import HELD, claimed
from promptgeo.training.loggers import RunLoggers, show_together
from promptgeo.training.packs import default_slots, packs
from promptgeo.training.plan import Plan, plan_all, require_folder_free
from promptgeo.training.progress import Report, Reporter, SweepView, Workload, silent
from promptgeo.training.queue import SUBMITTED
from promptgeo.training.run_state import discard_state, saved_step

if TYPE_CHECKING:
    import lightning as L

log = logging.getLogger(__name__)

UNFINISHED = "it was not trained to its end; the same command goes on from there"
"""Why there is no run where another process was to train it."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a command ended."""

    folder: Path
    run: Run | None
    """None: nothing of it could be written, or another process trains it."""
    error: str | None = None
    """Why it failed; lock.HELD where another process trains it, SUBMITTED where a job does, UNFINISHED where a process
    of a launcher left it."""
    skipped: bool = False
    """It was complete already."""


def train_all(cells: Sequence[Cell], train: Callable[[Sequence[Cell]], dict[str, str]] | None = None) -> list[Outcome]:
    """Train every run that is not complete yet, packed; one outcome per cell, in order (cells of one id are one run).

    train: how; by default here. It returns the runs that it has not completed: id -> reason.

    Raises UserError where a run cannot be trained as it is, Interrupted where Ctrl-C or SIGTERM stopped training.
    """
    distinct = {cell.id: cell for cell in cells}
    check_complete(list(distinct.values()))
    skipped = _complete(list(distinct.values()))
    todo = {i: cell for i, cell in distinct.items() if i not in skipped}
    if skipped:
        log.info(
            "%d of %d runs are complete already: skipped (overwrite=true trains again)", len(skipped), len(distinct)
        )
    errors = (train or _train)(list(todo.values())) if todo else {}
    if todo:
        show_together(cells[0].config, cells[0].folder.parent)
    outcomes = {i: Outcome(run.folder, run, skipped=True) for i, run in skipped.items()}
    for i, cell in todo.items():
        error = errors.get(i)
        elsewhere = error in (HELD, SUBMITTED)
        run = None if elsewhere else Run.load(cell.folder) if error is None else _written(cell.folder)
        outcomes[i] = Outcome(cell.folder, run, error)
    return [outcomes[cell.id] for cell in cells]


def outcome_elsewhere(cell: Cell, before: list[tuple[str, int, int]]) -> Outcome:
    """How the run ended that another process was to train: what its folder says.

    before: stamps of its run.json before that. A file that is still the same tells of an earlier training.
    """
    kept = stamps(str(cell.folder / "run.json")) == before
    run = _written(cell.folder)
    if run is None or run.id != cell.id or (kept and (cell.config.overwrite or run.status == "failed")):
        with claimed([[cell]]) as mine:
            return Outcome(cell.folder, None, UNFINISHED if mine else HELD)
    return Outcome(cell.folder, run, run.info.get("error"))


def _complete(cells: Sequence[Cell]) -> dict[str, Run]:
    """Those that are finished, by id, together with all that they are coupled with."""
    finished = {cell.id: run for cell in cells if (run := finished_run(cell)) is not None}
    return {cell.id: finished[cell.id] for cell in cells if {cell.id, *cell.coupled} <= set(finished)}


def _written(folder: Path) -> Run | None:
    """What lies there, also of a failed run; None where nothing of it could be written."""
    try:
        return Run.load(folder)
    except UserError:
        return None


def _train(cells: Sequence[Cell]) -> dict[str, str]:
    """Train the runs, here or in several processes. Returns those that failed: id -> reason."""
    devices = cells[0].config.packing.devices
    if devices > 1 and len(cells) > 1:
        return train_on_devices(cells, devices, train_cells)
    with SweepView(len(cells), cells[0].folder.name) as view:
        return train_cells(cells, view.report)


def finished_run(cell: Cell) -> Run | None:
    """The finished run of this cell, if there is one (completed or diverged, undamaged) and it is to be kept.

    With grid.halving a run that was stopped stays so; without, it is to be trained to its end.
    """
    folder = cell.folder
    require_folder_free(folder)
    if cell.config.overwrite or not (folder / "run.json").exists():
        return None
    try:
        run = Run.load(folder)
    except DamagedRun as error:
        raise UserError(f"{error}; nothing was overwritten: overwrite=true trains this run again") from error
    if run.id == cell.id and run.status == "stopped" and cell.rivals is not None:
        return run
    if run.id != cell.id or run.status not in ("completed", "diverged"):
        return None
    discard_state(folder)  # a process that was killed after its last file may have left it
    if cell.config.training.keep_state and TRAINING_STATE not in run.info["files"] and run.status == "completed":
        log.warning(
            "%s: was trained without training.keep_state and is complete: it keeps none "
            "(overwrite=true trains it again)",
            folder,
        )
    return run


def train_cells(cells: Sequence[Cell], report: Report) -> dict[str, str]:
    """Train runs model by model, pack by pack, and report on them.

    Returns the runs that failed, or that another process trains: id -> reason.
    """
    errors: dict[str, str] = {}
    by_model = sorted(cells, key=lambda cell: cell.model_key)
    for _, same_model in itertools.groupby(by_model, key=lambda cell: cell.model_key):
        plans = plan_all(list(same_model))
        with claimed(together([p.cell for p in plans])) as mine:
            errors |= {p.id: HELD for p in plans if p.id not in mine}
            # Until a claim was free, another process may have trained the run.
            complete = _complete([p.cell for p in plans if p.id in mine])
            for p in plans:
                if p.id in mine and p.config.overwrite:
                    _forget_stopped(p.folder)
            todo = packs([p for p in plans if p.id in mine and p.id not in complete])
            for pack in todo:
                workload = Workload(pack)
                for p in pack:
                    early = "early stopping" if p.config.training.early_stopping != EarlyStopping() else ""
                    early = early or ("halving" if p.cell.rivals is not None else "")
                    report("planned", p.total_steps, early, work=workload.ahead(p))
            for pack in todo:
                errors |= train_pack(pack, report=report)
    return errors


def _forget_stopped(folder: Path) -> None:
    """overwrite=true: a run that an earlier search stopped begins anew; one that was only interrupted goes on."""
    run = _written(folder)
    if run is not None and run.status == "stopped":
        (folder / "run.json").unlink()  # first: from here on its state is none of that search
        discard_state(folder)


def train_pack(plans: Sequence[Plan], slots: int | None = None, *, report: Report = silent) -> dict[str, str]:
    """Train runs that share a frozen model and a prompt length, in at most `slots` slots.

    Writes each run's folder as the run ends. Returns the runs that failed: id -> reason. Raises Interrupted where a
    signal stopped it.
    """
    from promptgeo.training.tuning import PromptTuning  # with Lightning, which takes seconds

    first = plans[0]
    if first.lm.device.type == "cpu":
        keep_freed_memory()
    elif first.config.packing.compile:
        first.lm.compile()
    if first.cell.coupled:
        slots = len(plans)
        if len({saved_step(p) for p in plans}) > 1:
            # Killed while they were saved: none can go on without the others.
            for p in plans:
                discard_state(p.folder)
    recorder, checkpointer = Recorder(), Checkpointer()
    callbacks: list[Callback] = [recorder, RunLoggers(), Reporter(report, plans), checkpointer]
    same_bytes = deterministic() if first.lm.device.type == "cuda" else nullcontext()
    with warnings.catch_warnings(), same_bytes, interruptible():
        # The loader is a counter and the metrics are ours: what Lightning would advise here does not apply.
        warnings.filterwarnings("ignore", module="lightning")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        try:
            _trainer(first).fit(PromptTuning(plans, slots or default_slots(plans), callbacks))
        finally:
            for callback in callbacks:
                callback.closed()
    if checkpointer.stop.signum is not None:
        raise Interrupted(checkpointer.stop.signum)
    return recorder.errors


@contextmanager
def deterministic() -> Iterator[None]:
    """Within: a GPU's kernels add in one order, so that the same command leaves the same bytes."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # no number here is read before it is written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _trainer(p: Plan) -> "L.Trainer":
    import lightning as L
    from lightning.pytorch.plugins.environments import LightningEnvironment

    device = p.lm.device
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        plugins=LightningEnvironment(),  # one process, also inside a Slurm job
        precision="32-true",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
