"""Figures as SVG texts: one look for all, and the same bytes for the same numbers."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from promptgeo.analysis.result import Number
from promptgeo.config.terminal import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#3c00f0", "#b4b400", "#871e5a", "#1ec3b4", "#c36969", "#005a00", "#a578ff")
"""Any two at least 19 apart (CIEDE2000), to protanopes, deuteranopes and tritanopes too. More levels than these are
told apart by markers, line styles or labels."""
DARK = ("#a569ff", "#d2a500", "#a53c87", "#00f0b4", "#696900", "#4b9678", "#d2c3ff")
"""What stands for each of COLOURS on a dark page, likewise apart."""
NEUTRAL = "#777777"
"""Of what is no level: a control, a null, a limit."""
GRID = "#e5e5e5"
ON_CELLS = ("#fefefe", "#101010")
"""Texts on dark and on light cells; neither is the page's own ink, which a dark page turns round."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "promptgeo",
    "figure.constrained_layout.use": True,
}


@contextmanager
def panels(
    rows: int = 1, columns: int = 1, width: float = 7.2, height: float = 2.6, **options: Any
) -> Iterator[tuple["Figure", Any]]:
    """A figure and its axes [rows, columns] in the common style; closed afterwards.

    Args:
        width: of the figure, in inches.
        height: of one row, in inches.
        options: matplotlib's, for `plt.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, **options)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


_title: ContextVar[str] = ContextVar("title", default="")


@contextmanager
def titled(title: str) -> Iterator[None]:
    """Within, every figure has this title; none where it is empty. For what tells its runs from others."""
    token = _title.set(title)
    try:
        yield
    finally:
        _title.reset(token)


def svg(figure: "Figure") -> str:
    """The figure as SVG text, without date or creator, and with ids of its own so that many fit into one page."""
    if _title.get():
        figure.suptitle(_title.get(), fontsize=9, x=0.01, ha="left")
    _take_texts_as_written(figure)
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # texts are drawn by whoever shows the SVG
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names longer than the figure
        # As large as what is drawn: no name is so long, and no legend so full, that it is cut off.
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return visible(text[text.index("<svg") :])  # XML has no control characters


def _take_texts_as_written(figure: "Figure") -> None:
    """A label with `$` is no formula; only the powers of a logarithmic axis are."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatter):
            for label in axis.get_ticklabels(which="both"):
                label.set_parse_math(True)


@contextmanager
def small_multiples(n: int, columns: int = 2, **options: Any) -> Iterator[tuple["Figure", list[Any]]]:
    """A figure and n axes, at most `columns` of them side by side; the rest of the last row stays empty.

    options: as panels'.
    """
    columns = min(n, columns)
    with panels(-(-n // columns), columns, **options) as (figure, axes):
        for axis in axes.flat[n:]:
            axis.set_visible(False)
        yield figure, list(axes.flat[:n])


def with_bars(numbers: Sequence[Number]) -> tuple[np.ndarray, np.ndarray]:
    """(values [n], error bars [2, n] of their 95 % intervals), as matplotlib's errorbar and bar take them."""
    values = np.array([number.value for number in numbers])
    low, high = np.array([number.interval for number in numbers]).T
    return values, np.clip([values - low, high - values], 0, None)


def write_cells(axis: Any, values_RC: np.ndarray, spec: str, dark_RC: np.ndarray, at: float = 0.5) -> None:
    """Writes numbers on the cells of a grid, but no NaN. spec: their format. dark_RC: cells that are dark."""
    for (i, j), value in np.ndenumerate(values_RC):
        if np.isfinite(value):
            text, colour = format(value, spec), ON_CELLS[0 if dark_RC[i, j] else 1]
            axis.text(j + at, i + at, text, ha="center", va="center", fontsize=7, color=colour)


def shares_grid(
    axis: Any, shares_RC: np.ndarray, rows: Sequence[Any], columns: Sequence[Any], written: bool = True, **labels: Any
) -> Any:
    """Draws shares from 0 to 1 as a grid of cells, the first row on top; returns matplotlib's mesh, for a colour bar.

    Args:
        shares_RC: NaN where there is none.
        rows: their tick labels; columns likewise.
        written: whether the numbers stand in the cells.
        labels: matplotlib's, for the columns' tick labels.
    """
    mesh = axis.pcolormesh(np.ma.masked_invalid(shares_RC), vmin=0, vmax=1, cmap="Blues")
    if written:
        write_cells(axis, shares_RC, ".2f", shares_RC > 0.6)
    axis.set(xticks=np.arange(len(columns)) + 0.5, yticks=np.arange(len(rows)) + 0.5)
    axis.set_xticklabels(columns, **labels)
    axis.set_yticklabels(rows)
    axis.invert_yaxis()
    axis.grid(False)
    return mesh
