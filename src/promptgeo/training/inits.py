"""How is P0, the initial prompt, made? One small function per init, each [P, d] fp32 on CPU.

No function tiles or cuts silently: a token count that does not fit the prompt length is an error that says both. A new
init: its name in schema.InitKind, a function here, a line in INITS, and a file in conf/init/.

Shapes: P prompt tokens, d width of the input embeddings, V vocabulary.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from promptgeo.config.paths import user_path
from promptgeo.config.schema import Bos, Init, InitKind, Prompt, Unit
from promptgeo.data.label_tokens import continuation_ids
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.adapter_mark import mark_of
from promptgeo.runs.folder import DamagedRun, Run
from promptgeo.runs.tensor_files import read_tensors

log = logging.getLogger(__name__)


@cache
def _log_once(message: str) -> None:
    """Once a process: the runs of a grid share their inits."""
    log.info(message)


@dataclass(frozen=True)
class Material:
    """What an init may be made of."""

    init: Init
    prompt: Prompt
    lm: LM
    task: Task
    generator: torch.Generator
    """The one that a random init draws from."""

    @property
    def text(self) -> str:
        return self.init.text or ""

    @property
    def path(self) -> str:
        return self.init.path or ""

    @property
    def length(self) -> int:
        """prompt.length, for inits that do not give one; null: as many tokens as a random init's text has.

        Raises UserError where there is neither.
        """
        if self.prompt.length is None and self.text and self.init.kind is not InitKind.word:
            return len(self.lm.encode(self.text))
        if self.prompt.length is None:
            raise UserError(
                f"prompt.length=null: init={self.init.name} does not say how many tokens it has; set prompt.length=4"
            )
        return self.prompt.length


def initial_prompt(init: Init, prompt: Prompt, lm: LM, task: Task, seed: int) -> Tensor:
    """P0 [P, d] fp32 on CPU.

    seed: of the one generator that a random init draws from. Raises UserError where the init does not fit the model,
    the task or the prompt length.
    """
    material = Material(init, prompt, lm, task, torch.Generator().manual_seed(seed))
    p0_Pd = INITS[init.kind](material).float().contiguous()
    if not torch.isfinite(p0_Pd).all():
        raise UserError(f"init={init.name}: the initial prompt holds numbers that are not finite")
    return p0_Pd


def word(material: Material) -> Tensor:
    """One word's embedding at every prompt token, as study 3's "catcatcatcat".

    A word of k tokens fits P = k, 2k, ...
    """
    lm, text, length = material.lm, material.text, material.length
    ids = lm.encode(text)
    if not ids or length % len(ids):
        raise UserError(
            f"init.text={text!r} is {len(ids)} tokens for this model, which does not go into prompt.length={length}; "
            f"set prompt.length={max(len(ids), 1)}"
        )
    _log_once(f"init: {text!r} is {len(ids)} token{'s' * (len(ids) > 1)}, {length // len(ids)} times")
    return _embeddings(lm, ids * (length // len(ids)))


def text(material: Material) -> Tensor:
    """The embeddings of a text's tokens, no special tokens added; its token count is the prompt length."""
    ids = material.lm.encode(material.text)
    _log_once(f"init: {material.text!r} is {len(ids)} tokens")
    _require_length(len(ids), material.prompt.length, f"init.text={material.text!r}")
    return _embeddings(material.lm, ids)


def vocab(material: Material) -> Tensor:
    """Embeddings of tokens drawn uniformly, without replacement, from the vocabulary's ordinary tokens."""
    return _embeddings(material.lm, _sample_ids(material.lm, material.length, material.generator))


def normal(material: Material) -> Tensor:
    """Normal with the embedding table's mean; isotropic.

    Its variance is init.scale^2 times the mean eigenvalue of the table's covariance.
    """
    mean_d, deviation = material.lm.embedding_normal
    noise_Pd = torch.randn(material.length, material.lm.width, generator=material.generator)
    return mean_d + material.init.scale * deviation * noise_Pd


def uniform(material: Material) -> Tensor:
    """Uniform on [-scale, scale] in every coordinate, in the unit that the init says."""
    unit = material.lm.embedding_scale if material.init.unit is Unit.embedding else 1.0
    uniform_Pd = torch.rand(material.length, material.lm.width, generator=material.generator)
    return (2 * uniform_Pd - 1) * (material.init.scale * unit)


def labels(material: Material) -> Tensor:
    """The mean embedding of each label of the task's label set (Lester et al. 2021, "class label").

    Remaining tokens are drawn as in `vocab`.
    """
    lm, task = material.lm, material.task
    if not task.labels:
        raise UserError(f"init=labels: task {task.name} has no label set (task.labels)")
    count = len(task.labels)
    length = material.prompt.length or count
    if count > length:
        raise UserError(f"init=labels: {count} labels do not fit prompt.length={length}; set prompt.length={count}")
    texts = [task.template.label.replace("{label}", label) for label in task.labels]
    rows = [_embeddings(lm, continuation_ids(lm, task.template, text)).mean(0) for text in texts]
    if rest := length - count:
        _log_once(f"init: {count} labels, then {rest} tokens drawn from the vocabulary")
        rows += list(_embeddings(lm, _sample_ids(lm, rest, material.generator)))
    return torch.stack(rows)


def file(material: Material) -> Tensor:
    """A [P, d] array from a file of arrays: the one called init.which, or the only one."""
    which = material.init.which
    try:
        found = read_tensors(user_path(material.path, "init.path"))
        name = found.named(which) or (next(iter(found.tensors)) if len(found.tensors) == 1 else None)
        if name is None:
            raise UserError(f"{found.path}: has no tensor {which!r}; set init.which to one of {found.listing()}")
        numbers, mark = found.numbers(name), mark_of(found.path)
        return _fitting(torch.from_numpy(numbers[mark.rows_before if mark else 0 :]), material)
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith("init.") else f"init.path={said}") from error


def run(material: Material) -> Tensor:
    """Another run's prompt (soft-prompt transfer; Vu et al. 2022, SPoT).

    init.which is initial, final, best or a step.
    """
    path, which = material.path, material.init.which
    source = source_run(path)
    try:
        prompt = source.prompt(int(which) if which.isdecimal() else which)
    except UserError as error:
        raise UserError(f"init.which={which}: {error}") from error
    trained_on = source.info["fingerprints"]["model"]  # an import does not know it
    if trained_on is not None and trained_on != material.lm.fingerprint:
        model = source.info["config"]["model"]["name"]
        log.warning(
            "init.path=%s: that prompt was trained on another model (%s): its directions mean nothing here", path, model
        )
    return _fitting(torch.from_numpy(prompt), material)


def source_run(path: str) -> Run:
    """The run that init.path names."""
    try:
        return Run.load(user_path(path, "init.path"))
    except DamagedRun as error:
        raise UserError(f"init.path={path}: {error}") from error


def stood_before_bos(init: Init) -> bool:
    """Whether the prompt that an init reads was trained with BOS behind it, as PEFT trains.

    Raises UserError where the run or the file cannot be read.
    """
    if not init.path:
        return False
    if init.kind is InitKind.run:
        return source_run(init.path).info["config"]["template"].get("bos") == Bos.after_prompt.name
    mark = mark_of(user_path(init.path, "init.path")) if init.kind is InitKind.file else None
    return mark is not None and mark.bos == Bos.after_prompt.name


INITS: dict[InitKind, Callable[[Material], Tensor]] = {
    InitKind.word: word,
    InitKind.text: text,
    InitKind.vocab: vocab,
    InitKind.normal: normal,
    InitKind.uniform: uniform,
    InitKind.labels: labels,
    InitKind.file: file,
    InitKind.run: run,
}


RANDOM = {InitKind.vocab, InitKind.normal, InitKind.uniform, InitKind.labels}
"""Those whose P0 depends on the seed; labels draws the tokens that its labels leave."""


def _embeddings(lm: LM, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return lm.embed(torch.tensor(ids, device=lm.device)).float().cpu()


def _sample_ids(lm: LM, count: int, generator: torch.Generator) -> list[int]:
    order = torch.randperm(lm.vocabulary_size, generator=generator).tolist()
    drawn = [i for i in order if i not in lm.special_ids]
    if count > len(drawn):
        raise UserError(
            f"prompt.length: {count} tokens cannot be drawn from a vocabulary of {len(drawn)}; "
            "set a smaller prompt.length"
        )
    return drawn[:count]


def _fitting(prompt: Tensor, material: Material) -> Tensor:
    """A copy of a prompt that was read. Raises UserError where it does not fit the model or the prompt length."""
    width, key = material.lm.width, f"init.path={material.path}"
    if prompt.ndim != 2 or prompt.shape[1] != width:
        raise UserError(f"{key}: has shape {list(prompt.shape)}; [P, {width}] is needed for this model")
    _require_length(prompt.shape[0], material.prompt.length, key)
    return prompt.clone()


def _require_length(tokens: int, length: int | None, key: str) -> None:
    if tokens == 0 or (length is not None and tokens != length):
        raise UserError(f"{key} is {tokens} tokens, but prompt.length={length}; set prompt.length={tokens or 'null'}")
