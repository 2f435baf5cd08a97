"""What an intervention is measured by: accuracy, loss, logit difference, or a function of one's own.

Every metric gives one score for each scored token. ``higher_is_better`` says which change is a loss of performance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mechproc.errors import ConfigError, require
from mechproc.procedures.base import Items


@dataclasses.dataclass(frozen=True)
class ScoredTokens:
    """What is known of the scored tokens, in the order of items and positions."""

    targets: Tensor
    """int64 [token], the right token; or float32 [token, cell], 0 or 1, for models that read vectors."""
    foils: Tensor | None
    """int64 [token]: the right token of the corrupt partner; ``None`` without pairs."""
    item: Tensor
    """int64 [token]: the item of each token."""
    position: Tensor
    """int64 [token]: where the prediction is made."""


Function = Callable[[Tensor, ScoredTokens], Tensor]
"""Logits float64 [token, d_vocab] and what is known of the tokens -> one score for each token, [token]."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score for each scored token, with its unit and direction."""

    name: str
    unit: str
    higher_is_better: bool
    function: Function

    @property
    def change(self) -> str:
        """The name of a change for the worse: ``"accuracy lost"``, ``"loss gained"``."""
        return f"{self.name} {'lost' if self.higher_is_better else 'gained'}"

    @property
    def sign(self) -> float:
        """What makes the intact score less the changed one positive where the intervention hurts."""
        return 1.0 if self.higher_is_better else -1.0

    def __call__(self, logits: Tensor, tokens: ScoredTokens) -> Tensor:
        """The scores, float64 [token]. Errors: ``ConfigError`` for a result of another shape or not finite."""
        scores: Any = self.function(logits, tokens)
        expected = f"a tensor of shape [{len(tokens.item)}], one score for each scored token"
        require(isinstance(scores, Tensor), f"result of metric {self.name!r}", type(scores).__name__, expected)
        shape = list(scores.shape)
        require(shape == [len(tokens.item)], f"result of metric {self.name!r}", f"shape {shape}", expected)
        require(bool(torch.isfinite(scores).all()), f"result of metric {self.name!r}", "NaN or infinity", "finite")
        return scores.detach().double()


def _accuracy(logits: Tensor, tokens: ScoredTokens) -> Tensor:
    if tokens.targets.ndim == 2:
        return ((logits > 0) == (tokens.targets > 0.5)).double().mean(-1)
    return (logits.argmax(-1) == tokens.targets).double()


def _loss(logits: Tensor, tokens: ScoredTokens) -> Tensor:
    if tokens.targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, tokens.targets.to(logits), reduction="none").mean(-1)
    return F.cross_entropy(logits, tokens.targets, reduction="none")


def _logit_diff(logits: Tensor, tokens: ScoredTokens) -> Tensor:
    if tokens.foils is None or tokens.targets.ndim == 2:
        raise ConfigError("metric = 'logit_diff' is not allowed: it needs clean and corrupt pairs of token items")
    right, other = (logits.gather(-1, t[:, None])[:, 0] for t in (tokens.targets, tokens.foils))
    return right - other


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "fraction", True, _accuracy),
    "loss": Metric("loss", "nats", False, _loss),
    "logit_diff": Metric("logit difference", "logits", True, _logit_diff),
}
"""``accuracy``: the most probable token is right (of vectors: the share of right cells). ``loss``: cross-entropy in
nats (of vectors: binary, mean over cells). ``logit_diff``: the logit of the right token less that of the corrupt
partner's."""


def metric_of(metric: str | Metric | Function) -> Metric:
    """A metric by name, or from a function of one's own, whose higher scores are taken to be better.

    Give a ``Metric`` to say its unit and direction. Errors: ``ConfigError``.
    """
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return Metric(getattr(metric, "__name__", "own metric"), "units of the metric", True, metric)
    require(metric in METRICS, "metric", metric, f"one of {', '.join(METRICS)}, a Metric, or a function")
    return METRICS[metric]


def key_of(metric: Metric) -> str:
    """The name that a metric is asked for by; of one's own, its name."""
    return next((key for key, known in METRICS.items() if known is metric), metric.name)


def scores_of_rows(metric: Metric, logits: Tensor, tokens: ScoredTokens) -> Tensor:
    """The scores of many runs over the same tokens: logits [row, token, d_vocab] -> float64 [row, token]."""
    if metric not in METRICS.values():  # one of the user's own sees one run at a time
        return torch.stack([metric(row, tokens) for row in logits])
    n = len(logits)
    every = dataclasses.replace(
        tokens,
        targets=tokens.targets.repeat(n, *[1] * (tokens.targets.ndim - 1)),
        foils=None if tokens.foils is None else tokens.foils.repeat(n),
        item=tokens.item.repeat(n),
        position=tokens.position.repeat(n),
    )
    return metric(logits.flatten(0, 1), every).view(n, -1)


def scored_tokens(items: Items, device: Any = "cpu", foils: Items | None = None, cells: bool = False) -> ScoredTokens:
    """The scored tokens of ``items``; ``foils`` are the corrupt partners, ``cells`` for models that read vectors."""
    item, position = np.nonzero(items.scored)

    def target(of: Items) -> Tensor:
        if not cells:
            return torch.from_numpy(of.targets[item, position]).to(device)
        if of.vectors is None:
            raise ConfigError("items have no vectors: the model has input = 'vectors'")
        return torch.from_numpy(of.vectors[item, position + 1]).to(device)

    return ScoredTokens(
        targets=target(items),
        foils=None if foils is None or cells else target(foils),
        item=torch.from_numpy(item).to(device),
        position=torch.from_numpy(position).to(device),
    )
