"""How large is a task's set of solutions, and in how many directions? Radii, the smallest subspace that holds a solution, participation ratio.

Study 1's open direction (1); see orthogonal.py for its other half.

Shapes: N runs, K directions, S subspaces, E test examples, B bootstrap draws, P prompt tokens, d width, D = P * d, k dimensions of a subspace.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.groups import distinct, names_of, pushed_apart
from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import bootstrap_mean, permutation_p, wilson
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import EvaluationSet, evaluation_sets, percent
from promptgeo.analysis.subspaces import (
    centred_gram,
    null_grams,
    orthonormal,
    participation,
    radii,
    random_directions,
    train_in_subspaces,
    unit,
)
from promptgeo.analysis.training_loss import minibatch_losses, token_losses
from promptgeo.errors import UserError
from promptgeo.evaluation import evaluate
from promptgeo.frozen_lm import FrozenLM
from promptgeo.row import Row
from promptgeo.run_table import RunTable

KINDS = {"random": "random", "hull": "towards other solutions", "uphill": "along the gradient", "downhill": "against the gradient"}
OF = {"prompt": "solutions", "delta": "deltas P - P0"}
SMALLEST_RADIUS = 2.0**-9
"""Of the largest: below it radii are halved from 0."""


def dimension(
    runs: RunTable,
    *,
    lm: FrozenLM,
    factor: float = 2.0,
    radii_of: int | None = 4,
    directions: int = 8,
    most: float = 8.0,
    dimensions: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    subspaces: int = 3,
    share: float = 0.9,
    steps: int = 100,
    batch_size: int = 16,
    lr: float | None = None,
    max_examples: int | None = 50,
    nulls: int = 1000,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, of its trained prompts.

    Radii. r_tau(u): how far one can go from a prompt along the unit direction u (of all D = P * d numbers together) before the loss on test
    examples exceeds tau = `factor` times the mean trained loss of the task's runs. Numbers `radius.<kind>.<task>`, geometric means in units
    of the prompt's norm: `random`; `hull`, towards each other run's prompt; `uphill` and `downhill`, along and against the gradient of that
    loss; `ratio.hull.<task>`, hull / random, and so on; `reach.<task>`, share of hull directions that reach the other solution.
    Intervals draw runs (starting points).

    Subspaces (Li et al. 2018). P0 + A z, A random orthonormal [D, k], z trained by Adam on training examples: `subspace.<task>.k<k>`, test
    accuracy; `subspace.<task>`, the smallest k that reaches `share` of the mean accuracy of the trained runs. Controls: P0 itself
    (`k0`) and the whole space with the same budget (`whole`). The spaces of one number are nested. Intervals draw
    subspaces (each with the P0 of another run, as far as there are) and test examples.

    Participation ratio. (sum lambda)^2 / sum lambda^2 of the covariance of the solutions and of the deltas P - P0:
    `participation.<of>.<task>`; `participation.null.<of>.<task>`, of random directions with the same norms; `participation.ratio...`, with p
    (null ratios at most as large). N points give N - 1 at most, so the ratio to the null says more than the number itself. Intervals leave
    out each run in turn (see `spread`), and are of that ratio, times the null for the number itself.

    radii_of: runs of a task that radii are measured at; null: all. most: the largest radius asked, in the prompt's norms; a radius that is
    larger counts as that and is counted. steps, batch_size, lr: of training in subspaces; lr null: the runs' own. max_examples: test examples of
    a task; null: all. nulls: random sets of directions.

    Runs that were pushed apart (regulariser=orthogonal) are left out, for that is what spread them. Raises UserError where no task has two
    trained prompts of one length, or for prompts that were trained elsewhere.
    """
    wrong = factor <= 1 or directions < 1 or subspaces < 1 or most <= 0 or not 0 < share <= 1 or steps < 1 or not dimensions or min(dimensions) < 1
    if wrong:
        raise UserError("dimension: needs factor > 1, 0 < share <= 1, most > 0, and at least one direction, subspace, step and dimension")
    result = Result()
    sets = list(_sets(runs, evaluation_sets(runs, "dimension", max_examples, seed), result))
    if not sets:
        raise UserError("dimension: no task has two or more trained prompts of the same length; train more seeds (-m seed=0,1,2,3)")
    tables: dict[str, list[dict]] = {"radii": [], "subspaces": [], "participation": []}
    for k, each in enumerate(progress(sets, "tasks")):
        streams = [np.random.default_rng((seed, k, part)) for part in range(3)]
        tables["radii"] += _radii(result, lm, each, factor, radii_of, directions, most, draws, seed, streams[0])
        tables["subspaces"] += _subspaces(result, lm, each, dimensions, subspaces, share, steps, batch_size, lr, draws, streams[1])
        tables["participation"] += _participation(result, each, nulls, streams[2])
    short = [f"{s.evaluation_set.task.name} ({s.evaluation_set.of})" for s in sets if s.evaluation_set.n < s.evaluation_set.of]
    if short:
        result.omissions.append(f"dimension: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of {', '.join(dict.fromkeys(short))} (max_examples=null scores all).")
    result.tables |= {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}
    if "radii" in result.tables:
        result.figures["radii"] = _radius_figure(result.tables["radii"])
    if "subspaces" in result.tables:
        result.figures["subspaces"] = _subspace_figure(result.tables["subspaces"], share)
    return result


@dataclass(eq=False)
class _Set:
    """The trained prompts of one task and length."""

    name: str
    evaluation_set: EvaluationSet
    members: list[int]
    prompts_NPd: np.ndarray
    p0_NPd: np.ndarray | None
    lr: float
    """That the runs were trained with."""

    def rows(self, lm: FrozenLM, split: str) -> list[Row]:
        return self.evaluation_set.task.rows(lm, getattr(self.evaluation_set.task, split), self.prompts_NPd.shape[1])

    @cached_property
    def norm(self) -> float:
        return float(np.linalg.norm(self.prompts_NPd.reshape(len(self.members), -1), axis=1).mean())


def _sets(runs: RunTable, sets_N: Sequence[EvaluationSet], result: Result) -> Iterator[_Set]:
    groups: dict[tuple[EvaluationSet, int], list[int]] = {}
    free = [n for n, run in enumerate(runs.runs) if not pushed_apart(run)]
    kept = distinct(runs, free)
    for n in kept:
        groups.setdefault((sets_N[n], len(runs.runs[n].prompt())), []).append(n)
    pushed, same = len(runs) - len(free), len(free) - len(kept)
    if pushed:
        result.omissions.append(f"dimension: {pushed} runs that were pushed apart are left out: that is what spread them.")
    if same:
        result.omissions.append(f"dimension: {same} runs have the same prompt as another one and are left out.")
    for (evaluation_set, length), name, members in zip(groups, names_of(runs, list(groups.values())), groups.values(), strict=True):
        if len(members) < 2:
            result.omissions.append(f"dimension: {name} has one trained prompt of length {length}; two or more are needed.")
            continue
        there = [runs.runs[n] for n in members]
        p0_NPd = np.stack([run.prompt("initial") for run in there]) if all("initial" in run.tensors for run in there) else None
        yield _Set(name, evaluation_set, members, np.stack([run.prompt() for run in there]), p0_NPd, float(there[0].info["config"]["optimizer"]["lr"]))


# Radii.


def _radii(
    result: Result, lm: FrozenLM, each: _Set, factor: float, radii_of: int | None, directions: int, most: float, draws: int, seed: int,
    generator: np.random.Generator,
) -> list[dict]:  # fmt: skip
    rows = each.rows(lm, "test")

    @torch.no_grad()
    def loss(points_TPd: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(points_TPd.astype(np.float32)).to(lm.device)
        return torch.cat([token_losses(lm, rows, part) for part in points.split(16)]).cpu().numpy().astype(np.float64)

    losses_N = loss(each.prompts_NPd)
    tau = factor * losses_N.mean()
    inside = np.flatnonzero(losses_N <= tau)
    if len(inside) < len(losses_N):
        result.omissions.append(f"dimension: {len(losses_N) - len(inside)} of {len(losses_N)} prompts of {each.name} have a loss above tau = {tau:.3f}; no radius is measured at them.")
    chosen = inside[:radii_of]
    if len(chosen) < len(inside):
        result.omissions.append(f"dimension: radii of {each.name} are measured at {len(chosen)} of {len(inside)} prompts (radii_of=null measures at all).")
    found = []
    for n in chosen:
        point_Pd = each.prompts_NPd[n].astype(np.float64)
        others = np.delete(np.arange(len(each.members)), n)
        away = each.prompts_NPd[others] - point_Pd
        kinds = {"random": random_directions(directions, point_Pd.shape, generator), "hull": unit(away)}
        gradient_Pd = _gradient(lm, rows, point_Pd)
        if np.linalg.norm(gradient_Pd) > 0:
            kinds |= {"uphill": unit(gradient_Pd[None]), "downhill": unit(-gradient_Pd[None])}
        norm = float(np.linalg.norm(point_Pd))
        r_K, beyond_K = radii(loss, point_Pd, np.concatenate(list(kinds.values())), tau, most * norm)
        names = [kind for kind, vectors in kinds.items() for _ in vectors]
        distances = iter(np.linalg.norm(away.reshape(len(away), -1), axis=1))
        found += [
            {"task": each.name, "run": each.members[n], "kind": kind, "radius": r, "relative": r / norm, "beyond": beyond, "distance": next(distances) if kind == "hull" else np.nan, "tau": tau}
            for kind, r, beyond in zip(names, r_K, beyond_K, strict=True)
        ]
    if len(chosen) < 2:
        result.omissions.append(f"dimension: {each.name} has fewer than two prompts at which radii are measured; no mean of them has an interval.")
    else:
        _tell_radii(result, each, pd.DataFrame(found), tau, factor, most, draws, seed)
    return found


def _gradient(lm: FrozenLM, rows: Sequence[Row], point_Pd: np.ndarray) -> np.ndarray:
    """[P, d] float64, of the loss on the rows; a part of them at a time, for memory."""
    point = torch.from_numpy(point_Pd.astype(np.float32))[None].to(lm.device).requires_grad_()
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        (token_losses(lm, part, point).sum() * sum(len(row.label) for row in part)).backward()
    return point.grad[0].double().cpu().numpy() / sum(len(row.label) for row in rows)


def _tell_radii(result: Result, each: _Set, found: pd.DataFrame, tau: float, factor: float, most: float, draws: int, seed: int) -> None:
    name, smallest = each.name, most * SMALLEST_RADIUS * 2.0**-6
    # Means over a run's directions first: runs are what was drawn. A radius of 0 is at most the smallest that is told apart.
    logs = np.log(found["relative"].clip(lower=smallest)).groupby([found["run"], found["kind"]]).mean().unstack("kind")
    told = {}
    for kind in [kind for kind in KINDS if kind in logs]:
        values = logs[kind].dropna().to_numpy()
        told[kind] = tuple(np.exp([values.mean(), *bootstrap_mean(values, draws=draws, seed=seed)]).tolist())
        result.number(f"radius.{kind}.{name}", told[kind][0], len(values), "runs", *told[kind][1:])
        if kind != "random":
            difference = (logs[kind] - logs["random"]).dropna().to_numpy()
            told[f"ratio.{kind}"] = tuple(np.exp([difference.mean(), *bootstrap_mean(difference, draws=draws, seed=seed)]).tolist())
            result.number(f"ratio.{kind}.{name}", told[f"ratio.{kind}"][0], len(difference), "runs", *told[f"ratio.{kind}"][1:])
    hull = found[found["kind"] == "hull"]
    reached = (hull["radius"] >= hull["distance"] * (1 - 2.0**-6)).to_numpy(float)
    low, high = bootstrap_mean(reached, hull["run"].to_numpy(), draws, seed)
    if high - low < 1e-9:  # runs, not directions, are what was drawn
        low, high = wilson(round(reached.mean() * len(logs)), len(logs))
    result.number(f"reach.{name}", reached.mean(), len(reached), "directions", low, high)
    ratio, low, high = told["ratio.hull"]
    further = "reaches further" if low > 1 else "reaches less far" if high < 1 else "reaches neither further nor less far, as far as these runs show,"
    beyond = found.loc[found["kind"].isin(["random", "hull"]), "beyond"]
    capped = f"; {int(beyond.sum())} of {len(beyond)} radii exceed {most:g} norms and count as that" if beyond.any() else ""
    gradient = ", ".join(f"{KINDS[kind]} {told[kind][0]:.2f}" for kind in ("uphill", "downhill") if kind in told)
    parts = f"{_of(told['hull'])} norms against {_of(told['random'])}{f', {gradient}' if gradient else ''}"
    result.findings.append(
        Finding(
            f"{name}: at tau = {tau:.3f} nats a token ({factor:g} times the trained loss) the solution set {further} towards other solutions than in random directions: "
            f"{parts}, a ratio of {_of((ratio, low, high))}; {int(reached.sum())} of {len(reached)} straight ways to another solution stay below tau{capped} (n = {len(logs)} runs).",
            ratio, len(logs), "runs", low, high,
        )
    )  # fmt: skip


def _of(told: tuple[float, float, float]) -> str:
    return f"{told[0]:.2f} ({told[1]:.2f} to {told[2]:.2f})"


# Subspaces.


def _subspaces(
    result: Result, lm: FrozenLM, each: _Set, dimensions: Sequence[int], subspaces: int, share: float, steps: int, batch_size: int, lr: float | None,
    draws: int, generator: np.random.Generator,
) -> list[dict]:  # fmt: skip
    if each.p0_NPd is None:
        result.omissions.append(f"dimension: {each.name} has prompts without P0; no subspace through it is trained.")
        return []
    size = each.p0_NPd[0].size
    dims = sorted({k for k in dimensions if k < size})
    if not dims:
        result.omissions.append(f"dimension: prompts of {each.name} have {size} numbers; none of the dimensions asked is below that.")
        return []
    chosen = [s % len(each.members) for s in range(subspaces)]
    p0_SPd = torch.from_numpy(each.p0_NPd[chosen]).to(lm.device)
    bases = [torch.from_numpy(orthonormal(size, dims[-1], generator)).to(lm.device) for _ in chosen]
    trials = [(s, k) for k in (*dims, size) for s in range(subspaces)]
    spaces = [None if k == size else bases[s][:, :k] for s, k in trials]
    train = minibatch_losses(lm, each.rows(lm, "train"), batch_size, generator)
    points = train_in_subspaces(train, p0_SPd[[s for s, _ in trials]], spaces, steps=steps, lr=each.lr if lr is None else lr)
    everything = torch.cat([torch.from_numpy(each.prompts_NPd).to(points), p0_SPd, points])
    scored = evaluate(lm, everything, each.evaluation_set.task, max_new_tokens=each.evaluation_set.max_new_tokens)
    full = len(each.members)
    asked = [(s, 0) for s in range(subspaces)] + trials
    _tell_subspaces(result, each, scored.correct[:full], scored.correct[full:].reshape(-1, subspaces, each.evaluation_set.n), [0, *dims, size], share, steps, draws, generator)
    reference = scored.accuracy[:full].mean()
    return [
        {"task": each.name, "dimension": k, "whole": k == size, "subspace": s, "accuracy": accuracy, "loss": loss, "full": reference}
        for (s, k), accuracy, loss in zip(asked, scored.accuracy[full:], scored.loss[full:], strict=True)
    ]


def smallest_reaching(accuracies_BK: np.ndarray, dims_K: Sequence[int], least_B: np.ndarray) -> np.ndarray:
    """[B] float64: the smallest of the rising dims whose accuracy is at least `least`; inf where none is."""
    reached_BK = accuracies_BK >= least_B[:, None] - 1e-9
    return np.where(reached_BK.any(1), np.asarray(dims_K, dtype=np.float64)[reached_BK.argmax(1)], np.inf)


def _tell_subspaces(
    result: Result, each: _Set, full_NE: np.ndarray, correct_KSE: np.ndarray, dims: list[int], share: float, steps: int, draws: int,
    generator: np.random.Generator,
) -> None:  # fmt: skip
    """dims: 0 (P0), the subspaces' and D (the whole space), as the rows of correct_KSE."""
    name, n, subspaces = each.name, each.evaluation_set.n, correct_KSE.shape[1]
    drawn_BE = generator.multinomial(n, np.full(n, 1 / n), size=draws) / n
    drawn_BS = generator.multinomial(subspaces, np.full(subspaces, 1 / subspaces), size=draws) / subspaces
    accuracy_K = correct_KSE.mean((1, 2))
    drawn_BK = np.stack([((drawn_BE @ correct_SE.T) * drawn_BS).sum(1) for correct_SE in correct_KSE], axis=1)
    full, full_B = float(full_NE.mean()), (drawn_BE @ full_NE.T).mean(1)
    low_K, high_K = np.percentile(drawn_BK, [2.5, 97.5], axis=0)
    told = []
    for k, value, low, high in zip(dims, accuracy_K, low_K, high_K, strict=True):
        told.append((float(value), *((float(low), float(high)) if high - low > 1e-9 else wilson(round(value * n), n))))
        result.number(f"subspace.{name}.{'whole' if k == dims[-1] else f'k{k}'}", told[-1][0], subspaces, "subspaces", *told[-1][1:])
    least, whole = share * full, told[-1]
    reached = float(smallest_reaching(accuracy_K[None], dims, np.array([least]))[0])
    smallest_B = smallest_reaching(drawn_BK, dims, share * full_B)
    budget = f"the whole space of {dims[-1]} reaches {percent(*whole)} with the same {steps} steps"
    end = f"{budget}, P0 {percent(*told[0])}, the trained runs {full:.1%} (n = {subspaces} subspaces, {n} test examples)."
    if not np.isfinite(reached):
        sentence = f"{name}: no space reaches {100 * share:g} % of the trained runs' accuracy in {steps} steps, so these are too few to tell a dimension: {end}"
        result.findings.append(Finding(sentence, whole[0], subspaces, "subspaces", *whole[1:]))
        return
    low, high = (float(min(x, dims[-1])) for x in np.percentile(smallest_B, [2.5, 97.5], method="nearest"))
    result.number(f"subspace.{name}", reached, subspaces, "subspaces", low, high)
    if reached == 0:
        what = f"P0 itself reaches {100 * share:g} % of the trained runs' accuracy, so no dimension is needed"
    elif reached == dims[-1]:
        what = f"no subspace up to dimension {dims[-2]} reaches {100 * share:g} % of the trained runs' accuracy, only the whole space does"
    else:
        below = dims[dims.index(int(reached)) - 1]
        what = f"a random subspace of dimension {reached:.0f} ({low:.0f} to {high:.0f}) reaches {100 * share:g} % of the trained runs' accuracy, one of {below} does not"
    result.findings.append(Finding(f"{name}: {what}: {end}", reached, subspaces, "subspaces", low, high))


# Participation ratio.


def _participation(result: Result, each: _Set, nulls: int, generator: np.random.Generator) -> list[dict]:
    n = len(each.members)
    if n < 4:
        result.omissions.append(f"dimension: {each.name} has {n} trained prompts; a participation ratio needs four, for that of two is 1 whatever they are, and its interval leaves runs out.")
        return []
    vectors = {"prompt": each.prompts_NPd}
    if each.p0_NPd is None:
        result.omissions.append(f"dimension: {each.name} has prompts without P0, hence no participation ratio of deltas.")
    elif len(np.unique(each.p0_NPd.reshape(n, -1), axis=0)) == 1:
        result.omissions.append(f"dimension: all runs of {each.name} start from the same P0; their deltas spread as their prompts do.")
    else:
        vectors["delta"] = each.prompts_NPd - each.p0_NPd
    rows = []
    for of, vectors_NPd in vectors.items():
        vectors_ND = vectors_NPd.reshape(n, -1)
        told, spectrum = spread(vectors_ND, nulls, generator)
        _tell_participation(result, each, of, told, n)
        rows += [{"task": each.name, "of": of, "component": k + 1, "share": x, "participation": told.value, "null": told.null, "runs": n} for k, x in enumerate(spectrum)]
    return rows


@dataclass(frozen=True)
class Spread:
    """A participation ratio beside that of random directions."""

    value: float
    null: float
    """Mean of random directions with the same norms."""
    ratio: float
    """value / null."""
    low: float
    high: float
    """95 % interval of the ratio."""
    p: float
    """Of a null ratio that is at most as large."""


def spread(vectors_ND: np.ndarray, nulls: int, generator: np.random.Generator) -> tuple[Spread, np.ndarray]:
    """(the participation ratio of N >= 4 vectors against its null, shares of variance by principal component [N - 1]).

    The interval is the jackknife's, on the ratio's logarithm: each run left out in turn, Student's t with N - 1 degrees of freedom. A bootstrap
    will not do: a draw holds some runs twice, and the fewer different ones there are, the fuller they spread over what N - 1
    allows, so that its interval may not even hold the estimate.
    """
    from scipy.stats import t

    n = len(vectors_ND)
    gram_NN, null_RNN = centred_gram(vectors_ND), null_grams(vectors_ND, nulls, generator)
    # All runs, then all but each one.
    counts_BN = np.concatenate([np.ones((1, n)), 1 - np.eye(n)])
    found_B, null_RB = participation(gram_NN, counts_BN), np.stack([participation(null_NN, counts_BN) for null_NN in null_RNN])
    log_B = np.log(found_B / null_RB.mean(0))
    error = np.sqrt((n - 1) / n * ((log_B[1:] - log_B[1:].mean()) ** 2).sum())
    low, high = np.exp(log_B[0] + np.array([-1, 1]) * t.ppf(0.975, n - 1) * error)
    values = np.clip(np.linalg.eigvalsh(gram_NN)[::-1][: n - 1], 0, None)
    value, null = float(found_B[0]), float(null_RB[:, 0].mean())
    return Spread(value, null, value / null, float(low), float(high), permutation_p(value, null_RB[:, 0], "less")), values / values.sum()


def _tell_participation(result: Result, each: _Set, of: str, told: Spread, n: int) -> None:
    name = f"{of}.{each.name}"
    result.number(f"participation.{name}", told.value, n, "runs", told.low * told.null, told.high * told.null, told.p)
    result.number(f"participation.null.{name}", told.null, n, "runs", p=told.p)
    result.number(f"participation.ratio.{name}", told.ratio, n, "runs", told.low, told.high, told.p)
    fewer = "they spread over fewer dimensions than random directions do"
    if told.p >= 0.05:
        fewer = f"nothing shows that {fewer}"
    elif told.high >= 1:
        fewer += ", though other runs might not"
    result.findings.append(
        Finding(
            f"{each.name}: the participation ratio of {n} {OF[of]} is {told.value:.2f}, of random directions with the same norms {told.null:.2f} "
            f"({n} points give {n - 1} at most): {told.ratio:.3f} of it ({told.low:.3f} to {told.high:.3f}, p = {told.p:.3g}), so {fewer} (n = {n} runs).",
            told.ratio, n, "runs", told.low, told.high, told.p,
        )
    )  # fmt: skip


# Figures.


def _radius_figure(table: pd.DataFrame) -> str:
    tasks, kinds = list(dict.fromkeys(table["task"])), list(KINDS)
    columns = min(len(tasks), 2)
    with panels(-(-len(tasks) // columns), columns, height=2.3, sharex=True, sharey=True) as (figure, axes):
        generator = np.random.default_rng(0)
        for axis, task in zip(axes.flat, tasks, strict=False):
            for k, kind in enumerate(kinds):
                rows = table[(table["task"] == task) & (table["kind"] == kind)]
                for beyond, marker in ((False, "o"), (True, ">")):
                    values = rows.loc[rows["beyond"] == beyond, "relative"].clip(lower=1e-4)
                    axis.scatter(values, len(kinds) - 1 - k + generator.uniform(-0.25, 0.25, len(values)), s=9, alpha=0.6, linewidths=0, color=COLOURS[k], marker=marker)
            axis.set(title=task, xscale="log", yticks=range(len(kinds)), yticklabels=[KINDS[kind] for kind in reversed(kinds)])
        for axis in axes.flat[len(tasks) :]:
            axis.set_visible(False)
        figure.supxlabel("radius below tau, in the prompt's norms (triangles: at least)", fontsize=9)
        return svg(figure)


def _subspace_figure(table: pd.DataFrame, share: float) -> str:
    with panels(height=2.8) as (figure, axes):
        axis = axes[0, 0]
        for k, (task, rows) in enumerate(table.groupby("task", sort=False)):
            colour, low = COLOURS[k % len(COLOURS)], rows[rows["dimension"] > 0]
            means = low.groupby("dimension")["accuracy"].mean()
            axis.plot(means.index, means, color=colour, marker="o", markersize=4, linewidth=1.2, label=task)
            axis.scatter(low["dimension"], low["accuracy"], color=colour, s=6, alpha=0.5)
            axis.axhline(share * rows["full"].iloc[0], color=colour, linewidth=0.8, linestyle="--")
        axis.set(xlabel=f"dimension of the subspace (last: the whole space; dashed: {100 * share:g} % of the trained runs)", ylabel="test accuracy", ylim=(-0.02, 1.02))
        axis.set_xscale("log", base=2)
        axis.legend(fontsize=8)
        return svg(figure)
