"""A list, a comma, and what acts on the list: ``union`` a second list, ``delete`` a named symbol."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mechproc.procedures.base import UNDEFINED, Example, Items, PairKind
from mechproc.procedures.copy_rule import NEVER, CopyRule, pick, separator_position
from mechproc.procedures.sequences import Set


@dataclasses.dataclass(frozen=True)
class Union(Set):
    """``a1 .. am , b1 .. bn | u1 .. uk``: the symbols of both lists, each once, in the order of first occurrence.

    Symbols are drawn uniformly, so that duplicates occur within a list as well as across. A length counts the symbols
    of both lists; the first list has one to all but one of them, each number equally likely.
    """

    kind: ClassVar[str] = "union"
    length_unit: ClassVar[str] = "the symbols of both lists"
    mark: ClassVar[str] = ","
    shortest: ClassVar[int] = 2
    latent_names: ClassVar[dict[str, str]] = {
        **Set.latent_names,
        "list": "0 in the first list, 1 in the second; at the input symbols",
        "next_list": "list of the input symbol to be written next; at the separator and the answer but its last symbol",
    }
    attention_target_names: ClassVar[dict[str, str]] = {
        **Set.attention_target_names,
        "previous": "from each input symbol but the first of its list to the one before it",
        "across": "from each symbol of the second list to its copies in the first",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        **{
            name: dataclasses.replace(kind, holds=(*kind.holds, "list", "next_list"))
            for name, kind in Set.pair_kinds.items()
            if name != "duplicate"
        },
        "duplicate": dataclasses.replace(
            Set.pair_kinds["duplicate"],
            changes=(*Set.pair_kinds["duplicate"].changes, "next_list"),
            holds=("list",),
        ),
        "comma": PairKind(
            "the comma changes places with a neighbour that occurs once in the input: the answer stays",
            changes=("source", "match", "first", "distinct", "list", "next_list"),
            holds=("next", "written", "remaining", "duplicate_of"),
        ),
    }
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "b a b , c a | b a c",
            "b a c",
            {
                "next": (-1, -1, -1, -1, -1, -1, 3, 2, 4, -1),
                "source": (-1, -1, -1, -1, -1, -1, 0, 1, 4, -1),
                "match": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 4),
                "written": (-1, -1, -1, -1, -1, -1, 0, 1, 2, 3),
                "remaining": (-1, -1, -1, -1, -1, -1, 3, 2, 1, 0),
                "first": (1, 1, 0, -1, 1, 0, -1, -1, -1, -1),
                "duplicate_of": (-1, -1, 0, -1, -1, 1, -1, -1, -1, -1),
                "distinct": (1, 2, 2, -1, 3, 3, -1, -1, -1, -1),
                "list": (0, 0, 0, -1, 1, 1, -1, -1, -1, -1),
                "next_list": (-1, -1, -1, -1, -1, -1, 0, 0, 1, -1),
            },
        ),
        Example("c , c c | c", "c"),
        Example("d , a b | d a b", "d a b"),
    )

    @property
    def n_ctx(self) -> int:
        return super().n_ctx + 1

    def _is_input(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        return super()._is_input(tokens, start) & (tokens != self._mark)

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        one_comma = self._is_input(tokens, start).sum(axis=1) == start - 1
        return np.where(one_comma[:, None], super()._order(tokens, start), NEVER)

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pos, symbols = np.arange(self.n_ctx), self._draw_symbols(rng, len(lengths))
        comma = rng.integers(1, lengths)[:, None]
        tokens = np.where(pos < comma, symbols, np.where(pos == comma, self._mark, np.roll(symbols, 1, axis=1)))
        return self._answered(tokens, lengths + 1)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        latents = super().latents(tokens, n_tokens)
        comma = self._mark_position(tokens, separator_position(tokens, n_tokens))[:, None]
        source = latents["source"]
        return {
            **latents,
            "list": np.where(latents["first"] != UNDEFINED, np.arange(tokens.shape[1]) > comma, UNDEFINED),
            "next_list": np.where(source != UNDEFINED, source > comma, UNDEFINED),
        }

    def baselines(self, block: Items) -> dict[str, float]:
        kept = np.zeros(block.tokens.shape, dtype=bool)
        for number in (0, 1):
            in_list = block.latents["list"] == number
            kept |= in_list & (self._first_position(block.tokens, in_list) == np.arange(block.tokens.shape[1]))
        own = self._written_as(block, np.where(kept, 0, NEVER))
        return {**super().baselines(block), "each list without duplicates of its own": own}

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        masks, list_of = super().attention_targets(block), block.latents["list"]
        across = (list_of == 1)[:, :, None] & (list_of == 0)[:, None, :]
        return {**masks, "across": masks["duplicate"] & across}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if kind != "comma":
            return super().perturbed(kind, rng, block)
        tokens, pos, rows = block.tokens.copy(), np.arange(block.tokens.shape[1]), np.arange(len(block))
        start = separator_position(tokens, block.n_tokens)
        comma = self._mark_position(tokens, start)
        # neither list may lose its only symbol
        left = (pos == comma[:, None] - 1) & (comma >= 2)[:, None]
        right = (pos == comma[:, None] + 1) & (comma <= start - 3)[:, None]
        movable = (left | right) & self._alone(block)
        neighbour = pick(rng, movable, 1)[:, 0]
        tokens[rows, comma], tokens[rows, neighbour] = tokens[rows, neighbour], self._mark
        return *self._answered(tokens, start), movable.any(axis=1)

    def oracle(self, question: list[str]) -> list[str]:
        comma = question.index(",")
        return list(dict.fromkeys(question[:comma] + question[comma + 1 : -1]))


@dataclasses.dataclass(frozen=True)
class Delete(CopyRule):
    """``x1 .. xL , d | y1 .. y(L-1)``: the list without the first occurrence of the symbol named after the comma.

    The named symbol is that of a list position drawn uniformly, so that it always occurs, and more often where it
    occurs more often. It stands after the list: what is removed is not known while the list is read.
    """

    kind: ClassVar[str] = "delete"
    length_unit: ClassVar[str] = "the symbols of the list"
    mark: ClassVar[str] = ","
    shortest: ClassVar[int] = 2
    latent_names: ClassVar[dict[str, str]] = {
        **CopyRule.latent_names,
        "named": "token to be removed; at the named symbol, the separator and the answer",
        "removed": "position of the input symbol that is removed, the first that is named; there too",
        "shift": "0 where the input symbol to be written next stands before the removed one, 1 where after; at the "
        "separator and the answer but its last symbol",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (*CopyRule.ordinal_latents, "removed")
    attention_target_names: ClassVar[dict[str, str]] = {
        **CopyRule.attention_target_names,
        "previous": "from each symbol of the list but the first to the one before it",
        "named": "from the separator and the answer to the named symbol after the comma",
        "removed": "from the named symbol, the separator and the answer to the input symbol that is removed",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "symbol": PairKind(
            "a symbol that occurs once in the list and is not named is replaced by one that the item lacks",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "named", "removed", "shift"),
        ),
        "swap": PairKind(
            "two symbols that occur once in the list and are not named change places",
            changes=("next",),
            holds=("source", "match", "written", "remaining", "named", "removed", "shift"),
        ),
        "named": PairKind(
            "another symbol of the list is named",
            changes=("next", "source", "match", "named", "removed", "shift"),
            holds=("written", "remaining"),
        ),
        "both": PairKind(
            "the named symbol, which occurs once in the list, becomes one that the item lacks in both places",
            changes=("named",),
            holds=("next", "source", "match", "written", "remaining", "removed", "shift"),
        ),
        "earlier copy": PairKind(
            "a symbol before the removed one becomes a copy of it and is removed instead",
            changes=("next", "source", "match", "removed", "shift"),
            holds=("written", "remaining", "named"),
        ),
    }
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "c a b a , a | c b a",
            "c b a",
            {
                "next": (-1, -1, -1, -1, -1, -1, 4, 3, 2, -1),
                "source": (-1, -1, -1, -1, -1, -1, 0, 2, 3, -1),
                "match": (-1, -1, -1, -1, -1, -1, -1, 0, 2, 3),
                "written": (-1, -1, -1, -1, -1, -1, 0, 1, 2, 3),
                "remaining": (-1, -1, -1, -1, -1, -1, 3, 2, 1, 0),
                "named": (-1, -1, -1, -1, -1, 2, 2, 2, 2, 2),
                "removed": (-1, -1, -1, -1, -1, 1, 1, 1, 1, 1),
                "shift": (-1, -1, -1, -1, -1, -1, 0, 1, 1, -1),
            },
        ),
        Example("d b e , e | d b", "d b", {"shift": (-1, -1, -1, -1, -1, 0, 0, -1)}),
        Example("a a , a | a", "a"),
    )

    @property
    def n_ctx(self) -> int:
        return 2 * self.lengths.max + 2

    def _is_input(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        return super()._is_input(tokens, self._mark_position(tokens, start))

    def _removal(self, tokens: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The named token and the position of the symbol that it removes, int64 [item]; both ``UNDEFINED`` where the
        input is not a list, a comma and a symbol of the list."""
        comma = self._mark_position(tokens, start)
        named = np.take_along_axis(tokens, np.minimum(comma + 1, tokens.shape[1] - 1)[:, None], axis=1)
        matches = self._is_input(tokens, start) & (tokens == named)
        sound = (comma + 2 == start) & matches.any(axis=1)
        return np.where(sound, named[:, 0], UNDEFINED), np.where(sound, matches.argmax(axis=1), UNDEFINED)

    def _order(self, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
        removed = self._removal(tokens, start)[1][:, None]
        kept = self._is_input(tokens, start) & (np.arange(tokens.shape[1]) != removed) & (removed != UNDEFINED)
        return np.where(kept, 0, NEVER)

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens, rows = self._draw_symbols(rng, len(lengths)), np.arange(len(lengths))
        tokens[rows, lengths + 1] = tokens[rows, rng.integers(0, lengths)]
        tokens[rows, lengths] = self._mark
        return self._answered(tokens, lengths + 2)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        latents, pos = super().latents(tokens, n_tokens), np.arange(tokens.shape[1])
        start = separator_position(tokens, n_tokens)
        named, removed = (value[:, None] for value in self._removal(tokens, start))
        from_name = (pos >= start[:, None] - 1) & (pos < n_tokens[:, None])
        return {
            **latents,
            "named": np.where(from_name, named, UNDEFINED),
            "removed": np.where(from_name, removed, UNDEFINED),
            "shift": np.where(latents["source"] != UNDEFINED, latents["source"] > removed, UNDEFINED),
        }

    def baselines(self, block: Items) -> dict[str, float]:
        start = separator_position(block.tokens, block.n_tokens)
        is_input, named = self._is_input(block.tokens, start), self._removal(block.tokens, start)[0][:, None]
        behind_first = is_input & (np.arange(block.tokens.shape[1]) > 0)
        not_named = is_input & (block.tokens != named)
        return {
            **super().baselines(block),
            "the list position by position": self._in_place(block),
            "the list without its first symbol": self._written_as(block, np.where(behind_first, 0, NEVER)),
            "the list without any named symbol": self._written_as(block, np.where(not_named, 0, NEVER)),
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos, start = np.arange(block.tokens.shape[1]), separator_position(block.tokens, block.n_tokens)
        writes = (block.latents["written"] != UNDEFINED) & (block.latents["named"] != UNDEFINED)
        return {
            **super().attention_targets(block),
            "named": writes[:, :, None] & (pos == start[:, None] - 1)[:, None, :],
            "removed": block.latents["removed"][..., None] == pos,
        }

    def _alone(self, block: Items) -> np.ndarray:
        return super()._alone(block) & (block.tokens != block.latents["named"].max(axis=1, keepdims=True))

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if kind in ("symbol", "swap"):
            return super().perturbed(kind, rng, block)
        tokens, pos, rows = block.tokens.copy(), np.arange(block.tokens.shape[1]), np.arange(len(block))
        start = separator_position(tokens, block.n_tokens)
        named, removed = (value[:, None] for value in self._removal(tokens, start))
        is_input = self._is_input(tokens, start)
        if kind == "both":
            once = (is_input & (tokens == named)).sum(axis=1, keepdims=True) == 1
            tokens, _, exists = self._with_new_symbol(rng, block, (pos == removed) & once)
            tokens[rows, start - 1] = tokens[rows, removed[:, 0]]
        else:
            allowed = is_input & (tokens != named) & ((pos < removed) | (kind == "named"))
            position, exists = pick(rng, allowed, 1)[:, 0], allowed.any(axis=1)
            if kind == "named":
                tokens[rows, start - 1] = tokens[rows, position]
            else:
                tokens[rows, position] = named[:, 0]
        return *self._answered(tokens, start), exists

    def oracle(self, question: list[str]) -> list[str]:
        *symbols, _, named, _ = question
        symbols.remove(named)
        return symbols
