"""Does what training added to one init's P0 work on another's? accuracy(P0[b] + alpha * delta[a]), with controls.

The donor a gives its delta = P - P0, the recipient b its P0; both are runs of one task and seed, with different inits.

Shapes: N runs, P prompt tokens, d width, S scored prompts.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import Bootstrap, EvaluationSet, Scored, evaluation_sets, percent, points, score
from promptgeo.analysis.vectors import order_of_appearance, random_like, require_levels
from promptgeo.errors import UserError
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable

Pair = tuple[int, int]
"""(donor, recipient): numbers of runs."""


def transplant(
    runs: RunTable,
    *,
    lm: FrozenLM,
    alphas: Sequence[float] = (0, 0.25, 0.5, 0.75, 1, 1.25),
    seed: int = 0,
    max_examples: int | None = 40,
    max_pairs: int | None = 200,
    max_compositions: int | None = 50,
) -> Result:
    """Numbers, all mean accuracies on test examples: `own` (trained prompts), `initial` (P0 alone), `transplant` (alpha = 1), its controls
    `random_delta` (Gaussian, each token as long as the delta's) and `other_task_delta` (same donor init and seed), `transplant.<task>`;
    `alpha.<alpha>` and `own.alpha.<alpha>`; `difference.<control>` = transplant - control on the same pairs; and for delta_A + delta_B on one P0,
    scored on A and on B: `composition.sum`, `.own_delta`, `.other_delta`, `.random_delta` (the other delta exchanged for a random one).

    Tables: `accuracies`, one row per scored prompt with Wilson's interval; `heatmap`, mean over tasks and seeds by donor and recipient init.
    Intervals of means draw whole runs and test examples with replacement, the same for both sides of a difference.
    max_examples (of a task), max_pairs (spread evenly over pairs of inits), max_compositions: null for all; what is left out is named.
    Nothing is chosen by these accuracies. Raises UserError where no two runs of a task and seed differ in init. After Task Prompt Vectors (arXiv 2408.01119).
    """
    require_levels(runs, {"init": 2}, "transplant")
    alphas = sorted({0.0, 1.0, *map(float, alphas)})
    result, generator = Result(), np.random.default_rng(seed)
    sets_N = evaluation_sets(runs, "transplant", max_examples, seed)
    all_pairs = _pairs(runs.table, sets_N)
    if not all_pairs:
        raise UserError("transplant: needs two runs of one task and seed that differ in init; these have none")
    pairs = _spread(all_pairs, runs.table, max_pairs, generator)
    compositions = _drawn(_compositions(runs.table, sets_N), max_compositions, generator)
    _name_what_is_left_out(result, sets_N, len(pairs), len(all_pairs), seed, max_examples)

    kinds = _prompts(runs, sets_N, pairs, compositions, alphas, generator)
    scored = _score(lm, kinds)
    bootstrap = Bootstrap(len(runs), seed=seed)
    result.tables["accuracies"] = _table(runs.table, scored)
    result.tables["heatmap"] = _heatmap(result.tables["accuracies"])
    _tell_pairs(result, scored, runs.table, alphas, bootstrap)
    if ("other_task_delta", 1.0) not in scored:
        result.omissions.append("transplant: another task's delta as a control, and composition, need runs of two tasks with the same init and seed.")
    else:
        _tell_compositions(result, scored, bootstrap)
    result.figures["heatmap"] = _heatmap_figure(result.tables["heatmap"], order_of_appearance(runs.table["init"]))
    result.figures["alpha"] = _alpha_figure(result, alphas)
    return result


# Which runs meet.


def _pairs(table: pd.DataFrame, sets_N: list[EvaluationSet]) -> list[Pair]:
    return [
        (a, b)
        for a in range(len(table))
        for b in range(len(table))
        if sets_N[a] is sets_N[b] and table["seed"][a] == table["seed"][b] and table["init"][a] != table["init"][b]
    ]


def _compositions(table: pd.DataFrame, sets_N: list[EvaluationSet]) -> list[Pair]:
    """Two runs of different tasks that have init and seed, hence P0, in common."""
    return [(a, b) for a, b in combinations(range(len(table)), 2) if _other_task(table, a, b)]


def _other_task(table: pd.DataFrame, a: int, b: int) -> bool:
    return table["task"][a] != table["task"][b] and all(table[c][a] == table[c][b] for c in ("init", "seed"))


def _drawn(pairs: list[Pair], most: int | None, generator: np.random.Generator) -> list[Pair]:
    if most is None or len(pairs) <= most:
        return pairs
    return [pairs[i] for i in np.sort(generator.permutation(len(pairs))[:most])]


def _spread(pairs: list[Pair], table: pd.DataFrame, most: int | None, generator: np.random.Generator) -> list[Pair]:
    """At most so many pairs, as many of each (donor init, recipient init) as of any other, give or take one."""
    if most is None or len(pairs) <= most:
        return pairs
    shuffled = [pairs[i] for i in generator.permutation(len(pairs))]
    seen: dict[tuple, int] = {}
    rounds = []
    for a, b in shuffled:
        inits = table["init"][a], table["init"][b]
        seen[inits] = seen.get(inits, 0) + 1
        rounds.append(seen[inits])
    return sorted(shuffled[i] for i in np.argsort(rounds, kind="stable")[:most])


def _name_what_is_left_out(result: Result, sets_N: list[EvaluationSet], pairs: int, of: int, seed: int, max_examples: int | None) -> None:
    if pairs < of:
        result.omissions.append(f"transplant: {pairs} of {of} pairs of runs were scored, drawn by seed {seed} (max_pairs=null scores all).")
    short = [evaluation_set for evaluation_set in dict.fromkeys(sets_N) if evaluation_set.n < evaluation_set.of]
    if short:
        names = ", ".join(f"{evaluation_set.task.name} ({evaluation_set.of})" for evaluation_set in short)
        result.omissions.append(f"transplant: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of {names} (max_examples=null scores all).")


# What is scored: {(kind, alpha): [(prompt, evaluation_set, runs it is made of), ...]}


def _prompts(
    runs: RunTable, sets_N: list[EvaluationSet], pairs: list[Pair], compositions: list[Pair], alphas: list[float], generator: np.random.Generator
) -> dict[tuple[str, float], list[tuple[np.ndarray, EvaluationSet, Pair]]]:
    # In float64 P0 + (P - P0) is P to the last bit: the trained prompt itself is scored.
    p0_NPd = runs.prompts("initial").astype(np.float64)
    delta_NPd = runs.prompts().astype(np.float64) - p0_NPd
    used = sorted({run for pair in pairs for run in pair})
    kinds = {}
    for alpha in alphas:
        kinds["own", alpha] = [(p0_NPd[b] + alpha * delta_NPd[b], sets_N[b], (b, b)) for b in used]
        kinds["transplant", alpha] = [(p0_NPd[b] + alpha * delta_NPd[a], sets_N[b], (a, b)) for a, b in pairs]
    kinds["random_delta", 1.0] = [(p0_NPd[b] + random_like(delta_NPd[a], generator), sets_N[b], (a, b)) for a, b in pairs]
    others = {a: [r for r in range(len(runs)) if _other_task(runs.table, a, r)] for a in used}
    met = [(a, b, others[a][generator.integers(len(others[a]))]) for a, b in pairs if others[a]]
    if met:
        kinds["other_task_delta", 1.0] = [(p0_NPd[b] + delta_NPd[r], sets_N[b], (a, b)) for a, b, r in met]
    for a, b in compositions:
        for scored, other in ((a, b), (b, a)):
            start, delta, further = p0_NPd[scored], delta_NPd[scored], delta_NPd[other]
            for kind, prompt_Pd in {
                "sum": start + delta + further,
                "own_delta": start + delta,
                "other_delta": start + further,
                "random_delta": start + delta + random_like(further, generator),
            }.items():
                kinds.setdefault((f"composition.{kind}", 1.0), []).append((prompt_Pd, sets_N[scored], (other, scored)))
    return kinds


def _score(lm: FrozenLM, kinds: dict[tuple[str, float], list]) -> dict[tuple[str, float], Scored]:
    asked = [(prompt_Pd, evaluation_set) for cells in kinds.values() for prompt_Pd, evaluation_set, _ in cells]
    correct = iter(score(lm, [prompt_Pd for prompt_Pd, _ in asked], [evaluation_set for _, evaluation_set in asked]))
    return {key: Scored([next(correct) for _ in cells], [c[1] for c in cells], [c[2] for c in cells]) for key, cells in kinds.items()}


# What is told.


def _table(table: pd.DataFrame, scored: dict[tuple[str, float], Scored]) -> pd.DataFrame:
    rows = []
    for (kind, alpha), cells in scored.items():
        for correct_E, evaluation_set, (donor, recipient) in zip(cells.correct_S, cells.sets_S, cells.runs_S, strict=True):
            low, high = wilson(int(correct_E.sum()), evaluation_set.n)
            rows.append({
                "kind": kind, "alpha": alpha, "task": evaluation_set.task.name, "seed": table["seed"][recipient], "donor": table["init"][donor],
                "recipient": table["init"][recipient], "donor_task": table["task"][donor], "accuracy": correct_E.mean(), "low": low, "high": high, "n": evaluation_set.n,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _heatmap(accuracies: pd.DataFrame) -> pd.DataFrame:
    whole = accuracies[accuracies["kind"].isin(["own", "transplant"]) & (accuracies["alpha"] == 1.0)]
    cells = whole.groupby(["donor", "recipient"], sort=False)["accuracy"]
    return cells.agg(accuracy="mean", pairs="size").reset_index()


def _tell_pairs(result: Result, scored: dict[tuple[str, float], Scored], table: pd.DataFrame, alphas: list[float], bootstrap: Bootstrap) -> None:
    moved, own = scored["transplant", 1.0], scored["own", 1.0]
    named = {"own": (own, "runs"), "initial": (scored["own", 0.0], "runs"), "transplant": (moved, "pairs of runs")}
    named |= {kind: (scored[kind, 1.0], "pairs of runs") for kind in ("random_delta", "other_task_delta") if (kind, 1.0) in scored}
    for alpha in alphas:
        named |= {f"alpha.{alpha:g}": (scored["transplant", alpha], "pairs of runs"), f"own.alpha.{alpha:g}": (scored["own", alpha], "runs")}
    for evaluation_set in dict.fromkeys(moved.sets_S):
        named[f"transplant.{evaluation_set.task.name}"] = (moved.on(evaluation_set), "pairs of runs")
    for name, (cells, unit) in named.items():
        result.number(name, cells.mean, len(cells), unit, *bootstrap.interval(cells))

    by_run = {members[0]: s for s, members in enumerate(own.runs_S)}
    trained = Scored([own.correct_S[by_run[b]] for _, b in moved.runs_S], moved.sets_S, moved.runs_S)
    controls = {"own": trained, "initial": scored["transplant", 0.0]} | {kind: scored[kind, 1.0] for kind in ("random_delta", "other_task_delta") if (kind, 1.0) in scored}
    for kind, control in controls.items():
        same = moved if len(control) == len(moved) else moved.where(lambda s, met=set(control.runs_S): moved.runs_S[s] in met)
        result.findings.append(_compared(result, f"difference.{kind}", same, control, bootstrap, "Another init's delta on this init's P0", "pairs of runs", *WORDS[kind]))


WORDS = {
    "own": ("the init's own trained prompt", "it works better than the prompt trained from there", "it cannot be told from the prompt trained from there", "part of the delta holds only for its own init"),
    "initial": ("P0 alone", "the delta carries over", "nothing shows that the delta carries over", "the delta does harm"),
    "random_delta": ("a random delta of the same length", "its direction matters", "nothing shows that its direction matters", "a random direction does better"),
    "other_task_delta": ("another task's delta", "what carries over belongs to the task", "nothing shows that what carries over belongs to the task", "another task's does better"),
    "composition.own_delta": ("the task's delta alone", "the second delta helps", "the second delta costs nothing that shows", "the second delta disturbs the first"),
    "composition.other_delta": ("the other delta alone", "the sum knows the task", "nothing shows that the sum knows the task better than the other delta", "the sum knows the task less than the other delta"),
    "composition.random_delta": ("the task's delta and a random one of the other's length", "the other delta disturbs less than noise", "the other delta cannot be told from noise", "the other delta disturbs more than noise"),
}  # fmt: skip
"""What the control is; what a higher, an equal and a lower accuracy than its means."""


def _compared(result: Result, name: str, cells: Scored, control: Scored, bootstrap: Bootstrap, what: str, unit: str, other: str, more: str, same: str, less: str) -> Finding:
    difference, low, high = bootstrap.difference(cells, control)
    result.number(name, difference, len(cells), unit, low, high)
    meaning = more if low > 0 else less if high < 0 else same
    mean, control_mean = (percent(c.mean, *bootstrap.interval(c)) for c in (cells, control))
    sentence = f"{what} solves {mean} of the test examples, {other} {control_mean}: {points(difference, low, high)}, so {meaning} (n = {len(cells)} {unit}, {cells.examples} test examples)."
    return Finding(sentence, difference, len(cells), unit, low, high)


def _tell_compositions(result: Result, scored: dict[tuple[str, float], Scored], bootstrap: Bootstrap) -> None:
    for kind in ("sum", "own_delta", "other_delta", "random_delta"):
        cells = scored[f"composition.{kind}", 1.0]
        result.number(f"composition.{kind}", cells.mean, len(cells), "prompts and tasks", *bootstrap.interval(cells))
    for kind in ("own_delta", "other_delta", "random_delta"):
        control, name = scored[f"composition.{kind}", 1.0], f"composition.{kind}"
        what = "The sum of two tasks' deltas on one P0"
        result.findings.append(_compared(result, f"difference.{name}", scored["composition.sum", 1.0], control, bootstrap, what, "prompts and tasks", *WORDS[name]))


def _heatmap_figure(heatmap: pd.DataFrame, inits: list[str]) -> str:
    grid = heatmap.pivot(index="donor", columns="recipient", values="accuracy").reindex(index=inits, columns=inits).to_numpy()
    with panels(height=max(2.6, 0.3 * len(inits) + 1.2), width=max(4.0, 0.45 * len(inits) + 2)) as (figure, axes):
        axis = axes[0, 0]
        shown = axis.pcolormesh(np.ma.masked_invalid(grid), vmin=0, vmax=1, cmap="Blues")
        for (i, j), value in np.ndenumerate(grid):
            if len(inits) <= 12 and np.isfinite(value):
                axis.text(j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if value > 0.6 else "black")
        axis.set(xticks=np.arange(len(inits)) + 0.5, yticks=np.arange(len(inits)) + 0.5, xlabel="P0 of", ylabel="delta of", title="accuracy of P0 + delta")
        axis.set_xticklabels(inits, rotation=60)
        axis.set_yticklabels(inits)
        axis.invert_yaxis()
        axis.grid(False)
        figure.colorbar(shown, ax=axis, label="test accuracy, mean over tasks")
        return svg(figure)


def _alpha_figure(result: Result, alphas: list[float]) -> str:
    rows = {row["quantity"]: row for row in result.numbers}
    with panels(width=5.0, height=3.2) as (figure, axes):
        axis = axes[0, 0]
        for colour, prefix, label in ((COLOURS[0], "own.alpha", "its own delta"), (COLOURS[2], "alpha", "another init's delta")):
            _with_interval(axis, alphas, [rows[f"{prefix}.{alpha:g}"] for alpha in alphas], label, colour, "-", "o")
        for colour, kind, label, marker in ((COLOURS[9], "random_delta", "a random delta", "x"), (COLOURS[4], "other_task_delta", "another task's delta", "s")):
            if kind in rows:
                _with_interval(axis, [1.0], [rows[kind]], label, colour, "none", marker)
        axis.set(xlabel="alpha", ylabel="test accuracy", ylim=(-0.03, 1.03), title="P0 + alpha x delta")
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure)


def _with_interval(axis, x: list[float], rows: list[dict], label: str, colour: str, line: str, marker: str) -> None:
    values = np.array([row["value"] for row in rows])
    bars = np.clip([values - [row["low"] for row in rows], [row["high"] for row in rows] - values], 0, None)
    axis.errorbar(x, values, yerr=bars, label=label, color=colour, linestyle=line, marker=marker, markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2)
