"""How often is each line right, and is that compatible with what it says? Draws to rates, tested by Holm over all.

Of a line's instances (each task's, each pair's) one counts in each draw, in turn, so that draws are independent.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from calibrating.collecting import Said
from calibrating.lines import CLAIMS, GEOMETRIC, PLANTED, RANGES, reason, test_of
from calibrating.scenarios import SCENARIOS, Geometry
from promptgeo.analysis.resampling import clopper_pearson, holm
from promptgeo.analysis.result import Outcome

LEVEL = 0.05
MOST_WRONG = 0.07
"""Of a claim's draws, at most so many may say the wrong thing."""
LEAST_POWER = 0.8
"""An effect of the size that study 3 published should be found in so many of its draws."""
LEAST_DRAWS = 20
"""A line that says something in fewer draws is not judged."""


@dataclass
class Rate:
    """How often one line was right or wrong in one scenario."""

    line: str
    scenario: str
    what: str
    """rejects, covers, falsely holds, falsely fails; of effects that are there: finds."""
    count: int
    draws: int
    nominal: float
    exact: bool
    """A test that may reject less often than it says."""
    p: float
    """Binomial, of the nominal rate: two-sided; of more than it, where less is no fault."""
    adjusted: float = 1.0
    """By Holm over all rates."""

    @property
    def rate(self) -> float:
        return self.count / self.draws

    @property
    def side(self) -> str:
        """wrong: too often; careful: less often than it says, which costs power and misleads nobody.

        weak: an effect that is there is found too seldom.
        """
        if self.what == "finds":
            return "weak" if self.rate < LEAST_POWER else ""
        if self.adjusted >= LEVEL:
            return ""
        return "careful" if (self.rate > self.nominal) == (self.what == "covers") else "WRONG"

    def as_dict(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.count, self.draws)
        return asdict(self) | {"rate": self.rate, "low": low, "high": high, "side": self.side}


def rates(scenario: str, draws: Sequence[Sequence[Said]]) -> list[Rate]:
    """Every rate of one analysis's draws of a scenario."""
    return [rate for line, those in _by_line(draws).items() for rate in _of_line(line, scenario, those)]


def powers(scenario: str, draws: Sequence[Sequence[Said]]) -> list[Rate]:
    """How often what is there is found, in scenarios with planted effects: claims that are true and p of effects.

    Of skills claims alone: which kinds of prompts differ is not known beforehand.
    """
    if scenario not in PLANTED:
        return []
    made = []
    for line, those in _by_line(draws).items():
        chosen, (one, of) = _in_turn(those), (those[0][0], line.split(" | ")[1])
        truth, test = CLAIMS.get(one.name), test_of(one.analysis, one.name)
        if reason(one.analysis, one.name, one.convention) is not None or len(those) < LEAST_DRAWS:
            continue
        if one.kind == "claim" and truth is not None and truth(SCENARIOS[scenario], of):
            found_D = [said.outcome == Outcome.holds for said in chosen]
        elif one.kind == "number" and test is not None and test.planted and isinstance(SCENARIOS[scenario], Geometry):
            p_D = [said.p for said in chosen if said.p is not None]
            there = test.effect not in SCENARIOS[scenario].absent(of)
            found_D = [p <= LEVEL for p in p_D] if there else []
        else:
            found_D = []
        if len(found_D) >= LEAST_DRAWS:
            p = binomtest(sum(found_D), len(found_D), LEAST_POWER, alternative="less").pvalue
            made.append(Rate(line, scenario, "finds", sum(found_D), len(found_D), LEAST_POWER, True, float(p)))
    return made


def _by_line(draws: Sequence[Sequence[Said]]) -> dict[str, list[list[Said]]]:
    """Line -> its instances in each draw that has it."""
    by_line: dict[str, list[list[Said]]] = defaultdict(list)
    for said in draws:
        here: dict[str, list[Said]] = defaultdict(list)
        for one in said:
            here[one.line].append(one)
        for line, those in here.items():
            by_line[line].append(those)
    return by_line


def _in_turn(draws: list[list[Said]]) -> list[Said]:
    """One instance of each draw."""
    return [those[k % len(those)] for k, those in enumerate(draws)]


def _of_line(line: str, scenario: str, draws: list[list[Said]]) -> list[Rate]:
    """draws: the line's instances in each draw that has it."""
    one = draws[0][0]
    of = line.split(" | ")[1]
    if len(draws) < LEAST_DRAWS or reason(one.analysis, one.name, one.convention) is not None:
        return []
    chosen = _in_turn(draws)
    if one.kind == "claim":
        return _of_claim(line, scenario, of, chosen)
    made = []
    test = test_of(one.analysis, one.name)
    p_D = [said.p for said in chosen if said.p is not None and np.isfinite(said.p)]
    if test is not None and test.effect in SCENARIOS[scenario].absent(of) and len(p_D) >= LEAST_DRAWS:
        made.append(_rate(line, scenario, "rejects", sum(p <= LEVEL for p in p_D), len(p_D), LEVEL, test.exact))
    covered_D = [] if re.fullmatch(RANGES, one.name) else _covered(draws, chosen)
    if len(covered_D) >= LEAST_DRAWS:
        made.append(_rate(line, scenario, "covers", sum(covered_D), len(covered_D), 1 - LEVEL, False))
    return made


def _covered(draws: list[list[Said]], chosen: list[Said]) -> list[bool]:
    """Whether each draw's interval holds its number's mean over all draws; numbers that do not vary are left out."""
    values: dict[str, list[float]] = defaultdict(list)
    for said in (said for those in draws for said in those):
        if said.value is not None and np.isfinite(said.value):
            values[said.raw].append(said.value)
    one = draws[0][0]
    scale, back = (np.log, np.exp) if re.fullmatch(GEOMETRIC, f"{one.analysis} | {one.name}") else (np.array, float)
    truths = {raw: float(back(scale(those).mean())) for raw, those in values.items() if np.ptp(those) > 1e-9}
    return [
        bool(said.low <= truths[said.raw] <= said.high)
        for said in chosen
        if said.low is not None and said.high is not None and said.raw in truths
    ]


def _of_claim(line: str, scenario: str, of: str, chosen: list[Said]) -> list[Rate]:
    truth = CLAIMS.get(chosen[0].name)
    true = truth(SCENARIOS[scenario], of) if truth else None
    if true is None:
        return []
    what, wrong = ("falsely fails", Outcome.fails) if true else ("falsely holds", Outcome.holds)
    return [_rate(line, scenario, what, sum(s.outcome == wrong for s in chosen), len(chosen), LEVEL, True)]


def _rate(line: str, scenario: str, what: str, count: int, draws: int, nominal: float, exact: bool) -> Rate:
    p = binomtest(count, draws, nominal, alternative="greater" if exact else "two-sided").pvalue
    return Rate(line, scenario, what, int(count), draws, nominal, exact, float(p))


def adjusted(all_rates: Iterable[Rate]) -> list[Rate]:
    """With Holm's p over all of them, the least first."""
    ordered = sorted(all_rates, key=lambda rate: rate.p)
    for rate, p in zip(ordered, holm([rate.p for rate in ordered]), strict=True):
        rate.adjusted = float(p)
    return ordered


def _bound(rate: Rate) -> str:
    return " at least" if rate.what == "finds" else " at most" if rate.exact else ""


def as_table(ordered: Sequence[Rate], all_of_them: bool = False) -> str:
    """The rates that are not compatible with what is said, or all, one a line."""
    rows = [rate for rate in ordered if all_of_them or rate.side]
    widest = max((len(rate.line) for rate in rows), default=0)
    lines = [
        f"{rate.line:{widest}}  {rate.scenario:22}  {rate.what:13}  {rate.rate:6.1%} of {rate.draws:4d} "
        f"({'should' if rate.what == 'finds' else 'says'} {rate.nominal:.0%}{_bound(rate)})  p {rate.adjusted:.1e}  "
        f"{rate.side}"
        for rate in sorted(rows, key=lambda rate: (rate.side != "WRONG", rate.line, rate.scenario))
    ]
    return "\n".join(lines)
