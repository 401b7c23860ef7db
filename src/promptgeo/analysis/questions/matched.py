"""Does an answer depend on the learning rate? Study 3's questions at each rate, among prompts of equal accuracy.

A higher rate moves a prompt further, and how far it moved decides what its geometry says. So each number is given three
times, as `<quantity>.<among>.lr<rate>`: at the `end` of training, at `equal_accuracy`, and at `equal_distance` moved;
`<quantity>.<among>.change` is the number at the highest rate less that at the lowest.

Quantities: `accuracy`, `steps`, `moved` (||P - P0|| / ||P0||), `init_closer` (mean cosine distance of tokens of one
task and different inits less that of one init and different tasks), `r2.init`, `r2.task` (shares of variance), and of
prompts `distance_to_init` (cosine distance of a token to its own P0, so to its init word), `nearest` (to the nearest
vocabulary token), `nearest.own_init` (share of tokens whose nearest is their init word), `neighbours` (vocabulary
tokens within epsilon). n counts cells: a task and an init, with all its seeds.

Tables: `matched`, a row per chosen prompt; `answers`, study 3's claims asked at each rate.

Shapes: U units, K rates, G chosen prompts, P prompt tokens, d width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, decided
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, svg
from promptgeo.analysis.geometry.between_rates import Chosen, Statistic
from promptgeo.analysis.geometry.matching import Among, Matched, Points, matched_points, points_of
from promptgeo.analysis.geometry.tokens import require_levels
from promptgeo.analysis.geometry.variance import Inner, run_share, unit
from promptgeo.analysis.geometry.vocabulary import Vocabulary, init_words, require_width
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import assignments, holm, or_exact, sign_flips_needed
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

WHERE = {
    Among.end: "At the end of training",
    Among.accuracy: "Among prompts of equal accuracy",
    Among.distance: "Among prompts that moved equally far",
}
CHANGES = {
    "r2.init": "the init's share of the variance (R2)",
    "r2.task": "the task's share of the variance (R2)",
    "distance_to_init": "the cosine distance of a token to its init",
    "nearest": "the cosine distance to the nearest vocabulary token",
    "nearest.own_init": "the share of tokens whose nearest vocabulary token is their init word",
    "neighbours": "the number of vocabulary tokens around a token",
}
"""Quantities whose change among prompts of equal accuracy is told in a sentence, in words."""
SHOWN = 6
"""Trainings that are named where some are left out, at most: as many as one reads."""
SHARES = ("r2.init", "r2.task", "nearest.own_init")
NEVER_NEGATIVE = ("moved", "distance_to_init", "nearest", "neighbours")


@question(of=True, vocabulary=True, claims=("answer_depends_on_rate",), factors=("lr", "training"))
def matched(
    runs: RunTable,
    *,
    of: Of = Of.prompt,
    vocabulary: Vocabulary,
    tolerance: float = 0.05,
    distance_tolerance: float = 0.2,
    margin: float = 0.05,
    epsilon: float = 0.7,
    permutations: int = 2000,
    seed: int = 0,
) -> Result:
    """Asks study 3's questions at each learning rate, and whether the answers change from the lowest to the highest.

    Points to choose from: each run's final prompt, and its checkpoints where the schedule is constant. What is compared
    are cells that have a point at every rate. Intervals leave out whole cells (jackknife); p of a change is exact: the
    two rates of whole cells swapped. They speak of these tasks and inits. The claim `answer_depends_on_rate`: among
    prompts of equal accuracy, init_closer changes by more than `margin`.

    Args:
        tolerance: the largest difference from the accuracy that all rates of a cell reach.
        distance_tolerance: likewise of the distance moved, as a share of it.
        margin: the largest change of init_closer, in cosine distance, that counts as none.
        epsilon: cosine distance within which a vocabulary token is a neighbour.
        permutations: of rates where there are too many swaps to go through, and of whole cells for the shares' p.
        seed: of both.

    Raises UserError for fewer than two inits, tasks or rates, without P0, or where prompts differ in shape.
    """
    for name, value in (("tolerance", tolerance), ("distance_tolerance", distance_tolerance), ("margin", margin)):
        if not 0 <= value < float("inf"):
            raise UserError(f"matched: {name}={value:g}: must be 0 or more")
    if not 0 < epsilon <= 2:
        raise UserError(f"matched: epsilon={epsilon:g}: a cosine distance above 0, at most 2, is needed")
    require_levels(runs, {"init": 2, "task": 2}, "matched")
    points = points_of(runs)
    if len(points.rates) < 2:
        raise UserError("matched: needs runs of at least 2 learning rates (-m optimizer.lr_in_embedding_units=.1,.3,1)")
    result, answers, rows = Result(), [], []
    settings = _Settings(of, margin, epsilon, permutations, seed)
    compared: dict[Among, _Compared] = {}
    for among in Among:
        chosen = matched_points(points, among, distance_tolerance if among is Among.distance else tolerance)
        _tell_left_out(chosen, among, result)
        if len(chosen.chosen_UK):
            compared[among] = each = _Compared.of(runs, points, chosen, among, vocabulary, settings)
            answers += each.report(result)
            rows.append(each.rows)
    if not compared:
        raise UserError("matched: no task, init and seed was trained at every learning rate of these runs")
    _tell(compared, points, settings, result)
    if of == Of.prompt:
        result.claims.append(_claim(compared, points, settings))
    _tell_choice(points, result)
    result.tables["matched"] = pd.concat(rows, ignore_index=True)
    result.tables["answers"] = pd.DataFrame(answers)
    result.figures["rates"] = _figure(compared, points, of)
    return result


@dataclass(frozen=True)
class _Settings:
    of: Of
    margin: float
    epsilon: float
    permutations: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Compared:
    """The chosen points of one kind, and their numbers."""

    among: Among
    chosen: Chosen
    rates: list[float]
    statistics: dict[str, Statistic]
    rows: pd.DataFrame
    """Of the table `matched`: a row per chosen prompt, with its own values."""
    settings: _Settings
    at: dict[str, list[Number]]
    """quantity -> its number at each rate."""
    change: dict[str, Number]
    answers: list[Outcome]
    """What init_closer is at each rate."""

    @classmethod
    def of(
        cls,
        runs: RunTable,
        points: Points,
        chosen: Matched,
        among: Among,
        vocabulary: Vocabulary,
        settings: _Settings,
    ) -> "_Compared":
        order = chosen.chosen_UK.ravel()
        prompts = Chosen.of(points, chosen.chosen_UK, settings.of)
        table = points.table.iloc[order].reset_index(drop=True)
        values = {"accuracy": table["accuracy"], "steps": table["step"], "moved": table["moved"]}
        if settings.of == Of.prompt:
            values |= _per_prompt(runs, points, order, vocabulary, settings.epsilon)
        known = {name: np.asarray(of_G, dtype=np.float64) for name, of_G in values.items()}
        statistics = {name: prompts.mean(of_G) for name, of_G in known.items() if np.isfinite(of_G).all()}
        if prompts.crossed:
            statistics |= {"init_closer": prompts.init_closer()}
            statistics |= {f"r2.{factor}": prompts.share(factor) for factor in ("init", "task")}
        rows = pd.DataFrame({"among": among.value, **{c: table[c] for c in ("task", "init", "seed", "rate")}, **values})
        return cls(among, prompts, points.rates, statistics, rows, settings, {}, {}, [])

    @property
    def enough(self) -> bool:
        return self.chosen.cells >= sign_flips_needed()

    def report(self, result: Result) -> list[dict[str, Any]]:
        """Adds the numbers; returns the rows of the table `answers`."""
        s, n = self.settings, self.chosen.cells
        for name, statistic in self.statistics.items():
            self.at[name] = []
            for k, rate in enumerate(self.rates):
                value, interval = self.chosen.at(statistic, k)
                p = self._share_p(name, k)
                low, high = _within(interval, value, name, n)
                quantity = f"{name}.{self.among}.lr{rate:g}"
                self.at[name].append(result.number(quantity, value, n, "cells", low, high, p))
            value, interval, p = self.chosen.change(statistic, s.permutations, s.seed)
            low, high = interval or (None, None)
            if name in (*SHARES, "accuracy") and interval is not None:
                low, high = max(interval[0], -1.0), min(interval[1], 1.0)
            self.change[name] = result.number(f"{name}.{self.among}.change", value, n, "cells", low, high, p)
        return self._answers()

    def _share_p(self, name: str, k: int) -> float | None:
        """Of a share at one rate: whole cells permuted within the other factor; None where too few could be."""
        codes = {"r2.init": self.chosen.init_G, "r2.task": self.chosen.task_G}
        if name not in codes:
            return None
        members = self.chosen.members(k)
        (other,) = (codes_G[members] for key, codes_G in codes.items() if key != name)
        own = codes[name][members]
        if assignments(own, other) * LEVEL < 1:
            return None
        inner = Inner.of(self.chosen.vectors_GPd[members])
        return run_share(inner, own, other, self.settings.permutations, self.settings.seed).p

    def _answers(self) -> list[dict[str, Any]]:
        """Study 3's claims at each rate: does the init lie closer, does the init matter, does the task?"""
        rows = []
        for k, rate in enumerate(self.rates):
            for claim, name in (
                ("init_closer", "init_closer"),
                ("init_matters", "r2.init"),
                ("task_matters", "r2.task"),
            ):
                if name not in self.at:
                    continue
                number = self.at[name][k]
                outcome = self._outcome(number) if name == "init_closer" else _shown(number)
                if name == "init_closer":
                    self.answers.append(outcome)
                row: dict[str, Any] = {
                    "among": self.among.value,
                    "claim": claim,
                    "rate": rate,
                    "outcome": outcome.value,
                }
                rows.append(row | {"value": number.value, "low": number.low, "high": number.high, "p": number.p})
        return [row | {"cells": self.chosen.cells} for row in rows]

    def _outcome(self, number: Number) -> Outcome:
        """By its interval; too few cells say nothing."""
        interval = number.interval if number.low is not None and self.enough else None
        return decided("init_closer", interval, "").outcome

    def per_rate(self, name: str, signed: bool = False) -> str:
        """ "0.12 (0.10 to 0.14) at 0.1, 0.50 (...) at 0.3"."""
        sign = "+" if signed else ""
        return ", ".join(
            f"{number.value:{sign}.3g}{_range(number)} at {rate:g}"
            for number, rate in zip(self.at[name], self.rates, strict=True)
        )


def _per_prompt(
    runs: RunTable, points: Points, order: np.ndarray, vocabulary: Vocabulary, epsilon: float
) -> dict[str, np.ndarray]:
    """Means over the tokens of each chosen prompt [G]: what lies near it."""
    prompts_GPd = points.prompts_QPd[order].astype(np.float64)
    rows = points.table.iloc[order]
    unit_GPd = unit(prompts_GPd)
    cosines_GP = (unit_GPd * unit(points.initial_NPd[rows["run"]].astype(np.float64))).sum(2)
    shape = cosines_GP.shape
    unit_Kd = unit_GPd.reshape(-1, unit_GPd.shape[2]).astype(np.float32)
    require_width(vocabulary, unit_Kd)
    near = vocabulary.near(unit_Kd, [epsilon])
    values = {
        "distance_to_init": (1.0 - cosines_GP).mean(1),
        "nearest": near.distances_Kk[:, 0].reshape(shape).mean(1),
        "neighbours": near.counts_EK[0].reshape(shape).mean(1),
    }
    words = init_words(runs)
    if all(init in words for init in rows["init"]):
        texts_GP = np.array([vocabulary.tokens[i].strip() for i in near.nearest_Kk[:, 0]]).reshape(shape)
        own_G1 = np.array([words[init].strip() for init in rows["init"]])[:, None]
        values["nearest.own_init"] = (texts_GP == own_G1).mean(1)
    return values


def _within(
    interval: tuple[float, float] | None, value: float, name: str, cells: int
) -> tuple[float | None, float | None]:
    """Within what a quantity can be; of a share an exact one where all cells are alike; None for R2, which has a p."""
    if interval is None or name.startswith("r2."):
        return None, None
    low, high = interval
    if name not in (*SHARES, "accuracy"):
        return (max(low, 0.0) if name in NEVER_NEGATIVE else low), high
    return or_exact((max(low, 0.0), min(high, 1.0)), value, cells)


def _shown(number: Number) -> Outcome:
    """A small p shows it; a large one shows nothing."""
    return Outcome.holds if number.p is not None and number.p < LEVEL else Outcome.undecidable


# In words.


def _range(number: Number) -> str:
    return "" if number.low is None else f" ({number.low:.3g} to {number.high:.3g})"


def _evidence(number: Number, p: float | None = None) -> str:
    adjusted = "" if p is None else f", {p:.2g} by Holm over these quantities"
    return f"{number.value:+.3g}{_range(number)}, p = {number.p:.2g}{adjusted}; n = {number.n} cells"


def _unit(points: Points) -> str:
    return "times the embeddings' deviation" if points.in_units else "absolute"


def _tell(compared: dict[Among, _Compared], points: Points, settings: _Settings, result: Result) -> None:
    """The findings: how far each rate moved at equal accuracy, init against task, and what else changes."""
    equal = compared.get(Among.accuracy)
    if equal is not None and settings.of == Of.prompt:
        sentence = (
            f"Prompts of equal accuracy lie differently far from P0 by learning rate ({_unit(points)}): they moved by "
            f"{equal.per_rate('moved')} times the norm of P0, with accuracies {equal.per_rate('accuracy')} "
            f"(change of the distance {_evidence(equal.change['moved'])})."
        )
        if not equal.enough or (equal.change["moved"].p or 0) >= LEVEL:
            sentence = sentence.replace("lie differently far", "do not detectably lie differently far")
        result.findings.append(Finding.of(equal.change["moved"], sentence))
    for each in compared.values():
        if "init_closer" in each.change:
            result.findings.append(Finding.of(each.change["init_closer"], _init_closer_sentence(each)))
    if equal is not None:
        told = [name for name in CHANGES if name in equal.change and np.isfinite(equal.change[name].value)]
        adjusted = holm([equal.change[name].p or 1.0 for name in told])
        for name, p in zip(told, adjusted, strict=True):
            verdict = "changes with the rate" if p < LEVEL else "does not detectably change with the rate"
            if not equal.enough:
                verdict = f"may or may not change with the rate: {_too_few(equal)}"
            sentence = (
                f"{WHERE[Among.accuracy]}, {CHANGES[name]}{_whose(settings.of)} {verdict}: {equal.per_rate(name)} "
                f"(change {_evidence(equal.change[name], p)})."
            )
            result.findings.append(Finding.of(equal.change[name], sentence))


def _whose(of: Of) -> str:
    return "" if of == Of.prompt else " of what training added"


def _too_few(each: _Compared) -> str:
    return f"{each.chosen.cells} cells are too few for an exact test, {sign_flips_needed()} would do"


def _init_closer_sentence(each: _Compared) -> str:
    """Whether one init's tokens lie closer than one task's, at each rate, and whether that changes."""
    words = {Outcome.holds: "yes", Outcome.fails: "no, the task's do", Outcome.undecidable: "cannot be said"}
    answers = ", ".join(
        f"{words[outcome]} at {rate:g} ({number.value:+.3f}{_range(number)})"
        for outcome, rate, number in zip(each.answers, each.rates, each.at["init_closer"], strict=True)
    )
    margin = f"by more than {each.settings.margin:g}"
    turns = {Outcome.holds, Outcome.fails} <= set(each.answers)
    verdict = {
        Outcome.holds: "the answer turns round with the rate" if turns else "the difference depends on the rate",
        Outcome.fails: f"the difference does not depend on the rate {margin}",
        Outcome.undecidable: f"whether the difference depends on the rate {margin} cannot be said"
        + ("" if each.enough else f": {_too_few(each)}"),
    }[_dependence(each)]
    asked = "do tokens of one init lie closer than those of one task?"
    if each.settings.of == Of.delta:
        asked = "does what training added lie closer for tokens of one init than for those of one task?"
    change = each.change["init_closer"]  # its p is of no change at all, not of one within the margin
    return (
        f"{WHERE[each.among]}, of these inits and tasks: {asked} {answers[0].upper()}{answers[1:]}; {verdict} "
        f"(change {change.value:+.3g}{_range(change)}; n = {change.n} cells)."
    )


def _dependence(each: _Compared) -> Outcome:
    """Whether init_closer changes by more than the margin from the lowest to the highest rate."""
    return decided(
        "",
        _size(each.change["init_closer"]),
        "",
        threshold=each.settings.margin,
        p=each.change["init_closer"].p,
        premises=[] if each.enough else [Premise(False, "", "more cells")],
    ).outcome


def _size(change: Number) -> tuple[float, float] | None:
    """The interval of a change's size, whichever way it goes."""
    if change.low is None or change.high is None:
        return None
    ends = abs(change.low), abs(change.high)
    return (0.0 if change.low < 0 < change.high else min(ends)), max(ends)


def _claim(compared: dict[Among, _Compared], points: Points, settings: _Settings) -> Claim:
    """Whether init_closer depends on the rate, among prompts of equal accuracy."""
    name, needed, each = "answer_depends_on_rate", sign_flips_needed(), compared.get(Among.accuracy)
    if each is None or "init_closer" not in each.change:
        evidence = "Too few cells have prompts of equal accuracy at every rate to compare inits with tasks."
        return Claim(name, Outcome.undecidable, evidence, needs="checkpoints of equal accuracy at every rate")
    change = each.change["init_closer"]
    cells = f"{each.chosen.cells} cells have prompts of equal accuracy at every rate ({needed} are needed)"
    return decided(
        name,
        _size(change),
        _init_closer_sentence(each),
        threshold=settings.margin,
        p=change.p,
        premises=[Premise(each.enough, cells, f"{needed} cells with prompts of equal accuracy at every rate")],
        needs="more cells (tasks and inits)",
        quantity=change.quantity,
    )


def _tell_left_out(chosen: Matched, among: Among, result: Result) -> None:
    if chosen.left_out:
        more = len(chosen.left_out) - SHOWN
        shown = "; ".join(chosen.left_out[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        result.omissions.append(
            f"{WHERE[among]}: {len(chosen.left_out)} of {chosen.units} trainings (a task, init and seed at every rate) "
            f"are left out: {shown}."
        )


def _tell_choice(points: Points, result: Result) -> None:
    if points.split != "validation":
        result.omissions.append(
            f"Prompts of equal accuracy were chosen by their accuracy on {points.split} examples, for there are no "
            "validation examples (task.split.validation): these accuracies are part of the choice."
        )
    if points.finals_only:
        result.omissions.append(
            f"Of {points.finals_only} runs only the final prompt is compared: their rate depends on the number of "
            "steps (optimizer.schedule), so a checkpoint is not what a shorter training ends with."
        )


# Figure.


def _figure(compared: dict[Among, _Compared], points: Points, of: Of) -> str:
    """The answers against the rate, at the end, at equal accuracy and at equal distance."""
    titles = {
        "moved": "distance moved,\ntimes P0's norm",
        "distance_to_init": "cosine distance\nto the init",
        "init_closer": "init closer by,\ncosine distance",
    }
    titles |= {"r2.init": "R² of the init", "r2.task": "R² of the task"}
    shown = [name for name in titles if any(name in each.at for each in compared.values())]
    at = np.log10(points.rates)
    with panels(columns=len(shown), width=2.3 * len(shown), height=2.9, sharex=True) as (figure, axes):
        for axis, name in zip(axes[0], shown, strict=True):
            for k, (among, each) in enumerate(compared.items()):
                if name in each.at:
                    _draw(axis, at + 0.03 * (k - 1) * np.ptp(at), each, name, k, among)
            axis.set(ylabel=titles[name], xlabel=f"learning rate,\n{_unit(points)}")
            axis.set_xticks(at, [f"{rate:g}" for rate in points.rates])
            if name == "init_closer":
                axis.axhline(0, color=NEUTRAL, linewidth=0.8)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(compared), fontsize=8)
        whose = "prompts" if of == Of.prompt else "deltas"
        return svg(figure, f"Where {whose} of each learning rate lie, with 95 % intervals; faint: single runs")


def _draw(axis: Any, at: np.ndarray, each: _Compared, name: str, k: int, among: Among) -> None:
    """at: side by side, or the bars would hide each other."""
    behind = None
    if name in each.rows:
        behind = [each.rows.loc[each.rows["rate"] == rate, name].to_numpy(dtype=float) for rate in each.rates]
    style: dict[str, Any] = {"linestyle": "-", "label": among.value.replace("_", " ")}
    estimates(axis, at, each.at[name], behind, color=COLOURS[k], across=0.02 * float(np.ptp(at)), **style)
