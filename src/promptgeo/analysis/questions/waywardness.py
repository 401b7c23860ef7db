"""Can a prompt be made to read as any text, at hardly a loss of accuracy? Runs that were pulled to texts.

Khashabi et al. 2022, "Prompt Waywardness" (arXiv 2112.08348): if a prompt that solves a task may have the words of any
text for its nearest tokens, nearest tokens prove nothing. regulariser=wayward pulls prompts P to a text t; those of
gamma = 0 are the same runs without the pull.

Numbers, of each text (`own`: the task's own; else its first words) and gamma: `f1.<text>.g<gamma>`, of the nearest
vocabulary tokens of P, by cosine, and the tokens of t, as multisets (both have P tokens: the share that they have in
common), `f1_other.<...>` of the same tokens and the other texts, the base rate; `accuracy.<...>`; `drop.<...>`, the
relative loss (acc_0 - acc_gamma) / acc_0, paired over runs of one task, text and seed and over test examples.
`accuracy_text.<text>`: of E[t], untrained. `largest_f1.<text>`: the largest whose drop is below the margin. Table
`waywardness`: a row per run.

Shapes: U pairs of runs, E test examples, P prompt tokens, d width.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.deciding import Premise, decided, for_all, learned
from promptgeo.analysis.figures import COLOURS, estimates, panels, svg
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import clopper_pearson, jackknife_error, t_mean, t_quantile
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.analysis.scoring import (
    LEAST_RUNS,
    Bootstrap,
    Estimate,
    EvaluationSet,
    Scored,
    add_mean,
    evaluation_sets,
    reach,
    sampled_examples,
    score,
)
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

OWN = "own"
"""Name of each task's own text."""
WAYWARD = "wayward"
CLAIM = "reads_as_any_text"


@question(
    lm=True, vocabulary=True, claims=(CLAIM,), zero=("margin",), factors=("regulariser", "init.text", "prompt_length")
)
def waywardness(
    runs: RunTable,
    *,
    lm: LM,
    vocabulary: Vocabulary,
    margin: float = 0.02,
    reads: float = 0.9,
    max_examples: int | None = None,
    seed: int = 0,
) -> Result:
    """Sets what prompts that were pulled to a text cost beside how much they read as it.

    The claim `reads_as_any_text`: for every text that is not the task's own there is a gamma at which the prompts read
    as it (mean F1 at least `reads`) and lose less than `margin` of the accuracy without a pull. It holds by the upper
    end of the drop's interval, adjusted for the gammas that could be chosen, and fails where every such gamma's lower
    end lies above, adjusted for the texts. Premise: the runs without a pull solve their tasks.

    Intervals of F1 and accuracies are no narrower than those of a count of runs (Clopper and Pearson): a pull leaves
    some runs able and others not. Of the drop: Student's over pairs of runs, and over test examples that of a count of
    lost and of gained ones (gamma, Fay and Feuer 1997), half-widths added in squares.

    Args:
        margin: relative loss of accuracy that counts as none.
        reads: mean F1 from which on prompts read as their text.
        max_examples: test examples of a task, drawn by seed; None: all.
        seed: of these, and of the bootstrap of accuracies.

    Raises UserError without runs of regulariser=wayward of gamma 0 and above, or for prompts that were trained
    elsewhere.
    """
    if not 0 <= margin < 1 or not 0 < reads <= 1:
        raise UserError(f"waywardness: margin={margin:g}, reads={reads:g}: shares from 0 to 1 are needed")
    sets_N = evaluation_sets(runs, "waywardness", max_examples, seed)
    pulled = _pulled(runs, sets_N, lm, vocabulary)
    result = Result()
    result.omissions += sampled_examples("waywardness", sets_N, max_examples, seed)
    if len(pulled) < len(runs):
        result.omissions.append(f"waywardness: {len(runs) - len(pulled)} runs were pulled to no text: left out.")
    by_text = _answer(pulled, runs.table, margin, reads, Bootstrap(seed=seed), result)
    result.figures["gamma"] = _figure(by_text, margin)
    return result


def _answer(
    pulled: Sequence["_Pulled"], table: pd.DataFrame, margin: float, reads: float, bootstrap: Bootstrap, result: Result
) -> dict[str, list["_Measured"]]:
    """Adds all that the scored runs say; returns it by text. table: of all runs, for whether they learned."""
    cells = _cells(pulled)
    compared = {each.text for pairs in cells.values() for pair in pairs for each in pair}
    lone = sorted({each.text for each in pulled} - compared)
    result.omissions += [f"waywardness: {text!r} has no runs of gamma 0 and above to compare." for text in lone]
    measured = {key: _measure(*key, pairs, result, bootstrap) for key, pairs in cells.items()}
    free = sorted({free.number for pairs in cells.values() for _, free in pairs})
    premises = learned(table.iloc[free])
    by_text: dict[str, list[_Measured]] = {}
    for (kind, _), one in measured.items():
        by_text.setdefault(kind, []).append(one)
    for kind, those in by_text.items():
        _tell(kind, those, margin, result)
    others = {kind: those for kind, those in by_text.items() if kind != OWN}
    result.claims.append(_claim(others, margin, reads, premises))
    result.tables["waywardness"] = _table(pulled, cells)
    return by_text


# Runs.


@dataclass(frozen=True, eq=False)
class _Pulled:
    """A run that was pulled to a text."""

    number: int
    """In the run table."""
    evaluation_set: EvaluationSet
    kind: str
    text: str
    gamma: float
    unit: Hashable
    """What it shares with the run that differs from it in gamma alone."""
    nearest: str
    f1: float
    f1_other: float
    """Mean over the other texts; NaN where there are none."""
    distance: float
    """Mean squared distance of a token from its text, in variances of the embeddings."""
    correct_E: np.ndarray
    text_correct_E: np.ndarray
    """Of the text's embeddings, untrained."""

    @property
    def accuracy(self) -> float:
        return float(self.correct_E.mean())


Pair = tuple[_Pulled, _Pulled]
"""A run that was pulled, and the same one without."""


def _pulled(runs: RunTable, sets_N: Sequence[EvaluationSet], lm: LM, vocabulary: Vocabulary) -> list[_Pulled]:
    """Every run of regulariser=wayward, with its scores and those of its text. Raises UserError where there is none."""
    trained = runs.runs or []  # evaluation_sets has refused a table without
    regularisers = [run.info["config"].get("regulariser") or {} for run in trained]
    chosen = [n for n, each in enumerate(regularisers) if each.get("name") == WAYWARD]
    if not chosen:
        raise UserError("waywardness: needs runs of regulariser=wayward; train some with sweep=wayward")
    ids = {text: lm.encode(text) for text in dict.fromkeys(regularisers[n]["text"] for n in chosen)}
    names = named(list(ids))
    text_Pd = {text: lm.embed(torch.tensor(tokens, device=lm.device)).float().cpu() for text, tokens in ids.items()}
    prompts = [trained[n].prompt() for n in chosen]
    texts = [text_Pd[regularisers[n]["text"]].numpy() for n in chosen]
    sets = [sets_N[n] for n in chosen]
    correct = score(lm, [*prompts, *texts], [*sets, *sets])
    made = []
    for k, n in enumerate(chosen):
        config, text = trained[n].info["config"], regularisers[n]["text"]
        nearest = nearest_tokens(prompts[k], vocabulary)
        others = [f1(nearest, tokens) for other, tokens in ids.items() if other != text]
        p0 = trained[n].prompt("initial").tobytes() if "initial" in trained[n].tensors else b""
        made.append(
            _Pulled(
                n,
                sets[k],
                OWN if text == config["task"].get("text") else names[text],
                text,
                float(regularisers[n]["gamma"]),
                (sets[k], text, config["init"]["name"], config["seed"], p0),
                "|".join(vocabulary.tokens[i] for i in nearest),
                f1(nearest, ids[text]),
                float(np.mean(others)) if others else float("nan"),
                float(((prompts[k] - texts[k]) ** 2).sum(1).mean() / lm.embedding_scale**2),
                correct[k],
                correct[len(chosen) + k],
            )
        )
    return made


def nearest_tokens(prompt_Pd: np.ndarray, vocabulary: Vocabulary) -> list[int]:
    """Of each prompt token the nearest vocabulary token by cosine."""
    unit_Pd = prompt_Pd / np.maximum(np.linalg.norm(prompt_Pd, axis=1, keepdims=True), 1e-30)
    return [int(i) for i in vocabulary.near(unit_Pd.astype(np.float32)).nearest_Kk[:, 0]]


def f1(tokens: Sequence[int], wanted: Sequence[int]) -> float:
    """Harmonic mean of the shares that two multisets of tokens have in common."""
    common = sum((Counter(tokens) & Counter(wanted)).values())
    return 2 * common / (len(tokens) + len(wanted))


def named(texts: Sequence[str]) -> dict[str, str]:
    """Each text's first words, as part of a number's name, numbered where several begin alike, or as OWN is called."""
    names = ["_".join(re.findall(r"\w+", text)[:4]).lower() or "text" for text in texts]
    return {
        text: name if names.count(name) == 1 and name != OWN else f"{name}.{names[: k + 1].count(name)}"
        for k, (text, name) in enumerate(zip(texts, names, strict=True))
    }


def _cells(pulled: Sequence[_Pulled]) -> dict[tuple[str, float], list[Pair]]:
    """(text, gamma) -> pairs of runs; of gamma 0 each with itself.

    Raises UserError where nothing can be compared.
    """
    free = {each.unit: each for each in pulled if each.gamma == 0}
    cells: dict[tuple[str, float], list[Pair]] = {}
    seen: set[tuple[Hashable, float]] = set()
    for each in sorted(pulled, key=lambda each: (each.kind != OWN, each.kind, each.gamma, each.number)):
        if each.unit in free and (each.unit, each.gamma) not in seen:
            seen.add((each.unit, each.gamma))
            cells.setdefault((each.kind, each.gamma), []).append((each, free[each.unit]))
    kinds = {kind for kind, gamma in cells if gamma > 0}
    if not kinds:
        raise UserError(
            "waywardness: needs runs that differ in regulariser.gamma alone, 0 among them "
            "(-m regulariser.gamma=0,.001,.01,.03)"
        )
    return {key: pairs for key, pairs in cells.items() if key[0] in kinds}


# Numbers.


@dataclass(frozen=True, eq=False)
class _Measured:
    """What the runs of one text and gamma say."""

    gamma: float
    pairs: list[Pair]
    f1: Number
    accuracy: Number
    text_accuracy: float
    drop: Number | None
    """None of gamma 0, and where runs without a pull solve nothing."""
    estimate: Estimate | None
    """Of the drop."""

    @property
    def text(self) -> str:
        """In words."""
        texts = {pulled.text for pulled, _ in self.pairs}
        return "their task's own text" if self.pairs[0][0].kind == OWN else f'"{sorted(texts)[0]}"'


def _measure(kind: str, gamma: float, pairs: list[Pair], result: Result, bootstrap: Bootstrap) -> _Measured:
    """Adds the numbers of one text and gamma."""
    name, runs = f"{kind}.g{gamma:g}", [pulled for pulled, _ in pairs]
    agreement = float(np.mean([run.f1 for run in runs]))
    # Student's covers 82 % of a few that nearly all agree, or hardly.
    ends = clopper_pearson(agreement * len(runs), len(runs)) if len(runs) > 1 else (None, None)
    of_text = result.number(f"f1.{name}", agreement, len(runs), "runs", *ends)
    other = np.array([run.f1_other for run in runs])
    if np.isfinite(other).all():
        result.number(f"f1_other.{name}", float(other.mean()), len(runs), "runs", *t_mean(other, least=0.0, most=1.0))
    sets = [run.evaluation_set for run in runs]
    units: list[tuple[int, ...]] = [(u,) for u in range(len(runs))]
    scored = Scored([run.correct_E for run in runs], sets, units, all_or_none=True)
    accuracy = add_mean(result, f"accuracy.{name}", scored, bootstrap)
    texts = {run.evaluation_set: run.text_correct_E for run in runs}
    untrained = Scored(list(texts.values()), list(texts), [()] * len(texts))
    if gamma == 0:
        add_mean(result, f"accuracy_text.{kind}", untrained, bootstrap)
        return _Measured(gamma, pairs, of_text, accuracy, untrained.mean, None, None)
    estimate = relative_drop(
        [free.correct_E for _, free in pairs],
        [pulled.correct_E for pulled, _ in pairs],
        [pulled.evaluation_set for pulled, _ in pairs],
    )
    if estimate is None:
        result.omissions.append(f"waywardness: {name}: the runs without a pull solve nothing that could be lost.")
        return _Measured(gamma, pairs, of_text, accuracy, untrained.mean, None, None)
    drop = result.number(f"drop.{name}", estimate.value, len(pairs), "pairs of runs", *estimate.interval)
    return _Measured(gamma, pairs, of_text, accuracy, untrained.mean, drop, estimate)


def relative_drop(
    free_U: Sequence[np.ndarray], pulled_U: Sequence[np.ndarray], sets_U: Sequence[Hashable]
) -> Estimate | None:
    """(acc_0 - acc_gamma) / acc_0 of mean accuracies over pairs of runs; None where acc_0 is 0.

    Over pairs: a jackknife of the ratio, Student's t. Over examples: of the shares lost and gained, each a count of
    events of unlike size (_count_interval); acc_0's own error is left out, which makes the interval no narrower, for
    what is lost was solved before. free_U, pulled_U: [E] bool each, of the same examples; sets_U: which.
    """
    free, pulled = (np.array([each.mean() for each in those], dtype=np.float64) for those in (free_U, pulled_U))
    start = float(free.mean())
    if start == 0:
        return None
    value, count = 1 - float(pulled.mean()) / start, len(free)
    lost = _share([a & ~b for a, b in zip(free_U, pulled_U, strict=True)], sets_U)
    gained = _share([b & ~a for a, b in zip(free_U, pulled_U, strict=True)], sets_U)
    error = 0.0
    if count > 1:
        left_f, left_p = free.sum() - free, pulled.sum() - pulled
        error = jackknife_error(1 - np.divide(left_p, left_f, out=np.zeros(count), where=left_f > 0))

    def at(level: float) -> tuple[float, float]:
        over_runs = t_quantile((1 + level) / 2, max(count - 1, 1)) * error
        (less_lost, more_lost), (less_gained, more_gained) = (_count_interval(*x, level) for x in (lost, gained))
        down = np.hypot(lost[0] - less_lost, more_gained - gained[0]) / start
        up = np.hypot(more_lost - lost[0], gained[0] - less_gained) / start
        low, high = value - np.hypot(down, over_runs), value + np.hypot(up, over_runs)
        return float(low), float(min(high, 1.0))

    return Estimate(value, count, at)


def _share(events_U: Sequence[np.ndarray], sets_U: Sequence[Hashable]) -> tuple[float, float, float]:
    """(mean over pairs of a share of examples, its standard error over examples, what one example weighs at most)."""
    of_set: dict[Hashable, list[np.ndarray]] = {}
    for events_E, evaluation_set in zip(events_U, sets_U, strict=True):
        of_set.setdefault(evaluation_set, []).append(events_E)
    mean = variance = largest = 0.0
    for those in of_set.values():
        share_E, weight = np.mean(those, axis=0), len(those) / len(events_U)
        mean += weight * float(share_E.mean())
        variance += weight**2 * float(share_E.var(ddof=1)) / len(share_E) if len(share_E) > 1 else 0.0
        largest = max(largest, weight / len(share_E))
    return mean, variance**0.5, largest


def _count_interval(share: float, error: float, largest: float, level: float) -> tuple[float, float]:
    """Interval of a share that is a sum of events of unlike size (Fay and Feuer 1997), with at least one event.

    To the events that were seen, one is added of an example that all pairs lose: of few events the size is not known.
    """
    from scipy.special import gammaincinv

    event, outside = (error**2 + largest**2) / (share + largest), (1 - level) / 2
    low = 0.0 if share == 0 else float(event * gammaincinv(share / event, outside))
    return low, float(min(event * gammaincinv(share / event + 1, 1 - outside), 1.0))


# What it says.


def _tell(kind: str, those: list[_Measured], margin: float, result: Result) -> None:
    """The largest F1 whose drop is surely below the margin, or that there is none."""
    compared = [each for each in those if each.drop is not None and each.estimate is not None]
    if not compared:
        return
    kept = [each for each in compared if each.estimate is not None and each.estimate.interval[1] < margin]
    best = max(kept or compared, key=lambda each: (each.f1.value, -each.gamma))
    drop = best.drop
    if drop is None:
        return
    result.number(f"largest_f1.{kind}", best.f1.value if kept else 0.0, best.f1.n, "runs")
    low, high = drop.interval
    cost = f"{drop.value:.1%} of the accuracy ({low:.1%} to {high:.1%})"
    start, examples = those[0], sum(each.n for each in {pulled.evaluation_set for pulled, _ in best.pairs})
    sentence = (
        f"The nearest tokens of prompts that were pulled to {best.text} agree with it by an F1 of {best.f1.value:.2f} "
        f"at gamma = {best.gamma:g} ({start.f1.value:.2f} without a pull), and the prompts lose {cost}"
    )
    sentence += f", less than {margin:.0%}" if kept else f"; no gamma surely loses less than {margin:.0%}"
    sentence += f". Untrained, the text solves {best.text_accuracy:.0%}, prompts that were not pulled "
    sentence += f"{start.accuracy.value:.0%} (n = {drop.n} pairs of runs, {examples} test examples"
    result.findings.append(Finding.of(drop, f"{sentence}{reach(drop.n)})."))


def _claim(others: dict[str, list[_Measured]], margin: float, reads: float, premises: list[Premise]) -> Claim:
    """Whether prompts can be made to read as every text that is not their task's own."""
    if not others:
        words = "Prompts were pulled to their tasks' own texts alone."
        return Claim(CLAIM, Outcome.undecidable, words, needs="runs that were pulled to other texts")
    return for_all([_of_text(kind, those, margin, reads, premises, len(others)) for kind, those in others.items()])


def _of_text(
    kind: str, those: list[_Measured], margin: float, reads: float, premises: list[Premise], texts: int
) -> Claim:
    """Whether they can be made to read as this one. texts: how many are asked about."""
    words = those[0].text
    reading = [each for each in those if each.f1.value >= reads and each.estimate is not None]
    if not reading:
        most = max(those, key=lambda each: each.f1.value)
        sentence = f"No prompts that were pulled to {words} read as it: F1 is {most.f1.value:.2f} at gamma = "
        return Claim(CLAIM, Outcome.undecidable, f"{sentence}{most.gamma:g}.", needs="larger values of gamma")
    estimates = [each.estimate for each in reading if each.estimate is not None]
    # One of several gammas is chosen to hold; it fails by all of them, and one of several texts is enough.
    highs = [estimate.at(1 - 0.05 / len(estimates))[1] for estimate in estimates]
    best = int(np.argmin(highs))
    low = min(estimate.at(1 - 0.05 / texts)[0] for estimate in estimates)
    chosen, estimate = reading[best], estimates[best]
    interval = estimate.interval
    evidence = (
        f"Prompts that read as {words} (F1 {chosen.f1.value:.2f}, gamma = {chosen.gamma:g}) lose {estimate.value:.1%} "
        f"({interval[0]:.1%} to {interval[1]:.1%}) of the accuracy (n = {estimate.runs} pairs of runs)."
    )
    p = min(estimate.p(margin) * len(estimates), 1.0) if estimate.value < margin else 1.0
    pairs = Premise(
        estimate.runs >= LEAST_RUNS,
        f"{estimate.runs} pairs of runs speak for others ({LEAST_RUNS} are needed)",
        f"{LEAST_RUNS} runs of each gamma",
    )
    return decided(
        CLAIM,
        (low, highs[best]),
        evidence,
        threshold=margin,
        below=True,
        p=p,
        premises=[pairs, *premises],
        needs="more test examples or runs",
    )


# Table and figure.


def _table(pulled: Sequence[_Pulled], cells: dict[tuple[str, float], list[Pair]]) -> pd.DataFrame:
    """A row per run."""
    free = {one.number: other for pairs in cells.values() for one, other in pairs}
    return pd.DataFrame(
        [
            {
                "run": each.number,
                "task": each.evaluation_set.task.name,
                "text": each.text,
                "own": each.kind == OWN,
                "gamma": each.gamma,
                "f1": each.f1,
                "f1_other": each.f1_other,
                "nearest": each.nearest,
                "distance": each.distance,
                "accuracy": each.accuracy,
                "accuracy_text": float(each.text_correct_E.mean()),
                "accuracy_free": free[each.number].accuracy if each.number in free else float("nan"),
            }
            for each in pulled
        ]
    )


def _losses(pairs: Sequence[Pair]) -> list[float]:
    """What each pair lost, as a share of what all solve without a pull on average: their mean is the drop.

    As a share of its own, a run that did not learn without a pull would gain 2,000 %.
    """
    start = float(np.mean([free.accuracy for _, free in pairs]))
    return [(free.accuracy - pulled.accuracy) / start for pulled, free in pairs]


def _figure(by_text: dict[str, list[_Measured]], margin: float) -> str:
    """F1 and the relative loss of accuracy against gamma, a panel per text; points are runs."""
    gammas = sorted({each.gamma for those in by_text.values() for each in those})
    with panels(1, len(by_text), width=max(3.0 * len(by_text), 4.0), height=3.0, sharex=True, sharey=True) as (
        figure,
        axes,
    ):
        for axis, those in zip(axes[0], by_text.values(), strict=True):
            at = np.array([gammas.index(each.gamma) for each in those])
            f1_N = [np.array([one.f1 for one, _ in each.pairs]) for each in those]
            style: dict[str, Any] = {"linestyle": "-", "across": 0.16}
            f1 = [each.f1 for each in those]
            estimates(axis, at - 0.1, f1, f1_N, color=COLOURS[0], label="F1 with the text", **style)
            drops = [(each.drop, each) for each in those if each.drop is not None]
            places = np.array([gammas.index(each.gamma) for _, each in drops]) + 0.1
            lost_N = [_losses(each.pairs) for _, each in drops]
            style |= {"marker": "s", "label": "loss of accuracy, relative"}
            estimates(axis, places, [drop for drop, _ in drops], lost_N, color=COLOURS[2], **style)
            axis.axhline(margin, color="black", linewidth=0.6, linestyle=":")
            axis.set(title=those[0].text[:34], xlabel="gamma, weight of the text", xticks=range(len(gammas)))
            axis.set_xticklabels([f"{gamma:g}" for gamma in gammas])
        axes[0, 0].set_ylabel("share")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        title = "How far prompts can be made to read as a text, and what it costs; 95 % intervals; faint: single runs"
        return svg(figure, f"{title} (dotted: a loss of {margin:g})")
