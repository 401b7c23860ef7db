"""Which token is written next? The likeliest, or one that is drawn.

Shapes: M label positions, B of them, V vocabulary, K tokens that may be drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptgeo.errors import UserError

Choose = Callable[[Tensor, Sequence[int]], Tensor]
"""[M, V] fp32 logits, and of each position whose next token it is (-1: padding) -> [M] int64 tokens."""

ROWS = 16
"""Of logits that are looked at once: as float64, a large vocabulary's are some 30 MB."""

FEW = 1024
"""Tokens that mostly have top_p of the probability: to sort a large vocabulary takes a hundred times as long."""


def likeliest(logits_MV: Tensor, rows: Sequence[int]) -> Tensor:
    """Greedy decoding."""
    return logits_MV.argmax(-1)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: logits over the temperature, then the top_k largest, then of those the top_p of the mass.

    Raises UserError for a value that no drawing can have.
    """

    temperature: float = 1.0
    """Below 1 the likely become likelier."""
    top_k: int | None = None
    """Only so many of the likeliest tokens; None: all."""
    top_p: float | None = None
    """Only the fewest likeliest tokens that have at least this share of the probability together; None: all."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature}: a number above 0 is needed; without samples it is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k}: a whole number from 1 on is needed")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p}: a share above 0, and 1 at most, is needed")

    def probabilities(self, logits_BV: Tensor) -> tuple[Tensor, Tensor]:
        """What tokens are drawn with: float64 [B, K] that sum to 1, and the tokens, int64 [B, K]; others are not drawn.

        K is top_k, or V. Where some are left out, the likeliest stand first.
        """
        logits_BV = logits_BV.double()
        # From the largest down: no temperature makes that infinite.
        p_BV = ((logits_BV - logits_BV.amax(-1, keepdim=True)) / self.temperature).softmax(-1)
        size = p_BV.shape[1]
        if self.top_k is None and self.top_p is None:  # to sort a large vocabulary takes longer than all else here
            return p_BV, torch.arange(size, device=p_BV.device).expand_as(p_BV)
        p_BK, tokens_BK = p_BV.topk(min(self.top_k or FEW, size))
        if self.top_k is not None:
            p_BK = p_BK / p_BK.sum(-1, keepdim=True)
        elif (p_BK.sum(-1) < self.top_p).any():
            p_BK, tokens_BK = p_BV.topk(size)
        if self.top_p is not None:
            p_BK = p_BK.where(p_BK.cumsum(-1) - p_BK < self.top_p, 0)
        return p_BK / p_BK.sum(-1, keepdim=True), tokens_BK

    def drawing(self, seeds: Sequence[Sequence[int]]) -> Choose:
        """What draws the next token of each row, row i's from a generator of its own that seeds[i] starts.

        What a row draws so depends on no other row.
        """
        generators = [np.random.default_rng(seed) for seed in seeds]

        def drawn(logits_MV: Tensor, rows: Sequence[int]) -> Tensor:
            uniform_M = torch.tensor([generators[i].random() if i >= 0 else 0.0 for i in rows], dtype=torch.float64)
            chosen = []
            for logits_BV, uniform_B in zip(logits_MV.split(ROWS), uniform_M.split(ROWS), strict=True):
                p_BK, tokens_BK = self.probabilities(logits_BV)
                # Where the sum first exceeds the uniform number, which rounding may leave above all sums.
                sums_BK = p_BK.cumsum(-1)
                uniform_B = uniform_B.to(p_BK.device) * sums_BK[:, -1]
                at_B = (sums_BK <= uniform_B[:, None]).sum(-1).clamp(max=p_BK.shape[1] - 1)
                chosen.append(tokens_BK.gather(1, at_B[:, None])[:, 0])
            return torch.cat(chosen)

        return drawn
