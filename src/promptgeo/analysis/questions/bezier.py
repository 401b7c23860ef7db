"""Where the straight line between two trained prompts has a barrier: is there a curved path without one?

Mode connectivity (Garipov et al. 2018): a quadratic Bezier curve (1-t)^2 A + 2t(1-t) C + t^2 B, whose control point C
is trained on losses at random t. The pair and C are chosen on training examples, the path is scored on test examples.

Shapes: N runs of a task, P prompt tokens, d width, T points of a path, E test examples, B bootstrap draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from promptgeo.analysis.deciding import decided
from promptgeo.analysis.figures import COLOURS, small_multiples, svg
from promptgeo.analysis.geometry.mixtures import barrier
from promptgeo.analysis.geometry.remaining_barrier import LARGEST, Remaining, highest_interval
from promptgeo.analysis.geometry.subspaces import TorchLoss
from promptgeo.analysis.groups import TaskRuns, by_task, two_or_more
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import STILL, t_interval
from promptgeo.analysis.result import Finding, Number, Outcome, Result
from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.analysis.training_loss import minibatch_losses, token_losses
from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

PART = 8
"""Prompts in one forward over training examples, for memory."""


def curve(start: Tensor, control: Tensor, end: Tensor, t_T: Tensor) -> Tensor:
    """[T, ...]: points of the quadratic Bezier curve."""
    t = t_T.reshape(-1, *[1] * start.ndim)
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def train_control(
    loss: TorchLoss, start: Tensor, end: Tensor, *, steps: int, lr: float, points: int = 4, seed: int = 0
) -> list[Tensor]:
    """The control points that Adam finds from the line's midpoint, on mean losses at random points of the curve.

    After each of the steps, the last one last.

    Args:
        loss: of points of any shape, that of start and end.
        steps: of Adam.
        lr: of Adam, in the prompt's own units.
        points: of a step; one t is drawn in each of so many equal parts of [0, 1].
        seed: of t and of the start, which is moved by 1 % of the distance between the ends: on a symmetric ridge the
            gradient is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    middle = (start + end) / 2
    noise = torch.randn(middle.shape, generator=generator).to(middle)
    control = (middle + 0.01 * (end - start).norm() * noise / noise.norm()).detach().requires_grad_()
    optimizer = torch.optim.Adam([control], lr=lr)
    controls = []
    for _ in range(steps):
        t_T = (torch.arange(points) + torch.rand(points, generator=generator)) / points
        optimizer.zero_grad(set_to_none=True)
        loss(curve(start, control, end, t_T.to(middle))).mean().backward()
        optimizer.step()
        controls.append(control.detach().clone())
    return controls


@torch.no_grad()
def falls(loss: TorchLoss, start: Tensor, end: Tensor, controls: Sequence[Tensor], points: int = 9) -> float:
    """The share of the fall of the curve's mean loss, from the line on, that is in the last quarter of the steps.

    0 where it does not fall there; 1 where it does not fall at all: nothing was found yet. loss: of fixed examples.
    """
    t_T = (torch.arange(points) + 0.5).to(start) / points
    at = [(start + end) / 2, controls[len(controls) * 3 // 4 - 1 if len(controls) > 1 else 0], controls[-1]]
    line, earlier, last = (float(loss(curve(start, control, end, t_T)).mean()) for control in at)
    if len(controls) == 1 or line <= last:
        return 1.0
    return min(max((earlier - last) / (line - last), 0.0), 1.0)


@question(lm=True, factors=("prompt_length",))
def bezier(
    runs: RunTable,
    *,
    lm: LM,
    pairs: int = 1,
    least: float = 0.01,
    round_below: float = 0.1,
    still: float = 0.1,
    steps: int = 60,
    points: int = 11,
    lr: float | None = None,
    lr_in_embedding_units: float = 0.15,
    batch_size: int = 16,
    chosen_on: int = 32,
    max_examples: int | None = 100,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length, paths between the pairs of runs whose straight lines rise highest at their midpoints.

    Numbers, in nats a label token on test examples, mean over the task's pairs: `midpoint.line.<task>`, how far the
    line's midpoint rises above the mean of the ends; `barrier.line.<task>`, `barrier.bezier.<task>` (max over even t of
    the loss above the line between the ends' losses); `difference.barrier.<task>` = bezier - line. `remains.<task>`:
    the share of the line's barrier that is left on the path, of several pairs the largest (remaining_barrier.py);
    `falls.<task>`, the share of the training loss's fall that is in the last quarter of the steps. Table `paths`: a
    row per point. Intervals draw test examples, the same for both: they hold for this pair, chosen for its barrier,
    not for any pair. Of 30 examples nearly all of which are solved, they hold 88 to 90 % of truths: the rare large
    losses may all be missing.

    The path goes round the barrier where no more than `round_below` of it remains; it does not where more does and the
    training loss no longer falls. A path that goes round is one, whether or not it could still fall.

    Args:
        pairs: of a task, those whose midpoint's loss lies highest above the mean of its ends' losses.
        least: nats a label token; no path is trained where the midpoint rises less, and only the line is scored.
        round_below: share of the barrier up to which a path goes round it.
        still: share of the fall in the last quarter of the steps up to which a path is trained.
        steps, batch_size: of the path's training, with Adam on training examples.
        lr: its learning rate; null: lr_in_embedding_units, times the standard deviation of the model's embeddings.
        points: of a path that are scored, evenly over t, ends included.
        chosen_on: training examples that the pairs are chosen on.
        max_examples: test examples of a task; null: all.
        draws: of test examples.
        seed: of all that is drawn.

    Raises UserError where no task has two trained prompts of one length, or for prompts that were trained elsewhere.
    """
    # Long because all its numbers and options are named here.
    if points < 3 or not points % 2 or steps < 1 or pairs < 1:
        raise UserError("bezier: needs odd points >= 3, for the midpoint is one, steps >= 1 and pairs >= 1")
    rate = lr_in_embedding_units * lm.embedding_scale if lr is None else lr
    result = Result()
    rows: list[dict[str, Any]] = []
    tasks, result.omissions = two_or_more(by_task(runs, "bezier", max_examples, seed), "bezier", "a path needs two")
    for task in tasks:
        prompts_NPd = torch.from_numpy(task.prompts()).to(lm.device)
        train_rows = task.evaluation_set.task.rows(lm, task.evaluation_set.task.train, task.length)
        chosen = highest_pairs(lm, train_rows, prompts_NPd, chosen_on)[:pairs]
        high = [pair for pair in chosen if pair.above >= least]
        if len(high) < len(chosen):
            result.omissions.append(_no_barrier(task.name, chosen, len(high), least))
        loss = minibatch_losses(lm, train_rows, batch_size, np.random.default_rng(seed))
        fixed = fixed_losses(lm, train_rows, chosen_on)
        paths, falling = [], []
        for pair in high or chosen[:1]:
            start, end = prompts_NPd[pair.start], prompts_NPd[pair.end]
            control = None
            if high:
                controls = train_control(loss, start, end, steps=steps, lr=rate, seed=seed)
                falling.append(falls(fixed, start, end, controls))
                control = controls[-1]
            paths.append(_scored(lm, task.evaluation_set, start, control, end, points))
            rows += _rows(task, pair, paths[-1])
        straight = _barrier_number(result, task, paths, "line", draws, seed)
        line = _report_line(result, task, paths, draws, seed)
        if high:
            _report_path(result, task, paths, straight, line, max(falling), (round_below, still), draws, seed)
    result.tables["paths"] = pd.DataFrame(rows)
    result.figures["paths"] = _figure(result.tables["paths"])
    return result


# Which pairs.


@dataclass(frozen=True)
class Pair:
    """Two prompts of a task, by their numbers among its prompts."""

    start: int
    end: int
    above: float
    """How far the loss at the midpoint lies above the mean of the ends', in nats a label token."""


def fixed_losses(lm: LM, rows: Sequence[Row], examples: int) -> TorchLoss:
    """The mean loss of prompts on so many of the rows, always the same."""
    chosen = np.random.default_rng(0).choice(len(rows), min(examples, len(rows)), replace=False)
    some = [rows[i] for i in chosen]
    return lambda prompts: torch.cat([token_losses(lm, some, part) for part in prompts.split(PART)])


@torch.no_grad()
def highest_pairs(lm: LM, rows: Sequence[Row], prompts_NPd: Tensor, examples: int) -> list[Pair]:
    """All pairs, the highest midpoint first, on so many of the rows."""
    pairs = list(combinations(range(len(prompts_NPd)), 2))
    middles = torch.stack([(prompts_NPd[a] + prompts_NPd[b]) / 2 for a, b in pairs])
    everything = torch.cat([prompts_NPd, middles])
    losses = fixed_losses(lm, rows, examples)(everything).cpu().numpy()
    ends, middle = losses[: len(prompts_NPd)], losses[len(prompts_NPd) :]
    above = [Pair(a, b, float(m - (ends[a] + ends[b]) / 2)) for (a, b), m in zip(pairs, middle, strict=True)]
    return sorted(above, key=lambda pair: -pair.above)


def _no_barrier(task: str, chosen: Sequence[Pair], trained: int, least: float) -> str:
    rest = f"paths were trained for {trained} of {len(chosen)} pairs" if trained else "no path was trained"
    return (
        f"bezier: {task}: the line of {'the pair' if len(chosen) == 1 else 'a pair'} with the highest midpoint rises "
        f"there by only {chosen[trained].above:.4f} nats a token on training examples, less than {least:g}: there is "
        f"no barrier to go round, and {rest}."
    )


# What the paths score.


@dataclass(frozen=True)
class _Paths:
    """The line and perhaps a curve between two prompts, on test examples."""

    t_T: np.ndarray
    ways: dict[str, tuple[np.ndarray, np.ndarray]]
    """{way: (correct, losses), each [T, E]}."""
    tokens_E: np.ndarray

    def barrier(self, way: str) -> float:
        """The highest rise of the loss above the line between the ends'."""
        return float(barrier(self.ways[way][1].sum(1) / self.tokens_E.sum(), self.t_T))

    @property
    def share(self) -> float:
        """The curve's barrier over the line's, at most LARGEST."""
        return min(self.barrier("bezier") / max(self.barrier("line"), STILL), LARGEST)

    def remaining(self, way: str, draws: int, seed: int) -> Remaining:
        """Its rises beside the line's."""
        return Remaining.of(self.ways[way][1], self.ways["line"][1], self.tokens_E, self.t_T, draws, seed)


def _scored(
    lm: LM, evaluation_set: EvaluationSet, start: Tensor, control: Tensor | None, end: Tensor, points: int
) -> _Paths:
    t_T = np.linspace(0, 1, points)
    controls = {"line": (start + end) / 2} | ({} if control is None else {"bezier": control})
    prompts = [curve(start, middle, end, torch.from_numpy(t_T).to(start)) for middle in controls.values()]
    scored = evaluation_set.evaluate(lm, torch.cat(prompts))
    parts = {way: slice(k * points, (k + 1) * points) for k, way in enumerate(controls)}
    return _Paths(t_T, {way: (scored.correct[part], scored.losses[part]) for way, part in parts.items()}, scored.tokens)


def _rows(task: TaskRuns, pair: Pair, paths: _Paths) -> list[dict[str, Any]]:
    ends = {"task": task.name, "start": task.members[pair.start], "end": task.members[pair.end]}
    return [
        ends | {"way": way, "t": t, "accuracy": correct_E.mean(), "loss": losses_E.sum() / paths.tokens_E.sum()}
        for way, (correct_TE, losses_TE) in paths.ways.items()
        for t, correct_E, losses_E in zip(paths.t_T, correct_TE, losses_TE, strict=True)
    ]


def _report_line(result: Result, task: TaskRuns, paths: Sequence[_Paths], draws: int, seed: int) -> Number:
    """The line's rise at the midpoint, for which the pairs were chosen."""
    n = task.evaluation_set.n
    remaining = [path.remaining("line", draws, seed) for path in paths]
    rise_B = np.mean([each.line_BT[:, each.line_BT.shape[1] // 2] for each in remaining], axis=0)
    interval = t_interval(rise_B[0], rise_B[1:], n) if n > 1 else (-np.inf, np.inf)
    line = result.number(f"midpoint.line.{task.name}", rise_B[0], n, "test examples", *interval)
    if "bezier" not in paths[0].ways:
        sentence = f"{task.name}: {_rises(line)}, so there was nothing to go round ({_pairs(task, paths)})."
        result.findings.append(Finding.of(line, sentence))
    return line


def _barrier_number(result: Result, task: TaskRuns, paths: Sequence[_Paths], way: str, draws: int, seed: int) -> Number:
    """Number barrier.<way>, mean over the paths, and so its interval."""
    n = task.evaluation_set.n
    value = float(np.mean([path.barrier(way) for path in paths]))
    ends = [highest_interval(path.remaining(way, draws, seed).path_BT, n) for path in paths]
    low, high = np.mean(ends, axis=0).tolist() if n > 1 else (0.0, np.inf)
    return result.number(f"barrier.{way}.{task.name}", value, n, "test examples", low, high)


def _report_path(
    result: Result,
    task: TaskRuns,
    paths: Sequence[_Paths],
    straight: Number,
    line: Number,
    falling: float,
    limits: tuple[float, float],
    draws: int,
    seed: int,
) -> None:
    """How much of the barrier remains on the trained paths.

    straight, line: barrier.line and midpoint.line. limits: round_below and still.
    """
    n = task.evaluation_set.n
    curved = _barrier_number(result, task, paths, "bezier", draws, seed)
    less = curved.value - straight.value
    (low, high), (least, most) = curved.interval, straight.interval
    # Of a difference of two, from the interval of each (Newcombe 1998, without his bounds).
    low, high = (
        less - np.hypot(curved.value - low, most - straight.value),
        less + np.hypot(high - curved.value, straight.value - least),
    )
    result.number(f"difference.barrier.{task.name}", less, n, "test examples", low, high)
    result.number(f"falls.{task.name}", falling, len(paths), "pairs")
    share = max(path.share for path in paths)
    bounds = [path.remaining("bezier", draws, seed).interval(len(paths)) for path in paths]
    low, high = (max(each) for each in zip(*bounds, strict=True))
    low, high = min(low, share), max(high, share)
    remains = result.number(f"remains.{task.name}", share, n, "test examples", low, high)
    sentence = (
        f"{task.name}: {_rises(line)}; on a trained Bezier path {share:.0%} ({low:.0%} to {high:.0%}) of the barrier "
        f"remains, {_meaning(line, remains, falling, *limits)} ({_pairs(task, paths)})."
    )
    result.findings.append(Finding.of(remains, sentence))


def _meaning(line: Number, remains: Number, falling: float, round_below: float, still: float) -> str:
    """Whether the path goes round the barrier, does not, or these runs cannot say."""
    if line.interval[0] <= 0:
        return "but test examples do not show the barrier, so whether it goes round is not decidable"
    goes = decided("path_goes_round", remains.interval, "", threshold=round_below, below=True)
    least = f"{round_below:.0%}"
    if goes.holds:
        return f"so it goes round the barrier: less than {least} remains"
    if falling > still:
        return (
            f"but its loss still falls ({falling:.0%} of its fall is in the last quarter of the steps), so whether a "
            "path goes round is not decidable: train it longer"
        )
    if goes.outcome is Outcome.fails:
        return f"so it does not go round the barrier: more than {least} remains"
    return f"so whether it goes round, with less than {least}, is not decidable: more test examples"


def _rises(line: Number) -> str:
    low, high = line.interval
    return f"the straight line's midpoint rises {line.value:.3f} nats a token above its ends ({low:.3f} to {high:.3f})"


def _pairs(task: TaskRuns, paths: Sequence[_Paths]) -> str:
    runs = len(task.members)
    count = f"{len(paths)} of {runs * (runs - 1) // 2} pairs"
    return f"{count}, the highest on training examples, n = {task.evaluation_set.n} test examples"


def _figure(table: pd.DataFrame) -> str:
    """A panel per task, the paths of every pair."""
    tasks = list(dict.fromkeys(table["task"]))
    ways = (("line", "straight line", COLOURS[2]), ("bezier", "Bézier curve", COLOURS[0]))
    x, y = "t along the path (0 and 1: the two trained prompts)", "test loss, nats a token"
    with small_multiples(len(tasks), x=x, y=y, height=2.4) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            for way, name, colour in ways:
                of_way = table[(table["task"] == task) & (table["way"] == way)]
                for k, (_, rows) in enumerate(of_way.groupby(["start", "end"])):
                    style = {"color": colour, "marker": "o", "markersize": 2.5, "linewidth": 1.2}
                    axis.plot(rows["t"], rows["loss"], label=name if k == 0 else None, **style)
            axis.set(title=task)
            axis.legend(fontsize=8)
        return svg(figure, "Test loss along paths between two trained prompts of a task, a line per pair")
