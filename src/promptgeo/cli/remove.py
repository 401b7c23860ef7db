"""promptgeo-runs rm: delete runs, and nothing that promptgeo did not write."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from promptgeo.cli.choosing import add_choice, chosen, parsed
from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import counted, say, warn
from promptgeo.errors import UserError
from promptgeo.runs.folder import Found, find_folders
from promptgeo.runs.removing import foreign, remove, size_of
from promptgeo.training.lock import claimed_folders

HELP = """\
Delete runs: a run's own folder, or those at or below a folder that --where or --status chooses.

  promptgeo-runs rm outputs/mine/tiny-plus_one-cat-s0-1a2b3c4d
  promptgeo-runs rm outputs/mine --status failed,unfinished
  promptgeo-runs rm outputs --where "task == 'plus_two' and seed < 2" --yes

It says which, and asks. A folder with a file or a link that promptgeo did not write is refused, no link is followed,
and a run that a command is training is left. Analyses, reports and what loggers wrote are not deleted.
"""


def remove_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs rm", description=HELP, formatter_class=as_written)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a run's folder, or a folder of runs")
    add_choice(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def remove_runs(arguments: Sequence[str]) -> None:
    """The subcommand. Raises UserError, before anything is deleted, for what is no run's folder or holds other files.

    Exit status 1 if a run is left because it is being trained, or changed meanwhile.
    """
    given = parsed(remove_parser(), arguments)
    found, _ = chosen(_found(given), given.where, given.status)
    if not found:
        say("no run is chosen; nothing was deleted")
        return
    for each in found:
        if other := foreign(each):
            raise UserError(f"{other}; nothing was deleted")
    # Nobody trains in an import's folder.
    trained = [each for each in found if each.status != "imported"]
    with claimed_folders([each.folder for each in trained]) as mine:
        held = [each for each in trained if each.folder not in mine]
        for each in held:
            warn(f"promptgeo: {each.folder}: not deleted: another process is training this run")
        found = [each for each in found if each not in held]
        if found and (given.yes or _agreed(found)):
            held += [each for each in found if not _removed(each)]
    if held:
        sys.exit(1)


def _found(given: argparse.Namespace) -> list[Found]:
    """What lies there, each folder once."""
    found: dict[Path, Found] = {}
    for path in given.paths:
        below = find_folders(path)
        alone = len(below) == 1 and below[0].folder == Path(path).expanduser()
        if alone and Path(path).expanduser().is_symlink():
            raise UserError(f"{path}: is a link; name the run's folder itself")
        if not alone and given.where is None and given.status is None:
            raise UserError(
                f"{path}: is a folder of {counted(len(below), 'run')}, not a run's own: which? --where or --status"
            )
        for each in below:
            found.setdefault(each.folder.resolve(), each)
    return list(found.values())


def _agreed(found: Sequence[Found]) -> bool:
    if not sys.stdin.isatty():
        raise UserError(
            f"{counted(len(found), 'run')} would be deleted, and there is nobody to ask: --yes deletes them"
        )
    for each in found:
        say(f"  {each.status:10} {each.folder}")
    size = sum(size_of(each.folder) for each in found)
    say(f"delete {'these' if len(found) > 1 else 'this'} ({counted(len(found), 'run')}, {size / 1e6:,.1f} MB)? [y/N]")
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say("nothing was deleted")
    return False


def _removed(found: Found) -> bool:
    """Delete it, unless it is no longer what it was: its training may have ended before it was claimed."""
    now = find_folders(found.folder) if found.folder.is_dir() else []
    same = [each for each in now if each.status == found.status and (each.run and each.run.info) == _info(found)]
    if not same or foreign(found):
        warn(f"promptgeo: {found.folder}: not deleted: it has changed meanwhile")
        return False
    remove(found.folder)
    say(f"deleted: {found.folder}")
    return True


def _info(found: Found) -> object:
    return found.run and found.run.info
