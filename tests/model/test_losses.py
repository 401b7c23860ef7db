"""The loss at label positions: the definition, its gradient, and what is ignored."""

import math

import torch

from promptgeo.model.batching import IGNORE
from promptgeo.model.losses import label_losses


def test_losses_and_gradients_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(5, 7, generator=generator)).requires_grad_()
    targets = torch.tensor([3, 0, IGNORE, 6, 3])
    weights = torch.randn(5, generator=generator)
    losses = label_losses(logits, targets)
    values = losses.tolist()
    (losses * weights).sum().backward()
    for m, (row, target) in enumerate(zip(logits.tolist(), targets.tolist(), strict=True)):
        total = sum(math.exp(x) for x in row)
        expected = 0.0 if target == IGNORE else math.log(total) - row[target]
        assert abs(values[m] - expected) < 1e-5
        for v, x in enumerate(row):
            slope = 0.0 if target == IGNORE else float(weights[m]) * (math.exp(x) / total - (v == target))
            assert abs(float(logits.grad[m, v]) - slope) < 1e-5
    assert label_losses(logits.detach(), targets).tolist() == values and values[2] == 0


def test_a_nan_stays_in_its_row():
    logits = torch.zeros(3, 4)
    logits[1, 2] = float("nan")
    logits.requires_grad_()
    label_losses(logits, torch.tensor([0, 1, IGNORE])).sum().backward()
    assert logits.grad.isnan().any(1).tolist() == [False, True, False]
