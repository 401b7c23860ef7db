"""How far do runs scatter that started alike, and what of it is the order of the data, what the init?

Runs of one P0 vary in the order of their data alone (and in dropout, where that was on). Runs with P0s of their own
vary in both: the difference is the init's, if order scatters runs as far from any P0. What the runs do not vary in is
not identifiable, never zero.

Shapes: N runs, P prompt tokens, d width, E test examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.geometry.whole_prompts import Cell
from promptgeo.analysis.resampling import STILL, cochran_q, log_jackknife_interval, sum_interval, variance_interval
from promptgeo.runs.table import RunTable


@dataclass(frozen=True)
class Variance:
    """A variance over runs, or a sum or difference of such, with its 95 % interval."""

    value: float
    interval: tuple[float, float]
    runs: int


def scatter(cell: Cell) -> Variance:
    """Mean squared distance over sqrt(P) of the runs from their mean, over N - 1: half that of any two runs.

    Its interval: jackknife over runs of the logarithm.
    """
    flat_ND = cell.prompts_NPd.reshape(len(cell), -1) / np.sqrt(cell.length)
    without_N = np.array([_total(np.delete(flat_ND, n, axis=0)) for n in range(len(cell))])
    value = _total(flat_ND)
    if min(value, without_N.min()) <= 0:  # prompts that differ by less than squares can say
        return Variance(value, (0.0, float("inf")), len(cell))
    return Variance(value, log_jackknife_interval(value, without_N), len(cell))


def _total(points_ND: np.ndarray) -> float:
    return float(np.square(points_ND - points_ND.mean(0)).sum() / (len(points_ND) - 1))


def mean_of(variances: Sequence[Variance]) -> Variance:
    """Their mean, each of other runs."""
    return combined(variances, [1 / len(variances)] * len(variances))


def combined(variances: Sequence[Variance], times: Sequence[float]) -> Variance:
    """Their sum, each so many times and of other runs (sum_interval)."""
    value = float(np.dot(times, [each.value for each in variances]))
    interval = sum_interval([each.value for each in variances], [each.interval for each in variances], times)
    return Variance(value, interval, sum(each.runs for each in variances))


def of_numbers(groups: Sequence[np.ndarray]) -> Variance | None:
    """The variance within groups of one number per run, pooled; interval of normal numbers. None: they do not vary."""
    freedom = sum(len(values) - 1 for values in groups)
    value = sum(float(np.square(values - values.mean()).sum()) for values in groups) / freedom
    runs = sum(map(len, groups))
    return None if value < STILL**2 else Variance(value, variance_interval(value, freedom), runs)


def beyond_examples(correct: Sequence[np.ndarray]) -> tuple[float, float]:
    """(variance of accuracy over runs beyond what their test examples give it, p of its being more than 0).

    Of every accuracy's variance the part that other examples would change is taken off: the residual mean square of
    runs x examples over E. It may be negative. p by Cochran's Q, summed over cells.

    correct: [N, E] bool of each cell; cells weigh as their degrees of freedom.
    """
    from scipy.special import chdtrc

    freedom, beyond, q_sum, q_freedom = 0, 0.0, 0.0, 0
    for correct_NE in (np.asarray(each, dtype=np.float64) for each in correct):
        n, examples = correct_NE.shape
        residual_NE = correct_NE - correct_NE.mean(1, keepdims=True) - correct_NE.mean(0) + correct_NE.mean()
        mean_square = np.square(residual_NE).sum() / ((n - 1) * (examples - 1))
        beyond += (n - 1) * (correct_NE.mean(1).var(ddof=1) - mean_square / examples)
        freedom += n - 1
        q, of_cell = cochran_q(correct_NE)
        if np.isfinite(q):
            q_sum, q_freedom = q_sum + q, q_freedom + of_cell
    return beyond / freedom, float(chdtrc(q_freedom, q_sum)) if q_freedom else 1.0


# Components.


@dataclass(frozen=True, eq=False)
class Components:
    """What the scatter of runs is made of, by task, and why a component is not identifiable."""

    order: dict[str, Variance]
    init: dict[str, Variance]
    unknown: list[str]
    """"<component>: not identifiable: why", a sentence each."""


def components(runs: RunTable, cells: Sequence[Cell]) -> Components:
    """Order's from cells of one P0, the init's as the cells of several P0s less these, task by task."""
    shared: dict[str, list[Variance]] = {cell.task: [] for cell in cells}
    own: dict[str, list[Variance]] = {cell.task: [] for cell in cells}
    unknown: list[str] = []
    dropout: set[bool | None] = set()
    for cell in cells:
        varied = _varied(runs, cell)
        dropout.add(None if varied is None else "dropout" in varied)
        if cell.one_p0 and varied is not None and "order" not in varied:
            unknown.append(f"the order of the data is not identifiable in {cell.task}: its runs share their order")
        elif cell.one_p0 is not None:
            (shared if cell.one_p0 else own)[cell.task].append(scatter(cell))
    order = {task: mean_of(those) for task, those in shared.items() if those}
    init = {
        task: combined([mean_of(those), order[task]], [1.0, -1.0])
        for task, those in own.items()
        if those and task in order
    }
    return Components(order, init, [*unknown, *_unknown(cells, order, init), _dropout_in_words(dropout)])


def _unknown(cells: Sequence[Cell], order: dict[str, Variance], init: dict[str, Variance]) -> list[str]:
    if all(cell.one_p0 is None for cell in cells):
        return ["order and init are not identifiable: the P0s of these runs are not known"]
    sentences = []
    if not order:
        sentences.append(
            "the order of the data is not identifiable: no runs of a task share a P0 (init=text) and vary it"
        )
    if not init:
        why = "every init here has one P0 for all seeds (init=vocab has not)"
        if any(cell.one_p0 is False for cell in cells):
            why = "runs with P0s of their own need runs of one P0 of the same task beside them"
        sentences.append(f"the init is not identifiable: {why}")
    return sentences


def _dropout_in_words(known: set[bool | None]) -> str:
    if None in known:
        return "dropout is not identifiable: these prompts do not say whether it was on"
    if True in known:
        return "dropout is not identifiable apart from the order: each run has a seed of its own for both"
    return "dropout is not identifiable: it was off"


def _varied(runs: RunTable, cell: Cell) -> set[str] | None:
    """Which of order and dropout differ between a cell's runs; None where that is not known."""
    if runs.runs is None:
        return None
    infos = [runs.runs[row].info for row in cell.rows]
    seeds = [info.get("seeds") or {} for info in infos]
    if not all({"order", "dropout"} <= set(each) for each in seeds):
        return None
    varied = {name for name in ("order", "dropout") if len({each[name] for each in seeds}) > 1}
    on = any((info["config"].get("training") or {}).get("dropout") for info in infos)
    return varied if on else varied - {"dropout"}
