"""What does a prompt lose at each label position?

Shapes: M label positions, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from promptgeo.model.batching import IGNORE


def label_losses(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """[M] cross-entropy of each target in nats, 0 where it is IGNORE.

    As torch's cross_entropy, whose backward fills and reads three arrays of M x V; this one works in the one that the
    forward made, so it can be differentiated once.

    Args:
        logits_MV: fp32, differentiable.
        targets_M: int64.
    """
    return _LabelLosses.apply(logits_MV, targets_M)


class _LabelLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, targets_M: Tensor) -> Tensor:
        kept_M = targets_M != IGNORE
        at_M1 = targets_M.where(kept_M, 0)[:, None]
        ctx.logp_MV = logits_MV.log_softmax(-1)
        ctx.kept_M, ctx.at_M1 = kept_M, at_M1
        return -ctx.logp_MV.gather(1, at_M1)[:, 0].where(kept_M, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient_M1 = gradients[0].where(ctx.kept_M, 0.0)[:, None]
        made_MV, ctx.logp_MV = ctx.logp_MV, None
        made_MV.exp_().mul_(gradient_M1)
        return made_MV.scatter_add_(1, ctx.at_M1, -gradient_M1), None
