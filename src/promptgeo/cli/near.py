"""promptgeo-runs near: which prompts of finished runs lie nearest to a word, a sentence or a prompt?"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import say, visible, warn
from promptgeo.config.waiting import said_when_slow

if TYPE_CHECKING:
    import pandas as pd

HELP = """\
Search finished runs for the prompts nearest to a word, a sentence or a prompt, checkpoints too.

    promptgeo-runs near outputs/quickstart France
    promptgeo-runs near outputs/quickstart outputs/other "write the capital of the country"
    promptgeo-runs near outputs/quickstart outputs/quickstart/tiny-plus_one-cat-s0-1b2c3d4e --other-runs --top 5

The last argument is a run where it is the folder of one, and else a text; the first line says which. A path without a
run, or a run's name, is refused: --text searches for such a text. Mean tokens are compared; a text's tokens are those
that init.text=... would give.
"""
COLUMNS = ("rank", "distance", "run", "task", "init", "step")
"""Printed; the rest stands in the run's name, or pg.nearest_prompts has it."""


def near(arguments: Sequence[str]) -> None:
    """The subcommand. Raises UserError for whatever the user must mend."""
    given = near_parser().parse_intermixed_args(arguments)
    from promptgeo.analysis.near import nearest_prompts

    with said_when_slow("searching"):
        found = nearest_prompts(
            given.folders,
            given.to,
            top=given.top,
            which=int(given.which) if given.which.isdecimal() else given.which,
            checkpoints=not given.final,
            other_runs=given.other_runs,
            text=given.text,
            distance=given.distance,
            where=given.where,
            model=given.model,
            device=given.device,
            notify=warn,
            option="--{} ",
        )
    say(f"nearest to {_cell(found.attrs['to'])}")
    say(_table(found))


def near_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs near", description=HELP, formatter_class=as_written)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", help="of runs: where to search")
    parser.add_argument("to", metavar="TEXT|RUN", help="a word, a sentence, or a run's folder")
    parser.add_argument("--top", metavar="K", type=int, default=20, help="how many prompts; default: 20")
    which = "of the RUN: final (default), best, initial, or the step of a checkpoint"
    parser.add_argument("--which", metavar="PROMPT", default="final", help=which)
    parser.add_argument("--final", action="store_true", help="search among final prompts alone, not checkpoints")
    parser.add_argument("--other-runs", action="store_true", help="leave out the RUN's own prompts")
    parser.add_argument(
        "--text", action="store_true", help="the last argument is a text, although it looks like a path"
    )
    parser.add_argument("--distance", choices=("cosine", "l2"), default="cosine", help="default: cosine")
    parser.add_argument("--where", metavar="CONDITION", help="only runs for which it holds, as in promptgeo.analyze")
    parser.add_argument("--model", metavar="FOLDER", help="where the runs' model lies now; default: as the runs say")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    return parser


def _table(found: "pd.DataFrame") -> str:
    shown = [column for column in COLUMNS if column in found]
    lines = [shown, *([_cell(value) for value in row] for row in found[shown].itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in lines
    )


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else "-" if str(value) == "<NA>" else str(value)
    return visible(text).replace("\n", "\\n")
