"""What does the model say next where a prompt stands in a sentence? Rows, next-token distributions, their divergence.

Shapes: S prompts in a row of their own each, P prompt tokens, d width, V vocabulary, M label positions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from promptgeo.config.schema import Bos, Template
from promptgeo.data.row import Row
from promptgeo.data.tasks import Example, Task
from promptgeo.model.batching import IGNORE
from promptgeo.model.interface import LM


def probe_row(lm: LM, name: str, text: str, length: int, bos: Bos = Bos.auto) -> Row:
    """A text with `length` prompt tokens at {prompt}, as templates are written, and one token to predict.

    No logit depends on that token's value. It begins as the model's own texts do, unless `bos` says otherwise.
    """
    task = Task(f"probe {name}", [], [], [], Template(name=name, text=text, label="{label}", bos=bos))
    (row,) = task.rows(lm, [Example(0, "", "x")], length)
    return Row(row.ids, np.zeros(1, np.int64))


@torch.no_grad()
def label_logp(lm: LM, prompts_SPd: np.ndarray | torch.Tensor, rows_S: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """What the model expects where each prompt's own row has its label, in nats.

    Returns (log-probability of the whole label [S] float64, log-probabilities of its first token [S, V] float32).
    """
    prompts_SPd = torch.as_tensor(prompts_SPd, dtype=torch.float32, device=lm.device)
    total_S, first_SV = np.zeros(len(rows_S)), np.empty((len(rows_S), 0), np.float32)
    for batch in lm.batches(rows_S, range(len(rows_S)), prompts_SPd.shape[1]):
        logp_MV = lm.label_logits(prompts_SPd, batch).log_softmax(-1).cpu().numpy()
        targets_M, row_M = batch.targets_M.cpu().numpy(), batch.row_M.cpu().numpy()
        label = np.flatnonzero(targets_M != IGNORE)
        np.add.at(total_S, row_M[label], logp_MV[label, targets_M[label]])
        if not first_SV.shape[1]:
            first_SV = np.empty((len(rows_S), logp_MV.shape[1]), np.float32)
        owners, first = np.unique(row_M[label], return_index=True)
        first_SV[owners] = logp_MV[label[first]]
    return total_S, first_SV


def next_token(lm: LM, prompts_SPd: np.ndarray, rows_S: Sequence[Row]) -> np.ndarray:
    """[S, V] float32: log-probabilities (nats) of the first token to predict, of each prompt in its own row."""
    return label_logp(lm, prompts_SPd, rows_S)[1]


def entropy(p_SV: torch.Tensor) -> np.ndarray:
    """[S] float64: entropy of distributions over V, in bits."""
    return torch.special.entr(p_SV).sum(-1, dtype=torch.float64).cpu().numpy() / np.log(2)


def js(p_SV: torch.Tensor, q_SV: torch.Tensor) -> np.ndarray:
    """[S] float64: Jensen-Shannon divergence of distributions over V in bits, from 0 to 1 (Lin 1991), to some 1e-6.

    Axes broadcast.
    """
    return np.clip(entropy((p_SV + q_SV) / 2) - (entropy(p_SV) + entropy(q_SV)) / 2, 0.0, 1.0)
