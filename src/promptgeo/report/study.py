"""What a study's file says beyond its runs: its analyses, its published numbers, its claims."""

from dataclasses import dataclass, field, fields
from typing import Any

from promptgeo.errors import UserError
from promptgeo.schema import flatten


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
    name: str
    title: str
    source: str
    analyses: dict[str, dict[str, Any]]
    """Name -> options."""
    published: dict[str, Published] = field(default_factory=dict)
    claims: dict[str, StudyClaim] = field(default_factory=dict)
    tiny: list[str] = field(default_factory=list)
    """Overrides that apply with model=tiny."""
    stands_for: dict[str, str] = field(default_factory=dict)
    """Task -> the study's task that it stands for where that is not to be had."""

    def published_for(self, quantity: str) -> Published | None:
        """The published number beside a quantity of ours: of the same name, or of the task that one of ours stands for."""
        if quantity in self.published:
            return self.published[quantity]
        parts = [self.stands_for.get(part, part) for part in quantity.split(".")]
        return self.published.get(".".join(parts))

    @classmethod
    def of(cls, name: str, told: dict[str, Any]) -> "Study":
        """What sweeps/<name>.yaml says under `study`. Raises UserError, naming the key, for what cannot be understood."""
        told = dict(told)
        _known(told, {f.name for f in fields(cls)} - {"name"}, f"sweeps/{name}.yaml: study")
        missing = [key for key in ("title", "source", "analyses") if not told.get(key)]
        if missing:
            raise UserError(f"sweeps/{name}.yaml: study.{missing[0]}: is missing")
        published = [number for key, entry in told.pop("published", {}).items() for number in _numbers(name, key, entry)]
        claims = {key: _claim(name, key, entry) for key, entry in told.pop("claims", {}).items()}
        analyses = {key: dict(options or {}) for key, options in told.pop("analyses").items()}
        return cls(name, analyses=analyses, published={number.quantity: number for number in published}, claims=claims, **told)


def _numbers(study: str, prefix: str, entry: dict[str, Any]) -> list[Published]:
    _known(entry, {"place", "values", "implied", "read_off"}, f"sweeps/{study}.yaml: study.published.{prefix}")
    values, implied = ({prefix: given} if not isinstance(given, dict) else flatten(given, f"{prefix}.") for given in (entry.get("values", {}), entry.get("implied", {})))
    quantities = dict.fromkeys([*values, *implied])
    return [Published(q, entry["place"], values.get(q), implied.get(q), entry.get("read_off", False)) for q in quantities]


def _claim(study: str, name: str, entry: dict[str, Any]) -> StudyClaim:
    _known(entry, {"words", "place", "published"}, f"sweeps/{study}.yaml: study.claims.{name}")
    return StudyClaim(name, **entry)


def _known(entry: dict[str, Any], keys: set[str], where: str) -> None:
    for key in entry:
        if key not in keys:
            raise UserError(f"{where}.{key}: no such key; one of {', '.join(sorted(keys))}")
