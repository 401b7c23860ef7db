"""regulariser=wayward: prompts that are pulled to a text by as much as the definition says, each run by itself."""

import numpy as np
import pytest
import torch
from test_packing import SMALL, files, on_cpu

import reference
from promptgeo.config.compose import compose
from promptgeo.config.validate import validate
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cells_of
from promptgeo.training.engine import train_pack
from promptgeo.training.packs import packs

TEXT, OTHER = "catbirdhousewater", "dogbookchairtable"
WAYWARD = ("task=plus_two", "regulariser=wayward", f'regulariser.text="{TEXT}"', "prompt.length=null", *SMALL)


@pytest.fixture
def make(model_folders, tmp_path):
    return lambda *overrides, outputs="out": reference.make_plan(
        model_folders["gpt2"], tmp_path / outputs, *WAYWARD, *overrides
    )


def embeddings(model, plan, text: str) -> torch.Tensor:
    return torch.stack([model.get_input_embeddings()(torch.tensor([i]))[0] for i in plan.lm.encode(text)]).detach()


def test_a_step_follows_the_gradient_of_the_definition(make, model_folders):
    """SGD from another text: P - lr * (gradient of the cross-entropy + gamma * that of the mean squared distance)."""
    gamma, rate = 0.07, 0.01
    where = ("init=text", f'init.text="{OTHER}"', "optimizer=sgd", f"optimizer.lr={rate}", "training.max_steps=1")
    free, pulled = (make(*where, f"regulariser.gamma={gamma}", outputs=f"gamma{gamma}") for gamma in (0, gamma))
    model = reference.original(model_folders["gpt2"])
    text_Pd, p0_Pd = embeddings(model, free, TEXT), embeddings(model, free, OTHER)
    variance = model.get_input_embeddings().weight[: free.lm.vocabulary_size].double().var(correction=0).item()
    squares = sum(float((p - t) @ (p - t)) for p, t in zip(p0_Pd, text_Pd, strict=True))
    assert float(pulled.wayward.penalty(p0_Pd)) == pytest.approx(gamma * squares / len(p0_Pd) / variance, rel=1e-5)
    without_Pd = reference.train(free, model)[0]
    expected_Pd = without_Pd - rate * gamma * 2 * (p0_Pd - text_Pd).numpy() / len(p0_Pd) / variance
    assert np.abs(expected_Pd - without_Pd).max() > 1e-4
    np.testing.assert_allclose(reference.trained(free).prompt(), without_Pd, atol=1e-6)
    np.testing.assert_allclose(reference.trained(pulled).prompt(), expected_Pd, atol=1e-6)


@on_cpu
def test_in_a_pack_each_run_equals_the_run_alone_bitwise(make):
    several = [
        ("regulariser.gamma=0.3",),
        ("regulariser.gamma=0", "seed=1"),
        ("regulariser.gamma=3", f'regulariser.text="{OTHER}"', "init=normal", "prompt.length=4", "optimizer.clip=0.1"),
        ("regulariser=none", "regulariser.text=null", "regulariser.gamma=0", f'init.text="{TEXT}"'),
    ]

    def plans(outputs: str):
        return [make("init=text", *overrides, outputs=outputs) for overrides in several]

    alone, packed = plans("alone"), plans("packed")
    for plan in alone:
        assert train_pack([plan]) == {}
    assert [len(pack) for pack in packs(packed)] == [4]
    assert train_pack(packed) == {}
    assert [files(plan) for plan in packed] == [files(plan) for plan in alone]
    free, nothing = (Run.load(packed[k].folder) for k in (1, 3))  # seeds differ: other data
    assert not np.array_equal(free.prompt(), nothing.prompt())


def test_no_pull_is_no_change_and_the_logged_loss_is_the_cross_entropy(make):
    free = reference.trained(make("init=text", "regulariser.gamma=0"))
    none = ("regulariser=none", "regulariser.text=null", "regulariser.gamma=0", f'init.text="{TEXT}"')
    alone = reference.trained(make("init=text", *none))
    np.testing.assert_array_equal(free.prompt(), alone.prompt())
    assert free.id != alone.id
    held = reference.trained(make("init=text", "regulariser.gamma=100", "optimizer.lr=1e-6"))
    still = reference.trained(make("init=text", "regulariser.gamma=0", "optimizer.lr=1e-6"))
    # A strong pull on a prompt that has hardly moved: the losses are those without.
    np.testing.assert_allclose(held.metrics["loss"], still.metrics["loss"], atol=1e-4)


def test_a_stronger_pull_ends_nearer_to_the_text(make):
    line = ("init=text", "optimizer.lr=0.05", "training.epochs=6")
    far, near = (reference.trained(make(*line, f"regulariser.gamma={gamma}")) for gamma in (0, 1))
    moved = [np.linalg.norm(run.prompt() - run.prompt("initial")) for run in (far, near)]
    assert moved[1] < 0.5 * moved[0]


def test_a_text_of_another_length_or_none_at_all_is_refused_in_a_line(make):
    said = (
        r"^regulariser.text='dogbook' is 2 tokens for this model, the prompt has 4; set prompt.length=2, or init=text"
    )
    with pytest.raises(UserError, match=said):
        make("init=normal", "prompt.length=4", 'regulariser.text="dogbook"')
    for line, said in {
        ("regulariser=wayward",): r"regulariser=wayward needs a text: this task has none; set 'regulariser.text=",
        ("regulariser=wayward", 'regulariser.text=" "'): r"regulariser=wayward needs a text",
        ("regulariser=wayward", "regulariser.text=a", "regulariser.gamma=-1"): r"regulariser.gamma=-1.0: must be at",
        ("regulariser=wayward", "regulariser.text=a", "regulariser.size=2"): r"null with regulariser=wayward",
        ("regulariser=wayward", "regulariser.text=a", "regulariser.seeds=[0,1]"): r"empty with regulariser=wayward",
        ("regulariser.gamma=.1",): r"regulariser.gamma=0.1: must be 0 with regulariser=none",
        ("regulariser.text=a",): r"regulariser.text=a: must be null with regulariser=none",
    }.items():
        with pytest.raises(UserError, match=said):
            validate(compose(["task=plus_two", *line]))


def test_a_tasks_own_text_is_the_default_and_the_init_starts_from_it():
    own = compose(["task=present_past", "regulariser=wayward", "init=text"])
    assert own.regulariser.text == own.init.text == own.task.text == "Write the past of the word"
    other = compose(["task=present_past", "regulariser=wayward", "init=text", "regulariser.text=a tree"])
    assert other.regulariser.text == other.init.text == "a tree"
    kept = compose(["regulariser=wayward", "init=text", "regulariser.text=a tree", "init.text=a house"])
    assert (kept.regulariser.text, kept.init.text) == ("a tree", "a house")


def test_random_words_are_as_many_as_the_text_they_are_held_to():
    for overrides, text in (
        ([], "Write the capital of the country"),
        (['regulariser.text="a tree"'], "a tree"),
        (['regulariser.text="a tree"', 'init.text="a red house"'], "a red house"),
    ):
        config = compose(
            ["task=country_capital", "regulariser=wayward", "init=vocab", "prompt.length=null", *overrides]
        )
        assert (config.init.kind.name, config.init.text) == ("vocab", text)
    assert compose(["task=country_capital", "regulariser=wayward", "init=vocab", "prompt.length=4"]).init.text is None


def test_gamma_and_text_are_part_of_the_identity(model_folders, tmp_path):
    line = [f"model.name_or_path={model_folders['gpt2']}", f"outputs={tmp_path}", *WAYWARD, "init=normal"]
    line += ["prompt.length=4"]
    ways = ([], ["regulariser.gamma=0.5"], [f'regulariser.text="{OTHER}"'])
    cells = cells_of([compose([*line, *way]) for way in ways])
    assert len({cell.id for cell in cells}) == 3 and not any(cell.coupled for cell in cells)
