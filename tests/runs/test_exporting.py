"""promptgeo-runs export: PEFT says with an exported prompt what promptgeo says, and what is exported comes back.

Against the real PEFT, on small random models whose tokenizers put a BOS.
"""

import contextlib
import csv
import io
import json
import logging
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import promptgeo as pg
import reference
from conftest import make_config, sharpen, tokenizer_that_writes
from peft_side import Peft
from promptgeo.cli import runs as runs_cli
from promptgeo.config.schema import Bos
from promptgeo.evaluation.evaluate import evaluate
from promptgeo.runs.folder import Run, find_runs, own_digest
from promptgeo.runs.task import task_of

FAMILIES = ("gpt2", "bloom", "llama", "gemma3")
SMALL = (
    "task=plus_two",
    "task.split.max_train=8",
    "task.split.max_test=4",
    "training.max_steps=2",
    "training.checkpoints=1",
    "optimizer.lr=0.05",
    "evaluation.max_new_tokens=4",
    "template.longer_labels=warn",
)


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """family -> a model's folder whose tokenizer puts a BOS."""
    from transformers import AutoModelForCausalLM

    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            folder, tokenizer = tmp_path_factory.mktemp(family) / family, tokenizer_that_writes("<bos>", "$A")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(make_config(family, len(tokenizer)))
            sharpen(model)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = folder
        return made[family]

    return of


@pytest.fixture(scope="module")
def trained(speaking, tmp_path_factory):
    """(family, order) -> a run."""
    made: dict[tuple[str, str], Run] = {}

    def of(family: str, order: str = "auto") -> Run:
        if (family, order) not in made:
            outputs = tmp_path_factory.mktemp("outputs")
            plan = reference.make_plan(speaking(family), outputs, *SMALL, f"template.bos={order}")
            made[family, order] = reference.trained(plan)
        return made[family, order]

    return of


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs promptgeo-runs in an empty folder: (status, out, err)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, str, str]:
        status = 0
        try:
            runs_cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def exported(cli, *arguments) -> str:
    status, said, error = cli("export", *arguments)
    assert status == 0, error
    return said


def back(cli, *files, table="out/table.csv", out="back") -> list[Run]:
    status, _, error = cli("import", *files, "--table", table, "--out", out)
    assert status == 0, error
    return sorted(find_runs(out)[0], key=lambda run: run.info["imported"]["line"])


@pytest.mark.parametrize("order", ["always", "after_prompt", "never"])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_says_with_an_exported_prompt_what_promptgeo_says(cli, trained, speaking, family, order):
    run, base = trained(family, order), speaking(family)
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    peft = Peft(base, Path("out"), special=order == "after_prompt")
    lm, task = pg.FrozenLM.load(str(base), device="cpu"), task_of(run)
    ours = evaluate(lm, torch.from_numpy(run.prompt()[None]), task)
    rows = task.rows(lm, task.test, 4)
    greedy = lm.write(torch.from_numpy(run.prompt()[None]), rows, [0] * len(rows), 4)
    for i, example in enumerate(task.test):
        text = peft.text(task, example)
        assert peft.loss(text, peft.label(task, example)) == pytest.approx(run_loss(ours, i), abs=1e-5)
        assert peft.written(text, 4) == greedy[i]
    (again,) = back(cli, "out")
    assert again.prompt().tobytes() == run.prompt().tobytes()
    assert again.info["config"]["template"] == {"name": "input_label", "bos": order}


def run_loss(evaluation, example: int) -> float:
    """Mean over the label's tokens of one example."""
    return float(evaluation.losses[0, example] / evaluation.tokens[example])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapters_first_row_is_bos_as_the_model_sees_it(cli, trained, speaking, family):
    run, lm = trained(family), pg.FrozenLM.load(str(speaking(family)), device="cpu")
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    rows = safetensors.numpy.load_file("out/adapter_model.safetensors")["prompt_embeddings"]
    assert np.array_equal(rows[0], lm.vocabulary()[lm.bos[0]].numpy()) and np.array_equal(rows[1:], run.prompt())
    scaled = family == "gemma3"
    plain = reference.original(speaking(family)).get_input_embeddings().weight[lm.bos[0]].detach().numpy()
    np.testing.assert_allclose(rows[0], plain * (32**0.5 if scaled else 1), rtol=1e-6)
    config = json.loads(Path("out/adapter_config.json").read_text())
    assert (config["num_virtual_tokens"], config["token_dim"]) == (5, rows.shape[1])
    assert config["base_model_name_or_path"] == str(speaking(family)) and config["revision"] is None


def test_text_of_the_template_before_the_prompt_goes_into_the_adapter_too(cli, speaking, tmp_path):
    written = "template.text='Input {prompt}: {input}:'"
    run = reference.trained(reference.make_plan(speaking("llama"), tmp_path, *SMALL, written))
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    peft, lm, task = (
        Peft(speaking("llama"), Path("out"), special=False),
        pg.FrozenLM.load(str(speaking("llama"))),
        task_of(run),
    )
    before = lm.encode("Input ")
    assert json.loads(Path("out/adapter_config.json").read_text())["num_virtual_tokens"] == 1 + len(before) + 4
    ours = evaluate(lm, torch.from_numpy(run.prompt()[None]), task)
    for i, example in enumerate(task.test):
        text = lm.encode(f": {example.input}:")
        assert peft.loss(text, peft.label(task, example)) == pytest.approx(run_loss(ours, i), abs=1e-5)
    assert back(cli, "out")[0].prompt().tobytes() == run.prompt().tobytes()


def test_the_cards_code_runs_and_says_what_promptgeo_says(cli, trained, speaking):
    run = trained("gemma3")
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    card = Path("out/README.md").read_text()
    task = task_of(run)
    (code,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    code = code.replace('adapter = "."', 'adapter = "out"').replace('"..."', repr(task.test[0].input))
    code = code.replace("max_new_tokens=16", "max_new_tokens=4").replace("do_sample", "pad_token_id=0, do_sample")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    lm = pg.FrozenLM.load(str(speaking("gemma3")), device="cpu")
    (tokens,) = lm.write(torch.from_numpy(run.prompt()[None]), task.rows(lm, task.test[:1], 4), [0], 4)
    assert said.getvalue() == lm.tokenizer.decode(tokens) + "\n"
    accuracy = run.info["results"]["accuracy"]["final"]
    assert f"| with the final prompt | {accuracy:.3f} |" in card and "accuracy on 4 examples of the test split" in card
    for fact in (
        "task | plus_two",
        "template | input_label",
        "init | cat",
        "seed | 0",
        f"base model | {speaking('gemma3')}",
    ):
        assert f"| {fact} |" in card


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_changes_what_peft_says_but_of_a_model_with_alibi(cli, trained, speaking, family):
    """As the card says; right padding does not."""
    run = trained(family)
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    peft, task = Peft(speaking(family), Path("out"), special=False), task_of(run)
    text, label = peft.text(task, task.test[0]), peft.label(task, task.test[0])
    alone = peft.loss(text, label)
    assert peft.loss(text, label, right=3) == pytest.approx(alone, abs=1e-5)
    if family == "bloom":
        assert peft.loss(text, label, left=3) == pytest.approx(alone, abs=1e-5)
    else:
        assert abs(peft.loss(text, label, left=3) - alone) > 1e-3


@pytest.fixture
def theirs(speaking, tmp_path):
    """An adapter that PEFT trained itself, BOS behind its prompt."""
    import peft
    from transformers import AutoTokenizer

    base = speaking("llama")
    torch.manual_seed(1)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(reference.original(base), config)
    tokenizer, optimizer = AutoTokenizer.from_pretrained(base), torch.optim.SGD(model.parameters(), lr=1.0)
    for text, label in (("Input: 1\nLabel:", " 3\n"), ("Input: 5\nLabel:", " 7\n")):
        ids, wanted = tokenizer(text)["input_ids"], tokenizer(label, add_special_tokens=False)["input_ids"]
        labels = [-100] * len(ids) + wanted
        optimizer.zero_grad()
        model(input_ids=torch.tensor([ids + wanted]), labels=torch.tensor([labels])).loss.backward()
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs.csv").write_text("task,init\nplus_two,theirs\n")
    return tmp_path / "theirs"


def test_an_adapter_that_peft_trained_scores_here_as_peft_scores_it_and_goes_on_so(
    cli, theirs, speaking, tmp_path, caplog
):
    base = speaking("llama")
    (run,) = back(cli, theirs, table="theirs.csv")
    assert run.info["config"]["template"]["bos"] == "after_prompt"
    peft, lm = Peft(base, theirs, special=True), pg.FrozenLM.load(str(base), device="cpu")
    task = pg.task("plus_two", "task.split.max_test=4", "template.bos=after_prompt")
    ours = evaluate(lm, torch.from_numpy(run.prompt()[None]), task)
    expected = [peft.loss(peft.text(task, e), peft.label(task, e)) for e in task.test]
    np.testing.assert_allclose([run_loss(ours, i) for i in range(4)], expected, rtol=0, atol=1e-5)
    with caplog.at_level(logging.WARNING):
        plan = reference.make_plan(base, tmp_path, *SMALL, "init=run", f"init.path={run.folder}")
    assert "another model" not in caplog.text  # which model it was is not known, so nothing is said of it
    assert plan.config.template.bos is Bos.after_prompt and np.array_equal(plan.p0_Pd.numpy(), run.prompt())
    (bos,) = lm.bos
    assert all(row.ids[:4].tolist() == [-1, -2, -3, bos] for row in plan.train_rows)
    further = reference.trained(plan)
    assert further.info["results"]["loss"]["initial"] == pytest.approx(
        np.average(expected, weights=ours.tokens), abs=1e-5
    )
    # Chosen by hand, it is what was chosen; and a run that starts from this one goes on too.
    other = reference.make_plan(base, tmp_path, *SMALL, "init=run", f"init.path={run.folder}", "template.bos=always")
    assert other.config.template.bos is Bos.always and other.id != plan.id
    third = reference.make_plan(base, tmp_path, *SMALL, "init=run", f"init.path={further.folder}")
    assert third.config.template.bos is Bos.after_prompt
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    assert back(cli, "out", out="again")[0].prompt().tobytes() == run.prompt().tobytes()
    rows = [
        safetensors.numpy.load_file(f / "adapter_model.safetensors")["prompt_embeddings"] for f in (theirs, Path("out"))
    ]
    assert np.array_equal(*rows)


def test_where_the_tokenizer_puts_no_bos_a_prompt_of_peft_goes_on_as_any_other(cli, theirs, model_folders, tmp_path):
    (run,) = back(cli, theirs, table="theirs.csv")
    plan = reference.make_plan(model_folders["llama"], tmp_path, *SMALL, "init=run", f"init.path={run.folder}")
    assert plan.config.template.bos is Bos.never


def test_an_exported_prompt_trains_on_from_its_file_or_from_its_import(cli, trained, speaking, tmp_path):
    run = trained("llama")
    exported(cli, run.folder, "--to", "peft", "--out", "out")
    exported(cli, run.folder, "--to", "npy", "--out", "arrays")
    (again,) = back(cli, "out")
    starts = {
        "run": again.folder,
        "file": tmp_path / "out/adapter_model.safetensors",  # without the row that is BOS
        "npy": tmp_path / f"arrays/{run.folder.name}.npy",
    }
    finals = []
    for kind, path in starts.items():
        init = "init=run" if kind == "run" else "init=file"
        plan = reference.make_plan(speaking("llama"), tmp_path / kind, *SMALL, init, f"init.path={path}")
        assert plan.p0_Pd.numpy().tobytes() == run.prompt().tobytes() and plan.config.template.bos is Bos.always
        finals.append(reference.trained(plan).info["results"]["loss"]["initial"])
    assert finals == pytest.approx([run.info["results"]["loss"]["final"]] * 3, abs=1e-9)


@pytest.mark.parametrize("to", ["npy", "safetensors", "pt"])
def test_files_of_arrays_come_back_with_all_checkpoints(cli, trained, to):
    runs = [trained("llama"), trained("gpt2", "after_prompt")]
    exported(cli, *(run.folder for run in runs), "--to", to, "--checkpoints", "--out", "out")
    again = back(cli, *sorted(Path("out").glob(f"*.{to}")))
    for run, imported in zip(runs, again, strict=True):
        names = {"initial", "final", "trajectory", "steps"} | ({"best"} if to != "npy" else set())
        assert set(imported.tensors) == names
        for name in names:
            assert imported.tensors[name].tobytes() == run.tensors[name].tobytes()
        old, new = run.row(), imported.row()
        for key in ("task", "init", "template", "seed", "n", "steps", "accuracy_final", "prompt_length"):
            assert new[key] == old[key]
        assert imported.info["config"]["template"]["bos"] == run.info["config"]["template"]["bos"]
        assert imported.info["config"]["model"]["name_or_path"] == run.info["config"]["model"]["name_or_path"]


def test_each_kind_of_file_holds_what_its_users_expect(cli, trained):
    run = trained("llama")
    for to in ("npy", "safetensors", "pt"):
        exported(cli, run.folder, "--to", to, "--out", to)
    name = run.folder.name
    assert np.array_equal(np.load(f"npy/{name}.npy"), run.prompt()) and np.load(f"npy/{name}.npy").shape == (4, 32)
    loaded = torch.load(f"pt/{name}.pt", weights_only=True)
    assert {key: tuple(value.shape) for key, value in loaded.items()} == dict.fromkeys(
        ("final", "initial", "best"), (4, 32)
    )
    assert set(safetensors.numpy.load_file(f"safetensors/{name}.safetensors")) == {"final", "initial", "best"}
    exported(cli, run.folder, "--to", "npy", "--checkpoints", "--out", "all")
    array = np.load(f"all/{name}.npy")
    assert (
        array.shape == (3, 4, 32)
        and np.array_equal(array[0], run.prompt(0))
        and np.array_equal(array[1], run.prompt(1))
    )
    with open("all/table.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["steps"] == "0,1,2" and row["file"] == f"{name}.npy" and float(row["n"]) == 4
    exported(cli, run.folder, "--to", "npy", "--which", "initial", "--out", "p0")
    assert np.array_equal(np.load(f"p0/{name}.npy"), run.prompt(0))


def test_several_runs_and_their_checkpoints_are_adapters_in_folders_of_their_own(cli, trained, speaking):
    runs = [trained("llama"), trained("bloom")]
    exported(cli, *(run.folder for run in runs), "--to", "peft", "--checkpoints", "--out", "out")
    again = back(cli, *(f"out/{run.folder.name}" for run in runs))
    assert [run.prompt().tobytes() for run in again] == [run.prompt().tobytes() for run in runs]
    step = Path("out") / runs[0].folder.name / "step-1"
    Peft(speaking("llama"), step, special=False)
    rows = safetensors.numpy.load_file(step / "adapter_model.safetensors")["prompt_embeddings"]
    assert (
        np.array_equal(rows[1:], runs[0].prompt(1)) and "the checkpoint of step 1" in (step / "README.md").read_text()
    )


@pytest.mark.parametrize("to", ["peft", "npy", "safetensors", "pt"])
def test_the_same_export_is_the_same_bytes_and_is_not_written_twice(cli, trained, to):
    run = trained("llama")
    for out in ("out", "other"):
        exported(cli, run.folder, "--to", to, "--out", out)
    files = {path.relative_to("out"): path for path in Path("out").rglob("*") if path.is_file()}
    assert len(files) >= 2
    assert all(path.read_bytes() == (Path("other") / name).read_bytes() for name, path in files.items())
    stamps = {path: path.stat().st_mtime_ns for path in files.values()}
    exported(cli, run.folder, "--to", to, "--out", "out")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize("there", ["a note beside it", "a changed file", "a file", "a note"])
def test_nothing_that_lies_there_is_overwritten(cli, trained, there):
    run = trained("llama")
    if there == "a file":
        Path("out").write_text("mine")
    elif there == "a note":
        Path("out").mkdir()
        Path("out/note.txt").write_text("mine")
    else:
        exported(cli, run.folder, "--to", "peft", "--out", "out")
        Path("out/note.txt" if there == "a note beside it" else "out/README.md").write_text("mine")
    before = {path: path.read_bytes() for path in [Path("out"), *Path("out").rglob("*")] if path.is_file()}
    status, _, error = cli("export", run.folder, "--to", "peft", "--out", "out")
    assert (status, error.count("\n")) == (2, 1) and "exists already and holds something else" in error
    assert {path: path.read_bytes() for path in [Path("out"), *Path("out").rglob("*")] if path.is_file()} == before


def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(cli, trained, speaking, tmp_path):
    run = trained("llama")
    middle = reference.trained(
        reference.make_plan(speaking("llama"), tmp_path / "a", *SMALL, "template.text='{input}{prompt}:'")
    )
    np.save("p.npy", run.prompt()[None])
    for name, columns, cells in (
        ("no_model", "", ""),
        ("no_bos", ",model", f",{speaking('llama')}"),
    ):
        Path(f"{name}.csv").write_text(f"task,init{columns}\na,cat{cells}\n")
        back(cli, "p.npy", table=f"{name}.csv", out=name)
    moved = tmp_path / "changed"
    shutil.copytree(run.folder, moved)
    info = json.loads((moved / "run.json").read_text())
    info["fingerprints"]["model"] = "sha256:other"
    info["sha256"] = own_digest(info)
    (moved / "run.json").write_text(json.dumps(info))
    shutil.copytree(run.folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "metrics.csv").write_text("")
    Path("empty").mkdir()
    for arguments, said in {
        (middle.folder, "--to", "peft"): "puts the prompt behind the input or repeats it",
        ("no_model", "--to", "peft"): "its model is not known, which an adapter names",
        ("no_bos", "--to", "peft"): "it is not known whether BOS stood before the prompt; import it with a column bos",
        ("no_bos", "--to", "npy", "--which", "best"): "was imported without its best prompt",
        (moved, "--to", "peft"): "is no longer the model that it was trained on",
        ("damaged", "--to", "npy"): "damaged/metrics.csv: its SHA-256 is not the one in run.json",
        ("empty", "--to", "npy"): "empty: no completed or imported run lies there",
        ("nowhere", "--to", "npy"): "nowhere: no such folder",
        (run.folder, "--to", "npy", "--checkpoints", "--which", "best"): "leave --which best out",
        (
            run.folder,
            "--to",
            "npy",
            "--push-to-hub",
            "me/x",
        ): "a repository holds one adapter: give one run and --to peft",
        (run.folder,): "the following arguments are required: --to",
    }.items():
        status, _, error = cli("export", *arguments, "--out", "out")
        assert (status, error.count("\n")) == (2, 1) and said in error, (arguments, error)
        assert not Path("out").exists() and not list(Path().glob(".out*"))
    Path("bos.csv").write_text("task,init,bos\na,cat,front\n")
    status, _, error = cli("import", "p.npy", "--table", "bos.csv", "--out", "x")
    assert status == 2 and "bos.csv, line 2: bos=front: one of always, never, after_prompt is needed" in error


def test_a_dry_run_shows_what_would_be_sent_and_writes_nothing(cli, trained, speaking):
    push = ("--push-to-hub", "me/mine", "--dry-run")
    said = exported(cli, trained("llama").folder, "--to", "peft", "--out", "out", "--base-model", "some/base", *push)
    assert said.startswith("me/mine would get:\n") and 'base_model: "some/base"\nlibrary_name: peft' in said
    files = re.findall(r"^  (\S+)  [\d,]+ bytes$", said, re.MULTILINE)
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors", "table.csv"]
    assert not Path("out").exists() and str(speaking("llama")) not in said


def test_without_a_token_or_a_network_the_hub_is_one_line(cli, trained, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    push = ("export", trained("llama").folder, "--to", "peft", "--out", "out", "--push-to-hub", "me/mine")
    status, _, error = cli(*push)
    assert (status, error.count("\n")) == (2, 1) and "is not on the hub; say its name: --base-model ID" in error
    push += ("--base-model", "some/base")
    status, _, error = cli(*push)
    assert (status, error.count("\n")) == (2, 1) and "there is no token of the hub here" in error
    assert not Path("out").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    status, _, error = cli(*push)  # the tests are offline
    assert (status, error.count("\n")) == (2, 1) and "--push-to-hub me/mine: " in error
    assert "what was exported lies in out" in error and Path("out/README.md").exists()


def test_help_shows_three_examples(cli):
    status, said, _ = cli("export", "--help")
    assert status == 0 and len(re.findall(r"^  promptgeo-runs export ", said, re.MULTILINE)) == 3
