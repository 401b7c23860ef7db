"""Is another process training this run? While one does, its folder is locked."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from promptgeo.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def locked(folders: Sequence[Path]) -> Iterator[None]:
    """Makes the folders and locks them: within, no other process trains these runs. Raises UserError where one does.

    The kernel frees the locks of a process that was killed. There are none on Windows.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with ExitStack() as held:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(folder, os.O_RDONLY)
            except OSError:
                break  # more runs than a process may have files open
            held.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{folder}: another process is training this run; "
                    "the same command, once that is done, goes on from there"
                ) from error
            except OSError as error:
                log.debug("%s: cannot be locked: %s", folder, error)  # some network file systems
        yield
