"""Which prompts were scored before an analysis was stopped? Hours of scoring go on where they were.

While an analysis runs, scores that took long to make are kept in a hidden folder beside its results, which goes when
these are stored. Scores are found again by their place among all that the analysis asks for, and by what they are of.
"""

import hashlib
import io
import json
import logging
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.config.explain import refusal
from promptgeo.evaluation.evaluate import Evaluation
from promptgeo.runs.folder import discard, write_atomically

log = logging.getLogger(__name__)
SECONDS = 1.0
"""What took less is scored again."""
TEXTS = "outputs"
"""The field of an Evaluation that is no array."""


@dataclass
class KeptScores:
    """The scores of one analysis, as far as it has come."""

    folder: Path
    asked: int = 0
    """How many scores the analysis has asked for so far."""
    refused: bool = False
    """Whether the disk would not take any."""


_of_this_analysis: ContextVar[KeptScores | None] = ContextVar("kept scores", default=None)


@contextmanager
def keeping(results: Path, key: str, anew: bool = False) -> Iterator[int]:
    """Within, scores are kept for the analysis whose results will lie in a folder. Yields how many lie there already.

    results: the folder. key: of the results, which says of which runs, options and code they are. anew: what was kept
    is not wanted. `forget` deletes what is kept; else it stays for the same analysis, also where that failed.
    """
    place = _place(results)
    if anew or place.is_symlink():
        discard(place)
    folder = place / key[:16]
    token = _of_this_analysis.set(KeptScores(folder))
    try:
        yield len(list(folder.glob("*.npz")))
    finally:
        _of_this_analysis.reset(token)


def forget(results: Path) -> None:
    """Deletes all that was kept for the results of a folder, for they are stored."""
    discard(_place(results))


def kept(what: tuple[bytes, ...], score: Callable[[], Evaluation]) -> Evaluation:
    """The scores, as `score` makes them or as they were kept. what: the bytes of all that they are of."""
    scores = _of_this_analysis.get()
    if scores is None:
        return score()
    content = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in what)).hexdigest()
    path = scores.folder / f"{scores.asked:06d}-{content[:16]}.npz"
    scores.asked += 1
    if (before := _read(path)) is not None:
        return before
    start = time.perf_counter()
    made = score()
    if time.perf_counter() - start >= SECONDS and not scores.refused:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _written(made))
        except OSError as error:  # the analysis can go on without
            scores.refused = True
            log.warning("scores cannot be kept, so that a stopped analysis starts anew: %s", refusal(error))
    return made


def _place(results: Path) -> Path:
    return results.with_name(f".{results.name}.scored")


def _written(scores: Evaluation) -> bytes:
    values: dict[str, Any] = {each.name: getattr(scores, each.name) for each in fields(scores)}
    values[TEXTS] = np.frombuffer(json.dumps(values[TEXTS]).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **{name: value for name, value in values.items() if value is not None})
    return stream.getvalue()


def _read(path: Path) -> Evaluation | None:
    """The scores of a file; None where there is none, or it is damaged (its arrays have checksums)."""
    if path.is_symlink():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            values: dict[str, Any] = {each.name: arrays.get(each.name) for each in fields(Evaluation)}
        values[TEXTS] = json.loads(values[TEXTS].tobytes())
        return Evaluation(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged and is scored again: %s", path, error)
        return None
