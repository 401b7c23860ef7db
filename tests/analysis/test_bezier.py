"""Trained paths between prompts: a planted ring-shaped valley, and real runs scored by hand."""

import numpy as np
import pytest
import torch

import promptgeo as pg
import reference
from promptgeo.analysis.geometry import mixtures
from promptgeo.analysis.geometry.remaining_barrier import Remaining, highest_interval, rises
from promptgeo.analysis.questions.bezier import _meaning, bezier, curve, falls, highest_pairs, train_control
from promptgeo.analysis.resampling import draw_counts
from promptgeo.analysis.result import Number
from promptgeo.analysis.training_loss import token_losses
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

SMALL = (
    "task=country_capital",
    "task.split.max_train=48",
    "task.split.max_test=9",
    "training.epochs=2",
    "evaluation.every=end",
    "evaluation.max_new_tokens=6",
    "template.longer_labels=warn",
    "prompt.length=1",
)


def ring(points: torch.Tensor) -> torch.Tensor:
    """A valley of radius 1 in the first two of the dimensions; 1 in its centre."""
    return (points[:, :2].norm(dim=1) - 1) ** 2 + points[:, 2:].square().sum(1)


def test_the_path_finds_its_way_round_a_ring():
    start, end = torch.zeros(2, 6)
    start[0], end[0] = (
        1.0,
        -1.0,
    )  # opposite: the line leads straight over the centre, and a symmetric start would stay there
    controls = train_control(ring, start, end, steps=400, lr=0.02)
    control = controls[-1]
    t = torch.linspace(0, 1, 101)
    line, path = (
        mixtures.barrier(ring(curve(start, c, end, t)).numpy(), t.numpy()) for c in ((start + end) / 2, control)
    )
    assert line == pytest.approx(1.0, abs=1e-6) and path < 0.05
    # A control at height 2 gives a largest loss of (1 - sqrt(.75))^2 = .018, by hand.
    assert float(control[:2].norm()) == pytest.approx(2.0, abs=0.25) and float(control[2:].norm()) < 0.1
    assert torch.equal(control, train_control(ring, start, end, steps=400, lr=0.02)[-1])
    assert falls(ring, start, end, controls) < 0.01 and falls(ring, start, end, controls[:20]) > 0.2


def test_a_bezier_curve_with_the_midpoint_as_control_is_the_line():
    start, end = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(curve(start, (start + end) / 2, end, t)[1], 0.7 * start + 0.3 * end)
    torch.testing.assert_close(curve(start, torch.randn(3, 5), end, t)[[0, 2]], torch.stack([start, end]))


def planted(generator, share: float, examples: int = 100, height: float = 0.3) -> Remaining:
    """A line with a barrier, and a path of which so much of it remains; every example has a height of its own."""
    t = np.linspace(0, 1, 11)
    bump, base = (4 * t * (1 - t))[:, None], generator.gamma(2, 0.3, examples)

    def losses(of: float) -> np.ndarray:
        noise = 0.1 * np.cumsum(generator.normal(size=(11, examples)), 0) * (t * (1 - t))[:, None]
        return base + of * bump * height * generator.gamma(1, 1, examples) + noise

    return Remaining.of(losses(share), losses(1.0), np.ones(examples), t, 200, 0)


def test_the_share_that_remains_is_bounded_and_decides_only_what_it_can():
    generator = np.random.default_rng(0)
    bounds = {share: np.array([planted(generator, share).interval() for _ in range(12)]) for share in (0.0, 0.1, 0.46)}
    for share, (low, high) in {share: each.T for share, each in bounds.items()}.items():
        assert ((low <= share) & (share <= high)).mean() > 0.9, share
    assert (bounds[0.0][:, 1] < 0.1).mean() > 0.8 and (bounds[0.46][:, 0] > 0.1).mean() > 0.8
    assert not (bounds[0.1][:, 1] < 0.1).sum() > 1 and not (bounds[0.1][:, 0] > 0.1).sum() > 1
    flat = planted(generator, 0.5, height=0.0).midpoint()
    assert flat[1] < 0 < flat[2]


@pytest.mark.parametrize(
    "rise, remains, falling, words",
    [
        ((0.2, 0.4), (0.0, 0.05), 0.5, "so it goes round the barrier: less than 10% remains"),
        ((0.2, 0.4), (0.4, 0.5), 0.0, "so it does not go round the barrier: more than 10% remains"),
        ((0.2, 0.4), (0.4, 0.5), 0.3, "whether a path goes round is not decidable: train it longer"),
        ((0.2, 0.4), (0.05, 0.5), 0.0, "is not decidable: more test examples"),
        ((-0.1, 0.4), (0.0, 0.05), 0.0, "do not show the barrier"),
    ],
)
def test_a_path_goes_round_does_not_or_cannot_be_told(rise, remains, falling, words):
    line, share = Number("midpoint", 0.3, 9, "x", *rise), Number("remains", np.mean(remains), 9, "x", *remains)
    assert words in _meaning(line, share, falling, 0.1, 0.1)


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("bezier")
    made = [reference.make_plan(TINY, out, f"seed={seed}", "init=vocab", *SMALL) for seed in range(3)]
    assert train_pack(made) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


def number(result, quantity: str) -> Number:
    (match,) = [each for each in result.numbers if each.quantity == quantity]
    return match


@pytest.mark.long
def test_paths_of_real_runs_are_scored_by_hand(runs, plans):
    result = bezier(runs, lm=plans[0].lm, least=-1.0, steps=5, points=5)
    again = bezier(runs, lm=plans[0].lm, least=-1.0, steps=5, points=5)
    assert result.numbers == again.numbers and result.figures == again.figures
    table = result.tables["paths"]
    assert len(table) == 10 and not result.omissions
    line = table[table["way"] == "line"]
    a, b = line[["start", "end"]].iloc[0]
    prompts, t = runs.prompts(), np.linspace(0, 1, 5)
    scores = pg.evaluate(
        plans[0].lm, np.stack([(1 - x) * prompts[a] + x * prompts[b] for x in t]), plans[0].task, max_new_tokens=6
    )
    np.testing.assert_allclose(line["loss"], scores.loss, rtol=1e-4)
    np.testing.assert_allclose(line["accuracy"], scores.accuracy)
    above = max(0, *(scores.loss[i] - (1 - x) * scores.loss[0] - x * scores.loss[4] for i, x in enumerate(t)))
    assert number(result, "barrier.line.country_capital").value == pytest.approx(above, abs=1e-4)
    assert number(result, "difference.barrier.country_capital").value == pytest.approx(
        number(result, "barrier.bezier.country_capital").value - above, abs=1e-4
    )
    curved = table[table["way"] == "bezier"]
    np.testing.assert_allclose(curved["loss"].iloc[[0, -1]], scores.loss[[0, 4]], rtol=1e-4)
    remains = number(result, "remains.country_capital")
    assert remains.value == pytest.approx(
        min(number(result, "barrier.bezier.country_capital").value / max(above, 1e-9), 10), rel=0.01
    )
    middle = scores.loss[2] - (scores.loss[0] + scores.loss[4]) / 2
    assert number(result, "midpoint.line.country_capital").value == pytest.approx(middle, abs=1e-4)
    assert result.findings[0].n == 9 and "1 of 3 pairs, the highest on training examples" in result.findings[0].sentence


def test_the_pair_is_the_one_with_thehighest_pairs_midpoint(runs, plans):
    lm, rows = plans[0].lm, plans[0].train_rows
    prompts = torch.from_numpy(runs.prompts().copy())
    pairs = highest_pairs(lm, rows, prompts, 10**6)
    with torch.no_grad():
        losses = {
            (a, b): float(
                token_losses(lm, rows, (prompts[a] + prompts[b])[None] / 2)
                - token_losses(lm, rows, prompts[[a, b]]).mean()
            )
            for a, b in ((0, 1), (0, 2), (1, 2))
        }
    assert (pairs[0].start, pairs[0].end) == max(losses, key=losses.get) and len(pairs) == 3
    for pair in pairs:
        assert pair.above == pytest.approx(losses[pair.start, pair.end], abs=1e-4)


def test_no_barrier_no_path(runs, plans):
    result = bezier(runs, lm=plans[0].lm, least=100.0, points=5)
    assert set(result.tables["paths"]["way"]) == {"line"} and "there is no barrier to go round" in result.omissions[0]
    assert "so there was nothing to go round" in result.findings[0].sentence
    with pytest.raises(UserError, match="two or more"):
        bezier(runs.query("seed == 0"), lm=plans[0].lm)


@pytest.mark.parametrize("height", [0.0, 0.05, 0.3])
def test_the_highest_rise_of_a_noisy_path_has_an_interval_that_holds_the_true_one(height):
    t_T = np.linspace(0, 1, 11)
    weights_BE = np.concatenate([np.ones((1, 60)), draw_counts(np.random.default_rng(0), 60, 300)])
    held = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        noise_TE = 0.3 * generator.normal(size=(1, 60)) + generator.normal(size=(11, 60)).cumsum(0) * 0.1
        losses_TE = 1 + (height * 4 * t_T * (1 - t_T))[:, None] + noise_TE
        low, high = highest_interval(rises(weights_BE, losses_TE, np.ones(60), t_T), 60)
        held += low <= height <= high
    assert held >= 91
