"""How large is a set of low loss? Radii along directions, training inside a subspace, participation ratios.

Nothing here knows a model.

Shapes: N points, K directions, R radii along one, T trained points, D numbers of a point (P * d of a prompt), k
dimensions of a subspace, B draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from promptgeo.analysis.resampling import jackknife_interval, permutation_p

Loss = Callable[[np.ndarray], np.ndarray]
"""Points [N, ...] -> their losses [N]."""
TorchLoss = Callable[[Tensor], Tensor]
"""Points [T, ...] fp32 -> their losses [T], differentiable."""
DOUBLINGS, HALVINGS = 9, 6
"""Of radii: they resolve radii from 1/512 of the largest on, to 1/64 of themselves."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """[K, ...] float64: each as a whole at length 1."""
    flat = vectors.reshape(len(vectors), int(np.prod(vectors.shape[1:]))).astype(np.float64)  # -1 is none of no vector
    return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).reshape(vectors.shape)


def random_directions(n: int, shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    """[n, *shape] float64, evenly over the unit sphere."""
    return unit(generator.standard_normal((n, *shape)))


def radii(
    loss: Loss,
    point: np.ndarray,
    directions_K: np.ndarray,
    tau: float,
    most: float,
    *,
    doublings: int = DOUBLINGS,
    halvings: int = HALVINGS,
) -> tuple[np.ndarray, np.ndarray]:
    """(r_tau [K] float64, whether it is only known to be at least `most` [K] bool) of directions from a point.

    r_tau(u): as far as one can go from the point along u before the loss first exceeds tau. Farther out the loss may
    fall below tau again; that does not count. The loss is computed at most / 2^doublings, ..., most / 2, most, all at
    once, and the doubling (or the start) in which it first exceeds tau is halved `halvings` times: r is below the true
    one by at most 2^-halvings of itself, or of the smallest of those radii. A gap narrower than a doubling is missed.

    Args:
        point: float64, of any shape.
        directions_K: unit vectors of that shape.
        tau: the highest loss inside.
        most: the largest radius.
        doublings, halvings: how fine the search is.
    """

    def holds(r_KR: np.ndarray) -> np.ndarray:
        steps = r_KR.reshape(*r_KR.shape, *[1] * point.ndim) * directions_K[:, None]
        return loss((point + steps).reshape(-1, *point.shape)).reshape(r_KR.shape) <= tau

    grid_R = most * 2.0 ** np.arange(-doublings, 1)
    held_KR = holds(np.tile(grid_R, (len(directions_K), 1)))
    first_K = np.where(held_KR.all(1), len(grid_R), held_KR.argmin(1))  # the first radius that is outside
    bounds = np.concatenate([[0.0], grid_R, [most]])
    low_K, high_K = bounds[first_K], bounds[first_K + 1]
    for _ in range(halvings):
        middle_K = (low_K + high_K) / 2
        held_K = holds(middle_K[:, None])[:, 0]
        low_K, high_K = np.where(held_K, middle_K, low_K), np.where(held_K, high_K, middle_K)
    beyond_K = first_K == len(grid_R)
    return np.where(beyond_K, most, low_K), beyond_K


def orthonormal(size: int, dimension: int, generator: np.random.Generator) -> np.ndarray:
    """[D, k] float32: orthonormal columns of a random subspace; the first j of them span one of dimension j."""
    return np.linalg.qr(generator.standard_normal((size, dimension)))[0].astype(np.float32)


def train_in_subspaces(
    loss: TorchLoss, origins_T: Tensor, bases_T: Sequence[Tensor | None], *, steps: int, lr: float
) -> Tensor:
    """[T, ...]: the points P0 + A z that Adam finds from z = 0 (Li et al. 2018), each as if it were trained alone.

    Args:
        origins_T: the P0s, [T, ...] fp32. bases_T: A, [D, k] with orthonormal columns; None is the whole space. steps:
        of Adam. lr: of each coordinate in the whole space, and sqrt(D / k) times that in a subspace, so that a step is
        as long in each; falls linearly to 0.
    """
    size = origins_T[0].numel()
    dims = [size if basis is None else basis.shape[1] for basis in bases_T]
    z_T = [torch.zeros(k, device=origins_T.device, requires_grad=True) for k in dims]
    groups = [{"params": [z], "lr": lr * sqrt(size / k)} for z, k in zip(z_T, dims, strict=True)]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def points() -> Tensor:
        moved = [z if basis is None else basis @ z for z, basis in zip(z_T, bases_T, strict=True)]
        return origins_T + torch.stack(moved).view_as(origins_T)

    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss(points()).sum().backward()
        optimizer.step()
        schedule.step()
    return points().detach()


def smallest_reaching(accuracies_BK: np.ndarray, dims_K: Sequence[int], least_B: np.ndarray) -> np.ndarray:
    """[B] float64: the smallest of the rising dims whose accuracy is at least `least`; inf where none is."""
    reached_BK = accuracies_BK >= least_B[:, None] - 1e-9  # equal accuracies may differ in their last bits
    return np.where(reached_BK.any(1), np.asarray(dims_K, dtype=np.float64)[reached_BK.argmax(1)], np.inf)


def centred_gram(vectors_ND: np.ndarray) -> np.ndarray:
    """[N, N] float64: dot products of the vectors minus their mean."""
    centred = vectors_ND.astype(np.float64) - vectors_ND.mean(0, dtype=np.float64)
    return centred @ centred.T


def participation(gram_NN: np.ndarray, counts_BN: np.ndarray) -> np.ndarray:
    """[B] float64: (sum lambda)^2 / sum lambda^2 of the covariance's eigenvalues, run n counted counts_BN[b, n] times.

    How many dimensions the points spread over, evenly: k for k equal eigenvalues. At most N - 1 for N points, however
    many dimensions the set has; nan where a draw holds a single point.
    """
    weights_BN = counts_BN / counts_BN.sum(1, keepdims=True)
    mean_BN = weights_BN @ gram_NN
    centred_BNN = gram_NN - mean_BN[:, None] - mean_BN[:, :, None] + (weights_BN * mean_BN).sum(1)[:, None, None]
    total_B = np.einsum("bn,bnn->b", weights_BN, centred_BNN)
    squares_B = np.einsum("bn,bm,bnm->b", weights_BN, weights_BN, centred_BNN**2)
    spread_B = (weights_BN > 0).sum(1) > 1
    return np.divide(total_B**2, squares_B, out=np.full(len(total_B), np.nan), where=spread_B & (squares_B > 0))


def null_grams(vectors_ND: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """[R, N, N] float64: centred_gram of random directions, as long as the vectors minus their mean."""
    long_N1 = np.sqrt(np.diag(centred_gram(vectors_ND)))[:, None]
    n, shape = len(vectors_ND), vectors_ND.shape[1:]
    return np.stack([centred_gram(long_N1 * random_directions(n, shape, generator)) for _ in range(draws)])


def vocabulary_grams(
    embeddings_Vd: np.ndarray, n: int, length: int, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """[R, N, N] float64: centred_gram of n prompts of so many random vocabulary tokens each."""
    picked = generator.integers(0, len(embeddings_Vd), (draws, n, length))
    return np.stack([centred_gram(embeddings_Vd[picked_NP].reshape(n, -1)) for picked_NP in picked])


@dataclass(frozen=True)
class Spread:
    """A participation ratio beside that of other points: random directions, P0s, vocabulary tokens."""

    value: float
    null: float
    """Mean of the others'."""
    ratio: float
    """value / null."""
    low: float
    high: float
    """95 % interval of the ratio."""
    p: float
    """Of a null ratio that is at most as large."""


def spread(vectors_ND: np.ndarray, nulls: int, generator: np.random.Generator) -> tuple[Spread, np.ndarray]:
    """(the participation ratio of N >= 4 vectors against random directions', shares of variance by component [N - 1]).

    N points give N - 1 at most, so the ratio to the null says more than the number itself.
    """
    n = len(vectors_ND)
    gram_NN = centred_gram(vectors_ND)
    values = np.clip(np.linalg.eigvalsh(gram_NN)[::-1][: n - 1], 0, None)
    return spread_beside(gram_NN, null_grams(vectors_ND, nulls, generator)), values / values.sum()


def spread_beside(gram_NN: np.ndarray, null_RNN: np.ndarray) -> Spread:
    """The participation ratio of N >= 4 vectors beside that of as many others, R times: of the same runs' P0s, once.

    The interval is the jackknife's, on the ratio's logarithm: a run is left out of both. A bootstrap will not do: a
    draw holds some runs twice, and the fewer different ones there are, the fuller they spread over what N - 1 allows,
    so that its interval may not even hold the estimate.
    """
    n = len(gram_NN)
    counts_BN = np.concatenate([np.ones((1, n)), 1 - np.eye(n)])  # all runs, then all but each one
    ratio_B = participation(gram_NN, counts_BN)
    null_RB = np.stack([participation(null_NN, counts_BN) for null_NN in null_RNN])
    log_B = np.log(ratio_B / null_RB.mean(0))
    low, high = np.exp(jackknife_interval(log_B[0], log_B[1:])).tolist()
    value, null = float(ratio_B[0]), float(null_RB[:, 0].mean())
    p = permutation_p(value, null_RB[:, 0], "less")
    return Spread(value, null, value / null, low, high, p)
