"""Peak memory and time of neighbourhoods in a vocabulary: 250,880 tokens x 1,024 , 10,000 prompt tokens.

    python benchmarks/vocabulary_memory.py [--vocabulary 250880] [--width 1024] [--prompts 10000] [--top 20]

Random arrays in this process; the peak is the kernel's maximum resident set size, embeddings, interpreter and PyTorch
included. Exit status 1 where it is 2 GB or more.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np

from promptgeo.analysis.geometry.vocabulary import Vocabulary

RADII = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("vocabulary", 250_880), ("width", 1024), ("prompts", 10_000), ("top", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    table = Vocabulary(generator.standard_normal((options.vocabulary, options.width), dtype=np.float32), [])
    unit_Kd = generator.standard_normal((options.prompts, options.width), dtype=np.float32)
    unit_Kd /= np.sqrt(np.einsum("kd,kd->k", unit_Kd, unit_Kd))[:, None]
    start = time.perf_counter()
    table.near(unit_Kd, RADII, options.top)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(vars(options) | {"seconds": round(time.perf_counter() - start, 1), "peak_bytes": peak}))
    sys.exit(peak >= 2e9)


if __name__ == "__main__":
    main()
