"""Cosines within and between tasks by loops over pairs, planted structure, base rates against their exact values."""

from math import comb

import numpy as np
import pandas as pd
import pytest

from promptgeo.analysis.geometry.run_pairs import closer, over_runs, pair_units
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.questions.similarity import similarity
from promptgeo.analysis.resampling import clopper_pearson, t_quantile
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def random_runs(tasks: int = 3, seeds: int = 6, shared: float = 0.0, width: int = 64) -> RunTable:
    generator = np.random.default_rng(0)
    names = [f"t{t}" for t in range(tasks) for _ in range(seeds)]
    centres = generator.normal(size=(tasks, 2, width))
    prompts = generator.normal(size=(tasks * seeds, 2, width)) + shared * np.repeat(centres, seeds, axis=0)
    return RunTable.from_arrays(
        prompts, pd.DataFrame({"task": names, "init": "vocab", "seed": [s for _ in range(tasks) for s in range(seeds)]})
    )


def test_cosines_and_near_orthogonal_pairs_by_hand():
    runs = random_runs(shared=0.5)
    result = similarity(runs, permutations=50, draws=100)
    prompts, tasks = runs.prompts(), runs.table["task"]
    cosines = {True: [], False: []}
    for a in range(18):
        for b in range(a):
            per_token = [
                prompts[a, p] @ prompts[b, p] / np.linalg.norm(prompts[a, p]) / np.linalg.norm(prompts[b, p])
                for p in range(2)
            ]
            cosines[tasks[a] == tasks[b]].append(per_token)
    for same, pairs in ((True, "within"), (False, "between")):
        assert number(result, f"cosine.{pairs}").value == pytest.approx(np.mean(cosines[same]), abs=1e-6)
        assert number(result, f"orthogonal.{pairs}").value == pytest.approx(np.mean(np.abs(cosines[same]) < 0.1))
        assert number(result, f"cosine.{pairs}").n == len(cosines[same]) == {True: 45, False: 108}[same]
        assert number(result, f"cosine.{pairs}").low < np.mean(cosines[same]) < number(result, f"cosine.{pairs}").high
    assert len(result.tables["matrix"]) == 18 * 18 and len(result.tables["tokens"]) == 2 * comb(18, 2)


def test_similarity_tells_alike_from_unrelated():
    apart, alike = similarity(random_runs(), permutations=200), similarity(random_runs(shared=3.0), permutations=200)
    assert [c.outcome for c in apart.claims] == [Outcome.holds, Outcome.undecidable]  # without a base rate
    assert [c.outcome for c in alike.claims] == [Outcome.fails, Outcome.undecidable]
    assert "base rate of P0s" in apart.claims[1].evidence and apart.claims[0].p < 0.001
    assert number(apart, "same_task").p > 0.05 and number(alike, "same_task").p == 1 / 201
    assert "are not shown to lie closer" in apart.findings[2].sentence and "are alike" in alike.findings[0].sentence
    assert "lie closer than runs of others, which may be because they moved" in alike.findings[2].sentence
    assert "not shown to differ from random" in apart.findings[1].sentence
    assert "fewer than random directions" in alike.findings[1].sentence
    assert number(alike, "orthogonal.within").interval == clopper_pearson(0, 18)
    assert [omission[:37] for omission in apart.omissions] == [
        "similarity: the base rate of vocabula",
        "similarity: the base rate of untraine",
    ]


def moved_runs(
    before: float, after: float, steps=(1.0, 1.0, 1.0), task: float = 0.0, seed: int = 0, words=False
) -> RunTable:
    """3 tasks x 3 inits x 3 seeds; what P0s share, and what prompts share; how far each task moves, and whereto.

    words: runs of one init have the same P0.
    """
    generator = np.random.default_rng(seed)
    tasks, inits = np.repeat(np.arange(3), 9), np.tile(np.repeat(np.arange(3), 3), 3)
    centre = generator.normal(size=(1, 2, 48))
    p0 = generator.normal(size=(3, 2, 48))[inits] if words else generator.normal(size=(27, 2, 48)) + before * centre
    where = task * generator.normal(size=(3, 2, 48))[tasks] + (after - before) * centre
    prompts = p0 + generator.normal(size=p0.shape) * np.array(steps)[tasks][:, None, None] + where
    table = pd.DataFrame({"task": tasks.astype(str), "init": inits.astype(str), "seed": np.tile(range(3), 9)})
    return RunTable.from_arrays(prompts.astype(np.float32), table, p0.astype(np.float32))


def test_nearly_orthogonal_pairs_are_judged_by_p0_and_the_vocabulary_not_by_random_directions():
    alike = np.random.default_rng(0).normal(size=(1, 48)) + 0.3 * np.random.default_rng(1).normal(size=(300, 48))
    words = Vocabulary(alike.astype(np.float32), [str(i) for i in range(300)])
    options = {"vocabulary": words, "permutations": 9, "sample": 300}
    outcomes = {}
    for name, (before, after) in {"parted": (2, 0), "apart": (0, 0), "joined": (0, 1)}.items():
        result = similarity(moved_runs(before, after), **options)
        outcomes[name] = result.claims[1].outcome
        assert number(result, "orthogonal.within").value > 0  # one pair is always there
    assert outcomes == {"parted": Outcome.holds, "apart": Outcome.undecidable, "joined": Outcome.fails}


def test_two_runs_say_nothing_of_others():
    two = random_runs().query("task == 't0' and seed < 2")
    result = similarity(two, permutations=9)
    assert [c.outcome for c in result.claims] == [Outcome.undecidable] * 2
    assert number(result, "cosine.within").interval == (-1, 1) and number(result, "orthogonal.within").interval == (
        0,
        1,
    )


@pytest.mark.long
def test_tasks_that_only_move_differently_far_are_not_closer():
    """By exchanging tasks within inits alone, every one of these would be."""
    said, exchanged = [], []
    for seed in range(8):
        runs = moved_runs(0.0, 0.0, steps=(0.3, 1.0, 3.0), seed=seed, words=True)
        result = similarity(runs, permutations=99)
        said.append(number(result, "same_task").p)
        table = RunTable.from_arrays(runs.prompts(), runs.table)
        exchanged.append(number(similarity(table, permutations=99), "same_task").p)
    assert np.mean(np.array(exchanged) < 0.05) > 0.5 and np.mean(np.array(said) < 0.05) <= 1 / 8
    planted = similarity(moved_runs(0.0, 0.0, steps=(0.3, 1.0, 3.0), task=1.0, words=True), permutations=999)
    # Three tasks within three inits can be dealt in 36 ways.
    assert number(planted, "same_task").p < 0.05
    assert number(planted, "moved.2").value > number(planted, "moved.0").value


def test_runs_that_never_share_an_init_within_a_task_are_compared_at_different_inits():
    """One seed a cell: between tasks some pairs share an init, within a task none does."""
    tasks, inits = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    cosines = 0.2 + 0.5 * (inits[:, None] == inits) + 0.1 * (tasks[:, None] == tasks)
    assert closer(cosines, tasks, inits) == pytest.approx(0.1)


def test_base_rates_are_those_of_random_directions_and_of_the_vocabulary():
    """The squared cosine of random directions is Beta(1/2, (d - 1)/2)."""
    from scipy.stats import beta

    same = np.random.default_rng(0).normal(size=(1, 64)) + 0.1 * np.random.default_rng(1).normal(size=(300, 64))
    result = similarity(
        random_runs(), vocabulary=Vocabulary(same.astype(np.float32), [str(i) for i in range(300)]), permutations=10
    )
    exact = beta(0.5, 63 / 2).cdf(0.01)
    assert number(result, "orthogonal.random").low < exact < number(result, "orthogonal.random").high
    assert (
        number(result, "orthogonal.vocabulary").value == 0
        and number(result, "cosine.vocabulary").value > 0.98
        and "need P0s" in result.omissions[0]
    )


def test_tasks_that_share_no_init_cannot_be_exchanged():
    runs = random_runs(tasks=2, shared=1.0)
    table = runs.table.assign(init=runs.table["task"])
    result = similarity(RunTable.from_arrays(runs.prompts(), table), permutations=10)
    assert "same_task" not in [each.quantity for each in result.numbers]
    assert any("two tasks with the same init" in omission for omission in result.omissions)
    assert len(result.findings) == 2 and "closer" not in result.findings[0].sentence


def test_only_prompts_of_one_length_count():
    runs = random_runs(tasks=3)
    table = runs.table.assign(prompt_length=np.where(runs.table["task"] == "t2", 1, 2))  # as if t2's were shorter
    chosen = similarity(RunTable.from_arrays(runs.prompts(), table), permutations=10, length=2)
    assert chosen.numbers == similarity(runs.query("task != 't2'"), permutations=10).numbers
    assert number(chosen, "cosine.within").n == 2 * comb(6, 2)


def test_a_task_needs_two_runs():
    with pytest.raises(UserError, match="two or more"):
        similarity(random_runs().query("seed == 0"))


def test_claims_about_trained_prompts_need_runs_that_learned_their_task():
    runs = moved_runs(0, 0)
    for before, final, runs_of, needs in (
        (0.1, 0.9, slice(None), ""),
        (0.9, 0.9, slice(None), "prompts that learned their task"),
        (0.1, 0.9, slice(0, 3), "6 runs, to show that they learned their task"),
    ):
        table = runs.table.iloc[runs_of].assign(accuracy_initial=before, accuracy_none=before, accuracy_final=final)
        few = RunTable.from_arrays(runs.prompts()[runs_of], table, runs.prompts("initial")[runs_of])
        claim = similarity(few, permutations=9).claims[0]
        assert (claim.outcome is Outcome.holds) == (not needs) and (claim.needs or "") == needs


def test_two_runs_of_a_task_are_one_pair_and_have_its_degree_of_freedom():
    """Two pairs 0.2 and 0.6: Student's t with one degree of freedom, 12.7 standard errors of .2."""
    pairs = np.kron(np.eye(2), 1 - np.eye(2)).astype(bool)
    values = np.where(pairs, np.repeat([0.2, 0.2, 0.6, 0.6], 4).reshape(4, 4), 0.0)
    assert pair_units(pairs).tolist() == [0, 2]
    half = t_quantile(0.975, 1) * 0.2
    assert over_runs(values, pairs, -10.0, 10.0) == pytest.approx((0.4 - half, 0.4 + half))
    assert pair_units(~np.eye(3, dtype=bool)).tolist() == [0, 1, 2]  # three runs have three pairs
    assert over_runs(values, pairs & (values == 0.2), -1.0, 1.0) == (-1.0, 1.0)  # a pair alone says nothing of others
