"""Where do examples come from? Bundled data, the function-vectors repository, a hub dataset, or the user's own file.

Every reader gives {split name: rows}; a source without splits of its own has one, "all". A bundled file's splits, and
those of an own file, are in its column `split`, where it has one; a folder's are its files. Only the splits that a task
uses are read.
"""

import csv
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from promptgeo.config.paths import ByValue, stamps, user_path
from promptgeo.config.schema import Source, SourceKind, Split, SplitKind, Task
from promptgeo.data.fields import value_of, written
from promptgeo.data.files import ENDINGS, Rows, class_names, first_line, parse_json, read_file
from promptgeo.data.hub import offline_if_unreachable
from promptgeo.data.labels import Labelled, named
from promptgeo.data.splits import SPLITS, kind_of, own_splits
from promptgeo.data.values import answers_of, text_of
from promptgeo.errors import UserError

log = logging.getLogger(__name__)

Pairs = list[tuple[Any, ...]]
"""Input, label; copies of the prompt, where task.source.repeat names them; further accepted answers; what may be cut:
as Example has them, the last left out where they are what Example has by default."""
Table = dict[str, Callable[[], Rows]]
"""A source's splits, each read when it is asked for."""

FUNCTION_VECTORS = (
    "https://raw.githubusercontent.com/ericwtodd/function_vectors/{commit}/dataset_files/abstractive/{file}"
)
FUNCTION_VECTORS_COMMIT = "fb9eac7b6dc707ea1475a717379916007fe448d5"
MOST_COPIES = 10_000
"""Of the prompt in one example: more than any model has positions for."""


def resolved(task: Task) -> Task:
    """The task with task.split.kind=auto decided: own where the source has train and test splits, else random.

    Raises UserError where the source cannot be read.
    """
    if task.split.kind is not SplitKind.auto:
        return task
    return replace(task, split=replace(task.split, kind=kind_of(task.split, list(_table(task)))))


def read(task: Task) -> dict[str, Pairs]:
    """The examples of the splits that the task uses, as text. Raises UserError naming what is wrong."""
    task = resolved(task)
    place = local(task.source) or task.source.dataset or task.source.bundled
    table = _used(_table(task), task)
    rows = {split: read_split() for split, read_split in table.items()}
    if task.source.row is not None:
        rows = _only(task.source.row, rows, str(place))
    return _examples(rows, task, str(place))


def _only(number: int, table: dict[str, Rows], place: str) -> dict[str, Rows]:
    """The one row, counted from 0 through the splits. Raises UserError where there are fewer."""
    count = sum(len(rows.rows) for rows in table.values())
    for rows in table.values():
        if number < len(rows.rows):
            return {"all": Rows([rows.rows[number]], rows.classes)}
        number -= len(rows.rows)
    raise UserError(f"task.source.row={number + count}: {place} has {count} rows, counted from 0")


def local(source: Source) -> str | None:
    """The user's own file or folder that a source is read from; None: it is read from elsewhere."""
    if source.path is not None or source.folder is None:
        return source.path
    return os.path.join(source.folder, source.subfolder or "")


def _used(table: Table, task: Task) -> Table:
    """The splits that the task uses, in the source's order."""
    if task.split.kind is SplitKind.own:
        chosen = {part for parts in own_splits(task.split, list(table), task.name).values() for part in parts}
    else:
        chosen = set(table) if len(table) == 1 else set(table) & set(SPLITS)
        if not chosen:
            raise UserError(
                f"task {task.name}: the source has the splits {', '.join(table)}: name those to use with "
                "task.split.train= and task.split.test="
            )
    if unused := [split for split in table if split not in chosen]:
        log.info("task %s: the source's splits %s are not used", task.name, ", ".join(unused))
    used = {split: read_split for split, read_split in table.items() if split in chosen}
    return {"all": next(iter(used.values()))} if len(used) == 1 and task.split.kind is not SplitKind.own else used


def _table(task: Task) -> Table:
    # An own file may have a column `split`, which means nothing to a task that mixes all examples.
    own = replace(task.split, kind=SplitKind.auto) if task.split.kind is SplitKind.own else task.split
    return _read_once(ByValue((task.name, task.source, own, stamps(local(task.source)))))


@lru_cache(maxsize=1)  # the same file is asked for its splits, then for its examples
def _read_once(key: ByValue) -> Table:
    name, source, split, _ = key
    if source.folder is not None:
        return _of_benchmark(source, split)
    if source.class_files is not None and source.path and user_path(source.path, "task.source.path").is_dir():
        paths = [user_path(source.path, "task.source.path") / file for file in source.class_files]
        if all(path.is_file() for path in paths):
            return _of_class_files(source, paths)
    if source.kind is SourceKind.function_vectors:
        return {"all": partial(_function_vectors, source)}
    if source.kind is SourceKind.hub:
        return _hub(source)
    if source.kind is SourceKind.file or source.path:
        return _own(source, split)
    if not source.bundled:
        raise UserError(f"task={name}: has no bundled data; set task.source.path=<your file> or task.source.kind=hub")
    return _bundled(source.bundled, split)


def _bundled(name: str, split: Split) -> Table:
    path = Path(str(files("promptgeo.data"))) / "bundled" / name
    if path.is_dir():
        return _folder(path, split)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return _by_column(Rows(rows)) if "split" in rows[0] else {"all": lambda: Rows(rows)}


def _by_column(table: Rows) -> Table:
    by_split: dict[str, list[dict]] = {}
    for row in table.rows:
        by_split.setdefault(str(row["split"]), []).append(row)
    return {split: partial(Rows, rows, table.classes) for split, rows in by_split.items()}


def _own(source: Source, split: Split) -> Table:
    """One file, or a folder that holds train.*, test.* and perhaps others."""
    if not source.path:
        raise UserError("task.source.path: name your data file (csv, tsv, json, jsonl or parquet)")
    path = user_path(source.path, "task.source.path")
    if path.is_dir():
        return _folder(path, split)
    table = read_file(path)
    if split.kind is SplitKind.auto:  # asked before it is resolved, so that this is said once
        _warn_of_another_spelling(path, table.rows[0])
    if "split" in table.rows[0] and "split" not in (source.input, source.label, source.repeat):
        by_split = _by_column(table) if all("split" in row for row in table.rows) else {}
        if split.kind is SplitKind.auto and kind_of(split, list(by_split)) is SplitKind.own:
            return by_split
        # auto is asked before it is resolved, so that this is said once.
        mixed = split.kind is SplitKind.random and {"train", "test"} <= set(by_split)
        if split.kind is SplitKind.auto or mixed:
            values = ", ".join(dict.fromkeys(str(row.get("split", "nothing")) for row in table.rows[:1000]))
            log.warning(
                "%s: its column 'split' is not used: it holds %s, and all examples are mixed (task.split.train= and "
                "task.split.test= name its values)",
                path,
                values[:200],
            )
    return {"all": lambda: table}


def _warn_of_another_spelling(path: Path, row: dict) -> None:
    """A column `Split` is as likely meant as one called `split`."""
    alike = [column for column in row if str(column).strip().casefold() == "split" and column != "split"]
    if alike and "split" not in row:
        log.warning(
            "%s: its column %r is not used: only one that is called 'split' says which examples train and test",
            path,
            alike[0],
        )


TRAIN, UP_TO_TEST = 0.8, 0.9
"""Shares of the lines of each class file: train up to the first, validation up to the second, test."""


def _of_class_files(source: Source, paths: list[Path]) -> Table:
    """Splits as the hub's copy of rotten_tomatoes makes them of the published pair: the last class first."""
    table: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for number, path in reversed(list(enumerate(paths))):
        lines = [line.strip() for line in _text_of(path).split("\n") if line.strip()]
        ends = [0, *(int(share * len(lines) + 0.5) for share in (TRAIN, UP_TO_TEST)), len(lines)]
        for split, start, end in zip(SPLITS, ends, ends[1:], strict=False):
            table[split] += [{source.input: line, source.label: str(number)} for line in lines[start:end]]
    return {split: partial(Rows, rows) for split, rows in table.items()}


def _text_of(path: Path) -> str:
    """UTF-8, or Latin-1 as film reviews of 2005 were first published."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"task.source.path={path}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


VALIDATION = ("val", "dev")
"""What benchmarks call their file for validation, where none is called so."""


def _of_benchmark(source: Source, split: Split) -> Table:
    """A task's own folder among those of a benchmark."""
    if source.path is not None:
        raise UserError("task.source.folder= and task.source.path= are both given: one place is read")
    if source.subfolder is None:
        raise UserError("task.source.folder: this task has no folder of its own in it; give task.source.subfolder=")
    path = user_path(str(local(source)), "task.source.folder")
    if not path.is_dir():
        raise UserError(f"task.source.folder={source.folder}: holds no folder {source.subfolder}")
    return _folder(path, split, "task.source.folder")


def _folder(path: Path, split: Split, key: str = "task.source.path") -> Table:
    try:
        present = sorted(p for p in path.iterdir() if p.suffix in ENDINGS and not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error.strerror})") from error
    named = (split.train or "train", split.test or "test", *([split.validation] if split.validation else []))
    wanted = [part for name in named if isinstance(name, str) for part in name.split("+")]
    table: Table = {}
    for file in present:
        if file.stem in table and file.stem in (*wanted, *SPLITS):
            raise UserError(f"{key}={path}: holds two files called {file.stem}: keep one")
        table[file.stem] = partial(read_file, file)
    if "validation" in wanted and "validation" not in table:
        table = {"validation" if stem in VALIDATION else stem: read_split for stem, read_split in table.items()}
    if not set(wanted) <= set(table):
        others = sorted((name for name in table if name not in SPLITS), key=lambda name: name.startswith("test"))
        hint = f"; others are named as task.split.test={others[0]}" if others else ""
        absent = next(name for name in wanted if name not in table)
        if absent in VALIDATION and any(file.stem == absent for file in present):
            raise UserError(
                f"task.split: {key}={path}: its {absent}.* is the split validation, which is named already; "
                "to stop on the test rows, as some studies did, set task.split.stop_on_test=true"
            )
        raise UserError(
            f"{key}={path}: a folder must hold train and test files (one of {', '.join(ENDINGS)}){hint}"
            if set(wanted) <= set(SPLITS)
            else f"{key}={path}: holds no file {absent}.* (it has {', '.join(table)})"
        )
    return table


def _function_vectors(source: Source) -> Rows:
    """One of the abstractive files of function_vectors (MIT), at a pinned commit and with its SHA-256 checked."""
    if not source.function_vectors or not source.sha256:
        raise UserError(
            "task.source.kind=function_vectors: this task has no file there (only study 3's six tasks have)"
        )
    path = user_path(source.path, "task.source.path") if source.path else _fetch(source.function_vectors)
    path = path / source.function_vectors if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"task.source.path={path}: no such file")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != source.sha256:
        raise UserError(
            f"{path}: its SHA-256 is {sha256[:16]}..., the published file's is {source.sha256[:16]}...: "
            "not the pinned data"
        )
    return Rows(parse_json(path.read_text(encoding="utf-8")))


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


def _hub(source: Source) -> Table:
    if not source.path:
        offline_if_unreachable()
    import datasets

    name = str(user_path(source.path, "task.source.path")) if source.path else source.dataset
    if not name:
        raise UserError("task.source.kind=hub needs task.source.dataset=<hub id>")
    try:
        loaded = datasets.load_dataset(name, source.subset, revision=source.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if source.path:
            reason = first_line(error)
            raise UserError(f"task.source.path={source.path}: cannot be read as a dataset: {reason}") from error
        raise UserError(
            f"task.source.dataset={name}: cannot be loaded (no network, no such dataset, or no access): give a local "
            + (
                f"copy of the benchmark with task.source.folder=<folder that holds {source.subfolder}/>"
                if source.subfolder
                else "copy with task.source.path=<file or folder>"
            )
        ) from error
    classes = {
        column: names
        for rows in loaded.values()
        for column, feature in rows.features.items()
        if (names := class_names(feature))
    }
    # A list of them is made only of the splits that are used.
    return {split: partial(_hub_rows, rows, classes) for split, rows in loaded.items()}


def _hub_rows(dataset: Iterable[dict], classes: dict[str, list[str]]) -> Rows:
    return Rows(list(dataset), classes)


def _examples(table: dict[str, Rows], task: Task, place: str) -> dict[str, Pairs]:
    source = task.source
    inputs: list[str] = []
    column: list[Labelled] = []
    copies: list[int] = []
    label_column, classes = source.label, source.classes
    spans: list[tuple[int, int] | None] = []
    for split, rows in table.items():
        for number, row in enumerate(rows.rows, 1):
            where = f"{place}: example {number}" + (f" of {split}" if split != "all" else "")
            label_column = _label_column(source, row, where)
            whole = written(row, source.input, source.cut, where)
            inputs.append(whole.text)
            spans.append(whole.cut)
            column.append((where, answers_of(value_of(row, label_column), where, label_column)))
            if source.repeat is not None:
                copies.append(copies_in(row, source.repeat, where))
        if not rows.rows:
            raise UserError(f"{place}: holds no examples" + (f" of {split}" if split != "all" else ""))
        _require_labels_shown(column[-len(rows.rows) :], split, table, place)
        classes = source.classes or rows.classes.get(label_column, classes)
    trained = (task.split.train or "train").split("+")
    _warn_of_some_hidden([answers[0] for _, answers in column], table, trained, place)
    words = named(column, task.labels, classes, place, label_column, declared=source.classes is not None)
    words = _with_spellings(words, task)
    made = [
        _pair(text, of_example, copies[i] if copies else None, spans[i])
        for i, (text, of_example) in enumerate(zip(inputs, words, strict=True))
    ]
    examples, start = {}, 0
    for split, rows in table.items():
        examples[split] = made[start : start + len(rows.rows)]
        start += len(rows.rows)
    return examples


def _with_spellings(words: list[tuple[str, ...]], task: Task) -> list[tuple[str, ...]]:
    """The answers with the further spellings of task.accepted."""
    if task.accepted is None:
        return words
    of_label = dict(zip(task.labels or [], task.accepted, strict=True))
    return [tuple(dict.fromkeys([*answers, *of_label[answers[0]]])) for answers in words]


def _pair(text: str, answers: tuple[str, ...], copies: int | None, cut: tuple[int, int] | None) -> tuple[Any, ...]:
    label, *accepted = answers
    if cut is not None:
        return text, label, copies or 1, tuple(accepted), cut
    if accepted:
        return text, label, copies or 1, tuple(accepted)
    return (text, label) if copies is None else (text, label, copies)


HIDDEN = ("-1", "-1.0")
"""Labels as benchmarks hide those of their test split."""


def _require_labels_shown(of_split: list[Labelled], split: str, table: dict[str, Rows], place: str) -> None:
    """Raises UserError where every label is hidden."""
    if len(of_split) > 1 and all(len(answers) == 1 and answers[0] in HIDDEN for _, answers in of_split):
        others = [other for other in table if other != split and not other.startswith("train")]
        raise UserError(
            f"{place}: every label of {split} is -1, so they are hidden; name another split"
            + (f", as task.split.test={others[-1]}" if others else " (that for validation) with task.split.test=")
        )


def _warn_of_some_hidden(labels: list[str], table: dict[str, Rows], trained: list[str], place: str) -> None:
    """Some labels of a split beside training's are -1 where no label of training is, nor any other below 0."""
    of_each, start = {}, 0
    for split, rows in table.items():
        of_each[split] = labels[start : start + len(rows.rows)]
        start += len(rows.rows)
    below = any(label.startswith("-") and label not in HIDDEN for label in labels)
    in_training = any(label in HIDDEN for split in trained for label in of_each.get(split, []))
    for split, of_split in of_each.items():
        hidden = sum(label in HIDDEN for label in of_split)
        if hidden and split not in trained and trained[0] in of_each and not below and not in_training:
            log.warning(
                "%s: %d of %d labels of %s are -1, which no label of training is: benchmarks hide labels so; here they "
                "count as any other",
                place,
                hidden,
                len(of_split),
                split,
            )


def copies_in(row: Mapping[str, Any], column: str, example: str) -> int:
    """How many copies of the prompt a row wants. Raises UserError for what is no whole number from 1 on."""
    value = text_of(row.get(column), example, column).strip()
    if not value.isdecimal() or len(value) > 9 or not 1 <= int(value) <= MOST_COPIES:
        raise UserError(
            f"{example} has {value[:20]!r} in column {column!r} (task.source.repeat): "
            f"a whole number from 1 on is needed (at most {MOST_COPIES:,})"
        )
    return int(value)


def _label_column(source: Source, row: dict, where: str) -> str:
    """The label's column. Raises UserError where it, or a column of the input, is not there."""
    # The function-vectors files call them input and output.
    renamed = source.kind is SourceKind.function_vectors and source.label == "label"
    label = "output" if renamed else source.label
    for key, name in [*(("input", name) for name in source.columns), ("label", label)]:
        try:
            value_of(row, name)
        except KeyError as error:
            raise UserError(
                f"{where} has no column {name!r} (it has {', '.join(map(str, row))}); set task.source.{key}=<column>"
            ) from error
    return label
