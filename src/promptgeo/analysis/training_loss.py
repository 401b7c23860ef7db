"""What do prompts that no run has trained lose on training examples? Through the frozen model, differentiable in the prompts.

Shapes: T prompts (points), P prompt tokens, d width.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from promptgeo.batching import sum_by_row
from promptgeo.frozen_lm import FrozenLM
from promptgeo.losses import label_losses
from promptgeo.row import Row

TorchLoss = Callable[[Tensor], Tensor]
"""Points [T, ...] fp32 -> their losses [T], differentiable."""


def token_losses(lm: FrozenLM, rows: Sequence[Row], points_TPd: Tensor) -> Tensor:
    """[T] fp32: the mean cross-entropy of a label token over the rows, in nats."""
    n = len(points_TPd)
    total: Tensor | int = 0
    for batch in lm.batches(list(rows) * n, np.repeat(np.arange(n), len(rows)).tolist(), points_TPd.shape[1]):
        ce_M = label_losses(lm.label_logits(points_TPd, batch), batch.targets_M)
        total = total + sum_by_row(ce_M, batch.row_M, n * len(rows))
    return total.view(n, len(rows)).sum(1) / sum(len(row.label) for row in rows)


def minibatch_losses(lm: FrozenLM, rows: Sequence[Row], batch_size: int, generator: np.random.Generator) -> TorchLoss:
    """token_losses on other rows each time it is called."""

    def loss(points_TPd: Tensor) -> Tensor:
        chosen = generator.choice(len(rows), min(batch_size, len(rows)), replace=False)
        return token_losses(lm, [rows[i] for i in chosen], points_TPd)

    return loss
