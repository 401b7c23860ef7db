"""The look of figures: hues that everyone can tell apart, by day and by night."""

import re
import warnings
from itertools import combinations

import numpy as np
import pytest

from figure_texts import overlapping
from promptgeo.analysis.figures import COLOURS, DARK, panels, svg, titled

APART = 19
PAGES = {COLOURS: "#ffffff", DARK: "#16181d"}
"""What they stand on; page.css."""
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""On linear sRGB: Machado, Oliveira and Fernandes 2009, severity 1."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(channels: np.ndarray) -> np.ndarray:
    """CIE 1976, of D65."""
    ratios = TO_XYZ @ channels / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: np.ndarray, other: np.ndarray) -> float:
    """Sharma, Wu and Dalal 2005."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1 + 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    t = 1 - 0.17 * np.cos(np.radians(mean_h - 30)) + 0.24 * np.cos(np.radians(2 * mean_h))
    t += 0.32 * np.cos(np.radians(3 * mean_h + 6)) - 0.2 * np.cos(np.radians(4 * mean_h - 63))
    light = (l2 - l1) / (1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2))
    colour, hue = (c2 - c1) / (1 + 0.045 * mean_c), hue / (1 + 0.015 * mean_c * t)
    bend = (
        2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((mean_h - 275) / 25) ** 2))))
    )
    return float(np.sqrt(light**2 + colour**2 + hue**2 - bend * colour * hue))


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ],
)
def test_the_distance_is_that_of_its_authors_table(one, other, apart):
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(apart, abs=1e-4)


@pytest.mark.parametrize("who", SEEN_BY)
@pytest.mark.parametrize("hues", [COLOURS, DARK], ids=["day", "night"])
def test_any_two_hues_are_told_apart(hues, who):
    seen = [lab(np.clip(np.asarray(SEEN_BY[who]) @ linear(hue), 0, 1)) for hue in hues]
    assert len(hues) == 7 and min(ciede2000(*pair) for pair in combinations(seen, 2)) > APART


@pytest.mark.parametrize("hues", [COLOURS, DARK], ids=["day", "night"])
def test_every_hue_is_seen_on_its_page(hues):
    page = TO_XYZ[1] @ linear(PAGES[hues]) + 0.05
    for hue in hues:
        brightness = TO_XYZ[1] @ linear(hue) + 0.05
        assert max(brightness, page) / min(brightness, page) > 2.1, hue


@pytest.mark.parametrize("name", ["cat", "a name of a task that goes on and on, as some do"])
def test_nothing_that_is_written_is_cut_off(name):
    """Labels, titles, legends beside the axes: the picture grows with them."""
    with panels(1, 2, width=14, height=6) as (figure, axes):
        for axis in axes.flat:
            axis.plot([0, 1], [0, 1], label=name)
            axis.set_title(name)
            axis.set(xlabel="time", ylabel="place")
            axis.set_xticks([0, 1], [name, name], rotation=60, ha="right")
            axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
        with titled(" ".join([name] * 9)):  # its runs, told from others
            drawn = svg(figure, "seen")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure.set_dpi(72)  # an SVG's
            figure.canvas.draw()
        wanted = figure.get_tightbbox(figure.canvas.get_renderer())  # inches
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', drawn)[1]) / 72 for side in ("width", "height"))
    assert width > 0.9 * wanted.width and height > 0.9 * wanted.height  # it is laid out anew here
    assert drawn.count(name) >= 8 + 9


def test_texts_that_lie_on_each_other_are_found():
    """What tests/conftest.py asks of every figure that a test draws."""
    with panels(width=2.0) as (figure, axes):
        axes[0, 0].set_xticks([0, 1], ["a name of a task that is long", "another name of a task"])
        assert overlapping(figure) == ["'a name of a task that is long' lies on 'another name of a task'"]
        axes[0, 0].set_xticks([0, 1], ["a name", "b"])
        assert overlapping(figure) == []
    with panels(1, 2, width=3.0) as (figure, axes):
        for axis in axes.flat:
            axis.set_title("a title that is wider than its panel")
        assert len(overlapping(figure)) == 1
