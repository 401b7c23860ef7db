"""Loggers, one run each: W&B and TensorBoard follow what metrics.csv records anyway."""

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from promptgeo.schema import RunConfig, loggers, to_dict
from promptgeo.errors import UserError
from promptgeo.run_state import RunState, Watcher
from promptgeo.runs import METRICS, Trained

log = logging.getLogger(__name__)


def check_loggers(config: RunConfig) -> None:
    """Raises UserError for a logger whose package is missing."""
    if "tensorboard" in loggers(config) and importlib.util.find_spec("tensorboard") is None:
        raise UserError("logger=tensorboard: needs its package: pip install tensorboard")


class RunLoggers(Watcher):
    """Each run's loggers, opened with the run and finished with it, also where it fails or training stops.

    A logger that fails is left out from there on, with a warning: it must not cost the run that it follows.
    """

    def __init__(self) -> None:
        self.open: dict[str, list[_Wandb | _TensorBoard]] = {}
        self.logged: dict[str, int] = {}

    def started(self, state: RunState) -> None:
        run = self.open[state.plan.id] = []
        self.logged[state.plan.id] = 0
        for kind in loggers(state.plan.config):
            with _warned(f"logger={kind}"):
                run.append(KINDS[kind](state))

    def stepped(self, state: RunState) -> None:
        """Log the rows of metrics.csv that are new; a resumed run logs them from its first."""
        new = state.metrics[self.logged[state.plan.id] :]
        self.logged[state.plan.id] += len(new)
        for logger in list(self.open[state.plan.id]) if new else ():
            with _warned(type(logger).__name__, lambda logger=logger: self.open[state.plan.id].remove(logger)):
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
            with _warned(type(logger).__name__):
                logger.finish(trained)

    def closed(self) -> None:
        for running in self.open.values():
            for logger in running:
                with _warned(type(logger).__name__):
                    logger.finish(None)
        self.open.clear()


@contextmanager
def _warned(what: str, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning("%s: left out from here on: %s", what.strip("_"), " ".join(f"{type(error).__name__}: {error}".split()))
        then()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row of metrics.csv: train/loss, test/accuracy, ...; what the row leaves empty is left out."""
    return {f"{row['split']}/{name}": row[name] for name in METRICS if name not in ("step", "epoch", "split") and row[name] is not None}


class _Wandb:
    """One W&B run per run: deterministic id, grouped by the sweep's name."""

    def __init__(self, state: RunState):
        import wandb

        plan, config = state.plan, state.plan.config
        folder = plan.folder.parent
        folder.mkdir(parents=True, exist_ok=True)
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
            mode=_mode(config),
            resume="allow" if _mode(config) == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True, disable_code=True, save_code=False),
        )
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    def row(self, row: dict[str, Any]) -> None:
        self.run.log({"step": row["step"], "epoch": row["epoch"]} | _scalars(row))

    def finish(self, trained: Trained | None) -> None:
        """trained: None where training stopped before the run was over."""
        import wandb

        if trained is not None:
            self.run.summary.update({"status": trained.status, **{k: v for k, v in trained.results.items()}})
            file = self.plan.folder / "prompts.safetensors"
            if file.is_file():
                artifact = wandb.Artifact(f"prompt-{self.plan.folder.name}", type="soft-prompt", metadata={"id": self.plan.id})
                artifact.add_file(str(file))
                self.run.log_artifact(artifact)
        self.run.finish(exit_code=0 if trained is not None and trained.status in ("completed", "diverged") else 1)


_said_offline = False


def _mode(config: RunConfig) -> str:
    """wandb.mode, or WANDB_MODE, or online where there is a key and offline, which is said once, where there is none."""
    global _said_offline
    if mode := config.wandb.mode or os.environ.get("WANDB_MODE"):
        return mode
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb.setup().settings
    if settings.api_key or read_netrc_auth(host=settings.base_url):
        return "online"
    if not _said_offline:
        log.warning("logger=wandb: no API key here, so runs are logged offline below outputs/%s/wandb (`wandb sync` sends them; `wandb login` stores a key)", config.name)
        _said_offline = True
    return "offline"


class _TensorBoard:
    """One TensorBoard folder per run, side by side below outputs/<name>/tensorboard/."""

    def __init__(self, state: RunState):
        from torch.utils.tensorboard import SummaryWriter

        folder = state.plan.folder
        self.writer = SummaryWriter(str(folder.parent / "tensorboard" / folder.name), purge_step=0)  # a resumed run logs all again

    def row(self, row: dict[str, Any]) -> None:
        for name, value in _scalars(row).items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, row["step"])

    def finish(self, trained: Trained | None) -> None:
        self.writer.close()


KINDS = {"wandb": _Wandb, "tensorboard": _TensorBoard}
