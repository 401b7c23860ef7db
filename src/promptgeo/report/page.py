"""The report as one self-contained HTML page."""

from pathlib import Path

from promptgeo.analysis.figures import COLOURS, DARK
from promptgeo.report.contents import Contents, Material
from promptgeo.report.templates import filled


def render(material: Material) -> str:
    """The page as HTML text: no clock time, no address, nothing to load."""
    told = Contents(material)
    verdicts = [{"of": v, "first": k == 0 or told.verdicts[k - 1].name != v.name} for k, v in enumerate(told.verdicts)]
    return filled("page.html.j2", {"told": told, "material": material, "verdicts": verdicts, "hues": hues()})


def style() -> str:
    """The style sheet of a page, with the colours of figures."""
    return hues() + Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def hues() -> str:
    """The style sheet's colours of figures, by day and by night; page.css has those of the page."""
    light, dark = ("".join(f"--hue-{k}: {hue}; " for k, hue in enumerate(hues)) for hues in (COLOURS, DARK))
    return f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"
