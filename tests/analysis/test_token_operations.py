"""token_operations: every prompt it scores, made and scored again by hand; planted prompts give the right verdicts."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch

import reference
from promptgeo.analysis import scoring
from promptgeo.analysis.deciding import decided, for_all
from promptgeo.analysis.question import declaration
from promptgeo.analysis.questions.token_operations import token_operations
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.analysis.token_prompts import DIRECTIONS, other_orders, some_subsets
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, Trained, write_run
from promptgeo.runs.table import RunTable, table_of
from promptgeo.tiny import PATH as TINY

BARE = (
    "template=bare",
    "evaluation.every=end",
    "training.checkpoints=1000",
    "prompt.length=1",
    "task.split.max_test=8",
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return reference.make_plan(
        TINY, tmp_path_factory.mktemp("token"), "task=plus_one", "init=cat", "training.epochs=2", *BARE
    )


@pytest.fixture(scope="module")
def solved(plan):
    """A run whose single token means +1."""
    run = reference.trained(plan)
    assert run.info["results"]["accuracy"]["final"] == 1.0 and run.info["results"]["accuracy"]["initial"] == 0.0
    return run


def planted(source: Run, folder, *prompts: tuple[np.ndarray, np.ndarray | None]) -> RunTable:
    """Run folders whose P0 and final prompt were put there, all else as in a real run."""
    made = []
    for seed, (initial, final) in enumerate(prompts):
        info = {k: v for k, v in source.info.items() if k not in ("files", "sha256", "status", "results")}
        info["config"] = info["config"] | {"seed": seed}
        final = final.astype(np.float32)
        initial = None if initial is None else initial.astype(np.float32)
        results = source.info["results"] | {"prompt_length": len(final)}
        write_run(
            folder / str(seed),
            info,
            Trained("completed", initial, final[None], np.array([1]), final, final, [], [], results),
        )
        made.append(Run.load(folder / str(seed)))
    return table_of(made)


@pytest.fixture(scope="module")
def noisy(solved, tmp_path_factory):
    """Two prompts of 3 tokens: something of the solution, much noise."""
    generator, width = np.random.default_rng(1), solved.prompt().shape[1]
    near = [
        np.repeat(solved.prompt(), 3, 0) * [[1.0], [0.3], [0.1]]
        + generator.normal(0, [[0.05], [0.1], [0.5]], (3, width))
        for _ in range(2)
    ]
    return planted(
        solved, tmp_path_factory.mktemp("noisy"), *((generator.normal(0, 0.5, (3, width)), final) for final in near)
    )


@pytest.fixture(scope="module")
def result(noisy, plan):
    return token_operations(noisy, lm=plan.lm, draws=200)


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


def by_hand(p0_Pd, prompt_Pd) -> dict[str, list[np.ndarray]]:
    """What each kind is, one prompt after another."""
    delta = sum(prompt_Pd[i].astype(float) - p0_Pd[i].astype(float) for i in range(3))
    return {
        "trained": [prompt_Pd],
        "order": [prompt_Pd[list(o)] for o in permutations(range(3)) if o != (0, 1, 2)],
        "subset.1": [prompt_Pd[[i]] for i in range(3)],
        "subset.2": [prompt_Pd[list(c)] for c in combinations(range(3), 2)],
        "repeat.2": [np.stack([prompt_Pd[i]] * 2) for i in range(3)],
        "repeat.3": [np.stack([prompt_Pd[i]] * 3) for i in range(3)],
        "sum": [(prompt_Pd[0] + prompt_Pd[1] + prompt_Pd[2])[None]],
        "delta_sum": [(p0_Pd[i] + delta)[None] for i in range(3)],
        "initial": [p0_Pd],
        "initial_sum": [(p0_Pd[0] + p0_Pd[1] + p0_Pd[2])[None]],
    }


def said(model, lm, prompt_Pd, text: str) -> str:
    """The first token that the untouched model writes."""
    row = reference.row([*range(-1, -1 - len(prompt_Pd), -1), *lm.encode(text)], [0])
    with torch.no_grad():
        return lm.decode(
            [int(reference.label_logits(model, torch.from_numpy(np.asarray(prompt_Pd, np.float32)), row)[0].argmax())]
        ).strip()


@pytest.mark.long
def test_every_prompt_is_scored_as_made_by_hand(noisy, result, plan):
    model, examples = reference.original(TINY), plan.task.test
    expected = {}
    for run in noisy.runs:
        for kind, prompts in by_hand(run.prompt("initial"), run.prompt()).items():
            for prompt_Pd in prompts:
                texts = [said(model, plan.lm, prompt_Pd, e.input) for e in examples]
                row = [
                    np.mean([t == str(int(e.input) + k) for t, e in zip(texts, examples, strict=True)])
                    for k in (1, 2, 3)
                ]
                expected.setdefault(kind, []).append([*row, np.mean([t.isdigit() for t in texts])])
    for kind, rows in expected.items():
        accuracy, as_two, as_three, numeric = np.mean(rows, axis=0)
        assert value(result, f"{kind}.plus_one") == pytest.approx(accuracy), kind
        assert value(result, f"numeric.{kind}.plus_one") == pytest.approx(numeric), kind
        for k, hoped in ((2, as_two), (3, as_three)):
            if kind == f"repeat.{k}":
                assert value(result, f"repeat.{k}.plus_one.as_plus_{k}") == pytest.approx(hoped)
                once = np.mean([row[k - 1] for row in expected["subset.1"]])
                assert value(result, f"difference.repeat.{k}.plus_one.as_plus_{k}") == pytest.approx(hoped - once)
        if kind != "trained":
            assert value(result, f"difference.{kind}.plus_one") == pytest.approx(
                accuracy - expected_mean(expected, "trained", 0)
            )
            assert value(result, f"difference.numeric.{kind}.plus_one") == pytest.approx(
                numeric - expected_mean(expected, "trained", 3)
            )
    assert len({tuple(row) for rows in expected.values() for row in rows}) > 8, (
        "the prompts must differ for this to say anything"
    )
    assert value(result, "none.plus_one") == 0


def expected_mean(expected, kind: str, column: int) -> float:
    return float(np.mean([row[column] for row in expected[kind]]))


def test_numbers_have_their_n_and_intervals_and_the_table_wilsons(result):
    kinds = ("order.plus_one", "subset.2.plus_one", "none.plus_one")
    assert [number(result, kind).n for kind in kinds] == [10, 6, 8]
    assert number(result, "none.plus_one").interval == wilson(0, 8)
    for each in result.numbers:
        low, high = each.interval
        assert low <= each.value + 1e-9 and each.value - 1e-9 <= high, each
    table = result.tables["prompts"]
    for row in table.sample(10, random_state=0).itertuples():
        assert (row.low, row.high) == wilson(round(8 * row.accuracy), 8) and row.n == 8
    assert set(table.loc[table["kind"] == "order", "tokens"]) == {"0 2 1", "1 0 2", "1 2 0", "2 0 1", "2 1 0"}
    assert not result.omissions and "operations" in result.figures


def test_deltas_that_add_up_to_a_solution_do_so_on_p0_only(solved, plan, tmp_path):
    """P0 = three times one token, each delta a third of what leads from it to the solution."""
    solution = solved.prompt()
    start = np.random.default_rng(0).normal(0, 3 * solution.std(), solution.shape)
    p0 = np.repeat(start, 3, 0)
    three = [(p0, p0 + (solution - start) / 3)] * 3
    operations = token_operations(planted(solved, tmp_path, *three), lm=plan.lm)
    assert value(operations, "delta_sum.plus_one") == 1.0 and value(operations, "sum.plus_one") < 0.5
    assert number(operations, "delta_sum.plus_one").n == 3, "a word's P0 tokens are one"
    assert value(operations, "random_sum.plus_one") < 0.5
    assert number(operations, "random_sum.plus_one").n == 3 * DIRECTIONS, "of each run, not one"
    # The tokens one after the other do not mean +1: what their sum does says nothing of adding up a solution.
    assert claim(operations, "sum_of_deltas").outcome is Outcome.undecidable
    assert "the sum of the deltas on a P0 token 100.0%" in claim(operations, "sum_of_deltas").evidence


def claim(result, name: str):
    (match,) = [c for c in result.claims if c.name == name]
    return match


def test_equal_tokens_have_no_order_and_one_of_them_is_enough(solved, plan, tmp_path):
    """The claims follow the numbers, both ways; where training taught nothing they are not decidable."""
    solution, noise = solved.prompt(), np.random.default_rng(0).normal(0, 0.3, (1, solved.prompt().shape[1]))
    same = token_operations(
        planted(solved, tmp_path / "same", *[(noise.repeat(2, 0), solution.repeat(2, 0))] * 3), lm=plan.lm
    )
    assert value(same, "difference.order.plus_one") == 0 and value(same, "numeric.subset.1.plus_one") == 1.0
    assert value(same, "trained.plus_one") > 0.5 and claim(same, "orders_work").holds
    # This model writes numbers without any prompt: the token may have no part in it.
    one = claim(same, "one_token_numeric")
    assert one.outcome is Outcome.undecidable and "in which the outputs without a prompt are rarely" in one.needs
    assert "Premise not met: fewer than 90% of the outputs without a prompt are numbers" in one.evidence
    sentence = next(f.sentence for f in same.findings if "in another order" in f.sentence)
    assert "not detectably more or fewer than the trained prompt" in sentence
    assert "+0.0 points" in sentence and "alike" not in sentence
    assert "n = 3 prompts of 3 runs, 8 test examples)" in sentence
    token = token_operations(
        planted(solved, tmp_path / "noise", (noise.repeat(2, 0), np.concatenate([noise, noise * -1]))), lm=plan.lm
    )
    assert {each.outcome for each in token.claims} == {Outcome.undecidable}
    assert claim(token, "repeats_fail").needs.startswith("3 runs or more; prompts that solve the task as P0 does not")
    assert "test examples; an interval over test examples, for this run alone)" in token.findings[0].sentence


@pytest.fixture
def pretended(monkeypatch):
    """A model that adds what answer(first coordinates of a prompt's tokens) says; None: it writes a word."""
    from promptgeo.evaluation.evaluate import Evaluation

    def pretend(answer):
        def evaluate(lm, prompts_NPd, task, **_):
            adds = [answer([round(float(token), 3) for token in prompt_Pd[:, 0]]) for prompt_Pd in prompts_NPd]
            texts = [["word" if c is None else str(int(e.input) + c) for e in task.test] for c in adds]
            correct = np.array([[t == e.label for t, e in zip(row, task.test, strict=True)] for row in texts])
            return Evaluation(correct, np.zeros(correct.shape), np.ones(len(task.test)), None, texts)

        monkeypatch.setattr(scoring, "evaluate", evaluate)

    return pretend


@pytest.fixture(scope="module")
def marked(solved, tmp_path_factory):
    """Three runs of three tokens: first coordinates 1, 2, 3 as trained, and -1 in P0."""
    first = np.zeros((3, solved.prompt().shape[1]))
    first[:, 0] = [1, 2, 3]
    start = np.zeros_like(first)
    start[:, 0] = -1
    return planted(solved, tmp_path_factory.mktemp("marked"), *[(start, first)] * 3)


@pytest.mark.parametrize(("works", "outcome"), [(True, Outcome.fails), (False, Outcome.holds)])
def test_a_repeat_fails_where_it_does_not_mean_twice_as_much(works, outcome, marked, plan, pretended):
    """Three tokens, one, or any order of them mean +1; the same one twice +2, or again +1. P0 and no prompt: words."""

    def answer(tokens):
        if not tokens or min(tokens) < 0:
            return None
        return len(tokens) if works and len(set(tokens)) == 1 else 1

    pretended(answer)
    operations = token_operations(marked, lm=plan.lm, draws=100)
    assert value(operations, "trained.plus_one") == 1 and value(operations, "initial.plus_one") == 0
    assert value(operations, "repeat.2.plus_one.as_plus_2") == works
    assert value(operations, "difference.repeat.2.plus_one.as_plus_2") == works
    assert value(operations, "over_bar.repeat.2.as_plus_2.plus_one") == works - 0.5
    repeats = claim(operations, "repeats_fail")
    assert repeats.outcome is outcome and (repeats.p < 0.05) and "a token once solves 100.0%" in repeats.evidence
    assert {each.name for each in operations.claims} == set(declaration(token_operations).claims)
    assert claim(operations, "orders_work").holds and claim(operations, "orders_work").p < 0.05
    # 8 of 8 outputs: Wilson's interval reaches down to 68 %.
    one = claim(operations, "one_token_numeric")
    assert one.outcome is Outcome.undecidable and one.needs == "more runs than 3, or more test examples"
    assert "without a prompt 0.0%" in one.evidence and "not given" not in one.evidence
    enough = token_operations(marked, lm=plan.lm, draws=100, enough=0.6)
    assert claim(enough, "one_token_numeric").holds
    sentence = next(f.sentence for f in operations.findings if "gives the input plus 2" in f.sentence)
    assert ("more than the token once" if works else "not detectably more or fewer than the token once") in sentence


def test_nothing_is_claimed_of_prompts_that_solve_nothing(marked, plan, pretended):
    """Repeats cannot fail where nothing works: trained prompts and P0 alike write numbers that are wrong."""
    pretended(lambda tokens: 7)
    operations = token_operations(marked, lm=plan.lm, draws=100)
    assert value(operations, "trained.plus_one") == 0 and value(operations, "numeric.subset.1.plus_one") == 1
    assert {each.name for each in operations.claims} == set(declaration(token_operations).claims)
    for each in operations.claims:
        assert each.outcome is Outcome.undecidable
        assert each.needs.startswith("prompts that solve the task as P0 does not; prompts that solve the task as no")


@pytest.mark.parametrize(
    ("working", "outcome"), [([8], Outcome.holds), ([6], Outcome.fails), ([6, 8], Outcome.undecidable)]
)
def test_deltas_add_up_where_their_sum_does_more_than_the_tokens(working, outcome, marked, plan, pretended):
    """The sum of the deltas (9) on a P0 token (-1) is 8, the sum of the tokens 6; random directions are others."""

    def answer(tokens):
        whole = len(tokens) > 1 and min(tokens) > 0
        return 1 if whole or (len(tokens) == 1 and tokens[0] in working) else None

    pretended(answer)
    operations = token_operations(marked, lm=plan.lm, draws=100)
    sums = claim(operations, "sum_of_deltas")
    assert (value(operations, "delta_sum.plus_one"), value(operations, "sum.plus_one")) == (8 in working, 6 in working)
    # Both 8 of 8: that they are alike within 5 points would take more examples.
    assert sums.outcome is outcome
    assert value(operations, "difference.delta_sum.random_sum.plus_one") == (8 in working)


def test_several_tasks_hold_together_and_one_is_enough_to_fail():
    def of(interval, p, **options):
        return decided("c", interval, "words.", p=p, **options)

    holds, fails, open_ = of((0.1, 0.3), 0.01), of((-0.3, -0.1), 0.02), of((-0.1, 0.1), 0.5)
    assert (for_all([holds, of((0.1, 0.3), 0.03)]).outcome, for_all([holds, holds]).p) == (Outcome.holds, 0.01)
    assert for_all([holds, of((0.1, 0.3), 0.03)]).p == 0.03
    assert for_all([holds, open_]).outcome is Outcome.undecidable and for_all([holds, open_]).needs == "more runs"
    assert for_all([holds, open_, fails]).outcome is Outcome.fails
    # Too little to matter: an interval that holds 0 and ends below the margin.
    assert of((-0.01, 0.04), 0.5, margin=0.05).outcome is Outcome.fails
    assert of((-0.01, 0.06), 0.5, margin=0.05).outcome is Outcome.undecidable
    assert of((-0.06, -0.01), 0.01, margin=0.05, below=True).outcome is Outcome.holds


def test_what_was_drawn_is_named_and_the_same_each_time(noisy, plan):
    options = dict(lm=plan.lm, max_orders=2, max_subsets=1, max_runs=1, max_examples=4, draws=50)
    first, again = (token_operations(noisy, **options) for _ in range(2))
    for words in ("1 of 2 runs", "2 of 5 other orders", "1 subsets each of 1, 2 tokens", "4 test examples of a task"):
        assert any(words in o for o in first.omissions), words
    assert first.numbers == again.numbers and first.figures == again.figures
    table = first.tables["prompts"]
    orders = table.loc[table["kind"] == "order", "tokens"]
    assert len(orders) == len(set(orders)) == 2 and "0 1 2" not in set(orders) and set(table["n"]) == {4}


def test_many_tokens_are_drawn_without_listing_all_orders():
    orders = other_orders(20, 23, np.random.default_rng(0))
    assert len(set(orders)) == 23 and all(sorted(o) == list(range(20)) for o in orders)
    assert len(other_orders(4, 23, np.random.default_rng(0))) == 23
    subsets = some_subsets(20, 10, 12, np.random.default_rng(0))
    assert len(set(subsets)) == 12 and all(len(set(s)) == 10 and list(s) == sorted(s) for s in subsets)


def test_what_these_runs_cannot_support_is_named(solved, noisy, plan, tmp_path):
    with pytest.raises(UserError, match="needs prompts of at least two tokens"):
        token_operations(table_of([solved]), lm=plan.lm)
    with pytest.raises(UserError, match="needs runs trained here"):
        token_operations(RunTable.from_arrays(noisy.prompts(), noisy.table), lm=plan.lm)
    with pytest.raises(UserError, match="repeats from 2 to 1,000"):
        token_operations(noisy, lm=plan.lm, repeats=(1,))
    mixed = table_of([solved, *noisy.runs])
    operations = token_operations(mixed, lm=plan.lm, draws=50)
    assert any("the prompts of plus_one.P1 have one token" in o for o in operations.omissions)
    assert value(operations, "trained.plus_one.P3") >= 0
    half = planted(solved, tmp_path, (None, noisy.prompts()[0]), (noisy.prompts("initial")[1], noisy.prompts()[1]))
    operations = token_operations(half, lm=plan.lm, draws=50)
    assert any("1 of 2 runs of plus_one have no P0" in o for o in operations.omissions)
    both = token_operations(noisy, lm=plan.lm, draws=50).tables["prompts"]
    second = (
        both[(both["kind"] == "initial") & (both["seed"] == 1)]["accuracy"].item()
        - both[(both["kind"] == "trained") & (both["seed"] == 1)]["accuracy"].item()
    )
    assert value(operations, "difference.initial.plus_one") == pytest.approx(second), "P0 against the run that has one"


def test_tasks_without_numbers_have_no_numeric_outputs(plan, tmp_path):
    words = reference.make_plan(
        TINY,
        tmp_path,
        "task=present_past",
        "init=cat",
        "training.epochs=0",
        "prompt.length=2",
        "task.split.max_test=3",
        "evaluation.max_new_tokens=2",
        "template.longer_labels=warn",
    )
    operations = token_operations(table_of([reference.trained(words)]), lm=plan.lm, draws=50)
    assert any("the labels of present_past are not numbers" in o for o in operations.omissions)
    assert not any("numeric" in each.quantity or "as_plus" in each.quantity for each in operations.numbers)
    assert not operations.claims
    assert "numbers" not in operations.findings[0].sentence
