"""Where do examples come from? Bundled data, the function-vectors repository, a hub dataset, or the user's own file.

Every reader gives {split name: [(input, label), ...]}; a source without splits of its own gives one, "all". A bundled
file's splits are in its column `split`, where it has one. With task.source.repeat it is (input, label, copies of the
prompt).
"""

import csv
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from promptgeo.config.schema import Source, SourceKind, Task
from promptgeo.data.hub import offline_if_unreachable
from promptgeo.errors import UserError

log = logging.getLogger(__name__)

Pairs = list[tuple[str, str] | tuple[str, str, int]]

FUNCTION_VECTORS = (
    "https://raw.githubusercontent.com/ericwtodd/function_vectors/{commit}/dataset_files/abstractive/{file}"
)
FUNCTION_VECTORS_COMMIT = "fb9eac7b6dc707ea1475a717379916007fe448d5"
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
SPLITS = ("train", "validation", "test")


def read(task: Task) -> dict[str, Pairs]:
    """The task's examples by split, as text. Raises UserError naming the file, column or example that is wrong."""
    source = task.source
    if source.kind is SourceKind.function_vectors:
        table = {"all": _function_vectors(source)}
    elif source.kind is SourceKind.hub:
        table = _hub(source)
    elif source.kind is SourceKind.file or source.path:
        table = _own(source)
    else:
        return _bundled(task)
    return {split: _examples(rows, task, split) for split, rows in table.items()}


def _bundled(task: Task) -> dict[str, Pairs]:
    if not task.source.bundled:
        raise UserError(
            f"task={task.name}: has no bundled data; set task.source.path=<your file> or task.source.kind=hub"
        )
    path = Path(str(files("promptgeo.data"))) / "bundled" / task.source.bundled
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    table: dict[str, list[dict]] = {}
    for row in rows:
        table.setdefault(row.get("split", "all"), []).append(row)
    return {split: _examples(of_split, task, split) for split, of_split in table.items()}


def _own(source: Source) -> dict[str, list[dict]]:
    """One file, or a folder that holds train.*, test.* and perhaps validation.*."""
    if not source.path:
        raise UserError("task.source.path: name your data file (csv, tsv, json, jsonl or parquet)")
    path = Path(source.path).expanduser()
    if path.is_dir():
        files = {p.stem: p for p in sorted(path.iterdir()) if p.stem in SPLITS and p.suffix in ENDINGS}
        if not {"train", "test"} <= set(files):
            raise UserError(
                f"task.source.path={path}: a folder must hold train and test files (one of {', '.join(ENDINGS)})"
            )
        return {split: _read_file(file) for split, file in files.items()}
    return {"all": _read_file(path)}


def _read_file(path: Path) -> list[dict]:
    if not path.is_file():
        raise UserError(f"task.source.path={path}: no such file")
    if path.suffix not in ENDINGS:
        raise UserError(f"task.source.path={path}: unknown ending; one of {', '.join(ENDINGS)} is needed")
    if path.stat().st_size == 0:
        raise UserError(f"task.source.path={path}: the file is empty")
    try:
        rows = _parse(path)
    except (ValueError, KeyError, TypeError, csv.Error, OSError) as error:
        kind = path.suffix[1:]
        raise UserError(f"task.source.path={path}: cannot be read as {kind}: {_first_line(error)}") from error
    if not rows:
        raise UserError(f"task.source.path={path}: the file holds no examples")
    return rows


def _parse(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        import pandas as pd

        return pd.read_parquet(path).to_dict("records")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix in (".csv", ".tsv"):
        if "\0" in text:
            raise ValueError("it is a binary file")
        # strict: a quote left open or text after a closing quote is an error, not a guess.
        # (Not str.splitlines: it also cuts at characters that may stand in a field, such as U+0085 in film reviews.)
        delimiter = "\t" if path.suffix == ".tsv" else ","
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = list(reader)
        for number, row in enumerate(rows, 1):
            if None in row or None in row.values():
                raise ValueError(f"example {number} has {'more' if None in row else 'fewer'} fields than the header")
        return rows
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    else:
        rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list of objects is needed")
    return rows


def _function_vectors(source: Source) -> list[dict]:
    """One of the abstractive files of function_vectors (MIT), at a pinned commit and with its SHA-256 checked."""
    if not source.function_vectors or not source.sha256:
        raise UserError(
            "task.source.kind=function_vectors: this task has no file there (only study 3's six tasks have)"
        )
    path = Path(source.path).expanduser() if source.path else _fetch(source.function_vectors)
    path = path / source.function_vectors if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"task.source.path={path}: no such file")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != source.sha256:
        raise UserError(
            f"{path}: its SHA-256 is {sha256[:16]}..., the published file's is {source.sha256[:16]}...: "
            "not the pinned data"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _fetch(file: str) -> Path:
    """The file of function_vectors in the user's cache, downloaded where it is not there yet."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "promptgeo" / "function_vectors" / FUNCTION_VECTORS_COMMIT
    path = cache / file
    if not path.is_file():
        import http.client
        import urllib.error
        import urllib.request

        url = FUNCTION_VECTORS.format(commit=FUNCTION_VECTORS_COMMIT, file=file)
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                content = response.read()
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise UserError(
                f"{url}: cannot be fetched ({error}); give a local copy with task.source.path=<file or folder>"
            ) from error
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as stream:
            stream.write(content)
        os.replace(stream.name, path)
    return path


def _hub(source: Source) -> dict[str, list[dict]]:
    if not source.path:
        offline_if_unreachable()
    import datasets

    name = source.path or source.dataset
    if not name:
        raise UserError("task.source.kind=hub needs task.source.dataset=<hub id>")
    try:
        loaded = datasets.load_dataset(name, source.subset, revision=source.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if source.path:
            reason = _first_line(error)
            raise UserError(f"task.source.path={source.path}: cannot be read as a dataset: {reason}") from error
        raise UserError(
            f"task.source.dataset={name}: cannot be loaded (no network, no such dataset, or no access): "
            "give a local copy with task.source.path=<file or folder>"
        ) from error
    table = {split: list(rows) for split, rows in loaded.items() if split in SPLITS}
    return table if len(table) > 1 else {"all": [row for rows in table.values() for row in rows]}


def _examples(rows: Iterable[dict], task: Task, split: str) -> Pairs:
    source = task.source
    place = source.path or source.dataset or source.bundled
    examples: Pairs = []
    for number, row in enumerate(rows, 1):
        columns = _columns(source, row, place)
        text, label = (_text(row[c]) for c in columns)
        example = f"{place}: example {number}" + (f" of {split}" if split != "all" else "")
        for column, value in zip(columns, (text, label), strict=True):
            if not value.strip():
                raise UserError(f"{example} has nothing in column {column!r}")
        pair = text, _named_label(label, task.labels, example)
        examples.append(pair if source.repeat is None else (*pair, _copies(row, source.repeat, example)))
    if not examples:
        raise UserError(f"{place}: holds no examples")
    return examples


def _copies(row: dict, column: str, example: str) -> int:
    value = _text(row.get(column)).strip()
    if not value.isdecimal() or int(value) < 1:
        raise UserError(
            f"{example} has {value!r} in column {column!r} (task.source.repeat): a whole number from 1 on is needed"
        )
    return int(value)


def _columns(source: Source, row: dict, place: Any) -> tuple[str, str]:
    # The function-vectors files call them input and output.
    renamed = source.kind is SourceKind.function_vectors and source.label == "label"
    names = source.input, "output" if renamed else source.label
    for key, name in zip(("input", "label"), names, strict=True):
        if name not in row:
            raise UserError(
                f"{place}: has no column {name!r} (it has {', '.join(map(str, row))}); set task.source.{key}=<column>"
            )
    return names


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _named_label(label: str, labels: list[str] | None, example: str) -> str:
    """Labels given as whole numbers index the label set; any label must be in the set, where there is one."""
    if labels is None or label in labels:
        return label
    if label.isdecimal() and int(label) < len(labels):
        return labels[int(label)]
    raise UserError(f"{example} has the label {label!r}, which is not in task.labels={labels}")
