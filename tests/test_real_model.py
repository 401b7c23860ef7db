"""The first commands on a real pretrained model. PROMPTGEO_REAL_MODEL names its folder.

Run on Gemma 3 270M (base, dequantised from Q4_K_M): a BOS, scaled embeddings, 262,144 words, a sliding window.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
from peft_side import Peft
from promptgeo.analysis.describing import Pair, as_prompt, descriptions
from promptgeo.config.compose import compose
from promptgeo.config.compose_analyze import analysis_file
from promptgeo.data.tasks import load_task
from promptgeo.evaluation.evaluate import evaluate
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.runs.exporting import plan_export, write_export
from promptgeo.runs.folder import Run
from promptgeo.runs.task import task_of
from promptgeo.training.callbacks import Checkpointer
from promptgeo.training.engine import train_pack
from promptgeo.training.interruption import Interrupted

FOLDER = os.environ.get("PROMPTGEO_REAL_MODEL", "")
if not FOLDER:
    pytest.skip("needs a real model: PROMPTGEO_REAL_MODEL=<folder>", allow_module_level=True)
pytestmark = pytest.mark.long

SMALL = ("task.split.max_train=8", "task.split.max_test=2", "training.max_steps=2", "evaluation.max_new_tokens=4")


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    return FrozenLM.load(FOLDER, device="cpu", precision="fp32")


def test_logits_gradient_and_greedy_output_are_plain_transformers(lm):
    original = reference.original(FOLDER)
    texts = ["Input: France\nLabel:", "Input: a rather longer line than the other one\nLabel:"]
    rows = [
        reference.row([*lm.bos, -1, -2, *lm.encode(text)], lm.encode(label))
        for text, label in zip(texts, (" Paris\n", " I do not know\n"), strict=True)
    ]
    prompts = torch.randn(1, 2, lm.width, generator=torch.Generator().manual_seed(0)) * lm.embedding_scale
    ours, theirs = prompts.clone().requires_grad_(), prompts[0].clone().requires_grad_()
    logits = []
    for batch in lm.batches(rows, [0, 0], 2):
        all_MV = lm.label_logits(ours, batch)
        logits += [all_MV[batch.row_M == i] for i in range(2)]
    wanted = [reference.label_logits(original, theirs, row) for row in rows]
    for got, expected in zip(logits, wanted, strict=True):
        assert (got - expected).abs().max() < 1e-4 * expected.std()
        assert torch.equal(got.argmax(-1), expected.argmax(-1))
    loss = sum(reference.row_loss(original, theirs, row) for row in rows)
    own = torch.nn.functional.cross_entropy(
        torch.cat(logits), torch.cat([torch.from_numpy(row.label) for row in rows]), reduction="sum"
    )
    gradient, expected = torch.autograd.grad(own, ours)[0][0], torch.autograd.grad(loss, theirs)[0]
    assert (gradient - expected).norm() < 1e-3 * expected.norm()
    written = lm.write(prompts, rows, [0, 0], 4)
    assert written == [reference.written(original, prompts[0], row, 4) for row in rows]


@pytest.mark.parametrize("name", ["toy_cb", "toy_wsc"])
def test_label_losses_are_those_of_a_plain_forward(lm, name):
    original = reference.original(FOLDER)
    config = compose([f"task={name}"])
    loaded = load_task(config.task, config.template)
    task = replace(loaded, test=loaded.test[:3])
    prompts = torch.randn(1, 3, lm.width, generator=torch.Generator().manual_seed(1)) * lm.embedding_scale
    scores = evaluate(lm, prompts, task)
    for example, losses_L in zip(task.test, scores.label_losses[0], strict=True):
        for label, loss in zip(task.labels, losses_L, strict=True):
            ids = [*lm.bos, -1, -2, -3, *lm.encode(f"Input: {example.input}\nLabel:")]
            row = reference.row(ids, lm.encode(f" {label}\n"))
            with torch.no_grad():
                assert abs(loss - float(reference.row_loss(original, prompts[0], row))) < 1e-4  # nats


def test_it_begins_with_a_bos_has_a_scale_and_a_name_of_its_own(lm, tmp_path):
    assert lm.bos == [lm.tokenizer.bos_token_id] and lm.embedding_scale == pytest.approx(1.03, abs=0.01)
    plan = reference.make_plan(FOLDER, tmp_path, "task=country_capital", *SMALL)
    assert plan.config.template.bos.name == "always" and all(row.ids[0] == lm.bos[0] for row in plan.train_rows)
    assert plan.config.model.name == Path(FOLDER).name
    assert plan.optimizer.lr == pytest.approx(plan.config.optimizer.lr_in_embedding_units * lm.embedding_scale)


@pytest.fixture(scope="module")
def three_tasks(tmp_path_factory):
    """Three runs trained together: (plans, files)."""
    folder = tmp_path_factory.mktemp("together")
    tasks = ("country_capital", "present_past", "sentiment")
    plans = [reference.make_plan(FOLDER, folder, f"task={task}", *SMALL) for task in tasks]
    assert train_pack(plans) == {}
    return plans, [Run.load(plan.folder).info["files"] for plan in plans]


def test_a_run_in_a_pack_equals_the_run_alone(three_tasks, tmp_path):
    plans, files = three_tasks
    alone = reference.make_plan(FOLDER, tmp_path, "task=present_past", *SMALL)
    assert reference.trained(alone).info["files"] == files[1]
    info = json.loads((plans[1].folder / "run.json").read_text())
    assert info["lr"] == alone.optimizer.lr and info["results"]["steps"] == 2


def test_a_stopped_run_goes_on_as_if_never_stopped(three_tasks, tmp_path, monkeypatch):
    import signal

    real = Checkpointer.ticked

    def ticked(self):
        signal.raise_signal(signal.SIGINT)
        return real(self)

    plan = reference.make_plan(FOLDER, tmp_path, "task=country_capital", *SMALL)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Checkpointer, "ticked", ticked)
        train_pack([plan])
    assert train_pack([plan]) == {}
    assert Run.load(plan.folder).info["files"] == three_tasks[1][0]
    assert np.isfinite(Run.load(plan.folder).prompt("final")).all()


def test_generate_writes_the_predictions_of_every_test_row(lm, tmp_path):
    plan = reference.make_plan(FOLDER, tmp_path, "task=present_past", *SMALL, "task.split.max_test=40")
    run = reference.trained(plan)
    for which in ("none", "initial", "final"):
        rows = [row for row in run.predictions if row["prompt"] == which]
        assert len(rows) == 40
        assert run.generate([row["input"] for row in rows], which, lm=lm) == [row["output"] for row in rows]
    row = rows[7]
    assert run.generate(row["input"], lm=lm) == row["output"]  # alone as among others


def test_peft_says_with_an_exported_prompt_what_promptgeo_says(lm, three_tasks, tmp_path):
    for k, plan in enumerate(three_tasks[0]):
        run, out = Run.load(plan.folder), tmp_path / str(k)
        write_export(plan_export([plan.folder], "peft")[0], out)
        peft, task = Peft(FOLDER, out, special=False), task_of(run)
        rows = task.rows(lm, task.test, len(plan.p0_Pd))
        greedy = lm.write(torch.from_numpy(run.prompt()[None]), rows, [0] * len(rows), 4)
        losses = {row["id"]: row["loss"] for row in run.predictions if row["prompt"] == "final"}
        for example, written in zip(task.test, greedy, strict=True):
            text = peft.text(task, example)
            assert peft.loss(text, peft.label(task, example)) == pytest.approx(losses[example.id], abs=1e-4)
            assert peft.written(text, 4) == written


@torch.no_grad()
def test_hidden_states_and_patches_are_plain_transformers(lm):
    """Gemma's states reach 1e5 in one dimension: within 1e-5 of a layer's largest."""
    original = reference.original(FOLDER)
    rows = [
        reference.row([*lm.bos, -1, -2, *lm.encode(f"Input: {word}\nLabel:")], lm.encode(" x"))
        for word in ("France", "a longer one")
    ]
    prompt_Pd = torch.randn(2, lm.width, generator=torch.Generator().manual_seed(0)) * lm.embedding_scale
    layers, table = range(lm.layers + 1), original.get_input_embeddings()
    states = lm.hidden(prompt_Pd[None], rows, [0, 0], layers, [[1, -1]] * 2)
    states_1PD = torch.randn(1, 2, lm.width, generator=torch.Generator().manual_seed(1)) * 100
    with lm.patched(6, states_1PD):
        patched = lm.hidden(prompt_Pd[None], rows, [0, 0], layers, [[1, -1]] * 2)

    def write(_, args, named):
        args[0][0, [1, 2]] = states_1PD[0]

    for k, row in enumerate(rows):
        embeds = torch.stack([prompt_Pd[-1 - i] if i < 0 else table(torch.tensor([i]))[0] for i in row.ids.tolist()])
        plain = original(inputs_embeds=embeds[None], output_hidden_states=True, use_cache=False).hidden_states
        handle = original.model.layers[6].register_forward_pre_hook(write, with_kwargs=True)
        changed = original(inputs_embeds=embeds[None], output_hidden_states=True, use_cache=False).hidden_states
        handle.remove()
        for layer in layers:
            for ours, theirs in ((states, plain), (patched, changed)):
                wanted_QD = theirs[layer][0, [1, -1]]
                assert (ours[layer][k] - wanted_QD).abs().max() < 1e-5 * theirs[layer].abs().max()
    assert (patched[lm.layers][:, 1] - states[lm.layers][:, 1]).abs().max() > 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "text"),
    [("present_past", "Write the past of the word"), ("country_capital", "Write the capital of the country")],
)
def test_a_texts_own_states_are_read_back_as_that_text(lm, name, text):
    """describe, of a prompt that is a text, layers 3 to 9 into 1 to 6: what is read does what the text does.

    By loss: by exact match neither does anything, for the model follows no instruction.
    """
    target, pairs = analysis_file("describe")["target"], [Pair(s, t) for s in (3, 6, 9) for t in (1, 3, 6)]
    config = compose([f"model.name_or_path={FOLDER}", f"task={name}", "task.split.max_test=12"])
    task = load_task(config.task, config.template)
    (texts,) = descriptions(lm, [as_prompt(lm, text)], [task], pairs, target, 8)
    assert text == texts[pairs.index(Pair(3, 3))]
    prompts = [np.zeros((0, lm.width), np.float32), *(as_prompt(lm, each) for each in [text, *texts])]
    losses = [float(evaluate(lm, prompt_Pd[None], task).losses.mean()) for prompt_Pd in prompts]
    shares = [(losses[0] - loss) / (losses[0] - losses[1]) for loss in losses[2:]]
    assert abs(losses[0] - losses[1]) > 0.1
    assert shares[pairs.index(Pair(3, 3))] == pytest.approx(1.0)
