"""PromptTuning: trains the soft prompts of several runs on one frozen model, each run exactly as if it were alone.

A *tick* is one optimiser step of every active run. A *slot* holds one run's prompt (one Parameter [P, d], one optimiser
group) and takes the next waiting run when its run ends. A solo run is one slot.

Shapes: R runs of one forward, P prompt tokens, d width, M label positions.
"""

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from promptgeo.evaluation.evaluate import Evaluation, evaluate
from promptgeo.model.batching import sum_by_row
from promptgeo.model.losses import label_losses
from promptgeo.model.memory import give_back_freed_memory
from promptgeo.training.callbacks import Callback
from promptgeo.training.coupling import penalty
from promptgeo.training.halving import Halving
from promptgeo.training.optimizers import group_settings, learning_rate, make_optimizer
from promptgeo.training.plan import Plan
from promptgeo.training.run_state import RunState, copy_of
from promptgeo.training.wayward import pull

log = logging.getLogger(__name__)


@dataclass
class Paused:
    """A run without a slot."""

    state: RunState
    prompt_Pd: Tensor
    optimizer: dict[str, Any]
    """Of the prompt: its optimiser state."""


class PromptTuning(L.LightningModule):
    """Trains the prompts of `plans`, all on one frozen model with one prompt length, in at most `slots` slots."""

    def __init__(self, plans: Sequence[Plan], slots: int | None = None, callbacks: Sequence[Callback] = ()):
        """Raises ValueError for runs that cannot share a pack: with dropout, or with another optimiser."""
        super().__init__()
        self.automatic_optimization = False
        self.lm = plans[0].lm  # no nn.Module: Lightning neither casts nor saves it
        self.waiting = deque(plans)
        self.callbacks = list(callbacks)
        self.active: dict[int, RunState] = {}
        """The run of each slot that has one."""
        self.paused: dict[str, Paused] = {}
        """Runs that wait at a rung of grid.halving, by id; none has a slot."""
        self.halving = Halving([plan.cell for plan in plans])
        count = min(slots or len(plans), len(plans))
        empty_Pd = torch.empty(plans[0].prompt_length, self.lm.width)
        self.prompts = torch.nn.ParameterList(torch.nn.Parameter(empty_Pd.clone()) for _ in range(count))
        self.runs_per_forward = count
        self.dropout = any(plan.config.training.dropout for plan in plans)
        self.coupled = bool(plans[0].cell.coupled)
        self._without_prompt: dict[tuple, Evaluation] = {}
        if self.dropout and len(plans) > 1:
            raise ValueError("dropout draws from one generator: a run with dropout trains alone")
        if len({plan.config.optimizer.name for plan in plans}) > 1:
            raise ValueError("one optimiser serves all slots: runs with other optimisers train in a pack of their own")

    def train_dataloader(self) -> Iterator[int]:
        # A counter: the tick is composed in training_step, so prefetching cannot run ahead of an early stop.
        return itertools.count()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.waiting[0].optimizer, list(self.prompts))

    def on_train_start(self) -> None:
        if self.dropout:
            torch.manual_seed(self.waiting[0].seeds["dropout"])
        for callback in self.callbacks:
            callback.begun(self.save)
        self._refill()

    def training_step(self, batch: int, batch_index: int) -> None:
        """One tick: a step of every active run, then what is due after it (scores, results, waiting runs)."""
        if not self._taken():
            return
        self._step()
        self._settle()
        self._refill()
        # A list, not a generator: every callback is called.
        if any([callback.ticked() for callback in self.callbacks]):
            self.trainer.should_stop = True

    def _step(self) -> None:
        optimizer = self.optimizers().optimizer
        optimizer.zero_grad(set_to_none=True)  # None, not zero: an idle slot takes no step
        chosen = self._minibatches(self._taken())
        with self._dropout_on():
            for part in self._parts(chosen):
                self._backward(part)
        if self.coupled:
            self._push_apart()
        for s in self._taken():
            if (text := self.active[s].plan.wayward) is not None:
                pull(self.prompts[s], text)
            state, config = self.active[s], self.active[s].plan.optimizer
            state.lr = learning_rate(config, state.step, state.plan.total_steps)
            optimizer.param_groups[s]["lr"] = state.lr
            if config.clip is not None:
                torch.nn.utils.clip_grad_norm_([self.prompts[s]], config.clip)
        self.optimizers().step()

    def _settle(self) -> None:
        """What follows a step: metrics and scores where they are due, and the results of runs that have ended."""
        self._score([s for s in self._taken() if self.active[s].stepped(self.prompts[s])])
        for s in self._taken():
            self.active[s].settle(self.prompts[s])
            for callback in self.callbacks:
                callback.stepped(self.active[s])
        self._pause(self._taken())
        over = [s for s in self._taken() if self.active[s].status is not None]
        if over:
            self._finish(over)
            # What run folders are made of scatters what is free: the next runs' activations would not fit into it.
            give_back_freed_memory()

    def rehearse(self, plans: Sequence[Plan]) -> None:
        """One forward and backward of all plans' first minibatches, to be timed."""
        for s, plan in enumerate(plans):
            self.active[s] = RunState(plan)
            with torch.no_grad():
                self.prompts[s].copy_(self.active[s].p0_Pd)
        for part in self._parts(self._minibatches(self._taken())):
            self._forward_backward(part)

    def save(self) -> None:
        """Write every active run's state, so that training can resume from this tick."""
        for s in self._taken():
            self.active[s].save(self.prompts[s], self._of_optimizer(s))

    def _of_optimizer(self, slot: int) -> dict[str, Any]:
        """The optimiser's state of a slot's prompt; empty before its first step."""
        return self.optimizers().optimizer.state.get(self.prompts[slot], {})

    def _taken(self) -> list[int]:
        return sorted(self.active)

    def _backward(self, chosen: dict[int, list[int]]) -> None:
        """Gradients of these slots' minibatches.

        What fails for several runs is tried again by halves, so that one run's fault stays its own.
        """
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
        if _lacks_determinism(failure):
            self._backward(chosen)
            return
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
        """Slots that go through one forward and backward: it holds activations of at most lm.max_tokens positions."""
        sizes = {s: sum(self.active[s].plan.train_rows[i].length for i in indices) for s, indices in chosen.items()}
        total = sum(sizes.values())
        # Parts of one size: a small rest would take as long as a large part.
        fair = total / max(-(-total // self.lm.max_tokens), 1)
        part: dict[int, list[int]] = {}
        tokens = 0
        for s, indices in chosen.items():
            too_long = tokens + sizes[s] / 2 > fair or tokens + sizes[s] > self.lm.max_tokens
            if part and (too_long or len(part) >= self.runs_per_forward):
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
        ce_rows: Any = 0  # a Tensor from the first batch on
        wrong_rows: Any = 0
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
        """Add the gradient of what couples these runs.

        A run that failed, or whose prompt is no longer finite, drops out.
        """
        prompts = [self.prompts[s] for s in self._taken() if self.prompts[s].grad is not None]
        pushed = [prompt for prompt in prompts if bool(torch.isfinite(prompt).all())]
        if len(pushed) > 1:
            weight = self.active[self._taken()[0]].plan.config.regulariser.weight
            penalty(torch.stack(pushed), weight).backward()

    @contextmanager
    def _dropout_on(self) -> Iterator[None]:
        """The frozen model's own dropout, in the steps of a run with training.dropout; else it stays in eval mode."""
        if not self.dropout:
            yield
            return
        with self.lm.dropout():
            yield

    def _score(self, slots: list[int]) -> None:
        """Score the prompts of these slots on the splits that their runs want, all runs of a task in one evaluation."""
        for split in ("validation", "test"):
            groups: dict[tuple, list[int]] = {}
            for s in slots:
                if s in self.active and self.active[s].wants(split):
                    key = _evaluation_set(self.active[s].plan, split), self.active[s].keeps_outputs(split)
                    groups.setdefault(key, []).append(s)
            for group in groups.values():
                self._score_group(group, split)

    def _score_group(self, slots: list[int], split: str) -> None:
        prompts = [self.prompts[s].detach() for s in slots]
        try:
            # What the first and the last prompt write is kept in the run folder; all others are only scored.
            outputs = any(self.active[s].keeps_outputs(split) for s in slots)
            # P0 of a word is the same for every seed: it is scored once.
            distinct = {copy_of(prompt).tobytes(): prompt for prompt in prompts}
            place = {content: k for k, content in enumerate(distinct)}
            states = [self.active[s] for s in slots]
            scores = self._evaluate(states, torch.stack(list(distinct.values())), split, outputs)
            for s, prompt in zip(slots, prompts, strict=True):
                self.active[s].scored(split, prompt, scores.of(place[copy_of(prompt).tobytes()]))
        except Exception as error:
            if _lacks_determinism(error):
                self._score_group(slots, split)
            elif len(slots) == 1:
                self._fail(slots[0], error)
            else:
                for s in slots:  # one by one, to see whose fault it is
                    self._score_group([s], split)

    def _refill(self) -> None:
        """Give free slots to waiting runs; where none is left and no run is active, training stops."""
        self._decide()
        while self.waiting and len(self.active) < len(self.prompts):
            free = [s for s in range(len(self.prompts)) if s not in self.active][: len(self.waiting)]
            plans = [self.waiting.popleft() for _ in free]
            back = [s for s, plan in zip(free, plans, strict=True) if self._restore(s, plan)]
            resumed = [s for s, plan in zip(free, plans, strict=True) if s not in back and self._start(s, plan)]
            fresh = [s for s in free if s not in back and s not in resumed]
            self._score(fresh)
            fresh = [s for s in fresh if s in self.active]  # without those whose scoring failed
            for s in fresh:
                if self.active[s].plan.total_steps == 0:
                    self.active[s].status = "completed"
            self._finish([s for s in fresh if self.active[s].status is not None])
            self._pause(resumed)
            self._decide()
        if not self._taken():
            self.trainer.should_stop = True

    def _pause(self, slots: Sequence[int]) -> None:
        """Runs that have reached a rung leave their slots until rates are compared; their states are saved."""
        groups: dict[tuple, list[int]] = {}
        for s in slots:
            if s in self.active and self.halving.at_rung(self.active[s]):
                groups.setdefault(_evaluation_set(self.active[s].plan, "validation"), []).append(s)
        for group in groups.values():
            self._score_rung(group)
            for s in group:
                if s in self.active:
                    self._free(s)

    def _score_rung(self, slots: list[int]) -> None:
        """Where a rung is no epoch's end, the run's own curves do not have this score: a run is the same without it."""
        for s in slots:
            state = self.active[s]
            if state.step not in state.rung_losses and (loss := state.validation_loss()) is not None:
                state.rung_losses[state.step] = loss
        lacking = [s for s in slots if self.active[s].step not in self.active[s].rung_losses]
        try:
            if lacking:
                prompts = torch.stack([self.prompts[s].detach() for s in lacking])
                scores = self._evaluate([self.active[s] for s in lacking], prompts, "validation", outputs=False)
                for k, s in enumerate(lacking):
                    self.active[s].rung_losses[self.active[s].step] = float(scores.metrics["loss"][k])
        except Exception as error:
            if _lacks_determinism(error):
                self._score_rung(lacking)
            elif len(lacking) == 1:
                self._fail(lacking[0], error)
            else:
                for s in lacking:  # one by one, to see whose fault it is
                    self._score_rung([s])

    def _free(self, slot: int) -> None:
        """Take a run out of its slot, as it is."""
        state, prompt = self.active.pop(slot), self.prompts[slot]
        optimizer = self.optimizers().optimizer.state.pop(prompt, {})
        try:
            state.save(prompt, optimizer)
        except OSError as error:
            log.warning("the state for resuming cannot be saved (%s): %s goes on", error, state.plan.folder.name)
        self.paused[state.plan.id] = Paused(state, prompt.detach().clone(), optimizer)

    def _restore(self, slot: int, plan: Plan) -> bool:
        """Put a run that was paused into the slot. Returns whether there was one."""
        paused = self.paused.pop(plan.id, None)
        if paused is None:
            return False
        self.active[slot] = paused.state
        prompt, optimizer = self.prompts[slot], self.optimizers().optimizer
        optimizer.param_groups[slot].update(group_settings(plan.optimizer))
        with torch.no_grad():
            prompt.copy_(paused.prompt_Pd)
        optimizer.state.pop(prompt, None)
        if paused.optimizer:
            optimizer.state[prompt] = paused.optimizer
        return True

    def _decide(self) -> None:
        """Where all rates of a group have reached a rung: the best wait for a slot, the others are stopped."""
        while self.paused:
            queued = {plan.id for plan in self.waiting}
            waiting = [each.state for each in self.paused.values() if each.state.plan.id not in queued]
            go_on, stopped = self.halving.decided(waiting)
            if not go_on and not stopped:
                return
            self.waiting.extendleft(state.plan for state in reversed(go_on))
            for state in stopped:
                self._stop(self.paused.pop(state.plan.id))

    def _stop(self, paused: Paused) -> None:
        """A rate that is left behind: what its run did so far is written, and can be gone on from."""
        state, final = paused.state, copy_of(paused.prompt_Pd)
        state.status = "stopped"
        self.halving.ended(state)
        trained = state.result(final, {}, {})
        try:
            for callback in self.callbacks:
                callback.ended(state, trained)
        except Exception as error:
            self._failed(state, final, error)

    def _start(self, slot: int, plan: Plan) -> bool:
        """Put the run into the slot: its prompt (P0 or saved), its optimiser settings, no state of the run before.

        Returns whether it was resumed.
        """
        state = self.active[slot] = RunState(plan)
        prompt, optimizer = self.prompts[slot], self.optimizers().optimizer
        optimizer.param_groups[slot].update(group_settings(plan.optimizer))
        with torch.no_grad():
            prompt.copy_(state.p0_Pd)
        optimizer.state.pop(prompt, None)
        saved = state.resume(prompt)
        if begun := saved if saved is not None else plan.parent.optimizer if plan.parent else {}:
            # Adam's step counter stays on the host, its moments beside the prompt. Copies: a parent stays as it is.
            there = {k: x if k == "step" else x.to(prompt.device) for k, x in begun.items()}
            optimizer.state[prompt] = {k: x.clone() for k, x in there.items()}
        self.halving.started(state)
        for callback in self.callbacks:
            callback.started(state)
        return saved is not None

    def _finish(self, slots: list[int]) -> None:
        """Hand over the results of runs that have ended; runs of one task are scored together."""
        groups: dict[tuple, list[int]] = {}
        for s in slots:
            plan = self.active[s].plan
            groups.setdefault(_evaluation_set(plan, plan.split), []).append(s)
        for group in groups.values():
            self._finish_group(group)

    def _finish_group(self, slots: list[int]) -> None:
        finals = {s: copy_of(self.prompts[s]) for s in slots}
        try:
            scored = self._final_scores(finals)
            results = {s: self.active[s].result(finals[s], scored[s], self._of_optimizer(s)) for s in scored}
        except Exception as error:
            if _lacks_determinism(error):
                self._finish_group(slots)
            elif len(slots) == 1:
                self._fail(slots[0], error)
            else:
                for s in slots:
                    self._finish_group([s])
            return
        for s, trained in results.items():
            state = self.active[s]
            try:
                for callback in self.callbacks:
                    callback.ended(state, trained)
                del self.active[s]
                self.halving.ended(state)
            except Exception as error:
                self._fail(s, error)

    def _final_scores(self, finals: dict[int, np.ndarray]) -> dict[int, dict[str, Evaluation]]:
        """Of each slot's run: scores of no prompt and of every prompt it keeps, with outputs; each is made once."""
        state = self.active[next(iter(finals))]
        first = state.plan
        key = _evaluation_set(first, first.split)
        if key not in self._without_prompt:
            no_prompt_1Pd = np.zeros((1, 0, self.lm.width), np.float32)
            self._without_prompt[key] = self._evaluate([state], no_prompt_1Pd, first.split, outputs=True)
        named = {s: self.active[s].prompts(final) for s, final in finals.items()}
        known = {content: scores for s in finals for content, scores in self.active[s].with_outputs.items()}
        unknown = [(s, a) for s, prompts in named.items() for a in prompts.values() if a.tobytes() not in known]
        if missing := {a.tobytes(): a for _, a in unknown}:
            states = [self.active[s] for s, _ in unknown]
            scores = self._evaluate(states, np.stack(list(missing.values())), first.split, outputs=True)
            known |= {content: scores.of(k) for k, content in enumerate(missing)}
        none = {"none": self._without_prompt[key]}
        return {s: none | {which: known[a.tobytes()] for which, a in prompts.items()} for s, prompts in named.items()}

    def _evaluate(
        self, states: Sequence[RunState], prompts_NPd: Tensor | np.ndarray, split: str, outputs: bool
    ) -> Evaluation:
        """Scores of prompts of these runs, which share an evaluation set."""
        plan, start = states[0].plan, time.monotonic()
        longest = plan.config.evaluation.max_new_tokens
        scores = evaluate(plan.lm, prompts_NPd, plan.task, split=split, max_new_tokens=longest, outputs=outputs)
        for callback in self.callbacks:
            callback.evaluated(states, len(prompts_NPd), split, outputs, time.monotonic() - start)
        return scores

    def _fail(self, slot: int, error: Exception) -> None:
        state = self.active.pop(slot)
        self.prompts[slot].grad = None
        self._failed(state, copy_of(self.prompts[slot]), error)

    def _failed(self, state: RunState, final: np.ndarray, error: Exception) -> None:
        state.status = "failed"
        self.halving.ended(state)
        trained = state.result(final, {}, {})
        for callback in self.callbacks:
            callback.failed(state, trained, error)


def _lacks_determinism(error: Exception) -> bool:
    """Whether a GPU has no kernel for this that adds in one order: from here on any kernel serves, and that is said."""
    if "deterministic implementation" not in str(error) or not torch.are_deterministic_algorithms_enabled():
        return False
    log.warning("the same command may leave other bytes on this GPU: %s", str(error).split(".")[0])
    torch.use_deterministic_algorithms(False)
    return True


def _evaluation_set(plan: Plan, split: str) -> tuple:
    """What runs have in common whose prompts can be scored together."""
    return id(plan.task), split, plan.config.evaluation.max_new_tokens
