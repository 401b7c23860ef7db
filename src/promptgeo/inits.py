"""Initial prompts P0: one small function per init, each [P, d] fp32 on CPU.

No function tiles or cuts silently: a token count that does not fit the prompt length is an error that says both.
Shapes: P prompt tokens, d width of the input embeddings, V vocabulary.
"""

import logging
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from promptgeo.schema import Init, InitKind, Prompt
from promptgeo.errors import UserError
from promptgeo.lm import FrozenLM
from promptgeo.runs import DamagedRun, Run
from promptgeo.tasks import Task

log = logging.getLogger(__name__)


@cache
def _say(message: str) -> None:
    """Once a process: the runs of a grid share their inits."""
    log.info(message)


def initial_prompt(init: Init, prompt: Prompt, lm: FrozenLM, task: Task, seed: int) -> Tensor:
    """P0 [P, d] fp32 on CPU. `seed` feeds the one generator that a random init draws from."""
    if prompt.length is None and init.kind in (InitKind.word, InitKind.vocab, InitKind.normal, InitKind.uniform):
        raise UserError(f"prompt.length=null: init={init.name} does not say how many tokens it has; set prompt.length=4")
    generator = torch.Generator().manual_seed(seed)
    makers = {
        InitKind.word: lambda: word(lm, init.text, prompt.length),
        InitKind.text: lambda: text(lm, init.text, prompt.length),
        InitKind.vocab: lambda: vocab(lm, prompt.length, generator),
        InitKind.normal: lambda: normal(lm, prompt.length, init.scale, generator),
        InitKind.uniform: lambda: uniform(lm, prompt.length, init.scale, generator),
        InitKind.labels: lambda: labels(lm, task, prompt.length, generator),
        InitKind.file: lambda: file(lm, init.path, init.which, prompt.length),
        InitKind.run: lambda: run(lm, init.path, init.which, prompt.length),
    }
    p0_Pd = makers[init.kind]().float().contiguous()
    if not torch.isfinite(p0_Pd).all():
        raise UserError(f"init={init.name}: the initial prompt holds numbers that are not finite")
    return p0_Pd


def word(lm: FrozenLM, text: str, length: int) -> Tensor:
    """One word's embedding at every prompt token, as study 3's "catcatcatcat"; a word of k tokens fits P = k, 2k, ..."""
    ids = lm.encode(text)
    if not ids or length % len(ids):
        raise UserError(f"init.text={text!r} is {len(ids)} tokens for this model, which does not go into prompt.length={length}; set prompt.length={max(len(ids), 1)}")
    _say(f"init: {text!r} is {len(ids)} token{'s' * (len(ids) > 1)}, {length // len(ids)} times")
    return _embeddings(lm, ids * (length // len(ids)))


def text(lm: FrozenLM, text: str, length: int | None) -> Tensor:
    """The embeddings of a text's tokens, no special tokens added; its token count is the prompt length."""
    ids = lm.encode(text)
    _say(f"init: {text!r} is {len(ids)} tokens")
    _require_length(len(ids), length, f"init.text={text!r}")
    return _embeddings(lm, ids)


def vocab(lm: FrozenLM, length: int, generator: torch.Generator) -> Tensor:
    """Embeddings of tokens drawn uniformly, without replacement, from the vocabulary's ordinary tokens."""
    return _embeddings(lm, _sample_ids(lm, length, generator))


def normal(lm: FrozenLM, length: int, scale: float, generator: torch.Generator) -> Tensor:
    """Normal with the embedding table's mean; isotropic, its variance scale^2 times the mean eigenvalue of the table's covariance."""
    table_Vd = lm.vocabulary()
    deviation = table_Vd.var(0).mean().sqrt()
    return table_Vd.mean(0) + scale * deviation * torch.randn(length, lm.width, generator=generator)


def uniform(lm: FrozenLM, length: int, scale: float, generator: torch.Generator) -> Tensor:
    """Uniform on [-scale, scale] in every coordinate (Lester et al. 2021: 0.5)."""
    return (2 * torch.rand(length, lm.width, generator=generator) - 1) * scale


def labels(lm: FrozenLM, task: Task, length: int | None, generator: torch.Generator) -> Tensor:
    """The mean embedding of each label of the task's label set; remaining tokens as in `vocab` (Lester et al. 2021, "class label")."""
    if not task.labels:
        raise UserError(f"init=labels: task {task.name} has no label set (task.labels)")
    length = length or len(task.labels)
    if len(task.labels) > length:
        raise UserError(f"init=labels: {len(task.labels)} labels do not fit prompt.length={length}; set prompt.length={len(task.labels)}")
    rows = [_embeddings(lm, lm.encode(task.template.label.replace("{label}", label))).mean(0) for label in task.labels]
    if rest := length - len(rows):
        _say(f"init: {len(rows)} labels, then {rest} tokens drawn from the vocabulary")
        rows += list(_embeddings(lm, _sample_ids(lm, rest, generator)))
    return torch.stack(rows)


def file(lm: FrozenLM, path: str, which: str, length: int | None) -> Tensor:
    """A [P, d] array from .npy, or from .safetensors (the tensor called `which`, or the only one)."""
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(f"init.path={path}: no such file")
    try:
        if source.suffix == ".npy":
            import numpy as np

            found = torch.from_numpy(np.load(source, allow_pickle=False))
        elif source.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(source)
            if which not in tensors and len(tensors) > 1:
                raise UserError(f"init.path={path}: has no tensor {which!r}; set init.which to one of {', '.join(sorted(tensors))}")
            found = tensors.get(which, next(iter(tensors.values())))
        else:
            raise UserError(f"init.path={path}: a .npy or .safetensors file is needed")
    except UserError:
        raise
    except Exception as error:  # safetensors and numpy each have a family of their own
        raise UserError(f"init.path={path}: cannot be read as {source.suffix[1:]}: {error}") from error
    return _fitting(found, lm, length, f"init.path={path}")


def run(lm: FrozenLM, path: str, which: str, length: int | None) -> Tensor:
    """Another run's prompt (soft-prompt transfer; Vu et al. 2022, SPoT): `which` is initial, final, best or a step."""
    source = source_run(path)
    try:
        found = source.prompt(int(which) if which.isdecimal() else which)
    except UserError as error:
        raise UserError(f"init.which={which}: {error}") from error
    if source.info["fingerprints"]["model"] != lm.fingerprint:
        log.warning("init.path=%s: that prompt was trained on another model (%s): its directions mean nothing here", path, source.info["config"]["model"]["name"])
    return _fitting(torch.from_numpy(found), lm, length, f"init.path={path}")


def source_run(path: str) -> Run:
    """The run that init.path names."""
    try:
        return Run.load(path)
    except DamagedRun as error:
        raise UserError(f"init.path={path}: {error}") from error


def _embeddings(lm: FrozenLM, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return lm.embed(torch.tensor(ids, device=lm.device)).float().cpu()


def _sample_ids(lm: FrozenLM, count: int, generator: torch.Generator) -> list[int]:
    # all_special_ids leaves out those without a role, such as Llama 3's reserved tokens.
    special = {*lm.tokenizer.all_special_ids, *(i for i, token in lm.tokenizer.added_tokens_decoder.items() if token.special)}
    size = min(len(lm.tokenizer), lm.model.get_input_embeddings().weight.shape[0])
    drawn = [i for i in torch.randperm(size, generator=generator).tolist() if i not in special]
    if count > len(drawn):
        raise UserError(f"prompt.length: {count} tokens cannot be drawn from a vocabulary of {len(drawn)}; set a smaller prompt.length")
    return drawn[:count]


def _fitting(found: Tensor, lm: FrozenLM, length: int | None, key: str) -> Tensor:
    if found.ndim != 2 or found.shape[1] != lm.width:
        raise UserError(f"{key}: has shape {list(found.shape)}; [P, {lm.width}] is needed for this model")
    _require_length(found.shape[0], length, key)
    return found.clone()


def _require_length(found: int, length: int | None, key: str) -> None:
    if found == 0 or (length is not None and found != length):
        raise UserError(f"{key} is {found} tokens, but prompt.length={length}; set prompt.length={found or 'null'}")
