"""The commands as functions, for notebooks: pg.train and pg.task take what the command line takes."""

from typing import Any

from promptgeo.cell import cell_of
from promptgeo.compose import compose, literal
from promptgeo.engine import train_all
from promptgeo.errors import RunFailed
from promptgeo.run_folder import Run
from promptgeo.schema import RunConfig
from promptgeo.tasks import Task, load_task


def train(*overrides: str, **choices: Any) -> Run:
    """Train one run by the same path as the command, or read it if it is complete.

    choices: task="country_capital", init="cat", seed=0, ...; a key with dots as {"training.epochs": 5} (`**` it in) or
    as an override, "training.epochs=5". Raises UserError for whatever the user must mend, RunFailed where training
    failed.
    """
    (outcome,) = train_all([cell_of(_config(overrides, choices))])
    if outcome.error is not None or outcome.run is None:
        raise RunFailed(outcome.error)
    return outcome.run


def task(name: str, *overrides: str, **choices: Any) -> Task:
    """A task's examples, split and written in a template (template=..., default input_label)."""
    config = _config(overrides, {"task": name, **choices})
    return load_task(config.task, config.template)


def _config(overrides: tuple[str, ...], choices: dict[str, Any]) -> RunConfig:
    return compose([*(f"{key}={literal(value)}" for key, value in choices.items()), *overrides])
