"""Is a YAML file one that may be read? A text of a bounded size, not nested too deeply, that no alias blows up.

YAML's readers recurse into what is nested, and copy what an alias names: a file of a few lines can take all memory, or
hours. So its events are counted first, which takes neither.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from promptgeo.errors import UserError

MOST_BYTES = 4 * 2**20
"""Bytes of a file."""
MOST_LEVELS = 50
"""Of lists and sections within each other."""
MOST_NODES = 50_000
"""Of a file whose aliases are replaced by what they name. The largest file of conf/ has about 1,000."""


def check_yaml(path: str | Path) -> None:
    """Raises UserError for a file that is too large, no UTF-8, nested too deeply, within itself, or full of aliases.

    What is no YAML at all is the reader's to say.
    """
    with open(path, "rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: is larger than {MOST_BYTES // 2**20} MiB, which no config needs")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8") from error
    try:
        _count(path, yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return


def _count(path: str | Path, events: Iterator[yaml.Event]) -> None:
    nodes: dict[str, int] = {}
    """Anchor -> how many nodes it names."""
    open_nodes: list[tuple[str | None, int]] = []
    """Anchor and number of nodes of each list or section that is open."""
    total = 0
    for event in events:
        added = 1
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise UserError(f"{path}: holds itself (a YAML alias within what it names)")
            added = nodes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > MOST_LEVELS:
                raise UserError(f"{path}: is nested more than {MOST_LEVELS} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            added = 0
            if anchor is not None:
                nodes[anchor] = total - before
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        elif event.anchor is not None:
            nodes[event.anchor] = 1
        total += added
        if total > MOST_NODES:
            raise UserError(f"{path}: is more than {MOST_NODES:,} values, aliases replaced by what they name")
