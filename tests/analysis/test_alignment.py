"""Distances of whole prompts: against the definition, linear programming, and Frobenius where lengths are equal."""

import numpy as np
import pytest

from promptgeo.analysis.geometry.alignment import Align, distance, distances
from promptgeo.errors import UserError


def prompts(*lengths: int, width: int = 5, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, width)).astype(np.float32) for length in lengths]


def transport_by_linprog(one_Ad: np.ndarray, other_Bd: np.ndarray) -> float:
    """From the definition: the plan of least cost with uniform margins."""
    from scipy.optimize import linprog

    a, b = len(one_Ad), len(other_Bd)
    costs = [[float(np.square(x.astype(float) - y).sum()) for y in other_Bd] for x in one_Ad]
    margins = [[float(i == k) for i in range(a) for _ in range(b)] for k in range(a)]
    margins += [[float(j == k) for _ in range(a) for j in range(b)] for k in range(b)]
    solved = linprog(np.ravel(costs), A_eq=margins, b_eq=[1 / a] * a + [1 / b] * b)
    return float(np.sqrt(solved.fun))


@pytest.mark.parametrize("lengths", [(4, 4), (3, 5), (12, 20), (1, 7), (6, 3)])
def test_transport_is_the_cheapest_plan(lengths: tuple[int, int]) -> None:
    one, other = prompts(*lengths)
    assert distance(one, other, Align.transport) == pytest.approx(transport_by_linprog(one, other), rel=1e-6)


def test_equal_lengths_give_the_frobenius_distance_and_transport_no_more() -> None:
    one, other = prompts(4, 4)
    frobenius = np.linalg.norm(one.astype(float) - other) / 2
    assert distance(one, other, Align.truncate) == pytest.approx(frobenius)
    assert distance(one, other, Align.pad) == pytest.approx(frobenius)
    assert distance(one, other, Align.transport) <= frobenius


def test_transport_does_not_see_order_or_repetition() -> None:
    (one,) = prompts(4)
    assert distance(one, one[[2, 0, 3, 1]], Align.transport) == pytest.approx(0, abs=1e-9)
    assert distance(one, np.repeat(one, 3, axis=0), Align.transport) == pytest.approx(0, abs=1e-9)
    assert distance(one, one[[2, 0, 3, 1]], Align.truncate) > 1


def test_unequal_lengths_by_hand() -> None:
    one, other = np.array([[0.0, 0.0], [4.0, 0.0]]), np.array([[0.0, 3.0]])
    assert distance(one, other, Align.mean) == pytest.approx(np.hypot(2, 3))
    assert distance(one, other, Align.truncate) == pytest.approx(3)
    assert distance(one, other, Align.pad) == pytest.approx(np.sqrt((9 + 16) / 2))
    assert distance(one, other, Align.transport) == pytest.approx(np.sqrt((9 + 25) / 2))


def test_far_from_zero_nothing_is_rounded_away() -> None:
    one, other = (1e4 + 1e-3 * x for x in prompts(3, 3))
    assert distance(one, other, Align.truncate) == pytest.approx(
        np.linalg.norm(one.astype(float) - other.astype(float)) / np.sqrt(3)
    )
    assert distance(one, other, Align.transport) == pytest.approx(transport_by_linprog(one, other), rel=1e-6)


def test_all_pairs_are_symmetric_with_nothing_on_the_diagonal() -> None:
    some = prompts(2, 3, 4)
    distances_NN = distances(some, Align.pad)
    assert (np.diag(distances_NN) == 0).all() and (distances_NN == distances_NN.T).all()
    assert distances_NN[0, 2] == distance(some[0], some[2], Align.pad)


def test_widths_that_differ_are_refused() -> None:
    with pytest.raises(UserError, match="width 5 and 4"):
        distance(prompts(2)[0], prompts(2, width=4)[0])
