"""Rows of tokens to batches, without doing work twice.

A tree (the usual case): positions that several rows share, the soft prompt and the template's first words, stand in the batch
once. All positions of a batch lie flat in one sequence, and attention alone gathers each row's path from root to leaf.
A grid (models whose attention cannot be told, dropout, long rows under a sliding window): rows padded on the right.

A row's padded length depends on the row alone, and every matrix product has a multiple of 8 rows: below that, a BLAS
picks other kernels for other row counts. For small models that makes an example's result bitwise independent of its
neighbours; wide products (1024 x 1024, two threads, 144 rows) change kernels above it too, by some 1e-6.

Shapes: B rows, T positions of a row (prompt included), F flat positions of a batch, M label positions, N prompts, P prompt tokens.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

BUCKET = 8  # padded lengths of a grid's rows are multiples of this many tokens
PATH = 16  # likewise of a tree's paths: below it, attention kernels change with the length
GEMM_ROWS = 8  # rows of every matrix product are a multiple of this
MAX_TOKENS = 8192  # tokens of one forward, at most
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
    """Rows laid out for one forward. A flat position counts through `ids`, row by row."""

    ids: torch.Tensor
    """int64: vocabulary ids, 0 where a prompt token or padding stands. A tree: [1, F]; a grid: [B, T]."""
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
    """The caller's rows in this batch."""
    position_ids: torch.Tensor | None = None
    """[1, F] int64: each position's depth in the tree. None in a grid: the model's default positions are right."""
    paths: tuple[torch.Tensor, ...] = ()
    """Per padded length T, [B, T] int64: the flat positions on each row's path. Empty in a grid."""
    path_at: torch.Tensor | None = None
    """[F] int64: where, in all the paths one after another, a flat position is read back."""

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved, paths=tuple(p.to(device, non_blocking=True) for p in self.paths))


def padded_length(length: int, multiple: int = BUCKET) -> int:
    return -(-length // multiple) * multiple


def collate(
    rows: Sequence[Row],
    prompt_of: Sequence[int],
    prompt_length: int,
    max_tokens: int = MAX_TOKENS,
    apart: bool = False,
    share_up_to: int = 0,
) -> Iterator[Batch]:
    """Batches of at most `max_tokens` tokens (one row at least); grids by bucket, trees of rows of up to `share_up_to` positions.

    rows: any lengths, the rows of one prompt side by side; prompt_of[i]: the prompt of row i among N; prompt_length: P.
    apart: no batch holds rows of two prompts.
    """
    kinds: dict[int, list[int]] = defaultdict(list)  # 0: trees; else a grid's padded length
    for i, row in enumerate(rows):
        kinds[0 if row.length <= share_up_to else padded_length(row.length)].append(i)
    for length, members in sorted(kinds.items()):
        stack = _tree if length == 0 else _grid
        batch: list[int] = []
        tokens = 0
        for _, group in itertools.groupby(members, key=prompt_of.__getitem__):
            # A prompt's rows are cut where they are cut without the other prompts: its gradient is summed batch by batch.
            for own, size in _cut([(i, length or rows[i].length) for i in group], max_tokens):
                if batch and (apart or tokens + size > max_tokens):
                    yield stack(rows, prompt_of, prompt_length, batch)
                    batch, tokens = [], 0
                batch += own
                tokens += size
        yield stack(rows, prompt_of, prompt_length, batch)


def _cut(sized: list[tuple[int, int]], most: int) -> Iterator[tuple[list[int], int]]:
    """Consecutive parts of (row, tokens), each of at most `most` tokens or one row, with their tokens."""
    part: list[int] = []
    tokens = 0
    for i, size in sized:
        if part and tokens + size > most:
            yield part, tokens
            part, tokens = [], 0
        part.append(i)
        tokens += size
    yield part, tokens


def _tree(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int, members: list[int]) -> Batch:
    children: dict[tuple[int, int], int] = {}  # (parent, token) -> flat position; a prompt's root is -1 - prompt
    ids: list[int] = []
    depths: list[int] = []
    prompt_at, prompt_from, label_at, targets, owners = [], [], [], [], []
    paths: dict[int, list[list[int]]] = defaultdict(list)
    for i in members:
        row = rows[i]
        node, path = -1 - prompt_of[i], []
        for depth, token in enumerate([*row.ids.tolist(), *row.label[:-1].tolist()]):
            here = children.get((node, token))
            if here is None:
                here = children[node, token] = len(ids)
                if token < 0:
                    prompt_at.append(here)
                    prompt_from.append(prompt_of[i] * prompt_length - 1 - token)
                ids.append(max(token, 0))
                depths.append(depth)
            path.append(here)
            node = here
        paths[padded_length(row.length, PATH)].append(path)
        first = len(row.ids) - 1
        label_at += path[first : first + len(row.label)]
        targets += row.label.tolist()
        owners += [i] * len(row.label)
    padding = [0] * (-len(ids) % GEMM_ROWS)
    nodes = np.array(ids + padding)
    path_at = np.zeros(len(nodes), dtype=np.int64)
    grids, start = [], 0
    for length, members_of in sorted(paths.items()):
        grid = np.zeros((len(members_of), length), dtype=np.int64)
        for b, path in enumerate(members_of):
            grid[b] = path[0]  # padding is the row's own: a run's NaN, times no gradient, is NaN wherever padding stands
            grid[b, : len(path)] = path
            path_at[path] = start + b * length + np.arange(len(path))
        grids.append(grid)
        start += grid.size
    missing = -len(label_at) % GEMM_ROWS
    return Batch(
        ids=torch.from_numpy(nodes)[None],
        prompt_at=torch.tensor(prompt_at, dtype=torch.long),
        prompt_from=torch.tensor(prompt_from, dtype=torch.long),
        label_at_M=torch.tensor(label_at + [0] * missing),
        targets_M=torch.tensor(targets + [IGNORE] * missing),
        row_M=torch.tensor(owners + [len(rows)] * missing),
        rows=members,
        position_ids=torch.tensor(depths + padding)[None],
        paths=tuple(map(torch.from_numpy, grids)),
        path_at=torch.from_numpy(path_at),
    )


def _grid(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int, members: list[int]) -> Batch:
    length = padded_length(rows[members[0]].length)
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
        ids=torch.from_numpy(ids),
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
