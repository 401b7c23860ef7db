"""How does a command line become configs? The whole grid is composed and checked before Hydra makes a folder."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from promptgeo.config import spelling
from promptgeo.config.composing import hydra_config
from promptgeo.config.explain import config_errors, entry, unknown_key, unknown_option
from promptgeo.config.grid import MOST_RUNS, count, drawn, grid_of, jobs_of
from promptgeo.config.interpolation import require_bounded
from promptgeo.config.paths import conf_dir, data_name, groups, model_name
from promptgeo.config.schema import (
    DEFAULT_RATE,
    Grid,
    Regulariser,
    RegulariserKind,
    RunConfig,
    flatten,
    keys,
    meanings,
    sections,
    texts,
)
from promptgeo.config.validate import require, validate_grid
from promptgeo.errors import UserError


def register() -> None:
    """The schema as Hydra's config `run_schema`, which conf/train.yaml begins with; and what conf/ interpolates."""
    ConfigStore.instance().store("run_schema", RunConfig)
    OmegaConf.register_new_resolver("model_name", model_name, replace=True)
    OmegaConf.register_new_resolver("data_name", data_name, replace=True)
    spelling.register()


def with_own_model(overrides: Sequence[str]) -> list[str]:
    """model.name_or_path without model= is a model of the user's own: it inherits nothing of the default's."""
    keys_given = [override.partition("=")[0].lstrip("+~") for override in overrides]
    # model.name_or_path=tiny names the default.
    if "model.name_or_path" in keys_given and not {"model", "model.name_or_path=tiny"} & {*keys_given, *overrides}:
        return ["model=custom", *overrides]
    return list(overrides)


def to_run_config(composed: DictConfig) -> RunConfig:
    """The typed config, without Hydra's own node. Raises UserError for what does not fit the schema."""
    return _completed(_as_written(composed))


def _as_written(composed: DictConfig) -> RunConfig:
    with config_errors():
        without_hydra = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
        require_bounded(without_hydra)
        resolved = OmegaConf.to_container(without_hydra, resolve=True)
        _require_texts(cast(dict, resolved))
        written = repr(resolved)  # Hydra hands over each job of a grid several times
        if written not in _typed:
            merged = OmegaConf.merge(OmegaConf.structured(RunConfig), resolved)
            if len(_typed) >= 8:  # one job after the other; a large grid must not fill the memory
                _typed.pop(next(iter(_typed)))
            _typed[written] = cast(RunConfig, OmegaConf.to_object(merged))
    return deepcopy(_typed[written])


_typed: dict[str, RunConfig] = {}


def _require_texts(resolved: dict) -> None:
    """Raises UserError where a number or a truth value stands for a text: what is interpolated is not respelt."""
    for key, value in flatten(resolved).items():
        values = value if isinstance(value, list) else [value]
        if key in texts() and any(isinstance(each, bool | float) for each in values):
            raise UserError(f"{key}={value}: must be a text, written in quotes")


def _completed(config: RunConfig) -> RunConfig:
    """A whole config with what follows from several of its keys."""
    if config.model.name == "tiny" and config.model.name_or_path != "tiny":
        # A file of the user's named another model and no option: it inherits nothing of the default's.
        name = model_name(config.model.name_or_path)
        config = replace(config, model=replace(config.model, name=name, learning_rate=None))
    return _with_rate(_with_wayward_text(with_coupled_seeds(config)))


def _with_rate(config: RunConfig) -> RunConfig:
    """The config with the learning rate that its model has where none is given."""
    optimizer, of_model = config.optimizer, config.model.learning_rate
    if optimizer.lr is None and optimizer.lr_in_embedding_units is None:
        units = DEFAULT_RATE if of_model is None else None
        return replace(config, optimizer=replace(optimizer, lr=of_model, lr_in_embedding_units=units))
    return config


def with_coupled_seeds(config: RunConfig) -> RunConfig:
    """regulariser.size as the seeds that it stands for, so that a run is the same whichever way its group was given."""
    regulariser = config.regulariser
    if regulariser.name is not RegulariserKind.orthogonal or regulariser.size is None:
        return config
    size = regulariser.size
    require(1 <= size <= MOST_RUNS, "regulariser.size", size, f"from 1 to {MOST_RUNS:,}")
    require(not regulariser.seeds, "regulariser.size", size, "null where regulariser.seeds names the seeds")
    if size == 1:
        return replace(config, regulariser=Regulariser())
    first = config.seed // size * size
    return replace(config, regulariser=replace(regulariser, size=None, seeds=list(range(first, first + size))))


def _with_wayward_text(config: RunConfig) -> RunConfig:
    """The text that a wayward prompt is held to, where none is named; an init without one is as long as it.

    init=text starts from it; init=vocab without prompt.length from as many tokens of the vocabulary.
    """
    regulariser, init = config.regulariser, config.init
    if regulariser.name is not RegulariserKind.wayward:
        return config
    text = config.task.text if regulariser.text is None else regulariser.text
    as_long = init.name == "text" or (init.name == "vocab" and config.prompt.length is None)
    if as_long and init.text is None:
        init = replace(init, text=text)
    return replace(config, init=init, regulariser=replace(regulariser, text=text))


def literal(value: Any) -> str:
    """A Python value as Hydra's override grammar writes it; texts are quoted, so that "null" or "1e3" stay texts."""
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(literal, value))}]"
    return "null" if value is None else str(value)


def assignment(key: str, value: Any) -> str:
    """key=value of Python's as Hydra's override grammar writes it.

    Raises UserError for a number or truth value where a text is wanted.
    """
    values = value if isinstance(value, list | tuple) else [value]
    # A whole number has one spelling; 1e3 and true have several.
    if key in texts() and any(isinstance(each, bool | float) for each in values):
        raise UserError(f"{key}={value}: must be a text, written in quotes")
    if isinstance(value, list | tuple):
        value = [spelling.escaped(key, each) if isinstance(each, str) else each for each in value]
    return f"{key}={literal(spelling.escaped(key, value) if isinstance(value, str) else value)}"


def compose(overrides: Sequence[str]) -> RunConfig:
    """One run's config from overrides as on the command line."""
    overrides = with_own_model(overrides)
    with composer():
        checked = _checked(overrides)
        _require_single(checked)
        config = to_run_config(hydra_config([o.input_line for o in checked]))
        _require_no_zip(config.grid)
        return config


def as_spelt(overrides: Sequence[str]) -> list[str]:
    """The overrides as they are to be handed to Hydra itself: texts keep their spelling."""
    with composer():
        return [o.input_line for o in _checked(overrides)]


class Launcher(NamedTuple):
    """Who trains the runs of a command: hydra/launcher, with hydra.launcher.*"""

    name: str
    settings: DictConfig


class Command(NamedTuple):
    """What a command line stands for."""

    configs: list[RunConfig]
    launcher: Launcher
    drawn: list[str]
    """A line for each key whose values were drawn."""


def compose_grid(overrides: Sequence[str], multirun: bool = False) -> list[RunConfig]:
    """Every config that a command line stands for; a sweep's file may make it a grid without -m."""
    return compose_command(overrides, multirun).configs


def compose_command(overrides: Sequence[str], multirun: bool = False) -> Command:
    """Every config that a command line stands for, and who trains them."""
    overrides = with_own_model(overrides)
    with composer():
        checked = _checked(overrides)
        fixed = [o.input_line for o in checked if not o.is_sweep_override()]
        composed = hydra_compose("train", fixed, return_hydra_config=True)
        launcher = Launcher(composed.hydra.runtime.choices["hydra/launcher"], composed.hydra.launcher)
        grid = _grid(composed)
        if not multirun and composed.hydra.mode is not RunMode.MULTIRUN:
            _require_single(checked)
            _require_no_zip(grid)
            return Command([to_run_config(composed)], launcher, [])
        params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items()]
        all_of_them = [*_checked(params), *checked]
        _require_sweeper(composed, all_of_them, grid)
        return Command(_Grid(all_of_them, grid).configs(), launcher, drawn(all_of_them, grid))


def _grid(composed: DictConfig) -> Grid:
    require_bounded(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]))
    grid = grid_of(composed)
    validate_grid(grid)
    return grid


def _require_no_zip(grid: Grid) -> None:
    if grid.zip:
        raise UserError(
            f"grid.zip=[{','.join(grid.zip)}]: keys are walked together in a grid: add -m, and their values"
        )


def _require_sweeper(composed: DictConfig, overrides: Sequence[Override], grid: Grid) -> None:
    """Raises UserError where Hydra's sweeper would make other jobs of these keys, or hand them over in parts."""
    sweeper = composed.hydra.runtime.choices["hydra/sweeper"]
    draws = [o.input_line for o in overrides if o.is_interval_sweep()]
    if sweeper != "checked" and (grid.zip or draws):
        raise UserError(
            f"hydra/sweeper={sweeper}: knows no {'grid.zip' if grid.zip else draws[0]}; leave it out (checked)"
        )
    if grid.halving is not None and (size := composed.hydra.sweeper.get("max_batch_size")) is not None:
        raise UserError(
            f"hydra.sweeper.max_batch_size={size}: grid.halving={grid.halving} compares all learning rates of a "
            "command; leave one of the two out"
        )


def help_page(overrides: Sequence[str]) -> str:
    """What --help prints: conf/train.yaml's template, with the options of every group, and each key with its meaning.

    A key's value is what the overrides come to. Hydra's own page has no use for most of what it lists, and takes a
    second to list it.
    """
    with composer():
        checked = _checked(overrides)
        fixed = [o.input_line for o in checked if not o.is_sweep_override()]
        composed = hydra_compose("train", fixed, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        searchpath = [line for line in fixed if line.startswith("hydra.searchpath")]
        options = {
            group: loader.get_group_options(group, config_name="train", overrides=searchpath) for group in groups()
        }
        lines = "".join(f"{entry(f'{group}:', ', '.join(names), 14)}\n" for group, names in options.items())
        values = flatten(cast(dict, OmegaConf.to_container(OmegaConf.masked_copy(composed, _sections(composed)))))
        page = composed.hydra.help.template
    keys_of_a_run = "\n".join(
        entry(f"{key}={_shown(values.get(key))}", meaning, 36) for key, meaning in meanings().items()
    )
    return page.replace("$APP_CONFIG_GROUPS", lines).replace("$CONFIG", f"{keys_of_a_run}\n")


def _sections(composed: DictConfig) -> list[str]:
    return [str(key) for key in composed if key != "hydra"]


def _shown(value: Any) -> str:
    """A value as it is written on the command line, where it is short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    text = "null" if value is None else repr(value)[1:-1] if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


class _Grid:
    """The configs of a grid, in the sweeper's order.

    Composing one takes Hydra a sixth of a second. So an option that changes nothing but its own key or section, and
    interpolates nothing there, is composed once, and then put into every config that has it; of a key that a thousand
    numbers or words are given, only the first two are composed.
    """

    def __init__(self, overrides: Sequence[Override], grid: Grid):
        self.jobs = jobs_of(overrides, grid)
        self.first = self.jobs[0]
        self.axes = {o.get_key_element() for o in overrides if o.is_sweep_override()}
        self._composed: dict[tuple[str, ...], RunConfig] = {}
        self._values: dict[str, Any] = {}  # option -> what it makes of its key, _JOINT where it changes more
        self._alone: dict[str, bool] = {}  # key -> whether a number or word given for it changes nothing else
        self._parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        self._empty = OmegaConf.structured(RunConfig)

    def configs(self) -> list[RunConfig]:
        return [_completed(self._config(job)) for job in self.jobs]

    def _config(self, job: Sequence[str]) -> RunConfig:
        values = {i: self._value(i, option) for i, option in enumerate(job) if option != self.first[i]}
        joint = [option if values.get(i) is _JOINT else self.first[i] for i, option in enumerate(job)]
        config = self._compose(joint)
        for i, value in values.items():
            if value is not _JOINT:
                config = _with(config, job[i].partition("=")[0], value)
        return config

    def _compose(self, job: Sequence[str]) -> RunConfig:
        if (key := tuple(job)) not in self._composed:
            self._composed[key] = _as_written(hydra_config(job))
        return self._composed[key]

    def _value(self, index: int, option: str) -> Any:
        """What this option, in place of the first job's, makes of its key; _JOINT where it changes anything else."""
        if option not in self._values:
            key = option.partition("=")[0]
            written = self._plain(key, option)
            if written is None or key not in self._alone:
                job = [*self.first[:index], option, *self.first[index + 1 :]]
                # A group of the user's own, or a sweep's file, may change anything, also what this is merged with.
                joint = key.startswith("hydra") or any(axis.startswith("+") or axis == "sweep" for axis in self.axes)
                confined = not joint and self._is_confined(key, job)
                self._values[option] = attrgetter(key)(self._compose(job)) if confined else _JOINT
                if written is not None:
                    self._alone[key] = confined
            else:
                self._values[option] = written[0] if self._alone[key] else _JOINT
        return self._values[option]

    def _plain(self, key: str, option: str) -> tuple[Any] | None:
        """The number, truth value or word that an option gives a key of the schema, as the schema types it.

        None where it is anything else, or where Hydra has to say what is wrong with it.
        """
        if key not in keys() or key in groups():
            return None
        (override,) = self._parser.parse_overrides([option])
        value = override.value()
        if not isinstance(value, bool | int | float | str) or (isinstance(value, str) and "$" in value):
            return None
        if key in texts() and not isinstance(value, str):
            return None
        try:
            OmegaConf.update(self._empty, key, value)
        except OmegaConfBaseException:
            return None
        return (OmegaConf.select(self._empty, key),)

    def _is_confined(self, key: str, job: Sequence[str]) -> bool:
        config = hydra_config(job)
        whole = self._composed[tuple(job)] = _as_written(config)
        raw = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
        if "${" in str(raw[key.partition(".")[0]]):
            return False
        interpolated = re.findall(r"\$\{([^:}]*)", str(raw))
        for other in (*interpolated, *self.axes - {key}):
            # A relative interpolation, a key in this section, or the section that this key is in.
            if other.startswith((".", f"{key}.")) or f"{key}.".startswith(f"{other}."):
                return False
        return _with(self._compose(self.first), key, attrgetter(key)(whole)) == whole


_JOINT = object()


def _with(config: Any, key: str, value: Any) -> Any:
    """The config with one key, or section, replaced."""
    name, _, rest = key.partition(".")
    return replace(config, **{name: _with(getattr(config, name), rest, value) if rest else value})


@contextmanager
def composer() -> Iterator[None]:
    """Within, Hydra finds conf/ and knows the schema."""
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
            raise UserError(
                f"{o.input_line}: several values need -m "
                f"(one text with a comma is quoted twice: '{o.key_or_group}=\"...\"')"
            )


def _checked(lines: Sequence[str]) -> list[Override]:
    """Overrides as Hydra parses them. Raises UserError for a key or a group's option that does not exist."""
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = []
    for line in lines:
        overrides.append(spelling.parsed(line, parser))
        count(overrides[-1])
    searchpath = [o.input_line for o in overrides if o.key_or_group == "hydra.searchpath"]
    if len(searchpath) > 1:
        raise UserError("hydra.searchpath: is given twice, or beside --config-dir; name all folders in one list")
    for override in overrides:
        if not override.key_or_group.startswith(("hydra.", "hydra/")):
            _check(override, searchpath)
    return overrides


def _check(override: Override, searchpath: list[str]) -> None:
    key = override.get_key_element().lstrip("+~")
    if key not in groups() and key not in sections() and key not in keys():
        _check_own_group(override, searchpath)
        return
    if override.is_delete():
        raise UserError(f"~{key}: a run needs every key, so none can be left out")
    if override.is_add() or (override.type is not OverrideType.CHANGE and key in groups()):
        raise UserError(f"{override.input_line}: {key} exists already; write it without +")
    if key in groups():
        _check_options(override, key, _options(key, searchpath))
    elif key in sections() and not isinstance(override.value(), dict):
        inside = ", ".join(k for k in keys() if k.startswith(f"{key}."))
        raise UserError(f"{override.input_line}: {key} is a section; its keys: {inside}")


def _check_own_group(override: Override, searchpath: list[str]) -> None:
    """+experiment=mine, a file of the user's own that changes keys of several groups; any other key is unknown."""
    group = override.key_or_group
    options = [] if override.package or "." in group else _options(group, searchpath)
    if not options:
        raise UserError(unknown_key(override.get_key_element().lstrip("+~")))
    if not override.is_add():
        raise UserError(f"{override.input_line}: {group} is a group of your own; write +{group}=<option>")
    _check_options(override, group, options)


def _options(group: str, searchpath: list[str]) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return list(loader.get_group_options(group, config_name="train", overrides=searchpath))


def _check_options(override: Override, group: str, options: Sequence[str]) -> None:
    for value in _values(override):
        # Hydra would take the last of a list for a group, and say nothing.
        if value not in options:
            raise UserError(unknown_option(group, value, options))


def _values(override: Override) -> list[Any]:
    if override.is_discrete_sweep():
        return [getattr(value, "text", value) for value in override.sweep_iterator()]
    return [override.value()]
