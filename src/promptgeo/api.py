"""The commands as functions, for notebooks: pg.train, pg.task and pg.analyze take what the command line takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.config.compose import compose, literal
from promptgeo.config.schema import RunConfig
from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import RunFailed
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cell_of
from promptgeo.training.engine import train_all

if TYPE_CHECKING:
    from promptgeo.analysis.ask import Answer


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


def analyze(*overrides: str, config_dir: str | Path | None = None, **choices: Any) -> "list[Answer]":
    """Make the analyses that are named and store their results, as the command does; one Answer for each, in order.

    choices: runs="outputs/init_vs_task", analysis=["neighbours"], of="delta", ...; an option of an analysis as an
    override, "analysis.neighbours.seed=1". config_dir: a folder with an analysis/<name>.yaml of your own. Raises
    UserError for a wrong key, an unknown analysis or runs that cannot be read. An analysis that these runs cannot
    support is returned with the reason.
    """
    from promptgeo.analysis.ask import run_analyses
    from promptgeo.config.compose_analyze import compose_analyze

    written = [f"{key}={literal(_without_paths(value))}" for key, value in choices.items()]
    answers, _ = run_analyses(compose_analyze([*written, *overrides], config_dir))
    return answers


def _without_paths(value: Any) -> Any:
    """Paths, also those of a list, as texts."""
    if isinstance(value, list | tuple):
        return [str(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _config(overrides: tuple[str, ...], choices: dict[str, Any]) -> RunConfig:
    return compose([*(f"{key}={literal(value)}" for key, value in choices.items()), *overrides])
