"""One example as token ids: what tasks make, models read and batches are built from.

Shapes: T text tokens, m label tokens.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One example as token ids. In `ids`, -1-k stands for token k of the row's soft prompt."""

    ids: np.ndarray
    """[T] int64: the text up to the label."""
    label: np.ndarray
    """[m] int64: the label's tokens, terminator included."""

    @property
    def length(self) -> int:
        """Positions the model needs: all tokens but the last of the label, which is only predicted."""
        return len(self.ids) + max(len(self.label) - 1, 0)
