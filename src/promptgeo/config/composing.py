"""What does Hydra compose of a line of overrides? A choice of groups is composed once; values are set in a copy of it.

Composing takes Hydra a seventh of a second, nearly all of it for finding the groups' files and merging them. Lines that
choose the same options share that. What else a line gives Hydra itself sets afterwards, here as there.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from glob import glob

from hydra import compose as hydra_compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from promptgeo.config.paths import conf_dir, groups
from promptgeo.config.schema import keys

KEPT = 64
"""Choices of groups whose configs are kept, at most."""


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """What hydra.compose("train", overrides) returns. Hydra must be initialised; raises what it raises."""
    lines = list(overrides)
    with suppress(Exception):  # what is wrong with a line Hydra itself says
        parsed = OverridesParser.create().parse_overrides(lines)
        if _separable(parsed):
            chosen = tuple(o.input_line or "" for o in parsed if not _is_value(o))
            made = deepcopy(_of_choices(_stamps(conf_dir()), chosen))
            ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if _is_value(o)], made)
            return made
    return hydra_compose("train", lines)


class Jobs:
    """The configs of a grid's jobs, as launchers of Hydra's compose them: of those with the same options, one."""

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig):
        """master: the config of the whole grid, whose hydra overrides count for each job."""
        self.loader, self.master = loader, master
        self._of_choices: dict[tuple[str, ...], DictConfig] = {}

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """What loader.load_sweep_config(master, overrides) returns."""
        lines = list(overrides)
        with suppress(Exception):  # as in hydra_config
            parsed = OverridesParser.create().parse_overrides(lines)
            if _separable(parsed):
                return self._made(parsed)
        return self.loader.load_sweep_config(self.master, lines)

    def _made(self, parsed: Sequence[Override]) -> DictConfig:
        choices = tuple(o.input_line or "" for o in parsed if not _is_value(o))
        if choices not in self._of_choices:
            if len(self._of_choices) >= KEPT:  # Hydra's whole configuration each: thousands would fill the memory
                self._of_choices.clear()
            self._of_choices[choices] = self.loader.load_sweep_config(self.master, list(choices))
        made = deepcopy(self._of_choices[choices])
        OmegaConf.copy_cache(from_config=self.master, to_config=made)
        ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if _is_value(o)], made)
        made.hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
        made.hydra.runtime.cwd = os.getcwd()
        naming = made.hydra.job.config.override_dirname
        made.hydra.job.override_dirname = get_overrides_dirname(
            [o for o in parsed if not o.is_hydra_override()], naming.exclude_keys, naming.item_sep, naming.kv_sep
        )
        return made


def _separable(overrides: Sequence[Override]) -> bool:
    """Whether choices may be composed before values are set: a line that has nothing else.

    Not so a section or a part of a list (task.split={...}), which is set in its turn; Hydra's own keys, which may read
    the environment; and files of the user's own.
    """
    return not any(o.is_sweep_override() for o in overrides) and all(
        _is_value(o) or (o.type is OverrideType.CHANGE and (o.key_or_group in groups() or "/" in o.key_or_group))
        for o in overrides
    )


def _is_value(override: Override) -> bool:
    """Whether it gives a key of the schema, and chooses no option."""
    key = override.key_or_group
    return override.type is OverrideType.CHANGE and override.package is None and key in keys() and key not in groups()


def _stamps(conf: str) -> tuple[tuple[str, int, int], ...]:
    """Place, time and size of every file below conf/: equal unless one was edited."""
    found = ((path, os.stat(path)) for path in sorted(glob(f"{conf}/**/*.yaml", recursive=True)))
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in found)


@lru_cache(maxsize=KEPT)
def _of_choices(_conf: tuple[tuple[str, int, int], ...], choices: tuple[str, ...]) -> DictConfig:
    return hydra_compose("train", list(choices))
