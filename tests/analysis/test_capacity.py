"""capacity: what is held, in tokens and in bits, is what the definition says; the claim is decided by intervals.

Planted runs of known shares stand in for trained ones. Shapes: T texts.
"""

from collections.abc import Sequence
from functools import cache
from math import log
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import promptgeo as pg
import reference
from promptgeo.analysis.questions.capacity import _answer, _claim, _Point, _ratios, _say, capacity, most_held
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.config.compose import compose_grid
from promptgeo.errors import UserError
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cells_of
from promptgeo.training.engine import train_all

LENGTHS = (4, 8, 16, 32)
CLOSE = tuple(range(4, 33))
"""Lengths of which a text's capacity lies between two that are neighbours."""


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def point(kind, text, length, right, bits, k=1, budget=400, losses=(4.0, 2.0, 1.0, 0.9), none=0.0, other=0.1):
    """A run of known shares, whose loss was scored at equal distances."""
    prompt = np.zeros((k, 2), np.float32)
    return _Point(
        0, _run(budget, losses), kind, text, length, k, budget, budget, prompt, right, right / 2, none, other, bits
    )


@cache
def _run(budget: int, losses: tuple[float, ...]) -> SimpleNamespace:
    steps = np.linspace(0, budget, len(losses)).astype(int)
    return SimpleNamespace(metrics=pd.DataFrame({"step": steps, "split": "validation", "loss": losses}))


def study(
    limits: dict[str, float],
    per_token: dict[str, float],
    texts: int = 8,
    spread: float = 0.1,
    seed: int = 0,
    lengths: Sequence[int] = LENGTHS,
    **options,
) -> list[_Point]:
    """Vectors that hold `limits` bits of a kind's texts, give or take, each of whose tokens has `per_token` bits."""
    generator, made = np.random.default_rng(seed), []
    for kind, limit in limits.items():
        for text in range(texts):
            own = limit * float(np.exp(spread * generator.normal()))
            for length in lengths:
                held = min(length * per_token[kind], own)
                right = held / (length * per_token[kind])
                made.append(point(kind, text, length, right, held, **options))
    return made


def said(points: list[_Point], margin: float = 0.25, texts: int = 5) -> Result:
    result = Result()
    _say(points, margin, texts, 0, result)
    return result


# What is held.


def test_the_longest_part_that_is_held_counts_whatever_lies_between():
    rights = {4: 1.0, 8: 0.985, 16: 0.99, 32: 0.5}
    assert most_held([point("real", 0, length, right, 1.0) for length, right in rights.items()]) == 16
    assert most_held([point("real", 0, 4, 0.75, 1.0)]) == 0


def test_numbers_are_means_over_texts_of_what_each_text_says():
    rights = np.array([[1.0, 1.0, 0.5, 0.25], [1.0, 0.875, 0.5, 0.25]])
    bits = np.array([[40.0, 80.0, 100.0, 90.0], [44.0, 70.0, 90.0, 98.0]])
    points = [
        point("real", t, length, rights[t, i], bits[t, i], k=2, none=0.125)
        for t in range(2)
        for i, length in enumerate(LENGTHS)
    ]
    result = said(points)
    assert number(result, "capacity.real.k2").value == (8 + 4) / 2
    assert number(result, "capacity_mean.real.k2").value == 4  # (1 + .875) / 2 < .99 at 8
    assert number(result, "information.real.k2").value == (100 / 2 + 98 / 2) / 2  # of each vector
    assert number(result, "information_held.real.k2").value == (80 / 2 + 44 / 2) / 2  # of 8 tokens and of 4
    assert number(result, "gain.real.k2").value == pytest.approx((0.875 * 8 + 0.75 * 8) / 2)
    assert number(result, "right.real.k2.L8").value == 0.9375
    assert number(result, "still_rising.real.k2").value == pytest.approx((90 / 100 - 1 + 98 / 90 - 1) / 2)
    assert number(result, "right_none.real.k2.L4").value == 0.125
    assert number(result, "right_other.real.k2.L4").value == pytest.approx(0.1)
    # The shortest that are not held fell from 1 to .9 nats in the last of three thirds, but in the last fifth by none.
    assert [each for each in result.numbers if each.quantity.startswith("still_falling")] == []
    assert len(result.tables["texts"]) == 8 and set(result.figures) == {"length", "loss"}


def test_how_far_the_loss_still_falls_is_of_the_last_fifth_of_the_steps():
    losses = (4.0, 3.0, 2.0, 1.5, 1.2, 0.9)  # at 0, 80, ..., 400: the last fifth starts at 320
    result = said([point("real", t, 4, 0.5, 9.0, losses=losses) for t in range(3)])
    assert number(result, "still_falling.real.k1").value == pytest.approx(1 - 0.9 / 1.2)
    assert "a lower bound" in result.findings[0].sentence and "3 not even 4" in result.findings[0].sentence


def test_of_several_trainings_of_one_text_the_best_counts():
    two = [point("real", 0, 8, 0.5, 30.0), point("real", 0, 8, 1.0, 50.0), point("real", 1, 8, 1.0, 40.0)]
    result = said(two)
    assert number(result, "capacity.real.k1").value == 8 and number(result, "information.real.k1").value == 45
    assert "1 runs are not the best of their text and length" in result.omissions[0]


def test_runs_with_more_steps_are_set_beside_the_same_texts_with_fewer():
    few = [point("real", t, length, float(length <= 4), 9.0) for t in range(4) for length in (4, 8, 16)]
    more = [point("real", t, length, 1.0, 9.0, budget=5000) for t in range(2) for length in (8, 16)]
    less = [point("real", 0, 4, 0.0, 9.0, budget=10)]
    result = said([*few, *more, *less])
    rise = number(result, "longer.real.k1.s5000")
    assert (rise.value, rise.n) == (16.0, 2)  # 16 against 0 among the lengths that both have
    assert number(result, "capacity.real.k1").value == 4
    assert any("1 runs had fewer than 400 steps" in each for each in result.omissions)
    assert any("With 5000 steps instead of 400" in each.sentence for each in result.findings)


# Kinds of text.


def test_information_that_is_the_same_where_lengths_are_not_holds():
    limits, per_token = {"real": 60.0, "random_words": 60.0}, {"real": 4.0, "random_words": 8.0}
    result = said(study(limits, per_token, spread=0.05, lengths=CLOSE))
    (claim,) = result.claims
    assert claim.outcome is Outcome.holds
    information, tokens = (number(result, f"ratio.{of}.real.random_words.k1") for of in ("information", "capacity"))
    assert 1 / 1.25 < information.low <= information.high < 1.25 < tokens.low


@pytest.mark.parametrize(("more", "outcome"), [(0.0, Outcome.holds), (0.2, Outcome.holds), (0.3, Outcome.undecidable)])
def test_bits_that_still_rise_at_the_longest_length_decide_nothing(more, outcome):
    limits, per_token = {"real": 60.0, "random_words": 60.0}, {"real": 4.0, "random_words": 8.0}
    made = study(limits, per_token, spread=0.05, lengths=CLOSE)
    for each in [each for each in made if each.length < 32]:
        object.__setattr__(each, "bits", each.bits / (1 + more))  # of the longest more, by so much
    result = said(made)
    (claim,) = result.claims
    assert claim.outcome is outcome
    assert number(result, "still_rising.real.k1").value == pytest.approx(more)
    if outcome is Outcome.undecidable:
        assert "bits of real with k = 1 change by +30%" in claim.evidence and claim.needs.startswith("longer texts")


def test_lengths_that_are_the_same_where_information_is_not_fail_the_claim():
    (claim,) = said(study({"real": 40.0, "random_words": 80.0}, {"real": 4.0, "random_words": 8.0})).claims
    assert claim.outcome is Outcome.fails and "times the bits of random words" in claim.evidence


def test_where_neither_differs_the_claim_fails_for_the_length_is_constant_too():
    (claim,) = said(study({"a": 60.0, "b": 60.0}, {"a": 5.0, "b": 5.0}, spread=0.05, lengths=CLOSE)).claims
    assert claim.outcome is Outcome.fails and "The lengths are the same too" in claim.evidence


@pytest.mark.parametrize("per_token", [(4.0, 8.0), (5.0, 5.0)])
def test_lengths_that_lie_far_apart_do_not_say_whether_kinds_differ_in_length(per_token):
    (claim,) = said(study({"a": 60.0, "b": 60.0}, dict(zip("ab", per_token, strict=True)), spread=0.05)).claims
    assert claim.outcome is Outcome.undecidable and claim.needs.startswith("lengths that lie closer")


def test_a_capacity_lies_between_what_is_held_and_the_next_length_that_was_tried():
    """Texts of a hold 16 and not 32, of b 8 and not 16: from 16 to 8 times 2 to 1; without spread nothing is added."""
    result = said(study({"a": 80.0, "b": 80.0}, {"a": 4.0, "b": 8.0}, spread=1e-9))
    ratio, mean = number(result, "ratio.capacity.a.b.k1"), number(result, "capacity_mean.a.k1")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 16 / 16, 32 / 8))
    assert (mean.value, mean.low) == (16.0, None)
    assert number(result, "bits.a.k1.L4").low is None  # all texts have 16 bits: nothing says how they vary
    all_held = said(study({"a": 80.0, "b": 1000.0}, {"a": 4.0, "b": 8.0}))
    assert not [each for each in all_held.numbers if each.quantity.startswith("ratio.capacity")]


def test_the_ratio_of_lengths_holds_the_truth_in_most_draws():
    limits, per_token, draws, held = {"a": 60.0, "b": 60.0}, {"a": 4.0, "b": 8.0}, 200, 0
    for seed in range(draws):
        result, of_text = Result(), {}
        for each in study(limits, per_token, 6, 0.2, seed, lengths=(4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 40)):
            of_text.setdefault((each.kind, 1), {}).setdefault(each.text, []).append(each)
        _ratios({key: _answer(*key, own, result, 0) for key, own in of_text.items()}, 1, result)
        ratio = number(result, "ratio.capacity.a.b.k1")
        held += ratio.low <= 2.0 <= ratio.high  # of texts of any length: twice as many tokens of half as many bits
    assert held >= 0.95 * draws


def test_few_texts_whose_bits_vary_decide_nothing():
    points = study({"a": 60.0, "b": 60.0}, {"a": 4.0, "b": 8.0}, texts=6, spread=0.3)
    (claim,) = said(points).claims
    assert claim.outcome is Outcome.undecidable and "more texts" in claim.needs


def test_of_texts_that_are_all_held_the_capacity_is_a_bound_without_an_interval():
    result = said(study({"a": 10_000.0}, {"a": 4.0}))
    held = number(result, "capacity.a.k1")
    assert (held.value, held.low) == (32.0, None) and "holds at least 32.0 tokens" in result.findings[0].sentence


def test_of_texts_that_are_all_held_up_to_one_length_the_next_is_the_other_end():
    result = said(study({"a": 40.0}, {"a": 4.0}, spread=0.01))
    held = number(result, "capacity.a.k1")
    assert (held.value, held.low, held.high) == (8.0, 8.0, 16.0)
    assert "holds 8.0 (8.0 to 16.0) tokens" in result.findings[0].sentence


@pytest.mark.parametrize("limit", [10_000.0, 1.0])
def test_a_capacity_beyond_the_lengths_decides_nothing(limit):
    (claim,) = said(study({"a": limit, "b": limit}, {"a": 4.0, "b": 8.0})).claims
    assert claim.outcome is Outcome.undecidable and "0 of 8 texts are held at the shortest length" in claim.evidence


def test_texts_of_one_kind_decide_nothing():
    (claim,) = said(study({"real": 60.0}, {"real": 4.0})).claims
    assert claim.outcome is Outcome.undecidable and "two kinds of text" in claim.needs


def test_a_ratio_is_of_means_and_its_interval_a_jackknife_over_pairs_of_texts():
    points = study({"a": 60.0, "b": 50.0}, {"a": 4.0, "b": 8.0}, spread=0.3)
    result = said(points)
    a, b = (
        np.array([max(p.bits for p in points if p.kind == kind and p.text == t) for t in range(8)]) for kind in "ab"
    )
    without = np.array([log(np.delete(a, t).sum() / np.delete(b, t).sum()) for t in range(8)])
    error = np.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum())
    from scipy.stats import t as student

    middle, half = log(a.mean() / b.mean()), student.ppf(0.975, 7) * error
    ratio = number(result, "ratio.information.a.b.k1")
    wanted = np.exp([middle, middle - half, middle + half])
    np.testing.assert_allclose([ratio.value, ratio.low, ratio.high], wanted, rtol=1e-9)


@pytest.mark.parametrize("texts", [6, 8, 20])
def test_its_intervals_hold_the_truth_in_most_draws(texts):
    """Of the mean capacity, the mean information and a ratio of two kinds."""
    limits, per_token, spread, draws = {"a": 60.0, "b": 60.0}, {"a": 4.0, "b": 8.0}, 0.4, 200
    own_T = limits["a"] * np.exp(spread * np.random.default_rng(10**6).normal(size=10**6))
    lengths = (*LENGTHS, 64, 128)  # so that no text is held at the longest
    bits_a, bits_b = (np.minimum(own_T, lengths[-1] * per_token[kind]).mean() for kind in "ab")
    held_T = sum(
        (own_T >= 0.99 * length * per_token["a"]) * (length - shorter)
        for length, shorter in zip(lengths, (0, *lengths), strict=False)
    )
    truths = {"capacity.a.k1": held_T.mean(), "information.a.k1": bits_a, "ratio.information.a.b.k1": bits_a / bits_b}
    held, told = dict.fromkeys(truths, 0), dict.fromkeys(truths, 0)
    for seed in range(draws):
        result, of_text = Result(), {}
        for each in study(limits, per_token, texts, spread, seed, lengths):
            of_text.setdefault((each.kind, 1), {}).setdefault(each.text, []).append(each)
        answers = {key: _answer(*key, own, result, 0) for key, own in of_text.items()}
        _ratios(answers, 1, result)
        for name, truth in truths.items():
            one = number(result, name)
            if one.low is not None:  # texts that are all held up to one length have none
                told[name] += 1
                held[name] += one.low <= truth <= one.high
    assert min(told.values()) > 0.9 * draws
    assert min(held[name] / told[name] for name in truths) > 0.9, held


@pytest.mark.parametrize(
    ("bits", "per_token", "wrong"),
    [
        ((60.0, 75.0), (4.0, 8.0), Outcome.holds),  # 1 + margin: the first ratio that is not the same
        ((60.0, 60.0), (4.0, 8.0), Outcome.fails),
        ((60.0, 60.0), (6.0, 6.0), Outcome.holds),
        ((40.0, 80.0), (4.0, 8.0), Outcome.holds),
    ],
)
def test_the_claim_is_rarely_decided_wrongly(bits, per_token, wrong):
    outcomes = []
    for seed in range(200):
        of_text: dict[tuple[str, int], dict[int, list[_Point]]] = {}
        for each in study(dict(zip("ab", bits, strict=True)), dict(zip("ab", per_token, strict=True)), 8, 0.15, seed):
            of_text.setdefault((each.kind, 1), {}).setdefault(each.text, []).append(each)
        answers = {key: _answer(*key, own, Result(), 0) for key, own in of_text.items()}
        outcomes.append(_claim(answers, _ratios(answers, 1, Result()), 0.25, 5).outcome)
    assert outcomes.count(wrong) / 200 <= 0.05


# Trained runs.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two texts of two kinds in two lengths, one vector each, on tiny."""
    where = tmp_path_factory.mktemp("capacity")
    command = ["sweep=capacity", "task.source.row=0,1", "task.source.label=real,random_words", "prompt.length=1"]
    command += ["task.label_length=2,5", "training.epochs=20", f"outputs={where}", "device=cpu", "precision=fp32"]
    train_all(cells_of(compose_grid(command)))
    return pg.load_runs(where)


def test_bits_and_shares_are_those_of_a_slow_reference(trained):
    lm = FrozenLM.load("tiny", device="cpu")
    result = capacity(trained, lm=lm)
    from promptgeo.config.paths import EMBEDDED_MODEL
    from promptgeo.runs.task import task_of

    model = reference.original(EMBEDDED_MODEL)
    table = result.tables["texts"]
    assert len(table) == 8 and set(table["kind"]) == {"real", "random_words"} and set(table["length"]) == {2, 5}
    nothing = torch.zeros(0, lm.width)
    with torch.no_grad():
        for row in table.itertuples():
            run: Run = trained.runs[row.run]
            task = task_of(run)
            (alone,), (own,) = (task.rows(lm, task.train, k) for k in (0, 1))
            assert len(own.label) == row.length and alone.ids.tolist() == lm.encode("\n")
            ce0 = float(reference.row_loss(model, nothing, alone))
            best = []
            for which in ("final", "best"):
                prompt = torch.from_numpy(run.prompt(which))
                right = reference.label_logits(model, prompt, own).argmax(-1).numpy() == own.label
                bits = (ce0 - float(reference.row_loss(model, prompt, own))) / log(2)
                best.append((right.mean(), bits))
            right, bits = max(best)
            assert row.right == pytest.approx(right) and row.bits == pytest.approx(bits, rel=1e-4)
            none = reference.label_logits(model, nothing, alone).argmax(-1).numpy() == own.label
            assert row.right_none == pytest.approx(none.mean())
            other = table[(table["kind"] == row.kind) & (table["length"] == row.length) & (table["text"] != row.text)]
            theirs = trained.runs[other["run"].iloc[0]]
            chosen = {
                float(
                    (
                        reference.label_logits(model, torch.from_numpy(theirs.prompt(which)), own).argmax(-1).numpy()
                        == own.label
                    ).mean()
                )
                for which in ("final", "best")
            }
            assert row.right_other in chosen


def test_another_order_of_the_runs_says_the_same(trained):
    lm = FrozenLM.load("tiny", device="cpu")
    order = list(range(len(trained)))[::-1]
    first, second = capacity(trained, lm=lm), capacity(trained.only(order), lm=lm)
    assert [(n.quantity, n.value, n.low) for n in first.numbers] == [
        (n.quantity, n.value, n.low) for n in second.numbers
    ]


def test_runs_that_recite_nothing_are_refused():
    run = SimpleNamespace(info={"config": {"template": {"scoring": "line"}}})
    runs = SimpleNamespace(runs=[run])
    with pytest.raises(UserError, match="capacity: needs runs of template=recite"):
        capacity(runs, lm=None)
    with pytest.raises(UserError, match="capacity: margin=0: "):
        capacity(runs, lm=None, margin=0)
