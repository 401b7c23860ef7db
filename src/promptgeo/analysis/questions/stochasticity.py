"""How far apart do runs of a task end, and why? Norms, scatter, equidistance, distance moved, difficulty, components.

Study 2 (b). Its Table 1 gives a norm and a variance for each task. The norm is that of the whole prompt, mean over
runs. The variance must be that of this norm over runs: the variance of a coordinate, the other candidate, is at most
4/3 of the coordinates' mean square with four runs, which these norms put at .8 to 1.0, and 1.31 to 38.5 are printed.
(Divided here by runs - 1; the study does not say.)

paper: norms, variances and distances moved of whole prompts, which grow with the prompt's length; difficulties as
printed. corrected: all over sqrt(P); whatever is a distance leaves out what the model ignores of a token (gauge.py);
CB's difficulty is the 18 that its model's paper gives; "vary more" is about the scatter of the prompts, not of their
norms. Table 1's runs are those that start from one P0, where there are such.

Numbers, by task: `norm`, `variance` (of the norm), `scatter` (mean squared distance from the mean, over runs - 1),
`moved` (from P0), `distance` (of two runs), `cv` (of these distances), `accuracy.variance`; `component.order`,
`component.init`; `spearman.<difficulty|measured>_<variance|scatter|moved|accuracy>` over tasks.

Shapes: N runs, P prompt tokens, d width, T tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, learned, tested
from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.geometry.alignment import Align, distances
from promptgeo.analysis.geometry.equidistance import Equidistance, equidistance, together
from promptgeo.analysis.geometry.gauge import Gauge, quotient
from promptgeo.analysis.geometry.planes import (
    capped_perplexity,
    classical_mds,
    neighbour_ranks,
    plane_neighbours,
    require_perplexity,
    trustworthiness,
    tsne,
)
from promptgeo.analysis.geometry.run_pairs import over_runs
from promptgeo.analysis.geometry.run_variance import (
    Variance,
    beyond_examples,
    components,
    mean_of,
    of_numbers,
    scatter,
)
from promptgeo.analysis.geometry.tokens import order_of_appearance
from promptgeo.analysis.geometry.whole_prompts import (
    Cell,
    by_task,
    cells_of,
    each_prompt,
    from_one_p0,
    tasks_of,
    taught,
)
from promptgeo.analysis.question import Convention, question
from promptgeo.analysis.resampling import (
    RankCorrelation,
    percentile_interval,
    rank_correlation,
    t_mean,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

WHAT = "stochasticity"
BEST_AND_MEDIAN = {"copa": (67.0, 55.0), "cb": (61.0, 43.0), "wsc": (52.0, 51.0), "rte": (54.0, 53.0)}
"""Accuracies in % of the model's own paper; the study's difficulty is their difference."""
PRINTED = {"cb": 8.0}
"""Where the study prints another difference."""
PUBLISHED_VARIANCES = {"cb": 1.31, "rte": 3.5, "copa": 38.5, "wsc": 3.8}
TASKS_NEEDED = 5
"""The fewest whose orders can give a two-sided p below .05 (2 / 120)."""
LEAST_TASKS = 3
"""Of a rank correlation: two always agree or disagree."""
LEAST_POINTS = 5
"""Of a picture: with fewer there are no two neighbours to rank."""
NEIGHBOURS = 5


@question(
    convention=True,
    gauge=True,
    factors=("prompt_length", "init.text"),
    claims=("equidistant", "harder_vary_more", "harder_move_further"),
)
def stochasticity(
    runs: RunTable,
    *,
    gauge: Gauge | None = None,
    convention: Convention = Convention.corrected,
    align: str = "transport",
    difficulty: Mapping[str, float] | None = None,
    perplexity: float = 30.0,
    permutations: int = 999,
    seed: int = 0,
) -> Result:
    """Norms, scatter and distances of whole prompts by task, and whether harder tasks have more of them.

    Args:
        gauge: what the model ignores of a prompt token; None: not known.
        convention: as the study counted, or corrected; see this module.
        align: how tokens of prompts of unequal length are paired, in pictures and between tasks: transport, mean,
            truncate or pad (Align). Runs of one task are as long, and are paired by position.
        difficulty: of tasks, in any unit; the study's four are known, others must be given. null: none is given.
        perplexity: of t-SNE; at most (N - 1) / 3.
        permutations: draws of each null of equidistance, and of the tasks' order where there are more than 7.
        seed: of these and of t-SNE's start.

    Raises UserError for an unknown align, a difficulty that is no number, and as cells_of does.
    """
    require_perplexity(perplexity, "stochasticity")
    pairing, given = _align(align), _given(difficulty, runs)
    cells, omissions = cells_of(runs, WHAT)
    result = Result(omissions=omissions)
    if convention == Convention.paper:
        gauge = Gauge(shift=False, scale=False)
    elif gauge is None:
        result.omissions.append(f"{WHAT}: the model is not at hand: distances may count what it ignores of a token.")
    elif gauge.ignored:
        result.omissions.append(
            f"{WHAT}: the model ignores a prompt token's {gauge.ignored} (measured on it): distances leave that out."
        )
    seen = gauge or Gauge(shift=False, scale=False)
    cells = [cell.without(seen) for cell in cells]
    of_tasks = by_task(from_one_p0(cells))
    left_out = [task for task in tasks_of(cells) if task not in of_tasks]
    if left_out:
        result.omissions.append(f"{WHAT}: no runs of {', '.join(left_out)} share their P0, as others do.")
    rows = [row for those in of_tasks.values() for cell in those for row in cell.rows]
    learnt, premises = _learned(result, runs.only(rows), seed)
    table = runs.table.iloc[rows]
    about = table[table["task"].map(str).isin(learnt)]
    study = _Study(result, of_tasks, convention, learnt, premises)
    by_name = study.numbers(runs)
    study.lengths()
    study.equidistant(permutations, seed)
    scales = _scales(about, given, convention, study.tasks)
    study.harder(by_name, scales, table, permutations, seed)
    if "cb" in of_tasks:
        _published(result, convention, permutations, seed)
    _components(result, runs, cells, convention)
    _picture(result, [quotient(each, seen) for each in each_prompt(runs)], cells, pairing, convention, perplexity, seed)
    result.tables["tasks"] = _task_table(of_tasks, by_name, scales)
    result.figures["by_task"] = _by_task_figure(of_tasks, scales, convention)
    return result


def _learned(result: Result, runs: RunTable, seed: int) -> tuple[list[str], list[Premise]]:
    """(the tasks that claims are about, their premises). Where no task is learned, all are described, none decided."""
    good, failed = taught(runs, seed)
    result.omissions += [f"{WHAT}: {sentence}; no claim is about it." for sentence in failed]
    if not failed:
        return good, learned(runs.table)
    words = f"none of {len(failed)} tasks is shown to be learned"
    every = order_of_appearance(runs.table["task"].map(str))
    return good or every, [Premise(bool(good), words, "prompts that learned their task")]


def _align(align: str) -> Align:
    if align not in list(Align):
        raise UserError(f"analysis.{WHAT}.align={align}: must be {', '.join(Align)}")
    return Align(align)


def _given(difficulty: Mapping[str, float] | None, runs: RunTable) -> dict[str, float]:
    key, tasks = f"analysis.{WHAT}.difficulty", set(runs.table["task"].map(str))
    if difficulty is None:
        return {}
    if not isinstance(difficulty, Mapping):
        raise UserError(f"{key}={difficulty}: must be a mapping, as in '{key}={{cb: 18, rte: 1}}'")
    for task, value in difficulty.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{key}.{task}={value}: must be a number")
        if task not in tasks:
            raise UserError(f"{key}.{task}: no run has this task (they have {', '.join(sorted(tasks))})")
    return {str(task): float(value) for task, value in difficulty.items()}


# Numbers of tasks.


@dataclass(frozen=True, eq=False)
class _Study:
    """What Table 1 and the claims are of: the runs from one P0, where there are such."""

    result: Result
    of_tasks: dict[str, list[Cell]]
    convention: Convention
    tasks: list[str]
    """Those that learned something: what claims are about."""
    premises: list[Premise]

    def numbers(self, runs: RunTable) -> dict[str, dict[str, float]]:
        """Adds each task's numbers; {quantity: {task: value}}."""
        by_name: dict[str, dict[str, float]] = {"variance": {}, "scatter": {}, "moved": {}, "accuracy": {}}
        for task, those in self.of_tasks.items():
            unit = unit_of(those[0].length, self.convention)
            n = sum(map(len, those))
            norms = [unit * cell.norms_N for cell in those]
            self._mean(f"norm.{task}", np.concatenate(norms))
            if (varied := of_numbers(norms)) is not None:
                by_name["variance"][task] = self._variance(f"variance.{task}", varied)
            squared = mean_of([scatter(cell) for cell in those])
            times = unit**2 * those[0].length
            low, high = squared.interval
            squared = Variance(squared.value * times, (low * times, high * times), n)
            by_name["scatter"][task] = self._variance(f"scatter.{task}", squared)
            moved = [cell.moved_N for cell in those if cell.moved_N is not None]
            if moved:
                by_name["moved"][task] = self._mean(f"moved.{task}", unit * np.concatenate(moved))
            self._distance(task, those, unit)
            if (spread := self._accuracy(task, those, runs)) is not None:
                by_name["accuracy"][task] = spread
        if not by_name["moved"]:
            self.result.omissions.append(f"{WHAT}: how far training moved its prompts needs P0s.")
        return by_name

    def _mean(self, name: str, values_N: np.ndarray) -> float:
        low, high = t_mean(values_N, least=0.0)
        return self.result.number(name, values_N.mean(), len(values_N), "runs", low, high).value

    def _variance(self, name: str, variance: Variance) -> float:
        return self.result.number(name, variance.value, variance.runs, "runs", *variance.interval).value

    def _distance(self, task: str, those: Sequence[Cell], unit: float) -> None:
        """Number `distance.<task>`: mean over pairs of runs from one init."""
        n = sum(map(len, those))
        values_NN, pairs_NN, start = np.zeros((n, n)), np.zeros((n, n), dtype=bool), 0
        for cell in those:
            block = slice(start, start + len(cell))
            values_NN[block, block] = cell.distances_NN * unit * np.sqrt(cell.length)
            pairs_NN[block, block] = ~np.eye(len(cell), dtype=bool)
            start += len(cell)
        interval = over_runs(values_NN, pairs_NN, 0.0, float("inf"))
        count = int(pairs_NN.sum()) // 2
        self.result.number(f"distance.{task}", values_NN[pairs_NN].mean(), count, "pairs of runs", *interval)

    def _accuracy(self, task: str, those: Sequence[Cell], runs: RunTable) -> float | None:
        """Numbers `accuracy.variance.<task>` and `accuracy.beyond.<task>`: over runs, beyond that of test examples."""
        if "accuracy_final" not in runs.table:
            return None
        accuracies = [runs.table["accuracy_final"].iloc[cell.rows].to_numpy(float) for cell in those]
        if not all(np.isfinite(values).all() for values in accuracies):
            return None
        varied = of_numbers(accuracies)
        if varied is None:
            self.result.omissions.append(
                f"{WHAT}: the variance of accuracy is not identifiable in {task}: its runs are equally good."
            )
            return None
        value = self._variance(f"accuracy.variance.{task}", varied)
        correct = [_correct(runs, cell) for cell in those]
        if any(each is None for each in correct):
            return value
        beyond, p = beyond_examples([each for each in correct if each is not None])
        number = self.result.number(f"accuracy.beyond.{task}", beyond, varied.runs, "runs", p=p)
        more = "differ more than" if p < LEVEL else "are not shown to differ more than"
        self.result.findings.append(
            Finding.of(
                number,
                f"Accuracies of {task}'s runs have a standard deviation of {100 * np.sqrt(value):.1f} points: they "
                f"{more} runs that are equally good would on these test examples (Cochran's Q, p = {p:.2g}; "
                f"variance {1e4 * value:.1f}, beyond test examples {1e4 * beyond:+.1f} squared points; "
                f"n = {varied.runs} runs).",
            )
        )
        return value

    def lengths(self) -> None:
        """Says what unequal lengths do to what is printed."""
        lengths = {task: those[0].length for task, those in self.of_tasks.items()}
        if len(set(lengths.values())) == 1:
            return
        said = ", ".join(f"{task} {length}" for task, length in lengths.items())
        what = (
            "as printed, norms, variances and distances moved grow with the length and compare no two tasks"
            if self.convention == Convention.paper
            else "norms and distances are over the square root of the length"
        )
        self.result.omissions.append(f"{WHAT}: prompts have unequal lengths ({said} tokens); {what}.")

    # Are runs equidistant?

    def equidistant(self, draws: int, seed: int) -> None:
        """Numbers `cv.*`, the finding and the claim."""
        found = {}
        for k, (task, those) in enumerate(self.of_tasks.items()):
            generator = np.random.default_rng([seed, k])
            found[task] = together([equidistance(cell.prompts_NPd, draws, generator) for cell in those])
            self._cv(f".{task}", found[task], sum(map(len, those)), "runs")
        whole = together([found[task] for task in self.tasks])
        runs = [len(cell) for task in self.tasks for cell in self.of_tasks[task]]
        number = self._cv("", whole, sum(runs), "runs")
        size = [those[0].prompts_NPd[0].size for those in (self.of_tasks[task] for task in self.tasks)]
        dimensions = f"{min(size):,}" if min(size) == max(size) else f"{min(size):,} to {max(size):,}"
        nearly = (
            f"{min(runs)} random points in {dimensions} dimensions are nearly equidistant "
            f"whatever training did: coefficient of variation {whole.random_B.mean():.3f} with random directions, "
            f"{whole.signs_B.mean():.3f} with random signs along the principal components of what tokens moved"
        )
        holds_p, fails_p = whole.closer_p, min(2 * whole.farther_p, 1.0)
        says = "so whether runs are more nearly equidistant than random points, or lie in groups, is not shown"
        if holds_p < LEVEL:
            says = "so runs are more nearly equidistant than random points"
        elif fails_p < LEVEL:
            says = "so runs are not equidistant: they lie in groups"
        sentence = (
            f"Distances between runs of a task vary by {whole.cv:.3f} of their mean, {says}: {nearly} "
            f"(one-sided p of varying less than the first {holds_p:.2g}, more than the second {whole.farther_p:.2g}; "
            f"n = {sum(runs)} runs of {len(self.tasks)} task{'s' if len(self.tasks) > 1 else ''})."
        )
        self.result.findings.append(Finding.of(number, sentence))
        needs = "distances that vary less than those of any random points, or that show groups of runs"
        self.result.claims.append(
            tested("equidistant", holds_p, fails_p, sentence, premises=self.premises, needs=needs, quantity="cv")
        )

    def _cv(self, of: str, found: Equidistance, n: int, unit: str) -> Number:
        random, signs = percentile_interval(found.random_B), percentile_interval(found.signs_B)
        self.result.number(f"cv.random{of}", found.random_B.mean(), n, unit, *random)
        self.result.number(f"cv.signs{of}", found.signs_B.mean(), n, unit, *signs, p=found.farther_p)
        return self.result.number(f"cv{of}", found.cv, n, unit, p=found.closer_p)

    # Is there more of it in harder tasks?

    def harder(
        self,
        by_name: Mapping[str, Mapping[str, float]],
        scales: Sequence["_Scale"],
        table: pd.DataFrame,
        permutations: int,
        seed: int,
    ) -> None:
        """Numbers `spearman.*`, findings and claims. The first scale is what claims rest on."""
        if not scales:
            self.result.omissions.append(
                f"{WHAT}: whether harder tasks vary more needs {LEAST_TASKS} tasks of known difficulty "
                f"(analysis.{WHAT}.difficulty={{...}}, or the accuracy of P0)."
            )
            return
        claims = {
            "harder_vary_more": "variance" if self.convention == Convention.paper else "scatter",
            "harder_move_further": "moved",
        }
        for scale in scales:
            for name, of_task in by_name.items():
                tasks = [task for task in self.tasks if task in of_task and task in scale.of]
                if len(tasks) < LEAST_TASKS:
                    continue
                hard_T, values_T = (np.array([of[task] for task in tasks]) for of in (scale.of, of_task))
                found = rank_correlation(hard_T, values_T, permutations, seed)
                if not np.isfinite(found.rho):
                    continue
                number = self.result.number(f"spearman.{scale.name}_{name}", found.rho, len(tasks), "tasks", p=found.p)
                if found.least_p >= LEVEL:
                    self._too_few(scale, len(tasks), found.least_p)
                if scale is not scales[0]:
                    continue
                sentence = _correlated(found, name, scale, len(tasks))
                self.result.findings.append(Finding.of(number, sentence))
                for claim in (claim for claim, what in claims.items() if what == name):
                    self._claim(claim, number, found, sentence, table)

    def _too_few(self, scale: "_Scale", tasks: int, least: float) -> None:
        """An omission, once for each scale and number of tasks."""
        sentence = (
            f"{WHAT}: a Spearman correlation of {tasks} tasks with {scale.words} can decide nothing: of all orders of "
            f"the tasks the least two-sided p is {least:.2g} ({TASKS_NEEDED} tasks that differ reach 2 / 120)."
        )
        if sentence not in self.result.omissions:
            self.result.omissions.append(sentence)

    def _claim(self, name: str, number: Number, found: RankCorrelation, sentence: str, table: pd.DataFrame) -> None:
        reachable = Premise(
            found.least_p < LEVEL,
            f"so many tasks can reach .05 at all (the least p of any order is {found.least_p:.2g})",
            f"at least {TASKS_NEEDED} tasks of different difficulty",
        )
        needed = [*self.premises, reachable]
        if name == "harder_move_further":
            needed += _equal_steps(table[table["task"].map(str).isin(self.tasks)])
        above = found.rho > 0
        holds_p, fails_p = (found.p, 1.0) if above else (1.0, found.p)
        needs, about = "more tasks", number.quantity
        claim = tested(name, holds_p, fails_p, sentence, premises=needed, needs=needs, quantity=about)
        self.result.claims.append(claim)


def unit_of(length: int, convention: Convention) -> float:
    """What whole prompts' norms and distances are multiplied by."""
    return 1.0 if convention == Convention.paper else 1 / np.sqrt(length)


def _correct(runs: RunTable, cell: Cell) -> np.ndarray | None:
    """[N, E] bool: what each run's final prompt answers rightly; None where runs do not hold the same examples."""
    if runs.runs is None:
        return None
    rows = [
        {each["id"]: bool(each["correct"]) for each in runs.runs[row].predictions if each["prompt"] == "final"}
        for row in cell.rows
    ]
    if len(rows[0]) < 2 or any(set(each) != set(rows[0]) for each in rows):
        return None
    return np.array([[each[example] for example in rows[0]] for each in rows])


def _equal_steps(table: pd.DataFrame) -> list[Premise]:
    """That no task was trained for more steps than others, where that is known."""
    if "steps" not in table or table["steps"].isna().any():
        return []
    means = table.groupby("task", sort=False)["steps"].mean()
    words = f"tasks were trained for as many steps ({means.min():g} to {means.max():g})"
    return [Premise(bool(means.nunique() == 1), words, "as many steps for each task (training.max_steps)")]


# Difficulty.


@dataclass(frozen=True)
class _Scale:
    """How hard tasks are, by one measure."""

    name: str
    of: dict[str, float]
    words: str


def _scales(
    table: pd.DataFrame, given: Mapping[str, float], convention: Convention, tasks: Sequence[str]
) -> list[_Scale]:
    """Difficulty as given or as study 2 has it, and as measured; first the one that knows all tasks."""
    stated = {task: best - median for task, (best, median) in BEST_AND_MEDIAN.items()}
    stated |= PRINTED if convention == Convention.paper else {}
    stated |= given
    words = "difficulty as given" if given else "difficulty as study 2 has it (best less median accuracy of its model)"
    scales = [_Scale("difficulty", {task: stated[task] for task in tasks if task in stated}, words), *_measured(table)]
    scales = [scale for scale in scales if len(scale.of) >= LEAST_TASKS]
    return sorted(scales, key=lambda scale: not set(tasks) <= set(scale.of))


def _measured(table: pd.DataFrame) -> list[_Scale]:
    """1 less the untrained accuracy, by label where all tasks have labels: it needs no trained prompt."""
    words = {"label_accuracy_initial": "label accuracy", "accuracy_initial": "accuracy"}
    for column, said in words.items():
        if column in table and table[column].notna().all():
            means = table.groupby("task", sort=False)[column].mean()
            of = {str(task): 1 - float(value) for task, value in means.items()}
            return [_Scale("measured", of, f"difficulty as measured (1 less the {said} of P0)")]
    return []


QUANTITIES = {
    "variance": "variances of the prompts' norm",
    "scatter": "scatter of their prompts",
    "moved": "distances moved from P0",
    "accuracy": "variances of accuracy",
}
"""What harder tasks may have more of, in words."""


def _correlated(found: RankCorrelation, name: str, scale: _Scale, tasks: int) -> str:
    """A finding's sentence."""
    if found.p < LEVEL:
        says = f"Harder tasks have {'larger' if found.rho > 0 else 'smaller'} {QUANTITIES[name]}"
    elif found.least_p >= LEVEL:
        says = f"Whether harder tasks have larger {QUANTITIES[name]}, {tasks} tasks cannot say at .05 in any order"
    else:
        says = f"Harder tasks are not shown to have other {QUANTITIES[name]}"
    return (
        f"{says}: Spearman {found.rho:.2f} with {scale.words} (p = {found.p:.2g} by orders of the tasks, "
        f"{found.least_p:.2g} at best; n = {tasks} tasks)."
    )


def _published(result: Result, convention: Convention, permutations: int, seed: int) -> None:
    """Number `published.spearman` and its finding: what the study's own table says of its claim."""
    tasks = list(PUBLISHED_VARIANCES)
    variances = np.array([PUBLISHED_VARIANCES[task] for task in tasks])
    true = {task: best - median for task, (best, median) in BEST_AND_MEDIAN.items()}
    printed, right = (
        rank_correlation(np.array([of[task] for task in tasks]), variances, permutations, seed)
        for of in (true | PRINTED, true)
    )
    found = printed if convention == Convention.paper else right
    number = result.number("published.spearman", found.rho, len(tasks), "tasks", p=found.p)
    best, median = BEST_AND_MEDIAN["cb"]
    sentence = (
        f"The study's own variances have a Spearman correlation of {printed.rho:.2f} with difficulty as printed, and "
        f"of {right.rho:.2f} where CB's is {best:g} - {median:g} = {true['cb']:g} instead of {PRINTED['cb']:g} "
        f"(p = {found.p:.2g}; no order of these {len(tasks)} tasks gives less than {found.least_p:.2g})."
    )
    result.findings.append(Finding.of(number, sentence))


# Components.


def _components(result: Result, runs: RunTable, cells: Sequence[Cell], convention: Convention) -> None:
    """Numbers `component.<order|init>` and by task, over sqrt(P); findings; what is not identifiable."""
    if convention == Convention.paper:
        return  # the study has none
    found = components(runs, cells)
    words = {
        "order": "The order of the data alone (Adam's moments start at zero, not at random as the study writes) "
        "scatters runs of a task with a variance of",
        "init": "P0s of their own add",
    }
    for name, of_task in (("order", found.order), ("init", found.init)):
        for task, variance in of_task.items():
            result.number(f"component.{name}.{task}", variance.value, variance.runs, "runs", *variance.interval)
        if not of_task:
            continue
        mean = mean_of(list(of_task.values()))
        low, high = mean.interval
        number = result.number(f"component.{name}", mean.value, mean.runs, "runs", low, high)
        shown = "" if name == "order" or low > 0 or high < 0 else ", which is not shown to be more than nothing"
        result.findings.append(
            Finding.of(
                number,
                f"{words[name]} {mean.value:.4g} ({low:.4g} to {high:.4g}) per token{shown}, mean over "
                f"{len(of_task)} task{'s' if len(of_task) > 1 else ''} (n = {mean.runs} runs).",
            )
        )
    result.omissions += [f"{WHAT}: {sentence}." for sentence in found.unknown]


# Whole prompts in the plane, and how far apart tasks lie.


def _picture(
    result: Result,
    prompts: Sequence[np.ndarray],
    cells: Sequence[Cell],
    align: Align,
    convention: Convention,
    perplexity: float,
    seed: int,
) -> None:
    """Numbers `distance.between` and `trustworthiness.*`, tables `distances` and `coordinates`, figure `pictures`."""
    rows = [row for cell in cells for row in cell.rows]
    apart_NN = distances([prompts[row] for row in rows], align)
    tasks_N, inits_N = (np.array([getattr(cell, of) for cell in cells for _ in cell.rows]) for of in ("task", "init"))
    one, other = np.triu_indices(len(rows), 1)
    result.tables["distances"] = pd.DataFrame(
        {
            "run": np.array(rows)[one],
            "other": np.array(rows)[other],
            "task": tasks_N[one],
            "other_task": tasks_N[other],
            "init": inits_N[one],
            "other_init": inits_N[other],
            "distance": apart_NN[one, other],
        }
    )
    between_NN = tasks_N[:, None] != tasks_N
    if between_NN.any() and convention == Convention.corrected:  # Frobenius distances know no unequal lengths
        interval = over_runs(apart_NN, between_NN, 0.0, float("inf"))
        count = int(between_NN.sum()) // 2
        result.number("distance.between", apart_NN[between_NN].mean(), count, "pairs of runs", *interval)
    if len(rows) < LEAST_POINTS:
        result.omissions.append(f"{WHAT}: a picture needs {LEAST_POINTS} runs; there are {len(rows)}.")
        return
    result.omissions += capped_perplexity(perplexity, len(rows), WHAT)
    planes = {"MDS": classical_mds(apart_NN), "t-SNE": tsne(apart_NN, perplexity, seed)}
    k = min(NEIGHBOURS, (len(rows) - 1) // 2)
    trust = {}
    for name, plane_N2 in planes.items():
        trust[name] = float(trustworthiness(neighbour_ranks(apart_NN), plane_neighbours(plane_N2, k)).mean())
        result.number(f"trustworthiness.{name.lower().replace('-', '')}", trust[name], len(rows), "runs")
    columns: dict[str, Any] = {"run": rows, "task": tasks_N, "init": inits_N}
    for name, plane_N2 in planes.items():
        columns |= {f"{name.lower().replace('-', '')}_{axis}": plane_N2[:, i] for i, axis in enumerate("xy")}
    result.tables["coordinates"] = pd.DataFrame(columns)
    result.figures["pictures"] = _pictures_figure(planes, trust, cells, align)


def _pictures_figure(
    planes: Mapping[str, np.ndarray], trust: Mapping[str, float], cells: Sequence[Cell], align: Align
) -> str:
    """Each run a point, joined with the mean of its task and init in the plane."""
    tasks = tasks_of(cells)
    inits = list(dict.fromkeys(cell.init for cell in cells))
    with panels(1, len(planes), height=3.6) as (figure, axes):
        for axis, (name, plane_N2) in zip(axes[0], planes.items(), strict=True):
            start = 0
            for cell in cells:
                points_N2 = plane_N2[start : start + len(cell)]
                start += len(cell)
                colour = COLOURS[tasks.index(cell.task) % len(COLOURS)]
                for point_2 in points_N2:
                    axis.plot(*np.stack([points_N2.mean(0), point_2]).T, color=colour, linewidth=0.7, alpha=0.6)
                axis.plot(
                    *points_N2.T,
                    linestyle="none",
                    marker="os^Dvpx+*"[inits.index(cell.init) % 9],
                    color=colour,
                    markersize=4,
                    label=f"{cell.task}, {cell.init}",
                )
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{name}, trustworthiness {trust[name]:.2f}", fontsize=8)
        axes[0, 0].legend(loc="upper left", bbox_to_anchor=(0, -0.02), ncols=3, fontsize=7)
        title = f"Where runs end, tokens paired by {align}, in two planes without a unit; lines lead to a task's mean"
        return svg(figure, title)


# Tables and figures of tasks.


def _task_table(
    of_tasks: Mapping[str, Sequence[Cell]], by_name: Mapping[str, Mapping[str, float]], scales: Sequence[_Scale]
) -> pd.DataFrame:
    """A row per task."""
    tasks = list(of_tasks)
    columns: dict[str, Any] = {"task": tasks, "prompt_length": [of_tasks[task][0].length for task in tasks]}
    columns |= {scale.name: [scale.of.get(task, np.nan) for task in tasks] for scale in scales}
    columns |= {name: [of_task.get(task, np.nan) for task in tasks] for name, of_task in by_name.items()}
    return pd.DataFrame(columns)


def _by_task_figure(of_tasks: Mapping[str, Sequence[Cell]], scales: Sequence[_Scale], convention: Convention) -> str:
    """Norm, distance moved and distances between runs, each run or pair a point; tasks by difficulty where known."""
    tasks = list(of_tasks)
    if scales:
        tasks.sort(key=lambda task: scales[0].of.get(task, np.inf))
    over = "" if convention == Convention.paper else " / sqrt(P)"
    shown: dict[str, Callable[[Cell], np.ndarray | None]] = {
        "norm": lambda cell: cell.norms_N,
        "distance from P0": lambda cell: cell.moved_N,
        "distance of two runs": lambda cell: cell.distances_NN[np.triu_indices(len(cell), 1)] * np.sqrt(cell.length),
    }
    with panels(1, len(shown), height=2.8) as (figure, axes):
        for axis, (what, of_cell) in zip(axes[0], shown.items(), strict=True):
            for x, task in enumerate(tasks):
                values = [of_cell(cell) for cell in of_tasks[task]]
                known = [unit_of(of_tasks[task][0].length, convention) * each for each in values if each is not None]
                if known:
                    points = np.concatenate(known)
                    axis.plot(np.full(len(points), x), points, "o", color=COLOURS[x % len(COLOURS)], markersize=3.5)
            axis.set(xticks=range(len(tasks)), ylim=(0, None), xlabel="task" + ", harder to the right" * bool(scales))
            axis.set_ylabel(f"{what}{over}", fontsize=8)
            axis.set_xticklabels(tasks, rotation=30, ha="right")
        title = "How long prompts are, and how far they end from P0 and from each other, in the embeddings' unit"
        return svg(figure, f"{title}; each run or pair a point")
