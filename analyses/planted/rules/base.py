"""Rules of planted models: a context of symbols, then the one token that is scored."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import numpy as np

from mechproc.procedures.base import Procedure
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import Fixed, LengthDistribution


@dataclasses.dataclass(frozen=True)
class OneAnswer(Procedure):
    """A context, then its answer. Lengths count the tokens of the context."""

    lengths: LengthDistribution = Fixed(9)

    @property
    def n_ctx(self) -> int:
        return self.lengths.max + 1

    @abstractmethod
    def _contexts(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        """Tokens of contexts, int64 [item, n_ctx - 1]; what stands after a context's end does not matter."""

    @abstractmethod
    def _answers(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The answer of each item, int64 [item], from its first ``lengths`` tokens."""

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.zeros((len(lengths), self.n_ctx), dtype=np.int64)
        tokens[:, :-1] = self._contexts(rng, lengths)
        return self._answered(tokens, lengths), lengths + 1

    def _answered(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The contexts with their answers after them."""
        tokens = np.where(np.arange(self.n_ctx) < lengths[:, None], tokens, self.pad)
        tokens[np.arange(len(tokens)), lengths] = self._answers(tokens, lengths)
        return tokens

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        return np.arange(self.n_ctx) == n_tokens[:, None] - 2

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        at_question = self.scored(tokens, n_tokens)
        return {"answer": np.where(at_question, np.roll(tokens, -1, axis=1), UNDEFINED)}

    def next_probabilities(self, block: Items) -> np.ndarray:
        probabilities = np.zeros((*block.tokens.shape, self.d_vocab))
        item, query = np.nonzero(block.scored)
        probabilities[item, query, self._answers(block.tokens[item], query + 1)] = 1.0
        return probabilities

    def _changed(
        self, rng: np.random.Generator, block: Items, back: int, choices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same contexts with a random one of ``choices`` ``back`` places before the end, and its answer."""
        tokens, lengths, rows = block.tokens.copy(), block.n_tokens - 1, np.arange(len(block))
        tokens[rows, lengths - 1 - back] = choices[rng.integers(0, len(choices), len(block))]
        changed = self._answered(tokens, lengths)
        return changed, block.n_tokens, changed[rows, lengths] != block.tokens[rows, lengths]


def answer_latent(what: str) -> dict[str, str]:
    """The latent of every such rule."""
    return {"answer": f"token of {what}; at the last position of the context"}
