r"""The report as LaTeX: a table of the claims, a file for each analysis, and a document that holds them all.

For pdflatex with array, booktabs, longtable and graphicx. A paper of one's own can \input each file but report.tex.
"""

import re
from collections.abc import Mapping

from promptgeo.report.contents import Contents, Material
from promptgeo.report.templates import LATEX, filled

_SPELT = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "\n": " ",
    "—": "---",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
    "“": "``",
    "”": "''",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "≈": r"$\approx$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "³": r"$^3$",
    **{
        letter: f"$\\{name}$"
        for letter, name in zip(
            "αβγδηλμπρστωΔ",
            (
                "alpha",
                "beta",
                "gamma",
                "delta",
                "eta",
                "lambda",
                "mu",
                "pi",
                "rho",
                "sigma",
                "tau",
                "omega",
                "Delta",
            ),
            strict=True,
        )
    },
}
"""Characters that LaTeX does not take as they are, or pdflatex's fonts do not have."""
_MINUS = re.compile(r"(?<![\w-])-(?=\.?\d)")


def render(material: Material, figures: Mapping[str, str]) -> dict[str, str]:
    """File name -> LaTeX text.

    figures: path of an SVG, relative to the page -> file name in figures/, of those that are shown.
    """
    told = Contents(material)
    content = {"told": told, "material": material}
    files = {name: filled(f"{name}.j2", content, escaped, LATEX) for name in ("report.tex", "claims.tex")}
    for section in told.sections:
        shown = [{"caption": f.caption, "file": figures[f.path]} for f in section.figures if f.path in figures]
        files[f"{section.name}.tex"] = filled("numbers.tex.j2", {"section": section, "figures": shown}, escaped, LATEX)
    return files


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return _MINUS.sub("$-$", "".join(_SPELT.get(character, character) for character in text))
