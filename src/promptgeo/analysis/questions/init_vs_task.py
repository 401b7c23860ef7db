"""What decides where a prompt token lies: the init it started from, the task it was trained on, or its position?

Shares of the variance of the tokens' unit vectors (variance.py), each against permutations of whole cells within the
levels of the other factor; those of init and position also against what P0 alone gives, that of the task also against
what tasks give that only move their prompts differently far.

Table `decomposition`: a row per factor. Numbers `r2.<factor>`, `omega2.<factor>` (one-way, all tokens),
`effect.<factor>` ((R2 - E R2) / (1 - E R2), E over the permutations), `permdisp.<factor>` (the largest mean spread of a
level over the smallest), with p; n counts runs. Of trained prompts also

- `r2.<init|position>.at_p0`, `.reassigned`, `.beyond_p0`: the share at P0, with the deltas reassigned between inits (or
  the positions of a run), and what the trained prompts have beyond that;
- `moved.<task>`: |P - P0| / |P0|; `r2.task.moved`, `.beyond_moved`: the share where every run moves as
  far from its P0 as it does but goes the way of another task's run of its init, and what there is beyond that. Tasks
  that go one way with less noise, for they take more steps, still count as going ways of their own: steps of equal
  number (training.max_steps) rule that out.

Shapes: N runs, P prompt tokens, d width, B permutations.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, decided, learned
from promptgeo.analysis.figures import COLOURS, NEUTRAL, panels, svg
from promptgeo.analysis.geometry.tokens import require_levels, tokens
from promptgeo.analysis.geometry.variance import (
    Inner,
    Reassigned,
    Share,
    cells,
    interaction_share,
    omega2,
    position_share,
    position_ways,
    reassigned_positions,
    run_share,
    spread_ratios,
    spreads,
    token_spreads,
    with_peers,
)
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import (
    assignments,
    cell_orders_within,
    drawn_means,
    first_of_cells,
    least_dealt_p,
    orders_within,
    permutation_p,
    shuffled_positions,
    t_interval,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

OTHER = {"init": "task", "task": "init"}
INTERACTION = "init x task"


@question(of=True, claims=("init_matters", "task_matters"))
def init_vs_task(
    runs: RunTable, *, of: Of = Of.prompt, permutations: int = 10000, redraws: int = 1000, seed: int = 0
) -> Result:
    """How much of where a token lies do init, task and position decide?

    permutations: of whole cells (all seeds of an init and task). redraws: permutations that cost more: positions within
    a run, reassigned deltas, residuals, dispersions.

    Definitions: Anderson 2001 (R2 and pseudo-F from distances), Anderson 2006 (dispersion).
    Raises UserError for runs of fewer than two inits or tasks, of different shapes, or without P0 for deltas.
    """
    require_levels(runs, {"init": 2, "task": 2}, "init_vs_task")
    points = tokens(runs, of)
    grid = _Grid.of(runs, points.unit_Kd.reshape(len(runs), -1, points.vectors_Kd.shape[1]))
    draws = _Draws(permutations, redraws, seed)
    result = Result()
    parts = _parts(grid, draws, result)
    if of == Of.prompt:
        # Tasks that move prompts differently far spread them differently, which its null takes for an interaction (in
        # 27 % of draws), and no exchange of cells leaves only that: of prompts it has no p.
        parts[INTERACTION] = replace(parts[INTERACTION], share=None)
    effects = _report_shares(grid, parts, result)
    initial_NPd = _p0(runs, result) if of == Of.prompt else None
    at_p0 = {} if initial_NPd is None else _report_at_p0(initial_NPd, grid, result)
    for factor, effect in effects.items():
        share = parts[factor].share
        if share is not None and factor != INTERACTION and grid.testable(factor):
            result.findings.append(_finding(factor, share, effect, grid.inner.tokens, of, at_p0.get(factor)))
    moved = None
    if initial_NPd is not None:
        delta_NPd = runs.prompts() - initial_NPd
        _report_beyond_p0(initial_NPd, delta_NPd, grid, draws, result)
        share = parts["task"].share if "task" in parts else None
        moved = _report_moved(runs, initial_NPd, delta_NPd, grid, draws, result, 0.0 if share is None else share.p)
    if of == Of.prompt:
        _add_claims(runs, grid, parts, moved, result)
    dispersions = _report_dispersions(grid, parts, draws, result)
    result.tables["decomposition"] = _table(grid, parts, dispersions)
    shares = {factor: part.share for factor, part in parts.items() if part.share is not None}
    result.figures["shares"] = _figure(shares, of)
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
        """In how many ways the runs can be grouped by the factor, permuted within the other one.

        Of positions: those of each run's tokens.
        """
        if factor == "position":
            return position_ways(self.n, self.inner.length)
        first_C, _ = first_of_cells(self.codes[factor], self.codes[OTHER[factor]])
        return assignments(self.codes[factor][first_C], self.codes[OTHER[factor]][first_C])

    def deals(self, factor: str) -> float:
        """In how many ways the deltas of its levels can be dealt anew, each P0 kept."""
        counts_SL = pd.crosstab(self.codes[OTHER[factor]], self.codes[factor]).to_numpy()
        return 2.0 / least_dealt_p((counts_SL > 0).astype(int).tolist())

    def exchangeable(self, factor: str) -> bool:
        return self.ways(factor) > 1.5  # more than 1, whatever rounding leaves of it

    def testable(self, factor: str) -> bool:
        """Whether the permutations can give a p as small as LEVEL at all."""
        return self.ways(factor) * LEVEL >= 1

    def enough(self, factor: str) -> str:
        """How many runs would do for a p as small as LEVEL, in words."""
        levels, other = len(np.unique(self.codes[factor])), OTHER[factor]
        # One run per cell: position_ways counts the ways of L levels in S strata too, L!^(S - 1).
        strata = next(s for s in range(2, 99) if position_ways(s, levels) * LEVEL >= 1)
        return f"{levels} {factor}s from {strata} {other}s" if factor == "task" else f"{levels} inits on {strata} tasks"


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
            result.number(f"omega2.{name}", corrected, grid.n, "runs")  # p is of R2, given the other factor
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
            row |= {"spread_ratio": dispersions[factor].value, "spread_p": dispersions[factor].p}
        rows.append(row)
    return pd.DataFrame(rows)


def _report_dispersions(grid: _Grid, parts: dict[str, _Part], draws: _Draws, result: Result) -> dict[str, Number]:
    """PERMDISP: do groups differ in spread rather than in place?

    The groups' mean spread about where the additive model places their runs, compared by the largest over the smallest,
    and permuted like the shares.
    """
    dispersions = {}
    kept_N = with_peers(grid.codes["init"], grid.codes["task"])
    codes = {factor: np.unique(codes_N[kept_N], return_inverse=True)[1] for factor, codes_N in grid.codes.items()}
    for factor, part in parts.items():
        if factor == INTERACTION or part.share is None:
            continue
        compared = _compared_spreads(factor, grid.unit_NPd[kept_N], codes, draws) if kept_N.any() else None
        if compared is None:
            result.omissions.append(
                f"Every run lies where its init, task and position place it: the {factor}s' spreads cannot be compared."
            )
            continue
        ratio, null_B = compared
        p = max(permutation_p(ratio, null_B), 1.0 / grid.ways(factor))
        number = dispersions[factor] = result.number(f"permdisp.{factor}", ratio, int(kept_N.sum()), "runs", p=p)
        if grid.testable(factor):
            result.findings.append(_dispersion_finding(factor, number, p))
    return dispersions


def _compared_spreads(
    factor: str, unit_NPd: np.ndarray, codes: dict[str, np.ndarray], draws: _Draws
) -> tuple[float, np.ndarray] | None:
    """(the ratio of the levels' spreads, those of its null [B]); None where nothing spreads."""
    n, length, _ = unit_NPd.shape
    if factor == "position":
        codes_K = np.tile(np.arange(length), n)
        places_BNP = shuffled_positions(n, length, draws.redraws, draws.seed).reshape(-1, n, length)
        values_NP, null_BNP = token_spreads(unit_NPd, codes["init"], codes["task"], places_BNP)
        values_K, null_BK = values_NP.ravel(), null_BNP.reshape(len(null_BNP), -1)
    else:
        codes_K, orders_BN = codes[factor], orders_within(codes[OTHER[factor]], draws.redraws, draws.seed)
        values_K, null_BK = spreads(unit_NPd, codes["init"], codes["task"], orders_BN)
    if values_K.max() < 1e-6 or not codes_K.any():  # rounding; one level
        return None
    return float(spread_ratios(values_K[None], codes_K)[0]), spread_ratios(null_BK, codes_K)


def _dispersion_finding(factor: str, number: Number, p: float) -> Finding:
    if p < LEVEL:
        verdict = f"The {factor}s differ in spread, so part of their difference may be one of spread"
    else:
        verdict = f"No difference in spread between {factor}s was detected"
    evidence = f"the widest spreads {number.value:.2f} times as far as the narrowest, PERMDISP p = {p:.2g}"
    return Finding.of(number, f"{verdict} ({evidence}; n = {number.n} runs).")


def _p0(runs: RunTable, result: Result) -> np.ndarray | None:
    """[N, P, d] float32; None where the prompts come without it, which is said."""
    try:
        return runs.prompts("initial")
    except (UserError, KeyError):
        result.omissions.append(
            "These prompts come without P0: how much of the shares of init and position P0 alone gives, and how much "
            "of the task's is by how far training moves, cannot be said."
        )
        return None


def _report_at_p0(initial_NPd: np.ndarray, grid: _Grid, result: Result) -> dict[str, float]:
    """The shares of init and position among the P0s."""
    try:
        inner = Inner.of(initial_NPd)
        shares = {"init": inner.r2(grid.codes["init"])} | ({"position": inner.position()} if inner.length > 1 else {})
    except UserError as error:
        result.omissions.append(f"The shares at P0 cannot be given: {error}.")
        return {}
    for factor, share in shares.items():
        result.number(f"r2.{factor}.at_p0", share, grid.n, "runs")
    return shares


def _report_beyond_p0(
    initial_NPd: np.ndarray, delta_NPd: np.ndarray, grid: _Grid, draws: _Draws, result: Result
) -> None:
    """Do the shares of init and position exceed what P0 alone gives, with the deltas of others?"""
    if grid.exchangeable("init"):
        orders_BN = cell_orders_within(grid.codes["init"], grid.codes["task"], draws.redraws, draws.seed)
        share = Reassigned(initial_NPd, delta_NPd, grid.codes["task"]).r2(grid.codes["init"], orders_BN)
        _report_beyond("init", "inits", replace(share, ways=grid.deals("init")), grid, result)
    if grid.exchangeable("position"):
        share = reassigned_positions(initial_NPd, delta_NPd, draws.redraws, draws.seed)
        _report_beyond("position", "the positions of a run", share, grid, result)


def _report_beyond(factor: str, between: str, share: Share, grid: _Grid, result: Result) -> None:
    excess, against = _report_excess(factor, ("reassigned", "beyond_p0"), share, grid, result)
    if not grid.testable(factor):
        return
    if share.p < LEVEL:
        verdict = f"The {factor}'s share exceeds what P0 alone gives: training added to each {factor} in its own way"
    else:
        verdict = f"The {factor}'s share does not detectably exceed what P0 alone gives"
    evidence = f"{against} with the deltas reassigned between {between}, p = {share.p:.2g}; n = {grid.n} runs"
    result.findings.append(Finding.of(excess, f"{verdict} ({evidence})."))


def _report_excess(
    factor: str, names: tuple[str, str], share: Share, grid: _Grid, result: Result
) -> tuple[Number, str]:
    """(the number of what a share has beyond its null's mean, both in words). names: of the null and of the excess.

    The null's has the range of its draws. The excess has a p alone: how far the null varies is not how far the share
    of other runs would.
    """
    mean, (low, high) = float(share.null_B.mean()), share.by_chance
    result.number(f"r2.{factor}.{names[0]}", mean, grid.n, "runs", low, high)
    excess = result.number(f"r2.{factor}.{names[1]}", share.r2 - mean, grid.n, "runs", p=share.p)
    return excess, f"R2 = {share.r2:.3f} against {share.in_words}"


def _report_moved(
    runs: RunTable,
    initial_NPd: np.ndarray,
    delta_NPd: np.ndarray,
    grid: _Grid,
    draws: _Draws,
    result: Result,
    plain_p: float,
) -> Share | None:
    """Do tasks move prompts to different places, or only differently far? The task's share beside the latter.

    plain_p: of the task's share as it is.
    """
    far = _report_distances(runs, initial_NPd, delta_NPd, draws.seed, result)
    if not grid.exchangeable("task"):
        return None
    orders_BN = cell_orders_within(grid.codes["task"], grid.codes["init"], draws.redraws, draws.seed)
    reassigned = Reassigned(initial_NPd, delta_NPd, grid.codes["init"], as_far=True)
    share = replace(reassigned.r2(grid.codes["task"], orders_BN), ways=grid.deals("task"), plain_p=plain_p)
    excess, against = _report_excess("task", ("moved", "beyond_moved"), share, grid, result)
    if grid.testable("task"):
        if share.p < LEVEL:
            verdict = "The task's share exceeds what moving differently far gives: tasks move prompts to other places"
        else:
            verdict = "The task's share does not detectably exceed what moving differently far gives"
        evidence = f"{against} where each run goes as far, but the way of any task's run of its init, p = {share.p:.2g}"
        result.findings.append(Finding.of(excess, f"{verdict} ({evidence}{far}; n = {grid.n} runs)."))
    return share


def _report_distances(runs: RunTable, initial_NPd: np.ndarray, delta_NPd: np.ndarray, seed: int, result: Result) -> str:
    """How far each task's runs move; in words, from the nearest to the farthest."""
    lengths_N, moved_N = (np.linalg.norm(x_NPd.reshape(len(runs), -1), axis=1) for x_NPd in (initial_NPd, delta_NPd))
    if not (lengths_N > 0).all():
        result.omissions.append("A P0 is zero: how far training moves cannot be given as a share of it.")
        return ""
    means = {}
    for task, members in runs.table.groupby("task", sort=False).indices.items():
        far_n = (moved_N / lengths_N)[members]
        means[str(task)] = mean = float(far_n.mean())
        bounds = t_interval(mean, drawn_means(far_n, 1000, seed), len(far_n), 0.0) if len(far_n) > 1 else (None, None)
        result.number(f"moved.{task}", mean, len(far_n), "runs", *bounds)
    near, far = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return f"; tasks move by {means[near]:.2g} ({near}) to {means[far]:.2g} ({far}) times |P0|"


def _evidence(share: Share) -> str:
    return f"R2 = {share.r2:.3f}, by chance {share.in_words}; p = {share.p:.2g}"


def _finding(factor: str, share: Share, effect: Number, tokens: int, of: Of, at_p0: float | None) -> Finding:
    what = "trained prompt tokens" if of == Of.prompt else "what training added to the tokens"
    if share.p < LEVEL:
        verdict = (
            f"The {factor} explains {share.r2:.1%} of the variance of {what}, {effect.value:.1%} of what chance leaves"
        )
    else:
        verdict = f"The {factor} does not detectably explain more of the variance of {what} than chance does"
    before = "" if at_p0 is None else f"; at P0 R2 = {at_p0:.3f}"
    return Finding.of(effect, f"{verdict} ({_evidence(share)}{before}; n = {effect.n} runs, {tokens} tokens).")


def _add_claims(runs: RunTable, grid: _Grid, parts: dict[str, _Part], moved: Share | None, result: Result) -> None:
    """They hold by their tests alone, and never fail: how small a share would have shown is not known."""
    solved = learned(runs.table)
    for factor in OTHER:
        share = parts[factor].share
        if share is None:
            same = f"There are no runs of several {factor}s with the same {OTHER[factor]}."
            result.claims.append(decided(f"{factor}_matters", None, same, needs=grid.enough(factor)))
            continue
        ways = f"enough runs for a p below {LEVEL} (they can be grouped in {grid.ways(factor):.0f} ways)"
        premises = [Premise(grid.testable(factor), ways, grid.enough(factor)), *solved]
        tests = [share]
        evidence = (
            f"{_shown(factor, share, grid)} of the variance than chance does: {_evidence(share)} (n = {grid.n} runs)."
        )
        if factor == "task":
            premises.append(Premise(moved is not None, "a P0 of every prompt", "prompts with their P0"))
            if moved is not None:
                tests.append(moved)
                evidence += f" {_of_moved(moved)}" if grid.testable(factor) else ""
        p = max(test.p for test in tests)
        # One-sided, as the tests are: the share lies above what each null exceeds in 5 % of draws.
        beyond = min(test.r2 - float(np.quantile(test.null_B, 1.0 - LEVEL)) for test in tests), float("inf")
        about = f"effect.{factor}"
        result.claims.append(decided(f"{factor}_matters", beyond, evidence, p=p, premises=premises, quantity=about))


def _shown(factor: str, share: Share, grid: _Grid) -> str:
    if not grid.testable(factor):
        return f"These runs are too few to test whether the {factor} explains more"
    return f"The {factor} explains more" if share.p < LEVEL else f"The {factor} does not detectably explain more"


def _of_moved(moved: Share) -> str:
    verdict = "exceeds" if moved.p < LEVEL else "does not detectably exceed"
    return f"It {verdict} what tasks give that move differently far alone: {moved.in_words}; p = {moved.p:.2g}."


def _figure(shares: dict[str, Share], of: Of) -> str:
    """Bars of effect sizes; what permutations give 95 % of the time in grey."""
    with panels(height=0.6 + 0.45 * max(len(shares), 1)) as (figure, axes):
        axis = axes[0, 0]
        for k, share in enumerate(shares.values()):
            low, high = (float(share.effect(x)) for x in share.by_chance)
            axis.barh(k, share.size, height=0.5, color=COLOURS[k])
            axis.barh(k, high - low, left=low, height=0.75, color=NEUTRAL, alpha=0.35, linewidth=0)
            label = f"  {share.size:.3f} (p = {share.p:.2g})"
            axis.text(max(share.size, high, 0.0), k, label, va="center", fontsize=8)
        axis.axvline(0.0, color=NEUTRAL, linewidth=0.8)
        axis.set_yticks(range(len(shares)), list(shares))
        axis.invert_yaxis()
        axis.use_sticky_edges = False  # else the left end of a grey bar would be the axis
        axis.margins(x=0.2, y=0.02)
        axis.grid(False, axis="y")
        axis.set_xlabel("share of variance beyond chance (grey: 95 % of permutations)")
        whose = "prompt tokens" if of == Of.prompt else "deltas of prompt tokens"
        return svg(figure, f"How much of where {whose} lie goes with init, task and position")
