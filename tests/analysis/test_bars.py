"""Bars of an analysis: a loop within a loop has its own, and items come as they are, whatever is shown."""

import io
import re
import sys

import pytest

from promptgeo.analysis.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch) -> Terminal:
    """Standard error as a terminal, from here on: between a test's phases pytest puts its own there."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_a_loop_within_a_loop_has_a_bar_below(monkeypatch):
    terminal = terminal_of(monkeypatch)
    seen = [(a, b) for a in progress([1, 2], "outer loop") for b in progress("xyz", "inner loop")]
    assert seen == [(a, b) for a in (1, 2) for b in "xyz"]
    assert re.search(r"outer loop[^\n]*\ninner loop", terminal.getvalue())


def test_a_loop_that_is_left_leaves_room_for_the_next(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        for a in progress([1, 0], "first"):
            for _ in progress([1, 2], "within"):
                _ = 1 / a
    assert list(progress([1, 2], "second")) == [1, 2]
    assert "second" in terminal.getvalue()


def test_one_item_and_no_label_have_no_bar(monkeypatch):
    terminal = terminal_of(monkeypatch)
    assert [*progress([1], "one"), *progress([1, 2])] == [1, 1, 2]
    assert terminal.getvalue() == ""
