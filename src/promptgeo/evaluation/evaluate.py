"""How good is a soft prompt on a task, and what does the model write?

One teacher-forced forward decides almost every row: where the arg-max is the label at every label position, greedy
decoding writes exactly the label; where it first differs, the text so far mostly rules the label out. Only the other
rows are generated, so the scores are those that generating every row would give.

Shapes: N prompts, P prompt tokens, d width, E examples, L labels of a label set, M label positions, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch

from promptgeo.config.schema import Template
from promptgeo.data.row import Row
from promptgeo.data.tasks import Example, Task
from promptgeo.errors import UserError
from promptgeo.evaluation import metrics
from promptgeo.evaluation.rules import Continuation, check_scoring, rule_of
from promptgeo.model.batching import Batch, sum_by_row
from promptgeo.model.interface import LM
from promptgeo.model.losses import label_losses
from promptgeo.model.memory import keep_freed_memory


@dataclass(frozen=True)
class Evaluation:
    """The scores of N prompts on E examples."""

    correct: np.ndarray
    """[N, E] bool: by the template's scoring rule."""
    losses: np.ndarray
    """[N, E] float64: cross-entropy summed over the example's label tokens, in nats."""
    tokens: np.ndarray
    """[E] int64: label tokens of each example, terminator included."""
    label_choices: np.ndarray | None
    """[N, E] int64: the likeliest of the task's label set, by number; None where the task has no label set."""
    outputs: list[list[str]] | None
    """[N][E]: what the model wrote, up to the terminator; None where they were not wanted."""
    labels: np.ndarray | None = None
    """[E] int64: the true one of the label set, by number."""

    def of(self, k: int) -> "Evaluation":
        """The scores of prompt k alone."""
        one = slice(k, k + 1)
        choices = None if self.label_choices is None else self.label_choices[one]
        outputs = None if self.outputs is None else self.outputs[one]
        return Evaluation(self.correct[one], self.losses[one], self.tokens, choices, outputs, self.labels)

    @property
    def n(self) -> int:
        """Examples."""
        return self.correct.shape[1]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every metric that the task supports: name -> [N] float64."""
        values = {metric.name: metric.of(self) for metric in metrics.METRICS}
        return {name: values_N for name, values_N in values.items() if values_N is not None}

    @property
    def accuracy(self) -> np.ndarray:
        """[N] float64: share of the examples that are correct."""
        return metrics.accuracy(self)

    @property
    def loss(self) -> np.ndarray:
        """[N] float64: mean cross-entropy of a label token, in nats."""
        return metrics.loss(self)

    @property
    def label_accuracy(self) -> np.ndarray | None:
        """[N] float64: share of the examples whose true label is the likeliest of the label set; None without one."""
        return metrics.label_accuracy(self)

    @property
    def label_correct(self) -> np.ndarray | None:
        """[N, E] bool: whether the true label is the likeliest of the label set; None without one."""
        return None if self.label_choices is None else self.label_choices == self.labels


@torch.no_grad()
def evaluate(
    lm: LM,
    prompts_NPd: torch.Tensor | np.ndarray,
    task: Task,
    *,
    split: str = "test",
    max_new_tokens: int | None = None,
    outputs: bool = False,
) -> Evaluation:
    """Score soft prompts on a task's examples.

    Any number of prompts can be scored: only a few batches are in memory at a time. Each prompt's scores are those that
    it has alone, on a CPU to the last bit.

    Args:
        lm: the frozen model, as FrozenLM.load returns it.
        prompts_NPd: [N, P, d], any floating-point numbers; P = 0 scores the model without a prompt.
        task: examples and template, as pg.task returns them.
        split: train, validation or test.
        max_new_tokens: the largest number of tokens that the model may write; None: as the template says.
        outputs: also return what the model wrote. Every row that does not end with its label is then generated.

    Returns an Evaluation: accuracy, loss and label_accuracy are [N]; correct and losses are [N, E].
    Raises UserError where the prompts' shape does not fit the model, the split is empty, or an example does not fit the
    model or the template's scoring.
    """
    prompts_NPd = torch.as_tensor(prompts_NPd, dtype=torch.float32).to(lm.device)
    if prompts_NPd.ndim != 3 or prompts_NPd.shape[2] != lm.width:
        raise UserError(f"prompts have shape {list(prompts_NPd.shape)}; [N, P, {lm.width}] is needed for this model")
    examples: list[Example] = getattr(task, split)
    if not examples:
        raise UserError(f"task {task.name}: has no {split} examples")
    if lm.device.type == "cpu":
        keep_freed_memory()
    n, length, e = len(prompts_NPd), prompts_NPd.shape[1], len(examples)
    limit = max_new_tokens or task.template.max_new_tokens
    rows = task.rows(lm, examples, length)
    scorer = _Scorer(lm, task.template, examples, rows, limit, outputs)
    chooser = _Chooser(lm, task, examples, length) if task.labels else None

    # A few prompts at a time, into arrays that are there from the start: nothing but the scores grows with N.
    correct, losses, written = np.zeros((n, e), dtype=bool), np.zeros((n, e)), []
    choices = np.zeros((n, e), dtype=np.int64)
    per_chunk = max(lm.max_tokens // sum(row.length for row in rows), 1)
    for start in range(0, n, per_chunk):
        here = slice(start, start + per_chunk)
        correct[here], losses[here], texts = scorer(prompts_NPd[here])
        written += texts
        if chooser is not None:
            choices[here] = chooser(prompts_NPd[here])
    return Evaluation(
        correct,
        losses,
        np.array([len(row.label) for row in rows]),
        choices if chooser is not None else None,
        written if outputs else None,
        chooser.labels if chooser is not None else None,
    )


class _Forced:
    """Runs rows teacher-forced for a few prompts at a time; for each number of prompts the batches are made once."""

    def __init__(self, lm: LM, rows: list[Row]):
        self.lm, self.rows = lm, rows
        self._batches: dict[int, list[Batch]] = {}

    def __call__(self, prompts_NPd: torch.Tensor) -> tuple[np.ndarray, list[list[int]]]:
        """Summed cross-entropy [N * rows] of each row and, at each of its label positions, the likeliest token."""
        n = len(prompts_NPd)
        rows = self.rows * n
        if n not in self._batches:
            self._batches[n] = list(self.lm.batches(rows, self.prompt_of(n), prompts_NPd.shape[1]))
        losses = np.zeros(len(rows))
        likeliest: list[list[int]] = [[] for _ in rows]
        for batch in self._batches[n]:
            logits_MV = self.lm.label_logits(prompts_NPd, batch)
            ce_M = label_losses(logits_MV, batch.targets_M)
            losses[batch.rows] = sum_by_row(ce_M.double(), batch.row_M, len(rows)).cpu().numpy()[batch.rows]
            for row, token in zip(batch.row_M.tolist(), logits_MV.argmax(-1).tolist(), strict=True):
                if row < len(rows):
                    likeliest[row].append(token)
        return losses, likeliest

    def prompt_of(self, n: int) -> list[int]:
        """The prompt of each row where n prompts are scored, rows of one side by side."""
        return np.repeat(np.arange(n), len(self.rows)).tolist()


class _Chooser:
    """Which label of the label set is the likeliest after each example's text?"""

    def __init__(self, lm: LM, task: Task, examples: list[Example], prompt_length: int):
        labels = task.labels or []
        self.labels = np.array([labels.index(example.label) for example in examples])
        self._shape = len(examples), len(labels)
        rows = [row for example in examples for row in task.label_rows(lm, example, prompt_length)]
        self._forced = _Forced(lm, rows)

    def __call__(self, prompts_NPd: torch.Tensor) -> np.ndarray:
        """[N, E] int64, by number."""
        losses, _ = self._forced(prompts_NPd)
        return losses.reshape(len(prompts_NPd), *self._shape).argmin(-1)


class _Scorer:
    """Scores a few prompts at a time on fixed rows."""

    def __init__(self, lm: LM, template: Template, examples: list[Example], rows: list[Row], limit: int, outputs: bool):
        check_scoring(template, examples, rows)
        self.lm, self.template, self.rule = lm, template, rule_of(template)
        self.examples, self.rows = examples, rows
        self.limit, self.wants_outputs = limit, outputs
        self._forced = _Forced(lm, rows)

    def __call__(self, prompts_NPd: torch.Tensor) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
        """correct and losses [N, E], and what was written, if that is wanted."""
        n, e = len(prompts_NPd), len(self.rows)
        losses, likeliest = self._forced(prompts_NPd)
        correct = np.zeros(n * e, dtype=bool)
        texts = [""] * (n * e)
        begun: dict[int, list[int]] = {}  # rows to generate -> the tokens they are known to begin with
        for i, tokens in enumerate(likeliest):
            label = self.rows[i % e].label.tolist()
            pairs = enumerate(zip(tokens, label, strict=True))
            wrong = next((k for k, (token, wanted) in pairs if token != wanted), None)
            is_label = wrong is None and len(label) <= self.limit and (self.template.end or not self.wants_outputs)
            if self.rule.first_token_only or is_label:
                written = Continuation(self.lm, tokens[:1] if self.rule.first_token_only else tokens)
                correct[i], texts[i] = self._judge(i, written)
                continue
            known = self._greedy_so_far(label if wrong is None else [*label[:wrong], tokens[wrong]])
            if self.wants_outputs or wrong is None or self.rule.may_become_correct(known, self.examples[i % e]):
                begun[i] = known.tokens
        if begun:
            for i, written in self._generate(prompts_NPd, begun).items():
                correct[i], texts[i] = self._judge(i, written)
        outputs = [texts[k * e : (k + 1) * e] for k in range(n)] if self.wants_outputs else []
        return correct.reshape(n, e), losses.reshape(n, e), outputs

    def _greedy_so_far(self, tokens: list[int]) -> Continuation:
        """Where greedy decoding would have stopped among tokens that it would have written."""
        end = next((k + 1 for k, token in enumerate(tokens) if token in self.lm.end_tokens), len(tokens))
        return Continuation(self.lm, tokens[: min(end, self.limit)])

    def _generate(self, prompts_NPd: torch.Tensor, begun: dict[int, list[int]]) -> dict[int, Continuation]:
        """The continuations of these rows, each from the tokens it is known to begin with on."""
        chosen = list(begun)
        e = len(self.rows)

        def finished(j: int, tokens: list[int]) -> bool:
            written = Continuation(self.lm, tokens)
            if self.template.end and self.template.end in self.lm.decode(tokens):
                return True
            return not self.wants_outputs and not self.rule.may_become_correct(written, self.examples[chosen[j] % e])

        rows, prompt_of = [self.rows[i % e] for i in chosen], [i // e for i in chosen]
        tokens = self.lm.greedy(prompts_NPd, rows, prompt_of, self.limit, finished, list(begun.values()))
        return {i: Continuation(self.lm, of_row) for i, of_row in zip(chosen, tokens, strict=True)}

    def _judge(self, i: int, written: Continuation) -> tuple[bool, str]:
        k = i % len(self.rows)
        correct = self.rule.is_correct(written, self.examples[k], self.rows[k])
        return correct, self.rule.output(written) if self.wants_outputs else ""
