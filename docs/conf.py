"""Sphinx's settings. The site is README, docs/ and the other pages as they lie, with an API reference beside them.

make docs: it reads no network, and its pages load nothing from outside. Its first page is build/site/docs/index.html.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "docs")]

from keys import PLACE, keys_page  # noqa: E402

project = "promptgeo"
author = "the promptgeo authors"
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "src/promptgeo/tiny/CARD.md",
    "docs/**.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3  # as the links between these pages need on GitHub
suppress_warnings = ["myst.header"]  # pages that begin below level one
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
html_theme = "furo"
html_title = "promptgeo"
html_show_sphinx = False
html_show_copyright = False  # the licence is in the repository: a year and a holder would stand alone here
html_static_path = ["site.css"]
html_css_files = ["site.css"]
default_role = "code"  # what docstrings have between backticks
html_copy_source = False


def _with_keys(app, page: str, source: list[str]) -> None:
    """The table of keys is made of the schema when the site is built."""
    source[0] = source[0].replace(PLACE, keys_page()) if PLACE in source[0] else source[0]


def _as_written(app, what, name, thing, options, lines: list[str]) -> None:
    """An indented part of a docstring that follows an empty line is code."""
    for k in range(len(lines) - 2, 0, -1):
        begins = lines[k].startswith("    ") and not lines[k - 1].strip()
        before = next((line for line in reversed(lines[:k]) if line.strip()), "")
        if begins and not before.startswith((" ", ":", "..")):
            lines[k:k] = ["::", ""]


def setup(app) -> None:
    app.connect("source-read", _with_keys)
    app.connect("autodoc-process-docstring", _as_written)
