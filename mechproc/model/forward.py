"""The training forward: logits only where they are asked for.

A plain function over a ``State``. In the last layer only keys and values are needed at every position; queries,
attention output, MLP, final LayerNorm and unembedding are computed at the scored positions alone. That is exact: what
is left out reaches no scored logit. The hooked model is the reference that tests hold this to.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mechproc.model.config import ModelConfig
from mechproc.model.state import State

ACTIVATIONS = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


@runtime_checkable
class Dropout(Protocol):
    """Scales and masks the activations of one site; see ``mechproc.training.dropout``."""

    def __call__(self, x: Tensor, site: str, layer: int, positions: Tensor | None) -> Tensor:
        """``x`` [batch, pos, ...] dropped out; ``positions`` [batch, pos] where ``x`` holds only some of them."""
        ...


def forward(
    state: State,
    cfg: ModelConfig,
    inputs: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_input"],
    positions: Int[Tensor, "batch scored"] | None = None,
    dropout: Dropout | None = None,
) -> Float[Tensor, "batch scored d_vocab"]:
    """Logits at ``positions`` of each item (at every position, in order, when ``None``)."""
    n_pos = inputs.shape[1]
    residual = F.embedding(inputs, state["embed.W_E"]) if cfg.input == "tokens" else inputs @ state["embed.W_E"]
    residual = residual + state["pos_embed.W_pos"][:n_pos]
    if dropout is not None:
        residual = dropout(residual, "embed", 0, None)
    for layer in range(cfg.n_layers):
        kept = positions if layer == cfg.n_layers - 1 else None
        residual = _block(state, cfg, layer, residual, kept, dropout)
    residual = _norm(state, cfg, "ln_final", residual)
    logits = residual @ (state["embed.W_E"].T if cfg.tied_embeddings else state["unembed.W_U"])
    return logits + state["unembed.b_U"] if cfg.unembed_bias else logits


def loss_and_correct(
    logits: Float[Tensor, "batch scored d_vocab"],
    targets: Int[Tensor, "batch scored"] | Int[Tensor, "batch scored d_vocab"],
    real: Bool[Tensor, "batch scored"],
) -> tuple[Float[Tensor, ""], Bool[Tensor, "batch scored"] | Bool[Tensor, "batch scored d_vocab"]]:
    """Mean cross-entropy (nats) over the real places, and where the most probable token is the target.

    With targets for each logit (0 or 1), the binary cross-entropy over the cells of the real places, and which cells
    are right.
    """
    losses, correct = losses_and_correct(logits, targets, real)
    return losses.sum() / (real.sum() * (1 if targets.ndim == 2 else targets.shape[2])), correct


def losses_and_correct(
    logits: Float[Tensor, "batch scored d_vocab"],
    targets: Int[Tensor, "batch scored"] | Int[Tensor, "batch scored d_vocab"],
    real: Bool[Tensor, "batch scored"],
) -> tuple[
    Float[Tensor, "batch scored"] | Float[Tensor, "batch scored d_vocab"],
    Bool[Tensor, "batch scored"] | Bool[Tensor, "batch scored d_vocab"],
]:
    """``loss_and_correct`` with the loss of each place (cell), 0 where it is not real, in place of their mean."""
    logits = at_least_float32(logits)
    if targets.ndim == logits.ndim:
        cells = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        return torch.where(real[..., None], cells, 0.0), ((logits.detach() > 0) == targets) & real[..., None]
    flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return torch.where(real, flat, 0.0), (logits.detach().argmax(-1) == targets) & real


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 where it has half precision, as it is otherwise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _block(
    state: State, cfg: ModelConfig, layer: int, residual: Tensor, positions: Tensor | None, dropout: Dropout | None
) -> Tensor:
    """One layer; when ``positions`` [batch, scored] is given, its output at those positions only."""
    name = f"blocks.{layer}"
    x = _norm(state, cfg, f"{name}.ln1", residual)
    key_positions = torch.arange(x.shape[1], device=x.device)
    if positions is None:
        queries, future = x, key_positions > key_positions[:, None]
    else:
        residual, queries = _at(residual, positions), _at(x, positions)
        future = (key_positions > positions[..., None])[:, None]
    # Scaling q and adding the mask in place touches [query, key] half as often as scaling and filling the scores.
    q = _heads(state, f"{name}.attn", "Q", queries) * (1 / math.sqrt(cfg.d_head or 1))
    k = _heads(state, f"{name}.attn", "K", x)
    v = _heads(state, f"{name}.attn", "V", x)
    mask = torch.zeros(future.shape, dtype=x.dtype, device=x.device).masked_fill(future, -torch.inf)
    pattern = (q @ k.transpose(-1, -2)).add_(mask).softmax(-1)
    if dropout is not None:  # units of a pattern are (head, key): the query is the position
        pattern = dropout(pattern.transpose(1, 2), "pattern", layer, positions).transpose(1, 2)
    z = (pattern @ v).transpose(1, 2).flatten(2)
    out = F.linear(z, state[f"{name}.attn.W_O"].flatten(0, 1).T, state[f"{name}.attn.b_O"])
    if dropout is not None:
        out = dropout(out, "attn_out", layer, positions)
    residual = residual + out
    if cfg.attn_only:
        return residual
    x = _norm(state, cfg, f"{name}.ln2", residual)
    hidden = F.linear(x, state[f"{name}.mlp.W_in"].T, state[f"{name}.mlp.b_in"])
    out = F.linear(ACTIVATIONS[cfg.act_fn](hidden), state[f"{name}.mlp.W_out"].T, state[f"{name}.mlp.b_out"])
    if dropout is not None:
        out = dropout(out, "mlp_out", layer, positions)
    return residual + out


def _heads(state: State, name: str, which: str, x: Tensor) -> Tensor:
    """x [batch, pos, d_model] -> [batch, head, pos, d_head]; one matrix product for all heads."""
    weight, bias = state[f"{name}.W_{which}"], state[f"{name}.b_{which}"]
    n_heads, d_model, d_head = weight.shape
    flat = F.linear(x, weight.transpose(1, 2).reshape(n_heads * d_head, d_model), bias.flatten())
    return flat.unflatten(-1, (n_heads, d_head)).transpose(1, 2)


def _norm(state: State, cfg: ModelConfig, name: str, x: Tensor) -> Tensor:
    if cfg.normalization_type is None:
        return x
    weight, bias = (state[f"{name}.w"], state[f"{name}.b"]) if cfg.normalization_type == "LN" else (None, None)
    return F.layer_norm(x, x.shape[-1:], weight, bias, cfg.eps)


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """x [batch, pos, d] at positions [batch, scored] -> [batch, scored, d]."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1]))
