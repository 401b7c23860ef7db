"""hydra/launcher=slurm leaves the bytes of a local sweep, whatever happens to its jobs; tested where a Slurm is up."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_cli import SMALL, bytes_of, cli, model, runs_below  # noqa: F401 - fixtures
from test_launcher import BROKEN, shell, wait_for

SLURM = ("hydra/launcher=slurm", "packing.max_runs=4")


def slurm_is_up() -> bool:
    return shutil.which("squeue") is not None and subprocess.run(["squeue"], capture_output=True).returncode == 0


needs_slurm = pytest.mark.skipif(
    find_spec("submitit") is None or not slurm_is_up(),
    reason="needs submitit (the extra slurm) and a Slurm that answers to squeue",
)


def asked(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
@needs_slurm
def test_a_sweep_whose_jobs_are_requeued_and_cancelled_leaves_the_bytes_of_a_local_one(tmp_path):
    line = ("task=plus_two", "init=cat", "training.epochs=16", "task.split.max_train=64", "task.split.max_test=8")
    line += ("evaluation.every=end", "packing.max_runs=4", "outputs=out", "-m", f"seed={','.join(map(str, range(12)))}")
    places = {name: tmp_path / name for name in ("here", "slurm")}
    for place in places.values():
        place.mkdir()
    command = shell(*line, "hydra/launcher=slurm", cwd=places["slurm"])
    records = places["slurm"] / "out" / "adhoc" / ".slurm"
    wait_for(lambda: len(list(records.glob("*_?.json"))) == 3, command, 200)
    array = next(records.glob("*_0.json")).stem.removesuffix("_0")

    def trains(k: int):
        seeds = range(4 * k, 4 * k + 4)
        return lambda: all(list(places["slurm"].rglob(f"*-s{s}-*/state/state.safetensors")) for s in seeds)

    def queued_again(job: str) -> None:
        wait_for(lambda: "BeginTime" in asked("squeue", "-h", "-r", "-o", "%i %r", "-j", job), command, 200)
        asked("scontrol", "update", f"JobId={job}", "StartTime=now")  # else in two minutes

    wait_for(trains(0), command, 200)
    asked("scancel", "--signal=USR2", f"{array}_0")  # time is nearly over
    queued_again(f"{array}_0")
    wait_for(trains(1), command, 200)
    asked("scancel", f"{array}_1")
    wait_for(trains(2), command, 200)
    asked("scontrol", "requeue", f"{array}_2")
    queued_again(f"{array}_2")
    _, err = command.communicate(timeout=400)
    assert command.returncode == 1, err
    left = [re.search("-s([0-9]+)-.* failed: (.*)", said).groups() for said in err.splitlines() if " failed: " in said]
    assert sorted(int(seed) for seed, _ in left) == [4, 5, 6, 7]
    for _, reason in left:
        assert reason.startswith(f"job {array}_1: CANCELLED before this run was complete")
    for k in (0, 2):
        assert "Restarts=1" in asked("scontrol", "-o", "show", "job", f"{array}_{k}")
    again = shell(*line, "hydra/launcher=slurm", cwd=places["slurm"])
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, err
    assert "8 of 12 runs are complete already: skipped" in out + err
    shell(*line, cwd=places["here"]).communicate(timeout=400)
    here, there = (sorted(runs_below(place)) for place in places.values())
    assert len(there) == 12 and bytes_of(places["here"]) == bytes_of(places["slurm"])
    assert [(run / "run.json").read_bytes() for run in here] == [(run / "run.json").read_bytes() for run in there]
    assert not list(places["slurm"].rglob("state"))


@pytest.mark.long
@needs_slurm
def test_a_failed_run_of_a_job_gives_status_1_and_its_line(cli, model, monkeypatch):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", "-m", "seed=0,1,2")
    assert cli(*line, "outputs=names").status == 0
    broken = next(run for run in runs_below(Path("names")) if "-s1-" in run.name).name
    Path("site").mkdir()
    Path("site/sitecustomize.py").write_text(BROKEN % "raise ValueError('the data is gone')")
    with monkeypatch.context() as at_jobs:
        at_jobs.setenv("PYTHONPATH", os.pathsep.join([os.path.abspath("site"), os.environ.get("PYTHONPATH", "")]))
        outcome = cli(*line, *SLURM)
    assert outcome.status == 1
    (said,) = [text for text in outcome.err.splitlines() if text.startswith("promptgeo: outputs")]
    assert said.startswith(f"promptgeo: outputs/adhoc/{broken} failed: ValueError: the data is gone")
    assert cli(*line).status == 0, "begun on Slurm, finished here"
    assert bytes_of(Path("outputs")) == bytes_of(Path("names"))


@pytest.mark.long
@needs_slurm
def test_a_command_that_does_not_wait_leaves_jobs_that_the_same_command_waits_for(cli, model, capsys):  # noqa: F811
    from promptgeo.cli import runs

    line = (*model, *SMALL, "task=plus_two", "outputs=out", *SLURM)
    outcome = cli(*line, "hydra.launcher.wait=false", "-m", "seed=0,1")
    assert outcome.status == 0, outcome.err
    assert "promptgeo: 2 runs are submitted" in outcome.err and not runs_below(Path("out"))
    (record,) = Path("out/adhoc/.slurm").glob("*.json")
    runs.main(["out"])
    shown = capsys.readouterr().out
    assert "0/2 runs done" in shown and re.search(rf"│ {record.stem} +│ (RUNNING|PENDING|CONF)", shown)
    assert cli(*line, "-m", "seed=0,1,2").status == 0
    assert len(runs_below(Path("out"))) == 3 and not Path("out/adhoc/.slurm").exists()
    jobs = [int(job) for job in asked("squeue", "-h", "-t", "all", "-o", "%i").split() if job.isdigit()]
    assert len([job for job in jobs if job >= int(record.stem)]) == 2  # the second for what was not queued already


@pytest.mark.long
@needs_slurm
def test_one_run_is_a_job_too(cli, model):  # noqa: F811
    outcome = cli(*model, *SMALL, "task=plus_two", *SLURM, "hydra.launcher.wait=false")
    assert outcome.status == 0 and "1 runs are submitted" in outcome.err
    (record,) = Path("outputs/adhoc/.slurm").glob("*.json")
    asked("scancel", record.stem)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("max_parallel=0", "hydra.launcher.max_parallel=0: must be at least 1"),
        ("cpus=0", "hydra.launcher.cpus=0: must be at least 1"),
        ("timeout_min=soon", "timeout_min"),
        ("max_paralel=2", "hydra.launcher.max_paralel"),
    ],
)
def test_a_wrong_setting_is_one_line_and_nothing_is_written(cli, model, given, said):  # noqa: F811
    outcome = cli(*model, *SMALL, "task=plus_two", *SLURM, f"hydra.launcher.{given}", "-m", "seed=0,1")
    assert outcome.status == 2
    (line,) = [text for text in outcome.err.splitlines() if text.startswith("promptgeo: ")]
    assert said in line and not list(Path().iterdir())


@needs_slurm
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("hydra.launcher.partition=nowhere",), "Invalid partition"),
        (("hydra.launcher.gpus=1",), "hydra.launcher.gpus=1: these runs would train on a CPU; add device=cuda"),
        (("device=cuda",), "device=cuda: give each job a GPU: hydra.launcher.gpus=1"),
    ],
)
def test_what_the_cluster_would_not_take_is_one_line_and_nothing_is_written(cli, model, given, said):  # noqa: F811
    outcome = cli(*model, *SMALL, "task=plus_two", *SLURM, *given, "-m", "seed=0,1")
    assert outcome.status == 2
    (line,) = [text for text in outcome.err.splitlines() if text.startswith("promptgeo: ") and "loading" not in text]
    assert said in line and not list(Path().iterdir())


@pytest.mark.parametrize("absent", ["submitit", "sbatch"])
def test_without_slurm_one_line_says_what_is_lacking(cli, model, monkeypatch, absent):  # noqa: F811
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("promptgeo.training.slurm.find_spec", lambda name: None if absent == "submitit" else name)
    outcome = cli(*model, *SMALL, "task=plus_two", *SLURM, "-m", "seed=0,1")
    assert outcome.status == 2 and not list(Path().iterdir())
    says = {"submitit": "needs submitit: pip install 'promptgeo[slurm]'", "sbatch": "there is no sbatch here"}
    assert f"promptgeo: hydra/launcher=slurm: {says[absent]}" in outcome.err


def test_shares_are_packs_of_one_size_and_keep_coupled_runs_together(model):  # noqa: F811
    from promptgeo.config.compose import compose_grid
    from promptgeo.training.cell import cells_of
    from promptgeo.training.cluster import shares

    def sizes(*line: str) -> list[int]:
        return [len(share) for share in shares(cells_of(compose_grid([*model, "task=plus_two", *line], True)))]

    seeds = "seed=" + ",".join(map(str, range(12)))
    assert sizes(seeds, "packing.max_runs=4") == [4, 4, 4]
    assert sizes(seeds, "packing.max_runs=5") == [4, 4, 4]
    assert sizes(seeds, "packing.max_runs=2", "packing.devices=3") == [6, 6]
    assert sizes(seeds) == [12]
    assert sizes(seeds, "prompt.length=1,2", "packing.max_runs=12") == [12, 12]
    assert sizes(seeds, "packing.max_runs=4", "regulariser=orthogonal", "regulariser.size=3") == [3, 3, 3, 3]


def test_a_job_that_is_started_again_keeps_what_it_has_trained(model, tmp_path, monkeypatch):  # noqa: F811
    from promptgeo.config.compose import compose_grid
    from promptgeo.training.cell import cells_of
    from promptgeo.training.cluster import Share
    from promptgeo.training.queue import written

    monkeypatch.chdir(tmp_path)  # a share goes where its command was given
    line = [*model, *SMALL, "task=plus_two", "seed=0,1", f"outputs={tmp_path}", "overwrite=true"]
    cells = cells_of(compose_grid(line, True))
    first = Share(cells, str(tmp_path), {cell.id: None for cell in cells})
    assert first() == {}
    stamps = {cell.id: written(cell.folder) for cell in cells}
    assert first() == {} and {cell.id: written(cell.folder) for cell in cells} == stamps  # the same job
    time.sleep(0.01)
    assert Share(cells, str(tmp_path), stamps)() == {}  # another one
    assert all(written(cell.folder) != stamps[cell.id] for cell in cells)


if sys.platform == "win32":
    pytest.skip("a cluster's commands are no Windows programs", allow_module_level=True)
