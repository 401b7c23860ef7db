"""What is asked of a model when it is loaded, and ten families against the untouched model (families.py has all)."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import reference
from promptgeo import FrozenLM, UserError
from promptgeo.model import checks

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import families

TEN = (
    "gemma3n_text",  # per-layer embeddings of ids: silent without them
    "gemma4_text",  # the same, and a crash
    "deepseek_v4",  # experts by token id
    "mamba",  # no attention
    "bamba",  # attention and a state
    "falcon",
    "mpt",  # ALiBi, no position_ids
    "qwen3",
    "olmo2",
    "mixtral",  # experts
)


@pytest.mark.parametrize("family", [*TEN[-2:], *(pytest.param(family, marks=pytest.mark.long) for family in TEN[:-2])])
def test_a_family_equals_plain_transformers(family, tokenizer):
    line = families.examine(family, tokenizer)
    assert line["verdict"] == "equal", line
    assert line["needs_token_ids"] == (family in ("gemma3n_text", "gemma4_text", "deepseek_v4"))


class Broken(nn.Module):
    """Passes its input on, and halves the gradient."""

    class _Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient / 2

    def forward(self, x):
        return self._Half.apply(x)


def test_a_gradient_that_is_not_plain_autograds_is_refused(model_folders, tokenizer, monkeypatch):
    ask = FrozenLM.label_logits
    monkeypatch.setattr(FrozenLM, "label_logits", lambda self, p, *rest: ask(self, Broken()(p), *rest))
    with pytest.raises(UserError, match="gradients of a padded batch"):
        FrozenLM(reference.original(model_folders["gpt2"]), tokenizer, name="x")


def test_a_model_whose_forward_fails_is_refused_in_one_line(model_folders, tokenizer):
    model = reference.original(model_folders["gpt2"])
    model.transformer.h[0].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(UserError, match=r"model.name_or_path=x: it does not run .*ZeroDivisionError") as raised:
        FrozenLM(model, tokenizer, name="x")
    assert "\n" not in str(raised.value)


def test_ids_that_a_fingerprint_does_not_announce_are_refused(tokenizer):
    """Or an old run of such a model, trained without its ids, would pass for a run with them."""
    model = families.make_model("gemma3n_text")
    assert checks.Reference(model, "x", announced=True).by_ids
    with pytest.raises(UserError, match="something else of token ids"):
        checks.Reference(model, "x", announced=False)


def test_the_checks_pass_over_the_model_three_times_and_over_promptgeos_own_once(model_folders, tokenizer):
    model = reference.original(model_folders["gpt2"])
    calls = []
    model.transformer.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    FrozenLM(model, tokenizer)
    assert calls == [False, True, True]
