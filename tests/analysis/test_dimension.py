"""The size of a set of solutions, and groups of orthogonal ones.

Planted losses that are flat in known subspaces, planted spreads, groups of runs, and real runs scored by hand.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import promptgeo as pg
import reference
from promptgeo.analysis.geometry.solution_groups import AlikeGroups, Criterion, Group, cosines_about_barycentre
from promptgeo.analysis.geometry.solution_radii import mean_interval
from promptgeo.analysis.geometry.subspaces import (
    centred_gram,
    null_grams,
    orthonormal,
    participation,
    radii,
    random_directions,
    smallest_reaching,
    spread,
    spread_beside,
    train_in_subspaces,
    unit,
    vocabulary_grams,
)
from promptgeo.analysis.groups import by_task, distinct, pushed_apart
from promptgeo.analysis.questions import dimension as dimension_questions
from promptgeo.analysis.questions.dimension import dimension
from promptgeo.analysis.questions.orthogonal import coupled_groups, orthogonal
from promptgeo.analysis.resampling import clopper_pearson, jackknife_interval, or_exact
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.analysis.training_loss import loss_gradient, minibatch_losses, token_losses
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

SMALL = (
    "task=country_capital",
    "task.split.max_train=48",
    "task.split.max_test=6",
    "training.epochs=2",
    "evaluation.every=end",
    "evaluation.max_new_tokens=6",
    "template.longer_labels=warn",
    "prompt.length=1",
)
QUICK = {
    "directions": 2,
    "dimensions": (1, 4),
    "subspaces": 2,
    "steps": 3,
    "batch_size": 4,
    "nulls": 40,
    "draws": 60,
    "radii_of": 2,
}


def number(result, quantity: str) -> Number:
    (match,) = [each for each in result.numbers if each.quantity == quantity]
    return match


# Radii.


def flat(constrained: np.ndarray):
    """A loss that only sees the part of a point in some orthonormal directions [D, m]."""
    return lambda points: ((points.reshape(len(points), -1) @ constrained) ** 2).sum(1)


def test_radii_are_infinite_in_flat_directions_and_exact_in_others():
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    constrained, free = basis[:, :3], basis[:, 3:]
    point = (free @ generator.standard_normal(9)).reshape(3, 4)
    directions = np.concatenate(
        [random_directions(5, (3, 4), generator), free.T[:2].reshape(2, 3, 4), constrained.T[:1].reshape(1, 3, 4)]
    )
    measured, beyond = radii(flat(constrained), point, directions, tau=0.25, most=16.0)
    exact = 0.5 / np.linalg.norm(
        directions.reshape(8, -1) @ constrained, axis=1
    )  # |r u| = sqrt(tau) in the constrained part
    assert beyond.tolist() == [False] * 5 + [True] * 2 + [False]
    assert (measured[5:7] == 16).all() and exact[7] == pytest.approx(0.5)
    inside = [0, 1, 2, 3, 4, 7]
    assert (measured[inside] <= exact[inside] + 1e-12).all() and (measured[inside] >= exact[inside] * (1 - 2**-6)).all()


def test_a_radius_ends_where_the_loss_first_exceeds_tau():
    ring = radii(
        lambda x: np.sin(np.pi * x[:, 0]), np.zeros(2), np.array([[1.0, 0], [-1, 0]]), tau=0.5, most=1.25, halvings=12
    )
    assert ring[0][0] == pytest.approx(1 / 6, rel=1e-3) and ring[1].tolist() == [
        False,
        False,
    ]  # below tau again from 5/6 on
    assert ring[0][1] == pytest.approx(7 / 6, rel=1e-3)
    tiny, beyond = radii(lambda x: x[:, 0] > 0.0005, np.zeros(1), np.ones((1, 1)), tau=0.5, most=1.0)
    assert 0.00045 < tiny[0] <= 0.0005 and not beyond[0]
    assert radii(lambda x: np.ones(len(x)), np.zeros(1), np.ones((1, 1)), tau=0.5, most=1.0)[0][0] == 0


def test_directions_are_unit_prompts():
    directions = random_directions(4000, (2, 3), np.random.default_rng(0))
    np.testing.assert_allclose((directions**2).sum((1, 2)), 1)
    np.testing.assert_allclose((directions**2).mean(0), 1 / 6, atol=0.01)  # no number is preferred
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0]])), [[0.6, 0.8]])


# Subspaces.


def test_a_subspace_is_random_orthonormal_and_nested():
    basis = orthonormal(30, 6, np.random.default_rng(0))
    assert basis.dtype == np.float32 and basis.shape == (30, 6)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-6)
    np.testing.assert_allclose(orthonormal(30, 6, np.random.default_rng(0)), basis)


def test_the_smallest_subspace_has_as_many_dimensions_as_the_loss_has_constraints():
    """m constraints in D dimensions: a random subspace holds a solution from dimension m on.

    Below, it leaves the residual of least squares.
    """
    size, m, dims = 40, 6, (1, 4, 5, 6, 12)
    generator = np.random.default_rng(1)
    constrained = np.linalg.qr(generator.standard_normal((size, m)))[0]
    origin, target = generator.standard_normal((2, size))
    seen, wanted = torch.from_numpy(constrained).float(), torch.from_numpy(constrained.T @ target).float()

    def loss(points: torch.Tensor) -> torch.Tensor:
        return (points.flatten(1) @ seen - wanted).square().sum(1)

    bases = [orthonormal(size, k, generator) for k in dims]
    origins = torch.from_numpy(np.tile(origin, (len(dims) + 1, 1))).float().view(-1, 4, 10)
    spaces = [*map(torch.from_numpy, bases), None]
    points = train_in_subspaces(loss, origins, spaces, steps=1000, lr=0.05)
    assert points.shape == (6, 4, 10) and not points.requires_grad
    losses = loss(points).numpy()
    for k, basis, reached in zip(dims, bases, losses, strict=False):
        residual = np.linalg.lstsq(constrained.T @ basis, constrained.T @ (target - origin), rcond=None)[1]
        assert reached == pytest.approx(float(residual[0]) if k < m else 0.0, rel=0.01, abs=2e-3), k
        moved = points[dims.index(k)].numpy().ravel() - origin
        np.testing.assert_allclose(basis @ (basis.T @ moved), moved, atol=1e-4)  # it never left the subspace
    assert losses[-1] < 2e-3
    accuracy = (losses[:-1] < 0.01).astype(float)[None]
    assert smallest_reaching(accuracy, dims, np.array([0.9])).tolist() == [m]
    alone = train_in_subspaces(loss, origins[2:3], spaces[2:3], steps=20, lr=0.03)
    together = train_in_subspaces(loss, origins, spaces, steps=20, lr=0.03)
    torch.testing.assert_close(together[2], alone[0], rtol=1e-5, atol=1e-6)


def test_a_step_is_as_long_in_every_subspace():
    lengths = [
        float(
            train_in_subspaces(lambda x: (x - 1).square().sum(1), torch.zeros(1, 64), [space], steps=1, lr=0.01).norm()
        )
        for space in (None, torch.eye(64)[:, :4], torch.eye(64)[:, :1])
    ]
    assert lengths == pytest.approx([0.08] * 3, rel=1e-4)  # lr * sqrt(D)


def test_no_subspace_that_reaches_is_infinite():
    accuracies = np.array([[0.1, 0.5, 0.4], [0.1, 0.2, 0.9], [0, 0, 0]])
    assert smallest_reaching(accuracies, (1, 2, 8), np.array([0.5, 0.9, 0.1])).tolist() == [2, 8, np.inf]


# Participation ratio.


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_participation_ratio_of_k_equal_variances_is_k(k):
    points = np.concatenate([np.eye(9)[:k], -np.eye(9)[:k]]) * 3 + 7
    assert participation(centred_gram(points), np.ones((1, 2 * k)))[0] == pytest.approx(k)


def test_runs_that_count_twice_are_as_if_they_were_there_twice():
    points = np.random.default_rng(0).normal(size=(4, 10)) * [1, 2, 3, 4, 5, 1, 1, 1, 1, 1]
    counts = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 1, 0], [4, 0, 0, 0]])
    ratios = participation(centred_gram(points), counts)
    for drawn, ratio in zip(counts[:3], ratios, strict=False):
        values = np.linalg.eigvalsh(np.cov(np.repeat(points, drawn, axis=0), rowvar=False))
        assert ratio == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert np.isnan(ratios[3])  # one point spreads over nothing


def test_solutions_in_a_plane_spread_less_than_random_directions():
    generator = np.random.default_rng(0)
    plane = np.linalg.qr(generator.standard_normal((100, 2)))[0]
    turn = 2 * np.pi * np.arange(8) / 8
    measured, shares = spread(np.stack([np.cos(turn), np.sin(turn)], axis=1) @ plane.T + 1, 200, generator)
    assert measured.value == pytest.approx(2) and measured.p < 0.01
    assert measured.low < measured.ratio < measured.high < 0.5
    assert measured.null == pytest.approx(
        6.6, abs=0.25
    )  # below N - 1: eight points say no more of a hundred dimensions
    assert measured.ratio == pytest.approx(measured.value / measured.null) and shares == pytest.approx(
        [0.5, 0.5, *[0] * 5], abs=1e-9
    )


def test_untrained_prompts_spread_less_than_random_directions_and_not_less_than_p0s_or_the_vocabulary():
    """Embeddings have directions in which they vary most: what is said of their spread is said beside their own."""
    generator = np.random.default_rng(0)
    words = generator.normal(size=(300, 64)) * np.exp(0.8 * generator.normal(size=64))
    said = []
    for _ in range(25):
        p0, more = words[generator.integers(0, 300, (2, 8))]
        gram = centred_gram(p0 + 0.7 * more)
        random, own = spread_beside(gram, null_grams(p0, 60, generator)), spread_beside(gram, centred_gram(p0)[None])
        vocabulary = spread_beside(gram, vocabulary_grams(words, 8, 1, 60, generator))
        said.append((random.p < 0.05, own.high < 1 or own.low > 1, vocabulary.p < 0.05))
    fewer, beside_p0, beside_words = np.mean(said, axis=0)
    assert fewer > 0.9 and beside_p0 <= 0.08 and beside_words <= 0.16
    flat = np.linalg.qr(generator.normal(size=(64, 1)))[0]
    line = 0.1 * p0 + 5 * np.arange(8)[:, None] * flat.T
    assert spread_beside(centred_gram(line), centred_gram(p0)[None]).high < 1


def test_few_runs_are_few():
    """The interval of a mean over two runs holds it in 95 %; a bootstrap's in half."""
    held = [low <= 0 <= high for low, high in map(mean_interval, np.random.default_rng(0).normal(size=(400, 2)))]
    assert 0.92 <= np.mean(held) <= 0.98 and mean_interval(np.ones(1)) == (-np.inf, np.inf)


def test_random_directions_are_their_own_null():
    generator = np.random.default_rng(3)
    tests = [spread(random_directions(8, (100,), generator), 99, generator)[0] for _ in range(40)]
    assert np.mean([t.p <= 0.1 for t in tests]) <= 0.25 and 0.35 < np.mean([t.p for t in tests]) < 0.65
    assert np.mean([t.ratio for t in tests]) == pytest.approx(1, abs=0.01)
    assert np.mean([t.low <= 1 <= t.high for t in tests]) >= 0.85 and np.mean([t.high / t.low for t in tests]) < 1.3


def test_the_interval_holds_the_mean_of_ratios_of_few_dimensions():
    generator = np.random.default_rng(0)
    tests = [spread(generator.normal(size=(8, 5)) @ np.eye(5, 60), 20, generator)[0] for _ in range(60)]
    mean = np.mean([t.ratio for t in tests])
    assert np.mean([t.low <= mean <= t.high for t in tests]) >= 0.9  # a bootstrap's: .6


def test_the_jackknife_of_a_mean_is_the_t_interval_and_a_share_that_does_not_vary_has_clopper_and_pearsons():
    values = np.array([1.0, 2, 4, 9])
    without = np.array([np.delete(values, k).mean() for k in range(4)])
    half = 3.182446305284263 * values.std(ddof=1) / 2  # the 97.5th percentile of t with 3 degrees of freedom
    assert jackknife_interval(values.mean(), without) == pytest.approx((4 - half, 4 + half))
    assert or_exact((1.0, 1.0), 1.0, 9) == clopper_pearson(9, 9) and or_exact((0.2, 0.3), 0.25, 9) == (0.2, 0.3)


# Groups of orthogonal solutions.


def test_the_cosines_of_a_simplex_and_of_a_line():
    corners = np.eye(5).reshape(5, 1, 5) + 3  # P = 1; moved away from 0
    value, (low, high) = cosines_about_barycentre(corners)
    assert value == pytest.approx(1 / 4) and (low, high) == (pytest.approx(1 / 4), pytest.approx(1 / 4))
    assert cosines_about_barycentre(np.array([[0.0, 1], [0, 3], [0, 8]]))[0] == pytest.approx(1)
    assert cosines_about_barycentre(np.array([[0.0, 1], [0, 3]]))[0] == pytest.approx(1)
    vectors = np.random.default_rng(0).normal(size=(4, 2, 3))
    centred = [(v - vectors.mean(0)).ravel() for v in vectors]
    by_hand = [abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(centred) for b in centred[:i]]
    value, (low, high) = cosines_about_barycentre(vectors)
    assert value == pytest.approx(np.mean(by_hand)) and low < value < high
    assert cosines_about_barycentre(np.array([[1.0, 0], [-1, 0], [0, 0]]))[0] == 1  # one lies at the barycentre


def made(vertices, mixtures, barycentre, cosine=1 / 3) -> Group:
    def solved(accuracy: float) -> np.ndarray:
        return (np.arange(10) < 10 * accuracy).astype(float)

    vertices, mixtures = (np.stack([solved(x) for x in accuracies]) for accuracies in (vertices, mixtures))
    return Group(1.0, "vocab", vertices, mixtures, solved(barycentre), cosine, (0, 1))


def lacking(group: Group, threshold: float, apart: float) -> list[str]:
    return Criterion(1.0, apart, np.full(10, threshold)).lacking(group)


def test_solutions_count_only_if_the_worst_the_mixtures_and_the_barycentre_do_and_their_directions_are_apart():
    good = [0.9, 1, 1, 1]
    assert lacking(made(good, [0.9, 1], 0.9), 0.9, 0.1) == []
    assert lacking(made([0.8, 1, 1, 1], [1, 1], 1), 0.9, 0.1) == ["worst prompt"]
    assert lacking(made(good, [0.7, 1], 1), 0.9, 0.1) == ["mixtures, mean"]  # separate points, no one set
    assert lacking(made(good, [1, 1], 0.5), 0.9, 0.1) == ["barycentre"]
    assert lacking(made(good, [1, 1], 1, cosine=0.44), 0.9, 0.1) == ["directions"]
    assert lacking(made(good, [1, 1], 1, cosine=0.44), 0.9, 0.2) == []
    drawn = made([0.5, 0.7], [0, 1], 1).accuracies(np.eye(10)[[5, 9]])
    expected = {"worst": [0, 0], "vertices": [0.5, 0], "mixtures": [0.5, 0.5], "barycentre": [1, 1]}
    assert {kind: values.tolist() for kind, values in drawn.items()} == expected


def test_noise_does_not_keep_solutions_from_counting_nor_lets_them_count():
    """16 prompts whose true accuracy is the threshold: the lowest of them always lies below it as counted."""
    generator, outcomes, lowest = np.random.default_rng(0), [], []
    for _ in range(30):
        solved = (generator.random((16, 200)) < 0.8).astype(float)
        group = Group(1.0, "vocab", solved, solved[:3], solved[0], 1 / 15, (0, 1))
        drawn = generator.multinomial(200, np.full(200, 1 / 200), size=200).astype(float)
        for asked in (0.8, 0.4, 0.97):
            criterion = Criterion(1.0, 0.1, np.full(200, asked))
            value, low, high = AlikeGroups.of([group], drawn, generator).margins(criterion, drawn)
            assert low <= value <= high
            outcomes.append(AlikeGroups([group], {}).outcome(criterion, (low, high)))
            lowest.append(value)
    assert np.mean(np.array(lowest[::3]) < 0) > 0.9
    assert outcomes[::3].count(Outcome.undecidable) >= 28
    assert set(outcomes[1::3]) == {Outcome.holds} and set(outcomes[2::3]) == {Outcome.fails}
    far = Criterion(1.0, 0.0, np.full(200, 0.4))
    assert AlikeGroups([replace(group, cosine=0.5)], {}).outcome(far, (0.1, 0.5)) is Outcome.fails


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("dimension")
    plans = [reference.make_plan(TINY, out, f"seed={seed}", "init=vocab", *SMALL) for seed in range(4)]
    assert train_pack(plans) == {}
    return plans


@pytest.fixture(scope="module")
def runs(plans):
    """Four runs of their own."""
    return table_of([Run.load(plan.folder) for plan in plans])


def coupled(plan, seeds: list[int], weight: float = 1.0, seed: int | None = None) -> Run:
    """A run that says it was pushed away from others, and perhaps that it has another seed."""
    run = Run.load(plan.folder)
    info = copy.deepcopy(run.info)
    info["config"]["regulariser"] = {"name": "orthogonal", "weight": weight, "seeds": seeds}
    info["config"]["seed"] = run.info["config"]["seed"] if seed is None else seed
    return replace(run, info=info)


@pytest.fixture(scope="module")
def mixed(plans, runs):
    """Four runs of their own, and three that say that they were coupled: prompts of seeds 0, 1, 2 as seeds 1, 2, 3."""
    return table_of([*runs.runs, *(coupled(plan, [1, 2, 3], seed=k + 1) for k, plan in enumerate(plans[:3]))])


def groups(runs, members) -> tuple[list[list[int]], list[str]]:
    """(numbers of the runs of each complete group, omissions)."""
    (task,), result = by_task(runs, "orthogonal"), Result()
    return [group.members for group in coupled_groups(task.only(members), result)], result.omissions


def test_groups_are_runs_that_differ_in_their_seed_alone(plans, mixed):
    assert [pushed_apart(run) for run in mixed.runs] == [0, 0, 0, 0, 1, 1, 1] and pushed_apart(
        coupled(plans[3], [2, 3], 0.0)
    ) == 0
    assert groups(mixed, [4, 5, 6]) == ([[4, 5, 6]], [])
    more = table_of(
        [
            *(coupled(plan, [0, 1], weight) for weight in (1.0, 0.5) for plan in plans[:2]),
            coupled(plans[3], [0, 3]),
        ]
    )
    complete, omissions = groups(more, range(5))
    assert complete == [[0, 1], [2, 3]]
    left_out = "has 1 of the 2 runs that were coupled; such a group is left out."
    assert omissions == [f"orthogonal: country_capital {left_out}"]
    twice = table_of([*mixed.runs[:2], coupled(plans[1], [0, 1], 0.0), mixed.runs[2]])
    assert distinct(twice, range(4)) == [0, 1, 3]


def test_orthogonal_solutions_scored_by_hand(mixed, plans):
    result = orthogonal(mixed, lm=plans[0].lm, mixtures=4, share=0.5, apart=1.0, draws=50)
    again = orthogonal(mixed, lm=plans[0].lm, mixtures=4, share=0.5, apart=1.0, draws=50)
    assert result.numbers == again.numbers and result.figures == again.figures
    accuracies = pg.evaluate(plans[0].lm, mixed.prompts(), plans[0].task, max_new_tokens=6).accuracy
    assert number(result, "unregularised.country_capital").value == pytest.approx(accuracies[:4].mean())
    for prefix, members in (("unregularised.", slice(1, 4)), ("", slice(4, 7))):  # the control has the same seeds
        assert number(result, f"{prefix}worst.country_capital.n3").value == pytest.approx(accuracies[members].min())
        assert number(result, f"{prefix}vertices.country_capital.n3").value == pytest.approx(accuracies[members].mean())
        middle = pg.evaluate(
            plans[0].lm, mixed.prompts()[members].mean(0)[None], plans[0].task, max_new_tokens=6
        ).accuracy[0]
        assert number(result, f"{prefix}barycentre.country_capital.n3").value == pytest.approx(middle)
        lowest = min(middle, accuracies[members].min(), number(result, f"{prefix}mixtures.country_capital.n3").value)
        assert number(result, f"{prefix}margin.country_capital.n3").value == pytest.approx(
            lowest - 0.5 * accuracies[:4].mean()
        )
        assert number(result, f"{prefix}cosine.country_capital.n3").value == pytest.approx(
            cosines_about_barycentre(mixed.prompts()[members])[0]
        )
    counts = number(result, "margin.country_capital.n3").value >= 0
    assert number(result, "solutions.country_capital").value == (3 if counts else 0)
    assert len(result.findings) == 3 and ("3 solutions pushed apart fit" in result.findings[0].sentence) == counts
    p0 = number(result, "p0.cosine.country_capital.n3")
    assert p0.value == pytest.approx(cosines_about_barycentre(mixed.prompts("initial")[4:])[0])
    for each in result.numbers:
        if ".cosine." in each.quantity and "p0." in each.quantity:
            continue
        low, high = each.interval
        assert each.n > 0 and low <= each.value + 1e-9 and each.value <= high + 1e-9, each


def test_a_higher_threshold_says_otherwise(mixed, plans, runs):
    result = orthogonal(mixed, lm=plans[0].lm, mixtures=4, share=1.0, apart=0.0, draws=50)
    table = result.tables["groups"]
    pushed = table[table["weight"] == 1].iloc[0]
    reached = (
        min(pushed["worst"], pushed["mixtures"], pushed["barycentre"]) >= pushed["threshold"] - 1e-9
        and pushed["cosine"] <= 1 / 2
    )
    assert bool(pushed["counts"]) == reached and number(result, "solutions.country_capital").value == 3 * reached
    alone = orthogonal(runs, lm=plans[0].lm, mixtures=4, draws=50)
    assert (
        "no runs that were pushed apart" in alone.omissions[0]
        and len(alone.findings) == 1
        and "4 unregularised solutions" in alone.findings[0].sentence
    )
    with pytest.raises(UserError, match="two unregularised runs"):
        orthogonal(mixed.query("seed >= 3"), lm=plans[0].lm)


# Real runs.


def test_the_loss_and_its_gradient_are_the_models(plans, runs):
    plan, model = plans[0], reference.original(TINY)
    points = torch.from_numpy(runs.prompts()[:2].copy()).requires_grad_()
    rows = plan.train_rows[:3]
    expected = [
        sum(reference.row_loss(model, point, row) for row in rows) / sum(len(row.label) for row in rows)
        for point in points
    ]
    torch.testing.assert_close(token_losses(plan.lm, rows, points), torch.stack(expected), rtol=1e-4, atol=1e-5)
    both = (
        torch.autograd.grad(sum(token_losses(plan.lm, rows, points)), points)[0],
        torch.autograd.grad(sum(expected), points, retain_graph=True)[0],
    )
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-5)
    theirs = torch.autograd.grad(expected[0], points)[0][0]
    np.testing.assert_allclose(loss_gradient(plan.lm, rows, runs.prompts()[0]), theirs.numpy(), rtol=1e-2, atol=1e-5)


def test_a_minibatch_loss_is_of_other_rows_each_time(plans, runs):
    plan, points = plans[0], torch.from_numpy(runs.prompts()[:2].copy())
    loss, drawn = minibatch_losses(plan.lm, plan.train_rows, 3, np.random.default_rng(5)), np.random.default_rng(5)
    with torch.no_grad():
        by_draw = [loss(points) for _ in range(3)]
        for losses in by_draw:
            rows = [plan.train_rows[i] for i in drawn.choice(len(plan.train_rows), 3, replace=False)]
            torch.testing.assert_close(losses, token_losses(plan.lm, rows, points), rtol=0, atol=0)
    assert not torch.equal(by_draw[0], by_draw[1]) and not torch.equal(by_draw[1], by_draw[2])


@pytest.mark.long
def test_the_dimension_of_real_runs_by_hand(mixed, plans, runs, monkeypatch):
    monkeypatch.setattr(dimension_questions, "LEAST_SPREAD", 4)  # what four trainings give by hand
    lm, task = plans[0].lm, plans[0].task
    result = dimension(mixed, lm=lm, **QUICK)
    assert set(result.figures) == {"radii", "subspaces"}
    assert "3 runs that were pushed apart are left out" in result.omissions[0]
    prompts = runs.prompts()
    scores = pg.evaluate(lm, prompts, task, max_new_tokens=6)
    tau = 2 * scores.loss.mean()
    radius = result.tables["radii"]
    assert radius["tau"].iloc[0] == pytest.approx(tau, rel=1e-4)
    solutions = np.flatnonzero(scores.loss <= tau)[:2].tolist()  # what is no solution has no radius
    kinds = {"random": 2, "hull": 3, "uphill": 1, "downhill": 1}
    assert radius.groupby("run")["kind"].value_counts().to_dict() == {
        (n, kind): count for n in solutions for kind, count in kinds.items()
    }
    for n in solutions:
        hull = radius[(radius["kind"] == "hull") & (radius["run"] == n)]
        for (_, row), other in zip(hull.iterrows(), [k for k in range(4) if k != n], strict=True):
            assert row["distance"] == pytest.approx(np.linalg.norm(prompts[other] - prompts[n]), rel=1e-5)
            assert row["relative"] == pytest.approx(row["radius"] / np.linalg.norm(prompts[n]), rel=1e-5)
            u = (prompts[other] - prompts[n]) / row["distance"]
            edge = pg.evaluate(
                lm, np.stack([prompts[n] + r * row["radius"] * u for r in (0.999, 1.04)]), task, max_new_tokens=6
            ).loss
            assert edge[0] <= tau * 1.001 and (row["beyond"] or edge[1] > tau * 0.999)
    logs = np.log(radius[radius["kind"] == "hull"].groupby("run")["relative"].apply(list).tolist()).mean(1)
    assert number(result, "radius.hull.country_capital").value == pytest.approx(np.exp(logs.mean()), rel=1e-6)
    assert number(result, "ratio.hull.country_capital").value == pytest.approx(
        number(result, "radius.hull.country_capital").value / number(result, "radius.random.country_capital").value,
        rel=1e-6,
    )
    p0 = pg.evaluate(lm, runs.prompts("initial")[:2], task, max_new_tokens=6).accuracy
    assert number(result, "subspace.country_capital.k0").value == pytest.approx(p0.mean())
    table = result.tables["subspaces"]
    assert (
        table["dimension"].unique().tolist() == [0, 1, 4, prompts[0].size]
        and (table["full"] == scores.accuracy.mean()).all()
    )
    for of, vectors in (("prompt", prompts), ("delta", prompts - runs.prompts("initial"))):
        values = np.linalg.eigvalsh(np.cov(vectors.reshape(4, -1).astype(float), rowvar=False))
        assert number(result, f"participation.{of}.country_capital").value == pytest.approx(
            values.sum() ** 2 / (values**2).sum(), rel=1e-4
        )
    for each in result.numbers:
        assert each.n > 0, each
        assert each.p is not None or each.interval[0] <= each.value + 1e-9 <= each.interval[1] + 2e-9, each
    assert len(result.findings) == 4


def test_what_the_runs_cannot_support_is_named(runs, plans):
    with pytest.raises(UserError, match="two or more trained prompts"):
        dimension(runs.query("seed == 0"), lm=plans[0].lm)
    two, again = (
        dimension(
            runs.query("seed < 2"),
            lm=plans[0].lm,
            **QUICK | {"radii_of": 1, "steps": 1, "dimensions": [1], "directions": 1},
        )
        for _ in range(2)
    )
    assert (
        two.numbers == again.numbers
        and two.figures == again.figures
        and two.tables["radii"].equals(again.tables["radii"])
    )
    assert any("fewer than two prompts at which radii" in o for o in two.omissions) and len(two.findings) == 1
    assert any("a participation ratio needs 6" in o for o in two.omissions) and "participation" not in two.tables
    with pytest.raises(UserError, match="factor > 1"):
        dimension(runs, lm=plans[0].lm, factor=1.0)
