"""sensitivity: tokens are moved as far as said; accuracy that hangs on angle or scale alone is told apart.

A known function from prompts to outcomes stands in for the model. Shapes: S prompts, P tokens, d width, E examples.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from promptgeo.analysis.questions.sensitivity import _measured, _moved, _Reactions, _report, turned
from promptgeo.analysis.result import Number, Outcome, Result

WIDTH, LENGTH, EXAMPLES, RADII = 64, 2, 40, (0.25, 0.5, 0.75)
RUNS = 8


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def group(seed=0, runs=RUNS):
    """A task and prompts that solve it: all in one direction w, of length 1; P0s of length 3 in other directions."""
    generator = np.random.default_rng(seed)
    w_Pd = generator.normal(size=(LENGTH, WIDTH))
    w_Pd /= np.linalg.norm(w_Pd, axis=1, keepdims=True)
    p0_NPd = generator.normal(size=(runs, LENGTH, WIDTH))
    p0_NPd *= 3 / np.linalg.norm(p0_NPd, axis=2, keepdims=True)
    tokens = w_Pd + 0.01 * generator.normal(size=(runs, LENGTH, WIDTH))
    tokens /= np.linalg.norm(tokens, axis=2, keepdims=True)
    return SimpleNamespace(
        name="t",
        evaluation_set=w_Pd,
        members=list(range(runs)),
        prompts=lambda: tokens.astype(np.float32),
        initial=lambda: p0_NPd.astype(np.float32),
    )


def by_badness(badness_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Example e is solved where the badness is below (e + 1) / E; its loss is the badness and e / E."""
    steps_E = (np.arange(EXAMPLES) + 1) / EXAMPLES
    return badness_S[:, None] < steps_E, badness_S[:, None] + steps_E


def angle(prompts_SPd, w_Pd):
    unit = prompts_SPd / np.linalg.norm(prompts_SPd, axis=2, keepdims=True)
    return by_badness(1 - (unit * w_Pd).sum(2).mean(1))


def scale(prompts_SPd, w_Pd):
    return by_badness(np.abs(np.log(np.linalg.norm(prompts_SPd, axis=2))).mean(1))


def displacement(prompts_SPd, w_Pd):
    return by_badness(np.linalg.norm(prompts_SPd - w_Pd, axis=2).mean(1))


def asked(score, runs=RUNS, seed=0, none=0.0) -> Result:
    vocabulary_Vd = np.random.default_rng(1).normal(size=(50, WIDTH)).astype(np.float32)
    table = _measured([group(seed, runs)], vocabulary_Vd, RADII, 2, seed, score)
    result = Result()
    _report(_Reactions(list(RADII), table), np.full(runs, none), result)
    return result


def test_turned_and_scaled_tokens_end_equally_far():
    prompt_Pd = np.random.default_rng(0).normal(size=(3, 20)) * [[1.0], [5.0], [0.1]]
    norms_P = np.linalg.norm(prompt_Pd, axis=1)
    for how, r, moved_Pd in _moved(prompt_Pd, RADII, 2, 5):
        np.testing.assert_allclose(np.linalg.norm(moved_Pd - prompt_Pd, axis=1), r * norms_P, rtol=1e-9)
        cosines = (moved_Pd * prompt_Pd).sum(1) / norms_P / np.linalg.norm(moved_Pd, axis=1)
        if how == "turned":
            np.testing.assert_allclose(np.linalg.norm(moved_Pd, axis=1), norms_P)
            np.testing.assert_allclose(cosines, 1 - r**2 / 2)
        else:
            np.testing.assert_allclose(cosines, 1.0)
    again = turned(prompt_Pd, 0.5, np.random.default_rng(1))
    assert not np.allclose(again, turned(prompt_Pd, 0.5, np.random.default_rng(2)))


def test_an_outcome_that_hangs_on_the_angle_alone_is_a_gauge_of_scale_and_not_compared():
    """Nothing sees the scale: what could be shown is trivial, and said to be."""
    result = asked(angle)
    assert number(result, "difference.accuracy.trained").value == pytest.approx(0.15, abs=0.03)  # mean of r^2 / 2
    assert number(result, "scale_share").value < 1e-4
    (claim,) = result.claims
    assert claim.outcome is Outcome.undecidable and claim.needs == "a model that does not normalise its embeddings"
    assert any("which is a gauge" in f.sentence for f in result.findings)


def test_angle_above_all_and_scale_alone_are_told_apart():
    def mostly_angle(prompts_SPd, w_Pd):
        return by_badness(angle(prompts_SPd, w_Pd)[1][:, 0] * 2 + 0.1 * scale(prompts_SPd, w_Pd)[1][:, 0] - 2.1 / 40)

    by_angle, by_scale = asked(mostly_angle), asked(scale)
    for result, outcome, sign in ((by_angle, Outcome.holds, 1), (by_scale, Outcome.fails, -1)):
        (claim,) = result.claims
        assert claim.outcome is outcome
        difference = number(result, "difference.accuracy.trained")
        assert sign * difference.value > 0.15 and difference.p == pytest.approx(2 / 2**RUNS) == claim.p
        assert sign * number(result, "difference.loss.trained").value > 0.15
        assert sign * number(result, "difference.reaction.initial").value > 0 or outcome is Outcome.fails
    assert number(by_scale, "accuracy.trained.turned.0.75").value == number(by_scale, "accuracy.trained").value
    # |log(1 - r)| and |log(1 + r)|: what of the examples is lost, by hand.
    lost = np.mean([abs(np.log(0.75)), abs(np.log(1.25))])
    assert 1 - number(by_scale, "accuracy.trained.scaled.0.25").value == pytest.approx(lost, abs=1 / EXAMPLES)
    assert number(by_scale, "difference.reaction.initial").value < 0  # the control sees the scale, too


@pytest.mark.long
def test_premises_that_are_not_met_leave_it_undecided():
    few = asked(scale, runs=5).claims[0]
    assert few.outcome is Outcome.undecidable and few.needs == "6 runs"
    assert any("5 are too few to decide it, 6 would do" in f.sentence for f in asked(scale, runs=5).findings)
    unsolved = asked(scale, none=1.0).claims[0]
    assert unsolved.outcome is Outcome.undecidable and unsolved.needs == "prompts that solve the task"

    def robust(prompts_SPd, w_Pd):  # only P0 and words, far from w, are wrong
        distances_S = np.linalg.norm(prompts_SPd - w_Pd, axis=2).mean(1)
        losses_SE = np.repeat(distances_S[:, None], EXAMPLES, 1)
        return np.repeat(distances_S[:, None] < 1, EXAMPLES, 1), losses_SE

    assert asked(robust).claims[0].needs == "larger displacements"
    one = asked(scale, runs=1)
    assert one.claims[0].outcome is Outcome.undecidable and not one.findings


@pytest.mark.long
def test_where_only_the_displacement_counts_angle_and_magnitude_are_seldom_told_apart():
    """Outcomes are drawn with a chance that falls with the displacement; 40 draws."""
    from promptgeo.analysis.resampling import sign_flip_p

    generator = np.random.default_rng(0)

    def noisy(prompts_SPd, w_Pd):
        chance_S = np.clip(1 - np.linalg.norm(prompts_SPd - w_Pd, axis=2).mean(1), 0.02, 1)
        return generator.random((len(prompts_SPd), EXAMPLES)) < chance_S[:, None], chance_S[:, None] + np.zeros(
            EXAMPLES
        )

    exact = group()
    exact.prompts = lambda: np.repeat(exact.evaluation_set[None], RUNS, 0) * (1 + 1e-7 * np.arange(RUNS)[:, None, None])
    vocabulary_Vd = generator.normal(size=(50, WIDTH))
    draws, small = 40, 0
    for seed in range(draws):
        table = _measured([exact], vocabulary_Vd, RADII, 2, seed, noisy)
        differences_N = _Reactions(list(RADII), table).angle_over_scale("trained", "accuracy")
        assert len(differences_N) == RUNS
        small += sign_flip_p(differences_N) < 0.05
    assert small <= 5  # of 40 draws; 6 or more have a chance of 1 %


def test_a_p0_that_several_tasks_start_from_counts_once():
    one, other = group(0, 3), group(1, 3)
    other.name, other.members, other.initial = "u", [3, 4, 5], one.initial
    table = _measured([one, other], np.random.default_rng(1).normal(size=(50, WIDTH)), RADII, 2, 0, angle)
    reactions = _Reactions(list(RADII), table)
    assert len(reactions.of("initial", "loss")) == 3 and len(reactions.of("trained", "loss")) == 6
    both = table[(table["prompts"] == "initial") & (table["how"] == "") & table["run"].isin([0, 3])]["loss"]
    assert len(both) == 2 and reactions.of("initial", "loss")[0] == pytest.approx(both.mean())
