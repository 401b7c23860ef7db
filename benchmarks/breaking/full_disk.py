"""Does a command survive a disk that is full from its n-th write on? For every n: one line, and with room it completes.

A write is whatever a full disk refuses: a new file, folder or name, bytes, and that they reach the disk.
"""

import builtins
import errno
import io
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from breaking.command import Broken, Main, Tried, changes, contents, lost, results, run

SMALL = (
    "task=present_past",
    "training.max_steps=3",
    "task.split.max_train=16",
    "task.split.max_test=4",
    "outputs=out",
    "name=x",
)

SMALL_DISKS = 3
"""Of each command, where disks can be mounted."""


class Disk:
    """Below `folder`, every write from the n-th on fails with `error`. n=0: none does.

    A new name for what is there fails as the n-th only: the room of its former name is free. It does not fail where a
    name of its folder was removed before: that one's room is enough.
    """

    def __init__(self, folder: Path, n: int = 0, error: int = errno.ENOSPC, log: Path | None = None):
        self.folder, self.n, self.error, self.writes = str(folder.resolve()), n, error, 0
        self.free_names: Counter[str] = Counter()
        self.log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def write(self, path: Any, call: str, takes_room: bool = True) -> None:
        if isinstance(path, int) or not os.path.abspath(os.fspath(path)).startswith(self.folder):
            return
        self.writes += 1
        if self.log is not None:
            os.write(self.log, f"{call} {os.path.relpath(os.fspath(path), self.folder)}\n".encode())
        if self.n and (self.writes >= self.n if takes_room else self.writes == self.n):
            raise OSError(self.error, os.strerror(self.error), os.fspath(path))

    def install(self) -> None:
        """From here on, in this process. States for resuming are saved after every step: writes that may fail."""
        from promptgeo.training.callbacks import Checkpointer

        Checkpointer.SECONDS, Checkpointer.SHARE = 0.0, 1e9
        disk, real_open, real_os_open, real_unlink = self, io.open, os.open, os.unlink

        class File(io.FileIO):
            def write(self, content: Any) -> int:
                disk.write(self.name, "write")
                return super().write(content)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *given: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or named.get("opener") or len(given) > 3:
                return real_open(file, mode, buffering, *given, **named)
            disk.write(file, "open")
            raw = File(file, mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            stream = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            if "b" in mode:
                return stream
            encoding, errors, newline = (*given, *(None,) * (3 - len(given)))
            return io.TextIOWrapper(
                stream,
                named.get("encoding", encoding) or "utf-8",
                named.get("errors", errors),
                named.get("newline", newline),
                line_buffering=buffering == 1,
            )

        def os_opened(path: Any, flags: int, *given: Any, **named: Any) -> int:
            if flags & os.O_CREAT:
                disk.write(path, "open")
            return real_os_open(path, flags, *given, **named)

        def refused(call: Callable, which: int, name: str) -> Callable:
            def checked(*given: Any, **named: Any) -> Any:
                folder = os.path.dirname(os.path.abspath(given[which]))
                if os.path.lexists(given[which]):
                    pass  # no name is added
                elif which == 1 and disk.free_names[folder]:
                    disk.free_names[folder] -= 1
                else:
                    disk.write(given[which], name, takes_room=which == 0)
                return call(*given, **named)

            return checked

        def unlinked(path: Any, *given: Any, **named: Any) -> None:
            real_unlink(path, *given, **named)
            disk.free_names[os.path.dirname(os.path.abspath(path))] += 1

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.open = os_opened
        os.unlink = os.remove = unlinked
        os.mkdir = refused(os.mkdir, 0, "mkdir")
        os.rename = refused(os.rename, 1, "rename")
        os.replace = refused(os.replace, 1, "replace")
        os.symlink = refused(os.symlink, 1, "symlink")


@dataclass(frozen=True)
class Command:
    """A command whose every write fails in turn."""

    name: str
    main: Main
    line: tuple[str, ...]
    needs: tuple[tuple[Main, tuple[str, ...]], ...] = ()
    """Commands that make what it starts from."""


def commands() -> list[Command]:
    from promptgeo.cli import analyze, reproduce, runs, train

    tasks = "task=present_past,country_capital"
    one, grid = (*SMALL, "init=cat"), (*SMALL[1:], tasks, "init=cat,dog", "-m")
    study = ("init_vs_task", "model=tiny", tasks, "init=cat,dog", *SMALL[1:])
    analysis = ("runs=out/x", "analysis=[curves,mean_distances]", "of=prompt", "convention=corrected")
    imported = ("import", "prompts.npy", "--table", "table.csv", "--out", "out/imported")
    again = "overwrite=true"
    return [
        Command("a run", train.main, one),
        Command("a grid", train.main, grid),
        Command("a run once more", train.main, (*one, again), ((train.main, one),)),
        Command("analyses", analyze.main, analysis, ((train.main, grid),)),
        Command("analyses once more", analyze.main, (*analysis, again), ((train.main, grid), (analyze.main, analysis))),
        Command("a report", reproduce.main, study, ((reproduce.main, study),)),
        Command("an import", runs.main, imported),
    ]


def fill(work: Path, most: int, small: bool, chance: random.Random) -> Iterator[Tried]:
    """Every command on disks that are full, read-only, and of a few kilobytes. most: attempts of each command's writes.

    small: an import and a run alone.
    """
    for command in commands():
        if not small or command.name in ("a run", "an import"):
            folder = work / command.name.replace(" ", "-")
            yield from _each_write(command, folder, most, chance)
            if not small:
                yield from _small_disks(command, folder, chance)
            shutil.rmtree(folder)


def _each_write(command: Command, work: Path, most: int, chance: random.Random) -> Iterator[Tried]:
    """Disks that are full from the n-th write on, for every n, or for `most` of them by chance; a read-only one."""
    ready, whole, place = work / "ready", work / "whole", work / "full"
    make_ready(command, ready)
    shutil.copytree(ready, whole)
    ended = run(command.main, command.line, whole, before=Disk(whole / "out", log=work / "writes").install)
    if ended.status != 0:
        raise Broken(f"{command.name}: ends with status {ended.status} on an empty disk:\n{ended.output}")
    calls = (work / "writes").read_text(encoding="utf-8").splitlines()
    expected, size = results(whole), range(1, len(calls) + 1)
    for n in size if len(size) <= most else sorted(chance.sample(size, most)):
        shutil.copytree(ready, place)
        what = f"{command.name}, full from write {n} of {len(size)} on ({calls[n - 1]})"
        yield _try(command, place, Disk(place / "out", n), what, expected)
        shutil.rmtree(place)
    shutil.copytree(ready, place)
    yield _try(command, place, Disk(place / "out", 1, errno.EROFS), f"{command.name}, read-only", expected)
    shutil.rmtree(place)


def _small_disks(command: Command, work: Path, chance: random.Random) -> Iterator[Tried]:
    """Disks that are too small, where this user may mount some."""
    place, ready, expected = work / "small", work / "ready", results(work / "whole")
    sizes = [
        sum(file.stat().st_blocks // 2 for file in (work / name / "out").rglob("*")) for name in ("ready", "whole")
    ]
    for _ in range(SMALL_DISKS):
        kilobytes = chance.randrange(sizes[0] + 8, max(sizes) + 16, 4)
        shutil.copytree(ready, place)
        shutil.move(place / "out", place / "kept")
        (place / "out").mkdir()
        if not _mounted(place / "out", f"size={max(sizes) + 4096}k"):
            shutil.rmtree(place)
            return
        try:
            shutil.copytree(place / "kept", place / "out", dirs_exist_ok=True)
            shutil.rmtree(place / "kept")
            _mounted(place / "out", f"remount,size={kilobytes}k")
            what = f"{command.name}, on a disk of {kilobytes} kB"
            yield _try(command, place, None, what, expected, lambda: _mounted(place / "out", "remount,size=64m"))
        finally:
            subprocess.run(["umount", place / "out"], check=False)
        shutil.rmtree(place)


def _mounted(folder: Path, options: str) -> bool:
    try:
        given = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        return subprocess.run(given, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_ready(command: Command, folder: Path) -> None:
    (folder / "out").mkdir(parents=True)
    (folder / "beside").mkdir()
    (folder / "beside" / "mine.txt").write_text("not promptgeo's\n", encoding="utf-8")
    np.save(folder / "prompts.npy", np.arange(32, dtype=np.float32).reshape(2, 2, 8))
    (folder / "table.csv").write_text("task,init,seed\na,cat,0\nb,cat,0\n", encoding="utf-8")
    for main, line in command.needs:
        ended = run(main, line, folder)
        if ended.status != 0:
            raise Broken(f"{' '.join(line)}: ends with status {ended.status}:\n{ended.output}")


def _try(
    command: Command,
    place: Path,
    disk: Disk | None,
    what: str,
    expected: dict[str, str],
    make_room: Callable[[], object] = lambda: None,
) -> Tried:
    before, beside = results(place), _beside(place)
    full = run(command.main, command.line, place, before=disk.install if disk else lambda: None)
    if full.status == 0:  # all of it could be written: what could not is not needed
        problems = [f"status 0: {change}" for change in changes(expected, results(place))]
    else:
        problems = full.problems((1, 2))
    problems += changes(beside, _beside(place))
    problems += lost(place, before)
    make_room()
    again = run(command.main, command.line, place)
    problems += [f"with room: {problem}" for problem in again.problems((0,))]
    problems += [f"with room: {change}" for change in changes(expected, results(place))]
    return Tried("full disks", what, problems, full.seconds, f"{full.output}\n-- with room --\n{again.output}")


def _beside(place: Path) -> dict[str, str]:
    """All that does not lie in the folder for outputs."""
    return {path: digest for path, digest in contents(place).items() if not Path(path).is_relative_to(place / "out")}
