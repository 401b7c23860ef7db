"""promptgeo-dashboard: what it writes is what wandb-workspaces reads, and shows the sweep that lies there."""

import json
import sys
from pathlib import Path

import pytest
from test_analyze import MINE, cli, header, trained  # noqa: F401 - fixture

from promptgeo.cli import dashboard as command
from promptgeo.report import dashboard
from promptgeo.runs.folder import write_run


@pytest.fixture
def sweep(cli, monkeypatch) -> Path:  # noqa: F811
    """A folder of four runs of two tasks and two inits, two of them with a label set; an analysis with figures."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert cli(*MINE, "of=delta", "convention=corrected").status == 0
    return Path("runs")


def written(folder: Path, *options: str) -> dict[str, str]:
    command.main([str(folder), *options])
    return {
        name: (folder / "dashboard" / f"{name}.json").read_text(encoding="utf-8") for name in ("workspace", "report")
    }


def read(texts: dict[str, str]):
    """Through wandb-workspaces' own classes, which forbid unknown fields of theirs and check every type."""
    workspaces, reports, _ = dashboard._library()
    kinds = {"workspace": workspaces.Workspace, "report": reports.Report}
    return {name: dashboard.from_json(kinds[name], text) for name, text in texts.items()}


def test_a_sweeps_workspace_and_report_are_read_back_by_wandb_workspaces(sweep, capsys):
    texts = written(sweep, "--entity", "us", "--project", "ours")
    said = capsys.readouterr()
    assert "workspace: runs/dashboard/workspace.json" in said.out and "no W&B key here" in said.err
    made = read(texts)
    workspace, report = made["workspace"], made["report"]
    assert (workspace.entity, workspace.project, workspace.name) == ("us", "ours", "promptgeo runs")
    panels = {section.name: section.panels for section in workspace.sections}
    assert list(panels) == ["Curves by task", "Accuracy by init", "Parallel coordinates", "Norms", "Tables"]
    curves = [(line.x.name, [y.name for y in line.y], line.groupby.name) for line in panels["Curves by task"]]
    assert curves == [
        ("step", ["train/loss"], "task.name"),
        ("step", ["test/loss"], "task.name"),
        ("step", ["test/accuracy"], "task.name"),
    ]
    bars = [([metric.name for metric in bar.metrics], bar.groupby.name) for bar in panels["Accuracy by init"]]
    assert (["accuracy_final"], "init.name") in bars
    (parallel,) = panels["Parallel coordinates"]
    axes = [column.metric.name for column in parallel.columns]
    assert axes == ["task.name", "init.name", "accuracy_final", "loss_final"]
    norms = {(line.y[0].name, line.groupby.name) for line in panels["Norms"]}
    assert {("train/prompt_norm", "init.name"), ("train/distance_to_p0", "task.name")} <= norms
    assert [table.table_name for table in panels["Tables"]] == ["predictions", "nearest_tokens"]
    assert workspace.runset_settings.filters == """Metric("Group") == 'runs' and Metric("JobType") == 'train'"""
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    assert [grid.runsets[0].name for grid in grids] == [
        "plus_one",
        "plus_two",
        "runs",
        "runs",
        "runs",
        "runs",
        "analyses",
    ]
    assert "plus_one" in grids[0].runsets[0].filters and "plus_two" in grids[1].runsets[0].filters
    assert (report.entity, report.project) == ("us", "ours")
    assert grids[-1].panels[0].media_keys == ["figure/delta_corrected_drawing"]
    assert "'analysis'" in grids[-1].runsets[0].filters


def test_the_same_sweep_gives_the_same_bytes_and_names_nothing_of_the_machine(sweep):
    first = written(sweep, "--offline")
    assert written(sweep, "--offline") == first
    assert not any(str(Path.cwd()) in text for text in first.values())
    for text in first.values():
        ids = [panel["__id__"] for panel in _panels(json.loads(text))]
        assert len(ids) == len(set(ids)) > 5


def _panels(value):
    """Every panel, wherever it is."""
    if isinstance(value, dict):
        yield from [value] if "__id__" in value else []
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _panels(each)


def test_a_name_is_no_expression_to_wandb(sweep):
    name = "it's \"one\" and Metric('x') == 1"
    for k in range(2):
        own = header("plus_one", "cat", k)
        own["config"] |= {"name": name, "task": {"name": "a' or 'b"}}
        write_run(Path(f"named/run{k}"), own, trained(k))
    made = read(written(Path("named"), "--offline"))
    section = json.loads(written(Path("named"))["workspace"])["spec"]["section"]
    assert section["runSets"][0]["filters"]["filters"][0]["value"] == name
    assert made["report"].title.startswith("promptgeo it_s_one")
    grid = next(each for each in json.loads(written(Path("named"))["report"])["spec"]["blocks"] if "metadata" in each)
    assert grid["metadata"]["runSets"][0]["filters"]["filters"][2]["value"] == ["a' or 'b"]


def test_a_release_that_reads_otherwise_than_it_writes_is_one_line(sweep, monkeypatch, capsys):
    workspaces, _, _ = dashboard._library()
    real = workspaces.Workspace._from_model.__func__

    def forgetful(cls, model):
        made = real(cls, model)
        made.sections = made.sections[:-1]
        return made

    monkeypatch.setattr(workspaces.Workspace, "_from_model", classmethod(forgetful))
    with pytest.raises(SystemExit) as stop:
        command.main([str(sweep)])
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "this release of wandb-workspaces is another" in said
    assert not (sweep / "dashboard").exists()


def test_what_is_missing_is_said(sweep, monkeypatch, capsys):
    Path("empty").mkdir()
    for folder, said in (("empty", "empty: no runs lie there"), ("nowhere", "nowhere: no such folder")):
        with pytest.raises(SystemExit) as stop:
            command.main([folder])
        assert stop.value.code == 2 and said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)  # as where it is not installed
    with pytest.raises(SystemExit) as stop:
        command.main([str(sweep)])
    assert stop.value.code == 2 and "pip install 'promptgeo[dashboard]'" in capsys.readouterr().err
