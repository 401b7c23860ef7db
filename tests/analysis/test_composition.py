"""Composed prompts: which runs meet, what is made of them, on which examples; findings about planted answers."""

import numpy as np
import pytest

import promptgeo as pg
import reference
from promptgeo.analysis import scoring
from promptgeo.analysis.composed_tasks import COMPOSITIONS, RULES, composed_examples
from promptgeo.analysis.questions.composition import composition
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, Trained, write_run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY

TASKS = ("plus_one", "plus_two", "country_capital", "lowercase_first_letter")
INITS = ("cat", "dog")
PLAIN = ("prompt.length=2", "evaluation.every=end", "evaluation.max_new_tokens=6", "template.longer_labels=warn")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("composition")
    return {
        (task, init): reference.make_plan(TINY, out, f"task={task}", f"init={init}", *PLAIN)
        for task in TASKS
        for init in INITS
    }


def planted(plan, folder, initial, final) -> Run:
    results = {
        "split": "test",
        "n": 9,
        "steps": 1,
        "prompt_length": 2,
        "accuracy": {"final": 0.5, "initial": 0.0},
        "loss": {"final": 1.0},
    }
    write_run(
        folder, plan.header(), Trained("completed", initial, final[None], np.array([1]), final, final, [], [], results)
    )
    return Run.load(folder)


@pytest.fixture(scope="module")
def runs(plans):
    """Run folders with planted prompts: P0 by init, a random delta of its own for each run."""
    generator = np.random.default_rng(0)
    p0 = {init: generator.normal(size=(2, 256)).astype(np.float32) for init in INITS}
    return table_of(
        [
            planted(plan, plan.folder, p0[init], (p0[init] + generator.normal(size=(2, 256))).astype(np.float32))
            for (_, init), plan in plans.items()
        ]
    )


@pytest.fixture
def tiny(plans):
    return next(iter(plans.values())).lm


class Known:
    """What stands for the model: it knows each prompt by its first coordinates, and answers by what it is."""

    def __init__(self, runs, monkeypatch, answer):
        self.scored: list[tuple[str, ...]] = []
        self.kinds: dict[bytes, tuple[str, ...]] = {}
        final, p0 = runs.prompts().astype(np.float64), runs.prompts("initial").astype(np.float64)
        where = [f"{row.task}:{row.init}" for row in runs.table.itertuples()]
        for a, name_a in enumerate(where):
            self.name(final[a], "run", name_a)
            self.name(p0[a], "p0", name_a.partition(":")[2])
            for b, name_b in enumerate(where):
                if name_a.partition(":")[2] == name_b.partition(":")[2]:
                    self.name(np.concatenate([final[a], final[b]]), "beside", name_a, name_b)
                    self.name(np.concatenate([p0[a], p0[b]]), "p0 twice")
                    # Sums, written another way than in the analysis.
                    self.name(final[a] + final[b] - p0[b], "sum", *sorted((name_a, name_b)))
                    self.name(np.mean([final[a], final[b]], axis=0), "mean", *sorted((name_a, name_b)))
        self.answer = answer
        monkeypatch.setattr(scoring, "score", self.score)

    def name(self, prompt, *what):
        self.kinds.setdefault(self.key(prompt), what)

    @staticmethod
    def key(prompt) -> bytes:
        # A coordinate next to a rounding edge is unlikely among a few.
        return (np.round(np.asarray(prompt, dtype=np.float64)[:, :4], 2) + 0.0).tobytes()

    def score(self, lm, prompts_S, sets_S):
        correct_S = []
        for prompt, evaluation_set in zip(prompts_S, sets_S, strict=True):
            task = evaluation_set.task
            what = self.kinds.get(self.key(prompt), ("unknown", len(prompt)))
            self.scored.append((task.name, *what))
            correct_S.append(np.array([self.answer(what, e, task.name) == e.label for e in task.test]))
        return correct_S


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


def sentence(result, start: str) -> str:
    (match,) = [f.sentence for f in result.findings if f.sentence.startswith(start)]
    return match


# The examples.


def test_composed_examples_go_through_both_tasks_and_need_both():
    inner, outer = pg.task("country_capital"), pg.task("lowercase_first_letter")
    composed = composed_examples(outer, inner)
    kept = []
    for e in inner.test:
        if e.label[0].lower() != e.input[0].lower():
            kept.append((e.id, e.input, e.label[0].lower()))
    assert [(e.id, e.input, e.label) for e in composed.examples] == kept
    assert composed.trivial == len(inner.test) - len(kept) > 0
    ids = {i for i, _, _ in kept}
    assert composed.inner == {e.id: e.label for e in inner.test if e.id in ids}
    assert composed.outer == {e.id: e.input[0].lower() for e in inner.test if e.id in ids}


def test_without_a_rule_the_outer_tasks_own_examples_say():
    inner, outer = pg.task("landmark_country"), pg.task("country_capital")
    composed = composed_examples(outer, inner)
    capitals = {e.input: e.label for e in (*outer.train, *outer.test)}
    by_input = {e.input: e.label for e in inner.test}
    assert len(composed.examples) > 50
    assert all(e.label == capitals[by_input[e.input]] for e in composed.examples)
    assert composed.outer == {}  # no landmark is a country


def test_training_inputs_of_the_composed_task_are_left_out():
    one = pg.task("plus_one")
    examples = composed_examples(one, one, {e.input for e in one.test[:30]}).examples
    assert {e.input for e in examples} == {e.input for e in one.test[30:]}
    assert all(int(e.label) == int(e.input) + 2 for e in examples)


def test_the_rules_are_those_of_the_bundled_data():
    for name, rule in RULES.items():
        assert all(rule(e.input) == e.label for e in (*pg.task(name).train, *pg.task(name).test)), name
    assert len({c.name for c in COMPOSITIONS}) == len(COMPOSITIONS)


# The prompts.


@pytest.mark.long
def test_runs_of_one_init_meet_and_are_put_together_in_each_way(runs, monkeypatch):
    model = Known(runs, monkeypatch, lambda what, e, name: "none")
    result = composition(runs, lm=None)
    made = {tuple(what) for name, *what in model.scored if name == "lowercase_first_letter_after_country_capital"}
    expected = set()
    for init in INITS:
        a, b = f"lowercase_first_letter:{init}", f"country_capital:{init}"
        expected |= {
            ("run", a),
            ("run", b),
            ("p0", init),
            ("beside", a, b),
            ("beside", b, a),
            ("sum", b, a),
            ("mean", b, a),
        }
    assert {what for what in made if what[0] not in ("unknown", "p0 twice")} == expected
    assert {what for what in made if what[0] == "unknown"} == {("unknown", 2), ("unknown", 4)}  # the random ones
    twice = {tuple(what) for name, *what in model.scored if name == "plus_one_after_plus_one"}
    assert {("beside", f"plus_one:{init}", f"plus_one:{init}") for init in INITS} <= twice
    assert ("sum", "plus_one:cat", "plus_one:cat") in twice
    assert {("run", "plus_two:cat"), ("run", "plus_two:dog")} <= twice  # trained on the composed task
    assert "average.plus_one_after_plus_one" not in {n.quantity for n in result.numbers}
    assert "lack one of the two tasks" in result.omissions[0]
    assert "country_capital_after_landmark_country" in result.omissions[0]


def test_random_prompts_are_as_long_as_the_delta_that_they_stand_for(runs, monkeypatch):
    seen = []

    def score(lm, prompts_S, sets_S):
        seen.extend(zip(prompts_S, sets_S, strict=True))
        return [np.zeros(evaluation_set.n, dtype=bool) for evaluation_set in sets_S]

    monkeypatch.setattr(scoring, "score", score)
    pair = runs.query("init == 'cat' and task in ('country_capital', 'lowercase_first_letter')")
    composition(pair, lm=None)
    (_, p0_a), (final_b, final_a) = pair.prompts("initial").astype(np.float64), pair.prompts().astype(np.float64)
    length = np.linalg.norm(final_a - p0_a, axis=1)
    beside = [
        p
        for p, e in seen
        if len(p) == 4
        and e.task.name.startswith("lower")
        and np.allclose(p[2:], final_b)
        and not np.allclose(p[:2], final_a)
        and not np.allclose(p[:2], p0_a)
    ]
    assert len(beside) == 1
    np.testing.assert_allclose(np.linalg.norm(beside[0][:2] - p0_a, axis=1), length, rtol=1e-5)
    summed = [
        p
        for p, _ in seen
        if len(p) == 2
        and np.allclose(np.linalg.norm(p - final_b, axis=1), length, rtol=1e-4)
        and not np.allclose(p, final_b + final_a - p0_a, atol=1e-4)
    ]
    assert len(summed) == 1
    np.testing.assert_allclose(summed[0] - beside[0][:2], final_b - p0_a, atol=1e-5)  # the same noise in both


# Findings.


def test_planted_composition_is_found_and_so_is_its_absence(runs, monkeypatch):
    """The sum does both tasks, side by side only the inner one, the mean nothing."""
    inner = {e.id: e.label for e in pg.task("country_capital").test}

    whole = {
        "lowercase_first_letter_after_country_capital": lambda e: inner[e.id][0].lower(),
        "plus_one_after_plus_one": lambda e: str(int(e.input) + 2),
        "plus_one_after_plus_two": lambda e: str(int(e.input) + 3),
        "plus_two_after_plus_one": lambda e: str(int(e.input) + 3),
        "plus_two_after_plus_two": lambda e: str(int(e.input) + 4),
    }

    def answer(what, e, name):
        if what[0] == "sum" or (what[0] == "run" and "plus_two" in what[1] and name == "plus_one_after_plus_one"):
            return e.label if name in whole and e.label == whole[name](e) else "none"
        if what[0] == "beside" and name.startswith("lowercase"):
            return inner[e.id]
        return "none"

    Known(runs, monkeypatch, answer)
    result = composition(runs, lm=None)
    assert value(result, "delta_sum.all") == 1 and value(result, "outer_inner.all") == value(result, "average.all") == 0
    assert value(result, "trained.plus_one_after_plus_one") == 1 and value(result, "difference.delta_sum.inner") == 1
    # All of one of three compositions of two tasks.
    assert value(result, "as_inner.outer_inner.all") == pytest.approx(1 / 3)
    assert value(result, "as_inner.delta_sum.all") == value(result, "as_outer.outer_inner.all") == 0
    assert "so more composed labels come out than without composing" in sentence(
        result, "The sum of both tasks' deltas on one P0 solves 100.0%"
    )
    assert "nothing shows that it composes" in sentence(
        result, "The outer task's prompt put before the inner's solves 0.0%"
    )
    assert "nothing shows that it composes" in sentence(result, "The mean of both tasks' prompts solves 0.0%")
    assert "not detectably more or fewer than prompts trained on the composed task 100.0%" in sentence(
        result, "On plus_one_after_plus_one the best way to compose (P0 + both deltas)"
    )
    (row,) = (
        result.tables["accuracies"]
        .query("kind == 'delta_sum' and composition == 'plus_one_after_plus_two' and init == 'dog'")
        .to_dict("records")
    )
    assert (row["accuracy"], row["n"], row["low"], row["high"]) == (1, 60, *wilson(60, 60))
    shown = result.tables["examples"].query("composition == 'plus_two_after_plus_two'")
    assert len(shown) == 60
    assert all(int(row.label) == int(row.input) + 4 == int(row.inner) + 2 for row in shown.itertuples())


def test_guessing_a_label_of_the_right_kind_is_not_composing(runs, monkeypatch):
    """The sum says the same letter whatever the input: it gets as much right when labels are shuffled."""
    Known(runs, monkeypatch, lambda what, e, name: "m" if what[0] == "sum" else "none")
    pair = runs.query("task in ('country_capital', 'lowercase_first_letter')")
    result = composition(pair, lm=None)
    letters = result.tables["examples"]["label"]
    share = (letters == "m").mean()
    assert 0 < share == pytest.approx(value(result, "delta_sum.all"))
    assert share == pytest.approx(value(result, "guessed.delta_sum.all"))
    assert value(result, "difference.delta_sum.guessed") == pytest.approx(0)
    assert value(result, "difference.delta_sum.inner") > 0
    text = sentence(result, "The sum of both tasks' deltas")
    assert "the best of its controls (the same prompts against shuffled labels)" in text
    assert "so nothing shows that it composes the tasks" in text


def test_harm_is_called_harm(runs, monkeypatch):
    Known(runs, monkeypatch, lambda what, e, name: e.label if what[0] == "run" else "none")
    result = composition(runs, lm=None)
    assert "so composing this way does harm" in sentence(result, "The sum of both tasks' deltas")
    assert value(result, "difference.outer_inner.trained") == -1


def test_on_the_model_the_numbers_are_the_same_each_time(runs, plans, tiny):
    pair = runs.query("init == 'cat' and task in ('country_capital', 'lowercase_first_letter')")
    result, again = (composition(pair, lm=tiny, max_examples=6) for _ in range(2))
    assert result.numbers == again.numbers and result.figures == again.figures
    assert (
        "6 examples, drawn by the seed, stand for all of lowercase_first_letter_after_country_capital (35)"
        in " ".join(result.omissions)
    )
    assert any("need runs of plus_two beside plus_one" in line for line in result.omissions)
    assert set(result.tables["accuracies"]["n"]) == {6}


def test_different_p0s_are_named(plans, runs, tmp_path, monkeypatch):
    Known(runs, monkeypatch, lambda what, e, name: "none")
    generator = np.random.default_rng(1)
    made = [
        (task, *generator.normal(size=(2, 2, 256)).astype(np.float32))
        for task in ("country_capital", "lowercase_first_letter")
    ]
    apart = table_of([planted(plans[task, "cat"], tmp_path / task, initial, final) for task, initial, final in made])
    assert any(
        "in 1 of 1 pairs the two runs start from different P0s" in line
        for line in composition(apart, lm=None).omissions
    )


def test_runs_that_do_not_go_together_are_refused(runs):
    with pytest.raises(UserError, match="needs runs of two tasks that go together"):
        composition(runs.query("task == 'country_capital'"), lm=None)
    with pytest.raises(UserError, match="with one init and seed"):
        composition(
            runs.query(
                "(task == 'country_capital' and init == 'cat') or (task == 'lowercase_first_letter' and init == 'dog')"
            ),
            lm=None,
        )
