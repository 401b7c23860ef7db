"""The report as Markdown: one file whose figures and numbers are links to those of the analyses."""

import re

from promptgeo.report.contents import Contents, Material
from promptgeo.report.templates import filled

_MARKS = re.compile(r"([\\`*_\[\]<|])")


def render(material: Material) -> str:
    """The Markdown text (CommonMark, with tables as GitHub has them)."""
    return filled("report.md.j2", {"told": Contents(material), "material": material}, escaped)


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split("\n")))
