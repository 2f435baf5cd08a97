"""An intact run with every activation that an intervention may replace or start from.

Plain functions over the weights, held to the hooked model by tests and by ``check_trace``. Names and shapes of the
activations are those of the hooks. Weights in half precision are computed with in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analyses.interventions.items import inputs
from analyses.interventions.patch import run_with_activations
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.forward import ACTIVATIONS, at_least_float32
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import State
from mechproc.procedures.base import Items

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one model, laid out for many rows: one matrix for q, k and v of all heads."""

    cfg: ModelConfig
    state: dict[str, Tensor]
    qkv: list[dict[str, tuple[Tensor, Tensor]]]
    """For each layer, ``q``, ``k`` and ``v``: matrix [d_model, head * d_head] and bias [head * d_head]."""

    @classmethod
    def of(cls, model: HookedTransformer) -> Weights:
        """The weights of a model, in float32 or more."""
        return cls.from_state(ModelConfig.from_dict(model.cfg.to_dict()), model.state())

    @classmethod
    def from_state(cls, cfg: ModelConfig, state: State) -> Weights:
        """The weights of a state, in float32 or more; what is in float32 or more already is shared with it."""
        state = {name: at_least_float32(value) for name, value in state.items()}
        qkv = []
        for layer in range(cfg.n_layers):
            name = f"blocks.{layer}.attn"
            matrices = {}
            for which in "QKV":
                weight, bias = state[f"{name}.W_{which}"], state[f"{name}.b_{which}"]
                matrices[which.lower()] = (weight.transpose(0, 1).flatten(1).contiguous(), bias.flatten())
            qkv.append(matrices)
        return cls(cfg, state, qkv)

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / scale over the last axis; ``x`` itself in a model without LayerNorms."""
        return x if self.cfg.normalization_type is None else F.layer_norm(x, x.shape[-1:], eps=self.cfg.eps)

    def scale(self, x: Tensor) -> Tensor:
        """What a LayerNorm divides by, sqrt(variance + eps), [..., 1]."""
        return (x.var(-1, keepdim=True, correction=0) + self.cfg.eps).sqrt()

    def affine(self, name: str, x: Tensor) -> Tensor:
        """The weight and bias of a LayerNorm, where it has them."""
        return x * self.state[f"{name}.w"] + self.state[f"{name}.b"] if self.cfg.normalization_type == "LN" else x

    def norm(self, name: str, x: Tensor) -> Tensor:
        """A whole LayerNorm, in the two steps that ``trace`` takes it in: a fused one rounds otherwise, and trained
        models amplify that until a sweep's untouched row is no longer the intact run."""
        return self.affine(name, self.normalized(x))

    def heads(self, layer: int, which: str, x: Tensor) -> Tensor:
        """q, k or v of all heads, [..., head, d_head], of what the attention reads, [..., d_model]."""
        matrix, bias = self.qkv[layer][which]
        return (x @ matrix + bias).unflatten(-1, (self.cfg.n_heads, -1))

    def attn_out(self, layer: int, z: Tensor) -> Tensor:
        """z [..., head, d_head] -> what the attention writes, [..., d_model]."""
        name = f"blocks.{layer}.attn"
        return z.flatten(-2) @ self.state[f"{name}.W_O"].flatten(0, 1) + self.state[f"{name}.b_O"]

    def hidden(self, layer: int, x: Tensor) -> Tensor:
        """What the MLP reads -> its neurons before the activation function."""
        return x @ self.state[f"blocks.{layer}.mlp.W_in"] + self.state[f"blocks.{layer}.mlp.b_in"]

    def act(self, pre: Tensor) -> Tensor:
        """The activation function."""
        return ACTIVATIONS[self.cfg.act_fn](pre)

    def mlp_out(self, layer: int, post: Tensor) -> Tensor:
        """Neurons -> what the MLP writes."""
        return post @ self.state[f"blocks.{layer}.mlp.W_out"] + self.state[f"blocks.{layer}.mlp.b_out"]

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """The residual stream [..., d_model] -> what the MLP writes, [..., d_model]."""
        return self.mlp_out(layer, self.act(self.hidden(layer, self.norm(f"blocks.{layer}.ln2", x))))

    def logits(self, residual: Tensor) -> Tensor:
        """The residual stream -> logits, final LayerNorm included."""
        state = self.state
        w_u = state["embed.W_E"].T if self.cfg.tied_embeddings else state["unembed.W_U"]
        logits = self.norm("ln_final", residual) @ w_u
        return logits + state["unembed.b_U"] if self.cfg.unembed_bias else logits

    def attended(self, layer: int, x: Tensor) -> Tensor:
        """The residual stream [item, pos, d_model] -> what the attention writes, [item, pos, d_model]."""
        read = self.norm(f"blocks.{layer}.ln1", x)
        q, k, v = (self.heads(layer, which, read) for which in "qkv")
        pattern = self.scores(q, k, torch.arange(x.shape[1], device=x.device)).softmax(-1)
        return self.attn_out(layer, (pattern @ v.transpose(1, 2)).transpose(1, 2))

    def scores(self, q: Tensor, k: Tensor, query_positions: Tensor) -> Tensor:
        """q [..., query, head, d_head], k [..., key, head, d_head] -> scores [..., head, query, key], -inf where the
        key comes after the query, whose positions are [..., query]."""
        scores = (q.transpose(-2, -3) / math.sqrt(q.shape[-1])) @ k.transpose(-2, -3).transpose(-1, -2)
        future = torch.arange(k.shape[-3], device=k.device) > query_positions[..., None]
        return scores.masked_fill_(future.unsqueeze(-3), -torch.inf)

    def scores_without_keys(self, layer: int, q: Tensor, read: Tensor, query_positions: Tensor) -> Tensor:
        """``scores`` from what the keys are made of, ``read`` [..., key, d_model]: the queries go through W_K instead.

        Cheaper than the keys where there are fewer queries than d_head.
        """
        name = f"blocks.{layer}.attn"
        q = q / math.sqrt(q.shape[-1])
        directions = torch.einsum("...he,hde->...hd", q, self.state[f"{name}.W_K"])
        constants = (q * self.state[f"{name}.b_K"]).sum(-1)
        n_queries = q.shape[-3]
        scores = directions.flatten(-3, -2) @ read.transpose(-1, -2) + constants.flatten(-2)[..., None]
        scores = scores.unflatten(-2, (n_queries, -1)).transpose(-2, -3)
        future = torch.arange(read.shape[-2], device=read.device) > query_positions[..., None]
        return scores.masked_fill_(future.unsqueeze(-3), -torch.inf)

    def z_without_values(self, layer: int, pattern: Tensor, read: Tensor) -> Tensor:
        """z [..., query, head, d_head] from what the values are made of, ``read`` [..., key, d_model]."""
        name = f"blocks.{layer}.attn"
        mixed = (pattern.flatten(-3, -2) @ read).unflatten(-2, pattern.shape[-3:-1])
        biases = pattern.sum(-1, keepdim=True) * self.state[f"{name}.b_V"][:, None]
        return (mixed @ self.state[f"{name}.W_V"] + biases).transpose(-2, -3)


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """The activations of an intact run over some items."""

    weights: Weights
    items: Items
    activations: dict[str, Tensor]
    """By hook name; for a model without LayerNorms ``hook_normalized`` is absent."""
    scored: Tensor
    """int64 [item, s]: the scored positions, left-aligned; position 0 where an item has fewer."""
    real: Tensor
    """bool [item, s]: which of them are scored positions."""
    logits: Tensor
    """[item, s, d_vocab] at the scored positions."""

    @property
    def cfg(self) -> ModelConfig:
        """The model's shape."""
        return self.weights.cfg

    def take(self, rows: np.ndarray) -> Trace:
        """Some of the items, in the order asked for; positions stay as many as they are."""
        index = torch.from_numpy(rows).to(self.logits.device)
        kept = {hook: activation[index] for hook, activation in self.activations.items()}
        ends = (each[index] for each in (self.scored, self.real, self.logits))
        return Trace(self.weights, self.items.take(rows), kept, *ends)

    def activation(self, hook: str) -> Tensor:
        """An activation by its hook; the scale of a LayerNorm is not kept, but computed from what is normalised."""
        name, _, leaf = hook.rpartition(".")
        if leaf != "hook_scale":
            return self.activations[hook]
        block, _, which = name.rpartition(".")
        before = {"ln1": "hook_resid_pre", "ln2": "hook_resid_mid"}
        last = f"blocks.{self.cfg.n_layers - 1}.hook_resid_post"
        read = last if name == "ln_final" else f"{block}.{before[which]}"
        return self.weights.scale(self.activations[read])


@torch.inference_mode()
def trace(weights: Weights, items: Items, *, last_at_scored: bool = False) -> Trace:
    """Run the intact model over ``items`` and keep every activation.

    ``last_at_scored``: in the last layer compute what follows from the queries (``behind_queries``) at the scored
    positions alone, which are all that is read there; those activations are then [item, s, ...], as in
    ``Trace.scored``.
    """
    cfg, state, activations = weights.cfg, weights.state, {}
    x = inputs(items, cfg).to(state["embed.W_E"].device)
    n_pos = x.shape[1]
    everywhere = torch.arange(n_pos, device=x.device)
    positions, real = (torch.from_numpy(array).to(x.device) for array in items.positions())
    tokens = cfg.input == "tokens"
    activations["hook_embed"] = (
        F.embedding(x, state["embed.W_E"]) if tokens else x.to(state["embed.W_E"]) @ state["embed.W_E"]
    )
    activations["hook_pos_embed"] = state["pos_embed.W_pos"][:n_pos].expand(len(x), -1, -1)
    residual = activations["hook_embed"] + activations["hook_pos_embed"]
    for layer in range(cfg.n_layers):
        name, few = f"blocks.{layer}", last_at_scored and layer == cfg.n_layers - 1
        activations[f"{name}.hook_resid_pre"] = residual
        activations[f"{name}.ln1.hook_normalized"] = normalized = weights.normalized(residual)
        read = weights.affine(f"{name}.ln1", normalized)
        q = weights.heads(layer, "q", at(read, positions) if few else read)
        k, v = (weights.heads(layer, which, read) for which in "kv")
        scores = weights.scores(q, k, positions if few else everywhere)
        pattern = scores.softmax(-1)
        z = (pattern @ v.transpose(1, 2)).transpose(1, 2)
        out = weights.attn_out(layer, z)
        kept = {"q": q, "k": k, "v": v, "attn_scores": scores, "pattern": pattern, "z": z}
        activations |= {f"{name}.attn.hook_{which}": value for which, value in kept.items()}
        activations[f"{name}.hook_attn_out"] = out
        residual = (at(residual, positions) if few else residual) + out
        if not cfg.attn_only:
            activations[f"{name}.hook_resid_mid"] = residual
            activations[f"{name}.ln2.hook_normalized"] = normalized = weights.normalized(residual)
            pre = weights.hidden(layer, weights.affine(f"{name}.ln2", normalized))
            post = weights.act(pre)
            out = weights.mlp_out(layer, post)
            activations |= {f"{name}.mlp.hook_pre": pre, f"{name}.mlp.hook_post": post, f"{name}.hook_mlp_out": out}
            residual = residual + out
        activations[f"{name}.hook_resid_post"] = residual
    if cfg.normalization_type is None:
        activations = {hook: value for hook, value in activations.items() if not hook.endswith("hook_normalized")}
    logits = weights.logits(residual if last_at_scored else at(residual, positions))
    return Trace(weights, items, activations, positions, real, logits)


def behind_queries(hook: str, cfg: ModelConfig) -> bool:
    """Whether an activation is of the last layer or after it, and not read by its keys and values: only what it is at
    scored positions then reaches a scored logit."""
    name, leaf = f"blocks.{cfg.n_layers - 1}", hook.rpartition(".")[2]
    before = (f"{name}.hook_resid_pre", *(f"{name}.{each}" for each in ("ln1.hook_normalized", "ln1.hook_scale")))
    return hook.startswith((name, "ln_final")) and hook not in before and leaf not in ("hook_k", "hook_v")


def at(x: Tensor, positions: Tensor) -> Tensor:
    """x [..., pos, d] at positions [..., k] -> [..., k, d]."""
    return x.gather(-2, positions[..., None].expand(*positions.shape, x.shape[-1]))


class InexactError(RuntimeError):
    """Two ways to the same logits differ by more than rounding is allowed to."""


def in_float64(model: HookedTransformer) -> HookedTransformer:
    """A copy of the model in float64; on the CPU where its device, mps, has none."""
    device = "cpu" if str(model.cfg.device).startswith("mps") else model.cfg.device
    return HookedTransformer(model.cfg, model.state(), device=device, dtype=torch.float64)


def in_enough_precision(measure: Callable[[HookedTransformer], T], model: HookedTransformer) -> T:
    """What ``measure`` finds for ``model``; where a check in it finds the model's precision too low, for it in float64.

    Trained models may amplify the rounding of float32 a thousandfold, and only running them shows it. Float64 takes
    about twice the time. Errors: those of ``measure``, and ``InexactError`` where float64 does not agree either.
    """
    try:
        return measure(model)
    except InexactError:
        if next(model.parameters()).dtype == torch.float64:
            raise
    return measure(in_float64(model))


def check_trace(model: HookedTransformer, items: Items, tolerance: float = 1e-6) -> None:
    """Raise a ``RuntimeError`` unless the trace's logits are those of the hooked model, relative to their size.

    Both are computed in float64: what is checked is the formulas, which are the same in every precision.
    """
    model = in_float64(model)
    hooked, _ = run_with_activations(model, items, ["hook_embed"])
    ours = trace(Weights.of(model), items)
    theirs = at(hooked, ours.scored)[ours.real]
    worst = float((ours.logits[ours.real] - theirs).abs().max())
    if not worst <= tolerance * max(1.0, float(theirs.abs().max())):
        raise RuntimeError(f"the sweep's forward pass differs from the hooked model by {worst}; do not trust a sweep")


def require_finite(logits: Tensor, seed: object) -> None:
    """Raise a ``ConfigError`` that names the seed unless all logits are finite."""
    require(bool(torch.isfinite(logits).all()), f"logits of seed {seed}", "NaN or infinity", "finite numbers")


def n_scored(items: Items) -> int:
    """Scored tokens of some items."""
    return int(np.count_nonzero(items.scored))
