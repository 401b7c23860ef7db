"""What Hydra finds by itself: `hydra/launcher=packed`, `slurm` and `packed_ray`, and `hydra/sweeper=checked`.

packed: all runs of a grid that can share a frozen model train as one batch. slurm, packed_ray: such packs train as the
jobs of a cluster. checked: Hydra's own sweeper, which does
not compose every job once more to see whether it can be composed: promptgeo has checked them already.

Hydra imports this package whenever it starts, so torch is imported only when runs are launched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class PackedLauncherConf:
    _target_: str = "hydra_plugins.promptgeo_launcher.PackedLauncher"


@dataclass
class SlurmLauncherConf(PackedLauncherConf):
    max_parallel: int | None = None  # jobs at once; null: as many as Slurm starts
    partition: str | None = None  # null: the cluster's default
    timeout_min: int = 240  # of a job; one that takes longer is queued again, and goes on
    gpus: int = 0  # of a job; with device=cuda
    cpus: int | None = None  # of a job, and its threads; null: the cluster's default
    wait: bool = True  # until all jobs have ended; false: until they are submitted
    sbatch: dict[str, Any] = field(default_factory=dict)  # further options: +hydra.launcher.sbatch.account=mine


@dataclass
class PackedRayLauncherConf(PackedLauncherConf):
    address: str | None = None  # of a Ray cluster; null: $RAY_ADDRESS, else one that lasts as long as the command
    gpus: float = 0  # of a pack; with device=cuda; 0.5: two packs share a GPU
    cpus: int = 1  # of a pack, and its threads


@dataclass
class CheckedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.promptgeo_launcher.CheckedSweeper"


for name, node in (("packed", PackedLauncherConf), ("slurm", SlurmLauncherConf), ("packed_ray", PackedRayLauncherConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="promptgeo")
ConfigStore.instance().store(group="hydra/sweeper", name="checked", node=CheckedSweeperConf, provider="promptgeo")


class CheckedSweeper(BasicSweeper):
    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The jobs as promptgeo.train composed and checked them: some keys walked together, rates drawn (grid.*)."""
        from promptgeo.config.grid import grid_of, jobs_of

        assert self.config is not None
        return list(self.split_overrides_to_chunks(jobs_of(overrides, grid_of(self.config)), max_batch_size))

    def _parse_config(self) -> list[str]:
        from promptgeo.config.spelling import spelt

        return [spelt(param) for param in super()._parse_config()]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """promptgeo.train composed and checked every job before Hydra made a folder."""


class PackedLauncher(Launcher):
    """Trains all jobs together, then runs each as Hydra's basic launcher does; by then the job's run is trained.

    Where they train, and hydra.launcher.*, is for promptgeo.cli.train.Jobs to know.
    """

    def __init__(self, **settings: object) -> None: ...

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """task_function: a promptgeo.cli.train.Jobs."""
        self.config, self.hydra_context, self.jobs = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn per job, in order, and what the basic launcher leaves: a folder with .hydra/ per job."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        self.jobs.train_batch(initial_job_idx, len(job_overrides))
        from promptgeo.config.composing import Jobs

        configs = Jobs(self.hydra_context.config_loader, self.config)
        each = enumerate(job_overrides, initial_job_idx)
        return [self._run(index, configs.config(overrides)) for index, overrides in each]

    def _run(self, index: int, job: DictConfig) -> JobReturn:
        with open_dict(job):
            job.hydra.job.id = index
            job.hydra.job.num = index
        result = run_job(
            hydra_context=self.hydra_context,
            task_function=self.jobs,
            config=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        # Each is Hydra's whole configuration, and nobody asks for it: thousands would fill the memory.
        result.cfg = result.hydra_cfg = None
        return result
