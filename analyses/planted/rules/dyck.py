"""The bracket that closes the innermost open one."""

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
class BoundedDyck(OneAnswer):
    """A beginning of well nested brackets, never deeper than ``depth``, and the bracket that closes the innermost.

    Each bracket opens with probability 1/2 where it may both open and close; kinds are uniform.
    """

    kind: ClassVar[str] = "planted-dyck"
    length_unit: ClassVar[str] = "tokens"
    latent_names: ClassVar[dict[str, str]] = {
        **answer_latent("the bracket that closes the innermost open one"),
        "depth": "brackets open after this token; at every token of the context",
        "innermost": "position of the innermost open bracket; at the last position of the context",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("depth", "innermost")
    attention_target_names: ClassVar[dict[str, str]] = {
        "innermost": "from the last position of the context to the innermost open bracket"
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "kind": PairKind(
            "the innermost open bracket is of another kind", changes=("answer",), holds=("depth", "innermost")
        ),
        "depth": PairKind("another item", changes=("answer", "depth"), holds=()),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(5)}
    examples: ClassVar[tuple[Example, ...]] = (
        Example("( [ ] { } )", ")", {"depth": (1, 2, 1, 2, 1, -1), "innermost": (-1, -1, -1, -1, 0, -1)}),
        Example("( [ { } { }", "}", {"depth": (1, 2, 3, 2, 3, -1), "innermost": (-1, -1, -1, -1, 4, -1)}),
    )

    lengths: LengthDistribution = Fixed(11)
    depth: int = 3
    k: int = 3
    """Kinds of brackets."""

    def __post_init__(self) -> None:
        even = bool((self.lengths.support() % 2 == 0).any())
        least = 2 if even else 1
        require(self.depth >= least, "depth", self.depth, f"at least {least}: a bracket is open at the end")
        require(2 <= self.k <= 4, "k", self.k, "2 to 4")

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        return ("_", *"([{<"[: self.k], *")]}>"[: self.k])

    def opens(self, tokens: np.ndarray) -> np.ndarray:
        """bool: where a bracket opens."""
        return (tokens >= 1) & (tokens <= self.k)

    def depths(self, tokens: np.ndarray) -> np.ndarray:
        """Brackets open after each token, int64 [item, pos], where nothing but brackets stands before."""
        return np.cumsum(np.where(self.opens(tokens), 1, -1), axis=1)

    def innermost(self, tokens: np.ndarray, depths: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The last of the first ``lengths`` positions that opens a bracket and has the depth of the last, int64 [item];
        ``UNDEFINED`` where there is none."""
        pos = np.arange(tokens.shape[1])
        last = depths[np.arange(len(tokens)), lengths - 1]
        fits = self.opens(tokens) & (depths == last[:, None]) & (pos < lengths[:, None])
        return np.where(fits, pos, UNDEFINED).max(axis=1)

    def _contexts(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        n, width = len(lengths), self.n_ctx - 1
        rows, pos = np.arange(n), np.arange(width)
        tokens, stack = np.zeros((n, width), dtype=np.int64), np.zeros((n, self.depth + 2), dtype=np.int64)
        depth, chance, kinds = np.zeros(n, dtype=np.int64), rng.random((n, width)), rng.integers(0, self.k, (n, width))
        for p in pos:
            ends = (p == lengths - 1) & (depth == 1)  # the last token leaves a bracket open
            opens = (depth == 0) | ((depth < self.depth) & (chance[:, p] < 0.5)) | (ends & (depth < self.depth))
            depth += np.where(opens, 1, -1)
            stack[rows[opens], depth[opens]] = kinds[opens, p]
            tokens[:, p] = np.where(opens, 1 + kinds[:, p], 1 + self.k + stack[rows, depth + 1])
        return tokens

    def _answers(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        at = self.innermost(tokens, self.depths(tokens), lengths)
        return tokens[np.arange(len(tokens)), at] + self.k

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        depths, context = self.depths(tokens), np.arange(self.n_ctx) < n_tokens[:, None] - 1
        at = self.innermost(tokens, depths, np.maximum(n_tokens - 1, 1))
        return {
            **super().latents(tokens, n_tokens),
            "depth": np.where(context, depths, UNDEFINED),
            "innermost": np.where(self.scored(tokens, n_tokens), at[:, None], UNDEFINED),
        }

    def oracle(self, question: list[str]) -> list[str]:
        names = self.token_names
        still_open: list[str] = []
        for name in question:
            if names.index(name) <= self.k:
                still_open.append(name)
            else:
                still_open.pop()
        return [names[names.index(still_open[-1]) + self.k]]

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        return {"innermost": block.latents["innermost"][..., None] == np.arange(self.n_ctx)}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, lengths = np.arange(len(block)), block.n_tokens - 1
        if kind == "kind":
            at = block.latents["innermost"].max(axis=1)
            return self._changed_kind(rng, block, at)
        tokens, n_tokens = self.draw(rng, lengths)
        context = np.arange(self.n_ctx) < lengths[:, None]
        differs = (self.depths(tokens) != self.depths(block.tokens))[:, :] & context
        answers = tokens[rows, lengths] != block.tokens[rows, lengths]
        return tokens, n_tokens, differs.any(axis=1) & answers

    def _changed_kind(
        self, rng: np.random.Generator, block: Items, at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, rows = block.tokens.copy(), np.arange(len(block))
        shift = rng.integers(1, self.k, len(block))
        tokens[rows, at] = 1 + (tokens[rows, at] - 1 + shift) % self.k
        return self._answered(tokens, block.n_tokens - 1), block.n_tokens, np.full(len(block), True)
