"""Scores as a reader sees them."""

from __future__ import annotations

import math


def spelled(accuracy: float | None, digits: int = 4) -> str:
    """An accuracy from 0 to 1; that of a rule which is not known is ``unknown``."""
    return "unknown" if accuracy is None else f"{accuracy:.{digits}f}"


def bits(loss: float) -> str:
    """The loss of one character, in nats, in the unit in which models of characters are compared."""
    return f"{loss / math.log(2):.3f} bits per character"
