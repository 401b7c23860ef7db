"""Which analyses are made of which runs, and what did each say? Results are cached, one folder per analysis."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from promptgeo.analysis.figures import titled
from promptgeo.analysis.kept_scores import forget, keeping
from promptgeo.analysis.materials import Materials
from promptgeo.analysis.own_code import OwnCode
from promptgeo.analysis.question import UndeclaredClaim
from promptgeo.analysis.result import DamagedResult, Outcome, Result, Stored, check_replaceable, digest, read, store
from promptgeo.analysis.target import Analysis, Variant, analysis_of
from promptgeo.analysis.used_code import used_code
from promptgeo.analysis.wandb_analyses import follow
from promptgeo.config.compose_analyze import AnalyzeConfig, available
from promptgeo.config.explain import refusal
from promptgeo.config.paths import require_writable, user_path
from promptgeo.errors import UserError
from promptgeo.runs.alike import ALL, Alike, alike, require_one_data_set_per_task
from promptgeo.runs.folder import Run, find_runs
from promptgeo.runs.table import RunTable, table_of

log = logging.getLogger(__name__)
USABLE = ("completed", "imported")
"""Statuses of runs that an analysis looks at."""


@dataclass(frozen=True)
class Answer:
    """What one analysis of a command came to."""

    name: str
    stored: Stored | None
    """Its results; None where there are none."""
    refused: str | None = None
    """Why there are none: why these runs cannot support it, or how it failed."""
    cached: bool = False
    """Whether the results were there already."""


def run_analyses(
    config: AnalyzeConfig,
    notify: Callable[[str], None] = lambda line: None,
    config_dir: str | Path | None = None,
) -> tuple[list[Answer], list[str]]:
    """Make the config's analyses one by one and store their results. Returns an answer for each, and the runs left out.

    An analysis that these runs cannot support, or that fails, leaves its earlier results as they were; the others are
    made. notify: is given a line for each step. config_dir: a folder of the user's own, whose modules may be analyses.
    Raises UserError, before anything is computed, for what is wrong with the config or the folders.
    """
    own = OwnCode.of(config_dir)
    with own.importable():
        return _run_analyses(config, notify, own)


def _run_analyses(config: AnalyzeConfig, notify: Callable[[str], None], own: OwnCode) -> tuple[list[Answer], list[str]]:
    if config.device == "cuda":
        from promptgeo.model.loading import resolve_device  # with torch, which not every analysis needs

        resolve_device(config.device)
    folders = _run_folders(config.runs)
    analyses = [analysis_of(name, settings, config.allow, own) for name, settings in config.analysis.items()]
    if not analyses:
        names = available()
        raise UserError(
            f"analysis: name the analyses: 'analysis=[{','.join(names[:2])}]' (there are {', '.join(names)})"
        )
    variants = [analysis.variants(config.of, config.convention) for analysis in analyses]
    runs, left_out = usable_runs(folders, config.where)
    if any(ALL not in analysis.declared.factors for analysis in analyses):  # a map may hold what is never pooled
        require_one_data_set_per_task(runs)
    for line in left_out:
        notify(f"left out: {line}")
    out = _results_folder(config.out, folders)
    for analysis in analyses:
        check_replaceable(out / analysis.name)
    command = _Command(config, runs, left_out, out, notify, own)
    answers = []
    for count, (analysis, calls) in enumerate(zip(analyses, variants, strict=True), start=1):
        answers.append(answer := command.answer(analysis, calls, f"{count} of {len(analyses)}"))
        if config.logger is not None and answer.stored is not None:
            beside = out.parent if out.name == "analysis" else out  # of <runs>/analysis, where the runs' own lie
            follow(answer.stored, runs, config.wandb, beside)
    return answers, left_out


@dataclass(frozen=True)
class _Command:
    """What the analyses of one command share."""

    config: AnalyzeConfig
    runs: RunTable
    left_out: list[str]
    out: Path
    notify: Callable[[str], None]
    own: OwnCode
    materials: dict[frozenset, Materials] = field(default_factory=dict)
    """By what says which model some runs have: analyses, and groups of runs, share one."""

    def answer(self, analysis: Analysis, variants: list[Variant], place: str) -> Answer:
        """The analysis's answer, from its folder where it is cached. place: "1 of 3"."""
        name, folder = analysis.name, self.out / analysis.name
        key = self._key(analysis, variants)
        if kept := self._kept(name, folder, key):
            self.notify(f"{name}: cached (overwrite=true computes it again)")
            return Answer(name, kept, cached=True)
        start = time.perf_counter()
        self.notify(f"{name} ({place}) ...")
        try:
            require_writable(self.out, "out")  # before what may take hours
            with keeping(folder, key, anew=self.config.overwrite) as before:
                if before:
                    self.notify(f"{name}: goes on where it was stopped (overwrite=true scores all prompts again)")
                results = self._results(analysis, variants)
        except UserError as error:
            return self._refused(name, str(error).removeprefix(f"{name}: "))
        except Exception as error:  # an analysis that fails costs none of the others
            log.debug("", exc_info=error)
            return self._refused(name, _failure(error))
        seconds = round(time.perf_counter() - start, 1)
        info = {
            "options": analysis.options,
            "runs": len(self._chosen(analysis)),
            "left_out": self.left_out,
            "seconds": seconds,
            "versions": {"promptgeo": version("promptgeo")},
        }
        try:
            stored = store(folder, name, key, info, results)
        except UserError as error:  # something was put there meanwhile
            return self._refused(name, str(error))
        except OSError as error:
            return self._refused(name, f"cannot be stored: {refusal(error)}; the same command makes it again")
        forget(folder)
        for omission in stored.info["omissions"]:
            self.notify(f"{name}: {omission.removeprefix(f'{name}: ')}")
        self.notify(f"{name}: {seconds} s, {folder}/")
        return Answer(name, stored)

    def _kept(self, name: str, folder: Path, key: str) -> Stored | None:
        """The results that lie there, undamaged and of this key; None where there are none, or others are wanted."""
        try:
            stored = read(folder)
        except FileNotFoundError:
            return None
        except DamagedResult as error:
            self.notify(f"{name}: {error}; it is computed again")
            return None
        return stored if stored.info["key"] == key and not self.config.overwrite else None

    def _key(self, analysis: Analysis, variants: list[Variant]) -> str:
        """Changes with the runs, the function, its options and variants, the model, and any code that it runs."""
        given = analysis.declared.asks_model
        model = [self.config.model, self.config.precision] if given else []
        modules = [analysis.function.__module__, __name__, *([Materials.__module__] if given else [])]
        code = used_code(*modules, also=self.own.has)
        runs = [(run.id, run.info["sha256"]) for run in self.runs.runs or []]
        function = analysis.function.__qualname__
        chosen = [analysis.where] if analysis.where else []
        return digest(runs, function, analysis.options, variants, model, version("promptgeo"), code, *chosen)

    def _results(self, analysis: Analysis, variants: list[Variant]) -> list[tuple[dict[str, Any], Result]]:
        """The result of each variant and group of runs that supports one; the first one's omissions name the others.

        Raises UserError where none does, UndeclaredClaim for a claim that the function does not declare.
        """
        results: list[tuple[dict[str, Any], Result]] = []
        refused: dict[str, list[dict[str, Any]]] = {}
        groups = alike(self._chosen(analysis), analysis.declared.factors)
        calls = [(group, variant, variant | _named(group)) for group in groups for variant in variants]
        for group, variant, names in calls:
            if len(calls) > 1:
                self.notify(f"{analysis.name}: {', '.join(names.values())} ...")
            try:
                result = self._result(analysis, group, variant)
            except UserError as error:
                refused.setdefault(str(error), []).append(names)
                continue
            _check_claims(analysis, result)
            results.append((names, result.named(group.label)))
        if not results:
            raise UserError("; ".join(refused))
        omissions = [f"{_difference(those, [c[2] for c in calls])}: {reason}" for reason, those in refused.items()]
        results[0][1].omissions[:0] = omissions
        return results

    def _chosen(self, analysis: Analysis) -> RunTable:
        """The runs that the analysis is of. Raises UserError where its query fails, or none is left."""
        if analysis.where is None:
            return self.runs
        chosen = self.runs.query(analysis.where)
        if not len(chosen):
            raise UserError(f"no run is left for which {analysis.where}")
        return chosen

    def _result(self, analysis: Analysis, group: Alike, variant: Variant) -> Result:
        models = frozenset(
            (fingerprints.get("model"), run.info["config"]["model"].get("name_or_path"), run.info.get("precision"))
            for run in group.runs.runs or []
            for fingerprints in [run.info.get("fingerprints", {})]
        )
        materials = self.materials.setdefault(models, Materials(group.runs, self.config))
        given = materials.given_to(analysis.declared) | variant
        with titled(group.label):
            result: Result = analysis.function(group.runs, **analysis.options, **given)
        return result

    def _refused(self, name: str, reason: str) -> Answer:
        self.notify(f"{name}: left out: {reason}")
        return Answer(name, None, refused=reason)


def usable_runs(folders: Sequence[str], where: str | None, option: str = "{}=") -> tuple[RunTable, list[str]]:
    """The runs to analyse, and which were left out and why: damaged, not completed, the same as another.

    option: how messages write an option's name.
    Raises UserError for a query that these runs cannot answer, and where no run is left.
    """
    runs: dict[str, Run] = {}
    left_out = []
    for folder in folders:
        intact, damaged = find_runs(folder)
        left_out += [str(error) for error in damaged]
        left_out += [f"{run.folder.name}: {run.status}" for run in intact if run.status not in USABLE]
        for run in intact:
            if run.status in USABLE and runs.setdefault(run.id, run).folder.resolve() != run.folder.resolve():
                left_out.append(f"{run.folder}: is the same run as {runs[run.id].folder}")
    table = table_of(list(runs.values()))
    try:
        table = table.query(where) if where and runs else table
    except UserError as error:
        raise UserError(f"{option.format('where')}{error}") from error
    if not len(table):
        condition = f" for which {where}" if where else ""
        raise UserError(f"{', '.join(map(str, folders))}: no completed runs lie there{condition}")
    return table, left_out


def _run_folders(runs: Any) -> list[str]:
    folders = [runs] if isinstance(runs, str) else runs
    if not folders or not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise UserError(
            "runs: name the runs' folder, or several: runs=outputs/<name>, 'runs=[outputs/<one>,outputs/<two>]'"
        )
    return folders


def _results_folder(out: str | None, folders: Sequence[str]) -> Path:
    if out:
        return user_path(out, "out")
    if len(folders) > 1:
        raise UserError("runs: several folders have no place in common for their results; name one with out=<folder>")
    return user_path(folders[0], "runs") / "analysis"


def _check_claims(analysis: Analysis, result: Result) -> None:
    declared = analysis.declared.claims
    for claim in result.claims:
        if claim.name not in declared:
            raise UndeclaredClaim(
                f"{analysis.function.__name__} made the claim {claim.name}, which its @question does not declare "
                f"(claims: {', '.join(declared) or 'none'})"
            )
        stated = claim.quantity and claim.outcome is not Outcome.undecidable
        if stated and claim.quantity not in {number.quantity for number in result.numbers}:
            raise UndeclaredClaim(
                f"{analysis.function.__name__} made the claim {claim.name} about {claim.quantity}, "
                "which is none of its numbers"
            )


def _failure(error: Exception) -> str:
    """A failure in one line, with its place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())} ({place.filename}:{place.lineno})"


def _named(group: Alike) -> dict[str, str]:
    return {"group": group.label} if group.label else {}


def _difference(some: Sequence[dict[str, Any]], variants: Sequence[dict[str, Any]]) -> str:
    """What some of the calls have in common and the others have not: of=delta."""
    values = {key: list(dict.fromkeys(variant[key] for variant in some)) for key in some[0]}
    different = {key: own for key, own in values.items() if len(own) < len({variant[key] for variant in variants})}
    groups = different.pop("group", [])
    return " ".join(["; ".join(groups)] * bool(groups) + [f"{key}={','.join(own)}" for key, own in different.items()])
