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
# # 7. What do they mean?
#
# Five questions about what a soft prompt holds, each one analysis: `describe`, `mechanism`, `transfer`, `atlas` and
# `capacity`. They run here on small sweeps with few examples, so that intervals are wide, and every answer is about
# `tiny`, the embedded model, not about language models. Another model is one key of training: `model=gemma-3-270m`.
# The next cell moves to a temporary folder: leave it out to keep what is written.

# %%
import os
import tempfile

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# Four of them share a sweep of 4 tasks x 3 init words. Layers are chosen on validation examples, never on those that
# are scored.

# %% language="bash"
# promptgeo-train name=meaning task=country_capital,landmark_country,present_past,singular_plural init=cat,book,house \
#   training.max_steps=24 training.checkpoints=4 evaluation.every=end \
#   task.split.max_train=96 task.split.max_test=12 task.split.validation=0.2 -m

# %%
from IPython.display import SVG, display

import promptgeo as pg


def ask(analysis, *options, runs="outputs/meaning"):
    """The stored answer of one analysis; options are its own, as on the command line."""
    given = [f"analysis.{analysis}.{option}" for option in options]
    (answer,) = pg.analyze(*given, runs=runs, analysis=[analysis])
    return answer.stored


def say(stored, about=""):
    """Its findings that speak of this, and what it leaves out."""
    said = [finding["sentence"] for finding in stored.info["findings"]]
    print("\n\n".join([*(sentence for sentence in said if about in sentence), *stored.info["omissions"]]))


# %% [markdown]
# ## Can the model put its own prompt into words?
#
# `describe` writes a prompt's hidden states into a text that asks for a description, at pairs of layers, and puts what
# the model then says in the prompt's place. It does so with untrained, random and other tasks' prompts too.

# %%
described = ask("describe", "layers=2", "max_new_tokens=8", "chosen_on=4", "max_examples=null")
say(described, "gain over no prompt")
display(SVG(described.figures["descriptions"]))

# %% [markdown]
# What it said, over all prompts and pairs of layers:

# %%
described.tables["texts"]["text"].fillna("(nothing)").value_counts().rename("times").to_frame()

# %% [markdown]
# *How to read it:* a description does the job where the trained prompts lie to the right of all three others. Here they
# do not: `tiny` says the same of any prompt, which tells of `tiny`, not of its prompts.

# %% [markdown]
# ## Does it work as demonstrations or an instruction do?
#
# `mechanism` takes what a prompt adds to the state of an input's last token, and adds it to inputs without a prompt.

# %%
options = ("layers=3", "scales=[2.0]", "sets=2", "examples=12", "validation=8", "max_examples=null")
mechanism = ask("mechanism", *options)
say(mechanism)
display(SVG(mechanism.figures["recovery"]))

# %%
mechanism.tables["ways"][["task", "way", "accuracy", "nothing", "none", "helps"]].round(2)

# %% [markdown]
# *How to read it:* at recovery 1 one vector does all that the prompt does, and random vectors show what any push of its
# length does. Demonstrations and the instruction are compared only where they beat no prompt (`none`) and what says
# nothing (`nothing`: labels exchanged, words in other orders). On `tiny` they do not: the question stays open.

# %% [markdown]
# ## Which prompts do other tasks too?
#
# `transfer` scores every prompt on every task, and asks which likeness of two tasks' prompts goes with the gain: where
# they lie, or which feed-forward neurons they activate.

# %%
transfer = ask("transfer", "max_examples=null")
say(transfer, "to another task")
gains = transfer.tables["corrected_transfers"].pivot(index="source", columns="target", values="gain_over_p0")
gains.round(2)

# %%
display(SVG(transfer.figures["corrected_predictors"]))

# %% [markdown]
# *How to read it:* the table is accuracy gained over the untrained prompt; off its diagonal a prompt meets a task that
# is not its own. A likeness predicts transfer where its whole interval lies on one side of 0; from six tasks on it has
# a p too. On `tiny` a prompt does its own task and hardly another: there is next to nothing to predict.

# %% [markdown]
# ## Where do they all lie?
#
# `atlas` lays every prompt and checkpoint on one map, and says how much of the true neighbourhoods the map keeps.

# %%
atlas = ask("atlas", "permutations=199", "perplexity=10")
say(atlas)
display(SVG(atlas.figures["atlas"]))

# %% [markdown]
# The page `outputs/meaning/analysis/atlas/atlas.html` is this map to walk about in. Which prompts lie nearest to a word
# is asked of the prompts themselves, not of the map:

# %%
found = pg.nearest_prompts("outputs/meaning", "capital", checkpoints=False, top=5)
found[["distance", "task", "init"]].round(3)

# %% [markdown]
# *How to read it:* believe the picture as far as the first sentences go, and look up the rest in the tables. On `tiny`
# the prompts nearest to *capital* are those that were trained to write capitals.

# %% [markdown]
# ## How much fits into one vector?
#
# `capacity` asks it of runs in which one vector learns to recite longer and longer parts of a text.

# %% language="bash"
# promptgeo-train sweep=capacity name=recite prompt.length=1 'task.source.row=range(3)' \
#   task.source.label=real,random_words task.label_length=2,4,8,16 training.epochs=50 -m > said.txt
# tail -n 1 said.txt

# %%
capacity = ask("capacity", runs="outputs/recite")
say(capacity)
display(SVG(capacity.figures["length"]))

# %% [markdown]
# *How to read it:* where the share of right tokens leaves 1 the vector is full, and what it holds is a lower bound at
# these few steps. If information is the limit, both kinds of text end at the same bits, whatever their tokens. Three
# texts of at most 16 tokens cannot say that of `tiny`, and `tiny` says nothing of a larger model.
#
# Each of these but `transfer` is a whole study: `promptgeo-reproduce describe`, `mechanism`, `capacity`, `atlas`.
# What a real model said to some of them lies in docs/results/.
