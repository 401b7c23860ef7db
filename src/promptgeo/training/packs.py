"""Which runs train together, and how many at once?"""

import logging
from collections.abc import Sequence

import torch

from promptgeo.training.plan import Plan

log = logging.getLogger(__name__)

CPU_SLOTS = 48
"""Runs at once on a CPU, where memory holds any number: a forward has at most FrozenLM.max_tokens positions.

48 minibatches of 8 short examples (about 70 positions each) fill the embedded model's 3,855. More runs at once would
not be faster, and with fewer at once the first ones end, and are on disk, earlier."""

SHARE_OF_FREE_MEMORY = 0.8
"""Of a GPU, that runs may plan for: memory_per_run estimates, and an evaluation needs room beside the runs."""


def packs(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Runs of one model that train together: one prompt length, batch size and optimiser.

    Task, template, init, seed, learning rate, schedule and epochs may differ within a pack. A run with dropout trains
    alone, coupled runs train in a pack of their own.
    """
    groups: dict[tuple, list[Plan]] = {}
    for p in plans:
        training = p.config.training
        apart = p.id if training.dropout else p.cell.coupled
        key = (p.prompt_length, training.batch_size, p.config.optimizer.name.name, apart)
        groups.setdefault(key, []).append(p)
    alone = sum(p.config.training.dropout for p in plans)
    if alone and len(plans) > 1:
        log.info(
            "%d runs train alone: training.dropout=true draws from one generator, which a pack cannot share", alone
        )
    return list(groups.values())


def default_slots(pack: Sequence[Plan]) -> int:
    """How many runs of a pack to train at once.

    All coupled ones; else packing.max_runs; else what the device's free memory holds (a GPU), or CPU_SLOTS.
    """
    first = pack[0]
    if first.cell.coupled:
        return len(pack)
    if first.config.packing.max_runs is not None:
        return first.config.packing.max_runs
    if first.lm.device.type == "cpu":
        most = CPU_SLOTS
    else:
        free = torch.cuda.mem_get_info()[0]
        most = max(int(SHARE_OF_FREE_MEMORY * free / memory_per_run(first)), 1)
    waves = -(-len(pack) // most)
    return -(-len(pack) // waves)  # waves of one size: the last runs are not left to a wave of a few


def memory_per_run(p: Plan) -> int:
    """Bytes of activations that a run's minibatch holds until its backward: an estimate meant to be high, not measured.

    Of the longest rows that a minibatch could hold.
    """
    size = p.config.training.batch_size
    positions = sum(sorted((row.length for row in p.train_rows), reverse=True)[:size])
    labels = sum(sorted((len(row.label) for row in p.train_rows), reverse=True)[:size])
    return positions * p.lm.bytes_per_position + labels * p.lm.bytes_per_label
