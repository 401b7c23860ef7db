"""How does a trained prompt leave promptgeo? As a PEFT adapter with a model card, or as a file of arrays with a table.

What promptgeo-runs import reads of it is the same prompt, to the last byte. The folder appears whole or not at all.

Shapes: C checkpoints, P prompt tokens, R rows before the prompt, d width.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.config.paths import require_short, user_path
from promptgeo.config.schema import Bos, Template
from promptgeo.data.bos import bos_of, put_bos
from promptgeo.errors import UserError
from promptgeo.model.loading import model_fingerprint, read_model, reads_ids
from promptgeo.model.tokenizer import tokenizer_of
from promptgeo.runs.adapter_mark import Mark, header_of
from promptgeo.runs.folder import Run, find_runs, whole_folder
from promptgeo.runs.model_card import Card, card_text
from promptgeo.runs.prompt_table import NEEDED, OPTIONAL
from promptgeo.runs.writing import template_of

FORMATS = ("peft", "npy", "safetensors", "pt")
WHICH = ("final", "best", "initial")
EXPORTED = ("completed", "imported")
"""The status of runs that have a prompt to share."""


@dataclass(frozen=True)
class Export:
    """What an export writes, and what it says."""

    runs: list[Run]
    to: str
    which: str
    checkpoints: bool
    base_model: str | None = None
    """What an adapter calls its base model, instead of what the run calls it."""

    @property
    def alone(self) -> bool:
        """One adapter: the folder itself is it."""
        return self.to == "peft" and len(self.runs) == 1

    def place(self, run: Run) -> str:
        """Of the run's prompt, in the folder: a file, or an adapter's folder."""
        if self.to == "peft":
            return "" if self.alone else run.folder.name
        return f"{run.folder.name}.{self.to}"

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file by its place in the folder, the same bytes each time.

        Raises UserError where a run has no such prompt, or nothing there can say it.
        """
        yield "table.csv", _table(self)
        for run in self.runs:
            if self.to == "peft":
                yield from self._adapters(run)
            else:
                yield self.place(run), _encoded(self._arrays(run), self.to)

    def _adapters(self, run: Run) -> Iterator[tuple[str, bytes]]:
        """Of the prompt, and of each checkpoint in a folder step-<n> below."""
        wanted: dict[str, str | int] = {"": self.which}
        if self.checkpoints:
            wanted |= {f"step-{step}": step for step in run.tensors["steps"].tolist()}
        for below, which in wanted.items():
            for name, content in _adapter(run, which, self.base_model).items():
                yield "/".join(part for part in (self.place(run), below, name) if part), content

    def _arrays(self, run: Run) -> dict[str, np.ndarray]:
        """The tensors of a file, as import reads them; of an .npy the one that it holds."""
        final = run.prompt(self.which)
        if self.to == "npy":
            return {"final": _whole_trajectory(run)[0] if self.checkpoints else final}
        beside = {"final": ("initial", "best"), "best": ("initial",), "initial": ()}[self.which]
        beside += ("trajectory", "steps") if self.checkpoints and len(run.tensors["steps"]) else ()
        return {"final": final} | {name: run.tensors[name] for name in beside if name in run.tensors}


def plan_export(
    places: Sequence[str | Path],
    to: str,
    which: str = "final",
    checkpoints: bool = False,
    base_model: str | None = None,
) -> tuple[Export, list[str]]:
    """What would be exported, and what is left out, as lines.

    Args:
        places: run folders, or folders of runs.
        to: one of FORMATS.
        which: one of WHICH: the prompt that is exported.
        checkpoints: also every checkpoint that the run kept.
        base_model: what an adapter calls its base model; None: as the run does.

    Raises UserError where a run is damaged, or none has a prompt to share.
    """
    if checkpoints and which != "final" and to != "peft":
        raise UserError(
            f"--checkpoints: the last of a file's checkpoints is the final prompt; leave --which {which} out"
        )
    found: dict[str, Run] = {}
    for place in places:
        runs, damaged = find_runs(place)
        if damaged:
            raise UserError(f"damaged: {damaged[0]}")
        found |= {run.id: run for run in runs}
    left_out = [f"left out: {run.folder} ({run.status})" for run in found.values() if run.status not in EXPORTED]
    runs = [run for run in found.values() if run.status in EXPORTED]
    if not runs:
        raise UserError(f"{places[0]}: no completed or imported run lies there")
    names: dict[str, Run] = {}
    for run in runs:
        if (other := names.setdefault(run.folder.name, run)) is not run:
            raise UserError(f"{run.folder}, {other.folder}: have one name; export them into two folders")
    return Export(runs, to, which, checkpoints, base_model), left_out


def write_export(export: Export, out: str | Path) -> None:
    """Write the folder. Where all of it lies there already, nothing is written.

    Raises UserError where anything else lies there, or it cannot be written.
    """
    out = user_path(str(out), "out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not out.is_dir() or not _lies_in(out, export):
            raise UserError(
                f"--out {out}: exists already and holds something else; nothing was overwritten: choose another"
            )
        return
    with whole_folder(out, f"--out {out}") as new:
        for name, content in export.files():
            require_short(new / name, f"--out {out}"[:80])
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)


def _lies_in(out: Path, export: Export) -> bool:
    """Whether the folder holds these very files, and no other."""
    left = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if not path.is_dir() or path.is_symlink()}
    for name, content in export.files():
        path = left.pop(name, None)
        if path is None or not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
            return False
    return not left


def _table(export: Export) -> bytes:
    """A CSV table as import reads it: a row for each run."""
    rows = [_row(export, run) for run in export.runs]
    columns = [c for c in (*NEEDED, *OPTIONAL) if c in NEEDED or any(row.get(c) not in (None, "") for row in rows)]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _row(export: Export, run: Run) -> dict[str, Any]:
    config, results = run.info["config"], run.info["results"]
    accuracy = results["accuracy"].get(export.which)
    row = {
        "task": config["task"]["name"],
        "init": config["init"]["name"],
        "seed": config["seed"],
        "template": config["template"]["name"],
        "accuracy": accuracy,
        "n": results["n"] if accuracy is not None else None,
        "file": export.place(run),
    }
    if export.to == "peft":
        return row  # an adapter itself says its model, and where BOS stands
    template = template_of(run.info)
    row |= {
        "model": config["model"].get("name_or_path"),
        "bos": template.bos.name if template else config["template"].get("bos"),
    }
    if export.to == "npy" and export.checkpoints:
        row["steps"] = ",".join(map(str, _whole_trajectory(run)[1]))
    return row


def _whole_trajectory(run: Run) -> tuple[np.ndarray, list[int]]:
    """[C, P, d] with P0 first, where it is known, and the final prompt last; and the step of each. [P, d]: no steps.

    Raises UserError where the final prompt is none of its checkpoints.
    """
    trajectory_CPd, steps = run.tensors["trajectory"], run.tensors["steps"].tolist()
    if not steps:
        return run.prompt(), []
    if not np.array_equal(trajectory_CPd[-1], run.prompt()):
        raise UserError(f"{run.folder}: its final prompt is not its last checkpoint: --to safetensors holds both")
    if "initial" in run.tensors:
        trajectory_CPd, steps = np.concatenate([run.prompt(0)[None], trajectory_CPd]), [0, *steps]
    return trajectory_CPd, steps


def _encoded(arrays: dict[str, np.ndarray], to: str, header: dict[str, str] | None = None) -> bytes:
    """A file's bytes."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    stream = io.BytesIO()
    if to == "npy":
        np.save(stream, arrays["final"], allow_pickle=False)
    elif to == "pt":
        import torch

        torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, stream)
    else:
        import safetensors.numpy

        return safetensors.numpy.save(arrays, metadata=header)
    return stream.getvalue()


def _adapter(run: Run, which: str | int, base_model: str | None) -> dict[str, bytes]:
    """The files of a PEFT adapter, with its model card."""
    model = run.info["config"]["model"]
    base, revision = (base_model, None) if base_model else (model.get("name_or_path"), model.get("revision"))
    if model.get("name_or_path") is None:
        raise UserError(f"{run.folder}: its model is not known, which an adapter names; import it with a column model")
    if reads_ids(run.info["fingerprints"]["model"] or ""):
        raise UserError(
            f"{run.folder}: its model reads token ids too, which PEFT does not give it; --to npy has the prompt"
        )
    order = _order_of(run)
    before_Rd = _embeddings(run, order.before)
    rows = np.concatenate([before_Rd, run.prompt(which)])
    config = {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(rows),
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "revision": revision,
        "task_type": "CAUSAL_LM",
        "token_dim": rows.shape[1],
    }
    mark = header_of(Mark(order.bos, len(before_Rd)))
    card = Card(run, which, base, revision, order.text, len(before_Rd), order.bos == Bos.after_prompt.name)
    return {
        "adapter_config.json": (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        "adapter_model.safetensors": _encoded({"prompt_embeddings": rows}, "safetensors", mark),
        "README.md": card_text(card).encode(),
    }


@dataclass(frozen=True)
class _Order:
    """Where a run's prompt stands among the tokens of a row."""

    bos: str
    """always, never or after_prompt."""
    before: tuple[int, ...]
    """Token ids that stand before the prompt in every row."""
    text: str | None
    """What follows the prompt, with {input}; None where that is not known."""


def _order_of(run: Run) -> _Order:
    """Raises UserError where PEFT cannot stand the prompt where it stood, or that is not known."""
    config = run.info["config"]
    model, template = config["model"], template_of(run.info)
    known = template.bos.name if template else config["template"].get("bos")
    before, text = "", None
    if template is not None:
        before, _, text = template.text.rpartition("{prompt}")
        if "{input}" in before or "{prompt}" in before or config["task"]["source"].get("repeat"):
            raise UserError(
                f"{run.folder}: template {template.name} puts the prompt behind the input or repeats it, and PEFT puts "
                "it before everything, once; --to npy, safetensors or pt"
            )
    if known in (Bos.never.name, Bos.after_prompt.name) and not before:
        return _Order(known, (), text)
    lm = tokenizer_of(model["name_or_path"], model["revision"], model.get("trust_remote_code", False))
    wanted = template or Template(name="", text="{input}", bos=Bos[known or "auto"])
    bos = bos_of(wanted, lm)
    if known is None and bos:
        raise UserError(
            f"{run.folder}: it is not known whether BOS stood before the prompt; import it with a column bos "
            "(always, never, after_prompt)"
        )
    ids = put_bos([*lm.encode(before), -1] if before else [-1], bos, wanted)
    return _Order(known or Bos.never.name, tuple(ids[: ids.index(-1)]), text)


def _embeddings(run: Run, ids: tuple[int, ...]) -> np.ndarray:
    """[R, d] fp32: as the run's first layer got these tokens. Raises UserError where its model has changed since."""
    if not ids:
        return np.empty((0, run.prompt().shape[1]), np.float32)
    model = run.info["config"]["model"]
    where = model["name_or_path"], model["revision"], model.get("trust_remote_code", False)
    trained_on = run.info["fingerprints"]["model"]
    if trained_on is not None and model_fingerprint(*where) != trained_on:
        raise UserError(
            f"{run.folder}: model.name_or_path={where[0]} is no longer the model that it was trained on; BOS is one of "
            "its embeddings"
        )
    return _embedded(*where, run.info.get("precision") or "fp32", ids)


@lru_cache(maxsize=8)
def _embedded(
    name: str, revision: str | None, trust_remote_code: bool, precision: str, ids: tuple[int, ...]
) -> np.ndarray:
    import torch

    model, _ = read_model(name, revision, precision, "cpu", trust_remote_code)
    with torch.no_grad():  # through the module, which may scale them (Gemma)
        return model.get_input_embeddings()(torch.tensor(ids)).float().numpy()
