"""Which tokens are a label's, and which an input's that is cut? Some tokenizers put a mark before every text.

Llama 2's makes "▁▁Paris" of " Paris" alone and "▁Paris" of it behind other text, which is what a model has learned to
write. So a label is tokenised behind a short fixed text, the anchor, whose tokens are then taken off again. The anchor
is never the example's own text: the border between text and label does not depend on the label.
"""

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from promptgeo.config.schema import LabelTokens, Template
from promptgeo.data.text_model import TextModel

ANCHORS = (":", "\n", "=", ")")
"""Tried in order: the first whose tokens stay what they are when the label follows."""
PROBES = ("the", " the")

_marks: "WeakKeyDictionary[TextModel, bool]" = WeakKeyDictionary()


def label_ids(lm: TextModel, template: Template, label: str) -> list[int]:
    """The token ids of a label as the template writes it, terminator included."""
    return continuation_ids(lm, template, template.label.replace("{label}", label) + template.end)


def continuation_ids(lm: TextModel, template: Template, text: str) -> list[int]:
    """The token ids of a text that stands behind other text."""
    alone = lm.encode(text)
    if template.label_tokens is LabelTokens.alone or not marks_beginnings(lm):
        return alone
    return _behind_anchor(lm, text) or alone


def marks_beginnings(lm: TextModel) -> bool:
    """Whether the tokenizer makes other tokens of a text alone than of the same text behind another."""
    if lm not in _marks:
        behind = {probe: _behind_anchor(lm, probe) for probe in PROBES}
        _marks[lm] = any(ids is not None and ids != lm.encode(probe) for probe, ids in behind.items())
    return _marks[lm]


def resolved(lm: TextModel, template: Template, labels: Iterable[str]) -> LabelTokens:
    """Whether these labels are tokenised alone or behind an anchor: alone wherever both are the same."""
    texts = (template.label.replace("{label}", label) + template.end for label in labels)
    same = all(continuation_ids(lm, template, text) == lm.encode(text) for text in texts)
    return LabelTokens.alone if same else LabelTokens.anchored


def cut(lm: TextModel, text: str, tokens: int, part: tuple[int, int] | None = None) -> str:
    """The first `tokens` tokens of a text, ended at a whole character.

    part: from and to which character it is cut, so that what stands before and behind stays; empty where that alone is
    too long.
    """
    ids = lm.encode(text)
    if len(ids) <= tokens:
        return text
    if part is not None:
        return _cut_part(lm, text[: part[0]], text[slice(*part)], text[part[1] :], tokens)
    kept = lm.decode(ids[:tokens])
    return kept if "\ufffd" in text else kept.rstrip("\ufffd")


def _cut_part(lm: TextModel, before: str, part: str, behind: str, tokens: int) -> str:
    """The text with as many tokens of its part as leave room for the rest; empty where none do."""
    keep = tokens - len(lm.encode(before + behind))
    while keep > 0:
        # Tokens of the part alone may be others than within the text: it is measured again.
        whole = before + cut(lm, part, keep) + behind
        over = len(lm.encode(whole)) - tokens
        if over <= 0:
            return whole
        keep -= over
    return ""


def cuts_a_character(lm: TextModel, text: str, tokens: int) -> bool:
    """Whether the last of a text's first `tokens` tokens is a part of a character."""
    # Fewer bytes than tokens need no cut, and a letter of ASCII has no parts.
    if text.isascii() or "\ufffd" in text or len(text.encode()) <= tokens:
        return False
    ids = lm.encode(text)
    return len(ids) > tokens and lm.decode(ids[:tokens]).endswith("\ufffd")


def _behind_anchor(lm: TextModel, text: str) -> list[int] | None:
    for anchor in ANCHORS:
        before, whole = lm.encode(anchor), lm.encode(anchor + text)
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return None
