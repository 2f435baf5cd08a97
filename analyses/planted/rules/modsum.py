"""The sum of two symbols."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from analyses.planted.rules.base import OneAnswer, answer_latent
from mechproc.errors import require
from mechproc.procedures.base import Example, PairKind
from mechproc.procedures.items import Items
from mechproc.procedures.lengths import Fixed, LengthDistribution


@dataclasses.dataclass(frozen=True)
class ModSum(OneAnswer):
    """``x1 .. xn | (x(n - offset) + xn) mod m``."""

    kind: ClassVar[str] = "planted-modsum"
    latent_names: ClassVar[dict[str, str]] = answer_latent("the sum")
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "first": PairKind("the summand some places back is another one", changes=("answer",), holds=()),
        "second": PairKind("the summand at the end is another one", changes=("answer",), holds=()),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(4)}
    examples: ClassVar[tuple[Example, ...]] = (Example("0 4 1 3 1", "1"), Example("5 2 0 2 4", "4"))

    lengths: LengthDistribution = Fixed(6)
    offset: int = 2
    modulus: int = 6

    def __post_init__(self) -> None:
        shortest = int(min(self.lengths.support()))
        require(1 <= self.offset < shortest, "offset", self.offset, f"1 to {shortest - 1}")
        require(2 <= self.modulus <= 10, "modulus", self.modulus, "2 to 10")

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        return ("_", *map(str, range(self.modulus)))

    def _contexts(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        return rng.integers(1, self.d_vocab, size=(len(lengths), self.n_ctx - 1))

    def _answers(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        rows = np.arange(len(tokens))
        return self.sums(tokens[rows, lengths - 1 - self.offset], tokens[rows, lengths - 1])

    def sums(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The token of the sum of two tokens."""
        return 1 + (first - 1 + second - 1) % self.modulus

    def oracle(self, question: list[str]) -> list[str]:
        return [str((int(question[-1 - self.offset]) + int(question[-1])) % self.modulus)]

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._changed(rng, block, self.offset if kind == "first" else 0, np.arange(1, self.d_vocab))
