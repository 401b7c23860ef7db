"""How does a model attend over a tree of shared prefixes?

This is the one place where rows that lie flat in one sequence are kept apart. Every other layer of a transformer treats
positions one by one, so a position that several rows share (the soft prompt, the template's first words) is computed
once. Attention gathers each row's path from the root, attends causally along it, and reads every position back from one
of the paths it lies on: all of them give it the same value.

Shapes: B rows, T positions of a row, F flat positions of a batch, h heads, w width of a head, d = h * w.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from promptgeo.model.batching import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "promptgeo_tree"


class KeyValueCache:
    """The keys and values of every layer, for the batches that continue a batch's rows (batching.next_tokens)."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []

    def append(self, layer: int, key_Fd: Tensor, value_Fd: Tensor) -> tuple[Tensor, Tensor]:
        """Keep these too; returns all of the layer's so far."""
        if layer == len(self._layers):
            self._layers.append((key_Fd, value_Fd))
        else:
            key, value = self._layers[layer]
            self._layers[layer] = torch.cat([key, key_Fd]), torch.cat([value, value_Fd])
        return self._layers[layer]


class TreeAttention:
    """Lets a model attend along a batch's tree: a model that calls transformers' SDPA function, or BLOOM."""

    def __init__(self, model: "PreTrainedModel"):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self._sdpa: Callable = sdpa_attention_forward
        self._config = model.config.get_text_config()
        self._implementation = self._config._attn_implementation
        self._bloom = [m for m in model.modules() if type(m).__name__ == "BloomAttention" and not m.slow_but_exact]
        self._slopes_h: Tensor | None = None
        """ALiBi's slope of each head; None of a model without."""
        if self._bloom:
            from transformers.models.bloom.modeling_bloom import build_alibi_tensor

            at = next(model.parameters()).device
            two = build_alibi_tensor(torch.ones(1, 2, device=at), self._config.n_head, torch.float32)
            self._slopes_h = two[:, 0, 1]
        self._bloom_kinds: dict[Any, Callable] = {type(m): type(m).forward for m in self._bloom}
        # A function, not a method: it is looked up on a class, which binds the module.
        self._bloom_forward = lambda module, *args, **options: self._attend_bloom(module, *args, **options)
        self._batch: Batch | None = None
        self._cache: KeyValueCache | None = None
        self.calls = 0
        """Of the attention function in the last forward: one per layer, if the model calls it at all."""
        self._functions = ALL_ATTENTION_FUNCTIONS

    @property
    def longest(self) -> int:
        """Rows up to this many positions are whole in every layer's window."""
        windows = (getattr(self._config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        return min((w for w in windows if w), default=1 << 30)  # longer than any row

    @property
    def possible(self) -> bool:
        return self._implementation == "sdpa" or bool(self._bloom)

    @contextmanager
    def over(self, batch: Batch, cache: KeyValueCache | None = None) -> Iterator[None]:
        """Within: the model's forward attends along the batch's paths, and leaves its keys and values in `cache`."""
        self._functions.register(_NAME, self._attend)  # the last registered serves: one model runs at a time
        self._batch, self._cache, self.calls = batch, cache, 0
        self._config._attn_implementation = _NAME
        for kind in self._bloom_kinds:  # the class, not each module: else torch.compile makes a graph for each
            kind.forward = self._bloom_forward
        try:
            yield
        finally:
            self._config._attn_implementation = self._implementation
            for kind, forward in self._bloom_kinds.items():
                kind.forward = forward
            self._batch = self._cache = None

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """query, key, value: [1, h, F, w] -> [1, F, h, w]. The model's mask, made for one flat sequence, is ignored."""
        batch, dtype = self._batch, query.dtype
        assert batch is not None and batch.path_at is not None
        if query.device.type == "cpu" and dtype is torch.bfloat16:
            # In bf16 the backward takes eight times as long on a CPU.
            query, key, value = query.float(), key.float(), value.float()
        options["is_causal"] = True
        query_Fd, key_Fd, value_Fd = (x[0].transpose(0, 1).flatten(1) for x in (query, key, value))
        if self._cache is not None:
            key_Fd, value_Fd = self._cache.append(self.calls, key_Fd, value_Fd)
        if not torch.compiler.is_compiling():  # a graph that counted would be another for every layer
            self.calls += 1
        parts = []
        for k, paths_BT in enumerate(batch.paths):
            lengths_B = batch.path_lengths[k] if batch.path_lengths else None
            query_at = paths_BT if lengths_B is None else batch.query_at[k][:, None]
            along = (
                # embedding, as a gather of rows: the backward of index_select takes ten times as long on two threads.
                embedding(at, flat).unflatten(-1, (-1, x.shape[-1])).transpose(1, 2)
                for at, flat, x in ((query_at, query_Fd, query), (paths_BT, key_Fd, key), (paths_BT, value_Fd, value))
            )
            out_BThw, _ = self._sdpa(module, *along, self._mask(paths_BT.shape[1], lengths_B, query.dtype), **options)
            parts.append(out_BThw.flatten(0, 1))
        out_Fd = embedding(batch.path_at, torch.cat(parts).flatten(1))
        return out_Fd.unflatten(-1, parts[0].shape[1:])[None].to(dtype), None

    def _mask(self, length: int, lengths_B: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What masks the scores of paths of this padded length, ALiBi included; None: they are causal and nothing more.

        lengths_B: queries are the last of this many positions of each path alone; None: all positions.
        """
        if self._slopes_h is None and lengths_B is None:
            return None
        assert self._batch is not None
        at_T = torch.arange(length, device=self._batch.ids.device)
        seen = at_T <= at_T[:, None] if lengths_B is None else (at_T < lengths_B[:, None])[:, None, None]
        if self._slopes_h is None:
            return seen
        alibi_h1T = (self._slopes_h[:, None, None] * at_T).to(dtype)
        masked = alibi_h1T.where(seen, torch.finfo(dtype).min)
        return masked.expand(len(seen) if seen.ndim == 4 else 1, -1, -1, -1)

    def _attend_bloom(self, module: Any, hidden: Tensor, residual: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """The forward of BLOOM's attention, which calls no attention function, with its ALiBi along the paths."""
        query, key, value = module._reshape(module.query_key_value(hidden))
        out = self._attend(module, query, key, value, None, scaling=module.inv_norm_factor)[0]
        return module.dense(out.flatten(2)) + residual, None
