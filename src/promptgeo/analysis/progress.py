"""A progress bar for loops of an analysis that take long."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from promptgeo.config.terminal import column, console

Item = TypeVar("Item")


_shown: list[Any] = []
"""The bars' display while there is one: a loop within a loop has its bar below."""


def progress(items: Sequence[Item], label: str = "") -> Iterator[Item]:
    """The items; on a terminal, where there is a label, with a bar that goes away at the end."""
    if not label or not sys.stderr.isatty() or len(items) == 1:
        yield from items
        return
    if _shown:
        task = _shown[0].add_task(label)
        try:
            yield from _shown[0].track(items, task_id=task)
        finally:
            _shown[0].remove_task(task)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (column("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        _shown.append(bar)
        try:
            yield from bar.track(items, description=label)
        finally:
            _shown.clear()
