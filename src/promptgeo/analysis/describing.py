"""How does a model put prompts into words? Their hidden states, written over the placeholders of a text that asks.

InSPEcT (arXiv 2410.11660), after Patchscopes (arXiv 2401.06102). The states at a prompt's tokens depend on the prompt,
and on what the template has before it, alone: the model is causal, so no input is needed.

Shapes: N prompts, P prompt tokens, S layers that are read, D width of the hidden states.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from promptgeo.analysis.progress import progress
from promptgeo.data.row import Row
from promptgeo.data.tasks import Example, Task
from promptgeo.errors import UserError
from promptgeo.model.interface import LM

PROMPT = "{prompt}"
PLACEHOLDER = " x"
ENDS = re.compile(r"[|:\n]")
"""What stands behind a description: what parts texts and descriptions of the target, or the end of its line."""


class Pair(NamedTuple):
    """A layer whose states are read, and the layer at which they are written."""

    source: int
    target: int


def layer_pairs(layers: int, count: int) -> list[Pair]:
    """Of a model with so many layers: `count` of them, evenly from 0 on, both ways. 18 layers, 6: 0, 3, ..., 15."""
    chosen = sorted({k * layers // count for k in range(count)})
    return [Pair(*pair) for pair in product(chosen, chosen)]


# Descriptions.


def require_placeholder(target: str) -> None:
    """Raises UserError for a target without one {prompt}."""
    if not isinstance(target, str) or target.count(PROMPT) != 1:
        raise UserError(
            f"describe: target={str(target)[:60]!r}: a text with one {PROMPT} is needed, where the placeholders stand"
        )


def states(lm: LM, prompts_NPd: Tensor, task: Task, layers: Sequence[int]) -> list[Tensor]:
    """Of each layer [N, P, D] fp32 on CPU: the hidden states at the tokens of prompts, as the task's template has them.

    Raises UserError where the template has the input before the prompt: states then depend on it too.
    """
    count, length, _ = prompts_NPd.shape
    text = task.template.text
    if PROMPT in text and text.index(PROMPT) > text.index("{input}"):
        raise UserError(
            f"describe: template {task.template.name} has the input before the prompt: its states are of both; "
            'choose runs of another one (where="template == ...")'
        )
    (whole,) = task.rows(lm, [(task.train + task.test)[0]], length)
    at = [whole.ids.tolist().index(-1 - k) for k in range(length)]
    row = Row(whole.ids[: at[-1] + 1], np.zeros(1, np.int64))
    return lm.hidden(prompts_NPd, [row] * count, range(count), layers, [at] * count)


def descriptions(
    lm: LM, prompts_N: Sequence[np.ndarray], task_N: Sequence[Task], pairs: Sequence[Pair], target: str, tokens: int
) -> list[list[str]]:
    """What the model writes of each prompt, greedily: a text for each pair of layers.

    Args:
        lm: the frozen model.
        prompts_N: [P, d] each, of any lengths.
        task_N: the task of each, whose template says what stands before the prompt.
        pairs: of layers.
        target: with {prompt}, where as many placeholders stand as the prompt has tokens.
        tokens: to write, at most.

    Raises UserError for a target without {prompt} or that the model has no positions for, and as `states` does.
    """
    require_placeholder(target)
    alike: dict[tuple[int, int], list[int]] = {}
    for n, (prompt_Pd, task) in enumerate(zip(prompts_N, task_N, strict=True)):
        alike.setdefault((len(prompt_Pd), id(task)), []).append(n)
    sources = sorted({pair.source for pair in pairs})
    states_NS: list[list[Tensor]] = [[] for _ in prompts_N]
    for members in progress(list(alike.values()), "reading prompts' states"):
        prompts_NPd = torch.from_numpy(np.stack([prompts_N[n] for n in members]).astype(np.float32)).to(lm.device)
        for states_NPD in states(lm, prompts_NPd, task_N[members[0]], sources):
            for n, states_PD in zip(members, states_NPD, strict=True):
                states_NS[n].append(states_PD)
    texts_N: list[dict[Pair, str]] = [{} for _ in prompts_N]
    for layer in progress(sorted({pair.target for pair in pairs}), "writing descriptions"):
        asked = [(n, pair) for n in range(len(prompts_N)) for pair in pairs if pair.target == layer]
        written = _written(lm, layer, [states_NS[n][sources.index(pair.source)] for n, pair in asked], target, tokens)
        for (n, pair), text in zip(asked, written, strict=True):
            texts_N[n][pair] = text
    return [[texts[pair] for pair in pairs] for texts in texts_N]


def _written(lm: LM, layer: int, states_B: Sequence[Tensor], target: str, tokens: int) -> list[str]:
    """A text for each of these states [P, D], of any lengths.

    They stand in one prompt, one behind the other, of which a row has its own part: so the rows share the target's
    beginning, and a batch.
    """
    before, after = (lm.encode(part) if part else [] for part in target.split(PROMPT))
    placeholder = lm.encode(PLACEHOLDER)[-1]
    starts = np.cumsum([0, *(len(states_PD) for states_PD in states_B)]).tolist()
    rows = [
        Row(np.array([*lm.bos, *before, *(-1 - np.arange(start, end)), *after], np.int64), np.zeros(1, np.int64))
        for start, end in pairwise(starts)
    ]
    longest = max(len(row.ids) for row in rows) + tokens
    if lm.max_positions is not None and longest > lm.max_positions:
        raise UserError(
            f"describe: target, placeholders and {tokens} new tokens take {longest} positions, the model has "
            f"{lm.max_positions}; shorten analysis.describe.target or set analysis.describe.max_new_tokens"
        )
    stand_in = torch.tensor([placeholder] * starts[-1], device=lm.device)
    with lm.patched(layer, torch.cat(list(states_B))[None]):
        written = lm.write(
            lm.embed(stand_in).float()[None],
            rows,
            [0] * len(rows),
            tokens,
            lambda _, ids: bool(ENDS.search(lm.decode(ids).lstrip())),
        )
    return [ENDS.split(lm.decode(ids).lstrip())[0].strip() for ids in written]


def as_prompt(lm: LM, text: str) -> np.ndarray:
    """[L, d] float32: the embeddings of a text's tokens; L = 0 for none."""
    ids = torch.tensor(lm.encode(text) if text else [], dtype=torch.int64, device=lm.device)
    embeddings_Ld: np.ndarray = lm.embed(ids).float().cpu().numpy()
    return embeddings_Ld


# What a text says of a task.


def label_words(examples: Iterable[Example]) -> set[str]:
    """The distinct labels of examples, in lower case."""
    return {example.label.strip().casefold() for example in examples} - {""}


def named_share(text: str, words: set[str]) -> float:
    """The share of these words, or phrases, that stand in a text as whole words; 0 of none."""
    text = text.casefold()
    found = sum(word in text and bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)) for word in words)
    return found / len(words) if words else 0.0


def rouge_1(text: str, references: Iterable[str]) -> float:
    """ROUGE-1 (Lin 2004): F of the words that a text and a reference have in common; the maximum over references."""
    own = Counter(re.findall(r"\w+", text.casefold()))
    shares = [0.0]
    for reference in references:
        theirs = Counter(re.findall(r"\w+", reference.casefold()))
        shares.append(2 * sum((own & theirs).values()) / max(sum(own.values()) + sum(theirs.values()), 1))
    return max(shares)
