"""python -m promptgeo.reproduce STUDY [key=value ...]: train a published study's grid, analyse it, write the report.

    python -m promptgeo.reproduce init_vs_task                                  # as published
    python -m promptgeo.reproduce init_vs_task model=tiny training.epochs=10    # offline, on the embedded model
    python -m promptgeo.reproduce init_vs_task model=gpt2 init=cat,dog task=plus_two,present_past

key=value: as in python -m promptgeo.train. The report is outputs/<name>/report.html. Finished runs and analyses are
cached.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.compose import exit_with
from promptgeo.compose_analyze import AnalyzeConfig, analysis_file, available
from promptgeo.errors import UserError
from promptgeo.report.study import Study, load_study, studies

if TYPE_CHECKING:
    from promptgeo.analysis.ask import Answer
    from promptgeo.config import RunConfig

TRAINING = "training.json"
"""Beside the report: how long each training took. Run folders hold no clock time."""


def main() -> None:
    """The console entry point.

    Exit status 2: the user must mend something. 1: a run failed; the report is of the others. 130, 143: stopped.
    """
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_help())
        return
    from promptgeo.interruption import Interrupted, interruptible

    with interruptible():
        try:
            status = reproduce(arguments[0], arguments[1:])
        except UserError as error:
            exit_with(error)
        except Interrupted as stop:
            print(f"promptgeo: stopped by {stop}; the same command goes on from here", file=sys.stderr)
            status = stop.exit_status
    sys.exit(status)


def reproduce(name: str, overrides: Sequence[str]) -> int:
    """Train, analyse, report. Returns the exit status: 0, or 1 where runs failed.

    Raises UserError, Interrupted, and SystemExit as training does.
    """
    from promptgeo.compose import compose_grid

    study = load_study(name)
    _check(overrides)
    line = [f"sweep={name}", *_tiny(study, overrides), *overrides]
    configs = compose_grid(line)
    settings = _settings(study)
    folder = Path(configs[0].outputs) / configs[0].name
    with _step(f"1/3 training {len(configs)} runs of {name}"):
        status = _train(line, configs, folder)
    if configs[0].preview:
        return status
    with _step(f"2/3 analysing, {len(study.analyses)} analyses"):
        answers, left_out = _analyze(study, settings, configs, folder)
    with _step("3/3 the report"):
        command = " ".join(["python -m promptgeo.reproduce", name, *_shown(overrides)])
        page = _report(study, configs, answers, left_out, folder, command)
    print(f"report: {page}")
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
    print(f"promptgeo: {what} ...", file=sys.stderr)
    start = time.perf_counter()
    yield
    print(f"promptgeo: {what}: {time.perf_counter() - start:.1f} s", file=sys.stderr)


def _train(arguments: Sequence[str], configs: "Sequence[RunConfig]", folder: Path) -> int:
    """As the command promptgeo-train does. Returns 1 where runs failed; anything else that stops it is its SystemExit."""
    from importlib import import_module

    train = import_module("promptgeo.train")  # the name promptgeo.train is also a function's
    todo = _todo(configs)
    start, before, handlers = time.perf_counter(), sys.argv, logging.getLogger().handlers[:]
    sys.argv = ["promptgeo-train", *arguments]
    status = 0
    try:
        train.main()
    except SystemExit as stop:
        if stop.code != 1:
            raise
        status = 1
    finally:
        sys.argv = before
        _close_log_files(handlers)
    if todo and not configs[0].preview:
        _note_training(folder, todo, time.perf_counter() - start)
    return status


def _close_log_files(handlers: Sequence[logging.Handler]) -> None:
    """Hydra leaves the last run's log file open: what follows does not belong there."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def _todo(configs: "Sequence[RunConfig]") -> int:
    """How many folders of the grid are not finished. Damaged ones are training's to refuse."""
    return sum(config.overwrite or not (folder / "run.json").exists() for folder, config in zip(_folders(configs), configs, strict=True))


def _folders(configs: "Sequence[RunConfig]") -> list[Path]:
    from promptgeo.planning import folder_of, run_identity

    return [folder_of(config, run_identity(config)) for config in configs]


def _note_training(folder: Path, runs: int, seconds: float) -> None:
    from promptgeo.runs import write_atomically

    noted = [*_noted(folder), {"runs": runs, "seconds": round(seconds, 1)}]
    write_atomically(folder / TRAINING, (json.dumps(noted) + "\n").encode())


def _noted(folder: Path) -> list[dict[str, Any]]:
    try:
        return json.loads((folder / TRAINING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def _analyze(
    study: Study, settings: dict[str, dict[str, Any]], configs: "Sequence[RunConfig]", folder: Path
) -> "tuple[list[Answer], list[str]]":
    """The study's analyses of the runs of this grid, not of what else lies in the folder; and the runs left out."""
    from promptgeo.analysis.ask import Answer, run_analyses

    config = AnalyzeConfig(
        runs=[str(path) for path in dict.fromkeys(_folders(configs)) if path.is_dir()],
        analysis=settings,
        out=str(folder / "analysis"),
        overwrite=configs[0].overwrite,
    )
    answers, left_out = run_analyses(config, notify=lambda line: print(line, file=sys.stderr))
    absent = [name for name in study.analyses if name not in settings]
    return [*answers, *(Answer(name, None, refused="promptgeo has no such analysis") for name in absent)], left_out


def _report(
    study: Study,
    configs: "Sequence[RunConfig]",
    answers: "Sequence[Answer]",
    left_out: Sequence[str],
    folder: Path,
    command: str,
) -> Path:
    from promptgeo.compose import compose_grid
    from promptgeo.config import differences
    from promptgeo.report.page import Material, render
    from promptgeo.runs import Run, write_atomically

    folders = [path for path in dict.fromkeys(_folders(configs)) if (path / "run.json").exists()]
    runs = [Run.load(path, verify=False) for path in folders]
    material = Material(
        study,
        [run for run in runs if run.status == "completed"],
        [answer.stored for answer in answers if answer.stored],
        {answer.name: answer.refused for answer in answers if answer.refused},
        left_out,
        differences(configs, compose_grid([f"sweep={study.name}"])),
        command,
        _noted(folder),
    )
    page = folder / "report.html"
    write_atomically(page, render(material).encode())
    return page


def _help() -> str:
    return f"{__doc__}\nStudies: {', '.join(studies())}"


if __name__ == "__main__":
    main()
