"""The look of figures: hues that everyone can tell apart, by day and by night; and what every figure promises."""

import re
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from figure_promises import broken
from figure_texts import overlapping
from promptgeo.analysis import figures
from promptgeo.analysis.figures import (
    COLOURS,
    DARK,
    EACH,
    MOST_BEHIND,
    estimates,
    mean_line,
    panels,
    small_multiples,
    svg,
    titled,
)
from promptgeo.analysis.result import Number

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
    with panels(1, 2, width=3.0) as (figure, axes):
        for axis in axes.flat:
            axis.set_xlabel("a name that is wider than its panel")
        assert len(overlapping(figure)) == 1


def test_long_names_of_axes_beside_each_other_do_not_meet():
    for n in (2, 3, 4):
        with small_multiples(n, x="t along the edge (0 and 1: trained prompts; grey: extrapolation)") as (figure, axes):
            for axis in axes:
                axis.set(yticks=[0, 1], yticklabels=["vertex, displaced", "mixtures of P0s"])
            assert overlapping(figure) == []


def behind(axis) -> list:
    return [line for line in axis.lines if line.get_label() == EACH]


@pytest.mark.parametrize("sideways", [False, True])
def test_behind_a_mean_stands_every_value_that_it_is_the_mean_of(sideways):
    values, at = [np.array([0.1, 0.2, 0.6]), np.array([0.5])], np.array([0.0, 2.0])
    numbers = [Number("a", 0.3, 3, "runs", 0.1, 0.7), Number("b", 0.5, 1, "runs")]
    with panels() as (_, axes):
        estimates(axes[0, 0], at, numbers, values, color=COLOURS[1], across=0.4, sideways=sideways)
        (drawn,) = axes[0, 0].containers
        points = behind(axes[0, 0])
        assert len(points) == 2
        for place, value, line in zip(at, values, points, strict=True):
            places, shown = (line.get_ydata(), line.get_xdata()) if sideways else line.get_data()
            assert np.array_equal(shown, value) and np.abs(places - place).max() <= 0.2
            assert len(np.unique(places)) == len(value)
            assert line.get_zorder() < drawn[0].get_zorder() and line.get_markersize() < drawn[0].get_markersize()
        whole = [segment for segment in drawn[2][0].get_segments() if np.isfinite(segment).all() and len(segment)]
        assert [segment[:, 0 if sideways else 1].tolist() for segment in whole] == [[0.1, 0.7]]


def test_of_many_values_some_stand_behind_their_mean_evenly_and_both_ends():
    values = np.random.default_rng(0).permutation(10 * MOST_BEHIND + 1).astype(float)
    with panels() as (_, axes):
        mean = Number("a", float(values.mean()), len(values), "runs")
        estimates(axes[0, 0], [0], [mean], [values], color=COLOURS[0], across=1.0)
        (line,) = behind(axes[0, 0])
        shown = line.get_ydata()
    assert len(shown) == MOST_BEHIND and (shown.min(), shown.max()) == (0, len(values) - 1)
    assert set(np.diff(np.sort(shown))) <= {10.0, 11.0}


def test_behind_a_line_of_means_stands_the_line_of_each_run():
    table = pd.DataFrame({"run": [0, 0, 1, 1], "step": [0, 4, 4, 0], "loss": [1.0, 3.0, 5.0, 2.0]})
    with panels() as (_, axes):
        mean_line(axes[0, 0], table, "step", "loss", "run", color=COLOURS[0], label="cat")
        (mean,) = (line for line in axes[0, 0].lines if line.get_label() == "cat")
        assert [line.get_ydata().tolist() for line in behind(axes[0, 0])] == [[1, 3], [2, 5]]
        assert mean.get_ydata().tolist() == [1.5, 4.0]


def test_small_multiples_have_the_same_limits_and_names_on_their_outer_axes():
    with small_multiples(3, 2, x="step", y="loss") as (figure, axes):
        for k, axis in enumerate(axes):
            axis.plot([0, k + 1], [0, 10 * k])
            axis.set_title(str(k))
        assert len({(axis.get_xlim(), axis.get_ylim()) for axis in axes}) == 1
        assert [axis.get_xlabel() for axis in axes] == ["", "step", "step"]
        assert [axis.get_ylabel() for axis in axes] == ["loss", "", "loss"]
        assert axes[1].xaxis.get_tick_params()["labelbottom"]  # nothing is below it
        svg(figure, "what is seen")


def test_broken_promises_are_found():
    """What tests/conftest.py asks of every figure that a test draws."""
    with panels(1, 2) as (figure, axes):
        left, right = axes.flat
        left.set(xlabel="x", ylabel="y", title="left", xlim=(0, 1), ylim=(0, 1))
        right.set(xlabel="x", ylabel="y", title="right", xlim=(0, 1), ylim=(0, 7))
        assert broken(figure) == ["it has no title", "'left' and 'right' show 'y' along y in other limits"]
        figure.suptitle("what is seen")
        right.set_ylabel("")
        assert broken(figure) == ["the y axis of 'right' has no name"]
        right.set(ylabel="z")
        assert broken(figure) == []
        left.errorbar([0.5], [0.5], yerr=[0.1], color=COLOURS[0])
        assert broken(figure) == ["no points stand behind the means of 'left'"]
        left.plot([0.5, 0.5], [0.4, 0.6], ".", color=COLOURS[0], label=EACH)
        assert broken(figure) == []
        left.pcolormesh([[0, 1]], vmax=1)
        right.pcolormesh([[0, 1]], vmax=2)
        assert broken(figure) == ["colours of 'left' mean something else in 'right'"]


def test_analyses_leave_it_to_one_place_to_draw_means_and_their_intervals():
    """So that the next figure has points behind them too; a bar is no mean's but a share of variance's."""
    sources = Path(figures.__file__).parent.rglob("*.py")
    drawing = {
        path.name for path in sources if re.search(r"\.(errorbar|bar|barh|boxplot|violinplot)\(", path.read_text())
    }
    assert drawing == {"figures.py", "init_vs_task.py"}


def test_the_title_is_in_the_figure_and_in_the_file():
    with panels() as (figure, axes):
        axes[0, 0].set(xlabel="x", ylabel="y")
        with titled("lr = 0.1"):
            drawn = svg(figure, "what is seen")
        assert figure.get_suptitle() == "lr = 0.1\nwhat is seen"
    assert "<title>what is seen</title>" in drawn and ">lr = 0.1</text>" in drawn
