"""Items as training and analyses take them: arrays of tokens, with all that is known about each position."""

from __future__ import annotations

import dataclasses

import numpy as np

from mechproc.errors import require

UNDEFINED = -1
"""The value of a latent at a position where it has none."""


@dataclasses.dataclass(frozen=True)
class Items:
    """Items of one procedure, padded to the same width.

    ``scored[i, p]``: the prediction made *at* position ``p``, of the token at ``p + 1``, is trained and scored.
    """

    tokens: np.ndarray
    """int64 [item, pos]; the procedure's ``pad`` after the end of an item."""
    n_tokens: np.ndarray
    """int64 [item]: tokens before the padding."""
    scored: np.ndarray
    """bool [item, pos]."""
    latents: dict[str, np.ndarray]
    """Each int64 [item, pos], ``UNDEFINED`` where the latent has no value."""
    vectors: np.ndarray | None = None
    """float32 [item, pos, cell], 0 or 1: what the model reads in place of the tokens, and predicts cell by cell."""

    def __post_init__(self) -> None:
        shape = self.tokens.shape
        wrong = [n for n, a in [("scored", self.scored), *self.latents.items()] if a.shape != shape]
        fits = len(shape) == 2 and self.n_tokens.shape == shape[:1] and not wrong
        require(fits, "Items", wrong, f"arrays of shape {shape}")
        require(not self.scored[:, -1].any(), "scored", "the last position", "a position with a token after it")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def targets(self) -> np.ndarray:
        """int64 [item, pos]: the next token; at the last position, ``UNDEFINED``."""
        return np.pad(self.tokens[:, 1:], ((0, 0), (0, 1)), constant_values=UNDEFINED)

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """The scored positions of each item, left-aligned: int64 [item, k] and which of them are real, bool [item, k].

        Items with fewer than ``k`` scored positions repeat position 0 in the places that are not real.
        """
        counts = self.scored.sum(axis=1)
        real = np.arange(max(int(counts.max(initial=0)), 1)) < counts[:, None]
        positions = np.zeros(real.shape, dtype=np.int64)
        positions[real] = np.nonzero(self.scored)[1]  # both go through the items in order
        return positions, real

    def take(self, items: np.ndarray | slice) -> Items:
        """Some of the items, in the order asked for."""
        latents = {name: a[items] for name, a in self.latents.items()}
        vectors = None if self.vectors is None else self.vectors[items]
        return Items(self.tokens[items], self.n_tokens[items], self.scored[items], latents, vectors)

    @staticmethod
    def join(blocks: list[Items]) -> Items:
        """One block of all items, in order."""
        fields = ("tokens", "n_tokens", "scored")
        tokens, n_tokens, scored = (np.concatenate([getattr(b, name) for b in blocks]) for name in fields)
        latents = {name: np.concatenate([b.latents[name] for b in blocks]) for name in blocks[0].latents}
        vectors = [b.vectors for b in blocks if b.vectors is not None]
        return Items(tokens, n_tokens, scored, latents, np.concatenate(vectors) if vectors else None)
