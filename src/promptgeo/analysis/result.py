"""What does an analysis say, in numbers, tables, figures and sentences; and how does it lie in a folder?

A *number* has a name that a study's published number can have too (`table1.cat`), so that both stand side by side.
A *finding* is one sentence with its evidence. A *claim* is a statement of a study, tested here.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from promptgeo.runs.folder import discard, write_atomically

NUMBER_COLUMNS = ["group", "of", "convention", "quantity", "value", "low", "high", "p", "n", "unit"]
"""Of numbers.csv."""


@dataclass(frozen=True)
class Number:
    """One number with what it rests on."""

    quantity: str
    """Its name, which a study's published number can have too."""
    value: float
    n: int
    unit: str
    """What n counts: pairs, runs, test examples, ..."""
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    p: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high). Raises ValueError for a number without one."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self.quantity} has no interval")
        return self.low, self.high


@dataclass(frozen=True)
class Finding:
    """One sentence, generated from its numbers."""

    sentence: str
    estimate: float
    n: int
    unit: str
    """What n counts: pairs, runs, test examples, ..."""
    low: float | None = None
    high: float | None = None
    """95 % interval of the estimate."""
    p: float | None = None

    def __post_init__(self) -> None:
        if self.p is None and (self.low is None or self.high is None):
            raise ValueError(f"a finding needs an interval or a p: {self.sentence}")

    @classmethod
    def of(cls, number: Number, sentence: str) -> "Finding":
        """A sentence whose evidence is this number."""
        return cls(sentence, number.value, number.n, number.unit, number.low, number.high, number.p)


class Outcome(StrEnum):
    """What runs say of a claim."""

    holds = "holds"
    fails = "does not hold"
    undecidable = "not decidable"


@dataclass(frozen=True)
class Claim:
    """A statement that a study makes. The study's file gives its words and place by the same name."""

    name: str
    outcome: Outcome
    evidence: str
    """What supports it, or what holds instead: one sentence with numbers."""
    p: float | None = None
    """Of the test by which it holds: what is adjusted where a study makes several claims."""
    needs: str = ""
    """What would decide it, where it is not decidable: more runs, more examples, a control that can fail."""

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.undecidable) != bool(self.needs):
            raise ValueError(f"claim {self.name}: is {self.outcome}, but what it needs is {self.needs!r}")

    @property
    def holds(self) -> bool:
        return self.outcome is Outcome.holds


@dataclass
class Result:
    """What an analysis says of some runs."""

    numbers: list[Number] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Tidy tables by name, one row per observation."""
    figures: dict[str, str] = field(default_factory=dict)
    """SVG texts by name."""
    findings: list[Finding] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    omissions: list[str] = field(default_factory=list)
    """What these runs could not support, one sentence each."""

    def number(
        self,
        quantity: str,
        value: float,
        n: int,
        unit: str,
        low: float | None = None,
        high: float | None = None,
        p: float | None = None,
    ) -> Number:
        """Adds a number and returns it, for the findings, claims and figures that are made of it.

        n: how many of `unit` it rests on. low, high: 95 % interval.
        """
        self.numbers.append(Number(quantity, float(value), int(n), unit, low, high, p))
        return self.numbers[-1]

    def named(self, group: str) -> "Result":
        """The result with the name of the runs that it is of in every sentence and table; itself without a name."""
        if not group:
            return self
        return replace(
            self,
            tables={name: frame.assign(group=group)[["group", *frame]] for name, frame in self.tables.items()},
            findings=[replace(finding, sentence=f"{group}: {finding.sentence}") for finding in self.findings],
            claims=[replace(claim, evidence=f"{group}: {claim.evidence}") for claim in self.claims],
            omissions=[f"{group}: {omission}" for omission in self.omissions],
        )


@dataclass(frozen=True)
class Stored:
    """An analysis's results as they lie in a folder: those of prompts and deltas, of all conventions, together."""

    name: str
    info: dict[str, Any]
    """result.json: key, options, runs, claims, omissions, findings.

    Each finding and claim has the `of` and the `convention` that it was made for.
    """
    numbers: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    figures: dict[str, str]

    def variant(self, stem: str) -> dict[str, str]:
        """Of a table or figure: its name, and the `of`, `convention` and `group` that it was made for."""
        made_for: dict[str, str] = self.info["files"].get(stem, {"name": stem})
        return made_for


def digest(*what: Any) -> str:
    """SHA-256 of plain data. The key of stored results: the same for the same runs, options and code."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def store(
    folder: Path,
    name: str,
    key: str,
    info: dict[str, Any],
    results: Sequence[tuple[Mapping[str, str], Result]],
) -> Stored:
    """Write the results of one analysis and read them back.

    The folder is replaced as a whole: whatever fails or is stopped on the way, the earlier results lie there as before.

    Args:
        folder: where the results go.
        name: of the analysis.
        key: what stored_key returns from now on.
        info: what result.json holds beside findings, claims and omissions.
        results: each result with {"of": ..., "convention": ..., "group": ...}, where it was made for them.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    if old.exists() and not folder.exists():  # a process was killed between the two renames
        old.rename(folder)
    for rest in (new, old):
        discard(rest)
    try:
        new.mkdir(parents=True)
        _write(new, name, key, info, results)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        discard(new)
        raise
    discard(old)
    return read(folder)


def _write(
    folder: Path,
    name: str,
    key: str,
    info: dict[str, Any],
    results: Sequence[tuple[Mapping[str, str], Result]],
) -> None:
    numbers: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    omissions: list[str] = []
    files: dict[str, dict[str, str]] = {}
    for variant, result in results:
        prefix = "".join(f"{_file_name(str(value))}_" for value in variant.values())
        files |= {f"{prefix}{made}": {**variant, "name": made} for made in (*result.tables, *result.figures)}
        for table, frame in result.tables.items():
            write_atomically(folder / f"{prefix}{table}.csv", _csv(frame))
        for figure, svg in result.figures.items():
            write_atomically(folder / f"{prefix}{figure}.svg", svg.encode())
        numbers += [{**variant, **asdict(number)} for number in result.numbers]
        findings += [{**variant, **_finite(asdict(finding))} for finding in result.findings]
        claims += [{**variant, **asdict(claim)} for claim in result.claims]
        omissions += [omission for omission in result.omissions if omission not in omissions]
    write_atomically(folder / "numbers.csv", _csv(pd.DataFrame(numbers, columns=NUMBER_COLUMNS)))
    made = {"findings": findings, "claims": claims, "omissions": omissions, "files": files}
    whole = info | {"analysis": name, "key": key} | made
    text = json.dumps(whole, indent=1, ensure_ascii=False, default=str)
    write_atomically(folder / "result.json", f"{text}\n".encode())


def _file_name(group: str) -> str:
    """lr = 0.1, training.epochs = 4 -> lr=0.1-training.epochs=4, whatever else a value holds."""
    return re.sub(r"[^\w.=]+", "-", group.replace(" = ", "=")).strip("-")[:100]


def _csv(frame: pd.DataFrame) -> bytes:
    text: str = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return text.encode()


def read(folder: Path) -> Stored:
    """What lies in an analysis's folder. Raises FileNotFoundError where no results do."""
    info = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    tables = {p.stem: pd.read_csv(p) for p in sorted(folder.glob("*.csv")) if p.stem != "numbers"}
    figures = {p.stem: p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.svg"))}
    return Stored(info["analysis"], info, pd.read_csv(folder / "numbers.csv"), tables, figures)


def stored_key(folder: Path) -> str | None:
    """The key of the results that lie there; None where there are none."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError):
        return None


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: None stands for them."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
