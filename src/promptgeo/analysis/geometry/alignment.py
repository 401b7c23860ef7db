"""How far apart are whole prompts, of equal or of unequal length? Four ways to pair their tokens.

Shapes: N prompts, A and B tokens of two of them, d width.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from promptgeo.errors import UserError


class Align(StrEnum):
    """How tokens of two prompts are paired. All distances are of one token: over as many as are paired."""

    transport = "transport"
    """Each token goes where it is least far, all weighing the same: neither length nor order matters (the default)."""
    mean = "mean"
    """The prompts' mean tokens are compared."""
    truncate = "truncate"
    """Tokens at equal positions, as many as the shorter prompt has. The Frobenius distance where lengths are equal."""
    pad = "pad"
    """Tokens at equal positions, the shorter prompt continued by zeros."""


def distance(one_Ad: np.ndarray, other_Bd: np.ndarray, align: Align = Align.transport) -> float:
    """Root mean square distance of the paired tokens, in the unit of the embeddings.

    Between prompts of equal length P, truncate and pad give the Frobenius distance over sqrt(P); transport gives the
    2-Wasserstein distance of the tokens as points of equal weight (Peyre and Cuturi 2019, eq. 2.14), at most that.

    Raises UserError where the widths differ.
    """
    if one_Ad.shape[1] != other_Bd.shape[1]:
        raise UserError(f"prompts of width {one_Ad.shape[1]} and {other_Bd.shape[1]} have no distance")
    one_Ad, other_Bd = one_Ad.astype(np.float64), other_Bd.astype(np.float64)
    a, b = len(one_Ad), len(other_Bd)
    if align is Align.transport:
        return float(np.sqrt(_transport(_squares(one_Ad, other_Bd))))
    if align is Align.mean:
        one_Ad, other_Bd = one_Ad.mean(0, keepdims=True), other_Bd.mean(0, keepdims=True)
    elif align is Align.truncate:
        one_Ad, other_Bd = one_Ad[: min(a, b)], other_Bd[: min(a, b)]
    else:
        one_Ad, other_Bd = (np.pad(x_Pd, ((0, max(a, b) - len(x_Pd)), (0, 0))) for x_Pd in (one_Ad, other_Bd))
    return float(np.linalg.norm(one_Ad - other_Bd) / np.sqrt(len(one_Ad)))


def distances(prompts_N: Sequence[np.ndarray], align: Align = Align.transport) -> np.ndarray:
    """[N, N] float64, symmetric: `distance` of every two prompts [P, d]."""
    distances_NN = np.zeros((len(prompts_N), len(prompts_N)))
    for n, one_Ad in enumerate(prompts_N):
        for m in range(n):
            distances_NN[n, m] = distances_NN[m, n] = distance(one_Ad, prompts_N[m], align)
    return distances_NN


def _squares(one_Ad: np.ndarray, other_Bd: np.ndarray) -> np.ndarray:
    """[A, B] float64: squared distances of tokens. From the differences: far from 0, products would round them away."""
    return np.square(one_Ad[:, None] - other_Bd).sum(2)


def _transport(costs_AB: np.ndarray) -> float:
    """The least mean cost of carrying A equal weights to B equal ones.

    Exact: each weight is cut into parts of 1 / lcm(A, B), which are assigned one to one.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = costs_AB.shape
    parts = int(np.lcm(a, b))
    cut = np.repeat(np.repeat(costs_AB, parts // a, axis=0), parts // b, axis=1)
    return float(cut[linear_sum_assignment(cut)].mean())
