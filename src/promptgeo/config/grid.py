"""Which runs does a grid have? All combinations of its keys' values; some keys are walked together, rates are drawn."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from promptgeo.config.schema import Grid, Sampler
from promptgeo.errors import UserError

MOST_RUNS = 100_000
"""Of one command. Hydra keeps a list of them in memory before the first is composed."""
RATES = ("optimizer.lr", "optimizer.lr_in_embedding_units")
"""Keys that an interval may be given: their values are drawn from it."""
LISTED = "a grid needs values that can be listed: a,b,c or range(0,3); only a learning rate takes an interval"


def grid_of(composed: DictConfig) -> Grid:
    """The section `grid` of a composed config."""
    return Grid(**cast(dict[str, Any], OmegaConf.to_container(composed.grid, resolve=True)))


def jobs_of(overrides: Sequence[Override], grid: Grid) -> list[list[str]]:
    """What each run of a grid is given, as on a command line; the last key varies fastest.

    A later value of a key replaces an earlier one. Raises UserError for values that are none, too many, or do not fit.
    """
    axes: dict[str, Override] = {}
    for override in overrides:
        axes[override.get_key_element()] = override
    counts = {key: count(override, grid) for key, override in axes.items()}
    _check_zip(counts, {key for key, o in axes.items() if o.is_sweep_override()}, grid)
    zipped = [key for key in axes if _bare(key) in grid.zip]
    # What is walked together is one axis, where the first of its keys stands.
    together = [zipped if key in zipped else [key] for key in axes if key not in zipped[1:]]
    size = math.prod(counts[keys[0]] for keys in together)
    _require_runs(size, f"the grid of {', '.join(key for key, o in axes.items() if o.is_sweep_override())}")
    values = {key: [f"{key}={value}" for value in _values(override, grid)] for key, override in axes.items()}
    steps = [zip(*(values[key] for key in keys), strict=True) for keys in together]
    place = {key: k for k, key in enumerate(itertools.chain(*together))}
    return [
        [given[place[key]] for key in axes]
        for given in (list(itertools.chain(*job)) for job in itertools.product(*steps))
    ]


def count(override: Override, grid: Grid | None = None) -> int:
    """How many values a key is given, at least 1 and at most MOST_RUNS. Raises UserError for none, and for more.

    grid: None where it is not known yet.
    """
    line = override.input_line
    if not override.is_sweep_override():
        return 1
    if _bare(override.get_key_element()).startswith("grid."):
        raise UserError(f"{line}: says how this command's runs are made; give one value")
    values = override.value()
    if isinstance(values, IntervalSweep):
        if override.get_key_element() not in RATES:
            raise UserError(f"{line}: {LISTED}")
        return len(rates(override, grid)) if grid else 1
    try:  # a range is not listed: it may be of billions
        listed: Iterable = values.range() if isinstance(values, RangeSweep) else override.sweep_string_iterator()
        found = sum(1 for _ in islice(listed, MOST_RUNS + 1))
    except (ArithmeticError, ValueError, LookupError) as error:
        raise UserError(f"{line}: range(first,end,by) needs finite numbers, and by another than 0") from error
    if found == 0:
        raise UserError(f"{line}: stands for no value; range(0,5) stands for 0,1,2,3,4")
    _require_runs(found, line)
    return found


def rates(override: Override, grid: Grid) -> list[float]:
    """The learning rates that an interval stands for: grid.draws of them, log-uniform, rising, to six digits.

    halton: spread evenly (scrambled Halton points, Owen 2017); a longer draw holds every shorter one. random:
    independent. Raises UserError for an interval that does not hold as many.
    """
    line, interval = override.input_line, override.value()
    low, high = float(interval.start), float(interval.end)
    if not 0 < low < high < math.inf:
        raise UserError(f"{line}: a learning rate's interval is from a number above 0 to a larger one")
    if grid.sampler is Sampler.halton:
        from scipy.stats.qmc import Halton  # slow to import

        uniform = Halton(1, rng=np.random.default_rng(grid.seed)).random(grid.draws)[:, 0]
    else:
        uniform = np.random.default_rng(grid.seed).random(grid.draws)
    drawn = sorted({float(f"{low * (high / low) ** float(u):.6g}") for u in uniform})
    if len(drawn) < grid.draws:
        raise UserError(f"{line}: holds no {grid.draws} rates of six digits; widen it, or set grid.draws lower")
    return drawn


def _values(override: Override, grid: Grid) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_interval_sweep():
        return [repr(rate) for rate in rates(override, grid)]
    return [str(value) for value in override.sweep_string_iterator()]


def drawn(overrides: Sequence[Override], grid: Grid) -> list[str]:
    """A line for each key whose values are drawn."""
    last = {override.get_key_element(): override for override in overrides}
    return [
        f"{o.input_line}: {grid.draws} rates, log-uniform (grid.sampler={grid.sampler.name}, grid.seed={grid.seed}): "
        + ", ".join(f"{rate:g}" for rate in rates(o, grid))
        for o in last.values()
        if o.is_interval_sweep()
    ]


def _check_zip(counts: Mapping[str, int], varied: set[str], grid: Grid) -> None:
    line = f"grid.zip=[{','.join(grid.zip)}]"
    if grid.zip and len(set(grid.zip)) < max(len(grid.zip), 2):
        raise UserError(f"{line}: names keys that are varied together: two or more, each once")
    by_name = {_bare(key): key for key in counts}
    for name in grid.zip:
        if by_name.get(name) not in varied:
            raise UserError(f"{line}: {name} is not varied in this command; give it several values, {name}=a,b")
    if len({counts[by_name[name]] for name in grid.zip}) > 1:
        said = ", ".join(f"{name} has {counts[by_name[name]]}" for name in grid.zip)
        raise UserError(f"{line}: each needs as many values as the others; {said}")


def _bare(key: str) -> str:
    return key.lstrip("+")


def _require_runs(found: int, what: str) -> None:
    if found > MOST_RUNS:
        raise UserError(f"{what}: stands for more than {MOST_RUNS:,} runs; give several commands")
