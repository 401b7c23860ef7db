"""Which model were these runs trained on? It is loaded, and must be that very one."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from promptgeo.errors import UserError

if TYPE_CHECKING:
    from promptgeo.model.frozen_lm import FrozenLM

Info = dict[str, Any]
"""A run.json."""


def model_of(
    infos: Sequence[Info],
    width: int,
    model: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    key: str = "model=",
) -> "FrozenLM":
    """The model that runs were trained on, in the precision that they were trained in.

    Args:
        infos: the run.json of each.
        width: d of their prompts.
        model: the hub id or folder where it lies now; None: as the runs say.
        precision: fp32, bf16, or auto: that of the runs.
        device: cpu, cuda or auto.
        key: what a user names the model with.

    Raises UserError where it is not known, is not the one that the runs were trained on, or they differ in it.
    """
    from promptgeo.model.frozen_lm import FrozenLM
    from promptgeo.model.loading import local_folder

    name, revision = _name(infos, model, key)
    try:
        folder = local_folder(name)
    except UserError as error:
        if model is not None:
            raise
        raise UserError(f"{error}; where the model lies elsewhere now, name it with {key}<folder>") from error
    if folder:  # nothing to wait for; a download keeps its bar
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
    lm = FrozenLM.load(name, revision=revision, precision=_precision(infos, precision, key), device=device)
    if _values(infos, _fingerprint) - {lm.fingerprint}:
        raise UserError(
            f"model {name} is not the one that these runs were trained on (its content differs); "
            f"name that one with {key}<folder>"
        )
    if width != lm.width:
        raise UserError(
            f"model {name} has width {lm.width}, these prompts {width}: they were trained on another one; "
            f"name it with {key}<hub id or folder>"
        )
    return lm


def _name(infos: Sequence[Info], model: str | None, key: str) -> tuple[str, str | None]:
    """Name or folder, and revision."""
    if len(_values(infos, _fingerprint)) > 1:
        raise UserError(f"these runs were trained on different models; choose some with {_where(key)}")
    if model is not None:
        return model, None
    configs = [info["config"]["model"] for info in infos]
    models = {(config["name_or_path"], config.get("revision")) for config in configs if config.get("name_or_path")}
    if not models:
        raise UserError(f"these prompts were imported without their model; name it with {key}<hub id or folder>")
    if len(models) > 1:
        names = ", ".join(sorted({name for name, _ in models}))
        raise UserError(
            f"these runs have different models ({names}); choose some with {_where(key)}, or name it with {key}..."
        )
    return models.pop()


def _where(key: str) -> str:
    """The condition, as whoever names a model with this key writes it."""
    return f"{'--where ' if key.startswith('--') else 'where='}\"model == '...'\""


def _precision(infos: Sequence[Info], precision: str, key: str) -> str:
    if precision != "auto":
        return precision
    precisions = sorted(_values(infos, lambda info: info.get("precision")))
    if len(precisions) > 1:
        way = "name runs of one of them" if key.startswith("--") else "choose one with precision=..."
        raise UserError(f"these runs were trained in different precisions ({', '.join(precisions)}); {way}")
    return precisions[0] if precisions else "auto"


def _values(infos: Sequence[Info], of: Callable[[Info], Any]) -> set[Any]:
    """A value of each run.json; runs that do not know it are left out."""
    return {of(info) for info in infos} - {None}


def _fingerprint(info: Info) -> str | None:
    fingerprint: str | None = info.get("fingerprints", {}).get("model")
    return fingerprint
