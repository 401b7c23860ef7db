"""PromptTuning: trains the soft prompts of several runs on one frozen model, each run exactly as if it were alone.

A *tick* is one optimiser step of every active run. A *slot* holds one run's prompt (one Parameter [P, d], one optimiser group)
and takes the next waiting run when its run is done. A solo run is one slot.

Shapes: R active runs, P prompt tokens, d width, M label positions.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from promptgeo.batching import IGNORE, sum_by_row
from promptgeo.config import Every, Optimizer, OptimizerKind, Schedule
from promptgeo.evaluation import Evaluation, evaluate
from promptgeo.planning import Plan
from promptgeo.runs import Trained


class RunState:
    """What one run has done so far: its place in the data, its curves, its checkpoints, its best prompt."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.step = 0
        self.status: str | None = None
        """None while it trains."""
        self.order = torch.Generator().manual_seed(plan.seeds["order"])
        self.queue: deque[int] = deque()
        self.metrics: list[dict[str, Any]] = []
        self.trajectory: list[np.ndarray] = []
        self.steps: list[int] = []
        self.best = plan.p0_Pd.numpy().copy()
        self.best_loss = float("inf")
        self.epochs_without_gain = 0
        self.lr: float | None = None
        """Learning rate of the last step; None before the first."""
        self._checkpoints = checkpoint_steps(plan.config.training.checkpoints, plan.steps_per_epoch, plan.total_steps)
        self._start_epoch()

    def _start_epoch(self) -> None:
        # Sums stay on the device: reading them at every step would make the host wait for it.
        self.ce_sum: Tensor | float = 0.0
        self.correct: Tensor | int = 0
        self.tokens = 0
        self.examples = 0

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.plan.steps_per_epoch

    def next_minibatch(self) -> list[int]:
        """Indices of the next minibatch; a new order each epoch, the last minibatch of an epoch may be smaller."""
        if not self.queue:
            self.queue.extend(torch.randperm(len(self.plan.train_rows), generator=self.order).tolist())
        size = min(self.plan.config.training.batch_size, len(self.queue))
        return [self.queue.popleft() for _ in range(size)]

    def stepped(self, prompt_Pd: Tensor) -> None:
        """Book-keeping after a step: checkpoint, end of epoch, end of run."""
        self.step += 1
        last = self.step >= self.plan.total_steps
        if self.step in self._checkpoints:
            self._keep(prompt_Pd)
        if self.step % self.plan.steps_per_epoch == 0 or last:
            self._end_epoch(prompt_Pd)
        if last and self.status is None:
            self.status = "completed"
        if self.status is not None and (not self.steps or self.steps[-1] != self.step):
            self._keep(prompt_Pd)

    def _keep(self, prompt_Pd: Tensor) -> None:
        self.steps.append(self.step)
        self.trajectory.append(_copy(prompt_Pd))

    def _end_epoch(self, prompt_Pd: Tensor) -> None:
        loss = float(self.ce_sum) / max(self.tokens, 1)
        self._log("train", prompt_Pd, loss, int(self.correct) / max(self.examples, 1), None, self.examples)
        self._start_epoch()
        if not (np.isfinite(loss) and bool(torch.isfinite(prompt_Pd).all())):
            self.status = "diverged"
            return
        self.evaluate(prompt_Pd)

    def evaluate(self, prompt_Pd: Tensor) -> None:
        """Score the prompt on validation (where there is one) and on the evaluated split; may end the run early."""
        plan = self.plan
        done = self.step >= plan.total_steps
        if plan.task.validation:
            found = self._score(prompt_Pd, "validation")
            if self.step > 0:
                self._watch(float(found.loss[0]), prompt_Pd)
                done = done or self.status is not None
        if plan.split != "validation" and (self.step == 0 or done or plan.config.evaluation.every is Every.epoch):
            self._score(prompt_Pd, plan.split)

    def _watch(self, loss: float, prompt_Pd: Tensor) -> None:
        patience = self.plan.config.training.early_stopping.patience
        if loss < self.best_loss:
            self.best_loss, self.best, self.epochs_without_gain = loss, _copy(prompt_Pd), 0
        else:
            self.epochs_without_gain += 1
        if patience is not None and self.epochs_without_gain >= patience:
            self.status = "completed"

    def _score(self, prompt_Pd: Tensor, split: str) -> Evaluation:
        plan = self.plan
        found = evaluate(plan.lm, prompt_Pd.detach()[None], plan.task, split=split, max_new_tokens=plan.config.evaluation.max_new_tokens)
        labels = None if found.label_accuracy is None else float(found.label_accuracy[0])
        self._log(split, prompt_Pd, float(found.loss[0]), float(found.accuracy[0]), labels, found.n)
        if self.step > 0 and not np.isfinite(found.loss[0]):
            self.status = "diverged"
        return found

    def _log(self, split: str, prompt_Pd: Tensor, loss: float, accuracy: float, label_accuracy: float | None, n: int) -> None:
        prompt_Pd = prompt_Pd.detach().float().cpu()
        self.metrics.append(
            {
                "step": self.step,
                "epoch": self.epoch,
                "split": split,
                "loss": loss,
                "accuracy": accuracy,
                "label_accuracy": label_accuracy,
                "n": n,
                "lr": self.lr,
                "prompt_norm": float(prompt_Pd.norm()),
                "distance_to_p0": float((prompt_Pd - self.plan.p0_Pd).norm()),
            }
        )

    def result(self, prompt_Pd: Tensor) -> Trained:
        """Everything the run folder holds, with the predictions of no prompt, P0, the final and the best prompt."""
        plan, final = self.plan, _copy(prompt_Pd)
        initial = plan.p0_Pd.numpy().copy()
        watched = bool(plan.task.validation) and np.isfinite(self.best_loss)
        best = self.best if watched else final.copy()
        prompts = {"none": np.zeros((0, plan.lm.width), np.float32), "initial": initial}
        if self.status == "completed":
            prompts |= {"final": final} | ({"best": best} if watched else {})
        predictions, accuracy, loss, label_accuracy = [], {}, {}, {}
        for which, array in prompts.items():
            found = evaluate(
                plan.lm, array[None], plan.task, split=plan.split, max_new_tokens=plan.config.evaluation.max_new_tokens, outputs=True
            )
            predictions += _predictions(which, plan, found)
            accuracy[which], loss[which] = float(found.accuracy[0]), float(found.loss[0])
            if found.label_accuracy is not None:
                label_accuracy[which] = float(found.label_accuracy[0])
        n = len(getattr(plan.task, plan.split))
        results = {"split": plan.split, "n": n, "steps": self.step, "prompt_length": len(final), "accuracy": accuracy, "loss": loss}
        return Trained(
            status=self.status or "interrupted",
            initial=initial,
            trajectory=np.stack(self.trajectory) if self.trajectory else np.zeros((0, *final.shape), np.float32),
            steps=np.array(self.steps, dtype=np.int64),
            final=final,
            best=best,
            metrics=self.metrics,
            predictions=predictions,
            results=results | ({"label_accuracy": label_accuracy} if label_accuracy else {}),
        )


class PromptTuning(L.LightningModule):
    """Trains the prompts of `plans`, all on one frozen model with one prompt length, in at most `slots` slots at a time.

    on_done(plan, trained) is called as each run ends; on_step(state) after each step of each run.
    """

    def __init__(
        self,
        plans: list[Plan],
        slots: int | None = None,
        on_done: Callable[[Plan, Trained], None] = lambda plan, trained: None,
        on_step: Callable[[RunState], None] = lambda state: None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.lm = plans[0].lm  # no nn.Module: Lightning neither casts nor saves it
        self.waiting = deque(RunState(plan) for plan in plans)
        self.on_done, self.on_step = on_done, on_step
        self.active: list[RunState | None] = [None] * min(slots or len(plans), len(plans))
        self.prompts = torch.nn.ParameterList(torch.nn.Parameter(torch.empty_like(plans[0].p0_Pd)) for _ in self.active)
        self.dropout = any(plan.config.training.dropout for plan in plans)
        if self.dropout and len(plans) > 1:
            raise ValueError("dropout draws from one generator: a run with dropout trains alone")
        if len({plan.config.optimizer.name for plan in plans}) > 1:
            raise ValueError("one optimiser serves all slots: runs with other optimisers train in a pack of their own")

    def train_dataloader(self) -> Iterator[int]:
        # A bare counter: the tick is composed in training_step, so prefetching cannot run ahead of an early stop.
        return itertools.count()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        first = self.waiting[0].plan.config.optimizer
        return make_optimizer(first, list(self.prompts))

    def on_train_start(self) -> None:
        if self.dropout:
            torch.manual_seed(self.waiting[0].plan.seeds["dropout"])
        for slot in range(len(self.active)):
            self._fill(slot)
        self._stop_if_done()

    def training_step(self, batch: int, batch_index: int) -> None:
        if not any(self.active):
            return
        slots = [s for s, state in enumerate(self.active) if state is not None]
        optimizer = self.optimizers().optimizer
        optimizer.zero_grad(set_to_none=True)  # None, not zero: an idle slot takes no step
        with self._dropout_on():
            self._backward(slots)
        for s in slots:
            config = self.active[s].plan.config.optimizer
            self.active[s].lr = learning_rate(config, self.active[s].step, self.active[s].plan.total_steps)
            optimizer.param_groups[s]["lr"] = self.active[s].lr
            if config.clip is not None:
                torch.nn.utils.clip_grad_norm_([self.prompts[s]], config.clip)
        self.optimizers().step()
        for s in slots:
            state = self.active[s]
            state.stepped(self.prompts[s])
            self.on_step(state)
            if state.status is not None:
                self._finish(s)
        self._stop_if_done()

    def _backward(self, slots: list[int]) -> None:
        """Gradients of each run's own token-mean cross-entropy; the runs' losses are summed, never averaged."""
        prompts_RPd = torch.stack([self.prompts[s] for s in slots])
        rows, prompt_of, ends = [], [], []
        for r, s in enumerate(slots):
            plan = self.active[s].plan
            chosen = [plan.train_rows[i] for i in self.active[s].next_minibatch()]
            rows += chosen
            prompt_of += [r] * len(chosen)
            ends.append(len(rows))
        ce_rows: Tensor | int = 0
        wrong_rows: Tensor | int = 0
        for batch in self.lm.batches(rows, prompt_of, prompts_RPd.shape[1]):
            logits_MV = self.lm.label_logits(prompts_RPd, batch)
            ce_M = cross_entropy(logits_MV, batch.targets_M, reduction="none", ignore_index=IGNORE)
            ce_rows = ce_rows + sum_by_row(ce_M, batch.row_M, len(rows))
            wrong_M = (logits_MV.detach().argmax(-1) != batch.targets_M).float()
            wrong_rows = wrong_rows + sum_by_row(wrong_M, batch.row_M, len(rows))
        losses = []
        for s, start, end in zip(slots, [0, *ends], ends, strict=False):
            state = self.active[s]
            tokens = sum(len(row.label) for row in rows[start:end])
            ce = ce_rows[start:end].sum()
            losses.append(ce / tokens)
            state.ce_sum = state.ce_sum + ce.detach()
            state.correct = state.correct + (wrong_rows[start:end] == 0).sum()
            state.tokens += tokens
            state.examples += end - start
        self.manual_backward(torch.stack(losses).sum())

    @contextmanager
    def _dropout_on(self) -> Iterator[None]:
        """The frozen model's own dropout during a step, where the run asks for it; the model is in eval mode at all other times."""
        if not self.dropout:
            yield
            return
        self.lm.model.train()
        try:
            yield
        finally:
            self.lm.model.eval()

    def _fill(self, slot: int) -> None:
        """Give the slot to the next waiting run: its P0, its optimiser settings, no optimiser state."""
        self.active[slot] = None
        while self.waiting and self.active[slot] is None:
            state = self.waiting.popleft()
            with torch.no_grad():
                self.prompts[slot].copy_(state.plan.p0_Pd)
            optimizer = self.optimizers().optimizer
            optimizer.state.pop(self.prompts[slot], None)
            optimizer.param_groups[slot].update(group_settings(state.plan.config.optimizer))
            state.evaluate(self.prompts[slot])
            self.active[slot] = state
            if state.plan.total_steps == 0:
                state.status = "completed"
                self._finish(slot)

    def _finish(self, slot: int) -> None:
        state = self.active[slot]
        self.on_done(state.plan, state.result(self.prompts[slot]))
        self._fill(slot)

    def _stop_if_done(self) -> None:
        if not any(self.active):
            self.trainer.should_stop = True


OPTIMIZERS = {
    OptimizerKind.adamw: torch.optim.AdamW,
    OptimizerKind.adam: torch.optim.Adam,
    OptimizerKind.sgd: torch.optim.SGD,
    OptimizerKind.adafactor: torch.optim.Adafactor,
}


def make_optimizer(config: Optimizer, prompts: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """One parameter group per slot; each run's own settings are put there when it takes the slot."""
    return OPTIMIZERS[config.name]([{"params": [p], **group_settings(config)} for p in prompts])


def group_settings(config: Optimizer) -> dict[str, Any]:
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name in (OptimizerKind.adamw, OptimizerKind.adam):
        settings |= {"betas": tuple(config.betas), "eps": config.eps}
    elif config.name is OptimizerKind.sgd:
        settings |= {"momentum": config.momentum}
    return settings


def learning_rate(config: Optimizer, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (0-based), as transformers' schedules of these names define it."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    if config.schedule is Schedule.linear:
        return config.lr * max(1 - progress, 0.0)
    if config.schedule is Schedule.cosine:
        return config.lr * max(0.5 * (1 + float(np.cos(np.pi * progress))), 0.0)
    return config.lr


def checkpoint_steps(kept: str, steps_per_epoch: int, total_steps: int) -> set[int]:
    """The steps whose prompt is kept: each epoch's last, 1, 2, 4, 8, ... (log), or every n-th; always the last."""
    if kept == "log":
        return {2**k for k in range(total_steps.bit_length()) if 2**k <= total_steps} | {total_steps}
    every = steps_per_epoch if kept == "epoch" else int(kept)
    return set(range(every, total_steps + 1, every)) | {total_steps}


def _copy(prompt_Pd: Tensor) -> np.ndarray:
    # .numpy() of a CPU tensor shares its memory: without a copy every checkpoint would become the last.
    return prompt_Pd.detach().float().cpu().numpy().copy()


def _predictions(which: str, plan: Plan, found: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for k, example in enumerate(getattr(plan.task, plan.split)):
        row = {"prompt": which, "id": example.id, "input": example.input, "label": example.label, "output": found.outputs[0][k]}
        row |= {"correct": bool(found.correct[0, k]), "loss": float(f"{found.losses[0, k] / found.tokens[k]:.9g}")}
        if found.label_correct is not None:
            row["label_correct"] = bool(found.label_correct[0, k])
        rows.append(row)
    return rows
