"""What was a run's config, and how were its inputs written? Typed again from its folder; no data are read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from promptgeo.config import schema
from promptgeo.config.explain import config_errors
from promptgeo.config.paths import conf_dir
from promptgeo.config.schema import Bos, LabelTokens, RunConfig, Template
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError


def template_of(info: dict[str, Any]) -> Template | None:
    """The template of a run.json, as the schema has it; None where it is not known (the run was trained elsewhere)."""
    fields = info["config"]["template"]
    if "text" not in fields:
        return None
    # A run.json without these fields is the first version's, which put no BOS and tokenised labels alone.
    made: Template = _typed(Template, {"bos": Bos.never.name, "label_tokens": LabelTokens.alone.name} | fields)
    return made


def task_config_of(info: dict[str, Any], what: str) -> tuple[schema.Task, Template]:
    """The task and the template of a run.json, as the schema has them.

    what: what is asked, for messages. Raises UserError where the run was trained elsewhere (no such config).
    """
    config, template = info["config"], template_of(info)
    if "source" not in config["task"] or template is None:
        name = config["task"]["name"]
        raise UserError(f"{what} of its task {name} are not known")
    return _typed(schema.Task, config["task"]), template


def config_of(info: dict[str, Any]) -> RunConfig:
    """The whole config of a run.json or a saved state, as the schema has it.

    Raises UserError where a field is none of the schema's: of a later promptgeo, or of a run that was imported.
    """
    config, template = info["config"], template_of(info)
    if "source" not in config["task"] or template is None:
        raise UserError("was trained elsewhere")
    with config_errors():
        made: RunConfig = replace(_typed(RunConfig, config), template=template)
    return made


def writing_of(info: dict[str, Any], folder: str) -> Task:
    """The task of a run.json without examples. It writes inputs as the run's were, and as many tokens behind them.

    Raises UserError where the run was trained elsewhere.
    """
    name = info["config"]["task"]["name"]
    bundled = (Path(conf_dir()) / "task" / f"{name}.yaml").is_file()
    task = f"pg.task({name!r})" if bundled else f"pg.task({name!r}, config_dir=<folder of task/{name}.yaml>)"
    how = f"pg.generate(lm, run.prompt(), inputs, {task}) asks with a task's own"
    try:
        config, template = task_config_of(info, f"{folder}: was trained elsewhere; template and inputs")
    except UserError as error:
        raise UserError(f"{error}; in Python {how}") from error
    template = replace(template, max_new_tokens=info["config"]["evaluation"]["max_new_tokens"])
    limit = config.max_input_tokens
    return Task(config.name, [], [], [], template, config.labels, limit, source=config.source)


def _typed(kind: type, fields: dict[str, Any]) -> Any:
    """Plain fields of a run.json as the dataclass of the schema that they were."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), fields))
