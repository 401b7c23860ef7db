"""How many examples does a prompt solve, read as words, and without each of its tokens? By exact match.

Shapes: N runs, P prompt tokens, d width, E test examples.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import (
    Bootstrap,
    Difference,
    EvaluationSet,
    Scored,
    add_difference,
    add_mean,
    evaluation_sets,
    in_percent,
    in_points,
    sampled_examples,
    score,
)
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

LABELS = {
    "trained": "trained prompts",
    "initial": "their untrained P0s",
    "text": "their tasks' own texts, untrained",
    "discretised": "prompts whose every token is replaced by the nearest word",
    "reset": "prompts with one token put back to P0",
}
"""Kinds of scored prompts, in words."""
COMPARED = {
    "discretised": ("initial", "trained"),
    "text": ("trained",),
    "reset": ("trained",),
}
"""A kind, and what it is compared with."""


@dataclass(frozen=True)
class Prompt:
    """A prompt to score."""

    kind: str
    run: int
    position: int
    """Of a token that was reset; -1 for none."""
    prompt_Pd: np.ndarray
    evaluation_set: EvaluationSet


def add_accuracies(
    result: Result,
    runs: RunTable,
    lm: LM,
    words_N: list[np.ndarray],
    survives_N: list[np.ndarray],
    max_examples: int | None,
    seed: int,
) -> None:
    """Numbers `accuracy.<kind>` and `difference.accuracy.<kind>.<control>`, table `accuracies`, and findings.

    words_N: the prompt of each run as embeddings of its nearest words, [P, d]. survives_N: [P] bool, the positions at
    which the init's token survives; `difference.accuracy.reset_survivors.reset_others` compares them with the others,
    of the same runs. Raises UserError as evaluation_sets does.
    """
    sets_N = evaluation_sets(runs, "semantics", max_examples, seed)
    result.omissions += sampled_examples("semantics", sets_N, max_examples, seed)
    prompts = _prompts(runs, lm, sets_N, words_N)
    correct = score(lm, [each.prompt_Pd for each in prompts], [each.evaluation_set for each in prompts])
    survives = [each.position >= 0 and bool(survives_N[each.run][each.position]) for each in prompts]
    scored = _by_kind(prompts, correct, survives)
    bootstrap = Bootstrap(seed=seed)
    means = {kind: add_mean(result, f"accuracy.{kind}", each, bootstrap) for kind, each in scored.items()}
    for kind, controls in COMPARED.items():
        for control in controls if kind in scored else ():
            difference = _difference(result, scored, kind, control, bootstrap)
            result.findings.append(_finding(difference, kind, control, means, len(runs)))
    if "reset_survivors" in scored:
        difference = _difference(result, scored, "reset_survivors", "reset_others", bootstrap)
        result.findings.append(_survivors_finding(difference, len(scored["reset_survivors"])))
    if "text" not in scored:
        result.omissions.append("semantics: the accuracy of a task's own text needs tasks with one (task.text).")
    result.tables["accuracies"] = _table(runs, prompts, correct, survives)


def _prompts(runs: RunTable, lm: LM, sets_N: list[EvaluationSet], words_N: list[np.ndarray]) -> list[Prompt]:
    prompts = []
    for n, (examples, words_Pd) in enumerate(zip(sets_N, words_N, strict=True)):
        alone = runs.only([n])
        final_Pd, initial_Pd = alone.prompts()[0], alone.prompts("initial")[0]
        prompts += [
            Prompt(kind, n, -1, prompt_Pd, examples)
            for kind, prompt_Pd in (("trained", final_Pd), ("initial", initial_Pd), ("discretised", words_Pd))
        ]
        if (text := _text_of(runs, n)) is not None:
            embeddings_Pd = lm.embed(torch.tensor(lm.encode(text), device=lm.device)).float().cpu().numpy()
            prompts.append(Prompt("text", n, -1, embeddings_Pd, examples))
        for p in range(len(final_Pd)):
            reset_Pd = final_Pd.copy()
            reset_Pd[p] = initial_Pd[p]
            prompts.append(Prompt("reset", n, p, reset_Pd, examples))
    return prompts


def _by_kind(prompts: list[Prompt], correct: list[np.ndarray], survives: list[bool]) -> dict[str, Scored]:
    """The scores of each kind, a run's prompts of one kind as their mean: long prompts weigh no more than short ones.

    Each task weighs the same. Also reset_survivors and reset_others, of runs that have both.
    """
    chosen: dict[tuple[str, int], list[int]] = {}
    for s, each in enumerate(prompts):
        chosen.setdefault((each.kind, each.run), []).append(s)
        if each.kind == "reset":
            chosen.setdefault(("reset_survivors" if survives[s] else "reset_others", each.run), []).append(s)
    parts = {"reset_survivors": "reset_others", "reset_others": "reset_survivors"}
    chosen = {key: those for key, those in chosen.items() if (parts.get(key[0], key[0]), key[1]) in chosen}
    scored = {}
    for kind in dict.fromkeys(kind for kind, _ in chosen):
        of_kind = {run: those for (other, run), those in chosen.items() if other == kind}
        scored[kind] = Scored(
            [np.mean([correct[s] for s in those], axis=0) for those in of_kind.values()],
            [prompts[those[0]].evaluation_set for those in of_kind.values()],
            [(run,) for run in of_kind],
            tasks_equal=True,
            all_or_none=kind == "discretised",
        )
    return scored


def _text_of(runs: RunTable, n: int) -> str | None:
    """The sentence that says what a run's task is (task.text); None for a task without one."""
    config = runs.runs[n].info["config"] if runs.runs is not None else {}
    return config.get("task", {}).get("text") or None


def _difference(result: Result, scored: dict[str, Scored], kind: str, control: str, bootstrap: Bootstrap) -> Difference:
    """Of the same runs: a task without a text of its own has none in the control either."""
    runs = {run for members in scored[kind].runs_S for run in members}
    of_same = replace(scored[control].where(lambda s: set(scored[control].runs_S[s]) <= runs), tasks_equal=True)
    return add_difference(result, f"difference.accuracy.{kind}.{control}", scored[kind], of_same, bootstrap)


def _finding(difference: Difference, kind: str, control: str, means: dict[str, Number], runs: int) -> Finding:
    verdict = difference.verdict("more than", "not detectably more or less than", "less than")
    words = LABELS[kind][0].upper() + LABELS[kind][1:]
    sentence = (
        f"{words} solve {in_percent(means[kind])} of the test examples, {verdict} {LABELS[control]}: "
        f"{in_points(difference)}{difference.alike} (by exact match; n = {difference.number.n} test examples, "
        f"{runs} runs{difference.reach})."
    )
    return Finding.of(difference.number, sentence)


def _survivors_finding(difference: Difference, runs: int) -> Finding:
    verdict = difference.verdict(
        "costs less than", "costs neither more nor less, as far as can be told, than", "costs more than"
    )
    sentence = (
        f"Putting back a token that still reads as its init's {verdict} putting back another of the same prompt: "
        f"{in_points(difference)} of accuracy (n = {difference.number.n} test examples, {runs} runs with "
        f"both{difference.reach})."
    )
    return Finding.of(difference.number, sentence)


def _table(runs: RunTable, prompts: list[Prompt], correct: list[np.ndarray], survives: list[bool]) -> pd.DataFrame:
    """A row per scored prompt. drop: of the trained prompt's accuracy."""
    accuracy = [float(correct_E.mean()) for correct_E in correct]
    trained = {each.run: value for each, value in zip(prompts, accuracy, strict=True) if each.kind == "trained"}
    tasks_N, inits_N = runs.table["task"].tolist(), runs.table["init"].tolist()
    return pd.DataFrame(
        [
            {
                "run": each.run,
                "task": tasks_N[each.run],
                "init": inits_N[each.run],
                "kind": each.kind,
                "position": each.position if each.position >= 0 else None,
                "survivor": survives[s] if each.position >= 0 else None,
                "accuracy": accuracy[s],
                "drop": trained[each.run] - accuracy[s],
                "n": each.evaluation_set.n,
            }
            for s, each in enumerate(prompts)
        ]
    )
