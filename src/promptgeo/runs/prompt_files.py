"""How are prompts from elsewhere read? .npy, .safetensors and PEFT adapters, one prompt or one for every table row.

Shapes: N prompts (table rows), C checkpoints, P prompt tokens, d width.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptgeo.errors import UserError

NAMES = ("final", "prompts", "prompt_embeddings")
"""What the trained prompt is called in a .safetensors file with several tensors."""


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
    for every row."""
    model: str | None = None
    revision: str | None = None
    is_adapter: bool = False
    """PEFT's: trained with the prompt before the model's BOS."""

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


def read(path: Path) -> PromptFile:
    """Read a file, or a PEFT adapter's folder. Raises UserError where it holds no prompts that can be imported."""
    if path.is_dir():
        return _read_adapter(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".npy":
        return PromptFile(path, _read_npy(path))
    if path.suffix == ".safetensors":
        return PromptFile(path, _read_safetensors(path))
    raise UserError(f"{path}: cannot be imported; .npy, .safetensors or a PEFT adapter's folder is needed")


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: is not a readable .npy array of numbers: {_first_line(error)}") from error
    return {"final": array}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            keys = file.keys()
            tensors = {key: file.get_tensor(key) for key in keys}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is not a readable .safetensors file: {_first_line(error)}") from error
    arrays = {key: (x.float() if x.is_floating_point() else x).numpy() for key, x in tensors.items()}
    named = [name for name in NAMES if name in arrays]
    if len(arrays) > 1 and not named and "trajectory" not in arrays:
        raise UserError(
            f"{path}: has tensors {', '.join(arrays)}; the trained prompt must be called final "
            "(P0: initial; checkpoints: trajectory, steps)"
        )
    known = {key: arrays[key] for key in ("initial", "trajectory", "steps", "best") if key in arrays}
    final = named[0] if named else next(iter(arrays)) if not known else None
    return known | ({"final": arrays[final]} if final else {})


def _read_adapter(folder: Path) -> PromptFile:
    """A PEFT adapter. Prefix tuning and P-tuning store `prompt_embeddings` too, but as something else."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: has no adapter_config.json: it is no PEFT adapter; name files or adapter folders"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'adapter_config.json'}: cannot be read: {_first_line(error)}") from error
    if kind != "PROMPT_TUNING":
        raise UserError(
            f"{folder}: is a PEFT adapter of type {kind}; "
            "only PROMPT_TUNING has a soft prompt among the input embeddings"
        )
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        old = (folder / "adapter_model.bin").exists()
        other = " (there is an adapter_model.bin: save it again with a newer PEFT)" if old else ""
        raise UserError(f"{weights}: is missing{other}")
    arrays = _read_safetensors(weights)
    length = config.get("num_virtual_tokens")
    if "final" not in arrays or arrays["final"].ndim != 2 or len(arrays["final"]) != length:
        shape = list(arrays["final"].shape) if "final" in arrays else "none"
        raise UserError(
            f"{weights}: prompt_embeddings [{length}, d] is needed, as adapter_config.json has it; found {shape}"
        )
    model, revision = config.get("base_model_name_or_path"), config.get("revision")
    return PromptFile(folder, {"final": arrays["final"]}, model, revision, is_adapter=True)


def _checked(path: Path, arrays: dict[str, np.ndarray], axes: int) -> dict[str, np.ndarray]:
    """The file's arrays as float32, of one prompt (axes 2: [P, d]) or of one per row (axes 3: [N, P, d]).

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
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{path}: {name} holds {array.dtype}; a prompt is made of floating-point numbers")
        same: np.ndarray | None = array
        if name == "trajectory":
            same = array[..., 0, :, :] if array.ndim == axes + 1 and array.shape[-3] else None
        if final is None or final.ndim != axes or same is None or same.shape != final.shape or not array.size:
            raise UserError(f"{path}: {name} has shape {list(array.shape)}; {shape} is needed")
        with np.errstate(over="ignore"):
            arrays[name] = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(arrays[name]).all():
            first = np.argwhere(~np.isfinite(arrays[name]))[0].tolist()
            raise UserError(f"{path}: {name} is not finite at {first}; leave that prompt out")
    return arrays | ({"steps": steps} if steps is not None else {})


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
