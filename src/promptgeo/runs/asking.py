"""What does a trained prompt write after inputs of the user's own? A run's methods for whoever uses its prompt.

Shapes: R runs, E inputs, N prompts, P prompt tokens, d width, T positions of an input with its prompt.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptgeo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from promptgeo.data.tasks import Task
    from promptgeo.evaluation.generate import Input
    from promptgeo.model.interface import LM


class Askable:
    """What a run's prompts can be asked: a part of Run, which has the folder and the prompts."""

    if TYPE_CHECKING:

        @property
        def folder(self) -> Path: ...

        @property
        def info(self) -> dict[str, Any]: ...

        def prompt(self, which: str | int = "final") -> np.ndarray: ...

    def load_model(self, model: str | None = None, *, precision: str = "auto", device: str = "auto") -> "LM":
        """The model that the run was trained on; the last one that was loaded is kept.

        Args:
            model: the hub id or folder where it lies now; None: as the run says.
            precision: fp32, bf16, or auto: that of the run.
            device: cpu, cuda or auto.

        Raises UserError where it cannot be found, or is not the one that the run was trained on.
        """
        from promptgeo.runs.model import model_of  # runs are listed without torch

        return model_of([self.info], self.prompt().shape[1], model, precision, device)

    def generate(
        self, inputs: "Input | Sequence[Input]", which: str | int = "final", *, lm: "LM | None" = None, **options: Any
    ) -> Any:
        """What the model writes after inputs, with a prompt of this run, as its test examples were written and ended.

            run.generate("France")
            run.generate(["France", "Japan"], "best", samples=3, temperature=0.7)

        Args:
            inputs: an input, or a list of them: the text that stands for {input} in the template, or its columns by
                name, of which task.source.input makes it.
            which: final, initial, best, the step of a checkpoint, or none: the model without a prompt.
            lm: the model, where it is loaded; None: the run's own (load_model).
            options: samples, temperature, top_k, top_p, seed, max_new_tokens, as promptgeo.generate has them.

        Returns a text, as predictions.jsonl calls `output`; a list where inputs are one, and of samples.
        Raises UserError where the run was trained elsewhere, or as promptgeo.generate does.
        """
        from promptgeo.evaluation.generate import generate

        writing = self._writing()
        return generate(lm or self.load_model(), self._asked(which), inputs, writing, **options)

    def next_tokens(
        self, inputs: "Input | Sequence[Input]", which: str | int = "final", *, k: int = 10, lm: "LM | None" = None
    ) -> Any:
        """The k likeliest tokens after inputs, each a NextToken: text, probability (0 to 1), id. See `generate`."""
        from promptgeo.evaluation.generate import next_tokens

        writing = self._writing()
        return next_tokens(lm or self.load_model(), self._asked(which), inputs, writing, k)

    def embeddings(self, given: "Input", which: str | int = "final", *, lm: "LM | None" = None) -> "Tensor":
        """[1, T, d]: prompt and text, BOS and all, as the model reads them, in its dtype and on its device.

            lm = run.load_model()
            model, tokenizer = lm.model, lm.tokenizer       # or transformers' own, of the same dtype
            model.generate(inputs_embeds=run.embeddings("France"), do_sample=False, max_new_tokens=16)

        That writes what `generate` does, and goes on behind the terminator. See `generate` for what it takes. Raises
        UserError as `generate` does, and for a model that reads token ids beside embeddings.
        """
        from promptgeo.evaluation.generate import embeddings

        writing = self._writing()
        return embeddings(lm or self.load_model(), self._asked(which), given, writing)

    def _writing(self) -> "Task":
        from promptgeo.runs.writing import writing_of

        return writing_of(self.info, str(self.folder))

    def _asked(self, which: str | int) -> np.ndarray:
        """[P, d] float32; no token of no prompt."""
        if which == "none":
            return self.prompt()[:0]
        try:
            return self.prompt(which)
        except UserError as error:
            raise UserError(f"{error}; none asks without a prompt") from error


def generate_of(
    runs: Sequence[Askable], inputs: "Input | Sequence[Input]", which: str | int, lm: "LM", **options: Any
) -> list[Any]:
    """For each of several runs of one model what Run.generate returns; runs whose inputs are written alike together."""
    from promptgeo.evaluation.generate import generate

    return _of_all(runs, which, lambda prompts_NPd, writing: generate(lm, prompts_NPd, inputs, writing, **options))


def next_tokens_of(
    runs: Sequence[Askable], inputs: "Input | Sequence[Input]", which: str | int, lm: "LM", k: int
) -> list[Any]:
    """For each of several runs of one model what Run.next_tokens returns. See `generate_of`."""
    from promptgeo.evaluation.generate import next_tokens

    return _of_all(runs, which, lambda prompts_NPd, writing: next_tokens(lm, prompts_NPd, inputs, writing, k))


def _of_all(runs: Sequence[Askable], which: str | int, of: "Callable[[np.ndarray, Task], list[Any]]") -> list[Any]:
    """What `of` finds for each run: it is given the prompts [N, P, d] of runs of one length and one writing."""
    prompts_R = [run._asked(which) for run in runs]
    alike: dict[tuple[int, str], list[int]] = {}
    for r, run in enumerate(runs):
        config = run.info["config"]
        how = [config["task"], config["template"], config.get("evaluation", {}).get("max_new_tokens")]
        alike.setdefault((len(prompts_R[r]), json.dumps(how)), []).append(r)
    found: dict[int, Any] = {}
    for group in alike.values():
        prompts_NPd = np.stack([prompts_R[r] for r in group])
        found |= zip(group, of(prompts_NPd, runs[group[0]]._writing()), strict=True)
    return [found[r] for r in range(len(runs))]
