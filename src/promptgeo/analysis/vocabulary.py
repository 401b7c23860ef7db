"""The model's own token embeddings, in chunks: distances from prompt tokens to a vocabulary too large to compare at once.

Shapes: V vocabulary, K prompt tokens, d width, k nearest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from promptgeo.lm import FrozenLM

CHUNK_BYTES = 2**27
"""Of distances held at once."""


@dataclass(frozen=True)
class Vocabulary:
    embeddings_Vd: np.ndarray
    """float32, as the first layer gets them."""
    tokens: list[str]
    """What each token says, decoded on its own."""

    @classmethod
    def of(cls, lm: FrozenLM) -> "Vocabulary":
        embeddings_Vd = lm.vocabulary().numpy()
        return cls(embeddings_Vd, [lm.tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in range(len(embeddings_Vd))])

    def __len__(self) -> int:
        return len(self.embeddings_Vd)

    @cached_property
    def norms_V(self) -> np.ndarray:
        """float32 [V]; 1 where a token's embedding is zero, so that its cosine with anything is 0."""
        norms = np.linalg.norm(self.embeddings_Vd, axis=1)
        return np.where(norms > 0, norms, 1.0).astype(np.float32)

    def cosine_distances(self, unit_Kd: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """1 - cosine to the prompt tokens, a part of the vocabulary at a time: (which tokens, [part, K] float32)."""
        right_dK = torch.from_numpy(np.ascontiguousarray(unit_Kd.T, dtype=np.float32))
        size = max(CHUNK_BYTES // (4 * max(unit_Kd.shape[0], unit_Kd.shape[1])), 1)
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            cosines = torch.from_numpy(self.embeddings_Vd[part]) @ right_dK
            cosines /= torch.from_numpy(self.norms_V[part])[:, None]
            yield part, cosines.neg_().add_(1.0).numpy()

    def sample(self, n: int, seed: int) -> np.ndarray:
        """[n] int64: tokens drawn without replacement."""
        return np.sort(np.random.default_rng(seed).choice(len(self), size=min(n, len(self)), replace=False))
