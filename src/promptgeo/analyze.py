"""python -m promptgeo.analyze runs=outputs/<name> 'analysis=[mean_distances,neighbours]': questions asked of finished runs.

Results lie in <runs>/analysis/<analysis>/; what was asked of the same runs with the same options is not asked again.
"""

import inspect
import itertools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo import compose
from promptgeo.errors import UserError

if TYPE_CHECKING:
    from promptgeo.analysis.result import Stored
    from promptgeo.lm import FrozenLM
    from promptgeo.runs import RunTable

log = logging.getLogger(__name__)
USABLE = ("completed", "imported")
"""Statuses of runs that an analysis looks at."""


@dataclass
class AnalyzeConfig:
    """What python -m promptgeo.analyze understands."""

    runs: Any = None  # a folder of runs, or a list of them
    analysis: dict[str, Any] = field(default_factory=dict)  # the questions: analysis=[name,...]; their options: analysis.<name>.<option>
    where: str | None = None  # only runs for which this pandas query holds: where="task == 'country_capital'"
    convention: str = "both"  # corrected, paper (as the study counted), or both
    of: str = "both"  # prompt (trained prompts), delta (what training added to P0), or both
    out: str | None = None  # where results go; null: <runs>/analysis
    model: str | None = None  # the frozen model, where the runs do not say where it lies: a hub id or a local folder
    precision: str = "auto"  # of the frozen model: fp32, bf16, auto
    device: str = "auto"  # cpu, cuda, auto
    overwrite: bool = False  # ask again what was answered
    allow: list[str] = field(default_factory=list)  # packages of your own that an analysis's _target_ may lie in


@dataclass(frozen=True)
class Answered:
    """One analysis of one command."""

    name: str
    stored: "Stored | None"
    refused: str | None = None
    """Why these runs cannot support it."""
    skipped: bool = False


def analyze(*overrides: str) -> list[Answered]:
    """Run the analyses that the overrides name; each one's results are stored, and returned in order.

    Raises UserError for a wrong key, an unknown analysis or runs that cannot be read. An analysis that these runs cannot support is
    returned with the reason.
    """
    config = _compose(overrides)
    return run_analyses(config)


def run_analyses(config: AnalyzeConfig, tell: Callable[[str], None] = lambda line: None) -> list[Answered]:
    from promptgeo.analysis.result import digest, read, store, stored_key

    folders = [config.runs] if isinstance(config.runs, str) else list(config.runs or [])
    if not folders:
        raise UserError("runs: name the runs' folder: runs=outputs/<name>")
    functions = {name: _function(name, options, config.allow) for name, options in config.analysis.items()}
    if not functions:
        raise UserError(f"analysis: name the questions: 'analysis=[{','.join(available()[:2])}]' (there are {', '.join(available())})")
    runs, left_out = _runs(folders, config.where)
    for line in left_out:
        tell(f"left out: {line}")
    out = Path(config.out) if config.out else Path(folders[0]).expanduser() / "analysis"
    materials = _Materials(runs, config)
    answers = []
    for name, function in functions.items():
        options = {k: v for k, v in config.analysis[name].items() if not k.startswith("_")}
        variants = _variants(function, config)
        key = digest([(run.id, run.info["sha256"]) for run in runs.runs], options, variants, version("promptgeo"), _source(function))
        if not config.overwrite and stored_key(out / name) == key:
            answers.append(Answered(name, read(out / name), skipped=True))
            tell(f"{name}: answered already, skipped (overwrite=true asks again)")
            continue
        start = time.perf_counter()
        tell(f"{name} ...")
        try:
            results = [(variant, function(runs, **materials.of(function), **variant)) for variant in variants]
        except UserError as error:
            answers.append(Answered(name, None, refused=str(error)))
            tell(f"{name}: left out: {error}")
            continue
        info = {"options": options, "runs": len(runs), "left_out": left_out, "seconds": round(time.perf_counter() - start, 1), "versions": {"promptgeo": version("promptgeo")}}
        answers.append(Answered(name, store(out / name, name, key, info, results)))
        tell(f"{name}: {time.perf_counter() - start:.1f} s, {out / name}/")
    return answers


def _runs(folders: Sequence[str], where: str | None) -> "tuple[RunTable, list[str]]":
    """The runs to ask, and which were left out and why: damaged, not completed."""
    from promptgeo.runs import find_runs, table_of

    found, left_out = [], []
    for folder in folders:
        runs, damaged = find_runs(folder)
        left_out += [str(error) for error in damaged]
        left_out += [f"{run.folder.name}: {run.status}" for run in runs if run.status not in USABLE]
        found += [run for run in runs if run.status in USABLE]
    table = table_of(found)
    try:
        table = table.query(where) if where and found else table
    except Exception as error:
        raise UserError(f"where={where}: cannot be asked of these runs ({error}); their columns: {', '.join(table.table.columns)}") from error
    if not len(table):
        raise UserError(f"runs={','.join(map(str, folders))}: no completed runs lie there{f' for which {where}' if where else ''}")
    return table, left_out


def available() -> list[str]:
    """The analyses that conf/analysis/ provides."""
    return sorted(p.stem for p in (Path(compose.conf_dir()) / "analysis").glob("*.yaml"))


class _Materials:
    """What analyses may ask for beside the runs, made once and only if asked for: the frozen model, its vocabulary."""

    def __init__(self, runs: "RunTable", config: AnalyzeConfig):
        self.runs, self.config = runs, config

    def of(self, function: Callable) -> dict[str, Any]:
        asked = inspect.signature(function).parameters
        return {name: getattr(self, name) for name in ("lm", "vocabulary") if name in asked}

    @cached_property
    def lm(self) -> "FrozenLM":
        from promptgeo.lm import FrozenLM

        models = {(r.info["config"]["model"]["name_or_path"], r.info["config"]["model"]["revision"], r.info["precision"], r.info["fingerprints"]["model"]) for r in self.runs.runs}
        if len(models) > 1:
            raise UserError(f"these runs have different models ({', '.join(sorted({m[0] for m in models}))}); choose some with where=\"model == '...'\"")
        ((name, revision, precision, fingerprint),) = models
        if self.config.model is not None:
            name, revision = self.config.model, None
        lm = FrozenLM.load(name, revision=revision, precision=precision if self.config.precision == "auto" else self.config.precision, device=self.config.device)
        if fingerprint and lm.fingerprint != fingerprint:
            raise UserError(f"model {name} is not the one that these runs were trained on (its content differs); name that one with model=<folder>")
        return lm

    @cached_property
    def vocabulary(self):
        from promptgeo.analysis.vocabulary import Vocabulary

        return Vocabulary.of(self.lm)


def _variants(function: Callable, config: AnalyzeConfig) -> list[dict[str, str]]:
    """Of what and by which convention the function is asked, as far as it tells them apart."""
    asked = inspect.signature(function).parameters
    axes = []
    for key, values in {"of": ("prompt", "delta"), "convention": ("paper", "corrected")}.items():
        chosen = getattr(config, key)
        if chosen not in (*values, "both"):
            raise UserError(f"{key}={chosen}: must be {', '.join(values)} or both")
        if key in asked:
            axes.append([(key, value) for value in values if chosen in (value, "both")])
    return [dict(choice) for choice in itertools.product(*axes)]


def _function(name: str, options: dict[str, Any], allowed: Sequence[str]) -> partial:
    """The analysis's function with its options. Raises UserError for a target outside the allowed packages or an option it has not."""
    from hydra.utils import get_method

    target = str(options.get("_target_", ""))
    if not any(target.startswith(f"{package}.") for package in ("promptgeo.analysis", *allowed)):
        raise UserError(f"analysis.{name}._target_={target}: lies in no allowed package; 'allow=[{target.partition('.')[0]}]' allows yours")
    try:
        function = get_method(target)
    except Exception as error:
        raise UserError(f"analysis.{name}._target_={target}: cannot be imported: {error}") from error
    given = {k: v for k, v in options.items() if not k.startswith("_")}
    unknown = [k for k in given if k not in inspect.signature(function).parameters]
    if unknown:
        raise UserError(f"analysis.{name}.{unknown[0]}: no such option; it has {', '.join(k for k in inspect.signature(function).parameters if k != 'runs')}")
    return partial(function, **given)


def _source(function: partial) -> str:
    """The text of the function's file: an analysis that was mended is asked again."""
    file = inspect.getsourcefile(function.func)
    return Path(file).read_text(encoding="utf-8") if file else ""


def _compose(overrides: Sequence[str]) -> AnalyzeConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    ConfigStore.instance().store("analyze_schema", AnalyzeConfig)
    GlobalHydra.instance().clear()
    with initialize_config_dir(compose.conf_dir(), version_base="1.3"), compose.config_errors():
        return OmegaConf.to_object(hydra_compose("analyze", list(overrides)))


def main() -> None:
    """The console entry point. Exit status 2: the user must mend something. 1: these runs cannot support an analysis."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_help())
        return
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        answers = run_analyses(_compose(arguments), tell=lambda line: print(line, file=sys.stderr))
    except UserError as error:
        compose.exit_with(error)
    for answer in answers:
        for finding in answer.stored.info["findings"] if answer.stored else ():
            if finding.get("convention", "corrected") == "corrected":
                print(f"- {finding['sentence']}")
    if any(answer.refused for answer in answers):
        sys.exit(1)


def _help() -> str:
    keys = "\n".join(line[4:] for line in inspect.getsource(AnalyzeConfig).splitlines() if line.startswith("    ") and ":" in line and '"""' not in line)
    return f"{__doc__}\nAnalyses: {', '.join(available())}\n\nKeys:\n{keys}"


if __name__ == "__main__":
    main()
