"""A page of finished runs and of what was analysed: promptgeo-report, also python -m promptgeo.report.

    promptgeo-report outputs/quickstart                  # writes outputs/quickstart/report.html
    promptgeo-report outputs/quickstart --to pdf         # or md; latex: a folder of tables and figures for a paper
    promptgeo-report outputs/small --beside outputs/large     # two sweeps' answers on one page

Of any folder of runs that was analysed: python -m promptgeo.analyze runs=FOLDER 'analysis=[NAME,...]'. Where all runs
are of one study's sweep, the published numbers stand beside ours, as in the report of python -m promptgeo.reproduce.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from promptgeo.cli.completion import complete
from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import say, warn
from promptgeo.errors import UserError
from promptgeo.training.interruption import exit_statuses

if TYPE_CHECKING:
    from promptgeo.report.contents import Material
    from promptgeo.report.pdf import Printer

FORMATS = ("html", "md", "latex", "pdf")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. Exit status 2: the user must mend something; 1: the page could not be written."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-report", description=__doc__, formatter_class=as_written)
    parser.add_argument("folder", metavar="FOLDER", help="of runs, with what promptgeo.analyze wrote below it")
    parser.add_argument("--to", choices=FORMATS, default="html", help="the format; default: html")
    parser.add_argument("--beside", metavar="OTHER", help="another such folder: a page of both")
    complete(parser)
    with exit_statuses("give the command again"):
        given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
        folder = Path(given.folder).expanduser()
        if given.beside is None:
            say(f"report: {write_report(folder, given.to)}")
        else:
            say(f"report: {write_beside(folder, Path(given.beside).expanduser(), given.to)}")


def write_report(folder: Path, to: str = "html") -> Path:
    """Writes FOLDER/report.html, .md or .pdf, or the folder FOLDER/latex. Returns what was written.

    Raises UserError where no completed runs or no results lie, one is damaged, or nothing here makes a PDF.
    """
    from promptgeo.report import markdown, page
    from promptgeo.report.pdf import needed_printer
    from promptgeo.runs.folder import write_atomically

    printer = needed_printer("--to pdf") if to == "pdf" else None
    material = material_of(folder)
    if to == "latex":
        return _write_latex(folder, material)
    text = markdown.render(material) if to == "md" else page.render(material)
    target = folder / f"report.{to}"
    write_atomically(target, printer(text) if printer else text.encode())
    return target


def write_beside(folder: Path, other: Path, to: str = "html") -> Path:
    """Writes FOLDER/beside_<name of OTHER>.html, or .pdf. Raises UserError as write_report does."""
    from promptgeo.report.beside import render
    from promptgeo.report.pdf import needed_printer
    from promptgeo.runs.folder import write_atomically

    if to not in ("html", "pdf"):
        raise UserError(f"--to {to}: two sweeps beside each other are a page: --to html or --to pdf")
    if folder.resolve() == other.resolve():
        raise UserError(f"--beside {other}: is the same folder; a second sweep is needed")
    printer = needed_printer("--to pdf") if to == "pdf" else None
    names = folder.resolve().name, other.resolve().name
    if names[0] == names[1]:
        names = str(folder), str(other)
    page = render(material_of(folder), material_of(other), names)
    target = folder / f"beside_{other.resolve().name}.{to}"
    write_atomically(target, printer(page) if printer else page.encode())
    return target


def _write_latex(folder: Path, material: "Material") -> Path:
    """Tables, and the first figure of each kind as PDF where something here makes PDFs, which else is said."""
    from promptgeo.report import latex
    from promptgeo.report.contents import Contents
    from promptgeo.report.page import style
    from promptgeo.report.pdf import figure_page, printer
    from promptgeo.runs.folder import write_atomically

    place, prints = folder / "latex", printer()
    chosen = [figure for section in Contents(material).sections for figure in section.main_figures]
    if prints is None:
        warn("promptgeo: no figures: they need Chromium on the PATH, or: pip install 'promptgeo[pdf]' (WeasyPrint)")
        chosen = []
    (place / "figures").mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for count, figure in enumerate(chosen, start=1):
        files[figure.path] = f"{figure.analysis}_{Path(figure.path).stem}.pdf"
        warn(f"promptgeo: figure {count} of {len(chosen)} ...")
        printed = cast("Printer", prints)(figure_page(figure.svg, style()))
        write_atomically(place / "figures" / files[figure.path], printed)
    for name, text in latex.render(material, files).items():
        write_atomically(place / name, text.encode())
    return place


def material_of(folder: Path) -> "Material":
    """What lies in a folder, as a report is made of it. Raises UserError as write_report does."""
    from promptgeo.analysis.ask import usable_runs
    from promptgeo.analysis.result import INFO, read
    from promptgeo.config.identity import differences
    from promptgeo.report.contents import Material
    from promptgeo.report.study import study_of
    from promptgeo.runs.alike import require_one_data_set_per_task

    table, left_out = usable_runs([str(folder)], None)
    require_one_data_set_per_task(table)
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
