"""What benchmarks share: study 3's recipe written with PEFT, random models in known shapes, clocks and reports.

Imported by step.py and sweep.py; not run by itself.
"""

import json
import os
import platform
import re
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import promptgeo  # noqa: F401  (first: it sets how torch's threads wait)

import torch  # isort: skip
import transformers  # isort: skip

from promptgeo.config.compose import compose
from promptgeo.config.identity import derived_seeds
from promptgeo.data.tasks import load_task
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.model.loading import DTYPES
from promptgeo.training.cell import Cell
from promptgeo.training.inits import initial_prompt
from promptgeo.training.plan import Plan

PUBLISHED = Path(__file__).parents[2] / "shared" / "data"
PROMPT_LENGTH = 4
NEW_TOKENS = 5
BATCH_SIZE = 8
RECIPE = {
    "batch_size": BATCH_SIZE,
    "prompt_length": PROMPT_LENGTH,
    "max_new_tokens": NEW_TOKENS,
    "dropout": 0.0,
    "optimizer": "adamw, lr 1e-3, linear decay",
}
PACKAGES = ("promptgeo", "torch", "transformers", "peft", "lightning")
# Dropout is off on both sides: it is promptgeo's default, and drawing masks would only slow the other side.
NO_DROPOUT = {
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "bloom": {"hidden_dropout": 0.0, "attention_dropout": 0.0},
}
TINY = {
    "n_embd": 256,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 256,
    "vocab_size": 4096,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GPT2 = {"gpt2": {}, "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25}, "tiny": TINY}


def make_config(shape: str) -> transformers.PretrainedConfig:
    if shape == "bloomz-560m":
        return transformers.BloomConfig(
            vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16, **NO_DROPOUT["bloom"]
        )
    return transformers.GPT2Config(**GPT2[shape], **NO_DROPOUT["gpt2"])


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
        # GPT-2 has whole words mostly with their leading space: after " " one or two pieces, else two or three.
        pieces = [
            p
            for word in re.findall(r" ?[^\W_]+|\n| ?[^\w\s]| ", text)
            for p in re.findall(r"Input|Label| .{1,6}|[A-Z][a-z]?|.{1,4}|\n", word)
        ]
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


def make_plan(lm: FrozenLM, *overrides: str, run_id: str = "benchmark", published: bool = True) -> Plan:
    """Study 3's country_capital with its template, optimiser and batch size, and 4 prompt tokens.

    published: on study 3's own file where it is here, else on the bundled data.
    """
    recipe = ["task=country_capital", "template=study3", "optimizer=study3", f"prompt.length={PROMPT_LENGTH}"]
    recipe += [f"training.batch_size={BATCH_SIZE}", f"evaluation.max_new_tokens={NEW_TOKENS}"]
    if published and (path := PUBLISHED / "function_vectors").exists():
        recipe += ["task.source.kind=function_vectors", f"task.source.path={path}"]
    config = compose([*recipe, *overrides])
    task = load_task(config.task, config.template)
    p0_Pd = initial_prompt(config.init, config.prompt, lm, task, derived_seeds(config)["init"])
    rows = task.rows(lm, task.train, PROMPT_LENGTH)
    # Made by hand: the model comes from no folder that could enter an identity.
    precision = next(name for name, dtype in DTYPES.items() if dtype is lm.dtype)
    cell = Cell(config, run_id, precision, lm.device.type)
    steps = config.training.epochs * -(-len(rows) // BATCH_SIZE)
    return Plan(cell, lm, task, lambda: p0_Pd, len(p0_Pd), rows, steps)


class Peft:
    """Study 3's recipe: PEFT's prompt tuning, full logits with labels=, [prompt][padding][text], generate()."""

    def __init__(self, model: torch.nn.Module, plan: Plan):
        from peft import PromptTuningConfig, TaskType, get_peft_model

        self.model = get_peft_model(
            model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PROMPT_LENGTH)
        )
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
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=self.pad,
                eos_token_id=self.pad,
            )
            for label, tokens in zip(
                self.labels[start : start + BATCH_SIZE], written[:, ids.shape[1] :].tolist(), strict=True
            ):
                correct += self.tokenizer.decode(tokens, skip_special_tokens=True).strip().startswith(label.strip())
        return correct


def loss_difference(plan: Plan, peft: Peft) -> float:
    """Largest relative difference of the sides' losses on single rows, where PEFT has no padding: the same function."""
    worst = 0.0
    with torch.no_grad():
        for i in range(4):
            rows = [plan.train_rows[i]]
            (batch,) = plan.lm.batches(rows, [0], PROMPT_LENGTH)
            logits_MV = plan.lm.label_logits(plan.p0_Pd[None].to(plan.lm.device), batch)
            ours = torch.nn.functional.cross_entropy(logits_MV, batch.targets_M.to(logits_MV.device))
            worst = max(worst, abs(float(ours / peft.loss([i])) - 1))
    return worst


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(sides: dict[str, list[float]]) -> dict:
    summary = {
        side: {"min": min(t), "median": statistics.median(t), "max": max(t), "n": len(t)} for side, t in sides.items()
    }
    ratios = [b / a for a, b in zip(sides["ours"], sides["peft"], strict=True)]
    return {
        "seconds": summary,
        "ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)},
        "ratios": ratios,
    }


def environment(device: str) -> dict[str, dict]:
    """The machine and the versions, for a report."""
    return {
        "machine": {
            "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def write_report(report: dict, table: str, out: Path | None) -> None:
    """The JSON to `out` or standard output, the table to standard error."""
    text = json.dumps(report, indent=2)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    print(table, file=sys.stderr)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
