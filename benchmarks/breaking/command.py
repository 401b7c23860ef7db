"""How does a command end? Each in a process of its own, forked from this one, which has imported promptgeo already."""

import contextlib
import hashlib
import json
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
LONGEST = 10.0
"""Seconds that a command may take to refuse what it is given, or to stop, where it has a processor to itself."""
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


@dataclass(frozen=True)
class Tried:
    """One attempt to break something."""

    kind: str
    what: str
    problems: list[str]
    """What is not as promised; empty where it held."""
    seconds: float
    output: str = ""
    """What the commands said."""


class Broken(Exception):
    """Already what is to be disturbed does not work undisturbed."""


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


class Running:
    """A console entry point at work in `folder`, in a process and a process group of its own.

    before: is called in the new process first.
    """

    def __init__(self, main: Main, line: Sequence[str], folder: Path, before: Callable[[], object] = lambda: None):
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as this is
        self._start = time.monotonic()
        self._status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = os.fork()
        if self._process == 0:
            _be(main, line, folder, self._output.fileno(), before)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is None:
            self.signal(signal.SIGKILL)
            self.over(60.0)
        with contextlib.suppress(ProcessLookupError):  # what it started and left
            os.killpg(self._process, signal.SIGKILL)
        self._output.close()

    def signal(self, number: int) -> None:
        """To its whole process group, as a terminal and a batch system send it."""
        os.killpg(self._process, number)

    def over_in_time(self, seconds: float) -> bool:
        """Whether it ends within so many seconds, more where other work waits for the processors too."""
        start = time.monotonic()
        while not self.over(0.5):
            crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
            if time.monotonic() - start > seconds * max(1.0, 2 * crowd):  # twice: the load is a mean of a minute
                return False
        return True

    def over(self, seconds: float) -> bool:
        """Wait at most that long; whether it has ended."""
        until = time.monotonic() + seconds
        while self._status is None:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                return False
            else:
                time.sleep(0.005)
        return True

    def output(self) -> str:
        """What it has said so far."""
        return os.pread(self._output.fileno(), 10_000_000, 0).decode(errors="replace")

    def so_far(self) -> Ended:
        return Ended(self._status, self.output(), time.monotonic() - self._start)


def run(
    main: Main, line: Sequence[str], folder: Path, limit: float = 120.0, before: Callable[[], object] = lambda: None
) -> Ended:
    """Run a console entry point in `folder` to its end, for `limit` seconds at most, more on a busy machine."""
    with Running(main, line, folder, before) as running:
        running.over_in_time(limit)
        return running.so_far()


def _be(main: Main, line: Sequence[str], folder: Path, output: int, before: Callable[[], object]) -> None:
    """What the new process does. It ends here, as an interpreter of its own would."""
    status = 1
    try:
        os.setsid()
        for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            signal.signal(number, handler)
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


def results(folder: Path) -> dict[str, str]:
    """SHA-256 of every file there, but for Hydra's and logs, without how long things took."""
    found = {str(Path(path).relative_to(folder)): digest for path, digest in contents(folder).items()}
    kept = {name: digest for name, digest in found.items() if not _is_notes(Path(name))}
    return {name: _untimed(folder / name) or digest for name, digest in kept.items()}


def _is_notes(path: Path) -> bool:
    return ".hydra" in path.parts or path.suffix == ".log" or path.name == "multirun.yaml"


def _untimed(path: Path) -> str | None:
    """What stands for a file that says how long something took; None for any other, and for one that is not whole."""
    if path.name == "report.html":
        return "a whole page" if path.read_bytes().rstrip().endswith(b"</html>") else None
    if path.name not in ("result.json", "training.json"):
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if path.name == "training.json":
        return "how long it took"
    return repr({key: value for key, value in said.items() if key not in ("seconds", "sha256")})


def lost(folder: Path, before: dict[str, str]) -> list[str]:
    """Finished runs and results of analyses that lay there `before`, and now neither lie there nor newer ones."""
    from promptgeo.analysis.result import read
    from promptgeo.errors import UserError
    from promptgeo.runs.folder import Run

    readers: dict[str, Callable[[Path], object]] = {"run.json": Run.load, "result.json": read}
    gone = []
    for path in (folder / name for name in before):
        try:
            if path.name in readers:
                readers[path.name](path.parent)
        except (UserError, OSError) as error:
            gone.append(f"lost: {error}")
    return gone
