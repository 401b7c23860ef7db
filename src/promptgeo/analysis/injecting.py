"""What does a model hold at the end of an input, and what does it answer where a vector is added there?

A row's last token is written as a prompt token that has that token's own embedding: so the model reads the same, and a
patch of prompt tokens (LM.patched) reaches this position alone, in a tree as in a grid.

Shapes: S layers, D width of the hidden states, N vectors, E examples, K different last tokens, P prompt tokens,
d width of the input embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.data.example import Example
from promptgeo.data.row import Row
from promptgeo.data.tasks import Task
from promptgeo.data.text_model import TextModel
from promptgeo.errors import UserError
from promptgeo.model.interface import LM


def mean_end_states(
    lm: LM, task: Task, examples: Sequence[Example], prompt_Pd: np.ndarray, layers: Sequence[int]
) -> np.ndarray:
    """[S, D] float64: the mean over examples of what the model holds at an input's last token, with a prompt.

    Args:
        prompt_Pd: float32, trained or of words; P = 0: without one.
        layers: as LM.hidden counts them, all of one width.
    """
    rows = task.rows(lm, examples, len(prompt_Pd))
    prompts_1Pd = torch.as_tensor(prompt_Pd, dtype=torch.float32, device=lm.device)[None]
    states = lm.hidden(prompts_1Pd, rows, [0] * len(rows), layers, [[-1]] * len(rows))
    return np.stack([states_BQD[:, 0].double().mean(0).numpy() for states_BQD in states])


@dataclass(frozen=True)
class _Ending(Task):
    """A task whose inputs end in a prompt token that stands for their last token."""

    ends: tuple[int, ...] = ()
    """The token that prompt token k stands for."""

    def rows(self, lm: TextModel, examples: Sequence[Example], prompt_length: int) -> list[Row]:
        return [self._ended(row) for row in super().rows(lm, examples, 0)]

    def label_rows(self, lm: TextModel, example: Example, prompt_length: int) -> list[Row]:
        return [self._ended(row) for row in super().label_rows(lm, example, 0)]

    def _ended(self, row: Row) -> Row:
        return Row(np.append(row.ids[:-1], -1 - self.ends.index(int(row.ids[-1]))), row.label)


class Injected:
    """An evaluation set's inputs without a prompt, to whose last token vectors can be added."""

    def __init__(self, lm: LM, evaluation_set: EvaluationSet):
        """Raises UserError for a model whose layers read token ids too: its last token would be another one."""
        if lm.reads_ids:
            raise UserError(
                f"model {lm.name}: its layers read token ids too, so that no vector can be added to an input's last "
                "token; choose runs of another model (where=...)"
            )
        task = evaluation_set.task
        rows = [*task.rows(lm, task.test, 0), *task.content_free_rows(lm, 0)]
        ends = tuple(dict.fromkeys(int(row.ids[-1]) for row in rows))
        given = {each.name: getattr(task, each.name) for each in fields(Task) if each.init}
        self._lm, self._set = lm, replace(evaluation_set, task=_Ending(**given, ends=ends))
        self._ends_1Kd = lm.embed(torch.tensor(ends, device=lm.device)).float()[None]

    def answers(self, layer: int, vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(what is right [N, E] bool, mean loss of a label token [N] in nats) with each vector.

        layer: the block before which it is added, 0 to the model's last. Raises UserError for one that there is not.
        """
        right, losses = [], []
        for vector_D in vectors_ND:
            states_D = torch.as_tensor(vector_D, dtype=torch.float32, device=self._lm.device)
            with self._lm.patched(layer, states_D.expand(1, self._ends_1Kd.shape[1], -1), add=True):
                evaluation = self._set.evaluate(self._lm, self._ends_1Kd)
            right.append(evaluation.correct[0])
            losses.append(float(evaluation.loss[0]))
        return np.array(right, dtype=bool).reshape(len(right), -1), np.array(losses)
