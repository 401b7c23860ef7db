"""promptgeo-reproduce: train, analyse, report; twice is once; what goes wrong keeps its exit status."""

import dataclasses
import logging
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from promptgeo.analysis.target import analysis_of
from promptgeo.cli import report as cli_report
from promptgeo.cli import reproduce as cli_reproduce
from promptgeo.cli import train as cli_train
from promptgeo.config import compose
from promptgeo.config.compose_analyze import analysis_file, available
from promptgeo.config.identity import differences
from promptgeo.config.schema import to_dict
from promptgeo.report.study import Study, StudyClaim, load_study, studies
from promptgeo.training.cell import cells_of
from promptgeo.training.interruption import Interrupted
from promptgeo.training.plan import plan

SMALL = (
    "model=tiny",
    "init=cat,dog",
    "task=present_past",
    "training.max_steps=2",
    "task.split.max_train=16",
    "task.split.max_test=2",
    "evaluation.max_new_tokens=2",
    "template.longer_labels=warn",
)

real_compose_grid = compose.compose_grid


@lru_cache
def published():
    """Study 3's whole grid; composing it takes seconds."""
    return real_compose_grid(["sweep=init_vs_task"])


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs promptgeo-reproduce in this process, in an empty folder: status, out, err. Its analyses take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # training sets it; undone at the end
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    of = Study.of
    analyses = {"curves": {}, "init_vs_task": {}, "unheard_of": {}}
    monkeypatch.setattr(Study, "of", lambda *given: dataclasses.replace(of(*given), analyses=analyses, claims={}))
    monkeypatch.setattr(
        compose,
        "compose_grid",
        lambda line, multirun=False: (
            published() if list(line) == ["sweep=init_vs_task"] else real_compose_grid(line, multirun)
        ),
    )

    def run(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stop:
            cli_reproduce.main(arguments)
        for handler in set(root.handlers) - set(before[1]):
            handler.close()
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        out, err = capsys.readouterr()
        return SimpleNamespace(status=stop.value.code or 0, out=out, err=err)

    return run


def stamps(folder: Path) -> dict[str, int]:
    return {
        str(p): p.stat().st_mtime_ns
        for p in (*folder.rglob("run.json"), *folder.rglob("result.json"), *folder.rglob("training.json"))
    }


@pytest.mark.long
def test_it_trains_analyses_and_reports_and_the_second_time_only_reports(command):
    line = ("init_vs_task", *SMALL, "name=mine", "outputs=out")
    first = command(*line)
    assert first.status == 0, first.err
    page = Path("out/mine/report.html")
    html, made = page.read_text(), stamps(Path("out"))
    assert first.out.splitlines()[-1] == f"report: {page}" and len(made) == 4
    assert "curves" in html and "needs runs with at least 2 tasks" in html and "promptgeo has no such analysis" in html
    assert "Not a replication" in html and "gpt2-xl" in html and "for 2 runs" in html
    second = command(*line)
    assert second.status == 0 and "2 of 2 runs, skipped" in second.err and "curves: cached" in second.err
    assert page.read_text() == html and stamps(Path("out")) == made
    cli_report.main(["out/mine"])
    again = page.read_text()
    noted = Path("out/mine/training.json")
    for damage in (noted.read_bytes().replace(b"2", b"3", 1), b"", b"[", b"[]", b'{"runs": 1}', b"\xff", b"[" * 5000):
        noted.write_bytes(damage)
        third = command(*line)
        assert third.status == 0 and "training.json is damaged: how long training took is not known" in third.err
        assert not noted.exists() and "for 2 runs" not in page.read_text()
    assert len(list(noted.parent.glob("training.json.damaged*"))) == 7
    assert "Not a replication" in again and again[again.index('id="differences"') :].count("<code>") > 3


@pytest.mark.long
def test_only_the_grids_own_runs_are_asked(command):
    assert command("init_vs_task", *SMALL).status == 0
    assert command("init_vs_task", *SMALL, "init=cat").status == 0
    assert "<dt>Runs</dt><dd>1</dd>" in Path("outputs/init_vs_task/report.html").read_text()


@pytest.mark.long
def test_a_failed_run_is_named_and_the_status_is_1(command, monkeypatch):
    from promptgeo.training.run_state import RunState

    real = RunState.next_minibatch

    def broken(self):
        if self.plan.config.init.name == "dog":
            raise ValueError("the data is gone")
        return real(self)

    monkeypatch.setattr(RunState, "next_minibatch", broken)
    outcome = command("init_vs_task", *SMALL)
    assert outcome.status == 1 and "failed: ValueError: the data is gone" in outcome.err
    html = Path("outputs/init_vs_task/report.html").read_text()
    assert "<dt>Runs</dt><dd>1</dd>" in html and "tiny-present_past-dog-s0-" in html[html.index("Runs left out") :]


def test_a_stop_keeps_its_status_and_nothing_is_analysed(command, monkeypatch):
    def stopped(arguments):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(cli_train, "train", stopped)
    outcome = command("init_vs_task", *SMALL)
    assert outcome.status == 143 and outcome.err.endswith("stopped by SIGTERM; the same command goes on from here\n")
    assert not list(Path().rglob("report.html"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init_vs_tusk"], "promptgeo: init_vs_tusk: no such study; there are atlas, capacity, composition, "),
        (["quickstart"], "no such study"),
        (["model=tiny"], "model=tiny: the name of a study comes first"),
        (["--preview"], "--preview: the name of a study comes first"),
        (["init_vs_task", "-m"], "-m: key=value is needed"),
        (["init_vs_task", "sweep=quickstart"], "the sweep of a study is its own"),
        (["init_vs_task", "trainin.epochs=1"], "trainin.epochs: no such key; nearest: training.epochs"),
        (["init_vs_task", "model=tiny", "init=cat", "training.epochs=-1"], "training.epochs=-1: must be"),
    ],
)
def test_bad_input_is_one_line(command, arguments, said):
    outcome = command(*arguments)
    lines = [line for line in outcome.err.splitlines() if not line.startswith("promptgeo: 1/3")]
    assert outcome.status == 2 and len(lines) == 1 and said in lines[0], outcome.err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"claims": {"init_mattered": StudyClaim("init_mattered", "words", "place")}},
            "sweeps/init_vs_task.yaml: study.claims.init_mattered: no analysis of this study declares such a claim; "
            "nearest: init_matters",
        ),
        (
            {"analyses": {"init_vs_task": {"permutation": 3}}},
            "analysis.init_vs_task.permutation: no such option; nearest: permutations",
        ),
    ],
)
def test_what_is_wrong_in_a_study_is_found_before_anything_is_trained(command, monkeypatch, changes, said):
    of = Study.of
    monkeypatch.setattr(Study, "of", lambda *given: dataclasses.replace(of(*given), **changes))
    outcome = command("init_vs_task", *SMALL)
    assert outcome.status == 2 and outcome.err.startswith(f"promptgeo: {said}")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", studies())
def test_every_claim_of_every_study_is_declared_by_one_of_its_analyses(name):
    study = load_study(name)
    analyses = [analysis_of(each, analysis_file(each) | options) for each, options in study.analyses.items()]
    study.check_claims([claim for analysis in analyses for claim in analysis.declared.claims])


@pytest.mark.parametrize("name", [name for name in studies() if load_study(name).tiny])
def test_what_a_study_sets_for_the_embedded_model_can_be_trained(name):
    cells = cells_of(real_compose_grid([f"sweep={name}", *load_study(name).tiny, "model=tiny"]))
    for cell in {cell.config.task.name: cell for cell in cells}.values():
        assert plan(cell).total_steps > 0


def test_help_names_the_studies_without_torch():
    code = (
        "import sys; from promptgeo.cli import reproduce; reproduce.main(['--help']); assert 'torch' not in sys.modules"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == 0 and all(f"\n  {name}" in outcome.stdout for name in studies())


@pytest.mark.long
def test_study_3_as_published():
    grid, study = published(), Study.of("init_vs_task", published()[0].study)
    config = grid[0]
    assert len(grid) == 60 and len({(c.init.name, c.task.name) for c in grid}) == 60
    assert (config.model.name, config.precision.name, config.task.source.kind.name) == (
        "gpt2-xl",
        "fp32",
        "function_vectors",
    )
    assert (config.template.name, config.optimizer.lr, config.optimizer.schedule.name) == ("study3", 1e-3, "linear")
    assert (config.prompt.length, config.training.epochs, config.training.batch_size, config.training.dropout) == (
        4,
        50,
        8,
        False,
    )
    assert set(study.analyses) <= set(available())
    numbers = study.published
    table1 = [numbers[f"table1.{c.init.name}"].value for c in {c.init.name: c for c in grid}.values()]
    assert table1 == [0.546, 0.547, 0.528, 0.567, 0.612, 0.544, 0.580, 0.566, 0.506, 0.584]
    assert abs(sum(table1) / 10 - numbers["table1.mean"].value) < 1e-3 and numbers["table1.mean"].implied == 0.583
    tasks = list({c.task.name: 0 for c in grid})
    assert all(numbers[f"accuracy.{end}.{task}"].read_off for task in tasks for end in ("lowest", "highest"))
    for row in tasks:
        diagonal = numbers[f"table3.0.5.{row}.{row}"]
        assert diagonal.value - diagonal.implied == 40, "self-matches"
        assert all(
            numbers[f"table3.0.5.{row}.{column}"].value == numbers[f"table3.0.5.{column}.{row}"].value
            for column in tasks
        )


def test_what_a_study_says_is_no_part_of_its_runs():
    config = compose.compose(["init=cat"])
    with_study = dataclasses.replace(config, study={"title": "t"})
    assert to_dict(with_study) == to_dict(config) and "study" not in to_dict(config)
    assert not differences([to_dict(with_study)], [to_dict(config)])


def test_differences_are_those_that_decide_numbers():
    theirs = [compose.compose([f"init={init}"]) for init in ("cat", "dog")]
    ours = compose.compose(["init=cat", "training.epochs=3", "outputs=elsewhere", "model=gpt2", "optimizer.lr=0.01"])
    assert differences([to_dict(ours)], [to_dict(config) for config in theirs]) == {
        "model.name": (["gpt2"], ["tiny"]),
        "init.name": (["cat"], ["cat", "dog"]),
        "training.epochs": ([3], [10]),
    }
