"""An analysis of one's own lies in the folder of --config-dir: it is found from anywhere, and its code counts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_analyze import GRID, header, trained

import promptgeo as pg
from promptgeo.cli import analyze as cli_analyze
from promptgeo.runs.folder import write_run

CODE = """
from promptgeo.analysis import Finding, Result, question
from {module} import {name} as FACTOR

@question()
def length(runs, *, scale=1.0):
    result = Result()
    number = result.number("length", scale * FACTOR * len(runs), len(runs), "runs", 0.0, 99.0)
    result.findings.append(Finding.of(number, f"It is {{number.value:.0f}}."))
    return result
"""
YAML = "# @package analysis.length\n_target_: {target}\n_about_: how long?\nscale: 1.0\n"


@pytest.fixture
def cli(capsys, tmp_path):
    """Runs promptgeo-analyze in this process, with a grid of four runs; mine/ lies where nothing is imported from."""
    for k, (task, init) in enumerate(GRID):
        write_run(tmp_path / f"runs/run{k}", header(task, init, 0), trained(k))

    def run(*arguments: str, mine: str = "mine") -> SimpleNamespace:
        status = 0
        try:
            cli_analyze.main([f"runs={tmp_path / 'runs'}", "--config-dir", str(tmp_path / mine), *arguments])
        except SystemExit as stop:
            status = stop.code
        return SimpleNamespace(status=status, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    return run


def own(
    folder: Path, module: str = "analysis/myquestion.py", target: str = "myquestion.length", factor: int = 2
) -> Path:
    """A folder of one's own: an analysis, and a module that it imports. Returns the latter."""
    (folder / "analysis").mkdir(parents=True, exist_ok=True)
    (folder / "analysis/length.yaml").write_text(YAML.format(target=target))
    (folder / module).parent.mkdir(parents=True, exist_ok=True)
    (folder / module).write_text(CODE.format(module="myfactors", name="FACTOR"))
    (folder / "myfactors.py").write_text(f"FACTOR = {factor}\n")
    return folder / "myfactors.py"


def test_an_analysis_of_ones_own_that_has_the_name_of_promptgeos_is_refused(cli, tmp_path):
    own(tmp_path / "mine")
    (tmp_path / "mine/analysis/length.yaml").rename(tmp_path / "mine/analysis/curves.yaml")
    refused = cli("analysis=curves")
    assert refused.status == 2 and "analysis/curves.yaml has the name of promptgeo's own analysis=curves" in refused.err


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("analysis/myquestion.py", "myquestion.length"),
        ("myquestion.py", "myquestion.length"),
        ("mypack/deep/myquestion.py", "mypack.deep.myquestion.length"),
    ],
)
def test_a_module_beside_its_yaml_or_in_the_folder_is_found_and_what_it_imports_counts(cli, tmp_path, module, target):
    factors, path = own(tmp_path / "mine", module, target), sys.path[:]
    assert cli("analysis=length").out.endswith("- It is 8.\n")
    assert "length: cached" in cli("analysis=length").err
    factors.write_text("FACTOR = 10\n")
    changed = cli("analysis=length")
    assert "cached" not in changed.err and changed.out.endswith("- It is 40.\n")
    (tmp_path / "mine/unused.py").write_text("FACTOR = 1\n")
    assert "length: cached" in cli("analysis=length").err
    assert sys.path == path and not {"myquestion", "myfactors", "mypack"} & {*sys.modules}


def test_another_folder_is_another_analysis_also_in_one_process(tmp_path, cli):
    own(tmp_path / "one"), own(tmp_path / "two", factor=3)
    for folder, length in (("one", 8), ("two", 12), ("one", 8)):
        (answer,) = pg.analyze(runs=str(tmp_path / "runs"), analysis=["length"], config_dir=tmp_path / folder)
        assert not answer.cached and answer.stored.numbers["value"].tolist() == [length]


def test_the_console_script_finds_it_from_any_directory_without_pythonpath(tmp_path, cli):
    own(tmp_path / "mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(pg.__file__).parents[1])}  # of an installed promptgeo: empty
    code = "from promptgeo.cli.analyze import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--config-dir", "../mine", "analysis=length", "runs=../runs"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout.endswith("- It is 8.\n"), done.stderr
    assert json.loads((tmp_path / "runs/analysis/length/result.json").read_text())["options"] == {"scale": 1.0}


def test_what_the_folder_does_not_hold_is_not_allowed(cli, tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "away"))
    (tmp_path / "away/farquestion.py").write_text("def length(runs): raise SystemExit('run')\n")
    own(tmp_path / "mine", target="farquestion.length")
    refused = cli("analysis=length")
    assert refused.status == 2 and "_target_=farquestion.length: lies outside the allowed packages" in refused.err
    assert f"'allow=[farquestion]' allows yours, or put it into {tmp_path}/mine/analysis\n" in refused.err
    # What a module of one's own has from elsewhere is not its own.
    (tmp_path / "mine/analysis/myquestion.py").write_text("from farquestion import length\n")
    refused = cli("analysis=length", "analysis.length._target_=myquestion.length")
    assert refused.status == 2 and "comes from farquestion, which is not an allowed package" in refused.err
    # An environment in the folder is not the user's own code.
    monkeypatch.syspath_prepend(str(tmp_path / "mine/.venv/site"))
    (tmp_path / "mine/.venv/site").mkdir(parents=True)
    (tmp_path / "mine/.venv/site/installed.py").write_text("def length(runs): raise SystemExit('run')\n")
    refused = cli("analysis=length", "analysis.length._target_=installed.length")
    assert refused.status == 2 and "'allow=[installed]' allows yours" in refused.err


def test_a_module_with_the_name_of_another_hides_nothing_and_is_said(cli, tmp_path):
    own(tmp_path / "mine", "analysis/statistics.py", "statistics.length")
    refused = cli("analysis=length")
    said = f"{tmp_path}/mine/analysis/statistics.py has the name of a module that lies elsewhere; rename yours"
    assert refused.status == 2 and refused.err.endswith(f"{said}\n")
