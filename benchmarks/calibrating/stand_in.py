"""A known function from prompts to answers that stands in for a language model, so that the truth is known.

How well a prompt does at a task is its *level*, which the world says. An example is answered rightly where

    GAIN * (level(prompt, task) + SPREAD * difficulty(example) + flip * noise(prompt, example)) > 0

with a difficulty N(0, 1) of each example and a noise of mean 0 and variance 1 that changes with any change of the
prompt (cosines of high frequency). Both are drawn anew with each draw's seed. The level is differentiable in the
prompts, so that paths and subspaces can be trained.

Shapes: N prompts, P prompt tokens, M label positions, d width, V vocabulary, U different rows.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptgeo.data.row import Row
from promptgeo.errors import UserError

WIDTH = 16
TOKENS = 640
GAIN, SPREAD, FREQUENCY = 4.0, 1.0, 40.0
UNLIKELY = -8.0
"""Logit of a token that is neither the label nor one of the two wrong answers."""
PART = 2048
"""Rows of one batch."""
NAMELESS = {f"t{i}": i for i in range(480, TOKENS)}
"""Tokens that stand for no word of any task, by what is written for them: what a patched prompt is read as."""
WRONG = (" 999", " nothing")
"""What is written where the answer is wrong: a number or a word."""

Answers = dict[tuple[bytes, bytes], tuple[str, ...]]
"""content_of(row) -> the tasks whose answer its label is."""
Level = Callable[[Tensor, str], Tensor]
"""(means of prompts [N, d], name of a task, "" for a label of none) -> levels [N]."""


@dataclass(frozen=True)
class Rows:
    """What `batches` gives: as much of a Batch as evaluation and analyses read."""

    rows: list[int]
    contents: list[Row]
    prompt_M: Tensor
    row_M: Tensor
    targets_M: Tensor
    first_M: Tensor
    """bool: the label's first token, by which right and wrong are decided."""


class StandIn:
    """An LM (see promptgeo.model.interface) whose answers are known."""

    name, fingerprint = "stand-in", "stand-in"
    device, dtype = torch.device("cpu"), torch.float32
    width, layers, parameters, weight_bytes = WIDTH, 2, 1, 1
    reads_ids = False
    max_tokens, bytes_per_position, bytes_per_label = 2**20, 1, 1
    vocabulary_size = token_limit = TOKENS
    hears = True
    """Whether states that are added do anything."""
    max_positions = None
    bos: tuple[int, ...] = ()
    special_ids: set[int] = frozenset({0})
    end_tokens: set[int] = frozenset({0})

    def __init__(self, words: Sequence[str] = ()):
        """words: that have a vector of their own from the start (init words)."""
        generator = np.random.default_rng(20)
        self._texts = ["<none>", "\n", *WRONG, *(f" {word}" for word in words)]
        self._ids = {text: i for i, text in enumerate(self._texts)}
        self.embeddings_Vd = torch.from_numpy(generator.normal(size=(TOKENS, WIDTH)).astype(np.float32))
        self.embedding_scale = float(self.embeddings_Vd.std())
        # What is said where nothing is to be answered: the model's own, so the same in all draws.
        self._mixing_dk = torch.from_numpy(generator.normal(size=(WIDTH, 8)).astype(np.float32) * FREQUENCY / 4)
        self._logits_kV = torch.from_numpy(generator.normal(size=(8, TOKENS)).astype(np.float32) * 0.5)
        self.answers: Answers = {}
        self.set_world(lambda mean_Nd, task: torch.zeros(len(mean_Nd)), 0.0, {}, 0)

    def set_world(self, level: Level, flip: float, answers: "Answers", seed: int) -> None:
        """What prompts can do from now on, how much each answer depends on chance, and what the tasks' answers are."""
        self._level, self._flip, self.answers = level, flip, answers
        self._generator = np.random.default_rng([seed, 1])
        self._known: dict[tuple[bytes, bytes], int] = {}
        self._number: dict[int, tuple[Row, int]] = {}
        self._directions = np.empty((0, WIDTH), np.float32)
        self._phases = np.empty((0, 2), np.float32)
        self._tasks: list[tuple[str, ...]] = []
        self._added_NPd: Tensor | None = None

    # Text.

    def encode(self, text: str) -> list[int]:
        return [self._id(piece) for piece in re.findall(r" ?[^\W_]+|\s|[^\w\s]|_", text)]

    def _id(self, piece: str) -> int:
        if piece.lstrip() in NAMELESS:
            return NAMELESS[piece.lstrip()]
        if piece not in self._ids:
            if len(self._texts) == TOKENS:
                raise ValueError(f"more than {TOKENS} tokens: fewer examples, or more TOKENS")
            self._ids[piece] = len(self._texts)
            self._texts.append(piece)
        return self._ids[piece]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.token_text(i) for i in ids if i)

    def token_text(self, token: int) -> str:
        return self._texts[token] if token < len(self._texts) else f" t{token}"

    def vocabulary(self) -> Tensor:
        return self.embeddings_Vd

    def unembedding(self) -> Tensor:
        return self.embeddings_Vd

    def embed(self, ids: Tensor) -> Tensor:
        return self.embeddings_Vd[ids]

    # Answers.

    def batches(self, rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int) -> Iterator[Rows]:
        for start in range(0, len(rows), PART):
            some = range(start, min(start + PART, len(rows)))
            lengths = [len(rows[i].label) for i in some]
            first_M = np.zeros(sum(lengths), bool)
            first_M[np.cumsum([0, *lengths[:-1]])] = True
            yield Rows(
                list(some),
                list(rows),
                torch.from_numpy(np.repeat([prompt_of[i] for i in some], lengths)),
                torch.from_numpy(np.repeat(list(some), lengths)),
                torch.from_numpy(np.concatenate([rows[i].label for i in some])),
                torch.from_numpy(first_M),
            )

    def label_logits(self, prompts_NPd: Tensor, batch: Rows, cache: None = None) -> Tensor:
        """[M, V]: the label and the two wrong answers stand out; the rest is a function of the prompt.

        A state that is added at the end of an input does what a prompt there would; the input's own last token nothing.
        """
        if self._added_NPd is not None:
            prompts_NPd = self._added_NPd if self.hears else torch.zeros_like(self._added_NPd)
        features_Nk = torch.cos(_weighted(prompts_NPd) @ self._mixing_dk)
        logits_MV = (features_Nk @ self._logits_kV)[batch.prompt_M] + UNLIKELY
        first = torch.nonzero(batch.first_M & (batch.targets_M != 0))[:, 0]
        later = torch.nonzero(~batch.first_M)[:, 0]
        rows_F = [batch.contents[i] for i in batch.row_M[first].tolist()]
        right_F, numeric_F = self._scores(prompts_NPd, batch.prompt_M[first], rows_F)
        logits_MV[first, batch.targets_M[first]] = right_F
        logits_MV[first, 2] = numeric_F
        logits_MV[first, 3] = -numeric_F
        logits_MV[later, batch.targets_M[later]] = -UNLIKELY
        return logits_MV

    def _scores(self, prompts_NPd: Tensor, prompt_F: Tensor, rows_F: list[Row]) -> tuple[Tensor, Tensor]:
        """(how far each answer lies on the right side, which wrong answer it would be), of F rows."""
        if not rows_F:
            return torch.empty(0), torch.empty(0)
        unit_F = torch.tensor([self._unit(row) for row in rows_F])
        mean_Nd = prompts_NPd.mean(1) if prompts_NPd.shape[1] else prompts_NPd.sum(1)
        tasks_F = [self._tasks[u] for u in unit_F.tolist()]
        kinds = list(dict.fromkeys(tasks_F))
        levels_TN = torch.stack([self._best_level(mean_Nd, kind) for kind in kinds])
        task_F = torch.tensor([kinds.index(tasks) for tasks in tasks_F])
        phases_F2 = torch.from_numpy(self._phases)[unit_F]
        angle_F = (_weighted(prompts_NPd)[prompt_F] * torch.from_numpy(self._directions)[unit_F]).sum(1)
        noise_F = 2**0.5 * torch.cos(angle_F + phases_F2[:, 0]).detach()  # no training could follow it
        right_F = GAIN * (levels_TN[task_F, prompt_F] + SPREAD * phases_F2[:, 1] + self._flip * noise_F)
        return right_F, 0.1 * torch.sin(3 * angle_F)

    def _best_level(self, mean_Nd: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """[N]: an answer that is several tasks' is given by whatever is good at one of them."""
        return torch.stack([self._level(mean_Nd, task) for task in tasks or ("",)]).amax(0)

    def _unit(self, row: Row) -> int:
        """The number of a row's content; equal rows have one."""
        if id(row) not in self._number:
            content = content_of(row, () if self._added_NPd is None else self.encode(":"))
            if content not in self._known:
                self._known[content] = len(self._tasks)
                self._tasks.append(self.answers.get(content, ()))
                drawn = self._generator.normal(size=WIDTH + 2).astype(np.float32)
                self._directions = np.vstack([self._directions, FREQUENCY * drawn[None, :WIDTH]])
                # Phases need no uniform: at this frequency the angle alone is uniform but for the empty prompt.
                self._phases = np.vstack([self._phases, [[9 * drawn[WIDTH], drawn[WIDTH + 1]]]]).astype(np.float32)
            self._number[id(row)] = row, self._known[content]
        return self._number[id(row)][1]

    @torch.no_grad()
    def write(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        max_new_tokens: int,
        finished: Callable[[int, list[int]], bool] = lambda i, tokens: False,
        begun: Sequence[list[int]] | None = None,
    ) -> list[list[int]]:
        """The likeliest first token, the rest of the label where that is its first, and the end of a line.

        Under a patch: the nameless tokens nearest to what stands at the row's prompt tokens, by cosine.
        """
        if self._patch is not None:
            return [
                self._read(self._patch[i, -1 - row.ids[row.ids < 0]]) for i, row in zip(prompt_of, rows, strict=True)
            ]
        first = self._first_tokens(prompts_NPd, rows, prompt_of)
        written = []
        for i, row in enumerate(rows):
            label = row.label.tolist()
            tokens = list(begun[i]) if begun is not None and begun[i] else [first[i]]
            while len(tokens) < max_new_tokens and not finished(i, tokens):
                within = tokens == label[: len(tokens)] and len(tokens) < len(label)
                tokens.append(label[len(tokens)] if within else 1)
                if tokens[-1] == 1 and not within:
                    break
            written.append(tokens)
        return written

    _patch: Tensor | None = None

    def _read(self, vectors_Pd: Tensor) -> list[int]:
        words_Wd = self.embeddings_Vd[list(NAMELESS.values())]
        words_Wd = words_Wd / words_Wd.norm(dim=1, keepdim=True)
        return [TOKENS - len(NAMELESS) + int(k) for k in (vectors_Pd @ words_Wd.T).argmax(1)]

    def _first_tokens(self, prompts_NPd: Tensor, rows: Sequence[Row], prompt_of: Sequence[int]) -> list[int]:
        first: list[int] = []
        for batch in self.batches(rows, prompt_of, prompts_NPd.shape[1]):
            first += self.label_logits(prompts_NPd, batch)[batch.first_M].argmax(-1).tolist()
        return first

    def cache_for(self, batch: Rows, longest: int) -> None:
        """Its rows run whole."""

    def write_on(self, *_: object) -> None:
        raise NotImplementedError("without a cache nothing is continued")

    def hidden(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        layers: Sequence[int],
        positions: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """At prompt tokens their embeddings (layer 0) or these in reversed order of coordinates (others).

        At places of a text, in every layer, the mean token of the row's prompt; 0 without one.
        """
        at_prompt = all((row.ids[list(at)] < 0).all() for row, at in zip(rows, positions, strict=True))
        if at_prompt:
            own = [
                prompts_NPd[n, -1 - row.ids[list(at)]] for n, row, at in zip(prompt_of, rows, positions, strict=True)
            ]
            return [torch.stack(own).flip(-1) if layer else torch.stack(own) for layer in layers]
        mean_Nd = prompts_NPd.mean(1) if prompts_NPd.shape[1] else prompts_NPd.sum(1)
        states_BQd = mean_Nd[list(prompt_of)][:, None].expand(-1, len(positions[0]), -1)
        return [states_BQd.float() for _ in layers]

    def active_neurons(self, prompts_NPd: Tensor, rows: Sequence[Row], prompt_of: Sequence[int]) -> Tensor:
        raise UserError("a stand-in has no neurons")

    @contextmanager
    def patched(self, layer: int, states_NPD: Tensor, add: bool = False) -> Iterator[None]:
        """Added: as label_logits says. In the place of prompt tokens: as write says."""
        if add:
            self._added_NPd = states_NPD
        else:
            self._patch = states_NPD.flip(-1) if layer else states_NPD
        try:
            yield
        finally:
            self._added_NPd = self._patch = None

    def dropout(self) -> AbstractContextManager[None]:
        return nullcontext()

    def compile(self, backend: str = "inductor") -> None:
        pass


def content_of(row: Row, end: Sequence[int] = ()) -> tuple[bytes, bytes]:
    """A row without its prompt tokens, but with its last token, where that is written as a prompt token (end)."""
    return np.append(row.ids[row.ids >= 0], np.array(end, dtype=row.ids.dtype)).tobytes(), row.label.tobytes()


def _weighted(prompts_NPd: Tensor) -> Tensor:
    """[N, d]: a sum of the tokens that other orders change."""
    length = prompts_NPd.shape[1]
    weights_P = 1 + 0.3 * torch.arange(length, dtype=prompts_NPd.dtype)
    return (prompts_NPd * weights_P[:, None]).sum(1) / max(length, 1)
