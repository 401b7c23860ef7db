"""Which runs a grid has: keys that are walked together, ranges, learning rates that are drawn."""

import math
import re

import numpy as np
import pytest

from promptgeo.config.compose import compose, compose_command, compose_grid
from promptgeo.errors import UserError

UNITS = "optimizer.lr_in_embedding_units"


def seen(line: str, *, sweep: str | None = None) -> list[tuple]:
    grid = compose_grid(line.split(), multirun=sweep is None)
    return [(c.task.name, c.init.name, c.prompt.length, c.seed) for c in grid]


def test_zipped_keys_are_walked_together_and_crossed_with_the_others():
    assert seen("init=cat,dog,book seed=5,6,7 grid.zip=[init,seed] prompt.length=1,2") == [
        ("country_capital", init, length, seed)
        for init, seed in (("cat", 5), ("dog", 6), ("book", 7))
        for length in (1, 2)
    ]
    # Where the first of them stands, whatever stands between.
    assert seen("seed=range(0,2) task=plus_one,plus_two init=cat,dog grid.zip=[init,seed]") == [
        (task, init, 4, seed) for init, seed in (("cat", 0), ("dog", 1)) for task in ("plus_one", "plus_two")
    ]
    three = compose_grid(["init=cat,dog", "seed=3,4", "prompt.length=1,2", "grid.zip=[seed,init,prompt.length]"], True)
    assert [(c.init.name, c.seed, c.prompt.length) for c in three] == [("cat", 3, 1), ("dog", 4, 2)]


def test_a_stored_grid_is_zipped_too_and_a_later_value_replaces_its_own():
    grid = compose_grid(["sweep=quickstart", "seed=0,1,2", "grid.zip=[init,seed]"])
    assert len(grid) == 3 * 3 and {(c.init.name, c.seed) for c in grid} == {("cat", 0), ("vocab", 1), ("normal", 2)}


def test_ranges_are_listed():
    assert [seed for *_, seed in seen("seed=range(0,5)")] == [0, 1, 2, 3, 4]
    assert [seed for *_, seed in seen("seed=range(3)")] == [0, 1, 2]
    assert [seed for *_, seed in seen("seed=range(6,0,-2)")] == [6, 4, 2]
    rates = [c.optimizer.lr for c in compose_grid(["optimizer.lr=range(0.1,0.35,0.1)"], multirun=True)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("init=cat,dog,book seed=0,1 grid.zip=[init,seed]", "grid.zip=[init,seed]: each needs as many values as the "
         "others; init has 3, seed has 2"),
        ("init=cat,dog seed=4 grid.zip=[init,seed]", "grid.zip=[init,seed]: seed is not varied in this command; "
         "give it several values, seed=a,b"),
        ("init=cat,dog grid.zip=[init,sede]", "grid.zip=[init,sede]: sede is not varied"),
        ("init=cat,dog grid.zip=[init]", "grid.zip=[init]: names keys that are varied together: two or more"),
        ("init=cat,dog seed=0,1 grid.zip=[init,seed,init]", "two or more, each once"),
        ("seed=range(5,5)", "seed=range(5,5): stands for no value; range(0,5) stands for 0,1,2,3,4"),
        ("seed=range(5,0)", "seed=range(5,0): stands for no value"),
        ("seed=range(0,5,0)", "range(first,end,by) needs finite numbers, and by another than 0"),
        ("seed=interval(0,5)", "seed=interval(0,5): a grid needs values that can be listed"),
        (f"{UNITS}=interval(0,1)", f"{UNITS}=interval(0,1): a learning rate's interval is from a number above 0"),
        (f"{UNITS}=interval(1,0.1)", "a learning rate's interval is from a number above 0 to a larger one"),
        (f"{UNITS}=interval(1,1.00001)", "holds no 9 rates of six digits; widen it, or set grid.draws lower"),
        (f"{UNITS}=interval(0.1,1) grid.draws=0", "grid.draws=0: must be a whole number from 1 to 10,000"),
        (f"{UNITS}=interval(0.1,1) grid.seed=-1", "grid.seed=-1: must be a whole number from 0"),
        (f"{UNITS}=interval(0.1,1) grid.sampler=sobol", "grid.sampler"),
        (f"{UNITS}=interval(0.1,1) hydra/sweeper=basic", f"hydra/sweeper=basic: knows no {UNITS}=interval(0.1,1)"),
        ("init=cat,dog seed=0,1 grid.zip=[init,seed] hydra/sweeper=basic", "hydra/sweeper=basic: knows no grid.zip"),
        ("optimizer.lr=0.1,1 grid.halving=2,3", "grid.halving=2,3: says how this command's runs are made; give one"),
        ("seed=range(0,400) prompt.length=range(1,400)", "the grid of seed, prompt.length: stands for more than"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_one_line_before_anything_is_loaded(line, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        compose_grid(line.split(), multirun=True)
    assert "\n" not in str(error.value)


def test_many_zipped_values_are_one_axis():
    """Crossed they would be 160,000 runs."""
    line = "seed=range(0,400) prompt.length=range(1,401) grid.zip=[seed,prompt.length]"
    assert [(c.seed, c.prompt.length) for c in compose_grid(line.split(), multirun=True)] == [
        (k, k + 1) for k in range(400)
    ]


def test_without_m_neither_values_nor_zip_make_a_grid():
    with pytest.raises(UserError, match=r"interval\(0\.1,1\): several values need -m"):
        compose([f"{UNITS}=interval(0.1,1)"])
    for make in (compose, compose_grid):
        with pytest.raises(UserError, match=r"grid.zip=\[init,seed\]: keys are walked together in a grid: add -m"):
            make(["grid.zip=[init,seed]"])


def drawn(*overrides: str) -> list[float]:
    return [c.optimizer.lr_in_embedding_units for c in compose_grid([f"{UNITS}=interval(0.01,10)", *overrides], True)]


def test_halton_rates_are_spread_evenly_over_the_logarithm_and_a_longer_draw_holds_a_shorter():
    nine, again, more = drawn(), drawn(), drawn("grid.draws=27")
    assert nine == again == sorted(nine) and len(set(nine)) == 9 and set(nine) < set(more)
    assert drawn("grid.seed=1") != nine
    uniform = np.sort([math.log(rate / 0.01) / math.log(1000) for rate in more])
    assert uniform[0] >= 0 and uniform[-1] <= 1
    # The largest distance from even spacing; of 27 independent points it is about .17.
    assert np.abs(uniform - (np.arange(27) + 0.5) / 27).max() < 0.09
    assert all(rate == float(f"{rate:.6g}") for rate in more)  # as they are printed


def test_random_rates_are_independent_draws():
    rates = drawn("grid.sampler=random", "grid.draws=20", "grid.seed=3")
    uniform = np.sort([math.log(rate / 0.01) / math.log(1000) for rate in rates])
    expected = np.sort(np.random.default_rng(3).random(20))
    assert uniform == pytest.approx(expected, abs=1e-6)


def test_drawn_rates_are_said_with_how_they_were_drawn_and_are_runs_like_any_other():
    command = compose_command([f"{UNITS}=interval(0.01,10)", "grid.draws=3", "seed=0,1"], True)
    rates = [c.optimizer.lr_in_embedding_units for c in command.configs]
    assert command.drawn == [
        f"{UNITS}=interval(0.01,10): 3 rates, log-uniform (grid.sampler=halton, grid.seed=0): "
        + ", ".join(f"{rate:g}" for rate in rates[::2])
    ]
    assert [(c.optimizer.lr, c.seed) for c in command.configs] == [(None, 0), (None, 1)] * 3
    listed = compose_grid([f"{UNITS}={','.join(map(str, rates[::2]))}", "grid.draws=3", "seed=0,1"], True)
    assert listed == command.configs
    absolute = compose_grid(["optimizer.lr=interval(0.001,0.1)", "grid.draws=2"], True)
    assert all(0.001 <= c.optimizer.lr <= 0.1 and c.optimizer.lr_in_embedding_units is None for c in absolute)
    replaced = compose_command([f"{UNITS}=interval(0.01,10)", f"{UNITS}=0.1,1"], True)
    assert len(replaced.configs) == 2 and replaced.drawn == []
