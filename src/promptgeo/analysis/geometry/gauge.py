"""Which changes of a prompt token does the model ignore: its scale, a shift of all coordinates? And distances without.

A LayerNorm over the embeddings (BLOOM) ignores both; one that every block reads through ignores the shift alone, which
the residual stream carries from block to block (GPT-2). No list of families is consulted: the loaded model is asked.

Shapes: N prompts, P prompt tokens, M label positions, d width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from promptgeo.data.row import Row
from promptgeo.model.batching import IGNORE
from promptgeo.model.interface import LM

PROMPTS, LENGTH = 6, 2
FACTORS = (2.0, 0.5)
"""Powers of two: in bf16 too such a multiple is exact. The tokens of a prompt get different ones."""
NEGLIGIBLE = 0.05
"""Of what an equally large change in a random direction does: less counts as ignored. BLOOM's LayerNorm adds 1e-5 to
the variance, so a token's scale is not ignored to the last bit."""
TELLING = 4
"""A random change must do so many times what rounding does, else nothing can be told."""


@dataclass(frozen=True)
class Gauge:
    """What a model ignores of each prompt token, so that distances should ignore it too."""

    shift: bool
    """A constant that is added to all coordinates."""
    scale: bool
    """A positive factor."""

    @property
    def ignored(self) -> str:
        """What is ignored, in words; empty where nothing is."""
        return " and ".join(name for name in ("scale", "shift") if getattr(self, name))


@dataclass(frozen=True)
class Reactions:
    """What changes of prompt tokens do to logits: root mean square differences over the logits' spread."""

    shift: float
    shift_random: float
    """Of a change of equal size in a random direction."""
    scale: float
    scale_random: float
    rounding: float
    """Of a random change of the size of one rounding step of the model's dtype, and so of rounding anywhere."""

    @property
    def gauge(self) -> Gauge | None:
        """What is ignored; None where random changes do too little to tell that from rounding."""
        if min(self.shift_random, self.scale_random) < TELLING * self.rounding:
            return None
        return Gauge(self._ignored(self.shift, self.shift_random), self._ignored(self.scale, self.scale_random))

    def _ignored(self, reaction: float, random: float) -> bool:
        return reaction <= max(NEGLIGIBLE * random, self.rounding)


def gauge_of(lm: LM) -> Gauge:
    """What this model ignores, measured once for each loaded model.

    A model whose logits hardly depend on a prompt ignores nothing that could be told: neither is taken for ignored.
    """
    if lm not in _known:
        _known[lm] = measured(lm).gauge or Gauge(shift=False, scale=False)
    return _known[lm]


_known: "WeakKeyDictionary[LM, Gauge]" = WeakKeyDictionary()


def quotient(vectors: np.ndarray, gauge: Gauge) -> np.ndarray:
    """[..., d] float64: each vector's representative among those that the model does not tell from it.

    Without shift: centred, so that Euclidean distances are the least over all shifts. Without scale: then divided by
    its length; a vector of length 0 stays.
    """
    chosen = np.array(vectors, dtype=np.float64)
    if gauge.shift:
        chosen -= chosen.mean(-1, keepdims=True)
    if gauge.scale:
        lengths = np.linalg.norm(chosen, axis=-1, keepdims=True)
        chosen /= np.where(lengths > 0, lengths, 1.0)
    return chosen


@torch.no_grad()
def measured(lm: LM, seed: int = 0) -> Reactions:
    """Moves the tokens of a few prompts near vocabulary tokens, and compares logits at and after them.

    seed: of the prompts, and of the random directions.
    """
    generator = torch.Generator().manual_seed(seed)
    ids, prompts_NPd = _prompts(lm, generator)
    rows = [Row(np.array([a, -1, -2]), np.array([b, c, d])) for a, b, c, d in ids.reshape(PROMPTS, 4).tolist()]
    plain_MV = _logits(lm, prompts_NPd, rows)
    spread = plain_MV.std().clamp(min=1e-30)

    def reaction(changes: list[Tensor]) -> float:
        moved = [_logits(lm, prompts_NPd + change_NPd, rows) for change_NPd in changes]
        return float(torch.stack([(each - plain_MV).square().mean() for each in moved]).mean().sqrt() / spread)

    scaled, shifted = list(_scaled(prompts_NPd)), list(_shifted(prompts_NPd, lm.embedding_scale))
    return Reactions(
        shift=reaction(shifted),
        shift_random=reaction([_at_random(change, generator) for change in shifted]),
        scale=reaction(scaled),
        scale_random=reaction([_at_random(change, generator) for change in scaled]),
        rounding=reaction([_at_random(torch.finfo(lm.dtype).eps * prompts_NPd, generator)]),
    )


def _prompts(lm: LM, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(ids of text tokens [4 N], prompts [N, P, d] fp32): ordinary ones, those of prompts with some noise."""
    ordinary = torch.tensor([i for i in range(lm.vocabulary_size) if i not in lm.special_ids])
    chosen = ordinary[torch.randint(len(ordinary), (PROMPTS * (4 + LENGTH),), generator=generator)]
    tokens_NPd = lm.embed(chosen[4 * PROMPTS :].to(lm.device)).float().reshape(PROMPTS, LENGTH, -1)
    noise_NPd = torch.randn(tokens_NPd.shape, generator=generator).to(lm.device)
    return chosen[: 4 * PROMPTS], tokens_NPd + 0.5 * lm.embedding_scale * noise_NPd


def _scaled(prompts_NPd: Tensor) -> Iterator[Tensor]:
    """What scaling each token by a factor of its own adds to it."""
    for factors in (FACTORS, FACTORS[::-1]):
        yield (torch.tensor(factors, device=prompts_NPd.device) - 1)[:, None] * prompts_NPd


def _shifted(prompts_NPd: Tensor, size: float) -> Iterator[Tensor]:
    """A constant in all coordinates, another for each token."""
    for signs in ((1.0, -1.0), (-1.0, 1.0)):
        yield torch.tensor(signs, device=prompts_NPd.device)[:, None] * torch.full_like(prompts_NPd, size)


def _at_random(change_NPd: Tensor, generator: torch.Generator) -> Tensor:
    """A change of each token in a random direction, as large as this one."""
    noise_NPd = torch.randn(change_NPd.shape, generator=generator).to(change_NPd.device)
    return noise_NPd * (change_NPd.norm(dim=-1, keepdim=True) / noise_NPd.norm(dim=-1, keepdim=True))


def _logits(lm: LM, prompts_NPd: Tensor, rows: list[Row]) -> Tensor:
    """[M, V] fp32, in the order of the batches, which is the same for prompts of one shape."""
    parts = []
    for batch in lm.batches(rows, list(range(PROMPTS)), LENGTH):
        logits_MV = lm.label_logits(prompts_NPd, batch)
        parts.append(logits_MV[batch.targets_M != IGNORE])
    return torch.cat(parts)
