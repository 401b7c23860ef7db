"""What does a model hold between its blocks? Hidden states, read at a row's tokens and written at prompt tokens.

Plain forward hooks on the model's own blocks, which are asked for, not named: the longest list of modules.

Shapes: N prompts, P prompt tokens, B rows, Q positions of a row, S layers, F flat positions of a batch, D width of the
hidden states (of some models not that of the embeddings, d), K feed-forward neurons.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.model.batching import Batch
from promptgeo.model.interface import LM


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

    def check(self, layers: np.ndarray, most: int) -> None:
        """Raises UserError for a layer that there is not."""
        for layer in layers.flat:
            if not 0 <= layer <= most:
                raise UserError(f"layer {layer}: the model has layers 0 to {most} here")

    @contextmanager
    def read(self, layers: Sequence[int], keep: Callable[[int, Tensor], None]) -> Iterator[None]:
        """Within, keep(place in `layers`, states [F, D]) is called of each layer in every forward."""
        layers_S = _whole_numbers("layers", layers, 1)
        self.check(layers_S, len(self.blocks))
        handles = []
        for place, layer in enumerate(layers_S.tolist()):

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
        """Within, block `layer` reads change(states [F, D]) in every forward, and so does who reads the layer later."""
        self.check(_whole_numbers("layer", layer, 0), len(self.blocks) - 1)
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


# What is asked.


class Asked(NamedTuple):
    """Rows to read states of, checked. Where there are none, one stands in: its forward tells how wide states are."""

    prompts_NPd: Tensor
    rows: Sequence[Row]
    prompt_of: list[int]
    positions_BQ: np.ndarray
    """int64: places in each row's text, from its beginning."""


def asked(lm: LM, prompts: Any, rows: Sequence[Row], prompt_of: Sequence[int], positions: Any) -> Asked:
    """What was asked for: arguments as of LM.hidden, prompts also as a numpy array.

    Raises UserError that names the argument which the others, or the model, do not go with.
    """
    prompts_NPd = as_prompts("prompts_NPd", prompts, lm.device)
    count, length, width = prompts_NPd.shape
    if width != lm.width:
        raise UserError(f"prompts_NPd: width {width}, the model's embeddings have {lm.width}")
    if others := [row for row in rows if not isinstance(row, Row)]:
        raise UserError(f"rows: {str(others[0])[:60]} is no Row")
    tokens = np.concatenate([np.zeros(0, np.int64), *(part for row in rows for part in (row.ids, row.label))])
    for token in tokens[(tokens < -length) | (tokens >= lm.token_limit)]:
        raise UserError(
            f"rows: token {token}: prompts have {length} tokens (-1, -2, ...), the model {lm.token_limit} (0, 1, ...)"
        )
    prompt_of_B = _of_rows("prompt_of", prompt_of, 1, len(rows))
    for i in np.flatnonzero((prompt_of_B < 0) | (prompt_of_B >= count)):
        raise UserError(f"prompt_of: {prompt_of_B[i]} of row {i}: there are {count} prompts, counted from 0")
    positions_BQ = _of_rows("positions", positions, 2, len(rows))
    lengths_B1 = np.array([len(row.ids) for row in rows], dtype=np.int64)[:, None]
    for i, q in np.argwhere((positions_BQ < -lengths_B1) | (positions_BQ >= lengths_B1)):
        raise UserError(f"positions: {positions_BQ[i, q]}: row {i} has {lengths_B1[i, 0]} tokens before its label")
    if not len(rows):
        token = np.zeros(1, np.int64)
        return Asked(prompts_NPd, [Row(token, token)], [0], np.zeros((1, positions_BQ.shape[1]), np.int64))
    return Asked(prompts_NPd, rows, prompt_of_B.tolist(), positions_BQ % lengths_B1)


def as_prompts(name: str, numbers: Any, device: torch.device) -> Tensor:
    """[N, P, width] on `device`. Raises UserError, that calls it `name`, where that is not what it is."""
    try:
        found = torch.as_tensor(numbers, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name}: a tensor [prompts, prompt tokens, width] is needed: {error}") from None
    if found.ndim != 3:
        raise UserError(f"{name}: a tensor [prompts, prompt tokens, width] is needed, not {list(found.shape)}")
    return found


def _of_rows(name: str, numbers: Any, axes: int, rows: int) -> np.ndarray:
    found = _whole_numbers(name, numbers, axes)
    if len(found) != rows:
        raise UserError(f"{name}: given for {len(found)} rows, there are {rows}")
    return found


def _whole_numbers(name: str, numbers: Any, axes: int) -> np.ndarray:
    """int64, of so many axes."""
    try:
        found = np.asarray(numbers)
    except (TypeError, ValueError, RuntimeError):  # lists of several lengths
        found = np.array(None)
    if not found.size:
        found = found.reshape(found.shape + (0,) * (axes - found.ndim)).astype(np.int64)
    if found.ndim != axes or found.dtype.kind not in "iu":
        wanted = ("a whole number is", "whole numbers are", "whole numbers, as many of each row, are")[axes]
        raise UserError(f"{name}: {wanted} needed, not {str(numbers)[:60]}")
    return found.astype(np.int64)


# Where it stands in a batch.


def require_one_stream(states_FD: Tensor, batch: Batch) -> None:
    """Raises UserError for a model whose blocks hold more than one state for a position."""
    if len(states_FD) != batch.ids.numel():
        raise UserError("its blocks hold several states for a position: hidden states cannot be read")


def places(batch: Batch, positions_BQ: np.ndarray) -> np.ndarray:
    """[b, Q] int64: where in the batch's flat positions the positions of its rows stand."""
    found = np.empty((len(batch.rows), positions_BQ.shape[1]), dtype=np.int64)
    for k, i in enumerate(batch.rows):
        path = batch.path_of[i] if batch.paths else range(k * batch.ids.shape[1], (k + 1) * batch.ids.shape[1])
        found[k] = [path[q] for q in positions_BQ[i]]
    return found


def at_prompts(states_FD: Tensor, batch: Batch, prompts_NPd: Tensor, states_NPD: Tensor, add: bool) -> Tensor:
    """[F, D]: what a block reads, with states put in place of a batch's prompt tokens, or added to what stands there.

    Raises UserError where there is not one state for each token of the prompts.
    """
    wanted = [*prompts_NPd.shape[:2], states_FD.shape[1]]
    if list(states_NPD.shape) != wanted:
        raise UserError(
            f"states_NPD: {list(states_NPD.shape)} does not fit the prompts given and the width of the layer: {wanted}"
        )
    if not len(batch.prompt_at):
        return states_FD
    require_one_stream(states_FD, batch)
    own = states_NPD.flatten(0, 1)[batch.prompt_from].to(states_FD.dtype)
    if add:
        own = own + states_FD[batch.prompt_at]
    return states_FD.index_copy(0, batch.prompt_at, own)
