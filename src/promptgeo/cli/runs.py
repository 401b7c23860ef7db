"""The command promptgeo-runs: which subcommand is meant? And import: prompts trained elsewhere become runs.

Exit status 1 if a run is damaged or was not trained, 2 if the user must mend something.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from promptgeo.cli import ask, completion, export, listing, near, remove, retry
from promptgeo.config.explain import OneLineParser, nearest
from promptgeo.config.terminal import say, warn
from promptgeo.errors import UserError
from promptgeo.training.interruption import exit_statuses

IMPORT_HELP = """\
Make run folders of soft prompts that were trained elsewhere. Analyses that score nothing read them.

  promptgeo-runs import prompts.npy --table prompts.csv --out outputs/theirs
  promptgeo-runs import run_*/adapter --table prompts.csv --out outputs/theirs
  promptgeo-runs import model.ckpt --tensor state_dict.prompt --table prompts.csv --out outputs/theirs

FILE is one of
  prompts.npy            [N, P, d], or [N, C, P, d] with C checkpoints: one prompt for every row of the table
  run.npy ...            one file per row, which the table's column `file` names: [P, d], or checkpoints [C, P, d];
                         the last checkpoint is the final prompt
  prompts.safetensors    the same, also as .npz or as torch.save writes it (.pt, .ckpt, .bin, no ending): one tensor,
                         or tensors final and perhaps initial (P0), trajectory, steps, best; --tensor names another
  adapter/ ...           PEFT adapters (prompt tuning) of decoders, also in a folder of the adapter's name

Nothing in a file is run: of what torch.save wrote, tensors in dictionaries and lists are read, nothing else.

N: rows of the table. P: prompt tokens. d: width of the model's input embeddings.

TABLE.csv has one row per prompt. Its columns task and init are needed. It may have seed, model, template,
accuracy (0 to 1), n (test examples), file, steps and bos (where BOS stood: always, before the prompt; after_prompt;
never).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. arguments: of the command line, by default sys.argv[1:]."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    named = arguments[0] if arguments[:1] and arguments[0] in COMMANDS else None
    if completion.ASKED in os.environ:
        _complete(os.environ.get("COMP_LINE", "").split())
    with exit_statuses("give the command again"):
        if named is None:
            _check_word(arguments)
            listing.list_runs(arguments)
        else:
            COMMANDS[named][1](arguments[1:])


def _check_word(arguments: Sequence[str]) -> None:
    """Raises UserError for a first word that is spelt like a subcommand and is no folder."""
    word = arguments[0] if arguments else ""
    if word and not word.startswith("-") and not os.path.lexists(os.path.expanduser(word)):
        said = nearest(word, list(COMMANDS))
        if said.startswith("nearest") or (len(arguments) > 1 and not arguments[1].startswith("-")):
            raise UserError(f"{word}: no such folder and no such subcommand; {said}")


def _complete(words: list[str]) -> None:
    """words: of the line, as far as it is written. A subcommand is complete once another word follows it."""
    line = os.environ.get("COMP_LINE", "")
    if len(words) > 1 and words[1] in COMMANDS and (len(words) > 2 or line.endswith(" ")):
        completion.complete(COMMANDS[words[1]][0](), 2)
    parser = listing.list_parser()
    (path,) = (action for action in parser._actions if action.dest == "path")
    from argcomplete.completers import FilesCompleter

    files = FilesCompleter()
    path.completer = lambda prefix, **given: [*COMMANDS, *files(prefix, **given)]  # type: ignore[attr-defined]
    completion.complete(parser)


def import_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs import", description=IMPORT_HELP, formatter_class=as_written)
    parser.add_argument("files", metavar="FILE", nargs="+", help="see above")
    parser.add_argument("--table", metavar="TABLE.csv", required=True, help="one row per prompt; see above")
    out_help = "where the runs go, such as outputs/<name>; must be new or empty, or hold these very runs"
    parser.add_argument("--out", metavar="FOLDER", required=True, help=out_help)
    parser.add_argument("--initial", metavar="P0.npy", help="P0 of every row, [N, P, d]; deltas need it")
    steps_help = (
        "step of the first checkpoint and steps between two (0:1: the first is P0), or every step with commas; "
        "default: the file's own, else 1:1"
    )
    parser.add_argument("--steps", metavar="FIRST:BY", help=steps_help)
    tensor_help = "what the trained prompt is called in files with several tensors; default: final, or the only one"
    parser.add_argument("--tensor", metavar="NAME", help=tensor_help)
    return parser


def _import(arguments: Sequence[str]) -> None:
    given = import_parser().parse_intermixed_args(arguments)
    from promptgeo.runs.importing import import_prompts

    folders, notes = import_prompts(given.files, given.table, given.out, given.initial, given.steps, given.tensor)
    for note in notes:
        warn(note)
    say(f"{len(folders)} imported runs lie in {given.out}/")


COMMANDS: dict[str, tuple[Callable[[], OneLineParser], Callable[[Sequence[str]], None]]] = {
    "verify": (listing.verify_parser, listing.verify),
    "json": (listing.json_parser, listing.list_as_json),
    "retry": (retry.retry_parser, retry.retry),
    "rm": (remove.remove_parser, remove.remove_runs),
    "ask": (ask.ask_parser, ask.ask),
    "near": (near.near_parser, near.near),
    "export": (export.export_parser, export.export),
    "import": (import_parser, _import),
}
"""By the first word: what reads the others, and what does it."""


if __name__ == "__main__":
    main()
