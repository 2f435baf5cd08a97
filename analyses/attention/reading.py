"""The attention patterns of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.patch import run_with_activations
from analyses.interventions.trace import require_finite
from analyses.models import batches, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items
from mechproc.result import Label, Result

OTHER = "are the models of another rule?"
MAX_PATTERN_ITEMS = 64
"""Items whose whole patterns are returned."""
NOT_USED = (
    "that the head's output is used, or what it moves: a head can look at the right place and write nothing of use; "
    "and a head may reach the same end by looking elsewhere"
)
ON_PLANTINGS = (
    "On 100 plantings of each family a head that looks at the answer and writes it where nothing reads was taken for "
    "one that matters in 100 %, and heads without effect in 1 to 18 %, by family"
)
"""Measured with the threshold of ``analyses.planted.calibrate``."""


@sized_threads
def patterns(model: HookedTransformer, items: Items, *, window: tuple[int | None, int | None] = (None, None)) -> Result:
    """Every head's attention on a few items: axes ``layer``, ``head``, ``item``, ``query`` and ``key``.

    ``window``: the first position that is returned and the one after the last, of queries and of keys, as in a slice:
    ``(-64, None)`` is the last 64 positions of the longest item. Labels are the positions within the item. Queries on
    padding are undefined. ``metadata["tokens"]`` has the token numbers of each item, without padding.
    """
    require(
        1 <= len(items) <= MAX_PATTERN_ITEMS,
        "items",
        len(items),
        f"1 to {MAX_PATTERN_ITEMS}; take a few with Items.take",
    )
    n_pos = int(items.n_tokens.max())
    batched = layer_patterns(by_seed([model])[0], items, 0)
    layers = [p.double().cpu().numpy() for _, _, layer in batched for p in layer]
    values = np.stack(layers).transpose(0, 2, 1, 3, 4)[..., :n_pos, :n_pos].copy()
    shown = range(n_pos)[slice(*window)]
    require(len(shown) > 0, "window", window, f"a slice of the {n_pos} positions of the longest item")
    padding = [(i, q) for i, q in np.argwhere(np.arange(n_pos) >= items.n_tokens[:, None]).tolist() if q in shown]
    for item, query in padding:
        values[:, :, item, query] = np.nan
    values = values[..., shown.start : shown.stop, shown.start : shown.stop]
    n_layers, n_heads, n_items = values.shape[:3]
    labels = {"layer": range(n_layers), "head": range(n_heads), "item": range(n_items), "query": shown, "key": shown}
    return Result(
        name="attention",
        values=values,
        axes=tuple(labels),
        coordinates={axis: list(numbers) for axis, numbers in labels.items()},
        unit="fraction",
        direction="higher: the query attends more to the key",
        what_it_does_not_show=f"{NOT_USED}.",
        undefined=[({"item": int(i), "query": int(q)}, "padding: the item has ended") for i, q in padding],
        metadata={"tokens": [row[:n] for row, n in zip(items.tokens.tolist(), items.n_tokens.tolist(), strict=True)]},
    )


@torch.inference_mode()
def layer_patterns(model: HookedTransformer, items: Items, seed: Label) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
    """For each batch of items its logits [item, pos, d_vocab] and each layer's patterns [item, head, query, key]."""
    model.require_no_hooks()
    hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    for batch in batches(len(items)):
        logits, cache = run_with_activations(model, items.take(batch), hooks)
        require_finite(logits, seed)
        yield batch, logits, [cache[hook] for hook in hooks]


def check_fits(items: Items, cfg: ModelConfig) -> None:
    """Raise a ``ConfigError`` unless a model of this config can read every position of the items."""
    n_pos = items.tokens.shape[1]
    require(
        n_pos <= cfg.n_ctx,
        "items",
        f"{n_pos} positions",
        f"at most n_ctx = {cfg.n_ctx}: {OTHER}",
    )
    if cfg.input == "tokens":
        low, high = int(items.tokens.min()), int(items.tokens.max())
        require(low >= 0 and high < cfg.d_vocab, "items", f"tokens {low} to {high}",
                f"0 to {cfg.d_vocab - 1}: {OTHER}")  # fmt: skip
