"""The command promptgeo-runs ask: what does the model write after an input, with the prompts of finished runs?"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.cli.choosing import add_choice, chosen
from promptgeo.config.explain import OneLineParser
from promptgeo.config.schema import FIELD, flatten
from promptgeo.config.terminal import counted, say, visible, warn
from promptgeo.config.varying import named, varying
from promptgeo.config.waiting import said_when_slow
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, find_folders

if TYPE_CHECKING:
    from promptgeo.evaluation.generate import Input
    from promptgeo.model.interface import LM

HELP = """\
Ask the prompts of finished runs: what does the model write after an input?

    promptgeo-runs ask outputs/adhoc/tiny-country_capital-cat-s0-1b2c3d4e France Japan --top 5
    promptgeo-runs ask outputs/quickstart France --where "seed == 0"
    promptgeo-runs ask RUN --sample 3 --temperature 0.7 < inputs.txt

An input is written as the run's test examples were: template, BOS and prompt stand where they stood, and the answer
ends where theirs did. Without inputs, each line that you type is one, until Ctrl-D; lines from a pipe or a file are
answered together. A task of several columns takes them by name: '{"premise": "...", "hypothesis": "..."}'.
Of several runs the answers to an input stand below one another, each beside what tells its run from the others.
"""


def ask(arguments: Sequence[str]) -> None:
    """Raises UserError for whatever the user must mend."""
    given = ask_parser().parse_intermixed_args(arguments)
    further = list(takewhile(_holds_runs, given.inputs))
    inputs = given.inputs[len(further) :]
    runs = _runs_at([given.run, *further], given.where, given.status)
    session = _Session(runs, given)
    if inputs:
        session.answer(inputs, named=len(inputs) > 1 or len(session.runs) > 1)
    elif sys.stdin.isatty():
        warn("promptgeo: one input a line; Ctrl-D ends")
        for line in _lines():
            try:
                session.answer([line])
            except UserError as error:  # whoever types goes on
                warn(f"promptgeo: {error}")
    elif lines := list(_lines()):
        session.answer(lines, named=len(session.runs) > 1)
    else:
        warn("promptgeo: there is no input: none was given, and standard input is empty")


def ask_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs ask", description=HELP, formatter_class=as_written)
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a folder of runs; further ones may follow")
    inputs_help = "what stands for {input} in the template"
    parser.add_argument("inputs", metavar="INPUT", nargs="*", default=[], help=inputs_help)
    add_choice(parser)
    which_help = "final (default), best, initial, the step of a checkpoint, or none: the model without a prompt"
    parser.add_argument("--which", metavar="PROMPT", default="final", help=which_help)
    parser.add_argument("--top", metavar="K", type=int, help="also the K likeliest next tokens, with probabilities")
    parser.add_argument("--sample", metavar="N", type=int, help="N texts for each input, drawn; default: one, greedily")
    parser.add_argument("--temperature", metavar="T", type=float, help="of the drawing; default: 1")
    parser.add_argument("--top-k", metavar="K", type=int, help="only the K likeliest tokens are drawn; default: all")
    share_help = "only the likeliest tokens that have this share of the probability are drawn; default: all"
    parser.add_argument("--top-p", metavar="SHARE", type=float, help=share_help)
    parser.add_argument("--seed", metavar="S", type=int, help="of the drawing; default: 0")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, help="default: as the run's evaluation")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.add_argument("--model", metavar="FOLDER", help="where the run's model lies now; default: as the run says")
    return parser


def _holds_runs(word: str) -> bool:
    """Whether a word after the first is a run's folder or a folder of runs, not an input."""
    return os.path.isdir(word) and any(True for place in ("run.json", "*/run.json") for _ in Path(word).glob(place))


def _runs_at(paths: Sequence[str], where: str | None, statuses: Sequence[str] | None) -> list[Run]:
    """The whole runs at or below folders that are chosen, each once. Raises UserError where there is none."""
    found = {each.folder.resolve(): each for path in paths for each in find_folders(path)}
    kept, _ = chosen(list(found.values()), where, statuses)
    runs = [each.run for each in kept if each.run and not each.error]
    damaged = [each.error for each in kept if each.error]
    if not runs and damaged:
        raise damaged[0]
    if not runs:
        lie = "no run of these is chosen" if found else "no finished run lies there"
        raise UserError(f"{', '.join(paths)}: {lie}; promptgeo-runs FOLDER lists those of a folder")
    for error in damaged:
        warn(f"promptgeo: left out: {error}")
    return runs


def _lines() -> Iterator[str]:
    """Of standard input, those that are not empty."""
    try:
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: is no text in UTF-8 ({error.reason})") from error


class _Session:
    """Prompts of runs, with their model loaded, and how they are asked."""

    def __init__(self, runs: Sequence[Run], given: argparse.Namespace):
        from promptgeo.runs.model import model_of

        self.top = given.top
        self.which: str | int = int(given.which) if given.which.isdecimal() else given.which
        drawing = {name: getattr(given, name) for name in ("temperature", "top_k", "top_p", "seed")}
        self.options: dict[str, Any] = {name: value for name, value in drawing.items() if value is not None}
        if given.sample is not None or self.options:
            self.options["samples"] = 1 if given.sample is None else given.sample
        if given.max_new_tokens is not None:
            self.options["max_new_tokens"] = given.max_new_tokens
        self.runs = self._askable(runs)  # what is not there is said before a model is loaded
        self.sources = [run._writing().source for run in self.runs]
        with said_when_slow("loading the model"):
            width = self.runs[0].prompt().shape[1]
            self.lm: LM = model_of([run.info for run in self.runs], width, given.model, given.device, key="--model ")
        self.names = _names(self.runs) if len(self.runs) > 1 else []
        if self.names:
            say(f"  {self.names[0]}".rstrip())

    def answer(self, texts: Sequence[str], named: bool = False) -> None:
        """Prints a line for each text that is written, newlines in it as \\n. named: the input stands before it."""
        from promptgeo.runs.asking import generate_of, next_tokens_of

        inputs = [self._input(text) for text in texts]
        asked = f"{counted(len(texts), 'input')} with {counted(len(self.runs), 'prompt')}"
        with said_when_slow(f"writing after {asked}"):
            written_RE = generate_of(self.runs, inputs, self.which, self.lm, **self.options)
            tokens_RE = next_tokens_of(self.runs, inputs, self.which, self.lm, self.top) if self.top is not None else []
        for e, text in enumerate(texts):
            if named and self.names:
                say(_in_one_line(text))
            for r in range(len(self.runs)):
                before = f"  {self.names[1 + r]}  " if self.names else f"{_in_one_line(text)}\t" if named else ""
                outputs = written_RE[r][e]
                for k, output in enumerate(outputs if isinstance(outputs, list) else [outputs]):
                    start = " " * len(before) if self.names and k else before
                    say((start + _in_one_line(output.strip())).rstrip(" "))
                for token in tokens_RE[r][e] if tokens_RE else []:
                    start = " " * len(before) if self.names else ""
                    say(f"{start}  {token.probability:.4f}  {_in_one_line(repr(token.text))}")

    def _askable(self, runs: Sequence[Run]) -> list[Run]:
        """Those that have such a prompt, and say how inputs are written. Raises UserError where there is none."""
        askable, refused = [], []
        for run in runs:
            try:
                run._writing(), run._asked(self.which)
                askable.append(run)
            except UserError as error:
                refused.append(error)
        if not askable:
            raise refused[0]
        for one in refused:
            warn(f"promptgeo: left out: {one}")
        return askable

    def _input(self, text: str) -> "Input":
        """The columns, where a task of several is given them; else the text."""
        of_columns = any(FIELD.search(source.input) or source.repeat for source in self.sources)
        if not text.startswith("{") or not of_columns:
            return text
        try:
            columns = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return columns if isinstance(columns, dict) else text


def _in_one_line(text: str) -> str:
    return visible(text).replace("\n", "\\n")


def _names(runs: Sequence[Run]) -> list[str]:
    """Keys in which runs differ, and the values of each run, in columns; the folder too where they are not enough."""
    configs = [flatten(run.info["config"]) for run in runs]
    keys = sorted(varying(configs), key=lambda key: key == "seed")  # the last, as in tables of runs
    lines = [[named(config, [key]).partition("=")[2] for key in keys] for config in configs]
    lines.insert(0, [key.removesuffix(".name") for key in keys])
    if len({tuple(line) for line in lines[1:]}) < len(runs):
        lines = [[*line, end] for line, end in zip(lines, ["run", *(str(run.folder) for run in runs)], strict=True)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(visible(c).ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
