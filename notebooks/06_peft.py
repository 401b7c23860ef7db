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
# # 6. A prompt from PEFT, and back
#
# A prompt that was trained with Hugging Face's PEFT becomes a run that every analysis of positions reads; training
# goes on from it here; and what comes out is an adapter that PEFT loads. This needs `pip install peft`. The next cell
# moves to a temporary folder: leave it out to keep what is written.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# First a prompt of PEFT's own, trained for a moment on one task by a loop that knows nothing of promptgeo. The base
# model is the embedded one, as transformers loads it.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import promptgeo as pg
from promptgeo.config.paths import EMBEDDED_MODEL

warnings.filterwarnings("ignore")  # of what PEFT uses of transformers
small = ["task.split.max_train=48", "task.split.max_test=20"]
task = pg.task("country_capital", *small)
tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)


def tokens(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def base():
    return AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype="float32")


torch.manual_seed(0)
model = get_peft_model(base(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
losses = []
for example in task.train:
    text, label = tokens(f"Input: {example.input}\nLabel:"), tokens(f" {example.label}\n")
    labels = torch.tensor([[-100] * len(text) + label])
    loss = model(input_ids=torch.tensor([text + label]), labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
model.save_pretrained("adapter")
print(f"loss of the first ten examples {np.mean(losses[:10]):.2f}, of the last ten {np.mean(losses[-10:]):.2f}")

# %% [markdown]
# ## From PEFT
#
# A table says what an adapter does not: its task and its init. What is not known is left out, never made up.

# %% language="bash"
# printf 'task,init,model\ncountry_capital,peft_random,tiny\n' > table.csv
# promptgeo-runs import adapter --table table.csv --out outputs/theirs

# %%
theirs = pg.load_runs("outputs/theirs").runs[0]
lm = pg.FrozenLM.load("tiny")
score = pg.evaluate(lm, theirs.prompt()[None], task)
loss = score.losses.sum() / score.tokens.sum()
print(f"{theirs.status}; accuracy {score.accuracy[0]:.2f}, loss {loss:.2f} nats a token")

# %% [markdown]
# ## Train on
#
# `init=run` starts from any run's prompt, an imported one too.

# %%
ours = pg.train(
    *small,
    f"init.path={theirs.folder}",
    "prompt.length=null",
    "training.epochs=12",
    task="country_capital",
    init="run",
    seed=0,
)
curve = ours.metrics.query("split == 'test'")
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot(curve["step"], curve["accuracy"], marker="o")
axis.set(xlabel="steps after PEFT's", ylabel="test accuracy", ylim=(-0.02, 1.02))
plt.show()

# %% [markdown]
# ## Back to PEFT
#
# An adapter of this run is a folder that `PeftModel.from_pretrained` loads, with a model card. What it then writes is
# what promptgeo says.

# %%
os.symlink(ours.folder, "trained")

# %% language="bash"
# promptgeo-runs export trained --to peft --out back
# ls back
# head -n 32 back/README.md | tail -n 24

# %%
loaded = PeftModel.from_pretrained(base(), "back").eval()
for name in ("France", "Japan", "Peru"):
    ids = torch.tensor([tokens(f"Input: {name}\nLabel:")])
    with torch.no_grad():
        written = loaded.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
    peft = tokenizer.decode(written[0, ids.shape[1] :]).partition("\n")[0].strip()
    print(f"{name:8s} PEFT: {peft:16s} promptgeo: {ours.generate(name).strip()}")

# %% [markdown]
# Feed PEFT one input at a time, or inputs of equal length: its left padding stands between prompt and text. Where BOS
# stands in an adapter: docs/analyses.md.
