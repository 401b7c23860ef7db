"""In which tasks do prompt tokens have their neighbours? Tables task x task, as study 3's Table 3, and what they say.

Shapes: N runs, B bootstrap draws, L tasks.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.result import Claim, Outcome

GEOGRAPHY = ("country_capital", "landmark_country")
"""Study 3's only pair of tasks that are each other's nearest."""


def pairs_by_task(weights_BN: np.ndarray, pairs_NN: np.ndarray, onehot_NL: np.ndarray) -> np.ndarray:
    """[B, L, L] float64: pairs of tokens by the tasks of both runs, in each draw of runs.

    pairs_NN: pairs between two runs. onehot_NL: the task of each run. Draws weigh pairs as in resampling.pair_means.
    """
    between_NN = pairs_NN - np.diag(np.diag(pairs_NN))
    rows = [((weights_BN * onehot_N) @ between_NN) * weights_BN for onehot_N in onehot_NL.T]
    table_BLL = np.stack([row_BN @ onehot_NL for row_BN in rows], axis=1)
    levels = np.arange(onehot_NL.shape[1])
    table_BLL[:, levels, levels] += (weights_BN * np.diag(pairs_NN)) @ onehot_NL
    return table_BLL


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


def task_claims(table: pd.DataFrame, epsilon: float, unit: str = "") -> list[Claim]:
    """Study 3's two statements about its Table 3, from a table of counts or of shares of the possible pairs.

    only_geography_mutual is left out where its tasks are not among these. unit: of the table's cells, for the evidence.
    """
    at = f"at epsilon = {epsilon:g}{unit}"
    cells = table.to_dict("index")
    failing = []
    for task in (task for task, holds in nearest_itself(table).items() if not holds):
        others = table.loc[task].drop(task)
        failing.append(
            f"{task} has {cells[task][task]:.4g} neighbours in itself and {others.max():.4g} in {others.idxmax()}"
        )
    evidence = "; ".join(failing) if failing else "every task has most of its neighbours in itself"
    claims = [Claim("each_task_nearest_itself", Outcome.of(not failing), f"{evidence} ({at}).")]
    if set(GEOGRAPHY) <= set(table.index):
        mutual = mutual_neighbours(table)
        named = ", ".join(f"{a} and {b} ({cells[a][b]:.4g})" for a, b in mutual) or "none"
        only = {frozenset(pair) for pair in mutual} == {frozenset(GEOGRAPHY)}
        claims.append(Claim("only_geography_mutual", Outcome.of(only), f"Mutual neighbours {at}: {named}."))
    return claims
