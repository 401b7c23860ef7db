"""How many tokens of a text fit into one vector? Runs of template=recite, each of which learned one text by heart.

Kuratov et al. 2025, "Cramming 1568 Tokens into a Single Vector and Back Again" (arXiv 2502.13063): k vectors m before a
text t_1 .. t_L are trained so that the frozen model writes it, min over m of -(1/L) sum log p(t_i | m, t_<i). A text
is held from A = .99 on, A being the share of its tokens that are the likeliest after m and the true ones before them.
This is memorising: the text that is scored is the one that is trained on.

Numbers, of each kind of text (the column that it is from) and k: `capacity.<kind>.k<k>`, the most tokens of a text that
are held, mean over texts; `capacity_mean.<...>`, the most at which the mean A over texts is .99; `gain.<...>`, tokens
right with m less those right without, the most at any length; `information.<...>`, the most bits L (CE_0 - CE_m) / ln
2, for each vector; `information_held.<...>`, those of the longest part that is held. By length:
`right.<kind>.k<k>.L<L>` (A), `right_none.<...>` without m, `right_other.<...>` with the vectors of another text of its
kind. `ratio.information.<kind>.<other>.k<k>` and `ratio.capacity.<...>`: of these means. `still_falling.<...>`: of the
shortest texts that are not held, the share by which the loss fell in the last fifth of the steps; `still_rising.<...>`:
by how much bits rise from the last but one length to the longest. `longer.<...>.s<steps>`: by how much capacity rises
with more steps. Table `texts`: a row per run.

Shapes: T texts, P prompt tokens, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, decided, for_all
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, mean_line, panels, svg
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import (
    drawn_means,
    jackknife_error,
    t_interval,
    t_mean,
    t_quantile,
)
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.evaluation.evaluate import evaluate
from promptgeo.model.interface import LM
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of

CLAIM = "information_constant"
HELD = 0.99
"""Share of a text's tokens that are right from which on it is held, as published."""
DRAWS = 2000
"""Of texts, for the intervals."""


@question(
    lm=True,
    claims=(CLAIM,),
    factors=(
        "task.label_length",
        "training.epochs",
        "training.max_steps",
        "prompt_length",
    ),
)
def capacity(runs: RunTable, *, lm: LM, margin: float = 0.25, texts: int = 5, seed: int = 0) -> Result:
    """Sets how much of a text prompts hold beside how many bits of it, by kind of text and prompt length.

    The claim `information_constant`: the information that k vectors hold, not the length of the text, is the same for
    every kind of text. It holds where every two kinds' ratio of information certainly lies within 1 + `margin` either
    way, and some two kinds' ratio of lengths certainly does not. It fails where a ratio of information certainly lies
    outside, or every ratio of lengths within. Premises, of each kind and k: `texts` texts are held at the shortest
    length and not at the longest, or their capacity is not known; and bits certainly rise by less than `margin` from
    the last length but one to the longest, or longer texts may hold more.

    All are lower bounds at the runs' number of steps. Of a run that ended with all tokens right, and of any other, the
    better of its last and its lowest-loss vectors counts. Intervals are over texts: bootstrap draws of them, Student's
    t (of shares: no narrower than of a count of so many; capacity_mean has none). Of ratios: a jackknife of the
    logarithm, by the texts' numbers, for a shuffled text is made of a real one. A text's capacity lies between the
    longest length that is held and the next that was tried: the intervals of capacity and of ratio.capacity hold both.

    Args:
        margin: by how much two kinds may differ and count as the same.
        texts: of a kind, whose capacity must lie within the lengths.
        seed: of the bootstrap.

    Raises UserError without runs of template.scoring=recite.
    """
    if not margin > 0:
        raise UserError(f"capacity: margin={margin:g}: a number above 0 is needed")
    result = Result()
    _say(_points(runs, lm, result), margin, texts, seed, result)
    return result


def _say(points: Sequence["_Point"], margin: float, texts: int, seed: int, result: Result) -> None:
    """Adds all that the runs say."""
    result.tables["texts"] = pd.DataFrame([point.row for point in points])
    cells, longer = _cells(_best_of_each(points, result), result)
    answers = {key: _answer(*key, of_text, result, seed) for key, of_text in cells.items()}
    for answer in answers.values():
        _tell(answer, result)
    for (kind, k, steps), of_text in longer.items():
        _tell_longer(kind, k, steps, of_text, cells.get((kind, k), {}), result)
    ratios = [ratio for k in _sizes(answers) for ratio in _ratios(answers, k, result)]
    result.claims.append(_claim(answers, ratios, margin, texts))
    result.figures["length"] = _figure(answers)
    if (figure := _losses(answers)) is not None:
        result.figures["loss"] = figure


# Runs.


@dataclass(frozen=True, eq=False)
class _Point:
    """What a run's vectors hold of its text."""

    number: int
    """In the run table."""
    run: Run
    kind: str
    text: int
    """Its number."""
    length: int
    """L, in tokens."""
    k: int
    budget: int
    """Steps that it had at most."""
    steps: int
    prompt_Pd: np.ndarray
    right: float
    """A."""
    recited: float
    right_none: float
    right_other: float
    """With the vectors of another text; NaN where there is none."""
    bits: float

    @property
    def gain(self) -> float:
        """Tokens that are right with m, less those that are right without."""
        return (self.right - self.right_none) * self.length

    @property
    def row(self) -> dict[str, object]:
        """Of the table."""
        shown = ("number", "kind", "text", "k", "length", "budget", "steps")
        scores = ("right", "recited", "right_none", "right_other", "gain", "bits")
        return {"run" if name == "number" else name: getattr(self, name) for name in (*shown, *scores)}


Texts = dict[int, list[_Point]]
"""Of one kind and k: text -> its runs, by rising length."""


def _points(runs: RunTable, lm: LM, result: Result) -> list[_Point]:
    """Every run that recites a text. Raises UserError where there is none."""
    trained = runs.runs or []
    chosen = [n for n, run in enumerate(trained) if run.info["config"].get("template", {}).get("scoring") == "recite"]
    if not chosen:
        raise UserError("capacity: needs runs of template=recite task=recite; train some with sweep=capacity")
    if left := len(trained) - len(chosen):
        result.omissions.append(f"capacity: {left} runs recite no text: left out.")
    prompts = {n: _best(trained[n]) for n in chosen}
    keys = {n: _key(trained[n]) for n in chosen}
    alike: dict[tuple, list[int]] = {}
    chosen.sort(key=lambda n: (*keys[n], trained[n].id))
    for n in chosen:
        kind, _, length, k, budget = keys[n]
        alike.setdefault((kind, length, k, budget), []).append(n)
    made = []
    for n in progress(chosen, "scoring vectors of other texts"):
        kind, text, length, k, budget = keys[n]
        group = alike[kind, length, k, budget]
        others = [m for m in (*group[group.index(n) + 1 :], *group) if keys[m][1] != text]
        other = float("nan")
        if others:
            scores = evaluate(lm, prompts[others[0]][1][None], task_of(trained[n]), split="train")
            other = float(scores.metrics["tokens_right"][0])
        results, which = trained[n].info["results"], prompts[n][0]
        share, loss, steps = results["tokens_right"], results["loss"], int(results["steps"])
        bits = length * (loss["none"] - loss[which]) / log(2)
        recited = results["tokens_recited"][which]
        measured = (share[which], recited, share["none"], other, bits)
        made.append(_Point(n, trained[n], kind, text, length, k, budget, steps, prompts[n][1], *measured))
    return sorted(made, key=lambda point: (point.k, point.kind, point.length, point.text))


def _best(run: Run) -> tuple[str, np.ndarray]:
    """(final or best, [P, d]): which of them has more tokens right, and then the lower loss."""
    results = run.info["results"]
    known = [which for which in ("final", "best") if which in results["tokens_right"]]
    which = max(known, key=lambda which: (results["tokens_right"][which], -results["loss"][which]))
    return which, run.prompt(which)


def _key(run: Run) -> tuple[str, int, int, int, int]:
    """Kind, number and length of its text, k, and the steps that it had at most: of one example, an epoch is a step."""
    config, results = run.info["config"], run.info["results"]
    source, training = config["task"]["source"], config["training"]
    budget = min(training["epochs"], training["max_steps"] or training["epochs"])
    length = config["task"]["label_length"]
    if length is None:
        raise UserError(f"capacity: {run.folder}: task.label_length says how many tokens are recited; it is null")
    return source["label"], int(source["row"] or 0), int(length), int(results["prompt_length"]), int(budget)


def _cells(
    points: Sequence[_Point], result: Result
) -> tuple[dict[tuple[str, int], Texts], dict[tuple[str, int, int], Texts]]:
    """(kind, k) -> texts of runs with the number of steps that most have; (kind, k, steps) -> of those with more."""
    budgets = [point.budget for point in points]
    usual = max(sorted(set(budgets)), key=budgets.count)
    if fewer := sum(budget < usual for budget in budgets):
        result.omissions.append(f"capacity: {fewer} runs had fewer than {usual} steps: left out.")
    cells: dict[tuple[str, int], Texts] = {}
    longer: dict[tuple[str, int, int], Texts] = {}
    for point in points:
        if point.budget == usual:
            cells.setdefault((point.kind, point.k), {}).setdefault(point.text, []).append(point)
        elif point.budget > usual:
            longer.setdefault((point.kind, point.k, point.budget), {}).setdefault(point.text, []).append(point)
    return cells, longer


def _best_of_each(points: Sequence[_Point], result: Result) -> list[_Point]:
    """Of several runs of one text and length (seeds) the best: that vectors hold it is shown by one."""
    of: dict[tuple, _Point] = {}
    for point in points:
        key = (point.kind, point.text, point.length, point.k, point.budget)
        of[key] = max(of.get(key, point), point, key=lambda each: (each.right, each.bits))
    if left := len(points) - len(of):
        result.omissions.append(f"capacity: {left} runs are not the best of their text and length: left out.")
    return list(of.values())


def most_held(points: Sequence[_Point]) -> int:
    """Tokens of the longest part of a text that is held; 0 where none is."""
    return max((point.length for point in points if point.right >= HELD), default=0)


def _bits_held(points: Sequence[_Point]) -> float:
    """Bits of the longest part of a text that is held; 0 where none is."""
    held = [point for point in points if point.right >= HELD]
    return max(held, key=lambda point: point.length).bits if held else 0.0


# Numbers.


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the texts of one kind say of k vectors."""

    kind: str
    k: int
    of_text: Texts
    capacity_T: np.ndarray
    next_T: np.ndarray
    """The shortest length that was tried beyond; infinite where all are held. A text's capacity lies between."""
    information_T: np.ndarray
    """In bits, for each vector."""
    capacity: Number
    information: Number
    right: dict[int, Number]
    """By length."""
    bits: dict[int, Number]
    within: int
    """Texts that are held at their shortest length and not at their longest."""
    rise: Number | None
    """By how much bits rise from the last but one length to the longest: what longer texts may add."""

    @property
    def words(self) -> str:
        return self.kind.replace("_", " ")

    def at(self, length: int) -> list[_Point]:
        """The runs of a length, one for each text."""
        return [point for points in self.of_text.values() for point in points if point.length == length]

    @property
    def lengths(self) -> list[int]:
        return sorted({point.length for points in self.of_text.values() for point in points})


def _answer(kind: str, k: int, of_text: Texts, result: Result, seed: int) -> _Answer:
    """Adds the numbers of one kind and k."""
    name = f"{kind}.k{k}"
    capacity_T = np.array([most_held(points) for points in of_text.values()], dtype=np.float64)
    next_T = np.array(
        [
            min((point.length for point in points if point.length > held), default=np.inf)
            for held, points in zip(capacity_T, of_text.values(), strict=True)
        ]
    )
    bits_T = np.array([max(point.bits for point in points) / k for points in of_text.values()])
    held_T = np.array([_bits_held(points) / k for points in of_text.values()])
    gain_T = np.array([max(point.gain for point in points) for points in of_text.values()])

    def add(what: str, values_T: np.ndarray, least: float | None = None, most: float | None = None) -> Number:
        ends: tuple[float | None, float | None] = (None, None)
        if len(values_T) > 1:
            draws_B = drawn_means(values_T, DRAWS, seed)
            ends = t_interval(float(values_T.mean()), draws_B, len(values_T), least, most)
        return result.number(what, float(values_T.mean()), len(values_T), "texts", *ends)

    longest = max(point.length for points in of_text.values() for point in points)
    ends = _held_ends(capacity_T, next_T, float(longest), seed)
    held = result.number(f"capacity.{name}", float(capacity_T.mean()), len(capacity_T), "texts", *ends)
    _add_capacity_of_mean(name, of_text, result)
    add(f"gain.{name}", gain_T)
    information = add(f"information.{name}", bits_T)
    add(f"information_held.{name}", held_T)
    rise = _rise(name, of_text, result)
    answer = _Answer(kind, k, of_text, capacity_T, next_T, bits_T, held, information, {}, {}, _within(of_text), rise)
    for length in answer.lengths:
        points = answer.at(length)
        for what in ("right", "right_none", "right_other"):
            shares_T = np.array([getattr(point, what) for point in points])
            if np.isfinite(shares_T).all():
                number = result.number(
                    f"{what}.{name}.L{length}",
                    float(shares_T.mean()),
                    len(points),
                    "texts",
                    *t_mean(shares_T, least=0.0, most=1.0),
                )
                if what == "right":
                    answer.right[length] = number
        bits = np.array([point.bits for point in points]) / k
        ends = t_mean(bits) if len(set(bits.tolist())) > 1 else (None, None)
        answer.bits[length] = result.number(f"bits.{name}.L{length}", float(bits.mean()), len(points), "texts", *ends)
    return answer


def _within(of_text: Texts) -> int:
    return sum(points[0].right >= HELD > points[-1].right for points in of_text.values())


def _rise(name: str, of_text: Texts, result: Result) -> Number | None:
    """Adds by how much bits rise from the last but one length to the longest."""
    lengths = sorted({point.length for points in of_text.values() for point in points})
    if len(lengths) < 2:
        return None
    bits = {(text, point.length): point.bits for text, points in of_text.items() for point in points}
    pairs = [(bits.get((text, lengths[-1])), bits.get((text, lengths[-2]), 0.0)) for text in of_text]
    rises = np.array([last / before - 1 for last, before in pairs if last is not None and before > 0])
    if len(rises) < 2:
        return None
    return result.number(f"still_rising.{name}", float(rises.mean()), len(rises), "texts", *t_mean(rises))


def _held_ends(
    capacity_T: np.ndarray, next_T: np.ndarray, longest: float, seed: int
) -> tuple[float | None, float | None]:
    """From the least that the mean of what is held may be to the most of the next lengths; None where some hold all."""
    if len(capacity_T) < 2 or not np.isfinite(next_T).all():
        return None, None

    def ends(values_T: np.ndarray) -> tuple[float, float]:
        mean = float(values_T.mean())
        if len(set(values_T.tolist())) == 1:
            return mean, mean
        return t_interval(mean, drawn_means(values_T, DRAWS, seed), len(values_T), 0.0, longest)

    return ends(capacity_T)[0], ends(next_T)[1]


def _add_capacity_of_mean(name: str, of_text: Texts, result: Result) -> None:
    """The largest length at which the mean over texts is HELD: of lengths that every text has.

    Without an interval: one text decides it, and draws of few texts hold it too seldom.
    """
    common = set.intersection(*({point.length for point in points} for points in of_text.values()))
    lengths = sorted(common)
    if not lengths or len(of_text) < 2:
        return
    right_TL = np.array(
        [[point.right for point in points if point.length in common] for points in of_text.values()], dtype=np.float64
    )
    held = [length for length, right in zip(lengths, right_TL.mean(0), strict=True) if right >= HELD]
    result.number(f"capacity_mean.{name}", float(max(held, default=0)), len(of_text), "texts")


def _tell(answer: _Answer, result: Result) -> None:
    """How much is held, and that it is a lower bound."""
    held, bits = answer.capacity, answer.information
    longest, shortest = answer.lengths[-1], answer.lengths[0]
    vectors = "One vector holds" if answer.k == 1 else f"{answer.k} vectors hold"
    over = int((answer.capacity_T >= longest).sum())
    none = int((answer.capacity_T == 0).sum())
    least = "at least " * (over > 0)
    sentence = f"{vectors} {least}{held.value:.1f}{_ends(held)} tokens of {answer.words}, "
    sentence += f"{bits.value:.0f}{_ends(bits, 0)} bits"
    sentence += " each" if answer.k > 1 else ""
    sides = [f"{over} hold all {longest}"] * bool(over) + [f"{none} not even {shortest}"] * bool(none)
    sentence += f" (n = {held.n} texts{'; ' + ', '.join(sides) if sides else ''})"
    falling = [_fall(point) for point in _first_failures(answer.of_text)]
    known = np.array([fall for fall in falling if fall is not None])
    if len(known):
        name = f"still_falling.{answer.kind}.k{answer.k}"
        number = result.number(name, float(known.mean()), len(known), "texts", *t_mean(known))
        sentence += f". The loss of the shortest that are not held fell by {number.value:.0%} in the last fifth of "
        sentence += f"{_first_failures(answer.of_text)[0].steps} steps: a lower bound"
    if (rise := answer.rise) is not None:
        sentence += f". From {answer.lengths[-2]} tokens to {longest} bits changed by {rise.value:+.0%}"
        sentence += _ends_in_percent(rise)
    surest = held if held.low is not None else bits
    if surest.low is not None:
        result.findings.append(Finding.of(surest, f"{sentence}."))


def _ends_in_percent(number: Number) -> str:
    return "" if number.low is None or number.high is None else f" ({number.low:.0%} to {number.high:.0%})"


def _ends(number: Number, digits: int = 1) -> str:
    return "" if number.low is None else f" ({number.low:.{digits}f} to {number.high:.{digits}f})"


def _first_failures(of_text: Texts) -> list[_Point]:
    """Of each text the shortest part that is not held, where there is one."""
    failed = [[point for point in points if point.right < HELD] for points in of_text.values()]
    return [points[0] for points in failed if points]


def _curve(point: _Point) -> pd.DataFrame:
    """The losses of its text over training: columns step and loss."""
    metrics = point.run.metrics
    curve: pd.DataFrame = metrics.loc[metrics["split"] != "train", ["step", "loss"]]
    return curve


def _fall(point: _Point) -> float | None:
    """Share by which the loss fell in the last fifth of the steps; None where it was not scored in between."""
    curve = _curve(point)
    late = curve[curve["step"] >= 0.8 * point.steps]
    if len(late) < 2 or late["loss"].iloc[0] <= 0:
        return None
    return float(1 - late["loss"].iloc[-1] / late["loss"].iloc[0])


def _tell_longer(kind: str, k: int, steps: int, of_text: Texts, usual: Texts, result: Result) -> None:
    """By how much capacity rises with more steps: of the same texts and lengths."""
    pairs = []
    for text, points in of_text.items():
        common = {point.length for point in points} & {point.length for point in usual.get(text, [])}
        more, less = ([p for p in those if p.length in common] for those in (points, usual.get(text, [])))
        if common:
            pairs.append((most_held(more), most_held(less), less[0].budget))
    if not pairs:
        result.omissions.append(f"capacity: runs of {kind} with {steps} steps have none with fewer to compare.")
        return
    rises = np.array([more - less for more, less, _ in pairs], dtype=np.float64)
    name = f"longer.{kind}.k{k}.s{steps}"
    number = result.number(name, float(rises.mean()), len(rises), "texts", *t_mean(rises))
    if number.low is not None:
        words = f"{kind.replace('_', ' ')} and k = {k}"
        sentence = f"With {steps} steps instead of {pairs[0][2]}, texts of {words} are held up to"
        sentence += f" {number.value:+.1f}{_ends(number)} tokens further (n = {number.n} texts)."
        result.findings.append(Finding.of(number, sentence))


# Kinds of text, compared.


class _Ratio(NamedTuple):
    """Of two kinds' means."""

    of: str
    """information or capacity."""
    pair: tuple[str, str]
    k: int
    log: float
    ends: tuple[float, float]
    """Of the logarithm: what it may be for these texts; the same twice where that is known."""
    errors: tuple[float, float]
    """Of the ends, over texts."""
    texts: int

    def at(self, level: float) -> tuple[float, float]:
        """Interval of the logarithm."""
        t = t_quantile((1 + level) / 2, self.texts - 1)
        return self.ends[0] - t * self.errors[0], self.ends[1] + t * self.errors[1]

    def size_at(self, level: float) -> tuple[float, float]:
        """Interval of the logarithm without its sign."""
        low, high = self.at(level)
        return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _sizes(answers: dict[tuple[str, int], _Answer]) -> list[int]:
    return sorted({k for _, k in answers})


def _ratios(answers: dict[tuple[str, int], _Answer], k: int, result: Result) -> list[_Ratio]:
    """Adds the ratios of every two kinds with k vectors, over the texts that both have."""
    ratios = []
    for one, other in combinations([answer for answer in answers.values() if answer.k == k], 2):
        common = [text for text in one.of_text if text in other.of_text]
        if len(common) < 2:
            continue
        for of, beyond in (("information", "information"), ("capacity", "next")):
            first, second = (_of_texts(answer, f"{of}_T", common) for answer in (one, other))
            longer = [_of_texts(answer, f"{beyond}_T", common) for answer in (one, other)]
            if min((each.sum() - each).min() for each in (first, second)) <= 0 or not np.isfinite(longer).all():
                continue
            (least, least_error), (most, most_error) = _log_ratio(first, longer[1]), _log_ratio(longer[0], second)
            value, ends, errors = _log_ratio(first, second)[0], (least, most), (least_error, most_error)
            ratio = _Ratio(of, (one.kind, other.kind), k, value, ends, errors, len(common))
            low, high = np.exp(ratio.at(0.95))
            name = f"ratio.{of}.{one.kind}.{other.kind}.k{k}"
            result.number(name, float(np.exp(value)), len(common), "texts", float(low), float(high))
            ratios.append(ratio)
    return ratios


def _log_ratio(first_T: np.ndarray, second_T: np.ndarray) -> tuple[float, float]:
    """The logarithm of the ratio of two means over the same texts, and its error over texts."""
    without_T = np.log(first_T.sum() - first_T) - np.log(second_T.sum() - second_T)
    return log(first_T.sum() / second_T.sum()), jackknife_error(without_T)


def _of_texts(answer: _Answer, name: str, texts: Sequence[int]) -> np.ndarray:
    values: np.ndarray = getattr(answer, name)
    places = {text: t for t, text in enumerate(answer.of_text)}
    return values[[places[text] for text in texts]]


def _claim(answers: dict[tuple[str, int], _Answer], ratios: Sequence[_Ratio], margin: float, texts: int) -> Claim:
    """Whether information is the same for every kind of text where length is not."""
    of = {what: [ratio for ratio in ratios if ratio.of == what] for what in ("information", "capacity")}
    if len({kind for kind, _ in answers}) < 2 or not of["information"]:
        words = "Texts of one kind were recited" if len({kind for kind, _ in answers}) < 2 else "Kinds share no texts"
        return Claim(CLAIM, Outcome.undecidable, f"{words}.", needs="runs of two kinds of text (task.source.label)")
    premises = [
        Premise(
            answer.within >= texts,
            f"of {answer.words} with k = {answer.k}, {answer.within} of {len(answer.of_text)} texts are held at the "
            f"shortest length and not at the longest ({texts} are needed)",
            "texts that are shorter or longer (task.label_length), or more of them (task.source.row)",
        )
        for answer in answers.values()
    ]
    premises += [_levelled(answer, margin) for answer in answers.values()]
    evidence = _listed(of["information"])
    if not all(premise.met for premise in premises):
        return decided(CLAIM, None, evidence, premises=premises)
    same = for_all([_alike(ratio, margin, len(of["information"])) for ratio in of["information"]])
    if same.outcome is not Outcome.holds:
        return same
    return for_all([same, _lengths_differ(of["capacity"], margin)])


def _levelled(answer: _Answer, margin: float) -> Premise:
    """That bits have stopped rising with the length."""
    rise, of = answer.rise, f"bits of {answer.words} with k = {answer.k}"
    words, high = f"{of} are not known of two lengths", None
    if rise is not None:
        high = rise.high
        words = f"{of} change by {rise.value:+.0%}{_ends_in_percent(rise)} from {answer.lengths[-2]} tokens to "
        words += f"{answer.lengths[-1]} (certainly less than {margin:.0%} is needed)"
    return Premise(high is not None and high < margin, words, "longer texts, whose bits rise no more")


def _listed(ratios: Sequence[_Ratio]) -> str:
    """As a sentence."""
    words = "; ".join(_words(ratio) for ratio in ratios)
    return f"{words[:1].upper()}{words[1:]}."


def _alike(ratio: _Ratio, margin: float, tests: int) -> Claim:
    """That two kinds' information is the same: it fails adjusted for the pairs that are asked about."""
    low, high = ratio.size_at(1 - LEVEL / tests)[0], ratio.size_at(1 - LEVEL)[1]
    limit, needs = log(1 + margin), "more texts (task.source.row)"
    return decided(CLAIM, (low, high), _listed([ratio]), threshold=limit, below=True, needs=needs)


def _lengths_differ(ratios: Sequence[_Ratio], margin: float) -> Claim:
    """That some two kinds' lengths differ by more than the margin: one of several, so adjusted for their number."""
    limit, tests = log(1 + margin), max(len(ratios), 1)
    evidence = _listed(ratios)
    if any(ratio.size_at(1 - LEVEL / tests)[0] > limit for ratio in ratios):
        return Claim(CLAIM, Outcome.holds, evidence)
    if ratios and all(ratio.size_at(1 - LEVEL)[1] < limit for ratio in ratios):
        return Claim(CLAIM, Outcome.fails, f"The lengths are the same too: {evidence}")
    needs = "lengths that lie closer (task.label_length) or more texts (task.source.row)"
    return Claim(CLAIM, Outcome.undecidable, evidence, needs=needs)


def _words(ratio: _Ratio) -> str:
    low, high = np.exp(ratio.at(1 - LEVEL))
    one, other = (kind.replace("_", " ") for kind in ratio.pair)
    what = {"information": "bits", "capacity": "tokens"}[ratio.of]
    vectors = "a vector holds" if ratio.k == 1 else f"{ratio.k} vectors hold"
    return (
        f"of {one} {vectors} {np.exp(ratio.log):.2f} ({low:.2f} to {high:.2f}) times the {what} of {other} "
        f"(n = {ratio.texts} texts)"
    )


# Figures.


def _figure(answers: dict[tuple[str, int], _Answer]) -> str:
    """A and information against length, a column per k; points are texts."""
    sizes, kinds = _sizes(answers), list(dict.fromkeys(kind for kind, _ in answers))
    lengths = sorted({length for answer in answers.values() for length in answer.lengths})
    options = {"sharex": True, "sharey": "row"}
    with panels(2, len(sizes), width=max(3.0 * len(sizes), 4.5), height=2.5, **options) as (figure, axes):
        for column, k in enumerate(sizes):
            for i, kind in enumerate(kind for kind in kinds if (kind, k) in answers):
                answer = answers[kind, k]
                at = np.array([lengths.index(length) for length in answer.lengths]) + 0.22 * (i - (len(kinds) - 1) / 2)
                look: dict[str, Any] = {
                    "color": COLOURS[kinds.index(kind) % len(COLOURS)],
                    "linestyle": "-",
                    "across": 0.14,
                }
                own = [answer.at(length) for length in answer.lengths]
                label = answer.words
                right_N = [np.array([point.right for point in points]) for points in own]
                estimates(axes[0, column], at, list(answer.right.values()), right_N, label=label, **look)
                bits_N = [np.array([point.bits / k for point in points]) for points in own]
                estimates(axes[1, column], at, list(answer.bits.values()), bits_N, label=label, **look)
            axes[0, column].axhline(HELD, color=NEUTRAL, linewidth=0.6, linestyle=":")
            axes[0, column].set(title=f"k = {k} vector{'s' if k > 1 else ''}", xticks=range(len(lengths)))
            axes[1, column].set(xlabel="length of the text, tokens")
            named = -(-len(lengths) // 8)  # of many lengths the names would lie on each other
            axes[1, column].set_xticklabels([str(n) if i % named == 0 else "" for i, n in enumerate(lengths)])
        axes[0, 0].set_ylabel("share of tokens right")
        axes[1, 0].set_ylabel("information, bits per vector")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        seen = "How much of the text that they were trained on vectors recite, and how many bits of it they hold; 95 % "
        return svg(figure, f"{seen}intervals over texts; faint: single texts (dotted: {HELD}, held)")


def _losses(answers: dict[tuple[str, int], _Answer]) -> str | None:
    """Loss against step of the shortest texts that are not held, a panel per k; None where all are held."""
    failures = {key: points for key, answer in answers.items() if (points := _first_failures(answer.of_text))}
    if not failures:
        return None
    sizes, kinds = sorted({k for _, k in failures}), list(dict.fromkeys(kind for kind, _ in answers))
    options = {"width": max(3.0 * len(sizes), 4.5), "height": 2.6, "sharey": True}
    with panels(1, len(sizes), **options) as (figure, axes):
        for column, k in enumerate(sizes):
            for kind in (kind for kind in kinds if (kind, k) in failures):
                curves = pd.concat([_curve(point).assign(text=point.text) for point in failures[kind, k]])
                colour = COLOURS[kinds.index(kind) % len(COLOURS)]
                words = kind.replace("_", " ")
                mean_line(axes[0, column], curves, "step", "loss", "text", color=colour, label=words)
            axes[0, column].set(title=f"k = {k} vector{'s' if k > 1 else ''}", xlabel="step")
        axes[0, 0].set_ylabel("loss, nats per token")
        of_axes = [axis.get_legend_handles_labels() for axis in axes[0]]
        handles = {label: handle for those in of_axes for handle, label in zip(*those, strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8)
        seen = "Loss over training of the shortest part of each text that is not held: mean over texts; faint: texts"
        return svg(figure, seen)
