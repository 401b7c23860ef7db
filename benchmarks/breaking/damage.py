"""Is a file noticed that lost its end, or in which one byte is another? In every kind of file that promptgeo writes.

What was damaged must be said, never read as if it were whole, and never be overwritten unasked; what is derived must
be made again, as it was. Damage that changes nothing of what a file says (one kind of white space for another) is none.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from breaking.command import LONGEST, Broken, Ended, Running, Tried, changes, contents, results, run

GRID = ("task=present_past", "init=cat,dog", "task.split.max_train=16", "task.split.max_test=4", "training.max_steps=3")
GRID = (*GRID, "outputs=out", "name=x", "-m")
ANALYSES = ("runs=out/x", "analysis=[curves]")
STUDY = ("init_vs_task", "model=tiny", "task=present_past,country_capital", *GRID[1:-2], "name=study")
LONG = (
    "task=present_past",
    "init=cat",
    "seed=7",
    "training.epochs=400",
    "task.split.max_test=4",
    "outputs=out",
    "name=x",
)
FLIP, CUT = "flip", "cut"


@dataclass(frozen=True)
class Kind:
    """Files that are read by the same code."""

    name: str
    files: str
    """A pattern below the folder of the campaign."""
    check: Callable[["Place"], list[str]]


class Place:
    """Copies of one folder, in each of which one file gets damaged."""

    def __init__(self, work: Path, small: bool):
        self.whole, self.folder = work / "whole", work / "damaged"
        _make(self.whole, small)
        self.expected = results(self.whole)
        self.output = ""
        self.seconds = 0.0

    def damaged(self, file: Path, how: str, chance: random.Random) -> str | None:
        """Damage the file in a new copy. Returns what was done to it; None where that changes nothing it says."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.whole, self.folder)
        self.file, self.output, self.seconds = file, "", 0.0
        content = (self.whole / file).read_bytes()
        at = chance.randrange(len(content))
        if how == CUT:
            other, done = content[:at], f"cut after {at} of {len(content)} bytes"
        else:
            byte = content[at] ^ chance.randrange(1, 256)
            other, done = content[:at] + bytes([byte]) + content[at + 1 :], f"byte {at}: {content[at]} -> {byte}"
        (self.folder / file).write_bytes(other)
        return None if _says_the_same(file, content, other) else done

    def run(self, main: Callable, *line: str) -> Ended:
        ended = run(main, line, self.folder, limit=12 * LONGEST)
        self.output += f"$ {' '.join(line)}\n{ended.output}\n"
        self.seconds = max(self.seconds, ended.seconds)
        return ended

    def differences(self) -> list[str]:
        """Between what lies there now and what lay there whole, but for damaged results that were kept."""
        found = {name: value for name, value in results(self.folder).items() if ".damaged" not in name}
        return changes(self.expected, found)


def _says_the_same(file: Path, content: bytes, other: bytes) -> bool:
    if content == other:
        return True
    if file.suffix != ".json":
        return False
    try:
        return json.loads(content) == json.loads(other)
    except (ValueError, RecursionError):
        return False


def _make(folder: Path, small: bool) -> None:
    import numpy as np

    from promptgeo.cli import analyze, reproduce, runs, train

    folder.mkdir(parents=True)
    np.save(folder / "prompts.npy", np.arange(32, dtype=np.float32).reshape(2, 2, 8))
    (folder / "table.csv").write_text("task,init,seed\na,cat,0\nb,cat,0\n", encoding="utf-8")
    imported = ("import", "prompts.npy", "--table", "table.csv", "--out", "out/imported")
    with Running(train.main, LONG, folder) as stopped:
        while not (states := list(folder.glob("out/x/*/state/state.safetensors"))) and not stopped.over(0.05):
            pass
    if not states:
        raise Broken(f"no state was saved:\n{stopped.output()}")
    made = [(train.main, GRID), (analyze.main, ANALYSES), (runs.main, imported)]
    for main, line in made + ([] if small else [(reproduce.main, STUDY)]):
        if (ended := run(main, line, folder)).status != 0:
            raise Broken(f"{' '.join(line)}: ends with status {ended.status}:\n{ended.output}")


def _run_file(place: Place) -> list[str]:
    """Listed as damaged, left out of analyses, refused by training; deleted, it is trained again as it was."""
    from promptgeo.cli import analyze, runs, train

    listed = place.run(runs.main, "out/x")
    problems = listed.problems((1,))
    if "damaged: " not in listed.output or place.file.parent.name not in listed.output:
        problems.append("promptgeo-runs does not list it as damaged")
    before = contents(place.folder)
    refused = place.run(train.main, *GRID)
    problems += refused.problems((2,)) + changes(before, contents(place.folder))
    analysed = place.run(analyze.main, *ANALYSES, "out=out/again")
    problems += analysed.problems((0, 1))
    if place.file.parent.name not in analysed.output:
        problems.append("analyses do not say that it is left out")
    shutil.rmtree(place.folder / "out" / "again", ignore_errors=True)
    shutil.rmtree(place.folder / place.file.parent)
    return problems + place.run(train.main, *GRID).problems((0,)) + place.differences()


def _imported_file(place: Place) -> list[str]:
    """Listed as damaged; importing again finds it and overwrites nothing."""
    from promptgeo.cli import runs

    listed = place.run(runs.main, "out/imported")
    problems = listed.problems((1,))
    if "damaged: " not in listed.output:
        problems.append("promptgeo-runs does not list it as damaged")
    before = contents(place.folder)
    again = place.run(runs.main, "import", "prompts.npy", "--table", "table.csv", "--out", "out/imported")
    return problems + again.problems((2,)) + changes(before, contents(place.folder))


def _state(place: Place) -> list[str]:
    """A run starts anew where its state is damaged, which is said, and ends as it would have ended."""
    from promptgeo.training.run_state import _UNREADABLE, _read_state

    try:
        _read_state(place.folder / place.file)
    except _UNREADABLE:
        return []
    return ["a damaged state is read as if it were whole"]


def _result(place: Place) -> list[str]:
    """Computed again, which is said, with the same results; the damaged ones are kept."""
    from promptgeo.cli import analyze

    again = place.run(analyze.main, *ANALYSES)
    problems = again.problems((0,)) + place.differences()
    if "it is computed again" not in again.output and "is no analysis's" not in again.output:
        problems.append("nothing says that it is computed again")
    if not list((place.folder / "out/x/analysis").glob("*.damaged")):
        problems.append("the damaged results are gone")
    return problems


def _made_again(place: Place) -> list[str]:
    """The report and what it is made of."""
    from promptgeo.cli import reproduce

    return place.run(reproduce.main, *STUDY).problems((0,)) + place.differences()


def _training_times(place: Place) -> list[str]:
    """Nothing can make them again: the report is made without them, which is said, and what was damaged is kept."""
    from promptgeo.cli import reproduce

    again = place.run(reproduce.main, *STUDY)
    problems = again.problems((0,))
    if "how long training took is not known" not in again.output:
        problems.append("nothing says that the times are damaged")
    if not place.folder.joinpath(f"{place.file}.damaged").exists():
        problems.append("the damaged times are gone")
    return problems + [each for each in place.differences() if str(place.file) not in each]


def _only_noted(place: Place) -> list[str]:
    """Hydra's files are for people: all goes on as before."""
    from promptgeo.cli import runs, train

    return [
        *place.run(train.main, *GRID).problems((0,)),
        *place.run(runs.main, "out/imported").problems((0,)),
        *place.differences(),
    ]


KINDS = (
    Kind("prompts of a run", "out/x/*/prompts.safetensors", _run_file),
    Kind("run.json", "out/x/*/run.json", _run_file),
    Kind("metrics", "out/x/*/metrics.csv", _run_file),
    Kind("predictions", "out/x/*/predictions.jsonl", _run_file),
    Kind("state for resuming", "out/x/*/state/state.safetensors", _state),
    Kind("an analysis's result.json", "out/x/analysis/curves/result.json", _result),
    Kind("an analysis's numbers", "out/x/analysis/curves/numbers.csv", _result),
    Kind("an analysis's tables", "out/x/analysis/curves/*curves*.csv", _result),
    Kind("an analysis's figures", "out/x/analysis/curves/*.svg", _result),
    Kind("an import's prompts", "out/imported/*/prompts.safetensors", _imported_file),
    Kind("an import's run.json", "out/imported/*/run.json", _imported_file),
    Kind("Hydra's files", "out/x/*/.hydra/*.yaml", _only_noted),
    Kind("a sweep's own file", "out/x/multirun.yaml", _only_noted),
)
STUDIED = (
    Kind("a report", "out/study/report.html", _made_again),
    Kind("a study's training.json", "out/study/training.json", _training_times),
)


def damage(work: Path, flips: int, cuts: int, chance: random.Random, small: bool) -> Iterator[Tried]:
    """Flips and truncations, spread over the kinds of files. small: without a study's own."""
    place = Place(work, small)
    kinds = [*KINDS, *([] if small else STUDIED)]
    chance.shuffle(kinds)  # a short campaign tries other kinds with another seed
    for k, how in enumerate([FLIP] * flips + [CUT] * cuts):
        kind = kinds[k % len(kinds)]
        files = [file for file in sorted(place.whole.glob(kind.files)) if file.stat().st_size]
        if not files:
            raise Broken(f"{kind.name}: there is no {kind.files}")
        file = chance.choice(files).relative_to(place.whole)
        while (what := place.damaged(file, how, chance)) is None:
            pass
        problems = kind.check(place)
        yield Tried("damage", f"{kind.name}: {file}, {what}", problems, place.seconds, place.output)
