"""Replace the activations of parts of a planted model, slowly and plainly: what roles are checked by."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analyses.interventions.items import derangement, layouts
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site, sites
from mechproc.procedures.base import Items

Activations = dict[str, Tensor]
"""Activations by hook, each [item, ...]."""


def hooks_of(model: HookedTransformer, parts: Sequence[str]) -> list[str]:
    """The hooks at which the parts have their activations."""
    return sorted({site.hook for part in parts for site in sites(part, model.cfg)})


@torch.inference_mode()
def record(model: HookedTransformer, items: Items, parts: Sequence[str]) -> tuple[Tensor, Activations]:
    """Logits [item, pos, d_vocab] and the activations of parts."""
    return model.run_with_cache(items.tokens, names_filter=hooks_of(model, parts), return_cache_object=False)


@torch.inference_mode()
def replaced(model: HookedTransformer, items: Items, parts: Sequence[str], values: Activations) -> Tensor:
    """Logits [item, pos, d_vocab] with the activations of some parts replaced."""
    found = list(dict.fromkeys(site for part in parts for site in sites(part, model.cfg)))
    hooks: list[Any] = [(site.hook, functools.partial(patch, site=site, value=values[site.hook])) for site in found]
    return model.run_with_hooks(items.tokens, fwd_hooks=hooks)


def patch(activation: Tensor, hook: Any, site: Site, value: Tensor) -> Tensor:
    """A hook: the activation with that of ``site`` taken from ``value``, an activation of the same hook."""
    replaced = activation.clone()
    site.view(replaced).copy_(site.view(value))
    return replaced


def zeros(own: Activations) -> Activations:
    """Zeros in place of activations."""
    return {hook: torch.zeros_like(value) for hook, value in own.items()}


def means(own: Activations, items: Items) -> Activations:
    """The mean over the items of the same layout, in place of each item's activations."""
    names = layouts(items)
    group = np.array([list(dict.fromkeys(names)).index(name) for name in names])
    found = {hook: torch.empty_like(value) for hook, value in own.items()}
    for number in range(group.max() + 1):
        rows = torch.from_numpy(np.flatnonzero(group == number))
        for hook, value in own.items():
            found[hook][rows] = value[rows].mean(0)
    return found


def uniform(own: Activations) -> Activations:
    """Of patterns alone: every query attends equally to every key that it sees."""
    patterns = {hook: value for hook, value in own.items() if hook.endswith("hook_pattern")}
    visible = {hook: torch.ones_like(value).tril() for hook, value in patterns.items()}
    return {hook: value / value.sum(-1, keepdim=True) for hook, value in visible.items()}


def others(own: Activations, items: Items, seed: int) -> Activations:
    """The activations of another item of the same layout."""
    partner = torch.from_numpy(derangement(layouts(items), seed))
    return {hook: value[partner] for hook, value in own.items()}


def accuracy(logits: Tensor, items: Items, answers: np.ndarray | None = None) -> float:
    """The share of the scored positions at which the largest logit is the target's, or that of ``answers`` [item]."""
    scored = torch.from_numpy(items.scored)
    targets = torch.from_numpy(items.targets[items.scored] if answers is None else answers)
    return float((logits[scored].argmax(-1) == targets).double().mean())


def loss(logits: Tensor, items: Items) -> Tensor:
    """Cross-entropy (nats) at each scored position, float64."""
    scored = torch.from_numpy(items.scored)
    return F.cross_entropy(logits[scored].double(), torch.from_numpy(items.targets)[scored], reduction="none")
