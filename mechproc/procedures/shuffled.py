"""The control for data: a rule whose items keep their tokens and lose their order."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.procedures.base import UNDEFINED, Example, Items, Procedure, Role
from mechproc.procedures.lengths import LengthDistribution
from mechproc.procedures.sequences import Set

_PROBE_ITEMS = 64


@dataclasses.dataclass(frozen=True)
class Shuffled(Procedure):
    """The items of another rule, the order of each one's tokens drawn anew; separators stay where they are.

    What can still be learned is how often tokens occur. Scored are the positions that the rule itself scores, so that
    losses are over as many tokens in the same places. Rules whose scored positions depend on the order are refused.
    """

    kind: ClassVar[str] = "shuffled"
    role: ClassVar[Role] = "control"
    latent_names: ClassVar[dict[str, str]] = {
        "seen": "how often this token stood before in the item; at every token that may move",
        "to_come": "tokens after this one that may move; at every token of the item",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("seen", "to_come")
    small: ClassVar[dict[str, Any]] = {"procedure": Set.small_version()}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "b a c | b a a b c",
            "b a a b c",
            {"seen": (0, 0, 0, -1, 1, 1, 2, 2, 1), "to_come": (7, 6, 5, 5, 4, 3, 2, 1, 0)},
        ),
    )

    lengths: LengthDistribution | None = None  # type: ignore[assignment]
    """``None`` stands for those of the rule; others become the rule's."""
    procedure: Procedure = dataclasses.field(default_factory=Set)
    """The rule whose items are shuffled."""

    def __post_init__(self) -> None:
        inner = self.procedure
        require(not isinstance(inner, Shuffled), "procedure", inner.kind, "a rule that is not shuffled already")
        require(
            inner.rule_known, "procedure", inner.kind, "a rule: text is held out by document, which shuffling undoes"
        )
        if self.lengths is None:
            object.__setattr__(self, "lengths", inner.lengths)
        elif self.lengths != inner.lengths:
            inner = inner.replace(lengths=self.lengths)
            object.__setattr__(self, "procedure", inner)
        rng = np.random.default_rng(0)
        tokens, n_tokens = inner.draw(rng, inner.lengths.draw(rng, _PROBE_ITEMS))
        moved = inner.scored(self._shuffled(rng, tokens), n_tokens) != inner.scored(tokens, n_tokens)
        require(not moved.any(), "procedure", inner.kind, "a rule whose scored positions do not depend on the order")

    def following(self) -> dict[str, Any]:
        """The lengths are those of the rule."""
        return {"lengths": self.procedure.lengths}

    @property
    def version(self) -> str:  # type: ignore[override]
        """That of the shuffling and that of the rule: items change with either."""
        return f"1.0.0+{self.procedure.short_name}.{self.procedure.source_version}"

    @property
    def token_names(self) -> tuple[str, ...]:
        return self.procedure.token_names

    @property
    def n_ctx(self) -> int:
        return self.procedure.n_ctx

    @property
    def n_cells(self) -> int | None:
        return self.procedure.n_cells

    def vectors(self, tokens: np.ndarray) -> np.ndarray | None:
        return self.procedure.vectors(tokens)

    def _moves(self, tokens: np.ndarray) -> np.ndarray:
        """The tokens that may move, bool [item, pos]."""
        fixed = [i for i, name in enumerate(self.token_names) if i == self.pad or name in ("|", ",")]
        return ~np.isin(tokens, fixed)

    def _shuffled(self, rng: np.random.Generator, tokens: np.ndarray) -> np.ndarray:
        moves = self._moves(tokens)
        # both list the places that may move first, one in order, one at random; the others last and in order
        places = np.argsort(~moves, axis=1, kind="stable")
        sources = np.argsort(np.where(moves, rng.random(tokens.shape), 2.0), axis=1, kind="stable")
        shuffled = tokens.copy()
        np.put_along_axis(shuffled, places, np.take_along_axis(tokens, sources, axis=1), axis=1)
        return shuffled

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens, n_tokens = self.procedure.draw(rng, lengths)
        return self._shuffled(rng, tokens), n_tokens

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        return self.procedure.scored(tokens, n_tokens)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos, moves = np.arange(tokens.shape[1]), self._moves(tokens)
        inside = pos < n_tokens[:, None]
        same = (tokens[:, :, None] == tokens[:, None, :]) & (pos < pos[:, None])
        to_come = moves.sum(axis=1, keepdims=True) - np.cumsum(moves, axis=1)
        return {
            "seen": np.where(moves, same.sum(axis=2), UNDEFINED),
            "to_come": np.where(inside, to_come, UNDEFINED),
        }

    def next_probabilities(self, block: Items) -> np.ndarray:
        """Those of a predictor that knows which tokens remain, but not their order.

        No predictor that sees the tokens so far alone can be better: the ceiling is an upper bound.
        """
        names = np.arange(self.d_vocab)
        each = (block.tokens[..., None] == names) & self._moves(block.tokens)[..., None]
        left = each.sum(axis=1, keepdims=True) - np.cumsum(each, axis=1)
        probabilities = left / np.maximum(left.sum(axis=-1, keepdims=True), 1)
        targets = block.targets
        fixed = np.pad(~self._moves(block.tokens)[:, 1:], ((0, 0), (0, 1)))  # a separator comes next, as it must
        return np.where(fixed[..., None], targets[..., None] == names, probabilities)

    def _best_chances(self, block: Items) -> np.ndarray:
        if self.n_cells is None:
            return super()._best_chances(block)
        cells = self.vectors(np.arange(self.d_vocab)[None])
        assert cells is not None
        alive = self.next_probabilities(block)[block.scored] @ cells[0]
        return np.maximum(alive, 1 - alive).mean(axis=-1)

    def answer_start(self, block: Items) -> np.ndarray:
        """The end of each item: nothing is decided before."""
        return block.n_tokens

    def oracle(self, question: list[str]) -> list[str]:
        raise ConfigError("shuffled has no oracle: the tokens so far decide nothing")

    def baselines(self, block: Items) -> dict[str, float]:
        """Token accuracy of predictors that know frequencies at most; of a rule with cells those of the rule."""
        if self.n_cells is not None:
            return self.procedure.baselines(block)
        item, query = np.nonzero(block.scored)
        target = block.targets[block.scored]
        before = np.arange(block.tokens.shape[1]) <= query[:, None]
        so_far = (block.tokens[item] == target[:, None]) & before & self._moves(block.tokens)[item]
        n_before = (self._moves(block.tokens)[item] & before).sum(axis=1)
        return {
            "a token at random": float(1 / self._moves(np.arange(self.d_vocab)[None])[0].sum()),
            "the most frequent token": float(np.bincount(target).max() / len(target)),
            "a token of the item so far": float((so_far.sum(axis=1) / np.maximum(n_before, 1)).mean()),
        }
