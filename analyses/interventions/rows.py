"""What a row of a map names: a part, or any activation by its hook."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analyses.interventions.effects import stage_of
from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Ablation, Site, sites

SLICED = {"hook_q": 2, "hook_k": 2, "hook_v": 2, "hook_z": 2, "hook_pattern": 1, "hook_attn_scores": 1, "hook_pre": 2,
          "hook_post": 2}  # fmt: skip
"""Activations with a head or a neuron axis, and which axis that is."""


def sites_of_rows(
    rows: Sequence[str], cfg: ModelConfig, ablation: Ablation | None = Ablation.RESAMPLE
) -> dict[str, tuple[Site, ...]]:
    """The activations of each row, by row.

    A row is a part expression (``"L0.H2"``, ``"attn - L0.H2"``) or a hook, whole or one head or neuron of it, as
    ``Site.address`` writes it: ``"blocks.0.hook_resid_pre"``, ``"blocks.1.attn.hook_q[:, :, 2]"``.

    Errors: ``ConfigError`` for no rows, or one that occurs twice; ``PartError`` for a part or hook that this model does
    not have, that a sweep cannot patch, or where ``ablation`` is undefined.
    """
    rows = [rows] if isinstance(rows, str) else list(rows)
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    return {row: _sites(row, cfg, ablation) for row in rows}


def _sites(row: str, cfg: ModelConfig, ablation: Ablation | None) -> tuple[Site, ...]:
    is_hook = row.startswith(("blocks.", "hook_"))
    found = (_site_of_hook(row, cfg),) if is_hook else sites(row, cfg, ablation)
    for site in found:
        stage_of(site, cfg)
    return found


def _site_of_hook(row: str, cfg: ModelConfig) -> Site:
    match = re.fullmatch(r"([\w.]+?)(?:\[((?::, ?)*)(\d+)\])?", row)
    if match is None:
        raise PartError(f"{row!r} is no hook: write 'blocks.0.hook_resid_pre', or 'blocks.0.attn.hook_z[:, :, 2]'")
    hook, axes, number = match.groups()
    leaf = hook.rpartition(".")[2]
    in_mlp = ".mlp." in hook or ".ln2." in hook or leaf in ("hook_mlp_out", "hook_resid_mid")
    without_ln = cfg.normalization_type is None and leaf == "hook_normalized"
    if (cfg.attn_only and in_mlp) or without_ln:
        raise PartError(f"{row!r} is not a hook of this model: it has no {'LayerNorms' if without_ln else 'MLPs'}")
    if number is None:
        return Site(row, hook, None, None)
    axis, index = axes.count(":"), int(number)
    if SLICED.get(leaf) != axis:
        raise PartError(f"{row!r} is no slice of an activation: heads and neurons can be taken out, of "
                        + ", ".join(f"{name}[{':, ' * where}i]" for name, where in SLICED.items()))  # fmt: skip
    count = cfg.d_mlp if leaf in ("hook_pre", "hook_post") else cfg.n_heads
    if index >= (count or 0):
        raise PartError(f"{row!r} is not in this model: it has 0 to {(count or 0) - 1}")
    return Site(row, hook, axis, index)
