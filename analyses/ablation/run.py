"""What a model loses when a part of it is replaced; ``analyses.ablation.kinds`` says by what.

**Alignment.** Mean and resample put into a position what the part does at the same position of other items *of the same
layout* (see ``analyses.interventions.items``). The mean of a part is taken for each layout over reference items of the
validation split; an item is resampled from another test item of its layout. Items whose layout is too rare for that are
left out of the intact score and the ablated one alike, and counted. A counterfactual takes what the part does in the
item's corrupt partner, a minimal pair. The scale of a LayerNorm is frozen at its mean at the position, for each layout.

**LayerNorms.** An activation can be replaced while the others follow from it; the affine and the scale of a LayerNorm
are part of how they follow. These two kinds are therefore run on a changed model: with other weights, or with the scale
replaced in the hooked model, each LayerNorm reading what the changed model gives it.

**Mean rows.** The mean is that of the rows of W_E for the tokens in use, each counted once however often it occurs, and
of the rows of W_pos for the positions in use. In use is what stands at or before the last scored position of a
reference item.

**Controls.** Before anything is measured, every part is replaced by its own activation, which must change the logits by
exactly 0; the sweep's forward pass is held to the hooked model, and an untouched row of each batch to the intact run.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analyses.ablation.kinds import DOES_NOT_SHOW, OF_THE_KIND, Kind, kind_of, layernorm_of, rows_of, sites_under
from analyses.interventions.activations import Activations
from analyses.interventions.items import Pairs, check_items, cut, frequent
from analyses.interventions.metrics import Function, Metric, key_of, metric_of, scored_tokens
from analyses.interventions.patch import Positions, check_no_op, patches_from, run_with_patches
from analyses.interventions.stand_ins import LEAST, Ablated, StandIns, chosen_items, rows_in_use
from analyses.interventions.standing import standing
from analyses.interventions.sweep import sweep
from analyses.interventions.trace import Trace, Weights, at, check_trace, in_enough_precision, require_finite, trace
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Items, Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result

NO_OP_ITEMS = 8
"""Items on which every part is first replaced by itself."""


@sized_threads
def run(
    models: Models,
    items: Procedure | Items | Pairs,
    parts: Sequence[str] | None = None,
    ablation: Kind = "zero",
    metric: str | Metric | Function = "accuracy",
    *,
    reference: Items | None = None,
    pair: str | None = None,
    partners: Any = None,
    positions: Positions = None,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """How much worse each model is without each part: axes ``part`` and ``seed``.

    The value is the mean over scored tokens, intact less ablated where a higher score is better, else ablated less
    intact: positive when the ablation hurts. ``metadata`` has the ``intact`` score and accuracy by seed, the rule's
    ``ceiling`` and ``baselines``, and ``warnings`` that a reader needs first.

    - ``models``: one for each seed, all of one shape;
    - ``items``: the procedure, of which the first ``n_items`` (1,024 by default) test items of ``seed`` are taken; or
      items, or ``Pairs``, of one's own;
    - ``parts``: part expressions, each ablated as a whole, or ``components`` (every head and MLP), ``layers`` (each
      layer's attention, MLP, and both), ``layernorms``, ``embeddings``; ``None`` for the rows that the kind is made
      for, which are the components unless it is one of LayerNorms or embeddings;
    - ``ablation``: ``"zero"``, ``"mean"``, ``"resample"``, ``"counterfactual"``, of LayerNorms ``"identity_affine"`` or
      ``"frozen_scale"``, of embeddings ``"mean_row"``;
    - ``metric``: ``"accuracy"``, ``"loss"`` (nats), ``"logit_diff"`` (with pairs), a ``Metric``, or a function of
      logits and ``ScoredTokens`` that gives one score for each token, higher being better;
    - ``reference``: the items that means are taken over; by default of the validation split. For ``mean_row`` of items
      of one's own, these items themselves;
    - ``pair``: for a counterfactual of a procedure, the kind of minimal pair;
    - ``partners``: for resample, the item that each item takes the activation from, whole numbers [item];
    - ``positions``: where the part is replaced: whole numbers [k], or [item, k]; by default everywhere, which is all
      that ``identity_affine`` can do;
    - ``seed``: of the items and of who is resampled from whom. Every model gets the same;
    - ``n_items``: how many test items of the procedure, 1,024 by default.

    Errors: ``PartError`` for a part that does not exist or where the ablation is undefined (``compare`` marks these
    instead); ``ConfigError`` for models or items that do not fit, or when fewer than half of the items can be aligned.
    """
    cfg, kind = next(iter(by_seed(models).values())).cfg, kind_of(ablation)
    groups = {row: sites_under(row, cfg, kind) for row in rows_of(parts, cfg, kind)}
    return effects(
        models, items, groups, kind, metric, reference=reference, pair=pair, partners=partners, positions=positions,
        seed=seed, n_items=n_items,
    )  # fmt: skip


def effects(
    models: Models,
    items: Procedure | Items | Pairs,
    sites_of: Mapping[str, tuple[Site, ...]],
    kind: str,
    metric: str | Metric | Function,
    *,
    reference: Items | None = None,
    pair: str | None = None,
    partners: Any = None,
    positions: Positions = None,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """``run`` for rows that are given by their activations, as ``sites_under`` has them for the kind."""
    of_seed, measured = by_seed(models), metric_of(metric)
    cfg = next(iter(of_seed.values())).cfg
    everywhere = "None for identity_affine: a LayerNorm has one weight and one bias for all positions"
    require(kind != "identity_affine" or positions is None, "positions", positions, everywhere)
    chosen, settings = chosen_items(items, kind, reference, pair, partners, seed, n_items)
    check_items(chosen.items, cfg)
    if chosen.reference is not None:
        check_items(chosen.reference, cfg, "reference")
    settings["n_items_left_out"] = 0
    least = LEAST.get(kind, 0)
    if least and chosen.partners is None:
        kept = frequent(chosen.items, chosen.reference or chosen.items, least)
        settings["n_items_left_out"] = left_out = len(chosen.items) - len(kept)
        rare = f"{left_out} of {len(chosen.items)} have a layout too rare for {kind} ablation"
        more = "items that share their lengths, or more of them (n_items, reference)"
        require(left_out <= len(kept), "items", rare, more)
        chosen = chosen.take(kept, positions)
    else:
        chosen = chosen.take(np.arange(len(chosen.items)), positions)

    if kind == "mean_row":
        tokens, n_positions = rows_in_use(chosen)
        settings |= {"n_tokens_in_use": len(tokens), "n_positions_in_use": n_positions}

    columns, intact, accuracy = [], {}, {}
    for label, model in progress(of_seed.items(), f"{kind} ablation"):
        scores, right = in_enough_precision(
            functools.partial(
                _measure, chosen=chosen, sites_of=sites_of, kind=kind, metric=measured, seed=label, partner_seed=seed
            ),
            model,
        )
        intact[str(label)], accuracy[str(label)] = float(scores[0].mean()), right
        columns.append([float((scores[0] - ablated).mean()) for ablated in scores[1:]])
    procedure = items if isinstance(items, Procedure) else None
    name = key_of(measured)
    return Result(
        name=f"{measured.change} by {kind} ablation",
        values=measured.sign * np.array(columns).T,
        axes=("part", "seed"),
        coordinates={"part": list(sites_of), "seed": list(of_seed)},
        unit=measured.unit,
        direction="positive: the ablation hurts",
        what_it_does_not_show=f"{DOES_NOT_SHOW}; {OF_THE_KIND[kind]}.",
        metadata={
            **settings,
            **standing(procedure, chosen.items, accuracy, name),
            "ablation": kind,
            "metric": name,
            "intact": intact,
            "n_items": len(chosen.items),
            "n_scored_tokens": int(chosen.items.scored.sum()),
        },
    )


def _measure(
    model: HookedTransformer,
    chosen: Ablated,
    sites_of: Mapping[str, tuple[Site, ...]],
    kind: str,
    metric: Metric,
    seed: Label,
    partner_seed: int,
) -> tuple[torch.Tensor, float]:
    """The score of each scored token, float64 [row, token], intact in the first row; and the intact accuracy."""
    model.require_no_hooks()
    first, cells = cut(chosen.items.take(slice(NO_OP_ITEMS))), model.cfg.input == "vectors"
    weights = Weights.of(model)
    require_finite(trace(weights, first).logits, seed)
    check_trace(model, first)
    check_no_op(model, first, sites_of)
    hooks = sorted({site.hook for where in sites_of.values() for site in where})
    stand_ins = StandIns(weights, chosen, kind, hooks, partner_seed)
    columns, right = [], []
    for batch in batches(len(chosen.items)):
        items = cut(chosen.items.take(batch))
        intact = trace(weights, items)
        require_finite(intact.logits, seed)
        values, places = stand_ins.of(batch, intact), chosen.positions_of(batch)
        corrupt = None if chosen.corrupt is None else chosen.corrupt.take(batch)
        tokens = scored_tokens(items, weights.state["embed.W_E"].device, corrupt, cells)
        rows: list[Any] = [None] * (1 + len(sites_of))
        own = intact.logits[intact.real].double()
        rows[0] = metric(own, tokens)
        right.append(metric_of("accuracy")(own, tokens))
        for indices, logits in _ablated(intact, list(sites_of.values()), kind, values, places):
            for index, ablated in zip(indices, logits, strict=True):
                rows[1 + index] = metric(ablated[intact.real].double(), tokens)
        columns.append(torch.stack(rows))
    return torch.cat(columns, dim=1), float(torch.cat(right).mean())


def _ablated(
    intact: Trace, groups: Sequence[tuple[Site, ...]], kind: str, values: Activations, places: np.ndarray | None
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The logits with each group of sites ablated, as ``sweep`` yields them."""
    if kind == "identity_affine":
        for number, where in enumerate(groups):
            yield [number], trace(_without_affine(intact.weights, where), intact.items).logits[None]
    elif kind == "frozen_scale":
        hooked = HookedTransformer(intact.cfg, intact.weights.state, device=intact.logits.device)
        for number, where in enumerate(groups):
            logits = run_with_patches(hooked, intact.items, patches_from(values, where, places))
            yield [number], at(logits, intact.scored)[None]
    else:
        yield from sweep(intact, [patches_from(values, where, places) for where in groups])


def _without_affine(weights: Weights, where: Sequence[Site]) -> Weights:
    """The same weights, but 1 and 0 for the weight and bias of the LayerNorms of these sites."""
    state = dict(weights.state)
    for name in map(layernorm_of, where):
        state |= {f"{name}.w": torch.ones_like(state[f"{name}.w"]), f"{name}.b": torch.zeros_like(state[f"{name}.b"])}
    return dataclasses.replace(weights, state=state)
