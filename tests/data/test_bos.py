"""BOS: what the model's tokenizer puts before a text stands before the prompt, once, and is part of what a run is."""

import json

import numpy as np
import pytest

import reference
from conftest import make_tokenizer, tokenizer_that_writes
from promptgeo import FrozenLM, UserError
from promptgeo.config.schema import Bos, Template
from promptgeo.data.tasks import Example, Task
from promptgeo.model.tokenizer import leading_tokens
from promptgeo.runs.folder import Run, own_digest
from promptgeo.runs.task import task_of

SMALL = ("task=plus_two", "task.split.max_train=8", "task.split.max_test=4", "training.max_steps=2")


class Speaker:
    """A tokenizer, as tasks see a model."""

    max_positions, token_limit = None, 1 << 62

    def __init__(self, tokenizer):
        self.tokenizer, self.bos = tokenizer, leading_tokens(tokenizer)

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids):
        return self.tokenizer.decode(ids)


def ids_of(speaker, text: str, prompt_length: int = 2, bos: Bos = Bos.auto) -> list[int]:
    task = Task("words", [], [], [], Template("t", text, "{label}", bos=bos))
    (row,) = task.rows(speaker, [Example(0, "cat", "dog")], prompt_length)
    return row.ids.tolist()


@pytest.mark.parametrize(
    ("pieces", "leading"),
    [
        (("$A",), []),
        (("$A", "<|endoftext|>"), []),
        (("<bos>", "$A"), ["<bos>"]),
        (("<bos>", "$A", "<|endoftext|>"), ["<bos>"]),
        (("<bos>", "<lang>", "$A"), ["<bos>", "<lang>"]),
    ],
)
def test_what_stands_before_a_text_is_found_by_encoding_one(pieces, leading):
    tokenizer = tokenizer_that_writes(*pieces)
    assert leading_tokens(tokenizer) == tokenizer.convert_tokens_to_ids(leading)


def test_it_stands_at_index_0_before_the_prompt_once():
    speaker = Speaker(tokenizer_that_writes("<bos>", "$A"))
    (bos,), cat = speaker.bos, speaker.encode("cat")
    assert ids_of(speaker, "{input}") == ids_of(speaker, "{input}", bos=Bos.always) == [bos, -1, -2, *cat]
    assert ids_of(speaker, "{input}{prompt}") == [bos, *cat, -1, -2]
    assert ids_of(speaker, "{input}", prompt_length=0) == [bos, *cat]
    assert ids_of(speaker, "{input}", bos=Bos.never) == [-1, -2, *cat]
    assert ids_of(speaker, "<bos>{prompt}{input}") == [bos, -1, -2, *cat]  # the template wrote it
    assert ids_of(speaker, "{input}<bos>{prompt}") == [bos, *cat, bos, -1, -2]  # what stands within is text
    assert ids_of(speaker, "{input}", bos=Bos.after_prompt) == [-1, -2, bos, *cat]
    assert ids_of(speaker, "{input}{prompt}{input}", bos=Bos.after_prompt) == [*cat, -1, -2, bos, *cat]
    assert ids_of(speaker, "{input}", prompt_length=0, bos=Bos.after_prompt) == [bos, *cat]


def test_a_tokenizer_that_puts_nothing_changes_no_row_and_cannot_be_made_to():
    speaker = Speaker(make_tokenizer())
    assert ids_of(speaker, "{input}") == [-1, -2, *speaker.encode("cat")]
    with pytest.raises(UserError, match=r"template\.bos=always: this model's tokenizer puts nothing before a text"):
        ids_of(speaker, "{input}", bos=Bos.always)


def test_a_run_says_what_auto_came_to_and_is_another_run_than_one_without(with_bos, model_folders, tmp_path):
    plans = {bos: reference.make_plan(with_bos, tmp_path, *SMALL, f"template.bos={bos}") for bos in ("auto", "never")}
    assert plans["auto"].id == reference.make_plan(with_bos, tmp_path, *SMALL, "template.bos=always").id
    assert plans["auto"].id != plans["never"].id
    (bos,) = plans["auto"].lm.bos
    assert all(row.ids[0] == bos and row.ids[1] == -1 for row in plans["auto"].train_rows)
    assert all(row.ids[0] == -1 and bos not in row.ids for row in plans["never"].train_rows)
    without = reference.make_plan(model_folders["llama"], tmp_path, *SMALL)
    assert without.id == reference.make_plan(model_folders["llama"], tmp_path, *SMALL, "template.bos=never").id
    run = reference.trained(plans["auto"])
    assert run.info["config"]["template"]["bos"] == "always"
    (row,) = task_of(run).rows(plans["auto"].lm, task_of(run).test[:1], 4)
    assert row.ids[0] == bos
    # What is trained, scored without a prompt and written is what a plain model does after that BOS.
    expected = reference.train(plans["auto"], reference.original(with_bos))[-1]
    np.testing.assert_allclose(run.prompt("final"), expected, rtol=0, atol=2e-5)


def test_a_run_json_without_the_field_is_of_a_run_without_bos(with_bos, tmp_path):
    plan = reference.make_plan(with_bos, tmp_path, *SMALL, "template.bos=never")
    run = reference.trained(plan)
    info = json.loads((run.folder / "run.json").read_text())
    del info["config"]["template"]["bos"]
    info["sha256"] = own_digest(info)
    (run.folder / "run.json").write_text(json.dumps(info))
    old = Run.load(run.folder)
    lm = FrozenLM.load(str(with_bos), device="cpu")
    (row,) = task_of(old).rows(lm, task_of(old).test[:1], 4)
    assert row.ids[0] == -1


def test_a_template_that_writes_bos_itself_is_one_run_whatever_the_key_says(with_bos, tmp_path):
    written = ("template.text='<bos>{prompt}{input}:'",)
    values = ("auto", "always", "never", "after_prompt")
    plans = [reference.make_plan(with_bos, tmp_path, *SMALL, *written, f"template.bos={bos}") for bos in values]
    assert len({plan.id for plan in plans}) == 1 and plans[0].config.template.bos is Bos.never


def test_a_text_init_has_no_bos(with_bos, tmp_path):
    plan = reference.make_plan(with_bos, tmp_path, *SMALL, "init=text", "init.text=cat", "prompt.length=null")
    assert len(plan.p0_Pd) == len(plan.lm.encode("cat"))
