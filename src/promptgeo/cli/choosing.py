"""Which runs is a subcommand of promptgeo-runs about, and in which order? --where, --status and --sort."""

import argparse
from collections.abc import Sequence
from typing import Any

from promptgeo.config.explain import nearest
from promptgeo.config.schema import flatten
from promptgeo.config.terminal import warn
from promptgeo.errors import UserError
from promptgeo.evaluation.metrics import HEADLINE, METRICS
from promptgeo.runs.folder import STATUSES, Found, Run

SPLITS = ("test", "validation")
SHORT = {"none": f"{HEADLINE}_none", "P0": f"{HEADLINE}_initial", "trained": f"{HEADLINE}_final"}
SHORT |= {"best": f"{HEADLINE}_best", "label": "label_accuracy"}
"""What stands above a column of the listing -> the column."""


def add_choice(parser: argparse.ArgumentParser) -> None:
    """--where and --status."""
    condition = "only runs for which this holds: \"task == 'plus_two' and seed < 2\""
    parser.add_argument("--where", metavar="CONDITION", help=condition)
    statuses = f"only these, with commas: {', '.join(STATUSES)}"
    status = parser.add_argument("--status", metavar="STATUS", type=_statuses, help=statuses)
    status.completer = _completed  # type: ignore[attr-defined]  # for the Tab key


def add_sort(parser: argparse.ArgumentParser) -> None:
    keys = "by test_accuracy, a column of the run table, or a key such as training.epochs; with - before it, or "
    parser.add_argument("--sort", metavar="KEY", help=f"{keys}--descending, the largest first")
    parser.add_argument("--descending", action="store_true", help="the largest first")


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments; --sort -KEY is taken for what it means."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort" and argument.startswith("-") and not argument.startswith("--"):
            joined[-1] = f"--sort={argument}"
        else:
            joined.append(argument)
    return parser.parse_intermixed_args(joined)


def _completed(prefix: str, **given: object) -> list[str]:
    before = prefix[: prefix.rfind(",") + 1]
    return [f"{before}{status}" for status in STATUSES]


def _statuses(text: str) -> tuple[str, ...]:
    statuses = tuple(text.split(","))
    for status in statuses:
        if status not in STATUSES:
            raise UserError(f"--status {status}: no such status; {nearest(status, STATUSES)}")
    return statuses


def chosen(
    found: Sequence[Found], where: str | None, statuses: Sequence[str] | None
) -> tuple[list[Found], list[Found]]:
    """Those of these statuses for which the condition holds, and those of which it cannot be asked, which is said.

    Raises UserError for a condition that cannot be read, or a column that these runs do not have.
    """
    found = [each for each in found if statuses is None or each.status in statuses]
    if where is None:
        return found, []
    from promptgeo.runs.table import table_of
    from promptgeo.runs.where import rows_where

    known = [each for each in found if each.run]
    unknown = [each for each in found if not each.run]
    try:
        runs = [each.run for each in known if each.run]
        table = table_of(runs).table
        for name in {key for run in runs for key in _values(run) if key in where} - {*table.columns}:
            values = (value_of(run, name) for run in runs)
            table[name] = [v if isinstance(v, str | int | float | None) else str(v) for v in values]
        holds = [known[row] for row in rows_where(table, where)] if known else []
    except UserError as error:
        raise UserError(f"--where {error}") from error
    for each in unknown:
        warn(f"promptgeo: {each.folder}: is {each.status}: --where cannot be asked of it")
    return holds, unknown


def in_order(found: Sequence[Found], key: str | None, descending: bool) -> list[Found]:
    """By a key's value; runs without one last, runs of equal value as they were.

    Raises UserError for a key that no run has.
    """
    if key is None:
        if descending:
            raise UserError("--descending: by what? --sort KEY says it")
        return list(found)
    descending, key = descending or key.startswith("-"), key.removeprefix("-")
    values = [(value_of(each.run, key) if each.run else None, each) for each in found]
    if all(value is None for value, _ in values):
        known = {name for each in found if each.run for name in _values(each.run)}
        if key not in known and known:
            raise UserError(f"--sort {key}: no such column or key; {nearest(key, sorted(known))}")
    there = [(_rank(value), each) for value, each in values if value is not None]
    there.sort(key=lambda pair: pair[0], reverse=descending)
    return [each for _, each in there] + [each for value, each in values if value is None]


def value_of(run: Run, key: str) -> Any:
    """None where the run has none; NaN is none."""
    value = _values(run).get(SHORT.get(key, key))
    return None if value != value else value


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers before texts."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))


def _values(run: Run) -> dict[str, Any]:
    """The run's row, its config's keys, and each metric of the final prompt as <split>_<metric>."""
    split, results = run.info["results"].get("split"), run.info["results"]
    scores = {f"{each}_{m.name}": None for each in SPLITS for m in METRICS}
    if split in SPLITS:
        scores |= {f"{split}_{m.name}": results.get(m.name, {}).get("final") for m in METRICS}
    return flatten(run.info["config"]) | run.row() | scores
