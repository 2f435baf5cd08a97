"""Scores of every head beside what uniform attention and untrained models score, for a rule, for items, or for none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analyses.attention.general import GENERAL, general_masks, repeated
from analyses.attention.heads import best_heads
from analyses.attention.reading import NOT_USED, check_fits, layer_patterns
from analyses.attention.targets import scores
from analyses.interventions.standing import standing
from analyses.models import Models, by_seed, sized_threads, untrained
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.model.config import ModelConfig
from mechproc.procedures.base import Items, Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result

N_ITEMS = 512
"""Items of a rule that heads are scored on unless told otherwise."""
N_REPEATED = 64
"""Sequences of random tokens, at most."""
N_UNTRAINED = 19
"""Untrained models that a score is held against: one more of them is above all these by chance in 1 of 20 cases."""


@sized_threads
def run(
    models: Models,
    items: Procedure | Items | None = None,
    targets: Sequence[str] | None = None,
    *,
    seed: int = 0,
    n_items: int | None = None,
    n_untrained: int = N_UNTRAINED,
) -> Result:
    """How much each head looks where a head of a named function does: axes ``mask``, ``layer``, ``head`` and ``seed``.

    These are the ``scores`` of the rule's own attention targets on its test items, and of the targets of ``GENERAL``,
    which need no rule, on random tokens that are repeated once.

    - ``items``: the rule; without one, the general targets alone; or items of one's own, whose general targets are
      then those in their own tokens;
    - ``targets``: names of attention targets, the rule's and general ones; by default all;
    - ``seed``: of the items;
    - ``n_items``: how many, by default 512 of the rule; of sequences of random tokens at most 64;
    - ``n_untrained``: how many untrained models of the same shape are scored as well.

    ``metadata["baselines"]`` has for each target what ``uniform attention`` scores and what the best head of any of the
    ``untrained models`` does: the best of several heads is a maximum, to be held against one. A further untrained model
    is above all of n by chance with probability 1 / (n + 1) for each target. ``metadata["sentences"]`` counts the seeds
    that are above both (``best_heads``). ``metadata["warnings"]`` says first which models do not know the rule, and
    which targets no head of any model looks at. Errors: ``ConfigError`` for a target that is not known, and models
    that cannot read the items.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    _check(items, n_untrained)
    asked = _asked(items, targets, cfg, seed, n_items)
    fresh = untrained(cfg, n_untrained)
    found = [_both(of_seed, fresh, block, masks) for block, masks, _ in asked]
    whole = _joined([trained for trained, _ in found])
    best = {mask: score for _, of_fresh in found for mask, score in of_fresh.items()}
    uniform = whole.metadata["uniform"]
    levels = {mask: {"uniform attention": uniform[mask], "untrained models": max(best[mask])} for mask in uniform}
    procedure = items if isinstance(items, Procedure) else None
    accuracy = found[0][0].metadata.get("accuracy") if procedure is not None else None
    stands = {} if accuracy is None else standing(procedure, asked[0][0], accuracy, "accuracy")
    stands.pop("ceiling", None)  # of the rule's accuracy, which is no ceiling of attention
    described = {mask: {"looks": text, "on": on} for _, masks, on in asked for mask, text in _texts(masks, items)}
    result = dataclasses.replace(
        whole,
        metadata={
            **stands,
            "uniform": uniform,
            "n_items": whole.metadata["n_items"],
            "seed": seed,
            "n_untrained": n_untrained,
            "targets": described,
            "baselines": levels,
            "untrained_best": best,
            **({} if procedure is None else {"procedure": procedure.to_dict(), "split": "test"}),
        },
    )
    return _judged(result)


@sized_threads
def entropy(
    models: Models,
    items: Procedure | Items | None = None,
    *,
    seed: int = 0,
    n_items: int | None = None,
    n_untrained: int = N_UNTRAINED,
) -> Result:
    """How widely each head spreads its attention, as entropy: axes ``layer``, ``head`` and ``seed``, in nats.

    The entropy of the attention of a query over its keys, -sum p ln p, mean over the queries of an item that can see
    two keys or more, then over items. The exponential of an entropy is an effective number of keys.
    ``metadata["maximum"]`` is the entropy of uniform attention on the same queries; ``metadata["baselines"]`` has it
    beside the lowest entropy of any head of the untrained models.

    - ``items``: a rule, whose test items are read, or items of one's own; without either, random tokens that are
      repeated once;
    - ``seed``: of the items;
    - ``n_items``: how many, by default 512 of the rule;
    - ``n_untrained``: how many untrained models of the same shape are measured as well.

    Errors: ``ConfigError`` for models that cannot read the items, and items that are all shorter than two tokens.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    _check(items, n_untrained)
    block, about = _read(items, cfg, seed, n_items)
    check_fits(block, cfg)
    n_pos = block.tokens.shape[1]
    counted = (np.arange(n_pos) >= 1) & (np.arange(n_pos) < block.n_tokens[:, None])
    n_queries = counted.sum(axis=1)
    require(bool(n_queries.any()), "items", "items of one token", "items of two tokens or more")
    weights = counted / np.maximum(n_queries * int((n_queries > 0).sum()), 1)[:, None]
    maximum = float((weights * np.log(np.arange(n_pos) + 1)).sum())
    values = _entropies(of_seed, block, weights)
    lowest = _entropies(dict(enumerate(untrained(cfg, n_untrained))), block, weights).min(axis=(0, 1))
    axes = {"layer": range(cfg.n_layers), "head": range(cfg.n_heads), "seed": of_seed}
    return Result(
        name="entropy of attention",
        values=values,
        axes=tuple(axes),
        coordinates={axis: list(labels) for axis, labels in axes.items()},
        unit="nats",
        direction="lower: the head attends to fewer keys",
        what_it_does_not_show=f"where the head looks; nor {NOT_USED}.",
        metadata={
            "maximum": maximum,
            "baselines": {"uniform attention": maximum, "untrained models": float(lowest.min())},
            "n_untrained": n_untrained,
            "untrained_lowest": lowest.tolist(),
            "seed": seed,
            "n_items": len(block),
            "on": about,
            **({"procedure": items.to_dict(), "split": "test"} if isinstance(items, Procedure) else {}),
        },
    )


# ---- inside ----------------------------------------------------------------------------------------------------------


def _check(items: object, n_untrained: int) -> None:
    known = items is None or isinstance(items, (Procedure, Items))
    require(known, "items", items, "a procedure, its items, or own_items(tokens)")
    require(n_untrained >= 1, "n_untrained", n_untrained, "at least 1")


def _asked(
    items: Any, targets: Sequence[str] | None, cfg: ModelConfig, seed: int, n_items: int | None
) -> list[tuple[Items, dict[str, np.ndarray], str]]:
    """Items, their masks, and what they are: those of the rule, then random tokens; or items of one's own."""
    own = type(items).attention_target_names if isinstance(items, Procedure) else {}
    general = list(GENERAL)
    if cfg.input == "vectors":  # neighbours can be told in vectors, equal tokens cannot
        general = [] if not isinstance(items, Items) else general[:1]
    known = [*own, *(name for name in general if name not in own)]
    require(bool(known), "items", items, "a rule with attention targets: these models read vectors")
    chosen = known if targets is None else list(targets)
    require(bool(chosen), "targets", chosen, f"at least one of {', '.join(known)}")
    for name in chosen:
        if name not in known:
            raise ConfigError(f"targets: {name!r} is not one of {', '.join(known)}{nearest(name, known)}")
    found = []
    if items is not None and (isinstance(items, Items) or own.keys() & set(chosen)):
        block, about = _read(items, cfg, seed, n_items)
        check_fits(block, cfg)
        masks = items.attention_targets(block) if isinstance(items, Procedure) else general_masks(block)
        found.append((block, {name: masks[name] for name in chosen if name in masks}, about))
    left = [name for name in chosen if name not in own]
    if not isinstance(items, Items) and left:
        block, about = _read(None, cfg, seed, n_items)
        masks = general_masks(block)
        found.append((block, {name: masks[name] for name in left}, about))
    return found


def _read(items: Any, cfg: ModelConfig, seed: int, n_items: int | None) -> tuple[Items, str]:
    """The items that are read, and what they are."""
    if isinstance(items, Procedure):
        n = N_ITEMS if n_items is None else n_items
        return items.items(n, seed=seed, split="test"), f"test items of {items.short_name}"
    if items is None:
        n = N_REPEATED if n_items is None else min(n_items, N_REPEATED)
        return repeated(cfg, n, seed), "random tokens, repeated once"
    require(n_items is None, "n_items", n_items, "None when items are given: take them with Items.take")
    return items, "the items given"


def _both(of_seed: Any, fresh: Any, block: Items, masks: Mapping[str, np.ndarray]) -> tuple[Result, dict]:
    """The scores of the models, and by mask the best head's of each untrained model."""
    trained, begun = scores(of_seed, block, masks), scores(fresh, block, masks)
    best = begun.values.max(axis=(1, 2))
    return trained, {mask: best[row].tolist() for row, mask in enumerate(masks) if mask in begun.metadata["uniform"]}


def _joined(found: Sequence[Result]) -> Result:
    """Results of the same models, one mask below the other."""
    both = {field: {k: v for r in found for k, v in r.metadata[field].items()} for field in ("uniform", "n_items")}
    return dataclasses.replace(
        found[0],
        values=np.concatenate([each.values for each in found]),
        coordinates={**found[0].coordinates, "mask": [m for each in found for m in each.coordinates["mask"]]},
        undefined=[where for each in found for where in each.undefined],
        metadata=both,
    )


def _texts(masks: Mapping[str, np.ndarray], items: Any) -> list[tuple[str, str]]:
    own = type(items).attention_target_names if isinstance(items, Procedure) else {}
    return [(mask, {**GENERAL, **own}[mask]) for mask in masks]


def _judged(result: Result) -> Result:
    """The Result with the counts of ``best_heads``, and a warning of targets that no model's head looks at."""
    best = best_heads(result)
    nowhere = [mask for mask, each in best.items() if not each.above]
    warnings = list(result.metadata.get("warnings", []))
    if nowhere:
        warnings.append(
            f"No head of any model attends more than the best head of {result.metadata['n_untrained']} untrained "
            f"models does to {', '.join(nowhere)}: the order of heads by such a score is chance."
        )
    sentences = [each.sentence() for each in best.values()]
    return dataclasses.replace(result, metadata={**result.metadata, "warnings": warnings, "sentences": sentences})


def _entropies(of_seed: Mapping[Label, Any], block: Items, weights: np.ndarray) -> np.ndarray:
    """float64 [layer, head, seed]."""
    columns = []
    for seed, model in progress(of_seed.items(), "entropy"):
        sums = np.zeros((model.cfg.n_layers, model.cfg.n_heads))
        for batch, _, layers in layer_patterns(model, block, seed):
            weight = torch.from_numpy(weights[batch])
            for layer, pattern in enumerate(layers):
                each = torch.special.entr(pattern.double().cpu()).sum(dim=-1)  # [item, head, query]
                sums[layer] += torch.einsum("ihq,iq->h", each, weight).numpy()
        columns.append(sums)
    return np.stack(columns, axis=-1)
