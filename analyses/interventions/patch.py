"""Patches on the hooked model, the readable reference: replace an activation, run, and check that the tool is sound.

``sweep`` computes the same for many interventions at once; tests and a check in each sweep hold it to this.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.items import inputs
from mechproc.errors import ConfigError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Items

Positions = Sequence[int] | np.ndarray | None
"""``None``: all; whole numbers [k], the same in each item; or int64 [item, k]."""


def checked_positions(positions: Any, n_items: int, n_pos: int, name: str = "positions") -> np.ndarray:
    """Positions as an array [k] or [item, k]. Errors: ``ConfigError`` for others than 0 to ``n_pos - 1``."""
    places = np.asarray(positions)
    fits = places.ndim in (1, 2) and places.size > 0 and np.issubdtype(places.dtype, np.integer)
    fits = fits and places.min() >= 0 and places.max() < n_pos and (places.ndim == 1 or len(places) == n_items)
    require(bool(fits), name, places.tolist(), f"whole numbers [k] or [{n_items}, k] from 0 to {n_pos - 1}")
    return places


def position_axis(hook: str) -> int:
    """The axis of a whole activation, [item, ...], that is the position; of a pattern or scores, the query."""
    return 2 if hook.endswith(("hook_pattern", "hook_attn_scores")) else 1


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """The activation of a site is replaced by ``values`` at ``positions``.

    ``values`` has the shape of ``site.view(activation)`` for the items that it is used on: [item, pos, ...], all
    positions included, of which those in ``positions`` are used. Positions of a pattern are those of the queries.
    """

    site: Site
    positions: Positions
    values: Tensor

    def __post_init__(self) -> None:
        require(self.values.ndim >= 2, "values", f"shape {list(self.values.shape)}", "[item, pos, ...]")
        if self.positions is not None:
            checked_positions(self.positions, len(self.values), self.values.shape[self.pos_axis])

    @property
    def pos_axis(self) -> int:
        """The axis of ``values`` that is the position (of a pattern or scores of all heads, the query)."""
        return position_axis(self.site.hook) if self.site.axis is None else 1

    def where(self) -> np.ndarray | None:
        """The positions by item, int64 [item, k]; ``None`` for all."""
        if self.positions is None:
            return None
        places = np.asarray(self.positions, dtype=np.int64)
        return np.broadcast_to(places, (len(self.values), places.shape[-1]))

    def applied(self, activation: Tensor) -> Tensor:
        """A copy of the whole activation of the hook with this patch in it."""
        view = self.site.view(activation)
        shape = list(view.shape)
        require(list(self.values.shape) == shape, f"values at {self.site.address}", list(self.values.shape), f"{shape}")
        patched = activation.clone()
        target, where = self.site.view(patched), self.where()
        if where is None:
            target.copy_(self.values)
        else:
            rows, places = torch.arange(len(where))[:, None], torch.from_numpy(where.copy())
            target, values = (x.movedim(self.pos_axis, 1) for x in (target, self.values.to(target)))
            target[rows, places] = values[rows, places]
        return patched


@torch.inference_mode()
def run_with_patches(model: HookedTransformer, items: Items, patches: Sequence[Patch]) -> Tensor:
    """Logits [item, pos, d_vocab] of the hooked model with all ``patches`` in place, later over earlier ones."""
    hooks: list[tuple[Any, Any]] = [(patch.site.hook, functools.partial(_replace, patch=patch)) for patch in patches]
    return model.run_with_hooks(inputs(items, model.cfg), fwd_hooks=hooks)


def patches_from(activations: Mapping[str, Tensor], sites: Sequence[Site], positions: Positions = None) -> list[Patch]:
    """A patch at each site with what ``activations`` (by hook) hold there.

    Errors: ``ConfigError`` for no sites, or a hook that was not recorded.
    """
    require(len(sites) > 0, "parts", [], "at least one part with an activation")
    for site in sites:
        if site.hook not in activations:
            raise ConfigError(f"activation of {site.hook!r} is missing: record it first")
    return [Patch(site, positions, site.view(activations[site.hook])) for site in sites]


def check_no_op(model: HookedTransformer, items: Items, sites_of: Mapping[str, Sequence[Site]]) -> None:
    """Replace every part by itself: the logits must change by exactly 0. Errors: ``RuntimeError`` names the part.

    All parts are replaced in one run; only where that changes something are they tried one by one.
    """
    hooks = sorted({site.hook for sites in sites_of.values() for site in sites})
    intact, own = run_with_activations(model, items, hooks)
    together = [patch for sites in sites_of.values() for patch in patches_from(own, sites)]
    if torch.equal(intact.nan_to_num(), run_with_patches(model, items, together).nan_to_num()):
        return
    changes = "replacing the activation by itself changed the logits; do not trust an intervention there"
    for part, sites in sites_of.items():
        if not torch.equal(intact.nan_to_num(), run_with_patches(model, items, patches_from(own, sites)).nan_to_num()):
            raise RuntimeError(f"{part}: {changes}")
    raise RuntimeError(f"all parts together: {changes}")


def check_full_patch(model: HookedTransformer, clean: Items, corrupt: Items) -> None:
    """Patch everything that reads the input: the clean run must give the corrupt run's logits exactly.

    Errors: ``RuntimeError``. ``clean`` and ``corrupt`` have the same width.
    """
    every = [Site("embed", "hook_embed", None, None), Site("pos", "hook_pos_embed", None, None)]
    corrupt_logits, theirs = run_with_activations(model, corrupt, [site.hook for site in every])
    patched = run_with_patches(model, clean, patches_from(theirs, every))
    if not torch.equal(patched.nan_to_num(), corrupt_logits.nan_to_num()):
        raise RuntimeError("patching all embeddings did not give the other run's logits; do not trust a patch")


@torch.inference_mode()
def run_with_activations(model: HookedTransformer, items: Items, hooks: Sequence[str]) -> tuple[Tensor, dict]:
    """Logits [item, pos, d_vocab] and the activations of ``hooks``, by hook, each [item, ...]."""
    return model.run_with_cache(inputs(items, model.cfg), names_filter=list(hooks), return_cache_object=False)


def _replace(activation: Tensor, hook: Any, patch: Patch) -> Tensor:
    return patch.applied(activation)
