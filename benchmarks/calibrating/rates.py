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
from calibrating.lines import CLAIMS, GEOMETRIC, RANGES, reason, test_of
from calibrating.scenarios import SCENARIOS
from promptgeo.analysis.resampling import clopper_pearson, holm
from promptgeo.analysis.result import Outcome

LEVEL = 0.05
MOST_WRONG = 0.07
"""Of a claim's draws, at most so many may say the wrong thing."""
LEAST_DRAWS = 20
"""A line that says something in fewer draws is not judged."""


@dataclass
class Rate:
    """How often one line was right or wrong in one scenario."""

    line: str
    scenario: str
    what: str
    """rejects, covers, falsely holds, falsely fails."""
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
        """wrong: too often; careful: less often than it says, which costs power and misleads nobody."""
        if self.adjusted >= LEVEL:
            return ""
        return "careful" if (self.rate > self.nominal) == (self.what == "covers") else "WRONG"

    def as_dict(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.count, self.draws)
        return asdict(self) | {"rate": self.rate, "low": low, "high": high, "side": self.side}


def rates(scenario: str, draws: Sequence[Sequence[Said]]) -> list[Rate]:
    """Every rate of one analysis's draws of a scenario."""
    by_line: dict[str, list[list[Said]]] = defaultdict(list)
    for said in draws:
        here: dict[str, list[Said]] = defaultdict(list)
        for one in said:
            here[one.line].append(one)
        for line, those in here.items():
            by_line[line].append(those)
    made = []
    for line, those in by_line.items():
        made += _of_line(line, scenario, those)
    return made


def _of_line(line: str, scenario: str, draws: list[list[Said]]) -> list[Rate]:
    """draws: the line's instances in each draw that has it."""
    one = draws[0][0]
    of = line.split(" | ")[1]
    if len(draws) < LEAST_DRAWS or reason(one.analysis, one.name, one.convention) is not None:
        return []
    chosen = [those[k % len(those)] for k, those in enumerate(draws)]
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


def as_table(ordered: Sequence[Rate], all_of_them: bool = False) -> str:
    """The rates that are not compatible with what is said, or all, one a line."""
    rows = [rate for rate in ordered if all_of_them or rate.side]
    widest = max((len(rate.line) for rate in rows), default=0)
    lines = [
        f"{rate.line:{widest}}  {rate.scenario:22}  {rate.what:13}  {rate.rate:6.1%} of {rate.draws:4d} "
        f"(says {rate.nominal:.0%}{' at most' if rate.exact else ''})  p {rate.adjusted:.1e}  {rate.side}"
        for rate in sorted(rows, key=lambda rate: (rate.side != "WRONG", rate.line, rate.scenario))
    ]
    return "\n".join(lines)
