"""A progress bar for loops of an analysis that take long."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from promptgeo.config.terminal import column, console

Item = TypeVar("Item")


def progress(items: Sequence[Item], label: str = "") -> Iterator[Item]:
    """The items; on a terminal, where there is a label, with a bar that goes away at the end."""
    if not label or not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (column("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        yield from bar.track(items, description=label)
