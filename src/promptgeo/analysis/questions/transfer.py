"""Do prompts transfer to other tasks, and is it prompts that are alike that do?

Study 2 (c) scores every prompt on every task, against no prompt and by exact match. A model without a prompt rarely
writes a label at all, so that whatever makes it write labels improves on it. Here the choice among the labels counts,
and the gain over the same run's P0 (SPoT, arXiv 2110.07904; arXiv 2111.06719).

Shapes: N runs, T tasks, L tasks whose prompts learned them, Q ordered pairs of different tasks, E test examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, decided
from promptgeo.analysis.figures import COLOURS, panels, shares_grid, svg, write_cells
from promptgeo.analysis.geometry.alignment import Align, distance
from promptgeo.analysis.geometry.gauge import gauge_of, quotient
from promptgeo.analysis.geometry.task_likeness import (
    CONTROLS,
    WORDS,
    label_likeness,
    likenesses,
    neuron_likeness,
    over_runs,
)
from promptgeo.analysis.geometry.transfer_matrix import (
    LEAST_TASKS,
    Correlation,
    Predictions,
    apart,
    improving,
    mean_gain,
    orders_of,
    predictions,
)
from promptgeo.analysis.geometry.transfer_scores import (
    EXACT,
    LABEL,
    MEASURES,
    Scores,
    Transfers,
    all_scores,
)
from promptgeo.analysis.logged import BASELINES, chosen, over_baselines, written
from promptgeo.analysis.question import Convention, question
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.analysis.scoring import Bootstrap, Estimate, percent, sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

PUBLISHED = 0.9
"""Of the study's transfers, about so many improve on no prompt."""
NEVER = 0.05
"""Where no prompt solves fewer examples by exact match, it hardly ever writes a label: improving on it says little."""
MATTERS = 0.1
"""A correlation that lies below for certain would not matter: then more similar prompts do not transfer better."""
PAIRS = "ordered pairs of tasks"


@question(
    lm=True, convention=True, claims=("transfers_improve", "similar_transfers_better"), factors=("prompt_length",)
)
def transfer(
    runs: RunTable,
    *,
    lm: LM,
    convention: Convention = Convention.corrected,
    align: str = "transport",
    which: str = "final",
    init: str | None = None,
    max_examples: int | None = 40,
    permutations: int = 5000,
    seed: int = 0,
) -> Result:
    """Scores every run's prompt and P0, and no prompt, on every task, with the target's template, data and labels.

    Corrected: `gain.<source>.<target>`, the mean accuracy of a source's runs on a target less that of their P0s, by
    label accuracy where all tasks have a label set, else by exact match; its interval is over runs and test examples
    (scoring.py). Over ordered pairs of different tasks whose prompts learned them: `improves.share` (over no
    prompt), `improves.share.over_p0`, `improves.share.untrained` (P0s over no prompt), `mean_gain.over_none` and
    `mean_gain.over_p0`; `<the same>.exact`: by exact match. Intervals leave out whole tasks (transfer_matrix.py).
    `spearman.<likeness>`: of a likeness of prompts (task_likeness.py) with gains over P0; `spearman.beyond.<likeness>`:
    without what is one number of each source and each target; `spearman.best`: of the likeness that goes with them the
    most, its p that of the largest of all. Tables: `transfers`, `tasks` (what was learned), `likenesses`, `predictors`.

    Distances and cosines leave out what the model ignores of a prompt token (gauge.py).

    Paper: exact match against no prompt, of all tasks: `gain.<source>.<target>`, `improves.share`,
    `pearson.frobenius` and `pearson.frobenius.with_self` (with each task's own prompts, at distance 0 or near it).

    A task is learned where the interval of its own prompts' gain lies above 0 over no prompt, P0 and, for label
    accuracy, the majority class, on all test examples. The claims are about learned tasks; `similar_transfers_better`
    is about the aligned distance, and must hold beyond sources and targets too.

    Args:
        align: how tokens of whole prompts are paired for distances: transport, mean, truncate or pad.
        which: final or best, the prompts of the runs.
        init: only runs of this init; null: all.
        max_examples: of each task's test examples, drawn by seed; null: all.
        permutations: orders of the tasks, where there are more.
        seed: of examples, orders and draws.

    Raises UserError for prompts that were trained elsewhere, for one task, and for an option that does not exist.
    """
    # Long because all its numbers and options are named here.
    if align not in list(Align) or which not in ("final", "best"):
        raise UserError(
            f"transfer: align={align}, which={which}: align is one of {', '.join(Align)}, which is final or best"
        )
    scores = all_scores(lm, runs, (init, which, max_examples, seed))
    result = Result()
    result.omissions += sampled_examples("transfer", scores.by_measure[EXACT].sets_T, max_examples, seed)
    prompts_N, initial_N = ([run.prompt(each) for run in scores.runs.runs or []] for each in (which, "initial"))
    if convention is Convention.paper:
        _as_published(result, scores.by_measure[EXACT], prompts_N)
        return result
    whole = prompts_N, initial_N
    if ignored := (gauge := gauge_of(lm)).ignored:
        prompts_N, initial_N = ([quotient(each, gauge) for each in them] for them in (prompts_N, initial_N))
        result.omissions.append(
            f"transfer: the model ignores a prompt token's {ignored} (measured on it): distances leave that out."
        )
    alike = likenesses(prompts_N, initial_N, scores.by_measure[EXACT].task_N, Align(align))
    if "token_cosine" not in alike:
        result.omissions.append("transfer: cosines at equal positions need prompts of equal length.")
    if scores.losses_NT is None:
        result.omissions.append("transfer: label accuracy, and divergences of outputs, need a label set in every task.")
    else:
        alike["js"] = label_likeness(scores.losses_NT, scores.by_measure[EXACT].task_N)
    try:
        exact = scores.by_measure[EXACT]
        alike["neurons"] = neuron_likeness(lm, *whole, exact.task_N, [each.task for each in exact.sets_T])
    except UserError as error:
        result.omissions.append(f"transfer: the overlap of active neurons is left out: {error}.")
    _corrected(result, scores, which, alike, align, permutations, seed)
    return result


# As it should be counted.


@dataclass(frozen=True)
class Part:
    """What one measure says of the tasks that were learned."""

    transfers: Transfers
    learned: list[int]
    """Numbers of the tasks."""
    shares: dict[str, tuple[Number, Estimate]]
    """none, over_p0 and untrained; empty for fewer than two learned tasks."""
    predicted: Predictions

    @property
    def of(self) -> str:
        """What it rests on, in words."""
        runs = int(np.isin(self.transfers.task_N, self.learned).sum())
        pairs = len(self.learned) * (len(self.learned) - 1)
        return f"n = {pairs} {PAIRS}, {len(self.learned)} tasks, {runs} runs"

    @property
    def not_learned(self) -> list[str]:
        return [task for t, task in enumerate(self.transfers.tasks) if t not in self.learned]


def _corrected(
    result: Result,
    scores: Scores,
    which: str,
    alike: Mapping[str, np.ndarray],
    align: str,
    permutations: int,
    seed: int,
) -> None:
    bootstrap = Bootstrap(seed=seed)
    headline = LABEL if LABEL in scores.by_measure else EXACT
    parts, tasks_table, pairs_table = {}, [], []
    for measure, transfers in scores.by_measure.items():
        beaten = _beaten(transfers, scores.runs, which, bootstrap)
        learned = [t for t, by in enumerate(beaten) if all(gain.interval[0] > 0 for _, gain in by.values())]
        tasks_table += _task_rows(transfers, beaten, learned)
        gains = _gain_numbers(result if measure == headline else Result(), transfers, bootstrap)
        pairs_table += _pair_rows(transfers, gains, learned)
        suffix = "" if measure == headline else f".{measure}"
        parts[measure] = _part(result, transfers, learned, alike, permutations, seed, suffix)
        result.figures[f"heatmap_{measure}"] = _heat_figure(transfers, learned)
    part = parts[headline]
    result.tables |= {
        "transfers": pd.DataFrame(pairs_table),
        "tasks": pd.DataFrame(tasks_table),
        "likenesses": _likeness_table(part.transfers, alike),
        "predictors": pd.DataFrame([row for each in parts.values() for row in _predictor_rows(each)]),
    }
    improve = _improve_finding(part)
    result.findings += [improve] if improve else []
    if finding := _exact_finding(parts[EXACT]):
        result.findings.append(finding)
    similar = _similar_sentence(part, align)
    _best_finding(result, part)
    result.claims += [_improve_claim(part, improve), _similar_claim(part, align, similar)]
    if part.predicted.by_name:
        result.figures["predictors"] = _forest_figure(part.predicted)
        result.figures["scatter"] = _scatter_figure(part, alike, part.predicted.best or align)


def _beaten(
    transfers: Transfers, runs: RunTable, which: str, bootstrap: Bootstrap
) -> list[dict[str, tuple[float, Estimate]]]:
    """By how much each task's own prompts beat each baseline. Raises UserError where its runs do not say."""
    beaten = []
    for t, task in enumerate(transfers.tasks):
        those = [(runs.runs or [])[n] for n in np.flatnonzero(transfers.task_N == t)]
        right = written if transfers.measure == EXACT else chosen
        by = over_baselines(those, task, bootstrap, right, which)
        if not {"none", "initial"} <= set(by):
            raise UserError(f"transfer: {those[0].folder} does not say what P0 and no prompt get right; train it anew")
        beaten.append(by)
    return beaten


def _part(
    result: Result,
    transfers: Transfers,
    learned: list[int],
    alike: Mapping[str, np.ndarray],
    permutations: int,
    seed: int,
    suffix: str,
) -> Part:
    """Numbers of the learned tasks by one measure."""
    if len(learned) < 2:
        names = ", ".join(transfers.tasks[t] for t in learned) or "none"
        beaten = [words for name, words in BASELINES.items() if name != "majority" or transfers.measure == LABEL]
        result.omissions.append(
            f"transfer: by {MEASURES[transfers.measure]} two tasks' own prompts must beat {', '.join(beaten)}; "
            f"of these, {names} did: nothing is said of transfers by it."
        )
        return Part(transfers, learned, {}, Predictions({}, None, None))
    among = np.ix_(learned, learned)
    over_none, over_p0 = (transfers.gains(over)[among] for over in ("none", "initial"))
    untrained = transfers.gains("none", "initial")[among]
    pairs, shares = len(learned) * (len(learned) - 1), {}
    for name, tail, gains_TT in (
        ("none", "", over_none),
        ("over_p0", ".over_p0", over_p0),
        ("untrained", ".untrained", untrained),
    ):
        estimate = improving(gains_TT)
        shares[name] = _estimated(result, f"improves.share{tail}{suffix}", estimate, pairs), estimate
    _estimated(result, f"mean_gain.over_none{suffix}", mean_gain(over_none), pairs)
    _estimated(result, f"mean_gain.over_p0{suffix}", mean_gain(over_p0), pairs)
    predicted = predictions({name: x_TT[among] for name, x_TT in alike.items()}, over_p0, permutations, seed)
    for name, each in predicted.by_name.items():
        _correlated(result, f"spearman.{name}{suffix}", each.plain, pairs)
        if each.beyond:
            _correlated(result, f"spearman.beyond.{name}{suffix}", each.beyond, pairs)
    return Part(transfers, learned, shares, predicted)


def _estimated(result: Result, quantity: str, estimate: Estimate, pairs: int) -> Number:
    low, high = estimate.interval if estimate.runs else (None, None)
    return result.number(quantity, estimate.value, pairs, PAIRS, low, high)


def _correlated(result: Result, quantity: str, each: Correlation, pairs: int) -> Number:
    return result.number(quantity, each.value, pairs, PAIRS, each.low, each.high, each.p)


def _gain_numbers(result: Result, transfers: Transfers, bootstrap: Bootstrap) -> dict[tuple[int, int, str], Number]:
    """Numbers gain.<source>.<target>, over P0; and those over no prompt, which a table has beside them."""
    made = {}
    for i, source in enumerate(transfers.tasks):
        for j, target in enumerate(transfers.tasks):
            trained = transfers.scored("trained", i, j)
            bases = {"initial": transfers.scored("initial", i, j), "none": transfers.without_prompt(j)}
            for over, base in bases.items():
                estimate = bootstrap.difference(trained, base)
                kept = result if over == "initial" else Result()
                made[i, j, over] = kept.number(
                    f"gain.{source}.{target}", estimate.value, trained.examples, "test examples", *estimate.interval
                )
    return made


# In words.


def _percent(number: Number) -> str:
    return f"{number.value:.1%}" if number.low is None else percent(number.value, *number.interval)


def _improve_finding(part: Part) -> Finding | None:
    """How many transfers improve; None where nothing is known, or not how much it varies."""
    if not part.shares or not part.shares["none"][1].runs:
        return None
    none, p0, untrained = (part.shares[name][0] for name in ("none", "over_p0", "untrained"))
    low, high = none.interval
    study = "compatible with" if low <= PUBLISHED <= high else "more than" if low > PUBLISHED else "fewer than"
    out = f" Not learned, and left out: {', '.join(part.not_learned)}." if part.not_learned else ""
    return Finding.of(
        none,
        f"By {MEASURES[part.transfers.measure]} {_percent(none)} of transfers to another task improve on no prompt "
        f"({study} the study's {PUBLISHED:.0%}), {_percent(p0)} on the same run's P0. Untrained P0s improve on no "
        f"prompt in {_percent(untrained)} ({part.of}).{out}",
    )


def _exact_finding(part: Part) -> Finding | None:
    """What improving on no prompt by exact match is worth."""
    if not part.shares or not part.shares["none"][1].runs:
        return None
    none, untrained = part.shares["none"][0], part.shares["untrained"][0]
    solved = float(part.transfers.none_accuracies[part.learned].mean())
    verdict = "so that improving on it means something"
    if solved < NEVER:
        verdict = "so that whatever makes the model write labels improves on it: by exact match the claim "
        verdict += "is trivially true" if none.interval[0] > 0.5 else "says nothing of what was learned"
    return Finding.of(
        none,
        f"By exact match {_percent(none)} of transfers improve on no prompt, which solves {solved:.1%} of the "
        f"examples, {verdict}; untrained P0s improve on it in {_percent(untrained)} ({part.of}).",
    )


def _improve_claim(part: Part, finding: Finding | None) -> Claim:
    """Most transfers improve on no prompt."""
    name, needs = "transfers_improve", "more tasks that prompts learn"
    if not part.shares:
        nothing, premise = "No transfers are compared.", _learned_premise(part)
        return decided(name, None, nothing, premises=[premise], needs=needs, quantity="improves.share")
    number, estimate = part.shares["none"]
    solved = float(part.transfers.none_accuracies[part.learned].mean())
    words = f"no prompt solves {solved:.1%} by {MEASURES[part.transfers.measure]}: to improve on it is trivial"
    premises = [
        _learned_premise(part),
        Premise(solved >= NEVER, words, "a label set in every task, by which to choose"),
    ]
    sentence = finding.sentence if finding else f"{_percent(number)} of transfers improve on no prompt ({part.of})."
    p = (estimate.p(0.5) if estimate.value > 0.5 else 1.0) if estimate.runs else None
    interval = estimate.interval if estimate.runs else None
    about = number.quantity
    return decided(name, interval, sentence, threshold=0.5, p=p, premises=premises, needs=needs, quantity=about)


def _learned_premise(part: Part) -> Premise:
    """That there are tasks that prompts learned to transfer from and to."""
    words = f"the prompts of two tasks or more learned them ({len(part.learned)} of {len(part.transfers.tasks)} did)"
    return Premise(len(part.learned) > 1, words, "prompts that learned their task")


def _similar_sentence(part: Part, align: str) -> str:
    """What the likeness that the claim is about says, with what it takes from sources and targets alone."""
    each = part.predicted.by_name.get(align)
    if each is None:
        return f"The {WORDS[align]} is not known for learned tasks, or neither it nor any gain differs between pairs."
    beyond = f"; beyond sources and targets {_rho(each.beyond)}" if each.beyond else ""
    return (
        f"Of more similar prompts ({WORDS[align]}) the gain over P0 is higher by a rank correlation of "
        f"{_rho(each.plain)}{beyond} ({part.of})."
    )


def _rho(each: Correlation) -> str:
    interval = "" if each.low is None else f" ({each.low:+.2f} to {each.high:+.2f})"
    return f"{each.value:+.2f}{interval}" + ("" if each.p is None else f", p = {each.p:.2g}")


def _similar_claim(part: Part, align: str, sentence: str) -> Claim:
    """More similar prompts transfer better, beyond what is one number of each source and each target."""
    each = part.predicted.by_name.get(align)
    few = len(part.learned) < LEAST_TASKS
    needs = f"{LEAST_TASKS} tasks that prompts learn: {orders_of(len(part.learned))}" if few else "more tasks"
    plain, beyond = (None, None) if each is None else (each.plain, each.beyond)
    interval = None
    if plain is not None and plain.low is not None and plain.high is not None and not few:
        interval = plain.low, plain.high
    ps = [1.0 if one is None or one.greater_p is None else one.greater_p for one in (plain, beyond)]
    return decided(
        "similar_transfers_better",
        interval,
        sentence,
        margin=MATTERS,
        p=None if few else max(ps),
        premises=[_learned_premise(part)],
        needs=needs,
        quantity=f"spearman.{align}",
    )


def _best_finding(result: Result, part: Part) -> None:
    """Number spearman.best, and its finding; an omission where there is no p."""
    best = part.predicted.best
    if best is None:
        if part.shares and len(part.learned) < LEAST_TASKS:
            result.omissions.append(
                f"transfer: what predicts transfer has no p below {LEAST_TASKS} learned tasks: "
                f"{orders_of(len(part.learned))}."
            )
        return
    each, count = part.predicted.by_name[best], len(part.predicted.by_name)
    pairs = len(part.learned) * (len(part.learned) - 1)
    # Its own interval would be that of a likeness chosen beforehand.
    number = result.number("spearman.best", abs(each.plain.value), pairs, PAIRS, p=part.predicted.best_p)
    control = " (a control: it needs no trained prompts that are alike)" if best in CONTROLS else ""
    verdict = "more than chance gives" if (part.predicted.best_p or 1.0) < LEVEL else "no more than chance may give"
    result.findings.append(
        Finding.of(
            number,
            f"Of {count} likenesses of prompts one goes with the gain over P0 the most: {WORDS[best]}{control}, rank "
            f"correlation {each.plain.value:+.2f}, {verdict} (p = {number.p:.2g} of the largest of {count}, tasks "
            f"exchanged; {part.of}).",
        )
    )


# As published.


def _as_published(result: Result, transfers: Transfers, prompts_N: Sequence[np.ndarray]) -> None:
    """Exact match against no prompt; Frobenius' distance of prompts cut to equal length; Pearson over pairs."""
    gains_TT, tasks = transfers.gains("none"), transfers.tasks
    for i, source in enumerate(tasks):
        for j, target in enumerate(tasks):
            result.number(f"gain.{source}.{target}", gains_TT[i, j], transfers.sets_T[j].n, "test examples")
    other_TT, every_TT = apart(len(tasks)), np.ones_like(apart(len(tasks)))
    result.number("improves.share", (gains_TT[other_TT] > 0).mean(), int(other_TT.sum()), PAIRS)
    distance_NN = np.array([[_frobenius(one, other) for other in prompts_N] for one in prompts_N])
    distance_TT = over_runs(distance_NN, transfers.task_N)
    for name, pairs_TT in (("pearson.frobenius", other_TT), ("pearson.frobenius.with_self", every_TT)):
        x_Q, y_Q = -distance_TT[pairs_TT], gains_TT[pairs_TT]
        if np.ptp(x_Q) > 0 and np.ptp(y_Q) > 0:
            result.number(name, float(np.corrcoef(x_Q, y_Q)[0, 1]), int(pairs_TT.sum()), PAIRS)
    result.figures["heatmap_exact"] = _heat_figure(transfers, list(range(len(tasks))), over="none")


def _frobenius(one_Ad: np.ndarray, other_Bd: np.ndarray) -> float:
    return distance(one_Ad, other_Bd, Align.truncate) * float(np.sqrt(min(len(one_Ad), len(other_Bd))))


# Tables.


def _task_rows(
    transfers: Transfers, beaten: list[dict[str, tuple[float, Estimate]]], learned: list[int]
) -> list[dict[str, object]]:
    """A row per task and baseline."""
    return [
        {
            "measure": transfers.measure,
            "task": task,
            "baseline": name,
            "baseline_accuracy": accuracy,
            "own_gain": gain.value,
            "low": gain.interval[0],
            "high": gain.interval[1],
            "runs": int((transfers.task_N == t).sum()),
            "learned": t in learned,
        }
        for t, task in enumerate(transfers.tasks)
        for name, (accuracy, gain) in beaten[t].items()
    ]


def _pair_rows(
    transfers: Transfers, gains: dict[tuple[int, int, str], Number], learned: list[int]
) -> list[dict[str, object]]:
    """A row per ordered pair of tasks, a task's own prompts among them."""
    trained_TT, initial_TT, none_T = (
        transfers.accuracies("trained"),
        transfers.accuracies("initial"),
        transfers.none_accuracies,
    )
    return [
        {
            "measure": transfers.measure,
            "source": source,
            "target": target,
            "accuracy": trained_TT[i, j],
            "p0": initial_TT[i, j],
            "none": none_T[j],
            "gain_over_p0": gains[i, j, "initial"].value,
            "low": gains[i, j, "initial"].low,
            "high": gains[i, j, "initial"].high,
            "gain_over_none": gains[i, j, "none"].value,
            "none_low": gains[i, j, "none"].low,
            "none_high": gains[i, j, "none"].high,
            "runs": int((transfers.task_N == i).sum()),
            "n": transfers.sets_T[j].n,
            "both_learned": i in learned and j in learned,
        }
        for i, source in enumerate(transfers.tasks)
        for j, target in enumerate(transfers.tasks)
    ]


def _likeness_table(transfers: Transfers, alike: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A row per likeness and ordered pair of tasks."""
    return pd.DataFrame(
        [
            {"likeness": name, "source": source, "target": target, "value": values_TT[i, j]}
            for name, values_TT in alike.items()
            for i, source in enumerate(transfers.tasks)
            for j, target in enumerate(transfers.tasks)
            if i != j
        ]
    )


def _predictor_rows(part: Part) -> list[dict[str, object]]:
    """A row per likeness; lowest and highest: without each single task."""
    return [
        {
            "measure": part.transfers.measure,
            "likeness": name,
            "words": WORDS[name],
            "spearman": each.plain.value,
            "low": each.plain.low,
            "high": each.plain.high,
            "p": each.plain.p,
            "lowest": each.plain.lowest,
            "highest": each.plain.highest,
            "beyond": each.beyond.value if each.beyond else None,
            "beyond_low": each.beyond.low if each.beyond else None,
            "beyond_high": each.beyond.high if each.beyond else None,
            "beyond_p": each.beyond.p if each.beyond else None,
        }
        for name, each in part.predicted.by_name.items()
    ]


# Figures.


def _heat_figure(transfers: Transfers, learned: list[int], over: str = "initial") -> str:
    """Task x task: accuracy, with no prompt below, and gain; a task's own prompts have a frame."""
    names = [task if t in learned else f"{task} *" for t, task in enumerate(transfers.tasks)]
    accuracy_ST = np.vstack([transfers.accuracies("trained"), transfers.none_accuracies])
    gains_TT, tasks = transfers.gains(over), len(names)
    base = "no prompt" if over == "none" else "the run's own P0"
    labels: dict[str, Any] = {"rotation": 40, "ha": "right"}
    with panels(1, 2, width=max(7.2, 1.5 * tasks), height=0.42 * tasks + 2) as (figure, axes):
        mesh = shares_grid(axes[0, 0], accuracy_ST, [*names, "no prompt"], names, **labels)
        axes[0, 0].set(title="mean over runs", xlabel="scored on", ylabel="trained on")
        figure.colorbar(mesh, ax=axes[0, 0], shrink=0.8)
        axis = axes[0, 1]
        most = max(float(np.abs(gains_TT).max()), 1e-9)
        mesh = axis.pcolormesh(gains_TT, vmin=-most, vmax=most, cmap="RdBu")
        write_cells(axis, gains_TT, "+.2f", np.abs(gains_TT) > 0.6 * most)
        axis.set(xticks=np.arange(tasks) + 0.5, yticks=np.arange(tasks) + 0.5, title=f"gain over {base}")
        axis.set_xticklabels(names, **labels)
        axis.set(yticklabels=names, xlabel="scored on")
        axis.invert_yaxis()
        axis.grid(False)
        figure.colorbar(mesh, ax=axis, shrink=0.8)
        for each in axes[0]:
            for t in range(tasks):
                each.plot([t, t + 1, t + 1, t, t], [t, t, t + 1, t + 1, t], color="black", linewidth=1.2)
        if len(learned) < tasks:
            figure.supxlabel("* not shown to have learned its own task", fontsize=8)
        measure = "Label accuracy" if transfers.measure == LABEL else "Accuracy by exact match"
        return svg(figure, f"{measure} of each task's prompts on each task, and what training added to it")


def _forest_figure(predicted: Predictions) -> str:
    """Spearman's correlation of each likeness, with its interval; beside it that beyond sources and targets."""
    names = list(predicted.by_name)
    with panels(width=7.2, height=0.42 * len(names) + 1.4) as (figure, axes):
        axis = axes[0, 0]
        kinds = (("plain", "over pairs of tasks", -0.12), ("beyond", "beyond sources and targets", 0.12))
        for (kind, label, shift), colour in zip(kinds, COLOURS, strict=False):
            points_at = [(y, getattr(predicted.by_name[name], kind)) for y, name in enumerate(names)]
            there = [(y + shift, each) for y, each in points_at if each is not None]
            for y, each in there:
                if each.low is not None:
                    axis.plot([each.low, each.high], [y, y], color=colour, linewidth=1.2)
            axis.plot([each.value for _, each in there], [y for y, _ in there], "o", color=colour, label=label)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(xlim=(-1.05, 1.05), xlabel="rank correlation with the gain over P0", yticks=range(len(names)))
        axis.set_yticklabels([WORDS[name] for name in names], fontsize=7)
        axis.invert_yaxis()
        axis.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return svg(figure, "Which likeness of two tasks goes with transfer, with 95 % intervals")


def _scatter_figure(part: Part, alike: Mapping[str, np.ndarray], name: str) -> str:
    """Gain against the likeness that goes with it the most, a point per ordered pair, coloured by target."""
    gains_TT, values_TT = part.transfers.gains("initial"), alike[name]
    with panels(width=5.4, height=3.4) as (figure, axes):
        axis = axes[0, 0]
        for k, target in enumerate(part.learned):
            sources = [source for source in part.learned if source != target]
            axis.plot(
                values_TT[sources, target],
                gains_TT[sources, target],
                "o" if k < len(COLOURS) else "s",
                color=COLOURS[k % len(COLOURS)],
                label=part.transfers.tasks[target],
            )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xlabel=f"more alike: {WORDS[name]}, its sign turned where it is a distance")
        axis.set(ylabel=f"gain over P0, {MEASURES[part.transfers.measure]}")
        axis.legend(fontsize=7, title="scored on", title_fontsize=7)
        return svg(figure, "Transfer by how alike two tasks' prompts are, a point per ordered pair of tasks")
