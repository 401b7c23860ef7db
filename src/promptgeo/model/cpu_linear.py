"""How do frozen weights multiply on a CPU? From weights prepacked once in oneDNN's layout, because none ever changes.

A product packs its weight for the processor's vector units each time it is called. For the few hundred rows of a soft
prompt's minibatch that takes MKL a third to two thirds of the time (fp32), and oneDNN a tenth to a quarter (bf16).

Shapes: F rows of x, I inputs, O outputs.
"""

import logging
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from promptgeo.model.batching import GEMM_ROWS
from promptgeo.model.memory import give_back_freed_memory

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.25
"""Of the machine's memory, that the second and third copy of the weights may take at most: the rest is for the model,
activations and results. Of all memory, not of what is free, because prepacking decides bits."""
MOST_COPIES = 3e9
"""Bytes of both packed copies of all fp32 weights; beyond it a weight keeps one at most: 560M parameters then train in
6 GB. Weights in bf16, half as large, keep both."""
LARGE = 2**24
"""Numbers of a large matrix: the head of a model with a large vocabulary, which sees label positions only."""
ROWS_AT_ONCE = 128
"""Rows of one product with a large matrix: whether rows depend on each other is asked of up to so many alone."""


def prepack(model: nn.Module) -> bool:
    """Replace the forward of the model's linear layers by products with prepacked weights, forward and backward.

    Where both copies of all fp32 weights would take more than MOST_COPIES, the slower of a weight's two products keeps
    its own, and a large head none. The same numbers up to rounding, checked on every layer. Returns False, and changes
    nothing, where that cannot be done: not on a CPU, a dtype that this processor or this PyTorch has no such product
    for, or weights too large for two more copies.
    """
    layers = [(layer, weight) for layer in model.modules() if (weight := _weight(layer)) is not None]
    if not layers or not _is_possible([weight for _, weight in layers]):
        return False
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    both = 2 * sum(weight.nbytes for _, weight in layers)
    if both > MEMORY_SHARE * memory:
        log.debug("the weights are too large for two more copies: they are packed at every product")
        return False
    sparing = both > MOST_COPIES and layers[0][1].dtype is torch.float32
    for layer, weight_OI in layers:
        forward = _FrozenForward(layer, _FrozenWeight(weight_OI, sparing))
        if _agree(layer.forward, forward, weight_OI):
            layer.forward = forward
        else:
            log.debug("%s: its forward is not a plain product with its weight, so it is kept", type(layer).__name__)
    return True


def unpack(model: nn.Module) -> None:
    """Undo `prepack`: for torch.compile, which packs weights itself."""
    for layer in model.modules():
        if isinstance(forward := vars(layer).get("forward"), _FrozenForward):
            layer.forward = forward.plain


class _FrozenWeight:
    """What x and what gradients are multiplied with: packed copies of the weight, or the weight itself.

    forward [O, I] is for x @ weight.T; backward [I, O], made at its first use, for gradient @ weight.
    """

    def __init__(self, weight_OI: Tensor, sparing: bool):
        self._weight_OI = weight_OI.detach()
        # MKL is slower where the matrix on the right lies row by row: that product has the copy.
        contiguous, large = weight_OI.is_contiguous(), weight_OI.numel() > LARGE
        self._packs_backward = not sparing or (contiguous and not large)
        packs_forward = not sparing or not (contiguous or large)
        self.forward = _packed(self._weight_OI) if packs_forward else self._weight_OI

    @cached_property
    def backward(self) -> Tensor:
        return _packed(self._weight_OI.t()) if self._packs_backward else self._weight_OI.t()


def _packed(matrix: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), None)


class _FrozenForward:
    """A linear layer's forward. plain: the layer's own."""

    def __init__(self, layer: Any, weight: _FrozenWeight):
        self.plain, self._weight, self._bias, self._dtype = layer.forward, weight, layer.bias, layer.weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype is not self._dtype:
            return self.plain(x)  # a model that was moved or cast after it was frozen still works
        return _FrozenLinear.apply(x, self._weight, self._bias)

    def gradient(self, gradient: Tensor) -> Tensor:
        """What the backward makes of the output's gradient."""
        return _multiply(gradient, self._weight.backward, None)


class _FrozenLinear(torch.autograd.Function):
    """x [..., I] -> [..., O]; neither weight nor bias has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: _FrozenWeight, bias: Tensor | None) -> Tensor:
        ctx.frozen = weight
        return _multiply(x, weight.forward, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _multiply(gradients[0], ctx.frozen.backward, None), None, None


_seen: set[tuple[int, torch.Size]] = set()
"""(number of rows, shape of the weight) of all products so far."""


def _multiply(x: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    rows, inputs = x.numel() // x.shape[-1], x.shape[-1]
    if factor.numel() <= LARGE or rows <= ROWS_AT_ONCE:
        return _multiply_at_once(x, factor, bias)
    parts = [_multiply_at_once(part, factor, bias) for part in x.reshape(rows, inputs).split(ROWS_AT_ONCE)]
    together = torch.cat(parts)
    return torch.ops.aten._unsafe_view(together, [*x.shape[:-1], together.shape[-1]])  # no view: see below


def _multiply_at_once(x: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    if factor.is_mkldnn:
        product = torch.ops.mkldnn._linear_pointwise(x, factor, bias, "none", [], "")
        _tidy_up(x.numel() // x.shape[-1], factor.shape)
    else:
        product = linear(x, factor, bias)
    # The operators return views of a matrix, which autograd lets nobody change in place, as some families do.
    return torch.ops.aten._unsafe_view(product, product.shape)


def _tidy_up(rows: int, shape: torch.Size) -> None:
    if (rows, shape) not in _seen:
        _seen.add((rows, shape))
        # Generating the code for a new shape frees megabytes that lie too scattered to be used again. Giving them back
        # goes through the whole heap: not for every shape.
        if len(_seen) % 16 == 0:
            give_back_freed_memory()


def _weight(layer: nn.Module) -> Tensor | None:
    """[O, I] of a linear layer; None of any other module."""
    if type(layer) is nn.Linear:
        return layer.weight
    if type(layer).__name__ == "Conv1D":
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 2:
            return weight.t()  # GPT-2 keeps [I, O]
    return None


def _is_possible(weights: list[Tensor]) -> bool:
    dtypes, devices = {weight.dtype for weight in weights}, {weight.device.type for weight in weights}
    if devices != {"cpu"} or not hasattr(os, "sysconf"):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtypes == {torch.float32} or (dtypes == {torch.bfloat16} and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def _agree(plain: Callable[[Tensor], Tensor], packed: Callable[[Tensor], Tensor], weight_OI: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(GEMM_ROWS, weight_OI.shape[1], generator=generator).to(weight_OI.dtype)
    expected = plain(x)
    # A few roundings of sums of some thousand products; a number in bf16 is exact to 2^-8 only.
    tolerance = 1e-5 if weight_OI.dtype is torch.float32 else 2e-2
    return bool((packed(x) - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-30))


def rows_are_independent(model: nn.Module) -> bool:
    """Whether a row of each of the model's matrix products has the same bits whatever other rows there are.

    Measured on this processor, product by product, with their gradients: it depends on the CPU, the library, the width
    and the number of threads.
    """
    return all(_has_independent_rows(product, width, matrix) for product, width, matrix in _products(model))


def _products(model: nn.Module) -> Iterator[tuple[Callable[[Tensor], Tensor], int, Tensor]]:
    """(product, width of its rows, its matrix), one of every shape.

    Of a linear layer its product and its gradient's; of any other matrix both products that it can be in. A table of
    embeddings that is no layer's weight is looked up, never multiplied.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linear = {id(layer.weight): (layer, weight) for layer in model.modules() if (weight := _weight(layer)) is not None}
    seen: set[tuple] = set()
    for matrix in model.parameters():
        layer, weight_OI = linear.get(id(matrix), (None, None))
        kind = (tuple(matrix.shape), type(layer))
        if matrix.ndim != 2 or kind in seen or (layer is None and id(matrix) in tables):
            continue
        seen.add(kind)
        if layer is None or weight_OI is None:
            for factor in (matrix, matrix.t()):
                yield factor.__rmatmul__, len(factor), matrix
        else:
            outputs, inputs = weight_OI.shape
            yield layer.forward, inputs, matrix
            yield _gradient_of(layer.forward, inputs), outputs, matrix


def _gradient_of(product: Callable[[Tensor], Tensor], inputs: int) -> Callable[[Tensor], Tensor]:
    if isinstance(product, _FrozenForward):
        return product.gradient  # without its forward, which of a large vocabulary takes as long

    def gradient(gradient_FO: Tensor) -> Tensor:
        with torch.enable_grad():
            x_FI = gradient_FO.new_zeros(len(gradient_FO), inputs, requires_grad=True)
            return torch.autograd.grad(product(x_FI), x_FI, gradient_FO)[0]

    return gradient


@torch.no_grad()
def _has_independent_rows(product: Callable[[Tensor], Tensor], width: int, matrix: Tensor) -> bool:
    # Few and many rows, most just above a power of two, where libraries change kernels; MKL was seen to change at 144.
    sizes = [k * GEMM_ROWS for k in (1, 2, 3, 5, 9, 10, 17, 18, 33, 66)]
    large = matrix.numel() > LARGE
    if large:
        split = isinstance(getattr(product, "__self__", product), _FrozenForward)
        sizes = [k * GEMM_ROWS for k in ((1, 3, 9) if split else (1, 3, 18))] + [
            ROWS_AT_ONCE if split else 66 * GEMM_ROWS
        ]
    x = torch.randn(sizes[-1], width, generator=torch.Generator().manual_seed(0)).to(matrix.dtype)
    whole = product(x)
    return all(
        # Of a large matrix the last rows alone: they stand elsewhere in the product too.
        torch.equal(product(x[-rows:]), whole[-rows:]) and (large or torch.equal(product(x[:rows]), whole[:rows]))
        for rows in sizes[:-1]
    )
