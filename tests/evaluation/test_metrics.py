"""Metrics: each by hand; and a new one is one entry of one list, from the evaluation to the table of runs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from promptgeo.config.schema import Scoring
from promptgeo.evaluation.evaluate import Evaluation
from promptgeo.evaluation.metrics import HEADLINE, METRICS
from promptgeo.evaluation.rules import RULES
from promptgeo.runs.folder import METRICS_COLUMNS


def scores(choices: list[list[int]] | None) -> Evaluation:
    """Two prompts, three examples of 1, 2 and 1 label tokens."""
    correct = np.array([[True, False, True], [False, False, False]])
    losses = np.array([[0.5, 1.0, 0.5], [2.0, 4.0, 6.0]])
    labels = None if choices is None else np.array([0, 1, 2])
    return Evaluation(
        correct, losses, np.array([1, 2, 1]), None if choices is None else np.array(choices), None, labels
    )


def test_metrics_are_those_of_their_definitions():
    evaluation = scores([[0, 1, 0], [1, 0, 2]])
    assert {name: values.tolist() for name, values in evaluation.metrics.items()} == {
        "loss": [2 / 4, 12 / 4],  # nats per label token, not per example
        "accuracy": [pytest.approx(2 / 3), 0.0],
        "label_accuracy": [pytest.approx(2 / 3), pytest.approx(1 / 3)],
    }
    assert evaluation.label_correct.tolist() == [[True, True, False], [False, False, True]]
    second = evaluation.of(1)
    assert {name: values.tolist() for name, values in second.metrics.items()} == {
        name: values[1:].tolist() for name, values in evaluation.metrics.items()
    }


def test_a_metric_that_the_task_does_not_support_is_left_out():
    evaluation = scores(None)
    assert (
        list(evaluation.metrics) == ["loss", "accuracy"]
        and evaluation.label_accuracy is None
        and evaluation.label_correct is None
    )
    assert [metric.name for metric in METRICS if metric.needs] == ["label_accuracy"]


def test_every_scoring_has_a_rule_and_every_metric_a_column():
    assert set(RULES) == set(Scoring)
    assert HEADLINE in METRICS_COLUMNS and [m.name for m in METRICS] == METRICS_COLUMNS[3:6]


MACRO_F1 = """
import json
import numpy as np
from promptgeo.evaluation import metrics

def macro_f1(scores):
    if scores.label_choices is None:
        return None
    f1 = []
    for label in np.unique(scores.labels):
        said, true = scores.label_choices == label, scores.labels == label
        f1.append(2 * (said & true).sum(1) / np.maximum(said.sum(1) + true.sum(), 1))
    return np.mean(f1, axis=0)

metrics.METRICS.append(metrics.Metric("macro_f1", macro_f1, needs="a label set", short="F1"))

import promptgeo as pg

overrides = ["training.max_steps=2", "task.split.max_train=8", "task.split.max_test=6", "device=cpu"]
run = pg.train(*overrides, task="sentiment")
last = run.metrics[run.metrics["split"] == "test"].iloc[-1]
table = pg.load_runs("outputs").table
print(json.dumps([run.info["results"]["macro_f1"], last["macro_f1"], table["macro_f1"].tolist()]))
"""


@pytest.mark.long
def test_a_new_metric_is_one_entry(tmp_path):
    """Macro-F1, entered as a contributor would: it reaches metrics.csv, run.json and the table of runs."""
    done = subprocess.run([sys.executable, "-c", MACRO_F1], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, curve, table = json.loads(done.stdout.splitlines()[-1])
    assert set(kept) == {"none", "initial", "final"} and all(0 <= value <= 1 for value in kept.values())
    assert curve == pytest.approx(kept["final"]) and table == [kept["final"]]
