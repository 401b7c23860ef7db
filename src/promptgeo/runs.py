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
    initial: np.ndarray | None
    """[P, d] float32: P0; None where an imported prompt's is not known."""
    trajectory: np.ndarray
    """[C, P, d] float32: the kept checkpoints."""
    steps: np.ndarray
    """[C] int64: the step of each checkpoint."""
    final: np.ndarray
    """[P, d] float32."""
    best: np.ndarray | None
    """[P, d] float32: lowest validation loss; the final prompt where there is no validation split; None where an imported prompt's is not known."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.csv."""
    predictions: list[dict[str, Any]]
    """Rows of predictions.jsonl."""
    results: dict[str, Any]
    """The run's headline numbers."""


def write_run(folder: Path, header: dict[str, Any], trained: Trained) -> None:
    """Write a run folder; each file atomically, run.json last. header: id, config, seeds, versions, fingerprints."""
    tensors = {k: np.ascontiguousarray(a) for k in ("initial", "trajectory", "steps", "final", "best") if (a := getattr(trained, k)) is not None}
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
        """prompts.safetensors: trajectory, steps, final; initial and best where they are known."""
        return safetensors.numpy.load_file(self.folder / "prompts.safetensors")

    def prompt(self, which: str | int = "final") -> np.ndarray:
        """[P, d] float32: initial, final, best, or the checkpoint of a step (0: initial). Raises UserError for what the run has not."""
        if which == 0:
            which = "initial"
        if isinstance(which, str):
            if which not in ("initial", "final", "best"):
                raise UserError(f"which={which}: one of initial, final, best or a step is needed")
            if which not in self.tensors:
                raise UserError(f"{self.folder}: {_NOT_IMPORTED[which]}")
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


_NOT_IMPORTED = {
    "initial": "was imported without P0: it has no initial prompt and no delta (promptgeo-runs import takes --initial P0.npy, or --steps 0:1 where the first checkpoint is P0)",
    "best": "was imported without its best prompt; it has its final one",
}


@dataclass(frozen=True)
class RunTable:
    """Runs as a pandas table (one row each) beside their prompts."""

    table: Any
    """pandas.DataFrame, one row per run."""
    runs: list[Run] | None = None
    """In the table's order; None for prompts that were trained elsewhere."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Prompts from elsewhere: final and perhaps initial, [N, P, d]; perhaps trajectory [N, C, P, d] and steps [C], P0 (step 0) first."""

    @classmethod
    def from_arrays(
        cls,
        prompts: np.ndarray,
        table: Any,
        initial: np.ndarray | None = None,
        trajectory: np.ndarray | None = None,
        steps: Sequence[int] | None = None,
    ) -> "RunTable":
        """Prompts [N, P, d] that were trained elsewhere, with one table row each.

        initial: P0, [N, P, d]. trajectory: checkpoints [N, C, P, d] at the steps [C] (1 to C where they are not given; step 0 is P0).
        Raises UserError where shapes do not fit, steps do not rise, or checkpoints come without P0.
        """
        prompts = np.asarray(prompts, dtype=np.float32)
        if prompts.ndim != 3 or len(prompts) != len(table):
            raise UserError(f"prompts have shape {list(prompts.shape)} for {len(table)} table rows; [N, P, d] with one row per prompt is needed")
        arrays = {"final": prompts.copy()}
        if initial is not None:
            arrays["initial"] = np.array(initial, dtype=np.float32)
            if arrays["initial"].shape != prompts.shape:
                raise UserError(f"initial has shape {list(arrays['initial'].shape)}, prompts {list(prompts.shape)}")
        if trajectory is not None:
            arrays |= _with_p0(arrays.get("initial"), np.array(trajectory, dtype=np.float32), steps, prompts.shape)
        return cls(table.reset_index(drop=True), None, arrays)

    def __len__(self) -> int:
        return len(self.table)

    def query(self, expression: str) -> "RunTable":
        """The runs for which a pandas query over the table's columns holds. Raises UserError where it cannot be asked."""
        try:
            chosen = self.table.query(expression).index.tolist()
        except Exception as error:  # pandas raises whatever the expression does
            raise UserError(f"{expression}: cannot be asked of these runs ({error}); their columns: {', '.join(self.table.columns)}") from error
        runs = None if self.runs is None else [self.runs[i] for i in chosen]
        arrays = {k: v if k == "steps" else v[chosen] for k, v in self.arrays.items()}
        return RunTable(self.table.loc[chosen].reset_index(drop=True), runs, arrays)

    def prompts(self, which: str | int = "final") -> np.ndarray:
        """[N, P, d] float32: initial, final, best, or the checkpoint of a step. Raises UserError where shapes differ."""
        if self.runs is None:
            return self._from_arrays(which)
        prompts = [run.prompt(which) for run in self.runs]
        shapes = sorted({p.shape for p in prompts})
        if len(shapes) > 1:
            raise UserError(f"these runs' prompts have different shapes ({', '.join(map(str, shapes))}); choose some with where='prompt_length == 4' (in Python .query)")
        if not prompts:
            raise UserError("there are no runs")
        return np.stack(prompts)

    def _from_arrays(self, which: str | int) -> np.ndarray:
        which = "initial" if which == 0 else which
        steps = self.arrays.get("steps", np.empty(0, int))
        if not isinstance(which, str) and which in steps:
            return self.arrays["trajectory"][:, np.flatnonzero(steps == which)[0]]
        if which not in (named := [k for k in self.arrays if k not in ("trajectory", "steps")]):
            checkpoints = f", and steps {', '.join(map(str, steps[:20]))}" if len(steps) else ""
            raise UserError(f"which={which}: these prompts only have {', '.join(named)}{checkpoints}")
        return self.arrays[which]

    def trajectory(self) -> tuple[np.ndarray, np.ndarray]:
        """[N, C, P, d] float32 and steps [C] int64: the checkpoints that all runs have, P0 (step 0) first.

        Raises UserError where runs have no common checkpoints, or prompts from elsewhere none at all or no P0.
        """
        if self.runs is None:
            if "trajectory" not in self.arrays:
                raise UserError("these prompts have no checkpoints")
            return self.arrays["trajectory"], self.arrays["steps"]
        steps = sorted(set.intersection(*(set(run.tensors["steps"].tolist()) for run in self.runs)))
        if not any(len(run.tensors["steps"]) for run in self.runs):
            raise UserError("these runs have no checkpoints")
        if not steps:
            raise UserError("these runs have no checkpoint at a common step; choose runs of one task with .query(...), or fix training.max_steps")
        return np.stack([self.prompts(step) for step in (0, *steps)], axis=1), np.array([0, *steps])


def _with_p0(initial_NPd: np.ndarray | None, trajectory_NCPd: np.ndarray, steps: Sequence[int] | None, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """initial, trajectory and steps, with P0 as step 0 before the others."""
    if trajectory_NCPd.ndim != 4 or (trajectory_NCPd.shape[0], *trajectory_NCPd.shape[2:]) != tuple(shape):
        raise UserError(f"trajectory has shape {list(trajectory_NCPd.shape)}, prompts {list(shape)}; [N, C, P, d] is needed")
    steps_C = np.arange(1, trajectory_NCPd.shape[1] + 1) if steps is None else np.array(steps, dtype=np.int64)
    if steps_C.shape != trajectory_NCPd.shape[1:2] or (steps_C < 0).any() or (np.diff(steps_C) <= 0).any():
        raise UserError(f"steps: {trajectory_NCPd.shape[1]} rising numbers are needed, one per checkpoint; these are {steps_C.tolist()}")
    if len(steps_C) and steps_C[0] == 0:
        if initial_NPd is not None and not np.array_equal(initial_NPd, trajectory_NCPd[:, 0]):
            raise UserError("initial differs from the checkpoint of step 0; both are P0: leave one out")
    elif initial_NPd is None:
        raise UserError("trajectory: P0 is needed with it: initial=..., or steps that begin with 0 where the first checkpoint is P0")
    else:
        trajectory_NCPd = np.concatenate([initial_NPd[:, None], trajectory_NCPd], axis=1)
        steps_C = np.concatenate([[0], steps_C])
    return {"initial": trajectory_NCPd[:, 0], "trajectory": trajectory_NCPd, "steps": steps_C}


def find_runs(path: str | Path) -> tuple[list[Run], list[DamagedRun]]:
    """Finished runs at or below `path`, by folder name, and what was damaged."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError(f"{path}: {'is a file; a folder of runs is needed' if path.is_file() else 'no such folder'}")
    runs, damaged = [], []
    for left in sorted(path.rglob("prompts.safetensors")):
        if not (left.parent / "run.json").exists():
            damaged.append(DamagedRun(f"{left.parent}: was not finished, or lost its run.json"))
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
