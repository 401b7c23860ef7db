"""From a config to a run that is ready to train: everything that can be wrong is found here, before a folder is made."""

import hashlib
import importlib.metadata
import os
import platform
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from promptgeo import identity, schema
from promptgeo.batching import Row
from promptgeo.errors import UserError
from promptgeo.evaluation import check_scoring
from promptgeo.lm import FrozenLM, local_folder, model_fingerprint, resolve_device, resolve_precision
from promptgeo.paths import slug
from promptgeo.inits import initial_prompt, source_run
from promptgeo.runs import Run
from promptgeo.schema import InitKind, RunConfig
from promptgeo.tasks import Task
from promptgeo.validate import validate


@dataclass(frozen=True)
class Plan:
    """One run, ready to train."""

    config: RunConfig
    id: str
    lm: FrozenLM
    task: Task
    seeds: dict[str, int]
    p0_Pd: torch.Tensor
    """fp32 on CPU."""
    train_rows: list[Row]
    total_steps: int

    @property
    def folder(self) -> Path:
        return folder_of(self.config, self.id)

    @property
    def split(self) -> str:
        """The split that learning curves and predictions are made on."""
        return self.config.evaluation.split.name

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_rows) // self.config.training.batch_size)

    def coupled_with(self) -> dict[str, list[str]]:
        """The ids of the runs that this one was trained for one another with (coupling.py); nothing for any other run."""
        seeds = self.config.regulariser.seeds
        return {"coupled_with": [run_identity(replace(self.config, seed=seed)) for seed in seeds if seed != self.config.seed]} if seeds else {}

    def header(self) -> dict[str, Any]:
        """What run.json says of the run before its results."""
        return {
            "format": 1,
            "id": self.id,
            "config": schema.to_dict(self.config),
            "precision": resolved_precision(self.config),
            "device": self.lm.device.type,
            "seeds": self.seeds,
            "versions": _versions(),
            "fingerprints": {"model": self.lm.fingerprint, "data": self.task.fingerprint},
            **self.coupled_with(),
            "examples": {split: len(getattr(self.task, split)) for split in ("train", "validation", "test")},
        }


def plan(config: RunConfig) -> Plan:
    """Validate, load model and data, tokenise, make P0. Raises UserError for whatever the user must mend."""
    run_id = run_identity(config)
    require_writable(Path(config.outputs))
    require_writable(folder_of(config, run_id).parent, "name")
    if len(os.fsencode(folder_name(config, run_id))) > 255:
        raise UserError(f"{folder_name(config, run_id)[:60]}...: this name of a run's folder is longer than a file system allows; shorten model.name, task.name or init.name")
    if local_folder(config.model.name_or_path):
        # Nothing to wait for, and the bar would stand before the one line of an error. A download keeps its bar.
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
    lm = FrozenLM.load(
        config.model.name_or_path,
        revision=config.model.revision,
        precision=config.precision.name,
        device=config.device.name,
        trust_remote_code=config.model.trust_remote_code,
    )
    if lm.max_positions is not None and (config.prompt.length or 0) >= lm.max_positions:
        raise UserError(f"prompt.length={config.prompt.length}: the model has {lm.max_positions} positions for prompt and text")
    task = load_task(config)
    seeds = identity.derived_seeds(config)
    p0_Pd = initial_prompt(config.init, config.prompt, lm, task, seeds["init"])
    length = len(p0_Pd)
    train_rows = task.rows(lm, task.train, length)
    evaluated = getattr(task, config.evaluation.split.name)
    if not evaluated:
        raise UserError(f"evaluation.split={config.evaluation.split.name}: task {task.name} has no such examples; set task.split.validation=0.1")
    if config.training.early_stopping.patience is not None and not task.validation:
        raise UserError(f"training.early_stopping.patience: task {task.name} has no validation examples; set task.split.validation=0.1")
    for split in (task.train, task.validation, evaluated):
        check_scoring(task.template, split, task.rows(lm, split, length))
    steps_per_epoch = -(-len(train_rows) // config.training.batch_size)
    total_steps = config.training.max_steps or config.training.epochs * steps_per_epoch
    return Plan(config, run_id, lm, task, seeds, p0_Pd, train_rows, total_steps)


def run_identity(config: RunConfig) -> str:
    """The run's 64-digit identity; model, data and init files enter by content."""
    validate(config)
    contents = {
        "model": model_fingerprint(config.model.name_or_path, config.model.revision, config.model.trust_remote_code),
        "data": load_task(config).fingerprint,
    }
    if config.init.kind is InitKind.file:
        path = Path(config.init.path).expanduser()
        if not path.is_file():
            raise UserError(f"init.path={config.init.path}: no such file")
        contents["init"] = hashlib.sha256(path.read_bytes()).hexdigest()
    elif config.init.kind is InitKind.run:
        contents["init"] = source_run(config.init.path).info["files"]["prompts.safetensors"]
    return identity.identity(config, resolved_precision(config), contents)


def folder_name(config: RunConfig, run_id: str) -> str:
    """<model>-<task>-<init>-s<seed>-<id8>"""
    fields = (config.model.name, config.task.name, config.init.name)
    return "-".join([*map(slug, fields), f"s{config.seed}", run_id[:8]])


def folder_of(config: RunConfig, run_id: str) -> Path:
    return Path(config.outputs) / config.name / folder_name(config, run_id)


def model_key(config: RunConfig) -> tuple[str, ...]:
    """What runs have in common that share a loaded model."""
    model = config.model
    return model.name_or_path, model.revision or "", resolved_precision(config), resolve_device(config.device.name)


def load_task(config: RunConfig) -> Task:
    return _load_task(_Hashable((config.task, config.template, _stamps(config.task.source.path))))


def task_of(run: Run) -> Task:
    """The task that a finished run was trained on, made again from the config in its folder.

    Raises UserError where the run was trained elsewhere (no such config), or its data are gone or no longer the same.
    """
    config = run.info["config"]
    if "source" not in config["task"] or "text" not in config["template"]:
        raise UserError(f"{run.folder}: was trained elsewhere; the examples of its task {config['task']['name']} are not known")
    parts = {name: OmegaConf.merge(OmegaConf.structured(kind), config[name]) for name, kind in {"task": schema.Task, "template": schema.Template}.items()}
    task = load_task(RunConfig(**{name: OmegaConf.to_object(part) for name, part in parts.items()}))
    if task.fingerprint != run.info["fingerprints"]["data"]:
        raise UserError(f"{run.folder}: the data of task {task.name} are not those that it was trained on; they have changed since")
    return task


def _stamps(path: str | None) -> list[tuple[str, int, int]]:
    """What tells that a user's own file or folder was edited since it was last read in this process."""
    if path is None:
        return []
    source = Path(path).expanduser()
    files = sorted(source.iterdir()) if source.is_dir() else [source] if source.exists() else []
    return [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]


class _Hashable(tuple):
    """Dataclasses that compare by value, as a cache key."""

    def __hash__(self) -> int:
        return hash(repr(tuple(self)))


@lru_cache(maxsize=64)
def _load_task(key: _Hashable) -> Task:
    return Task.load(*key[:2])


def resolved_precision(config: RunConfig) -> str:
    return resolve_precision(config.precision.name, resolve_device(config.device.name))


def require_writable(folder: Path, key: str = "outputs") -> None:
    """Raises UserError, which names the key that says so, unless results can be written below `folder`, which need not exist yet."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    try:
        # Permission bits do not tell: root may everything, and a mount may be read-only.
        with tempfile.TemporaryDirectory(dir=existing, prefix=".promptgeo-"):
            pass
    except OSError as error:
        raise UserError(f"{key}={folder}: {existing} is not a folder that can be written to ({error.strerror}); set {key}=<folder>") from error


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = ("promptgeo", "torch", "transformers", "tokenizers", "lightning", "hydra-core", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


