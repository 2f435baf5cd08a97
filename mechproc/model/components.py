"""What a HookedTransformer is made of: hook names, shapes and their order are those of TransformerLens's class.

No weight is created here. ``HookedTransformer`` gives each module the tensors of a ``State`` under the names that the
annotations announce, so that the names and shapes of ``mechproc.model.state`` are the only ones.
"""

# ruff: noqa: N802, N815  the names are the field's

from __future__ import annotations

import math
from typing import Any

import einops
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import FactoredMatrix

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import ACTIVATIONS, at_least_float32
from mechproc.model.hooks import HookPoint


class HookedConfig(ModelConfig):
    """The model's ``ModelConfig``, equal to it, with what transformer_lens reads in a ``cfg`` besides.

    The settings stay frozen; the switches are set through ``HookedTransformer.set_use_*``; ``device`` and ``dtype``
    follow the model's tensors.
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    use_attn_result: bool = False
    use_attn_in: bool = False
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    n_key_value_heads = None
    positional_embedding_type = "standard"
    attention_dir = "causal"

    @property
    def d_vocab_out(self) -> int:
        """Output logits."""
        return self.d_vocab

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in HookedConfig.__annotations__:
            raise ConfigError(f"cfg.{name} cannot be set in a model: only {', '.join(HookedConfig.__annotations__)}")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelConfig) and self.to_dict() == other.to_dict()

    __hash__ = ModelConfig.__hash__


class Embed(nn.Module):
    """Tokens [batch, pos] by look-up, or vectors [batch, pos, d_input] by a linear map, to [batch, pos, d_model]."""

    W_E: Tensor

    def forward(self, inputs: Tensor) -> Float[Tensor, "batch pos d_model"]:
        return inputs @ self.W_E if inputs.is_floating_point() else F.embedding(inputs, self.W_E)


class PosEmbed(nn.Module):
    """The learned embeddings of the first positions, once for each item: [batch, pos, d_model]."""

    W_pos: Tensor

    def forward(self, inputs: Tensor) -> Float[Tensor, "batch pos d_model"]:
        batch, n_pos = inputs.shape[:2]
        return einops.repeat(self.W_pos[:n_pos], "pos d_model -> batch pos d_model", batch=batch)


class LayerNormPre(nn.Module):
    """LayerNorm over the last axis without weight and bias, (x - mean) / scale: they are folded into what reads it.

    ``hook_scale`` is sqrt(variance + eps), with a last axis of 1. ``hook_normalized`` is (x - mean) / scale, in
    ``LayerNorm`` too: before its weight and bias, as in TransformerLens since 3.0 (in 2.x it was after them). Both are
    computed in float32 for a model in half precision, whose squares would overflow (float16 ends at 65,504).
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos *head d_model"]) -> Float[Tensor, "batch pos *head d_model"]:
        return self._normalized(x).to(x.dtype)

    def _normalized(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.square().mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(centred / scale)


class LayerNorm(LayerNormPre):
    """LayerNorm over the last axis with weight and bias, (x - mean) / scale * w + b; hooks as in ``LayerNormPre``."""

    w: Tensor
    b: Tensor

    def forward(self, x: Float[Tensor, "batch pos *head d_model"]) -> Float[Tensor, "batch pos *head d_model"]:
        return (self._normalized(x) * self.w + self.b).to(x.dtype)


class Attention(nn.Module):
    """Causal attention; queries, keys and values read inputs of their own, with or without a head axis."""

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor

    def __init__(self, cfg: HookedConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        self.hook_result = HookPoint()

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T, [head, d_model, d_model]."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O, [head, d_model, d_model]."""
        return FactoredMatrix(self.W_V, self.W_O)

    def forward(
        self,
        query_input: Float[Tensor, "batch pos *head d_model"],
        key_input: Float[Tensor, "batch pos *head d_model"],
        value_input: Float[Tensor, "batch pos *head d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        q = self.hook_q(_by_head(query_input, self.W_Q) + self.b_Q)
        k = self.hook_k(_by_head(key_input, self.W_K) + self.b_K)
        v = self.hook_v(_by_head(value_input, self.W_V) + self.b_V)
        pattern = self.hook_pattern(self._softmax(self.hook_attn_scores(self._scores(q, k))))
        z = self.hook_z(
            einops.einsum(pattern, v, "batch head query key, batch key head d_head -> batch query head d_head")
        )
        if not self.cfg.use_attn_result:
            out = einops.einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model")
            return out + self.b_O
        result = einops.einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model")
        return self.hook_result(result).sum(2) + self.b_O

    def _scores(self, q: Tensor, k: Tensor) -> Float[Tensor, "batch head query key"]:
        """q k^T / sqrt(d_head), -inf where the key comes after the query."""
        q = q / math.sqrt(q.shape[-1])
        scores = einops.einsum(q, k, "batch query head d_head, batch key head d_head -> batch head query key")
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(future, -torch.inf)

    def _softmax(self, scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Over keys. A query whose every key a hook set to -inf attends to nothing, and its gradient stays finite."""
        blocked = scores.detach().amax(-1, keepdim=True) == -torch.inf
        return scores.masked_fill(blocked, 0.0).softmax(-1).masked_fill(blocked, 0.0)


class MLP(nn.Module):
    """One hidden layer; ``hook_pre`` and ``hook_post`` lie before and after the activation, [batch, pos, d_mlp]."""

    W_in: Tensor
    b_in: Tensor
    W_out: Tensor
    b_out: Tensor

    def __init__(self, cfg: HookedConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        hidden = self.hook_post(ACTIVATIONS[self.cfg.act_fn](self.hook_pre(x @ self.W_in + self.b_in)))
        return hidden @ self.W_out + self.b_out


class Block(nn.Module):
    """One layer. Without MLPs it has no ``mlp``, no ``ln2``, and no hooks that belong to them."""

    hook_out_is_single_residual_stream = True
    """What TransformerLens's logit lens asks for: the output is the residual stream [batch, pos, d_model]."""

    def __init__(self, cfg: HookedConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.hook_resid_pre = HookPoint()
        self.hook_attn_in = HookPoint()
        self.hook_q_input = HookPoint()
        self.hook_k_input = HookPoint()
        self.hook_v_input = HookPoint()
        self.ln1 = norm(cfg)
        self.attn = Attention(cfg)
        self.hook_attn_out = HookPoint()
        if not cfg.attn_only:
            self.hook_resid_mid = HookPoint()
            self.hook_mlp_in = HookPoint()
            self.ln2 = norm(cfg)
            self.mlp = MLP(cfg)
            self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        residual = self.hook_resid_pre(residual)
        residual = residual + self.hook_attn_out(self.attn(*self._attention_inputs(residual)))
        if self.cfg.attn_only:
            return self.hook_resid_post(residual)
        residual = self.hook_resid_mid(residual)
        mlp_in = self.hook_mlp_in(residual) if self.cfg.use_hook_mlp_in else residual
        return self.hook_resid_post(residual + self.hook_mlp_out(self.mlp(self.ln2(mlp_in))))

    def _attention_inputs(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised inputs of queries, keys and values.

        With split inputs the three differ, and ``ln1`` (and its hooks) run three times, in that order.
        """
        if self.cfg.use_attn_in or self.cfg.use_split_qkv_input:
            heads = self.cfg.n_heads
            residual = einops.repeat(residual, "batch pos d_model -> batch pos head d_model", head=heads)
        if self.cfg.use_attn_in:
            residual = self.hook_attn_in(residual)
        if not self.cfg.use_split_qkv_input:
            x = self.ln1(residual)
            return x, x, x
        query_input = self.ln1(self.hook_q_input(residual))
        key_input = self.ln1(self.hook_k_input(residual))
        return query_input, key_input, self.ln1(self.hook_v_input(residual))


class Unembed(nn.Module):
    """Residual stream to logits."""

    W_U: Tensor
    b_U: Tensor

    def __init__(self, cfg: HookedConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_vocab"]:
        logits = residual @ self.W_U
        return logits + self.b_U if self.cfg.unembed_bias else logits


class TiedUnembed(Unembed):
    """The unembedding by the transposed token embedding; it has no ``W_U`` of its own."""

    def __init__(self, cfg: HookedConfig, embed: Embed) -> None:
        super().__init__(cfg)
        self._embed = (embed,)  # in a tuple, so that W_E is not registered a second time

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """A view of ``embed.W_E``."""
        return self._embed[0].W_E.T


def norm(cfg: HookedConfig) -> nn.Module:
    """The LayerNorm of this config, or nothing in a model without."""
    if cfg.normalization_type is None:
        return nn.Identity()
    return LayerNorm(cfg.eps) if cfg.normalization_type == "LN" else LayerNormPre(cfg.eps)


def _by_head(x: Tensor, weight: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "batch pos head d_head"]:
    """x [batch, pos, d_model], or [batch, pos, head, d_model] with an input for each head."""
    if x.ndim == 4:
        return einops.einsum(x, weight, "batch pos head d_model, head d_model d_head -> batch pos head d_head")
    return einops.einsum(x, weight, "batch pos d_model, head d_model d_head -> batch pos head d_head")
