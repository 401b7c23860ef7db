"""Where does a model come from? A folder or the hub, with its tokenizer; and what identifies it.

Whatever keeps a model from being used is a UserError here, one line that names model.name_or_path.
"""

import hashlib
import logging
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from promptgeo.config.paths import EMBEDDED_MODEL, user_path
from promptgeo.data.hub import offline_if_unreachable
from promptgeo.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
_LFS = b"version https://git-lfs"
_READS_IDS = "+token-ids"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def resolve_device(device: str) -> str:
    """cpu or cuda for auto. Raises UserError where cuda is wanted and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: no CUDA device is available here; use device=cpu or device=auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_precision(precision: str, device: str) -> str:
    """fp32 or bf16 for auto: fp32 on a CPU, most of which have no instructions for bf16."""
    return ("bf16" if device == "cuda" else "fp32") if precision == "auto" else precision


def local_folder(name_or_path: str) -> Path | None:
    """The folder that `name_or_path` names, or that its GGUF file lies in; `tiny` is the embedded model's.

    Raises UserError for what looks like a folder and is none.
    """
    if name_or_path == "tiny":
        return EMBEDDED_MODEL
    path = user_path(name_or_path, "model.name_or_path")
    if path.is_dir():
        return path
    if path.suffix == ".gguf" and path.is_file():
        return path.parent
    looks_local = name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1  # a hub id has one slash
    if looks_local:
        raise UserError(f"model.name_or_path={name_or_path}: no such folder")
    return None


@lru_cache(maxsize=8)  # a command has one or two models; a study compares a handful
def model_fingerprint(name_or_path: str, revision: str | None = None, trust_remote_code: bool = False) -> str:
    """What identifies a model's numbers: a local folder's content, or a hub id with its commit.

    Marked where the config has per-layer embeddings of token ids: see reads_ids.
    """
    folder = local_folder(name_or_path)
    if folder is None:
        config = read_config(name_or_path, revision, trust_remote_code)
        mark = _READS_IDS if "per_layer_input" in config.to_json_string(use_diff=False) else ""
        return f"{name_or_path}@{getattr(config, '_commit_hash', None) or revision or 'main'}{mark}"
    digest = hashlib.sha256()
    if gguf := _gguf_file(name_or_path):
        with gguf.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    kinds = (".json", ".safetensors", ".bin", ".txt", ".model", ".py")
    for file in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in kinds):
        digest.update(os.fsencode(file.name) + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    try:
        mark = _READS_IDS if "per_layer_input" in (folder / "config.json").read_text(encoding="utf-8") else ""
    except (OSError, UnicodeDecodeError):  # read_config says what is wrong with it
        mark = ""
    return f"sha256:{digest.hexdigest()}{mark}"


def reads_ids(fingerprint: str) -> bool:
    """Whether the fingerprint says that the model is given token ids beside embeddings.

    The mark keeps runs of models with per-layer embeddings apart from those that earlier versions ran without ids. An
    experiment on the loaded model decides what is done (checks.needs_ids).
    """
    return fingerprint.endswith(_READS_IDS)


def read_model(
    name_or_path: str, revision: str | None, precision: str, device: str, trust_remote_code: bool
) -> tuple["PreTrainedModel", Any]:
    """A causal language model of transformers on `device`, and its tokenizer.

    Args:
        name_or_path: a hub id, a local folder, or tiny.
        revision: a hub branch, tag or commit.
        precision: fp32 or bf16, whatever the checkpoint was saved in.
        device: cpu or cuda.
        trust_remote_code: run code that a hub repository brings.

    Raises UserError where it cannot be found, has no causal language-model head, or no tokenizer.
    """
    from transformers import AutoModelForCausalLM

    key = f"model.name_or_path={name_or_path}"
    source = str(local_folder(name_or_path) or name_or_path)
    config = read_config(name_or_path, revision, trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{key}: an encoder-decoder; promptgeo needs a causal language model")
    if precision == "bf16" and device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        log.warning("precision=bf16: this CPU has no instructions for it; fp32 is faster here")
    where = _where(name_or_path, revision, trust_remote_code)
    try:
        # Pinned dtype: transformers otherwise loads whatever the checkpoint was saved in.
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[precision], output_loading_info=True, **where
        )
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # files of any kind of damage, and the libraries that read them, raise anything
        if "AutoModelForCausalLM" in str(error):
            raise UserError(f"{key}: {config.model_type} has no causal language-model head") from error
        raise UserError(_cannot_load(name_or_path, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        head = model.get_output_embeddings()
        heads = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight is head.weight}
        why = "no causal language-model head was saved with it"
        if not heads & set(missing):
            why = f"{len(missing)} weights of its config.json are not there; take both from one checkpoint"
        raise UserError(f"{key}: the checkpoint lacks {missing[0]}: {why}")
    return model.to(device), read_tokenizer(name_or_path, revision, trust_remote_code)


def read_tokenizer(name_or_path: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer, read once. Raises UserError where there is none."""
    folder = local_folder(name_or_path)
    return _read_tokenizer(folder and folder.absolute(), name_or_path, revision, trust_remote_code)


@lru_cache(maxsize=8)
def _read_tokenizer(folder: Path | None, name_or_path: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    key = f"model.name_or_path={name_or_path}"
    if folder is None:
        offline_if_unreachable()
    where = _where(name_or_path, revision, trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder or name_or_path), **where)
    except Exception as error:  # tokenizers raises anything
        if folder is None:
            raise UserError(_cannot_load(name_or_path, error)) from error
        raise UserError(f"{key}: its tokenizer cannot be loaded: {_cause(name_or_path, error)}") from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        # transformers makes an empty tokenizer of the model's type where a folder holds none.
        raise UserError(f"{key}: its tokenizer cannot be loaded: there is none beside the model")
    return tokenizer


def read_config(name_or_path: str, revision: str | None, trust_remote_code: bool) -> "PretrainedConfig":
    """The model's config, without its weights. Raises UserError where it cannot be found."""
    from transformers import AutoConfig

    folder = local_folder(name_or_path)
    if folder is None:
        offline_if_unreachable()
    source = str(folder or name_or_path)
    where = _where(name_or_path, revision, trust_remote_code)
    try:
        return AutoConfig.from_pretrained(source, **where)
    except Exception as error:
        raise UserError(_cannot_load(name_or_path, error)) from error


def _where(name_or_path: str, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """What from_pretrained is told beside the folder or the hub id."""
    gguf = _gguf_file(name_or_path)
    file = {"gguf_file": gguf.name} if gguf else {}
    return {"revision": revision, "trust_remote_code": trust_remote_code} | file


def _gguf_file(name_or_path: str) -> Path | None:
    """The GGUF file that is named, or that alone stands for a model in a folder without a config."""
    path = user_path(name_or_path, "model.name_or_path")
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise UserError(
            f"model.name_or_path={name_or_path}: {len(files)} GGUF files; name one: model.name_or_path={files[0]}"
        )
    return files[0] if files else None


def _cannot_load(name_or_path: str, error: Exception) -> str:
    key = f"model.name_or_path={name_or_path}"
    if local_folder(name_or_path) is not None:
        return f"{key}: no model can be read from this folder: {_cause(name_or_path, error)}"
    if not isinstance(error, OSError):
        return f"{key}: it cannot be loaded: {_cause(name_or_path, error)}"
    return (
        f"{key}: neither a local folder nor a model the hub gives here "
        "(no network, no such model, or no access): give a local copy with model.name_or_path=<folder>"
    )


def _cause(name_or_path: str, error: Exception) -> str:
    """Why loading failed and what mends it, in one line."""
    text = " ".join(str(error).split())
    if folder := local_folder(name_or_path):
        for file in sorted(p for p in folder.iterdir() if p.is_file()):
            with file.open("rb") as stream:
                pointer = stream.read(len(_LFS)) == _LFS
            if pointer:
                return f"{file.name} is a git-LFS pointer, not the file itself; run git lfs pull there"
    if "trust_remote_code" in text:
        return "it needs code of its own; if you trust that code, set model.trust_remote_code=true"
    if "does not recognize this architecture" in text:
        return f"{_short(text)}; a newer transformers may (pip install -U transformers)"
    if isinstance(error, ImportError) or "pip install" in text:
        return f"a package is missing: {_short(text)}; install it beside promptgeo"
    if "size mismatch" in text or "mismatched" in text:
        return "its weights have other shapes than its config.json says; take both from one checkpoint"
    if gguf := _gguf_file(name_or_path):
        return f"{gguf.name} is no whole GGUF file of a family that transformers reads ({_short(text)})"
    if type(error).__name__ == "SafetensorError":
        return f"its weights are cut or damaged ({_short(text)}); copy the .safetensors files again"
    return f"{_short(text) or type(error).__name__} ({type(error).__name__}); copy or download the files again"


def _short(text: str) -> str:
    """The first sentence, without its full stop and without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.split(r"(?<=[a-z)`'])\. ", text)[0].rstrip(" .")[:240]
