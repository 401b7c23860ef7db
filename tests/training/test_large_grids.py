"""A grid of thousands: what its runs have in common is composed, validated, read and checked once."""

import tracemalloc

import pytest

from promptgeo.config import compose
from promptgeo.training import cell, plan

GRID = ["task=plus_two,country_capital", "init=cat,normal", "prompt.length=64", "training.epochs=1"]


def seeds(count: int) -> str:
    return f"seed={','.join(map(str, range(count)))}"


def counted(monkeypatch, module, name: str) -> list:
    """The calls of a module's function from here on."""
    calls, real = [], getattr(module, name)

    def call(*arguments, **named):
        calls.append(arguments)
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_thousand_seeds_are_composed_as_often_as_two(monkeypatch):
    composed = counted(monkeypatch, compose, "hydra_compose")
    few = compose.compose_grid([*GRID, seeds(2)], multirun=True)
    at_two = len(composed)
    many = compose.compose_grid([*GRID, seeds(1000)], multirun=True)
    assert len(many) == 4000 and len(composed) == 2 * at_two
    assert [config for config in many if config.seed < 2] == few


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("optimizer.lr", ["1e-3", ".5", "2", "1e-4"]),
        ("optimizer.clip", ["1.0", "null", "3", "4"]),
        ("training.checkpoints", ["epoch", "log", "7", "3"]),
        ("task.split.validation", ["0.5", "0.2", "test", "0.1"]),
        ("evaluation.split", ["test", "validation", "test"]),
        ("task.text", ["yes", "1e3", "'a b'", "'\"a,b\"'"]),
        ("overwrite", ["true", "false", "yes"]),
        ("template.max_new_tokens", ["3", "4", "5", "6"]),
        ("init.text", ["cat", "dog", "'${init.name}'", "5"]),
    ],
)
def test_a_value_in_a_grid_is_the_value_alone(key, values):
    """Whichever of them Hydra composes."""
    grid = compose.compose_grid(["task=plus_two", f"{key}={','.join(values)}"], multirun=True)
    assert grid == [compose.compose(["task=plus_two", f"{key}={value}"]) for value in values]


def test_a_value_that_is_no_number_is_refused_wherever_it_stands():
    with pytest.raises(compose.UserError, match="seed"):
        compose.compose_grid(["seed=1,2,3,many"], multirun=True)


def test_what_runs_have_in_common_is_read_and_checked_once_and_no_random_p0_is_held(monkeypatch, tmp_path):
    count = 100
    configs = compose.compose_grid([*GRID, seeds(count), f"outputs={tmp_path}"], multirun=True)
    read, checked = counted(monkeypatch, cell, "_common"), counted(monkeypatch, plan, "check_texts")
    drawn = counted(monkeypatch, plan, "initial_prompt")
    writable = counted(monkeypatch, plan, "require_writable")
    cells = cell.cells_of(configs)
    plan.plan_all(cells[:1])  # the model, the rows
    tracemalloc.start()
    try:
        plans = plan.plan_all(cells)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    tasks = 2
    assert len(plans) == 4 * count and len(read) <= tasks
    assert len(checked) == 3 + 3 * tasks  # train, validation, test
    assert len(drawn) == 1 + 2 * tasks and len(writable) == 4
    p0_bytes = 64 * plans[0].lm.width * 4
    random = [p for p in plans if p.config.init.name == "normal"]
    assert held < len(random) * p0_bytes / 5
    assert len({p.p0_Pd.numpy().tobytes() for p in random[:5]}) == 5
    assert all((p.p0_Pd == p.p0_Pd).all() for p in random[:5])
