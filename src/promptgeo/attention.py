"""Attention over a tree of shared prefixes: the one place where rows that lie flat in one sequence are told apart.

Every other layer of a transformer treats positions one by one, so a position that several rows share (the soft prompt, the
template's first words) is computed once. Attention gathers each row's path from the root, attends causally along it, and
reads every position back from one of the paths it lies on: all of them give it the same value.

Shapes: B rows, T positions of a row, F flat positions of a batch, h heads, w width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from promptgeo.batching import Batch

_NAME = "promptgeo_tree"


class TreeAttention:
    """Switches a model that attends by transformers' SDPA function to a batch's tree, for one forward."""

    def __init__(self, model: nn.Module):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self._sdpa = sdpa_attention_forward
        self._config = model.config.get_text_config()
        self._batch: Batch | None = None
        self.calls = 0
        """Of the attention function in the last forward: one per layer, if the model's attention can be told."""
        self._functions = ALL_ATTENTION_FUNCTIONS

    @property
    def longest(self) -> int:
        """Rows up to this many positions are whole in every layer's window."""
        windows = (getattr(self._config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        return min((w for w in windows if w), default=1 << 30)

    @property
    def possible(self) -> bool:
        return self._config._attn_implementation == "sdpa"

    @contextmanager
    def over(self, batch: Batch) -> Iterator[None]:
        """Within: the model's forward attends along the batch's paths."""
        self._functions.register(_NAME, self._attend)  # the last registered serves: one model runs at a time
        self._batch, self.calls = batch, 0
        self._config._attn_implementation = _NAME
        try:
            yield
        finally:
            self._config._attn_implementation = "sdpa"
            self._batch = None

    def _attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options) -> tuple[Tensor, None]:
        """query, key, value: [1, h, F, w] -> [1, F, h, w]. Whatever mask the model made for one flat sequence does not apply."""
        self.calls += 1
        options["is_causal"] = True
        flat = [x[0].transpose(0, 1).flatten(1) for x in (query, key, value)]  # [F, h * w]
        # embedding, as a gather of rows: the backward of index_select takes ten times as long on two threads.
        parts = []
        for paths_BT in self._batch.paths:
            along = (
                embedding(paths_BT, f).unflatten(-1, (-1, x.shape[-1])).transpose(1, 2)
                for f, x in zip(flat, (query, key, value), strict=True)
            )
            out_BThw, _ = self._sdpa(module, *along, None, **options)
            parts.append(out_BThw.flatten(0, 1))
        return embedding(self._batch.path_at, torch.cat(parts).flatten(1)).unflatten(-1, parts[0].shape[1:])[None], None
