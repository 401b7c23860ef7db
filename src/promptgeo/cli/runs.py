"""The command promptgeo-runs.

promptgeo-runs PATH: what runs lie at or below a folder? promptgeo-runs import: prompts trained elsewhere become runs.
Exit status 1 if a run is damaged, 2 if the user must mend something.
"""

import argparse
import sys
from pathlib import Path

from rich.table import Table

from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import console, say, warn
from promptgeo.evaluation.metrics import HEADLINE
from promptgeo.runs.folder import PROMPTS, find_runs
from promptgeo.training.interruption import exit_statuses
from promptgeo.training.queue import standing, table_of_jobs
from promptgeo.training.slurm import FOLDER, jobs_in, states

COLUMNS = ("status", "task", "init", "seed", *(f"{HEADLINE}_{which}" for which in PROMPTS), "n", "steps")

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
accuracy (0 to 1), n (test examples), file and steps.
"""


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    with exit_statuses("give the command again"):
        if arguments[:1] == ["import"]:
            _import(arguments[1:])
        else:
            _list(arguments)


def _list(arguments: list[str]) -> None:
    parser = OneLineParser(
        prog="promptgeo-runs",
        usage="promptgeo-runs [PATH]\n       promptgeo-runs import FILE... --table TABLE.csv --out FOLDER",
        description="List the runs at or below a folder: status, accuracies, checksums.",
        epilog="Prompts that were trained elsewhere become runs by promptgeo-runs import; see promptgeo-runs import "
        "--help. (A folder that is called import: ./import.)",
    )
    parser.add_argument("path", metavar="PATH", nargs="?", default="outputs", help="a folder; default: outputs")
    path = parser.parse_args(arguments).path
    runs, damaged = find_runs(path)
    table = Table(*("run", *COLUMNS, "checksums"))
    for run in runs:
        row = run.row()
        table.add_row(run.folder.name, *(_shown(row[c]) for c in COLUMNS), "good")
    screen = console()
    screen.print(table)
    screen.print(f"{len(runs)} runs, {len(damaged)} damaged")
    if jobs := _jobs(Path(path)):
        screen.print(jobs)
    for error in damaged:
        screen.print(f"damaged: {error}", soft_wrap=True)
    if damaged:
        sys.exit(1)


def _jobs(path: Path) -> Table | None:
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
