"""Does what training added to one init's P0 work on another's? accuracy(P0[b] + alpha * delta[a]), with controls.

The donor a gives its delta = P - P0, the recipient b its P0; both are runs of one task and seed, with different inits.

Shapes: N runs, P prompt tokens, d width.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, shares_grid, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance, random_like, require_levels
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import (
    Bootstrap,
    Candidate,
    Control,
    Difference,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    evaluation_sets,
    in_percent,
    in_points,
    sampled_examples,
    score_kinds,
)
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

Pair = tuple[int, int]
"""(donor, recipient): numbers of runs."""
Kind = tuple[str, float]
"""(what is added to P0, alpha)."""

OWN, MOVED, RANDOM, OTHER_TASK = ("own", 1.0), ("transplant", 1.0), ("random_delta", 1.0), ("other_task_delta", 1.0)
SUM = "sum"
NO_OTHER_TASK = (
    "transplant: another task's delta as a control, and composition, need runs of two tasks with the same init "
    "and seed."
)
DELTA_CONTROLS = {
    "own": Control(
        "the init's own trained prompt",
        "it works better than the prompt trained from there",
        "no difference from the prompt trained from there is detected",
        "part of the delta holds only for its own init",
    ),
    "initial": Control(
        "P0 alone", "the delta carries over", "nothing shows that the delta carries over", "the delta does harm"
    ),
    "random_delta": Control(
        "a random delta of the same length",
        "its direction matters",
        "nothing shows that its direction matters",
        "a random direction does better",
    ),
    "other_task_delta": Control(
        "another task's delta",
        "what carries over belongs to the task",
        "nothing shows that what carries over belongs to the task",
        "another task's does better",
    ),
}
"""What a transplanted delta is compared with."""
SUM_CONTROLS = {
    "own_delta": Control(
        "the task's delta alone",
        "the second delta helps",
        "nothing shows that the second delta costs anything",
        "the second delta disturbs the first",
    ),
    "other_delta": Control(
        "the other delta alone",
        "the sum knows the task",
        "nothing shows that the sum knows the task better than the other delta",
        "the sum knows the task less than the other delta",
    ),
    "random_delta": Control(
        "the task's delta and a random one of the other's length",
        "the other delta disturbs less than noise",
        "no difference between the other delta and noise is detected",
        "the other delta disturbs more than noise",
    ),
}
"""What the sum of two tasks' deltas is compared with."""


@question(lm=True)
def transplant(
    runs: RunTable,
    *,
    lm: LM,
    alphas: Sequence[float] = (0, 0.25, 0.5, 0.75, 1, 1.25),
    seed: int = 0,
    max_examples: int | None = 40,
    max_pairs: int | None = 200,
    max_compositions: int | None = 50,
) -> Result:
    """Scores each init's P0 plus another init's delta. After Task Prompt Vectors (arXiv 2408.01119).

    Numbers, all mean accuracies on test examples: `own` (trained prompts), `initial` (P0 alone), `transplant`
    (alpha = 1), its controls `random_delta` (Gaussian, each token as long as the delta's) and `other_task_delta`
    (same donor init and seed), `transplant.<task>`; `alpha.<alpha>` and `own.alpha.<alpha>`;
    `difference.<control>` = transplant - control on the same pairs. For delta_A + delta_B on one P0, scored on A and
    on B: `composition.sum`, `.own_delta`, `.other_delta`, `.random_delta` (a random delta for the other one).

    Tables: `accuracies`, one row per scored prompt with Wilson's interval; `heatmap`, mean over tasks and seeds by
    donor and recipient init. Intervals of means are over runs (left out one by one) and test examples, the same for
    both sides of a difference. Fewer than three independent runs give no verdict.

    Args:
        alphas: how much of the delta is added; 0 and 1 are always among them.
        seed: draws pairs, test examples and random deltas.
        max_examples: test examples of a task; None: all.
        max_pairs: pairs of runs, spread evenly over pairs of inits; None: all.
        max_compositions: pairs of runs of different tasks; None: all.

    What is left out is named. Raises UserError where no two runs of a task and seed differ in init.
    """
    require_levels(runs, {"init": 2}, "transplant")
    alphas = sorted({0.0, 1.0, *map(float, alphas)})
    result, generator = Result(), np.random.default_rng(seed)
    sets_N = evaluation_sets(runs, "transplant", max_examples, seed)
    all_pairs = _pairs(runs.table, sets_N)
    if not all_pairs:
        raise UserError("transplant: needs two runs of one task and seed that differ in init; these have none")
    pairs = _spread(all_pairs, runs.table, max_pairs, generator)
    compositions = _drawn(_compositions(runs.table), max_compositions, generator)

    prompts = _transplanted(runs, sets_N, pairs, alphas, generator)
    prompts += _composed(runs, sets_N, compositions, generator)
    scored = score_kinds(lm, prompts)
    bootstrap = Bootstrap(seed=seed)
    result.tables["accuracies"] = _table(runs.table, scored)
    result.tables["heatmap"] = _heatmap(result.tables["accuracies"])
    means = _report_means(result, scored, alphas, bootstrap)
    _report_transplants(result, scored, bootstrap)
    if OTHER_TASK in scored:
        _report_compositions(result, scored, bootstrap)
    if len(pairs) < len(all_pairs):
        result.omissions.append(_drawn_pairs(len(pairs), len(all_pairs), seed))
    result.omissions += sampled_examples("transplant", sets_N, max_examples, seed)
    if OTHER_TASK not in scored:
        result.omissions.append(NO_OTHER_TASK)
    result.omissions += _different_p0s(runs, compositions)
    result.figures["heatmap"] = _heatmap_figure(result.tables["heatmap"], order_of_appearance(runs.table["init"]))
    result.figures["alpha"] = _alpha_figure(means, scored, alphas)
    return result


# Which runs meet.


def _pairs(table: pd.DataFrame, sets_N: list[EvaluationSet]) -> list[Pair]:
    """Two runs of one task and seed with different inits."""
    return [
        (a, b)
        for a in range(len(table))
        for b in range(len(table))
        if sets_N[a] is sets_N[b] and table["seed"][a] == table["seed"][b] and table["init"][a] != table["init"][b]
    ]


def _compositions(table: pd.DataFrame) -> list[Pair]:
    """Two runs of different tasks that have init and seed in common."""
    return [(a, b) for a, b in combinations(range(len(table)), 2) if _other_task(table, a, b)]


def _other_task(table: pd.DataFrame, a: int, b: int) -> bool:
    return table["task"][a] != table["task"][b] and all(table[c][a] == table[c][b] for c in ("init", "seed"))


def _different_p0s(runs: RunTable, compositions: list[Pair]) -> list[str]:
    """The omission of sums of two tasks' deltas whose runs do not start from one P0; empty where all do."""
    initial_NPd = runs.prompts("initial")
    apart = sum(not np.array_equal(initial_NPd[a], initial_NPd[b]) for a, b in compositions)
    if not apart:
        return []
    return [
        f"transplant: in {apart} of {len(compositions)} sums of two tasks' deltas the runs start from different P0s (a "
        "random init differs by task): the other delta was not trained on that P0."
    ]


def _drawn(pairs: list[Pair], most: int | None, generator: np.random.Generator) -> list[Pair]:
    """At most so many pairs, in their order."""
    if most is None or len(pairs) <= most:
        return pairs
    return [pairs[i] for i in np.sort(generator.permutation(len(pairs))[:most])]


def _spread(pairs: list[Pair], table: pd.DataFrame, most: int | None, generator: np.random.Generator) -> list[Pair]:
    """At most so many pairs, as many of each (donor init, recipient init) as of any other, give or take one."""
    if most is None or len(pairs) <= most:
        return pairs
    shuffled = [pairs[i] for i in generator.permutation(len(pairs))]
    seen: dict[tuple[str, str], int] = {}
    rounds = []
    for a, b in shuffled:
        inits = table["init"][a], table["init"][b]
        seen[inits] = seen.get(inits, 0) + 1
        rounds.append(seen[inits])
    return sorted(shuffled[i] for i in np.argsort(rounds, kind="stable")[:most])


def _drawn_pairs(pairs: int, of: int, seed: int) -> str:
    return f"transplant: {pairs} of {of} pairs of runs were scored, drawn by seed {seed} (max_pairs=null scores all)."


# Prompts to score.


def _deltas(runs: RunTable) -> tuple[np.ndarray, np.ndarray]:
    """(P0 [N, P, d], delta [N, P, d]); in float64 P0 + (P - P0) is P to the last bit: the trained prompt is scored."""
    p0_NPd = runs.prompts("initial").astype(np.float64)
    return p0_NPd, runs.prompts().astype(np.float64) - p0_NPd


def _transplanted(
    runs: RunTable,
    sets_N: list[EvaluationSet],
    pairs: list[Pair],
    alphas: list[float],
    generator: np.random.Generator,
) -> list[Candidate[Kind]]:
    """P0 of each recipient plus its own delta, a donor's, a random one, and another task's where there is one."""
    p0_NPd, delta_NPd = _deltas(runs)

    def plus(kind: Kind, a: int, b: int, delta_Pd: np.ndarray) -> Candidate[Kind]:
        return Candidate(kind, p0_NPd[b] + delta_Pd, sets_N[b], (a, b))

    used = sorted({run for pair in pairs for run in pair})
    prompts = []
    for alpha in alphas:
        prompts += [plus(("own", alpha), b, b, alpha * delta_NPd[b]) for b in used]
        prompts += [plus(("transplant", alpha), a, b, alpha * delta_NPd[a]) for a, b in pairs]
    prompts += [plus(RANDOM, a, b, random_like(delta_NPd[a], generator)) for a, b in pairs]
    others = {a: [r for r in range(len(runs)) if _other_task(runs.table, a, r)] for a in used}
    donors = [(a, b, others[a][generator.integers(len(others[a]))]) for a, b in pairs if others[a]]
    return prompts + [plus(OTHER_TASK, a, b, delta_NPd[r]) for a, b, r in donors]


def _composed(
    runs: RunTable, sets_N: list[EvaluationSet], compositions: list[Pair], generator: np.random.Generator
) -> list[Candidate[Kind]]:
    """Two tasks' deltas on one P0, and its controls, on either task."""
    p0_NPd, delta_NPd = _deltas(runs)
    prompts = []
    for a, b in compositions:
        for own, other in ((a, b), (b, a)):
            start, delta, further = p0_NPd[own], delta_NPd[own], delta_NPd[other]
            made = {
                SUM: start + delta + further,
                "own_delta": start + delta,
                "other_delta": start + further,
                "random_delta": start + delta + random_like(further, generator),
            }
            prompts += [Candidate(_composition(what), x_Pd, sets_N[own], (other, own)) for what, x_Pd in made.items()]
    return prompts


def _composition(name: str) -> Kind:
    return f"composition.{name}", 1.0


# Tables.


def _table(table: pd.DataFrame, scored: dict[Kind, Scored]) -> pd.DataFrame:
    rows = []
    for (kind, alpha), prompts in scored.items():
        for correct_E, evaluation_set, (donor, recipient) in zip(
            prompts.correct_S, prompts.sets_S, prompts.runs_S, strict=True
        ):
            low, high = wilson(int(correct_E.sum()), evaluation_set.n)
            rows.append(
                {
                    "kind": kind,
                    "alpha": alpha,
                    "task": evaluation_set.task.name,
                    "seed": table["seed"][recipient],
                    "donor": table["init"][donor],
                    "recipient": table["init"][recipient],
                    "donor_task": table["task"][donor],
                    "accuracy": correct_E.mean(),
                    "low": low,
                    "high": high,
                    "n": evaluation_set.n,
                }
            )
    return pd.DataFrame(rows)


def _heatmap(accuracies: pd.DataFrame) -> pd.DataFrame:
    whole = accuracies[accuracies["kind"].isin(["own", "transplant"]) & (accuracies["alpha"] == 1.0)]
    cells = whole.groupby(["donor", "recipient"], sort=False)["accuracy"]
    return cells.agg(accuracy="mean", pairs="size").reset_index()


# Numbers and findings.


def _report_means(
    result: Result, scored: dict[Kind, Scored], alphas: list[float], bootstrap: Bootstrap
) -> dict[Kind, Number]:
    """Adds the mean accuracy of each kind of transplants, and of each alpha; the numbers by kind."""

    def add(name: str, prompts: Scored, unit: str) -> Number:
        return add_mean(result, name, prompts, bootstrap, len(prompts), unit)

    means: dict[Kind, Number] = {}
    add("own", scored[OWN], "runs")
    add("initial", scored["own", 0.0], "runs")
    for kind in (MOVED, RANDOM, OTHER_TASK):
        if kind in scored:
            means[kind] = add(kind[0], scored[kind], "pairs of runs")
    for alpha in alphas:
        moved, own = ("transplant", alpha), ("own", alpha)
        means[moved] = add(f"alpha.{alpha:g}", scored[moved], "pairs of runs")
        means[own] = add(f"own.alpha.{alpha:g}", scored[own], "runs")
    for name, evaluation_set in {each.task.name: each for each in scored[MOVED].sets}.items():
        add(f"transplant.{name}", scored[MOVED].on(evaluation_set), "pairs of runs")
    return means


def _report_transplants(result: Result, scored: dict[Kind, Scored], bootstrap: Bootstrap) -> None:
    """Compares transplants with each control, on the same pairs of runs."""
    moved, own = scored[MOVED], scored[OWN]
    by_run = {members[0]: s for s, members in enumerate(own.runs_S)}
    trained = Scored([own.correct_S[by_run[b]] for _, b in moved.runs_S], moved.sets_S, moved.runs_S)
    controls = {"own": trained, "initial": scored["transplant", 0.0]}
    controls |= {kind[0]: scored[kind] for kind in (RANDOM, OTHER_TASK) if kind in scored}
    for name, control in controls.items():
        same = moved if len(control) == len(moved) else _of_pairs(moved, set(control.runs_S))
        what, unit = "Another init's delta on this init's P0", "pairs of runs"
        difference = add_difference(result, f"difference.{name}", same, control, bootstrap, len(same), unit)
        sentence = _comparison(what, same, DELTA_CONTROLS[name], control, difference, bootstrap)
        result.findings.append(Finding.of(difference.number, sentence))


def _report_compositions(result: Result, scored: dict[Kind, Scored], bootstrap: Bootstrap) -> None:
    """The accuracy of two tasks' deltas on one P0, and its comparison with each control."""
    unit = "prompts and tasks"
    for name in (SUM, *SUM_CONTROLS):
        prompts = scored[_composition(name)]
        add_mean(result, f"composition.{name}", prompts, bootstrap, len(prompts), unit)
    both = scored[_composition(SUM)]
    for name, words in SUM_CONTROLS.items():
        control = scored[_composition(name)]
        quantity = f"difference.composition.{name}"
        difference = add_difference(result, quantity, both, control, bootstrap, len(both), unit)
        sentence = _comparison("The sum of two tasks' deltas on one P0", both, words, control, difference, bootstrap)
        result.findings.append(Finding.of(difference.number, sentence))


def _of_pairs(scored: Scored, pairs: set[tuple[int, ...]]) -> Scored:
    """The prompts that are made of these pairs of runs."""
    return scored.where(lambda s: scored.runs_S[s] in pairs)


def _comparison(
    what: str, prompts: Scored, words: Control, control: Scored, difference: Difference, bootstrap: Bootstrap
) -> str:
    """The sentence about prompts and their control."""
    mean, control_mean = (in_percent(bootstrap.mean(each)) for each in (prompts, control))
    number = difference.number
    return (
        f"{what} solves {mean} of the test examples, {words.words} {control_mean}: {in_points(difference)}, "
        f"so {words.meaning(difference)} (n = {number.n} {number.unit}, {prompts.examples} test examples"
        f"{difference.reach})."
    )


# Figures.


def _heatmap_figure(heatmap: pd.DataFrame, inits: list[str]) -> str:
    grid = heatmap.pivot(index="donor", columns="recipient", values="accuracy").reindex(index=inits, columns=inits)
    height, width = max(2.6, 0.3 * len(inits) + 1.2), max(4.0, 0.45 * len(inits) + 2)
    with panels(height=height, width=width) as (figure, axes):
        axis = axes[0, 0]
        written = len(inits) <= 12  # in more cells than that the numbers would overlap
        mesh = shares_grid(axis, grid.to_numpy(), inits, inits, written, rotation=60)
        axis.set(xlabel="P0 of", ylabel="delta of")
        figure.colorbar(mesh, ax=axis, label="test accuracy, mean over tasks")
        return svg(figure, "Accuracy of one init's P0 with the delta of another")


def _alpha_figure(means: dict[Kind, Number], scored: dict[Kind, Scored], alphas: list[float]) -> str:
    """Accuracy by alpha, of an init's own delta and another's, with the controls at alpha = 1."""
    lines = (("own", "its own delta", COLOURS[0]), ("transplant", "another init's delta", COLOURS[2]))
    points = ((RANDOM, "a random delta", NEUTRAL, "v"), (OTHER_TASK, "another task's delta", COLOURS[4], "s"))
    at = np.array(alphas)
    apart = float(np.diff(at).min())
    with panels(width=5.0, height=3.2) as (figure, axes):
        axis = axes[0, 0]

        def draw(kinds: list[Kind], places: np.ndarray, **style: Any) -> None:
            behind = [scored[kind].accuracy_S for kind in kinds]
            estimates(axis, places, [means[kind] for kind in kinds], behind, across=0.15 * apart, **style)

        for k, (name, label, colour) in enumerate(lines):
            places = at + 0.2 * apart * (k - 0.5)
            draw([(name, alpha) for alpha in alphas], places, label=label, color=colour, linestyle="-")
        for k, (kind, label, colour, marker) in enumerate(points):
            if kind in means:
                draw([kind], np.array([1 + 0.2 * apart * (k + 1.5)]), label=label, color=colour, marker=marker)
        axis.set(xlabel="alpha", ylabel="test accuracy", ylim=(-0.04, 1.04))
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure, "Accuracy of P0 + alpha x delta, with 95 % intervals; faint: single prompts")
