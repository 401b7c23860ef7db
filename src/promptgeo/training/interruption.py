"""What do Ctrl-C, SIGTERM and SIGUSR2 do? One stops training after the tick or a second later, the next at once."""

import _thread
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from promptgeo.config.explain import exit_with, refusal
from promptgeo.config.terminal import warn
from promptgeo.errors import UserError

log = logging.getLogger(__name__)

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)]
"""Of a person, of the system, and of a cluster's queue that says that time is nearly over."""
GRACE = 1.0
"""Seconds that a tick has to end by itself after a signal: most do, and lose nothing.

An evaluation of a large test split, or the forwards of many runs, may take minutes: they are left, and made again from
the state saved before."""
_raised: list[int] = []
"""Signals that raised Interrupted. One raised inside a finaliser or a callback from C reaches no one, and must stop
training all the same."""


class Interrupted(BaseException):
    """A signal stopped training. Not an Exception: code that handles a run's failure must not catch it."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 140 for SIGUSR2, as shells have it."""
        return 128 + self.signum


class StopRequest:
    """The signal that requested a stop, if there was one. GRACE seconds later it raises Interrupted, unless heeded."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._timer: threading.Timer | None = None

    def __call__(self, signum: int, frame: FrameType | None = None) -> None:
        if self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum
        # The main thread is shown the signal once more: it raises between two operations, so after one forward at most.
        self._timer = threading.Timer(GRACE, _thread.interrupt_main, (signum,))
        self._timer.daemon = True
        self._timer.start()

    def heeded(self) -> None:
        """What was going on has ended: nothing is raised any more, unless another signal comes."""
        if self._timer is not None:
            self._timer.cancel()

    def listen(self) -> None:
        _install(self)
        if _raised and self.signum is None:
            self(_raised[0])


def _raise(signum: int, frame: FrameType | None = None) -> None:
    _raised.append(signum)
    raise Interrupted(signum)


def _install(handler: Callable[[int, FrameType | None], None]) -> None:
    if threading.current_thread() is threading.main_thread():  # nowhere else may handlers be set
        for signum in SIGNALS:
            signal.signal(signum, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, these signals raise Interrupted, or set a StopRequest that listens; then the former handlers are back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    _install(_raise)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if _raise not in before.values():  # the outermost
            _raised.clear()


@contextmanager
def _log_errors_unsaid() -> Iterator[None]:
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = before


@contextmanager
def exit_statuses(advice: str = "the same command goes on from here") -> Iterator[None]:
    """Around a command: what is no programming error becomes one line on standard error and an exit status.

    UserError: 2. What the system refused, such as a write to a full disk: 1. Interrupted: 130, 143, 140.

    advice: what to do after an interruption or a refusal.
    """
    # A log line that a full disk does not take is no reason to print where it was logged, over thirty lines each time.
    with interruptible(), _log_errors_unsaid():
        try:
            yield
        except UserError as error:
            exit_with(error)
        except Exception as error:
            if (refused := refusal(error)) is None:
                raise
            log.debug("", exc_info=error)
            exit_with(f"{refused}; once that is mended, {advice}", 1)
        except Interrupted as stop:
            warn(f"promptgeo: stopped by {stop}; {advice}")
            sys.exit(stop.exit_status)
