"""How far apart do prompt tokens lie that share an init, a task or a position?

Study 3 took means over all pairs, self-pairs and pairs within one run among them (paper). Such pairs do not depend on
what runs share, and are left out (corrected).

Shapes: N runs, P prompt tokens, d width, S sampled vocabulary tokens, B draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.crossed import Error, LeaveOuts
from promptgeo.analysis.deciding import LEVEL, Premise, decided, learned
from promptgeo.analysis.figures import COLOURS, estimates, panels, svg
from promptgeo.analysis.geometry.distance_means import PairMean, PairSums, Within, mean_of_means, pair_mean
from promptgeo.analysis.geometry.how_far import NO_P0, OTHER, Control, Moved, cell_orders, least_p, too_few
from promptgeo.analysis.geometry.tokens import (
    Tokens,
    cosine_distances,
    l2_distances,
    mean_l2_distances,
    order_of_appearance,
    require_levels,
    tokens,
)
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.question import Convention, Of, question
from promptgeo.analysis.resampling import permutation_p
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

METRICS = {"cosine": "cosine", "l2": "L2"}
SUBJECTS = {Of.prompt: "Prompt tokens", Of.delta: "Deltas of prompt tokens"}
TABLES = {"table1": "init", "table2": "task"}
"""Study 3's tables and the factor that their pairs share."""
PANELS = {"position": "position", "task": "table2", "init": "table1"}


# Which pairs enter a mean.


@dataclass(frozen=True)
class Level:
    """Pairs with the same init (group table1), task (table2) or position; level None: the mean of the levels' means."""

    group: str
    level: Any = None
    no_self: bool = False
    """Whether pairs within a run are in, but for self-pairs."""

    @property
    def name(self) -> str:
        return f"{self.group}.{'mean' if self.level is None else self.level}{'.no_self' if self.no_self else ''}"


@dataclass(frozen=True)
class Cell:
    """A cell of the 2 x 2 table: pairs of runs by init and task, at all, equal or other positions."""

    same_init: bool
    same_task: bool
    positions: str = "all"

    @property
    def name(self) -> str:
        if self.same_init == self.same_task:
            pairs = "same_both" if self.same_init else "neither"
            return pairs if self.positions == "all" else f"{pairs}.{self.positions}_position"
        same, other = ("init", "task") if self.same_init else ("task", "init")
        return f"same_{same}" if self.positions == "all" else f"same_{same}_other_{other}.{self.positions}_position"


@dataclass(frozen=True)
class Overall:
    """All pairs of prompt tokens, or of random vocabulary tokens."""

    pairs: str
    no_self: bool = False

    @property
    def name(self) -> str:
        return f"{self.pairs}{'.no_self' if self.no_self else ''}"


Key = Level | Cell | Overall
ALL_PAIRS, RANDOM = Overall("all_pairs"), Overall("random_vocabulary")
LINES = {ALL_PAIRS: (":", "all pairs"), RANDOM: ("--", "random vocabulary tokens")}


@dataclass(frozen=True)
class Contrast:
    """Two means that a finding compares. Its number `difference.<name>` is the second less the first."""

    name: str
    first: Key
    second: Key
    shared: str
    """What the first one's pairs have in common."""
    instead: str
    """What the second one's pairs have in common."""
    exchanged: str = ""
    """The factor whose levels whole cells exchange, within the other factor, for a p; "": by Student's t."""


SAME_INIT, SAME_TASK, NEITHER = Cell(True, False), Cell(False, True), Cell(False, False)
CONTROLLED = "task_gain"
"""The contrast that tasks can have by moving their prompts differently far."""
CONTRASTS = {
    Convention.corrected: (
        Contrast("init_closer", SAME_INIT, SAME_TASK, "the same init", "the same task"),
        Contrast(
            "position_closer",
            replace(NEITHER, positions="equal"),
            replace(SAME_TASK, positions="other"),
            "only the position in common",
            "only the task in common",
        ),
        Contrast("init_gain", SAME_INIT, NEITHER, "the same init", "another init and task", "init"),
        Contrast("task_gain", SAME_TASK, NEITHER, "the same task", "another init and task", "task"),
    ),
    Convention.paper: (
        Contrast("init_closer", Level("table1"), Level("table2"), "the same init", "the same task"),
        Contrast("position_closer", Level("position"), Level("table2"), "the same position", "the same task"),
    ),
}


@question(of=True, convention=True, vocabulary=True, claims=("init_closer",))
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
    """Mean distances of tokens that share an init (`table1.<init>`), a task (`table2.<task>`) or a position.

    Also the 2 x 2 table same / different init by task. paper: all ordered pairs, self-pairs and same-run pairs in.
    corrected: unique pairs of tokens of different runs; numbers that end in `.no_self` leave only the self-pairs out.
    Numbers of another metric than cosine begin with its name (`l2.table1.<init>`). Intervals: over inits and tasks
    (crossed.py; over tokens for the vocabulary).

    `difference.<contrast>`: how much farther apart the other pairs lie. p of `init_gain` and `task_gain`: whole cells
    exchange inits within a task, tasks within an init; of others: Student's t. `.task_gain.how_far`: where tasks only
    differ in how far they move prompts (how_far.py); the same task is called closer only beyond that.

    Args:
        metrics: cosine, l2; findings and the claim are about the first.
        sample: random vocabulary tokens that make the vocabulary's line (prompts only).
        draws: random exchanges for each p.
        seed: of the draws and the sample.

    Raises UserError for fewer than 2 inits or tasks, mixed shapes, deltas without P0, a vector of length 0, an unknown
    metric.
    """
    # Long because its numbers and options are named here.
    of, convention = Of(of), Convention(convention)
    _check(metrics, {"sample": (sample, 2), "draws": (draws, 100)})
    require_levels(runs, {"init": 2, "task": 2}, "mean_distances")
    points = tokens(runs, of)
    left_out, moved, result = LeaveOuts(runs.table["init"], runs.table["task"]), Moved.of(runs, of), Result()
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    for metric in metrics:
        means = _means(_token_distances(points, metric), runs.table, convention, left_out)
        if of == Of.prompt and vocabulary is not None:
            means[RANDOM] = _random_vocabulary(vocabulary, metric, convention, sample, seed)
        present = {key: mean for key, mean in means.items() if mean is not None}
        numbers = {
            key: result.number(_named(metric, key.name), mean.value, mean.n, mean.unit, *mean.interval)
            for key, mean in present.items()
        }
        rows += [{"metric": metric, "quantity": key.name} | _row(number) for key, number in numbers.items()]
        cells += [_cell_row(metric, key, number) for key, number in numbers.items() if isinstance(key, Cell)]
        result.figures[metric] = _figure(numbers, {key: mean.of_pairs_M for key, mean in present.items()}, metric, of)
        compared = _differences(result, present, points, metric, convention, (draws, seed), moved)
        if metric == metrics[0]:
            findings = {c.contrast.name: c.finding(of, metric, moved, len(runs)) for c in compared}
            result.findings += findings.values()
            result.claims += _claims(compared, findings, runs)
            result.omissions += _omissions(means, findings, convention)
    if of == Of.prompt and vocabulary is None:
        result.omissions.append("No random-vocabulary line: it needs the frozen model's embeddings.")
    result.tables |= {"mean_distances": pd.DataFrame(rows), "two_by_two": pd.DataFrame(cells)}
    return result


def _check(metrics: Sequence[str], least: dict[str, tuple[int, int]]) -> None:
    """Raises UserError for an unknown metric, or an option below its least: least={"draws": (given, least)}."""
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise UserError(f"mean_distances.metrics={','.join(map(str, unknown))}: must be some of {', '.join(METRICS)}")
    for option, (given, wanted) in least.items():
        if given < wanted:
            raise UserError(f"mean_distances.{option}={given}: at least {wanted} are needed")


def _named(metric: str, name: str) -> str:
    return name if metric == "cosine" else f"{metric}.{name}"


def _row(number: Number) -> dict[str, Any]:
    return {"mean": number.value, "low": number.low, "high": number.high, "n": number.n, "unit": number.unit}


def _cell_row(metric: str, cell: Cell, number: Number) -> dict[str, Any]:
    where = {"same_init": cell.same_init, "same_task": cell.same_task, "position": cell.positions}
    return {"metric": metric} | where | _row(number)


# Means.


def _token_distances(points: Tokens, metric: str) -> np.ndarray:
    """[N, P, N, P] float64."""
    distances_KK = cosine_distances(points.unit_Kd) if metric == "cosine" else l2_distances(points.vectors_Kd)
    return distances_KK.reshape(points.runs, points.length, points.runs, points.length)


def _means(
    distances_NPNP: np.ndarray, table: pd.DataFrame, convention: Convention, left_out: LeaveOuts
) -> dict[Key, PairMean | None]:
    """All means of one metric; None where there is no such pair. table: the runs' tasks and inits."""
    length = distances_NPNP.shape[1]
    at_PNN = np.einsum("ipjp->pij", distances_NPNP)
    all_NN, equal_NN = distances_NPNP.sum((1, 3)), at_PNN.sum(0)
    all_pairs = PairSums(all_NN, length**2, length)
    within = Within.all if convention == Convention.paper else Within.none
    means: dict[Key, PairMean | None] = {}
    for no_self in (False,) if convention == Convention.paper else (False, True):
        counted = Within.different if no_self else within
        for group, factor in TABLES.items():
            levels_N = table[factor].to_numpy()
            means |= _with_mean(
                {
                    Level(group, level, no_self): pair_mean(
                        all_pairs, np.outer(levels_N == level, levels_N == level), counted, left_out
                    )
                    for level in order_of_appearance(levels_N)
                }
            )
        means[replace(ALL_PAIRS, no_self=no_self)] = pair_mean(all_pairs, None, counted, left_out)
    at = {p: PairSums(at_PNN[p], 1, 1) for p in range(length)}
    means |= _with_mean({Level("position", p): pair_mean(at[p], None, within, left_out) for p in range(length)})
    positions = {
        "all": all_pairs,
        "equal": PairSums(equal_NN, length, length),
        "other": PairSums(all_NN - equal_NN, length**2 - length, 0),
    }
    for cell, mask_NN in _cell_masks(table).items():
        for where, pairs in positions.items():
            means[replace(cell, positions=where)] = pair_mean(pairs, mask_NN, within, left_out)
    return means


def _with_mean(levels: Mapping[Level, PairMean | None]) -> dict[Key, PairMean | None]:
    """The levels' means, and the mean of those that there are."""
    (whole,) = {replace(key, level=None) for key in levels}
    means: dict[Key, PairMean | None] = dict(levels.items())
    means[whole] = mean_of_means([mean for mean in levels.values() if mean is not None])
    return means


def _cell_masks(table: pd.DataFrame) -> dict[Cell, np.ndarray]:
    """[N, N] bool each: same or different init by same or different task."""
    inits_N, tasks_N = table["init"].to_numpy(), table["task"].to_numpy()
    same_init_NN, same_task_NN = inits_N[:, None] == inits_N, tasks_N[:, None] == tasks_N
    return {
        SAME_INIT: same_init_NN & ~same_task_NN,
        SAME_TASK: same_task_NN & ~same_init_NN,
        NEITHER: ~same_init_NN & ~same_task_NN,
        Cell(True, True): same_init_NN & same_task_NN,
    }


def _random_vocabulary(
    vocabulary: Vocabulary, metric: str, convention: Convention, sample: int, seed: int
) -> PairMean | None:
    """The mean distance between random vocabulary tokens: that of tokens without any structure."""
    rows_Sd = vocabulary.embeddings_Vd[vocabulary.sample(sample, seed)]
    norms_S1 = np.linalg.norm(rows_Sd, axis=1, keepdims=True)
    unit_Sd = rows_Sd / np.where(norms_S1 > 0, norms_S1, 1.0)
    distances_SS = cosine_distances(unit_Sd) if metric == "cosine" else l2_distances(rows_Sd)
    within = Within.all if convention == Convention.paper else Within.none
    mean = pair_mean(PairSums(distances_SS, 1, 1), None, within, LeaveOuts(np.arange(len(rows_Sd))))
    return mean and replace(mean, unit=f"{mean.unit} of {len(rows_Sd)} vocabulary tokens")


# What follows from them.


@dataclass(frozen=True)
class _Compared:
    """A contrast as these runs have it."""

    contrast: Contrast
    closer: PairMean
    other: PairMean
    error: Error
    number: Number
    control: Control | None = None
    """Of CONTROLLED: what it is by how far tasks move."""
    too_few: str = ""
    """Why no p could be small, in words."""

    @property
    def beyond_how_far(self) -> bool:
        """Whether it is more than how far tasks move can make it."""
        return self.control is not None and self.control.beyond(self.number.value)

    def verdict(self) -> str:
        """closer, farther apart or not: by interval and p, and for the task beyond how far tasks move."""
        (low, high), p = self.number.interval, self.number.p
        if self.too_few:
            return f"not testably closer ({self.too_few})"
        if p is None or p >= LEVEL:
            return "not detectably closer"
        if self.number.value > 0 and self.contrast.name == CONTROLLED and not self.beyond_how_far:
            return "not detectably closer, beyond how far tasks move their prompts,"
        verdict = "closer" if self.number.value > 0 else "farther apart"
        # p is of these inits and tasks, the interval of others too.
        return f"{verdict}, which other inits and tasks may not do," if low <= 0 <= high else verdict

    def finding(self, of: Of, metric: str, moved: Moved | None, runs: int) -> Finding:
        low, high = self.number.interval
        corrected = self.closer.unit == "pairs"
        which = "of different runs lie" if corrected else "lie, self-pairs and same-run pairs counted,"
        far = ""
        if self.contrast.name == CONTROLLED:
            far = f"; {NO_P0}" if moved is None else f"; {moved.words}"
        if self.control is not None:
            far += f", which alone gives {self.control.low:.3f} to {self.control.high:.3f}, p = {self.control.p:.3g}"
        return Finding.of(
            self.number,
            f"{SUBJECTS[of]} {which} {self.verdict()} with {self.contrast.shared} than with {self.contrast.instead}: "
            f"mean {METRICS[metric]} distance {self.closer.value:.3f} against {self.other.value:.3f}, "
            f"difference {self.number.value:.3f} ({low:.3f} to {high:.3f}, p = {self.number.p:.3g}; "
            f"n = {self.closer.n} and {self.other.n} {self.closer.unit} in {runs} runs{far}).",
        )


def _differences(
    result: Result,
    means: Mapping[Key, PairMean],
    points: Tokens,
    metric: str,
    convention: Convention,
    drawn: tuple[int, int],
    moved: Moved | None,
) -> list[_Compared]:
    """Numbers difference.<contrast> where both means and an interval exist. drawn: draws and their seed."""
    compared = []
    for contrast in CONTRASTS[convention]:
        if contrast.first not in means or contrast.second not in means:
            continue
        closer, other = means[contrast.first], means[contrast.second]
        difference, error = other.above(closer)
        if error is None:
            continue
        table = points.runs_table
        gain = _Gain(contrast, metric, _cell_masks(table)) if contrast.exchanged else None
        p = error.p(difference) if gain is None else gain.exchanged_p(points, table, *drawn)
        name, n = _named(metric, f"difference.{contrast.name}"), closer.n + other.n
        number = result.number(name, difference, n, closer.unit, *error.interval(difference), p)
        control = None
        if gain is not None and contrast.name == CONTROLLED and moved is not None:
            control = moved.control(gain, *drawn, p)
        if control is not None:
            result.number(f"{name}.how_far", *control.row)
        few = too_few(table, OTHER[contrast.exchanged], contrast.exchanged) if contrast.exchanged else ""
        compared.append(_Compared(contrast, closer, other, error, number, control, few))
    return compared


@dataclass(frozen=True)
class _Gain:
    """A contrast of cells as a statistic of prompts [N, P, d]."""

    contrast: Contrast
    metric: str
    masks: Mapping[Any, np.ndarray]
    """By cell: [N, N] bool."""

    def __call__(self, prompts_NPd: np.ndarray) -> float:
        return self.of(_run_distances(prompts_NPd, self.metric))

    def of(self, distances_NN: np.ndarray) -> float:
        """Of the mean distances between runs."""
        first, second = (self.masks[cell] for cell in (self.contrast.first, self.contrast.second))
        return float(distances_NN[second].mean() - distances_NN[first].mean())

    def exchanged_p(self, points: Tokens, table: pd.DataFrame, draws: int, seed: int) -> float | None:
        """Two-sided, whole cells exchanged within the other factor; None where none can be."""
        orders_BN = cell_orders(table, OTHER[self.contrast.exchanged], self.contrast.exchanged, draws, seed)
        if orders_BN is None:
            return None
        distances_NN = _run_distances(points.vectors_Kd.reshape(points.runs, points.length, -1), self.metric)
        # Whole cells change places and a mask has all pairs of two cells or none: sums over cells are enough.
        cell_N = table.groupby(["init", "task"], sort=False).ngroup().to_numpy()
        first_C = np.unique(cell_N, return_index=True)[1]
        own_NC = (cell_N[:, None] == np.arange(len(first_C))).astype(np.float64)
        sums_CC, of_cells = own_NC.T @ distances_NN @ own_NC, np.ix_(first_C, first_C)

        def mean(cell: Any, place_C: np.ndarray) -> float:
            mask_NN = self.masks[cell]
            return float(sums_CC[np.ix_(place_C, place_C)][mask_NN[of_cells]].sum() / mask_NN.sum())

        def gain(order_N: np.ndarray) -> float:
            place_C = cell_N[order_N[first_C]]
            return mean(self.contrast.second, place_C) - mean(self.contrast.first, place_C)

        null_B = np.array([gain(order_N) for order_N in orders_BN])
        least = least_p(table, OTHER[self.contrast.exchanged], self.contrast.exchanged)
        return max(permutation_p(gain(np.arange(len(table))), null_B, "two-sided"), least)


def _run_distances(prompts_NPd: np.ndarray, metric: str) -> np.ndarray:
    """[N, N] float64: mean distance between the tokens of two runs."""
    if metric == "cosine":
        unit_NPd = prompts_NPd / np.linalg.norm(prompts_NPd, axis=2, keepdims=True)
        sums_Nd = unit_NPd.sum(1, dtype=np.float64)
        return 1.0 - sums_Nd @ sums_Nd.T / prompts_NPd.shape[1] ** 2
    return mean_l2_distances(prompts_NPd)


def _claims(compared: Sequence[_Compared], findings: Mapping[str, Finding], runs: RunTable) -> list[Claim]:
    by_name = {each.contrast.name: each for each in compared}
    if (each := by_name.get("init_closer")) is None:
        return []
    evidence, about = findings["init_closer"].sentence, each.number
    both, gain = each.error.factors == 2, by_name.get(CONTROLLED)
    premises = learned(runs.table)
    if not both:
        words = "the interval is one over other inits and over other tasks"
        premises.append(Premise(False, words, "at least 3 inits and 3 tasks"))
    if about.interval[1] < 0 and gain is not None:
        # The same task may lie closer only since some tasks hardly move their prompts.
        p = f" (p = {gain.control.p:.2g})" if gain.control else ""
        words = f"the same task lies closer than how far tasks move their prompts brings it{p}"
        needs = "tasks that move their prompts equally far (training.max_steps) from a P0 that is known"
        premises.append(Premise(gain.beyond_how_far, words, needs))
    needs, quantity = "more inits and tasks", about.quantity
    return [
        decided("init_closer", about.interval, evidence, p=about.p, premises=premises, needs=needs, quantity=quantity)
    ]


def _omissions(
    means: Mapping[Key, PairMean | None], findings: Mapping[str, Finding], convention: Convention
) -> list[str]:
    omissions = []
    missing = [key for key, mean in means.items() if mean is None]
    if Cell(True, True) in missing:
        omissions.append(
            "Pairs of runs with the same init and the same task (same_both): there are none, they need several seeds."
        )
        missing = [key for key in missing if not (isinstance(key, Cell) and key.same_init and key.same_task)]
    if missing:
        names = ", ".join(key.name for key in missing)
        omissions.append(f"Without a pair of tokens, so without a number: {names}.")
    alone = [key.name for key, mean in means.items() if mean is not None and mean.interval[0] is None]
    if alone:
        omissions.append(f"Too few inits, tasks and runs for an interval: {', '.join(alone)}.")
    absent = [contrast.name for contrast in CONTRASTS[convention] if contrast.name not in findings]
    if absent:
        omissions.append(f"Too few inits, tasks and runs for a comparison: {', '.join(absent)}.")
    return omissions


def _figure(numbers: Mapping[Key, Number], pairs: Mapping[Key, np.ndarray], metric: str, of: Of) -> str:
    """Means of the levels of position, task and init, with 95 % intervals; lines: all pairs, random vocabulary.

    pairs: what each is the mean of.
    """
    whose = f"{METRICS[metric]} distance" + ("" if of == Of.prompt else " of deltas")
    with panels(1, 3, height=3.4, sharey=True) as (figure, axes):
        for axis, (factor, group), colour in zip(axes[0], PANELS.items(), COLOURS, strict=False):
            levels = [key for key in numbers if isinstance(key, Level) and key.group == group and not key.no_self]
            levels = [key for key in levels if key.level is not None]
            at = np.arange(len(levels))
            values, behind = [numbers[key] for key in levels], [pairs[key] for key in levels]
            estimates(axis, at, values, behind, color=colour, across=0.6)
            for key, (style, label) in LINES.items():
                if key in numbers:
                    axis.axhline(numbers[key].value, color="black", linestyle=style, linewidth=1, label=label)
            names, rotation = [key.level for key in levels], 0 if factor == "position" else 90
            axis.set_xticks(at, names, rotation=rotation, fontsize=7)
            axis.set(xlabel=factor, xlim=(-0.6, len(levels) - 0.4), ylim=(0, None))
            axis.set_title(f"same {factor}", fontsize=9)
            axis.grid(axis="x", visible=False)
        axes[0, 0].set_ylabel(f"{METRICS[metric]} distance")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        title = f"Mean {whose} of tokens that share a position, task or init, with 95 % intervals; faint: pairs of runs"
        return svg(figure, title)
