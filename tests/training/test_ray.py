"""hydra/launcher=packed_ray leaves a local sweep's bytes, also when a worker is lost; tested where Ray is installed."""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_cli import SMALL, bytes_of, cli, model, runs_below  # noqa: F401 - fixtures
from test_launcher import BROKEN, shell, wait_for

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or sys.platform != "linux",
    reason="needs Ray (the extra ray), and looks for its workers in /proc",
)


def worker_that_holds(claims: Path) -> int:
    """The process that has opened this file."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(link.resolve() == claims.resolve() for link in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue  # it has just ended
    raise AssertionError(f"nobody holds {claims}")


@pytest.mark.long
@needs_ray
def test_a_sweep_that_lost_a_worker_leaves_the_bytes_of_a_local_one(tmp_path):
    line = ("task=plus_two", "init=cat", "training.epochs=12", "task.split.max_train=64", "task.split.max_test=8")
    line += ("evaluation.every=end", "packing.max_runs=4", "outputs=out", "-m", f"seed={','.join(map(str, range(12)))}")
    places = {name: tmp_path / name for name in ("here", "ray")}
    for place in places.values():
        place.mkdir()
    command = shell(*line, "hydra/launcher=packed_ray", cwd=places["ray"])
    wait_for(lambda: list(places["ray"].rglob("state/state.safetensors")), command, 200)
    os.kill(worker_that_holds(places["ray"] / "out" / "adhoc" / ".claims"), signal.SIGKILL)
    _, err = command.communicate(timeout=400)
    assert command.returncode == 0, err
    shell(*line, cwd=places["here"], OMP_NUM_THREADS="1").communicate(timeout=400)
    here, there = (runs_below(place) for place in places.values())
    assert len(there) == 12 and bytes_of(places["here"]) == bytes_of(places["ray"])
    assert [(run / "run.json").read_bytes() for run in here] == [(run / "run.json").read_bytes() for run in there]


@pytest.mark.long
@needs_ray
def test_a_failed_run_of_a_task_gives_status_1_and_its_line(cli, model, tmp_path):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", "-m", "seed=0,1,2")
    assert cli(*line, "outputs=names").status == 0
    broken = next(run for run in runs_below(Path("names")) if "-s1-" in run.name).name
    Path("site").mkdir()
    Path("site/sitecustomize.py").write_text(BROKEN % "raise ValueError('the data is gone')")
    path = os.pathsep.join([os.path.abspath("site"), os.environ.get("PYTHONPATH", "")])
    command = shell(*line, "hydra/launcher=packed_ray", cwd=tmp_path, PYTHONPATH=path)
    _, err = command.communicate(timeout=400)
    assert command.returncode == 1, err
    (said,) = [text for text in err.splitlines() if text.startswith("promptgeo: outputs")]
    assert said.startswith(f"promptgeo: outputs/adhoc/{broken} failed: ValueError: the data is gone")


def test_without_ray_one_line_says_what_is_lacking(cli, model, monkeypatch):  # noqa: F811
    monkeypatch.setattr("promptgeo.training.ray_cluster.find_spec", lambda name: None)
    outcome = cli(*model, *SMALL, "task=plus_two", "hydra/launcher=packed_ray", "-m", "seed=0,1")
    assert outcome.status == 2 and not list(Path().iterdir())
    assert "promptgeo: hydra/launcher=packed_ray: needs Ray: pip install 'promptgeo[ray]'" in outcome.err
