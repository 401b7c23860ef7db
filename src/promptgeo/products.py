"""How do the frozen weights of a model multiply? On a CPU from a layout of oneDNN's own, made once because no weight ever changes.

A product lays out its weight for the processor's vector units each time it is called. For the few hundred rows of a soft prompt's minibatch that
takes MKL a third to two thirds of the time (fp32), and oneDNN a tenth to a quarter (bf16).

Shapes: F rows of x, I inputs, O outputs.
"""

import logging
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn

from promptgeo.batching import GEMM_ROWS
from promptgeo.memory import give_back_freed_memory

log = logging.getLogger(__name__)
MEMORY_SHARE = 0.25
"""Of the machine's memory, that the second and third copy of the weights may take. Of all of it, not of what is free: the layout decides bits."""


def lay_out(model: nn.Module) -> bool:
    """Replace the forward of the model's linear layers by products with weights laid out beforehand, forward and backward.

    The same numbers up to rounding, checked on every layer. False, and nothing changed, where that cannot be done: not on a CPU, a kind of
    number that this processor or this PyTorch has no such product for, or weights too large for two more copies.
    """
    layers = [(layer, weight) for layer in model.modules() if (weight := _weight(layer)) is not None]
    if not layers or not _possible({weight.dtype for _, weight in layers}, {weight.device.type for _, weight in layers}):
        return False
    if 2 * sum(weight.nbytes for _, weight in layers) > MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        log.debug("the weights are too large for two more copies: they are laid out at every product")
        return False
    for layer, weight_OI in layers:
        forward = _LaidForward(layer, _Laid(weight_OI))
        if _agree(layer.forward, forward, weight_OI):
            layer.forward = forward
        else:
            log.debug("%s: its product is another one when its weight is laid out", type(layer).__name__)
    return True


def lay_back(model: nn.Module) -> None:
    """Undo lay_out: for torch.compile, which lays out for itself."""
    for layer in model.modules():
        if isinstance(vars(layer).get("forward"), _LaidForward):
            layer.forward = layer.forward.plain


class _Laid:
    """A weight laid out for x @ weight.T and, once it is asked for, for gradient @ weight."""

    def __init__(self, weight_OI: Tensor):
        self._weight_OI = weight_OI.detach()
        self.forward = torch.ops.mkldnn._reorder_linear_weight(self._weight_OI.contiguous(), None)

    @cached_property
    def backward(self) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self._weight_OI.t().contiguous(), None)


class _LaidForward:
    """A linear layer's forward. plain: what it was."""

    def __init__(self, layer: nn.Module, laid: _Laid):
        self.plain, self._laid, self._bias, self._dtype = layer.forward, laid, layer.bias, layer.weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        # A model that was moved or cast after it was frozen still works.
        return _Product.apply(x, self._laid, self._bias) if x.device.type == "cpu" and x.dtype is self._dtype else self.plain(x)


class _Product(torch.autograd.Function):
    """x [..., I] -> [..., O]; neither weight nor bias has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, laid: _Laid, bias: Tensor | None) -> Tensor:
        ctx.laid = laid
        return _multiply(x, laid.forward, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _multiply(gradients[0], ctx.laid.backward, None), None, None


_met: set[tuple[int, torch.Size]] = set()
"""Numbers of rows and shapes of weights that have met in a product."""


def _multiply(x: Tensor, laid: Tensor, bias: Tensor | None) -> Tensor:
    product = torch.ops.mkldnn._linear_pointwise(x, laid, bias, "none", [], "")
    shapes = x.numel() // x.shape[-1], laid.shape
    if shapes not in _met:
        _met.add(shapes)
        # Making the code for a new shape frees megabytes that lie too scattered to be used again.
        if len(_met) % 16 == 0:
            give_back_freed_memory()
    return product


def _weight(layer: nn.Module) -> Tensor | None:
    """[O, I] of a linear layer; None of any other module."""
    if type(layer) is nn.Linear:
        return layer.weight
    if type(layer).__name__ == "Conv1D" and getattr(layer, "weight", None) is not None and layer.weight.ndim == 2:
        return layer.weight.t()  # GPT-2 keeps [I, O]
    return None


def _possible(dtypes: set[torch.dtype], devices: set[str]) -> bool:
    if devices != {"cpu"} or not hasattr(os, "sysconf") or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtypes == {torch.float32} or (dtypes == {torch.bfloat16} and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def _agree(plain: Callable[[Tensor], Tensor], laid: Callable[[Tensor], Tensor], weight_OI: Tensor) -> bool:
    x = torch.randn(GEMM_ROWS, weight_OI.shape[1], generator=torch.Generator().manual_seed(0)).to(weight_OI.dtype)
    expected = plain(x)
    tolerance = 1e-5 if weight_OI.dtype is torch.float32 else 2e-2
    return bool((laid(x) - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-30))


def rows_are_independent(model: nn.Module) -> bool:
    """Whether this processor gives a row of each of the model's matrix products the same bits whatever other rows there are.

    Asked of the processor, product by product and of their gradients: it depends on the CPU, the library, the width and the threads.
    """
    return all(starmap(_rows_are_independent, _products(model)))


def _products(model: nn.Module) -> Iterator[tuple[Callable[[Tensor], Tensor], int, Tensor]]:
    """(product, width of its rows, its matrix), of every shape one: each linear layer's and its gradient's; of other matrices, both that can be."""
    linear = {id(layer.weight): (layer, weight) for layer in model.modules() if (weight := _weight(layer)) is not None}
    met: set[tuple] = set()
    for matrix in model.parameters():
        layer, weight_OI = linear.get(id(matrix), (None, None))
        kind = (tuple(matrix.shape), type(layer))
        if matrix.ndim != 2 or kind in met:
            continue
        met.add(kind)
        if layer is None:
            for factor in (matrix, matrix.t()):
                yield factor.__rmatmul__, len(factor), matrix
        else:
            outputs, inputs = weight_OI.shape
            yield layer.forward, inputs, matrix
            yield _gradient_of(layer.forward, inputs), outputs, matrix


def _gradient_of(product: Callable[[Tensor], Tensor], inputs: int) -> Callable[[Tensor], Tensor]:
    def gradient(gradient_FO: Tensor) -> Tensor:
        with torch.enable_grad():
            x_FI = gradient_FO.new_zeros(len(gradient_FO), inputs, requires_grad=True)
            return torch.autograd.grad(product(x_FI), x_FI, gradient_FO)[0]

    return gradient


@torch.no_grad()
def _rows_are_independent(product: Callable[[Tensor], Tensor], width: int, matrix: Tensor) -> bool:
    sizes = [k * GEMM_ROWS for k in (1, 2, 3, 5, 9, 10, 17, 18, 33, 66)]
    x = torch.randn(sizes[-1], width, generator=torch.Generator().manual_seed(0)).to(matrix.dtype)
    whole = product(x)
    asked = sizes[: 5 if matrix.numel() > 2**24 else None]  # the head of a large model: label positions are few
    return all(torch.equal(product(x[:rows]), whole[:rows]) and torch.equal(product(x[-rows:]), whole[-rows:]) for rows in asked)
