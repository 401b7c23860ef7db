"""Which optimisers are there, what settings does each take, and how does the learning rate change?

A new optimiser: its name in schema.OptimizerKind, a line in OPTIMIZERS, and a file in conf/optimizer/.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from promptgeo.config.schema import Optimizer, OptimizerKind, Schedule


@dataclass(frozen=True)
class Kind:
    """An optimiser: its class, and its settings beside learning rate and weight decay."""

    make: Callable[..., torch.optim.Optimizer]
    settings: Callable[[Optimizer], dict[str, Any]] = lambda config: {}


def _adam(config: Optimizer) -> dict[str, Any]:
    return {"betas": tuple(config.betas), "eps": config.eps}


OPTIMIZERS = {
    OptimizerKind.adamw: Kind(torch.optim.AdamW, _adam),
    OptimizerKind.adam: Kind(torch.optim.Adam, _adam),
    OptimizerKind.sgd: Kind(torch.optim.SGD, lambda config: {"momentum": config.momentum}),
    OptimizerKind.adafactor: Kind(torch.optim.Adafactor),
}


def make_optimizer(config: Optimizer, prompts: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """One parameter group per slot; each run's own settings are put there when it takes the slot."""
    return OPTIMIZERS[config.name].make([{"params": [prompt], **group_settings(config)} for prompt in prompts])


def group_settings(config: Optimizer) -> dict[str, Any]:
    """All settings of a parameter group that a config decides."""
    common = {"lr": config.lr, "weight_decay": config.weight_decay}
    return common | OPTIMIZERS[config.name].settings(config)


def learning_rate(config: Optimizer, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (0-based), as transformers' schedules of these names define it."""
    assert config.lr is not None  # Plan.optimizer has it
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    if config.schedule is Schedule.linear:
        return config.lr * max(1 - progress, 0.0)
    if config.schedule is Schedule.cosine:
        return config.lr * max(0.5 * (1 + float(np.cos(np.pi * progress))), 0.0)
    return config.lr
