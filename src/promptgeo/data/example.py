"""One input with the label that a model should write after it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One input with the label that a model should write after it."""

    id: int
    """Its place in the source, counted over all splits that are used."""
    input: str
    label: str
    """What is trained, and scored as correct."""
    repeat: int = 1
    """How many copies of the prompt stand, side by side, wherever the template has {prompt}."""
    accepted: tuple[str, ...] = ()
    """Further answers that are scored as correct."""
    cut: tuple[int, int] | None = None
    """From and to which character of the input task.max_input_tokens cuts; None: its end."""

    @property
    def answers(self) -> tuple[str, ...]:
        """Whatever is scored as correct, the label first."""
        return (self.label, *self.accepted)
