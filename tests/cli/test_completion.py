"""The Tab key completes every console script, in a real bash; --help says what a command takes."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from promptgeo.cli import analyze, commands, listing, remove, report, reproduce, retry, runs
from promptgeo.cli.completion import ARGPARSE, HYDRA
from promptgeo.config.paths import groups
from promptgeo.config.schema import keys, meanings

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
TAB = """
tab() {
  COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
  read -ra COMP_WORDS <<< "$1"
  [[ "$1" == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )) COMPREPLY=()
  local rule=$(complete -p "${COMP_WORDS[0]}")
  rule=${rule##*-F }
  ${rule%% *} "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "" 2>/dev/null
  echo "$1|${COMPREPLY[*]}"
}
"""
"""What bash does where Tab is pressed: it calls the function that `complete` registered, and shows COMPREPLY."""
PRESSED = {
    "promptgeo-train task=plus_": {"task=plus_k", "task=plus_one", "task=plus_two"},
    "promptgeo-train training.ep": {"training.epochs="},
    "promptgeo-train --config-dir mine task=my": {"task=my_task"},
    "promptgeo-train ana": set(),
    "promptgeo-analyze analysis=cur": {"analysis=curves"},
    "promptgeo-analyze runs=./ou": {"runs=./outputs"},
    "promptgeo-analyze conv": {"convention="},
    "promptgeo-runs ver": {"verify "},
    "promptgeo-runs retry --sta": {"--status "},
    "promptgeo-runs verify --status fa": {"failed "},
    "promptgeo-runs export x --to p": {"peft", "pt"},
    "promptgeo-report --to la": {"latex "},
    "promptgeo-reproduce wayw": {"wayward "},
    "promptgeo-reproduce wayward init=ca": {"init=cat "},
    "promptgeo comp": {"completion "},
}


@pytest.fixture(scope="module")
def commands_on_path(tmp_path_factory) -> dict[str, str]:
    """An environment in which the console scripts of pyproject.toml are found, as an installation makes them."""
    folder = tmp_path_factory.mktemp("bin")
    for name, place in SCRIPTS.items():
        module, _, function = place.partition(":")
        code = f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        (folder / name).write_text(code)
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_every_console_script_is_completed():
    assert {*HYDRA, *ARGPARSE} == set(SCRIPTS)


@pytest.mark.long
def test_tab_completes_every_console_script_in_bash(commands_on_path, tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "mine/task").mkdir(parents=True)
    (tmp_path / "mine/task/my_task.yaml").write_text("name: my_task\n")
    lines = "\n".join(f'tab "{line}"' for line in PRESSED)
    shell = subprocess.run(
        ["bash", "--norc", "-c", f'eval "$(promptgeo completion)"\n{TAB}\n{lines}'],
        cwd=tmp_path,
        env=commands_on_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    said = dict(line.split("|", 1) for line in shell.stdout.splitlines())
    words = {line: {word.strip() for word in said[line].split()} for line in PRESSED}
    assert words == {line: {word.strip() for word in expected} for line, expected in PRESSED.items()}, shell.stderr


# ------------------------------------------------------------ --help


def shown(main, capsys, *arguments: str) -> str:
    try:
        main(list(arguments))
    except SystemExit as stop:
        assert not stop.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "arguments", "command"),
    [
        (analyze.main, ["-h"], "python -m promptgeo.analyze"),
        (reproduce.main, ["--help"], "python -m promptgeo.reproduce"),
        (report.main, ["--help"], "promptgeo-report"),
        (runs.main, ["--help"], "promptgeo-runs"),
        *((runs.main, [name, "--help"], f"promptgeo-runs {name}") for name in runs.COMMANDS),
    ],
)
def test_the_help_of_every_command_has_three_examples(main, arguments, command, capsys):
    page = shown(main, capsys, *arguments)
    assert len(re.findall(rf"^ {{2,4}}{command} \S", page, re.MULTILINE)) == 3
    assert max(map(len, page.splitlines())) <= 120


def test_promptgeo_alone_lists_the_commands(capsys):
    page = shown(commands.main, capsys)
    assert all(f"\n  {name} " in page for name in SCRIPTS if name != "promptgeo")
    refusals = {
        "trian": "promptgeo: trian: no such command; nearest: train (each is written promptgeo-<name>)\n",
        "train": "promptgeo: train: that command is written promptgeo-train\n",
        "--trian": "promptgeo: unrecognized arguments: --trian; see promptgeo --help\n",
    }
    for word, said in refusals.items():
        with pytest.raises(SystemExit) as stop:
            commands.main([word])
        refused = capsys.readouterr()
        assert (stop.value.code, refused.out, refused.err) == (2, "", said)
    module = subprocess.run([sys.executable, "-m", "promptgeo"], capture_output=True, text=True, timeout=60)
    assert module.stdout == page


def test_every_key_of_a_run_has_a_meaning():
    told = meanings()
    assert set(told) == set(keys()) - {"sweep", "study"} and all(len(text) > 3 for text in told.values())
    assert told["precision"].endswith("(auto, fp32, bf16)") and "analysis" not in groups()


def test_the_help_of_an_analysis_is_its_file_and_own_ones_are_listed(capsys, tmp_path):
    assert shown(analyze.main, capsys, "analysis=[curves]", "--help") == (
        (ROOT / "conf/analysis/curves.yaml").read_text() + "\n"
    )
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis/length.yaml").write_text("# @package analysis.length\n_about_: how long?\n")
    assert "\n  length            how long?\n" in shown(analyze.main, capsys, "--config-dir", str(tmp_path), "-h")


@pytest.mark.parametrize("parser", [listing.list_parser, listing.json_parser, retry.retry_parser, remove.remove_parser])
def test_every_option_of_a_subcommand_says_what_it_is_for(parser):
    assert all(action.help for action in parser()._actions)
