"""Is the mean of a task's trained prompts a prompt for the task? As it is, and as one single new vocabulary token.

The published code of "Are soft prompts actually not interpretable?" scores the latter; its text does not say what came out.

Shapes: N runs, P prompt tokens, d width.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import Bootstrap, EvaluationSet, Scored, evaluation_sets, percent, points, score
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable

KINDS = {
    "runs": "trained prompts", "initial": "their P0s", "mean_prompt": "mean prompt", "mean_token": "mean token", "other_task": "another task's mean prompt",
    "other_task_token": "another task's mean token", "mean_initial": "mean P0", "mean_initial_token": "mean token of the P0s",
}  # fmt: skip


def mean_prompts(runs: RunTable, *, lm: FrozenLM, seed: int = 0) -> Result:
    """Numbers `<kind>.<task>`, accuracies on all test examples: `mean_prompt`, the mean [P, d] of the task's runs; `mean_token`, its mean over
    positions, a prompt of length 1. Beside them `runs` and `initial` (the runs' own prompts and P0s, means), and as controls `other_task`
    and `other_task_token` (mean over the other tasks' mean prompts and tokens), `mean_initial` and `mean_initial_token` (of the task's P0s).
    `<kind>.all`: mean over the prompts of all tasks. `difference.<kind>`: less `runs`, mean over tasks.

    A single prompt has Wilson's interval over the n test examples; a mean of several draws runs (`runs`, `initial`) and test examples with
    replacement: the mean prompts are those of these runs. Table `accuracies`: one row per kind and task.
    Raises UserError for prompts that were trained elsewhere or have different shapes.
    """
    sets_N = evaluation_sets(runs, "mean_prompts")
    kinds = _prompts(runs, sets_N)
    asked = [cell for cells in kinds.values() for cell in cells]
    correct = iter(score(lm, [prompt_Pd for prompt_Pd, _, _ in asked], [evaluation_set for _, evaluation_set, _ in asked]))
    scored = {
        kind: Scored([next(correct) for _ in cells], [c[1] for c in cells], [c[2] for c in cells], tasks_equal=True) for kind, cells in kinds.items()
    }
    result, bootstrap = Result(), Bootstrap(len(runs), seed=seed)
    if "other_task" not in scored:
        result.omissions.append("mean_prompts: another task's mean prompt as a control needs runs of two tasks.")
    rows = []
    for kind, cells in scored.items():
        for evaluation_set in dict.fromkeys(sets_N):
            on_task = cells.on(evaluation_set)
            low, high = bootstrap.interval(on_task)
            result.number(f"{kind}.{evaluation_set.task.name}", on_task.mean, evaluation_set.n, "test examples", low, high)
            rows.append({"kind": kind, "task": evaluation_set.task.name, "accuracy": on_task.mean, "low": low, "high": high, "prompts": len(on_task), "n": evaluation_set.n})
        result.number(f"{kind}.all", cells.mean, cells.examples, "test examples", *bootstrap.interval(cells))
    result.tables["accuracies"] = pd.DataFrame(rows)
    for kind, control in (("mean_prompt", "other_task"), ("mean_token", "other_task_token")):
        chance = [c for c in (control, kind.replace("mean", "mean_initial").removesuffix("_prompt")) if c in scored]
        result.findings += _findings(result, kind, chance, scored, bootstrap, len(runs))
    result.figures["accuracies"] = _figure(result.tables["accuracies"])
    return result


def _prompts(runs: RunTable, sets_N: list[EvaluationSet]) -> dict[str, list[tuple[np.ndarray, EvaluationSet, tuple[int, ...]]]]:
    """{kind: [(prompt, evaluation_set, runs), ...]}; only kinds that these runs have."""
    final_NPd, initial_NPd = runs.prompts(), runs.prompts("initial")
    members = {evaluation_set: [n for n in range(len(runs)) if sets_N[n] is evaluation_set] for evaluation_set in dict.fromkeys(sets_N)}
    means = {evaluation_set: final_NPd[chosen].mean(0, dtype=np.float64) for evaluation_set, chosen in members.items()}
    starts = {evaluation_set: initial_NPd[chosen].mean(0, dtype=np.float64) for evaluation_set, chosen in members.items()}
    kinds = {
        "runs": [(final_NPd[n], sets_N[n], (n,)) for n in range(len(runs))],
        "initial": [(initial_NPd[n], sets_N[n], (n,)) for n in range(len(runs))],
        "mean_prompt": [(mean_Pd, evaluation_set, ()) for evaluation_set, mean_Pd in means.items()],
        "other_task": [(means[other], evaluation_set, ()) for evaluation_set in means for other in means if other.task.name != evaluation_set.task.name],
        "mean_initial": [(start_Pd, evaluation_set, ()) for evaluation_set, start_Pd in starts.items()],
    }
    for whole, token in (("mean_prompt", "mean_token"), ("other_task", "other_task_token"), ("mean_initial", "mean_initial_token")):
        kinds[token] = [(prompt_Pd.mean(0, keepdims=True), evaluation_set, none) for prompt_Pd, evaluation_set, none in kinds[whole]]
    return {kind: cells for kind, cells in kinds.items() if cells}


def _findings(result: Result, kind: str, controls: list[str], scored: dict[str, Scored], bootstrap: Bootstrap, runs: int) -> list[Finding]:
    """Against the runs' own prompts, then against the controls."""
    cells, findings = scored[kind], []
    mean = percent(cells.mean, *bootstrap.interval(cells))
    for other in ("runs", *controls):
        difference, low, high = bootstrap.difference(cells, scored[other])
        result.number(f"difference.{kind}.{other}", difference, cells.examples, "test examples", low, high)
        verdict = "more than" if low > 0 else "less than" if high < 0 else "not told apart from"
        other_mean = percent(scored[other].mean, *bootstrap.interval(scored[other]))
        sentence = (
            f"A task's {KINDS[kind]} solves {mean} of the test examples, {verdict} {THEIRS[other]} {other_mean}: "
            f"{points(difference, low, high)} (n = {cells.examples} test examples, {len(cells)} tasks, {runs} runs)."
        )
        findings.append(Finding(sentence, difference, cells.examples, "test examples", low, high))
    return findings


THEIRS = {"runs": "the runs' own prompts on average", "other_task": "another task's mean prompt", "other_task_token": "another task's mean token",
          "mean_initial": "the mean of their P0s", "mean_initial_token": "the mean token of their P0s"}  # fmt: skip


def _figure(accuracies: pd.DataFrame) -> str:
    """A group of bars per task, a bar per kind, with 95 % intervals."""
    tasks, kinds = list(dict.fromkeys(accuracies["task"])), list(dict.fromkeys(accuracies["kind"]))
    with panels(height=3.4, width=max(4.5, 1.3 * len(tasks) + 1)) as (figure, axes):
        axis, width = axes[0, 0], 0.84 / len(kinds)
        for k, kind in enumerate(kinds):
            rows = accuracies[accuracies["kind"] == kind]
            bars = np.clip([rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]], 0, None)
            places = np.arange(len(tasks)) + (k - (len(kinds) - 1) / 2) * width
            axis.bar(places, rows["accuracy"], width, yerr=bars, label=KINDS[kind], color=COLOURS[k], error_kw={"elinewidth": 0.7})
        axis.set(xticks=np.arange(len(tasks)), ylabel="test accuracy", ylim=(0, 1.02))
        axis.set_xticklabels(tasks, rotation=20, ha="right")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return svg(figure)
