"""How does the Tab key complete a command? argcomplete for options, Hydra's own completion for groups and keys."""

import argparse
import contextlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from types import ModuleType

from hydra.core.global_hydra import GlobalHydra

from promptgeo.config import compose, compose_analyze
from promptgeo.config.paths import groups
from promptgeo.config.schema import keys
from promptgeo.config.terminal import say
from promptgeo.errors import UserError

HYDRA = ("promptgeo-train", "promptgeo-analyze")
ARGPARSE = ("promptgeo", "promptgeo-runs", "promptgeo-report", "promptgeo-reproduce", "promptgeo-dashboard")
_CONFIG_DIR = re.compile(r" (?:--config-dir|-cd)[ =](\S+) ")
ASKED = "_ARGCOMPLETE"
"""The environment variable by which the shell asks argcomplete."""


def script() -> str:
    """What a shell evaluates so that Tab completes every command."""
    import argcomplete

    installs = [f'eval "$({command} -sc install=bash)"' for command in HYDRA]
    return "\n".join([*installs, argcomplete.shellcode(list(ARGPARSE), shell="bash")])


def complete(parser: argparse.ArgumentParser, words: int = 1) -> None:
    """Where the shell asks: print what may come next, and end. words: of the line that are the command's name."""
    if ASKED in os.environ:
        import argcomplete

        os.environ[ASKED] = str(words)
        argcomplete.autocomplete(parser)


def answer_shell(command: str, arguments: Sequence[str]) -> None:
    """promptgeo-train or promptgeo-analyze -sc install=bash, uninstall=bash, query=bash: as Hydra answers them.

    command: train or analyze. Raises UserError for anything else.
    """
    printed = io.StringIO()
    if line := os.environ.get("COMP_LINE"):
        os.environ["COMP_LINE"] = _CONFIG_DIR.sub(lambda given: f" {_searchpath(given[1])} ", line)
    with _composer(command):
        try:
            with contextlib.redirect_stdout(printed):
                GlobalHydra.instance().hydra.shell_completion(command, list(arguments))
        except ValueError as error:
            raise UserError(f"-sc: install=bash, uninstall=bash or query=bash is needed ({error})") from error
    if any(argument.startswith("query=") for argument in arguments):
        say(" ".join(word for word in printed.getvalue().split() if _is_of(command, word)))
    else:
        say(printed.getvalue().rstrip("\n"))


def _searchpath(folder: str) -> str:
    """--config-dir as the override that Hydra's completion understands."""
    return f"hydra.searchpath=[file://{os.path.abspath(os.path.expanduser(folder))}]"


def words_of(command: str, beginning: str) -> list[str]:
    """The groups, options and keys of train or analyze that begin so."""
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    with _composer(command):
        found = BashCompletion(GlobalHydra.instance().config_loader())._query(command, beginning)
    return [word for word in found if _is_of(command, word)]


def _composer(command: str) -> contextlib.AbstractContextManager[None]:
    module: ModuleType = compose if command == "train" else compose_analyze
    return module.composer()


def _is_of(command: str, word: str) -> bool:
    """Hydra knows all groups of conf/ for either command."""
    key, _, value = word.lstrip("+~").partition("=")
    if command == "train":
        return key.startswith("hydra") or key in groups() or any(f"{each}.".startswith(key) for each in keys())
    if key == "model" and value:  # a name or a folder here; the group is training's
        return False
    return key.partition(".")[0] in [f.name for f in fields(compose_analyze.AnalyzeConfig)]
