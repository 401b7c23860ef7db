"""What a figure's file may bring into the page: what draws, and nothing that runs or is loaded."""

import re

import numpy as np
import pytest

from promptgeo.analysis.figures import COLOURS, ON_CELLS, panels, shares_grid, svg
from promptgeo.report.inline import THEME, inline_svg, title_of

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{}<path d="M 0 0"/></svg>'
HARMFUL = (
    "<script>canary</script>",
    "<g><script><![CDATA[canary]]></script></g>",
    '<s:script xmlns:s="http://www.w3.org/2000/svg">canary</s:script>',
    '<h:script xmlns:h="http://www.w3.org/1999/xhtml">canary</h:script>',
    "<foreignObject><body><p>canary</p></body></foreignObject>",
    '<g onclick="canary"/>',
    '<g onload="canary" style="fill: red"/>',
    '<a xlink:href="javascript:canary"><text>x</text></a>',
    '<use xlink:href="https://canary/x.svg#a"/>',
    '<image xlink:href="https://canary/x.png"/>',
    '<image href="data:image/svg+xml;base64,canary"/>',
    '<image href=" javascript:canary"/>',
    '<path style="fill: url(https://canary/x)"/>',
    '<path fill="url(https://canary/x)"/>',
    r'<path fill="u\72\6c (https://canary/x)"/>',  # CSS spells url( so too
    '<path style="fill: u\\72l(https://canary/x)"/>',
    '<path style="background-image: url(#canary)"/>',
    "<path style=\"font-family: image-set('https://canary' 1x)\"/>",
    '<path style="cursor: src(canary)"/>',
    "<style>@import 'https://canary';</style>",
    "<style>* {stroke: black} p {color: canary}</style>",
    "<style>* {fill: url(https://canary)}</style>",
    '<set attributeName="href" to="javascript:canary"/>',
    '<animate attributeName="href" values="canary"/>',
    '<iframe src="canary"/>',
    "<metadata>canary</metadata>",
    "<title><img src='canary'/></title>",
    "<!-- canary -->",
    '<?xml-stylesheet href="canary"?>',
)


@pytest.mark.parametrize("harmful", HARMFUL)
def test_what_runs_or_is_loaded_does_not_reach_the_page(harmful):
    whole = inline_svg(SVG.format(harmful), "f", "label")
    assert "canary" not in whole
    assert '<path d="M 0 0"></path>' in whole


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE svg [<!ENTITY a "canary">]><svg>&a;</svg>',
        '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/hostname">]><svg>&a;</svg>',
        "<html><script>canary</script></html>",
        "canary <b>",
        "",
        "<svg><g>canary</svg>",
    ],
)
def test_what_is_no_svg_is_said_to_be_none(text):
    whole = inline_svg(text, "f", "label")
    assert whole.startswith("<p>This figure cannot be shown") and "canary" not in whole


def test_texts_stay_texts():
    whole = inline_svg(SVG.format("<text>&lt;script&gt;canary&lt;/script&gt; &#38; é</text>"), "f", "<i>")
    assert "<text>&lt;script&gt;canary&lt;/script&gt; &amp; é</text>" in whole and 'aria-label="&lt;i&gt;"' in whole


def test_all_that_matplotlib_draws_is_kept():
    """Lines, markers, clips, images, hatches and texts: every element and attribute but the style sheet."""
    with panels(1, 2) as (figure, axes):
        axes[0, 0].plot([0, 1], [1, 0], marker="o", label="line")
        axes[0, 0].imshow([[0, 1]])
        axes[0, 0].legend()
        axes[0, 1].bar([0], [1], hatch="//", alpha=0.5)
        axes[0, 1].set_yscale("symlog")
        axes[0, 1].text(0, 0, "a < b", rotation=30)
        figure.colorbar(axes[0, 1].pcolormesh([[0, 1], [1, 0]]), label="height")
        for name, axis in zip("ab", axes.flat, strict=True):
            axis.set(xlabel=name, ylabel=name)
        drawn = svg(figure, "what is seen")

    def counted(pattern: str, text: str) -> list[str]:
        return sorted(re.findall(pattern, text))

    whole, body = (
        inline_svg(drawn, "f", "x"),
        re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn, flags=re.S),
    )
    assert counted(r"<(\w+)", whole) == counted(r"<(\w+)", body)
    attributes = r'\s([\w:-]+)="'
    lost = ["xmlns", "xmlns:xlink"]
    assert counted(attributes, whole) == sorted(
        [*(name for name in counted(attributes, body) if name not in lost), "role", "aria-label", "style"]
    )
    kept = {part.strip() for style in re.findall(r'style="([^"]*)"', body) for part in style.split(";") if part.strip()}
    for part in kept:
        name, _, value = part.partition(": ")
        shown = THEME.get(value, value) if name in ("fill", "stroke") else value
        assert f"{name}: {shown}".replace("url(#", "url(#f-").replace("'", "&#x27;") in whole


def test_a_figures_hues_and_ink_are_the_pages_own():
    """Which a dark page turns round; but not what stands on coloured cells."""
    with panels(1, 2) as (figure, axes):
        axes[0, 0].plot([0, 1], [1, 0], color=COLOURS[2])
        axes[0, 0].set(xlabel="x", ylabel="y")
        shares_grid(axes[0, 1], np.eye(2), "ab", "cd")
        whole = inline_svg(svg(figure, "seen"), "f", "x")
    assert "stroke: var(--hue-2)" in whole and COLOURS[2] not in whole
    assert "fill: var(--page)" in whole and "stroke: currentColor" in whole and "#000000" not in whole
    assert all(f"fill: {colour}" in whole for colour in ON_CELLS)


@pytest.mark.parametrize("name", ["a$b$c", r"$\frac$", "x\x1b[31m", "<b>"])
def test_a_name_in_a_figure_is_written_as_it_is(name):
    with panels() as (figure, axes):
        axes[0, 0].plot([0, 1], [0, 1], label=name)
        axes[0, 0].set_title(name)
        axes[0, 0].set_xticks([0], [name])
        axes[0, 0].set_ylabel("y")
        axes[0, 0].legend()
        drawn = svg(figure, "what is seen")
    shown = name.replace("\x1b", r"\x1b").replace("<", "&lt;").replace(">", "&gt;")
    assert drawn.count(f">{shown}</text>") == 3
    assert f">{shown}</text>" in inline_svg(drawn, "f", "x")


@pytest.mark.parametrize("title", ["what is seen", "P0 < P & more", "a\nb"])
def test_a_figure_says_its_title_and_an_old_one_none(title):
    with panels() as (figure, axes):
        axes[0, 0].set(xlabel="x", ylabel="y")
        drawn = svg(figure, title)
    assert title_of(drawn) == " ".join(title.split())
    assert title_of(drawn.replace("title>", "desc>")) == "" and title_of("no figure") == ""
