"""evaluate() against generating every row, on a model taught to be right, wrong, and right by another tokenisation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import reference
from promptgeo import FrozenLM, UserError, evaluate
from promptgeo.config.schema import Scoring, Template
from promptgeo.data.tasks import Example, Task

LINE = Template("input_label", "Input: {input}\nLabel:", " {label}", "\n", Scoring.line, 9)
PREFIX = Template("study3", "Input: {input}\nLabel: ", "{label}", "", Scoring.prefix, 9)
TOKEN = Template("bare", "{input}", "{label}", "", Scoring.token, 1)
WORDS = ("France", "Japan", "Peru", "sing", "walk", "jump", "table")
LABELS = ("Paris", "Tokyo", "Bogotá", "sang", "walk", "jumped", "Rome")
EXAMPLES = [Example(i, word, label) for i, (word, label) in enumerate(zip(WORDS, LABELS, strict=True))]


def task_of(template, examples=EXAMPLES, labels=None) -> Task:
    return Task("words", examples, [], examples, template, labels)


def ways_to_write(lm, template, label: str, other: str) -> list[list[int]]:
    space = template.label.split("{")[0]
    letters = [token for letter in label for token in lm.encode(letter)]
    assert letters != lm.encode(label)
    end, written = lm.encode("\n"), lm.encode(space + label)
    return [
        written + end,  # the label
        [*written, lm.tokenizer.eos_token_id],  # the label, ended by an end-of-sequence token
        lm.encode(space) + letters + end,  # the label in other tokens
        lm.encode(space + other) + end,  # another label
        lm.encode(space + label + "ed") + end,  # it only starts with the label ("walk": w-al-k, "walked": w-al-ked)
        written * 3,  # no end
        written + lm.encode("  ") + end,  # the label and spaces
    ]


@pytest.fixture(scope="module")
def taught(model_folders) -> tuple[FrozenLM, torch.Tensor]:
    """A model that writes one of the seven ways after each text and prompt (or none); its prompts [2, 2, 32]."""
    loaded = FrozenLM.load(str(model_folders["gpt2"]), device="cpu")
    model = reference.original(model_folders["gpt2"])
    prompts = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(3))
    sequences = []  # (prompt, text, what to write)
    for template in (LINE, PREFIX):
        for n, prompt in enumerate((torch.zeros(0, 32), *prompts)):
            for i, (example, row) in enumerate(zip(EXAMPLES, task_of(template).rows(loaded, EXAMPLES, 0), strict=True)):
                ways = ways_to_write(loaded, template, example.label, LABELS[i - 1])
                sequences.append((prompt, row.ids, ways[(i + 3 * n) % 7]))
    for n, prompt in enumerate((torch.zeros(0, 32), *prompts)):
        for i, word in enumerate(WORDS):  # bare: half of them followed by their number
            sequences.append((prompt, np.array(loaded.encode(word)), loaded.encode(str((i + (i + n) % 2) % 10))))
    length = max(len(p) + len(text) + len(way) for p, text, way in sequences)
    ids, targets = torch.zeros(len(sequences), length, dtype=torch.long), torch.full((len(sequences), length), -100)
    in_front = torch.zeros(len(sequences), length, 32)
    for s, (prompt, text, way) in enumerate(sequences):
        start = len(prompt) + len(text)
        in_front[s, : len(prompt)] = prompt
        ids[s, len(prompt) : start + len(way)] = torch.tensor([*text, *way])
        targets[s, start - 1 : start - 1 + len(way)] = torch.tensor(way)
    scored = targets >= 0
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        inputs = torch.where(in_front == 0, model.get_input_embeddings()(ids), in_front)
        hidden = model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        loss = cross_entropy(model.get_output_embeddings()(hidden[scored]), targets[scored])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return FrozenLM(model, loaded.tokenizer), prompts


@pytest.fixture(scope="module")
def generated(taught):
    """(template, number of prompts) -> each row's tokens, generated one row at a time."""
    lm = taught[0]
    known = {}

    def generate(template, prompt_list, limit):
        written = []
        for n, prompt in enumerate(prompt_list):
            rows = task_of(template).rows(lm, EXAMPLES, len(prompt))
            for i, row in enumerate(rows):
                key = (template.name, len(prompt), n, i)
                if key not in known:
                    known[key] = reference.written(lm.model, prompt, row, 9)
                written.append(known[key][:limit])
        return written

    return generate


@pytest.mark.parametrize("limit", [9, 3, 1])
@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("template", [LINE, PREFIX], ids=["line", "prefix"])
def test_verdicts_and_outputs_are_those_of_generating_every_row(taught, generated, template, prompted, limit):
    lm, prompts = taught
    prompts = prompts if prompted else torch.zeros(1, 0, 32)
    tokens = generated(template, prompts, limit)
    expected = [
        reference.verdict(lm.tokenizer, template, EXAMPLES[k % len(EXAMPLES)].label, t) for k, t in enumerate(tokens)
    ]
    quick = evaluate(lm, prompts, task_of(template), max_new_tokens=limit)
    full = evaluate(lm, prompts, task_of(template), max_new_tokens=limit, outputs=True)
    assert quick.correct.ravel().tolist() == full.correct.ravel().tolist() == [correct for correct, _ in expected]
    assert [text for texts in full.outputs for text in texts] == [output for _, output in expected]
    assert quick.outputs is None
    assert quick.accuracy.tolist() == quick.correct.mean(1).tolist()


@pytest.mark.parametrize("template", [LINE, PREFIX], ids=["line", "prefix"])
def test_outputs_are_the_same_where_rows_run_whole(taught, template, monkeypatch):
    lm, prompts = taught
    tree = evaluate(lm, prompts, task_of(template), outputs=True)
    monkeypatch.setattr(lm, "_shares_prefixes", False)
    grid = evaluate(lm, prompts, task_of(template), outputs=True)
    assert grid.outputs == tree.outputs and np.array_equal(grid.correct, tree.correct)
    monkeypatch.undo()
    monkeypatch.setattr(lm, "_compiled", True)  # it keeps no keys and values of a scored batch
    whole = evaluate(lm, prompts, task_of(template), outputs=True)
    assert whole.outputs == tree.outputs and np.array_equal(whole.correct, tree.correct)


def test_what_is_written_costs_one_position_for_a_token(taught, monkeypatch):
    """The text was run to score it: it is not run again to write the output."""
    lm, prompts = taught
    positions, label_logits = [], lm.label_logits

    def counting(prompts, batch, cache=None):
        positions.append(batch.ids.numel())
        return label_logits(prompts, batch, cache)

    monkeypatch.setattr(lm, "label_logits", counting)
    monkeypatch.setattr(lm, "max_tokens", 250)  # a batch for each prompt
    evaluate(lm, prompts, task_of(LINE), outputs=True)
    scored = [count for count in positions if count > 8]
    assert len(scored) == 2 and len(positions) > 4  # 7 rows, padded to 8


def test_the_taught_model_writes_every_kind_of_row(taught, generated):
    """The test above means something only if these occur."""
    lm, prompts = taught
    kinds = set()
    for k, tokens in enumerate(generated(LINE, prompts, 9)):
        label = EXAMPLES[k % len(EXAMPLES)].label
        wanted = lm.encode(f" {label}\n")
        correct, output = reference.verdict(lm.tokenizer, LINE, label, tokens)
        if tokens[: len(wanted)] == wanted:
            kinds.add("right")
        elif correct and tokens[-1] == lm.tokenizer.eos_token_id:
            kinds.add("right, ended by an end-of-sequence token")
        elif correct and output == f" {label}":
            kinds.add("right in other tokens")
        elif correct:
            kinds.add("right but for spaces")
        elif "\n" not in lm.decode(tokens):
            kinds.add("endless")
        else:
            kinds.add("starts with the label" if output.strip().startswith(label) else "wrong")
    assert len(kinds) == 7, kinds


@pytest.mark.parametrize("prompted", [True, False])
def test_token_scoring_is_the_first_generated_token(taught, prompted):
    lm, prompts = taught
    prompts = prompts if prompted else torch.zeros(1, 0, 32)
    examples = [Example(i, word, str(i % 10)) for i, word in enumerate(WORDS)]
    task = task_of(TOKEN, examples)
    scores = evaluate(lm, prompts, task, outputs=True)
    tokens = [
        reference.written(lm.model, prompt, row, 1)
        for prompt in prompts
        for row in task.rows(lm, examples, prompts.shape[1])
    ]
    expected = [
        reference.verdict(lm.tokenizer, TOKEN, examples[k % len(examples)].label, t) for k, t in enumerate(tokens)
    ]
    assert scores.correct.ravel().tolist() == [correct for correct, _ in expected]
    assert [text for texts in scores.outputs for text in texts] == [output for _, output in expected]
    assert 0 < scores.accuracy.mean() < 1


def test_token_scoring_needs_labels_of_one_token(taught):
    with pytest.raises(UserError, match=r"example 0 \('Paris'\) is \d tokens"):
        evaluate(taught[0], torch.zeros(1, 0, 32), task_of(TOKEN))


def test_an_end_token_that_the_tokenizer_does_not_call_special_ends_a_line(taught):
    lm, prompts = taught
    model, comma = lm.model, lm.encode(",")[0]
    other = FrozenLM(model, lm.tokenizer)
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [before, comma]
    try:
        assert other.end_tokens == {lm.tokenizer.eos_token_id, comma}
        # What is written ends with "," instead of the newline: swap the two in the head.
        swapped = torch.arange(len(lm.tokenizer))
        newline = lm.encode("\n")[0]
        swapped[[comma, newline]] = swapped[[newline, comma]]
        hook = model.get_output_embeddings().register_forward_hook(lambda module, args, logits: logits[..., swapped])
        try:
            scores = evaluate(other, prompts, task_of(LINE), outputs=True)
        finally:
            hook.remove()
    finally:
        model.generation_config.eos_token_id = before
    plain = evaluate(lm, prompts, task_of(LINE), outputs=True)
    assert np.array_equal(scores.correct, plain.correct) and 0 < plain.accuracy.mean() < 1
    assert scores.outputs == plain.outputs


def test_many_prompts_at_once_equal_one_at_a_time_bitwise(taught, monkeypatch):
    lm, _ = taught
    monkeypatch.setattr(lm, "max_tokens", 250)  # so that the prompts take more than one chunk
    prompts = torch.randn(8, 2, 32, generator=torch.Generator().manual_seed(5))
    task = task_of(LINE, [replace(e, label=LABELS[i % 3]) for i, e in enumerate(EXAMPLES)], labels=list(LABELS[:3]))
    together = evaluate(lm, prompts, task)
    for n in range(8):
        alone = evaluate(lm, prompts[n : n + 1], task)
        assert np.array_equal(alone.losses[0], together.losses[n])
        assert np.array_equal(alone.correct[0], together.correct[n])
        assert np.array_equal(alone.label_correct[0], together.label_correct[n])


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_losses_are_the_cross_entropy_of_the_label_and_its_end(taught, length):
    lm, _ = taught
    prompts = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(6))
    task = task_of(LINE)
    scores = evaluate(lm, prompts, task)
    rows = task.rows(lm, EXAMPLES, length)
    with torch.no_grad():
        expected = np.array([[float(reference.row_loss(lm.model, prompt, row)) for row in rows] for prompt in prompts])
    np.testing.assert_allclose(scores.losses, expected, rtol=1e-5, atol=1e-5)
    assert scores.tokens.tolist() == [len(lm.encode(f" {e.label}\n")) for e in EXAMPLES]
    np.testing.assert_allclose(scores.loss, expected.sum(1) / scores.tokens.sum(), rtol=1e-5)


def test_label_accuracy_is_the_likeliest_of_the_label_set(taught):
    lm, prompts = taught
    labels = ["walked", "Paris", "Tokyo"]
    examples = [Example(i, word, labels[i % 3]) for i, word in enumerate(WORDS)]
    task = task_of(LINE, examples, labels)
    scores = evaluate(lm, prompts, task)
    with torch.no_grad():
        for n, prompt in enumerate(prompts):
            for i, example in enumerate(examples):
                rows = task.rows(lm, [replace(example, label=label) for label in labels], 2)
                losses = [float(reference.row_loss(lm.model, prompt, row)) for row in rows]
                assert scores.label_correct[n, i] == (labels[int(np.argmin(losses))] == example.label)
    assert 0 < scores.label_correct.mean() < 1
    assert scores.label_accuracy.tolist() == scores.label_correct.mean(1).tolist()
    assert evaluate(lm, prompts, task_of(LINE, examples)).label_accuracy is None


@pytest.mark.parametrize("shape", [(2, 32), (1, 2, 31), (1, 2, 3, 32)])
def test_prompts_of_another_shape_are_a_user_error(gpt2, shape):
    with pytest.raises(UserError, match=r"\[N, P, 32\] is needed"):
        evaluate(gpt2, np.zeros(shape, np.float32), task_of(LINE))


def test_a_split_without_examples_is_a_user_error(gpt2):
    with pytest.raises(UserError, match="has no validation examples"):
        evaluate(gpt2, torch.zeros(1, 2, 32), task_of(LINE), split="validation")


def test_prompts_may_be_an_array_or_a_tensor_and_are_left_as_they_were(gpt2):
    prompts = np.random.default_rng(0).normal(size=(1, 2, 32)).astype(np.float32)
    before = prompts.copy()
    assert np.array_equal(
        evaluate(gpt2, prompts, task_of(LINE)).losses, evaluate(gpt2, torch.from_numpy(prompts), task_of(LINE)).losses
    )
    assert np.array_equal(prompts, before)


# ------------------------------------------------------------ every label's loss


CLASSES = ["Paris", "walk", "jumped in"]
CHOICES = [Example(i, word, CLASSES[i % 3]) for i, word in enumerate(WORDS)]


@pytest.mark.parametrize("length", [2, 0])
def test_each_labels_loss_is_that_of_a_plain_forward(lm, length):
    task = Task("words", CHOICES, [], CHOICES, LINE, CLASSES, content_free="N/A")
    prompts = torch.randn(2, length, lm.width, generator=torch.Generator().manual_seed(5))
    scores = evaluate(lm, prompts, task)
    original = reference.original(lm.name)

    def loss(n: int, text: str, label: str) -> float:
        ids = [*lm.bos, *(-1 - k for k in range(length)), *lm.encode(f"Input: {text}\nLabel:")]
        with torch.no_grad():
            return float(reference.row_loss(original, prompts[n], reference.row(ids, lm.encode(f" {label}\n"))))

    wanted_NEL = [[[loss(n, word, label) for label in CLASSES] for word in WORDS] for n in range(2)]
    free_NL = np.array([[loss(n, "N/A", label) for label in CLASSES] for n in range(2)])
    np.testing.assert_allclose(scores.label_losses, wanted_NEL, rtol=0, atol=1e-5 * np.mean(wanted_NEL))
    np.testing.assert_allclose(scores.content_free, free_NL, rtol=0, atol=1e-5 * np.mean(wanted_NEL))
    corrected = np.array(wanted_NEL) - free_NL[:, None]
    assert scores.label_choices.tolist() == corrected.argmin(-1).tolist()
    assert (np.array(wanted_NEL).argmin(-1) != corrected.argmin(-1)).any()  # the correction decides some


@pytest.mark.parametrize("shares", [True, False], ids=["tree", "grid"])
@pytest.mark.parametrize("template", [LINE, PREFIX], ids=["line", "prefix"])
def test_a_label_set_changes_nothing_of_what_is_written(taught, template, shares, monkeypatch):
    lm, prompts = taught
    monkeypatch.setattr(lm, "_shares_prefixes", shares)
    plain = evaluate(lm, prompts, task_of(template), outputs=True)
    labelled = evaluate(lm, prompts, task_of(template, labels=list(LABELS)), outputs=True)
    assert labelled.outputs == plain.outputs and np.array_equal(labelled.correct, plain.correct)
    np.testing.assert_allclose(labelled.losses, plain.losses, rtol=1e-5)
    assert np.array_equal(labelled.losses, np.diagonal(labelled.label_losses, axis1=1, axis2=2))


def test_all_labels_of_a_row_cost_one_forward_of_its_text(gpt2, monkeypatch):
    """As a tree: the text once, the labels beside each other; what was right is read from the same forward."""
    positions, label_logits = [], gpt2.label_logits
    monkeypatch.setattr(
        gpt2, "label_logits", lambda *given: positions.append(given[1].ids.numel()) or label_logits(*given)
    )

    def run(labels: list[str] | None) -> int:
        positions.clear()
        evaluate(gpt2, np.zeros((2, 0, gpt2.width)), Task("words", CHOICES, [], CHOICES, LINE, labels))
        return sum(positions)

    of_labels = sum(len(gpt2.encode(f" {label}\n")) for label in CLASSES)
    assert run(CLASSES) <= run(None) + 2 * len(CHOICES) * of_labels
