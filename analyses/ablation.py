"""What a model loses when a part of it is replaced: zero, mean, resample and counterfactual ablation.

**Alignment.** Mean and resample put into a position what the part does at the same position of other items *of the same
layout* (see ``analyses.interventions.items``). The mean of a part is taken for each layout over reference items of the
validation split; an item is resampled from another test item of its layout. Items whose layout is too rare for that are
left out of the intact score and the ablated one alike, and counted. A counterfactual takes what the part does in the
item's corrupt partner, a minimal pair.

**Controls.** Before anything is measured, every part is replaced by its own activation, which must change the logits by
exactly 0; the sweep's forward pass is held to the hooked model, and an untouched row of each batch to the intact run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from analyses.interventions.items import Pairs, check_items, cut, frequent
from analyses.interventions.metrics import Function, Metric, metric_of, scored_tokens
from analyses.interventions.patch import Positions, check_no_op, patches_from
from analyses.interventions.stand_ins import MIN_REFERENCE, Ablated, StandIns, chosen_items
from analyses.interventions.standing import standing
from analyses.interventions.sweep import sweep
from analyses.interventions.trace import Weights, check_trace, require_finite, trace
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation, Site, components, select, sites
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Label, Result, Where, stack
from mechproc.statistics.shapley import coalitions, shapley_values

Kind = Ablation | str
"""``"zero"``, ``"mean"``, ``"resample"``, ``"counterfactual"``, or an ``Ablation``."""
NO_OP_ITEMS = 8
"""Items on which every part is first replaced by itself."""
DOES_NOT_SHOW = (
    "what the part computes, or that a part without effect is unused: where another part does the same, neither shows; "
    "and what is lost includes all that later parts made of it"
)
OF_THE_KIND = {
    "zero": "zeros may be far from anything the part ever writes, and upset the rest",
    "mean": "what the part writes in every item of a layout alike stays in place",
    "resample": "the other item's activation brings its own information, which can mislead more than none",
    "counterfactual": "a part shows only as far as it carries what the pair changes",
}


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
    - ``parts``: part expressions, each ablated as a whole; ``None`` for every head and MLP;
    - ``ablation``: ``"zero"``, ``"mean"``, ``"resample"`` or ``"counterfactual"``;
    - ``metric``: ``"accuracy"``, ``"loss"`` (nats), ``"logit_diff"`` (with pairs), a ``Metric``, or a function of
      logits and ``ScoredTokens`` that gives one score for each token, higher being better;
    - ``reference``: the items that means are taken over; by default of the validation split;
    - ``pair``: for a counterfactual of a procedure, the kind of minimal pair;
    - ``partners``: for resample, the item that each item takes the activation from, whole numbers [item];
    - ``positions``: where the part is replaced: whole numbers [k], or [item, k]; by default everywhere;
    - ``seed``: of the items and of who is resampled from whom. Every model gets the same;
    - ``n_items``: how many test items of the procedure, 1,024 by default.

    Errors: ``PartError`` for a part that does not exist or where the ablation is undefined (``compare`` marks these
    instead); ``ConfigError`` for models or items that do not fit, or when fewer than half of the items can be aligned.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    rows = components(cfg) if parts is None else list(parts)
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    kind, measured = kind_of(ablation), metric_of(metric)
    sites_of = {part: sites(part, cfg, _table_kind(kind)) for part in rows}
    chosen, settings = chosen_items(items, kind, reference, pair, partners, seed, n_items)
    check_items(chosen.items, cfg)
    settings["n_items_left_out"] = 0
    least = {"mean": MIN_REFERENCE, "resample": 2}.get(kind, 0)
    if least and chosen.partners is None:
        kept = frequent(chosen.items, chosen.reference or chosen.items, least)
        settings["n_items_left_out"] = left_out = len(chosen.items) - len(kept)
        rare = f"{left_out} of {len(chosen.items)} have a layout too rare for {kind} ablation"
        more = "items that share their lengths, or more of them (n_items, reference)"
        require(left_out <= len(kept), "items", rare, more)
        chosen = chosen.take(kept, positions)
    else:
        chosen = chosen.take(np.arange(len(chosen.items)), positions)

    columns, intact, accuracy = [], {}, {}
    for label, model in tqdm(of_seed.items(), desc=f"{kind} ablation", unit="model", leave=False, disable=None):
        scores, right = _measure(model, chosen, sites_of, kind, measured, label, seed)
        intact[str(label)], accuracy[str(label)] = float(scores[0].mean()), right
        columns.append([float((scores[0] - ablated).mean()) for ablated in scores[1:]])
    procedure = items if isinstance(items, Procedure) else None
    name = metric if isinstance(metric, str) else measured.name
    return Result(
        name=f"{measured.change} by {kind} ablation",
        values=measured.sign * np.array(columns).T,
        axes=("part", "seed"),
        coordinates={"part": rows, "seed": list(of_seed)},
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


@sized_threads
def compare(
    models: Models,
    items: Procedure | Items | Pairs,
    parts: Sequence[str] | None = None,
    ablations: Sequence[Kind] = ("zero", "mean", "resample"),
    metric: str | Metric | Function = "accuracy",
    **settings: Any,
) -> Result:
    """Several ablations side by side: axes ``ablation``, ``part`` and ``seed``.

    A cell where an ablation means nothing is undefined, with the part table's reason. ``parts=None`` stands for the
    embeddings, every head with its QK and OV, and every MLP. Other arguments are those of ``run``; what
    differs in ``run``'s metadata stands under ``metadata["ablation"]``.
    """
    cfg = next(iter(by_seed(models).values())).cfg
    rows = map_parts(cfg) if parts is None else list(parts)
    for part in rows:
        select(part, cfg)  # what does not exist is an error, not an undefined cell
    kinds = [kind_of(ablation) for ablation in ablations]
    require(bool(kinds) and len(set(kinds)) == len(kinds), "ablations", kinds, "at least one, each once")
    maps: dict[Label, Result] = {}
    undefined: list[tuple[Where, str]] = []
    for kind in kinds:
        reasons = {part: reason for part in rows if (reason := _undefined(part, cfg, kind))}
        defined = [part for part in rows if part not in reasons]
        require(bool(defined), "parts", rows, f"one, at least, where {kind} is defined")
        maps[kind] = run(models, items, defined, kind, metric, **settings).reindex("part", rows)
        undefined += [({"ablation": kind, "part": part}, reason) for part, reason in reasons.items()]
    shared = {"name": metric_of(metric).change, "what_it_does_not_show": f"{DOES_NOT_SHOW}."}
    joined = stack({k: dataclasses.replace(r, **shared) for k, r in maps.items()}, "ablation")
    warnings = next((each.warnings for each in maps.values() if each.warnings), [])  # the kinds share models and rule
    return dataclasses.replace(joined, undefined=undefined, metadata={**joined.metadata, "warnings": warnings})


@sized_threads
def shapley(
    models: Models,
    items: Procedure | Items | Pairs,
    parts: Sequence[str],
    ablation: Kind = "mean",
    metric: str | Metric | Function = "loss",
    **settings: Any,
) -> Result:
    """How the loss of all ``parts`` together is shared among them: axes ``part`` and ``seed``.

    Every coalition of up to 10 parts is ablated, 2^n in all; the exact Shapley value of a part is the mean of what its
    ablation costs after those of the parts before it, over all orders (``mechproc.statistics.shapley``). The values of
    a seed add up to ``metadata["together"]``, what ablating all of them costs, so that twins of which either is enough
    share what neither shows alone. ``metadata["alone"]`` has what each costs by itself. Other arguments are those of
    ``run``. Errors: those of ``run``; ``ConfigError`` for more than 10 parts, ``PartError`` for parts that overlap.
    """
    cfg = next(iter(by_seed(models).values())).cfg
    rows = list(parts)
    groups = [group for group in coalitions(rows) if group]
    for number, part in enumerate(rows):
        for other in rows[:number]:
            if select(part, cfg) & select(other, cfg):
                raise PartError(f"{part!r} and {other!r} overlap: a part can be in one player only")
    names = [" + ".join(part for part in rows if part in group) for group in groups]
    lost = run(models, items, names, ablation, metric, **settings)
    values = np.concatenate([np.zeros((1, lost.values.shape[1])), lost.values])  # without anything ablated: no loss
    shares = shapley_values(values, len(rows))
    seeds = [str(seed) for seed in lost.coordinates["seed"]]
    alone = {part: dict(zip(seeds, lost.select(part=part).values.tolist(), strict=True)) for part in rows}
    return dataclasses.replace(
        lost,
        name=f"{lost.name}: Shapley value",
        values=shares,
        coordinates={"part": rows, "seed": lost.coordinates["seed"]},
        direction="positive: the part carries some of what is lost without all of them",
        what_it_does_not_show="whether a part works alone or only with others: hold the value against "
        f"metadata['alone']; {OF_THE_KIND[kind_of(ablation)]}.",
        metadata={
            **lost.metadata,
            "together": dict(zip(seeds, lost.values[-1].tolist(), strict=True)),
            "alone": alone,
            "n_coalitions": 2 ** len(rows),
        },
    )


def agreement(compared: Result) -> Result:
    """How alike two kinds of ablation rank the parts: axes ``first``, ``second`` and ``seed``.

    ``compared`` is what ``compare`` returns. The value is Spearman's rank correlation over the parts where both kinds
    are defined; undefined where fewer than three are, or where all effects of a kind are the same.
    """
    require(set(compared.axes) == {"ablation", "part", "seed"}, "axes", tuple(compared.axes), "those of compare()")
    kinds, seeds = compared.coordinates["ablation"], compared.coordinates["seed"]
    values = np.full((len(kinds), len(kinds), len(seeds)), np.nan)
    undefined: list[tuple[Where, str]] = []
    for column, seed in enumerate(seeds):
        effects = [compared.select(ablation=kind, seed=seed).values for kind in kinds]
        for i, first in enumerate(effects):
            for j, second in enumerate(effects):
                both = np.isfinite(first) & np.isfinite(second)
                flat = both.sum() < 3 or np.ptp(first[both]) == 0 or np.ptp(second[both]) == 0
                if flat:
                    where = {"first": kinds[i], "second": kinds[j], "seed": seed}
                    undefined.append((where, "fewer than three parts, or all effects the same"))
                else:
                    ranks: Any = spearmanr(first[both], second[both])
                    values[i, j, column] = ranks.statistic
    return Result(
        name=f"rank correlation of kinds of ablation ({compared.name})",
        values=values,
        axes=("first", "second", "seed"),
        coordinates={"first": kinds, "second": kinds, "seed": seeds},
        unit="correlation",
        direction="1: the same order of parts; 0: no relation; -1: the reverse order",
        what_it_does_not_show="which kind is right, nor that the largest effects agree: many small ones weigh as much.",
        undefined=undefined,
    )


def map_parts(cfg: ModelConfig) -> list[str]:
    """The rows of a comparison: embeddings; for each layer its heads, their QK, their OV, and the MLP."""
    rows = ["embed", "pos"]
    for layer in range(cfg.n_layers):
        inside = [part for part in components(cfg) if part.startswith(f"L{layer}.")]
        heads = [part for part in inside if not part.endswith(".mlp")]
        rows += [f"{head}{circuit}" for circuit in ("", ".QK", ".OV") for head in heads]
        rows += [part for part in inside if part not in heads]
    return rows


def kind_of(ablation: Kind) -> str:
    """The name of an ablation, from the name or the ``Ablation``."""
    kind = ablation.value if isinstance(ablation, Ablation) else ablation
    require(kind in OF_THE_KIND, "ablation", kind, f"one of {', '.join(OF_THE_KIND)}")
    return kind


def _table_kind(kind: str) -> Ablation:
    """The column of the part table: a counterfactual is defined where resampling is."""
    return Ablation.RESAMPLE if kind == "counterfactual" else Ablation(kind)


def _measure(
    model: HookedTransformer,
    chosen: Ablated,
    sites_of: dict[str, tuple[Site, ...]],
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
        interventions = [patches_from(values, where, places) for where in sites_of.values()]
        for indices, logits in sweep(intact, interventions):
            for index, ablated in zip(indices, logits, strict=True):
                rows[1 + index] = metric(ablated[intact.real].double(), tokens)
        columns.append(torch.stack(rows))
    return torch.cat(columns, dim=1), float(torch.cat(right).mean())


def _undefined(part: str, cfg: ModelConfig, kind: str) -> str:
    """Why an ablation means nothing at ``part``; empty when it does mean something."""
    try:
        sites(part, cfg, _table_kind(kind))
    except PartError as error:
        return str(error)
    return ""
