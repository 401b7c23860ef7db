"""What is searched for: a text, a finished run's prompt or a given prompt? Read from what a user names.

Shapes: P prompt tokens, d width.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptgeo.config.paths import user_path
from promptgeo.config.terminal import counted
from promptgeo.errors import UserError
from promptgeo.runs.folder import DIGITS, Run
from promptgeo.runs.table import RunTable

if TYPE_CHECKING:
    from promptgeo.model.frozen_lm import FrozenLM

WHAT = "near"
"""The command's name, for messages."""
IN_PYTHON = "{}="
"""How an option's name is written before its value."""
LONGEST = 60
"""Characters of a text that a message shows."""

Sought = str | Run | np.ndarray
"""A text; a run, of which one prompt is meant; or a prompt, [P, d] or [d] float32."""


def flag(option: str, name: str) -> str:
    """How a switch is set, where an option is written so: text=True, or --text."""
    return f"{name}=True" if option == IN_PYTHON else option.format(name.replace("_", "-")).strip()


def sought(to: object, runs: RunTable, as_text: bool, option: str) -> Sought:
    """What `to` means: a place is the run that lies there, any other text itself, whatever has numbers a prompt.

    A text is a place where something lies at it, where it is a path below a folder that is there, and where it is a
    run's name: a mistyped folder is not searched for as a text.

    runs: that are searched. as_text: take it for a text, whatever lies there. option: how messages write an option.
    Raises UserError for a place without a finished run, a text that is not Unicode, and what is none of these.
    """
    if isinstance(to, str) and (as_text or not _is_place(to, runs)):
        return _in_unicode(to)
    if as_text:
        raise UserError(f"{flag(option, 'text')}: to= is no text")
    if isinstance(to, str | Path):
        return _run_at(to, runs, option)
    return to if isinstance(to, Run) else _as_prompt(to)


def mean_token(to: Sought, which: str | int, lm: "FrozenLM | None") -> tuple[np.ndarray, str]:
    """([d] float32, what it is of, in words). lm: what reads a text. Raises UserError for a text without tokens."""
    if isinstance(to, Run):
        at = f"the {which} prompt" if isinstance(which, str) else f"the prompt at step {which}"
        return to.prompt(which).mean(0), f"{at} of run {to.folder.name}"
    if not isinstance(to, str):
        prompt_Pd = to.reshape(-1, to.shape[-1])
        return prompt_Pd.mean(0), f"the given prompt of {counted(len(prompt_Pd), 'token')}"
    import torch

    assert lm is not None
    ids = lm.encode(to)
    shown = repr(to if len(to) <= LONGEST else f"{to[:LONGEST]}...")
    if not ids:
        raise UserError(f"{WHAT}: {shown} has no token for this model")
    mean_d: np.ndarray = lm.embed(torch.tensor(ids, device=lm.device)).float().mean(0).cpu().numpy()
    return mean_d, f"the word {shown}" if len(ids) == 1 else f"the text {shown} of {len(ids)} tokens"


def _is_place(text: str, runs: RunTable) -> bool:
    with suppress(ValueError):  # what no path can hold
        place = os.path.expanduser(text)
        above = os.path.dirname(place.rstrip(os.sep)) or os.curdir
        return os.path.lexists(place) or (os.sep in text and os.path.isdir(above)) or _is_runs_name(text, runs)
    return False


def _is_runs_name(text: str, runs: RunTable) -> bool:
    shaped = not any(map(str.isspace, text)) and DIGITS.search(text) is not None
    return shaped or any(run.folder.name == text for run in runs.runs or [])


def _run_at(to: str | Path, runs: RunTable, option: str) -> Run:
    place = user_path(str(to), "to")
    if os.path.isfile(place / "run.json"):
        return Run.load(place)
    if os.path.lexists(place):
        wrong = "no finished run's folder; name one, or a word or a sentence"
    elif named := [run.folder for run in runs.runs or [] if run.folder.name == str(to)]:
        wrong = f"a run's name; name its folder, {named[0]}"
    else:
        wrong = "no such folder; name a run's, or a word or a sentence"
    instead = f"; {flag(option, 'text')} searches for these characters" if isinstance(to, str) else ""
    raise UserError(f"{WHAT}: {to}: {wrong}{instead}")


def _in_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{WHAT}: {text[:LONGEST]!a} is no text in UTF-8") from error
    return text


def _as_prompt(to: object) -> np.ndarray:
    """[P, d] or [d] float32. Raises UserError for what is no prompt."""
    given = np.empty(0, np.float32)
    with suppress(TypeError, ValueError):
        given = np.asarray(to, dtype=np.float32)
    if given.ndim not in (1, 2) or not given.size or not np.isfinite(given).all():
        raise UserError(f"{WHAT}: to= must be a text, a Run, or a prompt: finite numbers in the shape [P, d] or [d]")
    return given
