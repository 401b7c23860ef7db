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
# # 4. An analysis of your own
#
# An analysis is a function from runs to numbers, figures and sentences, and a YAML file that names it. It is then
# called, cached and reported like the thirty that ship with promptgeo. The next cell moves to a temporary folder:
# leave it out to keep what is written.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# First some runs: two tasks, three seeds.

# %% language="bash"
# promptgeo-train name=six task=country_capital,plus_one init=vocab seed=0,1,2 \
#   training.epochs=6 task.split.max_train=64 task.split.max_test=20 evaluation.every=end -m

# %% [markdown]
# The question: does training make prompt tokens longer? The function's first parameter is `runs`, a table with one
# row per run; the others are its options. What it says goes into a `Result`: numbers with their interval and n,
# tables, figures as SVG texts, and findings, which are sentences made of numbers.

# %%
# %%writefile length.py
import matplotlib.pyplot as plt
import numpy as np

from promptgeo.analysis import Finding, Result, question
from promptgeo.analysis.figures import svg
from promptgeo.analysis.resampling import t_mean


@question()
def length(runs, *, before="initial"):
    """Does training make prompt tokens longer?"""
    shorter, longer = (np.linalg.norm(runs.prompts(which), axis=-1).mean(1) for which in (before, "final"))  # [N]
    low, high = t_mean(longer - shorter)  # 95 %, Student's t over runs
    result = Result()
    gain = result.number("gain", (longer - shorter).mean(), len(runs), "runs", low, high)
    sentence = f"Training makes prompt tokens longer by {gain.value:.2f} ({low:.2f} to {high:.2f}; n = {gain.n} runs)."
    result.findings.append(Finding.of(gain, sentence))
    result.tables["lengths"] = runs.table[["task", "init", "seed"]].assign(before=shorter, after=longer)
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for task in runs.table["task"].unique():
        chosen = (runs.table["task"] == task).to_numpy()
        axis.scatter(shorter[chosen], longer[chosen], label=task)
    axis.axline((shorter.mean(), shorter.mean()), slope=1, color="grey", linewidth=1)
    axis.set(xlabel="mean length before training", ylabel="after training")
    axis.legend()
    result.figures["lengths"] = svg(figure, "Length of the prompt tokens: a point per run, equal on the line")
    plt.close(figure)
    return result


# %% [markdown]
# The YAML file says where the function is, what it is about, and its options.

# %%
from pathlib import Path

Path("conf/analysis").mkdir(parents=True)
_ = Path("conf/analysis/length.yaml").write_text("""\
# @package analysis.length
_target_: length.length
_about_: does training make prompt tokens longer?
before: initial
""")

# %% [markdown]
# `config_dir` is the folder of your own choices, and `allow` names your module: promptgeo runs no code that a config
# file names unless it was allowed. Python must find the module, here in the current folder.

# %%
import sys

from IPython.display import SVG, display

import promptgeo as pg

sys.path.insert(0, "")
(answer,) = pg.analyze(runs="outputs/six", analysis=["length"], config_dir="conf", allow=["length"])
print(answer.stored.info["findings"][0]["sentence"])

# %%
display(SVG(answer.stored.figures["lengths"]))

# %% [markdown]
# Options are set by their name, and a table of an analysis is a pandas table.

# %%
answer.stored.tables["lengths"].round(2)

# %% [markdown]
# On the command line this is `promptgeo-analyze --config-dir conf runs=outputs/six 'analysis=[length]'
# 'allow=[length]'`, given where Python finds the module. Claims, the model's vocabulary, and answers for both prompts
# and deltas: docs/howto/analysis.md.
