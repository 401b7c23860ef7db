"""What does a person see while runs train? How many are done, how fast, how long still."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from rich.progress import BarColumn, Progress

from promptgeo.config.terminal import column, console, warn
from promptgeo.evaluation.metrics import METRICS
from promptgeo.runs.folder import Trained
from promptgeo.training.callbacks import Callback
from promptgeo.training.plan import Plan
from promptgeo.training.run_state import RunState

EVERY = 30.0
"""Seconds between two lines where standard error is not a terminal."""

STEP, SCORED, WRITTEN = range(3)
"""Kinds of work: a step's forward and backward, scoring a prompt, scoring it with what the model writes."""


def work(kind: int = STEP, positions: float = 0.0) -> np.ndarray:
    """[3] float64: of each kind, positions of the frozen model's input, by which long and short examples compare."""
    amounts = np.zeros(3)
    amounts[kind] = positions
    return amounts


class Report(Protocol):
    """Where a Reporter's events go: to a SweepView, or through a queue to the process that has one."""

    def __call__(
        self, event: str, steps: int = 0, text: str = "", work: np.ndarray | float = 0.0, seconds: float = 0.0
    ) -> None: ...


def silent(event: str, steps: int = 0, text: str = "", work: np.ndarray | float = 0.0, seconds: float = 0.0) -> None:
    """A Report to nobody."""


class SweepView:
    """One bar for all runs of a command. Where standard error is not a terminal, a line every 30 seconds instead."""

    def __init__(self, runs: int, name: str = "", processes: int = 1):
        """runs: to train; name: shown where there is one run; processes: that train them side by side."""
        self.runs, self.processes = runs, processes
        self.steps = self.planned = 0
        self.at_most = False  # a run may stop early
        # By kind of work: positions that lie ahead, positions that were timed, and the seconds they took.
        self.ahead, self.timed, self.seconds = work(), work(), work()
        self.done = self.failed = self.active = self.made = self.resumed = 0
        self.text = name if runs == 1 else ""
        screen = console(stderr=True)
        self.live = screen.is_terminal
        columns = (
            column("{task.description}"),
            BarColumn(),
            column("{task.fields[state]}"),
        )
        self.bar = Progress(*columns, console=screen, disable=not self.live)
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> "SweepView":
        self.bar.start()
        self.task = self.bar.add_task(self._runs(), total=None, state=self.text)
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def report(
        self, event: str, steps: int = 0, text: str = "", work: np.ndarray | float = 0.0, seconds: float = 0.0
    ) -> None:
        """Count an event, and show what changed.

        event: planned (a run; steps: to make), started (steps: made by an earlier process), stepped, ended or failed
        (steps: that are now behind), evaluated. text: shown where there is one run; of a planned one, that it may stop
        early. work [3]: what lies ahead
        (planned), was timed (evaluated) or is now behind (all others). seconds: that it took (stepped, evaluated).
        """
        if event == "planned":
            self.at_most = self.at_most or bool(text)
            self.steps += steps
            self.planned += 1
            self.ahead = self.ahead + work
        elif event == "evaluated":
            self._time(work, seconds)
        else:
            self.made += steps
            self.ahead = self.ahead - work
            if event == "stepped":
                self._time(work * (np.arange(3) == STEP), seconds)
        self.text = self.text if event == "planned" else text or self.text
        if event == "started":
            self.active += 1
            self.resumed += steps
        elif event in ("ended", "failed"):
            self.active -= 1
            self.done += event == "ended"
            self.failed += event == "failed"
        if self.live:
            runs, state = self._runs(), self._state()
            self.bar.update(self.task, total=self.steps, completed=self.made, description=runs, state=state)
        elif time.monotonic() - self.printed > EVERY:
            self.printed = time.monotonic()
            warn(f"{self._runs()}  {self._state()}".rstrip())

    def _time(self, timed: np.ndarray | float, seconds: float) -> None:
        self.timed = self.timed + timed
        self.seconds = self.seconds + seconds * (timed > work())

    @property
    def seconds_left(self) -> float | None:
        """Of the planned runs, evaluations counted; None until every kind of work that lies ahead was timed once."""
        ahead = np.maximum(self.ahead, 0)
        if not self.planned or (self.timed[ahead > 0] == 0).any():
            return None
        rates = np.divide(self.seconds, self.timed, out=work(), where=self.timed > 0)
        return float(ahead @ rates) / self.processes

    def _runs(self) -> str:
        if self.runs == 1:
            return "training"
        waiting = self.runs - self.done - self.failed - self.active
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done}/{self.runs} runs done, {self.active} active, {waiting} waiting{failed}"

    def _state(self) -> str:
        """How fast and how long still, as far as that is known."""
        said = []
        if made := self.made - self.resumed:
            said.append(f"{made / max(time.monotonic() - self.started, 1e-9):.1f} run-steps/s")
        if self.text and self.runs == 1:
            said.append(self.text)
        if (seconds := self.seconds_left) is not None:
            unplanned = self.planned < self.runs
            most = "at most " if self.at_most else ""
            said.append(
                f"{most}{_duration(seconds)} left" + (f" for {self.planned} of {self.runs} runs" if unplanned else "")
            )
        return "  ".join(said)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


class Workload:
    """How much work lies ahead of each run of a pack?"""

    def __init__(self, plans: Sequence[Plan]):
        self._positions: dict[tuple, int] = {}
        self._per_epoch = {id(p.train_rows): sum(row.length for row in p.train_rows) for p in _distinct(plans)}
        # No prompt is scored once for all runs of a test split, and P0 once for all runs that begin with it.
        self._share_none = Counter(_split_of(p) for p in plans)
        self._share_p0 = Counter((_split_of(p), p.make_p0) for p in plans)

    def positions(self, p: Plan, split: str) -> int:
        """Of all examples of the split."""
        key = id(p.task), split, p.prompt_length
        if key not in self._positions:
            rows = p.task.rows(p.lm, getattr(p.task, split), p.prompt_length)
            self._positions[key] = sum(row.length for row in rows)
        return self._positions[key]

    def ahead(self, p: Plan, step: int = 0, resumed: bool = False) -> np.ndarray:
        """[3]: from after `step` to the run's end. resumed: what P0 writes must be seen again."""
        size, total = p.steps_per_epoch, p.total_steps
        per_epoch = self._per_epoch[id(p.train_rows)]
        apart = size * p.config.evaluation.validation_epochs
        evaluations = total // apart - step // apart + (total % apart > 0 and step < total)  # each at an epoch's end
        watched = self.positions(p, "validation") if p.task.validation and p.split != "validation" else 0
        tested = self.positions(p, p.split)
        scored = evaluations * watched
        if p.split == "validation" or p.config.evaluation.scores_curve:
            scored += max(evaluations - 1, 0) * tested
        written = tested * ((evaluations > 0) + bool(p.task.validation) + 1 / self._share_none[_split_of(p)])
        if step == 0:
            scored += watched
            written += tested / self._share_p0[_split_of(p), p.make_p0]
        elif resumed:
            written += tested
        return np.array([(total - step) * per_epoch / size, scored, written])


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    """One plan for each list of training rows."""
    return list({id(p.train_rows): p for p in plans}.values())


def _split_of(p: Plan) -> tuple:
    return id(p.task), p.split, p.config.evaluation.max_new_tokens


class Reporter(Callback):
    """Reports what happens to the runs of a pack."""

    def __init__(self, report: Report, plans: Sequence[Plan]):
        self.report = report
        self.workload = Workload(plans)
        self.ahead = {p.id: self.workload.ahead(p) for p in plans}
        self.resumed: set[str] = set()
        self.mark = time.monotonic()

    def begun(self, save: Callable[[], None]) -> None:
        self.mark = time.monotonic()

    def started(self, state: RunState) -> None:
        if state.step:
            self.resumed.add(state.plan.id)
        self.report("started", state.step, work=self._behind(state))

    def evaluated(self, states: Sequence[RunState], prompts: int, split: str, outputs: bool, seconds: float) -> None:
        positions = prompts * self.workload.positions(states[0].plan, split)
        self.mark += seconds  # what is left until a step is reported is the step's
        self.report("evaluated", work=work(WRITTEN if outputs else SCORED, positions), seconds=seconds)

    def _behind(self, state: RunState, over: bool = False) -> np.ndarray:
        """[3]: what is done since the run was last reported."""
        plan = state.plan
        ahead = work() if over else self.workload.ahead(plan, state.step, plan.id in self.resumed)
        before, self.ahead[plan.id] = self.ahead[plan.id], ahead
        return before - ahead

    def stepped(self, state: RunState) -> None:
        total = -(-state.plan.total_steps // state.plan.steps_per_epoch)
        # An epoch ends with one row for each of train, validation and test.
        rows = [row for row in state.metrics[-3:] if row["step"] == state.step]
        shown = "  ".join(f"{row['split']} {_measured(row)}" for row in rows)
        now = time.monotonic()
        seconds, self.mark = now - self.mark, now
        text = f"epoch {state.epoch}/{total}  {shown}" if rows else ""
        self.report("stepped", 1, text, self._behind(state), seconds)

    def ended(self, state: RunState, trained: Trained) -> None:
        # A run that ends early leaves no steps to make.
        self.report("ended", state.plan.total_steps - state.step, work=self._behind(state, over=True))

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        self.report("failed", state.plan.total_steps - state.step, work=self._behind(state, over=True))


def _measured(row: dict) -> str:
    return " ".join(f"{m.short} {row[m.name]:.3f}" for m in METRICS if m.short and row[m.name] is not None)
