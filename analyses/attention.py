"""Where heads look: patterns, how much of each head's attention lies on a procedure's targets, before and after.

A head's index means nothing across seeds. Within one run it does: training keeps each head in its place. So heads of
different seeds are matched by what they do (``match_heads``: by their rank on a target), and heads of one run by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from analyses.interventions.patch import run_with_activations
from analyses.interventions.trace import require_finite
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Label, Result

N_ITEMS = 512
"""Items that heads are scored on unless told otherwise."""
MAX_PATTERN_ITEMS = 64
"""Items whose whole patterns are returned."""
NOT_USED = (
    "that the head's output is used, or what it moves: a head can look at the right place and write nothing of use; "
    "and a head may reach the same end by looking elsewhere"
)


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
    layers = [p.double().cpu().numpy() for _, layer in _patterns(by_seed([model])[0], items, 0) for p in layer]
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


def run(
    models: Models,
    rule: Procedure,
    targets: Sequence[str] | None = None,
    *,
    seed: int = 0,
    n_items: int = N_ITEMS,
) -> Result:
    """How much each head looks where a head of a named function does: axes ``mask``, ``layer``, ``head`` and ``seed``.

    These are the ``scores`` of the rule's own attention targets on its test items.

    - ``targets``: names of the rule's attention targets; by default all;
    - ``seed``: of the items;
    - ``n_items``: how many.

    Errors: ``ConfigError`` for a rule without targets, and a target that it does not have.
    """
    names = type(rule).attention_target_names
    require(bool(names), "rule", rule.short_name, "a rule with attention targets")
    chosen = list(names) if targets is None else list(targets)
    for name in chosen:
        if name not in names:
            raise ConfigError(f"targets: {name!r} is not one of {', '.join(names)}{nearest(name, names)}")
    items = rule.items(n_items, seed=seed)
    masks = rule.attention_targets(items)
    found = scores(models, items, {name: masks[name] for name in chosen})
    settings = {"procedure": rule.to_dict(), "seed": seed, "targets": {name: names[name] for name in chosen}}
    return dataclasses.replace(found, metadata={**found.metadata, **settings})


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

    Errors: ``ConfigError`` for a mask of another shape, one with a key after its query, or one with a query on padding.
    """
    found = by_seed(models)
    cfg = next(iter(found.values())).cfg
    require(len(masks) > 0, "masks", dict(masks), "at least one")
    weights = {name: _weights(name, np.asarray(mask), items) for name, mask in masks.items()}
    uniform = {name: _uniform(weight) for name, weight in weights.items()}
    known = [name for name in masks if uniform[name] is not None]
    values = np.full((len(masks), cfg.n_layers, cfg.n_heads, len(found)), np.nan)
    progress = tqdm(found.items(), desc="attention", unit="model", leave=False, disable=None)
    for column, (seed, model) in enumerate(progress):
        sums = {name: np.zeros((cfg.n_layers, cfg.n_heads)) for name in known}
        for batch, layers in _patterns(model, items, seed):
            for name in known:
                weight = torch.from_numpy(weights[name][batch])
                for layer, pattern in enumerate(layers):
                    mass = torch.einsum("ihqk,iqk->h", pattern.double().cpu(), weight)
                    sums[name][layer] += mass.numpy()
        for row, name in enumerate(masks):
            if name in known:
                values[row, :, :, column] = sums[name]
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
        what_it_does_not_show=f"{NOT_USED}.",
        undefined=[({"mask": name}, "no query of these items has a target") for name in empty],
        metadata={
            "uniform": {name: uniform[name] for name in known},
            "n_items": {name: int(np.asarray(masks[name]).any(axis=(1, 2)).sum()) for name in masks},
        },
    )


def match_heads(scores: Result, mask: str) -> dict[Label, list[str]]:
    """The heads of each seed, such as ``"L1.H2"``, from the one with the highest score on ``mask`` to the lowest.

    All layers together, ties in the order of the forward pass. ``figures.ablation_map(matched=...)`` takes it. The
    best of several heads is a maximum: even heads that do nothing in particular have one above their mean. Hold rank 1
    against rank 1 of models without the structure, not against uniform attention alone.
    """
    values, names = _flat(scores)
    of_mask = values[scores.coordinates["mask"].index(mask)] if mask in scores.coordinates["mask"] else None
    if of_mask is None:
        known = [str(each) for each in scores.coordinates["mask"]]
        raise ConfigError(f"mask {mask!r} is not one of {', '.join(known)}{nearest(mask, known)}")
    require(not np.isnan(of_mask).any(), "mask", mask, "a target that the items have")
    order = np.argsort(-of_mask, axis=0, kind="stable")
    return {seed: [names[i] for i in order[:, column]] for column, seed in enumerate(scores.coordinates["seed"])}


def by_rank(scores: Result) -> Result:
    """The scores of heads matched by function: axes ``mask``, ``rank`` (1 is the best head) and ``seed``.

    The heads of each seed are in the order of ``match_heads`` for each mask.
    """
    values, _ = _flat(scores)
    order = np.argsort(-values, axis=1, kind="stable")
    return _by_rank(scores, np.take_along_axis(values, order, axis=1), {})


def before_after(before: Result, after: Result, ranked_by: Literal["before", "after"] = "after") -> Result:
    """The same heads before and after a training: axes ``mask``, ``when``, ``rank`` and ``seed``.

    Both are what ``scores`` gives, for the same masks and seeds. The heads of each seed are ranked by their score at
    ``ranked_by``, and each keeps its rank in the other: within one run a head is the same head. Ranking favours the
    side it is done by, whose top scores are in part luck; what speaks for a pattern that was there before is a high
    ``before`` under ``ranked_by="after"``. ``metadata["heads"][mask][seed]`` labels each rank with its head.
    """
    require(ranked_by in ("before", "after"), "ranked_by", ranked_by, "'before' or 'after'")
    for field in ("axes", "coordinates"):
        ours, theirs = getattr(before, field), getattr(after, field)
        require(ours == theirs, f"{field} after", theirs, f"those before, {ours}")
    (first, names), (second, _) = _flat(before), _flat(after)
    order = np.argsort(-(second if ranked_by == "after" else first), axis=1, kind="stable")
    both = np.stack([np.take_along_axis(values, order, axis=1) for values in (first, second)], axis=1)
    heads = _named(before, names, order)
    return _by_rank(before, both, {"when": ["before", "after"]}, ranked_by=ranked_by, heads=heads)


# ---- inside ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def _patterns(model: HookedTransformer, items: Items, seed: Label) -> Iterator[tuple[slice, list[Tensor]]]:
    """For each batch of items, the patterns of every layer, each [item, head, query, key]."""
    model.require_no_hooks()
    hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    for batch in batches(len(items)):
        logits, cache = run_with_activations(model, items.take(batch), hooks)
        require_finite(logits, seed)
        yield batch, [cache[hook] for hook in hooks]


def _weights(name: str, mask: np.ndarray, items: Items) -> np.ndarray:
    """What each (item, query, key) counts in the score, float64: 1 / (counted queries of the item x counted items)."""
    n_items, n_pos = items.tokens.shape
    require(mask.shape == (n_items, n_pos, n_pos), f"shape of mask {name!r}", mask.shape, f"{(n_items, n_pos, n_pos)}")
    mask = mask.astype(bool)
    require(not np.triu(mask, 1).any(), f"mask {name!r}", "a key after its query", "keys that the query can see")
    counted = mask.any(axis=2)
    padding = np.arange(n_pos) >= items.n_tokens[:, None]
    require(not (counted & padding).any(), f"mask {name!r}", "a query on padding", "queries within the items")
    n_queries = counted.sum(axis=1)
    return mask / np.maximum(n_queries * max(int((n_queries > 0).sum()), 1), 1)[:, None, None]


def _uniform(weights: np.ndarray) -> float | None:
    """The score of the pattern that is 1 / (query + 1) on every key a query sees; ``None`` when nothing counts."""
    visible = np.arange(1, weights.shape[1] + 1)[:, None]
    return float((weights / visible).sum()) if weights.any() else None


def _flat(scores: Result) -> tuple[np.ndarray, list[str]]:
    """Values [mask, head of any layer, seed] and the heads' names."""
    axes = ("mask", "layer", "head", "seed")
    require(tuple(scores.axes) == axes, f"axes of {scores.name!r}", tuple(scores.axes), f"{axes}, as scores gives them")
    n_masks, n_layers, n_heads, n_seeds = scores.values.shape
    names = [f"L{layer}.H{head}" for layer in scores.coordinates["layer"] for head in scores.coordinates["head"]]
    return scores.values.reshape(n_masks, n_layers * n_heads, n_seeds), names


def _named(scores: Result, names: list[str], order: np.ndarray) -> dict[str, dict[str, list[str]]]:
    """The head at each rank, by mask and seed."""
    return {
        str(mask): {str(seed): [names[i] for i in order[m, :, s]] for s, seed in enumerate(scores.coordinates["seed"])}
        for m, mask in enumerate(scores.coordinates["mask"])
    }


def _by_rank(
    scores: Result,
    values: np.ndarray,
    inner: dict[str, list[str]],
    **metadata: Any,
) -> Result:
    ranks = list(range(1, values.shape[-2] + 1))
    seeds, masks = scores.coordinates["seed"], scores.coordinates["mask"]
    return Result(
        name=scores.name,
        values=values,
        axes=("mask", *inner, "rank", "seed"),
        coordinates={"mask": masks, **inner, "rank": ranks, "seed": seeds},
        unit=scores.unit,
        direction=scores.direction,
        what_it_does_not_show=f"that a rank is one head: in each seed it is whichever scored so. Nor {NOT_USED}.",
        undefined=scores.undefined,
        metadata={**scores.metadata, **metadata},
    )
