# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Your own task, and your own metric
#
# Your examples are a file with a column of inputs and a column of labels. Nothing else is needed. The next cell moves
# to a temporary folder: leave it out to keep what is written.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import promptgeo as pg

numbers = range(20, 80)
rows = [f"{number},{number + 1}" for number in numbers]
Path("next_number.csv").write_text("\n".join(["question,answer", *rows]))
custom = [
    "task.source.path=next_number.csv",
    "task.source.input=question",
    "task.source.label=answer",
    "task.name=next_number",
]

# %% [markdown]
# Before training: how are the examples split, and how is one written? A test split of your own is kept where the
# source is a folder with `train.*` and `test.*`.

# %%
task = pg.task("custom", *custom)
print(len(task.train), "train,", len(task.test), "test")
print(repr(task.template.text.replace("{input}", task.test[0].input)), "->", repr(task.test[0].label))

# %% [markdown]
# Training is the same command as for any task. `task.split.validation` cuts a part of the training examples off, by
# which the best step is chosen; the test examples are never used for that.

# %%
run = pg.train(*custom, "task.split.validation=0.2", "training.epochs=8", task="custom", init="cat", seed=0)
run.info["results"]["accuracy"]

# %% [markdown]
# ## A metric of your own
#
# Accuracy asks for the very text. How far off are the wrong answers? `pg.evaluate` scores any prompts and, with
# `outputs=True`, keeps what the model wrote: a metric is then a line of your own. Here every prompt that was kept
# while training is scored at once.

# %%
lm = pg.FrozenLM.load("tiny")
steps = [0, *run.tensors["steps"].tolist()]
scores = pg.evaluate(lm, np.stack([run.prompt(step) for step in steps]), task, outputs=True)


def error(outputs):
    """The mean distance of what was written from the right number, at most 10; 10 for what is no number."""
    far = [
        min(abs(int(text) - int(example.label)), 10) if text.strip().isdigit() else 10
        for text, example in zip(outputs, task.test, strict=True)
    ]
    return np.mean(far)


errors = [error(outputs) for outputs in scores.outputs]
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(steps, scores.accuracy, marker="o", label="accuracy")
axis.plot(steps, np.array(errors) / 10, marker="s", label="mean error, tenths of 10")
axis.set(xlabel="step", ylim=(-0.02, 1.02))
axis.legend()
plt.show()

# %%
for example, text, correct in list(zip(task.test, scores.outputs[-1], scores.correct[-1], strict=True))[:6]:
    print(f"{example.input} -> {text.strip():6s} {'right' if correct else f'wrong: {example.label}'}")

# %% [markdown]
# A metric that belongs into every run's `metrics.csv`, `run.json` and loggers is one entry of a list in promptgeo's
# own code: docs/howto/metric.md. A task that others are to use is one YAML file: docs/howto/task.md.
