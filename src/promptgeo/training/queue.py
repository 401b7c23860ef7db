"""How far are the jobs of a cluster, and the runs that they train? The cluster's states and the run folders say so."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

SUBMITTED = "was submitted"
"""Why a run that a cluster's job trains is not complete, where the command does not wait for it."""
MOST_LINES = 20
"""Jobs that a table names, so that it fits a screen."""


def standing(folder: Path, before: int | None = None, overwrite: bool = False) -> str:
    """How far the run of this folder is: done, failed, training or waiting.

    before: when run.json was written before the job began; a failure of that time is none of this job's, nor is, with
    overwrite, a result.
    """
    status, new = _status(folder), written(folder) != before
    if status in ("completed", "diverged") and (new or not overwrite):
        return "done"
    if status == "stopped" and new:  # an earlier search's may be what the job is to finish
        return "done"
    if status == "failed" and new:
        return "failed"
    return "training" if (folder / "state").is_dir() else "waiting"


def _status(folder: Path) -> str | None:
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def written(folder: Path) -> int | None:
    """When the folder's run.json was written; None where there is none."""
    return time_of(folder / "run.json")


def time_of(path: Path) -> int | None:
    """When the file was written, in nanoseconds; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def summary(words: Mapping[str, Sequence[str]], states: Mapping[str, str]) -> str:
    """One line. words: of each job how far its runs are."""
    runs = Counter(word for share in words.values() for word in share)
    jobs = Counter(states[job].split()[0] if job in states else "ended" for job in words)
    said = "".join(f", {runs[word]} {word}" for word in ("training", "waiting", "failed") if runs[word])
    return f"{runs['done']}/{runs.total()} runs done{said}; jobs: " + ", ".join(
        f"{n} {word}" for word, n in jobs.items()
    )


def table_of_jobs(words: Mapping[str, Sequence[str]], states: Mapping[str, str]) -> Table:
    """A line for each job that has not ended. words: of each job how far its runs are."""
    columns = ("training", "waiting", "done", "failed")
    table = Table("job", "state", *columns, title=summary(words, states), title_justify="left")
    alive = sorted((job for job in words if job in states), key=lambda job: states[job].startswith("PENDING"))
    for job in alive[:MOST_LINES]:
        table.add_row(job, states[job], *(str(list(words[job]).count(word)) for word in columns))
    if len(alive) > MOST_LINES:
        table.add_row(f"and {len(alive) - MOST_LINES} more", "")
    return table
