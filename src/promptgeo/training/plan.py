"""Is this run ready to train? Everything that can be wrong is found here, before a folder is made.

Shapes: P prompt tokens, d width.
"""

import importlib.metadata
import os
import platform
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from promptgeo.config.identity import derived_seeds
from promptgeo.config.paths import require_short, require_writable
from promptgeo.config.schema import Optimizer, RunConfig, to_dict
from promptgeo.config.validate import needs_validation
from promptgeo.config.waiting import said_when_slow
from promptgeo.data.row import Row
from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import UserError
from promptgeo.evaluation.rules import check_scoring
from promptgeo.evaluation.text_checks import check_texts
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.model.interface import LM
from promptgeo.model.loading import local_folder
from promptgeo.runs.folder import FILES, FORMAT, TRAINING_STATE, Run
from promptgeo.training.cell import Cell
from promptgeo.training.continuing import Parent, parent_of
from promptgeo.training.inits import RANDOM, initial_prompt
from promptgeo.training.lock import CLAIMS
from promptgeo.training.rungs import check_steps
from promptgeo.training.wayward import HeldTo, held_to


@dataclass(frozen=True)
class Plan:
    """One run, ready to train."""

    cell: Cell
    lm: LM
    task: Task
    make_p0: Callable[[], torch.Tensor]
    """Makes P0 [P, d], fp32 on CPU, always the same: a grid's random P0s are not held until they train."""
    prompt_length: int
    """P."""
    train_rows: list[Row]
    """One list for all runs of a task."""
    total_steps: int
    wayward: HeldTo | None = None
    """Where training pulls each prompt token: regulariser=wayward."""
    parent: Parent | None = None
    """The run that it goes on from: training.continue_from."""

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
    def p0_Pd(self) -> torch.Tensor:
        """P0, made anew where its init draws it."""
        return self.make_p0()

    @property
    def seeds(self) -> dict[str, int]:
        """Of the three generators: init, order, dropout."""
        return derived_seeds(self.config)

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
            **({"parent": self.parent.header()} if self.parent else {}),
            **({"lr": self.optimizer.lr} if self.config.optimizer.lr is None else {}),
            "examples": {split: len(getattr(self.task, split)) for split in ("train", "validation", "test")},
        }


def plan(cell: Cell) -> Plan:
    """Load model and data, tokenise every example, try P0. Raises UserError for whatever the user must mend."""
    return plan_all([cell])[0]


def plan_all(cells: Sequence[Cell]) -> list[Plan]:
    """The plans of runs that share a model. What several of them have in common is loaded, made and checked once.

    Raises UserError for whatever the user must mend.
    """
    _require_possible_folders(cells)
    lm = _load_model(cells[0])
    common = _Common(lm)
    return [common.plan(cell) for cell in cells]


class _Common:
    """What plans that are made together have in common."""

    def __init__(self, lm: LM):
        self.lm = lm
        self._tasks: dict[tuple, Task] = {}
        self._starts: dict[tuple, tuple[Callable[[], torch.Tensor], int]] = {}
        self._held: dict[tuple, HeldTo | None] = {}
        self._rows: dict[tuple, list[Row]] = {}

    def plan(self, cell: Cell) -> Plan:
        config, lm = cell.config, self.lm
        if lm.max_positions is not None and (config.prompt.length or 0) >= lm.max_positions:
            raise UserError(
                f"prompt.length={config.prompt.length}: the model has {lm.max_positions} positions for prompt and text"
            )
        # By identity: to compare two tasks field by field takes longer than all else here. The cells keep them alive.
        key: tuple = id(config.task), id(config.template)
        if key not in self._tasks:
            self._tasks[key] = load_task(config.task, config.template)
        task = self._tasks[key]
        parent = parent_of(config, lm.fingerprint) if config.training.continue_from is not None else None
        make_p0, length = self._start(config, task) if parent is None else _go_on(parent)
        key = (repr(config.regulariser), length)
        if key not in self._held:
            self._held[key] = held_to(config.regulariser, lm, length)
        wayward = self._held[key]
        key = id(task), length, config.evaluation.split, config.evaluation.max_new_tokens, needs_validation(config)
        if key not in self._rows:
            self._rows[key] = self._checked(config, task, length)
        train_rows = self._rows[key]
        steps_per_epoch = -(-len(train_rows) // config.training.batch_size)
        total_steps = config.training.max_steps or config.training.epochs * steps_per_epoch
        check_steps(cell, total_steps)
        return Plan(cell, lm, task, make_p0, length, train_rows, total_steps, wayward, parent)

    def _start(self, config: RunConfig, task: Task) -> tuple[Callable[[], torch.Tensor], int]:
        """What makes P0, and P. Runs that begin alike have one maker: it tells how many they are."""
        init, prompt, seed = config.init, config.prompt, derived_seeds(config)["init"]
        key = repr((init, prompt)), id(task)
        if key not in self._starts:
            # For other seeds a random init has other numbers, and the same faults.
            p0_Pd = initial_prompt(init, prompt, self.lm, task, seed)
            self._starts[key] = (lambda: p0_Pd), len(p0_Pd)
        make_p0, length = self._starts[key]
        if init.kind not in RANDOM:
            return make_p0, length
        if (*key, seed) not in self._starts:
            self._starts[*key, seed] = partial(initial_prompt, init, prompt, self.lm, task, seed), length
        return self._starts[*key, seed]

    def _checked(self, config: RunConfig, task: Task, length: int) -> list[Row]:
        """The training rows, all splits having been checked."""
        with said_when_slow(f"tokenising and checking the examples of task {task.name}"):
            train_rows = task.rows(self.lm, task.train, length)
            _require_examples(config, task)
            for split in (task.train, task.validation, getattr(task, config.evaluation.split.name)):
                rows = task.rows(self.lm, split, length)
                check_scoring(task.template, split, rows)
                check_texts(self.lm, task, config.evaluation.max_new_tokens, split, rows)
                if task.labels and rows:
                    longest = max(range(len(rows)), key=lambda k: len(rows[k].ids))
                    task.label_rows(self.lm, split[longest], length)
            task.content_free_rows(self.lm, length)
        return train_rows


def _go_on(parent: Parent) -> tuple[Callable[[], torch.Tensor], int]:
    """As _Common._start, of a run that begins where its parent ended."""
    return (lambda: parent.prompt_Pd), len(parent.prompt_Pd)


def _require_possible_folders(cells: Sequence[Cell]) -> None:
    for outputs, parent in dict.fromkeys((cell.config.outputs, cell.folder.parent) for cell in cells):
        require_writable(Path(outputs))
        require_writable(parent, "name")
    there: dict[Path, dict[str, list[str]]] = {}
    for cell in cells:
        folder = cell.folder
        if folder.parent not in there:
            there[folder.parent] = _by_digits(folder.parent)
        for name in there[folder.parent].get(cell.id[:8], []):
            other = folder.with_name(name)
            if other != folder and _is_run(other, cell.id):
                raise UserError(
                    f"model.name={cell.config.model.name}: this very run lies in {other} under another name; "
                    "use that name, or delete the folder"
                )


def _by_digits(folder: Path) -> dict[str, list[str]]:
    """The names of a folder's run folders, by the digits of the run's identity that they end in."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        names.setdefault(name.rpartition("-")[2], []).append(name)
    return names


LOGS = ("train.log", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
"""Hydra would write them through a link."""
REPLACED = ("run.json", *FILES, TRAINING_STATE, "state/state.safetensors")
"""What promptgeo writes takes the place of a link."""


def require_folder_free(folder: Path) -> None:
    """Raises UserError where a run's folder cannot be made, or something in its place is not a run's own.

    outputs and outputs/<name> may be links; nothing below may.
    """
    if len(os.fsencode(folder.name)) > 255:
        raise UserError(
            f"{folder.name[:60]}...: this name of a run's folder is longer than a file system allows; "
            "shorten model.name, task.name or init.name"
        )
    require_short(folder / "state" / ".state.safetensors.tmp", "outputs")
    _require(("a file",), folder.parent / "multirun.yaml", folder.parent / CLAIMS)
    _require(("a folder",), folder)
    if not folder.exists():
        return
    _require(("a folder",), folder / ".hydra", folder / "state")
    _require(("a file",), *(folder / name for name in LOGS))
    written = [folder / name for name in REPLACED]
    _require(
        ("a file", "a link", "a pipe or a device"), *written, *(path.with_name(f".{path.name}.tmp") for path in written)
    )


def _require(kinds: Sequence[str], *places: Path) -> None:
    """Raises UserError for a place where something else lies than these."""
    for place in places:
        try:
            mode = place.lstat().st_mode
        except OSError:
            continue  # nothing; whether something can be made there, require_writable finds
        known = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
        kind = known.get(stat.S_IFMT(mode), "a pipe or a device")
        if kind not in kinds:
            raise UserError(f"{place}: is {kind}, and {kinds[0]} of the run's own is to be written there; move it away")


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
    needs = needs_validation(config)
    if needs is not None and not task.validation:
        raise UserError(f"{needs}: task {task.name} has no validation examples; set task.split.validation=0.1")


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = ("promptgeo", "torch", "transformers", "tokenizers", "lightning", "hydra-core", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
