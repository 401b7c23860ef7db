"""Runs are pooled only where they differ in nothing but the factors of a question."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_analyze import header, trained

import promptgeo as pg
from promptgeo.runs.alike import alike
from promptgeo.runs.folder import write_run


def change(config: dict, key: str, value) -> None:
    *path, last = key.split(".")
    for name in path:
        config = config.setdefault(name, {})
    config[last] = value


def runs_with(folder: Path, key: str, values: list, by_task: bool = False) -> pg.RunTable:
    """Two tasks x two inits x these values of a key; by_task: each task has one of the values."""
    tasks = ("plus_one", "plus_two")
    for k, value in enumerate(values):
        for task in tasks[k : k + 1] if by_task else tasks:
            for init in ("cat", "dog"):
                made = header(task, init, 0)
                change(made["config"], key, str(value) if key.endswith("name") else value)
                write_run(folder / f"{task}{init}{k}", made | {"id": f"{task}{init}{k}"}, trained(k))
    return pg.load_runs(folder)


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("optimizer.lr", "lr"),
        ("model.name", "model"),
        ("template.name", "template"),
        ("training.max_steps", "training.max_steps"),
        ("optimizer.weight_decay", "optimizer.weight_decay"),
        ("regulariser.weight", "regulariser.weight"),
        ("task.split.max_train", "task.split.max_train"),
        ("init.scale", "init.scale"),
        ("template.bos", "template.bos"),
    ],
)
def test_a_setting_that_varies_makes_groups_of_its_values(tmp_path, key, column):
    groups = alike(runs_with(tmp_path, key, [1, 2]))
    assert [group.label for group in groups] == [f"{column} = 1", f"{column} = 2"]
    assert [len(group.runs) for group in groups] == [4, 4]


@pytest.mark.parametrize("key", ["optimizer.lr", "training.max_steps", "model.name"])
def test_a_setting_that_varies_with_the_task_alone_is_not_taken_for_the_tasks_effect(tmp_path, key):
    assert len(alike(runs_with(tmp_path, key, [1, 2], by_task=True))) == 2


def test_a_template_that_a_task_brings_is_one_thing_with_it(tmp_path):
    (group,) = alike(runs_with(tmp_path, "template.name", ["a", "b"], by_task=True))
    assert group.label == "" and len(group.runs) == 4


@pytest.mark.parametrize("key", ["seed", "seeds.order", "packing.max_runs", "outputs", "task.name", "init.name"])
def test_factors_and_what_decides_no_number_make_no_groups(tmp_path, key):
    assert [len(group.runs) for group in alike(runs_with(tmp_path, key, [1, 2]))] == [8]


def test_a_factor_is_pooled_and_prefixes_stand_for_all_their_keys(tmp_path):
    runs = runs_with(tmp_path, "regulariser.weight", [1, 2])
    assert len(alike(runs, ("task", "init", "seed", "regulariser"))) == 1


def test_prompts_from_elsewhere_are_told_apart_by_the_columns_of_every_table():
    table = pd.DataFrame({"task": "t", "init": "i", "lr": [0.1, 0.1, None], "score.own": [1, 2, 3]})
    groups = alike(pg.RunTable.from_arrays(np.zeros((3, 1, 2)), table))
    assert [(group.label, len(group.runs)) for group in groups] == [("lr = 0.1", 2), ("lr = not known", 1)]


@pytest.mark.parametrize(("own", "groups"), [(True, 1), (False, 2)])
def test_an_init_that_is_each_tasks_own_text_is_one_init(tmp_path, own, groups):
    for task, text in (("plus_one", "Add one."), ("plus_two", "Add two.")):
        made = header(task, "task_text", 0)
        change(made["config"], "init.text", text)
        change(made["config"], "task.text", text if own else "Another text.")
        write_run(tmp_path / task, made, trained(1))
    assert len(alike(pg.load_runs(tmp_path))) == groups
