"""The toy rows are what the grammar writes, in SuperGLUE's schemas; their labels follow from the words by one rule."""

import json
from collections import Counter
from itertools import islice

import pytest

from conftest import needs_shared
from promptgeo.config.compose import compose
from promptgeo.data.tasks import load_task
from promptgeo.tiny import grammar
from promptgeo.tiny.grammar import FOLDER, SCHEMAS, SPLITS, rows

PUBLISHED = {"cb": "CB", "rte": "RTE", "copa": "COPA", "wsc": "WSC"}
SO = {
    **dict.fromkeys(("knows", "sees", "proves", "notices"), True),
    **dict.fromkeys(("pretends", "dreams", "imagines", "lies"), False),
}
ALIVE = {"cat", "dog", "bird", "horse", "cow", "fox", "hungry", "tired", "asleep", "awake", "angry", "happy"}
KEEPS = {"buys", "finds", "wins", "keeps", "takes", "borrows"}
CAUSES = {"food", "water", "day", "bus", "snow", "sun", "fish", "map", "look", "fastest", "mood", "badly"}
EFFECTS = {"bread", "milk", "bed", "run", "coat", "window", "doctor", "way", "leg", "prize", "laugh", "up"}


def last(sentence: str) -> str:
    return sentence.rstrip(".").split()[-1]


def truth(name: str, row: dict):
    """The label by the rule, read from the words."""
    if name == "cb":
        so = SO.get(row["premise"].split()[1])
        denied = " not " in row["hypothesis"]
        return "neutral" if so is None else "contradiction" if so is denied else "entailment"
    if name == "rte":
        has = row["hypothesis"].split()[1] in {"has", "owns", "holds"}
        assert row["hypothesis"].split()[1] in {"has", "owns", "holds", "lacks", "misses", "needs"}
        return "entailment" if has == (row["premise"].split()[1] in KEEPS) else "not_entailment"
    if name == "copa":
        ends, asked = [last(row[f"choice{k}"]) for k in (1, 2)], EFFECTS if row["question"] == "effect" else CAUSES
        assert len(CAUSES & set(ends)) == len(EFFECTS & set(ends)) == 1
        (right,) = [k for k in (0, 1) if ends[k] in asked]
        return right
    return (last(row["target"]["span1_text"]) in ALIVE) == (last(row["text"]) in ALIVE)


def test_the_bundled_files_are_what_the_grammar_writes(tmp_path):
    grammar.write(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert files == sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.is_file())
    assert len(files) == 12
    assert all((tmp_path / file).read_bytes() == (FOLDER / file).read_bytes() for file in files)


@pytest.mark.parametrize("name", SCHEMAS)
def test_labels_follow_from_the_words(name):
    some = list(islice(rows(SCHEMAS[name]), 1000))
    assert [row["label"] for row in some] == [truth(name, row) for row in some]
    assert len({json.dumps({**row, "label": None, "idx": None}) for row in some}) == len(some)
    shares = {label: n / len(some) for label, n in Counter(row["label"] for row in some).items()}
    assert shares == (
        {"entailment": 0.4, "contradiction": 0.4, "neutral": 0.2} if name == "cb" else dict.fromkeys(shares, 0.5)
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_toy_task_has_its_splits_and_no_input_twice(name):
    task = load_task(compose([f"task=toy_{name}"]).task, compose([]).template)
    assert [len(part) for part in (task.train, task.validation, task.test)] == list(SPLITS.values()) == [64, 32, 160]
    assert len({example.input for example in task.examples}) == 256
    counts = Counter(example.label for example in task.test)
    most = max(counts.values()) / 160
    assert most == (pytest.approx(0.4, abs=0.01) if name == "cb" else 0.5) and min(counts.values()) >= 32


@pytest.mark.parametrize("name", SCHEMAS)
def test_columns_and_labels_are_those_of_the_published_schema(name):
    with (needs_shared("superglue") / PUBLISHED[name] / "train.jsonl").open(encoding="utf-8") as lines:
        published = [json.loads(line) for line in lines]

    def shape(value):
        return {key: shape(v) for key, v in value.items()} if isinstance(value, dict) else type(value)

    row = next(rows(SCHEMAS[name]))
    assert shape(row) == shape(published[0])
    assert {row["label"] for row in published} <= set(SCHEMAS[name].words)
    if name == "wsc":
        words, target = row["text"].split(), row["target"]
        start, end = target["span1_index"], target["span2_index"]
        assert " ".join(words[start : start + 2]) == target["span1_text"] and words[end] == target["span2_text"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_grammar_and_the_tasks_yaml_agree(name):
    toy, real = (compose([f"task={task}"]).task for task in (f"toy_{name}", name))
    schema = SCHEMAS[name]
    assert toy.source.input == real.source.input == schema.input
    assert toy.labels == real.labels == list(schema.words.values())
    assert (toy.text, toy.accepted, toy.source.classes) == (real.text, real.accepted, real.source.classes)
