"""Teacher-forced scores of a model on items that it is not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward, loss_and_correct
from mechproc.model.state import State
from mechproc.training.data import Batch


@dataclasses.dataclass(frozen=True)
class Score:
    """How well items were predicted: the true tokens are always given up to the one that is predicted."""

    loss: float
    """Mean cross-entropy over the scored tokens, in nats."""
    n_correct: np.ndarray
    """int64 [item]: scored tokens (of vectors, cells) that were the most probable prediction."""
    n_scored: np.ndarray
    """int64 [item]: scored tokens (cells)."""
    correct_by_position: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """int64 [position]: the same by scored position, the first of every item, the second, and so on."""
    scored_by_position: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """int64 [position]."""

    @classmethod
    def of(cls, total_loss: float, correct: list[np.ndarray], scored: list[np.ndarray]) -> Score:
        """The score of several batches: the loss summed over all scored tokens, and of each batch the correct and the
        scored tokens (cells), both int [item, position]."""
        width = max(counts.shape[1] for counts in scored)
        by_item = [np.concatenate([counts.sum(1) for counts in batches]) for batches in (correct, scored)]
        by_position = np.zeros((2, width), dtype=np.int64)
        for row, batches in zip(by_position, (correct, scored), strict=True):
            for counts in batches:
                row[: counts.shape[1]] += counts.sum(0)
        return cls(total_loss / float(by_item[1].sum()), *by_item, *by_position)

    @property
    def token_accuracy(self) -> float:
        """The share of the scored tokens that is predicted, from 0 to 1."""
        return float(self.n_correct.sum() / self.n_scored.sum())

    @property
    def item_accuracy(self) -> float:
        """The share of the items of which every scored token is predicted, from 0 to 1."""
        return float((self.n_correct == self.n_scored).mean())


class Tally:
    """Adds up the score of one model, batch after batch."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.correct: list[np.ndarray] = []
        self.scored: list[np.ndarray] = []

    def add(self, loss: float, hits: Bool[Tensor, "batch scored *cell"], real: Bool[Tensor, "batch scored"]) -> None:
        """A batch: the sum of its losses in nats and which of its scored tokens (cells) were right."""
        n_scored = real * (1 if hits.ndim == 2 else hits.shape[2])
        self.loss += loss
        self.correct.append((hits.long() if hits.ndim == 2 else hits.sum(2)).cpu().numpy())
        self.scored.append(n_scored.long().cpu().numpy())

    def score(self) -> Score:
        """The score on all batches so far; there is one."""
        return Score.of(self.loss, self.correct, self.scored)


@torch.no_grad()
def evaluate(state: State, cfg: ModelConfig, batches: Iterable[Batch]) -> Score:
    """Score a model without dropout; items come in the order of ``batches``."""
    tally = Tally()
    for batch in batches:
        loss, hits = loss_and_correct(forward(state, cfg, batch.inputs, batch.positions), batch.targets, batch.real)
        tally.add(float(loss) * hits[batch.real].numel(), hits, batch.real)
    return tally.score()
