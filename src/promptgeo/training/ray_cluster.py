"""hydra/launcher=packed_ray: packs of runs as tasks of a Ray cluster, each with a share of a GPU."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.config.validate import require
from promptgeo.errors import UserError
from promptgeo.training.cell import Cell
from promptgeo.training.devices import check_jobs
from promptgeo.training.interruption import Interrupted

if TYPE_CHECKING:
    from promptgeo.training.cluster import Share

RETRIES = 5
"""How often a task is tried again whose worker or node was lost."""


class Ray:
    """A cluster.Engine. Its jobs end with the command."""

    wait = True

    def __init__(self, folder: Path, settings: Any):
        """settings: hydra.launcher, see PackedRayLauncherConf."""
        self.settings = settings
        self.threads: int | None = settings.cpus
        self.tasks: dict[str, Any] = {}

    def check(self, cells: Sequence[Cell]) -> None:
        require(self.settings.cpus >= 1, "hydra.launcher.cpus", self.settings.cpus, "at least 1")
        require(self.settings.gpus >= 0, "hydra.launcher.gpus", self.settings.gpus, "at least 0")
        if find_spec("ray") is None:
            raise UserError("hydra/launcher=packed_ray: needs Ray: pip install 'promptgeo[ray]'")
        check_jobs(cells, self.settings.gpus)

    def queued(self, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
        return {}

    def submit(self, shares: "Sequence[Share]") -> list[str]:
        import ray

        try:
            ray.init(address=self.settings.address, log_to_driver=False, configure_logging=False)
        except Exception as error:  # a bare one where a node does not start in time
            raise UserError(f"hydra/launcher=packed_ray: no Ray answers: {str(error).splitlines()[0]}") from error
        resources = {"num_cpus": self.settings.cpus, "num_gpus": self.settings.gpus}
        task = ray.remote(max_retries=RETRIES, **resources)(_task)
        self.tasks = {f"pack {k}": task.remote(share) for k, share in enumerate(shares, 1)}
        return list(self.tasks)

    def states(self) -> dict[str, str] | None:
        import ray

        _, unfinished = ray.wait(list(self.tasks.values()), num_returns=len(self.tasks), timeout=0)
        return {name: "unfinished" for name, task in self.tasks.items() if task in unfinished}

    def reasons(self, job: str) -> dict[str, str] | str:
        import ray

        try:
            return ray.get(self.tasks[job])
        except ray.exceptions.RayError as error:
            return f"{job}: {str(error).strip().splitlines()[-1]}"

    def left(self, jobs: Sequence[str]) -> str:
        return "the tasks end with this command"

    def tidy(self, job: str, complete: bool) -> None:
        """Ray keeps nothing beside the runs."""


def _task(share: "Share") -> dict[str, str]:
    """In a worker: what share() returns. A worker that is to end has saved the state, and Ray takes it for lost."""
    try:
        return share()
    except Interrupted as stop:
        os._exit(stop.exit_status)
