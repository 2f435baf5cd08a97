"""HookedTransformer: a GPT-2-shaped model in which every activation can be read and edited.

Hook names, weight names and weight shapes are those of TransformerLens's class of that name (3.x and before), and its
``ActivationCache`` and ``patching`` work on it. One thing is stricter: a hook that does not exist, or that never fires,
is an error.

Of this package, ``hooked``, ``components``, ``hooks``, ``cache`` and ``convert.bridge`` import transformer_lens, and no
other module does.
"""
# ruff: noqa: N802, N815  the names are the field's

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import FactoredMatrix

from mechproc.errors import PartError, require
from mechproc.model.cache import ActivationCache
from mechproc.model.components import Block, Embed, HookedConfig, LayerNorm, PosEmbed, TiedUnembed, Unembed, norm
from mechproc.model.config import ModelConfig
from mechproc.model.convert import folding
from mechproc.model.forward import at_least_float32
from mechproc.model.hooks import HookPoint, StrictlyHooked
from mechproc.model.state import (
    State,
    check_state,
    dtype_of,
    init_state,
    n_parameters,
    tensor_shapes,
    weights_digest,
)
from mechproc.notebook import facts

NO_TOKENIZER = "token numbers, as this model has no tokenizer"
DIGESTED = 10_000_000
"""Parameters of the largest model that shows the digest of its weights; of larger ones it takes too long."""


class Output(NamedTuple):
    """What ``return_type="both"`` gives."""

    logits: Tensor
    loss: Tensor


class HookedTransformer(StrictlyHooked):
    """The model of ``cfg`` with the weights of ``state``, or freshly initialised from ``seed``.

    Weights are copied in and out: ``state`` is never aliased. They keep their dtype unless ``dtype`` converts them;
    fresh ones are float32. ``name`` and ``about`` (what else is known of the model, such as what it was trained on
    and its score) are shown by ``repr`` and in notebooks. The model has no dropout and is always in evaluation mode.
    Activations: residual stream [batch, pos, d_model]; q, k, v, z [batch, pos, head, d_head]; scores and pattern
    [batch, head, query, key]; results and split inputs [batch, pos, head, d_model].
    """

    cfg: HookedConfig

    def __init__(
        self,
        cfg: ModelConfig,
        state: State | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        name: str | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.about = dict(about or {})
        state = init_state(cfg, seed) if state is None else state
        check_state(state, cfg)
        self.cfg = HookedConfig(**cfg.to_dict())
        self.embed = Embed()
        self.hook_embed = HookPoint()
        self.pos_embed = PosEmbed()
        self.hook_pos_embed = HookPoint()
        self.blocks = nn.ModuleList(Block(self.cfg) for _ in range(cfg.n_layers))
        self.ln_final = norm(self.cfg)
        self.unembed = TiedUnembed(self.cfg, self.embed) if cfg.tied_embeddings else Unembed(self.cfg)
        for name in tensor_shapes(cfg):
            module, _, leaf = name.rpartition(".")
            value = state[name].detach().to(device, dtype, copy=True)
            self.get_submodule(module).register_parameter(leaf, nn.Parameter(value))
        self._follow_tensors()
        self.setup()
        self.eval()

    # ---- running ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        inputs: Any,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
    ) -> Any:
        """Logits [batch, pos, d_vocab], the loss, both as an ``Output``, or ``None`` (for the hooks alone).

        ``inputs`` are tokens [batch, pos] (or [pos], for one item), or float vectors [batch, pos, d_input] where the
        config says so. The loss (nats) is the mean cross-entropy of each next token of ``inputs``, or [batch, pos - 1]
        with ``loss_per_token``. Raises ``ConfigError`` for inputs the model cannot read.
        """
        allowed = ("logits", "loss", "both", None)
        require(return_type in allowed, "return_type", return_type, f"one of {allowed}")
        inputs = self._checked(inputs)
        wants_loss = return_type in ("loss", "both")
        tokens = self.cfg.input == "tokens"
        require(not wants_loss or tokens, "return_type", return_type, "'logits' or None when input is 'vectors'")
        require(not wants_loss or inputs.shape[1] > 1, "inputs", tuple(inputs.shape), "at least 2 positions for a loss")
        residual = self.hook_embed(self.embed(inputs)) + self.hook_pos_embed(self.pos_embed(inputs))
        for block in self.blocks:
            residual = block(residual)
        residual = self.ln_final(residual)
        if return_type is None:
            return None
        logits = self.unembed(residual)
        if return_type == "logits":
            return logits
        loss = F.cross_entropy(
            at_least_float32(logits)[:, :-1].flatten(0, 1), inputs[:, 1:].flatten(), reduction="none"
        )
        loss = loss.view(len(inputs), -1) if loss_per_token else loss.mean()
        return loss if return_type == "loss" else Output(logits, loss)

    def run_with_cache(
        self,
        inputs: Any,
        *args: Any,
        remove_batch_dim: bool = False,
        return_cache_object: bool = True,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """The model's output and the activations of a run, as an ``ActivationCache`` (or a plain dict).

        ``names_filter``: a hook, several, or a predicate on names; all that fire when ``None``. Other arguments are
        those of ``forward`` and ``HookedRootModule.run_with_cache``. While inputs are split, the ``ln1`` hooks fire
        three times and the cache holds what the values read. Raises ``PartError`` when the filter matches no hook, or
        names one that does not exist or does not fire.
        """
        inputs = self._checked(inputs)
        require(not remove_batch_dim or len(inputs) == 1, "remove_batch_dim", True, "False for a batch of several")
        # HookedRootModule would cut a slice out of the head axis of split inputs.
        split, pos_slice = self.cfg.use_split_qkv_input or self.cfg.use_attn_in, kwargs.get("pos_slice")
        require(not split or pos_slice is None, "pos_slice", pos_slice, "None while inputs are split")
        output, cache = super().run_with_cache(inputs, *args, remove_batch_dim=remove_batch_dim, **kwargs)
        return output, ActivationCache(cache, self, not remove_batch_dim) if return_cache_object else cache

    def set_use_attn_result(self, use: bool) -> None:
        """Whether each head's output is computed on its own, for ``attn.hook_result``."""
        self.cfg.use_attn_result = use

    def set_use_split_qkv_input(self, use: bool) -> None:
        """Whether queries, keys and values of each head read copies of their own: ``hook_q_input`` and so on."""
        self.cfg.use_split_qkv_input = use

    def set_use_attn_in(self, use: bool) -> None:
        """Whether each head reads a copy of its own: ``hook_attn_in``."""
        self.cfg.use_attn_in = use

    def set_use_hook_mlp_in(self, use: bool) -> None:
        """Whether the MLP reads a copy of its own: ``hook_mlp_in``."""
        self.cfg.use_hook_mlp_in = use

    # ---- weights ---------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Copies of the weights."""
        return {name: self.get_parameter(name).detach().clone() for name in tensor_shapes(self.cfg)}

    @torch.no_grad()
    def load_state(self, state: State) -> None:
        """Copy weights in; raises ``StoreError`` unless they are exactly those of the config.

        ``ConfigError`` where their dtype is not the model's, as they would be rounded.
        """
        check_state(state, self.cfg)
        dtype, own = dtype_of(state), self.cfg.dtype
        require(dtype == own, "dtype", dtype, f"{own}, as in the model: convert one of them first")
        for name, value in state.items():
            self.get_parameter(name).copy_(value)

    @property
    def W_E(self) -> Float[Tensor, "d_in d_model"]:
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        return self.pos_embed.W_pos

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """The bias of the logits; zeros in a model without."""
        return self.unembed.b_U if self.cfg.unembed_bias else self.W_U.new_zeros(self.cfg.d_vocab)

    W_Q = property(lambda self: self._stacked("attn.W_Q"), doc="[layer, head, d_model, d_head], a copy.")
    W_K = property(lambda self: self._stacked("attn.W_K"), doc="[layer, head, d_model, d_head], a copy.")
    W_V = property(lambda self: self._stacked("attn.W_V"), doc="[layer, head, d_model, d_head], a copy.")
    W_O = property(lambda self: self._stacked("attn.W_O"), doc="[layer, head, d_head, d_model], a copy.")
    b_Q = property(lambda self: self._stacked("attn.b_Q"), doc="[layer, head, d_head], a copy.")
    b_K = property(lambda self: self._stacked("attn.b_K"), doc="[layer, head, d_head], a copy.")
    b_V = property(lambda self: self._stacked("attn.b_V"), doc="[layer, head, d_head], a copy.")
    b_O = property(lambda self: self._stacked("attn.b_O"), doc="[layer, d_model], a copy.")
    W_in = property(lambda self: self._stacked("mlp.W_in"), doc="[layer, d_model, d_mlp], a copy.")
    b_in = property(lambda self: self._stacked("mlp.b_in"), doc="[layer, d_mlp], a copy.")
    W_out = property(lambda self: self._stacked("mlp.W_out"), doc="[layer, d_mlp, d_model], a copy.")
    b_out = property(lambda self: self._stacked("mlp.b_out"), doc="[layer, d_model], a copy.")

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T, [layer, head, d_model, d_model]."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O, [layer, head, d_model, d_model]."""
        return FactoredMatrix(self.W_V, self.W_O)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of b_O and b_out of the layers before ``layer``, with ``mlp_input`` of its b_O too."""
        last = self.cfg.n_layers - mlp_input
        require(0 <= layer <= last, "layer", layer, f"0 to {last}")
        names = [f"blocks.{i}.attn.b_O" for i in range(layer + mlp_input)]
        if include_mlp_biases and not self.cfg.attn_only:
            names += [f"blocks.{i}.mlp.b_out" for i in range(layer)]
        return sum((self.get_parameter(name) for name in names), torch.zeros_like(self.W_pos[0]))

    def process_weights(
        self,
        *,
        fold_ln: bool = True,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        fold_value_biases: bool = False,
    ) -> HookedTransformer:
        """A new model that computes the same function with other weights; this one stays as it is.

        The functions of ``mechproc.model.convert.folding`` that are asked for, in this order; each says what it keeps.
        With the default, attribution to the logits (``logit_attrs``, ``direct_logit_attribution``) is possible: what
        the parts of the residual stream add to a logit sums to that logit less ``b_U``.
        """
        cfg, state = ModelConfig.from_dict(self.cfg.to_dict()), self.state()
        steps = {
            folding.fold_ln: fold_ln,
            folding.center_writing_weights: center_writing_weights,
            folding.center_unembed: center_unembed,
            folding.fold_value_biases: fold_value_biases,
        }
        for step, wanted in steps.items():
            if wanted:
                cfg, state = step(cfg, state)
        return HookedTransformer(cfg, state, device=self.cfg.device, name=self.name, about=self.about)

    def require_folded_ln(self, layer: int | None, mlp_input: bool = False) -> None:
        """Raise ``ConfigError`` unless a LayerNorm is a plain normalisation: no weight but 1 and no bias but 0.

        ``layer``: the LayerNorm before its attention, or before its MLP with ``mlp_input``; ``None``, -1 or n_layers:
        the final one.
        """
        final = layer in (None, -1, self.cfg.n_layers)
        name = "ln_final" if final else f"blocks.{layer}.ln{2 if mlp_input else 1}"
        ln = self.mod_dict.get(name)
        if isinstance(ln, LayerNorm) and ((ln.w != 1).any() or (ln.b != 0).any()):
            allowed = f"'LNPre' here, as the weight and bias of {name} would be left out: use process_weights()"
            require(False, "normalization_type", self.cfg.normalization_type, allowed)

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def to_tokens(self, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The tokens themselves, [batch, pos]; text raises ``ConfigError``."""
        return self._checked(inputs)

    def to_single_token(self, token: Any) -> int:
        """The token itself; text raises ``ConfigError``."""
        require(isinstance(token, int), "token", token, NO_TOKENIZER)
        return token

    def tokens_to_residual_directions(self, tokens: Any) -> Float[Tensor, "*tokens d_model"]:
        """The direction in the residual stream that raises each token's logit: its column of W_U.

        Raises ``ConfigError`` while the final LayerNorm has a weight other than 1 or a bias other than 0, as that
        changes the direction. TransformerLens's ``logit_attrs`` and ``direct_logit_attribution`` call this.
        """
        require(not isinstance(tokens, str), "tokens", tokens, NO_TOKENIZER)
        self.require_folded_ln(None)
        return self.W_U.T[tokens]

    # ---- shown -----------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, str]:
        """What the model is, in words: its name, what is known of it, shape, LayerNorms, embeddings, number of
        parameters, dtype, device; of a small model the first digits of the digest of its weights."""
        cfg = self.cfg
        mlp = "no MLPs" if cfg.attn_only else f"MLPs of {cfg.d_mlp} neurons ({cfg.act_fn})"
        read = f"{cfg.d_vocab} tokens" if cfg.input == "tokens" else f"vectors of {cfg.d_input}, {cfg.d_vocab} logits"
        norms = {"LN": "with weight and bias (LN)", "LNPre": "without weight and bias (LNPre)", None: "none"}
        return {
            "name": self.name or "not named",
            **self.about,
            "layers": f"{cfg.n_layers}, each {cfg.n_heads} heads of width {cfg.d_head} and {mlp}",
            "residual stream": f"width {cfg.d_model}, at most {cfg.n_ctx} positions",
            "input": read,
            "LayerNorms": norms[cfg.normalization_type],
            "embeddings": "tied" if cfg.tied_embeddings else "not tied",
            "parameters": f"{n_parameters(cfg):,}, {str(cfg.dtype).removeprefix('torch.')} on {cfg.device}",
            **self._digest(),
        }

    def __repr__(self) -> str:
        lines = [f"  {field}: {text}" for field, text in self.summary().items()]
        return "\n".join(["HookedTransformer", *lines])

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return facts("HookedTransformer", self.summary())

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _digest(self) -> dict[str, str]:
        if n_parameters(self.cfg) > DIGESTED or self.cfg.device.type == "meta":
            return {}
        return {"weights": weights_digest(self.cfg, self.state_dict())[:12]}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HookedTransformer:
        super()._apply(fn, recurse)  # what to(), cuda(), double() and the like all call
        self._follow_tensors()
        return self

    def _follow_tensors(self) -> None:
        self.cfg.device, self.cfg.dtype = self.embed.W_E.device, self.embed.W_E.dtype

    def _stacked(self, name: str) -> Tensor:
        if name.startswith("mlp") and self.cfg.attn_only:
            raise PartError(f"{name.split('.')[1]} does not exist: this model has no MLPs")
        return torch.stack([block.get_parameter(name) for block in self.blocks])

    def _checked(self, inputs: Any) -> Tensor:
        """Inputs on the model's device, with a batch axis; ``ConfigError`` where they do not fit the config."""
        inputs = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
        require(isinstance(inputs, Tensor), "inputs", inputs, f"a tensor or array of {NO_TOKENIZER}")
        cfg, shape = self.cfg, tuple(inputs.shape)
        if cfg.input == "vectors":
            fits = inputs.is_floating_point() and inputs.ndim == 3 and shape[2] == cfg.d_input
            require(fits, "inputs", f"{inputs.dtype} {shape}", f"float [batch, pos, {cfg.d_input}]")
            inputs = inputs.to(cfg.device, cfg.dtype)
        else:
            integer = not inputs.is_floating_point() and inputs.dtype is not torch.bool
            require(
                integer and inputs.ndim in (1, 2), "inputs", f"{inputs.dtype} {shape}", "integers [batch, pos] or [pos]"
            )
            inputs = inputs.to(cfg.device, torch.int64)
            inputs = inputs[None] if inputs.ndim == 1 else inputs
        require(inputs.numel() > 0, "inputs", shape, "at least one item and one position")
        require(inputs.shape[1] <= cfg.n_ctx, "inputs", shape, f"at most n_ctx = {cfg.n_ctx} positions")
        if cfg.input == "tokens":
            low, high = (int(end) for end in inputs.aminmax())
            require(low >= 0 and high < cfg.d_vocab, "inputs", [low, high], f"tokens from 0 to {cfg.d_vocab - 1}")
        return inputs
