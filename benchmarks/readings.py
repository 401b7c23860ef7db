"""Time and peak memory of each reading of nearest tokens: 1,000 prompt tokens x 250,880 words x 1,024.

    python benchmarks/readings.py [--vocabulary 250880] [--width 1024] [--prompts 1000] [--top 3] [--sample 10000]

Random arrays in this process; the peak is the kernel's maximum resident set size, embeddings, interpreter and PyTorch
included. What a reading needs of the whole vocabulary (mean, principal directions, hubness) counts in its time. Exit
status 1 where a reading takes more than 60 s, all of them more than 5 minutes, or the peak is 2 GB or more.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np

from promptgeo.analysis.geometry.readings import Reading, Readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("vocabulary", 250_880), ("width", 1024), ("prompts", 1000), ("top", 3), ("sample", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    matrix_Vd = generator.standard_normal((options.vocabulary, options.width), dtype=np.float32)
    prompts_Kd = generator.standard_normal((options.prompts, options.width), dtype=np.float32)
    readings = Readings(matrix_Vd, sample=options.sample)
    seconds = {}
    for reading in Reading:
        start = time.perf_counter()
        readings.nearest(prompts_Kd, reading, options.top)
        seconds[str(reading)] = round(time.perf_counter() - start, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    total = round(sum(seconds.values()), 1)
    print(json.dumps(vars(options) | {"seconds": seconds, "all": total, "peak_bytes": peak}))
    sys.exit(max(seconds.values()) > 60 or total > 300 or peak >= 2e9)


if __name__ == "__main__":
    main()
