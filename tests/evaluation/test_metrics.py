"""Metrics: each by hand; and a new one is one entry of one list, from the evaluation to the table of runs."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn.metrics

from promptgeo.config.schema import Scoring, Template
from promptgeo.data.tasks import Example, Task
from promptgeo.evaluation import metrics
from promptgeo.evaluation.evaluate import Evaluation, majority_accuracy
from promptgeo.evaluation.metrics import HEADLINE, METRICS, confusion
from promptgeo.evaluation.rules import RULES
from promptgeo.runs.folder import METRICS_COLUMNS

TEMPLATE = Template(name="t", text="{input}", end="\n")


def scores(choices: list[list[int]] | None) -> Evaluation:
    """Two prompts, three examples of 1, 2 and 1 label tokens."""
    correct = np.array([[True, False, True], [False, False, False]])
    losses = np.array([[0.5, 1.0, 0.5], [2.0, 4.0, 6.0]])
    labels = None if choices is None else np.array([0, 1, 2])
    label_losses = None if choices is None else 1.0 - np.eye(3)[np.array(choices)]
    return Evaluation(correct, losses, np.array([1, 2, 1]), label_losses, None, labels)


def test_metrics_are_those_of_their_definitions():
    evaluation = scores([[0, 1, 0], [1, 0, 2]])
    assert {name: values.tolist() for name, values in evaluation.metrics.items()} == {
        "loss": [2 / 4, 12 / 4],  # nats per label token, not per example
        "accuracy": [pytest.approx(2 / 3), 0.0],
        "label_accuracy": [pytest.approx(2 / 3), pytest.approx(1 / 3)],
        "balanced_accuracy": [pytest.approx(2 / 3), pytest.approx(1 / 3)],
        "macro_f1": [pytest.approx((2 / 3 + 1) / 3), pytest.approx(1 / 3)],
    }
    assert evaluation.label_correct.tolist() == [[True, True, False], [False, False, True]]
    second = evaluation.of(1)
    assert {name: values.tolist() for name, values in second.metrics.items()} == {
        name: values[1:].tolist() for name, values in evaluation.metrics.items()
    }


def test_of_losses_that_are_nan_no_label_is_the_likeliest_and_none_is_right():
    whole = scores([[0, 1, 2], [0, 1, 2]])
    label_losses = whole.label_losses.copy()
    label_losses[0, 1], label_losses[1] = np.nan, np.nan
    broken = Evaluation(whole.correct, whole.losses, whole.tokens, label_losses, None, whole.labels)
    assert broken.label_choices.tolist() == [[0, -1, 2], [-1, -1, -1]]
    assert broken.label_correct.tolist() == [[True, False, True], [False, False, False]]
    assert confusion(broken).sum((1, 2)).tolist() == [2, 0]
    values = {name: broken.metrics[name].tolist() for name in ("label_accuracy", "balanced_accuracy", "macro_f1")}
    assert values == {name: [pytest.approx(2 / 3), 0.0] for name in values}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (lambda scores: scores.losses[7], "metric own: IndexError: index 7 is out of bounds"),
        (lambda scores: scores.losses, r"metric own: gives shape \(2, 3\), and \(2,\) is needed"),
        (lambda scores: 0.5, r"metric own: gives shape \(\), and \(2,\) is needed"),
    ],
)
def test_a_metric_that_fails_or_gives_no_number_of_each_prompt_is_named(monkeypatch, of, said):
    monkeypatch.setattr(metrics, "METRICS", [*METRICS, metrics.Metric("own", of)])
    with pytest.raises(RuntimeError, match=said):
        _ = scores(None).metrics


def test_a_metric_that_the_task_does_not_support_is_left_out():
    evaluation = scores(None)
    assert (
        list(evaluation.metrics) == ["loss", "accuracy"]
        and evaluation.label_accuracy is None
        and evaluation.label_correct is None
    )
    of_labels = ["label_accuracy", "balanced_accuracy", "macro_f1"]
    assert [metric.name for metric in METRICS if metric.needs] == [*of_labels, "tokens_right", "tokens_recited"]


def test_every_scoring_has_a_rule_and_every_metric_a_column():
    assert set(RULES) == set(Scoring)
    assert HEADLINE in METRICS_COLUMNS and [m.name for m in METRICS] == METRICS_COLUMNS[3:10]


WORST_LABEL = """
import json
import numpy as np
from promptgeo.evaluation import metrics

def worst_label(scores):
    if scores.label_choices is None:
        return None
    right = scores.label_choices == scores.labels
    return np.min([right[:, scores.labels == label].mean(1) for label in np.unique(scores.labels)], axis=0)

metrics.METRICS.append(metrics.Metric("worst_label", worst_label, needs="a label set", short="worst"))

import promptgeo as pg

overrides = ["training.max_steps=2", "task.split.max_train=8", "task.split.max_test=6", "device=cpu"]
run = pg.train(*overrides, task="sentiment")
last = run.metrics[run.metrics["split"] == "test"].iloc[-1]
table = pg.load_runs("outputs").table
print(json.dumps([run.info["results"]["worst_label"], last["worst_label"], table["worst_label"].tolist()]))
"""


@pytest.mark.long
def test_a_new_metric_is_one_entry(tmp_path):
    """The accuracy of the worst label, as contributors would add it: in metrics.csv, run.json and the table of runs."""
    done = subprocess.run([sys.executable, "-c", WORST_LABEL], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, curve, table = json.loads(done.stdout.splitlines()[-1])
    assert set(kept) == {"none", "initial", "final"} and all(0 <= value <= 1 for value in kept.values())
    assert curve == pytest.approx(kept["final"]) and table == [kept["final"]]


@pytest.mark.parametrize("seed", range(20))
def test_what_a_classifier_owes_equals_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    classes, n = int(generator.integers(2, 5)), int(generator.integers(3, 40))
    labels = generator.integers(0, classes, n)
    losses = generator.normal(size=(3, n, classes))
    free = generator.normal(size=(3, classes)) if seed % 2 else None
    right = np.zeros((3, n), dtype=bool)
    scored = Evaluation(right, np.zeros((3, n)), np.ones(n, int), losses, None, labels, free)
    counts = confusion(scored)
    for k in range(3):
        chosen = (losses[k] - (0 if free is None else free[k])).argmin(1)
        assert scored.label_choices[k].tolist() == chosen.tolist()
        expected = sklearn.metrics.confusion_matrix(labels, chosen, labels=range(classes))
        assert counts[k].tolist() == expected.tolist()
        f1 = sklearn.metrics.f1_score(labels, chosen, average="macro")
        assert scored.metrics["macro_f1"][k] == pytest.approx(f1, abs=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are chosen and do not occur
            balanced = sklearn.metrics.balanced_accuracy_score(labels, chosen)
        assert scored.metrics["balanced_accuracy"][k] == pytest.approx(balanced, abs=1e-12)
        assert scored.of(k).label_choices[0].tolist() == chosen.tolist()


def test_the_majority_is_that_of_training():
    def examples(*labels):
        return [Example(k, f"input {k}", label) for k, label in enumerate(labels)]

    task = Task("t", examples("b", "b", "a"), [], examples("a", "b", "a", "a"), TEMPLATE, ["a", "b"])
    assert majority_accuracy(task, "test") == 0.25 and majority_accuracy(task, "train") == pytest.approx(2 / 3)
    even = Task("t", examples("b", "a"), [], examples("a", "b", "a", "a"), TEMPLATE, ["a", "b"])
    assert majority_accuracy(even, "test") == 0.75
