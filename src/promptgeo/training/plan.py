"""Is this run ready to train? Everything that can be wrong is found here, before a folder is made.

Shapes: P prompt tokens, d width.
"""

import importlib.metadata
import os
import platform
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from promptgeo.config.identity import derived_seeds
from promptgeo.config.paths import require_writable
from promptgeo.config.schema import Optimizer, RunConfig, to_dict
from promptgeo.config.waiting import said_when_slow
from promptgeo.data.row import Row
from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import UserError
from promptgeo.evaluation.rules import check_scoring
from promptgeo.evaluation.text_checks import check_texts
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.model.interface import LM
from promptgeo.model.loading import local_folder
from promptgeo.runs.folder import FORMAT, Run
from promptgeo.training.cell import Cell
from promptgeo.training.inits import initial_prompt
from promptgeo.training.lock import CLAIMS
from promptgeo.training.wayward import HeldTo, held_to


@dataclass(frozen=True)
class Plan:
    """One run, ready to train."""

    cell: Cell
    lm: LM
    task: Task
    seeds: dict[str, int]
    """Of the three generators: init, order, dropout."""
    p0_Pd: torch.Tensor
    """fp32 on CPU."""
    train_rows: list[Row]
    total_steps: int
    wayward: HeldTo | None = None
    """Where training pulls each prompt token: regulariser=wayward."""

    @property
    def config(self) -> RunConfig:
        return self.cell.config

    @property
    def id(self) -> str:
        return self.cell.id

    @property
    def folder(self) -> Path:
        return self.cell.folder

    @property
    def split(self) -> str:
        """The split that learning curves and predictions are made on."""
        return self.config.evaluation.split.name

    @cached_property
    def optimizer(self) -> Optimizer:
        """The optimiser's settings, with the learning rate as a number of its own, whatever unit it was given in."""
        optimizer = self.config.optimizer
        if optimizer.lr_in_embedding_units is None:
            return optimizer
        return replace(optimizer, lr=optimizer.lr_in_embedding_units * self.lm.embedding_scale)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_rows) // self.config.training.batch_size)

    def header(self) -> dict[str, Any]:
        """What run.json says of the run before its results."""
        partners = [run_id for run_id in self.cell.coupled if run_id != self.id]
        return {
            "format": FORMAT,
            "id": self.id,
            "config": to_dict(self.config),
            "precision": self.cell.precision,
            "device": self.lm.device.type,
            "seeds": self.seeds,
            "versions": _versions(),
            "fingerprints": {"model": self.lm.fingerprint, "data": self.task.fingerprint},
            **({"coupled_with": partners} if partners else {}),
            **({"lr": self.optimizer.lr} if self.config.optimizer.lr is None else {}),
            "examples": {split: len(getattr(self.task, split)) for split in ("train", "validation", "test")},
        }


def plan(cell: Cell) -> Plan:
    """Load model and data, tokenise every example, make P0. Raises UserError for whatever the user must mend."""
    config = cell.config
    _require_possible_folder(cell)
    lm = _load_model(cell)
    if lm.max_positions is not None and (config.prompt.length or 0) >= lm.max_positions:
        raise UserError(
            f"prompt.length={config.prompt.length}: the model has {lm.max_positions} positions for prompt and text"
        )
    task = load_task(config.task, config.template)
    seeds = derived_seeds(config)
    p0_Pd = initial_prompt(config.init, config.prompt, lm, task, seeds["init"])
    length = len(p0_Pd)
    wayward = held_to(config.regulariser, lm, length)
    with said_when_slow(f"tokenising and checking the examples of task {task.name}"):
        train_rows = task.rows(lm, task.train, length)
        _require_examples(config, task)
        for split in (task.train, task.validation, getattr(task, config.evaluation.split.name)):
            rows = task.rows(lm, split, length)
            check_scoring(task.template, split, rows)
            check_texts(lm, task, config.evaluation.max_new_tokens, split, rows)
    steps_per_epoch = -(-len(train_rows) // config.training.batch_size)
    total_steps = config.training.max_steps or config.training.epochs * steps_per_epoch
    return Plan(cell, lm, task, seeds, p0_Pd, train_rows, total_steps, wayward)


def _require_possible_folder(cell: Cell) -> None:
    require_folder_free(cell)
    require_writable(Path(cell.config.outputs))
    require_writable(cell.folder.parent, "name")
    for other in cell.folder.parent.glob(f"*-{cell.id[:8]}"):
        if other != cell.folder and _is_run(other, cell.id):
            raise UserError(
                f"model.name={cell.config.model.name}: this very run lies in {other} under another name; "
                "use that name, or delete the folder"
            )


FOLDERS = ("", ".hydra", "state")
"""Of a run; below outputs/<name>/<run>."""
LOGS = ("train.log", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
"""Hydra writes them through links; what promptgeo writes replaces a link."""
LONGEST = ("/.hydra/overrides.yaml", "/state/.state.safetensors.tmp")


def require_folder_free(cell: Cell) -> None:
    """Raises UserError where the run's folder cannot be made, or something in its place is no folder of a run's own.

    outputs and outputs/<name> may be links; nothing below may.
    """
    folder = cell.folder
    _require_short(folder)
    for place in (folder / name for name in FOLDERS):
        if place.is_symlink() or (os.path.lexists(place) and not place.is_dir()):
            what = "a link" if place.is_symlink() else "a file"
            raise UserError(f"{place}: is {what}, and a folder of the run's own is needed; move it away")
    for place in (*(folder / name for name in LOGS), folder.parent / "multirun.yaml", folder.parent / CLAIMS):
        if place.is_symlink() or (os.path.lexists(place) and not place.is_file()):
            raise UserError(f"{place}: is a link or no file, and would be written to; move it away")


def _require_short(folder: Path) -> None:
    """Raises UserError where the file system takes no such name or path."""
    longest = max(len(os.fsencode(folder.absolute())) + len(name) for name in LONGEST)
    if len(os.fsencode(folder.name)) > 255:
        raise UserError(
            f"{folder.name[:60]}...: this name of a run's folder is longer than a file system allows; "
            "shorten model.name, task.name or init.name"
        )
    if long := next((part for part in folder.parts if len(os.fsencode(part)) > 255), None):
        raise UserError(f"outputs: {long[:60]}...: is longer than the 255 bytes that a file system allows a name")
    if longest >= 4096:
        raise UserError(f"outputs={str(folder)[:60]}...: paths of files would have {longest} bytes, of 4,095 possible")


def _is_run(folder: Path, run_id: str) -> bool:
    try:
        return Run.load(folder, verify=False).id == run_id
    except UserError:
        return False  # what is damaged is no run


def _load_model(cell: Cell) -> LM:
    model = cell.config.model
    if local_folder(model.name_or_path):
        # There is nothing to wait for, and the bar would stand before the one line of an error. A download keeps its.
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
    with said_when_slow(f"loading the model {model.name_or_path}"):
        return FrozenLM.load(
            model.name_or_path,
            revision=model.revision,
            precision=cell.precision,
            device=cell.device,
            trust_remote_code=model.trust_remote_code,
        )


def _require_examples(config: RunConfig, task: Task) -> None:
    split = config.evaluation.split.name
    if not getattr(task, split):
        raise UserError(
            f"evaluation.split={split}: task {task.name} has no such examples; set task.split.validation=0.1"
        )
    if config.training.early_stopping.patience is not None and not task.validation:
        raise UserError(
            f"training.early_stopping.patience: task {task.name} has no validation examples; "
            "set task.split.validation=0.1"
        )


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = ("promptgeo", "torch", "transformers", "tokenizers", "lightning", "hydra-core", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
