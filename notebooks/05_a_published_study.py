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
# # 5. A published study in ten minutes, cut down
#
# *Are soft prompts actually not interpretable?* (Bakalova; "study 3" in these pages) trained 60 prompts on GPT-2 XL
# and asked whether the init or the task decides where they end up. Here is the same grid cut down: 2 init words x 2
# tasks x 2 seeds, on the embedded model. It shows the way. What it finds is about `tiny`, not about GPT-2 XL. The
# next cell moves to a temporary folder: leave it out to keep what is written.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# One command trains the grid, runs the study's analyses and writes the report. Any key of training can follow.
# Without those after `model=tiny` it is the study's whole grid; without `model=tiny` it is the study itself, for a
# GPU.

# %% language="bash"
# promptgeo-reproduce init_vs_task model=tiny init=cat,dog task=country_capital,present_past seed=0,1 \
#   training.epochs=4 training.checkpoints=16 task.split.max_train=64 task.split.max_test=12 > said.txt
# tail -n 1 said.txt

# %% [markdown]
# `report.html` is one page with all of it. The same as Markdown, of which this is the beginning: the question, the
# answer and the claims, each with what was published and what these runs say. Where they cannot say, the table does
# not guess, whatever the interval is: it names what it would take.

# %% language="bash"
# promptgeo-report outputs/init_vs_task --to md

# %%
from pathlib import Path

from IPython.display import SVG, Markdown, display

report = Path("outputs/init_vs_task/report.md").read_text()
beginning, _, _ = report.partition("\n## What was run")
lines = [line for line in beginning.splitlines() if not line.startswith("![")]  # its figure follows below
display(Markdown("\n".join(lines)))

# %% [markdown]
# What each verdict rests on stands further down, under "Evidence": the test that decides, with its numbers, and of a
# claim that cannot be decided the premise that is not met.

# %%
_, _, evidence = report.partition("\n## Evidence\n")
evidence, _, _ = evidence.partition("\n## Provenance")
decides = ("  - Trained prompts:", "  - Trained prompts, corrected:")
lines = [line for line in evidence.splitlines() if line.startswith(("- ", *decides)) and "not tested" not in line]
display(Markdown("\n".join(lines)))

# %% [markdown]
# What the study leads with: how far apart tokens lie that share an init, a task, or neither. Its own figure is next
# to this one in the report's section "mean_distances".

# %%
import promptgeo as pg

(answer,) = pg.analyze(runs="outputs/init_vs_task", analysis=["mean_distances"])  # cached: read, not computed again
name = next(name for name in answer.stored.figures if name.startswith("prompt_corrected"))
display(SVG(answer.stored.figures[name]))

# %% [markdown]
# Each number by its name. `same_init` and `same_task` leave out pairs of tokens within one run, which lie close
# whatever was trained; the figure above shows single inits and tasks, so its bars are other means than these.

# %%
numbers = answer.stored.numbers.query("of == 'prompt' and convention == 'corrected'").set_index("quantity")
numbers.loc[["same_init", "same_task", "neither"], ["value", "low", "high", "n", "unit"]].round(3)

# %% [markdown]
# The other studies are reproduced alike: `promptgeo-reproduce --help` lists them.
