"""How does a text reach a terminal? As it is written: no character of a name, label or path is an instruction to it.

Lines, rich's tables, progress bars and log messages each pass here once. Nothing else prints.
"""

import logging
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn

# All control characters but newline and tab; what turns the direction of a line's text; bytes that are no UTF-8.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


UNCUT = 1000
"""Columns of what is written to a file or a pipe: more than any table has, so that nothing is cut."""


def visible(text: str) -> str:
    r"""The text with its control characters as they are written in Python: an escape is the four characters \x1b."""
    return _UNSEEN.sub(lambda unseen: ascii(unseen[0])[1:-1], text)


def counted(n: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{n:,} {word}{'s' if n != 1 else ''}"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a text and a newline. stream: by default standard output.

    Whoever reads that, such as head, may have read enough: then the process ends as by SIGPIPE, and says nothing.
    """
    try:
        print(visible(text), file=stream or sys.stdout, flush=True)
    except BrokenPipeError:
        if stream is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else it is tried again at the end
        sys.exit(128 + signal.SIGPIPE)


def warn(text: str) -> None:
    """Print a text and a newline on standard error."""
    say(text, sys.stderr)


def console(stderr: bool = False, width: int | None = None) -> "Console":
    """A rich console that takes no text for markup: `[/red]` and `:smile:` are printed as they are.

    width: columns; by default the terminal's, and enough for any table where there is none.
    """
    from rich.console import Console
    from rich.text import Text

    class Literal(Console):
        def render_str(self, text: str, **options: object) -> Text:  # all that is printed as a str comes here
            return super().render_str(visible(text), **options)

    if width is None and not (sys.stderr if stderr else sys.stdout).isatty():
        width = UNCUT
    return Literal(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def column(of_task: str) -> "TextColumn":
    """A text beside a progress bar. of_task: its format, with fields of the bar's task."""
    from rich.progress import Task, TextColumn
    from rich.text import Text

    class Literal(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(visible(self.text_format.format(task=task)))

    return Literal(of_task)


class Formatter(logging.Formatter):
    """Of every handler that promptgeo sets up; conf/train.yaml names it to Hydra."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def show_log() -> None:
    """Log messages go to standard error from `info` on, unless somebody has set up logging."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
