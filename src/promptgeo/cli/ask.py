"""The command promptgeo-runs ask: what does the model write after an input, with the prompt of a finished run?"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from promptgeo.config.explain import OneLineParser
from promptgeo.config.schema import FIELD
from promptgeo.config.terminal import say, visible, warn
from promptgeo.config.waiting import said_when_slow
from promptgeo.errors import UserError
from promptgeo.runs.folder import Run, find_runs

if TYPE_CHECKING:
    from promptgeo.data.tasks import Task
    from promptgeo.evaluation.generate import Input
    from promptgeo.model.interface import LM

HELP = """\
Ask the prompt of a finished run: what does the model write after an input?

    promptgeo-runs ask outputs/adhoc/tiny-country_capital-cat-s0-1b2c3d4e France Japan
    promptgeo-runs ask RUN France --which initial --top 5
    promptgeo-runs ask RUN --sample 3 --temperature 0.7 < inputs.txt

An input is written as the run's test examples were: template, BOS and prompt stand where they stood, and the answer
ends where theirs did. Without inputs, each line that you type is one, until Ctrl-D; lines from a pipe or a file are
answered together. A task of several columns takes them by name: '{"premise": "...", "hypothesis": "..."}'.
"""
SHOWN = 20
"""Runs that an error names, at most."""


def ask(arguments: Sequence[str]) -> None:
    """Raises UserError for whatever the user must mend."""
    given = ask_parser().parse_intermixed_args(arguments)
    run = _run_at(given.run)
    session = _Session(run, given)
    if given.inputs:
        session.answer(given.inputs, named=len(given.inputs) > 1)
    elif sys.stdin.isatty():
        warn("promptgeo: one input a line; Ctrl-D ends")
        for line in _lines():
            try:
                session.answer([line])
            except UserError as error:  # whoever types goes on
                warn(f"promptgeo: {error}")
    elif lines := list(_lines()):
        session.answer(lines)


def ask_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs ask", description=HELP, formatter_class=as_written)
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a folder with one run in it")
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="what stands for {input} in the template")
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


def _run_at(path: str) -> Run:
    """The one run at or below a folder. Raises UserError where there is none, or several."""
    runs, damaged = find_runs(path)
    if len(runs) == 1:
        return runs[0]
    if runs:
        names = ", ".join(str(run.folder) for run in runs[:SHOWN])
        raise UserError(f"{path}: {len(runs)} runs lie there; name one: {names}{', ...' if len(runs) > SHOWN else ''}")
    if damaged:
        raise damaged[0]
    raise UserError(f"{path}: no finished run lies there; promptgeo-runs FOLDER lists those of a folder")


def _lines() -> Iterator[str]:
    """Of standard input, those that are not empty."""
    try:
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: is no text in UTF-8 ({error.reason})") from error


class _Session:
    """One run's prompt, with the model loaded, and how it is asked."""

    def __init__(self, run: Run, given: argparse.Namespace):
        from promptgeo.runs.model import model_of
        from promptgeo.runs.writing import writing_of

        self.run, self.top = run, given.top
        self.which: str | int = int(given.which) if given.which.isdecimal() else given.which
        drawing = {name: getattr(given, name) for name in ("temperature", "top_k", "top_p", "seed")}
        self.options: dict[str, Any] = {name: value for name, value in drawing.items() if value is not None}
        if given.sample is not None or self.options:
            self.options["samples"] = 1 if given.sample is None else given.sample
        if given.max_new_tokens is not None:
            self.options["max_new_tokens"] = given.max_new_tokens
        if self.which != "none":
            run.prompt(self.which)  # what is not there is said before a model is loaded
        self.writing: Task = writing_of(run.info, str(run.folder))
        with said_when_slow("loading the model"):
            width = run.prompt().shape[1]
            self.lm: LM = model_of([run.info], width, given.model, device=given.device, key="--model ")

    def answer(self, texts: Sequence[str], named: bool = False) -> None:
        """Prints a line for each text that is written, newlines in it as \\n. named: the input stands before it."""
        inputs = [self._input(text) for text in texts]
        written = self.run.generate(inputs, self.which, lm=self.lm, **self.options)
        tokens = self.run.next_tokens(inputs, self.which, k=self.top, lm=self.lm) if self.top is not None else []
        for e, text in enumerate(texts):
            before = f"{_in_one_line(text)}\t" if named else ""
            for output in written[e] if isinstance(written[e], list) else [written[e]]:
                say(before + _in_one_line(output.strip()))
            for token in tokens[e] if tokens else []:
                say(f"  {token.probability:.4f}  {_in_one_line(repr(token.text))}")

    def _input(self, text: str) -> "Input":
        """The columns, where a task of several is given them; else the text."""
        source = self.writing.source
        if not text.startswith("{") or not (FIELD.search(source.input) or source.repeat):
            return text
        try:
            columns = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return columns if isinstance(columns, dict) else text


def _in_one_line(text: str) -> str:
    return visible(text).replace("\n", "\\n")
