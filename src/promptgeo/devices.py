"""packing.devices=N: the runs of a command spread over N processes, one per device.

Each process is a whole promptgeo of its own: it loads the model, trains its share in packs, and tells the first process how it goes.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.queues import Queue
from queue import Empty
from threading import Thread

import torch

from promptgeo.schema import RunConfig
from promptgeo.coupling import together
from promptgeo.errors import UserError
from promptgeo.interruption import Interrupted
from promptgeo.plan import resolve_device
from promptgeo.progress import SweepView

log = logging.getLogger(__name__)


def check_devices(config: RunConfig) -> None:
    """Raises UserError where fewer devices are there than packing.devices asks for, or where packing.compile would cost the CPU's bits."""
    if config.packing.compile and resolve_device(config.device.name) == "cpu":
        raise UserError("packing.compile=true: is for CUDA; on a CPU a run in a pack would no longer equal the run alone bit by bit")
    if resolve_device(config.device.name) == "cuda" and config.packing.devices > torch.cuda.device_count():
        raise UserError(f"packing.devices={config.packing.devices}: there are {torch.cuda.device_count()} CUDA devices here")


def train_on_devices(configs: Sequence[RunConfig], devices: int) -> dict[str, str]:
    """Train the runs in `devices` processes. Returns the runs that failed: id -> reason. Raises Interrupted if a signal stopped it."""
    context = multiprocessing.get_context("spawn")  # a forked CUDA context does not work
    news = context.Queue()
    groups = together(configs)
    shares = [[config for group in groups[k::devices] for config in group] for k in range(min(devices, len(groups)))]
    # The same number of threads in each: on a CPU it decides the bits of a sum.
    workers = [
        context.Process(target=_work, args=(share, k, torch.get_num_threads(), news), name=f"device {k}", daemon=True) for k, share in enumerate(shares)
    ]
    errors: dict[str, str] = {}
    stopped = None
    with SweepView(len(configs), "") as view:
        for worker in workers:
            worker.start()
        running = set(range(len(workers)))
        while running:
            try:
                what, *rest = news.get(timeout=1.0)
            except Empty:
                for k in [k for k in running if not workers[k].is_alive() and news.empty()]:
                    running.discard(k)
                    _terminate(workers)
                    raise RuntimeError(f"the process of device {k} ended with status {workers[k].exitcode}") from None
                continue
            except Interrupted as stop:  # children of a terminal got Ctrl-C themselves; a second request changes nothing
                if stopped is None:
                    stopped = stop
                    _terminate(workers)
                continue
            if what == "over":
                k, failed = rest
                running.discard(k)
                errors |= failed
            elif what == "stopped":
                running.discard(rest[0])
                stopped = stopped or Interrupted(rest[1])
            elif what == "refused":
                _terminate(workers)
                raise UserError(rest[0])
            elif what == "broken":
                _terminate(workers)
                raise RuntimeError(f"device {rest[0]}: {rest[1]}")
            else:
                view.tell(what, *rest)
        for worker in workers:
            worker.join()
            worker.close()
        news.close()
    if stopped is not None:
        raise stopped
    return errors


def _terminate(workers: Sequence[multiprocessing.Process]) -> None:
    for worker in workers:
        if worker.is_alive():
            os.kill(worker.pid, signal.SIGTERM)


def _stop_with_parent() -> None:
    """A first process that was killed stops its workers: the same command, given again, must not meet them."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)


def _work(configs: list[RunConfig], index: int, threads: int, news: Queue) -> None:
    from promptgeo import engine

    Thread(target=_stop_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"device {index}: %(message)s")
    torch.set_num_threads(threads)
    if resolve_device(configs[0].device.name) == "cuda":
        torch.cuda.set_device(index)

    def tell(what: str, steps: int = 0, text: str = "") -> None:
        news.put((what, steps, text))

    try:
        news.put(("over", index, engine.train_configs(configs, tell)))
    except Interrupted as stop:
        news.put(("stopped", index, stop.signum))
    except UserError as error:
        news.put(("refused", str(error)))
    except BaseException as error:
        news.put(("broken", index, f"{type(error).__name__}: {error}"))
        raise
