"""How long a training step and an evaluation take: promptgeo against study 3's recipe written with PEFT.

    python benchmarks/step.py [--model-shape gpt2] [--precision fp32 bf16] [--repeats 5] [--device cpu] [--out step.json]

Both sides hold the same random weights and see the same minibatches of the same task, in one process: one step of ours, one
of theirs, through an epoch of 20 steps, then one evaluation each. A repeat is such an epoch; the first is warm-up. What
disturbs the machine disturbs both sides alike, so read the ratios. benchmarks/README.md says what is and is not compared.
"""

import argparse
import json
import logging
import os
import platform
import re
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import promptgeo  # noqa: F401  (first: it sets how torch's threads wait)

import lightning as L  # isort: skip
import torch  # isort: skip
import transformers  # isort: skip

from promptgeo.compose import compose
from promptgeo.config import Every, derived_seeds
from promptgeo.evaluation import evaluate
from promptgeo.lm import DTYPES, FrozenLM
from promptgeo.planning import Plan, load_task
from promptgeo.prompts import initial_prompt
from promptgeo.tuning import PromptTuning, RunState

PUBLISHED = Path(__file__).parents[2] / "shared" / "data"
PROMPT_LENGTH = 4
NEW_TOKENS = 5
BATCH_SIZE = 8
# Dropout is off on both sides: it is promptgeo's default, and drawing masks would only slow the other side.
NO_DROPOUT = {"gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, "bloom": {"hidden_dropout": 0.0, "attention_dropout": 0.0}}


def make_config(shape: str) -> transformers.PretrainedConfig:
    if shape == "bloomz-560m":
        return transformers.BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16, **NO_DROPOUT["bloom"])
    size = {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 256, "vocab_size": 4096} if shape == "tiny" else {}
    ends = {"bos_token_id": 0, "eos_token_id": 0} if shape == "tiny" else {}
    return transformers.GPT2Config(**size, **ends, **NO_DROPOUT["gpt2"])


def make_model(shape: str, precision: str, device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(make_config(shape)).to(device, DTYPES[precision])


class WordPieces:
    """Stands in for a tokenizer where GPT-2's files are absent: made-up ids, about as many as GPT-2's."""

    eos_token_id = 0

    def __init__(self, size: int):
        self.size, self.ids, self.pieces = size, {}, {}

    def __len__(self) -> int:
        return self.size

    def __call__(self, text: str, **_) -> dict[str, list[int]]:
        # GPT-2 has whole words mostly with their leading space: after " " a word is one or two pieces, else two or three.
        pieces = [p for word in re.findall(r" ?[^\W_]+|\n| ?[^\w\s]| ", text) for p in re.findall(r"Input|Label| .{1,6}|[A-Z][a-z]?|.{1,4}|\n", word)]
        return {"input_ids": [self._id(piece) for piece in pieces]}

    def _id(self, piece: str) -> int:
        if piece not in self.ids:
            self.ids[piece] = 1 + len(self.ids)
            self.pieces[self.ids[piece]] = piece
        return self.ids[piece]

    def decode(self, ids, **_) -> str:
        return "".join(self.pieces.get(int(i), f"<{int(i)}>") for i in ids)


def make_tokenizer(vocab_size: int):
    folder = PUBLISHED / "gpt2-tokenizer"
    if vocab_size < 50257 or not folder.exists():
        return WordPieces(vocab_size)
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>")


def make_plan(lm: FrozenLM) -> Plan:
    """Study 3's country_capital: its template, optimiser and batch size, 4 tokens from "cat"; more epochs than are timed."""
    overrides = ["task=country_capital", "template=study3", "optimizer=study3", "init=cat", f"prompt.length={PROMPT_LENGTH}"]
    overrides += [f"training.batch_size={BATCH_SIZE}", "training.epochs=1000", f"evaluation.max_new_tokens={NEW_TOKENS}"]
    if (published := PUBLISHED / "function_vectors").exists():
        overrides += ["task.source.kind=function_vectors", f"task.source.path={published}"]
    config = compose(overrides)
    config.evaluation.every = Every.end  # evaluations are timed on their own
    task = load_task(config)
    seeds = derived_seeds(config)
    p0_Pd = initial_prompt(config.init, config.prompt, lm, task, seeds["init"])
    rows = task.rows(lm, task.train, PROMPT_LENGTH)
    steps = config.training.epochs * -(-len(rows) // BATCH_SIZE)
    return Plan(config, "benchmark", lm, task, seeds, p0_Pd, rows, steps)


class Peft:
    """Study 3's recipe: PEFT's prompt tuning, full logits with labels=, [prompt][padding][text], generate() to evaluate."""

    def __init__(self, model: torch.nn.Module, plan: Plan):
        from peft import PromptTuningConfig, TaskType, get_peft_model

        self.model = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PROMPT_LENGTH))
        self.prompt = next(p for p in self.model.parameters() if p.requires_grad)
        assert self.prompt.shape == plan.p0_Pd.shape and self.prompt.dtype == torch.float32
        with torch.no_grad():
            self.prompt.copy_(plan.p0_Pd)
        self.device = self.prompt.device
        self.tokenizer = plan.lm.tokenizer
        self.pad = self.tokenizer.eos_token_id
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, 0, plan.total_steps)
        self.train = [(row.ids[row.ids >= 0].tolist(), row.label.tolist()) for row in plan.train_rows]
        self.test = [row.ids.tolist() for row in plan.task.rows(plan.lm, plan.task.test, 0)]
        self.labels = [example.label for example in plan.task.test]

    def _left_padded(self, rows: list[list[int]], fill: int) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[fill] * (longest - len(row)) + row for row in rows], device=self.device)

    def loss(self, chosen: list[int]) -> torch.Tensor:
        rows = [self.train[i] for i in chosen]
        ids = self._left_padded([text + label for text, label in rows], self.pad)
        mask = self._left_padded([[1] * len(text + label) for text, label in rows], 0)
        labels = self._left_padded([[-100] * len(text) + label for text, label in rows], -100)
        return self.model(input_ids=ids, attention_mask=mask, labels=labels).loss

    def step(self, chosen: list[int]) -> None:
        self.model.train()
        self.loss(chosen).backward()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> int:
        self.model.eval()
        correct = 0
        for start in range(0, len(self.test), BATCH_SIZE):
            rows = self.test[start : start + BATCH_SIZE]
            ids, mask = self._left_padded(rows, self.pad), self._left_padded([[1] * len(row) for row in rows], 0)
            written = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=self.pad, eos_token_id=self.pad
            )
            for label, tokens in zip(self.labels[start : start + BATCH_SIZE], written[:, ids.shape[1] :].tolist(), strict=True):
                correct += self.tokenizer.decode(tokens, skip_special_tokens=True).strip().startswith(label.strip())
        return correct


class Clock:
    """Called after each of our steps: reads its time, then lets the other side do the same step; after an epoch, evaluates."""

    def __init__(self, plan: Plan, peft: Peft, repeats: int):
        self.plan, self.peft, self.repeats = plan, peft, repeats
        self.order = RunState(plan)  # draws the minibatches that our run draws
        self.epoch = {"ours": 0.0, "peft": 0.0}
        self.times: dict[str, dict[str, list[float]]] = {k: {"ours": [], "peft": []} for k in ("step", "evaluation", "evaluation_outputs", "run_epoch")}
        self.started: float | None = None
        self.module: PromptTuning | None = None

    def _now(self) -> float:
        if self.plan.lm.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _timed(self, call, *args) -> float:
        start = self._now()
        call(*args)
        return self._now() - start

    def __call__(self, state: RunState) -> None:
        # From the end of the last call to here: Lightning's loop, our step with its optimiser and book-keeping.
        self.epoch["ours"] += self._now() - self.started if self.started is not None else 0.0
        chosen = self.order.next_minibatch()
        self.epoch["peft"] += self._timed(self.peft.step, chosen)
        if state.step % self.plan.steps_per_epoch == 0:
            self._end_repeat(state.step // self.plan.steps_per_epoch)
        self.started = self._now()

    def _end_repeat(self, epoch: int) -> None:
        prompts_1Pd = self.module.prompts[0].detach()[None]
        ours = lambda outputs=False: evaluate(self.plan.lm, prompts_1Pd, self.plan.task, max_new_tokens=NEW_TOKENS, outputs=outputs)  # noqa: E731
        evaluation = {"ours": self._timed(ours), "peft": self._timed(self.peft.evaluate)}
        with_outputs = {"ours": self._timed(ours, True), "peft": evaluation["peft"]}
        if epoch > 1:  # the first is warm-up
            for side in ("ours", "peft"):
                self.times["step"][side].append(self.epoch[side] / self.plan.steps_per_epoch)
                self.times["evaluation"][side].append(evaluation[side])
                self.times["evaluation_outputs"][side].append(with_outputs[side])
                self.times["run_epoch"][side].append(self.epoch[side] + evaluation[side])
        self.epoch = {"ours": 0.0, "peft": 0.0}
        self.module.trainer.should_stop = epoch > self.repeats


def measure(shape: str, precision: str, device: str, repeats: int) -> dict:
    theirs = make_model(shape, precision, device)
    ours = make_model(shape, precision, device)  # the same weights: promptgeo may change modules (fused GELU)
    lm = FrozenLM(ours, make_tokenizer(theirs.config.vocab_size), name=shape)
    plan = make_plan(lm)
    peft = Peft(theirs, plan)
    clock = Clock(plan, peft, repeats)
    difference = loss_difference(plan, peft)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        clock.module = PromptTuning([plan], on_step=clock)
        trainer = L.Trainer(  # as packing.train_pack makes it
            accelerator="gpu" if device == "cuda" else "cpu", devices=1, precision="32-true", max_epochs=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(clock.module)
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


def loss_difference(plan: Plan, peft: Peft) -> float:
    """Largest relative difference of the two sides' losses on single rows, where PEFT has no padding: the same function."""
    worst = 0.0
    with torch.no_grad():
        for i in range(4):
            rows = [plan.train_rows[i]]
            (batch,) = plan.lm.batches(rows, [0], PROMPT_LENGTH)
            logits_MV = plan.lm.label_logits(plan.p0_Pd[None].to(plan.lm.device), batch)
            ours = torch.nn.functional.cross_entropy(logits_MV, batch.targets_M.to(logits_MV.device))
            worst = max(worst, abs(float(ours / peft.loss([i])) - 1))
    return worst


def token_counts(plan: Plan, peft: Peft) -> dict[str, float]:
    """Positions per step that each side's blocks and head work on, mean over an epoch; text lengths without the prompt."""
    state = RunState(plan)
    batches = [state.next_minibatch() for _ in range(plan.steps_per_epoch)]
    ours = [list(plan.lm.batches([plan.train_rows[i] for i in chosen], [0] * len(chosen), PROMPT_LENGTH)) for chosen in batches]
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


def compare(sides: dict[str, list[float]]) -> dict:
    summary = {side: {"min": min(t), "median": statistics.median(t), "max": max(t), "n": len(t)} for side, t in sides.items()}
    ratios = [b / a for a, b in zip(sides["ours"], sides["peft"], strict=True)]
    return {"seconds": summary, "ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)}, "ratios": ratios}


def table(results: list[dict]) -> str:
    lines = [f"{'':32}{'ours: ms (min-max)':>26}{'PEFT: ms (min-max)':>26}{'ratio (min-max)':>22}"]
    names = {"step": "step", "evaluation": "evaluation", "evaluation_outputs": "  and what was written", "run_epoch": "run-epoch"}
    for result in results:
        for what, name in names.items():
            seconds, ratio = result[what]["seconds"], result[what]["ratio"]
            shown = [f"{1e3 * s['median']:.0f} ({1e3 * s['min']:.0f}-{1e3 * s['max']:.0f})" for s in (seconds["ours"], seconds["peft"])]
            label = f"{result['model_shape']} {result['precision']} {name}"
            lines.append(f"{label:32}{shown[0]:>26}{shown[1]:>26}{ratio['median']:>10.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})")
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
    report = {
        "machine": {
            "device": torch.cuda.get_device_name() if arguments.device == "cuda" else processor(),
            "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load_average": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("promptgeo", "torch", "transformers", "peft", "lightning")},
        "recipe": {"batch_size": BATCH_SIZE, "prompt_length": PROMPT_LENGTH, "max_new_tokens": NEW_TOKENS, "dropout": 0.0, "optimizer": "adamw, lr 1e-3, linear decay"},
        "results": [measure(arguments.model_shape, p, arguments.device, arguments.repeats) for p in arguments.precision],
    }  # fmt: skip
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    print(table(report["results"]), file=sys.stderr)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
