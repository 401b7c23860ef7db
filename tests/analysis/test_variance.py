"""Shares of variance: against slow loops from the definitions, on planted structure, and calibrated.

Shapes: N runs, P prompt tokens, d width, K = N * P, C checkpoints.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from scipy.stats import t as students_t

from promptgeo.analysis.geometry import variance
from promptgeo.analysis.geometry.variance import Inner, run_share
from promptgeo.analysis.question import declaration
from promptgeo.analysis.questions.decoding import _Classes, decoding, nearest_means
from promptgeo.analysis.questions.init_vs_task import init_vs_task
from promptgeo.analysis.questions.over_training import over_training
from promptgeo.analysis.resampling import (
    assignments,
    cell_orders_within,
    clopper_pearson,
    least_dealt_p,
    orders_within,
    permutation_p,
    t_mean,
)
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable

TABLE_1 = [0.546034, 0.547264, 0.528472, 0.567885, 0.612360, 0.544497, 0.580160, 0.566388, 0.506061, 0.584952]
TABLE_2 = [0.643099, 0.665577, 0.710362, 0.684544, 0.712954, 0.710524]
ALL_PAIRS = 0.7415353844


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


def grid(inits=3, tasks=3, seeds=1) -> pd.DataFrame:
    rows = [(f"i{i}", f"t{t}", s) for s in range(seeds) for i in range(inits) for t in range(tasks)]
    return pd.DataFrame(rows, columns=["init", "task", "seed"])


def planted(table, length=3, width=12, init=0.0, task=0.0, position=0.0, p0=0.0, run=0.5, seed=0) -> RunTable:
    """P0 of each init (p0: its size) plus deltas with effects of the given sizes, the run's own and noise."""
    generator = np.random.default_rng(seed)
    n = len(table)

    def draw(levels):
        return generator.normal(size=(levels, 1, width))

    codes = {f: pd.factorize(table[f])[0] for f in ("init", "task")}
    start_NPd = p0 * draw(n)[codes["init"]].repeat(length, 1)
    delta_NPd = init * draw(n)[codes["init"]] + task * draw(n)[codes["task"]] + run * draw(n)
    delta_NPd = (
        delta_NPd
        + position * generator.normal(size=(1, length, width))
        + 0.5 * generator.normal(size=(n, length, width))
    )
    return RunTable.from_arrays(start_NPd + delta_NPd, table, start_NPd)


def slow_sums(vectors_NPd, *groupings) -> tuple[list[float], float]:
    """SS_f = tr(H_f G) with D2 = 2 (1 - cosine) and G = -1/2 J D2 J, token by token.

    groupings: [K] labels, or a tuple of such (additive).
    """
    tokens = [np.asarray(v, dtype=np.float64) for prompt in vectors_NPd for v in prompt]
    k = len(tokens)
    squared = np.zeros((k, k))
    for a in range(k):
        for b in range(k):
            lengths = np.sqrt((tokens[a] @ tokens[a]) * (tokens[b] @ tokens[b]))
            squared[a, b] = 2 * (1 - tokens[a] @ tokens[b] / lengths)
    centring = np.eye(k) - np.ones((k, k)) / k
    gram = -0.5 * centring @ squared @ centring
    shares = []
    for grouping in groupings:
        columns = []
        for factor in grouping if isinstance(grouping, tuple) else (grouping,):
            columns += [[float(x == level) for x in factor] for level in sorted(set(factor))]
        x = np.array(columns).T
        shares.append(float(np.trace(x @ np.linalg.pinv(x) @ gram)))
    return shares, float(np.trace(gram))


def labels(table, factor, length) -> list:
    if factor == "position":
        return list(range(length)) * len(table)
    column = table.index if factor == "run" else table[factor]
    return [x for x in column for _ in range(length)]


def slow_r2(vectors_NPd, table, factor) -> float:
    (explained,), total = slow_sums(vectors_NPd, labels(table, factor, vectors_NPd.shape[1]))
    return explained / total


def r2_of_means(within, overall, sizes=None) -> float:
    """One-way R2 from self-inclusive mean cosine distances within each group and over all pairs.

    The mean of 1 - cosine over all pairs of a group, self-pairs among them, is 1 - |mean vector|^2: the group's
    variance about its centroid. So R2 = 1 - sum_g n_g m_g / (K m). sizes: tokens per group, equal if not given.
    """
    return 1.0 - float(np.average(np.asarray(within, dtype=np.float64), weights=sizes)) / overall


@pytest.mark.parametrize("name", ["one seed", "two seeds", "unbalanced"])
def test_decomposition_equals_the_definition(name):
    table = grid(3, 2, seeds=1 if name == "one seed" else 2)
    table = table.drop(index=[1, 4, 7]).reset_index(drop=True) if name == "unbalanced" else table
    runs = planted(table, init=0.5, task=0.5, position=0.5)
    result = init_vs_task(runs, permutations=20, redraws=20)
    p, k = 3, len(table) * 3
    init, task, position, run = (labels(table, f, p) for f in ("init", "task", "position", "run"))
    cell = [f"{a} {b}" for a, b in zip(init, task, strict=True)]
    sums, total = slow_sums(runs.prompts(), init, task, position, cell, (init, task), run, (run, position))
    ss = dict(zip(("init", "task", "position", "cell", "both", "run", "full"), sums, strict=True))
    for factor in ("init", "task", "position"):
        assert value(result, f"r2.{factor}") == pytest.approx(ss[factor] / total, abs=1e-6)
        levels = len(set(labels(table, factor, p)))
        msw = (total - ss[factor]) / (k - levels)
        omega2 = (ss[factor] - (levels - 1) * msw) / (total + msw)
        assert value(result, f"omega2.{factor}") == pytest.approx(omega2, abs=1e-6)
    assert value(result, "r2.init_x_task") == pytest.approx((ss["cell"] - ss["both"]) / total, abs=1e-6)
    assert value(result, "r2.residual") == pytest.approx(1 - ss["full"] / total, abs=1e-6)
    omitted = " ".join(result.omissions)
    assert ("noise of seeds" in omitted) == (name == "one seed")
    assert ("not balanced" in omitted) == (name == "unbalanced")
    if name != "one seed":
        assert value(result, "r2.seed") == pytest.approx((ss["run"] - ss["cell"]) / total, abs=1e-6)
    if name != "unbalanced":
        assert result.tables["decomposition"]["r2"].sum() == pytest.approx(1, abs=1e-9)
    factors = result.tables["decomposition"].query("factor in ['init', 'task', 'position']")
    assert factors["df"].tolist() == [2, 1, 2]


def test_the_studys_tables_imply_its_shares():
    init, task = r2_of_means(TABLE_1, ALL_PAIRS), r2_of_means(TABLE_2, ALL_PAIRS)
    assert (round(init, 3), round(task, 3)) == (0.247, 0.072)
    assert (round(variance.omega2(init, 240, 10), 3), round(variance.omega2(task, 240, 6), 3)) == (0.217, 0.052)


def test_self_inclusive_means_give_r2():
    table = grid(3, 2, seeds=2).drop(index=[0]).reset_index(drop=True)
    runs = planted(table, init=0.5)
    vectors, init = runs.prompts().reshape(-1, 12).astype(np.float64), labels(table, "init", 3)

    def mean(members):
        unit = vectors[members] / np.linalg.norm(vectors[members], axis=1, keepdims=True)
        return np.mean([1 - one @ other for one in unit for other in unit])

    groups = [[k for k, x in enumerate(init) if x == level] for level in sorted(set(init))]
    share = r2_of_means([mean(g) for g in groups], mean(range(len(init))), [len(g) for g in groups])
    assert share == pytest.approx(slow_r2(runs.prompts(), table, "init"), abs=1e-6)


@pytest.mark.parametrize("factor", ["init", "task"])
def test_effect_and_p_come_from_whole_runs_permuted_within_the_other_factor(factor):
    """All 6^3 assignments of a 3 x 3 grid, against 20,000 drawn ones."""
    table, other = grid(3, 3), {"init": "task", "task": "init"}[factor]
    runs = planted(table, init=0.35, task=0.25, p0=0.5, run=0.7, seed=3)
    strata = [table.index[table[other] == level].tolist() for level in table[other].unique()]
    null = []
    for choice in itertools.product(*(itertools.permutations(s) for s in strata)):
        shuffled = table.copy()
        for members, order in zip(strata, choice, strict=True):
            shuffled.loc[members, factor] = table.loc[list(order), factor].to_numpy()
        null.append(slow_r2(runs.prompts(), shuffled, factor))
    observed, chance = slow_r2(runs.prompts(), table, factor), np.mean(null)
    result = init_vs_task(runs, permutations=20000, redraws=20)
    row = result.tables["decomposition"].set_index("factor").loc[factor]
    exact = np.mean(np.array(null) >= observed - 1e-6)
    assert 0.005 < exact < 0.9, "a p of use for this comparison"
    assert row["p"] == pytest.approx(exact, abs=0.012)
    assert row["effect"] == pytest.approx((observed - chance) / (1 - chance), abs=0.004)


def test_position_is_tested_by_exchanging_tokens_within_a_run():
    """All 2^4 exchanges of four runs of two tokens."""
    table = grid(2, 2)
    runs = planted(table, length=2, width=4, position=0.5, init=0.5, seed=1)
    null = []
    for swaps in itertools.product([False, True], repeat=4):
        exchanged = np.array([p[::-1] if s else p for p, s in zip(runs.prompts(), swaps, strict=True)])
        null.append(slow_r2(exchanged, table, "position"))
    result = init_vs_task(runs, permutations=20, redraws=5000)
    row = result.tables["decomposition"].set_index("factor").loc["position"]
    assert row["p"] == pytest.approx(np.mean(np.array(null) >= row["r2"] - 1e-6), abs=0.03)
    assert row["effect"] == pytest.approx((row["r2"] - np.mean(null)) / (1 - np.mean(null)), abs=0.02)


def test_reassigned_deltas_keep_p0_and_stay_within_their_task():
    """All 6^2 reassignments of a 3 x 2 grid."""
    table = grid(3, 2)
    runs = planted(table, p0=1.0, init=0.4, seed=2)
    start, delta = runs.prompts("initial"), runs.prompts() - runs.prompts("initial")
    strata, null = [table.index[table["task"] == t].tolist() for t in table["task"].unique()], []
    for choice in itertools.product(*(itertools.permutations(s) for s in strata)):
        moved = np.empty_like(delta)
        for members, order in zip(strata, choice, strict=True):
            moved[members] = delta[list(order)]
        null.append(slow_r2(start + moved, table, "init"))
    observed = slow_r2(runs.prompts(), table, "init")
    result = init_vs_task(runs, permutations=20, redraws=5000)
    assert value(result, "r2.init.reassigned") == pytest.approx(np.mean(null), abs=0.005)
    assert value(result, "r2.init.beyond_p0") == pytest.approx(observed - np.mean(null), abs=0.005)
    exact = np.mean(np.array(null) >= observed - 1e-6)
    assert number(result, "r2.init.beyond_p0").p == pytest.approx(exact, abs=0.02)
    assert value(result, "r2.init.at_p0") == pytest.approx(1.0, abs=1e-6)


def test_positions_exchange_their_deltas_and_keep_p0():
    """All 2^5 exchanges of five runs of two tokens, with a P0 for each position."""
    table = grid(3, 2).drop(index=[5]).reset_index(drop=True)
    runs = planted(table, length=2, width=4, p0=0.5, position=0.4, init=0.5, seed=6)
    places = np.random.default_rng(3).normal(size=(1, 2, 4))
    start, delta = runs.prompts("initial") + places, runs.prompts() - runs.prompts("initial")
    runs, null = RunTable.from_arrays(start + delta, table, start), []
    for swaps in itertools.product([False, True], repeat=5):
        exchanged = np.array([d[::-1] if s else d for d, s in zip(delta, swaps, strict=True)])
        null.append(slow_r2(start + exchanged, table, "position"))
    result = init_vs_task(runs, permutations=20, redraws=5000)
    assert value(result, "r2.position.at_p0") == pytest.approx(slow_r2(start, table, "position"), abs=1e-6)
    assert value(result, "r2.position.reassigned") == pytest.approx(np.mean(null), abs=0.01)
    observed = slow_r2(start + delta, table, "position")
    exact = np.mean(np.array(null) >= observed - 1e-6)
    assert number(result, "r2.position.beyond_p0").p == pytest.approx(exact, abs=0.03) and exact < 0.9
    assert value(result, "r2.position.beyond_p0") == pytest.approx(observed - np.mean(null), abs=0.01)


def test_the_position_of_untrained_prompts_is_that_of_p0():
    """Texts as inits: another token at each position, the same in all runs."""
    table = grid(5, 4)
    runs = planted(table)
    start = np.random.default_rng(0).normal(size=(1, 3, 12)) + 0.3 * runs.prompts()
    result = init_vs_task(
        RunTable.from_arrays(start + 0.01 * runs.prompts(), table, start), permutations=99, redraws=99
    )
    (finding,) = (f for f in result.findings if f.sentence.startswith("The position explains"))
    assert f"at P0 R2 = {value(result, 'r2.position.at_p0'):.3f}" in finding.sentence
    assert value(result, "r2.position.at_p0") > 0.5 and number(result, "r2.position.beyond_p0").p > 0.05
    assert any("position's share does not detectably exceed what P0 alone" in f.sentence for f in result.findings)


def test_the_task_is_compared_with_runs_that_go_as_far_another_way():
    """All 2^4 exchanges of a 4 x 2 grid."""
    table = grid(4, 2)
    runs = planted(table, p0=1.0, task=0.4, init=0.4, seed=5)
    start, delta = runs.prompts("initial"), (runs.prompts() - runs.prompts("initial")).astype(np.float64)
    delta[table["task"] == "t1"] *= 3.0
    far = np.linalg.norm(delta, axis=2, keepdims=True)
    null = []
    for swaps in itertools.product([False, True], repeat=4):
        order = [x for k, swap in enumerate(swaps) for x in ((2 * k + 1, 2 * k) if swap else (2 * k, 2 * k + 1))]
        null.append(slow_r2(start + far * (delta / far)[order], table, "task"))
    observed = slow_r2(start + delta, table, "task")
    result = init_vs_task(RunTable.from_arrays(start + delta, table, start), permutations=20, redraws=5000)
    assert value(result, "r2.task.moved") == pytest.approx(np.mean(null), abs=0.005)
    assert value(result, "r2.task.beyond_moved") == pytest.approx(observed - np.mean(null), abs=0.005)
    exact = np.mean(np.array(null) >= observed - 1e-6)
    plain = number(result, "r2.task").p
    assert plain > 1 / 16 and number(result, "r2.task.beyond_moved").p == pytest.approx(max(exact, plain), abs=0.02)
    assert variance.Share(0.5, np.zeros(99), plain_p=0.3).p == 0.3 and variance.Share(0.5, np.zeros(99)).p == 0.01
    share = [np.linalg.norm(d) / np.linalg.norm(s) for d, s in zip(delta, start, strict=True)]
    assert value(result, "moved.t1") == pytest.approx(np.mean(share[1::2]), rel=1e-5)


def moved_differently_far(draw: int, task: float = 0.0) -> RunTable:
    """Deltas share a direction; tasks go fourfold as far, and with `task` > 0 also a way of their own."""
    table, generator = grid(10, 6), np.random.default_rng(draw)
    init, tasks = (pd.factorize(table[f])[0] for f in ("init", "task"))
    start = 1.5 * generator.normal(size=(10, 1, 64))[init].repeat(4, 1)
    delta = generator.normal(size=(1, 1, 64)) + task * generator.normal(size=(6, 1, 64))[tasks]
    delta = delta + 0.5 * generator.normal(size=(60, 1, 64)) + 0.7 * generator.normal(size=(60, 4, 64))
    far = np.geomspace(0.5, 2.0, 6)[generator.permutation(6)][tasks]
    return RunTable.from_arrays(start + far[:, None, None] * delta, table, start)


@pytest.mark.long
def test_tasks_that_only_move_differently_far_do_not_matter():
    fired = 0
    for draw in range(12):
        result = init_vs_task(moved_differently_far(draw), permutations=99, redraws=99)
        claim = next(c for c in result.claims if c.name == "task_matters")
        fired += claim.holds
        assert number(result, "r2.task").p <= 0.02, "the share alone cannot tell"
        assert claim.p == max(number(result, "r2.task").p, number(result, "r2.task.beyond_moved").p)
        assert claim.outcome in (Outcome.holds, Outcome.undecidable)
    assert fired <= 3
    own_way = init_vs_task(moved_differently_far(0, task=0.4), permutations=99, redraws=99)
    assert next(c for c in own_way.claims if c.name == "task_matters").holds


def test_claims_need_p0_and_prompts_that_do_their_tasks():
    runs = planted(grid(5, 4), task=1.0, p0=1.0)
    without = init_vs_task(RunTable.from_arrays(runs.prompts(), runs.table), permutations=99, redraws=20)
    claims = {c.name: c for c in without.claims}
    assert claims["init_matters"].holds
    assert claims["task_matters"].outcome is Outcome.undecidable
    assert claims["task_matters"].needs == "prompts with their P0"
    for final, holds in ((0.9, True), (0.3, False)):
        accuracies = {"accuracy_final": final, "accuracy_initial": 0.3, "accuracy_none": 0.1}
        table = runs.table.assign(**accuracies)
        scored = RunTable.from_arrays(runs.prompts(), table, runs.prompts("initial"))
        claims = {c.name: c for c in init_vs_task(scored, permutations=99, redraws=99).claims}
        assert {c.holds for c in claims.values()} == {holds}
        if not holds:
            assert claims["init_matters"].needs == "prompts that learned their task"
            assert (
                "Premise not met: the trained prompts solve more than P0 (30% against 30%, n = 20 runs)"
                in claims["init_matters"].evidence
            )


def test_what_the_init_has_beyond_p0_is_separated_from_p0():
    cases = ((0.0, "does not detectably exceed what P0 alone gives"), (1.0, "share exceeds what P0 alone gives"))
    for init, expected in cases:
        result = init_vs_task(planted(grid(5, 4), p0=1.5, init=init, task=0.5), permutations=200, redraws=200)
        assert any(expected in f.sentence for f in result.findings)
        assert result.claims[0].name == "init_matters" and result.claims[0].holds, "P0 alone makes the init matter"


def slow_spreads(unit, table) -> np.ndarray:
    """Each run's root mean square residual of the additive model, by least squares, over sqrt(1 - leverage)."""
    n, length, _ = unit.shape
    dummies = np.concatenate([pd.get_dummies(table[f]).to_numpy(float) for f in ("init", "task")], axis=1)
    means = unit.mean(1)
    residual = means - dummies @ np.linalg.lstsq(dummies, means, rcond=None)[0]
    leverage = np.diag(dummies @ np.linalg.pinv(dummies))
    within = unit - means[:, None]
    within = within - within.mean(0)
    squares = [
        residual[r] @ residual[r] / (1 - leverage[r]) + sum(w @ w for w in within[r]) / length / (1 - 1 / n)
        for r in range(n)
    ]
    return np.sqrt(squares)


def test_dispersion_compares_spreads_without_what_the_other_factors_do():
    table = grid(4, 4, seeds=2).drop(index=[0, 5, 9, 30]).reset_index(drop=True)
    runs = planted(table, init=0.5, task=0.5, position=0.5)
    vectors = runs.prompts().astype(np.float64)
    vectors[table["init"] == "i0"] += 3.0  # closer together once they have length 1
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    spreads = slow_spreads(unit, table)
    means = [spreads[table["init"] == level].mean() for level in table["init"].unique()]
    result = init_vs_task(RunTable.from_arrays(vectors, table), permutations=200, redraws=500)
    assert value(result, "permdisp.init") == pytest.approx(max(means) / min(means), rel=1e-4)
    assert any("inits differ in spread" in f.sentence for f in result.findings)
    assert any("No difference in spread between tasks" in f.sentence for f in result.findings)


def test_dispersion_keeps_its_level_with_unequal_groups_and_other_effects():
    """The plain distances to centroids reject in a third of such draws, or more."""
    sizes = np.repeat(np.arange(12), [1, 1, 2, 1, 3, 1, 6, 2, 1, 4, 1, 1])
    init, task, rejected = sizes // 3, sizes % 3, 0
    for draw in range(200):
        generator = np.random.default_rng(draw)
        effects = np.linalg.qr(generator.normal(size=(64, 11)))[0].T  # at right angles: means of equal lengths
        mean = effects[:4][init][:, None] + effects[4:7][task][:, None] + effects[7:][None]
        run = 0.1 * generator.normal(size=(len(sizes), 1, 64)) + 0.1 * generator.normal(size=(len(sizes), 4, 64))
        orders = variance.orders_within(init, 99, draw)
        run_N, null_BN = variance.spreads(variance.unit(mean + run), init, task, orders)
        null = variance.spread_ratios(null_BN, task)
        rejected += variance.permutation_p(variance.spread_ratios(run_N[None], task)[0], null) <= 0.05
    assert rejected <= 20  # of 200: 10 at the level; more than 20 have a chance of .002


@pytest.mark.long
def test_positions_that_differ_in_place_alone_keep_the_level_of_their_spreads():
    """Of four runs, spreads that are exchanged without fitting the positions again reject in 9 to 11 % of draws."""
    init, task, rejected, found = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 0, 0
    for draw in range(200):
        generator = np.random.default_rng(draw)
        noise = generator.normal(size=(4, 4, 100))
        places = variance.shuffled_positions(4, 4, 99, draw).reshape(-1, 4, 4)
        for wider, vectors in ((False, noise), (True, noise * np.array([1, 1, 1, 3.0])[:, None])):
            values, null_BNP = variance.token_spreads(5 + generator.normal(size=(4, 100)) + vectors, init, task, places)
            codes, null = np.tile(np.arange(4), 4), null_BNP.reshape(99, -1)
            ratio = variance.spread_ratios(values.reshape(1, -1), codes)[0]
            p = variance.permutation_p(ratio, variance.spread_ratios(null, codes))
            rejected += p <= 0.05 and not wider
            found += p <= 0.05 and wider
    assert rejected <= 20 and found >= 190, (rejected, found)


def test_a_run_alone_in_its_level_says_nothing_of_spread():
    table = pd.concat([grid(2, 3), pd.DataFrame({"init": ["alone"], "task": ["t0"], "seed": [0]})], ignore_index=True)
    init, task = (pd.factorize(table[f])[0] for f in ("init", "task"))
    assert variance.with_peers(init, task).tolist() == [True] * 6 + [False]
    assert number(init_vs_task(planted(table), permutations=50, redraws=50), "permdisp.task").n == 6
    chain = np.array([0, 0, 1, 1, 2])  # the last one settles the one before, and so on
    assert not variance.with_peers(chain, np.array([0, 1, 1, 2, 2])).any()
    assert variance.spread_ratios(np.array([[1.0, 3.0, 5.0]]), np.array([0, 0, 1]))[0] == pytest.approx(2.5)


@pytest.mark.parametrize(
    "effects", [{"init"}, {"task"}, {"position"}, {"init", "task"}, set()], ids=lambda e: "+".join(sorted(e)) or "none"
)
def test_planted_structure_is_found(effects):
    runs = planted(grid(6, 5), width=24, seed=4, **dict.fromkeys(effects, 1.0))
    rows = init_vs_task(runs, permutations=500, redraws=500).tables["decomposition"].set_index("factor")
    for factor in ("init", "task", "position"):
        if factor in effects:
            assert rows.loc[factor, "p"] < 0.01 and rows.loc[factor, "effect"] > 0.2
        else:
            assert rows.loc[factor, "p"] > 0.05 and abs(rows.loc[factor, "effect"]) < 0.06


def test_an_interaction_is_found_where_seeds_allow():
    table = grid(4, 3, seeds=3)
    runs = planted(table, init=0.5, task=0.5)
    cell = table.groupby(["init", "task"]).ngroup().to_numpy()
    own = np.random.default_rng(9).normal(size=(12, 1, 12))[cell]
    for size, significant in ((0.0, False), (0.8, True)):
        start = np.ones_like(runs.prompts())
        both = RunTable.from_arrays(start + runs.prompts() + size * own, table, start)
        result = init_vs_task(both, of="delta", permutations=50, redraws=300)
        row = result.tables["decomposition"].set_index("factor").loc["init x task"]
        assert (row["p"] < 0.01) == significant and (row["effect"] > 0.1) == significant
        # Of prompts it has none: a task that moves them farther spreads them wider.
        of_prompts = init_vs_task(both, permutations=50, redraws=300)
        assert np.isnan(of_prompts.tables["decomposition"].set_index("factor").loc["init x task", "p"].astype(float))


@pytest.mark.long
def test_the_test_for_the_task_is_calibrated_and_a_token_permutation_is_not():
    """500 grids of 6 inits and 4 tasks with strong effects of init, position and run, and none of task."""
    init_N, task_N = (codes.ravel() for codes in np.indices((6, 4)))
    generator, rejected = np.random.default_rng(0), {"runs": 0, "tokens": 0}
    for draw in range(500):
        init_N1d = 2.0 * generator.normal(size=(6, 1, 8))[init_N]
        vectors_NPd = init_N1d + generator.normal(size=(1, 4, 8)) + generator.normal(size=(24, 1, 8))
        vectors_NPd = vectors_NPd + generator.normal(size=(24, 4, 8))
        rejected["runs"] += run_share(Inner.of(vectors_NPd), task_N, init_N, 99, draw).p <= 0.05
        # The wrong way: each token as if it were a run of its own, exchanged with any of its init.
        tokens = Inner.of(vectors_NPd.reshape(-1, 1, 8))
        task_K, orders_BK = np.repeat(task_N, 4), orders_within(np.repeat(init_N, 4), 99, draw)
        null_B = tokens.r2_permuted(task_K, orders_BK)
        rejected["tokens"] += permutation_p(tokens.r2(task_K), null_B) <= 0.05
    assert 11 <= rejected["runs"] <= 39, f"{rejected['runs']} of 500"  # a twentieth, give or take three deviations
    assert rejected["tokens"] > 100


def test_findings_follow_the_numbers():
    with_task = init_vs_task(planted(grid(5, 4), task=1.0), permutations=200, redraws=50)
    without = init_vs_task(planted(grid(5, 4)), permutations=200, redraws=50)
    assert any(
        f.sentence.startswith("The task explains") and "of what chance leaves" in f.sentence for f in with_task.findings
    )
    assert any("task does not detectably explain more" in f.sentence for f in without.findings)
    assert {c.name: c.holds for c in with_task.claims} == {"init_matters": False, "task_matters": True}
    assert {c.name: c.holds for c in without.claims} == {"init_matters": False, "task_matters": False}
    assert set(declaration(init_vs_task).claims) == {"init_matters", "task_matters"}
    # A finding's evidence is the number of the same quantity.
    (finding,) = (f for f in with_task.findings if f.sentence.startswith("The task explains"))
    effect = number(with_task, "effect.task")
    assert (finding.estimate, finding.p, finding.n) == (effect.value, effect.p, effect.n)
    assert all("n = 20 runs" in f.sentence and f.p is not None for f in with_task.findings)


@pytest.mark.parametrize("name", ["balanced", "unbalanced"])
def test_ways_to_group_runs_set_the_smallest_p(name):
    table = grid(3, 3).drop(index=[0] if name == "unbalanced" else []).reset_index(drop=True)
    codes, strata = pd.factorize(table["init"])[0], pd.factorize(table["task"])[0]
    members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    groupings = set()
    for choice in itertools.product(*(itertools.permutations(codes[m]) for m in members)):
        dealt = np.empty_like(codes)
        for m, levels in zip(members, choice, strict=True):
            dealt[m] = levels
        groupings.add(frozenset(frozenset(np.flatnonzero(dealt == level).tolist()) for level in range(3)))
    assert assignments(codes, strata) == pytest.approx(len(groupings))


@pytest.mark.parametrize("counts", [[[2, 1], [1, 1, 1]], [[3, 3]], [[1], [2]], [[30] * 20]])
def test_the_least_p_of_levels_dealt_anew_is_two_over_the_ways_of_dealing(counts):
    if max(map(sum, counts)) < 10:
        stratum_ways = [len(set(itertools.permutations(np.repeat(np.arange(len(c)), c).tolist()))) for c in counts]
        assert least_dealt_p(counts) == pytest.approx(min(2 / np.prod(stratum_ways), 1))
    else:
        assert 0 < least_dealt_p(counts) < 1e-300  # more ways than a float holds


def test_same_options_same_bytes():
    runs = planted(grid(3, 3), init=0.5, p0=1.0)
    for analysis in (init_vs_task, decoding):
        a, b = analysis(runs, permutations=50), analysis(runs, permutations=50)
        assert a.figures == b.figures and a.numbers == b.numbers and a.findings == b.findings


def test_what_runs_cannot_support_is_said():
    with pytest.raises(UserError, match="2 inits"):
        init_vs_task(planted(grid(1, 3)))
    with pytest.raises(UserError, match="2 tasks"):
        decoding(planted(grid(3, 1)))
    runs = planted(grid(2, 2), length=1)
    without_p0 = RunTable.from_arrays(runs.prompts(), runs.table)
    result = init_vs_task(without_p0, permutations=50, redraws=50)
    omitted = " ".join(result.omissions)
    assert "one token" in omitted and "without P0" in omitted
    assert "grouped in 2 ways, so no p is below 0.5" in omitted
    assert {c.outcome for c in result.claims} == {Outcome.undecidable}, "too few runs say nothing against a claim"
    assert "2 inits on 6 tasks" in result.claims[0].needs and "2 tasks from 6 inits" in result.claims[1].needs
    assert not any(f.sentence.startswith(("The task", "The init", "No difference")) for f in result.findings)
    assert not any(number.quantity.endswith("position") for number in result.numbers)
    with pytest.raises(UserError, match="initial"):
        init_vs_task(without_p0, of="delta")
    confounded = planted(pd.DataFrame({"init": ["a", "a", "b", "b"], "task": ["x", "x", "y", "y"]}))
    result = init_vs_task(confounded, permutations=50, redraws=50)
    assert "no init has runs of two tasks" in " ".join(result.omissions)
    assert {c.outcome for c in result.claims} == {Outcome.undecidable}
    assert "cannot be decoded" in " ".join(decoding(confounded).omissions)
    same = RunTable.from_arrays(np.ones((4, 2, 3)), grid(2, 2))
    with pytest.raises(UserError, match="same way"):
        init_vs_task(same)


def slow_decode(vectors_NPd, classes, folds) -> list:
    decoded = []
    rows = [np.concatenate([v / np.linalg.norm(v) for v in np.asarray(p, dtype=np.float64)]) for p in vectors_NPd]
    for row, fold in zip(rows, folds, strict=True):
        best, chosen = -2.0, None
        for name in dict.fromkeys(classes):
            others = [r for r, c, f in zip(rows, classes, folds, strict=True) if c == name and f != fold]
            if others:
                mean = sum(others) / len(others)
                cosine = row @ mean / np.linalg.norm(row) / np.linalg.norm(mean)
                if cosine > best:
                    best, chosen = cosine, name
        decoded.append(chosen)
    return decoded


def test_decoding_equals_loops_over_left_out_folds():
    table = grid(4, 3, seeds=2).drop(index=[2, 5, 8, 9]).reset_index(drop=True)
    runs = planted(table, init=0.4, task=0.3, p0=0.5)
    result = decoding(runs, permutations=50)
    for what, fold in (("task", "init"), ("init", "task")):
        decoded = slow_decode(runs.prompts(), table[what].tolist(), table[fold].tolist())
        assert result.tables[f"decoded_{what}"]["decoded"].tolist() == decoded
        right = np.mean(np.array(decoded) == table[what].to_numpy())
        assert value(result, f"decoding.{what}.accuracy") == pytest.approx(right)
        confusion = result.tables[f"confusion_{what}"]
        assert confusion["runs"].sum() == len(table)
        diagonal = confusion[confusion[what] == confusion["decoded"]]["runs"].sum()
        assert diagonal / len(table) == pytest.approx(value(result, f"decoding.{what}.accuracy"))


def test_decoding_finds_the_task_and_only_where_it_is_shared_between_inits():
    table = grid(6, 4, seeds=2)
    shared = decoding(planted(table, task=1.0, p0=1.0), permutations=200)
    assert value(shared, "decoding.task.accuracy") > 0.9 and "more often than chance" in shared.findings[0].sentence
    own = np.random.default_rng(1).normal(size=(24, 3, 12))[table.groupby(["init", "task"]).ngroup().to_numpy()]
    per_init = decoding(RunTable.from_arrays(own + 0.01 * planted(table).prompts(), table), permutations=200)
    assert value(per_init, "decoding.task.accuracy") < 0.5, (
        "two seeds of a cell are alike, but they are left out together"
    )
    assert "detectably more often than chance" in per_init.findings[0].sentence
    assert value(per_init, "decoding.task.chance") == pytest.approx(0.25, abs=0.06)


def test_chance_of_decoding_is_that_of_tasks_permuted_within_inits():
    """All 2^3 assignments of a 3 x 2 grid; tasks permuted between inits would come out otherwise."""
    table = grid(3, 2)
    runs = planted(table, task=0.5, p0=1.0, seed=1)
    null = []
    for swaps in itertools.product([False, True], repeat=3):
        tasks = [x for swap in swaps for x in (("t1", "t0") if swap else ("t0", "t1"))]
        decoded = slow_decode(runs.prompts(), tasks, table["init"].tolist())
        null.append(np.mean([a == b for a, b in zip(decoded, tasks, strict=True)]))
    result = decoding(runs, permutations=4000)
    accuracy = number(result, "decoding.task.accuracy")
    assert value(result, "decoding.task.chance") == pytest.approx(np.mean(null), abs=0.02)
    assert accuracy.p == pytest.approx(np.mean(np.array(null) >= accuracy.value - 1e-9), abs=0.03)


def test_chance_of_decoding_exchanges_whole_cells():
    """All 2^3 exchanges of the cells of a 3 x 2 grid of unequal cells; seeds of a cell stay together."""
    table = grid(3, 2, seeds=2).drop(index=[7]).reset_index(drop=True)
    runs = planted(table, task=0.4, p0=1.0, seed=1)
    null = []
    for swaps in itertools.product([False, True], repeat=3):
        swapped = dict(zip(("i0", "i1", "i2"), swaps, strict=True))
        other = {"t0": "t1", "t1": "t0"}
        tasks = [other[t] if swapped[i] else t for i, t in zip(table["init"], table["task"], strict=True)]
        decoded = slow_decode(runs.prompts(), tasks, table["init"].tolist())
        null.append(np.mean([a == b for a, b in zip(decoded, tasks, strict=True)]))
    result = decoding(runs, permutations=4000)
    accuracy = number(result, "decoding.task.accuracy")
    assert value(result, "decoding.task.chance") == pytest.approx(np.mean(null), abs=0.02)
    exact = np.mean(np.array(null) >= accuracy.value - 1e-9)
    assert accuracy.p == pytest.approx(max(exact, 1 / 4), abs=0.03), "4 groupings, as names do not count"
    assert accuracy.n == 11 and "11 runs in 6 cells" in result.findings[0].sentence
    assert result.findings[0].sentence.startswith("Too few cells to test whether a classifier trained on other inits")


def test_cells_of_their_own_do_not_decode_the_task():
    """Seeds of a cell are alike, and tasks have nothing in common: exchanging runs rejects in a fifth of such draws."""
    table, rejected = grid(4, 3, seeds=4), 0
    codes, folds = (pd.factorize(table[f])[0] for f in ("task", "init"))
    cell = codes * 4 + folds
    for draw in range(150):
        generator = np.random.default_rng(draw)
        vectors = generator.normal(size=(12, 1, 16))[cell] + 0.3 * generator.normal(size=(48, 2, 16))
        classes = _Classes.of(RunTable.from_arrays(vectors, table), "task", "init")
        gram = variance.Inner.of(vectors).equal_NN
        right = (nearest_means(gram, codes[None], folds) == codes).mean()
        permuted = classes.permuted_BN(99, draw)
        rejected += variance.permutation_p(right, (nearest_means(gram, permuted, folds) == permuted).mean(1)) <= 0.05
    assert rejected <= 16  # of 150: 7.5 at the level; more have a chance of .003


def test_a_task_of_one_init_does_not_count():
    table = pd.concat([grid(3, 2), pd.DataFrame({"init": ["i0"], "task": ["alone"], "seed": [0]})], ignore_index=True)
    result = decoding(planted(table, task=1.0), permutations=50)
    assert number(result, "decoding.task.accuracy").n == 6 and any("do not count" in o for o in result.omissions)


@pytest.fixture
def trained(tmp_path):
    """A 3 x 2 grid with three checkpoints per run; a task's steps are its own."""

    def make(checkpoints=3, of_last=None, kind="epoch"):
        table, generator, runs = grid(3, 2), np.random.default_rng(5), []
        inits = generator.normal(size=(3, 1, 8)).repeat(2, 1)
        for k, row in table.iterrows():
            folder = tmp_path / f"{kind}_{of_last}_{k}"
            folder.mkdir()
            count = of_last if of_last and k == len(table) - 1 else checkpoints
            initial = inits[int(row["init"][1])].astype(np.float32)
            delta = (generator.normal(size=(2, 8)) + (2 if row["task"] == "t0" else -2)).astype(np.float32)
            trajectory = np.stack([initial + (c + 1) * delta for c in range(count)])
            steps = np.arange(1, count + 1) * (10 if row["task"] == "t0" else 7)
            tensors = {
                "initial": initial,
                "trajectory": trajectory,
                "steps": steps,
                "final": trajectory[-1],
                "best": trajectory[-1],
            }
            safetensors.numpy.save_file(tensors, folder / "prompts.safetensors")
            runs.append(Run(folder, {"config": {"training": {"checkpoints": kind}}}))
        return RunTable(table, runs)

    return make


@pytest.mark.parametrize("of", ["prompt", "delta"])
def test_shares_over_training_are_those_of_each_epoch(trained, of):
    runs = trained()
    table = over_training(runs, of=of, permutations=30, draws=50).tables["over_training"]
    assert sorted(set(table["epoch"])) == ([0, 1, 2, 3] if of == "prompt" else [1, 2, 3])
    for row in table.itertuples():
        prompts = np.stack(
            [r.prompt("initial") if row.epoch == 0 else r.tensors["trajectory"][row.epoch - 1] for r in runs.runs]
        )
        vectors = prompts - runs.prompts("initial") if of == "delta" else prompts
        assert row.r2 == pytest.approx(slow_r2(vectors, runs.table, row.factor), abs=1e-6)
        assert row.low <= row.r2 <= row.high


def test_change_over_training_has_an_interval_over_runs(trained):
    result = over_training(trained(), permutations=30, draws=400)
    assert value(result, "r2.init.start") == pytest.approx(1.0, abs=1e-6)
    change = number(result, "r2.task.change")
    assert change.value == pytest.approx(value(result, "r2.task.end") - value(result, "r2.task.start"))
    low, high = change.interval
    assert 0 < low < change.value < high and change.n == 6
    sentences = [f.sentence for f in result.findings]
    assert any("the task explains rises from P0" in s for s in sentences)
    assert any("the init explains falls from P0" in s for s in sentences)


def test_interval_of_the_change_draws_whole_runs_at_both_ends_alike(trained):
    runs = trained()
    change = number(over_training(runs, permutations=20, draws=25, seed=3), "r2.task.change")
    changes = []
    for weights in np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=25):
        drawn = np.repeat(np.arange(6), weights)
        table = runs.table.iloc[drawn].reset_index(drop=True)
        if table["init"].nunique() > 1:
            ends = (slow_r2(runs.prompts(which)[drawn], table, "task") for which in ("final", "initial"))
            changes.append(next(ends) - next(ends))
    low, high = change.interval
    half = students_t.ppf(0.975, 5) * np.std(changes) * np.sqrt(6 / 5)
    assert high == pytest.approx(min(change.value + half, 1.0), rel=1e-3)
    assert change.value - low == pytest.approx(half, rel=1e-3)


def test_bootstrap_weights_count_runs_as_often_as_they_are_drawn():
    table = grid(3, 2)
    runs = planted(table, init=0.5, position=0.5)
    weights = np.array([[2, 0, 1, 1, 1, 1], [1, 3, 1, 1, 0, 0]])
    inner = variance.Inner.of(runs.prompts())
    for factor in ("init", "task", "position"):
        share = inner.r2_weighted(
            weights.astype(float), None if factor == "position" else pd.factorize(table[factor])[0]
        )
        for w, r2 in zip(weights, share, strict=True):
            drawn = np.repeat(np.arange(6), w)
            slow = slow_r2(runs.prompts()[drawn], table.iloc[drawn].reset_index(drop=True), factor)
            assert r2 == pytest.approx(slow, abs=1e-6)


def test_over_training_says_what_it_cannot_align(trained):
    with pytest.raises(UserError, match="different numbers of checkpoints"):
        over_training(trained(of_last=2))
    with pytest.raises(UserError, match="no checkpoints"):
        over_training(planted(grid(2, 2)))
    assert "checkpoint" in over_training(trained(kind="5"), permutations=20, draws=20).tables["over_training"]
    one = over_training(trained(checkpoints=1), of="delta", permutations=20, draws=20)
    assert one.omissions == ["There is one checkpoint only: nothing can be said of change."]
    assert not any("change" in number.quantity for number in one.numbers) and not one.findings


def test_the_runs_of_a_cell_change_places_together():
    """Cells of 2, 1, 3 and 2 runs: in each draw a cell's runs come from one cell of its stratum."""
    level_N, stratum_N = np.array([0, 0, 1, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 1, 1])
    orders_BN = cell_orders_within(level_N, stratum_N, 40, 0)
    sources = [tuple(zip(level_N[order], stratum_N[order], strict=True)) for order in orders_BN]
    for source in sources:
        assert source[0] == source[1] and len(set(source[3:6])) == 1 and source[6] == source[7]
        assert all(s == stratum for (_, s), stratum in zip(source, stratum_N, strict=True))
        assert {source[0], source[2]} == {(0, 0), (1, 0)} and {source[3], source[6]} == {(0, 1), (1, 1)}
    assert len(set(sources)) == 4, "two strata of two cells"


def test_seeds_that_are_alike_are_no_task_effect():
    """Runs of a cell have something in common that no init and no task has: R2 of the task rejects in 5 %."""
    init_N, task_N, _ = (x.ravel() for x in np.indices((4, 3, 4)))
    rejected, exchanged_singly = 0, 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        cell_N1d = generator.normal(size=(4, 3, 1, 8))[init_N, task_N]
        inner = Inner.of(cell_N1d + 0.3 * generator.normal(size=(len(init_N), 2, 8)))
        rejected += run_share(inner, task_N, init_N, 99, seed).p <= 0.05
        singly_B = inner.r2_permuted(task_N, orders_within(init_N, 99, seed))
        exchanged_singly += permutation_p(inner.r2(task_N), singly_B) <= 0.05
    assert rejected <= 8 and exchanged_singly >= 40


def test_few_runs_that_are_nearly_all_yes_or_no_are_counted():
    """Runs that give the answer with .98 or, one in ten, with .03: four are alike two times in three."""
    generator = np.random.default_rng(0)
    held = narrow = 0
    for _ in range(400):
        values = np.where(generator.random(4) < 0.1, 0.03, 0.98) + generator.normal(size=4) * 0.005
        low, high = t_mean(values, least=0.0, most=1.0)
        bare_low, bare_high = t_mean(values)
        held += low <= 0.885 <= high
        narrow += bare_low <= 0.885 <= bare_high
    assert held / 400 > 0.95 and narrow / 400 < 0.5
    assert t_mean(np.array([0.5, 0.52, 0.51]), least=0.0, most=1.0) == t_mean(np.array([0.5, 0.52, 0.51]))
    assert clopper_pearson(2.5, 4)[0] < 2.5 / 4 < clopper_pearson(2.5, 4)[1]


def test_a_two_sided_p_is_twice_the_smaller_one():
    others = np.arange(23.0)  # of 24 exchangeable values the given one is the largest: as far out as 1 of 24, each way
    assert permutation_p(99.0, others, "two-sided") == pytest.approx(2 / 24)
    assert permutation_p(-99.0, others, "two-sided") == pytest.approx(2 / 24)
    assert permutation_p(99.0, others) == pytest.approx(1 / 24) and permutation_p(11.0, others, "two-sided") == 1.0


@pytest.mark.parametrize("width", [3, 40])  # fewer dimensions than runs, and more
def test_spreads_are_residuals_of_a_model_that_is_fitted_to_each_order(width):
    generator = np.random.default_rng(4)
    unit_NPd = generator.normal(size=(18, 2, width))
    init_N, task_N = np.repeat([0, 1, 2], 6), np.tile([0, 1, 2], 6)
    orders_BN = np.array([generator.permutation(18) for _ in range(5)])
    spreads_N, null_BN = variance.spreads(unit_NPd, init_N, task_N, orders_BN)

    indicators = np.stack([np.ones(18), init_N == 1, init_N == 2, task_N == 1, task_N == 2], axis=1).astype(float)
    hat_NN = indicators @ np.linalg.pinv(indicators)
    left_N = 1 - np.diag(hat_NN)

    def residuals(values_Nd):
        return (values_Nd - hat_NN @ values_Nd) / np.sqrt(left_N)[:, None]

    means_Nd = unit_NPd.mean(1)
    tokens_NPd = unit_NPd - means_Nd[:, None]
    own_N = ((tokens_NPd - tokens_NPd.mean(0)) ** 2).sum(2).mean(1) / (1 - 1 / 18)
    scaled_Nd = residuals(means_Nd)
    assert np.allclose(spreads_N, np.sqrt((scaled_Nd**2).sum(1) + own_N), rtol=1e-12)
    for order_N, null_N in zip(orders_BN, null_BN, strict=True):
        again_Nd = residuals(scaled_Nd[order_N])
        assert np.allclose(null_N, np.sqrt((again_Nd**2).sum(1) + own_N[order_N]), rtol=1e-12)
