"""What every figure promises to who doubts it, asked of each that a test draws.

Its title says what is seen; axes of numbers are named; panels that show one quantity have the same limits; behind
every mean stands what it is the mean of.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FuncFormatter

from promptgeo.analysis.figures import EACH

OF_NOTHING_SINGLE = ("R²", "init closer")
"""What axes begin with whose numbers are no means: a share of variance, the difference of two means."""


def broken(figure: Figure) -> list[str]:
    """The promises that it breaks, a sentence each."""
    said = [] if figure.get_suptitle() else ["it has no title"]
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.axison and not hasattr(axes, "_colorbar")]
    for which in ("x", "y"):
        shown = [(axes, _name(axes, which, panels, figure)) for axes in panels if _has_numbers(axes, which)]
        said += [f"the {which} axis of {_title(axes)} has no name" for axes, name in shown if not name]
        for (one, name), (other, also) in combinations(shown, 2):
            limits = [getattr(axes, f"get_{which}lim")() for axes in (one, other)]
            if name == also and not np.allclose(*limits):
                said.append(f"{_title(one)} and {_title(other)} show {name!r} along {which} in other limits")
    for one, other in combinations(_coloured(panels), 2):
        if one.axes is not other.axes and one.cmap.name == other.cmap.name and one.get_clim() != other.get_clim():
            said.append(f"colours of {_title(one.axes)} mean something else in {_title(other.axes)}")
    return said + [f"no points stand behind the means of {_title(axes)}" for axes in panels if _bare(axes)]


def _title(axes: Any) -> str:
    return repr(axes.get_title())


def _has_numbers(axes: Any, which: str) -> bool:
    axis = getattr(axes, f"{which}axis")
    written = isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)  # names of categories
    return bool(len(axis.get_majorticklocs())) and not written


def _name(axes: Any, which: str, panels: list[Any], figure: Figure) -> str:
    """Of an axis: its own, that of a panel beside (below) which shares it, or the figure's."""
    group = getattr(axes, f"get_shared_{which}_axes")()
    sharing = [axes, *(each for each in panels if group.joined(axes, each))]
    names = [getattr(each, f"get_{which}label")() for each in sharing]
    return next(filter(None, [*names, getattr(figure, f"get_sup{which}label")()]), "")


def _coloured(panels: list[Any]) -> Iterator[Any]:
    for axes in panels:
        yield from (each for each in axes.collections if each.get_array() is not None)


def _bare(axes: Any) -> bool:
    """Whether means with intervals stand there without anything behind one of them, in its colour."""
    behind = {line.get_color() for line in axes.lines if line.get_label() == EACH}
    if axes.get_ylabel().startswith(OF_NOTHING_SINGLE):
        return False
    drawn = [each for each in axes.containers if isinstance(each, ErrorbarContainer) and len(each[0].get_xdata())]
    return any(each[0].get_color() not in behind for each in drawn)
