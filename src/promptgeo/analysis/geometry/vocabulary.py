"""The model's own token embeddings: distances from prompt tokens to a vocabulary, in chunks that fit into memory.

Shapes: V vocabulary, K prompt tokens, d width, k nearest, E radii.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch

from promptgeo.config.schema import InitKind
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

CHUNK_BYTES = 2**27
"""Of distances held at once."""
OWN_SHARE = 35.66 / 50_256
"""Of all pairs of vocabulary tokens, those within cosine distance .7 on study 3's model: 36.66 of GPT-2's 50,257 tokens
lie around a random one, itself among them."""


@dataclass(frozen=True)
class Near:
    """The vocabulary tokens near K vectors."""

    counts_EK: np.ndarray
    """int64: tokens closer than each radius."""
    nearest_Kk: np.ndarray
    """int64: the nearest tokens, nearest first; of equally near ones the lower number first."""
    distances_Kk: np.ndarray
    """float32: their cosine distances."""


@dataclass(frozen=True)
class Vocabulary:
    """A model's token embeddings with their texts."""

    embeddings_Vd: np.ndarray
    """float32, as the first layer gets them."""
    tokens: list[str]
    """What each token says, decoded on its own."""
    _last: dict[str, Near] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, lm: LM) -> "Vocabulary":
        """The vocabulary of a model."""
        embeddings_Vd = lm.vocabulary().numpy()
        return cls(embeddings_Vd, [lm.token_text(i) for i in range(len(embeddings_Vd))])

    def __len__(self) -> int:
        return len(self.embeddings_Vd)

    @cached_property
    def norms_V(self) -> np.ndarray:
        """float32 [V]; 1 where a token's embedding is zero, so that its cosine with anything is 0."""
        # numpy's norm would copy all embeddings.
        norms = torch.linalg.vector_norm(torch.from_numpy(self.embeddings_Vd), dim=1)
        return torch.where(norms > 0, norms, 1.0).float().numpy()

    def cosine_distances(self, unit_Kd: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """1 - cosine to K vectors, a part of the vocabulary at a time: (which tokens, [part, K] float32)."""
        left_Kd = torch.from_numpy(np.ascontiguousarray(unit_Kd, dtype=np.float32))
        size = max(CHUNK_BYTES // (4 * max(unit_Kd.shape)), 1)
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            cosines = left_Kd @ torch.from_numpy(self.embeddings_Vd[part]).T
            cosines /= torch.from_numpy(self.norms_V[part])
            yield part, cosines.neg_().add_(1.0).numpy().T
            del cosines  # or two chunks would lie in memory while the next is made

    def near(
        self, unit_Kd: np.ndarray, radii: Sequence[float] = (), nearest: int = 1, own_K: np.ndarray | None = None
    ) -> Near:
        """The tokens near K vectors of length 1, in one pass over the chunks; no [K, V] array is made.

        The last result is cached: both conventions need the same.

        Args:
            radii: cosine distances within which tokens are counted.
            nearest: nearest tokens of each vector; fewer where the vocabulary has fewer.
            own_K: [K] int64, the token that a vector itself is (-1: none); it is neither counted nor nearest.
        """
        own_K = np.full(len(unit_Kd), -1) if own_K is None else np.asarray(own_K)
        key = sha256(np.ascontiguousarray(unit_Kd).data).hexdigest()
        key += repr((unit_Kd.dtype, unit_Kd.shape, tuple(radii), nearest, own_K.tolist()))
        if key not in self._last:
            self._last.clear()
            self._last[key] = self._near(unit_Kd, radii, nearest, own_K)
        return self._last[key]

    def _near(self, unit_Kd: np.ndarray, radii: Sequence[float], nearest: int, own_K: np.ndarray) -> Near:
        k = min(nearest, len(self) - bool((own_K >= 0).any()))
        counts_EK = np.zeros((len(radii), len(unit_Kd)), dtype=np.int64)
        best = torch.empty(len(unit_Kd), 0), torch.empty(len(unit_Kd), 0, dtype=torch.int64)
        for part, distances_VK in self.cosine_distances(unit_Kd):
            distances_KV = torch.from_numpy(distances_VK.T)
            rows = np.flatnonzero((own_K >= part.start) & (own_K < part.stop))
            distances_KV[rows, own_K[rows] - part.start] = torch.inf
            for e, radius in enumerate(radii):
                # torch's sum would widen the mask to 8 bytes.
                counts_EK[e] += np.count_nonzero(radius > distances_VK.T, axis=1)
            values, at = distances_KV.topk(min(k, distances_KV.shape[1]), dim=1, largest=False)
            values, tokens = torch.cat([best[0], values], 1), torch.cat([best[1], at + part.start], 1)
            values, at = values.topk(min(k, values.shape[1]), dim=1, largest=False)
            best = values, tokens.gather(1, at)
            del distances_VK, distances_KV
        distances_Kk, nearest_Kk = (b.numpy() for b in best)
        order = np.lexsort((nearest_Kk, distances_Kk), axis=1)
        return Near(counts_EK, np.take_along_axis(nearest_Kk, order, 1), np.take_along_axis(distances_Kk, order, 1))

    def unit(self, tokens: np.ndarray) -> np.ndarray:
        """[K, d] float32: embeddings of these tokens at length 1; a zero embedding stays zero."""
        return self.embeddings_Vd[tokens] / self.norms_V[tokens][:, None]

    def own_radius(self, share: float = OWN_SHARE, sample: int = 300, seed: int = 0) -> float:
        """The cosine distance within which such a share of pairs of tokens lies: this model's own .7 of GPT-2.

        sample: random tokens whose distances to all others are looked at.
        """
        chosen = self.sample(sample, seed)
        count = max(round(share * len(chosen) * (len(self) - 1)), 1)
        least = np.empty(0, dtype=np.float32)
        for part, distances_VK in self.cosine_distances(self.unit(chosen)):
            distances_VK = distances_VK.copy()
            own = np.flatnonzero((chosen >= part.start) & (chosen < part.stop))
            distances_VK[chosen[own] - part.start, own] = np.inf
            least = np.concatenate([least, distances_VK.ravel()])
            least = np.partition(least, count - 1)[:count] if len(least) > count else least
        return float(least.max())

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of the first token with each text."""
        return {text: i for i, text in reversed(list(enumerate(self.tokens)))}

    def sample(self, n: int, seed: int) -> np.ndarray:
        """[n] int64: tokens drawn without replacement."""
        return np.sort(np.random.default_rng(seed).choice(len(self), size=min(n, len(self)), replace=False))


def require_width(vocabulary: Vocabulary, vectors_Kd: np.ndarray) -> None:
    """Raises UserError where the vocabulary's embeddings are not as wide as the prompts."""
    if vocabulary.embeddings_Vd.shape[1] != vectors_Kd.shape[1]:
        wide, embeddings_wide = vectors_Kd.shape[1], vocabulary.embeddings_Vd.shape[1]
        raise UserError(
            f"these prompts are {wide} wide, the model's embeddings {embeddings_wide}: "
            "it is not the model that they were trained on"
        )


def init_words(runs: RunTable) -> dict[str, str]:
    """The word that each init repeats, by the init's name; inits that are not a word (random, a text, ...) have none.

    Of prompts that were trained elsewhere (imported as run folders or given as arrays), an init's name is taken for its
    word unless it is one of promptgeo's kinds of init.
    """
    kinds = {kind.name for kind in InitKind}
    words: dict[str, str] = {}
    for number, init in enumerate(runs.table["init"]):
        config = runs.runs[number].info["config"]["init"] if runs.runs is not None else {}
        if "kind" not in config:
            words |= {} if str(init) in kinds else {init: str(init)}
        elif config["kind"] == InitKind.word.name and config.get("text"):
            words.setdefault(init, config["text"])
    return words
