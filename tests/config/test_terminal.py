"""A name, label or path is printed as it is written: rich reads no markup in it, a terminal no instruction."""

import ast
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from promptgeo.config.terminal import Formatter, column, console, say, visible

NAMES = ("[/red]", "out/a[b]", "[bold]x", ":smile:", "[link=https://example.org]x", "a\\[b]")
CONTROL = "a\x1b[31mb\rc\x07d\x9be\u202ef\udc80\x00"
SHOWN = r"a\x1b[31mb\rc\x07d\x9be\u202ef\udc80\x00"


def test_control_characters_are_shown_and_nothing_else_is_changed():
    assert visible(CONTROL) == SHOWN
    ordinary = "é 日本 [b] \\x1b {x} a\tb\nc"
    assert visible(ordinary) == ordinary


@pytest.mark.parametrize("name", [*NAMES, CONTROL])
def test_a_console_prints_a_name_as_it_is(name, capsys):
    screen = console(width=100)
    table = Table(title=f"of {name}")
    table.add_column(name)
    table.add_row(name)
    screen.print(f"name: {name}", soft_wrap=True)
    screen.print(table)
    out = capsys.readouterr().out
    assert out.count(visible(name)) == 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", out)


@pytest.mark.parametrize("name", [*NAMES, CONTROL])
def test_a_bar_shows_a_name_as_it_is(name):
    from rich.progress import Progress

    shown = column("{task.description} {task.fields[state]}")
    task = Progress().add_task(name, state=name)
    bar = Progress(shown)
    bar.add_task(name, state=name)
    assert shown.render(bar.tasks[task]).plain == f"{visible(name)} {visible(name)}"


def test_lines_and_log_messages_show_control_characters(capsys):
    say(CONTROL)
    assert capsys.readouterr().out == SHOWN + "\n"
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter("%(message)s"))
    handler.emit(logging.makeLogRecord({"msg": "%s", "args": (CONTROL,)}))
    assert stream.getvalue() == SHOWN + "\n"


def test_nothing_but_this_file_prints():
    """The commands' wings; the embedded model's own scripts print no names."""
    source = Path(__file__).parents[2] / "src" / "promptgeo"
    for path in source.rglob("*.py"):
        if path.name == "terminal.py" or "tiny" in path.parts:
            continue
        calls = [
            node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        called = {ast.unparse(function) for function in calls}
        assert not called & {"print", "Console", "TextColumn", "logging.Formatter"}, path


RUN = ["prompt.length=2", "training.epochs=1", "training.max_steps=2", "task.split.max_test=3", "evaluation.every=end"]
ODD = "[/red]\x1b[31m<b>$"


def run(command: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """One of promptgeo's commands in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    line = [sys.executable, "-m", f"promptgeo.{command}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.long
def test_commands_print_odd_names_as_they_are(tmp_path):
    names = [f'task.name="{ODD}"', f'init.name="{ODD}"', 'name="a[b]"', 'outputs="out[/red]"']
    trained = run("train", *RUN, *names, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "out[/red]/a[b]/" in trained.stdout and visible(ODD) in trained.stdout
    listed = run("cli.runs", "out[/red]", cwd=tmp_path)
    assert "1 run, all completed, 0 damaged" in listed.stdout
    asked = run("analyze", 'runs="out[/red]"', "analysis=[curves]", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    for done in (trained, listed, asked):
        assert "\x1b" not in done.stdout + done.stderr


def test_a_command_whose_reader_has_read_enough_ends_without_a_word():
    code = "from promptgeo.config.terminal import say\nwhile True: say('a line')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (141, b"")
