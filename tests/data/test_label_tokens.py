"""Labels of tokenizers that mark the beginning of every text, and inputs that are cut."""

import pytest

import tokenizers_like
from promptgeo.config.compose import compose
from promptgeo.config.schema import LabelTokens, Template
from promptgeo.data.label_tokens import continuation_ids, label_ids, marks_beginnings, resolved
from promptgeo.data.tasks import Example, Task
from promptgeo.training.cell import cell_of

TEMPLATES = {
    "input_label": Template(name="input_label", text="Input: {input}\nLabel:", end="\n"),
    "study3": Template(name="study3", text="Input: {input}\nLabel: ", label="{label}"),
    "word": Template(name="word", text="Input: {input} is", label=" {label}", end="."),
}
LABELS = ["Paris", "walked", "502", "=b", ": c", "a b", "N'Djamena", ")("]


class Text:
    """A tokenizer as tasks use a model."""

    max_positions, token_limit, bos = None, 1 << 62, ()

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module", params=["llama2", "mistral", "prefix_space"])
def marking(request):
    return Text(tokenizers_like.make(request.param))


@pytest.mark.parametrize("template", TEMPLATES)
def test_input_and_label_are_one_tokenisation_of_the_whole_text_where_the_border_allows(marking, template):
    written = TEMPLATES[template]
    alike = other = 0
    for label in LABELS:
        example = Example(0, "cat", label)
        (row,) = Task("t", [example], [], [], written).rows(marking, [example], 0)
        text = written.text.replace("{input}", "cat")
        answer = written.label.replace("{label}", label) + written.end
        assert row.ids.tolist() == marking.encode(text)
        whole = marking.encode(text + answer)
        if whole[: len(row.ids)] == row.ids.tolist():  # the border allows it
            assert row.label.tolist() == whole[len(row.ids) :], label
            alike += 1
            other += row.label.tolist() != marking.encode(answer)
        # Whatever the border: the text is there, no space is added.
        assert marking.decode([*row.ids.tolist(), *row.label.tolist()]).strip() == (text + answer).strip()
    assert marks_beginnings(marking)
    if template != "study3":  # whose space before the label belongs to the text
        assert alike == len(LABELS)
    if template == "input_label" and marking.tokenizer.backend_tokenizer.normalizer is not None:
        assert other == len(LABELS)  # llama2: alone, every one has a mark more


def test_alone_is_what_the_first_version_did(marking):
    alone = Template(name="study3", text="{input} ", label="{label}", label_tokens=LabelTokens.alone)
    assert label_ids(marking, alone, "walked") == marking.encode("walked")
    assert label_ids(marking, TEMPLATES["study3"], "walked") != marking.encode("walked")
    assert resolved(marking, TEMPLATES["study3"], ["walked"]) is LabelTokens.anchored


def test_a_tokenizer_that_marks_nothing_has_the_tokens_that_it_had(gpt2):
    assert not marks_beginnings(gpt2)
    for text in (" Paris\n", "Paris", "\n\n", ": ", ""):
        assert continuation_ids(gpt2, TEMPLATES["input_label"], text) == gpt2.encode(text)


@pytest.fixture(scope="module")
def marking_folder(model_folders, tmp_path_factory):
    """A random Llama with Llama 2's kind of tokenizer."""
    import shutil

    folder = tmp_path_factory.mktemp("marking") / "llama"
    shutil.copytree(model_folders["llama"], folder)
    tokenizers_like.make("llama2").save_pretrained(folder)
    return folder


def test_only_runs_whose_label_tokens_changed_have_another_identity(marking_folder, model_folders):
    def cell(folder, *overrides):
        return cell_of(compose([f"model.name_or_path={folder}", "task=plus_two", *overrides]))

    marked = cell(marking_folder)
    assert marked.config.template.label_tokens is LabelTokens.anchored
    assert marked.id != cell(marking_folder, "template.label_tokens=alone").id
    plain = [cell(model_folders["llama"], f"template.label_tokens={how}") for how in ("auto", "alone", "anchored")]
    assert len({one.id for one in plain}) == 1 and plain[0].config.template.label_tokens is LabelTokens.alone


@pytest.mark.long
def test_an_input_is_cut_at_a_whole_character(gpt2, model_folders, tmp_path):
    text = "cat é日本語 dog"
    ids = gpt2.encode(text)
    (tmp_path / "my.csv").write_text(f"input,label\n{text},b\n{text},b\n", encoding="utf-8")
    template = TEMPLATES["study3"]
    inside = 0
    for limit in range(1, len(ids)):
        kept = gpt2.decode(ids[:limit])
        example = Example(0, text, "b")
        (row,) = Task("t", [example], [], [], template, max_input_tokens=limit).rows(gpt2, [example], 0)
        written = gpt2.decode(row.ids.tolist())
        assert "\ufffd" not in written and written == f"Input: {kept.rstrip(chr(0xFFFD))}\nLabel: "
        inside += "\ufffd" in kept
    assert inside > 3
    line = [f"model.name_or_path={model_folders['gpt2']}", "task=custom", f"task.source.path={tmp_path}/my.csv"]
    line += ["task.split.test_size=0.5"]
    # Only where it changes something: the identity without the field is the first version's.
    from promptgeo.config.identity import identity
    from promptgeo.data.tasks import load_task
    from promptgeo.model.loading import model_fingerprint

    changed = []
    for limit in range(1, len(ids) + 1):
        cell = cell_of(compose([*line, f"task.max_input_tokens={limit}"]))
        contents = {
            "model": model_fingerprint(str(model_folders["gpt2"]), None, False),
            "data": load_task(cell.config.task, cell.config.template).fingerprint,
        }
        changed.append(cell.id != identity(cell.config, cell.precision, contents))
    assert changed == ["\ufffd" in gpt2.decode(ids[:limit]) for limit in range(1, len(ids) + 1)]


def test_a_run_of_the_first_version_is_analysed_with_the_label_tokens_that_it_was_trained_on(marking_folder, tmp_path):
    from dataclasses import dataclass
    from pathlib import Path

    import reference
    from promptgeo.runs.task import task_of

    @dataclass
    class Folder:
        info: dict
        folder: Path

    line = ("task=plus_two", "template=study3", "prompt.length=2", "evaluation.max_new_tokens=9")
    made = reference.make_plan(marking_folder, tmp_path, *line)
    info = made.header()
    assert info["config"]["template"]["label_tokens"] == "anchored"
    now = task_of(Folder(info, tmp_path))
    del info["config"]["template"]["label_tokens"]
    first = task_of(Folder(info, tmp_path))
    example = now.train[0]
    (row,), (old,) = (task.rows(made.lm, [example], 2) for task in (now, first))
    assert row.label.tolist() == made.train_rows[0].label.tolist()
    assert old.label.tolist() == made.lm.encode(example.label) != row.label.tolist()
