"""Analyses that run the model: prompts made of runs are scored as the runs were; planted structure is found."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import t

import promptgeo as pg
import reference
from promptgeo.analysis import scoring
from promptgeo.analysis.geometry.tokens import random_like
from promptgeo.analysis.questions.mean_prompts import mean_prompts
from promptgeo.analysis.questions.transplant import _spread, transplant
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Number, Result
from promptgeo.analysis.scoring import (
    Bootstrap,
    Control,
    Difference,
    Estimate,
    EvaluationSet,
    Scored,
    in_percent,
    in_points,
)
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, Trained, write_run
from promptgeo.runs.table import RunTable, table_of
from promptgeo.runs.task import task_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

SMALL = (
    "task.split.max_train=64",
    "task.split.max_test=9",
    "training.epochs=2",
    "evaluation.every=end",
    "evaluation.max_new_tokens=6",
    "template.longer_labels=warn",
    "training.checkpoints=100",
)
TASKS, INITS = ("country_capital", "present_past"), ("cat", "vocab")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("models")
    made = [reference.make_plan(TINY, out, f"task={task}", f"init={init}", *SMALL) for task in TASKS for init in INITS]
    assert train_pack(made) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def tiny(plans):
    return plans[0].lm


@pytest.fixture(scope="module")
def moved(runs, tiny):
    return transplant(runs, lm=tiny, max_examples=None, alphas=(0.5,))


def accuracy(lm, prompt_Pd, plan) -> float:
    return float(
        pg.evaluate(lm, prompt_Pd[None], plan.task, max_new_tokens=plan.config.evaluation.max_new_tokens).accuracy[0]
    )


def table_row(result, **where):
    rows = result.tables["accuracies"]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    (row,) = rows.to_dict("records")
    return row


def test_a_runs_task_is_made_again_from_its_folder(plans, runs, tmp_path):
    for plan, run in zip(plans, runs.runs, strict=True):
        assert task_of(run) == plan.task
    changed = Run(runs.runs[0].folder, runs.runs[0].info | {"fingerprints": {"data": "sha256:0"}})
    with pytest.raises(UserError, match="the data of task country_capital are not those"):
        task_of(changed)


def test_the_diagonal_is_the_run_itself(runs, moved):
    assert runs.table["accuracy_final"].min() > 0.5 > runs.table["accuracy_initial"].max()
    for row in runs.table.itertuples():
        for alpha, logged in ((0.0, row.accuracy_initial), (1.0, row.accuracy_final)):
            cell = table_row(moved, kind="own", alpha=alpha, task=row.task, recipient=row.init)
            assert cell["accuracy"] == logged and cell["n"] == row.n == 9
            assert (cell["low"], cell["high"]) == wilson(round(9 * logged), 9)
    assert value(moved, "own") == pytest.approx(runs.table["accuracy_final"].mean())


def test_transplants_are_scored_by_hand(plans, runs, moved, tiny):
    p0, final = runs.prompts("initial"), runs.prompts()
    expected = []
    for a, b in ((0, 1), (1, 0), (2, 3), (3, 2)):
        for alpha in (0.5, 1.0):
            by_hand = accuracy(tiny, p0[b] + alpha * (final[a] - p0[a]), plans[b])
            cell = table_row(
                moved, kind="transplant", alpha=alpha, task=TASKS[b // 2], donor=INITS[a % 2], recipient=INITS[b % 2]
            )
            assert cell["accuracy"] == by_hand
        expected.append(by_hand)
        other = (a + 2) % 4
        cell = table_row(moved, kind="other_task_delta", task=TASKS[b // 2], donor=INITS[a % 2], recipient=INITS[b % 2])
        assert cell["accuracy"] == accuracy(tiny, p0[b] + final[other] - p0[other], plans[b])
        cell = table_row(moved, kind="composition.sum", task=TASKS[b // 2], recipient=INITS[b % 2])
        assert cell["accuracy"] == accuracy(tiny, final[b] + final[(b + 2) % 4] - p0[(b + 2) % 4], plans[b])
    assert value(moved, "transplant") == pytest.approx(np.mean(expected))
    assert value(moved, "difference.initial") == pytest.approx(
        np.mean(expected) - runs.table["accuracy_initial"].mean()
    )
    heat = moved.tables["heatmap"].set_index(["donor", "recipient"])["accuracy"]
    assert heat["cat", "vocab"] == pytest.approx((expected[0] + expected[2]) / 2)
    assert {"heatmap", "alpha"} == set(moved.figures)
    assert moved.omissions == [
        "transplant: in 1 of 2 sums of two tasks' deltas the runs start from different P0s (a random init differs by "
        "task): the other delta was not trained on that P0."
    ]


def planted(source: Run, folder, inits: dict[str, tuple[np.ndarray, np.ndarray]]) -> RunTable:
    """Run folders whose P0 and final prompt were put there, all else as in a real run."""
    made = []
    for init, (initial, final) in inits.items():
        info = {k: v for k, v in source.info.items() if k not in ("files", "sha256", "status", "results")}
        info["config"] = info["config"] | {"init": info["config"]["init"] | {"name": init}}
        initial, final = initial.astype(np.float32), final.astype(np.float32)
        write_run(
            folder / init,
            info,
            Trained("completed", initial, final[None], np.array([1]), final, final, [], [], source.info["results"]),
        )
        made.append(Run.load(folder / init))
    return table_of(made)


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


def sentence(result, with_words: str) -> str:
    (match,) = [f.sentence for f in result.findings if with_words in f.sentence]
    return match


def test_a_shared_direction_carries_over_and_a_shared_end_point_does_not(runs, tiny, tmp_path):
    generator = np.random.default_rng(0)
    source = runs.runs[2]
    solved, length = source.prompt(), source.prompt().shape
    far = 10 * np.abs(solved).max()  # what is left of P0[b] - P0[a] then drowns the prompt
    near = {f"near{i}": generator.normal(0, 1e-3, length) for i in range(3)}
    apart = {f"far{i}": generator.normal(0, far, length) for i in range(3)}
    shared = transplant(planted(source, tmp_path / "shared", {k: (p0, p0 + solved) for k, p0 in near.items()}), lm=tiny)
    own_way = transplant(planted(source, tmp_path / "own", {k: (p0, solved) for k, p0 in apart.items()}), lm=tiny)
    assert value(shared, "transplant") == value(shared, "own") == value(own_way, "own") > 0.5
    assert value(shared, "random_delta") < 0.2 and value(own_way, "transplant") < value(own_way, "own") - 0.3
    assert "so the delta carries over (n = 6 pairs of runs" in sentence(shared, "P0 alone")
    assert "so its direction matters" in sentence(shared, "a random delta")
    assert "so no difference from the prompt trained from there is detected" in sentence(shared, "own trained prompt")
    assert "so nothing shows that the delta carries over" in sentence(own_way, "P0 alone")
    assert "so part of the delta holds only for its own init" in sentence(own_way, "own trained prompt")
    for result in (shared, own_way):
        assert result.omissions == [
            "transplant: another task's delta as a control, and composition, need runs of two tasks "
            "with the same init and seed."
        ]


def test_what_was_drawn_is_named_and_the_same_each_time(runs, tiny):
    first, again = (
        transplant(runs, lm=tiny, alphas=(1,), max_examples=4, max_pairs=2, max_compositions=1) for _ in range(2)
    )
    assert (
        first.omissions[0]
        == "transplant: 2 of 4 pairs of runs were scored, drawn by seed 0 (max_pairs=null scores all)."
    )
    assert (
        "4 test examples of a task, drawn by seed 0, stand for all of country_capital (9), present_past (9)"
        in first.omissions[1]
    )
    assert first.numbers == again.numbers and first.figures == again.figures
    assert set(first.tables["accuracies"]["n"]) == {4}
    assert (first.tables["accuracies"]["kind"] == "composition.sum").sum() == 2


def test_pairs_are_drawn_evenly_over_inits(runs):
    table = runs.table.loc[[0] * 12].reset_index(drop=True).assign(init=[f"i{k % 4}" for k in range(12)])
    pairs = [(a, b) for a in range(12) for b in range(12) if a % 4 != b % 4]
    for most in (12, 24, 30):
        chosen = _spread(pairs, table, most, np.random.default_rng(1))
        counts = np.zeros((4, 4), dtype=int)
        for a, b in chosen:
            counts[a % 4, b % 4] += 1
        off = counts[~np.eye(4, dtype=bool)]
        assert len(set(chosen)) == most == off.sum() and off.max() - off.min() <= 1


def test_a_random_delta_is_as_long_as_the_delta_token_by_token():
    delta = np.random.default_rng(0).normal(size=(4, 50)) * np.array([[0.0], [1.0], [5.0], [0.1]])
    noise = random_like(delta, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), np.linalg.norm(delta, axis=1), rtol=1e-12)
    assert abs((noise[1] @ delta[1]) / (delta[1] @ delta[1])) < 0.5


def test_what_cannot_be_transplanted_says_why(runs, tiny):
    with pytest.raises(UserError, match="transplant: needs runs with at least 2 inits; these have 1"):
        transplant(runs.query("init == 'cat'"), lm=tiny)
    with pytest.raises(UserError, match="needs two runs of one task and seed that differ in init"):
        transplant(runs.query("(task == 'country_capital') == (init == 'cat')"), lm=tiny)
    elsewhere = RunTable.from_arrays(runs.prompts(), runs.table, runs.prompts("initial"))
    for analysis in (transplant, mean_prompts):
        with pytest.raises(UserError, match="needs runs trained here"):
            analysis(elsewhere, lm=tiny)


def test_mean_prompts_are_scored_by_hand(plans, runs, tiny):
    result = mean_prompts(runs, lm=tiny)
    final, initial = runs.prompts().astype(np.float64), runs.prompts("initial").astype(np.float64)
    expected: dict[str, dict[str, float]] = {}
    for i, task in enumerate(TASKS):
        plan, own, others = plans[2 * i], [2 * i, 2 * i + 1], [2 - 2 * i, 3 - 2 * i]
        prompts = {
            "mean_prompt": (final[own[0]] + final[own[1]]) / 2,
            "other_task": (final[others[0]] + final[others[1]]) / 2,
            "mean_initial": (initial[own[0]] + initial[own[1]]) / 2,
        }
        tokens = {"mean_prompt": "mean_token", "other_task": "other_task_token", "mean_initial": "mean_initial_token"}
        expected[task] = {kind: accuracy(tiny, prompt_Pd, plan) for kind, prompt_Pd in prompts.items()}
        for kind, prompt_Pd in prompts.items():
            expected[task][tokens[kind]] = accuracy(tiny, sum(prompt_Pd)[None] / len(prompt_Pd), plan)
        expected[task]["runs"] = runs.table["accuracy_final"][own].mean()
        expected[task]["initial"] = runs.table["accuracy_initial"][own].mean()
        for kind, right in expected[task].items():
            assert value(result, f"{kind}.{task}") == pytest.approx(right), (kind, task)
    token = number(result, "mean_token.present_past")
    assert token.interval == wilson(round(9 * token.value), 9) and token.n == 9
    means = {kind: np.mean([expected[task][kind] for task in TASKS]) for kind in expected[TASKS[0]]}
    for kind in ("mean_prompt", "mean_token"):
        assert value(result, f"difference.{kind}.runs") == pytest.approx(means[kind] - means["runs"])
    assert [f.n for f in result.findings] == [18] * 6 and not result.omissions
    alone = mean_prompts(runs.query("task == 'present_past'"), lm=tiny)
    assert alone.omissions == ["mean_prompts: another task's mean prompt as a control needs runs of two tasks."]
    assert not any("other_task" in each.quantity for each in alone.numbers)


# The intervals.


def evaluation_set(plan, n: int) -> EvaluationSet:
    return EvaluationSet(dataclasses.replace(plan.task, test=plan.task.test[:n]), 6, n)


def test_each_run_is_left_out_with_all_its_prompts_and_examples_are_drawn(plans):
    generator = np.random.default_rng(3)
    first, second = evaluation_set(plans[0], 9), evaluation_set(plans[2], 5)
    members = [(0, 1), (1, 0), (0, 2), (2, 2), (1, 2)]
    cells = Scored(
        [generator.random((9, 5)[s % 2]) < 0.5 for s in range(5)], [(first, second)[s % 2] for s in range(5)], members
    )
    equal = dataclasses.replace(cells, tasks_equal=True)
    of_task = [np.mean([cells.correct_S[s].mean() for s in chosen]) for chosen in ((0, 2, 4), (1, 3))]
    assert equal.mean == pytest.approx(np.mean(of_task))
    assert equal.on(first).mean == pytest.approx(of_task[0])
    assert equal.on(first, second).mean == equal.mean != cells.on(first, second).mean == cells.mean
    accuracies = [correct_E.mean() for correct_E in cells.correct_S]
    without = [np.mean([a for a, of in zip(accuracies, members, strict=True) if run not in of]) for run in range(3)]
    over_runs = np.sqrt(2 / 3 * ((without - np.mean(without)) ** 2).sum())
    # Without run 1 the first task has prompt 2 alone, without 0 or 2 the second has prompt 3 or 1.
    of_tasks = [
        [[4], [3]],
        [[2], [3]],
        [[0], [1]],
    ]
    task_means = [np.mean([np.mean([accuracies[s] for s in part]) for part in parts]) for parts in of_tasks]
    for scored, left in ((cells, without), (equal, task_means)):
        runs, (error, freedom) = scoring._over_runs(scored)
        assert (runs, freedom) == (3, 2)
        assert error == pytest.approx(np.sqrt(2 / 3 * ((left - np.mean(left)) ** 2).sum()))
    bootstrap = Bootstrap(draws=20, seed=5)
    drawn_B = bootstrap.over_examples(cells)
    for b in range(20):
        drawn = [
            (bootstrap._resampler.examples(of, of.n)[b] / of.n) @ correct
            for correct, of in zip(cells.correct_S, cells.sets_S, strict=True)
        ]
        assert drawn_B[b] == pytest.approx(np.mean(drawn))
    over_examples = np.std(drawn_B) * np.sqrt(14 / 13)
    half = np.hypot(t.ppf(0.975, 2) * over_runs, t.ppf(0.975, 13) * over_examples)
    low, high = bootstrap.interval(cells)
    expected = (cells.mean - half, cells.mean + half)
    ours = wilson(round(cells.mean * 14), 14)
    assert (low, high) == pytest.approx((max(min(expected[0], ours[0]), 0), min(max(expected[1], ours[1]), 1)))
    assert bootstrap.difference(cells, cells).value == 0


def difference(value: float, low: float, high: float, runs: int = 9) -> Difference:
    estimate = Estimate(value, runs, lambda level: (low, high))
    return Difference(Number("d", value, 9, "runs", low, high), estimate)


def test_a_verdict_is_whether_the_interval_holds_zero():
    control = Control("a control", "more", "no difference is detected", "fewer")
    none = "no difference is detected"
    for low, high, meaning in ((0.1, 0.3, "more"), (-0.1, 0.3, none), (0.0, 0.3, none), (-0.3, -0.1, "fewer")):
        assert control.meaning(difference(0.2, low, high)) == meaning
    assert in_points(difference(-0.2, -0.3, -0.1)) == "-20.0 points (-30.0 to -10.0)"
    assert in_percent(Number("a", 0.25, 9, "runs", 0.1, 0.5)) == "25.0% (10.0% to 50.0%)"


def test_alike_is_only_said_within_its_margin_and_few_runs_say_nothing_of_others():
    control = Control("a control", "more", "no difference is detected", "fewer")
    assert control.meaning(difference(0.0, -0.04, 0.04)) == "no difference is detected, alike within 5 points"
    assert control.meaning(difference(0.0, -0.05, 0.04)) == "no difference is detected"
    two = difference(0.2, 0.1, 0.3, runs=2)
    assert control.meaning(two) == "no difference is detected"
    assert two.reach == "; 2 independent runs allow no verdict, 3 would"
    assert difference(0.2, 0.1, 0.3, runs=3).reach == ""
    for runs, whom in ((1, "this run"), (0, "these prompts")):
        alone = difference(0.2, 0.1, 0.3, runs)
        assert control.meaning(alone) == "more"
        assert alone.reach == f"; an interval over test examples, for {whom} alone"


def test_what_was_chosen_by_the_same_numbers_is_judged_at_a_level_adjusted_for_it():
    wide = Estimate(0.0, 9, lambda level: (-0.1, -0.01) if level < 0.96 else (-0.1, 0.01))
    chosen = Difference(Number("d", 0.0, 9, "runs", -0.1, -0.01), wide)
    assert chosen.verdict("more", "neither", "fewer") == "fewer"
    assert chosen.verdict("more", "neither", "fewer", chosen_of=2) == "neither"
    assert chosen.verdict("more", "neither", "fewer", chosen_from=2) == "fewer"


def test_intervals_where_nothing_varies_are_those_of_the_examples(plans):
    nine = evaluation_set(plans[0], 9)
    right, wrong = (Scored([np.full(9, value)] * 4, [nine] * 4, [(r,) for r in range(4)]) for value in (True, False))
    bootstrap = Bootstrap()
    assert bootstrap.interval(right) == wilson(9, 9) and bootstrap.interval(wrong) == wilson(0, 9)
    apart = bootstrap.difference(right, wrong)
    low, high = apart.interval
    # Newcombe 1998, method 10: 1 - sqrt((1 - .7009)^2 + .2991^2), by hand
    assert (apart.value, high) == (1.0, 1.0) and low == pytest.approx(1 - np.sqrt(2) * (1 - wilson(9, 9)[0]), abs=1e-9)
    assert apart.p(0.0) < 0.001 and apart.p(low) == pytest.approx(0.05, abs=1e-6)
    assert apart.adjusted(3)[0] == low and apart.adjusted(3, below=True)[0] < low


def test_runs_that_always_meet_count_once_and_two_alone_say_nothing_of_others(plans):
    nine, generator = evaluation_set(plans[0], 9), np.random.default_rng(0)

    def of(*members):
        return Scored([generator.random(9) < 0.5 for _ in members], [nine] * len(members), list(members))

    bootstrap = Bootstrap()
    assert bootstrap.mean(of((0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4))).runs == 3
    assert bootstrap.mean(of((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1))).runs == 3
    assert bootstrap.mean(of((0, 1), (1, 0))).runs == bootstrap.mean(of(())).runs == 0
    assert bootstrap.mean(of((3,), (3,))).runs == 1
    # Of other runs on either side the fewer count; of none on one side the other's.
    assert bootstrap.difference(of((0,), (1,), (2,)), of((3,), (4,))).runs == 2
    assert bootstrap.difference(of((0,), (1,), (2,)), of(())).runs == 3


def test_runs_that_solve_all_or_nothing_have_the_interval_of_a_count(plans):
    """Runs that are alike hide the other kind: Student's interval holds the mean in 4 of 5 studies of four runs."""
    nine, generator, bootstrap = evaluation_set(plans[0], 9), np.random.default_rng(0), Bootstrap(draws=50)
    held, held_apart = np.zeros(2), np.zeros(2)
    for _ in range(100):
        able = generator.random((2, 4)) < 0.35
        one, other = (
            Scored([np.full(9, yes) for yes in those], [nine] * 4, [(4 * k + r,) for r in range(4)])
            for k, those in enumerate(able)
        )
        for said in (False, True):
            first, second = (dataclasses.replace(each, all_or_none=said) for each in (one, other))
            low, high = bootstrap.interval(first)
            held[int(said)] += low <= 0.35 <= high
            low, high = bootstrap.difference(first, second).interval
            held_apart[int(said)] += low <= 0 <= high
    assert held[0] < 90 and held[1] >= 97, held
    assert held_apart[1] >= 97 and held_apart[1] >= held_apart[0], held_apart
    two = Scored([np.full(9, True), np.full(9, False)], [nine] * 2, [(0,), (1,)], all_or_none=True)
    assert two.where(lambda s: True).all_or_none and bootstrap.interval(two) == (0.0, 1.0)  # Student's


def worlds(n: int, accuracy: float, examples: EvaluationSet, generator) -> Scored:
    """n runs and their examples, both of which differ."""
    effects = generator.normal(size=(n, 1)) + generator.normal(size=examples.n)
    chance = 1 / (1 + np.exp(-np.log(accuracy / (1 - accuracy)) - effects))
    return Scored(list(generator.random((n, examples.n)) < chance), [examples] * n, [(r,) for r in range(n)])


@pytest.mark.parametrize("n", [3, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize("accuracy", [0.03, 0.5])
def test_intervals_hold_the_true_mean_about_as_often_as_they_say(n, accuracy, plans):
    """Percentiles of draws cover 83 % with 3 runs at .5; over runs alone, or examples alone, fewer still."""
    generator, held, apart = np.random.default_rng(0), 0, 0
    nine = evaluation_set(plans[0], 9)
    nine = dataclasses.replace(nine, task=dataclasses.replace(nine.task, test=nine.task.test * 8))
    every = generator.normal(size=(2, 100_000)).sum(0)
    truth = float(np.mean(1 / (1 + np.exp(-np.log(accuracy / (1 - accuracy)) - every))))
    for trial in range(150):
        one, other = (worlds(n, accuracy, nine, generator) for _ in range(2))
        bootstrap = Bootstrap(draws=200, seed=trial)
        low, high = bootstrap.interval(one)
        held += low <= truth <= high
        other = dataclasses.replace(other, runs_S=[(r + n,) for r in range(n)])
        low, high = bootstrap.difference(one, other).interval
        apart += not low <= 0 <= high
    assert held / 150 >= 0.92
    assert apart / 150 <= 0.07


def test_prompts_of_one_evaluation_set_are_scored_together(runs, tiny, monkeypatch):
    calls = []
    real = scoring.evaluate
    monkeypatch.setattr(
        scoring, "evaluate", lambda lm, prompts, *a, **k: calls.append(len(prompts)) or real(lm, prompts, *a, **k)
    )
    transplant(runs, lm=tiny, alphas=(0.5,), max_examples=3)
    assert len(calls) == 2


def test_equal_prompts_of_one_evaluation_set_are_scored_once(plans, tiny, monkeypatch):
    seen = []
    real = scoring.evaluate
    monkeypatch.setattr(
        scoring, "evaluate", lambda lm, prompts, *a, **k: seen.append(len(prompts)) or real(lm, prompts, *a, **k)
    )
    one, other = evaluation_set(plans[0], 3), evaluation_set(plans[2], 4)
    zero, trained = plans[0].p0_Pd.numpy(), Run.load(plans[0].folder).prompt()
    scores = scoring.score(tiny, [zero, trained, zero.astype(np.float64), zero, trained], [one, one, one, other, one])
    assert seen == [2, 1]
    assert [len(correct_E) for correct_E in scores] == [3, 3, 3, 4, 3]
    expected = real(tiny, np.stack([zero, trained]), one.task, max_new_tokens=one.max_new_tokens).correct
    for correct_E, k in zip((*scores[:3], scores[4]), (0, 1, 0, 1), strict=True):
        assert correct_E.tolist() == expected[k].tolist()
