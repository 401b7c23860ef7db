"""Which runs may this process train? Those that no other process claims, here or on a machine that shares the folder.

A claim is a lock on one byte of outputs/<name>/.claims, whose place is the run's own. So one open file serves any
number of runs, and the system frees the claims of a process that ended, however it ended.
"""

import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from promptgeo.errors import UserError
from promptgeo.runs.folder import DIGITS
from promptgeo.training.cell import Cell

log = logging.getLogger(__name__)

CLAIMS = ".claims"
"""Beside the run folders. It stays empty: bytes may be locked that are not there."""
HELD = "another process is training this run; the same command, once that is done, goes on from there"
"""Why a run was not trained."""


@contextmanager
def claimed(groups: Sequence[Sequence[Cell]]) -> Iterator[set[str]]:
    """Claim the runs: within, no other process trains them. Yields the ids of those that it got.

    groups: of runs that are trained together or not at all; all of a group are claimed, or none.

    Makes the folders that the run folders lie in. Raises UserError where nothing can be claimed in one. On Windows
    every run is free.
    """
    with ExitStack() as held:
        mine: set[str] = set()
        for group in groups:
            with ExitStack() as taken:
                # 60 bits: offsets have 63
                if all(_take(cell.folder.parent, int(cell.id[:15], 16), 1, taken) for cell in group):
                    mine |= {cell.id for cell in group}
                    held.enter_context(taken.pop_all())
        yield mine


@contextmanager
def claimed_folders(folders: Sequence[Path]) -> Iterator[set[Path]]:
    """Claim whatever runs may be trained in these folders. Yields those in which no other process trains.

    A folder's name says the first 8 digits of its run's identity, so the places of all that begin so are claimed. In a
    folder of another name nobody trains.
    """
    with ExitStack() as held:
        mine = set()
        for folder in folders:
            digits = DIGITS.search(folder.name)
            if digits is None or _take(folder.parent, int(digits[1] + "0" * 7, 16), 16**7, held):
                mine.add(folder)
        yield mine


@dataclass
class _Claims:
    """What this process claims in one file.

    Closing any descriptor of a file drops all locks that a process has on it: there is one, while there are claims.
    """

    descriptor: int
    places: set[int] = field(default_factory=set)


_open: dict[tuple[int, int], _Claims] = {}
"""By device and inode, for a file may have several paths."""
_one_thread = threading.Lock()


def _take(folder: Path, place: int, count: int, taken: ExitStack) -> bool:
    """Whether `count` places from this one on could be claimed in a folder of runs, for as long as `taken` is open."""
    if sys.platform == "win32":
        return True
    import fcntl

    with _one_thread:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            key, claims = _claims_in(folder / CLAIMS)
        except OSError as error:
            raise UserError(f"{folder / CLAIMS}: cannot be opened ({error.strerror}): no run can be claimed") from error
        taken.callback(_close_unused, key)
        if place in claims.places:  # by another thread: a process is in nobody's way but others'
            return False
        try:
            fcntl.lockf(claims.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, place)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            log.warning(
                "%s: cannot be locked (%s): train no run of this folder in two commands at once", folder / CLAIMS, error
            )
        claims.places.add(place)
        taken.callback(partial(_release, key, place, count))
    return True


def _claims_in(path: Path) -> tuple[tuple[int, int], _Claims]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if (found.st_dev, found.st_ino) in _open:
            return (found.st_dev, found.st_ino), _open[found.st_dev, found.st_ino]
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    key = os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino
    return key, _open.setdefault(key, _Claims(descriptor))


def _release(key: tuple[int, int], place: int, count: int) -> None:
    import fcntl

    with _one_thread:
        _open[key].places.remove(place)
        try:
            fcntl.lockf(_open[key].descriptor, fcntl.LOCK_UN, count, place)
        except OSError as error:
            log.debug("a claim cannot be freed: %s", error)  # some file systems know no locks


def _close_unused(key: tuple[int, int]) -> None:
    with _one_thread:
        if key in _open and not _open[key].places:
            os.close(_open.pop(key).descriptor)
