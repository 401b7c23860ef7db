"""python -m promptgeo.analyze runs=outputs/<name> 'analysis=[mean_distances,neighbours]': questions asked of finished runs.

Results lie in <runs>/analysis/<analysis>/; what was asked of the same runs with the same options is not asked again.
An option of an analysis is set by analysis.<name>.<option>=<value>. An analysis of your own lies in your own package:
mine/analysis/<name>.yaml with its _target_, --config-dir mine and 'allow=[<package>]'.
"""

import argparse
import difflib
import inspect
import itertools
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from promptgeo import compose, explain
from promptgeo.errors import UserError
from promptgeo.interruption import Interrupted, interruptible
from promptgeo.paths import conf_dir

if TYPE_CHECKING:
    from promptgeo.analysis.result import Result, Stored
    from promptgeo.frozen_lm import FrozenLM
    from promptgeo.run_table import RunTable

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
    """Why these runs cannot support it, or how it failed."""
    skipped: bool = False


class _AlsoTheFunction(ModuleType):
    """Importing this module binds it to the name that pg.analyze has; called, it is that function."""

    def __call__(self, *overrides: str, **choices: Any) -> list[Answered]:
        return analyze(*overrides, **choices)


sys.modules[__name__].__class__ = _AlsoTheFunction


def analyze(*overrides: str, config_dir: str | Path | None = None, **choices: Any) -> list[Answered]:
    """Run the analyses that are named; each one's results are stored, and returned in order.

    choices: runs="outputs/init_vs_task", analysis=["neighbours"], of="delta", ...; an option of an analysis as an override,
    "analysis.neighbours.seed=1". Raises UserError for a wrong key, an unknown analysis or runs that cannot be read. An analysis that
    these runs cannot support is returned with the reason.
    """
    plain = {key: list(map(str, value)) if isinstance(value, list | tuple) else str(value) if isinstance(value, Path) else value for key, value in choices.items()}
    return run_analyses(_compose([*(f"{key}={compose.literal(value)}" for key, value in plain.items()), *overrides], config_dir))


def run_analyses(config: AnalyzeConfig, tell: Callable[[str], None] = lambda line: None) -> list[Answered]:
    """Answer the config's questions one by one; what is answered already is read. `tell` hears of each in one line.

    An analysis that these runs cannot support, or that fails, leaves its earlier results as they were; the others are done.
    """
    from promptgeo.analysis.result import digest, read, store, stored_key

    folders = [config.runs] if isinstance(config.runs, str) else config.runs or []
    if not folders or not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise UserError("runs: name the runs' folder, or several: runs=outputs/<name>, 'runs=[outputs/<one>,outputs/<two>]'")
    functions = {name: _function(name, options, config.allow) for name, options in config.analysis.items()}
    if not functions:
        raise UserError(f"analysis: name the questions: 'analysis=[{','.join(available()[:2])}]' (there are {', '.join(available())})")
    runs, left_out = _runs(folders, config.where)
    for line in left_out:
        tell(f"left out: {line}")
    if len(folders) > 1 and not config.out:
        raise UserError("runs: several folders have no place in common for their results; name one with out=<folder>")
    out = Path(config.out) if config.out else Path(folders[0]).expanduser() / "analysis"
    for name in functions:
        if (out / name).exists() and stored_key(out / name) is None and not _unfinished(out / name):
            raise UserError(f"{out / name}: is no analysis's folder and would be replaced; choose another with out=<folder>")
    materials = _Materials(runs, config)
    answers = []
    for count, (name, function) in enumerate(functions.items(), start=1):
        options = {k: v for k, v in config.analysis[name].items() if not k.startswith("_")}
        variants = _variants(function, config)
        asked = materials.named_for(function)
        key = digest([(run.id, run.info["sha256"]) for run in runs.runs], options, variants, asked, version("promptgeo"), _source(function))
        if not config.overwrite and stored_key(out / name) == key:
            answers.append(Answered(name, read(out / name), skipped=True))
            tell(f"{name}: answered already, skipped (overwrite=true asks again)")
            continue
        start = time.perf_counter()
        tell(f"{name} ({count} of {len(functions)}) ...")
        try:
            results = _results(function, runs, materials, variants, partial(_tell_variant, tell, name))
        except UserError as error:
            reason = str(error).removeprefix(f"{name}: ")
            answers.append(Answered(name, None, refused=reason))
            tell(f"{name}: left out: {reason}")
            continue
        except Exception as error:  # an analysis that fails costs none of the others
            log.debug("", exc_info=error)
            answers.append(Answered(name, None, refused=_failure(error)))
            tell(f"{name}: left out: {answers[-1].refused}")
            continue
        seconds = round(time.perf_counter() - start, 1)
        info = {"options": options, "runs": len(runs), "left_out": left_out, "seconds": seconds, "versions": {"promptgeo": version("promptgeo")}}
        answers.append(Answered(name, store(out / name, name, key, info, results)))
        for omission in answers[-1].stored.info["omissions"]:
            tell(f"{name}: left out: {omission}")
        tell(f"{name}: {seconds} s, {out / name}/")
    return answers


def _results(
    function: Callable, runs: "RunTable", materials: "_Materials", variants: list[dict[str, str]], tell: Callable[[str], None]
) -> "list[tuple[dict[str, str], Result]]":
    """The result of each variant that these runs support; the first one's omissions say what they do not. Raises UserError where they support none."""
    results, refused = [], {}
    for variant in variants:
        if len(variants) > 1:
            tell(", ".join(variant.values()))
        try:
            results.append((variant, function(runs, **materials.of(function), **variant)))
        except UserError as error:
            refused.setdefault(str(error), []).append(variant)
    if not results:
        raise UserError("; ".join(refused))
    results[0][1].omissions[:0] = [f"{_telling_apart(those, variants)}: {reason}" for reason, those in refused.items()]
    return results


def _failure(error: Exception) -> str:
    """A failure in one line, with its place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())} ({place.filename}:{place.lineno})"


def _tell_variant(tell: Callable[[str], None], name: str, variant: str) -> None:
    tell(f"{name}: {variant} ...")


def _telling_apart(some: list[dict[str, str]], variants: list[dict[str, str]]) -> str:
    """What some of the variants have in common and the others have not: of=delta."""
    values = {key: list(dict.fromkeys(v[key] for v in some)) for key in some[0]}
    return " ".join(f"{key}={','.join(found)}" for key, found in values.items() if len(found) < len({v[key] for v in variants}))


def _unfinished(folder: Path) -> bool:
    """Whether nothing lies there, or only what an analysis writes."""
    return folder.is_dir() and all(p.suffix in (".csv", ".svg") or p.name == "result.json" for p in folder.iterdir())


def _runs(folders: Sequence[str], where: str | None) -> "tuple[RunTable, list[str]]":
    """The runs to ask, and which were left out and why: damaged, not completed."""
    from promptgeo.run_folder import Run, find_runs
    from promptgeo.run_table import table_of

    found: dict[str, Run] = {}
    left_out = []
    for folder in folders:
        runs, damaged = find_runs(folder)
        left_out += [str(error) for error in damaged]
        left_out += [f"{run.folder.name}: {run.status}" for run in runs if run.status not in USABLE]
        for run in runs:
            if run.status in USABLE and found.setdefault(run.id, run).folder.resolve() != run.folder.resolve():
                left_out.append(f"{run.folder}: is the same run as {found[run.id].folder}")
    table = table_of(list(found.values()))
    try:
        table = table.query(where) if where and found else table
    except UserError as error:
        raise UserError(f"where={error}") from error
    if not len(table):
        raise UserError(f"runs={','.join(map(str, folders))}: no completed runs lie there{f' for which {where}' if where else ''}")
    return table, left_out


def available() -> list[str]:
    """The analyses that conf/analysis/ provides."""
    return sorted(p.stem for p in (Path(conf_dir()) / "analysis").glob("*.yaml"))


class _Materials:
    """What analyses may ask for beside the runs, made once and only if asked for: the frozen model, its vocabulary."""

    def __init__(self, runs: "RunTable", config: AnalyzeConfig):
        self.runs, self.config = runs, config

    def of(self, function: Callable) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.of_names(function)}

    @staticmethod
    def of_names(function: Callable) -> list[str]:
        return [name for name in ("lm", "vocabulary") if name in inspect.signature(function).parameters]

    def named_for(self, function: Callable) -> list[str | None]:
        """What the command says of the model, if the function asks for it."""
        return [self.config.model, self.config.precision] if self.of_names(function) else []

    @cached_property
    def lm(self) -> "FrozenLM":
        from promptgeo.frozen_lm import FrozenLM
        from promptgeo.loading import local_folder

        name, revision = self._model()
        precision = self.config.precision
        if precision == "auto":
            precisions = sorted(self._said(lambda info: info["precision"]))
            if len(precisions) > 1:
                raise UserError(f"these runs were trained in different precisions ({', '.join(precisions)}); choose one with precision=...")
            precision = precisions[0] if precisions else "auto"
        if local_folder(name):  # nothing to wait for; a download keeps its bar
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()
        lm = FrozenLM.load(name, revision=revision, precision=precision, device=self.config.device)
        if self._said(lambda info: info["fingerprints"]["model"]) - {lm.fingerprint}:
            raise UserError(f"model {name} is not the one that these runs were trained on (its content differs); name that one with model=<folder>")
        if (width := self.runs.runs[0].prompt().shape[1]) != lm.width:
            raise UserError(f"model {name} has width {lm.width}, these prompts {width}: they were trained on another one; name it with model=<hub id or folder>")
        return lm

    def _model(self) -> tuple[str, str | None]:
        if len(self._said(lambda info: info["fingerprints"]["model"])) > 1:
            raise UserError("these runs were trained on different models; choose some with where=\"model == '...'\"")
        if self.config.model is not None:
            return self.config.model, None
        models = self._said(lambda info: (m["name_or_path"], m["revision"]) if (m := info["config"]["model"])["name_or_path"] else None)
        if not models:
            raise UserError("these prompts were imported without their model; name it with model=<hub id or folder>")
        if len(models) > 1:
            raise UserError(f"these runs have different models ({', '.join(sorted({m[0] for m in models}))}); choose some with where=\"model == '...'\", or name it with model=...")
        return models.pop()

    def _said(self, what: Callable[[dict[str, Any]], Any]) -> set:
        """What the runs say, without those that do not know."""
        return {what(run.info) for run in self.runs.runs} - {None}

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


GIVEN = ("runs", "of", "convention", "lm", "vocabulary")
"""What a command gives to a function: no options."""


def _function(name: str, options: Any, allowed: Sequence[str]) -> partial:
    """The analysis's function with its options. Raises UserError for a target outside the allowed packages or an option it has not."""
    from hydra.utils import get_method

    if not isinstance(options, dict):
        raise UserError(f"analysis.{name}={options}: options are set one by one: analysis.{name}.<option>=<value>")
    if "_target_" not in options:
        option = next(iter(options), "<option>")
        raise UserError(f"analysis.{name}.{option}: analysis {name} is not asked; 'analysis=[{name}]' asks it, if it is one of {', '.join(available())}")
    target = str(options["_target_"])
    packages = ("promptgeo.analysis", *allowed)
    if not any(target.startswith(f"{package}.") for package in packages):
        raise UserError(f"analysis.{name}._target_={target}: lies in no allowed package; 'allow=[{target.partition('.')[0]}]' allows yours")
    try:
        function = get_method(target)
    except Exception as error:
        raise UserError(f"analysis.{name}._target_={target}: cannot be imported: {error}") from error
    home = str(getattr(function, "__module__", None))
    if not any(f"{home}.".startswith(f"{package}.") for package in packages):
        raise UserError(f"analysis.{name}._target_={target}: comes from {home}, which is no allowed package; 'allow=[{home.partition('.')[0]}]' allows it")
    parameters = inspect.signature(function).parameters
    if next(iter(parameters), None) != "runs":
        raise UserError(f"analysis.{name}._target_={target}: is no analysis; a function name(runs, *, options) -> Result is needed")
    given = {k: v for k, v in options.items() if not k.startswith("_")}
    valid = [k for k in parameters if k not in GIVEN]
    for option in given:
        if option not in valid:
            raise UserError(f"analysis.{name}.{option}: no such option; {_nearest(option, valid) if valid else f'{name} has none'}")
        _check_value(f"analysis.{name}.{option}", given[option], parameters[option].default)
    return partial(function, **given)


def _check_value(key: str, value: Any, default: Any) -> None:
    """Raises UserError for a value of another kind than the default's: a wrong option stops a command before it begins."""
    if isinstance(default, bool):
        ok, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        least = 0 if key.endswith(".seed") else 1
        ok, wanted = isinstance(value, int) and not isinstance(value, bool) and value >= least, f"a whole number from {least}"
    elif isinstance(default, float):
        ok, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    elif isinstance(default, tuple | list):
        ok, wanted = isinstance(value, tuple | list), f"a list, as in '{key}=[a,b]'"
    else:
        return
    if not ok:
        raise UserError(f"{key}={value}: must be {wanted}")


def _source(function: partial) -> dict[str, str]:
    """The text of the function's file and of what it uses in the same package, by module: an analysis that was mended is asked again."""
    texts: dict[str, str] = {}
    package = function.func.__module__.rpartition(".")[0] or function.func.__module__
    todo = [function.func.__module__]
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        if name in texts or not getattr(module, "__file__", None):
            continue
        texts[name] = Path(module.__file__).read_text(encoding="utf-8")
        used = {v.__name__ if inspect.ismodule(v) else getattr(v, "__module__", None) for v in vars(module).values()}
        todo += sorted(u for u in used if isinstance(u, str) and f"{u}.".startswith(f"{package}."))
    return texts


def _compose(overrides: Sequence[str], config_dir: str | Path | None = None) -> AnalyzeConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    searchpath = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir {config_dir}: no such folder")
        searchpath = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    ConfigStore.instance().store("analyze_schema", AnalyzeConfig)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"), explain.config_errors():
            checked = [_checked(line, searchpath) for line in overrides]
            named = [line for line in checked if line.startswith("model=")]  # Hydra would look for it in the group of that name, which is training's
            composed = hydra_compose("analyze", [*(line for line in checked if line not in named), *searchpath])
            for override in OverridesParser.create().parse_overrides(named):
                composed.model = override.value()
            return OmegaConf.to_object(composed)
    finally:
        GlobalHydra.instance().clear()


def _checked(line: str, searchpath: list[str]) -> str:
    """An override as Hydra shall have it. Raises UserError for a key or an analysis that does not exist."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(loader)
    try:
        if line.startswith("="):
            raise OverrideParseException(line, "no key")
        if line.startswith("where="):
            line = _whole_text(line, parser)
        (override,) = parser.parse_overrides([line])
    except OverrideParseException as error:
        raise UserError(f"{line}: cannot be read as key=value (a text is quoted twice: 'key=\"a text\"')") from error
    key = override.get_key_element().lstrip("+~")
    keys = list(AnalyzeConfig.__dataclass_fields__)
    if key not in keys and not key.startswith("analysis."):
        raise UserError(f"{key}: no such key; {_nearest(key, keys)}")
    if line[0] in "+~":
        raise UserError(f"{line}: {key} exists already; write {key}=<value>")
    if override.is_sweep_override():
        raise UserError(f"{line}: takes one value (a list is written '{key}=[a,b]', a text with a comma '{key}=\"...\"')")
    if key == "analysis":
        _check_names(override.value(), loader.get_group_options("analysis", config_name="analyze", overrides=searchpath))
    return f"++{line}" if key.startswith("analysis.") else line  # _function knows which options there are


def _whole_text(line: str, parser: Any) -> str:
    """A query as the shell leaves it, task == 'plus_one', is no value in Hydra's grammar until it is quoted."""
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import OverrideParseException

    key, _, text = line.partition("=")
    try:
        (override,) = parser.parse_overrides([line])
        if not override.is_sweep_override() and override.value() != text:  # quoted for Hydra already, or null
            return line
    except OverrideParseException:
        pass
    return f"{key}={QuotedString(text, Quote.double).with_quotes()}"


def _check_names(value: Any, names: Sequence[str]) -> None:
    for name in value if isinstance(value, list) else [value]:
        name = str(getattr(name, "text", name))
        if name not in names:
            raise UserError(f"analysis={name}: no such analysis; {_nearest(name, names)}")


def _nearest(word: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, valid, n=3)
    return f"nearest: {', '.join(near)}" if near else f"one of {', '.join(valid)}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main() -> None:
    """The console entry point.

    Exit status 2: the user must mend something. 1: these runs cannot support an analysis; the others are done. 130, 143: stopped by
    Ctrl-C, SIGTERM.
    """
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_help())
        return
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # python -m has it: an analysis of one's own may lie here
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    with interruptible():
        try:
            given = parser.parse_intermixed_args(arguments)
            answers = run_analyses(_compose(given.overrides, given.config_dir), tell=lambda line: print(line, file=sys.stderr, flush=True))
        except UserError as error:
            explain.exit_with(error)
        except Interrupted as stop:
            print(f"promptgeo: stopped by {stop}; what was answered is kept, the same command asks the rest", file=sys.stderr)
            sys.exit(stop.exit_status)
    for answer in answers:
        for line in findings(answer):
            print(line)
    if any(answer.refused for answer in answers):
        sys.exit(1)


def findings(answer: Answered) -> list[str]:
    """An analysis's findings by the corrected convention as a list to print; those of prompts and deltas told apart where there are both."""
    told = [f for f in answer.stored.info["findings"] if f.get("convention", "corrected") == "corrected"] if answer.stored else []
    both = len({f.get("of") for f in told}) > 1
    return [f"- {f['of']}: {f['sentence']}" if both and "of" in f else f"- {f['sentence']}" for f in told]


def _help() -> str:
    shown = {"None": "null", "field(default_factory=dict)": "{}", "field(default_factory=list)": "[]", "False": "false"}
    keys = re.findall(r"^    (\w+): .+? = (.+?)  # (.+)$", inspect.getsource(AnalyzeConfig), re.MULTILINE)
    lines = [f"  {key + '=' + shown.get(default, default.strip(chr(34))):17} {comment}" for key, default, comment in keys]
    return "\n".join([__doc__, "Analyses:", *map(_header, available()), "", "Keys:", *lines])


def _header(name: str) -> str:
    """What the analysis's file says it provides and needs."""
    text = (Path(conf_dir()) / "analysis" / f"{name}.yaml").read_text(encoding="utf-8")
    header = re.search(rf"^# analysis={name}: (.+)$", text, re.MULTILINE)
    return f"  {name:17} {header[1] if header else ''}"


if __name__ == "__main__":
    main()
