"""Loggers, one per run: W&B and TensorBoard follow what metrics.csv records anyway, and show how the run ended.

A new logger: its name in schema.Logger, a class here, and the class in LOGGERS.
"""

import glob
import importlib.util
import logging
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from promptgeo.config.schema import RunConfig, loggers, to_dict
from promptgeo.errors import UserError
from promptgeo.runs import wandb_run
from promptgeo.runs.folder import METRICS_COLUMNS, Trained
from promptgeo.training.callbacks import Callback
from promptgeo.training.ended import Ended
from promptgeo.training.run_state import RunState

log = logging.getLogger(__name__)


class Logger(ABC):
    """Follows one run."""

    name: ClassVar[str]
    """As in logger=<name>."""
    package: ClassVar[str]
    """What must be installed."""

    @abstractmethod
    def __init__(self, state: RunState): ...

    @abstractmethod
    def row(self, row: dict[str, Any]) -> None:
        """A row of metrics.csv."""

    @abstractmethod
    def finish(self, ended: Ended | None) -> None:
        """ended: None where training stopped before the run ended."""

    @classmethod  # noqa: B027 - a logger may have nothing to say of all runs
    def together(cls, folder: Path) -> None:
        """What is shown of all runs of a folder, outputs/<name>, once a command has trained some of them."""


class Wandb(Logger):
    """One W&B run per run: deterministic id, grouped by the sweep's name, called by the keys that the sweep varies."""

    name, package = "wandb", "wandb"

    def __init__(self, state: RunState):
        plan, config = state.plan, state.plan.config
        self.plan = plan
        self.run = wandb_run.opened(
            config.wandb,
            plan.folder.parent,
            id=plan.id[:16],
            name=plan.cell.title or plan.folder.name,
            group=config.name,
            job_type="train",
            tags=[config.model.name, config.task.name, config.init.name],
            config=to_dict(config) | {"seeds": plan.seeds},
        )

    def row(self, row: dict[str, Any]) -> None:
        self.run.log({"step": row["step"], "epoch": row["epoch"]} | _scalars(row))

    def finish(self, ended: Ended | None) -> None:
        finished = ended is not None and ended.trained.status in ("completed", "diverged", "stopped")
        try:
            if ended is not None:
                self._show(ended)
        finally:
            wandb_run.closed(self.run, 0 if finished else 1)

    def _show(self, ended: Ended) -> None:
        """Summary, tables, chart and prompt."""
        import wandb

        trained = ended.trained
        error = {} if ended.error is None else {"error": ended.error}
        self.run.summary.update({"status": trained.status, **error, **wandb_run.flat_numbers(trained.results)})
        file = self.plan.folder / "prompts.safetensors"
        if file.is_file():
            artifact = wandb.Artifact(
                f"prompt-{self.plan.folder.name}", type="soft-prompt", metadata={"id": self.plan.id}
            )
            # Else W&B copies it to the home folder, and writes down where.
            artifact.add_file(str(file), policy="immutable")
            self.run.log_artifact(artifact)
        tables = {"nearest_tokens": ended.nearest_table()}
        if trained.predictions:
            tables["predictions"] = ended.predictions
        shown = {key: wandb_run.table(self.run, key, made.columns, made.rows) for key, made in tables.items()}
        if (cells := ended.confusion_table()) is not None:
            key = "confusion_matrix"
            shown[key] = wandb_run.confusion_chart(self.run, key, cells.columns, cells.rows)
        self.run.log({"step": trained.results["steps"], **shown})


class TensorBoard(Logger):
    """One TensorBoard folder per run, side by side below outputs/<name>/tensorboard/."""

    name, package = "tensorboard", "tensorboard"

    def __init__(self, state: RunState):
        from torch.utils.tensorboard import SummaryWriter

        folder = state.plan.folder
        self.folder = folder.parent / "tensorboard" / folder.name
        # purge_step: a resumed run logs everything again.
        self.writer = SummaryWriter(str(self.folder), purge_step=0)

    def row(self, row: dict[str, Any]) -> None:
        for name, value in _scalars(row).items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, row["step"])

    def finish(self, ended: Ended | None) -> None:
        """The run's figures, and its prompt tokens as points of TensorBoard's projector."""
        from promptgeo.training import pictures, projector

        try:
            if ended is not None:
                for name, draw in pictures.FIGURES.items():
                    with draw(ended) as figure:
                        if figure is not None:
                            self.writer.add_figure(name, figure, ended.trained.results["steps"], close=False)
                projector.write_of_run(self.folder, ended)
        finally:
            self.writer.close()
            host = f".{socket.gethostname()}."
            for file in self.folder.glob(f"*{glob.escape(host)}*"):
                file.rename(self.folder / file.name.replace(host, ".", 1))  # TensorBoard would have it in the name

    @classmethod
    def together(cls, folder: Path) -> None:
        """The prompt tokens of all runs, as points of one projector."""
        from promptgeo.training import projector

        projector.write_of_all(folder / "tensorboard")


LOGGERS: list[type[Logger]] = [TensorBoard, Wandb]


def _chosen(config: RunConfig) -> list[type[Logger]]:
    by_name = {logger.name: logger for logger in LOGGERS}
    return [by_name[name] for name in loggers(config)]


def check_loggers(config: RunConfig) -> None:
    """Raises UserError for a logger whose package is missing."""
    for logger in _chosen(config):
        if importlib.util.find_spec(logger.package) is None:
            raise UserError(f"logger={logger.name}: needs its package: pip install {logger.package}")


def show_together(config: RunConfig, folder: Path) -> None:
    """What the loggers of a command show of all runs of its folder, outputs/<name>."""
    for kind in _chosen(config):
        with _warned(kind.name):
            kind.together(folder)


class RunLoggers(Callback):
    """Each run's loggers, opened with the run and finished with it, also where it fails or training stops.

    A logger that fails is left out from there on, with a warning: it must not cost the run that it follows.
    """

    def __init__(self) -> None:
        self.open: dict[str, list[Logger]] = {}
        self.logged: dict[str, int] = {}
        """Rows of metrics.csv that each run's loggers have."""

    def started(self, state: RunState) -> None:
        run = self.open[state.plan.id] = []
        self.logged[state.plan.id] = 0
        for kind in _chosen(state.plan.config):
            with _warned(kind.name):
                run.append(kind(state))

    def stepped(self, state: RunState) -> None:
        """Log the rows of metrics.csv that are new; a resumed run logs them from its first."""
        new = state.metrics[self.logged[state.plan.id] :]
        self.logged[state.plan.id] += len(new)
        run = self.open[state.plan.id]
        for logger in list(run) if new else ():
            with _warned(logger.name, partial(run.remove, logger)):
                for row in new:
                    logger.row(row)

    def ended(self, state: RunState, trained: Trained) -> None:
        self._finish(state, Ended(state.plan, trained))

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        self._finish(state, Ended(state.plan, trained, type(error).__name__))

    def _finish(self, state: RunState, ended: Ended) -> None:
        if state.plan.id not in self.open:
            return
        self.stepped(state)
        for logger in self.open.pop(state.plan.id):
            with _warned(logger.name):
                logger.finish(ended)

    def closed(self) -> None:
        for running in self.open.values():
            for logger in running:
                with _warned(logger.name):
                    logger.finish(None)
        self.open.clear()


@contextmanager
def _warned(name: str, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("logger=%s: left out from here on: %s", name, reason)
        then()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row of metrics.csv: train/loss, test/accuracy, ...; what the row leaves empty is left out."""
    names = [name for name in METRICS_COLUMNS if name not in ("step", "epoch", "split") and row[name] is not None]
    return {f"{row['split']}/{name}": row[name] for name in names}
