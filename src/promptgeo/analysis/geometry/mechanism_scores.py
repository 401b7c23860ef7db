"""What do the ways to say a task move in the model's states, and what is right where only that is added?

A way is the trained prompts, demonstrations, or the instruction; its units are runs, draws of demonstrations, and the
one text. Of each unit the vector v(l) = mean over inputs of what the model holds at the input's last token before block
l, less the same with what says nothing: P0, demonstrations with labels exchanged, the instruction's words in other
orders. Inputs are training examples that no demonstration shows.

Shapes: S layers, C scales, U units of a way, D width of the hidden states, E examples, P prompt tokens, d width of the
input embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from promptgeo.analysis.demonstrations import embedded, fitting, require_prompt_first, room_before
from promptgeo.analysis.geometry.task_vectors import random_like
from promptgeo.analysis.groups import TaskRuns, by_task
from promptgeo.analysis.injecting import Injected, mean_end_states
from promptgeo.analysis.progress import progress
from promptgeo.analysis.scoring import EvaluationSet, score
from promptgeo.data.example import Example
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

NOTHING = {
    "prompt": "their P0s",
    "demonstrations": "demonstrations with labels exchanged",
    "instruction": "its words in other orders",
}
"""What says nothing beside each way, in words."""
WAYS = {"prompt": "soft prompts", "demonstrations": "demonstrations", "instruction": "the instruction"}
"""In words."""


@dataclass(frozen=True)
class Options:
    """As analysis=mechanism names them."""

    shots: int
    sets: int
    examples: int
    validation: int
    max_examples: int | None
    layers: int | None
    scales: tuple[float, ...]
    least: float
    seed: int


@dataclass(frozen=True, eq=False)
class Material:
    """Which examples of a task serve what."""

    group: TaskRuns
    number: int
    """Of the task."""
    choosing: EvaluationSet
    """On which layer and scale are chosen, and by which it is judged whether a way helps."""
    inputs: list[Example]
    """Over which states are averaged."""
    shown: list[list[Example]]
    """Each draw's demonstrations."""
    instruction: str | None

    @property
    def test(self) -> EvaluationSet:
        return self.group.evaluation_set


@dataclass(frozen=True, eq=False)
class Injection:
    """What is right where a way's vectors are added to inputs without a prompt."""

    chosen_SCUE: np.ndarray
    """bool, of the choosing examples: at each layer and scale."""
    place: tuple[int, int]
    """The layer and the scale that were chosen, by number."""
    random_SUE: np.ndarray
    """bool, of the choosing examples: random vectors of equal norm, at each layer's best scale."""
    right: dict[str, np.ndarray]
    """[U, E] bool, of the test examples at the chosen place: own vectors, random ones (random), another task's (other).
    """
    others: list[tuple[int, ...]]
    """Whose vector each unit's other one is, as Scored.runs_S."""

    def best_scales(self) -> np.ndarray:
        """[S] int64: at each layer the scale at which most is right."""
        return np.asarray(self.chosen_SCUE.mean((2, 3)).argmax(1))


@dataclass(eq=False)
class Way:
    """One way to say one task."""

    kind: str
    task: int
    runs: Sequence[tuple[int, ...]]
    """Of each unit, as Scored.runs_S: its run, or the draw counted behind the runs; () for the instruction."""
    prompts: list[np.ndarray]
    """[P, d] each."""
    nothing: list[list[np.ndarray]]
    """What says nothing, beside each."""
    vectors_USD: np.ndarray = field(default_factory=lambda: np.empty(0))
    chosen_UE: np.ndarray = field(default_factory=lambda: np.empty(0))
    """bool: what the way itself gets right of the choosing examples."""
    right_UE: np.ndarray = field(default_factory=lambda: np.empty(0))
    """bool: and of the test examples."""
    nothing_right: float = 0.0
    """Accuracy of what says nothing, on the test examples."""
    gain: float = 0.0
    """Over no prompt, on the choosing examples."""
    beyond: float = 0.0
    """Over what says nothing, likewise: where there is none, the vector is the difference of two equals."""
    injection: Injection | None = None
    """None where the way does not help by Options.least."""
    ids: Sequence[str] = ()
    """Of each unit's run; none of what is no run."""

    def helps(self, least: float) -> bool:
        """Whether it beats both no prompt and what says nothing by so much."""
        return min(self.gain, self.beyond) >= least


@dataclass(frozen=True, eq=False)
class Measured:
    """All that the model said."""

    names: list[str]
    """Of the tasks."""
    tests: list[EvaluationSet]
    choosing: list[EvaluationSet]
    none_chosen: list[np.ndarray]
    """[E] bool of each task: right without a prompt, of the choosing examples."""
    none_right: list[np.ndarray]
    """Likewise of the test examples."""
    layers: list[int]
    scales: tuple[float, ...]
    ways: list[Way]
    omissions: list[str]

    def of(self, kind: str, helping: bool = True) -> list[Way]:
        """A kind's ways by task; helping: only where they help."""
        return [way for way in self.ways if way.kind == kind and (way.injection is not None or not helping)]


def measured(lm: LM, runs: RunTable, options: Options) -> Measured:
    """Asks the model all that is needed.

    Raises UserError for prompts that were trained elsewhere, a template with text before the prompt, a model whose
    hidden states cannot be read or that has a single block, and a task with too few training examples.
    """
    groups = by_task(runs, "mechanism", options.max_examples, options.seed)
    if lm.layers < 2:
        raise UserError("mechanism: the model has one block: there is no state between blocks")
    between = range(1, lm.layers)
    count = len(between) if options.layers is None else min(options.layers, len(between))
    layers = [between[int(i)] for i in np.unique(np.linspace(0, len(between) - 1, count).round())]
    omissions: list[str] = []
    materials = [_material(group, number, options, omissions) for number, group in enumerate(groups)]
    ways = [way for material in materials for way in _ways(lm, material, len(runs), options, omissions)]
    none_chosen, none_right = _score_ways(lm, materials, ways)
    for way in progress(ways, "hidden states"):
        way.vectors_USD = _vectors(lm, materials[way.task], way, layers)
    names = [group.name for group in groups]
    made = Measured(
        names,
        [m.test for m in materials],
        [m.choosing for m in materials],
        none_chosen,
        none_right,
        layers,
        options.scales,
        ways,
        omissions,
    )
    helping = [way for way in ways if way.helps(options.least)]
    for way in helping:
        way.injection = _injected(lm, materials[way.task], way, made, options)
    return made


# Examples, and ways.


def _material(group: TaskRuns, number: int, options: Options, omissions: list[str]) -> Material:
    task = group.evaluation_set.task
    require_prompt_first("mechanism", task)
    generator = np.random.default_rng([options.seed, 1])
    order = generator.permutation(len(task.train))
    inputs, rest = np.split(order, [min(options.examples, len(order) // 2)])
    if len(inputs) < options.examples:
        omissions.append(
            f"mechanism: {group.name}: states are means over {len(inputs)} training inputs, half of all, not "
            f"{options.examples}."
        )
    if task.validation:
        choosing = [task.validation[i] for i in generator.permutation(len(task.validation))[: options.validation]]
    else:
        held, rest = np.split(rest, [min(options.validation, len(rest) // 2)])
        choosing = [task.train[i] for i in held]
        omissions.append(
            f"mechanism: {group.name} has no validation examples: layer and scale are chosen on {len(held)} training "
            "examples (task.split.validation=0.2 keeps some)."
        )
    if task.validation and len(choosing) < options.validation:
        omissions.append(
            f"mechanism: {group.name}: layer and scale are chosen on all {len(choosing)} validation examples, not "
            f"{options.validation}."
        )
    if len(rest) < options.shots or not choosing or not len(inputs):
        raise UserError(
            f"mechanism: task {task.name} has {len(task.train)} training examples, of which {len(rest)} are left for "
            f"{options.shots} demonstrations; set analysis.mechanism.shots or analysis.mechanism.examples lower"
        )
    shown = [
        [task.train[i] for i in np.random.default_rng([options.seed, 2, s]).permutation(rest)[: options.shots]]
        for s in range(options.sets)
    ]
    instruction = group.runs[0].info["config"]["task"].get("text")
    limited = replace(group.evaluation_set, task=replace(task, test=choosing), of=len(choosing))
    return Material(group, number, limited, [task.train[i] for i in inputs], shown, instruction)


def _ways(lm: LM, material: Material, runs: int, options: Options, omissions: list[str]) -> list[Way]:
    """The ways to say a task. runs: of all tasks, behind which draws are counted."""
    group, number = material.group, material.number
    trained = [run.prompt() for run in group.runs]
    initial = [[run.prompt("initial")] for run in group.runs]
    ids = [run.id for run in group.runs]
    made = [Way("prompt", number, [(n,) for n in group.members], trained, initial, ids=ids)]
    every = [*material.test.task.test, *material.choosing.task.test, *material.inputs]
    room = room_before(lm, replace(material.test, task=replace(material.test.task, test=every)))
    draws = [_demonstrations(lm, material, shown, s, room) for s, shown in enumerate(material.shown)]
    shots = [count for count, _, _ in draws]
    if min(shots) < options.shots:
        omissions.append(
            f"mechanism: the model has no positions for {options.shots} demonstrations of {group.name} "
            f"(as few as {min(shots)})."
        )
    if min(shots) > 1:
        units = [(runs + number * options.sets + s,) for s in range(len(draws))]
        made.append(Way("demonstrations", number, units, [d[1] for d in draws], [[d[2]] for d in draws]))
    words = (material.instruction or "").split()
    if len(set(words)) < 2:
        omissions.append(f"mechanism: {group.name} has no instruction (task.text) of several words.")
    else:
        texts = [" ".join(words), *_other_orders(words, options.sets, options.seed)]
        written = [embedded(lm, [*lm.encode(text), *lm.encode("\n")]) for text in texts]
        if room is None or max(map(len, written)) <= room:
            made.append(Way("instruction", number, [()], written[:1], [written[1:]]))
        else:
            omissions.append(f"mechanism: the model has no positions for the instruction of {group.name}.")
    return made


def _demonstrations(
    lm: LM, material: Material, shown: list[Example], draw: int, room: int | None
) -> tuple[int, np.ndarray, np.ndarray]:
    """(how many fit, as a prompt, the same with labels exchanged so that none keeps its place)."""
    task = material.test.task
    kept, tokens = fitting(lm, task, shown, room)
    shift = 1 + draw % max(len(kept) - 1, 1)
    exchanged = [replace(example, label=kept[(k + shift) % len(kept)].label) for k, example in enumerate(kept)]
    return len(kept), embedded(lm, tokens), embedded(lm, fitting(lm, task, exchanged, None)[1])


def _other_orders(words: list[str], count: int, seed: int) -> list[str]:
    """So many texts of these words in random orders that are not the given one."""
    generator = np.random.default_rng([seed, 3])
    made: list[str] = []
    while len(made) < count:
        text = " ".join(generator.permutation(words))
        made += [text] if text != " ".join(words) else []
    return made


# What the model says.


def _score_ways(
    lm: LM, materials: Sequence[Material], ways: Sequence[Way]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Fills in what each way gets right; returns what no prompt does, of choosing and of test examples."""
    prompts: list[np.ndarray] = []
    sets: list[EvaluationSet] = []
    alone = np.zeros((0, lm.width), np.float32)
    for material, every in [
        *((material, [alone]) for material in materials),
        *((materials[way.task], [*way.prompts, *chain(*way.nothing)]) for way in ways),
    ]:
        prompts += 2 * every
        sets += [material.choosing] * len(every) + [material.test] * len(every)
    right = iter(score(lm, prompts, sets))
    none = [(next(right), next(right)) for _ in materials]
    for way in ways:
        units, others = len(way.prompts), len(list(chain(*way.nothing)))
        way.chosen_UE, nothing_chosen, way.right_UE, nothing_right = (
            np.stack([next(right) for _ in range(count)]) for count in (units, others, units, others)
        )
        way.nothing_right = float(nothing_right.mean())
        way.gain = float(way.chosen_UE.mean() - none[way.task][0].mean())
        way.beyond = float(way.chosen_UE.mean() - nothing_chosen.mean())
    return [chosen for chosen, _ in none], [test for _, test in none]


def _vectors(lm: LM, material: Material, way: Way, layers: list[int]) -> np.ndarray:
    """[U, S, D] float64."""
    task, inputs = material.test.task, material.inputs
    return np.stack(
        [
            mean_end_states(lm, task, inputs, prompt_Pd, layers)
            - np.mean([mean_end_states(lm, task, inputs, each_Pd, layers) for each_Pd in nothing], axis=0)
            for prompt_Pd, nothing in zip(way.prompts, way.nothing, strict=True)
        ]
    )


def _injected(lm: LM, material: Material, way: Way, made: Measured, options: Options) -> Injection:
    """What a way's vectors do: the place is chosen on some examples, and measured on others."""
    on_choosing, on_test = Injected(lm, material.choosing), Injected(lm, material.test)
    layers, scales, units = made.layers, options.scales, len(way.prompts)
    chosen = np.empty((len(layers), len(scales), units, material.choosing.n), dtype=bool)
    loss = np.empty(chosen.shape[:2])
    label = f"{material.group.name}: vectors of {WAYS[way.kind]}"
    for s, layer in enumerate(progress(layers, label)):
        for c, scale in enumerate(scales):
            chosen[s, c], losses_U = on_choosing.answers(layer, scale * way.vectors_USD[:, s])
            loss[s, c] = losses_U.mean()
    # Of places where as much is right, the one where the labels are likeliest.
    best = max(np.ndindex(*loss.shape), key=lambda at: (chosen[at].mean(), -loss[at]))
    random_USD = np.stack(
        [
            random_like(x_SD, np.random.default_rng([options.seed, 4, way.task, u]))
            for u, x_SD in enumerate(way.vectors_USD)
        ]
    )
    scale_S = [scales[int(c)] for c in chosen.mean((2, 3)).argmax(1)]
    random_SUE = np.stack(
        [on_choosing.answers(layer, scale_S[s] * random_USD[:, s])[0] for s, layer in enumerate(layers)]
    )
    others_USD, others = _others(way, made.of(way.kind, helping=False))
    layer, scale, s = layers[best[0]], scales[best[1]], best[0]
    kinds = {"own": way.vectors_USD, "random": random_USD} | ({"other": others_USD} if len(others) else {})
    right = {name: on_test.answers(layer, scale * x_USD[:, s])[0] for name, x_USD in kinds.items()}
    return Injection(chosen, (int(best[0]), int(best[1])), random_SUE, right, others)


def _others(way: Way, alike: Sequence[Way]) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """(of each unit another task's vector [U, S, D], whose it is): the other tasks in turn; empty for one task."""
    elsewhere = [each for each in alike if each.task != way.task]
    if not elsewhere:
        return np.empty(0), []
    taken = []
    for u in range(len(way.prompts)):
        other = elsewhere[(way.task + u) % len(elsewhere)]
        taken.append((other, u % len(other.prompts)))
    return np.stack([other.vectors_USD[k] for other, k in taken]), [other.runs[k] for other, k in taken]
