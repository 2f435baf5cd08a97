"""Equivalent weights: other numbers that compute the same function, after TransformerLens's ``process_weights``.

Each function returns a new config and a new state; what it was given stays as it is, and is the way back. Sums are
computed in float64 and rounded once to the dtype of the weights, so that the logits agree to that dtype's rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, check_state, dtype_of, tensor_shapes


def fold_ln(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """Fold the weight and bias of each LayerNorm into what reads it; the result has ``normalization_type="LNPre"``.

    A reader W with bias c, of the LayerNorm with weight w and bias b, becomes diag(w) W, centred over d_model (what it
    reads has mean 0), and its bias c + b W. The logits stay equal. The residual stream does not change; queries, keys,
    values and ``mlp.hook_pre`` do not either, as they are what the readers compute. Tied embeddings become two tensors,
    as W_U reads ``ln_final`` and W_E does not; ``unembed_bias`` is True, as b_U takes the bias of ``ln_final``.
    """
    require(cfg.normalization_type == "LN", "normalization_type", cfg.normalization_type, "'LN', which can be folded")
    cfg, state, dtype = _prepared(cfg, state)
    state = {"unembed.b_U": torch.zeros_like(state["unembed.W_U"][0])} | state
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        for x in "QKV":
            _fold_reader(state, f"{block}.ln1", f"{block}.attn.W_{x}", f"{block}.attn.b_{x}")
        if not cfg.attn_only:
            _fold_reader(state, f"{block}.ln2", f"{block}.mlp.W_in", f"{block}.mlp.b_in")
    _fold_reader(state, "ln_final", "unembed.W_U", "unembed.b_U")
    return _finished(cfg.replace(normalization_type="LNPre", unembed_bias=True), state, dtype)


def unfold_ln(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """The same function with LayerNorms that have a weight, 1, and a bias, 0: ``normalization_type="LN"``.

    It does not undo ``fold_ln``, whose input is the way back. It is for engines and formats that have no ``LNPre``.
    """
    require(cfg.normalization_type == "LNPre", "normalization_type", cfg.normalization_type, "'LNPre', which is folded")
    check_state(state, cfg)
    cfg = cfg.replace(normalization_type="LN")
    like = state["embed.W_E"]
    identity = {
        name: like.new_full(shape, float(name.endswith(".w")))
        for name, shape in tensor_shapes(cfg).items()
        if name not in state
    }
    return _finished(cfg, identity | state, like.dtype)


def center_writing_weights(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """Subtract from what each weight and bias writes into the residual stream its mean over d_model.

    The LayerNorms subtract that mean anyway, so the logits stay equal; the residual stream loses its mean. W_E, W_pos,
    W_O, b_O, W_out and b_out write. Tied embeddings become two tensors, as W_U reads and is not centred.
    Raises ``ConfigError`` for a model without LayerNorms, where the mean counts.
    """
    allowed = "'LN' or 'LNPre', as the mean of the residual stream counts elsewhere"
    require(cfg.normalization_type is not None, "normalization_type", None, allowed)
    cfg, state, dtype = _prepared(cfg, state)
    writers = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")
    for name, tensor in state.items():
        if name.rpartition(".")[2] in writers:
            state[name] = tensor - tensor.mean(-1, keepdim=True)
    return _finished(cfg, state, dtype)


def center_unembed(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """Subtract from W_U and b_U their mean over the vocabulary.

    Probabilities, losses and logit differences stay equal; the logits of a position shift together, to mean 0. Raises
    ``ConfigError`` for a model that reads vectors: each of its logits is a probability of its own (a sigmoid).
    """
    require(cfg.input == "tokens", "input", cfg.input, "'tokens', whose logits go through a softmax")
    cfg, state, dtype = _prepared(cfg, state)
    for name in ("unembed.W_U", "unembed.b_U"):
        if name in state:
            state[name] = state[name] - state[name].mean(-1, keepdim=True)
    return _finished(cfg, state, dtype)


def fold_value_biases(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """Move the value biases into ``b_O``: b_O + sum over heads of b_V W_O, and b_V becomes 0.

    The weights of a query's pattern sum to 1, so each head adds b_V W_O whatever it attends to, and the logits stay
    equal. What a head writes (``hook_z``, ``hook_result``) no longer includes that constant.
    """
    cfg, state, dtype = _prepared(cfg, state, untie=False)
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn"
        written = torch.einsum("hd,hdm->m", state[f"{attn}.b_V"], state[f"{attn}.W_O"])
        state[f"{attn}.b_O"] = state[f"{attn}.b_O"] + written
        state[f"{attn}.b_V"] = torch.zeros_like(state[f"{attn}.b_V"])
    return _finished(cfg, state, dtype)


def untied(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """The same model with an unembedding of its own: the transposed token embedding, where it was tied."""
    if cfg.tied_embeddings:
        state = state | {"unembed.W_U": state["embed.W_E"].T}
    return _finished(cfg.replace(tied_embeddings=False), state, state["embed.W_E"].dtype)


def _fold_reader(state: State, ln: str, weight: str, bias: str) -> None:
    """Fold a LayerNorm into one weight [..., d_model, out] and its bias [..., out]."""
    read: Tensor = state[f"{ln}.w"][:, None] * state[weight]
    state[bias] = state[bias] + (state[f"{ln}.b"][:, None] * state[weight]).sum(-2)
    state[weight] = read - read.mean(-2, keepdim=True)


def _prepared(cfg: ModelConfig, state: State, untie: bool = True) -> tuple[ModelConfig, State, torch.dtype]:
    """The weights in float64, with an unembedding of their own, and the dtype that they had."""
    check_state(state, cfg)
    dtype = dtype_of(state)
    if untie:
        cfg, state = untied(cfg, state)
    return cfg, {name: tensor.detach().double() for name, tensor in state.items()}, dtype


def _finished(cfg: ModelConfig, state: State, dtype: torch.dtype) -> tuple[ModelConfig, State]:
    """Copies of the tensors of ``cfg`` in this dtype, in the order and layout of every other state."""
    names = tensor_shapes(cfg)
    return cfg, {
        name: state[name].detach().to(dtype, copy=True, memory_format=torch.contiguous_format) for name in names
    }
