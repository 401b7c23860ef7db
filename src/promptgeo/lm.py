"""FrozenLM: a causal language model whose weights never change, asked for logits at label positions only.

Nothing here knows a model family. What differs between families (scaled, projected or normalised embeddings, positions,
sliding windows, soft-capped logits) is asked of the loaded modules: embeddings come from the embedding *module*, logits
from the model's own forward, and right padding with no mask lets the model's default positions stand.

Shapes: N prompts, B rows, P prompt tokens, T text tokens, M label positions, d width of the input embeddings, V vocabulary.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from promptgeo.attention import Memory, TreeAttention
from promptgeo.batching import IGNORE, MAX_TOKENS, Batch, collate, next_tokens
from promptgeo.cpu_linear import prepack, rows_are_independent, unpack
from promptgeo.errors import UserError
from promptgeo.hub import offline_if_unreachable
from promptgeo.row import Row

log = logging.getLogger(__name__)
CPU_BYTES = 2**29
"""Of activations in one forward on a CPU (about half of it in fact: rows share positions)."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class FrozenLM:
    """A frozen causal language model with its tokenizer. Deliberately no nn.Module: no trainer can cast, save or train it."""

    def __init__(self, model: nn.Module, tokenizer: Any, *, name: str = "", fingerprint: str = ""):
        """model: a transformers model with a causal head. tokenizer: its tokenizer; needs no pad token."""
        _fuse_gelu(model)
        prepack(model)
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self._label_at: Tensor | None = None
        self._compiled = False
        head = model.get_output_embeddings()
        if head is None:
            raise UserError(f"model {name}: has no causal language-model head")
        head.register_forward_pre_hook(self._keep_label_positions)
        with torch.no_grad():
            self.width = self.embed(torch.zeros(1, dtype=torch.long, device=self.device)).shape[-1]
        self._tree = TreeAttention(model)
        self._shares_prefixes = self._tree.possible and self._tree_agrees()

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
        """Load a hub id, a local folder, or `tiny`. The last one loaded is kept for the next call with the same arguments.

        precision: fp32, bf16, or auto (fp32 on CPU, bf16 on CUDA). device: cpu, cuda or auto.
        Raises UserError where the model cannot be found or is no causal language model.
        """
        device = resolve_device(device)
        return _load(name_or_path, revision, resolve_precision(precision, device), device, trust_remote_code)

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @property
    def max_positions(self) -> int | None:
        """Most positions (prompt + text, in tokens) the model knows; None where it has no limit (ALiBi)."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def embed(self, ids: Tensor) -> Tensor:
        """ids of any shape, int64 -> [..., d] in the model's dtype, as the first layer gets them (scale and lookup included)."""
        return self.model.get_input_embeddings()(ids)

    def vocabulary(self) -> Tensor:
        """[V, d] fp32 on CPU: the embedding of every token the tokenizer can produce."""
        size = min(len(self.tokenizer), self.model.get_input_embeddings().weight.shape[0])
        with torch.no_grad():
            chunks = torch.arange(size, device=self.device).split(16384)
            return torch.cat([self.embed(ids).float().cpu() for ids in chunks])

    def batches(self, rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int) -> Iterator[Batch]:
        """The rows as batches on the model's device; arguments as for `collate`.

        On a CPU a batch holds rows of several prompts only where that changes no bit: a run in a pack equals the run alone.
        """
        # With dropout on, rows that shared a position would share its mask.
        share_up_to = self._tree.longest if self._shares_prefixes and not self.model.training else 0
        several = bool(prompt_of) and prompt_of[0] != prompt_of[-1]
        apart = several and self.device.type == "cpu" and not self.mixes_prompts
        found = collate(rows, prompt_of, prompt_length, self.max_tokens, apart=apart, share_up_to=share_up_to)
        return (batch.to(self.device) for batch in found)

    @cached_property
    def max_tokens(self) -> int:
        """Positions of one forward: on a CPU as many as keep its activations within a budget, beyond which nothing gets faster."""
        if self.device.type != "cpu":
            return MAX_TOKENS
        config = self.model.config.get_text_config()
        per_token = 34 * config.hidden_size * config.num_hidden_layers * self.dtype.itemsize
        return min(max(CPU_BYTES // per_token, 1024), MAX_TOKENS)

    @cached_property
    def mixes_prompts(self) -> bool:
        """Whether a row has the same bits whatever other rows are in its batch."""
        return rows_are_independent(self.model)

    def compile(self, backend: str = "inductor") -> None:
        """Let torch.compile fuse the model's forward, for whatever shapes come. The same numbers up to rounding, no longer bit by bit."""
        if not self._compiled:
            unpack(self.model)
            # Without the head: its hook's label positions would be compiled as fixed, anew for every batch.
            self.model.base_model.compile(dynamic=True, backend=backend)
            self._compiled = True

    def label_logits(self, prompts_NPd: Tensor, batch: Batch, memory: Memory | None = None) -> Tensor:
        """[M, V] fp32 logits at the batch's label positions. prompts_NPd: fp32 soft prompts, differentiable.

        memory: keeps a tree's keys and values, and has those of the batches that this one goes on from.
        """
        embeds = self.embed(batch.ids)
        if len(batch.prompt_at):
            flat_Fd = embeds.reshape(-1, self.width)
            tokens = prompts_NPd.reshape(-1, self.width).index_select(0, batch.prompt_from).to(flat_Fd.dtype)
            embeds = flat_Fd.index_copy(0, batch.prompt_at, tokens).view_as(embeds)
        self._label_at = batch.label_at_M
        try:
            with self._tree.over(batch, memory) if batch.paths else nullcontext():
                logits = self.model(inputs_embeds=embeds, position_ids=batch.position_ids, use_cache=False).logits
        finally:
            self._label_at = None
        return logits.squeeze(0).float()  # not [0]: its backward fills an array of this size

    @torch.no_grad()
    def _tree_agrees(self) -> bool:
        """Whether the model says the same of rows in a tree as of rows in a grid: asked of the loaded model, not of its name."""
        rows = [Row(np.array([-1, 1, 2, last], np.int64), np.array([1], np.int64)) for last in (3, 4)]
        prompts_NPd = self.embed(torch.ones(1, 1, dtype=torch.long, device=self.device)).float()
        try:
            tree, grid = (
                self.label_logits(prompts_NPd, batch.to(self.device))[batch.targets_M != IGNORE]
                for longest in (1 << 30, 0)
                for batch in collate(rows, [0, 0], 1, share_up_to=longest)
            )
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            log.debug("model %s cannot share prefixes: %s", self.name, error)
            return False
        tolerance = 1e-4 if self.dtype is torch.float32 else 5e-2
        return self._tree.calls == self.model.config.get_text_config().num_hidden_layers and bool((tree - grid).square().mean().sqrt() <= tolerance * grid.std())

    def _keep_label_positions(self, head: nn.Module, args: tuple) -> tuple | None:
        # The head alone is a third to a half of a small model's work; most positions predict nothing we score.
        if self._label_at is None:
            return None
        hidden = args[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, self._label_at)[None], *args[1:])

    @torch.no_grad()
    def greedy(
        self,
        prompts_NPd: Tensor,
        rows: Sequence[Row],
        prompt_of: Sequence[int],
        max_new_tokens: int,
        finished: Callable[[int, list[int]], bool] = lambda row, tokens: False,
        begun: Sequence[list[int]] | None = None,
    ) -> list[list[int]]:
        """The greedy continuation of each row's text (its label is not looked at), as token ids.

        begun: each row's first tokens, where they are known (from a teacher-forced forward).

        Row i uses prompt prompt_of[i] and stops after max_new_tokens, at an end-of-sequence token (kept), or when
        finished(i, its tokens so far). A tree's rows go on from its keys and values; a grid's run whole for every token.
        """
        ends = self.end_tokens
        continuations: list[list[int]] = [list(tokens) for tokens in begun] if begun else [[] for _ in rows]

        def goes_on(i: int) -> bool:
            tokens = continuations[i]
            return not tokens or (len(tokens) < max_new_tokens and tokens[-1] not in ends and not finished(i, tokens))

        active = [i for i in range(len(rows)) if goes_on(i)]
        while active:
            # The row so far, with one token to predict (whose value no logit depends on).
            grown = [Row(np.concatenate([rows[i].ids, np.array(continuations[i], dtype=np.int64)]), np.zeros(1, np.int64)) for i in active]
            for batch in self.batches(grown, [prompt_of[i] for i in active], prompts_NPd.shape[1]):
                longest = max(grown[j].length for j in batch.rows) + max_new_tokens
                memory = Memory() if batch.paths and longest <= self._tree.longest else None
                while True:
                    likeliest_M = self.label_logits(prompts_NPd, batch, memory).argmax(-1)
                    said = {j: token for j, token in zip(batch.row_M.tolist(), likeliest_M.tolist(), strict=True) if 0 <= j < len(grown)}
                    for j, token in said.items():
                        continuations[active[j]].append(token)
                    said = {j: token for j, token in said.items() if goes_on(active[j])}
                    if memory is None or not said:
                        break
                    batch = next_tokens(batch, said).to(self.device)
            active = [i for i in active if goes_on(i)]
        return continuations

    @property
    def end_tokens(self) -> set[int]:
        """Ids of the tokens that end a text."""
        ids = self.model.generation_config.eos_token_id if self.model.generation_config is not None else None
        ids = ids if isinstance(ids, list) else [ids]
        return {i for i in (*ids, self.tokenizer.eos_token_id) if i is not None}

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone: no special token is added."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def resolve_device(device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: no CUDA device is available here; use device=cpu or device=auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_precision(precision: str, device: str) -> str:
    return ("bf16" if device == "cuda" else "fp32") if precision == "auto" else precision


def local_folder(name_or_path: str) -> Path | None:
    """The folder that `name_or_path` names, if it names one; `tiny` is the embedded model's."""
    if name_or_path == "tiny":
        from promptgeo import tiny

        return tiny.PATH
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    looks_local = name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1
    if looks_local:
        raise UserError(f"model.name_or_path={name_or_path}: no such folder")
    return None


@lru_cache(maxsize=8)
def model_fingerprint(name_or_path: str, revision: str | None = None, trust_remote_code: bool = False) -> str:
    """What identifies a model's numbers: a local folder's content, or a hub id with its commit."""
    folder = local_folder(name_or_path)
    if folder is None:
        config = _read_config(name_or_path, revision, trust_remote_code)
        return f"{name_or_path}@{getattr(config, '_commit_hash', None) or revision or 'main'}"
    digest = hashlib.sha256()
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in (".json", ".safetensors", ".bin", ".txt", ".model", ".py"))
    for file in files:
        digest.update(f"{file.name}\0".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


@lru_cache(maxsize=1)
def _load(name_or_path: str, revision: str | None, precision: str, device: str, trust_remote_code: bool) -> FrozenLM:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = local_folder(name_or_path)
    source = str(folder or name_or_path)
    config = _read_config(name_or_path, revision, trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"model.name_or_path={name_or_path}: an encoder-decoder; promptgeo needs a causal language model")
    if precision == "bf16" and device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        log.warning("precision=bf16: this CPU has no instructions for it; fp32 is faster here")
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        # Pinned dtype: transformers otherwise loads whatever the checkpoint was saved in.
        model, report = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[precision], output_loading_info=True, **where)
    except ValueError as error:
        if "AutoModelForCausalLM" in str(error):
            raise UserError(f"model.name_or_path={name_or_path}: {config.model_type} has no causal language-model head") from error
        raise UserError(f"model.name_or_path={name_or_path}: {_first_line(error)}") from error
    except OSError as error:
        raise UserError(_cannot_load(name_or_path, error)) from error
    if report["missing_keys"]:
        raise UserError(f"model.name_or_path={name_or_path}: the checkpoint lacks {sorted(report['missing_keys'])[0]}: no causal language-model head was saved with it")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name_or_path={name_or_path}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        # transformers makes an empty tokenizer of the model's type where a folder holds none.
        raise UserError(f"model.name_or_path={name_or_path}: its tokenizer cannot be loaded: there is none beside the model")
    fingerprint = model_fingerprint(name_or_path, revision, trust_remote_code)
    lm = FrozenLM(model.to(device), tokenizer, name=name_or_path, fingerprint=fingerprint)
    _require_causal(lm)
    return lm


def _read_config(name_or_path: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    folder = local_folder(name_or_path)
    if folder is None:
        offline_if_unreachable()
    source = str(folder or name_or_path)
    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(_cannot_load(name_or_path, error)) from error


def _cannot_load(name_or_path: str, error: Exception) -> str:
    if local_folder(name_or_path) is not None:
        return f"model.name_or_path={name_or_path}: no model can be read from this folder: {_first_line(error)}"
    return (
        f"model.name_or_path={name_or_path}: neither a local folder nor a model the hub gives here (no network, no such model, or no access): "
        "give a local copy with model.name_or_path=<folder>"
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _require_causal(lm: FrozenLM) -> None:
    """Some encoders load behind a language-model head but look ahead: ask the loaded model, not a list of names."""
    here = Row(np.array([1, 2, 3], np.int64), np.array([1], np.int64))
    later = replace(here, ids=np.array([1, 2, 3, 4], np.int64))
    with torch.no_grad():
        logits = []
        for row in (here, later):
            batch = next(lm.batches([row], [0], 0))
            first = replace(batch, label_at_M=torch.full_like(batch.label_at_M, 2))
            logits.append(lm.label_logits(torch.zeros(1, 0, lm.width, device=lm.device), first)[0])
    # Both rows have one shape, so even in bf16 the two differ by nothing but what lies ahead.
    if (logits[0] - logits[1]).abs().max() > 1e-3 * logits[0].std():
        raise UserError(f"model.name_or_path={lm.name}: a token's prediction depends on later tokens, so this is no causal language model")


def _fuse_gelu(model: nn.Module) -> None:
    """Replace the tanh approximation of GELU, spelt out in some 20 elementwise operations, by torch's own kernel.

    The same function to 1e-6 in fp32, checked on the module found, and a fifth of the memory traffic.
    """
    probe = torch.linspace(-8, 8, 1001)
    fused = nn.GELU(approximate="tanh")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if "gelu" in type(child).__name__.lower() and not list(child.parameters()) and not list(child.children()):
                with torch.no_grad():
                    same = torch.allclose(child(probe), fused(probe), rtol=0, atol=1e-6)
                if same:
                    setattr(parent, name, fused)
