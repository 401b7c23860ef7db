"""How is a template of a report filled? Each text is escaped as its format needs; what is missing is an error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from promptgeo.config.terminal import visible
from promptgeo.report import text

LATEX = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}
"""Marks of a template in which braces and % are the format's own."""


class Raw(str):
    """A text that is of the format already."""


def filled(
    template: str, content: Mapping[str, Any], escape: Callable[[str], str] | None = None, marks: Mapping[str, Any] = {}
) -> str:
    """The template of this name, in this folder, with its content.

    Args:
        escape: makes a text of the format; None: HTML.
        marks: what stands around blocks and variables; by default jinja's own.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def escaped(value: Any) -> Any:
        return value if escape is None or isinstance(value, Raw) else escape("" if value is None else str(value))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=escape is None,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **marks,
    )
    environment.filters |= {
        "number": text.number_text,
        "evidence": text.evidence,
        "adjusted": lambda verdict: text.p_text(verdict.p),
        "p": text.p_text,
        "words": text.words,
        "time": text.duration,
        "upper_first": text.upper_first,
        "in_words": text.in_words,
        "spelt": text.spelt,
        "as_it_is": Raw,
        "link": lambda path: Raw(quote(path)),
    }
    return visible(environment.get_template(template).render(content))
