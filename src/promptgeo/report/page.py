"""The report as one self-contained HTML page, from stored results, run folders and the study's file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.analysis.figures import COLOURS, DARK
from promptgeo.config.terminal import visible
from promptgeo.report import text
from promptgeo.report.answer import answer, claim_rows
from promptgeo.report.claims import findings, omissions, unanswered, verdicts
from promptgeo.report.runs import facts, run_lines, tasks
from promptgeo.report.section import Figure, Section
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
        "in_words": text.in_words,
        "spelt": text.spelt,
    }
    lengths = {run.info["config"].get("prompt", {}).get("length") for run in material.runs}
    study = replace(material.study, length=lengths.pop() if len(lengths) == 1 else None)
    told = verdicts(study, material.stored)
    sections = [Section(stored, study) for stored in material.stored]
    page = environment.get_template("page.html.j2").render(
        material=material,
        study=study,
        facts=facts(material.runs),
        tasks=tasks(material.runs),
        run_lines=run_lines(material.runs),
        answer=answer(told, [finding for _, group in findings(material.stored) for finding in group]),
        claims=claim_rows(told, study, material.stored),
        verdicts=[{"of": v, "first": k == 0 or told[k - 1].name != v.name} for k, v in enumerate(told)],
        lead=_lead(study, sections),
        hues=_hues(),
        analyses=sections,
        unanswered=unanswered(study, material.stored),
        omissions=list(omissions(material.stored, material.refused)),
    )
    return visible(page)


def _lead(study: Study, sections: Sequence[Section]) -> Figure | None:
    """The study's own choice, or the first figure of the first analysis that has one."""
    analysis, _, name = study.lead.partition("/")
    chosen = [section.lead(name) for section in sections if section.name == analysis] if analysis else []
    return next((figure for figure in [*chosen, *(section.lead() for section in sections)] if figure), None)


def _hues() -> str:
    """The style sheet's colours of figures, by day and by night."""
    light, dark = ("".join(f"--hue-{k}: {hue}; " for k, hue in enumerate(hues)) for hues in (COLOURS, DARK))
    return f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"
