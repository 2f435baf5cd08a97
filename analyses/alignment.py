"""Which items may be compared position by position.

What a part does at a position of one item can stand for what it does there in another only if the same kind of token
stands there. In a look-up task with 1 to 4 pairs, position 4 is the query of one item and a key of another: a mean over
both is neither. Items are therefore compared within their *layout*: the same number of tokens and the same scored
positions. That is exact for tasks whose roles follow from the length, and as near as positions come where roles follow
from the content (an opening bracket in one item, a closing one in the other).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from mechproc.procedures.base import Items

Layout = tuple[int, bytes]
"""Number of tokens, and the scored positions."""


def layouts(block: Items) -> list[Layout]:
    """The layout of each item."""
    return [(int(n), row.tobytes()) for n, row in zip(block.n_tokens, block.scored, strict=True)]


def frequent(block: Items, reference: Items, least: int) -> np.ndarray:
    """The items of ``block`` whose layout at least ``least`` items of ``reference`` have, int64 [item]."""
    counts = Counter(layouts(reference))
    return np.flatnonzero([counts[layout] >= least for layout in layouts(block)])


def derangement(groups: list[Layout], seed: int) -> np.ndarray:
    """For each item another one of its group, int64 [item]: each group, of two or more, makes a random ring."""
    rng = np.random.default_rng([seed, 1])
    members: dict[Layout, list[int]] = {}
    for item, group in enumerate(groups):
        members.setdefault(group, []).append(item)
    partner = np.empty(len(groups), dtype=np.int64)
    for group in members.values():
        ring = rng.permutation(group)
        partner[ring] = np.roll(ring, 1)
    return partner


def longest_first(block: Items) -> Items:
    """The same items, sorted by their last scored position, so that batches lose much when they are ``cut``."""
    last_scored = block.scored.shape[1] - 1 - block.scored[:, ::-1].argmax(axis=1)
    return block.take(np.argsort(-last_scored, kind="stable"))


def cut(block: Items) -> Items:
    """The same items up to the last token that is predicted in any of them: in a causal model the rest has no say."""
    n_pos = int(np.flatnonzero(block.scored.any(axis=0)).max(initial=-1)) + 2
    latents = {name: values[:, :n_pos] for name, values in block.latents.items()}
    return Items(block.tokens[:, :n_pos], np.minimum(block.n_tokens, n_pos), block.scored[:, :n_pos], latents)
