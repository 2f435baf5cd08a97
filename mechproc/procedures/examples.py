"""Worked examples and kinds of minimal pairs: what a procedure declares of itself."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Example:
    """A worked example: one table that the generator, the documentation and the tests read."""

    text: str
    """The whole item in token names."""
    scored: str
    """The tokens that are predicted, in order (under the ``correct`` protocol)."""
    latents: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Some latents by position, ``UNDEFINED`` included."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings under which the example holds, over the procedure's ``small`` ones."""


@dataclasses.dataclass(frozen=True)
class PairKind:
    """A kind of minimal pair: two items that differ in one respect."""

    description: str
    changes: tuple[str, ...]
    """Latents that differ somewhere in every pair."""
    holds: tuple[str, ...]
    """Latents that are equal at every position of every pair."""
