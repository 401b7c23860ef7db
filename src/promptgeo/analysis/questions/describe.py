"""Can the model put its own soft prompt into words, and does the description do the job?

InSPEcT (arXiv 2410.11660) reads a prompt's hidden states out at other layers; that a description must also work in the
prompt's place is the plug-in evaluation of neologisms (arXiv 2510.08506). One of many pairs of layers always gives the
best text: so every number stands beside what the same choice makes of P0s, of random prompts, and of other tasks'.

It is not asked here whether prompts that were trained inside a sentence ("Please {prompt}.") are easier to put into
words than those in front of the input: that needs runs of both templates.

Shapes: N runs, T tasks, K pairs of layers, P prompt tokens, d width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from promptgeo.analysis.crossed import Error, LeaveOuts
from promptgeo.analysis.deciding import LEVEL, Premise, decided, for_all, learned
from promptgeo.analysis.describing import (
    Pair,
    as_prompt,
    descriptions,
    label_words,
    layer_pairs,
    named_share,
    require_placeholder,
    rouge_1,
)
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, svg
from promptgeo.analysis.groups import names_of
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import (
    STILL,
    exchangeable,
    other_orders,
    permutation_p,
    sign_flip_p,
    t_mean,
    varies,
)
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.analysis.scoring import Answers, EvaluationSet, answers, evaluation_sets, sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

LEAST_GAP = 0.1
"""Where trained prompts solve fewer examples more than no prompt, or take fewer nats off the loss, there is no job that
a text could do."""
NULLS = {
    "initial": "P0s",
    "random": "random prompts of equal norms",
    "others": "the prompts of other tasks and the same init",
}
"""What else is put into words, in words."""
MEASURES = {
    "plug_in": ("do", "of what the prompts gain over no prompt"),
    "plug_in_loss": ("do", "of what the prompts take off the loss without a prompt"),
    "label_words": ("name", "of their tasks' label words"),
    "rouge": ("have", "ROUGE-1 with their tasks' own descriptions"),
}
"""What descriptions do, and of what, in words."""
SHARES = ("label_words", "rouge")
"""Measures that lie from 0 to 1: so do their intervals."""
AXES = {
    "plug_in": "share of the accuracy gained",
    "plug_in_loss": "share of the loss taken off",
    "label_words": "share of label words named",
}
"""What the figure shows, and its axes' names."""
CLAIMS = {"description_does_the_job": "plug_in", "describes_label_words": "label_words"}
"""Claim -> what it is about."""
MATTERS = {"plug_in": 0.1, "label_words": 0.02}
"""To exceed the nulls by less would not matter."""


def _check(target: str, layers: int, max_new_tokens: int, chosen_on: int) -> None:
    require_placeholder(target)
    if min(layers, max_new_tokens, chosen_on) < 1:
        raise UserError("describe: layers, max_new_tokens and chosen_on must be at least 1")


@question(lm=True, claims=tuple(CLAIMS), check=_check)
def describe(
    runs: RunTable,
    *,
    lm: LM,
    target: str,
    layers: int = 6,
    max_new_tokens: int = 20,
    chosen_on: int = 8,
    max_examples: int | None = 40,
    permutations: int = 5000,
    seed: int = 0,
) -> Result:
    """Reads every trained prompt out at pairs of layers, and scores the texts; likewise P0s and random prompts.

    Hidden states at the prompt's tokens at one layer are written over as many placeholders of `target` at another; what
    the model writes then, greedily, up to a |, a colon or a new line, is a text s (describing.py; layer 0: what the
    embeddings come to). Numbers `<measure>.<task>`, whose interval is over its runs on these test examples, and
    `<measure>.all`, whose interval leaves out whole inits and tasks (crossed.py):

    `plug_in`, (acc(s as the prompt) - acc(none)) / (acc(P) - acc(none)), by exact match on test examples. acc(P) is the
    mean of the task's runs; tasks where it is not .1 above acc(none) are left out. Only the text of one pair of layers
    is scored: the one with the best accuracy as a prompt, then the lowest loss, on `chosen_on` validation examples (of
    a task without: training examples). `label_words`, the share of the labels of training examples that a text names,
    and `rouge`, ROUGE-1 F with task.text or task.description (the larger): of both the maximum over pairs of layers.
    No test example is part of a choice.

    `plug_in_loss`, the same of the loss of a label (nats, summed over its tokens): (loss(none) - loss(s)) /
    (loss(none) - loss(P)). `plug_in.own_text` and `plug_in_loss.own_text`: of task.text or task.description, the better
    one likewise: what a text can do at all, and a premise of `description_does_the_job`.

    `<measure>.<null>.<task>`: the same, choice and all, of P0s (`initial`), of a random prompt with the norms of each
    run's rows (`random`), and of the prompts of other tasks and the same init on this task (`others`).
    `difference.<measure>.<null>`: over runs; its interval leaves out whole inits and tasks too. p: of `others` by
    exchanging whole tasks with all their runs, of the other two by flipping signs of whole cells.

    Both claims: the difference lies above 0 for every null. Tables: `descriptions`, a row per run (`null`: the largest
    of the three nulls), and `texts`, every text of every run.

    Args:
        target: demonstrations of texts and descriptions, then {prompt}.
        layers: so many, evenly from layer 0 on, are read and written at, in all pairs.
        max_new_tokens: of a description.
        chosen_on: validation examples of a task by which the pair of layers is chosen, drawn by seed.
        max_examples: of each task's test examples, drawn by seed; null: all.
        permutations: orders of the tasks, where there are more: all of up to 6 tasks.
        seed: of examples, random prompts and permutations.

    Raises UserError for prompts that were trained elsewhere, a template with the input before the prompt, a target
    without {prompt} or that the model has no positions for, and an option that cannot be.
    """
    # Long because all its numbers and options are named here.
    _check(target, layers, max_new_tokens, chosen_on)
    sets_N = evaluation_sets(runs, "describe", max_examples, seed)
    result = Result()
    result.omissions += sampled_examples("describe", sets_N, max_examples, seed)
    held = {each: _held(each, chosen_on, seed) for each in dict.fromkeys(sets_N)}
    if trained_on := [each.task.name for each in held if not each.task.validation]:
        result.omissions.append(
            f"describe: {', '.join(trained_on)}: no validation examples (task.split.validation): the layers are chosen "
            "on training examples."
        )
    if few := [f"{each.task.name} ({one.n})" for each, one in held.items() if one.n < chosen_on]:
        result.omissions.append(
            f"describe: fewer than chosen_on={chosen_on} examples by which layers are chosen: {', '.join(few)}."
        )
    pairs = layer_pairs(lm.layers, layers)
    found = _measured(lm, runs, sets_N, held, (pairs, target, max_new_tokens), seed)
    _answer(result, found, runs.table, permutations, seed)
    return result


# What is measured.


@dataclass(frozen=True)
class Chosen:
    """What was made of one prompt for one task: a text, and the measures of it or of the best of all its texts."""

    place: int
    """Of the text among those of its prompt: the number of a pair of layers."""
    text: str
    accuracy: float
    """Of the text as the prompt, on test examples."""
    loss: float
    """Likewise, of a label, in nats."""
    label_words: float
    """The largest of all texts; so is rouge."""
    rouge: float
    naming: str
    """The text that names the most label words."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Everything that is known of the runs' texts. NaN where nothing was asked."""

    tasks: list[str]
    task_N: np.ndarray
    """[N] int64."""
    init_N: np.ndarray
    """[N], names."""
    prompt_N2: np.ndarray
    """[N, 2] float64: the trained prompts' accuracies and losses."""
    none_T2: np.ndarray
    """[T, 2] float64: likewise, no prompt's."""
    trained_NT: list[list[Chosen]]
    """Of each run for each task."""
    nulls_N: Mapping[str, list[Chosen]]
    """initial and random, for each run's own task."""
    own_text_T: list[Chosen | None]
    """Of what a task's config says that it is."""
    pairs: Sequence[Pair]
    texts: pd.DataFrame

    @cached_property
    def gap_T2(self) -> np.ndarray:
        """[T, 2] float64: accuracy that trained prompts gain, and loss that they take off; NaN below LEAST_GAP."""
        means_T2 = np.array([self.prompt_N2[self.task_N == t].mean(0) for t in range(len(self.tasks))])
        gap_T2 = (means_T2 - self.none_T2) * np.array([1.0, -1.0])
        return np.where(gap_T2 < LEAST_GAP, np.nan, gap_T2)

    def value(self, chosen: Chosen, t: int, measure: str) -> float:
        """Of one text for task t."""
        if measure == "plug_in":
            return float((chosen.accuracy - self.none_T2[t, 0]) / self.gap_T2[t, 0])
        if measure == "plug_in_loss":
            return float((self.none_T2[t, 1] - chosen.loss) / self.gap_T2[t, 1])
        return float(getattr(chosen, measure))

    def values(self, measure: str) -> np.ndarray:
        """[N, T] float64: of each run's prompt for each task; NaN for tasks that cannot be decided."""
        return np.array([[self.value(one, t, measure) for t, one in enumerate(of_T)] for of_T in self.trained_NT])

    def own(self, measure: str) -> np.ndarray:
        """[N] float64: of each run for its own task."""
        own_N: np.ndarray = self.values(measure)[np.arange(len(self.task_N)), self.task_N]
        return own_N

    def null(self, which: str, measure: str) -> np.ndarray:
        """[N] float64: what a null says on each run's task; of `others` the mean, NaN for a run without."""
        if which != "others":
            pairs = zip(self.nulls_N[which], self.task_N, strict=True)
            return np.array([self.value(one, int(t), measure) for one, t in pairs])
        values_NT, means = self.values(measure), []
        for t, init in zip(self.task_N, self.init_N, strict=True):
            others = values_NT[(self.init_N == init) & (self.task_N != t), t]
            means.append(others.mean() if len(others) else np.nan)
        return np.array(means)

    def own_text(self, measure: str) -> np.ndarray:
        """[T] float64: of each task's own text; NaN for a task without."""
        of_T = enumerate(self.own_text_T)
        return np.array([np.nan if one is None else self.value(one, t, measure) for t, one in of_T])


def _held(evaluation_set: EvaluationSet, count: int, seed: int) -> EvaluationSet:
    """Examples by which layers are chosen: of validation, or of training where there is none; never of test."""
    task = evaluation_set.task
    examples = task.validation or task.train
    chosen = np.sort(np.random.default_rng(seed).permutation(len(examples))[:count])
    return replace(evaluation_set, task=replace(task, test=[examples[i] for i in chosen]), of=len(examples))


def references(runs: RunTable, n: int) -> list[str]:
    """What the config of a run says that its task is."""
    config = runs.runs[n].info["config"]["task"] if runs.runs is not None else {}
    return [config[key] for key in ("text", "description") if config.get(key)]


def equal_norms(prompt_Pd: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[P, d] float32: random directions as long as the rows of a prompt."""
    random_Pd = generator.standard_normal(prompt_Pd.shape)
    norms_P1 = np.linalg.norm(prompt_Pd, axis=1, keepdims=True) / np.linalg.norm(random_Pd, axis=1, keepdims=True)
    return (random_Pd * norms_P1).astype(np.float32)


def _measured(
    lm: LM,
    runs: RunTable,
    sets_N: Sequence[EvaluationSet],
    held: Mapping[EvaluationSet, EvaluationSet],
    asked: tuple[Sequence[Pair], str, int],
    seed: int,
) -> Measured:
    """Writes, chooses and scores. asked: pairs of layers, target, tokens of a description."""
    trained = runs.runs or []  # evaluation_sets has refused a table without
    sets_T, n = list(dict.fromkeys(sets_N)), len(trained)
    task_N = np.array([sets_T.index(each) for each in sets_N])
    prompts = [
        *(run.prompt() for run in trained),
        *(run.prompt("initial") for run in trained),
        *(equal_norms(run.prompt(), np.random.default_rng([seed, k])) for k, run in enumerate(trained)),
    ]
    texts = descriptions(lm, prompts, [each.task for each in sets_N] * 3, *asked)
    # Trained prompts are tried on all tasks, the others on their own.
    uses = [(k, t) for k in range(n) for t in range(len(sets_T))]
    uses += [(k, int(task_N[k % n])) for k in range(n, 3 * n)]
    tried = _tried(lm, texts, uses, [held[each] for each in sets_T])
    about_T = [(label_words(each.task.train), references(runs, sets_N.index(each))) for each in sets_T]
    made = _chosen(lm, texts, uses, tried, sets_T, about_T)
    nothing = np.zeros((0, lm.width), np.float32)
    own = answers(lm, [*prompts[:n], *[nothing] * len(sets_T)], [*sets_N, *sets_T])
    scores = np.array([_score(each) for each in own])
    said_T = [said for _, said in about_T]
    told = [(t, t) for t, said in enumerate(said_T) if said]
    tried_told = _tried(lm, said_T, told, [held[each] for each in sets_T])
    own_texts = dict(zip(told, _chosen(lm, said_T, told, tried_told, sets_T, about_T), strict=True))
    count = n * len(sets_T)
    return Measured(
        names_of(runs, [np.flatnonzero(task_N == t).tolist() for t in range(len(sets_T))]),
        task_N,
        runs.table["init"].to_numpy(),
        scores[:n],
        scores[n:],
        [made[k : k + len(sets_T)] for k in range(0, count, len(sets_T))],
        {"initial": made[count : count + n], "random": made[count + n :]},
        [own_texts.get((t, t)) for t in range(len(sets_T))],
        asked[0],
        _texts_table(texts[:n], task_N, tried, asked[0], about_T),
    )


def _tried(
    lm: LM, texts_S: Sequence[Sequence[str]], uses: Sequence[tuple[int, int]], held_T: Sequence[EvaluationSet]
) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """For each use (prompt, task): of each of its texts (accuracy, loss) on the examples by which layers are chosen.

    Prompts hardly differ in texts where nothing is read: each is tried once.
    """
    wanted = list(dict.fromkeys((text, t) for prompt, t in uses for text in texts_S[prompt]))
    scored = answers(lm, [as_prompt(lm, text) for text, _ in wanted], [held_T[t] for _, t in wanted])
    of_text = {key: _score(each) for key, each in zip(wanted, scored, strict=True)}
    return {(prompt, t): [of_text[text, t] for text in texts_S[prompt]] for prompt, t in uses}


def _score(answered: Answers) -> tuple[float, float]:
    """(accuracy, mean loss of a label in nats; infinite where it is not a number)."""
    loss = float("inf") if answered.losses_E is None else float(answered.losses_E.mean())
    return float(answered.correct_E.mean()), loss if np.isfinite(loss) else float("inf")


About = tuple[set[str], list[str]]
"""The label words of a task, and what its config says that it is."""


def _chosen(
    lm: LM,
    texts_S: Sequence[Sequence[str]],
    uses: Sequence[tuple[int, int]],
    tried: Mapping[tuple[int, int], Sequence[tuple[float, float]]],
    sets_T: Sequence[EvaluationSet],
    about_T: Sequence[About],
) -> list[Chosen]:
    """Of each use the text that did best where it was tried, scored on test examples."""
    ranks = [[(-accuracy, loss) for accuracy, loss in tried[use]] for use in uses]
    best = [of_use.index(min(of_use)) for of_use in ranks]  # of equal ones the first
    chosen = [texts_S[prompt][k] for (prompt, _), k in zip(uses, best, strict=True)]
    solved = answers(lm, [as_prompt(lm, text) for text in chosen], [sets_T[t] for _, t in uses])
    made = []
    for (prompt, t), k, right in zip(uses, best, solved, strict=True):
        words, said = about_T[t]
        named = [named_share(text, words) for text in texts_S[prompt]]
        rouge = max(rouge_1(text, said) for text in texts_S[prompt]) if said else float("nan")
        naming = texts_S[prompt][int(np.argmax(named))] if any(named) else ""
        made.append(Chosen(k, texts_S[prompt][k], *_score(right), max(named), rouge, naming))
    return made


def _texts_table(
    texts_N: Sequence[Sequence[str]],
    task_N: np.ndarray,
    tried: Mapping[tuple[int, int], Sequence[tuple[float, float]]],
    pairs: Sequence[Pair],
    about_T: Sequence[About],
) -> pd.DataFrame:
    """A row per run and pair of layers. <score>_chosen_on: of the examples by which layers are chosen."""
    return pd.DataFrame(
        [
            {
                "run": n,
                "source_layer": pair.source,
                "target_layer": pair.target,
                "text": text,
                "label_words": named_share(text, about_T[t][0]),
                "rouge": rouge_1(text, about_T[t][1]) if about_T[t][1] else float("nan"),
                "accuracy_chosen_on": accuracy,
                "loss_chosen_on": loss,
            }
            for n, t in enumerate(task_N)
            for pair, text, (accuracy, loss) in zip(pairs, texts_N[n], tried[n, int(t)], strict=True)
        ]
    )


# What is said.


def _answer(result: Result, found: Measured, table: pd.DataFrame, permutations: int, seed: int) -> None:
    """Adds all that the measured runs say."""
    if small := [task for task, gap in zip(found.tasks, found.gap_T2[:, 0], strict=True) if np.isnan(gap)]:
        result.omissions.append(
            f"describe: {', '.join(small)}: trained prompts gain less than {LEAST_GAP:g} over no prompt: what a "
            "description does of it cannot be told."
        )
    compared = {measure: _compare(result, found, measure, permutations, seed) for measure in MEASURES}
    # A job is what prompts gain over no prompt; the most frequent label counts as one, for nulls too can say it.
    premises = learned(table.drop(columns="majority", errors="ignore"))
    able = {"plug_in": _able(result, found)}
    for claim, measure in CLAIMS.items():
        more = [able[measure]] if measure in able else []
        result.claims.append(_claim(claim, measure, compared[measure], [*premises, *more]))
    result.tables["descriptions"] = _table(found, table)
    result.tables["texts"] = found.texts
    result.figures["descriptions"] = _figure(found, result)


def _able(result: Result, found: Measured) -> Premise:
    """Adds what tasks' own texts do. That they do something: of a model that follows no text none can do the job."""
    shares: dict[str, Number] = {}
    for measure in ("plug_in", "plug_in_loss"):
        own_T = found.own_text(measure)
        for task, value in zip(found.tasks, own_T, strict=True):
            if np.isfinite(value):
                result.number(f"{measure}.own_text.{task}", value, 1, "texts")
        if (known := own_T[np.isfinite(own_T)]).size:
            ends = t_mean(known) if varies(known) else (None, None)
            shares[measure] = result.number(f"{measure}.own_text.all", known.mean(), len(known), "texts", *ends)
    share = shares.get("plug_in")
    told = "there are none" if share is None else f"{share.value:.2f} of it, n = {share.n} tasks"
    return Premise(
        share is not None and share.value >= MATTERS["plug_in"],
        f"in the prompt's place, the tasks' own texts do something of the job ({told})",
        "a model that does a task which it is told, and tasks with a text",
    )


@dataclass(frozen=True)
class Difference:
    """What runs' descriptions are above a null's."""

    null: str
    number: Number
    error: Error | None
    mean: Number
    """Of the runs themselves."""
    null_mean: Number

    @property
    def words(self) -> str:
        interval = "" if self.number.low is None else f" ({self.number.low:+.2f} to {self.number.high:+.2f})"
        side = ", one-sided" if self.null == "others" else ""  # tasks are exchanged so; signs are flipped two-sided
        p = "" if self.number.p is None else f", p = {self.number.p:.2g}{side}"
        return f"{self.number.value:+.2f}{interval}{p}"


def _compare(result: Result, found: Measured, measure: str, permutations: int, seed: int) -> list[Difference]:
    """Adds the numbers of a measure, and a finding for each null that can be compared; returns the differences."""
    own_N = found.own(measure)
    known = np.isfinite(own_N)
    if not known.any():
        return []
    mean = _numbers(result, found, measure, own_N)
    made = []
    for null in NULLS:
        null_N = found.null(null, measure)
        both = known & np.isfinite(null_N)
        if not both.any():
            result.omissions.append(f"describe: {measure}: there are no runs of other tasks and the same init.")
            continue
        null_mean = _numbers(result, found, f"{measure}.{null}", null_N)
        difference_N = (own_N - null_N)[both]
        value, error = _over_runs(found, difference_N, both)
        low, high = error.interval(value) if error else (None, None)
        if null == "others":
            p = _exchanged_p(found, measure, both, permutations, seed)
        else:
            cells_N = pd.factorize(pd.MultiIndex.from_arrays([found.init_N[both], found.task_N[both]]))[0]
            p = sign_flip_p(difference_N, cells_N, permutations, seed)
        number = result.number(f"difference.{measure}.{null}", value, int(both.sum()), "runs", low, high, p)
        made.append(Difference(null, number, error, mean, null_mean))
        if p is not None or error is not None:
            result.findings.append(_finding(made[-1], measure, found, both))
    return made


def _numbers(result: Result, found: Measured, name: str, values_N: np.ndarray) -> Number:
    """Adds a mean for each task, and for all of them: returned."""
    known = np.isfinite(values_N)
    least, most = (0.0, 1.0) if name.startswith(SHARES) else (-np.inf, np.inf)
    for t, task in enumerate(found.tasks):
        if (here := values_N[(found.task_N == t) & known]).size:
            low, high = t_mean(here) if varies(here) else (None, None)
            if low is not None and high is not None:
                low, high = max(low, least), min(high, most)
            result.number(f"{name}.{task}", here.mean(), len(here), "runs", low, high)
    value, error = _over_runs(found, values_N[known], known)
    if error is None:
        return result.number(f"{name}.all", value, int(known.sum()), "runs")
    low, high = error.interval(value)
    return result.number(f"{name}.all", value, int(known.sum()), "runs", max(low, least), min(high, most))


def _over_runs(found: Measured, values_N: np.ndarray, those_N: np.ndarray) -> tuple[float, Error | None]:
    """(a mean over these runs, its error): none where runs are too few, or all alike: of others that says nothing."""
    leave_outs = LeaveOuts(found.init_N[those_N], found.task_N[those_N])
    value, error = leave_outs.mean(values_N, np.ones(len(values_N)))
    return value, error if error is not None and error.standard > STILL else None


def _exchanged_p(found: Measured, measure: str, those_N: np.ndarray, permutations: int, seed: int) -> float | None:
    """p of the mean of runs on their own tasks: whole tasks change places, with all their runs, in all inits at once.

    Prompts of one task may be described alike whatever their init: exchanged within each init on its own, texts that do
    nothing more for their own task are found in 11 to 14 % of draws. None where no init has runs of two tasks.
    """
    task_N, init_N = found.task_N[those_N], found.init_N[those_N]
    if not exchangeable(task_N, init_N):
        return None
    tasks, task_N = np.unique(task_N, return_inverse=True)
    values_NT, every = found.values(measure)[those_N][:, tasks], np.arange(len(task_N))
    orders, _ = other_orders(len(tasks), permutations, seed)
    null = [float(values_NT[every, order[task_N]].mean()) for order in orders]
    return permutation_p(float(values_NT[every, task_N].mean()), np.array(null))


def _finding(difference: Difference, measure: str, found: Measured, both: np.ndarray) -> Finding:
    tasks, inits = (len(set(levels[both])) for levels in (found.task_N, found.init_N))
    number = difference.number
    sure = number.low is None or number.low > 0 or number.interval[1] < 0
    verdict = "not detectably more or less than"
    if number.p is None or number.p < LEVEL:
        # p is of these tasks and inits, the interval of others.
        verdict = f"{'more' if number.value > 0 else 'less'} {'' if sure else '(in these tasks and inits) '}than"
    said, of = MEASURES[measure]
    return Finding.of(
        number,
        f"Descriptions of trained prompts {said} {difference.mean.value:.2f} {of}, {verdict} those of "
        f"{NULLS[difference.null]}, chosen likewise ({difference.null_mean.value:.2f}): {difference.words} "
        f"(n = {number.n} runs, {tasks} tasks, {inits} inits).",
    )


def _claim(name: str, measure: str, differences: Sequence[Difference], premises: Sequence[Premise]) -> Claim:
    """That descriptions exceed every null."""
    told = " ".join(f"By {NULLS[each.null]} {each.null_mean.value:.2f}: {each.words}." for each in differences)
    if differences:
        verb, of = MEASURES[measure]
        told = f"Descriptions {verb} {differences[0].mean.value:.2f} {of} (n = {differences[0].number.n} runs). {told}"
    compared = Premise(
        len(differences) == len(NULLS),
        "trained prompts gain something, in two tasks or more of an init",
        "prompts of two tasks or more from one init that learned them",
    )
    if not all(premise.met for premise in (*premises, compared)):
        return decided(name, None, told or "Nothing is compared.", premises=[*premises, compared])
    made = []
    for each in differences:
        interval, needs = None, "runs whose descriptions differ, of three inits or tasks"
        if each.error is not None:
            # One of several nulls is enough for it to fail.
            value, level = each.number.value, 1 - 0.05 / len(differences)
            interval = each.error.interval(value)[0], each.error.interval(value, level)[1]
            needs = "more tasks and inits"
        p = each.number.p if each.number.value > 0 else 1.0
        about = each.number.quantity
        made.append(decided(name, interval, "", margin=MATTERS[measure], p=p, needs=needs, quantity=about))
    return replace(for_all(made), evidence=told)


# Table and figure.


def _table(found: Measured, table: pd.DataFrame) -> pd.DataFrame:
    """A row per run. The last columns: the nulls of plug_in, and the largest of them."""
    rows = []
    nulls_N = {null: found.null(null, "plug_in") for null in NULLS}
    for n, t in enumerate(found.task_N):
        chosen = found.trained_NT[n][t]
        nulls = {f"plug_in_{null}": values_N[n] for null, values_N in nulls_N.items()}
        rows.append(
            {
                "run": n,
                "id": table["id"].iloc[n],
                "task": found.tasks[t],
                "init": found.init_N[n],
                "seed": table["seed"].iloc[n],
                "source_layer": found.pairs[chosen.place].source,
                "target_layer": found.pairs[chosen.place].target,
                "text": chosen.text,
                "label_words": chosen.label_words,
                "text_label_words": chosen.naming,
                "rouge": chosen.rouge,
                "accuracy_text": chosen.accuracy,
                "accuracy": found.prompt_N2[n, 0],
                "accuracy_none": found.none_T2[t, 0],
                "loss_text": chosen.loss,
                "loss": found.prompt_N2[n, 1],
                "loss_none": found.none_T2[t, 1],
                "plug_in_loss": found.value(chosen, int(t), "plug_in_loss"),
                "plug_in": found.value(chosen, int(t), "plug_in"),
                **nulls,
                "null": max((value for value in nulls.values() if np.isfinite(value)), default=float("nan")),
            }
        )
    return pd.DataFrame(rows)


def _figure(found: Measured, result: Result) -> str:
    """A row per task, a panel per measure: trained prompts beside the nulls."""
    numbers = {each.quantity: each for each in result.numbers}
    kinds = {"": "trained prompts", **{f".{null}": words for null, words in NULLS.items()}}
    colours = (COLOURS[0], COLOURS[1], COLOURS[2], NEUTRAL)
    shown = [measure for measure in AXES if f"{measure}.all" in numbers]  # label words always are
    with panels(1, len(shown), height=1.3 + 0.55 * len(found.tasks), width=1.4 + 2.6 * len(shown), sharey=True) as (
        figure,
        axes,
    ):
        for axis, measure in zip(axes[0], shown, strict=True):
            for k, (tail, words) in enumerate(kinds.items()):
                values_N = found.null(tail[1:], measure) if tail else found.own(measure)
                there = [t for t, task in enumerate(found.tasks) if f"{measure}{tail}.{task}" in numbers]
                behind = [values_N[found.task_N == t] for t in there]
                drawn = [numbers[f"{measure}{tail}.{found.tasks[t]}"] for t in there]
                places = np.array(there) + 0.2 * (k - 1.5)
                estimates(axis, places, drawn, behind, color=colours[k], across=0.12, sideways=True, label=words)
            axis.set(yticks=np.arange(len(found.tasks)), xlabel=AXES[measure])
            axis.set_yticklabels(found.tasks)
            axis.locator_params(axis="x", nbins=4)
        axes[0, 0].set_ylabel("task")
        axes[0, 0].invert_yaxis()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure, "What descriptions of prompts do, and name; 95 % intervals over runs; faint: single runs")
