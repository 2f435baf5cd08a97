"""Brackets that may cross: ``k-dyck-shuffle``, k kinds of brackets, each balanced by itself, nesting not enforced."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import UNDEFINED, Example, Items, PairKind
from mechproc.procedures.brackets import Brackets, pick_one
from mechproc.procedures.lengths import Uniform


@dataclasses.dataclass(frozen=True)
class KDyckShuffle(Brackets):
    """Brackets of k kinds matched within each kind: ``( [ ) ]``. The kind to close is uniform among the open kinds.

    A bracket opens with probability ``p_open`` where it may both open and close, its kind uniform. By default all are
    closed at the end; with ``closed=False`` an item is cut at its length, as in arXiv 2505.22308.
    """

    kind: ClassVar[str] = "k-dyck-shuffle"
    latent_names: ClassVar[dict[str, str]] = {
        "depth": "brackets open after this token; at every token",
        "own": "brackets of this one's kind open after it; at every token",
        "open_kinds": "kinds with a bracket open after this token, those that may close next; at every token",
        "match": "position of the latest open bracket of this one's kind, which it closes; at closing brackets",
        "remaining": "tokens of the item after this one; at every token. Lengths that vary hide it from the model",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("depth", "own", "open_kinds", "match", "remaining")
    attention_target_names: ClassVar[dict[str, str]] = {
        "previous": "from each token but the first to the one before it",
        "open": "from each token to the brackets that are open after it",
        "match": "from each closing bracket to the one it closes",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "kind": PairKind(
            "a bracket and the one that closes it become another kind",
            changes=("own", "open_kinds", "match"),
            holds=("depth", "remaining"),
        ),
        "order": PairKind(
            "closing brackets of two kinds with as many open, one behind the other, change places",
            changes=("match",),
            holds=("depth", "own", "open_kinds", "remaining"),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(4, 10, step=2), "k": 3}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "( [ ) ]",
            "[ ) ]",
            {
                "depth": (1, 2, 1, 0),
                "own": (1, 1, 0, 0),
                "open_kinds": (1, 2, 1, 0),
                "match": (-1, -1, 0, 1),
                "remaining": (3, 2, 1, 0),
            },
        ),
        Example("( ( [ ] ) )", "( [ ] ) )", {"own": (1, 2, 1, 0, 1, 0), "match": (-1, -1, -1, 2, 1, 0)}),
        Example("{ ( } { ) }", "( } { ) }", {"match": (-1, -1, 0, -1, 1, 3)}),
    )

    max_open: int = 16
    """Most brackets that are open at once."""
    closed: bool = True
    """Whether everything is closed at the end of an item."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_open >= 1, "max_open", self.max_open, "at least 1")

    def _closes_at_the_end(self) -> bool:
        return self.closed

    def _free_chance(self, depth: np.ndarray) -> np.ndarray:
        return np.where(depth >= self.max_open, 0.0, super()._free_chance(depth))

    def _open_chance(self, depth: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        return super()._open_chance(depth, remaining) if self.closed else self._free_chance(depth)

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, width = np.arange(len(lengths)), self.n_ctx
        chance, which = rng.random((2, len(lengths), width))
        kinds = rng.integers(0, self.k, size=(len(lengths), width))
        tokens = np.zeros((len(lengths), width), dtype=np.int64)
        n_open = np.zeros((len(lengths), self.k), dtype=np.int64)
        for p in range(width):
            opens = chance[:, p] < self._open_chance(n_open.sum(axis=1), lengths - p)
            nth = np.cumsum(n_open > 0, axis=1)  # the kind to close is the one that is open and this many'th
            close = (nth > (which[:, p] * nth[:, -1])[:, None]).argmax(axis=1)
            kind = np.where(opens, kinds[:, p], close)
            n_open[rows, kind] += np.where(opens, 1, -1)
            tokens[:, p] = 1 + kind + np.where(opens, 0, self.k)
        return np.where(np.arange(width) < lengths[:, None], tokens, self.pad), lengths

    def _open_counts(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Open brackets of each kind after each token, int64 [item, pos, kind], and ``match`` (see ``latent_names``).

        A closing bracket that has nothing to close changes no count.
        """
        rows, (n, width) = np.arange(len(tokens)), tokens.shape
        opens, closes = self._opens(tokens), tokens > self.k
        counts, match = np.zeros((n, width, self.k), dtype=np.int64), np.full((n, width), UNDEFINED, dtype=np.int64)
        now = np.zeros((n, self.k), dtype=np.int64)
        stack = np.full((n, self.k, width + 1), UNDEFINED, dtype=np.int64)  # positions of the open ones of each kind
        for p in range(width):
            kind = np.maximum(tokens[:, p] - 1, 0) % self.k
            matches = closes[:, p] & (now[rows, kind] > 0)
            match[matches, p] = stack[rows, kind, now[rows, kind]][matches]
            now[rows, kind] += opens[:, p].astype(np.int64) - matches
            stack[rows[opens[:, p]], kind[opens[:, p]], now[rows, kind][opens[:, p]]] = p
            counts[:, p] = now
        return counts, match

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos = np.arange(tokens.shape[1])
        inside = pos < n_tokens[:, None]
        counts, match = self._open_counts(tokens)
        own = np.take_along_axis(counts, (np.maximum(tokens - 1, 0) % self.k)[..., None], axis=2)[..., 0]
        return {
            "depth": np.where(inside, counts.sum(axis=2), UNDEFINED),
            "own": np.where(inside, own, UNDEFINED),
            "open_kinds": np.where(inside, (counts > 0).sum(axis=2), UNDEFINED),
            "match": match,
            "remaining": np.where(inside, n_tokens[:, None] - 1 - pos, UNDEFINED),
        }

    def next_probabilities(self, block: Items) -> np.ndarray:
        p_open = self.open_probability(block)
        may_close = self._open_counts(block.tokens)[0] > 0
        closing = np.nan_to_num(1 - p_open, nan=0.0) / np.maximum(may_close.sum(axis=2), 1)
        probabilities = np.zeros((*block.tokens.shape, self.d_vocab))
        probabilities[..., 1 : self.k + 1] = np.nan_to_num(p_open, nan=0.0)[..., None] / self.k
        probabilities[..., self.k + 1 :] = closing[..., None] * may_close
        return probabilities

    def answer_start(self, block: Items) -> np.ndarray:
        """Where brackets of one kind alone are left to be closed: their order is decided, and no other is.

        In the cut form nothing is.
        """
        if not self.closed:
            return block.n_tokens
        rows, pos = np.arange(len(block)), np.arange(block.tokens.shape[1])
        last = block.tokens[rows, block.n_tokens - 1][:, None]
        other = (block.tokens != last) & (pos < block.n_tokens[:, None])
        return block.tokens.shape[1] - other[:, ::-1].argmax(axis=1)

    def oracle(self, question: list[str]) -> list[str]:
        names = self.token_names
        still_open: list[str] = []
        for name in question:
            if names.index(name) <= self.k:
                still_open.append(name)
            else:
                still_open.remove(names[names.index(name) - self.k])
        return [names[names.index(name) + self.k] for name in still_open]

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        inside, match = pos < block.n_tokens[:, None], block.latents["match"]
        closed_at = np.full_like(match, len(pos))  # where each bracket is closed
        item, closer = np.nonzero(match != UNDEFINED)
        closed_at[item, match[item, closer]] = closer
        opens = self._opens(block.tokens)[:, None, :]
        is_open = opens & (pos <= pos[:, None]) & (closed_at[:, None, :] > pos[:, None])
        return {
            "previous": (pos[:, None] == pos + 1) & inside[:, :, None],
            "open": is_open & inside[:, :, None],
            "match": match[..., None] == pos,
        }

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, match, rows = block.tokens.copy(), block.latents["match"], np.arange(len(block))
        closes = match != UNDEFINED
        if kind == "order":
            closes[:, :-1] &= (match[:, 1:] != UNDEFINED) & (tokens[:, :-1] != tokens[:, 1:])
            closes[:, -1] = False
        exists = closes.any(axis=1)
        close = pick_one(rng, closes)
        if kind == "order":
            first, second = rows[exists], close[exists]
            tokens[first, second], tokens[first, second + 1] = tokens[first, second + 1], tokens[first, second]
        else:
            new = (tokens[rows, close] - 1 + rng.integers(1, max(self.k, 2), size=len(block))) % self.k
            opener = np.maximum(match[rows, close], 0)
            tokens[rows[exists], opener[exists]] = 1 + new[exists]
            tokens[rows[exists], close[exists]] = 1 + self.k + new[exists]
        latents = self.latents(tokens, block.n_tokens)
        declared = self.pair_kinds[kind]
        for name in declared.changes:
            exists &= (latents[name] != block.latents[name]).any(axis=1)
        for name in declared.holds:
            exists &= (latents[name] == block.latents[name]).all(axis=1)
        return tokens, block.n_tokens, exists
