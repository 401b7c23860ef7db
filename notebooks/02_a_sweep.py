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
# # 2. A sweep, and where its prompts lie
#
# Does the init or the task decide where a prompt ends up? One prompt cannot say. This notebook trains 12: 2 tasks x 3
# inits x 2 seeds. They train together, on one copy of the frozen model, and each is what it would have been alone.
# Everything is written to a temporary folder: leave out the next cell to keep it.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# A grid is one command: with `-m`, every value with commas is varied. (Progress goes to standard error.)

# %% language="bash"
# promptgeo-train name=sweep task=country_capital,present_past init=cat,dog,vocab seed=0,1 \
#   training.epochs=6 task.split.max_train=64 task.split.max_test=30 -m

# %% [markdown]
# Every run has left a folder. `load_runs` reads them as one table, with the prompts as one array.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import SVG, display

import promptgeo as pg

runs = pg.load_runs("outputs/sweep")
runs

# %%
final, initial = runs.prompts(), runs.prompts("initial")
final.shape  # runs, prompt tokens, width of the model's embeddings

# %% [markdown]
# Each point below is a prompt token, projected on the two directions in which they vary most (PCA). Left: the tokens
# themselves, coloured by init. Right: what training added to them (final less initial), coloured by task.


# %%
def plane(points):
    centred = points.reshape(-1, points.shape[-1]) - points.reshape(-1, points.shape[-1]).mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return (centred @ directions[:2].T).reshape(*points.shape[:2], 2)


figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
pictures = (("trained prompts", final, "init"), ("what training added", final - initial, "task"))
for axis, (title, points, factor) in zip(axes, pictures, strict=True):
    flat = plane(points)
    for level in runs.table[factor].unique():
        chosen = flat[(runs.table[factor] == level).to_numpy()].reshape(-1, 2)
        axis.scatter(*chosen.T, s=18, label=level)
    axis.set(title=f"{title}, by {factor}", xticks=[], yticks=[])
    axis.legend()
plt.show()

# %% [markdown]
# A picture is no measurement. The analysis `mean_distances` counts: how far apart are prompt tokens that share an
# init, a task, or neither? Each finding is a sentence with its interval or p, and its n.

# %%
(answer,) = pg.analyze(runs="outputs/sweep", analysis=["mean_distances"], of="both", convention="corrected")
for finding in answer.stored.info["findings"]:
    print(f"[{finding['of']}] {finding['sentence']}\n")

# %%
display(SVG(next(iter(answer.stored.figures.values()))))

# %% [markdown]
# The numbers behind it are a table; the same lies as CSV in `outputs/sweep/analysis/mean_distances/`.

# %%
answer.stored.numbers.query("of == 'prompt'")[["quantity", "value", "low", "high", "n", "unit"]].head(8).round(3)

# %% [markdown]
# There are thirty such analyses (docs/analyses.md). With two seeds and two tasks little can be said for sure, and the
# intervals say so: more seeds are one more value in the command, which then trains only the new runs.
