"""Score soft prompts on a task: accuracy, loss and what the model wrote.

One teacher-forced forward decides almost every row: where the arg-max is the label at every label position, greedy decoding
writes exactly the label; where it first differs, the text so far mostly rules the label out. Only rows it leaves open are
generated, so the verdict is the one that generating every row would give.

Shapes: N prompts, P prompt tokens, d width, E examples, M label positions.
"""

from dataclasses import dataclass

import numpy as np
import torch

from promptgeo.batching import Batch, Row, sum_by_row
from promptgeo.schema import Scoring, Template
from promptgeo.errors import UserError
from promptgeo.lm import FrozenLM
from promptgeo.losses import label_losses
from promptgeo.memory import keep_freed_memory
from promptgeo.tasks import Example, Task


@dataclass(frozen=True)
class Evaluation:
    correct: np.ndarray
    """[N, E] bool."""
    losses: np.ndarray
    """[N, E] float64: cross-entropy summed over the example's label tokens, in nats."""
    tokens: np.ndarray
    """[E] int64: label tokens of each example, terminator included."""
    label_correct: np.ndarray | None
    """[N, E] bool: the true label is the likeliest of the label set; None without one."""
    outputs: list[list[str]] | None
    """[N][E]: what the model wrote, up to the terminator; None if not asked for."""

    def of(self, k: int) -> "Evaluation":
        """The scores of prompt k alone."""
        labels = None if self.label_correct is None else self.label_correct[k : k + 1]
        outputs = None if self.outputs is None else self.outputs[k : k + 1]
        return Evaluation(self.correct[k : k + 1], self.losses[k : k + 1], self.tokens, labels, outputs)

    @property
    def n(self) -> int:
        """Examples."""
        return self.correct.shape[1]

    @property
    def accuracy(self) -> np.ndarray:
        """[N] float64."""
        return self.correct.mean(1)

    @property
    def loss(self) -> np.ndarray:
        """[N] float64: mean cross-entropy of a label token, in nats."""
        return self.losses.sum(1) / self.tokens.sum()

    @property
    def label_accuracy(self) -> np.ndarray | None:
        return None if self.label_correct is None else self.label_correct.mean(1)


@torch.no_grad()
def evaluate(
    lm: FrozenLM,
    prompts_NPd: torch.Tensor | np.ndarray,
    task: Task,
    *,
    split: str = "test",
    max_new_tokens: int | None = None,
    outputs: bool = False,
) -> Evaluation:
    """Score N soft prompts [N, P, d] on a split (train, validation or test); P = 0 scores the model without a prompt.

    max_new_tokens: longest output, default the template's. outputs: also say what the model wrote (generates every row that
    does not end with its label).
    Raises UserError if an example does not fit the model or the template's scoring.
    """
    prompts_NPd = torch.as_tensor(prompts_NPd, dtype=torch.float32).to(lm.device)
    if prompts_NPd.ndim != 3 or prompts_NPd.shape[2] != lm.width:
        raise UserError(f"prompts have shape {list(prompts_NPd.shape)}; [N, P, {lm.width}] is needed for this model")
    examples = getattr(task, split)
    if not examples:
        raise UserError(f"task {task.name}: has no {split} examples")
    if lm.device.type == "cpu":
        keep_freed_memory()
    limit = max_new_tokens or task.template.max_new_tokens
    scorer = _Scorer(lm, task.template, examples, task.rows(lm, examples, prompts_NPd.shape[1]), limit, outputs)
    labelled = _Forced(lm, [row for e in examples for row in task.label_rows(lm, e, prompts_NPd.shape[1])]) if task.labels else None
    truth = np.array([task.labels.index(e.label) for e in examples]) if task.labels else None

    # A few prompts at a time, into arrays that are there from the start: nothing but the scores grows with N.
    shape, written = (len(prompts_NPd), len(examples)), []
    correct, losses, label_correct = np.zeros(shape, dtype=bool), np.zeros(shape), np.zeros(shape, dtype=bool)
    per_chunk = max(lm.max_tokens // sum(row.length for row in scorer.rows), 1)
    for start in range(0, len(prompts_NPd), per_chunk):
        here, chunk = slice(start, start + per_chunk), prompts_NPd[start : start + per_chunk]
        correct[here], losses[here], texts = scorer(chunk)
        written += texts
        if task.labels:
            label_losses_NEL = labelled(chunk)[0].reshape(len(chunk), len(examples), -1)
            label_correct[here] = label_losses_NEL.argmin(-1) == truth
    tokens = np.array([len(row.label) for row in scorer.rows])
    return Evaluation(correct, losses, tokens, label_correct if task.labels else None, written if outputs else None)


class _Forced:
    """Scores rows teacher-forced for a few prompts at a time; for each number of prompts the rows are laid out once."""

    def __init__(self, lm: FrozenLM, rows: list[Row]):
        self.lm, self.rows = lm, rows
        self._batches: dict[int, list[Batch]] = {}

    def __call__(self, prompts_NPd: torch.Tensor) -> tuple[np.ndarray, list[list[int]]]:
        """Summed cross-entropy [N * rows] of each row and, at each of its label positions, the likeliest token."""
        n = len(prompts_NPd)
        rows = self.rows * n
        if n not in self._batches:
            self._batches[n] = list(self.lm.batches(rows, self.prompt_of(n), prompts_NPd.shape[1]))
        losses = np.zeros(len(rows))
        predicted: list[list[int]] = [[] for _ in rows]
        for batch in self._batches[n]:
            logits_MV = self.lm.label_logits(prompts_NPd, batch)
            ce_M = label_losses(logits_MV, batch.targets_M)
            losses[batch.rows] = sum_by_row(ce_M.double(), batch.row_M, len(rows)).cpu().numpy()[batch.rows]
            for row, token in zip(batch.row_M.tolist(), logits_MV.argmax(-1).tolist(), strict=True):
                if row < len(rows):
                    predicted[row].append(token)
        return losses, predicted

    def prompt_of(self, n: int) -> list[int]:
        return np.repeat(np.arange(n), len(self.rows)).tolist()


class _Scorer:
    """Scores a few prompts at a time on fixed rows."""

    def __init__(self, lm: FrozenLM, template: Template, examples: list[Example], rows: list[Row], limit: int, outputs: bool):
        self.lm, self.template, self.examples, self.rows, self.limit, self.want_outputs = lm, template, examples, rows, limit, outputs
        self._forced = _Forced(lm, rows)
        check_scoring(template, examples, rows)

    def __call__(self, prompts_NPd: torch.Tensor) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
        """Correct and losses [N, E], and what was written, if that is asked for."""
        n, e = len(prompts_NPd), len(self.rows)
        rows = self.rows * n
        losses, predicted = self._forced(prompts_NPd)
        correct = np.zeros(n * e, dtype=bool)
        texts = [""] * (n * e)
        to_generate: dict[int, list[int]] = {}  # row -> the tokens it is known to begin with
        for i, (row, tokens) in enumerate(zip(rows, predicted, strict=True)):
            label, wanted = self.examples[i % e].label, row.label.tolist()
            wrong = next((k for k, (a, b) in enumerate(zip(tokens, wanted, strict=True)) if a != b), None)
            if self.template.scoring is Scoring.token:
                correct[i] = wrong is None
                if self.want_outputs:
                    texts[i] = self.lm.decode(tokens[:1])
            elif wrong is None and len(wanted) <= self.limit and (self.template.end or not self.want_outputs):
                correct[i], texts[i] = self._verdict(wanted, label)
            else:
                known = self._greedy_so_far(wanted if wrong is None else [*wanted[:wrong], tokens[wrong]])
                if self.want_outputs or wrong is None or self._open(known, label):
                    to_generate[i] = known
        if to_generate:
            self._generate(prompts_NPd, rows, self._forced.prompt_of(n), to_generate, correct, texts)
        outputs = [texts[k * e : (k + 1) * e] for k in range(n)] if self.want_outputs else []
        return correct.reshape(n, e), losses.reshape(n, e), outputs

    def _greedy_so_far(self, tokens: list[int]) -> list[int]:
        """Where greedy decoding would have stopped among tokens that it would have written."""
        end = next((k + 1 for k, token in enumerate(tokens) if token in self.lm.end_tokens), None)
        return tokens[: min(end or len(tokens), self.limit)]

    def _generate(self, prompts_NPd, rows, prompt_of, begun: dict[int, list[int]], correct: np.ndarray, texts: list[str]) -> None:
        chosen = list(begun)
        labels = [self.examples[i % len(self.rows)].label for i in chosen]

        def finished(j: int, tokens: list[int]) -> bool:
            if self.template.end and self.template.end in self.lm.decode(tokens):
                return True
            return not self.want_outputs and not self._open(tokens, labels[j])

        written = self.lm.greedy(prompts_NPd, [rows[i] for i in chosen], [prompt_of[i] for i in chosen], self.limit, finished, list(begun.values()))
        for i, label, tokens in zip(chosen, labels, written, strict=True):
            correct[i], texts[i] = self._verdict(tokens, label)

    def _text(self, tokens: list[int]) -> tuple[str, bool]:
        """What the tokens say, and whether they end with an end-of-sequence token (which says nothing)."""
        ended = tokens[-1] in self.lm.end_tokens
        return self.lm.decode(tokens[:-1] if ended else tokens), ended

    def _verdict(self, tokens: list[int], label: str) -> tuple[bool, str]:
        """Whether these tokens, all that was written, are correct; and the output: their text up to the terminator."""
        text, ended = self._text(tokens)
        output, terminator, _ = text.partition(self.template.end) if self.template.end else (text, "", "")
        if self.template.scoring is Scoring.line:
            return (ended or bool(terminator)) and output.strip() == label.strip(), output
        return text.strip().startswith(label.strip()), output

    def _open(self, tokens: list[int], label: str) -> bool:
        """Whether a continuation of these tokens could still be scored as correct. False only if it cannot."""
        text, label = self._text(tokens)[0].rstrip("\ufffd"), label.strip()  # a token may end inside a character
        if self.template.scoring is Scoring.line:
            return label.startswith(text.split(self.template.end, 1)[0].strip())
        return label.startswith(text.strip()) or text.strip().startswith(label)


def check_scoring(template: Template, examples: list[Example], rows: list[Row]) -> None:
    """Raises UserError naming the first example that the template's scoring cannot score."""
    for example, row in zip(examples, rows, strict=True):
        if template.scoring is Scoring.token and len(row.label) != 1:
            raise UserError(f"template.scoring=token: the label of example {example.id} ({example.label[:60]!r}) is {len(row.label)} tokens for this model; use another template")
        if template.scoring is Scoring.line and template.end in example.label:
            raise UserError(f"example {example.id}: its label ({example.label[:60]!r}) holds the terminator template.end")
