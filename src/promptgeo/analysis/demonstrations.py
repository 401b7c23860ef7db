"""How do demonstrations stand where a prompt would? Training examples with their labels, as the template writes them.

Shapes: L tokens, d width.
"""

from collections.abc import Sequence

import numpy as np
import torch

from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.data.bos import bos_of
from promptgeo.data.example import Example
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.model.interface import LM


def require_prompt_first(what: str, task: Task) -> None:
    """Raises UserError where a template has text before the prompt. what: the question, for the message."""
    if "{prompt}" in task.template.text and not task.template.text.startswith("{prompt}"):
        raise UserError(
            f"{what}: template {task.template.name} has text before the prompt, so demonstrations would stand amid "
            'one example; choose runs of another one (where="template == ...")'
        )


def written(lm: LM, task: Task, example: Example) -> list[int]:
    """The tokens of an example and its label as the template writes them, without BOS, one line or more."""
    (row,) = task.rows(lm, [example], 0)
    bos = bos_of(task.template, lm)
    ids = row.ids.tolist()
    if bos and ids[: len(bos)] == bos:
        ids = ids[len(bos) :]
    return [*ids, *row.label.tolist(), *([] if task.template.end else lm.encode("\n"))]


def fitting(lm: LM, task: Task, examples: Sequence[Example], room: int | None) -> tuple[list[Example], list[int]]:
    """(the first examples that fit into so many tokens, None: all; their tokens)."""
    kept: list[Example] = []
    tokens: list[int] = []
    for example in examples:
        more = written(lm, task, example)
        if room is not None and len(tokens) + len(more) > room:
            break
        kept, tokens = [*kept, example], tokens + more
    return kept, tokens


def room_before(lm: LM, evaluation_set: EvaluationSet) -> int | None:
    """How many tokens fit before the longest test example and what may be written after it; None: any number."""
    if lm.max_positions is None:
        return None
    task = evaluation_set.task
    rows = task.rows(lm, task.test, 0)
    if task.labels:
        rows += [row for example in task.test for row in task.label_rows(lm, example, 0)]
    longest = max(max(row.length, len(row.ids) + evaluation_set.max_new_tokens) for row in rows)
    return max(lm.max_positions - longest, 0)


def embedded(lm: LM, tokens_L: Sequence[int] | np.ndarray) -> np.ndarray:
    """[L, d] float32: as the model reads these tokens, to stand where a prompt would."""
    ids_L = torch.tensor(np.asarray(tokens_L, dtype=np.int64), device=lm.device)
    embeddings_Ld: np.ndarray = lm.embed(ids_L).float().cpu().numpy()
    return embeddings_Ld
