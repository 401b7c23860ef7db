"""What lies where a run is to be written: nobody's file is touched, and what cannot be written is one line before."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import FILES, SMALL, assert_refused, cli, model  # noqa: F401 - fixtures

import promptgeo as pg
from promptgeo.config.compose import compose, compose_grid
from promptgeo.config.validate import validate
from promptgeo.runs.folder import write_atomically
from promptgeo.training.cell import cell_of
from promptgeo.training.plan import require_folder_free

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other links, and no pipes in folders")


@pytest.fixture
def place(cli, model, tmp_path):  # noqa: F811
    """A command, the folder of its run, and a file and a folder of the user's own."""
    line = (*model, *SMALL, "task=plus_two")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kept.txt").write_text("kept")
    folder = tmp_path / cell_of(compose_grid(line)[0]).folder
    folder.mkdir(parents=True)
    return SimpleNamespace(line=line, run=folder, mine=tmp_path / "mine", below=tmp_path)


def everything(folder: Path) -> dict[str, object]:
    """What lies there: links by what they name, files by their content."""
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def linked(path: Path, to: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(to)


def a_file(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.write_text("mine")


TEMPORARY = tuple(f".{name}.tmp" for name in ("run.json", *FILES))
WRITTEN_THROUGH = ("train.log", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "../multirun.yaml")
IN_THE_WAY = {
    **{f"{name} is a link": (name, lambda p, mine: linked(p, mine)) for name in (".", ".hydra", "state")},
    **{f"{name} is a link to nothing": (name, lambda p, mine: linked(p, mine / "no")) for name in (".", "state")},
    **{f"{name} is a link to itself": (name, lambda p, _: linked(p, p)) for name in (".", ".hydra")},
    **{f"{name} is a file": (name, lambda p, _: a_file(p)) for name in (".", ".hydra", "state")},
    **{
        f"{name} is a link": (name, lambda p, mine: linked(p, mine / "kept.txt"))
        for name in (*WRITTEN_THROUGH, "../.claims")
    },
    **{f"{name} is a pipe": (name, lambda p, _: os.mkfifo(p)) for name in ("train.log", "../.claims")},
    **{
        f"{name} is a folder": (name, lambda p, _: p.mkdir(parents=True))
        for name in ("train.log", "../.claims", *FILES, *TEMPORARY, "state/.state.safetensors.tmp")
    },
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_not_a_runs_own_is_one_line(tmp_path, what):
    name, make = IN_THE_WAY[what]
    (run := tmp_path / "outputs/adhoc/run").mkdir(parents=True)
    (mine := tmp_path / "mine").mkdir()
    (mine / "kept.txt").write_text("kept")
    require_folder_free(run)
    there = Path(os.path.normpath(run / name))
    make(there, mine)
    before = everything(tmp_path)
    with pytest.raises(pg.UserError) as refused:
        require_folder_free(run)
    assert str(refused.value).startswith(f"{there}: is a ")
    assert "move it away" in str(refused.value) and "\n" not in str(refused.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("several", [(), ("-m", "seed=0,1")])
def test_a_command_ends_there_and_its_other_runs_are_not_trained(cli, place, several):  # noqa: F811
    linked(place.run, place.mine)
    before = everything(place.below)
    for again in ((), ("overwrite=true",)):
        assert_refused(cli(*place.line, *again, *several), f"/{place.run.name}: is a link", "move it away")
        assert everything(place.below) == before


def test_links_at_names_that_are_written_anew_are_replaced_and_not_followed(cli, place):  # noqa: F811
    for name in (*FILES[:2], *TEMPORARY, "state/.state.safetensors.tmp", "state/state.safetensors"):
        linked(place.run / name, place.mine / "kept.txt")
    os.mkfifo(place.run / FILES[2])
    outcome = cli(*place.line)
    assert outcome.status == 0, outcome.err
    assert everything(place.mine) == {str(place.mine / "kept.txt"): b"kept"}
    assert pg.Run.load(place.run).status == "completed"
    assert not any(path.is_symlink() for path in place.run.rglob("*")) and not list(place.run.glob(".*.tmp"))


def test_a_file_is_written_anew_whatever_lies_at_its_temporary_name(tmp_path):
    mine, temporary = tmp_path / "mine", tmp_path / ".f.tmp"
    mine.write_bytes(b"mine")
    for make in (lambda: temporary.symlink_to(mine), lambda: temporary.symlink_to("."), lambda: os.mkfifo(temporary)):
        make()
        write_atomically(tmp_path / "f", b"new")
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"new", "mine": b"mine"}


def test_outputs_and_a_folder_of_runs_may_be_links(cli, place):  # noqa: F811
    place.run.rmdir()
    place.run.parent.rename(place.mine / "runs")
    place.run.parent.symlink_to(place.mine / "runs")
    (place.below / "outputs").rename(place.mine / "outputs")
    (place.below / "outputs").symlink_to("mine/outputs")
    assert cli(*place.line).status == 0
    assert pg.Run.load(place.mine / "runs" / place.run.name).status == "completed"
    assert "skipped" in cli(*place.line).err


@pytest.mark.parametrize("key", ["outputs", "name"])
@pytest.mark.parametrize("to", ["nowhere", "itself"])
def test_a_link_to_nothing_is_no_folder(cli, place, key, to):  # noqa: F811
    place.run.rmdir()
    there = place.run.parent
    there.rmdir()
    if key == "outputs":
        (there := there.parent).rmdir()
    there.symlink_to(there if to == "itself" else "nowhere")
    before = everything(place.below)
    assert_refused(cli(*place.line), f"{key}=outputs", "is not a folder that can be written to", f"set {key}=<folder>")
    assert everything(place.below) == before


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("outputs=" + 256 * "o", "outputs: ooo"),
        ('name="' + 128 * "\u00e9" + '"', "at most 255 bytes"),
        ('model.name="' + 250 * "m" + '"', "shorten model.name"),
    ],
)
def test_names_that_no_file_system_takes_are_one_line(cli, place, key, said):  # noqa: F811
    before = everything(place.below)
    assert_refused(cli(*place.line, key), said)
    assert everything(place.below) == before


def test_a_name_or_a_path_is_refused_from_the_first_byte_that_is_too_many(tmp_path):
    longest = "/run/state/.state.safetensors.tmp"
    room = 4095 - len(f"{tmp_path}{longest}")
    fits = "".join(f"/{100 * 'o'}" for _ in range(room // 101 - 1))
    fits += f"/{(room - len(fits) - 1) * 'o'}"
    require_folder_free(Path(f"{tmp_path}{fits}/run"))
    with pytest.raises(
        pg.UserError, match=r"^outputs: /.*\.\.\. is a path of 4096 bytes, of which a system takes 4,095"
    ):
        require_folder_free(Path(f"{tmp_path}{fits}o/run"))
    require_folder_free(tmp_path / (255 * "o") / (127 * "\u00e9"))
    with pytest.raises(pg.UserError, match=r"^outputs: ooo.*255 bytes"):
        require_folder_free(tmp_path / (256 * "o") / "run")
    with pytest.raises(pg.UserError, match=r"shorten model\.name"):
        require_folder_free(tmp_path / (128 * "\u00e9"))


@pytest.mark.parametrize("key", ["name", "outputs", "task.labels", "model.name", "template.text", "wandb.project"])
def test_half_a_character_is_refused_before_a_file_would_hold_it(key):
    value = ["a", "b\ud800"] if key == "task.labels" else "{input}\ud800"
    config = compose(["model=tiny"])
    *sections, last = key.split(".")
    inside = config
    for section in sections:
        inside = getattr(inside, section)
    setattr(inside, last, value)
    with pytest.raises(pg.UserError, match=rf"^{key}: holds half a character \(a lone surrogate, \\ud800\)"):
        validate(config)


@pytest.mark.parametrize("key", ["name", "outputs"])
def test_no_folder_has_a_null_character_in_its_name(cli, place, key):  # noqa: F811
    (place.mine / "experiment").mkdir()
    (place.mine / "experiment/odd.yaml").write_text(f'# @package _global_\n{key}: "a\\0b"\n')
    before = everything(place.below)
    refused = cli(*place.line, "--config-dir", str(place.mine), "+experiment=odd")
    assert_refused(refused, f"{key}='a\\x00b': must be without a null character")
    assert everything(place.below) == before
