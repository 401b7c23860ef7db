"""What does prompt tuning give on a real model, with nothing given but the model and the task?

    python benchmarks/real_model.py --model FOLDER_OR_HUB_ID [--tasks a,b] [--seeds 0,1,2] [--outputs FOLDER]
        [--rates 0.1,0.3,1] [--peft-runs 2] [--out real_model.json]

Per task, on the same test examples: no prompt, P0 and the trained prompt (64 training examples, 48 steps, everything
else a default); in-context learning with 5 and 10 demonstrations, drawn three times from the training examples, in the
same template with the same BOS; PEFT's order (the prompt before BOS) with the same P0, minibatches and rate; other
rates. PEFT trains --peft-runs of the runs itself too, left-padded as its users have them; where it trained all of
them, they are compared with ours. Training goes on where it was stopped; what is finished is not done again.

Intervals: 95 %, percentile bootstrap, 10,000 draws of test examples and of seeds (of demonstrations for in-context).
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from peft_recipe import environment, write_report  # first: it imports promptgeo before torch

import torch  # isort: skip

from promptgeo.config.compose import compose
from promptgeo.data.tasks import Task
from promptgeo.evaluation.evaluate import evaluate
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cells_of
from promptgeo.training.engine import train_all
from promptgeo.training.plan import Plan, plan
from promptgeo.training.run_state import RunState

TASKS = (
    "country_capital",
    "present_past",
    "singular_plural",
    "plus_one",
    "sentiment",
    "capitalize_first_letter",
    "landmark_country",
)
SIZE = ("task.split.max_train=64", "training.max_steps=48")
# Looks at the test split during training are left out: they change no prompt and take half of the time.
QUIET = ("evaluation.every=end",)
DEMONSTRATIONS, DRAWS = (5, 10), 3
BOOTSTRAP = 10_000


def overrides(model: str, task: str, seed: int, *more: str) -> list[str]:
    return [f"model.name_or_path={model}", f"task={task}", f"seed={seed}", *SIZE, *QUIET, *more]


def train(arguments: argparse.Namespace) -> dict[str, dict[str, list[Run]]]:
    """arm -> task -> the runs of all seeds."""
    arms: dict[str, tuple[str, ...]] = {"trained": (), "peft_order": ("template.bos=after_prompt",)}
    arms |= {f"lr {rate}": (f"optimizer.lr={rate}",) for rate in arguments.rates}
    place = (f"outputs={arguments.outputs}", "name=real_model")
    runs: dict[str, dict[str, list[Run]]] = {}
    for arm, more in arms.items():
        grid = [(task, seed) for task in arguments.tasks for seed in arguments.seeds]
        cells = cells_of([compose(overrides(arguments.model, task, seed, *more, *place)) for task, seed in grid])
        outcomes = train_all(cells)
        runs[arm] = {}
        for (task, _), outcome in zip(grid, outcomes, strict=True):
            if outcome.run is None or outcome.error:
                raise RuntimeError(f"{outcome.folder}: {outcome.error}")
            runs[arm].setdefault(task, []).append(outcome.run)
        print(arm, {task: [accuracy(run) for run in of_task] for task, of_task in runs[arm].items()}, flush=True)
    return runs


def accuracy(run: Run) -> float:
    return round(run.info["results"]["accuracy"]["final"], 3)


def correct(run: Run, prompt: str = "final") -> np.ndarray:
    """[E] bool, in the order of the test examples."""
    rows = [row for row in run.predictions if row["prompt"] == prompt]
    return np.array([row["correct"] for row in sorted(rows, key=lambda row: row["id"])])


def in_context(lm: FrozenLM, task: Task, shots: int, draw: int) -> np.ndarray:
    """[E] bool: with `shots` demonstrations in front of every test example, in the task's own template."""
    chosen = np.random.default_rng(draw).permutation(len(task.train))[:shots]
    template = task.template
    shown = "".join(
        template.text.replace("{input}", task.train[i].input)
        + template.label.replace("{label}", task.train[i].label)
        + template.end
        for i in chosen
    )
    demonstrated = replace(task, template=replace(template, text=shown + template.text))
    scored = evaluate(lm, np.zeros((1, 0, lm.width), np.float32), demonstrated)
    return scored.correct[0][by_id(task)]


def by_id(task: Task) -> np.ndarray:
    """The order in which `correct` has the test examples."""
    return np.argsort([example.id for example in task.test])


def train_in_peft(p: Plan, model: torch.nn.Module) -> np.ndarray:
    """The prompt of this plan trained by PEFT itself: [prompt][padding][BOS text label], left-padded, labels=."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=len(p.p0_Pd))
    tuned = get_peft_model(model, config)
    prompt = next(weight for weight in tuned.parameters() if weight.requires_grad)
    with torch.no_grad():
        prompt.copy_(p.p0_Pd)
    optimizer = torch.optim.AdamW([prompt], lr=p.optimizer.lr, weight_decay=p.optimizer.weight_decay)
    order, pad = RunState(p), p.lm.tokenizer.eos_token_id
    for _ in range(p.total_steps):
        rows = [p.train_rows[i] for i in order.next_minibatch()]
        texts = [row.ids[row.ids >= 0].tolist() for row in rows]
        labels = [row.label.tolist() for row in rows]
        longest = max(len(text + label) for text, label in zip(texts, labels, strict=True))

        def padded(parts: list[list[int]], fill: int, longest: int = longest) -> torch.Tensor:
            left = [[fill] * (longest - len(part)) + part for part in parts]
            return torch.tensor(left, device=p.lm.device)

        whole = [text + label for text, label in zip(texts, labels, strict=True)]
        loss = tuned(
            input_ids=padded(whole, pad),
            attention_mask=padded([[1] * len(part) for part in whole], 0),
            labels=padded([[-100] * len(t) + label for t, label in zip(texts, labels, strict=True)], -100),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prompt.detach().float().cpu().numpy().copy()


def interval(values_RE: Sequence[np.ndarray], minus_RE: Sequence[np.ndarray] | None = None) -> dict[str, float | int]:
    """The mean of [R, E] (runs x examples), or the paired difference of two such, with its bootstrap interval."""
    generator = np.random.default_rng(0)
    sides = [np.stack(side).astype(float) for side in (values_RE, minus_RE) if side is not None]
    n = sides[0].shape[1]
    draws = np.zeros(BOOTSTRAP)
    examples = generator.multinomial(n, np.full(n, 1 / n), BOOTSTRAP) / n
    for sign, side in zip((1, -1), sides, strict=False):
        runs = generator.multinomial(len(side), np.full(len(side), 1 / len(side)), BOOTSTRAP) / len(side)
        draws += sign * np.einsum("br,re,be->b", runs, side, examples)
    value = sides[0].mean() - (sides[1].mean() if len(sides) > 1 else 0)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high), "runs": len(sides[0]), "examples": n}


def measure(arguments: argparse.Namespace) -> dict:
    runs = train(arguments)
    peft, compared = compare_with_peft(arguments, runs["peft_order"])
    result: dict[str, dict] = {}
    for name in arguments.tasks:
        own = plan_of(arguments.model, name, arguments.seeds[0])
        arms = {arm: [correct(run) for run in of_task[name]] for arm, of_task in runs.items()}
        if all((name, seed) in peft for seed in arguments.seeds):
            arms["PEFT"] = [peft[name, seed].correct[0][by_id(own.task)] for seed in arguments.seeds]
        arms |= {"no prompt": [correct(runs["trained"][name][0], "none")]}
        arms |= {"P0": [correct(runs["trained"][name][0], "initial")]}
        for shots in DEMONSTRATIONS:
            arms[f"{shots}-shot"] = [in_context(own.lm, own.task, shots, draw) for draw in range(DRAWS)]
        result[name] = {"accuracy": {arm: interval(values) for arm, values in arms.items()}}
        others = [arm for arm in arms if arm in ("5-shot", "10-shot", "peft_order", "PEFT") or arm.startswith("lr ")]
        result[name]["trained minus"] = {arm: interval(arms["trained"], arms[arm]) for arm in others}
        shown = {arm: round(of["value"], 3) for arm, of in result[name]["accuracy"].items()}
        print(name, shown, flush=True)
    means = {
        arm: float(np.mean([result[task]["accuracy"][arm]["value"] for task in result]))
        for arm in result[arguments.tasks[0]]["accuracy"]
    }
    return {"tasks": result, "mean over tasks": means, "peft": compared}


def plan_of(model: str, task: str, seed: int, *more: str) -> Plan:
    return plan(cells_of([compose(overrides(model, task, seed, *more))])[0])


def compare_with_peft(arguments: argparse.Namespace, runs: dict[str, list[Run]]) -> tuple[dict, list[dict]]:
    """PEFT's own training of runs in its order: what does it score, and how far is its prompt from ours?

    Returns {(task, seed): its scores} and a list for the report.
    """
    import transformers

    compared, scores = [], {}
    pairs = [(name, k) for k in range(len(arguments.seeds)) for name in arguments.tasks]
    for name, k in pairs[: arguments.peft_runs]:
        p = plan_of(arguments.model, name, arguments.seeds[k], "template.bos=after_prompt")
        dtype = torch.bfloat16 if p.cell.precision == "bf16" else torch.float32
        model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
        theirs = train_in_peft(p, model.to(p.lm.device))
        ours, scored = runs[name][k].prompt("final"), evaluate(p.lm, theirs[None], p.task)
        scores[name, arguments.seeds[k]] = scored
        compared.append(
            {
                "task": name,
                "seed": arguments.seeds[k],
                "moved": float(np.linalg.norm(ours - p.p0_Pd.numpy())),
                "apart": float(np.linalg.norm(ours - theirs)),
                "accuracy": {"ours": accuracy(runs[name][k]), "peft": float(scored.accuracy[0])},
            }
        )
        print(compared[-1], flush=True)
    return scores, compared


def table(result: dict) -> str:
    arms = list(result["mean over tasks"])
    lines = [f"{'':26}" + "".join(f"{arm:>20}" for arm in arms)]
    for task, of in result["tasks"].items():
        cells = (of["accuracy"][arm] for arm in arms)
        lines.append(f"{task:26}" + "".join(f"{c['value']:>8.2f} ({c['low']:.2f}-{c['high']:.2f})" for c in cells))
    lines.append(f"{'mean':26}" + "".join(f"{result['mean over tasks'][arm]:>8.2f}{'':12}" for arm in arms))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS))
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--rates", type=lambda text: [float(r) for r in text.split(",") if r], default=[0.1, 0.3, 1.0])
    parser.add_argument("--peft-runs", type=int, default=2, help="runs that PEFT trains itself, seed by seed")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the runs lie")
    parser.add_argument("--out", type=Path, help="write the JSON here (default: to standard output)")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    result = measure(arguments)
    where = environment("cuda" if torch.cuda.is_available() else "cpu") | {"model": Path(arguments.model).name}
    write_report(where | {"result": result}, table(result), arguments.out)


if __name__ == "__main__":
    main()
