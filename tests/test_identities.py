"""No run of an earlier version is taken for one with other numbers: equal identities have equal bytes.

Trains the same commands with the code of an earlier commit and with today's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEFORE = "1b116d7"
"""The last commit at which every model had tiny's learning rate, no BOS, and its source's own test split mixed in."""
TRAIN = """
import csv, json, sys
import promptgeo as pg
found = {}
for line in json.loads(sys.argv[1]):
    try:
        run = pg.train(*line)
        with (run.folder / "metrics.csv").open() as rows:  # later versions have more columns
            metrics = [row for row in csv.DictReader(rows)]
        found[json.dumps(line)] = run.id, run.info["files"] | {"metrics.csv": metrics}
    except pg.UserError as error:
        found[json.dumps(line)] = None, str(error)
print(json.dumps(found))
"""
SMALL = ("task.split.max_train=8", "task.split.max_test=3", "training.max_steps=3", "evaluation.max_new_tokens=12")


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A folder with the earlier code."""
    folder = tmp_path_factory.mktemp("before") / "code"
    made = subprocess.run(
        ["git", "worktree", "add", "--detach", str(folder), BEFORE], cwd=ROOT, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"needs the project's history with commit {BEFORE}: {made.stderr.strip()}")
    yield folder
    subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True, capture_output=True)


def trained(code: Path, lines: list[list[str]], folder: Path) -> dict:
    folder.mkdir()
    outcome = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(lines)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(code / "src")},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout.splitlines()[-1])


@pytest.mark.long
def test_equal_identities_have_equal_bytes(before, tmp_path, with_bos, model_folders):
    examples = [f"{word},{label}" for word, label in zip("abcdefghijkl", "bcdefghijklm", strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["input,label", *examples]))
    rows = [{"input": word, "label": word == "a"} for word in "abcdefghijkl"]
    (tmp_path / "truth.json").write_text(json.dumps(rows))
    (tmp_path / "own").mkdir()
    for split, part in {"train": examples[:8], "test": examples[8:]}.items():
        (tmp_path / "own" / f"{split}.csv").write_text("\n".join(["input,label", *part]))
    gpt2, own = f"model.name_or_path={model_folders['gpt2']}", f"task.source.path={tmp_path}"
    same = [[gpt2, "optimizer.lr=0.01"], [gpt2, "optimizer.lr=0.01", "template=study3"]]
    other = [
        ["task=plus_two"],  # tiny's own weights are others since: they know the toy grammar
        [gpt2],
        ["init=uniform"],
        [f"model.name_or_path={with_bos}", "optimizer.lr=0.01"],
        ["task=custom", f"{own}/mine.csv"],
        ["task=custom", f"{own}/truth.json", "task.name=truth"],
        ["task=custom", f"{own}/own", "task.name=own"],
    ]
    lines = [[*line, *SMALL] for line in [*same, *other]]
    then, now = (trained(code, lines, tmp_path / name) for code, name in ((before, "then"), (ROOT, "now")))
    for line in lines:
        (old, old_files), (new, new_files) = then[json.dumps(line)], now[json.dumps(line)]
        assert old is not None
        if new is not None:
            assert len(old_files["metrics.csv"]) == len(new_files["metrics.csv"]) > 0
            columns = old_files["metrics.csv"][0]
            new_files["metrics.csv"] = [{name: row[name] for name in columns} for row in new_files["metrics.csv"]]
        if line[: -len(SMALL)] in same:
            assert old == new, new_files
        assert old != new or old_files == new_files, line
    assert all(then[json.dumps([*line, *SMALL])][0] != now[json.dumps([*line, *SMALL])][0] for line in other)
