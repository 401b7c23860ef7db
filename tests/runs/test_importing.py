"""promptgeo-runs import: prompts from elsewhere are runs like our own.

What is not known stays unknown, and bad input writes nothing.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from promptgeo import RunTable, UserError, load_runs
from promptgeo.cli import runs as runs_cli
from promptgeo.runs.folder import find_runs

TABLE = "task,init,seed,model,accuracy,n\nplus_one,cat,0,tiny,0.5,8\nplus_one,dog,0,tiny,,\nplus_two,cat,1,tiny,1,8\n"


def prompts(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs promptgeo-runs in an empty folder with a table of three prompts: (status, out, err)."""
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text(TABLE)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            runs_cli.main(list(arguments))
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def imported(cli, *arguments: str, table: str = "table.csv", out: str = "outputs/theirs") -> RunTable:
    status, said, error = cli("import", *arguments, "--table", table, "--out", out)
    assert status == 0, error
    assert f"imported runs lie in {out}/" in said
    runs = load_runs(out)
    order = {run.info["imported"]["line"]: i for i, run in enumerate(runs.runs)}
    return RunTable(
        runs.table.loc[[order[k] for k in sorted(order)]].reset_index(drop=True),
        [runs.runs[order[k]] for k in sorted(order)],
    )


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "safetensors", "bfloat16"])
def test_one_file_holds_a_prompt_for_every_row(cli, kind):
    given = prompts(3, 2, 5)
    path = Path("p.safetensors" if kind in ("safetensors", "bfloat16") else "p.npy")
    if kind == "safetensors":
        safetensors.numpy.save_file({"anything": given}, path)
    elif kind == "bfloat16":
        import torch
        from safetensors.torch import save_file

        save_file({"anything": torch.from_numpy(given).bfloat16()}, path)
        given = torch.from_numpy(given).bfloat16().float().numpy()
    else:
        np.save(path, given.astype(kind))
        given = given.astype(kind).astype(np.float32)
    runs = imported(cli, str(path))
    assert np.array_equal(runs.prompts(), given) and runs.prompts().dtype == np.float32
    assert runs.table["task"].tolist() == ["plus_one", "plus_one", "plus_two"]
    assert runs.table["init"].tolist() == ["cat", "dog", "cat"]
    assert runs.table["seed"].tolist() == [0, 0, 1] and set(runs.table["status"]) == {"imported"}
    rows = [run.row() for run in runs.runs]
    assert [row["accuracy_final"] for row in rows] == [0.5, None, 1.0] and [row["n"] for row in rows] == [8, None, 8]
    unknown = ("template", "lr", "steps", "loss", "accuracy_none", "accuracy_initial", "accuracy_best")
    assert all(row[key] is None for row in rows for key in unknown) and {row["prompt_length"] for row in rows} == {2}


def test_what_is_not_known_is_refused_with_the_way_out(cli):
    np.save("p.npy", prompts(3, 2, 5))
    runs = imported(cli, "p.npy")
    assert "initial" not in runs.runs[0].tensors and "best" not in runs.runs[0].tensors
    for which in ("initial", 0):
        with pytest.raises(
            UserError,
            match=r"was imported without P0: it has no initial prompt and no delta "
            r"\(promptgeo-runs import takes --initial",
        ):
            runs.prompts(which)
    with pytest.raises(UserError, match="was imported without its best prompt"):
        runs.prompts("best")
    with pytest.raises(UserError, match="these runs have no checkpoints"):
        runs.trajectory()
    assert runs.runs[0].metrics.empty and runs.runs[0].predictions == []


def test_study_3_saves_a_trajectory_per_run(cli):
    Path("theirs").mkdir()
    given = [prompts(4, 2, 5, seed=k) for k in range(3)]
    for k, array in enumerate(given):
        np.save(f"theirs/r{k}.npy", array)
    # Named by a path from the table, by its last part, and as the command line names it.
    Path("theirs/table.csv").write_text("task,init,file\na,cat,r0.npy\na,dog,./r1.npy\nb,cat,theirs/r2.npy\n")
    files = [f"theirs/r{k}.npy" for k in (2, 0, 1)]
    runs = imported(cli, *files, table="theirs/table.csv")
    assert np.array_equal(runs.prompts(), np.stack([array[-1] for array in given]))
    for step in (1, 2, 3, 4):
        assert np.array_equal(runs.prompts(step), np.stack([array[step - 1] for array in given]))
    assert (
        runs.table["steps"].tolist() == [4, 4, 4]
        and runs.table["seed"].isna().all()
        and runs.table["model"].isna().all()
    )
    assert runs.runs[0].folder.name.startswith("imported-a-cat-")
    with pytest.raises(UserError, match="was imported without P0"):
        runs.trajectory()
    with_p0 = imported(cli, *files, "--steps", "0:63", table="theirs/table.csv", out="outputs/with_p0")
    assert np.array_equal(with_p0.prompts("initial"), np.stack([array[0] for array in given]))
    trajectory_NCPd, steps = with_p0.trajectory()
    assert steps.tolist() == [0, 63, 126, 189] and np.array_equal(trajectory_NCPd, np.stack(given))


def test_the_table_says_steps_of_its_own(cli):
    np.save("p.npy", given := prompts(3, 3, 2, 5))
    Path("table.csv").write_text('task,init,steps\na,cat,10:10\na,dog,"1,5,7"\nb,cat,\n')
    runs = imported(cli, "p.npy", "--steps", "2:1")
    assert [run.tensors["steps"].tolist() for run in runs.runs] == [[10, 20, 30], [1, 5, 7], [2, 3, 4]]
    assert np.array_equal(runs.prompts(), given[:, -1])


def test_safetensors_per_run_may_say_everything(cli):
    arrays = {
        "initial": prompts(2, 5),
        "final": prompts(2, 5, seed=1),
        "trajectory": prompts(3, 2, 5, seed=2),
        "steps": np.array([5, 6, 9]),
    }
    safetensors.numpy.save_file(arrays, "one.safetensors")
    Path("table.csv").write_text("task,init,file\na,cat,one.safetensors\n")
    run = imported(cli, "one.safetensors").runs[0]
    assert {name: array.tolist() for name, array in run.tensors.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    Path("again.csv").write_text(f"task,init,file\na,cat,{run.folder.name}/prompts.safetensors\n")
    again = imported(cli, str(run.folder / "prompts.safetensors"), table="again.csv", out="outputs/again").runs[0]
    assert {name: array.tolist() for name, array in again.tensors.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


@pytest.mark.parametrize("rows", [1, 3])
def test_a_file_may_hold_checkpoints_alone(cli, rows):
    Path("table.csv").write_text("".join(TABLE.splitlines(keepends=True)[: rows + 1]))
    trajectory = prompts(rows, 4, 2, 5)
    safetensors.numpy.save_file({"trajectory": trajectory[0] if rows == 1 else trajectory}, "p.safetensors")
    runs = imported(cli, "p.safetensors", "--steps", "0:2")
    assert np.array_equal(runs.prompts(), trajectory[:, -1]) and np.array_equal(runs.prompts(0), trajectory[:, 0])
    assert np.array_equal(runs.prompts(4), trajectory[:, 2])


def test_p0_of_every_row_makes_deltas(cli):
    np.save("p.npy", final := prompts(3, 2, 5))
    np.save("p0.npy", initial := prompts(3, 2, 5, seed=1))
    runs = imported(cli, "p.npy", "--initial", "p0.npy")
    assert np.array_equal(runs.prompts("initial"), initial) and np.array_equal(runs.prompts(), final)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> Path:
    """What PEFT itself writes."""
    peft = pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("adapters")
    GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    ).save_pretrained(folder / "base")
    kinds = {
        "cat": peft.PromptTuningConfig,
        "dog": peft.PromptTuningConfig,
        "prefix": peft.PrefixTuningConfig,
        "ptuning": peft.PromptEncoderConfig,
        "lora": peft.LoraConfig,
    }
    for name, kind in kinds.items():
        length = {} if name == "lora" else {"num_virtual_tokens": 3}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.get_peft_model(
                GPT2LMHeadModel.from_pretrained(folder / "base"), kind(task_type="CAUSAL_LM", **length)
            ).save_pretrained(folder / name)
    return folder


def test_peft_adapters(cli, adapters):
    Path("table.csv").write_text("task,init,seed,file\na,cat,0,cat\na,dog,0,dog/\n")
    runs = imported(cli, str(adapters / "cat"), str(adapters / "dog"))
    given = [
        safetensors.numpy.load_file(adapters / name / "adapter_model.safetensors")["prompt_embeddings"]
        for name in ("cat", "dog")
    ]
    assert np.array_equal(runs.prompts(), np.stack(given)) and runs.prompts().shape == (2, 3, 8)
    assert runs.runs[0].info["config"]["model"] == {
        "name": "base",
        "name_or_path": str(adapters / "base"),
        "revision": None,
    }
    Path("table.csv").write_text("task,init\na,cat\n")
    assert np.array_equal(imported(cli, str(adapters / "cat"), out="outputs/one").prompts(), given[:1])


@pytest.mark.parametrize(("name", "kind"), [("prefix", "PREFIX_TUNING"), ("ptuning", "P_TUNING"), ("lora", "LORA")])
def test_other_adapters_hold_no_soft_prompt(cli, adapters, name, kind):
    Path("table.csv").write_text("task,init\na,cat\n")
    status, _, error = cli("import", str(adapters / name), "--table", "table.csv", "--out", "out")
    assert (
        status == 2
        and error
        == f"promptgeo: {adapters / name}: is a PEFT adapter of type {kind}; "
        "only PROMPT_TUNING has a soft prompt among the input embeddings\n"
    )


def test_the_same_import_is_the_same_bytes_and_is_not_written_twice(cli):
    np.save("p.npy", prompts(3, 2, 5))
    for out in ("outputs/one", "outputs/two"):
        imported(cli, "p.npy", out=out)
    files = {p.relative_to("outputs/one"): p for p in Path("outputs/one").rglob("*") if p.is_file()}
    assert len(files) == 3 * 4 and all(
        path.read_bytes() == (Path("outputs/two") / name).read_bytes() for name, path in files.items()
    )
    assert sorted(p.name for p in Path("outputs").iterdir()) == ["one", "two"]
    stamps = {path: path.stat().st_mtime_ns for path in files.values()}
    imported(cli, "p.npy", out="outputs/one")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize("there", ["other runs", "a damaged run", "a file", "a note"])
def test_nothing_that_lies_there_is_overwritten(cli, there):
    np.save("p.npy", prompts(3, 2, 5))
    if there == "a file":
        Path("out").write_text("mine")
    elif there == "a note":
        Path("out").mkdir()
        Path("out/note.txt").write_text("mine")
    else:
        damaged = imported(cli, "p.npy", out="out").runs[0].folder / "metrics.csv"
        if there == "a damaged run":
            damaged.write_text("")
        else:
            np.save("p.npy", prompts(3, 2, 5, seed=1))
    before = {path: path.read_bytes() for path in [Path("out"), *Path("out").rglob("*")] if path.is_file()}
    status, _, error = cli("import", "p.npy", "--table", "table.csv", "--out", "out")
    assert (status, error.count("\n")) == (2, 1) and error.startswith(
        "promptgeo: --out out: exists already and holds something else; nothing was overwritten"
    )
    assert {path: path.read_bytes() for path in [Path("out"), *Path("out").rglob("*")] if path.is_file()} == before


def test_imported_runs_are_verified_listed_and_seen_by_the_analyses(cli):
    np.save("p.npy", prompts(3, 2, 5))
    runs = imported(cli, "p.npy")
    status, out, _ = cli("outputs/theirs")
    assert status == 0 and "3 runs, 0 damaged" in out and out.count("imported") == 3 and " nan" not in out
    from promptgeo.analysis.geometry.tokens import tokens

    assert len(tokens(runs)) == 6
    (runs.runs[1].folder / "prompts.safetensors").write_bytes(b"")
    assert [len(runs_or_errors) for runs_or_errors in find_runs("outputs/theirs")] == [2, 1]
    assert runs.runs[0].info["config"]["model"] == {"name": "tiny", "name_or_path": "tiny", "revision": None}
    assert runs.runs[0].info["imported"] == {"file": "p.npy", "table": "table.csv", "line": 2}


def test_a_models_short_name_becomes_its_place(cli):
    np.save("p.npy", prompts(1, 2, 5))
    Path("table.csv").write_text("task,init,model,notes,epoch\na,cat,gpt2-xl,x,3\n")
    status, _, error = cli("import", "p.npy", "--table", "table.csv", "--out", "out")
    assert (status, error) == (0, "not used: notes, epoch (columns of table.csv)\n")
    (run,) = find_runs("out")[0]
    assert run.info["config"]["model"]["name_or_path"] == "openai-community/gpt2-xl" and run.folder.name.startswith(
        "gpt2_xl-a-cat-"
    )


def write_files() -> None:
    np.save("p.npy", prompts(3, 2, 5))
    np.save("flat.npy", prompts(3, 5))
    np.save("whole.npy", np.ones((3, 2, 5), int))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("empty.npy", np.ones((3, 0, 5), np.float32))
    nan = prompts(3, 2, 5)
    nan[1, 0, 4] = np.nan
    np.save("nan.npy", nan)
    np.save("huge.npy", np.full((3, 2, 5), 1e300))
    np.save("t.npy", prompts(3, 4, 2, 5))
    Path("text.npy").write_text("none")
    Path("text.safetensors").write_text("none")
    Path("p.txt").write_text("none")
    Path("folder").mkdir()
    safetensors.numpy.save_file({"a": prompts(3, 2, 5), "b": prompts(3, 2, 5)}, "two.safetensors")
    for name, content in {
        "notask.csv": "Task,init\na,b\n",
        "semicolons.csv": "task;init\na;b\n",
        "empty.csv": "",
        "norows.csv": "task,init\n",
        "hole.csv": "task,init\na,cat\n,dog\nb,cat\n",
        "ragged.csv": "task,init\na,cat\na,dog,x\nb,cat\n",
        "seed.csv": "task,init,seed\na,cat,0\na,dog,zero\nb,cat,1\n",
        "percent.csv": "task,init,accuracy\na,cat,0.5\na,dog,50\nb,cat,1\n",
        "typo.csv": "task,init,acuracy\na,cat,0.5\na,dog,0.5\nb,cat,1\n",
        "twice.csv": "task,init,init\na,cat,b\n",
        "file.csv": "task,init,file\na,cat,q.npy\n",
        "none.csv": "task,init,file\na,cat,flat.npy\n",
        "steps.csv": 'task,init,steps\na,cat,1:1\na,dog,"3,2,1,0"\nb,cat,1:1\n',
        "latin.csv": None,
    }.items():
        Path(name).write_bytes(b"task,init\n\xe9,b\n" if content is None else content.encode())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("absent.npy --table table.csv", "absent.npy: no such file"),
        ("p.npy --table absent.csv", "--table absent.csv: no such file"),
        (
            "p.npy --table notask.csv",
            "--table notask.csv: has no column task (nearest: Task); task and init are needed",
        ),
        ("p.npy --table semicolons.csv", "--table semicolons.csv: has no column task ("),
        ("p.npy --table empty.csv", "--table empty.csv: has no column task (it has none)"),
        ("p.npy --table norows.csv", "--table norows.csv: has no rows"),
        ("p.npy --table latin.csv", "--table latin.csv: is not a CSV table in UTF-8"),
        ("p.npy --table hole.csv", "hole.csv, line 3: task is empty"),
        ("p.npy --table ragged.csv", "ragged.csv, line 3: has another number of cells than the first line (2)"),
        ("p.npy --table seed.csv", "seed.csv, line 3: seed=zero: a whole number is needed, or an empty cell"),
        ("p.npy --table percent.csv", "percent.csv, line 3: accuracy=50: a share between 0 and 1 is needed"),
        ("p.npy --table typo.csv", "--table typo.csv: column acuracy: is accuracy meant?"),
        ("p.npy --table twice.csv", "--table twice.csv: has two columns init"),
        ("p.npy --table file.csv", "file.csv, line 2: file=q.npy: is not among the given files"),
        ("flat.npy p.npy --table none.csv", "p.npy: no row of none.csv names it"),
        ("p.npy flat.npy --table table.csv", "--table table.csv: several files need a column file"),
        (
            "flat.npy --table table.csv",
            "flat.npy: final has shape [3, 5]; [N, P, d] or, with checkpoints, [N, C, P, d] is needed",
        ),
        ("empty.npy --table table.csv", "empty.npy: final has shape [3, 0, 5]"),
        ("whole.npy --table table.csv", "whole.npy: final holds int64; a prompt is made of floating-point numbers"),
        ("nan.npy --table table.csv", "nan.npy: final is not finite at [1, 0, 4]"),
        ("huge.npy --table table.csv", "huge.npy: final is not finite at [0, 0, 0]"),
        ("objects.npy --table table.csv", "objects.npy: is not a readable .npy array: Object arrays cannot be loaded"),
        ("text.npy --table table.csv", "text.npy: is not a readable .npy array: "),
        ("text.safetensors --table table.csv", "text.safetensors: is not a readable .safetensors file"),
        (
            "two.safetensors --table table.csv",
            "two.safetensors: has 2 tensors, a [3, 2, 5], b [3, 2, 5]; say which is the trained prompt: --tensor NAME",
        ),
        (
            "p.txt --table table.csv",
            "p.txt: cannot be read; .npy, .npz, .safetensors or a torch.save file (.pt) is needed",
        ),
        ("folder --table table.csv", "folder: has no adapter_config.json: it is no PEFT adapter"),
        ("p.npy --table none.csv", "none.csv, line 2: file=flat.npy: is not among the given files"),
        ("p.npy --table table.csv --initial flat.npy", "flat.npy: final has shape [3, 5]"),
        ("t.npy --table steps.csv", "steps.csv, line 3: steps: 4 rising whole numbers are needed"),
        (
            "t.npy --table table.csv --steps 1,2",
            "--steps: 4 rising whole numbers are needed, a step for each checkpoint of t.npy; found [1, 2]",
        ),
        ("t.npy --table table.csv --steps all", "--steps=all: FIRST:BY is needed"),
        ("t.npy --table table.csv --steps 5:0", "--steps: 4 rising whole numbers are needed"),
        ("p.npy", "the following arguments are required: --table; see promptgeo-runs import --help"),
        ("--table table.csv", "the following arguments are required: FILE; see promptgeo-runs import --help"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(cli, arguments, said):
    write_files()
    before = sorted(os.listdir())
    status, out, error = cli("import", *arguments.split(), "--out", "out")
    assert (status, out) == (2, "") and error.startswith(f"promptgeo: {said}") and error.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_rows_and_prompts_must_be_equally_many(cli):
    np.save("p.npy", prompts(4, 2, 5))
    status, _, error = cli("import", "p.npy", "--table", "table.csv", "--out", "out")
    assert status == 2 and error.startswith(
        "promptgeo: p.npy: has 4 prompts, table.csv 3 rows; one row per prompt is needed (or a column file"
    )


def test_the_same_prompt_twice_is_refused(cli):
    np.save("p.npy", np.concatenate([prompts(1, 2, 5)] * 2))
    Path("table.csv").write_text("task,init\na,cat\na,cat\n")
    status, _, error = cli("import", "p.npy", "--table", "table.csv", "--out", "out")
    assert status == 2 and error.startswith(
        "promptgeo: table.csv, lines 2 and 3: are the same prompt with the same task, init and seed"
    )


def test_a_failing_write_leaves_nothing(cli, monkeypatch):
    from promptgeo.runs import importing

    np.save("p.npy", prompts(3, 2, 5))
    count = iter(range(9))
    write = importing.write_run

    def full(*arguments):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(importing, "write_run", full)
    status, _, error = cli("import", "p.npy", "--table", "table.csv", "--out", "outputs/x")
    assert (
        status == 2
        and error == "promptgeo: --out outputs/x: cannot be written (No space left on device); choose another folder\n"
    )
    assert not any(Path("outputs").iterdir())


def test_help_says_both(cli):
    status, out, _ = cli("--help")
    assert (
        status == 0
        and "promptgeo-runs [PATH]" in out
        and "import   prompts that were trained elsewhere become runs" in out
    )
    status, out, _ = cli("import", "--help")
    assert status == 0 and "[N, P, d]" in out and "PEFT" in out and "--steps" in out


def test_arrays_may_have_checkpoints():
    final, initial, trajectory = prompts(3, 2, 5), prompts(3, 2, 5, seed=1), prompts(3, 4, 2, 5, seed=2)
    table = pd.DataFrame({"task": ["a", "b", "a"]})
    runs = RunTable.from_arrays(final, table, initial=initial, trajectory=trajectory, steps=[5, 6, 8, 9])
    of_a, steps = runs.query("task == 'a'").trajectory()
    assert steps.tolist() == [0, 5, 6, 8, 9]
    assert (
        np.array_equal(of_a, np.concatenate([initial[:, None], trajectory], axis=1)[[0, 2]])
        and of_a.dtype == np.float32
    )
    assert np.array_equal(runs.prompts(8), trajectory[:, 2]) and np.array_equal(runs.prompts(0), initial)
    assert np.array_equal(runs.prompts(np.int64(6)), trajectory[:, 1])
    with pytest.raises(UserError, match="which=7: these prompts only have final, initial, and steps 0, 5, 6, 8, 9"):
        runs.prompts(7)
    assert RunTable.from_arrays(final, table, initial=initial, trajectory=trajectory).trajectory()[1].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    begins = RunTable.from_arrays(final, table, trajectory=trajectory, steps=[0, 1, 2, 3])
    assert np.array_equal(begins.prompts("initial"), trajectory[:, 0]) and begins.trajectory()[0].shape == (3, 4, 2, 5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"trajectory": prompts(3, 2, 5)},
            r"trajectory has shape \[3, 2, 5\], prompts \[3, 2, 5\]; \[N, C, P, d\] is needed",
        ),
        ({"trajectory": prompts(2, 4, 2, 5)}, r"trajectory has shape \[2, 4, 2, 5\]"),
        ({"trajectory": prompts(3, 4, 2, 5)}, "trajectory: P0 is needed with it"),
        (
            {"trajectory": prompts(3, 4, 2, 5), "steps": [1, 2]},
            r"steps: 4 rising numbers are needed, one per checkpoint; these are \[1, 2\]",
        ),
        ({"trajectory": prompts(3, 4, 2, 5), "steps": [0, 2, 2, 3]}, "steps: 4 rising numbers are needed"),
        (
            {"trajectory": prompts(3, 4, 2, 5), "steps": [0, 1, 2, 3], "initial": prompts(3, 2, 5, seed=3)},
            "initial differs from the checkpoint of step 0",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        RunTable.from_arrays(prompts(3, 2, 5), pd.DataFrame({"task": list("aba")}), **given)
