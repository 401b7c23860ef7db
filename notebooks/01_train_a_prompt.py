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
# # 1. Train a prompt and look at it
#
# A *soft prompt* is a few vectors that stand before the text. Training changes these vectors alone: the language
# model is frozen. Here a prompt of 4 vectors learns to make `tiny`, a small model that ships with promptgeo, name
# capitals. Nothing is downloaded, and everything is written to a temporary folder: leave out the next cell to keep
# it.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %%
import matplotlib.pyplot as plt
import numpy as np

import promptgeo as pg

run = pg.train("training.epochs=6", "task.split.max_train=96", task="country_capital", init="cat", seed=0)
run.info["results"]["accuracy"]

# %% [markdown]
# The shares of test examples that are solved: with no prompt, with the initial prompt P0 (the word "cat", four
# times), and with the trained one. How did it get there?

# %%
curve = run.metrics.query("split == 'test'")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(curve["step"], curve["accuracy"], marker="o")
left.set(xlabel="step", ylabel="test accuracy", ylim=(-0.02, 1.02))
right.plot(curve["step"], curve["distance_to_p0"], marker="o")
right.set(xlabel="step", ylabel="distance from P0")
plt.show()

# %% [markdown]
# What does the model write, without the prompt and with it? Inputs need not come from the data.

# %%
inputs = ["France", "Japan", "Peru"]
for text, without, with_prompt in zip(inputs, run.generate(inputs, "none"), run.generate(inputs), strict=True):
    print(f"{text:8s} without: {without.strip():24s} with: {with_prompt.strip()}")

# %% [markdown]
# The likeliest next tokens after "France", with their probabilities, before and after training.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharex=True)
for axis, which, title in zip(axes, ("initial", "final"), ("with P0", "with the trained prompt"), strict=True):
    tokens = run.next_tokens("France", which, k=5)
    axis.barh([repr(token.text) for token in tokens][::-1], [token.probability for token in tokens][::-1])
    axis.set(title=title, xlabel="probability", xlim=(0, 1))
plt.show()

# %% [markdown]
# Where does the prompt lie? Each of its tokens started at the embedding of "cat". Which words of the vocabulary is it
# nearest to now, by cosine?

# %%
lm = pg.FrozenLM.load("tiny")
vocabulary = lm.vocabulary().numpy()
vocabulary /= np.linalg.norm(vocabulary, axis=1, keepdims=True)
for k, token in enumerate(run.prompt("final")):
    cosines = vocabulary @ token / np.linalg.norm(token)
    nearest = np.argsort(cosines)[::-1][:4]
    print(f"token {k}:", ", ".join(f"{lm.decode([int(i)])!r} {cosines[i]:.2f}" for i in nearest))

# %% [markdown]
# The prompt was kept after every epoch. Seen from P0, in the plane in which its tokens moved most:

# %%
path = np.stack([run.prompt("initial"), *run.tensors["trajectory"]]) - run.prompt("initial")  # [C + 1, P, d]
_, _, axes_of_motion = np.linalg.svd(path.reshape(-1, path.shape[-1]), full_matrices=False)
flat = path @ axes_of_motion[:2].T
figure, axis = plt.subplots(figsize=(4.5, 3.6), layout="constrained")
for k in range(flat.shape[1]):
    axis.plot(*flat[:, k].T, marker=".", label=f"token {k}")
axis.scatter(0, 0, color="black", zorder=3)
axis.annotate("P0", (0, 0), textcoords="offset points", xytext=(6, 6))
axis.set(xlabel="first direction", ylabel="second direction")
axis.legend()
plt.show()

# %% [markdown]
# `tiny` knows the capitals already: what this accuracy measures is whether a prompt can *elicit* them. For another
# model write `model="gpt2"`, or `**{"model.name_or_path": "<hub id or folder>"}`. Next: many prompts at once.
