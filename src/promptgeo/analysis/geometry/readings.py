"""Which vocabulary tokens does a prompt token lie nearest to? Six readings of one matrix of token vectors.

Each reading is a map of vectors and a bias of tokens: token v is the nearer to p, the larger map(p) . map(v) + bias(v).
What a reading needs of the whole matrix is made once, in chunks: no [K, V] array, and no second copy of the matrix.

Shapes: V vocabulary, W tokens of a chunk, K vectors, d width, k nearest, D removed directions, S sampled tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

CHUNK_BYTES = 2**26
"""Of a chunk's vectors, or of its scores."""
HUB_NEAREST = 10
"""K of CSLS (Conneau et al. 2018, section 2.3)."""
TIED = 0.01
"""Matrices that differ by less, as a share of their norm, once one is scaled to the other, are tied: rounding a scaled
bf16 embedding moves it by .2 %."""


class Reading(StrEnum):
    """By what a token counts as near."""

    cosine = "cosine"
    """p . v / (|p| |v|): study 2's."""
    l2 = "l2"
    """-|p - v|, whose order is that of p . v - |v|^2 / 2."""
    dot = "dot"
    """p . v: of a matrix that writes, the token's logit."""
    centred = "centred"
    """The cosine of p - m and v - m; m: the mean of all tokens."""
    all_but_the_top = "all_but_the_top"
    """Likewise, without the first D = d / 100 principal directions of the tokens (Mu and Viswanath 2018, section 2)."""
    csls = "csls"
    """2 cos(p, v) - r(v), r(v): the mean cosine of v to its 10 nearest others of a sample of tokens, so that hubs count
    less (Conneau et al. 2018, equation 3; r(p), the same for all tokens, changes no order and is left out)."""


@dataclass(frozen=True)
class Nearest:
    """The nearest tokens of K vectors, nearest first; of equally near ones the lower number first."""

    tokens_Kk: np.ndarray
    """int64."""
    scores_Kk: np.ndarray
    """float32, as Reading defines them: larger is nearer."""


@dataclass(frozen=True)
class Readings:
    """A matrix of token vectors, and what its readings need of all of it."""

    matrix_Vd: np.ndarray
    """float32."""
    sample: int = 10_000
    """Tokens among which CSLS looks for neighbours."""
    seed: int = 0
    """Of that sample."""

    def nearest(self, vectors_Kd: np.ndarray, reading: Reading, k: int) -> Nearest:
        """The k nearest tokens (fewer where there are fewer) by one reading, in one pass over the chunks."""
        mapped, bias_V = MAPS[reading](self), BIASES[reading](self) if reading in BIASES else None
        vectors_Kd = np.ascontiguousarray(vectors_Kd, dtype=np.float32)
        query_Kd = mapped(torch.from_numpy(vectors_Kd))
        best, at = torch.empty(len(query_Kd), 0), torch.empty(len(query_Kd), 0, dtype=torch.int64)
        for start, chunk_Wd in chunks(self.matrix_Vd, len(query_Kd)):
            scores_KW = query_Kd @ mapped(chunk_Wd).T
            if bias_V is not None:
                scores_KW += bias_V[start : start + len(chunk_Wd)]
            values, places = scores_KW.topk(min(k, len(chunk_Wd)), dim=1)
            del scores_KW  # or two chunks would lie in memory while the next is made
            best, at = torch.cat([best, values], 1), torch.cat([at, places + start], 1)
            best, places = best.topk(min(k, best.shape[1]), dim=1)
            at = at.gather(1, places)
        tokens_Kk, scores_Kk = at.numpy(), best.numpy()
        if reading is Reading.l2:
            scores_Kk = self._minus_distances(vectors_Kd, tokens_Kk)
        elif reading is Reading.csls:
            scores_Kk = 2 * scores_Kk
        order_Kk = np.lexsort((tokens_Kk, -scores_Kk), axis=1)
        return Nearest(np.take_along_axis(tokens_Kk, order_Kk, 1), np.take_along_axis(scores_Kk, order_Kk, 1))

    def _minus_distances(self, vectors_Kd: np.ndarray, tokens_Kk: np.ndarray) -> np.ndarray:
        """[K, k] float32. From the differences: far from 0, products would round small distances away."""
        columns = [np.linalg.norm(vectors_Kd - self.matrix_Vd[tokens_K], axis=1) for tokens_K in tokens_Kk.T]
        return -np.stack(columns, axis=1)

    @cached_property
    def mean_d(self) -> Tensor:
        """float32: the mean of all tokens."""
        sums = [chunk_Wd.double().sum(0) for _, chunk_Wd in chunks(self.matrix_Vd)]
        return (torch.stack(sums).sum(0) / len(self.matrix_Vd)).float()

    @cached_property
    def top_dD(self) -> Tensor:
        """float32, orthonormal: the first d / 100 (one at least) principal directions of tokens about their mean."""
        width = self.matrix_Vd.shape[1]
        scatter_dd = torch.zeros(width, width, dtype=torch.float64)
        for _, chunk_Wd in chunks(self.matrix_Vd):
            centred_Wd = chunk_Wd - self.mean_d
            scatter_dd += (centred_Wd.T @ centred_Wd).double()
        directions_dd = torch.linalg.eigh(scatter_dd).eigenvectors  # of rising variance
        return directions_dd[:, -max(round(width / 100), 1) :].float()

    @cached_property
    def half_squares_V(self) -> Tensor:
        """float32: -|v|^2 / 2."""
        return torch.cat([-chunk_Wd.square().sum(1) / 2 for _, chunk_Wd in chunks(self.matrix_Vd)])

    @cached_property
    def half_hubness_V(self) -> Tensor:
        """float32: -r(v) / 2. A sampled token is no neighbour of itself."""
        generator = np.random.default_rng(self.seed)
        chosen_S = np.sort(generator.choice(len(self.matrix_Vd), min(self.sample, len(self.matrix_Vd)), replace=False))
        sample_dS = unit(torch.from_numpy(self.matrix_Vd[chosen_S])).T
        parts = []
        for start, chunk_Wd in chunks(self.matrix_Vd, len(chosen_S)):
            cosines_WS = unit(chunk_Wd) @ sample_dS
            own_S = np.flatnonzero((chosen_S >= start) & (chosen_S < start + len(chunk_Wd)))
            cosines_WS[chosen_S[own_S] - start, own_S] = -torch.inf
            nearest_Wk = cosines_WS.topk(min(HUB_NEAREST, len(chosen_S) - 1), dim=1).values
            parts.append(-nearest_Wk.mean(1) / 2)
            del cosines_WS
        return torch.cat(parts)


def chunks(matrix_Vd: np.ndarray, vectors: int = 1) -> Iterator[tuple[int, Tensor]]:
    """(number of its first token, [W, d]) of parts of a matrix that so many vectors are multiplied with."""
    size = max(CHUNK_BYTES // (4 * max(vectors, matrix_Vd.shape[1])), 1)
    for start in range(0, len(matrix_Vd), size):
        yield start, torch.from_numpy(matrix_Vd[start : start + size])


def unit(vectors_Kd: Tensor) -> Tensor:
    """[K, d]: at length 1; a zero vector stays zero, so that its cosine with anything is 0."""
    norms_K1 = torch.linalg.vector_norm(vectors_Kd, dim=1, keepdim=True)
    return vectors_Kd / torch.where(norms_K1 > 0, norms_K1, 1.0)


def _cosine(_: Readings) -> Callable[[Tensor], Tensor]:
    return unit


def _as_it_is(_: Readings) -> Callable[[Tensor], Tensor]:
    return lambda vectors_Kd: vectors_Kd


def _centred(matrix: Readings) -> Callable[[Tensor], Tensor]:
    mean_d = matrix.mean_d
    return lambda vectors_Kd: unit(vectors_Kd - mean_d)


def _all_but_the_top(matrix: Readings) -> Callable[[Tensor], Tensor]:
    mean_d, top_dD = matrix.mean_d, matrix.top_dD

    def mapped(vectors_Kd: Tensor) -> Tensor:
        vectors_Kd = vectors_Kd - mean_d
        return unit(vectors_Kd - vectors_Kd @ top_dD @ top_dD.T)

    return mapped


MAPS: dict[Reading, Callable[[Readings], Callable[[Tensor], Tensor]]] = {
    Reading.cosine: _cosine,
    Reading.l2: _as_it_is,
    Reading.dot: _as_it_is,
    Reading.centred: _centred,
    Reading.all_but_the_top: _all_but_the_top,
    Reading.csls: _cosine,
}
BIASES: dict[Reading, Callable[[Readings], Tensor]] = {
    Reading.l2: lambda matrix: matrix.half_squares_V,
    Reading.csls: lambda matrix: matrix.half_hubness_V,
}


def tied_scale(matrix_Vd: np.ndarray, other_Vd: np.ndarray) -> float | None:
    """c where one matrix is c times the other: tied embeddings, perhaps scaled (Gemma: sqrt(d)); None where it is not.

    Readings of the other are then those of the one: by cosine and CSLS the same tokens, and by the others those of
    prompts in the one's own unit.
    """
    if matrix_Vd.shape != other_Vd.shape:
        return None
    product, square, other_square = 0.0, 0.0, 0.0
    for start, part_Wd in chunks(matrix_Vd):
        part_Wd, other_Wd = part_Wd.double(), torch.from_numpy(other_Vd[start : start + len(part_Wd)]).double()
        product += float((part_Wd * other_Wd).sum())
        square, other_square = square + float(part_Wd.square().sum()), other_square + float(other_Wd.square().sum())
    if square == 0 or other_square == 0:
        return None
    rest = max(1 - product**2 / (square * other_square), 0.0)
    return float(product / other_square) if np.sqrt(rest) < TIED else None
