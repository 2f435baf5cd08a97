"""Small models of every shape, with random weights none of which is zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import State, tensor_shapes

torch.set_num_threads(1)
PLAIN = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=9, d_vocab=11)
CONFIGS = {
    "plain": PLAIN,
    "one layer": PLAIN.replace(n_layers=1),
    "three layers": PLAIN.replace(n_layers=3),
    "LNPre": PLAIN.replace(normalization_type="LNPre"),
    "no LayerNorm": PLAIN.replace(normalization_type=None),
    "no MLPs": PLAIN.replace(d_mlp=0),
    "bare": PLAIN.replace(n_layers=1, normalization_type=None, d_mlp=0),
    "tied": PLAIN.replace(tied_embeddings=True),
    "b_U": PLAIN.replace(unembed_bias=True),
    "tied, b_U": PLAIN.replace(tied_embeddings=True, unembed_bias=True),
    "vectors": PLAIN.replace(input="vectors", d_input=5),
    "gelu, large eps": PLAIN.replace(act_fn="gelu", eps=0.1),
    "relu": PLAIN.replace(act_fn="relu", d_mlp=7),
    "odd heads": PLAIN.replace(n_heads=3, d_head=5),
}


@pytest.fixture
def plain() -> ModelConfig:
    return PLAIN


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def cfg(request: pytest.FixtureRequest) -> ModelConfig:
    """Each of the shapes in turn."""
    return request.param


@pytest.fixture
def random_state() -> Callable[..., State]:
    def make(cfg: ModelConfig, seed: int = 0) -> State:
        rng = np.random.default_rng(seed)
        return {name: torch.from_numpy(rng.normal(0, 0.5, shape)) for name, shape in tensor_shapes(cfg).items()}

    return make


@pytest.fixture
def random_inputs() -> Callable[..., torch.Tensor]:
    def make(cfg: ModelConfig, batch: int = 4, n_pos: int = 7, seed: int = 0) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        if cfg.input == "vectors":
            return torch.from_numpy(rng.normal(size=(batch, n_pos, cfg.d_input)))
        return torch.from_numpy(rng.integers(cfg.d_vocab, size=(batch, n_pos)))

    return make


@pytest.fixture
def model(plain: ModelConfig, random_state: Callable[..., State]) -> HookedTransformer:
    """``plain`` in float64 with random weights."""
    return HookedTransformer(plain, random_state(plain), dtype=torch.float64)


@pytest.fixture
def inputs(plain: ModelConfig, random_inputs: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Tokens [4, 7] for ``plain``."""
    return random_inputs(plain)
