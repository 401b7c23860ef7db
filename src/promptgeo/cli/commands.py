"""The command promptgeo, also python -m promptgeo: which commands are there, and how does Tab complete them?"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from promptgeo.cli.completion import complete, script
from promptgeo.config.explain import OneLineParser, nearest
from promptgeo.config.terminal import say
from promptgeo.errors import UserError
from promptgeo.training.interruption import exit_statuses

HELP = """\
Train grids of soft prompts on frozen language models, and ask where they lie.

  promptgeo-train      train one soft prompt, or a grid of them        also python -m promptgeo.train
  promptgeo-analyze    analyse finished runs                           also python -m promptgeo.analyze
  promptgeo-report     make a page of runs and their analyses          also python -m promptgeo.report
  promptgeo-reproduce  train, analyse and report a published study     also python -m promptgeo.reproduce
  promptgeo-runs       list, verify, retry, delete, ask, export, import runs; prompts near to a word
  promptgeo-dashboard  make a workspace and a report of a sweep in W&B

Each has a --help. Three to begin with:

  promptgeo-train sweep=quickstart
  promptgeo-analyze runs=outputs/quickstart 'analysis=[projection,curves]'
  promptgeo-runs outputs/quickstart

Tab completes them all in a bash that was told: eval "$(promptgeo completion)"
"""
COMMANDS = ("train", "analyze", "report", "reproduce", "runs", "dashboard")
"""Each a command of its own, promptgeo-<name>."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. arguments: of the command line, by default sys.argv[1:]."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo", description=HELP, formatter_class=as_written)
    parser.add_argument("--version", action="version", version=version("promptgeo"))
    what = "prints what turns tab completion on, for bash to evaluate"
    parser.add_argument("command", nargs="?", metavar="completion", choices=["completion"], help=what)
    complete(parser)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with exit_statuses("give the command again"):
        if arguments and not arguments[0].startswith("-") and arguments[0] != "completion":
            _no_such_command(arguments[0])
        given = parser.parse_args(arguments)
        say(HELP.rstrip("\n") if given.command is None else script())


def _no_such_command(word: str) -> NoReturn:
    if word in COMMANDS:
        raise UserError(f"{word}: that command is written promptgeo-{word}")
    raise UserError(f"{word}: no such command; {nearest(word, COMMANDS)} (each is written promptgeo-<name>)")
