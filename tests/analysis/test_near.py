"""near: the nearest prompts by brute force, what `to` is read as, which runs are compared, and what cannot be asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_analyze import header
from test_atlas import folder_of, prompts_of

import promptgeo as pg
from promptgeo.cli.runs import main
from promptgeo.errors import UserError
from promptgeo.runs.folder import write_run

WIDTH = 256
"""Of tiny's embeddings."""


@pytest.fixture(scope="module")
def tiny():
    return pg.FrozenLM.load("tiny", device="cpu")


def runs_of(place: Path, model: str | None, fingerprint: str | None, width: int = WIDTH, zero: tuple = ()) -> Path:
    """Four runs that say this model; those of `zero` have prompts whose mean tokens are zero."""
    for n in range(4):
        one = header("plus_one", "cat", n)
        one["config"]["model"] = {"name": model, "name_or_path": model if fingerprint else None, "revision": None}
        one |= {"id": f"{place.name}{n}", "fingerprints": {"model": fingerprint}}
        made = prompts_of(n, width)
        if n in zero:
            none = np.zeros_like(made.final)
            made = replace(made, trajectory=np.zeros_like(made.trajectory), final=none, best=none)
        write_run(place / f"run{n}", one, made)
    return place


def refused(capsys, *arguments: str) -> str:
    """The one line that the command says, which ends with exit status 2."""
    with pytest.raises(SystemExit) as stop:
        main(["near", *map(str, arguments)])
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == "" and told.err.count("\n") == 1 and told.err.startswith("promptgeo: ")
    return told.err.removeprefix("promptgeo: ").strip()


def searched(capsys, *arguments: str) -> tuple[list[str], str]:
    """(the lines of the answer, what is said beside it)."""
    main(["near", *map(str, arguments)])
    told = capsys.readouterr()
    return told.out.splitlines(), told.err


def test_near_finds_the_prompts_nearest_to_a_run_and_to_an_array(tmp_path, capsys):
    place = folder_of(tmp_path / "a")
    run = pg.load_runs(place).runs[4]
    found = pg.nearest_prompts(place, run, top=3)
    assert found["run"].iloc[0] == run.folder.name and found["distance"].iloc[0] == 0 and len(found) == 3
    others = pg.nearest_prompts(place, run.prompt(), top=24)
    mean = run.prompt().mean(0).astype(float)
    each = {(r.folder.name, s): r.prompt(s).mean(0) for r in pg.load_runs(place).runs for s in (5, 10)}
    expected = sorted(each, key=lambda key: 1 - each[key] @ mean / np.linalg.norm(each[key]) / np.linalg.norm(mean))
    assert list(zip(others["run"], others["step"], strict=True)) == expected
    assert run.folder.name not in set(pg.nearest_prompts(place, run, other_runs=True)["run"])
    main(["near", str(place), str(run.folder), "--top", "2", "--final", "--where", "task == 'plus_one'"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"nearest to the final prompt of run {run.folder.name}"
    assert lines[0].split() == ["rank", "distance", "run", "task", "init", "step"] and len(lines) == 3
    assert lines[1].split()[:3] == ["1", "0.0000", run.folder.name]
    for arguments, says in (
        (["nothing", "cat"], "nothing: no such folder"),
        ([str(place), str(run.folder), "--top", "0"], "--top 0: at least one"),
        ([str(place), str(run.folder), "--which", "7"], "no checkpoint of step 7"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["near", *arguments])
        assert stop.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize(
    "to", [np.zeros((0, 8)), np.full((3, 8), np.nan), np.ones((2, 2, 8)), np.float32(3), ["a"], None]
)
def test_near_what_is_no_prompt_is_one_line(tmp_path, to):
    with pytest.raises(UserError, match="to= must be a text, a Run, or a prompt: finite numbers"):
        pg.nearest_prompts(folder_of(tmp_path / "a"), to)


def test_near_a_run_that_lies_alone_has_no_other_runs(tmp_path):
    write_run(tmp_path / "a/run0", header("plus_one", "cat", 0), prompts_of(0, 8))
    (run,) = pg.load_runs(tmp_path / "a").runs
    assert len(pg.nearest_prompts(tmp_path / "a", run, top=50)) == 2, "no more than there are"
    with pytest.raises(UserError, match="near: no prompt of another run lies there"):
        pg.nearest_prompts(tmp_path / "a", run, other_runs=True)


# What `to` is read as.


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("a", "near: a: no finished run's folder; name one, or a word or a sentence"),
        ("a/", "near: a/: no finished run's folder"),
        ("a/nope", "near: a/nope: no such folder"),
        ("./nope", "near: ./nope: no such folder"),
        ("a/run0/run.json", "near: a/run0/run.json: no finished run's folder"),
        ("run2", "near: run2: a run's name; name its folder, a/run2"),
        ("tiny-country_capital-cat-s0-81108f54", "near: tiny-country_capital-cat-s0-81108f54: no such folder"),
    ],
)
def test_near_a_place_without_a_run_is_no_text(tmp_path, monkeypatch, capsys, tiny, to, says):
    monkeypatch.chdir(tmp_path)
    runs_of(Path("a"), "tiny", tiny.fingerprint)
    line = refused(capsys, "a", to)
    assert line.startswith(says) and line.endswith("; --text searches for these characters")
    with pytest.raises(UserError, match=r"; text=True searches for these characters$"):
        pg.nearest_prompts("a", to)
    with pytest.raises(UserError) as refusal:
        pg.nearest_prompts("a", Path(to))
    assert "text" not in str(refusal.value), "a Path is a place"
    lines, _ = searched(capsys, "a", to, "--text", "--device", "cpu")
    assert lines[0].startswith("nearest to the ") and repr(to) in lines[0] and len(lines) == 2 + 8


@pytest.mark.parametrize(
    "to", ["either/or", "France", "write the capital of France", "~\0", "~nobody at all", "x" * 300]
)
def test_near_what_is_no_place_is_a_text(tmp_path, capsys, tiny, to):
    runs_of(tmp_path / "a", "tiny", tiny.fingerprint)
    ids = tiny.encode(to)
    found = pg.nearest_prompts(tmp_path / "a", to, device="cpu", top=1)
    what = "the word" if len(ids) == 1 else "the text"
    assert found.attrs["to"].startswith(f"{what} {to[:60]!r}"[:-1])
    assert found.attrs["to"].endswith("'" if len(ids) == 1 else f" of {len(ids)} tokens")


def test_near_a_runs_folder_is_that_run_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(Path("a"))
    run = pg.Run.load("a/run3")
    expected = pg.nearest_prompts("a", run, which=5, other_runs=True)
    for to in ("a/run3", "./a/run3/", str(tmp_path / "a/run3"), Path("a/run3")):
        found = pg.nearest_prompts("a", to, which=5, other_runs=True)
        assert found.equals(expected) and found.attrs["to"] == "the prompt at step 5 of run run3"
    assert pg.nearest_prompts("a", run.prompt()).attrs["to"] == "the given prompt of 3 tokens"


def test_near_a_query_that_is_no_unicode_is_one_line(tmp_path, capsys):
    folder_of(tmp_path / "a")
    assert refused(capsys, tmp_path / "a", "\udcff\udcfe") == r"near: '\udcff\udcfe' is no text in UTF-8"
    for to in ("\ud800", "~\ud800", "a/\ud800"):
        with pytest.raises(UserError, match="is no text in UTF-8"):
            pg.nearest_prompts(tmp_path / "a", to)


# What may be asked.


def test_near_options_of_a_run_are_refused_where_none_is_searched_for(tmp_path, capsys):
    place = folder_of(tmp_path / "a")
    assert refused(capsys, place, "France", "--which", "best").startswith("near: --which best: is of a run, and what")
    assert refused(capsys, place, "France", "--other-runs").startswith("near: --other-runs: is of a run, and what")
    for to in ("France", np.ones(8)):
        with pytest.raises(UserError, match="near: which=nonsense: is of a run"):
            pg.nearest_prompts(place, to, which="nonsense")
        with pytest.raises(UserError, match="near: other_runs=True: is of a run"):
            pg.nearest_prompts(place, to, other_runs=True)
    with pytest.raises(UserError, match="text=True: to= is no text"):
        pg.nearest_prompts(place, np.ones(8), text=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(({"top": top}, f"top={top}: at least one prompt is needed") for top in (2.5, "3", None, 0, -1, True)),
        *(({"where": where}, "where=.*: a condition is needed") for where in (5, ["seed == 0"], b"seed")),
        *(({"device": device}, f"device={device}: must be auto, cpu, cuda") for device in ("tpu", None, 0)),
        *(({"distance": distance}, f"distance={distance}: must be cosine or l2") for distance in ("L2", None)),
        *(({"which": which}, "which=.*: final, best, initial or a step is needed") for which in (2.5, None, [5], -1)),
        ({"model": 5}, "model=5: a hub id or a folder is needed"),
        ({"where": "colour == 1"}, "where=colour == 1: these runs have no column colour"),
    ],
)
def test_near_an_option_that_cannot_be_is_one_line(tmp_path, options, says):
    place = folder_of(tmp_path / "a")
    with pytest.raises(UserError, match=says):
        pg.nearest_prompts(place, place / "run0", **options)


@pytest.mark.parametrize("folders", [None, 5, [], [5], {}, np.ones(2), iter([])])
def test_near_folders_are_places_of_runs(folders):
    with pytest.raises(UserError, match="near: folders= must be a folder of runs, or several"):
        pg.nearest_prompts(folders, "cat")


def test_near_searches_the_runs_of_a_table(tmp_path):
    place = folder_of(tmp_path / "a")
    table = pg.load_runs(place)
    found = pg.nearest_prompts(table.query("seed < 3"), table.runs[0], top=np.int64(50))
    assert set(found["run"]) == {"run0", "run1", "run2"} and len(found) == 6
    assert len(pg.nearest_prompts(iter([place]), table.runs[0], top=50)) == 24
    with pytest.raises(UserError, match="folders= must be a folder of runs"):
        pg.nearest_prompts(pg.RunTable.from_arrays(np.ones((2, 1, 8)), table.table[:2]), table.runs[0])


def test_near_messages_name_options_as_the_command_does(tmp_path, capsys):
    place = folder_of(tmp_path / "a")
    assert refused(capsys, place, place / "run0", "--where", "colour == 1").startswith("--where colour == 1: these")
    assert "no completed runs lie there for which seed > 99" in refused(capsys, place, "x", "--where", "seed > 99")


# Which runs are compared.


def test_near_takes_runs_of_a_task_with_several_data_sets_and_says_so(tmp_path, capsys):
    for name in ("aa", "bb"):
        folder_of(tmp_path / name, data=name)
    lines, said = searched(capsys, tmp_path / "aa", tmp_path / "bb", tmp_path / "aa/run0", "--top", "99")
    assert len(lines) == 2 + 48 and "runs of task plus_one have several data sets (aaaaaaaa, bbbbbbbb)" in said


def test_near_leaves_out_prompts_without_a_direction_and_names_their_runs(tmp_path, capsys, tiny):
    some = runs_of(tmp_path / "some", "tiny", tiny.fingerprint)
    zero = runs_of(tmp_path / "zero", "tiny", tiny.fingerprint, zero=(1, 3))
    lines, said = searched(capsys, zero, some, "France", "--device", "cpu", "--top", "99")
    assert len(lines) == 2 + 12
    way = "a mean token of zero has no direction; --distance l2 compares them"
    assert f"left out: 4 prompts of 2 runs (run1, run3): {way}" in said
    lines, said = searched(capsys, zero, some, "France", "--device", "cpu", "--top", "99", "--distance", "l2")
    assert len(lines) == 2 + 16 and "left out" not in said
    line = refused(capsys, some, zero / "run1")
    assert line.startswith(
        "near: the mean token of the final prompt of run run1 is zero, which has no direction; --dist"
    )
    assert "all mean tokens there are zero" in refused(capsys, zero / "run1", zero / "run3", some / "run0")
    _, said = searched(capsys, zero, zero / "run0", "--where", "seed != 3", "--other-runs")
    assert "2 prompts of 1 run (run1)" in said


def test_near_what_is_not_searched_is_not_told_to_be_left_out(tmp_path, capsys):
    made = prompts_of(0, 8)
    made.trajectory[0] = 0
    write_run(tmp_path / "a/run0", header("plus_one", "cat", 0), made)
    write_run(tmp_path / "a/run1", header("plus_one", "dog", 1), prompts_of(1, 8))
    lines, said = searched(capsys, tmp_path / "a", tmp_path / "a/run0")
    assert len(lines) == 2 + 3 and "1 prompt of 1 run (run0)" in said
    lines, said = searched(capsys, tmp_path / "a", tmp_path / "a/run0", "--other-runs")
    assert len(lines) == 2 + 2 and said == ""


def test_near_a_text_is_of_the_one_model_that_is_known(tmp_path, capsys, tiny):
    """An import of another width, and one of the same width, without a model: the first is left out."""
    known = runs_of(tmp_path / "known", "tiny", tiny.fingerprint)
    other = runs_of(tmp_path / "other", None, None, width=64)
    same = runs_of(tmp_path / "same", None, None)
    lines, said = searched(capsys, known, other, same, "France", "--device", "cpu", "--top", "99")
    assert len(lines) == 2 + 16 and "left out: 4 runs of other models, or of none that is known" in said
    assert "name it with --model <hub id or folder>" in refused(capsys, other, same, "France")
    lines, _ = searched(capsys, other, same, "France", "--device", "cpu", "--model", "tiny", "--top", "99")
    assert len(lines) == 2 + 8
    assert "width 256, these prompts 64" in refused(capsys, other, "France", "--model", "tiny", "--device", "cpu")


@pytest.mark.parametrize(
    ("models", "conditions"),
    [
        ((("m", "sha256:aa"), ("n", "sha256:bb")), ("model == 'm'", "model == 'n'")),
        ((("m", "sha256:aa"), ("m", "sha256:bb")), ("`model.content` == 'aa'", "`model.content` == 'bb'")),
        ((("m", None), (None, None)), ("model == 'm'", "model != model")),
    ],
)
def test_near_the_way_out_of_several_models_works(tmp_path, models, conditions):
    places = [runs_of(tmp_path / name, *model) for name, model in zip("ab", models, strict=True)]
    prompt = prompts_of(0, WIDTH).final
    with pytest.raises(UserError) as refusal:
        pg.nearest_prompts(places, prompt)
    one, other = (f'where="{condition}"' for condition in conditions)
    assert str(refusal.value) == f"near: runs of 2 models lie there; choose one with {one} or {other}"
    for place, condition in zip(places, conditions, strict=True):
        found = pg.nearest_prompts(places, prompt, where=condition, top=99)
        assert found.drop(columns="rank").equals(pg.nearest_prompts(place, prompt, top=99).drop(columns="rank"))
        assert len(found) == 8


def test_near_several_models_are_told_apart_before_one_is_loaded(tmp_path):
    places = [runs_of(tmp_path / name, f"/absent/{name}", f"sha256:{name}") for name in "ab"]
    with pytest.raises(UserError, match=r"runs of 2 models lie there; choose one with where=\"model == '/absent/a'\""):
        pg.nearest_prompts(places, "France")
    with pytest.raises(UserError, match="/absent/b: no such folder"):
        pg.nearest_prompts([runs_of(tmp_path / "c", None, None, width=64), places[1]], "France")


def test_near_a_run_of_a_model_of_which_none_lies_there_is_one_line(tmp_path):
    one, other = runs_of(tmp_path / "a", "m", "sha256:aa"), runs_of(tmp_path / "b", "m", "sha256:bb")
    with pytest.raises(UserError, match="near: no run there is of the model that this run is of"):
        pg.nearest_prompts(one, other / "run0")


@pytest.mark.long
def test_near_a_word_is_by_its_own_embedding(tmp_path):
    lm = pg.FrozenLM.load("tiny", device="cpu")
    short = ("training.max_steps=1", "evaluation.every=end", "task.split.max_test=4", "device=cpu", "precision=fp32")
    for init in ("cat", "dog"):
        pg.train(*short, f"outputs={tmp_path}", "task=plus_one", f"init={init}", "task.split.max_train=8")
    found = pg.nearest_prompts(tmp_path, "cat", device="cpu")
    assert found["init"].iloc[0] == "cat"
    (run,) = (each for each in pg.load_runs(tmp_path).runs if each.info["config"]["init"]["name"] == "cat")
    word, mean = lm.vocabulary()[lm.encode("cat")].mean(0).numpy(), run.prompt().mean(0)
    assert found["distance"].iloc[0] == pytest.approx(
        1 - word @ mean / np.linalg.norm(word) / np.linalg.norm(mean), abs=1e-5
    )
