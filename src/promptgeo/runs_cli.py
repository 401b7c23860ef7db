"""promptgeo-runs PATH: what runs lie at or below a folder. Exit status 1 if one is damaged."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from promptgeo.compose import exit_with
from promptgeo.errors import UserError
from promptgeo.runs import find_runs

COLUMNS = ("status", "task", "init", "seed", "accuracy_none", "accuracy_initial", "accuracy_final", "accuracy_best", "n", "steps")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="promptgeo-runs", description="A table of the runs at or below PATH: status, accuracies, checksums.")
    parser.add_argument("path", metavar="PATH", nargs="?", default="outputs")
    path = parser.parse_args(arguments).path
    try:
        runs, damaged = find_runs(path)
    except UserError as error:
        exit_with(error)
    table = Table(*("run", *COLUMNS, "checksums"))
    for run in runs:
        row = run.row()
        table.add_row(run.folder.name, *(_shown(row[c]) for c in COLUMNS), "good")
    console = Console() if Console().is_terminal else Console(width=200)
    console.print(table)
    console.print(f"{len(runs)} runs, {len(damaged)} damaged", highlight=False)
    for error in damaged:
        console.print(f"damaged: {error}", soft_wrap=True, highlight=False)
    if damaged:
        sys.exit(1)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
