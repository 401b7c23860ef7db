"""The commands as functions, for notebooks: pg.train and pg.task take what the command line takes."""

from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from promptgeo import engine
from promptgeo.compose import compose
from promptgeo.schema import RunConfig
from promptgeo.errors import RunFailed
from promptgeo.plan import load_task
from promptgeo.runs import Run
from promptgeo.tasks import Task


def train(*overrides: str, **choices: Any) -> Run:
    """Train one run by the same path as the command, or read it if it is complete.

    choices: task="country_capital", init="cat", seed=0, ...; a key with dots as {"training.epochs": 5} (`**` it in) or as an
    override, "training.epochs=5". Raises UserError for whatever the user must mend, RunFailed where training failed.
    """
    (outcome,) = engine.train_all([_config(overrides, choices)])
    if outcome.error is not None:
        raise RunFailed(outcome.error)
    return outcome.run


def task(name: str, *overrides: str, **choices: Any) -> Task:
    """A task's examples, split and written in a template (template=..., default input_label)."""
    return load_task(_config(overrides, {"task": name, **choices}))


def _config(overrides: tuple[str, ...], choices: dict[str, Any]) -> RunConfig:
    return compose([*(f"{key}={_literal(value)}" for key, value in choices.items()), *overrides])


def _literal(value: Any) -> str:
    """A Python value as Hydra's override grammar writes it; texts are quoted, so that "null" or "1e3" stay texts."""
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_literal, value))}]"
    return "null" if value is None else str(value)
