"""Runs that are trained *for one another*: regulariser=orthogonal pushes the soft prompts of a task's seeds apart.

The only exception to the rule that a run in a pack equals the run alone. Coupled runs say so: `regulariser.seeds` names them all in
each one's config, identity and run.json; they train in a pack of their own, start together, and are all trained again if one is lacking.

Shapes: R coupled runs, P prompt tokens, d width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from promptgeo.schema import RegulariserKind, RunConfig
from promptgeo.errors import UserError
from promptgeo.plan import run_identity


def penalty(prompts_RPd: Tensor, weight: float) -> Tensor:
    """weight times the mean squared cosine between the prompts minus their barycentre, over pairs of runs; 0 for a single run.

    Minus their barycentre R prompts cannot all be orthogonal: at best (a regular simplex) every cosine is -1 / (R - 1).
    """
    runs = len(prompts_RPd)
    if runs < 2:
        return prompts_RPd.sum() * 0.0
    apart_RD = normalize((prompts_RPd - prompts_RPd.mean(0)).flatten(1), dim=1)
    cosines_RR = apart_RD @ apart_RD.T
    upper = torch.triu_indices(runs, runs, offset=1)
    return weight * cosines_RR[upper[0], upper[1]].square().mean()


def is_coupled(config: RunConfig) -> bool:
    return config.regulariser.name is RegulariserKind.orthogonal


def partners(config: RunConfig) -> list[RunConfig]:
    """The configs of all runs that this one is coupled with, itself among them, by seed."""
    return [replace(config, seed=seed) for seed in config.regulariser.seeds]


def group_of(config: RunConfig) -> str:
    """The same text for all coupled runs; empty for a run that is trained for itself."""
    return run_identity(partners(config)[0]) if is_coupled(config) else ""


def together(configs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """The configs, those that are coupled side by side in one list, every other in a list of its own."""
    groups: dict[str, list[RunConfig]] = {}
    for k, config in enumerate(configs):
        groups.setdefault(group_of(config) or str(k), []).append(config)
    return list(groups.values())


def check_complete(configs: Sequence[RunConfig]) -> None:
    """Raises UserError unless each coupled run of a command has all its partners there: they are trained together or not at all."""
    for config in configs:
        if is_coupled(config):
            absent = [each.seed for each in partners(config) if each not in configs]
            if absent:
                raise UserError(
                    f"regulariser=orthogonal couples seeds {', '.join(map(str, config.regulariser.seeds))}, and seed {absent[0]} of task {config.task.name} "
                    f"is not in this command: add -m seed={','.join(map(str, config.regulariser.seeds))}"
                )
