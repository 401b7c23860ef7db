"""waywardness: texts are recognised in nearest tokens, and the loss of accuracy is told as surely as it is known.

Scored runs of known accuracy stand in for trained ones. Shapes: U pairs of runs, E test examples.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binomtest

from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.questions.waywardness import (
    _answer,
    _figure,
    _losses,
    _Pulled,
    f1,
    named,
    nearest_tokens,
    relative_drop,
)
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.analysis.scoring import Bootstrap
from promptgeo.errors import UserError

OTHER, RANDOM = "write_it_with_a", "cat_chair_water_bird"


class Examples:
    """As much of an evaluation set as numbers need; each is its own."""

    def __init__(self, n: int):
        self.n, self.task = n, SimpleNamespace(name="t")


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def answers(generator, p: float, pairs: int, n: int, shared: float = 0.5) -> np.ndarray:
    """[U, E] bool: solved with probability p, by examples that are partly hard for all pairs alike."""
    hard_E, own_UE = generator.normal(size=n), generator.normal(size=(pairs, n))
    from scipy.special import ndtri

    return shared**0.5 * hard_E + (1 - shared) ** 0.5 * own_UE < ndtri(p)


# The loss.


def test_the_drop_is_the_ratio_of_means_and_both_ends_move_with_what_is_lost():
    free, pulled = np.ones((2, 100), bool), np.ones((2, 100), bool)
    free[:, 80:] = pulled[:, 80:] = False
    pulled[0, :8] = False
    estimate = relative_drop(list(free), list(pulled), [0, 0])
    assert estimate.value == pytest.approx(1 - (0.72 + 0.8) / (0.8 + 0.8))
    assert estimate.interval[0] < estimate.value < estimate.interval[1] and estimate.runs == 2
    assert estimate.at(0.99)[1] > estimate.interval[1]
    assert relative_drop([np.zeros(5, bool)], [np.ones(5, bool)], [0]) is None


def test_where_nothing_is_lost_the_rule_of_three_speaks():
    """Of n examples of which none is lost, 3.69 / n may be: 97.5 % of a Poisson count."""
    same = [np.ones(150, bool)] * 3
    low, high = relative_drop(same, same, [0, 0, 0]).interval
    # Of these examples nothing is left to gain, but of all of them the unpulled runs may solve fewer.
    np.testing.assert_allclose([low, high], [np.log(0.025) / 150, -np.log(0.025) / 150], atol=1e-9)
    solved = np.arange(150) < 120
    low, high = relative_drop([solved] * 3, [solved] * 3, [0, 0, 0]).interval
    np.testing.assert_allclose([low, high], [np.log(0.025) / 120, -np.log(0.025) / 120], atol=1e-9)


@pytest.mark.parametrize(("start", "end"), [(0.98, 0.96), (0.9, 0.9), (0.8, 0.4)])
def test_its_interval_holds_the_truth_in_most_draws(start, end):
    held, draws = 0, 300
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        both = answers(generator, start, 6, 150), answers(generator, end, 6, 150)
        low, high = relative_drop(*map(list, both), [0] * 6).interval
        held += low <= 1 - end / start <= high
    assert held / draws > 0.93


# Texts.


def test_f1_is_of_multisets():
    assert f1([1, 2, 2, 3], [2, 2, 2, 4]) == pytest.approx(0.5)
    assert f1([1, 2], [2, 1]) == 1.0 and f1([1, 1], [2, 3]) == 0.0


def test_nearest_tokens_are_by_angle():
    vocabulary = Vocabulary(np.array([[1, 0], [0, 5], [-1, -1]], np.float32), ["a", "b", "c"])
    assert nearest_tokens(np.array([[9, 1], [0.1, 0.2], [-3, -2]], np.float32), vocabulary) == [0, 1, 2]


def test_texts_that_begin_alike_have_names_of_their_own():
    assert named(["A b c d e", "A b c d f", "?!"]) == {"A b c d e": "a_b_c_d.1", "A b c d f": "a_b_c_d.2", "?!": "text"}
    assert named(["Own!", "b"]) == {"Own!": "own.1", "b": "b"}  # what the task's own text is called


# What is said.


def study(cost: float, reading: float = 1.0, tasks: int = 3, seeds: int = 2, n: int = 400, learned: bool = True):
    """Runs of the own text and two others: each pull loses `cost` of what is solved, the stronger one reads as told."""
    pulled, generator = [], np.random.default_rng(0)
    start = 0.9 if learned else 0.05
    for task in range(tasks):
        examples = Examples(n)
        for kind, text in ((f"own{task}", "own"), (OTHER, OTHER), (RANDOM, RANDOM)):
            for seed in range(seeds):
                free_E = generator.permutation(n) < start * n
                for gamma, share in ((0.0, 0.1), (0.01, 0.5), (0.03, reading)):
                    lost_E = free_E & (np.cumsum(free_E) <= cost * free_E.sum()) & (gamma > 0)
                    unit = (examples, text, kind, seed)
                    pulled.append(
                        _Pulled(
                            len(pulled),
                            examples,
                            text,
                            kind,
                            gamma,
                            unit,
                            "a|b",
                            share,
                            0.1,
                            1.0,
                            free_E & ~lost_E,
                            np.zeros(n, bool),
                        )
                    )
    rows = [{"accuracy_final": each.accuracy, "accuracy_initial": 0.04, "accuracy_none": 0.05} for each in pulled]
    return pulled, pd.DataFrame(rows)


def asked(pulled, table, **changes) -> Result:
    result = Result()
    options = {"margin": 0.02, "reads": 0.9} | changes
    _answer(pulled, table, options["margin"], options["reads"], Bootstrap(draws=100), result)
    return result


def test_a_prompt_that_reads_as_any_text_at_no_cost_is_found():
    result = asked(*study(cost=0.0))
    (claim,) = result.claims
    assert claim.outcome is Outcome.holds and claim.p < 0.05
    assert number(result, f"largest_f1.{OTHER}").value == 1.0
    assert number(result, f"f1.{OTHER}.g0.01").value == 0.5 and number(result, f"f1.{OTHER}.g0").n == 6
    ends = binomtest(3, 6).proportion_ci(method="exact")  # as a count, for few runs may all agree, or hardly
    assert number(result, f"f1.{OTHER}.g0.01").interval == pytest.approx((ends.low, ends.high))
    assert number(result, f"accuracy.{RANDOM}.g0.03").low == pytest.approx(beta.ppf(0.025, 5.4, 1.6))
    assert number(result, f"drop.{RANDOM}.g0.03").value == 0.0
    assert number(result, f"accuracy.{RANDOM}.g0.03").value == pytest.approx(0.9)
    assert number(result, "accuracy_text.own").value == 0.0
    assert len(result.findings) == 3 and all("less than 2%" in each.sentence for each in result.findings)
    table = result.tables["waywardness"]
    assert len(table) == 54 and table["own"].sum() == 18


def test_a_pull_that_costs_accuracy_does_not_hold_and_nothing_in_between_is_decided():
    (claim,) = asked(*study(cost=0.2)).claims
    assert claim.outcome is Outcome.fails and "20.0%" in claim.evidence
    near = asked(*study(cost=0.015))
    assert near.claims[0].outcome is Outcome.undecidable and near.claims[0].needs == "more test examples or runs"
    assert number(near, f"largest_f1.{OTHER}").value == 0.0
    assert all("no gamma surely loses less" in each.sentence for each in near.findings)


def test_what_does_not_read_as_its_text_or_has_not_learned_decides_nothing():
    (claim,) = asked(*study(cost=0.0, reading=0.6)).claims
    assert claim.outcome is Outcome.undecidable and claim.needs == "larger values of gamma"
    assert asked(*study(cost=0.0, reading=0.6), reads=0.6).claims[0].outcome is Outcome.holds
    (claim,) = asked(*study(cost=0.0, learned=False)).claims
    assert claim.outcome is Outcome.undecidable and "solve more than no prompt (5% against 5%" in claim.evidence
    (claim,) = asked(*study(cost=0.0, tasks=1)).claims
    assert claim.outcome is Outcome.undecidable and "2 pairs of runs speak for others (3 are needed)" in claim.evidence


def test_the_figure_has_a_panel_for_each_text():
    by_text = _answer(*study(cost=0.1), 0.02, 0.9, Bootstrap(draws=100), Result())
    figure = _figure(by_text, 0.02)
    for text in ("F1 with the text", "loss of accuracy, relative", "gamma", "their task's own text", OTHER, RANDOM):
        assert text in figure


def test_points_behind_a_drop_have_it_for_their_mean():
    pulled, _ = study(cost=0.1)
    free = [each for each in pulled if each.gamma == 0 and each.kind == OTHER]
    strong = [each for each in pulled if each.gamma == 0.03 and each.kind == OTHER]
    pairs = list(zip(strong, free, strict=True))
    accuracies = [[each.accuracy for each in those] for those in (strong, free)]
    assert np.mean(_losses(pairs)) == pytest.approx(1 - np.mean(accuracies[0]) / np.mean(accuracies[1]))


def test_own_texts_alone_say_nothing_of_any_text_and_gamma_0_is_needed():
    pulled, table = study(cost=0.0)
    (claim,) = asked([each for each in pulled if each.kind == "own"], table).claims
    assert claim.outcome is Outcome.undecidable and claim.needs == "runs that were pulled to other texts"
    with pytest.raises(UserError, match=r"regulariser.gamma=0,.001,.01,.03"):
        asked([each for each in pulled if each.gamma > 0], table)
    some = asked([each for each in pulled if each.gamma > 0 or each.kind != OTHER], table)
    assert some.omissions == [f"waywardness: {OTHER!r} has no runs of gamma 0 and above to compare."]
