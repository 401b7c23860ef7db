"""Time and peak memory of scoring many mixtures of 4 trained tokens: plus_one on the embedded model, 100 test numbers.

    python benchmarks/mixtures.py [--mixtures 1000 10000] [--threads 2] [--out mixtures.json]

evaluate: promptgeo.evaluate on an array [N, 1, 256]. convexity: the analysis with N random mixtures, controls and
intervals included. Each part at each N runs in a process of its own; its peak is the kernel's maximum resident set
size, interpreter, PyTorch and model included, and `grown_bytes` is by how much it rose while the part ran. Training the
4 prompts (100 steps) is not timed. Exit status 1 where evaluate takes more than 180 s, or grows by more than 64 MB
beyond prompts and results, at any N.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import promptgeo as pg
from promptgeo.analysis.geometry.mixtures import dirichlet, mix
from promptgeo.analysis.questions.convexity import convexity
from promptgeo.config.compose import compose_grid
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of
from promptgeo.training.cell import cells_of
from promptgeo.training.engine import train_pack
from promptgeo.training.plan import plan

from peft_recipe import environment  # isort: skip

PARTS = ("evaluate", "convexity")
SECONDS, BYTES = 180.0, 64e6


def trained(folder: Path) -> RunTable:
    line = ["task=plus_one", "template=bare", "init=vocab", "prompt.length=1", "training.max_steps=100"]
    line += ["evaluation.every=end", "device=cpu", f"outputs={folder}", "seed=0,1,2,3"]
    plans = [plan(cell) for cell in cells_of(compose_grid(line, multirun=True))]
    if failed := train_pack(plans):
        raise SystemExit(f"training failed: {failed}")
    return pg.load_runs(folder)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(part: str, mixtures: int, folder: Path) -> dict:
    """One part in this process."""
    runs, lm = pg.load_runs(folder), pg.FrozenLM.load("tiny", device="cpu")
    task = task_of(runs.runs[0])
    vertices_VPd = runs.prompts()
    pg.evaluate(lm, vertices_VPd, task)  # what every process does once
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    if part == "evaluate":
        weights_MV, _ = dirichlet(len(runs), (0.2, 1, 5), mixtures, np.random.default_rng(0))
        prompts_NPd = mix(weights_MV, vertices_VPd).astype(np.float32)
        scores = pg.evaluate(lm, prompts_NPd, task)
        measured = {
            "accuracy": float(scores.accuracy.mean()),
            "array_bytes": 3 * prompts_NPd.nbytes + 2 * (scores.losses.nbytes + scores.correct.nbytes),
        }
    else:
        result = convexity(runs, lm=lm, mixtures=mixtures)
        measured = {"accuracy": result.value("mixtures.plus_one.mean")}
    seconds = {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return {
        "part": part,
        "mixtures": mixtures,
        **seconds,
        "peak_bytes": peak(),
        "grown_bytes": peak() - before,
        **measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtures", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    parser.add_argument("--part", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.part:
        print(json.dumps(measure(options.part[0], options.mixtures[0], Path(options.part[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="promptgeo-mixtures-") as folder:
        trained(Path(folder))
        for part in PARTS:
            for n in options.mixtures:
                command = [
                    sys.executable,
                    __file__,
                    "--mixtures",
                    str(n),
                    "--threads",
                    str(options.threads),
                    "--part",
                    part,
                    folder,
                ]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rows.append(json.loads(printed.splitlines()[-1]))
                print(rows[-1], file=sys.stderr)
    text = json.dumps(environment("cpu") | {"threads": options.threads, "result": rows}, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    evaluated = [row for row in rows if row["part"] == "evaluate"]
    sys.exit(any(row["seconds"] > SECONDS or row["grown_bytes"] - row["array_bytes"] > BYTES for row in evaluated))


if __name__ == "__main__":
    main()
