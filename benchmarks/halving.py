"""Does successive halving find a learning rate as good as the full grid's best, and for how many steps?

    python benchmarks/halving.py --folder outputs [--out halving.json] [--model tiny] [--tasks country_capital,plus_two]
        [--seeds 3] [--steps 54] [key=value ...]

Trains 9 rates (interval(0.01,10) in units of the embeddings, evenly spread) of each task, all to their end, and again
with grid.halving=3. For each task: the final validation loss (nats, mean over seeds) of the rate that is left, beside
the lowest and the second lowest of all rates. Both grids lie in --folder, which is of one model, number of seeds and
number of steps: there the same command goes on where it was stopped.

    # a real model on a CPU
    python benchmarks/halving.py --folder outputs --model <folder> --tasks country_capital --seeds 1 precision=bf16
        prompt.length=4
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from promptgeo.config.compose import compose_grid
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cells_of
from promptgeo.training.engine import train_all

RATE = "optimizer.lr_in_embedding_units"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="outputs")
    parser.add_argument("--out", type=Path, help="the JSON; default: standard output")
    parser.add_argument("--model", default="tiny", help="a name of conf/model, or a folder")
    parser.add_argument("--tasks", default="country_capital,present_past,plus_two")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=54)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    model = f"model.name_or_path={given.model}" if Path(given.model).is_dir() else f"model={given.model}"
    line = [
        model,
        f"task={given.tasks}",
        f"seed=range(0,{given.seeds})",
        f"training.max_steps={given.steps}",
        "training.epochs=100000",
        "task.split.validation=0.2",
        "evaluation.split=validation",
        "evaluation.every=end",
        f"{RATE}=interval(0.01,10)",
        f"outputs={given.folder}",
        *given.overrides,
    ]
    grids = {
        "full": cells_of(compose_grid([*line, "name=halving_full"], multirun=True)),
        "halved": cells_of(compose_grid([*line, "name=halving_halved", "grid.halving=3"], multirun=True)),
    }
    runs: dict[str, list[Run]] = {}
    for name, cells in grids.items():
        errors = [outcome.error for outcome in train_all(cells) if outcome.error]
        if errors:
            sys.exit(f"{name}: {errors[0]}")
        runs[name] = [Run.load(cell.folder) for cell in cells]
    report = [
        _compared(task, *([r for r in runs[name] if _task(r) == task] for name in grids)) for task in _tasks(runs)
    ]
    text = json.dumps({"model": Path(given.model).name, "steps": given.steps, "tasks": report}, indent=1)
    given.out.write_text(text + "\n") if given.out else print(text)


def _task(run: Run) -> str:
    return run.info["config"]["task"]["name"]


def _tasks(runs: dict[str, list[Run]]) -> list[str]:
    return list(dict.fromkeys(map(_task, runs["full"])))


def _compared(task: str, full: list[Run], halved: list[Run]) -> dict:
    losses = _losses(full)
    (chosen,) = _losses(halved)
    ordered = sorted(losses.values())
    steps = [sum(run.info["results"]["steps"] for run in each) for each in (full, halved)]
    return {
        "task": task,
        "seeds": len({run.info["config"]["seed"] for run in full}),
        "validation_examples": full[0].info["examples"]["validation"],
        "losses": {f"{rate:g}": round(loss, 5) for rate, loss in losses.items()},
        "chosen_rate": chosen,
        "chosen_loss": round(losses[chosen], 5),
        "rank": 1 + ordered.index(losses[chosen]),
        "over_lowest": round(losses[chosen] / ordered[0] - 1, 3),
        "second_over_lowest": round(ordered[1] / ordered[0] - 1, 3),
        "share_of_steps": round(steps[1] / steps[0], 3),
    }


def _losses(runs: list[Run]) -> dict[float, float]:
    """By rate the mean over seeds; infinite where one is no number. Rates that were stopped are left out."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        if run.status != "stopped":
            loss = run.info["results"]["loss"].get("final")
            by_rate.setdefault(run.info["config"]["optimizer"]["lr_in_embedding_units"], []).append(
                float("inf") if loss is None or not np.isfinite(loss) else loss
            )
    return {rate: float(np.mean(losses)) for rate, losses in by_rate.items()}


if __name__ == "__main__":
    main()
