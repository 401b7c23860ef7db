"""describe: states are read and written where they should be, texts are scored as said, and nulls are what they say.

Shapes: N runs, T tasks, P prompt tokens, D width.
"""

import numpy as np
import pandas as pd
import pytest
import torch

import reference
from promptgeo.analysis.describing import (
    Pair,
    as_prompt,
    descriptions,
    label_words,
    layer_pairs,
    named_share,
    rouge_1,
    states,
)
from promptgeo.analysis.questions import describe as module
from promptgeo.analysis.questions.describe import Chosen, Measured, describe, equal_norms
from promptgeo.analysis.result import Outcome, Result
from promptgeo.config.compose_analyze import analysis_file
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

SMALL = ("task.split.max_train=20", "task.split.max_test=12", "task.split.validation=0.3", "training.max_steps=2")
SMALL += ("evaluation.every=end", "evaluation.max_new_tokens=6", "template.longer_labels=warn", "prompt.length=3")
TASKS = ("country_capital", "sentiment")
TARGET = analysis_file("describe")["target"]
OPTIONS = {"target": TARGET, "layers": 2, "max_new_tokens": 4, "chosen_on": 3, "max_examples": 4, "permutations": 50}


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("describe")
    made = [reference.make_plan(TINY, out, f"task={t}", f"init={i}", *SMALL) for t in TASKS for i in ("cat", "book")]
    assert train_pack(made) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def result(runs, plans):
    return describe(runs, lm=plans[0].lm, **OPTIONS)


def test_prompts_of_two_lengths_are_not_pooled_and_rows_name_their_runs(result, runs):
    assert "prompt_length" not in describe.question.factors
    assert [*result.tables["descriptions"]["id"]] == [run.id for run in runs.runs]


def test_fewer_examples_to_choose_by_than_asked_for_are_said(runs, plans):
    result = describe(runs, lm=plans[0].lm, **{**OPTIONS, "layers": 1, "chosen_on": 1000})
    held = len(plans[0].task.validation)
    (said,) = [line for line in result.omissions if "chosen_on=1000" in line]
    assert f"country_capital ({held})" in said


@pytest.mark.parametrize("target", [5, None, "", "abc", "{prompt} {prompt}"])
def test_a_target_that_is_no_text_with_one_prompt_is_one_line(runs, plans, target):
    with pytest.raises(UserError, match=r"a text with one \{prompt\} is needed"):
        describe(runs, lm=plans[0].lm, **{**OPTIONS, "target": target})


# Reading and writing.


def test_layers_are_spread_evenly_from_0_on_both_ways():
    assert sorted({pair.source for pair in layer_pairs(18, 6)}) == [0, 3, 6, 9, 12, 15]
    assert len(layer_pairs(18, 6)) == 36 and layer_pairs(18, 6)[1] == Pair(0, 3)
    assert {pair.target for pair in layer_pairs(4, 6)} == {0, 1, 2, 3}


@torch.no_grad()
def test_a_prompts_states_are_those_of_a_plain_model_whatever_input_follows(plans):
    lm, task = plans[0].lm, plans[0].task
    plain = reference.original(TINY)
    prompts = torch.randn(2, 3, lm.width, generator=torch.Generator().manual_seed(0)) * lm.embedding_scale
    read = states(lm, prompts, task, [0, 2])
    for example in task.validation[:2]:
        (row,) = task.rows(lm, [example], 3)
        at = [row.ids.tolist().index(-1 - k) for k in range(3)]
        for n, prompt_Pd in enumerate(prompts):
            embeds = reference.embeddings(plain, prompt_Pd, row.ids.tolist())[None]
            hidden = plain(inputs_embeds=embeds, output_hidden_states=True).hidden_states
            for layer, states_NPD in zip((0, 2), read, strict=True):
                assert (states_NPD[n] - hidden[layer][0, at]).abs().max() < 1e-4


@torch.no_grad()
def test_descriptions_are_what_a_plain_model_writes_with_the_states_patched_in(plans):
    """One unpadded row at a time, run anew for every token: prompts of two lengths, all pairs of two layers."""
    lm, task, plain = plans[0].lm, plans[0].task, reference.original(TINY)
    generator = torch.Generator().manual_seed(1)
    prompts = [(torch.randn(p, lm.width, generator=generator) * lm.embedding_scale).numpy() for p in (2, 3, 3)]
    pairs = layer_pairs(lm.layers, 2)
    texts = descriptions(lm, prompts, [task] * 3, pairs, TARGET, 5)
    before, after = (lm.encode(part) for part in TARGET.split("{prompt}"))
    blocks = max((m for m in plain.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    seen = set()
    for prompt_Pd, of_prompt in zip(prompts, texts, strict=True):
        read = states(lm, torch.from_numpy(prompt_Pd)[None], task, [0, 2])
        length = len(prompt_Pd)
        for pair, text in zip(pairs, of_prompt, strict=True):
            own_PD = read[[0, 2].index(pair.source)][0]
            ids = [*lm.bos, *before, *lm.encode(" x") * length, *after]
            start = len(lm.bos) + len(before)

            def write(_, args, named, own_PD=own_PD, start=start):
                hidden = (args[0] if args else named["hidden_states"]).clone()
                hidden[0, start : start + len(own_PD)] = own_PD
                return ((hidden, *args[1:]), named) if args else (args, named | {"hidden_states": hidden})

            handle, written = blocks[pair.target].register_forward_pre_hook(write, with_kwargs=True), []
            while len(written) < 5 and not lm.end_tokens & {*written}:
                logits = plain(input_ids=torch.tensor([[*ids, *written]]), use_cache=False).logits
                written.append(int(logits[0, -1].argmax()))
            handle.remove()
            whole = lm.decode(written).lstrip()
            ends = [whole.index(mark) for mark in "|:\n" if mark in whole]
            assert text == whole[: min(ends, default=len(whole))].strip()
            seen.add(text)
    assert len(seen) > 1


def test_a_template_with_the_input_first_and_a_target_that_does_not_fit_are_refused(plans):
    import dataclasses

    lm, task = plans[0].lm, plans[0].task
    first = dataclasses.replace(task.template, text="{input} {prompt} is:")
    prompt_Pd = as_prompt(lm, "cat")
    with pytest.raises(UserError, match="has the input before the prompt"):
        descriptions(lm, [prompt_Pd], [dataclasses.replace(task, template=first)], [Pair(0, 0)], TARGET, 4)
    with pytest.raises(UserError, match=r"one \{prompt\} is needed"):
        descriptions(lm, [prompt_Pd], [task], [Pair(0, 0)], "a: b |", 4)
    with pytest.raises(UserError, match=r"the model has 128; shorten analysis\.describe\.target"):
        descriptions(lm, [prompt_Pd], [task], [Pair(0, 0)], TARGET, 90)


# Scores of a text.


def test_label_words_are_whole_words_of_any_case():
    words = {"paris", "new york", "no"}
    assert named_share("PARIS and New York, not Parisian", words) == pytest.approx(2 / 3)
    assert named_share("Parisian piano", words) == 0.0 and named_share("no.", set()) == 0.0


def test_label_words_are_those_of_training(plans):
    task = plans[2].task
    assert label_words(task.train) <= {"positive", "negative"} and label_words([]) == set()


def test_rouge_is_f_of_common_words_and_the_largest_of_the_references():
    # 3 of 4 words are among 5: 2 * 3 / 9.
    assert rouge_1("write the the capital", ["Write the capital of it."]) == pytest.approx(6 / 9)
    assert rouge_1("write the the capital", ["no", "Write the capital of it."]) == pytest.approx(6 / 9)
    assert rouge_1("", ["a"]) == 0.0 and rouge_1("a", []) == 0.0


def test_random_prompts_have_the_norms_of_each_row():
    prompt_Pd = np.random.default_rng(0).normal(size=(3, 50)) * np.array([[1.0], [5.0], [20.0]])
    random_Pd = equal_norms(prompt_Pd, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(random_Pd, axis=1), np.linalg.norm(prompt_Pd, axis=1), rtol=1e-5)
    assert abs(np.corrcoef(random_Pd[0], prompt_Pd[0])[0, 1]) < 0.5


# The whole.


def test_layers_are_chosen_by_validation_and_scored_on_test(result, runs, plans):
    """The chosen text is the first best of its run's; its accuracy is that of the text as the prompt, on test."""
    texts, table, lm = result.tables["texts"], result.tables["descriptions"], plans[0].lm
    assert len(texts) == 4 * 4 and len(table) == 4
    for row in table.itertuples():
        of_run = texts[texts["run"] == row.run]
        chosen = of_run[(of_run.source_layer == row.source_layer) & (of_run.target_layer == row.target_layer)].iloc[0]
        best = of_run[of_run.accuracy_chosen_on == of_run.accuracy_chosen_on.max()]
        assert chosen.text == row.text and chosen.loss_chosen_on == best.loss_chosen_on.min()
        assert row.label_words == of_run.label_words.max() and row.rouge == pytest.approx(of_run.rouge.max())
    task = module.evaluation_sets(runs, "t", 4, 0)[0]
    held = module._held(task, 3, 0)
    assert {e.id for e in held.task.test} <= {e.id for e in plans[0].task.validation} and held.n == 3
    assert not {e.id for e in held.task.test} & {e.id for e in plans[0].task.test}
    row = table.iloc[0]
    scored = task.evaluate(lm, as_prompt(lm, row.text)[None])
    assert row.accuracy_text == pytest.approx(scored.accuracy[0])


def test_the_best_text_is_of_the_highest_accuracy_then_of_the_lowest_loss(runs, plans):
    examples = module.evaluation_sets(runs, "t", 4, 0)[0]
    texts, about = [["a", "b", "c", "d"]], [({"b"}, ["d"])]
    tried = {(0, 0): [(0.1, 1.0), (0.4, 9.0), (0.4, 8.0), (0.4, 8.0)]}
    (chosen,) = module._chosen(plans[0].lm, texts, [(0, 0)], tried, [examples], about)
    assert (chosen.place, chosen.text) == (2, "c")
    assert (chosen.label_words, chosen.naming, chosen.rouge) == (1.0, "b", 1.0)  # the largest of all texts


def test_without_validation_layers_are_chosen_on_training_examples(runs, plans):
    import dataclasses

    task = module.evaluation_sets(runs, "t", 4, 0)[0]
    without = dataclasses.replace(task, task=dataclasses.replace(task.task, validation=[]))
    assert {e.id for e in module._held(without, 5, 0).task.test} <= {e.id for e in plans[0].task.train}


def test_the_same_seed_says_the_same_and_what_cannot_be_is_one_line(result, runs, plans):
    again = describe(runs, lm=plans[0].lm, **OPTIONS)
    assert again.numbers == result.numbers and again.figures == result.figures
    with pytest.raises(UserError, match="must be at least 1"):
        describe(runs, lm=plans[0].lm, **OPTIONS | {"layers": 0})


# What is said, of measured runs of which the truth is known.


def measured(own, other, tasks=4, inits=4, gap=0.8, noise=0.02, text=0.5) -> Measured:
    """Texts do `own` of the job for their own task, `other` for all others; nulls likewise; tasks' own ones `text`."""
    generator = np.random.default_rng(0)
    task_N, init_N = np.repeat(np.arange(tasks), inits), np.tile([f"i{k}" for k in range(inits)], tasks)
    none, best = 0.1, 0.1 + gap

    def chosen(share: float) -> Chosen:
        value = share + noise * generator.normal()
        accuracy, loss = none + value * (best - none), 9 - 4 * value
        return Chosen(0, "a text", accuracy, loss, max(value, 0) / 2, max(value, 0) / 3, "a")

    return Measured(
        [f"task{t}" for t in range(tasks)],
        task_N,
        init_N,
        np.tile([best, 5.0], (len(task_N), 1)),
        np.tile([none, 9.0], (tasks, 1)),
        [[chosen(own if t == mine else other) for t in range(tasks)] for mine in task_N],
        {"initial": [chosen(other) for _ in task_N], "random": [chosen(other) for _ in task_N]},
        [chosen(text) for _ in range(tasks)],
        [Pair(3, 3)],
        pd.DataFrame(),
    )


def answered(found: Measured) -> tuple[Result, dict]:
    result = Result()
    count = len(found.task_N)
    columns = {"id": [f"run{n}" for n in range(count)], "accuracy_none": 0.1, "seed": 0}
    table = pd.DataFrame({**columns, "accuracy_final": found.prompt_N2[:, 0]})
    module._answer(result, found, table, 500, 0)
    return result, {claim.name: claim for claim in result.claims}


def value(result: Result, quantity: str) -> float:
    (number,) = (each for each in result.numbers if each.quantity == quantity)
    return number.value


def test_texts_that_do_the_job_are_told_from_those_that_do_no_more_than_others():
    result, claims = answered(measured(own=0.9, other=0.2))
    assert claims["description_does_the_job"].outcome is Outcome.holds
    assert claims["describes_label_words"].outcome is Outcome.holds
    assert value(result, "plug_in.all") == pytest.approx(0.9, abs=0.02)
    for null in ("initial", "random", "others"):
        assert value(result, f"difference.plug_in.{null}") == pytest.approx(0.7, abs=0.03)
        assert value(result, f"plug_in.{null}.task0") == pytest.approx(0.2, abs=0.05)
    assert value(result, "plug_in_loss.all") == pytest.approx(0.9, abs=0.02)
    assert len(result.findings) == 12 and "more than those of" in result.findings[0].sentence
    for finding in result.findings:  # tasks are exchanged one-sided, signs two-sided
        assert ("one-sided" in finding.sentence) == (module.NULLS["others"] in finding.sentence)
    assert set(result.tables["descriptions"]) >= {"text", "plug_in", "null", "label_words", "rouge"}
    _, claims = answered(measured(own=0.2, other=0.2))
    assert claims["description_does_the_job"].outcome is Outcome.fails
    _, claims = answered(measured(own=0.2, other=0.2, noise=0.5))
    assert claims["description_does_the_job"].outcome is Outcome.undecidable


def test_texts_that_do_any_job_are_not_of_their_task():
    """Where other tasks' prompts do as much, it does not matter what random ones do."""
    found = measured(own=0.9, other=0.9)
    poor = measured(own=0.1, other=0.1).nulls_N
    _, claims = answered(Measured(**{**{k: getattr(found, k) for k in Measured.__dataclass_fields__}, "nulls_N": poor}))
    assert claims["description_does_the_job"].outcome is Outcome.fails


@pytest.mark.parametrize(("tasks", "least"), [(2, 1 / 2), (4, 1 / 24), (5, 1 / 120)])
def test_the_p_of_other_tasks_is_of_all_orders_of_whole_tasks(tasks, least):
    """However many inits there are: a task's prompts may be described alike from any."""
    result, _ = answered(measured(own=0.9, other=0.1, tasks=tasks))
    (number,) = (each for each in result.numbers if each.quantity == "difference.plug_in.others")
    assert number.p == pytest.approx(least)


def test_where_prompts_gain_little_nothing_is_said_of_the_job():
    result, claims = answered(measured(own=0.9, other=0.1, gap=0.09))
    assert claims["description_does_the_job"].outcome is Outcome.undecidable
    assert any("gain less than 0.1 over no prompt" in each for each in result.omissions)
    assert not [each for each in result.numbers if each.quantity.startswith("plug_in.")]
    assert result.tables["descriptions"]["plug_in"].isna().all()
    result, _ = answered(measured(own=0.9, other=0.1, gap=0.11))
    assert value(result, "plug_in.all") == pytest.approx(0.9, abs=0.02)


def test_where_no_text_does_the_job_none_could_be_told_to():
    result, claims = answered(measured(own=0.9, other=0.2, text=0.0))
    assert claims["description_does_the_job"].outcome is Outcome.undecidable
    assert "the tasks' own texts do something of the job (" in claims["description_does_the_job"].evidence
    assert claims["describes_label_words"].outcome is Outcome.holds
    assert value(result, "plug_in.own_text.all") == pytest.approx(0.0, abs=0.05)


def test_one_task_has_no_others_and_no_claim():
    result, claims = answered(measured(own=0.9, other=0.1, tasks=1))
    assert {claim.outcome for claim in claims.values()} == {Outcome.undecidable}
    assert any("no runs of other tasks" in each for each in result.omissions)
    assert all("in two tasks or more of an init" in claim.evidence for claim in claims.values())


def test_descriptions_that_are_all_alike_have_no_interval_and_decide_nothing():
    result, claims = answered(measured(own=0.2, other=0.2, noise=0.0))
    assert claims["description_does_the_job"].outcome is Outcome.undecidable
    assert all(each.low is None for each in result.numbers if each.quantity.startswith("plug_in."))
    assert all(each.low is None for each in result.numbers if each.quantity.startswith("difference."))


def test_intervals_of_shares_end_at_0_and_1():
    result, _ = answered(measured(own=0.05, other=0.0, noise=0.05))
    shares = [each for each in result.numbers if each.quantity.startswith(("label_words", "rouge"))]
    assert any(each.low == 0.0 for each in shares) and min(each.low for each in shares if each.low is not None) == 0.0


def test_the_figure_shows_every_null_beside_the_runs(result):
    for words in ("trained prompts", "P0s", "random prompts of equal norms", "other tasks"):
        assert words in result.figures["descriptions"]
    assert "country_capital" in result.figures["descriptions"]
