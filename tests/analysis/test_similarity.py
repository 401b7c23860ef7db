"""Cosines within and between tasks by loops over pairs, planted structure, base rates against their exact values."""

from math import comb

import numpy as np
import pandas as pd
import pytest

from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.questions.similarity import similarity
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Number, Result
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
    assert [c.holds for c in apart.claims] == [True, True] and [c.holds for c in alike.claims] == [False, False]
    assert number(apart, "same_task").p > 0.05 and number(alike, "same_task").p == 1 / 201
    assert (
        "no closer" in apart.findings[0].sentence
        and "are alike" in alike.findings[0].sentence
        and "lie closer" in alike.findings[0].sentence
    )
    assert "about as many as" in apart.findings[1].sentence and "fewer than" in alike.findings[1].sentence
    assert (number(alike, "orthogonal.within").low, number(alike, "orthogonal.within").high) == wilson(0, 18)
    assert apart.omissions == ["similarity: the base rate of vocabulary tokens needs the model."]


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
        and not result.omissions
    )


def test_tasks_that_share_no_init_cannot_be_exchanged():
    runs = random_runs(tasks=2, shared=1.0)
    table = runs.table.assign(init=runs.table["task"])
    result = similarity(RunTable.from_arrays(runs.prompts(), table), permutations=10)
    assert "same_task" not in [each.quantity for each in result.numbers]
    assert any("two tasks with the same init" in omission for omission in result.omissions)
    assert result.findings[0].p is None and "than others" not in result.findings[0].sentence


def test_only_prompts_of_one_length_count():
    runs = random_runs(tasks=3)
    table = runs.table.assign(prompt_length=np.where(runs.table["task"] == "t2", 1, 2))  # as if t2's were shorter
    chosen = similarity(RunTable.from_arrays(runs.prompts(), table), permutations=10, length=2)
    assert chosen.numbers == similarity(runs.query("task != 't2'"), permutations=10).numbers
    assert number(chosen, "cosine.within").n == 2 * comb(6, 2)


def test_a_task_needs_two_runs():
    with pytest.raises(UserError, match="two or more"):
        similarity(random_runs().query("seed == 0"))
