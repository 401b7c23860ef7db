"""SIGKILL at random moments over a sweep of the embedded model: does the same command always end with the same bytes?

    python benchmarks/kills.py [--kills 20] [--seed 0] [--out kills.json] [key=value ...]

key=value: what to add to the sweep's command, default training.epochs=4. An undisturbed sweep of 24 runs comes first;
then the same sweep in another folder, killed again and again with its whole process group, each time followed by the
same command. A kill comes at a random moment: one in five while the command starts, the others over the training that
is left. Where the sweep is complete before all kills have come, a random half of its run folders is deleted. At the end
every file of every run folder must be equal, but those of .hydra/ and *.log. Exit status 1 if not.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import safetensors

from promptgeo.config.compose import compose_grid
from promptgeo.training.run_state import state_file

SWEEP = Path("outputs") / "kills"  # relative: run.json holds the outputs folder, and must be the same for both sweeps
GRID = ("task=country_capital,present_past", "init=cat,vocab,normal", "seed=0,1,2,3")
EARLIEST = 2.0
"""Seconds: no kill comes sooner."""
TIMEOUT = 1800.0


@lru_cache
def count_runs(overrides: tuple[str, ...]) -> int:
    """24, or fewer where an override replaces one of the grid's axes (seed=0)."""
    return len(compose_grid([*GRID, *overrides], multirun=True))


class Command:
    """The sweep's command, at work in a folder, in a process group of its own."""

    def __init__(self, folder: Path, overrides: list[str]):
        self.folder, self.began, self.runs = folder, time.time(), count_runs(tuple(overrides))
        self.log = folder / "output.txt"
        command = [sys.executable, "-m", "promptgeo.train", *GRID, *overrides]
        command += [f"outputs={SWEEP.parent}", f"name={SWEEP.name}", "-m"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def over(self, seconds: float) -> bool:
        """Waits at most that long; whether the command has ended, which it must do well."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if status != 0:
            raise RuntimeError(
                f"the command ended with status {status}:\n{self.log.read_text(errors='replace')[-3000:]}"
            )
        return True

    @property
    def phase(self) -> str:
        """before, during or after training. Hydra writes multirun.yaml as it begins the sweep; run.json ends a run."""
        if len(finished(self.folder)) == self.runs:
            return "after"
        begun = self.folder / SWEEP / "multirun.yaml"
        return "during" if begun.exists() and begun.stat().st_mtime >= self.began else "before"


@dataclass(frozen=True)
class Undisturbed:
    """What the sweep is when nothing kills it."""

    startup: float
    """Seconds until training began."""
    training: float
    """Seconds from there until the last run was over."""
    total: float
    steps: dict[str, int]
    """Of each run, by the name of its folder."""
    files: dict[str, str]

    def seconds_left(self, folder: Path) -> float:
        """Of training, by the steps that were saved; a tenth at least, for what comes after the last step."""
        done = finished(folder)
        left = sum(steps - saved_step(folder / SWEEP / name) for name, steps in self.steps.items() if name not in done)
        return self.training * max(left / sum(self.steps.values()), 0.1)


def run_undisturbed(folder: Path, overrides: list[str]) -> Undisturbed:
    reached: dict[str, float] = {}
    with Command(folder, overrides) as command:
        start = time.monotonic()
        while not command.over(0.05):
            reached.setdefault(command.phase, time.monotonic() - start)
            if time.monotonic() - start > TIMEOUT:
                raise RuntimeError(f"the undisturbed sweep takes more than {TIMEOUT:.0f} s")
    total = time.monotonic() - start
    steps = {
        run.name: json.loads((run / "run.json").read_text())["results"]["steps"] for run in finished(folder).values()
    }
    startup = reached["during"]
    return Undisturbed(startup, reached.get("after", total) - startup, total, steps, run_files(folder))


def finished(folder: Path) -> dict[str, Path]:
    """The sweep's finished run folders, by name."""
    return {marker.parent.name: marker.parent for marker in sorted((folder / SWEEP).glob("*/run.json"))}


def saved_step(run: Path) -> int:
    """The step from which a killed run goes on."""
    if not state_file(run).exists():
        return 0
    with safetensors.safe_open(state_file(run), "np") as stream:
        return json.loads(stream.metadata()["run"])["step"]


def run_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of the run folders, but for .hydra/ and *.log."""
    files = [path for path in sorted((folder / SWEEP).glob("*/**/*")) if path.is_file()]
    kept = [path for path in files if ".hydra" not in path.parts and path.suffix != ".log"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def kill_again_and_again(
    folder: Path, undisturbed: Undisturbed, kills: int, overrides: list[str], chance: random.Random
) -> list[dict]:
    """One record for each command: when it was to be killed, and what that hit."""
    records: list[dict] = []
    while (count := sum(record["killed"] for record in records)) < kills:
        deleted = delete_half(folder, chance) if len(finished(folder)) == len(undisturbed.steps) else 0
        left = undisturbed.seconds_left(folder)
        startup = max(undisturbed.startup, EARLIEST)
        early = chance.random() < 0.2
        moment = chance.uniform(EARLIEST, startup) if early else chance.uniform(startup, startup + left)
        with Command(folder, overrides) as command:
            killed = not command.over(moment)
            phase = command.phase if killed else "too late"
        steps = {name: saved_step(folder / SWEEP / name) for name in undisturbed.steps}
        record = {"killed": killed, "phase": phase, "moment": moment, "deleted_before": deleted}
        record |= {"finished_runs": len(finished(folder)), "saved_runs": sum(step > 0 for step in steps.values())}
        record |= {"saved_steps": sum(steps.values())}
        records.append(record)
        print(f"kill {count + killed}/{kills}: {record}", file=sys.stderr, flush=True)
    return records


def delete_half(folder: Path, chance: random.Random) -> int:
    runs = sorted(finished(folder).values())
    chosen = chance.sample(runs, len(runs) // 2)
    for run in chosen:
        shutil.rmtree(run)
    return len(chosen)


def differences(expected: dict[str, str], present: dict[str, str]) -> list[str]:
    kinds = {True: "differs", False: "is missing"}
    wrong = [f"{path}: {kinds[path in present]}" for path, sha256 in expected.items() if present.get(path) != sha256]
    return wrong + [f"{path}: should not be there" for path in present if path not in expected]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the kills' moments and of what is deleted")
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    parser.add_argument("overrides", nargs="*", default=["training.epochs=4"], metavar="key=value", help="of the sweep")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no command outlives this one
    work = Path(tempfile.mkdtemp(prefix="promptgeo-kills-"))
    for name in ("undisturbed", "killed"):
        (work / name).mkdir()
    undisturbed = run_undisturbed(work / "undisturbed", arguments.overrides)
    if len(undisturbed.steps) != (runs := count_runs(tuple(arguments.overrides))):
        sys.exit(f"the undisturbed sweep has {len(undisturbed.steps)} runs instead of {runs}: {work}")
    print(
        f"undisturbed: training from {undisturbed.startup:.1f} s, for {undisturbed.training:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    killed = work / "killed"
    chance = random.Random(arguments.seed)
    records = kill_again_and_again(killed, undisturbed, arguments.kills, arguments.overrides, chance)
    with Command(killed, arguments.overrides) as command:
        if not command.over(TIMEOUT):
            raise RuntimeError(f"the last command takes more than {TIMEOUT:.0f} s: {command.log}")
    wrong = differences(undisturbed.files, run_files(killed))
    hit = Counter(record["phase"] for record in records)
    report = {
        "kills": sum(record["killed"] for record in records),
        "hit": {phase: hit[phase] for phase in ("before", "during", "after")},
        "too_late": sum(not record["killed"] for record in records),
        "identical": not wrong,
        "differing_files": wrong,
        "runs": runs,
        "files": len(undisturbed.files),
        "overrides": arguments.overrides,
        "seed": arguments.seed,
        "undisturbed_seconds": {k: getattr(undisturbed, k) for k in ("startup", "training", "total")},
        "commands": records,
    }
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    if wrong:
        print(f"not identical; both sweeps are kept in {work}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
