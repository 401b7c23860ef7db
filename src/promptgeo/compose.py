"""Between the command line and RunConfig: where `conf/` lies, the schema Hydra merges into, and errors in one line.

The whole grid of a command is composed and checked here before Hydra makes a folder.
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from promptgeo.schema import RunConfig, with_coupled_seeds
from promptgeo.errors import UserError


def conf_dir() -> str:
    """The packaged conf/ of an installed wheel, else the repository's own: an editable install never sees a stale copy."""
    packaged = Path(__file__).parent / "conf"
    return str(packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf")


def register() -> None:
    """The schema as Hydra config `run_schema`, and the resolver that names a run's folder."""
    ConfigStore.instance().store("run_schema", RunConfig)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)


def _run_folder(_root_: DictConfig) -> str:
    from promptgeo.planning import folder_name, run_identity

    config = to_run_config(_root_)
    return folder_name(config, run_identity(config))


def to_run_config(composed: DictConfig) -> RunConfig:
    """The typed config, without Hydra's own node. Raises UserError for what does not fit the schema."""
    return with_coupled_seeds(_as_given(composed))


def _as_given(composed: DictConfig) -> RunConfig:
    with config_errors():
        own = OmegaConf.to_container(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]), resolve=True)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), own))


def interior_multirun_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's parser takes no override after an interior -m; promptgeo does."""
    flags = [a for a in arguments if a in ("-m", "--multirun")]
    return flags[:1] + [a for a in arguments if a not in ("-m", "--multirun")]


def compose(overrides: Sequence[str]) -> RunConfig:
    """One run's config from overrides as on the command line."""
    with _composer():
        _require_single(_checked(overrides))
        return to_run_config(hydra_compose("train", list(overrides)))


def compose_grid(overrides: Sequence[str], multirun: bool = False) -> list[RunConfig]:
    """Every config that a command line stands for; a sweep's file may make it a grid without -m."""
    with _composer():
        given = _checked(overrides)
        composed = hydra_compose("train", [o.input_line for o in given if not o.is_sweep_override()], return_hydra_config=True)
        if not multirun and composed.hydra.mode is not RunMode.MULTIRUN:
            _require_single(given)
            return [to_run_config(composed)]
        params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items()]
        return _grid([*_checked(params), *given])


def _grid(overrides: Sequence[Override]) -> list[RunConfig]:
    """The configs of a grid, in the sweeper's order.

    Composing one takes Hydra a sixth of a second. So an option that changes nothing but its own key or section, and interpolates nothing
    there, is composed once, and then put into every config that has it.
    """
    (jobs,) = BasicSweeper.split_arguments(list(overrides), None)
    first, axes = jobs[0], {o.get_key_element() for o in overrides if o.is_sweep_override()}
    whole: dict[tuple[str, ...], RunConfig] = {}
    own: dict[str, Any] = {}  # option -> what it makes of its key, _JOINT if it reaches beyond

    def composed(job: Sequence[str]) -> RunConfig:
        if (found := tuple(job)) not in whole:
            whole[found] = _as_given(hydra_compose("train", list(job)))
        return whole[found]

    def alone(index: int, option: str) -> Any:
        if option not in own:
            job, key = [*first[:index], option, *first[index + 1 :]], option.partition("=")[0]
            if key.startswith("hydra"):
                return own.setdefault(option, _JOINT)
            raw = OmegaConf.to_container(hydra_compose("train", job), resolve=False)
            asked = re.findall(r"\$\{([^:}]*)", str(raw))  # keys that something interpolates
            related = (k for k in (*asked, *axes - {key}) if k.startswith((".", f"{key}.")) or f"{key}.".startswith(f"{k}."))
            value = attrgetter(key)(composed(job))
            confined = "${" not in str(raw[key.partition(".")[0]]) and not any(related) and _with(composed(first), key, value) == composed(job)
            own[option] = value if confined else _JOINT
        return own[option]

    configs = []
    for job in jobs:
        values = {i: alone(i, option) for i, option in enumerate(job) if option != first[i]}
        config = composed([option if values.get(i) is _JOINT else first[i] for i, option in enumerate(job)])
        for i, value in values.items():
            if value is not _JOINT:
                config = _with(config, job[i].partition("=")[0], value)
        configs.append(with_coupled_seeds(config))
    return configs


_JOINT = object()


def _with(config: Any, key: str, value: Any) -> Any:
    """The config with one key, or section, replaced."""
    name, _, rest = key.partition(".")
    return replace(config, **{name: _with(getattr(config, name), rest, value) if rest else value})


@contextmanager
def _composer() -> Iterator[None]:
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"), config_errors():
            yield
    finally:
        GlobalHydra.instance().clear()


def _require_single(overrides: Sequence[Override]) -> None:
    for o in overrides:
        if o.is_sweep_override():
            raise UserError(f"{o.input_line}: several values need -m (one text with a comma is quoted twice: '{o.key_or_group}=\"...\"')")


def _checked(lines: Sequence[str]) -> list[Override]:
    """Overrides as Hydra parses them. Raises UserError for a key or a group's option that does not exist."""
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = []
    for line in lines:
        if line.startswith("="):
            raise UserError(f"{line}: has no key")
        try:
            overrides += parser.parse_overrides([line])
        except OverrideParseException as error:
            raise UserError(f"{line}: cannot be read as key=value (a text is quoted twice: 'key=\"a text\"')") from error
        if overrides[-1].is_interval_sweep():
            raise UserError(f"{line}: a grid needs values that can be listed: a,b,c or range(0,3)")
    searchpath = [o.input_line for o in overrides if o.key_or_group == "hydra.searchpath"]
    for override in overrides:
        if not override.key_or_group.startswith(("hydra.", "hydra/")):
            _check(override, searchpath)
    return overrides


def _check(override: Override, searchpath: list[str]) -> None:
    key = override.get_key_element().lstrip("+~")
    groups = _groups()
    if key not in groups and key not in _sections() and key not in _keys():
        raise UserError(_unknown_key(key))
    if override.is_delete():
        raise UserError(f"~{key}: a run needs every key, so none can be left out")
    if override.is_add() or (override.type is not OverrideType.CHANGE and key in groups):
        raise UserError(f"{override.input_line}: {key} exists already; write it without +")
    if key in groups:
        # Hydra would take the last of a list for a group, and say nothing.
        options = GlobalHydra.instance().config_loader().get_group_options(key, config_name="train", overrides=searchpath)
        values = [getattr(v, "text", v) for v in override.sweep_iterator()] if override.is_discrete_sweep() else [override.value()]
        for value in values:
            if value not in options:
                raise UserError(_unknown_option(key, value, options))
    elif key in _sections() and not isinstance(override.value(), dict):
        raise UserError(f"{override.input_line}: {key} is a section; its keys: {', '.join(k for k in _keys() if k.startswith(f'{key}.'))}")


@contextmanager
def config_errors() -> Iterator[None]:
    """Hydra's and OmegaConf's exceptions as one line that names the key and the nearest valid ones."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(explain(error)) from error


def explain(error: BaseException) -> str:
    """One line for an exception that Hydra or OmegaConf raised while composing: the innermost one knows the key."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in reversed(chain):
        if isinstance(link, UserError):
            return str(link)
    if missing := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", str(error)):
        return _unknown_option(missing[1], missing[2], GlobalHydra.instance().config_loader().get_group_options(missing[1]))
    file = re.match(r"In '([^']+)'", str(error))
    where = f"{file[1]}.yaml: " if file else ""
    for link in reversed(chain):
        if key := getattr(link, "full_key", None):
            return where + _at_key(key, link)
    return " ".join(str(error).split()) if isinstance(error, YAMLError) else where + _first_line(error)


def _at_key(key: str, error: BaseException) -> str:
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(key)
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: a value is needed"
    if "is not a ListConfig" in str(error):
        return f"{key}: a list is needed, as in '{key}=[a,b]'"
    return f"{key}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _unknown_option(group: str, option: object, options: Sequence[str]) -> str:
    option = "null" if option is None else str(option)
    near = difflib.get_close_matches(option, options, n=3)
    return f"{group}={option}: no such {group}; {_one_of(near, options)}"


def _unknown_key(key: str) -> str:
    """The same word in another section first, then what is spelt alike, else what stands in the key's own section."""
    if key.startswith("hydra"):
        return f"{key}: Hydra has no such key; --cfg hydra shows its own"
    valid = [*_groups(), *_keys()]
    last = key.rpartition(".")[2]
    near = [k for k in valid if k.rpartition(".")[2] == last][:4] or difflib.get_close_matches(key, valid, n=3)
    section = next((s for s in (key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)) if s in _sections()), "")
    inside = [k for k in _keys() if k.startswith(f"{section}.")] if section else sorted({k.partition(".")[0] for k in valid})
    return f"{key}: no such key; {_one_of(near, inside)}"


def _one_of(near: Sequence[str], valid: Sequence[str]) -> str:
    return f"nearest: {', '.join(near)}" if near else f"one of {', '.join(valid)}"


@lru_cache
def _groups() -> list[str]:
    return sorted(p.name for p in Path(conf_dir()).iterdir() if p.is_dir() and p.name != "analysis")  # those are promptgeo.analyze's


@lru_cache
def _keys() -> list[str]:
    """Every key of the schema, with its sections: training.epochs."""

    def walk(cls: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(cls)
        for f in fields(cls):
            if is_dataclass(hints[f.name]):
                yield from walk(hints[f.name], f"{prefix}{f.name}.")
            else:
                yield f"{prefix}{f.name}"

    return list(walk(RunConfig, ""))


@lru_cache
def _sections() -> set[str]:
    """training, training.early_stopping, ..."""
    return {key[:at] for key in _keys() for at, character in enumerate(key) if character == "."}


def exit_with(error: UserError) -> None:
    """One line on standard error, exit status 2."""
    print("promptgeo:", " ".join(str(error).splitlines()), file=sys.stderr)
    sys.exit(2)


def show_full_errors() -> None:
    """Let Hydra raise what it would otherwise print over several lines."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
