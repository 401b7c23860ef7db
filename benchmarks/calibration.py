"""How often does the test for the task reject where there is no task effect?

    python benchmarks/calibration.py [--draws 1000] [--permutations 199] [--out calibration.json]

Each draw is a grid of inits and tasks with strong effects of init, position and run, and none of task. The stratified
test (whole runs permuted within an init) should reject at .05 in 5 % of them. Tokens permuted within an init, the wrong
way, reject far more often: the tokens of a run are alike. JSON to stdout.

Shapes: N runs, P prompt tokens, d width, K = N * P.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from promptgeo.analysis.geometry.variance import Inner, run_share
from promptgeo.analysis.resampling import permutation_p, wilson

INITS, TASKS, LENGTH, WIDTH = 6, 4, 4, 8
LEVEL = 0.05


def null_draw(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [N, P, d] without a task effect, and the init and task [N] of each run."""
    init_N, task_N = (codes.ravel() for codes in np.indices((INITS, TASKS)))
    init_N1d = generator.normal(size=(INITS, 1, WIDTH))[init_N]
    position_1Pd = generator.normal(size=(1, LENGTH, WIDTH))
    run_N1d = generator.normal(size=(len(init_N), 1, WIDTH))
    noise_NPd = generator.normal(size=(len(init_N), LENGTH, WIDTH))
    return 2.0 * init_N1d + position_1Pd + run_N1d + noise_NPd, init_N, task_N


def runs_p(vectors_NPd: np.ndarray, init_N: np.ndarray, task_N: np.ndarray, permutations: int, seed: int) -> float:
    """The analysis's test: whole runs within an init."""
    return run_share(Inner.of(vectors_NPd), task_N, init_N, permutations, seed).p


def tokens_p(vectors_NPd: np.ndarray, init_N: np.ndarray, task_N: np.ndarray, permutations: int, seed: int) -> float:
    """The wrong way: each token as if it were a run of its own."""
    length = vectors_NPd.shape[1]
    tokens_K1d = vectors_NPd.reshape(-1, 1, vectors_NPd.shape[2])
    return run_share(Inner.of(tokens_K1d), np.repeat(task_N, length), np.repeat(init_N, length), permutations, seed).p


def rejections(draws: int, permutations: int, seed: int = 0) -> dict[str, int]:
    """In how many null draws each test rejects at LEVEL."""
    generator = np.random.default_rng(seed)
    counts = {"runs": 0, "tokens": 0}
    for draw in range(draws):
        drawn = null_draw(generator)
        counts["runs"] += runs_p(*drawn, permutations, draw) <= LEVEL
        counts["tokens"] += tokens_p(*drawn, permutations, draw) <= LEVEL
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    smallest = permutation_p(1.0, np.zeros(options.permutations))
    report = {"draws": options.draws, "permutations": options.permutations, "seed": options.seed, "level": LEVEL}
    report |= {"smallest_p": smallest, "inits": INITS, "tasks": TASKS, "prompt_length": LENGTH, "width": WIDTH}
    for name, count in rejections(options.draws, options.permutations, options.seed).items():
        report[name] = {"rejected": count / options.draws, "interval": wilson(count, options.draws)}
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
