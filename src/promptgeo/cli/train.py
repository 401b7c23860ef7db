"""promptgeo-train, python -m promptgeo.train: train one soft prompt, or a grid of them with -m."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from promptgeo.cli.completion import answer_shell
from promptgeo.config import compose
from promptgeo.config.explain import OneLineParser, config_errors, in_one_line, show_full_errors
from promptgeo.config.paths import conf_dir, own_choices, stamps
from promptgeo.config.schema import Grid
from promptgeo.config.terminal import Formatter, console, counted, say, warn
from promptgeo.errors import RunFailed, UserError
from promptgeo.training.cell import Cell, cell_of, cells_of, require_one_folder_each, titled
from promptgeo.training.interruption import exit_statuses
from promptgeo.training.queue import SUBMITTED

if TYPE_CHECKING:
    from promptgeo.config.schema import RunConfig
    from promptgeo.training.cluster import Engine
    from promptgeo.training.engine import Outcome

TOGETHER = ("packed", "slurm", "packed_ray")
"""Launchers that train runs in packs."""
HERE = (*TOGETHER, "basic")
"""Launchers whose jobs Hydra calls in this process."""

# What needs torch is imported inside functions: --help, --cfg and a misspelt key wait for none of it.


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. arguments: of the command line, by default sys.argv[1:].

    Exit status 2: the user must mend something; one line, nothing was written. 1: a run failed, the others are
    complete. 130, 143, 140: stopped by Ctrl-C, SIGTERM, SIGUSR2.
    """
    with exit_statuses():
        status = train(sys.argv[1:] if arguments is None else arguments)
    if status:
        sys.exit(status)


def train(arguments: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit status: 0, or 1 where a run failed.

    Raises UserError for whatever the user must mend, Interrupted where a signal stopped training, and SystemExit where
    Hydra ends the process (--version).
    """
    compose.register()
    show_full_errors()
    parser = OneLineParser(prog="promptgeo-train", add_help=False, parents=[get_args_parser()])
    options = parser.parse_intermixed_args(arguments)  # keys may stand before and after any option
    options.overrides = compose.with_own_model(options.overrides)
    if options.help:
        say(compose.help_page([*options.overrides, *own_choices(options.config_dir)]))
        return 0
    if options.shell_completion:
        answer_shell("train", options.overrides)
        return 0
    jobs = Jobs()
    OmegaConf.register_new_resolver("run_folder", jobs.run_folder, replace=True)
    with _notices_of_data():
        cells = _checked(options, jobs)
    jobs.cells = cells or ()
    if cells is None:
        _run(parser, options, jobs)
        return 0
    if _previewed(cells):
        return 0
    from promptgeo.training.engine import outcome_elsewhere

    failure = None
    before = {cell.id: stamps(str(cell.folder / "run.json")) for cell in cells}
    if not _complete(cells, jobs):
        failure = _run(parser, options, jobs)
    elsewhere = {cell.id: cell for cell in cells if cell.id not in jobs.outcomes}
    there = [outcome_elsewhere(cell, before[i]) for i, cell in elsewhere.items()]
    return print_results([*jobs.outcomes.values(), *there], failure)


@contextlib.contextmanager
def _notices_of_data() -> Iterator[None]:
    """Within: what is said of the data (which splits, how many of each label) is shown; Hydra sets up logging later."""
    logger, handler = logging.getLogger("promptgeo.data"), logging.StreamHandler()
    handler.setFormatter(Formatter("%(message)s"))
    level = logger.level
    logger.setLevel(logging.INFO)
    if not logging.getLogger().handlers:  # else whoever calls from Python shows it already
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Jobs:
    """What Hydra calls for each job of a command. It keeps how each run ended."""

    def __init__(self) -> None:
        self._here = os.getcwd()  # hydra.job.chdir=true leaves it; paths of the user's are seen from here
        self._process = os.getpid()
        self.outcomes: dict[str, Outcome] = {}
        """By the run's id."""
        self.cluster: Engine | None = None
        """Where the runs are trained; None: here."""
        self.launcher = ""
        self.cells: Sequence[Cell] = ()
        """Of the command, in the order of Hydra's jobs."""

    def train_batch(self, first: int, count: int) -> None:
        """Train the runs of these jobs together. Composing them again, before they are needed, is left out."""
        self.train(self.cells[first : first + count])

    def train(self, cells: Sequence[Cell]) -> None:
        """Train these runs together."""
        from promptgeo.training import cluster
        from promptgeo.training.engine import train_all

        how = None if self.cluster is None else partial(cluster.train, self.cluster)
        with contextlib.chdir(self._here):
            self.outcomes |= {cell.id: outcome for cell, outcome in zip(cells, train_all(cells, how), strict=True)}

    def __call__(self, job: DictConfig) -> str:
        """The folder of this job's run, which is trained unless it was trained with others. Raises RunFailed."""
        cell = self._cell(job, HydraConfig.get().job)
        if cell.id not in self.outcomes:
            try:
                self.train([cell])
            except Exception as error:
                if os.getpid() == self._process:
                    raise
                # A launcher sends it to the first process, for which it is a run that failed, whatever it was.
                raise RunFailed(f"{cell.folder}: {in_one_line(error)}") from None
        outcome = self.outcomes[cell.id]
        if outcome.error not in (None, SUBMITTED):
            raise RunFailed(outcome.error)
        return str(outcome.folder)

    def run_folder(self, _root_: DictConfig) -> str:
        """The name of a job's folder: ${run_folder:} of conf/train.yaml."""
        return self._cell(_root_, _root_.hydra.job).folder.name

    def _cell(self, config: DictConfig, of_hydra: DictConfig) -> Cell:
        """Of a job: by its number, where the command's are known. Composing it again takes 30 ms of CPU."""
        if self.cells and os.getpid() == self._process and not OmegaConf.is_missing(of_hydra, "num"):
            return self.cells[of_hydra.num]
        with contextlib.chdir(self._here):
            return cell_of(replace(compose.to_run_config(config), grid=Grid()))  # one job is no grid


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, jobs: Jobs) -> str | None:
    """As hydra.main does, which reads sys.argv and takes no arguments. Returns why a job failed, if one did."""
    if options.experimental_rerun is not None:
        raise UserError("--experimental-rerun: promptgeo has none; the same command goes on where it was stopped")
    version.setbase("1.3")
    try:
        with config_errors():
            _run_hydra(
                args=options,
                args_parser=parser,
                task_function=cast(TaskFunction, jobs),
                config_path=conf_dir(),
                config_name="train",
            )
    except RunFailed as failed:
        return str(failed)
    except UserError:
        raise
    except Exception as error:
        if jobs.launcher in HERE:
            raise
        return f"hydra/launcher={jobs.launcher}: {in_one_line(error)}"
    return None


def _checked(options: argparse.Namespace, jobs: Jobs) -> list[Cell] | None:
    """The cells of the command; None where the command is one for Hydra alone (--cfg, --info, ...).

    jobs: is told where they train.

    Runs that are not complete are planned: what is wrong anywhere in a grid stops it before its first run.
    """
    if options.hydra_help or options.info:
        return None
    searchpath = own_choices(options.config_dir)
    if options.config_name or options.config_path:
        raise UserError(
            "--config-name, --config-path: promptgeo has one config, train; keys of your own file are given with "
            "--config-dir FOLDER +experiment=mine, where FOLDER/experiment/mine.yaml begins with # @package _global_"
        )
    configs, launcher, drawn = compose.compose_command([*options.overrides, *searchpath], options.multirun)
    options.overrides = compose.as_spelt([*options.overrides, *searchpath])[: len(options.overrides)]
    if options.cfg:
        return None
    _require_one_folder(configs)
    cells = titled(cells_of(configs))
    cluster = _cluster(launcher, cells[0].folder.parent)
    options.multirun = options.multirun or cluster is not None  # Hydra asks a launcher for grids alone
    jobs.cluster, jobs.launcher = cluster, launcher.name
    if launcher.name not in TOGETHER and any(cell.coupled for cell in cells):
        raise UserError(
            f"hydra/launcher={launcher.name} trains each run by itself: "
            "runs that are trained for one another need hydra/launcher=packed, the default"
        )
    if launcher.name not in TOGETHER and any(cell.rivals for cell in cells):
        raise UserError(
            f"hydra/launcher={launcher.name} trains each run by itself: grid.halving, which compares runs while they "
            f"train, needs {', '.join(TOGETHER)}"
        )
    drawn += require_trainable(cells, cluster)
    for line in drawn:
        warn(f"promptgeo: {line}")
    return cells


def require_trainable(cells: Sequence[Cell], cluster: "Engine | None" = None) -> list[str]:
    """Raises UserError for what is wrong with any of these runs: those that are not complete are planned.

    Returns what is to be said of them before they train.

    cluster: where they are to be trained; None: here.
    """
    from promptgeo.training.coupling import check_complete
    from promptgeo.training.devices import check_devices
    from promptgeo.training.engine import finished_run
    from promptgeo.training.loggers import check_loggers
    from promptgeo.training.plan import plan_all
    from promptgeo.training.rungs import announced

    check_complete(cells)
    require_one_folder_each(cells)
    by_model, left = sorted(cells, key=lambda cell: cell.model_key), []
    said: list[str] = []
    for _, same_model in groupby(by_model, key=lambda cell: cell.model_key):  # each model is loaded once
        todo = []
        for cell in same_model:
            check_loggers(cell.config)
            if cluster is None:
                check_devices(cell)
            if finished_run(cell) is None:
                todo.append(cell)
        if todo:  # where a cluster's jobs come from there may be no GPU
            plans = plan_all(todo if cluster is None else [replace(cell, device="cpu") for cell in todo])
            said += announced((p.cell, p.total_steps) for p in plans)
        left += todo
    if cluster is not None and left:
        cluster.check(left)
    return said


def _cluster(launcher: compose.Launcher, folder: Path) -> "Engine | None":
    """Where else than here the runs are to be trained. folder: that their folders lie in."""
    if launcher.name == "slurm":
        from promptgeo.training.slurm import Slurm

        return Slurm(folder, launcher.settings)
    if launcher.name == "packed_ray":
        from promptgeo.training.ray_cluster import Ray

        return Ray(folder, launcher.settings)
    return None


def _require_one_folder(configs: "Sequence[RunConfig]") -> None:
    for key in ("outputs", "name"):
        if len(values := list(dict.fromkeys(getattr(config, key) for config in configs))) > 1:
            raise UserError(
                f"{key}={','.join(values)}: all runs of one command lie in one folder, <outputs>/<name>; "
                "give one command for each"
            )


def _previewed(cells: Sequence[Cell]) -> bool:
    if not cells[0].config.preview:
        return False
    from promptgeo.cli.preview import show

    show(cells)
    return True


def _complete(cells: Sequence[Cell], jobs: Jobs) -> bool:
    """Whether all runs are complete, with Hydra's files: composing the grid again, which takes long, is left out."""
    from promptgeo.training.engine import Outcome, finished_run

    finished = {cell.id: finished_run(cell) for cell in cells}
    runs = [run for run in finished.values() if run is not None]
    if len(runs) < len(finished) or not all((run.folder / ".hydra" / "overrides.yaml").exists() for run in runs):
        return False
    jobs.outcomes |= {run.id: Outcome(run.folder, run, skipped=True) for run in runs}
    stopped = sum(run.status == "stopped" for run in runs)
    count = f"{len(runs)} of {counted(len(runs), 'run')}" + (
        f", {stopped} of them stopped by grid.halving" if stopped else ""
    )
    warn(f"promptgeo: complete already: {count}, skipped (overwrite=true trains again)")
    return True


def print_results(outcomes: "Sequence[Outcome]", failure: str | None) -> int:
    """Print what the runs came to, and a failure that none of them tells. Returns the exit status: 1 where one failed.

    failure: what Hydra was told of the first job that failed.
    """
    from promptgeo.cli.summary import recommendation, table_of_results
    from promptgeo.training.lock import HELD

    screen = console()
    runs = [outcome.run for outcome in outcomes if outcome.run is not None]
    if runs:
        screen.print(table_of_results(runs))
    for line in recommendation(runs):
        screen.print(line, soft_wrap=True)
    for folder in sorted({str(outcome.folder.parent) for outcome in outcomes}):
        screen.print(f"results: {folder}/", soft_wrap=True)
    if submitted := sum(outcome.error == SUBMITTED for outcome in outcomes):
        warn(f"promptgeo: {submitted} runs are submitted; promptgeo-runs shows them, the same command waits for them")
    failed = [outcome for outcome in outcomes if outcome.error not in (None, SUBMITTED)]
    for outcome in failed:
        how = ": " if outcome.error == HELD else " failed: "
        warn(f"promptgeo: {outcome.folder}{how}{outcome.error}")
    if failure is not None and failure not in {outcome.error for outcome in failed}:
        warn(f"promptgeo: {failure}")
    return 1 if failed or failure is not None else 0
