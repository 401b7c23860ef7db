"""What is left of a soft prompt when its tokens change places, are repeated, left out or added up?

Scored on the runs' test examples. Study 1 (Promptmanteau) tried this on one prompt of three tokens that means +1.

Kinds of prompts made of a trained prompt's tokens. `trained`: as they are. `order`: in every other order.
`subset.<k>`: every k of them, in order. `repeat.<k>`: each one k times. `sum`: their sum as one token. `delta_sum`: a
P0 token plus the sum of all deltas, for each P0 token. Beside them `initial`: P0; `initial_sum`: the sum of its tokens;
`random_sum`: a P0 token plus a random direction as long as the sum of the deltas; `none`: no prompt.

Shapes: N runs, S scored prompts, P prompt tokens, d width, E test examples of a task.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, small_multiples, svg, with_bars
from promptgeo.analysis.groups import TaskRuns, by_task
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.analysis.scoring import (
    Answers,
    Bootstrap,
    Candidate,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    answers,
    by_sign,
    in_percent,
    in_points,
    sampled_examples,
)
from promptgeo.analysis.token_prompts import (
    DELTA_SUM,
    INITIAL,
    NONE,
    ONE_TOKEN,
    ORDER,
    SUM,
    TRAINED,
    Choice,
    Kind,
    Made,
    delta_prompts,
    token_prompts,
)
from promptgeo.config.schema import Scoring
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

WORDS = {
    "order": "its tokens in another order",
    "sum": "the sum of its tokens",
    "delta_sum": "a P0 token plus the sum of the deltas",
    "random_sum": "a P0 token plus a random direction of that length",
    "initial": "P0",
    "initial_sum": "the sum of P0's tokens",
}
"""Kinds of prompts, in findings; see _words for the others."""


@question(
    lm=True,
    claims=("orders_work", "repeats_fail", "one_token_numeric", "sum_of_deltas"),
    factors=("prompt_length",),
)
def token_operations(
    runs: RunTable,
    *,
    lm: LM,
    repeats: Sequence[int] = (2, 3),
    number: str = r"[+-]?\d+",
    max_orders: int = 23,
    max_subsets: int = 12,
    max_runs: int | None = 8,
    max_examples: int | None = 100,
    well: float = 0.5,
    enough: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Scores, per task and prompt length P >= 2, the module's kinds of prompts made of each trained prompt's tokens.

    Numbers. `<kind>.<task>`: accuracy. `numeric.<kind>.<task>`: the share of outputs that `number` matches as a whole,
    where every label is a number. `difference.<kind>.<task>` and `difference.numeric.<kind>.<task>`: the kind less the
    trained prompts; `difference.delta_sum.sum.<task>` likewise. Where a task adds c to its input,
    `repeat.<k>.<task>.as_plus_<k c>` scores the repeats on what they would mean if meanings added up, and
    `difference.repeat.<k>.<task>.as_plus_<k c>` compares with a token once, scored on the same.

    Table `prompts`: a row per scored prompt, with Wilson's interval. Intervals of means draw whole runs and test
    examples with replacement. What is drawn in place of all is named.

    Claims, of number tasks: `orders_work` and `repeats_fail` (against `well` times the trained prompts' accuracy),
    `one_token_numeric` (against the share `enough`, which must not be reached without a prompt), `sum_of_deltas`.

    Args:
        repeats: how often a token is repeated, beside P times.
        number: a regular expression.
        max_orders: other orders of a prompt's tokens, drawn by seed where there are more.
        max_subsets: subsets of each size, likewise.
        max_runs: runs of a task and prompt length, likewise; None: all.
        max_examples: test examples of a task, likewise; None: all.
        well: times the trained prompt's accuracy: from there on an operation works.
        enough: share of outputs that are numbers, from which a token is enough to make them so.
        draws, seed: of the bootstrap; the seed also draws what is scored.

    Raises UserError where no prompt has two tokens, or for prompts that were trained elsewhere.
    """
    if max_orders < 1 or max_subsets < 1 or any(k < 2 for k in repeats):
        raise UserError("token_operations: needs max_orders >= 1, max_subsets >= 1 and repeats of at least 2")
    result, generator = Result(), np.random.default_rng(seed)
    tasks = by_task(runs, "token_operations", max_examples, seed)
    groups = _groups(tasks, re.compile(number), max_runs, generator, result)
    prompts = []
    for group in groups:
        choice = Choice.draw(group.task_runs.length, max_orders, max_subsets, repeats, generator)
        result.omissions += _omissions(group.task_runs, choice, max_subsets)
        prompts.append(_prompts(lm, group, choice, generator))
    scores = _score(lm, prompts, re.compile(number))
    bootstrap = Bootstrap(len(runs), draws, seed)
    reports = [_report(result, group, of_group, bootstrap) for group, of_group in zip(groups, scores, strict=True)]
    result.omissions += sampled_examples("token_operations", [g.evaluation_set for g in groups], max_examples, seed)
    result.claims += _claims([report for report in reports if report.group.numbers], well, enough)
    result.tables["prompts"] = _table(groups, scores, runs.table)
    result.figures["operations"] = _figure(reports)
    return result


# Which runs.


@dataclass(frozen=True, eq=False)
class _Group:
    """One task's runs of one prompt length."""

    task_runs: TaskRuns
    numbers: bool
    """Whether every label is a number."""

    @property
    def name(self) -> str:
        return self.task_runs.name

    @property
    def evaluation_set(self) -> EvaluationSet:
        return self.task_runs.evaluation_set

    @property
    def offset(self) -> int:
        """c, where every label is its input + c; 0 where there is no such c."""
        try:
            offsets = {int(e.label) - int(e.input) for e in self.evaluation_set.task.test}
        except ValueError:
            return 0
        return offsets.pop() if len(offsets) == 1 else 0


def _groups(
    tasks: list[TaskRuns], number: re.Pattern[str], max_runs: int | None, generator: np.random.Generator, result: Result
) -> list[_Group]:
    """Runs whose prompts have two tokens or more, at most max_runs of a group; names in the result what is left out."""
    groups = []
    for own in tasks:
        if own.length < 2:
            result.omissions.append(
                f"token_operations: the prompts of {own.name} have one token: there is nothing to reorder, leave out "
                "or add up."
            )
            continue
        chosen, n = own, len(own.members)
        if max_runs is not None and n > max_runs:
            chosen = own.only([own.members[i] for i in np.sort(generator.permutation(n)[:max_runs])])
            result.omissions.append(
                f"token_operations: {max_runs} of {n} runs of {own.name} were scored, drawn by seed "
                "(max_runs=null scores all)."
            )
        numbers = all(number.fullmatch(e.label.strip()) for e in own.evaluation_set.task.test)
        if not numbers:
            result.omissions.append(
                f"token_operations: the labels of {own.name} are not numbers, so the share of its outputs that are "
                "numbers is left out."
            )
        groups.append(_Group(chosen, numbers))
    if not groups:
        raise UserError("token_operations: needs prompts of at least two tokens (prompt.length=3); these have one")
    return groups


def _omissions(group: TaskRuns, choice: Choice, max_subsets: int) -> list[str]:
    """Orders and subsets that were drawn in place of all, and runs that have no P0."""
    omissions = []
    if len(choice.orders) < choice.all_orders:
        omissions.append(
            f"token_operations: {len(choice.orders)} of {choice.all_orders} other orders of {group.name} were scored, "
            "drawn by seed (max_orders)."
        )
    if sizes := choice.drawn_sizes:
        omissions.append(
            f"token_operations: {max_subsets} subsets each of {', '.join(map(str, sizes))} tokens of {group.name} were "
            "scored, drawn by seed (max_subsets)."
        )
    if unknown := sum("initial" not in run.tensors for run in group.runs):
        omissions.append(
            f"token_operations: {unknown} of {len(group.members)} runs of {group.name} have no P0; sums of deltas need "
            "one and leave them out."
        )
    return omissions


# Prompts to score.


class _Prompt(NamedTuple):
    candidate: Candidate[Kind]
    tokens: str
    """Which tokens it is made of: "2 0 1"."""


def _prompts(lm: LM, group: _Group, choice: Choice, generator: np.random.Generator) -> list[_Prompt]:
    """What is made of the tokens of the group's prompts, and no prompt."""
    sums = _sums_of_meanings(lm, group, choice.times)
    prompts: list[_Prompt] = []

    def add(made: Made, runs: tuple[int, ...], adds: int | None = None) -> None:
        kind, own = made.kind, group.evaluation_set
        if adds is not None:
            kind, own = replace(kind, adds=adds), sums[adds]
        candidate = Candidate(kind, made.prompt_Qd.astype(np.float32), own, runs)
        prompts.append(_Prompt(candidate, " ".join(map(str, made.tokens_Q))))

    for n, run in zip(group.task_runs.members, group.task_runs.runs, strict=True):
        prompt_Pd = run.prompt().astype(np.float64)
        for made in token_prompts(prompt_Pd, choice):
            add(made, (n,))
            adds = (made.kind.count or 0) * group.offset
            if made.kind.what == "repeat" and adds in sums:
                add(made, (n,), adds)
                add(Made(ONE_TOKEN, made.prompt_Qd[:1], made.tokens_Q[:1]), (n,), adds)
        if "initial" in run.tensors:
            for made in delta_prompts(prompt_Pd, run.prompt("initial").astype(np.float64), generator):
                add(made, (n,))
    add(Made(NONE, np.zeros((0, lm.width)), []), ())
    return prompts


def _sums_of_meanings(lm: LM, group: _Group, times: Sequence[int]) -> dict[int, EvaluationSet]:
    """What repeated tokens would add if meanings added up -> the group's inputs with the labels of that.

    Labels that are several tokens are left out where the template scores one; sums without labels too.
    """
    sums = {}
    task = group.evaluation_set.task
    for adds in [k * group.offset for k in times if group.offset]:
        test = [replace(e, label=str(int(e.input) + adds), accepted=()) for e in task.test]
        if task.template.scoring is Scoring.token:
            test = [e for e, row in zip(test, task.rows(lm, test, 0), strict=True) if len(row.label) == 1]
        if test:
            sums[adds] = replace(group.evaluation_set, task=replace(task, test=test))
    return sums


@dataclass(frozen=True, eq=False)
class _Scores:
    """What the prompts of one kind score."""

    accuracy: Scored
    numeric: Scored
    """Whether the outputs are numbers."""
    tokens_S: list[str]

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def n(self) -> str:
        """In words: prompts and runs."""
        return f"n = {_count(len(self), 'prompt')} of {_count(len(set(self.accuracy.runs_S)), 'run')}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _score(lm: LM, prompts: Sequence[list[_Prompt]], number: re.Pattern[str]) -> list[dict[Kind, _Scores]]:
    """The scores of each group's prompts by kind; all groups are scored together."""
    candidates = [prompt.candidate for of_group in prompts for prompt in of_group]
    prompts_S, sets_S = [c.prompt_Pd for c in candidates], [c.evaluation_set for c in candidates]
    answered = iter(answers(lm, prompts_S, sets_S, outputs=True))
    scores = []
    for of_group in prompts:
        kinds: dict[Kind, list[tuple[_Prompt, Answers]]] = {}
        for prompt in of_group:
            kinds.setdefault(prompt.candidate.kind, []).append((prompt, next(answered)))
        scores.append({kind: _scores(answered_prompts, number) for kind, answered_prompts in kinds.items()})
    return scores


def _scores(prompts: list[tuple[_Prompt, Answers]], number: re.Pattern[str]) -> _Scores:
    sets_S = [prompt.candidate.evaluation_set for prompt, _ in prompts]
    runs_S = [prompt.candidate.runs for prompt, _ in prompts]
    accuracy = Scored([given.correct_E for _, given in prompts], sets_S, runs_S)
    numeric_S = [
        np.array([number.fullmatch(text.strip()) is not None for text in given.outputs_E]) for _, given in prompts
    ]
    return _Scores(accuracy, Scored(numeric_S, sets_S, runs_S), [prompt.tokens for prompt, _ in prompts])


# Numbers and findings.


@dataclass(frozen=True, eq=False)
class _Report:
    """A group's numbers."""

    group: _Group
    accuracy: dict[Kind, Number]
    numeric: dict[Kind, Number]
    """The share of outputs that are numbers; empty where labels are none."""
    deltas: Number | None
    """The sum of deltas on a P0 token less the sum of the tokens; None without P0."""

    @property
    def own(self) -> list[Kind]:
        """The kinds that are scored on the task's own labels."""
        return [kind for kind in self.accuracy if kind.adds is None]


def _report(result: Result, group: _Group, scores: dict[Kind, _Scores], bootstrap: Bootstrap) -> _Report:
    """Adds the group's numbers and findings."""
    accuracy, numeric = _report_means(result, group, scores, bootstrap)
    for kind in scores:
        if kind.adds is None and kind not in (TRAINED, NONE):
            _report_kind(result, group, kind, scores, accuracy[kind], numeric.get(kind), bootstrap)
    deltas = None
    if DELTA_SUM in scores:
        with_p0, sums = scores[DELTA_SUM].accuracy, scores[SUM].accuracy
        known = set(with_p0.runs_S)
        same_runs = sums.where(lambda s: sums.runs_S[s] in known)
        quantity = f"difference.delta_sum.sum.{group.name}"
        deltas = add_difference(result, quantity, with_p0, same_runs, bootstrap, len(with_p0), "prompts")
    _report_repeats(result, group, scores, accuracy, bootstrap)
    return _Report(group, accuracy, numeric, deltas)


def _report_means(
    result: Result, group: _Group, scores: dict[Kind, _Scores], bootstrap: Bootstrap
) -> tuple[dict[Kind, Number], dict[Kind, Number]]:
    """Adds each kind's (accuracy, share of numeric outputs)."""
    accuracy: dict[Kind, Number] = {}
    numeric: dict[Kind, Number] = {}
    for kind, of_kind in scores.items():
        n, unit = (group.evaluation_set.n, "test examples") if kind == NONE else (len(of_kind), "prompts")
        quantity, scored = f"{kind.operation}.{group.name}{kind.scoring}", of_kind.accuracy
        accuracy[kind] = add_mean(result, quantity, scored, bootstrap, n, unit)
        if group.numbers and kind.adds is None:
            quantity, scored = f"numeric.{quantity}", of_kind.numeric
            numeric[kind] = add_mean(result, quantity, scored, bootstrap, n, unit)
    return accuracy, numeric


def _report_kind(
    result: Result,
    group: _Group,
    kind: Kind,
    scores: dict[Kind, _Scores],
    accuracy: Number,
    numeric: Number | None,
    bootstrap: Bootstrap,
) -> None:
    """Compares a kind with the trained prompts of the same runs: P0 may be known of some runs only.

    accuracy, numeric: the kind's numbers; numeric where labels are numbers.
    """
    of_kind, trained = scores[kind], scores[TRAINED]
    known = set(of_kind.accuracy.runs_S)

    def compared(scored: Scored, trained: Scored, prefix: str = "") -> tuple[Number, Scored]:
        control = trained.where(lambda s: trained.runs_S[s] in known)
        quantity = f"difference.{prefix}{kind}.{group.name}"
        return add_difference(result, quantity, scored, control, bootstrap, len(scored), "prompts"), control

    number, control = compared(of_kind.accuracy, trained.accuracy)
    also = ""
    if numeric:
        compared(of_kind.numeric, trained.numeric, "numeric.")
        also = f" ({in_percent(numeric)} of its outputs are numbers)"
    verdict = by_sign(number, "more than", "not distinguishable from", "fewer than")
    sentence = (
        f"{group.name}: {_words(kind)} solves {in_percent(accuracy)} of the test examples{also}, {verdict} "
        f"the trained prompt ({control.mean:.1%}): {in_points(number)} "
        f"({of_kind.n}, {group.evaluation_set.n} test examples)."
    )
    result.findings.append(Finding.of(number, sentence))


def _report_repeats(
    result: Result, group: _Group, scores: dict[Kind, _Scores], accuracy: dict[Kind, Number], bootstrap: Bootstrap
) -> None:
    """Compares repeats with the token once, scored on what repeats would mean if meanings added up."""
    for kind, of_kind in scores.items():
        if kind.adds is None or kind.what != "repeat":
            continue
        once = scores[replace(ONE_TOKEN, adds=kind.adds)].accuracy
        quantity = f"difference.{kind.operation}.{group.name}{kind.scoring}"
        number = add_difference(result, quantity, of_kind.accuracy, once, bootstrap, len(of_kind), "prompts")
        verdict = by_sign(number, "more than", "not distinguishable from", "fewer than")
        sentence = (
            f"{group.name}: {_words(kind)} gives the input plus {kind.adds} in {in_percent(accuracy[kind])} of the "
            f"test examples, {verdict} the token once ({once.mean:.1%}): {in_points(number)} "
            f"({of_kind.n}, {of_kind.accuracy.examples} test examples)."
        )
        result.findings.append(Finding.of(number, sentence))


def _words(kind: Kind) -> str:
    if kind.what == "repeat":
        return f"one of its tokens, {kind.count} times"
    if kind.what == "subset":
        return "one of its tokens" if kind.count == 1 else f"{kind.count} of its tokens"
    return WORDS[kind.what]


# Claims.


def _claims(reports: list[_Report], well: float, enough: float) -> list[Claim]:
    """The study's claims, which are about a number task; they hold if they hold for every one here."""

    def against_trained(report: _Report, kind: Kind, words: str, should_work: bool) -> tuple[bool, str]:
        number, bar = report.accuracy[kind], well * report.accuracy[TRAINED].value
        works = number.value >= bar > 0
        return works == should_work, (
            f"{report.group.name}: {words} {in_percent(number)}, {'at least' if works else 'less than'} {well:g} times "
            f"the trained prompt's accuracy ({bar:.1%}; n = {number.n} prompts)"
        )

    twice = "a token twice, scored on twice the sum,"
    doubled = {report: Kind("repeat", 2, 2 * report.group.offset) for report in reports}
    verdicts = {
        "orders_work": [against_trained(report, ORDER, "in another order", True) for report in reports],
        "repeats_fail": [
            against_trained(report, kind, twice, False) for report, kind in doubled.items() if kind in report.accuracy
        ],
        "one_token_numeric": [_one_token(report, enough) for report in reports],
        "sum_of_deltas": [_sum_of_deltas(report, report.deltas) for report in reports if report.deltas],
    }
    return [
        Claim(
            name, Outcome.of(all(holds for holds, _ in by_task)), "; ".join(evidence for _, evidence in by_task) + "."
        )
        for name, by_task in verdicts.items()
        if by_task
    ]


def _one_token(report: _Report, enough: float) -> tuple[bool, str]:
    """(whether one token makes the output a number and no prompt does not, the evidence)."""
    single, none, initial = (report.numeric.get(kind) for kind in (ONE_TOKEN, NONE, INITIAL))
    assert single and none  # every group has both
    holds = single.value >= enough > none.value
    without = ", and is reached without a prompt: the token has no part in it" if none.value >= enough else ""
    return holds, (
        f"{report.group.name}: {in_percent(single)} of a single token's outputs are numbers, of P0's "
        f"{in_percent(initial) if initial else 'not known'}, without a prompt {in_percent(none)}; "
        f"{enough:.0%} would be enough{without} (n = {single.n} prompts)"
    )


def _sum_of_deltas(report: _Report, difference: Number) -> tuple[bool, str]:
    """(whether the sum of the deltas does better than the sum of the tokens, the evidence)."""
    return difference.interval[0] > 0, (
        f"{report.group.name}: the sum of the deltas on a P0 token {in_percent(report.accuracy[DELTA_SUM])}, the sum "
        f"of the tokens {in_percent(report.accuracy[SUM])}: {in_points(difference)} (n = {difference.n} prompts)"
    )


# Table and figure.


def _table(groups: list[_Group], scores: list[dict[Kind, _Scores]], table: pd.DataFrame) -> pd.DataFrame:
    """A row per scored prompt."""
    every = [
        (group, kind, of_kind, s)
        for group, kinds in zip(groups, scores, strict=True)
        for kind, of_kind in kinds.items()
        for s in range(len(of_kind))
    ]
    rows = []
    for group, kind, of_kind, s in every:
        correct_E, members = of_kind.accuracy.correct_S[s], of_kind.accuracy.runs_S[s]
        low, high = wilson(int(correct_E.sum()), len(correct_E))
        rows.append(
            {
                "task": group.name,
                "kind": str(kind),
                "init": table["init"][members[0]] if members else None,
                "seed": table["seed"][members[0]] if members else None,
                "tokens": of_kind.tokens_S[s],
                "accuracy": correct_E.mean(),
                "low": low,
                "high": high,
                "numeric": of_kind.numeric.correct_S[s].mean() if group.numbers else np.nan,
                "n": len(correct_E),
            }
        )
    return pd.DataFrame(rows)


def _figure(reports: list[_Report]) -> str:
    """A panel per group: each kind's accuracy, and the share of its outputs that are numbers, with 95 % intervals."""
    height = 0.9 + 0.24 * max(len(report.own) for report in reports)  # inches: a line per kind
    with small_multiples(len(reports), height=height, sharex=True) as (figure, axes):
        for axis, report in zip(axes, reports, strict=True):
            own = report.own
            series = (
                (report.accuracy, "accuracy", COLOURS[0], "o", 0.12),
                (report.numeric, "output is a number", COLOURS[2], "s", -0.12),
            )
            for numbers, label, colour, marker, shift in series:
                if numbers:
                    values, bars = with_bars([numbers[kind] for kind in own])
                    places = [len(own) - 1 - k + shift for k in range(len(own))]
                    style = {"marker": marker, "color": colour, "label": label, "linestyle": "none"}
                    axis.errorbar(values, places, xerr=bars, markersize=4, elinewidth=0.8, capsize=2, **style)
            labels = [str(kind) for kind in reversed(own)]
            axis.set(title=report.group.name, xlim=(-0.03, 1.03), yticks=range(len(own)), yticklabels=labels)
        figure.supxlabel("share of the test examples", fontsize=9)
        with_numbers = [axis for axis, report in zip(axes, reports, strict=True) if report.group.numbers]
        handles = (with_numbers or axes)[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure)
