"""A prompt that is repeated: examples with copies become rows; trained and untrained numbers of copies are compared."""

import csv
import hashlib
from dataclasses import replace

import numpy as np
import pytest

import promptgeo as pg
import reference
from promptgeo.analysis import scoring
from promptgeo.analysis.questions.repeatable import repeatable
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.config.compose import compose
from promptgeo.config.schema import Split, SplitKind
from promptgeo.data.sources import read
from promptgeo.data.tasks import Example, Task
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, Trained, write_run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY

SEEDS = (0, 1, 2)
TASKS = ("plus_k", "plus_one", "plus_two")
PLAIN = ("template=bare", "init=vocab", "prompt.length=1", "evaluation.every=end")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("repeatable")
    return {
        (task, seed): reference.make_plan(TINY, out, f"task={task}", f"seed={seed}", *PLAIN)
        for task in TASKS
        for seed in SEEDS
    }


@pytest.fixture(scope="module")
def runs(plans):
    """Run folders with planted prompts: a run's number stands in its first coordinate; its P0 has minus that."""
    made = []
    for number, plan in enumerate(plans.values(), start=1):
        prompt = np.full((1, 256), 0.01, dtype=np.float32)
        initial, final = prompt.copy(), prompt.copy()
        initial[0, 0], final[0, 0] = -number, number
        results = {
            "split": "test",
            "n": 9,
            "steps": 1,
            "prompt_length": 1,
            "accuracy": {"final": 0.5, "initial": 0.0},
            "loss": {"final": 1.0},
        }
        write_run(
            plan.folder,
            plan.header(),
            Trained("completed", initial, final[None], np.array([1]), final, final, [], [], results),
        )
        made.append(Run.load(plan.folder))
    return table_of(made)


@pytest.fixture
def tiny(plans):
    return next(iter(plans.values())).lm


def marking(monkeypatch, answer):
    """Scores as a function answer(number of the run or 0 without prompt, input, copies) -> the answer."""

    def score(lm, prompts_S, sets_S):
        numbers = [int(prompt_Pd[0, 0]) if len(prompt_Pd) else 0 for prompt_Pd in prompts_S]
        return [
            np.array([answer(n, e.input, e.repeat) == e.label for e in evaluation_set.task.test])
            for n, evaluation_set in zip(numbers, sets_S, strict=True)
        ]

    monkeypatch.setattr(scoring, "score", score)


# The task.


def task_config(name):
    return compose([f"task={name}"]).task


def test_the_bundled_task_holds_what_it_says_and_shares_its_held_out_numbers():
    table = read(task_config("plus_k"))
    inputs = {
        split: {k: {int(text) for text, _, copies in rows if copies == k} for k in range(1, 6)}
        for split, rows in table.items()
    }
    held_out = {int(e.input) for e in pg.task("plus_one").test} - set(range(496, 501))
    train = set(range(1, 496)) - held_out
    assert inputs["train"] == {1: train, 2: train, 3: train, 4: set(), 5: set()}
    assert inputs["validation"] == {1: held_out, 2: held_out, 3: held_out, 4: set(), 5: set()}
    assert inputs["test"] == {1: set(), 2: set(), 3: set(), 4: held_out, 5: held_out}
    assert all(int(label) == int(text) + copies for rows in table.values() for text, label, copies in rows)


def test_other_bundled_data_know_nothing_of_copies():
    assert read(task_config("plus_one"))["all"][:2] == [("1", "2"), ("2", "3")]
    assert list(read(task_config("sentiment"))) == ["all"] and {e.repeat for e in pg.task("plus_one").train} == {1}


def test_a_column_of_copies_in_data_of_ones_own_counts_if_it_is_named(tmp_path):
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("input", "label", "repeat", "split"), ("a", "b", 3, "x"), ("c", "d", 2, "y")])
    config = replace(task_config("plus_k"), split=Split(kind=SplitKind.random))
    mine = replace(config.source, path=str(path))
    assert read(replace(config, source=mine)) == {"all": [("a", "b", 3), ("c", "d", 2)]}
    assert read(replace(config, source=replace(mine, repeat=None))) == {"all": [("a", "b"), ("c", "d")]}


def test_copies_stand_wherever_the_template_has_the_prompt(tiny):
    bare = pg.task("plus_k", template="bare").template
    task = Task("t", [], [], [], replace(bare, text="{prompt}+{prompt}{input}"))
    row = task.rows(tiny, [Example(0, "7", "9", 2)], 3)[0]
    assert row.ids.tolist() == [-1, -2, -3, -1, -2, -3, *tiny.encode("+"), -1, -2, -3, -1, -2, -3, *tiny.encode("7")]
    assert task.rows(tiny, [Example(0, "7", "9")], 1)[0].ids.tolist() == [-1, *tiny.encode("+"), -1, *tiny.encode("7")]


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_k_copies_are_scored_as_one_prompt_k_times_as_long(tiny, copies):
    task = pg.task("plus_k", template="bare")
    examples = [Example(i, str(10 + i), str(11 + i), copies) for i in range(6)]
    prompt = np.random.default_rng(copies).normal(0, 0.1, (1, 2, 256)).astype(np.float32)
    scores = pg.evaluate(tiny, prompt, replace(task, test=examples))
    longer = pg.evaluate(
        tiny, np.concatenate([prompt] * copies, axis=1), replace(task, test=[replace(e, repeat=1) for e in examples])
    )
    np.testing.assert_allclose(scores.losses, longer.losses, rtol=1e-4)
    once = pg.evaluate(tiny, prompt, replace(task, test=[replace(e, repeat=1) for e in examples]))
    assert copies == 1 or abs(scores.losses - once.losses).max() > 1e-3


def test_the_number_of_copies_is_in_the_fingerprint_and_one_copy_is_not():
    one = Task("t", [Example(0, "1", "2")], [], [Example(1, "3", "4")], pg.task("plus_k").template)
    two = replace(one, test=[Example(1, "3", "4", 2)])
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == "sha256:" + hashlib.sha256(b'[[[[0, "1", "2"]], [], [[1, "3", "4"]]], null]').hexdigest()


def test_the_same_input_with_other_copies_is_no_leak(caplog):
    pg.task("plus_k", **{"task.split.max_test": 50})
    assert "occur in both" not in caplog.text


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


# The analysis.


def by_copies(number, text, copies):
    """Runs 1 to 3 (plus_k) add k up to 3 and then 3; 4 to 6 (plus_one) add 1; 7 to 9 (plus_two) add 2."""
    return str(int(text) + [0, min(copies, 3), 1, 2][(number + 2) // 3 if number > 0 else 0])


def test_a_prompt_that_only_knows_what_was_trained_is_recognized(runs, tiny, monkeypatch):
    marking(monkeypatch, by_copies)
    result = repeatable(runs, lm=tiny)
    expected = {
        "trained": [1, 1, 1, 0, 0],
        "initial": [0] * 5,
        "once": [1, 0, 0, 0, 0],
        "other_task": [0, 1, 0, 0, 0],
        "unprompted": [0] * 5,
    }
    for kind, values in expected.items():
        assert [value(result, f"{kind}.plus_k.{k}") for k in range(1, 6)] == values, kind
        assert value(result, f"{kind}.plus_k.seen") == pytest.approx(np.mean(values[:3]))
        assert value(result, f"{kind}.plus_k.unseen") == 0
    assert [value(result, f"read_as.plus_k.{k}.3") for k in range(1, 6)] == [0, 0, 1, 1, 1]
    assert [value(result, f"once_as_one.plus_k.{k}") for k in range(1, 6)] == [1] * 5
    assert value(result, "difference.unseen_seen.plus_k") == -1
    sentences = [f.sentence for f in result.findings]
    assert "for k = 4 and 5, which were not trained, worse than 100.0%" in sentences[0]
    assert "for k = 1, 2 and 3, which were" in sentences[0]
    assert ["nothing shows that" in s for s in sentences[1:4]] == [True] * 3
    assert "4 copies of a plus_k prompt are more often read as 3 copies, in 100.0%" in sentences[4]
    assert "than as they were meant, which comes next: +100.0 points" in sentences[4]
    (claim,) = result.claims
    assert claim.name == "repeating_fails" and claim.holds and "two copies 0.0%" in claim.evidence
    assert claim.p < 0.001 and value(result, "once_initial.plus_k.1") == 0
    held_out = len({e.input for e in pg.task("plus_k").test})
    row = result.tables["accuracies"].query("kind == 'once' and k == 1 and seed == 1").to_dict("records")[0]
    assert (row["accuracy"], row["n"], row["seen"], row["task"]) == (1, held_out, True, "plus_one")
    assert (row["low"], row["high"]) == wilson(held_out, held_out)
    assert {"accuracy_plus_k", "read_as_plus_k"} == set(result.figures) and not result.omissions


def test_a_token_that_means_its_number_of_copies_is_recognized(runs, tiny, monkeypatch):
    """All seeds add k for any k; a repeated plus_one does so too for half of the inputs."""
    marking(
        monkeypatch,
        lambda n, text, k: (
            str(int(text) + k) if n in (1, 2, 3) or (n in (4, 5, 6) and (k == 1 or int(text) % 2)) else "none"
        ),
    )
    result = repeatable(runs, lm=tiny)
    sentences = [f.sentence for f in result.findings]
    assert value(result, "trained.plus_k.unseen") == 1
    assert "not detectably better or worse than 100.0%" in sentences[0] and "+0.0 points" in sentences[0]
    assert "so training taught it" in sentences[1]
    assert "so training with several copies taught it" in sentences[2]
    assert "so it belongs to the task" in sentences[3]
    assert "5 copies of a plus_k prompt are more often read as they were meant" in sentences[5]
    (claim,) = result.claims
    odd = np.mean([int(e.input) % 2 for e in pg.task("plus_k").test if e.repeat == 4])
    assert value(result, "once.plus_k.2") == pytest.approx(odd)
    # About half of the inputs: neither shown to be more than half, nor less.
    assert claim.outcome is Outcome.undecidable and claim.needs == "more runs than 3, or more examples"


def test_where_copies_say_nothing_the_sentence_says_so(runs, tiny, monkeypatch):
    marking(monkeypatch, lambda n, text, k: "none")
    sentences = [f.sentence for f in repeatable(runs, lm=tiny).findings]
    assert "4 copies of a plus_k prompt are never read as any number of copies" in sentences[4]


@pytest.mark.parametrize(
    ("answer", "outcome", "needs"),
    [
        (lambda n, text, k: str(int(text) + k), Outcome.undecidable, "a task that its P0 does not solve"),
        (lambda n, text, k: str(int(text) + k) if n > 0 else "", Outcome.fails, ""),
        (lambda n, text, k: "none", Outcome.undecidable, "prompts that solve the task with one copy"),
    ],
)
def test_repeating_can_only_fail_where_one_copy_works_and_training_taught_it(
    answer, outcome, needs, runs, tiny, monkeypatch
):
    marking(monkeypatch, answer)
    (claim,) = repeatable(runs, lm=tiny).claims
    assert claim.outcome is outcome and needs in claim.needs


def test_two_runs_do_not_speak_for_others(runs, tiny, monkeypatch):
    marking(monkeypatch, by_copies)
    result = repeatable(runs.query("seed < 2"), lm=tiny)
    (claim,) = result.claims
    assert claim.outcome is Outcome.undecidable and claim.needs == "3 runs or more"
    assert "not detectably better or worse than 100.0%" in result.findings[0].sentence
    assert "2 runs; 2 independent runs allow no verdict, 3 would)" in result.findings[0].sentence


def test_real_scores_are_those_of_evaluate(runs, plans, tiny):
    result = repeatable(runs.query("task == 'plus_k' and seed == 0"), lm=tiny, max_examples=5)
    task = plans["plus_k", 0].task
    inputs = {e.input for e in task.test if e.repeat == 4}
    chosen = sorted(np.sort(np.random.default_rng(0).choice(len(inputs), 5, replace=False)))
    ordered = [text for text in dict.fromkeys(e.input for e in task.validation)]
    four = [e for e in task.test if e.repeat == 4 and e.input in {ordered[i] for i in chosen}]
    by_hand = pg.evaluate(tiny, runs.prompts()[:1], replace(task, test=four)).accuracy[0]
    assert value(result, "trained.plus_k.4") == by_hand
    assert result.omissions == [
        "repeatable: 5 inputs of plus_k, drawn by seed 0, stand for all that are held out "
        "(max_examples=null scores all).",
        "repeatable: as controls, runs of a prompt trained on one copy only (task=plus_one for plus_k) "
        "and of another task's prompt (task=plus_two) are missing.",
    ]
    assert not result.claims


def test_what_cannot_be_scored_says_why(runs, tiny):
    with pytest.raises(UserError, match="needs runs of a task whose examples have several copies"):
        repeatable(runs.query("task != 'plus_k'"), lm=tiny)
