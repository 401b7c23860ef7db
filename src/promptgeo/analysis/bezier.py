"""Where the straight line between two trained prompts has a barrier: is there a curved path without one?

Mode connectivity (Garipov et al. 2018): a quadratic Bezier curve (1-t)^2 A + 2t(1-t) C + t^2 B, whose control point C is trained on
losses at random t. The pair and C are chosen on training examples, the path is scored on test examples.

Shapes: N runs, P prompt tokens, d width, T points of a path, E test examples, B bootstrap draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.groups import names_of
from promptgeo.analysis.mixtures import barrier
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.scoring import EvaluationSet, evaluation_sets
from promptgeo.analysis.training_loss import TorchLoss, minibatch_losses, token_losses
from promptgeo.errors import UserError
from promptgeo.evaluation import evaluate
from promptgeo.frozen_lm import FrozenLM
from promptgeo.row import Row
from promptgeo.run_table import RunTable
from promptgeo.run_task import task_of


def curve(start: Tensor, control: Tensor, end: Tensor, t_T: Tensor) -> Tensor:
    """[T, ...]: points of the quadratic Bezier curve."""
    t = t_T.reshape(-1, *[1] * start.ndim)
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def train_control(loss: TorchLoss, start: Tensor, end: Tensor, *, steps: int, lr: float, points: int = 4, seed: int = 0) -> Tensor:
    """The control point that Adam finds from the line's midpoint in `steps` steps, each on the mean loss at `points` random t.

    t is drawn once in each of `points` equal parts of [0, 1]. The start is jittered by 1 % of the distance between the ends: on a
    symmetric ridge the gradient is zero. lr: as Adam's, in the prompt's own units.
    """
    generator = torch.Generator().manual_seed(seed)
    middle = (start + end) / 2
    noise = torch.randn(middle.shape, generator=generator).to(middle)
    control = (middle + 0.01 * (end - start).norm() * noise / noise.norm()).detach().requires_grad_()
    optimizer = torch.optim.Adam([control], lr=lr)
    for _ in range(steps):
        t_T = (torch.arange(points) + torch.rand(points, generator=generator)) / points
        optimizer.zero_grad(set_to_none=True)
        loss(curve(start, control, end, t_T.to(middle))).mean().backward()
        optimizer.step()
    return control.detach()


def bezier(
    runs: RunTable,
    *,
    lm: FrozenLM,
    pairs: int = 1,
    least: float = 0.01,
    steps: int = 60,
    points: int = 11,
    lr: float = 0.01,
    batch_size: int = 16,
    chosen_on: int = 32,
    max_examples: int | None = 100,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, the `pairs` pairs of runs whose line's midpoint lies highest above the mean of its ends' losses, asked of
    `chosen_on` training examples. Where that is at least `least` nats a label token a path is trained (steps, lr, batch_size training
    examples a step), else the task is named and only its line is scored.

    Numbers, in nats a label token on test examples, mean over the task's pairs: `barrier.line.<task>`, `barrier.bezier.<task>` (max over
    `points` even t of the loss above the line between the ends' losses), `difference.barrier.<task>` = bezier - line. Table `paths`: a row
    per point. Intervals draw test examples, the same for both: they hold for this pair, chosen for its barrier, not for any pair.
    Raises UserError where no task has two trained prompts of one length, or for prompts that were trained elsewhere.
    """
    if points < 3 or steps < 1 or pairs < 1:
        raise UserError("bezier: needs points >= 3, steps >= 1 and pairs >= 1")
    result, sets_N = Result(), evaluation_sets(runs, "bezier", max_examples, seed)
    groups: dict[tuple[EvaluationSet, int], list[int]] = {}
    for n, evaluation_set in enumerate(sets_N):
        groups.setdefault((evaluation_set, len(runs.runs[n].prompt())), []).append(n)
    if not any(len(members) > 1 for members in groups.values()):
        raise UserError("bezier: no task has two or more trained prompts of the same length; train more seeds (-m seed=0,1,2,3)")
    rows = []
    for name, ((evaluation_set, length), members) in zip(names_of(runs, list(groups.values())), groups.items(), strict=True):
        if len(members) < 2:
            result.omissions.append(f"bezier: {name} has one trained prompt of length {length}; a path needs two.")
            continue
        prompts_VPd = torch.from_numpy(np.stack([runs.runs[n].prompt() for n in members])).to(lm.device)
        task = task_of(runs.runs[members[0]])
        train_rows = task.rows(lm, task.train, length)
        train = minibatch_losses(lm, train_rows, batch_size, np.random.default_rng(seed))
        chosen = _highest(lm, train_rows, prompts_VPd, chosen_on)[:pairs]
        high = [(a, b, above) for a, b, above in chosen if above >= least]
        if len(high) < len(chosen):
            rest = "no path was trained" if not high else f"paths were trained for {len(high)} of {len(chosen)} pairs"
            result.omissions.append(
                f"bezier: {name}: the line of {'the pair' if len(chosen) == 1 else 'a pair'} with the highest midpoint rises there by only {chosen[len(high)][2]:.4f} nats a token on training examples, "
                f"less than {least:g}: there is no barrier to go round, and {rest}."
            )
        paths = []
        for a, b, _ in high or chosen[:1]:
            start, end = prompts_VPd[a], prompts_VPd[b]
            control = train_control(train, start, end, steps=steps, lr=lr, seed=seed) if high else None
            paths.append(_scored(lm, evaluation_set, start, control, end, points))
            rows += _rows(name, members[a], members[b], paths[-1])
        _tell(result, name, evaluation_set, paths, len(members), draws, seed)
    result.tables["paths"] = pd.DataFrame(rows)
    result.figures["paths"] = _figure(result.tables["paths"])
    return result


@torch.no_grad()
def _highest(lm: FrozenLM, rows: Sequence[Row], prompts_VPd: Tensor, examples: int) -> list[tuple[int, int, float]]:
    """(a, b, how far the loss at the midpoint lies above the mean of the ends') of all pairs, highest first."""
    chosen = np.random.default_rng(0).choice(len(rows), min(examples, len(rows)), replace=False)
    pairs = list(combinations(range(len(prompts_VPd)), 2))
    middles = torch.stack([(prompts_VPd[a] + prompts_VPd[b]) / 2 for a, b in pairs])
    everything = torch.cat([prompts_VPd, middles])
    losses = torch.cat([token_losses(lm, [rows[i] for i in chosen], part) for part in everything.split(8)]).cpu().numpy()
    ends, middle = losses[: len(prompts_VPd)], losses[len(prompts_VPd) :]
    above = [(a, b, float(m - (ends[a] + ends[b]) / 2)) for (a, b), m in zip(pairs, middle, strict=True)]
    return sorted(above, key=lambda found: -found[2])


@dataclass(frozen=True)
class _Paths:
    """Two ways between two prompts, on test examples."""

    t_T: np.ndarray
    ways: dict[str, tuple[np.ndarray, np.ndarray]]
    """{way: (correct, losses), each [T, E]}."""
    tokens_E: np.ndarray

    def barriers(self, way: str, drawn_BE: np.ndarray) -> np.ndarray:
        """[B]: in each draw of examples."""
        return barrier((drawn_BE @ self.ways[way][1].T) / (drawn_BE @ self.tokens_E)[:, None], self.t_T)


def _scored(lm: FrozenLM, evaluation_set: EvaluationSet, start: Tensor, control: Tensor | None, end: Tensor, points: int) -> _Paths:
    t_T = np.linspace(0, 1, points)
    controls = {"line": (start + end) / 2} | ({} if control is None else {"bezier": control})
    prompts = [curve(start, middle, end, torch.from_numpy(t_T).to(start)) for middle in controls.values()]
    found = evaluate(lm, torch.cat(prompts), evaluation_set.task, max_new_tokens=evaluation_set.max_new_tokens)
    parts = {way: slice(k * points, (k + 1) * points) for k, way in enumerate(controls)}
    return _Paths(t_T, {way: (found.correct[part], found.losses[part]) for way, part in parts.items()}, found.tokens)


def _rows(name: str, start: int, end: int, paths: _Paths) -> list[dict]:
    return [
        {"task": name, "start": start, "end": end, "way": way, "t": t, "accuracy": correct_E.mean(), "loss": losses_E.sum() / paths.tokens_E.sum()}
        for way, (correct_TE, losses_TE) in paths.ways.items()
        for t, correct_E, losses_E in zip(paths.t_T, correct_TE, losses_TE, strict=True)
    ]


def _tell(result: Result, name: str, evaluation_set: EvaluationSet, paths: list[_Paths], runs: int, draws: int, seed: int) -> None:
    drawn_BE = np.random.default_rng(seed).multinomial(evaluation_set.n, np.full(evaluation_set.n, 1 / evaluation_set.n), size=draws).astype(np.float64)
    values, drawn = {}, {}
    for way in paths[0].ways:
        values[way] = float(np.mean([path.barriers(way, np.ones((1, evaluation_set.n)))[0] for path in paths]))
        drawn[way] = np.mean([path.barriers(way, drawn_BE) for path in paths], axis=0)
        result.number(f"barrier.{way}.{name}", values[way], evaluation_set.n, "test examples", *np.percentile(drawn[way], [2.5, 97.5]).tolist())
    low, high = np.percentile(drawn["line"], [2.5, 97.5]).tolist()
    pairs = f"{len(paths)} of {runs * (runs - 1) // 2} pairs, the highest on training examples, n = {evaluation_set.n} test examples"
    line = f"the straight line rises {values['line']:.3f} nats a token above its ends ({low:.3f} to {high:.3f})"
    if "bezier" not in values:
        result.findings.append(Finding(f"{name}: {line}, so there was nothing to go round ({pairs}).", values["line"], evaluation_set.n, "test examples", low, high))
        return
    difference, drawn_B = values["bezier"] - values["line"], drawn["bezier"] - drawn["line"]
    low, high = np.percentile(drawn_B, [2.5, 97.5]).tolist()
    result.number(f"difference.barrier.{name}", difference, evaluation_set.n, "test examples", low, high)
    meaning = "the trained path goes round the barrier" if high < 0 else "the trained path rises higher than the line" if low > 0 else "nothing shows that the trained path goes round it"
    sentence = f"{name}: {line}, a trained Bezier path {values['bezier']:.3f}: {difference:+.3f} ({low:+.3f} to {high:+.3f}), so {meaning} ({pairs})."
    result.findings.append(Finding(sentence, difference, evaluation_set.n, "test examples", low, high))


def _figure(table: pd.DataFrame) -> str:
    tasks = list(dict.fromkeys(table["task"]))
    columns = min(len(tasks), 2)
    with panels(-(-len(tasks) // columns), columns, height=2.4) as (figure, axes):
        for axis, task in zip(axes.flat, tasks, strict=False):
            for way, colour in (("line", COLOURS[2]), ("bezier", COLOURS[0])):
                for k, (_, rows) in enumerate(table[(table["task"] == task) & (table["way"] == way)].groupby(["start", "end"])):
                    axis.plot(rows["t"], rows["loss"], color=colour, marker="o", markersize=2.5, linewidth=1.2, label=way if k == 0 else None)
            axis.set(title=task, xlabel="t", ylabel="test loss, nats a token")
            axis.legend(fontsize=8)
        for axis in axes.flat[len(tasks) :]:
            axis.set_visible(False)
        return svg(figure)
