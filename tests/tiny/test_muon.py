"""Muon is torch.optim.Muon in a dtype of choice."""

import pytest
import torch

from promptgeo.tiny.muon import ITERATIONS, Muon, orthogonal


def stepped(optimizer: type, start: list[torch.Tensor], steps: int, **options) -> list[torch.Tensor]:
    params = [torch.nn.Parameter(p.clone()) for p in start]
    made = optimizer(params, lr=0.05, weight_decay=0.1, **options)
    for step in range(steps):
        for k, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + k))
        made.step()
    return params


def test_in_bf16_its_steps_are_those_of_torch_within_bf16():
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in ((6, 10), (9, 4), (5, 5))]
    ours, plain = (
        stepped(Muon, start, 3, dtype=torch.bfloat16),
        stepped(torch.optim.Muon, start, 3, adjust_lr_fn="match_rms_adamw"),
    )
    exact = stepped(Muon, start, 3, dtype=torch.float32)
    for a, b, c, before in zip(ours, plain, exact, start, strict=True):
        moved = (b - before).abs().max()
        assert moved > 0.03
        assert (a - b).abs().max() < 0.05 * moved and (c - b).abs().max() < 0.05 * moved


def test_a_matrix_becomes_nearly_orthogonal_in_its_own_directions():
    matrix = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = orthogonal(matrix)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ found @ vt.T  # diagonal: the iteration changes the singular values alone
    assert ITERATIONS == 5 and (inner - torch.diag(inner.diag())).abs().max() < 1e-9
    assert inner.diag().min() > 0.6 and inner.diag().max() < 1.3
    torch.testing.assert_close(orthogonal(matrix.T), found.T)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_an_updates_size_is_adamws(shape):
    """A root mean square of about 0.2 times the learning rate, whatever the shape."""
    p = torch.nn.Parameter(torch.zeros(shape))
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    Muon([p], lr=0.5, weight_decay=0.0, dtype=torch.float32).step()
    assert 0.6 < (p.detach().pow(2).mean().sqrt() / (0.2 * 0.5)) < 1.3
