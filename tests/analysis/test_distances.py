"""Mean distances and the correlation of distance sequences, against loops over pairs written from the definitions."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from scipy.stats import t as student

from promptgeo.analysis.crossed import Error, LeaveOuts
from promptgeo.analysis.geometry.how_far import Moved, cell_orders, too_few
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.question import Of
from promptgeo.analysis.questions.mean_distances import mean_distances
from promptgeo.analysis.questions.sequences import sequences, zero_diagonal_alone
from promptgeo.analysis.resampling import pair_means
from promptgeo.analysis.result import Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

TABLE1 = (0.546034, 0.547264, 0.528472, 0.567885, 0.612360, 0.544497, 0.580160, 0.566388, 0.506061, 0.584952)
TABLE2 = (0.643099, 0.665577, 0.710362, 0.684544, 0.712954, 0.710524)
ALL = 0.7415353844


@pytest.fixture
def drawn():
    """For tests of the figures; the others leave them undrawn, which takes most of an analysis's time."""


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        for analysis in ("mean_distances", "sequences"):
            monkeypatch.setattr(f"promptgeo.analysis.questions.{analysis}._figure", lambda *of: "")


def planted(
    inits=4, tasks=6, seeds=1, length=3, width=64, init=0.0, task=0.0, position=0.0, arrangement=0.0, seed=0
) -> RunTable:
    """Prompts that are sums of effects of init, task, position, task at each position (arrangement), and unit noise."""
    g = np.random.default_rng(seed)
    cells = [(f"i{i}", f"t{t}", s) for s in range(seeds) for i in range(inits) for t in range(tasks)]
    of_init, of_task, of_position = (
        g.normal(size=(inits, width)),
        g.normal(size=(tasks, width)),
        g.normal(size=(length, width)),
    )
    # Neighbouring tasks are alike: distances between tasks differ.
    arranged = np.cumsum(g.normal(size=(tasks, length, width)), axis=0)
    prompts = [
        init * of_init[int(i[1:])]
        + task * of_task[int(t[1:])]
        + position * of_position
        + arrangement * arranged[int(t[1:])]
        + g.normal(size=(length, width))
        for i, t, _ in cells
    ]
    initial = [g.normal(size=(length, width)) for _ in cells]
    return RunTable.from_arrays(
        np.array(prompts), pd.DataFrame(cells, columns=["init", "task", "seed"]), np.array(initial)
    )


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def every_token(runs: RunTable, of="prompt") -> list[dict]:
    rows = []
    for run, row in enumerate(runs.table.itertuples()):
        for position in range(runs.prompts().shape[1]):
            vector = runs.prompts()[run, position].astype(float)
            if of == "delta":
                vector = (runs.prompts()[run, position] - runs.prompts("initial")[run, position]).astype(float)
            rows.append({"run": run, "init": row.init, "task": row.task, "position": position, "vector": vector})
    return rows


def distance(a, b, metric):
    if metric == "cosine":
        return 1 - sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))
    return math.sqrt(sum((a - b) ** 2))


def brute_means(runs: RunTable, of, convention, metric) -> dict[str, list[float]]:
    """Every mean's distances, by name: ordered pairs for paper, unique ones otherwise."""
    distances: dict[str, list[float]] = {}
    toks = every_token(runs, of)
    for (k, a), (m, b) in itertools.product(enumerate(toks), repeat=2):
        if convention == "corrected" and k >= m:
            continue
        d = 0.0 if k == m else distance(a["vector"], b["vector"], metric)
        same_init, same_task, equal = a["init"] == b["init"], a["task"] == b["task"], a["position"] == b["position"]
        suffixes = [""] if convention == "paper" else [".no_self"] + [""] * (a["run"] != b["run"])
        for suffix in suffixes:
            names = (
                [f"all_pairs{suffix}"]
                + [f"table1.{a['init']}{suffix}"] * same_init
                + [f"table2.{a['task']}{suffix}"] * same_task
            )
            if not suffix:
                cell = {(1, 0): "same_init", (0, 1): "same_task", (0, 0): "neither", (1, 1): "same_both"}[
                    same_init, same_task
                ]
                alone = {"same_init": "same_init_other_task", "same_task": "same_task_other_init"}.get(cell, cell)
                names += [cell, f"{alone}.{'equal' if equal else 'other'}_position"] + [
                    f"position.{a['position']}"
                ] * equal
            for name in names:
                distances.setdefault(name, []).append(d)
    return distances


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    ("of", "convention", "metric"),
    list(itertools.product(("prompt", "delta"), ("paper", "corrected"), ("cosine", "l2"))),
)
def test_every_mean_is_that_of_a_loop_over_pairs(of, convention, metric, seeds):
    runs = planted(inits=3, tasks=2, seeds=seeds, length=2, width=7, init=1.0, task=0.5, position=0.3)
    result = mean_distances(runs, of=of, convention=convention, metrics=[metric], draws=100)
    prefix = "" if metric == "cosine" else "l2."
    wanted = brute_means(runs, of, convention, metric)
    for group, suffix in itertools.product(
        ("table1", "table2", "position"), ("", ".no_self") if convention == "corrected" else ("",)
    ):
        levels = {name: ds for name, ds in wanted.items() if re.fullmatch(rf"{group}\.\w+{re.escape(suffix)}", name)}
        if levels:
            wanted[f"{group}.mean{suffix}"] = [np.mean([np.mean(ds) for ds in levels.values()])] * sum(
                map(len, levels.values())
            )
    given = {row.quantity.removeprefix(prefix): row for row in result.numbers if "difference" not in row.quantity}
    assert set(given) == set(wanted)
    for name, distances in wanted.items():
        assert given[name].value == pytest.approx(np.mean(distances), abs=1e-6), name
        assert given[name].n == len(distances), name
    for name, (near, far) in {
        "corrected": {
            "init_closer": ("same_init", "same_task"),
            "position_closer": ("neither.equal_position", "same_task_other_init.other_position"),
        },
        "paper": {"init_closer": ("table1.mean", "table2.mean"), "position_closer": ("position.mean", "table2.mean")},
    }[convention].items():
        assert number(result, f"{prefix}difference.{name}").value == pytest.approx(
            np.mean(wanted[far]) - np.mean(wanted[near]), abs=1e-6
        )


def without_self(mean: float, tokens: int) -> float:
    """The mean over pairs of different tokens, from that over all tokens^2 pairs, self-pairs at distance 0 in."""
    return mean * tokens / (tokens - 1)


def test_the_study_s_means_without_self_pairs():
    assert without_self(np.mean(TABLE1), 24) == pytest.approx(0.583, abs=5e-4)
    assert without_self(np.mean(TABLE2), 40) == pytest.approx(0.705, abs=5e-4)
    assert without_self(ALL, 240) == pytest.approx(0.7446, abs=5e-5)


def test_without_self_is_the_step_from_paper_to_no_self():
    runs = planted(inits=3, tasks=4, length=2, init=0.5)
    paper, corrected = (mean_distances(runs, convention=c) for c in ("paper", "corrected"))
    for name, tokens in {"table1.i1": 8, "table1.mean": 8, "table2.t3": 6, "table2.mean": 6, "all_pairs": 24}.items():
        assert number(corrected, f"{name}.no_self").value == pytest.approx(
            without_self(number(paper, name).value, tokens), abs=1e-9
        )


def jackknife_variance(values) -> float:
    return (len(values) - 1) / len(values) * sum((v - np.mean(values)) ** 2 for v in values)


def test_intervals_leave_out_inits_and_tasks_with_all_their_runs():
    runs = planted(inits=4, tasks=5, seeds=2, length=2, width=16, init=1.0, task=0.5)
    full = {row.quantity: row for row in mean_distances(runs, draws=100, metrics=["cosine"]).numbers}

    def without(quantity: str, query: str) -> float:
        return np.mean(brute_means(runs.query(query), "prompt", "corrected", "cosine")[quantity])

    for quantity in ("same_init", "all_pairs"):
        inits = jackknife_variance([without(quantity, f"init != 'i{i}'") for i in range(4)])
        tasks = jackknife_variance([without(quantity, f"task != 't{t}'") for t in range(5)])
        cells = jackknife_variance(
            [without(quantity, f"not (init == 'i{i}' and task == 't{t}')") for i in range(4) for t in range(5)]
        )
        half = student.ppf(0.975, 3) * math.sqrt(max(inits + tasks - cells, inits, tasks))
        given = full[quantity]
        assert (given.low, given.high) == pytest.approx((given.value - half, given.value + half), abs=1e-6)
    tasks = jackknife_variance([without("table1.i2", f"task != 't{t}'") for t in range(5)])  # one init: as it is
    half, given = student.ppf(0.975, 4) * math.sqrt(tasks), full["table1.i2"]
    assert (given.low, given.high) == pytest.approx((given.value - half, given.value + half), abs=1e-6)


def test_means_with_self_pairs_lie_within_their_intervals():
    runs = planted(inits=10, tasks=6, length=4, init=1.0)
    for row in mean_distances(runs, convention="paper", draws=100).numbers:
        if row.quantity.endswith("same_both.equal_position"):  # self-pairs alone
            continue
        assert row.low < row.value < row.high, row
        # Around the middle: draws of runs with replacement hold more self-pairs, and would put it beside the value.
        assert abs(row.high + row.low - 2 * row.value) < 0.1 * (row.high - row.low), row


def moved_differently_far(tasks_at: float, seed: int, noise: float = 1.0) -> RunTable:
    """10 inits x 6 tasks that train in the same direction, fourfold as far some as others; and tasks at places."""
    g = np.random.default_rng(seed)
    table = pd.DataFrame([(f"i{i}", f"t{t}") for i in range(10) for t in range(6)], columns=["init", "task"])
    init, task = (table[c].str[1:].astype(int).to_numpy() for c in ("init", "task"))
    initial = 1.5 * g.normal(size=(10, 1, 64))[init].repeat(4, axis=1)
    delta = g.normal(size=64) + noise * (g.normal(size=(60, 1, 64)) + 0.7 * g.normal(size=(60, 4, 64)))
    delta += tasks_at * g.normal(size=(6, 1, 64))[task]
    delta *= np.geomspace(0.5, 2, 6)[task][:, None, None]
    return RunTable.from_arrays(initial + delta, table, initial)


def test_tasks_that_only_move_differently_far_are_not_said_to_have_places():
    far, places = (mean_distances(moved_differently_far(at, 3), metrics=["cosine"], draws=199) for at in (0.0, 0.5))
    gain = number(far, "difference.task_gain")
    assert gain.p < 0.05 and number(far, "difference.task_gain.how_far").p > 0.05
    sentence = far.findings[3].sentence
    assert "of different runs lie not detectably closer" in sentence and "tasks move their prompts by " in sentence
    control = number(places, "difference.task_gain.how_far")
    assert control.p < 0.02 and control.high < number(places, "difference.task_gain").value
    assert "of different runs lie closer with the same task" in places.findings[3].sentence
    bare = RunTable.from_arrays(moved_differently_far(0.5, 3).prompts(), moved_differently_far(0.5, 3).table)
    unknown = mean_distances(bare, metrics=["cosine"], draws=199).findings[3].sentence
    assert "lie not detectably closer, beyond how far tasks move" in unknown and "P0 is not known" in unknown


def test_whole_cells_change_places_within_an_init():
    table = planted(inits=2, tasks=3, seeds=2).query("not (init == 'i1' and task == 't2' and seed == 1)").table
    orders = cell_orders(table, "init", "task", 400, seed=0)
    names = table["init"] + table["task"]
    for order in orders:
        assert sorted(order) == list(range(len(table)))
        assert (table["init"].to_numpy()[order] == table["init"]).all()
        for name, members in names.groupby(names).groups.items():
            assert names[order[members]].nunique() == 1, name  # its seeds go together
    assert (table["task"].to_numpy()[orders] != table["task"].to_numpy()).any(axis=0).tolist() == [
        not (init == "i1" and task == "t2") for init, task in zip(table["init"], table["task"], strict=True)
    ]  # the cell with one seed only has no other to change places with
    assert cell_orders(planted(inits=3, tasks=1).table, "init", "task", 9, seed=0) is None


def p_by_loops(runs: RunTable, metric: str, factor: str, draws: int) -> float:
    """Two-sided p of how much closer another run of one task (or init) lies than one of another task and init."""
    table, toks = runs.table, every_token(runs)
    runs_N = [[row["vector"] for row in toks if row["run"] == n] for n in range(len(table))]
    apart_NN = [[np.mean([distance(u, v, metric) for u, v in itertools.product(a, b)]) for b in runs_N] for a in runs_N]

    def gain(order: np.ndarray) -> float:
        near, far = [], []
        for i, j in itertools.permutations(range(len(table)), 2):
            same = {f: table[f].iloc[i] == table[f].iloc[j] for f in ("init", "task")}
            if not any(same.values()):
                far.append(apart_NN[order[i]][order[j]])
            elif same[factor] and not all(same.values()):
                near.append(apart_NN[order[i]][order[j]])
        return np.mean(far) - np.mean(near)

    null = [gain(order) for order in cell_orders(table, "init" if factor == "task" else "task", factor, draws, seed=3)]
    observed = gain(np.arange(len(table)))
    above, below = (1 + sum(np.array(sign) * (np.array(null) - observed) >= -1e-12) for sign in (1, -1))
    return min(1.0, 2 * min(above, below) / (1 + len(null)))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("factor", ["task", "init"])
def test_the_p_of_a_gain_is_that_of_loops_over_runs_whose_cells_change_places(metric, factor):
    """Sums over cells stand for the pairs of their runs; one cell has a run less."""
    runs = planted(inits=3, tasks=4, init=0.1, task=0.1, seeds=2).query(
        "not (init == 'i1' and task == 't2' and seed == 1)"
    )
    found = mean_distances(runs, of=Of.prompt, metrics=[metric], vocabulary=None, draws=100, seed=3)
    name = f"difference.{factor}_gain" if metric == "cosine" else f"{metric}.difference.{factor}_gain"
    assert number(found, name).p == pytest.approx(p_by_loops(runs, metric, factor, 100))


OUTCOMES = {  # what is planted; how many inits and tasks; the claim that the same init lies closer
    "init": ({"init": 1.0}, 6, "holds"),
    "task": ({"task": 1.0}, 6, "does not hold"),
    "alike": ({"init": 1.0, "task": 1.0}, 6, "not decidable"),
    "few": ({"init": 1.0}, 2, "not decidable"),
}


@pytest.mark.parametrize("of", [Of.prompt, Of.delta])
def test_the_order_that_changes_nothing_gives_what_was_observed(of):
    """Of four runs it is one in four: put together again from their parts, in 12 % of draws none counted as equal."""
    for seed in range(8):
        g = np.random.default_rng(seed)
        initial = g.normal(size=(4, 2, 16)).astype(np.float32)
        table = pd.DataFrame({"task": ["a", "b"] * 2, "init": ["x", "x", "y", "y"], "seed": 0, "accuracy_final": 1.0})
        runs = RunTable.from_arrays(initial + g.normal(size=initial.shape).astype(np.float32), table, initial)
        moved = Moved.of(runs, of)
        control = moved.control(lambda prompts: float(np.linalg.norm(prompts[0] - prompts[2])), 199, seed)
        assert control.p > 0.15, seed
        assert np.array_equal(moved.dealt(np.arange(4)), moved.prompts_NPd)


@pytest.mark.parametrize(
    ("inits", "tasks", "says"),
    [(2, 2, "below 1"), (3, 3, "below 0.056"), (2, 4, "below 0.083"), (4, 3, ""), (3, 4, "")],
)
def test_designs_of_which_no_p_can_be_small_are_named(inits, tasks, says):
    """Tasks dealt within inits: (3!)^3 / 3! = 36 ways, so two of them are 5.6 %; the seeds of a cell add none."""
    rows = [(f"i{i}", f"t{t}") for i in range(inits) for t in range(tasks) for _ in range(3)]
    said = too_few(pd.DataFrame(rows, columns=["init", "task"]), "init", "task")
    assert said == (f"so few inits and tasks allow no p {says}" if says else "")


def test_a_verdict_that_no_data_could_reach_is_not_called_undetected():
    result = mean_distances(planted(inits=3, tasks=3, seeds=2, task=1.0), convention="corrected")
    said = next(f.sentence for f in result.findings if "with the same task than" in f.sentence)
    assert "not testably closer (so few inits and tasks allow no p below 0.056)" in said


def test_four_runs_of_two_inits_and_tasks_have_no_interval():
    four, six = (LeaveOuts(["x", "y"] * n, ["a"] * n + ["b"] * n) for n in (2, 3))
    assert four.error(np.arange(len(four.weights_JN), dtype=float)) is None
    error = six.error(np.arange(len(six.weights_JN), dtype=float))
    assert (error.factors, error.freedom, error.units) == (0, 5, 6)


@pytest.mark.parametrize("what", OUTCOMES)
def test_the_claim_on_inits_has_three_outcomes(what):
    effects, levels, outcome = OUTCOMES[what]
    runs = planted(inits=levels, tasks=levels, seeds=2, width=400, seed=1, **effects)
    (claim,) = mean_distances(runs, metrics=["cosine"], draws=199).claims
    assert claim.outcome == outcome and claim.p is not None
    assert ("3 inits and 3 tasks" in claim.needs) == (what == "few")


def test_where_the_same_task_may_lie_closer_only_by_how_far_tasks_move_the_claim_says_so():
    """Its interval lies beyond 0, and without these words no reader would know why the claim does not fail by it."""
    runs = planted(inits=6, tasks=6, width=400, seed=1, task=1.0)
    (known,) = mean_distances(runs, metrics=["cosine"], draws=199).claims
    assert known.outcome == "does not hold" and "Premise" not in known.evidence
    bare = RunTable.from_arrays(runs.prompts(), runs.table)
    (unknown,) = mean_distances(bare, metrics=["cosine"], draws=199).claims
    assert unknown.outcome == "not decidable" and unknown.p == known.p
    assert unknown.needs == "tasks that move their prompts equally far (training.max_steps) from a P0 that is known"
    unmet = "Premise not met: the same task lies closer than how far tasks move their prompts brings it."
    assert unknown.evidence == f"{known.evidence} {unmet}"


def test_the_claim_needs_prompts_that_learned_their_task():
    runs = planted(inits=6, tasks=6, init=1.0, seed=1)
    for trained, outcome in ((0.9, "holds"), (0.1, "not decidable")):
        runs.table["accuracy_final"], runs.table["accuracy_initial"] = trained, 0.1
        (claim,) = mean_distances(runs, metrics=["cosine"]).claims
        assert claim.outcome == outcome
        assert outcome == "holds" or (
            "Premise not met: the trained prompts solve more than P0 (10% against 10%" in claim.evidence
            and claim.needs == "prompts that learned their task"
        )


def test_a_bootstrap_draw_is_the_mean_over_its_copies():
    g = np.random.default_rng(0)
    sums = g.random((4, 4)) + np.eye(4)
    sums, counts = sums + sums.T, np.full((4, 4), 3.0)
    counts[0, 1] = counts[1, 0] = sums[0, 1] = sums[1, 0] = 0
    drawn = [0, 0, 2, 1]
    total = n = 0.0
    for (x, a), (y, b) in itertools.product(enumerate(drawn), repeat=2):
        if a != b or x == y:  # two copies of a run have no pairs with each other
            total, n = total + sums[a, b], n + counts[a, b]
    assert pair_means(np.array([[2.0, 1, 1, 0]]), sums, counts)[0] == pytest.approx(total / n)
    np.fill_diagonal(counts, 0)
    assert np.isnan(pair_means(np.array([[2.0, 2, 0, 0]]), sums * (counts > 0), counts)[0])


PLANTED = {  # effects; then what is found: init against task, position against task, init alone, task alone
    "init": ({"init": 1.0}, "closer", "not detectably closer", "closer", "not detectably closer"),
    "task": ({"task": 1.0}, "farther apart", "farther apart", "not detectably closer", "closer"),
    "position": (
        {"position": 1.0},
        "not detectably closer",
        "closer",
        "not detectably closer",
        "not detectably closer",
    ),
    "both": ({"init": 1.2, "task": 0.6}, "closer", "farther apart", "closer", "closer"),
    "none": ({}, "not detectably closer", "not detectably closer", "not detectably closer", "not detectably closer"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_planted_structure_gives_its_own_sentences(what):
    effects, *verdicts = PLANTED[what]
    result = mean_distances(planted(inits=6, tasks=6, width=400, seed=1, **effects), metrics=["cosine"], draws=199)
    assert len(result.findings) == 4
    for finding, verdict in zip(result.findings, verdicts, strict=True):
        assert f"of different runs lie {verdict} with " in finding.sentence
        assert finding.low <= finding.estimate <= finding.high
        assert (
            f"difference {finding.estimate:.3f} ({finding.low:.3f} to {finding.high:.3f}, p = {finding.p:.3g}; n = "
            in finding.sentence
            and "in 36 runs" in finding.sentence
        )
    (claim,) = result.claims
    assert (
        claim.name == "init_closer"
        and claim.holds == (verdicts[0] == "closer")
        and claim.evidence == result.findings[0].sentence
    )

    def v(quantity: str) -> float:
        return number(result, quantity).value

    assert (v("same_init") < v("neither") - 0.05) == ("init" in effects)
    assert (v("same_task") < v("neither") - 0.05) == ("task" in effects)
    assert (v("neither.equal_position") < v("neither.other_position") - 0.05) == ("position" in effects)


def test_self_pairs_alone_make_the_same_init_closer_as_the_study_counted():
    runs = planted(inits=10, tasks=6, length=4, width=400)
    paper, corrected = (mean_distances(runs, convention=c, metrics=["cosine"]) for c in ("paper", "corrected"))
    assert paper.claims[0].holds and not corrected.claims[0].holds
    assert "self-pairs and same-run pairs counted" in paper.findings[0].sentence


def test_deltas_are_called_so_and_have_no_place_among_words(drawn):
    vocabulary = Vocabulary(np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32), ["x"] * 50)
    prompt, delta = (mean_distances(planted(init=1.0), of=of, vocabulary=vocabulary) for of in ("prompt", "delta"))
    assert {row.quantity for row in prompt.numbers} - {row.quantity for row in delta.numbers} == {
        "random_vocabulary",
        "l2.random_vocabulary",
    }
    assert "random vocabulary" in prompt.figures["cosine"] and "random vocabulary" not in delta.figures["cosine"]
    assert prompt.findings[0].sentence.startswith("Prompt tokens") and delta.findings[0].sentence.startswith(
        "Deltas of prompt tokens"
    )
    assert not any("vocabulary" in sentence for sentence in delta.omissions)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_random_vocabulary_line_is_that_of_a_loop(metric):
    embeddings = np.random.default_rng(0).normal(size=(30, 64)).astype(np.float32)
    embeddings[4] = 0  # as some models pad: at cosine distance 1 from everything
    vocabulary = Vocabulary(embeddings, ["x"] * 30)
    for sample in (30, 12):
        chosen = embeddings[vocabulary.sample(sample, 5)].astype(float)
        loops = []
        for a, b in itertools.combinations(chosen, 2):
            zero = metric == "cosine" and not (a.any() and b.any())
            loops.append(1.0 if zero else distance(a, b, metric))
        name = "random_vocabulary" if metric == "cosine" else "l2.random_vocabulary"
        paper, corrected = (
            mean_distances(planted(), convention=c, vocabulary=vocabulary, metrics=[metric], sample=sample, seed=5)
            for c in ("paper", "corrected")
        )
        assert number(corrected, name).value == pytest.approx(np.mean(loops), abs=1e-6)
        assert number(paper, name).value == pytest.approx(np.mean(loops) * (sample - 1) / sample, abs=1e-6)
        row = number(corrected, name)
        assert row.n == len(loops) and row.low < row.value < row.high and f"{sample} vocabulary tokens" in row.unit


def test_what_the_runs_cannot_support_is_said():
    single = mean_distances(planted(seeds=1))
    assert any("same_both" in sentence and "several seeds" in sentence for sentence in single.omissions)
    assert any("embeddings" in sentence for sentence in single.omissions)
    small = mean_distances(planted(inits=2, tasks=2, length=1))
    assert any("same_task_other_init.other_position" in s for s in small.omissions) and any(
        "interval: table1.i0" in s for s in small.omissions
    )
    runs = planted(inits=3, tasks=3)
    own = runs.table["init"].str[1] == runs.table["task"].str[1]
    diagonal = mean_distances(runs.only(np.flatnonzero(own)))
    assert (
        not diagonal.claims
        and any("comparison: init_closer" in s for s in diagonal.omissions)
        and any("table1.i0" in s for s in diagonal.omissions)
    )
    for result in (single, small, diagonal):
        assert np.isfinite([row.value for row in result.numbers]).all()


@pytest.mark.parametrize(
    ("options", "change", "says"),
    [
        ({}, {"inits": 1}, "at least 2 inits; these have 1"),
        ({}, {"tasks": 1}, "at least 2 tasks; these have 1"),
        ({"metrics": ["dot"]}, {}, "metrics=dot: must be some of cosine, l2"),
        ({"sample": 1}, {}, "sample=1"),
        ({"draws": 0}, {}, "draws=0"),
    ],
)
def test_mean_distances_refuses(options, change, says):
    with pytest.raises(UserError, match=re.escape(says)):
        mean_distances(planted(**change), **options)


def test_deltas_need_p0():
    runs = planted()
    bare = RunTable.from_arrays(runs.prompts(), runs.table)
    for analysis in (mean_distances, sequences):
        with pytest.raises(UserError, match="initial"):
            analysis(bare, of="delta")


def brute_sequence(toks: list[dict], init: str, tasks: list[str], order, convention) -> list[float]:
    mine = {(t["task"], t["position"]): t["vector"] for t in toks if t["init"] == init}
    keys = [(tasks[t], p) for t in order for p in sorted({p for _, p in mine})]
    correlations = []
    for x, y in itertools.product(range(len(keys)), repeat=2):
        if convention == "corrected" and (x >= y or keys[x][0] == keys[y][0]):
            continue
        correlations.append(0.0 if x == y else distance(mine[keys[x]], mine[keys[y]], "cosine"))
    return correlations


@pytest.mark.parametrize("of", ["prompt", "delta"])
@pytest.mark.parametrize("convention", ["paper", "corrected"])
def test_every_correlation_is_that_of_a_loop_over_pairs(of, convention):
    runs = planted(inits=3, tasks=6, length=2, width=8, arrangement=0.3, position=0.5)
    shuffled = runs.table.sample(frac=1, random_state=0).index  # the order of the runs must not matter
    mixed = RunTable.from_arrays(runs.prompts()[shuffled], runs.table.loc[shuffled], runs.prompts("initial")[shuffled])
    result = sequences(mixed, of=of, convention=convention)
    toks, tasks, given = every_token(runs, of), [f"t{t}" for t in range(6)], list(range(6))
    table = result.tables["pearson"]
    assert len(table) == 3
    for row in table.itertuples():
        a, b = (brute_sequence(toks, init, tasks, given, convention) for init in (row.init, row.other_init))
        correlation = pearsonr(a, b)
        assert row.r == pytest.approx(correlation.statistic, abs=1e-6) and row.n == len(a) == (
            144 if convention == "paper" else 60
        )
        if convention == "paper":
            assert row.p == pytest.approx(correlation.pvalue, rel=1e-4)
    assert number(result, "pearson.minimum").value == pytest.approx(table["r"].min())
    lowest = number(result, "pearson.minimum")
    assert lowest.p == pytest.approx(table["p"].max()) and lowest.n == table["n"][0]


def test_p_is_exact_over_all_720_orders_of_the_tasks():
    runs = planted(inits=2, tasks=6, length=2, width=8, arrangement=0.15, position=0.5)
    (row,) = sequences(runs).tables["pearson"].itertuples()
    toks, tasks = every_token(runs), [f"t{t}" for t in range(6)]
    distances = {}
    for init in ("i0", "i1"):
        for a, b in itertools.product([t for t in toks if t["init"] == init], repeat=2):
            distances[init, a["task"], a["position"], b["task"], b["position"]] = distance(
                a["vector"], b["vector"], "cosine"
            )
    pairs = [(t, p, u, q) for t, u in itertools.combinations(range(6), 2) for p in range(2) for q in range(2)]
    first = [distances["i0", tasks[t], p, tasks[u], q] for t, p, u, q in pairs]
    null = []
    for order in itertools.permutations(range(6)):
        second = [distances["i1", tasks[order[t]], p, tasks[order[u]], q] for t, p, u, q in pairs]
        null.append(np.corrcoef(first, second)[0, 1])
    assert row.r == pytest.approx(null[0], abs=1e-6) and row.by_chance == pytest.approx(np.mean(null[1:]), abs=1e-6)
    assert row.p == pytest.approx(sum(r >= null[0] - 1e-9 for r in null) / 720)
    assert 1 / 720 < row.p < 1


def test_shared_arrangement_is_found_and_shared_positions_are_not_taken_for_one():
    arranged = sequences(planted(arrangement=2.0, width=128))
    assert (
        arranged.claims[0].holds
        and number(arranged, "pearson.minimum.how_far").p < 0.02
        and "correlate for any two inits" in arranged.findings[0].sentence
    )
    assert arranged.findings[0].p == pytest.approx(1 / 720) and "all 720 orders" in arranged.findings[0].sentence
    for effects in ({"position": 1.0}, {"init": 1.0}, {}):
        result = sequences(planted(width=128, seed=2, **effects))
        assert not result.claims[0].holds and "any two inits" not in result.findings[0].sentence
        paper = sequences(planted(width=128, seed=2, **effects), convention="paper")
        # The study's count shows no difference: r is high, every p low, by the zero diagonal alone.
        assert number(paper, "pearson.minimum").value > 0.7 and number(paper, "pearson.minimum").p < 1e-6
        (claim,) = paper.claims
        above = number(paper, "pearson.minimum").value > number(paper, "pearson.zero_diagonal_alone").high
        assert claim.outcome == ("holds" if above else "not decidable")
        assert above or "Premise not met: the lowest r is above what the zero diagonal alone gives" in claim.evidence
    positions = sequences(planted(width=128, seed=2, position=1.0))
    assert number(positions, "pearson.minimum").value > 0.7 and positions.findings[0].p > 0.05


def test_one_init_apart_is_named_so():
    runs = planted(inits=5, tasks=7, arrangement=0.5, width=128)
    alone = planted(inits=5, tasks=7, arrangement=0.5, width=128, seed=11)
    odd = (runs.table["init"] == "i4").to_numpy()[:, None, None]
    result = sequences(RunTable.from_arrays(np.where(odd, alone.prompts(), runs.prompts()), runs.table))
    assert result.claims[0].outcome == "not decidable"  # no p shows that two do not correlate
    assert re.search(
        r"for [6-9] of 10 pairs of inits only, perhaps by .*: lowest r = -?0\.\d{3} \(i\d, i4",
        result.findings[0].sentence,
    )
    by_chance = number(result, "pearson.minimum.by_chance")
    assert by_chance.low < by_chance.value < by_chance.high and 0 < by_chance.p < 1


def test_the_lowest_r_by_chance_permutes_each_init_on_its_own():
    runs = planted(inits=3, tasks=6, length=2, width=32, arrangement=0.5)
    result = sequences(runs)
    given = number(result, "pearson.minimum.by_chance")
    toks, tasks, g = every_token(runs), [f"t{t}" for t in range(6)], np.random.default_rng(1)
    matrices = {}
    for init in ("i0", "i1", "i2"):
        full = np.array(brute_sequence(toks, init, tasks, range(6), "paper")).reshape(6, 2, 6, 2)
        matrices[init] = full
    t, u = np.triu_indices(6, 1)
    null = []
    for _ in range(800):
        drawn = []
        for full in matrices.values():
            order = g.permutation(6)
            drawn.append(full[order[t], :, order[u], :].ravel())
        null.append(np.corrcoef(drawn)[np.triu_indices(3, 1)].min())
    assert given.value == pytest.approx(np.mean(null), abs=0.03)
    assert (given.low, given.high) == pytest.approx(tuple(np.percentile(null, [2.5, 97.5])), abs=0.06)
    assert given.p == pytest.approx(
        (1 + 2000 * np.mean(np.array(null) >= number(result, "pearson.minimum").value)) / 2001, abs=0.01
    )


def test_the_zero_diagonal_alone_is_what_shuffled_distances_give():
    runs = planted(inits=2, tasks=6, length=2, width=16, arrangement=0.3)
    result = sequences(runs)
    toks, tasks = every_token(runs), [f"t{t}" for t in range(6)]
    a, b = (np.array(brute_sequence(toks, init, tasks, range(6), "paper")).reshape(12, 12) for init in ("i0", "i1"))
    g, upper, null = np.random.default_rng(0), np.triu_indices(12, 1), []
    for _ in range(3000):
        shuffled = np.zeros((12, 12))
        shuffled[upper] = g.permutation(b[upper])
        null.append(np.corrcoef(a.ravel(), (shuffled + shuffled.T).ravel())[0, 1])
    alone = number(result, "pearson.zero_diagonal_alone")
    assert alone.value == pytest.approx(np.mean(null), abs=4 * np.std(null) / math.sqrt(3000))
    assert (alone.low, alone.high) == pytest.approx(tuple(np.percentile(null, [2.5, 97.5])), abs=0.02)
    assert f"the zero diagonal alone gives {alone.value:.3f}" in result.claims[0].evidence
    assert zero_diagonal_alone(1.0, 0.0, 0.5, 0.0, 24) == pytest.approx(1.0) and zero_diagonal_alone(
        1.0, 1 / math.sqrt(24), 1.0, 1 / math.sqrt(24), 24
    ) == pytest.approx(0.5)


def test_many_tasks_get_random_orders():
    result = sequences(planted(inits=2, tasks=8, arrangement=0.5), permutations=300)
    assert "300 random orders" in result.findings[0].sentence and result.findings[0].p == pytest.approx(1 / 301)


def test_seeds_of_a_cell_are_averaged_as_matrices():
    runs = planted(inits=2, tasks=6, seeds=2, length=2, width=8, arrangement=0.3)
    result = sequences(runs)
    tasks, sequence = [f"t{t}" for t in range(6)], {}
    for init in ("i0", "i1"):
        per_seed = [
            brute_sequence(every_token(runs.query(f"seed == {s}")), init, tasks, range(6), "corrected") for s in (0, 1)
        ]
        sequence[init] = np.mean(per_seed, axis=0)
    assert number(result, "pearson.minimum").value == pytest.approx(np.corrcoef(*sequence.values())[0, 1], abs=1e-6)
    assert "each a mean over 2 runs of a cell" in result.findings[0].sentence
    uneven = sequences(runs.query("not (seed == 1 and task == 't0')"))
    assert any("up to 2 runs, some only 1" in sentence for sentence in uneven.omissions)
    assert number(uneven, "pearson.minimum").value == pytest.approx(
        number(sequences(runs.query("seed == 0")), "pearson.minimum").value
    )


@pytest.mark.parametrize("convention", ["paper", "corrected"])
def test_few_tasks_get_no_p_no_finding_and_no_verdict(convention):
    result = sequences(planted(tasks=5, arrangement=0.5), convention=convention)
    (claim,) = result.claims
    assert not result.findings and claim.outcome == "not decidable" and "at least 6 tasks" in claim.needs
    assert any("No p" in sentence and "5 tasks" in sentence for sentence in result.omissions)
    assert number(result, "pearson.minimum").value > 0 and result.tables["pearson"]["p"].isna().all()


def test_inits_that_do_not_correlate_fail_by_their_mean_r():
    runs = planted(inits=10, tasks=12, length=2, width=64, seed=3)
    apart = sequences(runs, permutations=300)
    mean = number(apart, "pearson.mean")
    assert mean.value == pytest.approx(apart.tables["pearson"]["r"].mean()) and mean.high < 0.3
    assert apart.claims[0].outcome == "does not hold" and "below 0.3 it is little" in apart.claims[0].evidence


def test_tasks_that_only_move_differently_far_correlate_by_that_alone():
    result = sequences(moved_differently_far(0.0, 3, noise=0.2))
    assert number(result, "pearson.minimum").p < 0.01 and number(result, "pearson.minimum.how_far").p > 0.05
    assert "perhaps by how far tasks move their prompts alone" in result.findings[0].sentence
    (claim,) = result.claims
    assert claim.outcome == "not decidable" and "equally far" in claim.needs


@pytest.mark.long
def test_that_some_pairs_correlate_is_adjusted_for_how_many_there_are():
    some = 0
    for seed in range(8):
        result = sequences(planted(inits=6, tasks=7, length=2, width=16, seed=seed), permutations=5039)
        assert number(result, "pearson.minimum").p > 0.01
        some += "no two inits detectably" not in result.findings[0].sentence
    assert some == 0  # unadjusted, in 14 of 100 draws without structure some pair correlates


def test_sequences_need_common_tasks_and_distances_that_vary():
    runs = planted(inits=3, tasks=7, arrangement=0.5)
    gap = sequences(runs.query("not (task == 't2' and init == 'i1')"))
    assert any(sentence.endswith(": t2.") for sentence in gap.omissions)
    assert number(gap, "pearson.minimum").value == pytest.approx(
        number(sequences(runs.query("task != 't2'")), "pearson.minimum").value
    )
    prompts = runs.prompts().copy()
    prompts[(runs.table["init"] == "i2").to_numpy()] = 1.0
    flat = sequences(RunTable.from_arrays(prompts, runs.table))
    assert (
        any("do not vary" in sentence and "i2" in sentence for sentence in flat.omissions)
        and len(flat.tables["pearson"]) == 1
    )
    with pytest.raises(UserError, match="at least 3 tasks"):
        sequences(planted(tasks=2))
    with pytest.raises(UserError, match="3 tasks that every init has"):
        sequences(runs.query("init == 'i0' and task <= 't3' or init == 'i1' and task >= 't2'"))
    with pytest.raises(UserError, match="permutations=0"):
        sequences(runs, permutations=0)
    with pytest.raises(UserError, match="at least 2 inits"):
        sequences(planted(inits=1))


def test_the_same_runs_give_the_same_bytes(drawn):
    runs = planted(init=0.5)
    for analysis in (mean_distances, sequences):
        first, second = analysis(runs), analysis(runs)
        assert first.numbers == second.numbers and first.figures == second.figures and first.findings == second.findings
        assert all(svg.startswith("<svg") for svg in first.figures.values())


def test_conf_names_the_functions_and_their_defaults():
    import inspect

    from promptgeo.analysis.target import analysis_of
    from promptgeo.config.compose_analyze import compose_analyze

    config = compose_analyze(["runs=x", "analysis=[mean_distances,sequences]"])
    assert set(config.analysis) == {"mean_distances", "sequences"}
    for name, settings in config.analysis.items():
        analysis = analysis_of(name, settings)
        for option, value in analysis.options.items():
            default = inspect.signature(analysis.function).parameters[option].default
            assert (tuple(value) if isinstance(value, list) else value) == default, option


def test_a_share_that_few_units_make_is_no_surer_than_none_at_all():
    """2 of 256 in one of 22 runs had a tenth of the upper end that 0 of 256 had."""
    ends = []
    for hits in (0, 2, 4):
        shares_N = np.zeros(22)
        shares_N[0] = hits / 256 * 22
        error = Error(float(shares_N.std(ddof=1) / np.sqrt(22)), 21, 0, 22)
        ends.append(error.share_interval(float(shares_N.mean())))
    lows, highs = zip(*ends, strict=True)
    assert list(highs) == sorted(highs) and highs[0] == pytest.approx(0.1544, abs=1e-4) and highs[1] < 0.2
    many = Error(0.3 / np.sqrt(22), 21, 0, 22).share_interval(0.4)
    assert 0.24 < many[0] < 0.4 < many[1] < 0.58
    assert Error(1e-12, 21, 0, 22).share_interval(0.05)[1] > 0.15 and lows[0] == 0.0
