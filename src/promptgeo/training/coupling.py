"""Runs that are trained *for one another*: regulariser=orthogonal pushes the soft prompts of a task's seeds apart.

The only exception to the rule that a run in a pack equals the run alone. Coupled runs say so: `regulariser.seeds` names
them all in each one's config, identity and run.json; they train in a pack of their own, start together, and are all
trained again if one is lacking.

Shapes: R coupled runs, P prompt tokens, d width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from promptgeo.errors import UserError
from promptgeo.training.cell import Cell


def penalty(prompts_RPd: Tensor, weight: float) -> Tensor:
    """weight times the mean squared cosine between the prompts minus their barycentre, over pairs of runs.

    0 for a single run. Minus their barycentre R prompts cannot all be orthogonal: at best (a regular simplex) every
    cosine is -1 / (R - 1).
    """
    runs = len(prompts_RPd)
    if runs < 2:
        return prompts_RPd.sum() * 0.0
    apart_RD = normalize((prompts_RPd - prompts_RPd.mean(0)).flatten(1), dim=1)
    cosines_RR = apart_RD @ apart_RD.T
    upper = torch.triu_indices(runs, runs, offset=1)
    return weight * cosines_RR[upper[0], upper[1]].square().mean()


def together(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells; those that are coupled, or rivals, side by side in one list, every other in a list of its own."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        alone = (cell.rivals.name,) if cell.rivals else (cell.id,)
        groups.setdefault(cell.coupled or alone, []).append(cell)
    return list(groups.values())


def check_complete(cells: Sequence[Cell]) -> None:
    """Raises UserError unless each coupled run of a command has all its partners there.

    They are trained together or not at all.
    """
    ids = {cell.id for cell in cells}
    for cell in cells:
        seeds = cell.config.regulariser.seeds
        absent = [seed for seed, partner in zip(seeds, cell.coupled, strict=True) if partner not in ids]
        if absent:
            line = ",".join(map(str, seeds))
            raise UserError(
                f"regulariser=orthogonal couples seeds {', '.join(map(str, seeds))}, and seed {absent[0]} of task "
                f"{cell.config.task.name} is not in this command: add -m seed={line}"
            )
