"""A sweep from the command line: the packed launcher leaves what the basic one does, can be stopped, and reports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import SMALL, bytes_of, cli, model, runs_below  # noqa: F401 - fixtures

import promptgeo as pg
from promptgeo.config.compose import compose
from promptgeo.config.paths import stamps
from promptgeo.runs.folder import own_digest
from promptgeo.training.cell import cell_of
from promptgeo.training.engine import UNFINISHED, outcome_elsewhere
from promptgeo.training.lock import HELD, claimed

GRID = ("task=plus_two,present_past", "init=cat,normal", "evaluation.every=end", "-m", "seed=0,1")


def shell(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "promptgeo.train", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.long
def test_the_packed_launcher_leaves_what_the_basic_one_does(cli, model):  # noqa: F811
    line = (*model, *SMALL, *GRID, "outputs=out")
    places = {}
    for launcher in ("packed", "basic"):
        Path(launcher).mkdir()
        os.chdir(launcher)
        outcome = cli(*line, f"hydra/launcher={launcher}")
        assert outcome.status == 0, outcome.err
        places[launcher] = Path.cwd() / "out" / "adhoc"
        os.chdir("..")
    packed, basic = places.values()
    assert len(runs_below(packed)) == 8
    assert bytes_of(packed) == bytes_of(basic)
    assert [(run / "run.json").read_bytes() for run in runs_below(packed)] == [
        (run / "run.json").read_bytes() for run in runs_below(basic)
    ]
    listing = {
        launcher: sorted(str(p.relative_to(place)) for p in place.rglob("*")) for launcher, place in places.items()
    }
    assert listing["packed"] == listing["basic"]
    assert {f"{runs_below(packed)[0].name}/.hydra/{name}.yaml" for name in ("config", "hydra", "overrides")} < set(
        listing["packed"]
    )
    assert "multirun.yaml" in listing["packed"]
    for run in runs_below(packed):
        for name in ("config", "overrides"):
            there = (basic / run.name / ".hydra" / f"{name}.yaml").read_text()
            assert (run / ".hydra" / f"{name}.yaml").read_text() == there


def test_a_job_of_a_grid_is_told_in_the_folder_of_its_own_run(cli, model):  # noqa: F811
    """Jobs are looked up by their number: what Hydra keeps of each lies beside that very run."""
    outcome = cli(*SMALL, *model, "training.max_steps=1", "outputs=out", "-m", "init=cat,dog", "seed=3,4")
    assert outcome.status == 0, outcome.err
    told = {}
    for run in runs_below(Path.cwd() / "out" / "adhoc"):
        config = json.loads((run / "run.json").read_text())["config"]
        overrides = (run / ".hydra" / "overrides.yaml").read_text()
        told[config["init"]["name"], config["seed"]] = [
            line[2:] for line in overrides.splitlines() if line.startswith(("- init=", "- seed="))
        ]
    assert told == {(init, seed): [f"init={init}", f"seed={seed}"] for init in ("cat", "dog") for seed in (3, 4)}


BROKEN = """
import os, signal
from promptgeo.training.run_state import RunState

RunState.real = real = getattr(RunState, "real", RunState.next_minibatch)  # a process may import this twice

def broken(self):
    if self.plan.config.seed == 1:
        %s
    return real(self)

RunState.next_minibatch = broken
"""
"""A plugin of Hydra's: whatever process a launcher starts imports it."""


def with_broken(tmp_path: Path, fault: str, *arguments: str) -> tuple[int, list[str], str]:
    """A command whose run of seed 1 fails so, in whatever process it trains: status, table, the lines of its end."""
    plugin = tmp_path / "hydra_plugins" / "broken" / "__init__.py"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.write_text(BROKEN % fault, encoding="utf-8")
    place = tmp_path / "run"
    place.mkdir()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = shell(*arguments, cwd=place, PYTHONPATH=path)
    out, err = process.communicate(timeout=500)
    assert "Traceback" not in err, err
    said = [line for line in err.splitlines() if line.startswith("promptgeo:")]
    place.rename(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
    table = "".join(out.partition("test accuracy")[1:])  # none where no run was complete when its process was killed
    return process.returncode, table.split("\n"), "\n".join(said)


@pytest.mark.long
def test_a_run_that_fails_in_another_process_gives_status_1_its_line_and_the_same_table(model, tmp_path):  # noqa: F811
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher, of the extra dev")
    line = (*model, *SMALL, "task=plus_two", "-m", "seed=0,1,2")
    elsewhere = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    fails = "raise ValueError('the data is gone')"
    status, table, said = with_broken(tmp_path, fails, *line, *elsewhere)
    assert status == 1 and said.endswith("failed: ValueError: the data is gone") and said.count("\n") == 0
    assert table[0].startswith("test accuracy") and len(table) > 3
    assert with_broken(tmp_path, fails, *line) == (status, table, said)
    status, table, said = with_broken(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", *line, *elsewhere)
    assert status == 1 and "-s1-" in said and UNFINISHED in said
    assert "promptgeo: hydra/launcher=joblib: TerminatedWorkerError: " in said


def test_what_became_of_a_run_elsewhere_is_what_its_folder_says(cli, model):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", f"outputs={Path('out').absolute()}")
    cell, again = (cell_of(compose([*line, "seed=0", f"overwrite={again}"])) for again in ("false", "true"))
    assert outcome_elsewhere(cell, []).error == UNFINISHED
    with claimed([[cell]]):
        assert outcome_elsewhere(cell, []).error == HELD
    assert cli(*line, "seed=0").status == 0
    before = stamps(str(cell.folder / "run.json"))
    for made in (outcome_elsewhere(cell, []), outcome_elsewhere(cell, before), outcome_elsewhere(again, [])):
        assert made.error is None and made.run is not None and made.run.id == cell.id
    assert outcome_elsewhere(again, before).error == UNFINISHED  # what lies there was trained before
    summary = json.loads((cell.folder / "run.json").read_text()) | {"status": "failed", "error": "no more data"}
    (cell.folder / "run.json").write_text(json.dumps(summary | {"sha256": own_digest(summary)}))
    assert outcome_elsewhere(cell, []).error == "no more data"
    assert outcome_elsewhere(cell, stamps(str(cell.folder / "run.json"))).error == UNFINISHED


@pytest.mark.long
def test_one_more_seed_trains_only_the_new_runs(cli, model):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", "init=cat,dog")
    assert cli(*line, "-m", "seed=0").status == 0
    stamps = {run: (run / "run.json").stat().st_mtime_ns for run in runs_below(Path("outputs"))}
    outcome = cli(*line, "-m", "seed=0,1")
    assert "2 of 4 runs are complete already: skipped" in outcome.out
    assert len(runs_below(Path("outputs"))) == 4
    assert {run: (run / "run.json").stat().st_mtime_ns for run in stamps} == stamps


@pytest.mark.long
def test_a_failed_run_is_listed_with_its_reason_and_the_others_complete(cli, model, monkeypatch):  # noqa: F811
    from promptgeo.training.run_state import RunState

    real = RunState.next_minibatch

    def broken(self):
        if self.plan.config.seed == 1:
            raise ValueError("the data is gone")
        return real(self)

    monkeypatch.setattr(RunState, "next_minibatch", broken)
    outcome = cli(*model, *SMALL, "task=plus_two", "-m", "seed=0,1,2")
    assert outcome.status == 1
    statuses = {run.info["config"]["seed"]: run.status for run in map(pg.Run.load, runs_below(Path("outputs")))}
    assert statuses == {0: "completed", 1: "failed", 2: "completed"}
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("promptgeo:")]
    assert "-s1-" in line and line.endswith("failed: ValueError: the data is gone")
    assert "1 failed" in outcome.out
    alone = cli(*model, *SMALL, "task=plus_two", "seed=1")
    assert alone.status == 1 and "the data is gone" in alone.err
    monkeypatch.setattr(RunState, "next_minibatch", real)
    assert cli(*model, *SMALL, "task=plus_two", "-m", "seed=0,1,2").status == 0


@pytest.mark.long
def test_a_preview_says_what_would_be_trained_and_writes_nothing(cli, model):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two,present_past", "init=cat", "prompt.length=1,3", "-m", "seed=0,1")
    assert cli(*line[:-2], "seed=0", "-m").status == 0
    before = {path: path.is_file() and path.stat().st_mtime_ns for path in Path().rglob("*")}
    outcome = cli(*line, "preview=true")
    assert outcome.status == 0, outcome.err
    assert {path: path.is_file() and path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    for part in (
        "task: plus_two, present_past",
        "prompt.length: 1, 3",
        "seed: 0, 1",
        "8 runs, 4 complete already",
        "about",
        "minutes",
    ):
        assert part in outcome.out, part
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in outcome.out.splitlines() if "adamw" in row]
    assert [(row[1], row[4], row[6]) for row in rows] == [("1", "2", "4"), ("3", "2", "4")]


STOPPED = (
    "task=plus_two",
    "init=cat",
    "training.epochs=12",
    "task.split.max_train=96",
    "task.split.max_test=8",
    "outputs=out",
    "-m",
    "seed=0,1",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    _, err = shell(*STOPPED, cwd=folder).communicate(timeout=120)
    assert len(runs_below(folder)) == 2, err
    return bytes_of(folder)


@pytest.mark.long
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_says_how_to_go_on_and_does(tmp_path, undisturbed, signum, status):
    process = shell(*STOPPED, cwd=tmp_path)
    wait_for(lambda: list(tmp_path.rglob("multirun.yaml")), process)
    time.sleep(1.5)  # it trains, or is about to, for seconds more
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert err.splitlines()[-1] == f"promptgeo: stopped by {signum.name}; the same command goes on from here"
    assert not runs_below(tmp_path)
    if signum == signal.SIGTERM:  # the states are the same; one of them is enough to go on from
        shell(*STOPPED, cwd=tmp_path).communicate(timeout=120)
        assert bytes_of(tmp_path) == undisturbed
        assert not list(tmp_path.rglob("state"))


def wait_for(condition, process: subprocess.Popen, seconds: int = 60) -> None:
    for _ in range(20 * seconds):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("nothing happened")


@pytest.mark.long
def test_processes_share_the_runs_and_give_the_same_bytes(cli, model):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", "init=cat,normal", "evaluation.every=end", "-m", "seed=0,1")
    assert cli(*line, "outputs=one").status == 0
    outcome = cli(*line, "outputs=two", "packing.devices=2")
    assert outcome.status == 0, outcome.err
    assert bytes_of(Path("one")) == bytes_of(Path("two")) and len(runs_below(Path("two"))) == 4


@pytest.mark.long
def test_a_run_that_another_process_trains_is_left_to_it_and_named(cli, model):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", f"outputs={Path('out').absolute()}")
    held = cell_of(compose([*line, "seed=1"]))
    for devices in (1, 2):
        with claimed([[held]]):
            outcome = cli(*line, f"packing.devices={devices}", "-m", f"seed=0,1,{devices + 1}")
        assert outcome.status == 1 and "Traceback" not in outcome.err
        (said,) = [text for text in outcome.err.splitlines() if text.startswith("promptgeo:")]
        assert said.startswith(f"promptgeo: {held.folder}: another process is training this run; the same command, ")
        assert len(runs_below(Path("out"))) == 1 + devices and not (held.folder / "run.json").exists()
    assert cli(*line, "-m", "seed=0,1,2,3").status == 0


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_was_killed(cli, model, tmp_path):  # noqa: F811
    first = shell(*model, "task=plus_two", "training.epochs=2000", "-m", "seed=0,1", "packing.devices=2", cwd=tmp_path)

    def running() -> set[str]:
        stats = ((pid, Path(f"/proc/{pid}/stat")) for pid in children)
        return {pid for pid, stat in stats if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"}

    wait_for(lambda: len(list(tmp_path.rglob("state.safetensors"))) == 2, first)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    assert len(running()) >= 2
    first.kill()
    end = time.monotonic() + 10
    while running() and time.monotonic() < end:
        time.sleep(0.05)
    assert not running()
    first.communicate()  # its pipes were the workers' too


@pytest.mark.long
def test_a_learning_rate_sweep_ends_with_a_recommendation(cli, model):  # noqa: F811
    outcome = cli(
        *model,
        *SMALL,
        "sweep=learning_rate",
        "task=plus_two",
        "init=cat,vocab",
        "seed=0,1",
        "training.max_steps=3",
        "optimizer.lr_in_embedding_units=1e-5,0.5",
        "grid.halving=null",
        "-m",
    )
    assert outcome.status == 0, outcome.err
    runs = [pg.Run.load(folder) for folder in runs_below(Path("outputs"))]
    assert len(runs) == 8 and {run.info["results"]["split"] for run in runs} == {"validation"}
    for init in ("cat", "vocab"):
        losses = {
            lr: [
                r.info["results"]["loss"]["final"]
                for r in runs
                if r.info["config"]["init"]["name"] == init
                and r.info["config"]["optimizer"]["lr_in_embedding_units"] == lr
            ]
            for lr in (1e-5, 0.5)
        }
        best = min(losses, key=lambda lr: sum(losses[lr]))
        mean = sum(losses[best]) / 2
        assert (
            f"rand plus_two init={init}: optimizer.lr_in_embedding_units={best:g} has the lowest validation loss, "
            f"{mean:.3f}" in outcome.out
        )
        assert "n = 2 seeds; it is the end of the range: try beyond it" in outcome.out
