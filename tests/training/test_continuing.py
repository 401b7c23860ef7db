"""A run that goes on from another one: to the bit what it would have been, had it never ended."""

import re
import signal

import numpy as np
import pytest
from test_tuning import SMALL, make  # noqa: F401 - fixture

from promptgeo.errors import UserError
from promptgeo.runs.folder import TRAINING_STATE, DamagedRun, Run
from promptgeo.training.engine import train_pack
from promptgeo.training.interruption import Interrupted
from promptgeo.training.plan import plan_all

RECIPES = {
    "adamw": ("optimizer.lr=0.02", "optimizer.weight_decay=0.1"),
    "momentum": ("optimizer=sgd", "optimizer.lr=0.5", "optimizer.momentum=0.9"),
    "no momentum": ("optimizer=sgd", "optimizer.lr=0.5"),
    "adafactor": ("optimizer=adafactor", "optimizer.lr=0.1"),
}


def trained(plan) -> Run:
    assert train_pack([plan]) == {}
    return Run.load(plan.folder)


def goes_on_from(run: Run) -> str:
    return f"training.continue_from={run.folder}"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("first", ["training.epochs=1", "training.max_steps=2"])  # at an epoch's end, and within one
def test_two_trainings_come_to_the_bits_of_one(make, recipe, first):  # noqa: F811
    line = (*RECIPES[recipe], "training.checkpoints=1")
    whole = trained(make(*line, "training.max_steps=6", outputs="whole"))
    parent = trained(make(*line, first, "training.keep_state=true"))
    begun = parent.info["results"]["steps"]
    child = trained(make(*line, f"training.max_steps={6 - begun}", goes_on_from(parent)))
    assert len(parent.tensors["trajectory"]) == begun < 6
    assert np.array_equal(child.tensors["trajectory"], whole.tensors["trajectory"][begun:])
    assert np.array_equal(child.prompt("initial"), parent.prompt("final"))
    assert child.info["parent"] == {"id": parent.id, "steps": begun, "state": True}
    assert child.id not in (parent.id, whole.id)


def test_one_run_can_be_gone_on_from_several_times_in_one_pack(make):  # noqa: F811
    parent = trained(make("training.keep_state=true"))
    rates = [("optimizer.lr=0.02", "own"), ("optimizer.lr=0.05", "own")]
    alone = [trained(make(rate, goes_on_from(parent), outputs=f"alone{k}")) for k, (rate, _) in enumerate(rates)]
    together = plan_all([make(rate, goes_on_from(parent)).cell for rate, _ in rates])
    assert train_pack(together) == {}
    assert [Run.load(p.folder).info["files"] for p in together] == [run.info["files"] for run in alone]
    assert train_pack(together) == {}  # nothing of the parent was trained away
    assert [Run.load(p.folder).info["files"] for p in together] == [run.info["files"] for run in alone]


def test_without_its_state_the_prompt_goes_on_and_that_is_said_once(make, caplog):  # noqa: F811
    parent = trained(make())
    assert not (parent.folder / TRAINING_STATE).exists()
    children = [trained(make(f"optimizer.lr={rate}", goes_on_from(parent))) for rate in (0.02, 0.05)]
    assert children[0].info["parent"]["state"] is False
    assert np.array_equal(children[0].prompt("initial"), parent.prompt("final"))
    assert [m for m in caplog.messages if "the optimiser and the order of examples start anew" in m] == [
        f"training.continue_from={parent.folder}: that run left no state of its optimiser (training.keep_state=true "
        "does): its prompt goes on, the optimiser and the order of examples start anew"
    ]


def test_the_identity_holds_the_parent_not_its_place(make, tmp_path):  # noqa: F811
    parent = trained(make("training.keep_state=true"))
    child = make(goes_on_from(parent)).cell
    moved = tmp_path / "moved"
    parent.folder.rename(moved)
    assert make(goes_on_from(Run.load(moved))).cell.id == child.id
    other = trained(make("training.keep_state=true", "training.epochs=1"))
    assert make(goes_on_from(other)).cell.id != child.id
    (moved / TRAINING_STATE).unlink()
    with pytest.raises(UserError, match=re.escape(f"training.continue_from={moved}: {moved / TRAINING_STATE}: is mis")):
        make(goes_on_from(Run.load(moved, verify=False)))


def test_keeping_the_state_is_no_other_run(make):  # noqa: F811
    plain, keeping = make(outputs="plain"), make("training.keep_state=true", outputs="keeping")
    assert plain.id == keeping.id
    ours, theirs = trained(plain).info["files"], dict(trained(keeping).info["files"])
    assert theirs.pop(TRAINING_STATE) and ours == theirs


def test_training_again_without_it_takes_the_state_away(make):  # noqa: F811
    kept = trained(make("training.keep_state=true"))
    again = trained(make("overwrite=true"))
    assert again.folder == kept.folder and not (again.folder / TRAINING_STATE).exists()


def test_a_complete_run_without_its_state_says_how_to_get_one(make, caplog):  # noqa: F811
    from promptgeo.training.engine import train_all

    run = trained(make())
    assert train_all([make("training.keep_state=true").cell])[0].skipped
    assert (
        f"{run.folder}: was trained without training.keep_state and is complete: it keeps none (overwrite=true trains "
        "it again)"
    ) in caplog.messages


def test_one_that_was_stopped_goes_on_to_the_same_bytes(make, monkeypatch):  # noqa: F811
    import os

    from promptgeo.training.callbacks import Checkpointer

    parent = trained(make("training.keep_state=true"))
    whole = trained(make("training.epochs=3", goes_on_from(parent), outputs="whole"))
    monkeypatch.setattr(Checkpointer, "SECONDS", 0.0)
    steps = []

    def report(event, *rest, **more):
        steps.append(event)
        if event == "stepped" and steps.count("stepped") == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = make("training.epochs=3", goes_on_from(parent))
    with pytest.raises(Interrupted):
        train_pack([stopped], report=report)
    assert (stopped.folder / "state").exists()
    assert trained(stopped).info["files"] == whole.info["files"]


REFUSED = {
    "another task": (("task=plus_one",), "give task=plus_two; init=run init.path="),
    "another init and seed": (("init=dog", "seed=3"), "give init=cat seed=0; "),
    "another optimiser": (("optimizer=sgd", "optimizer.lr=0.5"), "give optimizer=adamw; "),
    "another length": (("prompt.length=3",), "give prompt.length=4; "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_same_run_is_refused_in_one_line(make, name):  # noqa: F811
    overrides, said = REFUSED[name]
    parent = trained(make("training.max_steps=1"))
    with pytest.raises(UserError, match=re.escape(said)) as error:
        make(goes_on_from(parent), *overrides)
    assert str(error.value).startswith(f"training.continue_from={parent.folder}: ") and "\n" not in str(error.value)


def test_another_model_is_refused(make, model_folders):  # noqa: F811
    parent = trained(make("training.max_steps=1"))
    with pytest.raises(UserError, match=r"was trained on another model"):
        make(goes_on_from(parent), family="llama")


def test_no_folder_an_empty_one_and_a_run_that_diverged_are_refused(make, tmp_path):  # noqa: F811
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=re.escape(f"training.continue_from={place}: ")):
            make(f"training.continue_from={place}")
    diverged = trained(make("optimizer=sgd", "optimizer.lr=1e30", "training.keep_state=true"))
    assert diverged.status == "diverged" and TRAINING_STATE not in diverged.info["files"]
    with pytest.raises(UserError, match=r"that run is diverged, not completed"):
        make(goes_on_from(diverged), "optimizer=sgd")


def test_a_changed_state_is_a_damaged_run(make):  # noqa: F811
    run = trained(make("training.keep_state=true", "training.max_steps=1"))
    path = run.folder / TRAINING_STATE
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(DamagedRun, match=TRAINING_STATE):
        Run.load(run.folder)
