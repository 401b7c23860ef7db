"""Which files of a run's folder did promptgeo write? They can be deleted; a folder that holds any other is left."""

import os
import re
import shutil
import stat
from pathlib import Path

from promptgeo.runs.folder import DIGITS, FILES, STATE, TRAINING_STATE, Found

_RUN = ("run.json", *FILES, TRAINING_STATE, STATE)
_HYDRA = ("train.log", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
_STATE_FOLDER = STATE.partition("/")[0]
_TEMPORARY = re.compile(r"(^|/)\.([^/]+)\.tmp$")
"""The name of a file while it is written, in which a killed process leaves it."""


def foreign(found: Found) -> str | None:
    """The first thing in a run's folder that promptgeo did not write there, in words; None where there is none.

    A link is none of promptgeo's, wherever it leads; nothing is read through it.
    """
    folder = found.folder
    if folder.is_symlink():
        return f"{folder}: is a link, which promptgeo did not make"
    if found.run is None and not DIGITS.search(folder.name) and not (folder / "prompts.safetensors").exists():
        return f"{folder}: nothing in it says that promptgeo wrote it"  # other programs write a run.json too
    for place, inside, files in os.walk(folder):
        for name in sorted([*inside, *files]):
            path = Path(place, name)
            if not _is_ours(path.relative_to(folder).as_posix(), path.lstat().st_mode):
                what = "is a link" if path.is_symlink() else "is none of the run's files"
                return f"{path}: {what}, and promptgeo did not write it: move it away"
    return None


def _is_ours(inside: str, mode: int) -> bool:
    if stat.S_ISDIR(mode):
        return inside in (_STATE_FOLDER, ".hydra")
    return stat.S_ISREG(mode) and _TEMPORARY.sub(r"\1\2", inside) in (*_RUN, *_HYDRA)


def size_of(folder: Path) -> int:
    """Bytes of a run's files."""
    return sum(Path(place, name).lstat().st_size for place, _, files in os.walk(folder) for name in files)


def remove(folder: Path) -> None:
    """Delete a run's folder; run.json goes last, so that a process that is killed leaves what can be chosen again."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)  # links within it are deleted, never followed
        else:
            path.unlink()
    folder.rmdir()
