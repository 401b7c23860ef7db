"""Does a command that is killed or stopped at random moments, and then given again, end with the same bytes?

SIGKILL, SIGTERM and SIGINT go to the whole process group while runs train (in one process and, with packing.devices=2,
in two, after states for resuming were saved), while analyses are made and while the report is written. What was
finished before must be finished after. SIGTERM and SIGINT must end the command within ten seconds, with status 143 or
130. At the end the same command must leave the same files as one that nothing disturbed.
"""

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from breaking.command import (
    LONGEST,
    Broken,
    Main,
    Running,
    Tried,
    changes,
    lost,
    results,
    run,
)

SWEEP = Path("out") / "x"
STATUSES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143,), signal.SIGINT: (130,)}


@dataclass(frozen=True)
class Scene:
    """A command, and when in it signals come."""

    name: str
    main: Main
    line: tuple[str, ...]
    share: int
    """Of all signals."""
    begun: Callable[[Path, str], bool] = lambda folder, output: True
    """Whether signals may come from now on, by the command's folder and what it has said."""
    needs: tuple[tuple[Main, tuple[str, ...]], ...] = ()
    makes: tuple[str, ...] = ()
    """Deleted before each command, so that there is something to do; by default half of the runs, when all are done."""


@dataclass
class Undisturbed:
    """What a scene's command leaves when nothing disturbs it, and how many seconds it takes from `begun` on."""

    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def scenes(small: bool) -> list[Scene]:
    """small: two short runs that train."""
    from promptgeo.cli import analyze, reproduce, train

    tasks = "task=country_capital,present_past"
    grid = (tasks, "init=cat,vocab,normal", "task.split.max_test=8", "training.epochs=4", "outputs=out", "name=x")
    sweep = (*grid, "seed=0,1,2,3", "-m")
    if small:
        short = ("task=present_past", "init=cat", "task.split.max_test=4", "task.split.max_train=64", *grid[-2:])
        return [Scene("training", train.main, (*short, "training.epochs=2", "seed=0,1", "-m"), 1)]
    analysis = ("runs=out/x", "analysis=[curves,mean_distances,projection]")
    study = ("init_vs_task", "model=tiny", *grid[:1], "init=cat,dog", "seed=0", *grid[2:])
    made = ((train.main, (*grid[:1], "init=cat,dog", *grid[2:], "-m")),)
    return [
        Scene("training", train.main, sweep, 6),
        Scene("in two processes", train.main, (*sweep, "packing.devices=2"), 2, _has_states),
        Scene("analysing", analyze.main, analysis, 2, needs=made, makes=("out/x/analysis",)),
        Scene("the report", reproduce.main, study, 1, _reporting, ((reproduce.main, study),), ("out/x/report.html",)),
    ]


def _has_states(folder: Path, output: str) -> bool:
    return any((folder / SWEEP).glob("*/state/state.safetensors"))


def _reporting(folder: Path, output: str) -> bool:
    return "3/3 the report ..." in output


def kill(work: Path, counts: dict[int, int], chance: random.Random, small: bool) -> Iterator[Tried]:
    """counts: how many of each signal, over all scenes."""
    signals = [number for number, count in counts.items() for _ in range(count)]
    chance.shuffle(signals)
    every = scenes(small)
    deck = [scene for scene in every for _ in range(scene.share)]
    given: dict[str, list[int]] = {scene.name: [] for scene in every}
    for k, number in enumerate(signals):
        scene = every[k] if k < len(every) else chance.choice(deck)  # each at least once
        given[scene.name].append(number)
    for scene in every:
        if given[scene.name]:
            yield from _scene(scene, given[scene.name], work / scene.name.replace(" ", "-"), chance)


def _scene(scene: Scene, signals: list[int], work: Path, chance: random.Random) -> Iterator[Tried]:
    undisturbed, place = _undisturbed(scene, work), work / "stopped"
    _make(scene, place)
    too_late = 0
    while signals:
        _leave_something_to_do(scene, place, sum(name.endswith("run.json") for name in undisturbed.files), chance)
        number = signals[0]
        before = results(place)
        with Running(scene.main, scene.line, place) as running:
            while not scene.begun(place, running.output()) and not running.over(0.02):
                pass
            ended = running.over(chance.uniform(0, undisturbed.seconds))
            if not ended:
                running.signal(number)
                running.over_in_time(LONGEST)
            how = running.so_far()
        if ended:  # before the signal came
            too_late += 1
            if how.status != 0 or too_late > 50 + 10 * len(signals):
                raise Broken(f"{scene.name}: ends with status {how.status}:\n{how.output}")
            continue
        signals.pop(0)
        problems = how.problems((*STATUSES[signal.Signals(number)], 0))
        problems += lost(place, before)
        what = f"{scene.name}: {signal.Signals(number).name} after {how.seconds:.1f} s"
        yield Tried("kills", what, problems, how.seconds, how.output)
    how = run(scene.main, scene.line, place)
    problems = [*how.problems((0,)), *changes(undisturbed.files, results(place))]
    yield Tried("kills", f"{scene.name}: the same command at last", problems, how.seconds, how.output)
    shutil.rmtree(work)


def _make(scene: Scene, folder: Path) -> None:
    (folder / "out").mkdir(parents=True)
    for main, line in scene.needs:
        if (how := run(main, line, folder)).status != 0:
            raise Broken(f"{' '.join(line)}: ends with status {how.status}:\n{how.output}")


def _undisturbed(scene: Scene, work: Path) -> Undisturbed:
    folder = work / "undisturbed"
    _make(scene, folder)
    for name in scene.makes:
        _delete(folder / name)
    with Running(scene.main, scene.line, folder) as running:
        while not scene.begun(folder, running.output()) and not running.over(0.02):
            pass
        begun = running.so_far().seconds
        running.over_in_time(600.0)
        how = running.so_far()
    if how.status != 0:
        raise Broken(f"{scene.name}: ends with status {how.status} undisturbed:\n{how.output}")
    return Undisturbed(results(folder), how.seconds - begun)


def _leave_something_to_do(scene: Scene, place: Path, runs: int, chance: random.Random) -> None:
    """runs: of the scene, in all."""
    for name in scene.makes:
        _delete(place / name)
    finished = sorted(path.parent for path in (place / SWEEP).glob("*/run.json"))
    if not scene.makes and len(finished) == runs:
        for folder in chance.sample(finished, (runs + 1) // 2):
            shutil.rmtree(folder)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
