"""Whatever lies where a run is looked for: it is that folder's fault alone, said in one line, and nothing waits."""

import copy
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from test_runs import trained

from promptgeo import Run, load_runs
from promptgeo.cli import runs as runs_cli
from promptgeo.config.compose import compose
from promptgeo.config.schema import to_dict
from promptgeo.config.terminal import counted
from promptgeo.runs.folder import FILES, LARGEST, DamagedRun, find_runs, write_run

CONFIG = to_dict(compose([]))
HEADER = {
    "format": 1,
    "id": "0" * 64,
    "config": CONFIG | {"optimizer": CONFIG["optimizer"] | {"lr": 0.01}},
    "precision": "fp32",
    "device": "cpu",
    "seeds": {"init": 1, "order": 2, "dropout": 3},
    "versions": {"promptgeo": "0.1.0"},
    "fingerprints": {"model": "sha256:1", "data": "sha256:2"},
    "lr": 0.01,
    "examples": {"train": 3},
}
VALUES = (None, True, 7, 2**70, 0.5, float("inf"), "[/]", "\ud800", [], [[1]], {}, {"a": {"b": "[/]"}})
NEEDED = (
    "id",
    "status",
    "files",
    *(("files", name) for name in FILES),
    "config",
    *(("config", section, "name") for section in ("model", "task", "init", "template")),
    ("config", "optimizer", "lr"),
    ("config", "seed"),
    "results",
    *(("results", name) for name in ("prompt_length", "steps", "n", "accuracy")),
)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A run to damage, and one beside it."""
    result = trained()
    result.results["labels"] = {"set": ["a", "b"], "majority": 0.5, "confusion": {"final": [[1, 0], [0, 2]]}}
    write_run(tmp_path / "runs" / "odd", HEADER, result)
    write_run(tmp_path / "runs" / "sound", HEADER | {"id": "1" * 64}, trained(1))
    return tmp_path / "runs" / "odd", tmp_path / "runs" / "sound"


def sign(folder: Path, info: dict) -> None:
    """Write run.json with the digest that it ought to have: no checksum tells that it is odd."""
    info = {key: value for key, value in info.items() if key != "sha256"}
    info["sha256"] = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")


def places(value, at=()) -> list[tuple]:
    """Every field, and every field within it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((*at, key), *places(value[key], (*at, key)))]


def listed(folders, capsys) -> list[str]:
    """What all readers of a folder of runs show, none of which fails: the damage found, and the sound run."""
    odd, sound = folders
    runs, damaged = find_runs(odd.parent)
    assert sound in [run.folder for run in runs] and len(runs) + len(damaged) == 2
    assert all("\n" not in str(error) and str(odd) in str(error) for error in damaged)
    table = load_runs(odd.parent)
    assert len(table) == len(runs) and table._repr_html_() and repr(table) and table.query("seed == 0") is not None
    try:
        runs_cli.main([str(odd.parent)])
        assert not damaged
    except SystemExit as stop:
        assert stop.code == 1 and damaged
    out = capsys.readouterr().out
    assert "sound " in out and f"{counted(len(runs), 'run')}, " in out and f"{len(damaged)} damaged" in out
    return [str(error) for error in damaged]


def test_a_field_that_is_missing_or_of_another_type_costs_no_other_run(folders, capsys):
    whole = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))
    assert listed(folders, capsys) == []
    needed = {place if isinstance(place, tuple) else (place,) for place in NEEDED}
    for place in places(whole):
        if place == ("sha256",):
            continue
        for value in ("missing", *VALUES):
            info = copy.deepcopy(whole)
            inside = info
            for key in place[:-1]:
                inside = inside[key]
            if value == "missing":
                del inside[place[-1]]
            elif type(value) is type(inside[place[-1]]) and value != 2**70:
                continue
            else:
                inside[place[-1]] = copy.deepcopy(value)
            sign(folders[0], info)
            try:
                Run.load(folders[0]).row()
                assert value != "missing" or place not in needed, place
            except DamagedRun as error:
                named = ".".join(map(str, place))
                assert value == "\ud800" or named.split(".")[-1] in str(error), (place, value)
                assert "\n" not in str(error)
            runs, damaged = find_runs(folders[0].parent)
            assert len(runs) + len(damaged) == 2 and len(load_runs(folders[0].parent)) == len(runs), (place, value)
    for place in ((), *((key,) for key in whole), ("config", "task"), ("results", "accuracy")):
        for value in ("[/]", {}, [[1]]):  # all the way to what is printed
            info = copy.deepcopy(whole)
            inside = info
            for key in place:
                inside = inside[key] if key != place[-1] else inside
            if place:
                inside[place[-1]] = value
            sign(folders[0], info)
            listed(folders, capsys)


def deep(levels: int, opening: str, closing: str) -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"run"',
        b"\xff\xfe{}",
        b'{"id": "\xff"}',
        b"\x00" * 1000,
        b"1" * 10_000,
        b"{" * 100_000,
        deep(100_000, "[", "]"),
        deep(100_000, '{"a":', "}"),
        b'{"format": 1}' * 2,
    ],
    ids=lambda content: content[:12].decode("latin1"),
)
def test_a_run_json_of_any_bytes_costs_no_other_run(folders, capsys, content):
    (folders[0] / "run.json").write_bytes(content)
    (said,) = listed(folders, capsys)
    assert said.startswith(f"{folders[0] / 'run.json'}: ") and len(said) < 1000


@pytest.mark.parametrize("levels", [30, 300, 900])
def test_a_config_of_deep_sections_is_damage(folders, capsys, levels):
    info = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))
    for _ in range(levels):
        info["config"]["task"] = {"name": "t", "deeper": info["config"]["task"]}
    sign(folders[0], info)
    (said,) = listed(folders, capsys)
    assert "more than 20 deep" in said or "recursion" in said


def fifo(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2**40)


KINDS = {
    "fifo": fifo,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "huge": sparse,
    "too large": lambda path: path.write_bytes(b" " * (LARGEST + 1)),
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to("/"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fifos and no devices in folders")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_a_runs_size_is_never_read(folders, capsys, kind):
    (folders[0] / "run.json").unlink()
    KINDS[kind](folders[0] / "run.json")
    assert len(listed(folders, capsys)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fifos and no devices in folders")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("huge", "too large")])
def test_what_is_no_file_beside_run_json_is_damage(folders, capsys, kind, name):
    (folders[0] / name).unlink()
    KINDS[kind](folders[0] / name)
    (said,) = listed(folders, capsys)
    assert said == f"{folders[0] / name}: is missing"


def test_a_later_format_says_so_and_another_is_none(folders, capsys):
    info = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))
    sign(folders[0], info | {"format": 2, "config": "as formats of later versions have it"})
    (said,) = listed(folders, capsys)
    assert said.endswith("has format 2 of a later promptgeo; this one reads format 1: install the later one")
    for written in (0, -1, True, 1.0, "1", None, [], {}):
        sign(folders[0], info | {"format": written})
        assert [said.endswith("format: must be 1") for said in listed(folders, capsys)] == [True]
    del info["format"]  # as the first runs
    sign(folders[0], info)
    assert listed(folders, capsys) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
@pytest.mark.parametrize("name", ["[red]", "[bold]", "~nobody", "-", "a\nb", b"\xff".decode(errors="surrogateescape")])
def test_a_folder_may_be_called_anything(folders, capsys, monkeypatch, name):
    odd = folders[0].rename(folders[0].with_name(name))
    monkeypatch.chdir(odd.parent)
    runs, damaged = find_runs(".")
    assert len(runs) == 2 and not damaged
    runs_cli.main(["."])
    (odd / "metrics.csv").write_text("")
    with pytest.raises(SystemExit):
        runs_cli.main(["."])
    assert "1 run, all completed, 1 damaged" in capsys.readouterr().out
