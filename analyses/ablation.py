"""What a model loses when a part of it is taken out: zero, mean and resample ablation.

**Alignment.** Mean and resample put into a position what the part does at the same position of other items *of the same
layout* (see ``analyses.interventions.items``). The mean of a part is taken for each layout over reference items of the
validation split; an item is resampled from another test item of its layout. Items whose layout is too rare for that are
left out of the intact score and the ablated one alike, and counted.

**Controls.** Before anything is measured, every part is replaced by its own activation, which must leave the logits as
they are, bit for bit. A hook that does not fire is an error of the model's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from analyses.interventions.items import Layout, cut, derangement, frequent, layouts, longest_first
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.errors import ConfigError, PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation, Site, components, select, sites
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Label, Result, Where, stack

Metric = Literal["accuracy", "loss"]
Activations = dict[str, Tensor]
"""Activations by hook, each [item, ...]."""
Source = Callable[[slice, Activations], Activations]
"""What stands in for the activations of some of the items."""

NO_OP_ITEMS = 8
"""Items on which every part is first replaced by itself."""
REFERENCE_ITEMS = 4096
"""Items of the validation split that means are taken over."""
MIN_REFERENCE = 8
"""The fewest reference items that make a mean; test items of a rarer layout are left out."""
UNITS = {"accuracy": "fraction", "loss": "nats"}
NAMES = {"accuracy": "accuracy lost", "loss": "loss gained"}
DOES_NOT_SHOW = (
    "what the part computes, or that a part without effect is unused: where another part does the same, neither shows; "
    "and what is lost includes all that later parts made of it"
)
OF_THE_KIND = {
    Ablation.ZERO: "zeros may be far from anything the part ever writes, and upset the rest",
    Ablation.MEAN: "what the part writes in every item of a layout alike stays in place",
    Ablation.RESAMPLE: "the other item's activation brings its own information, which can mislead more than none",
}


@sized_threads
def run(
    models: Models,
    items: Procedure | Items,
    parts: Sequence[str] | None = None,
    ablation: Ablation = Ablation.ZERO,
    metric: Metric = "accuracy",
    *,
    reference: Items | None = None,
    seed: int = 0,
    n_items: int = 1024,
) -> Result:
    """How much worse each model is without each part: axes ``part`` and ``seed``.

    The value is the intact accuracy minus the ablated one (over all scored tokens, 0 to 1), or the ablated loss minus
    the intact one (mean nats): positive when the ablation hurts. ``metadata["intact"]`` has the intact score by seed.

    - ``models``: one for each seed, all of one shape;
    - ``items``: the procedure, of which the first ``n_items`` test items of ``seed`` are taken; or items;
    - ``parts``: part expressions, each ablated as a whole; ``None`` for every head and MLP;
    - ``reference``: the items that means are taken over; by default ``REFERENCE_ITEMS`` of the validation split;
    - ``seed``: of the items and of who is resampled from whom. Every model gets the same.

    Errors: ``PartError`` for a part that does not exist or where the ablation is undefined (``survey`` marks these
    instead); ``ConfigError`` for models or items that do not fit, or when fewer than half of the items can be aligned.
    """
    found = by_seed(models)
    cfg = next(iter(found.values())).cfg
    rows = components(cfg) if parts is None else list(parts)
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    require(isinstance(ablation, Ablation), "ablation", ablation, f"one of {', '.join(map(str, Ablation))}")
    require(metric in UNITS, "metric", metric, f"one of {', '.join(UNITS)}")
    sites_of = {part: sites(part, cfg, ablation) for part in rows}
    block, reference, settings = _items(items, reference, ablation, seed, n_items)
    least = {Ablation.ZERO: 0, Ablation.MEAN: MIN_REFERENCE, Ablation.RESAMPLE: 2}[ablation]
    kept = frequent(block, reference or block, least)
    n_left_out = len(block) - len(kept)
    rare = f"{n_left_out} of {len(block)} have a layout too rare for {ablation.value} ablation"
    require(
        n_left_out <= len(kept), "items", rare, "items that share their lengths, or more of them (n_items, reference)"
    )
    block = longest_first(block.take(kept))

    columns, intact = [], {}
    for label, model in found.items():
        source = _source(model, ablation, block, reference, _hooks(sites_of), seed)
        scores = _measure(model, block, sites_of, source, metric, label)
        intact[str(label)] = float(scores[0].mean())
        columns.append([float((scores[0] - ablated).mean()) for ablated in scores[1:]])
    sign = 1.0 if metric == "accuracy" else -1.0
    return Result(
        name=f"{NAMES[metric]} by {ablation.value} ablation",
        values=sign * np.array(columns).T,
        axes=("part", "seed"),
        coordinates={"part": rows, "seed": list(found)},
        unit=UNITS[metric],
        direction="positive: the ablation hurts",
        what_it_does_not_show=f"{DOES_NOT_SHOW}; {OF_THE_KIND[ablation]}.",
        metadata={
            **settings,
            "ablation": ablation.value,
            "metric": metric,
            "intact": intact,
            "n_items": len(block),
            "n_items_left_out": n_left_out,
            "n_scored_tokens": int(block.scored.sum()),
        },
    )


@sized_threads
def survey(
    models: Models,
    items: Procedure | Items,
    parts: Sequence[str] | None = None,
    ablations: Sequence[Ablation] = tuple(Ablation),
    metric: Metric = "accuracy",
    **settings: Any,
) -> Result:
    """Several ablations beside each other: axes ``ablation``, ``part`` and ``seed``.

    A cell where an ablation means nothing is undefined, with the part table's reason. ``parts=None`` stands for the
    embeddings, every head with its QK and OV, and every MLP. Other arguments are those of ``run``; what
    differs in ``run``'s metadata stands under ``metadata["ablation"]``.
    """
    cfg = next(iter(by_seed(models).values())).cfg
    rows = map_parts(cfg) if parts is None else list(parts)
    for part in rows:
        select(part, cfg)  # what does not exist is an error, not an undefined cell
    maps: dict[Label, Result] = {}
    undefined: list[tuple[Where, str]] = []
    for ablation in ablations:
        why = {part: reason for part in rows if (reason := _undefined(part, cfg, ablation))}
        defined = [part for part in rows if part not in why]
        require(bool(defined), "parts", rows, f"one, at least, where {ablation.value} is defined")
        maps[ablation.value] = run(models, items, defined, ablation, metric, **settings).reindex("part", rows)
        undefined += [({"ablation": ablation.value, "part": part}, reason) for part, reason in why.items()]
    shared = {"name": NAMES[metric], "what_it_does_not_show": f"{DOES_NOT_SHOW}."}
    joined = stack({k: dataclasses.replace(r, **shared) for k, r in maps.items()}, "ablation")
    return dataclasses.replace(joined, undefined=undefined)


def map_parts(cfg: ModelConfig) -> list[str]:
    """The rows of a survey: embeddings; for each layer its heads, their QK, their OV, and the MLP."""
    rows = ["embed", "pos"]
    for layer in range(cfg.n_layers):
        inside = [part for part in components(cfg) if part.startswith(f"L{layer}.")]
        heads = [part for part in inside if not part.endswith(".mlp")]
        rows += [f"{head}{circuit}" for circuit in ("", ".QK", ".OV") for head in heads]
        rows += [part for part in inside if part not in heads]
    return rows


# ---- what stands in --------------------------------------------------------------------------------------------------


def _items(
    items: Procedure | Items, reference: Items | None, ablation: Ablation, seed: int, n_items: int
) -> tuple[Items, Items | None, dict[str, Any]]:
    """The test items, the reference items if means are wanted, and what to say of them."""
    settings: dict[str, Any] = {"seed": seed}
    known = isinstance(items, (Procedure, Items))
    require(known, "items", items, "a procedure, such as get('sort')(), or a block of its items")
    if isinstance(items, Procedure):
        settings |= {"procedure": items.to_dict(), "split": "test"}
        if ablation is Ablation.MEAN and reference is None:
            reference = items.items(REFERENCE_ITEMS, seed=seed, split="validation")
        items = items.items(n_items, seed=seed, split="test")
    require(bool(items.scored.any()), "items", "no scored position", "items with something to score")
    if ablation is not Ablation.MEAN:
        return items, None, settings
    if reference is None:
        raise ConfigError("reference is missing: a mean needs reference items when the test items are given as a block")
    return items, reference, settings | {"n_reference_items": len(reference)}


def _source(
    model: HookedTransformer, ablation: Ablation, block: Items, reference: Items | None, hooks: list[str], seed: int
) -> Source:
    """What stands in for the activations of a slice of ``block``."""
    if ablation is Ablation.ZERO:
        return lambda batch, own: {hook: torch.zeros_like(activation) for hook, activation in own.items()}
    if reference is None:
        partner = derangement(layouts(block), seed)
        return lambda batch, own: _run(model, cut(block.take(partner[batch])).tokens, hooks)[1]
    number_of = {layout: i for i, layout in enumerate(dict.fromkeys(layouts(block)))}
    means = _means(model, reference, number_of, hooks)
    group = torch.tensor([number_of[layout] for layout in layouts(block)], device=model.cfg.device)
    return lambda batch, own: {hook: _like(means[hook], own[hook])[group[batch]] for hook in own}


def _means(model: HookedTransformer, reference: Items, number_of: dict[Layout, int], hooks: list[str]) -> Activations:
    """The mean of each activation over the reference items of each layout: [layout, ...]; summed in float64."""
    groups = np.array([number_of.get(layout, -1) for layout in layouts(reference)])
    reference = longest_first(reference.take(np.flatnonzero(groups >= 0)))  # so that the first batch is the widest
    group = torch.tensor([number_of[layout] for layout in layouts(reference)], device=model.cfg.device)
    counts = torch.bincount(group)
    sums: Activations = {}
    for batch in batches(len(reference)):
        for hook, activation in _run(model, cut(reference.take(batch)).tokens, hooks)[1].items():
            if hook not in sums:
                sums[hook] = activation.new_zeros((len(number_of), *activation.shape[1:]), dtype=torch.float64)
            _like(sums[hook], activation).index_add_(0, group[batch], activation.double())
    return {hook: (s / counts.view(-1, *[1] * (s.ndim - 1))).to(model.cfg.dtype) for hook, s in sums.items()}


def _like(activations: Tensor, narrower: Tensor) -> Tensor:
    """A view of ``activations`` with as many positions as ``narrower`` has; items stay."""
    return activations[(slice(None), *(slice(n) for n in narrower.shape[1:]))]


# ---- running ---------------------------------------------------------------------------------------------------------


def _measure(
    model: HookedTransformer,
    block: Items,
    sites_of: dict[str, tuple[Site, ...]],
    source: Source,
    metric: Metric,
    seed: Label,
) -> Float[Tensor, "rows token"]:
    """The score of each scored token, float64: intact in the first row, then with each part ablated."""
    _check_no_op(model, cut(block.take(slice(NO_OP_ITEMS))), sites_of)
    columns = []
    for batch in batches(len(block)):
        items = cut(block.take(batch))
        logits, own = _run(model, items.tokens, _hooks(sites_of))
        require(bool(torch.isfinite(logits).all()), f"logits of seed {seed}", "NaN or infinity", "finite numbers")
        stand_in = source(batch, own)
        ablated = [_patched(model, items.tokens, where, stand_in) for where in sites_of.values()]
        columns.append(torch.stack([_score(each, items, metric) for each in (logits, *ablated)]))
    return torch.cat(columns, dim=1)


@torch.inference_mode()
def _run(
    model: HookedTransformer, tokens: np.ndarray, hooks: list[str]
) -> tuple[Float[Tensor, "item pos d_vocab"], Activations]:
    """Logits and the activations of ``hooks``."""
    return model.run_with_cache(torch.from_numpy(tokens), names_filter=hooks, return_cache_object=False)


@torch.inference_mode()
def _patched(model: HookedTransformer, tokens: np.ndarray, where: tuple[Site, ...], stand_in: Activations) -> Tensor:
    """Logits [item, pos, d_vocab] with the activation at each site replaced."""
    hooks: list[tuple[Any, Any]] = [
        (site.hook, functools.partial(_replace, site=site, stand_in=stand_in[site.hook])) for site in where
    ]
    return model.run_with_hooks(torch.from_numpy(tokens), fwd_hooks=hooks)


def _replace(activation: Tensor, hook: Any, site: Site, stand_in: Tensor) -> Tensor:
    if site.axis is None or site.index is None:
        return stand_in
    replaced = activation.clone()
    replaced.select(site.axis, site.index).copy_(stand_in.select(site.axis, site.index))
    return replaced


def _check_no_op(model: HookedTransformer, items: Items, sites_of: dict[str, tuple[Site, ...]]) -> None:
    """Replace each part by itself: the logits must stay the same to the bit."""
    intact, own = _run(model, items.tokens, _hooks(sites_of))
    for part, where in sites_of.items():
        if not torch.equal(intact.nan_to_num(), _patched(model, items.tokens, where, own).nan_to_num()):
            raise RuntimeError(
                f"{part}: replacing the activation by itself changed the logits; do not trust its ablation"
            )


def _score(logits: Float[Tensor, "item pos d_vocab"], items: Items, metric: Metric) -> Float[Tensor, " token"]:
    """Correct (0 or 1), or the loss (nats), of each scored token, float64."""
    scored = torch.from_numpy(items.scored)
    predicted = logits[scored.to(logits.device)].double().cpu()
    targets = torch.from_numpy(items.targets)[scored]
    if metric == "accuracy":
        return (predicted.argmax(-1) == targets).double()
    return F.cross_entropy(predicted, targets, reduction="none")


def _hooks(sites_of: dict[str, tuple[Site, ...]]) -> list[str]:
    return sorted({site.hook for where in sites_of.values() for site in where})


def _undefined(part: str, cfg: ModelConfig, ablation: Ablation) -> str:
    """Why ``ablation`` means nothing at ``part``; empty when it does mean something."""
    try:
        sites(part, cfg, ablation)
    except PartError as error:
        return str(error)
    return ""
