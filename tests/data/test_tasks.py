"""Examples and their splits: as published, as datasets splits, and never one example on two sides."""

import hashlib
import logging

import pytest

from conftest import needs_shared
from promptgeo import UserError
from promptgeo.config.compose import compose
from promptgeo.config.schema import Source, SourceKind, Split, SplitKind, Template
from promptgeo.config.schema import Task as TaskConfig
from promptgeo.data.splits import split_examples, train_test_split
from promptgeo.data.tasks import Example, Task, load_task

TEMPLATE = Template(name="input_label", text="Input: {input}\nLabel:", end="\n")


def examples(n: int, start: int = 0) -> list[Example]:
    return [Example(i, f"in {i}", f"out {i}") for i in range(start, start + n)]


def ids(split: list[Example]) -> list[int]:
    return [e.id for e in split]


def loaded(tmp_path, text: str, split: Split | None = None, labels: list[str] | None = None) -> Task:
    path = tmp_path / "my.csv"
    path.write_text("input,label\n" + text)
    source = Source(kind=SourceKind.file, path=str(path))
    return Task.load(TaskConfig(name="mine", source=source, split=split or Split(), labels=labels), TEMPLATE)


# The table of ../shared/data/README.md: train / test, digest of the test inputs, first test input.
PUBLISHED = {
    "capitalize_first_letter": (650, 163, "28ef2f01f73c4897", "mirror"),
    "lowercase_first_letter": (651, 163, "2438641711a1a0cb", "MYSELF"),
    "country_capital": (157, 40, "18beba80cfe8e639", "Saint Lucia"),
    "landmark_country": (668, 168, "b25a7506c118da40", "Teshie"),
    "present_past": (234, 59, "ab6e0019f0aa8fa5", "travel"),
    "singular_plural": (164, 41, "0a616d35afd36303", "forest"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_data_gives_the_published_split(name):
    folder = needs_shared("function_vectors")
    config = compose([f"task={name}", "task.source.kind=function_vectors", f"task.source.path={folder}"])
    task = load_task(config.task, config.template)
    digest = hashlib.sha256("\n".join(e.input for e in task.test).encode()).hexdigest()[:16]
    assert (len(task.train), len(task.test), digest, task.test[0].input) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("n", "size", "seed"),
    [(2, 0.5, 0), (5, 0.2, 42), (10, 0.25, 1), (197, 0.2, 42), (293, 0.1, 7), (814, 1 / 3, 42), (1000, 0.999, 42)],
)
def test_our_split_is_that_of_datasets(n, size, seed):
    from datasets import Dataset

    theirs = Dataset.from_dict({"id": list(range(n))}).train_test_split(test_size=size, seed=seed)
    train, test = train_test_split(examples(n), size, seed, "key")
    assert (ids(train), ids(test)) == (theirs["train"]["id"], theirs["test"]["id"])


def test_a_split_that_leaves_one_side_empty_names_its_key():
    for n, size in ((1, 0.5), (4, 0.99)):
        with pytest.raises(
            UserError, match=rf"^task x: task.split.test_size={size}: leaves 0 training and {n} other examples of {n}$"
        ):
            split_examples({"all": examples(n)}, Split(test_size=size), "x")
    with pytest.raises(
        UserError, match=r"^task x: task.split.validation=0.9: leaves 0 training and 4 other examples of 4$"
    ):
        split_examples({"all": examples(5)}, Split(test_size=0.2, validation=0.9), "x")


def test_a_validation_split_is_cut_from_train_and_leaves_test_as_it_was():
    table = {"all": examples(100)}
    train, none, test = split_examples(table, Split(), "x")
    less, validation, same = split_examples(table, Split(validation=0.25), "x")
    assert none == [] and same == test and (len(test), len(less), len(validation)) == (20, 60, 20)
    assert sorted(ids(less + validation)) == sorted(ids(train))
    assert not set(ids(validation)) & set(ids(test))


def test_a_sources_own_splits_are_kept_and_its_validation_too():
    table = {"train": examples(10), "test": examples(4, 10), "validation": examples(3, 14)}
    own = Split(kind=SplitKind.own)
    assert split_examples(table, own, "x") == (table["train"], table["validation"], table["test"])
    assert split_examples(table, Split(kind=SplitKind.own, validation=0.5), "x")[1] == table["validation"]
    del table["validation"]
    train, validation, test = split_examples(table, Split(kind=SplitKind.own, validation=0.2), "x")
    assert (len(train), len(validation), test) == (8, 2, table["test"])
    assert sorted(ids(train + validation)) == list(range(10))
    with pytest.raises(
        UserError, match=r"^task x: task.split.kind=own, but the source has no train and test splits \(it has all\)$"
    ):
        split_examples({"all": examples(3)}, own, "x")


def test_all_trains_and_tests_on_every_example_but_never_validates_on_what_it_trained():
    table = {"all": examples(10)}
    assert split_examples(table, Split(kind=SplitKind.all), "x") == (table["all"], [], table["all"])
    train, validation, test = split_examples(table, Split(kind=SplitKind.all, validation=0.2), "x")
    assert (len(train), len(validation), ids(test)) == (8, 2, list(range(10)))
    assert not set(ids(train)) & set(ids(validation))


def test_max_train_and_max_test_keep_a_drawn_part_of_what_there_was():
    table = {"train": examples(50), "test": examples(50, 50)}
    train, _, test = split_examples(table, Split(kind=SplitKind.own, max_train=10, max_test=60), "x")
    assert len(train) == 10 and test == table["test"]
    assert ids(train) == sorted(ids(train)) and ids(train) != list(
        range(10)
    )  # drawn, not the first: a source may be sorted by label
    assert split_examples(table, Split(kind=SplitKind.own, max_train=10), "x")[0] == train
    assert split_examples(table, Split(kind=SplitKind.own, max_train=10, seed=1), "x")[0] != train
    fewer, validation, _ = split_examples(table, Split(kind=SplitKind.own, max_train=10, validation=0.2), "x")
    assert sorted(ids(fewer + validation)) == ids(train)


def test_inputs_in_both_train_and_test_are_warned_of_and_counted(tmp_path, caplog):
    twice = "".join(f"in {i},out\n" * 2 for i in range(20))
    with caplog.at_level(logging.WARNING):
        task = loaded(tmp_path, twice)
    both = {e.input for e in task.train} & {e.input for e in task.test}
    assert len(both) > 2
    assert caplog.messages == [
        f"task mine: {len(both)} inputs occur in both train and test, for instance {min(both)!r}"
    ]
    caplog.clear()
    loaded(tmp_path, twice, Split(kind=SplitKind.all))  # asked for
    loaded(tmp_path, "".join(f"in {i},out\n" for i in range(20)))
    assert caplog.messages == []


def test_examples_are_numbered_by_their_place_in_the_source(tmp_path):
    task = loaded(tmp_path, "".join(f"in {i},out {i}\n" for i in range(10)))
    assert {e.id: (e.input, e.label) for e in task.train + task.test} == {i: (f"in {i}", f"out {i}") for i in range(10)}


def test_the_fingerprint_is_the_datas(tmp_path):
    text = "".join(f"in {i},out {i % 2}\n" for i in range(10))
    same = {loaded(tmp_path, text).fingerprint, loaded(tmp_path, text).fingerprint}
    others = {
        loaded(tmp_path, text.replace("in 3", "in x")).fingerprint,
        loaded(tmp_path, text.replace("in 3,out 1", "in 3,out 0")).fingerprint,
        loaded(tmp_path, text, Split(seed=1)).fingerprint,
        loaded(tmp_path, text, Split(validation=0.2)).fingerprint,
        loaded(tmp_path, text, labels=["out 0", "out 1"]).fingerprint,
    }
    assert len(same) == 1 and len(others) == 5 and not same & others


def test_a_file_edited_in_a_running_session_is_read_again(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("input,label\na,b\nc,d\n")
    config = compose(["task=custom", f"task.source.path={path}"])
    before = load_task(config.task, config.template)
    assert load_task(config.task, config.template) is before
    path.write_text("input,label\na,b\nc,d\ne,f\n")
    edited = load_task(config.task, config.template)
    assert len(edited.train) == 2 and edited.fingerprint != before.fingerprint
