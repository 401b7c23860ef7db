"""Where do conf/ and the embedded model lie, what is a folder called, and when has a user's file changed?"""

import hashlib
import os
import re
import stat
import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from promptgeo.errors import UserError

PACKAGE = Path(str(files("promptgeo")))
EMBEDDED_MODEL = PACKAGE / "tiny" / "model"
"""The embedded model's Hugging Face folder: config.json, model.safetensors (fp16), tokenizer.json, ..."""


DATA = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Endings of data files."""


def conf_dir() -> str:
    """The packaged conf/ of an installed wheel, else the repository's own: an editable install sees no stale copy."""
    packaged = PACKAGE / "conf"
    return str(packaged if packaged.is_dir() else PACKAGE.parents[1] / "conf")


def own_choices(folder: str | Path | None) -> list[str]:
    """The override with which Hydra finds the choices of --config-dir beside promptgeo's own; without a folder, none.

    Raises UserError as require_own_choices does.
    """
    if folder is None:
        return []
    from hydra.core.override_parser.types import Quote, QuotedString  # --help must not wait for it

    place = f"file://{os.path.abspath(require_own_choices(folder))}"
    return [f"hydra.searchpath=[{QuotedString(place, Quote.single).with_quotes()}]"]


def require_own_choices(folder: str | Path) -> Path:
    """The folder of --config-dir.

    Raises UserError where it is no folder that can be read, or has a choice whose name promptgeo's own has: Hydra would
    take promptgeo's without a word.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise UserError(f"--config-dir {folder!r}: a folder is needed")
    own = user_path(str(folder), "--config-dir")
    if not own.is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    if own.resolve() == Path(conf_dir()).resolve():
        return own
    for group in (*groups(), "analysis"):
        try:
            found = sorted(path.name for path in (own / group).glob("*.yaml"))
        except OSError as error:
            raise UserError(f"--config-dir {folder}: {group} cannot be read ({error.strerror})") from error
        for name in found:
            if (Path(conf_dir()) / group / name).is_file():
                raise UserError(
                    f"--config-dir {folder}: {group}/{name} has the name of promptgeo's own "
                    f"{group}={name.removesuffix('.yaml')}; give it another name"
                )
    return own


@lru_cache
def groups() -> list[str]:
    """The config groups of promptgeo.train: model, task, init, ..."""
    # Those of conf/analysis are promptgeo.analyze's.
    return sorted(p.name for p in Path(conf_dir()).iterdir() if p.is_dir() and p.name != "analysis")


def model_name(name_or_path: str) -> str:
    """What a model is called that was given by path or hub id alone: the last part of it."""
    return Path(name_or_path).name or "model"


def data_name(path: str | None) -> str:
    """What a task of the user's own file or folder is called: its name and four digits of its content.

    Two files of one name are two tasks; one that is moved stays what it was.
    """
    if path is None:
        return "custom"
    try:
        return _data_name(path, str(stamps(path)))
    except (OSError, RuntimeError):  # what is wrong with it is said when it is read
        return slug(Path(path).stem)[:60]


@lru_cache(maxsize=64)
def _data_name(path: str, _stamps: str) -> str:
    source = Path(os.path.abspath(Path(path).expanduser()))  # `.` and `..` have no name of their own
    # Notes and a system's own files beside the data are not part of them.
    files = (
        sorted(p for p in source.iterdir() if p.suffix in DATA and not p.name.startswith(".") and p.is_file())
        if source.is_dir()
        else [source]
    )
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            return source.stem  # what is wrong with it is said when it is read
        digest.update(os.fsencode(file.name) + b"\0" if source.is_dir() else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"{slug(source.name if source.is_dir() else source.stem)}-{digest.hexdigest()[:4]}"


def slug(text: str) -> str:
    """`text` fit for a folder name."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_") or "_"


def stamps(path: str | None) -> list[tuple[str, int, int]]:
    """Place, time (ns) and size (bytes) of a user's own file, or of the files of a folder: equal unless one was edited.

    None, and what is not there, have no stamps.
    """
    if path is None:
        return []
    stamped = []
    with suppress(OSError, RuntimeError, ValueError):  # whoever reads the place says what is wrong with it
        source = Path(path).expanduser().absolute()
        for file in sorted(source.iterdir()) if source.is_dir() else [source]:
            with suppress(OSError):  # a link to nothing, such as an editor's lock
                stamped.append((str(file), file.stat().st_mtime_ns, file.stat().st_size))
    return stamped


def require_short(path: Path, key: str) -> None:
    """Raises UserError, which names `key`, where no file system takes such a name or such a path."""
    path = path.absolute()
    if long := next((part for part in path.parts if len(os.fsencode(part)) > 255), None):
        raise UserError(f"{key}: {long[:60]}... is longer than the 255 bytes that a file system allows a name")
    if (size := len(os.fsencode(path))) > 4095:
        raise UserError(f"{key}: {str(path)[:60]}... is a path of {size} bytes, of which a system takes 4,095")


def as_text(path: str | Path) -> str:
    """A path, or a part of one, as a text that every file can hold: bytes that are no UTF-8 are written as \\udcff."""
    return str(path).encode(errors="backslashreplace").decode()


def user_path(path: str, key: str) -> Path:
    """`path` with ~ expanded. Raises UserError, which names `key`, where no file system can have it."""
    try:
        expanded = Path(path).expanduser()
        os.fsencode(expanded)
        if "\0" in path:
            raise ValueError("it holds a null character")
        expanded.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{key}={path[:80]}: is no place that a file can be at ({reason})") from error
    return expanded


def require_file(path: Path, named: str, largest: int) -> None:
    """Raises UserError where `path` is no regular file or larger than so many bytes; named: what the error calls it.

    To be asked before a file is opened: a pipe would wait for its other end, a device never ends.
    """
    try:
        found = path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise UserError(f"{named}: {'no such file' if missing else error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(
            f"{named}: is {'a folder' if stat.S_ISDIR(found.st_mode) else 'a pipe or a device'}, not a file"
        )
    if found.st_size > largest:
        raise UserError(f"{named}: is larger than {largest / 2**20:,.0f} MB; give a smaller file")


def require_writable(folder: Path, key: str = "outputs") -> None:
    """Raises UserError, which names `key`, unless results can be written below `folder`, which need not exist yet."""
    existing = next(
        p for p in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(p)
    )  # also a broken link
    try:
        # Permission bits say too little: root may write anywhere, and a mount may be read-only.
        with tempfile.TemporaryDirectory(dir=existing, prefix=".promptgeo-"):
            pass
    except OSError as error:
        raise UserError(
            f"{key}={folder}: {existing} is not a folder that can be written to ({error.strerror}); set {key}=<folder>"
        ) from error


class ByValue(tuple):
    """Dataclasses that compare by value, as a cache key."""

    def __hash__(self) -> int:
        return hash(repr(tuple(self)))
