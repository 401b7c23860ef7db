"""Rows of tokens to batches of fixed shapes.

A row's padded length depends on the row alone, and every matrix product has a multiple of 16 rows: below that, a BLAS
picks other kernels for other row counts, and an example's result would depend on its neighbours.

Shapes: B rows, T text tokens (prompt included), M label positions, N prompts, P prompt tokens.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

BUCKET = 8  # padded lengths are multiples of this many tokens
GEMM_ROWS = 16  # rows of every matrix product are a multiple of this
IGNORE = -100


@dataclass(frozen=True)
class Row:
    """One example as tokens. In `ids`, -1-k stands for token k of the row's soft prompt."""

    ids: np.ndarray
    """[T] int64: the text up to the label."""
    label: np.ndarray
    """[m] int64: the label's tokens, terminator included."""

    @property
    def length(self) -> int:
        """Positions the model needs: all tokens but the last of the label, which is only predicted."""
        return len(self.ids) + max(len(self.label) - 1, 0)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of one bucket. Flat positions index the [B * T] grid."""

    ids_BT: torch.Tensor
    """int64, >= 0: vocabulary ids; 0 where a prompt token or padding stands."""
    prompt_at: torch.Tensor
    """int64: flat positions of the prompt tokens."""
    prompt_from: torch.Tensor
    """int64: which row of prompts.view(N * P, d) stands there."""
    label_at_M: torch.Tensor
    """int64: flat positions whose logits predict a label token; padded to a multiple of GEMM_ROWS."""
    targets_M: torch.Tensor
    """int64: the label token to predict, IGNORE at padding."""
    row_M: torch.Tensor
    """int64: the caller's row of each label position; the number of the caller's rows at padding."""
    rows: list[int]
    """The caller's rows in this batch, in order."""

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return Batch(**moved, rows=self.rows)


def padded_length(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


def collate(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int, max_tokens: int = 8192) -> Iterator[Batch]:
    """Batches of rows that share a bucket, each of at most `max_tokens` tokens (one row at least).

    rows: any lengths; prompt_of[i]: the prompt of row i among N; prompt_length: P.
    """
    buckets: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        buckets[padded_length(row.length)].append(i)
    for length, members in sorted(buckets.items()):
        size = max(max_tokens // length, 1)
        for start in range(0, len(members), size):
            yield _stack(rows, prompt_of, prompt_length, members[start : start + size], length)


def _stack(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int, members: list[int], length: int) -> Batch:
    multiple = GEMM_ROWS // np.gcd(length, GEMM_ROWS)
    height = -(-len(members) // multiple) * multiple
    ids = np.zeros((height, length), dtype=np.int64)
    targets = np.full((height, length), IGNORE, dtype=np.int64)
    owner = np.full((height, length), len(rows), dtype=np.int64)
    prompts = np.zeros(height, dtype=np.int64)
    for b, i in enumerate(members):
        row = rows[i]
        n, m = len(row.ids), len(row.label)
        ids[b, :n] = row.ids
        ids[b, n : n + m - 1] = row.label[:-1]
        targets[b, n - 1 : n - 1 + m] = row.label
        owner[b, n - 1 : n - 1 + m] = i
        prompts[b] = prompt_of[i]
    flat, targets, owner = ids.reshape(-1), targets.reshape(-1), owner.reshape(-1)
    prompt_at = np.flatnonzero(flat < 0)
    prompt_from = prompts[prompt_at // length] * prompt_length - 1 - flat[prompt_at]
    flat[prompt_at] = 0
    label_at = np.flatnonzero(targets != IGNORE)
    padding = np.flatnonzero(targets == IGNORE)[::-1][: -len(label_at) % GEMM_ROWS]
    label_at = np.sort(np.concatenate([label_at, padding]))
    return Batch(
        ids_BT=torch.from_numpy(ids),
        prompt_at=torch.from_numpy(prompt_at),
        prompt_from=torch.from_numpy(prompt_from),
        label_at_M=torch.from_numpy(label_at),
        targets_M=torch.from_numpy(targets[label_at]),
        row_M=torch.from_numpy(owner[label_at]),
        rows=members,
    )


def sum_by_row(values_M: torch.Tensor, row_M: torch.Tensor, rows: int) -> torch.Tensor:
    """[M] values summed per caller's row: [rows]. Padding falls off the end."""
    return values_M.new_zeros(rows + 1).index_add(0, row_M, values_M)[:rows]
