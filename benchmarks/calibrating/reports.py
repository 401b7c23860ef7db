"""How often does a whole report say of null data that a confirmatory claim holds?"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from calibrating.collecting import needs_model, results
from calibrating.drawing import warm
from calibrating.lines import CLAIMS
from calibrating.scenarios import Geometry, Skills
from promptgeo.analysis.result import Stored
from promptgeo.report.claims import verdicts
from promptgeo.report.study import Study, load_study, studies

NULLS: dict[str, tuple[Geometry, Skills]] = {
    "init_vs_task": (Geometry("nothing", 10, 6, 1, 4, word=0.0), Skills("all alike", inits=3)),
}
"""Study -> its grid without any effect; of the others, a task's eight runs."""
OTHERS = (Geometry("nothing", 4, 2, 2, 1, word=0.0), Skills("all alike", inits=2, seeds=4))


def null_of(study: str, name: str) -> Geometry | Skills:
    geometry, skills = NULLS.get(study, OTHERS)
    return skills if needs_model(name) else geometry


def with_claims() -> list[str]:
    """Studies that make claims."""
    return [name for name in studies() if load_study(name).claims]


def false_claims(name: str, seed: int) -> list[str]:
    """The confirmatory claims that a report on this draw of null data says hold, and that no such data make true."""
    study = load_study(name)
    stored = [_stored(study, analysis, seed) for analysis in study.analyses]
    confirmatory = getattr(study, "confirmatory", None) or list(study.claims)
    held = [verdict for verdict in verdicts(study, stored) if _holds(verdict)]
    names = {words.words: key for key, words in study.claims.items()}
    keys = [getattr(verdict, "name", names.get(verdict.words, "")) for verdict in held]
    return [key for key in keys if key in confirmatory and _false(name, key)]


def _holds(verdict: Any) -> bool:
    return getattr(verdict, "outcome", None) == "holds" or getattr(verdict, "holds", None) is True


def _false(study: str, claim: str) -> bool:
    truth = CLAIMS.get(claim)
    return truth is not None and any(truth(scenario, "prompt") is False for scenario in NULLS.get(study, OTHERS))


def _stored(study: Study, name: str, seed: int) -> Stored:
    claims = [
        {**variant, **asdict(claim)} for variant, result in _results(study.name, name, seed) for claim in result.claims
    ]
    return Stored(name, {"claims": claims, "findings": [], "omissions": []}, pd.DataFrame(), {}, {})


def _results(study: str, name: str, seed: int) -> Iterator[tuple[dict[str, str], Any]]:
    warm(name)
    return results(name, null_of(study, name), seed)
