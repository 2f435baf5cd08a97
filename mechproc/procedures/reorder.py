"""One list of symbols in another order: ``reverse`` from its end, ``sort`` by symbol."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np

from mechproc.procedures.base import UNDEFINED, Example, Items, PairKind
from mechproc.procedures.copy_rule import FIRST_SYMBOL, NEVER, CopyRule, count_tokens, separator_position
from mechproc.procedures.sequences import Identity


@dataclasses.dataclass(frozen=True)
class Reverse(CopyRule):
    """``x1 .. xL | xL .. x1``: the input from its last symbol to its first."""

    kind: ClassVar[str] = "reverse"
    attention_target_names: ClassVar[dict[str, str]] = {
        **CopyRule.attention_target_names,
        "source": "from the separator and the answer to the input symbol to be written next, the one before the match",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = Identity.pair_kinds
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "c a b | b a c",
            "b a c",
            {
                "next": (-1, -1, -1, 3, 2, 4, -1),
                "source": (-1, -1, -1, 2, 1, 0, -1),
                "match": (-1, -1, -1, -1, 2, 1, 0),
                "written": (-1, -1, -1, 0, 1, 2, 3),
                "remaining": (-1, -1, -1, 3, 2, 1, 0),
            },
        ),
        Example("a a b a | a b a a", "a b a a", {"match": (-1, -1, -1, -1, -1, 3, 2, 1, 0)}),
    )

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        return np.where(self._is_input(tokens, start), -np.arange(tokens.shape[1]), NEVER)

    def baselines(self, block: Items) -> dict[str, float]:
        return {
            **super().baselines(block),
            "a symbol before a copy of the current one": self._beside_a_copy(block, -1),
            "the input position by position": self._in_place(block),
        }

    def oracle(self, question: list[str]) -> list[str]:
        return question[-2::-1]


@dataclasses.dataclass(frozen=True)
class Sort(CopyRule):
    """``x1 .. xL | y1 .. yL``: the input in ascending order, duplicates kept; symbols ascend as their tokens do.

    Copies of one symbol count as written from left to right.
    """

    kind: ClassVar[str] = "sort"
    latent_names: ClassVar[dict[str, str]] = {
        **CopyRule.latent_names,
        "rank": "place of this symbol in the answer, from 0; at the input symbols",
        "copies": "how often this symbol occurs in the input; at the input symbols",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (*CopyRule.ordinal_latents, "rank", "copies")
    attention_target_names: ClassVar[dict[str, str]] = {
        **CopyRule.attention_target_names,
        "source": "from the separator and the answer to the input symbol to be written next",
        "copies": "from each symbol of the answer to all its copies in the input",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that occurs once in the input is replaced by one that the item lacks and that has the same rank",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "rank", "copies"),
        ),
        "rank": PairKind(
            "a symbol that occurs once in the input is replaced by one that the item lacks and that has another rank",
            changes=("next", "source", "match", "rank"),
            holds=("written", "remaining", "copies"),
        ),
        "swap": PairKind(
            "two symbols that occur once in the input change places: the answer stays",
            changes=("source", "match", "rank"),
            holds=("next", "written", "remaining", "copies"),
        ),
    }
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "c a d a | a a c d",
            "a a c d",
            {
                "next": (-1, -1, -1, -1, 2, 2, 4, 5, -1),
                "source": (-1, -1, -1, -1, 1, 3, 0, 2, -1),
                "match": (-1, -1, -1, -1, -1, 1, 3, 0, 2),
                "written": (-1, -1, -1, -1, 0, 1, 2, 3, 4),
                "remaining": (-1, -1, -1, -1, 4, 3, 2, 1, 0),
                "rank": (2, 0, 3, 1, -1, -1, -1, -1, -1),
                "copies": (1, 2, 1, 2, -1, -1, -1, -1, -1),
            },
        ),
        Example("e d b | b d e", "b d e", {"rank": (2, 1, 0, -1, -1, -1, -1)}),
    )

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        return np.where(self._is_input(tokens, start), tokens, NEVER)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        start = separator_position(tokens, n_tokens)
        is_input = self._is_input(tokens, start)
        copies = np.take_along_axis(count_tokens(tokens, is_input, self.d_vocab), tokens, axis=1)
        return {
            **super().latents(tokens, n_tokens),
            "rank": np.where(is_input, np.argsort(self._sources(tokens, start)[0], axis=1), UNDEFINED),
            "copies": np.where(is_input, copies, UNDEFINED),
        }

    def baselines(self, block: Items) -> dict[str, float]:
        """Those of every copying rule and these:

        - ``the likeliest symbol at this place``: given the lengths of the input and of what is written, not the input;
        - ``the next larger symbol``: of all symbols, the input unread; the smallest at the separator;
        - ``the next larger symbol of the input``: each symbol written once only.
        """
        tokens, (item, query) = block.tokens, np.nonzero(block.scored)
        current, target = tokens[item, query], tokens[item, query + 1]
        current = np.where(current < FIRST_SYMBOL, FIRST_SYMBOL - 1, current)
        start = separator_position(tokens, block.n_tokens)
        is_input = self._is_input(tokens, start)[item]
        larger = np.where(is_input & (tokens[item] > current[:, None]), tokens[item], NEVER).min(axis=1)
        likeliest = np.zeros((self.lengths.max + 1, self.lengths.max), dtype=np.int64)
        for n in np.unique(start[item]).tolist():
            likeliest[n, :n] = self._likeliest(n)
        return {
            **super().baselines(block),
            "the input position by position": self._in_place(block),
            "the likeliest symbol at this place": float((likeliest[start[item], query - start[item]] == target).mean()),
            "the next larger symbol": float((current + 1 == target).mean()),
            "the next larger symbol of the input": float((larger == target).mean()),
        }

    def _likeliest(self, n: int) -> np.ndarray:
        """The likeliest token at each place of the sorted answer to a random input of ``n`` symbols, int64 [n]."""
        share = np.arange(self.n_symbols + 1) / self.n_symbols
        ways = [math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1) for m in range(n + 1)]
        few = np.arange(n + 1)[:, None]
        exactly = np.zeros((n + 1, self.n_symbols + 1))
        inside = share[1:-1]  # binomial, in logarithms: coefficients of long inputs are larger than any float
        exactly[:, 1:-1] = np.exp(np.array(ways)[:, None] + few * np.log(inside) + (n - few) * np.log(1 - inside))
        exactly[0, 0] = exactly[n, -1] = 1.0
        # place k has at most symbol s where more than k of the input symbols are at most s
        at_most = np.cumsum(exactly[::-1], axis=0)[::-1][1:]
        return FIRST_SYMBOL + np.diff(at_most, axis=1).argmax(axis=1)

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        is_input = block.latents["rank"] != UNDEFINED
        same = block.tokens[:, :, None] == block.tokens[:, None, :]
        written = (block.latents["match"] != UNDEFINED)[:, :, None]
        return {**super().attention_targets(block), "copies": same & written & is_input[:, None, :]}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, n_tokens, exists = super().perturbed(kind, rng, block)
        start = separator_position(block.tokens, block.n_tokens)
        same = (self._sources(tokens, start)[0] == self._sources(block.tokens, start)[0]).all(axis=1)
        return tokens, n_tokens, exists & (same if kind == "symbol" else ~same)

    def oracle(self, question: list[str]) -> list[str]:
        return sorted(question[:-1], key=self.token_names.index)
