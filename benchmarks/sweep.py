"""How long a whole grid takes: study 3's recipe in PEFT, one run after another in fp32, against promptgeo's packs.

    python benchmarks/sweep.py --model-shape gpt2|bloomz-560m|gpt2-xl|tiny | --model FOLDER
        [--precision fp32|bf16] [--device cpu|cuda] [--compile] [--runs N] [--epochs N] [--peft-runs K] [--repeats 3]
        [--out sweep.json]

One process, the same weights, data, minibatches and epochs. The recipe trains and evaluates with generate() before the
first and after each epoch. The packed side is all that train_pack (promptgeo.training.engine) does: it also predicts
with no prompt, P0 and the final prompt, and writes run folders. Of a large grid the recipe trains K runs only: its time
of a run-epoch is their median, its total is that times the grid (the JSON says so under "recipe_total"). `tiny` is the
embedded model on the bundled data; the others are random models in the shape of the known one. --model: a real model,
with its BOS behind the prompt on both sides, as PEFT has it. A repeat times both
sides; they take turns in being first.
"""

import argparse
import copy
import logging
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from peft_recipe import (  # first: it imports promptgeo before torch
    BATCH_SIZE,
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

import lightning  # noqa: F401  # isort: skip  (train_pack imports it: that is not to be timed)
import torch  # isort: skip
import transformers  # isort: skip

from promptgeo import tiny
from promptgeo.data.row import Row
from promptgeo.model.batching import Batch
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.model.loading import DTYPES
from promptgeo.runs.folder import Run
from promptgeo.training.engine import train_pack
from promptgeo.training.packs import default_slots
from promptgeo.training.plan import Plan
from promptgeo.training.run_state import RunState

DEFAULTS = {  # runs, epochs, runs that the recipe trains (None: all)
    "gpt2": (4, 1, None),
    "bloomz-560m": (3, 1, None),
    "gpt2-xl": (40, 1, 1),
    "tiny": (36, 2, 3),
}
INITS = ("cat", "vocab", "dog", "book", "water", "house")
GEMM = 2048


def make_models(shape: str, precision: str, device: str, folder: Path | None) -> tuple[FrozenLM, torch.nn.Module]:
    """Ours in `precision`, and the recipe's own fp32 copy of the same weights."""
    if shape == "tiny" or folder is not None:
        source = folder or tiny.PATH
        theirs = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).to(device)
        return FrozenLM.load(str(source), precision=precision, device=device), theirs
    theirs = make_model(shape, "fp32", device)
    ours = copy.deepcopy(theirs).to(DTYPES[precision])
    return FrozenLM(ours, make_tokenizer(theirs.config.vocab_size), name=shape), theirs


def make_plans(lm: FrozenLM, runs: int, epochs: int, precision: str, device: str, compiled: bool) -> list[Plan]:
    common = (f"training.epochs={epochs}", f"precision={precision}", f"device={device}", f"packing.compile={compiled}")
    if lm.bos:
        common += ("template.bos=after_prompt",)
    cells = [(f"init={INITS[k % len(INITS)]}", f"seed={k // len(INITS)}") for k in range(runs)]
    return [
        make_plan(lm, *cell, *common, run_id=f"{k:08d}", published=lm.name != str(tiny.PATH))
        for k, cell in enumerate(cells)
    ]


def train_recipe(model: torch.nn.Module, plan: Plan) -> tuple[float, float]:
    """One run by study 3's recipe: seconds, final accuracy. Wrapping the model and tokenising are not timed."""
    peft, order = Peft(model, plan), RunState(plan)
    start = now(peft.device)
    correct = peft.evaluate()
    for _ in range(plan.config.training.epochs):
        for _ in range(plan.steps_per_epoch):
            peft.step(order.next_minibatch())
        correct = peft.evaluate()
    return now(peft.device) - start, correct / len(peft.test)


def train_packed(plans: list[Plan]) -> tuple[float, list[float]]:
    """All runs packed: seconds, final accuracies."""
    with tempfile.TemporaryDirectory(prefix="promptgeo-sweep-") as outputs:
        for plan in plans:
            plan.config.outputs = outputs
        start = now(plans[0].lm.device)
        errors = train_pack(plans)
        seconds = now(plans[0].lm.device) - start
        if errors:
            raise RuntimeError(f"runs failed: {errors}")
        return seconds, [Run.load(plan.folder).info["results"]["accuracy"].get("final", float("nan")) for plan in plans]


def counted(lm: FrozenLM) -> Counter:
    """Counts, from here on, the positions that lm's blocks and its head compute: with and without padding.

    A tree's padding (fewer than 8 positions of a batch, or a 16th of them) is not counted separately in the blocks.
    """
    counts: Counter = Counter()
    batches = lm.batches

    def counting(rows: Sequence[Row], prompt_of: Sequence[int], prompt_length: int) -> Iterator[Batch]:
        for batch in batches(rows, prompt_of, prompt_length):
            pass_ = "train" if torch.is_grad_enabled() else "evaluation"
            positions, members = batch.ids.numel(), [rows[i] for i in batch.rows]
            counts[pass_, "blocks"] += positions
            counts[pass_, "blocks_unpadded"] += positions if batch.paths else sum(row.length for row in members)
            counts[pass_, "head"] += len(batch.label_at_M)
            counts[pass_, "head_unpadded"] += sum(len(row.label) for row in members)
            yield batch

    lm.batches = counting
    return counts


def model_flops(model: torch.nn.Module, counts: Counter, suffix: str = "") -> int:
    """Of the matrix products: forward, and in training the backward to the activations (weights have no gradients)."""
    blocks, head = block_parameters(model), model.get_output_embeddings().weight.numel()
    passes = {"train": 2, "evaluation": 1}
    return sum(
        n * 2 * (blocks * counts[p, f"blocks{suffix}"] + head * counts[p, f"head{suffix}"]) for p, n in passes.items()
    )


def block_parameters(model: torch.nn.Module) -> int:
    """Numbers in the blocks' matrices: all but the embedding tables and the head."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)} | {
        id(model.get_output_embeddings().weight)
    }
    return sum(p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in tables)


def gemm_rate(precision: str, device: torch.device) -> float:
    """FLOP/s of torch.mm on square matrices of 2048: the median of five."""
    a, b = (torch.randn(GEMM, GEMM, device=device).to(DTYPES[precision]) for _ in range(2))
    calls = 50 if device.type == "cuda" else 1
    seconds = []
    for _ in range(6):
        start = now(device)
        for _ in range(calls):
            torch.mm(a, b)
        seconds.append((now(device) - start) / calls)
    return 2 * GEMM**3 / statistics.median(seconds[1:])


def warm_up(model: torch.nn.Module, plan: Plan) -> float:
    """A few forwards of both sides and a step of theirs; returns how far the losses differ (see loss_difference)."""
    peft = Peft(model, plan)
    difference = loss_difference(plan, peft)
    peft.step(list(range(BATCH_SIZE)))
    return difference


def measure(lm: FrozenLM, theirs: torch.nn.Module, plans: list[Plan], peft_runs: int, repeats: int) -> dict:
    runs, epochs, precision = len(plans), plans[0].config.training.epochs, plans[0].config.precision.name
    difference = warm_up(theirs, plans[0])
    if plans[0].config.packing.compile:
        train_packed(plans)
    counts = counted(lm)
    run_epochs = runs * epochs
    seconds: dict[str, list[float]] = {"ours": [], "peft": []}
    rates = []
    for repeat in range(repeats):
        rates.append(gemm_rate(precision, lm.device))
        for side in ("peft", "ours") if repeat % 2 == 0 else ("ours", "peft"):
            if side == "ours":
                counts.clear()
                total, accuracy = train_packed(plans)
            else:
                timed = [train_recipe(theirs, plan) for plan in plans[:peft_runs]]
                each = [t for t, _ in timed]
                total = sum(each) if peft_runs == runs else statistics.median(each) * runs
            seconds[side].append(total)
    per_run_epoch = {side: [t / run_epochs for t in times] for side, times in seconds.items()}
    return {
        "precision": {"ours": precision, "peft": "fp32"},
        "tokenizer": type(lm.tokenizer).__name__,
        "data": plans[0].config.task.source.kind.name,
        "examples": {"train": len(plans[0].train_rows), "test": len(plans[0].task.test)},
        "runs": runs,
        "epochs": epochs,
        "steps_per_epoch": plans[0].steps_per_epoch,
        "slots": min(default_slots(plans), runs),
        "peft_runs": peft_runs,
        "recipe_total": "measured" if peft_runs == runs else f"median of {peft_runs} measured runs, times {runs}",
        "repeats": repeats,
        "loss_difference_unpadded": difference,
        "final_accuracy": {"ours": accuracy[:peft_runs], "peft": [a for _, a in timed]},
        "total": compare(seconds),
        "run_epoch": compare(per_run_epoch),
        "arithmetic": arithmetic(lm.model, counts, run_epochs, rates, statistics.median(per_run_epoch["ours"])),
    }


def arithmetic(model: torch.nn.Module, counts: Counter, run_epochs: int, rates: list[float], seconds: float) -> dict:
    """The packed side's model FLOPs against this machine's rate. seconds: what a run-epoch took it."""
    rate = statistics.median(rates)
    done, needed = (model_flops(model, counts, suffix) / run_epochs for suffix in ("", "_unpadded"))
    return {
        "counted": "matrix products of blocks and head: every forward (evaluations and predictions too) and the "
        "backward to the activations; not attention's scores, embeddings, norms",
        "block_parameters": block_parameters(model),
        "head_parameters": model.get_output_embeddings().weight.numel(),
        "positions_per_run_epoch": {f"{p}_{what}": n / run_epochs for (p, what), n in sorted(counts.items())},
        "flops_per_run_epoch": done,
        "flops_per_run_epoch_unpadded": needed,
        "gemm_flops_per_second": {"median": rate, "min": min(rates), "max": max(rates)},
        "share_of_gemm_rate": done / seconds / rate,
        "floor_seconds_per_run_epoch": needed / rate,
        "fraction_of_floor_reached": needed / rate / seconds,
    }


def table(result: dict) -> str:
    lines = [f"{'':32}{'ours: s (min-max)':>26}{'PEFT: s (min-max)':>26}{'ratio (min-max)':>22}"]
    for what, name in {"total": f"{result['runs']} runs, {result['epochs']} epochs", "run_epoch": "run-epoch"}.items():
        seconds, ratio = result[what]["seconds"], result[what]["ratio"]
        shown = [f"{s['median']:.3g} ({s['min']:.3g}-{s['max']:.3g})" for s in (seconds["ours"], seconds["peft"])]
        label = f"{result['model_shape']} {result['precision']['ours']} {name}"
        lines.append(
            f"{label:32}{shown[0]:>26}{shown[1]:>26}{ratio['median']:>10.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"
        )
    sums = result["arithmetic"]
    lines.append(
        f"ours: {sums['flops_per_run_epoch'] / 1e9:.4g} GFLOP a run-epoch, {sums['share_of_gemm_rate']:.0%} of "
        f"torch.mm's {sums['gemm_flops_per_second']['median'] / 1e9:.4g} GFLOP/s; "
        f"floor {sums['floor_seconds_per_run_epoch']:.3g} s a run-epoch, "
        f"{sums['fraction_of_floor_reached']:.0%} of it reached; PEFT's total: {result['recipe_total']}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model-shape", choices=tuple(DEFAULTS), default="gpt2")
    parser.add_argument("--model", type=Path, help="a real model's folder, instead of --model-shape; default: 8 runs")
    parser.add_argument(
        "--precision", choices=tuple(DTYPES), default="fp32", help="of the packed side; the recipe's is fp32"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="packing.compile; a first, untimed sweep compiles")
    parser.add_argument("--runs", type=int, help="default: gpt2 4, bloomz-560m 3, gpt2-xl 40, tiny 36")
    parser.add_argument("--epochs", type=int, help="default: 1, for tiny 2")
    parser.add_argument("--peft-runs", type=int, help="runs that the recipe trains; default: all, gpt2-xl 1, tiny 3")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs, epochs, peft_runs = (8, 1, 1) if arguments.model else DEFAULTS[arguments.model_shape]
    runs, epochs = arguments.runs or runs, arguments.epochs or epochs
    peft_runs = min(arguments.peft_runs or peft_runs or runs, runs)
    models = make_models(arguments.model_shape, arguments.precision, arguments.device, arguments.model)
    plans = make_plans(models[0], runs, epochs, arguments.precision, arguments.device, arguments.compile)
    shape = arguments.model.name if arguments.model else arguments.model_shape
    what = {"model_shape": shape, "compile": arguments.compile}
    result = what | measure(*models, plans, peft_runs, arguments.repeats)
    write_report(environment(arguments.device) | {"recipe": RECIPE, "result": result}, table(result), arguments.out)


if __name__ == "__main__":
    main()
