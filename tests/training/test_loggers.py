"""What loggers show of runs: W&B offline, read back with its own reader; TensorBoard by TensorBoard's own code."""

import csv
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import SMALL, cli, model, runs_below  # noqa: F401 - fixtures

import promptgeo as pg
from promptgeo.runs import wandb_run
from promptgeo.runs.wandb_run import unsent
from promptgeo.training import projector
from promptgeo.training.run_state import RunState
from wandb_records import records_below, summary_of, table_of

GRID = (
    "training.epochs=2",
    "training.max_steps=4",
    "task.split.max_test=8",
    "task=plus_two,sentiment",
    "init=cat,normal,dog",
    "-m",
    "seed=4",
)
TABLES = ("predictions", "nearest_tokens", "confusion_matrix_table")


@pytest.fixture
def offline(monkeypatch) -> None:
    """As where W&B was never used: no key, an empty home folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_HOST", "WANDB_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    wandb_run._warn_once.cache_clear()  # what is said once is said once in a process
    Path("home").mkdir()
    monkeypatch.setenv("HOME", str(Path("home").absolute()))


def nearest_by_hand(vocabulary_Vd: np.ndarray, vector_d: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest cosine to a vocabulary token, and all tokens by falling cosine."""
    norms_V = np.linalg.norm(vocabulary_Vd, axis=1) * np.linalg.norm(vector_d)
    cosines_V = vocabulary_Vd.astype(np.float64) @ vector_d.astype(np.float64) / norms_V
    return cosines_V.max(), np.argsort(-cosines_V, kind="stable")


def break_one(monkeypatch) -> None:
    """From its third step on, the run of plus_two and dog fails."""
    real = RunState.next_minibatch

    def broken(state: RunState) -> list[int]:
        config = state.plan.config
        if (config.task.name, config.init.name) == ("plus_two", "dog") and state.step >= 2:
            raise FileNotFoundError("/home/somebody/rows")
        return real(state)

    monkeypatch.setattr(RunState, "next_minibatch", broken)


@pytest.mark.long
@pytest.mark.parametrize("failing", [0, 1])
def test_a_packed_sweep_is_in_wandb_as_its_run_folders_have_it(cli, model, offline, monkeypatch, failing):  # noqa: F811
    if failing:
        break_one(monkeypatch)
    outcome = cli(*model, *SMALL, *GRID, "name=followed", "logger=wandb", "training.checkpoints=1")
    assert outcome.status == failing, outcome.err
    assert outcome.out.count("no API key here, so runs are logged offline") == 1
    assert "left out" not in outcome.out
    logged = records_below(Path("outputs/followed"))
    runs = [pg.Run.load(folder) for folder in runs_below(Path("outputs"))]
    assert len(runs) == 6 and set(logged) == {run.id[:16] for run in runs}
    statuses = [run.status for run in runs]
    assert (statuses.count("completed"), statuses.count("failed")) == (6 - failing, failing)
    lm = pg.FrozenLM.load(model[0].partition("=")[2], device="cpu")
    for run in runs:
        folder, records = logged[run.id[:16]]
        _identity_is_right(run, records)
        _curves_are_those_of_metrics_csv(run, records)
        _tokens_are_the_nearest(run, table_of(folder, records, "nearest_tokens"), lm)
        summary = summary_of(records)
        assert summary["status"] == run.status
        if run.status == "failed":
            assert summary["error"] == "FileNotFoundError"
            assert b"/home/somebody" not in b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
            assert not any(key.startswith(("predictions", "accuracy_", "confusion")) for key in summary)
            continue
        assert "error" not in summary
        # Flat: what is not a number or a text of its own is one of the three tables.
        ours = {key: v for key, v in summary.items() if key.partition(".")[0] not in (*TABLES, "_wandb")}
        assert not any("." in key or isinstance(v, dict | list) for key, v in ours.items())
        for metric in ("accuracy", "loss"):
            for which, value in run.info["results"][metric].items():
                assert summary[f"{metric}_{which}"] == pytest.approx(value, rel=1e-12)
        rows = table_of(folder, records, "predictions")
        assert [row["prompt"] for row in rows] == ["final"] * 8 + ["initial"] * 8 + ["none"] * 8
        expected = [{"label_choice": None} | row for row in run.predictions]
        kept = ("prompt", "input", "label", "output", "correct", "label_choice")
        assert Counter(map(_row, rows)) == Counter(_row({k: row[k] for k in kept}) for row in expected)
        _confusion_is_counted(run, folder, records)
    # W&B keeps no copy of a table or a prompt elsewhere.
    assert not [path for path in Path("home").rglob("*") if path.is_file() and "logs" not in path.parts]


def _row(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def _identity_is_right(run: pg.Run, records: list[dict[str, Any]]) -> None:
    (record,) = [record["run"] for record in records if record["type"] == "run"]
    config = run.info["config"]
    assert (record["run_group"], record["job_type"]) == ("followed", "train")
    assert record["display_name"] == f"task={config['task']['name']} init={config['init']['name']}"
    # Nothing of the machine, the interpreter or the command.
    assert not record.get("host") and not any("environment" in json.dumps(r)[:60] for r in records)
    assert record["tags"] == ["rand", config["task"]["name"], config["init"]["name"]]
    update = record["config"]["update"]
    assert update["optimizer"] == config["optimizer"] and update["seed"] == 4
    (artifact,) = [r["artifact"] for r in records if r["type"] == "artifact"]
    assert artifact["type"] == "soft-prompt" and run.folder.name in artifact["name"]
    assert artifact["manifest"]["contents"][0]["path"] == "prompts.safetensors"
    assert records[-1]["type"] == "exit" and records[-1]["exit"].get("exit_code", 0) == (run.status == "failed")


def _curves_are_those_of_metrics_csv(run: pg.Run, records: list[dict[str, Any]]) -> None:
    with (run.folder / "metrics.csv").open(newline="") as stream:
        expected = [{k: v for k, v in row.items() if v} for row in csv.DictReader(stream)]
    history = [r["history"]["item"] for r in records if r["type"] == "history"]
    curves = [item for item in history if "nearest_tokens._type" not in item]
    assert len(history) == len(curves) + 1 and len(curves) == len(expected) >= 2
    for item, row in zip(curves, expected, strict=True):
        split = row.pop("split")
        found_row = {k.removeprefix(f"{split}/"): v for k, v in item.items() if not k.startswith("_")}
        assert {"prompt_norm", "distance_to_p0"} <= set(found_row)
        assert {k: float(v) for k, v in found_row.items()} == pytest.approx(
            {k: float(v) for k, v in row.items()}, rel=1e-8
        )


def _tokens_are_the_nearest(run: pg.Run, rows: list[dict[str, Any]], lm: pg.FrozenLM) -> None:
    vocabulary_Vd = lm.vocabulary().numpy()
    steps = [0, *run.tensors["steps"].tolist()]
    assert len(steps) == (3 if run.status == "failed" else 5)
    assert [(row["step"], row["position"]) for row in rows] == [(s, p) for s in steps for p in range(4)]
    for row in rows:
        vector_d = run.prompt(row["step"])[row["position"]]
        cosine, order = nearest_by_hand(vocabulary_Vd, vector_d)
        assert row["cosine"] == pytest.approx(cosine, abs=1e-6)
        assert [row[f"nearest_{k}"] for k in range(1, 6)] == [lm.token_text(int(token)) for token in order[:5]]
        assert row["norm"] == pytest.approx(np.linalg.norm(vector_d), rel=1e-5)
        moved = np.linalg.norm(vector_d - run.prompt("initial")[row["position"]])
        assert row["distance_to_p0"] == pytest.approx(moved, abs=1e-6)
    assert {row["distance_to_p0"] == 0 for row in rows if row["step"] == 0} == {True}


def _confusion_is_counted(run: pg.Run, folder: Path, records: list[dict[str, Any]]) -> None:
    charts = [r for r in records if "_wandb.visualize.confusion_matrix" in r.get("config", {}).get("update", {})]
    if run.info["config"]["task"]["name"] != "sentiment":
        assert not charts and not any("confusion" in key for key in summary_of(records))
        return
    cells = table_of(folder, records, "confusion_matrix_table")
    finals = [row for row in run.predictions if row["prompt"] == "final"]
    counted = Counter((row["label"], row["label_choice"]) for row in finals)
    assert {(cell["label"], cell["label_choice"]): cell["examples"] for cell in cells} == {
        (true, chosen): counted[true, chosen]
        for true in ("negative", "positive")
        for chosen in ("negative", "positive")
    }
    (chart,) = [r["config"]["update"]["_wandb.visualize.confusion_matrix"] for r in charts]
    assert chart["panel_config"]["fieldSettings"] == {
        "Actual": "label",
        "Predicted": "label_choice",
        "nPredictions": "examples",
    }


def test_wandb_is_told_of_the_machine_where_the_environment_says_so(monkeypatch):
    for name in ("WANDB_X_DISABLE_META", "WANDB_X_DISABLE_MACHINE_INFO", "WANDB_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert unsent() == {"x_disable_meta": True, "x_disable_machine_info": True, "host": ""}
    monkeypatch.setenv("WANDB_X_DISABLE_META", "false")
    monkeypatch.setenv("WANDB_HOST", "mine")
    assert unsent() == {"x_disable_machine_info": True}


@pytest.mark.long
def test_tensorboard_has_each_runs_curves_figures_and_prompt_tokens(cli, model, monkeypatch):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    break_one(monkeypatch)
    outcome = cli(*model, *SMALL, *GRID, "logger=tensorboard")
    assert outcome.status == 1 and "left out" not in outcome.out, outcome.err
    runs = [pg.Run.load(folder) for folder in runs_below(Path("outputs"))]
    assert len(runs) == 6
    for run in runs:
        place = run.folder.parent / "tensorboard" / run.folder.name
        events = EventAccumulator(str(place))
        events.Reload()
        for split, rows in run.metrics.groupby("split"):
            for name in ("loss", "accuracy", "prompt_norm"):
                logged = {event.step: event.value for event in events.Scalars(f"{split}/{name}")}
                assert logged == pytest.approx(dict(zip(rows["step"], rows[name], strict=True)), rel=1e-6)
        labels = run.info["config"]["task"]["name"] == "sentiment"
        assert set(events.Tags()["images"]) == {"nearest_tokens", *(["confusion_matrix"] if labels else [])}
        for name in events.Tags()["images"]:
            (image,) = events.Images(name)
            assert image.step == run.info["results"]["steps"] and min(image.width, image.height) > 100
            assert image.encoded_image_string.startswith(b"\x89PNG")
        assert not [file for file in place.iterdir() if socket.gethostname() in file.name.split(".")]
    _projector_shows(runs)


def _projector_shows(runs: list[pg.Run]) -> None:
    """What TensorBoard's own projector serves to a browser, run by run."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client
    from werkzeug.wrappers import Response

    logdir = runs[0].folder.parent / "tensorboard"
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = ProjectorPlugin(TBContext(logdir=str(logdir), data_provider=provider, multiplexer=multiplexer))
    apps = plugin.get_plugin_apps()

    def served(route: str, **query: str) -> bytes:
        answer = Client(apps[route], Response).get(route, query_string=query)
        assert answer.status_code == 200, answer.data
        return answer.data

    for run in runs:
        (embedding,) = json.loads(served("/info", run=run.folder.name))["embeddings"]
        said = {"run": run.folder.name, "name": embedding["tensorName"]}
        steps = [0, *run.tensors["steps"].tolist()]
        width = run.prompt().shape[1]
        points = np.frombuffer(served("/tensor", **said), dtype=np.float32).reshape(-1, width)
        assert embedding["tensorShape"] == [len(points), width]
        assert np.array_equal(points, np.concatenate([run.prompt(step) for step in steps]))
        header, *rows = served("/metadata", **said).decode().splitlines()
        rows = [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]
        assert [(row["step"], row["position"]) for row in rows] == [(str(s), str(p)) for s in steps for p in range(4)]
        assert {(row["task"], row["init"], row["seed"]) for row in rows} == {
            (run.info["config"]["task"]["name"], run.info["config"]["init"]["name"], "4")
        }
    (embedding,) = json.loads(served("/info", run="."))["embeddings"]  # of the whole sweep
    said = {"run": ".", "name": embedding["tensorName"]}
    points = np.frombuffer(served("/tensor", **said), dtype=np.float32).reshape(-1, runs[0].prompt().shape[1])
    runs = sorted(runs, key=lambda run: run.folder.name)
    assert embedding["tensorShape"] == list(points.shape)
    assert np.array_equal(points, np.concatenate([run.prompt(int(run.tensors["steps"][-1])) for run in runs]))
    header, *rows = served("/metadata", **said).decode().splitlines()
    rows = [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]
    assert [(row["run"], row["position"]) for row in rows] == [(r.folder.name, str(p)) for r in runs for p in range(4)]
    assert {row["init"] for row in rows} == {"cat", "normal", "dog"} and len({row["token"] for row in rows}) > 3


def of_runs(folder: Path, runs: dict[str, tuple[str, int]], steps: tuple[int, ...] = (0, 8)) -> None:
    """The projector's files of runs with two prompt tokens at each step; runs: name -> (model, width)."""
    for k, (name, (model_name, width)) in enumerate(runs.items()):
        place = folder / name / "projector"
        place.mkdir(parents=True)
        points = [(step, p) for step in steps for p in range(2)]
        said = [f"word{k}\t{step}\t{p}\t0.5\ttask\tcat\t{k}\t{model_name}" for step, p in points]
        numbers = ["\t".join([f"{k}.{step}{p}"] * width) for step, p in points]
        (place / "metadata.tsv").write_text("\n".join(["\t".join(projector.COLUMNS), *said]) + "\n")
        (place / "tensors.tsv").write_text("\n".join(numbers) + "\n")


def test_the_projector_of_a_sweep_has_the_last_prompts_of_each_models_runs(tmp_path, monkeypatch, caplog):
    of_runs(tmp_path, {"b-s1": ("gpt2", 3), "a-s0": ("gpt2", 3), "c-s0": ("tiny", 2), "d-s0": ("tiny", 2)})
    cut = tmp_path / "d-s0/projector/tensors.tsv"
    cut.write_text(cut.read_text().partition("\n")[0])
    projector.write_of_all(tmp_path)
    said = (tmp_path / "projector_config.pbtxt").read_text()
    assert 'tensor_name: "prompt tokens, all runs, gpt2"' in said and "tensor_shape: 4\n  tensor_shape: 3" in said
    header, *rows = [line.split("\t") for line in (tmp_path / "projector/metadata_0.tsv").read_text().splitlines()]
    assert header == [*projector.COLUMNS, "run"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows] == [
        ("word1", "8", "0", "a-s0"),
        ("word1", "8", "1", "a-s0"),
        ("word0", "8", "0", "b-s1"),
        ("word0", "8", "1", "b-s1"),
    ]
    numbers = np.loadtxt(tmp_path / "projector/tensors_0.tsv", delimiter="\t")
    assert np.array_equal(numbers, np.array([[1.80], [1.81], [0.80], [0.81]]).repeat(3, axis=1))
    assert (tmp_path / "projector/tensors_1.tsv").read_text() == "2.80\t2.80\n2.81\t2.81\n"
    assert "d-s0/projector/metadata.tsv: is of another version, or cut" in caplog.text
    monkeypatch.setattr(projector, "MOST", 3)  # of a large sweep few runs are shown, which their name says
    projector.write_of_all(tmp_path)
    assert 'tensor_name: "prompt tokens, 1 of 2 runs, gpt2"' in (tmp_path / "projector_config.pbtxt").read_text()
    assert len((tmp_path / "projector/tensors_0.tsv").read_text().splitlines()) == 2


def test_a_folder_without_runs_has_no_projector(tmp_path):
    projector.write_of_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_logger_that_fails_costs_no_run(cli, model, monkeypatch):  # noqa: F811
    from promptgeo.training import loggers

    class Broken(loggers.Wandb):
        def __init__(self, state):
            if state.plan.config.seed == 0:
                raise OSError("no space")

        def row(self, row):
            raise OSError("no network")

    monkeypatch.setattr(loggers, "LOGGERS", [Broken])
    outcome = cli(*model, *SMALL, "task=plus_two", "logger=wandb", "-m", "seed=0,1")
    assert outcome.status == 0
    assert [pg.Run.load(run).status for run in runs_below(Path("outputs"))] == ["completed"] * 2
    assert "logger=wandb: left out from here on: OSError: no space" in outcome.out
    assert "logger=wandb: left out from here on: OSError: no network" in outcome.out
