"""Which function is an analysis, what is it given, are its options right? Checked before anything is computed."""

import inspect
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import NoneType
from typing import Any, cast, get_args

from promptgeo.analysis.own_code import OwnCode
from promptgeo.analysis.question import GIVEN, Convention, Of, Question, declaration
from promptgeo.config.compose_analyze import available
from promptgeo.config.explain import nearest
from promptgeo.errors import UserError

Variant = dict[str, Of | Convention]
"""{"of": Of.delta, "convention": Convention.paper}: the keyword arguments in which the calls of an analysis differ."""

OWN = "promptgeo.analysis"
"""The package of promptgeo's own questions: its functions need no allow=[...]."""
NO_CODE = OwnCode()


@dataclass(frozen=True)
class Analysis:
    """One analysis of a command: its name in conf/, its function and the options that the command gives."""

    name: str
    function: Callable[..., Any]
    options: dict[str, Any]
    where: str | None = None
    """Only runs for which this condition holds, of those that the command has."""

    @property
    def declared(self) -> Question:
        return declaration(self.function)

    def variants(self, of: str = "both", convention: str = "both") -> list[Variant]:
        """The keyword arguments of each call: every chosen `of` and `convention` that the function declares.

        Raises UserError for a choice that does not exist.
        """
        axes: list[list[tuple[str, Of | Convention]]] = []
        for key, chosen, kinds in (("of", of, list(Of)), ("convention", convention, list(Convention))):
            if chosen not in (*kinds, "both"):
                raise UserError(f"{key}={chosen}: must be {', '.join(kinds)} or both")
            if key in self.declared.given:
                axes.append([(key, kind) for kind in kinds if chosen in (kind, "both")])
        return [dict(choice) for choice in itertools.product(*axes)]


def analysis_of(name: str, settings: Any, allowed: Sequence[str] = (), own: OwnCode = NO_CODE) -> Analysis:
    """The analysis that a config's analysis.<name> stands for: `_target_` is its function, keys without _ its options.

    `_where_` chooses among the command's runs, for a study whose questions are each of a part of its grid.

    allowed: packages, beside promptgeo's own, that the function may lie in. own: whose modules it may lie in too.
    Raises UserError for a target that is not allowed, cannot be imported or is not an analysis, for an option that it
    does not have or of the wrong kind or that its own check refuses, and for a parameter that nothing gives.
    """
    if not isinstance(settings, dict):
        raise UserError(f"analysis.{name}={settings}: options are set one by one: analysis.{name}.<option>=<value>")
    if "_target_" not in settings:
        option = next(iter(settings), "<option>")
        raise UserError(
            f"analysis.{name}.{option}: analysis {name} is not chosen; 'analysis=[{name}]' chooses it, "
            f"if it is one of {', '.join(available())}"
        )
    function = _function(f"analysis.{name}._target_={settings['_target_']}", str(settings["_target_"]), allowed, own)
    where = settings.get("_where_")
    if where is not None and not isinstance(where, str):
        raise UserError(f"analysis.{name}._where_={where}: a condition on the run table is needed, as for where=")
    analysis = Analysis(name, function, {k: v for k, v in settings.items() if not k.startswith("_")}, where)
    _check_parameters(analysis)
    return analysis


def _function(key: str, target: str, allowed: Sequence[str], own: OwnCode) -> Callable[..., Any]:
    packages = (OWN, *allowed)

    def may_be_in(module: str) -> bool:
        return any(f"{module}.".startswith(f"{package}.") for package in packages) or own.has(module)

    module, _, name = target.rpartition(".")
    if not may_be_in(module):
        if hidden := own.hidden(module):
            raise UserError(f"{key}: {hidden} has the name of a module that lies elsewhere; rename yours")
        beside = f", or put it into {own.folder}/analysis" if own.folder else ""
        raise UserError(
            f"{key}: lies outside the allowed packages; 'allow=[{target.partition('.')[0]}]' allows yours{beside}"
        )
    try:
        function = getattr(import_module(module), name)
    except Exception as error:
        raise UserError(f"{key}: cannot be imported: {' '.join(str(error).split())}") from error
    home = str(getattr(function, "__module__", None))
    if not may_be_in(home):
        top = home.partition(".")[0]
        raise UserError(f"{key}: comes from {home}, which is not an allowed package; 'allow=[{top}]' allows it")
    if not callable(function) or next(iter(inspect.signature(function).parameters), None) != "runs":
        raise UserError(f"{key}: is not an analysis; a function name(runs, *, options) -> Result is needed")
    return cast(Callable[..., Any], function)


FEWEST_PERMUTATIONS = 19
"""With fewer no p is below .05: what is observed counts as one of them."""
MOST, MOST_SEED = 10**6, 2**63 - 1
"""Draws, examples, steps, ...: what is drawn or scored so often does not end, or needs more memory than there is."""


def _check_parameters(analysis: Analysis) -> None:
    """Raises UserError where options, declaration and the function's parameters do not fit together."""
    _, *parameters = inspect.signature(analysis.function).parameters.values()
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    declared = analysis.declared.given
    _check_options(analysis, {name: p for name, p in named.items() if name not in declared})
    for name in declared:
        if name not in named and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise UserError(
                f"analysis.{analysis.name}: its function declares {name} (@question({name}=True)) "
                f"but has no parameter {name}; add one or leave it out of @question"
            )
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in (*declared, *analysis.options):
            way = f"declare it with @question({name}=True)" if name in GIVEN else "give the parameter a default"
            option = "" if name in GIVEN else f", or analysis.{analysis.name}.{name}=<value>"
            raise UserError(f"analysis.{analysis.name}: nothing gives its function the parameter {name}; {way}{option}")
    _ask_its_own_check(analysis, named)


def _ask_its_own_check(analysis: Analysis, parameters: Mapping[str, inspect.Parameter]) -> None:
    """What the question refuses of its options, given or default, it refuses here (Question.check)."""
    check = analysis.declared.check
    if check is None:
        return
    asked = list(inspect.signature(check).parameters)
    if unknown := [name for name in asked if name not in parameters]:
        raise UserError(f"analysis.{analysis.name}: its check has the parameter {unknown[0]}, which is none of its own")
    check(**{name: analysis.options.get(name, parameters[name].default) for name in asked})


def _check_options(analysis: Analysis, parameters: Mapping[str, inspect.Parameter]) -> None:
    for option, value in analysis.options.items():
        key = f"analysis.{analysis.name}.{option}"
        if option not in parameters:
            instead = nearest(option, list(parameters)) if parameters else f"{analysis.name} has none"
            raise UserError(f"{key}: no such option; {instead}")
        if value is not None or not _admits_none(parameters[option]):
            least = 0 if option == "seed" or option in analysis.declared.zero else 1
            least = FEWEST_PERMUTATIONS if option == "permutations" else least
            most = MOST_SEED if option == "seed" else MOST
            _check_value(key, value, parameters[option], (least, most))


def _admits_none(parameter: inspect.Parameter) -> bool:
    """Whether null is one of its values: int | None."""
    annotation = parameter.annotation
    return "None" in annotation if isinstance(annotation, str) else NoneType in get_args(annotation)


def _kind(parameter: inspect.Parameter) -> Any:
    """What kind of value an option has: its default's, or where that is None, what its annotation has beside None."""
    if parameter.default is not None and parameter.default is not parameter.empty:
        return type(parameter.default)
    kinds = [kind for kind in get_args(parameter.annotation) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) else object


def _check_value(key: str, value: Any, parameter: inspect.Parameter, limits: tuple[int, int]) -> None:
    """Raises UserError for a value of another kind than the parameter's; limits: of whole numbers."""
    kind, (least, most) = _kind(parameter), limits
    if issubclass(kind, bool):
        ok, wanted = isinstance(value, bool), "true or false"
    elif issubclass(kind, int):
        ok = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        wanted = f"a whole number from {least} to {most:,}"
    elif issubclass(kind, float):
        ok, wanted = _is_number(value), "a finite number"
    elif issubclass(kind, str):
        ok, wanted = isinstance(value, str), "a text (in quotes where it looks like a number)"
    elif issubclass(kind, tuple | list):
        ok, wanted = isinstance(value, tuple | list), f"a list, as in '{key}=[a,b]'"
        if ok and parameter.default:
            of_texts = all(isinstance(each, str) for each in parameter.default)
            ok = all(isinstance(each, str) if of_texts else _is_number(each) for each in value)
            wanted = "a list of texts" if of_texts else "a list of numbers"
    else:
        inside = value.values() if isinstance(value, dict) else [value]
        ok = all(abs(each) <= sys.float_info.max for each in inside if isinstance(each, int | float))
        wanted = "finite numbers"
    if not ok:
        raise UserError(f"{key}={value}: must be {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
