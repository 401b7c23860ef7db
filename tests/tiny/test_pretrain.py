"""Pretraining of the embedded model."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from promptgeo.tiny import pretrain


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
