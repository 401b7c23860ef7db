"""promptgeo-runs ask: the command prints what run.generate writes, of one run or several; bad input: status 2."""

import io
import json
import shutil
from types import SimpleNamespace

import pytest

import promptgeo as pg
from promptgeo.cli import runs as runs_cli
from promptgeo.config.paths import EMBEDDED_MODEL
from promptgeo.runs.folder import own_digest

SHORT = ("training.max_steps=20", "evaluation.every=end", "device=cpu", "precision=fp32")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pg.Run:
    return pg.train(*SHORT, f"outputs={tmp_path_factory.mktemp('ask')}", "task=country_capital")


@pytest.fixture(scope="module")
def cb(tmp_path_factory) -> pg.Run:
    line = ["task=toy_cb", "training.max_steps=1", "task.split.max_test=4"]
    return pg.train(*SHORT, f"outputs={tmp_path_factory.mktemp('ask')}", *line)


@pytest.fixture
def ask(capsys, monkeypatch):
    """Runs promptgeo-runs ask: (status, out, err). lines: what standard input gives, a pipe unless it is a terminal."""

    def asked(*arguments: object, lines: str = "", terminal: bool = False) -> SimpleNamespace:
        stdin = io.StringIO(lines)
        stdin.isatty = lambda: terminal
        monkeypatch.setattr("sys.stdin", stdin)
        status = 0
        try:
            runs_cli.main(["ask", *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines(True) if not line.startswith("promptgeo is ")]  # on a busy machine
        return SimpleNamespace(status=status, out=out, err="".join(said))

    return asked


def test_it_prints_what_generate_writes(run, ask):
    assert ask(run.folder, "France").out == f"{run.generate('France').strip()}\n"
    inputs = ["France", "Japan"]
    texts = [text.strip() for text in run.generate(inputs, "initial")]
    assert ask(run.folder, *inputs, "--which", "initial").out == f"France\t{texts[0]}\nJapan\t{texts[1]}\n"
    assert (
        ask(run.folder.parent, "France", "--max-new-tokens", 1).out.strip()
        == run.generate("France", max_new_tokens=1).strip()
    )


def test_lines_of_a_pipe_and_of_a_terminal_are_inputs_until_they_end(run, ask):
    texts = "".join(f"{text.strip()}\n" for text in run.generate(["France", "Japan"]))
    piped = ask(run.folder, lines="France\n\nJapan")
    assert (piped.status, piped.out, piped.err) == (0, texts, "")
    typed = ask(run.folder, lines=f"France\n{'word ' * 600}\nJapan\n", terminal=True)
    assert (typed.status, typed.out) == (0, texts)
    hint, refused = typed.err.splitlines()
    assert hint == "promptgeo: one input a line; Ctrl-D ends" and "give a shorter input" in refused


def test_samples_and_next_tokens_are_those_of_the_run(run, ask):
    drawn = run.generate("Peru", samples=3, temperature=2.0, seed=4)
    shown = ask(run.folder, "Peru", "--sample", 3, "--temperature", 2, "--seed", 4)
    assert shown.out.splitlines() == [text.strip().replace("\n", "\\n") for text in drawn]
    (one,) = ask(run.folder, "Peru", "--temperature", 2, "--seed", 4).out.splitlines()
    assert one == drawn[0].strip()
    text, *tokens = ask(run.folder, "Peru", "--top", 2).out.splitlines()
    assert text == run.generate("Peru").strip()
    assert tokens == [f"  {token.probability:.4f}  {token.text!r}" for token in run.next_tokens("Peru", k=2)]


def test_a_task_of_several_columns_takes_them_by_name(cb, ask):
    columns = {"premise": "Kim says that the dog is wet.", "hypothesis": "The dog is wet."}
    shown = ask(cb.folder, '{"premise": "Kim says that the dog is wet.", "hypothesis": "The dog is wet."}')
    assert shown.out == f"{cb.generate(columns).strip()}\n"
    assert "it needs premise, hypothesis" in ask(cb.folder, '{"premise": "Kim"}').err


def test_a_model_that_lies_elsewhere_is_named(run, ask, gpt2, tmp_path):
    shutil.copytree(EMBEDDED_MODEL, tmp_path / "moved")
    assert ask(run.folder, "France", "--model", tmp_path / "moved").out == ask(run.folder, "France").out
    other = ask(run.folder, "France", "--model", gpt2.name)
    assert other.status == 2 and "name that one with --model <folder>" in other.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["word " * 600], "give a shorter input or a lower max_new_tokens"),
        (["France", "--which", "last"], "which=last: one of initial, final, best or a step is needed"),
        (["France", "--which", "99"], "has no checkpoint of step 99"),
        (["France", "--sample", "0"], "samples=0"),
        (["France", "--top", "0"], "k=0"),
        (["France", "--top", "many"], "argument --top: invalid int value: 'many'; see promptgeo-runs ask --help"),
        (["France", "--model", "./nowhere"], "model.name_or_path=./nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, ask, arguments, said):
    outcome = ask(run.folder, *arguments)
    assert (outcome.status, outcome.out) == (2, "") and said in outcome.err and outcome.err.count("\n") == 1


@pytest.fixture(scope="module")
def sweep(run, tmp_path_factory) -> list[pg.Run]:
    """Four runs of one folder: two tasks by two seeds; the first is `run`."""
    outputs = tmp_path_factory.mktemp("sweep")
    shutil.copytree(run.folder, outputs / "adhoc" / run.folder.name)
    for task, seed in (("country_capital", 1), ("present_past", 0), ("present_past", 1)):
        pg.train(*SHORT, f"outputs={outputs}", f"task={task}", f"seed={seed}")
    return pg.load_runs(outputs).runs


def test_several_runs_answer_below_one_another_each_beside_what_tells_it_apart(sweep, ask):
    inputs = ["France", "walk"]
    names = [("country_capital", "0"), ("country_capital", "1"), ("present_past", "0"), ("present_past", "1")]
    rows = ["  task             seed"]
    for text in inputs:
        written = [run.generate(text).strip() for run in sweep]
        rows += [text, *(f"  {task:15}  {seed:4}  {w}" for (task, seed), w in zip(names, written, strict=True))]
    folder = sweep[0].folder.parent
    asked = ask(folder, *inputs)
    assert (asked.status, asked.out.splitlines(), asked.err) == (0, rows, "")
    assert ask(folder, lines="France\nwalk\n").out == ask(*(run.folder for run in sweep), *inputs).out == asked.out
    chosen = [f"  {names[r][0]:15}  {sweep[r].generate('France').strip()}" for r in (1, 3)]
    only = ask(folder, "France", "--where", "seed == 1", "--status", "completed")
    assert only.out.splitlines() == ["  task", "France", *chosen]
    typed = ask(folder, lines="France\n", terminal=True)
    assert typed.out.splitlines() == [rows[0], *rows[2:6]]


def test_samples_and_next_tokens_of_several_runs_stand_beneath_each(sweep, ask):
    shown = ask(sweep[1].folder, sweep[3].folder, "Peru", "--sample", 2, "--temperature", 2, "--top", 1)
    rows = ["  task", "Peru"]
    for run, task in ((sweep[1], "country_capital"), (sweep[3], "present_past")):
        first, second = (text.strip().replace("\n", "\\n") for text in run.generate("Peru", samples=2, temperature=2.0))
        (token,) = run.next_tokens("Peru", k=1)
        blank = " " * 19
        rows += [f"  {task:15}  {first}", blank + second, f"{blank}  {token.probability:.4f}  {token.text!r}"]
    assert shown.out.splitlines() == [row.rstrip() for row in rows]


def test_runs_that_no_key_tells_apart_are_named_by_their_folders(run, ask, tmp_path):
    folders = [shutil.copytree(run.folder, tmp_path / name / run.folder.name) for name in ("a", "b")]
    answer = run.generate("France").strip()
    assert ask(tmp_path, "France").out.splitlines()[2:] == [f"  {folder}  {answer}" for folder in folders]


def test_of_several_runs_those_that_cannot_be_asked_are_left_out_which_is_said(sweep, ask, tmp_path):
    for run in sweep[:3]:
        shutil.copytree(run.folder, tmp_path / run.folder.name)
    (tmp_path / sweep[0].folder.name / "prompts.safetensors").write_bytes(b"")
    asked = ask(tmp_path, "France")
    assert asked.status == 0 and len(asked.out.splitlines()) == 4
    assert asked.err.startswith("promptgeo: left out: ") and sweep[0].folder.name in asked.err
    nothing = ask(tmp_path, "France", "--which", "99")
    assert (nothing.status, nothing.out) == (2, "") and "has no checkpoint of step 99" in nothing.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprints": {"model": "another"}}, "on different models; choose some with --where \"model == '...'\""),
        ({"precision": "bf16"}, "in different precisions (bf16, fp32); name runs of one of them"),
    ],
)
def test_runs_that_no_one_model_fits_are_not_asked_together(run, ask, tmp_path, changes, said):
    for name in ("a", "b"):
        shutil.copytree(run.folder, tmp_path / name / run.folder.name)
    info = json.loads((run.folder / "run.json").read_text()) | changes
    changed = json.dumps(info | {"sha256": own_digest(info)})
    (tmp_path / "b" / run.folder.name / "run.json").write_text(changed)
    asked = ask(tmp_path, "France")
    assert (asked.status, asked.out) == (2, "") and said in asked.err and asked.err.count("\n") == 1


def test_where_nothing_can_be_asked_a_line_says_so(run, ask, tmp_path):
    assert "no run of these is chosen" in ask(run.folder, "France", "--where", "seed == 7").err
    (tmp_path / "empty").mkdir()
    assert "no finished run lies there" in ask(tmp_path / "empty", "France").err
    assert "no such folder" in ask(tmp_path / "nothing", "France").err
    assert ask(run.folder).err == "promptgeo: there is no input: none was given, and standard input is empty\n"
    wrong = ask(run.folder, "France", "--which", "P0")
    assert wrong.status == 2 and wrong.err.strip().endswith("; none asks without a prompt")
    assert "required: RUN;" in ask().err


def test_help_shows_three_examples(ask):
    shown = ask("--help")
    assert shown.status == 0
    assert sum(line.startswith("    promptgeo-runs ask ") for line in shown.out.splitlines()) == 3
