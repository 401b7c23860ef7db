"""Does a soft prompt work by the same mechanism as demonstrations or an instruction?

Demonstrations leave a vector in the model that does their task where it is added to an input without them (Todd et al.
2024, function vectors, arXiv 2310.15213); those of demonstrations and of instructions overlap in part (Davidson et al.
2025, arXiv 2505.12075). Theirs are sums over chosen attention heads, here a difference of whole states at an input's
last token (geometry/mechanism_scores.py), before each block.

Shapes: S layers, U units of a way (runs, draws of demonstrations), T tasks, E examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import Premise, decided
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, svg
from promptgeo.analysis.geometry.mechanism_scores import NOTHING, WAYS, Injection, Measured, Options, Way, measured
from promptgeo.analysis.geometry.task_vectors import LEAST_TASKS, Alike, alike, cosines
from promptgeo.analysis.question import question
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.analysis.scoring import (
    LEAST_RUNS,
    Bootstrap,
    Difference,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    in_percent,
    in_points,
    percent,
    reach,
    sampled_examples,
)
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

CONTROLS = {"random": "random vectors as long", "other": "another task's vectors"}
"""What is added instead of a way's own vector, in words."""
SAME_AS = {"demonstrations": "same_as_demonstrations", "instruction": "same_as_instruction"}
"""The claim that soft prompts move states as another way does."""
VECTOR = "soft_prompt_is_a_vector"
MATTERS = 0.1
"""An accuracy, or a cosine, that lies by less above its control does not matter."""


def _check(
    shots: int, sets: int, examples: int, validation: int, layers: int | None, scales: Sequence[float], least: float
) -> None:
    if shots < 2 or sets < 1 or examples < 1 or validation < 1 or (layers is not None and layers < 1):
        raise UserError(
            f"mechanism: shots={shots}, sets={sets}, examples={examples}, validation={validation}, layers={layers}: at "
            "least 2, 1, 1, 1 and 1 are needed"
        )
    if not scales or not all(np.isfinite(scales)) or 0.0 in scales:
        raise UserError(f"mechanism: scales={list(scales)}: finite numbers other than 0 are needed")
    if not 0 < least < 1:
        raise UserError(f"mechanism: least={least:g}: an accuracy between 0 and 1 is needed")


@question(lm=True, claims=(VECTOR, *SAME_AS.values()), check=_check)
def mechanism(
    runs: RunTable,
    *,
    lm: LM,
    shots: int = 5,
    sets: int = 3,
    examples: int = 24,
    validation: int = 16,
    max_examples: int | None = 40,
    layers: int | None = 8,
    scales: Sequence[float] = (1.0, 2.0, 4.0),
    least: float = 0.1,
    permutations: int = 5000,
    seed: int = 0,
) -> Result:
    """Compares what soft prompts, demonstrations and the instruction add to a model's states, and what that does alone.

    Numbers, of each way that helps (beats no prompt, and what says nothing beside it: P0, labels exchanged, words in
    other orders; by `least`, on the choosing examples), over the tasks where it does:
    `accuracy.<way>` and `accuracy.<way>.none`, `injected.<way>`: with s v(l) added to the last token of an input
    without a prompt, layer and scale chosen for each task on examples that are not test ones;
    `injected.<way>.random` and `.other`: random vectors of equal norm, and another task's, at the same place;
    `difference.<way>.<control>`; `recovery.<way>` = (injected - none) / (accuracy - none), `recovery.<way>.<control>`;
    `recovery.<way>.of.<other way>`: in units of what the other way gains. `cosine.<way>.<other way>`: the mean cosine
    of two ways' vectors of one task less that of different tasks, mean over layers; its p exchanges whole tasks, its
    interval leaves them out. Tables: `ways`, `units` (whose runs), `layers` (on choosing examples), `injected`,
    `cosines`.

    Args:
        shots: demonstrations of one draw; sets: draws, and word orders of the instruction.
        examples: training inputs over which states are averaged.
        validation: examples on which layer and scale are chosen, drawn by seed from the validation split.
        max_examples: test examples of a task; null: all.
        layers: so many, evenly from the first to the last between two blocks; null: all.
        scales: by which a vector is multiplied.
        least: accuracy over no prompt and over what says nothing from which on a way helps.
        permutations: orders of the tasks, where there are more.
        seed: of all that is drawn.

    Raises UserError for prompts that were trained elsewhere, a template with text before the prompt, a model whose
    states cannot be read and written between its blocks, and a task with too few training examples.
    """
    # Long because all its numbers and options are named here.
    _check(shots, sets, examples, validation, layers, scales, least)
    scales = tuple(float(scale) for scale in scales)
    made = measured(lm, runs, Options(shots, sets, examples, validation, max_examples, layers, scales, least, seed))
    result = Result()
    result.omissions += sampled_examples("mechanism", made.tests, max_examples, seed)
    result.omissions += made.omissions
    answer(made, least, permutations, seed, result)
    return result


def answer(made: Measured, least: float, permutations: int, seed: int, result: Result) -> None:
    """Adds all that was measured says."""
    bootstrap = Bootstrap(seed=seed)
    helping = {kind: made.of(kind) for kind in WAYS}
    result.omissions += _not_helping(made, least)
    recovered = {kind: _recovered(result, made, kind, ways, bootstrap) for kind, ways in helping.items() if ways}
    for kind, other in ((a, b) for a in helping for b in helping if a != b):
        _crossed(result, made, kind, other, bootstrap)
    pairs = {pair: _alike(result, made, pair, permutations, seed) for pair in combinations(WAYS, 2)}
    result.claims.append(_vector_claim(made, recovered.get("prompt"), least))
    result.claims += [_same_claim(made, pairs["prompt", kind], kind, least) for kind in SAME_AS]
    tables = {
        "ways": _way_table(made),
        "units": _unit_table(made),
        "layers": _layer_table(made),
        "injected": _injected_table(made),
        "cosines": _cosine_table(made, pairs),
    }
    result.tables |= {name: table for name, table in tables.items() if len(table)}
    if recovered:
        result.figures["recovery"] = _recovery_figure(made, helping, bootstrap)
    if shown := {pair: each[0] for pair, each in pairs.items() if each is not None}:
        result.figures["cosines"] = _cosine_figure(made, shown)


def _not_helping(made: Measured, least: float) -> list[str]:
    """What is said of ways that do not help in some tasks."""
    said = []
    for kind, words in WAYS.items():
        left = [way for way in made.of(kind, helping=False) if way.injection is None]
        none = [made.names[way.task] for way in left if way.gain < least]
        nothing = [made.names[way.task] for way in left if way.gain >= least]
        if none:
            said.append(f"mechanism: {words} beat no prompt by less than {least:g} in {', '.join(none)}: left out.")
        if nothing:
            said.append(
                f"mechanism: {words} beat {NOTHING[kind]} by less than {least:g} in {', '.join(nothing)}, so that the "
                "vector between them has nothing of the task: left out."
            )
    return said


# What vectors do alone.


@dataclass(frozen=True, eq=False)
class _Recovered:
    """What a way's vectors recover, of the tasks where it helps."""

    share: Number
    differences: dict[str, Difference]
    """By control."""
    of: str
    """What it rests on, in words."""
    runs: int


def _scored(ways: Sequence[Way], right: Sequence[np.ndarray], sets: Sequence[EvaluationSet], runs: Sequence) -> Scored:
    """right: [U, E] of each way; runs: of each way, of each unit. Each task weighs the same."""
    of_units = [
        (row_E, sets[way.task], of)
        for way, x_UE, ofs in zip(ways, right, runs, strict=True)
        for row_E, of in zip(x_UE, ofs, strict=True)
    ]
    return Scored(
        [x for x, _, _ in of_units], [s for _, s, _ in of_units], [r for _, _, r in of_units], tasks_equal=True
    )


def _own(made: Measured, ways: Sequence[Way]) -> Scored:
    return _scored(ways, [way.right_UE for way in ways], made.tests, [way.runs for way in ways])


def _none(made: Measured, tasks: Sequence[int]) -> Scored:
    return Scored([made.none_right[t] for t in tasks], [made.tests[t] for t in tasks], [()] * len(tasks), True)


def _added(made: Measured, ways: Sequence[Way], vector: str = "own") -> Scored:
    """With vectors added: own, random or other."""
    injections = _injections(ways)
    runs = [x.others if vector == "other" else way.runs for way, x in zip(ways, injections, strict=True)]
    return _scored(ways, [x.right[vector] for x in injections], made.tests, runs)


def _injections(ways: Sequence[Way]) -> list[Injection]:
    return [way.injection for way in ways if way.injection is not None]


def _recovered(result: Result, made: Measured, kind: str, ways: list[Way], bootstrap: Bootstrap) -> _Recovered:
    """Adds the numbers of a way that helps in some tasks, and what they say."""
    own, none, added = _own(made, ways), _none(made, [way.task for way in ways]), _added(made, ways)
    accuracy = add_mean(result, f"accuracy.{kind}", own, bootstrap)
    without = add_mean(result, f"accuracy.{kind}.none", none, bootstrap)
    add_mean(result, f"injected.{kind}", added, bootstrap)
    share = _share(result, f"recovery.{kind}", added, own, none, bootstrap)
    controls = [name for name in CONTROLS if all(name in each.right for each in _injections(ways))]
    differences, beside = {}, []
    for name in controls:
        control = _added(made, ways, name)
        add_mean(result, f"injected.{kind}.{name}", control, bootstrap)
        of_control = _share(result, f"recovery.{kind}.{name}", control, own, none, bootstrap)
        differences[name] = add_difference(result, f"difference.{kind}.{name}", added, control, bootstrap)
        beside.append(f"{CONTROLS[name]} {_percent(of_control)} ({in_points(differences[name])})")
    units = sum(len(way.prompts) for way in ways)
    count = {"prompt": f", {units} runs", "demonstrations": f", {units} draws", "instruction": ""}[kind]
    independent = min((each.estimate.runs for each in differences.values()), default=0)
    of = f"n = {share.n} test examples, {len(ways)} tasks{count}{reach(independent) if kind != 'instruction' else ''}"
    sentence = (
        f"Added to the last token of an input without a prompt, the vectors of {WAYS[kind]} recover {_percent(share)} "
        f"of what these do ({in_percent(accuracy)} right, {in_percent(without)} without); {', '.join(beside)} ({of})."
    )
    if share.low is not None:
        result.findings.append(Finding.of(share, sentence))
    return _Recovered(share, differences, of, independent)


def _share(result: Result, name: str, added: Scored, own: Scored, none: Scored, bootstrap: Bootstrap) -> Number:
    """Adds a recovery."""
    estimate = bootstrap.share(added, own, none)
    if not np.isfinite(estimate.value):  # what helps on the choosing examples may not on these
        result.omissions.append(f"mechanism: {name} is not known: what it is a share of is no gain on test examples.")
        return Number(name, estimate.value, added.examples, "test examples")
    return result.number(name, estimate.value, added.examples, "test examples", *estimate.interval)


def _percent(share: Number) -> str:
    return "an unknown share" if share.low is None else percent(share.value, *share.interval)


def _crossed(result: Result, made: Measured, kind: str, other: str, bootstrap: Bootstrap) -> None:
    """Adds what a way's vectors recover in units of what another way gains, of the tasks where both help."""
    both = {way.task for way in made.of(kind)} & {way.task for way in made.of(other)}
    if not both:
        return
    ways, others = ([way for way in made.of(each) if way.task in both] for each in (kind, other))
    added, own = _added(made, ways), _own(made, others)
    _share(result, f"recovery.{kind}.of.{other}", added, own, _none(made, sorted(both)), bootstrap)


def _vector_claim(made: Measured, found: _Recovered | None, least: float) -> Claim:
    """Soft prompts' vectors do more than random ones and another task's do."""
    tasks = len(made.of("prompt", helping=False))
    helps = Premise(
        found is not None,
        f"soft prompts beat no prompt and P0 by {least:g} in none of {tasks} tasks",
        "prompts that learned their task",
    )
    if found is None:
        return decided(VECTOR, None, "No vectors are added.", premises=[helps])
    controls = Premise(
        len(found.differences) == len(CONTROLS), "there is no other task whose vectors could be added", "several tasks"
    )
    enough = Premise(found.runs >= LEAST_RUNS, f"{found.runs} independent runs speak for others", f"{LEAST_RUNS} runs")
    every = [difference.estimate for difference in found.differences.values()]
    beside = " and ".join(
        f"{in_points(difference)} beside {CONTROLS[name]}" for name, difference in found.differences.items()
    )
    evidence = f"Vectors of soft prompts recover {_percent(found.share)} of what the prompts do: {beside} ({found.of})."
    # More than every control: it holds by the least of the differences, and fails by one of several.
    ends = [estimate.adjusted(len(every)) for estimate in every]
    return decided(
        VECTOR,
        (min(low for low, _ in ends), min(high for _, high in ends)) if ends else None,
        evidence,
        margin=MATTERS,
        p=max((estimate.p(0.0) if estimate.value > 0 else 1.0 for estimate in every), default=None),
        premises=[helps, controls, enough],
        needs="more runs or test examples",
        quantity=found.share.quantity,
    )


# How alike vectors are.


def _alike(
    result: Result, made: Measured, pair: tuple[str, str], permutations: int, seed: int
) -> tuple[Alike, list[int], Number] | None:
    """Adds how alike two ways' vectors are within tasks, beyond other tasks; None for fewer than two tasks."""
    tasks = sorted({way.task for way in made.of(pair[0])} & {way.task for way in made.of(pair[1])})
    if len(tasks) < 2:
        return None
    by_task = [{way.task: way.vectors_USD for way in made.of(kind)} for kind in pair]
    found = alike(cosines(*([of[t] for t in tasks] for of in by_task)), permutations, seed)
    number = result.number(
        f"cosine.{pair[0]}.{pair[1]}", found.difference, len(tasks), "tasks", found.low, found.high, found.p
    )
    result.findings.append(Finding.of(number, _alike_sentence(pair, found, len(tasks))))
    return found, tasks, number


def _alike_sentence(pair: tuple[str, str], found: Alike, tasks: int) -> str:
    interval = "" if found.low is None else f" ({found.low:+.2f} to {found.high:+.2f})"
    return (
        f"What {WAYS[pair[0]]} and {WAYS[pair[1]]} of one task add to the last token's state has a cosine of "
        f"{found.same:.2f}, of different tasks {found.other:.2f}: {found.difference:+.2f}{interval}, "
        f"p = {found.p:.2g}, one-sided, tasks exchanged (n = {tasks} tasks, mean over layers)."
    )


def _same_claim(made: Measured, found: tuple[Alike, list[int], Number] | None, kind: str, least: float) -> Claim:
    """Soft prompts and another way move the state the same way, more than those of different tasks do, by MATTERS."""
    pair = ("prompt", kind)
    both = (
        len(found[1]) if found else len({way.task for way in made.of("prompt")} & {way.task for way in made.of(kind)})
    )
    premise = Premise(
        both >= LEAST_TASKS,
        f"soft prompts and {WAYS[kind]} both beat no prompt, and {NOTHING['prompt']} and {NOTHING[kind]}, by {least:g} "
        f"in {both} of {len(made.names)} tasks",
        f"{LEAST_TASKS} tasks in which soft prompts and {WAYS[kind]} both help",
    )
    if found is None:
        return decided(SAME_AS[kind], None, "No vectors are compared.", premises=[premise])
    each, tasks, number = found
    interval = (each.low, each.high) if each.low is not None and each.high is not None else None
    return decided(
        SAME_AS[kind],
        interval,
        f"{_alike_sentence(pair, each, len(tasks))} To be called the same way, it must lie above {MATTERS:+.2f}.",
        threshold=MATTERS,
        p=each.p,
        premises=[premise],
        needs="more tasks",
        quantity=number.quantity,
    )


# Tables.


def _way_table(made: Measured) -> pd.DataFrame:
    """A row per task and way: accuracies of test examples, unless they say chosen."""
    return pd.DataFrame(
        [
            {
                "task": made.names[way.task],
                "way": way.kind,
                "units": len(way.prompts),
                "accuracy": way.right_UE.mean(),
                "nothing": way.nothing_right,
                "none": made.none_right[way.task].mean(),
                "chosen_gain": way.gain,
                "chosen_beyond": way.beyond,
                "helps": way.injection is not None,
                "layer": None if way.injection is None else made.layers[way.injection.place[0]],
                "scale": None if way.injection is None else made.scales[way.injection.place[1]],
                "n": made.tests[way.task].n,
                "n_chosen": made.choosing[way.task].n,
            }
            for way in made.ways
        ]
    ).astype({"layer": "Int64"})


def _unit_table(made: Measured) -> pd.DataFrame:
    """A row per unit of trained prompts, as other tables count them: the id of its run."""
    return pd.DataFrame(
        [
            {"task": made.names[way.task], "way": way.kind, "unit": u, "run": run}
            for way in made.ways
            for u, run in enumerate(way.ids)
        ]
    )


def _layer_table(made: Measured) -> pd.DataFrame:
    """A row per task, way, unit and layer: what is right of the choosing examples, at the layer's best scale."""
    rows = []
    for way in made.ways:
        if way.injection is None:
            continue
        best_S = way.injection.best_scales()
        for (s, layer), u in ((each, u) for each in enumerate(made.layers) for u in range(len(way.prompts))):
            rows.append(
                {
                    "task": made.names[way.task],
                    "way": way.kind,
                    "unit": u,
                    "layer": layer,
                    "norm": np.linalg.norm(way.vectors_USD[u, s]),
                    "scale": made.scales[best_S[s]],
                    "accuracy": way.injection.chosen_SCUE[s, best_S[s], u].mean(),
                    "random": way.injection.random_SUE[s, u].mean(),
                    "none": made.none_chosen[way.task].mean(),
                }
            )
    return pd.DataFrame(rows)


def _injected_table(made: Measured) -> pd.DataFrame:
    """A row per task, way, unit and vector that was added: what is right of the test examples."""
    return pd.DataFrame(
        [
            {
                "task": made.names[way.task],
                "way": way.kind,
                "unit": u,
                "vector": vector,
                "injected": right_UE[u].mean(),
                "accuracy": way.right_UE[u].mean(),
                "none": made.none_right[way.task].mean(),
            }
            for way in made.ways
            if way.injection is not None
            for vector, right_UE in way.injection.right.items()
            for u in range(len(way.prompts))
        ]
    )


def _cosine_table(made: Measured, pairs: dict[tuple[str, str], tuple[Alike, list[int], Number] | None]) -> pd.DataFrame:
    """A row per pair of ways and layer: cosines of one task's vectors, and of different tasks'."""
    return pd.DataFrame(
        [
            {"way": pair[0], "other": pair[1], "layer": layer, "same": same, "different": other, "tasks": len(found[1])}
            for pair, found in pairs.items()
            if found is not None
            for layer, same, other in zip(made.layers, found[0].same_S, found[0].other_S, strict=True)
        ]
    )


# Figures.


def _recovery_figure(made: Measured, helping: dict[str, list[Way]], bootstrap: Bootstrap) -> str:
    """Recovery by layer on the choosing examples, a panel per way, with random vectors; faint: units."""
    shown = {kind: ways for kind, ways in helping.items() if ways}
    with panels(1, len(shown), width=2.9 * len(shown) + 0.6, height=2.9, sharey=True) as (figure, axes):
        for axis, (kind, ways), colour in zip(axes[0], shown.items(), COLOURS, strict=False):
            own = _scored(ways, [way.chosen_UE for way in ways], made.choosing, [way.runs for way in ways])
            tasks = [way.task for way in ways]
            none = Scored(
                [made.none_chosen[t] for t in tasks], [made.choosing[t] for t in tasks], [()] * len(ways), True
            )
            for vector, shade, shift in (("own", colour, -0.1), ("random", NEUTRAL, 0.1)):
                at_layers = [_at_layer(ways, s, vector) for s in range(len(made.layers))]
                scored = [_scored(ways, x, made.choosing, [way.runs for way in ways]) for x in at_layers]
                result = Result()
                numbers = [_share(result, "", each, own, none, bootstrap) for each in scored]
                behind = [_of_units(ways, x, made, own.mean - none.mean) for x in at_layers]
                label = "its vectors" if vector == "own" else "random vectors"
                style: dict[str, Any] = {"color": shade, "label": label, "linestyle": "-"}
                estimates(axis, np.arange(len(made.layers)) + shift, numbers, behind, across=0.2, **style)
            axis.axhline(0, color="black", linewidth=0.6)
            axis.axhline(1, color="black", linewidth=0.6, linestyle=":")
            axis.set(title=WAYS[kind], xlabel="layer", xticks=range(len(made.layers)), ylim=(-0.6, 1.6))
            axis.set_xticklabels(made.layers)
            axis.legend(fontsize=7, loc="upper left")
        axes[0, 0].set_ylabel("recovery")
        seen = (
            "What vectors recover of what each way does, by the layer where they are added, on the examples by which "
        )
        return svg(figure, f"{seen}layer and scale are chosen; 95 % intervals; faint: single runs and draws")


def _at_layer(ways: Sequence[Way], s: int, vector: str) -> list[np.ndarray]:
    """[U, E] of each way: right at a layer, at its best scale."""
    if vector == "random":
        return [each.random_SUE[s] for each in _injections(ways)]
    return [each.chosen_SCUE[s, each.best_scales()[s]] for each in _injections(ways)]


def _of_units(ways: Sequence[Way], right: Sequence[np.ndarray], made: Measured, gain: float) -> list[float]:
    """What each unit recovers, in units of what all gain on average: their mean is the mean's."""
    if gain <= 0:
        return []
    gains = [x_UE.mean(1) - made.none_chosen[way.task].mean() for way, x_UE in zip(ways, right, strict=True)]
    return [float(each) / gain for each in np.concatenate(gains)]


def _cosine_figure(made: Measured, shown: dict[tuple[str, str], Alike]) -> str:
    """Cosines by layer of one task's vectors and of different tasks', a panel per pair of ways."""
    with panels(1, len(shown), width=2.9 * len(shown) + 0.6, height=2.6, sharey=True) as (figure, axes):
        for axis, (pair, found) in zip(axes[0], shown.items(), strict=True):
            axis.plot(made.layers, found.same_S, "o-", color=COLOURS[0], markersize=3, label="one task")
            axis.plot(made.layers, found.other_S, "s-", color=NEUTRAL, markersize=3, label="different tasks")
            axis.axhline(0, color="black", linewidth=0.6)
            axis.set(title=f"{WAYS[pair[0]]}, {WAYS[pair[1]]}", xlabel="layer", xticks=made.layers)
            axis.legend(fontsize=7)
        axes[0, 0].set_ylabel("cosine")
        return svg(figure, "How alike two ways' vectors are, by layer: means over pairs")
