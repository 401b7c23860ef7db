"""Do two tasks' prompts together do one task after the other? A direction that study 1 leaves open.

Two prompts are put side by side, averaged, or their deltas added on P0, and scored on outer(inner(input)) for the inner task's own test inputs.

Shapes: N runs, P prompt tokens, d width, E composed examples, S scored prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import Bootstrap, EvaluationSet, Scored, evaluation_sets, percent, points, score
from promptgeo.analysis.vectors import order_of_appearance, random_like
from promptgeo.errors import UserError
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable
from promptgeo.tasks import Example, Task


@dataclass(frozen=True)
class Composition:
    """outer(inner(input)), by the names of tasks."""

    outer: str
    inner: str
    same_as: str | None = None
    """The task that is the composed one, where there is one: its own prompts show what can be reached."""

    @property
    def name(self) -> str:
        return f"{self.outer}_after_{self.inner}"


COMPOSITIONS = (
    Composition("plus_one", "plus_one", "plus_two"),
    Composition("plus_one", "plus_two"),
    Composition("plus_two", "plus_one"),
    Composition("plus_two", "plus_two"),
    Composition("lowercase_first_letter", "country_capital"),
    Composition("lowercase_first_letter", "landmark_country"),
    Composition("country_capital", "landmark_country"),
    Composition("capitalize_first_letter", "country_capital"),
)

RULES: dict[str, Callable[[str], str]] = {
    "plus_one": lambda text: str(int(text) + 1),
    "plus_two": lambda text: str(int(text) + 2),
    "capitalize_first_letter": lambda text: text[0].upper(),
    "lowercase_first_letter": lambda text: text[0].lower(),
}
"""Tasks that hold for any input; of another, what its own examples say."""

KINDS = {
    "outer_inner": "outer's prompt, then inner's", "inner_outer": "inner's prompt, then outer's", "average": "mean of both prompts", "delta_sum": "P0 + both deltas",
    "outer": "outer's prompt alone", "inner": "inner's prompt alone", "initial": "P0", "initial_twice": "P0 twice",
    "random_beside": "a random prompt, then inner's", "random_sum": "P0 + inner's delta + random", "trained": "trained on the composed task",
    "guessed": "the same prompts against shuffled labels",
}  # fmt: skip
CONTROLS = {
    "outer_inner": ("outer", "inner", "initial_twice", "random_beside"), "inner_outer": ("outer", "inner", "initial_twice", "random_beside"),
    "average": ("outer", "inner", "initial", "random_sum"), "delta_sum": ("outer", "inner", "initial", "random_sum"),
}  # fmt: skip
"""What each way to compose must surpass, beside what it gets by guessing."""


def composition(runs: RunTable, *, lm: FrozenLM, max_examples: int | None = 60, max_pairs: int | None = 8, draws: int = 1000, seed: int = 0) -> Result:
    """Numbers `<kind>.<outer>_after_<inner>`, accuracies on the composed task, and `<kind>.all`, mean over compositions. Ways to compose, with run a
    of the outer and b of the inner task: `outer_inner` and `inner_outer`, side by side, [2P, d] (inner's last in the first: next to the text);
    `average`, (P_a + P_b) / 2; `delta_sum`, P0 + delta_a + delta_b with b's P0. Controls: `outer`, `inner`, `initial` (P0 of b), `initial_twice`;
    `random_beside`, [P0_a + random; P_b], and `random_sum`, P0 + delta_b + random, where each random token is as long as a's delta; `trained`, prompts
    trained on the composed task itself; `guessed.<way>.all`, the way itself against labels shuffled among a composition's examples: what some
    label of the right kind gets without its input. `as_inner.<way>.all`, `as_outer.<way>.all`: how often a way does one task only, where these are two
    and both say what the input gives. `difference.<way>.<control>` in mean over compositions.

    Composed are the compositions of COMPOSITIONS whose tasks the runs have: pairs of runs with one init, seed and template, a run with itself where both
    tasks are one (no average then: it is the prompt itself). Their examples: test inputs of the inner task, with its label put into the outer task.
    Those where one task alone gives the composed label are left out, as are training inputs of the composed task where that is trained too.
    What comes between may have been a training input of the outer task.

    Table `accuracies`: one row per scored prompt with Wilson's interval; `examples`: the composed examples. Intervals of means draw runs and examples
    with replacement. max_examples (of a composition), max_pairs (of runs, each composition): drawn by seed; null: all.
    Raises UserError where the runs have no such pair or differ in shape.
    """
    sets_N = evaluation_sets(runs, "composition")
    result, generator = Result(), np.random.default_rng(seed)
    cases = [case for c in COMPOSITIONS for case in _cases(c, runs.table, sets_N, max_examples, max_pairs, generator)]
    if not cases:
        raise UserError(f"composition: needs runs of two tasks that go together, with one init and seed; there are {', '.join(c.name for c in COMPOSITIONS)}")
    _name_what_is_left_out(result, cases, runs)
    cells = [cell for case in cases for cell in _prompts(runs, case, generator)]
    scored = _score(lm, cells)
    relabelled = {part: _score(lm, _relabelled(cells, cases, labels)) for part, labels in RELABELLED.items()}
    bootstrap = Bootstrap(len(runs), draws, seed)
    result.tables["accuracies"] = _table(runs.table, scored)
    result.tables["examples"] = pd.DataFrame([{"composition": c.name, "input": e.input, "inner": c.inner[e.id], "label": e.label} for c in cases for e in c.evaluation_set.task.test])
    _tell_accuracies(result, scored, relabelled, cases, bootstrap)
    for way in CONTROLS:
        if way in scored:
            _tell_way(result, way, scored, relabelled, bootstrap)
    _tell_reach(result, scored, bootstrap)
    result.figures["accuracies"] = _figure(result, scored, cases)
    return result


# What is asked.


@dataclass(frozen=True, eq=False)
class _Case:
    """One composition with its examples and the runs that meet."""

    what: Composition
    evaluation_set: EvaluationSet
    inner: dict[int, str]
    """By the example's id, what the inner task alone makes of its input; outer: what the outer task alone does, where it says."""
    outer: dict[int, str]
    shuffled: dict[int, str]
    """By the example's id, another example's label."""
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
    what: Composition, table: pd.DataFrame, sets_N: list[EvaluationSet], max_examples: int | None, max_pairs: int | None, generator: np.random.Generator
) -> list[_Case]:
    """The composition, as often as its tasks come in different data or templates: mostly once, and not at all where the runs lack a task."""
    pairs = [
        (a, b)
        for a in range(len(table))
        for b in range(len(table))
        if (table["task"][a], table["task"][b]) == (what.outer, what.inner) and _fit(table, a, b) and (a == b or what.outer != what.inner)
    ]
    together: dict[tuple[EvaluationSet, EvaluationSet], list[tuple[int, int]]] = {}
    for a, b in pairs:
        together.setdefault((sets_N[a], sets_N[b]), []).append((a, b))
    cases = []
    for (outer, inner), members in together.items():
        trained = [n for n in range(len(table)) if what.same_as == table["task"][n] and any(_fit(table, n, b) for _, b in members)]
        known = {e.input for n in trained for e in sets_N[n].task.train}
        examples, parts, trivial = _composed(what.outer, outer.task, inner.task, known)
        if max_examples is not None and len(examples) > max_examples:
            examples = [examples[i] for i in np.sort(generator.choice(len(examples), max_examples, replace=False))]
        if not examples:
            continue
        chosen = members if max_pairs is None or len(members) <= max_pairs else [members[i] for i in np.sort(generator.choice(len(members), max_pairs, replace=False))]
        task = replace(inner.task, name=what.name, test=examples)
        # A cycle through all examples in random order: none is given its own label, though another's may be the same.
        order = generator.permutation(len(examples))
        shuffled = {examples[i].id: examples[j].label for i, j in zip(order, np.roll(order, 1), strict=True)}
        evaluation_set = EvaluationSet(task, max(outer.max_new_tokens, inner.max_new_tokens), len(parts))
        alone = {i: p[0] for i, p in parts.items()}, {i: p[1] for i, p in parts.items() if p[1] is not None}
        cases.append(_Case(what, evaluation_set, *alone, shuffled, chosen, len(members), trained, trivial))
    return cases


def _fit(table: pd.DataFrame, a: int, b: int) -> bool:
    return all(table[column][a] == table[column][b] for column in ("init", "seed", "template"))


def _composed(name: str, outer: Task, inner: Task, known: set[str]) -> tuple[list[Example], dict[int, tuple[str, str | None]], int]:
    """Examples that need both tasks; by their id (inner(x), outer(x) or None where the outer task does not say); how many were left out as trivial."""
    table = {e.input: e.label for e in (*outer.train, *outer.validation, *outer.test)}
    apply = RULES.get(name, table.get)
    examples, parts, trivial = [], {}, 0
    for e in inner.test:
        label = apply(e.label)
        if label is None or e.input in known:
            continue
        alone = e.label, apply(e.input)
        if label in alone:
            trivial += 1
            continue
        examples.append(replace(e, label=label))
        parts[e.id] = alone
    return examples, parts, trivial


def _name_what_is_left_out(result: Result, cases: list[_Case], runs: RunTable) -> None:
    found = {case.what for case in cases}
    if absent := [c.name for c in COMPOSITIONS if c not in found]:
        result.omissions.append(f"composition: {', '.join(absent)}: left out, for these runs lack one of the two tasks at a common init, seed and template, or no example needs both.")
    if short := [f"{case.name} ({case.evaluation_set.of})" for case in cases if case.evaluation_set.n < case.evaluation_set.of]:
        result.omissions.append(f"composition: {max(case.evaluation_set.n for case in cases)} examples, drawn by the seed, stand for all of {', '.join(short)} (max_examples=null scores all).")
    if short := [f"{case.name} ({len(case.pairs)} of {case.of})" for case in cases if len(case.pairs) < case.of]:
        result.omissions.append(f"composition: of these, only some pairs of runs were scored, drawn by the seed: {', '.join(short)} (max_pairs=null scores all).")
    if trivial := [f"{case.name} ({case.trivial})" for case in cases if case.trivial]:
        result.omissions.append(f"composition: left out as one task alone gives their label: examples of {', '.join(trivial)}.")
    initial_NPd = runs.prompts("initial")
    apart = sum(not np.array_equal(initial_NPd[a], initial_NPd[b]) for case in cases for a, b in case.pairs)
    if apart:
        result.omissions.append(
            f"composition: in {apart} of {sum(len(case.pairs) for case in cases)} pairs the two runs start from different P0s (a random init differs by task); "
            "their deltas are added to the inner run's (a word as init, or seeds.init, gives both the same P0)."
        )


# What is scored.


@dataclass(frozen=True, eq=False)
class _Cell:
    """One prompt that is asked one composition."""

    kind: str
    prompt_Pd: np.ndarray
    evaluation_set: EvaluationSet
    members: tuple[int, ...]
    """The runs that it is made of."""


def _prompts(runs: RunTable, case: _Case, generator: np.random.Generator) -> list[_Cell]:
    # In float64 P0 + (P - P0) is P to the last bit.
    final_NPd, p0_NPd = runs.prompts().astype(np.float64), runs.prompts("initial").astype(np.float64)
    cells = []
    for a, b in case.pairs:
        delta_a, delta_b = final_NPd[a] - p0_NPd[a], final_NPd[b] - p0_NPd[b]
        random_Pd = random_like(delta_a, generator)
        made = {
            "outer_inner": np.concatenate([final_NPd[a], final_NPd[b]]),
            "inner_outer": np.concatenate([final_NPd[b], final_NPd[a]]),
            "average": (final_NPd[a] + final_NPd[b]) / 2,
            "delta_sum": p0_NPd[b] + delta_a + delta_b,
            "outer": final_NPd[a],
            "inner": final_NPd[b],
            "initial": p0_NPd[b],
            "initial_twice": np.concatenate([p0_NPd[a], p0_NPd[b]]),
            "random_beside": np.concatenate([p0_NPd[a] + random_Pd, final_NPd[b]]),
            "random_sum": p0_NPd[b] + delta_b + random_Pd,
        }
        if a == b:
            del made["average"], made["inner_outer"]
        members = (a,) if a == b else (a, b)
        cells += [_Cell(kind, prompt_Pd, case.evaluation_set, members) for kind, prompt_Pd in made.items()]
    return cells + [_Cell("trained", final_NPd[n], case.evaluation_set, (n,)) for n in case.trained]


def _alone(case: _Case, part: str) -> dict[int, str]:
    """What one of two different tasks gives, of the inputs for which both say something."""
    labels = getattr(case, part)
    return {i: labels[i] for i in case.outer} if case.what.outer != case.what.inner else {}


RELABELLED: dict[str, Callable[[_Case], dict[int, str]]] = {
    "as_inner": lambda case: _alone(case, "inner"),
    "as_outer": lambda case: _alone(case, "outer"),
    "guessed": lambda case: case.shuffled,
}
"""Other labels, by the example's id, that the ways to compose are asked for."""


def _relabelled(cells: list[_Cell], cases: list[_Case], labels: Callable[[_Case], dict[int, str]]) -> list[_Cell]:
    set_of = {}
    for case in cases:
        given = labels(case)
        examples = [replace(e, label=given[e.id]) for e in case.evaluation_set.task.test if e.id in given]
        if examples:
            set_of[case.evaluation_set] = EvaluationSet(replace(case.evaluation_set.task, test=examples), case.evaluation_set.max_new_tokens, len(examples))
    return [replace(cell, evaluation_set=set_of[cell.evaluation_set]) for cell in cells if cell.kind in CONTROLS and cell.evaluation_set in set_of]


def _score(lm: FrozenLM, cells: list[_Cell]) -> dict[str, Scored]:
    """By kind."""
    correct = score(lm, [cell.prompt_Pd for cell in cells], [cell.evaluation_set for cell in cells])
    kinds: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        kinds.setdefault(cell.kind, []).append(i)
    return {
        kind: Scored([correct[i] for i in chosen], [cells[i].evaluation_set for i in chosen], [cells[i].members for i in chosen], tasks_equal=True)
        for kind, chosen in kinds.items()
    }


# What is told.


def _table(table: pd.DataFrame, scored: dict[str, Scored]) -> pd.DataFrame:
    rows = []
    for kind, cells in scored.items():
        for correct_E, evaluation_set, members in zip(cells.correct_S, cells.sets_S, cells.runs_S, strict=True):
            low, high = wilson(int(correct_E.sum()), evaluation_set.n)
            of = {column: table[column][members[-1]] for column in ("init", "seed", "template")}
            rows.append({"kind": kind, "composition": evaluation_set.task.name, **of, "accuracy": correct_E.mean(), "low": low, "high": high, "n": evaluation_set.n})
    return pd.DataFrame(rows)


def _on(cells: Scored, chosen_sets: list[EvaluationSet]) -> Scored:
    return replace(cells.where(lambda s: cells.sets_S[s] in chosen_sets), tasks_equal=True)


def _tell_accuracies(result: Result, scored: dict[str, Scored], relabelled: dict[str, dict[str, Scored]], cases: list[_Case], bootstrap: Bootstrap) -> None:
    for kind, cells in scored.items():
        for name in order_of_appearance([case.name for case in cases]):
            part = _on(cells, [case.evaluation_set for case in cases if case.name == name])
            if len(part):
                result.number(f"{kind}.{name}", part.mean, part.examples, "test examples", *bootstrap.interval(part))
        result.number(f"{kind}.all", cells.mean, cells.examples, "test examples", *bootstrap.interval(cells))
    for part, kinds in relabelled.items():
        for kind, cells in kinds.items():
            result.number(f"{part}.{kind}.all", cells.mean, cells.examples, "test examples", *bootstrap.interval(cells))


WAYS = {
    "outer_inner": "The outer task's prompt put before the inner's", "inner_outer": "The outer task's prompt put after the inner's",
    "average": "The mean of both tasks' prompts", "delta_sum": "The sum of both tasks' deltas on one P0",
}  # fmt: skip


def _tell_way(result: Result, way: str, scored: dict[str, Scored], relabelled: dict[str, dict[str, Scored]], bootstrap: Bootstrap) -> None:
    """Against the best of its controls. Which is best is seen in the same numbers: that can only speak against the way."""
    cells, controls = scored[way], {}
    there = list(dict.fromkeys(cells.sets_S))
    against = {kind: _on(scored[kind], there) for kind in CONTROLS[way]} | {"guessed": relabelled["guessed"][way]}
    for kind, control in against.items():
        difference, low, high = bootstrap.difference(cells, control)
        result.number(f"difference.{way}.{kind}", difference, cells.examples, "test examples", low, high)
        controls[kind] = control, difference, low, high
    best, (control, difference, low, high) = max(controls.items(), key=lambda item: item[1][0].mean)
    verdict = "so more composed labels come out than without composing" if low > 0 else "so composing this way does harm" if high < 0 else "so nothing shows that it composes the tasks"
    alone = [
        f"of the {part} task alone {percent(only.mean, *bootstrap.interval(only))}" for part in ("inner", "outer") if (only := relabelled[f"as_{part}"].get(way))
    ]
    sentence = (
        f"{WAYS[way]} solves {percent(cells.mean, *bootstrap.interval(cells))} of the composed examples, the best of its controls ({KINDS[best]}) "
        f"{percent(control.mean, *bootstrap.interval(control))}: {points(difference, low, high)}, {verdict}{'; it gives the label ' * bool(alone)}{' and '.join(alone)} "
        f"(n = {cells.examples} test examples, {len(cells.parts)} compositions, {len(cells)} prompts)."
    )
    result.findings.append(Finding(sentence, difference, cells.examples, "test examples", low, high))


def _tell_reach(result: Result, scored: dict[str, Scored], bootstrap: Bootstrap) -> None:
    """What a prompt trained on the composed task reaches, against the best way to compose there."""
    if "trained" not in scored:
        result.omissions.append("composition: prompts trained on the composed task itself, as what can be reached, need runs of plus_two beside plus_one.")
        return
    trained = scored["trained"]
    there = {way: _on(scored[way], list(dict.fromkeys(trained.sets_S))) for way in CONTROLS if way in scored}
    there = {way: cells for way, cells in there.items() if len(cells)}
    way = max(there, key=lambda name: there[name].mean)
    difference, low, high = bootstrap.difference(there[way], trained)
    result.number(f"difference.{way}.trained", difference, trained.examples, "test examples", low, high)
    verdict = "more than" if low > 0 else "less than" if high < 0 else "not told apart from"
    sentence = (
        f"On {', '.join(evaluation_set.task.name for evaluation_set in dict.fromkeys(trained.sets_S))} the best way to compose ({KINDS[way]}) solves "
        f"{percent(there[way].mean, *bootstrap.interval(there[way]))}, {verdict} prompts trained on the composed task {percent(trained.mean, *bootstrap.interval(trained))}: "
        f"{points(difference, low, high)} (n = {trained.examples} test examples, {len(there[way])} and {len(trained)} prompts)."
    )
    result.findings.append(Finding(sentence, difference, trained.examples, "test examples", low, high))


def _figure(result: Result, scored: dict[str, Scored], cases: list[_Case]) -> str:
    """A row of points per composition, one for each kind, with 95 % intervals."""
    numbers = {row["quantity"]: row for row in result.numbers}
    names = [*order_of_appearance([case.name for case in cases]), "all"]
    with panels(height=max(3.0, 0.75 * len(names) + 1.4), width=7.2) as (figure, axes):
        axis = axes[0, 0]
        for i, kind in enumerate(k for k in KINDS if k in scored):
            told = [(y, numbers[f"{kind}.{name}"]) for y, name in enumerate(names) if f"{kind}.{name}" in numbers]
            values = np.array([row["value"] for _, row in told])
            bars = np.clip([values - [row["low"] for _, row in told], [row["high"] for _, row in told] - values], 0, None)
            places = [y + 0.07 * (i - (len(scored) - 1) / 2) for y, _ in told]
            marker = "o" if kind in CONTROLS else "*" if kind == "trained" else "x"
            axis.errorbar(values, places, xerr=bars, label=KINDS[kind], color=COLOURS[i % len(COLOURS)], linestyle="none", marker=marker, markersize=4, elinewidth=0.8)
        axis.set(yticks=range(len(names)), xlabel="accuracy on the composed task", xlim=(-0.03, 1.03))
        axis.set_yticklabels(names)
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return svg(figure)
