"""Is the mean of a task's trained prompts a prompt for the task? As it is, and as one single new vocabulary token.

The published code of "Are soft prompts actually not interpretable?" scores the latter; its text gives no result.

Shapes: N runs, P prompt tokens, d width.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from promptgeo.analysis.figures import COLOURS, estimates, panels, svg
from promptgeo.analysis.question import question
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import (
    Bootstrap,
    Candidate,
    EvaluationSet,
    Scored,
    accuracy_table,
    add_difference,
    add_mean,
    evaluation_sets,
    in_percent,
    in_points,
    score_kinds,
)
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

LABELS = {
    "runs": "trained prompts",
    "initial": "their P0s",
    "mean_prompt": "mean prompt",
    "mean_token": "mean token",
    "other_task": "another task's mean prompt",
    "other_task_token": "another task's mean token",
    "mean_initial": "mean P0",
    "mean_initial_token": "mean token of the P0s",
}
"""Kinds of scored prompts, in the figure's legend."""
TOKENS = {"mean_prompt": "mean_token", "other_task": "other_task_token", "mean_initial": "mean_initial_token"}
"""A kind of prompts -> their means over positions."""
CONTROLS = {
    "mean_prompt": {
        "runs": "the runs' own prompts on average",
        "other_task": "another task's mean prompt",
        "mean_initial": "the mean of their P0s",
    },
    "mean_token": {
        "runs": "the runs' own prompts on average",
        "other_task_token": "another task's mean token",
        "mean_initial_token": "the mean token of their P0s",
    },
}
"""What a kind is compared with, in words."""


@question(lm=True)
def mean_prompts(runs: RunTable, *, lm: LM, seed: int = 0) -> Result:
    """Scores the mean of each task's trained prompts, [P, d], and its mean over positions, a prompt of one token.

    Numbers `<kind>.<task>`: accuracies on all test examples of a task. Kinds: `mean_prompt` and `mean_token`; `runs`
    and `initial` (means over the runs' own prompts and P0s); as controls `other_task` and `other_task_token` (mean
    over the other tasks' mean prompts and tokens), `mean_initial` and `mean_initial_token` (of the task's P0s).
    `<kind>.all`: mean over the prompts of all tasks, each task weighing the same. `difference.<kind>.<control>`: of
    these means. Table `accuracies`: one row per kind and task.

    A single prompt has Wilson's interval over the test examples. A mean of several is over runs (`runs`, `initial`) and
    test examples; mean prompts are kept as they are: what is said is of these, not of those of other runs.

    seed: of the draws of test examples.
    Raises UserError for prompts that were trained elsewhere or have different shapes.
    """
    sets_N = evaluation_sets(runs, "mean_prompts")
    scored = score_kinds(lm, _prompts(runs, sets_N), tasks_equal=True)
    result, bootstrap = Result(), Bootstrap(seed=seed)
    if "other_task" not in scored:
        result.omissions.append("mean_prompts: another task's mean prompt as a control needs runs of two tasks.")
    on_task: dict[str, dict[EvaluationSet, Number]] = {}
    overall: dict[str, Number] = {}
    for kind, prompts in scored.items():
        on_task[kind] = {}
        for evaluation_set in dict.fromkeys(sets_N):
            quantity, part = f"{kind}.{evaluation_set.task.name}", prompts.on(evaluation_set)
            on_task[kind][evaluation_set] = add_mean(result, quantity, part, bootstrap)
        overall[kind] = add_mean(result, f"{kind}.all", prompts, bootstrap)
    result.tables["accuracies"] = accuracy_table(scored, on_task)
    for kind in CONTROLS:
        _compare(result, kind, scored, overall, bootstrap, len(runs))
    result.figures["accuracies"] = _figure(on_task, scored)
    return result


def _prompts(runs: RunTable, sets_N: list[EvaluationSet]) -> list[Candidate[str]]:
    final_NPd, initial_NPd = runs.prompts(), runs.prompts("initial")
    members = {each: [n for n in range(len(runs)) if sets_N[n] is each] for each in dict.fromkeys(sets_N)}
    means = {each: final_NPd[chosen].mean(0, dtype=np.float64) for each, chosen in members.items()}
    starts = {each: initial_NPd[chosen].mean(0, dtype=np.float64) for each, chosen in members.items()}
    others = [(each, other) for each in means for other in means if other.task.name != each.task.name]
    own = [Candidate("runs", final_NPd[n], sets_N[n], (n,)) for n in range(len(runs))]
    own += [Candidate("initial", initial_NPd[n], sets_N[n], (n,)) for n in range(len(runs))]
    whole = [Candidate("mean_prompt", mean_Pd, each, ()) for each, mean_Pd in means.items()]
    whole += [Candidate("other_task", means[other], each, ()) for each, other in others]
    whole += [Candidate("mean_initial", start_Pd, each, ()) for each, start_Pd in starts.items()]
    tokens = [replace(each, kind=TOKENS[each.kind], prompt_Pd=each.prompt_Pd.mean(0, keepdims=True)) for each in whole]
    return own + whole + tokens


def _compare(
    result: Result, kind: str, scored: dict[str, Scored], overall: dict[str, Number], bootstrap: Bootstrap, runs: int
) -> None:
    """Adds a kind's difference from each of its controls, and the finding."""
    prompts = scored[kind]
    for control, words in CONTROLS[kind].items():
        if control not in scored:
            continue
        difference = add_difference(result, f"difference.{kind}.{control}", prompts, scored[control], bootstrap)
        verdict = difference.verdict("more than", "not detectably more or less than", "less than")
        sentence = (
            f"A task's {LABELS[kind]}, of these runs, solves {in_percent(overall[kind])} of the test examples, "
            f"{verdict} {words} {in_percent(overall[control])}: {in_points(difference)}{difference.alike} "
            f"(n = {difference.number.n} test examples, {len(prompts)} tasks, {runs} runs{difference.reach})."
        )
        result.findings.append(Finding.of(difference.number, sentence))


def _figure(on_task: dict[str, dict[EvaluationSet, Number]], scored: dict[str, Scored]) -> str:
    """A group of points per task, a point per kind, with 95 % intervals; behind them the prompts."""
    sets = list(on_task["runs"])
    with panels(height=3.4, width=max(4.5, 1.3 * len(sets) + 1)) as (figure, axes):
        axis, step = axes[0, 0], 0.84 / len(on_task)
        for k, (kind, by_task) in enumerate(on_task.items()):
            places = np.arange(len(sets)) + (k - (len(on_task) - 1) / 2) * step
            behind = [scored[kind].on(evaluation_set).accuracy_S for evaluation_set in sets]
            style: dict[str, Any] = {"label": LABELS[kind], "marker": "oD"[k // len(COLOURS)]}  # more kinds than hues
            colour = COLOURS[k % len(COLOURS)]
            estimates(axis, places, [by_task[each] for each in sets], behind, color=colour, across=0.6 * step, **style)
        axis.set(xticks=np.arange(len(sets)), xlabel="task", ylabel="test accuracy", ylim=(-0.04, 1.04))
        axis.set_xticklabels([each.task.name for each in sets], rotation=20, ha="right")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        title = "Accuracy of mean prompts beside that of the runs' own, with 95 % intervals; faint: single prompts"
        return svg(figure, title)
