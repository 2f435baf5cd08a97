"""TransformerLens 4's own model, the ``TransformerBridge``, both ways, with equal logits.

What one side cannot hold is refused. Three properties of a bridge: its ``b_U`` is a buffer, which no optimiser trains;
``bridge.W_Q`` is a copy, so writes to it are lost; its state dict has names of its own, and ``tl_parameters()`` returns
the weights under the names used here.
"""

from __future__ import annotations

from typing import Any

import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from mechproc.errors import StoreError, require
from mechproc.model.config import ModelConfig
from mechproc.model.convert.hooked_transformer import KNOWN, from_hooked_transformer, to_hooked_transformer
from mechproc.model.forward import forward
from mechproc.model.state import State

COMPARED = (4, 64)
"""Items, and most positions, on which a bridge and what was read from it are compared."""
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""Share of the largest logit, 1e-4 for other dtypes: a bridge computes some LayerNorms in float32. Rounding stays far
below it."""


def to_bridge(cfg: ModelConfig, state: State) -> TransformerBridge:
    """A native bridge with copies of these weights, in their dtype and on their device, in evaluation mode.

    Raises ``ConfigError`` for what a bridge cannot hold: vector inputs, and tied embeddings, as it keeps two tensors.
    """
    tied = "False, as a bridge keeps two tensors: convert.folding.untied makes them two"
    require(not cfg.tied_embeddings, "tied_embeddings", True, tied)
    settings, tensors = to_hooked_transformer(cfg, state)
    weight = state["embed.W_E"]
    theirs = TransformerBridgeConfig(**settings, init_weights=False)
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights from the global generator
        boot: Any = TransformerBridge.boot_native  # pyright: ignore[reportAttributeAccessIssue]  set on it at import
        bridge = boot(theirs, device=weight.device, dtype=weight.dtype)
    bridge.load_state_dict(convert_tl_checkpoint(tensors, theirs))
    return bridge.eval()


def from_bridge(bridge: TransformerBridge) -> tuple[ModelConfig, State]:
    """Our config and copies of the weights of a bridge, native or around a GPT-2 of ``transformers``.

    The logits of both are compared on a few random tokens. Raises ``ConfigError`` for settings that our models cannot
    follow, ``StoreError`` for tensors that do not fit or logits that differ.
    """
    require(isinstance(bridge, TransformerBridge), "bridge", type(bridge).__name__, "a TransformerBridge")
    cfg, state = from_hooked_transformer(_parameters(bridge), _settings(bridge.cfg), "bridge")
    _compare(bridge, cfg, state)
    return cfg, state


def _settings(theirs: Any) -> dict[str, Any]:
    """What a bridge's config says in HookedTransformer's spelling.

    Bridges around other libraries' models carry settings of those libraries too. These are left out here; an effect
    that they have shows when the logits are compared.
    """
    plain = {name: value for name, value in theirs.to_dict().items() if name in KNOWN}
    plain["act_fn"] = (plain.get("act_fn") or "gelu").lower()
    norm = plain.get("normalization_type")
    plain["normalization_type"] = norm and {"LN": "LN", "LNPRE": "LNPre"}.get(norm.upper(), norm)
    return plain


def _parameters(bridge: TransformerBridge) -> dict[str, torch.Tensor]:
    """Its weights under our names, less the MLP weights that ``tl_parameters`` adds to a model without MLPs."""
    tensors = bridge.tl_parameters()
    if bridge.cfg.attn_only:
        tensors = {name: tensor for name, tensor in tensors.items() if ".mlp." not in name}
    return tensors


@torch.no_grad()
def _compare(bridge: TransformerBridge, cfg: ModelConfig, state: State) -> None:
    generator = torch.Generator().manual_seed(0)
    n_items, n_pos = COMPARED
    tokens = torch.randint(cfg.d_vocab, (n_items, min(n_pos, cfg.n_ctx)), generator=generator)
    tokens = tokens.to(state["embed.W_E"].device)
    theirs, ours = bridge(tokens), forward(state, cfg, tokens)
    gap = (theirs - ours).abs().max().item()
    if not gap <= TOLERANCE.get(ours.dtype, 1e-4) * ours.abs().max().item():
        raise StoreError(
            f"bridge: its logits differ from those of the weights read from it, by up to {gap:.2g}; "
            "hooks left on it, training mode, processed weights or a setting unknown here can do that"
        )
