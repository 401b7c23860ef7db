"""classes: numbers by hand and by scikit-learn, on predictions as run folders hold them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score
from test_analyze import header, trained

import promptgeo as pg
from promptgeo.analysis.questions.classes import classes
from promptgeo.errors import UserError
from promptgeo.runs.folder import write_run

LABELS = ["entailment", "contradiction", "neutral"]
TRUE = [LABELS[k] for k in (0, 0, 0, 0, 0, 0, 1, 1, 1, 2)]


def run(folder, init: str, seed: int, final: list[int], initial: list[int], labelled: bool = True) -> None:
    made, files = header("cb", init, seed), trained(seed)
    rows = [
        {"prompt": prompt, "id": str(k), "label": label, "label_choice": LABELS[choice], "correct": False}
        for prompt, choices in (("initial", initial), ("final", final))
        for k, (label, choice) in enumerate(zip(TRUE, choices, strict=True))
    ]
    labels = {"labels": {"set": LABELS, "most_frequent": LABELS[0], "majority": 0.6}} if labelled else {}
    files = replace(files, predictions=rows, results=files.results | labels)
    write_run(folder / f"{init}{seed}", made | {"fingerprints": {"model": "f", "data": "d"}}, files)


CHOICES = [
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 2],
    [0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
    [0, 0, 0, 0, 2, 2, 1, 1, 1, 2],
]
P0 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.fixture
def runs(tmp_path) -> pg.RunTable:
    for seed, choices in enumerate(CHOICES):
        run(tmp_path, "text", seed, choices, P0)
    return pg.load_runs(tmp_path)


def test_numbers_are_scikit_learns_means_over_runs(runs):
    numbers = {number.quantity: number for number in classes(runs).numbers}
    said = [[LABELS[k] for k in choices] for choices in CHOICES]
    right = np.mean([[a == b for a, b in zip(TRUE, each, strict=True)] for each in said])
    assert numbers["label_accuracy.cb"].value == pytest.approx(right)
    assert numbers["above_majority.cb"].value == pytest.approx(right - 0.6)
    assert numbers["above_p0.cb"].value == pytest.approx(right - 0.6)  # P0 always says the most frequent label
    balanced = np.mean([balanced_accuracy_score(TRUE, each) for each in said])
    assert numbers["balanced_accuracy.cb.text"].value == pytest.approx(balanced)
    recalls = np.mean([recall_score(TRUE, each, labels=LABELS, average=None) for each in said], axis=0)
    for label, recall, n in zip(LABELS, recalls, (6, 3, 1), strict=True):
        number = numbers[f"recall.cb.{label}"]
        assert (number.value, number.n) == (pytest.approx(recall), n)
        assert number.low < number.value < number.high or number.value == number.high == 1


def test_the_confusion_is_scikit_learns_summed_over_runs(runs):
    table = classes(runs).tables["confusion"]
    final = table[table["prompt"] == "final"].set_index(["label", "chosen"])["count"]
    wanted = sum(confusion_matrix(TRUE, [LABELS[k] for k in each], labels=LABELS) for each in CHOICES)
    assert [[final[label, chosen] for chosen in LABELS] for label in LABELS] == wanted.tolist()


def test_a_choice_as_good_as_the_most_frequent_label_is_not_called_better(runs, tmp_path):
    (finding,) = classes(runs).findings
    assert "not shown to differ from the most frequent label's 60.0%" in finding.sentence
    assert "n = 3 runs, 10 test examples" in finding.sentence


def test_two_inits_have_numbers_of_their_own(tmp_path):
    for seed in range(2):
        run(tmp_path, "text", seed, [LABELS.index(label) for label in TRUE], P0)
        run(tmp_path, "vocab", seed, P0, P0)
    numbers = {number.quantity: number.value for number in classes(pg.load_runs(tmp_path)).numbers}
    assert (numbers["label_accuracy.cb.text"], numbers["label_accuracy.cb.vocab"]) == (1, pytest.approx(0.6))
    assert numbers["label_accuracy.cb"] == pytest.approx(0.8)


def test_runs_without_labels_are_left_out_and_said_or_refused(tmp_path):
    run(tmp_path, "text", 0, P0, P0, labelled=False)
    with pytest.raises(UserError, match="no run here has a task with a label set"):
        classes(pg.load_runs(tmp_path))
    run(tmp_path, "text", 1, P0, P0)
    assert classes(pg.load_runs(tmp_path)).omissions == ["classes: 1 of 2 runs have a task without a label set."]
