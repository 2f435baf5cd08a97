"""Brackets: ``k-dyck``, well nested brackets of k kinds, closed at the end.

Every position is scored: each token but the first is predicted. A length counts tokens and is therefore even.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.procedures.base import UNDEFINED, Example, Items, PairKind, Procedure
from mechproc.procedures.lengths import LengthDistribution, Uniform


class Nesting(NamedTuple):
    """How brackets nest; each int64 [item, pos], padding included."""

    depth: np.ndarray
    """Brackets open after this token."""
    innermost: np.ndarray
    """Position of the innermost open bracket after this token; ``UNDEFINED`` at depth 0."""
    match: np.ndarray
    """At a closing bracket, the position of the one it closes; elsewhere, and where it closes none, ``UNDEFINED``."""


@dataclasses.dataclass(frozen=True)
class Brackets(Procedure):
    """What rules of brackets share: tokens, lengths, and the chance that the next one opens."""

    length_unit: ClassVar[str] = "tokens"

    lengths: LengthDistribution = Uniform(4, 64, step=2)
    k: int = 16
    """Kinds of brackets."""
    p_open: float = 0.5

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "at least 1")
        require(0 < self.p_open < 1, "p_open", self.p_open, "above 0 and below 1")
        stages = [self.lengths.support(s) for s in range(self.lengths.n_stages)]
        odd = (np.concatenate(stages) % 2).any()
        require(not (odd and self._closes_at_the_end()), "lengths", self.lengths.to_dict(), "even lengths only")

    def _closes_at_the_end(self) -> bool:
        return True

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        opening = ["(", "[", "{", "<", *(f"({i}" for i in range(5, self.k + 1))]
        closing = [")", "]", "}", ">", *(f"){i}" for i in range(5, self.k + 1))]
        return ("_", *opening[: self.k], *closing[: self.k])

    @property
    def n_ctx(self) -> int:
        return self.lengths.max

    def _opens(self, tokens: np.ndarray) -> np.ndarray:
        return (tokens >= 1) & (tokens <= self.k)

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        return np.arange(tokens.shape[1]) < n_tokens[:, None] - 1

    def _check(self, block: Items, texts: list[str]) -> None:
        for item in np.flatnonzero(block.tokens[:, 0] > self.k)[:1].tolist():  # where nothing is predicted yet
            reason = f"{texts[item].split()[0]!r} may not stand at position 0"
            raise ConfigError(f"item {texts[item]!r} breaks the rule of {self.kind}: {reason}")
        super()._check(block, texts)

    def _free_chance(self, depth: np.ndarray) -> np.ndarray:
        """P(the next token opens | brackets open) where the end is far: it must at depth 0."""
        return np.where(depth == 0, 1.0, self.p_open)

    def _open_chance(self, depth: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        """P(the next token opens | brackets open, tokens that remain), of one length: it must not where all that
        remains is needed for closing."""
        return np.where((depth > 0) & (depth >= remaining), 0.0, self._free_chance(depth))

    def open_probability(self, block: Items) -> np.ndarray:
        """P(the next token opens | tokens so far, the item goes on), float64 [item, pos]; NaN where no item goes on so.

        An item of unknown length: each length counts by its probability given the tokens so far.
        """
        pos, depth = np.arange(block.tokens.shape[1]), block.latents["depth"]
        opens = self._opens(block.tokens)
        depth_before = np.pad(depth[:, :-1], ((0, 0), (1, 0)))
        free = self._free_chance(depth_before)
        free = np.where(opens, free, 1 - free)
        impossible = ((block.tokens > self.k) & (block.latents["match"] == UNDEFINED)) | (free == 0)
        broken = np.cumsum(impossible, axis=1) > 0
        weight_open, weight = np.zeros(depth.shape), np.zeros(depth.shape)
        scale = np.full(depth.shape, -np.inf)  # logarithm of what both weights are divided by
        for length in self.lengths.support().tolist():
            chance = self._open_chance(depth_before, length - pos)
            # relative to choices that no end forces, and to the likeliest length so far: long items have extreme ones
            with np.errstate(divide="ignore"):
                step = np.log(np.where(opens, chance, 1 - chance) / np.where(free == 0, 1.0, free))
            likelihood = np.where((pos < length - 1) & ~broken, np.cumsum(step, axis=1), -np.inf)
            before, scale = scale, np.maximum(scale, likelihood)
            finite = np.where(np.isfinite(scale), scale, 0.0)
            weight_now, shrunk = np.exp(likelihood - finite), np.exp(before - finite)
            weight = weight * shrunk + weight_now
            weight_open = weight_open * shrunk + weight_now * self._open_chance(depth, length - 1 - pos)
        with np.errstate(invalid="ignore"):
            return weight_open / weight

    def baselines(self, block: Items) -> dict[str, float]:
        pos, opens = np.arange(block.tokens.shape[1]), self._opens(block.tokens)
        target = block.targets[block.scored]
        last = np.maximum.accumulate(np.where(opens, pos, 0), axis=1)
        close_last = np.take_along_axis(block.tokens, last, axis=1)[block.scored] + self.k
        return {
            "a bracket at random": 1 / (2 * self.k),
            "a legal bracket at random": float((1 / self.legal_next(block).sum(axis=-1)[block.scored]).mean()),
            "the most frequent bracket": float(np.bincount(target).max() / len(target)),
            "closing the kind opened last": float((close_last == target).mean()),
        }


@dataclasses.dataclass(frozen=True)
class KDyck(Brackets):
    """Well nested brackets. Opens with probability ``p_open`` where it may both open and close; kinds are uniform.

    The default lengths vary, because at one fixed length the position alone tells how much is left to close; up to 64
    tokens they train every position that an item of the haystack task (63 tokens) takes.
    """

    kind: ClassVar[str] = "k-dyck"
    latent_names: ClassVar[dict[str, str]] = {
        "depth": "brackets open after this token; at every token",
        "top": "kind (0 to k - 1) of the innermost open bracket, the only one that may close next; where depth > 0",
        "innermost": "position of the innermost open bracket; where depth > 0",
        "distance": "tokens from the innermost open bracket to here, 0 at the bracket itself; where depth > 0",
        "match": "position of the bracket that this one closes; at closing brackets",
        "remaining": "tokens of the item after this one; at every token. Lengths that vary hide it from the model",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("depth", "innermost", "distance", "match", "remaining")
    attention_target_names: ClassVar[dict[str, str]] = {
        "previous": "from each token but the first to the one before it",
        "innermost": "from each token with depth > 0 to the innermost open bracket, the one to close next",
        "match": "from each closing bracket to the one it closes",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "kind": PairKind(
            "a bracket and the one that closes it become another kind",
            changes=("top",),
            holds=("depth", "innermost", "distance", "match", "remaining"),
        ),
        "nesting": PairKind(
            "of two neighbours of different kinds, a (..)a (..)b, the second moves into the first: the same tokens in "
            "another order",
            changes=("depth", "top", "innermost", "distance", "match"),
            holds=("remaining",),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(4, 10, step=2), "k": 3}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "( [ ] { } )",
            "[ ] { } )",
            {
                "depth": (1, 2, 1, 2, 1, 0),
                "top": (0, 1, 0, 2, 0, -1),
                "innermost": (0, 1, 0, 3, 0, -1),
                "distance": (0, 0, 2, 0, 4, -1),
                "match": (-1, -1, 1, -1, 3, 0),
                "remaining": (5, 4, 3, 2, 1, 0),
            },
        ),
        Example("[ ] [ ( ( ) ) ]", "] [ ( ( ) ) ]", {"match": (-1, 0, -1, -1, -1, 4, 3, 2)}),
        Example("(5 )5 < >", ")5 < >", {"top": (4, -1, 3, -1)}, {"k": 5}),
    )

    p_open: float = 0.49

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, width = np.arange(len(lengths)), self.n_ctx
        chance = rng.random((len(lengths), width))
        kinds = rng.integers(0, self.k, size=(len(lengths), width))
        tokens = np.zeros((len(lengths), width), dtype=np.int64)
        depth = np.zeros(len(lengths), dtype=np.int64)
        stack = np.zeros((len(lengths), width + 1), dtype=np.int64)
        for p in range(width):
            opens = chance[:, p] < self._open_chance(depth, lengths - p)
            depth += np.where(opens, 1, -1)
            stack[rows[opens], depth[opens]] = kinds[opens, p]
            tokens[:, p] = np.where(opens, 1 + kinds[:, p], 1 + self.k + stack[rows, depth + 1])
        return np.where(np.arange(width) < lengths[:, None], tokens, self.pad), lengths

    def _nesting(self, tokens: np.ndarray) -> Nesting:
        rows, (n, width) = np.arange(len(tokens)), tokens.shape
        opens, closes = self._opens(tokens), tokens > self.k
        depth, innermost, match = (np.full((n, width), UNDEFINED, dtype=np.int64) for _ in range(3))
        now = np.zeros(n, dtype=np.int64)
        stack = np.full((n, width + 1), UNDEFINED, dtype=np.int64)
        for p in range(width):
            top = stack[rows, now]
            matches = closes[:, p] & (top != UNDEFINED) & (tokens[rows, top] == tokens[:, p] - self.k)
            match[matches, p] = top[matches]
            now += opens[:, p].astype(np.int64) - matches
            stack[rows[opens[:, p]], now[opens[:, p]]] = p
            depth[:, p], innermost[:, p] = now, stack[rows, now]
        return Nesting(depth, innermost, match)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos, inside = np.arange(tokens.shape[1]), np.arange(tokens.shape[1]) < n_tokens[:, None]
        nesting = self._nesting(tokens)
        is_open = inside & (nesting.depth > 0)
        return {
            "depth": np.where(inside, nesting.depth, UNDEFINED),
            "top": np.where(is_open, np.take_along_axis(tokens, nesting.innermost, axis=1) - 1, UNDEFINED),
            "innermost": np.where(is_open, nesting.innermost, UNDEFINED),
            "distance": np.where(is_open, pos - nesting.innermost, UNDEFINED),
            "match": nesting.match,
            "remaining": np.where(inside, n_tokens[:, None] - 1 - pos, UNDEFINED),
        }

    def next_probabilities(self, block: Items) -> np.ndarray:
        p_open = self.open_probability(block)
        probabilities = np.zeros((*block.tokens.shape, self.d_vocab))
        probabilities[..., 1 : self.k + 1] = np.nan_to_num(p_open, nan=0.0)[..., None] / self.k
        item, query = np.nonzero(~np.isnan(p_open) & (block.latents["top"] != UNDEFINED))
        closing = 1 + self.k + block.latents["top"][item, query]
        probabilities[item, query, closing] = 1 - p_open[item, query]
        return probabilities

    def answer_start(self, block: Items) -> np.ndarray:
        """After the last opening bracket: what is open is closed from there on."""
        return block.tokens.shape[1] - self._opens(block.tokens)[:, ::-1].argmax(axis=1)

    def oracle(self, question: list[str]) -> list[str]:
        names = self.token_names
        still_open: list[str] = []
        for name in question:
            if names.index(name) <= self.k:
                still_open.append(name)
            else:
                still_open.pop()
        return [names[names.index(name) + self.k] for name in reversed(still_open)]

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        inside = pos < block.n_tokens[:, None]
        return {
            "previous": (pos[:, None] == pos + 1) & inside[:, :, None],
            "innermost": block.latents["innermost"][..., None] == pos,
            "match": block.latents["match"][..., None] == pos,
        }

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, match, rows = block.tokens.copy(), block.latents["match"], np.arange(len(block))
        closes = match != UNDEFINED
        if kind == "kind":
            close = pick_one(rng, closes)
            opener = match[rows, close]
            shift = rng.integers(1, max(self.k, 2), size=len(block))
            new = (tokens[rows, opener] - 1 + shift) % self.k
            tokens[rows, opener], tokens[rows, close] = 1 + new, 1 + self.k + new
            return tokens, block.n_tokens, np.full(len(block), self.k > 1) & closes.any(axis=1)
        # )a (b at `close` and the position after it become (b )b, and the bracket that closed b closes a
        closer = np.zeros_like(match)
        item, position = np.nonzero(closes)
        closer[item, match[item, position]] = position
        borders = closes[:, :-1] & self._opens(tokens[:, 1:]) & (tokens[:, :-1] != tokens[:, 1:] + self.k)
        close = pick_one(rng, borders)
        a, b = tokens[rows, close], tokens[rows, close + 1]
        end = closer[rows, close + 1]
        tokens[rows, close], tokens[rows, close + 1], tokens[rows, end] = b, b + self.k, a
        exists = borders.any(axis=1)
        return np.where(exists[:, None], tokens, block.tokens), block.n_tokens, exists


def pick_one(rng: np.random.Generator, allowed: np.ndarray) -> np.ndarray:
    """A column of each row where ``allowed``, int64 [row]; any column where there is none."""
    return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
