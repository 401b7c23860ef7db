"""How many mutually orthogonal solutions does a task have? Prompts of runs that were pushed apart, and their mixtures.

Study 1's open direction (1). N solutions count only if their mixtures solve the task too: else they are N separate
points, not the corners of one set. N points minus their barycentre sum to zero, so that at best, as the corners of a
regular simplex, every cosine is -1 / (N - 1); two are such corners always. Runs of the same tasks that were not pushed
apart are the control.

Intervals (95 %) draw test examples with replacement, and whole groups where there are several of one N: they hold for
these trainings, for runs of one group depend on each other. Where nothing varies, and near 0 and 1: a count's. That of
the cosine leaves out runs; that of the margin bounds all prompts at once.

Shapes: V unregularised runs of a task, E test examples, B bootstrap draws.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, mean_line, small_multiples, svg
from promptgeo.analysis.geometry.solution_groups import DECISIVE, LABELS, AlikeGroups, Criterion, Group, score_group
from promptgeo.analysis.groups import TaskRuns, by_task, distinct, pushed_apart
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import draw_counts, share_interval
from promptgeo.analysis.result import Finding, Number, Outcome, Result
from promptgeo.analysis.scoring import percent, sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable


@question(lm=True, factors=("prompt_length", "regulariser.name", "regulariser.weight"))
def orthogonal(
    runs: RunTable,
    *,
    lm: LM,
    mixtures: int = 100,
    share: float = 0.9,
    apart: float = 0.1,
    max_examples: int | None = 100,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, for each group of N runs that were trained for one another (regulariser=orthogonal).

    Accuracies `worst.<task>.n<N>` (of the worst prompt), `vertices...` (mean), `mixtures...` (mean over Dirichlet(1)
    mixtures) and `barycentre...`; `cosine...`, the mean |cosine| of P_i minus their barycentre over pairs of runs;
    `margin...`, how far the lowest of worst, mixtures and barycentre lies above the threshold; the same of as many
    unregularised runs as `unregularised.<name>`; `solutions.<task>`, the largest N that counts (0: none). Several
    weights of the regulariser: `.n<N>.w<weight>`; several groups of one N: means, of the margin the least.

    N counts if worst, mixtures and barycentre reach the threshold, `share` of the mean accuracy of the unregularised
    runs (N = 1), and the mean |cosine| is at most 1 / (N - 1) + apart, by the interval of `margin...`: else it does
    not, or these examples cannot say. Random directions are as far apart, and so may be P0s: `p0.cosine...`. A
    regulariser of weight 0 is none.

    Args:
        mixtures: of a group.
        share: of the unregularised accuracy that a group has to reach.
        apart: how far the mean |cosine| may lie above that of a regular simplex.
        max_examples: test examples of a task; null: all.
        draws: of test examples.
        seed: of all that is drawn.

    Raises UserError where no task has two unregularised runs of one prompt length, or for prompts that were trained
    elsewhere.
    """
    if mixtures < 1 or not 0 < share <= 1 or apart < 0:
        raise UserError("orthogonal: needs mixtures >= 1, 0 < share <= 1 and apart >= 0")
    result, generator = Result(), np.random.default_rng(seed)
    families = list(_families(runs, max_examples, seed, result))
    if not families:
        raise UserError(
            "orthogonal: no task has two unregularised runs of one prompt length to compare with; train some with "
            "regulariser=none (-m seed=0,1,2,3)"
        )
    rows: list[dict[str, Any]] = []
    for family in progress(families, "tasks"):
        n = family.task.evaluation_set.n
        drawn_BE = draw_counts(generator, n, draws)
        reference_VE = family.task.evaluation_set.evaluate(lm, family.free.prompts()).correct
        criterion = Criterion(share, apart, reference_VE.astype(np.float64).mean(0))
        groups = [score_group(lm, each, mixtures, generator) for each in (*_controls(family), *family.coupled)]
        _report(result, family, groups, drawn_BE, criterion, generator)
        rows += [_row(family, group, criterion) for group in groups]
    result.tables["groups"] = pd.DataFrame(rows)
    result.figures["groups"] = _figure(result.tables["groups"])
    sets = [family.task.evaluation_set for family in families]
    result.omissions += sampled_examples("orthogonal", sets, max_examples, seed)
    return result


# Which runs belong together.


@dataclass(frozen=True, eq=False)
class _Family:
    """The runs of one task and prompt length: those without a regulariser, and the groups that were pushed apart."""

    task: TaskRuns
    free: TaskRuns
    coupled: list[TaskRuns]


def _families(runs: RunTable, max_examples: int | None, seed: int, result: Result) -> Iterator[_Family]:
    for task in by_task(runs, "orthogonal", max_examples, seed):
        pushed = {n for n, run in zip(task.members, task.runs, strict=True) if pushed_apart(run)}
        free = distinct(runs, [n for n in task.members if n not in pushed])
        if len(free) < 2:
            result.omissions.append(
                f"orthogonal: {task.name} has {len(free)} unregularised runs to compare with; two are needed."
            )
            continue
        coupled = list(coupled_groups(task.only([n for n in task.members if n in pushed]), result))
        if not coupled:
            result.omissions.append(
                f"orthogonal: {task.name} has no runs that were pushed apart (regulariser=orthogonal); its "
                "unregularised runs are reported alone."
            )
        for size in sorted({len(group.members) for group in coupled}):
            if size > len(free):
                result.omissions.append(
                    f"orthogonal: {task.name} has {len(free)} unregularised runs; a control for N = {size} needs as "
                    "many."
                )
        yield _Family(task, task.only(free), coupled)


def coupled_groups(pushed: TaskRuns, result: Result) -> Iterator[TaskRuns]:
    """Groups of runs whose configs differ in their seed alone; those that are incomplete are omissions."""
    groups: dict[str, list[int]] = {}
    for n, run in zip(pushed.members, pushed.runs, strict=True):
        config = run.info["config"]
        keys = ("model", "init", "template", "optimizer", "regulariser", "prompt", "training")
        same = {key: config.get(key) for key in keys}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(n)
    for members in groups.values():
        group = pushed.only(members)
        seeds = list(group.runs[0].info["config"]["regulariser"]["seeds"])
        if sorted(seeds) == sorted(run.info["config"]["seed"] for run in group.runs):
            yield group
        else:
            result.omissions.append(
                f"orthogonal: {pushed.name} has {len(members)} of the {len(seeds)} runs that were coupled; such a "
                "group is left out."
            )


def _controls(family: _Family) -> Iterator[TaskRuns]:
    """For each N as many unregularised runs, where there are as many.

    Of the seeds and inits of the first group of that N, as far as they are there. Without groups: all together.
    """
    free = family.free
    for size in sorted({len(group.members) for group in family.coupled}) or [len(free.members)]:
        if size > len(free.members):
            continue
        like = next((group.runs for group in family.coupled if len(group.members) == size), [])
        wanted = {_init_and_seed(run) for run in like}
        others = [_init_and_seed(run) not in wanted for run in free.runs]
        order = sorted(range(len(others)), key=others.__getitem__)
        yield free.only(sorted(free.members[k] for k in order[:size]))


def _init_and_seed(run: Run) -> tuple[str, int]:
    return run.info["config"]["init"]["name"], run.info["config"]["seed"]


# Numbers and findings.


def _report(
    result: Result,
    family: _Family,
    groups: Sequence[Group],
    drawn_BE: np.ndarray,
    criterion: Criterion,
    generator: np.random.Generator,
) -> None:
    """All that is said of one task."""
    name, n = family.task.name, family.task.evaluation_set.n
    interval = share_interval(drawn_BE @ criterion.reference_E / n, criterion.reference, n)
    result.number(f"unregularised.{name}", criterion.reference, len(family.free.members), "runs", *interval)
    weights = sorted({group.weight for group in groups if group.weight})
    several = len(weights) > 1
    findings: list[Finding] = []
    counting: dict[float, dict[int, tuple[bool, Outcome]]] = {weight: {} for weight in weights}
    for size, weight in sorted({(group.size, group.weight) for group in groups}):
        same = [group for group in groups if (group.size, group.weight) == (size, weight)]
        alike = AlikeGroups.of(same, drawn_BE, generator)
        numbers = _report_numbers(result, name, n, alike, criterion, several, drawn_BE)
        outcome = alike.outcome(criterion, numbers["margin"].interval)
        findings.append(_alike_finding(name, n, alike, numbers, criterion, several, outcome))
        if weight:
            counting[weight][size] = (not alike.lacking(criterion), outcome)
    for weight, counts in counting.items():
        result.findings.append(_report_largest(result, name, n, counts, weight if several else None, criterion))
    result.findings += findings


def _report_numbers(
    result: Result,
    task: str,
    n: int,
    alike: AlikeGroups,
    criterion: Criterion,
    several: bool,
    drawn_BE: np.ndarray,
) -> dict[str, Number]:
    """The accuracies, cosine and margin of one N. n: test examples. several: whether there are several weights."""
    size = alike.size
    prefix = "" if alike.weight else "unregularised."
    place = f"{task}.n{size}" + (f".w{alike.weight:g}" if alike.weight and several else "")
    numbers: dict[str, Number] = {}
    for kind, value in alike.accuracy.items():
        interval = share_interval(alike.drawn[kind], value, n)
        numbers[kind] = result.number(f"{prefix}{kind}.{place}", value, n, "test examples", *interval)
    cosine = float(np.mean([group.cosine for group in alike.groups]))
    low, high = np.mean([group.cosine_interval for group in alike.groups], axis=0).tolist()
    pairs = size * (size - 1) // 2
    numbers["cosine"] = result.number(f"{prefix}cosine.{place}", cosine, pairs, "pairs of runs", low, high)
    p0s = [group.p0_cosine for group in alike.groups if group.p0_cosine is not None]
    if p0s:
        numbers["p0"] = result.number(f"{prefix}p0.cosine.{place}", float(np.mean(p0s)), pairs, "pairs of runs")
    margin, low, high = alike.margins(criterion, drawn_BE)
    numbers["margin"] = result.number(f"{prefix}margin.{place}", margin, n, "test examples", low, high)
    return numbers


def _alike_finding(
    task: str,
    n: int,
    alike: AlikeGroups,
    numbers: dict[str, Number],
    criterion: Criterion,
    several: bool,
    outcome: Outcome,
) -> Finding:
    """Whether one N counts, and by how much."""
    size = alike.size
    if alike.weight:
        what = f"N = {size} solutions pushed apart{f' (weight {alike.weight:g})' if several else ''}"
    else:
        what = f"{size} unregularised solutions"
    lacking = " and ".join(alike.lacking(criterion)) or "worst prompt"
    counts = {
        Outcome.holds: "count",
        Outcome.fails: f"do not count for their {lacking}",
        Outcome.undecidable: "may or may not count, which needs more test examples",
    }[outcome]
    worst, mixtures, barycentre = (percent(numbers[kind].value, *numbers[kind].interval) for kind in DECISIVE)
    margin = numbers["margin"]
    low, high = margin.interval
    p0 = f", of their P0s {numbers['p0'].value:.3f}" if "p0" in numbers else ""
    sentence = (
        f"{task}: {what} {counts}: their worst prompt solves {worst}, their mixtures {mixtures}, their barycentre "
        f"{barycentre}, the lowest {100 * margin.value:+.1f} points from the threshold "
        f"({100 * low:+.1f} to {100 * high:+.1f}; {100 * criterion.share:g} % of the unregularised accuracy); "
        f"mean |cosine| about the barycentre {numbers['cosine'].value:.3f}, of a regular simplex "
        f"{1 / (size - 1):.3f}{p0} "
        f"(n = {n} test examples, {len(alike.groups)} group{'s' if len(alike.groups) > 1 else ''})."
    )
    return Finding.of(margin, sentence)


def _report_largest(
    result: Result,
    task: str,
    n: int,
    counts: dict[int, tuple[bool, Outcome]],
    weight: float | None,
    criterion: Criterion,
) -> Finding:
    """The largest N that counts, of those that were trained.

    counts: of each N whether it counts as it is, and what test examples can say of that: the interval goes from the
    largest N that is sure to count to the largest that may. weight: of the regulariser, where there are several.
    """
    tried = sorted(counts)
    most = max((size for size in tried if counts[size][0]), default=0)
    low = max((size for size in tried if counts[size][1] is Outcome.holds), default=0)
    high = max((size for size in tried if counts[size][1] is not Outcome.fails), default=0)
    suffix = "" if weight is None else f".w{weight:g}"
    number = result.number(f"solutions.{task}{suffix}", most, n, "test examples", low, high)
    above = [size for size in tried if size > most]
    gaps = [str(size) for size in tried if size < most and not counts[size][0]]
    trained = f"of N = {', '.join(map(str, tried))} trained"
    if weight is not None:
        trained += f" with weight {weight:g}"
    if not most:
        largest = "no number of solutions pushed apart counts"
    elif above:
        may_not = "do not" if counts[above[0]][1] is Outcome.fails else "may or may not"
        largest = f"{most} solutions pushed apart fit and {above[0]} {may_not}"
    else:
        largest = f"{most} solutions pushed apart fit, and more were not tried"
    if gaps:
        trained += f", though {', '.join(gaps)} did not"
    sentence = (
        f"{task}: {largest}, {trained} ({low:g} surely{f', {high:g} at most' if high < tried[-1] else ''}; "
        f"N counts if its worst prompt, mixtures and barycentre solve {100 * criterion.share:g} % of what "
        f"unregularised prompts solve, {criterion.reference:.1%}; n = {n} test examples)."
    )
    return Finding.of(number, sentence)


def _row(family: _Family, group: Group, criterion: Criterion) -> dict[str, Any]:
    return (
        {"task": family.task.name, "N": group.size, "weight": group.weight, "init": group.init}
        | group.accuracy
        | {"lowest_mixture": group.mixtures_ME.mean(1).min(), "cosine": group.cosine, "simplex": group.simplex}
        | {"threshold": criterion.threshold, "counts": not criterion.lacking(group)}
        | {"n": family.task.evaluation_set.n}
    )


def _figure(table: pd.DataFrame) -> str:
    """A panel per task: accuracy by the number of solutions, means over groups; behind them each group."""
    tasks = list(dict.fromkeys(table["task"]))
    x, y = "N, solutions that were pushed apart (dashed: threshold)", "test accuracy"
    with small_multiples(len(tasks), x=x, y=y, height=2.6) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            of_task = table[table["task"] == task].reset_index(names="group")
            for kind, colour in zip(DECISIVE, COLOURS, strict=False):
                for pushed, rows in of_task.groupby(of_task["weight"] > 0):
                    style = {"linestyle": "-", "marker": "o"} if pushed else {"linestyle": ":", "marker": "D"}
                    label = f"{LABELS[kind]}{'' if pushed else ', unregularised'}"
                    mean_line(axis, rows, "N", kind, ["group"], color=colour, label=label, **style, markersize=4)
            axis.axhline(of_task["threshold"].iloc[0], color="black", linewidth=0.8, linestyle="--")
            axis.set(title=task, xticks=sorted(set(table["N"])), ylim=(-0.04, 1.04))
        once = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure, "Accuracy of solutions that were pushed apart, and of their mixtures; faint: single groups")
