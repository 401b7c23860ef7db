"""grid.halving: which learning rates go on at a rung, and which are stopped?

Successive halving (Jamieson and Talwalkar 2016; eta of Li et al. 2018, "Hyperband", is grid.halving). Rates compete
where their runs are alike in all else; a rate is judged by its mean validation loss over seeds, so that all seeds of a
rate go on or none. Of equal losses the lower rate goes on.

- A rate of which a run failed, diverged or was stopped is left behind first.
- A rate of which a run is complete already, or already past the rung without a score there, goes on and takes no place.

Who is left behind does not depend on who of them is on disk as `stopped` already: those that go on are the best of all
and the best of what is left. So a command that was killed in the middle of a rung decides the same.
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptgeo.training.cell import Cell, Rivals, rate_of
from promptgeo.training.rungs import rungs_of

if TYPE_CHECKING:
    from promptgeo.training.run_state import RunState

LOST = ("failed", "diverged", "stopped")
"""Statuses of runs whose rate is left behind first."""


class Halving:
    """The groups of rivals in a pack. It is told of every run that starts and ends."""

    def __init__(self, cells: Sequence[Cell]):
        """cells: of the pack; what else is in a group has a run folder, or is trained by nobody."""
        self._here = {cell.id for cell in cells}
        self._groups = {cell.rivals.name: cell.rivals for cell in cells if cell.rivals is not None}
        self._states: dict[str, RunState] = {}
        """Of runs that train or wait at a rung."""
        self._ended: dict[str, str] = {}
        """id -> status."""
        for rivals in self._groups.values():
            for cell in rivals.cells:
                if cell.id not in self._here and (status := _status(cell)) is not None:
                    self._ended[cell.id] = status

    def started(self, state: "RunState") -> None:
        if state.plan.cell.rivals is not None:
            self._states[state.plan.id] = state

    def ended(self, state: "RunState") -> None:
        if self._states.pop(state.plan.id, None) is not None and state.status is not None:
            self._ended[state.plan.id] = state.status

    def at_rung(self, state: "RunState") -> bool:
        """Whether the run has to wait here until rates are compared."""
        rivals = state.plan.cell.rivals
        return rivals is not None and state.status is None and state.step in rungs_of(rivals, state.plan.total_steps)

    def decided(self, waiting: Sequence["RunState"]) -> tuple[list["RunState"], list["RunState"]]:
        """Of runs that wait at a rung: (those that go on, those that are stopped). Others have to wait longer."""
        go_on: list[RunState] = []
        stopped: list[RunState] = []
        by_group: dict[str, list[RunState]] = {}
        for state in waiting:
            if state.plan.cell.rivals is not None:
                by_group.setdefault(state.plan.cell.rivals.name, []).append(state)
        for name, group in by_group.items():
            step = min(state.step for state in group)
            if all(self._passed(cell, step) for cell in self._groups[name].cells):
                kept = self._kept(self._groups[name], step, group[0].plan.total_steps)
                for state in group:
                    if state.step == step:
                        (go_on if rate_of(state.plan.cell) in kept else stopped).append(state)
        return go_on, stopped

    def _passed(self, cell: Cell, step: int) -> bool:
        """Whether nothing that this run still does could change a decision at this step."""
        state = self._states.get(cell.id)
        return state.step >= step if state is not None else cell.id in self._ended or cell.id not in self._here

    def _kept(self, rivals: Rivals, step: int, total_steps: int) -> set[tuple[float, float]]:
        by_rate: dict[tuple[float, float], list[Cell]] = {rate: [] for rate in rivals.rates}
        for cell in rivals.cells:
            by_rate[rate_of(cell)].append(cell)
        kept, candidates = set(), []
        for rate, cells in by_rate.items():
            states = [self._states[cell.id] for cell in cells if cell.id in self._states]
            statuses = {self._ended.get(cell.id) for cell in cells}
            if statuses & set(LOST):
                continue
            if "completed" in statuses or any(step not in state.rung_losses for state in states):
                kept.add(rate)
            else:
                loss = float(np.mean([state.rung_losses[step] for state in states])) if states else math.inf
                candidates.append((loss if math.isfinite(loss) else math.inf, rate))
        places = rungs_of(rivals, total_steps)[step]
        return kept | {rate for _, rate in sorted(candidates)[:places]}


def _status(cell: Cell) -> str | None:
    """Of a run that lies on disk: it is complete, or was stopped, before this pack trains. None: no such run."""
    try:
        info = json.loads((cell.folder / "run.json").read_text(encoding="utf-8"))
        return str(info["status"]) if info["id"] == cell.id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
