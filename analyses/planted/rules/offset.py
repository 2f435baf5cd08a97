"""The symbol some places back."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from analyses.planted.rules.base import OneAnswer, answer_latent
from mechproc.errors import require
from mechproc.procedures.base import Example, PairKind
from mechproc.procedures.items import Items
from mechproc.procedures.lengths import Fixed


@dataclasses.dataclass(frozen=True)
class Offset(OneAnswer):
    """``^ x1 .. xn | x(n - offset)``: the symbol some places before the last one. Lengths count ``^`` too."""

    kind: ClassVar[str] = "planted-offset"
    length_unit: ClassVar[str] = "tokens"
    latent_names: ClassVar[dict[str, str]] = answer_latent("the symbol asked for")
    attention_target_names: ClassVar[dict[str, str]] = {
        "answer": "from the last position of the context to the symbol asked for"
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "answer": PairKind("the symbol asked for is another one", changes=("answer",), holds=())
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(5), "n_symbols": 4}
    examples: ClassVar[tuple[Example, ...]] = (Example("^ a b c d b", "b", {"answer": (-1, -1, -1, -1, 3, -1)}),)

    offset: int = 2
    n_symbols: int = 8

    def __post_init__(self) -> None:
        allowed = f"0 to {min(self.lengths.support()) - 2}, as the first token is no symbol"
        require(0 <= self.offset <= min(self.lengths.support()) - 2, "offset", self.offset, allowed)
        require(2 <= self.n_symbols <= 26, "n_symbols", self.n_symbols, "2 to 26")

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        return ("_", "^", *(chr(ord("a") + i) for i in range(self.n_symbols)))

    @property
    def start(self) -> int:
        """The token that every item begins with."""
        return 1

    def _contexts(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        tokens = rng.integers(2, self.d_vocab, size=(len(lengths), self.n_ctx - 1))
        tokens[:, 0] = self.start
        return tokens

    def _answers(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return tokens[np.arange(len(tokens)), lengths - 1 - self.offset]

    def oracle(self, question: list[str]) -> list[str]:
        return [question[-1 - self.offset]]

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(self.n_ctx)
        return {"answer": block.scored[:, :, None] & (pos[:, None] - self.offset == pos)}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._changed(rng, block, self.offset, np.arange(2, self.d_vocab))
