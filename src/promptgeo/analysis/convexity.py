"""Do the prompts that solve a task form a convex set? Mixtures of trained prompts, edges between them, and controls, scored on test examples.

Study 1 (Promptmanteau) says so of single-token prompts, from two mixtures a task and no control.

Shapes: N runs, V vertices (the trained prompts of one task and prompt length), S scored prompts, M mixtures, T points of an edge, E test
examples, B bootstrap draws, P prompt tokens, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.groups import names_of
from promptgeo.analysis.mixtures import (
    barrier,
    dirichlet,
    displaced,
    lerp,
    mix,
    nearest,
    rescaled,
    slerp,
    some_pairs,
    triangle,
    verdict,
    violation,
)
from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.scoring import EvaluationSet, evaluation_sets, percent, points
from promptgeo.errors import UserError
from promptgeo.evaluation import evaluate
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable

CONTROLS = {
    "rescaled": "the nearest vertex at the mixture's norms",
    "displaced": "the nearest vertex moved as far in a random direction",
    "untrained": "the same mixtures of the untrained P0s",
    "across_tasks": "mixtures of different tasks' vertices",
}
NAMES = {"vertices": "vertices", "mixtures": "mixtures", "barycentre": "barycentre", "edges": "edges", "slerp": "slerp edges", "extrapolation": "beyond the ends",
         "rescaled": "vertex, rescaled", "displaced": "vertex, displaced", "untrained": "mixtures of P0s", "across_tasks": "across tasks"}  # fmt: skip


def convexity(
    runs: RunTable,
    *,
    lm: FrozenLM,
    mixtures: int = 200,
    alphas: Sequence[float] = (0.2, 1, 5),
    pairs: int | None = 6,
    steps: int = 11,
    controls: int = 40,
    resolution: int = 8,
    margin: float = 0.05,
    max_examples: int | None = 100,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, the trained prompts of all its runs (seeds and inits) are the vertices P_i.

    Numbers, per task: accuracies `vertices.<task>.min` / `.max` / `.mean`, `mixtures.<task>.` likewise, `unprompted.<task>`,
    `barycentre.<task>`, `edges.<task>` (inside), `extrapolation.<task>` ([-.5, 0) and (1, 1.5]), `slerp.<task>`, `dirichlet.<alpha>.<task>`;
    controls `<control>.<task>` and `difference.<control>.<task>` = mixtures - control on the same mixtures (across_tasks: on all):
    rescaled, displaced, untrained, across_tasks; `within.<task>`, share of mixtures at most `margin` below the worst vertex; in nats a label
    token `violation.<task>.mean` / `.max` of V(w) = L(sum w_i P_i) - max_i L(P_i) and `violated.<task>`, the share V(w) > 0;
    `barrier.<task>.mean` / `.max` over edges (linear barrier on [0, 1]) and `barrier.slerp.<task>.mean`; `difference.slerp.<task>` in accuracy.

    mixtures: random Dirichlet weights, split evenly over alphas. pairs: edges of a task, drawn by seed; null: all. steps: points of an edge on
    [0, 1], ends included. controls: mixtures that each control is made for. resolution: of the ternary map. margin: a fraction.
    max_examples: test examples of a task; null: all. What is left out is named.

    Intervals (95 %, percentile) draw trainings and test examples with replacement. Nearly every mixture holds a bit of a training that a draw
    has not got, so mixtures are not dropped but corrected: a training's effect is the least-squares coefficient of the scores on its weights,
    the linear part of the score (Hajek's projection), and a draw moves a mean by the effects of the trainings it has too often or not at all.
    Right for scores linear in the weights, wider than need be where they spread for other reasons, and somewhat narrow, as any bootstrap, with few
    trainings. The shares `within` and `violated` draw examples, and the trainings that the worst vertex is one of. Where nothing varies: Wilson's for
    as many examples, or for those shares trainings, as there are; of differences Newcombe's.

    Raises UserError where no task has two trained prompts of one length, or for prompts that were trained elsewhere.
    """
    if steps < 3 or mixtures < 1 or controls < 1 or not 0 <= margin < 1:
        raise UserError(f"convexity: needs steps >= 3, mixtures >= 1, controls >= 1 and a margin from 0 to below 1 (steps={steps}, mixtures={mixtures}, controls={controls}, margin={margin:g})")
    if not alphas or not all(0 < alpha < float("inf") for alpha in alphas):
        raise UserError(f"convexity: alphas={list(alphas)}: Dirichlet weights need one or more numbers above 0")
    result, generator = Result(), np.random.default_rng(seed)
    sets_N = evaluation_sets(runs, "convexity", max_examples, seed)
    hulls = _hulls(runs, sets_N, result)
    sampler = _TwoLevel(len(runs), [hull.members for hull in hulls], draws, seed)
    tables: dict[str, list[pd.DataFrame]] = {"prompts": [], "edges": [], "ternary": []}
    _name_what_is_drawn(result, hulls, mixtures, pairs, controls, max_examples, seed)
    for hull in progress(hulls, "hulls"):
        _lay_out(hull, hulls, runs, mixtures, alphas, pairs, steps, controls, resolution, generator)
        _score(lm, hull)
        _tell(result, hull, sampler, alphas, margin)
        for name, table in (("prompts", _prompt_table(hull)), ("edges", _edge_table(hull)), ("ternary", _ternary_table(hull))):
            tables[name].append(table)
    result.tables |= {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if any(len(part) for part in parts)}
    _judge(result, *({hull.name: hull.kinds[kind].accuracy.tolist() for hull in hulls} for kind in ("vertices", "mixtures")), margin)
    result.figures["accuracy"] = _strip_figure(result.tables["prompts"], hulls, margin)
    result.figures["edges"] = _edge_figure(result.tables["edges"], hulls)
    if "ternary" in result.tables:
        result.figures["ternary"] = _ternary_figure(result.tables["ternary"])
    return result


# What is scored.


@dataclass(eq=False)
class _Kind:
    """Prompts of one kind: where they come from and what they score."""

    prompts_SPd: np.ndarray
    weights_SN: np.ndarray
    """How much of each run is in each prompt."""
    correct_SE: np.ndarray = field(default_factory=lambda: np.empty(0))
    losses_SE: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def accuracy(self) -> np.ndarray:
        return self.correct_SE.mean(1)

    def values(self, what: str) -> np.ndarray:
        """[S, E]: accuracy or (summed) loss."""
        return self.losses_SE if what == "loss" else self.correct_SE

    def __len__(self) -> int:
        return len(self.prompts_SPd)


@dataclass(eq=False)
class _Hull:
    """One task's trained prompts of one length, and all that is scored of them."""

    name: str
    evaluation_set: EvaluationSet
    members: list[int]
    """Numbers of the runs."""
    vertices_VPd: np.ndarray
    p0_VPd: np.ndarray | None
    kinds: dict[str, _Kind] = field(default_factory=dict)
    edges: list[tuple[int, int]] = field(default_factory=list)
    t_T: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Of the points of an edge beside its ends, extrapolation included."""
    alpha_M: np.ndarray = field(default_factory=lambda: np.empty(0))
    tokens_E: np.ndarray = field(default_factory=lambda: np.empty(0))
    unprompted_E: np.ndarray = field(default_factory=lambda: np.empty(0))

    def losses(self, kind: str) -> np.ndarray:
        """[S] float64: mean cross-entropy of a label token, in nats."""
        return self.kinds[kind].losses_SE.sum(1) / self.tokens_E.sum()

    @property
    def inside_T(self) -> np.ndarray:
        return (self.t_T > 0) & (self.t_T < 1)


def _hulls(runs: RunTable, sets_N: list[EvaluationSet], result: Result) -> list[_Hull]:
    """A hull per task (and template) and prompt length that has two runs or more; the others are named."""
    prompts = [run.prompt() for run in runs.runs]
    groups: dict[tuple[EvaluationSet, int], list[int]] = {}
    for n, (evaluation_set, prompt_Pd) in enumerate(zip(sets_N, prompts, strict=True)):
        groups.setdefault((evaluation_set, len(prompt_Pd)), []).append(n)
    hulls = []
    for (evaluation_set, length), name in zip(groups, names_of(runs, list(groups.values())), strict=True):
        members = groups[evaluation_set, length]
        if len(members) < 2:
            result.omissions.append(f"convexity: {name} has one trained prompt of length {length}; a hull needs two or more.")
            continue
        known = all("initial" in runs.runs[n].tensors for n in members)
        p0_VPd = np.stack([runs.runs[n].prompt("initial") for n in members]) if known else None
        if p0_VPd is None:
            result.omissions.append(f"convexity: {name} has prompts without P0; mixtures of untrained prompts as a control are left out.")
        elif len(np.unique(p0_VPd.reshape(len(members), -1), axis=0)) == 1:
            result.omissions.append(f"convexity: all runs of {name} start from the same P0; their untrained hull is that single point.")
        hulls.append(_Hull(name, evaluation_set, members, np.stack([prompts[n] for n in members]), p0_VPd))
    if not hulls:
        raise UserError("convexity: no task has two or more trained prompts of the same length; train more seeds (-m seed=0,1,2,3)")
    if len({hull.evaluation_set.task.name for hull in hulls}) < 2:
        result.omissions.append("convexity: mixtures across tasks as a control need runs of two tasks with the same prompt length.")
    return hulls


def _lay_out(
    hull: _Hull, hulls: list[_Hull], runs: RunTable, mixtures: int, alphas: Sequence[float], pairs: int | None, steps: int, controls: int,
    resolution: int, generator: np.random.Generator,
) -> None:  # fmt: skip
    vertices_VPd, n = hull.vertices_VPd, len(hull.members)

    def kind(prompts_SPd: np.ndarray, weights_SV: np.ndarray) -> _Kind:
        weights_SN = np.zeros((len(weights_SV), len(runs)))
        weights_SN[:, hull.members] = weights_SV
        return _Kind(np.asarray(prompts_SPd, dtype=np.float32), weights_SN)

    def mixed(weights_SV: np.ndarray, points_VPd: np.ndarray = vertices_VPd) -> _Kind:
        return kind(mix(weights_SV, points_VPd), weights_SV)

    weights_MV, hull.alpha_M = dirichlet(n, alphas, mixtures, generator)
    hull.kinds = {"vertices": mixed(np.eye(n)), "mixtures": mixed(weights_MV), "barycentre": mixed(np.full((1, n), 1 / n))}
    hull.edges = some_pairs(n, pairs, generator)
    step = 1 / (steps - 1)
    beyond = np.arange(1, int(0.5 / step + 1e-9) + 1) * step
    hull.t_T = np.concatenate([-beyond[::-1], np.linspace(0, 1, steps)[1:-1], 1 + beyond])
    ends = [np.eye(n)[[a, b]] for a, b in hull.edges]
    hull.kinds["line"] = mixed(np.concatenate([lerp(*both, hull.t_T) for both in ends]))
    inside = hull.t_T[hull.inside_T]
    arcs = np.concatenate([slerp(vertices_VPd[a], vertices_VPd[b], inside) for a, b in hull.edges])
    hull.kinds["slerp"] = kind(arcs, np.concatenate([lerp(*both, inside) for both in ends]))

    chosen = _controlled(mixtures, controls)
    mixed_CPd = hull.kinds["mixtures"].prompts_SPd[chosen].astype(np.float64)
    base = [nearest(vertices_VPd, point) for point in mixed_CPd]
    for name, made in (("rescaled", rescaled), ("displaced", lambda vertex, point: displaced(vertex, point, generator))):
        hull.kinds[name] = kind([made(vertices_VPd[v], point) for v, point in zip(base, mixed_CPd, strict=True)], np.eye(n)[base])
    if hull.p0_VPd is not None:
        hull.kinds["untrained"] = mixed(weights_MV[chosen], hull.p0_VPd)
    if across := _across(hull, hulls, len(runs), controls, generator):
        hull.kinds["across_tasks"] = across
    if n >= 3 and resolution:
        grid = triangle(resolution)
        hull.kinds["ternary"] = mixed(np.concatenate([grid, np.zeros((len(grid), n - 3))], axis=1))


def _controlled(mixtures: int, controls: int) -> np.ndarray:
    """Which mixtures the controls are made for: evenly over all, hence over the alphas."""
    return np.unique(np.linspace(0, mixtures - 1, min(controls, mixtures)).astype(int))


def _across(hull: _Hull, hulls: list[_Hull], runs: int, n: int, generator: np.random.Generator) -> _Kind | None:
    """Dirichlet(1) mixtures of one vertex of every task; None where there is no other task of this prompt length."""
    length = hull.vertices_VPd.shape[1]
    met = [h for h in hulls if h is hull or (h.evaluation_set.task.name != hull.evaluation_set.task.name and h.vertices_VPd.shape[1] == length)]
    if len(met) < 2:
        return None
    weights_ST, _ = dirichlet(len(met), (1.0,), n, generator)
    weights_SN, prompts_SPd = np.zeros((n, runs)), np.zeros((n, *hull.vertices_VPd.shape[1:]))
    for t, other in enumerate(met):
        picked = generator.integers(0, len(other.members), n)
        weights_SN[np.arange(n), np.array(other.members)[picked]] = weights_ST[:, t]
        prompts_SPd += weights_ST[:, t, None, None] * other.vertices_VPd[picked]
    return _Kind(prompts_SPd.astype(np.float32), weights_SN)


def _score(lm: FrozenLM, hull: _Hull) -> None:
    """All prompts of a hull in one evaluation, and the model without a prompt."""
    prompts_SPd = np.concatenate([kind.prompts_SPd for kind in hull.kinds.values()])
    found = evaluate(lm, prompts_SPd, hull.evaluation_set.task, max_new_tokens=hull.evaluation_set.max_new_tokens)
    none = evaluate(lm, np.zeros((1, 0, lm.width), np.float32), hull.evaluation_set.task, max_new_tokens=hull.evaluation_set.max_new_tokens)
    hull.tokens_E, hull.unprompted_E = found.tokens, none.correct[0]
    start = 0
    for kind in hull.kinds.values():
        kind.correct_SE, kind.losses_SE = found.correct[start : start + len(kind)], found.losses[start : start + len(kind)]
        start += len(kind)
    # The line's two regions are told apart only now: they were scored together.
    line = hull.kinds.pop("line")
    inside_S = np.tile(hull.inside_T, len(hull.edges))
    for name, chosen_S in (("edges", inside_S), ("extrapolation", ~inside_S)):
        hull.kinds[name] = _Kind(line.prompts_SPd[chosen_S], line.weights_SN[chosen_S], line.correct_SE[chosen_S], line.losses_SE[chosen_S])


# Intervals.


class _TwoLevel:
    """Draws the trainings of each hull, and each task's test examples, with replacement; the same draws for all that is compared."""

    def __init__(self, runs: int, groups: list[list[int]], draws: int, seed: int):
        self._generator = np.random.default_rng(seed)
        self.counts_BN = np.ones((draws, runs))
        """How often each run is drawn."""
        for members in groups:
            self.counts_BN[:, members] = self._generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
        self._examples: dict[EvaluationSet, np.ndarray] = {}

    def examples(self, evaluation_set: EvaluationSet) -> np.ndarray:
        """[B, E] float64: how often each example is drawn."""
        if evaluation_set not in self._examples:
            self._examples[evaluation_set] = self._generator.multinomial(evaluation_set.n, np.full(evaluation_set.n, 1 / evaluation_set.n), size=len(self.counts_BN)).astype(np.float64)
        return self._examples[evaluation_set]

    def _shares(self, hull: _Hull, what: str) -> np.ndarray:
        """[B, E]: how much each example weighs in a mean."""
        drawn_BE = self.examples(hull.evaluation_set)
        return drawn_BE / ((drawn_BE @ hull.tokens_E)[:, None] if what == "loss" else hull.evaluation_set.n)

    def scores(self, hull: _Hull, kind: str, what: str, chosen: slice = slice(None)) -> np.ndarray:
        """[B, S]: each prompt's accuracy or loss on the drawn examples."""
        return self._shares(hull, what) @ hull.kinds[kind].values(what)[chosen].T

    def mean(self, hull: _Hull, kind: str, what: str, chosen: np.ndarray | slice = slice(None), effects_from: str | None = None) -> np.ndarray:
        """[B]: as means() of scores(), without holding B x S scores.

        effects_from: the kind to learn the trainings' effects from, where the prompts themselves are too few.
        """
        shares_BE, found = self._shares(hull, what), hull.kinds[kind]
        values_SE, weights_SN = found.values(what)[chosen], found.weights_SN[chosen]
        from_SE, from_SN = (hull.kinds[effects_from].values(what), hull.kinds[effects_from].weights_SN) if effects_from else (values_SE, weights_SN)
        used = np.flatnonzero(from_SN.any(0))
        effects_UE = np.linalg.pinv(from_SN[:, used]) @ from_SE
        return self._moved(shares_BE @ values_SE.mean(0), shares_BE @ effects_UE.T, weights_SN, used)

    def means(self, scores_BS: np.ndarray, weights_SN: np.ndarray) -> np.ndarray:
        """[B]: the mean score, moved by the effects of the trainings that a draw has too often or not at all."""
        used = np.flatnonzero(weights_SN.any(0))
        return self._moved(scores_BS.mean(1), scores_BS @ np.linalg.pinv(weights_SN[:, used]).T, weights_SN, used)

    def _moved(self, mean_B: np.ndarray, effects_BU: np.ndarray, weights_SN: np.ndarray, used: np.ndarray) -> np.ndarray:
        share_U = weights_SN[:, used].mean(0)
        centred_BU = effects_BU - (effects_BU @ share_U / share_U.sum())[:, None]
        return mean_B + ((self.counts_BN[:, used] - 1) * share_U * centred_BU).sum(1)


def _blocks(n: int) -> list[slice]:
    """So that draws x mixtures are never held at once."""
    return [slice(k, k + 256) for k in range(0, n, 256)]


def _interval(drawn_B: np.ndarray, value: float, n: int, least: float | None = 0.0, most: float | None = 1.0) -> tuple[float, float]:
    """95 % percentile interval, clipped to what the quantity can be; of a share that does not vary: Wilson's for n."""
    low, high = np.clip(np.percentile(drawn_B, [2.5, 97.5]), least, most)
    if least == 0.0 and most == 1.0 and high - low < 1e-9:
        return wilson(round(value * n), n)
    return float(low), float(high)


def _difference_interval(drawn_B: np.ndarray, first: float, second: float, n: int) -> tuple[float, float]:
    """95 % percentile interval of first - second; where it does not vary Newcombe's from the two of Wilson (Newcombe 1998, method 10)."""
    low, high = np.clip(np.percentile(drawn_B, [2.5, 97.5]), -1, 1)
    if high - low < 1e-9:
        (one_low, one_high), (other_low, other_high) = wilson(round(first * n), n), wilson(round(second * n), n)
        low = max(first - second - np.hypot(first - one_low, other_high - second), -1)
        high = min(first - second + np.hypot(one_high - first, second - other_low), 1)
    return float(low), float(high)


# What is told.


def _name_what_is_drawn(result: Result, hulls: list[_Hull], mixtures: int, pairs: int | None, controls: int, max_examples: int | None, seed: int) -> None:
    most = max(len(hull.members) * (len(hull.members) - 1) // 2 for hull in hulls)
    if pairs is not None and most > pairs:
        result.omissions.append(f"convexity: {pairs} of up to {most} edges of a task were scored, drawn by seed {seed} (pairs=null scores all).")
    if controls < mixtures:
        result.omissions.append(f"convexity: each control was made for {controls} of {mixtures} mixtures of a task, spread evenly over the alphas (controls={mixtures} makes it for all).")
    short = [evaluation_set for evaluation_set in dict.fromkeys(hull.evaluation_set for hull in hulls) if evaluation_set.n < evaluation_set.of]
    if short:
        names = ", ".join(f"{evaluation_set.task.name} ({evaluation_set.of})" for evaluation_set in short)
        result.omissions.append(f"convexity: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of {names} (max_examples=null scores all).")
    two = [hull.name for hull in hulls if len(hull.members) == 2]
    if two:
        result.omissions.append(f"convexity: two trainings hardly tell how trainings differ; the intervals of {', '.join(two)} are to be read as over test examples.")


def _tell(result: Result, hull: _Hull, sampler: _TwoLevel, alphas: Sequence[float], margin: float) -> None:
    name, n, v = hull.name, hull.evaluation_set.n, len(hull.members)
    correct = int(hull.unprompted_E.sum())
    result.number(f"unprompted.{name}", correct / n, n, "test examples", *wilson(correct, n))
    drawn = {kind: sampler.mean(hull, kind, "accuracy", effects_from="mixtures" if kind == "barycentre" else None) for kind in hull.kinds if kind != "ternary"}
    told = {}
    for kind, means_B in drawn.items():
        found = hull.kinds[kind].accuracy
        told[kind] = (float(found.mean()), *_interval(means_B, found.mean(), n))
        quantity = f"{kind}.{name}.mean" if kind in ("vertices", "mixtures") else f"{kind}.{name}"
        unit = {"vertices": (v, "trainings"), "mixtures": (len(found), "mixtures"), "barycentre": (n, "test examples")}.get(kind, (len(found), "prompts"))
        result.number(quantity, told[kind][0], *unit, *told[kind][1:])
    for kind in ("vertices", "mixtures"):
        found = hull.kinds[kind].accuracy
        for which, at in (("min", found.argmin()), ("max", found.argmax())):
            result.number(f"{kind}.{name}.{which}", found[at], n, "test examples", *wilson(int(hull.kinds[kind].correct_SE[at].sum()), n))
    for alpha in alphas:
        chosen = hull.alpha_M == alpha
        if chosen.any():
            value = float(hull.kinds["mixtures"].accuracy[chosen].mean())
            means_B = sampler.mean(hull, "mixtures", "accuracy", chosen, effects_from="mixtures")
            result.number(f"dirichlet.{alpha:g}.{name}", value, int(chosen.sum()), "mixtures", *_interval(means_B, value, n))
    worst_B = np.where(sampler.counts_BN[:, hull.members] > 0, sampler.scores(hull, "vertices", "accuracy"), np.inf).min(1)
    within_M = hull.kinds["mixtures"].accuracy >= hull.kinds["vertices"].accuracy.min() - margin - 1e-9
    held = (sampler.scores(hull, "mixtures", "accuracy", block) >= worst_B[:, None] - margin - 1e-9 for block in _blocks(len(within_M)))
    within_B = sum(block_BM.sum(1) for block_BM in held) / len(within_M)
    low, high = _interval(within_B, float(within_M.mean()), v)
    result.number(f"within.{name}", within_M.mean(), len(within_M), "mixtures", low, high)
    worst = hull.kinds["vertices"].accuracy.min()
    gap_B = drawn["mixtures"] - worst_B
    gap, low, high = told["mixtures"][0] - worst, *_interval(gap_B, 0, n, -1.0, 1.0)
    result.findings.append(
        Finding(
            f"{name}: mixtures of {v} trained prompts solve {percent(*told['mixtures'])} of the test examples, the prompts themselves {percent(*told['vertices'])}, "
            f"the worst of them {worst:.1%}; {int(within_M.sum())} of {len(within_M)} mixtures lie within {100 * margin:g} points of it or above "
            f"(without a prompt {correct / n:.1%}; n = {n} test examples).",
            gap, len(within_M), "mixtures", low, high,
        )
    )  # fmt: skip
    _tell_controls(result, hull, sampler, drawn, told)
    _tell_losses(result, hull, sampler)


def _tell_controls(result: Result, hull: _Hull, sampler: _TwoLevel, drawn: dict[str, np.ndarray], told: dict[str, Any]) -> None:
    """Each control against the mixtures it was made for, in the same draws."""
    everything = len(hull.kinds["mixtures"])
    for kind, words in CONTROLS.items():
        if kind not in hull.kinds:
            continue
        chosen = np.arange(everything) if kind == "across_tasks" else _controlled(everything, len(hull.kinds[kind]))
        mixed_B = sampler.mean(hull, "mixtures", "accuracy", chosen)
        mixed = float(hull.kinds["mixtures"].accuracy[chosen].mean())
        difference = mixed - told[kind][0]
        low, high = _difference_interval(mixed_B - drawn[kind], mixed, told[kind][0], hull.evaluation_set.n)
        result.number(f"difference.{kind}.{hull.name}", difference, len(chosen), "mixtures", low, high)
        verb = "solve more than" if low > 0 else "solve less than" if high < 0 else "cannot be told from"
        result.findings.append(
            Finding(f"{hull.name}: mixtures {verb} {words} ({percent(*told[kind])}): {points(difference, low, high)} (n = {len(chosen)} mixtures, {len(hull.kinds[kind])} controls, {hull.evaluation_set.n} test examples).",
                    difference, len(chosen), "mixtures", low, high)
        )  # fmt: skip
    arcs, lines = told["slerp"][0], told["edges"][0]
    result.number(f"difference.slerp.{hull.name}", arcs - lines, len(hull.edges), "edges", *_difference_interval(drawn["slerp"] - drawn["edges"], arcs, lines, hull.evaluation_set.n))


def _tell_losses(result: Result, hull: _Hull, sampler: _TwoLevel) -> None:
    name, vertices_BV = hull.name, sampler.scores(hull, "vertices", "loss")
    violations_M = violation(hull.losses("mixtures"), hull.losses("vertices"))
    drawn_BV = np.where(sampler.counts_BN[:, hull.members] > 0, vertices_BV, -np.inf)
    violated_B, largest_B = np.zeros(len(drawn_BV)), np.full(len(drawn_BV), -np.inf)
    for block in _blocks(len(violations_M)):
        violations_BM = violation(sampler.scores(hull, "mixtures", "loss", block), drawn_BV)
        violated_B += (violations_BM > 0).sum(1)
        largest_B = np.maximum(largest_B, violations_BM.max(1))
    mean, low, high = violations_M.mean(), *_interval(sampler.mean(hull, "mixtures", "loss") - drawn_BV.max(1), 0, 1, None, None)
    share = float((violations_M > 0).mean())
    share_low, share_high = _interval(violated_B / len(violations_M), share, len(hull.members))
    largest = int(violations_M.argmax())
    result.number(f"violation.{name}.mean", mean, len(violations_M), "mixtures", low, high)
    result.number(f"violation.{name}.max", violations_M[largest], len(violations_M), "mixtures", *_interval(largest_B, 0, 1, None, None))
    result.number(f"violated.{name}", share, len(violations_M), "mixtures", share_low, share_high)
    worse = f"no mixture's loss is above the worst vertex's (at most {violations_M[largest]:+.4f} nats a token)" if share == 0 else f"{(violations_M > 0).sum()} of {len(violations_M)} mixtures have a loss above the worst vertex's (by up to {violations_M[largest]:.4f} nats a token)"
    result.findings.append(Finding(f"{name}: {worse}; V(w) is {mean:+.4f} on average ({low:+.4f} to {high:+.4f}).", float(mean), len(violations_M), "mixtures", low, high))

    told = {}
    for way in ("edges", "slerp"):
        value_e, drawn_Be = _barriers(hull, hull.losses("vertices"), hull.losses(way)), _barriers(hull, vertices_BV, sampler.scores(hull, way, "loss"))
        ends_eN = np.stack([hull.kinds["vertices"].weights_SN[list(edge)].mean(0) for edge in hull.edges])
        told[way] = (value_e, *_interval(sampler.means(drawn_Be, ends_eN), 0, 1, 0.0, None))
        result.number(f"barrier.{name}.mean" if way == "edges" else f"barrier.slerp.{name}.mean", value_e.mean(), len(value_e), "edges", *told[way][1:])
        if way == "edges":
            result.number(f"barrier.{name}.max", value_e.max(), len(value_e), "edges", *_interval(drawn_Be.max(1), 0, 1, 0.0, None))
    (straight, low, high), (arc, arc_low, arc_high) = told["edges"], told["slerp"]
    result.findings.append(
        Finding(f"{name}: the barrier on a straight line between two solutions (how far the loss rises above the line between its ends', 0 where it does not) is {straight.mean():.3f} nats a token on average "
                f"({low:.3f} to {high:.3f}{'; no rise can be told' if low < 5e-4 else ''}), {straight.max():.3f} at most; on arcs of direction (slerp) {arc.mean():.3f} ({arc_low:.3f} to {arc_high:.3f}; n = {len(straight)} edges).", float(straight.mean()), len(straight), "edges", low, high)
    )  # fmt: skip


def _barriers(hull: _Hull, vertices: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """[..., edges]: the barrier of each edge, whose ends are vertices. vertices [..., V], inside [..., edges * T] are losses."""
    inside = inside.reshape(*inside.shape[:-1], len(hull.edges), -1)
    a, b = np.array(hull.edges).T
    t_T = np.concatenate([[0], hull.t_T[hull.inside_T], [1]])
    return barrier(np.concatenate([vertices[..., a, None], inside, vertices[..., b, None]], axis=-1), t_T)


def _judge(result: Result, vertices: dict[str, list[float]], mixtures: dict[str, list[float]], margin: float) -> None:
    """From accuracies by task."""
    found = verdict(vertices, mixtures, margin)
    within, of = sum(j.within for j in found.tasks.values()), sum(j.of for j in found.tasks.values())
    # Mixtures share their trainings: no more is known than there are trainings.
    trainings = sum(len(each) for each in vertices.values())
    chance = _chance(result, list(vertices))
    result.findings[:0] = [Finding(found.sentence, within / of, trainings, "trainings", *wilson(round(within / of * trainings), trainings)), *chance]
    result.claims.append(Claim("convex", found.holds, " ".join([found.sentence, *(each.sentence for each in chance)])))


def _chance(result: Result, names: list[str]) -> list[Finding]:
    """Whether being a mixture is what makes a prompt solve the task: against a vertex moved as far in a random direction."""
    told = {row["quantity"].removeprefix("difference.displaced."): row for row in result.numbers if row["quantity"].startswith("difference.displaced.")}
    if set(told) != set(names):
        return []
    more = [name for name in names if told[name]["low"] > 0]
    named = f" ({', '.join(more)})" if more else ""
    where = "there" if not more else "in the others"
    others = "" if len(more) == len(names) else f"; {where} the two cannot be told apart, and that mixtures solve the task says nothing of convexity"
    sentence = f"In {len(more)} of {len(names)} hulls{named} mixtures solve more than a vertex moved as far in a random direction{others}."
    return [Finding(sentence, len(more) / len(names), len(names), "hulls", *wilson(len(more), len(names)))]


# Tables and figures.


def _prompt_table(hull: _Hull) -> pd.DataFrame:
    """A row per scored prompt; `alpha` of the random mixtures."""
    parts = []
    for kind, found in hull.kinds.items():
        if kind != "ternary":
            loss = hull.losses(kind)
            alpha = hull.alpha_M if kind == "mixtures" else np.full(len(found), np.nan)
            norm = np.linalg.norm(found.prompts_SPd, axis=-1).mean(1)
            parts.append(pd.DataFrame({"task": hull.name, "kind": kind, "alpha": alpha, "accuracy": found.accuracy, "loss": loss, "norm": norm, "n": hull.evaluation_set.n}))
    return pd.concat(parts, ignore_index=True)


def _edge_table(hull: _Hull) -> pd.DataFrame:
    """A row per point of an edge, ends included; way: lerp or slerp."""
    inside, beyond = hull.t_T[hull.inside_T], hull.t_T[~hull.inside_T]
    rows = []
    sources = (("lerp", inside, "edges"), ("slerp", inside, "slerp"), ("lerp", beyond, "extrapolation"))
    for e, (a, b) in enumerate(hull.edges):
        both = {"task": hull.name, "start": hull.members[a], "end": hull.members[b]}
        for way, t_T, kind in sources:
            at = slice(e * len(t_T), (e + 1) * len(t_T))
            rows += [both | {"way": way, "t": t, "accuracy": x, "loss": y} for t, x, y in zip(t_T, hull.kinds[kind].accuracy[at], hull.losses(kind)[at], strict=True)]
        for way in ("lerp", "slerp"):
            rows += [both | {"way": way, "t": t, "accuracy": hull.kinds["vertices"].accuracy[v], "loss": hull.losses("vertices")[v]} for t, v in ((0.0, a), (1.0, b))]
    return pd.DataFrame(rows).sort_values(["task", "start", "end", "way", "t"], kind="stable", ignore_index=True)


def _ternary_table(hull: _Hull) -> pd.DataFrame:
    if "ternary" not in hull.kinds:
        return pd.DataFrame()
    found = hull.kinds["ternary"]
    weights = found.weights_SN[:, hull.members[:3]]
    return pd.DataFrame({"task": hull.name, "first": weights[:, 0], "second": weights[:, 1], "third": weights[:, 2], "accuracy": found.accuracy, "loss": hull.losses("ternary")})


def _strip_figure(prompts: pd.DataFrame, hulls: list[_Hull], margin: float) -> str:
    kinds = [kind for kind in NAMES if (prompts["kind"] == kind).any()]
    columns = min(len(hulls), 2)
    with panels(-(-len(hulls) // columns), columns, height=2.7, sharex=True, sharey=True) as (figure, axes):
        generator = np.random.default_rng(0)
        for axis, hull in zip(axes.flat, hulls, strict=False):
            for k, kind in enumerate(kinds):
                values = prompts.loc[(prompts["task"] == hull.name) & (prompts["kind"] == kind), "accuracy"].to_numpy()
                axis.scatter(values, len(kinds) - 1 - k + generator.uniform(-0.3, 0.3, len(values)), s=7, alpha=0.5, linewidths=0, color=COLOURS[k % len(COLOURS)])
            axis.axvline(hull.kinds["vertices"].accuracy.min() - margin, color="black", linewidth=0.8, linestyle="--")
            axis.axvline(hull.unprompted_E.mean(), color="#888888", linewidth=0.8, linestyle=":")
            axis.set(title=hull.name, xlim=(-0.02, 1.02), yticks=range(len(kinds)), yticklabels=[NAMES[kind] for kind in reversed(kinds)])
        _last_row(axes, len(hulls), "")
        figure.supxlabel(f"test accuracy (dashed: worst vertex less {100 * margin:g} points; dotted: no prompt)", fontsize=9)
        return svg(figure)


def _edge_figure(edges: pd.DataFrame, hulls: list[_Hull]) -> str:
    columns = min(len(hulls), 2)
    with panels(-(-len(hulls) // columns), columns, height=2.4, sharex=True) as (figure, axes):
        for axis, hull in zip(axes.flat, hulls, strict=False):
            for way, colour in (("lerp", COLOURS[0]), ("slerp", COLOURS[2])):
                rows = edges[(edges["task"] == hull.name) & (edges["way"] == way)].assign(t=lambda x: x["t"].round(9))
                band = rows.groupby("t")["loss"].agg(["mean", "min", "max"])
                axis.plot(band.index, band["mean"], color=colour, linewidth=1.3, label=f"{way}: mean and range over edges")
                axis.fill_between(band.index, band["min"], band["max"], color=colour, alpha=0.18, linewidth=0)
            for start, end in ((hull.t_T.min(), 0), (1, hull.t_T.max())):
                axis.axvspan(start, end, color="#bbbbbb", alpha=0.25, linewidth=0)
            axis.set(title=hull.name, ylabel="test loss, nats a token")
        _last_row(axes, len(hulls), "t (grey: extrapolation)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure)


def _ternary_figure(ternary: pd.DataFrame) -> str:
    tasks = list(dict.fromkeys(ternary["task"]))
    columns = min(len(tasks), 2)
    with panels(-(-len(tasks) // columns), columns, height=2.9) as (figure, axes):
        for axis, task in zip(axes.flat, tasks, strict=False):
            rows = ternary[ternary["task"] == task]
            x, y = rows["second"] + rows["third"] / 2, rows["third"] * np.sqrt(3) / 2
            shown = axis.tripcolor(x, y, rows["loss"], shading="gouraud", cmap="viridis")
            axis.set(title=f"{task}: three trainings", aspect="equal")
            axis.axis("off")
            figure.colorbar(shown, ax=axis, label="test loss, nats a token")
        _last_row(axes, len(tasks), "")
        return svg(figure)


def _last_row(axes: np.ndarray, used: int, label: str) -> None:
    for axis in axes.flat[used:]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel(label)
