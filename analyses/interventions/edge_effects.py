"""The effect of sets of edges on pairs: what ``path_patching`` reports and ``circuit`` starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from analyses.interventions.edge_sweep import EdgeSet, check_edges, sweep_edges
from analyses.interventions.edges import EdgePatcher
from analyses.interventions.items import Tokens, asked, chosen_pairs, cut, order_of_length
from analyses.interventions.metrics import Metric, ScoredTokens, metric_of, scored_tokens
from analyses.interventions.patch import Positions
from analyses.interventions.stand_ins import Ablated
from analyses.interventions.trace import Weights, in_float64, require_finite, trace
from analyses.models import batches_of
from mechproc.model.hooked import HookedTransformer
from mechproc.result import Label

Direction = Literal["corrupt_into_clean", "clean_into_corrupt"]
CHECKED_PAIRS = 4
"""Pairs on which edges are held to the hooked model first."""


def asked_pairs(
    items: Any, pair: str | None, tokens: Tokens, positions: Positions, seed: int, n_items: int | None
) -> tuple[Ablated, np.ndarray, dict[str, Any]]:
    """The pairs that are measured, longest first; the number of each among those given; and the settings to record."""
    given, settings = chosen_pairs(items, pair, seed, n_items)
    kept, pairs = asked(given, tokens)
    if positions is not None and np.ndim(positions) == 2 and len(positions) == len(given):
        positions = np.asarray(positions)[kept]
    order = order_of_length(pairs.clean)
    settings["n_pairs_left_out"] = len(given) - len(kept)
    return Ablated(pairs.clean, corrupt=pairs.corrupt).take(order, positions), kept[order], settings


def measure(
    model: HookedTransformer,
    chosen: Ablated,
    sets: Sequence[EdgeSet],
    metric: Metric,
    direction: Direction,
    label: Label,
) -> tuple[np.ndarray, dict[str, float]]:
    """The effect of each set of edges on each pair, float64 [set, pair]; and the scores of the two runs."""
    model.require_no_hooks()
    model = in_float64(model)
    weights, cells = Weights.of(model), model.cfg.input == "vectors"
    effects, own = [], {"clean": [], "corrupt": [], "accuracy": []}
    for batch in batches_of(chosen.items):
        clean, corrupt = (cut(block.take(batch)) for block in (chosen.pairs.clean, chosen.pairs.corrupt))
        runs = [trace(weights, clean), trace(weights, corrupt)]
        for each in runs:
            require_finite(each.logits, label)
        if batch.start == 0:
            check_edges(model, clean.take(slice(CHECKED_PAIRS)), corrupt.take(slice(CHECKED_PAIRS)))
        tokens = scored_tokens(clean, weights.state["embed.W_E"].device, corrupt, cells)
        by_pair = _ByPair(tokens, len(clean))
        scores = [by_pair(metric(each.logits[each.real].double(), tokens)) for each in runs]
        own["clean"].append(scores[0])
        own["corrupt"].append(scores[1])
        own["accuracy"].append(by_pair(metric_of("accuracy")(runs[0].logits[runs[0].real].double(), tokens)))
        forwards = direction == "corrupt_into_clean"
        paths = EdgePatcher(*(runs if forwards else runs[::-1]))
        found = np.empty((len(sets), len(clean)))
        for indices, logits in sweep_edges(paths, sets, chosen.positions_of(batch)):
            for index, one in zip(indices, logits, strict=True):
                patched = by_pair(metric(one[paths.clean.real].double(), tokens))
                found[index] = metric.sign * (scores[0] - patched if forwards else patched - scores[1])
        effects.append(found)
    return np.concatenate(effects, axis=1), {name: float(np.concatenate(x).mean()) for name, x in own.items()}


class _ByPair:
    """The mean over the tokens of each pair: float64 [token] -> [pair]."""

    def __init__(self, tokens: ScoredTokens, n_pairs: int) -> None:
        self.item, self.n = tokens.item, n_pairs
        self.counts = torch.bincount(tokens.item, minlength=n_pairs)

    def __call__(self, scores: torch.Tensor) -> np.ndarray:
        return (torch.bincount(self.item, scores, minlength=self.n) / self.counts).cpu().numpy()
