"""Which tokens begin every row? What the model's tokenizer puts before a text (BOS), where the template wants it."""

import re
from dataclasses import replace

from promptgeo.config.schema import Bos, Template
from promptgeo.data.text_model import TextModel
from promptgeo.errors import UserError


def bos_of(template: Template, lm: TextModel) -> list[int]:
    """The tokens to put into every row of this template: none where the template's text writes them itself.

    Raises UserError where the template demands them and the tokenizer puts none.
    """
    if template.bos is Bos.never:
        return []
    bos = list(lm.bos)
    if not bos and template.bos is not Bos.auto:
        raise UserError(
            f"template.bos={template.bos.name}: this model's tokenizer puts nothing before a text; "
            "set template.bos=auto or never"
        )
    return [] if bos and _writes(template, lm, bos) else bos


def with_resolved_bos(template: Template, lm: TextModel) -> Template:
    """The template with what its `bos` comes to for this model: never wherever nothing is put."""
    if not bos_of(template, lm):
        return replace(template, bos=Bos.never)
    return replace(template, bos=Bos.always) if template.bos is Bos.auto else template


def put_bos(ids: list[int], bos: list[int], template: Template) -> list[int]:
    """A row's tokens with BOS at index 0, before the soft prompt; or behind its first prompt, as PEFT has it."""
    if template.bos is not Bos.after_prompt:
        return bos + ids
    start = next((i for i, token in enumerate(ids) if token < 0), 0)
    end = next((i for i in range(start, len(ids)) if ids[i] >= 0), len(ids))
    return ids[:end] + bos + ids[end:]


def _writes(template: Template, lm: TextModel, bos: list[int]) -> bool:
    """Whether the template's own text begins with these tokens, {prompt} apart."""
    first = re.split(r"{\w*}", template.text.replace("{prompt}", "", 1))[0]
    return lm.encode(first)[: len(bos)] == bos
