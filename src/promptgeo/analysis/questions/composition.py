"""Do two tasks' prompts together do one task after the other? A direction that study 1 leaves open.

Two prompts are put side by side, averaged, or their deltas added on P0, and scored on outer(inner(input)) for the inner
task's own test inputs.

Which runs meet: those of tasks that go together (COMPOSITIONS), with one init, seed and template; a run with itself
where both tasks are one (no average then: it is the prompt itself). The examples: test inputs of the inner task, with
its label put into the outer task. Those where one task alone gives the composed label are left out, as are training
inputs of the composed task where that is trained too. What comes between may have been a training input of the outer
task.

Shapes: N runs, P prompt tokens, d width, E composed examples, S scored prompts.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.composed_tasks import COMPOSITIONS, Composition, composed_examples
from promptgeo.analysis.figures import COLOURS, estimates, panels, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance, random_like
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import (
    Bootstrap,
    Candidate,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    evaluation_sets,
    in_percent,
    in_points,
    score_kinds,
)
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

KINDS = {
    "outer_inner": "outer's prompt, then inner's",
    "inner_outer": "inner's prompt, then outer's",
    "average": "mean of both prompts",
    "delta_sum": "P0 + both deltas",
    "outer": "outer's prompt alone",
    "inner": "inner's prompt alone",
    "initial": "P0",
    "initial_twice": "P0 twice",
    "random_beside": "a random prompt, then inner's",
    "random_sum": "P0 + inner's delta + random",
    "trained": "trained on the composed task",
    "guessed": "the same prompts against shuffled labels",
}
"""Kinds of scored prompts, and `guessed`, in the figure's legend and in findings."""
WAYS = {
    "outer_inner": "The outer task's prompt put before the inner's",
    "inner_outer": "The outer task's prompt put after the inner's",
    "average": "The mean of both tasks' prompts",
    "delta_sum": "The sum of both tasks' deltas on one P0",
}
"""The kinds that are ways to compose, as findings begin."""
BESIDE, SUMMED = ("outer", "inner", "initial_twice", "random_beside"), ("outer", "inner", "initial", "random_sum")
CONTROLS = {"outer_inner": BESIDE, "inner_outer": BESIDE, "average": SUMMED, "delta_sum": SUMMED}
"""What each way to compose must surpass, beside what it gets by guessing."""
ALL = "all"
"""In place of a composition's name: the mean over all of them."""


@question(lm=True, factors=("template",))
def composition(
    runs: RunTable,
    *,
    lm: LM,
    max_examples: int | None = 60,
    max_pairs: int | None = 8,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Scores prompts made of a run of an outer task and a run of an inner one on the composed task.

    Numbers `<kind>.<outer>_after_<inner>`, accuracies on the composed task, and `<kind>.all`, mean over compositions.
    Ways to compose, with run a of the outer and b of the inner task: `outer_inner` and `inner_outer`, side by side,
    [2P, d] (inner's last in the first: next to the text); `average`, (P_a + P_b) / 2; `delta_sum`,
    P0 + delta_a + delta_b with b's P0. Controls: `outer`, `inner`, `initial` (P0 of b), `initial_twice`;
    `random_beside`, [P0_a + random; P_b], and `random_sum`, P0 + delta_b + random, where each random token is as long
    as a's delta; `trained`, prompts trained on the composed task itself; `guessed.<way>.all`, the way itself against
    labels shuffled among a composition's examples: what some label of the right kind gets without its input.
    `as_inner.<way>.all`, `as_outer.<way>.all`: how often a way does one task only, where these are two and both are
    defined for the input. `difference.<way>.<control>`: of means over compositions.

    Table `accuracies`: one row per scored prompt with Wilson's interval; `examples`: the composed examples. Intervals
    of means are over runs (left out one by one) and examples.

    Args:
        max_examples: examples of a composition, drawn by seed; None: all.
        max_pairs: pairs of runs of a composition, drawn by seed; None: all.
        draws: of examples, for intervals.
        seed: draws examples, pairs and random deltas.

    Raises UserError where the runs have no such pair or differ in shape.
    """
    sets_N = evaluation_sets(runs, "composition")
    result, generator = Result(), np.random.default_rng(seed)
    limits = max_examples, max_pairs
    cases = [case for what in COMPOSITIONS for case in _cases(what, runs.table, sets_N, *limits, generator)]
    if not cases:
        names = ", ".join(what.name for what in COMPOSITIONS)
        raise UserError(
            f"composition: needs runs of two tasks that go together, with one init and seed; there are {names}"
        )
    result.omissions += _omissions(cases, runs)
    prompts = _prompts(runs, cases, generator)
    scored = score_kinds(lm, prompts, tasks_equal=True)
    relabelled = {
        answer: score_kinds(lm, _relabelled(prompts, cases, answer), tasks_equal=True)
        for answer in ("as_inner", "as_outer", "guessed")
    }
    bootstrap = Bootstrap(draws, seed)
    result.tables["accuracies"] = _table(runs.table, scored)
    result.tables["examples"] = _examples_table(cases)
    parts = {kind: _by_composition(prompts, cases) for kind, prompts in scored.items()}
    accuracies = _report_accuracies(result, parts, bootstrap)
    other_answers = _report_other_answers(result, relabelled, bootstrap)
    for way in WAYS:
        if way in scored:
            _report_way(result, way, scored, relabelled["guessed"][way], accuracies, other_answers, bootstrap)
    _report_reach(result, scored, accuracies, bootstrap)
    result.figures["accuracies"] = _figure(accuracies, parts)
    return result


# Which runs meet, and on which examples.


@dataclass(frozen=True, eq=False)
class _Case:
    """One composition with its examples and the runs that meet."""

    what: Composition
    evaluation_set: EvaluationSet
    other_labels: dict[str, dict[int, str]]
    """By answer (as_inner, as_outer: one task alone gives it; guessed: another example has it) and the example's id."""
    inner: dict[int, str]
    """By the example's id, the label that the inner task alone gives."""
    pairs: list[tuple[int, int]]
    """(run of the outer task, run of the inner task)."""
    of: int
    """Pairs that there are."""
    trained: list[int]
    """Runs of the composed task itself with an init and a seed of the pairs."""
    trivial: int
    """Examples that were left out because one task alone gives their label."""

    @property
    def name(self) -> str:
        return self.what.name


def _cases(
    what: Composition,
    table: pd.DataFrame,
    sets_N: list[EvaluationSet],
    max_examples: int | None,
    max_pairs: int | None,
    generator: np.random.Generator,
) -> list[_Case]:
    """The composition once for each data or templates its tasks come in; nothing where the runs lack a task."""
    together: dict[tuple[EvaluationSet, EvaluationSet], list[tuple[int, int]]] = {}
    for a, b in _pairs(what, table):
        together.setdefault((sets_N[a], sets_N[b]), []).append((a, b))
    cases = []
    for (outer, inner), pairs in together.items():
        trained = [
            n
            for n in range(len(table))
            if what.same_as == table["task"][n] and any(_fit(table, n, b) for _, b in pairs)
        ]
        known = {e.input for n in trained for e in sets_N[n].task.train}
        composed = composed_examples(outer.task, inner.task, known)
        examples = _drawn(composed.examples, max_examples, generator)
        if not examples:
            continue
        chosen = _drawn(pairs, max_pairs, generator)
        # A cycle through all examples in random order: none is given its own label, though another's may be the same.
        order = generator.permutation(len(examples))
        shuffled = {examples[i].id: examples[j].label for i, j in zip(order, np.roll(order, 1), strict=True)}
        both = composed.outer if what.outer != what.inner else {}
        labels = {"as_inner": {i: composed.inner[i] for i in both}, "as_outer": both, "guessed": shuffled}
        task = replace(inner.task, name=what.name, test=examples)
        limit = max(outer.max_new_tokens, inner.max_new_tokens)
        evaluation_set = EvaluationSet(task, limit, len(composed.examples))
        case = _Case(what, evaluation_set, labels, composed.inner, chosen, len(pairs), trained, composed.trivial)
        cases.append(case)
    return cases


def _pairs(what: Composition, table: pd.DataFrame) -> list[tuple[int, int]]:
    """(run of the outer task, run of the inner task) that have init, seed and template in common."""
    return [
        (a, b)
        for a in range(len(table))
        for b in range(len(table))
        if (table["task"][a], table["task"][b]) == (what.outer, what.inner)
        and _fit(table, a, b)
        and (a == b or what.outer != what.inner)
    ]


def _fit(table: pd.DataFrame, a: int, b: int) -> bool:
    return all(table[column][a] == table[column][b] for column in ("init", "seed", "template"))


def _drawn(items: list, most: int | None, generator: np.random.Generator) -> list:
    """At most so many of them, in their order."""
    if most is None or len(items) <= most:
        return items
    return [items[i] for i in np.sort(generator.choice(len(items), most, replace=False))]


def _omissions(cases: list[_Case], runs: RunTable) -> list[str]:
    """What is left out, and what the pairs of runs lack."""
    omissions = []
    there = {case.what for case in cases}
    if absent := [what.name for what in COMPOSITIONS if what not in there]:
        omissions.append(
            f"composition: {', '.join(absent)}: left out, for these runs lack one of the two tasks at a common init, "
            "seed and template, or no example needs both."
        )
    sampled = [case for case in cases if case.evaluation_set.n < case.evaluation_set.of]
    if sampled:
        most = max(case.evaluation_set.n for case in cases)
        names = ", ".join(f"{case.name} ({case.evaluation_set.of})" for case in sampled)
        omissions.append(
            f"composition: {most} examples, drawn by the seed, stand for all of {names} (max_examples=null scores all)."
        )
    if short := [f"{case.name} ({len(case.pairs)} of {case.of})" for case in cases if len(case.pairs) < case.of]:
        omissions.append(
            "composition: of these, only some pairs of runs were scored, drawn by the seed: "
            f"{', '.join(short)} (max_pairs=null scores all)."
        )
    if trivial := [f"{case.name} ({case.trivial})" for case in cases if case.trivial]:
        omissions.append(
            f"composition: left out as one task alone gives their label: examples of {', '.join(trivial)}."
        )
    initial_NPd = runs.prompts("initial")
    pairs = [pair for case in cases for pair in case.pairs]
    if apart := sum(not np.array_equal(initial_NPd[a], initial_NPd[b]) for a, b in pairs):
        omissions.append(
            f"composition: in {apart} of {len(pairs)} pairs the two runs start from different P0s (a random init "
            "differs by task); their deltas are added to the inner run's (a word as init, or seeds.init, gives both "
            "the same P0)."
        )
    return omissions


# Prompts to score.


def _prompts(runs: RunTable, cases: list[_Case], generator: np.random.Generator) -> list[Candidate[str]]:
    # In float64 P0 + (P - P0) is P to the last bit.
    final_NPd, p0_NPd = runs.prompts().astype(np.float64), runs.prompts("initial").astype(np.float64)
    prompts = []
    for case in cases:
        own = case.evaluation_set
        for a, b in case.pairs:
            random_Pd = random_like(final_NPd[a] - p0_NPd[a], generator)
            made = _composed(final_NPd[a], p0_NPd[a], final_NPd[b], p0_NPd[b], random_Pd)
            if a == b:
                del made["average"], made["inner_outer"]
            members = (a,) if a == b else (a, b)
            prompts += [Candidate(kind, prompt_Pd, own, members) for kind, prompt_Pd in made.items()]
        prompts += [Candidate("trained", final_NPd[n], own, (n,)) for n in case.trained]
    return prompts


def _composed(
    outer_Pd: np.ndarray, outer_p0_Pd: np.ndarray, inner_Pd: np.ndarray, inner_p0_Pd: np.ndarray, random_Pd: np.ndarray
) -> dict[str, np.ndarray]:
    """Each way to compose two prompts, and the controls. random_Pd: token by token as long as the outer one's delta."""
    outer_delta_Pd, inner_delta_Pd = outer_Pd - outer_p0_Pd, inner_Pd - inner_p0_Pd
    return {
        "outer_inner": np.concatenate([outer_Pd, inner_Pd]),
        "inner_outer": np.concatenate([inner_Pd, outer_Pd]),
        "average": (outer_Pd + inner_Pd) / 2,
        "delta_sum": inner_p0_Pd + outer_delta_Pd + inner_delta_Pd,
        "outer": outer_Pd,
        "inner": inner_Pd,
        "initial": inner_p0_Pd,
        "initial_twice": np.concatenate([outer_p0_Pd, inner_p0_Pd]),
        "random_beside": np.concatenate([outer_p0_Pd + random_Pd, inner_Pd]),
        "random_sum": inner_p0_Pd + inner_delta_Pd + random_Pd,
    }


def _relabelled(prompts: list[Candidate[str]], cases: list[_Case], answer: str) -> list[Candidate[str]]:
    """The ways to compose, to be scored on other labels, where these are defined."""
    set_of = {}
    for case in cases:
        labels, own = case.other_labels[answer], case.evaluation_set
        examples = [replace(e, label=labels[e.id], accepted=()) for e in own.task.test if e.id in labels]
        if examples:
            set_of[own] = EvaluationSet(replace(own.task, test=examples), own.max_new_tokens, len(examples))
    return [
        replace(prompt, evaluation_set=set_of[prompt.evaluation_set])
        for prompt in prompts
        if prompt.kind in WAYS and prompt.evaluation_set in set_of
    ]


# Tables, numbers and findings.


def _table(table: pd.DataFrame, scored: dict[str, Scored]) -> pd.DataFrame:
    """A row per scored prompt."""
    rows = []
    for kind, prompts in scored.items():
        for correct_E, evaluation_set, members in zip(prompts.correct_S, prompts.sets_S, prompts.runs_S, strict=True):
            low, high = wilson(int(correct_E.sum()), evaluation_set.n)
            of = {column: table[column][members[-1]] for column in ("init", "seed", "template")}
            score = {"accuracy": correct_E.mean(), "low": low, "high": high, "n": evaluation_set.n}
            rows.append({"kind": kind, "composition": evaluation_set.task.name, **of, **score})
    return pd.DataFrame(rows)


def _examples_table(cases: list[_Case]) -> pd.DataFrame:
    """A row per composed example."""
    return pd.DataFrame(
        [
            {"composition": case.name, "input": e.input, "inner": case.inner[e.id], "label": e.label}
            for case in cases
            for e in case.evaluation_set.task.test
        ]
    )


def _by_composition(prompts: Scored, cases: list[_Case]) -> dict[str, Scored]:
    """A kind's prompts by the composition's name, where there are any, and ALL."""
    sets: dict[str, list[EvaluationSet]] = {}
    for case in cases:
        sets.setdefault(case.name, []).append(case.evaluation_set)
    parts = {name: prompts.on(*own) for name, own in sets.items()}
    return {name: part for name, part in parts.items() if len(part)} | {ALL: prompts}


def _report_accuracies(
    result: Result, parts: dict[str, dict[str, Scored]], bootstrap: Bootstrap
) -> dict[str, dict[str, Number]]:
    """Adds the mean accuracies; as the parts by kind and the composition's name, or ALL."""
    return {
        kind: {name: add_mean(result, f"{kind}.{name}", part, bootstrap) for name, part in of_kind.items()}
        for kind, of_kind in parts.items()
    }


def _report_other_answers(
    result: Result, relabelled: dict[str, dict[str, Scored]], bootstrap: Bootstrap
) -> dict[tuple[str, str], Number]:
    """Adds how often each way to compose gives other answers; by (answer, way)."""
    return {
        (answer, way): add_mean(result, f"{answer}.{way}.all", prompts, bootstrap)
        for answer, ways in relabelled.items()
        for way, prompts in ways.items()
    }


def _report_way(
    result: Result,
    way: str,
    scored: dict[str, Scored],
    guessed: Scored,
    accuracies: dict[str, dict[str, Number]],
    other_answers: dict[tuple[str, str], Number],
    bootstrap: Bootstrap,
) -> None:
    """Compares a way to compose with its controls; the finding is about the best of them.

    Which is best is seen in the same numbers: that can only speak against the way, so that harm is adjusted for it.

    Args:
        guessed: the way's scores on shuffled labels.
        accuracies: by kind and composition.
        other_answers: by answer and way.
    """
    prompts = scored[way]
    controls = {kind: scored[kind].on(*prompts.sets) for kind in CONTROLS[way]} | {"guessed": guessed}
    differences = {
        kind: add_difference(result, f"difference.{way}.{kind}", prompts, control, bootstrap)
        for kind, control in controls.items()
    }
    best = max(controls, key=lambda kind: controls[kind].mean)
    difference = differences[best]
    verdict = difference.verdict(
        "so more composed labels come out than without composing",
        "so nothing shows that it composes the tasks",
        "so composing this way does harm",
        chosen_of=len(controls),
    )
    alone = [
        f"of the {part} task alone {in_percent(other_answers[answer, way])}"
        for part, answer in (("inner", "as_inner"), ("outer", "as_outer"))
        if (answer, way) in other_answers
    ]
    sentence = (
        f"{WAYS[way]} solves {in_percent(accuracies[way][ALL])} of the composed examples, the best of its controls "
        f"({KINDS[best]}) {in_percent(bootstrap.mean(controls[best]))}: {in_points(difference)}, {verdict}"
        f"{'; it gives the label ' if alone else ''}{' and '.join(alone)} "
        f"(n = {prompts.examples} test examples, {len(prompts.parts)} compositions, {len(prompts)} prompts"
        f"{difference.reach})."
    )
    result.findings.append(Finding.of(difference.number, sentence))


def _report_reach(
    result: Result, scored: dict[str, Scored], accuracies: dict[str, dict[str, Number]], bootstrap: Bootstrap
) -> None:
    """Compares the best way to compose with prompts trained on the composed task, where there are such."""
    if "trained" not in scored:
        result.omissions.append(
            "composition: prompts trained on the composed task itself, as what can be reached, need runs of plus_two "
            "beside plus_one."
        )
        return
    trained = scored["trained"]
    ways = {way: scored[way].on(*trained.sets) for way in WAYS if way in scored}
    ways = {way: prompts for way, prompts in ways.items() if len(prompts)}
    way = max(ways, key=lambda name: ways[name].mean)
    difference = add_difference(result, f"difference.{way}.trained", ways[way], trained, bootstrap, n=trained.examples)
    verdict = difference.verdict("more than", "not detectably more or fewer than", "fewer than", chosen_from=len(ways))
    sentence = (
        f"On {', '.join(evaluation_set.task.name for evaluation_set in trained.sets)} the best way to compose "
        f"({KINDS[way]}) solves {in_percent(bootstrap.mean(ways[way]))}, {verdict} prompts trained on the composed "
        f"task {in_percent(accuracies['trained'][ALL])}: {in_points(difference)}{difference.alike} "
        f"(n = {trained.examples} test examples, {len(ways[way])} and {len(trained)} prompts{difference.reach})."
    )
    result.findings.append(Finding.of(difference.number, sentence))


def _figure(accuracies: dict[str, dict[str, Number]], scored: dict[str, dict[str, Scored]]) -> str:
    """A row of points per composition, one for each kind, with 95 % intervals; behind them the prompts.

    accuracies, scored: by kind and the composition's name, or ALL.
    """
    names = [*order_of_appearance([name for by_name in accuracies.values() for name in by_name if name != ALL]), ALL]
    with panels(height=max(3.0, 0.85 * len(names) + 1.4), width=7.2) as (figure, axes):
        axis, step = axes[0, 0], 0.8 / len(accuracies)
        for i, kind in enumerate(kind for kind in KINDS if kind in accuracies):
            own = accuracies[kind]
            places = [names.index(name) + step * (i - (len(accuracies) - 1) / 2) for name in own]
            style: dict[str, Any] = {
                "label": KINDS[kind],
                "marker": "o" if kind in WAYS else "*" if kind == "trained" else "D",
            }
            behind = [scored[kind][name].accuracy_S for name in own]
            colour = COLOURS[i % len(COLOURS)]
            estimates(axis, places, list(own.values()), behind, color=colour, across=0.6 * step, sideways=True, **style)
        axis.set(yticks=range(len(names)), xlabel="accuracy on the composed task's test examples", xlim=(-0.04, 1.04))
        axis.set_yticklabels([name.replace("_after_", " after ") for name in names])
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        title = "Accuracy on composed tasks by what is made of two prompts, with 95 % intervals; faint: single prompts"
        return svg(figure, title)
