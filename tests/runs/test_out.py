"""Where imported runs are to go: links of the user's own are followed only to their folder, the rest is one line."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_importing import TABLE, cli, prompts  # noqa: F401 - a fixture

from promptgeo import Run, load_runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other links and take fewer names")


def links(name: str) -> list[str]:
    """Links, and what lies at the name that runs are first written to."""
    np.save("p.npy", prompts(3, 2, 5))
    Path("mine").mkdir()
    Path("mine/kept.txt").write_text("kept")
    Path("empty").mkdir()
    Path("loop").symlink_to("loop")
    Path("link").symlink_to("mine")
    Path("to_empty").symlink_to("empty")
    Path(f".{name}.new").symlink_to("mine")
    return sorted(os.listdir())


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (256 * "n", f"out={80 * 'n'}: is no place that a file can be at (File name too long)"),
        (252 * "n", "--out nnn"),
        ("/".join([100 * "n"] * 41), "out=nnn"),
        ("loop", "--out loop: cannot be written"),
        ("loop/x", "--out loop/x: cannot be written (Too many levels of symbolic links)"),
        ("link", "--out link: exists already and holds something else"),
        ("a\0b", "out=a\\x00b: is no place that a file can be at"),
        ("/", "--out /: exists already and holds something else"),
    ],
)
def test_a_place_where_no_runs_can_lie_is_one_line_and_nothing_is_written(cli, out, said):  # noqa: F811
    before = links("out")
    status, shown, error = cli("import", "p.npy", "--table", "table.csv", "--out", out)
    assert (status, shown, error.count("\n")) == (2, "", 1) and error.startswith(f"promptgeo: {said}"), error
    assert len(error) < 300
    assert sorted(os.listdir()) == before and os.listdir("mine") == ["kept.txt"]


def test_a_link_to_an_empty_folder_is_filled_and_one_at_the_temporary_name_is_not(cli):  # noqa: F811
    links("empty")
    for _ in range(2):  # the second time they lie there
        assert cli("import", "p.npy", "--table", "table.csv", "--out", "to_empty")[0] == 0
    assert len(load_runs("empty")) == 3 and Path("to_empty").is_symlink()
    assert os.listdir("mine") == ["kept.txt"] and not os.path.lexists(".empty.new")


def test_names_that_are_no_utf8_are_kept_as_a_text(cli):  # noqa: F811
    odd = b"\xff".decode(errors="surrogateescape")
    np.save(f"p{odd}.npy", prompts(3, 2, 5))
    Path(f"t{odd}.csv").write_text(TABLE)
    assert cli("import", f"p{odd}.npy", "--table", f"t{odd}.csv", "--out", f"out{odd}")[0] == 0
    runs = load_runs(f"out{odd}")
    assert {(run.info["imported"]["file"], run.info["imported"]["table"]) for run in runs.runs} == {
        (r"p\udcff.npy", r"t\udcff.csv")
    }
    assert all(folder.startswith(r"out\udcff/imported-") or "tiny-" in folder for folder in runs.table["folder"])
    assert Run.load(runs.runs[0].folder).info == runs.runs[0].info
