"""Time and memory of study 3's analyses at its own size: 240 runs of 4 x 1600, 50 checkpoints, 50,257 tokens.

    python benchmarks/analyses.py [--runs 240] [--out analyses.json]

Synthetic run folders (init, task, position and seed effects planted) and a synthetic vocabulary: what runs the model
(transplant, mean_prompts) is left out. Each analysis is made for prompts and deltas, by both conventions, as
promptgeo.analyze does, figures included; reading and checking the folders is timed too.
"""

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.target import analysis_of
from promptgeo.config.compose_analyze import analysis_file
from promptgeo.runs.folder import Trained, write_run
from promptgeo.runs.table import RunTable, load_runs

from peft_recipe import environment  # isort: skip

INITS = ("cat", "dog", "bird", "book", "house", "chair", "table", "pen", "paper", "water")
TASKS = (
    "country_capital",
    "landmark_country",
    "present_past",
    "singular_plural",
    "capitalize_first_letter",
    "lowercase_first_letter",
)
ANALYSES = (
    "curves",
    "mean_distances",
    "sequences",
    "neighbours",
    "neighbour_words",
    "init_vs_task",
    "over_training",
    "decoding",
    "projection",
)
LENGTH, WIDTH, TOKENS, CHECKPOINTS = 4, 1600, 50257, 50


def make_vocabulary(generator: np.random.Generator) -> Vocabulary:
    """Random embeddings with a common direction; the tokens' texts are the init words and numbers."""
    embeddings_Vd = generator.standard_normal((TOKENS, WIDTH), dtype=np.float32) + 0.5 * generator.standard_normal(
        WIDTH, dtype=np.float32
    )
    return Vocabulary(
        embeddings_Vd, [*INITS, *(f" {word}" for word in INITS), *map(str, range(TOKENS - 2 * len(INITS)))]
    )


def write_runs(folder: Path, count: int, vocabulary: Vocabulary, generator: np.random.Generator) -> None:
    """`count` runs over the grid of inits and tasks, as many seeds as it takes."""
    task_effect = {task: 0.4 * generator.standard_normal((LENGTH, WIDTH), dtype=np.float32) for task in TASKS}
    for k, (seed, task, init) in zip(range(count), itertools.product(range(count), TASKS, INITS), strict=False):
        initial_Pd = np.repeat(vocabulary.embeddings_Vd[[INITS.index(init)]], LENGTH, axis=0)
        delta_Pd = task_effect[task] + 0.6 * generator.standard_normal((LENGTH, WIDTH), dtype=np.float32)
        trajectory_CPd = initial_Pd + np.linspace(0, 1, CHECKPOINTS + 1, dtype=np.float32)[1:, None, None] * delta_Pd
        steps = np.arange(1, CHECKPOINTS + 1) * 20
        row = {"label_accuracy": None, "n": 40, "lr": 1e-3, "prompt_norm": 1.0, "distance_to_p0": 1.0}
        metrics = [
            {"step": int(s), "epoch": c + 1, "split": "test", "loss": 1 / (c + 1), "accuracy": c / CHECKPOINTS} | row
            for c, s in enumerate(steps)
        ]
        config = {
            "model": {"name": "synthetic", "name_or_path": "synthetic", "revision": None},
            "task": {"name": task},
            "seed": seed,
            "init": {"name": init, "kind": "word", "text": init},
            "template": {"name": "study3"},
            "optimizer": {"lr": 1e-3},
        }
        accuracies = {"none": 0.0, "initial": 0.0, "final": 0.98, "best": 0.98}
        results = {
            "prompt_length": LENGTH,
            "steps": int(steps[-1]),
            "n": 40,
            "accuracy": accuracies,
            "loss": {"final": 0.02},
        }
        header = {"id": f"{k:064d}", "config": config, "fingerprints": {"model": "", "data": ""}, "precision": "fp32"}
        outputs = [{"prompt": "final", "id": str(e), "correct": e > 0} for e in range(results["n"])]
        final_Pd = trajectory_CPd[-1]
        trained = Trained("completed", initial_Pd, trajectory_CPd, steps, final_Pd, final_Pd, metrics, outputs, results)
        write_run(folder / f"{k:04d}", header, trained)


def seconds_of(name: str, runs: RunTable, vocabulary: Vocabulary) -> float:
    """Seconds that an analysis takes for prompts and deltas, by both conventions."""
    analysis = analysis_of(name, analysis_file(name))
    given = analysis.options | ({"vocabulary": vocabulary} if analysis.declared.vocabulary else {})
    start = time.perf_counter()
    for variant in analysis.variants():
        analysis.function(runs, **given, **variant)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=240)
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    vocabulary = make_vocabulary(generator)
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="promptgeo-analyses-") as folder:
        write_runs(Path(folder), arguments.runs, vocabulary, generator)
        start = time.perf_counter()
        runs = load_runs(folder)
        seconds["reading and checking the folders"] = time.perf_counter() - start
        for name in ANALYSES:
            seconds[name] = seconds_of(name, runs, vocabulary)
            print(f"{name}: {seconds[name]:.1f} s", file=sys.stderr)
    result = {
        "runs": len(runs),
        "seconds": seconds,
        "total_seconds": sum(seconds.values()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(f"total: {result['total_seconds']:.0f} s, peak {result['peak_bytes'] / 1e9:.2f} GB", file=sys.stderr)
    text = json.dumps(environment("cpu") | {"result": result}, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
