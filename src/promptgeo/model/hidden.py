"""What does a model hold between its blocks? Hidden states, read at a row's tokens and written at prompt tokens.

Plain forward hooks on the model's own blocks, which are asked for, not named: the longest list of modules.

Shapes: N prompts, P prompt tokens, B rows, Q positions of a row, S layers, F flat positions of a batch, D width of the
hidden states (of some models not that of the embeddings, d), K feed-forward neurons.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.model.batching import Batch


class Blocks:
    """The blocks of a model, and what goes into each.

    Layer l is what block l reads, as transformers' output_hidden_states counts: 0 is what the embeddings come to, and
    the last, as many as there are blocks, is what the model ends in, its last norm applied.
    """

    def __init__(self, model: nn.Module, count: int):
        """count: how many blocks the model's config says. Raises UserError where no list of modules has so many."""
        lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
        self.blocks = max(lists, key=len, default=nn.ModuleList())
        if len(self.blocks) != count:
            raise UserError(f"its {count} layers are not found as a list of modules: hidden states cannot be read")
        # Not model.base_model: a head may call what lies in it.
        self.base = next(m for m in model.modules() if any(child is self.blocks for child in m.children()))

    def check(self, layer: int, most: int) -> None:
        """Raises UserError for a layer that there is not."""
        if not 0 <= layer <= most:
            raise UserError(f"layer {layer}: the model has layers 0 to {most} here")

    @contextmanager
    def read(self, layers: Sequence[int], keep: Callable[[int, Tensor], None]) -> Iterator[None]:
        """Within, keep(place in `layers`, states [F, D]) is called of each layer in every forward."""
        handles = []
        for place, layer in enumerate(layers):
            self.check(layer, len(self.blocks))

            def flat(states: Tensor, place: int = place) -> None:
                keep(place, states.reshape(-1, states.shape[-1]))

            if layer < len(self.blocks):
                handles.append(self._before(layer, flat))
            else:
                handles.append(
                    self.base.register_forward_hook(lambda _, __, out, flat=flat: flat(out.last_hidden_state))
                )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def written(self, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within, block `layer` reads change(states [F, D]) in every forward."""
        self.check(layer, len(self.blocks) - 1)
        handle = self._before(layer, lambda states: change(states.reshape(-1, states.shape[-1])).view_as(states))
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def neurons(self, keep: Callable[[Tensor], None]) -> Iterator[None]:
        """Within, keep(pre-activations [F, K]) is called of each block's feed-forward neurons, in the blocks' order.

        Raises UserError for blocks without one activation each that is a module: by what it computes, not its name.
        """
        found = [[module for module in block.modules() if _rectifies(module)] for block in self.blocks]
        if any(len(modules) != 1 for modules in found):
            raise UserError("its blocks have no single module as activation: active neurons cannot be read")

        def look(_: nn.Module, args: tuple) -> None:
            keep(args[0].reshape(-1, args[0].shape[-1]))

        # Blocks may share the module, which then runs once in each of them.
        shared = dict.fromkeys(module for (module,) in found)
        handles = [module.register_forward_pre_hook(look) for module in shared]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, layer: int, look: Callable[[Tensor], Tensor | None]) -> Any:
        def hook(_: nn.Module, args: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
            changed = look(args[0] if args else named["hidden_states"])
            if changed is None:
                return None
            return ((changed, *args[1:]), named) if args else (args, named | {"hidden_states": changed})

        return self.blocks[layer].register_forward_pre_hook(hook, with_kwargs=True)


def _rectifies(module: nn.Module) -> bool:
    """Whether it is a function of single numbers that is near 0 for negative ones and grows for positive ones.

    As ReLU, GELU and SiLU are; dropout, tanh and softmax are not.
    """
    if next(module.parameters(), None) is not None or next(module.children(), None) is not None:
        return False
    probe = torch.tensor([[-8.0, 8.0, -8.0]])
    try:
        with torch.no_grad():
            made = module(probe)
    except Exception:  # a module of another kind: it wants other arguments
        return False
    if not isinstance(made, Tensor) or made.shape != probe.shape:
        return False
    return bool((made[0, [0, 2]].abs() < 0.05).all() and made[0, 1] > 4)


def require_one_stream(states_FD: Tensor, batch: Batch) -> None:
    """Raises UserError for a model whose blocks hold more than one state for a position."""
    if len(states_FD) != batch.ids.numel():
        raise UserError("its blocks hold several states for a position: hidden states cannot be read")


def places(batch: Batch, rows: Sequence[Row], positions: Sequence[Sequence[int]]) -> np.ndarray:
    """[b, Q] int64: where in the batch's flat positions the positions of its rows stand.

    positions: of every row, Q places in its text (Row.ids); negative ones count from the text's end.

    Raises UserError for a place outside of a row's text.
    """
    found = []
    for k, i in enumerate(batch.rows):
        length = len(rows[i].ids)
        wanted = [q + length if q < 0 else q for q in positions[i]]
        if outside := [q for q in wanted if not 0 <= q < length]:
            raise UserError(f"position {outside[0]}: row {i} has {length} tokens before its label")
        path = batch.path_of[i] if batch.paths else range(k * batch.ids.shape[1], (k + 1) * batch.ids.shape[1])
        found.append([path[q] for q in wanted])
    return np.array(found, dtype=np.int64).reshape(len(found), -1)


def at_prompts(batch: Batch, states_NPD: Tensor, add: bool) -> Callable[[Tensor], Tensor]:
    """What puts states in place of a batch's prompt tokens, or adds them to what stands there."""

    def change(states_FD: Tensor) -> Tensor:
        if not len(batch.prompt_at):
            return states_FD
        require_one_stream(states_FD, batch)
        own = states_NPD.flatten(0, 1)[batch.prompt_from].to(states_FD.dtype)
        if add:
            own = own + states_FD[batch.prompt_at]
        return states_FD.index_copy(0, batch.prompt_at, own)

    return change
