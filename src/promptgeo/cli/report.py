"""The command promptgeo-report, also python -m promptgeo.report: a page of finished runs and of what was analysed.

    promptgeo-report outputs/quickstart                  # writes outputs/quickstart/report.html

Of any folder of runs that was analysed: python -m promptgeo.analyze runs=FOLDER 'analysis=[NAME,...]'. Where all runs
are of one study's sweep, the published numbers stand beside ours, as in the report of python -m promptgeo.reproduce.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import say
from promptgeo.errors import UserError
from promptgeo.training.interruption import exit_statuses

if TYPE_CHECKING:
    from promptgeo.report.page import Material

PAGE = "report.html"


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. Exit status 2: the user must mend something; 1: the page could not be written."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-report", description=__doc__, formatter_class=as_written)
    parser.add_argument("folder", metavar="FOLDER", help="of runs, with what promptgeo.analyze wrote below it")
    with exit_statuses("give the command again"):
        folder = Path(parser.parse_args(sys.argv[1:] if arguments is None else arguments).folder).expanduser()
        say(f"report: {write_report(folder)}")


def write_report(folder: Path) -> Path:
    """Writes FOLDER/report.html. Raises UserError where no completed runs or no results lie, or one is damaged."""
    from promptgeo.report.page import render
    from promptgeo.runs.folder import write_atomically

    page = folder / PAGE
    write_atomically(page, render(material_of(folder)).encode())
    return page


def material_of(folder: Path) -> "Material":
    """What lies in a folder, as a report is made of it. Raises UserError as write_report does."""
    from promptgeo.analysis.ask import usable_runs
    from promptgeo.analysis.result import INFO, read
    from promptgeo.config.identity import differences
    from promptgeo.report.page import Material
    from promptgeo.report.study import study_of

    table, left_out = usable_runs([str(folder)], None)
    stored = [read(info.parent) for info in sorted((folder / "analysis").glob(f"*/{INFO}"))]
    if not stored:
        raise UserError(
            f"{folder}: no analysis of these runs lies there; first: "
            f"python -m promptgeo.analyze runs={folder} 'analysis=[curves]'"
        )
    runs = table.runs or []
    claims = [claim["name"] for each in stored for claim in each.info["claims"]]
    study = study_of(folder.name, [run.info["config"].get("sweep") for run in runs], claims)
    order = {name: k for k, name in enumerate(study.analyses)}
    stored.sort(key=lambda each: order.get(each.name, len(order)))
    grid = study_grid(study.name) if study.analyses else []
    differing = differences([run.info["config"] for run in runs], grid) if grid else {}
    return Material(study, runs, stored, left_out=left_out, differences=differing)


def study_grid(name: str) -> list[dict[str, Any]]:
    """The configs of a study's grid, as run.json would hold them."""
    from promptgeo.config.compose import compose_grid
    from promptgeo.config.schema import to_dict

    return [to_dict(config) for config in compose_grid([f"sweep={name}"])]
