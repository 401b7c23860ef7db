"""Packs: every run equals the run alone, to the last bit, whatever happens to its neighbours; also resumed."""

import contextlib
import dataclasses
import logging
import signal

import numpy as np
import pytest
import torch

import reference
from promptgeo.config.compose import compose
from promptgeo.data.row import Row
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.runs.folder import Run
from promptgeo.tiny import PATH as TINY
from promptgeo.training import run_state, tuning
from promptgeo.training.callbacks import Checkpointer
from promptgeo.training.cell import Cell, cells_of
from promptgeo.training.engine import deterministic, train_all, train_pack
from promptgeo.training.interruption import Interrupted, interruptible
from promptgeo.training.packs import packs

SMALL = (
    "task.split.max_train=7",
    "task.split.max_test=2",
    "training.batch_size=4",
    "training.epochs=2",
    "evaluation.max_new_tokens=3",
    "template.longer_labels=warn",
    "evaluation.every=end",
)
WATCHED = (
    "task.split.validation=0.4",
    "training.early_stopping.patience=1",
    "training.epochs=15",
    "evaluation.every=epoch",
)
TWELVE = (
    ("init=cat",),
    ("init=cat", "seed=1"),
    ("init=dog", "optimizer.lr=0.03", "training.epochs=1"),
    ("task=present_past", "init=vocab", "training.epochs=3"),
    ("task=present_past", "template=study3", "optimizer.schedule=cosine"),
    ("task=country_capital", "init=normal", "seed=5", "optimizer.clip=0.1"),
    ("task=country_capital", "template=study3", "training.max_steps=3"),
    (*WATCHED, "optimizer.lr=1e-30"),
    ("init=normal", "optimizer.lr=1e25", "optimizer.weight_decay=1e10", "training.epochs=5"),
    ("training.checkpoints=1", "optimizer.schedule=linear", "optimizer.warmup_steps=2", "seed=3"),
    ("training.epochs=0", "init=uniform"),
    ("task=present_past", "optimizer.weight_decay=0.5", "init=pen"),
)

on_cpu = pytest.mark.skipif(
    reference.DEVICE != "cpu", reason="a GPU's kernels change with the batch: test_cuda.py holds them to a tolerance"
)


@pytest.fixture
def make(model_folders, tmp_path):
    """make("optimizer.lr=0.1", ...) -> a plan on a small model."""

    def make(*overrides, family="gpt2", outputs="out"):
        folder = TINY if family == "tiny" else model_folders[family]
        return reference.make_plan(folder, tmp_path / outputs, "task=plus_two", *SMALL, *overrides)

    return make


def files(plan) -> dict[str, str]:
    """SHA-256 of all that the run wrote."""
    return Run.load(plan.folder).info["files"]


@pytest.mark.long
@on_cpu
@pytest.mark.parametrize(
    ("family", "length"), [("tiny", 4), ("gpt2", 1), ("gpt2", 3), ("gpt2", 4), ("bloom", 1), ("bloom", 3)]
)
def test_twelve_mixed_runs_in_packs_equal_the_same_runs_alone_bitwise(make, family, length):
    def plans(outputs):
        return [make(*overrides, f"prompt.length={length}", family=family, outputs=outputs) for overrides in TWELVE]

    solo = plans("solo")
    for plan in solo:
        assert train_pack([plan]) == {}
    runs = [Run.load(plan.folder) for plan in solo]
    assert [run.status for run in runs] == ["completed"] * 8 + ["diverged"] + ["completed"] * 3
    steps = [run.info["results"]["steps"] for run in runs]
    assert steps[7] < solo[7].total_steps and steps[8] < solo[8].total_steps and len(set(steps)) >= 5
    # Pack size, slots, order. All of them at one length; at the others one that has everything.
    for size, slots, backwards in ((12, 12, False), (5, 2, False), (12, 5, True))[0 if length == 3 else 2 :]:
        packed = plans(f"{size}-{slots}")
        ordered = packed[::-1] if backwards else packed
        for start in range(0, 12, size):
            assert train_pack(ordered[start : start + size], slots) == {}
        for alone, plan in zip(solo, packed, strict=True):
            assert files(plan) == files(alone), (size, slots, plan.folder.name)


@on_cpu
def test_a_pack_is_bitwise_where_matrix_products_depend_on_their_rows(make, monkeypatch):
    monkeypatch.setattr(FrozenLM, "mixes_prompts", property(lambda self: False))
    batches = []
    real = FrozenLM.label_logits

    def watched(self, prompts_NPd, batch, memory=None):
        if torch.is_grad_enabled():
            batches.append(batch)
        return real(self, prompts_NPd, batch, memory)

    monkeypatch.setattr(FrozenLM, "label_logits", watched)
    plans = [make(f"seed={seed}") for seed in range(3)]
    assert train_pack(plans) == {}
    assert all(len(set((batch.prompt_from // 4).tolist())) <= 1 for batch in batches)
    batches.clear()
    monkeypatch.setattr(FrozenLM, "mixes_prompts", property(lambda self: True))
    together = [make(f"seed={seed}", outputs="together") for seed in range(3)]
    assert train_pack(together) == {}
    assert max(len(set((batch.prompt_from // 4).tolist())) for batch in batches) == 3


def test_runs_that_can_share_a_model_share_a_pack(make, caplog):
    plans = [
        make(),
        make("init=dog", "seed=1", "optimizer.lr=0.5", "training.epochs=1", "optimizer.schedule=cosine"),
        make("task=present_past", "template=study3"),
        make("prompt.length=3"),
        make("training.batch_size=2"),
        make("optimizer=sgd"),
        make("training.dropout=true"),
        make("training.dropout=true", "seed=1"),
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        groups = packs(plans)
    assert [[plans.index(plan) for plan in pack] for pack in groups] == [[0, 1, 2], [3], [4], [5], [6], [7]]
    assert caplog.messages == [
        "2 runs train alone: training.dropout=true draws from one generator, which a pack cannot share"
    ]


@on_cpu
def test_a_run_that_fails_is_recorded_and_changes_no_other_run(make):
    alone = [make(f"seed={seed}", outputs="alone") for seed in (0, 2)]
    for plan in alone:
        train_pack([plan])
    plans = [make(f"seed={seed}") for seed in range(3)]
    unknown = Row(np.array([-1, -2, -3, -4, 10**6]), np.array([5]))
    plans[1] = dataclasses.replace(plans[1], train_rows=[*plans[1].train_rows[:-1], unknown])
    errors = train_pack(plans)
    assert list(errors) == [plans[1].id] and "IndexError" in errors[plans[1].id]
    assert [files(plans[0]), files(plans[2])] == [files(plan) for plan in alone]
    failed = Run.load(plans[1].folder)
    assert failed.status == "failed" and failed.info["error"] == errors[plans[1].id]
    assert np.array_equal(failed.prompt("initial"), plans[1].p0_Pd.numpy()) and failed.row()["accuracy_final"] is None


@pytest.mark.long
@on_cpu
@pytest.mark.parametrize("holds", [1, 2])
def test_memory_that_runs_out_halves_a_forward_and_changes_no_number(make, monkeypatch, holds, caplog):
    alone = [make(f"seed={seed}", outputs="alone") for seed in range(5)]
    for plan in alone:
        train_pack([plan])
    real, sizes = FrozenLM.label_logits, []

    def small(self, prompts_NPd, batch, memory=None):
        if torch.is_grad_enabled():
            if len(prompts_NPd) > holds:
                raise torch.OutOfMemoryError("out of memory")
            sizes.append(len(prompts_NPd))
        return real(self, prompts_NPd, batch, memory)

    monkeypatch.setattr(FrozenLM, "label_logits", small)
    plans = [make(f"seed={seed}") for seed in range(5)]
    with caplog.at_level(logging.INFO):
        assert train_pack(plans) == {}
    assert [files(plan) for plan in plans] == [files(plan) for plan in alone]
    assert max(sizes) == holds
    assert sum("out of memory" in message for message in caplog.messages) <= 3  # learnt once, not at every tick


@pytest.mark.parametrize("grad", [False, True], ids=["scoring", "training"])
def test_a_model_without_deterministic_kernels_is_trained_and_that_is_said_once(make, monkeypatch, grad, caplog):
    """As torch refuses on a GPU; within, as engine.deterministic has it there."""
    alone = make()
    train_pack([alone])
    real = FrozenLM.label_logits

    def strict(self, prompts_NPd, batch, memory=None):
        if torch.are_deterministic_algorithms_enabled() and torch.is_grad_enabled() == grad:
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set ...")
        return real(self, prompts_NPd, batch, memory)

    monkeypatch.setattr(FrozenLM, "label_logits", strict)
    plans = [make(f"seed={seed}", outputs="strict") for seed in (0, 1)]
    with deterministic():
        assert train_pack(plans) == {}
    assert not torch.are_deterministic_algorithms_enabled() and files(plans[0]) == files(alone)
    assert sum("may leave other bytes on this GPU: cumsum" in message for message in caplog.messages) == 1


def test_a_run_too_large_for_the_memory_fails_alone(make, monkeypatch):
    def full(self, prompts_NPd, batch, memory=None):
        raise torch.OutOfMemoryError("out of memory")

    plan = make()
    monkeypatch.setattr(FrozenLM, "label_logits", full)
    assert train_pack([plan]) == {plan.id: "OutOfMemoryError: out of memory"}


def stop_after(ticks: int, monkeypatch) -> None:
    """The signal of Ctrl-C comes in the tick after `ticks` more."""
    left, real = [ticks], Checkpointer.ticked

    def ticked(self):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    monkeypatch.setattr(Checkpointer, "ticked", ticked)


LONG = (
    *SMALL,
    "task.split.max_train=14",
    "task.split.validation=0.4",
    "training.epochs=4",
    "training.checkpoints=1",
    "evaluation.every=epoch",
)
KINDS = ("optimizer=adamw", "optimizer=sgd", "optimizer=adafactor", "training.dropout=true")


@pytest.mark.long
@on_cpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_as_if_never_stopped(make, monkeypatch, kind):
    def plans(outputs):
        seeds = [0] if "dropout" in kind else [0, 1, 2]
        return [make(*LONG, kind, f"seed={seed}", f"training.epochs={4 - seed}", outputs=outputs) for seed in seeds]

    undisturbed = plans("undisturbed")
    assert train_pack(undisturbed) == {}
    for stops in ([1], [2, 1], [3], [4, 1, 1]):  # two steps an epoch
        stopped = plans(f"stopped-{'-'.join(map(str, stops))}")
        for ticks in stops:
            with monkeypatch.context() as patch:
                stop_after(ticks, patch)
                unfinished = [plan for plan in stopped if not (plan.folder / "run.json").exists()]
                with pytest.raises(Interrupted) as stop:
                    train_pack(unfinished, slots=2)
            assert stop.value.exit_status == 130
        assert any(run_state.state_file(plan.folder).exists() for plan in stopped)
        torch.manual_seed(77)  # another process has another global generator
        assert train_pack([plan for plan in stopped if not (plan.folder / "run.json").exists()], slots=2) == {}
        assert [files(plan) for plan in stopped] == [files(plan) for plan in undisturbed], stops
        assert not any((plan.folder / "state").exists() for plan in stopped)


def test_a_state_that_cannot_be_read_or_is_another_runs_starts_the_run_anew(make, monkeypatch, caplog):
    undisturbed = make(*LONG, outputs="undisturbed")
    train_pack([undisturbed])
    for damage in (b"", b"\0" * 64, "other", "one bit"):
        plan = make(*LONG, outputs=f"damaged{len(damage)}")
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stop_after(3, patch)
            train_pack([plan])
        path = run_state.state_file(plan.folder)
        if damage == "other":
            other = make(*LONG, "seed=9", outputs="other")
            with monkeypatch.context() as patch, pytest.raises(Interrupted):
                stop_after(2, patch)
                train_pack([other])
            path.write_bytes(run_state.state_file(other.folder).read_bytes())
        elif damage == "one bit":
            saved = bytearray(path.read_bytes())
            saved[-3] ^= 1
            path.write_bytes(saved)
        else:
            path.write_bytes(damage)
        caplog.clear()
        assert train_pack([plan]) == {}
        assert files(plan) == files(undisturbed)
        assert sum("cannot be read" in message for message in caplog.messages) == (damage != "other")


def test_a_stop_that_a_finaliser_swallowed_stops_training_all_the_same(make):
    class Finalised:
        def __del__(self):
            with contextlib.suppress(BaseException):  # as the interpreter does
                signal.raise_signal(signal.SIGTERM)

    plan = make(*LONG)
    with interruptible():
        Finalised()
        with pytest.raises(Interrupted):
            train_pack([plan])
    assert run_state.saved_step(plan) == 1
    assert train_pack([plan]) == {}


def test_a_state_that_cannot_be_saved_costs_no_run(make, monkeypatch, caplog):
    def full(self):
        raise OSError(28, "No space left on device")

    undisturbed, plan = make(*LONG, outputs="undisturbed"), make(*LONG, outputs="full")
    train_pack([undisturbed])
    monkeypatch.setattr(Checkpointer, "SECONDS", 0.0)
    monkeypatch.setattr(tuning.PromptTuning, "save", full)
    assert train_pack([plan]) == {}
    assert files(plan) == files(undisturbed)
    assert (
        sum("No space left on device" in message and "training goes on" in message for message in caplog.messages) == 1
    )  # not every two seconds


def test_a_run_whose_folder_cannot_be_written_fails_alone(model_folders, tmp_path, monkeypatch):
    monkeypatch.setattr("promptgeo.training.engine.require_folder_free", lambda folder: None)  # it came there since
    model = (
        f"model.name_or_path={model_folders['gpt2']}",
        f"device={reference.DEVICE}",
        f"outputs={tmp_path}",
        "task=plus_two",
        *SMALL,
    )
    cells = cells_of([compose([*model, f"seed={seed}"]) for seed in (0, 1)])
    (cells[0].folder / "predictions.jsonl").mkdir(parents=True)
    broken, whole = train_all(cells)
    assert "IsADirectoryError" in broken.error and broken.run is None
    assert whole.error is None and whole.run.status == "completed"


@pytest.mark.long
def test_what_is_complete_is_not_trained_again_what_failed_is(model_folders, tmp_path, monkeypatch):
    def cells(*overrides) -> list[Cell]:
        model = (
            f"model.name_or_path={model_folders['gpt2']}",
            f"device={reference.DEVICE}",
            f"outputs={tmp_path}",
            "task=plus_two",
            *SMALL,
        )
        return cells_of([compose([*model, f"seed={seed}", *overrides]) for seed in (0, 1, 0)])

    first = train_all(cells()[:1])
    assert [(outcome.skipped, outcome.error) for outcome in first] == [(False, None)]
    stamp = (first[0].folder / "run.json").stat().st_mtime_ns
    outcomes = train_all(cells())
    assert [outcome.skipped for outcome in outcomes] == [True, False, True]
    assert (
        outcomes[0].folder == outcomes[2].folder == first[0].folder
        and (first[0].folder / "run.json").stat().st_mtime_ns == stamp
    )
    again = train_all(cells("overwrite=true"))
    assert not any(outcome.skipped for outcome in again) and (first[0].folder / "run.json").stat().st_mtime_ns > stamp
    real = run_state.RunState.next_minibatch

    def broken(self):
        if self.plan.config.seed == 1:
            raise ValueError("a row\nis wrong")
        return real(self)

    monkeypatch.setattr(run_state.RunState, "next_minibatch", broken)
    outcomes = train_all(cells("overwrite=true"))
    assert [outcome.error for outcome in outcomes] == [None, "ValueError: a row is wrong", None]
    monkeypatch.setattr(run_state.RunState, "next_minibatch", real)
    outcomes = train_all(cells())
    assert [(outcome.skipped, outcome.error) for outcome in outcomes] == [(True, None), (False, None), (True, None)]


def test_a_diverged_run_is_over_and_not_trained_again(model_folders, tmp_path):
    model = (
        f"model.name_or_path={model_folders['gpt2']}",
        f"device={reference.DEVICE}",
        f"outputs={tmp_path}",
        "task=plus_two",
        *SMALL,
    )
    diverging = ("init=normal", "optimizer.lr=1e25", "optimizer.weight_decay=1e10", "training.epochs=5")
    cells = cells_of([compose([*model, *diverging])])
    assert train_all(cells)[0].run.status == "diverged"
    assert train_all(cells)[0].skipped
