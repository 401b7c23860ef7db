# %% [markdown]
# # A first look at a soft prompt
#
# Trains a prompt on the embedded model, watches it learn and looks at what the model writes. Open as a notebook in
# VS Code or with jupytext, or run it as a script.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import promptgeo as pg

run = pg.train("training.epochs=8", task="country_capital", init="cat", seed=0, name="first_look")
run.info["results"]["accuracy"]

# %% [markdown]
# Accuracy on the test split after each epoch, and how far the prompt has moved from P0.

# %%
curve = run.metrics.query("split == 'test'")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(curve["epoch"], curve["accuracy"])
left.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1.02))
right.plot(curve["epoch"], curve["distance_to_p0"])
right.set(xlabel="epoch", ylabel="distance to P0")
figure.savefig(Path(run.folder).parent / "first_look.svg")

# %% [markdown]
# The same examples without a prompt and with the trained one.

# %%
outputs = {which: {p["id"]: p for p in run.predictions if p["prompt"] == which} for which in ("none", "final")}
for key in list(outputs["final"])[:8]:
    none, final = outputs["none"][key], outputs["final"][key]
    verdict = "right" if final["correct"] else "wrong"
    outputs_text = f"without: {none['output'].strip():20s} with: {final['output'].strip():20s}"
    print(f"{final['input']:24s} {outputs_text} {verdict}")

# %% [markdown]
# Which words does each prompt token lie nearest to (cosine)?

# %%
lm = pg.FrozenLM.load("tiny")
vocabulary = lm.vocabulary().numpy()
vocabulary /= np.linalg.norm(vocabulary, axis=1, keepdims=True)
for k, token in enumerate(run.prompt("final")):
    nearest = np.argsort(vocabulary @ token / np.linalg.norm(token))[::-1][:5]
    print(k, [lm.decode([int(i)]) for i in nearest])
