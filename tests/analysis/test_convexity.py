"""Convexity: the arithmetic on planted losses, the intervals, the verdict on the published table, real runs by hand."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

import promptgeo as pg
import reference
from promptgeo.analysis.geometry import mixtures
from promptgeo.analysis.geometry.hull_claim import judge, over_tasks
from promptgeo.analysis.geometry.hull_resampling import HullResampler
from promptgeo.analysis.geometry.hulls import Hull, Kind, controlled
from promptgeo.analysis.geometry.lowest_mixture import lowest_mixture
from promptgeo.analysis.geometry.verdict import verdict
from promptgeo.analysis.questions.convexity import convexity
from promptgeo.analysis.resampling import (
    bounded_interval,
    clopper_pearson,
    difference_interval,
    draw_counts,
    percentile_interval,
    share_interval,
    student,
    wilson,
)
from promptgeo.analysis.result import Number, Outcome
from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable, table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

PUBLISHED = {
    "imdb": ([0.8390, 0.8150], [0.6310, 0.5900]),
    "identity": ([0.9960, 0.9920], [0.9500, 0.9620]),
    "plus_one": ([0.6960, 0.9520, 0.9980, 0.8800], [0.9280, 0.9940]),
    "plus_two": ([0.7700, 0.7760, 0.8440], [0.5080, 0.4140]),
}
"""Study 1: accuracies of the vertices and of their two mixtures a task."""


# Planted losses.


def planted(seed: int = 0):
    generator = np.random.default_rng(seed)
    vertices = generator.normal(size=(6, 20))
    weights, _ = mixtures.dirichlet(6, (0.2, 1, 5), 300, generator)
    return vertices, weights, [(a, b) for a in range(6) for b in range(a)]


def over_hull(loss, vertices, weights, pairs, steps: int = 11):
    """(V(w) of each mixture, {pair: barrier of its edge at `steps` even points}) of any loss."""
    t = np.linspace(0, 1, steps)
    violations = mixtures.violation(loss(mixtures.mix(weights, vertices)), loss(vertices))
    edges = {(a, b): loss(mixtures.lerp(vertices[a], vertices[b], t)) for a, b in pairs}
    return violations, {pair: float(mixtures.barrier(losses, t)) for pair, losses in edges.items()}


def test_a_convex_loss_has_neither_violations_nor_barriers():
    vertices, weights, pairs = planted()
    violations, barriers = over_hull(lambda x: ((x - 0.3) ** 2 * np.arange(1, 21)).sum(1), vertices, weights, pairs)
    assert violations.max() < 0 and max(barriers.values()) <= 1e-12 and len(barriers) == 15


def test_a_quasi_convex_loss_has_barriers_but_no_violations():
    vertices, weights, pairs = planted()
    violations, barriers = over_hull(
        lambda x: np.sqrt(np.linalg.norm(x - vertices[0], axis=1)), vertices, weights, pairs
    )
    assert violations.max() <= 1e-12 and max(barriers.values()) > 0.05
    ridge, _ = over_hull(lambda x: -((x - vertices.mean(0)) ** 2).sum(1), vertices, weights, pairs)
    assert ridge.max() > 1 and (ridge > 0).mean() > 0.9


@pytest.mark.parametrize("depth, steps", [(0.0, 11), (2.0, 101)])
def test_two_basins_have_the_analytic_barrier(depth, steps):
    """L = min(|x - a|^2, |x - b|^2 + depth): the ridge lies where both are the same, at t = (1 + depth / D^2) / 2."""
    a, b = np.zeros(20), np.full(20, 1.0)
    squared = 20.0
    t = (1 + depth / squared) / 2
    analytic = t**2 * squared - t * depth

    def basins(x: np.ndarray) -> np.ndarray:
        return np.minimum(((x - a) ** 2).sum(1), ((x - b) ** 2).sum(1) + depth)

    _, barriers = over_hull(basins, np.stack([a, b]), np.eye(2), [(0, 1)], steps)
    assert barriers[0, 1] == pytest.approx(analytic, rel=0.02)
    middle = mixtures.violation(np.array([t**2 * squared]), basins(np.stack([a, b])))
    assert middle[0] == pytest.approx(t**2 * squared - max(0, depth))


def test_extrapolation_is_no_barrier():
    t = np.array([-0.5, 0, 0.5, 1, 1.5])
    assert mixtures.barrier(np.array([99, 1.0, 2.5, 2.0, 99]), t) == 1.0
    assert mixtures.barrier(np.array([[99, 1.0, 1.2, 2.0, 99], [0, 0, 3, 0, 0]]), t).tolist() == [0.0, 3.0]


def test_mixtures_edges_and_arcs():
    a, b = np.array([[2.0, 0, 0], [0, 1, 0]]), np.array([[0, 4.0, 0], [0, 3, 0]])
    np.testing.assert_allclose(
        mixtures.lerp(a, b, np.array([-0.5, 0.25])), [[[3, -2, 0], [0, 0, 0]], [[1.5, 1, 0], [0, 1.5, 0]]]
    )
    half = mixtures.slerp(a, b, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(half[[0, 2]], [a, b], atol=1e-12)
    np.testing.assert_allclose(half[1], [[3 / 2**0.5, 3 / 2**0.5, 0], [0, 2, 0]])  # a right angle; the same direction
    np.testing.assert_allclose(mixtures.slerp(a, -a, np.array([0.25])), mixtures.lerp(a, -a, np.array([0.25])))
    np.testing.assert_allclose(mixtures.mix(np.array([[0.25, 0.75]]), np.stack([a, b]))[0], 0.25 * a + 0.75 * b)
    grid = mixtures.triangle(4)
    assert grid.shape == (15, 3) and np.allclose(grid.sum(1), 1) and len(np.unique(grid, axis=0)) == 15


def test_dirichlet_weights_have_the_distributions_mean_and_variance():
    weights, alpha = mixtures.dirichlet(4, (5, 0.2), 40001, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(1), 1)
    assert np.unique(alpha, return_counts=True)[1].tolist() in ([20001, 20000], [20000, 20001])
    for a in (0.2, 5):
        drawn = weights[alpha == a]
        np.testing.assert_allclose(drawn.mean(0), 0.25, atol=0.01)
        np.testing.assert_allclose(drawn.var(0), (1 / 4) * (3 / 4) / (4 * a + 1), rtol=0.04)


def test_controls_have_the_mixtures_norm_or_distance():
    generator = np.random.default_rng(0)
    vertices = generator.normal(size=(3, 2, 50))
    point = 0.8 * vertices[1] + 0.1 * vertices[0] + 0.1 * vertices[2]
    assert mixtures.nearest(vertices, point) == 1
    scaled, moved = mixtures.rescaled(vertices[1], point), mixtures.displaced(vertices[1], point, generator)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), np.linalg.norm(point, axis=1))
    np.testing.assert_allclose(scaled[0] / scaled[0, 0], vertices[1, 0] / vertices[1, 0, 0])
    np.testing.assert_allclose(np.linalg.norm(moved - vertices[1], axis=1), np.linalg.norm(point - vertices[1], axis=1))
    assert not np.allclose(moved, point)
    chosen = controlled(200, 40).tolist()
    assert chosen == sorted(set(chosen)) and len(chosen) == 40 and (chosen[0], chosen[-1]) == (0, 199)
    pairs = mixtures.some_pairs(8, 6, generator)
    assert (
        len(set(pairs)) == 6
        and all(0 <= a < b < 8 for a, b in pairs)
        and len(mixtures.some_pairs(8, None, generator)) == comb(8, 2)
    )


# The verdict.


def test_the_verdict_on_the_published_table():
    published = verdict({t: v for t, (v, _) in PUBLISHED.items()}, {t: m for t, (_, m) in PUBLISHED.items()}, 0.05)
    assert (published.supporting, published.contradicting, published.only_by_margin) == (
        ["identity", "plus_one"],
        ["imdb", "plus_two"],
        ["identity"],
    )
    assert not published.holds
    assert published.sentence == (
        "Within a stated 5-point margin of the worst vertex, identity and plus_one support the claim that solutions "
        "are convex while imdb and plus_two contradict it (mixtures within it: imdb 0 of 2, lowest 59.0% against "
        "81.5%, identity 2 of 2, lowest 95.0% against 99.2%, plus_one 2 of 2, lowest 92.8% against 69.6%, plus_two "
        "0 of 2, lowest 41.4% against 77.0%); without the margin identity fails too."
    )


def test_other_numbers_give_another_verdict():
    vertices = {"a": [0.9, 0.8], "b": [0.7]}
    fine = verdict(vertices, {"a": [0.85, 0.8], "b": [0.7]}, 0.05)
    assert (
        fine.holds
        and "a and b support the claim that solutions are convex (" in fine.sentence
        and fine.sentence.endswith("without the margin the same tasks do.")
    )
    close = verdict(vertices, {"a": [0.79], "b": [0.7]}, 0.05)
    assert close.holds and close.sentence.endswith("without the margin a fails.")  # nothing else fails
    bad = verdict(vertices, {"a": [0.85, 0.7499], "b": [0.1]}, 0.05)
    assert (
        not bad.supporting
        and "worst vertex, a and b contradict the claim" in bad.sentence
        and (bad.tasks["a"].within, bad.tasks["a"].of) == (1, 2)
    )
    strict = verdict(vertices, {"a": [0.79], "b": [0.7]}, 0)
    assert strict.sentence.startswith(
        "With no margin below the worst vertex, b supports the claim that solutions are convex while a contradicts it"
    )
    assert verdict({"a": [0.8]}, {"a": [0.75]}, 0.05).holds  # the margin's edge, whatever 0.8 - 0.05 is in binary
    for wrong in (({}, {"a": [1]}, 0.05), ({"a": [1]}, {"a": []}, 0.05), ({"a": [1]}, {"a": [1]}, -0.1)):
        with pytest.raises(ValueError):
            verdict(*wrong)


# The decision.


def flipped(generator, right, share: float, count: int) -> np.ndarray:
    """Answers of prompts that differ from `right` on a random share of the examples."""
    return np.where(generator.random((count, len(right))) < share, ~right, right)


def scored_hull(generator, name="t", vertices=0.9, mixtures=0.9, moved=0.2, none=0.02, examples=500) -> Hull:
    """A hull of four vertices whose kinds of prompts solve so much, the same examples but for 2 % at random."""

    def kind(accuracy: float, count: int) -> Kind:
        order = np.arange(examples) / examples < accuracy
        return Kind(np.empty((count, 0)), np.empty(0), flipped(generator, order, 0.01, count))

    kinds = {"vertices": kind(vertices, 4), "mixtures": kind(mixtures, 60), "displaced": kind(moved, 20)}
    kinds["initial"] = kind(none, 4)
    evaluation_set = EvaluationSet(replace(pg.task("plus_one"), test=[pg.task("plus_one").test[0]] * examples), 5, 4)
    hull = Hull(name, evaluation_set, 4, [0, 1, 2, 3], np.empty(0), None, kinds, controlled_C=np.arange(20))
    hull.unprompted_E = np.arange(examples) / examples < none
    return hull


@pytest.mark.parametrize(
    "planted, outcome, needs",
    [
        ({}, Outcome.holds, ""),
        ({"mixtures": 0.75}, Outcome.fails, ""),
        ({"moved": 0.9}, Outcome.undecidable, "t: trained prompts so far apart that a random direction fails"),
        ({"vertices": 0.02, "mixtures": 0.02}, Outcome.undecidable, "t: trained prompts that each solve more than"),
        ({"none": 0.9}, Outcome.undecidable, "t: trained prompts that each solve more than no prompt"),
        ({"examples": 40}, Outcome.undecidable, "t: about "),
    ],
)
def test_a_hull_is_convex_not_convex_or_not_decidable(planted, outcome, needs):
    _, claim = over_tasks({"t": judge(scored_hull(np.random.default_rng(0), **planted), 0.05, 400, 0)}, 0.05)
    assert claim.outcome is outcome and claim.needs.startswith(needs) and (claim.p < 0.05) == claim.holds


def test_one_task_that_fails_decides_and_one_that_cannot_say_does_not():
    generator = np.random.default_rng(0)
    tasks = {
        "good": scored_hull(generator, "good"),
        "bad": scored_hull(generator, "bad", mixtures=0.7),
        "untrained": scored_hull(generator, "untrained", vertices=0.02, mixtures=0.9),
    }
    judged = {name: judge(hull, 0.05, 400, 0) for name, hull in tasks.items()}
    finding, claim = over_tasks(judged, 0.05)
    assert claim.outcome is Outcome.fails
    assert "no mixture lies lower, and a random direction fails in 1 (good)" in finding.sentence
    assert "some mixture lies lower in 1 (bad); these runs cannot say in 1 (untrained)" in finding.sentence
    claim = over_tasks({name: judged[name] for name in ("good", "untrained")}, 0.05)[1]
    assert claim.outcome is Outcome.undecidable and claim.needs.startswith("untrained: ")
    assert over_tasks({"good": judged["good"]}, 0.05)[1].holds


def test_noise_neither_contradicts_convexity_nor_agrees_with_it():
    """All true accuracies equal: a minimum over 200 noisy mixtures lay 5 points below in 46 % of such draws."""
    generator, naive = np.random.default_rng(0), 0
    for draw in range(25):
        right = generator.random(100) < 0.9
        vertices, mixed = flipped(generator, right, 0.05, 2), flipped(generator, right, 0.05, 200)
        lowest = lowest_mixture(mixed, vertices, 0.05, 200, draw)
        naive += lowest.value < -0.05 - 1e-9
        assert lowest.low < -0.05 < lowest.high and lowest.holds_p > 0.05 and lowest.fails_p > 0.05
    assert naive >= 5


def test_mixtures_that_lose_15_points_are_found_out():
    generator, found = np.random.default_rng(1), 0
    for draw in range(20):
        right = generator.random(200) < 0.9
        mixed = flipped(generator, right, 0.05, 100) & (generator.random((100, 200)) > 0.17)
        lowest = lowest_mixture(mixed, flipped(generator, right, 0.05, 4), 0.05, 200, draw)
        found += lowest.high < -0.05 and lowest.fails_p < 0.05
    assert found >= 16


def test_agreement_on_few_examples_is_no_certainty():
    """54 examples without a difference exclude 5 points; 53 do not: 1.96 sqrt(2) / (n + 2)."""
    for n, sure in ((9, False), (53, False), (54, True)):
        everything = np.ones((3, n), bool)
        assert (lowest_mixture(everything, everything[:2], 0.05, 100, 0).low > -0.05) == sure


# The intervals.


def test_a_draw_moves_the_mean_by_the_effects_of_its_trainings():
    generator = np.random.default_rng(1)
    resampler = HullResampler([[0, 1, 2], [3, 4]], 5, 200, 0)
    assert (resampler.runs_BN[:, :3].sum(1) == 3).all() and (resampler.runs_BN[:, 3:].sum(1) == 2).all()
    effects = np.array([0.2, 0.5, 0.9])
    weights = np.zeros((60, 5))
    weights[:, :3] = generator.dirichlet(np.ones(3), 60)
    linear = np.tile(weights[:, :3] @ effects, (200, 1))
    expected = [
        linear[0].mean()
        + student(3)
        * sum((resampler.runs_BN[b, i] - 1) * weights[:, i].mean() * (effects[i] - linear[0].mean()) for i in range(3))
        for b in range(200)
    ]
    np.testing.assert_allclose(resampler.means(linear, weights), expected)
    vertices = np.eye(5)[:3]
    np.testing.assert_allclose(
        resampler.means(np.tile(effects, (200, 1)), vertices),
        [effects.mean() + student(3) * ((resampler.runs_BN[b, :3] - 1) * effects).sum() / 3 for b in range(200)],
    )
    centre = np.array([[1 / 3, 1 / 3, 1 / 3, 0, 0]])
    evaluation_set = EvaluationSet(replace(pg.task("plus_one"), test=pg.task("plus_one").test[:4]), 5, 4)
    kinds = {
        "mixtures": Kind(
            np.empty(0), weights, np.tile(linear[0][:, None], 4)
        ),  # the same on all four examples: their draws do not matter
        "centre": Kind(np.empty(0), centre, np.full((1, 4), effects.mean())),
        "noise": Kind(np.empty(0), weights, generator.random((60, 4)), generator.random((60, 4))),
    }
    hull = Hull("planted", evaluation_set, 5, [0, 1, 2], np.empty(0), None, kinds, tokens_E=np.array([1, 2, 3, 4]))
    moved = resampler.mean(hull, "centre", "accuracy", effects_from="mixtures")
    np.testing.assert_allclose(
        moved,
        [effects.mean() + student(3) * ((resampler.runs_BN[b, :3] - 1) * effects).sum() / 3 for b in range(200)],
    )
    chosen = np.array([3, 50])
    for what in ("accuracy", "loss"):
        scores = resampler.scores(hull, "noise", what)
        drawn = resampler.examples(evaluation_set, 4)[7]
        per = drawn @ hull.tokens_E if what == "loss" else 4
        assert scores[7, 5] == pytest.approx(sum(drawn[e] * kinds["noise"].values(what)[5, e] for e in range(4)) / per)
        np.testing.assert_allclose(resampler.mean(hull, "noise", what), resampler.means(scores, weights), atol=1e-12)
        np.testing.assert_allclose(
            resampler.mean(hull, "noise", what, chosen), resampler.means(scores[:, chosen], weights[chosen]), atol=1e-12
        )


def test_a_share_or_difference_that_does_not_vary_has_the_interval_of_its_examples():
    still = np.full(50, 1.0)
    assert share_interval(still, 1.0, 9) == clopper_pearson(9, 9) and bounded_interval(still, None, None) == (1.0, 1.0)
    # Newcombe 1998, method 10: 1 - sqrt((1 - .7009)^2 + .2991^2), by hand
    by_hand = (1 - np.sqrt(2) * (1 - wilson(9, 9)[0]), 1.0)
    all_of_9, none_of_9 = wilson(9, 9), wilson(0, 9)
    assert difference_interval(still, 1.0, all_of_9, 0.0, none_of_9) == pytest.approx(by_hand, abs=1e-9)
    drawn = np.linspace(0, 1, 1001)
    assert difference_interval(drawn, 0.7, (0.4, 0.9), 0.2, (0.1, 0.5)) == pytest.approx((0.025, 0.975))
    # One share near 0: as wide as Newcombe's of the two, at the end where that reaches farther.
    near = difference_interval(0.2 + drawn * 0.7, 0.5, (0.2, 0.8), 0.0, none_of_9)
    assert near == pytest.approx((0.5 - np.hypot(0.3, none_of_9[1]), 0.2 + 0.975 * 0.7))


def test_draws_of_few_examples_know_nothing_of_the_rare_ones_that_are_solved():
    n, share = 30, 0.04
    generator, held, held_by_draws = np.random.default_rng(0), 0, 0
    for _ in range(300):
        solved = generator.random(n) < share
        drawn = draw_counts(generator, n, 200) @ solved / n
        low, high = share_interval(drawn, solved.mean(), n)
        held += low <= share <= high
        held_by_draws += bounded_interval(drawn, 0.0, 1.0)[1] >= share
    assert held >= 285 and held_by_draws < 225


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    """Ten trainings of a population with mean .5.

    As if the mixtures were independent, the interval would hold it in less than 6 of 10 trials.
    """
    generator, held, naive = np.random.default_rng(0), 0, 0
    for trial in range(200):
        weights, _ = mixtures.dirichlet(10, (0.2, 1, 5), 60, generator)
        scores = weights @ generator.normal(0.5, 0.1, 10) + generator.normal(0, 0.01, 60)
        means = HullResampler([range(10)], 10, 300, trial).means(np.tile(scores, (300, 1)), weights)
        low, high = percentile_interval(means)
        held += low <= 0.5 <= high
        naive += abs(scores.mean() - 0.5) <= 1.96 * scores.std() / 60**0.5
    assert 0.85 <= held / 200 <= 0.99 and naive / 200 < 0.6


# Real runs.

SMALL = (
    "task.split.max_train=64",
    "task.split.max_test=9",
    "training.epochs=2",
    "evaluation.every=end",
    "evaluation.max_new_tokens=6",
    "template.longer_labels=warn",
    "init=vocab",
)
TASKS = ("country_capital", "present_past")
OPTIONS = {"mixtures": 12, "pairs": 2, "steps": 5, "controls": 6, "resolution": 3, "draws": 200}


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("convexity")
    made = [
        reference.make_plan(TINY, out, f"task={task}", f"seed={seed}", "prompt.length=2", *SMALL)
        for task in TASKS
        for seed in range(3)
    ]
    assert train_pack(made) == {}
    alone = reference.make_plan(TINY, out, "task=present_past", "seed=0", "prompt.length=1", *SMALL)
    reference.trained(alone)
    return [*made, alone]


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def result(runs, plans):
    return convexity(runs, lm=plans[0].lm, **OPTIONS)


def scored(plan, prompts):
    return pg.evaluate(plan.lm, prompts, plan.task, max_new_tokens=plan.config.evaluation.max_new_tokens)


def number(result, quantity: str) -> Number:
    (match,) = [each for each in result.numbers if each.quantity == quantity]
    return match


@pytest.mark.long
def test_vertices_edges_and_barycentre_are_scored_by_hand(runs, plans, result):
    for k, (name, first) in enumerate((("country_capital", 0), ("present_past.P2", 3))):
        prompts = np.stack([run.prompt() for run in runs.runs[first : first + 3]]).astype(np.float64)
        logged = runs.table["accuracy_final"][first : first + 3]
        for which, value in (("all.", "min"), ("all.", "max"), ("", "mean")):
            assert number(result, f"{which}vertices.{name}.{value}").value == pytest.approx(getattr(logged, value)())
        assert number(result, f"unprompted.{name}").value == runs.table["accuracy_none"][first]
        centre = scored(plans[first], prompts.mean(0)[None])
        assert number(result, f"barycentre.{name}").value == centre.accuracy[0]
        edges = result.tables["edges"]
        edges = edges[edges["task"] == name]
        assert len(edges) == 2 * (4 + 5 + 5) and edges["t"].min() == -0.5 and edges["t"].max() == 1.5
        barriers = []
        for a, b in edges[["start", "end"]].drop_duplicates().to_numpy() - first:
            along = scored(
                plans[first], np.stack([(1 - t) * prompts[a] + t * prompts[b] for t in (-0.5, 0, 0.25, 0.5, 0.75, 1)])
            ).loss
            here = edges[
                (edges["start"] == a + first) & (edges["end"] == b + first) & (edges["way"] == "lerp")
            ].set_index("t")["loss"]
            np.testing.assert_allclose([here[t] for t in (-0.5, 0, 0.25, 0.5, 0.75, 1)], along, rtol=1e-4)
            barriers.append(
                max(
                    0,
                    *(
                        along[i + 1] - ((1 - t) * along[1] + t * along[5])
                        for i, t in enumerate((0, 0.25, 0.5, 0.75, 1))
                    ),
                )
            )
        assert number(result, f"barrier.{name}.mean").value == pytest.approx(np.mean(barriers), abs=1e-4), k
        assert number(result, f"barrier.{name}.max").value == pytest.approx(max(barriers), abs=1e-4)
    assert number(result, "all.vertices.country_capital.min").value > number(result, "unprompted.country_capital").value


def test_mixtures_violations_and_controls_follow_from_the_table(runs, result):
    table = result.tables["prompts"]
    for name in ("country_capital", "present_past.P2"):
        here = table[table["task"] == name]
        mixed, vertices = (here[here["kind"] == kind] for kind in ("mixtures", "vertices"))
        assert len(mixed) == 12 and mixed["alpha"].value_counts().to_dict() == {0.2: 4, 1.0: 4, 5.0: 4}
        assert number(result, f"all.mixtures.{name}.mean").value == pytest.approx(mixed["accuracy"].mean())
        above = mixed["loss"] - vertices["loss"].max()
        assert number(result, f"violation.{name}.mean").value == pytest.approx(above.mean()) and number(
            result, f"violation.{name}.max"
        ).value == pytest.approx(above.max())
        assert number(result, f"violated.{name}").value == (above > 0).mean()
        assert (
            number(result, f"within.{name}").value
            == (mixed["accuracy"] >= vertices["accuracy"].min() - 0.05 - 1e-9).mean()
        )
        for control in ("rescaled", "displaced", "untrained"):
            of = (
                mixed["accuracy"].to_numpy()[controlled(12, 6)].mean()
                - here.loc[here["kind"] == control, "accuracy"].mean()
            )
            assert number(result, f"difference.{control}.{name}").value == pytest.approx(of), control
        norms = here.groupby("kind")["norm"]
        np.testing.assert_allclose(norms.get_group("rescaled"), mixed["norm"].to_numpy()[controlled(12, 6)], rtol=1e-5)
    for each in result.numbers:
        low, high = each.interval
        assert each.n > 0 and low <= high, each
        if each.quantity.split(".")[0] in (
            "all",
            "vertices",
            "mixtures",
            "barycentre",
            "edges",
            "within",
            "unprompted",
        ):
            assert low - 1e-9 <= each.value <= high + 1e-9, each
    assert number(result, "unprompted.country_capital").high == wilson(0, 9)[1]
    for name in ("country_capital", "present_past.P2"):
        (said,) = [f for f in result.findings if f.sentence.startswith(f"{name}: the barrier on a straight line")]
        mean = number(result, f"barrier.{name}.mean")
        assert (said.estimate, said.low, said.high) == (mean.value, mean.low, mean.high)
        assert f"is {mean.value:.3f} nats" in said.sentence
        assert ("no detectable barrier" in said.sentence) == (mean.low < 5e-4)
    assert result.claims[0].name == "convex" and result.claims[0].evidence.startswith(result.findings[0].sentence)
    assert set(result.figures) == {"accuracy", "edges", "ternary"} and set(
        result.tables["ternary"].groupby("task").size()
    ) == {10}


def test_the_untrained_hull_fails_where_the_trained_one_succeeds(result):
    for name in ("country_capital", "present_past.P2"):
        assert number(result, f"difference.untrained.{name}").low > 0
        assert number(result, f"all.mixtures.{name}.mean").value > 0.5 > number(result, f"untrained.{name}").value
        assert any(
            f"{name}: mixtures solve more than the same mixtures of the untrained P0s" in f.sentence
            for f in result.findings
        )


def test_what_is_left_out_is_named(runs, plans, result):
    assert result.omissions == [
        "convexity: present_past.P1 has one trained prompt of length 1; a hull needs two or more.",
        "convexity: 2 of up to 3 edges of a task were scored, drawn by seed 0 (pairs=null scores all).",
        "convexity: each control was made for 6 of 12 mixtures of a task, spread evenly over the alphas "
        "(controls=12 makes it for all).",
    ]
    two = runs.query("task == 'country_capital' and seed < 2")
    few, again = (convexity(two, lm=plans[0].lm, **OPTIONS, max_examples=5) for _ in range(2))
    assert few.numbers == again.numbers and few.figures == again.figures and few.findings == again.findings
    assert "ternary" not in few.figures and number(few, "unprompted.country_capital").n == 5
    assert any(
        "5 test examples of a task, drawn by seed 0, stand for all of country_capital (9)" in o for o in few.omissions
    )
    assert (
        "convexity: mixtures across tasks as a control need runs of two tasks with the same prompt length."
        in few.omissions
    )
    assert any("two trainings hardly show" in o for o in few.omissions)


def test_runs_without_a_hull_say_so(runs, plans):
    with pytest.raises(UserError, match="two or more"):
        convexity(runs.query("seed == 0 and prompt_length == 2"), lm=plans[0].lm)
    pair = runs.query("task == 'country_capital'")
    with pytest.raises(UserError, match="needs runs trained here"):
        convexity(RunTable.from_arrays(pair.prompts(), pair.table, pair.prompts("initial")), lm=plans[0].lm)
    with pytest.raises(UserError, match=r"margin=-0\.1"):
        convexity(runs, lm=plans[0].lm, margin=-0.1)
    for alphas in ([], [0], [1, -1], [float("inf")], [float("nan")]):
        with pytest.raises(UserError, match=r"alphas=\[.*numbers above 0"):
            convexity(runs, lm=plans[0].lm, alphas=alphas)
