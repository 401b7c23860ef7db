"""What do the prompts of hulls score, one by one? Tidy tables, and the figures drawn from them.

Shapes: T points of an edge beside its ends.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, GRID, NEUTRAL, mean_line, small_multiples, svg
from promptgeo.analysis.geometry.hulls import Hull

NAMES = {
    "vertices": "vertices",
    "mixtures": "mixtures",
    "barycentre": "barycentre",
    "edges": "edges",
    "slerp": "slerp edges",
    "extrapolation": "beyond the ends",
    "rescaled": "vertex, rescaled",
    "displaced": "vertex, displaced",
    "untrained": "mixtures of P0s",
    "initial": "P0",
    "across_tasks": "across tasks",
}
"""Kinds of prompts as figures call them, in their order."""


# Tables.


def prompt_table(hull: Hull) -> pd.DataFrame:
    """A row per scored prompt; `alpha` of the random mixtures."""
    parts = []
    for kind, scored in hull.kinds.items():
        if kind == "ternary":
            continue
        columns = {
            "task": hull.name,
            "kind": kind,
            "alpha": hull.alpha_M if kind == "mixtures" else np.full(len(scored), np.nan),
            "accuracy": scored.accuracy,
            "loss": hull.losses(kind),
            "norm": np.linalg.norm(scored.prompts_SPd, axis=-1).mean(1),
            "n": hull.evaluation_set.n,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def edge_table(hull: Hull) -> pd.DataFrame:
    """A row per point of an edge, ends included; way: lerp or slerp."""
    inside, beyond = hull.t_T[hull.inside_T], hull.t_T[~hull.inside_T]
    ways = (("lerp", inside, "edges"), ("slerp", inside, "slerp"), ("lerp", beyond, "extrapolation"))
    rows: list[dict[str, Any]] = []
    for e, (a, b) in enumerate(hull.edges):
        edge = {"task": hull.name, "start": hull.members[a], "end": hull.members[b]}
        for way, t_T, kind in ways:
            at = slice(e * len(t_T), (e + 1) * len(t_T))
            accuracies, losses = hull.kinds[kind].accuracy[at], hull.losses(kind)[at]
            rows += [
                edge | {"way": way, "t": t, "accuracy": accuracy, "loss": loss}
                for t, accuracy, loss in zip(t_T, accuracies, losses, strict=True)
            ]
        accuracies, losses = hull.kinds["vertices"].accuracy, hull.losses("vertices")
        rows += [
            edge | {"way": way, "t": t, "accuracy": accuracies[v], "loss": losses[v]}
            for way in ("lerp", "slerp")
            for t, v in ((0.0, a), (1.0, b))
        ]
    return pd.DataFrame(rows).sort_values(["task", "start", "end", "way", "t"], kind="stable", ignore_index=True)


def ternary_table(hull: Hull) -> pd.DataFrame:
    """A row per point of the triangular grid over the first three vertices, with its weights."""
    scored = hull.kinds["ternary"]
    weights = dict(zip(("first", "second", "third"), scored.weights_SN[:, hull.members[:3]].T, strict=True))
    return pd.DataFrame({"task": hull.name} | weights | {"accuracy": scored.accuracy, "loss": hull.losses("ternary")})


# Figures.


def accuracy_figure(prompts: pd.DataFrame, hulls: Sequence[Hull], margin: float) -> str:
    """A panel per task, each scored prompt a point in the row of its kind."""
    kinds = [kind for kind in NAMES if (prompts["kind"] == kind).any()]
    label = f"test accuracy (dashed: worst vertex less {100 * margin:g} points; dotted: no prompt)"
    with small_multiples(len(hulls), x=label, height=2.7) as (figure, axes):
        generator = np.random.default_rng(0)
        for axis, hull in zip(axes, hulls, strict=True):
            for k, kind in enumerate(kinds):
                chosen = (prompts["task"] == hull.name) & (prompts["kind"] == kind)
                values = prompts.loc[chosen, "accuracy"].to_numpy()
                heights = len(kinds) - 1 - k + generator.uniform(-0.3, 0.3, len(values))
                axis.scatter(values, heights, s=7, alpha=0.5, linewidths=0, color=COLOURS[k % len(COLOURS)])
            worst = hull.kinds["vertices"].accuracy.min()
            axis.axvline(worst - margin, color="black", linewidth=0.8, linestyle="--")
            axis.axvline(hull.unprompted_E.mean(), color=NEUTRAL, linewidth=0.8, linestyle=":")
            labels = [NAMES[kind] for kind in reversed(kinds)]
            axis.set(title=hull.name, xlim=(-0.04, 1.04), yticks=range(len(kinds)), yticklabels=labels)
        return svg(figure, "Accuracy of trained prompts, of what lies between them and of controls, each a point")


def edge_figure(edges: pd.DataFrame, hulls: Sequence[Hull]) -> str:
    """A panel per task: the loss along edges of the hull, their mean and each."""
    x, y = "t along the edge (0 and 1: trained prompts; grey: extrapolation)", "test loss, nats a token"
    with small_multiples(len(hulls), x=x, y=y, height=2.4) as (figure, axes):
        for axis, hull in zip(axes, hulls, strict=True):
            for way, label, colour in (("lerp", "straight", COLOURS[0]), ("slerp", "along the arc", COLOURS[2])):
                rows = edges[(edges["task"] == hull.name) & (edges["way"] == way)].assign(t=lambda x: x["t"].round(9))
                mean_line(axis, rows, "t", "loss", ["start", "end"], color=colour, label=label)
            for start, end in ((hull.t_T.min(), 0), (1, hull.t_T.max())):
                axis.axvspan(start, end, color=GRID, alpha=0.25, linewidth=0)
            axis.set(title=hull.name)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure, "Mean test loss on the way from one trained prompt to another; faint: single edges")


def ternary_figure(ternary: pd.DataFrame) -> str:
    """A panel per task: the loss over mixtures of three trained prompts, in colours that mean the same in all."""
    tasks = list(dict.fromkeys(ternary["task"]))
    ends = {"vmin": ternary["loss"].min(), "vmax": ternary["loss"].max()}
    with small_multiples(len(tasks), height=2.9) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            rows = ternary[ternary["task"] == task]
            x, y = rows["second"] + rows["third"] / 2, rows["third"] * np.sqrt(3) / 2
            shown = axis.tripcolor(x, y, rows["loss"], shading="gouraud", cmap="viridis", **ends)
            axis.set(title=task, aspect="equal")
            axis.axis("off")
            figure.colorbar(shown, ax=axis, label="test loss, nats a token")
        return svg(figure, "Test loss of mixtures of three trained prompts, which are the corners")
