"""What an intervention first changes in the residual stream.

The forward pass has stages: 0 the embeddings, 1 + 2 l the attention, 2 + 2 l the MLP of layer l. Where all patches of
the first stage are on one activation that is written into the residual stream linearly, the change is the difference of
the activations times the weights that write it (``LINEAR``); patterns and values change their own head's z alone.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.patch import Patch
from analyses.interventions.trace import Trace, at
from mechproc.config import nearest
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Site

LINEAR = frozenset(
    ("hook_embed", "hook_pos_embed", "hook_z", "hook_attn_out", "hook_post", "hook_mlp_out", "hook_pattern", "hook_v")
)
"""Activations whose change reaches the residual stream linearly, or through their own head's z alone."""
LN1 = "ln1.hook_normalized"
STAGES = {
    "attn": ("hook_resid_pre", "hook_normalized", "hook_q", "hook_k", "hook_v", "hook_attn_scores", "hook_pattern",
             "hook_z", "hook_attn_out"),
    "mlp": ("hook_resid_mid", "hook_normalized", "hook_pre", "hook_post", "hook_mlp_out", "hook_resid_post"),
}  # fmt: skip
HOOKS = (
    "hook_resid_pre", LN1, *(f"attn.{leaf}" for leaf in STAGES["attn"][2:8]), "hook_attn_out", "hook_resid_mid",
    "ln2.hook_normalized", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post",
)  # fmt: skip
"""Of a layer, what a sweep can patch, in the order of the forward pass."""


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """The residual stream of every row where it differs from the intact run, or may."""

    residual: Tensor
    """[intervention, item, k, d_model]."""
    where: Tensor | None
    """The positions, int64 [intervention, item, k]; ``None``: all, in order."""
    at_scored: bool = False
    """Whether the positions are the scored ones, left-aligned, as in ``Trace.scored``."""


def stage_of(site: Site, cfg: ModelConfig) -> int:
    """The stage of the forward pass in which a site lies. Errors: ``ConfigError`` for a hook that sweeps lack."""
    stage = _stage_of_hook(site.hook)
    if stage is None or stage > 2 * cfg.n_layers:
        known = ["hook_embed", "hook_pos_embed", *(f"blocks.{n}.{each}" for n in range(cfg.n_layers) for each in HOOKS)]
        raise ConfigError(
            f"{site.hook!r} cannot be patched in a sweep{nearest(site.hook, known)} (hooks of a layer: "
            f"{', '.join(HOOKS)}); run_with_patches takes any hook"
        )
    return stage


@functools.lru_cache(maxsize=4096)
def _stage_of_hook(hook: str) -> int | None:
    if hook in ("hook_embed", "hook_pos_embed"):
        return 0
    match = re.fullmatch(r"blocks\.(\d+)\.(?:(ln1|ln2|attn|mlp)\.)?(hook_\w+)", hook)
    if match is None or match[3] not in (*STAGES["attn"], *STAGES["mlp"]):
        return None
    in_mlp = match[2] in ("ln2", "mlp") if match[3] == "hook_normalized" else match[3] in STAGES["mlp"]
    return 1 + 2 * int(match[1]) + in_mlp


def is_unseen(trace: Trace, patches: Sequence[Patch]) -> bool:
    """Whether no scored logit can depend on these patches: all are behind the keys and values of the last layer, where
    positions no longer mix, and at positions that are not scored."""
    last, cfg = 2 * trace.cfg.n_layers - 1, trace.cfg
    for patch in patches:
        stage, leaf, where = stage_of(patch.site, cfg), patch.site.hook.rpartition(".")[2], patch.where()
        mixes = stage < last or leaf in ("hook_k", "hook_v", "hook_resid_pre") or patch.site.hook.endswith(LN1)
        if mixes or where is None or np.take_along_axis(trace.items.scored, where, axis=1).any():
            return False
    return True


def first_change(trace: Trace, interventions: Sequence[Sequence[Patch]], stage: int) -> Change:
    """The change that each intervention's patches of ``stage`` make in the residual stream after it.

    All are on one kind of activation, at all positions or at k positions each.
    """
    cfg, (layer, is_mlp) = trace.cfg, divmod(stage - 1, 2)
    if stage == 0:
        hook = "blocks.0.hook_resid_pre"
    else:
        hook = f"blocks.{layer}.hook_resid_{'mid' if not is_mlp and not cfg.attn_only else 'post'}"
    after = trace.activations[hook]
    in_stage = [[p for p in patches if _stage(p, cfg) == stage] for patches in interventions]
    alone = all(len(patches) == 1 for patches in interventions)
    last = layer == cfg.n_layers - 1 and stage > 0
    sparse = _sparse_positions(trace, interventions) if alone else None
    if last:
        where = trace.scored
        deltas = [torch.stack([_delta(trace, p, where) for p in patches]).sum(0) for patches in in_stage]
        wheres = trace.scored.expand(len(interventions), *trace.scored.shape)
        return Change(at(after, where) + torch.stack(deltas), wheres, at_scored=True)
    if sparse is not None:
        deltas = torch.stack([_delta(trace, p, w) for (p,), w in zip(in_stage, sparse, strict=True)])
        base = after.expand(len(interventions), *after.shape)
        return Change(at(base, sparse) + deltas, sparse)
    deltas = [torch.stack([_delta(trace, p, None) for p in patches]).sum(0) for patches in in_stage]
    return Change(after + torch.stack(deltas), None)


def _total(trace: Trace, patches: Sequence[Patch], where: Tensor | None) -> Tensor:
    """The sum of what several patches change."""
    return functools.reduce(torch.add, (_delta(trace, patch, where) for patch in patches))


def _stage(patch: Patch, cfg: ModelConfig) -> int:
    return stage_of(patch.site, cfg)


def _sparse_positions(trace: Trace, interventions: Sequence[Sequence[Patch]]) -> Tensor | None:
    """The patched positions [intervention, item, k], where a patch changes the residual stream at no others."""
    places = []
    for (patch,) in interventions:
        where = patch.where()
        if where is None or patch.site.hook.endswith("hook_v"):
            return None
        places.append(torch.from_numpy(np.array(where)))
    return torch.stack(places).to(trace.logits.device)


def _delta(trace: Trace, patch: Patch, where: Tensor | None) -> Tensor:
    """What the patch adds to the residual stream at positions ``where`` [item, k] (all when ``None``), [item, k, d]."""
    site, weights = patch.site, trace.weights
    leaf = site.hook.rpartition(".")[2]
    intact = site.view(trace.activations[site.hook])
    values = patch.values.to(intact)
    mask = _mask(patch, intact.shape[patch.pos_axis], trace)
    if leaf in ("hook_pattern", "hook_v"):
        return _delta_of_head(trace, patch, values, mask, where)
    if where is not None:
        rows = torch.arange(len(where), device=where.device)[:, None]
        values, intact = values[rows, where], intact[rows, where]
        mask = None if mask is None else mask[rows, where]
    difference = values - intact
    if mask is not None:
        difference = difference * mask.view(*mask.shape, *[1] * (difference.ndim - 2))
    name = site.hook.rpartition(".")[0]
    if leaf == "hook_z":
        w_o = weights.state[f"{name}.W_O"]
        return difference @ w_o[site.index] if site.index is not None else difference.flatten(-2) @ w_o.flatten(0, 1)
    if leaf == "hook_post":
        w_out = weights.state[f"{name}.W_out"]
        return difference[..., None] * w_out[site.index] if site.index is not None else difference @ w_out
    return difference


def _delta_of_head(trace: Trace, patch: Patch, values: Tensor, mask: Tensor | None, where: Tensor | None) -> Tensor:
    """The same of a pattern or of values: what changes of one head, or of all, times the other of the two, which stays.

    The product is of the difference, so that what is patched with itself changes nothing at all.
    """
    site, name = patch.site, patch.site.hook.rpartition(".")[0]
    one = slice(None) if site.index is None else slice(site.index, site.index + 1)
    pattern = trace.activations[f"{name}.hook_pattern"][:, one]
    v = trace.activations[f"{name}.hook_v"].transpose(1, 2)[:, one]
    if site.hook.endswith("hook_pattern"):
        new = values if site.index is None else values[:, None]
        pattern = (new - pattern) if mask is None else (new - pattern) * mask[:, None, :, None]
    else:
        new = values.transpose(1, 2) if site.index is None else values[:, None]
        v = (new - v) if mask is None else (new - v) * mask[:, None, :, None]
    if where is not None:
        rows = torch.arange(len(where), device=where.device)[:, None]
        pattern = pattern.transpose(1, 2)[rows, where].transpose(1, 2)
    difference = (pattern @ v).transpose(1, 2).flatten(2)
    return difference @ trace.weights.state[f"{name}.W_O"][one].flatten(0, 1)


def _mask(patch: Patch, n_pos: int, trace: Trace) -> Tensor | None:
    """bool [item, pos]: where the patch is made; ``None`` for everywhere."""
    where = patch.where()
    if where is None:
        return None
    mask = np.zeros((len(where), n_pos), dtype=bool)
    np.put_along_axis(mask, where, True, axis=1)
    return torch.from_numpy(mask).to(trace.logits.device)
