"""How is an analysis seen in W&B? As a run of job_type analysis, in the group of the runs that it is of: logger=wandb.

Only what was found is sent: figures, claims, findings and numbers. Omissions and what was left out, which may name
folders, stay in result.json.
"""

import logging
import math
from pathlib import Path
from typing import Any

from promptgeo.analysis.result import Stored
from promptgeo.config.schema import Wandb, flat
from promptgeo.config.varying import varying
from promptgeo.runs import wandb_run
from promptgeo.runs.table import RunTable

log = logging.getLogger(__name__)
CLAIMS = ["claim", "outcome", "evidence", "p", "needs"]
FINDINGS = ["sentence", "estimate", "low", "high", "p", "n", "unit"]


def follow(stored: Stored, runs: RunTable, settings: Wandb, folder: Path) -> None:
    """Log a finished analysis below folder/wandb/. Whatever fails is a warning: the results are stored."""
    try:
        _log(stored, runs, settings, folder)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("logger=wandb: %s is not logged: %s", stored.name, reason)


def _log(stored: Stored, runs: RunTable, settings: Wandb, folder: Path) -> None:
    configs = [run.info["config"] for run in runs.runs or []]
    names = list(dict.fromkeys(config["name"] for config in configs if config.get("name")))
    run = wandb_run.opened(
        settings,
        folder,
        id=stored.info["key"][:16],
        name=stored.name,
        group="+".join(names) or folder.name,
        job_type="analysis",
        tags=[stored.name],
        config={
            "analysis": stored.name,
            "options": stored.info["options"],
            "runs": stored.info["runs"],
            "varying": varying([flat(config) for config in configs]),
        },
    )
    exit_code = 1
    try:
        run.summary.update(_summary(stored))
        shown: dict[str, Any] = {f"figure/{name}": _page(svg) for name, svg in stored.figures.items()}
        for key, columns, rows in (
            ("claims", CLAIMS, stored.info["claims"]),
            ("findings", FINDINGS, stored.info["findings"]),
            ("numbers", list(stored.numbers), stored.numbers.to_dict("records")),
        ):
            made_for = [name for name in ("group", "of", "convention") if any(name in row for row in rows)]
            columns = [*made_for, *(column for column in columns if column not in made_for)]
            cells = [[_cell(row.get("name" if column == "claim" else column)) for column in columns] for row in rows]
            if cells:
                shown[key] = wandb_run.table(run, key, columns, cells)
        if shown:
            run.log({"step": 0, **shown})
        exit_code = 0
    finally:
        wandb_run.closed(run, exit_code)


def _summary(stored: Stored) -> dict[str, Any]:
    """Each claim's outcome by what it was made for: claim/delta/corrected/<name>, flat as W&B's tables show it."""
    made_for = ("group", "of", "convention")
    return {
        "/".join(["claim", *(str(claim[key]) for key in made_for if key in claim), claim["name"]]): claim["outcome"]
        for claim in stored.info["claims"]
    }


def _cell(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _page(svg: str) -> Any:
    """W&B takes pictures as pixels; a page keeps a figure's lines and texts."""
    import wandb

    return wandb.Html(f'<!doctype html><meta charset="utf-8">{svg}', inject=False, data_is_not_path=True)
