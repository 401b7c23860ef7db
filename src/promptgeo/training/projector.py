"""What does TensorBoard's projector show? A run's prompt tokens over training, and those of all runs of a folder.

Shapes: K points, d width, S shown checkpoints, P prompt tokens.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from promptgeo.runs.folder import write_atomically
from promptgeo.training.ended import Ended
from promptgeo.training.pictures import one_line

log = logging.getLogger(__name__)

COLUMNS = ("token", "step", "position", "cosine", "task", "init", "seed", "model")
"""What is said of each point; the projector writes the first beside it. token: the nearest one of the vocabulary."""
MOST = 10_000
"""Points of a folder's runs: more of them no browser turns smoothly."""

Lines = list[tuple[str, str]]
"""Of each point, its line of the metadata and its line of the tensors, as they stand in the files."""


def write_of_run(folder: Path, ended: Ended) -> None:
    """The projector's files of a run: a point per shown checkpoint and prompt token. folder: its TensorBoard folder."""
    shown, config = ended.tokens, ended.plan.config
    same = [one_line(config.task.name), one_line(config.init.name), str(config.seed), one_line(config.model.name)]
    points = [
        (
            _line(
                one_line(shown.texts_SPk[s, p, 0]),
                str(shown.steps_S[s]),
                str(p),
                f"{shown.cosines_SPk[s, p, 0]:.4f}",
                *same,
            ),
            _line(*(f"{x:.9g}" for x in shown.prompts_SPd[s, p])),
        )
        for s, p in np.ndindex(shown.prompts_SPd.shape[:2])
    ]
    _write(folder, {"prompt tokens": points}, COLUMNS)


def write_of_all(folder: Path) -> None:
    """The files of all runs of a sweep: the prompt tokens of each at its last shown checkpoint.

    folder: outputs/<name>/tensorboard, which the projector lists as `.`. Runs of each model are points of their own. Of
    more than MOST points as many runs are shown, evenly in the order of their names.
    """
    by_model: dict[tuple[str, int], list[Lines]] = {}
    for place in sorted(folder.glob("*/projector/metadata.tsv")):
        last = _last(place.parent)
        if not last:
            log.warning("%s: is of another version, or cut: its run is left out of the projector of all runs", place)
        else:
            model, width = last[0][0].rpartition("\t")[2], last[0][1].count("\t") + 1
            run = one_line(place.parents[1].name)
            by_model.setdefault((model, width), []).append([(_line(said, run), point) for said, point in last])
    embeddings = {}
    for (model, _), runs in by_model.items():
        few = max(MOST // max(map(len, runs)), 1)
        shown = np.unique(np.linspace(0, len(runs) - 1, min(len(runs), few)).round().astype(int))
        key = (
            f"prompt tokens, {len(shown)} of {len(runs)} runs" if len(shown) < len(runs) else "prompt tokens, all runs"
        )
        name = f"{key}, {model}" if len(by_model) > 1 else key
        embeddings[name] = [line for r in shown for line in runs[r]]
    if embeddings:
        _write(folder, embeddings, (*COLUMNS, "run"))


def _last(place: Path) -> Lines:
    """The points of a run at its last step; none where its files are not these."""
    header, *rows = (place / "metadata.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    if header != _line(*COLUMNS):
        return []
    points = (place / "tensors.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    if len(points) != len(rows):
        return []
    step = COLUMNS.index("step")
    last = rows[-1].split("\t")[step]
    return [(said, point) for said, point in zip(rows, points, strict=True) if said.split("\t")[step] == last]


def _write(folder: Path, embeddings: dict[str, Lines], columns: Sequence[str]) -> None:
    from tensorboard.plugins import projector

    said = projector.ProjectorConfig()
    place = folder / "projector"
    place.mkdir(parents=True, exist_ok=True)
    for k, (name, points) in enumerate(embeddings.items()):
        mark = f"_{k}" if len(embeddings) > 1 else ""
        header = _line(*columns)
        files = {"metadata": [header, *(said for said, _ in points)], "tensors": [point for _, point in points]}
        for kind, lines in files.items():
            write_atomically(place / f"{kind}{mark}.tsv", "".join(f"{line}\n" for line in lines).encode())
        said.embeddings.add(
            tensor_name=name,
            tensor_shape=(len(points), points[0][1].count("\t") + 1),
            tensor_path=f"projector/tensors{mark}.tsv",
            metadata_path=f"projector/metadata{mark}.tsv",
        )
    projector.visualize_embeddings(str(folder), said)


def _line(*cells: str) -> str:
    return "\t".join(cells)
