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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses.ablation.kinds import DOES_NOT_SHOW, OF_THE_KIND, Kind, kind_of, rows_of, sites_under
from analyses.ablation.measure import Answer, Question, answers, question
from analyses.interventions.items import Pairs
from analyses.interventions.metrics import Function, Metric, key_of, metric_of
from analyses.interventions.patch import Positions
from analyses.interventions.standing import standing
from analyses.models import Models, by_seed, sized_threads
from mechproc.model.parts import Site
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Label, Result


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
    seed: int = 0,
    **settings: Any,
) -> Result:
    """``run`` for rows that are given by their activations, as ``sites_under`` has them for the kind."""
    of_seed, measured = by_seed(models), metric_of(metric)
    cfg = next(iter(of_seed.values())).cfg
    asked = question(items, cfg, sites_of, kind, seed=seed, **settings)
    procedure = items if isinstance(items, Procedure) else None
    found = {label: one for label, (one,) in answers(of_seed, [asked], measured, seed).items()}
    return result_of(asked, found, procedure, measured)


def result_of(asked: Question, found: Mapping[Label, Answer], procedure: Procedure | None, metric: Metric) -> Result:
    """The Result of one kind of ablation from what each model scores, by seed."""
    intact = {str(label): float(one.scores[0].mean()) for label, one in found.items()}
    accuracy = {str(label): one.accuracy for label, one in found.items()}
    columns = [[float((one.scores[0] - ablated).mean()) for ablated in one.scores[1:]] for one in found.values()]
    name = key_of(metric)
    return Result(
        name=f"{metric.change} by {asked.kind} ablation",
        values=metric.sign * np.array(columns).T,
        axes=("part", "seed"),
        coordinates={"part": list(asked.rows), "seed": list(found)},
        unit=metric.unit,
        direction="positive: the ablation hurts",
        what_it_does_not_show=f"{DOES_NOT_SHOW}; {OF_THE_KIND[asked.kind]}.",
        metadata={
            **asked.settings,
            **standing(procedure, asked.chosen.items, accuracy, name),
            "ablation": asked.kind,
            "metric": name,
            "intact": intact,
            "n_items": len(asked.chosen.items),
            "n_scored_tokens": int(asked.chosen.items.scored.sum()),
        },
    )
