"""The heads of a model in the order of what they do.

A head's index means nothing across models. Within each layer heads can be put in the order of how much of their
attention lies on a target of the model's own rule, such as the symbol before; the model computes the same, and head 0
is then the layer's best head for that target in every model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.procedures import Procedure
from mechproc.procedures.attention_weights import target_weights

N_ITEMS = 256
"""Items of the validation split on which attention is measured."""
BY_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
"""Weights of attention whose first axis is the head."""
ORDER_VERSION = "1.0.0"
"""Semantic version of how heads are ordered: raised when another order comes out."""


def check_targets(procedure: Procedure, cfg: ModelConfig, targets: Sequence[str]) -> None:
    """Raise a ``ConfigError`` unless ``targets`` names one attention target of ``procedure`` for each layer."""
    require(len(targets) == cfg.n_layers, "targets", tuple(targets), f"one for each of the {cfg.n_layers} layers")
    known = procedure.attention_target_names
    for target in targets:
        if target not in known:
            names = ", ".join(known) or "none"
            raise ConfigError(
                f"targets = {target!r} is not allowed: {procedure.short_name} has {names}{nearest(target, known)}"
            )


def head_order(cfg: ModelConfig, state: State, procedure: Procedure, targets: Sequence[str]) -> list[list[int]]:
    """For each layer the numbers of its heads, from the one that attends most to the layer's target on.

    A head's score is its attention on the target, averaged over the queries of an item that have one, then over items
    of the validation split. Ties are in the order of the heads.
    """
    from mechproc.model.hooked import HookedTransformer  # takes a second to import, and every command reads this file

    check_targets(procedure, cfg, targets)
    items = procedure.items(N_ITEMS, split="validation")
    masks = procedure.attention_targets(items)
    model = HookedTransformer(cfg, state)
    read = items.tokens if items.vectors is None else items.vectors
    with torch.inference_mode():
        _, cache = model.run_with_cache(
            torch.from_numpy(read), names_filter=lambda name: name.endswith("attn.hook_pattern")
        )
    order = []
    for layer, target in enumerate(targets):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"].double().numpy()
        scores = np.einsum("ihqk,iqk->h", pattern, target_weights(masks[target].astype(bool)))
        order.append(np.argsort(-scores.round(9), kind="stable").tolist())
    return order


def with_heads_in_order(cfg: ModelConfig, state: State, order: Sequence[Sequence[int]]) -> State:
    """The same model with the heads of each layer in another order: a copy, whose logits are equal but for rounding."""
    moved = {name: tensor.detach().clone() for name, tensor in state.items()}
    for layer, heads in enumerate(order):
        require(sorted(heads) == list(range(cfg.n_heads)), f"order of layer {layer}", list(heads), "each head once")
        for kind in BY_HEAD:
            name = f"blocks.{layer}.attn.{kind}"
            if name in moved:
                moved[name] = moved[name][list(heads)].clone()
    return moved
