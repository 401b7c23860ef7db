"""How an example is written: against rows and whole embedding sequences built by hand."""

import numpy as np
import pytest
import torch

from conftest import FAMILIES
from promptgeo import FrozenLM, UserError
from promptgeo.config.compose import compose
from promptgeo.config.schema import Template
from promptgeo.data.tasks import Example, Task
from promptgeo.model.batching import collate

P = 3
EXAMPLE = Example(7, "Chad", "N'Djamena")
TEMPLATES = {
    "input_label": (["P", "Input: Chad\nLabel:"], " N'Djamena\n"),
    "study3": (["P", "Input: Chad\nLabel: "], "N'Djamena"),
    "bare": (["P", "Chad"], "N'Djamena"),
    "middle": (["The capital of ", "P", "Chad is"], " N'Djamena."),
    "end": (["Chad", "P"], " N'Djamena\n"),
    "repeated": (["P", "P", "Chad", "P", ":"], " N'Djamena\n"),
    "twice": (["P", "Chad, Chad ->"], " N'Djamena\n"),
}
OWN = {
    "middle": ("The capital of {prompt}{input} is", "."),
    "end": ("{input}{prompt}", "\n"),
    "repeated": ("{prompt}{prompt}{input}{prompt}:", "\n"),
    "twice": ("{input}, {input} ->", "\n"),
}


def template(name: str) -> Template:
    if name in OWN:
        return Template(name=name, text=OWN[name][0], end=OWN[name][1])
    return compose([f"template={name}"]).template


def task(written: Template | str, *examples: Example, **fields) -> Task:
    return Task("t", list(examples), [], [], template(written) if isinstance(written, str) else written, **fields)


def by_hand(lm, name: str) -> tuple[list[int], list[int]]:
    """(ids, label ids); -1, -2, ... are the prompt's tokens."""
    pieces, label = TEMPLATES[name]
    ids = []
    for piece in pieces:
        ids += [-1 - k for k in range(P)] if piece == "P" else lm.encode(piece)
    return ids, lm.encode(label)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_is_the_template_written_out(gpt2, name):
    (row,) = task(name, EXAMPLE).rows(gpt2, [EXAMPLE], P)
    ids, label = by_hand(gpt2, name)
    assert (row.ids.tolist(), row.label.tolist()) == (ids, label)
    assert row.length == len(ids) + len(label) - 1
    (without,) = task(name, EXAMPLE).rows(gpt2, [EXAMPLE], 0)
    assert without.ids.tolist() == [i for i in ids if i >= 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["input_label", "middle", "end", "repeated"])
def test_what_the_model_is_fed_is_the_whole_sequence_built_by_hand(model_folders, family, name):
    lm = FrozenLM.load(str(model_folders[family]), device="cpu")
    prompt = torch.randn(P, lm.width, generator=torch.Generator().manual_seed(1))
    (batch,) = collate(task(name, EXAMPLE).rows(lm, [EXAMPLE], P), [0], P)
    logits = lm.label_logits(prompt[None], batch)[batch.row_M == 0]

    ids, label = by_hand(lm, name)
    sequence = []
    for token in [*ids, *label[:-1]]:
        sequence.append(prompt[-1 - token] if token < 0 else lm.model.get_input_embeddings()(torch.tensor(token)))
    expected = lm.model(inputs_embeds=torch.stack(sequence)[None]).logits[0, len(ids) - 1 :]
    assert logits.shape == expected.shape == (len(label), lm.model.config.get_text_config().vocab_size)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    moved = lm.label_logits(prompt.flip(0)[None], batch)[batch.row_M == 0]
    assert (moved - logits).abs().max() > 1e-3  # the prompt's order counts


@pytest.mark.parametrize("text", ["{prompt}", "a {input} b {label} {", "}{", "{0} %s \\1"])
def test_an_input_that_holds_a_templates_own_signs_is_only_text(gpt2, text):
    example = Example(0, text, text)
    (row,) = task("input_label", example).rows(gpt2, [example], P)
    assert row.ids.tolist() == [-1, -2, -3, *gpt2.encode(f"Input: {text}\nLabel:")]
    assert row.label.tolist() == gpt2.encode(f" {text}\n")


def test_the_space_before_a_label_belongs_to_the_label(gpt2):
    """Trap 16: "Label: " + "Paris" is not the natural " Paris"; only study3, as published, does so."""
    example = Example(0, "France", "cat")
    (natural,) = task("input_label", example).rows(gpt2, [example], 0)
    assert natural.label.tolist() == gpt2.encode(" cat\n") and gpt2.decode(natural.ids.tolist()).endswith("Label:")
    (published,) = task("study3", example).rows(gpt2, [example], 0)
    assert published.label.tolist() == gpt2.encode("cat") and gpt2.decode(published.ids.tolist()).endswith("Label: ")


def test_an_example_beyond_the_models_positions_is_named_and_none_below(gpt2):
    """Trap 7: the model has 64 positions; the label takes some too, but for its last token, which is only predicted."""
    label = "dog bird"
    assert len(gpt2.encode("catcat")) == 2 and len(gpt2.encode(label)) > 1
    n = 64 - P - (len(gpt2.encode(label)) - 1)
    assert task("bare").rows(gpt2, [Example(0, "cat" * n, label)], P)[0].length == 64
    with pytest.raises(
        UserError,
        match=r"^task t, example 12 \('catcatcat.*'\): prompt and text take 65 positions, the model has 64; "
        r"shorten prompt.length or set task.max_input_tokens$",
    ):
        task("bare").rows(gpt2, [Example(0, "cat", label), Example(12, "cat" * (n + 1), label)], P)


def test_a_model_without_a_limit_of_positions_takes_any_length(model_folders):
    bloom = FrozenLM.load(str(model_folders["bloom"]), device="cpu")
    long = Example(0, "cat" * 100, "dog")
    assert task("bare").rows(bloom, [long], P)[0].length > 64


def test_max_input_tokens_cuts_inputs_and_never_labels(gpt2):
    example = Example(0, "cat dog bird book house", "cat dog bird book house")
    whole, label = gpt2.encode(example.input), gpt2.encode(" " + example.label + "\n")
    for limit in (1, 3, len(whole), 50):
        (row,) = task("input_label", max_input_tokens=limit).rows(gpt2, [example], 0)
        assert row.ids.tolist() == gpt2.encode(f"Input: {gpt2.decode(whole[:limit])}\nLabel:")
        assert row.label.tolist() == label
    assert task("bare", max_input_tokens=2).rows(gpt2, [example], 0)[0].ids.tolist() == whole[:2]


def test_an_example_without_tokens_is_named(gpt2):
    for text, label in (("", "x"), ("x", "")):
        with pytest.raises(UserError, match=r"^task t, example 3 \('x?'\): its text or its label has no tokens$"):
            task("bare").rows(gpt2, [Example(3, text, label)], 0)


def test_label_rows_write_every_label_after_the_same_text(gpt2):
    example = Example(0, "good", "positive")
    rows = task("input_label", labels=["negative", "positive"]).label_rows(gpt2, example, P)
    assert [row.label.tolist() for row in rows] == [gpt2.encode(" negative\n"), gpt2.encode(" positive\n")]
    assert all(np.array_equal(row.ids, rows[0].ids) for row in rows)
    assert task("input_label").label_rows(gpt2, example, P) == []
