"""regulariser=orthogonal: the one place where runs are trained for one another, and what stays true of them."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import SMALL, assert_refused, cli, model, runs_below  # noqa: F401 - fixtures
from test_packing import files

import promptgeo as pg
import reference
from promptgeo.config.compose import compose, compose_grid
from promptgeo.config.validate import validate
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cells_of
from promptgeo.training.coupling import penalty, together
from promptgeo.training.engine import train_all, train_pack
from promptgeo.training.packs import packs
from promptgeo.training.run_state import RunState, state_file

SEEDS = (0, 1, 2)
COUPLED = (
    "task=plus_two",
    "init=normal",
    "optimizer.lr=0.05",
    "regulariser=orthogonal",
    "regulariser.seeds=[0,1,2]",
    "regulariser.weight=5",
    *SMALL,
)


def slow_penalty(prompts: np.ndarray, weight: float) -> float:
    centre = prompts.mean(0)
    squares = []
    for a, b in itertools.combinations(range(len(prompts)), 2):
        x, y = (prompts[a] - centre).ravel(), (prompts[b] - centre).ravel()
        squares.append((x @ y / np.sqrt(x @ x) / np.sqrt(y @ y)) ** 2)
    return weight * sum(squares) / len(squares)


def test_the_penalty_is_the_mean_squared_cosine_about_the_barycentre():
    prompts = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(penalty(prompts, 2.0)) == pytest.approx(slow_penalty(prompts.numpy(), 2.0), rel=1e-12)
    simplex = torch.eye(4, dtype=torch.float64)[:, None]
    assert float(penalty(simplex, 1.0)) == pytest.approx(1 / 9)
    assert float(penalty(prompts[:1], 1.0)) == 0


@pytest.fixture
def make(model_folders, tmp_path):
    return lambda *overrides, outputs="out": reference.make_plan(
        model_folders["gpt2"], tmp_path / outputs, *COUPLED, *overrides
    )


def grid(make, *overrides, outputs="out"):
    return [make(f"seed={seed}", *overrides, outputs=outputs) for seed in SEEDS]


def test_coupled_runs_are_pushed_apart_and_say_so(make):
    """From three P0s on a line, where the cosines about the barycentre are 1 or -1."""
    generator = torch.Generator().manual_seed(0)
    start, direction = torch.randn(2, 4, 32, generator=generator)
    penalties = {}
    for weight in (0.0, 20.0):
        plans = grid(make, f"regulariser.weight={weight}", "training.epochs=30", "optimizer.lr=0.1")
        moved = [start + k * direction + 0.1 * torch.randn(4, 32, generator=generator) for k in (-1, 0.3, 1)]
        plans = [replace(plan, make_p0=partial(torch.clone, p0_Pd)) for plan, p0_Pd in zip(plans, moved, strict=True)]
        assert train_pack(plans) == {}
        runs = [Run.load(plan.folder) for plan in plans]
        penalties[weight] = slow_penalty(np.stack([run.prompt() for run in runs]), 1.0)
        for run in runs:
            assert run.info["config"]["regulariser"]["seeds"] == list(SEEDS)
            assert set(run.info["coupled_with"]) == {other.id for other in runs} - {run.id}
    assert penalties[0.0] > 0.6
    assert penalties[20.0] == pytest.approx(
        0.25, abs=0.1
    )  # three vectors that sum to zero: at best every cosine is -1/2


@pytest.mark.long
def test_groups_by_size_are_the_same_runs_as_by_their_seeds():
    grid = ("task=plus_two", "regulariser=orthogonal", "regulariser.size=1,2,4", "seed=0,1,2,3")
    configs = compose_grid(grid, multirun=True)
    named = [("regulariser=none", (0, 1, 2, 3))] + [
        ("regulariser=orthogonal", seeds) for seeds in ((0, 1), (2, 3), (0, 1, 2, 3))
    ]
    expected = [
        compose(
            ["task=plus_two", way, f"seed={seed}", *([f"regulariser.seeds={list(seeds)}"] if "none" not in way else [])]
        )
        for way, seeds in named
        for seed in seeds
    ]
    assert configs == expected
    cells = cells_of(configs)
    assert len({cell.id for cell in cells}) == 12
    coupled = {(len(cell.coupled), cell.config.seed): cell for cell in cells if cell.coupled}
    assert len(coupled) == 8
    for (size, _), cell in coupled.items():
        assert cell.coupled == tuple(coupled[size, seed].id for seed in cell.config.regulariser.seeds)
    assert compose(["regulariser=orthogonal", "regulariser.size=3", "seed=7"]).regulariser.seeds == [6, 7, 8]
    for wrong, said in (
        ("regulariser.size=0", "from 1 to 100,000"),
        ("regulariser.size=2 regulariser.seeds=[0,1]", "null where regulariser.seeds names the seeds"),
    ):
        with pytest.raises(UserError, match=said):
            compose(["regulariser=orthogonal", *wrong.split()])
    with pytest.raises(UserError, match="null with regulariser=none"):
        validate(compose(["regulariser.size=2"]))


def test_a_run_that_is_not_coupled_says_nothing_and_shares_no_pack_with_those_that_are(make):
    alone = make("regulariser=none", "regulariser.seeds=[]", "seed=0")
    assert "coupled_with" not in alone.header()
    assert sorted(len(pack) for pack in packs([*grid(make), alone])) == [1, 3]
    assert [len(group) for group in together([alone.cell, *(p.cell for p in grid(make))])] == [1, 3]


def test_the_order_of_the_command_changes_no_more_than_rounding(make):
    first, second = grid(make), grid(make, outputs="again")
    train_all([plan.cell for plan in first])
    train_all([plan.cell for plan in reversed(second)])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(
            Run.load(a.folder).prompt(), Run.load(b.folder).prompt(), atol=1e-5
        )  # sums in another order


def test_one_lost_run_is_trained_again_with_its_partners_to_the_same_bytes(make):
    plans = grid(make)
    cells = [plan.cell for plan in plans]
    train_all(cells)
    before = [files(plan) for plan in plans]
    (plans[1].folder / "run.json").unlink()
    assert [outcome.skipped for outcome in train_all(cells)] == [False] * 3
    assert [files(plan) for plan in plans] == before
    assert [outcome.skipped for outcome in train_all(cells)] == [True] * 3


def test_states_of_different_steps_are_not_resumed(make):
    """As where a kill came while the runs of a group were being saved."""
    plans = grid(make)
    cells = [plan.cell for plan in plans]
    train_all(cells)
    before = [files(plan) for plan in plans]
    for plan in plans:
        (plan.folder / "run.json").unlink()
    state = RunState(plans[0])
    state.step = 1
    state.save(plans[0].p0_Pd, {})
    assert state_file(plans[0].folder).exists()
    train_all(cells)
    assert [files(plan) for plan in plans] == before


def test_a_damaged_state_costs_its_partners_theirs(make):
    plans = grid(make)
    cells = [plan.cell for plan in plans]
    train_all(cells)
    before = [files(plan) for plan in plans]
    for plan in plans:
        (plan.folder / "run.json").unlink()
        state = RunState(plan)
        state.step = 1
        state.save(plan.p0_Pd, {})
    saved = bytearray(state_file(plans[1].folder).read_bytes())
    saved[-3] ^= 1
    state_file(plans[1].folder).write_bytes(saved)
    train_all(cells)
    assert [files(plan) for plan in plans] == before


def test_a_partner_that_is_not_in_the_command_is_named(make):
    with pytest.raises(UserError, match=r"couples seeds 0, 1, 2, and seed 2 .* add -m seed=0,1,2"):
        train_all([plan.cell for plan in grid(make)[:2]])
    assert not grid(make)[0].folder.exists()


def test_the_command_trains_coupled_runs(cli, model):  # noqa: F811
    line = (*model, *SMALL, "task=plus_two", "init=normal", "regulariser=orthogonal")
    assert_refused(cli(*line), "regulariser=orthogonal needs the seeds")
    assert_refused(cli(*line, "regulariser.seeds=[0,1]"), "seed 1 of task plus_two is not in this command")
    outcome = cli(*line, "regulariser.seeds=[0,1]", "-m", "seed=0,1")
    assert outcome.status == 0, outcome.err
    assert [pg.Run.load(run).info["config"]["regulariser"]["name"] for run in runs_below(Path("outputs"))] == [
        "orthogonal"
    ] * 2
