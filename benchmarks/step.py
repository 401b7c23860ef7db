"""How long a training step and an evaluation take: promptgeo against study 3's recipe written with PEFT.

    python benchmarks/step.py [--model-shape gpt2] [--precision fp32 bf16] [--repeats 5] [--device cpu]
        [--out step.json]

Both sides hold the same random weights and see the same minibatches of the same task, in one process: one step of ours,
one of theirs, through an epoch of 20 steps, then one evaluation each. A repeat is such an epoch; the first is warm-up.
What disturbs the machine disturbs both sides alike, so read the ratios. benchmarks/README.md says what is and is not
compared.
"""

import argparse
import logging
import statistics
import warnings
from pathlib import Path

from peft_recipe import (  # first: it imports promptgeo before torch
    NEW_TOKENS,
    PROMPT_LENGTH,
    RECIPE,
    Peft,
    compare,
    environment,
    loss_difference,
    make_model,
    make_plan,
    make_tokenizer,
    now,
    write_report,
)

import lightning as L  # isort: skip
import torch  # isort: skip

from promptgeo.evaluation.evaluate import evaluate
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.training.callbacks import Callback
from promptgeo.training.plan import Plan
from promptgeo.training.run_state import RunState
from promptgeo.training.tuning import PromptTuning


class Clock(Callback):
    """After each of our steps reads its time and lets the other side do the same step; after an epoch, evaluates."""

    def __init__(self, plan: Plan, peft: Peft, repeats: int):
        self.plan, self.peft, self.repeats = plan, peft, repeats
        self.order = RunState(plan)  # draws the minibatches that our run draws
        self.epoch = {"ours": 0.0, "peft": 0.0}
        self.times: dict[str, dict[str, list[float]]] = {
            k: {"ours": [], "peft": []} for k in ("step", "evaluation", "evaluation_outputs", "run_epoch")
        }
        self.since: float | None = None
        self.over = False
        self.tuning = PromptTuning([plan], callbacks=[self])

    def ticked(self) -> bool:
        return self.over

    def _now(self) -> float:
        return now(self.plan.lm.device)

    def _timed(self, call, *args) -> float:
        start = self._now()
        call(*args)
        return self._now() - start

    def stepped(self, state: RunState) -> None:
        # From the end of the last call to here: Lightning's loop, our step with its optimiser and book-keeping.
        self.epoch["ours"] += self._now() - self.since if self.since is not None else 0.0
        chosen = self.order.next_minibatch()
        self.epoch["peft"] += self._timed(self.peft.step, chosen)
        if state.step % self.plan.steps_per_epoch == 0:
            self._end_repeat(state.step // self.plan.steps_per_epoch)
        self.since = self._now()

    def _end_repeat(self, epoch: int) -> None:
        prompts_1Pd = self.tuning.prompts[0].detach()[None]

        def ours(outputs: bool = False) -> None:
            evaluate(self.plan.lm, prompts_1Pd, self.plan.task, max_new_tokens=NEW_TOKENS, outputs=outputs)

        evaluation = {"ours": self._timed(ours), "peft": self._timed(self.peft.evaluate)}
        with_outputs = {"ours": self._timed(ours, True), "peft": evaluation["peft"]}
        if epoch > 1:  # the first is warm-up
            for side in ("ours", "peft"):
                self.times["step"][side].append(self.epoch[side] / self.plan.steps_per_epoch)
                self.times["evaluation"][side].append(evaluation[side])
                self.times["evaluation_outputs"][side].append(with_outputs[side])
                self.times["run_epoch"][side].append(self.epoch[side] + evaluation[side])
        self.epoch = {"ours": 0.0, "peft": 0.0}
        self.over = epoch > self.repeats


def measure(shape: str, precision: str, device: str, repeats: int) -> dict:
    theirs = make_model(shape, precision, device)
    ours = make_model(shape, precision, device)  # the same weights: promptgeo may change modules (fused GELU)
    lm = FrozenLM(ours, make_tokenizer(theirs.config.vocab_size), name=shape)
    # More epochs than are timed; evaluations are timed on their own.
    plan = make_plan(lm, "init=cat", "training.epochs=1000", "evaluation.every=end")
    peft = Peft(theirs, plan)
    clock = Clock(plan, peft, repeats)
    difference = loss_difference(plan, peft)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = L.Trainer(  # as promptgeo.training.engine makes it
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(clock.tuning)
    return {
        "model_shape": shape,
        "precision": precision,
        "parameters": sum(p.numel() for p in theirs.parameters()) - peft.prompt.numel(),
        "tokenizer": type(lm.tokenizer).__name__,
        "data": plan.config.task.source.kind.name,
        "examples": {"train": len(plan.train_rows), "test": len(plan.task.test)},
        "steps_per_epoch": plan.steps_per_epoch,
        "repeats": repeats,
        "tokens": token_counts(plan, peft),
        "loss_difference_unpadded": difference,
        **{what: compare(sides) for what, sides in clock.times.items()},
    }


def token_counts(plan: Plan, peft: Peft) -> dict[str, float]:
    """Positions per step that each side's blocks and head work on, mean over an epoch; texts without the prompt."""
    state = RunState(plan)
    batches = [state.next_minibatch() for _ in range(plan.steps_per_epoch)]
    ours = [
        list(plan.lm.batches([plan.train_rows[i] for i in chosen], [0] * len(chosen), PROMPT_LENGTH))
        for chosen in batches
    ]
    theirs = [len(chosen) * (PROMPT_LENGTH + max(sum(map(len, peft.train[i])) for i in chosen)) for chosen in batches]
    texts = sorted(len(text) for text, _ in peft.train)
    return {
        "text_mean": statistics.mean(texts),
        "text_95": texts[int(0.95 * len(texts))],
        "text_and_label_mean": statistics.mean(len(text) + len(label) for text, label in peft.train),
        "peft_positions": statistics.mean(theirs),
        "ours_positions": statistics.mean(sum(b.ids.numel() for b in step) for step in ours),
        "ours_head_positions": statistics.mean(sum(len(b.label_at_M) for b in step) for step in ours),
        "ours_forwards": statistics.mean(map(len, ours)),
        "real_positions": statistics.mean(sum(plan.train_rows[i].length for i in chosen) for chosen in batches),
    }


def table(results: list[dict]) -> str:
    lines = [f"{'':32}{'ours: ms (min-max)':>26}{'PEFT: ms (min-max)':>26}{'ratio (min-max)':>22}"]
    names = {
        "step": "step",
        "evaluation": "evaluation",
        "evaluation_outputs": "  and what was written",
        "run_epoch": "run-epoch",
    }
    for result in results:
        for what, name in names.items():
            seconds, ratio = result[what]["seconds"], result[what]["ratio"]
            shown = [
                f"{1e3 * s['median']:.0f} ({1e3 * s['min']:.0f}-{1e3 * s['max']:.0f})"
                for s in (seconds["ours"], seconds["peft"])
            ]
            label = f"{result['model_shape']} {result['precision']} {name}"
            lines.append(
                f"{label:32}{shown[0]:>26}{shown[1]:>26}{ratio['median']:>10.2f} "
                f"({ratio['min']:.2f}-{ratio['max']:.2f})"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model-shape", choices=("gpt2", "tiny", "bloomz-560m"), default="gpt2")
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs after the warm-up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    results = [measure(arguments.model_shape, p, arguments.device, arguments.repeats) for p in arguments.precision]
    write_report(environment(arguments.device) | {"recipe": RECIPE, "results": results}, table(results), arguments.out)


if __name__ == "__main__":
    main()
