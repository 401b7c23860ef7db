"""A finished run's prompt, asked by its user: what predictions.jsonl says, and what plain transformers write."""

import numpy as np
import pytest
import torch

import promptgeo as pg
import reference
from promptgeo import UserError
from promptgeo.config.paths import EMBEDDED_MODEL
from promptgeo.evaluation.rules import Continuation, rule_of
from promptgeo.model.choosing import Sampling
from promptgeo.runs.task import task_of
from promptgeo.runs.writing import writing_of

SHORT = ("training.max_steps=3", "evaluation.every=end", "device=cpu", "precision=fp32")
WAYS = {
    "country_capital": ["task=country_capital", "task.split.validation=0.2"],
    "study3": ["task=country_capital", "template=study3", "task.split.max_test=20"],
    "bare": ["task=plus_two", "template=bare", "task.split.max_test=40"],
    "cb": ["task=toy_cb"],
    "cut": ["task=toy_cb", "task.max_input_tokens=14", "task.split.max_test=40"],
    "in the middle": ["task=present_past", 'template.text="{input} {prompt}:"', "task.split.max_test=20"],
}


LONG = pytest.mark.long


def train(folder, *overrides: str) -> pg.Run:
    return pg.train(*SHORT, f"outputs={folder}", *overrides)


def asked(run: pg.Run, which: str) -> tuple[list, list[str]]:
    """The test inputs, by their columns where they have several, and what predictions.jsonl says is written."""
    said = [row["output"] for row in run.predictions if row["prompt"] == which]
    if run.info["config"]["task"]["name"] != "toy_cb":
        return [row["input"] for row in run.predictions if row["prompt"] == which], said
    parts = [example.input.removeprefix("Premise: ").split("\nHypothesis: ") for example in task_of(run).test]
    return [{"premise": premise, "hypothesis": hypothesis} for premise, hypothesis in parts], said


@pytest.mark.parametrize("way", [pytest.param(way, marks=[LONG] if way == "cb" else []) for way in WAYS])
def test_generate_writes_what_the_predictions_of_a_run_say(way, tmp_path):
    run = train(tmp_path, *WAYS[way])
    lm = run.load_model()
    for which in ("none", "initial", "final", "best") if way == "country_capital" else ("none", "initial", "final"):
        inputs, said = asked(run, which)
        assert len(said) >= 20 and run.generate(inputs, which, lm=lm) == said
    if way == "cb":  # the whole text is an input too
        assert run.generate([row["input"] for row in run.predictions if row["prompt"] == "final"]) == said
    assert run.generate(inputs[3], lm=lm) == said[3]  # alone as among others


@pytest.mark.parametrize("bos", ["auto", "never", "after_prompt"])
@pytest.mark.parametrize("task", ["country_capital", "plus_two"])
def test_generate_writes_what_the_predictions_say_with_and_without_bos(with_bos, tmp_path, task, bos):
    where = [f"model.name_or_path={with_bos}", f"template.bos={bos}", "evaluation.max_new_tokens=6"]
    run = train(tmp_path, f"task={task}", *where, "task.split.max_test=12", "template.longer_labels=warn")
    for which in ("none", "initial", "final"):
        inputs, said = asked(run, which)
        assert len(said) == 12 and run.generate(inputs, which) == said
    length = run.prompt().shape[0]
    ids = [-1] * length + run.load_model().encode(f"Input: {inputs[0]}\nLabel:")
    assert run.embeddings(inputs[0]).shape[1] == len(ids) + (bos != "never")


def written_by_transformers(lm, embeds_1Td: torch.Tensor, limit: int) -> list[int]:
    mask = torch.ones(embeds_1Td.shape[:2], dtype=torch.long)
    out = lm.generate(
        inputs_embeds=embeds_1Td, attention_mask=mask, max_new_tokens=limit, do_sample=False, pad_token_id=0
    )
    return out[0].tolist()


@pytest.mark.parametrize("way", ["country_capital", "bare", pytest.param("cb", marks=LONG), "in the middle"])
def test_plain_transformers_write_the_same_from_the_runs_embeddings(way, tmp_path):
    run = train(tmp_path, *WAYS[way], "evaluation.max_new_tokens=5", "template.longer_labels=warn")
    lm = run.load_model()
    model = reference.original(EMBEDDED_MODEL)
    task = task_of(run)
    limit = 1 if way == "bare" else 5
    for which in ("initial", "final"):
        inputs = [example.input for example in task.test[:12]]
        for given, ours in zip(inputs, run.generate(inputs, which), strict=True):
            tokens = written_by_transformers(model, run.embeddings(given, which), limit)
            assert rule_of(task.template).output(Continuation(lm, tokens)) == ours


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pg.Run:
    return train(tmp_path_factory.mktemp("runs"), "task=country_capital", "training.max_steps=20")


@pytest.fixture(scope="module")
def lm(run) -> pg.FrozenLM:
    return run.load_model()


COUNTRIES = ["France", "Japan", "Peru", "Italy"]


def test_lists_come_back_as_they_were_given(run, lm):
    task = pg.task("country_capital")
    both_NPd = np.stack([run.prompt("initial"), run.prompt()])
    one = run.generate("France", lm=lm)
    assert isinstance(one, str) and run.generate(["France"], lm=lm) == [one]
    assert pg.generate(lm, both_NPd, COUNTRIES, task) == [
        run.generate(COUNTRIES, "initial", lm=lm),
        run.generate(COUNTRIES, lm=lm),
    ]
    assert pg.generate(lm, both_NPd, "France", task)[1] == one
    assert pg.generate(lm, torch.from_numpy(run.prompt()), "France", task) == one
    drawn = pg.generate(lm, both_NPd, COUNTRIES, task, samples=2)
    assert np.array(drawn).shape == (2, 4, 2)
    assert pg.generate(lm, both_NPd, [], task) == [[], []] and run.generate([], lm=lm) == []


def test_one_seed_draws_the_same_texts_whatever_else_is_asked(run, lm):
    drawn = run.generate(COUNTRIES, lm=lm, samples=6, temperature=2.0, seed=1)
    assert drawn == run.generate(COUNTRIES, lm=lm, samples=6, temperature=2.0, seed=1)
    assert drawn != run.generate(COUNTRIES, lm=lm, samples=6, temperature=2.0, seed=2)
    assert run.generate("Peru", lm=lm, samples=6, temperature=2.0, seed=1) == drawn[2]
    assert run.generate(["Peru"], lm=lm, samples=2, temperature=2.0, seed=1) == [drawn[2][:2]]
    assert len(set(drawn[2])) > 1
    greedy = run.generate(COUNTRIES, lm=lm)
    assert run.generate(COUNTRIES, lm=lm, samples=1, top_k=1) == [[text] for text in greedy]
    assert run.generate(COUNTRIES, lm=lm, samples=1, temperature=1e-4) == [[text] for text in greedy]


def test_first_tokens_are_drawn_as_often_as_they_are_likely(run, lm):
    likely = run.next_tokens("Peru", "initial", k=3, lm=lm)
    drawn = run.generate("Peru", "initial", lm=lm, samples=2000, max_new_tokens=1)
    for token in likely:
        p = token.probability
        share = np.mean([text == token.text for text in drawn])
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / 2000) + 1e-9


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, None, None), (0.7, None, None), (1.0, 5, None), (1.5, 20, 0.6)]
)
def test_what_may_be_drawn_is_what_transformers_would_draw_from(temperature, top_k, top_p):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)) * 3
    theirs = TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1 else logits
    theirs = TopKLogitsWarper(top_k)(None, theirs) if top_k else theirs
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p else theirs
    p, tokens = Sampling(temperature, top_k, top_p).probabilities(logits)
    ours = torch.zeros(7, 300, dtype=torch.float64).scatter_(1, tokens, p)
    assert torch.allclose(ours, theirs.double().softmax(-1), atol=1e-6)
    assert torch.equal(ours > 0, theirs > -float("inf"))


def test_next_tokens_are_the_softmax_of_plain_transformers(run, lm):
    model = reference.original(EMBEDDED_MODEL)
    for given, tokens in zip(COUNTRIES, run.next_tokens(COUNTRIES, k=5, lm=lm), strict=True):
        p_V = model(inputs_embeds=run.embeddings(given, lm=lm)).logits[0, -1].softmax(-1)
        p_K, ids_K = p_V.topk(5)
        assert [token.id for token in tokens] == ids_K.tolist()
        assert [token.probability for token in tokens] == pytest.approx(p_K.tolist(), abs=1e-5)
        assert [token.text for token in tokens] == [lm.token_text(i) for i in ids_K]
    assert run.next_tokens("Peru", k=1, lm=lm) == run.next_tokens(["Peru"], k=1, lm=lm)[0]


def test_a_run_whose_data_are_gone_can_still_be_asked(tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_text("input,label\n" + "".join(f"{word},{word.upper()}\n" for word in "abcdefghij"))
    run = train(tmp_path, "task=custom", f"task.source.path={mine}")
    mine.unlink()
    inputs, said = asked(run, "final")
    assert run.generate(inputs) == said


def test_copies_of_the_prompt_are_a_column_too(tmp_path):
    run = train(tmp_path, "task=plus_k", "task.split.max_test=12")
    examples = task_of(run).test
    said = [row["output"] for row in run.predictions if row["prompt"] == "final"]
    assert {example.repeat for example in examples} == {4, 5}
    columns = [{"input": example.input, "repeat": example.repeat} for example in examples]
    assert run.generate(columns) == said
    assert run.embeddings(columns[0]).shape[1] - run.embeddings(examples[0].input).shape[1] == 4 * (
        examples[0].repeat - 1
    )


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("word " * 600, {}, "input 'word .*: prompt, text and 16 new tokens take .* give a shorter input or a lower"),
        ("a\ud800", {}, "holds half a character"),
        ("a", {"which": "last"}, "which=last"),
        ("a", {"max_new_tokens": 0}, "max_new_tokens=0"),
        ("a", {"temperature": 0.5}, "temperature=0.5: nothing is drawn; give samples"),
        ("a", {"samples": 0}, "samples=0"),
        ("a", {"samples": 1, "temperature": 0.0}, "temperature=0.0: a number above 0"),
        ("a", {"samples": 1, "top_k": 0}, "top_k=0"),
        ("a", {"samples": 1, "top_p": 1.5}, "top_p=1.5"),
        ("a", {"samples": 1, "seed": -1}, "seed=-1"),
    ],
)
def test_what_cannot_be_asked_is_one_line_that_names_it(run, lm, given, options, said):
    with pytest.raises(pg.UserError, match=said) as error:
        run.generate(given, lm=lm, **options)
    assert "\n" not in str(error.value)


def test_a_column_that_is_missing_or_would_be_cut_is_named(tmp_path):
    run = train(tmp_path, *WAYS["cut"])
    with pytest.raises(pg.UserError, match="has no column 'hypothesis'; it needs premise, hypothesis"):
        run.generate({"premise": "Kim says that the dog is wet."})
    whole = task_of(run).test[0].input
    with pytest.raises(pg.UserError, match=r"column premise is what is cut: give the columns by name \(premise, hypo"):
        run.generate(whole)


def test_another_model_than_the_runs_own_is_refused(run, gpt2):
    with pytest.raises(pg.UserError, match="is not the one that these runs were trained on"):
        run.load_model(gpt2.name)
    with pytest.raises(pg.UserError, match=r"prompts have shape \[1, 4, 256\]; \[N, P, 32\] is needed"):
        run.generate("France", lm=gpt2)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("their's", """pg.task("their's", config_dir=<folder of task/their's.yaml>)"""),
        ("plus_one", "pg.task('plus_one')"),
    ],
)
def test_a_run_that_was_trained_elsewhere_says_how_its_prompt_can_be_asked(name, task):
    info = {"config": {"task": {"name": name}, "template": {"name": "unknown"}}}
    with pytest.raises(UserError) as refused:
        writing_of(info, "out/run")
    assert str(refused.value) == (
        f"out/run: was trained elsewhere; template and inputs of its task {name} are not known; in Python "
        f"pg.generate(lm, run.prompt(), inputs, {task}) asks with a task's own"
    )


def test_what_is_no_model_or_no_prompt_is_named(run, lm):
    task = task_of(run)
    with pytest.raises(pg.UserError, match=r"lm='tiny': a model is needed, as pg.FrozenLM.load\('tiny'\) returns it"):
        pg.generate("tiny", run.prompt(), "France", task)
    for ask in (pg.generate, pg.next_tokens):
        with pytest.raises(pg.UserError, match=r"an array \[N, P, 256\] is needed, not a Run; a run's is run.prompt"):
            ask(lm, run, "France", task)
    with pytest.raises(pg.UserError, match="not a NoneType"):
        pg.evaluate(lm, None, task)
