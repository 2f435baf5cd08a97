"""Operations on a stack: ``stack`` writes what is left on it, top first."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mechproc.procedures.base import UNDEFINED, Example, Items, PairKind
from mechproc.procedures.copy_rule import (
    FIRST_SYMBOL,
    NEVER,
    CopyRule,
    pick,
    separator_position,
)
from mechproc.procedures.lengths import Uniform

P_PUSH_EARLY, P_PUSH_LATE = 3 / 4, 1 / 4
"""Chance of a push, where there is a choice, in the first floor(2 L / 3) of L operations and in the others."""


class Pile(NamedTuple):
    """What the operations of an input do."""

    depth: np.ndarray
    """int64 [item, pos]: symbols on the stack after this token."""
    top: np.ndarray
    """int64 [item, pos]: position of the push that put the topmost symbol there; ``UNDEFINED`` at depth 0."""
    popped: np.ndarray
    """int64 [item, pos]: at a pop, the position of the push that it undoes; elsewhere ``UNDEFINED``."""
    survives: np.ndarray
    """bool [item, pos]: pushes of what is on the stack at the end of the input."""
    sound: np.ndarray
    """bool [item]: no pop of an empty stack, no push of a symbol that is on the stack."""


@dataclasses.dataclass(frozen=True)
class Stack(CopyRule):
    """``o1 .. oL | s1 .. sm``: what L operations leave on a stack, top first. A symbol pushes itself, ``P`` pops.

    A push is forced while at most one symbol is on the stack. Otherwise it has probability 3/4 in the first
    floor(2 L / 3) operations and 1/4 in the others, and the last operation pops. What is pushed is drawn uniformly from
    the symbols that are not on the stack; where all are, a pop is forced. Operations that the generator does not make,
    such as the pop of the only symbol, have their answer too.
    """

    kind: ClassVar[str] = "stack"
    version: ClassVar[str] = "2.0.0"
    length_unit: ClassVar[str] = "operations"
    mark: ClassVar[str] = "P"
    latent_names: ClassVar[dict[str, str]] = {
        **CopyRule.latent_names,
        "source": "position of the push of the symbol to be written next; there too",
        "match": "position of the push of this symbol; at the symbols of the answer",
        "depth": "symbols on the stack after this operation; at the operations",
        "top": "token on top of the stack after this operation; at the operations that leave one",
        "top_position": "position of the push that put it there; there too",
        "popped": "position of the push that this pop undoes; at the pops",
        "survives": "1 where what is pushed is on the stack at the end, 0 where it is popped; at the pushes",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (*CopyRule.ordinal_latents, "depth", "top_position", "popped")
    attention_target_names: ClassVar[dict[str, str]] = {
        "previous": "from each operation but the first to the one before it",
        "source": "from the separator and the answer to the push of the symbol to be written next",
        "match": "from each symbol of the answer to its push",
        "top": "from each operation to the push of the symbol that is then on top",
        "popped": "from each pop to the push that it undoes",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that is pushed once and survives is replaced by one that the item lacks",
            changes=("next", "top"),
            holds=(*("source", "match", "written", "remaining", "depth", "top_position", "popped", "survives"),),
        ),
        "swap": PairKind(
            "two symbols that are pushed once and survive change places",
            changes=("next", "top"),
            holds=(*("source", "match", "written", "remaining", "depth", "top_position", "popped", "survives"),),
        ),
        "popped symbol": PairKind(
            "a symbol that is pushed once and popped is replaced by one that the item lacks: the answer stays",
            changes=("top",),
            holds=(
                *("next", "source", "match", "written", "remaining", "depth", "top_position", "popped", "survives"),
            ),
        ),
        "moved pop": PairKind(
            "a pop moves to another place among the operations: another answer of the same length",
            changes=("next", "source", "match", "depth", "top", "top_position", "popped", "survives"),
            holds=("written", "remaining"),
        ),
        "pop": PairKind(
            "a pop becomes a push of a symbol that the item lacks: the answer grows by two",
            changes=(
                *("next", "source", "match", "written", "remaining"),
                *("depth", "top", "top_position", "popped", "survives"),
            ),
            holds=(),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(2, 8), "n_symbols": 6}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "1 2 3 P | 2 1",
            "2 1",
            {
                "next": (-1, -1, -1, -1, 3, 2, -1),
                "source": (-1, -1, -1, -1, 1, 0, -1),
                "match": (-1, -1, -1, -1, -1, 1, 0),
                "written": (-1, -1, -1, -1, 0, 1, 2),
                "remaining": (-1, -1, -1, -1, 2, 1, 0),
                "depth": (1, 2, 3, 2, -1, -1, -1),
                "top": (2, 3, 4, 3, -1, -1, -1),
                "top_position": (0, 1, 2, 1, -1, -1, -1),
                "popped": (-1, -1, -1, 2, -1, -1, -1),
                "survives": (1, 1, 0, -1, -1, -1, -1),
            },
        ),
        Example(
            "1 P 2 3 P 4 | 4 2",
            "4 2",
            {
                "depth": (1, 0, 1, 2, 1, 2, -1, -1, -1),
                "top_position": (0, -1, 2, 3, 2, 5, -1, -1, -1),
                "popped": (-1, 0, -1, -1, 3, -1, -1, -1, -1),
                "survives": (0, -1, 1, 0, -1, 1, -1, -1, -1),
            },
        ),
        Example("1 2 3 4 P P | 2 1", "2 1", {"popped": (-1, -1, -1, -1, 3, 2, -1, -1, -1)}),
    )

    def _symbol_names(self) -> list[str]:
        return [str(i + 1) for i in range(self.n_symbols)]

    @property
    def n_ctx(self) -> int:
        stages = [self.lengths.support(s) for s in range(self.lengths.n_stages)]
        return max(n + 1 + self._most_left(n) for n in np.concatenate(stages).tolist())

    def _most_left(self, n_operations: int) -> int:
        """Symbols on the stack after this many operations, at most."""
        before_last = n_operations - 1
        if before_last > self.n_symbols:  # pushes and pops in turn once the stack is full
            before_last = self.n_symbols - (before_last - self.n_symbols) % 2
        return before_last - 1 if before_last > 1 else before_last + 1

    def _is_input(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        return super()._is_input(tokens, start) & (tokens != self._mark)

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        pile = self._pile(tokens, start)
        return np.where(pile.survives & pile.sound[:, None], -np.arange(tokens.shape[1]), NEVER)

    def _pile(self, tokens: np.ndarray, start: np.ndarray) -> Pile:
        rows, (n, width) = np.arange(len(tokens)), tokens.shape
        depth, top, popped = (np.full((n, width), UNDEFINED, dtype=np.int64) for _ in range(3))
        is_on = np.zeros((n, self.d_vocab), dtype=bool)
        now, sound = np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool)
        stack = np.full((n, width + 1), UNDEFINED, dtype=np.int64)  # column d: position of the d-th symbol from below
        for p in range(int(start.max(initial=0))):
            token, inside = tokens[:, p], p < start
            pops = inside & (token == self._mark)
            pushes = inside & ~pops
            sound &= ~(pops & (now == 0)) & ~(pushes & is_on[rows, token])
            pops &= now > 0
            popped[pops, p] = stack[pops, now[pops]]
            is_on[pops, tokens[pops, popped[pops, p]]] = False
            is_on[pushes, token[pushes]] = True
            now += pushes.astype(np.int64) - pops
            stack[pushes, now[pushes]] = p
            depth[:, p], top[:, p] = now, stack[rows, now]
        survives = np.zeros((n, width), dtype=bool)
        item, level = np.nonzero((np.arange(width + 1) <= now[:, None]) & (stack != UNDEFINED))
        survives[item, stack[item, level]] = True
        return Pile(depth, top, popped, survives, sound)

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, n_items, longest = np.arange(len(lengths)), len(lengths), self.lengths.max
        chance, which = rng.random((2, n_items, longest))
        # a permutation of the symbols for each item: those on the stack, then the others
        symbols = np.tile(FIRST_SYMBOL + np.arange(self.n_symbols), (n_items, 1))
        depth = np.zeros(n_items, dtype=np.int64)
        tokens = np.zeros((n_items, self.n_ctx), dtype=np.int64)
        for p in range(longest):
            pushes = chance[:, p] < self._push_chance(p, lengths, depth)
            other = np.minimum(depth, self.n_symbols - 1)  # full: pops
            taken = other + (which[:, p] * (self.n_symbols - other)).astype(np.int64)
            new, old = symbols[rows, taken], symbols[rows, other]
            symbols[rows[pushes], other[pushes]], symbols[rows[pushes], taken[pushes]] = new[pushes], old[pushes]
            tokens[:, p] = np.where(pushes, new, self._mark)
            depth += np.where(pushes, 1, -1)
        return self._answered(tokens, lengths)

    def _push_chance(self, p: int | np.ndarray, lengths: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """P(operation ``p`` pushes | operations in all, symbols on the stack), float64 of the shape of all three."""
        free = np.where(p < 2 * lengths // 3, P_PUSH_EARLY, P_PUSH_LATE)
        pops = (p == lengths - 1) | (depth == self.n_symbols)
        return np.where(depth <= 1, 1.0, np.where(pops, 0.0, free))

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        start = separator_position(tokens, n_tokens)
        pile, is_operation = self._pile(tokens, start), np.arange(tokens.shape[1]) < start[:, None]
        has_top = is_operation & (pile.top != UNDEFINED)
        return {
            **super().latents(tokens, n_tokens),
            "depth": np.where(is_operation, pile.depth, UNDEFINED),
            "top": np.where(has_top, np.take_along_axis(tokens, pile.top, axis=1), UNDEFINED),
            "top_position": np.where(has_top, pile.top, UNDEFINED),
            "popped": pile.popped,
            "survives": np.where(self._is_input(tokens, start), pile.survives, UNDEFINED),
        }

    def baselines(self, block: Items) -> dict[str, float]:
        is_push = block.latents["survives"] != UNDEFINED
        backwards = np.where(is_push, -np.arange(block.tokens.shape[1]), NEVER)
        return {
            **super().baselines(block),
            "a symbol pushed just before a copy of the current one": self._beside_a_copy(block, -1),
            "the pushes backwards": self._written_as(block, backwards),
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos, latents = np.arange(block.tokens.shape[1]), block.latents
        return {
            **super().attention_targets(block),
            "previous": (pos[:, None] == pos + 1) & (latents["depth"] != UNDEFINED)[:, :, None],
            "top": latents["top_position"][..., None] == pos,
            "popped": latents["popped"][..., None] == pos,
        }

    def _alone(self, block: Items) -> np.ndarray:
        return super()._alone(block) & (block.latents["survives"] == 1)

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        survives, is_pop = block.latents["survives"], block.latents["popped"] != UNDEFINED
        start = separator_position(block.tokens, block.n_tokens)
        if kind == "popped symbol":
            return self._with_new_symbol(rng, block, super()._alone(block) & (survives == 0))
        if kind == "pop":
            tokens, n_tokens, exists = self._with_new_symbol(rng, block, is_pop)
        elif kind == "moved pop":
            pos, exists = np.arange(block.tokens.shape[1]), is_pop.any(axis=1)
            old, new = pick(rng, is_pop, 1), pick(rng, pos < start[:, None], 1)
            place = np.where(pos == old, new + np.where(new > old, 0.5, -0.5), pos)
            tokens = np.take_along_axis(block.tokens, np.argsort(place, axis=1), axis=1)
            tokens, n_tokens = self._answered(tokens, start)
        else:
            return super().perturbed(kind, rng, block)
        latents = self.latents(tokens, n_tokens)
        for name in self.pair_kinds[kind].changes:
            exists &= (latents[name] != block.latents[name]).any(axis=1)
        return tokens, n_tokens, exists & self._can_be_drawn(tokens, start)

    def _can_be_drawn(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Which inputs the generator can make, bool [item]."""
        pile = self._pile(tokens, start)
        before = np.pad(pile.depth[:, :-1], ((0, 0), (1, 0)))
        pos, pushes = np.arange(tokens.shape[1]), tokens != self._mark
        chance = self._push_chance(pos, start[:, None], before)
        possible = np.where(pushes, chance > 0, chance < 1) | (pos >= start[:, None])
        return pile.sound & possible.all(axis=1)

    def oracle(self, question: list[str]) -> list[str]:
        left: list[str] = []
        for operation in question[:-1]:
            if operation == "P":
                left.pop()
            else:
                left.append(operation)
        return left[::-1]
