"""What does a sweep's dashboard in W&B show? A workspace and a report, as wandb-workspaces has them.

wandb-workspaces offers no public way from its objects to JSON: `_to_model`, pinned by the version that the package
asks for, is called here and nowhere else, and what it gives is read back before it is used.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptgeo.config.paths import slug
from promptgeo.config.schema import Wandb, flatten, keys
from promptgeo.config.varying import varying
from promptgeo.evaluation.metrics import HEADLINE
from promptgeo.runs.folder import Run

SHOWN = 100
"""Runs that a panel shows, at most."""


@dataclass(frozen=True)
class Sweep:
    """What a dashboard is of, as the runs' own configs say."""

    name: str
    """Of the sweep: W&B's group."""
    project: str
    entity: str
    tasks: list[str]
    inits: list[str]
    split: str
    """That curves are of."""
    varying: list[str]
    """The keys that tell its runs apart."""
    labels: bool
    """Whether a task has a label set, so a confusion matrix."""
    figures: list[str]
    """Of its analyses, as W&B has them: figure/<name>."""


def sweep_of(runs: Sequence[Run], figures: Sequence[str], settings: Wandb) -> Sweep:
    """settings: project and entity."""
    configs = [run.info["config"] for run in runs]
    in_order = {key: k for k, key in enumerate(keys())}
    varied = sorted(varying([flatten(config) for config in configs]), key=lambda key: in_order.get(key, len(in_order)))
    return Sweep(
        name=configs[0].get("name") or runs[0].folder.parent.name,
        project=settings.project,
        entity=settings.entity or "",
        tasks=list(dict.fromkeys(config["task"]["name"] for config in configs)),
        inits=list(dict.fromkeys(config["init"]["name"] for config in configs)),
        split=next((run.info["results"]["split"] for run in runs if run.info["results"].get("split")), "test"),
        varying=varied,
        labels=any("labels" in run.info["results"] for run in runs),
        figures=[f"figure/{name}" for name in figures],
    )


def workspace(sweep: Sweep) -> Any:
    """wandb_workspaces.workspaces.Workspace: the runs of the sweep, in five sections."""
    ws, _, expr = _library()
    columns = [f"config:{key.replace('.', '.value.', 1)}" for key in sweep.varying if "." in key]
    columns += [f"config:{key}.value" for key in sweep.varying if "." not in key]
    return ws.Workspace(
        entity=sweep.entity,
        project=sweep.project,
        name=f"promptgeo {slug(sweep.name)}",  # W&B takes no emoji
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in _sections(sweep).items() if panels
        ],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=SHOWN),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(*_filters(sweep, "train")),
            pinned_columns=["run:displayName", *columns, f"summary:{HEADLINE}_final"],
        ),
    )


def report(sweep: Sweep) -> Any:
    """wandb_workspaces.reports.v2.Report: the same panels in a page, curves per task, and figures of analyses."""
    _, wr, _ = _library()
    sections = _sections(sweep)
    all_runs = _runset(sweep, "runs", "train")
    blocks: list[Any] = [
        wr.P(f"Runs of promptgeo's sweep {sweep.name}: {', '.join(sweep.tasks)}; inits {', '.join(sweep.inits)}.")
    ]
    for task in sweep.tasks:
        blocks += [wr.H2(f"Curves: {task}"), _grid([_runset(sweep, task, "train", task)], _curves(sweep, "init.name"))]
    for name in ("Accuracy by init", "Parallel coordinates", "Norms", "Tables"):
        blocks += [wr.H2(name), _grid([all_runs], sections[name])]
    if sweep.figures:
        panel = wr.MediaBrowser(title="figures", media_keys=sweep.figures, num_columns=2)
        blocks += [wr.H2("Analyses"), _grid([_runset(sweep, "analyses", "analysis")], [panel])]
    return wr.Report(
        project=sweep.project,
        entity=sweep.entity,
        title=f"promptgeo {slug(sweep.name)}"[:128],
        blocks=blocks,
    )


def as_json(made: Any) -> str:
    """A workspace or a report as JSON, the same for the same sweep. Raises ValueError where it is read otherwise."""
    text = _numbered(made._to_model().model_dump_json(by_alias=True, exclude_none=True))
    model = from_json(type(made), text)._to_model()
    if (again := _numbered(model.model_dump_json(by_alias=True, exclude_none=True))) != text:
        at = next(k for k, (a, b) in enumerate(zip(text, again, strict=False)) if a != b)
        raise ValueError(f"wandb-workspaces reads {text[at - 40 : at + 40]!r} as {again[at - 40 : at + 40]!r}")
    return text


def from_json(kind: type, text: str) -> Any:
    """The workspace or report that `as_json` wrote. kind: its class."""
    _library()
    from wandb_workspaces.reports.v2 import internal as of_reports
    from wandb_workspaces.workspaces import internal as of_workspaces

    model = of_workspaces.View if kind.__name__ == "Workspace" else of_reports.ReportViewspec
    return kind._from_model(model.model_validate_json(text))  # type: ignore[attr-defined]


def _sections(sweep: Sweep) -> dict[str, list[Any]]:
    """Name -> panels."""
    _, wr, _ = _library()
    final = f"{HEADLINE}_final"
    spread: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    bars = [
        wr.BarPlot(title=f"{name} by {section}", metrics=[name], groupby=wr.Config(f"{section}.name"), **spread)
        for name in (final, "loss_final")
        for section in ("init", "task")
    ]
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in sweep.varying]
    ends = [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name)) for name in (final, "loss_final")]
    norms = [
        _lines(f"{name} by {section}", f"train/{name}", f"{section}.name")
        for name in ("prompt_norm", "distance_to_p0")
        for section in ("init", "task")
    ]
    tables = ["predictions", "nearest_tokens", *(["confusion_matrix_table"] if sweep.labels else [])]
    return {
        "Curves by task": _curves(sweep, "task.name"),
        "Accuracy by init": bars,
        "Parallel coordinates": [wr.ParallelCoordinatesPlot(columns=[*axes, *ends], layout=wr.Layout(w=24, h=9))],
        "Norms": norms,
        "Tables": [wr.WeavePanelSummaryTable(table_name=name) for name in tables],
    }


def _curves(sweep: Sweep, by: str) -> list[Any]:
    shown = {"training loss": "train/loss", "loss": f"{sweep.split}/loss", HEADLINE: f"{sweep.split}/{HEADLINE}"}
    return [_lines(f"{name} by {by.removesuffix('.name')}", metric, by) for name, metric in shown.items()]


def _lines(title: str, metric: str, by: str) -> Any:
    """A line for each value of a key: the mean of its runs, and from the lowest to the highest of them."""
    _, wr, _ = _library()
    return wr.LinePlot(
        title=title,
        x="step",
        y=[metric],
        groupby=wr.Config(by),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=SHOWN,
    )


def _runset(sweep: Sweep, name: str, job_type: str, task: str | None = None) -> Any:
    """task: only runs with this tag. Every run has its task's name as a tag.

    Without entity and project, which are the report's own: wandb-workspaces would ask W&B for their number.
    """
    _, wr, expr = _library()
    filters = _filters(sweep, job_type) + ([expr.Tags().isin([_literal(task)])] if task is not None else [])
    return wr.Runset(entity="", project="", name=name, filters=expr.And(*filters))


def _filters(sweep: Sweep, job_type: str) -> list[Any]:
    _, _, expr = _library()
    return [expr.Metric("Group") == _literal(sweep.name), expr.Metric("JobType") == job_type]


def _literal(text: str) -> str:
    """A name within the quotes that wandb-workspaces puts around it, to read it again as Python."""
    return text.replace("\\", r"\\").replace("'", r"\'").replace("\n", r"\n")


def _grid(runsets: list[Any], panels: list[Any]) -> Any:
    _, wr, _ = _library()
    return wr.PanelGrid(runsets=runsets, panels=panels)


def _numbered(text: str) -> str:
    """Its panels and sets of runs numbered, where wandb-workspaces drew names."""
    count = 0

    def walk(value: Any) -> Any:
        nonlocal count
        if isinstance(value, dict):
            drawn = "__id__" if "__id__" in value else "id" if value.get("id") and "runFeed" in value else None
            if drawn is not None:
                count += 1
                value = value | {drawn: f"promptgeo{count}"}
            return {key: each if key == drawn else walk(each) for key, each in value.items()}
        return [walk(each) for each in value] if isinstance(value, list) else value

    return json.dumps(walk(json.loads(text)), ensure_ascii=False)


def _library() -> tuple[Any, Any, Any]:
    """wandb_workspaces' workspaces, reports and expressions; pydantic warns of how they are written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
        from wandb_workspaces import expr
    return workspaces, reports, expr
