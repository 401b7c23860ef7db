"""What does a study's file say beyond its runs? Its analyses, its published numbers, its claims."""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from promptgeo.config.explain import config_errors, nearest
from promptgeo.config.paths import conf_dir
from promptgeo.config.schema import flatten
from promptgeo.config.yaml_file import read_yaml
from promptgeo.errors import UserError


@dataclass(frozen=True)
class Published:
    """A number of the study, by the name that it has in an analysis."""

    quantity: str
    place: str
    value: float | None = None
    """As printed; None where only the published data imply it."""
    implied: float | None = None
    """What the published data give once it is counted properly."""
    read_off: bool = False
    """Read off a figure."""


@dataclass(frozen=True)
class StudyClaim:
    """A statement of the study, in short."""

    name: str
    words: str
    place: str
    published: str = ""
    """What the study's own published numbers say about it."""


@dataclass(frozen=True)
class Study:
    """A study's file, sweeps/<name>.yaml, without the grid that it trains."""

    name: str
    title: str
    source: str
    analyses: dict[str, dict[str, Any]]
    """Name -> options."""
    published: dict[str, Published] = field(default_factory=dict)
    claims: dict[str, StudyClaim] = field(default_factory=dict)
    confirmatory: list[str] = field(default_factory=list)
    """Of the claims, those that the study sets out to test, adjusted for each other; all others are exploratory."""
    tiny: list[str] = field(default_factory=list)
    """Overrides that apply with model=tiny."""
    question: str = ""
    """What it asks, in a sentence; the title where that is one."""
    lead: str = ""
    """The figure that answers it best, as <analysis>/<figure>; the first one where none is named."""
    stands_for: dict[str, str] = field(default_factory=dict)
    """Task -> the study's task that it stands for where that is not to be had."""

    length: int | None = None
    """Of all prompts of a report, which our names of numbers leave out where there is one only; no key of the file."""

    def published_for(self, quantity: str) -> Published | None:
        """The published number beside one of ours: of the same name, or of the task that our task stands for."""
        parts = [self.stands_for.get(part, part) for part in quantity.split(".")]
        names = [quantity, ".".join(parts)]
        if self.length is not None:
            names += [".".join([*parts[:k], f"P{self.length}", *parts[k:]]) for k in range(1, len(parts) + 1)]
        return next((self.published[name] for name in names if name in self.published), None)

    def check_claims(self, declared: Collection[str]) -> None:
        """Raises UserError for a claim that is not among those that the study's analyses declare."""
        for name in self.claims:
            if name not in declared:
                instead = nearest(name, sorted(declared)) if declared else "they declare none"
                raise UserError(
                    f"sweeps/{self.name}.yaml: study.claims.{name}: no analysis of this study declares such a claim; "
                    f"{instead}"
                )

    @classmethod
    def of(cls, name: str, section: dict[str, Any]) -> "Study":
        """From what sweeps/<name>.yaml has under `study`. Raises UserError, naming the key, for what is wrong in it."""
        section = dict(section)
        _check_keys(section, {f.name for f in fields(cls)} - {"name", "length"}, f"sweeps/{name}.yaml: study")
        missing = [key for key in ("title", "source", "analyses") if not section.get(key)]
        if missing:
            raise UserError(f"sweeps/{name}.yaml: study.{missing[0]}: is missing")
        entries = section.pop("published", {}).items()
        published = [number for key, entry in entries for number in _numbers(name, key, entry)]
        if section.get("lead") and section["lead"].partition("/")[0] not in section["analyses"]:
            raise UserError(f"sweeps/{name}.yaml: study.lead: {section['lead']} is no figure of one of its analyses")
        claims = {key: _claim(name, key, entry) for key, entry in section.pop("claims", {}).items()}
        confirmatory = section.get("confirmatory", [])
        unknown = [key for key in confirmatory if key not in claims]
        if unknown:
            raise UserError(f"sweeps/{name}.yaml: study.confirmatory: {unknown[0]} is none of study.claims")
        analyses = {key: dict(options or {}) for key, options in section.pop("analyses").items()}
        by_quantity = {number.quantity: number for number in published}
        return cls(name, analyses=analyses, published=by_quantity, claims=claims, **section)


def studies() -> list[str]:
    """The sweeps that are studies."""
    return list(_sections())


def load_study(name: str) -> Study:
    """The study of this name. Raises UserError where there is none, or its file cannot be understood."""
    sections = _sections()
    if name not in sections:
        are = "is" if len(sections) == 1 else "are"
        raise UserError(f"{name}: no such study; there {are} {', '.join(sections)}")
    return Study.of(name, sections[name])


def study_of(name: str, sweeps: Collection[str | None], claims: Collection[str]) -> Study:
    """The study of runs: that of their sweep, where all are of one that is a study.

    Else one without published numbers, which has in words those of these claims that any study makes.

    Args:
        name: of the runs together.
        sweeps: the `sweep` of each run.
        claims: that analyses of them made.
    """
    sections, own = _sections(), set(sweeps)
    if len(own) == 1 and (only := str(own.pop())) in sections:
        return Study.of(only, sections[only])
    words = {
        claim.name: replace(claim, place="", published="")
        for each, section in sections.items()
        for claim in Study.of(each, section).claims.values()
    }
    return Study(name, name, "", {}, claims={claim: words[claim] for claim in claims if claim in words})


def _sections() -> dict[str, dict[str, Any]]:
    """Of the sweeps that are studies: what each file has under `study`. All files are read, which takes .2 s."""
    sections = {}
    for path in sorted((Path(conf_dir()) / "sweep").glob("*.yaml")):
        with config_errors():
            section = OmegaConf.to_container(read_yaml(path)).get("study")
        if section is not None:
            sections[path.stem] = section
    return sections


def _numbers(study: str, prefix: str, entry: dict[str, Any]) -> list[Published]:
    _check_keys(entry, {"place", "values", "implied", "read_off"}, f"sweeps/{study}.yaml: study.published.{prefix}")
    values, implied = (
        flatten(given, f"{prefix}.") if isinstance(given, dict) else {prefix: given}
        for given in (entry.get("values", {}), entry.get("implied", {}))
    )
    read_off = entry.get("read_off", False)
    quantities = dict.fromkeys([*values, *implied])
    return [Published(q, entry["place"], values.get(q), implied.get(q), read_off) for q in quantities]


def _claim(study: str, name: str, entry: dict[str, Any]) -> StudyClaim:
    _check_keys(entry, {"words", "place", "published"}, f"sweeps/{study}.yaml: study.claims.{name}")
    return StudyClaim(name, **entry)


def _check_keys(entry: dict[str, Any], keys: Collection[str], where: str) -> None:
    for key in entry:
        if key not in keys:
            raise UserError(f"{where}.{key}: no such key; one of {', '.join(sorted(keys))}")
