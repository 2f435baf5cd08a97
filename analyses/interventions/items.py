"""Which items an analysis runs on: test items, reference items, clean and corrupt pairs, items of one's own.

What a part does at a position of one item can stand for what it does there in another only if the same kind of token
stands there. In a look-up task with 1 to 4 pairs, position 4 is the query of one item and a key of another: a mean over
both is neither. Items are therefore compared within their *layout*: the same number of tokens and the same scored
positions. That is exact for tasks whose roles follow from the length, and approximate where roles follow from the
content (an opening bracket in one item, a closing one in the other).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mechproc.errors import ConfigError, require
from mechproc.model.config import ModelConfig
from mechproc.procedures.base import Items, Procedure

N_PAIRS = 256
"""Minimal pairs of a procedure, unless another number is asked for."""
Layout = tuple[int, bytes]
"""Number of tokens, and the scored positions."""
Tokens = Literal["changed", "unchanged", "all"]
"""Which scored tokens of pairs count: see ``asked``."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Clean items and their corrupt partners: row i of one belongs to row i of the other, with equal layouts."""

    clean: Items
    corrupt: Items

    def __post_init__(self) -> None:
        n_clean, n_corrupt = len(self.clean), len(self.corrupt)
        require(n_clean == n_corrupt, "corrupt", f"{n_corrupt} items", f"as many as clean items, {n_clean}")
        for row, (ours, theirs) in enumerate(zip(layouts(self.clean), layouts(self.corrupt), strict=True)):
            alike = "the same number of tokens and scored positions in both items of a pair"
            require(ours[0] == theirs[0], f"pair {row}", f"{ours[0]} and {theirs[0]} tokens", alike)
            require(ours[1] == theirs[1], f"pair {row}", "other scored positions", alike)

    def __len__(self) -> int:
        return len(self.clean)

    def take(self, items: np.ndarray | slice) -> Pairs:
        """Some of the pairs, in the order asked for."""
        return Pairs(self.clean.take(items), self.corrupt.take(items))


def minimal_pairs(procedure: Procedure, kind: str, n: int, *, seed: int = 0) -> Pairs:
    """``n`` test pairs of a kind of the procedure's ``pair_kinds``, of equal layout.

    Errors: ``ConfigError`` for a kind that the procedure lacks, or where fewer than ``n`` of 4 ``n`` pairs have equal
    layouts.
    """
    clean, corrupt = procedure.minimal_pairs(kind, n, seed=seed)
    if layouts(clean) != layouts(corrupt):
        clean, corrupt = procedure.minimal_pairs(kind, 4 * n, seed=seed)
        equal = [a == b for a, b in zip(layouts(clean), layouts(corrupt), strict=True)]
        alike = np.flatnonzero(equal)[:n]
        require(len(alike) == n, f"pairs of kind {kind!r}", f"{len(alike)} of equal layout", f"{n} of {4 * n}")
        clean, corrupt = clean.take(alike), corrupt.take(alike)
    return Pairs(clean, corrupt)


def asked(pairs: Pairs, tokens: Tokens) -> tuple[np.ndarray, Pairs]:
    """The pairs that have a scored token that counts, int64 [pair], and these pairs with no other token scored.

    ``"changed"``: tokens whose right answer differs between the two items, once something before it differs (before
    that the runs of a causal model are the same); ``"unchanged"``: tokens whose answer is the same, once something
    differs; ``"all"``: every scored token. Errors: ``ConfigError`` where no pair has one.
    """
    require(tokens in get_args(Tokens), "tokens", tokens, f"one of {', '.join(get_args(Tokens))}")
    clean, corrupt = pairs.clean, pairs.corrupt
    if tokens == "all":
        return np.arange(len(pairs)), pairs
    differs = clean.tokens != corrupt.tokens
    if clean.vectors is not None and corrupt.vectors is not None:
        differs = (clean.vectors != corrupt.vectors).any(-1)
    begun = np.logical_or.accumulate(differs, axis=1)
    answer_differs = np.roll(differs, -1, axis=1)
    counts = clean.scored & begun & (answer_differs == (tokens == "changed"))
    kept = np.flatnonzero(counts.any(axis=1))
    what = f"pairs with a scored token whose answer is {tokens}"
    require(len(kept) > 0, "tokens", tokens, f"{what}: of these {len(pairs)} none has one")
    narrowed = (dataclasses.replace(block, scored=counts).take(kept) for block in (clean, corrupt))
    return kept, Pairs(*narrowed)


def chosen_pairs(items: Any, pair: str | None, seed: int, n_items: int | None) -> tuple[Pairs, dict[str, Any]]:
    """The pairs that an analysis runs on, and the settings to be recorded.

    ``items``: a procedure, of which ``n_items`` (``N_PAIRS`` by default) test pairs of the kind ``pair`` are taken, or
    ``Pairs`` of one's own. Errors: ``ConfigError``.
    """
    if isinstance(items, Procedure):
        kinds = ", ".join(items.pair_kinds) or f"one of another rule: {items.short_name} has none"
        require(pair is not None, "pair", pair, f"a kind of minimal pair: {kinds}")
        found = minimal_pairs(items, str(pair), N_PAIRS if n_items is None else n_items, seed=seed)
        return found, {"seed": seed, "procedure": items.to_dict(), "split": "test", "pair": pair}
    what = type(items).__name__
    require(isinstance(items, Pairs), "items", what, "a procedure, or Pairs(clean, corrupt) of one's own items")
    require(n_items is None, "n_items", n_items, "None when pairs are given: take them with Pairs.take")
    require(pair is None, "pair", pair, "None when pairs are given")
    return items, {"seed": seed}


def own_items(tokens: Any, n_tokens: Any = None, scored: Any = None, vectors: Any = None) -> Items:
    """Items of one's own, from lists, arrays or tensors.

    - ``tokens``: whole numbers [item, pos], padded at the end;
    - ``n_tokens``: [item], tokens before the padding; by default all;
    - ``scored``: bool [item, pos], where the prediction of the next token is scored; by default at every position but
      the last of each item;
    - ``vectors``: [item, pos, cell], 0 or 1, for models that read vectors.

    Errors: ``ConfigError`` that names the argument and its shape or values.
    """
    rows = _array("tokens", tokens)
    require(rows.ndim == 2 and rows.size > 0, "tokens", f"shape {rows.shape}", "[item, pos], at least one item")
    require(bool(np.issubdtype(rows.dtype, np.integer)), "tokens", str(rows.dtype), "whole numbers")
    n_items, n_pos = rows.shape
    lengths = np.full(n_items, n_pos) if n_tokens is None else _array("n_tokens", n_tokens)
    require(lengths.shape == (n_items,), "n_tokens", f"shape {lengths.shape}", f"[{n_items}]: one for each item")
    fits = bool(((lengths >= 1) & (lengths <= n_pos)).all())
    require(fits, "n_tokens", lengths.tolist(), f"1 to {n_pos}, the positions of tokens")
    inside = np.arange(n_pos) < lengths[:, None] - 1
    where = inside if scored is None else _array("scored", scored)
    require(where.shape == rows.shape, "scored", f"shape {where.shape}", f"{rows.shape}, that of tokens")
    where = where.astype(bool)
    require(not (where & ~inside).any(), "scored", "a position without a next token", "positions before an item's last")
    cells = None if vectors is None else _array("vectors", vectors).astype(np.float32)
    if cells is not None:
        require(
            cells.shape[:2] == rows.shape and cells.ndim == 3, "vectors", cells.shape, f"[{n_items}, {n_pos}, cell]"
        )
    return Items(rows.astype(np.int64), lengths.astype(np.int64), where, {}, cells)


def check_items(items: Items, cfg: ModelConfig, name: str = "items") -> None:
    """Raise a ``ConfigError`` unless a model of this config can read the items and something in them is scored."""
    require(isinstance(items, Items), name, type(items).__name__, "a procedure's items, or own_items(tokens)")
    require(bool(items.scored.any()), name, "no scored position", "items with something to score")
    used = cut(items)
    require(used.tokens.shape[1] <= cfg.n_ctx + 1, name, f"{used.tokens.shape[1]} positions",
            f"at most n_ctx = {cfg.n_ctx}, which these models read: are they of another rule?")  # fmt: skip
    if cfg.input == "vectors":
        width = None if items.vectors is None else items.vectors.shape[-1]
        require(width == cfg.d_input, name, f"vectors of width {width}", f"vectors of d_input = {cfg.d_input}")
        require(width == cfg.d_vocab, "d_vocab", cfg.d_vocab, f"{width}: one logit for each cell")
        return
    low, high = int(used.tokens.min()), int(used.tokens.max())
    require(low >= 0 and high < cfg.d_vocab, name, f"tokens {low} to {high}",
            f"0 to d_vocab - 1 = {cfg.d_vocab - 1}, which these models know: are they of another rule?")  # fmt: skip


def inputs(items: Items, cfg: ModelConfig) -> Tensor:
    """What the model reads: tokens int64 [item, pos], or vectors float32 [item, pos, cell]."""
    if cfg.input == "tokens":
        return torch.from_numpy(items.tokens[:, : cfg.n_ctx])
    if items.vectors is None:
        raise ConfigError("items have no vectors: the model has input = 'vectors'")
    return torch.from_numpy(items.vectors[:, : cfg.n_ctx])


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:
        raise ConfigError(f"{name} is not an array: its rows differ in length") from None


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
    return block.take(order_of_length(block))


def order_of_length(block: Items) -> np.ndarray:
    """The items by their last scored position, the last first, int64 [item]; equal ones keep their order."""
    last_scored = block.scored.shape[1] - 1 - block.scored[:, ::-1].argmax(axis=1)
    return np.argsort(-last_scored, kind="stable")


def cut(block: Items) -> Items:
    """The same items up to the last token that is predicted in any: in a causal model, what follows changes nothing."""
    n_pos = int(np.flatnonzero(block.scored.any(axis=0)).max(initial=-1)) + 2
    latents = {name: values[:, :n_pos] for name, values in block.latents.items()}
    vectors = None if block.vectors is None else block.vectors[:, :n_pos]
    return Items(block.tokens[:, :n_pos], np.minimum(block.n_tokens, n_pos), block.scored[:, :n_pos], latents, vectors)
