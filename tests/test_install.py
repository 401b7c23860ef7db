"""An installed wheel works in an empty folder; an editable install reads the repository's own conf/."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_all_of_conf_and_sweeps_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"promptgeo/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    expected |= {f"promptgeo/conf/sweep/{p.name}" for p in (ROOT / "sweeps").glob("*.yaml")}
    data = ROOT / "src/promptgeo/data"
    expected |= {f"promptgeo/data/{p.relative_to(data)}" for p in (data / "bundled").rglob("*") if p.is_file()}
    expected |= {f"promptgeo/tiny/model/{p.name}" for p in (ROOT / "src/promptgeo/tiny/model").iterdir()}
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "benchmarks/"))]


@pytest.mark.long
def test_an_installed_wheel_trains_in_an_empty_folder(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    # -I would leave the current folder out, but PYTHONPATH too; the extracted wheel must win over the editable install.
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv[0] = 'promptgeo'; "
        "from promptgeo.cli.train import main; main()",
    ]
    result = subprocess.run(
        [*command, "task.split.max_train=16", "training.epochs=1"], cwd=empty, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    runs = list(empty.glob("outputs/adhoc/tiny-country_capital-cat-s0-*/run.json"))
    assert len(runs) == 1
    shown = subprocess.run([*command, "--info", "searchpath"], cwd=empty, capture_output=True, text=True).stdout
    assert str(site / "promptgeo" / "conf") in shown and str(ROOT / "conf") not in shown


def test_an_editable_install_reads_the_repositorys_conf_from_anywhere(tmp_path):
    code = "from promptgeo.config.paths import conf_dir; print(conf_dir())"
    folder = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    assert Path(folder) == ROOT / "conf"
