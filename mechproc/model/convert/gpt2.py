"""GPT-2 models of ``transformers``, both ways, with equal logits.

What the other side cannot hold is refused, never dropped. Reading a folder needs neither ``transformers`` nor code from
the folder: it is JSON and named tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import einops
import torch

from mechproc.errors import ConfigError, StoreError, require
from mechproc.files import check_new_folder, read_json
from mechproc.model.config import ModelConfig
from mechproc.model.convert.folder import (
    CONFIG_FILE,
    read_foreign_tensors,
    weights_of,
    without_wrappers,
    write_foreign,
)
from mechproc.model.state import State, check_state, dtype_of, tensor_shapes

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2LMHeadModel

SETTINGS = {
    "n_layers": "n_layer",
    "n_heads": "n_head",
    "d_model": "n_embd",
    "n_ctx": "n_positions",
    "d_vocab": "vocab_size",
    "d_mlp": "n_inner",
    "act_fn": "activation_function",
    "eps": "layer_norm_epsilon",
    "tied_embeddings": "tie_word_embeddings",
    "init_std": "initializer_range",
}
"""Our settings that GPT-2 has too, by their names there."""
DEFAULTS = {
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
"""What GPT-2 takes where a config says nothing."""
REQUIRED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "is_causal": True,
}
"""Settings of GPT-2 that change its function, and the only value our models can follow."""
TENSORS = {
    "ln1.w": "ln_1.weight",
    "ln1.b": "ln_1.bias",
    "attn.b_O": "attn.c_proj.bias",
    "ln2.w": "ln_2.weight",
    "ln2.b": "ln_2.bias",
    "mlp.W_in": "mlp.c_fc.weight",
    "mlp.b_in": "mlp.c_fc.bias",
    "mlp.W_out": "mlp.c_proj.weight",
    "mlp.b_out": "mlp.c_proj.bias",
}
"""Tensors of a layer that are the same in both, by their names in ours and in GPT-2."""
TOP_TENSORS = {
    "embed.W_E": "wte.weight",
    "pos_embed.W_pos": "wpe.weight",
    "ln_final.w": "ln_f.weight",
    "ln_final.b": "ln_f.bias",
}


def from_gpt2(model: Any) -> tuple[ModelConfig, State]:
    """The config and weights of a ``transformers`` GPT-2 language model, in its dtype; the weights are copies.

    Dropout, which acts in training only, is not converted: a ``ModelConfig`` has none. Raises ``ConfigError`` for
    settings that our models cannot follow, ``StoreError`` for tensors that do not fit.
    """
    cfg = config_from(model.config.to_dict())
    return cfg, state_from(model.state_dict(), cfg, type(model).__name__)


def to_gpt2(cfg: ModelConfig, state: State) -> GPT2LMHeadModel:
    """A ``transformers`` GPT-2 with these weights, in their dtype, without dropout, in evaluation mode.

    Raises ``ConfigError`` for what GPT-2 cannot hold: no LayerNorm, no MLPs, vector inputs, a bias of the logits, heads
    that do not add up to d_model.
    """
    from transformers import GPT2LMHeadModel

    config = _gpt2_config(cfg)
    check_state(state, cfg)
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights from the global generator
        model = GPT2LMHeadModel(config)
    model.to(state["embed.W_E"].dtype)  # pyright: ignore[reportArgumentType]
    tensors = _tensors_from(state, cfg)
    model.load_state_dict({"lm_head.weight": tensors["transformer.wte.weight"]} | tensors)
    return model.eval()


def load_gpt2(path: str | Path, allow_pickle: bool = False) -> tuple[ModelConfig, State]:
    """Read ``config.json`` and ``model.safetensors`` of a GPT-2 folder as ``transformers`` writes it, shards included.

    The weights keep their dtype. ``pytorch_model.bin`` is read only with ``allow_pickle``, and then as plain tensors
    (``weights_only``). Raises ``StoreError`` for files that are missing or broken, ``ConfigError`` for settings that
    our models cannot follow.
    """
    folder = Path(path)
    cfg = config_from(read_json(folder / CONFIG_FILE))
    weights = weights_of(folder)
    return cfg, state_from(read_foreign_tensors(weights, allow_pickle), cfg, str(weights))


def save_gpt2(path: str | Path, cfg: ModelConfig, state: State) -> None:
    """Write a folder that ``GPT2LMHeadModel.from_pretrained`` and ``load_gpt2`` read, whole or not at all.

    Raises ``StoreError`` when the folder exists and is not empty, ``ConfigError`` as ``to_gpt2``.
    """
    check_new_folder(Path(path))  # before transformers is imported
    config = _gpt2_config(cfg)
    check_state(state, cfg)
    config.architectures, config.dtype = ["GPT2LMHeadModel"], state["embed.W_E"].dtype
    write_foreign(path, json.loads(config.to_json_string()), _tensors_from(state, cfg))


def config_from(plain: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """Our config for GPT-2's; ``where`` names it in messages. Raises ``ConfigError`` as ``from_gpt2``."""
    plain = DEFAULTS | plain
    for field, only in REQUIRED.items():
        require(plain.get(field, only) == only, field, plain.get(field), f"{only!r} is all our models can follow")
    missing = [theirs for theirs in SETTINGS.values() if theirs not in plain]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    activation = plain["activation_function"]
    require(activation in ("gelu_new", "gelu", "relu"), "activation_function", activation, "gelu_new, gelu or relu")
    require(plain["n_inner"] != 0, "n_inner", 0, "at least 1, or None for 4 n_embd")
    return ModelConfig.from_dict({ours: plain[theirs] for ours, theirs in SETTINGS.items()}, where)


def _gpt2_config(cfg: ModelConfig) -> GPT2Config:
    from transformers import GPT2Config

    require(cfg.input == "tokens", "input", cfg.input, "'tokens', as GPT-2 reads nothing else")
    require(
        cfg.normalization_type == "LN",
        "normalization_type",
        cfg.normalization_type,
        "'LN', as in GPT-2 (convert.folding.unfold_ln)",
    )
    require(not cfg.attn_only, "d_mlp", cfg.d_mlp, "at least 1, as GPT-2 has MLPs")
    require(not cfg.unembed_bias, "unembed_bias", True, "False, as GPT-2 has no bias there")
    require(cfg.n_heads * (cfg.d_head or 0) == cfg.d_model, "d_head", cfg.d_head, "d_model / n_heads, as in GPT-2")
    settings = {theirs: getattr(cfg, ours) for ours, theirs in SETTINGS.items()}
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2Config(**settings, **no_dropout, bos_token_id=None, eos_token_id=None)


def _tensors_from(state: State, cfg: ModelConfig) -> dict[str, torch.Tensor]:
    """Our weights in GPT-2's names and shapes; ``lm_head.weight`` only when it is a tensor of its own."""
    tensors = {f"transformer.{theirs}": state[ours] for ours, theirs in TOP_TENSORS.items()}
    for layer in range(cfg.n_layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        tensors |= {f"{theirs}.{name}": state[f"{ours}.{own}"] for own, name in TENSORS.items()}
        weights = torch.stack([state[f"{ours}.attn.W_{x}"] for x in "QKV"])
        biases = torch.stack([state[f"{ours}.attn.b_{x}"] for x in "QKV"])
        tensors[f"{theirs}.attn.c_attn.weight"] = einops.rearrange(
            weights, "x head d_in d_head -> d_in (x head d_head)"
        )
        tensors[f"{theirs}.attn.c_attn.bias"] = biases.flatten()
        tensors[f"{theirs}.attn.c_proj.weight"] = state[f"{ours}.attn.W_O"].flatten(0, 1)
    if not cfg.tied_embeddings:
        tensors["lm_head.weight"] = state["unembed.W_U"].T
    return tensors


def state_from(tensors: dict[str, torch.Tensor], cfg: ModelConfig, source: str) -> State:
    """The inverse of ``_tensors_from``, for what a file holds: names, shapes and ties are checked first."""
    # The oldest checkpoints lack the prefix and hold their causal masks.
    masks = (".attn.bias", ".attn.masked_bias")
    named: dict[str, torch.Tensor] = {}
    for name, tensor in without_wrappers(tensors).items():
        short = name.removeprefix("transformer.")
        if short in named:
            raise StoreError(f"{source}: has {short} twice, with and without the prefix 'transformer.'")
        if not name.endswith(masks):
            named[short] = tensor
    layers = {n.split(".")[1] for n in named if n.startswith("h.")}
    if len(layers) != cfg.n_layers:  # before names are generated for a number that was read from a file
        raise StoreError(f"{source}: has {len(layers)} layers, n_layer = {cfg.n_layers}")
    if cfg.tied_embeddings and "lm_head.weight" in named:
        tied = torch.equal(named.pop("lm_head.weight"), named.get("wte.weight", torch.empty(0)))
        require(tied, "tie_word_embeddings", True, f"False, as lm_head.weight differs from wte.weight in {source}")
    for name, sizes in {"wte.weight": (cfg.d_vocab, cfg.d_model), "wpe.weight": (cfg.n_ctx, cfg.d_model)}.items():
        shape = tuple(named[name].shape) if name in named else "missing"
        if shape != sizes:  # before shapes are computed from numbers that were read from a file
            raise StoreError(f"{source}: tensor {name} is {shape}, the config asks for {sizes}")
    shapes = {name: torch.empty(shape, device="meta") for name, shape in tensor_shapes(cfg).items()}
    expected = {n.removeprefix("transformer."): tuple(t.shape) for n, t in _tensors_from(shapes, cfg).items()}
    for name in sorted(expected.keys() | named.keys()):
        shape = tuple(named[name].shape) if name in named else "missing"
        if shape != expected.get(name):
            raise StoreError(f"{source}: tensor {name} is {shape}, the config asks for {expected.get(name, 'none')}")
    state = {ours: named[theirs] for ours, theirs in TOP_TENSORS.items()}
    for layer in range(cfg.n_layers):
        ours, theirs = f"blocks.{layer}", f"h.{layer}"
        state |= {f"{ours}.{own}": named[f"{theirs}.{name}"] for own, name in TENSORS.items()}
        by_head = {"x": 3, "head": cfg.n_heads}
        weights = einops.rearrange(
            named[f"{theirs}.attn.c_attn.weight"], "d_in (x head d_head) -> x head d_in d_head", **by_head
        )
        biases = einops.rearrange(named[f"{theirs}.attn.c_attn.bias"], "(x head d_head) -> x head d_head", **by_head)
        for x, weight, bias in zip("QKV", weights, biases, strict=True):
            state |= {f"{ours}.attn.W_{x}": weight, f"{ours}.attn.b_{x}": bias}
        state[f"{ours}.attn.W_O"] = named[f"{theirs}.attn.c_proj.weight"].unflatten(0, (cfg.n_heads, -1))
    if not cfg.tied_embeddings:
        state["unembed.W_U"] = named["lm_head.weight"].T
    dtype_of(state, source)
    # In the order and layout of every other state.
    return {name: state[name].detach().clone(memory_format=torch.contiguous_format) for name in tensor_shapes(cfg)}
