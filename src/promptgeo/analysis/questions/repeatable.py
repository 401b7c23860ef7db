"""Can a prompt be learned so that k copies of it mean +k, also for a k that was never trained?

A direction that study 1 leaves open. An example says how many copies of the prompt it is scored with
(Example.repeat). Held-out inputs are scored with every k.

Shapes: N runs, P prompt tokens, d width, E test examples with one k.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import Premise, decided
from promptgeo.analysis.figures import COLOURS, GRID, estimates, panels, shares_grid, svg
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.analysis.scoring import (
    LEAST_RUNS,
    Bootstrap,
    Candidate,
    Control,
    Estimate,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    evaluation_sets,
    in_percent,
    in_points,
    score_kinds,
)
from promptgeo.data.tasks import Example, Task
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

KINDS = {
    "trained": "trained on k copies",
    "initial": "its P0",
    "once": "trained on one copy",
    "other_task": "another task's prompt",
    "unprompted": "no prompt",
}
"""Kinds of scored prompts, in the figure's legend."""
MISSING = {
    "once": "a prompt trained on one copy only (task=plus_one for plus_k)",
    "other_task": "another task's prompt (task=plus_two)",
}
"""Controls that need runs of their own."""
CONTROLS = {
    "initial": Control(
        "k copies of its P0", "training taught it", "nothing shows that training taught it", "training undid it"
    ),
    "once": Control(
        "a prompt trained on one copy only, repeated",
        "training with several copies taught it",
        "nothing shows that training with several copies was needed",
        "training with several copies does harm",
    ),
    "other_task": Control(
        "another task's prompt, repeated",
        "it belongs to the task",
        "nothing shows that it belongs to the task",
        "another task's prompt does better",
    ),
}
"""What the trained prompts are compared with."""
HALF = 0.5
"""The accuracy that tells solving from failing, in the claim."""


@question(lm=True, claims=("repeating_fails",))
def repeatable(runs: RunTable, *, lm: LM, max_examples: int | None = None, draws: int = 1000, seed: int = 0) -> Result:
    """Scores k copies of each prompt, for every k that a task's examples have.

    Numbers for each task whose examples have several k, accuracies on held-out inputs: `<kind>.<task>.<k>`, and
    `.seen`, `.unseen`, means over the k that were trained and those that were not. Kinds: `trained`; and as controls, k
    copies each, `initial` (its P0s), `once` (prompts of a task whose labels are those of k = 1, trained on one copy
    only), `other_task` (any other task's prompts), `unprompted`. `read_as.<task>.<k>.<j>`: how often k copies of the
    trained prompt give the label of j copies; `once_as_one.<task>.<k>`: how often those of one trained on one copy only
    give the label of one. `difference.unseen_seen.<task>`, and on unseen k
    `difference.<control>.<task>`, and `difference.read_as.<task>.<k>.<j>.<i>` of the two most frequent readings.

    Table `accuracies`: one row per prompt and k, with Wilson's interval over the E examples. Intervals of means are
    over runs (Student's t) and examples (of each k). Claim `repeating_fails`: two copies of a prompt trained on one
    solve less than half. Premises: 3 runs, and one copy solves more than half, its P0 (`once_initial.<task>.1`) and no
    prompt less.

    max_examples: inputs of each task, drawn by seed; None: all. draws: of examples. seed: of all draws.
    Raises UserError where no run's task has examples with several copies, or runs differ in prompt length or template.
    """
    sets_N = evaluation_sets(runs, "repeatable")
    repeated = [each for each in dict.fromkeys(sets_N) if any(e.repeat != 1 for e in _all(each.task))]
    if not repeated:
        raise UserError(
            "repeatable: needs runs of a task whose examples have several copies of the prompt (task=plus_k)"
        )
    if runs.table["template"].nunique() > 1:
        raise UserError(
            "repeatable: needs runs of one template; these have "
            f"{', '.join(runs.table['template'].unique())} (choose with where=)"
        )
    result, tables = Result(), []
    for own in repeated:
        held_out = _held_out(own, max_examples, seed)
        result.omissions += _omissions(held_out, own, sets_N, max_examples, seed)
        scored = score_kinds(lm, _prompts(runs, sets_N, own, held_out, lm.width), tasks_equal=True)
        bootstrap = Bootstrap(draws, seed)
        tables.append(_table(runs.table, scored, held_out))
        accuracies = _report_accuracies(result, scored, held_out, bootstrap)
        _report_unseen(result, scored["trained"], accuracies["trained"], held_out, bootstrap)
        _report_controls(result, scored, accuracies, held_out, bootstrap)
        readings = _readings(lm, runs, [n for n in range(len(runs)) if sets_N[n] is own], held_out, scored["trained"])
        read_as = _report_readings(result, readings, held_out, bootstrap)
        if "once" in scored:
            members = sorted({n for (n,) in scored["once"].runs_S})
            for (k, _), part in _readings(lm, runs, members, held_out, scored["once"], [1]).items():
                add_mean(result, f"once_as_one.{held_out.name}.{k}", part, bootstrap)
        if "once" in scored and {1, 2} <= set(held_out.set_k):
            start = score_kinds(lm, _initial_once(runs, scored["once"], held_out), tasks_equal=True)["initial"]
            initial = add_mean(result, f"once_initial.{held_out.name}.1", start, bootstrap)
            two = bootstrap.mean(held_out.part(scored["once"], [2]))
            unprompted = accuracies["unprompted"].by_k[1]
            result.claims.append(_claim(accuracies["once"], two, {"its P0": initial, "no prompt": unprompted}))
        result.figures[f"accuracy_{held_out.name}"] = _figure(accuracies, scored, held_out)
        result.figures[f"read_as_{held_out.name}"] = _reading_figure(read_as, held_out)
    result.tables["accuracies"] = pd.concat(tables, ignore_index=True)
    return result


# Examples.


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """A task's held-out examples by their number of copies."""

    name: str
    set_k: dict[int, EvaluationSet]
    """By k."""
    trained: list[int]
    """The k that were trained."""
    labels: dict[tuple[str, int], str]
    """(input, copies) -> label, over all of the task's examples."""

    @property
    def seen(self) -> list[int]:
        return [k for k in self.trained if k in self.set_k]

    @property
    def unseen(self) -> list[int]:
        return [k for k in self.set_k if k not in self.trained]

    def part(self, scored: Scored, ks: list[int]) -> Scored:
        """The prompts as scored with some k, each of which weighs the same."""
        return scored.on(*(self.set_k[k] for k in ks))


def _held_out(own: EvaluationSet, max_examples: int | None, seed: int) -> _HeldOut:
    """From the validation and the test split. Raises UserError where trained or untrained k are missing there."""
    task = own.task
    examples = [*task.validation, *task.test]
    inputs = list(dict.fromkeys(e.input for e in examples))
    if max_examples is not None and len(inputs) > max_examples:  # the same inputs for every k
        chosen = np.random.default_rng(seed).choice(len(inputs), max_examples, replace=False)
        inputs = [inputs[i] for i in np.sort(chosen)]
    by_copies: dict[int, list[Example]] = {}
    for e in examples:
        by_copies.setdefault(e.repeat, []).append(e)
    kept = set(inputs)
    set_k = {
        k: _evaluation_set(own, [e for e in by_copies[k] if e.input in kept], len(by_copies[k]))
        for k in sorted(by_copies)
    }
    set_k = {k: each for k, each in set_k.items() if each.n}
    trained = sorted({e.repeat for e in task.train})
    held_out = _HeldOut(task.name, set_k, trained, {(e.input, e.repeat): e.label for e in _all(task)})
    if not held_out.unseen or not held_out.seen:
        raise UserError(
            f"repeatable: task {task.name} needs held-out examples (validation, test) of trained and of untrained "
            f"numbers of copies; it has {sorted(by_copies)}, {trained} trained"
        )
    return held_out


def _evaluation_set(own: EvaluationSet, examples: list[Example], of: int) -> EvaluationSet:
    return EvaluationSet(replace(own.task, test=examples, labels=None), own.max_new_tokens, of)


def _all(task: Task) -> list[Example]:
    return [*task.train, *task.validation, *task.test]


def _omissions(
    held_out: _HeldOut, own: EvaluationSet, sets_N: list[EvaluationSet], max_examples: int | None, seed: int
) -> list[str]:
    """Whether examples were drawn, and held-out inputs that a control was trained on."""
    omissions = []
    if any(each.n < each.of for each in held_out.set_k.values()):
        omissions.append(
            f"repeatable: {max_examples} inputs of {held_out.name}, drawn by seed {seed}, stand for all that are held "
            "out (max_examples=null scores all)."
        )
    inputs = {e.input for each in held_out.set_k.values() for e in each.task.test}
    for other in dict.fromkeys(sets_N):
        if other is not own and (common := inputs & {e.input for e in other.task.train}):
            omissions.append(
                f"repeatable: {len(common)} of the {len(inputs)} held-out inputs of {held_out.name} were training "
                f"inputs of {other.task.name}, a control."
            )
    return omissions


# Prompts to score.


def _prompts(
    runs: RunTable, sets_N: list[EvaluationSet], own: EvaluationSet, held_out: _HeldOut, width: int
) -> list[Candidate[str]]:
    """All prompts of a kind with each k in turn."""
    final_NPd, initial_NPd = runs.prompts(), runs.prompts("initial")
    of_task = [n for n in range(len(runs)) if sets_N[n] is own]
    others = [n for n in range(len(runs)) if all(e.repeat == 1 for e in _all(sets_N[n].task))]
    once = [n for n in others if _labels_of_one_copy(sets_N[n].task, own.task)]
    kinds: dict[str, list[tuple[np.ndarray, tuple[int, ...]]]] = {
        "trained": [(final_NPd[n], (n,)) for n in of_task],
        "initial": [(initial_NPd[n], (n,)) for n in of_task],
        "once": [(final_NPd[n], (n,)) for n in once],
        "other_task": [(final_NPd[n], (n,)) for n in others if n not in once],
        "unprompted": [(np.empty((0, width), dtype=np.float32), ())],
    }
    return [
        Candidate(kind, prompt_Pd, evaluation_set, members)
        for kind, prompts in kinds.items()
        for evaluation_set in held_out.set_k.values()
        for prompt_Pd, members in prompts
    ]


def _labels_of_one_copy(task: Task, repeated: Task) -> bool:
    """Whether a task's labels are those of one copy, wherever both have the input."""
    labels = {e.input: e.label for e in _all(repeated) if e.repeat == 1}
    both = [e for e in _all(task) if e.input in labels]
    return bool(both) and all(e.label == labels[e.input] for e in both)


def _readings(
    lm: LM, runs: RunTable, members: list[int], held_out: _HeldOut, trained: Scored, among: list[int] | None = None
) -> dict[tuple[int, int], Scored]:
    """The trained prompts' scores with k copies on the labels of j copies, by (k, j); among: only these j.

    Examples whose two labels are the same are left out.
    """
    final_NPd = runs.prompts()
    copies = among or sorted({j for _, j in held_out.labels})
    other_labels = {
        (k, j): _evaluation_set(with_k, _relabelled(with_k.task.test, j, held_out.labels), with_k.of)
        for k, with_k in held_out.set_k.items()
        for j in copies
        if j != k
    }
    prompts = [
        Candidate(pair, final_NPd[n], evaluation_set, (n,))
        for pair, evaluation_set in other_labels.items()
        if evaluation_set.n
        for n in members
    ]
    as_meant = {(k, k): held_out.part(trained, [k]) for k in held_out.set_k if k in copies}
    return dict(sorted((as_meant | score_kinds(lm, prompts)).items()))


def _relabelled(examples: list[Example], copies: int, labels: dict[tuple[str, int], str]) -> list[Example]:
    """The same inputs with the label of other copies; without those that the task labels the same, or not at all."""
    pairs = [(e, labels.get((e.input, copies))) for e in examples]
    return [replace(e, label=label, accepted=()) for e, label in pairs if label is not None and label != e.label]


# Tables, numbers and findings.


def _table(table: pd.DataFrame, scored: dict[str, Scored], held_out: _HeldOut) -> pd.DataFrame:
    """A row per prompt and k."""
    copies, rows = {each: k for k, each in held_out.set_k.items()}, []
    for kind, prompts in scored.items():
        for correct_E, evaluation_set, members in zip(prompts.correct_S, prompts.sets_S, prompts.runs_S, strict=True):
            of = {column: table[column][members[0]] if members else None for column in ("task", "init", "seed")}
            low, high = wilson(int(correct_E.sum()), evaluation_set.n)
            k = copies[evaluation_set]
            with_k = {"k": k, "seen": k in held_out.seen}
            score = {"accuracy": correct_E.mean(), "low": low, "high": high, "n": evaluation_set.n}
            rows.append({"kind": kind, "asked": held_out.name, **of, **with_k, **score})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Accuracies:
    """A kind's accuracies on one task."""

    by_k: dict[int, Number]
    seen: Number
    unseen: Number


def _report_accuracies(
    result: Result, scored: dict[str, Scored], held_out: _HeldOut, bootstrap: Bootstrap
) -> dict[str, _Accuracies]:
    """Adds each kind's accuracies, and names the controls that these runs lack."""

    def add(kind: str, name: str, ks: list[int]) -> Number:
        return add_mean(result, f"{kind}.{held_out.name}.{name}", held_out.part(scored[kind], ks), bootstrap)

    accuracies = {
        kind: _Accuracies(
            {k: add(kind, str(k), [k]) for k in held_out.set_k},
            add(kind, "seen", held_out.seen),
            add(kind, "unseen", held_out.unseen),
        )
        for kind in scored
    }
    if missing := [what for kind, what in MISSING.items() if kind not in scored]:
        result.omissions.append(f"repeatable: as controls, runs of {' and of '.join(missing)} are missing.")
    return accuracies


def _report_unseen(
    result: Result, trained: Scored, accuracies: _Accuracies, held_out: _HeldOut, bootstrap: Bootstrap
) -> None:
    """Compares the trained prompts on unseen k with themselves on seen ones."""
    unseen, seen = held_out.part(trained, held_out.unseen), held_out.part(trained, held_out.seen)
    difference = add_difference(result, f"difference.unseen_seen.{held_out.name}", unseen, seen, bootstrap)
    verdict = difference.verdict("better than", "not detectably better or worse than", "worse than")
    sentence = (
        f"k copies of a {held_out.name} prompt solve {in_percent(accuracies.unseen)} of the held-out examples for "
        f"k = {_listed(held_out.unseen)}, which were not trained, {verdict} {in_percent(accuracies.seen)} for "
        f"k = {_listed(held_out.seen)}, which were: {in_points(difference)}{difference.alike} "
        f"(n = {unseen.examples} and {seen.examples} examples, {len(set(trained.runs_S))} runs{difference.reach})."
    )
    result.findings.append(Finding.of(difference.number, sentence))


def _report_controls(
    result: Result,
    scored: dict[str, Scored],
    accuracies: dict[str, _Accuracies],
    held_out: _HeldOut,
    bootstrap: Bootstrap,
) -> None:
    """Compares the trained prompts with each control, on unseen k."""
    trained = held_out.part(scored["trained"], held_out.unseen)
    for kind, words in CONTROLS.items():
        if kind not in scored:
            continue
        control = held_out.part(scored[kind], held_out.unseen)
        difference = add_difference(result, f"difference.{kind}.{held_out.name}", trained, control, bootstrap)
        runs = f"{len(set(trained.runs_S))} and {len(set(control.runs_S))} runs"
        sentence = (
            f"With k = {_listed(held_out.unseen)} copies, a {held_out.name} prompt solves "
            f"{in_percent(accuracies['trained'].unseen)}, {words.words} {in_percent(accuracies[kind].unseen)}: "
            f"{in_points(difference)}, so {words.meaning(difference)} (n = {difference.number.n} test examples, {runs}"
            f"{difference.reach})."
        )
        result.findings.append(Finding.of(difference.number, sentence))


def _report_readings(
    result: Result, readings: dict[tuple[int, int], Scored], held_out: _HeldOut, bootstrap: Bootstrap
) -> dict[tuple[int, int], Number]:
    """Adds how often k copies give the label of j copies; by (k, j). A finding for each unseen k."""
    read_as = {
        (k, j): add_mean(result, f"read_as.{held_out.name}.{k}.{j}", scored, bootstrap)
        for (k, j), scored in readings.items()
    }
    for k in held_out.unseen:
        # As meant first: of equal shares the first one counts.
        js = sorted((j for of_k, j in readings if of_k == k), key=lambda j: j != k)
        best, *rest = sorted(js, key=lambda j: -read_as[k, j].value)
        number, runs = read_as[k, best], len(set(readings[k, best].runs_S))
        n = f"n = {number.n} test examples, {runs} runs"
        subject = f"{k} copies of a {held_out.name} prompt"
        if number.value == 0:
            sentence = f"{subject} are never read as any number of copies: {in_percent(number)} ({n})."
            result.findings.append(Finding.of(number, sentence))
        elif rest:
            quantity = f"difference.read_as.{held_out.name}.{k}.{best}.{rest[0]}"
            difference = add_difference(result, quantity, readings[k, best], readings[k, rest[0]], bootstrap)
            most = difference.verdict("are more often", "are not detectably more often", "", chosen_from=len(rest))
            sentence = (
                f"{subject} {most} read {_as_copies(best, k)}, in {in_percent(number)} of the cases, than "
                f"{_as_copies(rest[0], k)}, which comes next: {in_points(difference)} ({n}{difference.reach})."
            )
            result.findings.append(Finding.of(difference.number, sentence))
    return read_as


def _as_copies(j: int, k: int) -> str:
    return "as they were meant" if j == k else f"as {j} cop{'y' if j == 1 else 'ies'}"


def _initial_once(runs: RunTable, once: Scored, held_out: _HeldOut) -> list[Candidate[str]]:
    """The P0s of the prompts that were trained on one copy, with one copy."""
    initial_NPd = runs.prompts("initial")
    return [Candidate("initial", initial_NPd[n], held_out.set_k[1], (n,)) for (n,) in sorted(set(once.runs_S))]


def _claim(once: _Accuracies, two: Estimate, untrained: dict[str, Number]) -> Claim:
    """Of two copies; untrained: what is scored with one copy in place of the trained prompt, in words."""
    one, runs = once.by_k[1], two.runs
    evidence = (
        f"A prompt trained on one copy solves {in_percent(one)} with one copy, and with two copies {in_percent(two)} "
        f"of what two should mean (n = {once.by_k[2].n} test examples, {runs} runs)."
    )
    premises = [
        Premise(runs >= LEAST_RUNS, f"{LEAST_RUNS} runs or more", f"{LEAST_RUNS} runs or more"),
        Premise(one.interval[0] > HALF, "one copy solves more than half", "prompts that solve the task with one copy"),
        *(
            Premise(
                number.interval[1] < HALF,
                f"{words} solves less than half ({in_percent(number)})",
                f"a task that {words} does not solve",
            )
            for words, number in untrained.items()
        ),
    ]
    needs = f"more runs than {runs}, or more examples"
    p = two.p(HALF)
    about = once.by_k[2].quantity
    return decided(
        "repeating_fails",
        two.interval,
        evidence,
        threshold=HALF,
        below=True,
        p=p,
        premises=premises,
        needs=needs,
        quantity=about,
    )


def _listed(ks: list[int]) -> str:
    return ", ".join(map(str, ks[:-1])) + f" and {ks[-1]}" if len(ks) > 1 else str(ks[0])


# Figures.


def _figure(accuracies: dict[str, _Accuracies], scored: dict[str, Scored], held_out: _HeldOut) -> str:
    """Accuracy by k, a line per kind, with 95 % intervals; behind it each prompt's; the untrained k are shaded."""
    ks = list(held_out.set_k)
    with panels(width=5.6, height=3.4) as (figure, axes):
        axis = axes[0, 0]
        for k in held_out.unseen:
            axis.axvspan(k - 0.5, k + 0.5, color=GRID, linewidth=0)
        for i, (kind, of_kind) in enumerate(accuracies.items()):
            places = np.array(ks) + 0.1 * (i - (len(accuracies) - 1) / 2)
            behind = [held_out.part(scored[kind], [k]).accuracy_S for k in of_kind.by_k]
            style: dict[str, Any] = {"label": KINDS[kind], "marker": "os^Dv"[i], "linestyle": "-"}
            estimates(axis, places, list(of_kind.by_k.values()), behind, color=COLOURS[i], across=0.07, **style)
        axis.set(xticks=ks, xlabel="copies k (shaded: not trained)", ylabel="test accuracy", ylim=(-0.04, 1.04))
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        title = f"{held_out.name}: accuracy with k copies of one prompt, with 95 % intervals; faint: single prompts"
        return svg(figure, title)


def _reading_figure(read_as: dict[tuple[int, int], Number], held_out: _HeldOut) -> str:
    """How often k copies give the label of j copies, as a grid."""
    ks, js = list(held_out.set_k), sorted({j for _, j in read_as})
    shares = [[read_as[k, j].value if (k, j) in read_as else np.nan for j in js] for k in ks]
    with panels(width=4.2, height=3.2) as (figure, axes):
        axis = axes[0, 0]
        mesh = shares_grid(axis, np.array(shares), [f"{k}" if k in held_out.seen else f"{k} *" for k in ks], js)
        axis.set(xlabel="answered as j copies", ylabel="scored with k copies (*: not trained)")
        figure.colorbar(mesh, ax=axis, label="share of answers")
        return svg(figure, f"{held_out.name}: how often k copies of a prompt give the label of j copies")
