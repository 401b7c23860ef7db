"""What does a run leave on disk? The run folder: written, read, verified, searched for.

run.json is written last and marks completion; it holds the SHA-256 of the other files and of itself. No file holds a
clock time, so the same command with the same seed on the same machine writes the same bytes.

Shapes: C checkpoints, P prompt tokens, d width.
"""

import csv
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from promptgeo.config.paths import as_text, require_short, user_path
from promptgeo.config.schema import sections
from promptgeo.errors import UserError
from promptgeo.evaluation.metrics import HEADLINE, METRICS
from promptgeo.runs.asking import Askable

if TYPE_CHECKING:
    import pandas as pd

FILES = ("prompts.safetensors", "metrics.csv", "predictions.jsonl")
"""Beside run.json, which has their checksums."""
TRAINING_STATE = "training_state.safetensors"
"""What another run can go on from: beside a run that was trained with training.keep_state."""
METRICS_COLUMNS = ["step", "epoch", "split", *(m.name for m in METRICS), "n", "lr", "prompt_norm", "distance_to_p0"]
"""Of metrics.csv."""
PROMPTS = ("none", "initial", "final", "best")
"""The prompts that a run is scored with; none: the model without a prompt."""
FORMAT = 1
"""Of run.json. A later one may mean something else by the same fields."""
LARGEST = 64 * 2**20
"""Bytes of a run.json or a result.json. Confusion matrices are the most of it: 1,000 labels come to 40 MB."""


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
    """[P, d] float32: lowest validation loss; the final prompt where there is no validation split; None where an
    imported prompt's is not known."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.csv."""
    predictions: list[dict[str, Any]]
    """Rows of predictions.jsonl."""
    results: dict[str, Any]
    """The run's headline numbers; each metric's by prompt: {"accuracy": {"none": ..., "final": ...}, ...}."""
    training_state: dict[str, np.ndarray] = field(default_factory=dict)
    """What another run can go on from; empty where it is not to be kept."""


def write_run(folder: Path, header: dict[str, Any], trained: Trained) -> None:
    """Write a run folder; each file atomically, run.json last. header: id, config, seeds, versions, fingerprints."""
    arrays = {name: getattr(trained, name) for name in ("initial", "trajectory", "steps", "final", "best")}
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    contents = {
        "prompts.safetensors": safetensors.numpy.save(tensors),
        "metrics.csv": _csv(trained.metrics),
        "predictions.jsonl": "".join(
            json.dumps(row, ensure_ascii=False) + "\n" for row in trained.predictions
        ).encode(),
    }
    if trained.training_state:
        contents[TRAINING_STATE] = safetensors.numpy.save(trained.training_state)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    summary = header | {"status": trained.status, "results": trained.results, "files": files}
    summary["sha256"] = own_digest(summary)
    contents["run.json"] = (json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    with _written_beside({folder / name: content for name, content in contents.items()}) as places:
        (folder / "run.json").unlink(missing_ok=True)  # only now: a disk without room for all leaves the earlier run
        if TRAINING_STATE not in contents:
            (folder / TRAINING_STATE).unlink(missing_ok=True)  # of the earlier run
        for path, temporary in places.items():
            os.replace(temporary, path)


def own_digest(summary: dict[str, Any]) -> str:
    """SHA-256 of what a JSON file says besides its own `sha256`, however it is indented."""
    text = json.dumps({k: v for k, v in summary.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` or leave the old file as it was."""
    with _written_beside({path: content}) as places:
        os.replace(places[path], path)


@contextmanager
def _written_beside(contents: dict[Path, bytes]) -> Iterator[dict[Path, Path]]:
    """Within, each content is on the disk, in a file beside its place: place -> file. Those left there are deleted."""
    # Always the same names: what a killed process left is replaced.
    places = {path: path.with_name(f".{path.name}.tmp") for path in contents}
    try:
        for path, temporary in places.items():
            temporary.unlink(missing_ok=True)  # also a link, whose file is somebody's
            with temporary.open("xb") as stream:  # exclusive: no link is followed
                stream.write(contents[path])
                stream.flush()
                os.fsync(stream.fileno())
        yield places
    except BaseException:
        for temporary in places.values():
            temporary.unlink(missing_ok=True)
        raise


def set_aside(path: Path) -> Path:
    """Rename what is damaged to the first free of <name>.damaged, <name>.damaged-2, ... Returns the new place."""
    stem = f"{path.name}.damaged"
    names = itertools.chain([stem], (f"{stem}-{k}" for k in itertools.count(2)))
    return path.rename(next(free for name in names if not os.path.lexists(free := path.with_name(name))))


def _csv(rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, METRICS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue().encode()


def discard(path: Path) -> None:
    """Delete what lies at a temporary name: a folder with all in it; of a link, the link alone."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: Path, key: str) -> Iterator[Path]:
    """Within, a new folder beside `out`; then it takes that name, which must be free or an empty folder's.

    So `out` appears whole or not at all. Raises UserError, which names `key`, where it cannot be written.
    """
    key = key[:80]
    place = Path(os.path.realpath(out))  # of a link, the folder that it names
    new = place.with_name(f".{place.name}.new")
    require_short(new, key)
    try:
        discard(new)  # of a process that was killed
        yield new
        new.replace(place)
    except OSError as error:
        raise UserError(f"{key}: cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        with suppress(OSError):
            discard(new)


def read_bounded(path: Path) -> bytes:
    """The content of a JSON file. Raises OSError, and ValueError for what is no file, or has over LARGEST bytes."""
    # Not opened before it is known to be a file: a pipe would wait for its other end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a file")
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MB")
    return content


class DamagedRun(UserError):
    """A run folder whose files are missing, unreadable or not what run.json says."""


def _below(folder: Path) -> str:
    """Where finished runs lie that were perhaps meant: a folder of runs is easily given for one."""
    runs = sorted(path.parent for path in (*folder.glob("*/run.json"), *folder.glob("*/*/run.json")))
    return f"; {len(runs)} below it: name one of them, such as {runs[0]}" if runs else ""


def _read_info(path: Path, verify: bool) -> dict[str, Any]:
    """What run.json says, every field that a table of runs is made of among it. Raises DamagedRun for anything else."""
    try:
        info = json.loads(read_bounded(path).decode(), object_pairs_hook=_section)
        json.dumps(info, ensure_ascii=False).encode()  # half of a character, written as an escape, cannot be shown
        digest = own_digest(info) if isinstance(info, dict) else None
    except FileNotFoundError as error:
        raise DamagedRun(f"{path.parent}: no finished run lies here (no {path.name}){_below(path.parent)}") from error
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedRun(f"{path}: cannot be read: {error}") from error
    if not isinstance(info, dict):
        raise DamagedRun(f"{path}: holds {_JSON_TYPES[type(info)]}, not the fields of a run")
    written = info.get("format", FORMAT)  # the first runs do not say
    if type(written) is int and written > FORMAT:
        raise DamagedRun(
            f"{path}: has format {written} of a later promptgeo; this one reads format {FORMAT}: install the later one"
        )
    if type(written) is not int or written != FORMAT:
        raise DamagedRun(f"{path}: format: must be {FORMAT}")
    if verify and info.get("sha256") != digest:
        raise DamagedRun(f"{path}: its SHA-256 is not the one it gives: the file was changed or damaged")
    _check_fields(path, info)
    return info


def _section(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A section of run.json, each text once in memory: thousands of runs differ in few of them."""
    return {sys.intern(key): sys.intern(value) if isinstance(value, str) else value for key, value in pairs}


_JSON_TYPES = {
    dict: "a section",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_NUMBER: tuple[type, ...] = (int, float)
_NONE: tuple[type, ...] = (type(None),)
_NEEDED: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "status": (str,),
    "sha256": (str,),
    "files": (dict,),
    **{f"files/{name}": (str,) for name in FILES},
    "config": (dict,),
    **{f"config/{section}": (dict,) for section in ("model", "task", "init", "template", "optimizer")},
    **{f"config/{section}/name": (str,) for section in ("task", "init")},
    **{f"config/{section}/name": (str, *_NONE) for section in ("model", "template")},  # an import may not know them
    "config/optimizer/lr": (*_NUMBER, *_NONE),
    "config/seed": (int, *_NONE),
    "results": (dict,),
    "results/prompt_length": (int,),
    "results/steps": (int, *_NONE),
    "results/n": (int, *_NONE),
    f"results/{HEADLINE}": (dict,),
}
"""The types of fields that every run.json has."""
_PERHAPS: dict[str, tuple[type, ...]] = {
    "lr": (*_NUMBER, *_NONE),
    **dict.fromkeys(("error", "precision", "device"), (str, *_NONE)),
    **dict.fromkeys(("fingerprints", "seeds", "versions", "examples"), (dict,)),
    **dict.fromkeys(("fingerprints/model", "fingerprints/data"), (str, *_NONE)),
    **{f"config/{section.replace('.', '/')}": (dict, *_NONE) for section in sections()},
    "results/split": (str, *_NONE),
    "results/labels": (dict,),
    "results/labels/majority": (*_NUMBER, *_NONE),
    f"files/{TRAINING_STATE}": (str,),
    **{f"results/{metric.name}": (dict,) for metric in METRICS},
    **{f"results/{metric.name}/{which}": (*_NUMBER, *_NONE) for metric in METRICS for which in PROMPTS},
}
"""The types of fields that some have."""


def _check_fields(path: Path, info: dict[str, Any]) -> None:
    """Raises DamagedRun, which names the field, for one that is missing or not of its type."""
    for place, types in (_PERHAPS | _NEEDED).items():
        value: Any = info
        for key in place.split("/"):
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        named = place.replace("/", ".")
        if value is _MISSING:
            if place in _NEEDED:
                raise DamagedRun(f"{path}: {named} is missing")
        elif type(value) not in types:
            wanted = " or ".join(_JSON_TYPES[each] for each in types)
            raise DamagedRun(f"{path}: {named} is {_JSON_TYPES[type(value)]}; {wanted} is needed")
        elif type(value) is int and not -(2**63) <= value < 2**63:
            raise DamagedRun(f"{path}: {named} is a number of more than 64 bits")
    if _deeper(info["config"], 20):
        raise DamagedRun(f"{path}: config: sections lie in sections, more than 20 deep")


_MISSING = object()


def _deeper(value: Any, levels: int) -> bool:
    """Whether sections and lists lie in each other deeper than that."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(each, levels - 1) for each in inside)


@dataclass(frozen=True)
class Run(Askable):
    """A finished run, read from its folder.

    `info` is run.json, `prompt()` a prompt [P, d], `metrics` the learning curve, `predictions` what the model wrote.
    `generate("France")` asks its prompt.
    """

    folder: Path
    info: dict[str, Any] = field(repr=False)
    """run.json."""

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True) -> "Run":
        """Read a run's folder.

        verify: check that every file has the SHA-256 that run.json gives.

        Raises DamagedRun, which names the file, where one is missing, cannot be read or was changed.
        """
        return cls._read(user_path(str(folder), "runs"), verify)

    @classmethod
    def _read(cls, folder: Path, verify: bool = True, whole: bool = False) -> "Run":
        """verify: all checksums; whole: that of run.json alone."""
        info = _read_info(folder / "run.json", verify or whole)
        for name in (*FILES, *({TRAINING_STATE} & set(info["files"]))) if verify else ():
            path = folder / name
            if not path.is_file():
                raise DamagedRun(f"{path}: is missing")
            try:
                with path.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise DamagedRun(f"{path}: cannot be read: {error.strerror}") from error
            if found != info["files"][name]:
                raise DamagedRun(f"{path}: its SHA-256 is not the one in run.json: the file was changed or damaged")
        return cls(folder, info)

    @property
    def id(self) -> str:
        """The run's identity, 64 hex digits."""
        return self.info["id"]

    @property
    def status(self) -> str:
        """completed, diverged, failed, stopped (by grid.halving) or imported."""
        return self.info["status"]

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays of prompts.safetensors, trajectory, steps and final; initial and best where they are known."""
        return safetensors.numpy.load_file(self.folder / "prompts.safetensors")

    def prompt(self, which: str | int = "final") -> np.ndarray:
        """One of the run's prompts, [P, d] float32.

        which: initial, final, best, or the step of a checkpoint (0: initial).

        Raises UserError where the run does not have it.
        """
        if which == 0:
            which = "initial"
        if isinstance(which, str):
            if which not in ("initial", "final", "best"):
                raise UserError(f"which={which}: one of initial, final, best or a step is needed")
            if which not in self.tensors:
                raise UserError(f"{self.folder}: {_NOT_IMPORTED[which]}")
            return self.tensors[which]
        steps = self.tensors["steps"]
        at = np.flatnonzero(steps == which)
        if not len(at):
            some = ", ".join(map(str, steps[:20]))  # as many as fit a line
            raise UserError(f"{self.folder}: has no checkpoint of step {which} (it has {some})")
        return self.tensors["trajectory"][at[0]]

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """The learning curve, metrics.csv as a pandas table."""
        import pandas as pd

        return pd.read_csv(self.folder / "metrics.csv")

    @cached_property
    def predictions(self) -> list[dict[str, Any]]:
        """What the model wrote, predictions.jsonl, a dictionary per line."""
        with (self.folder / "predictions.jsonl").open(encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    @property
    def lr(self) -> float | None:
        """The learning rate that it was trained with, whatever unit it was given in; None where that is not known."""
        return self.info.get("lr", self.info["config"]["optimizer"]["lr"])

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
            "lr": self.lr,
            "steps": results["steps"],
            "n": results["n"],
            **{f"{HEADLINE}_{which}": results[HEADLINE].get(which) for which in PROMPTS},
            **{m.name: results.get(m.name, {}).get("final") for m in METRICS if m.name != HEADLINE},
            **{
                f"{m.name}_{which}": results.get(m.name, {}).get(which)
                for m in METRICS
                for which in PROMPTS
                if m.of_every_prompt and which != "final"
            },
            "majority": results.get("labels", {}).get("majority"),
            "data": (self.info.get("fingerprints", {}).get("data") or "").removeprefix("sha256:")[:8] or None,
            "folder": as_text(self.folder),
        }


_NOT_IMPORTED = {
    "initial": "was imported without P0: it has no initial prompt and no delta (promptgeo-runs import takes --initial "
    "P0.npy, or --steps 0:1 where the first checkpoint is P0)",
    "best": "was imported without its best prompt; it has its final one",
}


@dataclass(frozen=True)
class Found:
    """A run's folder as it was found: finished, unfinished or damaged."""

    folder: Path
    run: Run | None
    """What run.json says, where it is whole; of a damaged run too."""
    error: DamagedRun | None
    """What is missing, unreadable or changed."""
    status: str
    """The run's own (`Run.status`); unfinished: it has no run.json yet; or damaged."""


STATUSES = ("completed", "diverged", "failed", "stopped", "imported", "unfinished", "damaged")
STATE = "state/state.safetensors"
"""What an unfinished run resumes from."""
DIGITS = re.compile(r"-s\d+-([0-9a-f]{8})$")
"""How the name of a folder ends that a run is trained in."""


def find_folders(path: str | Path) -> list[Found]:
    """The folders of runs at or below `path`: those without a run.json, then the others, each by name.

    Every checksum is verified. Links to folders are not followed; `path` itself may be one. Raises UserError where
    there is no such folder.
    """
    path = user_path(str(path), "runs")
    if not path.is_dir():
        raise UserError(f"{path}: {'is a file; a folder of runs is needed' if path.is_file() else 'no such folder'}")
    markers, others = [], []
    unreadable: list[OSError] = []
    for folder, inside, files in os.walk(path, onerror=unreadable.append):
        names = {*inside, *files}
        if "run.json" in names:
            markers.append(Path(folder) / "run.json")
        elif "prompts.safetensors" in names or (names & {"state", ".hydra"} and _is_begun(Path(folder))):
            others.append(Path(folder))
    found = [_without_run_json(folder) for folder in sorted(others)]
    for refused in unreadable:
        error = DamagedRun(f"{refused.filename}: cannot be read: {refused.strerror}")
        found.append(Found(Path(refused.filename), None, error, "damaged"))
    return found + [_found(marker.parent) for marker in sorted(markers)]


def _is_begun(folder: Path) -> bool:
    """Whether a run was begun here that has nothing but its state, or what Hydra writes before it."""
    return (folder / STATE).is_file() or DIGITS.search(folder.name) is not None


def _without_run_json(folder: Path) -> Found:
    kept, lost = (folder / STATE).is_file(), (folder / "prompts.safetensors").exists()
    error = DamagedRun(f"{folder}: was not finished, or lost its run.json") if lost else None
    return Found(folder, None, error, "unfinished" if kept or not lost else "damaged")


def _found(folder: Path) -> Found:
    try:
        run = Run._read(folder)
        return Found(folder, run, None, run.status)
    except DamagedRun as error:
        try:
            return Found(folder, Run._read(folder, verify=False, whole=True), error, "damaged")
        except DamagedRun:
            return Found(folder, None, error, "damaged")


def find_runs(path: str | Path) -> tuple[list[Run], list[DamagedRun]]:
    """Finished runs at or below `path`, by folder name, and those that are damaged.

    Raises UserError where there is no such folder.
    """
    found = find_folders(path)
    return [f.run for f in found if f.run and not f.error], [f.error for f in found if f.error]
