"""python -m promptgeo.train: train one soft prompt, or a grid of them with -m."""

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from promptgeo import compose
from promptgeo.config import validate
from promptgeo.errors import UserError

if TYPE_CHECKING:
    from promptgeo.runs import Run

_finished = []


class _AlsoTheFunction(ModuleType):
    """Importing this module binds it to the name that pg.train has; called, it is that function."""

    def __call__(self, *overrides: str, **choices: Any) -> "Run":
        from promptgeo.python_face import train

        return train(*overrides, **choices)


sys.modules[__name__].__class__ = _AlsoTheFunction


@hydra.main(config_path=compose.conf_dir(), config_name="train", version_base="1.3")
def _job(composed: DictConfig) -> str:
    from promptgeo import packing
    from promptgeo.planning import plan

    run = packing.train(plan(compose.to_run_config(composed)))
    _finished.append(run)
    return str(run.folder)


def main() -> None:
    """The console entry point. Whatever the user must mend is one line and exit status 2, before anything is written."""
    compose.register()
    compose.show_full_errors()
    sys.argv[1:] = compose.interior_multirun_first(sys.argv[1:])
    _finished.clear()
    try:
        _check_all(_arguments())
        with compose.config_errors():
            _job()
    except UserError as error:
        compose.exit_with(error)
    if _finished:
        _report()


def _arguments() -> argparse.Namespace:
    def unreadable(message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    parser = get_args_parser()
    parser.error = unreadable  # argparse's own prints its usage over many lines
    return parser.parse_args()


def _check_all(arguments: argparse.Namespace) -> None:
    """Compose and plan every run of the command: bad input anywhere in a grid stops it before its first run."""
    if arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion:
        return
    searchpath = []
    if arguments.config_dir:
        if not Path(arguments.config_dir).is_dir():
            raise UserError(f"--config-dir {arguments.config_dir}: no such folder")
        searchpath = [f"hydra.searchpath=[file://{arguments.config_dir}]"]
    configs = compose.compose_grid([*arguments.overrides, *searchpath], arguments.multirun)
    if arguments.cfg:
        return
    for config in configs:
        validate(config)
    from promptgeo import packing
    from promptgeo.planning import plan

    for config in configs:
        planned = plan(config)
        if not config.overwrite:
            packing.completed_run(planned)  # raises for a damaged folder


def _report() -> None:
    from rich.console import Console

    from promptgeo.packing import table_of_results

    console = Console()
    console.print(table_of_results(_finished))
    for folder in sorted({str(run.folder.parent) for run in _finished}):
        console.print(f"results: {folder}/", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
