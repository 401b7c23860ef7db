"""How are prompts from elsewhere read? Files of arrays and PEFT adapters, one prompt or one for every table row.

Shapes: N prompts (table rows), C checkpoints, P prompt tokens, d width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.config.paths import require_file
from promptgeo.data.files import first_line
from promptgeo.errors import UserError
from promptgeo.runs.adapter_mark import mark_of
from promptgeo.runs.tensor_files import TensorFile, read_tensors

NAMES = ("final", "prompts", "prompt_embeddings")
"""What the trained prompt is called in a file with several tensors, unless --tensor says it."""
BESIDE = ("initial", "trajectory", "steps", "best")
"""What else is read of such a file."""
HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
"""PEFT's task types whose model answers by a head of its own, trained with the prompt, not by words."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file."""

    final: np.ndarray
    """[P, d] float32."""
    initial: np.ndarray | None = None
    """[P, d] float32: P0, where it is known."""
    trajectory: np.ndarray | None = None
    """[C, P, d] float32."""
    steps: np.ndarray | None = None
    """[C] int64, where the file says them."""
    best: np.ndarray | None = None
    """[P, d] float32."""


@dataclass(frozen=True)
class PromptFile:
    """A file's prompts, and what it says of their model."""

    path: Path
    arrays: dict[str, np.ndarray]
    """final, initial, trajectory, steps, best, as far as they are there; with a leading N where the file holds a prompt
    for every row. All but steps are float32."""
    left_out: tuple[str, ...] = ()
    """The file's tensors that are not imported: 20 of them, and how many more."""
    model: str | None = None
    revision: str | None = None
    bos: str | None = None
    """Where BOS stands, as template.bos says it, by the mark of an exported adapter; None: nothing says it."""
    is_adapter: bool = False
    """PEFT's: unless it is marked, trained with the prompt before the model's BOS."""
    task_type: str | None = None
    """PEFT's, such as CAUSAL_LM."""

    @property
    def note(self) -> str | None:
        """What the user should know of what is not imported; None where all is."""
        names = ", ".join(self.left_out)
        if self.task_type in HEADS:
            return (
                f"was trained as {self.task_type}: its head ({names or 'which it does not hold'}) is left behind, and "
                "without it the prompt does not answer as it did"
            )
        return f"not used: {names} (tensors of the file)" if names else None

    @property
    def holds_one(self) -> bool:
        """Whether it is one prompt, [P, d] or [C, P, d] named trajectory, by its number of axes."""
        final, trajectory = self.arrays.get("final"), self.arrays.get("trajectory")
        return final.ndim == 2 if final is not None else trajectory is not None and trajectory.ndim == 3

    def prompt(self) -> Prompt:
        """The file's one prompt, [P, d]. Raises UserError where it holds another shape."""
        return Prompt(**_checked(self.path, self.arrays, 2))

    def prompts(self) -> list[Prompt]:
        """A prompt for every row, [N, P, d]. Raises UserError where the file holds another shape."""
        arrays = _checked(self.path, self.arrays, 3)
        steps = arrays.pop("steps", None)
        rows = range(len(arrays["final"]))
        return [Prompt(**{name: array[i] for name, array in arrays.items()}, steps=steps) for i in rows]


def read(path: Path, tensor: str | None = None) -> PromptFile:
    """Read a file, or a PEFT adapter's folder.

    tensor: what the trained prompt is called in it. Raises UserError where it holds no prompts that can be imported.
    """
    if path.is_dir():
        return _read_adapter(_adapter_folder(path), tensor)
    return _prompts_of(read_tensors(path), tensor)


def _prompts_of(file: TensorFile, tensor: str | None) -> PromptFile:
    known = {name: name for name in BESIDE if name in file.tensors}
    if final := _final(file, tensor):
        known = {name: name for name in known if name != final} | {"final": final}
    arrays = {name: file.array(name) if name == "steps" else file.numbers(of) for name, of in known.items()}
    rest = [name for name in file.tensors if name not in known.values()]
    more = [f"and {len(rest) - 20} more"] if len(rest) > 20 else []
    return PromptFile(file.path, arrays, (*rest[:20], *more))


def _final(file: TensorFile, tensor: str | None) -> str | None:
    """The trained prompt's name; None where the last checkpoint is it. Raises UserError where that cannot be told."""
    if tensor is not None:
        if (named := file.named(tensor)) is None:
            raise UserError(f"{file.path}: --tensor {tensor}: is no one tensor of it; it has {file.listing()}")
        return named
    if named := next((name for name in NAMES if name in file.tensors), None):
        return named
    if not any(name in file.tensors for name in BESIDE):
        if len(file.tensors) > 1:
            raise UserError(
                f"{file.path}: has {len(file.tensors)} tensors, {file.listing()}; say which is the trained prompt: "
                "--tensor NAME"
            )
        return next(iter(file.tensors))
    if "trajectory" not in file.tensors:
        raise UserError(
            f"{file.path}: has {file.listing()}, and none is called final; say which is the trained prompt: "
            "--tensor NAME"
        )
    return None


def _adapter_folder(folder: Path) -> Path:
    """Where the adapter lies: PEFT saves one that has a name in a folder of that name."""
    if (folder / "adapter_config.json").exists():
        return folder
    named = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
    if not named:
        raise UserError(f"{folder}: has no adapter_config.json: it is no PEFT adapter; name files or adapter folders")
    if len(named) > 1:
        names = ", ".join(path.name for path in named[:8]) + ", ..." * (len(named) > 8)
        raise UserError(f"{folder}: holds the adapters {names}; name one of them: {named[0]}")
    return named[0]


def _read_adapter(folder: Path, tensor: str | None) -> PromptFile:
    """A PEFT adapter. Prefix tuning and P-tuning store `prompt_embeddings` too, but as something else."""
    config = _adapter_config(folder / "adapter_config.json")
    kind, length = config.get("peft_type"), config.get("num_virtual_tokens")
    if kind != "PROMPT_TUNING":
        raise UserError(
            f"{folder}: is a PEFT adapter of type {str(kind)[:80]}; "
            "only PROMPT_TUNING has a soft prompt among the input embeddings"
        )
    if config["task_type"] == "SEQ_2_SEQ_LM" or config.get("num_transformer_submodules") not in (None, 1):
        raise UserError(
            f"{folder}: was trained for an encoder-decoder model (SEQ_2_SEQ_LM), whose prompts stand before the "
            "encoder's and the decoder's input; only prompts of decoders (CAUSAL_LM) can be imported"
        )
    files = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin")]
    weights = next((path for path in files if path.exists()), files[0])
    tensors = read_tensors(weights)
    if tensor not in (None, "prompt_embeddings"):
        raise UserError(f"{folder}: --tensor {tensor}: an adapter's prompt is called prompt_embeddings")
    shape = list(getattr(tensors.tensors.get("prompt_embeddings"), "shape", []))
    if len(shape) != 2 or shape[0] != length:
        raise UserError(
            f"{weights}: prompt_embeddings [{str(length)[:80]}, d] is needed, as adapter_config.json has it; "
            f"found {tensors.listing()}"
        )
    prompts = _prompts_of(tensors, "prompt_embeddings")
    mark = mark_of(weights)
    if mark is not None and mark.rows_before >= shape[0]:
        raise UserError(f"{weights}: its mark says that {mark.rows_before} of its {shape[0]} rows are no prompt tokens")
    return PromptFile(
        folder,
        prompts.arrays | ({"final": prompts.arrays["final"][mark.rows_before :]} if mark else {}),
        prompts.left_out,
        config["base_model_name_or_path"],
        config["revision"],
        mark.bos if mark else None,
        is_adapter=True,
        task_type=config["task_type"],
    )


def _adapter_config(path: Path) -> dict[str, Any]:
    """What adapter_config.json says; base_model_name_or_path, revision and task_type are texts or None."""
    require_file(path, str(path), 16 * 2**20)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no fields")
        for key in ("base_model_name_or_path", "revision", "task_type"):
            value = config.setdefault(key, None)
            if not isinstance(value, str | None):
                raise ValueError(f"{key} must be a text or null")
            (value or "").encode()  # half of a character, written as an escape, cannot be written again
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    return config


def _checked(path: Path, arrays: dict[str, np.ndarray], axes: int) -> dict[str, np.ndarray]:
    """The file's arrays, of one prompt (axes 2: [P, d]) or of one per row (axes 3: [N, P, d]).

    An array with one axis more is a trajectory; its last checkpoint is the final prompt.
    """
    arrays = dict(arrays)
    steps = arrays.pop("steps", None)
    shape = "[P, d] or, with checkpoints, [C, P, d]" if axes == 2 else "[N, P, d] or, with checkpoints, [N, C, P, d]"
    if "final" in arrays and arrays["final"].ndim == axes + 1 and "trajectory" not in arrays:
        arrays["trajectory"] = arrays.pop("final")
    trajectory = arrays.get("trajectory")
    if trajectory is not None and "final" not in arrays and trajectory.ndim == axes + 1 and trajectory.size:
        arrays["final"] = trajectory[..., -1, :, :]
    final = arrays.get("final")
    for name, array in arrays.items():
        same: np.ndarray | None = array
        if name == "trajectory":
            same = array[..., 0, :, :] if array.ndim == axes + 1 and array.shape[-3] else None
        if final is None or final.ndim != axes or same is None or same.shape != final.shape or not array.size:
            raise UserError(f"{path}: {name} has shape {list(array.shape)}; {shape} is needed")
    return arrays | ({"steps": steps} if steps is not None else {})
