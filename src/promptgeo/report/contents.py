"""What does a report say, in whatever format? Question, answer, claims, what was run, a section for each analysis."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from promptgeo.report.answer import ClaimRow, answer, claim_rows
from promptgeo.report.claims import Verdict, findings, omissions, unanswered, verdicts
from promptgeo.report.runs import facts, run_lines, tasks
from promptgeo.report.section import Figure, Section
from promptgeo.report.study import Published, Study

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


@dataclass(frozen=True)
class Contents:
    """What is made of the material, once for all formats."""

    material: Material
    prefix: str = "lead"
    """Of the ids within the lead figure, which are its own on a page."""

    @cached_property
    def study(self) -> Study:
        lengths = {run.info["config"].get("prompt", {}).get("length") for run in self.material.runs}
        study = replace(self.material.study, length=lengths.pop() if len(lengths) == 1 else None)
        if study.question or study.title != study.name or not self.material.stored:
            return study
        # A sweep that is no study asks what its first analysis asks.
        about = Section(self.material.stored[0], study).about
        return replace(study, question=about.partition("?")[0] + "?" if "?" in about else "")

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return verdicts(self.study, self.material.stored)

    @property
    def answer(self) -> list[str]:
        """At most three sentences."""
        found = [finding for _, group in findings(self.material.stored) for finding in group]
        return answer(self.verdicts, found) or ["No analysis has a finding on these runs."]

    @cached_property
    def claims(self) -> list[ClaimRow]:
        return claim_rows(self.verdicts, self.study, self.material.stored)

    @property
    def run_lines(self) -> list[str]:
        return run_lines(self.material.runs)

    @property
    def facts(self) -> dict[str, str]:
        return facts(self.material.runs)

    @property
    def tasks(self) -> list[dict[str, str]]:
        return tasks(self.material.runs)

    @cached_property
    def sections(self) -> list[Section]:
        return [Section(stored, self.study) for stored in self.material.stored]

    @cached_property
    def lead(self) -> Figure | None:
        """The study's own choice, or the first figure of the first analysis that has one."""
        analysis, _, name = self.study.lead.partition("/")
        wanted = [(section, name) for section in self.sections if section.name == analysis and name]
        every = [*wanted, *((section, "") for section in self.sections)]
        return next((figure for section, which in every if (figure := section.lead(self.prefix, which))), None)

    @property
    def unanswered(self) -> list[Published]:
        return unanswered(self.study, self.material.stored)

    @property
    def omissions(self) -> list[tuple[str, str]]:
        return list(omissions(self.material.stored, self.material.refused))
