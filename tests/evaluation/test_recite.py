"""template=recite: a text that is the label of nothing; its shares of right tokens are those of a slow reference."""

import csv
import re
from importlib.resources import files

import numpy as np
import pytest
import torch

import reference
from promptgeo.config.compose import compose
from promptgeo.config.schema import Scoring, Template
from promptgeo.config.validate import validate
from promptgeo.data.example import Example
from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import UserError
from promptgeo.evaluation.evaluate import evaluate

RECITE = Template("recite", "\n{prompt}{input}", "{label}", "", Scoring.recite, 32)
TEXTS = ["cat dog bird book house", "table pen paper water chair"]


def task(*texts: str, length: int | None = None) -> Task:
    examples = [Example(i, "", text) for i, text in enumerate(texts)]
    return Task("t", examples, [], examples, RECITE, label_length=length)


def planted(model, lm, length: int, seed: int = 0) -> tuple[np.ndarray, Task]:
    """[2, 3, d] random prompts, and two texts: the first begins with what the model writes after the first prompt."""
    prompts = np.random.default_rng(seed).normal(0, 0.3, (2, 3, lm.width)).astype(np.float32)
    (row,) = task(TEXTS[0], length=1).rows(lm, [Example(0, "", TEXTS[0])], 3)
    own = reference.written(model, torch.from_numpy(prompts[0]), row, length)
    return prompts, task(lm.decode(own[: length // 2]) + TEXTS[0], TEXTS[1], length=length)


def test_shares_are_those_of_a_teacher_forced_arg_max_token_by_token(lm):
    model = reference.original(lm.name)
    prompts, recited = planted(model, lm, 8)
    rows = recited.rows(lm, recited.test, 3)
    assert [len(row.label) for row in rows] == [8, 8]
    assert rows[1].ids.tolist() == [*lm.encode("\n"), -1, -2, -3]
    likeliest = [
        [reference.label_logits(model, torch.from_numpy(p), row).argmax(-1).numpy() == row.label for row in rows]
        for p in prompts
    ]
    right = np.array([[each.sum() for each in of] for of in likeliest])
    begun = np.array([[int(np.cumprod(each).sum()) for each in of] for of in likeliest])
    scores = evaluate(lm, prompts, recited)
    assert scores.right.tolist() == right.tolist() and scores.begun.tolist() == begun.tolist()
    assert scores.metrics["tokens_right"].tolist() == (right.sum(1) / 16).tolist()
    assert scores.metrics["tokens_recited"].tolist() == (begun.sum(1) / 16).tolist()
    nats = [[float(reference.row_loss(model, torch.from_numpy(p), row).detach()) for row in rows] for p in prompts]
    np.testing.assert_allclose(scores.losses, nats, rtol=1e-4)
    assert scores.correct.tolist() == (right == 8).tolist()
    assert scores.of(1).metrics["tokens_right"].tolist() == scores.metrics["tokens_right"][1:].tolist()


def test_what_greedy_decoding_writes_is_right_up_to_its_first_wrong_token(gpt2):
    model = reference.original(gpt2.name)
    prompts, recited = planted(model, gpt2, 8)
    rows = recited.rows(gpt2, recited.test, 3)
    scores = evaluate(gpt2, prompts, recited, outputs=True)
    assert scores.begun[0, 0] > 0  # or nothing would be tested
    for n, prompt in enumerate(prompts):
        for e, row in enumerate(rows):
            wrote = reference.written(model, torch.from_numpy(prompt), row, 8)
            begun = next((i for i, (a, b) in enumerate(zip(wrote, row.label, strict=True)) if a != b), 8)
            assert scores.begun[n, e] == begun
            assert scores.outputs[n][e] == gpt2.decode(wrote[: begun + 1])


def test_a_text_that_is_written_whole_is_correct(gpt2):
    model = reference.original(gpt2.name)
    prompts, recited = planted(model, gpt2, 4)
    row = recited.rows(gpt2, recited.test, 3)[0]
    whole = gpt2.decode(reference.written(model, torch.from_numpy(prompts[0]), row, 6))
    n = len(gpt2.encode(whole))
    scores = evaluate(gpt2, prompts, task(whole, length=n))
    assert scores.correct[0, 0] == (scores.right[0, 0] == n)
    held = int(scores.begun[0, 0])
    assert held > 0 and evaluate(gpt2, prompts, task(whole, length=held)).correct[0, 0]


def test_other_scoring_rules_have_no_shares(gpt2):
    other = Template("t", "Input: {input}\nLabel:", " {label}", "\n", Scoring.line, 4)
    examples = [Example(0, "cat", "dog")]
    scores = evaluate(gpt2, np.zeros((1, 2, gpt2.width)), Task("t", examples, [], examples, other))
    assert scores.right is None and "tokens_right" not in scores.metrics


# Texts.


def test_a_label_is_cut_to_so_many_tokens_and_a_shorter_one_is_refused(gpt2):
    (row,) = task(TEXTS[0], length=3).rows(gpt2, [Example(0, "", TEXTS[0])], 1)
    assert row.label.tolist() == gpt2.encode(TEXTS[0])[:3]
    with pytest.raises(UserError, match=r"task t, example 0 .*: its label has 2 tokens .*task.label_length=3 needs"):
        task(" cat", length=3).rows(gpt2, [Example(0, "", " cat")], 1)


def test_the_bundled_texts_are_twenty_and_differ_in_order_or_in_words():
    with (files("promptgeo.data") / "bundled" / "texts.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20 and list(rows[0]) == ["real", "shuffled", "random_words"]
    known: set[str] = set()
    for path in (files("promptgeo.data") / "bundled").iterdir():
        if path.name.endswith(".csv") and path.name != "texts.csv":
            known |= set(re.findall("[a-z]+", path.read_text(encoding="utf-8")))
    for row in rows:
        assert sorted(row["shuffled"].split()) == sorted(row["real"].split()) and row["shuffled"] != row["real"]
        assert len(row["random_words"].split()) == 120 and set(row["random_words"].split()) <= known
    assert len({row["real"][:40] for row in rows}) == 20


def test_a_row_is_a_task_of_its_own_that_is_trained_on_and_scored():
    config = compose(["task=recite", "template=recite", "task.source.row=3", "task.source.label=shuffled"])
    assert config.task.name == "shuffled_3" and config.task.label_length == 32
    made = load_task(config.task, config.template)
    assert made.train == made.validation == made.test and len(made.train) == 1
    assert made.train[0].input == "" and len(made.train[0].label.split()) == 120


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("task.source.row=20", r"task.source.row=20: texts.csv has 20 rows, counted from 0"),
        ("task.source.row=-1", r"task.source.row=-1: "),
        ("task.split.kind=random task.split.stop_on_test=false", r"task.source.row=0: one example cannot be split"),
        ("task.label_length=0", r"task.label_length=0: "),
        ("training.early_stopping.accuracy=1.5", r"training.early_stopping.accuracy=1.5: .*above 0, at most 1"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        config = compose(["task=recite", "template=recite", *overrides.split()])
        validate(config)
        load_task(config.task, config.template)


# Training.


def test_training_ends_when_every_token_is_right_and_only_then(tmp_path):
    """A text that tiny can hold, and the same without the key: there training goes on."""
    common = ["task=recite", "template=recite", "init=normal", "task.source.label=random_words", "prompt.length=2"]
    common += ["task.label_length=3", "training.epochs=60", "training.checkpoints=log", "evaluation.every='5'"]
    common += ["evaluation.split=validation", "optimizer.lr_in_embedding_units=1"]
    stopped = reference.trained(reference.make_plan("tiny", tmp_path, *common, "training.early_stopping.accuracy=1"))
    results = stopped.info["results"]
    assert results["tokens_right"]["final"] == results["accuracy"]["final"] == 1.0 and results["split"] == "validation"
    assert results["steps"] < 60 and results["steps"] % 5 == 0
    scored = stopped.metrics[stopped.metrics["split"] == "validation"]
    assert (scored["tokens_right"].iloc[:-1] < 1).all() and scored["step"].iloc[-1] == results["steps"]
    whole = reference.trained(reference.make_plan("tiny", tmp_path / "whole", *common))
    assert whole.info["results"]["steps"] == 60
