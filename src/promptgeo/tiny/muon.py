"""How is a matrix inside the model stepped? Muon, in single precision on processors that would emulate bf16

torch.optim.Muon always orthogonalises in bf16: without instructions for it a step of this model takes half a minute.
"""

from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration (Jordan 2024, github.com/KellerJordan/Muon)."""
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with Nesterov momentum and adjust_lr_fn="match_rms_adamw", in a dtype of choice.

    Args:
        params: matrices.
        lr: of an update whose root mean square is AdamW's (Liu et al. 2025, "Muon is scalable").
        weight_decay: decoupled.
        dtype: of the orthogonalisation.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "dtype": dtype})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(mean, group["momentum"]).to(group["dtype"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)


def orthogonal(matrix_mn: torch.Tensor) -> torch.Tensor:
    """About U V^T of the matrix's SVD, [m, n] of its dtype: the singular values come near 1, not to it."""
    wide = matrix_mn.T if matrix_mn.shape[0] > matrix_mn.shape[1] else matrix_mn
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide.T if matrix_mn.shape[0] > matrix_mn.shape[1] else wide
