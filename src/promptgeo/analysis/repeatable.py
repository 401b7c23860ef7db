"""Can a prompt be learned so that k copies of it mean +k, also for a k that was never trained? A direction that study 1 leaves open.

The task's examples say how many copies of the prompt they are asked with (Example.repeat). Held-out inputs are asked with every k.

Shapes: N runs, P prompt tokens, d width, E test examples with one k.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.scoring import Bootstrap, EvaluationSet, Scored, evaluation_sets, percent, points, score
from promptgeo.errors import UserError
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable
from promptgeo.tasks import Example, Task

KINDS = {
    "trained": "trained on k copies", "initial": "its P0", "once": "trained on one copy", "other_task": "another task's prompt", "unprompted": "no prompt",
}  # fmt: skip
CONTROLS = {
    "initial": ("k copies of its P0", "training taught it", "nothing shows that training taught it", "training undid it"),
    "once": ("a prompt trained on one copy only, repeated", "training with several copies taught it", "nothing shows that training with several copies was needed", "training with several copies does harm"),
    "other_task": ("another task's prompt, repeated", "it belongs to the task", "nothing shows that it belongs to the task", "another task's prompt does better"),
}  # fmt: skip
"""What the control is; what a higher, an equal and a lower accuracy than its means."""


def repeatable(runs: RunTable, *, lm: FrozenLM, max_examples: int | None = None, draws: int = 1000, seed: int = 0) -> Result:
    """Numbers for each task whose examples are asked with several k, accuracies on held-out inputs: `<kind>.<task>.<k>`, and `.seen`, `.unseen`,
    means over the k that were trained and those that were not. Kinds: `trained`; and as controls, k copies each, `initial` (its P0s), `once`
    (prompts of a task whose labels are those of k = 1, trained on one copy only), `other_task` (any other task's prompts), `unprompted`.
    `read_as.<task>.<k>.<j>`: how often k copies of the trained prompt give the label of j copies. `difference.unseen_seen.<task>`, and on
    unseen k `difference.<control>.<task>`.

    Table `accuracies`: one row per prompt and k, with Wilson's interval over the E examples. Intervals of means draw whole runs and examples
    (of each k) with replacement. max_examples: inputs of each task, drawn by seed; null: all.
    Claim `repeating_fails`: two copies of a prompt trained on one solve less than half, at the interval's upper end.
    Raises UserError where no run's task has examples with several copies, or runs differ in prompt length or template.
    """
    sets_N = evaluation_sets(runs, "repeatable")
    repeated = [evaluation_set for evaluation_set in dict.fromkeys(sets_N) if any(e.repeat != 1 for e in _all(evaluation_set.task))]
    if not repeated:
        raise UserError("repeatable: needs runs of a task whose examples are asked with several copies of the prompt (task=plus_k)")
    if runs.table["template"].nunique() > 1:
        raise UserError(f"repeatable: needs runs of one template; these have {', '.join(runs.table['template'].unique())} (choose with where=)")
    result, rows = Result(), []
    for evaluation_set in repeated:
        asked = _Asked.of(evaluation_set, max_examples, seed)
        _name_what_is_left_out(result, asked, evaluation_set, sets_N, max_examples, seed)
        scored = _score(lm, _prompts(runs, sets_N, evaluation_set, lm.width), asked)
        bootstrap = Bootstrap(len(runs), draws, seed)
        table = _table(runs.table, scored, asked)
        rows.append(table)
        _tell_accuracies(result, scored, asked, bootstrap)
        _tell_comparisons(result, scored, asked, bootstrap)
        read_as = _tell_readings(result, lm, runs, sets_N, evaluation_set, asked, scored["trained"], bootstrap)
        _claim(result, scored, asked, bootstrap)
        result.figures[f"accuracy_{asked.name}"] = _figure(result, scored, asked)
        result.figures[f"read_as_{asked.name}"] = _reading_figure(read_as, asked)
    result.tables["accuracies"] = pd.concat(rows, ignore_index=True)
    return result


# What is asked.


@dataclass(frozen=True, eq=False)
class _Asked:
    """A task's held-out examples by their number of copies."""

    name: str
    exam_k: dict[int, EvaluationSet]
    seen: list[int]
    """The k that were trained."""
    labels: dict[tuple[str, int], str]
    """(input, copies) -> label, over all of the task's examples."""

    @property
    def unseen(self) -> list[int]:
        return [k for k in self.exam_k if k not in self.seen]

    @classmethod
    def of(cls, evaluation_set: EvaluationSet, max_examples: int | None, seed: int) -> "_Asked":
        """From the validation and the test split. Raises UserError where one of both, trained and untrained k, is missing there."""
        task = evaluation_set.task
        held_out = [*task.validation, *task.test]
        inputs = list(dict.fromkeys(e.input for e in held_out))
        if max_examples is not None and len(inputs) > max_examples:  # the same inputs for every k
            inputs = [inputs[i] for i in np.sort(np.random.default_rng(seed).choice(len(inputs), max_examples, replace=False))]
        chosen, found = set(inputs), {}
        for e in held_out:
            found.setdefault(e.repeat, []).append(e)
        exam_k = {k: _exam(evaluation_set, [e for e in found[k] if e.input in chosen], len(found[k])) for k in sorted(found)}
        seen = sorted({e.repeat for e in task.train})
        asked = cls(task.name, {k: evaluation_set for k, evaluation_set in exam_k.items() if evaluation_set.n}, seen, {(e.input, e.repeat): e.label for e in _all(task)})
        if not asked.unseen or len(asked.unseen) == len(asked.exam_k):
            raise UserError(f"repeatable: task {task.name} needs held-out examples (validation, test) of trained and of untrained numbers of copies; it has {sorted(found)}, {seen} trained")
        return asked


def _exam(evaluation_set: EvaluationSet, examples: list[Example], of: int) -> EvaluationSet:
    return EvaluationSet(replace(evaluation_set.task, test=examples, labels=None), evaluation_set.max_new_tokens, of)


def _all(task: Task) -> list[Example]:
    return [*task.train, *task.validation, *task.test]


def _name_what_is_left_out(result: Result, asked: _Asked, evaluation_set: EvaluationSet, sets_N: list[EvaluationSet], max_examples: int | None, seed: int) -> None:
    if any(own.n < own.of for own in asked.exam_k.values()):
        result.omissions.append(f"repeatable: {max_examples} inputs of {asked.name}, drawn by seed {seed}, stand for all that are held out (max_examples=null asks all).")
    inputs = {e.input for own in asked.exam_k.values() for e in own.task.test}
    for other in dict.fromkeys(sets_N):
        if other is not evaluation_set and (common := inputs & {e.input for e in other.task.train}):
            result.omissions.append(f"repeatable: {len(common)} of the {len(inputs)} held-out inputs of {asked.name} were training inputs of {other.task.name}, a control.")


# What is scored: {kind: {k: [(prompt, run), ...]}}; every prompt of a kind is asked with every k.


def _prompts(runs: RunTable, sets_N: list[EvaluationSet], evaluation_set: EvaluationSet, width: int) -> dict[str, list[tuple[np.ndarray, tuple[int, ...]]]]:
    """{kind: [(prompt, runs it is made of), ...]}; only kinds that these runs have."""
    final_NPd, initial_NPd = runs.prompts(), runs.prompts("initial")
    own = [n for n in range(len(runs)) if sets_N[n] is evaluation_set]
    others = [n for n in range(len(runs)) if all(e.repeat == 1 for e in _all(sets_N[n].task))]
    once = [n for n in others if _says_the_same(sets_N[n].task, evaluation_set.task)]
    kinds = {
        "trained": [(final_NPd[n], (n,)) for n in own],
        "initial": [(initial_NPd[n], (n,)) for n in own],
        "once": [(final_NPd[n], (n,)) for n in once],
        "other_task": [(final_NPd[n], (n,)) for n in others if n not in once],
        "unprompted": [(np.empty((0, width), dtype=np.float32), ())],
    }
    return {kind: cells for kind, cells in kinds.items() if cells}


def _says_the_same(task: Task, repeated: Task) -> bool:
    """Whether a task's labels are those of one copy, wherever both have the input."""
    labels = {e.input: e.label for e in _all(repeated) if e.repeat == 1}
    both = [e for e in _all(task) if e.input in labels]
    return bool(both) and all(e.label == labels[e.input] for e in both)


def _score(lm: FrozenLM, kinds: dict[str, list[tuple[np.ndarray, tuple[int, ...]]]], asked: _Asked) -> dict[str, Scored]:
    """All prompts of a kind with each k in turn; in the means every k weighs the same."""
    cells = [(prompt_Pd, evaluation_set) for members in kinds.values() for evaluation_set in asked.exam_k.values() for prompt_Pd, _ in members]
    correct = iter(score(lm, [prompt_Pd for prompt_Pd, _ in cells], [evaluation_set for _, evaluation_set in cells]))
    return {
        kind: Scored(
            [next(correct) for _ in asked.exam_k for _ in members],
            [evaluation_set for evaluation_set in asked.exam_k.values() for _ in members],
            [of for _ in asked.exam_k for _, of in members],
            tasks_equal=True,
        )
        for kind, members in kinds.items()
    }


def _with_k(scored: Scored, asked: _Asked, ks: list[int]) -> Scored:
    chosen = [asked.exam_k[k] for k in ks if k in asked.exam_k]
    return replace(scored.where(lambda s: scored.sets_S[s] in chosen), tasks_equal=True)


# What is told.


def _table(table: pd.DataFrame, scored: dict[str, Scored], asked: _Asked) -> pd.DataFrame:
    copies, rows = {evaluation_set: k for k, evaluation_set in asked.exam_k.items()}, []
    for kind, cells in scored.items():
        for correct_E, evaluation_set, members in zip(cells.correct_S, cells.sets_S, cells.runs_S, strict=True):
            of = {c: table[c][members[0]] if members else None for c in ("task", "init", "seed")}
            low, high = wilson(int(correct_E.sum()), evaluation_set.n)
            k = copies[evaluation_set]
            rows.append({"kind": kind, "asked": asked.name, **of, "k": k, "seen": k in asked.seen, "accuracy": correct_E.mean(), "low": low, "high": high, "n": evaluation_set.n})
    return pd.DataFrame(rows)


def _tell_accuracies(result: Result, scored: dict[str, Scored], asked: _Asked, bootstrap: Bootstrap) -> None:
    for kind, cells in scored.items():
        for name, ks in {**{str(k): [k] for k in asked.exam_k}, "seen": asked.seen, "unseen": asked.unseen}.items():
            part = _with_k(cells, asked, ks)
            result.number(f"{kind}.{asked.name}.{name}", part.mean, part.examples, "test examples", *bootstrap.interval(part))
    missing = [what for kind, what in {"once": "a prompt trained on one copy only (task=plus_one for plus_k)", "other_task": "another task's prompt (task=plus_two)"}.items() if kind not in scored]
    if missing:
        result.omissions.append(f"repeatable: as controls, runs of {' and of '.join(missing)} are missing.")


def _tell_comparisons(result: Result, scored: dict[str, Scored], asked: _Asked, bootstrap: Bootstrap) -> None:
    """Unseen k against seen ones, then on unseen k the trained prompts against each control."""
    trained = scored["trained"]
    seen, unseen = (_with_k(trained, asked, ks) for ks in (asked.seen, asked.unseen))
    runs = len({members for members in trained.runs_S})
    said = {name: percent(part.mean, *bootstrap.interval(part)) for name, part in (("seen", seen), ("unseen", unseen))}
    difference, low, high = bootstrap.difference(unseen, seen)
    result.number(f"difference.unseen_seen.{asked.name}", difference, unseen.examples, "test examples", low, high)
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
    sentence = (
        f"k copies of a {asked.name} prompt solve {said['unseen']} of the held-out examples for k = {_listed(asked.unseen)}, which were not trained, {verdict} "
        f"{said['seen']} for k = {_listed([k for k in asked.seen if k in asked.exam_k])}, which were: {points(difference, low, high)} "
        f"(n = {unseen.examples} and {seen.examples} test examples, {runs} runs)."
    )
    result.findings.append(Finding(sentence, difference, unseen.examples, "test examples", low, high))
    for kind, (what, more, same, less) in CONTROLS.items():
        if kind not in scored:
            continue
        control = _with_k(scored[kind], asked, asked.unseen)
        difference, low, high = bootstrap.difference(unseen, control)
        result.number(f"difference.{kind}.{asked.name}", difference, unseen.examples, "test examples", low, high)
        meaning = more if low > 0 else less if high < 0 else same
        sentence = (
            f"Asked with k = {_listed(asked.unseen)} copies, a {asked.name} prompt solves {said['unseen']}, {what} {percent(control.mean, *bootstrap.interval(control))}: "
            f"{points(difference, low, high)}, so {meaning} (n = {unseen.examples} test examples, {runs} and {len(set(control.runs_S))} runs)."
        )
        result.findings.append(Finding(sentence, difference, unseen.examples, "test examples", low, high))


def _tell_readings(
    result: Result, lm: FrozenLM, runs: RunTable, sets_N: list[EvaluationSet], evaluation_set: EvaluationSet, asked: _Asked, trained: Scored, bootstrap: Bootstrap
) -> dict[tuple[int, int], float]:
    """How often k copies are answered with the label of j copies: {(k, j): share}; examples whose two labels are the same are left out."""
    final_NPd, own = runs.prompts(), [n for n in range(len(runs)) if sets_N[n] is evaluation_set]
    copies = sorted({j for _, j in asked.labels})
    relabelled = {(k, j): _exam(of_k, _relabelled(of_k.task.test, j, asked.labels), of_k.of) for k, of_k in asked.exam_k.items() for j in copies if j != k}
    relabelled = {pair: of_pair for pair, of_pair in relabelled.items() if of_pair.n}
    correct = iter(score(lm, [final_NPd[n] for _ in relabelled for n in own], [of_pair for of_pair in relabelled.values() for _ in own]))
    readings = {(k, k): _with_k(trained, asked, [k]) for k in asked.exam_k}
    readings |= {pair: Scored([next(correct) for _ in own], [of_pair] * len(own), [(n,) for n in own]) for pair, of_pair in relabelled.items()}
    for (k, j), cells in sorted(readings.items()):
        result.number(f"read_as.{asked.name}.{k}.{j}", cells.mean, cells.examples, "test examples", *bootstrap.interval(cells))
    for k in asked.unseen:
        best = max((j for of_k, j in readings if of_k == k), key=lambda j, k=k: readings[k, j].mean)
        cells = readings[k, best]
        low, high = bootstrap.interval(cells)
        as_what = "as they were meant" if best == k else f"as {best} cop{'y' if best == 1 else 'ies'}"
        share = f"{k} copies of a {asked.name} prompt are most often read {as_what}, in {percent(cells.mean, low, high)} of the cases"
        if cells.mean == 0:
            share = f"{k} copies of a {asked.name} prompt are never read as any number of copies: {percent(cells.mean, low, high)}"
        result.findings.append(Finding(f"{share} (n = {cells.examples} test examples, {len(own)} runs).", cells.mean, cells.examples, "test examples", low, high))
    return {pair: cells.mean for pair, cells in readings.items()}


def _relabelled(examples: list[Example], copies: int, labels: dict[tuple[str, int], str]) -> list[Example]:
    """The same questions with the label that other copies would have; those that the task does not label so, or labels the same, are left out."""
    told = [(e, labels.get((e.input, copies))) for e in examples]
    return [replace(e, label=label) for e, label in told if label is not None and label != e.label]


def _claim(result: Result, scored: dict[str, Scored], asked: _Asked, bootstrap: Bootstrap) -> None:
    if "once" not in scored or not {1, 2} <= set(asked.exam_k):
        return
    one, two = (_with_k(scored["once"], asked, [k]) for k in (1, 2))
    low, high = bootstrap.interval(two)
    evidence = (
        f"A prompt trained on one copy solves {percent(one.mean, *bootstrap.interval(one))} with one copy, and with two copies {percent(two.mean, low, high)} of what "
        f"two should mean (n = {two.examples} test examples, {len(set(two.runs_S))} runs)."
    )
    result.claims.append(Claim("repeating_fails", high < 0.5, evidence))


def _listed(ks: list[int]) -> str:
    return ", ".join(map(str, ks[:-1])) + f" and {ks[-1]}" if len(ks) > 1 else str(ks[0])


# Figures.


def _figure(result: Result, scored: dict[str, Scored], asked: _Asked) -> str:
    """Accuracy by k, a line per kind, with 95 % intervals; the untrained k are shaded."""
    numbers = {row["quantity"]: row for row in result.numbers}
    ks = list(asked.exam_k)
    with panels(width=5.6, height=3.4) as (figure, axes):
        axis = axes[0, 0]
        for k in asked.unseen:
            axis.axvspan(k - 0.5, k + 0.5, color="#f0f0f0", linewidth=0)
        for i, kind in enumerate(scored):
            rows = [numbers[f"{kind}.{asked.name}.{k}"] for k in ks]
            values = np.array([row["value"] for row in rows])
            bars = np.clip([values - [row["low"] for row in rows], [row["high"] for row in rows] - values], 0, None)
            places = np.array(ks) + 0.06 * (i - (len(scored) - 1) / 2)
            axis.errorbar(places, values, yerr=bars, label=KINDS[kind], color=COLOURS[i], marker="os^Dx"[i], markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2)
        axis.set(xticks=ks, xlabel="copies k (shaded: not trained)", ylabel="test accuracy", ylim=(-0.03, 1.03), title=f"{asked.name}: k copies of one prompt")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return svg(figure)


def _reading_figure(read_as: dict[tuple[int, int], float], asked: _Asked) -> str:
    ks, js = list(asked.exam_k), sorted({j for _, j in read_as})
    grid = np.array([[read_as.get((k, j), np.nan) for j in js] for k in ks])
    with panels(width=4.2, height=3.2) as (figure, axes):
        axis = axes[0, 0]
        shown = axis.pcolormesh(np.ma.masked_invalid(grid), vmin=0, vmax=1, cmap="Blues")
        for (i, j), value in np.ndenumerate(grid):
            if np.isfinite(value):
                axis.text(j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if value > 0.6 else "black")
        axis.set(xticks=np.arange(len(js)) + 0.5, yticks=np.arange(len(ks)) + 0.5, xlabel="answered as j copies", ylabel="asked with k copies", title=asked.name)
        axis.set_xticklabels(js)
        axis.set_yticklabels([f"{k}" if k in asked.seen else f"{k} *" for k in ks])
        axis.invert_yaxis()
        axis.grid(False)
        figure.colorbar(shown, ax=axis, label="share of answers (*: not trained)")
        return svg(figure)
