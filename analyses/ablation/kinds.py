"""The kinds of ablation: what each puts in the place of a part, where it is defined, and which rows a map has.

| kind | what stands in | defined at |
| --- | --- | --- |
| ``zero`` | zeros | the part table says where (``mechproc parts``) |
| ``mean`` | the mean over reference items of the layout | the part table says where |
| ``resample`` | the activation in another item of the layout | the part table says where |
| ``counterfactual`` | the activation in the corrupt partner | where resampling is |
| ``identity_affine`` | a LayerNorm's weight is 1, its bias 0; it still normalises | LayerNorms |
| ``frozen_scale`` | what a LayerNorm divides by is its mean over reference items of the layout | LayerNorms |
| ``mean_row`` | the mean row of an embedding, over the tokens or positions in use | ``embed``, ``pos`` |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Ablation, Selection, Site, check_defined, components, select, sites_of

Kind = Ablation | str
"""A kind of ablation by its name, or an ``Ablation``."""
DOES_NOT_SHOW = (
    "what the part computes, or that a part without effect is unused: where another part does the same, neither need "
    "show; and what is lost includes all that later parts made of it"
)
OF_THE_KIND = {
    "zero": "zeros may be far from anything the part ever writes, and upset the rest; of planted parts whose twin does "
    "the same they flag 0 %",
    "mean": "what the part writes in every item of a layout alike stays in place (of planted parts whose constant is "
    "needed it flags 0 %); of planted parts whose twin does the same it flags 0 %",
    "resample": "the other item's activation brings its own information, which can mislead more than none; what the "
    "part writes in every item alike stays in place (of planted parts whose constant is needed it flags 0 %)",
    "counterfactual": "a part shows only as far as it carries what the pair changes",
    "identity_affine": "later parts then also read sizes that they were not trained with, and the normalisation stays",
    "frozen_scale": "the weight and bias stay, and so does what the scale is in every item of a layout alike",
    "mean_row": "the mean row may be far from every row, and upset the rest; a tied unembedding stays as it is",
}
LAYERNORM_KINDS = ("identity_affine", "frozen_scale")
"""Kinds that change a LayerNorm itself, and not what it passes on."""


def kind_of(ablation: Kind) -> str:
    """The name of an ablation, from the name or the ``Ablation``."""
    kind = ablation.value if isinstance(ablation, Ablation) else ablation
    require(kind in OF_THE_KIND, "ablation", kind, f"one of {', '.join(OF_THE_KIND)}")
    return kind


# ---- where a kind is defined -----------------------------------------------------------------------------------------


def sites_under(part: str | Selection, cfg: ModelConfig, kind: str) -> tuple[Site, ...]:
    """The activations that a kind of ablation replaces at a part expression, or at a selection.

    Those of ``frozen_scale`` are the scales of LayerNorms. Errors: ``PartError`` for a part that does not exist, or
    that says why the kind is undefined at it.
    """
    found = sites_of(select(part, cfg) if isinstance(part, str) else part)
    for site in found:
        if reason := _reason(site, cfg, kind):
            raise PartError(f"{kind} at {site.part!r} is undefined: {reason}")
        if kind not in (*LAYERNORM_KINDS, "mean_row"):  # a counterfactual is defined where resampling is
            check_defined(site, Ablation.RESAMPLE if kind == "counterfactual" else Ablation(kind))
    if kind == "frozen_scale":
        return tuple(dataclasses.replace(site, hook=f"{layernorm_of(site)}.hook_scale") for site in found)
    return found


def undefined_reason(part: str, cfg: ModelConfig, kind: str) -> str:
    """Why an ablation means nothing at ``part``; empty when it does mean something."""
    try:
        sites_under(part, cfg, kind)
    except PartError as error:
        return str(error)
    return ""


def layernorm_of(site: Site) -> str:
    """The LayerNorm that a site belongs to: ``"blocks.0.ln1"``, ``"ln_final"``."""
    return site.hook.rpartition(".")[0]


def _reason(site: Site, cfg: ModelConfig, kind: str) -> str:
    """Why a kind that is not in the part table means nothing at a site."""
    if kind in LAYERNORM_KINDS and not site.hook.endswith("hook_normalized"):
        what = "a weight and bias to replace" if kind == "identity_affine" else "a scale to freeze"
        return f"only LayerNorms have {what}; name ln, L{{layer}}.ln1, L{{layer}}.ln2 or ln_final"
    if kind == "mean_row":
        if site.part not in ("embed", "pos"):
            return "only 'embed' and 'pos' have a row for each token or position"
        if site.part == "embed" and cfg.input == "vectors":
            return "the model reads vectors, not tokens: there is no row for each token"
    return ""


# ---- rows of a map ---------------------------------------------------------------------------------------------------


def layernorms(cfg: ModelConfig) -> list[str]:
    """Every LayerNorm with weights, in the order of the forward pass. Errors: ``PartError`` for a model without."""
    return [site.part for site in sites_of(select("ln", cfg))]


def layers(cfg: ModelConfig) -> list[str]:
    """The attention of each layer, its MLP, and both together; LayerNorms are not part of these rows."""
    rows = []
    for layer in range(cfg.n_layers):
        attn, mlp = f"L{layer}.attn", f"L{layer}.mlp"
        rows += [attn] if cfg.attn_only else [attn, mlp, f"{attn} + {mlp}"]
    return rows


ROWS: dict[str, Callable[[ModelConfig], list[str]]] = {
    "components": components,
    "layers": layers,
    "layernorms": layernorms,
    "embeddings": lambda cfg: ["embed", "pos"],
}
"""Words that stand for several rows in a list of parts."""


def rows_of(parts: Sequence[str] | None, cfg: ModelConfig, kind: str) -> list[str]:
    """The rows of a map: part expressions as they are, words of ``ROWS`` written out.

    ``None``: heads and MLPs; for the kinds of LayerNorms, every LayerNorm; for ``mean_row``, the embeddings that have
    rows. Errors: ``ConfigError`` for no rows, or one that occurs twice.
    """
    if parts is None:
        word = "layernorms" if kind in LAYERNORM_KINDS else "embeddings" if kind == "mean_row" else "components"
        return [row for row in ROWS[word](cfg) if kind != "mean_row" or not undefined_reason(row, cfg, kind)]
    words = [parts] if isinstance(parts, str) else list(parts)
    rows = [row for word in words for row in (ROWS[word](cfg) if word in ROWS else [word])]
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    return rows


def map_parts(cfg: ModelConfig) -> list[str]:
    """The rows of a comparison: embeddings; for each layer its heads, their QK, their OV, and the MLP."""
    rows = ["embed", "pos"]
    for layer in range(cfg.n_layers):
        inside = [part for part in components(cfg) if part.startswith(f"L{layer}.")]
        heads = [part for part in inside if not part.endswith(".mlp")]
        rows += [f"{head}{circuit}" for circuit in ("", ".QK", ".OV") for head in heads]
        rows += [part for part in inside if part not in heads]
    return rows
