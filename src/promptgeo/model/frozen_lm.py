"""FrozenLM: a causal language model whose weights never change. What does it say at the label positions?

Nothing here knows a model family. What differs between families (scaled, projected or normalised embeddings, positions,
sliding windows, soft-capped logits) is left to the loaded modules: embeddings come from the embedding *module*, logits
from the model's own forward, and right padding with no mask lets the model's default positions stand.

Shapes: N prompts, B rows, P prompt tokens, T text tokens, M label positions, d width of the input embeddings,
V vocabulary.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.model.attention import KeyValueCache, TreeAttention
from promptgeo.model.batching import GEMM_ROWS, MAX_TOKENS, Batch, collate, next_tokens
from promptgeo.model.checks import Reference, require_grid_agrees, run_on, tree_agrees
from promptgeo.model.choosing import Choose, likeliest
from promptgeo.model.cpu_linear import prepack, rows_are_independent, unpack
from promptgeo.model.hidden import Blocks, as_prompts, asked, at_prompts, places, require_one_stream
from promptgeo.model.loading import model_fingerprint, read_model, reads_ids, resolve_device, resolve_precision
from promptgeo.model.remembered import Remembered
from promptgeo.model.tokenizer import leading_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

NUMBERS_PER_POSITION = 34
"""Numbers of the model's width that a layer keeps of a position until its backward.

Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer Models) count 34 bytes, in 16 bits and
with dropout, attention scores apart. Here it is numbers, twice as much, so that an estimate of memory errs on the high
side."""
CPU_BYTES = 2**29
"""Of activations in one forward on a CPU, by that estimate (about half of it in fact: rows share positions). Beyond it
no forward gets faster."""
FEWEST_TOKENS = 1024
"""Positions of a forward on a CPU, at least: large models would else run a few rows at a time."""


class FrozenLM:
    """A frozen causal language model with its tokenizer.

    `FrozenLM.load` loads one by name. `pg.evaluate` scores soft prompts on it; `label_logits` and `write` are what it
    computes. `interface.LM` says what the rest of the package uses of it.

    It is deliberately not an nn.Module: no trainer can cast, save or train it.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: Any, *, name: str = "", fingerprint: str = ""):
        """Freeze a loaded model.

        Args:
            model: a transformers model with a causal head. Its weights are frozen and, on a CPU, prepacked.
            tokenizer: its tokenizer. It needs no pad token.
            name: what errors call it.
            fingerprint: what identifies its numbers, and by which experiments on it are remembered (remembered.py).

        Raises UserError where it has no causal head, looks ahead, or its logits or gradients with a soft prompt are not
        those of the untouched model (checks.py).
        """
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self._running: tuple[Batch, Tensor] | None = None
        self._compiled = False
        head = model.get_output_embeddings()
        if head is None:
            raise UserError(f"model {name}: has no causal language-model head")
        self._remembered = Remembered(model, fingerprint)
        by_ids, shares_prefixes = (self._remembered.get(what, bool) for what in ("by_ids", "shares_prefixes"))
        reference = None
        if by_ids is None or shares_prefixes is None:  # asked before anything of it is changed
            reference = Reference(model, name, announced=reads_ids(fingerprint))
            by_ids = reference.by_ids
        self._by_ids = by_ids
        if self._by_ids:
            log.warning("model %s: its layers read token ids too; where the soft prompt stands, they read id 0", name)
        with torch.no_grad():
            self.width = self.embed(torch.zeros(1, dtype=torch.long, device=self.device)).shape[-1]
        _fuse_gelu(model)
        prepack(model)
        head.register_forward_pre_hook(self._keep_label_positions)
        self._tree = TreeAttention(model)
        self._shares_prefixes = bool(shares_prefixes)
        if reference is not None:
            self._shares_prefixes = self._tree.possible and self._tree_agrees(reference)
            if not self._shares_prefixes:
                require_grid_agrees(reference, self.label_logits, self.dtype)
            self._remembered.keep(by_ids=by_ids, shares_prefixes=self._shares_prefixes)

    @classmethod
    def load(
        cls,
        name_or_path: str = "tiny",
        *,
        revision: str | None = None,
        precision: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> "FrozenLM":
        """Load a model by name. The last one is kept: the next call with the same arguments returns it.

        Args:
            name_or_path: a hub id, a local folder, or tiny, the embedded model.
            revision: a hub branch, tag or commit.
            precision: fp32, bf16, or auto (fp32 on CPU, bf16 on CUDA).
            device: cpu, cuda or auto (CUDA where there is a GPU).
            trust_remote_code: run code that a hub repository brings.

        Raises UserError where the model cannot be found or is not a causal language model.
        """
        device = resolve_device(device)
        return _load(name_or_path, revision, resolve_precision(precision, device), device, trust_remote_code)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def max_positions(self) -> int | None:
        """The largest number of positions (prompt and text, in tokens); None where there is no limit (ALiBi)."""
        return getattr(self._config, "max_position_embeddings", None)

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return self._config.num_hidden_layers

    @property
    def parameters(self) -> int:
        """Number of weights, shared ones counted once."""
        return self.model.num_parameters()

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, without prepacked copies."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    @property
    def _config(self) -> Any:
        return self.model.config.get_text_config()

    @cached_property
    def max_tokens(self) -> int:
        """Positions of one forward: on a CPU as many as keep its activations within a budget."""
        if self.device.type != "cpu":
            return MAX_TOKENS
        return min(max(CPU_BYTES // self.bytes_per_position, FEWEST_TOKENS), MAX_TOKENS)

    @cached_property
    def mixes_prompts(self) -> bool:
        """Whether a row has the same bits whatever other rows are in its batch."""
        known = self._remembered.get("mixes_prompts", bool)
        if known is None:
            known = rows_are_independent(self.model)
            self._remembered.keep(mixes_prompts=known)
        return known

    @property
    def bytes_per_position(self) -> int:
        """Of activations that a position holds until the backward: an estimate meant to be high, not measured."""
        return NUMBERS_PER_POSITION * self._config.hidden_size * self.layers * self.dtype.itemsize

    @property
    def bytes_per_label(self) -> int:
        """Of the logits in the model's dtype, and of three fp32 numbers made of each in loss and backward."""
        return self._config.vocab_size * (3 * 4 + self.dtype.itemsize)

    @property
    def reads_ids(self) -> bool:
        """Whether its layers read token ids beside embeddings, so that embeddings alone do not say what it reads."""
        return self._by_ids

    @property
    def vocabulary_size(self) -> int:
        """V: tokens that the tokenizer can produce and that have an embedding."""
        return min(len(self.tokenizer), self.model.get_input_embeddings().weight.shape[0])

    @property
    def token_limit(self) -> int:
        """Token ids from this one on have no embedding; on a GPU such an id ends the process."""
        return self.model.get_input_embeddings().weight.shape[0]

    @cached_property
    def special_ids(self) -> set[int]:
        """Ids of the tokens that stand for no text: those with a role, and reserved ones."""
        # all_special_ids leaves out those without a role, such as Llama 3's reserved tokens.
        added = self.tokenizer.added_tokens_decoder.items()
        return {*self.tokenizer.all_special_ids, *(i for i, token in added if token.special)}

    @property
    def end_tokens(self) -> set[int]:
        """Ids of the tokens that end a text."""
        ids = self.model.generation_config.eos_token_id if self.model.generation_config is not None else None
        ids = ids if isinstance(ids, list) else [ids]
        return {i for i in (*ids, self.tokenizer.eos_token_id) if i is not None}

    @cached_property
    def bos(self) -> list[int]:
        """Token ids that its tokenizer puts before a text; none of many models."""
        return leading_tokens(self.tokenizer)

    @cached_property
    def embedding_scale(self) -> float:
        """Standard deviation of all entries of the vocabulary's embeddings: the unit of a prompt's coordinates."""
        known = self._remembered.get("embedding_scale", float)
        if known is None:
            known = self._measured_scale()
            self._remembered.keep(embedding_scale=known)
        return known

    def _measured_scale(self) -> float:
        total = squares = 0.0
        with torch.no_grad():
            for ids in torch.arange(self.vocabulary_size, device=self.device).split(16384):
                part = self.embed(ids).double()
                total, squares = total + float(part.sum()), squares + float(part.square().sum())
        count = self.vocabulary_size * self.width
        return (squares / count - (total / count) ** 2) ** 0.5

    @cached_property
    def embedding_normal(self) -> tuple[Tensor, Tensor]:
        """([d], scalar), fp32: the embeddings' mean, and the root of their covariance's mean eigenvalue."""
        table_Vd = self.vocabulary()
        return table_Vd.mean(0), table_Vd.var(0).mean().sqrt()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def token_text(self, token: int) -> str:
        """The text of one token; special tokens are written out."""
        return self.tokenizer.decode([int(token)], clean_up_tokenization_spaces=False)

    def vocabulary(self) -> Tensor:
        """[V, d] fp32 on CPU: the embedding of every token the tokenizer can produce."""
        with torch.no_grad():
            # In parts, so that a GPU holds no second copy of a large vocabulary in fp32.
            parts = torch.arange(self.vocabulary_size, device=self.device).split(16384)
            return torch.cat([self.embed(ids).float().cpu() for ids in parts])

    def unembedding(self) -> Tensor | None:
        """[V, d] fp32 on CPU: the output layer's row of every such token; None where it is not as wide as a prompt.

        Tied embeddings give `vocabulary`'s, up to what the embedding module does to them (Gemma: times sqrt(d)).
        """
        weight_Vd = self.model.get_output_embeddings().weight.detach()
        if weight_Vd.shape[1] != self.width:
            return None
        return weight_Vd[: self.vocabulary_size].float().cpu()

    def embed(self, ids: Tensor) -> Tensor:
        """ids of any shape, int64 -> [..., d] in the model's dtype: as the first layer gets them, scaled and all."""
        return self.model.get_input_embeddings()(ids)

    def batches(self, rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int) -> Iterator[Batch]:
        """The rows as batches on the model's device.

        On a CPU a batch holds rows of several prompts only where that changes no bit: a run in a pack equals the run
        alone.

        Args:
            rows: of any lengths, the rows of one prompt side by side.
            prompt_of: the prompt of each row, 0 to N - 1.
            prompt_length: P.
        """
        # With dropout on, rows that shared a position would share its mask.
        share_up_to = self._tree.longest if self._shares_prefixes and not self.model.training else 0
        several = bool(prompt_of) and prompt_of[0] != prompt_of[-1]
        batches = collate(
            rows,
            prompt_of,
            prompt_length,
            self.max_tokens,
            separate_prompts=several and self.device.type == "cpu" and not self.mixes_prompts,
            share_up_to=share_up_to,
        )
        return (batch.to(self.device) for batch in batches)

    def label_logits(self, prompts_NPd: Tensor, batch: Batch, cache: KeyValueCache | None = None) -> Tensor:
        """[M, V] fp32 logits at the batch's label positions.

        Args:
            prompts_NPd: fp32 soft prompts, on the model's device; the logits are differentiable in them.
            batch: one of `batches`.
            cache: keeps a tree's keys and values, and has those of the batches that this one continues.
        """
        embeds = self.embed(batch.ids)
        if len(batch.prompt_at):
            flat_Fd = embeds.reshape(-1, self.width)
            # embedding, as a gather of rows: on a GPU the backward of index_select adds in another order each time.
            tokens = embedding(batch.prompt_from, prompts_NPd.reshape(-1, self.width)).to(flat_Fd.dtype)
            embeds = flat_Fd.index_copy(0, batch.prompt_at, tokens).view_as(embeds)
        self._running = batch, prompts_NPd
        try:
            with (
                self._tree.over(batch, cache) if batch.paths else nullcontext(),
                self._eager_if(cache is not None),
            ):
                # Not every family has the argument, and none needs it in a grid.
                places = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
                logits = run_on(self.model, batch.ids, embeds, self._by_ids, **places)
        finally:
            self._running = None
        return logits.squeeze(0).float()  # not [0]: its backward fills an array of this size

    def _keep_label_positions(self, head: nn.Module, args: tuple) -> tuple | None:
        # The head alone is a third to a half of a small model's work; most positions predict nothing we score.
        if self._running is None:
            return None
        hidden, label_at_M = args[0], self._running[0].label_at_M
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, label_at_M)[None], *args[1:])

    def _tree_agrees(self, reference: Reference) -> bool:
        return tree_agrees(reference, self.label_logits, self.dtype) and self._tree.calls == self.layers

    @torch.no_grad()
    def write(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        max_new_tokens: int,
        finished: Callable[[int, list[int]], bool] = lambda row, tokens: False,
        begun: Sequence[list[int]] | None = None,
        choose: Choose = likeliest,
    ) -> list[list[int]]:
        """A continuation of each row's text (its label is not looked at), as token ids.

        A row ends after max_new_tokens, at an end-of-sequence token (kept), or where `finished` says so. A tree's rows
        continue from its keys and values; a grid's run whole for every token.

        Args:
            prompts_NPd: fp32 soft prompts.
            rows: of any lengths, the rows of one prompt side by side.
            prompt_of: the prompt of each row, 0 to N - 1.
            max_new_tokens: tokens to write, at most.
            finished: whether row i is done with the tokens that it has so far.
            begun: each row's first tokens, where they are known.
            choose: the next token of each row, of its logits.
        """
        continuations: list[list[int]] = [list(tokens) for tokens in begun] if begun else [[] for _ in rows]

        def unfinished(i: int) -> bool:
            return not continuations[i] or self._goes_on(continuations[i], max_new_tokens, partial(finished, i))

        def active_finished(j: int, tokens: list[int]) -> bool:
            return finished(active[j], tokens)

        def active_choose(logits_MV: Tensor, places: Sequence[int]) -> Tensor:
            return choose(logits_MV, [active[j] if 0 <= j < len(active) else -1 for j in places])

        active = [i for i in range(len(rows)) if unfinished(i)]
        while active:
            # The row so far, with one token to predict (whose value no logit depends on).
            grown = [_extended(rows[i], continuations[i]) for i in active]
            for batch in self.batches(grown, [prompt_of[i] for i in active], prompts_NPd.shape[1]):
                longest = max(grown[j].length for j in batch.rows) + max_new_tokens
                cache = self._cache(batch, longest)
                row_M = batch.row_M.tolist()
                chosen_M = active_choose(self.label_logits(prompts_NPd, batch, cache), row_M)
                for j, token in zip(row_M, chosen_M.tolist(), strict=True):
                    if 0 <= j < len(grown):
                        continuations[active[j]].append(token)
                if cache is not None:
                    written = {j: continuations[active[j]] for j in batch.rows}
                    self.write_on(prompts_NPd, batch, cache, written, max_new_tokens, active_finished, active_choose)
            active = [i for i in active if unfinished(i)]
        return continuations

    def cache_for(self, batch: Batch, longest: int) -> KeyValueCache | None:
        """An empty cache for `label_logits`, where `write_on` can continue this batch's rows from it.

        None where they must run whole: a grid's, or rows that may grow to more positions (`longest`) than the model's
        window; and of a compiled model, which would run the batch uncompiled.
        """
        return None if self._compiled else self._cache(batch, longest)

    def _cache(self, batch: Batch, longest: int) -> KeyValueCache | None:
        return KeyValueCache() if batch.paths and longest <= self._tree.longest else None

    @torch.no_grad()
    def write_on(
        self,
        prompts_NPd: Tensor,
        batch: Batch,
        cache: KeyValueCache,
        written: dict[int, list[int]],
        max_new_tokens: int,
        finished: Callable[[int, list[int]], bool] = lambda row, tokens: False,
        choose: Choose = likeliest,
    ) -> None:
        """Continue rows of a tree from its keys and values, one position for a token; rows end as in `write`.

        Args:
            prompts_NPd: fp32 soft prompts.
            batch: a tree whose forward filled the cache; a row's path ends before the last token that it has so far.
            cache: the keys and values of that forward.
            written: row -> the tokens it has so far, one at least; further ones are appended.
            max_new_tokens: tokens of each row, at most.
            finished: whether a row is done with the tokens that it has so far.
            choose: the next token of each row, of its logits.
        """

        def last_tokens() -> dict[int, int]:
            going = (i for i, so_far in written.items() if self._goes_on(so_far, max_new_tokens, partial(finished, i)))
            return {i: written[i][-1] for i in going}

        while tokens := last_tokens():
            batch = next_tokens(batch, tokens).to(self.device)
            chosen_M = choose(self.label_logits(prompts_NPd, batch, cache), batch.row_M.tolist())
            for i, token in zip(tokens, chosen_M.tolist(), strict=False):  # what follows is padding
                written[i].append(token)

    def _goes_on(self, tokens: list[int], max_new_tokens: int, finished: Callable[[list[int]], bool]) -> bool:
        """Whether a row that has these tokens is not done yet."""
        return len(tokens) < max_new_tokens and tokens[-1] not in self.end_tokens and not finished(tokens)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.model, self.layers)

    @torch.no_grad()
    def hidden(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        layers: Sequence[int],
        positions: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Of each layer [B, Q, D] fp32 on CPU: hidden states, those of transformers' output_hidden_states.

        Args:
            prompts_NPd: fp32 soft prompts.
            rows: B of any lengths, the rows of one prompt side by side.
            prompt_of: the prompt of each row, 0 to N - 1.
            layers: S of 0 (what the embeddings come to) to `layers` (behind the last norm).
            positions: of each row Q places in its text, prompt tokens among them; negative ones from the text's end.

        Raises UserError for an argument that does not go with the others or the model, and where the model's blocks
        cannot be found.
        """
        count = len(rows)
        prompts_NPd, rows, prompt_of, positions_BQ = asked(self, prompts_NPd, rows, prompt_of, positions)
        read: list[Tensor] = []
        for batch in self.batches(rows, prompt_of, prompts_NPd.shape[1]):
            at_bQ = torch.from_numpy(places(batch, positions_BQ)).to(self.device)
            own: dict[int, Tensor] = {}

            def keep(
                place: int,
                states_FD: Tensor,
                batch: Batch = batch,
                at_bQ: Tensor = at_bQ,
                own: dict[int, Tensor] = own,
            ) -> None:
                require_one_stream(states_FD, batch)
                own[place] = states_FD[at_bQ].float().cpu()

            # What the labels' logits are does not matter: as few as a product may have.
            few = replace(batch, label_at_M=batch.label_at_M[:GEMM_ROWS])
            with self._blocks.read(layers, keep):
                self.label_logits(prompts_NPd, few)
            # Layers may differ in width: OPT's last is projected.
            read = read or [torch.empty((len(rows), *own[place].shape[1:])) for place in range(len(layers))]
            for place, states_BQD in enumerate(read):
                states_BQD[batch.rows] = own[place]
        return [states_BQD[:count] for states_BQD in read]

    @torch.no_grad()
    def active_neurons(self, prompts_NPd: Tensor, rows: Sequence[Row], prompt_of: Sequence[int]) -> Tensor:
        """[B, K] bool on CPU: which feed-forward neurons of all blocks are active at each row's last text token.

        Active: its pre-activation is above 0 (Su et al. 2022, arXiv 2111.06719). Arguments as for `hidden`.

        Raises UserError where the blocks, or their activations, cannot be found, and for arguments as `hidden` does.
        """
        count = len(rows)
        prompts_NPd, rows, prompt_of, ends_B1 = asked(self, prompts_NPd, rows, prompt_of, np.full((count, 1), -1))
        read = torch.empty((len(rows), 0), dtype=torch.bool)
        for batch in self.batches(rows, prompt_of, prompts_NPd.shape[1]):
            at_b = torch.from_numpy(places(batch, ends_B1)[:, 0]).to(self.device)
            own: list[Tensor] = []

            def keep(states_FK: Tensor, batch: Batch = batch, at_b: Tensor = at_b, own: list[Tensor] = own) -> None:
                require_one_stream(states_FK, batch)
                own.append((states_FK[at_b] > 0).cpu())

            few = replace(batch, label_at_M=batch.label_at_M[:GEMM_ROWS])
            with self._blocks.neurons(keep):
                self.label_logits(prompts_NPd, few)
            if len(own) != self.layers:
                raise UserError("its activations do not run once in each block: active neurons cannot be read")
            active_bK = torch.cat(own, dim=1)
            if not read.shape[1]:
                read = torch.empty((len(rows), active_bK.shape[1]), dtype=torch.bool)
            read[batch.rows] = active_bK
        return read[:count]

    @contextmanager
    def patched(self, layer: int, states_NPD: Tensor, add: bool = False) -> Iterator[None]:
        """Within, block `layer` reads these states where prompt tokens stand, whatever runs on the model.

        `hidden` too. Patches may stand one within another: each changes what the outer ones leave.

        Args:
            layer: 0 to `layers` - 1.
            states_NPD: of each prompt that will be given, fp32; a numpy array is taken too.
            add: to what stands there, not in its place.

        Raises UserError for a layer that there is not; and in a forward whose prompts, or whose hidden states, are not
        those of the states' shape.
        """
        states_NPD = as_prompts("states_NPD", states_NPD, self.device)

        def change(states_FD: Tensor) -> Tensor:
            return at_prompts(states_FD, *self._running, states_NPD, add) if self._running else states_FD

        with self._blocks.written(layer, change):
            yield

    @contextmanager
    def dropout(self) -> Iterator[None]:
        """Within: the model's own dropout is on; it is in eval mode at all other times."""
        self.model.train()
        try:
            yield
        finally:
            self.model.eval()

    def compile(self, backend: str = "inductor") -> None:
        """Let torch.compile fuse the blocks, for whatever shapes come: equal up to rounding, no longer bit by bit.

        One block's graph serves all blocks: to compile a large model whole takes minutes.
        """
        if self._compiled:
            return
        unpack(self.model)
        lists = (m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == self.layers)
        for block in next(lists, [self.model.base_model]):  # never the head: its hook's positions would be compiled in
            block.compile(dynamic=True, backend=backend)
        self._compiled = True

    def _eager_if(self, eager: bool) -> AbstractContextManager:
        """Within, if eager, no compiled code runs: a graph would hold one layer's place in the cache."""
        return torch.compiler.set_stance("force_eager") if eager and self._compiled else nullcontext()


def _extended(row: Row, tokens: Sequence[int]) -> Row:
    return Row(np.concatenate([row.ids, np.array(tokens, dtype=np.int64)]), np.zeros(1, np.int64))


@lru_cache(maxsize=1)  # two large models may not fit side by side
def _load(name_or_path: str, revision: str | None, precision: str, device: str, trust_remote_code: bool) -> FrozenLM:
    model, tokenizer = read_model(name_or_path, revision, precision, device, trust_remote_code)
    fingerprint = model_fingerprint(name_or_path, revision, trust_remote_code)
    return FrozenLM(model, tokenizer, name=name_or_path, fingerprint=fingerprint)


def _fuse_gelu(model: nn.Module) -> None:
    """Replace the tanh approximation of GELU, spelt out in some 20 elementwise operations, by torch's own kernel.

    The same function to 1e-6 in fp32, checked on each module from -8 to 8, beyond which GELU is 0 or the identity; and
    a fifth of the memory traffic.
    """
    probe = torch.linspace(-8, 8, 1001)
    fused = nn.GELU(approximate="tanh").eval()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if "gelu" in type(child).__name__.lower() and not list(child.parameters()) and not list(child.children()):
                with torch.no_grad():
                    same = torch.allclose(child(probe), fused(probe), rtol=0, atol=1e-6)
                if same:
                    setattr(parent, name, fused)
