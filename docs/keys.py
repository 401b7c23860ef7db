"""What does each key of a run's config mean? A page made of the schema: fields, their meanings, types and defaults."""

import inspect
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import EnumType
from typing import Any, get_args, get_origin, get_type_hints

import omegaconf

from promptgeo.config import schema

PLACE = "<!-- the keys, from src/promptgeo/config/schema.py -->"
"""In docs/keys.md: what the page stands in for when the site is built."""


def default(of: Field) -> str:
    """As it is written in YAML."""
    if of.default is not NO_DEFAULT:
        value: Any = of.default
    elif of.default_factory is not NO_DEFAULT:
        value = of.default_factory()
    else:
        return ""
    if value == omegaconf.MISSING:
        return "by the choice"
    value = getattr(value, "name", value)
    written = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{written}`" if written else "`''`"


def kind(hint: Any) -> str:
    """What may be given."""
    if isinstance(hint, EnumType):
        return ", ".join(f"`{name}`" for name in hint.__members__)
    names = {str: "text", int: "whole number", float: "number", bool: "true, false", Any: "see there"}
    if get_origin(hint) is dict:
        return "section"
    if get_origin(hint) is list:
        return f"list of {kind(get_args(hint)[0])}s"
    if options := [each for each in get_args(hint) if each is not type(None)]:
        return " or ".join(kind(each) for each in options)
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def keys_page() -> str:
    """Markdown: a section for each part of the config, a row for each key."""
    parts: list[str] = []

    def part(cls: type, prefix: str) -> None:
        hints = get_type_hints(cls)
        own = [f for f in fields(cls) if not is_dataclass(hints[f.name])]
        if own:
            title = prefix.rstrip(".") or "the run itself"
            about = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
            rows = [
                f"| `{prefix}{f.name}` | {_cell(f.metadata[schema.MEANING])} | {kind(hints[f.name])} | {default(f)} |"
                for f in own
            ]
            header = ["| key | meaning | value | default |", "|---|---|---|---|"]
            parts.append("\n".join([f"## {title}", "", about, "", *header, *rows, ""]))
        for f in fields(cls):
            if is_dataclass(hints[f.name]):
                part(hints[f.name], f"{prefix}{f.name}.")

    part(schema.RunConfig, "")
    return "\n".join(parts)


def _cell(text: str) -> str:
    for sign in "\\|{}<>*_":
        text = text.replace(sign, f"\\{sign}")
    return text
