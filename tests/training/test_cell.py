"""A cell is made once for each distinct config of a process, from the content of the user's files as they are now."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
from test_cli import SMALL, cli, model, runs_below  # noqa: F401 - fixtures

import promptgeo as pg
from promptgeo.config.compose import compose
from promptgeo.data.tasks import Task
from promptgeo.training import cell as cell_module
from promptgeo.training.cell import cell_of, cells_of
from promptgeo.training.plan import plan


def counted(monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> list[tuple]:
    """The arguments of every call of place.name from now on."""
    calls: list[tuple] = []
    real = getattr(place, name)

    def call(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(place, name, call)
    return calls


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["packed", "basic"])
def test_training_a_grid_makes_each_cell_once(cli, model, monkeypatch, launcher):  # noqa: F811
    """Hydra composes each job of a grid for its folder's name, for the launcher and for the job itself."""
    validated = counted(monkeypatch, cell_module, "validate")
    identified = counted(monkeypatch, cell_module, "identity")
    loaded = counted(monkeypatch, Task, "load")
    grid = (
        "task=plus_one,plus_two",
        f"task.split.seed={7 + len(launcher)}",
        f"hydra/launcher={launcher}",
        "-m",
        "seed=0,1",
    )
    outcome = cli(*model, *SMALL, *grid)
    assert outcome.status == 0 and len(runs_below(Path("outputs"))) == 4, outcome.err
    assert len(validated) == len(identified) == 4 and len(loaded) == 2
    assert cli(*model, *SMALL, *grid).status == 0
    assert len(validated) == len(identified) == 4 and len(loaded) == 2


def test_coupled_runs_know_one_another_without_reading_anything_again(monkeypatch):
    config = compose(
        ["task=plus_one", "task.split.seed=3", "regulariser=orthogonal", "regulariser.seeds=[2,0,1]", "seed=0"]
    )
    loaded = counted(monkeypatch, Task, "load")
    first = cell_of(config)
    assert len(loaded) == 1 and len(set(first.coupled)) == 3 and first.coupled[1] == first.id
    for at, seed in enumerate((2, 0, 1)):
        config.seed = seed
        assert cell_of(config).id == first.coupled[at] and cell_of(config).coupled == first.coupled
    assert len(loaded) == 1


def test_equal_configs_have_one_cell_and_a_changed_config_has_another(monkeypatch):
    config = compose(["task=plus_one", "seed=11"])
    validated = counted(monkeypatch, cell_module, "validate")
    one, other, later = cells_of([config, copy.deepcopy(config), compose(["task=plus_one", "seed=12"])])
    assert one is other and one.id != later.id and len(validated) == 2
    assert one.folder == Path("outputs/adhoc") / f"tiny-plus_one-cat-s11-{one.id[:8]}"
    config.seed = 12  # configs can be changed: a cell is looked up by value
    assert cell_of(config).id == later.id


def test_a_bad_value_anywhere_is_said_before_anything_is_read(monkeypatch):
    configs = [compose(["task=plus_one", f"task.split.seed={seed}"]) for seed in (21, 22)]
    configs[1].training.batch_size = 0
    loaded = counted(monkeypatch, Task, "load")
    with pytest.raises(pg.UserError, match=r"training\.batch_size=0"):
        cells_of(configs)
    assert loaded == []


def test_a_file_that_was_edited_makes_another_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, prompt = Path("my.csv"), Path("p0.npy")
    data.write_text("input,label\na,b\nc,d\n")
    np.save(prompt, np.zeros((4, 256), np.float32))
    line = ["task=custom", "task.source.path=my.csv", "init=file", "init.path=p0.npy"]
    ids = [cell_of(compose(line)).id]
    assert cell_of(compose(line)).id == ids[0]
    data.write_text("input,label\na,b\nc,e\n")
    os.utime(data, ns=(1, 1))  # the clock alone may give both the same time
    ids.append(cell_of(compose(line)).id)
    np.save(prompt, np.ones((4, 256), np.float32))
    os.utime(prompt, ns=(1, 1))
    ids.append(cell_of(compose(line)).id)
    assert len(set(ids)) == 3


def test_one_model_under_two_names_is_refused_not_trained_twice(cli, model, tmp_path):  # noqa: F811
    folder = model[0].partition("=")[2]
    (tmp_path / "link").symlink_to(folder)
    outcome = cli(f"model.name_or_path={folder},{tmp_path / 'link'}", *SMALL, "-m")
    assert outcome.status == 2 and "both have the same content" in outcome.err and not runs_below(Path("outputs"))


def test_a_run_that_lies_under_another_name_is_named_not_trained_again(cli, model):  # noqa: F811
    assert cli(*model, *SMALL).status == 0
    (run,) = runs_below(Path("outputs"))
    outcome = cli(model[0], "model.name=other", *SMALL)
    assert outcome.status == 2 and f"model.name=other: this very run lies in {run}" in outcome.err
    assert runs_below(Path("outputs")) == [run]


def test_a_label_that_is_no_examples_own_has_to_fit_after_the_longest_input(tmp_path, model_folders):
    """Likelihoods of the whole set are compared: what does not fit is found while planning."""
    rows = "".join(f"{'a ' * (20 if k == 7 else 2)},{'yes' if k % 2 else 'no'}\n" for k in range(12))
    (tmp_path / "mine.csv").write_text(f"input,label\n{rows}", encoding="utf-8")
    line = [f"model.name_or_path={model_folders['gpt2']}", "task=custom", f"task.source.path={tmp_path / 'mine.csv'}"]
    line += ["task.split.kind=all", f"outputs={tmp_path}", "prompt.length=1"]
    plan(cell_of(compose([*line, f'task.labels=[yes,no,"{"x" * 8}"]'])))
    with pytest.raises(pg.UserError, match=r"example 7 .* with the label 'xxx.* of task\.labels: prompt and text take"):
        plan(cell_of(compose([*line, f'task.labels=[yes,no,"{"x" * 40}"]'])))
