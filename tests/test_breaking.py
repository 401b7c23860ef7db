"""Does benchmarks/break.py break nothing, and would it notice?"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from breaking import full_disk
from breaking.command import changes, contents, run

BREAK = Path(__file__).parents[1] / "benchmarks" / "break.py"


@pytest.mark.long
def test_the_short_campaign_breaks_nothing(tmp_path):
    report = tmp_path / "break.json"
    command = [sys.executable, BREAK, "--short", "--out", report]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    kinds = json.loads(report.read_text(encoding="utf-8"))["kinds"]
    assert set(kinds) == {"inputs", "damage", "full disks", "kills"}
    assert all(kind["tried"] >= 3 and kind["broken"] == 0 for kind in kinds.values())


def fails(line):
    raise KeyError("fault")


def hangs(line):
    time.sleep(60)


def says_nothing(line):
    sys.exit(2)


@pytest.mark.parametrize(
    ("main", "problems"),
    [
        (print, []),
        (fails, ["status 1, not 0", "its output has 'Traceback (most recent call last)'"]),
        (hangs, ["hangs: still running after"]),
        (says_nothing, ["status 2, not 0", "nothing says why it failed"]),
    ],
)
def test_how_a_command_ends_is_noticed(main, problems, tmp_path):
    found = run(main, ["a"], tmp_path, limit=0.1 if main is hangs else 60.0).problems((0,))
    assert len(found) == len(problems)
    assert all(wrong.startswith(expected) for wrong, expected in zip(found, problems, strict=True))


def test_whatever_changes_in_a_folder_is_noticed(tmp_path):
    for name in ("same", "changed", "gone"):
        (tmp_path / name).write_text("1")
    before = contents(tmp_path)
    (tmp_path / "changed").write_text("2")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").symlink_to("same")
    assert changes(before, contents(tmp_path)) == [
        f"{tmp_path / 'changed'} changed",
        f"{tmp_path / 'gone'} is gone",
        f"{tmp_path / 'new'} is new",
    ]


def test_from_the_nth_write_on_every_write_fails(tmp_path):
    def writes(line):
        for k in range(4):
            try:
                Path("out", f"{k}").mkdir()
                with Path("out", f"{k}.txt").open("w") as stream:
                    stream.write("text")
                os.replace(f"out/{k}.txt", f"out/{k}.md")
            except OSError as error:
                print(error)
        Path("beside.txt").write_text("not on that disk")

    (tmp_path / "out").mkdir()
    ended = run(writes, [], tmp_path, before=full_disk.Disk(tmp_path / "out", 7).install)
    assert ended.status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "0.md", "1", "1.txt"]
    assert (tmp_path / "out" / "1.txt").read_text() == "", "the folder, the file, then its bytes: the seventh write"
    assert ended.output.count("No space left on device") == 3 and (tmp_path / "beside.txt").exists()
