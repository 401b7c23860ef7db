"""The command line: the users' own line, the same bytes twice, what is complete is skipped, bad input is one line."""

import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import promptgeo as pg
from promptgeo.api import _config
from promptgeo.cli import train as cli_train
from promptgeo.config.compose import compose_grid
from promptgeo.config.paths import conf_dir

ROOT = Path(__file__).parents[2]
FILES = ("prompts.safetensors", "metrics.csv", "predictions.jsonl")
SMALL = (
    "training.max_steps=2",
    "task.split.max_train=16",
    "task.split.max_test=2",
    "evaluation.max_new_tokens=2",
    "template.longer_labels=warn",
)


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line of promptgeo-train in this process, in an empty folder: (status, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it; undone at the end
    root = logging.getLogger()
    before = (root.level, root.handlers[:])

    def run(*arguments: str) -> SimpleNamespace:
        status = 0
        try:
            cli_train.main(arguments)
        except SystemExit as stop:
            status = stop.code
        # Hydra configures logging for the process: its log file is open, its console is this test's.
        for handler in set(root.handlers) - set(before[1]):
            handler.close()
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


@pytest.fixture
def model(model_folders) -> tuple[str, str]:
    return (f"model.name_or_path={model_folders['gpt2']}", "model.name=rand")


def runs_below(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("run.json"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {f"{run.name}/{name}": (run / name).read_bytes() for run in runs_below(folder) for name in FILES}


# ------------------------------------------------------------ good commands


def test_the_users_own_line_trains_a_grid_with_m_in_the_middle(cli, model, tokenizer):
    assert tokenizer.pad_token is None  # and that is no error
    outcome = cli(*model, *SMALL, "task=country_capital", "init=cat", "-m", "seed=0,1")
    assert outcome.status == 0, outcome.err
    runs = [pg.Run.load(path) for path in runs_below(Path("outputs/adhoc"))]
    assert [re.sub("-[0-9a-f]{8}$", "", run.folder.name) for run in runs] == [
        "rand-country_capital-cat-s0",
        "rand-country_capital-cat-s1",
    ]
    assert [run.folder.name[-8:] for run in runs] == [run.id[:8] for run in runs]
    assert [(run.status, run.info["config"]["seed"], run.info["results"]["steps"]) for run in runs] == [
        ("completed", 0, 2),
        ("completed", 1, 2),
    ]
    assert not np.array_equal(runs[0].prompt(), runs[1].prompt()) and np.array_equal(
        runs[0].prompt(0), runs[1].prompt(0)
    )
    assert "country_capital" in outcome.out and outcome.out.rstrip().endswith("results: outputs/adhoc/")


@pytest.mark.long
def test_the_same_command_gives_the_same_bytes(cli, model):
    line = (*model, *SMALL, "task=sentiment", "init=normal,vocab", "task.split.validation=0.125", "-m", "seed=0,1")
    assert cli(*line, "outputs=one").status == cli(*line, "outputs=two").status == 0
    one, two = bytes_of(Path("one")), bytes_of(Path("two"))
    assert len(one) == 4 * 3 and one == two
    assert len({content for name, content in one.items() if name.endswith("safetensors")}) == 4


@pytest.mark.long
def test_a_complete_run_is_skipped_and_that_is_said(cli, model):
    line = (*model, *SMALL, "task=plus_one")
    assert "skipped" not in cli(*line).out
    (folder,) = runs_below(Path("outputs"))
    # Marked, so that a second training would show: what is complete is not even written again.
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in (*FILES, "run.json")}
    again = cli(*line, "-m", "seed=0,1")
    assert (
        again.status == 0
        and again.out.count("1 of 2 runs are complete already: skipped (overwrite=true trains again)") == 1
    )
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(runs_below(Path("outputs"))) == 2
    for same in (line, (*line, "-m", "seed=0,1")):
        complete = cli(*same)
        assert (
            complete.status == 0
            and "skipped (overwrite=true trains again)" in complete.err
            and "plus_one" in complete.out
        )
    before = bytes_of(Path("outputs"))
    assert "skipped" not in cli(*line, "overwrite=true").out
    assert (
        all(path.stat().st_mtime_ns > stamp for path, stamp in stamps.items()) and bytes_of(Path("outputs")) == before
    )


def test_duplicates_are_one_run(cli, model):
    assert cli(*model, *SMALL, "task=plus_one", "-m", "seed=0,0").status == 0
    assert len(runs_below(Path("outputs"))) == 1


def test_a_sweep_of_ones_own_is_a_grid_under_its_own_name(cli, model):
    Path("mine/sweep").mkdir(parents=True)
    Path("mine/sweep/pair.yaml").write_text(
        "# @package _global_\nname: pair\nsweep: pair\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      init: cat,dog\n"
    )
    outcome = cli("--config-dir", "mine", *model, *SMALL, "task=plus_one", "sweep=pair")
    assert outcome.status == 0, outcome.err
    assert [run.name.split("-")[2] for run in runs_below(Path("outputs/pair"))] == ["cat", "dog"]
    assert outcome.out.rstrip().endswith("results: outputs/pair/")


def test_choices_of_ones_own_are_found_from_python_as_from_the_command_line(cli, model, tmp_path, monkeypatch):
    mine = tmp_path / "it's [mine], a=b"
    (mine / "task").mkdir(parents=True)
    (tmp_path / "pairs.csv").write_text("in,out\n" + "".join(f"{n},{n + 1}\n" for n in range(20, 60)))
    (mine / "task" / "next_number.yaml").write_text(
        "name: next_number\nversion: 1\nsource:\n  kind: file\n"
        f"  path: {tmp_path / 'pairs.csv'}\n  input: in\n  label: out\nsplit:\n  validation: 0.2\n"
    )
    assert len(pg.task("next_number", config_dir=mine).train) == 25
    run = pg.train(*model, *SMALL, task="next_number", config_dir=mine)
    assert run.info["config"]["task"]["name"] == "next_number"
    again = cli(*model, *SMALL, "task=next_number", "--config-dir", str(mine))
    assert "complete" in again.out, again.err
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pg.task("next_number", config_dir=f"~/{mine.name}").name == "next_number"
    for odd, said in {
        "absent": "absent: no such folder",
        "": "--config-dir '': a folder is needed",
        5: "--config-dir 5: a folder is needed",
        "~nobody-here/x": "is no place that a file can be at",
        "x" * 5000: "is no place that a file can be at",
    }.items():
        with pytest.raises(pg.UserError, match=re.escape(said)):
            pg.train(task="next_number", config_dir=odd)
    with pytest.raises(pg.UserError, match="is given twice, or beside --config-dir"):
        pg.task("next_number", "hydra.searchpath=[]", config_dir=mine)
    back = mine.rename(tmp_path / r"a\b")
    assert pg.task("next_number", config_dir=back).name == "next_number"


def test_a_file_of_ones_own_may_change_keys_of_several_groups(cli, model):
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    folder.joinpath("one.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /task: plus_one\n  - override /init: word\n"
        "init:\n  text: on\ntraining:\n  max_steps: 1\nmodel:\n  revision: 1234567e8\n"
    )
    folder.joinpath("two.yaml").write_text("# @package _global_\ninit:\n  which: 1e3\n")
    folder.joinpath("bare.yaml").write_text("seed: 3\n")
    outcome = cli(*model, *SMALL, "--config-dir", "mine", "+experiment=one", "hydra.job.chdir=true")
    assert outcome.status == 0, outcome.err
    (run,) = runs_below(Path("outputs"))
    config = pg.Run.load(run).info["config"]
    assert (config["task"]["name"], config["init"]["text"], config["training"]["max_steps"]) == ("plus_one", "on", 2)
    assert config["model"]["revision"] == "1234567e8"
    for options, said in {
        "experiment=one": "experiment is a group of your own; write +experiment=<option>",
        "+experiment=on": "experiment=on: no such experiment; nearest: one",
        "+experiment=bare": "experiment/bare.yaml: its first line must be '# @package _global_'",
    }.items():
        assert_refused(cli(*model, "--config-dir=mine", options, "seed=1"), said)
    grid = compose_grid(
        ["+experiment=one,two", "init=word,dog", "hydra.searchpath=[file://mine]", "init.text=a"], multirun=True
    )
    assert [(c.task.name, c.init.name, c.init.which) for c in grid] == [
        ("plus_one", "word", "final"),
        ("plus_one", "dog", "final"),
        ("country_capital", "word", "1e3"),
        ("country_capital", "dog", "1e3"),
    ]


def test_jobs_that_change_into_their_folders_find_the_users_files_and_texts_keep_their_spelling(cli, model):
    Path("my.csv").write_text("input,label\n" + "".join(f"in {i},{'yes' if i % 2 else 'no'}\n" for i in range(10)))
    own = ("task=custom", "task.source.path=my.csv", "task.labels=[no,yes]", r"template.end='\\n\n'", "init=text")
    outcome = cli("hydra.job.chdir=true", *own, "-m", *model, "training.max_steps=1", "init.text=1e3,true", "name=1e5")
    assert outcome.status == 0, outcome.err
    configs = [pg.Run.load(run).info["config"] for run in runs_below(Path("outputs/1e5"))]
    assert sorted(config["init"]["text"] for config in configs) == ["1e3", "true"]
    assert {config["template"]["end"] for config in configs} == {"\\n\n"}
    assert {tuple(config["task"]["labels"]) for config in configs} == {("no", "yes")}


def test_a_task_of_ones_own_is_one_file_and_its_overlap_is_warned_of(cli, model, caplog):
    Path("my.csv").write_text("question,answer\n" + "".join(f"in {i},out {i}\n" * 2 for i in range(10)))
    own = ("task=custom", "task.source.path=my.csv", "task.source.input=question", "task.source.label=answer")
    outcome = cli(*model, "training.max_steps=1", *own)
    assert outcome.status == 0, outcome.err
    (run,) = runs_below(Path("outputs"))
    assert pg.Run.load(run).info["examples"] == {"train": 16, "validation": 0, "test": 4}
    assert any(
        re.fullmatch(r"task my-[0-9a-f]{4}: \d inputs occur in both train and test, for instance 'in \d'", m)
        for m in caplog.messages
    )


def test_python_trains_the_same_run_as_the_command(cli, model, model_folders, monkeypatch):
    cli(*model, *SMALL, "task=plus_one", "init=text", 'init.text="a cat"', "seed=3", "outputs=one")
    fields = {
        "model.name_or_path": str(model_folders["gpt2"]),
        "model.name": "rand",
        "init.text": "a cat",
        "outputs": "two",
    }
    run = pg.train(*SMALL, task="plus_one", init="text", seed=3, **fields)
    assert bytes_of(Path("one")) == bytes_of(Path("two")) and run.folder == runs_below(Path("two"))[0]
    assert run.info["config"]["init"]["text"] == "a cat"
    monkeypatch.undo()
    assert len(pg.task("plus_one", "task.split.max_test=4").test) == 4
    for wrong in ("task.accepted=[[a]]", "task.source.cut=nothing", "task.content_free=N/A", "task.split.test_size=2"):
        with pytest.raises(pg.UserError, match=wrong.partition("=")[0]):
            pg.task("plus_one", wrong)


@pytest.mark.parametrize("text", ["a\nb", 'say "x"', "back\\slash\\", "null", "1e3", "", "a,b", " {input} é\u0085$"])
def test_a_python_text_arrives_as_it_is(text):
    assert _config((), {"init": "text", "init.text": text}).init.text == text
    assert _config((), {"task.labels": [text, "b"]}).task.labels == [text, "b"]


def test_python_values_arrive_as_they_are():
    config = _config(
        ("seed=4",),
        {
            "optimizer.lr": 1e-5,
            "overwrite": True,
            "optimizer.clip": None,
            "optimizer.betas": (0.5, 0.9),
            "prompt.length": 7,
        },
    )
    assert (
        config.seed,
        config.optimizer.lr,
        config.overwrite,
        config.optimizer.clip,
        config.optimizer.betas,
        config.prompt.length,
    ) == (4, 1e-5, True, None, [0.5, 0.9], 7)
    with pytest.raises(pg.UserError, match=r"optimizer\.lr=nan"):
        pg.train(**{"optimizer.lr": float("nan")})


# ------------------------------------------------------------ bad commands


def assert_refused(outcome: SimpleNamespace, *parts: str) -> None:
    """One line on standard error that names these, exit status 2, nothing on standard output."""
    slow = re.compile(r"^promptgeo is .* \.\.\.\n", re.MULTILINE)  # said on a busy machine; no part of the error
    outcome.err = slow.sub("", outcome.err)
    assert (outcome.status, outcome.out) == (2, ""), outcome.err
    assert outcome.err.startswith("promptgeo: ") and outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    for part in parts:
        assert part in outcome.err


BAD = {
    "model=gpt3": ("model=gpt3: no such model; nearest: gpt2",),
    "task=contry_capital": ("task=contry_capital", "nearest: country_capital"),
    "init=cta": ("init=cta", "nearest: cat"),
    "sweep=quikstart": ("sweep=quikstart", "nearest: quickstart"),
    "+sweep=quickstart": ("sweep exists already; write it without +",),
    "task.sourc.path=x": ("task.sourc.path: no such key", "task.source.path"),
    "+foo=1": ("foo: no such key",),
    "--foo": ("--foo", "--help"),
    "seed=abc": ("seed", "'abc'", "Integer"),
    "seed=-1": ("seed=-1",),
    "seed=0,1": ("seed=0,1: several values need -m",),
    "prompt.length=0": ("prompt.length=0",),
    "prompt.length=64": ("prompt.length=64", "64 positions"),
    "optimizer.lr=nan": ("optimizer.lr=nan",),
    "init=text": ("init=text needs a text", "init.text="),
    "init=run init.path=nowhere": ("init.path=nowhere", "run.json"),
    "init=file init.path=nowhere.npy": ("init.path=nowhere.npy: no such file",),
    "init=labels": ("init=labels", "country_capital", "task.labels"),
    f"prompt.length=1 task=toy_cb task.content_free={'x9' * 200}": ("task toy_cb, task.content_free ('", "has 64"),
    f"prompt.length=1 task=toy_cb task.max_input_tokens=40 task.content_free={'x9' * 60}": ("=40 would cut it",),
    "task=custom": ("task.source.path",),
    "task=custom task.source.path=absent.csv": ("absent.csv: no such file",),
    "template=bare": ("template.scoring=token", "example", "tokens"),
    "device=cuda": ("device=cuda",),
    "packing.compile=true device=cpu": ("packing.compile=true: is for CUDA",),
    "packing.max_runs=0": ("packing.max_runs=0: must be a whole number from 1",),
    "logger=wandbb": ("logger=wandbb: must be null, tensorboard or wandb",),
    "logger=[wandb,mlflow]": ("logger=mlflow: must be",),
    "logger=3": ("logger=3: must be",),
    "wandb.mode=sometimes": ("wandb.mode=sometimes: must be online, offline or disabled",),
    "logger=tensorboard": ("logger=tensorboard: needs its package: pip install tensorboard",),
    "--config-dir absent": ("--config-dir absent: no such folder",),
    "--config-name mine": ("--config-name", "--config-dir FOLDER +experiment=mine"),
    # In a grid, after runs that could be trained.
    "-m seed=0,-1": ("seed=-1",),
    "-m task=country_capital,contry_capital": ("contry_capital",),
    "-m init=cat,labels": ("init=labels",),
    "-m hydra/launcher=basic regulariser=orthogonal regulariser.size=1,2 seed=0,1": (
        "hydra/launcher=basic",
        "need hydra/launcher=packed",
    ),
    "-m optimizer.weight_decay=0,1e100": ("optimizer.weight_decay=1e+100",),
    "-m optimizer.betas=[0.9,0.999999999999]": ("optimizer.betas",),
    "outputs='~/x'": ("outputs=~/x: must be a folder, written out",),
    "init.name=" + 260 * "a": ("longer than a file system allows",),
    "name=" + 260 * "a": ("name=aaa", "at most 255 bytes"),
    "-m name=a,b": ("name=a,b: all runs of one command lie in one folder",),
    "sweep=quickstart seed=-1": ("seed=-1",),
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_that_names_it_and_nothing_is_written(cli, model, tmp_path, line, monkeypatch):
    if line == "device=cuda" and torch.cuda.is_available():
        pytest.skip("this machine has the device that the test says is missing")
    if line == "logger=tensorboard":
        monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    assert_refused(cli(*model, *line.split()), *BAD[line])
    assert list(tmp_path.iterdir()) == []


def test_a_choice_of_ones_own_that_has_the_name_of_promptgeos_is_refused(cli, model):
    """Hydra would take promptgeo's, without a word; promptgeo's own folder is no other."""
    Path("mine/init").mkdir(parents=True)
    Path("mine/init/cat.yaml").write_text("name: cat\nkind: word\ntext: dog\n")
    assert_refused(cli(*model, "--config-dir", "mine", "init=dog"), "init/cat.yaml has the name", "init=cat")
    assert not Path("outputs").exists()
    assert cli("--config-dir", conf_dir(), "--cfg", "job").status == 0


def test_no_other_launcher_trains_runs_for_one_another(cli):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher, of the extra dev")
    grid = ("regulariser=orthogonal", "regulariser.size=2", "-m", "seed=0,1")
    assert_refused(cli("hydra/launcher=joblib", *grid), "hydra/launcher=joblib", "need hydra/launcher=packed")
    assert not Path("outputs").exists()


FILES_OF_BAD_DATA = {
    "empty.csv": (b"", "empty.csv: the file is empty"),
    "column.csv": (b"input,answer\na,b\n", "column.csv: example 1 has no column 'label' (it has input, answer)"),
    "label.csv": (b"input,label\na,b\nc,\n", "label.csv: example 2 has nothing in column 'label'"),
    "picture.csv": (b"\x89PNG\r\n\x1a\n\x00", "picture.csv: cannot be read as csv"),
    "cut.json": (b'[{"input": "a"', "cut.json: cannot be read as json"),
    "newline.json": (
        b'[{"input": "a", "label": "b\\nc"}, {"input": "d", "label": "e"}]',
        "its label ('b\\nc') holds the terminator",
    ),
    "long.csv": (b"input,label\na,b\n" + b"cat " * 80 + b",b\n", "example 1 ('cat cat "),
}


@pytest.mark.parametrize("name", FILES_OF_BAD_DATA)
def test_bad_data_is_one_line_that_names_file_or_example_and_nothing_is_written(cli, model, tmp_path, name):
    content, message = FILES_OF_BAD_DATA[name]
    Path(name).write_bytes(content)
    assert_refused(cli(*model, "task=custom", f"task.source.path={name}", "task.split.test_size=0.5"), message)
    assert [path.name for path in tmp_path.iterdir()] == [name]


BAD_PROMPTS = {
    "complex.npy": "complex.npy: final holds complex64; a prompt is made of floating-point numbers",
    "code.pt": "code.pt: holds more than tensors (print)",
    "two.npz": "two.npz: has no tensor 'final'; set init.which to one of a [4, 3], b [4, 3]",
    "narrow.pt": "narrow.pt: has shape [4, 3]; [P, ",
    "pipe.npy": "pipe.npy: is a pipe or a device, not a file",
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_a_prompt_that_cannot_be_read_is_one_line_and_nothing_is_written(cli, model, tmp_path, name):
    numbers = np.ones((4, 3), np.float32)
    code = type("Code", (), {"__reduce__": lambda _: (print, ("run",))})
    {
        "complex.npy": lambda: np.save(name, numbers.astype(np.complex64)),
        "code.pt": lambda: torch.save({"final": torch.from_numpy(numbers), "x": code()}, name),
        "two.npz": lambda: np.savez(name, a=numbers, b=numbers),
        "narrow.pt": lambda: torch.save(torch.from_numpy(numbers), name),
        "pipe.npy": lambda: os.mkfifo(name),
    }[name]()
    assert_refused(cli(*model, "init=file", f"init.path={name}"), f"init.path={BAD_PROMPTS[name]}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_data_than_the_published_is_refused(cli, model, tmp_path):
    Path("country-capital.json").write_text('[{"input": "a", "output": "b"}]')
    assert_refused(
        cli(*model, "task=country_capital", "task.source.kind=function_vectors", "task.source.path=."),
        "country-capital.json: its SHA-256 is",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["country-capital.json"]


def test_a_damaged_run_is_named_before_anything_is_trained_and_kept_as_it_is(cli, model):
    line = (*model, *SMALL, "task=plus_one")
    assert cli(*line).status == 0
    (folder,) = runs_below(Path("outputs"))
    (folder / "metrics.csv").write_text("edited")
    before = {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}
    assert_refused(cli(*line, "-m", "seed=1,0"), f"{folder}/metrics.csv: its SHA-256 is not", "overwrite=true")
    assert {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()} == before
    assert cli(*line, "overwrite=true").status == 0
    assert pg.Run.load(folder).status == "completed"


def test_results_that_could_not_be_written_are_not_computed(cli, model, tmp_path):
    Path("file").write_text("")
    assert_refused(
        cli(*model, "outputs=file/below"),
        "outputs=file/below",
        "is not a folder that can be written to",
        "set outputs=<folder>",
    )
    assert_refused(
        cli(*model, "outputs=.", "name=file/below"),
        "name=file/below",
        "is not a folder that can be written to",
        "set name=<folder>",
    )
    assert_refused(cli(*model, "outputs=/proc/x"), "outputs=/proc/x: /proc is not a folder that can be written to")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("model=gpt2-xl", ("model.name_or_path=openai-community/gpt2-xl", "no network", "model.name_or_path=<folder>")),
        ("model.name_or_path=./absent", ("model.name_or_path=./absent: no such folder",)),
        (
            "task=rotten_tomatoes",
            ("task.source.dataset=cornell-movie-review-data/rotten_tomatoes", "no network", "task.source.path="),
        ),
    ],
)
def test_what_only_a_network_has_says_how_to_give_a_local_copy(cli, model, tmp_path, line, parts):
    assert_refused(cli(*model, line) if line.startswith("task") else cli(line), *parts)
    assert list(tmp_path.iterdir()) == []


def tiny(architecture: str):
    """Models that are no causal language models, saved as the hub has them."""
    import transformers as tf

    text = {
        "vocab_size": 600,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    return {
        "t5": lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=600, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
        ),
        "bert": lambda: tf.BertForMaskedLM(tf.BertConfig(**text, max_position_embeddings=64)),
        "distilbert": lambda: tf.DistilBertForMaskedLM(
            tf.DistilBertConfig(
                vocab_size=600, dim=32, n_layers=1, n_heads=4, hidden_dim=64, max_position_embeddings=64
            )
        ),
        "headless": lambda: tf.LlamaModel(tf.LlamaConfig(**text)),
    }[architecture]()


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("t5", "an encoder-decoder; promptgeo needs a causal language model"),
        ("bert", "a token's prediction depends on later tokens, so this is not a causal language model"),
        ("distilbert", "distilbert has no causal language-model head"),
        ("headless", "the checkpoint lacks lm_head.weight: no causal language-model head was saved with it"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(cli, tokenizer, tmp_path, capsys, architecture, message):
    tiny(architecture).save_pretrained("other")
    tokenizer.save_pretrained("other")
    capsys.readouterr()  # how far saving is
    assert_refused(cli("model.name_or_path=./other"), f"model.name_or_path=./other: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.long
def test_a_model_without_its_tokenizer_or_weights_is_refused(cli, model_folders, tmp_path):
    Path("other").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "other" / name).symlink_to(model_folders["gpt2"] / name)
    assert_refused(cli("model.name_or_path=./other"), "model.name_or_path=./other: its tokenizer cannot be loaded")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "other" / name).symlink_to(model_folders["gpt2"] / name)
    Path("other/model.safetensors").unlink()
    assert_refused(
        cli("model.name_or_path=./other"), "model.name_or_path=./other: no model can be read from this folder"
    )
    Path("other/config.json").unlink()
    assert_refused(cli("model.name_or_path=./other"), "model.name_or_path=./other: ")


# ------------------------------------------------------------ in a process of its own


def process(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "promptgeo.train", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def imported(outcome: subprocess.CompletedProcess) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in outcome.stderr.splitlines() if line.startswith("import time:")}


def test_help_and_cfg_wait_for_no_torch_and_write_nothing(tmp_path):
    shown = process("--help", folder=tmp_path)
    assert shown.returncode == 0 and "model=gpt2-xl task=country_capital init=cat -m seed=0,1,2,3" in shown.stdout
    config = process("--cfg", "job", "task=plus_two", folder=tmp_path)
    assert config.returncode == 0 and "plus_two.csv" in config.stdout
    for outcome in (shown, config):
        assert "promptgeo.config.compose" in imported(outcome)
        assert not {"torch", "transformers", "lightning", "datasets", "pandas"} & imported(outcome)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_this_command_lines_options_and_keys(cli):
    Path("mine/task").mkdir(parents=True)
    Path("mine/task/my_task.yaml").write_text((ROOT / "conf/task/custom.yaml").read_text())
    page = cli("--help", "--config-dir", "mine", "task=plus_two", "-m", "seed=0,1").out
    choices, _, keys = page.partition("== Keys (key=value) ==")
    assert max(map(len, page.splitlines())) <= 120
    offered = dict(re.findall(r"^  (\w+): +((?:.|\n {16,})+)", choices, re.MULTILINE))
    assert "plus_two.csv" in keys and offered["template"] == "bare, chat, input_label, recite, study3"
    assert {"my_task", "plus_one"} < set(re.split(r",\s+", offered["task"]))
    assert "analysis" not in offered  # those are promptgeo-analyze's
    assert "$" not in choices and cli("--help", "tsk=plus_two").status == 2


DOORS = {
    "python -m": "runpy.run_module('promptgeo.{command}', run_name='__main__', alter_sys=True)",
    "console script": "importlib.import_module('{module}').{function}()",
}


@pytest.mark.long
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("command", "line"), [("train", ["--cfg", "job"]), ("reproduce", ["--help"])])
def test_pg_train_is_a_plain_function_also_after_a_command_ran_in_the_process(tmp_path, door, command, line):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts[f"promptgeo-{command}"].partition(":")
    code = f"""
import importlib, runpy, sys, types
sys.argv = ['promptgeo-{command}', *{line}]
try:
    {DOORS[door].format(command=command, module=module, function=function)}
except SystemExit as stop:
    assert not stop.code
assert sys.argv == ['promptgeo-{command}', *{line}]
import promptgeo as pg
assert type(pg.train) is types.FunctionType and type(pg.task) is types.FunctionType
"""
    outcome = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stderr


def test_the_doors_are_imported_by_nobody():
    """Importing promptgeo.train would bind the name that pg.train has to a module."""
    sources = [path for path in (ROOT / "src").rglob("*.py") if "promptgeo" in path.parts]
    door = re.compile(r"(from|import) promptgeo\.(train|reproduce)\b|from promptgeo import [^\n]*\b(train|reproduce)\b")
    assert len(sources) > 50 and not [str(path) for path in sources if door.search(path.read_text(encoding="utf-8"))]


def test_the_package_shows_its_public_names_only():
    assert dir(pg) == sorted(pg.__all__)


def test_a_bad_config_is_refused_when_it_is_only_shown(cli, tmp_path):
    assert_refused(cli("--cfg", "job", "task=contry_capital"), "nearest: country_capital")
    assert cli("--cfg", "job", "init=text").status == 0  # still to be completed


@pytest.mark.long
def test_the_console_script_ends_with_status_2_and_one_line(model, tmp_path):
    script = Path(sys.executable).with_name("promptgeo-train")
    outcome = subprocess.run([script, *model, "init=labels"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert_refused(
        SimpleNamespace(status=outcome.returncode, out=outcome.stdout, err=outcome.stderr),
        "init=labels: task country_capital has no label set",
    )
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_model_is_the_default(cli):
    assert cli(*SMALL).status == 0
    (run,) = runs_below(Path("outputs/adhoc"))
    assert re.fullmatch("tiny-country_capital-cat-s0-[0-9a-f]{8}", run.name)
    assert json.loads((run / "run.json").read_text())["config"]["model"]["name_or_path"] == "tiny"
