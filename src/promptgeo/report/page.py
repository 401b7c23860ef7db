"""The page's parts, made from stored results, run folders and the study's file; page.html.j2 lays them out."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.report.inline import inline_svg
from promptgeo.report.study import Published, Study

if TYPE_CHECKING:
    from markupsafe import Markup

    from promptgeo.analysis.result import Stored
    from promptgeo.run_folder import Run

ROWS = 15
"""Of a list of numbers that nobody published, at most; the CSV has all."""
TABLE_ROWS = 6
"""Of a further table, at most."""
OF = {"": "", "prompt": "trained prompts", "delta": "what training added (delta = P - P0)"}
CONVENTION = {"": "", "paper": "as the paper counted", "corrected": "corrected"}


@dataclass(frozen=True)
class Material:
    """All that a report is made of. The same material gives the same bytes."""

    study: Study
    runs: "Sequence[Run]"
    """Those that were analysed."""
    stored: "Sequence[Stored]"
    """Results, in the study's order of analyses."""
    refused: dict[str, str] = field(default_factory=dict)
    """Analysis -> why these runs cannot support it."""
    left_out: Sequence[str] = ()
    """Runs that were not analysed, and why."""
    differences: dict[str, tuple[list, list]] = field(default_factory=dict)
    """Key -> values of these runs and of the study's; empty where they are the same."""
    command: str = ""
    training: Sequence[dict[str, Any]] = ()
    """{"runs": n, "seconds": s} of each time that something was trained."""


def render(material: Material) -> str:
    """The page as HTML text: no clock time, no address, nothing to load."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": shown, "evidence": evidence, "words": _words, "time": _time, "upper_first": _upper_first, "breakable": _breakable}
    verdicts = claims(material)
    return environment.get_template("page.html.j2").render(
        material=material,
        study=material.study,
        grid=grid(material.runs),
        findings=list(findings(material.stored)),
        fails=[v for v in verdicts if v.holds is False],
        holds=[v for v in verdicts if v.holds],
        untested=[v for v in verdicts if v.holds is None],
        analyses=[Section(stored, material.study) for stored in material.stored],
        unanswered=unanswered(material),
        omissions=list(omissions(material)),
    )


# What was run


def grid(runs: "Sequence[Run]") -> dict[str, Any]:
    """What the runs have in common and what they vary: name -> values, tasks with their data, versions."""
    configs = [run.info["config"] for run in runs]

    def each(*path: str, of: Sequence[dict] = configs) -> str:
        found = []
        for value in of:
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            found.append(value)
        return ", ".join(dict.fromkeys(shown(v) if isinstance(v, float) else str(v) for v in found if v is not None)) or "—"

    infos = [run.info for run in runs]
    facts = {
        "Runs": str(len(runs)),
        "Model": f"{each('model', 'name')} ({each('precision', of=infos)}, {each('device', of=infos)})",
        "Model's SHA-256": ", ".join(dict.fromkeys(_sha256(i, "model") for i in infos)),
        "Inits": each("init", "name"),
        "Tasks": each("task", "name"),
        "Seeds": each("seed"),
        "Prompt length": f"{each('prompt_length', of=[i['results'] for i in infos])} tokens",
        "Template": f"{each('template', 'name')}: " + ", ".join(dict.fromkeys(repr(c["template"].get("text", "")) for c in configs)),
        "Optimiser": f"{each('optimizer', 'name')}, learning rate {each('optimizer', 'lr')}, {each('optimizer', 'schedule')} schedule, weight decay {each('optimizer', 'weight_decay')}",
        "Training": f"{_length(configs)}, batch size {each('training', 'batch_size')}, dropout {'on' if 'True' in each('training', 'dropout') else 'off'}",
        "Versions": ", ".join(f"{name} {each('versions', name, of=infos)}" for name in dict.fromkeys(n for i in infos for n in i.get("versions", {}))),
    }
    return {"facts": facts, "tasks": [_task(task, [run for run in runs if run.info["config"]["task"]["name"] == task]) for task in dict.fromkeys(c["task"]["name"] for c in configs)]}


def _length(configs: Sequence[dict[str, Any]]) -> str:
    """How long the runs trained: max_steps, where it is given, decides instead of the epochs."""
    given = [c.get("training", {}) for c in configs]
    told = [f"{t['max_steps']} steps" if t.get("max_steps") else f"{t['epochs']} epochs" for t in given if "epochs" in t]
    return ", ".join(dict.fromkeys(told)) or "—"


def _task(name: str, runs: "Sequence[Run]") -> dict[str, str]:
    def each(values: Iterator[Any]) -> str:
        return ", ".join(dict.fromkeys(str(v) for v in values))

    infos = [run.info for run in runs]
    return {
        "task": name,
        "data": each((i["config"]["task"].get("source") or {}).get("kind", "—") for i in infos),
        "train": each(i.get("examples", {}).get("train", "—") for i in infos),
        "test": each(i.get("examples", {}).get("test", "—") for i in infos),
        "steps": each(i["results"]["steps"] for i in infos),
        "sha256": each(_sha256(i, "data") for i in infos),
    }


def _sha256(info: dict[str, Any], what: str) -> str:
    """Enough of a fingerprint to tell it from others."""
    return str(info.get("fingerprints", {}).get(what) or "—").removeprefix("sha256:")[:16]


# Findings and claims


def findings(stored: "Sequence[Stored]") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Heading -> findings with their analysis: the corrected ones, of prompts and of deltas apart."""
    told = [f | {"analysis": s.name} for s in stored for f in s.info["findings"] if f.get("convention", "corrected") == "corrected"]
    for of, heading in {"prompt": "Trained prompts", "delta": "What training added: delta = P - P0", "": "Training, and the model with these prompts"}.items():
        if chosen := [f for f in told if f.get("of", "") == of]:
            yield heading, chosen


@dataclass(frozen=True)
class Verdict:
    """A claim of the study beside what these runs say about it."""

    words: str
    place: str
    published: str
    holds: bool | None
    """By the corrected numbers of prompts; None where none tested it."""
    tests: list[dict[str, Any]]
    """Every answer: holds, evidence, analysis, variant (of what by which convention)."""


def claims(material: Material) -> list[Verdict]:
    """The study's claims in its order, then those that only an analysis knows."""
    told = [c | {"analysis": s.name, "variant": _of_what(c.get("of", ""), c.get("convention", ""))} for s in material.stored for c in s.info["claims"]]
    verdicts = []
    for name in dict.fromkeys([*material.study.claims, *(c["name"] for c in told)]):
        tests = sorted((c for c in told if c["name"] == name), key=lambda c: not _decides(c))
        deciding = [c["holds"] for c in tests if _decides(c)]
        claim = material.study.claims.get(name)
        words, place, published = (claim.words, claim.place, claim.published) if claim else (name, "", "")
        verdicts.append(Verdict(words, place, published, all(deciding) if deciding else None, tests))
    return verdicts


def _decides(claim: dict[str, Any]) -> bool:
    """A study's claims are about prompts; the corrected numbers decide."""
    return claim.get("convention", "corrected") == "corrected" and claim.get("of", "prompt") == "prompt"


def unanswered(material: Material) -> list[Published]:
    """Published numbers that no analysis gave on these runs."""
    ours = [q for s in material.stored for q in s.numbers.loc[s.numbers["of"].astype(object).fillna("prompt") == "prompt", "quantity"]]
    given = {published.quantity for q in ours if (published := material.study.published_for(q))}
    return [p for p in material.study.published.values() if p.quantity not in given]


def omissions(material: Material) -> Iterator[tuple[str, str]]:
    """Analysis -> what these runs could not support."""
    yield from material.refused.items()
    for stored in material.stored:
        for said in stored.info["omissions"]:
            yield stored.name, said


# One analysis


@dataclass(frozen=True)
class Row:
    """A quantity beside its published counterpart, by convention ("": it makes no difference)."""

    quantity: str
    published: Published | None
    ours: dict[str, dict[str, Any]]

    @property
    def stands_for(self) -> str:
        """The published quantity's name, where ours is of a task that stands for it."""
        return self.published.quantity if self.published and self.published.quantity != self.quantity else ""


@dataclass(frozen=True)
class Comparison:
    heading: str
    rows: list[Row]
    left_out: int
    """Numbers that only the CSV has."""
    has_published: bool
    note: str
    """Said where no number has a published counterpart."""
    by_convention: bool


@dataclass(frozen=True)
class Figure:
    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """What the page shows of one analysis."""

    stored: "Stored"
    study: Study

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def path(self) -> str:
        """Relative to the page."""
        return f"analysis/{self.name}"

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """A table for prompts, with what was published, and one for deltas."""
        import pandas as pd

        numbers = self.stored.numbers.astype(object).where(pd.notna(self.stored.numbers), None)
        numbers[["of", "convention"]] = numbers[["of", "convention"]].fillna("")
        return [_comparison(of, group.to_dict("records"), self.study) for of, group in numbers.groupby("of", sort=False)]

    @cached_property
    def figures(self) -> list[Figure]:
        """Those of one name beside each other, the corrected prompts' first."""
        by_name: dict[str, list[tuple[int, str, str]]] = {}
        for stem, svg in self.stored.figures.items():
            rank, name, variant = _variant(stem)
            by_name.setdefault(name, []).append((rank, variant, svg))
        figures = []
        for name, drawn in by_name.items():
            for rank, variant, svg in sorted(drawn):
                caption = f"{_words(self.name)}: {_words(name)}{variant}"
                figures.append(Figure(inline_svg(svg, f"{self.name}-{name}-{rank}", caption), caption))
        return figures

    @cached_property
    def tables(self) -> list[dict[str, Any]]:
        """The first rows of each table, as text, of the corrected prompts where there are several."""
        shown_tables = []
        for stem, table in self.stored.tables.items():
            rank, name, variant = _variant(stem)
            if rank == 0:
                rows = [[shown(v) for v in row] for row in table.head(TABLE_ROWS).itertuples(index=False)]
                shown_tables.append({"name": _words(name) + variant, "path": f"{self.path}/{stem}.csv", "columns": list(table.columns), "rows": rows, "total": len(table)})
        return shown_tables

    @cached_property
    def other_tables(self) -> list[str]:
        """Paths of the other conventions' tables and of the deltas'."""
        return [f"{self.path}/{stem}.csv" for stem in self.stored.tables if _variant(stem)[0]]


def _comparison(of: str, numbers: list[dict[str, Any]], study: Study) -> Comparison:
    rows: dict[str, Row] = {}
    for number in numbers:
        told = study.published_for(number["quantity"]) if of != "delta" else None
        row = rows.setdefault(number["quantity"], Row(number["quantity"], told, {}))
        row.ours[number["convention"]] = number
    beside = [row for row in rows.values() if row.published]
    alone = [row for row in rows.values() if not row.published]
    heading = _upper_first(OF[of]) or "Numbers"
    by_convention = any(number["convention"] for number in numbers)
    note = "" if beside else ". No published number: the study looked at trained prompts only" if of == "delta" else ". No published number"
    return Comparison(heading, beside + alone[:ROWS], len(alone[ROWS:]), bool(beside), note, by_convention)


def _variant(stem: str) -> tuple[int, str, str]:
    """A file's stem -> rank among those of its name, name, and of what by which convention."""
    parts, found, rank = stem.split("_"), [], 0
    for names, weight in ((OF, 2), (CONVENTION, 1)):
        if len(parts) > 1 and parts[0] in names:
            found.append(parts.pop(0))
            rank += weight * (found[-1] in ("delta", "paper"))
    return rank, "_".join(parts), f" ({_of_what(*found)})" if found else ""


def _of_what(*variant: str) -> str:
    """trained prompts, corrected"""
    return ", ".join(said for key in variant if (said := OF.get(key) or CONVENTION.get(key)))


# Numbers as text


def shown(value: Any) -> str:
    """Four digits that count; whole numbers whole; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "—"
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def evidence(number: dict[str, Any]) -> str:
    """Interval in brackets, p and n of a number or finding."""
    said = []
    if number.get("low") is not None and number.get("high") is not None:
        said.append(f"[{shown(number['low'])}, {shown(number['high'])}]")
    if number.get("p") is not None:
        said.append("p < .0001" if number["p"] < 1e-4 else f"p = {number['p']:.2g}")
    said.append(f"n = {shown(number['n'])} {number['unit']}")
    return "; ".join(said)


def _words(name: str) -> str:
    """mean_distances -> mean distances"""
    return name.replace("_", " ")


def _upper_first(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _breakable(name: str) -> "Markup":
    """A dotted name that may go on in the next line after a dot or an underscore."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(name))))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
