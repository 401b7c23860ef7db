"""python -m promptgeo.analyze: results are cached, refusals have a reason, nothing is lost."""

import hashlib
import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import promptgeo as pg
from promptgeo.analysis import result as results
from promptgeo.analysis.materials import Materials
from promptgeo.analysis.question import Question
from promptgeo.analysis.target import analysis_of
from promptgeo.analysis.used_code import used_code
from promptgeo.cli import analyze as cli_analyze
from promptgeo.config.compose_analyze import AnalyzeConfig, analysis_file, available, compose_analyze
from promptgeo.runs.folder import METRICS_COLUMNS, Trained, write_run
from promptgeo.tiny import PATH as TINY

OWN = """
import os
import signal
from os import getcwd

import pandas as pd

from promptgeo.analysis import Claim, Convention, Finding, Of, Outcome, Result, question
from promptgeo.analysis.geometry.tokens import tokens
from promptgeo.errors import UserError


@question(of=True, convention=True, claims=("small", "smaller"), zero=("extra",))
def spread(runs, *, of, convention, scale=1.0, extra=8, more=8, trouble=None) -> Result:
    from mypackage.far.indirect import FACTOR

    if trouble == "stop":
        os.kill(os.getpid(), signal.SIGINT)
    if trouble == "fault" and of == "delta":
        raise ZeroDivisionError("no way")
    if trouble == "paper" and convention == "paper":
        raise UserError("the study's way is not known")
    vectors = tokens(runs, of=of).vectors_Kd
    value = scale * FACTOR * float((vectors**2).mean())
    result = Result(tables={"values": pd.DataFrame({"value": [value]})}, figures={"drawing": "<svg/>"})
    number = result.number("spread", value, len(vectors), "tokens", p=0.5)
    result.findings.append(Finding.of(number, f"It spreads over {value:.6f} by the {convention} convention."))
    outcome = Outcome.holds if value < 1 else Outcome.fails
    about = "width" if trouble == "about" else "spread"
    result.claims.append(Claim("tiny" if trouble == "claim" else "small", outcome, "As it is.", quantity=about))
    return result


@question(of=True, claims=("small",))
def half(runs, *, of, scale=1.0) -> Result:
    return spread(runs, of=of, convention=Convention.corrected, scale=scale / 2)


def sizes(runs, scale=1.0, of="prompt", at_most: int | None = 3, at_least: "int | None" = 0) -> Result:
    result = Result()
    number = result.number(f"size.{of}", scale * len(runs), len(runs), "runs", p=0.5)
    result.findings.append(Finding.of(number, f"There are {len(runs)} runs."))
    return result


def model_needed(runs, *, lm, layer=1) -> Result:
    return Result()


def value_needed(runs, *, layer) -> Result:
    return Result()


@question(vocabulary=True)
def no_place_for_it(runs) -> Result:
    return Result()


def _in_order(least, most):
    if least > most:
        raise UserError(f"analysis.ordered.least={least}: is above most={most}")


@question(check=_in_order)
def ordered(runs, *, most=2, least=1) -> Result:
    return sizes(runs)


@question(check=_in_order)
def half_ordered(runs, *, least=1) -> Result:
    return sizes(runs)


def no_analysis(table):
    return table
"""


def header(task: str, init: str, seed: int) -> dict:
    model = {"name": "m", "name_or_path": "m", "revision": None}
    config = {
        "model": model,
        "task": {"name": task},
        "init": {"name": init},
        "template": {"name": "t"},
        "seed": seed,
        "optimizer": {"lr": 0.01},
    }
    return {"id": f"{task}{init}{seed}", "config": config, "precision": "fp32", "fingerprints": {"model": "f"}}


def trained(k: int, width: int = 3, status: str = "completed", p0: bool = True) -> Trained:
    rng = np.random.default_rng(k)
    arrays = {which: rng.normal(size=(2, width)).astype(np.float32) for which in ("initial", "final")}
    if not p0:
        arrays["initial"] = None
    row = dict.fromkeys(METRICS_COLUMNS, 1) | {"split": "test", "loss": 0.5, "accuracy": 0.5, "n": 4}
    score = {"accuracy": {"final": 0.5}, "loss": {"final": 0.5}, "n": 4, "steps": 10, "prompt_length": 2}
    said = [{"prompt": "final", "id": str(k), "correct": k % 2 == 0} for k in range(4)]
    return Trained(
        status,
        **arrays,
        best=arrays["final"],
        trajectory=arrays["final"][None],
        steps=np.array([10]),
        metrics=[row],
        predictions=said,
        results=score,
    )


UNDECLARED = ("sizes", "model_needed", "value_needed", "no_place_for_it", "ordered", "half_ordered")
GRID = [("plus_one", "cat"), ("plus_one", "dog"), ("plus_two", "cat"), ("plus_two", "dog")]


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line of promptgeo-analyze in this process.

    In its folder: a grid of four runs, analyses of one's own in `mypackage`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("mypackage").mkdir()
    Path("mypackage/__init__.py").touch()
    Path("mypackage/own.py").write_text(OWN)
    Path("mypackage/far").mkdir()
    Path("mypackage/far/indirect.py").write_text("from mypackage.far.factors import FACTOR\n")
    Path("mypackage/far/factors.py").write_text("FACTOR = 1.0\n")
    Path("mypackage/far/unrelated.py").touch()
    Path("mine/analysis").mkdir(parents=True)
    own = {"spread": "_about_: how far do they spread?\nscale: 1.0\n"} | dict.fromkeys(UNDECLARED, "")
    for name, options in own.items():
        text = f"# @package analysis.{name}\n_target_: mypackage.own.{name}\n{options}"
        Path(f"mine/analysis/{name}.yaml").write_text(text)
    for k, (task, init) in enumerate(GRID):
        write_run(Path(f"runs/run{k}"), header(task, init, 0), trained(k))
    root = logging.getLogger()
    before = (root.level, root.handlers[:])

    def run(*arguments: str) -> SimpleNamespace:
        status = 0
        try:
            cli_analyze.main(arguments)
        except SystemExit as stop:
            status = stop.code
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        return SimpleNamespace(status=status, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


MINE = ("runs=runs", "--config-dir", "mine", "allow=[mypackage]", "analysis=[spread]")


def stamps(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(Path(folder).iterdir())}


def value_of(prompts: np.ndarray) -> float:
    """By hand: the mean square of all numbers."""
    total, count = 0.0, 0
    for number in prompts.reshape(-1).tolist():
        total, count = total + number * number, count + 1
    return total / count


# ------------------------------------------------------------ answers


def test_an_analysis_of_ones_own_is_asked_of_prompts_and_deltas_by_both_conventions(cli):
    outcome = cli(*MINE)
    assert outcome.status == 0, outcome.err
    prompts = np.stack([trained(k).final for k in range(4)])
    deltas = np.stack([trained(k).final - trained(k).initial for k in range(4)])
    numbers = pd.read_csv("runs/analysis/spread/numbers.csv")
    expected = [
        ("prompt", "paper", prompts),
        ("prompt", "corrected", prompts),
        ("delta", "paper", deltas),
        ("delta", "corrected", deltas),
    ]
    assert [tuple(row) for row in numbers[["of", "convention"]].to_numpy()] == [row[:2] for row in expected]
    assert numbers["value"].tolist() == pytest.approx([value_of(row[2]) for row in expected], rel=1e-6)
    assert numbers["n"].tolist() == [8] * 4
    # By the corrected numbers of prompts; every finding lies in result.json.
    head, answer, _, names, _, row, _, rest = outcome.out.splitlines()
    assert (head, answer) == (cli_analyze.EXPLORATORY, "- Does not hold: “small”.")
    assert [cell.strip() for cell in names.strip("┃").split("┃")] == ["claim", "verdict", "published", "ours", "n"]
    shown = [cell.strip() for cell in row.strip("│").split("│")]
    assert shown == ["small", "does not hold", "-", f"{value_of(prompts):.3g}", "8 tokens"]
    assert rest == "all 2 findings: result.json in the folders of the analyses"
    findings = json.loads(Path("runs/analysis/spread/result.json").read_text())["findings"]
    assert [finding["sentence"] for finding in findings if finding["convention"] == "corrected"] == [
        f"It spreads over {value_of(prompts):.6f} by the corrected convention.",
        f"It spreads over {value_of(deltas):.6f} by the corrected convention.",
    ]
    assert outcome.err.splitlines()[:2] == [
        "spread (1 of 1) ...",
        "spread: prompt, paper ...",
    ] and outcome.err.splitlines()[-1].endswith(" s, runs/analysis/spread/")
    assert sorted(stamps("runs/analysis/spread")) == sorted(
        [
            "numbers.csv",
            "result.json",
            *(
                f"{of}_{by}_{what}"
                for of in ("prompt", "delta")
                for by in ("paper", "corrected")
                for what in ("values.csv", "drawing.svg")
            ),
        ]
    )


def test_an_analysis_without_a_claim_is_answered_beside_one_that_has_claims(cli):
    outcome = cli("runs=runs", "--config-dir", "mine", "allow=[mypackage]", "analysis=[spread,sizes]")
    lines = outcome.out.splitlines()
    assert lines[1] == "- Does not hold: “small”." and "- sizes: There are 4 runs." in lines


def test_findings_of_one_kind_of_vectors_do_not_name_it(cli):
    outcome = cli(*MINE, "of=delta", "convention=corrected", "analysis.spread.scale=2", "where=init == 'cat'")
    deltas = np.stack([trained(k).final - trained(k).initial for k in (0, 2)])
    sentence = f"It spreads over {2 * value_of(deltas):.6f} by the corrected convention."
    assert outcome.out == f"{cli_analyze.EXPLORATORY}\n- {sentence}\n"
    info = json.loads(Path("runs/analysis/spread/result.json").read_text())
    assert (info["runs"], info["options"]) == (2, {"scale": 2})


def test_an_analysis_may_choose_among_the_commands_runs(cli):
    chosen = "++analysis.spread._where_=\"init == 'cat'\"".removeprefix("++")
    outcome = cli(*MINE, "of=delta", "convention=corrected", chosen)
    deltas = np.stack([trained(k).final - trained(k).initial for k in (0, 2)])
    assert f"It spreads over {value_of(deltas):.6f}" in outcome.out, outcome.err
    assert json.loads(Path("runs/analysis/spread/result.json").read_text())["runs"] == 2
    assert "cached" in cli(*MINE, "of=delta", "convention=corrected", chosen).err
    assert "cached" not in cli(*MINE, "of=delta", "convention=corrected").err


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("init == 'pen'", "no run is left for which init == 'pen'"),
        ("colour == 1", "colour == 1: these runs have no column colour"),
    ],
)
def test_a_choice_without_runs_or_columns_is_refused_in_a_line(cli, query, said):
    outcome = cli(*MINE, f'analysis.spread._where_="{query}"')
    assert said in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "where",
    [
        "init == 'cat'",
        "'cat' == init",
        "\"init == 'cat'\"",
        "init in ['cat', 'pen']",
        "init=='cat' and seed<1",
        'init == "cat"',
    ],
)
def test_a_query_needs_no_second_quotes(where):
    assert pd.DataFrame({"init": ["cat", "dog"], "seed": 0}).query(
        compose_analyze([f"where={where}"]).where
    ).index.tolist() == [0]
    assert compose_analyze(["where=null"]).where is None


@pytest.mark.parametrize(
    ("text", "model"), [("tiny", "tiny"), ("org/name-1", "org/name-1"), ('"my model"', "my model"), ("null", None)]
)
def test_a_model_is_a_name_here_and_no_group(text, model):
    assert compose_analyze(["runs=runs", f"model={text}"]).model == model


def test_results_are_cached(cli):
    first = cli(*MINE)
    before = stamps("runs/analysis/spread")
    again = cli(*MINE)
    assert (
        again.status == 0
        and again.out == first.out
        and again.err == "spread: cached (overwrite=true computes it again)\n"
    )
    assert stamps("runs/analysis/spread") == before
    contents = {name: Path("runs/analysis/spread", name).read_bytes() for name in before if name != "result.json"}
    assert "cached" not in cli(*MINE, "overwrite=true").err
    after = stamps("runs/analysis/spread")
    assert all(after[name] > before[name] for name in before)
    assert {name: Path("runs/analysis/spread", name).read_bytes() for name in contents} == contents  # deterministic


CHANGES = ["an option", "the runs", "the code", "the code it imports", "the convention", "the function"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_computed_anew(cli, change):
    cli(*MINE)
    if change == "the runs":
        write_run(Path("runs/run9"), header("plus_one", "cat", 9), trained(9))
    elif change == "the code":
        Path("mypackage/own.py").write_text(OWN.replace("def no_analysis", "def none"))
    elif change == "the code it imports":
        Path("mypackage/far/factors.py").write_text("FACTOR = 2.0\n")
    arguments = {
        "an option": ["analysis.spread.scale=3"],
        "the convention": ["convention=paper"],
        "the function": ["analysis.spread._target_=mypackage.own.half"],
    }.get(change, [])
    outcome = cli(*MINE, *arguments)
    assert outcome.status == 0 and "cached" not in outcome.err
    Path("mypackage/far/unrelated.py").write_text("NUMBER = 1\n")
    assert "cached" in cli(*MINE, *arguments).err


USED = {
    "kind/__init__.py": "",
    "kind/questions/__init__.py": "",
    "kind/questions/asked.py": """
from kind.near import direct
from .. import sideways

def asked(runs):
    import kind.late
""",
    "kind/near/__init__.py": "",
    "kind/near/direct.py": "from kind.far.indirect import NUMBER\n",
    "kind/far/__init__.py": "SIZE = 1\n",
    "kind/far/indirect.py": """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kind import typed
NUMBER = 1
""",
    "kind/sideways.py": "import json\n",
    "kind/late.py": "from promptgeo.analysis.geometry.variance import gower\n",
    "kind/typed.py": "",
    "kind/unrelated.py": "from kind.questions import asked\n",
    "other/__init__.py": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package whose question imports from other folders in many ways."""
    for name, text in USED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_code_of_an_analysis_is_all_that_it_imports(package):
    code = used_code("kind.questions.asked")
    own = {name for name in code if name.startswith("kind")}
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in USED}
    assert own == modules - {"kind.unrelated", "other"}
    assert {"promptgeo.analysis.geometry.variance", "promptgeo.analysis.resampling"} <= set(code)
    assert "promptgeo" not in code and "promptgeo.training.engine" not in code and "json" not in code
    assert "promptgeo" in used_code("promptgeo.analysis.geometry.variance", "promptgeo"), "named, it counts"
    assert not [name for name in sys.modules if name.partition(".")[0] == "kind"], "nothing is imported"


@pytest.mark.parametrize("name", USED)
def test_a_change_of_what_it_imports_changes_its_code_and_no_other(package, name):
    before = used_code("kind.questions.asked")
    (package / name).write_text(f"{USED[name]}# changed\n")
    assert (used_code("kind.questions.asked") == before) == (name in ("kind/unrelated.py", "other/__init__.py"))


def test_bundled_analyses_and_pg_analyze(cli):
    assert inspect.isfunction(pg.analyze)
    answers = pg.analyze(runs=Path("runs"), analysis=["curves"], where="task == 'plus_one'")
    assert [(a.name, a.refused, a.cached) for a in answers] == [("curves", None, False)]
    numbers = answers[0].stored.numbers.set_index("quantity")["value"]
    assert numbers["accuracy.plus_one.cat"] == 0.5 and not any("plus_two" in name for name in numbers.index)
    assert pg.analyze("runs=runs", "analysis=[curves]", where="task == 'plus_one'")[0].cached


def test_results_go_where_they_are_sent(cli):
    assert cli(*MINE, "out=elsewhere").status == 0
    assert Path("elsewhere/spread/result.json").exists() and not Path("runs/analysis").exists()


# ------------------------------------------------------------ what cannot be answered


def test_damaged_unfinished_and_doubled_runs_are_named_and_left_out(cli):
    Path("runs/run1/metrics.csv").write_text("step\n")
    write_run(Path("runs/unfinished"), header("plus_one", "cat", 5), trained(5, status="diverged"))
    write_run(Path("copies/copy"), header(*GRID[0], 0), trained(0))
    outcome = cli(*MINE[1:], "runs=[runs,copies,runs]", "out=out", "convention=corrected", "of=prompt")
    assert outcome.status == 0
    assert "left out: runs/run1/metrics.csv: its SHA-256 is not the one in run.json" in outcome.err
    assert (
        "left out: unfinished: diverged" in outcome.err
        and "left out: copies/copy: is the same run as runs/run0" in outcome.err
    )
    info = json.loads(Path("out/spread/result.json").read_text())
    assert info["runs"] == 3 and len(info["left_out"]) >= 3
    assert pd.read_csv("out/spread/numbers.csv")["value"].item() == pytest.approx(
        value_of(np.stack([trained(k).final for k in (0, 2, 3)])), rel=1e-6
    )


def test_runs_that_cannot_support_an_analysis_get_the_reason_and_the_others_are_done(cli):
    write_run(Path("runs/wide"), header("plus_one", "pen", 0), trained(5, width=4))
    outcome = cli("runs=runs", "--config-dir", "mine", "allow=[mypackage]", "analysis=[spread,sizes]")
    assert outcome.status == 1
    assert (
        "spread: left out: these runs' prompts have different shapes ((2, 3), (2, 4)); choose some with" in outcome.err
    )
    assert not Path("runs/analysis/spread").exists() and Path("runs/analysis/sizes/result.json").exists()
    assert outcome.out == f"{cli_analyze.EXPLORATORY}\n- There are 5 runs.\n"


def test_one_init_alone_is_refused_by_what_compares_inits(cli):
    outcome = cli("runs=runs", "analysis=[init_vs_task]", "where=init == 'cat'")
    assert outcome.status == 1 and outcome.out == "" and not Path("runs/analysis/init_vs_task").exists()
    assert "init_vs_task: left out: needs runs with at least 2 inits; these have 1" in outcome.err


def test_without_p0_the_prompts_are_answered_and_the_deltas_refused(cli):
    for k, (task, init) in enumerate(GRID):
        write_run(Path(f"imported/run{k}"), header(task, init, 1), trained(k, status="imported", p0=False))
    outcome = cli(*MINE[1:], "runs=imported")
    assert outcome.status == 0 and "\n- Does not hold: “small”.\n" in outcome.out
    (omission,) = json.loads(Path("imported/analysis/spread/result.json").read_text())["omissions"]
    assert (
        omission.startswith("of=delta: imported/run0: was imported without P0") and f"spread: {omission}" in outcome.err
    )
    assert set(pd.read_csv("imported/analysis/spread/numbers.csv")["of"]) == {"prompt"}
    before = stamps("imported/analysis/spread")
    refused = cli(*MINE[1:], "runs=imported", "of=delta")
    assert refused.status == 1 and "spread: left out: imported/run0: was imported without P0" in refused.err
    assert stamps("imported/analysis/spread") == before


def test_a_convention_that_is_refused_is_named(cli):
    assert cli(*MINE, "analysis.spread.trouble=paper").status == 0
    assert json.loads(Path("runs/analysis/spread/result.json").read_text())["omissions"] == [
        "convention=paper: the study's way is not known"
    ]


def test_a_failing_analysis_keeps_the_old_results_and_costs_none_of_the_others(cli):
    cli(*MINE)
    before = stamps("runs/analysis/spread")
    outcome = cli(
        "runs=runs",
        "--config-dir=mine",
        "allow=[mypackage]",
        "analysis=[spread,sizes]",
        "analysis.spread.trouble=fault",
    )
    assert (
        outcome.status == 1
        and "spread: left out: failed: ZeroDivisionError: no way (" in outcome.err
        and "own.py:" in outcome.err
    )
    assert stamps("runs/analysis/spread") == before and Path("runs/analysis/sizes/result.json").exists()


def test_a_claim_that_the_function_does_not_declare_is_an_error(cli):
    assert cli(*MINE).status == 0
    before = stamps("runs/analysis/spread")
    outcome = cli(*MINE, "analysis.spread.trouble=claim")
    assert outcome.status == 1 and stamps("runs/analysis/spread") == before
    said = "UndeclaredClaim: spread made the claim tiny, which its @question does not declare (claims: small, smaller)"
    assert f"spread: left out: failed: {said} (" in outcome.err
    outcome = cli(*MINE, "analysis.spread.trouble=about")
    said = "UndeclaredClaim: spread made the claim small about width, which is none of its numbers"
    assert outcome.status == 1 and f"spread: left out: failed: {said} (" in outcome.err


def test_a_function_without_a_declaration_is_given_runs_and_options(cli):
    line = (*MINE[:-1], "analysis=[sizes]")
    assert cli(*line, "analysis.sizes.of=delta", "analysis.sizes.scale=2").out.endswith("- There are 4 runs.\n")
    numbers = pd.read_csv("runs/analysis/sizes/numbers.csv")
    assert numbers["quantity"].tolist() == ["size.delta"] and numbers["value"].tolist() == [8.0]
    assert numbers[["of", "convention"]].isna().all(axis=None)
    assert "cached" in cli(*line, "analysis.sizes.of=delta", "analysis.sizes.scale=2", "of=prompt").err


@pytest.mark.parametrize("option", ["at_most", "at_least"])
def test_an_option_may_be_null_where_its_type_says_so(cli, option):
    line = (*MINE[:-1], "analysis=[sizes]")
    assert cli(*line, f"analysis.sizes.{option}=null").status == 0
    assert json.loads(Path("runs/analysis/sizes/result.json").read_text())["options"] == {option: None}
    refused = cli(*line, f"analysis.sizes.{option}=some")
    assert refused.status == 2 and f"analysis.sizes.{option}=some: must be a whole number from 1" in refused.err
    assert "analysis.sizes.scale=None: must be a finite number" in cli(*line, "analysis.sizes.scale=null").err


def test_a_whole_number_may_be_0_where_that_is_declared(cli):
    assert cli(*MINE, "analysis.spread.extra=0").status == 0
    for option, value in (("more", "10000001"), ("scale", "inf"), ("scale", "nan")):
        assert f"analysis.spread.{option}={value}: must be a" in cli(*MINE, f"analysis.spread.{option}={value}").err
    refused = cli(*MINE, "analysis.spread.more=0")
    assert refused.status == 2 and "analysis.spread.more=0: must be a whole number from 1" in refused.err
    assert "analysis.spread.extra=-1: must be a whole number from 0" in cli(*MINE, "analysis.spread.extra=-1").err


def test_what_a_file_says_of_its_analysis_is_no_option_and_not_in_the_key(cli):
    assert cli(*MINE).status == 0
    assert json.loads(Path("runs/analysis/spread/result.json").read_text())["options"] == {"scale": 1.0}
    file = Path("mine/analysis/spread.yaml")
    file.write_text(file.read_text().replace("how far do they spread?", "something else"))
    assert "cached" in cli(*MINE).err


def test_ctrl_c_is_one_line_and_status_130_and_loses_nothing(cli):
    cli(*MINE)
    before = stamps("runs/analysis/spread")
    handler = signal.getsignal(signal.SIGINT)
    outcome = cli(*MINE, "analysis.spread.trouble=stop")
    assert outcome.status == 130 and outcome.err.splitlines()[-1].startswith(
        "promptgeo: stopped by SIGINT; finished analyses are kept"
    )
    assert (
        "Traceback" not in outcome.err
        and stamps("runs/analysis/spread") == before
        and signal.getsignal(signal.SIGINT) is handler
    )
    assert [p.name for p in Path("runs/analysis").iterdir()] == ["spread"]


@pytest.mark.parametrize("fails", ["half-way", "at the first rename", "at the second rename"])
def test_results_are_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch, fails):
    one, two = (
        results.Result(tables={"t": pd.DataFrame({"a": [1]})}),
        results.Result(tables={"u": pd.DataFrame({"a": [2]})}),
    )
    for result in (one, two):
        result.number("x", result.tables.popitem()[1]["a"][0], 1, "runs")
    folder = tmp_path / "made" / "x"
    results.store(folder, "x", "k1", {}, [({}, one)])

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if fails == "half-way":
            patched.setattr(results.json, "dumps", fail)
        else:
            count = iter((False, True) if fails == "at the second rename" else (True,))
            rename = Path.rename
            patched.setattr(Path, "rename", lambda path, to: fail() if next(count, False) else rename(path, to))
        with pytest.raises(KeyboardInterrupt):
            results.store(folder, "x", "k2", {}, [({}, two)])
    kept = results.read(folder)
    assert kept.info["key"] == "k1" and kept.numbers["value"].tolist() == [1]
    assert [p.name for p in folder.parent.iterdir()] == ["x"]
    folder.rename(folder.with_name(".x.old"))  # as a process leaves it that is killed between the renames
    assert results.store(folder, "x", "k2", {}, [({}, two)]).numbers["value"].tolist() == [2]
    assert [p.name for p in folder.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("out", ["notes", "notes/sub"])
def test_results_below_a_file_are_refused(cli, out):
    Path("notes").write_text("mine")
    outcome = cli(*MINE, f"out={out}")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == f"promptgeo: out={out}: notes is a file; name a folder"
    assert Path("notes").read_text() == "mine"


def test_permutations_that_no_p_below_05_can_come_of_are_refused(cli, tmp_path):
    outcome = cli(f"runs={tmp_path}", "analysis=[init_vs_task]", "analysis.init_vs_task.permutations=18")
    says = "promptgeo: analysis.init_vs_task.permutations=18: must be a whole number from 19 to 1,000,000"
    assert (outcome.status, outcome.err.splitlines()[-1]) == (2, says)


def test_a_table_of_runs_is_no_folder(tmp_path):
    table = pg.RunTable.from_arrays(np.ones((2, 1, 3)), pd.DataFrame({"task": ["a", "b"]}))
    with pytest.raises(pg.UserError, match=r"^runs: a folder of runs is needed, or several, not a RunTable; "):
        pg.analyze(runs=table, analysis=["decoding"])


def test_a_folder_of_ones_own_is_not_replaced(cli):
    Path("notes/spread").mkdir(parents=True)
    Path("notes/spread/thoughts.txt").write_text("mine")
    outcome = cli(*MINE, "out=notes")
    said = (
        "notes/spread: holds thoughts.txt, which no result.json there lists; it would be overwritten; choose another "
    )
    assert outcome.status == 2 and outcome.err == f"promptgeo: {said}place with out=<folder>, or move it away\n"
    assert Path("notes/spread/thoughts.txt").read_text() == "mine"


FIGURE, TABLE = "prompt_paper_drawing.svg", "prompt_paper_values.csv"


def edited(path: Path) -> None:
    digit = re.search(r"\d", path.read_text())[0]
    path.write_text(path.read_text().replace(digit, str((int(digit) + 1) % 10), 1))


def emptied(path: Path) -> None:
    path.write_text("")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def deleted(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [edited, emptied, halved, deleted, a_folder])
@pytest.mark.parametrize("file", ["numbers.csv", "t.csv", "f.svg", "result.json"])
def test_damaged_results_are_known_and_kept(tmp_path, caplog, file, damage):
    folder = tmp_path / "x"
    result = results.Result(tables={"t": pd.DataFrame({"a": [1, 2]})}, figures={"f": "<svg>1</svg>"})
    result.number("x", 1, 1, "runs")
    results.store(folder, "x", "k1", {}, [({}, result)])
    damage(folder / file)
    left = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    if (damage, file) == (deleted, "result.json"):  # whose files these are, nothing says
        with pytest.raises(pg.UserError, match="which no result"):
            results.store(folder, "x", "k2", {}, [({}, result)])
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == left
        return
    with pytest.raises(results.DamagedResult, match=file):
        results.read(folder)
    assert results.store(folder, "x", "k2", {}, [({}, result)]).info["key"] == "k2"
    kept = tmp_path / "x.damaged"
    assert {p.name: p.read_bytes() for p in kept.iterdir() if p.is_file()} == left
    assert f"the damaged results are kept as {kept}" in caplog.text
    halved(folder / "numbers.csv")
    results.store(folder, "x", "k3", {}, [({}, result)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "x.damaged", "x.damaged-2"]


def test_damaged_results_are_computed_again_and_that_is_said(cli):
    cli(*MINE)
    emptied(Path("runs/analysis/spread", FIGURE))
    outcome = cli(*MINE)
    said = f"spread: runs/analysis/spread/{FIGURE}: its SHA-256 is not the one in result.json: the file was changed or "
    assert outcome.status == 0 and f"{said}damaged; it is computed again\n" in outcome.err
    assert "cached" in cli(*MINE).err


def test_every_file_of_a_result_has_its_checksum(cli):
    cli(*MINE)
    folder = Path("runs/analysis/spread")
    checksums = json.loads((folder / "result.json").read_text())["checksums"]
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    assert len(checksums) == 9 and checksums == {k: v for k, v in files.items() if k != "result.json"}


def without_checksums(folder: Path) -> None:
    """As results were written before there were checksums."""
    info = json.loads((folder / "result.json").read_text())
    del info["checksums"], info["sha256"]
    (folder / "result.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")


def test_results_without_checksums_stay_readable_and_are_replaced_when_nothing_else_lies_there(cli):
    cli(*MINE)
    folder = Path("runs/analysis/spread")
    stored = results.read(folder)
    without_checksums(folder)
    old = results.read(folder)
    assert (
        old.numbers.equals(stored.numbers)
        and old.figures == stored.figures
        and old.tables.keys() == stored.tables.keys()
    )
    assert "cached" in cli(*MINE).err
    (folder / "mine.csv").write_text("a")
    refused = cli(*MINE, "overwrite=true")
    assert refused.status == 2 and "spread: holds mine.csv, which no result.json there lists" in refused.err
    (folder / "mine.csv").unlink()
    assert cli(*MINE, "overwrite=true").status == 0 and "checksums" in json.loads((folder / "result.json").read_text())
    without_checksums(folder)
    (folder / TABLE).unlink()
    assert f"{folder}/{TABLE}: is missing; it is computed again" in cli(*MINE).err


@pytest.mark.parametrize(
    "own",
    [
        {"a.csv": "1", "b.svg": "<svg/>"},
        {"a.csv": "1", "result.json": '{"accuracy": 1}'},
        {"result.json": "[1]"},
        {"numbers.csv": "a", "deeper/a.csv": "1"},
    ],
)
def test_a_folder_of_ones_own_with_tables_and_figures_is_not_replaced(cli, own):
    for name, content in own.items():
        path = Path("mydata/spread", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for line in (MINE, (*MINE, "overwrite=true")):
        outcome = cli(*line, "out=mydata")
        assert outcome.status == 2 and outcome.err.count("\n") == 1 and "or move it away" in outcome.err
    assert {str(p.relative_to("mydata/spread")): p.read_text() for p in Path("mydata").rglob("*.*")} == own


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run=runs"], "run: no such key; nearest: runs"),
        (["runs=runs", "training.epochs=3"], "training.epochs: no such key; one of runs, analysis, where, convention,"),
        (["runs=runs", "+of=delta"], "+of=delta: of exists already; write of=<value>"),
        (["runs=runs", "analysis=[curvs]"], "analysis=curvs: no such analysis; nearest: curves"),
        (["runs=runs", "analysis=[qqq]"], "analysis=qqq: no such analysis; one of atlas, bezier, "),
        (
            ["runs=runs", "analysis=[curves]", "analysis.curves.foo=3"],
            "analysis.curves.foo: no such option; one of draws, seed",
        ),
        (
            ["runs=runs", "analysis=[init_vs_task]", "analysis.init_vs_task.permutation=3"],
            "analysis.init_vs_task.permutation: no such option; nearest: permutations",
        ),
        (
            ["runs=runs", "analysis=[init_vs_task]", "analysis.init_vs_task.of=delta"],
            "analysis.init_vs_task.of: no such option; one of ",
        ),
        (
            ["runs=[runs,runs]", "analysis=[curves]"],
            "runs: several folders have no place in common for their results; name one with out=",
        ),
        (
            ["runs=runs", "analysis=[init_vs_task]", "analysis.init_vs_task.permutations=abc"],
            "analysis.init_vs_task.permutations=abc: must be a whole number from 1",
        ),
        (
            ["runs=runs", "analysis=[init_vs_task]", "analysis.init_vs_task.permutations=0"],
            "analysis.init_vs_task.permutations=0: must be a whole number from 1",
        ),
        (
            ["runs=runs", "analysis=[neighbours]", "analysis.neighbours.epsilons=3"],
            "analysis.neighbours.epsilons=3: must be a list",
        ),
        (
            ["runs=runs", "analysis=[neighbours]", "analysis.neighbours.epsilon=x"],
            "analysis.neighbours.epsilon=x: must be a finite number",
        ),
        (
            ["runs=runs", "analysis=[curves]", "analysis.neighbours.seed=3"],
            "analysis.neighbours.seed: analysis neighbours is not chosen; 'analysis=[neighbours]' chooses it",
        ),
        (["runs=runs", "analysis=[curves,atlas]", "analysis.atlas.distance=L2"], "analysis.atlas.distance=L2: must be"),
        (["runs=runs", "analysis=[atlas]", "analysis.atlas.plane=umap"], "analysis.atlas.plane=umap: must be tsne or"),
        (["runs=runs", "analysis=[atlas]", "analysis.atlas.prompt=all"], "analysis.atlas.prompt=all: must be mean or"),
        (
            ["runs=runs", "analysis=[atlas]", "analysis.atlas.perplexity=0"],
            "analysis.atlas.perplexity=0: must be greater than 0",
        ),
        (["runs=runs", "analysis=[atlas]", "analysis.atlas.cluster_size=1"], "analysis.atlas.cluster_size=1: must be"),
        (["runs=runs", "analysis=[atlas]", "analysis.atlas.max_points=4"], "analysis.atlas.max_points=4: must be"),
        (["runs=runs", "analysis=[curves]", "analysis.curves=3"], "analysis.curves=3: options are set one by one"),
        (["runs=runs"], "analysis: name the analyses: 'analysis=["),
        (["analysis=[curves]"], "runs: name the runs' folder, or several: runs=outputs/<name>"),
        (["runs=3", "analysis=[curves]"], "runs: name the runs' folder, or several"),
        (["runs=absent", "analysis=[curves]"], "absent: no such folder"),
        (["runs=mine", "analysis=[curves]"], "mine: no completed runs lie there"),
        (
            ["runs=runs", "analysis=[curves]", "where=init == 'pen'"],
            "runs: no completed runs lie there for which init == 'pen'",
        ),
        (
            ["runs=runs", "analysis=[curves]", "where=colour == 'red'"],
            "where=colour == 'red': these runs have no column colour (a text stands in quotes); "
            "their columns: id, status, model,",
        ),
        (
            ["runs=runs", "analysis=[curves]", "where=task.__class__.__name__ == 'Series'"],
            "where=task.__class__.__name__ == 'Series': task.__class__.__name__ is not read in a condition; ",
        ),
        (["runs=runs", "analysis=[curves]", "of=deltas"], "of=deltas: must be prompt, delta or both"),
        (["runs=runs", "analysis=[curves]", "convention=mine"], "convention=mine: must be paper, corrected or both"),
        (["runs=runs", "analysis=[curves]", "of=prompt,delta"], "of=prompt,delta: takes one value"),
        (["runs=runs", "analysis=[curves]", "overwrite=perhaps"], "overwrite: "),
        (["runs=runs", "analysis=[curves"], "analysis=[curves: cannot be read as key=value"),
        (["runs=runs", "=3"], "=3: has no key"),
        (["runs=runs", "--config-dir", "absent"], "--config-dir absent: no such folder"),
        (["runs=runs", "--verbose"], "unrecognized arguments: --verbose; see promptgeo-analyze --help"),
        (
            [*MINE[:3], "analysis=[spread]"],
            "analysis.spread._target_=mypackage.own.spread: lies outside the allowed packages; "
            "'allow=[mypackage]' allows yours",
        ),
        (
            [*MINE, "analysis.spread._target_=mypackage.own.absent"],
            "analysis.spread._target_=mypackage.own.absent: cannot be imported: ",
        ),
        (
            [*MINE, "analysis.spread._target_=mypackage.own.no_analysis"],
            "analysis.spread._target_=mypackage.own.no_analysis: is not an analysis",
        ),
        (
            [*MINE[:-1], "analysis=[model_needed]"],
            "analysis.model_needed: nothing gives its function the parameter lm; declare it with @question(lm=True)",
        ),
        (
            [*MINE[:-1], "analysis=[value_needed]"],
            "analysis.value_needed: nothing gives its function the parameter layer; "
            "give the parameter a default, or analysis.value_needed.layer=<value>",
        ),
        (
            [*MINE[:-1], "analysis=[no_place_for_it]"],
            "analysis.no_place_for_it: its function declares vocabulary (@question(vocabulary=True)) "
            "but has no parameter vocabulary;",
        ),
        (
            [*MINE[:-1], "analysis=[spread,ordered]", "analysis.ordered.least=3"],
            "analysis.ordered.least=3: is above most=2",
        ),
        (
            [*MINE[:-1], "analysis=[half_ordered]"],
            "analysis.half_ordered: its check has the parameter most, which is none of its own",
        ),
        (
            [*MINE, "analysis.spread._target_=mypackage.own.getcwd"],
            "analysis.spread._target_=mypackage.own.getcwd: comes from ",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2_and_nothing_is_written(cli, caplog, arguments, said):
    outcome = cli(*arguments)
    assert not caplog.records, "what is logged is one more line"
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.err.startswith(f"promptgeo: {said}") and outcome.err.count("\n") == 1
    assert not Path("runs/analysis").exists()


# ------------------------------------------------------------ the model


def model_asked(monkeypatch, runs: pg.RunTable, width: int = 3, fingerprint: str = "f", **keys) -> SimpleNamespace:
    """What is loaded for the runs."""
    from promptgeo.model.frozen_lm import FrozenLM

    loaded = SimpleNamespace(width=width, fingerprint=fingerprint)

    def load(name, **options):
        loaded.name, loaded.options = name, options
        return loaded

    monkeypatch.setattr(FrozenLM, "load", load)
    return Materials(runs, AnalyzeConfig(**keys)).lm


def test_runs_of_one_task_name_with_different_data_are_not_pooled(cli):
    for seed, data in ((0, "aa" * 32), (1, "bb" * 32)):
        other = header("plus_one", "cat", seed)
        other["fingerprints"]["data"] = f"sha256:{data}"
        write_run(Path(f"two/{seed}"), other | {"id": data}, trained(seed))
    outcome = cli("runs=two", "analysis=[curves]")
    assert outcome.status == 2
    assert (
        "task plus_one: these runs have several data sets (aaaaaaaa, bbbbbbbb), which are never pooled" in outcome.err
    )
    assert cli("runs=two", "analysis=[curves,atlas]").status == 2, "one of them pools"
    assert cli("runs=two", "analysis=[curves]", "where=data == 'bbbbbbbb'").status == 0


def test_runs_that_differ_beyond_the_factors_are_answered_apart(cli):
    """Two learning rates: each number, sentence, table and figure is of one of them, and says of which."""
    for k, (task, init) in enumerate(GRID):
        other = header(task, init, 0)
        other["config"]["optimizer"] = {"lr": 0.5}
        write_run(Path(f"runs/fast{k}"), other | {"id": f"fast{k}"}, trained(10 + k))
    outcome = cli(*MINE)
    assert outcome.status == 0
    folder = Path("runs/analysis/spread")
    numbers, table = pd.read_csv(folder / "numbers.csv"), pg.load_runs("runs")
    for rate in (0.01, 0.5):
        own = table.query(f"lr == {rate}")
        chosen = (numbers["group"] == f"lr = {rate}") & (numbers["of"] == "prompt")
        assert len(own) == 4 and numbers.loc[chosen, "value"].to_list() == pytest.approx([value_of(own.prompts())] * 2)
        assert f"small (lr = {rate})" in " ".join(outcome.out.split())
        values = pd.read_csv(folder / f"prompt_paper_lr={rate}_values.csv")
        assert values["group"].to_list() == [f"lr = {rate}"]
    info = json.loads((folder / "result.json").read_text())
    assert {claim["group"] for claim in info["claims"]} == {"lr = 0.01", "lr = 0.5"}
    assert info["files"]["delta_corrected_lr=0.5_drawing"] == {
        "of": "delta",
        "convention": "corrected",
        "group": "lr = 0.5",
        "name": "drawing",
    }


def test_the_runs_say_which_model_is_loaded(cli, monkeypatch):
    runs = pg.load_runs("runs")
    loaded = model_asked(monkeypatch, runs)
    assert (loaded.name, loaded.options) == ("m", {"revision": None, "precision": "fp32", "device": "auto"})
    assert model_asked(monkeypatch, runs, model="there", precision="bf16").name == "there"
    with pytest.raises(pg.UserError, match="model there is not the one that these runs were trained on"):
        model_asked(monkeypatch, runs, fingerprint="g", model="there")
    with pytest.raises(pg.UserError, match="model m has width 5, these prompts 3"):
        model_asked(monkeypatch, runs, width=5)
    other = header("plus_one", "cat", 7)
    other["config"]["model"]["name_or_path"] = other["fingerprints"]["model"] = "other"
    write_run(Path("runs/other"), other, trained(7))
    with pytest.raises(pg.UserError, match="these runs were trained on different models; choose some with where="):
        model_asked(monkeypatch, pg.load_runs("runs"), model="m")


def test_prompts_without_a_model_ask_for_its_name(cli, monkeypatch):
    unknown = header("plus_one", "cat", 7) | {"precision": None, "fingerprints": {"model": None}}
    unknown["config"]["model"] = {"name": None, "name_or_path": None, "revision": None}
    write_run(Path("alone/run"), unknown, trained(7, status="imported"))
    with pytest.raises(pg.UserError, match="imported without their model; name it with model=<hub id or folder>"):
        model_asked(monkeypatch, pg.load_runs("alone"))
    assert model_asked(monkeypatch, pg.load_runs("alone"), model="m").options["precision"] == "auto"


def test_what_a_model_ignores_is_not_known_without_one_but_a_wrong_name_is_an_error(cli):
    unknown = header("plus_one", "cat", 7) | {"precision": None, "fingerprints": {"model": None}}
    unknown["config"]["model"] = {"name": None, "name_or_path": None, "revision": None}
    write_run(Path("alone/run"), unknown, trained(7, status="imported"))
    runs, asks = pg.load_runs("alone"), Question(gauge=True)
    assert Materials(runs, AnalyzeConfig()).given_to(asks) == {"gauge": None}
    with pytest.raises(pg.UserError, match="no such folder"):
        Materials(runs, AnalyzeConfig(model="./nowhere")).given_to(asks)
    tiny = Materials(runs, AnalyzeConfig(model=str(TINY)))
    with pytest.raises(pg.UserError, match="width 256, these prompts 3"):
        tiny.given_to(asks)


# ------------------------------------------------------------ help


def test_help_comes_within_two_seconds_without_torch(tmp_path):
    code = (
        "import sys; from promptgeo.analyze import main; main(['-h']); assert not {'torch', 'pandas'} & {*sys.modules}"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ, timeout=20
    )
    assert shown.returncode == 0, shown.stderr
    assert all(f"\n  {name} " in shown.stdout for name in available())
    for key in AnalyzeConfig.__dataclass_fields__:
        assert f"\n  {key}=" in shown.stdout or f"\n  {key}.project=" in shown.stdout
    assert "field(" not in shown.stdout and "  of=both  " in shown.stdout


def test_what_an_analysis_of_ones_own_needs_is_imported_without_torch():
    names = "Claim, Convention, Finding, Number, Of, Result, question"
    code = f"import sys; from promptgeo.analysis import {names}; question(of=True); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=20).returncode == 0


@pytest.mark.parametrize("name", available())
def test_every_analysis_of_conf_says_what_it_provides_and_its_options_exist(name):
    settings = compose_analyze([f"analysis=[{name}]"]).analysis[name]
    assert settings == analysis_file(name)
    assert settings["_about_"].endswith((".", "?")) and settings["_needs_"] and not settings["_needs_"].endswith(".")
    analysis = analysis_of(name, settings)
    assert analysis.function.__name__ == name and not any(option.startswith("_") for option in analysis.options)


def test_a_gpu_that_is_not_there_is_said_before_anything_is_read(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = cli(f"runs={tmp_path}/nowhere", "analysis=[curves]", "device=cuda")
    assert outcome.status == 2 and "device=cuda: no CUDA device is available here" in outcome.err
