"""promptgeo-runs verify, json, retry, rm: what is whole, what is trained again and how, and what is never deleted."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_lock import HOLDER

from promptgeo.cli import runs as runs_cli
from promptgeo.config.compose import compose
from promptgeo.runs.folder import FILES, Run, find_folders, find_runs, own_digest
from promptgeo.training.callbacks import Checkpointer
from promptgeo.training.cell import Cell, cell_of
from promptgeo.training.engine import train_all
from promptgeo.training.interruption import Interrupted
from promptgeo.training.lock import CLAIMS, claimed, claimed_folders

SMALL = (
    "training.max_steps=6",
    "training.batch_size=2",
    "task.split.max_train=8",
    "task.split.max_test=2",
    "evaluation.max_new_tokens=1",
    "evaluation.every=end",
    "template.longer_labels=warn",
    "task=plus_two",
)


@pytest.fixture(scope="module")
def made(model_folders, tmp_path_factory) -> dict[str, Cell]:
    """Runs below outputs/grid: whole, failed, diverged, and one that was stopped after its fourth step."""
    outputs = tmp_path_factory.mktemp("made") / "outputs"
    line = (*SMALL, f"model.name_or_path={model_folders['gpt2']}", f"outputs={outputs}", "name=grid")
    cells = {
        "whole": cell_of(compose([*line, "seed=0"])),
        "failed": cell_of(compose([*line, "seed=1"])),
        "diverged": cell_of(compose([*line, "seed=2", "optimizer.lr=1e30"])),
        "stopped": cell_of(compose([*line, "seed=3"])),
    }
    train_all([cells["whole"], cells["failed"], cells["diverged"]])
    changed(cells["failed"].folder, status="failed", error="OSError: no space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "SECONDS", 0.0)  # every tick is saved
        ticks, ticked = [], Checkpointer.ticked

        def stopping(self) -> bool:
            ticks.append(ticked(self))
            if len(ticks) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return ticks[-1]

        patch.setattr(Checkpointer, "ticked", stopping)
        with pytest.raises(Interrupted):
            train_all([cells["stopped"]])
    return cells


def changed(folder: Path, **fields: object) -> None:
    """Another run.json, whole."""
    info = json.loads((folder / "run.json").read_text()) | fields
    (folder / "run.json").write_text(json.dumps(info | {"sha256": own_digest(info)}))


@pytest.fixture
def grid(made, tmp_path) -> dict[str, Path]:
    """A copy of these folders, by how they ended."""
    shutil.copytree(made["whole"].folder.parent, tmp_path / "out/grid")
    return {how: tmp_path / "out/grid" / cell.folder.name for how, cell in made.items()}


@pytest.fixture
def runs(capsys, monkeypatch, tmp_path):
    """Runs promptgeo-runs in this process: (status, out, err). typed: what a person at a terminal answers."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, typed: str | None = None) -> SimpleNamespace:
        stdin = io.StringIO(typed or "")
        stdin.isatty = lambda: typed is not None
        monkeypatch.setattr("sys.stdin", stdin)
        status = 0
        try:
            runs_cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code or 0
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines(True) if not line.startswith("promptgeo is ")]  # on a busy machine
        return SimpleNamespace(status=status, out=out, err="".join(said))

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------ verify


def test_verify_counts_what_is_whole_names_the_rest_and_ends_with_status_1_where_one_is_damaged(runs, grid):
    whole = runs("verify", "out")
    assert (whole.status, whole.out.splitlines()) == (
        0,
        [
            f"unfinished: out/grid/{grid['stopped'].name}: saved after step 4",
            "3 whole (1 completed, 1 diverged, 1 failed), 1 unfinished, 0 damaged",
        ],
    )
    with (grid["whole"] / "metrics.csv").open("ab") as stream:
        stream.write(b" ")
    damaged = runs("verify", "out")
    assert damaged.status == 1 and "2 whole (1 diverged, 1 failed), 1 unfinished, 1 damaged\n" in damaged.out
    assert f"damaged: out/grid/{grid['whole'].name}/metrics.csv: its SHA-256 is not the one in run.json" in damaged.out
    assert runs("verify", "out", "--where", "seed == 1").out == "1 whole (1 failed), 0 unfinished, 0 damaged\n"
    assert runs("verify", "out", "--where", "seed == 0").status == 1


def test_verify_reads_the_saved_state_too_and_what_no_condition_can_be_asked_of_counts(runs, grid):
    state = grid["stopped"] / "state/state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    damaged = runs("verify", "out")
    assert damaged.status == 1 and "3 whole (1 completed, 1 diverged, 1 failed), 0 unfinished, 1 damaged" in damaged.out
    assert f"damaged: out/grid/{state.parent.parent.name}/state/state.safetensors: cannot be read" in damaged.out
    (grid["failed"] / "run.json").write_text("{")
    damaged = runs("verify", "out", "--where", "seed == 0")
    assert damaged.status == 1 and "1 whole (1 completed), 0 unfinished, 1 damaged\n" in damaged.out
    assert f"{grid['failed'].name}: is damaged: --where cannot be asked of it" in damaged.err


# ------------------------------------------------------------ the listing, sorted and filtered, and as JSON


def names(listing: str) -> list[str]:
    return [line.split()[0] for line in listing.splitlines() if line.startswith("gpt2-")]


def test_the_listing_is_filtered_and_sorted(runs, grid):
    assert "3 runs, 1 unfinished, 0 damaged" in runs("out").out
    ascending = [grid[how].name for how in ("whole", "failed", "diverged")]
    assert names(runs("out", "--sort", "seed").out) == ascending
    assert names(runs("out", "--sort", "-seed").out) == names(runs("out", "--sort=seed", "--descending").out)
    assert names(runs("out", "--sort", "-seed").out) == ascending[::-1]
    # A run without the value is last, whichever way; a key that is no column of the listing becomes one.
    for how, accuracy in (("whole", 0.25), ("failed", 0.75), ("diverged", None)):
        changed(grid[how], results=Run.load(grid[how]).info["results"] | {"accuracy": {"final": accuracy}})
    assert names(runs("out", "--sort", "test_accuracy").out) == ascending
    assert names(runs("out", "--sort", "-trained").out) == [ascending[1], ascending[0], ascending[2]]
    shown = runs("out", "--sort", "optimizer.lr", "--where", "task == 'plus_two' and seed > 0").out
    assert names(shown) == ascending[:0:-1]  # the other's rate is given in another unit
    assert shown.splitlines()[0].split()[-1] == "optimizer.lr"
    # What is sorted by can be asked for too.
    assert names(runs("out", "--where", "test_accuracy > 0.5").out) == [ascending[1]]
    assert names(runs("out", "--where", "`training.max_steps` > 0 and test_accuracy < 0.5").out) == [ascending[0]]
    assert runs("out", "--where", "seed == 1").out.splitlines()[-1] == "1 run, 0 damaged"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sort", "acuracy_final"], "--sort acuracy_final: no such column or key; nearest: accuracy_final"),
        (["--descending"], "--descending: by what? --sort KEY says it"),
        (["--status", "faild"], "--status faild: no such status; nearest: failed"),
        (["--where", "colour == 1"], "--where colour == 1: these runs have no column colour"),
        (["--where", "seed.real == 1"], "--where seed.real == 1: seed.real is not read in a condition"),
    ],
)
def test_a_wrong_choice_is_one_line_and_status_2(runs, grid, arguments, said):
    outcome = runs("out", *arguments)
    assert (outcome.status, outcome.out) == (2, "") and said in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verfy"], "verfy: no such folder and no such subcommand; nearest: verify"),
        (["verfy", "out"], "verfy: no such folder and no such subcommand; nearest: verify"),
        (["list", "out"], "list: no such folder and no such subcommand; one of verify, json, "),
        (["elsewhere"], "elsewhere: no such folder"),
    ],
)
def test_a_first_word_that_is_no_folder_and_no_subcommand_is_named(runs, grid, arguments, said):
    outcome = runs(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"promptgeo: {said}") and outcome.err.count("\n") == 1


def test_help_names_every_subcommand_and_every_status_can_be_chosen(runs, grid):
    page = runs("--help").out
    assert all(f"\n  {name} " in page and name in page.splitlines()[1] for name in runs_cli.COMMANDS)
    changed(grid["whole"], status="stopped")  # by grid.halving
    assert grid["whole"].name in runs("out", "--status", "stopped").out


def test_json_has_an_object_for_every_folder_as_an_array_or_as_lines(runs, grid):
    rows = json.loads(runs("json", "out", "--sort", "seed").out)
    assert [(row.get("seed"), row["status"]) for row in rows] == [
        (0, "completed"),
        (1, "failed"),
        (2, "diverged"),
        (None, "unfinished"),
    ]
    first = Run.load(grid["whole"])
    expected = first.row() | {"folder": f"out/grid/{first.folder.name}", "error": None}
    assert rows[0] == json.loads(json.dumps(expected))
    (grid["whole"] / "prompts.safetensors").write_bytes(b"")
    lines = runs("json", "out", "--lines", "--status", "damaged")
    (row,) = map(json.loads, lines.out.splitlines())
    assert lines.status == 1 and row["seed"] == 0 and row["error"].endswith("the file was changed or damaged")
    results = Run.load(grid["failed"]).info["results"]
    changed(grid["failed"], results=results | {"accuracy": {"final": float("nan")}})
    nan = runs("json", "out", "--where", "seed == 1").out
    assert json.loads(nan)[0]["accuracy_final"] is None and "NaN" not in nan


# ------------------------------------------------------------ retry


def test_retry_trains_what_failed_diverged_or_was_stopped_to_the_bytes_of_its_own_command(runs, grid, made, tmp_path):
    kept = grid["whole"] / "run.json"
    before, failed = kept.stat().st_mtime_ns, bytes_of(grid["failed"])
    outcome = runs("retry", "out")
    assert outcome.status == 0, outcome.err
    folders = {each.folder.name: each for each in find_folders("out")}
    statuses = {how: folders[folder.name].status for how, folder in grid.items()}
    assert statuses == {"whole": "completed", "failed": "completed", "diverged": "diverged", "stopped": "completed"}
    assert kept.stat().st_mtime_ns == before and bytes_of(grid["failed"]) == failed
    assert not (grid["stopped"] / "state").exists() and len(folders) == 4
    undisturbed = compose([*SMALL, f"model.name_or_path={made['whole'].config.model.name_or_path}", "seed=3"])
    (alone,) = train_all([cell_of(undisturbed)])  # into outputs/adhoc
    assert bytes_of(grid["stopped"]) == bytes_of(alone.folder)
    assert [Run.load(grid[how]).info["config"]["overwrite"] for how in ("failed", "stopped")] == [False, False]


def test_retry_trains_only_what_is_chosen_and_leaves_what_another_process_trains(runs, grid):
    (tmp := grid["failed"].parent / CLAIMS).touch()
    held = Run.load(grid["failed"]).id
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp), held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().split() == [held]
        before = below(grid["failed"]), below(grid["diverged"]), below(grid["stopped"])
        outcome = runs("retry", "out", "--where", "seed < 2")
        assert outcome.status == 1 and "another process is training this run" in outcome.err
        assert (below(grid["failed"]), below(grid["diverged"]), below(grid["stopped"])) == before
        process.stdin.close()
    assert f"{grid['stopped'].name}: is unfinished: --where cannot be asked of it" in outcome.err
    again = runs("retry", "out", "--status", "failed")
    assert again.status == 0 and Run.load(grid["failed"]).status == "completed"
    assert (below(grid["diverged"]), below(grid["stopped"])) == before[1:]
    none = runs("retry", "out", "--status", "failed")
    assert (none.status, none.out) == (0, "nothing to train again: no run of out is failed\n")


def test_retry_leaves_damaged_runs_unless_asked_and_trains_those_whose_run_json_is_whole(runs, grid):
    whole = bytes_of(grid["whole"])
    (grid["whole"] / "metrics.csv").write_text("")
    for how in ("failed", "diverged", "stopped"):
        shutil.rmtree(grid[how])
    left = runs("retry", "out")
    assert left.status == 0 and left.out.startswith("nothing to train again")
    assert "damaged, and left as it is: " in left.err and (grid["whole"] / "metrics.csv").read_text() == ""
    assert runs("retry", "out", "--status", "damaged").status == 0 and bytes_of(grid["whole"]) == whole
    (grid["whole"] / "run.json").write_text("{}")
    refused = runs("retry", "out", "--status", "damaged")
    assert refused.status == 2 and "so nothing says how it was trained" in refused.err


def test_retry_refuses_what_would_be_another_run_before_it_trains_any(runs, grid):
    shutil.move(grid["failed"], renamed := grid["failed"].with_name("mine"))
    before = below(grid["stopped"])
    refused = runs("retry", "out")
    assert refused.status == 2 and f"was renamed; its run is trained in {grid['failed'].name}" in refused.err
    shutil.move(renamed, grid["failed"])
    config = Run.load(grid["failed"]).info["config"]
    changed(grid["failed"], config=config | {"seed": 9})
    refused = runs("retry", "out")
    assert refused.status == 2 and "its model or data have changed, so another run would be trained" in refused.err
    assert below(grid["stopped"]) == before


def test_retry_of_a_state_that_says_no_config_asks_for_the_command(runs, grid):
    shutil.rmtree(grid["stopped"] / "state")
    grid["stopped"].joinpath(".hydra").mkdir()
    refused = runs("retry", "out")
    assert refused.status == 2
    assert f"{grid['stopped'].name}: nothing says how it was to be trained; its command goes on" in refused.err


def test_runs_trained_for_one_another_are_trained_again_together(runs, made, tmp_path):
    from promptgeo.training.again import cells_again
    from promptgeo.training.cell import cells_of

    line = (*SMALL, f"model.name_or_path={made['whole'].config.model.name_or_path}", f"outputs={tmp_path}/out")
    coupled = cells_of([compose([*line, "regulariser=orthogonal", "regulariser.size=2", f"seed={k}"]) for k in (0, 1)])
    train_all(coupled)
    changed(coupled[1].folder, status="failed")
    (found,) = [each for each in find_folders(tmp_path / "out") if each.status == "failed"]
    assert {cell.id for cell in cells_again([found])} == {cell.id for cell in coupled}


# ------------------------------------------------------------ rm


def test_rm_deletes_what_is_chosen_says_so_and_leaves_everything_else(runs, grid):
    kept = {how: below(grid[how]) for how in ("whole", "stopped")}
    beside = grid["whole"].parent / "analysis/curves"
    beside.mkdir(parents=True)
    (beside / "result.json").write_text("{}")
    outcome = runs("rm", "out", "--where", "seed in [1, 2]", "--yes")
    assert (outcome.status, sorted(outcome.out.splitlines())) == (
        0,
        sorted(f"deleted: out/grid/{grid[how].name}" for how in ("failed", "diverged")),
    )
    assert not grid["failed"].exists() and not grid["diverged"].exists() and (beside / "result.json").exists()
    assert {how: below(grid[how]) for how in kept} == kept
    alone = runs("rm", grid["whole"], grid["stopped"], "--yes")
    assert alone.status == 0 and not grid["whole"].exists() and not grid["stopped"].exists()


def test_rm_asks_and_deletes_nothing_without_a_yes(runs, grid):
    before = below(grid["whole"].parent)
    asked = runs("rm", "out", "--status", "failed", typed="\n")
    assert asked.status == 0 and asked.out.endswith("nothing was deleted\n")
    assert f"  failed     out/grid/{grid['failed'].name}\n" in asked.out and "(1 run, " in asked.out
    nobody = runs("rm", "out", "--status", "failed")
    assert nobody.status == 2 and "there is nobody to ask: --yes deletes them" in nobody.err
    which = runs("rm", "out", "--yes")
    assert which.status == 2 and "out: is a folder of 4 runs, not a run's own: which? --where or --status" in which.err
    assert below(grid["whole"].parent) == before
    assert runs("rm", "out", "--status", "failed", typed="y\n").status == 0 and not grid["failed"].exists()


def test_rm_refuses_what_promptgeo_did_not_write_and_follows_no_link(runs, grid, tmp_path):
    (grid["failed"] / "state").mkdir()
    (grid["failed"] / "state/notes.txt").write_text("mine")
    refused = runs("rm", "out", "--status", "failed,diverged", "--yes")
    assert refused.status == 2 and "state/notes.txt: is none of the run's files" in refused.err
    assert grid["diverged"].exists() and grid["failed"].exists()
    shutil.rmtree(grid["failed"] / "state")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state.safetensors").write_text("theirs")
    (grid["failed"] / "state").symlink_to(elsewhere)
    refused = runs("rm", "out", "--status", "failed", "--yes")
    assert refused.status == 2 and "/state: is a link, and promptgeo did not write it" in refused.err
    assert (elsewhere / "state.safetensors").exists() and grid["failed"].exists()
    (grid["failed"] / "state").unlink()
    shutil.move(grid["failed"] / "metrics.csv", elsewhere)
    (grid["failed"] / "metrics.csv").symlink_to(elsewhere / "metrics.csv")
    refused = runs("rm", "out", "--status", "failed", "--yes")
    assert refused.status == 2 and "/metrics.csv: is a link, and promptgeo did not write it" in refused.err
    linked = tmp_path / "linked"
    linked.symlink_to(grid["whole"])
    refused = runs("rm", "linked", "--yes")
    assert refused.status == 2 and "linked: is a link; name the run's folder itself" in refused.err
    assert grid["whole"].exists()
    # Other programs write a run.json too.
    other = tmp_path / "out/other"
    other.mkdir()
    (other / "run.json").write_text('{"run": 1}')
    refused = runs("rm", "out", "--status", "damaged", "--yes")
    assert refused.status == 2 and "out/other: nothing in it says that promptgeo wrote it" in refused.err
    assert (other / "run.json").exists()


def test_rm_leaves_a_run_that_is_being_trained(runs, grid, made):
    (claims := grid["failed"].parent / CLAIMS).touch()
    held = made["stopped"].id
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(claims), held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().split() == [held]
        before = below(grid["stopped"])
        outcome = runs("rm", "out", "--status", "failed,unfinished", "--yes")
        assert outcome.status == 1 and below(grid["stopped"]) == before and not grid["failed"].exists()
        assert f"{grid['stopped'].name}: not deleted: another process is training this run" in outcome.err
        process.stdin.close()
    assert runs("rm", "out", "--status", "unfinished", "--yes").status == 0 and not grid["stopped"].exists()


def test_what_rm_claims_no_other_can_train(grid, made):
    """In another process: a process is in nobody's way but others'."""
    code = (
        "import sys; from pathlib import Path; from promptgeo.training.lock import claimed_folders\n"
        "with claimed_folders([Path(sys.argv[1])]) as mine: print(len(mine), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(grid["stopped"])]
    here = SimpleNamespace(id=made["stopped"].id, folder=grid["stopped"])
    other = SimpleNamespace(id=made["whole"].id, folder=grid["whole"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        with claimed([[here], [other]]) as mine:
            assert mine == {other.id}
        process.stdin.close()
    with claimed([[here]]) as mine, claimed_folders([grid["whole"]]) as folders:
        assert mine == {here.id} and folders == {grid["whole"]}


def test_rm_that_was_killed_half_way_is_given_again(runs, grid):
    (grid["failed"] / "metrics.csv").unlink()
    assert runs("rm", "out", "--where", "seed == 1", "--yes").status == 0 and not grid["failed"].exists()
    assert len(find_runs("out")[0]) == 2
