"""Groups of runs: what they are called, and which of their members count."""

from collections.abc import Sequence

from promptgeo.run_folder import Run
from promptgeo.run_table import RunTable


def names_of(runs: RunTable, groups: list[list[int]]) -> list[str]:
    """Groups of runs by the name of their task, with prompt length, template or run id where it would not tell them apart."""
    rows = [runs.table.iloc[members[0]] for members in groups]
    names = [str(row["task"]) for row in rows]
    for add in (lambda row: f"P{row['prompt_length']}", lambda row: str(row["template"]), lambda row: row["id"][:8]):
        names = [f"{name}.{add(row)}" if names.count(name) > 1 else name for name, row in zip(names, rows, strict=True)]
    return names


def pushed_apart(run: Run) -> float:
    """The weight with which a run was pushed away from others; 0 for a run that was trained for itself."""
    regulariser = run.info["config"].get("regulariser") or {}
    return float(regulariser.get("weight", 0.0)) if regulariser.get("name", "none") != "none" else 0.0


def distinct(runs: RunTable, members: Sequence[int]) -> list[int]:
    """The runs without those whose prompt another one before them has: two ways of writing the same command train the same prompt."""
    return list({runs.runs[n].prompt().tobytes(): n for n in reversed(members)}.values())[::-1]
