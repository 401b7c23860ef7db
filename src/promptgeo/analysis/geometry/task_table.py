"""In which tasks do prompt tokens have their neighbours? Tables task x task, as study 3's Table 3, and what they say.

Of two statements that a table makes ("more neighbours here than there") each is tested over inits; a claim of many such
statements holds where all of them do, and fails where one of them fails, adjusted for how many there are.

Shapes: N runs, J leave-outs (or other weightings of runs), L tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from promptgeo.analysis.crossed import LeaveOuts
from promptgeo.analysis.deciding import Premise, tested
from promptgeo.analysis.resampling import sign_flip_p, sign_flips_needed
from promptgeo.analysis.result import Claim

GEOGRAPHY = ("country_capital", "landmark_country")
"""Study 3's only pair of tasks that are each other's nearest."""


def pairs_by_task(weights_JN: np.ndarray, pairs_NN: np.ndarray, onehot_NL: np.ndarray) -> np.ndarray:
    """[J, L, L] float64: pairs of tokens by the tasks of both runs, with each weighting of the runs.

    pairs_NN: pairs between two runs. onehot_NL: the task of each run. Weights count as in resampling.pair_means.
    """
    between_NN = pairs_NN - np.diag(np.diag(pairs_NN))
    rows = [((weights_JN * onehot_N) @ between_NN) * weights_JN for onehot_N in onehot_NL.T]
    table_JLL = np.stack([row_JN @ onehot_NL for row_JN in rows], axis=1)
    levels = np.arange(onehot_NL.shape[1])
    table_JLL[:, levels, levels] += (weights_JN * np.diag(pairs_NN)) @ onehot_NL
    return table_JLL


def nearest_itself(table: pd.DataFrame) -> dict[str, bool]:
    """For each task (row): does it have strictly more neighbours in itself than in any other task?"""
    return {task: bool(table.loc[task, task] > table.loc[task].drop(task).max()) for task in table.index}


def mutual_neighbours(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of different tasks of which each has most of its neighbours outside itself in the other.

    Ties count, zeros do not.
    """
    nearest = {}
    for task in table.index:
        others = table.loc[task].drop(task)
        nearest[task] = set(others[others == others.max()].index) if others.max() > 0 else set()
    names = list(table.index)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if b in nearest[a] and a in nearest[b]]


def own_margin(table_LL: np.ndarray) -> float:
    """How much more a task has in itself than in any other, of the task where that is least."""
    others_LL = np.where(np.eye(len(table_LL), dtype=bool), -np.inf, table_LL)
    return float((np.diag(table_LL) - others_LL.max(1)).min())


def pair_margin(table_LL: np.ndarray, a: int, b: int) -> float:
    """How much more two tasks have in each other than in any third task, of the one where that is less."""
    rest = [c for c in range(len(table_LL)) if c not in (a, b)]
    return float(min(table_LL[a, b] - table_LL[a, rest].max(), table_LL[b, a] - table_LL[b, rest].max()))


@dataclass(frozen=True)
class Rows:
    """Which cells of a table's rows hold more than others, and how sure that is.

    greater_LLL, certain_LLL: float64 [a, b, c], p of the statement that row a has more in b than in c; 1 where it has
    not.
    """

    greater_LLL: np.ndarray
    """By sign flips: in each init, do more of a's tokens of other inits have neighbours in its run of b or of c? For
    statements all of which must hold. (A pair of own runs is in two inits' differences: between two tasks that are
    the same p rejects in 6 to 7 %.)"""
    certain_LLL: np.ndarray
    """By Student's t over inits: for one statement of many, whose p is adjusted for how many they are."""
    inits: int | None = None
    """Over which it is tested; None: the table is taken as it stands."""

    @classmethod
    def as_counted(cls, table: pd.DataFrame) -> "Rows":
        """Of a table alone, without the runs behind it: as if its counts were exact."""
        cells_LL = table.to_numpy()
        exact_LLL = np.where(cells_LL[:, :, None] > cells_LL[:, None, :], 0.0, 1.0)
        return cls(exact_LLL, exact_LLL)

    @classmethod
    def over_inits(
        cls, near_NN: np.ndarray, possible_NN: np.ndarray, onehot_NL: np.ndarray, inits_N: np.ndarray, seed: int
    ) -> "Rows":
        """Of the pairs that are near and those that are possible. Only inits with runs of every task are flipped."""
        by_init, count = LeaveOuts(inits_N), onehot_NL.shape[1]
        with np.errstate(invalid="ignore"):  # without some init there are no such pairs
            without_JLL = pairs_by_task(by_init.weights_JN, near_NN, onehot_NL) / pairs_by_task(
                by_init.weights_JN, possible_NN, onehot_NL
            )
        rates_LL = onehot_NL.T @ near_NN @ onehot_NL / (onehot_NL.T @ possible_NN @ onehot_NL)
        near_LILI = _by_cell(near_NN, onehot_NL, inits_N)
        greater_LLL, certain_LLL = np.ones((count,) * 3), np.ones((count,) * 3)
        for a, b, c in np.ndindex(count, count, count):
            more = rates_LL[a, b] - rates_LL[a, c]
            error = by_init.error(without_JLL[:, a, b] - without_JLL[:, a, c]) if more > 0 else None
            if error is not None and error.factors:
                certain_LLL[a, b, c] = error.greater_p(more)
            if more > 0 and near_LILI.shape[1]:
                greater_LLL[a, b, c] = sign_flip_p((near_LILI[a, :, b] - near_LILI[a, :, c]).sum(0), seed=seed)
        return cls(greater_LLL, certain_LLL, near_LILI.shape[1])

    def itself(self) -> tuple[float, float]:
        """(p by which each task has most in itself, p by which one has not)."""
        tasks = range(len(self.greater_LLL))
        pairs = [(a, b) for a in tasks for b in tasks if a != b]
        less = min(self.certain_LLL[a, b, a] for a, b in pairs)
        return max(self.greater_LLL[a, a, b] for a, b in pairs), min(len(pairs) * less, 1.0)

    def _mutual(self, a: int, b: int) -> tuple[float, float]:
        """(p by which each of two has most outside itself in the other, p by which one has not)."""
        rest = [c for c in range(len(self.greater_LLL)) if c not in (a, b)]
        sides = [self.greater_LLL[x, y, c] for x, y in ((a, b), (b, a)) for c in rest]
        against = [self.certain_LLL[x, c, y] for x, y in ((a, b), (b, a)) for c in rest]
        return max(sides), min(len(against) * min(against), 1.0)

    def only_mutual(self, pair: tuple[int, int]) -> tuple[float, float]:
        """(p by which these two tasks, and no others, are each other's nearest, p by which that is not so)."""
        pairs = list(combinations(range(len(self.greater_LLL)), 2))
        (yes, no), others = self._mutual(*pair), [self._mutual(*other) for other in pairs if other != pair]
        fails = len(pairs) * min(no, *(mutual for mutual, _ in others))
        return max(yes, *(not_mutual for _, not_mutual in others)), min(fails, 1.0)


def _by_cell(near_NN: np.ndarray, onehot_NL: np.ndarray, inits_N: np.ndarray) -> np.ndarray:
    """[L, I, L, I] float64: neighbours between the cells of task and init, of inits with runs of every task.

    A mean over the seeds of both cells.
    """
    of_init_NI = np.asarray(inits_N)[:, None] == np.unique(inits_N)
    of_init_NI = of_init_NI[:, (onehot_NL.T @ of_init_NI > 0).all(axis=0)]
    cells_NLI = onehot_NL[:, :, None] * of_init_NI[:, None, :]
    cells_NLI /= np.maximum(cells_NLI.sum(0), 1.0)
    return np.asarray(np.einsum("nai,nm,mbj->aibj", cells_NLI, near_NN, cells_NLI, optimize=True))


def task_claims(
    table: pd.DataFrame,
    rows: Rows,
    at: str,
    control_p: tuple[float, float] = (0.0, 0.0),
    premises: Sequence[Premise] = (),
) -> list[Claim]:
    """Study 3's two statements about its Table 3, from a table of counts or of shares of the possible pairs.

    only_geography_mutual is left out where its tasks are not among these.

    Args:
        table: task by neighbours' task.
        rows: what is sure of it.
        at: radius and unit of its cells, for the evidence: "at epsilon = 0.5".
        control_p: of each claim against what tasks that only move differently far give; 1 where that is not known.
        premises: of both.
    """
    cells = table.to_dict("index")
    failing = []
    for task in (task for task, holds in nearest_itself(table).items() if not holds):
        others = table.loc[task].drop(task)
        failing.append(
            f"{task} has {cells[task][task]:.4g} neighbours in itself and {others.max():.4g} in {others.idxmax()}"
        )
    evidence = "; ".join(failing) if failing else "every task has most of its neighbours in itself"
    few = rows.inits is not None and rows.inits < sign_flips_needed()
    needs = f"at least {sign_flips_needed()} inits with runs of every task" if few else "more inits"

    def claim(name: str, said: str, p: tuple[float, float], far_p: float) -> Claim:
        holds_p, fails_p = p
        over = "" if rows.inits is None else f"; p = {holds_p:.3g} over {rows.inits} inits"
        over += f", {far_p:.3g} against tasks that only move differently far" if far_p else ""
        more = "tasks that move their prompts equally far, and P0" if holds_p < far_p else needs
        return tested(name, max(holds_p, far_p), fails_p, f"{said} ({at}{over}).", premises=premises, needs=more)

    claims = [claim("each_task_nearest_itself", evidence, rows.itself(), control_p[0])]
    if set(GEOGRAPHY) <= set(table.index):
        mutual = mutual_neighbours(table)
        named = ", ".join(f"{a} and {b} ({cells[a][b]:.4g})" for a, b in mutual) or "none"
        a, b = sorted(table.index.get_loc(task) for task in GEOGRAPHY)
        said = f"mutual neighbours: {named}"
        claims.append(claim("only_geography_mutual", said, rows.only_mutual((a, b)), control_p[1]))
    return claims
