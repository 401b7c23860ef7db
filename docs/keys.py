"""What does each key of a run's config mean? A page made of the schema: fields, their meanings, types and defaults."""

import inspect
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import EnumType
from typing import Any, get_args, get_type_hints

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
    kinds = [getattr(each, "__name__", str(each)) for each in get_args(hint) or [hint] if each is not type(None)]
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "Any": ""}
    if str(hint).startswith("dict"):
        return "section"
    if str(hint).startswith("list"):
        return f"list of {names.get(kinds[0], 'lists')}s".replace("listss", "lists")
    return " or ".join(str(names.get(each, "list" if each == "list" else each)) for each in kinds)


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
