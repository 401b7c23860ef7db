"""mechanism: vectors and what they do equal a plain model with hooks of its own; planted directions are found."""

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import families
import reference
from promptgeo import FrozenLM
from promptgeo.analysis.geometry import mechanism_scores
from promptgeo.analysis.geometry.mechanism_scores import Injection, Measured, Way
from promptgeo.analysis.geometry.task_vectors import alike, cosines, random_like
from promptgeo.analysis.groups import by_task
from promptgeo.analysis.injecting import Injected, mean_end_states
from promptgeo.analysis.questions import mechanism as question
from promptgeo.analysis.questions.mechanism import SAME_AS, VECTOR, answer, mechanism
from promptgeo.analysis.resampling import t_quantile
from promptgeo.analysis.result import Outcome, Result
from promptgeo.analysis.scoring import Bootstrap, EvaluationSet, Scored
from promptgeo.config.schema import Scoring, Template
from promptgeo.data.example import Example
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

TEN = ("gpt2", "bloom", "gpt_neox", "opt", "llama", "qwen2", "gemma3_text", "phi", "qwen3", "olmo2")
WORDS = ("cat", "dog", "bird", "book", "house", "chair")


def a_task(text: str = "Input: {input}\nLabel:") -> Task:
    """Six inputs; one is the beginning of another."""
    examples = [Example(k, word, f"{word}s") for k, word in enumerate(WORDS)]
    examples[1] = Example(1, "cat dog", "bird")
    template = Template(name="t", text=text, label=" {label}", end="\n", scoring=Scoring.line, max_new_tokens=4)
    return Task("t", examples[:3], [], examples, template)


# Against a plain model.


@pytest.fixture(scope="module", params=TEN)
def pair(request, tokenizer):
    plain = families.make_model(request.param)
    return FrozenLM(families.make_model(request.param), tokenizer, name=request.param), plain


def block_of(plain, layers: int):
    return next(m for m in plain.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layers)


def in_grids(lm, kind: str, monkeypatch) -> None:
    if kind == "grid":
        monkeypatch.setattr(lm, "_shares_prefixes", False)


@pytest.mark.parametrize("kind", ["tree", "grid"])
@pytest.mark.parametrize("text", ["Input: {input}\nLabel:", "{input}"])
def test_a_vector_is_added_to_the_last_token_alone(pair, kind, text, monkeypatch):
    """Losses and answers equal those of a plain model whose block's input is changed at one place by a hook."""
    lm, plain = pair
    in_grids(lm, kind, monkeypatch)
    task, layer = a_task(text), lm.layers - 1
    rows = task.rows(lm, task.test, 0)
    width = lm.hidden(torch.zeros(1, 0, lm.width), rows[:1], [0], [layer], [[-1]])[0].shape[-1]
    vectors = 4 * np.random.default_rng(1).normal(size=(2, width))
    right, losses = Injected(lm, EvaluationSet(task, 4, 6)).answers(layer, vectors)
    assert right.shape == (2, 6)
    for vector, correct_E, loss in zip(vectors, right, losses, strict=True):
        wanted, tokens = 0.0, 0
        for row, correct in zip(rows, correct_E, strict=True):

            def add(_, args, named, row=row, vector=vector):
                states = (args[0] if args else named["hidden_states"]).clone()
                states[0, len(row.ids) - 1] += torch.tensor(vector, dtype=torch.float32)
                return ((states, *args[1:]), named) if args else (args, named | {"hidden_states": states})

            handle = block_of(plain, lm.layers)[layer].register_forward_pre_hook(add, with_kwargs=True)
            with torch.no_grad():
                wanted += float(reference.row_loss(plain, torch.zeros(0, lm.width), row))
                logits = reference.label_logits(plain, torch.zeros(0, lm.width), row)
            handle.remove()
            tokens += len(row.label)
            # The label alone is asked: these models write no other text that is accepted.
            assert correct == (logits.argmax(-1).tolist() == row.label.tolist())
        assert loss == pytest.approx(wanted / tokens, rel=2e-5)
    plainly = EvaluationSet(task, 4, 6).evaluate(lm, np.zeros((1, 0, lm.width), np.float32))
    _, same = Injected(lm, EvaluationSet(task, 4, 6)).answers(layer, np.zeros((1, width)))
    assert same[0] == pytest.approx(plainly.loss[0], rel=1e-6)
    assert np.abs(losses - same[0]).min() > 1e-3


@pytest.mark.parametrize("kind", ["tree", "grid"])
def test_mean_states_are_those_of_a_plain_forward(pair, kind, monkeypatch):
    lm, plain = pair
    in_grids(lm, kind, monkeypatch)
    task = a_task()
    prompt = np.random.default_rng(2).normal(size=(3, lm.width)).astype(np.float32) * lm.embedding_scale
    layers = list(range(1, lm.layers))
    found = mean_end_states(lm, task, task.test, prompt, layers)
    states = []
    for row in task.rows(lm, task.test, 3):
        inputs = reference.embeddings(plain, torch.tensor(prompt), row.ids)[None]
        with torch.no_grad():
            out = plain(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        states.append([out.hidden_states[layer][0, -1].numpy() for layer in layers])
    wanted = np.mean(states, axis=0)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_model_that_reads_ids_is_refused(tokenizer, monkeypatch):
    lm = FrozenLM(families.make_model("gpt2"), tokenizer, name="small")
    monkeypatch.setattr(lm, "_by_ids", True)
    with pytest.raises(UserError, match="model small: its layers read token ids too"):
        Injected(lm, EvaluationSet(a_task(), 4, 6))


# Of trained runs.

SMALL = ("task.split.max_train=24", "task.split.validation=0.2", "task.split.max_test=8", "training.max_steps=40")
SMALL += ("training.epochs=100", "evaluation.every=end", "prompt.length=2", "training.batch_size=8", "init=vocab")
OPTIONS = mechanism_scores.Options(3, 2, 6, 6, None, None, (1.0, 4.0), 0.1, 5)


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out, tasks = tmp_path_factory.mktemp("mechanism"), ("country_capital", "singular_plural")
    made = [reference.make_plan(TINY, out, f"task={task}", f"seed={s}", *SMALL) for task in tasks for s in range(2)]
    assert train_pack(made) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def made(runs, plans):
    return mechanism_scores.measured(plans[0].lm, runs, OPTIONS)


@torch.no_grad()
def plain_states(model, embeds) -> np.ndarray:
    """[S, D] at the last position, before blocks 1, 2 and 3."""
    out = model(inputs_embeds=embeds[None], output_hidden_states=True, use_cache=False)
    return np.stack([states[0, -1].double().numpy() for states in out.hidden_states[1:4]])


def test_vectors_are_mean_differences_of_a_plain_models_states(made, plans, runs):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)
    lookup = model.get_input_embeddings()

    def of_text(text):
        return lookup(torch.tensor(tokenizer(text, add_special_tokens=False).input_ids))

    for number, plan in enumerate(plans[::2]):
        task = plan.task
        order = np.random.default_rng([5, 1]).permutation(len(task.train))
        inputs = [f"Input: {task.train[i].input}\nLabel:" for i in order[:6]]

        def mean(before_Pd, inputs=inputs):
            return np.mean([plain_states(model, torch.cat([before_Pd, of_text(x)])) for x in inputs], axis=0)

        prompts, demonstrations, instruction = (way for way in made.ways if way.task == number)
        for u in range(2):
            final, initial = (torch.tensor(runs.runs[2 * number + u].prompt(which)) for which in ("final", "initial"))
            np.testing.assert_allclose(prompts.vectors_USD[u], mean(final) - mean(initial), atol=1e-4)
            drawn = [task.train[i] for i in np.random.default_rng([5, 2, u]).permutation(order[6:])[:3]]
            assert not {each.input for each in drawn} & {task.train[i].input for i in order[:6]}
            labels = [each.label for each in drawn]
            moved = [labels[(k + 1 + u % 2) % 3] for k in range(3)]
            pairs = [list(zip(drawn, x, strict=True)) for x in (labels, moved)]
            shown = [of_text("".join(f"Input: {each.input}\nLabel: {label}\n" for each, label in x)) for x in pairs]
            np.testing.assert_allclose(demonstrations.vectors_USD[u], mean(shown[0]) - mean(shown[1]), atol=1e-4)
        text = plan.config.task.text
        orders = mechanism_scores._other_orders(text.split(), 2, 5)
        assert all(sorted(other.split()) == sorted(text.split()) and other != text for other in orders)
        shuffled = np.mean([mean(of_text(f"{other}\n")) for other in orders], axis=0)
        np.testing.assert_allclose(instruction.vectors_USD[0], mean(of_text(f"{text}\n")) - shuffled, atol=1e-4)


def test_what_is_added_does_what_it_does_in_a_plain_model(made, plans):
    """Greedy writing, each token by a forward of its own, with the vector added by a hook at the input's end."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)
    helping, solved = made.of("prompt"), 0
    assert len(helping) == 2
    for way in helping:
        s, c = way.injection.place
        layer, scale, task = made.layers[s], made.scales[c], plans[2 * way.task].task
        for u, vector_SD in enumerate(way.vectors_USD):
            for example, correct in zip(task.test, way.injection.right["own"][u], strict=True):
                ids = tokenizer(f"Input: {example.input}\nLabel:", add_special_tokens=False).input_ids
                at, vector = len(ids) - 1, torch.tensor(scale * vector_SD[s], dtype=torch.float32)

                def add(_, args, at=at, vector=vector):
                    states = args[0].clone()
                    states[0, at] += vector
                    return (states, *args[1:])

                handle = model.transformer.h[layer].register_forward_pre_hook(add)
                while len(ids) < at + 17 and "\n" not in tokenizer.decode(ids[at + 1 :]):
                    with torch.no_grad():
                        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
                handle.remove()
                written = re.split(r"\n|<\|endoftext\|>", tokenizer.decode(ids[at + 1 :]))[0].strip()
                assert correct == (written == example.label), (example, written)
                solved += correct
    assert 3 <= solved <= 30, "a mix of right and wrong answers is what tells vectors apart"


def test_the_place_is_where_most_choosing_examples_are_right(made):
    for way in made.of("prompt"):
        share_SC = way.injection.chosen_SCUE.mean((2, 3))
        assert share_SC[way.injection.place] == share_SC.max()
        assert way.injection.random_SUE.shape == (3, 2, 5)
    assert [each.n for each in made.choosing] == [5, 5] and made.layers == [1, 2, 3]
    tested = {example.input for each in made.tests for example in each.task.test}
    assert not tested & {example.input for each in made.choosing for example in each.task.test}


def test_without_validation_examples_the_place_is_chosen_on_training_examples_of_no_other_use(runs):
    (group, _), omissions = by_task(runs, "mechanism"), []
    task = replace(group.evaluation_set.task, validation=[])
    group = replace(group, evaluation_set=replace(group.evaluation_set, task=task))
    material = mechanism_scores._material(group, 0, OPTIONS, omissions)
    assert "country_capital has no validation examples" in omissions[0] and "on 6 training examples" in omissions[0]
    choosing, inputs = ({each.id for each in those} for those in (material.choosing.task.test, material.inputs))
    shown = {each.id for draw in material.shown for each in draw}
    assert len(choosing) == 6 and len(inputs) == 6 and len(shown) > 3
    assert not choosing & inputs and not choosing & shown and not inputs & shown
    assert choosing | inputs | shown <= {each.id for each in task.train}


def test_a_way_helps_where_it_beats_no_prompt_and_what_says_nothing(made, plans):
    for way in made.ways:
        none, chosen = made.none_chosen[way.task], made.choosing[way.task]
        nothing = [chosen.evaluate(plans[0].lm, each[None]).accuracy[0] for of_unit in way.nothing for each in of_unit]
        assert way.gain == pytest.approx(way.chosen_UE.mean() - none.mean())
        assert way.beyond == pytest.approx(way.chosen_UE.mean() - np.mean(nothing))
        assert (way.injection is not None) == (way.gain >= 0.1 and way.beyond >= 0.1)
    assert any(way.gain >= 0.1 > way.beyond for way in made.ways)
    for gain, beyond, helps in ((0.1, 0.1, True), (0.09, 0.5, False), (0.5, 0.09, False)):
        assert Way("prompt", 0, [], [], [], gain=gain, beyond=beyond).helps(0.1) == helps


def test_another_tasks_vectors_are_another_tasks(made):
    first, second = made.of("prompt")
    assert first.injection.others == [(2,), (3,)] and second.injection.others == [(0,), (1,)]
    others, _ = mechanism_scores._others(first, [first, second])
    np.testing.assert_array_equal(others, second.vectors_USD)


def test_the_analysis_says_what_was_measured(runs, plans, made):
    result = mechanism(
        runs,
        lm=plans[0].lm,
        shots=3,
        sets=2,
        examples=6,
        validation=6,
        max_examples=None,
        layers=None,
        scales=[1, 4],
        seed=5,
    )
    own = np.mean([way.injection.right["own"].mean() for way in made.of("prompt")])
    assert numbers(result)["injected.prompt"].value == pytest.approx(own)
    assert claims(result)[VECTOR].outcome is Outcome.undecidable  # of two runs a task, the premise of independent runs
    assert set(result.tables["ways"]["way"]) == set(mechanism_scores.WAYS)
    units = result.tables["units"]
    assert [*units["run"]] == [run.id for run in runs.runs] and [*units["unit"]] == [0, 1, 0, 1]


def test_settings_that_are_lowered_and_shares_that_are_not_known_are_said(runs):
    (group, _), omissions = by_task(runs, "mechanism"), []
    examples, held = (len(part) for part in (group.evaluation_set.task.train, group.evaluation_set.task.validation))
    mechanism_scores._material(group, 0, replace(OPTIONS, examples=1000, validation=1000), omissions)
    wanted = [f"over {examples // 2} training inputs, half of all, not 1000", f"on all {held} validation examples, not"]
    assert [words in said for words, said in zip(wanted, omissions, strict=True)] == [True, True]


def test_a_share_of_no_gain_is_said_to_be_unknown(without_figures):
    made = planted(4)
    for way in made.of("demonstrations"):
        way.right_UE[:] = False  # nor does no prompt solve a test example
    result = said(made)
    assert "recovery.demonstrations" not in numbers(result)
    assert any("mechanism: recovery.demonstrations is not known" in line for line in result.omissions)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shots": 1}, "mechanism: shots=1, sets=3"),
        ({"scales": [1, 0]}, "mechanism: scales=[1, 0]: finite numbers other than 0"),
        ({"least": 0}, "mechanism: least=0: an accuracy between 0 and 1"),
        ({"shots": 20}, "has 19 training examples, of which 10 are left for 20 demonstrations"),
    ],
)
def test_what_cannot_be_asked_is_one_line(runs, plans, options, says):
    with pytest.raises(UserError, match=re.escape(says)):
        mechanism(runs, lm=plans[0].lm, **options)


def test_a_shuffled_instruction_is_never_the_instruction():
    assert all(mechanism_scores._other_orders(["Write", "it"], 4, seed) == 4 * ["it Write"] for seed in range(5))


# Cosines and recovery, from their definitions.


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_cosines_are_means_over_pairs_and_p_goes_through_all_orders_of_tasks():
    generator = np.random.default_rng(0)
    one, other = ([generator.normal(size=(u, 2, 5)) for u in (3, 2, 1, 2)] for _ in range(2))
    found = cosines(one, other)
    for s, t, k in ((0, 0, 0), (1, 2, 3), (1, 1, 0)):
        wanted = np.mean([cosine(a[s], b[s]) for a in one[t] for b in other[k]])
        assert found[s, t, k] == pytest.approx(wanted)
    said = alike(found, 5000, 0)
    mean = found.mean(0)

    def beyond(order, kept=range(4)):
        same = [mean[t, order[t]] for t in kept]
        apart = [mean[t, order[k]] for t in kept for k in kept if k != t]
        return np.mean(same) - np.mean(apart)

    value, identity = beyond(range(4)), list(range(4))
    null = [beyond(order) for order in permutations(range(4))]
    assert said.difference == pytest.approx(value)
    assert said.p == pytest.approx(np.mean(np.array(null) >= value - 1e-12)) and len(null) == 24
    without = np.array([beyond(identity, [t for t in range(4) if t != k]) for k in range(4)])
    half = t_quantile(0.975, 3) * np.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    assert (said.low, said.high) == pytest.approx((value - half, value + half))
    np.testing.assert_allclose(said.same_S, [found[s].trace() / 4 for s in range(2)])
    assert alike(found[:, :2, :2], 10, 0).low is None and alike(found[:, :1, :1], 10, 0).p is None


def test_a_random_vector_is_as_long_as_the_vector_at_each_layer():
    vectors = np.random.default_rng(0).normal(size=(3, 50)) * np.array([[1.0], [0.0], [7.0]])
    drawn = random_like(vectors, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), np.linalg.norm(vectors, axis=1))
    assert abs(cosine(drawn[0], vectors[0])) < 0.5


def test_a_share_is_the_ratio_of_gains_with_runs_left_out_and_examples_drawn():
    """Here the gain varies, not the part: by runs, then by examples."""
    generator = np.random.default_rng(0)
    evaluation_set = EvaluationSet(a_task(), 4, 6)
    object.__setattr__(evaluation_set.task, "test", [Example(k, f"{k}", "x") for k in range(400)])

    def scored(rates):
        rows = [generator.random(400) < rate for rate in rates]
        return rows, Scored(rows, [evaluation_set] * len(rates), [(n,) for n in range(len(rates))])

    (parts, part), (wholes, whole) = scored([0.4] * 4), scored([0.5, 0.95, 0.9, 0.55])
    none = Scored([generator.random(400) < 0.1], [evaluation_set], [()])
    found, start = Bootstrap(seed=3).share(part, whole, none), none.mean

    def share(those):
        a, b = (np.mean([rows[n] for n in those]) for rows in (parts, wholes))
        return (a - start) / (b - start)

    assert found.value == pytest.approx(share(range(4))) and found.runs == 4
    without = np.array([share([n for n in range(4) if n != k]) for k in range(4)])
    half = t_quantile(0.975, 3) * np.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    low, high = found.interval
    assert half > 0.2 and found.value - 1.5 * half < low < found.value - half
    assert found.value + half < high < found.value + 1.5 * half and found.at(0.99)[0] < low
    (one, part), (other, whole) = scored([0.28]), scored([0.3])
    alone = Bootstrap(seed=3).share(part, whole, none)
    drawn = generator.integers(0, 400, (2000, 400))
    a, b, c = (rows[0][drawn].mean(1) for rows in (one, other, none.correct_S))
    low, high = alone.interval  # of one run: over examples alone
    spread = 1.96 * np.std((a - c) / (b - c))
    assert 0.85 * spread < alone.value - low < 1.3 * spread and 0.85 * spread < high - alone.value < 1.3 * spread
    nothing = Bootstrap(seed=3).share(part, none, none)
    assert not np.isfinite(nothing.value) and nothing.interval == (-np.inf, np.inf)


@pytest.mark.long
@pytest.mark.parametrize(("part", "whole", "none"), [(0.5, 0.9, 0.05), (0.02, 0.6, 0.0), (0.9, 0.95, 0.3)])
def test_the_interval_of_a_share_holds_the_truth_in_most_draws(part, whole, none):
    """Runs differ, and so do examples."""
    held, draws, examples = 0, 300, 40
    sets = [EvaluationSet(a_task(), 4, 6) for _ in range(3)]
    for each in sets:
        object.__setattr__(each.task, "test", [Example(k, f"{k}", "x") for k in range(examples)])
    for seed in range(draws):
        generator = np.random.default_rng(seed)

        def drawn(rate, units, generator=generator):
            logit = np.log(rate / (1 - rate)) if rate else -30.0
            hard_E, run_U1 = generator.normal(size=examples) * 0.7, generator.normal(size=(units, 1)) * 0.4
            return list(generator.random((units, examples)) < 1 / (1 + np.exp(-(logit + hard_E + run_U1))))

        units = [(n,) for n in range(9)]
        those = [
            Scored([row for _ in sets for row in drawn(rate, 3)], [s for s in sets for _ in range(3)], units, True)
            for rate in (part, whole)
        ]
        start = Scored([drawn(none, 1)[0] for _ in sets], sets, [()] * 3, True)
        big = np.random.default_rng(9)

        def mean(rate, big=big):
            logit = np.log(rate / (1 - rate)) if rate else -30.0
            return (1 / (1 + np.exp(-(logit + big.normal(size=200_000) * np.hypot(0.7, 0.4))))).mean()

        truth = (mean(part) - mean(none)) / (mean(whole) - mean(none))
        low, high = Bootstrap(draws=200, seed=seed).share(*those, start).interval
        held += low <= truth <= high
    assert held / draws > 0.92


# Planted vectors: what is said of them.


def planted(
    seed: int,
    tasks: int = 4,
    shared: float = 1.0,
    does: float = 0.8,
    helps: tuple[float, ...] = (0.9, 0.7, 0.5),
    width: int = 32,
    common: float = 0.0,
) -> Measured:
    """What a model might have said of tasks in which all ways share a direction, or none.

    shared: of a task's direction in the demonstrations' and the instruction's vectors. does: what a soft prompt's own
    vector gets right. common: of one direction in all vectors of a way, whatever the task.
    """
    # Long because it makes all that is measured.
    generator = np.random.default_rng(seed)
    sets = [EvaluationSet(a_task(), 4, 6) for _ in range(tasks)]
    for each in sets:
        object.__setattr__(each.task, "test", [Example(k, f"{k}", "x") for k in range(30)])
    axes = generator.normal(size=(tasks, 3, width))
    ways, units = [], 0
    for kind, help_ in zip(mechanism_scores.WAYS, helps, strict=True):
        of_kind = common * generator.normal(size=(3, width))
        for task in range(tasks):
            n = 1 if kind == "instruction" else 3
            runs = [()] if kind == "instruction" else [(units + u,) for u in range(n)]
            units += n
            own = axes[task] if kind == "prompt" else shared * axes[task] + generator.normal(size=(3, width))
            vectors = own + of_kind + 0.7 * generator.normal(size=(n, 3, width))
            way = Way(kind, task, runs, [np.zeros((1, 2))] * n, [[np.zeros((1, 2))]] * n, vectors)
            way.chosen_UE, way.right_UE = (generator.random((n, 30)) < help_ for _ in range(2))
            way.gain = way.beyond = float(way.chosen_UE.mean())
            if way.gain >= 0.1:
                level = does if kind == "prompt" else 0.1
                chosen = generator.random((3, 2, n, 30)) < level
                right = {
                    name: generator.random((n, 30)) < rate
                    for name, rate in (("own", level), ("random", 0.05), ("other", 0.1))
                }
                others = [(run[0] + 3,) if run else () for run in runs]
                way.injection = Injection(chosen, (1, 0), generator.random((3, n, 30)) < 0.05, right, others)
            ways.append(way)
    none = [np.zeros(30, bool)] * tasks
    names = [f"task{t}" for t in range(tasks)]
    return Measured(names, sets, sets, none, none, [1, 2, 3], (1.0, 2.0), ways, [])


@pytest.fixture
def without_figures(monkeypatch):
    for name in ("_recovery_figure", "_cosine_figure"):
        monkeypatch.setattr(question, name, lambda *_: "")


def said(made: Measured, seed: int = 0) -> Result:
    result = Result()
    answer(made, 0.1, 5000, seed, result)
    return result


def claims(result: Result) -> dict:
    return {claim.name: claim for claim in result.claims}


def numbers(result: Result) -> dict:
    return {number.quantity: number for number in result.numbers}


def test_a_shared_direction_is_found():
    result = said(planted(0))
    found = claims(result)
    assert {name: each.outcome for name, each in found.items()} == dict.fromkeys([VECTOR, *SAME_AS.values()], "holds")
    assert numbers(result)["cosine.prompt.demonstrations"].p == pytest.approx(1 / 24)
    assert any("p = 0.042, one-sided, tasks exchanged" in each.sentence for each in result.findings)
    assert numbers(result)["cosine.prompt.demonstrations"].value > 0.3
    assert set(result.figures) == {"recovery", "cosines"}
    table = result.tables["injected"]
    own = table[(table["way"] == "prompt") & (table["vector"] == "own")]
    assert numbers(result)["injected.prompt"].value == pytest.approx(own["injected"].mean())
    assert numbers(result)["recovery.prompt"].value == pytest.approx(own["injected"].mean() / own["accuracy"].mean())


def test_vectors_that_are_alike_by_too_little_are_not_the_same(without_figures):
    """Surely more alike than those of different tasks, and surely by less than a cosine of .1."""
    result = said(planted(0, tasks=6, shared=0.06, width=4000))
    number, claim = numbers(result)["cosine.prompt.demonstrations"], claims(result)[SAME_AS["demonstrations"]]
    assert 0 < number.low < number.high < 0.1 and number.p < 0.05
    assert claim.outcome is Outcome.fails and "it must lie above +0.10" in claim.evidence


def test_directions_that_every_task_has_are_no_tasks_own(without_figures):
    """Cosines of one task's vectors are high, and so are those of different tasks'."""
    result = said(planted(1, shared=0.0, common=3.0, does=0.06))
    assert numbers(result)["cosine.prompt.demonstrations"].p > 0.05
    assert not any(claim.holds for claim in result.claims)


@pytest.mark.parametrize("helps", [(0.9, 0.7, 0.02), (0.9, 0.02, 0.7)])
def test_where_a_way_does_not_help_it_cannot_be_compared(helps, without_figures):
    result = said(planted(2, helps=helps))
    found = claims(result)
    idle = "instruction" if helps[2] < 0.1 else "demonstrations"
    busy = "demonstrations" if idle == "instruction" else "instruction"
    assert found[SAME_AS[idle]].outcome is Outcome.undecidable and "in 0 of 4 tasks" in found[SAME_AS[idle]].evidence
    assert found[SAME_AS[busy]].holds and found[VECTOR].holds
    assert any("beat no prompt by less than 0.1 in task0, task1" in line for line in result.omissions)
    assert f"accuracy.{idle}" not in numbers(result)


def test_where_what_says_nothing_does_as_well_it_cannot_be_compared(without_figures):
    made = planted(3)
    for way in made.of("demonstrations"):
        way.beyond, way.injection = 0.0, None
    result = said(made)
    assert claims(result)[SAME_AS["demonstrations"]].outcome is Outcome.undecidable
    assert any("beat demonstrations with labels exchanged by less than 0.1" in line for line in result.omissions)


def test_prompts_that_learned_nothing_and_three_tasks_decide_nothing(without_figures):
    result = said(planted(4, helps=(0.02, 0.02, 0.02)))
    assert set(result.tables) == {"ways"} and not result.figures and not result.numbers
    none = claims(said(planted(4, helps=(0.02, 0.7, 0.5))))
    assert {each.outcome for each in none.values()} == {Outcome.undecidable}
    three = claims(said(planted(5, tasks=3)))
    assert three[SAME_AS["demonstrations"]].outcome is Outcome.undecidable
    assert "4 tasks" in three[SAME_AS["demonstrations"]].needs and three[VECTOR].holds


def test_two_runs_do_not_speak_for_others(without_figures):
    made = planted(7, tasks=2)
    for way in made.of("prompt"):
        whole = way.injection
        way.runs, way.prompts, way.vectors_USD = way.runs[:1], way.prompts[:1], way.vectors_USD[:1]
        way.right_UE, way.chosen_UE = way.right_UE[:1], way.chosen_UE[:1]
        right = {name: x_UE[:1] for name, x_UE in whole.right.items()}
        others = [(3 - way.runs[0][0],)]
        chosen, random = whole.chosen_SCUE[:, :, :1], whole.random_SUE[:, :1]
        way.injection = Injection(chosen, whole.place, random, right, others)
    claim = claims(said(made))[VECTOR]
    assert claim.outcome is Outcome.undecidable and "2 independent runs speak for others" in claim.evidence


def test_vectors_that_do_no_more_than_another_tasks_are_no_prompt(without_figures):
    made = planted(6, does=0.1)
    assert claims(said(made))[VECTOR].outcome is not Outcome.holds
    for way in made.of("prompt"):
        way.injection.right["other"] = np.ones_like(way.injection.right["own"])
    claim = claims(said(made))[VECTOR]
    assert claim.outcome is Outcome.fails and claim.p == 1  # by the control that is not beaten, not by the other


@pytest.mark.long
def test_p_and_claims_are_wrong_no_more_often_than_they_say(without_figures):
    """150 draws of four tasks whose ways share no task's direction: p <= .05 in 1 of 24 of them."""
    draws, rejected, held, vectors, covered = 150, [], [], 0, 0
    for seed in range(draws):
        result = said(planted(seed, shared=0.0, does=0.1, common=1.0), seed)
        found = numbers(result)
        rejected.append([found[f"cosine.{pair}"].p <= 0.05 for pair in ("prompt.demonstrations", "prompt.instruction")])
        covered += found["cosine.prompt.demonstrations"].low <= 0 <= found["cosine.prompt.demonstrations"].high
        held.append([claims(result)[name].holds for name in SAME_AS.values()])
        vectors += claims(result)[VECTOR].holds
    rates = np.mean(rejected, axis=0)
    assert np.all(np.abs(rates - 1 / 24) < 3.5 * np.sqrt(1 / 24 * 23 / 24 / draws)), rates
    assert np.all(np.mean(held, axis=0) <= rates) and vectors / draws <= 0.05
    assert covered / draws > 0.93
