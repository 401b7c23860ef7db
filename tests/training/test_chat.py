"""template=chat: rows are what ChatML and Gemma's format say, written out by hand."""

import dataclasses
import json

import pytest
import torch

import promptgeo as pg
from conftest import make_config, make_tokenizer, sharpen
from promptgeo.config.compose import compose
from promptgeo.training.cell import cell_of
from promptgeo.training.engine import train_pack
from promptgeo.training.plan import plan

CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message.role == 'assistant' else message.role %}"
    "<start_of_turn>{{ role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'user' %}Date: "
    "{{ strftime_now('%d %b %Y') }}\n{% elif enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
)
CHATS = {
    # name: chat template, its own tokens, BOS, end of a text
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|endoftext|>", "<|im_end|>"),
    "gemma": (GEMMA, ["<bos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<end_of_turn>"),
    "llama2": (LLAMA2, ["<s>", "</s>"], "<s>", "</s>"),
    "thinking": (THINKING, ["<|im_start|>", "<|im_end|>"], "<|endoftext|>", "<|im_end|>"),
    "odd": ("{{ raise_exception('only\nsystems talk') }}", [], "<|endoftext|>", "<|endoftext|>"),
    "deaf": ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", [], "a", "b"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name -> a model's folder whose tokenizer has that chat template."""
    from transformers import AutoModelForCausalLM

    made = {}
    for name, (chat, own, bos, eos) in CHATS.items():
        tokenizer = make_tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": own, "bos_token": bos, "eos_token": eos})
        tokenizer.chat_template = chat
        torch.manual_seed(0)
        config = make_config("gpt2", len(tokenizer))
        config.n_positions = 256
        config.eos_token_id = tokenizer.eos_token_id
        model = AutoModelForCausalLM.from_config(config)
        sharpen(model)
        made[name] = tmp_path_factory.mktemp("chat") / name
        model.save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def planned(folder, out, *overrides):
    line = [f"model.name_or_path={folder}", "model.name=m", f"outputs={out}", "template=chat", "task=country_capital"]
    return plan(cell_of(compose([*line, "task.split.max_train=4", "task.split.max_test=2", *overrides])))


@pytest.mark.parametrize(
    ("name", "before", "between", "label", "end"),
    [
        (
            "chatml",
            "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
            "{label}",
            "<|im_end|>",
        ),
        ("gemma", "<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "{label}", "<end_of_turn>"),
        ("llama2", "<s>[INST] ", " [/INST]", " {label}", " </s>"),
        (
            "thinking",
            "<|im_start|>user\nDate: 26 Jul 2024\n",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            "{label}",
            "<|im_end|>",
        ),
    ],
)
def test_rows_are_the_chat_format_written_out_by_hand(folders, tmp_path, name, before, between, label, end):
    one = planned(folders[name], tmp_path)
    encode = one.lm.encode
    for example, row in zip(one.task.train, one.train_rows, strict=True):
        by_hand = [*encode(before), -1, -2, -3, -4, *encode(example.input + between)]
        assert row.ids.tolist() == by_hand
        assert row.label.tolist() == encode(label.replace("{label}", example.label) + end)
    assert one.train_rows[0].ids.tolist().count(encode(before)[0]) == before.count(CHATS[name][1][0]) + between.count(
        CHATS[name][1][0]
    )


def test_the_prompt_may_stand_anywhere_in_the_users_turn_and_each_turn_may_say_more(folders, tmp_path):
    own = ("template.text='Translate{prompt}: {input}'", "template.label='{label} ... '")
    one = planned(folders["gemma"], tmp_path, *own, "template.scoring=prefix")
    encode, example = one.lm.encode, one.task.train[0]
    by_hand = [*encode("<bos><start_of_turn>user\nTranslate"), -1, -2, -3, -4]
    by_hand += encode(f": {example.input}<end_of_turn>\n<start_of_turn>model\n")
    assert one.train_rows[0].ids.tolist() == by_hand
    assert one.train_rows[0].label.tolist() == encode(f"{example.label} ... <end_of_turn>")


def test_the_run_says_the_resolved_text_which_is_its_identity(folders, tmp_path):
    from promptgeo.runs.task import task_of

    one, other = (planned(folders[name], tmp_path, "training.max_steps=1") for name in ("gemma", "chatml"))
    assert one.id != other.id
    template = one.config.template
    keys = ("text", "label", "end", "name", "chat", "scoring")
    written = [f"template.{key}={json.dumps(getattr(template, key))}" for key in keys[:4]]
    by_hand = cell_of(
        compose(
            [
                f"model.name_or_path={folders['gemma']}",
                "model.name=m",
                f"outputs={tmp_path}",
                "task=country_capital",
                "task.split.max_train=4",
                "task.split.max_test=2",
                "training.max_steps=1",
                *written,
            ]
        )
    )
    assert by_hand.id == one.id
    assert train_pack([one]) == {}
    run = pg.Run.load(one.folder)
    assert run.info["config"]["template"]["text"] == (
        "<bos><start_of_turn>user\n{prompt}{input}<end_of_turn>\n<start_of_turn>model\n"
    )
    assert run.info["config"]["template"]["chat"] is False
    assert task_of(run).template == template
    fields = {"model.name_or_path": str(folders["gemma"]), "template": "chat"}
    of_task = pg.task("country_capital", **fields).template  # its BOS and label tokens are decided with a model
    assert dataclasses.replace(of_task, bos=template.bos, label_tokens=template.label_tokens) == template


def test_a_label_that_is_written_with_its_turns_end_is_correct(folders, tmp_path):
    one = planned(folders["gemma"], tmp_path, "training.max_steps=1")
    from promptgeo.evaluation.rules import Continuation, rule_of

    rule, example, row = rule_of(one.task.template), one.task.train[0], one.train_rows[0]
    assert rule.is_correct(Continuation(one.lm, row.label.tolist()), example, row)
    assert not rule.is_correct(Continuation(one.lm, row.label.tolist()[:-1]), example, row)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd", "its chat template takes no user and assistant turns: only systems talk"),
        ("deaf", "its chat template does not write the user's and the assistant's turn once, in order"),
        (None, "its tokenizer has no chat template; take an instruction-tuned model"),
    ],
)
def test_a_tokenizer_without_a_fitting_chat_template_is_one_line(folders, model_folders, tmp_path, name, said):
    with pytest.raises(pg.UserError, match=said) as error:
        planned(folders[name] if name else model_folders["gpt2"], tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith("template=chat, model.name_or_path=")
