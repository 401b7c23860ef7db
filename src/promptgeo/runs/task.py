"""Which examples was a finished run trained and scored on? Its task, made again from its own config."""

from promptgeo.data.tasks import Task, load_task
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.writing import task_config_of


def task_of(run: Run) -> Task:
    """The task that a finished run was trained on, made again from the config in its folder.

    Raises UserError where the run was trained elsewhere (no such config), or its data are gone or no longer the same.
    """
    task = load_task(*task_config_of(run.info, f"{run.folder}: was trained elsewhere; the examples"))
    if task.fingerprint != run.info["fingerprints"]["data"]:
        raise UserError(
            f"{run.folder}: the data of task {task.name} are not those that it was trained on; they have changed since"
        )
    return task
