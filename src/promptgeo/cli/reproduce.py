"""python -m promptgeo.reproduce STUDY [key=value ...]: train a published study's grid, analyse it, write the report.

    python -m promptgeo.reproduce init_vs_task                                  # as published
    python -m promptgeo.reproduce init_vs_task model=tiny training.epochs=10    # offline, on the embedded model
    python -m promptgeo.reproduce init_vs_task model=gpt2 init=cat,dog task=plus_two,present_past

key=value is as in python -m promptgeo.train. The report is outputs/<name>/report.html. Finished runs are skipped and
results of analyses are cached, so the same command goes on where it was stopped.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.cli.completion import complete, words_of
from promptgeo.config.compose_analyze import AnalyzeConfig, analysis_file, available
from promptgeo.config.explain import OneLineParser, entry
from promptgeo.config.terminal import counted, say, show_log, warn
from promptgeo.errors import UserError
from promptgeo.report.study import Study, load_study, studies
from promptgeo.training.interruption import exit_statuses

if TYPE_CHECKING:
    from promptgeo.analysis.ask import Answer
    from promptgeo.training.cell import Cell

TRAINING = "training.json"
"""Beside the report: how long each training took. Run folders hold no clock time."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. arguments: of the command line, by default sys.argv[1:].

    Exit status 2: the user must mend something. 1: a run failed; the report is of the others. 130, 143: stopped by
    Ctrl-C, SIGTERM.
    """
    line = sys.argv[1:] if arguments is None else arguments
    complete(_parser())
    if not line or {"-h", "--help"} & set(line):
        say(_help())
        return
    with exit_statuses():
        status = reproduce(line[0], line[1:])
    sys.exit(status)


def reproduce(name: str, overrides: Sequence[str]) -> int:
    """Train, analyse, report. Returns the exit status: 0, or 1 where runs failed. Raises UserError, Interrupted."""
    from promptgeo.config.compose import compose_grid
    from promptgeo.training.cell import cells_of

    if name.startswith("-") or "=" in name:
        raise UserError(f"{name}: the name of a study comes first, as in promptgeo-reproduce init_vs_task model=tiny")
    study = load_study(name)
    _check(overrides)
    line = [f"sweep={name}", *_tiny(study, overrides), *overrides]
    configs = compose_grid(line)
    settings = _settings(study)
    folder = Path(configs[0].outputs) / configs[0].name
    doing = "what would be trained," if configs[0].preview else "training"
    with _step(f"1/3 {doing} {counted(len(configs), 'run')} of {name}"):
        cells = cells_of(configs)
        status = _train(line, cells, folder)
    if configs[0].preview:
        return status
    analyses = f"{len(study.analyses)} {'analysis' if len(study.analyses) == 1 else 'analyses'}"
    with _step(f"2/3 analysing, {analyses}"):
        answers, left_out = _analyze(study, settings, cells, folder)
    command = " ".join(["python -m promptgeo.reproduce", name, *_shown(overrides)])
    with _step("3/3 the report"):
        page = _report(study, cells, answers, left_out, folder, command)
    say(f"report: {page}")
    return status


def _settings(study: Study) -> dict[str, dict[str, Any]]:
    """Function and options of the study's analyses, those that promptgeo has.

    Raises UserError for an option that is wrong and for a claim that none of them declares: before anything is trained.
    """
    from promptgeo.analysis.target import analysis_of

    settings = {name: analysis_file(name) | study.analyses[name] for name in study.analyses if name in available()}
    declared = [analysis_of(name, own).declared for name, own in settings.items()]
    study.check_claims([claim for question in declared for claim in question.claims])
    return settings


def _check(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.startswith("-") or "=" not in override:
            raise UserError(f"{override}: key=value is needed, as in promptgeo-train (a study is a grid without -m)")
        if override.partition("=")[0] == "sweep":
            raise UserError(f"{override}: the sweep of a study is its own")


def _tiny(study: Study, overrides: Sequence[str]) -> list[str]:
    """What the study sets for the embedded model."""
    return study.tiny if "model=tiny" in overrides else []


def _shown(overrides: Sequence[str]) -> list[str]:
    """The overrides that a report names: all but those that say where it lies."""
    return [o for o in overrides if o.partition("=")[0] not in ("outputs", "overwrite")]


@contextmanager
def _step(what: str) -> Iterator[None]:
    warn(f"promptgeo: {what} ...")
    start = time.perf_counter()
    yield
    warn(f"promptgeo: {what}: {time.perf_counter() - start:.1f} s")


def _train(arguments: Sequence[str], cells: "Sequence[Cell]", folder: Path) -> int:
    """As the command promptgeo-train does. Returns 1 where runs failed."""
    from promptgeo.cli import train as cli_train

    todo = _todo(cells)
    start, handlers = time.perf_counter(), logging.getLogger().handlers[:]
    try:
        status = cli_train.train(arguments)
    finally:
        _close_log_files(handlers)
    if todo and not cells[0].config.preview:
        _note_training(folder, todo, time.perf_counter() - start)
    return status


def _close_log_files(handlers: Sequence[logging.Handler]) -> None:
    """Hydra leaves the last run's log file open: what follows does not belong there."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    show_log()


def _todo(cells: "Sequence[Cell]") -> int:
    """How many runs of the grid are not finished. Damaged ones are training's to refuse."""
    return sum(cell.config.overwrite or not os.path.exists(cell.folder / "run.json") for cell in cells)


def _folders(cells: "Sequence[Cell]") -> list[Path]:
    """Each once."""
    return list(dict.fromkeys(cell.folder for cell in cells))


def _note_training(folder: Path, runs: int, seconds: float) -> None:
    from promptgeo.runs.folder import own_digest, write_atomically

    noted: dict[str, Any] = {"trainings": [*_noted(folder), {"runs": runs, "seconds": round(seconds, 1)}]}
    noted["sha256"] = own_digest(noted)
    write_atomically(folder / TRAINING, (json.dumps(noted) + "\n").encode())


def _noted(folder: Path) -> list[dict[str, Any]]:
    """How long each training took. What is damaged is set aside, which is said: nothing can make it again."""
    from promptgeo.runs.folder import own_digest, read_bounded, set_aside

    path = folder / TRAINING
    try:
        noted = json.loads(read_bounded(path).decode())
        if isinstance(noted, dict) and noted.get("sha256") == own_digest(noted):
            return noted["trainings"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        pass
    warn(f"promptgeo: {path} is damaged: how long training took is not known (kept as {set_aside(path).name})")
    return []


def _analyze(
    study: Study, settings: dict[str, dict[str, Any]], cells: "Sequence[Cell]", folder: Path
) -> "tuple[list[Answer], list[str]]":
    """The study's analyses of the runs of this grid, not of what else lies in the folder; and the runs left out."""
    from promptgeo.analysis.ask import Answer, run_analyses
    from promptgeo.config.schema import loggers

    config = AnalyzeConfig(
        runs=[str(path) for path in _folders(cells) if path.is_dir()],
        analysis=settings,
        out=str(folder / "analysis"),
        overwrite=cells[0].config.overwrite,
        logger="wandb" if "wandb" in loggers(cells[0].config) else None,
        wandb=cells[0].config.wandb,
    )
    answers, left_out = run_analyses(config, notify=warn)
    absent = [name for name in study.analyses if name not in settings]
    return [*answers, *(Answer(name, None, refused="promptgeo has no such analysis") for name in absent)], left_out


def _report(
    study: Study,
    cells: "Sequence[Cell]",
    answers: "Sequence[Answer]",
    left_out: Sequence[str],
    folder: Path,
    command: str,
) -> Path:
    from promptgeo.cli.report import study_grid
    from promptgeo.config.identity import differences
    from promptgeo.report.contents import Material
    from promptgeo.report.page import render
    from promptgeo.runs.folder import Run, write_atomically

    runs = [Run.load(path, verify=False) for path in _folders(cells) if (path / "run.json").exists()]
    material = Material(
        study,
        [run for run in runs if run.status == "completed"],
        [answer.stored for answer in answers if answer.stored],
        {answer.name: answer.refused for answer in answers if answer.refused},
        left_out,
        differences([run.info["config"] for run in runs], study_grid(study.name)) if runs else {},
        command,
        _noted(folder),
    )
    page = folder / "report.html"
    write_atomically(page, render(material).encode())
    return page


def _parser() -> OneLineParser:
    """For the Tab key: a study, then what promptgeo-train takes."""
    parser = OneLineParser(prog="promptgeo-reproduce", add_help=False)
    study, overrides = parser.add_argument("study"), parser.add_argument("overrides", nargs="*")
    study.completer = lambda prefix, **given: studies()  # type: ignore[attr-defined]
    overrides.completer = lambda prefix, **given: words_of("train", prefix)  # type: ignore[attr-defined]
    parser.add_argument("-h", "--help", action="store_true")
    return parser


def _help() -> str:
    asked = {study.name: study.question or study.title for study in map(load_study, studies())}
    return "\n".join([str(__doc__), "Studies:", *(entry(name, " ".join(text.split())) for name, text in asked.items())])
