"""The report as one self-contained HTML page, from stored results, run folders and the study's file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.analysis.result import Outcome
from promptgeo.config.terminal import visible
from promptgeo.report import text
from promptgeo.report.claims import NOT_TESTED, findings, omissions, unanswered, verdicts
from promptgeo.report.runs import facts, tasks
from promptgeo.report.section import Section
from promptgeo.report.study import Study

if TYPE_CHECKING:
    from promptgeo.analysis.result import Stored
    from promptgeo.runs.folder import Run


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
    differences: dict[str, tuple[list[Any], list[Any]]] = field(default_factory=dict)
    """Key -> values of these runs and of the study's; empty where they are the same."""
    command: str = ""
    training: Sequence[dict[str, Any]] = ()
    """{"runs": n, "seconds": s} of each time that something was trained."""


def render(material: Material) -> str:
    """The page as HTML text: no clock time, no address, nothing to load."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number_text,
        "evidence": text.evidence,
        "adjusted": lambda verdict: text.p_text(verdict.p),
        "words": text.words,
        "time": text.duration,
        "upper_first": text.upper_first,
        "breakable": text.breakable,
        "spelt": text.spelt,
    }
    lengths = {run.info["config"].get("prompt", {}).get("length") for run in material.runs}
    study = replace(material.study, length=lengths.pop() if len(lengths) == 1 else None)
    claims = verdicts(study, material.stored)
    page = environment.get_template("page.html.j2").render(
        material=material,
        study=study,
        facts=facts(material.runs),
        tasks=tasks(material.runs),
        findings=list(findings(material.stored)),
        verdicts={outcome: [v for v in claims if v.outcome == outcome] for outcome in (*Outcome, NOT_TESTED)},
        analyses=[Section(stored, study) for stored in material.stored],
        unanswered=unanswered(study, material.stored),
        omissions=list(omissions(material.stored, material.refused)),
    )
    return visible(page)
