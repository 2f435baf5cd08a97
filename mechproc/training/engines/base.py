"""What makes the updates. The loop decides when; an engine decides how.

``ReferenceEngine`` is plain PyTorch and the oracle that faster engines are held to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from mechproc.errors import TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward, loss_and_correct
from mechproc.model.state import State
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.dropout import PhiloxDropout
from mechproc.training.evaluate import Score, evaluate
from mechproc.training.optimizer import AdamW, Frozen
from mechproc.training.schedule import learning_rate


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything that the next update depends on, besides its batch and its step."""

    weights: State
    exp_avg: State
    """Adam's first moments."""
    exp_avg_sq: State
    """Adam's second moments."""


@runtime_checkable
class Engine(Protocol):
    """Makes updates; made from (cfg, state, training, seed, frozen)."""

    @property
    def weights(self) -> State:
        """The weights as they are now. They change with the next step: copy what is kept."""
        ...

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        """Make update ``step``; return loss (nats) and gradient norm, both before it.

        Raises ``TrainingError`` that names the step, and changes no weight, when one of them is not finite.
        """
        ...

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Teacher-forced scores of the weights as they are now, without dropout."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy of the weights and moments."""
        ...

    def restore(self, snapshot: Snapshot, step: int) -> None:
        """Go on from ``snapshot``, taken when ``step`` updates had been made."""
        ...


class ReferenceEngine:
    """An ``Engine`` of forward, backward, clipping and AdamW in PyTorch."""

    def __init__(
        self, cfg: ModelConfig, state: State, training: TrainingConfig, seed: int, frozen: Frozen | None = None
    ) -> None:
        self.cfg, self.training, self.seed = cfg, training, seed
        self.adamw = AdamW(state, training, frozen)

    @property
    def weights(self) -> State:
        return self.adamw.weights

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        dropout = (
            PhiloxDropout(self.training.dropout, self.seed, step, self.cfg.n_ctx) if self.training.dropout else None
        )
        logits = forward(self.weights, self.cfg, batch.inputs, batch.positions, dropout)
        loss, _ = loss_and_correct(logits, batch.targets, batch.real)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {step}")
        self.adamw.clear()
        loss.backward()
        norm = self.adamw.update(learning_rate(self.training, step))
        if not math.isfinite(norm):
            raise TrainingError(f"the norm of the gradient is {norm} at step {step}")
        return value, norm

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        return evaluate(self.weights, self.cfg, batches)

    def snapshot(self) -> Snapshot:
        weights = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        return Snapshot(weights, *self.adamw.moments())

    def restore(self, snapshot: Snapshot, step: int) -> None:
        self.adamw.load(snapshot.weights, snapshot.exp_avg, snapshot.exp_avg_sq, step)
