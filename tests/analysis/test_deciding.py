"""When a claim holds: not by the last bits of a sum, not by some of its tasks, not below what exchanges can give."""

import numpy as np
import pandas as pd
import pytest

import promptgeo as pg
from promptgeo.analysis.deciding import decided, learned
from promptgeo.analysis.geometry.how_far import Moved
from promptgeo.analysis.geometry.run_pairs import same_task
from promptgeo.analysis.question import Of
from promptgeo.analysis.questions.mean_distances import mean_distances
from promptgeo.analysis.questions.neighbours import neighbours
from promptgeo.analysis.result import Outcome


def test_the_last_bits_of_a_sum_lie_above_nothing():
    assert decided("c", (1e-17, 1e-16), "Evidence.", p=0.0).outcome is Outcome.undecidable
    assert decided("c", (-1e-16, -1e-17), "Evidence.", p=0.0, below=True).outcome is Outcome.undecidable
    assert decided("c", (-1e-16, -1e-17), "Evidence.", p=0.0).outcome is Outcome.undecidable
    assert decided("c", (1e-3, 2e-3), "Evidence.", p=0.0).outcome is Outcome.holds


def table(accuracy: dict[str, float], seeds: int = 6) -> pd.DataFrame:
    rows = [{"task": task, "accuracy_final": value, "accuracy_initial": 0.0} for task, value in accuracy.items()]
    return pd.DataFrame([row for row in rows for _ in range(seeds)])


def test_every_task_must_be_learned_and_those_that_are_not_are_named():
    (premise,) = learned(table({"a": 1.0, "b": 0.5}))
    assert premise.met and "(75% against 0%, n = 12 runs)" in premise.words
    (premise,) = learned(table({"a": 1.0, "b": 0.0, "c": 0.0}))
    assert not premise.met and premise.needs == "prompts that learned b, c"
    assert "(33% against 0%, not in b, c, n = 18 runs)" in premise.words


@pytest.fixture
def ten_cells() -> pg.RunTable:
    """2 tasks x 5 inits x 2 seeds: 2^5 exchanges of cells, of which two group the runs alike."""
    generator = np.random.default_rng(0)
    rows = [{"task": task, "init": init, "seed": seed} for task in "ab" for init in "vwxyz" for seed in range(2)]
    frame = pd.DataFrame(rows)
    inits, tasks = (generator.normal(size=(n, 2, 16)) for n in (5, 2))
    initial = inits[frame["init"].map("vwxyz".index)]
    final = initial + tasks[frame["task"].map("ab".index)] + 0.1 * generator.normal(size=initial.shape)
    return pg.RunTable.from_arrays(final, frame, initial)


@pytest.mark.long
def test_no_p_lies_below_what_exchanging_cells_can_give_whatever_the_seed(ten_cells):
    for seed in range(6):
        assert same_task(ten_cells, Moved.of(ten_cells, Of.prompt), 99, seed).p >= 1 / 16
        result = mean_distances(ten_cells, of=Of.prompt, draws=100, seed=seed)
        (gain,) = (number for number in result.numbers if number.quantity == "difference.task_gain")
        assert gain.p >= 2 / 16
        result = neighbours(ten_cells, of=Of.prompt, permutations=99, seed=seed)
        (share,) = (number for number in result.numbers if number.quantity == "neighbours.prompts.same_task.share")
        assert share.p >= 2 / 16
