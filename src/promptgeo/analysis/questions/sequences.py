"""Are the tasks' tokens arranged alike for every init? Pearson correlation between inits of the distances among tokens.

Study 3 correlated the whole distance matrices (paper): their zero diagonal and the doubled pairs alone make r large.
What remains are the unique pairs of tokens of different runs (corrected), and a null that permutes the tasks of one
init as blocks, positions kept.

Shapes: I inits, T tasks, P prompt tokens, d width, M = T * P tokens of an init, J = I * (I - 1) / 2 pairs of inits,
B permutations or draws.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import panels, svg
from promptgeo.analysis.geometry.tokens import cosine_distances, order_of_appearance, require_levels, tokens
from promptgeo.analysis.question import Convention, Of, question
from promptgeo.analysis.resampling import null_draws, other_orders, percentile_interval, permutation_p
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

LEAST_TASKS = 6
"""For a p: five tasks have 120 orders, so that no p lies below 1/120."""
LEVEL = 0.01
"""The study's level of significance."""
DRAWS = 2000
"""Random draws for a range by chance."""
STILL = 1e-9
"""Distances whose standard deviation is no larger do not vary: they differ by rounding alone."""
MOST_WRITTEN = 12
"""Inits whose r can be written into the figure's cells before they overlap."""


@question(of=True, convention=True, claims=("pearson",))
def sequences(
    runs: RunTable,
    *,
    of: Of = Of.prompt,
    convention: Convention = Convention.corrected,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Number `pearson.minimum`: the lowest r between two inits; its p is the largest p of any pair of inits.

    Each pair of inits must correlate for that p to be small (an intersection-union test, Berger 1982). Table `pearson`:
    r and p of each pair. paper: whole cosine distance matrices, p as if their entries were independent. corrected:
    unique pairs of tokens of different runs; p from orders of the tasks; none for fewer than 6 tasks. Distances are
    averaged over the seeds of a cell.

    `pearson.minimum.by_chance`: mean and 95 % range of the lowest r with every init's tasks in a random order, and its
    p against them. `pearson.zero_diagonal_alone`: what the paper's r would be at its lowest pair without any structure
    (95 % range).

    Args:
        permutations: random orders of the tasks, where there are more orders than that; else all of them.
        seed: of the random orders and draws.

    Raises UserError for fewer than 2 inits or 3 tasks in common, mixed shapes, deltas without P0.
    """
    of, convention = Of(of), Convention(convention)
    if permutations < 1:
        raise UserError(f"sequences.permutations={permutations}: at least 1 is needed")
    require_levels(runs, {"init": 2, "task": 3}, "sequences")
    result = Result()
    grid = _grid(runs, of, result)
    whole = _whole_matrices(grid)
    compared = whole if convention == Convention.paper else _across_runs(grid, permutations, seed)
    p = None if compared.p_J is None else float(compared.p_J.max())
    lowest = result.number("pearson.minimum", compared.r_J.min(), compared.n, compared.unit, p=p)
    if compared.chance_J is not None:
        null_B = _lowest_by_chance(grid, seed)
        chance_p = permutation_p(lowest.value, null_B)
        interval = percentile_interval(null_B)
        result.number("pearson.minimum.by_chance", null_B.mean(), DRAWS, "draws", *interval, chance_p)
    diagonal = _zero_diagonal(result, grid, grid.pairs[int(whole.r_J.argmin())], seed)
    result.tables["pearson"] = _table(grid, compared)
    if compared.p_J is None:
        result.omissions.append(
            f"No p for correlations between inits: {len(grid.tasks)} tasks have too few orders, "
            f"at least {LEAST_TASKS} are needed."
        )
    else:
        finding = _finding(grid, compared, compared.p_J, lowest, of)
        study = f" Counted as the study did the lowest r is {whole.r_J.min():.3f}; "
        study += f"the zero diagonal alone gives {diagonal.value:.3f}."
        result.findings.append(finding)
        result.claims.append(Claim("pearson", Outcome.of(bool((compared.p_J < LEVEL).all())), finding.sentence + study))
    result.figures["pearson"] = _figure(grid, compared, of)
    return result


# Inits by tasks.


@dataclass(frozen=True)
class _Grid:
    """The distances of every init, over tasks that all inits have."""

    inits: list[str]
    tasks: list[str]
    distances_ITPTP: np.ndarray
    """float64: cosine distances between the tokens of an init, mean over its seeds."""
    seeds: int
    """How many runs of each init and task are averaged."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """J pairs of inits, by their numbers."""
        return list(combinations(range(len(self.inits)), 2))

    @property
    def averaged(self) -> str:
        """Added to the unit of n where distances are averaged."""
        return f", each a mean over {self.seeds} runs of a cell" if self.seeds > 1 else ""

    @property
    def tokens(self) -> int:
        """M."""
        return self.distances_ITPTP.shape[1] * self.distances_ITPTP.shape[2]

    @property
    def distances_IMM(self) -> np.ndarray:
        return self.distances_ITPTP.reshape(len(self.inits), self.tokens, self.tokens)


def _grid(runs: RunTable, of: Of, result: Result) -> _Grid:
    """Inits by tasks, as far as every init has the same ones; the result's omissions name what was left out."""
    unit_NPd = tokens(runs, of).unit_NPd
    cells = _cells(runs.table)
    inits, every = order_of_appearance(runs.table["init"]), order_of_appearance(runs.table["task"])
    tasks = [task for task in every if all((init, task) in cells for init in inits)]
    if len(tasks) < 3:
        raise UserError(f"sequences: needs at least 3 tasks that every init has; these runs have {len(tasks)}")
    if len(tasks) < len(every):
        missing = ", ".join(task for task in every if task not in tasks)
        result.omissions.append(f"Tasks without runs for every init are left out of the correlations: {missing}.")
    sizes = [len(cells[init, task]) for init in inits for task in tasks]
    least, most = min(sizes), max(sizes)
    if most > least:
        result.omissions.append(
            f"Some inits and tasks have up to {most} runs, some only {least}: "
            f"the first {least} of each, by seed, enter the correlations."
        )
    matrices = {}
    for init in inits:
        seeds = [_distances(unit_NPd[[cells[init, task][k] for task in tasks]]) for k in range(least)]
        matrices[init] = np.mean(seeds, axis=0)
    still = [init for init, matrix_TPTP in matrices.items() if not _varies(matrix_TPTP)]
    if still:
        result.omissions.append(f"Inits whose distances do not vary have no correlation: {', '.join(still)}.")
    kept = [init for init in inits if init not in still]
    if len(kept) < 2:
        raise UserError("sequences: needs at least 2 inits whose distances vary")
    return _Grid(kept, tasks, np.stack([matrices[init] for init in kept]), least)


def _cells(table: pd.DataFrame) -> dict[tuple[str, str], list[int]]:
    """The runs of each init and task, in the order of their seeds."""
    ordered = table.sort_values("seed", kind="stable") if "seed" in table else table
    cells: dict[tuple[str, str], list[int]] = {}
    for row in ordered.itertuples():
        cells.setdefault((row.init, row.task), []).append(row.Index)
    return cells


def _distances(unit_TPd: np.ndarray) -> np.ndarray:
    """[T, P, T, P] float64: cosine distances."""
    count, length, width = unit_TPd.shape
    return cosine_distances(unit_TPd.reshape(-1, width)).reshape(count, length, count, length)


def _between_runs(distances_TPTP: np.ndarray) -> np.ndarray:
    """[T, P, T, P] bool: pairs of tokens of different runs."""
    count, length = distances_TPTP.shape[:2]
    return np.broadcast_to(~np.eye(count, dtype=bool)[:, None, :, None], (count, length, count, length))


def _varies(distances_TPTP: np.ndarray) -> bool:
    return float(distances_TPTP[_between_runs(distances_TPTP)].std()) > STILL


# Correlations.


@dataclass(frozen=True)
class _Compared:
    """Correlations between inits by one convention, in the order of the pairs of inits."""

    r_J: np.ndarray
    p_J: np.ndarray | None
    n: int
    """Distances in a sequence."""
    unit: str
    orders: str
    """Where p comes from."""
    chance_J: np.ndarray | None = None
    """Mean r over the orders of the tasks."""


def _whole_matrices(grid: _Grid) -> _Compared:
    """As the study did: every entry of both matrices."""
    from scipy.stats import pearsonr

    tests = [pearsonr(grid.distances_IMM[i].ravel(), grid.distances_IMM[j].ravel()) for i, j in grid.pairs]
    r_J, p_J = np.array([test.statistic for test in tests]), np.array([test.pvalue for test in tests])
    return _Compared(r_J, p_J, grid.tokens**2, f"entries{grid.averaged}", "as if entries were independent")


def _across_runs(grid: _Grid, permutations: int, seed: int) -> _Compared:
    """Unique pairs of tokens of different runs; p from orders of the tasks of one init."""
    unit_ITPTP = _standardised(grid)
    count, length = len(grid.tasks), grid.distances_ITPTP.shape[2]
    first, second = np.array(grid.pairs).T
    r_J = _correlations(unit_ITPTP, unit_ITPTP)[first, second]
    n, unit = count * (count - 1) // 2 * length**2, f"pairs{grid.averaged}"
    if count < LEAST_TASKS:
        return _Compared(r_J, None, n, unit, "")
    orders, exact = other_orders(count, permutations, seed)
    null_BJ = np.stack([_correlations(unit_ITPTP, _reordered(unit_ITPTP, order))[first, second] for order in orders])
    p_J = np.array([permutation_p(r, null_B) for r, null_B in zip(r_J, null_BJ.T, strict=True)])
    which = f"all {math.factorial(count)} orders" if exact else f"{permutations} random orders"
    return _Compared(r_J, p_J, n, unit, f"{which} of the tasks", null_BJ.mean(0))


def _standardised(grid: _Grid) -> np.ndarray:
    """[I, T, P, T, P] float64: 0 within runs; elsewhere centred distances, whose inner products are correlations."""
    between_TPTP = _between_runs(grid.distances_ITPTP[0])
    means_I = grid.distances_ITPTP[:, between_TPTP].mean(1)
    centred = np.where(between_TPTP, grid.distances_ITPTP - means_I[:, None, None, None, None], 0.0)
    return centred / np.sqrt((centred**2).sum((1, 2, 3, 4), keepdims=True))


def _correlations(first_ITPTP: np.ndarray, second_ITPTP: np.ndarray) -> np.ndarray:
    """[I, I]. Every pair is in twice, which leaves r as it is."""
    return first_ITPTP.reshape(len(first_ITPTP), -1) @ second_ITPTP.reshape(len(second_ITPTP), -1).T


def _reordered(distances_ITPTP: np.ndarray, order: np.ndarray) -> np.ndarray:
    return distances_ITPTP[:, order][:, :, :, order]


def _lowest_by_chance(grid: _Grid, seed: int) -> np.ndarray:
    """[B] float64: the lowest r with the tasks of every init in a random order of its own."""
    unit_ITPTP = _standardised(grid)
    first, second = np.array(grid.pairs).T

    def lowest(generator: np.random.Generator) -> float:
        orders = [generator.permutation(len(grid.tasks)) for _ in grid.inits]
        drawn = np.concatenate([_reordered(unit_ITPTP[i : i + 1], order) for i, order in enumerate(orders)])
        return float(_correlations(drawn, drawn)[first, second].min())

    return null_draws(lowest, DRAWS, seed)


def zero_diagonal_alone(mean_a: float, sd_a: float, mean_b: float, sd_b: float, size: int) -> float:
    """Expected Pearson r of two unrelated symmetric size x size matrices, zero diagonal and both triangles in.

    mean, sd (population): of each matrix's entries off the diagonal. Exact when the entries of one are permuted at
    random: the covariance is mean_a * mean_b * f (1 - f) with f = 1 / size, each variance (1 - f) (sd^2 + f mean^2).
    """
    f = 1.0 / size
    return f * mean_a * mean_b / math.sqrt((sd_a**2 + f * mean_a**2) * (sd_b**2 + f * mean_b**2))


def _zero_diagonal(result: Result, grid: _Grid, pair: tuple[int, int], seed: int) -> Number:
    """Number: the paper's r of two inits whose distances are put in a random order, expected value and 95 % range."""
    upper = np.triu_indices(grid.tokens, 1)
    a, b = (grid.distances_IMM[i][upper] for i in pair)
    expected = zero_diagonal_alone(a.mean(), a.std(), b.mean(), b.std(), grid.tokens)
    x, y = (np.concatenate([v, v, np.zeros(grid.tokens)]) for v in (a, b))
    products_B = null_draws(lambda generator: 2.0 * float(a @ generator.permutation(b)), DRAWS, seed)
    interval = percentile_interval((products_B / len(x) - x.mean() * y.mean()) / (x.std() * y.std()))
    return result.number("pearson.zero_diagonal_alone", expected, len(a), "pairs", *interval)


# What follows from them.


def _table(grid: _Grid, compared: _Compared) -> pd.DataFrame:
    """A row per pair of inits."""
    return pd.DataFrame(
        {
            "init": [grid.inits[i] for i, _ in grid.pairs],
            "other_init": [grid.inits[j] for _, j in grid.pairs],
            "r": compared.r_J,
            "p": np.nan if compared.p_J is None else compared.p_J,
            "by_chance": np.nan if compared.chance_J is None else compared.chance_J,
            "n": compared.n,
        }
    )


def _finding(grid: _Grid, compared: _Compared, p_J: np.ndarray, lowest: Number, of: Of) -> Finding:
    """How many pairs of inits correlate, with p below LEVEL, and the pair with the lowest r."""
    at, pairs, correlated = int(compared.r_J.argmin()), len(grid.pairs), int((p_J < LEVEL).sum())
    first, second = (grid.inits[i] for i in grid.pairs[at])
    which = "any two inits" if correlated == pairs else f"{correlated} of {pairs} pairs of inits only"
    which = which if correlated else "no two inits"
    what = "prompt tokens" if of == Of.prompt else "deltas"
    chance = "" if compared.chance_J is None else f", {compared.chance_J[at]:.3f} by chance"
    p = float(p_J.max())
    return Finding.of(
        lowest,
        f"The distances between the tasks' {what} correlate for {which}: lowest r = {lowest.value:.3f} "
        f"({first}, {second}{chance}; n = {lowest.n} {lowest.unit}), "
        f"largest {'p < .0001' if p < 0.0001 else f'p = {p:.4f}'} in {pairs} pairs of inits ({compared.orders}).",
    )


def _figure(grid: _Grid, compared: _Compared, of: Of) -> str:
    """Init by init, r in colour; the diagonal is empty."""
    count = len(grid.inits)
    r_II = np.full((count, count), np.nan)
    for (i, j), r in zip(grid.pairs, compared.r_J, strict=True):
        r_II[i, j] = r_II[j, i] = r
    with panels(1, 1, width=5.2, height=4.4) as (figure, axes):
        axis = axes[0, 0]
        axis.grid(visible=False)
        mesh = axis.pcolormesh(r_II, cmap="RdBu_r", vmin=-1, vmax=1, edgecolors="white", linewidth=0.5)
        for i, j in np.argwhere(~np.isnan(r_II)) if count <= MOST_WRITTEN else ():
            colour = "white" if abs(r_II[i, j]) > 0.6 else "black"  # readable on the map's dark ends
            axis.text(j + 0.5, i + 0.5, f"{r_II[i, j]:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(np.arange(count) + 0.5, grid.inits, rotation=90)
        axis.set_yticks(np.arange(count) + 0.5, grid.inits)
        axis.invert_yaxis()
        axis.set_aspect("equal")
        figure.colorbar(mesh, label=f"r of distances between {'prompt tokens' if of == Of.prompt else 'deltas'}")
        return svg(figure)
