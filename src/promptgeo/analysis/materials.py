"""What analyses get beside the runs: the frozen model, its vocabulary, what it ignores. Made once, if asked for."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from promptgeo.analysis.question import Question
from promptgeo.config.compose_analyze import AnalyzeConfig
from promptgeo.errors import UserError

if TYPE_CHECKING:
    from promptgeo.analysis.geometry.gauge import Gauge
    from promptgeo.analysis.geometry.vocabulary import Vocabulary
    from promptgeo.model.interface import LM
    from promptgeo.runs.folder import Run
    from promptgeo.runs.table import RunTable


class Materials:
    """What can be made for these runs by this config."""

    def __init__(self, runs: "RunTable", config: AnalyzeConfig):
        self.runs, self.config = runs, config

    def given_to(self, question: Question) -> dict[str, Any]:
        """The keyword arguments lm, vocabulary and gauge, as far as the question declares them."""
        given: dict[str, Any] = {}
        if question.lm:
            given["lm"] = self.lm
        if question.vocabulary:
            given["vocabulary"] = self.vocabulary
        if question.gauge:
            given["gauge"] = self.gauge
        return given

    @cached_property
    def lm(self) -> "LM":
        """The model that the runs were trained on. Raises UserError where it is not known, or another one is named."""
        from promptgeo.model.frozen_lm import FrozenLM
        from promptgeo.model.loading import local_folder

        name, revision = self._model()
        if local_folder(name):  # nothing to wait for; a download keeps its bar
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()
        lm: LM = FrozenLM.load(name, revision=revision, precision=self._precision(), device=self.config.device)
        if self._values(_fingerprint) - {lm.fingerprint}:
            raise UserError(
                f"model {name} is not the one that these runs were trained on (its content differs); "
                "name that one with model=<folder>"
            )
        if (width := self._runs[0].prompt().shape[1]) != lm.width:
            raise UserError(
                f"model {name} has width {lm.width}, these prompts {width}: they were trained on another one; "
                "name it with model=<hub id or folder>"
            )
        return lm

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """The token embeddings of that model."""
        from promptgeo.analysis.geometry.vocabulary import Vocabulary

        return Vocabulary.of(self.lm)

    @cached_property
    def gauge(self) -> "Gauge | None":
        """What that model ignores of a prompt token; None where there is none to ask.

        Raises UserError where a model is named that is not the runs' own.
        """
        from promptgeo.analysis.geometry.gauge import gauge_of

        try:
            return gauge_of(self.lm)
        except UserError:
            if self.config.model is not None:
                raise
            return None

    @property
    def _runs(self) -> "list[Run]":
        return self.runs.runs or []

    def _model(self) -> tuple[str, str | None]:
        """Name or folder, and revision."""
        if len(self._values(_fingerprint)) > 1:
            raise UserError("these runs were trained on different models; choose some with where=\"model == '...'\"")
        if self.config.model is not None:
            return self.config.model, None
        configs = [run.info["config"]["model"] for run in self._runs]
        models = {(model["name_or_path"], model.get("revision")) for model in configs if model.get("name_or_path")}
        if not models:
            raise UserError("these prompts were imported without their model; name it with model=<hub id or folder>")
        if len(models) > 1:
            names = ", ".join(sorted({name for name, _ in models}))
            raise UserError(
                f"these runs have different models ({names}); choose some with where=\"model == '...'\", "
                "or name it with model=..."
            )
        return models.pop()

    def _precision(self) -> str:
        if self.config.precision != "auto":
            return self.config.precision
        precisions = sorted(self._values(lambda info: info.get("precision")))
        if len(precisions) > 1:
            raise UserError(
                f"these runs were trained in different precisions ({', '.join(precisions)}); "
                "choose one with precision=..."
            )
        return precisions[0] if precisions else "auto"

    def _values(self, of: Callable[[dict[str, Any]], Any]) -> set[Any]:
        """A value of each run.json; runs that do not know it are left out."""
        return {of(run.info) for run in self._runs} - {None}


def _fingerprint(info: dict[str, Any]) -> str | None:
    fingerprint: str | None = info.get("fingerprints", {}).get("model")
    return fingerprint
