"""Figures as SVG texts: one look for all, and the same bytes for the same numbers."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)
"""Distinct also to most colour-blind readers; for more than ten levels they repeat with other markers."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
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


def svg(figure: "Figure") -> str:
    """The figure as SVG text, without date or creator, and with ids of its own so that many fit into one page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


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
