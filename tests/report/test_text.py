"""How numbers and names read in reports."""

import pytest

from promptgeo.config.compose import compose
from promptgeo.report.runs import facts
from promptgeo.report.text import in_words
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cell_of
from promptgeo.training.engine import train_all


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("difference.P5.P1", "difference, 5 tokens, 1 token"),
        ("vertices.plus_one.P1.mean", "vertices, plus one, 1 token, mean"),
        ("right.real.k2.L16", "right, real, 2 vectors, 16 text tokens"),
        ("same_task_other_init.equal_position", "same task, other init, equal position"),
        ("table1.cat", "Table 1, cat"),
        ("Plus.k", "Plus, k"),
    ],
)
def test_names_of_numbers_are_words(quantity, words):
    assert in_words(quantity) == words


def test_lengths_of_prompts_are_told_in_order(tmp_path):
    small = ["model=tiny", "training.max_steps=1", "task.split.max_train=4", "task.split.max_test=2"]
    cells = [cell_of(compose([*small, f"prompt.length={n}", f"outputs={tmp_path}"])) for n in (20, 3, 10)]
    runs = [Run.load(outcome.run.folder) for outcome in train_all(cells)]
    assert facts(runs)["Prompt length"] == "3, 10, 20 tokens"
    (alone,) = train_all([cell_of(compose([*small, "prompt.length=1", f"outputs={tmp_path}"]))])
    assert facts([alone.run])["Prompt length"] == "1 token"
