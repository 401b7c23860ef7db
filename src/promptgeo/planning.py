"""A task's examples by its config, read once per process while its files stay as they are."""

from functools import lru_cache

from omegaconf import OmegaConf

from promptgeo import schema
from promptgeo.errors import UserError
from promptgeo.paths import stamps
from promptgeo.runs import Run
from promptgeo.tasks import Task


def load_task(config: schema.Task, template: schema.Template) -> Task:
    """The task's examples, split and written in the template. Raises UserError naming what is wrong with its data."""
    return _load_task(_Hashable((config, template, stamps(config.source.path))))


def task_of(run: Run) -> Task:
    """The task that a finished run was trained on, made again from the config in its folder.

    Raises UserError where the run was trained elsewhere (no such config), or its data are gone or no longer the same.
    """
    config = run.info["config"]
    if "source" not in config["task"] or "text" not in config["template"]:
        name = config["task"]["name"]
        raise UserError(f"{run.folder}: was trained elsewhere; the examples of its task {name} are not known")
    kinds = {"task": schema.Task, "template": schema.Template}
    parts = {name: OmegaConf.merge(OmegaConf.structured(kind), config[name]) for name, kind in kinds.items()}
    task = load_task(*(OmegaConf.to_object(parts[name]) for name in kinds))
    if task.fingerprint != run.info["fingerprints"]["data"]:
        raise UserError(
            f"{run.folder}: the data of task {task.name} are not those that it was trained on; they have changed since"
        )
    return task


class _Hashable(tuple):
    """Dataclasses that compare by value, as a cache key."""

    def __hash__(self) -> int:
        return hash(repr(tuple(self)))


@lru_cache(maxsize=64)
def _load_task(key: _Hashable) -> Task:
    return Task.load(*key[:2])
