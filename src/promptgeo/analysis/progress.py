"""A progress bar for loops of an analysis that take long."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Sequence[Item], label: str = "") -> Iterator[Item]:
    """The items; on a terminal, where there is a label, with a bar that goes away at the end."""
    if not label or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, label, console=Console(stderr=True), transient=True)
