"""Does a commit compute what an earlier one did, to the last bit? For changes that should change no number.

    python benchmarks/same_bytes.py COMMIT [--head COMMIT] [--keep FOLDER] [--jobs N]

COMMIT and HEAD are checked out into temporary worktrees. With the code of each, this Python trains the same small grids
and runs every analysis of conf/analysis/ on them (small_grids.py), by the commands alone, each side in a folder of its
own. Then it compares

- of every run: its identity, run.json and the files under its checksums, byte for byte;
- of every analysis: numbers.csv and every other table, as text; its findings' numbers, and whether claims hold.

It prints what it compared and every difference with both values. Exit status 1 where there is a difference that ALLOWED
does not name, or where a command fails or an analysis gives no number. Figures and sentences may differ; it says how
many do.

--keep FOLDER keeps both sides there, and a side that is finished is not computed again: it is known by its commit,
small_grids.py, the packages' versions, the processor and the threads. The same commit twice is computed twice, which
shows whether it is deterministic. Every command has OMP_NUM_THREADS threads (default 1); --jobs run at once (default:
one for each core).
"""

import argparse
import csv
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from small_grids import Failed, Side, make_shared, threads

ALLOWED: dict[str, str] = {}
"""Differences that are meant: a pattern (as of file names) for a difference's name -> the reason."""

ROOT = Path(__file__).resolve().parents[1]
COMPUTE = ("torch", "transformers", "tokenizers", "lightning", "datasets", "numpy", "scipy", "scikit-learn", "pandas")
"""Packages that decide numbers."""


# What a side says


@dataclass
class Facts:
    """What a side computed, each fact by its name."""

    exact: dict[str, str] = field(default_factory=dict)
    """Must be the same."""
    free: dict[str, str] = field(default_factory=dict)
    """Figures and sentences, which may differ."""
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, folder: Path) -> "Facts":
        facts = cls()
        for name, run in _runs(folder):
            facts._add_run(name, run)
        results = sorted(path.parent for path in folder.glob("analysis/*/*/result.json"))
        facts.counts["analyses"] = len({result.name for result in results})
        for result in results:
            facts._add_result(result.relative_to(folder).as_posix(), result)
        for name, value in facts.exact.items():
            what = "numbers of analyses" if name.startswith("analysis/") else "numbers of runs"
            facts.counts[what] += _is_number(value)
        return facts

    def _add_run(self, name: str, folder: Path) -> None:
        info = json.loads((folder / "run.json").read_text())
        self.counts["runs"] += 1
        self.exact[f"{name} folder"] = folder.name
        self._add_tree(f"{name} run.json", info)
        for file in ("run.json", *info["files"]):
            self._add_bytes(f"{name} {file}", folder / file)
        self._add_table(f"{name} metrics.csv", folder / "metrics.csv")
        for i, line in enumerate((folder / "predictions.jsonl").read_text().splitlines(), start=1):
            self.exact[f"{name} predictions.jsonl line {i}"] = line
        for tensor, array in load_file(folder / "prompts.safetensors").items():
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            self.exact[f"{name} prompts.safetensors {tensor}"] = f"{array.dtype}{list(array.shape)} {digest}"

    def _add_result(self, name: str, folder: Path) -> None:
        """An analysis's tables; of its findings only the numbers, in whatever order."""
        self.counts["results"] += 1
        info = json.loads((folder / "result.json").read_text())
        listed = []
        for finding in info["findings"]:
            # 14 and 14.0 are one number, whichever way a commit wrote it.
            numbers = {
                k: float(v) if isinstance(v, int) else v for k, v in finding.items() if k not in ("sentence", "unit")
            }
            listed.append(json.dumps(numbers, sort_keys=True))
            self.free[f"{name} sentence {len(listed)}"] = finding["sentence"]
        self.exact |= {f"{name} finding {i}": text for i, text in enumerate(sorted(listed), start=1)}
        for claim in info["claims"]:
            key = " ".join(str(claim[k]) for k in ("of", "convention", "name") if k in claim)
            self.exact[f"{name} claim {key}"] = str(claim["holds"])
            self.free[f"{name} evidence {key}"] = claim["evidence"]
        self.counts["findings"] += len(listed)
        for path in sorted(folder.glob("*.csv")):
            self._add_bytes(f"{name}/{path.name}", path)
            self._add_table(f"{name}/{path.name}", path)
        for path in sorted(folder.glob("*.svg")):
            self.free[f"{name}/{path.name}"] = path.read_text()

    def _add_bytes(self, name: str, path: Path) -> None:
        self.counts["files"] += 1
        self.exact[f"{name} SHA-256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    def _add_tree(self, name: str, tree: dict[str, Any]) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                self._add_tree(f"{name} {key}", value)
            else:
                self.exact[f"{name} {key}"] = json.dumps(value)

    def _add_table(self, name: str, path: Path) -> None:
        """Each cell: of numbers.csv by the number's name, of other tables by its row."""
        seen: Counter[str] = Counter()
        for i, row in enumerate(csv.DictReader(io.StringIO(path.read_text())), start=1):
            key = f"row {i}"
            if path.name == "numbers.csv":
                key = " ".join(filter(None, (row["of"], row["convention"], row["quantity"])))
            seen[key] += 1
            again = f" #{seen[key]}" if seen[key] > 1 else ""
            for column, value in row.items():
                self.exact[f"{name} {key}{again} {column}"] = value or ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _runs(side: Path) -> Iterator[tuple[str, Path]]:
    """Each run by a name that a changed identity leaves: its folder's without it, counted where several share that."""
    same: dict[str, list[Path]] = defaultdict(list)
    for path in side.glob("outputs/*/*/run.json"):
        same[path.parent.relative_to(side).as_posix().rpartition("-")[0]].append(path.parent)
    for name, folders in sorted(same.items()):
        folders.sort(key=lambda folder: json.dumps(json.loads((folder / "run.json").read_text())["config"]))
        for i, folder in enumerate(folders, start=1):
            yield f"{name} #{i}" if len(folders) > 1 else name, folder


# Comparing


def report(old: Facts, new: Facts) -> bool:
    """Print what was compared and what differs; whether all is the same but for what ALLOWED names."""
    names = [name for name in {**old.exact, **new.exact} if old.exact.get(name) != new.exact.get(name)]
    reasons = {name: why for name in names for pattern, why in ALLOWED.items() if fnmatchcase(name, pattern)}
    for name in names:
        allowed = f" (allowed: {reasons[name]})" if name in reasons else ""
        print(f"{name}{allowed}\n    {old.exact.get(name, 'missing')}\n    {new.exact.get(name, 'missing')}")
    for pattern in ALLOWED:
        if not any(fnmatchcase(name, pattern) for name in names):
            print(f"allowed, and the same: {pattern}")
    free = [name for name in {**old.free, **new.free} if old.free.get(name) != new.free.get(name)]
    figures = sum(name.endswith(".svg") for name in free)
    counted = ", ".join(f"{count} {what}" for what, count in old.counts.items())
    print(f"compared: {counted}")
    print(f"of {len(old.free)} figures and sentences, {figures} figures and {len(free) - figures} sentences differ")
    print(f"differences: {len(names)}, of which {len(reasons)} are allowed")
    return len(names) == len(reasons)


# The two sides


def git(*arguments: str) -> str:
    outcome = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if outcome.returncode:
        raise Failed(f"git {' '.join(arguments)}: {outcome.stderr.strip()}")
    return outcome.stdout.strip()


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="promptgeo-code-") as parent:
        folder = Path(parent) / commit[:12]
        git("worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            git("worktree", "remove", "--force", str(folder))


def circumstances() -> str:
    """A digest of what else decides what a side computes, and its bits."""
    packages = [f"{name} {version(name)}" for name in (*COMPUTE, "hydra-core", "omegaconf", "matplotlib")]
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [f"model name {platform.processor()}"]
    processor = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    grids = Path(__file__).with_name("small_grids.py").read_text()
    return hashlib.sha256(json.dumps([grids, sys.version, packages, processor, threads()]).encode()).hexdigest()[:12]


def computed(commit: str, folder: Path, jobs: int) -> Path:
    """The side's folder; what is finished there is not computed again."""
    if (folder / "finished").exists():
        print(f"{commit[:7]}: computed before, in {folder}", flush=True)
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    with worktree(commit) as code:
        Side(folder.name, code, folder, jobs).compute()
    (folder / "finished").touch()
    return folder


def compare(commit: str, head: str, keep: Path, jobs: int) -> bool:
    place = keep / circumstances()
    keep.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another comparison may be computing the same side
        if not (place / "shared" / "finished").exists():
            shutil.rmtree(place, ignore_errors=True)  # sides that read another model
            (place / "shared").mkdir(parents=True)
            make_shared(place / "shared")
            (place / "shared" / "finished").touch()
        old = computed(commit, place / commit[:12], jobs)
        new = computed(head, place / (f"{head[:12]}-again" if head == commit else head[:12]), jobs)
    same = report(Facts.of(old), Facts.of(new))
    print(f"{commit[:7]} and {head[:7]} {'are equal' if same else 'DIFFER'}", flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit", metavar="COMMIT")
    parser.add_argument("--head", metavar="COMMIT", default="HEAD")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep both sides there, and use what is finished")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="commands at once")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no command and no worktree is left behind
    try:
        commit, head = (git("rev-parse", "--verify", f"{c}^{{commit}}") for c in (arguments.commit, arguments.head))
        if git("status", "--porcelain"):
            print("there are uncommitted changes: they are not looked at")
        if arguments.keep is not None:
            same = compare(commit, head, arguments.keep.resolve(), arguments.jobs)
        else:
            with tempfile.TemporaryDirectory(prefix="promptgeo-same-") as folder:
                same = compare(commit, head, Path(folder), arguments.jobs)
    except Failed as error:
        sys.exit(f"nothing was compared: {error}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
