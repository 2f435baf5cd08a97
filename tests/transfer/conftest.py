"""Donors with random weights, none of which is zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.state import State, tensor_shapes

torch.set_num_threads(1)
CFG = ModelConfig(n_layers=2, n_heads=4, d_model=8, n_ctx=10, d_vocab=12, d_mlp=6)


@pytest.fixture
def cfg() -> ModelConfig:
    """The fresh model's shape."""
    return CFG


@pytest.fixture
def donor_cfg() -> ModelConfig:
    """As donors usually are: the same body, fewer positions, a smaller vocabulary, tied."""
    return CFG.replace(n_ctx=7, d_vocab=9, tied_embeddings=True)


@pytest.fixture
def random_state() -> Callable[..., State]:
    def make(cfg: ModelConfig, seed: int = 0) -> State:
        rng = np.random.default_rng(seed)
        shapes = tensor_shapes(cfg).items()
        return {name: torch.from_numpy(rng.normal(0.1, 0.5, shape).astype(np.float32)) for name, shape in shapes}

    return make


@pytest.fixture
def sets(donor_cfg, random_state):
    """A donor as ``assemble`` takes it."""
    return {"set": (donor_cfg, random_state(donor_cfg, 1))}
