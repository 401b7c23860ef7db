"""How do the CSVs of docs/results come about? By the commands of each page's grid.yaml, on a model that lies here.

    python docs/results/make.py --model FOLDER [--data FOLDER] [PAGE ...]    # hours; goes on where it was stopped
    python docs/results/make.py --tiny --into FOLDER [PAGE ...]              # minutes: cut down, on the embedded model

PAGE: folders of docs/results; all, if none is named. --data: where the published data lie (superglue/,
rotten_tomatoes/); without it pages that need them are left out. grid.yaml has `commands`, in which {model}, {data} and
{outputs} stand for folders; `looks_at`, other pages whose trainings come first; `files`, a file of the page by its
place in {outputs}; `runs`, tables of finished runs; and `tiny`, what cuts its trainings down, where that can be.
Afterwards the pages are made (pages.py), but with --tiny: its files only show that all is still made that a page reads.
"""

import argparse
import multiprocessing
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pages
from promptgeo.runs.table import load_runs
from promptgeo.tiny import PATH as TINY

GRID = "grid.yaml"
PROCESSES = multiprocessing.get_context("forkserver")
"""Each command has a process of its own, forked from one that has loaded the libraries: most of a short command."""
PROCESSES.set_forkserver_preload(
    [
        "promptgeo.training.engine",
        "promptgeo.training.tuning",
        "promptgeo.analysis.ask",
        "promptgeo.model.loading",
        "transformers.models.gemma3.modeling_gemma3",
        "transformers.models.gpt2.modeling_gpt2",
        "matplotlib.figure",
    ]
)


def commands(page: str, tiny: bool, **places: Path | str) -> list[list[str]]:
    """What is run for a page, in this order. places: model, data, outputs."""
    made = []
    for line, cut in pages.lines_of(page):
        words = [word.format(**places) for word in shlex.split(line)]
        if words[0] == "train":
            words += [f"outputs={places['outputs']}", *(shlex.split(cut) if tiny else ())]
        made.append([f"promptgeo.{words[0]}", *words[1:]])
    return made


def run(command: list[str]) -> None:
    """What python -m <command> does. Raises SystemExit with its status where it fails."""
    process = PROCESSES.Process(target=_run_module, args=(command,))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"python -m {shlex.join(command)}: exit status {process.exitcode}")


def _run_module(command: list[str]) -> None:
    sys.argv = list(command)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def keep(page: str, outputs: Path, into: Path) -> None:
    """Copies the files of a page from the folder of its runs."""
    grid = pages.grid_of(page)
    into.mkdir(parents=True, exist_ok=True)
    for name, place in grid["files"].items():
        shutil.copyfile(outputs / place, into / name)
    for name, table in grid.get("runs", {}).items():
        frame = load_runs(outputs / table["of"]).table[table["columns"]]
        frame.to_csv(into / name, index=False, float_format="%.9g")


def make(page: str, into: Path, tiny: bool, **places: Path | str) -> None:
    """Runs a page's commands and keeps its files. Raises SystemExit where a command fails."""
    for command in commands(page, tiny, **places):
        print(f"{page}: {shlex.join(command)}", flush=True)
        run(command)
    keep(page, Path(places["outputs"]), into)


def main() -> None:
    known = sorted(path.parent.name for path in pages.HERE.glob(f"*/{GRID}"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--model", help="the folder of the real model")
    parser.add_argument("--data", type=Path, help="the folder of the published data")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/results"), help="where runs go")
    parser.add_argument("--tiny", action="store_true", help="a short form on the embedded model")
    parser.add_argument("--into", type=Path, help="where the files go; default: beside the pages")
    given = parser.parse_args()
    if unknown := set(given.pages) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: no page of {', '.join(known)}")
    if given.tiny and given.into is None:
        parser.error("--tiny needs --into: its files are not the pages'")
    if not given.tiny and given.model is None:
        parser.error("--model FOLDER is needed: the pages are about a real model (--tiny: the embedded one)")
    model = TINY if given.tiny else Path(given.model).expanduser()
    for page in given.pages or known:
        if given.data is None and any("{data}" in line for line, _ in pages.lines_of(page)):
            print(f"{page}: left out, for it needs --data FOLDER", file=sys.stderr)
            continue
        if given.tiny and "tiny" not in pages.grid_of(page):
            print(f"{page}: left out, for it has no short form", file=sys.stderr)
            continue
        into = (given.into or pages.HERE) / page
        make(page, into, given.tiny, model=model, data=given.data or "", outputs=given.outputs)
    if not given.tiny and given.into is None:
        pages.main()


if __name__ == "__main__":
    main()
