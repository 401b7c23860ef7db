"""Labels: decided once for a whole column, several accepted answers, values that are no text."""

import json
import logging

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from promptgeo import UserError
from promptgeo.config.schema import Source, SourceKind, Task
from promptgeo.data.files import read_file
from promptgeo.data.sources import read


def own(path, labels: list[str] | None = None, **columns) -> Task:
    return Task(name="custom", source=Source(kind=SourceKind.file, path=str(path), **columns), labels=labels)


def said(task: Task) -> str:
    with pytest.raises(UserError) as error:
        read(task)
    assert "\n" not in str(error.value)
    return str(error.value)


def table(tmp_path, labels: list, ending: str = "json"):
    path = tmp_path / f"my.{ending}"
    rows = [{"input": f"x{i}", "label": label} for i, label in enumerate(labels)]
    if ending == "json":
        path.write_text(json.dumps(rows))
    else:
        frame = pd.DataFrame(rows)
        frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    return path


def labels_of(task: Task) -> list:
    return [pair[1] for pair in read(task)["all"]]


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_a_column_of_numbers_that_fits_as_words_and_as_places_is_refused(tmp_path, ending):
    words = ["1", "2", "3", "4", "5"]
    message = said(own(table(tmp_path, [0, 1, 2, 3, 4], ending), words))
    assert (
        "column 'label' can be read in two ways: 1 as the word '1' of task.labels or as its number, which is '2'"
        in (message)
    )
    assert labels_of(own(table(tmp_path, [1, 2, 5], ending), words)) == ["1", "2", "5"]  # 5 is no place
    assert labels_of(own(table(tmp_path, [0, 1, 2], ending), ["0", "1", "2"])) == ["0", "1", "2"]  # the same either way
    assert labels_of(own(table(tmp_path, [2, 0], ending), ["a", "b", "c"])) == ["c", "a"]


def test_words_and_numbers_in_one_column_are_not_mixed(tmp_path):
    message = said(own(table(tmp_path, ["no", "yes", "1"]), ["no", "yes"]))
    assert "example 3 has the label '1', which is not in task.labels=['no', 'yes']; what the column calls" in message
    assert "example 2" in said(own(table(tmp_path, [0, 7]), ["no", "yes"]))


def test_a_list_of_accepted_answers_trains_the_first_and_keeps_the_others(tmp_path):
    answers = [["Paris", "City of Paris", "Paris"], ["Rome"]]
    for ending in ("json", "parquet"):
        pairs = read(own(table(tmp_path, answers, ending)))["all"]
        assert pairs == [("x0", "Paris", 1, ("City of Paris",)), ("x1", "Rome")]
    for wrong in ([], [""], ["Paris", " "]):
        assert said(own(table(tmp_path, [wrong]))).endswith("example 1 has nothing in column 'label'")
    message = said(own(table(tmp_path, [["no", "yes"], ["no"]]), ["no", "yes"]))
    assert "example 1 has several accepted answers in column 'label': task.labels needs one of each" in message


@pytest.mark.parametrize(
    ("value", "kind"), [({"text": "a"}, "dictionary"), ([["a"]], "list"), ([{"a": 1}], "dictionary")]
)
def test_what_is_no_text_is_named_with_its_column_and_type(tmp_path, value, kind):
    assert said(own(table(tmp_path, [value]))).endswith(
        f"example 1 holds a {kind} in column 'label': a text or a number is needed"
    )


def test_a_list_is_no_input_and_bytes_dates_and_arrays_are_no_text(tmp_path):
    path = tmp_path / "my.parquet"
    for value, kind in (([1.0, 2.0], "list"), (b"abc", "bytes"), (pd.Timestamp("2020-01-01"), "datetime")):
        pd.DataFrame({"input": [value], "label": ["b"]}).to_parquet(path)
        assert f"example 1 holds a {kind} in column 'input': a text or a number is needed" in said(own(path))
    (tmp_path / "my.json").write_text('[{"input": ["a", "b"], "label": "b"}]')
    assert "example 1 holds a list in column 'input'" in said(own(tmp_path / "my.json"))


def test_whole_numbers_beside_nothing_stay_whole_numbers(tmp_path):
    """pandas makes floats of them, which end at 2^53."""
    path = tmp_path / "my.parquet"
    table = pd.DataFrame({"input": ["a", "b"], "label": pd.array([2**53 + 1, None], dtype="Int64")})
    table.to_parquet(path)
    assert read_file(path).rows == [{"input": "a", "label": 2**53 + 1}, {"input": "b", "label": None}]


def test_json_keeps_the_spelling_of_numbers_and_truths(tmp_path):
    path = tmp_path / "my.json"
    written = ["true", "false", "1e3", "1.0", "1E400", "-0", "1" * 5000, "Infinity", "0.10"]
    path.write_text("[" + ",".join(f'{{"input": {text}, "label": {text}}}' for text in written) + "]")
    assert read(own(path))["all"] == [(text, text) for text in written]
    path.write_text('[{"input": NaN, "label": "b"}]')
    assert said(own(path)).endswith("example 1 has nothing in column 'input'")
    pd.DataFrame({"input": [True, False], "label": [1.0, 2.0]}).to_parquet(tmp_path / "my.parquet")
    assert read(own(tmp_path / "my.parquet"))["all"] == [("true", "1"), ("false", "2")]


def test_half_a_character_is_named(tmp_path):
    for column in ("input", "label"):
        path = tmp_path / "my.json"
        path.write_text(json.dumps([{"input": "a", "label": "b"} | {column: "a \ud83d"}]))
        assert f"example 1 holds half a character in column '{column}' (a lone surrogate, \\ud83d)" in said(own(path))


def stars(folder, labels=(0, 1, 1), names=("one star", "two stars"), split="train") -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    rows = {"text": [f"t{i}" for i in range(len(labels))], "label": list(labels)}
    Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}.parquet"))


@pytest.mark.parametrize("kind", [SourceKind.hub, SourceKind.file])
def test_class_names_of_hub_data_are_used(tmp_path, kind, monkeypatch, caplog):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    stars(folder)
    stars(folder, (1, 0), split="test")
    source = Source(kind=kind, path=str(folder), input="text")

    def read_as(labels):
        return [label for _, label in read(Task(name="x", source=source, labels=labels))["train"]]

    assert read_as(None) == ["one star", "two stars", "two stars"]
    assert read_as(["two stars", "one star"]) == ["one star", "two stars", "two stars"]  # in another order
    with caplog.at_level(logging.INFO):
        assert read_as(["bad", "good"]) == ["bad", "good", "good"]  # other words for them
    assert "labels in column 'label': one star -> bad, two stars -> good" in caplog.messages
    assert read_as(["1", "0"]) == ["1", "0", "0"]  # a class is a place, never a word


def test_hidden_labels_are_named(tmp_path):
    for hidden in ([-1, -1, -1], ["-1", "-1", "-1"], [-1.0, -1.0, -1.0]):
        for split, labels in (("train", [0, 1]), ("test", hidden), ("validation", [1, 0])):
            table(tmp_path, labels).rename(tmp_path / f"{split}.json")
        message = said(own(tmp_path))
        assert "every label of test is -1, so they are hidden; name another split, as task.split.test=validation" in (
            message
        )
        task = own(tmp_path, ["no", "yes"])
        task.split.test = "validation"
        assert {split: len(pairs) for split, pairs in read(task).items()} == {"train": 2, "validation": 2}
    (tmp_path / "glue").mkdir()
    stars(tmp_path / "glue")
    stars(tmp_path / "glue", (1, -1), split="test")
    message = said(own(tmp_path / "glue", input="text"))
    assert "example 2 of test has the hidden label -1" in message and "task.split.test=" in message


def test_no_split_that_is_trained_on_is_named_for_hidden_labels(tmp_path):
    for split, labels in (("train", [0, 1]), ("test_matched", [-1, -1]), ("validation_matched", [1, 0])):
        table(tmp_path, labels).rename(tmp_path / f"{split}.json")
    task = own(tmp_path)
    assert said(task).endswith("others are named as task.split.test=validation_matched")
    task.split.test = "test_matched"
    assert said(task).endswith("name another split (that for validation) with task.split.test=")


def test_labels_of_which_some_are_hidden_are_warned_of(tmp_path, caplog):
    def read_with(train: list, test: list) -> list[str]:
        caplog.clear()
        for split, labels in (("train", train), ("test", test)):
            table(tmp_path, labels).rename(tmp_path / f"{split}.json")
        read(own(tmp_path))
        return caplog.messages

    (message,) = read_with([0, 1], [-1, 1, -1])
    assert "2 of 3 labels of test are -1, which no label of training is" in message
    assert read_with([0, -1], [-1, 1]) == read_with([0, 1], [-1, -2]) == []  # it is one of several


@pytest.mark.parametrize("ending", ["json", "parquet"])
@pytest.mark.parametrize("label", [[1.0, 2.5], [1, 2], [True]])
def test_a_list_of_numbers_is_no_list_of_answers(tmp_path, label, ending):
    message = said(own(table(tmp_path, [["a", "b"], label] if ending == "json" else [label, label], ending)))
    assert "holds a list of numbers in column 'label': a label is a text or a number, or a list of texts" in message


def test_a_number_of_copies_beyond_any_model_is_refused(tmp_path):
    path = tmp_path / "my.csv"
    for copies in ("9" * 5000, "10001"):
        path.write_text(f"input,label,k\na,b,{copies}\n")
        assert "a whole number from 1 on is needed" in said(own(path, repeat="k"))


@pytest.mark.parametrize("labels", [["pos", "neg", "neutral"], ["Pos", "Neg"], ["pos"]])
def test_classes_are_not_renamed_by_place_where_names_overlap(labels):
    from promptgeo.data.labels import named

    with pytest.raises(UserError, match="it is not clear which word is which class"):
        named([("example 1", ("0",))], labels, ["neg", "pos"], "here", "label")
    assert named([("example 1", ("0",))], ["bad", "good"], ["neg", "pos"], "here", "label") == [("bad",)]
