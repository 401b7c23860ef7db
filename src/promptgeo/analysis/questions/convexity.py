"""Do the prompts that solve a task form a convex set?

Mixtures of trained prompts, edges between them, and controls, scored on test examples. Study 1 (Promptmanteau) says so
of single-token prompts, from two mixtures a task and no control.

Shapes: V vertices (the trained prompts of one task and prompt length), M mixtures, C mixtures that controls are made
for, e edges, T points of an edge, B bootstrap draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.geometry.hull_claim import Judged, judge, over_tasks
from promptgeo.analysis.geometry.hull_resampling import HullResampler, published_extremes
from promptgeo.analysis.geometry.hull_tables import (
    accuracy_figure,
    edge_figure,
    edge_table,
    prompt_table,
    ternary_figure,
    ternary_table,
)
from promptgeo.analysis.geometry.hulls import CONTROLS, PUBLISHED_HULLS, Design, Hull, make_prompts, score
from promptgeo.analysis.geometry.lowest_mixture import Lowest
from promptgeo.analysis.geometry.mixtures import barrier, violation
from promptgeo.analysis.geometry.verdict import ROUNDING
from promptgeo.analysis.groups import by_task, two_or_more
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import (
    bounded_interval,
    difference_interval,
    near_an_end,
    percentile_interval,
    share_interval,
    t_quantile,
    upper_of_few,
    wilson,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import percent, points, sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

VISIBLE_BARRIER = 5e-4
"""Nats a label token: less is written as 0.000, so no interval of a barrier ends below it."""


@question(lm=True, zero=("resolution",), claims=("convex",), factors=("prompt_length",))
def convexity(
    runs: RunTable,
    *,
    lm: LM,
    mixtures: int = 200,
    alphas: Sequence[float] = (0.2, 1, 5),
    pairs: int | None = 6,
    steps: int = 11,
    controls: int = 40,
    resolution: int = 8,
    margin: float = 0.05,
    few: Mapping[str, int] | None = None,
    max_examples: int | None = 100,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, the trained prompts of all its runs (seeds and inits) are the vertices P_i of a hull.

    Numbers, per task: accuracies `all.vertices.<task>.min` / `.max`, `vertices.<task>.mean`, `all.mixtures.<task>.min`
    / `.max` / `.mean`, `unprompted.<task>`, `initial.<task>` (P0s), `barycentre.<task>`, `edges.<task>` (between the
    ends), `extrapolation.<task>` ([-.5, 0) and (1, 1.5]), `slerp.<task>`, `dirichlet.<alpha>.<task>`. As study 1 drew
    them, two mixtures of `few` vertices: `vertices.<task>.min` / `.max`, `mixtures.<task>.min` / `.max` / `.mean`, each
    the mean over 25 such hulls with the interval that 95 % of them lie in. `lowest.<task>`: the lowest mixture less the
    worst vertex, with an interval for all at once (lowest_mixture.py); `within.<task>`, the share of mixtures at most
    `margin` below the worst vertex, as counted. Controls: `<control>.<task>` and `difference.<control>.<task>`,
    mixtures - control on the same mixtures (across_tasks: on all), for rescaled, displaced, untrained and across_tasks;
    `difference.slerp.<task>`, arcs - edges. In nats a label token: `violation.<task>.mean` / `.max` of V(w) =
    L(sum w_i P_i) - max_i L(P_i) and `violated.<task>`, the share with V(w) > 0; `barrier.<task>.mean` / `.max` over
    edges (linear barrier on [0, 1]) and `barrier.slerp.<task>.mean`. The claim: hull_claim.py.

    Intervals (95 %) draw trainings and test examples (hull_resampling.py); of `violation` examples alone; for the
    shares `within` and `violated` examples, and the trainings that the worst vertex is one of. Where nothing varies,
    and near 0 and 1: as wide as Clopper and Pearson's for as many examples, or for those shares and controls trainings,
    as there are; of differences as Newcombe's.

    Args:
        mixtures: of a task, with random Dirichlet weights.
        alphas: of these Dirichlet distributions; mixtures are split evenly over them.
        pairs: edges of a task, drawn by seed; null: all.
        steps: points of an edge on [0, 1], ends included.
        controls: mixtures that each control is made for.
        resolution: of the ternary map; 0: none.
        margin: how far below the worst vertex's accuracy a mixture may lie, a fraction.
        few: vertices of the hulls that are drawn as published, by task; of others two.
        max_examples: test examples of a task; null: all.
        draws: of trainings and test examples.
        seed: of all that is drawn.

    Raises UserError where no task has two trained prompts of one length, or for prompts that were trained elsewhere.
    """
    # Long because all its numbers and options are named here.
    _check(mixtures, alphas, steps, controls, margin)
    result, generator = Result(), np.random.default_rng(seed)
    design = Design(mixtures, alphas, pairs, steps, controls, resolution, few or {})
    hulls = _hulls(runs, max_examples, seed, result)
    resampler = HullResampler([hull.members for hull in hulls], len(runs), draws, seed)
    result.omissions += _omissions(hulls, design, max_examples, seed)
    judged: dict[str, Judged] = {}
    for hull in progress(hulls, "hulls"):
        make_prompts(hull, hulls, design, generator)
        score(lm, hull)
        judged[hull.name] = judge(hull, margin, draws, seed)
        _report(result, hull, resampler, alphas, margin, judged[hull.name].lowest)
    finding, claim = over_tasks(judged, margin)
    result.findings.insert(0, finding)
    result.claims.append(claim)
    _show(result, hulls, margin)
    return result


def _check(mixtures: int, alphas: Sequence[float], steps: int, controls: int, margin: float) -> None:
    if steps < 3 or mixtures < 1 or controls < 1 or not 0 <= margin < 1:
        raise UserError(
            "convexity: needs steps >= 3, mixtures >= 1, controls >= 1 and a margin from 0 to below 1 "
            f"(steps={steps}, mixtures={mixtures}, controls={controls}, margin={margin:g})"
        )
    if not alphas or not all(0 < alpha < float("inf") for alpha in alphas):
        raise UserError(f"convexity: alphas={list(alphas)}: Dirichlet weights need one or more numbers above 0")


def _hulls(runs: RunTable, max_examples: int | None, seed: int, result: Result) -> list[Hull]:
    """A hull of each task and prompt length that has two runs or more; the others are omissions."""
    groups = by_task(runs, "convexity", max_examples, seed)
    groups, result.omissions = two_or_more(groups, "convexity", "a hull needs two or more")
    hulls = []
    for group in groups:
        p0_VPd = group.initial()
        if p0_VPd is None:
            result.omissions.append(
                f"convexity: {group.name} has prompts without P0; mixtures of untrained prompts as a control are left "
                "out."
            )
        elif len(np.unique(p0_VPd.reshape(len(p0_VPd), -1), axis=0)) == 1:
            result.omissions.append(
                f"convexity: all runs of {group.name} start from the same P0; their untrained hull is that single "
                "point."
            )
        hulls.append(Hull(group.name, group.evaluation_set, len(runs), group.members, group.prompts(), p0_VPd))
    return hulls


def _omissions(hulls: Sequence[Hull], design: Design, max_examples: int | None, seed: int) -> list[str]:
    omissions = []
    if len({hull.evaluation_set.task.name for hull in hulls}) < 2:
        omissions.append(
            "convexity: mixtures across tasks as a control need runs of two tasks with the same prompt length."
        )
    most = max(len(hull.members) * (len(hull.members) - 1) // 2 for hull in hulls)
    if design.pairs is not None and most > design.pairs:
        omissions.append(
            f"convexity: {design.pairs} of up to {most} edges of a task were scored, drawn by seed {seed} "
            "(pairs=null scores all)."
        )
    if design.controls < design.mixtures:
        omissions.append(
            f"convexity: each control was made for {design.controls} of {design.mixtures} mixtures of a task, spread "
            f"evenly over the alphas (controls={design.mixtures} makes it for all)."
        )
    omissions += sampled_examples("convexity", [hull.evaluation_set for hull in hulls], max_examples, seed)
    if two := [hull.name for hull in hulls if len(hull.members) == 2]:
        omissions.append(f"convexity: two trainings hardly show how trainings differ: {', '.join(two)}.")
    return omissions


def _show(result: Result, hulls: Sequence[Hull], margin: float) -> None:
    """Tables and figures."""
    tables = {"prompts": [prompt_table(hull) for hull in hulls], "edges": [edge_table(hull) for hull in hulls]}
    if ternary := [ternary_table(hull) for hull in hulls if "ternary" in hull.kinds]:
        tables["ternary"] = ternary
    result.tables |= {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    result.figures["accuracy"] = accuracy_figure(result.tables["prompts"], hulls, margin)
    result.figures["edges"] = edge_figure(result.tables["edges"], hulls)
    if ternary:
        result.figures["ternary"] = ternary_figure(result.tables["ternary"])


# Accuracies.


@dataclass(frozen=True)
class _Mean:
    """The mean accuracy of prompts of one kind."""

    number: Number
    drawn_B: np.ndarray
    """In each draw of trainings and examples."""


def _report(
    result: Result, hull: Hull, resampler: HullResampler, alphas: Sequence[float], margin: float, lowest: Lowest
) -> None:
    """The numbers and findings of one hull."""
    n, correct = hull.evaluation_set.n, int(hull.unprompted_E.sum())
    unprompted = result.number(f"unprompted.{hull.name}", correct / n, n, "test examples", *wilson(correct, n))
    means = _report_means(result, hull, resampler)
    _report_extremes(result, hull)
    _report_alphas(result, hull, resampler, alphas)
    _report_published(result, hull, resampler)
    _report_worst_vertex(result, hull, resampler, means, unprompted, margin, lowest)
    _report_controls(result, hull, resampler, means)
    _report_violations(result, hull, resampler)
    _report_barriers(result, hull, resampler)


def _report_means(result: Result, hull: Hull, resampler: HullResampler) -> dict[str, _Mean]:
    """The mean accuracy of each kind of prompts."""
    n = hull.evaluation_set.n
    means: dict[str, _Mean] = {}
    for kind, scored in hull.kinds.items():
        if kind in ("ternary", "published"):  # a grid for a map; hulls that are reported one by one
            continue
        drawn_B = resampler.mean(hull, kind, "accuracy", effects_from="mixtures" if kind == "barycentre" else None)
        counted = {"vertices": "trainings", "mixtures": "mixtures"}
        count, unit = (n, "test examples") if kind == "barycentre" else (len(scored), counted.get(kind, "prompts"))
        names = {"vertices": f"vertices.{hull.name}.mean", "mixtures": f"all.mixtures.{hull.name}.mean"}
        quantity = names.get(kind, f"{kind}.{hull.name}")
        value = float(scored.accuracy.mean())
        # Controls made of trained prompts solve much or nothing by where these lie: no more is known than they are.
        made_of_trainings = kind in CONTROLS and kind != "untrained"
        units = len(hull.members) if made_of_trainings and near_an_end(value) else n
        means[kind] = _Mean(
            result.number(quantity, value, count, unit, *share_interval(drawn_B, value, units)), drawn_B
        )
    return means


def _report_extremes(result: Result, hull: Hull) -> None:
    """The worst and the best vertex and mixture."""
    n = hull.evaluation_set.n
    for kind in ("vertices", "mixtures"):
        scored = hull.kinds[kind]
        for which, at in (("min", scored.accuracy.argmin()), ("max", scored.accuracy.argmax())):
            interval = wilson(int(scored.correct_SE[at].sum()), n)
            result.number(f"all.{kind}.{hull.name}.{which}", scored.accuracy[at], n, "test examples", *interval)


def _report_published(result: Result, hull: Hull, resampler: HullResampler) -> None:
    """Extremes and means of two mixtures of few vertices: what the study's own stand beside."""
    vertices_1V = hull.kinds["vertices"].accuracy[None]
    mixtures_1HS = hull.kinds["published"].accuracy.reshape(1, PUBLISHED_HULLS, -1)
    every_H = np.arange(PUBLISHED_HULLS)
    counted = published_extremes(
        hull, vertices_1V.repeat(PUBLISHED_HULLS, 0), mixtures_1HS.repeat(PUBLISHED_HULLS, 0), every_H
    )
    for (kind, which), drawn_B in resampler.published(hull).items():
        value = float(counted[kind, which].mean())
        low, high = share_interval(drawn_B, value, hull.evaluation_set.n)
        result.number(
            f"{kind}.{hull.name}.{which}",
            value,
            PUBLISHED_HULLS,
            "hulls as published",
            min(low, value),
            max(high, value),
        )


def _report_alphas(result: Result, hull: Hull, resampler: HullResampler, alphas: Sequence[float]) -> None:
    """The mean accuracy of the mixtures of each alpha."""
    for alpha in alphas:
        chosen_M = hull.alpha_M == alpha
        if chosen_M.any():
            value = float(hull.kinds["mixtures"].accuracy[chosen_M].mean())
            drawn_B = resampler.mean(hull, "mixtures", "accuracy", chosen_M, effects_from="mixtures")
            interval = share_interval(drawn_B, value, hull.evaluation_set.n)
            result.number(f"dirichlet.{alpha:g}.{hull.name}", value, int(chosen_M.sum()), "mixtures", *interval)


def _report_worst_vertex(
    result: Result,
    hull: Hull,
    resampler: HullResampler,
    means: dict[str, _Mean],
    unprompted: Number,
    margin: float,
    lowest: Lowest,
) -> None:
    """Mixtures against the worst vertex, one by one."""
    n, trainings = hull.evaluation_set.n, len(hull.members)
    worst = hull.kinds["vertices"].accuracy.min()
    worst_B = resampler.vertex_scores(hull, "accuracy", np.inf).min(1)
    within_M = hull.kinds["mixtures"].accuracy >= worst - margin - ROUNDING
    least_B1 = worst_B[:, None] - margin - ROUNDING
    blocks = resampler.score_blocks(hull, "mixtures", "accuracy")
    within_B = np.sum([(block_BM >= least_B1).sum(1) for block_BM in blocks], axis=0) / len(within_M)
    interval = share_interval(within_B, float(within_M.mean()), trainings)
    result.number(f"within.{hull.name}", within_M.mean(), len(within_M), "mixtures", *interval)
    number = result.number(f"lowest.{hull.name}", lowest.value, n, "test examples", lowest.low, lowest.high)
    sentence = (
        f"{hull.name}: mixtures of {trainings} trained prompts solve {_percent(means['mixtures'].number)} of the test "
        f"examples, the prompts themselves {_percent(means['vertices'].number)}, the worst of them {worst:.1%}; the "
        f"lowest of {len(within_M)} mixtures lies {points(lowest.value, lowest.low, lowest.high)} from it, the "
        f"interval for all at once (without a prompt {unprompted.value:.1%}; n = {n} test examples)."
    )
    result.findings.append(Finding.of(number, sentence))


def _report_controls(result: Result, hull: Hull, resampler: HullResampler, means: dict[str, _Mean]) -> None:
    """Each control against the mixtures that it was made for, in the same draws; arcs against straight edges."""
    n, mixtures = hull.evaluation_set.n, hull.kinds["mixtures"]
    for kind, words in CONTROLS.items():
        if kind not in hull.kinds:
            continue
        control = means[kind]
        chosen = np.arange(len(mixtures)) if kind == "across_tasks" else hull.controlled_C
        mixed, mixed_B = float(mixtures.accuracy[chosen].mean()), resampler.mean(hull, "mixtures", "accuracy", chosen)
        low, high = difference_interval(
            mixed_B - control.drawn_B,
            mixed,
            share_interval(mixed_B, mixed, n),
            control.number.value,
            control.number.interval,
        )
        difference = result.number(
            f"difference.{kind}.{hull.name}", mixed - control.number.value, len(chosen), "mixtures", low, high
        )
        if low > 0:
            verb = "solve more than"
        elif high < 0:
            verb = "solve less than"
        else:
            verb = "show no detectable difference from"
        sentence = (
            f"{hull.name}: mixtures {verb} {words} ({_percent(control.number)}): {points(difference.value, low, high)} "
            f"(n = {len(chosen)} mixtures, {len(hull.kinds[kind])} controls, {n} test examples)."
        )
        result.findings.append(Finding.of(difference, sentence))
    arcs, lines = means["slerp"], means["edges"]
    arc, line = arcs.number, lines.number
    interval = difference_interval(arcs.drawn_B - lines.drawn_B, arc.value, arc.interval, line.value, line.interval)
    rise = arc.value - line.value
    result.number(f"difference.slerp.{hull.name}", rise, len(hull.edges), "edges", *interval)


def _percent(number: Number) -> str:
    return percent(number.value, *number.interval)


# Losses.


def _report_violations(result: Result, hull: Hull, resampler: HullResampler) -> None:
    """V(w) of the mixtures: how far their loss lies above the worst vertex's.

    The worst of these trainings is no sample of the worst of others: intervals of V are over test examples.
    """
    violations_M = violation(hull.losses("mixtures"), hull.losses("vertices"))
    vertices_BV = resampler.vertex_scores(hull, "loss", -np.inf)
    all_BV = resampler.scores(hull, "vertices", "loss")
    violated_B, largest_B = np.zeros(len(vertices_BV)), np.full(len(vertices_BV), -np.inf)
    sum_B = np.zeros(len(vertices_BV))
    for block_BM in resampler.score_blocks(hull, "mixtures", "loss"):
        violated_B += (violation(block_BM, vertices_BV) > 0).sum(1)
        violations_BM = violation(block_BM, all_BV)
        sum_B += violations_BM.sum(1)
        largest_B = np.maximum(largest_B, violations_BM.max(1))
    n, violated = len(violations_M), int((violations_M > 0).sum())
    mean_B = sum_B / n
    share = float((violations_M > 0).mean())
    mean = result.number(
        f"violation.{hull.name}.mean", violations_M.mean(), n, "mixtures", *percentile_interval(mean_B)
    )
    largest = result.number(
        f"violation.{hull.name}.max", violations_M.max(), n, "mixtures", *percentile_interval(largest_B)
    )
    # Mixtures share their trainings: of such a share no more is known than there are trainings.
    interval = share_interval(violated_B / n, share, len(hull.members))
    result.number(f"violated.{hull.name}", share, n, "mixtures", *interval)
    if violated:
        worse = f"{violated} of {n} mixtures have a loss above the worst vertex's"
        worse += f" (by up to {largest.value:.4f} nats a token)"
    else:
        worse = f"no mixture's loss is above the worst vertex's (at most {largest.value:+.4f} nats a token)"
    low, high = mean.interval
    sentence = f"{hull.name}: {worse}; V(w) is {mean.value:+.4f} on average ({low:+.4f} to {high:+.4f})."
    result.findings.append(Finding.of(mean, sentence))


def _report_barriers(result: Result, hull: Hull, resampler: HullResampler) -> None:
    """Barriers on straight edges and on arcs."""
    vertices_V, vertices_BV = hull.losses("vertices"), resampler.scores(hull, "vertices", "loss")
    ends_eN = np.stack([hull.kinds["vertices"].weights_SN[list(edge)].mean(0) for edge in hull.edges])

    def mean(quantity: str, barriers_e: np.ndarray, barriers_Be: np.ndarray) -> Number:
        # A maximum of losses that are drawn anew is higher than that of those that were measured: how far the draws
        # lie apart says how far off the mean may be, where they lie does not.
        value, error = float(barriers_e.mean()), float(resampler.means(barriers_Be, ends_eN).std())
        half = t_quantile(0.975, max(hull.evaluation_set.n - 1, 1)) * error
        high = max(value + half, upper_of_few(value, error), VISIBLE_BARRIER)
        return result.number(quantity, value, len(barriers_e), "edges", max(value - half, 0.0), high)

    lines_e = _barriers(hull, vertices_V, hull.losses("edges"))
    lines_Be = _barriers(hull, vertices_BV, resampler.scores(hull, "edges", "loss"))
    line = mean(f"barrier.{hull.name}.mean", lines_e, lines_Be)
    interval = bounded_interval(lines_Be.max(1), 0.0, None)
    highest = result.number(f"barrier.{hull.name}.max", lines_e.max(), len(lines_e), "edges", *interval)
    arcs_e = _barriers(hull, vertices_V, hull.losses("slerp"))
    arcs_Be = _barriers(hull, vertices_BV, resampler.scores(hull, "slerp", "loss"))
    arc = mean(f"barrier.slerp.{hull.name}.mean", arcs_e, arcs_Be)
    low, high = line.interval
    none = "; no detectable barrier" if low < VISIBLE_BARRIER else ""
    sentence = (
        f"{hull.name}: the barrier on a straight line between two solutions (how far the loss rises above the line "
        f"between its ends', 0 where it does not) is {line.value:.3f} nats a token on average ({low:.3f} to "
        f"{high:.3f}{none}), {highest.value:.3f} at most; on arcs of direction (slerp) {arc.value:.3f} "
        f"({arc.interval[0]:.3f} to {arc.interval[1]:.3f}; n = {line.n} edges)."
    )
    result.findings.append(Finding.of(line, sentence))


def _barriers(hull: Hull, vertices: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """[..., e]: the barrier of each edge, whose ends are vertices. vertices [..., V], inside [..., e * T]: losses."""
    inside = inside.reshape(*inside.shape[:-1], len(hull.edges), -1)
    a, b = np.array(hull.edges).T
    t_T = np.concatenate([[0], hull.t_T[hull.inside_T], [1]])
    return barrier(np.concatenate([vertices[..., a, None], inside, vertices[..., b, None]], axis=-1), t_T)
