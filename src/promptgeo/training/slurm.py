"""hydra/launcher=slurm: packs of runs as the jobs of a Slurm cluster, one array of them, submitted with submitit.

States are squeue's and scontrol's: many clusters keep no accounting, so sacct is never asked.
"""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.config.validate import require
from promptgeo.errors import UserError
from promptgeo.training.cell import Cell
from promptgeo.training.interruption import Interrupted
from promptgeo.training.queue import standing

if TYPE_CHECKING:
    from promptgeo.training.cluster import Share

FOLDER = ".slurm"
"""Beside the run folders: of each job that has not ended which runs it trains, what submitit keeps, and its log."""
GRACE = 90
"""Seconds before a job's time is over that it is told so."""


class Slurm:
    """A cluster.Engine."""

    def __init__(self, folder: Path, settings: Any):
        """folder: that the run folders lie in. settings: hydra.launcher, see SlurmLauncherConf."""
        self.name, self.folder, self.settings = folder.name, folder / FOLDER, settings
        self.wait: bool = settings.wait
        self.threads: int | None = settings.cpus

    def check(self, cells: Sequence[Cell]) -> None:
        from promptgeo.training.devices import check_jobs  # with torch: promptgeo-runs need not wait for it

        given = self.settings
        for key, least in (("max_parallel", 1), ("timeout_min", 1), ("cpus", 1), ("gpus", 0)):
            value = given[key]
            require(value is None or value >= least, f"hydra.launcher.{key}", value, f"at least {least}")
        if find_spec("submitit") is None:
            raise UserError("hydra/launcher=slurm: needs submitit: pip install 'promptgeo[slurm]'")
        if shutil.which("sbatch") is None:
            raise UserError("hydra/launcher=slurm: there is no sbatch here; give the command where jobs are submitted")
        check_jobs(cells, given.gpus)
        options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in self._options().items()]
        _run("sbatch", "--test-only", *options, f"--time={given.timeout_min}", "--wrap=true")

    def _options(self) -> dict[str, Any]:
        """Of sbatch, without those that submitit has a word of its own for."""
        given = {"partition": self.settings.partition, "cpus_per_task": self.settings.cpus}
        given |= {"gpus_per_node": self.settings.gpus or None, **self.settings.sbatch}
        named = {key.replace("_", "-"): value for key, value in given.items() if value is not None}
        return {"requeue": True, **named}

    def queued(self, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
        alive = self.states()
        if alive is None:
            raise UserError("hydra/launcher=slurm: squeue does not answer, so nobody knows what is queued already")
        found: dict[str, list[Cell]] = {}
        for job, runs in jobs_in(self.folder).items():
            if job not in alive:  # nobody has waited for its end
                self.tidy(job, complete=all(standing(run) == "done" for run in runs))
            elif mine := [cell for cell in cells if cell.folder in runs]:
                found[job] = mine
        return found

    def submit(self, shares: "Sequence[Share]") -> list[str]:
        import submitit

        executor = submitit.SlurmExecutor(self.folder)
        executor.update_parameters(
            job_name=f"promptgeo-{self.name}",
            time=self.settings.timeout_min,
            array_parallelism=self.settings.max_parallel or len(shares),
            signal_delay_s=min(GRACE, 30 * self.settings.timeout_min),
            additional_parameters=self._options(),
        )
        try:
            jobs = [job.job_id for job in executor.map_array(_job, shares)]
        except RuntimeError as error:
            raise UserError(f"hydra/launcher=slurm: no job was submitted: {_last_line(str(error))}") from error
        for path in self.folder.glob(".submission_file_*"):
            if path.is_symlink():  # submitit leaves it
                path.unlink(missing_ok=True)
        for job, share in zip(jobs, shares, strict=True):
            names = [cell.folder.name for cell in share.cells]
            (self.folder / f"{job}.json").write_text(json.dumps(names), encoding="utf-8")
        return jobs

    def states(self) -> dict[str, str] | None:
        return states()

    def reasons(self, job: str) -> dict[str, str] | str:
        try:
            outcome, value = pickle.loads((self.folder / f"{job}_0_result.pkl").read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            found = re.search(r"JobState=(\S+)", _asked("scontrol", "--oneliner", "show", "job", job) or "")
            ended = found[1] if found else "it has ended"
            log = self.folder / f"{job}_0_log.err"
            return f"job {job}: {ended} before this run was complete; the same command goes on from there; see {log}"
        return value if outcome == "success" else f"job {job}: {_last_line(value)}"

    def left(self, jobs: Sequence[str]) -> str:
        arrays = " ".join(dict.fromkeys(job.partition("_")[0] for job in jobs))
        return f"the jobs go on (scancel {arrays} ends them); the same command waits for them again"

    def tidy(self, job: str, complete: bool) -> None:
        for path in self.folder.glob(f"{job}[._]*"):
            if complete or path.suffix in (".pkl", ".json"):
                path.unlink(missing_ok=True)
        array = job.partition("_")[0]
        if not list(self.folder.glob(f"{array}*.json")):
            (self.folder / f"{array}_submission.sh").unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def states() -> dict[str, str] | None:
    """Of each of the user's jobs that has not ended Slurm's word for its state; None where Slurm does not answer."""
    said = _asked("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r")
    if said is None:
        return None
    jobs = (line.strip().split("|", 2) for line in said.splitlines() if line.count("|") > 1)
    return {job: f"{state} ({why})" if state == "PENDING" and why != "None" else state for job, state, why in jobs}


def jobs_in(folder: Path) -> dict[str, list[Path]]:
    """The jobs of outputs/<name>/.slurm that a command has not seen the end of, with their run folders."""
    found = {}
    for record in folder.glob("*.json"):
        try:
            names = json.loads(record.read_text(encoding="utf-8"))
            found[record.stem] = [folder.parent / name for name in names]
        except (OSError, ValueError, TypeError):
            continue  # its command has just seen it end
    return found


def _job(share: "Share") -> dict[str, str]:
    """In the job: what share() returns. Where the job's time is over, the state is saved and the job queued again."""
    before = share.progress()
    try:
        return share()
    except Interrupted as stop:
        if stop.signum == signal.SIGUSR2:
            if share.progress() == before:
                return {c.id: "hydra.launcher.timeout_min: is over before a step is made" for c in share.cells}
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        sys.exit(stop.exit_status)  # no result is written: Slurm starts the job again, or somebody has cancelled it


def _run(*command: str) -> str:
    """What the command says. Raises UserError where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(f"hydra/launcher=slurm: {_last_line(error.stderr)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"hydra/launcher=slurm: {error}") from error
    return done.stdout


def _asked(*command: str) -> str | None:
    try:
        return _run(*command)
    except UserError:
        return None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip(" -")), "no reason was given")
