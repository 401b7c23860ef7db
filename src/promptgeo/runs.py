"""The run folder: write it, read it, verify it; many of them as a RunTable.

run.json is written last and marks completion; it holds the SHA-256 of the other files and of itself. No file holds a clock time, so the
same command with the same seed on the same machine writes the same bytes.

Shapes: N runs, C checkpoints, P prompt tokens, d width.
"""

import csv
import hashlib
import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from promptgeo.errors import UserError

log = logging.getLogger(__name__)

METRICS = ["step", "epoch", "split", "loss", "accuracy", "label_accuracy", "n", "lr", "prompt_norm", "distance_to_p0"]
FILES = ("prompts.safetensors", "metrics.csv", "predictions.jsonl")


@dataclass(frozen=True)
class Trained:
    """What training one run produced. Arrays are copies: no later step changes them."""

    status: str
    initial: np.ndarray
    """[P, d] float32: P0."""
    trajectory: np.ndarray
    """[C, P, d] float32: the kept checkpoints."""
    steps: np.ndarray
    """[C] int64: the step of each checkpoint."""
    final: np.ndarray
    """[P, d] float32."""
    best: np.ndarray
    """[P, d] float32: lowest validation loss; the final prompt where there is no validation split."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.csv."""
    predictions: list[dict[str, Any]]
    """Rows of predictions.jsonl."""
    results: dict[str, Any]
    """The run's headline numbers."""


def write_run(folder: Path, header: dict[str, Any], trained: Trained) -> None:
    """Write a run folder; each file atomically, run.json last. header: id, config, seeds, versions, fingerprints."""
    tensors = {k: np.ascontiguousarray(getattr(trained, k)) for k in ("initial", "trajectory", "steps", "final", "best")}
    contents = {
        "prompts.safetensors": safetensors.numpy.save(tensors),
        "metrics.csv": _csv(trained.metrics),
        "predictions.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in trained.predictions).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").unlink(missing_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    summary = header | {"status": trained.status, "results": trained.results, "files": files}
    summary["sha256"] = _own_digest(summary)
    write_atomically(folder / "run.json", (json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def _own_digest(summary: dict[str, Any]) -> str:
    """SHA-256 of what run.json says besides this digest, however it is laid out."""
    text = json.dumps({k: v for k, v in summary.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` or leave the old file as it was."""
    temporary = path.with_name(f".{path.name}.tmp")  # always the same name: what a killed process left is written over
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _csv(rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, METRICS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue().encode()


class DamagedRun(UserError):
    """A run folder whose files are missing, unreadable or not what run.json says."""


@dataclass(frozen=True)
class Run:
    """One finished run folder, read only."""

    folder: Path
    info: dict[str, Any]
    """run.json."""

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True) -> "Run":
        """Raises DamagedRun, naming the folder and the file, unless every file has the SHA-256 that run.json gives."""
        folder = Path(folder).expanduser()
        try:
            info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            files = {name: info["files"][name] for name in FILES}
            undamaged = info["sha256"] == _own_digest(info)
        except FileNotFoundError as error:
            raise DamagedRun(f"{folder}: no finished run lies here (no run.json)") from error
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DamagedRun(f"{folder / 'run.json'}: cannot be read: {error}") from error
        if verify and not undamaged:
            raise DamagedRun(f"{folder / 'run.json'}: its SHA-256 is not the one it gives: the file was changed or damaged")
        for name, expected in files.items() if verify else ():
            path = folder / name
            if not path.is_file():
                raise DamagedRun(f"{path}: is missing")
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise DamagedRun(f"{path}: its SHA-256 is not the one in run.json: the file was changed or damaged")
        return cls(folder, info)

    @property
    def id(self) -> str:
        return self.info["id"]

    @property
    def status(self) -> str:
        return self.info["status"]

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """prompts.safetensors: initial, trajectory, steps, final, best."""
        return safetensors.numpy.load_file(self.folder / "prompts.safetensors")

    def prompt(self, which: str | int = "final") -> np.ndarray:
        """[P, d] float32: initial, final, best, or the checkpoint of a step (0: initial)."""
        if which == 0:
            which = "initial"
        if isinstance(which, str):
            if which not in ("initial", "final", "best"):
                raise UserError(f"which={which}: one of initial, final, best or a step is needed")
            return self.tensors[which]
        at = np.flatnonzero(self.tensors["steps"] == which)
        if not len(at):
            raise UserError(f"{self.folder}: has no checkpoint of step {which} (it has {', '.join(map(str, self.tensors['steps'][:20]))})")
        return self.tensors["trajectory"][at[0]]

    @cached_property
    def metrics(self):
        """metrics.csv as a pandas table."""
        import pandas as pd

        return pd.read_csv(self.folder / "metrics.csv")

    @cached_property
    def predictions(self) -> list[dict[str, Any]]:
        with (self.folder / "predictions.jsonl").open(encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    def row(self) -> dict[str, Any]:
        """The run as a row of a RunTable."""
        config, results = self.info["config"], self.info["results"]
        return {
            "id": self.id,
            "status": self.status,
            "model": config["model"]["name"],
            "task": config["task"]["name"],
            "init": config["init"]["name"],
            "template": config["template"]["name"],
            "seed": config["seed"],
            "prompt_length": results["prompt_length"],
            "lr": config["optimizer"]["lr"],
            "steps": results["steps"],
            "n": results["n"],
            **{f"accuracy_{which}": results["accuracy"].get(which) for which in ("none", "initial", "final", "best")},
            "loss": results["loss"].get("final"),
            "folder": str(self.folder),
        }


@dataclass(frozen=True)
class RunTable:
    """Runs as a pandas table (one row each) beside their prompts."""

    table: Any
    """pandas.DataFrame, one row per run."""
    runs: list[Run] | None = None
    """In the table's order; None for prompts that were trained elsewhere."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Prompts from elsewhere: final and perhaps initial, [N, P, d]."""

    @classmethod
    def from_arrays(cls, prompts: np.ndarray, table: Any, initial: np.ndarray | None = None) -> "RunTable":
        """Prompts [N, P, d] that were trained elsewhere, with one table row each."""
        prompts = np.asarray(prompts, dtype=np.float32)
        if prompts.ndim != 3 or len(prompts) != len(table):
            raise UserError(f"prompts have shape {list(prompts.shape)} for {len(table)} table rows; [N, P, d] with one row per prompt is needed")
        arrays = {"final": prompts.copy()}
        if initial is not None:
            arrays["initial"] = np.array(initial, dtype=np.float32)
            if arrays["initial"].shape != prompts.shape:
                raise UserError(f"initial has shape {list(arrays['initial'].shape)}, prompts {list(prompts.shape)}")
        return cls(table.reset_index(drop=True), None, arrays)

    def __len__(self) -> int:
        return len(self.table)

    def query(self, expression: str) -> "RunTable":
        """The runs for which a pandas query over the table's columns holds."""
        chosen = self.table.query(expression).index.tolist()
        runs = None if self.runs is None else [self.runs[i] for i in chosen]
        return RunTable(self.table.loc[chosen].reset_index(drop=True), runs, {k: v[chosen] for k, v in self.arrays.items()})

    def prompts(self, which: str | int = "final") -> np.ndarray:
        """[N, P, d] float32: initial, final, best, or the checkpoint of a step. Raises UserError where shapes differ."""
        if self.runs is None:
            if which not in self.arrays:
                raise UserError(f"which={which}: these prompts only have {', '.join(self.arrays)}")
            return self.arrays[which]
        prompts = [run.prompt(which) for run in self.runs]
        shapes = sorted({p.shape for p in prompts})
        if len(shapes) > 1:
            raise UserError(f"these runs' prompts have different shapes ({', '.join(map(str, shapes))}); choose some with .query(...)")
        if not prompts:
            raise UserError("there are no runs")
        return np.stack(prompts)

    def trajectory(self) -> tuple[np.ndarray, np.ndarray]:
        """[N, C, P, d] float32 and steps [C] int64: the checkpoints that all runs have, P0 (step 0) first.

        Raises UserError where runs have no common checkpoints, or prompts from elsewhere none at all.
        """
        if self.runs is None:
            if "trajectory" not in self.arrays:
                raise UserError("these prompts have no checkpoints")
            return self.arrays["trajectory"], self.arrays["steps"]
        steps = sorted(set.intersection(*(set(run.tensors["steps"].tolist()) for run in self.runs)))
        if not steps:
            raise UserError("these runs have no checkpoint at a common step; choose runs of one task with .query(...), or fix training.max_steps")
        return np.stack([self.prompts(step) for step in (0, *steps)], axis=1), np.array([0, *steps])


def find_runs(path: str | Path) -> tuple[list[Run], list[DamagedRun]]:
    """Finished runs at or below `path`, by folder name, and what was damaged."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    runs, damaged = [], []
    for marker in sorted(path.rglob("run.json")):
        try:
            runs.append(Run.load(marker.parent))
        except DamagedRun as error:
            damaged.append(error)
    return runs, damaged


def load_runs(*paths: str | Path) -> RunTable:
    """All finished runs at or below the paths. A damaged folder is named in the log and left out."""
    runs: list[Run] = []
    for path in paths:
        found, damaged = find_runs(path)
        runs += found
        for error in damaged:
            log.warning("left out: %s", error)
    return table_of(runs)


def table_of(runs: Sequence[Run]) -> RunTable:
    import pandas as pd

    return RunTable(pd.DataFrame([run.row() for run in runs]), list(runs))
