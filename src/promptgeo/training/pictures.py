"""How does TensorBoard see a run that has ended? Its figures, and its prompt tokens as points of the projector.

Shapes: S shown checkpoints, P prompt tokens, d width, L labels.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptgeo.config.terminal import visible
from promptgeo.runs.folder import write_atomically
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
            text = _one_line(shown.texts_SPk[columns[s], p, 0])[:12]
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
    labels = [_one_line(label)[:20] for label in ended.labels]
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


def write_projector(folder: Path, ended: Ended) -> None:
    """The files of TensorBoard's projector: a point per checkpoint and prompt token, a row of metadata for each."""
    from tensorboard.plugins import projector

    shown, config = ended.tokens, ended.plan.config
    columns = ["token", "step", "position", "cosine", "task", "init", "seed"]
    same = [_one_line(config.task.name), _one_line(config.init.name), str(config.seed)]
    rows = [
        [_one_line(shown.texts_SPk[s, p, 0]), str(shown.steps_S[s]), str(p), f"{shown.cosines_SPk[s, p, 0]:.4f}", *same]
        for s, p in np.ndindex(shown.prompts_SPd.shape[:2])
    ]
    points_Kd = shown.prompts_SPd.reshape(-1, shown.prompts_SPd.shape[-1])
    numbers = [[f"{x:.9g}" for x in point_d] for point_d in points_Kd]
    made = {"tensors.tsv": numbers, "metadata.tsv": [columns, *rows]}
    place = folder / "projector"
    place.mkdir(parents=True, exist_ok=True)
    for name, lines in made.items():
        write_atomically(place / name, "".join("\t".join(line) + "\n" for line in lines).encode())
    said = projector.ProjectorConfig()
    said.embeddings.add(
        tensor_name="prompt tokens",
        tensor_shape=points_Kd.shape,
        tensor_path="projector/tensors.tsv",
        metadata_path="projector/metadata.tsv",
    )
    projector.visualize_embeddings(str(folder), said)


def _one_line(text: str) -> str:
    """A token's or a label's text in a cell: a tab and a newline are two characters each."""
    return visible(str(text)).replace("\n", "\\n").replace("\t", "\\t")


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, matplotlib does not complain of tokens whose characters its font lacks, nor of long labels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        yield
