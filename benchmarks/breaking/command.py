"""How does a command end? Each in a process of its own, forked from this one, which has imported promptgeo already."""

import contextlib
import hashlib
import os
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Main = Callable[[Sequence[str]], None]
TRACES = ("Traceback (most recent call last)", "Exception ignored in", "DeprecationWarning")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int | None
    """None: it was still running after the time that it had; -9: killed by signal 9."""
    output: str
    """Standard output and standard error together."""
    seconds: float

    def problems(self, statuses: Sequence[int], lines: int | None = None) -> list[str]:
        """What is not as promised: the status, a traceback, no line of promptgeo's own where it failed.

        lines: how many its output may have at most.
        """
        found = []
        if self.status is None:
            found.append(f"hangs: still running after {self.seconds:.0f} s")
        elif self.status not in statuses:
            found.append(f"status {self.status}, not {' or '.join(map(str, statuses))}")
        found += [f"its output has '{trace}'" for trace in TRACES if trace in self.output]
        said = [line for line in self.output.splitlines() if line.startswith(("promptgeo: ", "damaged: "))]
        if self.status == 2 and not said:
            found.append("nothing says why it failed")
        if lines is not None and len(self.output.splitlines()) > lines:
            found.append(f"its output has {len(self.output.splitlines())} lines")
        return found


def import_everything() -> None:
    """What commands import, so that no fork has to."""
    import pandas  # noqa: F401
    import torch

    torch.set_num_threads(1)  # others would not be there after a fork
    import promptgeo.analysis.ask
    import promptgeo.cli.analyze
    import promptgeo.cli.reproduce
    import promptgeo.cli.runs
    import promptgeo.cli.train
    import promptgeo.report.page
    import promptgeo.training.tuning  # noqa: F401


def run(
    main: Main, line: Sequence[str], folder: Path, limit: float = 120.0, before: Callable[[], object] = lambda: None
) -> Ended:
    """Run a console entry point in `folder`.

    limit: seconds after which it is killed. before: is called in the new process first.
    """
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _be(main, line, folder, output.fileno(), before)
        status = _wait(child, start + limit)
        seconds = time.monotonic() - start
        output.seek(0)
        return Ended(status, output.read().decode(errors="replace"), seconds)


def _be(main: Main, line: Sequence[str], folder: Path, output: int, before: Callable[[], object]) -> None:
    """What the new process does. It ends here, as an interpreter of its own would."""
    status = 1
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Under pytest they are something else.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        before()
        main(list(line))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(child: int, until: float) -> int | None:
    """The exit status, negative for a signal; None, and the process with all of its group killed, after `until`."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)


def contents(*folders: Path) -> dict[str, str]:
    """SHA-256 of every file below the folders, what every link names, and every folder."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[str(path)] = f"link to {os.readlink(path)}"
            elif stat.S_ISREG(mode):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder" if stat.S_ISDIR(mode) else "special"
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs, in words."""
    words = {(True, True): "changed", (True, False): "is gone", (False, True): "is new"}
    differing = [path for path in sorted(before | after) if before.get(path) != after.get(path)]
    return [f"{path} {words[path in before, path in after]}" for path in differing]
