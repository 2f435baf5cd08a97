"""A model worked out by hand: one head copies the token before, the other does nothing.

One layer, no LayerNorm, no MLP. The residual stream has three parts: which token this is, which position this is, and
what to predict. Head ``previous`` looks from position p to p - 1 (position 0 to itself) and writes the token found
there into the third part, ``LOGIT`` strong; the unembedding reads the third part alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import State, tensor_shapes
from mechproc.procedures.base import Items

D_VOCAB, N_CTX, N_HEADS = 5, 6, 2
LOGIT = 6.0
SHARP = 60.0


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def planted(previous: int = 0, seed: int = 0) -> HookedTransformer:
    """The model, with the copying head at index ``previous``; ``seed`` decides where the idle head looks."""
    d_model, d_head = 2 * D_VOCAB + N_CTX, N_CTX
    cfg = ModelConfig(
        n_layers=1, n_heads=N_HEADS, d_model=d_model, d_head=d_head, n_ctx=N_CTX, d_vocab=D_VOCAB, d_mlp=0,
        normalization_type=None,
    )  # fmt: skip
    state: State = {name: torch.zeros(shape) for name, shape in tensor_shapes(cfg).items()}
    token, position, prediction = slice(0, D_VOCAB), slice(D_VOCAB, D_VOCAB + N_CTX), slice(D_VOCAB + N_CTX, None)
    state["embed.W_E"][:, token] = torch.eye(D_VOCAB)
    state["pos_embed.W_pos"][:, position] = torch.eye(N_CTX)
    state["blocks.0.attn.W_Q"][previous, position] = SHARP * torch.eye(N_CTX)
    shift = torch.eye(N_CTX).roll(1, dims=1)  # the key of position p answers the query of p + 1 ...
    shift[-1] = 0.0  # ... the last one nobody's
    state["blocks.0.attn.W_K"][previous, position] = shift
    state["blocks.0.attn.W_V"][previous, token, :D_VOCAB] = torch.eye(D_VOCAB)
    state["blocks.0.attn.W_O"][previous, :D_VOCAB, prediction] = LOGIT * torch.eye(D_VOCAB)
    state["unembed.W_U"][prediction] = torch.eye(D_VOCAB)
    idle = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, d_model, d_head)).astype(np.float32))
    state["blocks.0.attn.W_Q"][1 - previous], state["blocks.0.attn.W_K"][1 - previous] = idle
    return HookedTransformer(cfg, state)


def alternating(*items: tuple[int, int, int]) -> Items:
    """Items ``a b a b ...`` of a given length, from (a, b, length); scored from position 1 on, where the next token is
    the one before."""
    tokens = np.zeros((len(items), N_CTX), dtype=np.int64)
    scored = np.zeros((len(items), N_CTX), dtype=bool)
    for i, (a, b, n) in enumerate(items):
        tokens[i, :n] = [a, b, a, b, a, b][:n]
        scored[i, 1 : n - 1] = True
    return Items(tokens, np.array([n for _, _, n in items]), scored, {})


def previous_mask(block: Items) -> np.ndarray:
    """From every position but the first of each item to the position before."""
    n_items, n_pos = block.tokens.shape
    query, key = np.arange(n_pos)[:, None], np.arange(n_pos)
    inside = (query < block.n_tokens[:, None, None]) & (query >= 1)
    return inside & (key == query - 1) & np.ones((n_items, 1, 1), dtype=bool)
