"""What do prompts that no run has trained lose on examples? Through the frozen model, differentiable in the prompts.

Shapes: T prompts (points), P prompt tokens, d width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from promptgeo.analysis.geometry.subspaces import Loss, TorchLoss
from promptgeo.data.row import Row
from promptgeo.model.batching import sum_by_row
from promptgeo.model.interface import LM
from promptgeo.model.losses import label_losses

PART = 16
"""Prompts, or rows of one prompt, in one forward: the model's activations for all at once might not fit into memory."""


def token_losses(lm: LM, rows: Sequence[Row], points_TPd: Tensor) -> Tensor:
    """[T] fp32: the mean cross-entropy of a label token over the rows, in nats."""
    n = len(points_TPd)
    total = torch.zeros(n * len(rows), device=points_TPd.device)
    for batch in lm.batches(list(rows) * n, np.repeat(np.arange(n), len(rows)).tolist(), points_TPd.shape[1]):
        ce_M = label_losses(lm.label_logits(points_TPd, batch), batch.targets_M)
        total = total + sum_by_row(ce_M, batch.row_M, n * len(rows))
    return total.view(n, len(rows)).sum(1) / label_tokens(rows)


def label_tokens(rows: Sequence[Row]) -> int:
    return sum(len(row.label) for row in rows)


def minibatch_losses(lm: LM, rows: Sequence[Row], batch_size: int, generator: np.random.Generator) -> TorchLoss:
    """token_losses on other rows each time it is called."""

    def loss(points_TPd: Tensor) -> Tensor:
        chosen = generator.choice(len(rows), min(batch_size, len(rows)), replace=False)
        return token_losses(lm, [rows[i] for i in chosen], points_TPd)

    return loss


def losses_without_gradient(lm: LM, rows: Sequence[Row]) -> Loss:
    """token_losses of arrays, some points at a time; float64."""

    @torch.no_grad()
    def loss(points_TPd: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(points_TPd.astype(np.float32)).to(lm.device)
        parts = [token_losses(lm, rows, part) for part in points.split(PART)]
        return torch.cat(parts).cpu().numpy().astype(np.float64)

    return loss


def loss_gradient(lm: LM, rows: Sequence[Row], point_Pd: np.ndarray) -> np.ndarray:
    """[P, d] float64: the gradient of token_losses at a prompt, some rows at a time."""
    point = torch.from_numpy(point_Pd.astype(np.float32))[None].to(lm.device).requires_grad_()
    total = torch.zeros_like(point)
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        summed = token_losses(lm, part, point).sum() * label_tokens(part)
        total += torch.autograd.grad(summed, point)[0]
    return total[0].double().cpu().numpy() / label_tokens(rows)
