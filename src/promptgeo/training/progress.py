"""What does a person see while runs train? How many are done, how fast, how long still."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from promptgeo.evaluation.metrics import METRICS
from promptgeo.runs.folder import Trained
from promptgeo.training.callbacks import Callback
from promptgeo.training.run_state import RunState

EVERY = 30.0
"""Seconds between two lines where standard error is not a terminal."""


class Report(Protocol):
    """Where a Reporter's events go: to a SweepView, or through a queue to the process that has one."""

    def __call__(self, event: str, steps: int = 0, text: str = "") -> None: ...


def silent(event: str, steps: int = 0, text: str = "") -> None:
    """A Report to nobody."""


class SweepView:
    """One bar for all runs of a command. Where standard error is not a terminal, a line every 30 seconds instead."""

    def __init__(self, runs: int, name: str = ""):
        """runs: to train; name: shown where there is one run."""
        self.runs, self.steps = runs, 0
        self.done = self.failed = self.active = self.made = self.resumed = 0
        self.text = name if runs == 1 else ""
        console = Console(stderr=True)
        self.live = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, disable=not self.live)
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> "SweepView":
        self.bar.start()
        self.task = self.bar.add_task(self._runs(), total=None, state=self.text)
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def report(self, event: str, steps: int = 0, text: str = "") -> None:
        """Count an event, and show what changed.

        event: planned (steps: to make), started (steps: made by an earlier process), stepped, ended or failed (steps:
        that are now behind). text: shown where there is one run.
        """
        if event == "planned":
            self.steps += steps
        else:
            self.made += steps
        self.text = text or self.text
        if event == "started":
            self.active += 1
            self.resumed += steps
        elif event in ("ended", "failed"):
            self.active -= 1
            self.done += event == "ended"
            self.failed += event == "failed"
        if self.live:
            runs, rate = self._runs(), self._rate()
            self.bar.update(self.task, total=self.steps, completed=self.made, description=runs, state=rate)
        elif time.monotonic() - self.printed > EVERY:
            self.printed = time.monotonic()
            left = (self.steps - self.made) / max(self._per_second(), 1e-9)
            print(f"{self._runs()}  {self._rate()}  {left / 60:.1f} min left", file=sys.stderr, flush=True)

    def _runs(self) -> str:
        if self.runs == 1:
            return "training"
        waiting = self.runs - self.done - self.failed - self.active
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done}/{self.runs} runs done, {self.active} active, {waiting} waiting{failed}"

    def _per_second(self) -> float:
        return (self.made - self.resumed) / max(time.monotonic() - self.started, 1e-9)

    def _rate(self) -> str:
        return f"{self._per_second():.1f} run-steps/s" + (f"  {self.text}" if self.text and self.runs == 1 else "")


class Reporter(Callback):
    """Reports what happens to the runs of a pack."""

    def __init__(self, report: Report):
        self.report = report

    def started(self, state: RunState) -> None:
        self.report("started", state.step)

    def stepped(self, state: RunState) -> None:
        total = -(-state.plan.total_steps // state.plan.steps_per_epoch)
        # An epoch ends with one row for each of train, validation and test.
        rows = [row for row in state.metrics[-3:] if row["step"] == state.step]
        shown = "  ".join(f"{row['split']} {_measured(row)}" for row in rows)
        self.report("stepped", 1, f"epoch {state.epoch}/{total}  {shown}" if rows else "")

    def ended(self, state: RunState, trained: Trained) -> None:
        self.report("ended", state.plan.total_steps - state.step)  # a run that ends early leaves no steps to make

    def failed(self, state: RunState, trained: Trained, error: Exception) -> None:
        self.report("failed", state.plan.total_steps - state.step)


def _measured(row: dict) -> str:
    return " ".join(f"{m.short} {row[m.name]:.3f}" for m in METRICS if m.short and row[m.name] is not None)
