"""Groups of models beside each other: before pretraining, after it, after the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyses.attention.analysis import N_UNTRAINED, run
from analyses.attention.general import GENERAL
from analyses.attention.heads import best_heads, by_rank
from analyses.models import Models, sized_threads
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result, Where


@sized_threads
def compare(
    models: Mapping[str, Models],
    rules: Mapping[str, Procedure] | None = None,
    targets: list[str] | None = None,
    *,
    seed: int = 0,
    n_items: int | None = None,
    n_untrained: int = N_UNTRAINED,
) -> Result:
    """Where the heads of several groups of models look: axes ``mask``, ``group``, ``rank`` and ``seed``.

    Heads are ranked within each model and target, 1 is the best; a rank is not one head across models or groups. Of
    heads that keep their place within a run, ``before_after`` keeps track.

    - ``models``: by group, such as ``{"untrained": ..., "pretrained": ..., "after the task": ...}``, and for each by
      seed; they may have different tokens and contexts, but as many heads;
    - ``rules``: by group, the rule whose test items and attention targets it is scored on as well; groups without one
      are scored on the general targets alone, on random tokens of their own vocabulary;
    - ``targets``: names of attention targets; by default all of any group;
    - ``seed``: of the items;
    - ``n_items``, ``n_untrained``: as for ``run``.

    Seeds that a group lacks are missing, targets that its rule lacks undefined. ``metadata["baselines"]`` has by
    target and group what uniform attention and the best head of untrained models score, ``metadata["above"]`` in how
    many seeds the best head is above both. Errors: ``ConfigError``, as for ``run``, and for groups of other sizes.
    """
    require(isinstance(models, Mapping) and len(models) > 0, "models", models, "groups of models, by name")
    rules = dict(rules or {})
    for group in rules:
        if group not in models:
            raise ConfigError(f"rules: {group!r} is not one of {', '.join(models)}{nearest(group, models)}")
    offered = {g: [*(type(rules[g]).attention_target_names if g in rules else ()), *GENERAL] for g in models}
    known = list(dict.fromkeys(name for names in offered.values() for name in names))
    require(targets is None or len(targets) > 0, "targets", targets, f"at least one of {', '.join(known)}")
    for name in targets or ():
        if name not in known:
            raise ConfigError(f"targets: {name!r} is not one of {', '.join(known)}{nearest(name, known)}")
    found: dict[str, Result] = {}
    for group, of_group in models.items():
        wanted = None if targets is None else [name for name in targets if name in offered[group]]
        if wanted is None or wanted:
            found[group] = run(of_group, rules.get(group), wanted, seed=seed, n_items=n_items, n_untrained=n_untrained)
    return _beside(list(models), found, [name for name in known if any(name in _masks(r) for r in found.values())])


# ---- inside ----------------------------------------------------------------------------------------------------------


def _beside(groups: list[str], found: Mapping[str, Result], masks: list[str]) -> Result:
    ranked = {group: by_rank(result) for group, result in found.items()}
    first = next(iter(ranked.values()))
    ranks = first.coordinates["rank"]
    for group, result in ranked.items():
        n = len(result.coordinates["rank"])
        require(result.coordinates["rank"] == ranks, f"heads of {group}", n, f"{len(ranks)}, as of {groups[0]}")
    seeds = list(dict.fromkeys(seed for result in ranked.values() for seed in result.coordinates["seed"]))
    values = np.full((len(masks), len(groups), len(ranks), len(seeds)), np.nan)
    undefined: list[tuple[Where, str]] = []
    for (row, mask), (column, group) in ((m, g) for m in enumerate(masks) for g in enumerate(groups)):
        if group not in ranked or mask not in _masks(ranked[group]):
            undefined.append(({"mask": mask, "group": group}, f"{group} was not scored on this target"))
            continue
        values[row, column] = ranked[group].select(mask=mask).reindex("seed", seeds).values
        reasons = [reason for where, reason in ranked[group].undefined if where.get("mask") == mask]
        undefined += [({"mask": mask, "group": group}, reason) for reason in reasons]
    best = {group: best_heads(result) for group, result in found.items()}
    with_best = [(mask, group) for mask in masks for group in best if mask in best[group]]
    above: dict[str, dict[str, Any]] = {mask: {} for mask, _ in with_best}
    for mask, group in with_best:
        each = best[group][mask]
        above[mask][group] = {"above": len(each.above), "of": len(each.scores)}
    labels: dict[str, list[Label]] = {"mask": [*masks], "group": [*groups], "rank": [*ranks], "seed": seeds}
    return Result(
        name=first.name,
        values=values,
        axes=tuple(labels),
        coordinates=labels,
        unit=first.unit,
        direction=first.direction,
        what_it_does_not_show=first.what_it_does_not_show,
        undefined=undefined,
        metadata={
            "warnings": [f"{group}: {sentence}" for group, result in found.items() for sentence in result.warnings],
            "sentences": [f"{group}: {best[group][mask].sentence()}" for mask, group in with_best],
            "baselines": {mask: {group: best[group][mask].baselines for group in of} for mask, of in above.items()},
            "above": above,
        },
    )


def _masks(result: Result) -> list[str]:
    return [str(mask) for mask in result.coordinates["mask"]]
