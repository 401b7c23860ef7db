"""What did experiments on a loaded model find before, on this machine? They need not be made again.

Kept in the user's cache folder under all that they depend on: the model's content, the code of this folder, the
libraries, the processor, its threads and settings. Whatever is amiss with a file, the experiments are made again.
"""

import hashlib
import json
import os
import platform
import re
import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Answer = TypeVar("Answer", bool, float)

IMMUTABLE = re.compile(r"sha256:|.*@[0-9a-f]{40}")
"""Fingerprints of content that cannot change: a folder's, or a hub id with its commit."""
KERNEL_SETTINGS = ("ATEN_", "DNNL_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TORCH_")
"""Environment variables that begin so may choose another kernel, and with it other bits."""


class Remembered:
    """What is known of one model.

    Nothing is, and nothing is kept, of a model on a GPU, where experiments are quick, one whose code is not the
    library's or whose products are a quantiser's, and one whose fingerprint does not say what it holds.
    """

    def __init__(self, model: "PreTrainedModel", fingerprint: str):
        weight = model.get_input_embeddings().weight
        known_code = type(model).__module__.startswith("transformers.models.")
        quantised = getattr(model.config, "quantization_config", None) is not None
        possible = weight.device.type == "cpu" and known_code and not quantised and IMMUTABLE.match(fingerprint)
        self._of = (fingerprint, str(weight.dtype)) if possible else None

    def get(self, question: str, kind: type[Answer]) -> Answer | None:
        """The answer that was kept; None where there is none of this kind."""
        answer = self._known().get(question)
        return answer if type(answer) is kind else None

    def keep(self, **answers: bool | float) -> None:
        """Keep answers by their questions, beside what is known already."""
        place = self._place()
        if place is None:
            return
        known = self._known() | answers
        with suppress(OSError):  # where nothing can be written the experiments are made each time
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as stream:
                temporary = Path(stream.name)
                try:
                    stream.write(json.dumps(known))
                    stream.close()
                    temporary.replace(place)
                finally:
                    temporary.unlink(missing_ok=True)

    def _known(self) -> dict[str, Any]:
        place = self._place()
        if place is not None:
            with suppress(OSError, ValueError):  # ValueError: not JSON, not UTF-8
                known = json.loads(place.read_text(encoding="utf-8"))
                return known if isinstance(known, dict) else {}
        return {}

    def _place(self) -> Path | None:
        folder = cache_folder()
        if self._of is None or folder is None:
            return None
        return folder / "models" / f"{hashlib.sha256(repr((self._of, _machine())).encode()).hexdigest()[:32]}.json"


def cache_folder() -> Path | None:
    """`$PROMPTGEO_CACHE`, else promptgeo's in the user's cache folder; None where it is empty, or nobody has a home."""
    own = os.environ.get("PROMPTGEO_CACHE")
    if own is not None:
        return Path(own) if own else None
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if caches.startswith("~") else Path(caches) / "promptgeo"


def _machine() -> tuple:
    """What else the bits of a product depend on, as it is now: threads may have been set since the last question."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith(KERNEL_SETTINGS))
    return _unchanging(), torch.get_num_threads(), settings


@lru_cache
def _unchanging() -> tuple:
    """The code that experiments, the libraries, the memory, and the processor by its name and what it can do."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code.update(file.read_bytes())
    libraries = tuple(version(name) for name in ("torch", "transformers", "tokenizers", "numpy"))
    processor = {platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()}
    with suppress(OSError):  # Linux; elsewhere platform knows the name
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor |= {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    memory = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0  # whether weights are prepacked hangs on it
    return code.hexdigest(), libraries, torch.__config__.show(), memory, sorted(processor)
