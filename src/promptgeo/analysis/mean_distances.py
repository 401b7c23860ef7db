"""How far apart do prompt tokens lie that share an init, a task or a position?

Study 3 took means over all pairs, self-pairs and pairs within one run among them (paper); such pairs say nothing about what runs share,
and are left out (corrected).

Shapes: N runs, P prompt tokens, d width, K = N * P, B bootstrap draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.question import Convention, Of
from promptgeo.analysis.resampling import pair_means, run_weights
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.vectors import (
    Tokens,
    cosine_distances,
    l2_distances,
    order_of_appearance,
    require_levels,
    tokens,
)
from promptgeo.analysis.vocabulary import Vocabulary
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable

METRICS = {"cosine": "cosine", "l2": "L2"}
SUBJECTS = {Of.prompt: "Prompt tokens", Of.delta: "Deltas of prompt tokens"}
PANELS = {"position": "position", "task": "table2", "init": "table1"}
LINES = {"all_pairs": (":", "all pairs"), "random_vocabulary": ("--", "random vocabulary tokens")}
LEAST_RUNS = 3
"""For an interval: two runs make one pair, whose mean is the same in every draw."""
ALONE = {"same_init": "same_init_other_task", "same_task": "same_task_other_init", "neither": "neither", "same_both": "same_both"}
"""What the cells of the 2 x 2 table are called where they are split by position."""
CONTRASTS = {
    Convention.corrected: {
        "init_closer": ("same_init", "same_task", "the same init", "the same task"),
        "position_closer": ("neither.equal_position", "same_task_other_init.other_position", "only the position in common", "only the task in common"),
        "init_gain": ("same_init", "neither", "the same init", "another init and task"),
        "task_gain": ("same_task", "neither", "the same task", "another init and task"),
    },
    Convention.paper: {
        "init_closer": ("table1.mean", "table2.mean", "the same init", "the same task"),
        "position_closer": ("position.mean", "table2.mean", "the same position", "the same task"),
    },
}  # fmt: skip
"""Which two means a finding compares, and what their pairs have in common. A number `difference.<name>` is the second less the first."""


def without_self(mean: float, tokens: int) -> float:
    """The mean distance over pairs of different tokens, from the mean over all tokens^2 pairs, self-pairs (distance 0) among them."""
    if tokens < 2:
        raise ValueError("one token has no pairs without itself")
    return mean * tokens / (tokens - 1)


def mean_distances(
    runs: RunTable,
    *,
    of: Of = Of.prompt,
    convention: Convention = Convention.corrected,
    vocabulary: Vocabulary | None = None,
    metrics: Sequence[str] = ("cosine", "l2"),
    sample: int = 1000,
    draws: int = 500,
    seed: int = 0,
) -> Result:
    """Mean distances of tokens that share an init (`table1.<init>`), a task (`table2.<task>`) or a position, and the 2 x 2 table.

    paper: all ordered pairs, self-pairs and same-run pairs in. corrected: unique pairs of tokens of different runs; numbers that end in
    `.no_self` leave only the self-pairs out. Numbers of another metric than cosine begin with its name (`l2.table1.<init>`). Intervals:
    `draws` bootstrap draws of whole runs (of whole tokens for the vocabulary); findings are about the first metric.
    metrics: cosine, l2. sample: so many random vocabulary tokens make the vocabulary's line (prompts only).
    Raises UserError for fewer than 2 inits or tasks, mixed shapes, deltas without P0, a vector of length 0, an unknown metric.
    """
    of, convention = Of(of), Convention(convention)
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise UserError(f"mean_distances.metrics={','.join(map(str, unknown))}: must be some of {', '.join(METRICS)}")
    for option, given, least in (("sample", sample, 2), ("draws", draws, 100)):
        if given < least:
            raise UserError(f"mean_distances.{option}={given}: at least {least} are needed")
    require_levels(runs, {"init": 2, "task": 2}, "mean_distances")
    points = tokens(runs, of)
    weights_BN = run_weights(len(runs), draws, seed)
    result, table, two_by_two = Result(), [], []
    for metric in metrics:
        means = _Means(_token_distances(points, metric), runs.table, convention, weights_BN)
        if of == Of.prompt and vocabulary is not None:
            means.found["random_vocabulary"] = _random_vocabulary(vocabulary, metric, convention, sample, draws, seed)
        for name, mean in means.found.items():
            result.number(_named(metric, name), mean.value, mean.n, mean.unit, *mean.interval)
        table += means.rows(metric)
        two_by_two += means.two_by_two(metric)
        result.figures[metric] = _figure(means, metric, of)
        differences = _differences(means, metric, of, len(runs), convention)
        for name, finding in differences.items():
            result.number(_named(metric, f"difference.{name}"), finding.estimate, finding.n, finding.unit, finding.low, finding.high)
        if metric == metrics[0]:
            result.findings += list(differences.values())
            if "init_closer" in differences:
                found = differences["init_closer"]
                result.claims.append(Claim("init_closer", found.low > 0, found.sentence))
            result.omissions += _omissions(means, differences, convention)
    if of == Of.prompt and vocabulary is None:
        result.omissions.append("No random-vocabulary line: it needs the frozen model's embeddings.")
    result.tables |= {"mean_distances": pd.DataFrame(table), "two_by_two": pd.DataFrame(two_by_two)}
    return result


def _named(metric: str, name: str) -> str:
    return name if metric == "cosine" else f"{metric}.{name}"


def _token_distances(points: Tokens, metric: str) -> np.ndarray:
    """[N, P, N, P] float64."""
    n = int(points.table["run"].max()) + 1
    distances_KK = cosine_distances(points.unit_Kd) if metric == "cosine" else l2_distances(points.vectors_Kd)
    return distances_KK.reshape(n, len(points) // n, n, -1)


@dataclass(frozen=True)
class _Pairs:
    """Ordered pairs of tokens, summed up by the runs that they belong to."""

    sum_NN: np.ndarray
    """Of their distances."""
    each: int
    """How many there are for each ordered pair of runs."""
    own: int
    """How many of a run's pairs with itself are self-pairs."""


@dataclass(frozen=True)
class _Mean:
    """A mean distance over some pairs of tokens."""

    value: float
    n: int
    unit: str
    draws_B: np.ndarray
    """Its bootstrap draws, NaN where a draw has no such pair."""
    runs: int
    """How many runs its pairs rest on."""

    @property
    def interval(self) -> tuple[float, float] | tuple[None, None]:
        return _interval(self.draws_B, self.runs)


def _interval(draws_B: np.ndarray, runs: int) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval; none where the pairs rest on too few runs."""
    draws_B = draws_B[~np.isnan(draws_B)]
    if runs < LEAST_RUNS or not len(draws_B):
        return None, None
    low, high = np.percentile(draws_B, [2.5, 97.5])
    return float(low), float(high)


@dataclass
class _Means:
    """All means of one metric by name, and the names of those that no pair supports."""

    distances_NPNP: np.ndarray
    table: pd.DataFrame
    """The runs' tasks and inits."""
    convention: Convention
    weights_BN: np.ndarray
    found: dict[str, _Mean] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        length = self.distances_NPNP.shape[1]
        at_PNN = np.einsum("ipjp->pij", self.distances_NPNP)
        all_NN, equal_NN = self.distances_NPNP.sum((1, 3)), at_PNN.sum(0)
        self.pairs = {
            "all": _Pairs(all_NN, length**2, length),
            "equal": _Pairs(equal_NN, length, length),
            "other": _Pairs(all_NN - equal_NN, length**2 - length, 0),
            **{position: _Pairs(at_PNN[position], 1, 1) for position in range(length)},
        }
        paper = self.convention == Convention.paper
        self._tables("", "in" if paper else "out")
        if not paper:
            self._tables(".no_self", "no_self")
        self._add_group("position", {p: (None, p) for p in range(length)}, "", "in" if paper else "out")
        self._cells("in" if paper else "out")

    def _tables(self, suffix: str, within: str) -> None:
        for table, factor in (("table1", "init"), ("table2", "task")):
            levels_N = self.table[factor].to_numpy()
            masks = {level: (np.outer(levels_N == level, levels_N == level), "all") for level in order_of_appearance(levels_N)}
            self._add_group(table, masks, suffix, within)
        self._add(f"all_pairs{suffix}", None, "all", within)

    def _add_group(self, group: str, members: dict, suffix: str, within: str) -> None:
        """A mean per level, and the mean of these means."""
        names = [f"{group}.{level}{suffix}" for level in members]
        for name, (mask_NN, where) in zip(names, members.values(), strict=True):
            self._add(name, mask_NN, where, within)
        means = [self.found[name] for name in names if name in self.found]
        if means:
            draws_B = _mean_ignoring_nan(np.stack([mean.draws_B for mean in means]))
            value, n = float(np.mean([mean.value for mean in means])), sum(mean.n for mean in means)
            self.found[f"{group}.mean{suffix}"] = _Mean(value, n, means[0].unit, draws_B, sum(mean.runs for mean in means))
        else:
            self.missing.append(f"{group}.mean{suffix}")

    def _cells(self, within: str) -> None:
        """Same or different init by same or different task, over all positions and split by equal and other position."""
        same_init_NN, same_task_NN = (_same(self.table[factor]) for factor in ("init", "task"))
        masks = {
            "same_init": same_init_NN & ~same_task_NN,
            "same_task": same_task_NN & ~same_init_NN,
            "neither": ~same_init_NN & ~same_task_NN,
            "same_both": same_init_NN & same_task_NN,
        }
        for cell, mask_NN in masks.items():
            self._add(cell, mask_NN, "all", within)
            for where in ("equal", "other"):
                self._add(f"{ALONE[cell]}.{where}_position", mask_NN, where, within)

    def _add(self, name: str, mask_NN: np.ndarray | None, where: str | int, within: str) -> None:
        mean = _mean(self.pairs[where], mask_NN, within, self.weights_BN)
        if mean is None:
            self.missing.append(name)
        else:
            self.found[name] = mean

    def rows(self, metric: str) -> Iterator[dict]:
        for name, mean in self.found.items():
            low, high = mean.interval
            yield {"metric": metric, "quantity": name, "mean": mean.value, "low": low, "high": high, "n": mean.n, "unit": mean.unit}

    def two_by_two(self, metric: str) -> Iterator[dict]:
        for cell, alone in ALONE.items():
            names = {"all": cell, "equal": f"{alone}.equal_position", "other": f"{alone}.other_position"}
            same = {"same_init": cell in ("same_init", "same_both"), "same_task": cell in ("same_task", "same_both")}
            for position, name in names.items():
                if name in self.found:
                    mean = self.found[name]
                    low, high = mean.interval
                    yield {"metric": metric, **same, "position": position, "mean": mean.value, "low": low, "high": high, "n": mean.n, "unit": mean.unit}

    def levels(self, group: str) -> dict[str, _Mean]:
        """The bars of a panel: the means per level of `table1`, `table2` or `position`."""
        chosen = {name.removeprefix(f"{group}."): mean for name, mean in self.found.items() if name.startswith(f"{group}.")}
        return {level: mean for level, mean in chosen.items() if level != "mean" and not level.endswith(".no_self")}


def _mean(pairs: _Pairs, mask_NN: np.ndarray | None, within: str, weights_BN: np.ndarray) -> _Mean | None:
    """The mean over the pairs of tokens of the masked pairs of runs; None where there are none.

    within: pairs within a run are in, in but for self-pairs (no_self), or out.
    """
    mask_NN = np.ones(pairs.sum_NN.shape, dtype=bool) if mask_NN is None else mask_NN
    sum_NN, count_NN = np.where(mask_NN, pairs.sum_NN, 0.0), np.where(mask_NN, float(pairs.each), 0.0)
    diagonal = np.diag_indices(len(sum_NN))
    if within == "out":
        sum_NN[diagonal] = count_NN[diagonal] = 0.0
    elif within == "no_self":
        count_NN[diagonal] -= pairs.own * mask_NN[diagonal]
    total = int(count_NN.sum())
    if not total:
        return None
    n, unit = (total, "ordered pairs") if within == "in" else (total // 2, "pairs")
    linked = np.count_nonzero(count_NN.any(axis=1))
    return _Mean(float(sum_NN.sum()) / total, n, unit, pair_means(weights_BN, sum_NN, count_NN), linked)


def _mean_ignoring_nan(draws_LB: np.ndarray) -> np.ndarray:
    """[B]: the mean over L levels of those that a draw has; NaN where it has none."""
    given_LB = ~np.isnan(draws_LB)
    sums_B, counts_B = np.where(given_LB, draws_LB, 0.0).sum(0), given_LB.sum(0)
    return np.divide(sums_B, counts_B, out=np.full(len(sums_B), np.nan), where=counts_B > 0)


def _same(column: pd.Series) -> np.ndarray:
    levels_N = column.to_numpy()
    return levels_N[:, None] == levels_N


def _random_vocabulary(vocabulary: Vocabulary, metric: str, convention: Convention, sample: int, draws: int, seed: int) -> _Mean:
    """The mean distance between random vocabulary tokens: what no structure looks like."""
    rows_Sd = vocabulary.embeddings_Vd[vocabulary.sample(sample, seed)]
    norms_S1 = np.linalg.norm(rows_Sd, axis=1, keepdims=True)
    unit_Sd = rows_Sd / np.where(norms_S1 > 0, norms_S1, 1.0)
    distances_SS = cosine_distances(unit_Sd) if metric == "cosine" else l2_distances(rows_Sd)
    within = "in" if convention == Convention.paper else "out"
    mean = _mean(_Pairs(distances_SS, 1, 1), None, within, run_weights(len(rows_Sd), draws, seed))
    return replace(mean, unit=f"{mean.unit} of {len(rows_Sd)} vocabulary tokens")


def _differences(means: _Means, metric: str, of: Of, runs: int, convention: Convention) -> dict[str, Finding]:
    """A finding per contrast for which both means and an interval exist."""
    findings = {}
    for name, (first, second, shared, instead) in CONTRASTS[convention].items():
        if first not in means.found or second not in means.found:
            continue
        closer, other = means.found[first], means.found[second]
        low, high = _interval(other.draws_B - closer.draws_B, min(closer.runs, other.runs))
        if low is None:
            continue
        difference = other.value - closer.value
        verdict = "closer" if low > 0 else "farther apart" if high < 0 else "no closer"
        which = "of different runs lie" if convention == Convention.corrected else "lie, self-pairs and same-run pairs counted,"
        sentence = (
            f"{SUBJECTS[of]} {which} {verdict} with {shared} than with {instead}: mean {METRICS[metric]} distance {closer.value:.3f} against "
            f"{other.value:.3f}, difference {difference:.3f} ({low:.3f} to {high:.3f}; n = {closer.n} and {other.n} {closer.unit} in {runs} runs)."
        )
        findings[name] = Finding(sentence, difference, closer.n + other.n, closer.unit, low, high)
    return findings


def _omissions(means: _Means, differences: dict[str, Finding], convention: Convention) -> list[str]:
    found = []
    others = means.missing
    if "same_both" in others:
        found.append("Pairs of runs with the same init and the same task (same_both): there are none, they need several seeds.")
        others = [name for name in others if not name.startswith("same_both")]
    if others:
        found.append(f"Without a pair of tokens, so without a number: {', '.join(others)}.")
    alone = [name for name, mean in means.found.items() if mean.interval[0] is None]
    if alone:
        found.append(f"Too few runs for an interval: {', '.join(alone)}.")
    absent = [name for name in CONTRASTS[convention] if name not in differences]
    if absent:
        found.append(f"Too few runs for a comparison: {', '.join(absent)}.")
    return found


def _figure(means: _Means, metric: str, of: Of) -> str:
    """Bars for the levels of position, task and init, with 95 % intervals; lines: all pairs, random vocabulary tokens."""
    with panels(1, 3, height=3.0, sharey=True) as (figure, axes):
        for axis, (factor, group), colour in zip(axes[0], PANELS.items(), COLOURS, strict=False):
            bars = means.levels(group)
            axis.bar(range(len(bars)), [mean.value for mean in bars.values()], color=colour, width=0.75)
            for x, mean in enumerate(bars.values()):
                if mean.interval[0] is not None:
                    axis.vlines(x, *mean.interval, color="#333333", linewidth=1)
            for name, (style, label) in LINES.items():
                if name in means.found:
                    axis.axhline(means.found[name].value, color="#333333", linestyle=style, linewidth=1, label=label)
            axis.set_xticks(range(len(bars)), list(bars), rotation=0 if factor == "position" else 90, fontsize=7)
            axis.set_title(f"same {factor}", fontsize=9)
            axis.grid(axis="x", visible=False)
        axes[0, 0].set_ylabel(f"mean {METRICS[metric]} distance" + ("" if of == Of.prompt else " of deltas"))
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure)
