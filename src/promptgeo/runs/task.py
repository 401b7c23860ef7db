"""Which examples was a finished run trained and scored on? Its task, made again from its own config."""

from typing import Any

from omegaconf import OmegaConf

from promptgeo.config import schema
from promptgeo.config.schema import Bos, LabelTokens, Template
from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run


def template_of(run: Run) -> Template | None:
    """The template that a finished run was trained in; None where that is not known (it was trained elsewhere)."""
    fields = run.info["config"]["template"]
    if "text" not in fields:
        return None
    # A run.json without these fields is the first version's, which put no BOS and tokenised labels alone.
    return _typed(Template, {"bos": Bos.never.name, "label_tokens": LabelTokens.alone.name} | fields)


def task_of(run: Run) -> Task:
    """The task that a finished run was trained on, made again from the config in its folder.

    Raises UserError where the run was trained elsewhere (no such config), or its data are gone or no longer the same.
    """
    config = run.info["config"]
    template = template_of(run)
    if "source" not in config["task"] or template is None:
        name = config["task"]["name"]
        raise UserError(f"{run.folder}: was trained elsewhere; the examples of its task {name} are not known")
    task = load_task(_typed(schema.Task, config["task"]), template)
    if task.fingerprint != run.info["fingerprints"]["data"]:
        raise UserError(
            f"{run.folder}: the data of task {task.name} are not those that it was trained on; they have changed since"
        )
    return task


def _typed(kind: type, fields: dict[str, Any]) -> Any:
    """Plain fields of a run.json as the dataclass of the schema that they were."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), fields))
