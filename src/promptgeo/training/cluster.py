"""How do the runs of a command train as jobs of a cluster? In shares; the run folders say how far they are.

A job trains its share as a command of one machine would: it claims its runs, skips what is complete and resumes what
was begun. So a job may be ended and started again, and several commands may have runs in common.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rich.live import Live

from promptgeo.config.terminal import console, show_log, warn
from promptgeo.errors import UserError
from promptgeo.training.cell import Cell
from promptgeo.training.coupling import together
from promptgeo.training.engine import train_all
from promptgeo.training.interruption import Interrupted, interruptible
from promptgeo.training.packs import CPU_SLOTS
from promptgeo.training.progress import EVERY
from promptgeo.training.queue import SUBMITTED, standing, summary, table_of_jobs, time_of, written
from promptgeo.training.run_state import state_file

POLL = 3.0
"""Seconds between two looks at the queue and at the run folders."""
LOST = "the job has ended, but this run has not; the same command goes on from there"


@dataclass(frozen=True)
class Share:
    """The runs of one job. It is sent there, and called."""

    cells: list[Cell]
    here: str
    """The folder that paths are seen from."""
    before: dict[str, int | None]
    """By id: when run.json was last written before the job."""
    threads: int | None = None
    """On a CPU; null: as many as torch takes."""

    def __call__(self) -> dict[str, str]:
        """Train the runs. Returns those that failed, or that another process trains: id -> reason.

        Raises Interrupted where a signal stopped it.
        """
        import torch

        os.chdir(self.here)
        show_log()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            with interruptible():
                outcomes = train_all([self._resumed(cell) for cell in self.cells])
        except UserError as error:
            return {cell.id: str(error) for cell in self.cells}
        return {cell.id: o.error for cell, o in zip(self.cells, outcomes, strict=True) if o.error is not None}

    def _resumed(self, cell: Cell) -> Cell:
        """overwrite=true is for what lay there before: a job that is started again keeps what it has trained."""
        if written(cell.folder) == self.before[cell.id]:
            return cell
        return replace(cell, config=replace(cell.config, overwrite=False))

    def progress(self) -> list[tuple[int | None, int | None]]:
        """Of each run when its results and its state were last written: it changes as the job gets on."""
        return [(written(cell.folder), time_of(state_file(cell.folder))) for cell in self.cells]


class Engine(Protocol):
    """A cluster, as far as one folder of runs is concerned."""

    wait: bool
    """Whether the command waits until its jobs have ended."""
    threads: int | None

    def check(self, cells: Sequence[Cell]) -> None:
        """Raises UserError where the cluster cannot be had, or would not take such jobs. Nothing is written."""

    def queued(self, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
        """Jobs of earlier commands that have not ended, each with those of the runs that it trains."""

    def submit(self, shares: Sequence[Share]) -> list[str]:
        """The jobs' ids. Raises UserError where the cluster takes none."""

    def states(self) -> dict[str, str] | None:
        """Of each job that has not ended the cluster's word for its state; None where the cluster does not answer."""

    def reasons(self, job: str) -> dict[str, str] | str:
        """Why runs of an ended job failed: by id; or for all that are not complete."""

    def left(self, jobs: Sequence[str]) -> str:
        """What to tell who stops waiting for the jobs."""

    def tidy(self, job: str, complete: bool) -> None:
        """The job has ended: what was kept for it can go."""


def train(engine: Engine, cells: Sequence[Cell]) -> dict[str, str]:
    """Train the runs on the cluster. Returns those that are not complete: id -> reason.

    Where engine.wait is false all that are submitted are among them, as SUBMITTED. Raises UserError where the cluster
    takes no jobs, Interrupted where a signal ended the waiting; the jobs go on.
    """
    before = {cell.id: written(cell.folder) for cell in cells}
    jobs = engine.queued(cells)
    followed = {cell.id for share in jobs.values() for cell in share}
    if todo := shares([cell for cell in cells if cell.id not in followed]):
        sent = [Share(share, os.getcwd(), {c.id: before[c.id] for c in share}, engine.threads) for share in todo]
        jobs |= dict(zip(engine.submit(sent), todo, strict=True))
    if not engine.wait:
        return {cell.id: SUBMITTED for cell in cells}
    # With overwrite=true, what a job of an earlier command has trained is not what was to be trained again.
    runs = {c.id: Standing(c.folder, before[c.id], c.config.overwrite and c.id not in followed) for c in cells}
    try:
        _wait(engine, jobs, runs)
    except Interrupted:
        warn(f"promptgeo: {engine.left(list(jobs))}")
        raise
    errors: dict[str, str] = {}
    for job, share in jobs.items():
        left = [cell.id for cell in share if not runs[cell.id].complete]
        if left:
            reasons = engine.reasons(job)
            errors |= {i: reasons if isinstance(reasons, str) else reasons.get(i, LOST) for i in left}
        engine.tidy(job, complete=not left)
    return errors


def shares(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The runs of each job: of one model, prompt length, batch size and optimiser, which train in a pack.

    packing.max_runs (or as many as train at once on a CPU) for each of packing.devices, of one size, in order. Coupled
    runs stay together.
    """
    alike: dict[tuple, list[list[Cell]]] = {}
    for group in together(cells):
        config = group[0].config
        key = group[0].model_key, config.prompt.length, config.training.batch_size, config.optimizer.name
        alike.setdefault(key, []).append(group)
    found: list[list[Cell]] = []
    for groups in alike.values():
        packing, count = groups[0][0].config.packing, sum(map(len, groups))
        jobs = -(-count // ((packing.max_runs or CPU_SLOTS) * packing.devices))
        size = -(-count // jobs)
        share: list[Cell] = []
        for group in groups:
            if share and len(share) + len(group) > size:
                found.append(share)
                share = []
            share = share + group
        found.append(share)
    return found


@dataclass
class Standing:
    """How far is a run, by its folder? See queue.standing."""

    folder: Path
    before: int | None
    overwrite: bool
    word: str = ""

    @property
    def complete(self) -> bool:
        return self.look() == "done"

    def look(self) -> str:
        """done, failed, training or waiting."""
        if self.word != "done":
            self.word = standing(self.folder, self.before, self.overwrite)
        return self.word


def _wait(engine: Engine, jobs: Mapping[str, Sequence[Cell]], runs: Mapping[str, Standing]) -> None:
    """Show the jobs until all have ended."""
    screen = console(stderr=True)
    printed, unseen = time.monotonic(), 0
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        # Twice in a row: folders that machines share show late what a job wrote last.
        while unseen < 2 and not (unseen and all(run.complete for run in runs.values())):
            states = engine.states()
            if states is not None:
                unseen = 0 if set(states) & set(jobs) else unseen + 1
            words = {job: [runs[cell.id].look() for cell in share] for job, share in jobs.items()}
            shown = states or {}
            if screen.is_terminal:
                live.update(table_of_jobs(words, shown), refresh=True)
            elif time.monotonic() - printed > EVERY:
                printed = time.monotonic()
                warn(summary(words, shown) if states is not None else "the cluster does not answer; waiting")
            time.sleep(POLL)
