"""The class of the last symbol."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from analyses.planted.rules.base import OneAnswer, answer_latent
from mechproc.errors import require
from mechproc.procedures.base import Example, PairKind
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import Fixed, LengthDistribution


@dataclasses.dataclass(frozen=True)
class Lookup(OneAnswer):
    """``x1 .. xn | class of xn``: a table gives the class of each symbol."""

    kind: ClassVar[str] = "planted-lookup"
    latent_names: ClassVar[dict[str, str]] = answer_latent("the class of the last symbol")
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "last": PairKind("the last symbol is one of another class", changes=("answer",), holds=())
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(3), "table": (0, 1, 1, 0)}
    examples: ClassVar[tuple[Example, ...]] = (Example("a b c B", "B"), Example("a b d A", "A"))

    lengths: LengthDistribution = Fixed(6)
    table: tuple[int, ...] = (0, 1, 2, 3) * 3
    """The class (from 0) of each symbol."""

    def __post_init__(self) -> None:
        classes = sorted(set(self.table))
        fits = len(classes) >= 2 and classes == list(range(len(classes))) and len(self.table) <= 26
        require(fits, "table", self.table, "a class for each of at most 26 symbols, 0 to n - 1, each once at least")

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return max(self.table) + 1

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        symbols = (chr(ord("a") + i) for i in range(len(self.table)))
        return ("_", *symbols, *(chr(ord("A") + i) for i in range(self.n_classes)))

    def _contexts(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        return rng.integers(1, 1 + len(self.table), size=(len(lengths), self.n_ctx - 1))

    def classes(self, tokens: np.ndarray) -> np.ndarray:
        """The class of each symbol, int64 of the shape of ``tokens``; ``UNDEFINED`` where there is no symbol."""
        symbol = (tokens >= 1) & (tokens <= len(self.table))
        return np.where(symbol, np.array(self.table)[np.where(symbol, tokens - 1, 0)], UNDEFINED)

    def _answers(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        last = tokens[np.arange(len(tokens)), lengths - 1]
        return 1 + len(self.table) + self.classes(last)

    def oracle(self, question: list[str]) -> list[str]:
        return ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"[self.table["abcdefghijklmnopqrstuvwxyz".index(question[-1])]]]

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._changed(rng, block, 0, np.arange(1, 1 + len(self.table)))
