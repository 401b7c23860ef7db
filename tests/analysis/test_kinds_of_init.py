"""inits: times by hand, by which kind of init; rates of its p and intervals are calibration's."""

from dataclasses import replace

import numpy as np
import pytest
from test_analyze import header, trained

import promptgeo as pg
from promptgeo.analysis.questions.inits import inits
from promptgeo.analysis.resampling import clopper_pearson
from promptgeo.errors import UserError
from promptgeo.runs.folder import METRICS_COLUMNS, write_run


def run(
    folder,
    task: str,
    kind: str,
    seed: int,
    losses: list[float],
    right: int,
    labels: bool = False,
    p0: int | None = None,
) -> None:
    """A run whose validation loss after 0, 10, 20, ... steps is this, and that solves so many of 20 test examples.

    p0: how many its P0 solves; None: that is not logged.
    """
    made, files = header(task, f"task_{kind}", seed), trained(seed)
    made["config"]["init"] |= {"kind": kind}
    rows = [
        dict.fromkeys(METRICS_COLUMNS, 1) | {"split": "validation", "step": 10 * k, "loss": loss}
        for k, loss in enumerate(losses)
    ]
    # Of a task with labels what counts is the choice: what is written is never right here.
    said = [
        {"prompt": prompt, "id": str(k), "correct": k < solved and not labels}
        | ({"label_correct": k < solved} if labels else {})
        for prompt, solved in (("final", right), ("initial", p0))
        if solved is not None
        for k in range(20)
    ]
    results = files.results | {"accuracy": {"final": right / 20, "initial": 0.05, "none": 0.05}}
    files = replace(files, metrics=rows, predictions=said, results=results)
    write_run(folder / f"{task}{kind}{seed}", made | {"fingerprints": {"model": "f", "data": task}}, files)


FAST = ([2.0, 1.0, 0.5, 0.4], [2.0, 0.9, 0.6, 0.4], [2.0, 1.1, 0.4, 0.4], [2.0, 0.5, 0.4, 0.4])
SLOW = ([2.0, 1.9, 1.2, 0.6], [2.0, 1.8, 1.1, 0.8], [2.0, 1.7, 1.6, 0.7], [2.0, 1.9, 1.9, 0.7])


def numbers_of(folder) -> dict:
    return {number.quantity: number for number in inits(pg.load_runs(folder)).numbers}


def test_time_is_until_the_loss_that_both_kinds_reach(tmp_path):
    for seed in range(4):
        run(tmp_path, "one", "text", seed, FAST[seed], 18)
        run(tmp_path, "one", "vocab", seed, SLOW[seed], 9)
    numbers = numbers_of(tmp_path)
    # Texts end at .4 on average, random inits at .7: so .7 must be reached.
    assert numbers["time.one.text"].value == pytest.approx(np.mean([20, 20, 20, 10]) / 30)
    assert numbers["time.one.text"].interval == pytest.approx(clopper_pearson(4 * 17.5 / 30, 4))
    assert numbers["time.one.random"].value == pytest.approx(np.mean([30, 30, 30, 30]) / 30)  # .8 never does
    assert numbers["difference.time"].value == pytest.approx(1 - 17.5 / 30)
    assert numbers["difference.time"].p is None  # runs of a text share a P0: none is valid
    assert numbers["difference.final"].value == pytest.approx(-9 / 20)


def test_both_claims_hold_of_slow_and_low_random_inits_and_fail_where_it_is_the_other_way_round(tmp_path):
    for folder, kinds in (("a", ("text", "vocab")), ("b", ("vocab", "text"))):
        for task in ("one", "two", "three"):
            for seed in range(4):
                run(tmp_path / folder, task, kinds[0], seed, FAST[seed], 18, labels=True)
                run(tmp_path / folder, task, kinds[1], seed, SLOW[seed], 9, labels=True)
    said = {f: {c.name: str(c.outcome) for c in inits(pg.load_runs(tmp_path / f)).claims} for f in ("a", "b")}
    names = ("random_init_takes_longer", "random_init_ends_lower")
    assert said == {"a": dict.fromkeys(names, "holds"), "b": dict.fromkeys(names, "does not hold")}


def test_two_runs_of_a_kind_cannot_decide_and_say_what_would(tmp_path):
    for seed in range(2):
        run(tmp_path, "one", "text", seed, FAST[seed], 18)
        run(tmp_path, "one", "vocab", seed, SLOW[seed], 9)
    claim = inits(pg.load_runs(tmp_path)).claims[0]
    assert str(claim.outcome) == "not decidable" and "four runs of each kind" in claim.needs


def test_runs_that_were_scored_at_their_ends_alone_do_not_say_when_they_had_learned(tmp_path):
    for seed in range(2):
        run(tmp_path, "one", "text", seed, [2.0, 0.4], 18)
        run(tmp_path, "one", "vocab", seed, SLOW[seed], 9)
    with pytest.raises(UserError, match=r"2 of these 4 runs were scored fewer than 4 times.*evaluation\.every=epoch"):
        inits(pg.load_runs(tmp_path))


def test_runs_of_one_kind_are_refused(tmp_path):
    run(tmp_path, "one", "text", 0, FAST[0], 18)
    run(tmp_path, "two", "vocab", 0, FAST[0], 18)
    with pytest.raises(UserError, match="of a text and of a random init"):
        inits(pg.load_runs(tmp_path))


def test_an_init_that_solves_its_task_untrained_has_nothing_to_take_time_for(tmp_path):
    """Claims are about tasks in which runs of both kinds beat their P0s; all are described."""
    for seed in range(4):
        for task, of_text in (("one", 1), ("two", 18)):
            run(tmp_path, task, "text", seed, FAST[seed], 18, p0=of_text)
            run(tmp_path, task, "vocab", seed, SLOW[seed], 9, p0=0)
    result = inits(pg.load_runs(tmp_path))
    numbers = {number.quantity: number for number in result.numbers}
    assert numbers["difference.time"].value == numbers["difference.time.one"].value
    assert (numbers["difference.time"].n, numbers["difference.final"].n) == (8, 20) and "time.two.text" in numbers
    assert result.omissions == [
        "inits: in two runs of a text (90.0% at P0; +0.0% by training) are not shown to learn; no claim is about it."
    ]
    assert all("8 runs" in claim.evidence for claim in result.claims)
    solved = inits(pg.load_runs(tmp_path).query("task == 'two'"))
    assert {str(claim.outcome) for claim in solved.claims} == {"not decidable"}
    assert all("solves untrained" in claim.needs for claim in solved.claims)
