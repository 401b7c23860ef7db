"""Figures within a page: only what draws, ids that belong to one figure, styles that reach no further than it.

A figure is read from disk, where anything can lie. What is not on these lists does not reach the page: no script, no
event handler, no HTML, nothing that is loaded from elsewhere.
"""

import re
from html import escape, unescape
from xml.parsers import expat

from promptgeo.analysis.figures import COLOURS, GRID, NEUTRAL


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


ELEMENTS = _names(
    "svg g defs symbol use path rect circle ellipse line polyline polygon text tspan title desc image marker mask "
    "clipPath pattern linearGradient radialGradient stop"
)
"""Drawn. Any other is left out with all that it holds."""
DRAWN_AS = _names(
    "fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-linecap stroke-linejoin stroke-miterlimit "
    "stroke-dasharray stroke-dashoffset opacity color clip-path clip-rule mask marker-start marker-mid marker-end "
    "stop-color stop-opacity font font-family font-size font-style font-weight font-variant font-stretch text-anchor "
    "dominant-baseline letter-spacing word-spacing image-rendering shape-rendering text-rendering visibility display "
    "overflow white-space mix-blend-mode"
)
"""Properties, in a style or as attributes."""
ATTRIBUTES = DRAWN_AS | _names(
    "id style transform viewBox width height version preserveAspectRatio x y x1 y1 x2 y2 dx dy cx cy r rx ry fx fy d "
    "points rotate textLength lengthAdjust pathLength offset gradientUnits gradientTransform spreadMethod patternUnits "
    "patternContentUnits patternTransform clipPathUnits maskUnits maskContentUnits markerUnits markerWidth "
    "markerHeight refX refY orient href xlink:href xml:space"
)
_FUNCTION = re.compile(r"([\w-]*)\(")
_HARMLESS = ("", "rgb", "rgba", "hsl", "hsla", "matrix", "translate", "scale", "rotate", "skewX", "skewY")
_OWN = re.compile(r"url\(#([\w.:-]+)\)")
_IMAGE = re.compile(r"data:image/(?:png|jpeg);base64,[\sA-Za-z0-9+/=]*")
THEME = {"#000000": "currentColor", "#ffffff": "var(--page)", GRID: "var(--line)", NEUTRAL: "var(--muted)"} | {
    colour: f"var(--hue-{k})" for k, colour in enumerate(COLOURS)
}
"""Colours of a figure -> what they are on the page, whose ink and hues are others in the dark."""
_TITLE = re.compile(r"<svg[^>]*>\s*<title>([^<]*)</title>")
_STYLE = re.compile(r"\s*\*\s*{([^{}]*)}\s*")


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """The figure as part of an HTML page: `prefix` makes its ids unique there; `label` is what a screen reader says.

    matplotlib gives elements of every figure the same names (axes_1), so a clip path or marker of one figure would
    point into another. Its style sheet (`*{...}`) would hold for the whole page. A text that is no SVG is said to be
    none.
    """
    try:
        return _Figure(prefix, label).read(svg)
    except (expat.ExpatError, ValueError) as error:
        return f"<p>This figure cannot be shown: its file is no SVG ({escape(str(error))}).</p>"


def title_of(svg: str) -> str:
    """What the figure says that it shows, in one line; empty where it says nothing, as figures once did."""
    title = _TITLE.match(svg)
    return " ".join(unescape(title[1]).split()) if title else ""


class _Figure:
    """Reads an SVG and writes what is on the lists."""

    def __init__(self, prefix: str, label: str):
        self.prefix, self.label = prefix, label
        self.written: list[str] = []
        self.left_out = 0
        """How many elements are open that are left out."""
        self.style: list[str] | None = None
        """Texts of the style sheet that is open."""
        self.root_style = ""

    def read(self, svg: str) -> str:
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse  # entities may grow without end, or name files
        parser.Parse(svg.encode("utf-8", "backslashreplace"), True)
        style = f' style="{escape(self.root_style)}"' if self.root_style else ""
        root = f' role="img" aria-label="{escape(self.label)}"{style}>'
        return "".join([self.written[0][:-1] + root, *self.written[1:]])

    def _refuse(self, *declaration: object) -> None:
        raise ValueError("it declares entities")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.written and name != "svg":
            raise ValueError(f"it begins with <{name}>")
        if self.left_out or name not in ELEMENTS:
            self.left_out += 1
            self.style = [] if name == "style" and self.left_out == 1 else None
            return
        kept = {key: shown for key, value in attributes.items() if (shown := self._kept(key, value)) is not None}
        if not self.written:
            self.root_style = kept.pop("style", "")
        attributes_text = "".join(f' {key}="{escape(value)}"' for key, value in kept.items())
        self.written.append(f"<{name}{attributes_text}>")

    def _end(self, name: str) -> None:
        if not self.left_out:
            self.written.append(f"</{name}>")
            return
        self.left_out -= 1
        if self.style is not None and (sheet := _STYLE.fullmatch("".join(self.style))):
            self.root_style = "; ".join(filter(None, [self._kept("style", sheet[1]), self.root_style]))
        self.style = None

    def _text(self, text: str) -> None:
        if self.style is not None:
            self.style.append(text)
        elif not self.left_out:
            self.written.append(escape(text, quote=False))

    def _kept(self, key: str, value: str) -> str | None:
        """What the page gets of an attribute; None: nothing."""
        if key not in ATTRIBUTES:
            return None
        if key == "id":
            return f"{self.prefix}-{value}"
        if key in ("href", "xlink:href"):
            return (
                f"#{self.prefix}-{value[1:]}" if value.startswith("#") else value if _IMAGE.fullmatch(value) else None
            )
        if key == "style":
            pairs = (part.partition(":") for part in value.split(";"))
            kept = [(name.strip(), self._kept(name.strip(), said.strip())) for name, _, said in pairs]
            return "; ".join(f"{name}: {said}" for name, said in kept if name in DRAWN_AS and said) or None
        value = _OWN.sub(rf"url(#{self.prefix}-\1)", value)
        functions = _FUNCTION.findall(_OWN.sub("", value))
        # A backslash spells a function's name in another way.
        if "\\" in value or any(name not in _HARMLESS for name in functions):
            return None
        return THEME.get(value, value) if key in ("fill", "stroke") else value
