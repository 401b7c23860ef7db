"""matched: which prompts are compared, by hand; what the rate alone causes is told from a real difference; calibrated.

Shapes: N runs, P prompt tokens, d width, K rates, G chosen prompts, C cells.
"""

import numpy as np
import pandas as pd
import pytest

from promptgeo.analysis.geometry.between_rates import Chosen
from promptgeo.analysis.geometry.matching import Among, matched_points, points_of
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.question import Of
from promptgeo.analysis.questions.matched import matched
from promptgeo.analysis.resampling import holm, sign_flip_p, sign_flips_needed, swap_p
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, Trained, write_run
from promptgeo.runs.table import RunTable, table_of

WIDTH, LENGTH, INITS, TASKS = 48, 2, ("cat", "dog", "book"), ("t0", "t1", "t2")
RATES, STEPS = (0.5, 1.0), (1, 2, 3, 4, 5, 6)
VOCABULARY = Vocabulary(
    np.random.default_rng(9).normal(size=(20, WIDTH)).astype(np.float32), [*INITS, *(f"w{i}" for i in range(17))]
)


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def planted(seed=0, junk=0.0, own_way=0.0, tasks=TASKS) -> RunTable:
    """Trainings that go straight on, by rate x step; their accuracy is how far they came along the task's direction.

    junk: how far the higher rate also moves sideways, each training in a direction of its own, for each unit of way.
    own_way: at the higher rate, the part of the way that is the init's instead of the task's, at the same distance.
    """
    generator = np.random.default_rng(seed)

    def direction():
        way_Pd = generator.normal(size=(1, WIDTH)).repeat(LENGTH, 0)
        return way_Pd / np.linalg.norm(way_Pd)

    of_task, of_init = {t: direction() for t in tasks}, {i: direction() for i in INITS}
    rows, prompts, starts = [], [], []
    for k, init in enumerate(INITS):
        start_Pd = VOCABULARY.embeddings_Vd[[k] * LENGTH] / np.linalg.norm(VOCABULARY.embeddings_Vd[[k] * LENGTH])
        for task in tasks:
            own_Pd, aside_Pd = direction(), direction()
            for rate in RATES:
                high = rate == max(RATES)
                for step in STEPS:
                    way = 0.4 * rate * step
                    turn = own_way if high else 0.0
                    ahead_Pd = np.sqrt(1 - turn**2) * of_task[task] + turn * of_init[init] + 0.3 * own_Pd
                    prompts.append(start_Pd + way * ahead_Pd + (junk * way * aside_Pd if high else 0.0))
                    starts.append(start_Pd)
                    # On a test set of 40: what a training of so many steps solves.
                    solved = round(40 * min(way / 1.2, 1.0)) / 40
                    rows.append((task, init, 0, rate, step, solved, 0.0))
    columns = ["task", "init", "seed", "lr", "steps", "accuracy_final", "accuracy_initial"]
    return RunTable.from_arrays(np.stack(prompts), pd.DataFrame(rows, columns=columns), np.stack(starts))


def asked(runs: RunTable, of=Of.prompt, **options) -> Result:
    return matched(runs, of=of, vocabulary=VOCABULARY, **options)


def test_one_point_of_each_rate_is_chosen_by_hand():
    points = points_of(planted())
    assert points.rates == [0.5, 1.0] and not points.in_units and points.split == "test"

    def steps(among, tolerance=0.05):
        chosen = matched_points(points, among, tolerance)
        assert len(chosen.chosen_UK) == chosen.units == 9 and not chosen.left_out
        return {tuple(points.table["step"].iloc[row]) for row in chosen.chosen_UK}

    # Ways are .2 s and .4 s; the slow rate ends at 1.2, where it solves all, as the fast one does from step 3 on.
    assert steps(Among.end) == {(6, 6)}
    assert steps(Among.accuracy) == {(6, 3)}
    assert steps(Among.distance, 0.2) == {(6, 3)}
    moved = points.table[points.table["rate"] == 1.0].groupby("step")["moved"].mean()
    assert moved[6] == pytest.approx(2 * moved[3])


def test_units_without_equals_are_left_out_and_said():
    runs = planted()
    lame = (runs.table["init"] == "cat") & (runs.table["task"] == "t0") & (runs.table["lr"] == 0.5)
    runs.table.loc[lame, "accuracy_final"] = 0.04  # no better than P0, within the tolerance
    jump = (runs.table["init"] == "dog") & (runs.table["lr"] == 1.0)
    runs.table.loc[jump, "accuracy_final"] = np.where(runs.table.loc[jump, "steps"] < 6, 0.8, 1.0)
    runs.table.loc[jump & (runs.table["steps"] == 6), "accuracy_final"] = 0.9
    slow = (runs.table["init"] == "dog") & (runs.table["lr"] == 0.5)
    runs.table.loc[slow, "accuracy_final"] = 0.7  # .1 from the nearest of the other rate
    chosen = matched_points(points_of(runs), Among.accuracy, 0.05)
    assert len(chosen.chosen_UK) == 5 and chosen.units == 9
    assert chosen.left_out[0] == "t0 from cat (some rate reaches 0.04 at most, an untrained prompt or none 0.00)"
    assert chosen.left_out[1] == "t0 from dog (no point of rate 1 is within 0.05 of 0.70)"
    result = asked(runs)
    assert any("4 of 9 trainings" in line for line in result.omissions)
    (claim,) = result.claims
    assert claim.outcome is Outcome.undecidable and claim.needs.startswith("6 cells")


def test_what_only_the_distance_causes_is_gone_at_equal_accuracy():
    result = asked(planted())
    unmatched = number(result, "init_closer.end.change")
    assert unmatched.value < -0.3 and unmatched.p < 0.01
    for among in ("equal_accuracy", "equal_distance"):
        for quantity in ("init_closer", "distance_to_init", "r2.init", "moved", "nearest"):
            change = number(result, f"{quantity}.{among}.change")
            assert abs(change.value) < 1e-6 and change.p == 1.0 and change.n == 9, quantity
    assert number(result, "moved.end.lr1").value == pytest.approx(2 * number(result, "moved.end.lr0.5").value)
    (claim,) = result.claims
    assert claim.outcome is Outcome.fails and "does not depend on the rate by more than 0.05" in claim.evidence
    answers = result.tables["answers"].set_index(["among", "claim", "rate"])["outcome"]
    assert answers["end", "init_closer", 0.5] != answers["end", "init_closer", 1.0]
    assert answers["equal_accuracy", "init_closer", 0.5] == answers["equal_accuracy", "init_closer", 1.0]


def test_a_rate_that_goes_astray_lies_farther_at_equal_accuracy_but_not_at_equal_distance():
    result = asked(planted(junk=3.0))
    change = number(result, "distance_to_init.equal_accuracy.change")
    assert change.value > 0.2 and change.low > 0 and change.p == pytest.approx(2 / 2**9)
    assert number(result, "moved.equal_accuracy.lr1").value > 2.5 * number(result, "moved.equal_accuracy.lr0.5").value
    # As far from P0, the fast rate is as far from its init: how far it moved is all there is to that.
    assert abs(number(result, "distance_to_init.equal_distance.change").value) < 0.1 * change.value


def test_a_real_difference_stays_at_equal_distance():
    result = asked(planted(own_way=0.95), tolerance=0.05)
    for among in ("equal_accuracy", "equal_distance"):
        change = number(result, f"init_closer.{among}.change")
        assert change.value > 0.2 and change.p == pytest.approx(2 / 2**9), among
        assert abs(number(result, f"moved.{among}.change").value) < 0.1
    of_delta = number(asked(planted(own_way=0.95), Of.delta), "r2.init.equal_accuracy.change")
    assert of_delta.value > 0.3 and of_delta.p < 0.01
    assert result.claims[0].outcome is Outcome.holds


def test_too_few_cells_decide_nothing_and_say_how_many_would():
    result = asked(planted(junk=3.0).query("init != 'book' and task != 't2'"))
    assert number(result, "init_closer.equal_accuracy.change").n == 4
    (claim,) = result.claims
    assert claim.outcome is Outcome.undecidable and "6 cells" in claim.needs
    assert all("4 cells are too few" in f.sentence for f in result.findings if "cannot be said" in f.sentence)
    assert set(result.tables["answers"]["outcome"]) == {"not decidable"}


@pytest.mark.parametrize(
    "options", [{"tolerance": -1}, {"distance_tolerance": -0.1}, {"margin": -1}, {"epsilon": 0}, {"epsilon": 3}]
)
def test_options_that_mean_nothing_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=rf"^matched: {name}={value}: "):
        asked(planted(), **options)


def test_one_rate_or_none_is_refused():
    with pytest.raises(UserError, match="at least 2 learning rates"):
        asked(planted().query("lr == 1"))
    with pytest.raises(UserError, match="at least 2 inits"):
        asked(planted().query("init == 'cat'"))


def test_a_checkpoint_counts_only_where_the_schedule_is_constant(tmp_path):
    generator = np.random.default_rng(0)
    runs = []
    for name, schedule in (("a", "constant"), ("b", "linear")):
        initial, *kept = generator.normal(size=(4, LENGTH, WIDTH)).astype(np.float32)
        config = {"model": {"name": "m"}, "task": {"name": "t"}, "init": {"name": name}, "template": {"name": "x"}}
        config |= {"seed": 0, "optimizer": {"lr": None, "lr_in_embedding_units": 0.3, "schedule": schedule}}
        metrics = [
            {"step": step, "epoch": 1, "split": split, "accuracy": step / 10 + (split == "test") / 2, "n": 4}
            for step in (0, 2, 3)
            for split in ("validation", "test")
        ]
        results = {"split": "test", "n": 4, "steps": 3, "prompt_length": LENGTH, "accuracy": {"initial": 0.0}}
        trained = Trained(
            "completed", initial, np.stack(kept), np.array([1, 2, 3]), kept[-1], kept[-1], metrics, [], results
        )
        write_run(tmp_path / name, {"id": name, "config": config}, trained)
        runs.append(Run.load(tmp_path / name))
    points = points_of(table_of(runs))
    steps = points.table.groupby("init")["step"].apply(list)
    assert steps["a"] == [1, 2, 3] and steps["b"] == [3]
    assert points.in_units and points.split == "validation" and points.finals_only == 1
    own = points.table[points.table["init"] == "a"]["accuracy"].tolist()
    assert np.isnan(own[0]) and own[1:] == [0.2, 0.3]  # not the test examples' .7 and .8


def grid(seed: int, inits=3, tasks=2, rates=2, seeds=1) -> Chosen:
    """Strong P0s, tasks and trainings, and a rate that does nothing."""
    generator = np.random.default_rng(seed)
    task_U = np.tile(np.repeat(np.arange(tasks), seeds), inits)
    init_U = np.repeat(np.arange(inits), tasks * seeds)

    def draw(n):
        return generator.normal(size=(n, 1, 32))

    own = draw(inits)[init_U] + 0.7 * draw(tasks)[task_U] + 0.5 * draw(len(task_U))
    vectors = own[:, None] + 0.5 * generator.normal(size=(len(task_U), rates, 3, 32))
    return Chosen(vectors.reshape(-1, 3, 32), np.repeat(task_U, rates), np.repeat(init_U, rates), rates)


@pytest.mark.parametrize("shape", [{}, {"inits": 2, "tasks": 3, "seeds": 2}, {"inits": 4, "tasks": 2}])
def test_a_rate_that_does_nothing_is_found_to_change_something_in_5_percent(shape):
    rejected = {"init_closer": 0, "r2.init": 0, "r2.task": 0}
    draws = 300
    for seed in range(draws):
        chosen = grid(seed, **shape)
        statistics = {"init_closer": chosen.init_closer(), "r2.init": chosen.share("init")}
        statistics["r2.task"] = chosen.share("task")
        for name, statistic in statistics.items():
            rejected[name] += chosen.change(statistic, 500, seed)[2] < 0.05
    assert max(rejected.values()) / draws <= 0.07, rejected


def test_init_closer_at_a_rate_covers_what_many_trainings_of_these_cells_give():
    """Fixed tasks and inits: trainings are drawn anew."""
    generator = np.random.default_rng(0)
    task_G, init_G = np.tile(np.arange(3), 3), np.repeat(np.arange(3), 3)
    own = generator.normal(size=(3, 1, 32))[init_G] + generator.normal(size=(3, 1, 32))[task_G]
    values, covered = [], []
    for _ in range(300):
        vectors = own + 0.7 * generator.normal(size=(9, 1, 32)) + 0.5 * generator.normal(size=(9, 3, 32))
        chosen = Chosen(vectors, task_G, init_G, 1)
        values.append(chosen.at(chosen.init_closer(), 0))
    truth = float(np.mean([value for value, _ in values]))
    covered = [low <= truth <= high for _, (low, high) in values]
    assert np.mean(covered) >= 0.93


def test_swaps_of_a_mean_are_sign_flips():
    differences = np.random.default_rng(0).normal(0.6, 1, 9)
    by_swaps = swap_p(lambda swaps_BU: np.where(swaps_BU, -1.0, 1.0) @ differences / 9, 9)
    assert by_swaps == sign_flip_p(differences)
    assert sign_flips_needed() == 6 and sign_flips_needed(0.01) == 8
    assert swap_p(lambda swaps_BU: np.full(len(swaps_BU), np.nan), 9) == 1.0


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_how_far_from_a_p0_of_zero_is_not_known_and_refused_in_one_line():
    runs = planted()
    zero = RunTable.from_arrays(runs.prompts(), runs.table, np.zeros_like(runs.prompts()))
    chosen = matched_points(points_of(zero), Among.distance, 0.2)
    assert not len(chosen.chosen_UK) and "no moved is known at some rate" in chosen.left_out[0]
    with pytest.raises(UserError, match="a prompt token is zero"):
        asked(zero)
