"""Edges on pairs and questions that the contrast is not about: what decides how strong an edge of a circuit must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.edge_effects import asked_pairs, measure
from analyses.interventions.edge_sweep import EdgeSet
from analyses.interventions.edges import Edge, edges
from analyses.interventions.items import Pairs, Tokens
from analyses.interventions.metrics import METRICS, Metric, ScoredTokens
from mechproc.errors import ConfigError
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Procedure
from mechproc.result import Label

RANDOM = "two random tokens"
UNCHANGED = "unchanged answers"
MAX_UNCHANGED = 64
"""Pairs of a procedure whose unchanged answers are measured: each has many."""


def edge_effects(
    model: HookedTransformer,
    items: Procedure | Pairs,
    pair: str | None,
    metric: Metric = METRICS["logit_diff"],
    tokens: Tokens = "changed",
    *,
    label: Label = 0,
    seed: int = 0,
    n_items: int | None = None,
) -> tuple[dict[Edge, float], dict[str, float]]:
    """The mean effect (logits) of each edge, corrupt into clean; and the mean scores of the clean and corrupt run."""
    every = edges(model.cfg)
    chosen, _, _ = asked_pairs(items, pair, tokens, None, seed, n_items)
    sets = [EdgeSet(edge.receiver, (edge.sender,)) for edge in every]
    effects, scores = measure(model, chosen, sets, metric, "corrupt_into_clean", label)
    return dict(zip(every, effects.mean(1).tolist(), strict=True)), scores


def control_effects(
    model: HookedTransformer,
    items: Procedure | Pairs,
    pair: str | None,
    kinds: Sequence[str],
    *,
    label: Label,
    seed: int,
    n_items: int | None,
) -> dict[str, dict[Edge, float]]:
    """The effect of each edge where nothing that the contrast asks about is asked, by control.

    - ``two random tokens``: the pairs of the contrast, and two tokens drawn at random for each answer in place of the
      right one and the corrupt one;
    - ``unchanged answers``: the pairs of the contrast, at scored tokens whose answer is the same in both items, where
      there are any: its logit less that of a random token;
    - each of ``kinds``: pairs of that kind, measured in the same way at their unchanged answers.
    """
    found = {RANDOM: edge_effects(model, items, pair, RANDOM_TOKENS, label=label, seed=seed, n_items=n_items)[0]}
    few = None if n_items is None else min(n_items, MAX_UNCHANGED)
    items = items.take(slice(MAX_UNCHANGED)) if isinstance(items, Pairs) else items
    for kind in (None, *kinds):
        of_kind, name = (pair, UNCHANGED) if kind is None else (kind, f"{UNCHANGED} of {kind}")
        try:
            found[name] = edge_effects(
                model, items, of_kind, RANDOM_FOIL, "unchanged", label=label, seed=seed, n_items=few
            )[0]
        except ConfigError:
            if kind is not None:
                raise
    return found


def size(effects: Mapping[Edge, float], quantile: float) -> float:
    """A quantile of the sizes of the effects of those edges that change anything at all (0 where none does)."""
    sizes = np.abs([effect for effect in effects.values() if effect != 0])
    return float(np.quantile(sizes, quantile)) if len(sizes) else 0.0


def _random_foil(logits: Tensor, tokens: ScoredTokens) -> Tensor:
    (other,) = _drawn(logits, tokens, 1)
    other = torch.where(other >= tokens.targets, other + 1, other)
    return _of(logits, tokens.targets) - _of(logits, other)


def _random_tokens(logits: Tensor, tokens: ScoredTokens) -> Tensor:
    first, second = _drawn(logits, tokens, 2)
    return _of(logits, first) - _of(logits, torch.where(second >= first, second + 1, second))


def _drawn(logits: Tensor, tokens: ScoredTokens, n: int) -> Tensor:
    """``n`` random tokens but padding and the last, for each scored token; the same for every run over a batch."""
    rng = np.random.default_rng([int(tokens.targets.sum()), int(tokens.position.sum()), n])
    return torch.from_numpy(rng.integers(1, logits.shape[-1] - 1, (n, len(tokens.item)))).to(logits.device)


def _of(logits: Tensor, token: Tensor) -> Tensor:
    return logits.gather(-1, token[:, None])[:, 0]


RANDOM_FOIL = Metric("logit difference to a random token", "logits", True, _random_foil)
RANDOM_TOKENS = Metric("logit difference of random tokens", "logits", True, _random_tokens)
