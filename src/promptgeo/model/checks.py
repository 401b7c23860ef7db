"""Is the loaded model what promptgeo takes it for? Experiments on a few tokens; no list of families is consulted.

Of the untouched model: a token's prediction must not depend on later tokens; is it told enough by embeddings, or must
it have the token ids beside them? Of promptgeo's forward and backward: do they give what the untouched model gives,
row by row, unpadded, with plain autograd?

Shapes: B rows, T positions, P prompt tokens, M label positions, d width of the input embeddings, V vocabulary.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.model.batching import IGNORE, Batch, collate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_FP32, _BF16 = (1e-4, 1e-3), (5e-2, 2e-1)
"""(of logits, of the prompt's gradient): what rounding in all layers adds up to. A number in bf16 is exact to 2^-8."""
_BF16_SLACK = 4
"""In bf16 a model is refused only beyond this many times that: a router of experts may fall to the other side of a tie
by rounding alone, and what is wrong by its kind is wrong by the whole spread."""
_PROMPT_LENGTH = 2


def run_on(model: "PreTrainedModel", ids_BT: Tensor, embeds_BTd: Tensor, by_ids: bool, **options: Any) -> Tensor:
    """The model's logits on these embeddings.

    by_ids: hand it the ids too, for what it looks up beside their embeddings (per-layer embeddings, experts by token).
    The embedding module then gives `embeds_BTd`, whatever it is asked for.
    """
    if not by_ids:
        return model(inputs_embeds=embeds_BTd, use_cache=False, **options).logits
    # transformers takes ids or embeddings, never both.
    handle = model.get_input_embeddings().register_forward_hook(lambda *_: embeds_BTd)
    try:
        return model(input_ids=ids_BT, use_cache=False, **options).logits
    finally:
        handle.remove()


class Reference:
    """What the untouched model says of two rows with a prompt that is no row of the vocabulary: three passes over it.

    by_ids: whether it must have token ids beside their embeddings. logits_MV, gradient_Pd: fp32, unpadded rows of one
    length, by plain autograd.
    """

    def __init__(self, model: "PreTrainedModel", name: str, announced: bool = True):
        """Ask the model.

        Args:
            model: untouched, in eval mode.
            name: what errors call it.
            announced: whether the fingerprint says that it reads ids (loading.model_fingerprint).

        Raises UserError where it does not run forward and backward, looks ahead, or reads ids unannounced.
        """
        self._model, self.name, self._device = model, name, model.get_input_embeddings().weight.device
        a, b, c, d, e, f, g = _tokens(model)
        self._text_BT = torch.tensor([[a, b, c, d, e, f], [a, b, c, d, e, g]], device=self._device)
        # A tree shares three of their positions, a grid pads both.
        self.rows = [_row([a, -1, -2, b, c], [d, e]), _row([a, -1, -2, f], [g, d, e])]
        embed = model.get_input_embeddings()
        with torch.no_grad():
            vocabulary_Pd = embed(torch.tensor([b, f], device=self._device)).float()
            noise = torch.randn(vocabulary_Pd.shape, generator=torch.Generator().manual_seed(0)).to(self._device)
            self.prompt_Pd = vocabulary_Pd + 0.5 * vocabulary_Pd.std() * noise
            of_ids = _attempt(name, lambda: model(input_ids=self._text_BT, use_cache=False).logits).float()
        # Both texts have one shape, so even in bf16 they differ by nothing but what lies ahead: a thousandth of the
        # logits' spread is far above that nothing, and far below what a token more changes where it is seen.
        if (of_ids[0, :-1] - of_ids[1, :-1]).abs().max() > 1e-3 * of_ids.std():
            raise UserError(
                f"model.name_or_path={name}: a token's prediction depends on later tokens, "
                "so this is not a causal language model"
            )
        self.by_ids = False
        try:
            of_text = self._ask()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model may fail in any way where something that it needs is not there
            log.debug("model %s does not run on embeddings alone: %s", name, error)
            of_text = None
        if of_text is None or _distance(of_text, of_ids) > tolerances(model.dtype)[0]:
            self.by_ids, in_silence = True, of_text is not None
            of_text = _attempt(name, self._ask)
            if _distance(of_text, of_ids) > tolerances(model.dtype)[0] or (in_silence and not announced):
                # Earlier versions ran the silent kind on embeddings alone: without a mark those runs pass for these.
                raise UserError(
                    f"model.name_or_path={name}: it makes something else of token ids than of their embeddings, in a "
                    "way that no soft prompt can stand in for here; use another model"
                )

    def _ask(self) -> Tensor:
        """Sets logits and gradient; returns [B, T, V], the logits of the texts by their embeddings."""
        rows_BT = torch.stack([torch.from_numpy(np.concatenate([r.ids, r.label[:-1]])) for r in self.rows])
        ids_BT = torch.cat([self._text_BT, rows_BT.to(self._device)])
        text: list[Tensor] = []

        def logits(prompt_Pd: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
            text_BTd = self._model.get_input_embeddings()(ids_BT.clamp(min=0))
            prompt_BTd = prompt_Pd[(-1 - ids_BT).clamp(min=0)].to(text_BTd.dtype)
            embeds_BTd = torch.where((ids_BT < 0)[..., None], prompt_BTd, text_BTd)
            all_BTV = run_on(self._model, ids_BT.clamp(min=0), embeds_BTd, self.by_ids)
            text.append(all_BTV[:2].detach().float())
            for row, all_TV in zip(self.rows, all_BTV[2:], strict=True):
                yield all_TV[len(row.ids) - 1 :].float(), torch.from_numpy(row.label).to(self._device)

        self.logits_MV, self.gradient_Pd = self._solve(logits)
        return text[0]

    def compare(self, label_logits: Callable[[Tensor, Batch], Tensor], trees: bool) -> tuple[float, float]:
        """How far promptgeo's own forward and backward are off, on one tree or one padded grid.

        Returns the root mean square difference of the logits over their spread, and the relative one of the gradient.
        """
        device = self._device

        def logits(prompt_Pd: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
            for batch in collate(self.rows, [0, 0], _PROMPT_LENGTH, share_up_to=1 << 30 if trees else 0):
                kept = (batch.targets_M != IGNORE).to(device)
                logits_MV = label_logits(prompt_Pd[None], batch.to(device))
                yield logits_MV[kept], batch.targets_M.to(device)[kept]

        logits_MV, gradient_Pd = self._solve(logits)
        relative = (gradient_Pd - self.gradient_Pd).norm() / self.gradient_Pd.norm().clamp(min=1e-30)
        return _distance(logits_MV, self.logits_MV), float(relative)

    @torch.enable_grad()
    def _solve(self, logits: Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
        prompt_Pd = self.prompt_Pd.clone().requires_grad_()
        said = list(logits(prompt_Pd))
        loss = sum(cross_entropy(logits_MV, targets_M, reduction="sum") for logits_MV, targets_M in said)
        gradient_Pd = torch.autograd.grad(loss, prompt_Pd)[0]
        return torch.cat([logits_MV.detach() for logits_MV, _ in said]), gradient_Pd


def tolerances(dtype: torch.dtype) -> tuple[float, float]:
    """(of logits, of the prompt's gradient) that rounding in this dtype explains."""
    return _BF16 if dtype is torch.bfloat16 else _FP32


def tree_agrees(reference: Reference, label_logits: Callable[[Tensor, Batch], Tensor], dtype: torch.dtype) -> bool:
    """Whether the model says the same of rows in a tree as the reference: if not, or if it fails, grids are used."""
    try:
        off = reference.compare(label_logits, trees=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # attention that is not transformers' function may fail in any way
        log.debug("model %s cannot share prefixes: %s", reference.name, error)
        return False
    return all(a <= b for a, b in zip(off, tolerances(dtype), strict=True))


def require_grid_agrees(
    reference: Reference, label_logits: Callable[[Tensor, Batch], Tensor], dtype: torch.dtype
) -> None:
    """Raises UserError where the model's logits or gradients in a padded grid are not the reference's."""
    slack = _BF16_SLACK if dtype is torch.bfloat16 else 1
    off = _attempt(reference.name, lambda: reference.compare(label_logits, trees=False))
    for what, value, most in zip(("logits", "gradients"), off, tolerances(dtype), strict=True):
        if not value <= slack * most:
            raise UserError(
                f"model.name_or_path={reference.name}: its {what} of a padded batch with a soft prompt are off by "
                f"{value:.2g} of their size from those of single rows, so it cannot be trained here; use another model"
            )


def _attempt(name: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model's own code raises
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise UserError(
            f"model.name_or_path={name}: it does not run on a few tokens and a soft prompt "
            f"({type(error).__name__}: {why[:200]}); use another model"
        ) from error


def _distance(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).square().mean().sqrt() / theirs.std().clamp(min=1e-30))


def _tokens(model: "PreTrainedModel") -> list[int]:
    """Seven token ids from the middle of the vocabulary: special ones stand at its ends."""
    size = model.get_input_embeddings().weight.shape[0]
    return [(size // 2 + k) % size for k in range(7)]


def _row(ids: list[int], label: list[int]) -> Row:
    return Row(np.array(ids, np.int64), np.array(label, np.int64))
