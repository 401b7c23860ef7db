"""In which keys do the runs of a grid differ, and what are its runs called by them? `init=cat seed=0`"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

_HOW = re.compile(r"name|outputs|overwrite|preview|packing\..*|logger|wandb\..*|sweep|study(\..*)?|device")
"""Where results lie and how runs are trained: what tells no two runs of a grid apart."""
_PLACES = re.compile(r".*(path|folder|name_or_path)")
"""Keys that may hold a place of a user's own disk."""
LONGEST = 40
"""Characters of a value in a name."""


def varying(grid: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell the runs of a grid apart, in the order of the configs. grid: configs by dotted keys.

    What follows from the others is left out: a word's text from init.name, a template from a task that brings its own.
    Names are looked at first.
    """
    kept = set()
    places: list[tuple[str, ...]] = [()] * len(grid)
    keys = [key for key in grid[0] if not _HOW.fullmatch(key)] if grid else []
    for key in sorted(keys, key=lambda key: not key.endswith(".name")):
        first = grid[0].get(key)
        if all(config.get(key) == first for config in grid):
            continue
        values = [repr(config.get(key)) for config in grid]
        known: dict[tuple[str, ...], str] = {}
        if any(known.setdefault(place, value) != value for place, value in zip(places, values, strict=True)):
            kept.add(key)
            places = [(*place, value) for place, value in zip(places, values, strict=True)]
    return [key for key in keys if key in kept]


def named(config: Mapping[str, Any], keys: Sequence[str]) -> str:
    """What a run of a grid is called by the keys in which it varies; of a place, the last part of its path alone."""
    return " ".join(f"{key.removesuffix('.name')}={_spelt(key, config.get(key))}" for key in keys)


def _spelt(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        value = f"[{','.join(map(str, value))}]"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = PurePath(text).name if _PLACES.fullmatch(key) else " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
