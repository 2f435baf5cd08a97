"""What hides how a model was made leaves its logits as they are."""

import numpy as np
import pytest
import torch

from analyses.planted import symmetries
from analyses.planted.family import families
from analyses.planted.planting import plant
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state

CFG = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=7, d_vocab=11, init_std=0.5)
TOKENS = torch.arange(42).reshape(6, 7) % 11


def a_state():
    state = {name: tensor.double() for name, tensor in init_state(CFG, 0).items()}
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if ".b_" in name:  # those that a fresh model has at zero
            state[name] = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    return state


def logits(state):
    with torch.inference_mode():
        return HookedTransformer(CFG, state, dtype=torch.float64)(TOKENS)


@pytest.mark.parametrize(
    "change, moved",
    [
        (symmetries.rotated_residual, "blocks.0.mlp.W_out"),
        (symmetries.rotated_heads, "blocks.1.attn.W_V"),
        (symmetries.permuted_neurons, "blocks.1.mlp.W_in"),
        (symmetries.random_layernorms, "blocks.0.ln1.w"),
        (symmetries.shifted_biases, "blocks.0.attn.b_O"),
        (symmetries.disguised, "unembed.W_U"),
    ],
)
def test_a_symmetry_changes_weights_and_no_logit(change, moved):
    state = a_state()
    changed = change(state, CFG, np.random.default_rng(0))
    assert not torch.allclose(changed[moved], state[moved], atol=1e-3)
    assert torch.allclose(logits(changed), logits(state), atol=1e-10)
    again, other = (change(state, CFG, np.random.default_rng(seed)) for seed in (0, 1))
    assert torch.equal(again[moved], changed[moved])
    assert not torch.equal(other[moved], changed[moved])


@pytest.mark.parametrize("kind", ["haystack", "dyck", "backup"])
def test_a_planting_in_another_basis_gives_the_same_logits(kind, monkeypatch):
    """The same draw, disguised in two ways: rotations, scales and gains are no part of the function."""
    planting = plant(families()[kind](n_items=64), 0)
    real = symmetries.disguised
    monkeypatch.setattr("analyses.planted.planting.disguised", lambda s, c, rng: real(s, c, rng.spawn(1)[0]))
    other = plant(families()[kind](n_items=64), 0)
    assert planting.draws == other.draws == 1
    assert not torch.allclose(planting.state["blocks.0.attn.W_Q"], other.state["blocks.0.attn.W_Q"], atol=1e-2)
    tokens = torch.from_numpy(planting.items.tokens)
    with torch.inference_mode():
        assert torch.allclose(planting.model(tokens), other.model(tokens), atol=2e-3)
