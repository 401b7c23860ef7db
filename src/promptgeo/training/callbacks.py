"""What is called as a pack trains? `Recorder` writes run folders, `Checkpointer` saves the state for resuming."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache

from promptgeo.runs.folder import Trained, write_run
from promptgeo.training.interruption import StopRequest
from promptgeo.training.run_state import RunState, discard_state

log = logging.getLogger(__name__)


class Callback:
    """Is called with what happens to each run of a pack. Nothing it does changes a number."""

    def begun(self, save: Callable[[], None]) -> None:
        """Before the first tick. save(): writes every active run's state, from which training can resume."""

    def started(self, state: RunState) -> None:
        """The run has a slot; where state.step > 0, it was resumed from there."""

    def evaluated(self, states: Sequence[RunState], prompts: int, split: str, outputs: bool, seconds: float) -> None:
        """`prompts` of these runs were scored on `split` (states: one for each; runs with equal prompts share one)."""

    def stepped(self, state: RunState) -> None:
        """After each step. Rows of state.metrics are added at the end of an epoch only."""

    def ended(self, state: RunState, trained: Trained) -> None:
        """The run has ended: completed or diverged; or grid.halving has stopped it."""

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        """The run cannot go on. trained: what it did so far, without predictions."""

    def ticked(self) -> bool:
        """After each tick of all active runs; whether to stop training here."""
        return False

    def closed(self) -> None:
        """No tick follows, for whatever reason."""


class Recorder(Callback):
    """Writes each run's folder when the run ends."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        """Of the runs that failed: id -> reason."""

    def ended(self, state: RunState, trained: Trained) -> None:
        if trained.status == "stopped":  # its state stays: another command may finish it
            write_run(state.plan.folder, state.plan.header() | {"stopped": state.stopped_at()}, trained)
            return
        write_run(state.plan.folder, state.plan.header(), trained)
        discard_state(state.plan.folder)

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.errors[state.plan.id] = reason
        log.error("%s failed: %s", state.plan.folder.name, reason)
        log.debug("", exc_info=error)
        try:
            write_run(state.plan.folder, state.plan.header() | {"error": reason}, trained)
        except OSError as again:
            log.error("%s: cannot be written: %s", state.plan.folder, again)


class Checkpointer(Callback):
    """Saves the runs' states now and then, and stops training after the tick in which a signal came."""

    SECONDS = 2.0
    """Between two saves at least. A kill costs so much work; it costs no bit."""
    SHARE = 0.02
    """Of the time, at most, is spent on saving: on a slow disk, or with many runs, saves come less often."""

    def __init__(self) -> None:
        self.stop = StopRequest()
        self._warn_once = cache(log.warning)  # a full disk fails every few seconds

    def begun(self, save: Callable[[], None]) -> None:
        self.save = save
        self.next = time.monotonic() + self.SECONDS
        self.stop.listen()  # now: Lightning set a handler of its own when it started

    def ticked(self) -> bool:
        now = time.monotonic()
        self.stop.heeded()
        if self.stop.signum is not None or now >= self.next:
            try:
                self.save()
            except OSError as error:
                self._warn_once(
                    f"the state for resuming cannot be saved ({error}): training goes on; "
                    "a stopped sweep would resume from the state saved before"
                )
            spent = time.monotonic() - now
            self.next = now + max(self.SECONDS, spent / self.SHARE)
        return self.stop.signum is not None

    def closed(self) -> None:
        self.stop.heeded()
