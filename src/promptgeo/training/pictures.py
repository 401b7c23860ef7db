"""Which figures does TensorBoard show of a run that has ended?

Shapes: S shown checkpoints, P prompt tokens, L labels.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from promptgeo.config.terminal import visible
from promptgeo.training.ended import Ended

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 16
"""Checkpoints and prompt tokens of the figure of nearest tokens, at most: as many as can be read."""
LABELS = 30
"""Of the figure of a confusion matrix, at most."""


@contextmanager
def nearest_tokens(ended: Ended) -> "Iterator[Figure | None]":
    """A grid of prompt tokens by checkpoints: the nearest vocabulary token of each, coloured by its cosine."""
    from promptgeo.analysis.figures import ON_CELLS, panels, shares_grid

    shown = ended.tokens
    columns = np.unique(np.linspace(0, len(shown.steps_S) - 1, COLUMNS).round().astype(int))
    cosines_PS = shown.cosines_SPk[columns, :ROWS, 0].T
    width, height = 1.4 + 0.9 * len(columns), 1.0 + 0.28 * len(cosines_PS)
    with _quiet(), panels(width=width, height=height) as (figure, axes):
        axis = axes[0, 0]
        steps = [str(step) for step in shown.steps_S[columns]]
        shares_grid(axis, cosines_PS, range(len(cosines_PS)), steps, written=False)
        for (p, s), cosine in np.ndenumerate(cosines_PS):
            text = one_line(shown.texts_SPk[columns[s], p, 0])[:12]
            colour = ON_CELLS[0 if cosine > 0.6 else 1]
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "parse_math": False}
            axis.text(s + 0.5, p + 0.5, text, color=colour, **look)
        axis.set(xlabel="optimiser step", ylabel="prompt token")
        axis.set_title("nearest vocabulary token; darker: larger cosine", fontsize=9)
        yield figure


@contextmanager
def confusion_matrix(ended: Ended) -> "Iterator[Figure | None]":
    """Shares of each true label's examples by the label chosen; None without a label set, or with too large a one."""
    from promptgeo.analysis.figures import panels, shares_grid

    counts_LL = ended.confusion
    if counts_LL is None or len(counts_LL) > LABELS:
        yield None
        return
    shares_LL = counts_LL / np.where(counts_LL.sum(1, keepdims=True) > 0, counts_LL.sum(1, keepdims=True), np.nan)
    size = 1.6 + 0.45 * len(counts_LL)
    labels = [one_line(label)[:20] for label in ended.labels]
    with _quiet(), panels(width=size + 0.8, height=size) as (figure, axes):
        axis = axes[0, 0]
        shares_grid(axis, shares_LL, labels, labels, rotation=45, ha="right", parse_math=False)
        for label in axis.get_yticklabels():
            label.set_parse_math(False)
        axis.set(xlabel="the likeliest label", ylabel="label")
        yield figure


FIGURES: dict[str, "Callable[[Ended], AbstractContextManager[Figure | None]]"] = {
    "nearest_tokens": nearest_tokens,
    "confusion_matrix": confusion_matrix,
}
"""By the name that they have in TensorBoard."""


def one_line(text: str) -> str:
    """A token's or a label's text in a cell: a tab and a newline are two characters each."""
    return visible(str(text)).replace("\n", "\\n").replace("\t", "\\t")


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, matplotlib does not complain of tokens whose characters its font lacks, nor of long labels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        yield
