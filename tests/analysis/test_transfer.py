"""Transfer between tasks: scores one prompt at a time, statistics from their definitions, planted and null matrices."""

import itertools
import weakref
from dataclasses import replace
from math import factorial

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm, spearmanr
from transformers import AutoModelForCausalLM

import promptgeo as pg
import reference
from promptgeo.analysis.geometry import transfer_scores
from promptgeo.analysis.geometry.alignment import Align, distance
from promptgeo.analysis.geometry.task_likeness import label_likeness, likenesses
from promptgeo.analysis.geometry.transfer_matrix import (
    Correlation,
    Prediction,
    Predictions,
    error_over_tasks,
    improving,
    mean_gain,
    predictions,
)
from promptgeo.analysis.geometry.transfer_scores import EXACT, LABEL, Transfers, all_scores
from promptgeo.analysis.question import Convention
from promptgeo.analysis.questions import transfer as question
from promptgeo.analysis.questions.transfer import Part, transfer
from promptgeo.analysis.resampling import clopper_pearson, t_quantile
from promptgeo.analysis.result import Outcome, Result
from promptgeo.analysis.scoring import Bootstrap, EvaluationSet, evaluation_sets
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

RARE = 1e-4
"""Of the few rates that are counted here, none is so improbable if it is the nominal one."""


def numbers(result: Result) -> dict:
    return {number.quantity: number for number in result.numbers}


def pairs_of(tasks: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(tasks) for j in range(tasks) if i != j]


def drawn(seed: int, tasks: int = 6, known: float = 0.0, row: float = 1.0, column: float = 1.0, shift: float = 0.0):
    """(gains, likenesses a, b and c): gains have source and target effects, and a's likeness where it is `known`."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(3, tasks, 8))
    alike = {name: -np.linalg.norm(x[:, None] - x, axis=2) for name, x in zip("abc", points, strict=True)}
    gains = row * generator.normal(size=(tasks, 1)) + column * generator.normal(size=tasks)
    gains = gains + known * alike["a"] + 0.5 * generator.normal(size=(tasks, tasks)) + shift
    return gains, alike


# Statistics of a matrix.


def test_an_interval_leaves_out_tasks_and_takes_pairs_that_lie_in_two_of_them_once():
    gains, _ = drawn(0, tasks=5)
    estimate, values = mean_gain(gains), []
    for k in range(5):
        values.append(np.mean([gains[i, j] for i, j in pairs_of(5) if k not in (i, j)]))
    both = [
        np.mean([gains[i, j] for i, j in pairs_of(5) if {i, j} != set(pair)])
        for pair in itertools.combinations(range(5), 2)
    ]
    variance, of_pairs = ((len(x) - 1) * np.var(x) for x in (values, both))
    assert of_pairs < variance / 2
    half = t_quantile(0.975, 4) * np.sqrt(variance - of_pairs)
    assert estimate.value == pytest.approx(np.mean([gains[i, j] for i, j in pairs_of(5)]))
    assert estimate.interval == pytest.approx((estimate.value - half, estimate.value + half))


def test_pairs_without_effects_of_tasks_vary_by_pairs_at_least():
    gains = np.zeros((4, 4))
    gains[0, 1] = gains[2, 3] = 1.0  # each task has one pair: no task left out says less than another
    error = error_over_tasks(lambda pairs: float(gains[pairs].mean()), 4)
    both = [
        np.mean([gains[i, j] for i, j in pairs_of(4) if {i, j} != set(pair)])
        for pair in itertools.combinations(range(4), 2)
    ]
    assert error.standard == pytest.approx(np.sqrt(5 * np.var(both))) and error.freedom == 3


def test_a_share_counts_what_is_more_than_equal_and_knows_no_more_than_its_tasks():
    gains = np.full((6, 6), 0.1)
    assert improving(gains).value == 1.0 and improving(gains).interval == clopper_pearson(6, 6)
    assert improving(gains).p(0.5) == pytest.approx(2 * 0.5**6, rel=1e-3)
    gains[0] = 0.0
    gains[1, 0] = -0.1
    assert improving(gains).value == 24 / 30
    low, high = improving(gains).interval
    assert low < 0.5 < 0.8 < high <= 1
    assert improving(gains[:3, :3]).runs == 0  # without one of three tasks there are the pairs of two


def test_a_correlation_is_spearmans_and_its_p_goes_through_all_orders_of_whole_tasks():
    gains, alike = drawn(1, known=0.3)
    found = predictions(alike, gains, permutations=720, seed=0)
    of = pairs_of(6)
    for name, values in list(alike.items())[:1]:
        rho = spearmanr([values[p] for p in of], [gains[p] for p in of]).statistic
        null = np.array(
            [
                spearmanr([values[order[i], order[j]] for i, j in of], [gains[p] for p in of]).statistic
                for order in itertools.permutations(range(6))
            ]
        )
        assert len(null) == factorial(6)
        extreme = min((null >= rho - 1e-12).sum(), (null <= rho + 1e-12).sum()) - 1  # the given order is one of them
        assert found.by_name[name].plain.value == pytest.approx(rho)
        assert found.by_name[name].plain.p == pytest.approx(min(2 * (1 + extreme) / 720, 1))
    without = [spearmanr(*([x[p] for p in of if k not in p] for x in (alike["a"], gains))).statistic for k in range(6)]
    assert (found.by_name["a"].plain.lowest, found.by_name["a"].plain.highest) == pytest.approx(
        (min(without), max(without))
    )


def test_beyond_sources_and_targets_nothing_of_a_single_task_counts():
    gains, alike = drawn(2, known=0.3, row=0.0, column=0.0)
    generator = np.random.default_rng(5)
    more = 10 * generator.normal(size=(6, 1)) + 10 * generator.normal(size=6)
    plain, other = (predictions(alike, x, 720, 0).by_name["a"] for x in (gains, gains + more))
    assert other.beyond.value == pytest.approx(plain.beyond.value) and other.beyond.p == plain.beyond.p
    assert abs(other.plain.value - plain.plain.value) > 0.1
    moved = np.repeat(generator.normal(size=(6, 1)), 6, axis=1)
    assert predictions({"moved": moved}, gains, 720, 0).by_name["moved"].beyond is None


def test_what_a_known_likeness_decides_is_found_by_it_and_not_by_the_others():
    found = {name: [] for name in "abc"}
    best = []
    for seed in range(10):
        gains, alike = drawn(100 + seed, known=1.0, row=0.5, column=0.5)
        predicted = predictions(alike, gains, 400, seed)
        best.append((predicted.best, predicted.best_p < 0.05))
        for name, each in predicted.by_name.items():
            found[name].append(each.beyond.p < 0.05 and each.plain.p < 0.05)
    assert sum(found["a"]) >= 8 and sum(found["b"]) <= 2 and sum(found["c"]) <= 2
    assert best.count(("a", True)) >= 8


@pytest.mark.parametrize(
    ("tasks", "draws", "names"), [(6, 40, "a"), pytest.param(8, 60, "abc", marks=pytest.mark.long)]
)
def test_without_a_likeness_that_counts_p_and_intervals_are_as_rare_as_they_say(tasks, draws, names):
    """Sources and targets differ: 1 and 1 beside a noise of .5 of single pairs."""
    every = []
    for seed in range(draws):
        gains, alike = drawn(seed, tasks)
        every.append(predictions({name: alike[name] for name in names}, gains, 199, seed))
    for kind in ("plain", "beyond"):
        those = [getattr(each.by_name["a"], kind) for each in every]
        for wrong in ([each.p <= 0.05 for each in those], [each.low > 0 or each.high < 0 for each in those]):
            assert binomtest(sum(wrong), draws, 0.05, alternative="greater").pvalue > RARE
        assert np.ptp([each.p for each in those]) > 0.5
    assert binomtest(sum(each.best_p <= 0.05 for each in every), draws, 0.05, alternative="greater").pvalue > RARE


def test_intervals_of_shares_and_means_hold_what_other_tasks_would_give():
    for shift in (0.0, 1.5):
        share = norm.cdf(shift / 1.5)  # 1 + 1 + .25: the variances of sources, targets and single pairs
        found = [(improving(gains), mean_gain(gains)) for gains in (drawn(seed, shift=shift)[0] for seed in range(60))]
        for truth, those in zip((share, shift), zip(*found, strict=True), strict=True):
            missed = sum(not each.interval[0] <= truth <= each.interval[1] for each in those)
            assert binomtest(missed, 60, 0.05, alternative="greater").pvalue > RARE


def test_four_tasks_have_no_p():
    gains, alike = drawn(3, tasks=4, known=5.0)
    found = predictions(alike, gains, 720, 0)
    assert found.by_name["a"].plain.p is None and found.best is None
    assert "4 tasks can be exchanged in 24 ways" in question.orders_of(4)


def test_a_likeness_that_is_the_same_for_all_pairs_or_not_known_is_left_out():
    gains, alike = drawn(4)
    holes = alike["b"].copy()
    holes[0, 1] = np.nan
    found = predictions({"a": alike["a"], "equal": np.ones((6, 6)), "holes": holes}, gains, 99, 0)
    assert list(found.by_name) == ["a"]
    assert predictions(alike, np.zeros((6, 6)), 99, 0) == Predictions({}, None, None)


# Likenesses.


def test_likenesses_are_means_over_runs_of_prompts_of_any_length():
    generator = np.random.default_rng(0)
    prompts, starts = ([generator.normal(size=(p, 4)) for p in (2, 3, 3, 5)] for _ in range(2))
    tasks = np.array([0, 0, 1, 1])
    alike = likenesses(prompts, starts, tasks, Align.transport)
    assert next(iter(alike)) == "transport" and "token_cosine" not in alike
    by_hand = -np.mean([distance(prompts[n], prompts[m]) for n in (0, 1) for m in (2, 3)])
    assert alike["transport"][0, 1] == pytest.approx(by_hand) == pytest.approx(alike["transport"][1, 0])
    deltas = [(p - q).mean(0) for p, q in zip(prompts, starts, strict=True)]
    cosine = [
        deltas[n] @ deltas[m] / np.linalg.norm(deltas[n]) / np.linalg.norm(deltas[m]) for n in (0, 1) for m in (2, 3)
    ]
    assert alike["delta_cosine"][0, 1] == pytest.approx(np.mean(cosine))
    moved = [np.linalg.norm(p - q) / np.sqrt(len(p)) for p, q in zip(prompts, starts, strict=True)]
    assert alike["moved"][1].tolist() == pytest.approx([-np.mean(moved[2:])] * 2)
    before = [distance(starts[n], starts[m]) for n in (0, 1) for m in (2, 3)]
    assert alike["p0"][0, 1] == pytest.approx(-np.mean(before))
    equal = likenesses([p[:2] for p in prompts], [p[:2] for p in starts], tasks, Align.truncate)
    tokens = [(prompts[n][k], prompts[m][k]) for n in (0, 1) for m in (2, 3) for k in range(2)]
    cosine = [p @ q / np.linalg.norm(p) / np.linalg.norm(q) for p, q in tokens]
    assert equal["token_cosine"][0, 1] == pytest.approx(np.mean(cosine)) and next(iter(equal)) == "truncate"


def test_outputs_differ_by_jensen_and_shannon_over_the_targets_label_set():
    """Who says the opposite of the target's own prompts lies 1 bit away, who says the same 0."""
    sure = [np.array([[0.0, 50.0]] * 3), np.array([[50.0, 0.0]] * 3)]
    losses = [[sure[0], sure[1]], [sure[0], sure[0]]]
    found = label_likeness(losses, np.array([0, 1]))
    assert found == pytest.approx(np.array([[0.0, -1.0], [0.0, 0.0]]), abs=1e-6)


# What is said of it.


def made(own: float, others: float, none: float, tasks: int = 6, seed: int = 0, measure: str = LABEL) -> Transfers:
    """Prompts that solve so much of their own tasks and of others, at random; P0s and no prompt as much as `none`."""
    generator = np.random.default_rng(seed)
    task_N = np.repeat(np.arange(tasks), 2)

    def answers(share: float) -> np.ndarray:
        return generator.random(200) < share

    sets = [EvaluationSet(Task(f"t{t}", [], [], [None] * 200, None), 4, 200) for t in range(tasks)]
    trained = [[answers(own if t == n else others) for t in range(tasks)] for n in task_N]
    initial = [[answers(none) for _ in range(tasks)] for _ in task_N]
    return Transfers(
        measure, [f"t{t}" for t in range(tasks)], task_N, sets, trained, initial, [answers(none) for _ in range(tasks)]
    )


def part_of(transfers: Transfers, learned: list[int] | None = None, alike: dict | None = None) -> Part:
    learned = list(range(len(transfers.tasks))) if learned is None else learned
    return question._part(Result(), transfers, learned, alike or {}, 720, 0, "")


@pytest.mark.parametrize(
    ("others", "none", "tasks", "learned", "outcome", "needs"),
    [
        (0.9, 0.5, 6, None, Outcome.holds, ""),
        (0.3, 0.5, 6, None, Outcome.fails, ""),
        (0.5, 0.5, 6, None, Outcome.undecidable, "more tasks"),
        (0.9, 0.5, 3, None, Outcome.undecidable, "more tasks"),
        (0.9, 0.5, 6, [2], Outcome.undecidable, "learned their task"),
        (0.9, 0.0, 6, None, Outcome.undecidable, "label set"),
    ],
)
def test_most_transfers_improve_if_learned_prompts_beat_a_baseline_that_can_be_right(
    others, none, tasks, learned, outcome, needs
):
    part = part_of(made(0.95, others, none, tasks), learned)
    claim = question._improve_claim(part, question._improve_finding(part))
    assert claim.outcome is outcome and needs in claim.needs


def test_what_is_true_by_exact_match_because_nothing_is_written_without_a_prompt_is_called_trivial():
    trivial, fair = (question._exact_finding(part_of(made(0.9, 0.6, none, measure=EXACT))) for none in (0.01, 0.3))
    assert "trivially true" in trivial.sentence and "means something" in fair.sentence


@pytest.mark.parametrize(
    ("plain", "beyond", "outcome"),
    [
        ((0.6, 0.2, 0.9, 0.01), (0.5, 0.1, 0.9, 0.02), Outcome.holds),
        ((0.6, 0.2, 0.9, 0.01), (0.3, -0.3, 0.9, 0.3), Outcome.undecidable),  # of sources and targets alone
        ((-0.6, -0.9, -0.2, 0.01), (-0.5, -0.9, -0.1, 0.02), Outcome.fails),
        ((0.3, -0.2, 0.8, 0.2), (0.3, -0.2, 0.8, 0.2), Outcome.undecidable),
    ],
)
def test_similar_prompts_transfer_better_if_they_do_beyond_sources_and_targets(plain, beyond, outcome):
    prediction = Prediction(*(Correlation(*values, 0.0, 0.0) for values in (plain, beyond)))
    part = replace(part_of(made(0.9, 0.6, 0.5)), predicted=Predictions({"transport": prediction}, None, None))
    assert question._similar_claim(part, "transport", "So.").outcome is outcome
    four = replace(part, learned=[0, 1, 2, 3])
    claim = question._similar_claim(four, "transport", "So.")
    assert claim.outcome is Outcome.undecidable and "24 ways" in claim.needs


# On a model.

LABELLED = "word,kind\n" + "".join(f"{w}{k},{'small' if k < 6 else 'large'}\n" for w in ("a", "b") for k in range(12))


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Two tasks with label sets, whose prompts have two and three tokens; two runs each."""
    out = tmp_path_factory.mktemp("transfer")
    (out / "kinds.csv").write_text(LABELLED)
    custom = [
        "task=custom",
        f"task.source.path={out / 'kinds.csv'}",
        "task.source.input=word",
        "task.source.label=kind",
        "task.labels=[small,large]",
        "task.name=kinds",
        "prompt.length=2",
    ]
    shared = ["init=vocab", "training.max_steps=3", "evaluation.every=end", "template.longer_labels=warn"]
    shared += ["task.split.max_train=16", "task.split.max_test=7", "evaluation.max_new_tokens=4"]
    made = [
        reference.make_plan(TINY, out, *task, f"seed={seed}", *shared)
        for task in (["task=sentiment", "prompt.length=3"], custom)
        for seed in (0, 1)
    ]
    for pack in (made[:2], made[2:]):  # prompts of one length train together
        assert train_pack(pack) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def corrected(runs, plans):
    return transfer(runs, lm=plans[0].lm, max_examples=5)


def scored_alone(plans, runs, prompt_Pd, target: int):
    """Of one prompt on a target's examples, by evaluate(), with the target's whole label set."""
    chosen = evaluation_sets(runs, "transfer", 5, 0)[2 * target].task.test
    task = replace(plans[2 * target].task, test=chosen)
    return pg.evaluate(plans[0].lm, prompt_Pd[None], task, max_new_tokens=4)


@pytest.mark.long
def test_every_cell_is_what_evaluate_says_of_one_prompt_at_a_time(plans, runs, corrected):
    rows = corrected.tables["transfers"].set_index(["measure", "source", "target"])
    tasks = ["sentiment", "kinds"]
    by_which: dict = {}
    for target in range(2):
        none = scored_alone(plans, runs, np.zeros((0, plans[0].lm.width), np.float32), target)
        for source in range(2):
            alone = [
                [scored_alone(plans, runs, runs.runs[n].prompt(which), target) for n in (2 * source, 2 * source + 1)]
                for which in ("final", "initial")
            ]
            for measure, key in ((EXACT, "accuracy"), (LABEL, "label_accuracy")):
                cell = rows.loc[measure, tasks[source], tasks[target]]
                trained, p0 = (np.mean([getattr(each, key)[0] for each in those]) for those in alone)
                without = getattr(none, key)[0]
                assert (cell["accuracy"], cell["p0"], cell["none"]) == pytest.approx((trained, p0, without))
                assert cell["gain_over_p0"] == pytest.approx(trained - p0) and cell["n"] == 5 and cell["runs"] == 2
                by_which[measure, source, target] = trained - p0, trained - without
    gain = numbers(corrected)["gain.sentiment.kinds"]
    assert gain.value == pytest.approx(by_which[LABEL, 0, 1][0]) and gain.n == 5
    paper = transfer(runs, lm=plans[0].lm, max_examples=5, convention=Convention.paper)
    published = numbers(paper)
    assert published["gain.kinds.sentiment"].value == pytest.approx(by_which[EXACT, 1, 0][1])
    share = np.mean([by_which[EXACT, 0, 1][1] > 0, by_which[EXACT, 1, 0][1] > 0])
    assert published["improves.share"].value == share and published["improves.share"].n == 2
    assert not paper.claims and not paper.findings


def test_both_conventions_are_of_the_same_scores(plans, runs, corrected, monkeypatch):
    monkeypatch.setattr(transfer_scores, "answers", lambda *_: pytest.fail("scored again"))
    transfer(runs, lm=plans[0].lm, max_examples=5)
    transfer(runs, lm=plans[0].lm, max_examples=5, convention=Convention.paper)
    (held,) = transfer_scores._latest
    assert isinstance(held[0], weakref.ref)  # no table is kept alive by it


def test_what_was_learned_is_read_from_all_test_examples_that_runs_recorded(plans, runs):
    scores = all_scores(plans[0].lm, runs, (None, "final", 5, 0))
    beaten = question._beaten(scores.by_measure[LABEL], runs, "final", Bootstrap())
    assert list(beaten[0]) == ["none", "initial", "majority"]
    for t, by in enumerate(beaten):
        table = runs.table.iloc[2 * t : 2 * t + 2]
        expected = {
            "none": table["label_accuracy_none"].iloc[0],
            "initial": table["label_accuracy_initial"].mean(),
            "majority": table["majority"].iloc[0],
        }
        assert {name: accuracy for name, (accuracy, _) in by.items()} == pytest.approx(expected)
        for name, (_, gain) in by.items():
            assert gain.value == pytest.approx(table["label_accuracy"].mean() - expected[name])
    assert "majority" not in question._beaten(scores.by_measure[EXACT], runs, "final", Bootstrap())[0]


def test_claims_about_prompts_that_learned_nothing_are_not_decidable(corrected):
    assert [claim.outcome for claim in corrected.claims] == [Outcome.undecidable] * 2
    assert all("learned their task" in claim.needs for claim in corrected.claims)
    tasks = corrected.tables["tasks"]
    assert not tasks[tasks["measure"] == LABEL]["learned"].any() and not corrected.findings
    assert any("5 test examples of a task, drawn by seed 0" in line for line in corrected.omissions)
    assert any("cosines at equal positions need" in line for line in corrected.omissions)
    assert set(corrected.tables["likenesses"]["likeness"]) >= {"transport", "truncate", "js", "p0"}
    assert {"heatmap_exact", "heatmap_label"} <= set(corrected.figures)
    assert "* not shown to have learned" in corrected.figures["heatmap_label"]


def test_active_neurons_are_compared_beyond_those_of_p0(plans, runs, corrected):
    """By a plain model's own first linears, one row at a time."""
    model = AutoModelForCausalLM.from_pretrained(TINY)
    target = evaluation_sets(runs, "transfer", 5, 0)[2].task
    read: list = []
    for block in model.transformer.h:
        block.mlp.c_fc.register_forward_hook(lambda _, __, out: read.append(out[0, -1] > 0))

    def active(prompt_Pd, example) -> np.ndarray:
        (row,) = target.rows(plans[0].lm, [example], len(prompt_Pd))
        read.clear()
        with torch.no_grad():
            model(inputs_embeds=reference.embeddings(model, torch.tensor(prompt_Pd), row.ids)[None])
        return torch.cat(read).numpy().astype(float)

    def overlap(which: str) -> float:
        found = []
        for source, own, example in itertools.product((0, 1), (2, 3), target.train[:8]):
            one, other = (active(runs.runs[n].prompt(which), example) for n in (source, own))
            found.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        return float(np.mean(found))

    rows = corrected.tables["likenesses"].set_index(["likeness", "source", "target"])["value"]
    assert rows["neurons", "sentiment", "kinds"] == pytest.approx(overlap("final") - overlap("initial"), abs=1e-4)
    assert abs(rows["neurons", "sentiment", "kinds"]) > 1e-3


def test_a_model_whose_neurons_cannot_be_read_is_told(plans, runs, monkeypatch):
    def refuse(*_):
        raise UserError("its blocks have no single module as activation")

    monkeypatch.setattr(type(plans[0].lm), "active_neurons", refuse)
    result = transfer(runs, lm=plans[0].lm, max_examples=5)
    assert any("overlap of active neurons is left out: its blocks have no single" in line for line in result.omissions)
    assert "neurons" not in set(result.tables["likenesses"]["likeness"])


def test_likenesses_leave_out_what_the_model_ignores_of_a_token(runs, corrected):
    centred = [np.stack([row - row.mean() for row in run.prompt("final").astype(float)]).mean(0) for run in runs.runs]
    cosines = [
        one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one in centred[:2] for other in centred[2:]
    ]
    rows = corrected.tables["likenesses"].set_index(["likeness", "source", "target"])["value"]
    assert rows["mean_cosine", "sentiment", "kinds"] == pytest.approx(np.mean(cosines), abs=1e-9)
    assert any("the model ignores a prompt token's shift (measured" in line for line in corrected.omissions)


def test_other_options_and_a_single_task_are_refused_in_a_line(plans, runs):
    lm = plans[0].lm
    with pytest.raises(UserError, match="align is one of transport, mean, truncate, pad"):
        transfer(runs, lm=lm, align="procrustes")
    with pytest.raises(UserError, match="at least 2 tasks; these have 1"):
        transfer(runs.only([0, 1]), lm=lm)
    with pytest.raises(UserError, match="at least 2 tasks; these have 0"):
        transfer(runs, lm=lm, init="cat")
