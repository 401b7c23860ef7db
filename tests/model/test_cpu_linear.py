"""Matrix products with frozen weights: prepacked or not they are the same function, and what a row of one depends on.

Rows come in multiples of 8. For narrow models a row's result then does not depend on how many rows there are. For wide
ones it does with some libraries (MKL on one machine from 144 rows on, with two threads), so FrozenLM.mixes_prompts asks
before a batch holds rows of two prompts.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from promptgeo.model import cpu_linear
from promptgeo.model.batching import GEMM_ROWS
from promptgeo.model.cpu_linear import prepack, rows_are_independent, unpack
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.tiny import PATH as TINY

if not torch.backends.mkldnn.is_available():
    pytest.skip(
        "this PyTorch was built without oneDNN, whose prepacked weights are tested here", allow_module_level=True
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("d_in", "d_out"), [(16, 32), (32, 96), (32, 64), (64, 32), (32, 600), (256, 768)])
def test_a_rows_result_is_bitwise_independent_of_the_number_of_rows(threads, d_in, d_out):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, d_in, generator=generator)
    weight = torch.randn(d_out, d_in, generator=generator)
    gradient = torch.randn(512, d_out, generator=generator)
    packed, packed_back = (torch.ops.mkldnn._reorder_linear_weight(w, None) for w in (weight, weight.t().contiguous()))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        transposed = weight.t().contiguous()
        ways = {
            "forward": (lambda rows: linear(rows, weight), x),
            "conv1d": (lambda rows: rows @ transposed, x),
            "backward": (lambda rows: rows @ weight, gradient),
            "prepacked": (lambda rows: cpu_linear._multiply(rows, packed, None), x),
            "prepacked, backward": (lambda rows: cpu_linear._multiply(rows, packed_back, None), gradient),
        }
        for name, (way, rows) in ways.items():
            equal = all(
                torch.equal(way(rows[:many])[:GEMM_ROWS], way(rows[:GEMM_ROWS]))
                for many in range(GEMM_ROWS, 129, GEMM_ROWS)
            )
            # MKL's products are not on every processor; there the measurement on the loaded model has to say so.
            prepacked = name.startswith("prepacked")
            assert equal or not (prepacked or cpu_linear._has_independent_rows(way, rows.shape[1], weight)), name
    finally:
        torch.set_num_threads(before)


class Layers(nn.Module):
    """Linear layers of both kinds, and one that only looks like one."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(24, 40), Conv1D(56, 40), nn.Linear(56, 16, bias=False)).to(dtype)
        looks_linear = type("Linear", (nn.Linear,), {"forward": lambda self, x: 2 * linear(x, self.weight)})
        self.doubled = looks_linear(16, 16).to(dtype)
        nn.init.normal_(self.layers[1].bias)
        self.requires_grad_(False)

    def forward(self, x):
        return self.doubled(self.layers(x))


@pytest.mark.parametrize("most_copies", [0, 3e9])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_prepacked_layers_compute_the_same_and_pass_the_same_gradient(dtype, tolerance, most_copies, monkeypatch):
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bf16 products in oneDNN")
    monkeypatch.setattr(cpu_linear, "MOST_COPIES", most_copies)
    plain, packed = Layers(dtype), Layers(dtype)
    assert prepack(packed)
    assert ["forward" in vars(layer) for layer in (*packed.layers, packed.doubled)] == [True, True, True, False]
    outputs = []
    for model in (plain, packed):
        x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        y = model(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y).to(dtype)).sum().backward()
        outputs.append((y.detach(), x.grad))
    for expected, got in zip(*outputs, strict=True):
        assert expected.shape == got.shape and expected.dtype is got.dtype
        assert (expected - got).abs().max() <= tolerance * expected.abs().max()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), packed.parameters(), strict=True))
    assert not any(p.grad is not None for p in packed.parameters())


def copies(model):
    """Of each layer: which of its two products has a packed copy; the other has the weight itself, not a copy of it."""
    found = []
    for layer in model.layers:
        factors = {way: getattr(layer.forward._weight, way) for way in ("forward", "backward")}
        own = layer.weight.untyped_storage().data_ptr()
        assert all(f.is_mkldnn or f.untyped_storage().data_ptr() == own for f in factors.values())
        found.append([way for way, factor in factors.items() if factor.is_mkldnn])
    return found


def test_weights_of_large_models_keep_one_packed_copy_and_a_large_head_none(monkeypatch):
    both = 2 * sum(layer.weight.nbytes for layer in Layers().layers)
    monkeypatch.setattr(cpu_linear, "MOST_COPIES", both)
    small = Layers()
    assert prepack(small) and copies(small) == [["forward", "backward"]] * 3
    monkeypatch.setattr(cpu_linear, "MOST_COPIES", both - 1)
    large = Layers()
    assert prepack(large) and copies(large) == [["backward"], ["forward"], ["backward"]]
    monkeypatch.setattr(cpu_linear, "LARGE", 40 * 56 - 1)
    with_head = Layers()
    assert prepack(with_head) and copies(with_head) == [["backward"], [], ["backward"]]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        monkeypatch.setattr(cpu_linear, "MOST_COPIES", 0)
        half = Layers(torch.bfloat16)
        assert prepack(half) and copies(half) == [["forward", "backward"]] * 3


def test_gemma_3_270m_keeps_both_copies_and_bloomz_560m_one():
    gemma = 18 * (640 * (4 * 256 + 2 * 256 + 4 * 256) + 3 * 640 * 2048) + 262_144 * 640
    bloomz = 24 * 12 * 1024**2 + 250_880 * 1024
    assert 2 * 4 * gemma <= cpu_linear.MOST_COPIES < 2 * 4 * bloomz


def test_a_nan_stays_in_its_row():
    model = Layers()
    prepack(model)
    x = torch.randn(16, 24)
    clean = model(x)
    x[3] = float("nan")
    output = model(x)
    others = [i for i in range(16) if i != 3]
    assert output[3].isnan().all() and torch.equal(output[others], clean[others])


def test_what_cannot_be_prepacked_stays_as_it_is(monkeypatch):
    half = Layers(torch.float16)
    assert not prepack(half) and not any("forward" in vars(layer) for layer in half.layers)
    large = Layers()
    monkeypatch.setattr(cpu_linear, "MEMORY_SHARE", 1e-12)
    assert not prepack(large) and not any("forward" in vars(layer) for layer in large.layers)


def test_a_layer_whose_product_would_be_another_one_keeps_its_own():
    model = Layers()
    first, own = model.layers[0], model.layers[0].forward
    first.forward = lambda x: own(x) + 1
    assert prepack(model)
    torch.testing.assert_close(first.forward(torch.zeros(1, 24)), own(torch.zeros(1, 24)) + 1)


def test_a_model_that_was_cast_after_it_was_frozen_still_computes():
    model = Layers()
    prepack(model)
    expected = model(torch.ones(2, 24))
    torch.testing.assert_close(model.double()(torch.ones(2, 24, dtype=torch.float64)).float(), expected)


def test_layers_get_their_own_products_back():
    plain, packed = Layers(), Layers()
    prepack(packed)
    unpack(packed)
    x = torch.randn(GEMM_ROWS, 24)
    assert torch.equal(plain(x), packed(x))


def test_a_frozen_models_logits_are_those_of_its_own_layers():
    config = GPT2Config(vocab_size=600, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    torch.manual_seed(0)
    plain = GPT2LMHeadModel(config).eval()
    ids = torch.arange(24).view(1, -1)
    with torch.no_grad():
        expected = plain(ids).logits
        lm = FrozenLM(plain, FrozenLM.load("tiny").tokenizer)
        assert "forward" in vars(lm.model.lm_head) and "forward" in vars(lm.model.transformer.h[0].mlp.c_fc)
        torch.testing.assert_close(lm.model(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_product_whose_rows_depend_on_each_other_is_noticed():
    assert rows_are_independent(FrozenLM.load(str(TINY)).model)
    model = Layers()
    own = model.layers[2].forward
    model.layers[2].forward = lambda x: own(x) * (1 + 1e-7 * (len(x) > 100))
    assert not rows_are_independent(model)
    model.layers[2].forward = own
    assert rows_are_independent(model)

    class Mixing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return own(x)

        @staticmethod
        def backward(ctx, gradient):
            return (gradient * np.float32(1 + 1e-6 * (len(gradient) > 100))) @ model.layers[2].weight

    model.layers[2].forward = Mixing.apply
    assert not rows_are_independent(model)


@pytest.mark.parametrize("most_copies", [0, 3e9])
def test_a_large_matrix_is_multiplied_and_asked_by_few_rows_at_a_time(most_copies, monkeypatch):
    monkeypatch.setattr(cpu_linear, "MOST_COPIES", most_copies)
    monkeypatch.setattr(cpu_linear, "LARGE", 0)
    plain, packed = Layers(), Layers()
    assert prepack(packed)
    rows, at_once = [], cpu_linear._multiply_at_once
    monkeypatch.setattr(
        cpu_linear, "_multiply_at_once", lambda x, *rest: rows.append(x.numel() // x.shape[-1]) or at_once(x, *rest)
    )
    outputs = []
    for model in (plain, packed):
        x = torch.randn(2, 100, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = model.layers(x).mul_(2)  # some families change logits in place
        y.sum().backward()
        outputs.append((y.detach(), x.grad))
    assert rows == [128, 72] * 6  # three layers, forward and backward
    for expected, got in zip(*outputs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    rows.clear()
    assert rows_are_independent(packed)
    assert max(rows) == 128
