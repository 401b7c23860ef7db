"""The time left counts evaluations, and nothing is said before it is known."""

import re

import numpy as np
import pytest

import reference
from promptgeo.config import waiting
from promptgeo.config.waiting import said_when_slow
from promptgeo.training import progress
from promptgeo.training.engine import train_all, train_pack
from promptgeo.training.progress import SCORED, STEP, WRITTEN, SweepView, Workload, work

SMALL = ("task=plus_two", "task.split.max_train=12", "task.split.max_test=6", "training.batch_size=4")
SMALL = (*SMALL, "evaluation.max_new_tokens=3")


@pytest.fixture
def make(model_folders, tmp_path):
    return lambda *overrides: reference.make_plan(model_folders["gpt2"], tmp_path / "out", *SMALL, *overrides)


def test_nothing_is_said_of_the_time_left_before_every_kind_of_work_was_timed(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", -1.0)  # a line at every event
    with SweepView(2) as view:
        for _ in range(2):
            view.report("planned", 500, work=np.array([500.0, 40.0, 20.0]))
        view.report("started")
        assert view.seconds_left is None
        view.report("evaluated", work=work(WRITTEN, 10), seconds=20.0)
        view.report("stepped", 1, work=np.array([1.0, 0.0, 10.0]), seconds=0.5)
        assert view.seconds_left is None
        first = capsys.readouterr().err
        assert "left" not in first and " 0.0 run-steps" not in first
        view.report("evaluated", work=work(SCORED, 10), seconds=5.0)
        view.report("stepped", 1, work=np.array([1.0, 10.0, 0.0]), seconds=0.5)
    # 998 steps of half a second, 70 positions scored at half a second, 30 written at two seconds.
    assert view.seconds_left == pytest.approx(998 * 0.5 + 70 * 0.5 + 30 * 2.0)
    assert capsys.readouterr().err.splitlines()[-1].endswith("9.9 min left")


def test_two_processes_take_half_the_time_and_runs_that_are_not_planned_are_named(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", -1.0)
    with SweepView(3, processes=2) as view:
        view.report("planned", 11, work=work(STEP, 11))
        view.report("started")
        view.report("stepped", 1, work=work(STEP, 1), seconds=8.0)
    assert view.seconds_left == 40.0
    assert capsys.readouterr().err.splitlines()[-1].endswith("40 s left for 1 of 3 runs")


def test_the_time_left_of_runs_that_may_stop_early_is_an_upper_bound(make, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", -1.0)
    early = ("task.split.validation=0.4", "training.early_stopping.patience=1", "training.epochs=2")
    for overrides, said in ((early, True), (("seed=1",), False)):
        train_all([make(*overrides).cell])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(" left")]
        assert lines and all(("at most" in line) == said for line in lines)


@pytest.mark.parametrize(
    "recipe",
    [
        ("training.epochs=3",),
        ("training.epochs=3", "evaluation.every=end"),
        ("training.max_steps=4", "task.split.validation=0.4"),
        ("training.epochs=2", "task.split.validation=0.4", "evaluation.split=validation"),
        ("training.epochs=0",),
    ],
)
def test_the_work_that_is_planned_is_the_work_that_is_done(make, recipe):
    """The counts of a real run: all that was planned is behind at its end, and evaluations are as many as planned."""
    plan = make(*recipe)
    planned, done, behind = Workload([plan]).ahead(plan), work(), [work()]

    def report(event, steps=0, text="", work=0.0, seconds=0.0):
        if event == "evaluated":
            done[:] = done + work
        else:
            behind[0] = behind[0] + work
            done[STEP] += work[STEP] if event == "stepped" else 0

    assert train_pack([plan], report=report) == {}
    assert behind[0] == pytest.approx(planned)
    assert done[:2] == pytest.approx(planned[:2])
    # The best prompt may be one that was written with already; P0 and the last are the same without a step.
    assert planned[WRITTEN] * 0.6 <= done[WRITTEN] <= planned[WRITTEN]
    if len(plan.task.validation) == 0:
        assert done[WRITTEN] == pytest.approx(planned[WRITTEN])


def test_what_takes_long_says_what_it_is_and_what_is_soon_done_says_nothing(monkeypatch, capsys):
    with said_when_slow("thinking"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    with said_when_slow("loading the model x"):
        import time

        time.sleep(0.3)
    assert re.fullmatch(r"promptgeo is loading the model x \.\.\.\n", capsys.readouterr().err)
