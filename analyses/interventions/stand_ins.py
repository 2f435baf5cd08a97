"""What stands in for an activation: zeros, means of the layout, mean rows, another item's, or the corrupt partner's."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.activations import Activations, means, narrow
from analyses.interventions.items import Pairs, cut, derangement, layouts, minimal_pairs, order_of_length
from analyses.interventions.patch import Positions, checked_positions
from analyses.interventions.trace import Trace, Weights, trace
from mechproc.errors import ConfigError, require
from mechproc.procedures.base import Items, Procedure

N_ITEMS = 1024
"""Test items of a procedure, unless another number is asked for."""
REFERENCE_ITEMS = 4096
"""Items of the validation split that means are taken over."""
MIN_REFERENCE = 8
"""The fewest reference items that make a mean; test items of a rarer layout are left out."""
LEAST = {"mean": MIN_REFERENCE, "frozen_scale": MIN_REFERENCE, "resample": 2}
"""How many items of a layout a kind of ablation needs, of the reference or, to resample from, of the test items."""
OF_LAYOUT = ("mean", "frozen_scale")
"""Kinds that put the mean over the reference items of the layout."""


@dataclasses.dataclass(frozen=True)
class Ablated:
    """The items of an ablation, with all that belongs to each of them in the same order."""

    items: Items
    reference: Items | None = None
    corrupt: Items | None = None
    partners: Items | None = None
    """The item that each item is resampled from, where the user chose them."""
    positions: np.ndarray | None = None
    """Where a part is replaced: [k], or [item, k]; everywhere when ``None``."""

    @functools.cached_property
    def pairs(self) -> Pairs:
        """The items with their corrupt partners. Errors: ``ConfigError`` where they have none."""
        if self.corrupt is None:
            raise ConfigError("items have no corrupt partners: give Pairs")
        return Pairs(self.items, self.corrupt)

    def take(self, kept: np.ndarray, positions: Positions) -> Ablated:
        """The items ``kept``, longest first, with ``positions`` given in the order of all items."""
        kept = kept[order_of_length(self.items.take(kept))]
        places = None if positions is None else checked_positions(positions, *self.items.tokens.shape)
        rest = {name: None if (x := getattr(self, name)) is None else x.take(kept) for name in ("corrupt", "partners")}
        places = places[kept] if places is not None and places.ndim == 2 else places
        return Ablated(self.items.take(kept), self.reference, **rest, positions=places)

    def positions_of(self, batch: slice) -> np.ndarray | None:
        """The positions of a batch of items, those after the last scored position of the batch left out."""
        if self.positions is None:
            return None
        places = np.asarray(self.positions if self.positions.ndim == 1 else self.positions[batch])
        last = cut(self.items.take(batch)).tokens.shape[1] - 1  # it is after every scored position: no effect
        return np.minimum(places, last)


class StandIns:
    """What stands in for the activations of ``hooks`` in one model."""

    def __init__(self, weights: Weights, chosen: Ablated, kind: str, hooks: list[str], seed: int) -> None:
        self.weights, self.kind, self.hooks, self.other = weights, kind, hooks, chosen.corrupt
        if kind == "resample":
            self.other = chosen.partners or chosen.items.take(derangement(layouts(chosen.items), seed))
        if kind == "mean_row":
            self.rows = _mean_rows(weights, chosen)
        if kind in OF_LAYOUT:
            if chosen.reference is None:
                raise ConfigError("reference is missing: a mean needs reference items")
            number_of = {layout: i for i, layout in enumerate(dict.fromkeys(layouts(chosen.items)))}
            self.means = means(weights, chosen.reference, number_of, hooks)
            device = weights.state["embed.W_E"].device
            self.group = torch.tensor([number_of[layout] for layout in layouts(chosen.items)], device=device)

    def with_weights(self, weights: Weights) -> StandIns:
        """The same for the same model in another precision; what was averaged stays as it is."""
        other = copy.copy(self)
        other.weights = weights
        return other

    def of(self, batch: slice, intact: Trace) -> Activations:
        """The activations that stand in for those of a batch, by hook."""
        if self.kind == "zero":
            return {hook: torch.zeros_like(intact.activations[hook]) for hook in self.hooks}
        if self.kind in OF_LAYOUT:
            return {hook: self._mean(hook, batch, intact.activation(hook)) for hook in self.hooks}
        if self.kind == "mean_row":
            return {hook: self.rows[hook].expand_as(intact.activations[hook]) for hook in self.hooks}
        if self.kind == "identity_affine":
            return {}
        if self.other is None:
            raise ConfigError("items have no corrupt partners")
        return trace(self.weights, cut(self.other.take(batch))).activations

    def _mean(self, hook: str, batch: slice, own: Tensor) -> Tensor:
        """The means of a batch's layouts. After the last scored position of a layout, where the means are 0 and nothing
        is read, a scale is the item's own: nothing can be divided by 0."""
        mean = narrow(self.means[hook], own)[self.group[batch]]
        return torch.where(mean == 0, own, mean) if self.kind == "frozen_scale" else mean


def chosen_items(
    items: Any,
    kind: str,
    reference: Items | None,
    pair: str | None,
    partners: Any,
    seed: int,
    n_items: int | None,
    draw: Callable[[int, str], Items] | None = None,
) -> tuple[Ablated, dict[str, Any]]:
    """The items that an ablation runs on, and the settings to be recorded. Errors: ``ConfigError``.

    ``draw(n, split)`` takes the items of a procedure, for kinds of ablation that share them; by default, the procedure.
    """
    known = isinstance(items, (Procedure, Items, Pairs))
    require(known, "items", items, "a procedure, such as get('sort')(), its items, own_items(tokens), or Pairs")
    counterfactual = kind == "counterfactual"
    settings: dict[str, Any] = {"seed": seed}
    corrupt = None
    require(partners is None or kind == "resample", "partners", "given", f"None for {kind} ablation")
    if isinstance(items, Procedure):
        require(partners is None, "partners", "given", "None for a procedure: give its items with them")
        settings |= {"procedure": items.to_dict(), "split": "test"}
        n = N_ITEMS if n_items is None else n_items
        procedure, draw = items, draw or (lambda n, split: procedure.items(n, seed=seed, split=split))
        if kind in (*OF_LAYOUT, "mean_row") and reference is None:
            reference = draw(REFERENCE_ITEMS, "validation")
        if pair is not None:
            settings["pair"] = pair
            items = minimal_pairs(items, pair, n, seed=seed)
        else:
            require(not counterfactual, "pair", None, f"a kind of pair: {', '.join(items.pair_kinds) or 'it has none'}")
            items = draw(n, "test")
    else:
        require(n_items is None, "n_items", n_items, "None when items are given: take them with Items.take")
        require(pair is None, "pair", pair, "None when items are given: give Pairs")
    if isinstance(items, Pairs):
        items, corrupt = items.clean, items.corrupt
    require(not counterfactual or corrupt is not None, "items", "items without partners", "Pairs, or a procedure")
    require(bool(items.scored.any()), "items", "no scored position", "items with something to score")
    if kind not in (*OF_LAYOUT, "mean_row"):
        reference = None
    elif reference is None and kind == "mean_row":
        reference = items
    if reference is None and kind in OF_LAYOUT:
        raise ConfigError("reference is missing: a mean needs reference items when the test items are given")
    if reference is not None:
        settings["n_reference_items"] = len(reference)
    if partners is not None:
        partners = _partners(items, np.asarray(partners))
    return Ablated(items, reference, corrupt, partners), settings


def rows_in_use(chosen: Ablated) -> tuple[np.ndarray, int]:
    """The tokens, int64 [token], and the number of positions that stand at or before the last scored position of a
    reference item, or of an item where there is no reference."""
    used = chosen.items if chosen.reference is None else chosen.reference
    n_pos = used.scored.shape[1]
    read = np.logical_or.accumulate(used.scored[:, ::-1], axis=1)[:, ::-1]
    return np.unique(used.tokens[:, :n_pos][read]), int(read.any(axis=0).sum())


def _mean_rows(weights: Weights, chosen: Ablated) -> Activations:
    """The mean rows of the embeddings, by hook, [d_model]; of the token embedding, for models that read tokens."""
    tokens, n_positions = rows_in_use(chosen)
    n_positions = min(n_positions, weights.cfg.n_ctx)
    rows = {"hook_pos_embed": weights.state["pos_embed.W_pos"][:n_positions].mean(0)}
    if weights.cfg.input == "tokens":
        in_use = torch.from_numpy(tokens).to(weights.state["embed.W_E"].device)
        rows["hook_embed"] = weights.state["embed.W_E"][in_use].mean(0)
    return rows


def _partners(items: Items, index: np.ndarray) -> Items:
    """The partner of each item. Errors: ``ConfigError`` for one that is not an item, or of another layout."""
    whole = index.shape == (len(items),) and bool(np.issubdtype(index.dtype, np.integer))
    inside = whole and bool(((index >= 0) & (index < len(items))).all())
    require(inside, "partners", index.tolist(), f"[{len(items)}] whole numbers from 0 to {len(items) - 1}")
    partners = items.take(index)
    Pairs(items, partners)  # which names a pair of unequal layouts
    return partners
