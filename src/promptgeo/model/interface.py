"""What may training, evaluation and analyses use of a language model? `LM`; `FrozenLM` implements it.

Shapes: N prompts, P prompt tokens, M label positions, d width of the input embeddings, V vocabulary,
B rows, K feed-forward neurons of all blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from promptgeo.data.row import Row
from promptgeo.data.tasks import TextModel
from promptgeo.model.attention import KeyValueCache
from promptgeo.model.batching import Batch
from promptgeo.model.choosing import Choose


class LM(TextModel, Protocol):
    """A causal language model whose weights never change.

    Text (`encode`, `decode`, `max_positions`) comes from `tasks.TextModel`. What a caller needs beyond these members
    becomes a new one; no caller looks at the model behind them.
    """

    # What it is

    @property
    def name(self) -> str:
        """The hub id or folder it was loaded from."""

    @property
    def fingerprint(self) -> str:
        """What identifies its numbers: a hub id with its commit, or a digest of a folder's files."""

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""

    @property
    def width(self) -> int:
        """d: width of the input embeddings, so of a soft prompt; some models are wider inside."""

    @property
    def layers(self) -> int:
        """Number of blocks."""

    @property
    def parameters(self) -> int:
        """Number of weights, shared ones counted once."""

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, without prepacked copies."""

    @property
    def embedding_scale(self) -> float:
        """Standard deviation of all entries of the vocabulary's embeddings: the unit of a prompt's coordinates."""

    @property
    def embedding_normal(self) -> tuple[Tensor, Tensor]:
        """([d], scalar), fp32: the embeddings' mean, and the root of their covariance's mean eigenvalue."""

    # What its memory holds

    @property
    def max_tokens(self) -> int:
        """Positions that one forward may hold."""

    @property
    def bytes_per_position(self) -> int:
        """Of activations that a position holds until the backward: an estimate, on the high side."""

    @property
    def bytes_per_label(self) -> int:
        """Of logits and what is made of them, that a label position holds until the backward: likewise."""

    @property
    def reads_ids(self) -> bool:
        """Whether its layers read token ids beside embeddings, so that embeddings alone do not say what it reads."""

    # Tokens

    @property
    def vocabulary_size(self) -> int:
        """V: tokens that the tokenizer can produce and that have an embedding."""

    @property
    def special_ids(self) -> set[int]:
        """Ids of the tokens that stand for no text: those with a role, and reserved ones."""

    @property
    def end_tokens(self) -> set[int]:
        """Ids of the tokens that end a text."""

    def token_text(self, token: int) -> str:
        """The text of one token; special tokens are written out."""

    def vocabulary(self) -> Tensor:
        """[V, d] fp32 on CPU: the embedding of every token."""

    def unembedding(self) -> Tensor | None:
        """[V, d] fp32 on CPU: the row of the output layer that writes each token, without a bias.

        None where that layer is of another width than the input embeddings. Tied embeddings: what `vocabulary` gives,
        up to a scale.
        """

    def embed(self, ids: Tensor) -> Tensor:
        """ids of any shape, int64 -> [..., d] in the model's dtype: as the first layer gets them, scaled and all."""

    # Running it

    def batches(self, rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int) -> Iterator[Batch]:
        """The rows as batches on the model's device.

        prompt_of: the prompt of each row, 0 to N - 1, the rows of one side by side. prompt_length: P.
        """

    def label_logits(self, prompts_NPd: Tensor, batch: Batch, cache: KeyValueCache | None = None) -> Tensor:
        """[M, V] fp32 logits at the batch's label positions; differentiable in the fp32 prompts."""

    def write(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        max_new_tokens: int,
        finished: Callable[[int, list[int]], bool] = ...,
        begun: Sequence[list[int]] | None = None,
        choose: Choose = ...,
    ) -> list[list[int]]:
        """A continuation of each row's text as token ids, each chosen by choose(logits [M, V], the row of each).

        By default the likeliest (greedy). A row ends after max_new_tokens, at an end token, or where finished(row, its
        tokens so far) says so. begun: the first tokens of each, where they are known.
        """

    def cache_for(self, batch: Batch, longest: int) -> KeyValueCache | None:
        """An empty cache for label_logits, to continue the batch's rows from; None where they must run whole.

        longest: positions of a row, at most, with all that will be written.
        """

    def write_on(
        self,
        prompts_NPd: Tensor,
        batch: Batch,
        cache: KeyValueCache,
        written: dict[int, list[int]],
        max_new_tokens: int,
        finished: Callable[[int, list[int]], bool] = ...,
        choose: Choose = ...,
    ) -> None:
        """Continue rows of a batch from the cache that its forward filled, appending to `written`.

        written: row -> its tokens so far, one at least; the row's path in the batch ends before the last of them
        (batching.cut_back).
        """

    def hidden(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        layers: Sequence[int],
        positions: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Of each layer (0 to `layers`) [B, Q, D] fp32 on CPU: hidden states at Q places of each row's text."""

    def active_neurons(self, prompts_NPd: Tensor, rows: Sequence[Row], prompt_of: Sequence[int]) -> Tensor:
        """[B, K] bool on CPU: which feed-forward neurons of all blocks are active at each row's last text token.

        Raises UserError where they cannot be found.
        """

    def patched(self, layer: int, states_NPD: Tensor, add: bool = False) -> AbstractContextManager[None]:
        """Within: block `layer` reads these states where prompt tokens stand; or these are added to what it reads.

        The prompts of every forward within are N of P tokens. One patch may stand within another.
        """

    def dropout(self) -> AbstractContextManager[None]:
        """Within: the model's own dropout is on; at all other times it is off."""

    def compile(self, backend: str = "inductor") -> None:
        """Let torch.compile fuse the forward, for whatever shapes come: equal up to rounding from then on."""
