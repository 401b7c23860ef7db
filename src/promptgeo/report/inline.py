"""Figures within a page: ids that belong to one figure, styles that reach no further than it."""

import re
from html import escape

_ID = re.compile(r"""(\sid=["']|url\(#|href=["']#)""")
_STYLE = re.compile(r"<style[^>]*>\s*\*\s*{([^}]*)}\s*</style>")
_LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)
_ROOT = re.compile(r"<svg\b([^>]*)>", re.DOTALL)


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """The figure as part of an HTML page: `prefix` makes its ids unique there; `label` is what a screen reader says.

    matplotlib gives elements of every figure the same names (axes_1), so a clip path or marker of one figure would
    point into another. Its style sheet (`*{...}`) would hold for the whole page.
    """
    style = _STYLE.search(svg)
    body = _ID.sub(rf"\g<1>{prefix}-", _LEFT_OUT.sub("", svg[svg.index("<svg") :]))
    root = f' role="img" aria-label="{escape(label)}"' + (f' style="{escape(style[1].strip())}"' if style else "")
    return _ROOT.sub(lambda root_tag: f"<svg{root_tag[1]}{root}>", body, count=1).strip()
