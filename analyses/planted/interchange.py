"""Replace the activations of parts of a planted model, slowly and plainly: what roles are checked by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.activations import Activations
from analyses.interventions.items import derangement, layouts
from analyses.interventions.metrics import METRICS, scored_tokens
from analyses.interventions.patch import patches_from, run_with_activations, run_with_patches
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import sites
from mechproc.procedures.base import Items


def hooks_of(model: HookedTransformer, parts: Sequence[str]) -> list[str]:
    """The hooks at which the parts have their activations."""
    return sorted({site.hook for part in parts for site in sites(part, model.cfg)})


@torch.inference_mode()
def record(model: HookedTransformer, items: Items, parts: Sequence[str]) -> tuple[Tensor, Activations]:
    """Logits [item, pos, d_vocab] and the activations of parts."""
    return run_with_activations(model, items, hooks_of(model, parts))


def replaced(model: HookedTransformer, items: Items, parts: Sequence[str], values: Activations) -> Tensor:
    """Logits [item, pos, d_vocab] with the activations of some parts replaced."""
    every = list(dict.fromkeys(site for part in parts for site in sites(part, model.cfg)))
    return run_with_patches(model, items, patches_from(values, every))


def zeros(own: Activations) -> Activations:
    """Zeros in place of activations."""
    return {hook: torch.zeros_like(value) for hook, value in own.items()}


def means(own: Activations, items: Items) -> Activations:
    """The mean over the items of the same layout, in place of each item's activations."""
    names = layouts(items)
    group = np.array([list(dict.fromkeys(names)).index(name) for name in names])
    means = {hook: torch.empty_like(value) for hook, value in own.items()}
    for number in range(group.max() + 1):
        rows = torch.from_numpy(np.flatnonzero(group == number))
        for hook, value in own.items():
            means[hook][rows] = value[rows].mean(0)
    return means


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
    tokens = scored_tokens(items)
    return METRICS["loss"](logits[tokens.item, tokens.position].double(), tokens)
