"""Rules that write a part of their input again: ``identity`` all of it, ``set`` each symbol once.

An item is ``x1 .. xL | u1 .. um``: symbols drawn uniformly, a separator, the answer. Everything after the separator is
scored; there is no end symbol, so the last token of an item predicts nothing. A length counts input symbols.
"""

from __future__ import annotations

import dataclasses
import functools
import string
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import UNDEFINED, Block, Example, PairKind, Procedure
from mechproc.procedures.lengths import LengthDistribution, Uniform

SEPARATOR = 1
"""The token between input and answer."""
FIRST_SYMBOL = 2
"""The token of the first symbol; the others follow it."""


@dataclasses.dataclass(frozen=True)
class CopyRule(Procedure):
    """What identity and set share: the answer is some of the input symbols, in their order (``_kept``)."""

    latent_names: ClassVar[dict[str, str]] = {
        "next": "token to be written next; at the separator and at the symbols of the answer but the last",
        "source": "position of the input symbol to be written next; there too",
        "match": "position of the input symbol that this one is the copy of; at the symbols of the answer",
        "written": "symbols of the answer written so far; at the separator and at the symbols of the answer",
        "remaining": "symbols of the answer still to be written; there too",
    }
    mask_names: ClassVar[dict[str, str]] = {
        "previous": "from each input symbol but the first to the one before it",
        "source": "from the separator and the answer to the input symbol to be written next (induction)",
        "match": "from each symbol of the answer to the input symbol that it is the copy of",
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(2, 5), "n_symbols": 6}

    lengths: LengthDistribution = Uniform(2, 20)
    n_symbols: int = 20
    """Different symbols."""

    def __post_init__(self) -> None:
        require(self.n_symbols >= 2, "n_symbols", self.n_symbols, "at least 2")

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        letters = list(string.ascii_lowercase[: self.n_symbols])
        return ("_", "|", *letters, *(f"s{i}" for i in range(len(letters), self.n_symbols)))

    @abstractmethod
    def _kept(self, tokens: np.ndarray, is_input: np.ndarray) -> np.ndarray:
        """The input symbols that the answer repeats, bool [item, pos]."""

    def _draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        symbols = rng.integers(FIRST_SYMBOL, self.d_vocab, size=(len(lengths), self.lengths.max))
        tokens = np.zeros((len(lengths), self.n_ctx), dtype=np.int64)
        tokens[:, : self.lengths.max] = symbols
        return self._answered(tokens, lengths)

    def _answered(self, tokens: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items whose inputs are the first ``lengths`` tokens of each row: tokens and n_tokens."""
        pos, start = np.arange(tokens.shape[1]), lengths[:, None]
        kept = self._kept(tokens, pos < start)
        sources = np.argsort(~kept, axis=1, kind="stable")
        answer = np.take_along_axis(tokens, np.take_along_axis(sources, np.maximum(pos - start - 1, 0), axis=1), axis=1)
        n_tokens = lengths + 1 + kept.sum(axis=1)
        whole = np.where(pos < start, tokens, np.where(pos == start, SEPARATOR, answer))
        return np.where(pos < n_tokens[:, None], whole, self.pad), n_tokens

    def _scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        pos, start = np.arange(tokens.shape[1]), _separator(tokens, n_tokens)[:, None]
        return (pos >= start) & (pos < n_tokens[:, None] - 1)

    def _latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos, start = np.arange(tokens.shape[1]), _separator(tokens, n_tokens)[:, None]
        kept = self._kept(tokens, pos < start)
        sources = np.argsort(~kept, axis=1, kind="stable")
        size = kept.sum(axis=1, keepdims=True)
        written = np.where((pos >= start) & (pos < n_tokens[:, None]), np.minimum(pos - start, size), UNDEFINED)
        source = np.where((written >= 0) & (written < size), np.take_along_axis(sources, written, axis=1), UNDEFINED)
        match = np.where(written > 0, np.take_along_axis(sources, written - 1, axis=1), UNDEFINED)
        return {
            "next": np.where(source >= 0, np.take_along_axis(tokens, source, axis=1), UNDEFINED),
            "source": source,
            "match": match,
            "written": written,
            "remaining": np.where(written >= 0, size - written, UNDEFINED),
        }

    def next_probabilities(self, block: Block) -> np.ndarray:
        return (block.latents["next"][..., None] == np.arange(self.d_vocab)).astype(np.float64)

    def baselines(self, block: Block) -> dict[str, float]:
        tokens, pos = block.tokens, np.arange(block.tokens.shape[1])
        start = _separator(tokens, block.n_tokens)
        item, query = np.nonzero(block.scored)
        target = tokens[item, query + 1]
        is_input = (pos < start[:, None])[item]
        is_target = (tokens[item] == target[:, None]) & is_input
        is_copy = (tokens[item] == tokens[item, query][:, None]) & is_input
        after_copy = (is_copy[:, :-1] & is_target[:, 1:]).sum(axis=1) / np.maximum(is_copy.sum(axis=1), 1)
        at_separator = query == start[item]
        same = [np.mean((query + 1 >= d) & (tokens[item, query + 1 - d] == target)) for d in pos[1:]]
        return {
            "a symbol at random": 1 / self.n_symbols,
            "the most frequent symbol": float(np.bincount(target).max() / len(target)),
            "a symbol of the input": float((is_target.sum(axis=1) / start[item]).mean()),
            "the symbol at the best fixed distance": float(max(same)),
            "a symbol after a copy of the current one": float(
                np.where(at_separator, is_target[:, 0], after_copy).mean()
            ),
        }

    def target_masks(self, block: Block) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        is_input = pos < _separator(block.tokens, block.n_tokens)[:, None]
        return {
            "previous": (pos[:, None] == pos + 1) & is_input[:, :, None],
            "source": block.latents["source"][..., None] == pos,
            "match": block.latents["match"][..., None] == pos,
        }

    def _perturbed(
        self, kind: str, rng: np.random.Generator, block: Block
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, rows = block.tokens.copy(), np.arange(len(block))
        start = _separator(tokens, block.n_tokens)
        once = (_counts(tokens, start, self.d_vocab) == 1)[rows[:, None], tokens]
        once &= np.arange(tokens.shape[1]) < start[:, None]
        if kind == "swap":
            first, second = _pick(rng, once, 2).T
            tokens[rows, first], tokens[rows, second] = tokens[rows, second], tokens[rows, first]
            exists = once.sum(axis=1) >= 2
        else:
            exists = self._replace_by_new(rng, tokens, start, once)
        return *self._answered(tokens, start), exists

    def _replace_by_new(
        self, rng: np.random.Generator, tokens: np.ndarray, start: np.ndarray, allowed: np.ndarray
    ) -> np.ndarray:
        """Put a symbol that the item lacks at one of the ``allowed`` positions, in place; which items have both."""
        lacking = _counts(tokens, start, self.d_vocab) == 0
        lacking[:, :FIRST_SYMBOL] = False
        exists = lacking.any(axis=1) & allowed.any(axis=1)
        new, position = _pick(rng, lacking, 1)[:, 0], _pick(rng, allowed, 1)[:, 0]
        tokens[exists, position[exists]] = new[exists]
        return exists


@dataclasses.dataclass(frozen=True)
class Identity(CopyRule):
    """``x1 .. xL | x1 .. xL``: the input again."""

    kind: ClassVar[str] = "identity"
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that occurs once in the input gives way to one that the item lacks",
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

    @property
    def n_ctx(self) -> int:
        return 2 * self.lengths.max + 1

    def _kept(self, tokens: np.ndarray, is_input: np.ndarray) -> np.ndarray:
        return is_input

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
    mask_names: ClassVar[dict[str, str]] = {
        **CopyRule.mask_names,
        "duplicate": "from each input symbol that occurred before to its earlier copies",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that occurs once in the input gives way to one that the item lacks",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "first", "duplicate_of", "distinct"),
        ),
        "swap": PairKind(
            "two symbols that occur once in the input change places",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "first", "duplicate_of", "distinct"),
        ),
        "duplicate": PairKind(
            "a duplicate in the input gives way to a symbol that the item lacks: the answer grows by one",
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

    def _kept(self, tokens: np.ndarray, is_input: np.ndarray) -> np.ndarray:
        return is_input & (self._first_position(tokens, is_input) == np.arange(tokens.shape[1]))

    def _first_position(self, tokens: np.ndarray, is_input: np.ndarray) -> np.ndarray:
        """Where the symbol at each position occurs first in the input, int64 [item, pos]."""
        rows = np.arange(len(tokens))
        first = np.full((len(tokens), self.d_vocab), UNDEFINED, dtype=np.int64)
        for p in range(int(is_input.sum(axis=1).max(initial=0)) - 1, -1, -1):  # backwards: the earliest is written last
            now = is_input[:, p]
            first[rows[now], tokens[now, p]] = p
        return first[rows[:, None], tokens]

    def _latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos = np.arange(tokens.shape[1])
        is_input = pos < _separator(tokens, n_tokens)[:, None]
        position = self._first_position(tokens, is_input)
        is_first = position == pos
        return {
            **super()._latents(tokens, n_tokens),
            "first": np.where(is_input, is_first, UNDEFINED),
            "duplicate_of": np.where(is_input & ~is_first, position, UNDEFINED),
            "distinct": np.where(is_input, np.cumsum(is_first & is_input, axis=1), UNDEFINED),
        }

    def baselines(self, block: Block) -> dict[str, float]:
        item, query = np.nonzero(block.scored)
        start = _separator(block.tokens, block.n_tokens)
        by_position = block.tokens[item, query - start[item]] == block.tokens[item, query + 1]
        return {**super().baselines(block), "the input position by position": float(by_position.mean())}

    def target_masks(self, block: Block) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        is_input = pos < _separator(block.tokens, block.n_tokens)[:, None]
        same = block.tokens[:, :, None] == block.tokens[:, None, :]
        return {**super().target_masks(block), "duplicate": same & (pos[:, None] > pos) & is_input[:, :, None]}

    def _perturbed(
        self, kind: str, rng: np.random.Generator, block: Block
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if "duplicate" not in kind:
            return super()._perturbed(kind, rng, block)
        tokens, rows = block.tokens.copy(), np.arange(len(block))
        start = _separator(tokens, block.n_tokens)
        repeated = block.latents["first"] == 0
        if kind == "duplicate":
            exists = self._replace_by_new(rng, tokens, start, repeated)
        else:
            position = _pick(rng, repeated, 1)[:, 0]
            others = (block.latents["first"] == 1) & (np.arange(tokens.shape[1]) < position[:, None])
            others &= tokens != tokens[rows, position][:, None]
            exists = repeated.any(axis=1) & others.any(axis=1)
            tokens[rows, position] = tokens[rows, _pick(rng, others, 1)[:, 0]]
        return *self._answered(tokens, start), exists

    def oracle(self, question: list[str]) -> list[str]:
        return list(dict.fromkeys(question[:-1]))


def _separator(tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """Position of the separator, int64 [item]; the item's end where there is none."""
    found = tokens == SEPARATOR
    return np.where(found.any(axis=1), found.argmax(axis=1), n_tokens)


def _counts(tokens: np.ndarray, start: np.ndarray, d_vocab: int) -> np.ndarray:
    """How often each token occurs in each input, int64 [item, token]."""
    rows, columns = np.nonzero(np.arange(tokens.shape[1]) < start[:, None])
    flat = np.bincount(rows * d_vocab + tokens[rows, columns], minlength=len(tokens) * d_vocab)
    return flat.reshape(len(tokens), d_vocab)


def _pick(rng: np.random.Generator, allowed: np.ndarray, n: int) -> np.ndarray:
    """``n`` different columns of each row where ``allowed``, int64 [row, n]; any columns where there are fewer."""
    return np.argsort(np.where(allowed, rng.random(allowed.shape), 2.0), axis=1)[:, :n]
