"""What no command writes down: secrets of the environment, the home folder, the host, the user."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

SECRETS = {
    "WANDB_API_KEY": "c4a1" * 10,
    "HF_TOKEN": "hf_canaryTheSecondSecret",
    "AWS_SECRET_ACCESS_KEY": "canary/third+secret/AAAA",
    "MY_OWN_PASSWORD": "canary four, spelt as no other",
}
USER = "canaryuser"
SMALL = (
    "model=tiny",
    "task=present_past",
    "init=cat",
    "training.max_steps=2",
    "task.split.max_train=16",
    "task.split.max_test=2",
    "evaluation.max_new_tokens=2",
    "template.longer_labels=warn",
)
HYDRAS_OWN = ("hydra.yaml", "multirun.yaml")
"""They name the folder of the command and that of conf/, as docs/run_folder.md says."""


@pytest.mark.long
def test_no_file_holds_a_secret_and_none_names_the_home_folder_the_host_or_the_user(tmp_path):
    home, work = tmp_path / USER, tmp_path / "work"
    home.mkdir()
    work.mkdir()
    np.save(work / "mine.npy", np.zeros((1, 4, 8), dtype=np.float32))
    (work / "mine.csv").write_text("task,init\nplus_two,cat\n", encoding="utf-8")
    environment = os.environ | SECRETS | {"HOME": str(home), "USER": USER, "LOGNAME": USER}
    for name in ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR", "WANDB_HOST", "XDG_CACHE_HOME", "PROMPTGEO_CACHE"):
        environment.pop(name, None)

    def command(door: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", f"from promptgeo.cli.{door} import main; main()", *arguments],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        has_none(door, done.stdout.encode() + done.stderr.encode(), SECRETS.values())

    offline = "wandb.mode=offline"
    # The study's train, analyze and report, with loggers: one process instead of three.
    command("reproduce", "length", *SMALL, "prompt.length=1,2", "logger=[wandb,tensorboard]", offline)
    command("analyze", "runs=outputs/length", "analysis=[curves]", "logger=wandb", offline)
    command("dashboard", "outputs/length", "--offline")
    command("runs", "import", "mine.npy", "--table", "mine.csv", "--out", "imported")
    command("runs", "outputs")

    folders = [*work.rglob("*"), *home.rglob("*")]
    written = [path for path in folders if path.is_file()]
    kinds = {path.suffix for path in written}
    assert {".wandb", ".safetensors", ".json", ".csv", ".jsonl", ".yaml", ".log", ".html", ".svg"} <= kinds
    for path in written:
        has_none(path, path.read_bytes(), SECRETS.values())
    private = [str(home), USER, sys.executable, *([host] if len(host := socket.gethostname()) > 6 else [])]
    for path in (path for path in folders if path.is_relative_to(work)):
        if path.is_symlink():
            has_none(path, os.readlink(path).encode(), private)
        if path.is_file():
            has_none(path, path.read_bytes(), private)
        # The folder that a command is given in is most often one of the home folder's.
        if path.is_file() and path.name not in HYDRAS_OWN:
            has_none(path, path.read_bytes(), [str(work)])


def has_none(where: object, content: bytes, texts) -> None:
    for text in texts:
        for spelt in {text, json.dumps(text)[1:-1]}:
            assert spelt.encode() not in content, f"{where} holds {text}"
