"""Runs of a task beside each other: nulls of equidistance, variances and components from their definitions, Spearman's
exact p, and the study's table."""

from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from promptgeo.analysis.ask import usable_runs
from promptgeo.analysis.geometry import equidistance as nulls
from promptgeo.analysis.geometry.equidistance import equidistance, uncentred, variation
from promptgeo.analysis.geometry.gauge import Gauge
from promptgeo.analysis.geometry.run_variance import beyond_examples, components, of_numbers, scatter
from promptgeo.analysis.geometry.whole_prompts import cells_of, taught
from promptgeo.analysis.question import Convention, declaration
from promptgeo.analysis.questions import stochasticity as question
from promptgeo.analysis.questions.stochasticity import stochasticity
from promptgeo.analysis.resampling import (
    cochran_p,
    jackknife_interval,
    log_jackknife_interval,
    rank_correlation,
    sum_interval,
    variance_interval,
)
from promptgeo.analysis.result import Claim, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.alike import alike
from promptgeo.runs.folder import METRICS_COLUMNS, Trained, write_run
from promptgeo.runs.table import RunTable


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """t-SNE and figures take most of the time: tests that are not about them leave them out."""
    pictures = (test_figures_are_the_same_bytes, test_tasks_of_unequal_length_and_text_are_asked_about_together)
    if request.function not in pictures:
        monkeypatch.setattr(question, "_picture", lambda *args: None)
    if request.function is not test_figures_are_the_same_bytes:
        for name in ("_by_task_figure", "_pictures_figure"):
            monkeypatch.setattr(question, name, lambda *args: "")


STUDY_2 = ("cb", "rte", "copa", "wsc")
P, WIDTH = 6, 24


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def claim(result: Result, name: str) -> Claim:
    (match,) = (claim for claim in result.claims if claim.name == name)
    return match


def placed(kind: str, n: int, generator: np.random.Generator, length: int = P, width: int = WIDTH) -> np.ndarray:
    """[n, P, d]: runs at a simplex' corners, about two centres, or anywhere."""
    size = length * width
    if kind == "simplex":
        points = np.linalg.qr(generator.normal(size=(size, n)))[0].T * np.sqrt(size)
    elif kind == "groups":
        points = generator.normal(size=(2, size))[np.arange(n) % 2] + 0.3 * generator.normal(size=(n, size))
    else:
        points = generator.normal(size=(n, size))
        if kind == "sphere":
            points = points.reshape(n, length, width)
            points /= np.linalg.norm(points, axis=2, keepdims=True)
    return points.reshape(n, length, width)


def made(
    tasks: tuple[str, ...],
    kind: str = "anywhere",
    scale: tuple[float, ...] | None = None,
    seeds: int = 4,
    own: float = 0.0,
    seed: int = 0,
    **columns: float,
) -> RunTable:
    """Text runs of each task; own: as many vocab runs beside them, whose P0s scatter so far."""
    generator = np.random.default_rng(seed)
    rows, initial, final = [], [], []
    for t, task in enumerate(tasks):
        start = generator.normal(size=(P, WIDTH))
        for init in ("text", "vocab") if own else ("text",):
            delta = (scale or (1.0,) * len(tasks))[t] * placed(kind, seeds, generator)
            for s in range(seeds):
                p0 = start + (own * generator.normal(size=start.shape) if init == "vocab" else 0)
                rows.append({"task": task, "init": init, "seed": s, "accuracy_none": 0.1, "accuracy_final": 0.9})
                rows[-1] |= {"accuracy_initial": 0.3 - 0.02 * t, "steps": 40} | columns
                initial.append(p0)
                final.append(p0 + delta[s])
    return RunTable.from_arrays(np.array(final), pd.DataFrame(rows), np.array(initial))


# Equidistance.


def test_the_coefficient_of_variation_by_loops():
    prompts = placed("anywhere", 5, np.random.default_rng(0))
    lengths = [np.linalg.norm(one - other) for one, other in combinations(prompts, 2)]
    found = equidistance(prompts, 50, np.random.default_rng(0))
    assert found.cv == pytest.approx(np.std(lengths, ddof=1) / np.mean(lengths))


@pytest.mark.parametrize("n", [4, 6, 8])
def test_equidistant_runs_and_runs_in_groups_are_told_apart(n):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        at = {kind: equidistance(placed(kind, n, generator), 199, generator) for kind in ("simplex", "groups")}
        assert at["simplex"].closer_p == 1 / 200 and at["simplex"].farther_p > 0.9
        assert at["groups"].farther_p < 0.025 and at["groups"].closer_p > 0.9


@pytest.mark.parametrize(("kind", "rate"), [("sphere", (0.01, 0.12)), ("anywhere", (0.0, 0.05))])
def test_random_runs_are_seldom_called_equidistant_or_grouped(kind, rate):
    """Directions of equal tokens are the null itself; normal tokens, whose norms differ too, vary more."""
    closer, farther = [], []
    for seed in range(120):
        generator = np.random.default_rng(seed)
        found = equidistance(placed(kind, 4, generator), 99, generator)
        closer.append(found.closer_p)
        farther.append(2 * found.farther_p)
    assert rate[0] <= np.mean(np.array(closer) < 0.05) <= rate[1]
    assert np.mean(np.array(farther) < 0.05) <= 0.05


def test_random_signs_of_whole_prompts_would_call_any_runs_equidistant():
    """Why no verdict that runs are equidistant rests on them: their components span 3 dimensions of 4 runs."""
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(20):
        whole = placed("anywhere", 4, generator).reshape(4, 1, -1)
        found = equidistance(whole, 99, generator)
        called += np.mean(found.signs_B <= found.cv) < 0.05
    assert called >= 19


def test_few_normal_numbers_draw_the_products_of_wide_vectors():
    generator = np.random.default_rng(0)
    points = nulls._gaussian_points(4, 30, 20000, generator)
    products = points @ points.transpose(0, 2, 1)
    assert products[:, 0, 0].mean() == pytest.approx(30, rel=0.01)
    assert products[:, 2, 2].var() == pytest.approx(60, rel=0.05)
    assert products[:, 1, 3].mean() == pytest.approx(0, abs=0.15)
    assert products[:, 1, 3].var() == pytest.approx(30, rel=0.05)
    squares = nulls._random_directions(np.ones((3, 2, 50)), 20000, generator)
    cosines = 1 - squares[:, 0, 1] / (2 * 100)
    assert cosines.var() == pytest.approx(1 / 100, rel=0.05)


def test_random_signs_keep_norms_and_centring_is_undone():
    orthogonal = np.diag([3.0, 1.0, 2.0, 1.0])
    centred = orthogonal - orthogonal.mean(0)
    np.testing.assert_allclose(uncentred((centred**2).sum(1)), [9, 1, 4, 1])
    squares = nulls._random_signs(centred[:, None], 4000, np.random.default_rng(0))
    np.testing.assert_allclose(squares.mean(0) + 14 * np.eye(4) >= 0, True)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(squares.mean(0)[off], np.add.outer([9, 1, 4, 1], [9, 1, 4, 1])[off], atol=0.35)
    assert variation(np.zeros((3, 3))) == 0


def test_the_claim_follows_the_distances():
    outcomes = {}
    for kind in ("simplex", "groups", "anywhere"):
        result = stochasticity(made(("a", "b"), kind, seeds=6), permutations=199)
        outcomes[kind] = claim(result, "equidistant").outcome
        assert number(result, "cv").p == claim(result, "equidistant").p
    assert outcomes == {"simplex": Outcome.holds, "groups": Outcome.fails, "anywhere": Outcome.undecidable}
    assert "6 random points in 144 dimensions are nearly equidistant" in result.findings[0].sentence


# Variances.


def test_scatter_is_half_the_mean_squared_distance():
    (cell,), _ = cells_of(made(("a",)), "x")
    squares = [np.sum((one - other) ** 2) for one, other in combinations(cell.prompts_NPd, 2)]
    found = scatter(cell)
    assert found.value == pytest.approx(np.mean(squares) / 2 / P)
    assert found.interval[0] < found.value < found.interval[1]
    assert np.mean(cell.distances_NN[np.triu_indices(4, 1)] ** 2) == pytest.approx(2 * found.value)


def test_intervals_of_variances():
    assert variance_interval(2.0, 3) == pytest.approx(tuple(6 / stats.chi2.ppf([0.975, 0.025], 3)))
    generator, covered = np.random.default_rng(0), {1: 0, 30: 0}
    for size in covered:
        for _ in range(300):
            points = generator.normal(size=(4, size))
            without = np.array([np.delete(points, n, 0).var(0, ddof=1).sum() for n in range(4)])
            low, high = log_jackknife_interval(points.var(0, ddof=1).sum(), without)
            covered[size] += low <= size <= high
    assert all(0.9 <= count / 300 <= 0.99 for count in covered.values()), covered
    low, high = log_jackknife_interval(2.0, np.array([1.0, 2.0, 4.0]))
    assert np.log([low, high]) == pytest.approx(jackknife_interval(np.log(2), np.log([1.0, 2.0, 4.0])))
    with pytest.raises(ValueError, match="positive"):
        log_jackknife_interval(2.0, np.array([1.0, 0.0]))


def test_the_interval_of_a_sum_adds_half_widths_in_squares():
    low, high = sum_interval([5.0, 2.0], [(4.0, 8.0), (1.5, 4.0)], [1.0, -2.0])
    assert (low, high) == pytest.approx((1 - np.hypot(1, 4), 1 + np.hypot(3, 1)))


def test_numbers_of_equal_runs_have_no_variance():
    assert of_numbers([np.full(4, 0.8), np.full(3, 0.6)]) is None
    found = of_numbers([np.array([1.0, 3.0]), np.array([5.0, 5.0, 8.0])])
    assert found is not None and found.value == pytest.approx((2 + 6) / 3) and found.runs == 5


def test_cochrans_q_from_its_definition_and_by_permutation():
    generator = np.random.default_rng(3)
    hard = generator.random(60)
    correct = generator.random((4, 60)) < hard
    correct[0] |= generator.random(60) < 0.3
    columns = correct.sum(1)
    rows = correct.sum(0)
    q = 3 * (4 * (columns**2).sum() - columns.sum() ** 2) / (4 * rows.sum() - (rows**2).sum())
    assert cochran_p(correct) == pytest.approx(stats.chi2.sf(q, 3))
    shuffled = generator.permuted(np.tile(correct, (2000, 1, 1)), axis=1).sum(2)
    by_permutation = np.mean(shuffled.var(1) >= columns.var() - 1e-9)
    assert cochran_p(correct) == pytest.approx(by_permutation, abs=0.03)
    assert cochran_p(np.tile(hard < 0.5, (4, 1))) == 1.0


def test_variance_of_accuracy_beyond_test_examples():
    """Unbiased: runs that are equally good have none on average, others what they were given."""
    for spread in (0.0, 0.1):
        found = []
        for seed in range(300):
            generator = np.random.default_rng(seed)
            skill = spread * generator.normal(size=(4, 1))
            found.append(beyond_examples([generator.random((4, 200)) < np.clip(0.6 + skill, 0, 1)])[0])
        assert np.mean(found) == pytest.approx(spread**2, abs=3 * np.std(found) / np.sqrt(300))


# Components.


def test_the_init_is_what_vocab_scatters_more_than_text():
    runs = made(("a", "b", "c"), own=2.0)
    result = stochasticity(runs, permutations=19)
    assert number(result, "component.order").value == pytest.approx(WIDTH, rel=0.1)
    assert number(result, "component.order").interval[0] < WIDTH < number(result, "component.order").interval[1]
    init = number(result, "component.init")
    assert init.interval[0] < 4 * WIDTH < init.interval[1] and init.interval[0] > 0
    cells, _ = cells_of(runs, "x")
    by = {(cell.task, cell.init): scatter(cell).value for cell in cells}
    assert init.value == pytest.approx(np.mean([by[task, "vocab"] - by[task, "text"] for task in "abc"]))
    assert number(result, "scatter.a").value == pytest.approx(by["a", "text"])  # the table is of text runs


def test_what_runs_do_not_vary_in_is_not_identifiable():
    text = stochasticity(made(("a", "b")), permutations=19)
    assert not [n for n in text.numbers if n.quantity.startswith("component.init")]
    assert any("the init is not identifiable: every init here has one P0" in line for line in text.omissions)
    own = made(("a", "b"), own=1.0).query("init == 'vocab'")
    vocab = stochasticity(own, permutations=19)
    assert not [n for n in vocab.numbers if n.quantity.startswith("component")]
    assert any("the order of the data is not identifiable" in line for line in vocab.omissions)
    assert any("runs with P0s of their own need runs of one P0" in line for line in vocab.omissions)
    without = RunTable.from_arrays(own.prompts(), own.table)
    assert any("the P0s of these runs are not known" in line for line in stochasticity(without).omissions)


# Difficulty.


def test_rank_correlation_is_scipys_with_every_order():
    generator = np.random.default_rng(0)
    for n, ties in ((4, True), (5, False), (6, True)):
        one, other = generator.normal(size=n), generator.normal(size=n)
        one = np.round(one) if ties else one
        found = rank_correlation(one, other, 99, 0)
        rho = stats.spearmanr(one, other).statistic
        every = [stats.spearmanr(one, order).statistic for order in permutations(other)] if n < 6 else None
        assert found.rho == pytest.approx(rho)
        if every is not None:
            assert found.p == pytest.approx(np.mean(np.abs(every) >= abs(rho) - 1e-9))
            assert found.least_p == pytest.approx(np.mean(np.abs(every) >= np.abs(every).max() - 1e-9))
    four, five = (rank_correlation(np.arange(n), np.arange(n), 99, 0) for n in (4, 5))
    assert (four.p, five.p) == pytest.approx((2 / 24, 2 / 120))
    many = rank_correlation(np.arange(10), np.arange(10), 99, 0)
    assert many.p == pytest.approx(0.01)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4), 99, 0).rho)


def test_the_published_table_says_the_opposite_with_cbs_difficulty_right():
    runs = made(STUDY_2)
    for convention, rho in ((Convention.paper, 0.32), (Convention.corrected, -0.32)):
        result = stochasticity(runs, convention=convention, permutations=19)
        found = number(result, "published.spearman")
        assert round(found.value, 2) == rho and found.n == 4
        values = {"cb": 8 if rho > 0 else 18, "rte": 1, "copa": 12, "wsc": 1}
        scatters = {task: number(result, f"variance.{task}").value for task in STUDY_2}
        ours = stats.spearmanr(list(values.values()), list(scatters.values())).statistic
        assert number(result, "spearman.difficulty_variance").value == pytest.approx(ours)
        assert any("61 - 43 = 18 instead of 8" in finding.sentence for finding in result.findings)


def test_four_tasks_decide_nothing_whatever_they_show():
    result = stochasticity(made(STUDY_2, scale=(4.0, 2.0, 3.0, 1.0)), permutations=19)
    for name in ("harder_vary_more", "harder_move_further"):
        found = claim(result, name)
        assert found.outcome is Outcome.undecidable and "at least 5 tasks" in found.needs
    assert any("the least two-sided p is 0.17" in line for line in result.omissions)


@pytest.mark.parametrize(("scale", "outcome"), [((1, 2, 3, 4, 5), Outcome.holds), ((5, 4, 3, 2, 1), Outcome.fails)])
def test_harder_tasks_vary_more_and_move_further(scale, outcome):
    """P0's accuracy falls from task to task, so that later tasks are harder."""
    result = stochasticity(made(tuple("abcde"), scale=scale), permutations=19)
    assert claim(result, "harder_vary_more").outcome is outcome
    assert claim(result, "harder_move_further").outcome is outcome
    assert number(result, "spearman.measured_moved").p == pytest.approx(2 / 120)
    given = {task: -k for k, task in enumerate("abcde")}
    turned = stochasticity(made(tuple("abcde"), scale=scale), difficulty=given, permutations=19)
    assert claim(turned, "harder_move_further").outcome is not outcome
    assert "difficulty as given" in claim(turned, "harder_move_further").evidence


def test_unequal_steps_and_unlearned_tasks_decide_nothing():
    runs = made(tuple("abcde"), scale=(1, 2, 3, 4, 5))
    runs.table.loc[runs.table["task"] == "e", "steps"] = 80
    result = stochasticity(runs, permutations=19)
    assert claim(result, "harder_vary_more").outcome is Outcome.holds
    assert claim(result, "harder_move_further").outcome is Outcome.undecidable
    assert "training.max_steps" in claim(result, "harder_move_further").needs
    failed = made(tuple("abcde"), "simplex", accuracy_final=0.1)
    assert {c.outcome for c in stochasticity(failed, permutations=19).claims} == {Outcome.undecidable}


def _chosen(folder: Path, shares: dict[str, float], examples: int = 100, labels: bool = True) -> RunTable:
    """Four runs of each task: the share of test examples whose likeliest label is right; each other label is "y"."""
    for task, share in shares.items():
        for seed in range(4):
            right = {"none": 0.0, "initial": 0.1, "final": share}
            rows = [
                {"prompt": prompt, "id": i, "input": "a", "label": "xy"[i % 2], "output": "b", "loss": 0.5}
                | {"correct": prompt == "final", "label_correct": (7 * i + seed) % examples < round(examples * part)}
                for prompt, part in right.items()
                for i in range(examples)
            ]
            more = {"labels": {"most_frequent": "x"}} if labels else {}
            _store(folder, task, "task_text", seed, 3, seed, f"What is {task}?", predictions=rows, more=more)
    return usable_runs([str(folder)], None)[0]


def test_a_task_that_is_not_shown_to_beat_the_majority_class_is_in_no_claim(tmp_path):
    """On average .56 of f's labels are right and the most frequent one is .5: 100 examples do not show that."""
    runs = _chosen(tmp_path, dict.fromkeys("abcde", 0.8) | {"f": 0.56})
    good, (sentence,) = taught(runs)
    assert good == list("abcde")
    assert sentence.startswith(
        "f is not shown to be learned: its trained prompts do not beat the majority class (50.0%; +6.0%, "
    )
    result = stochasticity(runs, permutations=19)
    assert any(sentence in line for line in result.omissions)
    assert "20 runs of 5 tasks" in claim(result, "equidistant").evidence and number(result, "scatter.f").value > 0


def test_no_claim_is_about_tasks_of_which_none_is_shown_to_be_learned(tmp_path):
    runs = _chosen(tmp_path, dict.fromkeys("abcde", 0.56))
    assert taught(runs)[0] == []
    claims = stochasticity(runs, permutations=19).claims
    assert {each.outcome for each in claims} == {Outcome.undecidable}
    assert all("none of 5 tasks is shown to be learned" in each.evidence for each in claims)


def test_tasks_without_labels_must_beat_what_they_have(tmp_path):
    runs = _chosen(tmp_path, {"a": 0.56, "b": 0.05}, labels=False)
    good, (sentence,) = taught(runs)
    assert good == ["a"] and sentence.startswith("b is not shown") and "P0 (10.0%; -5.0%" in sentence


# Numbers.


def test_norms_and_distances_moved_grow_with_the_length_in_the_study_alone():
    runs = made(("a", "b"))
    final, initial = runs.prompts()[:4].astype(float), runs.prompts("initial")[:4].astype(float)
    norms = [np.linalg.norm(prompt) for prompt in final]
    moved = np.mean([np.linalg.norm(one - other) for one, other in zip(final, initial, strict=True)])
    apart = np.mean([np.linalg.norm(one - other) for one, other in combinations(final, 2)])
    for convention, unit in ((Convention.paper, 1.0), (Convention.corrected, P**-0.5)):
        result = stochasticity(runs, convention=convention, permutations=19)
        assert number(result, "norm.a").value == pytest.approx(unit * np.mean(norms))
        assert number(result, "variance.a").value == pytest.approx(unit**2 * np.var(norms, ddof=1))
        assert number(result, "moved.a").value == pytest.approx(unit * moved)
        assert number(result, "distance.a").value == pytest.approx(unit * apart)
        squares = np.square(final - final.mean(0)).sum() / 3
        assert number(result, "scatter.a").value == pytest.approx(unit**2 * squares)


# Runs of unequal length, as a command finds them.


def _store(
    folder: Path,
    task: str,
    init: str,
    seed: int,
    length: int,
    order: int,
    text: str | None,
    dropout: bool = False,
    predictions: list[dict] | None = None,
    more: dict | None = None,
) -> None:
    generator = np.random.default_rng([len(task), seed, length])
    start = np.random.default_rng([length, seed if init == "vocab" else 99]).normal(size=(length, 8))
    names = {"model": {"name": "m"}, "task": {"name": task}, "template": {"name": "input_label"}}
    config = names | {"init": {"name": init, "text": text}, "seed": seed, "optimizer": {"lr": 0.01}}
    config |= {"training": {"dropout": dropout}, "prompt": {"length": None if text else length}}
    header = {"id": f"{task}{init}{seed}{length}", "config": config}
    header |= {"seeds": {"init": seed, "order": order, "dropout": seed}}
    final = (start + generator.normal(size=start.shape)).astype(np.float32)
    skill = 0.5 + 0.1 * seed
    correct = np.random.default_rng([seed, 7]).random(40) < skill
    predictions = predictions or [
        {"prompt": "final", "id": i, "input": "a", "label": "b", "output": "b", "correct": bool(each), "loss": 0.5}
        for i, each in enumerate(correct)
    ]
    accuracy = {"none": 0.0, "initial": 0.1, "final": float(correct.mean()), "best": float(correct.mean())}
    results = {"split": "test", "n": 40, "steps": 5, "prompt_length": length, "accuracy": accuracy}
    arrays = {"initial": start.astype(np.float32), "final": final, "best": final}
    metrics = [dict.fromkeys(METRICS_COLUMNS, 0) | {"step": 5, "split": "train"}]
    trained = Trained(
        "completed",
        **arrays,
        trajectory=final[None],
        steps=np.array([5]),
        metrics=metrics,
        predictions=predictions,
        results=results | {"loss": accuracy} | (more or {}),
    )
    write_run(folder / header["id"], header, trained)


@pytest.fixture
def unequal(tmp_path):
    for task, length in (("cb", 5), ("rte", 3)):
        for seed in range(4):
            _store(tmp_path, task, "task_text", seed, length, seed, f"What is {task}?")
            _store(tmp_path, task, "vocab", seed, length, seed, None)
    return tmp_path


def test_tasks_of_unequal_length_and_text_are_asked_about_together(unequal):
    runs, _ = usable_runs([str(unequal)], None)
    (group,) = alike(runs, declaration(stochasticity).factors)
    result = stochasticity(group.runs, permutations=19)
    assert any("unequal lengths (cb 5, rte 3 tokens)" in line for line in result.omissions)
    assert any("dropout is not identifiable: it was off" in line for line in result.omissions)
    assert len(result.tables["distances"]) == 16 * 15 / 2
    by_align = {
        align: number(stochasticity(runs, align=align, permutations=19), "distance.between").value
        for align in ("transport", "mean", "truncate", "pad")
    }
    assert by_align["transport"] == number(result, "distance.between").value and len(set(by_align.values())) == 4
    paper = stochasticity(runs, convention=Convention.paper, permutations=19)
    assert any("compare no two tasks" in line for line in paper.omissions)
    assert not [n for n in paper.numbers if n.quantity == "distance.between"]
    beyond = number(result, "accuracy.beyond.cb")
    assert 0 < beyond.p <= 1 and beyond.value < number(result, "accuracy.variance.cb").value


def test_figures_are_the_same_bytes(unequal):
    runs, _ = usable_runs([str(unequal)], None)
    one, again = (stochasticity(runs, permutations=19).figures for _ in range(2))
    assert one == again and set(one) == {"pictures", "by_task"}
    assert "paired by transport" in one["pictures"] and "MDS, trustworthiness" in one["pictures"]
    assert "distance from P0 / sqrt(P)" in one["by_task"]


def test_an_order_that_runs_share_is_not_what_they_vary_in(tmp_path):
    for seed in range(4):
        _store(tmp_path, "cb", "task_text", seed, 4, 7, "What?", dropout=True)
    runs, _ = usable_runs([str(tmp_path)], None)
    cells, _ = cells_of(runs, "x")
    found = components(runs, cells)
    assert not found.order
    assert found.unknown[0] == "the order of the data is not identifiable in cb: its runs share their order"
    assert "apart from the order" in found.unknown[-1]


def test_what_cannot_be_one_question_is_refused(unequal):
    _store(unequal, "cb", "vocab", 9, 4, 9, None)
    runs, _ = usable_runs([str(unequal)], None)
    with pytest.raises(UserError, match=r"runs of cb have prompts of 4 and 5 tokens.*prompt_length == 4"):
        stochasticity(runs)
    _store(unequal, "rte", "task_text", 9, 3, 9, "Another text?")
    other, _ = usable_runs([str(unequal)], "task == 'rte'")
    with pytest.raises(UserError, match="rte from task_text start from several texts"):
        stochasticity(other)
    few = made(("a", "b"), seeds=2)
    with pytest.raises(UserError, match="no task has 3 runs from one init"):
        stochasticity(few)
    runs = made(("a", "b"))
    with pytest.raises(UserError, match="align=frobenius: must be transport, mean, truncate, pad"):
        stochasticity(runs, align="frobenius")
    with pytest.raises(UserError, match=r"difficulty\.c: no run has this task \(they have a, b\)"):
        stochasticity(runs, difficulty={"c": 1})
    with pytest.raises(UserError, match=r"difficulty\.a=hard: must be a number"):
        stochasticity(runs, difficulty={"a": "hard"})


def test_a_prompt_that_was_trained_twice_counts_once():
    runs = made(("a", "b"))
    again = runs.only([0, *range(8)])
    cells, omissions = cells_of(again, "x")
    assert [len(cell) for cell in cells] == [4, 4]
    assert omissions == ["x: of 5 runs of a from text, 4 have prompts that differ."]


def test_distances_leave_out_what_the_model_ignores_and_norms_do_not():
    generator, both = np.random.default_rng(1), Gauge(shift=True, scale=True)
    plain = made(("a", "b"))
    prompts_NPd, initial_NPd = plain.prompts("final").astype(float), plain.prompts("initial").astype(float)
    factors, shifts = generator.uniform(0.5, 2, (8, P, 1)), generator.normal(size=(8, P, 1))
    moved = RunTable.from_arrays(factors * prompts_NPd + shifts, plain.table, initial_NPd)
    one, other = (stochasticity(runs, gauge=both, permutations=99) for runs in (plain, moved))
    for quantity in ("distance.a", "scatter.b", "moved.a", "cv", "component.order"):
        assert number(one, quantity).value == pytest.approx(number(other, quantity).value, rel=1e-5), quantity
    assert number(one, "norm.a").value != pytest.approx(number(other, "norm.a").value, rel=1e-2)
    assert any("ignores a prompt token's scale and shift (measured" in line for line in one.omissions)

    centred_NPd = prompts_NPd - prompts_NPd.mean(-1, keepdims=True)
    centred_NPd /= np.linalg.norm(centred_NPd, axis=-1, keepdims=True)
    apart = [np.linalg.norm(centred_NPd[i] - centred_NPd[j]) / np.sqrt(P) for i, j in combinations(range(4), 2)]
    assert number(one, "distance.a").value == pytest.approx(np.mean(apart), rel=1e-5)

    unknown, paper = (
        stochasticity(moved, permutations=99),
        stochasticity(moved, gauge=both, convention=Convention.paper),
    )
    assert any("the model is not at hand" in line for line in unknown.omissions)
    assert number(paper, "distance.a").value == pytest.approx(number(unknown, "distance.a").value * np.sqrt(P))
