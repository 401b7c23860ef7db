"""What does an analysis say, in numbers, tables, figures and sentences; and how does it lie in a folder?

A *number* has a name that a study's published number can have too (`table1.cat`), so that both stand side by side.
A *finding* is one sentence with its evidence. A *claim* is a statement of a study, tested here.
"""

import csv
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from promptgeo.config.paths import require_short
from promptgeo.errors import UserError
from promptgeo.runs.folder import discard, own_digest, read_bounded, set_aside, write_atomically

log = logging.getLogger(__name__)
INFO, NUMBERS = "result.json", "numbers.csv"
NUMBER_COLUMNS = ["group", "of", "convention", "quantity", "value", "low", "high", "p", "n", "unit"]
"""Of numbers.csv."""
LONGEST_NAME = 200
"""Bytes that the name of a result's file may have: what it was made for, at most 100 of each, and what it is."""


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
    quantity: str = ""
    """The result's number that it is about, which one that is not decidable may lack; empty where there are several."""

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
    pages: dict[str, str] = field(default_factory=dict)
    """HTML texts by name, each a page that needs nothing else."""
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
    pages: dict[str, str] = field(default_factory=dict)

    def variant(self, stem: str) -> dict[str, str]:
        """Of a table, figure or page: its name, and the `of`, `convention` and `group` that it was made for."""
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
    Earlier results that are damaged are kept as <folder>.damaged, which is logged.

    Args:
        folder: where the results go.
        name: of the analysis.
        key: what says, in result.json, of which runs, options and code these are the results.
        info: what result.json holds beside findings, claims and omissions.
        results: each result with {"of": ..., "convention": ..., "group": ...}, where it was made for them.

    Raises UserError where something lies in the folder that promptgeo did not write.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    if old.is_dir() and not old.is_symlink() and not os.path.lexists(folder):
        old.rename(folder)  # a process was killed between the two renames
    check_replaceable(folder)
    damaged = _is_damaged(folder)
    for rest in (new, old):
        discard(rest)
    try:
        new.mkdir(parents=True)
        _write(new, name, key, info, results)
        if folder.exists():
            old = set_aside(folder) if damaged else folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        discard(new)
        raise
    if damaged:
        log.warning("%s: the damaged results are kept as %s", name, old)
    else:
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
    contents: dict[str, bytes] = {}
    for variant, result in results:
        prefix = "".join(f"{_file_name(str(value))}_" for value in variant.values())
        stems: dict[str, str] = {}
        tables = {table: frame for table, frame in result.tables.items() if len(frame.columns)}  # else it is no CSV
        for stem in dict.fromkeys([*tables, *result.figures, *result.pages]):
            stems[stem] = _free(f"{prefix}{stem}", files)
            files[stems[stem]] = {**variant, "name": stem}
        contents |= {f"{stems[table]}.csv": _csv(frame) for table, frame in tables.items()}
        contents |= {f"{stems[figure]}.svg": _bytes(svg) for figure, svg in result.figures.items()}
        contents |= {f"{stems[page]}.html": _bytes(html) for page, html in result.pages.items()}
        numbers += [{**variant, **asdict(number)} for number in result.numbers]
        findings += [{**variant, **_finite(asdict(finding))} for finding in result.findings]
        claims += [{**variant, **asdict(claim)} for claim in result.claims]
        omissions += [omission for omission in result.omissions if omission not in omissions]
    contents[NUMBERS] = _csv(pd.DataFrame(numbers, columns=NUMBER_COLUMNS))
    for file, content in contents.items():
        write_atomically(folder / file, content)
    checksums = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    made = {"findings": findings, "claims": claims, "omissions": omissions, "files": files, "checksums": checksums}
    whole = json.loads(json.dumps(info | {"analysis": name, "key": key} | made, default=str))  # as it is read again
    text = json.dumps(whole | {"sha256": own_digest(whole)}, indent=1, ensure_ascii=False)
    write_atomically(folder / INFO, _bytes(f"{text}\n"))


def _free(stem: str, taken: Container[str]) -> str:
    """The stem of a file's name, numbered where another has it: long names are cut, and some characters left out."""
    stems = itertools.chain([stem], (f"{stem}-{k}" for k in itertools.count(2)))
    return next(free for free in stems if free not in taken and f"{free}.csv" != NUMBERS)


def _file_name(group: str) -> str:
    """lr = 0.1, training.epochs = 4 -> lr=0.1-training.epochs=4, whatever else a value holds; at most 100 bytes."""
    name = re.sub(r"[^\w.=]+", "-", group.replace(" = ", "=")).strip("-")
    return name.encode()[:100].decode(errors="ignore")


def _bytes(text: str) -> bytes:
    """In UTF-8. Half a character, as in some folders' names, is written as \\udcff, which JSON reads as it was."""
    return text.encode(errors="backslashreplace")


def _csv(frame: pd.DataFrame) -> bytes:
    """A text is written as it is, also where a spreadsheet would take it for a formula; docs/run_folder.md says why."""
    returns = any(isinstance(cell, str) and "\r" in cell for cell in frame.select_dtypes(exclude="number").values.flat)
    # Unquoted, a carriage return would end the row for who reads it.
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    text: str = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n", quoting=quoting)
    return _bytes(text)


def _read_csv(content: bytes) -> pd.DataFrame:
    """A token `NA` or `null` is a text; an empty cell is nothing; a table without columns has no row either."""
    if not content.strip():
        return pd.DataFrame()
    return pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])


class DamagedResult(UserError):
    """An analysis's folder whose files are missing, unreadable or not what result.json says."""


def read(folder: Path) -> Stored:
    """What lies in an analysis's folder, every file with the SHA-256 that result.json gives.

    Raises FileNotFoundError where no results do, DamagedResult, which names the file, where one is missing, cannot be
    read or was changed. Results of before there were checksums are read as they are.
    """
    info = _info(folder)
    contents: dict[str, bytes] = {}
    for file, checksum in sorted(_files(folder, info).items()):
        path = folder / file
        if os.path.exists(path) and not path.is_file():  # a pipe would wait for its other end
            raise DamagedResult(f"{path}: is not a file")
        try:
            contents[file] = path.read_bytes()
        except FileNotFoundError as error:
            raise DamagedResult(f"{path}: is missing") from error
        except OSError as error:
            raise DamagedResult(f"{path}: cannot be read ({error.strerror})") from error
        if checksum is not None and hashlib.sha256(contents[file]).hexdigest() != checksum:
            raise DamagedResult(f"{path}: its SHA-256 is not the one in {INFO}: the file was changed or damaged")
    try:
        frames = {file: _read_csv(x) for file, x in contents.items() if file.endswith(".csv")}
        figures, pages = (
            {Path(file).stem: x.decode() for file, x in contents.items() if file.endswith(end)}
            for end in (".svg", ".html")
        )
    except ValueError as error:  # pandas' errors of parsing too, and UnicodeDecodeError
        raise DamagedResult(f"{folder}: its tables and figures cannot be read ({error})") from error
    if (numbers := frames.pop(NUMBERS, None)) is None:
        raise DamagedResult(f"{folder / INFO}: lists no {NUMBERS}")
    tables = {Path(file).stem: frame for file, frame in frames.items()}
    return Stored(info["analysis"], info, numbers, tables, figures, pages)


def check_replaceable(folder: Path) -> None:
    """Raises UserError where something lies in an analysis's folder that promptgeo did not write: it would be lost.

    Results whose result.json is damaged may be anybody's, but are kept when new ones are written.
    """
    require_short(folder.with_name(f".{folder.name}.new") / f".{'x' * LONGEST_NAME}.tmp", f"out={folder.parent}"[:80])
    for place in (folder.parent, *folder.parent.parents):
        if os.path.lexists(place) and not os.path.isdir(place):
            what = "link to nothing" if os.path.islink(place) else "file"
            raise UserError(f"out={folder.parent}: {place} is a {what}; name a folder")
    if os.path.islink(folder) or (os.path.lexists(folder) and not folder.is_dir()):
        what = "a link, which would be replaced" if os.path.islink(folder) else "no folder"
        raise UserError(f"{folder}: is {what}; choose another place with out=<folder>, or move it away")
    if not folder.is_dir():
        return
    own: set[str] = set()
    try:
        own = {INFO, *_files(folder, _info(folder))}
    except FileNotFoundError:
        pass
    except DamagedResult:
        return
    if others := sorted(path.name for path in folder.iterdir() if path.name not in own):
        raise UserError(
            f"{folder}: holds {others[0]}, which no result.json there lists; it would be overwritten; "
            "choose another place with out=<folder>, or move it away"
        )


def _is_damaged(folder: Path) -> bool:
    try:
        read(folder)
    except DamagedResult:
        return True
    except FileNotFoundError:
        return False
    return False


def _info(folder: Path) -> dict[str, Any]:
    """result.json. Raises FileNotFoundError where there is none that an analysis wrote, DamagedResult."""
    path = folder / INFO
    try:
        info = json.loads(read_bounded(path).decode())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedResult(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(info, dict):
        raise FileNotFoundError(f"{path}: is no analysis's")
    own = own_digest(info)
    whole = info.get("sha256", None if "checksums" in info else own) == own
    present = sum(isinstance(info.get(name), kind) for name, kind in _FIELDS.items())
    # A byte that changed in the name of a field is damage: what is left says whose the file is.
    if present < len(_FIELDS) and (whole or 2 * present < len(_FIELDS)):
        raise FileNotFoundError(f"{path}: is no analysis's")
    if not whole:
        raise DamagedResult(f"{path}: its SHA-256 is not the one it gives: the file was changed or damaged")
    return info


_FIELDS = {"analysis": str, "key": str, "findings": list, "claims": list, "omissions": list, "files": dict}


def _files(folder: Path, info: dict[str, Any]) -> dict[str, str | None]:
    """The files beside result.json, each with its SHA-256; None in results of before there were checksums."""
    if isinstance(info.get("checksums"), dict):
        return dict(info["checksums"])
    made = [
        [f"{stem}{end}" for end in (".csv", ".svg") if (folder / f"{stem}{end}").exists()] for stem in info["files"]
    ]
    missing = [f"{stem}.csv" for stem, files in zip(info["files"], made, strict=True) if not files]
    return dict.fromkeys([NUMBERS, *itertools.chain(*made), *missing])


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: None stands for them."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
