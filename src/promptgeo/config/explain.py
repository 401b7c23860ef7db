"""How does an error reach the user? One line that names the key and the nearest valid ones, and exit status 2."""

import argparse
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from traceback import walk_tb
from typing import NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from promptgeo.config.paths import groups
from promptgeo.config.schema import keys, sections
from promptgeo.config.terminal import warn
from promptgeo.errors import UserError

LONGEST = 250
"""Characters of a list of what is valid: an error is one line."""
LINE = 600
"""Characters of each end of a line that is cut."""


@contextmanager
def config_errors() -> Iterator[None]:
    """Hydra's and OmegaConf's exceptions as one line that names the key and the nearest valid ones."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(explain(error)) from error
    except RecursionError as error:
        raise UserError("a value is nested too deeply, or leads back to itself") from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        if "integer string conversion" in str(error):
            raise UserError("a number of thousands of digits is given, and no key needs one") from error
        if not _is_of_hydra(error):
            raise
        raise UserError(f"the config cannot be read: {_first_line(error)}") from error


def _is_of_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised it: what they read is at fault, however they say it."""
    *_, innermost = walk_tb(error.__traceback__)
    return innermost[0].f_globals.get("__name__", "").partition(".")[0] in ("hydra", "omegaconf")


def explain(error: BaseException) -> str:
    """One line for an exception that Hydra or OmegaConf raised while composing: the innermost one knows the key."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in reversed(chain):
        if isinstance(link, UserError):
            return str(link)
    if missing := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", str(error)):
        options = GlobalHydra.instance().config_loader().get_group_options(missing[1])
        return unknown_option(missing[1], missing[2], options)
    if again := re.match(r"Multiple values for ([\w/]+)\. To override a value use 'override", str(error)):
        return f"{again[1]} is chosen already: in a file of your own write '- override /{again[1]}: <option>'"
    if unmatched := re.search(r"Could not override '\S*?/?([\w]+)@", str(error)):
        return f"in a file of your own '- override /{unmatched[1]}: <option>' needs the slash before {unmatched[1]}"
    for link in reversed(chain):
        if wrong := re.search(r"Merge error: (\w+) is not a subclass of (\w+)\. value: (.*)", str(link)):
            section = wrong[2].lower()
            return f"{section}: is a section of keys, not {wrong[3][:80]!r}; a file chooses an option with 'defaults:'"
    file = re.match(r"In '([^']+)'", str(error))
    where = f"{file[1]}.yaml: " if file else ""
    for link in reversed(chain):
        if key := getattr(link, "full_key", None):
            if file and key == file[1].partition("/")[0] and key not in groups():
                return f"{where}its first line must be '# @package _global_': its keys are a run's own"
            return where + _at_key(key, link)
    return " ".join(str(error).split()) if isinstance(error, YAMLError) else where + _first_line(error)


def in_one_line(error: BaseException) -> str:
    """What any exception says; its kind before it, unless it is one that a user is meant to read."""
    return " ".join((str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}").split())


def _at_key(key: str, error: BaseException) -> str:
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return unknown_key(key)
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: a value is needed"
    if "is not a ListConfig" in str(error):
        return f"{key}: a list is needed, as in '{key}=[a,b]'"
    return f"{key}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def unknown_option(group: str, option: object, options: Sequence[str]) -> str:
    """The message for an option that a config group does not have."""
    word = "null" if option is None else str(option)
    return f"{group}={word}: no such {group}; {nearest(word, options)}"


def unknown_key(key: str) -> str:
    """The message for a key that the schema does not have.

    The same word in another section is named first, then what is spelt alike, else what stands in the key's section.
    """
    if key.startswith("hydra"):
        return f"{key}: Hydra has no such key; --cfg hydra shows its own"
    valid = [*groups(), *keys()]
    last = key.rpartition(".")[2]
    near = [k for k in valid if k.rpartition(".")[2] == last][:4] or difflib.get_close_matches(key, valid, n=3)
    outer = (key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1))
    section = next((s for s in outer if s in sections()), "")
    top = sorted({k.partition(".")[0] for k in valid})
    inside = [k for k in keys() if k.startswith(f"{section}.")] if section else top
    return f"{key}: no such key; {_one_of(near, inside)}"


def nearest(word: str, valid: Sequence[str]) -> str:
    """`nearest: ...` with what is spelt like `word`, else `one of ...` with all that is valid."""
    begin_like_it = [name for name in valid if difflib.get_close_matches(word, [name[: len(word) + 1]], cutoff=0.75)]
    return _one_of(difflib.get_close_matches(word, valid, n=3) or begin_like_it[:3], valid)


def _one_of(near: Sequence[str], valid: Sequence[str]) -> str:
    if near:
        return f"nearest: {', '.join(near)}"
    named = ", ".join(valid)
    if len(named) > LONGEST:
        named = f"{named[:LONGEST].rpartition(', ')[0]}, ... (--help names all {len(valid)})"
    return f"one of {named}"


WIDTH = 120
"""Columns of --help."""


def entry(name: str, text: str, column: int = 17) -> str:
    """A name and its text for --help, in two columns."""
    gap = " " * max(1 + column - len(name), 2)
    filled = textwrap.fill(f"{name}{gap}{text}", WIDTH - 2, subsequent_indent=" " * (column + 1))
    return textwrap.indent(filled, "  ")


class OneLineParser(argparse.ArgumentParser):
    """Raises UserError where argparse would print its usage over many lines and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def refusal(error: BaseException) -> str | None:
    """What the system refused, and where: a disk that is full or read-only, say. None for any other error.

    Only what an exception says it was raised from is followed: Hydra and logging put the system's error there.
    """
    link: BaseException | None = error
    while link is not None and not (isinstance(link, OSError) and link.strerror):
        link = link.__cause__
    if not isinstance(link, OSError):
        return None
    return f"{link.filename}: {link.strerror}" if link.filename is not None else str(link.strerror)


def exit_with(error: UserError | str, status: int = 2) -> NoReturn:
    """One line on standard error, and the exit status. What a user wrote at length is cut in the middle."""
    line = " ".join(str(error).splitlines())
    with suppress(OSError):  # standard error may be what is full
        warn(f"promptgeo: {line if len(line) <= 2 * LINE else f'{line[:LINE]} [...] {line[-LINE:]}'}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # else the interpreter would try again as it ends, and say so over two lines
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def show_full_errors() -> None:
    """Let Hydra raise what it would otherwise print over several lines."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
