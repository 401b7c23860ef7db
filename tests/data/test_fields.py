"""Inputs of several columns: how they are written, what is cut of them, and which word stands for which class.

SuperGLUE's published rows, where they lie: each becomes an example, as a slow renderer writes it.
"""

import hashlib
import json
from collections import Counter

import pytest

from conftest import make_tokenizer, needs_shared
from promptgeo import UserError
from promptgeo.config.compose import compose
from promptgeo.config.paths import PACKAGE
from promptgeo.config.validate import validate
from promptgeo.data.label_tokens import cut
from promptgeo.data.tasks import Task, load_task

ROWS = [
    {"premise": "It rains {hard}.", "more": {"hypothesis": "It is wet."}, "label": "yes"},
    {"premise": "The sun shines.", "more": {"hypothesis": "It is wet."}, "label": False},
    {"premise": "A dog barks.", "more": {"hypothesis": "An animal is loud."}, "label": 1},
    {"premise": "A cat sleeps.", "more": {"hypothesis": "An animal is loud."}, "label": "NO"},
]
INPUT = "P: {premise} H: {more.hypothesis}"


def own(tmp_path, *overrides: str, rows=ROWS, name: str = "rows.jsonl") -> Task:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    line = [f"task.source.path={path}", "task.split.kind=all", *overrides]
    config = compose(["model=tiny", "task=custom", *line])
    validate(config)
    return load_task(config.task, config.template)


COLUMNS = (f'task.source.input="{INPUT}"', "task.labels=[wrong,right]", "task.source.classes=[no,yes]")


def test_columns_fields_of_dictionaries_and_classes_by_name_number_and_bool(tmp_path):
    rows = [*ROWS[:1], {**ROWS[1], "label": "no"}, *ROWS[2:]]
    task = own(tmp_path, *COLUMNS, rows=rows)
    assert [example.input for example in task.train] == [
        "P: It rains {hard}. H: It is wet.",
        "P: The sun shines. H: It is wet.",
        "P: A dog barks. H: An animal is loud.",
        "P: A cat sleeps. H: An animal is loud.",
    ]
    assert [example.label for example in task.train] == ["right", "wrong", "right", "wrong"]


def test_true_and_false_are_classes(tmp_path):
    line = (COLUMNS[0], "task.labels=[no,yes]", "task.source.classes=['false','true']")
    rows = [{**row, "label": value} for row, value in zip(ROWS, (True, False, "True", 0), strict=True)]
    assert [example.label for example in own(tmp_path, *line, rows=rows).train] == ["yes", "no", "yes", "no"]


def test_further_spellings_are_accepted_of_each_label(tmp_path):
    rows = [{**row, "label": "yes" if k % 2 else "no"} for k, row in enumerate(ROWS)]
    task = own(tmp_path, *COLUMNS, "task.accepted=[['False',No],[]]", rows=rows)
    assert [example.answers for example in task.train[:2]] == [("wrong", "False", "No"), ("right",)]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (('task.source.input="{premise} {nothing}"',), "has no column 'nothing'"),
        (('task.source.input="{premise} {more.nothing}"',), "has no column 'more.nothing'"),
        (('task.source.input="{premise} {more}"',), "holds a dictionary in column 'more'"),
        (("task.source.cut=label",), "task.source.cut=label: must be a column of task.source.input"),
        (("task.source.classes=[no]",), "task.source.classes=['no']: must be as many as task.labels, 2"),
        (("task.accepted=[[No]]",), "must be a list of spellings for each of the 2 labels"),
        (("task.source.classes=[false,true]",), "has the label 'yes' in column 'label': none of"),
        (("task.source.classes=[No,no]",), "must be different names, small and capital letters aside"),
        (("task.source.classes=[x,x]",), "must be different names, small and capital letters aside"),
        (("task.accepted=[[right],[]]",), "'right' is accepted for 'wrong', and is 'right' too"),
        (("task.accepted=[[' right '],[]]",), "' right ' is accepted for 'wrong', and is 'right' too"),
        (("task.accepted=[[perhaps],[perhaps]]",), "'perhaps' is accepted for 'right', and is 'wrong' too"),
        (("task.accepted=[[' '],[]]",), "must be texts that are not blank"),
        (("task.accepted=[[''],[]]",), "must be texts that are not blank"),
    ],
)
def test_what_is_wrong_with_columns_and_classes_is_said_in_a_line(tmp_path, overrides, says):
    with pytest.raises(UserError) as error:
        own(tmp_path, *COLUMNS, *overrides)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("classes", "labels", "says"),
    [
        ("['1','2']", (1, 2, 0, 1), "example 3"),
        ("['-1','1']", (-1, 1, 1, 0), "example 4"),
        ("['.5','1']", (1, 1, 0, 1), "example 3"),
    ],
)
def test_a_number_is_no_place_where_classes_are_numbers(tmp_path, classes, labels, says):
    rows = [{**row, "label": value} for row, value in zip(ROWS, labels, strict=True)]
    with pytest.raises(UserError, match=f"{says} has the label '0' in column 'label': none of task.source.classes"):
        own(tmp_path, *COLUMNS[:2], f"task.source.classes={classes}", rows=rows)


def test_classes_that_are_numbers_are_read_by_name(tmp_path):
    rows = [{**row, "label": value} for row, value in zip(ROWS, (1, 2, 1, 2), strict=True)]
    task = own(tmp_path, *COLUMNS[:2], "task.source.classes=['1','2']", rows=rows)
    assert [example.label for example in task.train] == ["wrong", "right", "wrong", "right"]


def test_a_row_that_lacks_a_column_is_named(tmp_path):
    with pytest.raises(UserError, match=r"rows\.jsonl: example 2 has no column 'label' \(it has premise, more\)"):
        own(tmp_path, *COLUMNS, rows=[ROWS[0], {"premise": "a", "more": {"hypothesis": "b"}}])


def test_an_empty_column_is_named(tmp_path):
    with pytest.raises(UserError, match=r"example 2 has nothing in column 'premise'"):
        own(tmp_path, *COLUMNS, rows=[ROWS[0], {**ROWS[1], "premise": " "}])


def test_one_class_alone_is_refused(tmp_path):
    rows = [{**row, "label": 1} for row in ROWS]
    with pytest.raises(UserError, match=r"all 4 training examples have the label 'right'.*task.split.stratify=true"):
        own(tmp_path, *COLUMNS, rows=rows)


class Words:
    """A tokenizer of which each word, with the space before it, is a token."""

    def encode(self, text: str) -> list[int]:
        self.words = getattr(self, "words", [])
        ids = []
        for word in text.replace(" ", "\0 ").split("\0"):
            if not word:
                continue
            if word not in self.words:
                self.words.append(word)
            ids.append(self.words.index(word))
        return ids

    def decode(self, ids) -> str:
        return "".join(self.words[i] for i in ids)


@pytest.mark.parametrize(("tokens", "kept"), [(7, "a b c d Q: e f"), (6, "a b c Q: e f"), (4, "a Q: e f"), (3, "")])
def test_the_column_that_is_named_is_cut_and_no_other(tokens, kept):
    text = "a b c d Q: e f"
    assert cut(Words(), text, tokens, (0, 7)) == kept


def test_a_part_that_is_cut_leaves_as_many_tokens_as_fit():
    class Lm:
        tokenizer = make_tokenizer()

        def encode(self, text):
            return self.tokenizer.encode(text, add_special_tokens=False)

        def decode(self, ids):
            return self.tokenizer.decode(ids)

    lm = Lm()
    before, part, behind = "Text: ", "The capital of Österreich is 維也納, or Vienna in English. " * 3, " Input: x"
    for tokens in range(8, 90, 3):
        whole = cut(lm, before + part + behind, tokens, (len(before), len(before) + len(part)))
        if not whole:
            assert len(lm.encode(before + behind)) >= tokens
            continue
        assert whole.startswith(before) and whole.endswith(behind) and len(lm.encode(whole)) <= tokens
        assert part.startswith(whole[len(before) : len(whole) - len(behind)])


# The published pair of rotten_tomatoes.


def test_the_published_pair_of_files_has_the_splits_of_the_hubs_copy():
    config = compose(["model=tiny", "task=rotten_tomatoes", f"task.source.path={needs_shared('rotten_tomatoes')}"])
    task = load_task(config.task, config.template)
    # cornell-movie-review-data/rotten_tomatoes on the hub: 8,530, 1,066 and 1,066 rows, half of each positive.
    assert [len(part) for part in (task.train, task.validation, task.test)] == [8530, 1066, 1066]
    for part in (task.train, task.validation, task.test):
        assert [e.label for e in part] == ["positive"] * (len(part) // 2) + ["negative"] * (len(part) // 2)
    assert task.train[0].input.startswith("the rock is destined to be the 21st century's new")
    assert any("é" in example.input for example in task.train)


# SuperGLUE.


def reference(name: str, row: dict) -> tuple[str, str]:
    """(input, label) of a row, written out by hand."""
    if name == "cb":
        return f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}", row["label"]
    if name == "rte":
        label = {"entailment": "entailment", "not_entailment": "not entailment"}[row["label"]]
        return f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}", label
    if name == "copa":
        lines = [f"Premise: {row['premise']}", f"Question: {row['question']}"]
        return "\n".join([*lines, f"choice1: {row['choice1']}", f"choice2: {row['choice2']}"]), (
            "choice1" if row["label"] == 0 else "choice2"
        )
    if name == "wsc":
        spans = row["target"]
        text = f"Text: {row['text']}\nspan1_text: {spans['span1_text']}\nspan2_text: {spans['span2_text']}"
        return text, str(row["label"]).lower()
    if name == "boolq":
        return f"Passage: {row['passage']}\nQuestion: {row['question']}", "yes" if row["label"] else "no"
    text = f"Word: {row['word']}\nSentence1: {row['sentence1']}\nSentence2: {row['sentence2']}"
    return text, "yes" if row["label"] else "no"


SUPERGLUE = {"cb": "CB", "rte": "RTE", "copa": "COPA", "wsc": "WSC", "boolq": "BoolQ", "wic": "WiC"}
PUBLISHED = {
    "cb": [
        "78bf7b9685a9df76dc17e140b833a7a5824cba999ad2553dd931ed7c6a3e4515",
        "37ba44c00e4b7a917cf8babe9364eeb15433c5ccda22e2a465e9e1a0d2a3ff4d",
    ],
    "rte": [
        "ddac4392336bc8f3f8a8bf010cfa4b59bcbe2230d249638a804f8eec50bfcd6c",
        "6593fc430ea6c91bfc1eca2f8b9cb796713a6951b0e8cb7595062a0b113d63aa",
    ],
    "copa": [
        "6219fcb5a90c56b3a97ba5f41eb80fa53288ede24ef6fbd78e1001406ccf11b1",
        "101179284409e4c298b27d8125f2873b74068d810484ded6a486cb3df866a87f",
    ],
    "wsc": [
        "1752e4080d6d91977238551818995ec99dc2927268805e6a154d3234a12f30bb",
        "e354487d120d94fa85c4a2ba3027d0edb49a4924b9a28e4b278e9bb6dcf079be",
    ],
    "boolq": [
        "ab2b98441b8373f82e5b562aa9c945428ce02943fad4012846f1991558e6e02b",
        "024ec68880ae676059ca322b3035c3578ebbc7acd49e61799381a0a0022e5a54",
    ],
    "wic": [
        "17cddb20b9d41ed81cec6e90bf5d61245fd2b004b4fe648269aff75238677c66",
        "71151eb084f83990396394e16be26b4f674e1becc6354502adc1238d39292990",
    ],
}
"""SHA-256 of the first training and the first test row as input and label, a newline between them."""


def superglue(name: str, *overrides: str) -> Task:
    folder = needs_shared("superglue")
    pooled = ("task.split.train=train+dev32", "task.split.validation=0.5", "task.split.stratify=true")
    config = compose(["model=tiny", f"task={name}", f"task.source.folder={folder}", *pooled, *overrides])
    validate(config)
    return load_task(config.task, config.template)


@pytest.mark.parametrize("name", SUPERGLUE)
def test_every_published_row_becomes_an_example_as_it_is_written_by_hand(name):
    task, folder = superglue(name), needs_shared("superglue") / SUPERGLUE[name]
    files = {part: (folder / f"{part}.jsonl").read_text(encoding="utf-8") for part in ("train", "dev32", "val")}
    rows = {part: [json.loads(line) for line in text.split("\n") if line] for part, text in files.items()}
    assert [(e.input, e.label) for e in task.test] == [reference(name, row) for row in rows["val"]]
    pooled = Counter(reference(name, row) for part in ("train", "dev32") for row in rows[part])
    assert Counter((e.input, e.label) for e in task.train + task.validation) == pooled
    of_train, of_validation = (Counter(e.label for e in part) for part in (task.train, task.validation))
    assert all(abs(of_train[label] - of_validation[label]) <= 1 for label in task.labels)
    first = [reference(name, rows[part][0]) for part in ("train", "val")]
    found = [hashlib.sha256("\n".join(pair).encode()).hexdigest() for pair in first]
    assert found == PUBLISHED[name]


def test_the_published_rows_are_all_there():
    tasks = [superglue(name) for name in SUPERGLUE]
    assert sum(len(task.examples) for task in tasks) == 4829


def test_wsc_has_one_class_in_its_few_rows_which_is_refused():
    with pytest.raises(UserError, match=r"task wsc: all 32 training examples have the label 'true'"):
        superglue("wsc", "task.split.train=train", "task.split.validation=dev32", "task.split.stratify=false")


def test_record_is_refused_in_a_line():
    with pytest.raises(UserError, match=r"^task=record: its answers are spans .*, and there is no label set"):
        validate(compose(["model=tiny", "task=record"]))


TOY = {
    "cb": (
        "Premise: Kim imagines that the house is red.\nHypothesis: The house is red.",
        "contradiction",
    ),
    "rte": (
        "Premise: Ida takes the big water.\nHypothesis: Ida needs the water.",
        "not entailment",
    ),
    "copa": (
        "Premise: Sam won the race on Tuesday.\nQuestion: effect\nchoice1: Sam was the fastest.\n"
        "choice2: Sam got a prize.",
        "choice2",
    ),
    "wsc": (
        "Text: The table is behind the horse because it is tired.\nspan1_text: the horse\nspan2_text: it",
        "true",
    ),
}
"""The first test row of each bundled toy task."""
TOY_DIGESTS = {
    "cb": "57967a23100e6f32c1d1602ed78ecd84e4226983be69958cffe7d4fdb5c8d86b",
    "rte": "43a14e7571d1fa51ddbba9d5045fd38f2eadbdb25a3d9be0b3c689ae202e8123",
    "copa": "2acf3c667af33ec3bf59614c1cadffa54819cf66cf2870afe8ab07ade7b2646b",
    "wsc": "6f6052e35d3dec277449c7450c5f59c00cd5bdc231a6e58faeb32faec2140847",
}
"""SHA-256 of all its rows, train, validation, test: input and label, a newline between any two."""


@pytest.mark.parametrize("name", TOY)
def test_every_bundled_toy_row_becomes_an_example_as_it_is_written_by_hand(name):
    config = compose([f"task=toy_{name}"])
    validate(config)
    task = load_task(config.task, config.template)
    folder = PACKAGE / "data" / "bundled" / "toy_superglue" / SUPERGLUE[name]
    for part in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [(e.input, e.label) for e in getattr(task, part)] == [reference(name, row) for row in rows]
    assert (task.test[0].input, task.test[0].label) == TOY[name]
    lines = "\n".join(text for e in task.examples for text in (e.input, e.label))
    assert hashlib.sha256(lines.encode()).hexdigest() == TOY_DIGESTS[name]


def test_stopping_on_the_test_rows_is_a_key():
    task = superglue("cb", "task.split.validation=0", "task.split.stratify=false", "task.split.stop_on_test=true")
    assert task.validation == task.test and len(task.test) == 56 and len(task.train) == 64
    with pytest.raises(UserError, match=r"task.split.stop_on_test=true and task.split.validation=0.5: both say"):
        superglue("cb", "task.split.stop_on_test=true")


def test_a_benchmarks_file_for_validation_is_named_by_the_key_that_was_set(tmp_path):
    (tmp_path / "CB").mkdir()
    for part in ("train", "val"):
        rows = [
            {"premise": f"{part} {k}", "hypothesis": "b", "label": ("entailment", "neutral")[k % 2]} for k in range(4)
        ]
        (tmp_path / "CB" / f"{part}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    for validation, says in (
        ("val", r"task.source.folder=.*CB: its val\.\* is the split validation.*set task.split.stop_on_test=true"),
        ("dev32", r"task.source.folder=.*CB: holds no file dev32\.\* \(it has train, validation\)"),
    ):
        line = ["model=tiny", "task=cb", f"task.source.folder={tmp_path}", f"task.split.validation={validation}"]
        config = compose(line)
        with pytest.raises(UserError, match=says):
            load_task(config.task, config.template)
