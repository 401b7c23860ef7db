"""logger=wandb: an analysis is a W&B run of job_type analysis, with its figures and claims; read back by W&B."""

import json
from pathlib import Path

import pytest
from test_analyze import MINE, cli  # noqa: F401 - fixture

from promptgeo.analysis import wandb_analyses
from promptgeo.analysis.result import read
from promptgeo.config.compose_analyze import compose_analyze
from promptgeo.errors import UserError
from promptgeo.runs import wandb_run
from wandb_records import records_below, summary_of, table_of

OFFLINE = ("logger=wandb", "wandb.mode=offline", "wandb.project=mine")
VARIANTS = [(of, convention) for of in ("prompt", "delta") for convention in ("paper", "corrected")]


@pytest.mark.long
def test_an_analysis_is_a_wandb_run_with_figures_claims_findings_and_numbers(cli, monkeypatch, caplog):  # noqa: F811
    monkeypatch.delenv("WANDB_HOST", raising=False)
    outcome = cli(*MINE, *OFFLINE)
    assert outcome.status == 0 and "logger=wandb" not in caplog.text, outcome.err
    stored = read(Path("runs/analysis/spread"))
    ((run_id, (folder, records)),) = records_below(Path("runs")).items()
    assert run_id == stored.info["key"][:16]
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["job_type"], run["display_name"], run["run_group"], run["project"]) == (
        "analysis",
        "spread",
        "runs",
        "mine",
    )
    assert not run.get("host")
    config = run["config"]["update"]
    assert (config["options"], config["runs"]) == ({"scale": 1.0}, 4)
    assert set(config["varying"]) == {"task.name", "init.name"}
    summary = summary_of(records)
    for of, convention in VARIANTS:
        assert summary[f"claim/{of}/{convention}/small"] == "does not hold"
        name = f"figure/{of}_{convention}_drawing"
        assert summary[f"{name}._type"] == "html-file"
        page = (folder / "files" / summary[f"{name}.path"]).read_text(encoding="utf-8")
        assert page.endswith(stored.figures[f"{of}_{convention}_drawing"])
    claims = table_of(folder, records, "claims")
    assert [(row["of"], row["convention"]) for row in claims] == VARIANTS
    assert {(row["claim"], row["outcome"], row["evidence"]) for row in claims} == {
        ("small", "does not hold", "As it is.")
    }
    findings = table_of(folder, records, "findings")
    assert [row["sentence"] for row in findings] == [found["sentence"] for found in stored.info["findings"]]
    numbers = table_of(folder, records, "numbers")
    assert [row["value"] for row in numbers] == pytest.approx(stored.numbers["value"].tolist(), rel=1e-12)
    assert records[-1]["type"] == "exit" and not records[-1]["exit"].get("exit_code")


@pytest.mark.long
def test_what_is_cached_is_logged_too_and_nothing_without_the_key(cli):  # noqa: F811
    assert cli(*MINE, "of=delta").status == 0
    assert not Path("runs/wandb").exists()
    assert "cached" in cli(*MINE, "of=delta", *OFFLINE, "out=runs/analysis").err
    assert len(records_below(Path("runs"))) == 1


@pytest.mark.long
def test_a_process_that_goes_to_another_folder_logs_there(cli, monkeypatch, tmp_path):  # noqa: F811
    """W&B writes its files in a process of its own, which stays where it was started."""
    assert cli(*MINE, "of=delta", *OFFLINE).status == 0
    (tmp_path / "elsewhere").mkdir()
    for name in ("runs", "mine", "mypackage"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli(*MINE, "of=prompt", *OFFLINE).status == 0
    assert len(records_below(Path("runs"))) == 2


@pytest.mark.long
def test_whoever_asked_for_a_key_elsewhere_logs_where_it_is_now(cli, monkeypatch, tmp_path):  # noqa: F811
    """promptgeo-dashboard asks; and asking starts W&B's process."""
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "elsewhere")
        wandb_run.has_key()
    assert cli(*MINE, "of=delta", *OFFLINE).status == 0
    assert len(records_below(Path("runs"))) == 1


@pytest.mark.long
def test_what_was_left_out_names_no_folder_to_wandb(cli):  # noqa: F811
    Path("runs/run9").mkdir()
    Path("runs/run9/run.json").write_text("{")
    assert cli(*MINE, *OFFLINE).status == 0
    assert "run9" in json.loads(Path("runs/analysis/spread/result.json").read_text())["left_out"][0]
    ((folder, _),) = records_below(Path("runs")).values()
    assert b"run9" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_logger_that_fails_costs_no_analysis(cli, monkeypatch, caplog):  # noqa: F811
    def broken(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(wandb_analyses.wandb_run, "opened", broken)
    outcome = cli(*MINE, *OFFLINE)
    assert outcome.status == 0 and "small" in outcome.out
    assert "logger=wandb: spread is not logged: OSError: no space" in caplog.text
    assert read(Path("runs/analysis/spread")).info["claims"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("logger=tensorboard", "logger=tensorboard: must be null or wandb"),
        ("wandb.mode=sometimes", "wandb.mode=sometimes: must be online, offline or disabled"),
        ("wandb.projekt=x", "wandb.projekt: no such key; nearest: wandb.project"),
        ("wandb=x", "wandb: no such key"),
    ],
)
def test_a_wrong_key_is_one_line(line, said):
    with pytest.raises(UserError, match="^" + said):
        compose_analyze([line])


def test_names_keep_their_spelling():
    assert compose_analyze(["wandb.project=1e3", "wandb.entity=yes"]).wandb.project == "1e3"
