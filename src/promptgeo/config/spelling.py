"""How does a text keep its spelling? Where one is wanted, `yes` and 1e3 are what was written, not True and 1000.0.

Hydra's grammar and YAML type a value by its looks, before the schema says what it is. So what looks like a number or a
truth value is quoted wherever a text is wanted: in the words of a command line, and in the files of a config group.
"""

import copy
import os
import re
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import OverrideParseException
from hydra.grammar.gen.OverrideLexer import CommonTokenStream, InputStream, OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf

from promptgeo.config.schema import texts
from promptgeo.config.yaml_file import DEEPEST, parsed_yaml, text_of
from promptgeo.errors import UserError

NUMERIC = {"range", "interval", "int", "float", "bool", "json_str"}
"""Functions of Hydra's grammar whose arguments are no texts."""
ESCAPES = ("template.text", "template.label", "template.end", "task.source.input")
r"""Keys in whose texts \n and \t stand for a newline and a tab, and \\ for a backslash, on a command line."""
_CHARACTERS = {"n": "\n", "t": "\t", "\\": "\\"}


def parsed(line: str, parser: OverridesParser, keys: Collection[str] | None = None) -> Override:
    """What Hydra reads in a word of a command line, texts as they are spelt.

    keys: that want texts; by default the schema's. Raises UserError, which names the key, where it cannot be read.
    """
    key = line.partition("=")[0].encode("ascii", "replace").decode()
    if not key.strip():
        raise UserError(f"{line or repr(line)}: has no key")
    if "\0" in line or not _is_unicode(line):
        raise UserError(f"{key}: its value holds bytes that are no text in UTF-8")
    try:
        (override,) = parser.parse_overrides([line])
        if not override.is_delete() and (quoted := spelt(line, keys)) != line:
            (override,) = parser.parse_overrides([quoted])
    except OverrideParseException as error:
        raise UserError(f"{line}: cannot be read as key=value (a text is quoted twice: 'key=\"a text\"')") from error
    except RecursionError as error:
        raise UserError(f"{key}: {_TOO_DEEP}") from error
    except ArithmeticError as error:
        raise UserError(f"{line}: range(first,end,by) needs finite numbers") from error
    except ValueError as error:
        raise UserError(f"{key}: a number of thousands of digits is given, and no key needs one") from error
    if not override.is_sweep_override() and _levels(override.value()) > DEEPEST:
        raise UserError(f"{key}: {_TOO_DEEP}")
    return override


_TOO_DEEP = f"lists and sections are nested over {DEEPEST} levels deep"


def _levels(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_levels, inside), default=0)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # what a shell passed on that is no UTF-8
        return False
    return True


def spelt(line: str, keys: Collection[str] | None = None) -> str:
    """An override that Hydra can parse, in which every text is quoted that would else become something else.

    keys: that want texts; by default the schema's. Nothing else of the line is changed.
    """
    keys = texts() if keys is None else keys
    tree = OverrideParser(CommonTokenStream(OverrideLexer(InputStream(line)))).override()
    own = line[: tree.key().stop.stop + 1].lstrip("+~")
    for key, primitive in reversed(list(_primitives(tree.value(), own))):
        start, end = primitive.start.start, primitive.stop.stop + 1
        if key in keys and (quoted := _quoted(primitive, line[start:end].strip(), key in ESCAPES)):
            line = line[:start] + quoted + line[end:]
    return line


def escaped(key: str, text: str) -> str:
    """A text of Python's as it must be written on a command line to arrive as it is."""
    return text.replace("\\", "\\\\") if key in ESCAPES else text


def _primitives(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every number, word or quoted text of a value, with the key that it is for, from left to right."""
    if isinstance(node, OverrideParser.FunctionContext) and node.getChild(0).getText() in NUMERIC:
        return
    if isinstance(node, OverrideParser.DictKeyValuePairContext):
        key = f"{key}.{node.dictKey().getText().strip()}"
    if isinstance(node, OverrideParser.PrimitiveContext):
        yield key, node
        return
    for child in getattr(node, "children", None) or ():
        yield from _primitives(child, key)


def _quoted(primitive: Any, written: str, has_escapes: bool) -> str | None:
    """The primitive in quotes; None where it is a text as it is."""
    tokens = [token.symbol.type for token in primitive.getChildren() if token.symbol.type != OverrideLexer.WS]
    if tokens in ([OverrideLexer.INT], [OverrideLexer.FLOAT], [OverrideLexer.BOOL]):
        if tokens == [OverrideLexer.INT] and str(int(written)) == written:
            return None
        return QuotedString(written, Quote.double).with_quotes()
    if not has_escapes or "\\" not in written or OverrideLexer.INTERPOLATION in tokens:
        return None
    if tokens == [OverrideLexer.QUOTED_VALUE]:
        quote = written[0]
        # As Hydra has it: a backslash is one of its own where it stands before a quote.
        inside = re.sub(rf"(\\+)({quote})", lambda m: m[1][1::2] + m[2], written[1:])[:-1]
        return QuotedString(_unescaped(inside, "nt\\"), Quote.double).with_quotes()
    return QuotedString(_unescaped(written, "nt\\()[]{}:=, "), Quote.double).with_quotes()


def _unescaped(text: str, known: str) -> str:
    return re.sub(rf"\\([{re.escape(known)}])", lambda m: _CHARACTERS.get(m[1], m[1]), text)


class _Counted(ConfigResult):
    """A config file's content. Hydra asks for its `defaults` wherever those of another file lead to it, without end."""

    MOST: ClassVar[int] = 100
    """Times in one config; also a chain that is longer than Python's stack comes to more."""
    asked = 0

    @property
    def defaults_list(self) -> Any:
        self.asked += 1
        if self.asked > self.MOST:
            raise UserError(f"{self.name}: the defaults of config files lead to this one again and again")
        return self._defaults_list

    @defaults_list.setter
    def defaults_list(self, found: Any) -> None:
        self._defaults_list = found


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's reader of config files, as yaml_file.py reads them; texts keep the spelling that they have in the file.

    A file is read once while it stays as it is: Hydra asks for every file of every job of a grid several times.
    It has the name of Hydra's own: where a launcher starts Hydra anew beside it, a reader of another name is refused.
    """

    _read: ClassVar[dict[tuple, ConfigResult]] = {}

    def load_config(self, config_path: str) -> ConfigResult:
        try:
            stat = os.stat(f"{self.path}/{self._normalize_file_name(config_path)}")
        except OSError:
            return super().load_config(config_path)  # which says what is wrong
        key = self.provider, self.path, config_path, stat.st_mtime_ns, stat.st_size
        if key not in self._read:
            self._read[key] = self._load(config_path)
        return copy.deepcopy(self._read[key])

    def _load(self, config_path: str) -> ConfigResult:
        name = self._normalize_file_name(config_path)
        text = text_of(f"{self.path}/{name}")
        header = self._get_header_dict(text[:512])
        config, node = parsed_yaml(text, f"{self.path}/{name}")
        group = name.rpartition("/")[0]
        package = header.get("package") or group
        prefix = "" if package == "_global_" else package.replace("_group_", group).replace("/", ".")
        _respell(config, node, prefix)
        result = _Counted(provider=self.provider, path=f"{self.scheme()}://{self.path}", config=config, header=header)
        result.name = name
        return result


def _respell(config: Any, node: Any, key: str) -> None:
    """Put what the file's text has in place of numbers and truth values, where a text is wanted."""
    if isinstance(config, DictConfig) and isinstance(node, yaml.MappingNode):
        pairs = [(k.value, value) for k, value in node.value]
    elif isinstance(config, ListConfig) and isinstance(node, yaml.SequenceNode):
        pairs = list(enumerate(node.value))
    else:
        return
    content = OmegaConf.to_container(config, resolve=False)
    for at, value in pairs:
        inner = key if isinstance(at, int) else f"{key}.{at}".lstrip(".")
        if not isinstance(value, yaml.ScalarNode):
            if isinstance(at, int) or at in config:
                _respell(config._get_node(at), value, inner)
        # What a sweep varies is written on a command line.
        elif (inner in texts() or inner.startswith("hydra.sweeper.params.")) and (
            (isinstance(at, int) or at in content) and isinstance(content[at], bool | int | float)
        ):
            config[at] = value.value


def register() -> None:
    """From now on Hydra reads config files so."""
    Plugins.instance()  # registers Hydra's own reader, and refuses another one after it
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
