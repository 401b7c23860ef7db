"""A workspace and a report in W&B of runs that logger=wandb sent there: promptgeo-dashboard.

    promptgeo-dashboard outputs/quickstart                # saved in W&B, or without a key as JSON
    promptgeo-dashboard outputs/quickstart --offline      # outputs/quickstart/dashboard/workspace.json and report.json
    promptgeo-dashboard outputs/quickstart --project prompts --entity us

Both show curves by task, accuracy by init, parallel coordinates over the keys that the sweep varies, norms and tables;
the report has the figures of the analyses too. It needs `pip install 'promptgeo[dashboard]'`.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from promptgeo.cli.completion import complete
from promptgeo.config.explain import OneLineParser
from promptgeo.config.schema import Wandb
from promptgeo.config.terminal import say, warn
from promptgeo.errors import UserError
from promptgeo.training.interruption import exit_statuses


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. Exit status 2: the user must mend something; 1: it could not be written."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-dashboard", description=__doc__, formatter_class=as_written)
    parser.add_argument("sweep", metavar="SWEEP", help="a folder of runs: outputs/<name>")
    parser.add_argument("--project", help="W&B's project; default: wandb.project of the runs")
    parser.add_argument("--entity", help="W&B's user or team; default: wandb.entity of the runs, else your own")
    parser.add_argument("--offline", action="store_true", help="write JSON, also where there is a key")
    complete(parser)
    with exit_statuses("give the command again"):
        given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
        folder = Path(given.sweep).expanduser()
        for line in make(folder, given.project, given.entity, given.offline):
            say(line)


def make(folder: Path, project: str | None = None, entity: str | None = None, offline: bool = False) -> list[str]:
    """Save the dashboard of the runs in a folder, or write it. Returns a line that says where, for each of the two.

    Raises UserError where no run lies there, wandb-workspaces is missing, or W&B refuses what is sent.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("promptgeo-dashboard: needs its package: pip install 'promptgeo[dashboard]'")
    from promptgeo.analysis.result import INFO, read
    from promptgeo.report import dashboard
    from promptgeo.runs import wandb_run
    from promptgeo.runs.folder import find_runs, write_atomically

    runs, damaged = find_runs(folder)
    for each in damaged:
        warn(f"left out: {each}")
    if not runs:
        raise UserError(
            f"{folder}: no runs lie there; first: python -m promptgeo.train name={folder.name} logger=wandb"
        )
    said = runs[0].info["config"].get("wandb") or {}
    settings = Wandb(project or said.get("project") or Wandb.project, entity or said.get("entity"))
    stored = [read(info.parent) for info in sorted((folder / "analysis").glob(f"*/{INFO}"))]
    figures = sorted({name for each in stored for name in each.figures})
    offline = offline or os.environ.get("WANDB_MODE") in ("offline", "disabled")
    online = not offline and wandb_run.has_key()
    if online and settings.entity is None:
        settings.entity = _own_entity()
    sweep = dashboard.sweep_of(runs, figures, settings)
    try:
        made = {"workspace": dashboard.workspace(sweep), "report": dashboard.report(sweep)}
        texts = {name: dashboard.as_json(each) for name, each in made.items()}  # read back, also where it is sent
    except Exception as error:  # of a release that was not tried
        raise UserError(
            f"promptgeo-dashboard: this release of wandb-workspaces is another than promptgeo was written for "
            f"({_reason(error)}): pip install 'promptgeo[dashboard]'"
        ) from error
    if online:
        return [f"{name}: {_saved(each)}" for name, each in made.items()]
    if not offline:
        warn("promptgeo-dashboard: no W&B key here, so JSON is written (`wandb login` stores a key)")
    place = folder / "dashboard"
    place.mkdir(exist_ok=True)
    for name, text in texts.items():
        write_atomically(place / f"{name}.json", f"{text}\n".encode())
    return [f"{name}: {place / name}.json" for name in texts]


def _own_entity() -> str:
    import wandb

    try:
        return wandb.Api().default_entity or ""
    except Exception as error:
        raise UserError(f"promptgeo-dashboard: W&B does not say who you are ({_reason(error)}); --offline") from error


def _saved(made: object) -> str:
    """Save a workspace or a report; its address."""
    try:
        return made.save().url  # type: ignore[attr-defined]
    except Exception as error:
        raise UserError(f"promptgeo-dashboard: W&B did not take it ({_reason(error)}); --offline writes it") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
