"""Checkpoints of nanoGPT (github.com/karpathy/nanoGPT), read as the GPT-2 that they are.

``train.py`` saves ``{"model": state dict, "model_args": settings, ...}``. Names are GPT-2's; four matrices of a layer
are those of ``nn.Linear``, [out, in], where GPT-2 of ``transformers`` has [in, out]; with ``bias=False`` there are no
biases, which become zeros here. The activation is ``nn.GELU()``; early versions of nanoGPT used GPT-2's approximation
of it, which a checkpoint does not record.
"""

from __future__ import annotations

from typing import Any

import torch

from mechproc.errors import ConfigError, StoreError
from mechproc.model.config import ModelConfig
from mechproc.model.convert.folder import without_wrappers
from mechproc.model.convert.gpt2 import config_from, state_from
from mechproc.model.state import State

SETTINGS = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "vocab_size": "vocab_size"}
SETTINGS |= {"block_size": "n_positions"}
"""Settings of nanoGPT's ``model_args``, by their names in GPT-2's config."""
WITHOUT_EFFECT = {"dropout", "bias"}
"""Dropout acts in training only; whether there are biases follows from the tensors."""
LINEAR = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
WITH_BIAS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
"""Modules of a layer that have a bias in GPT-2."""


def is_nanogpt(content: Any) -> bool:
    """Whether what a file holds is a checkpoint of nanoGPT's ``train.py``."""
    return isinstance(content, dict) and {"model", "model_args"} <= content.keys()


def from_nanogpt(checkpoint: dict[str, Any], source: str = "checkpoint") -> tuple[ModelConfig, State]:
    """Our config and weights for what ``torch.load("ckpt.pt")`` gives, in their dtype; equal logits.

    Raises ``ConfigError`` for settings that are missing or unknown, ``StoreError`` for tensors that do not fit.
    """
    settings, saved = checkpoint["model_args"], checkpoint["model"]
    if not isinstance(settings, dict) or not isinstance(saved, dict):
        raise StoreError(f"{source}: model_args and model are not tables of settings and of tensors")
    for name in settings:
        if name not in SETTINGS and name not in WITHOUT_EFFECT:
            raise ConfigError(f"model_args.{name} is not a setting of nanoGPT that is known here")
    plain = {theirs: settings[name] for name, theirs in SETTINGS.items() if name in settings}
    tensors = {name.removeprefix("transformer."): t for name, t in without_wrappers(saved).items()}
    if "wte.weight" not in tensors:
        raise StoreError(f"{source}: tensor transformer.wte.weight is missing")
    tied = torch.equal(tensors.get("lm_head.weight", tensors["wte.weight"]), tensors["wte.weight"])
    cfg = config_from(plain | {"activation_function": "gelu", "tie_word_embeddings": tied}, "model_args")
    for name, tensor in list(tensors.items()):
        if name.endswith(LINEAR):
            tensors[name] = tensor.T
    modules = [f"h.{layer}.{module}" for layer in range(cfg.n_layers) for module in WITH_BIAS]
    for module in [*modules, "ln_f"]:
        weight = tensors.get(f"{module}.weight")
        if weight is not None and f"{module}.bias" not in tensors:
            tensors[f"{module}.bias"] = weight.new_zeros(weight.shape[-1])
    return cfg, state_from(tensors, cfg, source)
