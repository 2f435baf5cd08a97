"""One list of symbols in its own order: ``identity`` writes all of it again, ``set`` each symbol once."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mechproc.procedures.base import UNDEFINED, Example, Items, PairKind
from mechproc.procedures.copy_rule import NEVER, CopyRule, pick, separator_position


@dataclasses.dataclass(frozen=True)
class Identity(CopyRule):
    """``x1 .. xL | x1 .. xL``: the input again."""

    kind: ClassVar[str] = "identity"
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that occurs once in the input is replaced by one that the item lacks",
            changes=("next",),
            holds=("source", "match", "written", "remaining"),
        ),
        "swap": PairKind(
            "two symbols that occur once in the input change places",
            changes=("next",),
            holds=("source", "match", "written", "remaining"),
        ),
    }
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "c a b | c a b",
            "c a b",
            {
                "next": (-1, -1, -1, 4, 2, 3, -1),
                "source": (-1, -1, -1, 0, 1, 2, -1),
                "match": (-1, -1, -1, -1, 0, 1, 2),
                "written": (-1, -1, -1, 0, 1, 2, 3),
                "remaining": (-1, -1, -1, 3, 2, 1, 0),
            },
        ),
        Example("a a b a | a a b a", "a a b a", {"match": (-1, -1, -1, -1, -1, 0, 1, 2, 3)}),
    )

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        return np.where(self._is_input(tokens, start), 0, NEVER)

    def oracle(self, question: list[str]) -> list[str]:
        return question[:-1]


@dataclasses.dataclass(frozen=True)
class Set(CopyRule):
    """``x1 .. xL | u1 .. um``: the input with duplicates removed, first occurrences kept in their order."""

    kind: ClassVar[str] = "set"
    latent_names: ClassVar[dict[str, str]] = {
        **CopyRule.latent_names,
        "first": "1 where this symbol occurs for the first time, 0 where it occurred before; at the input symbols",
        "duplicate_of": "position where this symbol occurred first; at the input symbols that occurred before",
        "distinct": "different symbols so far; at the input symbols",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (*CopyRule.ordinal_latents, "duplicate_of", "distinct")
    attention_target_names: ClassVar[dict[str, str]] = {
        **CopyRule.attention_target_names,
        "duplicate": "from each input symbol that occurred before to its earlier copies",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that occurs once in the input is replaced by one that the item lacks",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "first", "duplicate_of", "distinct"),
        ),
        "swap": PairKind(
            "two symbols that occur once in the input change places",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "first", "duplicate_of", "distinct"),
        ),
        "duplicate": PairKind(
            "a duplicate in the input is replaced by a symbol that the item lacks: the answer grows by one",
            changes=("next", "source", "match", "written", "remaining", "first", "duplicate_of", "distinct"),
            holds=(),
        ),
        "other duplicate": PairKind(
            "a duplicate in the input becomes a duplicate of another earlier symbol: the answer stays",
            changes=("duplicate_of",),
            holds=("next", "source", "match", "written", "remaining", "first", "distinct"),
        ),
    }
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "b a b c a | b a c",
            "b a c",
            {
                "next": (-1, -1, -1, -1, -1, 3, 2, 4, -1),
                "source": (-1, -1, -1, -1, -1, 0, 1, 3, -1),
                "match": (-1, -1, -1, -1, -1, -1, 0, 1, 3),
                "written": (-1, -1, -1, -1, -1, 0, 1, 2, 3),
                "remaining": (-1, -1, -1, -1, -1, 3, 2, 1, 0),
                "first": (1, 1, 0, 1, 0, -1, -1, -1, -1),
                "duplicate_of": (-1, -1, 0, -1, 1, -1, -1, -1, -1),
                "distinct": (1, 2, 2, 3, 3, -1, -1, -1, -1),
            },
        ),
        Example("a a a | a", "a"),
        Example("d c b | d c b", "d c b"),
    )

    @property
    def n_ctx(self) -> int:
        return self.lengths.max + 1 + min(self.lengths.max, self.n_symbols)

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        is_input = self._is_input(tokens, start)
        is_first = is_input & (self._first_position(tokens, is_input) == np.arange(tokens.shape[1]))
        return np.where(is_first, 0, NEVER)

    def _first_position(self, tokens: np.ndarray, is_input: np.ndarray) -> np.ndarray:
        """Where the symbol at each position occurs first in the input, int64 [item, pos]."""
        rows = np.arange(len(tokens))
        first = np.full((len(tokens), self.d_vocab), UNDEFINED, dtype=np.int64)
        for p in np.flatnonzero(is_input.any(axis=0))[::-1]:  # backwards: the earliest is written last
            now = is_input[:, p]
            first[rows[now], tokens[now, p]] = p
        return first[rows[:, None], tokens]

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        is_input = self._is_input(tokens, separator_position(tokens, n_tokens))
        position = self._first_position(tokens, is_input)
        is_first = position == np.arange(tokens.shape[1])
        return {
            **super().latents(tokens, n_tokens),
            "first": np.where(is_input, is_first, UNDEFINED),
            "duplicate_of": np.where(is_input & ~is_first, position, UNDEFINED),
            "distinct": np.where(is_input, np.cumsum(is_first & is_input, axis=1), UNDEFINED),
        }

    def baselines(self, block: Items) -> dict[str, float]:
        return {**super().baselines(block), "the input position by position": self._in_place(block)}

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos, is_input = np.arange(block.tokens.shape[1]), block.latents["first"] != UNDEFINED
        same = (block.tokens[:, :, None] == block.tokens[:, None, :]) & is_input[:, :, None] & is_input[:, None, :]
        return {**super().attention_targets(block), "duplicate": same & (pos[:, None] > pos)}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        repeated = block.latents["first"] == 0
        if kind == "duplicate":
            return self._with_new_symbol(rng, block, repeated)
        if kind != "other duplicate":
            return super().perturbed(kind, rng, block)
        tokens, rows = block.tokens.copy(), np.arange(len(block))
        position = pick(rng, repeated, 1)[:, 0]
        others = (block.latents["first"] == 1) & (np.arange(tokens.shape[1]) < position[:, None])
        others &= tokens != tokens[rows, position][:, None]
        tokens[rows, position] = tokens[rows, pick(rng, others, 1)[:, 0]]
        start = separator_position(block.tokens, block.n_tokens)
        return *self._answered(tokens, start), repeated.any(axis=1) & others.any(axis=1)

    def oracle(self, question: list[str]) -> list[str]:
        return list(dict.fromkeys(question[:-1]))
