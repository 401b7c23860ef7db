"""python -m promptgeo.train: train one soft prompt, or a grid of them with -m."""

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from promptgeo import compose, explain
from promptgeo.errors import RunFailed, UserError
from promptgeo.interruption import Interrupted, interruptible
from promptgeo.paths import conf_dir
from promptgeo.validate import validate

if TYPE_CHECKING:
    from promptgeo.engine import Outcome
    from promptgeo.runs import Run
    from promptgeo.schema import RunConfig

_finished: list["Outcome"] = []


class _AlsoTheFunction(ModuleType):
    """Importing this module binds it to the name that pg.train has; called, it is that function."""

    def __call__(self, *overrides: str, **choices: Any) -> "Run":
        from promptgeo.api import train

        return train(*overrides, **choices)


sys.modules[__name__].__class__ = _AlsoTheFunction


@hydra.main(config_path=conf_dir(), config_name="train", version_base="1.3")
def _job(composed: DictConfig) -> str:
    from promptgeo import engine

    outcome = engine.outcome_of(compose.to_run_config(composed))
    _finished.append(outcome)
    if outcome.error is not None:
        raise RunFailed(outcome.error)
    return str(outcome.folder)


def main() -> None:
    """The console entry point.

    Exit status 2: the user must mend something; one line, nothing was written. 1: a run failed, the others are complete.
    130, 143: stopped by Ctrl-C, SIGTERM.
    """
    compose.register()
    _register_run_folder()
    explain.show_full_errors()
    sys.argv[1:] = compose.interior_multirun_first(sys.argv[1:])
    _finished.clear()
    with interruptible():
        try:
            configs = _check_all(_arguments())
            if configs is None or not _answered(configs):
                with explain.config_errors():
                    _job()
        except UserError as error:
            explain.exit_with(error)
        except Interrupted as stop:
            print(f"promptgeo: stopped by {stop}; the same command goes on from here", file=sys.stderr)
            sys.exit(stop.exit_status)
        except RunFailed:
            pass  # _report lists it
    if _finished:
        _report()


def _register_run_folder() -> None:
    """The resolver that names a run's folder in conf/train.yaml."""

    def run_folder(_root_: DictConfig) -> str:
        from promptgeo.plan import folder_name, run_identity

        config = compose.to_run_config(_root_)
        return folder_name(config, run_identity(config))

    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def _arguments() -> argparse.Namespace:
    def unreadable(message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    parser = get_args_parser()
    parser.error = unreadable  # argparse's own prints its usage over many lines
    return parser.parse_args()


def _check_all(arguments: argparse.Namespace) -> "list[RunConfig] | None":
    """Compose every run of the command and plan those that are not complete: bad input anywhere in a grid stops it before its first run.

    None where the command only asks Hydra something (--help, --cfg, ...).
    """
    if arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion:
        return None
    searchpath = []
    if arguments.config_dir:
        if not Path(arguments.config_dir).is_dir():
            raise UserError(f"--config-dir {arguments.config_dir}: no such folder")
        searchpath = [f"hydra.searchpath=[file://{arguments.config_dir}]"]
    configs = compose.compose_grid([*arguments.overrides, *searchpath], arguments.multirun)
    if arguments.cfg:
        return None
    for config in configs:
        validate(config)
    for key in ("outputs", "name"):
        if len(values := list(dict.fromkeys(getattr(config, key) for config in configs))) > 1:
            raise UserError(f"{key}={','.join(values)}: all runs of one command lie in one folder, <outputs>/<name>; give one command for each")
    from promptgeo import plan as planning
    from promptgeo.coupling import check_complete, is_coupled
    from promptgeo.devices import check_devices
    from promptgeo.loggers import check_loggers
    from promptgeo.engine import finished_run

    check_complete(configs)
    if any(map(is_coupled, configs)) and any(override.replace(" ", "") == "hydra/launcher=basic" for override in arguments.overrides):
        raise UserError("hydra/launcher=basic trains one run after another: runs that are trained for one another need hydra/launcher=packed, the default")
    for config in sorted(configs, key=planning.model_key):  # each model is loaded once
        check_loggers(config)
        check_devices(config)
        if finished_run(config, planning.run_identity(config)) is None:
            planning.plan(config)
    return configs


def _answered(configs: "list[RunConfig]") -> bool:
    """Whether the command is done without Hydra: a preview, or runs that are all complete (composing a grid again takes long)."""
    from promptgeo.engine import Outcome, finished_run
    from promptgeo.plan import run_identity

    if configs[0].preview:
        from promptgeo.preview import show

        show(configs)
        return True
    runs = [finished_run(config, run_identity(config)) for config in configs]
    if not all(run is not None and (run.folder / ".hydra" / "overrides.yaml").exists() for run in runs):
        return False
    _finished.extend({run.id: Outcome(run.folder, run, skipped=True) for run in runs}.values())
    print(f"promptgeo: complete already: {len(_finished)} of {len(_finished)} runs, skipped (overwrite=true trains again)", file=sys.stderr)
    return True


def _report() -> None:
    from rich.console import Console

    from promptgeo.summary import recommendation, table_of_results

    console = Console()
    outcomes = list({outcome.folder: outcome for outcome in _finished}.values())
    runs = [outcome.run for outcome in outcomes if outcome.run is not None]
    if runs:
        console.print(table_of_results(runs))
    for line in recommendation(runs):
        console.print(line, soft_wrap=True, highlight=False)
    for folder in sorted({str(outcome.folder.parent) for outcome in outcomes}):
        console.print(f"results: {folder}/", soft_wrap=True, highlight=False)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        print(f"promptgeo: {outcome.folder} failed: {outcome.error}", file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
