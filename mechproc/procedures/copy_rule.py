"""What the rules that write symbols of their input again have in common.

An item is ``x1 .. xL | u1 .. um``: symbols drawn uniformly, a separator, the answer. Everything after the separator is
scored; there is no end symbol, so the last token of an item predicts nothing. A length counts input symbols. The rules
themselves are in ``sequences``, ``reorder``, ``lists`` and ``stack``.
"""

from __future__ import annotations

import dataclasses
import functools
import string
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import UNDEFINED, Items, Procedure
from mechproc.procedures.lengths import LengthDistribution, Uniform

SEPARATOR = 1
"""The token between input and answer."""
FIRST_SYMBOL = 2
"""The token of the first symbol; the others follow it, so that a symbol is the same token in all these rules."""
NEVER = np.iinfo(np.int64).max
"""The place in the order of writing of what is not written."""


@dataclasses.dataclass(frozen=True)
class CopyRule(Procedure):
    """The answer is some of the input symbols, in an order that the rule defines (``_order``)."""

    latent_names: ClassVar[dict[str, str]] = {
        "next": "token to be written next; at the separator and at the symbols of the answer but the last",
        "source": "position of the input symbol to be written next; there too",
        "match": "position of the input symbol that this one is the copy of; at the symbols of the answer",
        "written": "symbols of the answer written so far; at the separator and at the symbols of the answer",
        "remaining": "symbols of the answer still to be written; there too",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("source", "match", "written", "remaining")
    attention_target_names: ClassVar[dict[str, str]] = {
        "previous": "from each input symbol but the first to the one before it",
        "source": "from the separator and the answer to the input symbol to be written next (induction)",
        "match": "from each symbol of the answer to the input symbol that it is the copy of",
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(2, 5), "n_symbols": 6}
    mark: ClassVar[str] = ""
    """A token of the input that is no symbol, such as a comma; the last token, if there is one."""
    shortest: ClassVar[int] = 1
    """The shortest length that has an answer."""

    lengths: LengthDistribution = Uniform(2, 20)
    n_symbols: int = 20
    """Different symbols."""

    def __post_init__(self) -> None:
        require(self.n_symbols >= 2, "n_symbols", self.n_symbols, "at least 2")
        too_short = self.lengths.support(0)[0] < self.shortest
        require(not too_short, "lengths", self.lengths.to_dict(), f"lengths of at least {self.shortest}")

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        return ("_", "|", *self._symbol_names(), *((self.mark,) if self.mark else ()))

    def _symbol_names(self) -> list[str]:
        letters = list(string.ascii_lowercase[: self.n_symbols])
        return letters + [f"s{i}" for i in range(len(letters), self.n_symbols)]

    @property
    def _mark(self) -> int:
        """The token of ``mark``."""
        return FIRST_SYMBOL + self.n_symbols

    def _mark_position(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Position of the first mark of each input, int64 [item]; the input's end where it has none."""
        is_mark = (tokens == self._mark) & (np.arange(tokens.shape[1]) < start[:, None])
        return np.where(is_mark.any(axis=1), is_mark.argmax(axis=1), start)

    @property
    def n_ctx(self) -> int:
        return 2 * self.lengths.max + 1

    @abstractmethod
    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The place of each token in the order of writing, int64 [item, pos], given the position of the separator.

        The lowest is written first, of equal ones the leftmost, and what is ``NEVER`` not at all; nothing of an input
        that breaks the rule is written.
        """

    def _is_input(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The input symbols that the answer is made of, bool [item, pos], given the position of the separator."""
        return np.arange(tokens.shape[1]) < start[:, None]

    def _sources(self, tokens: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the order of writing, int64 [item, pos], and how many are written, int64 [item]."""
        order = self._order(tokens, start)
        return np.argsort(order, axis=1, kind="stable"), (order != NEVER).sum(axis=1)

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._answered(self._draw_symbols(rng, len(lengths)), lengths)

    def _draw_symbols(self, rng: np.random.Generator, n_items: int) -> np.ndarray:
        """Items whose first tokens, as many as the longest length, are random symbols: tokens."""
        tokens = np.zeros((n_items, self.n_ctx), dtype=np.int64)
        tokens[:, : self.lengths.max] = rng.integers(
            FIRST_SYMBOL, FIRST_SYMBOL + self.n_symbols, size=(n_items, self.lengths.max)
        )
        return tokens

    def _answered(self, tokens: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items whose inputs are the first ``start`` tokens of each row: tokens and n_tokens."""
        sources, size = self._sources(tokens, start)
        written = np.arange(tokens.shape[1]) - start[:, None] - 1
        answer = np.take_along_axis(tokens, np.take_along_axis(sources, np.maximum(written, 0), axis=1), axis=1)
        whole = np.where(written < -1, tokens, np.where(written < 0, SEPARATOR, answer))
        return np.where(written < size[:, None], whole, self.pad), start + 1 + size

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        pos, start = np.arange(tokens.shape[1]), separator_position(tokens, n_tokens)[:, None]
        return (pos >= start) & (pos < n_tokens[:, None] - 1)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        start = separator_position(tokens, n_tokens)
        sources, size = self._sources(tokens, start)
        pos, start, size = np.arange(tokens.shape[1]), start[:, None], size[:, None]
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

    def next_probabilities(self, block: Items) -> np.ndarray:
        return (block.latents["next"][..., None] == np.arange(self.d_vocab)).astype(np.float64)

    def baselines(self, block: Items) -> dict[str, float]:
        tokens, start = block.tokens, separator_position(block.tokens, block.n_tokens)
        item, query = np.nonzero(block.scored)
        target = tokens[item, query + 1]
        is_input = self._is_input(tokens, start)
        among_input = ((tokens[item] == target[:, None]) & is_input[item]).sum(axis=1) / is_input.sum(axis=1)[item]
        same = [np.mean((query + 1 >= d) & (tokens[item, query + 1 - d] == target)) for d in range(1, tokens.shape[1])]
        return {
            "a symbol at random": 1 / self.n_symbols,
            "the most frequent symbol": float(np.bincount(target).max() / len(target)),
            "a symbol of the input": float(among_input.mean()),
            "the symbol at the best fixed distance": float(max(same)),
            "a symbol after a copy of the current one": self._beside_a_copy(block, 1),
        }

    def _beside_a_copy(self, block: Items, step: int) -> float:
        """Token accuracy of guessing the symbol ``step`` to the right of an input copy of the current one, a copy at
        random if there are several; at the separator the end of the input that is then the first."""
        tokens, (item, query) = block.tokens, np.nonzero(block.scored)
        is_input = self._is_input(tokens, separator_position(tokens, block.n_tokens))
        target, current = tokens[item, query + 1], tokens[item, query]
        is_target = (tokens[item] == target[:, None]) & is_input[item]
        is_copy = (tokens[item] == current[:, None]) & is_input[item]
        beside = is_copy & np.roll(is_target, -step, axis=1)  # no input reaches the last column
        begin = is_input.argmax(axis=1) if step > 0 else last_column(is_input)
        right = beside.sum(axis=1) / np.maximum(is_copy.sum(axis=1), 1)
        return float(np.where(current == SEPARATOR, tokens[item, begin[item]] == target, right).mean())

    def _in_place(self, block: Items) -> float:
        """Token accuracy of guessing the input as it stands."""
        start = separator_position(block.tokens, block.n_tokens)
        return self._written_as(block, np.where(self._is_input(block.tokens, start), 0, NEVER))

    def _written_as(self, block: Items, order: np.ndarray) -> float:
        """Token accuracy of writing the input in another order than the rule's (see ``_order``)."""
        item, query = np.nonzero(block.scored)
        place = query - separator_position(block.tokens, block.n_tokens)[item]
        source = np.argsort(order, axis=1, kind="stable")[item, place]
        exists = place < (order != NEVER).sum(axis=1)[item]
        return float((exists & (block.tokens[item, source] == block.tokens[item, query + 1])).mean())

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        is_input = self._is_input(block.tokens, separator_position(block.tokens, block.n_tokens))
        return {
            "previous": (pos[:, None] == pos + 1) & is_input[:, :, None] & is_input[:, None, :],
            "source": block.latents["source"][..., None] == pos,
            "match": block.latents["match"][..., None] == pos,
        }

    def _alone(self, block: Items) -> np.ndarray:
        """The input symbols that occur once, bool [item, pos]: those that ``symbol`` and ``swap`` pairs change."""
        is_input = self._is_input(block.tokens, separator_position(block.tokens, block.n_tokens))
        once = count_tokens(block.tokens, is_input, self.d_vocab) == 1
        return is_input & np.take_along_axis(once, block.tokens, axis=1)

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        alone = self._alone(block)
        if kind != "swap":
            return self._with_new_symbol(rng, block, alone)
        tokens, rows = block.tokens.copy(), np.arange(len(block))
        first, second = pick(rng, alone, 2).T
        tokens[rows, first], tokens[rows, second] = tokens[rows, second], tokens[rows, first]
        start = separator_position(block.tokens, block.n_tokens)
        return *self._answered(tokens, start), alone.sum(axis=1) >= 2

    def _with_new_symbol(
        self, rng: np.random.Generator, block: Items, allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items with a symbol that they lack at one of the ``allowed`` positions, answered: tokens, n_tokens, and
        which items have both."""
        tokens, start = block.tokens.copy(), separator_position(block.tokens, block.n_tokens)
        lacking = count_tokens(tokens, np.arange(tokens.shape[1]) < start[:, None], self.d_vocab) == 0
        lacking[:, :FIRST_SYMBOL] = lacking[:, FIRST_SYMBOL + self.n_symbols :] = False
        exists = lacking.any(axis=1) & allowed.any(axis=1)
        new, position = pick(rng, lacking, 1)[:, 0], pick(rng, allowed, 1)[:, 0]
        tokens[exists, position[exists]] = new[exists]
        return *self._answered(tokens, start), exists


def separator_position(tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """Position of the separator, int64 [item]; the item's end where there is none."""
    is_separator = tokens == SEPARATOR
    return np.where(is_separator.any(axis=1), is_separator.argmax(axis=1), n_tokens)


def last_column(where: np.ndarray) -> np.ndarray:
    """The last column of each row ``where``, int64 [row]; the last of all if there is none."""
    return where.shape[1] - 1 - where[:, ::-1].argmax(axis=1)


def count_tokens(tokens: np.ndarray, where: np.ndarray, d_vocab: int) -> np.ndarray:
    """How often each token occurs ``where`` in each item, int64 [item, token]."""
    rows, columns = np.nonzero(where)
    flat = np.bincount(rows * d_vocab + tokens[rows, columns], minlength=len(tokens) * d_vocab)
    return flat.reshape(len(tokens), d_vocab)


def pick(rng: np.random.Generator, allowed: np.ndarray, n: int) -> np.ndarray:
    """``n`` different columns of each row where ``allowed``, int64 [row, n]; any columns where there are fewer."""
    return np.argsort(np.where(allowed, rng.random(allowed.shape), 2.0), axis=1)[:, :n]
