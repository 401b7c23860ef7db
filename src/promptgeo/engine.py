"""The one training path, from configs to run folders: which runs share a pack, and what keeps each of them."""

import itertools
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from promptgeo.schema import RunConfig
from promptgeo.coupling import check_complete, group_of, is_coupled, partners
from promptgeo.errors import UserError
from promptgeo.interruption import Interrupted, StopRequest, interruptible
from promptgeo.memory import keep_freed_memory
from promptgeo.plan import Plan, folder_of, model_key, plan, run_identity
from promptgeo.progress import Reporter, SweepView, Tell
from promptgeo.run_state import RunState, Watcher, discard_state, saved_step
from promptgeo.runs import DamagedRun, Run, Trained, write_run

if TYPE_CHECKING:
    from promptgeo.tuning import PromptTuning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run of a command ended."""

    folder: Path
    run: Run | None
    """None: it failed because nothing of it could be written."""
    error: str | None = None
    """Why it failed."""
    skipped: bool = False
    """It was complete already."""


def train_all(configs: Sequence[RunConfig]) -> list[Outcome]:
    """Train every run that is not complete yet, packed; one outcome per config, in order (equal configs are one run).

    Raises UserError where a config is wrong, Interrupted where Ctrl-C or SIGTERM stopped training.
    """
    ids = [run_identity(config) for config in configs]
    distinct = dict(zip(ids, configs, strict=True))
    check_complete(list(distinct.values()))
    finished = {i: run for i, config in distinct.items() if (run := finished_run(config, i)) is not None}
    skipped = {i: run for i, run in finished.items() if all(partner in finished for partner in map(run_identity, partners(distinct[i])))}
    todo = {i: config for i, config in distinct.items() if i not in skipped}
    if skipped:
        log.info("%d of %d runs are complete already: skipped (overwrite=true trains again)", len(skipped), len(distinct))
    errors = _train(todo) if todo else {}
    outcomes = {i: Outcome(run.folder, run, skipped=True) for i, run in skipped.items()}
    for i, config in todo.items():
        folder = folder_of(config, i)
        outcomes[i] = Outcome(folder, _written(folder) if i in errors else Run.load(folder), errors.get(i))
    return [outcomes[i] for i in ids]


def _written(folder: Path) -> Run | None:
    """What a failed run left; None where nothing of it could be written."""
    try:
        return Run.load(folder)
    except UserError:
        return None


def _train(todo: dict[str, RunConfig]) -> dict[str, str]:
    """Train the runs, by their id, here or in several processes. Returns those that failed: id -> reason."""
    configs = list(todo.values())
    if configs[0].packing.devices > 1 and len(configs) > 1:
        from promptgeo.devices import train_on_devices

        return train_on_devices(configs, configs[0].packing.devices)
    with SweepView(len(configs), folder_of(configs[0], next(iter(todo))).name) as view:
        return train_configs(configs, view.tell)


_outcomes: dict[str, Outcome] = {}


@contextmanager
def trained_ahead(configs: Sequence[RunConfig]) -> Iterator[None]:
    """Train all runs of a grid now; within, outcome_of knows how each ended."""
    _outcomes.update((run_identity(c), outcome) for c, outcome in zip(configs, train_all(configs), strict=True))
    try:
        yield
    finally:
        _outcomes.clear()


def outcome_of(config: RunConfig) -> Outcome:
    """How this run ended, if it was trained ahead; else it is trained now."""
    ahead = _outcomes.get(run_identity(config))
    return ahead if ahead is not None else train_all([config])[0]


def finished_run(config: RunConfig, run_id: str) -> Run | None:
    """The run's folder, if it is over (completed, diverged), undamaged and to be kept."""
    folder = folder_of(config, run_id)
    if config.overwrite or not (folder / "run.json").exists():
        return None
    try:
        run = Run.load(folder)
    except DamagedRun as error:
        raise UserError(f"{error}; nothing was overwritten: overwrite=true trains this run again") from error
    if run.id != run_id or run.status not in ("completed", "diverged"):
        return None
    discard_state(folder)  # a process that was killed after its last file may have left it
    return run


def train_configs(configs: Sequence[RunConfig], tell: Tell) -> dict[str, str]:
    """Train runs model by model, pack by pack, and tell how it goes. Returns the runs that failed: id -> reason."""
    errors: dict[str, str] = {}
    for _, same_model in itertools.groupby(sorted(configs, key=model_key), key=model_key):
        plans = [plan(config) for config in same_model]
        tell("planned", sum(p.total_steps for p in plans))
        with _held([p.folder for p in plans]):
            for pack in packs(plans):
                errors |= train_pack(pack, tell=tell)
    return errors


@contextmanager
def _held(folders: Sequence[Path]) -> Iterator[None]:
    """Within, no other process trains these runs. Raises UserError where one does."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with ExitStack() as held:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(folder, os.O_RDONLY)
            except OSError:
                break  # more runs than a process may have files open
            held.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{folder}: another process is training this run; the same command, once that is done, goes on from there") from error
            except OSError as error:
                log.debug("%s: cannot be locked: %s", folder, error)  # some network file systems
        yield


def packs(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Runs of one model that train together: one prompt length, batch size and optimiser; a run with dropout trains alone, coupled runs apart.

    Task, template, init, seed, learning rate, schedule and epochs may differ within a pack.
    """
    together: dict[tuple, list[Plan]] = {}
    for p in plans:
        training = p.config.training
        apart = p.id if training.dropout else group_of(p.config)
        key = (len(p.p0_Pd), training.batch_size, p.config.optimizer.name.name, apart)
        together.setdefault(key, []).append(p)
    alone = sum(p.config.training.dropout for p in plans)
    if alone and len(plans) > 1:
        log.info("%d runs train alone: training.dropout=true draws from one generator, which a pack cannot share", alone)
    return list(together.values())


def default_slots(pack: Sequence[Plan]) -> int:
    """How many runs to train at once: packing.max_runs, else what the device's free memory holds.

    On a CPU a forward holds no more than FrozenLM.max_tokens, so memory holds any number of runs; a few at a time are done earlier.
    """
    first = pack[0]
    if is_coupled(first.config):
        return len(pack)
    if first.config.packing.max_runs is not None:
        return first.config.packing.max_runs
    if first.lm.device.type == "cpu":
        most = CPU_SLOTS
    else:
        most = max(int(0.8 * torch.cuda.mem_get_info()[0] / memory_per_run(first)), 1)
    waves = -(-len(pack) // most)
    return -(-len(pack) // waves)  # the last runs are not left to a pack of a few


CPU_SLOTS = 48


def memory_per_run(p: Plan) -> int:
    """Bytes of activations that a run's minibatch holds until its backward: an estimate meant to be high, not measured. 34 numbers of
    the model's width per position and layer, and three fp32 numbers of the vocabulary's size, with the logits, per label position."""
    config = p.lm.model.config.get_text_config()
    longest = sorted((row.length for row in p.train_rows), reverse=True)[: p.config.training.batch_size]
    labels = sorted((len(row.label) for row in p.train_rows), reverse=True)[: p.config.training.batch_size]
    element = p.lm.dtype.itemsize
    return sum(longest) * config.num_hidden_layers * 34 * config.hidden_size * element + sum(labels) * config.vocab_size * (3 * 4 + element)


def _nobody(what: str, steps: int = 0, text: str = "") -> None:
    """No one looks on."""


def train_pack(plans: list[Plan], slots: int | None = None, *, tell: Tell = _nobody) -> dict[str, str]:
    """Train runs that share a frozen model and a prompt length, in at most `slots` slots; writes each folder as its run ends.

    Returns the runs that failed: id -> reason. Raises Interrupted where a signal stopped it.
    """
    import lightning as L
    from lightning.pytorch.plugins.environments import LightningEnvironment

    from promptgeo.loggers import RunLoggers
    from promptgeo.tuning import PromptTuning

    if plans[0].lm.device.type == "cpu":
        keep_freed_memory()
    elif plans[0].config.packing.compile:
        plans[0].lm.compile()
    if is_coupled(plans[0].config):
        slots = len(plans)
        if len({saved_step(p) for p in plans}) > 1:  # killed while they were saved: none can go on without the others
            for p in plans:
                discard_state(p.folder)
    recorder, keeper = Recorder(), Keeper()
    watchers = [recorder, RunLoggers(), Reporter(tell), keeper]
    with warnings.catch_warnings(), interruptible():
        # The loader is a counter and the metrics are ours: what Lightning would advise here does not apply.
        warnings.filterwarnings("ignore", module="lightning")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = L.Trainer(
            accelerator="gpu" if plans[0].lm.device.type == "cuda" else "cpu",
            devices=[plans[0].lm.device.index or 0] if plans[0].lm.device.type == "cuda" else 1,
            plugins=LightningEnvironment(),  # one process, also inside a Slurm job
            precision="32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(PromptTuning(plans, slots or default_slots(plans), watchers))
        finally:
            for watcher in watchers:
                watcher.closed()
    if keeper.stop.signum is not None:
        raise Interrupted(keeper.stop.signum)
    return recorder.errors


class Recorder(Watcher):
    """Writes each run's folder when the run is over."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}

    def ended(self, state: RunState, trained: Trained) -> None:
        write_run(state.plan.folder, state.plan.header(), trained)
        discard_state(state.plan.folder)

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.errors[state.plan.id] = reason
        log.error("%s failed: %s", state.plan.folder.name, reason)
        log.debug("", exc_info=error)
        try:
            write_run(state.plan.folder, state.plan.header() | {"error": reason}, trained)
        except OSError as again:
            log.error("%s: cannot be written: %s", state.plan.folder, again)


class Keeper(Watcher):
    """Saves what resuming needs now and then, and stops after the tick in which a signal came."""

    SECONDS = 2.0
    SHARE = 0.02
    """Of the time, at most, is spent on saving."""

    def __init__(self) -> None:
        self.stop = StopRequest()
        self._warn_once = cache(log.warning)  # of a full disk it hears every few seconds

    def begun(self, tuning: "PromptTuning") -> None:
        self.tuning = tuning
        self.next = time.monotonic() + self.SECONDS
        self.stop.listen()  # now: Lightning set a handler of its own when it started

    def ticked(self) -> bool:
        now = time.monotonic()
        if self.stop.signum is not None or now >= self.next:
            try:
                self.tuning.save()
            except OSError as error:
                self._warn_once(f"what resuming needs cannot be saved ({error}): training goes on; a stopped sweep would go on from what was saved before")
            spent = time.monotonic() - now
            self.next = now + max(self.SECONDS, spent / self.SHARE)
        return self.stop.signum is not None
