"""What is to be trained where a run failed, diverged or was interrupted? The very run, by the config in its folder."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptgeo.config.schema import RunConfig
from promptgeo.errors import UserError
from promptgeo.runs.folder import Found
from promptgeo.runs.writing import config_of
from promptgeo.training.cell import Cell, cells_of


def cells_again(found: Sequence[Found]) -> list[Cell]:
    """The cells of these runs, and of those that they are trained for one another with.

    Raises UserError for a run that its folder does not say how to train, or that would be another run now.
    """
    infos = [_said(each) for each in found]
    configs = [_config(each, info) for each, info in zip(found, infos, strict=True)]
    cells = cells_of(configs)
    places: dict[str, Path] = {}
    for each, info, cell in zip(found, infos, cells, strict=True):
        if cell.id != info["id"]:
            raise UserError(
                f"{each.folder}: its model or data have changed, so another run would be trained; give its command"
            )
        if cell.folder.name != each.folder.name:
            raise UserError(f"{each.folder}: was renamed; its run is trained in {cell.folder.name}: give it that name")
        if (other := places.setdefault(cell.id, each.folder)) != each.folder:
            raise UserError(f"{each.folder}: is the same run as {other}; name one of them")
    return list({(cell.folder.parent, cell.id): cell for cell in [*cells, *cells_of(_partners(configs))]}.values())


def _said(found: Found) -> dict[str, Any]:
    """What says how the run was to be trained: run.json, else the state that it was to resume from."""
    from promptgeo.training.run_state import saved_facts

    if found.run is not None:
        return found.run.info
    if found.status == "damaged":
        raise UserError(f"{found.error}; so nothing says how it was trained: give its command with overwrite=true")
    facts = saved_facts(found.folder)
    if facts is None or "config" not in facts:
        raise UserError(f"{found.folder}: nothing says how it was to be trained; its command goes on from there")
    return facts


def _config(found: Found, info: dict[str, Any]) -> RunConfig:
    """The run's config, to be trained where the run lies now."""
    try:
        config = config_of(info)
    except UserError as error:
        raise UserError(f"{found.folder}: cannot be trained again: {error}") from error
    parent = Path(os.path.abspath(found.folder)).parent
    if Path(os.path.abspath(Path(config.outputs) / config.name)) != parent:
        config = replace(config, outputs=str(parent.parent), name=parent.name)
    # What is finished is trained only with it; what failed, or was interrupted, goes on without.
    return replace(config, preview=False, overwrite=found.status in ("diverged", "damaged"))


def _partners(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Runs that are trained for one another are trained again together or not at all."""
    return [
        replace(config, seed=seed) for config in configs for seed in config.regulariser.seeds if seed != config.seed
    ]
