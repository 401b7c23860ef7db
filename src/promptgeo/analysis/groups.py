"""Which runs have the same task and prompt length, what are they called, and which of them count?

Shapes: N runs of a group, P prompt tokens, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.scoring import EvaluationSet, evaluation_sets
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable


@dataclass(frozen=True, eq=False)
class TaskRuns:
    """The runs of one task (and template) and prompt length."""

    name: str
    evaluation_set: EvaluationSet
    length: int
    """Prompt tokens."""
    members: list[int]
    """Numbers of the runs in their table."""
    runs: list[Run]

    def prompts(self) -> np.ndarray:
        """[N, P, d] float32, as trained."""
        return np.stack([run.prompt() for run in self.runs])

    def initial(self) -> np.ndarray | None:
        """[N, P, d] float32, the P0s; None where a run has none."""
        if not all("initial" in run.tensors for run in self.runs):
            return None
        return np.stack([run.prompt("initial") for run in self.runs])

    def only(self, members: Sequence[int]) -> "TaskRuns":
        """These runs of the group, in this order."""
        by_number = dict(zip(self.members, self.runs, strict=True))
        runs = [by_number[n] for n in members]
        return TaskRuns(self.name, self.evaluation_set, self.length, list(members), runs)


def by_task(
    runs: RunTable,
    what: str,
    max_examples: int | None = None,
    seed: int = 0,
    among: Sequence[int] | None = None,
) -> list[TaskRuns]:
    """Runs by task, template and prompt length, in order of appearance; each with the test examples of its task.

    what: the question, for messages. max_examples, seed: as for evaluation_sets. among: only these runs; None: all.
    Raises UserError for prompts that were trained elsewhere, or where a run's data have changed.
    """
    sets_N = evaluation_sets(runs, what, max_examples, seed)
    trained = runs.runs or []  # evaluation_sets has refused a table without
    groups: dict[tuple[EvaluationSet, int], list[int]] = {}
    for n in range(len(trained)) if among is None else among:
        groups.setdefault((sets_N[n], len(trained[n].prompt())), []).append(n)
    names = names_of(runs, list(groups.values()))
    return [
        TaskRuns(name, evaluation_set, length, members, [trained[n] for n in members])
        for name, ((evaluation_set, length), members) in zip(names, groups.items(), strict=True)
    ]


def two_or_more(groups: Sequence[TaskRuns], what: str, needs: str) -> tuple[list[TaskRuns], list[str]]:
    """(the groups of two runs or more, an omission for each other one). needs: what two are needed for, in words.

    Raises UserError where there is no such group.
    """
    enough = [group for group in groups if len(group.members) > 1]
    if not enough:
        raise UserError(
            f"{what}: no task has two or more trained prompts of the same length; train more seeds (-m seed=0,1,2,3)"
        )
    return enough, [
        f"{what}: {group.name} has one trained prompt of length {group.length}; {needs}."
        for group in groups
        if len(group.members) == 1
    ]


def names_of(runs: RunTable, groups: list[list[int]]) -> list[str]:
    """Groups of runs by their task's name, with prompt length, template or run id where it alone would be ambiguous."""
    rows = [runs.table.iloc[members[0]] for members in groups]
    names = [str(row["task"]) for row in rows]
    more = (lambda row: f"P{row['prompt_length']}", lambda row: str(row["template"]), lambda row: row["id"][:8])
    for add in more:
        names = [f"{name}.{add(row)}" if names.count(name) > 1 else name for name, row in zip(names, rows, strict=True)]
    return names


def pushed_apart(run: Run) -> float:
    """The weight with which a run was pushed away from others; 0 for a run that was trained for itself."""
    regulariser = run.info["config"].get("regulariser") or {}
    return float(regulariser.get("weight", 0.0)) if regulariser.get("name", "none") == "orthogonal" else 0.0


def distinct(runs: RunTable, members: Sequence[int]) -> list[int]:
    """The runs without those whose prompt an earlier one has: two ways of writing a command train the same prompt."""
    trained = runs.runs or []
    return list({trained[n].prompt().tobytes(): n for n in reversed(members)}.values())[::-1]
