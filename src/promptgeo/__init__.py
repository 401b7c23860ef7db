"""promptgeo: train grids of soft prompts on frozen language models, and ask where they lie.

Example:
    run = pg.train(task="country_capital", init="cat", seed=0)
    run.generate(["France", "Japan"])
    runs = pg.load_runs("outputs/quickstart").query("task == 'country_capital'")
    pg.evaluate(pg.FrozenLM.load("tiny"), runs.prompts(), pg.task("country_capital")).accuracy
    pg.analyze(runs="outputs/quickstart", analysis=["curves"])
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from promptgeo.errors import UserError

# Before torch starts its threads: they spin while they wait for one another. On a machine that does other work too that
# made short steps up to six times slower; sleeping at once costs a third on an idle one. So: spin briefly.
# OMP_WAIT_POLICY, where it is set, has the last word.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Before CUDA starts: what cuBLAS needs to give the same bytes again.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if TYPE_CHECKING:
    from promptgeo.analysis.near import nearest_prompts
    from promptgeo.api import analyze, task, train
    from promptgeo.evaluation.evaluate import evaluate
    from promptgeo.evaluation.generate import embeddings, generate, next_tokens
    from promptgeo.model.frozen_lm import FrozenLM
    from promptgeo.runs.folder import Run
    from promptgeo.runs.table import RunTable, load_runs

_HOMES = {
    "FrozenLM": "model.frozen_lm",
    "Run": "runs.folder",
    "RunTable": "runs.table",
    "load_runs": "runs.table",
    "evaluate": "evaluation.evaluate",
    "embeddings": "evaluation.generate",
    "generate": "evaluation.generate",
    "next_tokens": "evaluation.generate",
    "nearest_prompts": "analysis.near",
    "analyze": "api",
    "task": "api",
    "train": "api",
}

__all__ = [
    "FrozenLM",
    "Run",
    "RunTable",
    "UserError",
    "analyze",
    "embeddings",
    "evaluate",
    "generate",
    "load_runs",
    "nearest_prompts",
    "next_tokens",
    "task",
    "train",
]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: `--help` must not wait for them.
    if name in _HOMES:
        return getattr(import_module(f"promptgeo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'promptgeo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
