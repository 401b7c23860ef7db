"""preview=true: what would a command train, how long would it take, how much memory? Nothing is written."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from promptgeo.config.schema import RunConfig, flat
from promptgeo.config.terminal import console
from promptgeo.data.tasks import Task
from promptgeo.evaluation.evaluate import evaluate
from promptgeo.training.cell import Cell
from promptgeo.training.engine import finished_run
from promptgeo.training.packs import default_slots, memory_per_run, packs
from promptgeo.training.plan import Plan, plan_all
from promptgeo.training.progress import SCORED, STEP, WRITTEN, Workload, work

TIMED = 6
"""Runs of a tick that is timed on a CPU, at most: more fill two cores no better, and 16 take 170 MB more."""

SAMPLE = 32
"""Examples that an evaluation is timed on, at most."""


def show(cells: Sequence[Cell]) -> None:
    """Print the grid, its packs and estimates. Raises UserError as training would."""
    from rich.table import Table

    screen = console()
    distinct = {cell.id: cell for cell in cells}
    todo = [cell for cell in distinct.values() if finished_run(cell) is None]
    for name, values in _axes([cell.config for cell in distinct.values()]).items():
        screen.print(f"{name}: {', '.join(values)}", soft_wrap=True)
    folders = ", ".join(sorted({str(cell.folder.parent) for cell in distinct.values()}))
    complete = len(distinct) - len(todo)
    screen.print(
        f"{len(distinct)} run{'s' if len(distinct) > 1 else ''}, {complete} complete already, in {folders}/",
        soft_wrap=True,
    )
    table = Table(title="packs")
    for column in ("model", "prompt tokens", "batch", "optimizer"):
        table.add_column(column)
    for column in ("runs", "at once", "run-steps", "memory, GB", "minutes"):
        table.add_column(column, justify="right")
    total = 0.0
    for key in sorted({cell.model_key for cell in todo}):
        for pack in packs(plan_all([cell for cell in todo if cell.model_key == key])):
            row, seconds = _estimate(pack)
            total += seconds
            table.add_row(*row)
    screen.print(table)
    about = "at most" if any(cell.rivals for cell in todo) else "about"  # grid.halving stops some
    screen.print(
        f"{about} {total / 60:.1f} minutes (two ticks and two evaluations were timed here, with prompts as they are "
        "before training); preview=true: nothing was written",
        soft_wrap=True,
    )


def _estimate(pack: Sequence[Plan]) -> tuple[list[str], float]:
    """The pack's row of the table, and how many seconds it would take."""
    first, slots = pack[0], min(default_slots(pack), len(pack))
    config, steps = first.config, sum(p.total_steps for p in pack)
    processes = min(config.packing.devices, len(pack))
    workload = Workload(pack)
    ahead = np.sum([workload.ahead(p) for p in pack], axis=0)
    timed = slots if first.lm.device.type == "cuda" else min(slots, TIMED)
    seconds = float(ahead @ _seconds_per_position(pack[:timed], workload)) / processes
    row = [config.model.name, str(first.prompt_length), str(config.training.batch_size), config.optimizer.name.name]
    row += [str(len(pack)), str(slots), str(steps), f"{_memory(pack, slots) / 1e9:.1f}", f"{seconds / 60:.1f}"]
    return row, seconds


def _axes(configs: Sequence[RunConfig]) -> dict[str, list[str]]:
    """What the grid varies: every key with more than one value."""
    first = [key for key in flat(configs[0]) if key.partition(".")[0] != "study"]
    found: dict[str, dict[str, None]] = {key: {} for key in first}
    for config in configs:
        of_config = flat(config)
        for key in first:
            found[key][str(of_config.get(key))] = None
    shown = {f"{group}.name": group for group in ("model", "task", "init", "template", "optimizer")}
    axes: dict[str, list[str]] = {}
    for key, values in ((key, list(values)) for key, values in found.items()):
        section = key.partition(".")[0]
        # Where a group's name varies, it says what else varies in its section.
        if len(values) > 1 and (key in shown or f"{section}.name" not in shown or len(axes.get(section, [])) < 2):
            axes[shown.get(key, key)] = values
    named = {name for name in ("model", "task", "init", "template") if name in axes}
    return {name: values for name, values in axes.items() if name in named or name.partition(".")[0] not in named}


def _seconds_per_position(pack: Sequence[Plan], workload: Workload) -> np.ndarray:
    """[3], by kind of work. Measured: the second of two ticks of the pack's first slots, forward and backward; and P0s,
    scored on a few test examples, without and with what the model writes."""
    from promptgeo.training.tuning import PromptTuning

    rates = work()
    for _ in range(2):
        tuning = PromptTuning(list(pack))
        start = time.perf_counter()
        tuning.rehearse(pack)
        seconds = time.perf_counter() - start
    rates[STEP] = seconds / sum(_tokens(p) for p in pack)
    first = pack[0]
    few = Workload([sample := replace(first, task=_cut(first.task, first.split))])
    same_set = [p for p in pack if p.task is first.task]
    p0_NPd = torch.stack([p.p0_Pd for p in same_set])
    limit = first.config.evaluation.max_new_tokens
    for kind in (SCORED, WRITTEN):
        start = time.perf_counter()
        evaluate(first.lm, p0_NPd, sample.task, split=first.split, max_new_tokens=limit, outputs=kind == WRITTEN)
        positions = len(p0_NPd) * few.positions(sample, first.split)
        rates[kind] = (time.perf_counter() - start) / positions
    return rates


def _cut(task: Task, split: str) -> Task:
    """The task with a few of the split's examples, from all over it."""
    examples = getattr(task, split)
    return replace(task, **{split: examples[:: -(-len(examples) // SAMPLE)]})


def _memory(pack: Sequence[Plan], slots: int) -> float:
    """Bytes: weights, and the activations of one forward."""
    lm = pack[0].lm
    runs = min(slots, max(lm.max_tokens // _tokens(pack[0]), 1))
    return lm.weight_bytes + runs * memory_per_run(pack[0])


def _tokens(p: Plan) -> int:
    """Of a mean minibatch."""
    return max(sum(row.length for row in p.train_rows) * p.config.training.batch_size // max(len(p.train_rows), 1), 1)
