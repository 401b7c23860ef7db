"""A map of prompts as one HTML page: canvas, data inline, nothing that is loaded, no text that is run.

The page itself is atlas_page.html, beside this file; its script and style are named by their hashes, so that a browser
runs nothing else.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, DARK
from promptgeo.analysis.geometry.clusters import NONE
from promptgeo.analysis.geometry.nearest import Nearest
from promptgeo.config.terminal import visible

SIDE = 10_000
"""Places along the longer side of the map: whole numbers are short."""
FINE = 10_000
"""Of a distance in the unit of the largest one shown."""
PATH = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Map:
    """What the page shows of K points of N runs."""

    title: str
    said: tuple[str, ...]
    """Sentences above the map: what it keeps."""
    keeps: str
    """The same in a few words, which are always seen."""
    points: pd.DataFrame
    """K rows: run, task, init, ..., step, x, y, cluster, accuracy."""
    run_K: np.ndarray
    """int64: the run of each point; a run's points lie beside each other, its final one last."""
    nearest: Nearest
    others: Nearest
    """Among the points of other runs."""
    words: pd.DataFrame | None
    """Columns point, word: the nearest words of each point, as many of each and nearest first; None: not known."""


def page(shown: Map) -> str:
    """The page as HTML text. The same map gives the same bytes."""
    text = PATH.read_text(encoding="utf-8")
    hashes = {tag: _hash(_inside(text, tag)) for tag in ("style", "script")}
    policy = "; ".join(["default-src 'none'", *(f"{tag}-src {value}" for tag, value in hashes.items())])
    marks = {"POLICY": policy, "DATA": _inert(json.dumps(_data(shown), separators=(",", ":"), allow_nan=False))}
    return re.sub(r"@(POLICY|DATA)@", lambda mark: marks[mark[1]], text)


def _inside(text: str, tag: str) -> str:
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return str(content)


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _inert(text: str) -> str:
    """JSON without a character that could end the element that holds it."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _data(shown: Map) -> dict[str, Any]:
    table, run_K = shown.points, shown.run_K
    final_N = np.flatnonzero(np.diff(run_K, append=-1) != 0)
    corner, far = table[["x", "y"]].min(), (table[["x", "y"]].max() - table[["x", "y"]].min()).max() or 1.0
    factors = [c for c in ("task", "init", "lr", "prompt_length", "template", "cluster") if c in table]
    levels = {factor: _levels(table[factor].iloc[final_N]) for factor in factors}
    columns = {c: [_text(v) for v in table[c].iloc[final_N]] for c in ("run", "seed") if c in table}
    longest = np.nanmax([np.nanmax(near.distances_Kk, initial=0.0) for near in (shown.nearest, shown.others)]) or 1.0
    return {
        "title": _text(shown.title),
        "said": [_text(sentence) for sentence in shown.said],
        "keeps": _text(shown.keeps),
        "x": _whole((table["x"] - corner["x"]) / far * SIDE),
        "y": _whole((corner["y"] + (table["y"].max() - corner["y"]) - table["y"]) / far * SIDE),
        "run": run_K.tolist(),
        "step": [None if pd.isna(step) else int(step) for step in table["step"]],
        "accuracy": [None if pd.isna(a) else round(float(a), 3) for a in table["accuracy"]],
        "names": columns["run"],
        "seeds": columns.get("seed"),
        "factors": {factor: {"levels": names, "of": of} for factor, (names, of) in levels.items()},
        "k": shown.nearest.nearest_Kk.shape[1],
        "near": [_neighbours(near, longest) for near in (shown.nearest, shown.others)],
        "unit": float(f"{longest / FINE:.6g}"),
        **_words(shown),
        "light": COLOURS,
        "dark": DARK,
    }


def _levels(values: pd.Series) -> tuple[list[str], list[int]]:
    """(the levels of a factor, each run's). Numbers by size, what is none of them last; texts as they come."""
    sizes = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    order = np.argsort(np.where(sizes == NONE, np.nan, sizes), kind="stable")
    texts = values.map(_text)
    names = list(dict.fromkeys(texts.iloc[order]))
    return names, pd.Categorical(texts, names).codes.tolist()


def _neighbours(near: Nearest, longest: float) -> dict[str, list[int]]:
    apart_Kk = np.nan_to_num(near.distances_Kk) / longest * FINE
    return {"of": near.nearest_Kk.ravel().tolist(), "far": _whole(apart_Kk.ravel())}


def _words(shown: Map) -> dict[str, Any]:
    if shown.words is None:
        return {"words": [], "word": []}
    codes, words = pd.factorize(shown.words["word"].map(_text))
    return {"words": list(words), "word": codes.tolist()}


def _whole(values: Any) -> list[int]:
    return [int(value) for value in np.rint(np.asarray(values, dtype=np.float64))]


def _text(value: Any) -> str:
    """As it is shown; half a character and control characters are written out."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "not known"
    return visible(f"{value:g}" if isinstance(value, float) else str(value))
