"""What analyses get beside the runs: the frozen model, its vocabulary, what it ignores. Made once, if asked for."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from promptgeo.analysis.question import Question
from promptgeo.config.compose_analyze import AnalyzeConfig
from promptgeo.errors import UserError
from promptgeo.runs.model import model_of

if TYPE_CHECKING:
    from promptgeo.analysis.geometry.gauge import Gauge
    from promptgeo.analysis.geometry.vocabulary import Vocabulary
    from promptgeo.model.interface import LM
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
        if question.words:
            given["vocabulary"] = self.words
        return given

    @cached_property
    def lm(self) -> "LM":
        """The model that the runs were trained on. Raises UserError where it is not known, or another one is named."""
        infos = [run.info for run in self.runs.runs or []]
        width = self.runs.runs[0].prompt().shape[1] if self.runs.runs else 0
        lm: LM = model_of(infos, width, self.config.model, self.config.precision, self.config.device)
        return lm

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """The token embeddings of that model."""
        from promptgeo.analysis.geometry.vocabulary import Vocabulary

        return Vocabulary.of(self.lm)

    @cached_property
    def words(self) -> "Vocabulary | None":
        """The same, or None where there is no such model to ask.

        Raises UserError where a model is named that is not the runs' own.
        """
        try:
            return self.vocabulary
        except UserError:
            if self.config.model is not None:
                raise
            return None

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
