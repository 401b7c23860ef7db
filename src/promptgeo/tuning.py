"""PromptTuning: trains the soft prompts of several runs on one frozen model, each run exactly as if it were alone.

A *tick* is one optimiser step of every active run. A *slot* holds one run's prompt (one Parameter [P, d], one optimiser group)
and takes the next waiting run when its run is done. A solo run is one slot.

Shapes: R runs of one forward, P prompt tokens, d width, M label positions.
"""

import itertools
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from promptgeo.batching import sum_by_row
from promptgeo.schema import Optimizer, OptimizerKind, Schedule
from promptgeo.coupling import is_coupled, penalty
from promptgeo.evaluation import Evaluation, evaluate
from promptgeo.losses import label_losses
from promptgeo.memory import give_back_freed_memory
from promptgeo.plan import Plan
from promptgeo.run_state import RunState, Watcher, copy_of

log = logging.getLogger(__name__)


class PromptTuning(L.LightningModule):
    """Trains the prompts of `plans`, all on one frozen model with one prompt length, in at most `slots` slots at a time."""

    def __init__(self, plans: list[Plan], slots: int | None = None, watchers: list[Watcher] | None = None):
        super().__init__()
        self.automatic_optimization = False
        self.lm = plans[0].lm  # no nn.Module: Lightning neither casts nor saves it
        self.waiting = deque(plans)
        self.watchers = watchers or []
        self.active: list[RunState | None] = [None] * min(slots or len(plans), len(plans))
        self.prompts = torch.nn.ParameterList(torch.nn.Parameter(torch.empty_like(plans[0].p0_Pd)) for _ in self.active)
        self.runs_per_forward = len(self.active)
        self.dropout = any(plan.config.training.dropout for plan in plans)
        self.coupled = is_coupled(plans[0].config)
        self._without_prompt: dict[tuple, Evaluation] = {}
        if self.dropout and len(plans) > 1:
            raise ValueError("dropout draws from one generator: a run with dropout trains alone")
        if len({plan.config.optimizer.name for plan in plans}) > 1:
            raise ValueError("one optimiser serves all slots: runs with other optimisers train in a pack of their own")

    def train_dataloader(self) -> Iterator[int]:
        # A bare counter: the tick is composed in training_step, so prefetching cannot run ahead of an early stop.
        return itertools.count()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.waiting[0].config.optimizer, list(self.prompts))

    def on_train_start(self) -> None:
        if self.dropout:
            torch.manual_seed(self.waiting[0].seeds["dropout"])
        for watcher in self.watchers:
            watcher.begun(self)
        self._refill()

    def training_step(self, batch: int, batch_index: int) -> None:
        slots = self._taken()
        if not slots:
            return
        optimizer = self.optimizers().optimizer
        optimizer.zero_grad(set_to_none=True)  # None, not zero: an idle slot takes no step
        chosen = self._minibatches(slots)
        with self._dropout_on():
            for part in self._parts(chosen):
                self._backward(part)
        if self.coupled:
            self._push_apart()
        for s in self._taken():
            state, config = self.active[s], self.active[s].plan.config.optimizer
            state.lr = learning_rate(config, state.step, state.plan.total_steps)
            optimizer.param_groups[s]["lr"] = state.lr
            if config.clip is not None:
                torch.nn.utils.clip_grad_norm_([self.prompts[s]], config.clip)
        self.optimizers().step()
        taken = self._taken()
        self._score([s for s in taken if self.active[s].stepped(self.prompts[s])])
        for s in self._taken():
            self.active[s].settle(self.prompts[s])
            for watcher in self.watchers:
                watcher.stepped(self.active[s])
        over = [s for s in self._taken() if self.active[s].status is not None]
        if over:
            self._finish(over)
            give_back_freed_memory()  # between what a run's folder is made of, large pieces would lie too scattered for the next runs
        self._refill()
        if any([watcher.ticked() for watcher in self.watchers]):  # a list: every watcher hears of it
            self.trainer.should_stop = True

    def rehearse(self, plans: list[Plan]) -> None:
        """One forward and backward of all plans' first minibatches, to see how long it takes."""
        for s, plan in enumerate(plans):
            self.active[s] = RunState(plan)
            with torch.no_grad():
                self.prompts[s].copy_(plan.p0_Pd)
        for part in self._parts(self._minibatches(self._taken())):
            self._forward_backward(part)

    def save(self) -> None:
        """Write every active run's state, so that training can go on from this tick."""
        for s in self._taken():
            self.active[s].save(self.prompts[s], self.optimizers().optimizer.state[self.prompts[s]])

    def _taken(self) -> list[int]:
        return [s for s, state in enumerate(self.active) if state is not None]

    def _backward(self, chosen: dict[int, list[int]]) -> None:
        """Gradients of these slots' minibatches. What fails for several runs is tried again by halves, so one run's fault stays its own."""
        try:
            self._forward_backward(chosen)
            return
        except torch.OutOfMemoryError as error:
            failure: Exception = error.with_traceback(None)  # its frames hold the tensors that filled the memory
        except Exception as error:
            failure = error
        slots = list(chosen)
        for s in slots:
            self.prompts[s].grad = None
        if len(slots) == 1:
            self._fail(slots[0], failure)
            return
        half = len(slots) // 2
        if isinstance(failure, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            self.runs_per_forward = half
            log.info("out of memory: from here on %d runs in a forward, not %d", half, len(slots))
            for part in self._parts(chosen):
                self._backward(part)
        else:
            self._backward({s: chosen[s] for s in slots[:half]})
            self._backward({s: chosen[s] for s in slots[half:]})

    def _parts(self, chosen: dict[int, list[int]]) -> Iterator[dict[int, list[int]]]:
        """Slots that go through one forward and backward: no more activations are held than a forward may have tokens."""
        sizes = {s: sum(self.active[s].plan.train_rows[i].length for i in indices) for s, indices in chosen.items()}
        total = sum(sizes.values())
        fair = total / max(-(-total // self.lm.max_tokens), 1)  # no small rest: it would take as long as a large part
        part: dict[int, list[int]] = {}
        tokens = 0
        for s, indices in chosen.items():
            if part and (tokens + sizes[s] / 2 > fair or tokens + sizes[s] > self.lm.max_tokens or len(part) >= self.runs_per_forward):
                yield part
                part, tokens = {}, 0
            part[s] = indices
            tokens += sizes[s]
        if part:
            yield part

    def _minibatches(self, slots: list[int]) -> dict[int, list[int]]:
        chosen = {}
        for s in slots:
            try:
                chosen[s] = self.active[s].next_minibatch()
            except Exception as error:
                self._fail(s, error)
        return chosen

    def _forward_backward(self, chosen: dict[int, list[int]]) -> None:
        """Backward of each run's own token-mean cross-entropy; the runs' losses are summed, never averaged."""
        prompts_RPd = torch.stack([self.prompts[s] for s in chosen])
        rows, prompt_of, ends = [], [], []
        for r, (s, indices) in enumerate(chosen.items()):
            rows += [self.active[s].plan.train_rows[i] for i in indices]
            prompt_of += [r] * len(indices)
            ends.append(len(rows))
        ce_rows: Tensor | int = 0
        wrong_rows: Tensor | int = 0
        for batch in self.lm.batches(rows, prompt_of, prompts_RPd.shape[1]):
            logits_MV = self.lm.label_logits(prompts_RPd, batch)
            ce_M = label_losses(logits_MV, batch.targets_M)
            ce_rows = ce_rows + sum_by_row(ce_M, batch.row_M, len(rows))
            wrong_M = (logits_MV.detach().argmax(-1) != batch.targets_M).float()
            wrong_rows = wrong_rows + sum_by_row(wrong_M, batch.row_M, len(rows))
        counted, losses = [], []
        for start, end in zip([0, *ends], ends, strict=False):
            tokens = sum(len(row.label) for row in rows[start:end])
            ce = ce_rows[start:end].sum()
            losses.append(ce / tokens)
            counted.append((ce.detach(), (wrong_rows[start:end] == 0).sum(), tokens, end - start))
        torch.stack(losses).sum().backward()  # no scaler, no strategy: nothing of Lightning's is needed here
        for s, sums in zip(chosen, counted, strict=True):
            self.active[s].learned(*sums)

    def _push_apart(self) -> None:
        """Add the gradient of what couples these runs; one that failed or whose prompt is no longer finite drops out."""
        pushed = [self.prompts[s] for s in self._taken() if self.prompts[s].grad is not None and bool(torch.isfinite(self.prompts[s]).all())]
        if len(pushed) > 1:
            penalty(torch.stack(pushed), self.active[self._taken()[0]].plan.config.regulariser.weight).backward()

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

    def _score(self, slots: list[int]) -> None:
        """Score the prompts of these slots on the splits that their runs want, all runs of a task in one evaluation."""
        for split in ("validation", "test"):
            groups: dict[tuple, list[int]] = {}
            for s in slots:
                if self.active[s] is not None and self.active[s].wants(split):
                    key = _scoring(self.active[s].plan, split), self.active[s].keeps_outputs(split)
                    groups.setdefault(key, []).append(s)
            for group in groups.values():
                self._score_group(group, split)

    def _score_group(self, slots: list[int], split: str) -> None:
        prompts = [self.prompts[s].detach() for s in slots]
        try:
            # What the first and the last prompt write is kept in the run folder; all others are only scored.
            outputs = any(self.active[s].keeps_outputs(split) for s in slots)
            distinct = {copy_of(prompt).tobytes(): prompt for prompt in prompts}  # P0 of a word is the same for every seed
            place = {content: k for k, content in enumerate(distinct)}
            found = _evaluate(self.active[slots[0]].plan, torch.stack(list(distinct.values())), split, outputs)
            for s, prompt in zip(slots, prompts, strict=True):
                self.active[s].scored(split, prompt, found.of(place[copy_of(prompt).tobytes()]))
        except Exception as error:
            if len(slots) == 1:
                self._fail(slots[0], error)
                return
            for s in slots:  # one by one, to see whose fault it is
                self._score_group([s], split)

    def _refill(self) -> None:
        """Give free slots to waiting runs: P0 or what a stopped run left, the run's optimiser settings, no other's optimiser state."""
        while self.waiting and None in self.active:
            fresh = []
            for s in [s for s, state in enumerate(self.active) if state is None][: len(self.waiting)]:
                state = self.active[s] = RunState(self.waiting.popleft())
                optimizer = self.optimizers().optimizer
                optimizer.param_groups[s].update(group_settings(state.plan.config.optimizer))
                with torch.no_grad():
                    self.prompts[s].copy_(state.plan.p0_Pd)
                optimizer.state.pop(self.prompts[s], None)
                resumed = state.resume(self.prompts[s])
                if resumed is None:
                    fresh.append(s)
                elif resumed:
                    # Adam's step counter stays on the host, its moments beside the prompt.
                    optimizer.state[self.prompts[s]] = {k: x if k == "step" else x.to(self.prompts[s].device) for k, x in resumed.items()}
                for watcher in self.watchers:
                    watcher.started(state)
            self._score(fresh)
            for s in fresh:
                if self.active[s] is not None and self.active[s].plan.total_steps == 0:
                    self.active[s].status = "completed"
            self._finish([s for s in fresh if self.active[s] is not None and self.active[s].status is not None])
        if not self._taken():
            self.trainer.should_stop = True

    def _finish(self, slots: list[int]) -> None:
        """Hand over the results of runs that are over; runs of one task are scored together."""
        groups: dict[tuple, list[int]] = {}
        for s in slots:
            groups.setdefault(_scoring(self.active[s].plan, self.active[s].plan.split), []).append(s)
        for group in groups.values():
            self._finish_group(group)

    def _finish_group(self, slots: list[int]) -> None:
        finals = {s: copy_of(self.prompts[s]) for s in slots}
        try:
            results = {s: self.active[s].result(finals[s], scores) for s, scores in self._final_scores(finals).items()}
        except Exception as error:
            if len(slots) == 1:
                self._fail(slots[0], error)
            else:
                for s in slots:
                    self._finish_group([s])
            return
        for s, trained in results.items():
            state = self.active[s]
            try:
                for watcher in self.watchers:
                    watcher.ended(state, trained)
                self.active[s] = None
            except Exception as error:
                self._fail(s, error)

    def _final_scores(self, finals: dict[int, np.ndarray]) -> dict[int, dict[str, Evaluation]]:
        """Of each slot's run: no prompt and every prompt it keeps, with outputs; those that were scored with them already are not again."""
        first = self.active[next(iter(finals))].plan
        key = _scoring(first, first.split)
        if key not in self._without_prompt:
            self._without_prompt[key] = _evaluate(first, np.zeros((1, 0, self.lm.width), np.float32), first.split, outputs=True)
        named = {s: self.active[s].prompts(final) for s, final in finals.items()}
        known = {content: found for s in finals for content, found in self.active[s].written.items()}
        missing = {a.tobytes(): a for prompts in named.values() for a in prompts.values() if a.tobytes() not in known}
        if missing:
            found = _evaluate(first, np.stack(list(missing.values())), first.split, outputs=True)
            known |= {content: found.of(k) for k, content in enumerate(missing)}
        return {s: {"none": self._without_prompt[key]} | {which: known[a.tobytes()] for which, a in prompts.items()} for s, prompts in named.items()}

    def _fail(self, slot: int, error: Exception) -> None:
        state, self.active[slot] = self.active[slot], None
        self.prompts[slot].grad = None
        state.status = "failed"
        trained = state.result(copy_of(self.prompts[slot]), {})
        for watcher in self.watchers:
            watcher.failed(state, trained, error)


def _scoring(plan: Plan, split: str) -> tuple:
    """What runs have in common whose prompts can be scored together."""
    return id(plan.task), split, plan.config.evaluation.max_new_tokens


def _evaluate(plan: Plan, prompts_NPd: Tensor | np.ndarray, split: str, outputs: bool = False) -> Evaluation:
    return evaluate(plan.lm, prompts_NPd, plan.task, split=split, max_new_tokens=plan.config.evaluation.max_new_tokens, outputs=outputs)


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
