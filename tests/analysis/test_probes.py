"""Prompts in questions and in the place of an input: what the model says of them is what it says by hand."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

import promptgeo as pg
import reference
from promptgeo.analysis.geometry.tokens import random_like
from promptgeo.analysis.probing import js, label_logp, probe_row
from promptgeo.analysis.question import declaration
from promptgeo.analysis.questions import speaking_probes as speaking
from promptgeo.analysis.questions.explanation import _Explained, _outlying, _Sample, explanation, soft_input_row
from promptgeo.analysis.questions.speaking_probes import partners, speaking_probes, word_tokens
from promptgeo.analysis.resampling import clopper_pearson, sign_flip_p
from promptgeo.analysis.result import Number, Result
from promptgeo.config.compose import compose
from promptgeo.config.schema import Template
from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, Trained, write_run
from promptgeo.runs.table import RunTable, table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

SMALL = (
    "prompt.length=2",
    "task.split.max_test=6",
    "training.max_steps=2",
    "evaluation.every=end",
    "evaluation.max_new_tokens=4",
    "template.longer_labels=warn",
)
PROBES = {"meaning": "The meaning of{prompt} is", "leakage": "{prompt} The beginning of this sentence means"}
AROUND = {"meaning": ("The meaning of", " is"), "leakage": ("", " The beginning of this sentence means")}
"""What stands before and after the prompt."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("probes")
    grid = [
        (task, init, seed)
        for task in ("country_capital", "present_past")
        for init in ("cat", "normal")
        for seed in (0, 1)
    ]
    explaining = [
        "task=custom",
        "task.name=explanation",
        "task.source.kind=bundled",
        "task.source.bundled=explanations.csv",
    ]
    made = [
        reference.make_plan(TINY, out, f"task={task}", f"init={init}", f"seed={seed}", *SMALL)
        for task, init, seed in grid
    ]
    made += [reference.make_plan(TINY, out, *explaining, "init=normal", f"seed={seed}", *SMALL) for seed in (0, 1, 2)]
    assert train_pack(made) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def tiny(plans):
    return plans[0].lm


@pytest.fixture(scope="module")
def untouched():
    return reference.original(TINY)


@pytest.fixture(scope="module")
def spoken(runs, tiny):
    return speaking_probes(runs.query("task != 'explanation'"), lm=tiny, probes=PROBES, say=2)


@pytest.fixture(scope="module")
def explained(runs, tiny):
    return explanation(runs, lm=tiny, random=4, others=3, words=3)


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


def by_hand(model, tokenizer, before: str, vectors_Pd: np.ndarray, after: str) -> np.ndarray:
    """[V]: next-token probabilities after text, vectors, text."""
    lookup = model.get_input_embeddings()
    texts = [lookup(torch.tensor(tokenizer.encode(text), dtype=torch.long)) for text in (before, after)]
    embeds = torch.cat([texts[0], torch.as_tensor(vectors_Pd), texts[1]]).float()
    with torch.no_grad():
        return model(inputs_embeds=embeds[None]).logits[0, -1].double().softmax(-1).numpy()


def entropy_by_hand(p_V) -> float:
    return -sum(p * math.log2(p) for p in p_V if p > 0)


def js_by_hand(p_V, q_V) -> float:
    return entropy_by_hand((p_V + q_V) / 2) - (entropy_by_hand(p_V) + entropy_by_hand(q_V)) / 2


def planted(runs: RunTable, folder, prompts, initial=None) -> RunTable:
    """The runs with other prompts put in."""
    made = []
    for k, (source, prompt_Pd) in enumerate(zip(runs.runs, prompts, strict=True)):
        info = {key: v for key, v in source.info.items() if key not in ("files", "sha256", "status", "results")}
        start, results = source.prompt("initial") if initial is None else initial[k], source.info["results"]
        steps = np.array([1])
        trained = Trained("completed", start, prompt_Pd[None], steps, prompt_Pd, prompt_Pd, [], [], results)
        write_run(folder / str(k), info, trained)
        made.append(Run.load(folder / str(k)))
    return table_of(made)


def test_both_questions_declare_the_model():
    for question in (speaking_probes, explanation):
        assert (declaration(question).given, declaration(question).claims) == (("lm",), ())


# Speaking probes.


def test_continuations_are_those_of_the_untouched_model(runs, tiny, untouched, spoken):
    table = spoken.tables["continuations"]
    assert len(table) == 4 * 8 * 3 * 2 * 5  # kinds, runs, parts, probes, ranks
    parts = {"whole": slice(None), "token 0": slice(0, 1), "token 1": slice(1, 2)}
    cases = ((0, "whole", "trained", "final"), (5, "token 1", "trained", "final"), (2, "token 0", "p0", "initial"))
    for (run, part, kind, which), (probe, (before, after)) in itertools.product(cases, AROUND.items()):
        p_V = by_hand(untouched, tiny.tokenizer, before, runs.runs[run].prompt(which)[parts[part]], after)
        chosen = f"run == {run} and probe == '{probe}' and part == '{part}' and prompt == '{kind}'"
        rows = table.query(chosen).sort_values("rank")
        best = np.argsort(-p_V)[:5]
        assert rows["token"].tolist() == [tiny.tokenizer.decode([i]) for i in best]
        assert rows["probability"].to_numpy() == pytest.approx(p_V[best], abs=1e-5)


def test_entropy_and_divergence_by_hand(runs, tiny, untouched, spoken):
    entropies, divergences, others = [], [], []
    partner_N = [4, 5, 6, 7, 0, 1, 2, 3]  # the same init and seed of the other task
    assert partners(runs.table[:8]).tolist() == partner_N
    for n, run in enumerate(runs.runs[:8]):
        vectors = run.prompt(), run.prompt("initial"), runs.runs[partner_N[n]].prompt()
        for before, after in AROUND.values():
            p_V, start_V, other_V = (by_hand(untouched, tiny.tokenizer, before, v, after) for v in vectors)
            entropies.append(entropy_by_hand(p_V))
            divergences.append(js_by_hand(p_V, start_V))
            others.append(js_by_hand(p_V, other_V))
    assert value(spoken, "entropy.trained") == pytest.approx(np.mean(entropies), abs=1e-3)
    assert value(spoken, "js.p0") == pytest.approx(np.mean(divergences), abs=1e-4)
    assert 0 < value(spoken, "js.p0") < 1
    assert value(spoken, "js.other_task") == pytest.approx(np.mean(others), abs=1e-4)
    assert value(spoken, "difference.js.p0") == pytest.approx(value(spoken, "js.p0") - value(spoken, "js.p0_random"))
    even, one, other = (torch.tensor([p]) for p in ([0.5, 0.5], [1.0, 0.0], [0.0, 1.0]))
    assert js(even, even) == 0 and js(one, other) == 1
    assert js(one, even)[0] == pytest.approx(js_by_hand(np.array([1, 0]), np.array([0.5, 0.5])), abs=1e-6)


def test_a_labels_probability_is_that_of_its_tokens_in_turn(runs, tiny, untouched):
    """Labels of several tokens and of one, after two prompts, together."""
    labels, prompts = [" Paris is here", " cat"], np.stack([run.prompt() for run in runs.runs[:2]])
    rows = [Row(probe_row(tiny, "meaning", PROBES["meaning"], 2).ids, np.array(tiny.encode(label))) for label in labels]
    total_S, first_SV = label_logp(tiny, prompts, rows)
    for s, row in enumerate(rows):
        with torch.no_grad():
            logits = reference.label_logits(untouched, torch.as_tensor(prompts[s]), row)
        logp = logits.double().log_softmax(-1).numpy()
        assert total_S[s] == pytest.approx(logp[np.arange(len(row.label)), row.label].sum(), abs=1e-4)
        assert first_SV[s] == pytest.approx(logp[0], abs=1e-4)


def test_hits_are_counted_from_the_table(plans, tiny, spoken):
    table = spoken.tables["continuations"]
    labels = {}
    for plan in plans:
        examples = plan.task.train + plan.task.test
        labels[plan.task.name] = {word for e in examples for word in re.split(r"\W+", e.label) if word}

    def says(token: str, task: str) -> bool:
        text = token.strip()
        forms = {form for word in labels[task] for form in (word, word.lower(), word.capitalize())}
        said = {form for form in forms if form == text or (len(text) >= 3 and form.startswith(text))}
        firsts = {tiny.encode(spaced)[0] for form in said for spaced in (form, " " + form)}
        return token in {tiny.tokenizer.decode([i]) for i in firsts}

    for which in ("trained", "random", "p0"):
        whole = table[(table["part"] == "whole") & (table["prompt"] == which)]
        groups = whole.groupby(["run", "probe", "task"])
        shares = [any(says(token, task) for token in group["token"]) for (_, _, task), group in groups]
        assert value(spoken, f"hits.label.{which}") == pytest.approx(np.mean(shares)), which
    assert value(spoken, "hits.label.trained") + value(spoken, "hits.label.random") > 0
    difference = value(spoken, "hits.label.trained") - value(spoken, "hits.label.random")
    assert value(spoken, "difference.label.random") == pytest.approx(difference)


def test_words_are_said_by_their_token_or_by_three_letters_of_it(tiny):
    assert set(word_tokens(tiny, {"cat"})) >= {tiny.encode("cat")[0], tiny.encode(" cat")[0]}
    (par, *_) = tiny.encode(" Paris")
    assert tiny.decode([par]) == " Par" and par in word_tokens(tiny, {"Paris"})
    short = tiny.encode(" number")[0]
    assert tiny.decode([short]) == " n" and short not in word_tokens(tiny, {"number"})
    assert len(word_tokens(tiny, set())) == 0


def test_random_prompts_have_the_tokens_norms():
    noise = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float32)
    prompt = noise * np.array([1, 4, 0.1], np.float32)[None, :, None]
    drawn = random_like(prompt, np.random.default_rng(1))
    assert np.linalg.norm(drawn, axis=-1) == pytest.approx(np.linalg.norm(prompt, axis=-1), rel=1e-5)
    assert not np.allclose(drawn, prompt)


def test_sign_flips_are_enumerated_with_units_whole():
    d = np.array([0.4, 0.1, -0.2, 0.5, 0.3])
    means = [abs(np.mean(np.array(signs) * d)) for signs in itertools.product((1, -1), repeat=5)]
    assert sign_flip_p(d) == np.mean(np.array(means) >= abs(d.mean()) - 1e-12)
    assert sign_flip_p(np.ones(4)) == 2 / 16 and sign_flip_p(np.ones(4), np.array([0, 0, 1, 1])) == 2 / 4
    assert sign_flip_p(np.ones(30)) == 1 / 1001 and sign_flip_p(np.zeros(30)) == 1


def repeating(tokenizer) -> pg.FrozenLM:
    """The embedded model made to repeat its last token: its blocks add nothing, and its head compares directions."""
    model = reference.original(TINY)
    with torch.no_grad():
        for block in model.transformer.h:
            for weight in (*block.attn.c_proj.parameters(), *block.mlp.c_proj.parameters()):
                weight.zero_()
        model.transformer.wpe.weight.zero_()
        embeddings = model.transformer.wte.weight
        embeddings.copy_(normalize(embeddings - embeddings.mean(1, keepdim=True), dim=1))
        model.transformer.ln_f.weight.fill_(3.0)
        model.transformer.ln_f.bias.zero_()
    return pg.FrozenLM(model, tokenizer)


def test_a_prompt_that_is_its_tasks_word_says_it_and_a_mute_one_does_not(plans, runs, tiny, tmp_path):
    """With a model that repeats its last token, prompts of label words say them; P0 and random prompts do not."""
    chosen = runs.query("task != 'explanation'")
    lm, probes = repeating(tiny.tokenizer), {"meaning": "The meaning of{prompt}", "leakage": "{prompt}"}
    single = {}
    for plan in plans:
        ids = [tiny.encode(f" {e.label}") for e in plan.task.train]
        single[plan.task.name] = [of_label[0] for of_label in ids if len(of_label) == 1]
    words = [single[task][n] for n, task in enumerate(chosen.table["task"])]
    said = [np.repeat(lm.vocabulary()[i : i + 1].numpy(), 2, 0) for i in words]
    result = speaking_probes(planted(chosen, tmp_path / "said", said), lm=lm, probes=probes, say=0, top_k=1)
    assert [value(result, f"hits.label.{kind}") for kind in ("trained", "p0", "other_task")] == [1, 0, 0]
    assert number(result, "difference.label.p0").p == 2 / 2**6  # the two cat runs of a task share P0: six units
    assert number(result, "difference.label.random").p == 2 / 2**6
    # Whole units are dealt: of cat one of either task, of the random init two of either: 2 x 6 ways, two as extreme.
    assert number(result, "difference.label.other_task").p == pytest.approx(2 / 12, abs=0.05)
    assert "exchanged within inits, tasks allow no p below 0.17" in result.omissions[0]
    sentences = [f.sentence for f in result.findings]
    more = "say a label's word among its 1 likeliest next tokens more often than a random prompt of equal norms does"
    assert any(more in sentence for sentence in sentences)
    alike = "not detectably more or less often than another task's prompt does (100.0% against 0.0%"
    assert any(alike in sentence for sentence in sentences)
    starts = planted(chosen, tmp_path / "mute", [run.prompt("initial") for run in chosen.runs])
    mute = speaking_probes(starts, lm=lm, probes=probes, say=0, top_k=1)
    assert value(mute, "difference.label.p0") == 0 and value(mute, "js.p0") == pytest.approx(0, abs=1e-9)
    never = "label's word among its 1 likeliest next tokens never, nor does any control"
    assert any(never in f.sentence for f in mute.findings)
    assert not any(f.p is not None and f.p < 0.05 and "more often" in f.sentence for f in mute.findings)


def test_examples_and_texts_show_every_prompt_and_twice_is_the_same(runs, tiny, untouched, spoken):
    kinds, examples = ["trained", "p0", "random", "other_task"], spoken.tables["examples"]
    assert list(examples) == ["run", "task", "init", "seed", "probe", *kinds] and len(examples) == 16
    row = probe_row(tiny, "meaning", PROBES["meaning"], 2)
    text = tiny.decode(reference.written(untouched, torch.as_tensor(runs.runs[3].prompt()), row, 2))
    own = spoken.tables["texts"].query("run == 3 and probe == 'meaning' and prompt == 'trained'")
    assert own["text"].tolist() == [text]
    again = speaking_probes(runs.query("task != 'explanation'"), lm=tiny, probes=PROBES, say=2)
    assert again.figures == spoken.figures and again.findings == spoken.findings and again.numbers == spoken.numbers


def test_chunks_change_no_number(runs, tiny, monkeypatch):
    cats = runs.query("init == 'cat' and seed == 0")
    whole = speaking_probes(cats, lm=tiny, probes=PROBES, say=0)
    monkeypatch.setattr(speaking, "CHUNK", 1)
    for one, other in zip(speaking_probes(cats, lm=tiny, probes=PROBES, say=0).numbers, whole.numbers, strict=True):
        assert one.quantity == other.quantity and one.value == pytest.approx(other.value, abs=1e-6)


def test_what_runs_cannot_support(runs, tiny):
    with pytest.raises(UserError, match="needs runs trained here"):
        table = pd.DataFrame({"task": ["a", "b"], "init": ["x", "x"]})
        speaking_probes(RunTable.from_arrays(np.ones((2, 1, 3)), table), lm=tiny, probes=PROBES)
    with pytest.raises(UserError, match="at least 2 runs"):
        speaking_probes(runs.only([0]), lm=tiny, probes=PROBES)
    with pytest.raises(UserError, match=r"probes.mine.*no \{input\}"):
        speaking_probes(runs, lm=tiny, probes={"mine": "{input}"})
    alone = speaking_probes(runs.query("task == 'explanation'"), lm=tiny, probes={"meaning": "Say"}, say=0)
    omitted = " ".join(alone.omissions)
    assert "of one task" in omitted and "too few runs" in omitted and "no run has the init word" in omitted
    assert not any("other_task" in number.quantity for number in alone.numbers)


# The explanation token.


def test_the_own_prompt_stands_at_both_places(tiny):
    row = soft_input_row(tiny, Template(name="t", text="Input: {input}\nLabel:"), 2, 3)
    assert row.ids.tolist() == [-1, -2, *tiny.encode("Input:"), -3, -4, -5, *tiny.encode("\nLabel:")]
    row = soft_input_row(tiny, Template(name="t", text="Of {input}{prompt} say{prompt}"), 1, 1)
    assert row.ids.tolist() == [*tiny.encode("Of"), -2, -1, *tiny.encode(" say"), -1]


def test_what_is_written_of_itself_and_its_probability_by_hand(runs, tiny, untouched, explained):
    table = explained.tables["explanations"]
    assert table["kind"].value_counts().to_dict() == {"own": 3, "p0": 3, "random": 12, "other": 9, "word": 9}
    lookup = untouched.get_input_embeddings()
    for run in runs.query("task == 'explanation'").runs:
        for kind, which in (("own", "final"), ("p0", "initial")):
            before, after = (lookup(torch.tensor(tiny.encode(text))) for text in ("Input:", "\nLabel:"))
            given, place = torch.as_tensor(run.prompt()), torch.as_tensor(run.prompt(which))
            vectors = torch.cat([given, before, place, after])
            tokens, probability = [], 1.0
            while len(tokens) < 4 and "\n" not in tiny.decode(tokens) and tokens[-1:] != [tiny.tokenizer.eos_token_id]:
                embeds = torch.cat([vectors, lookup(torch.tensor(tokens, dtype=torch.long))])
                with torch.no_grad():
                    p_V = untouched(inputs_embeds=embeds[None]).logits[0, -1].double().softmax(-1)
                tokens.append(int(p_V.argmax()))
                probability *= float(p_V.max())
            (row,) = table[(table["run"] == run.id[:8]) & (table["kind"] == kind)].to_dict("records")
            assert row["text"] == tiny.decode(tokens).split("\n")[0].strip()
            assert row["probability"] == pytest.approx(probability, abs=1e-4)


def test_ordinary_inputs_get_the_texts_that_the_run_wrote_of_them(plans, runs, explained):
    words = explained.tables["explanations"].query("kind == 'word'")
    for plan, run in list(zip(plans, runs.runs, strict=True))[8:]:
        outputs = pg.evaluate(plan.lm, run.prompt()[None], plan.task, max_new_tokens=4, outputs=True).outputs[0]
        wrote = {e.input: text.strip() for e, text in zip(plan.task.test, outputs, strict=True)}
        own = words[words["run"] == run.id[:8]]
        texts = dict(zip(own["input"], own["text"], strict=True))
        assert len(own) == 3 and texts.items() <= wrote.items()


def test_other_tasks_prompts_come_first_and_shares_are_those_of_the_table(explained):
    table = explained.tables["explanations"]
    assert not table.query("kind == 'other'")["input"].str.startswith("explanation").any()
    by_run = [(group.query("kind == 'random'"), group["text"].iloc[0]) for _, group in table.groupby("run", sort=False)]
    differs = [np.mean(random["text"] != own_text) for random, own_text in by_run]
    assert value(explained, "differs.random") == pytest.approx(np.mean(differs))
    own = table.query("kind == 'own'")["text"].tolist()
    assert value(explained, "distinct.own") == pytest.approx(
        np.mean([a != b for a, b in itertools.combinations(own, 2)])
    )
    for number in explained.numbers:
        low, high = number.interval
        assert low <= number.value <= high and number.n == 3, number


def test_seeds_that_start_from_one_p0_do_not_make_a_task_speak():
    """What a cell says by chance, all its seeds say: runs dealt one by one reject in 36 % of draws, units in 4 %."""
    generator, rejected = np.random.default_rng(1), 0
    cells = [(task, init, seed) for task in range(4) for init in range(3) for seed in range(8)]
    table = pd.DataFrame(cells, columns=["task", "init", "seed"]).astype(str)
    units_N = pd.factorize(table["task"] + table["init"])[0]
    for trial in range(150):
        chance = 1 / (1 + np.exp(-1.5 * generator.normal(size=(12, 4))[units_N]))
        sample = speaking._Sample(table, units_N, 200, trial)
        rejected += sample.tasks_p(generator.binomial(3, chance) / 3) < 0.05
    assert rejected / 150 <= 0.09
    # Four tasks can be dealt in 24 ways in each of three inits.
    assert sample.least_tasks_p == pytest.approx(2 / 24**3)


@pytest.mark.parametrize("n", [2, 4])
def test_intervals_over_few_units_are_students(n):
    """A percentile interval covers 47 % with 2 units, 79 % with 4."""
    generator, held = np.random.default_rng(0), 0
    table, some_N = pd.DataFrame({"task": ["a"] * n, "init": ["x"] * n}), np.ones(n, bool)
    for trial in range(300):
        sample = speaking._Sample(table, np.arange(n), 100, trial)
        low, high = sample.interval(generator.normal(size=n), some_N)
        held += low <= 0 <= high
    assert 0.92 <= held / 300 <= 0.98
    assert sample.interval(np.array([0.0, 1.0, *[0.5] * (n - 2)]), some_N, 0.0, 1.0) == (0.0, 1.0)
    assert sample.share_interval(np.zeros(n), some_N) == clopper_pearson(0, n)


@pytest.mark.parametrize("apart", [True, False])
def test_an_own_prompt_that_says_something_else_is_distinguished_from_random_ones(apart):
    generator = np.random.default_rng(0)

    def one():
        js_SS = generator.uniform(0.1, 0.2, (10, 10))
        js_SS = (js_SS + js_SS.T) / 2
        if apart:
            js_SS[0, :] = js_SS[:, 0] = 0.6
        np.fill_diagonal(js_SS, 0)
        return _Explained(["own"] + ["random"] * 9, [""] * 10, [""] * 10, np.ones(10), js_SS)

    explained, result = [one() for _ in range(5)], Result()
    among, p = _outlying(explained, "random", _Sample(permutations=1000, seed=0), result)
    pairs = [(i, j) for i in range(1, 10) for j in range(1, 10) if i != j]
    assert among.value == pytest.approx(np.mean([each.js_SS[i, j] for each in explained for i, j in pairs]))
    assert among == number(result, "js.among.random")
    assert (p < 0.01) if apart else (p > 0.05)


def test_one_run_alone_and_none(runs, tiny):
    alone = explanation(runs.query("task == 'explanation' and seed == 0"), lm=tiny, random=2, words=1)
    assert any("one run alone" in o for o in alone.omissions) and any("no other runs" in o for o in alone.omissions)
    assert all(f.p is not None or f.low is not None for f in alone.findings)
    assert all("n = 1 run, for which alone this is said" in f.sentence for f in alone.findings)
    assert "divergences" not in alone.figures
    with pytest.raises(
        UserError, match=r"no run of task riddle is among these \(country_capital, present_past, explanation\)"
    ):
        explanation(runs, lm=tiny, task="riddle")
    with pytest.raises(UserError, match="needs runs trained here"):
        explanation(RunTable.from_arrays(np.ones((1, 1, 3)), pd.DataFrame({"task": ["a"]})), lm=tiny)


def test_the_sweep_takes_a_file_of_the_users(tmp_path):
    config = compose(["sweep=explanation"])
    chosen = (config.task.name, config.task.source.bundled, config.sweep)
    assert chosen == ("explanation", "explanations.csv", "explanation")
    (tmp_path / "pairs.csv").write_text("input,label\na,one\nb,two\nc,three\nd,four\ne,five\nf,six\n")
    own = f"task.source.path={tmp_path / 'pairs.csv'}"
    plan = reference.make_plan(TINY, tmp_path, "sweep=explanation", own, "hydra.mode=RUN")
    assert {e.label for e in plan.task.train + plan.task.test} == {"one", "two", "three", "four", "five", "six"}


def test_what_two_runs_have_in_common_is_counted_once():
    """Six pairs of runs of two tasks, each with its partner: every value stands twice. As if apart, 83 % are held."""
    rows = [(task, init, seed) for task in ("a", "b") for init in ("cat", "dog") for seed in range(3)]
    sample = speaking._Sample(pd.DataFrame(rows, columns=["task", "init", "seed"]), np.arange(12), 99, 0)
    generator, held, apart = np.random.default_rng(0), 0, 0
    for _ in range(300):
        values_N = np.tile(0.5 + 0.1 * generator.normal(size=6), 2)
        low, high = sample.partners_interval(values_N)
        held += low <= 0.5 <= high
        low, high = sample.interval(values_N, least=0.0, most=1.0)
        apart += low <= 0.5 <= high
    assert held / 300 > 0.94 and apart / 300 < 0.9


def test_two_pairs_of_partners_say_nothing_of_others():
    """Two tasks in two inits, two seeds from one P0 each: four units in two pairs, not four apart (84 % were held)."""
    rows = [(task, init, seed) for task in ("a", "b") for init in ("cat", "dog") for seed in range(2)]
    sample = speaking._Sample(pd.DataFrame(rows, columns=["task", "init", "seed"]), np.arange(8) // 2, 99, 0)
    assert sample.partners_interval(np.array([0.2, 0.3, 0.4, 0.5] * 2)) == (0.0, 1.0)
