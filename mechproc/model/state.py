"""The weights of a model as a dict of named tensors, in HookedTransformer's names and shapes.

A ``State`` needs no class around it: training, recipes, parts and files all work on the dict.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

from mechproc.config import canonical_json
from mechproc.errors import StoreError
from mechproc.model.config import ModelConfig

State = dict[str, torch.Tensor]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes that weights may have; all tensors of one state share one."""


def tensor_shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this config has, in the order of the forward pass."""
    d_head, d_mlp = cfg.d_head or 0, cfg.d_mlp or 0
    norm = cfg.normalization_type == "LN"  # LNPre has no weights
    shapes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (cfg.d_input or cfg.d_vocab, cfg.d_model),
        "pos_embed.W_pos": (cfg.n_ctx, cfg.d_model),
    }
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        if norm:
            shapes |= {f"{block}.ln1.w": (cfg.d_model,), f"{block}.ln1.b": (cfg.d_model,)}
        for name in "QKV":
            shapes[f"{block}.attn.W_{name}"] = (cfg.n_heads, cfg.d_model, d_head)
            shapes[f"{block}.attn.b_{name}"] = (cfg.n_heads, d_head)
        shapes[f"{block}.attn.W_O"] = (cfg.n_heads, d_head, cfg.d_model)
        shapes[f"{block}.attn.b_O"] = (cfg.d_model,)
        if d_mlp:
            if norm:
                shapes |= {f"{block}.ln2.w": (cfg.d_model,), f"{block}.ln2.b": (cfg.d_model,)}
            shapes |= {
                f"{block}.mlp.W_in": (cfg.d_model, d_mlp),
                f"{block}.mlp.b_in": (d_mlp,),
                f"{block}.mlp.W_out": (d_mlp, cfg.d_model),
                f"{block}.mlp.b_out": (cfg.d_model,),
            }
    if norm:
        shapes |= {"ln_final.w": (cfg.d_model,), "ln_final.b": (cfg.d_model,)}
    if not cfg.tied_embeddings:
        shapes["unembed.W_U"] = (cfg.d_model, cfg.d_vocab)
    if cfg.unembed_bias:
        shapes["unembed.b_U"] = (cfg.d_vocab,)
    return shapes


def init_state(cfg: ModelConfig, seed: int, stream: str = "") -> State:
    """GPT-2 initialisation, float32. Each tensor is a pure function of (seed, stream, its name, shape and deviation).

    ``stream`` names a source of random numbers of its own, so that models of one seed and different streams have
    nothing in common; a run's stream is its rule.

    Weights are normal with deviation ``init_std``; those that write into the residual stream (W_O, W_out) are divided
    by sqrt(2 n_layers) (Radford et al. 2019); biases are zero, LayerNorms the identity. The draws are numpy's, so they
    are the same for every version and device of torch.
    """
    state: State = {}
    for name, shape in tensor_shapes(cfg).items():
        last = name.rsplit(".", 1)[-1]
        if last == "w":
            state[name] = torch.ones(shape)
        elif not last.startswith("W_"):
            state[name] = torch.zeros(shape)
        else:
            std = cfg.init_std / math.sqrt(2 * cfg.n_layers) if last in ("W_O", "W_out") else cfg.init_std
            values = tensor_generator(seed, *filter(None, [stream]), name).normal(0.0, std, size=shape)
            state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def tensor_generator(seed: int, *names: str) -> np.random.Generator:
    """The source of random numbers that belongs to one named tensor (or one named use of it) under one seed."""
    entropy = int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def weights_digest(cfg: ModelConfig, state: State) -> str:
    """SHA-256 (hexadecimal) of a model: its config, and name, type, shape and numbers of every tensor."""
    digest = hashlib.sha256(canonical_json(cfg.identifying()).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_state(state: State, cfg: ModelConfig, source: str = "state") -> None:
    """Raise a ``StoreError`` unless ``state`` has exactly the tensors of ``cfg``, in their shapes and one dtype."""
    shapes = tensor_shapes(cfg)
    for name in shapes:
        if name not in state:
            raise StoreError(f"{source}: tensor {name} of shape {list(shapes[name])} is missing")
    for name, tensor in state.items():
        if name not in shapes:
            raise StoreError(f"{source}: tensor {name} does not belong to a model of this config")
        if tuple(tensor.shape) != shapes[name]:
            raise StoreError(
                f"{source}: tensor {name} has shape {list(tensor.shape)}, the config asks for {list(shapes[name])}"
            )
    dtype_of(state, source)


def dtype_of(state: State, source: str = "state") -> torch.dtype:
    """The dtype of the weights; raises a ``StoreError`` unless all have the same floating-point dtype."""
    dtype = next(iter(state.values())).dtype
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES or tensor.dtype != dtype:
            allowed = " or ".join(str(d).removeprefix("torch.") for d in DTYPES)
            raise StoreError(f"{source}: tensor {name} is {tensor.dtype}; all must have one dtype: {allowed}")
    return dtype


def n_parameters(cfg: ModelConfig) -> int:
    """How many numbers a model of this config has."""
    return sum(math.prod(shape) for shape in tensor_shapes(cfg).values())
