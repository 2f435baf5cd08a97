"""Small models with random weights, and the same models in disguise."""

from __future__ import annotations

import numpy as np
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import State, init_state

CFG = ModelConfig(n_layers=2, n_heads=3, d_model=12, d_head=3, d_mlp=10, n_ctx=7, d_vocab=9)


def random_state(seed: int = 0, cfg: ModelConfig = CFG) -> State:
    """Float64, every number random; LayerNorms' gains are 1 and their biases 0."""
    rng = np.random.default_rng([seed, 7])
    state = init_state(cfg, seed)
    return {
        name: tensor.double() if "ln" in name else torch.from_numpy(rng.normal(0, 0.5, tensor.shape))
        for name, tensor in state.items()
    }


def model(state: State | None = None, cfg: ModelConfig = CFG, seed: int = 0) -> HookedTransformer:
    return HookedTransformer(cfg, random_state(seed, cfg) if state is None else state)


def exchanged_heads(state: State, cfg: ModelConfig, orders: list[list[int]]) -> State:
    """The heads of each layer in another order."""
    changed = dict(state)
    for layer in range(cfg.n_layers):
        for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
            full = f"blocks.{layer}.attn.{name}"
            changed[full] = state[full][orders[layer]]
    return changed
