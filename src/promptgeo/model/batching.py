"""How do rows become batches, without computing anything twice?

A tree (the usual case): positions that several rows share, the soft prompt and the template's first words, stand in the
batch once. All positions of a batch lie flat in one sequence, and attention alone gathers each row's path from root to
leaf.
A grid (models whose attention cannot follow paths, dropout, rows longer than a sliding window): rows padded on the
right.

A row's padded length depends on the row alone, and every matrix product has a multiple of 8 rows: below that, a BLAS
picks other kernels for other row counts. For small models that makes an example's result bitwise independent of its
neighbours; wide products (1024 x 1024, two threads, 144 rows) change kernels above it too, by some 1e-6.

Shapes: B rows, T positions of a row (prompt included), F flat positions of a batch, M label positions, N prompts,
P prompt tokens, d width.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from promptgeo.data.row import Row

GEMM_ROWS = 8
"""Rows of every matrix product are a multiple of this: below it a BLAS has a kernel of its own for each number."""
GRID_MULTIPLE = 8
"""Padded lengths of a grid's rows are multiples of this, so that lengths, and their kernels, are few."""
PATH_MULTIPLE = 16
"""Likewise of a tree's paths: below 16 positions, attention kernels change with the length."""
MAX_TOKENS = 8192
"""Positions of one forward, at most: it bounds the memory that its activations take."""
IGNORE = -100
"""The target of a position that is not scored, as in torch's cross_entropy."""


@dataclass(frozen=True)
class Batch:
    """Rows arranged for one forward. A flat position counts through `ids`, row by row."""

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
    """int64: the caller's row of each label position; at padding the number of the caller's rows, or -1."""
    rows: list[int]
    """The caller's rows in this batch."""
    position_ids: torch.Tensor | None = None
    """[1, F] int64: each position's depth in the tree. None in a grid: the model's default positions are right."""
    paths: tuple[torch.Tensor, ...] = ()
    """Per padded length T, [B, T] int64: the flat positions on each row's path. Empty in a grid."""
    path_at: torch.Tensor | None = None
    """[F] int64: where, in all the paths one after another, a flat position is read back."""
    path_of: dict[int, list[int]] = field(default_factory=dict)
    """A tree: the flat positions of each of the caller's rows, from the root on."""
    cached: int = 0
    """Flat positions of the batches before this one, whose keys and values are cached: paths count through them all."""
    query_at: tuple[torch.Tensor, ...] = ()
    """Of rows that continue, per padded length, [B] int64: the position of `ids` at the end of each path."""
    path_lengths: tuple[torch.Tensor, ...] = ()
    """Of rows that continue, per padded length, [B] int64: positions of each path; what follows is padding."""

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                moved[name] = value.to(device, non_blocking=True)
            elif isinstance(value, tuple):
                moved[name] = tuple(x.to(device, non_blocking=True) for x in value)
        return replace(self, **moved)


def padded_length(length: int, multiple: int = GRID_MULTIPLE) -> int:
    """The next multiple of `multiple` from `length` on."""
    return -(-length // multiple) * multiple


def padding_rows(rows: int) -> int:
    """How many rows of padding a tree's products need.

    To a multiple of GEMM_ROWS; from 256 rows on to a larger one, which adds a 16th of the rows at most. oneDNN
    generates code for each new number of rows, in milliseconds and half a megabyte: so the numbers are few.
    """
    multiple = GEMM_ROWS
    while 32 * multiple <= rows:  # doubled at each power of two: between a 32nd and a 16th of the rows
        multiple *= 2
    return -rows % multiple


def collate(
    rows: Sequence[Row],
    prompt_of: Sequence[int],
    prompt_length: int,
    max_tokens: int = MAX_TOKENS,
    separate_prompts: bool = False,
    share_up_to: int = 0,
) -> Iterator[Batch]:
    """Batches of rows: trees where rows are short enough to share prefixes, else grids of one padded length.

    Args:
        rows: of any lengths, the rows of one prompt side by side.
        prompt_of: the prompt of each row, 0 to N - 1.
        prompt_length: P.
        max_tokens: positions of a batch, at most, shared ones counted for each row; a batch has one row at least.
        separate_prompts: no batch holds rows of two prompts.
        share_up_to: rows of up to this many positions go into trees.
    """
    kinds: dict[int, list[int]] = defaultdict(list)  # 0: trees; else a grid's padded length
    for i, row in enumerate(rows):
        kinds[0 if row.length <= share_up_to else padded_length(row.length)].append(i)
    for length, members in sorted(kinds.items()):
        stack = _tree if length == 0 else _grid
        batch: list[int] = []
        tokens = 0
        for _, group in itertools.groupby(members, key=prompt_of.__getitem__):
            # A prompt's rows are cut where they are cut without other prompts: its gradient is summed batch by batch.
            for own, size in _cut([(i, length or rows[i].length) for i in group], max_tokens):
                if batch and (separate_prompts or tokens + size > max_tokens):
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


class _Tree:
    """Positions that are added row by row, shared ones once."""

    def __init__(self) -> None:
        self._children: dict[
            tuple[int, int], int
        ] = {}  # (parent, token) -> flat position; a prompt's root is -1 - prompt
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.prompt_at: list[int] = []
        self.prompt_from: list[int] = []

    def add(self, row: Row, prompt: int, prompt_length: int) -> list[int]:
        """The row's path: the flat positions of its tokens, new ones made."""
        node, path = -1 - prompt, []
        for depth, token in enumerate([*row.ids.tolist(), *row.label[:-1].tolist()]):
            here = self._children.get((node, token))
            if here is None:
                here = self._children[node, token] = len(self.ids)
                if token < 0:
                    self.prompt_at.append(here)
                    self.prompt_from.append(prompt * prompt_length - 1 - token)
                self.ids.append(max(token, 0))
                self.depths.append(depth)
            path.append(here)
            node = here
        return path


def _tree(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int, members: list[int]) -> Batch:
    tree = _Tree()
    path_of: dict[int, list[int]] = {}
    label_at: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for i in members:
        row = rows[i]
        path_of[i] = path = tree.add(row, prompt_of[i], prompt_length)
        first = len(row.ids) - 1
        label_at += path[first : first + len(row.label)]
        targets += row.label.tolist()
        owners += [i] * len(row.label)
    padding = [0] * padding_rows(len(tree.ids))
    path_at = np.zeros(len(tree.ids) + len(padding), dtype=np.int64)
    grids, start = [], 0
    for same_length in _by_length(path_of).values():
        grid = _padded([path_of[i] for i in same_length])
        for b, path in enumerate(path_of[i] for i in same_length):
            path_at[path] = start + b * grid.shape[1] + np.arange(len(path))
        grids.append(grid)
        start += grid.size
    missing = padding_rows(len(label_at))
    return Batch(
        ids=torch.from_numpy(np.array(tree.ids + padding))[None],
        prompt_at=torch.tensor(tree.prompt_at, dtype=torch.long),
        prompt_from=torch.tensor(tree.prompt_from, dtype=torch.long),
        label_at_M=torch.tensor(label_at + [0] * missing),
        targets_M=torch.tensor(targets + [IGNORE] * missing),
        row_M=torch.tensor(owners + [len(rows)] * missing),
        rows=members,
        position_ids=torch.tensor(tree.depths + padding)[None],
        paths=tuple(map(torch.from_numpy, grids)),
        path_at=torch.from_numpy(path_at),
        path_of=path_of,
    )


def cut_back(batch: Batch, lengths: dict[int, int]) -> Batch:
    """The tree as `next_tokens` continues it: these rows alone, each from its first so many positions on."""
    return replace(batch, path_of={i: batch.path_of[i][:length] for i, length in lengths.items()})


def next_tokens(batch: Batch, tokens: dict[int, int]) -> Batch:
    """The batch that continues a tree, or such a batch, with one more token of each of these rows.

    Its logits predict the token after it. Its forward needs the keys and values of all batches before it.
    """
    before = batch.cached + batch.ids.numel()
    path_of = {i: [*batch.path_of[i], before + k] for k, i in enumerate(tokens)}
    place = {i: k for k, i in enumerate(tokens)}
    missing = padding_rows(len(tokens))
    groups = _by_length(path_of).values()
    path_at = np.zeros(len(tokens) + missing, dtype=np.int64)
    path_at[[place[i] for group in groups for i in group]] = np.arange(len(tokens))
    return Batch(
        ids=torch.tensor([*tokens.values()] + [0] * missing)[None],
        prompt_at=torch.zeros(0, dtype=torch.long),
        prompt_from=torch.zeros(0, dtype=torch.long),
        label_at_M=torch.arange(len(path_at)),
        targets_M=torch.full((len(path_at),), IGNORE),
        row_M=torch.tensor([*tokens] + [-1] * missing),
        rows=[*tokens],
        position_ids=torch.tensor([len(path) - 1 for path in path_of.values()] + [0] * missing)[None],
        paths=tuple(torch.from_numpy(_padded([path_of[i] for i in group])) for group in groups),
        path_at=torch.from_numpy(path_at),
        path_of=path_of,
        cached=before,
        query_at=tuple(torch.tensor([place[i] for i in group]) for group in groups),
        path_lengths=tuple(torch.tensor([len(path_of[i]) for i in group]) for group in groups),
    )


def _by_length(path_of: dict[int, list[int]]) -> dict[int, list[int]]:
    """Padded length -> rows, shortest first."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, path in path_of.items():
        groups[padded_length(len(path), PATH_MULTIPLE)].append(i)
    return dict(sorted(groups.items()))


def _padded(paths: list[list[int]]) -> np.ndarray:
    """[B, T] int64: paths of one padded length."""
    grid = np.zeros((len(paths), padded_length(len(paths[0]), PATH_MULTIPLE)), dtype=np.int64)
    for b, path in enumerate(paths):
        grid[b] = path[0]  # padding is the row's own: a run's NaN, times no gradient, is NaN wherever padding stands
        grid[b, : len(path)] = path
    return grid


def _grid(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int, members: list[int]) -> Batch:
    length = padded_length(rows[members[0]].length)
    # So many rows that the product of height and length is a multiple of GEMM_ROWS.
    multiple = GEMM_ROWS // int(np.gcd(length, GEMM_ROWS))
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
    flat, flat_targets, flat_owner = ids.reshape(-1), targets.reshape(-1), owner.reshape(-1)
    prompt_at = np.flatnonzero(flat < 0)
    prompt_from = prompts[prompt_at // length] * prompt_length - 1 - flat[prompt_at]
    flat[prompt_at] = 0
    label_at = np.flatnonzero(flat_targets != IGNORE)
    padding = np.flatnonzero(flat_targets == IGNORE)[::-1][: -len(label_at) % GEMM_ROWS]
    label_at = np.sort(np.concatenate([label_at, padding]))
    return Batch(
        ids=torch.from_numpy(ids),
        prompt_at=torch.from_numpy(prompt_at),
        prompt_from=torch.from_numpy(prompt_from),
        label_at_M=torch.from_numpy(label_at),
        targets_M=torch.from_numpy(flat_targets[label_at]),
        row_M=torch.from_numpy(flat_owner[label_at]),
        rows=members,
    )


def sum_by_row(values_M: torch.Tensor, row_M: torch.Tensor, rows: int) -> torch.Tensor:
    """[M] values summed per caller's row: [rows]. Padding falls off the end."""
    zeros = values_M.new_zeros(rows + 1)
    if values_M.is_cuda:  # where index_add adds in whatever order its threads come
        return zeros.index_put((row_M,), values_M, accumulate=True)[:rows]
    return zeros.index_add(0, row_M, values_M)[:rows]
