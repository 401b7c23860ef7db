"""Is what the system refuses one line and status 1, and does the same command complete once it is mended?"""

import logging
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from test_analyze import cli  # noqa: F401

from breaking.command import changes, contents, run
from breaking.full_disk import Disk, commands, make_ready
from promptgeo.config.explain import refusal
from promptgeo.training.interruption import exit_statuses

COMMANDS = {command.name: command for command in commands()}


@pytest.fixture
def small_files():
    """Within, no file may be larger: a write stops half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_systems_error_is_found_where_an_exception_was_raised_from_it():
    full = OSError(28, "No space left on device", "out/file")
    assert refusal(full) == "out/file: No space left on device"
    try:
        raise ValueError("Unable to configure handler 'file'") from full
    except ValueError as error:
        assert refusal(error) == "out/file: No space left on device"
    try:
        try:
            raise full
        except OSError:
            raise KeyError("a fault in the handler of an error")  # noqa: B904
    except KeyError as error:
        assert refusal(error) is None
    assert refusal(OSError("a library's own words")) is None


def test_a_refusal_is_one_line_and_a_fault_stays_one(capsys):
    with pytest.raises(SystemExit) as end, exit_statuses("do it again"):
        Path("/dev/full").write_text("a")
    assert end.value.code == 1
    assert capsys.readouterr().err == "promptgeo: No space left on device; once that is mended, do it again\n"
    with pytest.raises(KeyError), exit_statuses():
        raise KeyError("fault")
    assert logging.raiseExceptions


def test_standard_output_that_is_full_is_one_line():
    with Path("/dev/full").open("w") as full:
        command = (
            [sys.executable, "-m", "promptgeo.train", "--version"],
            [sys.executable, "-m", "promptgeo.cli.runs", "."],
        )
        ended = [
            subprocess.run(each, stdout=full, stderr=subprocess.PIPE, text=True, check=False) for each in command[1:]
        ]
    assert [each.returncode for each in ended] == [1]
    assert [each.stderr.count("\n") for each in ended] == [1] and "No space left on device" in ended[0].stderr


def test_results_that_cannot_be_stored_leave_the_earlier_ones(cli, small_files):  # noqa: F811
    line = ("runs=runs", "analysis=[curves]")
    assert cli(*line).status == 0
    before = contents(Path("runs/analysis"))
    small_files(4000)  # no figure fits
    outcome = cli(*line, "overwrite=true")
    assert outcome.status == 1 and "Traceback" not in outcome.err
    assert outcome.err.count("left out: cannot be stored: ") == 1 and "File too large" in outcome.err
    assert not changes(before, contents(Path("runs/analysis")))


def test_a_place_that_takes_no_results_is_said_before_they_are_computed(cli, monkeypatch):  # noqa: F811
    Path("here").touch()
    outcome = cli("runs=runs", "analysis=[curves]", "out=here")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    outcome = cli("runs=runs", "analysis=[curves]", "out=/proc/mine")
    assert outcome.status == 1 and "out=/proc/mine: /proc is not a folder that can be written to" in outcome.err


@pytest.mark.parametrize("n", [2, 9, 20])
def test_an_import_onto_a_full_disk(n, tmp_path):
    command = COMMANDS["an import"]
    make_ready(command, tmp_path)
    before = contents(tmp_path)
    full = run(command.main, command.line, tmp_path, before=Disk(tmp_path / "out", n).install)
    assert not full.problems((2,)) and "No space left on device" in full.output
    assert not changes(before, contents(tmp_path))
    assert run(command.main, command.line, tmp_path).status == 0
