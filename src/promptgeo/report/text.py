"""How do numbers and names read on the page?"""

import math
import re
from collections.abc import Mapping
from typing import Any

OF = {"": "", "prompt": "trained prompts", "delta": "what training added (delta = P - P0)"}
CONVENTION = {"": "", "paper": "as the paper counted", "corrected": "corrected"}


def variant_text(*variant: str) -> str:
    """("lr = 0.1", "prompt", "corrected") -> lr = 0.1, trained prompts, corrected"""
    return ", ".join(OF.get(key) or CONVENTION.get(key) or key for key in variant if key)


def number_text(value: Any, digits: int = 4) -> str:
    """Four digits that count, or so many; whole numbers whole; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "—"
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def evidence(number: Mapping[str, Any]) -> str:
    """Interval in brackets, p and n of a number or finding."""
    parts = []
    if number.get("low") is not None and number.get("high") is not None:
        parts.append(f"[{number_text(number['low'])}, {number_text(number['high'])}]")
    if number.get("p") is not None:
        parts.append(p_text(number["p"]))
    parts.append(f"n = {number_text(number['n'])} {number['unit']}")
    return "; ".join(parts)


def p_text(p: float) -> str:
    """p = 0.012, p < .0001"""
    return "p < .0001" if p < 1e-4 else f"p = {p:.2g}"


def words(name: str) -> str:
    """mean_distances -> mean distances"""
    return name.replace("_", " ")


GLOSSARY = {
    "r2": "R²",
    "omega2": "ω²",
    "p0": "P0",
    "l2": "L2",
    "cv": "coefficient of variation",
    "f1": "F1",
    "js": "Jensen-Shannon divergence",
    "mds": "MDS",
    "tsne": "t-SNE",
    "pca": "PCA",
    "same_task_other_init": "same task, other init",
    "same_init_other_task": "same init, other task",
    "init_x_task": "init and task together",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "how_far": "as far apart as tasks that only move differently far",
}
"""Parts of the names of numbers, where they are not words."""


_NUMBERED = re.compile(r"([a-zA-Z])\.(\d)")
_COUNTED = {"P": "token", "k": "vector", "L": "text token", "s": "step"}
"""Parts that are a letter and a count: P5 of a prompt of 5 tokens."""


def in_words(quantity: str) -> str:
    """A number's name for readers: same_task_other_init.equal_position -> same task, other init, equal position.

    What is no word of ours, a task's or an init's name, loses its underscores only.
    """
    parts = re.split(r"\.(?!\d)", quantity) if quantity else []
    words = (GLOSSARY.get(part, part.replace("_", " ")) for part in parts)
    return ", ".join(re.sub(r"^table(\d)$", r"Table \1", _NUMBERED.sub(r"\1 \2", _counted(each))) for each in words)


def _counted(part: str) -> str:
    """P5 -> 5 tokens"""
    found = re.fullmatch(r"([PkLs])(\d+)", part)
    return f"{found[2]} {_COUNTED[found[1]]}{'s' * (found[2] != '1')}" if found else part


def upper_first(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]


def duration(seconds: float) -> str:
    """5 s, 3.1 min"""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def spelt(value: object) -> str:
    """A setting's value as text, in quotes where spaces at its ends would not be seen."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value)
    if "\n" in text:
        return repr(text)
    return f"'{text}'" if text != text.strip() else text
