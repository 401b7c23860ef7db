"""Does a random init take longer to train than a text, and does it end lower?

Shapes: N runs.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import Premise, decided, learned
from promptgeo.analysis.figures import COLOURS, small_multiples, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance
from promptgeo.analysis.logged import chosen, logged_scores, over_baselines
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import clopper_pearson, newcombe, t_mean
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import Bootstrap, Difference, add_difference, in_points
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable

TEXT, RANDOM = ("word", "text", "labels"), ("vocab", "normal", "uniform")
"""Kinds of inits that are compared: made of words that mean something, and drawn at random."""

LEAST_RUNS = 4
"""Of each kind, for a claim of how long they take."""

LEAST_SCORES = 4
"""Times that a run is scored on what it is watched by: at P0, at the end, and at two steps between them."""


@question(claims=("random_init_takes_longer", "random_init_ends_lower"), factors=("task_length",))
def inits(runs: RunTable, *, draws: int = 1000, seed: int = 0) -> Result:
    """Table `runs`: one row per run, with `time`: the share of its task's steps after which it has learned.

    A run has learned where its loss on the validation examples (on test where there are none) first is at most what
    both kinds of inits of its task end with on average, so the higher of two means; 1 where it never is. Numbers:
    `time.<task>.<kind>` with Clopper and Pearson's interval; `difference.time` (random less text; also by task) with
    Newcombe's of both kinds' Student's; no p, which would need runs that are alike but for their kind: those of a text
    share one P0. `difference.final` (also by task): the final accuracy, of the likeliest label where the task has
    labels, over runs and `draws` draws of test examples.

    Over all tasks: over those in which runs of both kinds are shown to beat their own P0s; an init that solves its task
    untrained has nothing left to take time for. Over each task where there is no such.

    Raises UserError where no task has runs of both kinds, or runs were scored fewer than LEAST_SCORES times.
    """
    table, compared = _times(runs)
    result, bootstrap = Result(tables={"runs": table}), Bootstrap(draws, seed)
    both, result.omissions = _with_something_to_learn(compared, table, bootstrap)
    time = _time_numbers(result, table, both)
    final = _final_numbers(result, compared, table, both, bootstrap)
    about_N = table["task"].isin(both).to_numpy()
    about = table[about_N]
    result.findings = [_time_finding(time, about), _final_finding(final, about)]
    some = len(result.omissions) < table["task"].nunique()
    premises = _premises(compared.only(np.flatnonzero(about_N).tolist()), some)
    fewest = int(about["random"].value_counts().min())
    enough = Premise(
        fewest >= LEAST_RUNS, f"{LEAST_RUNS} runs of each kind ({fewest} are here)", "four runs of each kind"
    )
    time_claim = decided(
        "random_init_takes_longer",
        time.interval,
        result.findings[0].sentence,
        premises=[*premises, enough],
        quantity=time.quantity,
    )
    final_claim = decided(
        "random_init_ends_lower",
        final.estimate.interval,
        result.findings[1].sentence,
        below=True,
        p=final.estimate.p(0.0),
        premises=premises,
        needs="more runs or test examples",
        quantity=final.number.quantity,
    )
    result.claims = [time_claim, final_claim]
    result.figures["curves"] = _figure(compared, table)
    return result


def _with_something_to_learn(
    compared: RunTable, table: pd.DataFrame, bootstrap: Bootstrap
) -> tuple[list[str], list[str]]:
    """(tasks in which runs of both kinds beat their P0s, a sentence for each other one); all tasks where none is so."""
    both, sentences = [], []
    for task in order_of_appearance(table["task"]):
        failed = []
        for random, words in ((False, "a text"), (True, "random inits")):
            members = np.flatnonzero((table["task"] == task) & (table["random"] == random))
            beaten = over_baselines([(compared.runs or [])[n] for n in members], task, bootstrap)
            if "initial" in beaten and beaten["initial"][1].interval[0] <= 0:
                accuracy, gain = beaten["initial"]
                failed.append(f"runs of {words} ({accuracy:.1%} at P0; {gain.value:+.1%} by training)")
        if failed:
            sentences.append(f"inits: in {task} {' and '.join(failed)} are not shown to learn; no claim is about it.")
        else:
            both.append(task)
    return both or order_of_appearance(table["task"]), sentences


def _premises(compared: RunTable, some: bool) -> list[Premise]:
    words = "in a task or more, runs of both kinds of inits are shown to beat their P0s"
    return [Premise(some, words, "tasks that neither kind of init solves untrained"), *learned(compared.table)]


def _times(runs: RunTable) -> tuple[pd.DataFrame, RunTable]:
    """Table `runs`, and the runs in it: those of tasks that have both kinds."""
    kinds = [_kind(run) for run in runs.runs or []]
    rows = runs.table.assign(kind=kinds) if kinds else runs.table.assign(kind="")
    both = {task for task, part in rows.groupby("task") if {"text", "random"} <= set(part["kind"])}
    keep = [n for n, row in enumerate(rows.itertuples()) if row.task in both and row.kind]
    if not keep:
        raise UserError("inits: no task here has runs of a text and of a random init (-m init=task_text,task_vocab)")
    compared = runs.only(keep)
    curves = [_curve(run) for run in compared.runs or []]
    if any(curve.empty for curve in curves):
        raise UserError("inits: needs runs with their metrics; prompts that were trained elsewhere have none")
    rare = [curve for curve in curves if len(curve) < LEAST_SCORES]
    if rare:
        raise UserError(
            f"inits: {len(rare)} of these {len(keep)} runs were scored fewer than {LEAST_SCORES} times, P0 and the end "
            "among them: it is not known when they had learned; train with evaluation.every=epoch or with validation"
        )
    table = compared.table[["task", "init", "seed"]].assign(random=[kinds[n] == "random" for n in keep])
    last = pd.Series([curve["loss"].iloc[-1] for curve in curves])
    steps = pd.Series([curve["step"].iloc[-1] for curve in curves])
    ends = last.groupby([table["task"], table["random"]]).mean().groupby("task").max()
    table["threshold"], table["last_step"] = table["task"].map(ends), steps.groupby(table["task"]).transform("max")
    table["time"] = [
        _time(curve, threshold, step)
        for curve, threshold, step in zip(curves, table["threshold"], table["last_step"], strict=True)
    ]
    return table, compared


def _kind(run: Run) -> str:
    kind = run.info["config"]["init"].get("kind")
    return "text" if kind in TEXT else "random" if kind in RANDOM else ""


def _curve(run: Run) -> pd.DataFrame:
    """step, loss: on validation where it was scored, else on what was."""
    metrics = run.metrics
    watched = metrics[metrics["split"] == "validation"] if len(metrics) else metrics
    return watched if len(watched) else metrics[metrics["split"] != "train"] if len(metrics) else metrics


def _time(curve: pd.DataFrame, threshold: float, last_step: int) -> float:
    reached = curve.loc[curve["loss"] <= threshold, "step"]
    return float(reached.iloc[0] / last_step) if len(reached) else 1.0


def _time_numbers(result: Result, table: pd.DataFrame, both: Sequence[str]) -> Number:
    """Numbers time.* and difference.time.*; returns difference.time, which is over some tasks."""
    names = {False: "text", True: "random"}
    differences = []
    for task, rows in table.groupby("task", sort=False):
        means = {}
        for random, name in names.items():
            times = rows.loc[rows["random"] == random, "time"].to_numpy()
            low, high = t_mean(times, least=0.0, most=1.0)
            # Student's covers 60 to 90 % of a few times of which some are 1; yes or no would vary the most.
            exact = clopper_pearson(times.mean() * len(times), len(times))
            result.number(f"time.{task}.{name}", times.mean(), len(times), "runs", *exact)
            means[random] = times.mean(), (0.0 if low is None else low, 1.0 if high is None else high)
        (one, interval), (other, other_interval) = means[True], means[False]
        difference = (one - other, *newcombe(one, interval, other, other_interval))
        result.number(f"difference.time.{task}", difference[0], len(rows), "runs", *difference[1:])
        differences += [difference] if task in both else []
    value_T, low_T, high_T = np.array(differences).T
    value, down, up = value_T.mean(), np.linalg.norm(value_T - low_T), np.linalg.norm(high_T - value_T)
    low, high = max(value - down / len(value_T), -1.0), min(value + up / len(value_T), 1.0)
    return result.number("difference.time", value, int(table["task"].isin(both).sum()), "runs", low, high)


def _final_numbers(
    result: Result, runs: RunTable, table: pd.DataFrame, both: Sequence[str], bootstrap: Bootstrap
) -> Difference:
    """Numbers difference.final.*; returns the difference over some tasks."""
    scored = logged_scores(runs.runs or [], table["task"], right=chosen)
    random_N = table["random"].to_numpy(bool)

    def difference(name: str, members: Sequence[bool], tasks_equal: bool) -> Difference:
        one = replace(scored.where(lambda s: members[s] and bool(random_N[s])), tasks_equal=tasks_equal)
        other = replace(scored.where(lambda s: members[s] and not random_N[s]), tasks_equal=tasks_equal)
        return add_difference(result, name, one, other, bootstrap)

    tasks = order_of_appearance(table["task"])
    for task in tasks:
        difference(f"difference.final.{task}", (table["task"] == task).tolist(), False)
    return difference("difference.final", table["task"].isin(both).tolist(), True)


def _time_finding(time: Number, table: pd.DataFrame) -> Finding:
    low, high = time.interval
    says = "takes longer" if low > 0 else "is faster" if high < 0 else "is not shown to take longer or less long"
    never = int((table["time"] >= 1).sum())
    return Finding.of(
        time,
        f"A random init {says} to train than a text: by {time.value:+.2f} ({low:+.2f} to {high:+.2f}) of its task's "
        f"steps ({never} of {len(table)} runs learn at the last step or never; n = {len(table)} "
        f"runs, {table['task'].nunique()} tasks).",
    )


def _final_finding(final: Difference, table: pd.DataFrame) -> Finding:
    says = final.verdict("ends higher than", "is not shown to end higher or lower than", "ends lower than")
    return Finding.of(
        final.number,
        f"A random init {says} a text: {in_points(final)} of accuracy (n = {len(table)} runs, "
        f"{final.number.n} test examples{final.reach}).",
    )


def _figure(runs: RunTable, table: pd.DataFrame) -> str:
    """A panel per task: the loss of every run over its steps, in the colour of its init's kind."""
    tasks = order_of_appearance(table["task"])
    with small_multiples(len(tasks), x="optimiser step", y="loss, nats a token", height=2.6) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            for run, row in zip(runs.runs or [], table.itertuples(), strict=True):
                if row.task == task:
                    curve, name = _curve(run), "random init" if row.random else "text"
                    axis.plot(curve["step"], curve["loss"], color=COLOURS[int(row.random)], linewidth=1, label=name)
            threshold = table.loc[table["task"] == task, "threshold"].iloc[0]
            axis.axhline(threshold, color="black", linewidth=0.7, linestyle=":", label="learned below")
            axis.set_title(task, fontsize=9)
        once = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=3, fontsize=8)
        return svg(figure, "Loss of each run over its training, from a text and from random inits")
