"""promptgeo-runs retry: train again what failed, diverged or was interrupted, each run with its own config."""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby

from promptgeo.cli.choosing import add_choice, chosen, parsed
from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import say, show_log, warn
from promptgeo.config.waiting import said_when_slow
from promptgeo.runs.folder import find_folders

HELP = """\
Train again what failed, diverged or was interrupted at or below a folder, each run with its own config, as its command
would: from the state that it saved, where there is one.

  promptgeo-runs retry outputs/mine
  promptgeo-runs retry outputs --where "lr > 0.1" --status diverged
  promptgeo-runs retry outputs/mine --status damaged

Runs that another command is training are left to it. Damaged runs are trained again only with --status damaged, where
run.json is whole. It trains here, also what a cluster's job began. Runs that had not begun are in no folder: their
command trains them.
"""
RETRIED = ("failed", "diverged", "unfinished")
"""What is trained again unless --status says otherwise."""


def retry_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs retry", description=HELP, formatter_class=as_written)
    parser.add_argument("path", metavar="PATH", nargs="?", default="outputs", help="a folder; default: outputs")
    add_choice(parser)
    return parser


def retry(arguments: Sequence[str]) -> None:
    """The subcommand. Raises UserError, before anything is trained, for a run that cannot be trained as it was.

    Exit status 1 if a run failed, or another process trains it.
    """
    given = parsed(retry_parser(), arguments)
    everything = find_folders(given.path)
    found, _ = chosen(everything, given.where, given.status or RETRIED)
    left = [each.error for each in everything if each.status == "damaged" and each not in found]
    for error in left if given.status is None else ():
        warn(f"promptgeo: damaged, and left as it is: {error}")
    if not found:
        say(f"nothing to train again: no run of {given.path} is {' or '.join(given.status or RETRIED)}")
        return
    with said_when_slow("loading torch"):
        from promptgeo.cli.train import print_results, require_trainable
        from promptgeo.training.again import cells_again
        from promptgeo.training.engine import train_all
    show_log()
    cells = sorted(cells_again(found), key=lambda cell: str(cell.folder.parent))
    require_trainable(cells)
    outcomes = []
    for _, together in groupby(cells, key=lambda cell: cell.folder.parent):
        outcomes += train_all(list(together))
    sys.exit(print_results(outcomes, None))
