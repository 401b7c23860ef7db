"""Draws in blocks, each a file of JSON lines, so that a run that was stopped goes on, on two processes."""

import gzip
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from calibrating.collecting import Said, analysis, fits, names, said
from calibrating.scenarios import SCENARIOS
from promptgeo.analysis.result import digest
from promptgeo.analysis.used_code import used_code

BLOCK = 25
"""Draws of one file."""
Pair = tuple[str, str]
"""(analysis, scenario)."""


def pairs(only: Sequence[str] = (), scenarios: Sequence[str] = ()) -> list[Pair]:
    """Every analysis with every scenario that it is asked about; only, scenarios: some of them, () for all."""
    return [
        (name, scenario)
        for name in names()
        for scenario in SCENARIOS
        if fits(name, SCENARIOS[scenario]) and (not only or name in only) and (not scenarios or scenario in scenarios)
    ]


def draw(out: Path, wanted: Sequence[Pair], first: int, draws: int, processes: int) -> Iterator[tuple[int, int, float]]:
    """Draws first to first + draws - 1 of each pair that do not lie in `out` yet; (blocks done, blocks, seconds)."""
    blocks = [
        (name, scenario, start, min(start + BLOCK, first + draws))
        for start in range(first, first + draws, BLOCK)
        for name, scenario in wanted
    ]
    missing = [block for block in blocks if not _file(out, *block).exists()]
    if not missing:
        return
    pool = pool_of(processes)
    try:
        futures = [pool.submit(_draw_block, out, *block) for block in missing]
        for done, future in enumerate(as_completed(futures), 1):
            yield done, len(missing), future.result()
    finally:  # stopped: the blocks that are being drawn are finished, no others begun
        pool.shutdown(cancel_futures=True)


def pool_of(processes: int) -> ProcessPoolExecutor:
    """So many processes of one thread each."""
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # read by the processes as they start: they themselves use all cores
    return ProcessPoolExecutor(processes, get_context("spawn"))


def _draw_block(out: Path, name: str, scenario: str, start: int, stop: int) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    warm(name)
    lines = []
    for seed in range(start, stop):
        rows = [[_short(value) for value in astuple(one)] for one in said(name, SCENARIOS[scenario], seed)]
        lines.append(json.dumps({"draw": seed, "said": rows}))
    path = _file(out, name, scenario, start, stop)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    temporary.replace(path)
    return time.perf_counter() - begun


@cache
def warm(name: str) -> None:
    """An analysis's first scenario, once in each process: the stand-in numbers words in the order in which it meets
    them, so that draws would else depend on which block a process draws first."""
    said(name, next(scenario for scenario in SCENARIOS.values() if fits(name, scenario)), 0)


def _short(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) else value


def stored(out: Path, name: str, scenario: str, draws: int) -> list[list[Said]]:
    """What lies there of the first draws, in their order."""
    found: dict[int, list[Said]] = {}
    for path in _folder(out, name).glob(f"{_slug(scenario)}-*.jsonl.gz"):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            row = json.loads(line)
            found[row["draw"]] = [Said(*values) for values in row["said"]]
    return [found[seed] for seed in sorted(found) if seed < draws]


def _file(out: Path, name: str, scenario: str, start: int, stop: int) -> Path:
    return _folder(out, name) / f"{_slug(scenario)}-{start:05d}-{stop:05d}.jsonl.gz"


@cache
def _folder(out: Path, name: str) -> Path:
    """Of an analysis as its code and options are: whatever is changed is drawn anew."""
    asked = analysis(name)
    code = used_code(asked.function.__module__, "calibrating.collecting")
    return out / f"{name}-{digest(code, asked.options)[:8]}"


def _slug(scenario: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in scenario)
