"""Claims: no run is trained by two processes at once, whatever their number; what is free is trained meanwhile."""

import hashlib
import os
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from promptgeo.config.compose import compose
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.training.cell import Cell, cells_of
from promptgeo.training.engine import silent, train_all, train_cells
from promptgeo.training.lock import CLAIMS, HELD, claimed

SMALL = (
    "training.max_steps=1",
    "task.split.max_train=4",
    "task.split.max_test=2",
    "evaluation.max_new_tokens=1",
    "template.longer_labels=warn",
    "task=plus_two",
)


@pytest.fixture
def cells(model_folders, tmp_path):
    """A number of small runs that differ in their seed."""

    def make(*overrides: str, seeds: int = 1) -> list[Cell]:
        line = (*SMALL, f"model.name_or_path={model_folders['gpt2']}", f"outputs={tmp_path / 'out'}", *overrides)
        return cells_of([compose([*line, f"seed={seed}"]) for seed in range(seeds)])

    return make


HOLDER = """
import fcntl, sys
claims = open(sys.argv[1], "rb+")
for run_id in sys.argv[2:]:
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(run_id[:15], 16))
        print(run_id, end=" ")
    except OSError:
        pass
print(flush=True)
sys.stdin.read()
"""
"""Another process that knows nothing of promptgeo but where claims lie: says which it got, and keeps them."""


@pytest.fixture
def elsewhere():
    """Claims runs in another process. Returns the ids that it got, and the process, which ends with its stdin."""
    with ExitStack() as ends:

        def claim(*cells: Cell) -> tuple[set[str], subprocess.Popen]:
            path = cells[0].folder.parent / CLAIMS
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            command = [sys.executable, "-c", HOLDER, str(path), *(cell.id for cell in cells)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            ends.enter_context(process)
            ends.callback(process.kill)
            return set(process.stdout.readline().split()), process

        yield claim


def test_any_number_of_runs_is_claimed_with_one_open_file(tmp_path):
    ids = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(500)]
    runs = [SimpleNamespace(id=run_id, folder=tmp_path / "out" / run_id) for run_id in ids]
    before = len(os.listdir("/dev/fd"))
    with claimed([[run] for run in runs]) as mine:
        assert mine == set(ids)
        assert len(os.listdir("/dev/fd")) == before + 1
    assert len(os.listdir("/dev/fd")) == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == [CLAIMS]
    assert (tmp_path / "out" / CLAIMS).stat().st_size == 0


def test_a_claim_holds_until_its_process_ends_however_it_ends(cells, elsewhere):
    one, two, three = cells(seeds=3)
    for ends in ("end", "kill"):
        got, other = elsewhere(one, two)
        assert got == {one.id, two.id}
        with claimed([[one], [two], [three]]) as mine:
            assert mine == {three.id}
        other.stdin.close() if ends == "end" else other.kill()
        other.wait()
        with claimed([[one], [two], [three]]) as mine:
            assert mine == {one.id, two.id, three.id}
            assert elsewhere(one, two, three)[0] == set()


def test_a_claim_outlives_others_of_its_process_in_the_same_file(cells, elsewhere, tmp_path):
    one, two = cells(seeds=2)
    (linked,) = cells(f"outputs={tmp_path / 'link'}")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with claimed([[one]]):
        with claimed([[two], [linked]]) as mine:
            assert mine == {two.id}  # by another path the first one is the same run
        assert elsewhere(one, two)[0] == {two.id}


def test_runs_trained_for_one_another_are_claimed_together_or_not_at_all(cells, elsewhere):
    one, two, three = cells(seeds=3)
    elsewhere(two)
    with claimed([[one, two], [three]]) as mine:
        assert mine == {three.id}
        assert elsewhere(one)[0] == {one.id}  # it was let go


def test_a_command_trains_its_free_runs_and_says_which_another_process_trains(cells, elsewhere):
    grid = cells(seeds=3)
    _, other = elsewhere(grid[1])
    outcomes = train_all(grid)
    assert [outcome.error for outcome in outcomes] == [None, HELD, None]
    assert [outcome.run and outcome.run.status for outcome in outcomes] == ["completed", None, "completed"]
    assert not grid[1].folder.exists()
    other.kill()
    other.wait()
    assert [outcome.skipped for outcome in train_all(grid)] == [True, False, True]
    assert Run.load(grid[1].folder).status == "completed"


def test_what_claims_cannot_be_made_in_is_one_line(cells):
    (cell,) = cells()
    (cell.folder.parent / CLAIMS).mkdir(parents=True)
    with pytest.raises(UserError, match=r"\.claims: cannot be opened \(Is a directory\)"), claimed([[cell]]):
        pass


def test_a_run_that_was_complete_when_its_claim_was_free_is_left_as_it_is(cells):
    (cell,) = cells()
    train_all([cell])
    before = (cell.folder / "run.json").stat().st_mtime_ns
    assert train_cells([cell], silent) == {}  # as planned before the other process ended
    assert (cell.folder / "run.json").stat().st_mtime_ns == before


def train_with_few_descriptors(runs: int, model: str, out: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
    line = (*SMALL, f"model.name_or_path={model}", f"outputs={out}")
    outcomes = train_all(cells_of([compose([*line, f"seed={seed}"]) for seed in range(runs)]))
    assert [outcome.error for outcome in outcomes] == [None] * runs


@pytest.mark.long
def test_a_grid_larger_than_the_limit_of_open_files_is_trained(model_folders, tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_lock import train_with_few_descriptors\n"
        f"train_with_few_descriptors(70, {str(model_folders['gpt2'])!r}, {str(tmp_path / 'out')!r})"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert len(list((tmp_path / "out").rglob("run.json"))) == 70
