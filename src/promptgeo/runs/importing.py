"""How do soft prompts trained elsewhere become run folders, which every analysis reads?

Whatever is not known (P0, seed, model, accuracies) is left out, never made up. The folder appears whole or not at all.

Shapes: N prompts (table rows), C checkpoints, P prompt tokens, d width.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.config.paths import as_text, conf_dir, require_short, slug, user_path
from promptgeo.config.yaml_file import read_yaml
from promptgeo.errors import UserError
from promptgeo.runs.adapter_mark import known_orders
from promptgeo.runs.folder import FORMAT, Run, Trained, whole_folder, write_run
from promptgeo.runs.prompt_files import Prompt, PromptFile, read
from promptgeo.runs.prompt_table import TableRow, read_table, unused_columns

LAST_STEP = 2**53
"""Beyond it a step is not a whole number in every table and JSON that it may get into."""


@dataclass(frozen=True)
class _Ready:
    """A run that can be written."""

    row: TableRow
    folder: str
    header: dict[str, Any]
    trained: Trained


def import_prompts(
    files: Sequence[str | Path],
    table: str | Path,
    out: str | Path,
    initial: str | Path | None = None,
    steps: str | None = None,
    tensor: str | None = None,
) -> tuple[list[Path], list[str]]:
    """Write a run folder for every row of a CSV table. Where all of it lies in `out` already, nothing is written.

    Returns the folders, in the table's order, and what was given and not imported, as lines.

    Args:
        files: one file with a prompt for every row ([N, P, d], or [N, C, P, d] with checkpoints), or one file per row
            ([P, d] or [C, P, d]), which the table's column `file` names.
        table: a CSV file with one row per prompt (prompt_table.py).
        out: the folder of the runs; it must not exist, or be empty, or hold these very runs.
        initial: P0 of every row, [N, P, d].
        steps: of the checkpoints: `FIRST:BY`, or C numbers with commas.
        tensor: what the trained prompt is called in files with several tensors.

    Raises UserError for whatever must be mended, before anything is written.
    """
    out, table = user_path(str(out), "out"), user_path(str(table), "table")
    rows = read_table(table)
    prompts = _prompts([user_path(str(f), "files") for f in files], table, rows, tensor)
    if steps and all(prompt.trajectory is None for _, prompt in prompts):
        raise UserError(f"--steps {steps[:80]}: no file has checkpoints; leave it out")
    if initial is not None:
        prompts = _with_initial(prompts, user_path(str(initial), "initial"))
    ready = [_ready(row, file, prompt, steps) for row, (file, prompt) in zip(rows, prompts, strict=True)]
    _require_distinct(ready)
    folders, notes = [out / run.folder for run in ready], _notes(table, rows, [file for file, _ in prompts])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        present = {run.id for run in map(_read, folders) if run is not None}
        if present >= {run.header["id"] for run in ready}:
            return folders, notes
        raise UserError(
            f"--out {out}: exists already and holds something else; nothing was overwritten: "
            "choose another folder (analyses take several: runs=[a,b])"
        )
    _write(out, ready)
    return folders, notes


def _notes(table: Path, rows: Sequence[TableRow], files: Sequence[PromptFile]) -> list[str]:
    """What is left behind, a line for each kind of it."""
    of: dict[str, list[str]] = {}
    for file in files:
        if file.note and str(file.path) not in (same := of.setdefault(file.note, [])):
            same.append(str(file.path))
    notes = [
        f"{paths[0]}{f' and {more} more' if (more := len(paths) - 1) else ''}: {note}" for note, paths in of.items()
    ]
    unused = unused_columns(rows)
    return [*notes, *([f"not used: {', '.join(unused)} (columns of {table})"] if unused else [])]


def _read(folder: Path) -> Run | None:
    """The undamaged run that lies there; None where there is none."""
    try:
        return Run.load(folder)
    except UserError:
        return None


def _write(out: Path, ready: Sequence[_Ready]) -> None:
    with whole_folder(out, f"--out {out}") as new:
        for run in ready:
            require_short(new / run.folder / ".prompts.safetensors.tmp", f"--out {out}"[:80])
        for run in ready:
            try:
                write_run(new / run.folder, run.header, run.trained)
            except UnicodeEncodeError as error:
                half = ascii(error.object[error.start])[1:-1]
                raise UserError(
                    f"{run.row.where}: what is known of it holds half a character ({half}); take it out"
                ) from error


def _prompts(
    files: Sequence[Path], table: Path, rows: Sequence[TableRow], tensor: str | None
) -> list[tuple[PromptFile, Prompt]]:
    """The prompt of every row, with the file it comes from."""
    if "file" in rows[0].cells:
        named = [_named(row, files) for row in rows]
        if unnamed := [f for f in files if f not in named]:
            raise UserError(f"{unnamed[0]}: no row of {table} names it in its column file")
        return [(file, file.prompt()) for file in (read(path, tensor) for path in named)]
    if len(files) > 1:
        raise UserError(f"--table {table}: several files need a column file that says which is whose")
    file = read(files[0], tensor)
    if file.holds_one and len(rows) == 1:
        return [(file, file.prompt())]
    prompts = file.prompts()
    if len(prompts) != len(rows):
        raise UserError(
            f"{file.path}: has {len(prompts)} prompts, {table} {len(rows)} rows; one row per prompt is needed"
            " (or a column file, where every row has a file of its own: [P, d], or [C, P, d] with its checkpoints)"
        )
    return [(file, prompt) for prompt in prompts]


def _named(row: TableRow, files: Sequence[Path]) -> Path:
    """The file that a row names: as a path from here or from the table, else by its last parts."""
    name = user_path(row.cells["file"], "file")
    same = {name.resolve(), (row.table.parent / name).resolve()}
    matches = [f for f in files if f.resolve() in same]
    matches = matches or [f for f in files if f.resolve().parts[-len(name.parts) :] == name.parts]
    if len(set(matches)) != 1:
        what = "is not among the given files; name it on the command line too"
        if matches:
            what = "names several of the given files; write more of its path"
        raise UserError(f"{row.where}: file={row.cells['file']}: {what}")
    return matches[0]


def _with_initial(prompts: Sequence[tuple[PromptFile, Prompt]], path: Path) -> list[tuple[PromptFile, Prompt]]:
    """The prompts with P0 from a file of its own."""
    given = read(path)
    arrays = {"final": given.arrays["initial"]} if "initial" in given.arrays else given.arrays
    initial_NPd = np.stack([prompt.final for prompt in replace(given, arrays=arrays).prompts()])
    needed = [len(prompts), *prompts[0][1].final.shape]
    with_p0 = []
    for k, (file, prompt) in enumerate(prompts):
        if prompt.initial is not None:
            raise UserError(f"--initial {path}: {file.path} has P0 itself (initial); leave the option out")
        if len(initial_NPd) != len(prompts) or initial_NPd.shape[1:] != prompt.final.shape:
            shape = list(initial_NPd.shape)
            raise UserError(f"--initial {path}: has shape {shape}; {needed}, P0 of every row, is needed")
        with_p0.append((file, replace(prompt, initial=initial_NPd[k])))
    return with_p0


def _ready(row: TableRow, file: PromptFile, prompt: Prompt, steps: str | None) -> _Ready:
    """The run of a row: its folder's name, header and contents."""
    where = f"{row.where}: steps" if row.text("steps") else "--steps"
    trajectory_CPd, steps_C, initial = _checkpoints(prompt, row.text("steps") or steps, where, file.path)
    config = _config(row, file)
    results = _results(row, len(prompt.final), steps_C)
    trained = Trained("imported", initial, trajectory_CPd, steps_C, prompt.final, prompt.best, [], [], results)
    arrays = (initial, trajectory_CPd, steps_C, prompt.final, prompt.best)
    digests = [hashlib.sha256(a.tobytes()).hexdigest() if a is not None else None for a in arrays]
    run_id = hashlib.sha256(json.dumps([config, results, digests], sort_keys=True).encode()).hexdigest()
    if file.is_adapter and "bos" not in config["template"]:  # after the id, which earlier imports have too
        config["template"]["bos"] = "after_prompt"
    header = {
        "format": FORMAT,
        "id": run_id,
        "config": config,
        "precision": None,
        "device": None,
        "seeds": {},
        "versions": {"promptgeo": version("promptgeo")},
        "fingerprints": {"model": None, "data": None},
        "examples": {},
        "imported": {"file": as_text(file.path.name), "table": as_text(row.table.name), "line": row.line}
        | _not_imported(file),
    }
    parts = [config["model"]["name"] or "imported", config["task"]["name"], config["init"]["name"]]
    seed = [] if config["seed"] is None else [f"s{config['seed']}"]
    return _Ready(row, "-".join([*(slug(part)[:60] for part in parts), *seed, run_id[:8]]), header, trained)


def _not_imported(file: PromptFile) -> dict[str, Any]:
    """What run.json says of a prompt that was trained with a head, or whose file holds more."""
    head = {"task_type": file.task_type} if file.task_type not in (None, "CAUSAL_LM") else {}
    return head | ({"left_out": list(file.left_out)} if file.left_out else {})


def _config(row: TableRow, file: PromptFile) -> dict[str, Any]:
    """What is known of how the prompt was trained, as run.json says it of runs trained here."""
    model = row.text("model") or file.model
    bos = row.text("bos") or file.bos
    if bos is not None and bos not in known_orders():
        raise UserError(f"{row.where}: bos={bos[:80]}: one of {', '.join(known_orders())} is needed, or an empty cell")
    return {
        "model": {
            "name": Path(model).name if model else None,
            "name_or_path": _hub_id(model),
            "revision": None if row.text("model") else file.revision,
        },
        "task": {"name": row.cells["task"]},
        "init": {"name": row.cells["init"]},
        "template": {"name": row.text("template")} | ({"bos": bos} if bos is not None else {}),
        "optimizer": {"lr": None},
        "seed": row.whole("seed"),
    }


def _results(row: TableRow, prompt_length: int, steps_C: np.ndarray) -> dict[str, Any]:
    accuracy, n = row.number("accuracy"), row.whole("n")
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise UserError(
            f"{row.where}: accuracy={row.cells['accuracy']}: "
            "a share between 0 and 1 is needed (per cent divided by 100)"
        )
    if n is not None and n < 1:
        raise UserError(f"{row.where}: n={n}: the number of test examples is needed, or an empty cell")
    return {
        "prompt_length": prompt_length,
        "steps": int(steps_C[-1]) if len(steps_C) else None,
        "n": n,
        "split": None,
        "accuracy": {} if accuracy is None else {"final": accuracy},
        "loss": {},
    }


def _hub_id(model: str | None) -> str | None:
    """Where a model lies: what its file in conf/model/ says, else its name itself."""
    packaged = {path.stem: path for path in (Path(conf_dir()) / "model").glob("*.yaml")}
    if model is None or model not in packaged:
        return model
    from omegaconf import OmegaConf

    config = read_yaml(packaged[model])
    return model if OmegaConf.is_missing(config, "name_or_path") else config["name_or_path"]


def _checkpoints(
    prompt: Prompt, given: str | None, where: str, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """trajectory [C, P, d], steps [C] and P0: a checkpoint of step 0 is P0, and leaves the trajectory."""
    trajectory_CPd, initial = prompt.trajectory, prompt.initial
    if trajectory_CPd is None:
        return np.empty((0, *prompt.final.shape), np.float32), np.empty(0, np.int64), initial
    count = len(trajectory_CPd)
    if given or prompt.steps is None:
        steps = _steps(given, count, where, path)
    else:
        where, steps = f"{path}: steps", np.asarray(prompt.steps).tolist()
    whole = isinstance(steps, list) and len(steps) == count and all(type(step) is int for step in steps)
    if not whole or steps[0] < 0 or steps[-1] > LAST_STEP or any(a >= b for a, b in itertools.pairwise(steps)):
        raise UserError(
            f"{where}: {count} rising whole numbers are needed, "
            f"a step for each checkpoint of {path}; found {_short(steps)}; a step is at most {LAST_STEP}"
        )
    if steps[0] == 0:
        if initial is not None and not np.array_equal(initial, trajectory_CPd[0]):
            raise UserError(f"{path}: its checkpoint of step 0 is not the P0 that is given too; leave one out")
        initial, trajectory_CPd, steps = trajectory_CPd[0], trajectory_CPd[1:], steps[1:]
    return trajectory_CPd, np.array(steps, np.int64), initial


def _steps(given: str | None, count: int, where: str, path: Path) -> list[int]:
    """`FIRST:BY`, or the numbers themselves; 1 to `count` where nothing is given."""
    given = given or "1:1"
    try:
        if ":" in given:
            first, by = map(int, given.split(":"))
            return [first + by * k for k in range(count)]
        return [int(part) for part in given.split(",")]
    except ValueError as error:
        raise UserError(
            f"{where}={given[:80]}: FIRST:BY is needed (0:1 where the first checkpoint of {path} is P0), "
            f"or {count} numbers with commas"
        ) from error


def _short(steps: Any) -> str:
    """As many steps as fit a line."""
    few = steps[:20] if isinstance(steps, list) else [steps]
    return f"[{', '.join(str(s)[:40] if not isinstance(s, int) or abs(s) < 10**20 else '10^20 or more' for s in few)}]"


def _require_distinct(ready: Sequence[_Ready]) -> None:
    lines: dict[str, int] = {}
    for run in ready:
        if run.folder in lines:
            raise UserError(
                f"{run.row.table}, lines {lines[run.folder]} and {run.row.line}: "
                "are the same prompt with the same task, init and seed; leave one out"
            )
        lines[run.folder] = run.row.line
