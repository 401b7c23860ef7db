"""How is a YAML file read? As a text in UTF-8 that holds keys, and never more of it than memory and patience allow.

A few lines can stand for billions of values, by aliases of aliases, and a line of brackets ends Python's stack. So all
that a file stands for is counted while it is read, before any of it is made. Every YAML file is read here.
"""

from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from promptgeo.errors import UserError

LARGEST = 500_000
"""Bytes."""
MOST = 20_000
"""Values that a file may stand for, each counted as often as an alias or a merge (`<<`) names it."""
DEEPEST = 30
"""Levels of lists and sections within each other, in a file and on a command line."""
LONGEST_NUMBER = 100
"""Characters; Python takes quadratic time for a number, and gives up at 4,300 digits."""


def read_yaml(path: str | Path) -> DictConfig:
    """The keys of a file. Raises UserError, which names it, and YAMLError for what is no YAML."""
    return parsed_yaml(text_of(path), str(path))[0]


def text_of(path: str | Path) -> str:
    """A file's text. Raises UserError for a file that is too large, or no text in UTF-8."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > LARGEST:
        raise UserError(f"{path}: is larger than {LARGEST:,} bytes; a config file holds no data")
    try:
        return content.decode("utf-8-sig")  # some editors put a mark before the text
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8; save it as UTF-8") from error


def parsed_yaml(text: str, path: str) -> tuple[DictConfig, yaml.Node | None]:
    """The keys of a file's text, and its YAML tree with merges (`<<`) done: values as they were spelt.

    Raises UserError for what holds no keys, holds itself or stands for too much, and YAMLError for what is no YAML.
    """
    try:
        loader = _Counting(_Named(text, path))
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # of a tag whose value is no such thing
        raise UserError(f"{path}: a value does not fit the tag (!!...) before it") from error
    if not isinstance(values, dict | None):
        raise UserError(f"{path}: holds no keys (key: value); a config file needs them")
    return OmegaConf.create(values or {}), node


class _Named(StringIO):
    """A text with a name, by which YAML's errors call it; of a bare text they would show lines."""

    def __init__(self, text: str, name: str):
        super().__init__(text)
        self.name = name


class _Counting(get_yaml_loader()):  # type: ignore[misc]
    """OmegaConf's reader of YAML, which counts what a text stands for while its tree grows."""

    def __init__(self, stream: StringIO):
        super().__init__(stream)
        self.level = 0
        self.sizes: dict[yaml.Node, tuple[int, int]] = {}  # values and levels of every node that is complete

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        is_alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        self.level += 1
        self._require(self.level <= DEEPEST, mark, f"lists and sections are nested over {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        if not is_alias:
            self.sizes[node] = self._size(node, mark)
        self._require(node in self.sizes, mark, "holds itself (a YAML alias within what it names)")
        deep = self.level - 1 + self.sizes[node][1]
        self._require(deep <= DEEPEST, mark, f"lists and sections are nested over {DEEPEST} levels deep")
        self.level -= 1
        return node

    def _size(self, node: yaml.Node, mark: yaml.Mark) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            is_number = node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER
            self._require(not is_number, mark, f"holds a number of {len(node.value):,} characters")
            return 1, 1
        inside = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        values = 1 + sum(self.sizes[each][0] for each in inside)
        self._require(values <= MOST, mark, f"stands for more than {MOST:,} values (an alias counts as all it names)")
        return values, 1 + max((self.sizes[each][1] for each in inside), default=0)

    def _require(self, ok: bool, mark: yaml.Mark, problem: str) -> None:
        if not ok:
            raise UserError(f"{self.name}: {problem}; line {mark.line + 1}")
