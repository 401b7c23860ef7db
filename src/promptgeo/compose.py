"""Between the command line and RunConfig: where `conf/` lies, the schema Hydra merges into, and errors in one line.

The whole grid of a command is composed and checked here before Hydra makes a folder.
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from promptgeo.config import RunConfig
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
        return to_run_config(_compose(overrides))


def compose_grid(overrides: Sequence[str], multirun: bool = False) -> list[RunConfig]:
    """Every config that a command line stands for; a sweep's file may make it a grid without -m."""
    with _composer():
        with config_errors():
            plain = [str(o.input_line) for o in OverridesParser.create().parse_overrides(list(overrides)) if not o.is_sweep_override()]
        composed = _compose(plain, hydra_config=True)
        multirun = multirun or str(composed.hydra.mode or "").endswith("MULTIRUN")
        with config_errors():
            if not multirun:
                for override in OverridesParser.create().parse_overrides(list(overrides)):
                    if override.is_sweep_override():
                        raise UserError(f"{override.input_line}: several values need -m")
                return [to_run_config(composed)]
            from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

            params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items()]
            parsed = OverridesParser.create().parse_overrides([*params, *overrides])
            jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        return [to_run_config(_compose(job)) for job in jobs]


@contextmanager
def _composer() -> Iterator[None]:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def _compose(overrides: Sequence[str], hydra_config: bool = False) -> DictConfig:
    with config_errors():
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=hydra_config)


@contextmanager
def config_errors() -> Iterator[None]:
    """Hydra's and OmegaConf's exceptions as one line that names the key and the nearest valid ones."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def explain(error: BaseException) -> str:
    """One line for an exception that Hydra or OmegaConf raised while composing."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in reversed(chain):
        if isinstance(link, UserError):
            return str(link)
    for link in chain:
        missing = re.search(r"Could not find '([^']+)'|In '[^']+': Could not load '([^']+)'", str(link))
        if missing:
            return _unknown_option(missing[1] or missing[2])
        group = re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", str(link))
        if group:
            return _unknown_key(group[1].split("@")[0])
    for link in reversed(chain):
        full_key = getattr(link, "full_key", None)
        if full_key and re.search(r"not in struct|not in '|is not in|Key '.*' not", str(link)):
            return _unknown_key(full_key)
        if full_key:
            return f"{full_key}: {_first_line(link)}"
    unknown = re.search(r"Could not (?:override|append)[^']*'([^']+)'", str(error))
    return _unknown_key(unknown[1]) if unknown and "not in struct" in str(error) else _first_line(error)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _unknown_option(path: str) -> str:
    group, _, option = path.rpartition("/")
    options = sorted(p.stem for p in (Path(conf_dir()) / group).glob("*.yaml")) if group else []
    if not options:
        return f"{path}: no such config; {_nearest(path, _groups())}"
    return f"{group}={option}: no such {group}; {_nearest(option, options)}"


def _unknown_key(key: str) -> str:
    key = key.lstrip("+~")
    return f"{key}: no such key; {_nearest(key, [*_groups(), *_keys()])}"


def _nearest(word: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, valid, n=3, cutoff=0.5) or difflib.get_close_matches(word.split(".")[-1], valid, n=3, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else f"one of {', '.join(valid)}"


def _groups() -> list[str]:
    return sorted(p.name for p in Path(conf_dir()).iterdir() if p.is_dir())


def _keys() -> list[str]:
    from dataclasses import fields, is_dataclass
    from typing import get_type_hints

    def walk(cls: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(cls)
        for f in fields(cls):
            if is_dataclass(hints[f.name]):
                yield from walk(hints[f.name], f"{prefix}{f.name}.")
            else:
                yield f"{prefix}{f.name}"

    return list(walk(RunConfig, ""))


def exit_with(error: UserError) -> None:
    """One line on standard error, exit status 2."""
    print(f"promptgeo: {error}", file=sys.stderr)
    sys.exit(2)


def show_full_errors() -> None:
    """Let Hydra raise what it would otherwise print over several lines."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
