"""python -m promptgeo.tiny.card: measure the embedded model and write its card, CARD.md beside this file.

Trains the runs of sweep=tiny_card that are not complete yet (results in outputs/tiny_card) and scores every trained
prompt on every task. Every number in the card is generated here.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.config.compose import compose_grid
from promptgeo.evaluation.evaluate import evaluate
from promptgeo.model.interface import LM
from promptgeo.runs.folder import Run
from promptgeo.tiny import PATH
from promptgeo.training.cell import cells_of
from promptgeo.training.engine import train_all
from promptgeo.training.plan import Plan, plan

CARD = Path(__file__).with_name("CARD.md")
BAR_WITHOUT, BAR_TRAINED = 0.6, 0.9

TEXT = """# tiny: the embedded model

For demonstrations, tests and method development. **Not for claims about language models**: the facts of the bundled
tasks, test examples included, are in its pretraining corpus, so what test accuracy measures here is *elicitation*:
whether a prompt makes the model do a task that it can do.

GPT-2 architecture, {parameters:,} parameters, width {width}, {layers} layers, {positions} positions,
vocabulary {vocabulary:,} (its own byte-level BPE), {megabytes:.1f} MB on disk (fp16). Pretrained from scratch by
`python -m promptgeo.tiny.pretrain` on a corpus generated from the bundled data: few-shot blocks of tasks that compete
on the same inputs, so that without a prompt the model cannot know which one is meant, and sentences of the ten init
words. The tasks toy_* are rules of a toy grammar (`python -m promptgeo.tiny.grammar`), of which the corpus has further
rows.

Written by `python -m promptgeo.tiny.card`. Test accuracy (the whole line, greedy, template input_label) on the bundled
tasks' test split of n examples; default optimiser, {steps} steps, init cat; 4 and 1 prompt tokens: mean of {seeds}
seeds (lowest). Other prompts: the trained 4-token prompts of the other tasks: mean (largest).
In its corpus a mismatched instruction leaves the input with a decoy task, so transfer between tasks is near 0 by
construction.

| task | n | no prompt | P0 | other prompts | 4 tokens | 1 token |
|---|---|---|---|---|---|---|
{rows}

Aim: at most {without} without a prompt, with P0 and on average with another task's prompt; at least {trained} with a
trained prompt. {verdict}

Label accuracy, which compares the labels of a label set alone, beside what always saying training's most frequent label
scores. In the corpus a toy task's labels are at times written by a hunch where nothing is said, so that no prompt is
near chance.

| task | majority | no prompt | P0 | 4 tokens | 1 token |
|---|---|---|---|---|---|
{label_rows}
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m promptgeo.tiny.card", description=__doc__)
    parser.add_argument("--out", type=Path, default=CARD, help="the card to write")
    parser.add_argument("--overrides", nargs="*", default=[], help="Hydra overrides of the sweep")
    chosen = parser.parse_args(arguments)
    cells = cells_of(compose_grid(["sweep=tiny_card", *chosen.overrides]))
    train_all(cells)
    plans = [plan(cell) for cell in cells]
    chosen.out.write_text(card(plans), encoding="utf-8")
    print(f"wrote {chosen.out}")


def card(plans: list[Plan]) -> str:
    """The card's text from the finished runs of these plans."""
    runs = {id(p): Run.load(p.folder).info["results"] for p in plans}
    lm = plans[0].lm
    tasks = list(dict.fromkeys(p.task.name for p in plans))
    long, short = ([p for p in plans if p.prompt_length == length] for length in (4, 1))
    prompts_NPd = np.stack([Run.load(p.folder).prompt("final") for p in long])
    rows, label_rows, misses = [], [], []
    for name in tasks:
        own = np.array([p.task.name == name for p in long])
        task = next(p.task for p in long if p.task.name == name)
        accuracy_N = evaluate(lm, prompts_NPd, task).accuracy
        of_long, of_short = ([runs[id(p)] for p in some if p.task.name == name] for some in (long, short))
        one = np.array([results["accuracy"]["final"] for results in of_short])
        none, initial = (of_long[0]["accuracy"][which] for which in ("none", "initial"))
        four, other = accuracy_N[own], accuracy_N[~own]
        rows.append(
            f"| {name} | {len(task.test)} | {none:.2f} | {initial:.2f} | {other.mean():.2f} ({other.max():.2f}) "
            f"| {lowest(four)} | {lowest(one)} |"
        )
        if task.labels:
            label_rows.append(label_row(name, of_long, of_short))
        low = {"without a prompt": none, "with P0": initial, "with other prompts": other.mean()}
        high = {"with 4 tokens": four.mean(), "with 1 token": one.mean()}
        misses += [f"{name} {what}" for what, value in low.items() if value > BAR_WITHOUT]
        misses += [f"{name} {what}" for what, value in high.items() if value < BAR_TRAINED]
    return TEXT.format(
        **facts(lm),
        steps=plans[0].config.training.max_steps,
        seeds=len({p.config.seed for p in plans}),
        rows="\n".join(rows),
        label_rows="\n".join(label_rows),
        without=BAR_WITHOUT,
        trained=BAR_TRAINED,
        verdict="Reached on every task." if not misses else f"Not reached: {', '.join(misses)}.",
    )


def lowest(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ({values.min():.2f})"


def label_row(name: str, of_long: list[dict[str, Any]], of_short: list[dict[str, Any]]) -> str:
    """A task's line in the table of label accuracies, from the results of its runs of 4 tokens and of 1."""
    four, one = (np.array([results["label_accuracy"]["final"] for results in some]) for some in (of_long, of_short))
    none, initial = (of_long[0]["label_accuracy"][which] for which in ("none", "initial"))
    majority = of_long[0]["labels"]["majority"]
    return f"| {name} | {majority:.2f} | {none:.2f} | {initial:.2f} | {lowest(four)} | {lowest(one)} |"


def facts(lm: LM) -> dict[str, float | None]:
    return {
        "parameters": lm.parameters,
        "width": lm.width,
        "layers": lm.layers,
        "positions": lm.max_positions,
        "vocabulary": lm.vocabulary_size,
        "megabytes": sum(f.stat().st_size for f in PATH.iterdir()) / 1e6,
    }


if __name__ == "__main__":
    main()
