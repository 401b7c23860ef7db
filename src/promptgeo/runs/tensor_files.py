"""Which arrays does a file from elsewhere hold? .npy, .npz, .safetensors and torch.save files; no code of theirs runs.

Nothing is unpickled but tensors in plain containers (torch.load's weights_only), and what a file unpacks to is bounded.
"""

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptgeo.config.paths import require_file
from promptgeo.data.files import first_line
from promptgeo.errors import UserError

LARGEST = 8 * 2**30
"""Bytes of a file and of what it unpacks to. 10,000 prompts of GPT-2 XL with 4 tokens and 20 checkpoints are 5 GB."""
PACKED = 256 * 2**20
"""Bytes that a file may unpack to however small it is. Above, to 20 times its size: numbers do not shrink to less."""
TORCH = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
"""Endings of what torch.save writes. It is also known by its first bytes: published prompts often have no ending."""
SHOWN = 8
"""Of a file's tensors in an error, at most: as many as fit a line."""

_NPY, _ZIP, _LFS = b"\x93NUMPY", b"PK\x03\x04", b"version https://git-lfs"
_TORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SAVE_AGAIN = "save the prompt alone: torch.save(prompt.detach().cpu(), PATH)"


@dataclass(frozen=True)
class TensorFile:
    """What was read of a file."""

    path: Path
    tensors: dict[str, Any]
    """By name: NumPy or torch arrays; the exception, for one that cannot be read. Names in nested dictionaries are
    joined by dots; the one array of a file that names none is called "final"."""

    def named(self, name: str) -> str | None:
        """The tensor of that name, or the only one whose name ends in it (state_dict.prompt: prompt)."""
        ends = [each for each in self.tensors if each.endswith(f".{name}")]
        return name if name in self.tensors else ends[0] if len(ends) == 1 else None

    def listing(self) -> str:
        """The tensors with their shapes; those that are called a prompt come first."""
        names = sorted(self.tensors, key=lambda name: "prompt" not in name.lower())
        shown = [f"{name} {list(getattr(self.tensors[name], 'shape', '?'))}" for name in names[:SHOWN]]
        return ", ".join(shown) + (f" and {more} more" if (more := len(names) - SHOWN) > 0 else "")

    def array(self, name: str) -> np.ndarray:
        """A tensor as it is; torch's floating-point numbers as float32. Raises UserError where NumPy has no such."""
        value = self.tensors[name]
        try:
            if isinstance(value, Exception):
                raise value
            if value.nbytes > (limit := _limit(self.path)):  # a view of few numbers may claim many
                raise ValueError(f"it comes to {_gigabytes(value.nbytes)}, more than {_gigabytes(limit)}")
            return value if isinstance(value, np.ndarray) else _to_numpy(value)
        except Exception as error:  # torch has a family of them for what is sparse, quantised or without data
            raise UserError(f"{self.path}: {name} cannot be read: {first_line(error)}") from error

    def numbers(self, name: str) -> np.ndarray:
        """A tensor as float32. Raises UserError where it holds other than finite floating-point numbers."""
        array = self.array(name)
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{self.path}: {name} holds {array.dtype.name}; a prompt is made of floating-point numbers")
        with np.errstate(over="ignore"):
            array = np.asarray(array, dtype=np.float32, order="C")
        if not np.isfinite(array).all():
            first = np.argwhere(~np.isfinite(array))[0].tolist()
            raise UserError(f"{self.path}: {name} is not finite at {first}; a prompt is made of finite numbers")
        return array


def read_tensors(path: Path) -> TensorFile:
    """Read a file. Raises UserError, in one line, where it is not of a known kind, damaged, too large, or empty."""
    require_file(path, str(path), LARGEST)
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    kind = "file"
    try:
        kind = _kind(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about files that are read nonetheless or not at all
            tensors = _READERS[kind](path)
    except UserError:
        raise
    except Exception as error:  # each library has a family of its own
        raise UserError(f"{path}: is not a readable {kind}: {first_line(error)}") from error
    if not tensors:
        raise UserError(f"{path}: holds no tensors")
    return TensorFile(path, tensors)


def _kind(path: Path) -> str:
    """Which of _READERS: by the first bytes, where these say it, else by the ending."""
    with path.open("rb") as stream:
        head = stream.read(64)
    if head.startswith(_LFS):
        raise UserError(f"{path}: is a pointer of Git LFS, not the file: fetch it by git lfs pull")
    if head.startswith(_NPY):
        return ".npy array"
    if head.startswith(_ZIP) and (names := _members(path)):
        return ".npz file" if any(name.endswith(".npy") for name in names) else "torch.save file"
    if head.startswith(_TORCH_BEFORE_1_6) or path.suffix in TORCH:
        return "torch.save file"
    by_ending = {kind.split()[0]: kind for kind in _READERS}
    if path.suffix not in by_ending:
        raise UserError(f"{path}: cannot be read; .npy, .npz, .safetensors or a torch.save file (.pt) is needed")
    return by_ending[path.suffix]


def _members(path: Path) -> list[str]:
    """The names in a zip file; none where it is damaged. Raises UserError where it would unpack to too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile:
        return []  # whoever reads it by its ending says so
    unpacked = sum(m.file_size for m in members)
    if unpacked > (limit := _limit(path)):
        raise UserError(f"{path}: unpacks to {_gigabytes(unpacked)}, more than {_gigabytes(limit)}: save it unpacked")
    names = [m.filename for m in members]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: holds two arrays of one name; save it again")
    return names


def _limit(path: Path) -> int:
    return min(LARGEST, max(PACKED, 20 * path.stat().st_size))


def _read_npy(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        array = np.load(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError("it holds more than one array")
    return {"final": array}


def _read_npz(path: Path) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # it leaves open what it opens
        for name in file.files:
            try:
                array = file[name]
            except ValueError as error:  # such as objects beside the prompt
                array = error
            if isinstance(array, np.ndarray | ValueError):
                arrays[_printable(name)] = array
    return arrays


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
        keys = file.keys()
        return {_printable(key): file.get_tensor(key) for key in keys}


def _read_torch(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = str(error.__context__ or error)  # torch's own text advises to unpickle it nonetheless
        what = why.partition("GLOBAL ")[2].partition(" ")[0]
        if not what:
            raise ValueError(f"{first_line(ValueError(why))} ({_SAVE_AGAIN})") from error
        raise UserError(
            f"{path}: holds more than tensors ({what}); reading that could run any code, so it is not read: "
            + _SAVE_AGAIN
        ) from error
    return _tensors_in(loaded)


def _tensors_in(loaded: Any) -> dict[str, Any]:
    """The tensors in nested dictionaries and lists, each container once, by their keys joined with dots."""
    import torch

    found: dict[str, Any] = {}
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", loaded)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, torch.Tensor):
            if name in found:
                raise ValueError(f"two of its tensors are called {name}")
            found[name or "final"] = value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
            inside = [(f"{name}.{key}" if name else _printable(str(key)), each) for key, each in items]
            if len(name) > 1000:
                raise ValueError("its containers lie in each other too deeply")
            todo += [(_printable(inner), each) for inner, each in reversed(inside)]
    return found


_READERS = {
    ".npy array": _read_npy,
    ".npz file": _read_npz,
    ".safetensors file": _read_safetensors,
    "torch.save file": _read_torch,
}


def _to_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().resolve_neg()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _printable(name: str) -> str:
    """A name as it is, or its characters that no line can show as escapes."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GB"
