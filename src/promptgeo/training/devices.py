"""packing.devices=N: the runs of a command spread over N processes, one per device.

Each process is a whole promptgeo of its own: it loads the model, trains its share in packs, and reports to the first
process through a queue.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from queue import Empty
from threading import Thread
from typing import Any

import torch

from promptgeo.config.explain import refusal
from promptgeo.errors import UserError
from promptgeo.training.cell import Cell
from promptgeo.training.coupling import together
from promptgeo.training.interruption import Interrupted
from promptgeo.training.progress import Report, SweepView

Train = Callable[[Sequence[Cell], Report], dict[str, str]]
"""Trains cells and reports on them; returns those that failed: id -> reason."""


def check_devices(cell: Cell, there: int | None = None) -> None:
    """Raises UserError for more processes than CUDA devices, and for packing.compile on a CPU.

    there: how many CUDA devices there are; by default those of this machine.
    """
    packing = cell.config.packing
    if packing.compile and cell.device == "cpu":
        raise UserError(
            "packing.compile=true: is for CUDA; on a CPU a run in a pack would no longer equal the run alone bit by bit"
        )
    there = torch.cuda.device_count() if there is None else there
    if cell.device == "cuda" and packing.devices > max(there, 1):  # none at all is said when the model is loaded
        raise UserError(f"packing.devices={packing.devices}: there are {there} CUDA devices")


def check_jobs(cells: Sequence[Cell], gpus: float) -> None:
    """Raises UserError unless these runs can train in jobs that have `gpus` CUDA devices each, or a share of one."""
    for cell in cells:
        check_devices(cell, int(gpus))
        if cell.device == "cuda" and not gpus:
            raise UserError("device=cuda: give each job a GPU: hydra.launcher.gpus=1")
        if cell.device == "cpu" and gpus:
            raise UserError(
                f"hydra.launcher.gpus={gpus}: these runs would train on a CPU; add device=cuda "
                "(device=auto goes by the machine that the command is given on)"
            )


def train_on_devices(cells: Sequence[Cell], devices: int, train: Train) -> dict[str, str]:
    """Train the runs in `devices` processes. Returns the runs that failed: id -> reason.

    train: what each process does with its share; a function of a module, for it is sent by name. Raises Interrupted if
    a signal stopped it, UserError or RuntimeError if a process was refused or ended.
    """
    context = multiprocessing.get_context("spawn")  # a forked CUDA context does not work
    events = context.Queue()
    groups = together(cells)
    shares = [[cell for group in groups[k::devices] for cell in group] for k in range(min(devices, len(groups)))]
    # The same number of threads in each: on a CPU it decides the bits of a sum.
    threads = torch.get_num_threads()
    workers = [
        context.Process(target=_work, args=(train, share, k, threads, events), name=f"device {k}", daemon=True)
        for k, share in enumerate(shares)
    ]
    with SweepView(len(cells), processes=len(shares)) as view:
        for worker in workers:
            worker.start()
        errors, stopped = _follow(workers, events, view)
        for worker in workers:
            worker.join()
            worker.close()
        events.close()
    if stopped is not None:
        raise stopped
    return errors


def _follow(
    workers: Sequence[SpawnProcess], events: Queue, view: SweepView
) -> tuple[dict[str, str], Interrupted | None]:
    """Show what the processes report until all have ended. Returns which runs failed, and the signal that stopped them.

    Raises UserError or RuntimeError if a process was refused or ended.
    """
    errors: dict[str, str] = {}
    stopped: Interrupted | None = None
    running = set(range(len(workers)))
    while running:
        try:
            event, *rest = events.get(timeout=1.0)
        except Empty:
            for k in [k for k in running if not workers[k].is_alive() and events.empty()]:
                if stopped is not None:  # the signal ended it before it could say so, as while it was starting
                    running.discard(k)
                    continue
                _terminate(workers)
                raise RuntimeError(f"the process of device {k} ended with status {workers[k].exitcode}") from None
            continue
        except Interrupted as stop:  # children of a terminal got Ctrl-C themselves; a second request changes nothing
            if stopped is None:
                stopped = stop
                _terminate(workers)
            continue
        if event == "finished":
            k, failed = rest
            running.discard(k)
            errors |= failed
        elif event == "interrupted":
            k, signum = rest
            running.discard(k)
            stopped = stopped or Interrupted(signum)
        elif event == "refused":
            _terminate(workers)
            raise UserError(rest[0])
        elif event == "broken":
            _terminate(workers)
            raise RuntimeError(f"device {rest[0]}: {rest[1]}")
        else:
            counted, timed = rest
            view.report(event, *counted, **timed)
    return errors, stopped


def _terminate(workers: Sequence[SpawnProcess]) -> None:
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)


def _stop_with_parent() -> None:
    """A first process that was killed stops its workers: the same command, given again, must not meet them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _work(train: Train, cells: list[Cell], index: int, threads: int, events: Queue) -> None:
    Thread(target=_stop_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"device {index}: %(message)s")
    torch.set_num_threads(threads)
    if cells[0].device == "cuda":
        torch.cuda.set_device(index)

    def report(event: str, *counted: Any, **timed: Any) -> None:
        events.put((event, counted, timed))

    try:
        events.put(("finished", index, train(cells, report)))
    except Interrupted as stop:
        events.put(("interrupted", index, stop.signum))
    except UserError as error:
        events.put(("refused", str(error)))
    except BaseException as error:
        if (refused := refusal(error)) is not None:
            events.put(("refused", refused))
            return
        events.put(("broken", index, f"{type(error).__name__}: {error}"))
        raise
