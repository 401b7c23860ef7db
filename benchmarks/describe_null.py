"""Does a random prompt's best text exceed those of other random prompts more often than one time in twenty?

    python benchmarks/describe_null.py [--draws 400]     # minutes

On tiny, of which hardly any text does anything: the layers of each of so many random prompts are chosen as `describe`
chooses them, once as if it were a trained prompt, once as the null. The share that lies above the null's 95 % quantile
should be at most 5 %, which a binomial test compares (one-sided). Where texts are alike it is less.
"""

import argparse
import time
from itertools import product

import numpy as np
from scipy.stats import binomtest

import promptgeo as pg
from promptgeo.analysis.describing import descriptions, label_words, layer_pairs
from promptgeo.analysis.questions.describe import _chosen, _held, _tried, equal_norms
from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.config.compose_analyze import analysis_file
from promptgeo.model.frozen_lm import FrozenLM

LENGTH = 4
MEASURES = ("accuracy", "label_words", "rouge")
TARGETS = (analysis_file("describe")["target"], "{prompt}")
"""Behind its own target tiny writes the same few texts of any prompt; behind nothing it writes many."""


def measured(task_name: str, target: str, draws: int) -> dict[str, np.ndarray]:
    """[2 draws] float64 of each measure: of random prompts as long as words of the vocabulary."""
    options, lm = analysis_file("describe"), FrozenLM.load("tiny")
    task = pg.task(task_name, "task.split.validation=0.2", "task.split.max_test=40")
    tests = EvaluationSet(task, task.template.max_new_tokens, len(task.test))
    generator = np.random.default_rng(0)
    words_Vd = lm.vocabulary().numpy()
    prompts = [equal_norms(words_Vd[generator.integers(0, len(words_Vd), LENGTH)], generator) for _ in range(2 * draws)]
    pairs = layer_pairs(lm.layers, options["layers"])
    texts = descriptions(lm, prompts, [task] * len(prompts), pairs, target, options["max_new_tokens"])
    uses = [(k, 0) for k in range(len(prompts))]
    tried = _tried(lm, texts, uses, [_held(tests, options["chosen_on"], 0)])
    said = [task.name.replace("_", " "), "Write the capital of the country"]
    chosen = _chosen(lm, texts, uses, tried, [tests], [(label_words(task.train), said)])
    print(f"{task_name}, {target!r}: {len({text for of_one in texts for text in of_one})} different texts")
    values = {name: np.array([getattr(each, name) for each in chosen]) for name in MEASURES}
    return values | {"less_loss": -np.array([each.loss for each in chosen])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    draws = parser.parse_args().draws
    for task, target in product(("country_capital", "sentiment"), TARGETS):
        begun = time.perf_counter()
        for name, values in measured(task, target, draws).items():
            asked, null = values[:draws], values[draws:]
            above = int((asked > np.quantile(null, 0.95)).sum())
            p = binomtest(above, draws, 0.05, alternative="greater").pvalue
            print(f"  {name}: {above} of {draws} above the null's 95 % quantile, p = {p:.2g}; mean {null.mean():.4f}")
        print(f"  {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
