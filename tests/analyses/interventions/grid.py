"""A grid of unusual models, with random weights of which all are non-zero, and items for each."""

from __future__ import annotations

import numpy as np
import torch

from analyses.interventions.items import cut, longest_first, minimal_pairs, own_items
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.procedures.base import Items
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

TASK = Haystack(lengths=Uniform(1, 4), n_keys=6, n_values=8)
BASE = {"n_layers": 2, "n_heads": 2, "d_model": 8, "n_ctx": TASK.n_ctx, "d_vocab": TASK.d_vocab, "init_std": 0.4}
VECTORS = {"input": "vectors", "d_input": 5, "d_vocab": 5}
GRID = {
    "usual": {},
    "attention only": {"d_mlp": 0},
    "no LayerNorm": {"normalization_type": None},
    "LNPre": {"normalization_type": "LNPre"},
    "tied": {"tied_embeddings": True},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3, "unembed_bias": True},
    "one layer, attention only": {"n_layers": 1, "d_mlp": 0},
    "vectors": VECTORS,
}


def model(kind: str, seed: int = 1, dtype: torch.dtype = torch.float64) -> HookedTransformer:
    """A model of the grid in which no weight is zero; float64, so that agreement can be tested closely."""
    cfg, rng = ModelConfig(**{**BASE, **GRID[kind]}), np.random.default_rng(seed)
    state = init_state(cfg, seed)
    return HookedTransformer(
        cfg, {k: v + torch.from_numpy(rng.normal(0, 0.2, v.shape)).float() for k, v in state.items()}, dtype=dtype
    )


def items(kind: str, n: int = 12, start: int = 0) -> Items:
    """Items that the model reads; with several scored positions, and lengths that differ."""
    if kind != "vectors":
        return cut(longest_first(TASK.items(n, start=start)))
    rng = np.random.default_rng(start)
    vectors = (rng.random((n, 6, 5)) < 0.5).astype(np.float32)
    lengths = np.array([6, 5, 4] * (n // 3))
    return cut(longest_first(own_items(np.zeros((n, 6), dtype=np.int64), lengths, vectors=vectors)))


def pairs(kind: str) -> tuple[Items, Items]:
    """Clean items and partners of the same layout."""
    if kind != "vectors":
        both = minimal_pairs(TASK, "answer", 6)
        return both.clean, both.corrupt
    clean = items(kind, 6)
    other = Items(clean.tokens, clean.n_tokens, clean.scored, {}, 1 - clean.vectors)
    return clean, other
