"""What Hydra finds by itself: `hydra/launcher=packed` and `hydra/sweeper=checked`.

packed: all runs of a grid that can share a frozen model train as one batch. checked: Hydra's own sweeper, which does
not compose every job once more to see whether it can be composed: promptgeo has checked them already.

Hydra imports this package whenever it starts, so torch is imported only when runs are launched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class PackedLauncherConf:
    _target_: str = "hydra_plugins.promptgeo_launcher.PackedLauncher"


@dataclass
class CheckedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.promptgeo_launcher.CheckedSweeper"


ConfigStore.instance().store(group="hydra/launcher", name="packed", node=PackedLauncherConf, provider="promptgeo")
ConfigStore.instance().store(group="hydra/sweeper", name="checked", node=CheckedSweeperConf, provider="promptgeo")


class CheckedSweeper(BasicSweeper):
    def _parse_config(self) -> list[str]:
        from promptgeo.config.spelling import spelt

        return [spelt(param) for param in super()._parse_config()]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """promptgeo.train composed and checked every job before Hydra made a folder."""


class PackedLauncher(Launcher):
    """Trains all jobs together, then runs each as Hydra's basic launcher does; by then the job's run is trained."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """task_function: a promptgeo.cli.train.Jobs."""
        self.config, self.hydra_context, self.jobs = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn per job, in order, and what the basic launcher leaves: a folder with .hydra/ per job."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        self.jobs.train_batch(initial_job_idx, len(job_overrides))
        return [self._run(index, overrides) for index, overrides in enumerate(job_overrides, initial_job_idx)]

    def _run(self, index: int, overrides: Sequence[str]) -> JobReturn:
        job = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
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
