"""How good is a soft prompt on a task, and what does the model write?

One teacher-forced forward decides almost every row: where the arg-max is the label at every label position, greedy
decoding writes exactly the label; where it first differs, the text so far mostly rules the label out. Only the other
rows are generated, so the scores are those that generating every row would give. Where a task has a label set, that
forward has all its labels: they share the example's text.

Shapes: N prompts, P prompt tokens, d width, E examples, L labels of a label set, M label positions, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch

from promptgeo.config.schema import Scoring, Template
from promptgeo.data.row import Row
from promptgeo.data.tasks import Example, Task
from promptgeo.errors import UserError
from promptgeo.evaluation import metrics
from promptgeo.evaluation.metrics import Metric
from promptgeo.evaluation.rules import Continuation, check_scoring, rule_of
from promptgeo.model.attention import KeyValueCache
from promptgeo.model.batching import Batch, cut_back, sum_by_row
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
    label_losses: np.ndarray | None
    """[N, E, L] float64: of each label of the task's label set, summed over its tokens, in nats; None without one."""
    outputs: list[list[str]] | None
    """[N][E]: what the model wrote, up to the terminator; None where they were not wanted."""
    labels: np.ndarray | None = None
    """[E] int64: the true one of the label set, by number."""
    content_free: np.ndarray | None = None
    """[N, L] float64: the labels' losses after an input without content, by which they are corrected (Zhao et al.
    2021, "Calibrate Before Use"); None: they are compared as they are."""
    begun: np.ndarray | None = None
    """[N, E] int64, under scoring=recite: label tokens before the first that is not the likeliest: those that greedy
    decoding writes."""
    right: np.ndarray | None = None
    """[N, E] int64, likewise: label tokens that are the likeliest after the true ones before them."""

    @cached_property
    def compared_losses(self) -> np.ndarray | None:
        """[N, E, L] float64: the label losses as they are compared, in nats; None without a label set."""
        if self.label_losses is None or self.content_free is None:
            return self.label_losses
        return self.label_losses - self.content_free[:, None]

    @cached_property
    def label_choices(self) -> np.ndarray | None:
        """[N, E] int64: the likeliest of the label set, by number, -1 where a loss is NaN; None without one."""
        losses_NEL = self.compared_losses
        return None if losses_NEL is None else np.where(np.isnan(losses_NEL).any(-1), -1, losses_NEL.argmin(-1))

    @property
    def label_set(self) -> int:
        """Labels of the set; 0 without one."""
        return 0 if self.label_losses is None else self.label_losses.shape[2]

    def of(self, k: int) -> "Evaluation":
        """The scores of prompt k alone."""
        one = slice(k, k + 1)
        label_losses = None if self.label_losses is None else self.label_losses[one]
        outputs = None if self.outputs is None else self.outputs[one]
        others = [x if x is None else x[one] for x in (self.content_free, self.begun, self.right)]
        return Evaluation(self.correct[one], self.losses[one], self.tokens, label_losses, outputs, self.labels, *others)

    @property
    def n(self) -> int:
        """Examples."""
        return self.correct.shape[1]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every metric that the task supports: name -> [N] float64."""
        values = {metric.name: self._measured(metric) for metric in metrics.METRICS}
        return {name: values_N for name, values_N in values.items() if values_N is not None}

    def _measured(self, metric: Metric) -> np.ndarray | None:
        """Raises RuntimeError, which names the metric, where it fails or gives no number of each prompt."""
        try:
            values_N = metric.of(self)
        except Exception as error:  # whatever a metric of the user's own raises
            raise RuntimeError(f"metric {metric.name}: {type(error).__name__}: {error}") from error
        if values_N is not None and np.shape(values_N) != (size := self.correct.shape[:1]):
            raise RuntimeError(f"metric {metric.name}: gives shape {np.shape(values_N)}, and {size} is needed")
        return values_N

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


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The scores of all prompts of evaluations on the same examples, in order."""
    if len(parts) == 1:
        return parts[0]
    first, of_examples = parts[0], ("tokens", "labels")
    values = {each.name: [getattr(part, each.name) for part in parts] for each in fields(Evaluation)}
    outputs = values.pop("outputs")
    arrays = {
        name: of_parts[0] if name in of_examples or of_parts[0] is None else np.concatenate(of_parts)
        for name, of_parts in values.items()
    }
    return Evaluation(
        **arrays, outputs=None if first.outputs is None else [texts for each in outputs for texts in each]
    )


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
    # Long because what it takes and gives is told here.
    prompts_NPd = as_prompts(lm, prompts_NPd)
    examples: list[Example] = getattr(task, split)
    if not examples:
        raise UserError(f"task {task.name}: has no {split} examples")
    if lm.device.type == "cpu":
        keep_freed_memory()
    n, length, e = len(prompts_NPd), prompts_NPd.shape[1], len(examples)
    limit = max_new_tokens or task.template.max_new_tokens
    rows = task.rows(lm, examples, length)
    check_scoring(task.template, examples, rows)
    labels = task.labels or []
    true_E = np.array([labels.index(example.label) if labels else 0 for example in examples])
    rows_EL = [task.label_rows(lm, example, length) for example in examples] if labels else [[row] for row in rows]
    scorer = _Scorer(lm, task.template, examples, rows_EL, true_E, limit, outputs)
    rows_L = task.content_free_rows(lm, length)
    nothing = _Forced(lm, rows_L) if rows_L else None

    # A few prompts at a time, into arrays that are there from the start: nothing but the scores grows with N.
    correct, losses, written = np.zeros((n, e), dtype=bool), np.zeros((n, e, len(labels) or 1)), []
    recites = task.template.scoring is Scoring.recite
    begun, right = np.zeros((n, e), dtype=np.int64), np.zeros((n, e), dtype=np.int64)
    content_free = np.zeros((n, len(labels)))
    per_chunk = max(lm.max_tokens // sum(row.length for row in rows), 1)
    for start in range(0, n, per_chunk):
        here = slice(start, start + per_chunk)
        correct[here], losses[here], texts = scorer(prompts_NPd[here])
        begun[here], right[here] = scorer.begun, scorer.right
        written += texts
        if nothing is not None:
            content_free[here] = nothing.losses(prompts_NPd[here])
    return Evaluation(
        correct,
        losses[:, np.arange(e), true_E],
        np.array([len(row.label) for row in rows]),
        losses if labels else None,
        written if outputs else None,
        true_E if labels else None,
        content_free if nothing is not None else None,
        begun if recites else None,
        right if recites else None,
    )


def as_prompts(lm: LM, prompts_NPd: torch.Tensor | np.ndarray) -> torch.Tensor:
    """[N, P, d] float32 on the model's device. Raises UserError for what is no model or no such array."""
    if isinstance(lm, str):
        raise UserError(f"lm={lm!r}: a model is needed, as pg.FrozenLM.load({lm!r}) returns it")
    try:
        prompts_NPd = torch.as_tensor(prompts_NPd, dtype=torch.float32).to(lm.device)
    except (TypeError, ValueError, RuntimeError) as error:
        given = type(prompts_NPd).__name__
        raise UserError(
            f"prompts: an array [N, P, {lm.width}] is needed, not a {given}; a run's is run.prompt()"
        ) from error
    if prompts_NPd.ndim != 3 or prompts_NPd.shape[2] != lm.width:
        raise UserError(f"prompts have shape {list(prompts_NPd.shape)}; [N, P, {lm.width}] is needed for this model")
    return prompts_NPd


def most_frequent_label(task: Task) -> str:
    """Training's; of equally frequent ones, the label set's first."""
    counts = Counter(example.label for example in task.train)
    return max(task.labels or sorted(counts), key=lambda label: counts[label])


def majority_accuracy(task: Task, split: str) -> float:
    """What always saying training's most frequent label would score."""
    most = most_frequent_label(task)
    return float(np.mean([example.label == most for example in getattr(task, split)]))


class _Forced:
    """Runs rows teacher-forced for a few prompts at a time; for each number of prompts the batches are made once."""

    def __init__(self, lm: LM, rows: list[Row]):
        self.lm, self.rows = lm, rows
        self._batches: dict[int, list[Batch]] = {}

    def batches(self, n: int, prompt_length: int) -> list[Batch]:
        """Of the rows of n prompts, those of one side by side."""
        if n not in self._batches:
            prompt_of = np.repeat(np.arange(n), len(self.rows)).tolist()
            self._batches[n] = list(self.lm.batches(self.rows * n, prompt_of, prompt_length))
        return self._batches[n]

    def run(
        self, prompts_NPd: torch.Tensor, batch: Batch, cache: KeyValueCache | None = None
    ) -> tuple[np.ndarray, dict[int, list[int]]]:
        """Of each row of the batch the summed cross-entropy and, at each of its label positions, the likeliest token.

        cache: keeps the keys and values of a tree.
        """
        rows = len(self.rows) * len(prompts_NPd)
        logits_MV = self.lm.label_logits(prompts_NPd, batch, cache)
        ce_M = label_losses(logits_MV, batch.targets_M)
        losses = sum_by_row(ce_M.double(), batch.row_M, rows).cpu().numpy()[batch.rows]
        likeliest: dict[int, list[int]] = {i: [] for i in batch.rows}
        for row, token in zip(batch.row_M.tolist(), logits_MV.argmax(-1).tolist(), strict=True):
            if row < rows:
                likeliest[row].append(token)
        return losses, likeliest

    def losses(self, prompts_NPd: torch.Tensor) -> np.ndarray:
        """[N, rows] float64: cross-entropy summed over each row's label tokens."""
        n, length = prompts_NPd.shape[:2]
        losses = np.zeros(n * len(self.rows))
        for batch in self.batches(n, length):
            losses[batch.rows], _ = self.run(prompts_NPd, batch)
        return losses.reshape(n, -1)


class _Scorer:
    """Scores a few prompts at a time on fixed rows: of each example one, or one for each label of a label set.

    A row of the chunk is counted through prompts, examples and labels. What the model writes is asked of rows with the
    example's own label alone.
    """

    def __init__(
        self,
        lm: LM,
        template: Template,
        examples: list[Example],
        rows_EL: list[list[Row]],
        true_E: np.ndarray,
        limit: int,
        outputs: bool,
    ):
        self.lm, self.template, self.rule = lm, template, rule_of(template)
        self.examples, self.labels = examples, len(rows_EL[0])
        self.rows = [row for rows_L in rows_EL for row in rows_L]
        self._true = {e * self.labels + int(label) for e, label in enumerate(true_E)}
        self.limit, self.wants_outputs = limit, outputs
        self._forced = _Forced(lm, self.rows)

    def __call__(self, prompts_NPd: torch.Tensor) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
        """correct [N, E], losses [N, E, L], and what was written, if that is wanted."""
        n, e = len(prompts_NPd), len(self.examples)
        losses = np.zeros(n * len(self.rows))
        self.begun, self.right = np.zeros((n, e), dtype=np.int64), np.zeros((n, e), dtype=np.int64)
        written: dict[int, Continuation] = {}  # of every row that may be correct or is wanted, what it writes
        from_text: dict[int, list[int]] = {}  # rows to generate whole -> the tokens they are known to begin with
        for batch in self._forced.batches(n, prompts_NPd.shape[1]):
            # One batch's keys and values at a time: its rows are written before the next batch runs.
            longest = max(self._row(i).length for i in batch.rows) + self.limit
            cache = None if self.rule.forced else self.lm.cache_for(batch, longest)
            losses[batch.rows], likeliest = self._forced.run(prompts_NPd, batch, cache)
            begun: dict[int, list[int]] = {}
            for i, tokens in likeliest.items():
                if i % len(self.rows) not in self._true:
                    continue
                label = self._row(i).label.tolist()
                place = divmod(i // self.labels, e)
                self.begun[place] = _begun(tokens, label)
                self.right[place] = sum(a == b for a, b in zip(tokens, label, strict=True))
                if decided := self._decided(i, tokens):
                    written[i] = decided
                elif known := self._begun(i, tokens):
                    begun[i] = known
            if cache is None:
                from_text |= begun
            elif begun:
                written |= self._write_on(prompts_NPd, batch, cache, begun)
        if from_text:
            written |= self._generate(prompts_NPd, from_text)
        correct, texts = np.zeros(n * e, dtype=bool), [""] * (n * e)
        for i, whole in written.items():
            correct[i // self.labels], texts[i // self.labels] = self._judge(i, whole)
        outputs = [texts[k * e : (k + 1) * e] for k in range(n)] if self.wants_outputs else []
        return correct.reshape(n, e), losses.reshape(n, e, self.labels), outputs

    def _decided(self, i: int, likeliest: list[int]) -> Continuation | None:
        """What row i writes, where the likeliest token after each of its label's says it all."""
        label = self._row(i).label.tolist()
        if self.rule.forced:
            return Continuation(self.lm, likeliest[: _begun(likeliest, label) + 1])
        ends = len(label) <= self.limit and (self.template.end or not self.wants_outputs)
        return Continuation(self.lm, likeliest) if ends and likeliest == label else None

    def _begun(self, i: int, likeliest: list[int]) -> list[int]:
        """The tokens that row i begins with: the label's, up to the first that is another; none where that decides it.

        What comes after another token than the label's was not asked: it is generated, if it matters.
        """
        label = self._row(i).label.tolist()
        known = self._greedy_so_far(likeliest[: _begun(likeliest, label) + 1])
        matters = self.wants_outputs or likeliest == label or self.rule.may_become_correct(known, self._example(i))
        return known.tokens if matters else []

    def _row(self, i: int) -> Row:
        return self.rows[i % len(self.rows)]

    def _example(self, i: int) -> Example:
        return self.examples[i % len(self.rows) // self.labels]

    def _greedy_so_far(self, tokens: list[int]) -> Continuation:
        """Where greedy decoding would have stopped among tokens that it would have written."""
        end = next((k + 1 for k, token in enumerate(tokens) if token in self.lm.end_tokens), len(tokens))
        return Continuation(self.lm, tokens[: min(end, self.limit)])

    def _finished(self, i: int, tokens: list[int]) -> bool:
        """Whether nothing that row i may write after these tokens matters."""
        written = Continuation(self.lm, tokens)
        if self.rule.is_whole(written):
            return True
        return not self.wants_outputs and not self.rule.may_become_correct(written, self._example(i))

    def _write_on(
        self, prompts_NPd: torch.Tensor, batch: Batch, cache: KeyValueCache, begun: dict[int, list[int]]
    ) -> dict[int, Continuation]:
        """What these rows of a batch write, continued from the keys and values of its forward."""
        # From a wrong token on, those are of label tokens that the row does not write.
        tree = cut_back(batch, {i: len(self._row(i).ids) + len(tokens) - 1 for i, tokens in begun.items()})
        self.lm.write_on(prompts_NPd, tree, cache, begun, self.limit, self._finished)
        return {i: Continuation(self.lm, tokens) for i, tokens in begun.items()}

    def _generate(self, prompts_NPd: torch.Tensor, begun: dict[int, list[int]]) -> dict[int, Continuation]:
        """What these rows write, each run whole from the tokens it is known to begin with on."""
        chosen = sorted(begun)  # the rows of one prompt side by side
        rows, prompt_of = [self._row(i) for i in chosen], [i // len(self.rows) for i in chosen]

        def finished(j: int, tokens: list[int]) -> bool:
            return self._finished(chosen[j], tokens)

        tokens = self.lm.write(prompts_NPd, rows, prompt_of, self.limit, finished, [begun[i] for i in chosen])
        return {i: Continuation(self.lm, of_row) for i, of_row in zip(chosen, tokens, strict=True)}

    def _judge(self, i: int, written: Continuation) -> tuple[bool, str]:
        correct = self.rule.is_correct(written, self._example(i), self._row(i))
        return correct, self.rule.output(written) if self.wants_outputs else ""


def _begun(likeliest: list[int], label: list[int]) -> int:
    """Label tokens before the first that is not the likeliest."""
    return next((k for k, (a, b) in enumerate(zip(likeliest, label, strict=True)) if a != b), len(label))
