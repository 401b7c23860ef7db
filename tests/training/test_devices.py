"""What becomes of a command's processes that cannot say how they ended?"""

import os
import signal
import threading
import time

import pytest

from promptgeo.config.compose import compose
from promptgeo.tiny import PATH as TINY
from promptgeo.training.cell import cell_of
from promptgeo.training.devices import train_on_devices
from promptgeo.training.interruption import Interrupted, interruptible


def never_ends(cells, report):
    """As a process that has not come to its own signal handlers yet: a signal ends it without a word."""
    time.sleep(600)


def is_killed(cells, report):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    out = tmp_path_factory.mktemp("devices")
    return [
        cell_of(compose([f"model.name_or_path={TINY}", f"outputs={out}", f"seed={seed}", "device=cpu"]))
        for seed in (0, 1)
    ]


@pytest.mark.long
def test_a_signal_that_ends_processes_before_they_can_say_so_is_an_interruption(cells):
    timer = threading.Timer(12.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with interruptible(), pytest.raises(Interrupted) as stop:
        train_on_devices(cells, 2, never_ends)
    assert stop.value.exit_status == 143


@pytest.mark.long
def test_a_process_that_is_killed_alone_is_named(cells):
    with pytest.raises(RuntimeError, match=r"the process of device [01] ended with status -9"):
        train_on_devices(cells, 2, is_killed)
