"""promptgeo-runs ask: the command prints what run.generate writes; bad input is one line and status 2."""

import io
import shutil
from types import SimpleNamespace

import pytest

import promptgeo as pg
from promptgeo.cli import runs as runs_cli
from promptgeo.config.paths import EMBEDDED_MODEL

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


def test_a_folder_of_several_runs_names_them_and_one_without_runs_says_so(run, cb, ask, tmp_path):
    for each in (run, cb):
        shutil.copytree(each.folder, tmp_path / "both" / each.folder.name)
    several = ask(tmp_path / "both", "France")
    assert several.status == 2 and "2 runs lie there; name one: " in several.err and cb.folder.name in several.err
    (tmp_path / "empty").mkdir()
    assert "no finished run lies there" in ask(tmp_path / "empty", "France").err
    assert "no such folder" in ask(tmp_path / "nothing", "France").err


def test_help_shows_three_examples(ask):
    shown = ask("--help")
    assert shown.status == 0
    assert sum(line.startswith("    promptgeo-runs ask ") for line in shown.out.splitlines()) == 3
