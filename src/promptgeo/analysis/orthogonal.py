"""How many mutually orthogonal solutions does a task have? Prompts of runs that were pushed apart, and what their mixtures solve.

Study 1's open direction (1). N solutions count only if their mixtures solve the task too: else they are N separate points, not the corners of
one set. Runs of the same tasks that were not pushed apart are the control.

Shapes: N runs of a group, M mixtures, E test examples, B bootstrap draws, P prompt tokens, d width.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.groups import distinct, names_of, pushed_apart
from promptgeo.analysis.mixtures import dirichlet, mix
from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import token_pair_interval, wilson
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import EvaluationSet, evaluation_sets, percent
from promptgeo.analysis.subspaces import unit
from promptgeo.errors import UserError
from promptgeo.evaluation import evaluate
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_folder import Run
from promptgeo.run_table import RunTable

KINDS = ("worst", "vertices", "mixtures", "barycentre")
LABELS = {"worst": "worst prompt", "vertices": "prompts, mean", "mixtures": "mixtures, mean", "barycentre": "barycentre"}


def orthogonal(
    runs: RunTable,
    *,
    lm: FrozenLM,
    mixtures: int = 100,
    share: float = 0.9,
    apart: float = 0.1,
    max_examples: int | None = 100,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, for each group of N runs that were trained for one another (regulariser=orthogonal with N seeds).

    Accuracies `worst.<task>.n<N>` (of the worst prompt), `vertices...` (mean), `mixtures...` (mean over Dirichlet(1) mixtures) and
    `barycentre...`; `cosine...`, the mean |cosine| of P_i minus their barycentre over pairs of runs; `margin...`, how far the lowest
    of worst, mixtures and barycentre lies above the threshold; the same of as many unregularised runs as `unregularised.<name>`;
    `solutions.<task>`, the largest N that counts (0: none). Several weights of the regulariser: `.n<N>.w<weight>`; several groups of one N: means.

    N counts if worst, mixtures and barycentre reach the threshold, `share` of the mean accuracy of the unregularised runs (N = 1), and
    the mean |cosine| is at most 1 / (N - 1) + apart: N points minus their barycentre sum to zero, so that at best, as the corners of a regular
    simplex, every cosine is -1 / (N - 1). Two are such corners always. A regulariser of weight 0 is none.

    mixtures: of a group. max_examples: test examples of a task; null: all. Intervals (95 %) draw test examples with replacement, and whole
    groups where there are several of one N: they hold for these trainings, for runs of one group depend on each other. Where nothing
    varies: Wilson's. The interval of the cosine draws runs.

    Raises UserError where no task has two unregularised runs of one prompt length, or for prompts that were trained elsewhere.
    """
    if mixtures < 1 or not 0 < share <= 1 or apart < 0:
        raise UserError("orthogonal: needs mixtures >= 1, 0 < share <= 1 and apart >= 0")
    result, generator = Result(), np.random.default_rng(seed)
    families = list(_families(runs, evaluation_sets(runs, "orthogonal", max_examples, seed), result))
    if not families:
        raise UserError("orthogonal: no task has two unregularised runs of one prompt length to compare with; train some with regulariser=none (-m seed=0,1,2,3)")
    rows = []
    for family in progress(families, "tasks"):
        drawn_BE = generator.multinomial(family.evaluation_set.n, np.full(family.evaluation_set.n, 1 / family.evaluation_set.n), size=draws).astype(np.float64)
        family.score(lm, runs, mixtures, generator)
        _tell(result, family, drawn_BE, share, apart, generator)
        rows += family.rows(share, apart)
    result.tables["groups"] = pd.DataFrame(rows)
    result.figures["groups"] = _figure(result.tables["groups"])
    short = [f"{f.evaluation_set.task.name} ({f.evaluation_set.of})" for f in families if f.evaluation_set.n < f.evaluation_set.of]
    if short:
        result.omissions.append(f"orthogonal: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of {', '.join(dict.fromkeys(short))} (max_examples=null scores all).")
    return result


# Which runs belong together.


@dataclass(eq=False)
class Group:
    """Runs that stand beside each other, and what they score."""

    members: list[int]
    weight: float
    """Of the regulariser; 0: the control."""
    init: str
    vertices_VE: np.ndarray
    """[N, E] bool: what each prompt solves."""
    mixtures_ME: np.ndarray
    barycentre_E: np.ndarray
    cosine: float
    """Mean |cosine| about the barycentre."""
    cosine_interval: tuple[float, float]

    @property
    def size(self) -> int:
        return len(self.members)

    def accuracies(self, drawn_BE: np.ndarray) -> dict[str, np.ndarray]:
        """[B] of each kind, in each draw of test examples."""
        weights_BE = drawn_BE / drawn_BE.sum(1, keepdims=True)
        vertices_BV = weights_BE @ self.vertices_VE.T
        return {"worst": vertices_BV.min(1), "vertices": vertices_BV.mean(1), "mixtures": weights_BE @ self.mixtures_ME.mean(0), "barycentre": weights_BE @ self.barycentre_E}


@dataclass(eq=False)
class _Family:
    """The runs of one task and prompt length: those without a regulariser, and the groups that were pushed apart."""

    name: str
    evaluation_set: EvaluationSet
    free: list[int]
    coupled: list[list[int]]
    reference_VE: np.ndarray | None = None
    """[free, E] bool: what the unregularised prompts solve."""
    groups: list[Group] | None = None

    def score(self, lm: FrozenLM, runs: RunTable, mixtures: int, generator: np.random.Generator) -> None:
        sizes = sorted({len(members) for members in self.coupled}) or [len(self.free)]
        controls = [members for size in sizes if (members := self._control(runs, size))]
        free_VPd = np.stack([runs.runs[n].prompt() for n in self.free])
        self.reference_VE = evaluate(lm, free_VPd, self.evaluation_set.task, max_new_tokens=self.evaluation_set.max_new_tokens).correct
        self.groups = [_scored(lm, runs, members, self.evaluation_set, mixtures, generator) for members in (*controls, *self.coupled)]

    def _control(self, runs: RunTable, size: int) -> list[int]:
        """So many unregularised runs: of the seeds and inits of the first group of that size as far as they are there. Empty where they are too few."""
        like = next((members for members in self.coupled if len(members) == size), [])
        wanted = {_who(runs.runs[n]) for n in like}
        return sorted(sorted(self.free, key=lambda n: _who(runs.runs[n]) not in wanted)[:size]) if len(self.free) >= size else []

    def of(self, size: int, weight: float) -> list[Group]:
        return [group for group in self.groups if (group.size, group.weight) == (size, weight)]

    def rows(self, share: float, apart: float) -> list[dict[str, Any]]:
        threshold, everything_1E = share * self.reference_VE.mean(), np.ones((1, self.evaluation_set.n))
        return [
            {"task": self.name, "N": g.size, "weight": g.weight, "init": g.init}
            | {kind: float(x[0]) for kind, x in g.accuracies(everything_1E).items()}
            | {"lowest_mixture": g.mixtures_ME.mean(1).min(), "cosine": g.cosine, "simplex": 1 / (g.size - 1), "threshold": threshold}
            | {"counts": not _lacking(g, threshold, apart), "n": self.evaluation_set.n}
            for g in self.groups
        ]


def _who(run: Run) -> tuple[str, int]:
    return run.info["config"]["init"]["name"], run.info["config"]["seed"]


def _families(runs: RunTable, sets_N: Sequence[EvaluationSet], result: Result) -> Iterator[_Family]:
    found: dict[tuple[EvaluationSet, int], list[int]] = {}
    for n, evaluation_set in enumerate(sets_N):
        found.setdefault((evaluation_set, len(runs.runs[n].prompt())), []).append(n)
    for (evaluation_set, _), name, members in zip(found, names_of(runs, list(found.values())), found.values(), strict=True):
        free = distinct(runs, [n for n in members if not pushed_apart(runs.runs[n])])
        if len(free) < 2:
            result.omissions.append(f"orthogonal: {name} has {len(free)} unregularised runs to compare with; two are needed.")
            continue
        coupled = list(_coupled(runs, [n for n in members if pushed_apart(runs.runs[n])], name, result))
        if not coupled:
            result.omissions.append(f"orthogonal: {name} has no runs that were pushed apart (regulariser=orthogonal); its unregularised runs are told alone.")
        for size in sorted({len(group) for group in coupled}):
            if size > len(free):
                result.omissions.append(f"orthogonal: {name} has {len(free)} unregularised runs; a control for N = {size} needs as many.")
        yield _Family(name, evaluation_set, free, coupled)


def _coupled(runs: RunTable, members: Sequence[int], name: str, result: Result) -> Iterator[list[int]]:
    """Groups of runs whose configs differ in their seed alone; those that are not all there are named."""
    groups: dict[str, list[int]] = {}
    for n in members:
        config = runs.runs[n].info["config"]
        same = {key: config.get(key) for key in ("model", "init", "template", "optimizer", "regulariser", "prompt", "training")}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(n)
    for group in groups.values():
        seeds = list(runs.runs[group[0]].info["config"]["regulariser"]["seeds"])
        if sorted(seeds) != sorted(runs.runs[n].info["config"]["seed"] for n in group):
            result.omissions.append(f"orthogonal: {name} has {len(group)} of the {len(seeds)} runs that were coupled; such a group is left out.")
            continue
        yield group


def _scored(lm: FrozenLM, runs: RunTable, members: list[int], evaluation_set: EvaluationSet, mixtures: int, generator: np.random.Generator) -> Group:
    size, first = len(members), runs.runs[members[0]]
    vertices = np.stack([runs.runs[n].prompt() for n in members])
    weights_MV, _ = dirichlet(size, (1.0,), mixtures, generator)
    points = np.concatenate([vertices, mix(weights_MV, vertices), vertices.mean(0, keepdims=True)]).astype(np.float32)
    correct = evaluate(lm, points, evaluation_set.task, max_new_tokens=evaluation_set.max_new_tokens).correct.astype(np.float64)
    cosines, interval = cosines_about_barycentre(vertices)
    return Group(members, pushed_apart(first), str(first.info["config"]["init"]["name"]), correct[:size], correct[size:-1], correct[-1], cosines, interval)


def cosines_about_barycentre(vertices: np.ndarray) -> tuple[float, tuple[float, float]]:
    """(mean over pairs of |cosine| of P_i minus their barycentre, its 95 % interval, runs drawn with replacement). vertices: [N, ...], N >= 2.

    A prompt that lies at the barycentre has no direction: its cosines count as 1, the farthest from orthogonal.
    """
    centred = vertices.astype(np.float64) - vertices.mean(0, dtype=np.float64)
    flat = centred.reshape(len(vertices), -1)
    there = np.linalg.norm(flat, axis=1) > 1e-9 * np.linalg.norm(vertices)
    apart_VD = np.zeros_like(flat)
    apart_VD[there] = unit(flat[there])
    cosines_VV = np.where(np.outer(there, there), np.abs(apart_VD @ apart_VD.T), 1.0)
    pairs_VV = ~np.eye(len(vertices), dtype=bool)
    return float(cosines_VV[pairs_VV].mean()), token_pair_interval(cosines_VV, np.arange(len(vertices)), pairs_VV)


# What is told.


def _lacking(group: Group, threshold: float, apart: float) -> list[str]:
    """What keeps a group from counting."""
    found = group.accuracies(np.ones((1, group.vertices_VE.shape[1])))
    lacking = [LABELS[kind] for kind in ("worst", "mixtures", "barycentre") if found[kind][0] < threshold - 1e-9]
    return lacking + (["directions"] if group.cosine > 1 / (group.size - 1) + apart else [])


def _tell(result: Result, family: _Family, drawn_BE: np.ndarray, share: float, apart: float, generator: np.random.Generator) -> None:
    name, n = family.name, family.evaluation_set.n
    reference = family.reference_VE.mean()
    reference_B = (drawn_BE @ family.reference_VE.T).mean(1) / n
    result.number(f"unregularised.{name}", reference, len(family.free), "runs", *_interval(reference_B, reference, n))
    weights = sorted({g.weight for g in family.groups if g.weight})
    counting: dict[float, dict[int, np.ndarray]] = {weight: {} for weight in weights}
    before = len(result.findings)
    for size, weight in sorted({(g.size, g.weight) for g in family.groups}):
        suffix = f"n{size}" + (f".w{weight:g}" if weight and len(weights) > 1 else "")
        counts_B = _tell_group(result, family, family.of(size, weight), suffix, drawn_BE, share * reference, share * reference_B, generator, share, apart)
        if weight:
            counting[weight][size] = counts_B
    told = [_tell_most(result, family, counts, f".w{weight:g}" if len(weights) > 1 else "", share, reference) for weight, counts in counting.items()]
    result.findings[before:before] = told


def _tell_group(
    result: Result, family: _Family, groups: list[Group], suffix: str, drawn_BE: np.ndarray, threshold: float, threshold_B: np.ndarray,
    generator: np.random.Generator, share: float, apart: float,
) -> np.ndarray:  # fmt: skip
    """Numbers and a finding of the groups of one N. Returns whether it counts: [1 + B], as it is and in each draw of test examples."""
    name, n, size, control = family.name, family.evaluation_set.n, groups[0].size, groups[0].weight == 0
    counts_BG = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=len(drawn_BE)) / len(groups)
    value = {kind: float(np.mean([g.accuracies(np.ones((1, n)))[kind][0] for g in groups])) for kind in KINDS}
    each = [g.accuracies(drawn_BE) for g in groups]
    drawn = {kind: (counts_BG * np.stack([found[kind] for found in each], axis=1)).sum(1) for kind in KINDS}
    cosine = float(np.mean([g.cosine for g in groups]))
    low, high = np.mean([g.cosine_interval for g in groups], axis=0)
    margin = min(value[kind] for kind in ("worst", "mixtures", "barycentre")) - threshold
    margin_B = np.minimum.reduce([drawn[kind] for kind in ("worst", "mixtures", "barycentre")]) - threshold_B

    prefix = "unregularised." if control else ""
    for kind in KINDS:
        result.number(f"{prefix}{kind}.{name}.{suffix}", value[kind], n, "test examples", *_interval(drawn[kind], value[kind], n))
    result.number(f"{prefix}cosine.{name}.{suffix}", cosine, size * (size - 1) // 2, "pairs of runs", float(low), float(high))
    interval = _margin_interval(margin_B, margin, threshold, n)
    result.number(f"{prefix}margin.{name}.{suffix}", margin, n, "test examples", *interval)

    lacking = list(dict.fromkeys(what for g in groups for what in _lacking(g, threshold, apart)))
    what = f"{size} unregularised solutions" if control else f"N = {size} solutions pushed apart{f' (weight {groups[0].weight:g})' if suffix.count('.') else ''}"
    verdict = "count" if not lacking else f"do not count for their {' and '.join(lacking)}"
    sure = "" if interval[0] > 0 or interval[1] < 0 else ", which test examples alone could turn"
    result.findings.append(
        Finding(
            f"{name}: {what} {verdict}: their worst prompt solves {percent(value['worst'], *_interval(drawn['worst'], value['worst'], n))}, "
            f"their mixtures {percent(value['mixtures'], *_interval(drawn['mixtures'], value['mixtures'], n))}, "
            f"their barycentre {percent(value['barycentre'], *_interval(drawn['barycentre'], value['barycentre'], n))}, the lowest "
            f"{100 * margin:+.1f} points from the threshold ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}; {100 * share:g} % of the unregularised accuracy){sure}; "
            f"mean |cosine| about the barycentre {cosine:.3f}, of a regular simplex {1 / (size - 1):.3f} (n = {n} test examples, {len(groups)} group{'s' if len(groups) > 1 else ''}).",
            margin, n, "test examples", *interval,
        )
    )  # fmt: skip
    directions = all("directions" not in _lacking(g, threshold, apart) for g in groups)
    return np.concatenate([[not lacking], (margin_B >= -1e-9) & directions])


def _tell_most(result: Result, family: _Family, counts: dict[int, np.ndarray], suffix: str, share: float, reference: float) -> Finding:
    """The largest N that counts, as far as N was tried. counts: of each N, [1 + B]."""
    tried = sorted(counts)
    most, *drawn_B = np.max([np.where(counts[size], size, 0) for size in tried], axis=0).tolist()
    low, high = (float(bound) for bound in np.percentile(drawn_B, [2.5, 97.5], method="nearest"))
    n = family.evaluation_set.n
    result.number(f"solutions.{family.name}{suffix}", most, n, "test examples", low, high)
    above, gaps = [size for size in tried if size > most], [size for size in tried if size < most and not counts[size][0]]
    trained = f"of N = {', '.join(map(str, tried))} trained{f' with weight {suffix[2:]}' if suffix else ''}"
    found = (
        f"no number of mutually orthogonal solutions counts, {trained}" if not most
        else f"{most} mutually orthogonal solutions fit and {above[0]} do not, {trained}" if above
        else f"{most} mutually orthogonal solutions fit, and more were not tried, {trained}"
    )  # fmt: skip
    odd = f", though {', '.join(map(str, gaps))} did not" if gaps else ""
    sentence = f"{family.name}: {found}{odd} ({low:g} to {high:g}; N counts if its worst prompt, mixtures and barycentre solve {100 * share:g} % of what unregularised prompts solve, {reference:.1%}; n = {n} test examples)."
    return Finding(sentence, most, n, "test examples", low, high)


def _interval(drawn_B: np.ndarray, value: float, n: int) -> tuple[float, float]:
    """95 % percentile interval of an accuracy; where it does not vary: Wilson's."""
    low, high = np.percentile(drawn_B, [2.5, 97.5])
    return wilson(round(value * n), n) if high - low < 1e-9 else (float(low), float(high))


def _margin_interval(drawn_B: np.ndarray, margin: float, threshold: float, n: int) -> tuple[float, float]:
    low, high = np.percentile(drawn_B, [2.5, 97.5])
    if high - low > 1e-9:
        return float(low), float(high)
    low, high = wilson(round((margin + threshold) * n), n)
    return low - threshold, high - threshold


def _figure(table: pd.DataFrame) -> str:
    tasks = list(dict.fromkeys(table["task"]))
    columns = min(len(tasks), 2)
    with panels(-(-len(tasks) // columns), columns, height=2.6, sharey=True) as (figure, axes):
        for axis, task in zip(axes.flat, tasks, strict=False):
            for k, kind in enumerate(("worst", "mixtures", "barycentre")):
                for weight, rows in table[table["task"] == task].groupby(table["weight"] > 0):
                    means = rows.groupby("N")[kind].mean()
                    style = {"linestyle": "-", "marker": "o"} if weight else {"linestyle": ":", "marker": "x"}
                    axis.plot(means.index, means, color=COLOURS[k], markersize=4, linewidth=1.2, label=f"{LABELS[kind]}{'' if weight else ', unregularised'}", **style)
            axis.axhline(table.loc[table["task"] == task, "threshold"].iloc[0], color="black", linewidth=0.8, linestyle="--")
            axis.set(title=task, xticks=sorted(set(table["N"])), xlabel="N solutions (dashed: threshold)", ylabel="test accuracy", ylim=(-0.02, 1.02))
        for axis in axes.flat[len(tasks) :]:
            axis.set_visible(False)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure)
