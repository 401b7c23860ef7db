"""Are the tasks' tokens arranged alike for every init? Pearson correlation between inits of the distances among tokens.

Study 3 correlated the whole distance matrices (paper): their zero diagonal and the doubled pairs alone make r large.
What remains are the unique pairs of tokens of different runs (corrected), and a null that permutes the tasks of one
init as blocks, positions kept. Tasks that only move their prompts differently far are arranged alike, too: that is the
control (how_far.py).

Shapes: N runs, I inits, T tasks, S seeds, P prompt tokens, d width, M = T * P tokens of an init,
J = I * (I - 1) / 2 pairs of inits, B permutations or draws.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from promptgeo.analysis.crossed import Error
from promptgeo.analysis.deciding import Premise, learned, tested
from promptgeo.analysis.figures import panels, svg, write_cells
from promptgeo.analysis.geometry.how_far import NO_P0, Control, Moved
from promptgeo.analysis.geometry.tokens import cosine_distances, order_of_appearance, require_levels, tokens
from promptgeo.analysis.question import Convention, Of, question
from promptgeo.analysis.resampling import holm, null_draws, other_orders, percentile_interval, permutation_p
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

LEAST_TASKS = 6
"""For a p: five tasks have 120 orders, so that no p lies below 1/120."""
LEVEL = 0.01
"""The study's level of significance."""
LITTLE = 0.3
"""A mean r over all pairs of inits that certainly lies below is too little for any two to be called alike."""
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
    (95 % range). `pearson.mean`: the mean r over all pairs of inits, interval over inits and tasks.
    `pearson.minimum.how_far`: the lowest r where tasks only differ in how far they move their prompts.

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
    whole, paper = _whole_matrices(grid), convention == Convention.paper
    compared = whole if paper else _across_runs(grid, permutations, seed)
    p = None if compared.p_J is None else float(compared.p_J.max())
    lowest = result.number("pearson.minimum", compared.r_J.min(), compared.n, compared.unit, p=p)
    if compared.chance_J is not None:
        null_B = _lowest_by_chance(grid, seed)
        chance = *percentile_interval(null_B), permutation_p(lowest.value, null_B)
        result.number("pearson.minimum.by_chance", null_B.mean(), DRAWS, "draws", *chance)
    diagonal = _zero_diagonal(result, grid, grid.pairs[int(whole.r_J.argmin())], seed)
    result.tables["pearson"] = _table(grid, compared)
    moved = None if paper else Moved.of(runs, of)
    far = None if moved is None else _how_far(result, moved, grid, permutations, seed, p)
    evidence = f"Counted as the study did the lowest r is {whole.r_J.min():.3f}; "
    evidence += f"the zero diagonal alone gives {diagonal.value:.3f}."
    if compared.p_J is None:
        result.omissions.append(
            f"No p for correlations between inits: {len(grid.tasks)} tasks have too few orders, "
            f"at least {LEAST_TASKS} are needed."
        )
    else:
        far_words = "" if paper else f"; {NO_P0 if moved is None else moved.words}"
        result.findings.append(_finding(grid, compared, compared.p_J, lowest, of, far, far_words))
        evidence = f"{result.findings[0].sentence} {evidence}"
    premises = learned(runs.table) + ([_beyond_diagonal(lowest, diagonal)] if paper else [])
    mean = None if paper else _mean(result, grid, compared)
    result.claims.append(_claim(compared, evidence, far, mean, premises, paper))
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
    runs_ITS: np.ndarray
    """int64: the runs of each init and task whose distances are averaged."""

    @property
    def seeds(self) -> int:
        """How many runs of each init and task are averaged."""
        return self.runs_ITS.shape[2]

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
    runs_ITS = np.array([[cells[init, task][:least] for task in tasks] for init in inits])
    matrices = dict(zip(inits, _distances_of(unit_NPd, runs_ITS), strict=True))
    still = [init for init, matrix_TPTP in matrices.items() if not _varies(matrix_TPTP)]
    if still:
        result.omissions.append(f"Inits whose distances do not vary have no correlation: {', '.join(still)}.")
    kept = [init for init in inits if init not in still]
    if len(kept) < 2:
        raise UserError("sequences: needs at least 2 inits whose distances vary")
    chosen = [inits.index(init) for init in kept]
    return _Grid(kept, tasks, np.stack([matrices[init] for init in kept]), runs_ITS[chosen])


def _distances_of(unit_NPd: np.ndarray, runs_ITS: np.ndarray) -> np.ndarray:
    """[I, T, P, T, P] float64: cosine distances within each init, a mean over its seeds."""
    seeds = range(runs_ITS.shape[2])
    return np.stack([np.mean([_distances(unit_NPd[runs_TS[:, k]]) for k in seeds], axis=0) for runs_TS in runs_ITS])


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
    r_J = np.array([test.statistic for test in tests])
    # As if entries were independent: of fewer tasks p would lie below what any order of them could give.
    p_J = np.array([test.pvalue for test in tests]) if len(grid.tasks) >= LEAST_TASKS else None
    return _Compared(r_J, p_J, grid.tokens**2, f"entries{grid.averaged}", "as if entries were independent")


def _across_runs(grid: _Grid, permutations: int, seed: int) -> _Compared:
    """Unique pairs of tokens of different runs; p from orders of the tasks of one init."""
    unit_ITPTP = _standardised(grid.distances_ITPTP)
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


def _standardised(distances_ITPTP: np.ndarray) -> np.ndarray:
    """[I, T, P, T, P] float64: 0 within runs; elsewhere centred distances, whose inner products are correlations."""
    between_TPTP = _between_runs(distances_ITPTP[0])
    means_I = distances_ITPTP[:, between_TPTP].mean(1)
    centred = np.where(between_TPTP, distances_ITPTP - means_I[:, None, None, None, None], 0.0)
    return centred / np.sqrt((centred**2).sum((1, 2, 3, 4), keepdims=True))


def _correlations(first_ITPTP: np.ndarray, second_ITPTP: np.ndarray) -> np.ndarray:
    """[I, I]. Every pair is in twice, which leaves r as it is."""
    return first_ITPTP.reshape(len(first_ITPTP), -1) @ second_ITPTP.reshape(len(second_ITPTP), -1).T


def _reordered(distances_ITPTP: np.ndarray, order: np.ndarray) -> np.ndarray:
    return distances_ITPTP[:, order][:, :, :, order]


def _lowest_by_chance(grid: _Grid, seed: int) -> np.ndarray:
    """[B] float64: the lowest r with the tasks of every init in a random order of its own."""
    unit_ITPTP = _standardised(grid.distances_ITPTP)
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


def _how_far(
    result: Result, moved: Moved, grid: _Grid, permutations: int, seed: int, plain_p: float | None
) -> Control | None:
    """Number pearson.minimum.how_far; None where no directions can be dealt anew."""

    def statistic(prompts_NPd: np.ndarray) -> float:
        norms_NP1 = np.linalg.norm(prompts_NPd, axis=2, keepdims=True)
        unit_NPd = prompts_NPd / np.where(norms_NP1 > 0, norms_NP1, 1.0)
        unit_ITPTP = _standardised(_distances_of(unit_NPd, grid.runs_ITS))
        return float(_correlations(unit_ITPTP, unit_ITPTP)[np.triu_indices(len(unit_ITPTP), 1)].min())

    control = moved.control(statistic, permutations, seed, plain_p)
    if control is not None:
        result.number("pearson.minimum.how_far", *control.row)
    return control


def _mean(result: Result, grid: _Grid, compared: _Compared) -> tuple[float, Error] | None:
    """Number pearson.mean, with its error over inits and tasks; None for fewer than 3 inits or 4 tasks."""
    inits, tasks = len(grid.inits), len(grid.tasks)
    value = float(compared.r_J.mean())
    if inits < 3 or tasks < 4:
        result.number("pearson.mean", value, len(grid.pairs), "pairs of inits")
        return None
    first, second = np.array(grid.pairs).T
    without_init = [compared.r_J[(first != i) & (second != i)].mean() for i in range(inits)]
    without_task = []
    for task in range(tasks):
        kept = np.arange(tasks) != task
        unit_ITPTP = _standardised(grid.distances_ITPTP[:, kept][:, :, :, kept])
        without_task.append(_correlations(unit_ITPTP, unit_ITPTP)[first, second].mean())
    variance = sum((len(r) - 1) / len(r) * float(((r - np.mean(r)) ** 2).sum()) for r in (without_init, without_task))
    error = Error(math.sqrt(variance), min(inits, tasks) - 1, 2, min(inits, tasks))
    low, high = error.interval(value)
    result.number("pearson.mean", value, len(grid.pairs), "pairs of inits", max(low, -1.0), min(high, 1.0))
    return value, error


# What follows from them.


def _beyond_diagonal(lowest: Number, diagonal: Number) -> Premise:
    """As the study counted, the zero diagonal alone makes r large: it must be larger still to mean anything."""
    most = diagonal.interval[1]
    said = f"the lowest r is above what the zero diagonal alone gives (up to {most:.3f})"
    return Premise(lowest.value > most, said, "sequences without the zero diagonal (convention=corrected)")


def _claim(
    compared: _Compared,
    evidence: str,
    far: Control | None,
    mean: tuple[float, Error] | None,
    premises: list[Premise],
    paper: bool,
) -> Claim:
    """Any two inits correlate, beyond how far tasks move; it fails where the mean r certainly is little."""
    needs, holds_p, fails_p = "more tasks", 1.0, 1.0
    if compared.p_J is None:
        needs = f"at least {LEAST_TASKS} tasks"
    else:
        holds_p = float(compared.p_J.max())
    if mean is not None:
        value, error = mean
        fails_p = error.greater_p(LITTLE - value)
        low, high = error.interval(value)
        evidence += f" The mean r is {value:.3f} ({low:.3f} to {min(high, 1.0):.3f}); below {LITTLE:g} it is little."
    if not paper and holds_p < LEVEL and (far is None or not far.beyond(float(compared.r_J.min()))):
        needs, holds_p = "tasks that move their prompts equally far (training.max_steps), and P0", 1.0
    elif not paper and far is not None:
        holds_p = max(holds_p, far.p)
    return tested(
        "pearson",
        holds_p,
        fails_p,
        evidence,
        level=LEVEL,
        premises=premises,
        needs=needs,
        quantity="pearson.minimum",
    )


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


def _finding(
    grid: _Grid,
    compared: _Compared,
    p_J: np.ndarray,
    lowest: Number,
    of: Of,
    far: Control | None,
    moved: str,
) -> Finding:
    """How many pairs of inits correlate, with p below LEVEL, and the pair with the lowest r. moved: how far, in words.

    That all do needs every p alone; that some do needs p adjusted for how many pairs there are (Holm 1979).
    """
    at, pairs = int(compared.r_J.argmin()), len(grid.pairs)
    correlated = pairs if bool((p_J < LEVEL).all()) else int((np.array(holm(p_J.tolist())) < LEVEL).sum())
    first, second = (grid.inits[i] for i in grid.pairs[at])
    which = "any two inits" if correlated == pairs else f"{correlated} of {pairs} pairs of inits only"
    which = which if correlated else "no two inits detectably"
    if not correlated and compared.chance_J is not None and pairs >= LEVEL * math.factorial(len(grid.tasks)):
        which += f" ({len(grid.tasks)} tasks have too few orders to tell which of {pairs} pairs do)"
    if correlated and moved and (far is None or not far.beyond(lowest.value)):
        which += ", perhaps by how far tasks move their prompts alone"
    if far is not None:
        moved += f", which alone gives a lowest r of {far.low:.3f} to {far.high:.3f}, p = {far.p:.3g}"
    what = "prompt tokens" if of == Of.prompt else "deltas"
    chance = "" if compared.chance_J is None else f", {compared.chance_J[at]:.3f} by chance"
    p = float(p_J.max())
    return Finding.of(
        lowest,
        f"The distances between the tasks' {what} correlate for {which}: lowest r = {lowest.value:.3f} "
        f"({first}, {second}{chance}; n = {lowest.n} {lowest.unit}), "
        f"largest {'p < .0001' if p < 0.0001 else f'p = {p:.4f}'} in {pairs} pairs of inits "
        f"({compared.orders}{moved}).",
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
        if count <= MOST_WRITTEN:
            write_cells(axis, r_II, ".2f", np.abs(r_II) > 0.6)
        axis.set_xticks(np.arange(count) + 0.5, grid.inits, rotation=90)
        axis.set_yticks(np.arange(count) + 0.5, grid.inits)
        axis.set(xlabel="init", ylabel="init", aspect="equal")
        axis.invert_yaxis()
        whose = "prompt tokens" if of == Of.prompt else "deltas"
        figure.colorbar(mesh, label=f"r of distances between {whose}")
        return svg(figure, f"How alike the distances between tasks' {whose} are in two inits (Pearson's r)")
