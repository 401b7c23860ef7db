"""Loggers, one per run: W&B and TensorBoard follow what metrics.csv records anyway.

A new logger: its name in schema.Logger, a class here, and the class in LOGGERS.
"""

import importlib.util
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

from promptgeo.config.schema import RunConfig, loggers, to_dict
from promptgeo.errors import UserError
from promptgeo.runs.folder import METRICS_COLUMNS, Trained
from promptgeo.training.callbacks import Callback
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
    def finish(self, trained: Trained | None) -> None:
        """trained: None where training stopped before the run ended."""


class Wandb(Logger):
    """One W&B run per run: deterministic id, grouped by the sweep's name."""

    name, package = "wandb", "wandb"

    def __init__(self, state: RunState):
        import wandb

        plan, config = state.plan, state.plan.config
        folder = plan.folder.parent
        folder.mkdir(parents=True, exist_ok=True)
        mode = _wandb_mode(config)
        self.plan = plan
        self.run = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            dir=str(folder),
            id=plan.id[:16],
            name=plan.folder.name,
            group=config.name,
            job_type="train",
            tags=[config.model.name, config.task.name, config.init.name],
            config=to_dict(config) | {"seeds": plan.seeds},
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                x_disable_stats=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                **unsent(),
            ),
        )
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    def row(self, row: dict[str, Any]) -> None:
        self.run.log({"step": row["step"], "epoch": row["epoch"]} | _scalars(row))

    def finish(self, trained: Trained | None) -> None:
        import wandb

        if trained is not None:
            self.run.summary.update({"status": trained.status, **trained.results})
            file = self.plan.folder / "prompts.safetensors"
            if file.is_file():
                name = f"prompt-{self.plan.folder.name}"
                artifact = wandb.Artifact(name, type="soft-prompt", metadata={"id": self.plan.id})
                # Else W&B copies it to the home folder, and writes down where.
                artifact.add_file(str(file), policy="immutable")
                self.run.log_artifact(artifact)
        finished = trained is not None and trained.status in ("completed", "diverged")
        self.run.finish(exit_code=0 if finished else 1)
        core_log = Path(self.run.settings.log_dir, "debug-core.log")
        if core_log.is_symlink():  # to a place in the home folder
            core_log.unlink()


def unsent() -> dict[str, Any]:
    """W&B's settings under which it is not told of host, interpreter and command line.

    Those that the environment has (WANDB_X_DISABLE_META=false, ...) are left to it.
    """
    settings = {"x_disable_meta": True, "x_disable_machine_info": True, "host": ""}
    return {name: value for name, value in settings.items() if f"WANDB_{name.upper()}" not in os.environ}


def _wandb_mode(config: RunConfig) -> str:
    """wandb.mode, or WANDB_MODE, or online where there is a key; offline where there is none, with a warning."""
    if mode := config.wandb.mode or os.environ.get("WANDB_MODE"):
        return mode
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb.setup().settings
    if settings.api_key or read_netrc_auth(host=settings.base_url):
        return "online"
    _warn_once(
        "logger=wandb: no API key here, so runs are logged offline below "
        f"{config.outputs}/{config.name}/wandb (`wandb sync` sends them; `wandb login` stores a key)"
    )
    return "offline"


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


class TensorBoard(Logger):
    """One TensorBoard folder per run, side by side below outputs/<name>/tensorboard/."""

    name, package = "tensorboard", "tensorboard"

    def __init__(self, state: RunState):
        from torch.utils.tensorboard import SummaryWriter

        folder = state.plan.folder
        # purge_step: a resumed run logs everything again.
        self.writer = SummaryWriter(str(folder.parent / "tensorboard" / folder.name), purge_step=0)

    def row(self, row: dict[str, Any]) -> None:
        for name, value in _scalars(row).items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, row["step"])

    def finish(self, trained: Trained | None) -> None:
        self.writer.close()


LOGGERS: list[type[Logger]] = [TensorBoard, Wandb]


def _chosen(config: RunConfig) -> list[type[Logger]]:
    by_name = {logger.name: logger for logger in LOGGERS}
    return [by_name[name] for name in loggers(config)]


def check_loggers(config: RunConfig) -> None:
    """Raises UserError for a logger whose package is missing."""
    for logger in _chosen(config):
        if importlib.util.find_spec(logger.package) is None:
            raise UserError(f"logger={logger.name}: needs its package: pip install {logger.package}")


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
        self._finish(state, trained)

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        self._finish(state, trained)

    def _finish(self, state: RunState, trained: Trained) -> None:
        if state.plan.id not in self.open:
            return
        self.stepped(state)
        for logger in self.open.pop(state.plan.id):
            with _warned(logger.name):
                logger.finish(trained)

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
