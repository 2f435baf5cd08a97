"""What the trap families share: the rule ``Offset``, solved by a head, with something beside it that misleads."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.family import Family
from mechproc.procedures.base import Items, Procedure


@dataclasses.dataclass(frozen=True)
class TrapFamily(Family):
    """Base: whatever carries the answer carries the symbol asked for."""

    trap: ClassVar[bool] = True

    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        return source.targets[source.scored]

    def scattered(self, n: int, rng: np.random.Generator) -> list[str]:
        """``n`` different heads anywhere."""
        chosen = rng.permutation(self.n_layers * self.n_heads)[:n].tolist()
        return [f"L{number // self.n_heads}.H{number % self.n_heads}" for number in chosen]
