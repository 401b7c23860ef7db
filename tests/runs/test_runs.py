"""The run folder: written whole or not at all, verified when read; many of them as a table."""

import errno
import hashlib
import inspect
import json
import logging
import os
import pydoc
import resource

import numpy as np
import pandas as pd
import pytest

import promptgeo
from promptgeo import Run, RunTable, UserError, load_runs
from promptgeo.cli import runs as runs_cli
from promptgeo.runs.folder import FILES, METRICS_COLUMNS, DamagedRun, Trained, find_runs, write_atomically, write_run


def header(task: str = "t", init: str = "cat", seed: int = 0) -> dict:
    names = {
        "model": {"name": "m"},
        "task": {"name": task},
        "init": {"name": init},
        "template": {"name": "input_label"},
    }
    return {"id": f"{task}{init}{seed}", "config": names | {"seed": seed, "optimizer": {"lr": 0.01}}}


def trained(seed: int = 0, status: str = "completed", length: int = 2) -> Trained:
    rng = np.random.default_rng(seed)
    arrays = {which: rng.normal(size=(length, 3)).astype(np.float32) for which in ("initial", "final", "best")}
    accuracy = {"none": 0.0, "initial": 0.125} | (
        {"final": 0.5 + seed / 8, "best": 0.75} if status == "completed" else {}
    )
    loss = dict.fromkeys(accuracy, 1 / 3)
    metrics = [
        dict.fromkeys(METRICS_COLUMNS, 0)
        | {"step": step, "split": "train", "loss": 1 / 3, "lr": 0.01, "label_accuracy": None}
        for step in (5, 10)
    ]
    predictions = [
        {"prompt": "final", "id": i, "input": "é\u2028", "label": "b", "output": "b", "correct": True, "loss": 0.5}
        for i in range(3)
    ]
    results = {"split": "test", "n": 3, "steps": 10, "prompt_length": length, "accuracy": accuracy, "loss": loss}
    trajectory = rng.normal(size=(2, length, 3)).astype(np.float32)
    return Trained(
        status,
        **arrays,
        trajectory=trajectory,
        steps=np.array([5, 10]),
        metrics=metrics,
        predictions=predictions,
        results=results,
    )


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "a" / "run", header(), trained())
    return tmp_path / "a" / "run"


def test_what_was_written_is_what_is_read(folder):
    run, wrote = Run.load(folder), trained()
    assert sorted(p.name for p in folder.iterdir()) == sorted([*FILES, "run.json"])
    assert (run.id, run.status, run.info["results"]) == ("tcat0", "completed", wrote.results)
    for which in ("initial", "final", "best"):
        assert np.array_equal(run.prompt(which), getattr(wrote, which)) and run.prompt(which).dtype == np.float32
    assert np.array_equal(run.prompt(5), wrote.trajectory[0]) and np.array_equal(run.prompt(10), wrote.trajectory[1])
    assert np.array_equal(run.prompt(0), wrote.initial)
    assert list(run.metrics.columns) == METRICS_COLUMNS and run.metrics["step"].tolist() == [5, 10]
    assert (
        run.metrics["loss"].tolist() == [pytest.approx(1 / 3, rel=1e-8)] * 2
        and run.metrics["label_accuracy"].isna().all()
    )
    assert run.predictions == wrote.predictions
    for name in FILES:
        assert run.info["files"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_the_same_run_is_the_same_bytes(folder, tmp_path):
    write_run(tmp_path / "again", header(), trained())
    for name in (*FILES, "run.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_step_or_a_prompt_there_is_not_is_said(folder):
    with pytest.raises(UserError, match=r"has no checkpoint of step 7 \(it has 5, 10\)"):
        Run.load(folder).prompt(7)
    with pytest.raises(UserError, match="which=trajectory: one of initial, final, best or a step is needed"):
        Run.load(folder).prompt("trajectory")


@pytest.mark.parametrize("name", [*FILES, "run.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "missing"])
def test_damage_anywhere_is_named_and_the_run_left_out(folder, tmp_path, caplog, name, damage):
    write_run(tmp_path / "b", header(seed=1), trained(1))
    path = folder / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        # In run.json, a digit of an accuracy: still JSON, and still believable.
        at = content.index(b"0.125") + 4 if name == "run.json" else len(content) // 2
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        path.write_bytes({"flipped": flipped, "truncated": content[:-20], "emptied": b""}[damage])
    with pytest.raises(DamagedRun, match=f"{folder}" if damage == "missing" else f"{path}: ") as error:
        Run.load(folder)
    assert "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        table = load_runs(tmp_path)
    assert table.table["id"].tolist() == ["tcat1"]
    assert [m.startswith("left out: ") for m in caplog.messages] == [True]


@pytest.mark.parametrize("content", ["null", "[]", '{"files": []}', '{"files": {}}', "{}", "\x00"])
def test_a_run_json_that_is_none_is_damage(folder, content):
    (folder / "run.json").write_text(content)
    with pytest.raises(DamagedRun, match=r"run\.json: "):
        Run.load(folder)


def test_files_beside_the_run_are_not_its_business(folder):
    (folder / ".hydra").mkdir()
    (folder / "train.log").write_text("anything")
    assert Run.load(folder).status == "completed"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk: the write stops half-way
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    write_atomically(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000 and path.stat().st_mode & 0o777 == 0o644


def test_a_run_whose_writing_stops_half_way_is_not_complete(folder):
    broken = trained(1)
    broken.predictions.append({"not": {1, 2}})  # no JSON: fails before anything is touched
    with pytest.raises(TypeError):
        write_run(folder, header(), broken)
    assert np.array_equal(Run.load(folder).prompt(), trained().final)
    with pytest.raises(TypeError):
        write_run(folder, header() | {"not": {1, 2}}, trained(1))
    assert np.array_equal(Run.load(folder).prompt(), trained().final)


def test_a_disk_without_room_for_a_whole_run_leaves_the_earlier_one(folder):
    before, longer = sorted(path.name for path in folder.iterdir()), trained(1)
    longer.predictions.append({"output": "word " * 1000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # prompts and metrics fit, predictions do not
        with pytest.raises(OSError, match="File too large"):
            write_run(folder, header(), longer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert np.array_equal(Run.load(folder).prompt(), trained().final)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_run_whose_files_cannot_all_be_put_in_place_is_not_complete(folder):
    (folder / "predictions.jsonl").unlink()
    (folder / "predictions.jsonl").mkdir()
    with pytest.raises(OSError, match=r"predictions\.jsonl"):
        write_run(folder, header(), trained(1))
    with pytest.raises(DamagedRun, match=r"no finished run lies here \(no run.json\)"):
        Run.load(folder)


@pytest.fixture
def grid(tmp_path):
    for k, (task, init, seed) in enumerate(
        [("plus_one", "cat", 0), ("plus_one", "dog", 0), ("plus_two", "cat", 0), ("plus_two", "cat", 1)]
    ):
        write_run(tmp_path / f"run{k}", header(task, init, seed), trained(k))
    return tmp_path


def test_a_table_has_a_row_and_a_prompt_for_every_run(grid):
    runs = load_runs(grid)
    assert len(runs) == 4
    assert runs.table["task"].tolist() == ["plus_one", "plus_one", "plus_two", "plus_two"]
    assert runs.table["accuracy_final"].tolist() == [0.5, 0.625, 0.75, 0.875]
    assert runs.table.loc[
        3, ["init", "seed", "model", "template", "lr", "prompt_length", "steps", "n", "accuracy_none"]
    ].tolist() == ["cat", 1, "m", "input_label", 0.01, 2, 10, 3, 0.0]
    for which, of in {"final": "final", "initial": "initial", "best": "best", 0: "initial"}.items():
        assert np.array_equal(runs.prompts(which), np.stack([getattr(trained(k), of) for k in range(4)]))
    assert np.array_equal(runs.prompts(10), np.stack([trained(k).trajectory[1] for k in range(4)]))
    assert runs.prompts().shape == (4, 2, 3)


def test_a_query_keeps_table_and_prompts_together(grid):
    chosen = load_runs(grid).query("init == 'cat' and task == 'plus_two'")
    assert chosen.table["seed"].tolist() == [0, 1] and chosen.table.index.tolist() == [0, 1]
    assert np.array_equal(chosen.prompts(), np.stack([trained(2).final, trained(3).final]))
    again = chosen.query("seed == 1")
    assert np.array_equal(again.prompts(), trained(3).final[None]) and again.runs[0].id == "plus_twocat1"
    with pytest.raises(UserError, match="there are no runs"):
        chosen.query("seed == 9").prompts()


def test_several_paths_are_one_table(grid):
    assert load_runs(grid / "run2", grid / "run0").table["task"].tolist() == ["plus_two", "plus_one"]
    with pytest.raises(UserError, match="/absent: no such folder"):
        load_runs(grid / "absent")


def test_prompts_of_different_shapes_are_not_stacked(grid):
    write_run(grid / "longer", header(seed=9), trained(length=4))
    with pytest.raises(UserError, match=r"different shapes \(\(2, 3\), \(4, 3\)\)"):
        load_runs(grid).prompts()
    assert load_runs(grid).query("prompt_length == 4").prompts().shape == (1, 4, 3)


def test_a_table_at_a_prompt_shows_what_its_runs_are_and_how_good(grid):
    runs = load_runs(grid)
    title, *lines = repr(runs).splitlines()
    assert title == "RunTable of 4 runs"
    accuracies = ["accuracy_none", "accuracy_initial", "accuracy_final", "accuracy_best"]
    assert [line.split() for line in lines] == [
        ["task", "init", "seed", *accuracies, "n", "steps"],
        ["0", "plus_one", "cat", "0", "0", "0.125", "0.5", "0.75", "3", "10"],
        ["1", "plus_one", "dog", "0", "0", "0.125", "0.625", "0.75", "3", "10"],
        ["2", "plus_two", "cat", "0", "0", "0.125", "0.75", "0.75", "3", "10"],
        ["3", "plus_two", "cat", "1", "0", "0.125", "0.875", "0.75", "3", "10"],
    ]
    # Where runs differ in more than task, init and seed, that is shown; a diverged run has no final accuracy.
    write_run(grid / "longer", header(seed=9), trained(status="diverged", length=4))
    lines = repr(load_runs(grid)).splitlines()
    assert lines[1].split()[3:7] == ["status", "prompt_length", "accuracy_none", "accuracy_initial"]
    assert lines[2].split() == ["0", "t", "cat", "9", "diverged", "4", "0", "0.125", "-", "-", "3", "10"]
    assert repr(runs.query("seed == 7")) == "RunTable of 0 runs"
    assert repr(Run.load(grid / "run0")) == f"Run(folder={grid / 'run0'!r})"


def test_a_large_table_shows_twenty_rows_and_says_how_many_are_left_out():
    table = pd.DataFrame({"task": "<b>", "accuracy_final": np.linspace(0, 1, 240), "loss": 1.0})
    runs = RunTable.from_arrays(np.zeros((240, 1, 2)), table)
    lines = repr(runs).splitlines()
    assert len(lines) == 1 + 1 + 20 + 1 and lines[1].split() == ["task", "accuracy_final"]
    assert lines[-2].split() == ["19", "<b>", "0.0795"] and lines[-1] == "and 220 more; all rows and columns: .table"
    html = runs._repr_html_()
    assert html.count("<tr") == 1 + 20 and "<p>RunTable of 240 runs</p>" in html and "<p>and 220 more; " in html
    assert "&lt;b&gt;" in html and "<b>" not in html


def test_a_table_with_none_of_the_usual_columns_is_shown_too():
    runs = RunTable.from_arrays(np.zeros((1, 1, 2)), pd.DataFrame({"x": [1.5], "y": ["z"]}))
    title, *lines = repr(runs).splitlines()
    assert title == "RunTable of 1 run" and [line.split() for line in lines] == [["x", "y"], ["0", "1.5", "z"]]
    assert "<td>z</td>" in runs._repr_html_()


def test_help_of_what_notebooks_call_has_a_paragraph_for_its_arguments():
    given_prompts = (promptgeo.evaluate, promptgeo.generate, Run.generate)
    for function in (promptgeo.load_runs, *given_prompts, promptgeo.FrozenLM.load, RunTable.from_arrays):
        text = pydoc.render_doc(function, renderer=pydoc.plaintext)
        arguments = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
        described = text.split("Args:")[1].split("Raises UserError")[0]
        assert arguments and all(f"{name}: " in described for name in arguments)
        assert max(map(len, text.splitlines()[3:])) <= 120


def test_prompts_from_elsewhere_are_a_table_too():
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(3, 2, 5)).astype(np.float32)
    table = pd.DataFrame({"task": ["a", "b", "a"]}, index=[7, 8, 9])
    runs = RunTable.from_arrays(prompts, table, initial=np.zeros((3, 2, 5)))
    kept = prompts.copy()
    prompts[:] = 0  # a copy was taken
    assert np.array_equal(runs.prompts(), kept)
    only = runs.query("task == 'a'")
    assert np.array_equal(only.prompts(), kept[[0, 2]]) and only.prompts("initial").shape == (2, 2, 5)
    with pytest.raises(UserError, match="which=best: these prompts only have final, initial"):
        runs.prompts("best")
    with pytest.raises(UserError, match=r"\[3, 2, 5\] for 2 table rows"):
        RunTable.from_arrays(prompts, table.iloc[:2])
    with pytest.raises(UserError, match=r"\[3, 5\] for 3 table rows"):
        RunTable.from_arrays(prompts[:, 0], table)
    with pytest.raises(UserError, match=r"initial has shape \[2, 2, 5\], prompts \[3, 2, 5\]"):
        RunTable.from_arrays(prompts, table, initial=prompts[:2])


def test_the_listing_shows_every_run_and_names_what_is_damaged(grid, capsys):
    write_run(grid / "gone_wrong", header("plus_two", "dog"), trained(status="diverged"))
    damaged = grid / "run1" / "metrics.csv"
    damaged.write_text("step\n")
    assert [len(runs_or_errors) for runs_or_errors in find_runs(grid)] == [4, 1]
    with pytest.raises(SystemExit) as stop:
        runs_cli.main([str(grid)])
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "status", "none", "P0", "trained", "best", "n", "steps"]
    row = next(line for line in lines if line.startswith("run3 "))
    assert row.split() == ["run3", "completed", "0.000", "0.125", "0.875", "0.750", "3", "10"]
    diverged = next(line for line in lines if line.startswith("gone_wrong "))
    assert diverged.split()[1:5] == ["diverged", "0.000", "0.125", "-"]
    assert not any(" run1 " in line for line in lines)
    assert "4 runs, 1 damaged" in lines
    assert f"damaged: {damaged}: its SHA-256 is not the one in run.json: the file was changed or damaged" in lines
    assert json.loads((grid / "run0" / "run.json").read_text())["status"] == "completed"


def test_a_listing_of_nothing_is_one_line_and_exit_status_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        runs_cli.main([str(tmp_path / "absent")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"promptgeo: {tmp_path}/absent: no such folder\n"


def test_a_query_that_cannot_be_asked_names_the_columns(tmp_path):
    write_run(tmp_path / "run", header("one"), trained(0))
    with pytest.raises(
        UserError,
        match=r"colour == 'red': these runs have no column colour \(a text stands in quotes\); their columns: .*task",
    ):
        load_runs(tmp_path).query("colour == 'red'")


def test_runs_that_differ_in_a_key_alone_are_told_apart(tmp_path):
    """A mean over seeds is of runs that differ in nothing else; a listing shows in what they differ."""
    from promptgeo.cli.summary import table_of_results

    for seed in (0, 1):
        for bos in ("always", "never"):
            other = header(seed=seed)
            other["config"]["template"] = {"name": "input_label", "bos": bos}
            other["config"]["model"]["learning_rate"] = seed + len(bos)  # what decides no numbers tells nothing apart
            write_run(tmp_path / f"{bos}{seed}", other | {"id": f"{bos}{seed}"}, trained(seed))
    runs = load_runs(tmp_path)
    assert [c for c in runs.table if "." in c] == ["template.bos"] and "template.bos" in repr(runs)
    assert len(runs.query("`template.bos` == 'never'")) == 2
    table = table_of_results(runs.runs)
    shown = {column.header: list(column.cells) for column in table.columns}
    assert shown["template.bos"] == ["always", "never"] and shown["seeds"] == ["2", "2"]


def test_the_table_of_results_says_where_training_stopped_on_the_test_rows(tmp_path):
    from promptgeo.cli.summary import table_of_results

    for seed, (on_test, patience) in enumerate([(False, 5), (True, None), (True, 5)]):
        other = header(seed=seed)
        other["config"]["task"]["split"] = {"stop_on_test": on_test}
        other["config"]["training"] = {"early_stopping": {"patience": patience}}
        write_run(tmp_path / str(seed), other, trained(seed))
    runs = load_runs(tmp_path).runs
    assert [table_of_results([run]).caption is None for run in runs] == [True, True, False]
    assert "selected on them" in table_of_results(runs).caption


def test_the_table_of_results_fits_a_terminal_and_is_whole_in_a_pipe(tmp_path, capsys):
    """Long keys are called by their last part, a length that the init decides is no column, null is none."""
    from promptgeo.cli.summary import table_of_results
    from promptgeo.config.terminal import console

    for init, length in (("task_text", 14), ("task_vocab", 7)):
        for patience in (None, 5):
            other = header("a_task_of_study_2", init)
            other["config"]["training"] = {"early_stopping": {"patience": patience}}
            other["id"] = f"{init}{patience}"
            write_run(tmp_path / other["id"], other, trained(length=length))
    table = table_of_results(load_runs(tmp_path).runs)
    shown = {column.header: list(column.cells) for column in table.columns}
    assert shown["patience"] == ["5", "none", "5", "none"] and "prompt_length" not in shown
    console().print(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    table.add_column("a column that goes on" * 4)
    console().print(table)
    assert "…" not in capsys.readouterr().out


def test_a_folder_that_the_system_will_not_list_is_named(tmp_path, monkeypatch):
    listed = os.scandir

    def scandir(path):
        if os.path.basename(path) == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return listed(path)

    (tmp_path / "broken").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    runs, damaged = find_runs(tmp_path)
    assert not runs and str(damaged[0]) == f"{tmp_path / 'broken'}: cannot be read: Input/output error"


def test_texts_that_thousands_of_runs_share_are_once_in_memory(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), header(task="a task of two runs", seed=seed), trained(seed))
    first, second = (run.info["config"]["task"]["name"] for run in find_runs(tmp_path)[0])
    assert first == "a task of two runs" and first is second
