"""regulariser=wayward: what pulls the tokens of a soft prompt to the tokens of a text, whatever its task is?

Khashabi et al. 2022, "Prompt Waywardness" (arXiv 2112.08348), train

    cross-entropy + gamma * mean over tokens i of ||P_i - E[t_i]||^2

Here the squared distance is in units of the variance of all entries of the vocabulary's embeddings (a run's gamma over
that variance is the study's own), so that one gamma means the same for models of any embedding scale. A token drawn at
random from the vocabulary lies at about 2 d such units. What is logged as loss stays the cross-entropy; the penalty can
be told from distance_to_p0 where P0 is the text. Each run is pulled by itself: in a pack it equals the run alone.

Shapes: P prompt tokens, d width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from promptgeo.config.schema import Regulariser, RegulariserKind
from promptgeo.errors import UserError
from promptgeo.model.interface import LM


@dataclass(frozen=True, eq=False)
class HeldTo:
    """A text's embeddings, with how strongly a prompt is held to them."""

    text_Pd: Tensor
    """fp32 on the model's device."""
    gamma: float
    variance: float
    """Of the embeddings: the unit of the squared distance."""

    def penalty(self, prompt_Pd: Tensor) -> Tensor:
        """What is added to the cross-entropy, in nats; a scalar that is differentiable in the prompt."""
        return self.gamma / self.variance * (prompt_Pd - self.text_Pd).square().sum(1).mean()


def held_to(regulariser: Regulariser, lm: LM, length: int) -> HeldTo | None:
    """The text that a prompt of so many tokens is held to; None without this regulariser.

    Raises UserError where the text has another number of tokens.
    """
    if regulariser.name is not RegulariserKind.wayward:
        return None
    ids = lm.encode(regulariser.text or "")
    if len(ids) != length:
        raise UserError(
            f"regulariser.text={regulariser.text!r} is {len(ids)} tokens for this model, the prompt has {length}; "
            f"set prompt.length={len(ids)}, or init=text, which starts from this text and is as long"
        )
    with torch.no_grad():
        text_Pd = lm.embed(torch.tensor(ids, device=lm.device)).float()
    return HeldTo(text_Pd, regulariser.gamma, lm.embedding_scale**2)


def pull(prompt_Pd: Tensor, text: HeldTo) -> None:
    """Add the penalty's gradient to that of the prompt, a leaf. A gamma of 0 leaves every bit as it is."""
    if text.gamma:
        text.penalty(prompt_Pd).backward()
