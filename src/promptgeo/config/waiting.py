"""What is said while something takes long? One line on standard error, and nothing where it is soon done."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from promptgeo.config.terminal import warn

PATIENCE = 2.0
"""Seconds before it is said."""


@contextmanager
def said_when_slow(doing: str) -> Iterator[None]:
    """Within: after PATIENCE, `promptgeo is <doing> ...` on standard error."""
    timer = Timer(PATIENCE, lambda: warn(f"promptgeo is {doing} ..."))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
