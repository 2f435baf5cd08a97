"""The share of attention that lies on given targets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from analyses.attention.reading import NOT_USED, ON_PLANTINGS, check_fits, layer_patterns
from analyses.interventions.metrics import METRICS, scored_tokens
from analyses.models import Models, by_seed, sized_threads
from mechproc.errors import require
from mechproc.procedures.attention_weights import target_weights
from mechproc.procedures.base import Items
from mechproc.progress import progress
from mechproc.result import Result


@sized_threads
def scores(
    models: Models,
    items: Items,
    masks: Mapping[str, np.ndarray],
) -> Result:
    """The share of its attention that each head puts on each target: axes ``mask``, ``layer``, ``head`` and ``seed``.

    ``masks`` are bool [item, query, key], as ``procedure.attention_targets(items)`` gives them. A query counts where
    its mask has a key; the mean is taken over the counted queries of an item, then over items. ``metadata["uniform"]``
    has, for each mask, the score of a head that attends equally to every key it can see: the floor that a score is held
    against. ``metadata["n_items"]`` says how many items a mask has a query in; a mask without any is undefined.
    ``metadata["accuracy"]`` is the accuracy of each model on the items, by seed, where something in them is scored.

    Errors: ``ConfigError`` for a mask of another shape, one with a key after its query, or one with a query on padding,
    and for items that the models cannot read.
    """
    found = by_seed(models)
    cfg = next(iter(found.values())).cfg
    require(len(masks) > 0, "masks", dict(masks), "at least one")
    check_fits(items, cfg)
    weights = {name: _weights(name, np.asarray(mask), items) for name, mask in masks.items()}
    uniform = {name: _uniform(weight) for name, weight in weights.items()}
    known = [name for name in masks if uniform[name] is not None]
    values = np.full((len(masks), cfg.n_layers, cfg.n_heads, len(found)), np.nan)
    accuracy: dict[str, float] = {}
    watched = progress(found.items(), "attention")
    for column, (seed, model) in enumerate(watched):
        sums = {name: np.zeros((cfg.n_layers, cfg.n_heads)) for name in known}
        right = 0.0
        for batch, logits, layers in layer_patterns(model, items, seed):
            right += _n_right(logits, items.take(batch), cfg.input == "vectors")
            for name in known:
                weight = torch.from_numpy(weights[name][batch])
                for layer, pattern in enumerate(layers):
                    mass = torch.einsum("ihqk,iqk->h", pattern.double().cpu(), weight)
                    sums[name][layer] += mass.numpy()
        for row, name in enumerate(masks):
            if name in known:
                values[row, :, :, column] = sums[name]
        if items.scored.any():
            accuracy[str(seed)] = right / int(items.scored.sum())
    empty = [name for name in masks if name not in known]
    return Result(
        name="attention on the target",
        values=values,
        axes=("mask", "layer", "head", "seed"),
        coordinates={
            "mask": list(masks),
            "layer": list(range(cfg.n_layers)),
            "head": list(range(cfg.n_heads)),
            "seed": list(found),
        },
        unit="fraction",
        direction="higher: the head attends more to the target",
        what_it_does_not_show=f"{NOT_USED}. {ON_PLANTINGS}.",
        undefined=[({"mask": name}, "no query of these items has a target") for name in empty],
        metadata={
            "uniform": {name: uniform[name] for name in known},
            "n_items": {name: int(np.asarray(masks[name]).any(axis=(1, 2)).sum()) for name in masks},
            **({"accuracy": accuracy} if accuracy else {}),
        },
    )


# ---- inside ----------------------------------------------------------------------------------------------------------


def _weights(name: str, mask: np.ndarray, items: Items) -> np.ndarray:
    """``target_weights`` of a mask that fits the items."""
    n_items, n_pos = items.tokens.shape
    require(mask.shape == (n_items, n_pos, n_pos), f"shape of mask {name!r}", mask.shape, f"{(n_items, n_pos, n_pos)}")
    mask = mask.astype(bool)
    require(not np.triu(mask, 1).any(), f"mask {name!r}", "a key after its query", "keys that the query can see")
    counted = mask.any(axis=2)
    padding = np.arange(n_pos) >= items.n_tokens[:, None]
    require(not (counted & padding).any(), f"mask {name!r}", "a query on padding", "queries within the items")
    return target_weights(mask)


def _uniform(weights: np.ndarray) -> float | None:
    """The score of the pattern that is 1 / (query + 1) on every key a query sees; ``None`` when nothing counts."""
    visible = np.arange(1, weights.shape[1] + 1)[:, None]
    return float((weights / visible).sum()) if weights.any() else None


def _n_right(logits: Tensor, items: Items, cells: bool) -> float:
    """How many scored tokens are predicted right; of vectors, the sum of their shares of right cells."""
    tokens = scored_tokens(items, logits.device, cells=cells)
    if len(tokens.item) == 0:
        return 0.0
    return float(METRICS["accuracy"](logits[tokens.item, tokens.position], tokens).sum())
