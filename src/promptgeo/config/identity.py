"""What decides a run's numbers: its identity, its three seeds, and in what two grids differ."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from promptgeo.config.schema import Init, Model, Optimizer, RunConfig, Task, Template, flat, flatten

# Fields that do not decide a run's numbers, or that enter the identity by content instead (paths, device, precision).
# The names of task and init do decide: the seed's three generators derive from them.
_NOT_IDENTITY = re.compile(
    r"name|outputs|overwrite|preview|grid\..*|packing\..*|logger|wandb\..*|sweep|study(\..*)?|device|precision"
    r"|model\..*|init\.path|training\.keep_state|template\.(name|max_new_tokens|longer_labels)"
    r"|task\.(description|text|refused)|task\.source\.(path|sha256|bundled|function_vectors|folder|subfolder|classes"
    r"|class_files)"
)


_AS_FIRST = {"task.split.kind": "random", "template.label_tokens": "alone", "template.bos": "never"}
_AS_FIRST |= {f"task.split.{role}": role for role in ("train", "validation", "test")}  # the usual names, written out
"""What fields whose default depends on data or model come to where a run is what the first version's was: left out."""


def identity(config: RunConfig, precision: str, contents: dict[str, str]) -> str:
    """The run's identity: 64 hex digits of SHA-256 over what decides its numbers.

    Fields equal to their schema default are left out, so a field added later keeps the identity of old runs. Numbers
    count by value: 1, 1.0 and '1' in a YAML file are the same once they have passed the schema. What is `auto` must
    have been resolved before.

    precision: the resolved one, fp32 or bf16. contents: of what enters by content (model, data, init) its fingerprint.
    """
    by_content = {f"content.{name}": fingerprint for name, fingerprint in contents.items()}
    return _digest(_identity_fields(config) | {"precision": precision} | by_content)


_BY_CONTENT = "training.continue_from"
"""Runs with another parent have other numbers; where it lies does not matter."""


@cache
def decides_numbers(key: str) -> bool:
    """Whether two runs that differ in this key of their configs may have other numbers. The seed is one such key."""
    return not _NOT_IDENTITY.fullmatch(key)


def differences(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list, list]]:
    """What decides numbers and differs between two grids: key -> the values in ours and in theirs, each value once.

    Configs as run.json holds them (schema.to_dict). A key that only one side has, as an earlier version did, is none.
    """

    def values(grid: Sequence[Mapping[str, Any]]) -> dict[str, list]:
        flat = [flatten(dict(config)) for config in grid]
        keys = [k for k in flat[0] if k in ("model.name", "template.name") or not _NOT_IDENTITY.fullmatch(k)]
        return {k: list({str(f[k]): f[k] for f in flat if k in f}.values()) for k in keys}

    ours_by_key, theirs_by_key = values(ours), values(theirs)
    pairs = {k: (v, theirs_by_key[k]) for k, v in ours_by_key.items() if k in theirs_by_key}
    different = {k: (a, b) for k, (a, b) in pairs.items() if set(map(str, a)) != set(map(str, b))}
    # What one side has resolved and the other has not is no difference.
    different = {k: (a, b) for k, (a, b) in different.items() if k not in _AS_FIRST or "auto" not in (*a, *b)}
    # A word init's text is its name: one of the two is enough.
    return {k: v for k, v in different.items() if k != "init.text" or "init.name" not in different}


def _identity_fields(config: RunConfig) -> dict[str, Any]:
    defaults = _defaults(RunConfig)
    fields = {k: v for k, v in flat(config).items() if decides_numbers(k) and k != _BY_CONTENT}
    return {k: v for k, v in fields.items() if v != defaults[k] and v != _AS_FIRST.get(k, defaults[k])}


@cache
def _defaults(kind: type[RunConfig]) -> dict[str, Any]:
    return flat(kind(model=Model(), task=Task(), init=Init(), template=Template(), optimizer=Optimizer()))


def _digest(fields: dict[str, Any]) -> str:
    def by_value(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [by_value(v) for v in value]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    text = json.dumps({k: by_value(v) for k, v in fields.items()}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def derived_seeds(config: RunConfig) -> dict[str, int]:
    """The run's three seeds (init, order, dropout): those set by hand, else derived from (seed, task, init)."""
    by_hand = vars(config.seeds)
    return {use: _derive(use, config) if by_hand[use] is None else by_hand[use] for use in ("init", "order", "dropout")}


def _derive(use: str, config: RunConfig) -> int:
    text = "\x1f".join((use, str(config.seed), config.task.name, config.init.name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
