"""Figures as SVG texts: one look for all, values behind their means, and the same bytes for the same numbers."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

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
EACH = "_each"
"""Label of what stands behind a mean; its underscore keeps it out of legends."""
MOST_BEHIND = 50
"""Points, or lines, behind a mean, at most: of more, so many evenly by rank, both ends among them."""
MARKERS = "os^Dvpx+*"
"""Of points by level, where there are more levels than colours."""
LETTERS = 14
"""Of a title, to the inch of a figure's width."""
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
    """Within, this stands above every figure's own title; nothing if it is empty. For what tells runs from others."""
    token = _title.set(title)
    try:
        yield
    finally:
        _title.reset(token)


def svg(figure: "Figure", seen: str) -> str:
    """The figure as SVG text, without date or creator, and with ids of its own so that many fit into one page.

    seen: the title, in words: what is seen, and of what, with what stands behind means. Also the file's own title.
    """
    title = textwrap.fill(seen, int(LETTERS * figure.get_figwidth()), break_long_words=False)
    figure.suptitle("\n".join(filter(None, [_title.get(), title])), fontsize=9, x=0.01, ha="left")
    _take_texts_as_written(figure)
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # texts are drawn by whoever shows the SVG
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names longer than the figure
        # As large as what is drawn: no name is so long, and no legend so full, that it is cut off.
        said = {"Date": None, "Creator": None, "Title": seen}
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata=said)
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
def small_multiples(
    n: int, columns: int = 2, x: str = "", y: str = "", **options: Any
) -> Iterator[tuple["Figure", list[Any]]]:
    """A figure and n axes of one kind with the same limits, at most `columns` side by side.

    The rest of the last row stays empty.

    Args:
        x: what the axes along x show, with its unit; written below the lowest. y: likewise, beside the first ones.
        options: as panels'; sharex=False and sharey=False where panels have categories of their own.
    """
    columns = min(n, columns)
    options = {"sharex": True, "sharey": True} | options
    with panels(-(-n // columns), columns, **options) as (figure, axes):
        for axis in axes.flat[n:]:
            axis.set_visible(False)
        for axis in axes.flat[n - columns : n]:
            # Beside each other names must not meet; a fifth of a panel's width is its neighbour's tick labels.
            axis.set_xlabel(textwrap.fill(x, int(LETTERS * 0.8 * figure.get_figwidth() / columns)))
            axis.tick_params(labelbottom=True)  # below may be an empty place
        for axis in axes[:, 0]:
            axis.set_ylabel(y)
        yield figure, list(axes.flat[:n])


def estimates(
    axis: Any,
    at: Sequence[float] | np.ndarray,
    numbers: Sequence[Number],
    behind: Sequence[Sequence[float] | np.ndarray] | None,
    *,
    color: str,
    across: float = 0.0,
    sideways: bool = False,
    **style: Any,
) -> None:
    """Draws numbers with their 95 % intervals, where they have any, and behind each what it is the mean of.

    Args:
        at: where each stands along x; sideways: along y.
        behind: for each number the values that it is the mean of, small and faint; None where it is the mean of
            nothing: a share of variance, a correlation.
        across: how wide these spread about `at`, in its unit; in the same way for as many values.
        style: matplotlib's, for errorbar.
    """
    for place, values in zip(at, behind if behind is not None else [()] * len(numbers), strict=True):
        points_at(axis, place, values, color=color, across=across, sideways=sideways)
    values, bars = with_bars(numbers)
    given = {"marker": "o", "markersize": 4.5, "linestyle": "none", "linewidth": 1.2} | style
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}  # a mean is told from the points that it covers
    x, y = (values, at) if sideways else (at, values)
    given |= {"xerr" if sideways else "yerr": bars}
    axis.errorbar(x, y, color=color, elinewidth=0.9, capsize=2, **edge | given)


def points_at(
    axis: Any, at: float, values: Sequence[float] | np.ndarray, *, color: str, across: float, sideways: bool = False
) -> None:
    """Draws values at one place, small and faint, spread about it: the same for as many values; at most MOST_BEHIND."""
    shown = np.asarray(values, dtype=float)
    shown = shown[np.isfinite(shown)]
    if len(shown) > MOST_BEHIND:
        shown = np.sort(shown)[np.linspace(0, len(shown) - 1, MOST_BEHIND).round().astype(int)]
    golden = (np.sqrt(5) - 1) / 2  # its multiples spread evenly, however many there are
    places = at + across * ((golden * np.arange(1, len(shown) + 1)) % 1 - 0.5)
    x, y = (shown, places) if sideways else (places, shown)
    look = {"linestyle": "none", "marker": ".", "markersize": 4, "markeredgewidth": 0, "alpha": 0.4, "zorder": 1.6}
    axis.plot(x, y, color=color, label=EACH, **look)


def mean_line(axis: Any, table: pd.DataFrame, x: str, y: str, each: Any, *, color: str, **style: Any) -> None:
    """Draws the mean of column y at each x, and behind it, thin and faint, the line of each that it is the mean of.

    Args:
        each: the column that says whose a row is, or several.
        style: matplotlib's, for the mean's line.
    """
    of_each = [own.sort_values(x) for _, own in table.groupby(each, sort=False)]
    lines_behind(axis, [(own[x], own[y]) for own in of_each], color=color)
    means = table.groupby(x)[y].mean()
    marker = "o" if len(means) < 12 else None  # more would hide the line
    axis.plot(means.index, means, **{"color": color, "linewidth": 1.4, "marker": marker, "markersize": 3} | style)


def lines_behind(axis: Any, lines: Sequence[tuple[Any, Any]], *, color: str) -> None:
    """Draws lines (x, y) thin and faint; of more than MOST_BEHIND so many, evenly in their order."""
    look = {"linewidth": 0.6, "marker": ".", "markersize": 3, "markeredgewidth": 0, "alpha": 0.4, "zorder": 1.6}
    for k in np.linspace(0, len(lines) - 1, min(len(lines), MOST_BEHIND)).round().astype(int):
        axis.plot(*lines[k], color=color, label=EACH, **look)


def with_bars(numbers: Sequence[Number]) -> tuple[np.ndarray, np.ndarray]:
    """(values [n], error bars [2, n] of their 95 % intervals), as matplotlib takes them; NaN where there is none."""
    values = np.array([number.value for number in numbers])
    ends = [(np.nan, np.nan) if n.low is None or n.high is None else (n.low, n.high) for n in numbers]
    low, high = np.array(ends, dtype=float).reshape(-1, 2).T
    return values, np.clip([values - low, high - values], 0, None)


def levels_at(axis: Any, plane_K2: np.ndarray, levels: pd.Series) -> None:
    """Draws points of a plane without a unit, a colour and marker for each level, in order of appearance."""
    for i, level in enumerate(dict.fromkeys(levels)):
        axis.plot(
            *plane_K2[(levels == level).to_numpy()].T,
            linestyle="none",
            marker=MARKERS[i // len(COLOURS) % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            markersize=2.6 if len(plane_K2) > MOST_BEHIND else 4.5,
            markeredgewidth=0.3,
            label=str(level),
        )
    axis.set(xticks=[], yticks=[])


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
