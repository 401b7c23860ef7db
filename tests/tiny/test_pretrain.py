"""Pretraining of the embedded model."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from promptgeo.tiny import PATH, pretrain


def small_model():
    torch.manual_seed(0)
    return pretrain.new_model(50, 0)


def random_batches(steps: int):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield torch.randint(50, (2, 12), generator=generator), torch.rand(2, 12, generator=generator) < 0.5


@pytest.mark.long
def test_interrupted_pretraining_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 2)
    whole = small_model()
    pretrain.fit(whole, random_batches(6), 6, 1e-3, tmp_path / "whole.pt")

    stopped, unfinished = small_model(), tmp_path / "stopped.pt"
    pretrain.fit(stopped, islice(random_batches(6), 3), 6, 1e-3, unfinished)  # its file is of step 2
    resumed = small_model()
    pretrain.fit(resumed, random_batches(6), 6, 1e-3, unfinished)

    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(stopped.lm_head.weight, whole.lm_head.weight)


def test_a_second_stage_begins_with_the_weights_of_the_first():
    earlier = GPT2LMHeadModel.from_pretrained(PATH, dtype=torch.float32)
    vocabulary = AutoTokenizer.from_pretrained(PATH).get_vocab()
    known = sorted(vocabulary, key=vocabulary.get)
    tokens = {token: at for at, token in enumerate(["a new token", *known[:0:-1]])}  # turned round; the first is gone
    model = pretrain.new_model(len(tokens), 0)
    fresh = model.transformer.wte.weight[0].clone()
    pretrain.begin_from(model, SimpleNamespace(get_vocab=lambda: tokens), PATH)

    ids = torch.tensor([[vocabulary[token] for token in known[5:20]]])
    turned = torch.tensor([[tokens[token] for token in known[5:20]]])
    with torch.no_grad():
        before, after = earlier(ids).logits, model(turned).logits
    torch.testing.assert_close(after[..., 1:], before[..., 1:].flip(-1), rtol=1e-4, atol=1e-4)
    assert torch.equal(model.transformer.wte.weight[0], fresh)
