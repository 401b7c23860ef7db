"""The command promptgeo-runs.

promptgeo-runs PATH: what runs lie at or below a folder? promptgeo-runs import: prompts trained elsewhere become runs.
promptgeo-runs export: runs become files that others load (export.py).
promptgeo-runs ask: what does a trained prompt make the model write (ask.py)?
Exit status 1 if a run is damaged, 2 if the user must mend something.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptgeo.cli.ask import ask
from promptgeo.cli.export import export
from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import console, say, visible, warn
from promptgeo.evaluation.metrics import HEADLINE
from promptgeo.runs.folder import Run, find_runs
from promptgeo.training.interruption import exit_statuses
from promptgeo.training.queue import standing, table_of_jobs
from promptgeo.training.slurm import FOLDER, jobs_in, states

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {
    "status": "status",
    f"{HEADLINE}_none": "none",
    f"{HEADLINE}_initial": "P0",
    f"{HEADLINE}_final": "trained",
    f"{HEADLINE}_best": "best",
    "label_accuracy": "label",
    "n": "n",
    "steps": "steps",
}
"""Of a run's row, by what stands above it: a terminal has 80 columns, of which a run's name takes half."""
LEFT_OUT = {"status": "completed", f"{HEADLINE}_best": None, "label_accuracy": None}
"""Columns that are left out where all runs have this."""

IMPORT_HELP = """\
Make run folders of soft prompts that were trained elsewhere. Analyses that score nothing read them.

FILE is one of
  prompts.npy            [N, P, d], or [N, C, P, d] with C checkpoints: one prompt for every row of the table
  run.npy ...            one file per row, which the table's column `file` names: [P, d], or checkpoints [C, P, d];
                         the last checkpoint is the final prompt
  prompts.safetensors    the same, also as .npz or as torch.save writes it (.pt, .ckpt, .bin, no ending): one tensor,
                         or tensors final and perhaps initial (P0), trajectory, steps, best; --tensor names another
  adapter/ ...           PEFT adapters (prompt tuning) of decoders, also in a folder of the adapter's name

Nothing in a file is run: of what torch.save wrote, tensors in dictionaries and lists are read, nothing else.

N: rows of the table. P: prompt tokens. d: width of the model's input embeddings.

TABLE.csv has one row per prompt. Its columns task and init are needed. It may have seed, model, template,
accuracy (0 to 1), n (test examples), file, steps and bos (where BOS stood: always, before the prompt; after_prompt;
never).
"""


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    with exit_statuses("give the command again"):
        if arguments[:1] == ["import"]:
            _import(arguments[1:])
        elif arguments[:1] == ["export"]:
            export(arguments[1:])
        elif arguments[:1] == ["ask"]:
            ask(arguments[1:])
        else:
            _list(arguments)


def _list(arguments: list[str]) -> None:
    parser = OneLineParser(
        prog="promptgeo-runs",
        usage="promptgeo-runs [PATH]\n       promptgeo-runs ask RUN [INPUT...]\n"
        "       promptgeo-runs export RUN... --to peft|npy|safetensors|pt --out FOLDER\n"
        "       promptgeo-runs import FILE... --table TABLE.csv --out FOLDER",
        description="List the runs at or below a folder: accuracy without a prompt, of P0, trained, and at the "
        "best step; label: how often the true label is the likeliest of its set. Each run's checksums are checked.",
        epilog="promptgeo-runs ask asks a trained prompt, export shares it, and by import prompts that were trained "
        "elsewhere become runs. Each has a --help. (A folder of such a name: ./import.)",
    )
    parser.add_argument("path", metavar="PATH", nargs="?", default="outputs", help="a folder; default: outputs")
    path = parser.parse_args(arguments).path
    runs, damaged = find_runs(path)
    if runs:
        say(_table(runs))
    completed = runs and all(run.info["status"] == "completed" for run in runs)
    say(f"{len(runs)} runs{', all completed' if completed else ''}, {len(damaged)} damaged")
    if jobs := _jobs(Path(path)):
        console().print(jobs)
    for error in damaged:
        say(f"damaged: {error}")
    if damaged:
        sys.exit(1)


def _table(runs: Sequence[Run]) -> str:
    """A line per run. Not rich's table, which takes 10 s for 10,000 rows, nor pandas's, whose texts are UTF-8."""
    rows = [run.row() for run in runs]
    same = {key for key, value in LEFT_OUT.items() if all(row[key] == value for row in rows)}
    columns = {key: name for key, name in COLUMNS.items() if key not in same}
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


def _jobs(path: Path) -> "Table | None":
    """The jobs of a cluster that train runs here (outputs/<name>, or outputs itself); None: there are none."""
    found: dict[str, list[Path]] = {}
    for folder in (*path.expanduser().glob(FOLDER), *path.expanduser().glob(f"*/{FOLDER}")):
        found |= jobs_in(folder)
    alive = (states() if found else None) or {}
    words = {job: [standing(run) for run in runs] for job, runs in found.items() if job in alive}
    return table_of_jobs(words, alive) if words else None


def _import(arguments: list[str]) -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs import", description=IMPORT_HELP, formatter_class=as_written)
    parser.add_argument("files", metavar="FILE", nargs="+", help="see above")
    parser.add_argument("--table", metavar="TABLE.csv", required=True, help="one row per prompt; see above")
    out_help = "where the runs go, such as outputs/<name>; must be new or empty, or hold these very runs"
    parser.add_argument("--out", metavar="FOLDER", required=True, help=out_help)
    parser.add_argument("--initial", metavar="P0.npy", help="P0 of every row, [N, P, d]; deltas need it")
    steps_help = (
        "step of the first checkpoint and steps between two (0:1: the first is P0), or every step with commas; "
        "default: the file's own, else 1:1"
    )
    parser.add_argument("--steps", metavar="FIRST:BY", help=steps_help)
    tensor_help = "what the trained prompt is called in files with several tensors; default: final, or the only one"
    parser.add_argument("--tensor", metavar="NAME", help=tensor_help)
    given = parser.parse_intermixed_args(arguments)
    from promptgeo.runs.importing import import_prompts

    folders, notes = import_prompts(given.files, given.table, given.out, given.initial, given.steps, given.tensor)
    for note in notes:
        warn(note)
    say(f"{len(folders)} imported runs lie in {given.out}/")


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
