"""Is it where training went, or only how far? A control that turns each run's way at random.

Tasks that only move their prompts differently far look like tasks that move them to different places: to a factor's
share of variance, to mean distances, to counts of neighbours. Turned at random, each run's delta keeps its norms and
the angles between its tokens, and nothing of its direction: what is left of an effect then is how far training moved.

Shapes: N runs, P prompt tokens, d width.
"""

from collections.abc import Callable

import numpy as np


def rotated(delta_NPd: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[N, P, d] float64: each run's delta [P, d] turned by a random rotation of its own.

    Its tokens' norms and inner products stay. Uniform over all rotations: the span of a run's tokens is mapped to
    min(P, d) orthonormal directions from the QR decomposition of a Gaussian matrix (Stewart 1980).
    """
    delta_NPd = np.asarray(delta_NPd, dtype=np.float64)
    n, length, width = delta_NPd.shape
    rank = min(length, width)
    left, sizes, _ = np.linalg.svd(delta_NPd, full_matrices=False)
    basis_Ndr, upper_Nrr = np.linalg.qr(generator.normal(size=(n, width, rank)))
    signs_N1r = np.sign(np.diagonal(upper_Nrr, axis1=1, axis2=2))[:, None]
    return (left * sizes[:, None]) @ np.swapaxes(basis_Ndr * signs_N1r, 1, 2)


def rotation_null(
    statistic: Callable[[np.ndarray], float],
    initial_NPd: np.ndarray,
    delta_NPd: np.ndarray,
    draws: int,
    seed: int,
) -> np.ndarray:
    """[draws] float64: a statistic of the prompts P0 + delta, with every run's delta turned at random.

    statistic: of prompts [N, P, d]. initial_NPd: P0, zeros where the statistic is one of deltas.
    """
    generator = np.random.default_rng(seed)
    return np.array([statistic(initial_NPd + rotated(delta_NPd, generator)) for _ in range(draws)])
