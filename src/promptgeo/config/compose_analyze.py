"""How does a command line of promptgeo.analyze become an AnalyzeConfig?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from promptgeo.config.explain import config_errors, nearest
from promptgeo.config.interpolation import require_bounded
from promptgeo.config.paths import conf_dir, own_choices
from promptgeo.config.schema import Device, Precision, Wandb, texts
from promptgeo.config.spelling import parsed, register
from promptgeo.config.validate import require, require_wandb
from promptgeo.config.yaml_file import read_yaml
from promptgeo.errors import UserError


@dataclass
class AnalyzeConfig:
    """What python -m promptgeo.analyze understands; --help prints each key's `help`."""

    runs: Any = field(default=None, metadata={"help": "a folder of runs, or a list of them"})
    analysis: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "the analyses: analysis=[name,...]; their options: analysis.<name>.<option>"},
    )
    where: str | None = field(
        default=None,
        metadata={"help": "only runs for which this condition holds: where=\"task == 'country_capital'\""},
    )
    convention: str = field(default="both", metadata={"help": "corrected, paper (as the study counted), or both"})
    of: str = field(
        default="both",
        metadata={"help": "prompt (trained prompts), delta (what training added to P0), or both"},
    )
    out: str | None = field(default=None, metadata={"help": "where results go; null: <runs>/analysis"})
    model: str | None = field(
        default=None,
        metadata={"help": "the frozen model, where the runs do not say where it lies: a hub id or a local folder"},
    )
    precision: str = field(default="auto", metadata={"help": "of the frozen model: fp32, bf16, auto"})
    device: str = field(default="auto", metadata={"help": "cpu, cuda, auto"})
    overwrite: bool = field(default=False, metadata={"help": "compute again what is cached"})
    allow: list[str] = field(
        default_factory=list, metadata={"help": "packages of your own that an analysis's _target_ may lie in"}
    )
    logger: str | None = field(
        default=None, metadata={"help": "wandb: each analysis is a W&B run too, job_type analysis"}
    )
    wandb: Wandb = field(default_factory=Wandb, metadata={"help": "where it is sent, as in training"})


TEXTS = texts(AnalyzeConfig) | {"runs"}
"""Keys that hold a text, or a list of texts."""


def available(folder: str | Path | None = None) -> list[str]:
    """The analyses that <folder>/analysis/ provides; by default conf/'s."""
    return sorted(path.stem for path in (Path(folder or conf_dir()).expanduser() / "analysis").glob("*.yaml"))


def analysis_file(name: str, folder: str | Path | None = None) -> dict[str, Any]:
    """<folder>/analysis/<name>.yaml, by default conf/'s.

    It holds options; `_target_`, the function; `_about_` and `_needs_`, which --help prints.
    """
    with config_errors():
        file = read_yaml(Path(folder or conf_dir()).expanduser() / "analysis" / f"{name}.yaml")
        return cast(dict[str, Any], OmegaConf.to_container(file))


def compose_analyze(overrides: Sequence[str], config_dir: str | Path | None = None) -> AnalyzeConfig:
    """The config that a command line stands for.

    config_dir: a folder whose analysis/<name>.yaml are found beside those of conf/. Raises UserError for a key or an
    analysis that does not exist, a value that cannot be read, and a config_dir as require_own_choices does.
    """
    searchpath = own_choices(config_dir)
    with composer():
        checked = [_checked(line, searchpath) for line in overrides]
        # Hydra would look for the model in the group of that name, which is training's.
        models = [line for line in checked if line.startswith("model=")]
        composed = hydra_compose("analyze", [*(line for line in checked if line not in models), *searchpath])
        for override in OverridesParser.create().parse_overrides(models):
            composed.model = override.value()
        require_bounded(composed)
        config = cast(AnalyzeConfig, OmegaConf.to_object(composed))
    for key, kinds in (("device", Device), ("precision", Precision)):
        words = list(kinds.__members__)
        require(getattr(config, key) in words, key, getattr(config, key), f"one of {', '.join(words)}")
    require(config.logger in (None, "wandb"), "logger", config.logger, "null or wandb")
    require_wandb(config.wandb)
    return config


@contextmanager
def composer() -> Iterator[None]:
    """Within, Hydra finds conf/ and knows the schema."""
    ConfigStore.instance().store("analyze_schema", AnalyzeConfig)
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"), config_errors():
            yield
    finally:
        GlobalHydra.instance().clear()


def _checked(line: str, searchpath: list[str]) -> str:
    """An override as it is passed to Hydra, a query quoted. Raises UserError for a key or analysis that is unknown."""
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(loader)
    override = parsed(_quoted_query(line, parser) if line.startswith("where=") else line, parser, TEXTS)
    line = override.input_line
    key = override.get_key_element().lstrip("+~")
    keys = [name for f in fields(AnalyzeConfig) for name in _names(f)]
    if key not in keys and not key.startswith("analysis."):
        raise UserError(f"{key}: no such key; {nearest(key, keys)}")
    if line[0] in "+~":
        raise UserError(f"{line}: {key} exists already; write {key}=<value>")
    if override.is_sweep_override():
        raise UserError(
            f"{line}: takes one value (a list is written '{key}=[a,b]', a text with a comma '{key}=\"...\"')"
        )
    if key == "analysis":
        _check_names(
            override.value(), loader.get_group_options("analysis", config_name="analyze", overrides=searchpath)
        )
    return f"++{line}" if key.startswith("analysis.") else line  # which options there are, the function says


def _names(key: Field) -> list[str]:
    """wandb.project, ... of a section."""
    return [f"{key.name}.{f.name}" for f in fields(Wandb)] if key.type is Wandb else [key.name]


def _quoted_query(line: str, parser: OverridesParser) -> str:
    """A query as the shell leaves it, task == 'plus_one', becomes a value in Hydra's grammar only when it is quoted."""
    key, _, text = line.partition("=")
    try:
        (override,) = parser.parse_overrides([line])
        if not override.is_sweep_override() and override.value() != text:  # quoted for Hydra already, or null
            return line
    except (OverrideParseException, RecursionError):
        pass
    return f"{key}={QuotedString(text, Quote.double).with_quotes()}"


def _check_names(value: Any, names: Sequence[str]) -> None:
    for name in value if isinstance(value, list) else [value]:
        name = str(getattr(name, "text", name))
        if name not in names:
            raise UserError(f"analysis={name}: no such analysis; {nearest(name, names)}")
