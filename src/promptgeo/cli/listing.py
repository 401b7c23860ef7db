"""promptgeo-runs FOLDER, verify and json: which runs lie at or below a folder, and are their files whole?"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.cli.choosing import SHORT, add_choice, add_sort, chosen, in_order, parsed, value_of
from promptgeo.config.explain import OneLineParser
from promptgeo.config.paths import as_text
from promptgeo.config.terminal import console, counted, say, visible
from promptgeo.evaluation.metrics import HEADLINE
from promptgeo.runs.folder import DamagedRun, Found, Run, find_folders
from promptgeo.training.queue import standing, table_of_jobs
from promptgeo.training.slurm import FOLDER, jobs_in, states

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {"status": "status", **{key: name for name, key in SHORT.items()}, "n": "n", "steps": "steps"}
"""Of a run's row, by what stands above it: a terminal has 80 columns, of which a run's name takes half."""
LEFT_OUT = {"status": "completed", f"{HEADLINE}_best": None, "label_accuracy": None}
"""Columns that are left out where all runs have this."""

LIST_HELP = """\
List the runs at or below a folder: accuracy without a prompt, of P0, trained, and at the best step; label: how often
the true label is the likeliest of its set. Each run's checksums are checked.

  promptgeo-runs outputs/quickstart
  promptgeo-runs outputs --sort test_accuracy --descending
  promptgeo-runs outputs --where "task == 'plus_two' and seed < 2"
"""
LIST_EPILOG = """\
further commands, each with a --help:
  verify   check the checksums of every run, and name what is damaged or unfinished
  json     the same list for programs
  retry    train again what failed, diverged or was interrupted
  rm       delete runs
  ask      ask trained prompts: what does the model write after an input?
  near     which prompts lie nearest to a word, a sentence or a prompt?
  export   trained prompts as PEFT adapters or files of arrays
  import   prompts that were trained elsewhere become runs

A folder of such a name: ./import. Exit status 1 if a run is damaged, 2 if you must mend something.
"""
VERIFY_HELP = """\
Check the checksums of every run at or below a folder: which are whole, unfinished or damaged?

  promptgeo-runs verify outputs
  promptgeo-runs verify outputs/quickstart --where "init == 'cat'"
  promptgeo-runs verify outputs --status completed,imported

Exit status 1 if any is damaged.
"""
JSON_HELP = """\
The list of runs as JSON, one object for each: the columns of the run table, and folder, status and error (null, or what
is damaged) of what is no whole run.

  promptgeo-runs json outputs/quickstart
  promptgeo-runs json outputs --lines --sort -test_accuracy | head -1
  promptgeo-runs json outputs --where "task == 'plus_two'" --status completed

Exit status 1 if any is damaged.
"""


def list_parser() -> OneLineParser:
    parser = _parser("promptgeo-runs", LIST_HELP, LIST_EPILOG)
    others = "verify|json|retry|rm|ask|near|export|import"
    parser.usage = f"promptgeo-runs [PATH] [--where ...] [--sort ...]\n       promptgeo-runs {others} ..."
    add_sort(parser)
    return parser


def verify_parser() -> OneLineParser:
    return _parser("promptgeo-runs verify", VERIFY_HELP)


def json_parser() -> OneLineParser:
    parser = _parser("promptgeo-runs json", JSON_HELP)
    add_sort(parser)
    parser.add_argument("--lines", action="store_true", help="an object a line; default: one array")
    return parser


def _parser(prog: str, text: str, epilog: str = "") -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog=prog, description=text, epilog=epilog, formatter_class=as_written)
    parser.add_argument("path", metavar="PATH", nargs="?", default="outputs", help="a folder; default: outputs")
    add_choice(parser)
    return parser


def list_runs(arguments: Sequence[str]) -> None:
    """The listing. Exit status 1 if a run is damaged."""
    given = parsed(list_parser(), arguments)
    found, left = chosen(find_folders(given.path), given.where, given.status)
    whole = [each for each in found if each.run and not each.error]
    if whole:
        key = given.sort and given.sort.removeprefix("-")
        say(_table([each.run for each in in_order(whole, given.sort, given.descending) if each.run], key))
    damaged = [each.error for each in [*found, *left] if each.error]
    begun = sum(each.status == "unfinished" and not each.error for each in found)
    completed = whole and all(each.status == "completed" for each in whole)
    unfinished = f", {begun} unfinished" if begun else ""
    say(f"{counted(len(whole), 'run')}{', all completed' if completed else ''}{unfinished}, {len(damaged)} damaged")
    if jobs := _jobs(Path(given.path)):
        console().print(jobs)
    _tell(damaged)


def verify(arguments: Sequence[str]) -> None:
    """The subcommand. Exit status 1 if a run is damaged."""
    given = parsed(verify_parser(), arguments)
    found, left = chosen(find_folders(given.path), given.where, given.status)
    damaged, unfinished = [], []
    for each in [*found, *(one for one in left if one.status == "damaged")]:
        try:
            if each.status == "unfinished":
                unfinished.append(f"{each.folder}: {_kept(each)}")
            elif each.error:
                raise each.error
        except DamagedRun as error:
            damaged.append(error)
    for line in unfinished:
        say(f"unfinished: {line}")
    statuses = Counter(each.run.status for each in found if each.run and not each.error)
    words = f" ({', '.join(f'{n} {status}' for status, n in sorted(statuses.items()))})" if statuses else ""
    say(f"{statuses.total()} whole{words}, {len(unfinished)} unfinished, {len(damaged)} damaged")
    _tell(damaged)


def _kept(found: Found) -> str:
    """Of an unfinished run: from where it would go on. Raises DamagedRun where its state cannot be read."""
    from promptgeo.training.run_state import saved_facts  # with torch

    facts = saved_facts(found.folder)
    return "nothing of it is saved yet" if facts is None else f"saved after step {facts['step']}"


def list_as_json(arguments: Sequence[str]) -> None:
    """The subcommand. Exit status 1 if a run is damaged."""
    given = parsed(json_parser(), arguments)
    found, left = chosen(find_folders(given.path), given.where, given.status)
    rows = [json.dumps(_row(each)) for each in in_order(found, given.sort, given.descending)]
    if given.lines:
        for row in rows:
            say(row)
    else:
        say("[" + ",\n ".join(rows) + "]")
    if any(each.error for each in [*found, *left]):
        sys.exit(1)


def _row(found: Found) -> dict[str, Any]:
    """A run's row; NaN and infinities, which JSON has not, are null."""
    row = found.run.row() if found.run else {}
    row |= {"status": found.status, "folder": as_text(found.folder), "error": found.error and str(found.error)}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _tell(damaged: Sequence[DamagedRun]) -> None:
    for error in damaged:
        say(f"damaged: {error}")
    if damaged:
        sys.exit(1)


def _table(runs: Sequence[Run], sorted_by: str | None) -> str:
    """A line per run. Not rich's table, which takes 10 s for 10,000 rows, nor pandas's, whose texts are UTF-8."""
    rows = [run.row() for run in runs]
    same = {key for key, value in LEFT_OUT.items() if all(row[key] == value for row in rows)}
    columns = {key: name for key, name in COLUMNS.items() if key not in same}
    if sorted_by and SHORT.get(sorted_by, sorted_by) not in columns:
        columns[sorted_by] = sorted_by
        rows = [{sorted_by: value_of(run, sorted_by)} | row for run, row in zip(runs, rows, strict=True)]
    lines = [["run", *columns.values()]]
    lines += [
        [visible(run.folder.name).replace("\n", "\\n"), *(_shown(row[key]) for key in columns)]
        for run, row in zip(runs, rows, strict=True)
    ]
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        " ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, *cells in lines
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value)).replace("\n", "\\n")


def _jobs(path: Path) -> "Table | None":
    """The jobs of a cluster that train runs here (outputs/<name>, or outputs itself); None: there are none."""
    found: dict[str, list[Path]] = {}
    for folder in (*path.expanduser().glob(FOLDER), *path.expanduser().glob(f"*/{FOLDER}")):
        found |= jobs_in(folder)
    alive = (states() if found else None) or {}
    words = {job: [standing(run) for run in runs] for job, runs in found.items() if job in alive}
    return table_of_jobs(words, alive) if words else None
