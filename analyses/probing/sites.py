"""Where probes read: the residual stream, and what single parts write."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Site, sites

RESIDUAL = re.compile(r"L(0|[1-9]\d*)\.resid_(pre|mid|post)")


def all_sites(cfg: ModelConfig) -> list[str]:
    """Every site that is probed by default, in the order of the forward pass.

    ``"L0.resid_pre"`` is the sum of token and position embeddings, ``"L0.resid_mid"`` the residual stream after the
    attention of layer 0, ``"L0.resid_post"`` after its MLP (and before layer 1). ``"L0.H2"`` is one head's z,
    ``"L0.attn"`` what the attention writes, ``"L0.mlp"`` what the MLP writes.
    """
    names = ["L0.resid_pre"]
    for layer in range(cfg.n_layers):
        names += [f"L{layer}.H{head}" for head in range(cfg.n_heads)] + [f"L{layer}.attn"]
        names += [] if cfg.attn_only else [f"L{layer}.resid_mid", f"L{layer}.mlp"]
        names.append(f"L{layer}.resid_post")
    return names


def residual_sites(cfg: ModelConfig) -> list[str]:
    """The sites of the residual stream among ``all_sites``."""
    return [name for name in all_sites(cfg) if "resid" in name]


def sites_of(names: Sequence[str] | None, cfg: ModelConfig) -> dict[str, Site]:
    """The activation at each site; all sites when ``None``.

    A name is one of ``all_sites``, or another part with one activation of a vector at each position, such as
    ``"embed"``. Errors: ``PartError`` for a site that does not exist, ``ConfigError`` for none or for one named twice.
    """
    chosen = all_sites(cfg) if names is None else list(names)
    require(bool(chosen) and len(set(chosen)) == len(chosen), "sites", chosen, "at least one, each once")
    return {name: _site_of(name, cfg) for name in chosen}


def _site_of(name: str, cfg: ModelConfig) -> Site:
    if match := RESIDUAL.fullmatch(name):
        layer, which = int(match[1]), match[2]
        if layer >= cfg.n_layers or (which == "mid" and cfg.attn_only):
            raise PartError(f"site {name!r} is not one of {', '.join(residual_sites(cfg))}")
        return Site(name, f"blocks.{layer}.hook_resid_{which}", None, None)
    try:
        found = sites(name, cfg)
    except PartError as error:
        raise PartError(f"site {name!r} is none of {', '.join(all_sites(cfg))}, and no part ({error})") from None
    if len(found) != 1 or found[0].hook.endswith(("hook_pattern", "hook_post")):
        raise PartError(f"site {name!r} has no vector at each position: probe one of {', '.join(all_sites(cfg))}")
    return found[0]
