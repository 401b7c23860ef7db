"""Result: what an analysis says, in tables, figures and sentences; and where it is kept.

A *number* has a name that a study's published number can have too (`table1.cat`), so that both stand side by side.
A *finding* is one sentence with its evidence. A *claim* is a statement of a study, tested here.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from promptgeo.run_folder import write_atomically

NUMBERS = ["of", "convention", "quantity", "value", "low", "high", "p", "n", "unit"]


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


@dataclass(frozen=True)
class Claim:
    """A statement that a study makes. The study's file gives its words and place by the same name."""

    name: str
    holds: bool
    evidence: str
    """What was found instead, or what supports it: one sentence with numbers."""


@dataclass
class Result:
    """What an analysis found."""

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


@dataclass(frozen=True)
class Stored:
    """An analysis's results as they lie in a folder: the results of all its conventions together."""

    name: str
    info: dict[str, Any]
    """result.json: key, options, runs, claims, omissions, findings; each finding and claim says of what and by which convention."""
    numbers: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    figures: dict[str, str]


def digest(*what: Any) -> str:
    """SHA-256 of plain data: tells whether an analysis was made of the same runs with the same options."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def store(folder: Path, name: str, key: str, info: dict[str, Any], results: Sequence[tuple[dict[str, str], Result]]) -> Stored:
    """Write the results of one analysis, each with {"of": ..., "convention": ...} where it has them.

    The folder is replaced as a whole: whatever fails or is stopped on the way, the earlier results lie there as before.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    if old.exists() and not folder.exists():  # a process was killed between the two renames
        old.rename(folder)
    for rest in (new, old):
        shutil.rmtree(rest, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        _write(new, name, key, info, results)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return read(folder)


def _write(folder: Path, name: str, key: str, info: dict[str, Any], results: Sequence[tuple[dict[str, str], Result]]) -> None:
    rows, findings, claims, omissions = [], [], [], []
    for variant, result in results:
        prefix = "_".join(variant.values())
        prefix = f"{prefix}_" if prefix else ""
        rows += [variant | asdict(number) for number in result.numbers]
        for table, frame in result.tables.items():
            write_atomically(folder / f"{prefix}{table}.csv", frame.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())
        for figure, svg in result.figures.items():
            write_atomically(folder / f"{prefix}{figure}.svg", svg.encode())
        findings += [variant | _plain(asdict(f)) for f in result.findings]
        claims += [variant | asdict(c) for c in result.claims]
        omissions += [o for o in result.omissions if o not in omissions]
    numbers = pd.DataFrame(rows, columns=NUMBERS)
    write_atomically(folder / "numbers.csv", numbers.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())
    whole = info | {"analysis": name, "key": key, "findings": findings, "claims": claims, "omissions": omissions}
    write_atomically(folder / "result.json", (json.dumps(whole, indent=1, ensure_ascii=False, default=str) + "\n").encode())


def read(folder: Path) -> Stored:
    """What lies in an analysis's folder. Raises FileNotFoundError where none was finished."""
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


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
