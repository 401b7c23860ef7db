"""preview=true: what a command would train, how long it would take, how much memory; nothing is written."""

import time
from collections.abc import Sequence

from promptgeo import engine
from promptgeo.schema import RunConfig
from promptgeo.plan import Plan, folder_of, model_key, plan, run_identity


def show(configs: Sequence[RunConfig]) -> None:
    """Print the grid, its packs and estimates. Raises UserError as training would."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    distinct = {run_identity(config): config for config in configs}
    done = {i for i, config in distinct.items() if engine.finished_run(config, i) is not None}
    for name, values in _axes(list(distinct.values())).items():
        console.print(f"{name}: {', '.join(values)}", soft_wrap=True, highlight=False)
    console.print(f"{len(distinct)} runs, {len(done)} complete already, in {', '.join(sorted({str(folder_of(c, i).parent) for i, c in distinct.items()}))}/", soft_wrap=True)
    table = Table(title="packs")
    for column in ("model", "prompt tokens", "batch", "optimizer"):
        table.add_column(column)
    for column in ("runs", "at once", "run-steps", "memory, GB", "minutes"):
        table.add_column(column, justify="right")
    total = 0.0
    todo = [config for i, config in distinct.items() if i not in done]
    for key in sorted({model_key(config) for config in todo}):
        plans = [plan(config) for config in todo if model_key(config) == key]
        for pack in engine.packs(plans):
            first, slots = pack[0], min(engine.default_slots(pack), len(pack))
            steps = sum(p.total_steps for p in pack)
            seconds = _seconds_per_run_step(pack[:slots]) * steps / max(min(first.config.packing.devices, len(pack)), 1)
            seconds *= 1.3  # evaluations
            total += seconds
            table.add_row(
                first.config.model.name, str(len(first.p0_Pd)), str(first.config.training.batch_size), first.config.optimizer.name.name,
                str(len(pack)), str(slots), str(steps), f"{_memory(pack, slots) / 1e9:.1f}", f"{seconds / 60:.1f}",
            )  # fmt: skip
    console.print(table)
    console.print(f"about {total / 60:.1f} minutes (two ticks were timed here; evaluations are guessed at 30 %); preview=true: nothing was written", soft_wrap=True)


def _axes(configs: Sequence[RunConfig]) -> dict[str, list[str]]:
    """What the grid varies: every key with more than one value."""
    from promptgeo.schema import flatten, to_dict

    flat = [flatten(to_dict(config)) for config in configs]
    shown = {"model.name": "model", "task.name": "task", "init.name": "init", "template.name": "template", "optimizer.name": "optimizer"}
    axes = {}
    for key in flat[0]:
        values = list(dict.fromkeys(str(f.get(key)) for f in flat))
        section = key.partition(".")[0]
        if len(values) > 1 and (key in shown or f"{section}.name" not in shown or len(axes.get(section, [1])) < 2):
            axes[shown.get(key, key)] = values
    named = {name for name in ("model", "task", "init", "template") if name in axes}
    return {name: values for name, values in axes.items() if name in named or name.partition(".")[0] not in named}


def _seconds_per_run_step(pack: Sequence[Plan]) -> float:
    """Measured: the second of two ticks of the pack's first slots, forward and backward."""
    from promptgeo.tuning import PromptTuning

    for _ in range(2):
        tuning = PromptTuning(list(pack))
        start = time.perf_counter()
        tuning.rehearse(pack)
        seconds = time.perf_counter() - start
    return seconds / len(pack)


def _memory(pack: Sequence[Plan], slots: int) -> float:
    """Bytes: weights, and the activations of one forward."""
    lm = pack[0].lm
    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    return weights + min(slots, max(lm.max_tokens // _tokens(pack[0]), 1)) * engine.memory_per_run(pack[0])


def _tokens(p: Plan) -> int:
    return max(sum(row.length for row in p.train_rows) * p.config.training.batch_size // max(len(p.train_rows), 1), 1)
