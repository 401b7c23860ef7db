"""What does the model say next where a prompt stands in a sentence? Rows, next-token distributions, their divergence.

Shapes: S prompts in a row of their own each, P prompt tokens, d width, V vocabulary, M label positions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from promptgeo.batching import IGNORE, Row
from promptgeo.config import Template
from promptgeo.lm import FrozenLM
from promptgeo.tasks import Example, Task


def probe_row(lm: FrozenLM, name: str, text: str, length: int) -> Row:
    """A text with `length` prompt tokens at {prompt}, as templates are written, and one token to predict (whose value no logit depends on)."""
    task = Task(f"probe {name}", [], [], [], Template(name=name, text=text, label="{label}"))
    (row,) = task.rows(lm, [Example(0, "", "x")], length)
    return Row(row.ids, np.zeros(1, np.int64))


@torch.no_grad()
def next_token(lm: FrozenLM, prompts_SPd: np.ndarray, rows_S: Sequence[Row]) -> np.ndarray:
    """[S, V] float32: log-probabilities (nats) of the first token to predict, of each prompt in its own row."""
    prompts = torch.as_tensor(prompts_SPd, dtype=torch.float32, device=lm.device)
    found = None
    for batch in lm.batches(rows_S, range(len(rows_S)), prompts.shape[1]):
        logp_MV = lm.label_logits(prompts, batch).log_softmax(-1).cpu().numpy()
        found = np.empty((len(rows_S), logp_MV.shape[1]), np.float32) if found is None else found
        real = np.flatnonzero(batch.targets_M.cpu().numpy() != IGNORE)
        owners, first = np.unique(batch.row_M.cpu().numpy()[real], return_index=True)
        found[owners] = logp_MV[real[first]]
    return found


def entropy(p_SV: torch.Tensor) -> np.ndarray:
    """[S] float64, in bits."""
    return torch.special.entr(p_SV).sum(-1, dtype=torch.float64).cpu().numpy() / np.log(2)


def js(p_SV: torch.Tensor, q_SV: torch.Tensor) -> np.ndarray:
    """[S] float64: Jensen-Shannon divergence of distributions in bits, from 0 to 1 (Lin 1991), to some 1e-6; axes broadcast."""
    return np.clip(entropy((p_SV + q_SV) / 2) - (entropy(p_SV) + entropy(q_SV)) / 2, 0.0, 1.0)
