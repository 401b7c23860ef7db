"""What decides where a prompt token lies: the init it started from, the task it was trained on, or its position?

Shares of the variance of the tokens' unit vectors (variance.py), each against permutations of whole runs within the levels of the other
factor; the init's share also against what P0 alone gives.

Shapes: N runs, P prompt tokens, d width, B permutations.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.question import Of
from promptgeo.analysis.resampling import assignments, orders_within, permutation_p
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.variance import (
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
from promptgeo.analysis.vectors import require_levels, tokens
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable

LEVEL = 0.05
"""Of the tests."""
OTHER = {"init": "task", "task": "init"}


def init_vs_task(runs: RunTable, *, of: Of = Of.prompt, permutations: int = 10000, redraws: int = 1000, seed: int = 0) -> Result:
    """Table `decomposition`: a row per factor. Numbers `r2.<factor>`, `omega2.<factor>` (one-way, all tokens), `effect.<factor>`
    ((R2 - E R2) / (1 - E R2), E over the permutations), `permdisp.<factor>` (F), with p; n counts runs.

    of=prompt also gives `r2.init.at_p0`, `r2.init.reassigned` and `r2.init.beyond_p0`: the init's share at P0, with the deltas reassigned
    between inits, and what the trained prompts have beyond that.

    permutations: of whole runs. redraws: permutations that cost more: positions within a run, reassigned deltas, residuals, dispersions.

    Definitions: Anderson 2001 (R2 and pseudo-F from distances), Anderson 2006 (dispersion). Raises UserError for runs of fewer than two
    inits or tasks, of different shapes, or without P0 for deltas.
    """
    require_levels(runs, {"init": 2, "task": 2}, "init_vs_task")
    points = tokens(runs, of)
    n = len(runs)
    unit_NPd = points.unit_Kd.reshape(n, -1, points.vectors_Kd.shape[1])
    codes = {factor: pd.factorize(runs.table[factor])[0] for factor in OTHER}
    inner = Inner.of(unit_NPd)
    result = Result()
    shares = _shares(unit_NPd, inner, codes, permutations, redraws, seed, result)
    rows = _decomposition(inner, codes, shares, result)
    for factor in ("init", "task", "position"):
        if isinstance(shares.get(factor), Share) and _testable(factor, codes):
            result.findings.append(_finding(factor, shares[factor], n, inner.tokens, of))
    if of == Of.prompt:
        _beyond_p0(runs, codes, redraws, seed, result)
        _claims(shares, codes, n, result)
    _dispersions(unit_NPd, codes, shares, redraws, seed, rows, result)
    result.tables["decomposition"] = pd.DataFrame(rows.values())
    result.figures["shares"] = _figure({k: v for k, v in shares.items() if isinstance(v, Share)})
    return result


def _shares(
    unit_NPd: np.ndarray, inner: Inner, codes: dict[str, np.ndarray], permutations: int, redraws: int, seed: int, result: Result
) -> dict[str, Share | float]:
    """R2 by factor; a bare number where the runs cannot tell it from chance."""
    shares: dict[str, Share | float] = {}
    for factor, other in OTHER.items():
        ways = assignments(codes[factor], codes[other])
        if ways < 1.5:
            shares[factor] = inner.r2(codes[factor])
            result.omissions.append(f"Whether the {factor} matters cannot be tested: no {other} has runs of two {factor}s.")
            continue
        if ways * LEVEL < 1:
            result.omissions.append(f"Too few runs to test the {factor}: permuted within each {other} they can be grouped in {ways:.0f} ways, so no p is below {1 / ways:.2g}.")
        shares[factor] = run_share(inner, codes[factor], codes[other], permutations, seed)
    if inner.length > 1:
        shares["position"] = position_share(unit_NPd, inner, redraws, seed)
    else:
        result.omissions.append("These prompts have one token: there is no position to compare.")
    if len(np.unique(cells(codes["init"], codes["task"]))) < len(unit_NPd):
        shares["init x task"] = interaction_share(inner, codes["init"], codes["task"], redraws, seed)
    else:
        joint, _ = inner.r2_joint(codes["init"], codes["task"])
        shares["init x task"] = inner.r2(np.arange(len(unit_NPd))) - joint
        result.omissions.append("There is one run per init and task: the share of init x task cannot be told from the noise of seeds.")
    return shares


def _decomposition(inner: Inner, codes: dict[str, np.ndarray], shares: dict[str, Share | float], result: Result) -> dict[str, dict]:
    """Rows of the table and their numbers; shares add up to 1 where the grid is balanced."""
    n, crossed = len(codes["init"]), cells(codes["init"], codes["task"])
    joint, joint_rank = inner.r2_joint(codes["init"], codes["task"])
    per_run, per_cell = inner.r2(np.arange(n)), inner.r2(crossed)
    position = inner.position()
    seeds, levels = n - len(np.unique(crossed)), {f: len(np.unique(c)) for f, c in codes.items()} | {"position": inner.length}
    freedom = {f: k - 1 for f, k in levels.items()} | {"init x task": len(np.unique(crossed)) - joint_rank, "seed": seeds, "residual": (n - 1) * (inner.length - 1)}
    values = {f: s.r2 if isinstance(s, Share) else s for f, s in shares.items()}
    values |= ({"seed": per_run - per_cell} if seeds else {}) | ({"residual": 1.0 - per_run - position} if inner.length > 1 else {})
    if abs(values["init"] + values["task"] - joint) > 1e-6:
        result.omissions.append("The grid of inits and tasks is not balanced: the shares of init and task overlap and do not add up.")
    rows = {}
    for factor, value in values.items():
        share = shares.get(factor)
        tested = isinstance(share, Share)
        p, (low, high) = (share.p, share.by_chance) if tested else (None, (None, None))
        rows[factor] = {
            "factor": factor, "df": freedom[factor], "r2": value, "omega2": omega2(value, inner.tokens, levels[factor]) if factor in levels else None,
            "chance_low": low, "chance_high": high, "effect": share.size if tested else None, "p": p, "runs": n, "tokens": inner.tokens,
        }  # fmt: skip
        name = factor.replace(" ", "_")
        result.number(f"r2.{name}", value, n, "runs", p=p)
        if factor in levels:
            result.number(f"omega2.{name}", rows[factor]["omega2"], n, "runs", p=p)
        if tested:
            result.number(f"effect.{name}", share.size, n, "runs", p=p)
    return rows


def _dispersions(
    unit_NPd: np.ndarray, codes: dict[str, np.ndarray], shares: dict[str, Share | float], redraws: int, seed: int, rows: dict[str, dict], result: Result
) -> None:
    """PERMDISP: do the groups differ in spread rather than in place? Distances to centroids, permuted like the shares."""
    n, length, _ = unit_NPd.shape
    for factor, share in shares.items():
        if factor == "init x task" or not isinstance(share, Share):
            continue
        if factor == "position":
            codes_NP = np.tile(np.arange(length), (n, 1))
            drawn_BNP = np.argsort(np.random.default_rng(seed).random((redraws, n, length)), axis=2)
        else:
            codes_NP = np.repeat(codes[factor][:, None], length, axis=1)
            drawn_BNP = np.repeat(codes[factor][orders_within(codes[OTHER[factor]], redraws, seed)][..., None], length, axis=2)
        distances_NP = centroid_distances(unit_NPd, codes_NP)
        f = float(f_ratio(distances_NP, codes_NP[None])[0])
        if np.isnan(f):
            result.omissions.append(f"All tokens lie equally far from the centroid of their {factor}: their spreads cannot be compared.")
            continue
        p = permutation_p(f, f_ratio(distances_NP, drawn_BNP))
        result.number(f"permdisp.{factor}", f, n, "runs", p=p)
        rows[factor] |= {"permdisp_f": f, "permdisp_p": p}
        says = f"The {factor}s differ in spread, so part of their difference may be one of spread" if p < LEVEL else f"No difference in spread between {factor}s was found"
        result.findings.append(Finding(f"{says} (PERMDISP F = {f:.2f}, p = {p:.2g}; n = {n} runs).", f, n, "runs", p=p))


def _beyond_p0(runs: RunTable, codes: dict[str, np.ndarray], redraws: int, seed: int, result: Result) -> None:
    try:
        initial_NPd = runs.prompts("initial")
    except (UserError, KeyError):
        result.omissions.append("These prompts come without P0: how much of the init's share P0 alone gives cannot be said.")
        return
    if assignments(codes["init"], codes["task"]) < 1.5:
        return
    n = len(runs)
    delta_NPd = runs.prompts() - initial_NPd
    orders_BN = orders_within(codes["task"], redraws, seed)
    null = reassigned_r2(initial_NPd, delta_NPd, codes["init"], codes["task"], orders_BN)
    observed = float(reassigned_r2(initial_NPd, delta_NPd, codes["init"], codes["task"], np.arange(n)[None])[0])
    low, high = (float(x) for x in np.percentile(null, [2.5, 97.5]))
    p, excess = permutation_p(observed, null), observed - float(null.mean())
    try:
        at_p0 = Inner.of(initial_NPd).r2(codes["init"])
        result.number("r2.init.at_p0", at_p0, n, "runs")
    except UserError as error:
        result.omissions.append(f"The init's share at P0 cannot be given: {error}.")
    result.number("r2.init.reassigned", float(null.mean()), n, "runs", low, high)
    result.number("r2.init.beyond_p0", excess, n, "runs", observed - high, observed - low, p)
    compared = f"R2 = {observed:.3f} against {null.mean():.3f} ({low:.3f} to {high:.3f}) with the deltas reassigned between inits, p = {p:.2g}; n = {n} runs"
    if p < LEVEL:
        sentence = f"The init's share exceeds what P0 alone gives: training added to each init in its own way ({compared})."
    else:
        sentence = f"The init's share does not detectably exceed what P0 alone gives ({compared})."
    result.findings.append(Finding(sentence, excess, n, "runs", observed - high, observed - low, p))


def _found(share: Share) -> str:
    low, high = share.by_chance
    return f"R2 = {share.r2:.3f}, by chance {low:.3f} to {high:.3f}, p = {share.p:.2g}"


def _finding(factor: str, share: Share, n: int, count: int, of: Of) -> Finding:
    what = "trained prompt tokens" if of == Of.prompt else "what training added to the tokens"
    if share.p < LEVEL:
        sentence = f"The {factor} explains {share.r2:.1%} of the variance of {what}, {share.size:.1%} beyond chance ({_found(share)}; n = {n} runs, {count} tokens)."
    else:
        sentence = f"The {factor} does not detectably explain more of the variance of {what} than chance does ({_found(share)}; n = {n} runs, {count} tokens)."
    return Finding(sentence, share.size, n, "runs", p=share.p)


def _testable(factor: str, codes: dict[str, np.ndarray]) -> bool:
    """Whether the permutations can give a p below LEVEL at all."""
    return factor not in OTHER or assignments(codes[factor], codes[OTHER[factor]]) * LEVEL >= 1


def _claims(shares: dict[str, Share | float], codes: dict[str, np.ndarray], n: int, result: Result) -> None:
    """Left out where no p could be small enough: too few runs say nothing against a claim."""
    for factor in OTHER:
        share = shares[factor]
        if isinstance(share, Share) and _testable(factor, codes):
            verdict = "explains more" if share.p < LEVEL else "does not detectably explain more"
            result.claims.append(Claim(f"{factor}_matters", share.p < LEVEL, f"The {factor} {verdict} of the variance than chance does: {_found(share)} (n = {n} runs)."))


def _figure(shares: dict[str, Share]) -> str:
    """Bars of effect sizes; what permutations give 95 % of the time in grey."""
    with panels(height=0.6 + 0.45 * max(len(shares), 1)) as (figure, axes):
        axis = axes[0, 0]
        for k, share in enumerate(shares.values()):
            low, high = (float(share.effect(x)) for x in share.by_chance)
            axis.barh(k, share.size, height=0.5, color=COLOURS[k])
            axis.barh(k, high - low, left=low, height=0.75, color="#777777", alpha=0.35, linewidth=0)
            axis.text(max(share.size, high, 0.0), k, f"  {share.size:.3f} (p = {share.p:.2g})", va="center", fontsize=8)
        axis.axvline(0.0, color="#777777", linewidth=0.8)
        axis.set_yticks(range(len(shares)), list(shares))
        axis.invert_yaxis()
        axis.margins(x=0.2)
        axis.grid(False, axis="y")
        axis.set_xlabel("share of variance beyond chance (grey: 95 % of permutations)")
        return svg(figure)
