"""The commands as functions, for notebooks: pg.train, pg.task and pg.analyze take what the command line takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.config.compose import assignment, compose, literal
from promptgeo.config.paths import own_choices
from promptgeo.config.schema import RunConfig
from promptgeo.config.validate import validate
from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import RunFailed, UserError
from promptgeo.model.chat import with_turns_written_out
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cell_of
from promptgeo.training.engine import train_all

if TYPE_CHECKING:
    from promptgeo.analysis.ask import Answer


def train(*overrides: str, config_dir: str | Path | None = None, **choices: Any) -> Run:
    """Train one run, or read it if it is complete.

    It takes what `python -m promptgeo.train` takes and writes the same folder. A finished run is read, not trained
    again; overwrite=True trains it again.

        run = pg.train(task="country_capital", init="cat", seed=0)
        run = pg.train("training.epochs=5", task="plus_one")

    Args:
        overrides: texts as on the command line: "training.epochs=5", "model=gpt2".
        config_dir: a folder of your own with task/<name>.yaml, init/<name>.yaml, ...
        choices: the same as keyword arguments: task="country_capital", seed=0. A key with dots is written as an
            override, or passed as `**{"training.epochs": 5}`.

    Returns the run, as it lies in its folder.
    Raises UserError for whatever the user must mend, before anything is written; promptgeo.errors.RunFailed where
    training failed.
    """
    (outcome,) = train_all([cell_of(_config(overrides, choices, config_dir))])
    if outcome.error is not None or outcome.run is None:
        raise RunFailed(outcome.error)
    return outcome.run


def task(name: str, *overrides: str, config_dir: str | Path | None = None, **choices: Any) -> Task:
    """Load a task: its examples, split into train, validation and test, and the template they are written in.

        task = pg.task("country_capital")
        task = pg.task("custom", "task.source.path=my.csv", template="study3")

    Args:
        name: a task of conf/task/, or of your own folder.
        overrides: texts as on the command line: "task.split.seed=1".
        config_dir: a folder of your own with task/<name>.yaml, template/<name>.yaml.
        choices: the same as keyword arguments: template="study3" (default: input_label).

    Returns the task; `train`, `validation` and `test` are lists of examples.
    Raises UserError for a wrong key, and for data that cannot be read.
    """
    config = _config(overrides, {"task": name, **choices}, config_dir)
    validate(config)
    return load_task(config.task, with_turns_written_out(config.template, config.model))


def analyze(*overrides: str, config_dir: str | Path | None = None, **choices: Any) -> "list[Answer]":
    """Analyse finished runs and store the results, as `python -m promptgeo.analyze` does.

        answers = pg.analyze(runs="outputs/quickstart", analysis=["curves", "neighbours"])
        answers[0].stored.numbers       # a pandas table, one row per number

    Args:
        overrides: texts as on the command line: "analysis.neighbours.seed=1" sets an option of an analysis.
        config_dir: a folder of your own with analysis/<name>.yaml, and the modules that these name.
        choices: the keys of the command as keyword arguments: runs="outputs/quickstart", analysis=["neighbours"],
            of="delta", ...

    Returns one Answer per analysis, in order. `stored` holds its numbers, tables, figures and findings. Where these
    runs cannot support an analysis, or it failed, `stored` is None and `refused` is the reason.
    Raises UserError for a wrong key, an unknown analysis or option, and runs that cannot be read.
    """
    from promptgeo.analysis.ask import run_analyses
    from promptgeo.config.compose_analyze import compose_analyze

    if "runs" in choices and not isinstance(choices["runs"], str | Path | list | tuple):
        raise UserError(
            f"runs: a folder of runs is needed, or several, not a {type(choices['runs']).__name__}; prompts trained "
            "elsewhere become a folder with promptgeo-runs import, or are given to an analysis's own function"
        )
    written = [f"{key}={literal(_without_paths(value))}" for key, value in choices.items()]
    answers, _ = run_analyses(compose_analyze([*written, *overrides], config_dir), config_dir=config_dir)
    return answers


def _without_paths(value: Any) -> Any:
    """Paths, also those of a list, as texts."""
    if isinstance(value, list | tuple):
        return [str(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _config(overrides: tuple[str, ...], choices: dict[str, Any], config_dir: str | Path | None = None) -> RunConfig:
    chosen = [assignment(key, value) for key, value in choices.items()]
    return compose([*chosen, *overrides, *own_choices(config_dir)])
