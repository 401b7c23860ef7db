"""in_context: demonstrations are what a user would write before an input, and are scored as prompts are."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import reference
from promptgeo.analysis.questions import in_context as module
from promptgeo.analysis.questions.in_context import in_context
from promptgeo.analysis.scoring import evaluation_sets
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

SMALL = ("task.split.max_train=20", "task.split.max_test=12", "training.epochs=2", "evaluation.every=end")
SMALL += ("evaluation.max_new_tokens=6", "template.longer_labels=warn", "training.checkpoints=100")
TASKS = ("country_capital", "plus_one")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    out = tmp_path_factory.mktemp("in_context")
    made = [reference.make_plan(TINY, out, f"task={task}", f"seed={s}", *SMALL) for task in TASKS for s in range(3)]
    assert train_pack(made) == {}
    return made


@pytest.fixture(scope="module")
def runs(plans):
    return table_of([Run.load(plan.folder) for plan in plans])


@pytest.fixture(scope="module")
def result(runs, plans):
    return in_context(runs, lm=plans[0].lm, shots=3, sets=4, seed=5)


def value(result, quantity: str) -> float:
    (number,) = (each for each in result.numbers if each.quantity == quantity)
    return number.value


def test_demonstrations_score_as_a_plain_model_that_reads_them_as_text(result, plans):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)
    solved = {}
    for plan in plans[::3]:
        task, rows = plan.task, result.tables["scored"]
        examples = {example.id: example for example in task.train}
        for row in rows[(rows["kind"] == "in_context") & (rows["task"] == task.name)].itertuples():
            shown = [examples[int(i)] for i in row.examples.split("|")]
            text = "".join(f"Input: {each.input}\nLabel: {each.label}\n" for each in shown)
            assert len(shown) == 3 and len(tokenizer(text, add_special_tokens=False).input_ids) == row.tokens
            right = []
            for example in task.test:
                ids = tokenizer(f"{text}Input: {example.input}\nLabel:", return_tensors="pt").input_ids
                with torch.no_grad():
                    written = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
                right.append(tokenizer.decode(written).split("\n")[0].strip() == example.label)
            assert row.accuracy == pytest.approx(np.mean(right)), (task.name, row.number)
            solved.setdefault(task.name, []).append(row.accuracy)
        assert value(result, f"in_context.{task.name}") == pytest.approx(np.mean(solved[task.name]))
    assert value(result, "in_context.all") == pytest.approx(np.mean([np.mean(each) for each in solved.values()]))


def test_trained_prompts_and_no_prompt_score_as_their_runs_say(result, runs):
    for task, rows in runs.table.groupby("task"):
        assert value(result, f"trained.{task}") == pytest.approx(rows["accuracy_final"].mean())
        assert value(result, f"none.{task}") == pytest.approx(rows["accuracy_none"].mean())
    means = {kind: value(result, f"{kind}.all") for kind in ("trained", "in_context", "none")}
    for kind, other in module.COMPARED:
        assert value(result, f"difference.{kind}.{other}") == pytest.approx(means[kind] - means[other])
    assert len(result.findings) == 3 and "8 draws" in result.findings[0].sentence
    table = result.tables["accuracies"]
    assert table["prompts"].tolist() == [3, 3, 4, 4, 1, 1] and set(table["n"]) == {12}


def test_draws_are_of_training_examples_and_differ_by_seed(result, runs, plans):
    again = in_context(runs, lm=plans[0].lm, shots=3, sets=4, seed=5)
    other = in_context(runs, lm=plans[0].lm, shots=3, sets=4, seed=6)
    drawn = [each.tables["scored"]["examples"].dropna().tolist() for each in (result, again, other)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 8
    train = {task.name: {example.id for example in task.train} for task in (plan.task for plan in plans)}
    rows = result.tables["scored"].dropna(subset="examples")
    assert all({int(i) for i in row.examples.split("|")} <= train[row.task] for row in rows.itertuples())


def test_demonstrations_that_do_not_fit_are_left_out_and_counted(runs, plans):
    """tiny reads 128 tokens: 20 demonstrations are too many."""
    few = in_context(runs, lm=plans[0].lm, shots=20, sets=2)
    rows = few.tables["scored"].dropna(subset="examples")
    counts = rows["examples"].str.count(r"\|") + 1
    assert counts.max() < 20 and rows["tokens"].max() < 128
    assert all("up to 20 demonstrations" in few.findings[k].sentence.lower() for k in (0, 2))
    (line,) = (each for each in few.omissions if "no positions for 20 demonstrations" in each)
    assert f"country_capital (as few as {counts[rows['task'] == 'country_capital'].min()})" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shots": 0}, "shots=0, sets=6: at least 1 and 2"),
        ({"sets": 1}, "shots=5, sets=1"),
        ({"shots": 21}, "has 20 training examples, shots=21 are asked for; set analysis.in_context.shots=20"),
    ],
)
def test_what_cannot_be_asked_is_one_line(runs, plans, options, says):
    with pytest.raises(UserError, match=f"in_context: .*{re.escape(says)}"):
        in_context(runs, lm=plans[0].lm, **options)


def test_a_template_with_text_before_the_prompt_is_refused(runs, plans):
    (asked, *_) = evaluation_sets(runs, "in_context")
    template = dataclasses.replace(asked.task.template, text="Now {prompt}Input: {input}\nLabel:")
    amid = dataclasses.replace(asked, task=dataclasses.replace(asked.task, template=template))
    with pytest.raises(UserError, match="input_label has text before the prompt"):
        list(module._drawn(plans[0].lm, amid, 3, 2, 0))
