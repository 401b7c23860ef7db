"""What does a model write after inputs of the user's own, with a soft prompt? And which token would it write next?

An input is written, and its answer ended, as the examples of a task are that are scored (evaluate.py).

Shapes: N prompts, P prompt tokens, d width, E inputs, S samples, T positions of one input with its prompt,
M label positions, V vocabulary, K of its tokens.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from promptgeo.config.schema import Scoring
from promptgeo.data.row import Row
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.evaluation.evaluate import as_prompts
from promptgeo.evaluation.rules import Continuation, Rule, rule_of
from promptgeo.model.choosing import Choose, Sampling, likeliest
from promptgeo.model.interface import LM
from promptgeo.model.memory import keep_freed_memory

Prompts: TypeAlias = torch.Tensor | np.ndarray
Input: TypeAlias = str | Mapping[str, Any]
"""The text that stands for {input} in the template; or its columns by name, of which task.source.input makes it."""


class NextToken(NamedTuple):
    """A token that may come next."""

    text: str
    probability: float
    id: int


@torch.no_grad()
def generate(
    lm: LM,
    prompts: Prompts,
    inputs: Input | Sequence[Input],
    task: Task,
    *,
    max_new_tokens: int | None = None,
    samples: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Any:
    """What the model writes after inputs: greedily, or drawn.

    Any number of prompts and inputs can be given: only a few batches are in memory at a time. What is written for a
    prompt and an input, or drawn by one seed, depends on no other prompt and no other input, but for rounding (in bf16
    two tokens are often equally likely up to that); an input that is given twice has the same samples.

        pg.generate(lm, run.prompt(), ["France", "Japan"], pg.task("country_capital"))

    Args:
        lm: the frozen model, as FrozenLM.load returns it.
        prompts: [P, d], or several [N, P, d], any floating-point numbers; P = 0 is the model without a prompt.
        inputs: an input, or a list of them: the text that stands for {input} in the template, or its columns by name.
        task: as pg.task returns it; its template says how inputs are written and what ends an answer.
        max_new_tokens: the largest number of tokens that the model may write; None: as the template says, and one
            where it scores the first token alone.
        samples: None: one text, greedily. Else so many for each input, drawn as the next four say.
        temperature: what logits are divided by.
        top_k: so many of the likeliest tokens may be drawn; None: all.
        top_p: the likeliest tokens that have this share of the probability together may be drawn; None: all.
        seed: of the drawing, from 0 on.

    Returns a text, up to the terminator; a list over N, E and S, nested in this order, for each of several prompts, a
    list of inputs, and samples.
    Raises UserError where the prompts' shape does not fit the model, an input does not fit its positions, or a number
    is none that can be.
    """
    # Long because what it takes and gives is told here.
    sampling = _sampling(samples, temperature, top_k, top_p, seed)
    rule = rule_of(task.template)
    limit = max_new_tokens
    if limit is None:
        limit = 1 if task.template.scoring is Scoring.token else task.template.max_new_tokens
    elif limit < 1:
        raise UserError(f"max_new_tokens={limit}: a whole number from 1 on is needed")
    prompts_NPd, listed = _listed(lm, prompts, inputs)
    rows_E, drawn = task.input_rows(lm, listed, prompts_NPd.shape[1], limit), samples or 1
    rows = [row for row in rows_E for _ in range(drawn)]
    seeds = [[seed, s, _number_of(row)] for row in rows_E for s in range(drawn)] if sampling else []
    texts: list[str] = []
    for few_NPd, prompt_of in _few(lm, prompts_NPd, rows):
        choose = sampling.drawing(seeds * len(few_NPd)) if sampling else likeliest
        texts += _written(lm, few_NPd, rows * len(few_NPd), prompt_of, rule, limit, choose)
    texts_ES = texts if samples is None else [texts[i : i + drawn] for i in range(0, len(texts), drawn)]
    return _as_given(texts_ES, prompts, inputs, len(prompts_NPd))


@torch.no_grad()
def next_tokens(lm: LM, prompts: Prompts, inputs: Input | Sequence[Input], task: Task, k: int = 10) -> Any:
    """The k likeliest tokens after inputs with their probabilities, the likeliest first.

    Args:
        lm, prompts, inputs, task: as in `generate`.
        k: tokens; fewer where the vocabulary has fewer.

    Returns a list of NextToken: text, probability (0 to 1) and id; lists of them as `generate` has lists of texts.
    Raises UserError as `generate` does.
    """
    if k < 1:
        raise UserError(f"k={k}: a whole number from 1 on is needed")
    prompts_NPd, listed = _listed(lm, prompts, inputs)
    rows = task.input_rows(lm, listed, prompts_NPd.shape[1], 1)
    found: list[list[NextToken]] = []
    for few_NPd, prompt_of in _few(lm, prompts_NPd, rows):
        of_row: dict[int, list[NextToken]] = {}
        for batch in lm.batches(rows * len(few_NPd), prompt_of, few_NPd.shape[1]):
            p_MV = lm.label_logits(few_NPd, batch).softmax(-1)
            p_MK, ids_MK = p_MV.topk(min(k, p_MV.shape[1]))
            for row, p_K, ids_K in zip(batch.row_M.tolist(), p_MK.tolist(), ids_MK.tolist(), strict=True):
                of_row[row] = [NextToken(lm.token_text(i), p, i) for p, i in zip(p_K, ids_K, strict=True)]
        found += [of_row[row] for row in range(len(prompt_of))]  # what is padding has another number
    return _as_given(found, prompts, inputs, len(prompts_NPd))


@torch.no_grad()
def embeddings(lm: LM, prompt_Pd: Prompts, given: Input, task: Task) -> torch.Tensor:
    """[1, T, d]: an input with its prompt as the model reads it, to be given to transformers as `inputs_embeds`.

    Its dtype and device are the model's. T counts BOS, the prompt wherever the template has it, and the text up to the
    label. See `generate` for what it takes. Raises UserError as `generate` does, and for a model that reads token ids
    beside embeddings.
    """
    if lm.reads_ids:
        raise UserError(f"model {lm.name}: its layers read token ids too: embeddings alone do not say what it reads")
    prompts_NPd, listed = _listed(lm, prompt_Pd, given)
    if len(prompts_NPd) != 1 or len(listed) != 1:
        raise UserError("embeddings: one prompt [P, d] and one input are needed")
    (row,) = task.input_rows(lm, listed, prompts_NPd.shape[1], 1)
    ids_T = torch.from_numpy(row.ids).to(lm.device)
    embeds_Td = lm.embed(ids_T.clamp(min=0)).clone()
    soft = ids_T < 0
    embeds_Td[soft] = prompts_NPd[0, -1 - ids_T[soft]].to(embeds_Td.dtype)
    return embeds_Td[None]


def _sampling(
    samples: int | None, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> Sampling | None:
    """How is drawn; None: not at all. Raises UserError where there are no samples to be drawn so."""
    if samples is None:
        for name, value, default in (("temperature", temperature, 1.0), ("top_k", top_k, None), ("top_p", top_p, None)):
            if value != default:
                raise UserError(f"{name}={value}: nothing is drawn; give samples=1 or more")
        return None
    if samples < 1:
        raise UserError(f"samples={samples}: a whole number from 1 on is needed")
    if seed < 0:
        raise UserError(f"seed={seed}: a whole number from 0 on is needed")
    return Sampling(temperature, top_k, top_p)


def _listed(lm: LM, prompts: Prompts, inputs: Input | Sequence[Input]) -> tuple[torch.Tensor, list[Input]]:
    """The prompts as [N, P, d], the inputs as a list."""
    one = getattr(prompts, "ndim", 0) == 2
    prompts_NPd = as_prompts(lm, prompts[None] if one else prompts)
    return prompts_NPd, [inputs] if isinstance(inputs, str | Mapping) else list(inputs)


def _as_given(found: list, prompts: Prompts, inputs: Input | Sequence[Input], n: int) -> Any:
    """What was found for each of n prompts and each input: lists where several may have been given."""
    per_prompt = len(found) // n if n else 0
    of_prompts = [found[k * per_prompt : (k + 1) * per_prompt] for k in range(n)]
    if isinstance(inputs, str | Mapping):
        of_prompts = [of_prompt[0] for of_prompt in of_prompts]
    return of_prompts[0] if prompts.ndim == 2 else of_prompts


def _few(lm: LM, prompts_NPd: torch.Tensor, rows: Sequence[Row]) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """A few prompts at a time, and the prompt of each of the rows that they all have, prompt by prompt."""
    if lm.device.type == "cpu":
        keep_freed_memory()
    at_once = max(lm.max_tokens // max(sum(row.length for row in rows), 1), 1)
    for few_NPd in prompts_NPd.split(at_once):
        yield few_NPd, np.repeat(np.arange(len(few_NPd)), len(rows)).tolist()


def _written(
    lm: LM,
    prompts_NPd: torch.Tensor,
    rows: Sequence[Row],
    prompt_of: Sequence[int],
    rule: Rule,
    limit: int,
    choose: Choose,
) -> list[str]:
    """What is written after each row, as predictions.jsonl has it."""

    def finished(i: int, tokens: list[int]) -> bool:
        return rule.is_whole(Continuation(lm, tokens))

    def output(written: Continuation) -> str:
        # Where the first token alone is scored, whoever asks for more wants to read more.
        return Rule.output(rule, written) if limit > 1 else rule.output(written)

    written = lm.write(prompts_NPd, rows, prompt_of, limit, finished, choose=choose)
    return [output(Continuation(lm, tokens)) for tokens in written]


def _number_of(row: Row) -> int:
    """Of an input's tokens: it starts the drawing, so that it does not depend on the other inputs."""
    return int.from_bytes(hashlib.sha256(row.ids.tobytes()).digest()[:8], "little")
