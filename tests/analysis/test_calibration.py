"""Every p, interval and verdict has a truth under some scenario; a few lines' rates; the harness finds what is wrong.

All lines' rates take hours: benchmarks/calibration.py.
"""

import numpy as np
import pytest
from scipy.stats import binomtest

from calibrating import drawing, lines, reports
from calibrating.collecting import Said, fits, names, needs_model, of_result, said, shared
from calibrating.rates import adjusted, powers, rates
from calibrating.scenarios import SCENARIOS, stand_in
from promptgeo.analysis.resampling import clopper_pearson
from promptgeo.analysis.result import Claim, Finding, Outcome, Result

PLACES, SKILLS = ("run and cell", "nothing", "own P0s"), ("planted", "all alike", "same bits")
RARE = 1e-4
"""Of the few rates that are counted here, none is so improbable if it is the nominal one."""


@pytest.mark.long
@pytest.mark.parametrize("name", names())
def test_every_line_of_every_analysis_has_a_truth_or_a_reason_why_not(name):
    scenario = next(s for s in (SKILLS if needs_model(name) else PLACES) if fits(name, SCENARIOS[s]))
    every = said(name, SCENARIOS[scenario], 0)
    assert every, f"{name}: says nothing of {scenario}; give it runs in calibrating/scenarios.py"
    unknown = {
        f"{one.analysis} | {one.kind} | {one.name}"
        for one in every
        if not lines.registered(one.analysis, one.kind, one.name, one.p is not None)
    }
    assert not unknown, "add them to calibrating/lines.py"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "scenario", "line"),
    [
        ("init_vs_task", "init only", "r2.task"),
        ("decoding", "init only", "decoding.task.accuracy"),
        ("similarity", "init only", "same_task"),
    ],
)
def test_a_test_without_its_effect_rejects_in_five_percent(name, scenario, line):
    draws = 60
    ps = [
        next(one.p for one in said(name, SCENARIOS[scenario], seed) if one.kind == "number" and one.name == line)
        for seed in range(draws)
    ]
    rejected = sum(p <= 0.05 for p in ps)
    assert binomtest(rejected, draws, 0.05).pvalue > RARE, f"{rejected} of {draws}"
    assert np.ptp(ps) > 0.5, "a p that hardly varies tests nothing"


@pytest.mark.long
def test_an_effect_of_study_3s_size_is_found():
    for seed in range(3):
        p = {one.line: one.p for one in said("init_vs_task", SCENARIOS["study 3"], seed)}
        assert p["init_vs_task | prompt |  | number | r2.init"] < 0.05
        assert p["init_vs_task | prompt |  | number | r2.task"] < 0.05


# The stand-in.


@pytest.mark.long
@pytest.mark.parametrize(
    ("scenario", "final", "initial"),
    [("planted", (0.85, 1), (0, 0.2)), ("wells", (0.85, 1), (0, 0.2)), ("all alike", (0.3, 0.7), (0.3, 0.7))],
)
def test_prompts_can_do_what_the_scenario_says(scenario, final, initial):
    table = SCENARIOS[scenario].draw(3).table
    assert final[0] <= table["accuracy_final"].mean() <= final[1]
    assert initial[0] <= table["accuracy_initial"].mean() <= initial[1]


def test_a_draw_is_the_same_for_the_same_seed_alone():
    one, again, other = (SCENARIOS["planted"].draw(seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.prompts(), again.prompts())
    assert one.table["accuracy_final"].tolist() == again.table["accuracy_final"].tolist()
    assert not np.array_equal(one.prompts(), other.prompts())


def test_a_word_that_the_stand_in_reads_is_the_word_that_it_writes():
    text = "Input: 12\nLabel: 13\n"
    assert stand_in().decode(stand_in().encode(text)) == text


# Lines.


def test_names_of_tasks_inits_and_counts_are_not_part_of_a_line():
    assert shared("vertices.plus_one.P1.min") == shared("vertices.plus_two.P1.min") == "vertices.*.P#.min"
    assert shared("alpha.0.25") == shared("alpha.1") == "alpha.#"


def test_a_finding_is_named_by_its_number_and_a_claim_by_itself():
    result = Result()
    number = result.number("r2.task", 0.1, 8, "runs", p=0.2)
    result.number("mean", 0.1, 8, "runs")  # neither p nor interval: nothing to be wrong
    result.findings.append(Finding.of(number, "The task explains 10 %."))
    result.claims.append(Claim("task_matters", Outcome.fails, "No."))
    found = of_result("init_vs_task", {"of": "prompt"}, result)
    assert [(one.kind, one.name, one.p, one.outcome) for one in found] == [
        ("number", "r2.task", 0.2, None),
        ("finding", "r2.task", 0.2, None),
        ("claim", "task_matters", None, "does not hold"),
    ]


def test_a_line_that_is_not_registered_is_found():
    assert not lines.registered("init_vs_task", "number", "r2.weather", True)
    assert not lines.registered("init_vs_task", "claim", "weather_matters", False)
    assert lines.reason("mean_distances", "same_task", "paper") and not lines.reason("mean_distances", "same_task")
    assert lines.registered("init_vs_task", "number", "r2.weather", False)  # an interval's truth is its number's mean


# Rates.


def _judged(scenario: str, draws: list[Said]) -> dict[str, tuple[float, str]]:
    return {r.what: (r.rate, r.side) for r in adjusted(rates(scenario, [[one] for one in draws]))}


def test_a_p_that_is_often_small_without_its_effect_is_wrong():
    line = "init_vs_task | prompt |  | number | r2.task"
    uniform = np.random.default_rng(0).uniform(size=400)
    assert _judged("init only", [Said(line, "r2.task", p=p) for p in uniform]) == {"rejects": (0.045, "")}
    assert _judged("init only", [Said(line, "r2.task", p=p / 3) for p in uniform])["rejects"][1] == "WRONG"
    assert _judged("study 3", [Said(line, "r2.task", p=p / 3) for p in uniform]) == {}  # there the effect is


@pytest.mark.parametrize(("half", "side"), [(1.96, ""), (1.2, "WRONG"), (4.0, "careful")])
def test_intervals_are_judged_by_the_mean_over_all_draws(half, side):
    values = np.random.default_rng(1).normal(7.0, 1.0, size=400)
    line = "curves |  |  | number | accuracy.all"
    ((rate, found),) = _judged("planted", [Said(line, "a", v, v - half, v + half) for v in values]).values()
    assert found == side
    low, high = clopper_pearson(round(400 * rate), 400)
    assert (low <= 0.95 <= high) == (side == "")


def test_verdicts_are_judged_by_whether_the_scenario_makes_the_claim_true():
    line = "convexity |  |  | claim | convex"
    for scenario, what, wrong in (("wells", "falsely holds", "holds"), ("planted", "falsely fails", "does not hold")):
        draws = [Said(line, "convex", outcome=wrong if k % 4 == 0 else "not decidable") for k in range(80)]
        assert _judged(scenario, draws) == {what: (0.25, "WRONG")}


def test_the_range_of_a_null_is_judged_by_its_p_alone():
    line = "sequences | prompt | corrected | number | pearson.minimum.how_far"
    draws = [Said(line, "x", value=k / 400, low=0.4, high=0.5, p=k / 400 + 0.001) for k in range(400)]
    assert _judged("position only", draws) == {"rejects": (0.05, "")}


def test_power_is_told_of_what_a_scenario_has_and_only_of_that():
    line = "init_vs_task | prompt |  | number | r2.task"
    found = [Said(line, "r2.task", p=0.01 if k % 4 else 0.5) for k in range(80)]
    ((name, rate, side),) = [(r.what, r.rate, r.side) for r in powers("study 3", [[one] for one in found])]
    assert (name, rate, side) == ("finds", 0.75, "weak")
    assert powers("init only", [[one] for one in found]) == []
    claim = "convexity |  |  | claim | convex"
    held = [Said(claim, "convex", outcome="holds" if k % 10 else "not decidable") for k in range(80)]
    assert [(r.rate, r.side) for r in powers("planted", [[one] for one in held])] == [(0.9, "")]
    nothing_to_find = [Said("sequences | prompt | corrected | number | pearson.minimum", "p", p=0.01)] * 80
    assert powers("study 3", [[one] for one in nothing_to_find]) == []


@pytest.mark.long
def test_draws_that_lie_there_are_not_drawn_again(tmp_path):
    pair = ("decoding", "four runs")
    assert [done for done, *_ in drawing.draw(tmp_path, [pair], 0, 2, processes=1)] == [1]
    assert list(drawing.draw(tmp_path, [pair], 0, 2, processes=1)) == []
    there = drawing.stored(tmp_path, *pair, 2)
    assert [[one.p for one in those] for those in there] == [
        [None if one.p is None else float(f"{one.p:.7g}") for one in said("decoding", SCENARIOS["four runs"], seed)]
        for seed in range(2)
    ]


@pytest.mark.long
@pytest.mark.parametrize(("outcome", "wrong"), [("holds", ["repeating_fails"]), ("not decidable", [])])
def test_a_report_on_null_data_counts_confirmatory_claims_that_hold(monkeypatch, outcome, wrong):
    result = Result(claims=[Claim("repeating_fails", Outcome(outcome), "So.", 0.01, "runs" * (outcome != "holds"))])
    monkeypatch.setattr(reports, "results", lambda name, scenario, seed: [({}, result)] * (name == "repeatable"))
    assert "repeatable_token" in reports.with_claims()
    assert reports.false_claims("repeatable_token", 0) == wrong
