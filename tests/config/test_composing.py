"""A line of overrides comes to what Hydra makes of it, although choices of groups are composed once."""

import shutil

import pytest
from hydra import compose as hydra_compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from promptgeo.config import composing
from promptgeo.config.compose import compose, composer
from promptgeo.config.composing import Jobs, hydra_config
from promptgeo.config.paths import conf_dir

LINES = [
    ["model=tiny", "task=plus_one", "seed=3"],
    ["seed=4", "model=tiny", "task=plus_one", "training.epochs=7", "optimizer.lr=null"],
    ["task.source.path=x.csv", "task=custom", "model=gpt2"],
    ["sweep=capacity", "task.source.row=2", "task.label_length=9", "task.labels=[a,b]"],
    ["init=word", "init.text=tree", "template.end='\\n'"],
    ["hydra/launcher=basic", "hydra.job.chdir=true", "name=$x", "seed=1"],
    ["+experiment=none", "seed=1"],
    ["~seed"],
    ["training={epochs:3}", "training.epochs=5"],
    ["task.split.seed=1", "task.split={seed:2,max_train:3}"],
    ["task.split={seed:2,max_train:3}", "task.split.seed=1"],
    ["task.source.path=x", "task.source={path:y}"],
    ["task.labels=[a,b]", "task.labels.0=c"],
    ["template.text=choice(a,b)"],
    ["seed=abc", "hydra.nokey=1"],
    ["task=plus_one", "seed=abc"],
    ["hydra.overrides.task=[a]", "task=plus_one"],
    ["training.epochs=5", "training={epochs:3}"],
]


def what(made):
    """What a function returns, or the kind of its error and what it says."""
    try:
        config = made()
    except Exception as error:
        return type(error), str(error)
    return OmegaConf.to_yaml(config), OmegaConf.is_struct(config), OmegaConf.is_readonly(config)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_line_comes_to_what_hydra_makes_of_it(line):
    with composer():
        loader = GlobalHydra.instance().config_loader()
        master = hydra_compose("train", ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x"], return_hydra_config=True)
        jobs = Jobs(loader, master)
        for _ in range(2):  # composed, and from what was kept
            assert what(lambda: hydra_config(line)) == what(lambda: hydra_compose("train", line))
            assert what(lambda: jobs.config(line)) == what(lambda: loader.load_sweep_config(master, line))


def test_lines_that_choose_the_same_are_composed_once_and_do_not_share_what_they_give(monkeypatch):
    calls = []
    monkeypatch.setattr(composing, "hydra_compose", lambda *line: calls.append(line) or hydra_compose(*line))
    composing._of_choices.cache_clear()
    made = [compose(["task=plus_two", f"seed={seed}", f"training.epochs={seed + 1}"]) for seed in range(3)]
    assert [(c.seed, c.training.epochs, c.task.name) for c in made] == [(k, k + 1, "plus_two") for k in range(3)]
    assert compose(["task=plus_two"]).seed == 0 and len(calls) == 1


def test_no_more_than_so_many_choices_are_kept(monkeypatch):
    monkeypatch.setattr(composing, "KEPT", 2)
    with composer():
        loader = GlobalHydra.instance().config_loader()
        jobs = Jobs(loader, hydra_compose("train", ["hydra.mode=MULTIRUN"], return_hydra_config=True))
        inits = ["cat", "dog", "book", "cat"]
        assert [jobs.config([f"init={init}", "seed=1"]).init.name for init in inits] == inits
        assert len(jobs._of_choices) <= 2


def test_a_file_of_conf_that_was_edited_is_read_again(tmp_path, monkeypatch):
    copy = shutil.copytree(conf_dir(), tmp_path / "conf")
    for module in ("promptgeo.config.composing", "promptgeo.config.compose"):
        monkeypatch.setattr(f"{module}.conf_dir", lambda: str(copy))
    sgd = copy / "optimizer" / "sgd.yaml"
    assert compose(["optimizer=sgd"]).optimizer.momentum == 0.9
    sgd.write_text(sgd.read_text().replace("momentum: 0.9", "momentum: 0.77"))
    assert compose(["optimizer=sgd"]).optimizer.momentum == 0.77


def test_a_file_of_ones_own_is_read_each_time(tmp_path):
    (tmp_path / "task").mkdir()
    own = tmp_path / "task" / "mine.yaml"
    for description in ("one", "two"):
        own.write_text(f"name: mine\ndescription: {description}\nversion: 1\nsource:\n  kind: file\n  path: p.csv\n")
        assert compose(["task=mine", f"hydra.searchpath=[file://{tmp_path}]"]).task.description == description
