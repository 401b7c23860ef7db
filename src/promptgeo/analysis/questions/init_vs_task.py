"""What decides where a prompt token lies: the init it started from, the task it was trained on, or its position?

Shares of the variance of the tokens' unit vectors (variance.py), each against permutations of whole runs within the
levels of the other factor; the init's share also against what P0 alone gives.

Table `decomposition`: a row per factor. Numbers `r2.<factor>`, `omega2.<factor>` (one-way, all tokens),
`effect.<factor>` ((R2 - E R2) / (1 - E R2), E over the permutations), `permdisp.<factor>` (F), with p; n counts runs.
Of trained prompts also `r2.init.at_p0`, `r2.init.reassigned` and `r2.init.beyond_p0`: the init's share at P0, with the
deltas reassigned between inits, and what the trained prompts have beyond that.

Shapes: N runs, P prompt tokens, d width, B permutations.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.geometry.tokens import require_levels, tokens
from promptgeo.analysis.geometry.variance import (
    Inner,
    Share,
    cells,
    centroid_distances,
    f_ratio,
    interaction_share,
    omega2,
    position_share,
    reassigned_r2,
    run_share,
)
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import assignments, orders_within, percentile_interval, permutation_p
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

LEVEL = 0.05
"""Of the tests."""
OTHER = {"init": "task", "task": "init"}
INTERACTION = "init x task"


@question(of=True, claims=("init_matters", "task_matters"))
def init_vs_task(
    runs: RunTable, *, of: Of = Of.prompt, permutations: int = 10000, redraws: int = 1000, seed: int = 0
) -> Result:
    """How much of where a token lies do init, task and position decide?

    permutations: of whole runs. redraws: permutations that cost more: positions within a run, reassigned deltas,
    residuals, dispersions.

    Definitions: Anderson 2001 (R2 and pseudo-F from distances), Anderson 2006 (dispersion).
    Raises UserError for runs of fewer than two inits or tasks, of different shapes, or without P0 for deltas.
    """
    require_levels(runs, {"init": 2, "task": 2}, "init_vs_task")
    points = tokens(runs, of)
    grid = _Grid.of(runs, points.unit_Kd.reshape(len(runs), -1, points.vectors_Kd.shape[1]))
    draws = _Draws(permutations, redraws, seed)
    result = Result()
    parts = _parts(grid, draws, result)
    effects = _report_shares(grid, parts, result)
    for factor, effect in effects.items():
        share = parts[factor].share
        if share is not None and factor != INTERACTION and grid.testable(factor):
            result.findings.append(_finding(factor, share, effect, grid.inner.tokens, of))
    if of == Of.prompt:
        _report_beyond_p0(runs, grid, draws, result)
        _add_claims(grid, parts, result)
    dispersions = _report_dispersions(grid, parts, draws, result)
    result.tables["decomposition"] = _table(grid, parts, dispersions)
    result.figures["shares"] = _figure({factor: part.share for factor, part in parts.items() if part.share is not None})
    return result


@dataclass(frozen=True)
class _Draws:
    permutations: int
    redraws: int
    seed: int


@dataclass(frozen=True)
class _Grid:
    """Runs of several inits and tasks."""

    unit_NPd: np.ndarray
    """Their tokens at length 1."""
    inner: Inner
    codes: dict[str, np.ndarray]
    """init, task -> [N] int64: the level of each run."""

    @classmethod
    def of(cls, runs: RunTable, unit_NPd: np.ndarray) -> "_Grid":
        codes = {factor: pd.factorize(runs.table[factor])[0] for factor in OTHER}
        return cls(unit_NPd, Inner.of(unit_NPd), codes)

    @property
    def n(self) -> int:
        return len(self.unit_NPd)

    @cached_property
    def cells_N(self) -> np.ndarray:
        """int64: the cell of the grid, init and task together, of each run."""
        return cells(self.codes["init"], self.codes["task"])

    @property
    def cell_count(self) -> int:
        return len(np.unique(self.cells_N))

    def ways(self, factor: str) -> float:
        """In how many ways the runs can be grouped by the factor, permuted within the other one."""
        return assignments(self.codes[factor], self.codes[OTHER[factor]])

    def exchangeable(self, factor: str) -> bool:
        return self.ways(factor) > 1.5  # more than 1, whatever rounding leaves of it

    def testable(self, factor: str) -> bool:
        """Whether the permutations can give a p as small as LEVEL at all."""
        return factor not in OTHER or self.ways(factor) * LEVEL >= 1


@dataclass(frozen=True)
class _Part:
    """One part of the variance."""

    r2: float
    df: int
    levels: int | None = None
    """Of a factor; None: of seeds, residuals or an interaction."""
    share: Share | None = None
    """Beside what it would be by chance; None where these runs cannot say."""


def _parts(grid: _Grid, draws: _Draws, result: Result) -> dict[str, _Part]:
    """The parts by name; they add up to 1 where the grid is balanced."""
    inner = grid.inner
    parts = {factor: _run_factor(grid, factor, draws, result) for factor in OTHER}
    if inner.length > 1:
        share = position_share(grid.unit_NPd, inner, draws.redraws, draws.seed)
        parts["position"] = _Part(share.r2, inner.length - 1, inner.length, share)
    else:
        result.omissions.append("These prompts have one token: there is no position to compare.")
    parts[INTERACTION] = _interaction(grid, draws, result)
    per_run = inner.r2(np.arange(grid.n))
    if grid.n > grid.cell_count:
        parts["seed"] = _Part(per_run - inner.r2(grid.cells_N), grid.n - grid.cell_count)
    if inner.length > 1:
        parts["residual"] = _Part(1.0 - per_run - inner.position(), (grid.n - 1) * (inner.length - 1))
    joint, _ = inner.r2_joint(grid.codes["init"], grid.codes["task"])
    if abs(parts["init"].r2 + parts["task"].r2 - joint) > 1e-6:  # more than rounding
        result.omissions.append(
            "The grid of inits and tasks is not balanced: the shares of init and task overlap and do not add up."
        )
    return parts


def _run_factor(grid: _Grid, factor: str, draws: _Draws, result: Result) -> _Part:
    """The part of init or task."""
    codes_N, other = grid.codes[factor], OTHER[factor]
    levels = len(np.unique(codes_N))
    if not grid.exchangeable(factor):
        result.omissions.append(f"Whether the {factor} matters cannot be tested: no {other} has runs of two {factor}s.")
        return _Part(grid.inner.r2(codes_N), levels - 1, levels)
    if not grid.testable(factor):
        ways = grid.ways(factor)
        result.omissions.append(
            f"Too few runs to test the {factor}: permuted within each {other} they can be grouped in {ways:.0f} ways, "
            f"so no p is below {1 / ways:.2g}."
        )
    share = run_share(grid.inner, codes_N, grid.codes[other], draws.permutations, draws.seed)
    return _Part(share.r2, levels - 1, levels, share)


def _interaction(grid: _Grid, draws: _Draws, result: Result) -> _Part:
    """What the cells of init and task have beyond both."""
    init_N, task_N = grid.codes["init"], grid.codes["task"]
    joint, rank = grid.inner.r2_joint(init_N, task_N)
    df = grid.cell_count - rank
    if grid.cell_count == grid.n:
        result.omissions.append(
            "There is one run per init and task: the share of init x task cannot be separated from the noise of seeds."
        )
        return _Part(grid.inner.r2(np.arange(grid.n)) - joint, df)
    share = interaction_share(grid.inner, init_N, task_N, draws.redraws, draws.seed)
    return _Part(share.r2, df, share=share)


def _omega2(grid: _Grid, part: _Part) -> float | None:
    return None if part.levels is None else omega2(part.r2, grid.inner.tokens, part.levels)


def _report_shares(grid: _Grid, parts: dict[str, _Part], result: Result) -> dict[str, Number]:
    """The numbers of each part; returns the effects beyond chance of those that have one."""
    effects = {}
    for factor, part in parts.items():
        name, p = factor.replace(" ", "_"), part.share.p if part.share else None
        result.number(f"r2.{name}", part.r2, grid.n, "runs", p=p)
        corrected = _omega2(grid, part)
        if corrected is not None:
            result.number(f"omega2.{name}", corrected, grid.n, "runs", p=p)
        if part.share:
            effects[factor] = result.number(f"effect.{name}", part.share.size, grid.n, "runs", p=p)
    return effects


def _table(grid: _Grid, parts: dict[str, _Part], dispersions: dict[str, Number]) -> pd.DataFrame:
    rows = []
    for factor, part in parts.items():
        share = part.share
        row: dict[str, Any] = {"factor": factor, "df": part.df, "r2": part.r2, "omega2": _omega2(grid, part)}
        row["chance_low"], row["chance_high"] = share.by_chance if share else (None, None)
        row |= {"effect": share.size if share else None, "p": share.p if share else None}
        row |= {"runs": grid.n, "tokens": grid.inner.tokens}
        if factor in dispersions:
            row |= {"permdisp_f": dispersions[factor].value, "permdisp_p": dispersions[factor].p}
        rows.append(row)
    return pd.DataFrame(rows)


def _report_dispersions(grid: _Grid, parts: dict[str, _Part], draws: _Draws, result: Result) -> dict[str, Number]:
    """PERMDISP: do groups differ in spread rather than in place?

    F of the tokens' distances to the centroid of their group, permuted like the shares.
    """
    dispersions = {}
    for factor, part in parts.items():
        if factor == INTERACTION or part.share is None:
            continue
        codes_NP, permuted_BNP = _token_levels(grid, factor, draws)
        distances_NP = centroid_distances(grid.unit_NPd, codes_NP)
        f = float(f_ratio(distances_NP, codes_NP[None])[0])
        if np.isnan(f):
            result.omissions.append(
                f"All tokens lie equally far from the centroid of their {factor}: their spreads cannot be compared."
            )
            continue
        p = permutation_p(f, f_ratio(distances_NP, permuted_BNP))
        number = dispersions[factor] = result.number(f"permdisp.{factor}", f, grid.n, "runs", p=p)
        if p < LEVEL:
            verdict = f"The {factor}s differ in spread, so part of their difference may be one of spread"
        else:
            verdict = f"No difference in spread between {factor}s was detected"
        evidence = f"PERMDISP F = {f:.2f}, p = {p:.2g}; n = {grid.n} runs"
        result.findings.append(Finding.of(number, f"{verdict} ({evidence})."))
    return dispersions


def _token_levels(grid: _Grid, factor: str, draws: _Draws) -> tuple[np.ndarray, np.ndarray]:
    """(levels of each token [N, P], the same permuted [B, N, P]), int64."""
    n, length, _ = grid.unit_NPd.shape
    if factor == "position":
        codes_NP = np.tile(np.arange(length), (n, 1))
        return codes_NP, np.argsort(np.random.default_rng(draws.seed).random((draws.redraws, n, length)), axis=2)
    codes_N = grid.codes[factor]
    orders_BN = orders_within(grid.codes[OTHER[factor]], draws.redraws, draws.seed)
    return np.repeat(codes_N[:, None], length, axis=1), np.repeat(codes_N[orders_BN][..., None], length, axis=2)


def _report_beyond_p0(runs: RunTable, grid: _Grid, draws: _Draws, result: Result) -> None:
    """Does the init's share exceed what P0 alone gives, with the deltas of other inits?"""
    try:
        initial_NPd = runs.prompts("initial")
    except (UserError, KeyError):
        result.omissions.append(
            "These prompts come without P0: how much of the init's share P0 alone gives cannot be said."
        )
        return
    if not grid.exchangeable("init"):
        return
    init_N, task_N, n = grid.codes["init"], grid.codes["task"], grid.n
    delta_NPd = runs.prompts() - initial_NPd
    orders_BN = orders_within(task_N, draws.redraws, draws.seed)
    null_B = reassigned_r2(initial_NPd, delta_NPd, init_N, task_N, orders_BN)
    observed = float(reassigned_r2(initial_NPd, delta_NPd, init_N, task_N, np.arange(n)[None])[0])
    p, mean, (low, high) = permutation_p(observed, null_B), float(null_B.mean()), percentile_interval(null_B)
    try:
        result.number("r2.init.at_p0", Inner.of(initial_NPd).r2(init_N), n, "runs")
    except UserError as error:
        result.omissions.append(f"The init's share at P0 cannot be given: {error}.")
    result.number("r2.init.reassigned", mean, n, "runs", low, high)
    excess = result.number("r2.init.beyond_p0", observed - mean, n, "runs", observed - high, observed - low, p)
    if p < LEVEL:
        verdict = "The init's share exceeds what P0 alone gives: training added to each init in its own way"
    else:
        verdict = "The init's share does not detectably exceed what P0 alone gives"
    evidence = (
        f"R2 = {observed:.3f} against {mean:.3f} ({low:.3f} to {high:.3f}) with the deltas reassigned between inits, "
        f"p = {p:.2g}; n = {n} runs"
    )
    result.findings.append(Finding.of(excess, f"{verdict} ({evidence})."))


def _evidence(share: Share) -> str:
    low, high = share.by_chance
    return f"R2 = {share.r2:.3f}, by chance {low:.3f} to {high:.3f}, p = {share.p:.2g}"


def _finding(factor: str, share: Share, effect: Number, tokens: int, of: Of) -> Finding:
    what = "trained prompt tokens" if of == Of.prompt else "what training added to the tokens"
    if share.p < LEVEL:
        verdict = f"The {factor} explains {share.r2:.1%} of the variance of {what}, {effect.value:.1%} beyond chance"
    else:
        verdict = f"The {factor} does not detectably explain more of the variance of {what} than chance does"
    return Finding.of(effect, f"{verdict} ({_evidence(share)}; n = {effect.n} runs, {tokens} tokens).")


def _add_claims(grid: _Grid, parts: dict[str, _Part], result: Result) -> None:
    """Left out where no p could be small enough: too few runs say nothing against a claim."""
    for factor in OTHER:
        share = parts[factor].share
        if share is None or not grid.testable(factor):
            continue
        verdict = "explains more" if share.p < LEVEL else "does not detectably explain more"
        evidence = f"The {factor} {verdict} of the variance than chance does: {_evidence(share)} (n = {grid.n} runs)."
        result.claims.append(Claim(f"{factor}_matters", Outcome.of(share.p < LEVEL), evidence))


def _figure(shares: dict[str, Share]) -> str:
    """Bars of effect sizes; what permutations give 95 % of the time in grey."""
    with panels(height=0.6 + 0.45 * max(len(shares), 1)) as (figure, axes):
        axis = axes[0, 0]
        for k, share in enumerate(shares.values()):
            low, high = (float(share.effect(x)) for x in share.by_chance)
            axis.barh(k, share.size, height=0.5, color=COLOURS[k])
            axis.barh(k, high - low, left=low, height=0.75, color="#777777", alpha=0.35, linewidth=0)
            label = f"  {share.size:.3f} (p = {share.p:.2g})"
            axis.text(max(share.size, high, 0.0), k, label, va="center", fontsize=8)
        axis.axvline(0.0, color="#777777", linewidth=0.8)
        axis.set_yticks(range(len(shares)), list(shares))
        axis.invert_yaxis()
        axis.margins(x=0.2)
        axis.grid(False, axis="y")
        axis.set_xlabel("share of variance beyond chance (grey: 95 % of permutations)")
        return svg(figure)
