"""Accuracies over training: means as loops, and intervals that seeds scored on the same examples do not narrow."""

import numpy as np
import pandas as pd
import pytest

from promptgeo.analysis.questions.curves import _shown, curves
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Number, Result
from promptgeo.runs.folder import METRICS_COLUMNS, Run, Trained, write_run
from promptgeo.runs.table import table_of


def planted(folder, correct_by_cell: dict[tuple[str, str, int], list[bool]]):
    """Runs whose final prompts got these test examples right, by (task, init, seed)."""
    runs = []
    for (task, init, seed), correct in correct_by_cell.items():
        model = {"name": "m", "name_or_path": "m", "revision": None}
        config = {
            "model": model,
            "task": {"name": task},
            "init": {"name": init},
            "template": {"name": "t"},
            "seed": seed,
            "optimizer": {"lr": 0.01},
        }
        mean, n = float(np.mean(correct)), len(correct)
        prompt = np.zeros((1, 2), dtype=np.float32)
        said = [
            {"prompt": which, "id": f"{task}{k}", "correct": bool(c and which == "final")}
            for which in ("none", "final")
            for k, c in enumerate(correct)
        ]
        row = dict.fromkeys(METRICS_COLUMNS, 1) | {"split": "test", "loss": 0.5, "accuracy": mean, "n": n}
        score = {"accuracy": {"final": mean}, "loss": {"final": 0.5}, "n": n, "steps": 10, "prompt_length": 1}
        where = folder / f"{task}-{init}-{seed}"
        header = {"id": where.name, "config": config, "precision": "fp32", "fingerprints": {"model": "f"}}
        write_run(
            where,
            header,
            Trained("completed", prompt, prompt, prompt, prompt[None], np.array([10]), [row], said, score),
        )
        runs.append(Run.load(where))
    return table_of(runs)


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def test_means_over_runs_and_over_tasks_by_hand(tmp_path):
    generator = np.random.default_rng(0)
    cells = {("a", init, seed): list(generator.random(20) < 0.3) for init in ("cat", "dog") for seed in range(3)}
    cells |= {("b", "cat", seed): list(generator.random(7) < 0.9) for seed in range(2)}
    result = curves(planted(tmp_path, cells))
    by_task: dict[str, list[float]] = {}
    by_init: dict[tuple[str, str], list[float]] = {}
    for (task, init, _), correct in cells.items():
        by_task.setdefault(task, []).append(sum(correct) / len(correct))
        by_init.setdefault((task, init), []).append(sum(correct) / len(correct))
    for (task, init), each in by_init.items():
        assert number(result, f"accuracy.{task}.{init}").value == pytest.approx(sum(each) / len(each))
    for task, each in by_task.items():
        assert number(result, f"accuracy.{task}").value == pytest.approx(sum(each) / len(each))
    overall = number(result, "accuracy.all")
    assert overall.value == pytest.approx(sum(sum(each) / len(each) for each in by_task.values()) / 2)
    assert overall.n == 27 and number(result, "accuracy.a").n == 20 and number(result, "accuracy.b.cat").n == 7
    for row in result.numbers:
        assert row.low is None or row.low <= row.value <= row.high, row
    (finding,) = result.findings
    assert finding.estimate == overall.value and "n = 8 runs, 27 test examples" in finding.sentence


def test_seeds_that_get_the_same_examples_right_know_no_more_than_one(tmp_path):
    half = [k % 2 == 0 for k in range(100)]
    result = curves(planted(tmp_path, {("a", "cat", seed): half for seed in range(8)}))
    low, high = wilson(50, 100)
    for quantity in ("accuracy.a.cat", "accuracy.a", "accuracy.all"):
        row = number(result, quantity)
        assert row.n == 100 and row.high - row.low == pytest.approx(high - low, rel=0.1)


def test_runs_that_differ_widen_the_interval(tmp_path):
    result = curves(planted(tmp_path, {("a", "cat", seed): [seed % 2 == 0] * 100 for seed in range(8)}))
    row = number(result, "accuracy.a.cat")
    assert row.value == 0.5 and row.low < 0.25 and row.high > 0.75


def test_figures_are_of_one_split_and_say_which():
    table = pd.DataFrame({"split": ["train", "validation", "test", "validation"], "accuracy": [0.1, 0.2, 0.3, 0.4]})
    split, shown = _shown(table)
    assert (split, shown["accuracy"].tolist()) == ("test", [0.3])
    split, shown = _shown(table[table["split"] != "test"])
    assert (split, shown["accuracy"].tolist()) == ("validation", [0.2, 0.4])
