"""What makes the updates. The loop decides when; an engine decides how.

``Engine`` makes an update from a loss and its gradient; a subclass says how those are computed. ``ReferenceEngine`` is
plain PyTorch and the oracle that faster engines are compared with.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch

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
class Worker(Protocol):
    """Whoever makes the updates of one training: an ``Engine``, or a member of a population."""

    @property
    def weights(self) -> State:
        """The weights as they are now. They change with the next step: copy what is kept."""
        ...

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        """Make update ``step``; return loss (nats) and gradient norm, both before it."""
        ...

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Teacher-forced scores of the weights as they are now, without dropout."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy of weights and moments, on the CPU."""
        ...

    def restore(self, snapshot: Snapshot, step: int) -> None:
        """Go on from ``snapshot``, taken when ``step`` updates had been made."""
        ...

    def close(self) -> None:
        """Nothing more is asked of it."""
        ...


class Engine(ABC):
    """Makes the updates of one training: loss, gradient, clipping and AdamW."""

    def __init__(
        self, cfg: ModelConfig, state: State, training: TrainingConfig, seed: int, frozen: Frozen | None = None
    ) -> None:
        """``seed`` decides the dropout; ``frozen`` says which entries of which tensors never change."""
        self.cfg, self.training, self.seed = cfg, training, seed
        self.adamw = AdamW(state, training, frozen)

    @abstractmethod
    def loss_and_gradient(self, batch: Batch, step: int) -> float:
        """Write the gradient of the batch's mean loss to ``self.adamw.gradient``, with the dropout of ``step``; return
        that loss in nats. The batch has a scored position."""

    @abstractmethod
    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Teacher-forced scores of the weights as they are now, without dropout."""

    @property
    def weights(self) -> State:
        """The weights as they are now. They change with the next step: copy what is kept."""
        return self.adamw.weights

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        """Make update ``step``; return loss (nats) and gradient norm, both before it.

        Raises ``TrainingError`` that names the step, and changes no weight, when the batch has no scored position or
        a weight, the loss or the norm of the gradient is not finite.
        """
        if not bool(batch.real.any()):
            raise TrainingError(f"the loss is nan at step {step}: its batch has no scored position")
        flat = self.adamw.flat.detach()  # their sum is finite as a rule, and much faster to ask
        if not math.isfinite(flat.sum().item()) and not bool(torch.isfinite(flat).all()):
            raise TrainingError(f"a weight is not finite at step {step}")
        loss = self.loss_and_gradient(batch, step)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step}")
        norm = self.adamw.update(learning_rate(self.training, step))
        if not math.isfinite(norm):
            raise TrainingError(f"the norm of the gradient is {norm} at step {step}")
        return loss, norm

    def dropout(self, step: int, first_item: int = 0) -> PhiloxDropout | None:
        """The dropout of ``step`` for items from the batch's ``first_item`` on; ``None`` at a rate of zero."""
        rate = self.training.dropout
        return PhiloxDropout(rate, self.seed, step, self.cfg.n_ctx, first_item) if rate else None

    def snapshot(self) -> Snapshot:
        """A copy of weights and moments, on the CPU."""
        weights = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        return Snapshot(*map(_on_cpu, (weights, *self.adamw.moments())))

    def restore(self, snapshot: Snapshot, step: int) -> None:
        """Go on from ``snapshot``, taken when ``step`` updates had been made."""
        self.adamw.load(snapshot.weights, snapshot.exp_avg, snapshot.exp_avg_sq, step)

    def close(self) -> None:  # noqa: B027  (a subclass may do nothing)
        """Nothing more is asked of it; its memory is freed with it."""


class ReferenceEngine(Engine):
    """An engine of one forward and one backward pass in PyTorch."""

    def loss_and_gradient(self, batch: Batch, step: int) -> float:
        logits = forward(self.weights, self.cfg, batch.inputs, batch.positions, self.dropout(step))
        loss, _ = loss_and_correct(logits, batch.targets, batch.real)
        self.adamw.clear()
        loss.backward()
        return loss.item()

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        return evaluate(self.weights, self.cfg, batches)


def _on_cpu(state: State) -> State:
    return {name: tensor.cpu() for name, tensor in state.items()}
