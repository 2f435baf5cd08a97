"""How items are spread over splits, and where their random numbers come from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechproc.errors import ConfigError

if TYPE_CHECKING:
    from mechproc.procedures.base import Procedure

_ATTEMPTS = 64
"""How often contents are drawn anew until each item of a block is of its split."""
SPLITS = {"test": 1 / 16, "validation": 1 / 16, "train": 14 / 16}
"""The share of a procedure's space that falls into each split."""
_ROUNDS = tuple(
    (np.array(shift, dtype=np.uint64), np.array(factor, dtype=np.uint64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
)
_LAST_SHIFT = np.array(31, dtype=np.uint64)
"""Of splitmix64 (Steele, Lea and Flood 2014), as arrays, which numpy takes up faster than numbers."""
Split = Literal["train", "validation", "test"]


def generator(*key: object) -> np.random.Generator:
    """The source of random numbers that belongs to ``key``."""
    entropy = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def content_hash(tokens: np.ndarray) -> np.ndarray:
    """64 well-mixed bits for each row (splitmix64 over the columns); padding at the end changes nothing."""
    columns = np.ascontiguousarray(tokens.T).astype(np.uint64)
    is_token = columns != 0
    state = np.full(len(tokens), 0x9E3779B97F4A7C15, dtype=np.uint64)
    mixed, shifted = np.empty_like(state), np.empty_like(state)
    with np.errstate(over="ignore"):
        columns *= np.uint64(0xD1342543DE82EF95)
        for product, here, everywhere in zip(columns, is_token, is_token.all(axis=1).tolist(), strict=True):
            np.bitwise_xor(state, product, out=mixed)
            for shift, factor in _ROUNDS:
                np.right_shift(mixed, shift, out=shifted)
                mixed ^= shifted
                mixed *= factor
            np.right_shift(mixed, _LAST_SHIFT, out=shifted)
            mixed ^= shifted
            if not everywhere:  # keep the state where there is padding
                mixed ^= state
                mixed *= here
                mixed ^= state
            state, mixed = mixed, state
    return state


def draw_split(
    procedure: Procedure, rng: np.random.Generator, n: int, split: str, stage: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Items of one split: lengths of the rule's distribution, then contents until they are of the split.

    A length of which the split has no item is replaced by another one of the distribution.
    """
    lengths, wanted = procedure.lengths.draw(rng, n, stage), list(SPLITS).index(split)
    tokens = np.zeros((n, procedure.n_ctx), dtype=np.int64)
    n_tokens, missing = np.zeros(n, dtype=np.int64), np.arange(n)
    for attempt in range(_ATTEMPTS):
        tries = max(round(1 / SPLITS[split]), 1 if attempt == 0 else 3)
        drawn, drawn_n = procedure.draw(rng, np.repeat(lengths[missing], tries))
        fits = (procedure.split_of(drawn) == wanted).reshape(len(missing), tries)
        chosen = np.arange(len(missing)) * tries + fits.argmax(axis=1)
        has_fit = fits.any(axis=1)
        tokens[missing[has_fit]], n_tokens[missing[has_fit]] = drawn[chosen[has_fit]], drawn_n[chosen[has_fit]]
        missing = missing[~has_fit]
        if len(missing) == 0:
            return tokens, n_tokens
        if attempt == _ATTEMPTS // 4:
            occurring = procedure._lengths_in(split, stage)
            empty = missing[~np.isin(lengths[missing], occurring)]
            lengths[empty] = rng.choice(occurring, size=len(empty))
    raise ConfigError(
        f"{procedure.kind} with these settings has too few items of length {lengths[missing[0]]} in {split}"
    )
