"""What does Hydra compose of a line of overrides? A choice of groups is composed once; values are set in a copy of it.

Composing takes Hydra a seventh of a second, nearly all of it for finding the groups' files and merging them. Lines that
choose the same options share that. What else a line gives Hydra itself sets afterwards, here as there.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache

from hydra import compose as hydra_compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from promptgeo.config.paths import conf_dir, groups
from promptgeo.config.schema import keys


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """What hydra.compose("train", overrides) returns. Hydra must be initialised; raises what it raises."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if not _separable(parsed):
        return hydra_compose("train", list(overrides))
    made = deepcopy(_of_choices(conf_dir(), tuple(o.input_line or "" for o in parsed if not _is_value(o))))
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if _is_value(o)], made)
    return made


class Jobs:
    """The configs of a grid's jobs, as launchers of Hydra's compose them: of those with the same options, one."""

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig):
        """master: the config of the whole grid, whose hydra overrides count for each job."""
        self.loader, self.master = loader, master
        self._of_choices: dict[tuple[str, ...], DictConfig] = {}

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """What loader.load_sweep_config(master, overrides) returns."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        if not _separable(parsed):
            return self.loader.load_sweep_config(self.master, list(overrides))
        choices = tuple(o.input_line or "" for o in parsed if not _is_value(o))
        if choices not in self._of_choices:
            self._of_choices[choices] = self.loader.load_sweep_config(self.master, list(choices))
        made = deepcopy(self._of_choices[choices])
        OmegaConf.copy_cache(from_config=self.master, to_config=made)
        ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if _is_value(o)], made)
        made.hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
        naming = made.hydra.job.config.override_dirname
        made.hydra.job.override_dirname = get_overrides_dirname(
            [o for o in parsed if not o.is_hydra_override()], naming.exclude_keys, naming.item_sep, naming.kv_sep
        )
        return made


def _separable(overrides: Sequence[Override]) -> bool:
    """Whether choices may be composed before values are set: there is nothing else, and no file of the user's own."""
    named = (*groups(), "hydra")
    return not any(o.key_or_group == "hydra.searchpath" for o in overrides) and all(
        _is_value(o) or (o.type is OverrideType.CHANGE and o.key_or_group.replace("/", ".").split(".")[0] in named)
        for o in overrides
    )


def _is_value(override: Override) -> bool:
    """Whether it gives a key of the schema, and chooses no option."""
    key = override.key_or_group
    return override.type is OverrideType.CHANGE and override.package is None and key in keys() and key not in groups()


@lru_cache(maxsize=128)
def _of_choices(_conf: str, choices: tuple[str, ...]) -> DictConfig:
    return hydra_compose("train", list(choices))
