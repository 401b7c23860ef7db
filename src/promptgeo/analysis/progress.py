"""A progress bar for loops of an analysis that take long."""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from promptgeo.config.terminal import column, console

Item = TypeVar("Item")


def progress(items: Sequence[Item], label: str = "") -> Iterator[Item]:
    """The items; on a terminal, where there is a label, with a bar that goes away at the end.

    A loop within a loop has its bar below.
    """
    if not label or not sys.stderr.isatty() or len(items) == 1:
        yield from items
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (column("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_screen(), transient=True) as bar:
        yield from bar.track(items, description=label)


@cache
def _screen() -> Any:
    """One for all bars: a console draws one below the other, two of them draw over each other."""
    return console(stderr=True)
