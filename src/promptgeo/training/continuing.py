"""How does a run go on from where another one ended? From its final prompt, and from all that its training held.

Shapes: P prompt tokens, d width.
"""

import hashlib
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from promptgeo.config.identity import differences
from promptgeo.config.paths import user_path
from promptgeo.config.schema import RunConfig, to_dict
from promptgeo.errors import UserError
from promptgeo.runs.folder import TRAINING_STATE, DamagedRun, Run

log = logging.getLogger(__name__)

KEY = "training.continue_from"
_MAY_DIFFER = ("training.", "evaluation.", "optimizer.", "seeds.order", "seeds.dropout")
_OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Parent:
    """The run that another one goes on from."""

    id: str
    steps: int
    prompt_Pd: Tensor
    """Its final prompt, fp32 on the CPU: P0 of what goes on."""
    optimizer: dict[str, Tensor]
    """The optimiser's state of its prompt; empty where it was not kept."""
    order: Tensor | None
    """The state of the generator that draws the order of examples; None where it was not kept."""
    queue: deque[int]
    """Examples of its last epoch that were not trained on yet."""

    def header(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {"id": self.id, "steps": self.steps, "state": self.order is not None}


def parent_of(config: RunConfig, model: str) -> Parent:
    """The parent that training.continue_from names.

    model: the fingerprint of the config's. Raises UserError for a run that this config cannot go on from.
    """
    run = _run(config, model)
    prompt_Pd = torch.from_numpy(run.prompt("final").copy())
    order, queue, optimizer = None, deque[int](), dict[str, Tensor]()
    if TRAINING_STATE in run.info["files"]:
        tensors = safetensors.torch.load_file(run.folder / TRAINING_STATE)
        order, queue = tensors["order"], deque(tensors["queue"].tolist())
        optimizer = {k.removeprefix(_OPTIMIZER): x for k, x in tensors.items() if k.startswith(_OPTIMIZER)}
    return Parent(run.id, run.info["results"]["steps"], prompt_Pd, optimizer, order, queue)


def content_of_parent(config: RunConfig, model: str) -> str:
    """What enters the identity of a run that goes on: SHA-256 of all that it goes on from.

    model: the fingerprint of the config's. Raises UserError for a run that this config cannot go on from.
    """
    run = _run(config, model)
    files = run.info["files"]
    if TRAINING_STATE not in files:
        _say_once(
            f"{KEY}={config.training.continue_from}: that run left no state of its optimiser (training.keep_state=true "
            "does): its prompt goes on, the optimiser and the order of examples start anew"
        )
    parts = (run.id, files["prompts.safetensors"], files.get(TRAINING_STATE, "no state"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def kept_state(order: torch.Generator, queue: deque[int], optimizer: dict[str, Any]) -> dict[str, np.ndarray]:
    """What training.keep_state leaves of a run, as arrays. optimizer: the prompt's optimiser state."""
    moments = {f"{_OPTIMIZER}{name}": x for name, x in optimizer.items() if isinstance(x, Tensor)}
    tensors = moments | {"order": order.get_state(), "queue": torch.tensor(list(queue), dtype=torch.int64)}
    return {name: x.detach().cpu().contiguous().numpy() for name, x in tensors.items()}


_said: set[str] = set()


def _say_once(message: str) -> None:
    """Once a process: the runs of a grid may go on from one run."""
    if message not in _said:
        _said.add(message)
        log.warning(message)


def _run(config: RunConfig, model: str) -> Run:
    path = config.training.continue_from or ""
    try:
        run = Run.load(user_path(path, KEY))
    except DamagedRun as error:
        raise UserError(f"{KEY}={path}: {error}") from error
    if run.status != "completed":
        raise UserError(
            f"{KEY}={path}: that run is {run.status}, not completed; init=run init.path={path} starts another training "
            "from its prompt"
        )
    if run.info["fingerprints"]["model"] != model:
        name = run.info["config"]["model"]["name"]
        raise UserError(f"{KEY}={path}: that run was trained on another model ({name}); give the same")
    unlike = differences([to_dict(config)], [run.info["config"]])
    unlike = {k: v for k, v in unlike.items() if k == "optimizer.name" or not k.startswith(_MAY_DIFFER)}
    if unlike:
        wanted = " ".join(f"{_choice(key)}={_written(theirs[0])}" for key, (_, theirs) in _named(unlike).items())
        raise UserError(
            f"{KEY}={path}: what goes on is the same run in all but its training: give {wanted}; "
            f"init=run init.path={path} starts another training from its prompt"
        )
    return run


def _named(unlike: dict[str, tuple[list, list]]) -> dict[str, tuple[list, list]]:
    """Without what a difference of names stands for: another task has other columns, labels, ..."""
    groups = {key.split(".")[0] for key in unlike if key.endswith(".name")}
    return {k: v for k, v in unlike.items() if k.split(".")[0] not in groups or k == f"{k.split('.')[0]}.name"}


def _choice(key: str) -> str:
    """How it is given on a command line: task=..., not task.name=..."""
    return key.removesuffix(".name") if key.count(".") == 1 else key


def _written(value: Any) -> str:
    return "null" if value is None else str(value)
