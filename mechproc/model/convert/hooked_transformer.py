"""Weights and settings in the names of TransformerLens's HookedTransformer (3.x and before), both ways, equal logits.

Our weights have its names and shapes, so this is about what surrounds them: folded LayerNorms, buffers, a bias that is
always there, and settings our models cannot follow, each of which is refused. Nothing here imports transformer_lens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mechproc.config import nearest
from mechproc.errors import ConfigError, StoreError, require
from mechproc.files import read_json
from mechproc.model.config import ModelConfig
from mechproc.model.convert.folder import (
    CONFIG_FILE,
    read_foreign_tensors,
    weights_of,
    without_wrappers,
    write_foreign,
)
from mechproc.model.state import State, check_state, dtype_of, tensor_shapes

SHAPE = ("n_layers", "n_heads", "d_model", "n_ctx", "d_vocab", "d_head", "d_mlp", "act_fn", "normalization_type", "eps")
"""Settings with one name and one meaning in both."""
REQUIRED: dict[str, Any] = {
    "positional_embedding_type": "standard",
    "attention_dir": "causal",
    "gated_mlp": False,
    "parallel_attn_mlp": False,
    "final_rms": False,
    "uses_rms_norm": False,
    "post_embedding_ln": False,
    "use_normalization_before_and_after": False,
    "rmsnorm_uses_offset": False,
    "use_attn_scale": True,
    "scale_attn_by_inverse_layer_idx": False,
    "use_local_attn": False,
    "use_qk_norm": False,
    "use_logn_attn": False,
    "use_attention_sinks": False,
    "clip_qkv": None,
    "num_experts": None,
    "scale_embedding": None,
    "load_in_4bit": False,
    "quantization_method": None,
    "per_layer_head_dim": None,
    "per_layer_num_key_value_heads": None,
    "is_audio_model": False,
    "is_visual_model": False,
    "is_stateful": False,
    "is_multimodal": False,
}
"""Settings that change a model's function, and the only value our models can follow."""
SPECIAL = {
    *("attn_only", "attn_scale", "d_vocab_out", "n_key_value_heads", "attn_scores_soft_cap", "output_logits_soft_cap"),
    *("tie_word_embeddings", "init_mode", "initializer_range"),
}
WITHOUT_EFFECT = {
    # what is computed, kept or drawn besides the logits, and where
    *("device", "n_devices", "dtype", "seed", "init_weights", "n_params", "attn_implementation", "use_attn_result"),
    *("use_attn_in", "use_split_qkv_input", "use_hook_mlp_in", "use_hook_tokens", "split_attention_weights"),
    # where the weights and the tokens come from
    *("model_name", "architecture", "original_architecture", "from_checkpoint", "checkpoint_index", "checkpoint_value"),
    *("checkpoint_label_type", "trust_remote_code", "layer_norm_folding", "tokenizer_name", "default_prepend_bos"),
    *("tokenizer_prepends_bos", "tokenizer_appends_eos", "default_padding_side", "decoder_start_token_id"),
    *("bos_token_id", "eos_token_id"),
    # details of what REQUIRED refuses: rotary and relative positions, local attention, grouped heads, experts, images
    *("rotary_dim", "rotary_base", "rotary_base_local", "rotary_scaling_factor", "rotary_adjacent_pairs"),
    *("rotary_interleaved_cos_sin", "qk_norm_after_rope", "use_dynamic_ntk_rope", "use_NTK_by_parts_rope"),
    *("NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_by_parts_factor", "NTK_original_ctx_len"),
    *("use_yarn_rope", "yarn_factor", "yarn_attention_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_truncate"),
    *("yarn_original_max_position_embeddings", "yarn_global_attn_only", "train_seq_length", "window_size"),
    *("relative_attention_max_distance", "relative_attention_num_buckets", "attn_types", "experts_per_token"),
    *("norm_topk_prob", "ungroup_grouped_query_attention", "vision_hidden_size", "vision_num_layers"),
    *("vision_num_heads", "mm_tokens_per_image"),
}
OTHER_NAMES = "a GPT-2 of transformers is a folder with config.json, a nanoGPT a checkpoint with model and model_args"
"""What else a state dict may be, for messages."""
WRITE_SETTINGS = 'json.dump(model.cfg.to_dict(), open("model.json", "w"), default=str)'
"""What writes the settings of a HookedTransformer, ``default=str`` for those that JSON cannot hold."""
KNOWN = {*SHAPE, *REQUIRED, *SPECIAL, *WITHOUT_EFFECT}
"""Every setting of HookedTransformerConfig 3.9 and of TransformerBridgeConfig 4.3."""


def from_hooked_transformer(
    state_dict: Mapping[str, torch.Tensor], cfg: Any, source: str = "state_dict"
) -> tuple[ModelConfig, State]:
    """Our config and weights for a ``HookedTransformer.state_dict()`` and its ``cfg`` (or a mapping of its settings).

    The weights are copies in their dtype. A ``b_U`` other than zero becomes ``unembed_bias``; embeddings count as tied
    when ``tie_word_embeddings`` says so and the two tensors are equal. ``source`` names the state dict in messages.
    Raises ``ConfigError`` for settings that are unknown or that our models cannot follow, ``StoreError`` for tensors
    that do not fit.
    """
    ours = _shape_from(cfg if isinstance(cfg, Mapping) else cfg.to_dict())
    state = without_wrappers(dict(state_dict))
    if state and not any(name.startswith(("embed.", "pos_embed.", "blocks.")) for name in state):
        raise StoreError(f"{source}: {next(iter(state))} is not a name of HookedTransformer's; {OTHER_NAMES}")
    for name in [name for name in state if name.endswith((".attn.mask", ".attn.IGNORE"))]:
        buffer = state.pop(name)
        if name.endswith(".mask") and buffer.numel() and not _is_causal(buffer):
            raise StoreError(f"{source}: {name} is not the causal mask")
    layers = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    if len(layers) != ours.n_layers:  # before names are generated for a number that was read from a file
        raise StoreError(f"{source}: has {len(layers)} layers, n_layers = {ours.n_layers}")
    if "unembed.b_U" in state and not state["unembed.b_U"].any():
        del state["unembed.b_U"]
    ours = ours.replace(unembed_bias="unembed.b_U" in state)
    if ours.tied_embeddings and "unembed.W_U" in state:
        if torch.equal(state["unembed.W_U"].T, state.get("embed.W_E", torch.empty(0))):
            del state["unembed.W_U"]
        else:  # HookedTransformer keeps two tensors, whatever the setting says
            ours = ours.replace(tied_embeddings=False)
    names = tensor_shapes(ours)
    has_ln = any(name.endswith(("ln1.w", "ln_final.w")) for name in state)
    if ours.normalization_type == "LN" and not has_ln:
        raise StoreError(f"{source}: has no LayerNorm weights; if they are folded, normalization_type is 'LNPre'")
    if ours.normalization_type == "LNPre" and has_ln:
        raise StoreError(f"{source}: has LayerNorm weights, which a model of normalization_type 'LNPre' does not have")
    check_state(state, ours, source)
    return ours, {name: state[name].detach().clone(memory_format=torch.contiguous_format) for name in names}


def to_hooked_transformer(cfg: ModelConfig, state: State) -> tuple[dict[str, Any], State]:
    """Settings for ``HookedTransformerConfig`` and a state dict; ``from_hooked_transformer`` is the inverse.

    The settings hold the ``dtype`` (a ``torch.dtype``), as HookedTransformer would otherwise round what it loads to
    float32. It loads the state dict with ``strict=False``, as its causal masks are left out. The tensors share memory
    with ``state``. ``W_U`` and ``b_U`` are always there, as in HookedTransformer, which keeps tied embeddings as two
    tensors and has no model without a bias: a ``b_U`` of zeros comes back as none. Raises ``ConfigError`` for vector
    inputs, which it does not have.
    """
    require(cfg.input == "tokens", "input", cfg.input, "'tokens', as HookedTransformer reads nothing else")
    check_state(state, cfg)
    settings: dict[str, Any] = {name: getattr(cfg, name) for name in SHAPE}
    settings |= {
        "d_mlp": cfg.d_mlp or 4 * cfg.d_model,
        "attn_only": cfg.attn_only,
        "tie_word_embeddings": cfg.tied_embeddings,
        "init_mode": "gpt2",
        "initializer_range": cfg.init_std,
        "dtype": dtype_of(state),
    }
    W_U = state["embed.W_E"].T if cfg.tied_embeddings else state["unembed.W_U"]
    return settings, {"unembed.b_U": W_U.new_zeros(cfg.d_vocab)} | state | {"unembed.W_U": W_U}


def load_hooked_transformer(
    path: str | Path, config: str | Path | None = None, allow_pickle: bool = False
) -> tuple[ModelConfig, State]:
    """Read a state dict from a file, or from ``model.safetensors`` of a folder, with its settings.

    The settings are JSON: ``config``, or the file's name with ``.json``, or ``config.json`` beside it. In
    TransformerLens 3.x and before, these lines write both, ``default=str`` for values such as ``torch.float32``::

        import json, torch
        torch.save(model.state_dict(), "model.pt")
        json.dump(model.cfg.to_dict(), open("model.json", "w"), default=str)

    A file of ``torch.save`` is read only with ``allow_pickle``, as plain tensors. Errors: those of
    ``from_hooked_transformer``, and ``StoreError`` for files that are missing or broken.
    """
    path = Path(path)
    path = weights_of(path) if path.is_dir() else path
    if not path.exists():
        raise StoreError(f"{path} does not exist")
    beside = [path.with_suffix(".json"), path.with_name(CONFIG_FILE)] if config is None else [Path(config)]
    settings_file = next((file for file in beside if file.exists()), None)
    if settings_file is None:
        missing = f"{' or '.join(map(str, beside))} does not exist"
        raise StoreError(f"{path}: its settings are missing ({missing}; write them by {WRITE_SETTINGS})")
    settings = read_json(settings_file)
    try:
        return from_hooked_transformer(read_foreign_tensors(path, allow_pickle), settings, str(path))
    except ConfigError as error:
        raise ConfigError(f"{settings_file}: {error}") from None


def save_hooked_transformer(path: str | Path, cfg: ModelConfig, state: State) -> None:
    """Write a new folder with both files, which ``load_hooked_transformer`` reads; whole, or not at all.

    A dtype other than float32 is among the settings by its name, such as ``"float64"``: HookedTransformerConfig wants
    ``getattr(torch, name)``, and raises an error for the name, so that the weights are not rounded without notice.
    Raises ``StoreError`` when the folder exists and is not empty, ``ConfigError`` as ``to_hooked_transformer``.
    """
    settings, tensors = to_hooked_transformer(cfg, state)
    dtype = settings.pop("dtype")
    if dtype != torch.float32:
        settings["dtype"] = str(dtype).removeprefix("torch.")
    write_foreign(path, settings, tensors)


def _shape_from(theirs: Mapping[str, Any]) -> ModelConfig:
    """Our config for their settings; ``tied_embeddings`` as the setting says."""
    for field in theirs:
        if field not in KNOWN:
            raise ConfigError(
                f"{field} is not a setting of HookedTransformer that is known here{nearest(field, KNOWN)}"
            )
    for field, only in REQUIRED.items():
        require(theirs.get(field, only) == only, field, theirs.get(field), f"{only!r} is all our models can follow")
    for field in ("attn_only", "tie_word_embeddings"):
        require(theirs.get(field) in (None, True, False), field, theirs.get(field), "true or false")
    for field in ("attn_scores_soft_cap", "output_logits_soft_cap"):
        require(_number(theirs, field) <= 0, field, theirs.get(field), "-1 (none) is all our models can follow")
    plain = {name: theirs[name] for name in SHAPE if name in theirs}
    if plain.get("n_heads") == -1 and _number(plain, "d_head") > 0:
        plain["n_heads"] = int(_number(plain, "d_model") // plain["d_head"])
    if theirs.get("attn_only", False):
        plain |= {"d_mlp": 0, "act_fn": plain.get("act_fn") or "gelu_new"}
    else:
        require(plain.get("act_fn") is not None, "act_fn", None, "given unless attn_only")
        require(plain.get("d_mlp") != 0, "d_mlp", 0, "at least 1 unless attn_only")
    norm = plain.get("normalization_type", "LN")
    require(norm in ("LN", "LNPre", None), "normalization_type", norm, "'LN', 'LNPre' (folded) or None")
    plain["normalization_type"] = norm
    if theirs.get("init_mode", "gpt2") == "gpt2" and _number(theirs, "initializer_range") > 0:
        plain["init_std"] = float(theirs["initializer_range"])
    plain["tied_embeddings"] = bool(theirs.get("tie_word_embeddings", False))
    cfg = ModelConfig.from_dict(plain, "config")
    scale, standard = _number(theirs, "attn_scale"), math.sqrt(cfg.d_head or 1)
    require(scale == -1 or math.isclose(scale, standard), "attn_scale", scale, f"-1 or sqrt(d_head) = {standard}")
    out = theirs.get("d_vocab_out", -1)
    require(out in (-1, cfg.d_vocab), "d_vocab_out", out, f"d_vocab = {cfg.d_vocab}, or -1 for the same")
    groups = theirs.get("n_key_value_heads")
    require(groups in (None, cfg.n_heads), "n_key_value_heads", groups, f"n_heads = {cfg.n_heads}, or None")
    return cfg


def _number(settings: Mapping[str, Any], field: str) -> float:
    """A number among the settings; -1, which stands for "not set" in all of them, where it is missing."""
    value = settings.get(field, -1)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    require(is_number, field, value, "a number, and finite")
    return value


def _is_causal(mask: torch.Tensor) -> bool:
    return mask.ndim == 2 and torch.equal(mask.bool(), torch.ones_like(mask, dtype=torch.bool).tril())
