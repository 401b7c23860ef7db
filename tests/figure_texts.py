"""Do texts of a figure lie on each other? Tick labels of one axis, titles of panels and names of their axes."""

import warnings
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

TOUCHING = 1.0
"""Points that the boxes of two texts may share: a box has room above and below its letters."""


def overlapping(figure: Figure) -> list[str]:
    """The pairs of texts that lie on each other, as a sentence each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what no font has, and of layouts: svg() says the same of itself
        figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    names = [text for axes in shown for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    pairs = [*combinations([text for text in names if text.get_text() and text.get_visible()], 2)]
    for axes in figure.axes:
        if axes.get_visible():
            pairs += [pair for axis in (axes.xaxis, axes.yaxis) for pair in pairwise(_shown_labels(axis))]
    return [f"{a.get_text()!r} lies on {b.get_text()!r}" for a, b in pairs if _overlap(a, b)]


def _shown_labels(axis: Any) -> Iterator[Any]:
    low, high = np.sort(axis.get_view_interval())
    for tick, label in zip(axis.get_major_ticks(), axis.get_ticklabels(), strict=False):
        if label.get_text() and label.get_visible() and low <= tick.get_loc() <= high:
            yield label


def _overlap(a: Any, b: Any) -> bool:
    if a.get_rotation() % 90:
        return False  # of a slanted text the box is larger than the text
    one, other = a.get_window_extent(), b.get_window_extent()
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return min(width, height) > TOUCHING * a.figure.dpi / 72
