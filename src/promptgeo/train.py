"""python -m promptgeo.train: train one soft prompt, or a grid of them with -m."""

import sys

import hydra
from omegaconf import DictConfig

from promptgeo import compose
from promptgeo.errors import UserError

_finished = []


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
    try:
        if not _only_shows():
            _check_all()
        with compose.config_errors():
            _job()
    except UserError as error:
        compose.exit_with(error)
    if _finished:
        _report()


def _arguments():
    from hydra._internal.utils import get_args_parser

    return get_args_parser().parse_args()


def _only_shows() -> bool:
    arguments = _arguments()
    return bool(arguments.help or arguments.hydra_help or arguments.cfg or arguments.info or arguments.shell_completion)


def _check_all() -> None:
    """Compose and plan every run of the command: bad input anywhere in a grid stops it before its first run."""
    from promptgeo.planning import plan

    arguments = _arguments()
    searchpath = [f"hydra.searchpath=[file://{arguments.config_dir}]"] if arguments.config_dir else []
    for config in compose.compose_grid([*arguments.overrides, *searchpath], arguments.multirun):
        plan(config)


def _report() -> None:
    from rich.console import Console

    from promptgeo.packing import table_of_results

    console = Console()
    console.print(table_of_results(_finished))
    for folder in sorted({str(run.folder.parent) for run in _finished}):
        console.print(f"results: {folder}/", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
