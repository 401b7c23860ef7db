"""A signal is heeded within two seconds, whatever goes on; what was cut off is made again, to the same bytes."""

import csv
import os
import signal
import threading
import time

import pytest

import reference
from promptgeo.runs.folder import Run
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack
from promptgeo.training.interruption import GRACE, Interrupted


@pytest.fixture
def make(tmp_path):
    """make(tests, outputs, ...) -> a plan on the embedded model with so many test examples, of which it writes much."""

    def make(tests: int, outputs: str, *overrides: str):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for split, n in (("train", 8), ("test", tests)):
            with (data / f"{split}.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([("input", "label"), *((f"say {split} {i}", "it") for i in range(n))])
        own = ("task=custom", f"task.source.path={data}", "task.split.kind=own", "template=study3")
        return reference.make_plan(TINY, tmp_path / outputs, *own, "training.batch_size=4", *overrides)

    return make


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_evaluation_that_would_take_long(make, signum):
    plan, came = make(6000, "out", "evaluation.max_new_tokens=40"), []

    def send() -> None:
        came.append(time.monotonic())
        os.kill(os.getpid(), signum)

    def report(event, *rest, **more):
        if event == "started":  # P0 is scored next
            threading.Timer(0.3, send).start()

    with pytest.raises(Interrupted) as stop:
        train_pack([plan], report=report)
    assert time.monotonic() - came[0] < GRACE + 2.0
    assert stop.value.signum == signum
    assert signal.getsignal(signum) is not None and not plan.folder.exists()


def test_an_evaluation_that_was_cut_off_is_made_again_to_the_same_bytes(make, monkeypatch):
    from promptgeo.training import interruption
    from promptgeo.training.callbacks import Checkpointer

    line = (100, "training.epochs=3", "evaluation.max_new_tokens=20")
    undisturbed = make(line[0], "undisturbed", *line[1:])
    assert train_pack([undisturbed]) == {}
    stopped = make(line[0], "stopped", *line[1:])
    monkeypatch.setattr(interruption, "GRACE", 0.05)
    monkeypatch.setattr(Checkpointer, "SECONDS", 0.0)  # every tick is saved

    steps = []

    def report(event, *rest, **more):
        steps.append(event)
        # One signal: what is reported later than the third step is no step. The fourth's epoch ends with a scoring.
        if event == "stepped" and steps.count("stepped") == 3:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(Interrupted):
        train_pack([stopped], report=report)
    assert not (stopped.folder / "run.json").exists() and (stopped.folder / "state").exists()
    assert train_pack([stopped]) == {}
    assert Run.load(stopped.folder).info["files"] == Run.load(undisturbed.folder).info["files"]
