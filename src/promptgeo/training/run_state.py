"""What has a run done so far, and how is it saved and resumed? Its place in the data, its curves, its checkpoints.

Shapes: P prompt tokens, d width, C checkpoints.
"""

import hashlib
import json
import logging
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from promptgeo.config.schema import to_dict
from promptgeo.evaluation.evaluate import Evaluation, majority_accuracy, most_frequent_label
from promptgeo.evaluation.metrics import HEADLINE, METRICS, confusion
from promptgeo.runs.folder import STATE, DamagedRun, Trained, write_atomically
from promptgeo.training.continuing import kept_state
from promptgeo.training.plan import Plan

log = logging.getLogger(__name__)


class RunState:
    """The book-keeping of one run. The prompt and its optimiser state belong to the slot that trains them."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.step = 0
        self.status: str | None = None
        """None while it trains."""
        self.order = torch.Generator().manual_seed(plan.seeds["order"])
        self.queue: deque[int] = deque()
        if plan.parent is not None and plan.parent.order is not None:
            self.order.set_state(plan.parent.order)
            self.queue.extend(plan.parent.queue)
        self.metrics: list[dict[str, Any]] = []
        self.trajectory: list[np.ndarray] = []
        self.steps: list[int] = []
        self.p0_Pd = plan.p0_Pd
        self.best = self.p0_Pd.numpy().copy()
        self.best_loss = float("inf")
        self.epochs_without_gain = 0
        self.lr: float | None = None
        """Learning rate of the last step; None before the first."""
        self.rung_losses: dict[int, float] = {}
        """grid.halving: by step the validation loss at each rung that the run reached."""
        self.with_outputs: dict[bytes, Evaluation] = {}
        """Evaluations with outputs, by the prompt's bytes. Not saved: a resumed run scores again."""
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

    def learned(self, ce_sum: Tensor, correct: Tensor, tokens: int, examples: int) -> None:
        """Count a minibatch: its summed cross-entropy and its rows that were predicted right, both on the device."""
        self.ce_sum = self.ce_sum + ce_sum
        self.correct = self.correct + correct
        self.tokens += tokens
        self.examples += examples

    def stepped(self, prompt_Pd: Tensor) -> bool:
        """Book-keeping right after a step; whether the prompt is to be scored now."""
        self.step += 1
        if self.step in self._checkpoints:
            self._keep_checkpoint(prompt_Pd)
        if self.step % self.plan.steps_per_epoch and not self._last:
            return False
        loss = float(self.ce_sum) / max(self.tokens, 1)
        accuracy = int(self.correct) / max(self.examples, 1)
        self._log("train", prompt_Pd, {"loss": loss, "accuracy": accuracy}, self.examples)
        self._start_epoch()
        if not (np.isfinite(loss) and bool(torch.isfinite(prompt_Pd).all())):
            self.status = "diverged"
        return self.status is None

    def settle(self, prompt_Pd: Tensor) -> None:
        """After a step's scores: whether the run ends here, and its last checkpoint."""
        if self._last and self.status is None:
            self.status = "completed"
        if self.status is not None and self.step > 0 and (not self.steps or self.steps[-1] != self.step):
            self._keep_checkpoint(prompt_Pd)

    @property
    def _last(self) -> bool:
        return self.step >= self.plan.total_steps

    def _keep_checkpoint(self, prompt_Pd: Tensor) -> None:
        self.steps.append(self.step)
        self.trajectory.append(copy_of(prompt_Pd))

    def wants(self, split: str) -> bool:
        """Whether the prompt is to be scored on `split` now.

        To be called for validation first: its scores may end the run, and a run's last prompt is always scored.
        """
        ends, evaluation = self.step == 0 or self._last or self.status is not None, self.plan.config.evaluation
        due = ends or self.epoch % evaluation.validation_epochs == 0
        if split == "validation":
            return bool(self.plan.task.validation) and due
        return split == self.plan.split and (ends or (evaluation.scores_curve and due))

    def keeps_outputs(self, split: str) -> bool:
        """Whether what the model writes with this prompt is part of the run's predictions."""
        return split == self.plan.split and (self.step == 0 or self._last or self.status is not None)

    def scored(self, split: str, prompt_Pd: Tensor, evaluation: Evaluation) -> None:
        """Log the scores of this one prompt; on validation, keep the best and stop where patience ends."""
        if evaluation.outputs is not None:
            self.with_outputs[copy_of(prompt_Pd).tobytes()] = evaluation
        values = {name: float(values_N[0]) for name, values_N in evaluation.metrics.items()}
        loss = values["loss"]
        self._log(split, prompt_Pd, values, evaluation.n)
        if self.step == 0:
            return
        if not np.isfinite(loss):
            self.status = "diverged"
        elif split == "validation":
            self._keep_best(loss, values[HEADLINE], prompt_Pd)

    def _keep_best(self, loss: float, accuracy: float, prompt_Pd: Tensor) -> None:
        patience = self.plan.config.training.early_stopping.patience
        if loss < self.best_loss:
            self.best_loss, self.best, self.epochs_without_gain = loss, copy_of(prompt_Pd), 0
        else:
            self.epochs_without_gain += self.plan.config.evaluation.validation_epochs
        enough = self.plan.config.training.early_stopping.accuracy
        if (patience is not None and self.epochs_without_gain >= patience) or (enough and accuracy >= enough):
            self.status = "completed"

    def validation_loss(self) -> float | None:
        """Of the prompt as it is now, where it was scored on validation; None where not."""
        rows = (row for row in self.metrics[-3:] if row["step"] == self.step and row["split"] == "validation")
        return next((row["loss"] for row in rows), None)

    def stopped_at(self) -> dict[str, Any]:
        """What run.json says of a run that was left behind at a rung."""
        loss = self.rung_losses[self.step]
        return {
            "step": self.step,
            "total_steps": self.plan.total_steps,
            "validation_loss": loss if np.isfinite(loss) else None,
        }

    def _log(self, split: str, prompt_Pd: Tensor, values: dict[str, float], n: int) -> None:
        prompt_Pd = prompt_Pd.detach().float().cpu()
        self.metrics.append(
            {
                "step": self.step,
                "epoch": self.epoch,
                "split": split,
                **{metric.name: values.get(metric.name) for metric in METRICS},
                "n": n,
                "lr": self.lr,
                "prompt_norm": float(prompt_Pd.norm()),
                "distance_to_p0": float((prompt_Pd - self.p0_Pd).norm()),
            }
        )

    @property
    def has_best(self) -> bool:
        """Whether `best` was chosen on validation; else it is the final prompt."""
        return bool(self.plan.task.validation) and bool(np.isfinite(self.best_loss))

    def prompts(self, final: np.ndarray) -> dict[str, np.ndarray]:
        """The prompts [P, d] whose predictions the run folder holds, by name."""
        prompts = {"initial": self.p0_Pd.numpy()}
        if self.status == "completed":
            prompts |= {"final": final} | ({"best": self.best} if self.has_best else {})
        return prompts

    def result(self, final: np.ndarray, scores: dict[str, Evaluation], optimizer: dict[str, Any]) -> Trained:
        """Everything the run folder holds, once the run has ended.

        final: [P, d] fp32. scores: of no prompt ("none") and of each of `prompts`, with outputs. optimizer: the
        prompt's optimiser state.
        """
        if self.status is None:
            raise ValueError("the run has not ended")
        plan = self.plan
        n = len(getattr(plan.task, plan.split))
        results: dict[str, Any] = {"split": plan.split, "n": n, "steps": self.step, "prompt_length": len(final)}
        measured = {which: each.metrics for which, each in scores.items()}
        for metric in METRICS:
            values = {which: float(by[metric.name][0]) for which, by in measured.items() if metric.name in by}
            if values or not metric.needs:
                results[metric.name] = values
        if share := plan.task.share_cut(plan.lm, getattr(plan.task, plan.split)):
            results["inputs_cut"] = share
        if plan.task.labels:
            results["labels"] = {
                "set": plan.task.labels,
                "most_frequent": most_frequent_label(plan.task),
                "majority": majority_accuracy(plan.task, plan.split),
                "confusion": {
                    which: counts_NLL[0].tolist()
                    for which, each in scores.items()
                    if (counts_NLL := confusion(each)) is not None
                },
            }
        return Trained(
            status=self.status,
            initial=self.p0_Pd.numpy().copy(),
            trajectory=np.stack(self.trajectory) if self.trajectory else np.zeros((0, *final.shape), np.float32),
            steps=np.array(self.steps, dtype=np.int64),
            final=final,
            best=self.best if self.has_best else final.copy(),
            metrics=self.metrics,
            predictions=[row for which, each in scores.items() for row in _predictions(which, plan, each)],
            results=results,
            training_state=kept_state(self.order, self.queue, optimizer) if self._kept else {},
        )

    @property
    def _kept(self) -> bool:
        """Whether what another run can go on from is kept."""
        return self.plan.config.training.keep_state and self.status == "completed"

    def save(self, prompt_Pd: Tensor, optimizer: dict[str, Any]) -> None:
        """Write the state for resuming to state/, in one atomic file. optimizer: the prompt's optimiser state."""
        tensors = {"prompt": prompt_Pd.detach(), "order": self.order.get_state(), "best": torch.from_numpy(self.best)}
        if self.trajectory:
            tensors["trajectory"] = torch.from_numpy(np.stack(self.trajectory))
        tensors |= {name: x for name in ("ce_sum", "correct") if isinstance(x := getattr(self, name), Tensor)}
        tensors |= {f"optimizer.{name}": x for name, x in optimizer.items() if isinstance(x, Tensor)}
        if self.plan.config.training.dropout:
            tensors["dropout"] = torch.get_rng_state()
            if prompt_Pd.is_cuda:
                tensors["dropout.cuda"] = torch.cuda.get_rng_state()
        facts = {name: getattr(self, name) for name in _SAVED} | {"id": self.plan.id, "queue": list(self.queue)}
        facts["rung_losses"] = list(self.rung_losses.items())
        facts["config"] = to_dict(self.plan.config)  # promptgeo-runs retry goes on from it without its command
        path = state_file(self.plan.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        contiguous = {name: x.cpu().contiguous() for name, x in tensors.items()}
        run = json.dumps(facts)
        write_atomically(
            path, safetensors.torch.save(contiguous, metadata={"run": run, "sha256": _checksum(run, contiguous)})
        )

    def resume(self, prompt_Pd: Tensor) -> dict[str, Tensor] | None:
        """Go on from what state/ holds of this very run: fills the prompt, returns its optimiser state.

        None where there is nothing to resume: no state, another run's, or one that cannot be read (which is logged).
        """
        path = state_file(self.plan.folder)
        if not path.is_file():
            return None
        try:
            facts, tensors = _read_state(path)
            values, queue = {name: facts[name] for name in _SAVED}, deque(facts["queue"])
            values["rung_losses"] = dict(facts.get("rung_losses", []))  # versions before grid.halving saved none
        except _UNREADABLE as error:
            log.warning("%s: cannot be read (%s): the run starts anew", path, error)
            return None
        if facts["id"] != self.plan.id:
            return None
        vars(self).update(values)
        self.queue = queue
        self.order.set_state(tensors["order"])
        self.best = tensors["best"].numpy()
        self.trajectory = list(tensors["trajectory"].numpy()) if "trajectory" in tensors else []
        for name in ("ce_sum", "correct"):
            if name in tensors:
                setattr(self, name, tensors[name].to(prompt_Pd.device))
        if "dropout" in tensors:
            torch.set_rng_state(tensors["dropout"])
            if "dropout.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["dropout.cuda"])
        with torch.no_grad():
            prompt_Pd.copy_(tensors["prompt"])
        return {name.removeprefix("optimizer."): x for name, x in tensors.items() if name.startswith("optimizer.")}


def saved_step(plan: Plan) -> int | None:
    """The step after which this very run's state was saved; None where there is none to resume."""
    try:
        facts, _ = _read_state(state_file(plan.folder))
    except _UNREADABLE:
        return None
    return facts["step"] if facts["id"] == plan.id else None


def saved_facts(folder: Path) -> dict[str, Any] | None:
    """What the state in a run's folder says: id, config, step, ...; None where there is none.

    Raises DamagedRun where it cannot be read.
    """
    path = state_file(folder)
    try:
        return _read_state(path)[0] if path.exists() else None
    except _UNREADABLE as error:
        raise DamagedRun(f"{path}: cannot be read ({error}): the run starts anew") from error


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError)


def _read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What RunState.save wrote there, whole. Raises one of _UNREADABLE for anything else."""
    if not path.is_file():
        raise FileNotFoundError(path)  # a pipe would wait for its other end
    with safetensors.safe_open(path, "pt") as stream:
        run, checksum = stream.metadata()["run"], stream.metadata()["sha256"]
        names = stream.keys()
        tensors = {name: stream.get_tensor(name) for name in names}
    if checksum != _checksum(run, tensors):
        raise ValueError("its SHA-256 is not the one that was written with it")
    return json.loads(run), tensors


def _checksum(run: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(run.encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"\0{name} {x.dtype} {list(x.shape)}\0".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


_SAVED = ("step", "metrics", "steps", "best_loss", "epochs_without_gain", "lr", "tokens", "examples")


def state_file(folder: Path) -> Path:
    return folder / STATE


def discard_state(folder: Path) -> None:
    """Nothing is left to resume: the run is complete."""
    shutil.rmtree(folder / "state", ignore_errors=True)


def checkpoint_steps(kept: str, steps_per_epoch: int, total_steps: int) -> set[int]:
    """The steps whose prompt is kept: each epoch's last, 1, 2, 4, 8, ... (log), or every n-th; always the last."""
    if kept == "log":
        return {2**k for k in range(total_steps.bit_length()) if 2**k <= total_steps} | {total_steps}
    every = steps_per_epoch if kept == "epoch" else int(kept)
    return set(range(every, total_steps + 1, every)) | {total_steps}


def copy_of(prompt_Pd: Tensor) -> np.ndarray:
    # .numpy() of a CPU tensor shares its memory: without a copy every checkpoint would become the last.
    return prompt_Pd.detach().float().cpu().numpy().copy()


def _predictions(which: str, plan: Plan, scores: Evaluation) -> list[dict[str, Any]]:
    """Rows of predictions.jsonl for one prompt, which was scored with outputs."""
    if scores.outputs is None:
        raise ValueError("predictions hold outputs")
    rows = []
    for k, example in enumerate(getattr(plan.task, plan.split)):
        loss = scores.losses[0, k] / scores.tokens[k]
        row = {"prompt": which, "id": example.id, "input": example.input, "label": example.label}
        if example.accepted:
            row["accepted"] = list(example.accepted)
        row |= {"output": scores.outputs[0][k], "correct": bool(scores.correct[0, k])}
        # 9 significant digits hold any fp32.
        row |= {"loss": float(f"{loss:.9g}")}
        if scores.label_correct is not None:
            row["label_correct"] = bool(scores.label_correct[0, k])
        if scores.label_losses is not None and scores.label_choices is not None:
            choice = scores.label_choices[0, k]
            row["label_choice"] = (plan.task.labels or [])[choice] if choice >= 0 else None
            row["label_losses"] = [float(f"{one:.9g}") for one in scores.label_losses[0, k]]
        if scores.content_free is not None:
            row["content_free_losses"] = [float(f"{one:.9g}") for one in scores.content_free[0]]
        rows.append(row)
    return rows
