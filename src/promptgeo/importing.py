"""Soft prompts trained elsewhere become run folders that every analysis reads: .npy, .safetensors and PEFT adapters, with a table.

Whatever is not known (P0, seed, model, accuracies) is left out, never made up. The folder appears whole or not at all.

Shapes: N prompts (table rows), C checkpoints, P prompt tokens, d width.
"""

import csv
import difflib
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.paths import conf_dir, slug
from promptgeo.errors import UserError
from promptgeo.runs import Trained, find_runs, write_run

NEEDED = ("task", "init")
OPTIONAL = ("seed", "model", "template", "accuracy", "n", "file", "steps")
NAMES = ("final", "prompts", "prompt_embeddings")
"""What the trained prompt is called in a .safetensors file with several tensors."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file."""

    final: np.ndarray
    """[P, d] float32."""
    initial: np.ndarray | None = None
    """[P, d] float32: P0, where it is known."""
    trajectory: np.ndarray | None = None
    """[C, P, d] float32."""
    steps: np.ndarray | None = None
    """[C] int64, where the file says them."""
    best: np.ndarray | None = None
    """[P, d] float32."""


@dataclass(frozen=True)
class Source:
    """A file's prompts, and what it says of their model."""

    path: Path
    arrays: dict[str, np.ndarray]
    """final, initial, trajectory, steps, best, as far as they are there; with a leading N where the file holds a prompt for every row."""
    model: str | None = None
    revision: str | None = None


def import_prompts(
    files: Sequence[str | Path], table: str | Path, out: str | Path, initial: str | Path | None = None, steps: str | None = None
) -> list[Path]:
    """Write a run folder for every row of a CSV table. Returns the folders, in the table's order.

    files: one file with a prompt for every row ([N, P, d], or [N, C, P, d] with checkpoints), or one file per row ([P, d] or [C, P, d]),
    which the table's column `file` names. initial: P0 of every row, [N, P, d]. steps: `FIRST:BY`, or C numbers with commas.
    Where all of it lies in `out` already, nothing is written. Raises UserError for whatever must be mended, before anything is written.
    """
    out, table = Path(out).expanduser(), Path(table).expanduser()
    rows = _rows(table)
    prompts = _prompts([Path(f).expanduser() for f in files], table, rows)
    if initial is not None:
        prompts = _with_initial(prompts, Path(initial).expanduser())
    ready = [_ready(row, *prompt, steps, table) for row, prompt in zip(rows, prompts, strict=True)]
    _require_distinct(ready, rows, table)
    folders = [out / folder for folder, _, _ in ready]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        present = {run.id for run in find_runs(out)[0]} if out.is_dir() else set()
        if present >= {header["id"] for _, header, _ in ready}:
            return folders
        raise UserError(f"--out {out}: exists already and holds something else; nothing was overwritten: choose another folder (analyses take several: runs=[a,b])")
    _write(out, ready)
    return folders


def _write(out: Path, ready: Sequence[tuple[str, dict[str, Any], Trained]]) -> None:
    new = out.with_name(f".{out.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
        for folder, header, trained in ready:
            write_run(new / folder, header, trained)
        new.replace(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- the table


def _rows(table: Path) -> list[dict[str, str]]:
    """The table's rows; `line` is where each stands. Raises UserError for a missing column, or a cell that cannot be read."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [c.strip() for c in reader.fieldnames or ()]
            _check_columns(table, columns)
            reader.fieldnames = columns
            rows = [row | {"line": reader.line_num} for row in reader]
    except OSError as error:
        raise UserError(f"--table {table}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--table {table}: is no CSV table in UTF-8: {error}") from error
    if not rows:
        raise UserError(f"--table {table}: has no rows; one per prompt is needed")
    for row in rows:
        if None in row or None in row.values():
            raise UserError(f"{table}, line {row['line']}: has another number of cells than the first line ({len(columns)}); a text with a comma is quoted")
        for column in (*NEEDED, *({"file"} & set(columns))):
            if not row[column].strip():
                raise UserError(f"{table}, line {row['line']}: {column} is empty; every prompt needs one")
    return [{k: v.strip() if isinstance(v, str) else v for k, v in row.items()} for row in rows]


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    for column in NEEDED:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"nearest: {near[0]}" if near else f"it has {', '.join(columns) or 'none'}"
            raise UserError(f"--table {table}: has no column {column} ({hint}); task and init are needed, {', '.join(OPTIONAL)} may be there")
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"--table {table}: has two columns {column}; rename one")
        if column not in (*NEEDED, *OPTIONAL) and (near := difflib.get_close_matches(column, OPTIONAL, n=1, cutoff=0.75)) and near[0] not in columns:
            raise UserError(f"--table {table}: column {column}: is {near[0]} meant? Rename it, so that it is used, or to something else")


def unused_columns(table: str | Path) -> list[str]:
    """Columns of a table that an import does not look at."""
    with Path(table).expanduser().open(encoding="utf-8-sig", newline="") as stream:
        return [c.strip() for c in next(csv.reader(stream)) if c.strip() not in (*NEEDED, *OPTIONAL)]


def _number(row: dict[str, str], column: str, table: Path, kind: type = int) -> Any:
    """A cell as a number; None where it is empty."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        return kind(text)
    except ValueError as error:
        raise UserError(f"{table}, line {row['line']}: {column}={text}: {'a whole number' if kind is int else 'a number'} is needed, or an empty cell") from error


# ------------------------------------------------------------------------------------------------- the files


def _prompts(files: Sequence[Path], table: Path, rows: Sequence[dict[str, str]]) -> list[tuple[Source, Prompt]]:
    """The prompt of every row, with where it comes from."""
    if "file" in rows[0]:
        named = [_named(row, files, table) for row in rows]
        if left := [f for f in files if f not in named]:
            raise UserError(f"{left[0]}: no row of {table} names it in its column file")
        return [(source, Prompt(**_checked(source, 2))) for source in map(_read, named)]
    if len(files) > 1:
        raise UserError(f"--table {table}: several files need a column file that says which is whose")
    source = _read(files[0])
    if source.arrays["final"].ndim == 2 and len(rows) == 1:
        return [(source, Prompt(**_checked(source, 2)))]
    arrays = _checked(source, 3)
    if (found := len(arrays["final"])) != len(rows):
        raise UserError(
            f"{source.path}: has {found} prompts, {table} {len(rows)} rows; one row per prompt is needed"
            " (or a column file, where every row has a file of its own: [P, d], or [C, P, d] with its checkpoints)"
        )
    steps = arrays.pop("steps", None)
    return [(source, Prompt(**{k: v[i] for k, v in arrays.items()}, steps=steps)) for i in range(found)]


def _named(row: dict[str, str], files: Sequence[Path], table: Path) -> Path:
    """The file that a row names: as a path from here or from the table, else by its last parts."""
    name = Path(row["file"]).expanduser()
    same = {name.resolve(), (table.parent / name).resolve()}
    found = [f for f in files if f.resolve() in same] or [f for f in files if f.resolve().parts[-len(name.parts) :] == name.parts]
    if len(set(found)) != 1:
        what = "names several of the given files; write more of its path" if found else "is not among the given files; name it on the command line too"
        raise UserError(f"{table}, line {row['line']}: file={row['file']}: {what}")
    return found[0]


def _read(path: Path) -> Source:
    if path.is_dir():
        return _read_adapter(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".npy":
        return Source(path, _read_npy(path))
    if path.suffix == ".safetensors":
        return Source(path, _read_safetensors(path))
    raise UserError(f"{path}: cannot be imported; .npy, .safetensors or a PEFT adapter's folder is needed")


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: is no readable .npy array of numbers: {_first_line(error)}") from error
    return {"final": array}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            keys = file.keys()
            tensors = {key: file.get_tensor(key) for key in keys}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is no readable .safetensors file: {_first_line(error)}") from error
    arrays = {key: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for key, tensor in tensors.items()}
    named = [name for name in NAMES if name in arrays]
    if len(arrays) > 1 and not named and "trajectory" not in arrays:
        raise UserError(f"{path}: has tensors {', '.join(arrays)}; the trained prompt must be called final (P0: initial; checkpoints: trajectory, steps)")
    known = {key: arrays[key] for key in ("initial", "trajectory", "steps", "best") if key in arrays}
    final = named[0] if named else next(iter(arrays)) if not known else None
    return known | ({"final": arrays[final]} if final else {})


def _read_adapter(folder: Path) -> Source:
    """A PEFT adapter. Prefix tuning and P-tuning store `prompt_embeddings` too, but as something else."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: has no adapter_config.json: it is no PEFT adapter; name files or adapter folders") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'adapter_config.json'}: cannot be read: {_first_line(error)}") from error
    if kind != "PROMPT_TUNING":
        raise UserError(f"{folder}: is a PEFT adapter of type {kind}; only PROMPT_TUNING has a soft prompt among the input embeddings")
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        other = " (there is an adapter_model.bin: save it again with a newer PEFT)" if (folder / "adapter_model.bin").exists() else ""
        raise UserError(f"{weights}: is missing{other}")
    arrays = _read_safetensors(weights)
    length = config.get("num_virtual_tokens")
    if "final" not in arrays or arrays["final"].ndim != 2 or len(arrays["final"]) != length:
        shape = list(arrays["final"].shape) if "final" in arrays else "none"
        raise UserError(f"{weights}: prompt_embeddings [{length}, d] is needed, as adapter_config.json has it; found {shape}")
    return Source(folder, {"final": arrays["final"]}, config.get("base_model_name_or_path"), config.get("revision"))


def _checked(source: Source, axes: int) -> dict[str, np.ndarray]:
    """The file's arrays as float32, of one prompt (axes 2: [P, d]) or of one per row (axes 3: [N, P, d]).

    An array with one axis more is a trajectory; its last checkpoint is the final prompt.
    """
    arrays = dict(source.arrays)
    steps = arrays.pop("steps", None)
    shape = "[P, d] or, with checkpoints, [C, P, d]" if axes == 2 else "[N, P, d] or, with checkpoints, [N, C, P, d]"
    if "final" in arrays and arrays["final"].ndim == axes + 1 and "trajectory" not in arrays:
        arrays["trajectory"] = arrays.pop("final")
    if "trajectory" in arrays and "final" not in arrays and arrays["trajectory"].ndim == axes + 1 and arrays["trajectory"].size:
        arrays["final"] = arrays["trajectory"][..., -1, :, :]
    final = arrays.get("final")
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{source.path}: {name} holds {array.dtype}; a prompt is made of floating-point numbers")
        same = array if name != "trajectory" else array[..., 0, :, :] if array.ndim == axes + 1 and array.shape[-3] else None
        if final is None or final.ndim != axes or same is None or same.shape != final.shape or not array.size:
            raise UserError(f"{source.path}: {name} has shape {list(array.shape)}; {shape} is needed")
        with np.errstate(over="ignore"):
            arrays[name] = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(arrays[name]).all():
            first = np.argwhere(~np.isfinite(arrays[name]))[0].tolist()
            raise UserError(f"{source.path}: {name} is not finite at {first}; leave that prompt out")
    return arrays | ({"steps": steps} if steps is not None else {})


def _with_initial(prompts: Sequence[tuple[Source, Prompt]], path: Path) -> list[tuple[Source, Prompt]]:
    initial_NPd = _checked(_read(path), 3)["final"]
    needed = [len(prompts), *prompts[0][1].final.shape]
    with_p0 = []
    for k, (source, prompt) in enumerate(prompts):
        if prompt.initial is not None:
            raise UserError(f"--initial {path}: {source.path} has P0 itself (initial); leave the option out")
        if len(initial_NPd) != len(prompts) or initial_NPd.shape[1:] != prompt.final.shape:
            raise UserError(f"--initial {path}: has shape {list(initial_NPd.shape)}; {needed}, P0 of every row, is needed")
        with_p0.append((source, Prompt(prompt.final, initial_NPd[k], prompt.trajectory, prompt.steps, prompt.best)))
    return with_p0


# ------------------------------------------------------------------------------------------------- the run


def _ready(row: dict[str, str], source: Source, prompt: Prompt, steps: str | None, table: Path) -> tuple[str, dict[str, Any], Trained]:
    """A run's folder name, header and contents."""
    where = f"{table}, line {row['line']}: steps" if row.get("steps") else "--steps"
    trajectory_CPd, steps_C, initial = _checkpoints(prompt, row.get("steps") or steps, where, source.path)
    model = row.get("model") or source.model
    accuracy, n, seed = _number(row, "accuracy", table, float), _number(row, "n", table), _number(row, "seed", table)
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise UserError(f"{table}, line {row['line']}: accuracy={row['accuracy']}: a share between 0 and 1 is needed (per cent divided by 100)")
    if n is not None and n < 1:
        raise UserError(f"{table}, line {row['line']}: n={n}: the number of test examples is needed, or an empty cell")
    config = {
        "model": {"name": Path(model).name if model else None, "name_or_path": _hub_id(model), "revision": None if row.get("model") else source.revision},
        "task": {"name": row["task"]},
        "init": {"name": row["init"]},
        "template": {"name": row.get("template") or None},
        "optimizer": {"lr": None},
        "seed": seed,
    }
    results = {
        "prompt_length": len(prompt.final),
        "steps": int(steps_C[-1]) if len(steps_C) else None,
        "n": n,
        "split": None,
        "accuracy": {} if accuracy is None else {"final": accuracy},
        "loss": {},
    }
    trained = Trained("imported", initial, trajectory_CPd, steps_C, prompt.final, prompt.best, [], [], results)
    tensors = [hashlib.sha256(a.tobytes()).hexdigest() if a is not None else None for a in (initial, trajectory_CPd, steps_C, prompt.final, prompt.best)]
    run_id = hashlib.sha256(json.dumps([config, results, tensors], sort_keys=True).encode()).hexdigest()
    header = {
        "format": 1,
        "id": run_id,
        "config": config,
        "precision": None,
        "device": None,
        "seeds": {},
        "versions": {"promptgeo": version("promptgeo")},
        "fingerprints": {"model": None, "data": None},
        "examples": {},
        "imported": {"file": source.path.name, "table": table.name, "line": row["line"]},
    }
    parts = [config["model"]["name"] or "imported", row["task"], row["init"]]
    return "-".join([*map(slug, parts), *([] if seed is None else [f"s{seed}"]), run_id[:8]]), header, trained


def _hub_id(model: str | None) -> str | None:
    """Where a model lies: what its file in conf/model/ says, else its name itself."""
    packaged = Path(conf_dir()) / "model" / f"{model}.yaml"
    if model is None or not packaged.is_file():
        return model
    from omegaconf import OmegaConf

    return OmegaConf.load(packaged).name_or_path


def _checkpoints(prompt: Prompt, given: str | None, where: str, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """trajectory [C, P, d], steps [C] and P0: a checkpoint of step 0 is P0, and leaves the trajectory."""
    trajectory_CPd, initial = prompt.trajectory, prompt.initial
    if trajectory_CPd is None:
        return np.empty((0, *prompt.final.shape), np.float32), np.empty(0, np.int64), initial
    count = len(trajectory_CPd)
    steps_C = _steps(given, count, where, path) if given or prompt.steps is None else np.asarray(prompt.steps)
    if steps_C.shape != (count,) or not np.issubdtype(steps_C.dtype, np.integer) or steps_C[0] < 0 or (np.diff(steps_C) <= 0).any():
        raise UserError(f"{where if given else path}: {count} rising whole numbers are needed, a step for each checkpoint of {path}; found {steps_C.tolist()[:20]}")
    if steps_C[0] == 0:
        if initial is not None and not np.array_equal(initial, trajectory_CPd[0]):
            raise UserError(f"{path}: its checkpoint of step 0 is not the P0 that is given too; leave one out")
        initial, trajectory_CPd, steps_C = trajectory_CPd[0], trajectory_CPd[1:], steps_C[1:]
    return trajectory_CPd, steps_C.astype(np.int64), initial


def _steps(given: str | None, count: int, where: str, path: Path) -> np.ndarray:
    """`FIRST:BY`, or the numbers themselves; 1 to `count` where nothing is given."""
    try:
        if ":" in (given or "1:1"):
            first, by = map(int, (given or "1:1").split(":"))
            return first + by * np.arange(count)
        return np.array([int(part) for part in given.split(",")])
    except ValueError as error:
        raise UserError(f"{where}={given}: FIRST:BY is needed (0:1 where the first checkpoint of {path} is P0), or {count} numbers with commas") from error


def _require_distinct(ready: Sequence[tuple[str, dict[str, Any], Trained]], rows: Sequence[dict[str, str]], table: Path) -> None:
    lines: dict[str, int] = {}
    for (folder, _, _), row in zip(ready, rows, strict=True):
        if folder in lines:
            raise UserError(f"{table}, lines {lines[folder]} and {row['line']}: are the same prompt with the same task, init and seed; leave one out")
        lines[folder] = row["line"]


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
