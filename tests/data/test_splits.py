"""A source's own splits: kept where there is a test split, named where they are called otherwise; k-shot draws."""

import json
import logging
import os
from collections import Counter

import pytest

from promptgeo import UserError
from promptgeo.config.compose import compose
from promptgeo.config.schema import Source, SourceKind, Split, SplitKind, Template
from promptgeo.config.schema import Task as TaskConfig
from promptgeo.data.tasks import Task, load_task
from promptgeo.training.cell import cell_of

TEMPLATE = Template(name="input_label", text="Input: {input}\nLabel:", end="\n")


def folder(tmp_path, **sizes: int):
    """train.jsonl, ...: inputs "train 0", "train 1", ..."""
    for split, n in sizes.items():
        rows = [{"input": f"{split} {i}", "label": "ab"[i % 2]} for i in range(n)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def load(path, **split) -> Task:
    source = Source(kind=SourceKind.file, path=str(path))
    return Task.load(TaskConfig(name="mine", source=source, split=Split(**split)), TEMPLATE)


def origin(examples) -> Counter:
    return Counter(e.input.split()[0] for e in examples)


def test_a_sources_own_test_split_is_not_trained_on_unless_asked(tmp_path, caplog):
    path = folder(tmp_path, train=20, test=10, validation=5)
    task = load(path)
    assert (origin(task.train), origin(task.validation), origin(task.test)) == (
        {"train": 20},
        {"validation": 5},
        {"test": 10},
    )
    assert task.fingerprint == load(path, kind=SplitKind.own).fingerprint
    assert caplog.messages == []
    mixed = load(path, kind=SplitKind.random)
    assert "test" in origin(mixed.train)
    assert "task mine: task.split.kind=random mixes the source's own test split into training" in caplog.messages


def test_a_column_called_split_is_the_sources_own(tmp_path):
    path = tmp_path / "my.csv"
    parts = ["train"] * 6 + ["test"] * 4
    path.write_text("input,label,split\n" + "".join(f"{part} {i},b,{part}\n" for i, part in enumerate(parts)))
    for kind in (SplitKind.auto, SplitKind.own):
        task = load(path, kind=kind)
        assert (origin(task.train), origin(task.test)) == ({"train": 6}, {"test": 4})
    assert len(load(path, kind=SplitKind.random).train) == 8  # as the first version read such a file
    path.write_text(path.read_text().replace("test\n", "dev\n"))
    assert len(load(path).train) == 8
    assert origin(load(path, test="dev").test) == {"test": 4}


def test_splits_are_named(tmp_path):
    path = folder(tmp_path, train=8, dev=4, eval=6, validation_matched=3)
    task = load(path, train="train+dev", test="eval")
    assert (origin(task.train), origin(task.test)) == ({"train": 8, "dev": 4}, {"eval": 6})
    assert task.validation == []
    task = load(path, test="validation_matched", validation="dev")
    assert (origin(task.train), origin(task.validation), origin(task.test)) == (
        {"train": 8},
        {"dev": 4},
        {"validation_matched": 3},
    )
    assert len(load(path, test="eval", validation=0.25).validation) == 2
    for split, message in (
        ({}, "a folder must hold train and test files .*; others are named as task.split.test=dev"),
        ({"test": "evil"}, r"holds no file evil.\* \(it has dev, eval, train, validation_matched\)"),
        ({"test": "eval", "train": "eval"}, "task.split uses the source's split 'eval' twice"),
        ({"test": "eval", "validation": "eval"}, "twice"),
    ):
        with pytest.raises(UserError, match=message):
            load(path, **split)


def test_the_command_line_names_splits_and_a_fraction_stays_a_fraction(tmp_path):
    path = folder(tmp_path, train=8, dev=4, eval=6)
    named = ("task=custom", f"task.source.path={path}", "task.split.train=train+dev", "task.split.test=eval")
    config = compose([*named, "task.split.validation=0.25"])
    assert config.task.split.validation == 0.25
    assert len(load_task(config.task, config.template).validation) == 3
    assert cell_of(config).config.task.split.kind is SplitKind.own
    for wrong, message in (
        ("task.split.validation=1.5", "task.split.validation=1.5: must be a fraction from 0 to below 1, or the name"),
        ("task.split.validation=[dev]", "task.split.validation="),
        (
            "task.split.kind=random",
            "task.split.train=train\\+dev names a split of the source, which task.split.kind=ran",
        ),
        ("task.split.stratify=true", "task.split.stratify=true needs task.split.max_train="),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            cell_of(compose([*named, wrong]))


def test_what_is_auto_has_the_identity_of_what_it_comes_to(tmp_path):
    line = ("task=custom", f"task.source.path={folder(tmp_path, train=20, test=10)}")
    own, auto, random = (cell_of(compose([*line, f"task.split.kind={kind}"])) for kind in ("own", "auto", "random"))
    assert own.id == auto.id != random.id and auto.config.task.split.kind is SplitKind.own
    (tmp_path / "one").mkdir()
    line = ("task=custom", f"task.source.path={folder(tmp_path / 'one', data=20)}/data.jsonl")
    auto, random = (cell_of(compose([*line, f"task.split.kind={kind}"])) for kind in ("auto", "random"))
    assert random.id == auto.id and auto.config.task.split.kind is SplitKind.random


def test_the_usual_names_written_out_are_the_same_run(tmp_path):
    line = ("task=custom", f"task.source.path={folder(tmp_path, train=20, validation=5, test=10)}")
    names = [f"task.split.{role}={role}" for role in ("train", "validation", "test")]
    assert cell_of(compose([*line, *names])).id == cell_of(compose(line)).id
    assert cell_of(compose([*line, "task.split.train=train+validation"])).id != cell_of(compose(line)).id


def test_a_fraction_beside_the_sources_own_validation_split_is_said_not_to_be_cut(tmp_path, caplog):
    path = folder(tmp_path, train=20, validation=5, test=10)
    task = load(path, validation=0.2)
    assert (len(task.train), len(task.validation)) == (20, 5)
    assert "task.split.validation=0.2 is not cut: the source's own is used" in caplog.text


def test_validation_examples_that_are_asked_for_and_cannot_be_there_are_missed_before_a_model_is_loaded(tmp_path):
    folder(tmp_path, data=20)
    line = ("task=custom", f"task.source.path={tmp_path}/data.jsonl", "evaluation.split=validation")
    with pytest.raises(UserError, match=r"^evaluation.split=validation needs validation examples"):
        cell_of(compose(line))


def test_k_shot_draws_are_balanced_where_asked_and_counted(tmp_path, caplog):
    path = tmp_path / "my.csv"
    words = ["a"] * 60 + ["b"] * 6 + ["c"] * 30
    path.write_text("input,label\n" + "".join(f"x{i},{word}\n" for i, word in enumerate(words)))
    with caplog.at_level(logging.INFO):
        drawn = load(path, kind=SplitKind.all, max_train=12)
        even = load(path, kind=SplitKind.all, max_train=12, stratify=True)
    counts = Counter(e.label for e in drawn.train)
    assert Counter(e.label for e in even.train) == {"a": 4, "b": 4, "c": 4} != counts
    assert "task mine: 12 training examples: 4 'a', 4 'b', 4 'c'" in caplog.messages
    assert f"task mine: 12 training examples: {counts['a']} 'a'" in caplog.messages[0]
    assert [e.id for e in even.train] == sorted(e.id for e in even.train)
    again, other = (load(path, kind=SplitKind.all, max_train=12, stratify=True, seed=seed) for seed in (42, 1))
    assert again.train == even.train != other.train
    held = load(path, kind=SplitKind.random, test_size=0.1, max_train=12, stratify=True, validation=0.5)
    assert Counter(e.label for e in held.train) == Counter(e.label for e in held.validation) == {"a": 2, "b": 2, "c": 2}
    assert not {e.id for e in held.train} & {e.id for e in held.validation}
    rare = load(path, kind=SplitKind.all, max_train=30, stratify=True)
    assert Counter(e.label for e in rare.train) == {"a": 12, "b": 6, "c": 12}


def test_a_column_that_is_all_but_called_split_is_warned_of(tmp_path, caplog):
    path = tmp_path / "my.csv"
    path.write_text("input,label, Split\n" + "".join(f"x{i},b,train\n" for i in range(9)))
    load(path)
    (message,) = caplog.messages
    assert "its column ' Split' is not used: only one that is called 'split' says which" in message


def test_two_folders_of_one_name_are_two_tasks_also_with_links_to_nothing(tmp_path):
    names = set()
    for parent in ("a", "b"):
        (tmp_path / parent / "f").mkdir(parents=True)
        path = folder(tmp_path / parent / "f", train=4, test=2 + (parent == "b"))
        os.symlink("nowhere", path / "notes.csv")
        (path / "more.csv").mkdir()
        names.add(compose(["task=custom", f"task.source.path={path}"]).task.name)
    assert len(names) == 2 and all(name.startswith("f-") for name in names)


def test_an_editors_lock_and_links_to_nothing_are_no_data(tmp_path):
    path = folder(tmp_path, train=4, test=2)
    os.symlink("nobody@nowhere.1234", path / ".#train.jsonl")
    os.symlink("nowhere.csv", path / "notes.csv")
    config = compose(["task=custom", f"task.source.path={path}"])
    assert len(cell_of(config).id) == 64 and len(load_task(config.task, config.template).train) == 4
    os.symlink("nowhere", path / "validation.jsonl")
    with pytest.raises(UserError, match=r"validation.jsonl: no such file"):
        load(path)


def test_two_files_of_one_split_are_refused(tmp_path):
    path = folder(tmp_path, train=4, test=2)
    (path / "train.csv").write_text("input,label\na,b\n")
    with pytest.raises(UserError, match="holds two files called train: keep one"):
        load(path)


@pytest.mark.parametrize("values", [("Train", "Test"), ("train", "dev")])
def test_a_column_split_that_is_not_used_is_named(tmp_path, caplog, values):
    rows = [{"input": f"in {i}", "label": "a", "split": values[i % 2]} for i in range(10)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    load(tmp_path / "mine.json")
    (line,) = [m for m in caplog.messages if "column 'split' is not used" in m]
    assert f"it holds {values[0]}, {values[1]}, and all examples are mixed" in line
    caplog.clear()
    task = load(tmp_path / "mine.json", train=values[0], test=values[1])
    assert len(task.train) == len(task.test) == 5 and not any("not used:" in m for m in caplog.messages)
