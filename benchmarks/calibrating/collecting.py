"""What does an analysis say of a draw? Each of its p values, intervals and verdicts, under a name that draws share."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import promptgeo
from calibrating.scenarios import TASKS, WORDS, Geometry, Skills, given_seed, stand_in, task_of_run
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.result import Claim, Finding, Number, Result
from promptgeo.analysis.target import Analysis, analysis_of
from promptgeo.config.compose_analyze import analysis_file, available
from promptgeo.errors import UserError

CHEAP = {"permutations": 199, "draws": 200, "redraws": 99, "nulls": 199, "sample": 100, "mixtures": 60, "controls": 12}
CHEAP |= {"max_examples": 30, "directions": 4, "subspaces": 2, "steps": 20, "radii_of": 2, "max_runs": 6, "say": 2}
CHEAP |= {"max_pairs": 20, "max_compositions": 12, "max_orders": 4, "max_subsets": 4, "resolution": 0, "seeds": 2}
CHEAP |= {"random": 5, "others": 5, "words": 3, "points": 7, "dimensions": [1, 4, 16], "chosen_on": 12}
"""Options by name, where an analysis has them: nothing is tested more often, or on more, than calibration needs."""
FEW = {
    "projection": ("nothing",),
    "atlas": ("nothing", "init only", "run and cell", "study 3"),
    "matched": ("nothing", "run and cell", "how far", "study 3"),
    "orthogonal": ("all alike", "floor", "failed trainings", "planted", "wells"),
    "classes": ("all alike", "all alike, many runs", "ceiling", "failed trainings", "planted"),
    "inits": ("all alike", "all alike, many runs", "ceiling", "failed trainings", "planted"),
    "prompt_length": ("all alike", "all alike, many runs", "ceiling", "failed trainings", "planted"),
    "in_context": ("all alike", "ceiling", "failed trainings", "planted"),
    "mechanism": ("all alike", "failed trainings", "planted", "deaf"),
    "curves": ("all alike", "ceiling", "floor", "failed trainings", "planted"),
    "mean_prompts": ("untrained", "all alike", "ceiling", "floor", "failed trainings", "planted"),
    "speaking_probes": ("untrained", "all alike", "ceiling", "failed trainings", "planted"),
    "sensitivity": ("planted",),
    "bezier": ("all alike", "ceiling", "failed trainings", "planted", "wells"),
    "repeatable": ("all alike", "floor", "failed trainings", "planted", "wells"),
    "convexity": ("all alike", "ceiling", "floor", "failed trainings", "untrained", "planted", "wells"),
    "neighbours": ("nothing", "run and cell", "how far", "eight runs", "study 3"),
    "transplant": ("all alike", "ceiling", "failed trainings", "planted", "wells"),
    "dimension": ("all alike", "untrained", "planted"),
    "capacity": ("same bits", "same tokens", "same bits and tokens", "bits at the margin"),
    "composition": ("all alike", "failed trainings", "planted"),
    "stochasticity": ("unequal", "own P0s", "six tasks", "harder move", "equidistant", "groups"),
    "waywardness": ("all alike", "failed trainings", "planted", "pulled for nothing", "pulled away"),
    "describe": ("strangers", "wells", "planted"),  # of prompts that gain nothing there is no share
    "token_operations": ("all alike", "ceiling", "failed trainings", "planted", "wells"),
    "semantics": ("all alike", "untrained", "planted"),
    "transfer": ("all alike", "failed trainings", "strangers", "kin", "helping"),
}
"""Analyses that take long, or need what few scenarios have: the scenarios that they are asked about."""
ONLY: dict[str, dict[str, Any]] = {
    "waywardness": {"max_examples": 250},
    "mechanism": {"examples": 6, "shots": 3, "sets": 2, "validation": 8, "layers": 1, "scales": [0.5, 1.0]},
    "convexity": {"steps": 5, "mixtures": 40},
    "projection": {"perplexity": 5.0},
    "atlas": {"plane": "pca", "cluster_size": 2, "permutations": 199},
    "composition": {"max_examples": 16, "max_pairs": 6},
    "transplant": {"max_pairs": 12, "max_compositions": 6},
    "token_operations": {"max_runs": 6},  # of its own 8: four runs, of which some fail, look alike one time in ten
    "bezier": {"max_examples": 100},  # as its own file has it: of 30, rare large losses may all be missing
    "neighbours": {"epsilons": [0.5, 0.9], "permutations": 99},
    "sequences": {"permutations": 99},
    # A lexicon and readings: the words of the stand-in's own vocabulary say nothing of any task.
    "semantics": {"lexicon": [f"t{i}" for i in range(480, 520)], "readings": ["cosine", "csls"], "walks": 39},
    "mean_distances": {"permutations": 99},
}
"""Options of one analysis."""
INSTANCES = 3
"""Of a line (each task's, each pair's), at most so many in a draw: its first, middle and last name."""


@dataclass(frozen=True)
class Said:
    """One p, interval or verdict of a draw."""

    line: str
    """analysis | of | convention | kind | name, in which tasks, inits and counts have placeholders."""
    raw: str
    """The name as it is: what has one truth."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    outcome: str | None = None
    """Of a claim."""

    @property
    def analysis(self) -> str:
        return self.line.split(" | ")[0]

    @property
    def convention(self) -> str:
        """paper, corrected or neither."""
        return self.line.split(" | ")[2]

    @property
    def kind(self) -> str:
        """number, finding or claim."""
        return self.line.split(" | ")[3]

    @property
    def name(self) -> str:
        return self.line.split(" | ")[4]


@cache
def analysis(name: str) -> Analysis:
    """As a command gives it, with cheap options."""
    settings = analysis_file(name)
    own = {**CHEAP, **ONLY.get(name, {})}
    settings |= {key: own[key] for key in settings if key in own and settings[key] is not True}
    return analysis_of(name, settings)


LOGGED = ("curves", "classes", "inits", "prompt_length")
"""Analyses that ask no model, but what training recorded."""


def names() -> list[str]:
    return available()


def needs_model(name: str) -> bool:
    """Whether it asks the model, or what training recorded: it is asked about skills; all others about places."""
    return analysis(name).declared.lm or name in LOGGED


def fits(name: str, scenario: Geometry | Skills) -> bool:
    few = FEW.get(name)
    if scenario.only and name not in scenario.only:
        return False
    return needs_model(name) == isinstance(scenario, Skills) and (few is None or scenario.name in few)


@cache
def _left_out() -> list[tuple[ModuleType, str, Any]]:
    """(module, name, what stands in) of what is not counted here and takes most of the time.

    Figures, and reading a run's task anew.
    """
    found: list[tuple[ModuleType, str, Any]] = []
    root = Path(promptgeo.__file__).parent / "analysis"
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(root.parents[1]).with_suffix("").parts
        module = import_module(".".join(names[:-1] if names[-1] == "__init__" else names))
        for name in list(vars(module)):
            if name.endswith("figure"):
                found.append((module, name, lambda *args, **options: ""))
            elif name == "task_of":
                found.append((module, name, task_of_run))
    return found


@contextmanager
def _quickly() -> Iterator[None]:
    """Within, what is left out has its stand-in, and torch one thread; behind it all is as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = [getattr(module, name) for module, name, _ in _left_out()]
    for module, name, instead in _left_out():
        setattr(module, name, instead)
    try:
        yield
    finally:
        for (module, name, _), own in zip(_left_out(), before, strict=True):
            setattr(module, name, own)
        torch.set_num_threads(threads)


def results(name: str, scenario: Geometry | Skills, seed: int) -> Iterator[tuple[dict[str, str], Result]]:
    """What an analysis says of a draw, variant by variant; nothing where these runs cannot support it."""
    asked = analysis(name)
    runs = scenario.draw(seed, name)
    given: dict[str, Any] = {}
    if asked.declared.lm:
        given["lm"] = stand_in(name)
    if asked.declared.vocabulary:
        given["vocabulary"] = Vocabulary.of(stand_in(name))
    if asked.declared.words:
        given["vocabulary"] = None  # no word has a p
    options = asked.options | ({"seed": given_seed(name, seed)} if "seed" in asked.options else {})
    for variant in asked.variants(convention="corrected"):  # lines.reason says why not paper
        try:
            with warnings.catch_warnings(), _quickly():
                warnings.simplefilter("ignore")
                said = asked.function(runs, **options, **given, **variant)
        except UserError:
            continue
        yield dict(variant), said


def said(name: str, scenario: Geometry | Skills, seed: int) -> list[Said]:
    """Every p, interval and verdict of an analysis of a draw."""
    return [each for variant, result in results(name, scenario, seed) for each in of_result(name, variant, result)]


def of_result(name: str, variant: dict[str, str], result: Result) -> list[Said]:
    prefix = f"{name} | {variant.get('of', '')} | {variant.get('convention', '')}"
    numbers = [(f"{prefix} | number | {shared(n.quantity)}", n.quantity, n) for n in result.numbers]
    by_value = {(n.value, n.n, n.low, n.high, n.p): n.quantity for n in result.numbers}
    findings = []
    for finding in result.findings:
        key = (finding.estimate, finding.n, finding.low, finding.high, finding.p)
        raw = by_value.get(key) or sentence(finding.sentence)
        findings.append((f"{prefix} | finding | {shared(raw)}", raw, finding))
    claims = [(f"{prefix} | claim | {claim.name}", claim.name, claim) for claim in result.claims]
    by_line: dict[str, list[Said]] = {}
    for line, raw, each in (*numbers, *findings, *claims):
        one = _said(line, raw, each)
        if one.outcome is not None or one.p is not None or one.low is not None:
            by_line.setdefault(line, []).append(one)
    return [one for those in by_line.values() for one in _some(those)]


def _said(line: str, raw: str, each: Number | Finding | Claim) -> Said:
    if isinstance(each, Claim):
        return Said(line, raw, p=each.p, outcome=str(each.outcome))
    value = each.value if isinstance(each, Number) else each.estimate
    return Said(line, raw, value, each.low, each.high, each.p)


def _some(those: list[Said]) -> list[Said]:
    if len(those) <= INSTANCES:
        return those
    those = sorted(those, key=lambda one: one.raw)
    return [those[0], those[len(those) // 2], those[-1]]


NAMES = sorted({*TASKS, *WORDS, "plus_k", "explanation"}, key=len, reverse=True)
COUNT = re.compile(r"(?<![a-z])[+-]?\d+(\.\d+)?(e-?\d+)?")


def shared(name: str) -> str:
    """A name with placeholders: tasks and inits *, counts #."""
    for word in NAMES:
        name = re.sub(rf"(?<![a-z]){word}(?![a-z])", "*", name)
    return COUNT.sub("#", name)


def sentence(text: str) -> str:
    """A finding's own words, short: those that no number varies."""
    return shared(text).partition("#")[0][:60].strip(" (")
