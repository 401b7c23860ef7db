"""At which steps does grid.halving compare learning rates, and how many of them go on?"""

from collections.abc import Iterable

from promptgeo.errors import UserError
from promptgeo.training.cell import Cell, Rivals


def rungs(rates: int, factor: int, total_steps: int) -> dict[int, int]:
    """The steps at which rates are compared -> how many of them go on.

    9 rates, factor 3, T steps: {T/9: 3, T/3: 1}. Steps are rounded down.
    """
    count = 0
    while factor ** (count + 1) <= rates:
        count += 1
    return {total_steps // factor ** (count - r): rates // factor ** (r + 1) for r in range(count)}


def rungs_of(rivals: Rivals, total_steps: int) -> dict[int, int]:
    """Of a group of rivals, whose runs have so many steps."""
    return rungs(len(rivals.rates), rivals.cells[0].config.grid.halving or 1, total_steps)


def check_steps(cell: Cell, total_steps: int) -> None:
    """Raises UserError for a training that is too short for its rungs."""
    if cell.rivals is None:
        return
    rates, factor = len(cell.rivals.rates), cell.config.grid.halving or 1
    first = factor ** len(rungs(rates, factor, 10**9))
    if total_steps < first:
        raise UserError(
            f"grid.halving={factor}: {rates} learning rates are compared first after 1/{first} of the steps, and "
            f"task {cell.config.task.name} has {total_steps}; set training.max_steps={first} or more"
        )


def announced(cells: Iterable[tuple[Cell, int]]) -> list[str]:
    """What will be decided, a line for each kind of group. cells: each with its steps, T."""
    groups = {cell.rivals.name: (cell.rivals, steps) for cell, steps in cells if cell.rivals is not None}
    lines: dict[str, int] = {}
    for rivals, total in groups.values():
        kept = ", ".join(f"{n} after step {step}" for step, n in rungs_of(rivals, total).items())
        seeds = len({cell.config.seed for cell in rivals.cells})
        of_seeds = f"the mean over {seeds} seeds of the validation loss" if seeds > 1 else "the validation loss"
        line = f"of {len(rivals.rates)} learning rates go on: {kept}, of {total}; {of_seeds} decides"
        lines[line] = lines.get(line, 0) + 1
    return [f"grid.halving: {line}" + (f" ({n} times)" if n > 1 else "") for line, n in lines.items()]
