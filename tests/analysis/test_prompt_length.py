"""prompt_length: accuracies by prompt length by hand, of runs with one at each; its intervals are calibration's."""

from dataclasses import replace

import numpy as np
import pytest
from test_analyze import header, trained

import promptgeo as pg
from promptgeo.analysis.questions.prompt_length import prompt_length
from promptgeo.errors import UserError
from promptgeo.runs.folder import write_run

EXAMPLES = 100


def run(folder, task: str, tokens: int, seed: int, right: int, p0: int = 2, init: str = "cat") -> None:
    """A run of so many prompt tokens that solves so many of 100 test examples; without a prompt one is solved."""
    made, files = header(task, init, seed), trained(seed)
    arrays = {which: np.full((tokens, 3), 0.1 * seed, np.float32) for which in ("initial", "final", "best")}
    said = [
        {"prompt": prompt, "id": str(k), "correct": k < solved}
        for prompt, solved in (("final", right), ("initial", p0), ("none", 1))
        for k in range(EXAMPLES)
    ]
    results = files.results | {"prompt_length": tokens}
    results |= {"accuracy": {"final": right / EXAMPLES, "initial": p0 / EXAMPLES, "none": 1 / EXAMPLES}}
    files = replace(files, **arrays, trajectory=arrays["final"][None], predictions=said, results=results)
    made["id"] += f"P{tokens}"
    write_run(folder / f"{task}{init}{seed}P{tokens}", made | {"fingerprints": {"model": "f", "data": task}}, files)


def grid(folder, rights: dict[int, tuple[int, ...]], tasks=("one", "two")) -> None:
    """rights: of each length, what its seeds solve."""
    for task in tasks:
        for tokens, of_seed in rights.items():
            for seed, right in enumerate(of_seed):
                run(folder, task, tokens, seed, right)


def test_accuracies_and_differences_by_hand(tmp_path):
    for task, more in (("one", 0), ("two", 20)):
        for tokens, right in ((1, 10), (5, 40), (20, 70)):
            for seed in range(3):
                run(tmp_path, task, tokens, seed, right + more + seed)
    result = prompt_length(pg.load_runs(tmp_path))
    values = {each.quantity: each.value for each in result.numbers}
    assert values["accuracy.one.P5"] == pytest.approx(0.41) and values["accuracy.two.P20"] == pytest.approx(0.91)
    assert values["accuracy.all.P1"] == pytest.approx(np.mean([0.11, 0.31]))
    assert values["difference.P5.P1"] == pytest.approx(0.30) and values["difference.P20.P5"] == pytest.approx(0.30)
    assert values["none.one"] == pytest.approx(0.01)
    assert result.tables["runs"].shape == (18, 5) and not result.omissions
    assert "A prompt of 5 tokens solves 51.0%" in result.findings[0].sentence
    assert "n = 200 test examples, 2 tasks, 12 runs" in result.findings[0].sentence


@pytest.mark.parametrize(
    ("rights", "too_few", "adds_little"),
    [
        ({1: (9, 10, 11, 10), 5: (80, 81, 82, 80), 20: (80, 82, 81, 80)}, "holds", "holds"),
        ({1: (80, 81, 82, 80), 5: (30, 31, 30, 32), 20: (90, 91, 90, 92)}, "does not hold", "does not hold"),
        ({1: (50, 60, 40, 55), 5: (55, 45, 60, 50), 20: (62, 40, 70, 50)}, "not decidable", "not decidable"),
    ],
)
def test_claims_hold_fail_or_are_open(tmp_path, rights, too_few, adds_little):
    grid(tmp_path, rights, tasks=("one", "two", "three"))
    said = {claim.name: str(claim.outcome) for claim in prompt_length(pg.load_runs(tmp_path)).claims}
    assert said == {"one_token_is_too_few": too_few, "longest_adds_little": adds_little}


def test_what_a_claim_needs_is_said(tmp_path):
    """Three runs of each task and length; a shortest prompt of one token; prompts that learned."""
    grid(tmp_path / "few", {1: (10, 11), 5: (80, 81)})
    grid(tmp_path / "long", {2: (10, 11, 12, 10), 5: (80, 81, 80, 82)})
    grid(tmp_path / "untaught", {1: (2, 2, 2, 2), 5: (2, 2, 2, 2)})
    claims = {each: prompt_length(pg.load_runs(tmp_path / each)).claims for each in ("few", "long", "untaught")}
    assert "3 runs of each task and length" in claims["few"][0].needs
    assert claims["long"][0].needs == "runs with prompt.length=1" and str(claims["long"][1].outcome) == "does not hold"
    assert all(str(each.outcome) == "not decidable" for each in claims["untaught"])


def test_runs_without_a_partner_at_each_length_are_left_out_and_counted(tmp_path):
    grid(tmp_path, {1: (10, 11, 12), 5: (80, 81, 82)}, tasks=("one",))
    run(tmp_path, "one", 1, 7, 90)
    run(tmp_path, "two", 5, 0, 90)
    result = prompt_length(pg.load_runs(tmp_path))
    assert {each.quantity: each.value for each in result.numbers}["accuracy.all.P1"] == pytest.approx(0.11)
    assert result.omissions == [
        "prompt_length: 2 of 8 runs have no run of their task, init and seed at each length; left out."
    ]


def test_what_cannot_be_asked_is_one_line(tmp_path):
    grid(tmp_path / "one", {5: (10, 11)})
    with pytest.raises(UserError, match="one prompt length; train others"):
        prompt_length(pg.load_runs(tmp_path / "one"))
    run(tmp_path / "apart", "one", 1, 0, 9)
    run(tmp_path / "apart", "one", 5, 1, 9)
    with pytest.raises(UserError, match="no task, init and seed has a run at each of the lengths 1, 5"):
        prompt_length(pg.load_runs(tmp_path / "apart"))
