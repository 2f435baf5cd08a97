"""Changes of a model's weights that leave its logits as they are, drawn at random to hide how a model was made.

Each takes a state and returns another one with equal logits, up to rounding. ``disguised`` uses them all.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from analyses.planted.codes import random_rotation, residual_basis
from mechproc.model.config import ModelConfig
from mechproc.model.state import State

READERS = (("ln1", ("attn.W_Q", "attn.W_K", "attn.W_V"), ("attn.b_Q", "attn.b_K", "attn.b_V")),
           ("ln2", ("mlp.W_in",), ("mlp.b_in",)))  # fmt: skip
"""The LayerNorms of a layer, with the weights and biases that read them."""


def disguised(state: State, cfg: ModelConfig, rng: np.random.Generator) -> State:
    """The same function of the tokens in other weights: bases, scales, order of neurons and LayerNorms drawn anew."""
    state = rotated_residual(state, cfg, rng)
    state = rotated_heads(state, cfg, rng)
    state = permuted_neurons(state, cfg, rng)
    state = random_layernorms(state, cfg, rng)
    return shifted_biases(state, cfg, rng)


def rotated_residual(state: State, cfg: ModelConfig, rng: np.random.Generator) -> State:
    """Another orthonormal basis of the residual stream, with the all-ones vector in its place.

    That commutes with a LayerNorm only while its gain is 1 and its bias 0.
    """
    basis = residual_basis(cfg.d_model)
    inner = np.eye(cfg.d_model)
    inner[1:, 1:] = random_rotation(cfg.d_model - 1, rng)
    rotation = _tensor(basis.T @ inner @ basis, state)
    rotated = dict(state)
    for name, tensor in state.items():
        last = name.rpartition(".")[2]
        if last in ("W_E", "W_pos", "W_O", "W_out", "b_O", "b_out"):
            rotated[name] = tensor @ rotation
        elif last in ("W_Q", "W_K", "W_V", "W_in", "W_U"):
            rotated[name] = rotation.T @ tensor
    return rotated


def rotated_heads(state: State, cfg: ModelConfig, rng: np.random.Generator) -> State:
    """For each head other bases of queries with keys, and of values with outputs, and other scales of the one against
    the other (a factor of 1/2 to 2)."""
    changed = {name: tensor.clone() for name, tensor in state.items()}
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn"
        for head in range(cfg.n_heads):
            for first, second in (("Q", "K"), ("V", "O")):
                rotation = _tensor(random_rotation(cfg.d_head or 1, rng), state)
                scale = float(2.0 ** rng.uniform(-1, 1))
                changed[f"{attn}.W_{first}"][head] = scale * state[f"{attn}.W_{first}"][head] @ rotation
                changed[f"{attn}.b_{first}"][head] = scale * state[f"{attn}.b_{first}"][head] @ rotation
                if second == "K":
                    changed[f"{attn}.W_K"][head] = state[f"{attn}.W_K"][head] @ rotation / scale
                    changed[f"{attn}.b_K"][head] = state[f"{attn}.b_K"][head] @ rotation / scale
                else:
                    changed[f"{attn}.W_O"][head] = rotation.T @ state[f"{attn}.W_O"][head] / scale
    return changed


def permuted_neurons(state: State, cfg: ModelConfig, rng: np.random.Generator) -> State:
    """The neurons of each MLP in another order."""
    changed = dict(state)
    for layer in range(cfg.n_layers if cfg.d_mlp else 0):
        mlp, order = f"blocks.{layer}.mlp", torch.from_numpy(rng.permutation(cfg.d_mlp or 0))
        for name, axis in (("W_in", 1), ("b_in", 0), ("W_out", 0)):
            changed[f"{mlp}.{name}"] = state[f"{mlp}.{name}"].index_select(axis, order)
    return changed


def random_layernorms(state: State, cfg: ModelConfig, rng: np.random.Generator) -> State:
    """Gains (a factor of 2/3 to 3/2 on each axis) and biases of the LayerNorms, undone by whatever reads them.

    The final LayerNorm gets gains only: the unembedding has no bias that could undo another one.
    """
    changed = dict(state)
    for layer in range(cfg.n_layers):
        for norm, readers, biases in READERS[: 2 if cfg.d_mlp else 1]:
            block = f"blocks.{layer}"
            gain, bias = _gains(cfg, rng, state), _tensor(rng.normal(0.0, 0.2, cfg.d_model), state)
            changed[f"{block}.{norm}.w"] = state[f"{block}.{norm}.w"] * gain
            changed[f"{block}.{norm}.b"] = state[f"{block}.{norm}.b"] * gain + bias
            for weight, read_bias in zip(readers, biases, strict=True):
                undone = state[f"{block}.{weight}"] / gain[:, None]
                changed[f"{block}.{weight}"] = undone
                changed[f"{block}.{read_bias}"] = state[f"{block}.{read_bias}"] - bias @ undone
    gain = _gains(cfg, rng, state)
    changed["ln_final.w"] = state["ln_final.w"] * gain
    changed["ln_final.b"] = state["ln_final.b"] * gain
    changed["unembed.W_U"] = state["unembed.W_U"] / gain[:, None]
    return changed


def shifted_biases(state: State, cfg: ModelConfig, rng: np.random.Generator) -> State:
    """Output biases b_O and b_out, shifted along the all-ones vector, which every LayerNorm removes."""
    changed = dict(state)
    for name, tensor in state.items():
        if name.endswith((".b_O", ".b_out")):
            changed[name] = tensor + float(rng.normal(0.0, 0.2))
    return changed


def _gains(cfg: ModelConfig, rng: np.random.Generator, state: State) -> Tensor:
    return _tensor(np.exp(rng.uniform(-np.log(1.5), np.log(1.5), cfg.d_model)), state)


def _tensor(values: np.ndarray, state: State) -> Tensor:
    return torch.from_numpy(values).to(next(iter(state.values())))
