"""How far does prompt tuning get? Trained prompts beside demonstrations in the context, and beside nothing at all.

Demonstrations are training examples, written as the task's template writes them, label and all, where the prompt would
stand. A prompt has seen its whole training split, they are a few examples of it: the comparison is of what is to be had
from a task's data, not of two ways to use the same examples.

Shapes: N runs, L tokens of demonstrations, d width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.demonstrations import embedded, fitting, require_prompt_first, room_before
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, svg
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
    sampled_examples,
    score_kinds,
)
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

LABELS = {"trained": "trained prompts", "in_context": "demonstrations", "none": "no prompt"}
"""Kinds of scored prompts, in words."""
COMPARED = (("trained", "in_context"), ("trained", "none"), ("in_context", "none"))


@dataclass(frozen=True, eq=False)
class _Demonstrations:
    """A draw of training examples, as the prompt that they are."""

    task: EvaluationSet
    ids: list[int]
    """Of the examples, in the order in which they stand."""
    tokens: np.ndarray
    """[L] int64."""


@question(lm=True, factors=("prompt_length",))
def in_context(
    runs: RunTable,
    *,
    lm: LM,
    shots: int = 5,
    sets: int = 6,
    max_examples: int | None = None,
    seed: int = 0,
) -> Result:
    """Scores a task's trained prompts, `sets` draws of `shots` demonstrations of it, and the model alone.

    Numbers `<kind>.<task>`: accuracies. Kinds: `trained`, `in_context` (both a mean over runs, or draws) and `none`.
    `<kind>.all`: each task weighs the same; `difference.<kind>.<other>`: of these means. Tables: `accuracies`, a row
    per kind and task; `scored`, a row per run and draw, with the demonstrations' examples.

    Intervals are over runs (draws of demonstrations are theirs) and over test examples, half-widths added in squares.
    Demonstrations that the model has no positions for are left out, the last ones first, and counted.

    Args:
        shots: demonstrations of one draw.
        sets: draws of demonstrations of each task, by seed.
        max_examples: test examples of a task, drawn by seed; None: all.
        seed: of these, of the draws, and of the bootstrap of test examples.

    Raises UserError for prompts that were trained elsewhere, for a task with fewer training examples than shots, where
    a template has text before the prompt, and where not one demonstration fits.
    """
    if shots < 1 or sets < 2:
        raise UserError(f"in_context: shots={shots}, sets={sets}: at least 1 and 2 are needed")
    sets_N = evaluation_sets(runs, "in_context", max_examples, seed)
    result, bootstrap = Result(), Bootstrap(seed=seed)
    result.omissions += sampled_examples("in_context", sets_N, max_examples, seed)
    drawn = [each for evaluation_set in dict.fromkeys(sets_N) for each in _drawn(lm, evaluation_set, shots, sets, seed)]
    result.omissions += _not_fitting(drawn, shots)
    scored = score_kinds(lm, _candidates(runs, lm, sets_N, drawn), tasks_equal=True)
    on_task = {
        kind: {each: add_mean(result, f"{kind}.{each.task.name}", prompts.on(each), bootstrap) for each in prompts.sets}
        for kind, prompts in scored.items()
    }
    overall = {kind: add_mean(result, f"{kind}.all", prompts, bootstrap) for kind, prompts in scored.items()}
    said = f"{'up to ' if any(len(each.ids) < shots for each in drawn) else ''}{shots} {LABELS['in_context']}"
    for kind, other in COMPARED:
        result.findings.append(_compared(result, kind, other, scored, overall, said, bootstrap))
    result.tables["accuracies"] = accuracy_table(scored, on_task)
    result.tables["scored"] = _table(runs, scored, drawn)
    result.figures["accuracies"] = _figure(scored, on_task)
    return result


# Demonstrations.


def _drawn(lm: LM, evaluation_set: EvaluationSet, shots: int, sets: int, seed: int) -> Iterator[_Demonstrations]:
    """The draws of one task."""
    task = evaluation_set.task
    if len(task.train) < shots:
        raise UserError(
            f"in_context: task {task.name} has {len(task.train)} training examples, shots={shots} are asked for; "
            f"set analysis.in_context.shots={max(len(task.train), 1)}"
        )
    require_prompt_first("in_context", task)
    room = room_before(lm, evaluation_set)
    for s in range(sets):
        order = np.random.default_rng([seed, s]).permutation(len(task.train))[:shots]
        shown, tokens = fitting(lm, task, [task.train[int(i)] for i in order], room)
        if not shown:
            raise UserError(
                f"in_context: the model has no positions for a demonstration of task {task.name} beside its longest "
                "test example; choose other runs (where=...)"
            )
        yield _Demonstrations(evaluation_set, [each.id for each in shown], np.array(tokens, dtype=np.int64))


def _not_fitting(drawn: Sequence[_Demonstrations], shots: int) -> list[str]:
    """What is said of tasks some of whose draws are shorter than was asked for."""
    fewest: dict[str, int] = {}
    for each in drawn:
        name = each.task.task.name
        fewest[name] = min(fewest.get(name, shots), len(each.ids))
    short = [f"{name} (as few as {count})" for name, count in fewest.items() if count < shots]
    if not short:
        return []
    return [f"in_context: the model has no positions for {shots} demonstrations of {', '.join(short)}."]


def _candidates(
    runs: RunTable, lm: LM, sets_N: Sequence[EvaluationSet], drawn: Sequence[_Demonstrations]
) -> list[Candidate[str]]:
    """A draw counts as a run of its own."""
    trained = [Candidate("trained", run.prompt(), sets_N[n], (n,)) for n, run in enumerate(runs.runs or [])]
    shown = [
        Candidate("in_context", embedded(lm, each.tokens), each.task, (len(runs) + k,)) for k, each in enumerate(drawn)
    ]
    alone = [Candidate("none", np.zeros((0, lm.width), np.float32), each, ()) for each in dict.fromkeys(sets_N)]
    return trained + shown + alone


# What is said, and kept.


def _compared(
    result: Result,
    kind: str,
    other: str,
    scored: dict[str, Scored],
    overall: dict[str, Number],
    demonstrations: str,
    bootstrap: Bootstrap,
) -> Finding:
    """Adds the difference of two kinds; returns what it says. demonstrations: in words, with their number."""
    difference = add_difference(result, f"difference.{kind}.{other}", scored[kind], scored[other], bootstrap)
    verdict = difference.verdict("more than", "not detectably more or less than", "less than")
    words = LABELS | {"in_context": demonstrations}
    counts = {"trained": f"{len(scored['trained'])} runs", "in_context": f"{len(scored['in_context'])} draws"}
    of = ", ".join([f"{len(scored[kind].sets)} tasks", *(counts[each] for each in (kind, other) if each in counts)])
    first = words[kind][0].upper() + words[kind][1:]
    sentence = (
        f"{first} solve {in_percent(overall[kind])} of the test examples, {verdict} {words[other]}, "
        f"{in_percent(overall[other])}: {in_points(difference)}{difference.alike} (n = {difference.number.n} test "
        f"examples, {of}{difference.reach})."
    )
    return Finding.of(difference.number, sentence)


def _table(runs: RunTable, scored: dict[str, Scored], drawn: Sequence[_Demonstrations]) -> pd.DataFrame:
    """A row per run and draw. number: of the run, or of the draw among those of its task."""
    rows = [
        {"kind": "trained", "task": runs.table["task"].iloc[n], "number": n, "accuracy": accuracy}
        for n, accuracy in enumerate(scored["trained"].accuracy_S)
    ]
    for k, (each, accuracy) in enumerate(zip(drawn, scored["in_context"].accuracy_S, strict=True)):
        number = sum(earlier.task is each.task for earlier in drawn[:k])
        row = {"kind": "in_context", "task": each.task.task.name, "number": number, "accuracy": accuracy}
        rows.append(row | {"tokens": len(each.tokens), "examples": "|".join(map(str, each.ids))})
    return pd.DataFrame(rows).astype({"tokens": "Int64"})


def _figure(scored: dict[str, Scored], on_task: dict[str, dict[EvaluationSet, Number]]) -> str:
    """A row per task: each run and draw as a point, their means with 95 % intervals."""
    tasks = list(on_task["none"])
    colours = {"trained": COLOURS[0], "in_context": COLOURS[1], "none": NEUTRAL}
    with panels(height=1.1 + 0.45 * len(tasks), width=6.0) as (figure, axes):
        axis = axes[0, 0]
        for k, (kind, numbers) in enumerate(on_task.items()):
            behind = None if kind == "none" else [scored[kind].on(each).accuracy_S for each in tasks]
            places = np.arange(len(tasks)) + 0.24 * (k - 1)
            shown, style = [numbers[each] for each in tasks], {"color": colours[kind], "label": LABELS[kind]}
            estimates(axis, places, shown, behind, across=0.16, sideways=True, **style)
        axis.set(yticks=np.arange(len(tasks)), xlabel="test accuracy", ylabel="task", xlim=(-0.04, 1.04))
        axis.set_yticklabels([each.task.name for each in tasks])
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        seen = "Accuracy of trained prompts, of demonstrations and of the model alone, with 95 % intervals; "
        return svg(figure, seen + "faint: single runs and draws")
