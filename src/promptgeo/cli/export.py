"""promptgeo-runs export: trained prompts as files that others load, on this disk or on the hub."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptgeo.config.explain import OneLineParser
from promptgeo.config.terminal import counted, say, warn
from promptgeo.errors import UserError

if TYPE_CHECKING:
    from promptgeo.runs.exporting import Export

HELP = """\
Share trained prompts: PEFT adapters with a model card, or files of arrays. promptgeo-runs import reads them back.

  promptgeo-runs export outputs/quickstart/tiny-plus_one-cat-s0-1a2b3c4d --to peft --out adapter
  promptgeo-runs export outputs/quickstart --to npy --checkpoints --out arrays
  promptgeo-runs export outputs/mine/<run> --to peft --which best --out adapter --push-to-hub me/my-prompt --dry-run

FORMAT is one of
  peft           what PeftModel.from_pretrained loads, with README.md; of several runs a folder each. Where BOS stood
                 before the prompt, the adapter's first row is its embedding: tokenise without BOS
  npy            an array [P, d] per run; with --checkpoints [C, P, d]
  safetensors    tensors final, initial, best; with --checkpoints trajectory and steps
  pt             the same in a dictionary, by torch.save; loads with weights_only=True

FOLDER also gets table.csv, as promptgeo-runs import takes it.
"""


def export(arguments: Sequence[str]) -> None:
    """The subcommand. Raises UserError for whatever must be mended, before anything is written."""
    given = export_parser().parse_intermixed_args(arguments)
    from promptgeo.runs.exporting import plan_export, write_export

    planned, left_out = plan_export(given.runs, given.to, given.which, given.checkpoints, given.base_model)
    if given.push_to_hub is not None:
        _require_shareable(given.push_to_hub, planned)
    for line in left_out:
        warn(line)
    if given.dry_run:
        _say_what_would_be(given.push_to_hub or given.out, dict(planned.files()))
        return
    if given.push_to_hub is None:
        write_export(planned, given.out)
    else:
        from promptgeo.runs.hub_upload import require_hub, upload

        hub = require_hub()
        write_export(planned, given.out)
        say(f"on the hub: {upload(hub, given.out, given.push_to_hub)} (private: make it public on its page)")
    say(f"{counted(len(planned.runs), 'prompt')} {'lie' if len(planned.runs) > 1 else 'lies'} in {given.out}/")
    files = given.out if planned.alone else f"{given.out}/*{'/' if given.to == 'peft' else f'.{given.to}'}"
    say(f"they come back with: promptgeo-runs import {files} --table {given.out}/table.csv --out outputs/<name>")


def export_parser() -> OneLineParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="promptgeo-runs export", description=HELP, formatter_class=as_written)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, or a folder of runs")
    parser.add_argument("--to", required=True, choices=("peft", "npy", "safetensors", "pt"), help="see above")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="must be new or empty, or hold these very files")
    which = "the prompt: after the last step, of the lowest validation loss, or P0; default: final"
    parser.add_argument("--which", choices=("final", "best", "initial"), default="final", help=which)
    parser.add_argument("--checkpoints", action="store_true", help="also every checkpoint that the run kept")
    base = "what adapters call their base model, such as a hub id where the run had a folder; default: as the run does"
    parser.add_argument("--base-model", metavar="NAME", help=base)
    push = "also send the one adapter there, as a private repository: needs a token (hf auth login)"
    parser.add_argument("--push-to-hub", metavar="NAME", help=push)
    parser.add_argument("--dry-run", action="store_true", help="say what would be written and sent, and stop")
    return parser


def _require_shareable(name: str, planned: "Export") -> None:
    """Raises UserError where a repository would hold several prompts, or a prompt of a model that nobody else has."""
    from promptgeo.runs.model_card import on_hub

    if not planned.alone:
        raise UserError(f"--push-to-hub {name}: a repository holds one adapter: give one run and --to peft")
    base = planned.base_model or planned.runs[0].info["config"]["model"].get("name_or_path")
    if base is not None and not on_hub(base):
        raise UserError(f"--push-to-hub {name}: its base model {base} is not on the hub; say its name: --base-model ID")


def _say_what_would_be(place: str, files: dict[str, bytes]) -> None:
    say(f"{place} would get:")
    for name, content in sorted(files.items()):
        say(f"  {name}  {len(content):,} bytes")
    if card := files.get("README.md"):
        say(f"\n{card.decode()}")
