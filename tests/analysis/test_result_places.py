"""Where an analysis's results lie: nobody's link is followed or lost, every name has its file, odd files are damage."""

import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_analyze import MINE, cli, header, trained  # noqa: F401 - a fixture

import promptgeo as pg
from promptgeo.analysis.result import NUMBERS, DamagedResult, Result, check_replaceable, read, store
from promptgeo.runs.folder import own_digest, write_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other links and take fewer names")
ODD = b"a\xffb".decode(errors="surrogateescape")


def result(value: int = 1) -> Result:
    made = Result(tables={"t": pd.DataFrame({"a": [value]})}, figures={"f": "<svg/>"})
    made.number("x", value, 1, "runs")
    return made


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (256 * "n", "out=nnn"),
        ("/".join([100 * "n"] * 41), "out=nnn"),
        ("/".join([100 * "n"] * 39), " bytes, of which a system takes 4,095"),
        ("loop", "out=loop: loop is a link to nothing; name a folder"),
        ("loop/x", "out=loop/x: loop is a link to nothing; name a folder"),
        ("nowhere", "out=nowhere: nowhere is a link to nothing; name a folder"),
        ("links", "links/spread: is a link, which would be replaced; choose another place with out=<folder>"),
        ("file", "out=file: file is a file; name a folder"),
    ],
)
def test_a_place_where_no_results_can_lie_is_one_line_before_anything_is_computed(cli, out, said):  # noqa: F811
    for link, to in {"loop": "loop", "nowhere": "no", "links/spread": "../empty"}.items():
        Path(link).parent.mkdir(exist_ok=True)
        Path(link).symlink_to(to)
    Path("empty").mkdir()
    Path("file").touch()
    before = present()
    outcome = cli(*MINE, f"out={out}")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1) and said in outcome.err, outcome.err
    assert len(outcome.err) < 300
    assert present() == before


def present() -> list[Path]:
    """All that lies here, but for what Python keeps of modules that it has compiled."""
    return sorted(path for path in Path(".").rglob("*") if "__pycache__" not in path.parts)


def test_the_folder_of_all_results_may_be_a_link(cli):  # noqa: F811
    Path("elsewhere").mkdir()
    Path("runs/analysis").symlink_to("../elsewhere")
    assert cli(*MINE).status == 0
    assert Path("elsewhere/spread/result.json").is_file() and "cached" in cli(*MINE).err


@pytest.mark.parametrize("to", ["nothing", "itself", "an empty folder", "results"])
def test_a_link_in_the_place_of_results_is_neither_followed_nor_replaced(tmp_path, to):
    (mine := tmp_path / "mine").mkdir()
    if to == "results":
        store(mine / "x", "x", "k", {}, [({}, result())])
    folder = tmp_path / "x"
    folder.symlink_to({"nothing": "no", "itself": "x", "an empty folder": "mine", "results": "mine/x"}[to])
    left = sorted(mine.rglob("*"))
    with pytest.raises(pg.UserError, match="x: is a link, which would be replaced"):
        store(folder, "x", "k2", {}, [({}, result(2))])
    assert folder.is_symlink() and sorted(mine.rglob("*")) == left
    if to == "results":
        assert read(folder).info["key"] == "k"


@pytest.mark.parametrize("what", ["link to a folder", "link to nothing", "file"])
@pytest.mark.parametrize("word", ["new", "old"])
def test_what_lies_at_a_temporary_name_is_replaced_and_not_followed(tmp_path, word, what):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kept.txt").write_text("kept")
    temporary = tmp_path / f".x.{word}"
    for _ in range(2):  # beside no results, and beside some
        temporary.write_text("") if what == "file" else temporary.symlink_to("no" if "nothing" in what else "mine")
        assert store(tmp_path / "x", "x", "k", {}, [({}, result())]).info["key"] == "k"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "x"]
        assert os.listdir(tmp_path / "mine") == ["kept.txt"] and not (tmp_path / "x").is_symlink()


def test_every_group_has_files_of_its_own_however_long_its_name(tmp_path):
    groups = [
        200 * "\u6f22" + "a",
        200 * "\u6f22" + "b",
        "lr = 0.1",
        "lr = 0,1",
        "lr = 0;1",
        300 * "x",
        299 * "x" + "y",
    ]
    made = [({"of": "prompt", "group": group}, result(k)) for k, group in enumerate(groups)]
    made.append(({}, Result(tables={"numbers": pd.DataFrame({"a": [99]})})))
    stored = store(tmp_path / "x", "x", "k", {}, made)
    assert {stored.variant(stem).get("group"): frame["a"].item() for stem, frame in stored.tables.items()} == {
        **{group: k for k, group in enumerate(groups)},
        None: 99,
    }
    assert len(stored.figures) == len(groups) and stored.numbers["value"].tolist() == list(range(len(groups)))
    assert {"prompt_lr=0.1_t", "prompt_lr=0-1_t", "prompt_lr=0-1_t-2"} < stored.tables.keys()
    assert all(
        len(os.fsencode(p.name)) <= 7 + 101 + len("t-2.csv") for p in (tmp_path / "x").iterdir() if "t" in p.stem
    )


def test_half_a_character_in_a_text_is_kept_in_result_json_and_written_out_elsewhere(tmp_path):
    made = Result(tables={"t": pd.DataFrame({"a": pd.Series([ODD], dtype=object)})}, figures={"f": f"<svg>{ODD}</svg>"})
    made.omissions.append(ODD)
    stored = store(tmp_path / "x", "x", "k", {"left_out": [ODD]}, [({}, made)])
    assert stored.info["left_out"] == stored.info["omissions"] == [ODD]
    assert stored.info["sha256"] == own_digest(stored.info)
    (table,), (figure,) = stored.tables.values(), stored.figures.values()
    assert table["a"].tolist() == [r"a\udcffb"] and figure == r"<svg>a\udcffb</svg>"


def test_runs_in_folders_whose_names_are_no_utf8_are_analysed_and_named(cli):  # noqa: F811
    os.rename("runs/run0", f"runs/{ODD}")
    write_run(Path(f"runs/{ODD}2"), header("plus_one", "cat", 7), trained(7, status="diverged"))
    outcome = cli("runs=runs", "analysis=[curves]")
    assert outcome.status == 0 and r"left out: a\udcffb2: diverged" in outcome.err
    stored = read(Path("runs/analysis/curves"))
    assert any(ODD in line for line in stored.info["left_out"])
    assert r"runs/a\udcffb" in pg.load_runs("runs").table["folder"].tolist()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("odd", [pipe, device, loop])
@pytest.mark.parametrize("file", ["result.json", NUMBERS, "f.svg"])
def test_what_is_no_file_is_damage_and_is_not_read(tmp_path, odd, file):
    folder = tmp_path / "x"
    store(folder, "x", "k", {}, [({}, result())])
    odd(folder / file)
    with pytest.raises(DamagedResult, match=rf"x/{file}: (is not a file|cannot be read)"):
        read(folder)
    assert store(folder, "x", "k2", {}, [({}, result())]).info["key"] == "k2"
    assert os.path.lexists(tmp_path / "x.damaged" / file)


def test_a_result_json_of_deep_lists_or_without_numbers_is_damage(tmp_path):
    folder = tmp_path / "x"
    info = store(folder, "x", "k", {}, [({}, result())]).info
    (folder / "result.json").write_text(100_000 * "[")
    with pytest.raises(DamagedResult, match="cannot be read"):
        read(folder)
    del info["checksums"][NUMBERS]
    (folder / "result.json").write_text(json.dumps(info | {"sha256": own_digest(info)}))
    with pytest.raises(DamagedResult, match=f"lists no {NUMBERS}"):
        read(folder)


@pytest.mark.parametrize("field", ["analysis", "key", "claims", "files", "checksums", "sha256"])
def test_a_byte_that_changed_in_the_name_of_a_field_is_damage(tmp_path, field):
    folder = tmp_path / "x"
    store(folder, "x", "k", {}, [({}, result())])
    text = (folder / "result.json").read_text()
    assert text.count(f'"{field}":') == 1
    (folder / "result.json").write_text(text.replace(f'"{field}":', f'"{field.upper()}":'))
    with pytest.raises(DamagedResult):
        read(folder)
    check_replaceable(folder)
    assert store(folder, "x", "k2", {}, [({}, result())]).info["key"] == "k2"
    assert (tmp_path / "x.damaged" / "result.json").read_text() != text


@pytest.mark.parametrize("field", ["analysis", "key", "findings", "claims", "omissions", "files"])
def test_a_result_json_with_another_kind_of_field_is_nobodys_to_replace(tmp_path, field):
    folder = tmp_path / "x"
    info = store(folder, "x", "k", {}, [({}, result())]).info | {field: 1}
    (folder / "result.json").write_text(json.dumps(info | {"sha256": own_digest(info)}))
    with pytest.raises(pg.UserError, match=r"which no result\.json there lists"):
        check_replaceable(folder)
    shutil.rmtree(folder)
    check_replaceable(folder)
