"""What is left of a soft prompt when its tokens change places, are repeated, left out or added up?

Scored on the runs' test examples. Study 1 (Promptmanteau) tried this on one prompt of three tokens that means +1.

Kinds of prompts made of a trained prompt's tokens. `trained`: as they are. `order`: in every other order.
`subset.<k>`: every k of them, in order. `repeat.<k>`: each one k times. `sum`: their sum as one token. `delta_sum`: a
P0 token plus the sum of all deltas, for each P0 token. Beside them `initial`: P0; `initial_sum`: the sum of its tokens;
`random_sum`: a P0 token plus each of a few random directions as long as the sum of the deltas; `none`: no prompt.

Claims, of number tasks: `orders_work` and `repeats_fail` (over and under `well` times the trained prompts' accuracy),
`one_token_numeric` (over the share `enough`, which neither P0 nor no prompt must reach), `sum_of_deltas` (more than the
sum of the tokens and than random directions; not so by 5 points, it fails). Premises: at least 3 runs, and the trained
prompts solve more than P0 and no prompt. Of several tasks, a claim holds if it does for all, and fails where one task
shows it at a level adjusted for their number.

Shapes: N runs, S scored prompts, P prompt tokens, d width, E test examples of a task.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import Premise, decided, for_all
from promptgeo.analysis.figures import COLOURS, estimates, small_multiples, svg
from promptgeo.analysis.groups import TaskRuns, by_task
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.analysis.scoring import (
    ALIKE,
    LEAST_RUNS,
    Answers,
    Bootstrap,
    Candidate,
    Difference,
    Estimate,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    answers,
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
    RANDOM_SUM,
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
    "random_sum": "a P0 token plus random directions of that length",
    "initial": "P0",
    "initial_sum": "the sum of P0's tokens",
}
"""Kinds of prompts, in findings; see _words for the others."""
SHORT = {
    "trained": "the trained prompt",
    "order": "another order",
    "sum": "sum of its tokens",
    "delta_sum": "P0 token + sum of deltas",
    "random_sum": "P0 token + random",
    "initial": "P0",
    "initial_sum": "sum of P0's tokens",
    "none": "no prompt",
}
"""The same in the figure, where room is short."""


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
    trained prompts; `difference.delta_sum.sum.<task>` and `.delta_sum.random_sum.` likewise. `over_bar.<kind>.<task>`:
    the kind less `well` times the trained prompts. Where a task adds c to its input,
    `repeat.<k>.<task>.as_plus_<k c>` scores the repeats on what they would mean if meanings added up, and
    `difference.repeat.<k>.<task>.as_plus_<k c>` compares with a token once, scored on the same.

    Table `prompts`: a row per scored prompt, with Wilson's interval. Intervals of means are over runs (Student's t) and
    test examples. What is drawn in place of all is named.

    Args:
        repeats: how often a token is repeated, beside P times.
        number: a regular expression.
        max_orders: other orders of a prompt's tokens, drawn by seed where there are more.
        max_subsets: subsets of each size, likewise.
        max_runs: runs of a task and prompt length, likewise; None: all.
        max_examples: test examples of a task, likewise; None: all.
        well: times the trained prompt's accuracy: from there on an operation works.
        enough: share of outputs that are numbers, from which a token is enough to make them so.
        draws, seed: of test examples; the seed also draws what is scored.

    Raises UserError where no prompt has two tokens, or for prompts that were trained elsewhere.
    """
    if max_orders < 1 or max_subsets < 1 or any(not 2 <= k <= 1000 for k in repeats):
        raise UserError("token_operations: needs max_orders >= 1, max_subsets >= 1 and repeats from 2 to 1,000")
    result, generator = Result(), np.random.default_rng(seed)
    tasks = by_task(runs, "token_operations", max_examples, seed)
    groups = _groups(tasks, re.compile(number), max_runs, generator, result)
    prompts = []
    for group in groups:
        choice = Choice.draw(group.task_runs.length, max_orders, max_subsets, repeats, generator)
        result.omissions += _omissions(group.task_runs, choice, max_subsets)
        prompts.append(_prompts(lm, group, choice, generator))
    scores = _score(lm, prompts, re.compile(number))
    bootstrap = Bootstrap(draws, seed)
    reports = [
        _report(result, group, of_group, bootstrap, well) for group, of_group in zip(groups, scores, strict=True)
    ]
    result.omissions += sampled_examples("token_operations", [g.evaluation_set for g in groups], max_examples, seed)
    result.claims += _claims([report for report in reports if report.group.numbers], enough)
    result.tables["prompts"] = _table(groups, scores, runs.table)
    result.figures["operations"] = _figure(reports, scores)
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
    """A group's numbers, and what its claims rest on."""

    group: _Group
    well: float
    runs: int
    """Independent runs."""
    accuracy: dict[Kind, Number]
    numeric: dict[Kind, Number]
    """The share of outputs that are numbers; empty where labels are none."""
    differences: dict[Kind, Difference]
    """Of each kind less the trained prompts."""
    over_bar: dict[Kind, Difference]
    """Of other orders, and of a token twice, less `well` times the trained prompts."""
    deltas: dict[Kind, Difference]
    """The sum of deltas on a P0 token less the sum of the tokens, less random directions; empty without P0."""
    one_token: Estimate
    """The share of a single token's outputs that are numbers."""

    @property
    def needs(self) -> str:
        """What would decide a claim whose interval does not."""
        return f"more runs than {self.runs}, or more test examples"

    @property
    def own(self) -> list[Kind]:
        """The kinds that are scored on the task's own labels."""
        return [kind for kind in self.accuracy if kind.adds is None]


def _report(result: Result, group: _Group, scores: dict[Kind, _Scores], bootstrap: Bootstrap, well: float) -> _Report:
    """Adds the group's numbers and findings."""
    accuracy, numeric = _report_means(result, group, scores, bootstrap)
    differences = {
        kind: _report_kind(result, group, kind, scores, accuracy[kind], numeric.get(kind), bootstrap)
        for kind in scores
        if kind.adds is None and kind not in (TRAINED, NONE)
    }
    trained = scores[TRAINED].accuracy

    def add(kind: Kind, control: Scored, quantity: str, times: float = 1.0) -> Difference:
        n, own = len(scores[kind]), scores[kind].accuracy
        return add_difference(result, f"{quantity}.{group.name}", own, control, bootstrap, n, "prompts", times)

    differences[NONE] = add(NONE, trained, "difference.none")
    over_bar = {kind: add(kind, trained, f"over_bar.{kind}", well) for kind in (ORDER, _twice(group)) if kind in scores}
    deltas = {}
    if DELTA_SUM in scores:
        known = set(scores[DELTA_SUM].accuracy.runs_S)
        for other in (SUM, RANDOM_SUM):
            deltas[other] = add(DELTA_SUM, _of_runs(scores[other].accuracy, known), f"difference.delta_sum.{other}")
    _report_repeats(result, group, scores, accuracy, bootstrap)
    one_token, runs = bootstrap.mean(scores[ONE_TOKEN].numeric), len(set(trained.runs_S))
    return _Report(group, well, runs, accuracy, numeric, differences, over_bar, deltas, one_token)


def _of_runs(scored: Scored, runs: set[tuple[int, ...]]) -> Scored:
    return scored.where(lambda s: scored.runs_S[s] in runs)


def _twice(group: _Group) -> Kind:
    """A token twice, scored on what that would mean if meanings added up."""
    return Kind("repeat", 2, 2 * group.offset)


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
) -> Difference:
    """Adds and returns a kind less the trained prompts of the same runs: P0 may be known of some runs only.

    accuracy, numeric: the kind's numbers; numeric where labels are numbers.
    """
    of_kind, trained = scores[kind], scores[TRAINED]
    known = set(of_kind.accuracy.runs_S)

    def compared(scored: Scored, trained: Scored, prefix: str = "") -> tuple[Difference, Scored]:
        control = _of_runs(trained, known)
        quantity = f"difference.{prefix}{kind}.{group.name}"
        return add_difference(result, quantity, scored, control, bootstrap, len(scored), "prompts"), control

    difference, control = compared(of_kind.accuracy, trained.accuracy)
    also = ""
    if numeric:
        compared(of_kind.numeric, trained.numeric, "numeric.")
        also = f" ({in_percent(numeric)} of its outputs are numbers)"
    verdict = difference.verdict("more than", "not detectably more or fewer than", "fewer than")
    sentence = (
        f"{group.name}: {_words(kind)} {_verb(kind)} {in_percent(accuracy)} of the test examples{also}, {verdict} "
        f"the trained prompt ({control.mean:.1%}): {in_points(difference)}{difference.alike} "
        f"({of_kind.n}, {group.evaluation_set.n} test examples{difference.reach})."
    )
    result.findings.append(Finding.of(difference.number, sentence))
    return difference


def _report_repeats(
    result: Result, group: _Group, scores: dict[Kind, _Scores], accuracy: dict[Kind, Number], bootstrap: Bootstrap
) -> None:
    """Compares repeats with the token once, scored on what repeats would mean if meanings added up."""
    for kind, of_kind in scores.items():
        if kind.adds is None or kind.what != "repeat":
            continue
        once = scores[replace(ONE_TOKEN, adds=kind.adds)].accuracy
        quantity = f"difference.{kind.operation}.{group.name}{kind.scoring}"
        difference = add_difference(result, quantity, of_kind.accuracy, once, bootstrap, len(of_kind), "prompts")
        verdict = difference.verdict("more than", "not detectably more or fewer than", "fewer than")
        sentence = (
            f"{group.name}: {_words(kind)} gives the input plus {kind.adds} in {in_percent(accuracy[kind])} of the "
            f"test examples, {verdict} the token once ({once.mean:.1%}): {in_points(difference)}{difference.alike} "
            f"({of_kind.n}, {of_kind.accuracy.examples} test examples{difference.reach})."
        )
        result.findings.append(Finding.of(difference.number, sentence))


def _words(kind: Kind, others: Mapping[str, str] = WORDS) -> str:
    if kind.what == "repeat":
        return f"one of its tokens, {kind.count} times"
    if kind.what == "subset":
        return "one of its tokens" if kind.count == 1 else f"{kind.count} of its tokens"
    return others[kind.what]


def _verb(kind: Kind) -> str:
    several = kind.what == "order" or (kind.what == "subset" and kind.count != 1)
    return "solve" if several else "solves"


# Claims.


def _claims(reports: list[_Report], enough: float) -> list[Claim]:
    """The study's claims, which are about a number task: each holds if it holds for every one here."""
    by_name: dict[str, list[Claim]] = {}
    for report in reports:
        for claim in _claims_of(report, len(reports), enough):
            by_name.setdefault(claim.name, []).append(claim)
    return [for_all(claims) for claims in by_name.values()]


def _claims_of(report: _Report, tasks: int, enough: float) -> list[Claim]:
    """The claims as one of so many tasks decides them."""
    premises = _premises(report)
    claims = [_against_bar(report, kind, tasks, premises) for kind in report.over_bar]
    claims.append(_one_token(report, tasks, enough, premises))
    if report.deltas:
        claims.append(_sum_of_deltas(report, tasks, premises))
    return claims


def _against_bar(report: _Report, kind: Kind, tasks: int, premises: list[Premise]) -> Claim:
    """Whether other orders work, or a token twice fails: over or under `well` times the trained prompts."""
    fails, difference = kind != ORDER, report.over_bar[kind]
    what, once = "in another order", ""
    if fails:
        what = f"a token twice, scored on the input plus {kind.adds},"
        once = f"; a token once solves {in_percent(report.accuracy[ONE_TOKEN])}"
    evidence = (
        f"{report.group.name}: {what} {in_percent(report.accuracy[kind])}, against {report.well:g} times the trained "
        f"prompt's {report.accuracy[TRAINED].value:.1%}: {in_points(difference)} "
        f"(n = {difference.number.n} prompts{once})."
    )
    return decided(
        "repeats_fail" if fails else "orders_work",
        difference.estimate.adjusted(tasks, fails),
        evidence,
        below=fails,
        p=difference.estimate.p(0.0),
        premises=premises,
        needs=report.needs,
        quantity=report.accuracy[kind].quantity,
    )


def _one_token(report: _Report, tasks: int, enough: float, premises: list[Premise]) -> Claim:
    """Whether one token makes the output a number, which neither P0 nor no prompt does."""
    single, none, initial = report.one_token, report.numeric[NONE], report.numeric.get(INITIAL)
    evidence = (
        f"{report.group.name}: {in_percent(single)} of a single token's outputs are numbers, of P0's "
        f"{in_percent(initial) if initial else 'not known'}, without a prompt {in_percent(none)}; {enough:.0%} would "
        f"be enough (n = {report.numeric[ONE_TOKEN].n} prompts)."
    )
    can_fail = [
        Premise(
            share is not None and share.interval[1] < enough,
            f"fewer than {enough:.0%} of the outputs {words} are numbers",
            f"a template in which the outputs {words} are rarely numbers",
        )
        for words, share in (("without a prompt", none), ("of P0", initial))
    ]
    return decided(
        "one_token_numeric",
        single.adjusted(tasks),
        evidence,
        threshold=enough,
        p=single.p(enough),
        premises=[*premises, *can_fail],
        needs=report.needs,
        quantity=report.numeric[ONE_TOKEN].quantity,
    )


def _sum_of_deltas(report: _Report, tasks: int, premises: list[Premise]) -> Claim:
    """Whether the sum of the deltas does better than the sum of the tokens, and than random directions."""
    estimates = [difference.estimate for difference in report.deltas.values()]
    lows, highs = zip(*(estimate.adjusted(len(estimates) * tasks) for estimate in estimates), strict=True)
    others = [
        f"{_words(kind)} {in_percent(report.accuracy[kind])}: {in_points(difference)}"
        for kind, difference in report.deltas.items()
    ]
    evidence = (
        f"{report.group.name}: the sum of the deltas on a P0 token {in_percent(report.accuracy[DELTA_SUM])}, "
        f"{', '.join(others)}; less than {100 * ALIKE:.0f} points more count as none "
        f"(n = {report.deltas[SUM].number.n} prompts)."
    )
    # Both at once (an intersection): the lesser of each bound, the larger p.
    return decided(
        "sum_of_deltas",
        (min(lows), min(highs)),
        evidence,
        margin=ALIKE,
        p=max(estimate.p(0.0) for estimate in estimates),
        premises=premises,
        needs=report.needs,
        quantity=report.accuracy[DELTA_SUM].quantity,
    )


def _premises(report: _Report) -> list[Premise]:
    """Of every claim: enough runs, and the trained prompts solve the task as P0 and no prompt do not."""
    premises = [Premise(report.runs >= LEAST_RUNS, f"{LEAST_RUNS} runs or more", f"{LEAST_RUNS} runs or more")]
    for kind, words in ((INITIAL, "P0"), (NONE, "no prompt")):
        known = kind in report.differences
        against = in_percent(report.accuracy[kind]) if known else "not known"
        premises.append(
            Premise(
                known and report.differences[kind].number.interval[1] < 0,
                f"the trained prompts solve more than {words} ({in_percent(report.accuracy[TRAINED])} against "
                f"{against})",
                f"prompts that solve the task as {words} does not",
            )
        )
    return premises


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


def _figure(reports: list[_Report], scores: list[dict[Kind, _Scores]]) -> str:
    """A panel per group: each kind's accuracy, and the share of its outputs that are numbers, with 95 % intervals.

    Behind them the prompts.
    """
    height = 0.9 + 0.24 * max(len(report.own) for report in reports)  # inches: a line per kind
    same: dict[str, Any] = {"x": "share of the test examples", "sharey": False}  # tasks have kinds of their own
    with small_multiples(len(reports), height=height, **same) as (figure, axes):
        for axis, report, of_group in zip(axes, reports, scores, strict=True):
            own = report.own
            places = np.arange(len(own))[::-1]
            style: dict[str, Any] = {"across": 0.2, "sideways": True}
            accuracy_S = [of_group[kind].accuracy.accuracy_S for kind in own]
            numbers = [report.accuracy[kind] for kind in own]
            estimates(axis, places + 0.14, numbers, accuracy_S, color=COLOURS[0], label="accuracy", **style)
            if report.numeric:
                numeric_S = [of_group[kind].numeric.accuracy_S for kind in own]
                numbers = [report.numeric[kind] for kind in own]
                style |= {"marker": "s", "label": "output is a number"}
                estimates(axis, places - 0.14, numbers, numeric_S, color=COLOURS[2], **style)
            labels = [_words(kind, SHORT) for kind in own]
            axis.set(title=report.group.name, xlim=(-0.04, 1.04), yticks=places, yticklabels=labels)
        with_numbers = [axis for axis, report in zip(axes, reports, strict=True) if report.group.numbers]
        handles = (with_numbers or axes)[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=8)
        title = "Prompts whose tokens change places, repeat or are left out, with 95 % intervals; faint: single prompts"
        return svg(figure, title)
