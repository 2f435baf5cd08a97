"""Heads matched by what they do: by their rank on a target, within each model."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from analyses.attention.reading import NOT_USED
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.result import Label, Result


def match_heads(scores: Result, mask: str) -> dict[Label, list[str]]:
    """The heads of each seed, such as ``"L1.H2"``, from the one with the highest score on ``mask`` to the lowest.

    All layers together, ties in the order of the forward pass. ``figures.ablation_map(matched=...)`` takes it. The
    best of several heads is a maximum: even heads that do nothing in particular have one above their mean. Hold rank 1
    against rank 1 of models without the structure, not against uniform attention alone.
    """
    values, names = _flat(scores)
    of_mask = values[scores.coordinates["mask"].index(mask)] if mask in scores.coordinates["mask"] else None
    if of_mask is None:
        known = [str(each) for each in scores.coordinates["mask"]]
        raise ConfigError(f"mask {mask!r} is not one of {', '.join(known)}{nearest(mask, known)}")
    require(not np.isnan(of_mask).any(), "mask", mask, "a target that the items have")
    order = np.argsort(-of_mask, axis=0, kind="stable")
    return {seed: [names[i] for i in order[:, column]] for column, seed in enumerate(scores.coordinates["seed"])}


@dataclasses.dataclass(frozen=True)
class BestHeads:
    """The head of each model that attends most to a target: heads of different models matched by what they do."""

    mask: str
    heads: dict[Label, str]
    """By seed, such as ``"L1.H2"``."""
    scores: dict[Label, float]
    """By seed, the score of that head, a fraction."""
    baselines: dict[str, float]
    """What ``uniform attention`` scores, and the best head of any of the ``untrained models``, where that is known."""

    @property
    def above(self) -> list[Label]:
        """The seeds whose best head is above every baseline."""
        return [seed for seed, score in self.scores.items() if score > max(self.baselines.values(), default=-1.0)]

    def sentence(self) -> str:
        """``"In 7 of 10 seeds the best head for 'answer' is above ..."``, with the range of the scores."""
        levels = ", ".join(f"{name} {score:.3f}" for name, score in self.baselines.items()) or "no baseline known"
        low, high = min(self.scores.values()), max(self.scores.values())
        return (
            f"In {len(self.above)} of {len(self.scores)} seeds the best head for {self.mask!r} is above its baselines "
            f"({levels}): its score is {low:.3f} to {high:.3f}."
        )


def best_heads(scores: Result) -> dict[str, BestHeads]:
    """For each target the best head of each model, and in how many seeds it is above the baselines; by mask.

    ``scores`` is what ``run`` gives, or ``scores``, which knows no untrained models. The best of several heads is a
    maximum, and so it is held against the best head of untrained models, not against a mean. A target that is
    undefined is left out. A seed is one count: heads of different seeds are never averaged by their index.
    """
    values, _ = _flat(scores)
    uniform = {mask: {"uniform attention": score} for mask, score in scores.metadata.get("uniform", {}).items()}
    baselines = {**uniform, **scores.metadata.get("baselines", {})}
    found = {}
    for row, mask in enumerate(map(str, scores.coordinates["mask"])):
        if np.isnan(values[row]).any():
            continue
        heads = {seed: ranked[0] for seed, ranked in match_heads(scores, mask).items()}
        best = dict(zip(heads, values[row].max(axis=0).tolist(), strict=True))
        found[mask] = BestHeads(mask, heads, best, baselines.get(mask, {}))
    return found


def by_rank(scores: Result) -> Result:
    """The scores of heads matched by function: axes ``mask``, ``rank`` (1 is the best head) and ``seed``.

    The heads of each seed are in the order of ``match_heads`` for each mask.
    """
    values, _ = _flat(scores)
    order = np.argsort(-values, axis=1, kind="stable")
    return _by_rank(scores, np.take_along_axis(values, order, axis=1), {})


def before_after(before: Result, after: Result, ranked_by: Literal["before", "after"] = "after") -> Result:
    """The same heads before and after a training: axes ``mask``, ``when``, ``rank`` and ``seed``.

    Both are what ``scores`` gives, for the same masks and seeds. The heads of each seed are ranked by their score at
    ``ranked_by``, and each keeps its rank in the other: within one run a head is the same head. Ranking favours the
    side it is done by, whose top scores are in part luck; what speaks for a pattern that was there before is a high
    ``before`` under ``ranked_by="after"``. Which head has which rank is ``match_heads(after, mask)``, or of ``before``.
    """
    require(ranked_by in ("before", "after"), "ranked_by", ranked_by, "'before' or 'after'")
    for field in ("axes", "coordinates"):
        ours, theirs = getattr(before, field), getattr(after, field)
        require(ours == theirs, f"{field} after", theirs, f"those before, {ours}")
    (first, _), (second, _) = _flat(before), _flat(after)
    order = np.argsort(-(second if ranked_by == "after" else first), axis=1, kind="stable")
    both = np.stack([np.take_along_axis(values, order, axis=1) for values in (first, second)], axis=1)
    return _by_rank(before, both, {"when": ["before", "after"]}, ranked_by=ranked_by)


# ---- inside ----------------------------------------------------------------------------------------------------------


def _flat(scores: Result) -> tuple[np.ndarray, list[str]]:
    """Values [mask, head of any layer, seed] and the heads' names."""
    axes = ("mask", "layer", "head", "seed")
    require(tuple(scores.axes) == axes, f"axes of {scores.name!r}", tuple(scores.axes), f"{axes}, as scores gives them")
    n_masks, n_layers, n_heads, n_seeds = scores.values.shape
    names = [f"L{layer}.H{head}" for layer in scores.coordinates["layer"] for head in scores.coordinates["head"]]
    return scores.values.reshape(n_masks, n_layers * n_heads, n_seeds), names


def _by_rank(
    scores: Result,
    values: np.ndarray,
    inner: dict[str, list[str]],
    **metadata: Any,
) -> Result:
    ranks = list(range(1, values.shape[-2] + 1))
    seeds, masks = scores.coordinates["seed"], scores.coordinates["mask"]
    return Result(
        name=scores.name,
        values=values,
        axes=("mask", *inner, "rank", "seed"),
        coordinates={"mask": masks, **inner, "rank": ranks, "seed": seeds},
        unit=scores.unit,
        direction=scores.direction,
        what_it_does_not_show=f"that a rank is one head: in each seed it is whichever scored so. Nor {NOT_USED}.",
        undefined=scores.undefined,
        metadata={**scores.metadata, **metadata},
    )
