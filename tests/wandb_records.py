"""What W&B has of runs that were logged offline, as its own `wandb leet inspect` reads it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def records_below(folder: Path) -> dict[str, tuple[Path, list[dict[str, Any]]]]:
    """W&B's id of each offline run -> its folder, and its records."""
    command = Path(sys.executable).parent / "wandb"
    found = {}
    for path in (folder / "wandb").glob("offline-run-*/*.wandb"):
        lines = subprocess.run([command, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True)
        assert "corrupt" not in lines.stderr
        records = [json.loads(line) for line in lines.stdout.splitlines()]
        (run,) = [record["run"] for record in records if record["type"] == "run"]
        found[run["run_id"]] = (path.parent, records)
    return found


def summary_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {k: v for r in records if r["type"] == "summary" for k, v in r["summary"].get("update", {}).items()}


def table_of(folder: Path, records: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """A table that a run has in its summary, row by row."""
    summary = summary_of(records)
    assert summary[f"{key}._type"] == "table-file"
    table = json.loads((folder / "files" / summary[f"{key}.path"]).read_text(encoding="utf-8"))
    assert summary[f"{key}.nrows"] == len(table["data"]) > 0
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
