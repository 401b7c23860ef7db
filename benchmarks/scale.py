"""How a sweep's memory and time grow with its runs: 24 and 240 runs of the embedded model, each a command of its own.

    python benchmarks/scale.py [--runs 24 240] [--preview] [--out scale.json] [key=value ...]

key=value: what to add to the commands, default training.epochs=1. Each sweep runs in a process and an empty folder of
its own; its peak memory is the kernel's maximum resident set size. The largest is then run again: nothing is left to
train; and promptgeo-runs lists it. --preview: the sweeps are only previewed, and of a single run too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peft_recipe import environment, write_report
from promptgeo.runs.table import load_runs

TASKS = "country_capital,present_past,singular_plural,capitalize_first_letter"
INITS = "cat,dog,bird,book,house,chair"


def command(runs: int, outputs: Path, overrides: list[str]) -> list[str]:
    """4 tasks x 6 inits x as many seeds as it takes."""
    seeds = ",".join(map(str, range(runs // 24)))
    grid = [f"task={TASKS}", f"init={INITS}", f"seed={seeds}", f"name=scale{runs}", f"outputs={outputs}"]
    return [sys.executable, "-m", "promptgeo.train", *grid, *overrides, "-m"]


def measured(arguments: list[str]) -> dict[str, float]:
    """Wall time and peak memory of a command. Raises CalledProcessError unless it ends with 0."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), arguments)
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    return spent | {"peak_bytes": usage.ru_maxrss * 1024}


def previews(counts: list[int], overrides: list[str], folder: Path) -> tuple[dict, str]:
    """What previews of one run and of sweeps take: a result and its lines."""
    grids = {runs: command(runs, folder, [*overrides, "preview=true"]) for runs in counts}
    grids = {1: [sys.executable, "-m", "promptgeo.train", "preview=true", f"outputs={folder}", *overrides]} | grids
    spent = {runs: measured(arguments) for runs, arguments in grids.items()}
    above = {runs: s["peak_bytes"] - spent[1]["peak_bytes"] for runs, s in spent.items()}
    lines = [
        f"{runs:>6} runs previewed: {s['seconds']:.0f} s ({s['cpu_seconds']:.0f} s of CPU), "
        f"{above[runs] / 1e6:.0f} MB above one run"
        for runs, s in spent.items()
    ]
    return {"overrides": overrides, "previews": spent}, "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[24, 240], help="multiples of 24")
    parser.add_argument("--preview", action="store_true", help="measure previews alone")
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    parser.add_argument("overrides", nargs="*", default=["training.epochs=1"])
    arguments = parser.parse_args()
    sweeps = {}
    with tempfile.TemporaryDirectory(prefix="promptgeo-scale-") as folder:
        if arguments.preview:
            result, text = previews(arguments.runs, arguments.overrides, Path(folder))
            write_report(environment("cpu") | {"result": result}, text, arguments.out)
            return
        for runs in arguments.runs:
            sweeps[runs] = measured(command(runs, Path(folder), arguments.overrides))
            table = load_runs(Path(folder) / f"scale{runs}").table
            sweeps[runs]["complete_folders"] = int((table["status"] == "completed").sum())
            sweeps[runs]["prompt_bytes"] = runs * int(table["prompt_length"].iloc[0]) * 256 * 4
        again = measured(command(arguments.runs[-1], Path(folder), arguments.overrides))
        listed = measured([sys.executable, "-m", "promptgeo.cli.runs", folder + f"/scale{arguments.runs[-1]}"])
    first, last = sweeps[arguments.runs[0]], sweeps[arguments.runs[-1]]
    result = {
        "overrides": arguments.overrides,
        "sweeps": sweeps,
        "peak_ratio": last["peak_bytes"] / first["peak_bytes"],
        "same_command_again_seconds": again["seconds"],
        "listing_seconds": listed["seconds"],
    }
    lines = [
        f"{runs:>4} runs: {s['complete_folders']} complete, {s['seconds']:.0f} s, peak {s['peak_bytes'] / 1e6:.0f} MB"
        for runs, s in sweeps.items()
    ]
    lines.append(
        f"peak {result['peak_ratio']:.2f} times; the same command again: {again['seconds']:.1f} s; "
        f"promptgeo-runs: {listed['seconds']:.1f} s"
    )
    write_report(environment("cpu") | {"result": result}, "\n".join(lines), arguments.out)


if __name__ == "__main__":
    main()
